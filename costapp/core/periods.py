"""Budget periods as instants: day, ISO week, calendar month, quarter, or the last N days, of an IANA time zone.

Half-open [start_at, end_at) in UTC. A period is made of whole local days (``core.local_days``), so days of 23 or
25 hours, midnights that clocks skip, leap days and the 31st need no rule of their own. No clock: callers say when.
"""

from collections.abc import Iterator
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import NamedTuple
from zoneinfo import ZoneInfo

from costapp.core.local_days import LocalDay, local_day

MAX_ROLLING_DAYS = 366


class PeriodKind(StrEnum):
    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    QUARTER = "quarter"
    ROLLING = "rolling"


class Period(NamedTuple):
    """``first_day`` to before ``end_day`` of ``time_zone``."""

    kind: PeriodKind
    first_day: date
    end_day: date  #: exclusive
    time_zone: str

    @property
    def start_at(self) -> datetime:
        return local_day(self.first_day, self.time_zone).start_at

    @property
    def end_at(self) -> datetime:
        return local_day(self.end_day, self.time_zone).start_at

    @property
    def last_day(self) -> date:
        return self.end_day - timedelta(days=1)

    @property
    def key(self) -> str:
        """Its first day. Stays the same when the project's time zone changes in the middle of it."""
        return self.first_day.isoformat()

    def days(self) -> Iterator[tuple[date, LocalDay]]:
        """Each calendar day with its instants; a day that a zone left out (Samoa, 2011-12-30) has no length."""
        for number in range((self.end_day - self.first_day).days):
            day = self.first_day + timedelta(days=number)
            yield day, local_day(day, self.time_zone)

    def contains(self, at: datetime) -> bool:
        return self.start_at <= at < self.end_at

    def clipped(self, since: date | None, until: date | None) -> "Period":
        """The part from ``since`` to ``until`` (included). Its key stays that of the part's first day."""
        first = max(self.first_day, since) if since else self.first_day
        end = min(self.end_day, until + timedelta(days=1)) if until else self.end_day
        return self._replace(first_day=first, end_day=max(first, end))

    def words(self) -> str:
        """``November 2026``, ``week 47 of 2026``, ``Q4 2026``, ``21 November 2026``, ``the 7 days to 21 Nov 2026``."""
        first = self.first_day
        match self.kind:
            case PeriodKind.MONTH:
                return f"{first:%B %Y}"
            case PeriodKind.WEEK:
                year, week, _ = first.isocalendar()
                return f"week {week} of {year}"
            case PeriodKind.QUARTER:
                return f"Q{(first.month + 2) // 3} {first.year}"
            case PeriodKind.DAY:
                return f"{first.day} {first:%B %Y}"
        return f"the {(self.end_day - first).days} days to {self.last_day.day} {self.last_day:%b %Y}"


def period_of(kind: PeriodKind, at: datetime, time_zone: str, *, rolling_days: int = 0) -> Period:
    """The period that the instant ``at`` lies in. A rolling one is the last ``rolling_days`` days, today included."""
    return period_of_day(kind, at.astimezone(ZoneInfo(time_zone)).date(), time_zone, rolling_days=rolling_days)


def period_of_day(kind: PeriodKind, day: date, time_zone: str, *, rolling_days: int = 0) -> Period:
    if kind is PeriodKind.ROLLING:
        if not 1 <= rolling_days <= MAX_ROLLING_DAYS:
            raise ValueError(f"A rolling period has 1 to {MAX_ROLLING_DAYS} days, not {rolling_days}.")
        return Period(kind, day - timedelta(days=rolling_days - 1), day + timedelta(days=1), time_zone)
    first, end = _CALENDAR[kind](day)
    return Period(kind, first, end, time_zone)


def previous(period: Period) -> Period:
    """The one before: of a rolling period, the same number of days before its first."""
    if period.kind is PeriodKind.ROLLING:
        return period._replace(
            first_day=period.first_day - (period.end_day - period.first_day), end_day=period.first_day
        )
    return period_of_day(period.kind, period.first_day - timedelta(days=1), period.time_zone)


def _day(day: date) -> tuple[date, date]:
    return day, day + timedelta(days=1)


def _week(day: date) -> tuple[date, date]:
    monday = day - timedelta(days=day.weekday())
    return monday, monday + timedelta(days=7)


def _month(day: date) -> tuple[date, date]:
    return day.replace(day=1), _months_on(day, 1)


def _quarter(day: date) -> tuple[date, date]:
    first = day.replace(month=(day.month - 1) // 3 * 3 + 1, day=1)
    return first, _months_on(first, 3)


def _months_on(day: date, months: int) -> date:
    """The first of the month that many months on."""
    year, month = divmod(day.year * 12 + day.month - 1 + months, 12)
    return date(year, month + 1, 1)


_CALENDAR = {PeriodKind.DAY: _day, PeriodKind.WEEK: _week, PeriodKind.MONTH: _month, PeriodKind.QUARTER: _quarter}
