"""Incidents and answers as pure functions: what must hold for every order and repetition of what is found."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from costapp.core.guardrails import (
    Action,
    Allowance,
    Crossing,
    Decision,
    Guardrail,
    Incident,
    Metric,
    Per,
    Standing,
    Stop,
    alert_key,
    budget_says,
    follow,
    unknown,
)

NOON = datetime(2026, 5, 29, 12, tzinfo=UTC)
RULE = Guardrail(7, 1, "Runaway", Per.SESSION, Metric.CALLS, 200, 5, 5, Action.BLOCK)


def at(seconds: int) -> datetime:
    return NOON + timedelta(seconds=seconds)


#: (seconds until the next look, event time of the newest call above the limit relative to the look)
looks = st.lists(st.tuples(st.integers(0, 400), st.integers(-600, 60)), max_size=40)


def run(sequence: list[tuple[int, int]]) -> list[tuple[datetime, Incident, bool]]:
    """Look again and again, as the job does: close what has held long enough, follow what is found."""
    now, state, seen = NOON, None, []
    for wait_s, event_s in sequence:
        now += timedelta(seconds=wait_s)
        if state is not None and state.is_open and state.until <= now:
            state = state._replace(is_open=False)
        last_at = now + timedelta(seconds=event_s)
        change = follow(RULE, state, Crossing("s-1", last_at - timedelta(seconds=30), last_at, 200), now)
        if change is not None:
            state = change.incident
            seen.append((now, change.incident, change.is_new))
    return seen


@given(looks)
def test_incidents_follow_each_other_and_each_has_a_key_of_its_own(sequence):
    opened = [incident for _, incident, is_new in run(sequence) if is_new]
    keys = [alert_key(RULE, incident) for incident in opened]
    assert len(set(keys)) == len(keys)
    assert all(b.opened_at > a.opened_at for a, b in pairwise(opened))


@given(looks)
def test_an_incident_keeps_its_key_while_it_goes_on(sequence):
    key = ""
    for _, incident, is_new in run(sequence):
        if not is_new:
            assert alert_key(RULE, incident) == key
        key = alert_key(RULE, incident)


@given(looks)
def test_every_look_that_tells_something_new_holds_the_answer_for_the_whole_hold(sequence):
    for now, incident, _ in run(sequence):
        assert now < incident.until <= now + RULE.hold


@given(looks)
def test_what_is_found_again_changes_nothing(sequence):
    state = None
    for now, incident, _ in run(sequence):
        crossing = Crossing("s-1", incident.opened_at, incident.crossed_to, incident.value)
        assert follow(RULE, incident, crossing, now) is None
        assert follow(RULE, incident._replace(is_open=False), crossing, now + timedelta(days=1)) is None
        state = incident
    assert state is None or state.is_open


def test_late_calls_of_an_incident_that_is_over_open_nothing():
    over = Incident("s-1", at(0), at(60), at(360), 250, is_open=False)
    assert follow(RULE, over, Crossing("s-1", at(-30), at(59), 260), at(400)) is None
    change = follow(RULE, over, Crossing("s-1", at(-30), at(390), 200), at(400))
    assert change is not None
    assert change.is_new
    assert change.incident.opened_at > over.crossed_to


# -- answers

names = st.sampled_from(["a", "b", ""])
moments = st.integers(-100, 1000).map(at)
stops = st.builds(
    Stop, per=st.sampled_from(["session", "user", "trace"]), subject=st.sampled_from(["a", "b"]),
    decision=st.sampled_from([Decision.WARN, Decision.BLOCK]), reason=st.text(max_size=5), until=moments,
    feature=names, environment=names,
)  # fmt: skip
scopes = st.dictionaries(
    st.sampled_from(["feature", "user", "team", "model"]),
    st.frozensets(st.sampled_from(["a", "b"]), min_size=1),
    max_size=2,
)
allowances = st.builds(
    Allowance, name=st.text(max_size=5), scope=scopes, limit_nano=st.integers(0, 10**12),
    spent_nano=st.integers(0, 2 * 10**12), period_end=moments, decision=st.sampled_from(Decision),
    reason=st.text(max_size=5),
)  # fmt: skip
questions = st.dictionaries(
    st.sampled_from(["session", "user", "trace", "feature", "environment", "team", "model"]),
    st.sampled_from(["a", "b", "c"]),
)


@given(st.lists(stops, max_size=8), st.lists(allowances, max_size=8), questions)
def test_the_answer_is_the_strictest_of_all_that_concerns_the_question(found, budgets, question):
    answer = Standing(found, budgets).answer(question, NOON)
    concerned = [stop.decision for stop in found if stop.until > NOON and stop.concerns(question)]
    concerned += [each.decision for each in budgets if each.period_end > NOON and each.concerns(question)]
    assert answer.decision == max(concerned, default=Decision.ALLOW)
    assert (answer.until is None) == (answer.decision is not Decision.BLOCK)
    assert answer.until is None or answer.until > NOON


@given(st.lists(stops, max_size=8), st.lists(allowances, max_size=8), questions, st.randoms())
def test_the_answer_does_not_depend_on_the_order_of_what_is_known(found, budgets, question, dice):
    answer = Standing(found, budgets).answer(question, NOON)
    dice.shuffle(found)
    dice.shuffle(budgets)
    again = Standing(found, budgets).answer(question, NOON)
    assert again[:3] == answer[:3]
    if answer.budget is not None:
        assert again.budget is not None
        assert again.budget.left_nano * max(1, answer.budget.limit_nano) // 1 >= 0
        assert again.budget.period_end > NOON


@given(st.lists(allowances, max_size=8), questions)
def test_the_budget_named_has_the_smallest_share_left(budgets, question):
    named = Standing((), budgets).answer(question, NOON).budget
    concerned = [each for each in budgets if each.period_end > NOON and each.concerns(question)]
    assert (named is None) == (not concerned)
    if named is not None:
        shares = [each.left_nano * 1_000_000 // max(1, each.limit_nano) for each in concerned]
        assert named.left_nano * 1_000_000 // max(1, named.limit_nano) == min(shares)


@given(st.lists(stops, max_size=6), stops, questions)
def test_one_more_incident_never_loosens_an_answer(found, one_more, question):
    before = Standing(found).answer(question, NOON)
    assert Standing([*found, one_more]).answer(question, NOON).decision >= before.decision


@given(st.integers(0, 10**13), st.integers(0, 10**13), st.lists(st.integers(1, 1000), max_size=5), st.booleans())
def test_a_budget_blocks_only_when_it_is_spent_and_set_to(spent, limit, thresholds, blocks):
    decision, reason = budget_says("B", "", spent_nano=spent, limit_nano=limit, thresholds=thresholds, blocks=blocks)
    assert (decision is Decision.BLOCK) == (blocks and spent >= limit)
    assert bool(reason) == (decision is not Decision.ALLOW)
    less, _ = budget_says("B", "", spent_nano=spent, limit_nano=limit + 1, thresholds=thresholds, blocks=blocks)
    assert less <= decision


def test_a_budget_warns_from_its_highest_threshold_below_a_hundred_percent():
    def says(spent: int, thresholds: list[int]) -> tuple[Decision, str]:
        return budget_says(
            "Bots", "a", spent_nano=spent * 10**9, limit_nano=100 * 10**9, thresholds=thresholds, blocks=True
        )

    assert says(79, [50, 80, 100])[0] is Decision.ALLOW
    assert says(80, [50, 80, 100]) == (Decision.WARN, "Budget Bots (a) is nearly spent: $80.00 of $100.00.")
    assert says(80, [95])[0] is Decision.ALLOW
    assert says(80, [])[0] is Decision.WARN
    assert says(100, []) == (Decision.BLOCK, "Budget Bots (a) is spent: $100.00 of $100.00.")


def test_an_incident_of_one_feature_does_not_stop_another_and_a_question_without_a_feature_is_about_all():
    standing = Standing([Stop("user", "ann", Decision.BLOCK, "too much", at(60), feature="bot")])
    assert standing.answer({"user": "ann", "feature": "search"}, NOON).decision is Decision.ALLOW
    assert standing.answer({"user": "ann", "feature": "bot"}, NOON).decision is Decision.BLOCK
    assert standing.answer({"user": "ann"}, NOON).decision is Decision.BLOCK


@pytest.mark.parametrize(("closed", "decision"), [(False, Decision.ALLOW), (True, Decision.BLOCK)])
def test_when_nothing_is_known_the_project_decides(closed, decision):
    answer = unknown("the database does not answer", closed=closed)
    assert (answer.decision, answer.known) == (decision, False)
    assert answer.reason.startswith("unknown: ")


@pytest.mark.parametrize(("rule", "sentence"), [
    (RULE, "Blocks for 5 minutes when a session makes 200 calls within 5 minutes."),
    (RULE._replace(per=Per.USER, metric=Metric.COST, limit=5 * 10**9, minutes=60, action=Action.WARN, feature="bot"),
     "Warns when a user spends $5.00 within an hour (in bot)."),
    (RULE._replace(per=Per.TRACE, metric=Metric.TOKENS, limit=2_000_000, minutes=1, hold_minutes=120,
                   environment="production"),
     "Blocks for 2 hours when a trace uses 2,000,000 tokens within a minute (production)."),
])  # fmt: skip
def test_a_guardrail_says_what_it_does(rule, sentence):
    assert rule.sentence() == sentence
