"""Incidents and the alert budget."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anomaly import budget
from anomaly.anomalies import anomalies
from anomaly.detect import THRESHOLD, Verdicts
from anomaly.detect_signals import Kind

HOUR = 3600.0


def judged(scores, expected=100.0, high=120.0, kind=Kind.SPIKE):
    n = len(scores)
    full = np.full(n, 1.0)
    return Verdicts(
        np.array(scores, dtype=float), [kind] * n, ["cost"] * n, full * expected, full * 80, full * high,
        np.zeros(n, bool), full * np.nan,
    )  # fmt: skip


def told(scores, values, **options):
    seconds = [HOUR * i for i in range(len(scores))]
    return anomalies(seconds, values, judged(scores, **options))


def test_an_incident_has_start_peak_end_and_whole_nano_dollars_above():
    scores = [0, 0, 3, 9, 8, 7, 0, 0]
    values = [100, 110, 130, 300, 250, None, 100, 100]
    (one,) = told(scores, values, expected=100.4)
    assert (one.start, one.first_odd, one.peak, one.end) == (2, 3, 3, 5)
    assert one.above_expected_nano == 30 + 200 + 150
    assert one.above_band_nano == 10 + 180 + 130
    assert all(isinstance(amount, int) for amount in (one.above_expected_nano, one.above_band_nano))
    assert (one.kind, one.signal, one.score, one.new_normal) == ("spike", "cost", 9.0, False)


def test_rows_within_a_day_are_one_incident_and_later_ones_another():
    scores = [0.0] * 100
    scores[10] = scores[30] = scores[60] = 9
    assert [(each.start, each.end) for each in told(scores, [100] * 100)] == [(10, 30), (60, 60)]


def test_what_lasts_a_week_becomes_the_new_normal_and_is_not_told_again():
    scores = [0.0] * 24 + [9.0] * 24 * 18 + [0.0] * 24 * 20 + [9.0] * 2
    first, later = told(scores, [200] * len(scores))
    assert first.new_normal
    assert first.end - first.first_odd == 7 * 24 - 1
    assert not later.new_normal
    assert later.first_odd == len(scores) - 2


def test_silence_is_money_below():
    (one,) = told([0, 9, 9, 0], [100, 0, 0, 100], kind=Kind.SILENCE)
    assert one.above_expected_nano == -200
    assert one.above_band_nano == 0


@given(st.lists(st.tuples(st.floats(0, 20), st.none() | st.integers(0, 10**15)), max_size=80))
def test_incidents_are_ordered_disjoint_and_cover_every_odd_row_before_a_new_normal(rows):
    scores, values = [score for score, _ in rows], [value for _, value in rows]
    all_told = told(scores, values)
    ends = [(each.first_odd, each.end) for each in all_told]
    assert ends == sorted(ends)
    covered = {i for begin, end in ends for i in range(begin, end + 1)}
    assert {i for i, score in enumerate(scores) if score >= THRESHOLD} <= covered


# --- budget


def test_more_series_need_a_higher_threshold_and_few_series_the_usual_one():
    assert budget.threshold_for(3, series=50) == THRESHOLD
    assert (
        THRESHOLD < budget.threshold_for(3, 1_000) < budget.threshold_for(3, 10_000) < budget.threshold_for(1, 10_000)
    )
    assert budget.threshold_for(0, 10) == float("inf")


def test_the_budget_holds_on_quiet_scores_of_ten_thousand_series():
    rng = np.random.default_rng(5)
    tail = budget.Tail()
    worst = tail.score + rng.exponential(tail.step, 70_000) + tail.step * np.log(tail.chance)
    alerts = (worst >= budget.threshold_for(3, 10_000)).sum()
    assert alerts <= 9


def test_a_project_with_wilder_quiet_weeks_gets_its_own_tail():
    rng = np.random.default_rng(6)
    calm, wild = rng.exponential(0.5, 2000), rng.exponential(1.5, 2000)
    assert budget.own_tail(calm) == budget.Tail()
    assert budget.own_tail(wild[:100]) == budget.Tail()
    own = budget.own_tail(wild)
    assert own.probability(6.25) == pytest.approx(np.exp(-6.25 / 1.5), rel=0.4)
    assert budget.threshold_for(3, 1000, own) > budget.threshold_for(3, 1000)


def test_the_share_of_false_ones_among_those_told_is_limited():
    rng = np.random.default_rng(7)
    tail = budget.Tail()
    false_shares, found = [], 0
    for _ in range(200):
        quiet = tail.score + rng.exponential(tail.step, 5000) + tail.step * np.log(tail.chance)
        scores = [*rng.uniform(9, 20, 20), *quiet]
        chosen = budget.worth_telling(scores, tested=len(scores))
        false_shares.append(sum(i >= 20 for i in chosen) / max(len(chosen), 1))
        found += sum(i < 20 for i in chosen)
    assert found > 200 * 15
    assert np.mean(false_shares) <= budget.FALSE_SHARE * 1.1


def test_the_oddest_are_sent_when_the_budget_is_short():
    assert budget.within_budget([7.0, 9.0, 8.0], told_this_week=1, alerts_per_week=3) == [1, 2]
    assert budget.within_budget([7.0], told_this_week=5, alerts_per_week=3) == []
