"""core.money: exact in, exact out, rounded once."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from costapp.core.money import apportion, format_nano, format_usd, less_discount, line_cost, parse_usd

weights = st.lists(st.integers(0, 10**12), min_size=1, max_size=20).filter(any)


def test_a_line_is_rounded_half_up_once() -> None:
    assert [line_cost(qty, 500_000) for qty in (0, 1, 2, 3)] == [0, 1, 1, 2]
    assert line_cost(1_000_000, 37_500_000) == 37_500_000


@given(st.integers(0, 10**9), st.integers(0, 10**13))
def test_a_line_is_within_half_a_nano_of_the_exact_product(qty: int, price: int) -> None:
    assert abs(Decimal(qty) * price / 1_000_000 - line_cost(qty, price)) <= Decimal("0.5")


@given(st.integers(-(10**15), 10**15), weights)
def test_apportioned_parts_sum_to_the_whole_and_follow_their_weights(total: int, parts: list[int]) -> None:
    shares = apportion(total, parts)
    assert sum(shares) == total
    for share, weight in zip(shares, parts, strict=True):
        assert abs(share - Decimal(total) * weight / sum(parts)) < 1


def test_equal_remainders_go_to_the_earlier_part() -> None:
    assert apportion(10, [1, 1, 1]) == [4, 3, 3]
    assert apportion(-10, [1, 1, 1]) == [-4, -3, -3]
    assert apportion(0, [0, 0]) == [0, 0]


@pytest.mark.parametrize(("total", "parts"), [(1, [0, 0]), (1, [2, -1]), (1, [])])
def test_what_cannot_be_apportioned_is_refused(total: int, parts: list[int]) -> None:
    with pytest.raises(ValueError, match=r"weights|weight"):
        apportion(total, parts)


@pytest.mark.parametrize(
    ("text", "nano"),
    [("2.50", 2_500_000_000), ("$1,250", 1_250_000_000_000), ("0.000000001", 1), ("-3", -3_000_000_000), (" 0 ", 0)],
)
def test_dollar_texts_are_read_exactly(text: str, nano: int) -> None:
    assert parse_usd(text) == nano


@pytest.mark.parametrize("text", ["", "two", "1e400", "NaN", "Infinity", "0.0000000001", "1.2.3"])
def test_a_text_that_is_no_exact_amount_is_refused_in_words(text: str) -> None:
    with pytest.raises(ValueError, match=r"amount of money|decimals"):
        parse_usd(text)


@given(st.integers(-(2**62), 2**62))
def test_an_exact_amount_reads_back_as_itself(nano: int) -> None:
    assert parse_usd(format_nano(nano).replace("$", "")) == nano


@pytest.mark.parametrize(
    ("nano", "text"),
    [
        (0, "$0.00"),
        (1_234_567_890_123, "$1,234.57"),
        (999_999_999_999, "$1,000.00"),
        (12_345_678, "$0.0123"),
        (500_000_000, "$0.50"),
        (6_250_000, "$0.00625"),
        (1_234, "$0.00000123"),
        (7, "$0.000000007"),
        (-12_345_678, "-$0.0123"),
        (-2_500_000_000, "-$2.50"),
    ],
)
def test_amounts_for_people_keep_three_digits_however_small(nano: int, text: str) -> None:
    assert format_usd(nano) == text


def test_a_discount_is_rounded_once_and_never_below_zero() -> None:
    assert less_discount(2_500_000_000, 125_000) == 2_187_500_000
    assert less_discount(3, 500_000) == 2
    assert less_discount(2_500_000_000, 1_000_000) == 0
