"""Alert tests run real transactions on real connections, with a clock that the test holds."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

from costapp.core.alerts import Fact, Finding, Level, Source
from costapp.models import Channel, Project
from tests import pipeline

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
