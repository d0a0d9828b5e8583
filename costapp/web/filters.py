"""What a page looks at: period, comparison, split and filters, all read from and written to the address.

Ranges over six hours have hourly points, ranges over three days daily ones; each range is widened to whole
points, so that every sum is the sum of whole cells and equal on all pages.
"""

from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import NamedTuple
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from django.http import QueryDict

from costapp.storage.reports.cells import Grain, Scope
from costapp.storage.reports.dimensions import DIMENSIONS

MAX_RANGE_DAYS = 400
MAX_FILTER_VALUES = 20
MAX_VALUE_LENGTH = 512
HOURLY_UP_TO = timedelta(days=3, hours=1)  # three days, also when one has 25 hours
FIVE_MINUTES_UP_TO = timedelta(hours=6)

PRESETS: dict[str, str] = {
    "1h": "Last hour",
    "6h": "Last 6 hours",
    "24h": "Last 24 hours",
    "today": "Today",
    "yesterday": "Yesterday",
    "7d": "Last 7 days",
    "30d": "Last 30 days",
    "90d": "Last 90 days",
    "month": "This month",
    "last-month": "Last month",
}
DEFAULT_PRESET = "30d"


class BadRange(ValueError):
    """The asked period cannot be shown; the text says why, for people."""


class Period(NamedTuple):
    start: datetime  #: UTC, on a bucket edge
    end: datetime  #: UTC, on a bucket edge, exclusive; may lie ahead of now by less than a bucket
    grain: Grain
    preset: str  #: "" = custom

    @property
    def length(self) -> timedelta:
        return self.end - self.start


def midnight(day: date, zone: ZoneInfo) -> datetime:
    return datetime.combine(day, time(), tzinfo=zone).astimezone(UTC)


def month_start(now: datetime, zone: ZoneInfo) -> datetime:
    return midnight(now.astimezone(zone).date().replace(day=1), zone)


def preset_bounds(preset: str, now: datetime, zone: ZoneInfo) -> tuple[datetime, datetime]:
    if preset in {"1h", "6h", "24h"}:
        return now - timedelta(hours=int(preset[:-1])), now
    today = now.astimezone(zone).date()
    tomorrow, first = today + timedelta(days=1), today.replace(day=1)
    last_month = (first - timedelta(days=1)).replace(day=1)
    days = {
        "today": (today, tomorrow),
        "yesterday": (today - timedelta(days=1), today),
        "month": (first, tomorrow),
        "last-month": (last_month, first),
    }
    since, until = days.get(preset) or (today - timedelta(days=int(preset[:-1]) - 1), tomorrow)
    return midnight(since, zone), midnight(until, zone)


def _moment(text: str, zone: ZoneInfo, *, is_end: bool) -> datetime:
    """A day (its end is included) or a local minute; the offset may be stated, as charts do."""
    try:
        if len(text) == 10:
            return midnight(date.fromisoformat(text) + timedelta(days=int(is_end)), zone)
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=zone)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise BadRange(f"“{text[:40]}” is not a date. Write it like 2026-11-20 or 2026-11-20T14:30.") from None


def _widened(start: datetime, end: datetime, preset: str, zone: ZoneInfo) -> Period:
    """The smallest period of whole buckets around start..end."""
    length = end - start
    if length <= FIVE_MINUTES_UP_TO:
        return Period(_floor(start, 300), _floor(end + timedelta(seconds=299), 300), Grain.FIVE_MINUTES, preset)
    if length <= HOURLY_UP_TO:
        on_days = all(m == midnight(m.astimezone(zone).date(), zone) for m in (start, end))
        if not on_days:  # days of a half-hour zone begin at half past: leave them alone
            start, end = _floor(start, 3600), _floor(end + timedelta(seconds=3599), 3600)
        return Period(start, end, Grain.HOUR, preset)
    last = (end - timedelta(microseconds=1)).astimezone(zone).date()
    return Period(
        midnight(start.astimezone(zone).date(), zone), midnight(last + timedelta(days=1), zone), Grain.DAY, preset
    )


