"""One local day of one series, row by row: what was learnt at its midnight, and the last hours.

This is all that a detection run needs of a series (a few kilobytes), so that the product learns once a day and then
judges each new cell in a fraction of a millisecond.
"""

from typing import Any

import numpy as np
import pandas as pd

from anomaly.detect_calendar import calendar_of
from anomaly.detect_learn import (
    FIRST_KNOWN,
    FIRST_ROWS,
    STATISTICS,
    Learned,
    excesses,
    oddness,
    quantiles,
    window_steps,
)
from anomaly.detect_signals import COLUMNS, INDEX, SIGNALS, Array, log, signal_values

TAIL_HOURS = 24  # the longest window; also what a first day is compared with
ONLY_DAY = np.zeros(1, dtype=np.int64)
UNKNOWN = {name: np.full(1, np.nan) for name in COLUMNS}


class Today:
    """Judges the rows of the local day that begins at `begin` (seconds since 1970)."""

    def __init__(self, learned: Learned, begin: float, timezone: str, step_seconds: float, metric: str) -> None:
        self.learned, self.begin, self.step_seconds, self.metric = learned, begin, step_seconds, metric
        self.timezone = timezone
        steps = round(26 * 3600 / step_seconds)
        times = pd.date_range(
            pd.Timestamp(begin, unit="s", tz="UTC"), periods=steps, freq=pd.Timedelta(seconds=step_seconds)
        )
        calendar = calendar_of(times, timezone, step_seconds)
        self.slots = calendar.slot[calendar.day == 0]
        self.per_hour = max(1, calendar.slots // 24)
        self.values = np.full(
            (len(SIGNALS) + 1, FIRST_ROWS), np.nan
        )  # of the last hours: signals, then the value itself
        self.excess = np.full((len(SIGNALS), 1), np.nan)
        self.filled = 0  # steps of the day that have been judged or passed

    @property
    def end(self) -> float:
        """The local midnight that ends the day."""
        return self.begin + len(self.slots) * self.step_seconds

    def remember(self, values: Array, excess: Array) -> None:
        """The hours before the day, oldest first."""
        keep = TAIL_HOURS * self.per_hour
        self.values = np.concatenate([self.values, values], axis=1)[:, -keep:]
        self.excess = np.concatenate([self.excess, excess], axis=1)[:, -keep:]

    def takes(self, second: float) -> bool:
        """Whether the row is of this day and later than those judged."""
        return self.begin + self.filled * self.step_seconds <= second < self.end

    def judge(self, second: float, row: dict[str, float]) -> tuple[float, Array]:
        """Score of the row, and how odd each statistic is. Steps between it and the last row are unknown."""
        step = int((second - self.begin) // self.step_seconds)
        for _ in range(self.filled, step):
            self._push(np.full(len(SIGNALS) + 1, np.nan), UNKNOWN, 0)
        rows = {name: np.array([row[name]]) for name in COLUMNS}
        signals = signal_values(rows, self.metric, self.learned.prices, ONLY_DAY)[:, 0]
        self._push(np.append(signals, log(rows["value"])), rows, int(self.slots[step]))
        self.filled = step + 1
        slot = self.slots[step : step + 1]
        steps = oddness(self.learned, self._means()[:, None], ONLY_DAY, slot)[:, 0]
        return max(float(steps.max()), float(self.learned.leak[0]), 0.0), steps

    def band(self, second: float) -> tuple[float, float, float]:
        """Expected value, and the band around it; NaN while nothing is known."""
        slot = int(self.slots[int((second - self.begin) // self.step_seconds)])
        usual = self.learned.base[0, -1, slot] + self.learned.level[0, -1]
        low, high = self.learned.band[0]
        return float(np.exp(usual)), float(np.exp(usual + np.fmin(low, 0))), float(np.exp(usual + np.fmax(high, 0)))

    def _push(self, values: Array, rows: dict[str, Array], slot: int) -> None:
        residual = values - self.learned.base[0, :, slot]
        if not np.isfinite(residual).all():
            middle = quantiles(self.values[:, -FIRST_ROWS:], (0.5,), least=FIRST_KNOWN)[0]
            residual = np.where(np.isfinite(residual), residual, values - middle)
        usual_requests = self.learned.base[:1, INDEX["requests"], slot]
        excess = excesses(residual[:-1, None], self.learned.level[0, :-1, None], rows, usual_requests)
        keep = TAIL_HOURS * self.per_hour
        self.values = np.concatenate([self.values, values[:, None]], axis=1)[:, -keep:]
        self.excess = np.concatenate([self.excess, excess], axis=1)[:, -keep:]

    def _means(self) -> Array:
        known = np.isfinite(self.excess)
        sums = np.where(known, self.excess, 0)[:, ::-1].cumsum(axis=1)
        counts = known[:, ::-1].cumsum(axis=1)
        found = np.full(len(STATISTICS), np.nan)
        for k, (i, hours) in enumerate(STATISTICS):
            steps = window_steps(hours, self.per_hour)
            place = min(steps, sums.shape[1]) - 1
            if counts[i, place] >= max(1, steps / 2):
                found[k] = sums[i, place] / counts[i, place]
        return found

    # --- to keep between runs

    def state(self) -> dict[str, Any]:
        """Arrays and numbers; `restore` makes the same day of them."""
        own = {name: getattr(self, name) for name in ("begin", "timezone", "step_seconds", "metric", "filled")}
        return {"learned": self.learned._asdict(), **own, "values": self.values, "excess": self.excess}

    @classmethod
    def restore(cls, state: dict[str, Any]) -> "Today":
        arrays = {name: np.asarray(array) for name, array in state["learned"].items()}
        day = cls(Learned(**arrays), state["begin"], state["timezone"], state["step_seconds"], state["metric"])
        day.filled = state["filled"]
        day.values, day.excess = np.asarray(state["values"]), np.asarray(state["excess"])
        return day


def one_day(learned: Learned, day: int) -> Learned:
    """The slice of one day, with a day axis of length one."""
    return Learned(**{name: array[day : day + 1].copy() for name, array in learned._asdict().items()})
