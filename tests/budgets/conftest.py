"""Budget tests: real spans become real charges, evaluated on real connections, with a clock that the test holds."""

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import count
from typing import Any

import psycopg
import pytest

from costapp.models import Budget, Channel, Project
from costapp.services.drain import drain
from costapp.services.evaluate_budgets import Outcome, evaluate
from costapp.storage import budgets as store
from tests import pipeline

USD = 1_000_000_000
NOW = datetime(2026, 5, 29, 12, 0, tzinfo=UTC)
TABLES = "alert, alert_event, notification, budget_period, budget_reading"
traces = count(1)


@pytest.fixture
def conn(transactional_db: None) -> Iterator[psycopg.Connection[Any]]:
    with pipeline.open_connection() as connection:
        empty(connection)
        yield connection
        empty(connection)


def empty(connection: psycopg.Connection[Any]) -> None:
    pipeline.empty(connection)
    connection.execute(f"truncate {TABLES}")


@pytest.fixture
def project(conn: psycopg.Connection[Any]) -> Project:
    project = Project.objects.create(slug="acme", name="Acme", time_zone="Europe/Berlin")
    pipeline.price(project)
    return project


@pytest.fixture
def channel(project: Project) -> Channel:
    return Channel.objects.create(project=project, name="#finops", kind=Channel.Kind.WEBHOOK)


def spend(conn: psycopg.Connection[Any], project: Project, dollars: int, at: datetime = NOW, **facts: Any) -> int:
    """One call of so many dollars; returns the number of its trace."""
    number, start_ns = next(traces), int(at.timestamp()) * pipeline.SECOND_NS
    model = {name: facts.pop(name) for name in ("model_requested", "model_responded") if name in facts}
    spans = [
        pipeline.root(number, start_ns=start_ns, **facts),
        pipeline.call(number, start_ns=start_ns, input=dollars * 400_000, output=0, **model),
    ]
    pipeline.store(conn, spans, project_id=project.pk)
    drain(conn)
    return number


def make(project: Project, channel: Channel | None = None, **fields: Any) -> Budget:
    budget = Budget(**({"project": project, "name": "All", "amount_nano": 100 * USD} | fields))
    budget.full_clean()
    budget.save()
    if channel:
        budget.channels.add(channel)
    return budget


def look(conn: psycopg.Connection[Any], budget: Budget, now: datetime = NOW) -> Outcome:
    return evaluate(conn, budget.project_id, budget.pk, now=now)


def titles(conn: psycopg.Connection[Any], kind: str = "opened") -> list[str]:
    """Of what people were told, in order."""
    return [
        row[0]
        for row in conn.execute(
            """select event.title from notification join alert_event event
                   on event.project_id = notification.project_id and event.id = notification.event_id
               where event.kind = %s order by event.id""",
            (kind,),
        )
    ]


def open_alerts(conn: psycopg.Connection[Any]) -> list[str]:
    return [row[0] for row in conn.execute("select key from alert where state = 'open' order by id")]


def reading(conn: psycopg.Connection[Any], budget: Budget, subject: str = "", key: str = "2026-05-01") -> store.Reading:
    return store.readings(conn, budget.project_id, budget.pk, datetime.fromisoformat(key).date())[subject]
