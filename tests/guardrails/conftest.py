"""Guardrail tests run real transactions; calls happen around the real now, because only recent ones count."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from costapp.core.values import Span
from costapp.models import Channel, Guardrail, Project
from costapp.services.drain import drain
from costapp.services.guardrails.judge import judge
from tests import pipeline
from tests.pipeline import SECOND_NS, call, price, root, store


@pytest.fixture
def conn(transactional_db: None) -> Iterator[psycopg.Connection[Any]]:
    with pipeline.open_connection() as connection:
        pipeline.empty(connection)
        yield connection
        pipeline.empty(connection)


@pytest.fixture
def project(conn: psycopg.Connection[Any]) -> Project:
    made = Project.objects.create(slug="acme", name="Acme")
    price(made)
    return made


@pytest.fixture
def channel(project: Project) -> Channel:
    return Channel.objects.create(project=project, name="#finops", kind=Channel.Kind.WEBHOOK)


@pytest.fixture
def now() -> datetime:
    return datetime.now(UTC)


def guardrail(project: Project, *channels: Channel, **fields: Any) -> Guardrail:
    made = Guardrail.objects.create(
        project=project, **{"name": "Runaway session", "limit_value": Decimal(10), "minutes": 5} | fields
    )
    made.channels.set(channels)
    return made


def calls(
    number: int, *, at: datetime, session: str = "s-1", user: str = "ann", feature: str = "bot", first: int = 1,
    step_s: int = 1, trace: int = 0, **facts: Any,
) -> list[Span]:  # fmt: skip
    """So many calls of one session, ``step_s`` apart, the last of them at ``at``; each in a trace of its own."""
    spans = []
    for place in range(number):
        start_ns = int((at - timedelta(seconds=(number - 1 - place) * step_s)).timestamp() * SECOND_NS)
        spans.append(
            root(trace or first + place, 1, start_ns=start_ns - 1, session=session, user=user, feature=feature)
        )
        spans.append(call(trace or first + place, 2 + place, start_ns=start_ns, **facts))
    return spans


def judged(conn: psycopg.Connection[Any], project: Project, spans: list[Span], now: datetime) -> int:
    """Send, attribute, judge: how many incidents that opened."""
    store(conn, spans, project_id=project.pk)
    drain(conn)
    return judge(conn, now=now)


def rows(conn: psycopg.Connection[Any], query: str, *values: Any) -> list[Any]:
    found = conn.execute(query.encode(), values).fetchall()
    return [row[0] if len(row) == 1 else row for row in found]
