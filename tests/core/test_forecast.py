"""The forecast: exact where the future is regular, honest about its band, and silent where nothing can be said."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from costapp.core.forecast import Coming, Trust, forecast, runs_out_at, share_of_day

USD = 1_000_000_000
NOW = datetime(2026, 11, 16, 12, tzinfo=UTC)  # a Monday
TODAY = NOW.weekday()


def coming(days, *, rest=0.5):
    """The rest of today, and as many whole days."""
    midnight = NOW.replace(hour=0) + timedelta(days=1)
    return [Coming(NOW, midnight, TODAY, rest)] + [
        Coming(midnight + timedelta(days=n), midnight + timedelta(days=n + 1), (TODAY + 1 + n) % 7, 1.0)
        for n in range(days)
    ]


def ahead(history, *, today=0, days=14, spent=0, share=0.5):
    return forecast(
        spent, history=history, today_nano=today, today_weekday=TODAY, today_share=share, coming=coming(days)
    )


def about(found, expected, percent=2):
    return abs(found - expected) * 100 <= percent * expected


def test_even_days_go_on_as_they_were():
    found = ahead([10 * USD] * 30, today=5 * USD, spent=155 * USD)
    assert about(found.cost_nano, 155 * USD + 145 * USD)
    assert found.trust is Trust.ERRORS
    assert found.low_nano < found.cost_nano < found.high_nano
    assert found.high_nano - found.low_nano < 20 * USD


def test_weekends_that_were_quiet_will_be_quiet():
    week = [20 * USD] * 5 + [2 * USD] * 2
    history = week * 6  # ends on a Sunday
    found = ahead(history, today=10 * USD, days=6, spent=10 * USD)
    assert about(found.cost_nano, 104 * USD, percent=6)
    by_day = [each.cost_nano for each in found.expected]
    assert by_day[-1] * 3 < by_day[1]  # Sunday, Tuesday


def test_a_lasting_step_up_is_followed_within_a_week():
    found = ahead([10 * USD] * 30 + [20 * USD] * 7, today=10 * USD, days=10)
    assert 15 * 10 * USD < found.cost_nano < 21 * 11 * USD
    assert found.high_nano >= 200 * USD  # what really happened to others before: the band knows that days move


def test_wild_days_have_a_wide_band_and_calm_ones_a_narrow_one():
    wild = ahead([(1 + (n * 7919) % 13) * USD for n in range(60)], today=3 * USD, days=3)
    calm = ahead([7 * USD] * 60, today=3 * USD, days=3)
    assert (wild.high_nano - wild.low_nano) > 3 * (calm.high_nano - calm.low_nano)


def test_the_first_day_is_carried_forward_with_a_wide_band_that_says_so():
    found = ahead([], today=4 * USD, spent=4 * USD, days=6)
    assert about(found.cost_nano, 4 * USD + 4 * USD + 48 * USD)
    assert found.trust is Trust.RULE
    assert "0 days" in found.why
    assert found.high_nano > 2 * found.cost_nano


def test_the_first_hours_say_nothing_and_why():
    found = ahead([], today=4 * USD, share=0.1)
    assert (found.cost_nano, found.trust) == (None, Trust.NONE)
    assert "three hours" in found.why


def test_without_any_spend_there_is_no_forecast():
    found = ahead([], today=0)
    assert found.cost_nano is None
    assert "Nothing has been spent" in found.why


def test_a_period_that_is_over_costs_what_it_cost():
    found = forecast(7, history=[1, 2, 4], today_nano=0, today_weekday=TODAY, today_share=1, coming=[])
    assert (found.cost_nano, found.low_nano, found.high_nano) == (7, 7, 7)


def test_a_feature_that_went_quiet_is_expected_to_stay_quiet():
    found = ahead([10 * USD] * 30 + [0] * 14, days=14)
    assert found.cost_nano < 30 * USD


histories = st.lists(st.integers(0, 10**13), max_size=70)


@given(histories, st.integers(0, 10**13), st.integers(0, 40), st.integers(0, 10**15), st.floats(0, 1))
def test_a_forecast_is_never_below_what_is_spent_and_lies_in_its_band(history, today, days, spent, share):
    found = ahead(history, today=today, days=days, spent=spent, share=share)
    if found.cost_nano is not None:
        assert spent <= found.low_nano <= found.cost_nano <= found.high_nano
        assert found.cost_nano == spent + sum(each.cost_nano for each in found.expected)
        assert all(isinstance(amount, int) for amount in found[:3])


@given(histories, st.integers(1, 1000))
def test_money_in_other_units_is_the_same_forecast(history, factor):
    one, many = ahead(history, today=USD), ahead([cost * factor for cost in history], today=USD * factor)
    assert abs(many.cost_nano - one.cost_nano * factor) <= factor * (len(one.expected) + 1) * 10**7


def test_money_runs_out_where_the_expected_spend_reaches_the_limit():
    found = ahead([24 * USD] * 30, today=12 * USD, days=5)
    at = runs_out_at(100 * USD, 100 * USD - 12 * USD - 36 * USD, found.expected)
    assert abs(at - (NOW + timedelta(hours=12 + 36))) < timedelta(hours=1)
    assert runs_out_at(10**15, 0, found.expected) is None
    assert runs_out_at(5, 5, found.expected) is None


@pytest.mark.parametrize(
    ("hours", "passed_h", "share"),
    [
        ([1] * 24, 6, 0.25),
        ([0] * 12 + [1] * 12, 12, 0.0),
        ([0] * 12 + [1] * 12, 18.0, 0.5),
        ([], 12, 0.5),
        ([3] * 25, 25, 1),
    ],
)
def test_the_share_of_a_day_follows_its_hours(hours, passed_h, share):
    assert share_of_day(hours, passed_h) == pytest.approx(share)
