"""The state machine of alert rules: no flapping, no repeats, and each opening ends at most once."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from costapp.core.alert_bands import band_of
from costapp.core.alert_metrics import METRICS, PERCENT, REQUESTS, USD, amount_text, parse_amount, typed_amount
from costapp.core.alert_rules import (
    Band,
    Condition,
    Kind,
    NoData,
    Reading,
    Rule,
    Severity,
    State,
    badness,
    is_quiet,
    mildest,
    severity_of,
    step,
)

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
CELL = timedelta(minutes=5)
ABOVE = Rule("cost", Condition.ABOVE, warning=100, critical=200, clear=80)


def replay(rule, values, *, requests=10):
    """States and transitions of one subject whose windows end every five minutes."""
    state, told, states = State(), [], []
    for place, value in enumerate(values):
        count = 0 if value is None else requests
        at = NOON + place * CELL
        state, found = step(state, Reading(at, value, count), rule, at)
        told += found
        states.append(state)
    return told, states


def kinds(told):
    return [transition.kind.value for transition in told]


def test_an_alert_opens_escalates_and_ends():
    told, _ = replay(ABOVE, [10, 120, 250, 90, 70])
    assert kinds(told) == ["opened", "escalated", "deescalated", "resolved"]
    assert [t.severity for t in told] == [Severity.WARNING, Severity.CRITICAL, Severity.WARNING, Severity.WARNING]
    assert {t.opened_at for t in told} == {NOON + CELL}


def test_between_clear_and_warning_nothing_changes_either_way():
    assert kinds(replay(ABOVE, [100, 81, 100, 80])[0]) == []
    assert kinds(replay(ABOVE, [101, 99, 81, 100, 99, 81])[0]) == ["opened"]


def test_several_calm_readings_in_a_row_are_needed_where_the_rule_says_so():
    rule = ABOVE._replace(calm_readings=3)
    assert kinds(replay(rule, [150, 10, 10, 90, 10, 10])[0]) == ["opened"]
    assert kinds(replay(rule, [150, 10, 10, 10])[0]) == ["opened", "resolved"]


def test_a_peak_shorter_than_the_rule_asks_for_does_not_count():
    rule = ABOVE._replace(lasting=timedelta(minutes=10))
    assert kinds(replay(rule, [150, 150, 50, 150, 150])[0]) == []
    told, _ = replay(rule, [150, 250, 150])
    assert [(t.kind, t.severity) for t in told] == [(Kind.OPENED, Severity.WARNING)]


def test_a_higher_severity_must_last_too():
    rule = ABOVE._replace(lasting=timedelta(minutes=10))
    told, _ = replay(rule, [150, 150, 250, 250, 250])
    assert [(t.kind.value, t.severity.name) for t in told] == [("opened", "WARNING"), ("escalated", "CRITICAL")]


def test_below_is_worse_the_lower_it_is():
    rule = Rule("cache_hit", Condition.BELOW, warning=-50, critical=-20, clear=-60)
    assert kinds(replay(rule, [70, 45, 55, 15, 61])[0]) == ["opened", "escalated", "resolved"]


def test_a_change_is_of_the_period_before_and_unknown_without_one():
    rule = Rule("cost", Condition.RISES, warning=500_000, critical=None, clear=400_000)
    assert badness(Reading(NOON, 150, 9, before=100), rule) == 500_000
    assert badness(Reading(NOON, 150, 9, before=0), rule) is None
    assert badness(Reading(NOON, 150, 9), rule) is None
    assert badness(Reading(NOON, 50, 9, before=100), rule._replace(condition=Condition.FALLS)) == 500_000


def test_a_band_is_left_on_both_sides_or_only_upwards():
    outside = Rule("cost", Condition.OUTSIDE, warning=3_000_000, critical=None, clear=2_000_000)
    low = Reading(NOON, 60, 9, band=Band(100, 10))
    assert badness(low, outside) == 4_000_000
    assert badness(low, outside._replace(condition=Condition.OVER_BAND)) == -4_000_000
    assert badness(Reading(NOON, 60, 9), outside) is None


def test_too_few_requests_say_nothing():
    rule = ABOVE._replace(minimum_requests=11)
    assert replay(rule, [500], requests=10)[0] == []
    assert kinds(replay(rule, [500], requests=11)[0]) == ["opened"]


@pytest.mark.parametrize(
    ("mode", "expected"),
    [(NoData.OK, ["opened", "resolved"]), (NoData.KEEP, ["opened"]), (NoData.ALERT, ["opened"])],
)
def test_no_data_means_what_the_rule_says(mode, expected):
    assert kinds(replay(ABOVE._replace(no_data=mode), [150, None, None])[0]) == expected


def test_no_data_opens_an_alert_of_the_mildest_severity_where_asked():
    told, _ = replay(ABOVE._replace(no_data=NoData.ALERT), [10, None, None, 10])
    assert [(t.kind.value, t.severity) for t in told] == [("opened", Severity.WARNING), ("resolved", Severity.WARNING)]
    assert mildest(ABOVE._replace(warning=None)) is Severity.CRITICAL


def test_a_lasting_alert_is_recalled_at_the_asked_interval_and_not_before():
    rule = ABOVE._replace(remind_every=timedelta(minutes=10))
    assert kinds(replay(rule, [150] * 6)[0]) == ["opened", "reminded", "reminded"]


def test_a_window_is_judged_once_whatever_arrives_later():
    _, states = replay(ABOVE, [150])
    again, told = step(states[0], Reading(NOON, 900, 10), ABOVE, NOON + CELL)
    assert (again, told) == (states[0], [])
    earlier, told = step(states[0], Reading(NOON - CELL, 10, 10), ABOVE, NOON + CELL)
    assert (earlier, told) == (states[0], [])


values = st.lists(st.one_of(st.none(), st.integers(0, 300)), max_size=60)
rules = st.builds(
    lambda thresholds, **rest: Rule("cost", Condition.ABOVE, thresholds[1], thresholds[2], thresholds[0], **rest),
    st.lists(st.integers(1, 300), min_size=3, max_size=3, unique=True).map(sorted),
    no_data=st.sampled_from(NoData),
    minimum_requests=st.integers(0, 20),
    lasting=st.integers(0, 4).map(lambda n: n * CELL),
    calm_readings=st.integers(1, 4),
    remind_every=st.one_of(st.none(), st.integers(1, 9).map(lambda n: n * CELL)),
)


@given(rules, values)
def test_openings_and_resolutions_alternate_and_share_their_identity(rule, found):
    told, states = replay(rule, found)
    open_at = None
    for transition in told:
        if transition.kind is Kind.OPENED:
            assert open_at is None
            open_at = transition.opened_at
        else:
            assert transition.opened_at == open_at
            open_at = None if transition.kind is Kind.RESOLVED else open_at
    last = states[-1] if states else State()
    assert last.opened_at == open_at
    assert (last.opened_at is None) == (last.severity is Severity.OK)


@given(rules, values)
def test_openings_of_one_subject_have_different_moments(rule, found):
    opened = [t.opened_at for t in replay(rule, found)[0] if t.kind is Kind.OPENED]
    assert len(opened) == len(set(opened))


@given(rules, st.lists(st.integers(0, 300), max_size=60), st.booleans())
def test_inside_the_hysteresis_zone_nothing_opens_or_ends(rule, found, is_open):
    inside = [rule.clear + 1 + value % max(1, rule.warning - rule.clear) for value in found]
    start = State(Severity.WARNING, NOON, end=NOON - CELL, told_at=NOON) if is_open else State(end=NOON - CELL)
    state, told = start, []
    for place, value in enumerate(inside):
        state, new = step(state, Reading(NOON + place * CELL, value, 100), rule, NOON + place * CELL)
        told += new
    assert {t.kind for t in told} <= {Kind.REMINDED}
    assert state.severity == start.severity


@given(rules, values)
def test_repeating_every_reading_changes_nothing(rule, found):
    once, _ = replay(rule, found)
    state, twice = State(), []
    for place, value in enumerate(found):
        at = NOON + place * CELL
        for _ in range(3):
            state, told = step(state, Reading(at, value, 0 if value is None else 10), rule, at)
            twice += told
    assert twice == once


@given(rules, st.one_of(st.none(), st.integers(0, 300)), st.integers(0, 30))
def test_a_quiet_reading_leaves_a_subject_without_state_without_one(rule, value, requests):
    reading = Reading(NOON, value, requests)
    state, told = step(State(), reading, rule, NOON)
    assert is_quiet(reading, rule) == (state == State(end=NOON) and not told)


@given(rules, st.integers(-10, 400))
def test_more_is_never_less_severe(rule, bad):
    assert severity_of(bad, rule) <= severity_of(bad + 1, rule)


def test_a_band_follows_the_middle_of_the_past_and_ignores_one_outlier():
    assert band_of([100, 102, 98, 5000, 101, 99]) == Band(101, 5)
    assert band_of([100, 100, 100]) is None
    assert band_of([0, 0, 0, 0]) == Band(0, 1)


@given(st.integers(0, 10**15))
def test_an_amount_is_typed_back_as_it_was(value):
    for unit in (USD, PERCENT, REQUESTS):
        assert parse_amount(typed_amount(value, unit), unit) == value


def test_amounts_are_written_as_people_say_them():
    assert amount_text(5_000_000_000, USD) == "$5.00"
    assert amount_text(125_000, PERCENT) == "12.5%"
    assert amount_text(None, USD) == "unknown"
    assert amount_text(2_400_000, METRICS["latency_p95"].unit) == "2.4 s"
    assert amount_text(2700, METRICS["silence"].unit) == "45 min"
    with pytest.raises(ValueError, match="is not a number"):
        parse_amount("five", USD)
