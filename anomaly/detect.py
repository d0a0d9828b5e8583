"""The detector of one series: an online score per row, the same in the product and under the scorer.

    detector = make(meta)
    score = detector.update(timestamp, value, row)   # one row at a time, in order, or
    scores = detector.scores(frame)                  # a whole series: the same figures
    verdicts = detector.explain(frame)               # with kind, channel and the expected band

`meta` holds timezone, step_seconds and `metric` (detect_channels says which). Without a metric the series is any
figure, without unit figures and without a calendar: `Novelty` (detect_novelty) judges it. A score at or above
`THRESHOLD` (`NOVELTY_THRESHOLD`) is an alert. Neither ever looks at later rows: a score depends on its own row and on
earlier ones.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from anomaly.detect_calendar import timestamps
from anomaly.detect_channels import CHANNELS, COLUMNS, INDEX, Array, Kind
from anomaly.detect_learn import FEW_DAYS, HISTORY_DAYS, OF_CHANNEL, learn, new_normals, oddness
from anomaly.detect_novelty import Novelty
from anomaly.detect_rows import on_grid
from anomaly.detect_today import Today, one_day

Rows = pd.DataFrame | Mapping[str, Any]
THRESHOLD = 5.8
# When several channels are odd (half a threshold is enough), the first of these explains the others: retries raise
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
    channel: list[str]  # the figure that gave the score
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
        self._history: dict[str, list[float]] = {name: [] for name in ("timestamp", *COLUMNS)}
        self._today: Today | None = None

    # --- a whole series

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
        by_channel = per_channel(oddness(learned, seen.statistics, day, slot))
        leak = learned.leak[day]
        score = np.maximum(by_channel.max(axis=0), leak).clip(0)
        named = [name_of(by_channel[:, i], leak[i]) for i in range(len(score))]
        usual = learned.base[day, -1, slot] + learned.level[day, -1]
        expected, band = np.exp(usual), np.exp(usual[:, None] + learned.band[day])
        place = grid.place
        return Verdicts(
            score=score[place],
            kind=[named[i][0] for i in place],
            channel=[named[i][1] for i in place],
            expected=expected[place],
            low=np.fmin(band[:, 0], expected)[place],
            high=np.fmax(band[:, 1], expected)[place],
            cold=(learned.known_days[day] < FEW_DAYS)[place],
            new_normal=np.where(np.diff(day, prepend=-1) > 0, new_normals(learned)[day], np.nan)[place],
        )

    # --- one row at a time

    def update(self, timestamp: object, value: float, row: Mapping[str, float] | None = None) -> float:
        """The score of the next row. A row older than the last one is taken into the history and judged by it."""
        second = timestamps([timestamp])[0].timestamp()
        late = bool(self._history["timestamp"]) and second <= self._history["timestamp"][-1]
        given = {name: value if name == "value" else (row or {}).get(name) for name in COLUMNS}
        known = {name: np.nan if figure is None else float(figure) for name, figure in given.items()}
        if late or self._today is None or not self._today.takes(second):
            self._forget(second)
            self._today = self._learn(second)
        for name, figure in ({"timestamp": second} | known).items():
            self._history[name].append(figure)
        if late:
            self._today = None
            return float(self.scores(self._frame())[-1])
        return self._today.judge(second, known)[0] if self._today else 0.0

    def _frame(self) -> dict[str, Any]:
        return {**self._history, "timestamp": pd.to_datetime(self._history["timestamp"], unit="s", utc=True)}

    def _forget(self, second: float) -> None:
        """Rows that are too old to matter."""
        keep = np.asarray(self._history["timestamp"]) > second - HISTORY_DAYS * 86_400
        if not keep.all():
            self._history = {name: list(np.asarray(column)[keep]) for name, column in self._history.items()}

    def _learn(self, second: float) -> Today | None:
        return learn_today(self.meta, self._frame(), second)

    def state(self) -> dict[str, Any]:
        """All that is needed to go on: lists of numbers."""
        return {"history": {name: list(column) for name, column in self._history.items()}}

    @classmethod
    def restore(cls, meta: Mapping[str, Any], state: Mapping[str, Any]) -> "Detector":
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


def per_channel(steps: Array) -> Array:
    """(channels, rows): the worst of each channel's windows."""
    return np.stack([steps[i == OF_CHANNEL].max(axis=0) for i in range(len(CHANNELS))])


def name_of(steps: Array, leak: float) -> tuple[Kind, str]:
    """Kind and channel of a row from its channels' scores."""
    worst = max(float(steps.max()), leak)
    if worst <= 0:
        return Kind.UNUSUAL, ""
    if leak > steps.max():
        return Kind.SLOW_LEAK, "prompt"
    odd = EXPLAINING * min(THRESHOLD, worst)
    for name in EXPLAINS:
        if steps[INDEX[name]] >= odd:
            kind = CHANNELS[INDEX[name]].kind
            traffic_left = kind is Kind.SILENCE and steps[INDEX["idle"]] > 0
            return (Kind.IDLE_GPU if traffic_left else kind), name
    raise AssertionError("the worst channel is odd itself")
