"""From spans to incidents: each crossing fires once, whatever comes late, again, twice or with a wrong clock."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from decimal import Decimal
from random import Random

import pytest

from costapp.core.guardrails import Crossing, Metric, Per
from costapp.services.drain import drain
from costapp.services.guardrails.judge import judge
from costapp.storage import guardrails as store
from tests import pipeline
from tests.guardrails.conftest import calls, guardrail, judged, rows

CALL_NANO = 1000 * 2500 + 100 * 10_000  # 1000 tokens at $2.50, 100 at $10 per million


def test_a_session_that_reaches_the_limit_opens_one_alert_that_says_so(conn, project, channel, now):
    guardrail(project, channel)
    assert judged(conn, project, calls(9, at=now), now) == 0
    assert judged(conn, project, calls(3, at=now, first=10), now) == 1
    title, driver, path, level, state = conn.execute(
        "select title, detail ->> 'driver', path, level, state from alert"
    ).fetchone()
    assert title == "Session s-1 made 12 calls within 5 minutes; the limit is 10 calls."
    assert driver == "12 of 12 calls were feature bot on gpt-4o."
    assert path.startswith("/p/acme/calls/?session=s-1&from=")
    assert (level, state) == ("warning", "open")
    assert rows(conn, "select channel_id from notification where state = 'pending'") == [channel.pk]


def test_the_calls_that_follow_belong_to_the_same_incident_and_its_figures_grow(conn, project, channel, now):
    guardrail(project, channel)
    assert judged(conn, project, calls(10, at=now), now) == 1
    later = now + timedelta(seconds=20)
    assert judged(conn, project, calls(5, at=later, first=20), later) == 0
    assert rows(conn, "select title from alert") == [
        "Session s-1 made 15 calls within 5 minutes; the limit is 10 calls."
    ]
    assert rows(conn, "select kind from alert_event") == ["opened"]
    facts = dict(map(tuple, rows(conn, "select detail -> 'facts' from alert")[0]))
    assert facts["Most within 5 minutes"] == "15 calls"
    assert "15 calls, $0.0525" in facts.values()  # what the page shows for the same calls
    assert rows(conn, "select count(*) from notification") == [1]
    assert rows(conn, "select until from guard_state") == [later + timedelta(minutes=5)]


def test_an_incident_that_has_held_is_resolved_and_told_and_the_next_one_is_new(conn, project, channel, now):
    guardrail(project, channel)
    judged(conn, project, calls(10, at=now), now)
    judge(conn, now=now + timedelta(minutes=4, seconds=59))
    assert rows(conn, "select state from alert") == ["open"]
    judge(conn, now=now + timedelta(minutes=5))
    assert rows(conn, "select state from alert") == ["resolved"]
    assert rows(conn, "select kind from alert_event order by id") == ["opened", "resolved"]
    assert (
        "has stayed below 10 calls again; the most was 10 calls"
        in rows(conn, "select title from alert_event where kind = 'resolved'")[0]
    )
    later = now + timedelta(minutes=7)
    assert judged(conn, project, calls(10, at=later, first=100), later) == 1
    assert rows(conn, "select state from alert order by id") == ["resolved", "open"]
    assert rows(conn, "select count(distinct key)::int from alert") == [2]


def test_what_is_sent_again_or_comes_late_opens_nothing_twice(conn, project, now):
    guardrail(project)
    spans = calls(10, at=now)
    assert judged(conn, project, spans, now) == 1
    judge(conn, now=now + timedelta(minutes=5))
    after = now + timedelta(minutes=6)
    assert judged(conn, project, spans, after) == 0
    assert judged(conn, project, calls(3, at=now - timedelta(seconds=2), first=50), after) == 0
    assert rows(conn, "select state from alert") == ["resolved"]


def test_a_runaway_whose_calls_arrive_late_still_fires_and_history_does_not(conn, project, now):
    guardrail(project)
    assert judged(conn, project, calls(10, at=now - timedelta(minutes=12), session="late"), now) == 1
    assert judged(conn, project, calls(10, at=now - timedelta(minutes=40), session="old", first=40), now) == 0
    assert rows(conn, "select subject from guard_state") == ["late"]


def test_a_clock_that_is_ahead_neither_hides_a_runaway_nor_invents_one(conn, project, now):
    guardrail(project)
    ahead = now + timedelta(minutes=25)
    assert judged(conn, project, calls(10, at=ahead, session="ahead"), now) == 1
    far = now + timedelta(hours=3)
    assert judged(conn, project, calls(10, at=far, session="absurd", first=40), now) == 0
    mixed = calls(6, at=now, session="calm", first=80) + calls(6, at=ahead, session="calm", first=90)
    assert judged(conn, project, mixed, now) == 0


def test_calls_spread_wider_than_the_window_do_not_add_up(conn, project, now):
    guardrail(project, minutes=1)
    assert judged(conn, project, calls(14, at=now, step_s=7), now) == 0  # at most nine in any minute
    assert judged(conn, project, calls(14, at=now, step_s=6, session="s-2", first=50), now) == 1


@pytest.mark.parametrize(("fields", "subject", "told"), [
    ({"metric": "cost", "limit_value": Decimal("0.035")}, "s-1", "Session s-1 spent $0.035 within"),
    ({"metric": "tokens", "limit_value": Decimal(11_000)}, "s-1", "Session s-1 used 11,000 tokens within"),
    ({"per": "user"}, "ann", "User ann made 10 calls within"),
    ({"per": "trace"}, f"{5:032x}", f"Trace {5:032x} made 10 calls within"),
])  # fmt: skip
def test_cost_calls_and_tokens_of_sessions_traces_and_users(conn, project, now, fields, subject, told):
    guardrail(project, **fields)
    assert CALL_NANO * 10 == 35_000_000
    assert judged(conn, project, calls(9, at=now, trace=5), now) == 0
    assert judged(conn, project, calls(10, at=now, trace=5)[-2:], now) == 1
    assert rows(conn, "select subject from guard_state") == [subject]
    assert rows(conn, "select title from alert")[0].startswith(told)


def test_only_calls_of_the_named_feature_and_environment_count(conn, project, now):
    guardrail(project, feature="bot", environment="production")
    wrong = calls(10, at=now, feature="search", environment="production")
    wrong += calls(10, at=now, first=20, environment="staging")
    assert judged(conn, project, wrong, now) == 0
    assert judged(conn, project, calls(10, at=now, first=40, environment="production"), now) == 1


def test_calls_without_a_session_are_nobodys(conn, project, now):
    guardrail(project)
    assert judged(conn, project, calls(20, at=now, session=""), now) == 0
    assert rows(conn, "select count(*)::int from guard_mark") == [0]


def test_a_project_without_guardrails_leaves_no_marks_and_another_ones_calls_do_not_count(conn, project, now):
    from costapp.models import Project

    other = Project.objects.create(slug="other", name="Other")
    guardrail(project)
    assert judged(conn, other, calls(30, at=now), now) == 0
    assert rows(conn, "select count(*)::int from guard_mark") == [0]
    assert rows(conn, "select count(*)::int from alert") == [0]


def test_switching_a_guardrail_off_ends_its_incidents(conn, project, now):
    rule = guardrail(project, action="block")
    judged(conn, project, calls(10, at=now), now)
    rule.enabled = False
    rule.save()
    judge(conn, now=now + timedelta(seconds=2))
    assert rows(conn, "select is_open from guard_state") == [False]
    assert rows(conn, "select state from alert") == ["resolved"]


def test_raising_the_limit_ends_what_it_no_longer_sees(conn, project, now):
    rule = guardrail(project, action="block")
    judged(conn, project, calls(10, at=now), now)
    rule.limit_value = 11
    rule.save()
    judge(conn, now=now + timedelta(seconds=2))
    assert rows(conn, "select state from alert") == ["resolved"]
    title = rows(conn, "select title from alert_event where kind = 'resolved'")[0]
    assert "the limit of Runaway session was raised to 11 calls" in title
    assert judge(conn, now=now + timedelta(seconds=4)) == 0


def test_deleting_a_guardrail_ends_its_incidents(conn, project, now):
    rule = guardrail(project)
    judged(conn, project, calls(10, at=now), now)
    rule.delete()
    judge(conn, now=now + timedelta(seconds=2))
    assert rows(conn, "select state from alert") == ["resolved"]


def test_two_workers_that_see_the_crossing_at_once_open_it_once(conn, project, channel, now):
    guardrail(project, channel)
    for round_ in range(5):
        store_calls = calls(10, at=now, session=f"s-{round_}", first=1 + 20 * round_)
        pipeline.store(conn, store_calls, project_id=project.pk)
        drain(conn)
        with pipeline.open_connection() as one, pipeline.open_connection() as two, ThreadPoolExecutor(2) as pool:
            opened = list(pool.map(lambda worker: judge(worker, now=now), [one, two]))
        opened.append(judge(conn, now=now))
        assert sum(opened) == 1
    assert rows(conn, "select count(*)::int from alert") == [5]
    assert rows(conn, "select count(*)::int from notification") == [5]


def test_a_worker_that_dies_before_its_commit_loses_nothing(conn, project, channel, now):
    guardrail(project, channel)
    pipeline.store(conn, calls(10, at=now), project_id=project.pk)
    drain(conn)
    with pipeline.open_connection() as doomed:
        doomed.execute("begin")
        store.claim(doomed, project.pk, limit=100)
        doomed.close()
    assert judge(conn, now=now) == 1
    assert rows(conn, "select count(*)::int from notification") == [1]


def test_nothing_to_do_is_found_out_with_one_look(conn, project, now):
    guardrail(project)
    assert store.waiting_projects(conn, now) == []
    assert judge(conn, now=now) == 0


@pytest.mark.parametrize("seed", range(12))
def test_the_database_adds_up_every_window_as_a_plain_loop_does(conn, project, now, seed):
    dice = Random(seed)
    rule = guardrail(project, limit_value=Decimal(dice.randint(2, 8)), minutes=dice.randint(1, 6)).as_rule()
    spans, expected = [], []
    for number in range(4):
        session = f"s-{number}"
        ages = [dice.randint(0, 1500) for _ in range(dice.randint(0, 25))]
        for place, age_s in enumerate(ages):
            spans += calls(1, at=now - timedelta(seconds=age_s), session=session, first=1000 * number + place + 1)
        reach_s, window_s = rule.reach.total_seconds(), rule.window.total_seconds()
        sums = {age: sum(age <= other <= age + window_s for other in ages) for age in ages if age < reach_s}
        above = {age: total for age, total in sums.items() if total >= rule.limit}
        if above:
            first, last = now - timedelta(seconds=max(above)), now - timedelta(seconds=min(above))
            expected.append(Crossing(session, first, last, max(above.values())))
    pipeline.store(conn, spans, project_id=project.pk)
    drain(conn)
    found = store.crossings(conn, rule, subjects=[f"s-{number}" for number in range(4)], now=now)
    tolerance = timedelta(microseconds=2)  # spans count nanoseconds through a float of seconds
    assert [(each.subject, each.value) for each in found] == [(each.subject, each.value) for each in expected]
    for got, wanted in zip(found, expected, strict=True):
        assert abs(got.first_at - wanted.first_at) < tolerance
        assert abs(got.last_at - wanted.last_at) < tolerance


def test_the_metrics_and_subjects_of_the_form_are_those_that_are_evaluated():
    from costapp.models import Guardrail

    assert set(Guardrail.Per.values) == set(Per)
    assert set(Guardrail.Metric.values) == set(Metric)
