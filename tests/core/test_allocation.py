"""How an hour of GPUs is split: conservation, fairness and what must not matter, on random hours."""

from datetime import UTC, datetime, timedelta
from fractions import Fraction
from itertools import pairwise
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costapp.core.allocation import (
    HOUR_US,
    Buckets,
    Calls,
    Device,
    Method,
    Sample,
    State,
    Stretch,
    Weights,
    apportion,
    divide,
    split,
    states,
)

MINUTE_US = 60_000_000
RATE = 4_000_000_000  # $4 per hour
CAPACITY = Weights(capacity=10**10)


def calls(*rows):
    """(start, prefill, decode, input, cached, output) in seconds and tokens; the key is the place in the list."""
    table = np.array([[place, *row] for place, row in enumerate(rows)], np.int64).reshape(-1, 7)
    start = table[:, 1] * 1_000_000
    border = start + table[:, 2] * 1_000_000
    return of_columns(table[:, 0], start, border, border + table[:, 3] * 1_000_000, *table[:, 4:].T)


def of_columns(key, *columns):
    keys = np.stack([key, key * 7, key * 13], axis=1).astype(np.uint64)
    return Calls(keys, *columns)


def gpu(key="GPU-0", *, pool=1, rate=RATE, state=State.HELD, start=0, end=HOUR_US):
    return Device(key, pool, [Stretch(start, end, state, rate)])


def hour(devices, of, **options):
    return split(devices, of, start_us=0, end_us=HOUR_US, **options)


seconds = st.integers(-600, 4200)
call_rows = st.lists(
    st.tuples(
        seconds, st.integers(0, 300), st.integers(0, 2000), st.integers(0, 9000), st.integers(0, 9000),
        st.integers(0, 3000),
    ),
    max_size=25,
)  # fmt: skip


@st.composite
def gpus(draw):
    made = []
    for number in range(draw(st.integers(1, 4))):
        edges = sorted(draw(st.sets(st.integers(0, 3600), min_size=2, max_size=6)))
        stretches = [
            Stretch(a * 1_000_000, b * 1_000_000, draw(st.sampled_from(State)), draw(st.integers(0, 10**11)))
            for a, b in pairwise(edges)
        ]
        made.append(Device(f"GPU-{number}", draw(st.integers(0, 2)), stretches))
    return made


weights = st.builds(
    Weights, prefill=st.integers(1, 5000), decode=st.integers(1, 5000), input=st.just(1000),
    cached=st.integers(0, 1000), output=st.integers(0, 9000), capacity=st.just(10**9),
)  # fmt: skip


# -- conservation --------------------------------------------------------------------------------------------------


@settings(max_examples=300, deadline=None)
@given(gpus(), call_rows, st.sampled_from(Method), weights)
def test_calls_and_unused_time_add_up_to_the_bill_to_the_last_nano_dollar(devices, rows, method, weights):
    found = hour(devices, calls(*rows), method=method, weights=weights)
    for device in found.devices:
        of = next(d for d in devices if d.key == device.key)
        worth = sum((s.end_us - s.start_us) * s.nano_per_hour for s in of.stretches if s.state is not State.OFF)
        assert abs(device.bill_nano - Fraction(worth, HOUR_US)) <= Fraction(1, 2)
        assert min(device.nano) >= 0
        assert device.us.total == sum(s.end_us - s.start_us for s in of.stretches if s.state is not State.OFF)
    for pool, shares in found.shares.items():
        assert shares.sum() == sum(d.nano.attributed for d in found.devices if d.pool == pool)
        assert not len(shares) or shares.min() >= 0


@settings(max_examples=200, deadline=None)
@given(gpus(), call_rows, st.sampled_from(Method), weights, st.randoms(use_true_random=False))
def test_the_order_of_calls_and_gpus_changes_nothing(devices, rows, method, weights, rng):
    given_ = calls(*rows)
    place = list(range(len(rows)))
    rng.shuffle(place)
    shuffled = Calls(*(column[place] for column in given_))
    one = hour(devices, given_, method=method, weights=weights)
    other = hour(rng.sample(devices, k=len(devices)), shuffled, method=method, weights=weights)
    assert one.devices == other.devices
    for pool in one.shares:
        assert one.shares[pool][place].tolist() == other.shares[pool].tolist()


