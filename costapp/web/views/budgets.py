"""Budgets: how much is burnt, where each will end, which will run out; riskiest first."""

from typing import Any, NamedTuple
from urllib.parse import urlencode

from django.db.models import Q
from django.http import Http404, HttpResponse
from django.urls import reverse

from costapp.models import Budget
from costapp.services import budget_words
from costapp.storage import budgets as store
from costapp.storage.budgets import BudgetRow
from costapp.web import format as fmt
from costapp.web.access import Visit, project_page
from costapp.web.budgets import Bar, bar, runs_out
from costapp.web.page import frame, project_state, show
from costapp.web.tables import csv_response

TOP = 8  #: subjects of a template on the page of all budgets
PER_PAGE = 50
MOST = 2000  #: bars on one page or in one file
PERIODS = {"day": "a day", "week": "a week", "month": "a month", "quarter": "a quarter"}
ORDER = {"over": 0, "heading": 1, "near": 2, "fine": 3, "idle": 4}


class Card(NamedTuple):
    """One budget with its bars, riskiest first."""

    budget: BudgetRow
    covers: str
    every: str
    bars: list[tuple[Bar, str]]  #: with when the money runs out
    subjects: int

    @property
    def more(self) -> int:
        return max(0, self.subjects - len(self.bars))

    @property
    def worst(self) -> Bar | None:
        return self.bars[0][0] if self.bars else None


class Later(NamedTuple):
    """A budget that is not at work now, and why."""

    name: str
    covers: str
    why: str


@project_page()
def budgets(visit: Visit) -> HttpResponse:
    rows = {row.id: row for row in store.budgets_of(visit.conn, visit.project.pk)}
    only = visit.request.GET.get("budget", "")
    if only:
        return _one(visit, rows, only)
    burns = store.burns(visit.conn, visit.project.pk, visit.now, limit=MOST, per_budget=TOP)
    if visit.request.GET.get("format") == "csv":
        return _csv(visit, rows)
    cards = _cards(visit, rows, burns)
    context = frame(
        visit, None, nav="budgets", title="Budgets", cards=cards, later=_later(visit, {c.budget.id for c in cards}),
        counts=_counts(cards), state=project_state(visit), admin_add=_admin(visit, "add"),
        admin_list=_admin(visit, "changelist"),
    )  # fmt: skip
    return show(visit, "budgets.html", context)


def _one(visit: Visit, rows: dict[int, BudgetRow], only: str) -> HttpResponse:
    """All subjects of one budget, page by page."""
    row = rows.get(int(only)) if only.isdecimal() and len(only) < 18 else None
    if row is None:
        raise Http404
    text = visit.request.GET.get("page", "1")
    number = max(1, int(text)) if text.isdecimal() and len(text) < 7 else 1
    burns = store.burns(
        visit.conn, visit.project.pk, visit.now, budget_id=row.id, limit=PER_PAGE + 1, offset=(number - 1) * PER_PAGE
    )
    cards = _cards(visit, {row.id: row}, burns[:PER_PAGE])
    context = frame(
        visit, None, nav="budgets", title=row.name, cards=cards, one=row, number=number,
        first=(number - 1) * PER_PAGE + 1,
        last=(number - 1) * PER_PAGE + min(len(burns), PER_PAGE), has_more=len(burns) > PER_PAGE,
        state=project_state(visit), admin_list=_admin(visit, "change", row.id),
    )  # fmt: skip
    return show(visit, "budgets.html", context)


def _cards(visit: Visit, rows: dict[int, BudgetRow], burns: list[store.Burn]) -> list[Card]:
    """In the order of the riskiest bar of each."""
    by_budget: dict[int, list[Bar]] = {}
    for burn in burns:
        if row := rows.get(burn.reading.budget_id):
            by_budget.setdefault(row.id, []).append(bar(row, burn, visit.now))
    found = []
    for budget_id, bars in by_budget.items():
        row = rows[budget_id]
        subjects = bars[0].burn.subjects if row.is_template else 1
        shown = [(each, runs_out(each, visit.now, visit.zone)) for each in bars]
        found.append(Card(row, covers(row), every(row), shown, subjects))
    return sorted(found, key=lambda card: ORDER[card.bars[0][0].state])


def covers(row: BudgetRow | Budget) -> str:
    return budget_words.covers(row.dimension, row.values, row.filters)


def every(row: BudgetRow | Budget) -> str:
    """``$500.00 a month each``."""
    period = PERIODS.get(row.period) or f"in {row.rolling_days} days"
    return f"{fmt.usd(row.amount_nano)} {period}{' each' if row.is_template else ''}"


def _counts(cards: list[Card]) -> dict[str, int]:
    """How many of the bars shown are over, heading over, and neither."""
    found = {"over": 0, "heading": 0, "rest": 0}
    for card in cards:
        for each, _ in card.bars:
            found[each.state if each.state in found else "rest"] += 1
    return found


def _later(visit: Visit, shown: set[int]) -> list[Later]:
    """What is not on the page as a bar: switched off, not begun, over, or without a call."""
    today = visit.now.astimezone(visit.zone).date()
    found = []
    for budget in visit.project.budgets.filter(~Q(pk__in=shown)):
        if not budget.enabled:
            why = "switched off"
        elif budget.starts_on and budget.starts_on > today:
            why = f"starts on {budget.starts_on:%-d %b %Y}"
        elif budget.ends_on and budget.ends_on < today:
            why = f"ended on {budget.ends_on:%-d %b %Y}"
        else:
            why = "no call in this period, or not looked at yet: that takes a minute at most"
        found.append(Later(budget.name, covers(budget), why))
    return found


def _admin(visit: Visit, page: str, *args: Any) -> str:
    """The admin page for those who may use it; "" for others."""
    if not (visit.may_manage and visit.request.user.is_staff):
        return ""
    query = f"?{urlencode({'project': visit.project.pk})}" if page == "add" else ""
    return reverse(f"admin:costapp_budget_{page}", args=args) + query


def _csv(visit: Visit, rows: dict[int, BudgetRow]) -> HttpResponse:
    """All bars, exact to the nano-dollar."""
    header = (
        "budget", "subject", "first_day", "last_day", "state", "limit_usd", "carried_usd", "spent_usd", "requests",
        "unpriced", "forecast_usd", "forecast_low_usd", "forecast_high_usd", "runs_out_at",
    )  # fmt: skip
    bars = [
        bar(rows[burn.reading.budget_id], burn, visit.now)
        for burn in store.burns(visit.conn, visit.project.pk, visit.now, limit=MOST)
        if burn.reading.budget_id in rows
    ]
    return csv_response(f"budgets-{visit.project.slug}", header, [_line(each) for each in bars])


def _line(each: Bar) -> tuple[object, ...]:
    found = each.reading
    spent = (fmt.exact_usd(nano) for nano in (found.limit_nano, found.carried_nano, found.spent_nano))
    ahead = (fmt.exact_usd(nano) for nano in (found.forecast_nano, found.low_nano, found.high_nano))
    return (
        each.budget.name, found.subject, each.period.first_day, each.period.last_day, each.state, *spent,
        found.requests, found.unpriced, *ahead, found.runs_out_at.isoformat() if found.runs_out_at else "",
    )  # fmt: skip
