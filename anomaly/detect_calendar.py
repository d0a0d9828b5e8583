"""Where a row lies in its project's local calendar: day, slot of the day, weekend, day of the month."""

from datetime import date
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Ints = NDArray[np.int64]
DAY_SECONDS = 86_400


class Calendar(NamedTuple):
    """Local days are counted from the first row's; there is always one more day than there are rows for: tomorrow."""

    day: Ints  # of each row
    slot: Ints  # of each row: steps since local midnight by the wall clock. The hour that repeats in autumn shares one
    days: int  # local days seen, and tomorrow
    slots: int  # per day
    first: date
    weekend: NDArray[np.bool_]  # of each day
    month_start: NDArray[np.bool_]  # of each day


def timestamps(values: object) -> pd.DatetimeIndex:
    """UTC times, whether given as texts, datetimes or datetime64, with a zone or without one (then UTC)."""
    return pd.DatetimeIndex(pd.to_datetime(values, utc=True))  # type: ignore[call-overload]


def calendar_of(times: pd.DatetimeIndex, timezone: str, step_seconds: float) -> Calendar:
    wall = times.tz_convert(timezone).tz_localize(None)
    seconds = wall.hour * 3600 + wall.minute * 60 + wall.second
    midnight = wall.normalize()
    first = midnight[0]
    day = ((midnight - first).days).to_numpy().astype(np.int64)
    days = int(day[-1]) + 2
    dates = pd.date_range(first, periods=days, freq="D")
    slots = max(1, round(DAY_SECONDS / step_seconds))
    return Calendar(
        day=day,
        slot=np.minimum(np.asarray(seconds // step_seconds, dtype=np.int64), slots - 1),
        days=days,
        slots=slots,
        first=first.date(),
        weekend=np.asarray(dates.day_of_week >= 5),
        month_start=np.asarray(dates.day == 1),
    )
