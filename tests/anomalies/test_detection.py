"""What broke is found within two cells, told once, with its cause; late data and feedback correct it."""

from datetime import timedelta

import pytest

from costapp.core.money import format_usd
from costapp.models import AlertRule, Project
from costapp.services.detect_anomalies import alert_key, detect_anomalies
from costapp.services.evaluate_rules import evaluate_rules
from costapp.services.judge_anomaly import judge_anomaly
from costapp.services.preview_rule import preview
from costapp.storage import anomalies as store
from tests.anomalies.conftest import BROKE, START
from tests.pipeline import open_connection

pytestmark = pytest.mark.django_db
HOUR, CELL = timedelta(hours=1), timedelta(minutes=5)


def detect(world, at):
    return detect_anomalies(world.conn, now=at + timedelta(minutes=2))


def found(world):
    return store.since(world.conn, world.project.pk, START)


def test_a_bad_prompt_version_is_found_within_two_hours_and_named(world):
    detect(world, BROKE)
    assert found(world) == []
    for cells in range(1, 25):
        detect(world, BROKE + cells * CELL)
        if found(world):
            break
    (anomaly,) = found(world)
    assert (anomaly.dimension, anomaly.value, anomaly.state) == ("feature", "support-bot", "open")
    assert anomaly.end_at <= BROKE + 2 * HOUR
    detect(world, BROKE + 2 * HOUR)
    (anomaly,) = found(world)
    assert anomaly.title.startswith("Support-bot costs $")
    assert "prompt version v7" in anomaly.title
    assert "more input tokens per call" in anomaly.title
    assert anomaly.detail["drivers"][0]["where"] == {"prompt_version": "v7"}
    parts = anomaly.detail["parts"]
    assert max(parts, key=parts.get) == "prompt"


def test_running_again_changes_nothing_and_the_money_is_that_of_the_calls(world):
    detect(world, BROKE + 3 * HOUR)
    before = found(world)
    world.conn.execute("truncate anomaly_pulse")
    detect(world, BROKE + 3 * HOUR)
    assert [each._replace(changed_at=None) for each in found(world)] == [
        each._replace(changed_at=None) for each in before
    ]
    assert detect(world, BROKE + 3 * HOUR).projects == 0  # nothing new to judge
    (anomaly,) = before
    (cost,) = world.rows(
        "select sum(cost_nano) from rollup_hour where feature = 'support-bot' and bucket_at >= %s and bucket_at < %s",
        anomaly.start_at,
        anomaly.end_at,
    )
    assert anomaly.actual_nano == cost
    assert 0 < anomaly.above_band_nano <= anomaly.above_nano < cost


def test_one_alert_tells_it_once_and_ends_when_it_is_over(world):
    for cells in (24, 25, 30, 36):
        detect(world, BROKE + cells * CELL)
    (anomaly,) = found(world)
    alerts = "select key, state, title, path, channel_ids from alert"
    key = alert_key(anomaly.id)
    path = f"/p/acme/anomalies/?id={anomaly.id}"
    assert [row[:2] for row in world.rows(alerts)] == [(key, "open")]
    assert world.rows(alerts)[0][3:] == (path, [world.channel.pk])
    assert world.rows("select count(*) from notification") == [1]
    assert anomaly.told_at is not None
    detect(world, BROKE + 10 * HOUR)
    assert found(world)[0].state == "over"
    assert world.rows("select state from alert") == ["resolved"]


def test_no_more_alerts_than_the_week_has(world, settings):
    settings.ANOMALY_ALERTS_PER_WEEK = 0
    detect(world, BROKE + 3 * HOUR)
    assert [each.suppressed for each in found(world)] == ["budget"]
    world.conn.execute("truncate anomaly")
    settings.ANOMALY_ALERTS_PER_WEEK = 1
    world.conn.execute("truncate anomaly_pulse")
    world.conn.execute(
        "insert into anomaly (project_id, dimension, value, kind, state, start_at, odd_at, peak_at, end_at,"
        " score_milli, above_nano, above_band_nano, actual_nano, new_normal, title, detail, suppressed, found_at,"
        " changed_at, told_at) values (%(p)s, 'model', 'other', 'spike', 'over', %(t)s, %(t)s, %(t)s, %(t)s, 7000, 5,"
        " 4, 9, false, 't', '{}', '', %(t)s, %(t)s, %(t)s)",
        {"p": world.project.pk, "t": BROKE - timedelta(days=4)},
    )
    detect(world, BROKE + 3 * HOUR)
    new = found(world)[-1]
    assert (new.value, new.suppressed, new.told_at) == ("support-bot", "budget", None)
    assert world.rows("select count(*) from alert") == [0]


def test_amounts_below_the_limit_are_left_out(world, settings):
    settings.ANOMALY_LEAST_NANO = 10**15
    detect(world, BROKE + 3 * HOUR)
    assert found(world) == []


