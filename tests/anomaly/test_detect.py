"""The detector by its promises: causal, the same online and in one go, indifferent to scale, calm about gaps."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anomaly.detect import THRESHOLD, make
from anomaly.detect_novelty import Novelty
from anomaly.detect_online import Online, learn_today, verdict
from anomaly.detect_today import Today
from tests.anomaly.series import META, VOLUME, hourly, priced, records, times

ATHENS = {**META, "timezone": "Europe/Athens"}


def eventful(days=50, **options):
    """A series with a spike, a gap, unknown values and a clock change in it."""
    frame = hourly(days, begin="2025-02-20", **options)
    times(frame, slice(700, 702), 8, *VOLUME, "users")
    frame = priced(frame)
    frame.loc[800:803, "value"] = np.nan
    return frame.drop(index=range(900, 903)).reset_index(drop=True)


@pytest.mark.parametrize("cut", [30, 500, 777, 901, 1100])
def test_cutting_the_future_off_changes_nothing_before(cut):
    frame = eventful()
    whole = make(META).explain(frame)
    part = make(META).explain(frame.iloc[:cut])
    assert np.allclose(part.score, whole.score[:cut])
    assert np.allclose(part.expected, whole.expected[:cut], equal_nan=True)
    assert np.allclose(part.high, whole.high[:cut], equal_nan=True)
    assert part.kind == whole.kind[:cut]


def test_one_row_at_a_time_gives_the_scores_of_the_whole():
    frame = eventful(days=45)
    detector = Online(META)
    online = [detector.update(*row) for row in records(frame)]
    assert np.allclose(online, make(META).scores(frame))
    assert max(online) > THRESHOLD


def test_a_detector_restored_from_its_state_goes_on_as_if_nothing_had_happened():
    frame = eventful(days=40)
    rows = records(frame)
    through, before = Online(META), Online(META)
    expected = [through.update(*row) for row in rows][690:]
    for row in rows[:690]:
        before.update(*row)
    after = Online.restore(META, json.loads(json.dumps(before.state())))
    assert np.allclose([after.update(*row) for row in rows[690:]], expected)


def test_a_day_that_was_learnt_once_and_stored_judges_its_rows_like_the_whole():
    frame = eventful(days=45)
    begin = pd.Timestamp("2025-03-21 08:00")
    before = frame[frame["timestamp"] < begin]
    day = learn_today(META, before, begin.timestamp())
    stored = Today.restore(day.state())
    rows = frame[(frame["timestamp"] >= begin) & (frame["timestamp"] < "2025-03-21 23:00")]
    columns = [name for name in frame.columns if name != "timestamp"]
    told = [
        verdict(stored, time.timestamp(), row)
        for time, row in zip(rows["timestamp"], rows[columns].to_dict("records"), strict=True)
    ]
    whole = make(META).explain(frame)
    assert len(told) > 10
    for each, k in zip(told, rows.index, strict=True):
        assert each.score == pytest.approx(whole.score[k])
        assert each.kind == whole.kind[k]
        assert each[3:] == pytest.approx((whole.expected[k], whole.low[k], whole.high[k]))


def test_a_late_row_is_taken_into_the_history():
    frame = hourly(30)
    rows = records(frame)
    detector = Online(META)
    late = rows.pop(600)
    for row in rows[:640]:
        detector.update(*row)
    detector.update(*late)
    assert detector.update(*rows[640]) == pytest.approx(make(META).scores(frame.iloc[:642])[641])


@settings(max_examples=10, deadline=None)
@given(st.floats(1e-6, 1e9))
def test_the_unit_of_money_does_not_matter(factor):
    frame = eventful(days=40)
    other = frame.assign(value=frame["value"] * factor)
    assert np.allclose(make(META).scores(other), make(META).scores(frame), atol=1e-6)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.sampled_from([0.0, 1.0, np.nan, 1e300, -1.0, 5.0]), min_size=1, max_size=60), st.integers(0, 2**31))
def test_any_rows_give_finite_scores(values, seed):
    rng = np.random.default_rng(seed)
    frame = hourly(4).iloc[: len(values)].assign(value=values)
    for column in ("requests", "users", "input_tokens", "retries"):
        frame[column] = rng.permutation(np.resize([0.0, np.nan, 3.0, 1e12], len(values)))
    verdicts = make(META).explain(frame)
    assert np.isfinite(verdicts.score).all()
    assert (verdicts.score >= 0).all()
    detector = Online(META)
    assert np.allclose([detector.update(*row) for row in records(frame)], verdicts.score)


def test_missing_side_columns_are_unknown_not_zero():
    frame = eventful()[["timestamp", "value"]]
    verdicts = make(META).explain(frame)
    assert verdicts.kind[int(np.argmax(verdicts.score))] == "spike"
    assert max(verdicts.score) > THRESHOLD


def test_rows_that_are_missing_are_neither_odd_nor_zero():
    frame = hourly(45)
    missing = frame.drop(index=[*range(800, 812), *range(900, 903)]).reset_index(drop=True)
    assert make(META).scores(missing).max() < THRESHOLD


@pytest.mark.parametrize("zone", ["Europe/Athens", "America/Sao_Paulo", "Asia/Kathmandu", "Pacific/Apia", "UTC"])
def test_days_with_23_and_25_hours_are_quiet(zone):
    meta = {**META, "timezone": zone}
    for begin in ("2025-02-20", "2025-09-25"):
        frame = hourly(60, begin=begin, meta=meta)
        assert make(meta).scores(frame).max() < THRESHOLD


def test_the_band_is_wide_and_says_so_in_the_first_days_and_holds_most_hours_later():
    frame = hourly(45)
    verdicts = make(META).explain(frame)
    assert verdicts.cold[:90].all()
    assert not verdicts.cold[24 * 7 :].any()
    later = slice(24 * 30, None)
    value = frame["value"].to_numpy()[later]
    inside = (verdicts.low[later] <= value) & (value <= verdicts.high[later])
    assert inside.mean() > 0.9
    assert (verdicts.low[later] <= verdicts.expected[later]).all()
    assert (verdicts.expected[later] <= verdicts.high[later]).all()
    assert np.median(verdicts.high[later] / verdicts.expected[later]) < 1.6


def test_the_first_day_is_judged_and_quiet():
    frame = hourly(3)
    assert make(META).scores(frame).max() < THRESHOLD
    times(frame, slice(60, 62), 60, *VOLUME)
    assert make(META).scores(priced(frame))[60:62].max() > THRESHOLD


@pytest.mark.parametrize("scale", [0.0002, 0.002])
def test_sparse_series_are_quiet(scale):
    """Some calls an hour, most hours none."""
    for seed in range(3):
        frame = hourly(60, seed=seed, scale=scale)
        assert make(META).scores(frame).max() < 1.3 * THRESHOLD


def test_five_minute_cells_find_a_retry_storm_in_its_second_cell():
    meta = {**META, "step_seconds": 300}
    frame = hourly(16, meta=meta)
    begin = 12 * 15 * 24
    retries = frame["retries"].to_numpy(copy=True)
    retries[begin : begin + 12] += frame["requests"][begin : begin + 12] * 2
    frame["retries"] = retries
    times(frame, slice(begin, begin + 12), 3, "requests", "input_tokens", "output_tokens", "cached_tokens")
    verdicts = make(meta).explain(priced(frame))
    assert verdicts.score[:begin].max() < THRESHOLD
    assert verdicts.score[begin : begin + 2].max() >= THRESHOLD
    assert verdicts.kind[begin + 1] == "retry_storm"


def test_a_series_without_a_metric_is_judged_by_novelty():
    assert isinstance(make({"step_seconds": 300, "timezone": "UTC"}), Novelty)