def _floor(moment: datetime, seconds: int) -> datetime:
    return datetime.fromtimestamp(moment.timestamp() // seconds * seconds, UTC)


def read_period(query: QueryDict, zone: ZoneInfo, *, now: datetime, default: str = DEFAULT_PRESET) -> Period:
    """The period in the address, else ``default``. Raises BadRange."""
    since, until = query.get("from", "").strip(), query.get("to", "").strip()
    if since or until:
        start = _moment(since or until, zone, is_end=False)
        end = _moment(until, zone, is_end=True) if until else now
        preset = ""
    else:
        preset = query.get("range", default)
        preset = preset if preset in PRESETS else default
        start, end = preset_bounds(preset, now, zone)
    if start >= end:
        raise BadRange("The range ends before it begins. Swap the two dates.")
    if end - start > timedelta(days=MAX_RANGE_DAYS, hours=1):
        raise BadRange(f"A range can have at most {MAX_RANGE_DAYS} days. Choose a shorter one.")
    return _widened(start, end, preset, zone)


def previous_start(period: Period, zone: ZoneInfo) -> datetime:
    """Start of the period before, as long as this one (in whole local days where this one is in days)."""
    if period.grain is not Grain.DAY and period.preset not in {"today", "yesterday"}:
        return period.start - period.length
    first, last = period.start.astimezone(zone).date(), period.end.astimezone(zone).date()
    if period.preset in {"month", "last-month"}:
        return midnight((first - timedelta(days=1)).replace(day=1), zone)
    return midnight(first - (last - first), zone)


def read_filters(query: QueryDict) -> dict[str, tuple[str, ...]]:
    """Filters by dimension; several values of one dimension mean "any of them"."""
    found = {}
    for key in DIMENSIONS:
        values = sorted({value[:MAX_VALUE_LENGTH].replace("\x00", "") for value in query.getlist(key)})[
            :MAX_FILTER_VALUES
        ]
        if values:
            found[key] = tuple(values)
    return found


class View(NamedTuple):
    """All state of a page. ``link`` writes it back, so every link keeps what the reader chose."""

    period: Period
    filters: Mapping[str, tuple[str, ...]]
    by: str
    compare: bool
    sort: str
    period_query: tuple[tuple[str, str], ...]  #: the period as it was asked for
    gpu: bool = True  #: False: costs without the money of the project's own GPUs

    def scope(self, project_id: int, time_zone: str) -> Scope:
        period = self.period
        return Scope(project_id, time_zone, period.start, period.end, period.grain, self.filters, self.gpu)

    def pairs(self, *, drop: tuple[str, ...] = (), **changes: str | None) -> list[tuple[str, str]]:
        """The address's query as pairs; ``changes`` replace a key (None removes it)."""
        pairs = list(self.period_query)
        pairs += [(key, value) for key, values in self.filters.items() for value in values]
        pairs += [("by", self.by)] if self.by else []
        pairs += [] if self.compare else [("compare", "0")]
        pairs += [] if self.gpu else [("gpu", "0")]
        pairs += [("sort", self.sort)] if self.sort else []
        gone = set(changes) | set(drop)
        return [p for p in pairs if p[0] not in gone] + [(k, v) for k, v in changes.items() if v is not None]

    def query(self, *, drop: tuple[str, ...] = (), **changes: str | None) -> str:
        return urlencode(self.pairs(drop=drop, **changes))

    def without(self, key: str, value: str) -> str:
        return urlencode([pair for pair in self.pairs() if pair != (key, value)])


def read_view(query: QueryDict, zone: ZoneInfo, *, now: datetime, default: str, by: tuple[str, ...]) -> View:
    period = read_period(query, zone, now=now, default=default)
    asked = tuple((key, query[key]) for key in ("range", "from", "to") if query.get(key))
    split = query.get("by", "")
    return View(
        period=period,
        filters=read_filters(query),
        by=split if split in by else "",
        compare=query.get("compare") != "0",
        sort=query.get("sort", "")[:40],
        period_query=asked,
        gpu=query.get("gpu") != "0",
    )
