"""A series of any one figure, without unit figures or a calendar: how unlike everything seen before is this row?

Two memories of patterns are kept: (value, mean of the last ten), and the same of the distance from the most similar
moment of the last seven days at this time of day. A pattern further from all remembered ones than the memory's reach
is new, is remembered, and from then on is known: what repeats is reported once. This is the leader algorithm (Hartigan
1975), the core of adaptive-resonance detectors such as ARTime. Distances are in units of the series' own past range, so
a score means the same for all series; the more often a series has been new already, the less it counts.
"""

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Mapping
from math import log, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

NOVELTY_THRESHOLD = 0.355
MEAN_ROWS = 10
RANGE_QUANTILE = 0.05
TAIL_BEGINS = 2.0  # ranges from the median; beyond it distances grow as logarithms
REACH, SEASON_REACH, SEASON_WEIGHT = 0.4, 0.3, 1.3
SEASON_DAYS, SEASON_SLIP = 7, 2
LEARNING_ROWS = 20  # before these the range is unknown and nothing is scored
HABIT_ROWS, HABIT_AFTER, HABIT_POWER = 4000, 300, 0.15
QUIET_DAYS = 0.5  # a pattern that goes on is reported again only when it gets odder
PATTERNS = 400
ADAPTS = 0.05  # a known pattern moves this share of the way to the row it met
REMEMBERED_ROWS = 20_000

Array = NDArray[np.float64]


class Patterns:
    """Remembered pairs. The one met longest ago makes room for a new one."""

    def __init__(self, reach: float) -> None:
        self.reach = reach
        self.first, self.second = np.zeros(PATTERNS), np.zeros(PATTERNS)
        self.met = np.zeros(PATTERNS, dtype=np.int64)
        self.count = 0

    def distance(self, first: float, second: float, now: int) -> float:
        """From the nearest remembered pair; the pair is remembered."""
        if not self.count:
            self._put(0, first, second, now)
            self.count = 1
            return 0.0
        a, b = self.first[: self.count] - first, self.second[: self.count] - second
        a *= a
        b *= b
        a += b
        nearest = int(a.argmin())
        distance = sqrt(a[nearest])
        if distance <= self.reach:
            self.first[nearest] += ADAPTS * (first - self.first[nearest])
            self.second[nearest] += ADAPTS * (second - self.second[nearest])
            self.met[nearest] = now
        elif self.count < PATTERNS:
            self._put(self.count, first, second, now)
            self.count += 1
        else:
            self._put(int(self.met.argmin()), first, second, now)
        return distance

    def _put(self, place: int, first: float, second: float, now: int) -> None:
        self.first[place], self.second[place], self.met[place] = first, second, now


class Past:
    """Median, range and spread of the rows seen, the oldest forgotten."""

    def __init__(self) -> None:
        self.values: deque[float] = deque()
        self.ordered: list[float] = []
        self.total = self.squares = 0.0

    def add(self, value: float) -> None:
        self.values.append(value)
        insort(self.ordered, value)
        self.total += value
        self.squares += value * value
        if len(self.values) > REMEMBERED_ROWS:
            old = self.values.popleft()
            del self.ordered[bisect_left(self.ordered, old)]
            self.total -= old
            self.squares -= old * old

    def quantile(self, share: float) -> float:
        place = (len(self.ordered) - 1) * share
        below = int(place)
        lower = self.ordered[below]
        return lower + (self.ordered[min(below + 1, len(self.ordered) - 1)] - lower) * (place - below)

    def middle_and_range(self) -> tuple[float, float]:
        count = len(self.ordered)
        middle = self.quantile(0.5)
        variance = (self.squares - self.total * self.total / count) / (count - 1)
        width = self.quantile(1 - RANGE_QUANTILE) - self.quantile(RANGE_QUANTILE)
        return middle, max(width, sqrt(max(variance, 0.0)), 1e-3 * abs(middle), 1e-12)