def exact_shares(devices, given_, weights):
    """The definition, in fractions: at every moment the price is divided by weight among the active phases."""
    phases = []
    for place in range(len(given_.start_us)):
        start, border, end = (
            min(max(int(c[place]), 0), HOUR_US) for c in (given_.start_us, given_.border_us, given_.end_us)
        )
        phases += [(start, border, weights.prefill, place), (border, end, weights.decode, place)]
    stretches = [s for device in devices for s in device.stretches if s.state is not State.OFF]
    edges = sorted({edge for a, b, _, _ in phases for edge in (a, b)} | {e for s in stretches for e in s[:2]})
    shares = [Fraction(0)] * len(given_.start_us)
    for a, b in pairwise(edges):
        active = [(weight, place) for first, last, weight, place in phases if first <= a and b <= last]
        price = sum(s.nano_per_hour for s in stretches if s.start_us <= a and b <= s.end_us)
        for weight, place in active:
            shares[place] += Fraction(price * (b - a) * weight, HOUR_US * sum(w for w, _ in active))
    return shares


@settings(max_examples=150, deadline=None)
@given(gpus(), call_rows, weights)
def test_processor_sharing_is_its_definition(devices, rows, weights):
    given_ = calls(*rows)
    found = hour(devices, given_, weights=weights)
    exact = exact_shares(devices, given_, weights)
    # half a nano-dollar per GPU for its bill, one for its buckets, one for the share
    for place, share in enumerate(exact):
        assert abs(sum(int(column[place]) for column in found.shares.values()) - share) < 2 + len(devices)


@settings(max_examples=100, deadline=None)
@given(gpus(), call_rows, weights)
def test_an_hour_is_sixty_minutes_but_for_a_rounding_of_each(devices, rows, weights):
    given_ = calls(*rows)
    whole = hour(devices, given_, weights=weights)
    minutes = [
        split([cut(device, first) for device in devices], given_, start_us=first, end_us=first + MINUTE_US,
              weights=weights)
        for first in range(0, HOUR_US, MINUTE_US)
    ]  # fmt: skip
    for place, device in enumerate(whole.devices):
        parts = [minute.devices[place] for minute in minutes]
        assert tuple(map(sum, zip(*(part.us for part in parts), strict=True))) == tuple(device.us)
        added = tuple(map(sum, zip(*(part.nano for part in parts), strict=True)))
        assert all(abs(a - b) <= 61 for a, b in zip(added, device.nano, strict=True))
    for pool, shares in whole.shares.items():
        added = sum(minute.shares[pool] for minute in minutes)
        assert np.abs(added - shares).max(initial=0) <= 61 * (1 + len(devices))


def cut(device, first_us):
    last_us = first_us + MINUTE_US
    inside = [
        stretch._replace(start_us=max(stretch.start_us, first_us), end_us=min(stretch.end_us, last_us))
        for stretch in device.stretches
    ]
    return device._replace(stretches=[stretch for stretch in inside if stretch.start_us < stretch.end_us])


# -- what moves what -----------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(call_rows, st.sampled_from([Method.SHARING, Method.TOKENS, Method.PHASES]))
def test_adding_an_idle_gpu_changes_only_idle(rows, method):
    """It is a server of its own: nothing runs on it."""
    before = hour([gpu()], calls(*rows), method=method)
    idle = hour([gpu("GPU-9", state=State.FREE)], calls(), method=method)
    assert idle.devices[0].nano == Buckets(free=RATE)
    assert hour([gpu()], calls(*rows), method=method).shares[1].tolist() == before.shares[1].tolist()


@settings(deadline=None)
@given(call_rows, st.sampled_from([Method.SHARING, Method.TOKENS, Method.PHASES]))
def test_doubling_the_price_doubles_every_row(rows, method):
    once, twice = (hour([gpu(rate=rate)], calls(*rows), method=method) for rate in (RATE, 2 * RATE))
    assert np.abs(twice.shares[1] - 2 * once.shares[1]).max(initial=0) <= 2
    assert twice.devices[0].bill_nano == 2 * once.devices[0].bill_nano
    assert all(abs(b - 2 * a) <= 1 for a, b in zip(once.devices[0].nano, twice.devices[0].nano, strict=True))


@pytest.mark.parametrize(("state", "bucket"), [
    (State.FREE, "free"), (State.HELD, "held"), (State.BUSY, "busy"), (State.UNOBSERVED, "unobserved"),
])  # fmt: skip
@pytest.mark.parametrize("method", Method)
def test_without_calls_the_whole_bill_is_unused(state, bucket, method):
    found = hour([gpu(state=state)], calls(), method=method, weights=CAPACITY)
    assert found.devices[0].nano == Buckets(**{bucket: RATE})


