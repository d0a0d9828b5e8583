"""Rules over real calls: evaluated once per window, told once, with the number of the page."""

import threading
from datetime import timedelta
from urllib.parse import parse_qs, urlsplit

import pytest
from django.contrib.auth import get_user_model
from django.db import connections
from django.test import Client

from costapp.core.alert_metrics import METRICS, WINDOWS, parse_amount
from costapp.core.alert_rules import Condition
from costapp.models import AlertRule, Membership, Project
from costapp.services.drain import drain
from costapp.services.evaluate_rules import evaluate_rules
from costapp.services.preview_rule import preview
from costapp.storage.reports.cells import Unanswerable
from costapp.storage.reports.rule_readings import SOURCES, VALUES, Question, read, require_readable
from tests.alerts.conftest import NOW, rows
from tests.pipeline import SECOND_NS, call, open_connection, price, root, store

MINUTE = timedelta(minutes=1)
PRICE_NANO = 3_500_000  #: of one call of 1000 tokens in and 100 out


def at(moment):
    return int(moment.timestamp()) * SECOND_NS


def make_calls(conn, project, first, *, count=10, minutes_ago=10, feature="search", **facts):
    """``count`` traces of one call each, all in the same 5-minute cell."""
    spans = []
    for number in range(first, first + count):
        start_ns = at(NOW - minutes_ago * MINUTE)
        spans += [
            root(number, start_ns=start_ns, feature=feature),
            call(number, start_ns=start_ns + SECOND_NS, **facts),
        ]
    store(conn, spans, project_id=project.pk)
    drain(conn)


def rule(project, **changes):
    values = {
        "name": "Expensive", "metric": "cost", "by": "feature", "window": "1h", "condition": "above",
        "warning": "0.03", "critical": "0.5",
    } | changes  # fmt: skip
    made = AlertRule(project=project, **values)
    made.save()
    made.refresh_from_db()
    return made


def evaluate(conn, now=NOW + MINUTE):
    return evaluate_rules(conn, now=now)


@pytest.fixture
def priced(project):
    price(project)
    return project


def test_one_rule_has_one_state_per_feature(conn, priced, channel):
    found = rule(priced)
    found.channels.add(channel)
    make_calls(conn, priced, 1, feature="search")
    make_calls(conn, priced, 100, feature="chat", count=2)
    make_calls(conn, priced, 200, feature="", count=20)
    assert evaluate(conn).opened == 2
    assert rows(conn, "select subject ->> 'feature', level, title from alert order by 1") == [
        ("", "warning", "Cost of (unattributed) is $0.07 within 1 hour, above $0.03."),
        ("search", "warning", "Cost of search is $0.035 within 1 hour, above $0.03."),
    ]
    assert rows(conn, "select count(*) from notification where channel_id = %s", channel.pk) == [2]
    assert rows(conn, "select count(distinct group_key) from alert") == [1]


def test_the_alert_says_the_number_of_the_page_it_leads_to(conn, priced):
    rule(priced)
    make_calls(conn, priced, 1)
    make_calls(conn, priced, 100, minutes_ago=58)
    make_calls(conn, priced, 200, minutes_ago=70)  # before the window
    evaluate(conn)
    (path, detail) = rows(conn, "select path, detail from alert")[0]
    user = get_user_model().objects.create_user("mia")
    Membership.objects.create(project=priced, user=user)
    client = Client()
    client.force_login(user)
    page = client.get(f"{path}&format=json").json()
    assert page["total"]["cost_nano"] == 20 * PRICE_NANO
    assert dict(detail["facts"])["Cost"] == "$0.07"
    assert parse_qs(urlsplit(path).query)["is"] == ["search"]
    assert detail["driver"] == "100% of its cost, $0.07, is model gpt-4o."


