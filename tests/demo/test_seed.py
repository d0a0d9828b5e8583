"""Seeding goes through the ordinary pipeline, can be repeated, and never touches real data."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any

import psycopg
import pytest
from django.contrib.auth import get_user_model
from django.core.management import CommandError, call_command

from costapp.models import Membership, Project
from costapp.services.import_prices import import_catalogue
from costapp.services.seed_demo.seed import Progress, seed_demo
from tests import pipeline

pytestmark = pytest.mark.django_db(transaction=True)
Connection = psycopg.Connection[Any]


@pytest.fixture
def conn(transactional_db: None) -> Iterator[Connection]:
    with pipeline.open_connection() as connection:
        pipeline.empty(connection)
        yield connection


def counted(conn: Connection, query: str) -> tuple[Any, ...]:
    row = conn.execute(query.encode()).fetchone()
    assert row is not None
    return tuple(row)


def test_three_days_become_charges_that_add_up_and_a_second_run_changes_nothing(conn: Connection) -> None:
    get_user_model().objects.create_superuser("boss")
    import_catalogue()
    now = datetime.now(UTC).replace(hour=1) + timedelta(days=0)
    told: list[Progress] = []

    project = seed_demo(conn, now=now, days=3, scale=0.02, tell=told.append)

    assert project.is_demo
    assert Membership.objects.get(project=project).user.get_username() == "boss"
    assert [progress.day for progress in told] == [now.date() - timedelta(days=ago) for ago in range(3)]
    charges, cost, features = counted(
        conn, "select count(*), sum(cost_nano), count(distinct feature) from charge where feature <> ''"
    )
    assert charges > 50
    assert features >= 8
    assert cost > 0
    for table in ("rollup_5m", "rollup_hour", "rollup_day"):
        assert counted(conn, f"select sum(requests), sum(cost_nano) from {table}") == counted(
            conn, "select count(*), sum(cost_nano) from charge"
        )

    before = pipeline.fingerprint(conn)
    seed_demo(conn, now=now, days=3, scale=0.02)
    assert pipeline.fingerprint(conn) == before


def test_a_day_that_was_seeded_young_is_completed_later_and_whole_days_are_left_alone(conn: Connection) -> None:
    import_catalogue()
    first = datetime.now(UTC).replace(hour=9)
    seed_demo(conn, now=first, days=3, scale=0.02)
    two_days_later: list[Progress] = []
    seed_demo(conn, now=first + timedelta(days=2), days=3, scale=0.02, tell=two_days_later.append)
    assert [progress.day for progress in two_days_later] == [
        first.date() + timedelta(days=ahead) for ahead in (2, 1, 0)
    ]
    assert all(progress.spans > 0 for progress in two_days_later)
    same_day: list[Progress] = []
    seed_demo(conn, now=first + timedelta(days=2, hours=1), days=3, scale=0.02, tell=same_day.append)
    assert [progress.day for progress in same_day] == [first.date() + timedelta(days=2)]


def test_the_command_says_that_the_ledger_holds(conn: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django.conf.settings.DATABASE_URL", f"{conn.info.dsn} password={conn.info.password}")
    import_catalogue()
    out = StringIO()
    call_command("seed_demo", "--days", "2", "--scale", "0.02", stdout=out)
    assert "day 2 of 2" in out.getvalue()
    assert "every invariant of the ledger holds" in out.getvalue()


def test_real_data_is_left_alone(conn: Connection) -> None:
    Project.objects.create(slug="demo", name="Our demo environment")
    with pytest.raises(CommandError, match="real data"):
        call_command("seed_demo")
    assert counted(conn, "select count(*) from span") == (0,)
