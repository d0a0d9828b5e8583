"""The detector one row at a time: the scores of `Detector.scores`, without the rows that are still to come.

Two ways. `Online` keeps the history itself and can be fed anything that comes, late rows included. The product has the
history in its database: `learn_today` once a local day, `Today.judge` for each new cell, `verdict` to name it.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from anomaly.detect import Detector, Rows, name_of, per_signal
from anomaly.detect_calendar import timestamps
from anomaly.detect_learn import HISTORY_DAYS, learn
from anomaly.detect_rows import on_grid
from anomaly.detect_signals import COLUMNS, Kind
from anomaly.detect_today import Today, one_day


class Verdict(NamedTuple):
    """One new row. `expected`, `low` and `high` are of the value; NaN while nothing is known."""

    score: float
    kind: Kind
    signal: str
    expected: float
    low: float
    high: float


def verdict(today: Today, second: float, row: Mapping[str, float]) -> Verdict:
    """Judge the row of a day that takes it (`today.takes(second)`), and say what it is."""
    score, steps = today.judge(second, {name: float(row.get(name, np.nan)) for name in COLUMNS})
    kind, signal = name_of(per_signal(steps[:, None])[:, 0], float(today.learned.leak[0]))
    return Verdict(score, kind, signal, *today.band(second))


class Online:
    """Feeds a series row by row."""

    def __init__(self, meta: Mapping[str, Any]) -> None:
        self.meta = meta
        self._history: dict[str, list[float]] = {name: [] for name in ("timestamp", *COLUMNS)}
        self._today: Today | None = None

    def update(self, timestamp: object, value: float, row: Mapping[str, float] | None = None) -> float:
        """The score of the next row. A row older than the last one is taken into the history and judged by it."""
        second = timestamps([timestamp])[0].timestamp()
        late = bool(self._history["timestamp"]) and second <= self._history["timestamp"][-1]
        given = {name: value if name == "value" else (row or {}).get(name) for name in COLUMNS}
        known = {name: np.nan if figure is None else float(figure) for name, figure in given.items()}
        if late or self._today is None or not self._today.takes(second):
            self._forget(second)
            self._today = learn_today(self.meta, self._frame(), second)
        for name, figure in ({"timestamp": second} | known).items():
            self._history[name].append(figure)
        if late:
            self._today = None
            return float(Detector(self.meta).scores(self._frame())[-1])
        return self._today.judge(second, known)[0]

    def _frame(self) -> dict[str, Any]:
        return {**self._history, "timestamp": pd.to_datetime(self._history["timestamp"], unit="s", utc=True)}

    def _forget(self, second: float) -> None:
        """Rows that are too old to matter."""
        keep = np.asarray(self._history["timestamp"]) > second - HISTORY_DAYS * 86_400
        if not keep.all():
            self._history = {name: list(np.asarray(column)[keep]) for name, column in self._history.items()}

    def state(self) -> dict[str, Any]:
        """All that is needed to go on: lists of numbers."""
        return {"history": {name: list(column) for name, column in self._history.items()}}

    @classmethod
    def restore(cls, meta: Mapping[str, Any], state: Mapping[str, Any]) -> "Online":
        detector = cls(meta)
        detector._history = {name: list(column) for name, column in state["history"].items()}
        return detector


def learn_today(meta: Mapping[str, Any], history: Rows, second: float) -> Today:
    """What the local day of `second` is to be compared with, from rows before `second` (those of the day included)."""
    step = float(meta["step_seconds"])
    length = len(history["timestamp"])
    times = timestamps(history["timestamp"]).append(timestamps([pd.Timestamp(second, unit="s")]))
    columns = {name: np.append(np.asarray(history[name], dtype=float), np.nan) for name in COLUMNS if name in history}
    grid = on_grid({"timestamp": times, **columns}, str(meta["timezone"]), step)
    learned, seen = learn(grid.rows, str(meta["metric"]), grid.calendar)
    now = int(grid.calendar.day[-1])
    midnight = int(np.searchsorted(grid.calendar.day, now))
    begin = grid.begin.timestamp() + midnight * step
    today = Today(one_day(learned, now), begin, str(meta["timezone"]), step, str(meta["metric"]))
    before = int(grid.place[:length].max()) + 1 if length else 0
    today.remember(seen.values[:, :before], seen.excess[:, :before])
    today.filled = max(0, before - midnight)
    return today
