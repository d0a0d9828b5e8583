"""A project's own price list as a CSV file -> unsaved rate sets. Refuses a file with any error, whole.

One row is one SKU from - to. Token prices are per million tokens, all others per unit, in the stated
currency. Two rows that differ only in ``context_above`` are one rate set with a context tier.
"""

import csv
import io
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, date, datetime, time
from decimal import Decimal, InvalidOperation
from itertools import pairwise
from typing import Any, NamedTuple

from costapp.core.money import UNITS_PER_PRICE, round_usd
from costapp.core.rates import MAX_RATE_NANO, RATE_METERS, REQUEST, UNIT_METER_NAMES
from costapp.models.pricing import RateSet

KEY_COLUMNS = (
    "provider", "model", "region", "service_tier", "batch", "window_start", "window_end", "valid_from",
)  # fmt: skip
OTHER_COLUMNS = ("valid_to", "context_above", "currency", "usd_per_unit", "discount_percent", "priced_as", "source")
METER_COLUMNS = tuple(sorted(RATE_METERS))
COLUMNS = (*KEY_COLUMNS, *OTHER_COLUMNS, *METER_COLUMNS)
_PER_UNIT = UNIT_METER_NAMES | {REQUEST}
MAX_ROWS = 20_000
_LENGTHS = {"provider": 100, "model": 200, "region": 50, "service_tier": 50, "priced_as": 300, "source": 300}


