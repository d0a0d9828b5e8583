"""Budgets as arithmetic: thresholds fire once and recover, money is carried over, all to the nano-dollar."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from costapp.core.budgets import (
    DEFAULT_THRESHOLDS,
    Basis,
    CarryOver,
    State,
    Threshold,
    carried_nano,
    judge,
    reached,
    recovered,
)

USD = 1_000_000_000
A50, A80, A100, F100 = DEFAULT_THRESHOLDS
amounts = st.integers(0, 10**15)
limits = st.integers(1, 10**15)


def follow(*values, limit=100 * USD, thresholds=DEFAULT_THRESHOLDS):
    """The verdicts of a budget of $100 while spend (or spend and forecast) takes these values in dollars."""
    states, verdicts = {}, []
    for value in values:
        spent, ahead = value if isinstance(value, tuple) else (value, None)
        ahead = None if ahead is None else ahead * USD
        verdict = judge(thresholds, limit_nano=limit, spent_nano=spent * USD, forecast_nano=ahead, before=states)
        states = verdict.states
        verdicts.append(verdict)
    return verdicts


def told(*values, **more):
    return [verdict.told for verdict in follow(*values, **more)]


def test_each_threshold_is_told_once_and_80_does_not_mute_100():
    assert told(10, 49, 50, 51, 80, 81, 99, 100, 101, 400) == [(), (), (A50,), (), (A80,), (), (), (A100,), (), ()]


def test_a_jump_over_all_thresholds_fires_all_and_tells_the_highest():
    [verdict] = follow(150)
    assert verdict.fires == (A50, A80, A100)
    assert verdict.told == (A100,)


def test_a_lower_alert_closes_without_a_word_when_a_higher_one_opens():
    verdict = follow(60, 85)[-1]
    assert (verdict.told, verdict.closes, verdict.recovers) == ((A80,), (A50,), ())


def test_a_forecast_and_spend_so_far_are_told_side_by_side_until_the_money_is_gone():
    verdicts = follow((55, 90), (60, 101), (85, 120), (101, 130))
    assert [verdict.told for verdict in verdicts] == [(A50,), (F100,), (A80,), (A100,)]
    assert set(verdicts[-1].closes) == {A80, F100}


def test_a_forecast_that_wavers_around_the_limit_is_told_once():
    assert told((10, 101), (10, 99), (10, 100), (10, 96), (10, 102)) == [(F100,), (), (), (), ()]


def test_a_forecast_clearly_below_is_over_and_may_come_back():
    verdicts = follow((10, 101), (10, 94), (10, 101))
    assert verdicts[1].recovers == (F100,)
    assert verdicts[2].told == (F100,)


def test_a_forecast_that_cannot_be_made_decides_nothing():
    verdicts = follow((10, 101), (10, None))
    assert verdicts[1].recovers == ()
    assert verdicts[1].states == {F100.key: State.OPEN}


def test_a_recovery_is_told_for_what_was_open_and_what_it_covered_may_fire_again():
    verdicts = follow(120, 85, 60, 90, 110)
    assert verdicts[1].recovers == (A100,)
    assert verdicts[1].told == ()  # 80 % was reached before: no news
    assert verdicts[3].told == (A80,)
    assert verdicts[4].told == (A100,)


def test_a_new_period_begins_clean():
    assert told(120, limit=100 * USD) == told(120, limit=100 * USD) == [(A100,)]


@given(st.lists(amounts, min_size=1, max_size=12), limits)
def test_rising_spend_fires_each_threshold_at_most_once(values, limit):
    states, fired = {}, []
    for value in sorted(values):
        verdict = judge(DEFAULT_THRESHOLDS, limit_nano=limit, spent_nano=value, forecast_nano=None, before=states)
        states = verdict.states
        fired += verdict.fires
        assert not verdict.recovers
    assert len(fired) == len(set(fired))
    assert set(fired) == {t for t in (A50, A80, A100) if reached(max(values), limit, t.percent)}


@given(st.lists(st.tuples(amounts, st.one_of(st.none(), amounts)), min_size=1, max_size=12), limits)
def test_judging_the_same_figures_again_changes_nothing(values, limit):
    states = {}
    for spent, ahead in values:
        once = judge(DEFAULT_THRESHOLDS, limit_nano=limit, spent_nano=spent, forecast_nano=ahead, before=states)
        again = judge(DEFAULT_THRESHOLDS, limit_nano=limit, spent_nano=spent, forecast_nano=ahead, before=once.states)
        assert (again.states, again.fires, again.recovers, again.closes) == (once.states, (), (), ())
        states = once.states
        assert sum(state is State.OPEN for state in states.values()) <= 2  # spend, and forecast


@given(limits, st.integers(1, 1000))
def test_a_threshold_is_reached_at_its_nano_dollar_and_not_before(limit, percent):
    exact = -(-limit * percent // 100)
    assert reached(exact, limit, percent)
    assert not reached(exact - 1, limit, percent)


@given(amounts, limits, st.integers(1, 1000))
def test_nothing_is_reached_and_over_at_once(value, limit, percent):
    threshold = Threshold(Basis.ACTUAL, percent)
    assert not (reached(value, limit, percent) and recovered(value, limit, threshold))


@pytest.mark.parametrize(
    ("mode", "spent", "carried"),
    [
        (CarryOver.NONE, 10, 0),
        (CarryOver.UNSPENT, 30, 70),
        (CarryOver.UNSPENT, 130, 0),
        (CarryOver.BOTH, 130, -30),
        (CarryOver.BOTH, 30, 70),
        (CarryOver.BOTH, 999, -100),  # never more than one amount, in either direction
    ],
)
def test_money_is_carried_over(mode, spent, carried):
    found = carried_nano(mode, amount_nano=100 * USD, previous_limit_nano=100 * USD, previous_spent_nano=spent * USD)
    assert found == carried * USD


def test_what_is_carried_again_and_again_does_not_pile_up():
    limit = 100 * USD
    for _ in range(12):
        limit = 100 * USD + carried_nano(
            CarryOver.UNSPENT, amount_nano=100 * USD, previous_limit_nano=limit, previous_spent_nano=0
        )
    assert limit == 200 * USD


def test_levels_follow_what_is_left():
    assert [threshold.level for threshold in DEFAULT_THRESHOLDS] == ["info", "warning", "critical", "warning"]
