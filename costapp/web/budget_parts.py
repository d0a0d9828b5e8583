"""What other pages say about budgets: sentences, the month's outlook, bars of one value, and a line in the chart."""

import time
from collections.abc import Mapping
from datetime import date
from typing import NamedTuple

from costapp.core.forecast import Forecast
from costapp.core.periods import PeriodKind
from costapp.services import budget_words
from costapp.services.budget_figures import month_forecast
from costapp.storage import budgets as store
from costapp.storage.budgets import BudgetRow
from costapp.storage.reports.cells import Grain
from costapp.web import format as fmt
from costapp.web.access import Visit
from costapp.web.budgets import Bar, bar, runs_out
from costapp.web.filters import Period

MATTERS = 3
REMEMBER_S = 600  #: a forecast without a budget is made anew so often
_remembered: dict[tuple[int, date], tuple[float, Forecast]] = {}


class Outlook(NamedTuple):
    """Where the month will end, and what its budget leaves; None where nothing can be said."""

    forecast_nano: int | None
    band: str
    why: str
    budget: Bar | None


class Pace(NamedTuple):
    """A budget spread over its days: a line to hold the bars of a chart against."""

    name: str
    day_nano: int


def rows_of(visit: Visit) -> dict[int, BudgetRow]:
    """The project's budgets, read once per request."""
    if not hasattr(visit, "budget_rows"):
        visit.budget_rows = {row.id: row for row in store.budgets_of(visit.conn, visit.project.pk)}
    found: dict[int, BudgetRow] = visit.budget_rows
    return found


def budget_matters(visit: Visit) -> list[tuple[str, str, str, str]]:
    """Budgets that are over or will run out and of which no open alert tells: level, sentence, page, action."""
    rows = rows_of(visit)
    if not rows:
        return []
    found, more = [], 0
    for burn in store.burns(visit.conn, visit.project.pk, visit.now, limit=50, per_budget=MATTERS):
        row = rows.get(burn.reading.budget_id)
        told = any(entry["state"] == "open" for entry in burn.reading.states.values())
        each = bar(row, burn, visit.now) if row and not told else None
        if each is None or each.state not in ("over", "heading"):
            continue
        if len(found) == MATTERS:
            more += 1
            continue
        found.append((each.level, _matter(each, visit), "budgets", "See budgets"))
    if more:
        found.append(("warn", "More budgets are over or will run out.", "budgets", "See all budgets"))
    return found


def _matter(each: Bar, visit: Visit) -> str:
    figures = f"{fmt.usd(each.reading.spent_nano)} of {fmt.usd(each.reading.limit_nano)}"
    if each.state == "over":
        return f"{each.name} is over its budget for {each.period.words()}: {figures}."
    when = runs_out(each, visit.now, visit.zone)
    ahead = f"the forecast is {fmt.usd(each.reading.forecast_nano)} (likely {each.forecast_words})"
    return (
        f"{each.name} has spent {figures} for {each.period.words()}; {ahead}{f', it runs out {when}' if when else ''}."
    )


def month_outlook(visit: Visit, month_nano: int) -> Outlook:
    """From the budget of the whole project for the month, else from a forecast of its own."""
    for each in bars_of(visit):
        if each.budget.period == PeriodKind.MONTH and each.reading.forecast_nano is not None:
            return Outlook(each.reading.forecast_nano, each.forecast_words, each.reading.forecast_why, each)
    today = visit.now.astimezone(visit.zone).date()
    key = visit.project.pk, today
    made_at, told = _remembered.get(key, (0.0, None))
    if told is None or time.monotonic() - made_at > REMEMBER_S:
        told = month_forecast(visit.conn, visit.project.pk, visit.project.time_zone, visit.now, month_nano)
        _remembered[key] = time.monotonic(), told
    if told.cost_nano is None or told.low_nano is None or told.high_nano is None:
        return Outlook(None, "", told.why, None)
    ends = max(told.cost_nano, month_nano)
    return Outlook(
        ends, budget_words.amounts(max(told.low_nano, month_nano), max(told.high_nano, ends)), told.why, None
    )


def bars_of(visit: Visit, dimension: str = "", value: str = "") -> list[Bar]:
    """Budgets for exactly this: the whole project, or one value of a dimension; riskiest first."""
    found = []
    for row in rows_of(visit).values():
        subject = _subject(row, dimension, value)
        if subject is None:
            continue
        burns = store.burns(visit.conn, visit.project.pk, visit.now, budget_id=row.id, subject=subject, limit=1)
        found += [bar(row, burn, visit.now) for burn in burns]
    return sorted(found, key=lambda each: -each.spent_x)


def _subject(row: BudgetRow, dimension: str, value: str) -> str | None:
    """The subject of a budget's reading for this value; None = the budget is about something else."""
    if row.dimension != dimension or (not dimension and row.filters):
        return None
    if row.is_template:
        return value if value and value not in row.own_values else None
    return "" if not dimension or row.values == [value] else None


def pace(bars: list[Bar], period: Period, filters: Mapping[str, object]) -> Pace | None:
    """Only for charts of days that show all of what the budget is about; a month's budget before others."""
    if period.grain is not Grain.DAY or filters:
        return None
    for each in sorted(bars, key=lambda found: found.budget.period != PeriodKind.MONTH):
        days = (each.period.end_day - each.period.first_day).days
        if not each.budget.filters and days:
            return Pace(each.budget.name, each.reading.limit_nano // days)
    return None