def test_a_lone_call_pays_for_the_time_it_runs_and_a_batch_shares_it():
    alone = hour([gpu()], calls((0, 0, 36, 10, 0, 10)))
    assert (alone.shares[1].tolist(), alone.devices[0].nano) == (
        [RATE // 100],
        Buckets(RATE // 100, held=RATE * 99 // 100),
    )
    batch = hour([gpu()], calls(*[(0, 0, 36, 10, 0, 10)] * 20))
    assert batch.shares[1].tolist() == [RATE // 100 // 20] * 20


def test_more_calls_than_gpus_share_what_there_is():
    found = hour([gpu("GPU-0"), gpu("GPU-1")], calls(*[(0, 0, 3600, 1, 0, 1)] * 7))
    assert found.shares[1].sum() == 2 * RATE
    assert found.shares[1].max() - found.shares[1].min() <= 1


def test_tensor_parallel_gpus_are_one_server_at_their_summed_price():
    found = hour([gpu(f"GPU-{n}") for n in range(4)], calls((0, 0, 1800, 1, 0, 1)))
    assert found.shares[1].tolist() == [2 * RATE]
    assert [device.nano.attributed for device in found.devices] == [RATE // 2] * 4


def test_prefill_can_weigh_more_than_decode():
    """One call prefills while another decodes: at 3 to 1 the first pays three quarters of that minute."""
    given_ = calls((0, 60, 0, 8000, 0, 0), (0, 0, 60, 0, 0, 500))
    found = hour([gpu()], given_, weights=Weights(prefill=3000, decode=1000))
    minute = RATE // 60
    assert [round(share / minute, 6) for share in found.shares[1].tolist()] == [0.75, 0.25]


def test_prefill_and_decode_on_two_engines_are_two_windows_that_add_up():
    """Disaggregated: each engine sees its own phase of the call."""
    given_ = calls((0, 36, 72, 1000, 0, 100))
    prefill = hour([gpu("P")], given_._replace(end_us=given_.border_us))
    decode = hour([gpu("D")], given_._replace(start_us=given_.border_us))
    assert (prefill.shares[1].tolist(), decode.shares[1].tolist()) == ([RATE // 100], [RATE * 2 // 100])


def test_a_call_across_two_hours_pays_each_its_part():
    given_ = calls((3540, 0, 120, 0, 0, 100))
    first = hour([gpu()], given_)
    second = split([gpu(start=HOUR_US, end=2 * HOUR_US)], given_, start_us=HOUR_US, end_us=2 * HOUR_US)
    assert abs(int(first.shares[1][0]) - RATE // 60) <= 1
    assert first.shares[1].tolist() == second.shares[1].tolist()


def test_work_that_calls_explain_is_not_untraced_traffic():
    """Each sample met a call, so all time looks busy; but the GPU worked no longer than its calls ran."""
    busy = gpu(state=State.BUSY)
    given_ = calls((0, 0, 900, 1, 0, 1))
    quarter = HOUR_US // 4
    assert hour([busy], given_).devices[0].us == Buckets(quarter, busy=3 * quarter)
    explained = hour([busy._replace(worked_us=quarter)], given_).devices[0]
    assert explained.us == Buckets(quarter, held=3 * quarter)
    assert explained.nano == Buckets(RATE // 4, held=3 * RATE // 4)
    beside = hour([busy._replace(worked_us=3 * quarter)], given_).devices[0]
    assert beside.us == Buckets(quarter, busy=2 * quarter, held=quarter)
    assert beside.bill_nano == RATE


@settings(max_examples=200, deadline=None)
@given(gpus(), call_rows, st.integers(0, 2 * HOUR_US))
def test_what_samples_say_of_the_work_moves_money_between_busy_and_held_only(devices, rows, worked_us):
    given_ = calls(*rows)
    plain = hour(devices, given_)
    told = hour([device._replace(worked_us=worked_us) for device in devices], given_)
    for before, after in zip(plain.devices, told.devices, strict=True):
        assert after.bill_nano == before.bill_nano
        assert after.us.total == before.us.total
        assert after.us._replace(busy=0, held=0) == before.us._replace(busy=0, held=0)
        assert after.nano._replace(busy=0, held=0) == before.nano._replace(busy=0, held=0)
        assert 0 <= after.us.busy <= max(0, worked_us - after.us.attributed)
    assert {pool: shares.tolist() for pool, shares in told.shares.items()} == {
        pool: shares.tolist() for pool, shares in plain.shares.items()
    }


def test_the_price_of_the_moment_counts():
    """A spot price that falls by half at half past: a call in each half."""
    device = Device("GPU-0", 1, [
        Stretch(0, HOUR_US // 2, State.HELD, RATE), Stretch(HOUR_US // 2, HOUR_US, State.HELD, RATE // 2),
    ])  # fmt: skip
    found = hour([device], calls((0, 0, 36, 1, 0, 1), (1800, 0, 36, 1, 0, 1)))
    assert found.shares[1].tolist() == [RATE // 100, RATE // 200]
    assert found.devices[0].bill_nano == RATE * 3 // 4


def test_a_gpu_without_a_price_has_time_but_no_money():
    device = Device("GPU-0", 0, [Stretch(0, HOUR_US, State.HELD, None)])
    found = hour([device], calls((0, 0, 36, 1, 0, 1)))
    assert found.devices[0].unrated_us == HOUR_US
    assert found.devices[0].us == Buckets(36_000_000, held=HOUR_US - 36_000_000)
    assert found.devices[0].bill_nano == 0


def test_two_pools_of_one_server_are_each_conserved():
    found = hour(
        [gpu("A", pool=1), gpu("B", pool=2, rate=RATE // 2)], calls((0, 0, 1800, 1, 0, 1), (0, 0, 900, 1, 0, 1))
    )
    assert {pool: int(shares.sum()) for pool, shares in found.shares.items()} == {1: RATE // 2, 2: RATE // 4}


# -- the other methods ---------------------------------------------------------------------------------------------


def test_token_weights_charge_tokens_and_not_time():
    given_ = calls((0, 0, 36, 1000, 0, 0), (0, 0, 36, 0, 1000, 0), (0, 0, 36, 0, 0, 1000))
    found = hour([gpu()], given_, method=Method.TOKENS)
    assert [round(share / (RATE / 100), 4) for share in found.shares[1].tolist()] == [0.1961, 0.0196, 0.7843]


def test_phases_divide_prefill_by_input_and_decode_by_time():
    given_ = calls((0, 10, 30, 3000, 0, 9), (0, 10, 10, 1000, 0, 9))
    found = hour([gpu()], given_, method=Method.PHASES)
    attributed = int(found.shares[1].sum())
    assert abs(found.shares[1][0] - attributed * (20 * 0.75 + 30) / 60) <= 1


def test_practical_capacity_leaves_unused_capacity_idle():
    """One GPU can do a million weighted tokens an hour; a call of 10,000 costs a hundredth, however long it took."""
    found = hour([gpu()], calls((0, 0, 1800, 10_000, 0, 0)), method=Method.CAPACITY, weights=Weights(capacity=10**9))
    assert found.shares[1].tolist() == [RATE // 100]
    assert found.devices[0].nano == Buckets(RATE // 100, held=RATE * 99 // 100)


def test_practical_capacity_never_charges_more_than_the_time_cost():
    found = hour([gpu()], calls((0, 0, 360, 10**6, 0, 0)), method=Method.CAPACITY, weights=Weights(capacity=10**9))
    assert found.shares[1].tolist() == [RATE // 10]


def test_practical_capacity_without_a_capacity_is_refused():
    with pytest.raises(ValueError, match="one GPU can do"):
        hour([gpu()], calls((0, 0, 36, 1, 0, 1)), method=Method.CAPACITY)


@pytest.mark.parametrize("method", Method)
def test_calls_without_token_counts_are_charged_by_time(method):
    found = hour([gpu()], calls((0, 0, 36, 0, 0, 0), (0, 0, 72, 0, 0, 0)), method=method, weights=CAPACITY)
    assert found.shares[1].sum() == RATE * 2 // 100
    assert found.shares[1][1] > found.shares[1][0] > 0


# -- whole numbers -------------------------------------------------------------------------------------------------


@given(st.integers(0, 10**18), st.lists(st.integers(0, 10**12), min_size=1, max_size=40))
def test_dividing_loses_nothing_and_is_off_by_less_than_one(total, weights):
    parts = divide(total, weights)
    assert sum(parts) == total
    whole = sum(weights)
    assert not whole or all(abs(Fraction(total * w, whole) - p) < 1 for w, p in zip(weights, parts, strict=True))


@settings(deadline=None)
@given(st.integers(0, 10**15), st.lists(st.floats(0, 1e12, allow_subnormal=False), min_size=1, max_size=60))
def test_apportioning_loses_nothing(total, claims):
    parts = apportion(total, np.array(claims))
    assert parts.min() >= 0
    assert parts.sum() == (total if any(claims) else 0)


# -- samples -------------------------------------------------------------------------------------------------------

EVERY_15_S = 15_000_000


def samples(*minutes, util=0, held=True):
    return [Sample(m * MINUTE_US + s, util, held) for m in minutes for s in range(0, MINUTE_US, EVERY_15_S)]


def seen(found, **options):
    options = {"seen_before": True, "seen_after": True, "always_on": False, **options}
    return states(found, start_us=0, end_us=HOUR_US, **options)


def test_an_hour_of_samples_is_an_hour_of_states():
    found = seen([*samples(*range(30), util=9000), *samples(*range(30, 60), util=0, held=False)])
    assert found == [(0, HOUR_US // 2, State.BUSY), (HOUR_US // 2, HOUR_US, State.FREE)]


def test_the_last_sample_of_the_hour_before_speaks_for_the_first_moments():
    found = seen([Sample(-10_000_000, 9000, True), Sample(5_000_000, 0, True)], seen_after=False)
    assert found == [(0, 5_000_000, State.BUSY), (5_000_000, 125_000_000, State.HELD)]


def test_a_gap_in_the_samples_is_unobserved_and_never_idle():
    found = seen([*samples(*range(20)), *samples(*range(40, 60))])
    gap_us = 19 * MINUTE_US + 45_000_000 + 120_000_000
    assert found == [
        (0, gap_us, State.HELD), (gap_us, 40 * MINUTE_US, State.UNOBSERVED), (40 * MINUTE_US, HOUR_US, State.HELD),
    ]  # fmt: skip


def test_where_the_scrape_failed_nothing_is_known_at_once():
    found = seen(samples(*range(60)), gaps=[10 * MINUTE_US + 1])
    assert found[1] == (10 * MINUTE_US + 1, 10 * MINUTE_US + EVERY_15_S, State.UNOBSERVED)


def test_a_node_that_comes_and_goes_is_off_before_and_after():
    found = seen(samples(*range(20, 40)), seen_before=False, seen_after=False)
    assert found == [(20 * MINUTE_US, 39 * MINUTE_US + 45_000_000 + 120_000_000, State.HELD)]


def test_what_is_paid_for_anyway_is_unobserved_where_it_is_not_seen():
    assert seen([], seen_before=False, seen_after=False, always_on=True) == [(0, HOUR_US, State.UNOBSERVED)]
    assert seen([], seen_before=False, seen_after=False) == []
    assert seen([]) == [(0, HOUR_US, State.UNOBSERVED)]


def test_unknown_utilisation_is_not_zero():
    found = seen([Sample(s, None, False) for s in range(0, HOUR_US, EVERY_15_S)])
    assert found == [(0, HOUR_US, State.UNOBSERVED)]


@settings(max_examples=200, deadline=None)
@given(st.sets(st.integers(-120, 3599), max_size=40), st.sets(st.integers(0, 3599), max_size=5), st.booleans(),
       st.booleans(), st.booleans())  # fmt: skip
def test_states_are_disjoint_and_cover_the_hour_of_what_is_always_paid(at, gaps, before, after, always):
    found = states(
        [Sample(second * 1_000_000, 0, True) for second in sorted(at)], start_us=0, end_us=HOUR_US,
        seen_before=before, seen_after=after, always_on=always, gaps=[gap * 1_000_000 for gap in sorted(gaps)],
    )  # fmt: skip
    for (_, end, _), (start, _, _) in pairwise(found):
        assert end <= start
    if always:
        assert sum(b - a for a, b, _ in found) == HOUR_US


@pytest.mark.parametrize("day", ["2026-03-29", "2026-10-25", "2028-02-29"])
def test_hours_of_days_with_a_clock_change_and_of_leap_days_add_up(day):
    """Hours are UTC, so every one has 60 minutes: a 23- or 25-hour day costs 23 or 25 of them."""
    zone = ZoneInfo("Europe/Berlin")
    start = datetime.fromisoformat(f"{day}T00:00").replace(tzinfo=zone).astimezone(UTC)
    following = datetime.fromisoformat(f"{day}T00:00") + timedelta(days=1)
    hours = int((following.replace(tzinfo=zone).astimezone(UTC) - start) / timedelta(hours=1))
    begin = int(start.timestamp()) * 1_000_000
    bills = []
    for number in range(hours):
        first = begin + number * HOUR_US
        device = gpu(start=first, end=first + HOUR_US)
        bills.append(split([device], calls(), start_us=first, end_us=first + HOUR_US).devices[0].bill_nano)
    assert sum(bills) == hours * RATE
    assert hours == {"2026-03-29": 23, "2026-10-25": 25, "2028-02-29": 24}[day]
