"""The demo's planted incidents are found within two hours, with the right cause, and the rest of it stays quiet."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from django.conf import settings

from costapp.models import Project
from costapp.services.detect_anomalies import detect_anomalies
from costapp.services.import_prices import import_catalogue
from costapp.services.seed_demo import company
from costapp.services.seed_demo.seed import seed_demo
from costapp.storage import anomalies as store
from costapp.storage.anomalies import Anomaly
from tests import pipeline

pytestmark = pytest.mark.django_db(transaction=True)
Connection = psycopg.Connection[Any]

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)  # a Saturday: the lost cache would begin on a Saturday too, so on Monday
DAYS = 31
#: The three that break and those with most of the other money: a third of the calls.
FEATURES = ("code-assist", "support-bot", "returns-triage", "fraud-review", "doc-summary")
HOUR = timedelta(hours=1)
#: What breaks when (UTC), and the words that name its cause.
PLANTS = (
    (company.CACHE_LOST.feature, datetime(2026, 11, 2, 8, tzinfo=UTC), "reads less from the cache"),
    (company.PROMPT_TRIPLED.feature, datetime(2026, 11, 12, 8, tzinfo=UTC), "prompt version v15 sends"),
    (company.RUNAWAY_LOOP.feature, datetime(2026, 11, 17, 9, 12, tzinfo=UTC), "user u-01384"),
)


@pytest.fixture
def conn(transactional_db: None) -> Iterator[Connection]:
    with pipeline.open_connection() as connection:
        pipeline.empty(connection)
        yield connection
        pipeline.empty(connection)


def detected(conn: Connection, project: Project, at: datetime) -> list[Anomaly]:
    detect_anomalies(conn, now=at + timedelta(minutes=1))
    return store.since(conn, project.pk, NOW - timedelta(days=DAYS))


def test_planted_incidents_are_found_in_time_with_their_cause_and_a_quiet_month_is_quiet(
    conn: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(company, "FEATURES", tuple(each for each in company.FEATURES if each.name in FEATURES))
    import_catalogue()
    project = Project.objects.create(
        slug=company.PROJECT_SLUG, name=company.PROJECT_NAME, time_zone=company.TIME_ZONE, is_demo=True
    )
    Project.objects.filter(pk=project.pk).update(created_at=NOW)
    project = seed_demo(conn, now=NOW, days=DAYS)

    for feature, start, cause in PLANTS:
        before = detected(conn, project, start)
        assert not [each for each in before if each.value == feature and each.end_at > start], "before it began"
        (found,) = [each for each in detected(conn, project, start + 2 * HOUR) if each.end_at > start]
        assert (found.value, found.state) == (feature, "open")
        assert cause in found.title
        assert found.told_at is not None
        conn.execute("truncate anomaly, anomaly_pulse, alert, alert_event, notification")

    everything = detected(conn, project, NOW)
    planted = [each for each in everything if (each.value, cause_of(each)) in {(f, c) for f, _, c in PLANTS}]
    assert len(planted) == len(PLANTS)
    others = len(everything) - len(planted)
    assert others <= settings.ANOMALY_ALERTS_PER_WEEK * DAYS // 7 // 3, "a third of what people accept"


def cause_of(anomaly: Anomaly) -> str:
    return next((cause for _, _, cause in PLANTS if cause in anomaly.title), "")
