"""Each kind of incident is found and named; what is no incident stays quiet."""

import numpy as np
import pandas as pd
import pytest

from anomaly.detect import THRESHOLD, make
from tests.anomaly.series import META, VOLUME, hourly, priced, times

BEGIN = 40 * 24 + 10  # hours into the series


def verdicts(frame, meta=META):
    return make(meta).explain(frame)


def found(frame, kind, within_hours, begin=BEGIN, meta=META):
    """The first alert from `begin` on comes in time and has the kind; there is none before."""
    judged = verdicts(frame, meta)
    odd = np.flatnonzero(judged.score >= THRESHOLD)
    assert len(odd), f"missed: worst score {judged.score[begin:].max():.1f}"
    assert begin <= odd[0] < begin + within_hours
    assert judged.kind[odd[0]] == kind
    return judged


def test_a_spike():
    frame = hourly()
    times(frame, slice(BEGIN, BEGIN + 2), 6, *VOLUME)
    times(frame, slice(BEGIN, BEGIN + 2), 4.2, "users")
    found(priced(frame), "spike", 1)


def test_a_model_swap_that_costs_sixty_percent_more():
    frame = hourly()
    found(priced(frame, np.where(np.arange(len(frame)) >= BEGIN, 1.6, 1.0)), "level_shift", 1)


def test_prompts_that_grow_two_percent_a_day():
    frame = hourly(70)
    growth = 1.02 ** (np.maximum(np.arange(len(frame)) - BEGIN, 0) / 24)
    times(frame, slice(None), growth, "input_tokens", "cached_tokens")
    found(priced(frame), "slow_leak", 12 * 24)


def test_one_session_that_loops():
    """Half as many requests again, with long prompts that miss the cache, from no more users."""
    frame = hourly()
    rows = slice(BEGIN, BEGIN + 12)
    requests, tokens = frame["requests"].to_numpy(copy=True), frame["input_tokens"].to_numpy(copy=True)
    requests[rows] += 1000
    tokens[rows] += 1000 * 4000
    frame["requests"], frame["input_tokens"] = requests, tokens
    found(priced(frame), "runaway_loop", 1)


def test_a_cache_that_stopped_hitting():
    frame = hourly()
    times(frame, slice(BEGIN, BEGIN + 48), 0.05, "cached_tokens")
    found(priced(frame), "cache_stopped", 1)


def test_a_retry_storm():
    frame = hourly()
    rows = slice(BEGIN, BEGIN + 5)
    retries = frame["retries"].to_numpy(copy=True)
    retries[rows] += 1.5 * frame["requests"].to_numpy()[rows]
    frame["retries"] = retries
    times(frame, rows, 2.5, "requests", "input_tokens", "output_tokens", "cached_tokens")
    found(priced(frame), "retry_storm", 1)


def test_silence_as_zeros_and_as_a_trickle():
    for kept in (0.0, 0.05):
        frame = hourly()
        times(frame, slice(BEGIN, BEGIN + 8), kept, *VOLUME)
        if not kept:
            times(frame, slice(BEGIN, BEGIN + 8), 0, "users")
        found(priced(frame), "silence", 1)


def with_gpu(frame, replicas, traffic=1.0):
    """Capacity follows the expected traffic; what is not used is the value."""
    meta = {**META, "metric": "gpu_idle_cost"}
    times(frame, slice(None), traffic, *VOLUME, "users")
    usual = hourly(int(len(frame) / 24), seed=99)["requests"].to_numpy()
    capacity = np.maximum(usual, 50) * 1.8 * replicas
    frame["gpu_util"] = np.clip(frame["requests"] / capacity, 0.001, 1)
    frame["value"] = capacity * 0.01 * (1 - frame["gpu_util"])
    return frame, meta


def test_gpus_that_stay_when_traffic_leaves():
    traffic = np.ones(60 * 24)
    traffic[BEGIN : BEGIN + 60] = 0.15
    frame, meta = with_gpu(hourly(), 1.0, traffic)
    found(frame, "idle_gpu", 3, meta=meta)


def test_more_replicas_than_needed():
    replicas = np.ones(60 * 24)
    replicas[BEGIN : BEGIN + 60] = 2.5
    frame, meta = with_gpu(hourly(), replicas)
    judged = verdicts(frame, meta)
    odd = np.flatnonzero(judged.score >= THRESHOLD)
    assert len(odd)
    assert BEGIN <= odd[0] < BEGIN + 8
    assert judged.kind[odd[0]] in ("idle_gpu", "overprovisioned")


# --- what must stay quiet


@pytest.mark.parametrize("seed", range(12))
def test_ordinary_weeks(seed):
    assert verdicts(hourly(seed=seed)).score.max() < THRESHOLD


def test_the_batch_of_the_first_of_the_month_from_its_second_time_on():
    frame = hourly(120, begin="2025-01-20")
    local = pd.DatetimeIndex(frame["timestamp"]).tz_localize("UTC").tz_convert(META["timezone"])
    batch = np.flatnonzero((local.day == 1) & (local.hour >= 2) & (local.hour < 20))
    requests = frame["requests"].to_numpy(copy=True)
    for column in ("input_tokens", "output_tokens", "cached_tokens"):
        values = frame[column].to_numpy(copy=True)
        values[batch] *= 1 + 1200 / requests[batch]
        frame[column] = np.round(values)
    requests[batch] += 1200
    frame["requests"] = requests
    judged = verdicts(priced(frame))
    second = int(np.searchsorted(frame["timestamp"], pd.Timestamp("2025-02-27")))
    assert judged.score[:second].max() >= THRESHOLD
    assert judged.score[second:].max() < THRESHOLD


def test_a_launch_ramp_is_said_once_as_the_new_normal_and_is_no_alert():
    frame = hourly(75)
    ramp = 1 + 1.5 * np.clip((np.arange(len(frame)) - BEGIN) / (10 * 24), 0, 1)
    times(frame, slice(None), ramp, *VOLUME)
    times(frame, slice(None), ramp**0.8, "users")
    judged = verdicts(priced(frame))
    assert judged.score.max() < THRESHOLD
    said = np.flatnonzero(np.isfinite(judged.new_normal))
    assert len(said) == 1
    assert BEGIN < said[0] < BEGIN + 15 * 24
    assert 1.4 < judged.new_normal[said[0]] < 2.6


def test_data_that_is_still_arriving_is_unknown_and_quiet():
    frame = hourly()
    frame.loc[len(frame) - 6 :, [c for c in frame.columns if c != "timestamp"]] = np.nan
    assert verdicts(frame).score.max() < THRESHOLD


def test_a_quiet_public_holiday_is_no_incident():
    frame = hourly()
    day = slice(42 * 24, 43 * 24)
    times(frame, day, 0.5, *VOLUME)
    times(frame, day, 0.5**0.8, "users")
    assert verdicts(priced(frame)).score.max() < THRESHOLD
