"""Days of a time zone as instants: 23, 24 or 25 hours long, beginning at any quarter hour of UTC."""

from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo


class LocalDay(NamedTuple):
    """[start_at, end_at) of one calendar day, both in UTC."""

    start_at: datetime
    end_at: datetime

    @property
    def is_hour_aligned(self) -> bool:
        return self.start_at.minute == 0 == self.end_at.minute


@lru_cache(maxsize=4096)
def local_day(day: date, time_zone: str) -> LocalDay:
    return LocalDay(_midnight(day, time_zone), _midnight(day + timedelta(days=1), time_zone))


def local_day_of(at: datetime, time_zone: str) -> LocalDay:
    """The day of ``time_zone`` that contains the instant ``at``."""
    return local_day(at.astimezone(ZoneInfo(time_zone)).date(), time_zone)


def _midnight(day: date, time_zone: str) -> datetime:
    # A midnight that clocks skip is read with the old offset, which is the instant of the change.
    return datetime.combine(day, time(), ZoneInfo(time_zone)).astimezone(UTC)
