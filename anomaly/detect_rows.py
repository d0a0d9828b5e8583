"""Rows of a series on a regular grid of time steps. What is missing is unknown (NaN), never zero."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from anomaly.detect_calendar import Calendar, Ints, calendar_of, timestamps
from anomaly.detect_signals import COLUMNS, Array


class Grid(NamedTuple):
    rows: dict[str, Array]
    calendar: Calendar
    place: Ints  # of each given row on the grid
    begin: pd.Timestamp


def on_grid(frame: pd.DataFrame | Mapping[str, Any], timezone: str, step_seconds: float) -> Grid:
    """Sort by time, close gaps with unknown rows; of two rows of one step the later given counts."""
    times = timestamps(frame["timestamp"])
    begin = times.min()
    place = np.asarray((times - begin) // pd.Timedelta(seconds=step_seconds), dtype=np.int64)
    length = int(place.max()) + 1
    rows = {name: np.full(length, np.nan) for name in COLUMNS}
    for name in COLUMNS:
        if name in frame:
            rows[name][place] = np.asarray(frame[name], dtype=float)
    steps = pd.date_range(begin, periods=length, freq=pd.Timedelta(seconds=step_seconds))
    return Grid(rows, calendar_of(steps, timezone, step_seconds), place, begin)
