"""Integer nano-dollars: the only unit of money in Costapp, and the only place that rounds.

One dollar is 10^9 nano. A price is nano-dollars per *million* units, so $0.0375 per million tokens
is 37,500,000. A line is rounded half up once; a charge is the exact sum of its lines.
No float comes near: texts and Decimals are converted exactly or refused.
"""

from collections.abc import Sequence
from decimal import Decimal, InvalidOperation

NANO_PER_USD = 1_000_000_000
UNITS_PER_PRICE = 1_000_000
_HALF = UNITS_PER_PRICE // 2
PPM = 1_000_000


def line_cost(qty: int, price_nano_per_mtok: int) -> int:
    """Nano-dollars of ``qty`` units at a price per million units, rounded half up."""
    return (qty * price_nano_per_mtok + _HALF) // UNITS_PER_PRICE


def divide_half_up(numerator: int, denominator: int) -> int:
    """Integer division rounded to the nearest, halves away from zero. ``denominator`` > 0."""
    if numerator < 0:
        return -divide_half_up(-numerator, denominator)
    return (2 * numerator + denominator) // (2 * denominator)


def less_discount(price_nano: int, discount_ppm: int) -> int:
    """A price after a discount in parts per million (12.5 % = 125,000), rounded half up."""
    return divide_half_up(price_nano * (PPM - discount_ppm), PPM)


def apportion(total: int, weights: Sequence[int]) -> list[int]:
    """Split ``total`` in proportion to ``weights`` so that the parts sum to it exactly.

    Largest remainder; equal remainders go to the earlier part, so the result does not depend on
    anything but the order given. Raises ValueError for a negative weight, or when all are zero
    and there is something to split.
    """
    if any(weight < 0 for weight in weights):
        raise ValueError(f"A weight is negative: {min(weights)}")
    whole = sum(weights)
    if whole == 0:
        if total:
            raise ValueError(f"Cannot split {total} over weights that are all zero")
        return [0] * len(weights)
    if total < 0:
        return [-part for part in apportion(-total, weights)]
    parts = [total * weight // whole for weight in weights]
    by_remainder = sorted(range(len(weights)), key=lambda i: -(total * weights[i] % whole))
    for i in by_remainder[: total - sum(parts)]:
        parts[i] += 1
    return parts


def parse_usd(value: Decimal | int | str) -> int:
    """Nano-dollars of an exact dollar amount such as ``"2.50"``, ``"$1,250"`` or ``Decimal("0.0375")``.

    Raises ValueError when it is not a finite number or is finer than a nano-dollar.
    """
    if isinstance(value, str):
        value = value.strip().removeprefix("$").replace(",", "")
    try:
        nano = Decimal(value) * NANO_PER_USD
    except InvalidOperation:
        raise ValueError(f"{value!r} is not an amount of money. Write it like 2.50.") from None
    if not nano.is_finite() or abs(nano) >= 2**63:
        raise ValueError(f"{value!r} is not a usable amount of money.")
    if nano != int(nano):
        raise ValueError(f"{value!r} has more than nine decimals; the smallest unit is one nano-dollar.")
    return int(nano)


def round_usd(value: Decimal) -> int:
    """Nano-dollars of a computed dollar amount (a currency conversion, a price per second), half up."""
    numerator, denominator = value.as_integer_ratio()
    return divide_half_up(numerator * NANO_PER_USD, denominator)


def format_nano(nano: int) -> str:
    """The exact amount, at least two decimals: ``$0.0123``, ``-$2.50``, ``$0.000000001``."""
    return _format(nano, decimals=9)


def format_usd(nano: int) -> str:
    """An amount for people: cents from one dollar up, else enough decimals to show three digits."""
    size = abs(nano)
    if size >= NANO_PER_USD:
        return _format(nano, decimals=2)
    if size >= NANO_PER_USD // 100:
        return _format(nano, decimals=4)
    leading_zeros = 9 - len(str(size))
    return _format(nano, decimals=min(9, leading_zeros + 3))


def _format(nano: int, *, decimals: int) -> str:
    unit = 10 ** (9 - decimals)
    rounded = divide_half_up(abs(nano), unit) * unit
    whole, rest = divmod(rounded, NANO_PER_USD)
    fraction = f"{rest:09d}".rstrip("0").ljust(2, "0")
    sign = "-" if nano < 0 and rounded else ""
    return f"{sign}${whole:,}.{fraction}"