def test_repeats_late_data_and_two_workers_do_not_tell_again(conn, priced, channel):
    rule(priced).channels.add(channel)
    make_calls(conn, priced, 1)
    other = open_connection()

    def work(connection):
        evaluate(connection)
        connections.close_all()

    workers = [threading.Thread(target=work, args=(each,)) for each in (conn, other)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    other.close()
    evaluate(conn)
    make_calls(conn, priced, 100, count=300)  # the same window, later: critical by now
    assert evaluate(conn).opened == 0
    assert rows(conn, "select kind from alert_event") == ["opened"]
    assert evaluate(conn, NOW + 6 * MINUTE).opened == 0
    assert rows(conn, "select kind from alert_event order by id") == ["opened", "escalated"]
    assert rows(conn, "select count(*) from alert") == [1]


def test_an_alert_ends_when_its_window_has_passed_and_a_new_one_is_another(conn, priced):
    rule(priced)
    make_calls(conn, priced, 1)
    for minutes in range(1, 70, 5):
        evaluate(conn, NOW + minutes * MINUTE)
    assert rows(conn, "select state, title from alert") == [
        ("resolved", "Resolved. Cost of search is $0.00 within 1 hour.")
    ]
    assert rows(conn, "select count(*) from rule_state") == [0]
    make_calls(conn, priced, 100, minutes_ago=-70)
    evaluate(conn, NOW + 76 * MINUTE)
    assert rows(conn, "select state from alert order by id") == ["resolved", "open"]


def test_nothing_is_written_for_subjects_that_rest(conn, priced):
    rule(priced, warning="50", critical=None)
    make_calls(conn, priced, 1)
    evaluate(conn)
    assert rows(conn, "select count(*) from rule_state") == [0]
    assert rows(conn, "select value, worst, requests, subjects, open_alerts from rule_status") == [
        (10 * PRICE_NANO, "search", 10, 1, 0)
    ]


def test_unpriced_is_unknown_and_never_zero(conn, project):
    rule(project, condition="below", warning="1", critical=None)
    make_calls(conn, project, 1)
    evaluate(conn)
    assert rows(conn, "select value from rule_status") == [None]
    assert rows(conn, "select count(*) from alert") == [0]


def test_a_rule_that_is_switched_off_or_changed_ends_its_alerts_without_a_message(conn, priced, channel):
    found = rule(priced)
    found.channels.add(channel)
    make_calls(conn, priced, 1)
    evaluate(conn)
    found.window = "3h"
    found.save()
    evaluate(conn, NOW + 2 * MINUTE)
    assert rows(conn, "select state from alert order by id") == ["resolved", "open"]
    found.enabled = False
    found.save()
    evaluate(conn, NOW + 3 * MINUTE)
    assert rows(conn, "select state from alert order by id") == ["resolved", "resolved"]
    assert rows(conn, "select count(*) from rule_status") == [0]
    assert rows(conn, "select count(*) from notification") == [2]


def test_a_change_is_against_the_period_before(conn, priced):
    rule(priced, condition="rises", warning="50", critical="1000")
    make_calls(conn, priced, 1, minutes_ago=70)
    make_calls(conn, priced, 100, count=20)
    evaluate(conn)
    assert rows(conn, "select title from alert") == [
        "Cost of search is $0.07 within 1 hour, +100% against $0.035 in the period before, above 50%."
    ]


def test_what_left_the_usual_band_of_the_hour_is_told(conn, priced):
    rule(priced, condition="over_band", warning="3", critical=None)
    week = 7 * 24 * 60
    for weeks in range(1, 5):
        make_calls(conn, priced, weeks * 1000, count=9 + weeks % 3, minutes_ago=10 + weeks * week)
    make_calls(conn, priced, 9000, count=60)
    evaluate(conn)
    (title,) = rows(conn, "select title from alert")
    assert title.startswith("Cost of search is $0.21 within 1 hour; usual at this hour of the week is $0.035")


def test_silence_is_told_after_the_asked_time_and_ends_with_the_next_call(conn, priced):
    rule(priced, metric="silence", by="feature", window="1h", warning="30", critical=None)
    make_calls(conn, priced, 1, minutes_ago=40)
    make_calls(conn, priced, 100, feature="chat", minutes_ago=20)
    evaluate(conn)
    assert rows(conn, "select title from alert") == ["Time since the last call of search is 35 min, above 30 min."]
    make_calls(conn, priced, 200, minutes_ago=-2)
    evaluate(conn, NOW + 6 * MINUTE)
    assert rows(conn, "select state from alert") == ["resolved"]


def test_no_data_is_an_alert_where_the_rule_says_so(conn, priced):
    rule(priced, no_data="alert", warning="50", critical=None)
    make_calls(conn, priced, 1)
    evaluate(conn)
    evaluate(conn, NOW + 61 * MINUTE)
    assert rows(conn, "select title from alert") == ["search had no requests within 1 hour."]


def test_a_lasting_alert_is_recalled_until_somebody_acknowledges_it(conn, priced):
    rule(priced, window="6h", remind_minutes=15)
    make_calls(conn, priced, 1)
    for minutes in (1, 6, 16, 20):
        evaluate(conn, NOW + minutes * MINUTE)
    assert rows(conn, "select kind from alert_event order by id") == ["opened", "reminded"]
    conn.execute("update alert set acknowledged_at = now(), acknowledged_by = 'mia'")
    evaluate(conn, NOW + 40 * MINUTE)
    assert rows(conn, "select kind from alert_event order by id") == ["opened", "reminded"]


def test_more_subjects_than_the_limit_are_counted_and_open_ones_kept(conn, priced, settings):
    rule(priced)
    make_calls(conn, priced, 1, feature="small", count=10)
    evaluate(conn)
    settings.RULE_SUBJECTS = 2
    for number in range(4):
        make_calls(conn, priced, 1000 * (number + 1), feature=f"big-{number}", count=20, minutes_ago=5)
    evaluate(conn, NOW + 6 * MINUTE)
    assert rows(conn, "select beyond, subjects from rule_status") == [(3, 3)]
    assert rows(conn, "select beyond from rule_pulse") == [3]
    assert "small" in rows(conn, "select subject from rule_state")


def test_another_projects_calls_are_never_read(conn, priced):
    other = Project.objects.create(slug="other", name="Other")
    rule(other)
    make_calls(conn, priced, 1)
    evaluate(conn)
    assert rows(conn, "select count(*) from alert") == [0]


def test_every_metric_has_a_value_and_every_family_a_source():
    assert set(METRICS) == set(VALUES)
    assert {metric.family for metric in METRICS.values()} <= set(SOURCES)


QUESTIONS = [
    (metric, window, by)
    for metric in METRICS.values()
    for window in (WINDOWS["1h"], WINDOWS["24h"], WINDOWS["1d"])
    for by in ("", "feature", "model", "user", "session", "team", "gpu_node")
]


def answerable():
    for metric, window, by in QUESTIONS:
        try:
            require_readable(metric, window, by, ())
        except Unanswerable:
            continue
        yield metric, window, by


def test_every_question_that_is_allowed_is_answered_from_real_calls(conn, priced):
    make_calls(conn, priced, 1, minutes_ago=70, user="u-1", session="s-1")
    make_calls(conn, priced, 100, minutes_ago=13 * 60, user="u-1", session="s-1", feature="chat")
    asked = list(answerable())
    assert len(asked) > 40
    edge = NOW.replace(minute=0)
    for metric, window, by in asked:
        end = edge - timedelta(hours=14) if window.grain == "day" else edge
        question = Question(priced.pk, priced.time_zone, metric.family, window, by, ())
        answer = read(conn, question, [end], limit=10)
        for found in answer.figures[end].values():
            VALUES[metric.key](found)
        if window.key == "24h" and metric.family.value in ("sums", "latency"):
            assert answer.figures[end], (metric.key, by)


def test_users_read_from_calls_and_features_read_from_rollups_have_one_total(conn, priced):
    for number, user in enumerate(("u-1", "u-2", "")):
        make_calls(conn, priced, 1000 * number + 1, user=user, count=number + 3)
    end = NOW
    sums = {}
    for by in ("", "feature", "user"):
        question = Question(priced.pk, "UTC", METRICS["cost"].family, WINDOWS["1h"], by, ())
        found = read(conn, question, [end], limit=10).figures[end]
        sums[by] = sum(each.sums.cost_nano for each in found.values())
    assert sums == dict.fromkeys(("", "feature", "user"), 12 * PRICE_NANO)


def test_a_rule_without_any_threshold_is_refused(conn, project):
    with pytest.raises(Exception, match="a_rule_has_a_threshold"):
        rule(project, warning=None, critical=None)


def test_thresholds_are_read_in_what_people_type(conn, project):
    found = rule(project, metric="latency_p95", warning="2.5", critical=None, window="1h")
    assert found.to_rule().warning == 2_500_000
    changed = rule(project, name="b", condition="rises", warning="50", critical=None)
    assert changed.to_rule().warning == 500_000
    below = rule(project, name="c", metric="cache_hit", condition="below", warning="50", critical="20", clear="60")
    assert (below.to_rule().warning, below.to_rule().critical, below.to_rule().clear) == (-500_000, -200_000, -600_000)
    assert below.to_rule().condition is Condition.BELOW
    assert parse_amount("1,000.5", METRICS["cost"].unit) == 1_000_500_000_000


@pytest.mark.parametrize("changes", [{}, {"condition": "rises", "warning": "80"}, {"metric": "error_rate"}])
def test_the_preview_tells_what_the_evaluation_told(conn, priced, changes):
    """Two days hour by hour: the same moments, subjects and ends."""
    values = {"window": "24h", "warning": "0.1", "critical": None, "calm_readings": 2, "minimum_requests": 5} | changes
    watched = rule(priced, **values)
    for number in range(40):
        facts = {"status": 2, "error": "TimeoutError"} if number % 7 == 0 else {}
        size = 2 + (number * 5 % 11) * (3 if 10 < number < 24 else 1)
        make_calls(conn, priced, 1000 * (number + 1), count=size, minutes_ago=30 + number * 120,
                   feature=("search", "chat")[number % 2], **facts)  # fmt: skip
    for hours in range(48, -1, -1):
        evaluate(conn, NOW + MINUTE - timedelta(hours=hours))
    told = rows(
        conn,
        "select subject ->> 'feature', period_end, (select min(at) from alert_event event where kind = 'resolved'"
        " and event.alert_id = alert.id) from alert order by 2, 1",
    )
    found = preview(conn, priced, watched, NOW)
    since = NOW - timedelta(hours=48)
    expected = [
        (firing.subject, firing.opened_at, firing.resolved_at and firing.resolved_at + MINUTE)
        for firing in found.firings
        if firing.resolved_at is None or firing.resolved_at > since
    ]
    assert [(subject, ended) for subject, _, ended in told] == [(subject, ended) for subject, _, ended in expected]
    assert told
    assert [row for row in told if row[1] > since] == [row for row in expected if row[1] > since]


def test_a_rule_that_cannot_be_read_or_breaks_its_project_stops_nobody_else(conn, priced, caplog):
    rule(priced, name="unreadable", metric="latency_p95", by="team")
    rule(priced, name="of another version", metric="not_invented_yet")
    make_calls(conn, priced, 1)
    assert evaluate(conn).rules == 0
    broken = Project.objects.create(slug="aaa", name="Broken", time_zone="UTC")
    rule(broken, filters={"no such dimension": ["x"]})
    Project.objects.filter(pk=broken.pk).update(time_zone="Nowhere/At-all")
    rule(broken, name="b", window="1d")
    rule(priced)
    assert evaluate(conn).opened == 1
    assert f"The alert rules of project {broken.pk} cannot be judged." in caplog.text


def test_idle_gpus_are_told_by_node_and_what_was_not_observed_is_not_idle(conn, priced):
    rule(priced, metric="gpu_idle", by="gpu_node", window="3h", warning="60", critical="90")
    hour_us = 3_600_000_000
    columns = "cost_nano, attributed_nano, busy_nano, held_nano, free_nano, unobserved_nano, unrated_us, util_bp_s,"
    columns += " util_s, memory_mib_s, memory_total_mib_s, memory_s, energy_mj, energy_us, pool_id"
    for hours, node, idle, unobserved in ((1, "n1", 70, 0), (2, "n1", 80, 0), (1, "n2", 10, 80), (2, "n3", 10, 0)):
        conn.execute(
            f"insert into gpu_hour ({columns}, hour_at, gpu_us, attributed_us, busy_us, held_us, free_us,"
            " unobserved_us, project_id, gpus, node, gpu_model)"
            f" values ({', '.join(['0'] * 15)}, %s, %s, 0, %s, %s, 0, %s, %s, 1, %s, 'H100')",
            (NOW - timedelta(hours=hours), hour_us, hour_us * (100 - idle - unobserved) // 100,
             hour_us * idle // 100, hour_us * unobserved // 100, priced.pk, node),
        )  # fmt: skip
    evaluate(conn, NOW + 31 * MINUTE)
    assert rows(conn, "select title, path from alert") == [
        ("GPU idle time of n1 is 75% within 3 hours, above 60%.",
         "/p/acme/gpus/?from=2026-05-29T09%3A00%2B00%3A00&to=2026-05-29T12%3A00%2B00%3A00")
    ]  # fmt: skip
    assert rows(conn, "select detail from alert")[0]["facts"][3] == ["GPU minutes", "120"]
    found = preview(conn, priced, AlertRule.objects.get(), NOW)
    assert [(firing.subject, firing.severity.name) for firing in found.firings] == [("n1", "WARNING")]
