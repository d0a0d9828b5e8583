"""Two weeks of a small company, built once: two features, a working day, and then something breaks."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, NamedTuple

import psycopg
import pytest
from django.db import connections

from costapp.models import Channel, Project
from costapp.services.drain import drain
from costapp.web import palette
from tests import pipeline
from tests.pipeline import SECOND_NS, call, root

START = datetime(2026, 5, 4, 0, 0, tzinfo=UTC)  # a Monday
DAYS = 15
#: When version v7 of the support bot's prompt goes out: Tuesday, 10:00 in Berlin.
BROKE = START + timedelta(days=DAYS, hours=8)
MENDED = BROKE + timedelta(hours=3)
OWN_TABLES = "costapp_project, costapp_pricelist, costapp_channel, auth_user, django_session"


class World(NamedTuple):
    conn: psycopg.Connection[Any]
    project: Project
    channel: Channel

    def rows(self, sql: str, *values: Any) -> list[Any]:
        found = self.conn.execute(sql.encode(), values).fetchall()
        return [row[0] if len(row) == 1 else row for row in found]

    def traffic(self, first: int, since: datetime, until: datetime, **more: Any) -> int:
        """Calls of both features in every hour of a time, through the pipeline. Returns the next trace number."""
        spans = list(_calls(first, since, until, **more))
        pipeline.store(self.conn, spans, project_id=self.project.pk)
        drain(self.conn)
        return first + len(spans) // 2


def _calls(
    first: int, since: datetime, until: datetime, *, version: str = "v6", tokens: int = 100_000
) -> Iterator[Any]:
    rng, number = Random(f"{first}{since}"), first
    for hour in range(int((until - since) / timedelta(hours=1))):
        at = since + timedelta(hours=hour)
        for name, size, said in (("support-bot", tokens, version), ("search", 60_000, "s1")):
            for _ in range(rng.choice((8, 9, 10)) if 6 <= at.hour <= 18 else 3):
                start_ns = int((at + timedelta(minutes=rng.uniform(0, 59))).timestamp() * SECOND_NS)
                who = {"user": f"u-{rng.randrange(20)}", "session": f"s-{number}"}
                yield root(number, start_ns=start_ns, feature=name, prompt_version=said, team="care", **who)
                model = rng.choice(("gpt-4o", "gpt-4o-mini"))
                yield call(
                    number,
                    start_ns=start_ns + SECOND_NS,
                    model_requested=model,
                    model_responded=model,
                    input=int(size * rng.uniform(0.9, 1.1)),
                    output=500,
                )
                number += 1


@pytest.fixture(scope="module")
def world(django_db_setup: None, django_db_blocker: Any) -> Iterator[World]:
    with django_db_blocker.unblock(), pipeline.open_connection() as conn:
        _clear(conn)
        project = Project.objects.create(slug="acme", name="Acme", time_zone="Europe/Berlin")
        pipeline.price(project)
        channel = Channel.objects.create(project=project, name="#finops", kind=Channel.Kind.WEBHOOK)
        made = World(conn, project, channel)
        number = made.traffic(1, START, BROKE)
        number = made.traffic(number, BROKE, MENDED, version="v7", tokens=310_000)
        made.traffic(number, MENDED, BROKE + timedelta(hours=36))
        yield made
        _clear(conn)
        connections.close_all()


def _clear(conn: psycopg.Connection[Any]) -> None:
    pipeline.empty(conn)
    conn.execute(f"truncate {OWN_TABLES} cascade")
    palette.forget()


@pytest.fixture(autouse=True)
def nothing_found(world: World) -> None:
    """Each test begins without anomalies and alerts."""
    world.conn.execute("truncate anomaly, anomaly_pulse, alert, alert_event, notification")