class PriceListError(ValueError):
    """Everything that is wrong with a file, one sentence per line."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class _Row(NamedTuple):
    line: int
    key: tuple[Any, ...]
    fields: dict[str, Any]
    prices: dict[str, int]
    stated: dict[str, str]
    context_above: int


def parse_price_csv(text: str) -> list[RateSet]:
    """Unsaved rate sets of a CSV text. Raises PriceListError with one sentence per problem."""
    reader = csv.DictReader(io.StringIO(text.removeprefix("\ufeff"), newline=""), strict=True)
    try:
        header = [name.strip() for name in reader.fieldnames or []]
        reader.fieldnames = header
        problems = list(_header_problems(header))
        rows: list[_Row] = [] if problems else _rows(reader, problems)
    except csv.Error as error:
        raise PriceListError([f"Line {reader.line_num}: this is not CSV ({error})."]) from None
    if not rows and not problems:
        problems.append("The file has no price in it.")
    sets = list(_rate_sets(rows, problems))
    if problems:
        raise PriceListError(problems)
    _close_earlier(sets)
    return sets


def _header_problems(header: list[str]) -> Iterator[str]:
    for name in header:
        if name not in COLUMNS:
            yield f"Line 1: there is no column {name!r}. Columns: {', '.join(COLUMNS)}."
    if "model" not in header:
        yield "Line 1: the column model is missing."
    for name in sorted({name for name in header if header.count(name) > 1}):
        yield f"Line 1: the column {name} is there twice."


def _rows(reader: "csv.DictReader[str]", problems: list[str]) -> list[_Row]:
    rows: list[_Row] = []
    for record in reader:
        if len(rows) >= MAX_ROWS:
            problems.append(f"Line {reader.line_num}: a price list has at most {MAX_ROWS:,} rows.")
            break
        if None in record:
            problems.append(f"Line {reader.line_num}: there are more values than columns.")
            continue
        cells = {name: (value or "").strip() for name, value in record.items()}
        if any(cells.values()):
            row = _row(reader.line_num, cells, problems)
            if row:
                rows.append(row)
    return rows


def _row(line: int, cells: Mapping[str, str], problems: list[str]) -> _Row | None:
    before = len(problems)

    def read(name: str, reader: Callable[[str], Any], default: Any = None) -> Any:
        text = cells.get(name, "")
        if not text:
            return default
        try:
            return reader(text)
        except ValueError as error:
            problems.append(f"Line {line}: {name} is {text!r}; {error}")
            return default

    fields: dict[str, Any] = {name: cells.get(name, "") for name in ("provider", "model", "region", "service_tier")}
    fields |= {"batch": read("batch", _yes_or_no, False), "valid_from": read("valid_from", _day)}
    fields |= {"window_start": read("window_start", _time_of_day), "window_end": read("window_end", _time_of_day)}
    key = tuple(fields[name] for name in KEY_COLUMNS)
    fields |= {"valid_to": read("valid_to", _day), "discount_percent": read("discount_percent", _percent)}
    fields |= {name: cells.get(name, "") for name in ("priced_as", "source")}
    fields |= {"currency": read("currency", _currency, "USD"), "usd_per_unit": read("usd_per_unit", _rate_of_exchange)}
    stated = {name: cells[name] for name in METER_COLUMNS if cells.get(name)}
    prices = {name: read(name, _price) for name in stated}
    above = read("context_above", _tokens, 0)
    if len(problems) == before:
        problems += [f"Line {line}: {problem}" for problem in _row_problems(fields, stated)]
    if len(problems) > before:
        return None
    exchange = fields["usd_per_unit"] or Decimal(1)
    nano = {name: _nano(name, price, exchange) for name, price in prices.items()}
    for name in [name for name in nano if nano[name] > MAX_RATE_NANO]:
        problems.append(f"Line {line}: {name} is {cells[name]!r}; that is too much to be a price.")
    return _Row(line, key, fields, nano, stated, above)


def _row_problems(fields: Mapping[str, Any], stated: Mapping[str, str]) -> Iterator[str]:
    for name, length in _LENGTHS.items():
        if len(fields[name]) > length or not fields[name].isprintable():
            yield f"{name} is too long, or has characters that cannot be shown. At most {length}."
    if not fields["model"]:
        yield "model is empty. Write a model name, or * for all."
    if not stated and fields["discount_percent"] is None:
        yield "there is neither a price nor a discount_percent."
    if stated and fields["discount_percent"] is not None:
        yield "a row has either prices or a discount_percent, not both."
    if fields["priced_as"] and fields["discount_percent"] is None:
        yield "priced_as needs a discount_percent (0 is fine)."
    if fields["priced_as"] and "/" not in fields["priced_as"]:
        yield f"priced_as is {fields['priced_as']!r}; write it like openai/gpt-4o."
    if fields["currency"] != "USD" and fields["usd_per_unit"] is None:
        yield f"prices in {fields['currency']} need usd_per_unit, the dollars that one {fields['currency']} is worth."
    if fields["currency"] == "USD" and fields["usd_per_unit"] not in (None, 1):
        yield "usd_per_unit is only for prices in another currency."
    if (fields["window_start"] is None) != (fields["window_end"] is None):
        yield "a time-of-day window needs both window_start and window_end."
    if fields["valid_from"] and fields["valid_to"] and fields["valid_to"] <= fields["valid_from"]:
        yield "valid_to must be later than valid_from."


def _rate_sets(rows: list[_Row], problems: list[str]) -> Iterator[RateSet]:
    """Rows of one SKU and start become one rate set; those with context_above become its tiers."""
    groups: dict[tuple[Any, ...], list[_Row]] = {}
    for row in rows:
        groups.setdefault(row.key, []).append(row)
    for group in groups.values():
        group.sort(key=lambda row: row.context_above)
        base = group[0]
        for earlier, later in pairwise(group):
            if earlier.context_above == later.context_above:
                problems.append(f"Line {later.line}: the same prices as on line {earlier.line} are stated again.")
        if base.context_above:
            problems.append(f"Line {base.line}: there is no row for prompts up to {base.context_above:,} tokens.")
        rates: dict[str, Any] = {meter: {"nano": nano} for meter, nano in base.prices.items()}
        for row in group[1:]:
            _add_tier(rates, row, problems)
        stated = {str(row.context_above): row.stated for row in group} if base.stated else None
        yield RateSet(rates=rates, stated=stated, **base.fields)


def _add_tier(rates: dict[str, Any], row: _Row, problems: list[str]) -> None:
    for meter, nano in row.prices.items():
        if meter not in rates:
            problems.append(f"Line {row.line}: {meter} has no price for shorter prompts.")
            continue
        rates[meter].setdefault("tiers", []).append([row.context_above, nano])


def _close_earlier(sets: list[RateSet]) -> None:
    """Of several dated rows of one SKU, each ends where the next begins, unless it says otherwise."""
    chains: dict[tuple[Any, ...], list[RateSet]] = {}
    for row in sets:
        chains.setdefault(tuple(getattr(row, name) for name in KEY_COLUMNS[:-1]), []).append(row)
    for chain in chains.values():
        chain.sort(key=lambda row: row.valid_from or datetime.min.replace(tzinfo=UTC))
        for earlier, later in pairwise(chain):
            if earlier.valid_to is None or (later.valid_from and earlier.valid_to > later.valid_from):
                earlier.valid_to = later.valid_from


# -- cells --------------------------------------------------------------------------------------------


def _nano(meter: str, price: Decimal, usd_per_unit: Decimal) -> int:
    """Nano-dollars per million: the price is per million tokens, or per single unit."""
    return round_usd(price * usd_per_unit * (UNITS_PER_PRICE if meter in _PER_UNIT else 1))


def _price(text: str) -> Decimal:
    value = _decimal(text.removeprefix("$"), "write a price like 2.50.")
    if value < 0:
        raise ValueError("a price is 0 or more.")
    return value


def _percent(text: str) -> Decimal:
    value = _decimal(text.removesuffix("%").strip(), "write a share like 12.5.")
    if not 0 <= value <= 100 or value != round(value, 4):
        raise ValueError("a discount is between 0 and 100 with at most four decimals.")
    return value


def _rate_of_exchange(text: str) -> Decimal:
    value = _decimal(text, "write it like 1.08.")
    if not 0 < value < 10**9:
        raise ValueError("an exchange rate is above 0.")
    return value


def _decimal(text: str, advice: str) -> Decimal:
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise ValueError(advice) from None
    if not value.is_finite() or (exponent := value.as_tuple().exponent) == "n" or int(exponent) < -20:
        raise ValueError(advice)
    return value


def _tokens(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 10**9:
        raise ValueError("write a number of tokens like 200000.")
    return int(text)


def _currency(text: str) -> str:
    if len(text) != 3 or not text.isascii() or not text.isalpha():
        raise ValueError("write a currency like EUR.")
    return text.upper()


def _yes_or_no(text: str) -> bool:
    if text.lower() not in ("yes", "no", "true", "false", "1", "0"):
        raise ValueError("write yes or no.")
    return text.lower() in ("yes", "true", "1")


def _day(text: str) -> datetime:
    try:
        return datetime.combine(date.fromisoformat(text), time(), UTC)
    except ValueError:
        raise ValueError("write a date (UTC) like 2026-01-31.") from None


def _time_of_day(text: str) -> time:
    try:
        value = time.fromisoformat(text)
    except ValueError:
        value = time(second=1)
    if value.second or value.microsecond or value.tzinfo:
        raise ValueError("write a time of day (UTC) like 16:30.")
    return value
