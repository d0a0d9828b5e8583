"""The detector of one series: an online score per row, the same in the product and under the scorer.

    scores = make(meta).scores(frame)                # a whole series
    verdicts = make(meta).explain(frame)             # with kind, signal and the expected band
    score = Online(meta).update(timestamp, value, row)   # the same scores, one row at a time (detect_online)

`meta` holds timezone, step_seconds and `metric` (detect_signals says which). Without a metric the series is any
figure, without unit figures and without a calendar: `Novelty` (detect_novelty) judges it. A score at or above
`THRESHOLD` (`NOVELTY_THRESHOLD`) is an alert. Neither ever looks at later rows: a score depends on its own row and on
earlier ones.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from anomaly.detect_learn import FEW_DAYS, OF_SIGNAL, learn, new_normals, oddness
from anomaly.detect_novelty import Novelty
from anomaly.detect_rows import on_grid
from anomaly.detect_signals import INDEX, SIGNALS, Array, Kind

Rows = pd.DataFrame | Mapping[str, Any]
THRESHOLD = 5.8
# When several signals are odd (half a threshold is enough), the first of these explains the others: retries raise
# requests per user, a loop misses the cache, a smaller cached share raises the cost per request.
EXPLAINING = 0.5
EXPLAINS = (
    "retries", "price", "capacity", "idle", "silence", "load", "misses",
    "requests", "prompt", "answer", "unit_cost", "cost",
)  # fmt: skip


class Verdicts(NamedTuple):
    """One entry per given row."""

    score: Array
    kind: list[Kind]  # what the row would be called if its score is high enough
    signal: list[str]  # the figure that gave the score
    expected: Array  # of the value; NaN while nothing is known
    low: Array  # the band: where the worst hour of most days stays
    high: Array
    cold: NDArray[np.bool_]  # too little history, the band is wide
    new_normal: Array  # at the first row of a day on which growth is to be said once: how many times; else NaN


def make(meta: Mapping[str, Any]) -> "Detector | Novelty":
    return Detector(meta) if meta.get("metric") else Novelty(meta)


class Detector:
    """Judges unit figures against the series' own past, by local hour and day of the week."""

    def __init__(self, meta: Mapping[str, Any]) -> None:
        self.meta = meta
        self.timezone = str(meta["timezone"])
        self.step_seconds = float(meta["step_seconds"])
        self.metric = str(meta["metric"])

    def scores(self, frame: Rows) -> Array:
        grid = on_grid(frame, self.timezone, self.step_seconds)
        learned, seen = learn(grid.rows, self.metric, grid.calendar)
        steps = oddness(learned, seen.statistics, grid.calendar.day, grid.calendar.slot)
        worst: Array = np.maximum(steps.max(axis=0), learned.leak[grid.calendar.day]).clip(0)
        return worst[grid.place]

    def explain(self, frame: Rows) -> Verdicts:
        grid = on_grid(frame, self.timezone, self.step_seconds)
        learned, seen = learn(grid.rows, self.metric, grid.calendar)
        day, slot = grid.calendar.day, grid.calendar.slot
        by_signal = per_signal(oddness(learned, seen.statistics, day, slot))
        leak = learned.leak[day]
        score = np.maximum(by_signal.max(axis=0), leak).clip(0)
        named = [name_of(by_signal[:, i], leak[i]) for i in range(len(score))]
        usual = learned.base[day, -1, slot] + learned.level[day, -1]
        expected, band = np.exp(usual), np.exp(usual[:, None] + learned.band[day])
        place = grid.place
        return Verdicts(
            score=score[place],
            kind=[named[i][0] for i in place],
            signal=[named[i][1] for i in place],
            expected=expected[place],
            low=np.fmin(band[:, 0], expected)[place],
            high=np.fmax(band[:, 1], expected)[place],
            cold=(learned.known_days[day] < FEW_DAYS)[place],
            new_normal=np.where(np.diff(day, prepend=-1) > 0, new_normals(learned)[day], np.nan)[place],
        )


def per_signal(steps: Array) -> Array:
    """(signals, rows): the worst of each signal's windows."""
    return np.stack([steps[i == OF_SIGNAL].max(axis=0) for i in range(len(SIGNALS))])


def name_of(steps: Array, leak: float) -> tuple[Kind, str]:
    """Kind and signal of a row from its signals' scores."""
    worst = max(float(steps.max()), leak)
    if worst <= 0:
        return Kind.UNUSUAL, ""
    if leak > steps.max():
        return Kind.SLOW_LEAK, "prompt"
    odd = EXPLAINING * min(THRESHOLD, worst)
    for name in EXPLAINS:
        if steps[INDEX[name]] >= odd:
            kind = SIGNALS[INDEX[name]].kind
            traffic_left = kind is Kind.SILENCE and steps[INDEX["idle"]] > 0
            return (Kind.IDLE_GPU if traffic_left else kind), name
    raise AssertionError("the worst signal is odd itself")
