"""Burn bars: a budget's reading as a drawing and as words. Used by the Budgets page, drill-down pages and the admin."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from django.utils.timesince import timeuntil

from costapp.core.budgets import Basis, Threshold
from costapp.core.periods import Period, PeriodKind, period_of_day
from costapp.services import budget_words
from costapp.services.evaluate_budgets import ROLLING_KEY
from costapp.storage.budgets import BudgetRow, Burn
from costapp.web import format as fmt

WIDTH = 1000  #: of the drawing; it is stretched to the place it has
MOST_SHOWN = 2  #: times the limit: what is beyond is cut, and the words say the figure
LEVELS = {"over": "bad", "heading": "warn", "near": "warn", "fine": "good", "idle": ""}


class Bar(NamedTuple):
    """One subject of one budget, ready to show."""

    budget: BudgetRow
    burn: Burn
    period: Period
    name: str
    href: str
    state: str  #: over | heading | near | fine | idle
    badge: str
    spent_x: float
    limit_x: float
    low_x: float | None
    high_x: float | None
    forecast_x: float | None
    ticks: Sequence[tuple[float, str]]
    passed_x: float
    sentence: str

    @property
    def level(self) -> str:
        return LEVELS[self.state]

    @property
    def reading(self) -> Any:
        return self.burn.reading

    @property
    def left_nano(self) -> int:
        return max(0, self.reading.limit_nano - self.reading.spent_nano)

    @property
    def band_width(self) -> float:
        return max(0.0, (self.high_x or 0) - (self.low_x or 0))

    @property
    def share(self) -> str:
        return budget_words.percent(self.reading.spent_nano, self.reading.limit_nano)

    @property
    def forecast_words(self) -> str:
        return budget_words.band(self.reading)


def period_of_burn(row: BudgetRow, burn: Burn) -> Period:
    """The period as it was read; of a rolling one the days up to now."""
    kind = PeriodKind(row.period)
    if burn.reading.period_key != ROLLING_KEY:
        period = period_of_day(kind, burn.reading.period_key, row.time_zone)
    else:
        first = burn.start_at.astimezone(ZoneInfo(row.time_zone)).date()
        end = burn.end_at.astimezone(ZoneInfo(row.time_zone)).date()
        period = Period(kind, first, end, row.time_zone)
    return period.clipped(row.starts_on, row.ends_on)


def bar(row: BudgetRow, burn: Burn, now: datetime) -> Bar:
    """Everything to the same scale: from nothing to the limit, or as far as forecast and spend reach beyond it."""
    reading, period = burn.reading, period_of_burn(row, burn)
    limit = max(1, reading.limit_nano)
    furthest = max(limit, min(MOST_SHOWN * limit, max(reading.spent_nano, reading.high_nano or 0)))

    def x(nano: int | None) -> float | None:
        return None if nano is None else min(WIDTH, WIDTH * nano / furthest)

    thresholds = [Threshold(Basis(basis), percent) for basis, percent in row.thresholds]
    marks = sorted({t.percent for t in thresholds if t.basis is Basis.ACTUAL and t.percent < 100})
    state = _state(burn, thresholds)
    length = (burn.end_at - burn.start_at).total_seconds() or 1
    passed = min(1.0, max(0.0, (now - burn.start_at).total_seconds() / length))
    return Bar(
        budget=row, burn=burn, period=period, name=budget_words.name_of(row, reading.subject),
        href=budget_words.path(row, period, reading.subject), state=state, badge=_badge(burn, state),
        spent_x=x(reading.spent_nano) or 0.0, limit_x=x(limit) or 0.0, low_x=x(reading.low_nano),
        high_x=x(reading.high_nano), forecast_x=x(reading.forecast_nano),
        ticks=[((x(limit * percent // 100) or 0.0), f"{percent} %") for percent in marks],
        passed_x=(x(limit) or 0.0) * passed, sentence=_sentence(row, burn, passed),
    )  # fmt: skip


def _state(burn: Burn, thresholds: Sequence[Threshold]) -> str:
    reading = burn.reading
    if reading.spent_nano >= max(1, reading.limit_nano):
        return "over"
    if reading.forecast_nano is not None and reading.forecast_nano >= reading.limit_nano:
        return "heading"
    near = max((t.percent for t in thresholds if t.basis is Basis.ACTUAL and t.percent < 100), default=100)
    if near >= 80 and reading.spent_nano * 100 >= reading.limit_nano * near:
        return "near"
    return "fine" if reading.requests else "idle"


def _badge(burn: Burn, state: str) -> str:
    words = {
        "over": "Over",
        "heading": "Will run out",
        "near": "Nearly spent",
        "fine": "On track",
        "idle": "No spend yet",
    }
    return words[state]


def _sentence(row: BudgetRow, burn: Burn, passed: float) -> str:
    """What the bar shows, for those who do not see it."""
    reading = burn.reading
    text = (
        f"{fmt.usd(reading.spent_nano)} of {fmt.usd(reading.limit_nano)} spent, {passed:.0%} of the period has passed"
    )
    if reading.forecast_nano is not None:
        text += f", forecast {fmt.usd(reading.forecast_nano)}, likely {budget_words.band(reading)}"
    return f"{text}."


def runs_out(found: Bar, now: datetime, zone: ZoneInfo) -> str:
    """When the money is gone, in words; "" when it lasts."""
    at = found.reading.runs_out_at
    if found.state == "over":
        return "gone"
    if at is None:
        return ""
    return f"{fmt.local(at, zone, '%-d %b')} (in {timeuntil(at, now, depth=1)})" if at > now else "about now"
