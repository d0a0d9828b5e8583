"""What people are told about a budget: sentences, figures and the address that shows the same number. Pure."""

from collections.abc import Sequence
from datetime import datetime
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from costapp.core.alerts import Fact
from costapp.core.budgets import Basis, Threshold
from costapp.core.money import format_usd
from costapp.core.periods import Period
from costapp.storage.budgets import BudgetRow, Reading


def subject_of(row: BudgetRow, subject: str) -> dict[str, str]:
    """What an alert is about, for silences: a template's value, or the one name of the budget."""
    if row.is_template:
        return {row.dimension: subject}
    return {row.dimension: row.values[0]} if len(row.values) == 1 else {}


def name_of(row: BudgetRow, subject: str) -> str:
    return subject if row.is_template else row.name


def path(row: BudgetRow, period: Period, subject: str) -> str:
    """The page that sums the same calls over the same days."""
    days = [("from", period.first_day.isoformat()), ("to", period.last_day.isoformat())]
    pairs = [(key, value) for key, values in sorted(row.filters.items()) for value in values]
    one = subject if row.is_template else row.values[0] if len(row.values) == 1 else None
    if row.dimension and one is not None:
        return f"/p/{row.slug}/{row.dimension}/?{urlencode([('is', one), *days, *pairs])}"
    pairs += [(row.dimension, value) for value in row.values]
    return f"/p/{row.slug}/?{urlencode([*days, *pairs])}"


def percent(part_nano: int, whole_nano: int) -> str:
    """Whole percent, rounded down: 99.9 % of a budget is not 100 %."""
    return f"{part_nano * 100 // whole_nano} %" if whole_nano > 0 else "no limit left"


def band(reading: Reading) -> str:
    if reading.forecast_nano is None or reading.low_nano is None or reading.high_nano is None:
        return ""
    return amounts(reading.low_nano, reading.high_nano)


def amounts(low_nano: int, high_nano: int) -> str:
    return f"{format_usd(low_nano)} to {format_usd(high_nano)}"


def opened(row: BudgetRow, reading: Reading, period: Period, threshold: Threshold, *, late: bool) -> str:
    """The sentence of a threshold that is crossed."""
    name, limit = name_of(row, reading.subject), format_usd(reading.limit_nano)
    if threshold.basis is Basis.FORECAST and reading.forecast_nano is not None:
        ahead = f"{format_usd(reading.forecast_nano)} by the end of {period.words()}"
        return f"{name} is heading for {ahead}, {percent(reading.forecast_nano, reading.limit_nano)} of its {limit}."
    figures = f"{format_usd(reading.spent_nano)} of {limit} ({percent(reading.spent_nano, reading.limit_nano)})"
    if late:
        return f"Late crossing: data that came after {period.words()} had ended put {name} at {figures} for it."
    if threshold.percent >= 100:
        return f"{name} is over its budget for {period.words()}: {figures}."
    return f"{name} has spent {figures} of its budget for {period.words()}."


def recovered(row: BudgetRow, reading: Reading, period: Period, threshold: Threshold) -> str:
    name, limit = name_of(row, reading.subject), format_usd(reading.limit_nano)
    if threshold.basis is Basis.FORECAST and reading.forecast_nano is not None:
        ahead = f"{format_usd(reading.forecast_nano)} of {limit} for {period.words()}"
        return f"{name} is no longer heading over its budget: the forecast is {ahead}."
    figures = f"{format_usd(reading.spent_nano)} of {limit} for {period.words()}"
    return f"{name} is below {threshold.percent} % of its budget again: {figures}."


def ended(row: BudgetRow, reading: Reading, period: Period) -> str:
    figures = f"{format_usd(reading.spent_nano)} of {format_usd(reading.limit_nano)}"
    return f"{period.words()[0].upper()}{period.words()[1:]} is over: {name_of(row, reading.subject)} spent {figures}."


def facts(row: BudgetRow, reading: Reading, period: Period, complete_until: datetime) -> tuple[Fact, ...]:
    """The figures of a message, in the order of what matters."""
    zone = ZoneInfo(period.time_zone)
    spent, limit = format_usd(reading.spent_nano), format_usd(reading.limit_nano)
    found = [Fact("Spent", f"{spent} of {limit} ({percent(reading.spent_nano, reading.limit_nano)})")]
    if reading.carried_nano:
        found.append(
            Fact("Limit", f"{format_usd(reading.amount_nano)} and {format_usd(reading.carried_nano)} carried over")
        )
    if reading.forecast_nano is not None:
        found.append(Fact("Forecast", f"{format_usd(reading.forecast_nano)} (likely {band(reading)})"))
    if reading.runs_out_at:
        found.append(Fact("Runs out", _moment(reading.runs_out_at, zone)))
    if reading.unpriced:
        found.append(
            Fact(
                "Unpriced",
                f"{reading.unpriced:,} of {reading.requests:,} requests carry no price: real spend is higher",
            )
        )
    found.append(Fact("Period", f"{period.words()}, {period.first_day} to {period.last_day} ({period.time_zone})"))
    found.append(Fact("Data complete until", _moment(complete_until, zone)))
    found += [Fact("Budget", row.name)] if row.is_template else []
    found += [Fact("Owner", row.owner)] if row.owner else []
    found += [Fact("Note", row.note[:300])] if row.note else []
    return tuple(found)


def _moment(at: datetime, zone: ZoneInfo) -> str:
    return at.astimezone(zone).strftime("%Y-%m-%d %H:%M")


def covers(dimension: str, values: Sequence[str], filters: dict[str, list[str]]) -> str:
    """``each feature``, ``feature search or checkout``, ``the whole project``; with ``where environment is ...``."""
    if not dimension:
        words = "the whole project" if not filters else "all calls"
    else:
        label = dimension.replace("_", " ")
        words = f"{label} {' or '.join(values)}" if values else f"each {label}"
    where = [f"{key.replace('_', ' ')} is {' or '.join(each)}" for key, each in sorted(filters.items())]
    return f"{words} where {' and '.join(where)}" if where else words
