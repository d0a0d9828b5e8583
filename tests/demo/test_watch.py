"""What the demo watches: believable budgets, rules and a guardrail, with a past; and an app that obeys the guard."""

from collections.abc import Iterator
from datetime import UTC, datetime
from random import Random
from typing import Any

import psycopg
import pytest

from costapp.models import AlertRule, Budget, Guardrail
from costapp.services.drain import drain
from costapp.services.guardrails.judge import judge
from costapp.services.import_prices import import_catalogue
from costapp.services.seed_demo.live import RUNAWAY_MOST, live_traces, runaway_traces
from costapp.services.seed_demo.seed import demo_project, seed_demo
from costapp.storage.budgets import burns
from tests import pipeline

pytestmark = pytest.mark.django_db(transaction=True)
Connection = psycopg.Connection[Any]


@pytest.fixture
def conn(transactional_db: None) -> Iterator[Connection]:
    with pipeline.open_connection() as connection:
        pipeline.empty(connection)
        yield connection
        pipeline.empty(connection)


def count(conn: Connection, query: str) -> int:
    row = conn.execute(query.encode()).fetchone()
    assert row is not None
    return int(row[0])


def test_the_demo_has_budgets_near_and_over_their_limit_and_alerts_of_its_past(conn: Connection) -> None:
    import_catalogue()
    now = datetime.now(UTC)
    project = seed_demo(conn, now=now, days=24, scale=0.05)
    percent = {
        Budget.objects.get(pk=burn.reading.budget_id).name: burn.reading.spent_nano * 100 // burn.reading.limit_nano
        for burn in burns(conn, project.pk, datetime.now(UTC), per_budget=1)
    }
    assert 100 <= percent["Code assistant"] < 120
    assert 80 <= percent["Support bot"] < 100
    assert Budget.objects.filter(dimension="feature", values=[]).count() == 1
    assert AlertRule.objects.count() >= 5
    assert count(conn, "select count(*) from alert where state = 'open'") >= 2
    assert (
        count(conn, "select count(*) from alert where state = 'resolved' and opened_at < now() - interval '1 day'") >= 2
    )
    assert count(conn, "select count(*) from notification where state = 'sent'") == 0

    before = count(conn, "select count(*) from alert")
    seed_demo(conn, now=now, days=24, scale=0.05)
    assert Budget.objects.count() == len(percent)
    assert count(conn, "select count(*) from alert") == before


def test_somebodys_own_guardrail_keeps_the_demo_from_setting_any(conn: Connection) -> None:
    import_catalogue()
    Guardrail.give_first(demo_project())
    seed_demo(conn, now=datetime.now(UTC), days=1, scale=0.01)
    assert (Guardrail.objects.count(), Budget.objects.count(), AlertRule.objects.count()) == (1, 0, 0)


def test_the_session_that_runs_away_in_live_traffic_is_caught(conn: Connection) -> None:
    import_catalogue()
    now = datetime.now(UTC)
    project = seed_demo(conn, now=now, days=1, scale=0.01)
    spans = [
        span
        for _, trace in runaway_traces(datetime.now(UTC).date(), rng=Random(3), is_stopped=lambda _: False)
        for span in trace
    ]
    assert len({span.trace_id for span in spans}) == RUNAWAY_MOST
    pipeline.store(conn, spans[: len(spans) // 3], project_id=project.pk)
    drain(conn)
    assert judge(conn, now=datetime.now(UTC)) == 1
    row = conn.execute("select title, level from alert where source = 'guardrail'").fetchone()
    assert row is not None
    assert row[0].startswith("Session s-loop")
    assert row[1] == "critical"


def test_the_app_stops_when_it_is_told_to_and_ordinary_traffic_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    from costapp.services.seed_demo import live

    monkeypatch.setattr(live, "FIRST_RUNAWAY_S", 0.0)
    asked: list[str] = []

    def stopped(session: str) -> bool:
        asked.append(session)
        return len(asked) > 5

    traces = live_traces(datetime.now(UTC).date(), per_second=1000, rng=Random(4), is_stopped=stopped)
    sessions = [trace[0].facts.session for _, trace in (next(traces) for _ in range(12))]
    assert sessions[:5] == [asked[0]] * 5
    assert asked[0] not in sessions[5:]