def test_old_news_is_listed_but_not_told(world):
    detect(world, BROKE + 30 * HOUR)
    (anomaly,) = found(world)
    assert (anomaly.suppressed, anomaly.told_at) == ("old", None)


def judge(world, anomaly, verdict, reason=""):
    return judge_anomaly(
        world.conn, world.project.pk, anomaly.id, verdict=verdict, reason=reason, by="mia", now=BROKE + 3 * HOUR
    )


def test_a_dismissal_ends_the_alert_counts_against_precision_and_is_learnt(world):
    detect(world, BROKE + 3 * HOUR)
    (anomaly,) = found(world)
    assert judge(world, anomaly, "dismissed", " known test ") is not None
    assert world.rows("select state from alert") == ["resolved"]
    (after,) = found(world)
    assert (after.verdict, after.verdict_reason, after.verdict_by) == ("dismissed", "known test", "mia")
    assert store.precision(world.conn, world.project.pk, START) == (0, 1, 0)
    # the same slice and kind, found anew as another anomaly long after the dismissed one
    world.conn.execute(
        "update anomaly set start_at = start_at - interval '30 days', end_at = end_at - interval '30 days'"
    )
    world.conn.execute("truncate anomaly_pulse, alert, alert_event, notification")
    detect(world, BROKE + 3 * HOUR)
    new = store.since(world.conn, world.project.pk, BROKE)[-1]
    assert (new.id != anomaly.id, new.suppressed, new.told_at) == (True, "dismissed", None)


def test_what_people_judged_is_kept_when_detection_runs_again(world):
    detect(world, BROKE + 2 * HOUR)
    judge(world, found(world)[0], "confirmed")
    detect(world, BROKE + 3 * HOUR)
    (anomaly,) = found(world)
    assert (anomaly.verdict, store.precision(world.conn, world.project.pk, START).confirmed) == ("confirmed", 1)
    assert judge_anomaly(
        world.conn, world.project.pk, 10**9, verdict="confirmed", reason="", by="mia", now=BROKE
    ) is None  # fmt: skip


def test_data_that_comes_late_withdraws_what_it_explains(world):
    """An anomaly that the sums no longer show is withdrawn with its alert; a confirmed one stays."""
    detect(world, BROKE + 3 * HOUR)
    world.conn.execute("update anomaly set dimension = 'feature', value = 'gone-feature', detail = '{}'")
    detect(world, BROKE + 3 * HOUR + CELL)
    gone, new = sorted(found(world), key=lambda each: each.id)
    assert (gone.state, new.state) == ("withdrawn", "open")
    assert world.rows("select state from alert where key = %s", alert_key(gone.id)) == ["resolved"]


def test_another_worker_and_an_empty_project_are_left_alone(world):
    Project.objects.create(slug="empty", name="Empty")
    with world.conn.transaction():
        assert store.try_lock_project(world.conn, world.project.pk)
        with open_connection() as other:
            assert detect_anomalies(other, now=BROKE + 3 * HOUR).projects == 0
    Project.objects.filter(slug="empty").delete()


RULE_ALERTS = "select subject, level, state, title, path, detail from alert where source = 'rule' order by id"


@pytest.mark.parametrize(("by", "subject"), [("", {}), ("feature", {"feature": "support-bot"})])
def test_a_rule_tells_of_the_money_the_feed_shows_and_ends_when_it_is_dismissed(world, by, subject):
    rule = AlertRule.objects.create(
        project=world.project,
        name="Odd money",
        metric="anomalous",
        by=by,
        window="3h",
        condition="above",
        warning="0.01",
    )
    try:
        end = BROKE + 3 * HOUR
        detect(world, end)
        (anomaly,) = found(world)
        evaluate_rules(world.conn, now=end + timedelta(minutes=2), only=world.project.pk)
        ((told, level, state, title, path, detail),) = world.rows(RULE_ALERTS)
        assert (told, level, state) == (subject, "warning", "open")
        of = " of support-bot" if by else ""
        money = format_usd(anomaly.above_nano)
        assert title == f"Money above expected in anomalies{of} is {money} within 3 hours, above $0.01."
        assert path.startswith("/p/acme/anomalies/?from=")
        assert detail["driver"] == anomaly.title
        rule.refresh_from_db()
        replay = preview(world.conn, world.project, rule, end + timedelta(minutes=2))
        assert [firing.subject for firing in replay.firings] == [subject.get("feature", "")]
        judge_anomaly(world.conn, world.project.pk, anomaly.id, verdict="dismissed", reason="a test", by="mia", now=end)
        evaluate_rules(world.conn, now=end + timedelta(minutes=7), only=world.project.pk)
        assert [row[2] for row in world.rows(RULE_ALERTS)] == ["resolved"]
    finally:
        world.conn.execute("truncate rule_state, rule_status, rule_pulse")
