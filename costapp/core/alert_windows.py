"""Where the windows of a rule begin and end. Pure calendar: every edge is an edge of a cell that is kept.

Windows of days are days of the project's time zone, 23 or 25 hours long where clocks change.
"""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from costapp.core.alert_metrics import Window
from costapp.core.local_days import local_day, local_day_of

STEPS = {"5m": timedelta(minutes=5), "hour": timedelta(hours=1)}
WEEKS_BACK = 4
NEIGHBOURS = (timedelta(hours=-1), timedelta(), timedelta(hours=1))


def last_edge(at: datetime, grain: str, zone: str) -> datetime:
    """The newest edge that is not after ``at``: everything before it is over."""
    if grain == "day":
        return local_day_of(at, zone).start_at
    step_s = int(STEPS[grain].total_seconds())
    return datetime.fromtimestamp(int(at.timestamp()) // step_s * step_s, UTC)


def next_edge(edge: datetime, grain: str, zone: str) -> datetime:
    return local_day_of(edge, zone).end_at if grain == "day" else edge + STEPS[grain]


def start_of(end: datetime, window: Window, zone: str) -> datetime:
    if window.grain != "day":
        return end - window.length
    return _days_before(end, window.days, zone)


def previous_end(end: datetime, window: Window, zone: str) -> datetime:
    """Where the period before ends: where this one starts."""
    return start_of(end, window, zone)


def band_ends(end: datetime, window: Window, zone: str) -> list[datetime]:
    """Ends of the windows that say what is usual for the one ending at ``end``: the same hours of past weeks."""
    if window.grain == "day":
        return [_days_before(end, 7 * week, zone) for week in range(1, WEEKS_BACK + 1)]
    past = [_weeks_before(end, week, zone) for week in range(1, WEEKS_BACK + 1)]
    return [edge + shift for edge in past for shift in NEIGHBOURS]


def _days_before(edge: datetime, days: int, zone: str) -> datetime:
    return local_day(edge.astimezone(ZoneInfo(zone)).date() - timedelta(days=days), zone).start_at


def _weeks_before(edge: datetime, weeks: int, zone: str) -> datetime:
    """The same hour on the clock, so that working hours stay working hours when clocks change."""
    there = edge.astimezone(ZoneInfo(zone)) - timedelta(weeks=weeks)
    offset_change = there.utcoffset() == edge.astimezone(ZoneInfo(zone)).utcoffset()
    return (there.astimezone(UTC)) if offset_change else _aligned(there.astimezone(UTC), edge)


def _aligned(at: datetime, edge: datetime) -> datetime:
    """Zones shift by half hours too: keep the minute of the edge, which cells begin on."""
    return at.replace(minute=edge.minute, second=0, microsecond=0)
