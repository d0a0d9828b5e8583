"""Alert tests run real transactions on real connections, with a clock that the test holds."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from costapp.core.alerts import Fact, Finding, Level, Source
from costapp.models import Channel, Project
from costapp.services import alerts, sealed
from costapp.services.deliver import Courier
from tests import pipeline
from tests.alerts.servers import Receiver, http_receiver

FIELD_KEY = "first-key-of-the-tests-" + "x" * 32
NOW = datetime(2026, 5, 29, 12, 0, tzinfo=UTC)


@pytest.fixture
def conn(transactional_db: None) -> Iterator[psycopg.Connection[Any]]:
    with pipeline.open_connection() as connection:
        pipeline.empty(connection)
        yield connection
        pipeline.empty(connection)


@pytest.fixture
def project(conn: psycopg.Connection[Any]) -> Project:
    return Project.objects.create(slug="acme", name="Acme", time_zone="Europe/Berlin")


@pytest.fixture
def channel(project: Project) -> Channel:
    return Channel.objects.create(project=project, name="#finops", kind=Channel.Kind.WEBHOOK)


def finding(project: Project, key: str = "rule/1/support-bot/x", **changes: Any) -> Finding:
    fields: dict[str, Any] = {
        "project_id": project.pk, "source": Source.RULE, "source_id": 1, "key": key, "level": Level.WARNING,
        "title": "Cost of support-bot is $81.20, above $80.00.", "subject": {"feature": "support-bot"},
        "facts": (Fact("Cost", "$81.20"), Fact("Limit", "$80.00")), "driver": "Mostly gpt-4o: 90 % of the rise.",
        "path": "/p/acme/feature/?is=support-bot", "group_key": "rule/1", "period_start": None, "period_end": None,
        "complete_until": NOW,
    }  # fmt: skip
    return Finding(**(fields | changes))


def rows(conn: psycopg.Connection[Any], sql: str, *values: Any) -> list[Any]:
    found = conn.execute(sql.encode(), values).fetchall()
    return [row[0] if len(row) == 1 else row for row in found]


class Clock:
    """Stands still until the test moves it."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now

    def move(self, **by: float) -> datetime:
        self.now += timedelta(**by)
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def receiver(settings: Any) -> Iterator[Receiver]:
    with http_receiver() as running:
        settings.ALLOW_PRIVATE_TARGETS = [f"127.0.0.1/32:{running.port}"]
        settings.SLACK_API_URL = f"http://127.0.0.1:{running.port}"
        yield running


@pytest.fixture(autouse=True)
def field_keys(settings: Any) -> None:
    settings.FIELD_KEYS = [FIELD_KEY]


@pytest.fixture
def courier(conn: psycopg.Connection[Any], clock: Clock) -> Iterator[Courier]:
    running = Courier(pipeline.open_connection, clock, chance=lambda: 0.5)
    yield running
    running.pool.shutdown()


def deliver(conn: psycopg.Connection[Any], courier: Courier) -> int:
    """Everything that is due at the clock's time, to the end."""
    return courier.deliver_due(conn, budget_s=30, patience_s=30)


def add_channel(project: Project, kind: str = "webhook", name: str = "", config: Any = None, **fields: Any) -> Channel:
    secret = {name: fields.pop(name) for name in ("url", "token", "signing_key") if name in fields}
    channel = Channel(project=project, kind=kind, name=name or kind, config=config or {}, **fields)
    if kind == "webhook":
        secret.setdefault("signing_key", "k" * 32)
    channel.key_id, channel.secret = sealed.seal(secret, str(channel.seal_id))
    channel.save()
    return channel


def fire(conn: psycopg.Connection[Any], found: Finding, *channels: Channel, now: datetime = NOW) -> None:
    with conn.transaction():
        alerts.open_alerts(conn, [found], {found.key: [channel.pk for channel in channels]}, now)