class Mean:
    """Mean of the last rows."""

    def __init__(self) -> None:
        self.last: deque[float] = deque(maxlen=MEAN_ROWS)

    def of(self, value: float) -> float:
        self.last.append(value)
        return sum(self.last) / len(self.last)


def shortened(distance: float) -> float:
    """Beyond the tail's beginning twice as far is one step more, not twice as much."""
    size = abs(distance)
    if size <= TAIL_BEGINS:
        return distance
    far = TAIL_BEGINS * (1 + log(size / TAIL_BEGINS))
    return far if distance > 0 else -far


class Novelty:
    """Detector of a univariate series; the same interface as `Detector`."""

    def __init__(self, meta: Mapping[str, Any]) -> None:
        self.day_rows = max(1, round(86_400 / float(meta["step_seconds"])))
        self.past, self.rows = Past(), 0
        self.patterns, self.season = Patterns(REACH), Patterns(SEASON_REACH)
        self.mean_raw, self.mean, self.mean_season = Mean(), Mean(), Mean()
        slip = SEASON_SLIP if self.day_rows >= 48 else 0
        lags = [day * self.day_rows + off for day in range(1, SEASON_DAYS + 1) for off in range(-slip, slip + 1)]
        self.lags = np.array(sorted(lags))
        self.means = np.zeros(1024)  # ring of smoothed values is a growing array: seven days are looked back at
        self.recent: deque[float] = deque(maxlen=max(12, int(QUIET_DAYS * self.day_rows)))
        self.news: deque[bool] = deque(maxlen=HABIT_ROWS)
        self.new = 0

    def scores(self, frame: Any) -> Array:
        return np.array([self.update(None, value) for value in np.asarray(frame["value"], dtype=float).tolist()])

    def update(self, timestamp: object, value: float, row: object = None) -> float:
        """Score of the next row; a row without a value teaches nothing and scores nothing."""
        if value is None or value != value or value in (float("inf"), float("-inf")):
            return 0.0
        score = self._judge(float(value)) if len(self.past.ordered) >= LEARNING_ROWS else self._keep(float(value))
        self.past.add(float(value))
        return score

    def _keep(self, value: float) -> float:
        self._smooth(self.mean_raw.of(value))
        self.rows += 1
        return 0.0

    def _smooth(self, mean: float) -> None:
        if self.rows >= len(self.means):
            self.means = np.concatenate([self.means, np.zeros(len(self.means))])
        self.means[self.rows] = mean

    def _judge(self, value: float) -> float:
        middle, width = self.past.middle_and_range()
        off = shortened((value - middle) / width)
        distance = self.patterns.distance(off, self.mean.of(off), self.rows)
        self._smooth(self.mean_raw.of(value))
        alike = self._unlike_other_days(width)
        seasonal = self.season.distance(alike, self.mean_season.of(alike), self.rows)
        self.rows += 1
        return self._report(max(distance, SEASON_WEIGHT * seasonal))

    def _unlike_other_days(self, width: float) -> float:
        """Distance from the most similar moment at this time of the last days; 0 before there is one."""
        lags = (
            self.lags
            if self.lags[-1] <= self.rows
            else self.lags[: int(np.searchsorted(self.lags, self.rows, "right"))]
        )
        if not len(lags):
            return 0.0
        apart = self.means[self.rows] - self.means[self.rows - lags]
        return shortened(float(apart[np.abs(apart).argmin()]) / width)

    def _report(self, distance: float) -> float:
        odder = not self.recent or distance > max(self.recent)
        self.recent.append(distance)
        score = distance / (1 + self.new) ** HABIT_POWER if odder else 0.0
        is_new = odder and distance > REACH and self.rows > HABIT_AFTER
        if len(self.news) == HABIT_ROWS:
            self.new -= self.news[0]
        self.news.append(is_new)
        self.new += is_new
        return score
