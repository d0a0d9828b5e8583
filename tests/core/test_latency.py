"""Latency histograms: exact to merge, close to read."""

import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from costapp.core.latency import LAST_SLOT, LIMITS_US, merge, quantile, slot_of

durations = st.integers(1_000, LIMITS_US[-1] - 1)


def histogram(durations_us):
    return Counter(map(slot_of, durations_us))


def test_slots_grow_and_every_duration_has_one():
    assert list(LIMITS_US) == sorted(set(LIMITS_US))
    assert [slot_of(0), slot_of(999), slot_of(1_000), slot_of(10**18)] == [0, 0, 1, LAST_SLOT]


@given(st.lists(durations), st.lists(durations))
def test_merging_is_counting_everything_at_once(some, others):
    assert merge([histogram(some), histogram(others)]) == histogram(some + others)


@given(st.lists(durations, min_size=1, max_size=300), st.floats(0, 1))
def test_a_quantile_lies_in_the_slot_of_the_true_one(values, q):
    values.sort()
    true = values[max(0, -(-int(q * len(values) * 10**9) // 10**9) - 1)] if q else values[0]
    read = quantile(histogram(values), q)
    assert read is not None
    assert abs(slot_of(read) - slot_of(true)) <= 1


def test_quantiles_of_many_calls_are_within_five_percent():
    rng = random.Random(1)
    values = sorted(round(rng.lognormvariate(13, 1)) for _ in range(20_000))
    for q in (0.5, 0.9, 0.95, 0.99):
        true, read = values[int(q * len(values))], quantile(histogram(values), q)
        assert read is not None
        assert abs(read / true - 1) < 0.05


def test_nothing_has_no_quantile():
    assert quantile({}, 0.5) is None
    assert quantile({7: 0}, 0.95) is None


def test_a_quantile_does_not_decrease_with_q():
    slots = {3: 5, 40: 1, 90: 7, 0: 2, LAST_SLOT: 1}
    read = [quantile(slots, number / 50) for number in range(51)]
    assert read == sorted(read)
