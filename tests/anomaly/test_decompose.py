"""The difference of two periods, in parts that sum to it to the nano-dollar."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anomaly.decompose import PARTS, Usage, decompose, total

#: nano-dollars per token
INPUT, READ, WRITE, OUTPUT = 2000, 200, 2500, 8000


def usage(
    calls: int, prompt: int, output: int, *, read: int = 0, write: int = 0, scale: int = 1, other_nano: int = 0
) -> Usage:
    """``calls`` calls of ``prompt`` tokens, of which ``read`` came from a cache and ``write`` went into it."""
    fresh = prompt - read - write
    nanos = [n * calls * scale for n in (fresh * INPUT, read * READ, write * WRITE, output * OUTPUT)]
    return Usage(
        requests=calls, input_tokens=fresh * calls, cache_read_tokens=read * calls, cache_write_tokens=write * calls,
        output_tokens=output * calls, priced_tokens=(prompt + output) * calls, input_nano=nanos[0],
        cache_read_nano=nanos[1], cache_write_nano=nanos[2], output_nano=nanos[3],
        cost_nano=sum(nanos) + other_nano * calls,
    )  # fmt: skip


BASE = usage(100, 1000, 200)


def moved(before: dict[str, Usage], after: dict[str, Usage]) -> dict[str, int]:
    parts = decompose(before, after)
    assert sum(parts.amounts.values()) == parts.difference_nano
    assert tuple(parts.amounts) == PARTS
    return {part: amount for part, amount in parts.amounts.items() if amount}


@pytest.mark.parametrize(
    ("after", "part"),
    [
        (usage(250, 1000, 200), "volume"),
        (usage(100, 3100, 200), "prompt"),
        (usage(100, 1000, 700), "output"),
        (usage(100, 1000, 200, read=800), "cache"),
        (usage(100, 1000, 200, write=500), "cache"),
        (usage(100, 1000, 200, scale=3), "price"),
        (usage(100, 1000, 200, other_nano=10**6), "other"),
    ],
)
def test_one_change_is_one_part(after, part):
    assert moved({"gpt-5": BASE}, {"gpt-5": after}) == {part: after.cost_nano - BASE.cost_nano}


def test_calls_that_move_to_a_dearer_model_are_mix():
    dear = usage(50, 1000, 200, scale=5)
    before = {"small": usage(150, 1000, 200), "large": dear}
    after = {"small": usage(50, 1000, 200), "large": usage(150, 1000, 200, scale=5)}
    assert moved(before, after) == {"mix": 4 * 100 * BASE.cost_nano // 100}


def test_a_new_model_is_mix_at_what_it_really_costs():
    after = {"small": usage(50, 1000, 200), "new": usage(50, 4000, 100, scale=2)}
    assert moved({"small": BASE}, after) == {"mix": total(after.values()).cost_nano - BASE.cost_nano}


def test_several_changes_are_told_apart_in_the_documented_order():
    parts = moved({"gpt-5": BASE}, {"gpt-5": usage(200, 3000, 100, read=1500, scale=2)})
    assert parts == {
        "volume": BASE.cost_nano,
        "prompt": 200 * 2000 * INPUT,
        "output": -200 * 100 * OUTPUT,
        # what a cached token cost then is unknown: today's price stands in, and makes no price difference
        "cache": -200 * 1500 * (INPUT - 2 * READ),
        "price": 200 * (1500 * INPUT + 100 * OUTPUT),
    }


def test_a_slice_that_began_or_ended_is_volume():
    assert moved({}, {"gpt-5": BASE}) == {"volume": BASE.cost_nano}
    assert moved({"gpt-5": BASE}, {}) == {"volume": -BASE.cost_nano}
    assert moved({}, {}) == {}


def test_unpriced_calls_take_no_part_and_are_counted_beside():
    unpriced = Usage(requests=900, unpriced=900, input_tokens=900_000)
    parts = decompose({"gpt-5": BASE}, {"gpt-5": BASE, "new-model": unpriced})
    assert set(parts.amounts.values()) == {0}
    assert (parts.unpriced_before, parts.unpriced_after) == (0, 900)


def test_a_key_of_which_half_the_calls_lost_their_price_made_half_as_many_calls_for_money():
    half = BASE._replace(
        unpriced=50, priced_tokens=BASE.priced_tokens // 2, input_nano=BASE.input_nano // 2,
        output_nano=BASE.output_nano // 2, cost_nano=BASE.cost_nano // 2,
    )  # fmt: skip
    assert moved({"gpt-5": BASE}, {"gpt-5": half}) == {"volume": -BASE.cost_nano // 2}


def test_quantities_tell_the_figure_behind_each_part():
    parts = decompose({"gpt-5": BASE}, {"gpt-5": usage(100, 3100, 200, read=310)})
    assert parts.largest == "prompt"
    assert parts.quantities["prompt"].factor == Fraction(31, 10)
    assert parts.quantities["cache"].after == Fraction(1, 10)
    assert parts.quantities["volume"].factor == 1
    assert decompose({}, {"gpt-5": BASE}).quantities["prompt"].factor is None


count = st.integers(0, 10**6)
nano = st.integers(0, 10**13)


@st.composite
def any_usage(draw: st.DrawFn) -> Usage:
    requests = draw(count)
    unpriced = draw(st.integers(0, requests))
    tokens = [draw(count) for _ in range(4)]
    booked = [draw(nano) for _ in range(4)]
    priced = draw(st.integers(0, sum(tokens)))
    return Usage(requests, unpriced, *tokens, priced, *booked, cost_nano=sum(booked) + draw(nano))


periods = st.dictionaries(st.sampled_from(["a", "b", "c", "d"]), any_usage(), max_size=4)


@given(periods, periods)
def test_the_parts_of_any_two_periods_sum_to_the_difference(before, after):
    parts = decompose(before, after)
    assert sum(parts.amounts.values()) == parts.after_nano - parts.before_nano
    assert parts.after_nano == sum(usage.cost_nano for usage in after.values())


@given(periods)
def test_a_period_does_not_differ_from_itself(period):
    assert set(decompose(period, period).amounts.values()) <= {0}
