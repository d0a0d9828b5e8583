"""All watched series of a project, and what the detector says about each."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Any, NamedTuple

import numpy as np
import psycopg

from anomaly.anomalies import Anomaly, anomalies
from anomaly.budget import threshold_for
from anomaly.detect import Detector, Verdicts
from anomaly.detect_signals import Kind
from costapp.storage.reports.anomaly_cells import Cell, watched_series
from costapp.storage.reports.cells import Grain, Scope

Connection = psycopg.Connection[Any]

HOUR = timedelta(hours=1)
#: What is watched beside the whole project.
DIMENSIONS = ("feature", "model", "team", "environment")
#: Which series of several that show the same money tells the story: the first of these.
TELLING = ("feature", "team", "model", "environment", "")
#: In a series of many features, tokens and cost per call move with the mix: only these signals mean something.
MIXED_SIGNALS = frozenset({"cost", "requests", "silence", "retries"})
#: What is odd and much money is told sooner: at this score, when the two last hours of a feature cost so much more than
#: expected, in percent of the project's usual day. Noise that is also much money is rare (docs/anomalies.md).
MATERIAL_SCORE, MATERIAL_PERCENT = 3.5, 5
USUAL_DAYS, LEAST_DAYS = 14, 10
#: Kinds of which too little money is the point.
TOO_LITTLE = frozenset({Kind.SILENCE})


class Limits(NamedTuple):
    """Settings of detection."""

    series: int
    history: timedelta
    least_nano: int  # anomalies about less money are not kept
    alerts_per_week: float


class Course(NamedTuple):
    """A series around an anomaly, for its chart: hours, cost and the band. None = unknown."""

    at: list[str]
    cost_nano: list[int | None]
    expected_nano: list[int | None]
    low_nano: list[int | None]
    high_nano: list[int | None]


class Odd(NamedTuple):
    """One anomaly of one series."""

    dimension: str
    value: str
    start_at: datetime
    odd_at: datetime
    peak_at: datetime
    end_at: datetime  # end of the last odd hour
    anomaly: Anomaly
    actual_nano: int
    course: Course

    @property
    def above_nano(self) -> int:
        return self.anomaly.above_expected_nano

    @property
    def subject(self) -> dict[str, str]:
        return {self.dimension: self.value} if self.dimension else {}

    def overlaps(self, other: "Odd", slack: timedelta) -> bool:
        return self.start_at < other.end_at + slack and other.start_at < self.end_at + slack


class Judged(NamedTuple):
    odd: list[Odd]
    series: int
    beyond: int


def judge_series(
    conn: Connection, project_id: int, zone: str, first: datetime, until: datetime, since: datetime, limits: Limits
) -> Judged:
    """Anomalies of all series that lasted until ``since`` or later. ``until`` is the 5-minute edge that is whole.

    The hour that is still filling is judged as the sixty minutes before ``until``.
    """
    hour = until.replace(minute=0, second=0, microsecond=0)
    start = max(first, hour - limits.history)
    scope = Scope(project_id, zone, start, hour, Grain.HOUR)
    tail = until if until > hour else None
    found = watched_series(conn, scope, DIMENSIONS, tail_until=tail, limit=limits.series)
    hours = [start + HOUR * i for i in range((hour - start) // HOUR + (tail is not None))]
    by_series: dict[tuple[str, str], dict[datetime, Cell]] = defaultdict(dict)
    for cell in found.cells:
        by_series[cell.dimension, cell.value][cell.bucket_at] = cell
    # who wants no alerts still sees what is odd
    threshold = threshold_for(max(1.0, limits.alerts_per_week), len(by_series))
    usual = _usual_days(by_series.get(("", ""), {}))
    odd = []
    for (dimension, value), cells in sorted(by_series.items()):
        own = [at for at in hours if at >= min(cells)]
        odd += [
            each
            for each in _odd(dimension, value, own, [cells.get(at) for at in own], zone, threshold, usual)
            if each.end_at > since and matters(each, limits.least_nano)
        ]
    return Judged(odd, len(by_series), found.beyond)


def _usual_days(whole: dict[datetime, Cell]) -> dict[date, int]:
    """What a day of the project usually cost, judged by the days before it; nothing while it is young."""
    daily: dict[date, int] = defaultdict(int)
    for at, cell in whole.items():
        daily[at.date()] += cell.cost_nano
    days = sorted(daily)
    return {
        day: int(np.median([daily[each] for each in days[max(0, i - USUAL_DAYS) : i]]))
        for i, day in enumerate(days)
        if i >= LEAST_DAYS
    }


def _odd(
    dimension: str,
    value: str,
    hours: list[datetime],
    cells: list[Cell | None],
    zone: str,
    threshold: float,
    usual: dict[date, int],
) -> list[Odd]:
    costs = [0 if cell is None else cell.known_cost_nano for cell in cells]
    detector = Detector({"timezone": zone, "step_seconds": 3600, "metric": "feature_cost"})
    verdicts = detector.explain(_frame(hours, cells, costs))
    verdicts = _meaningful(dimension, verdicts)
    if dimension == "feature":
        verdicts = _sooner(verdicts, hours, costs, usual, threshold)
    found = anomalies([at.timestamp() for at in hours], costs, verdicts, threshold)
    return [told(dimension, value, hours, costs, verdicts, anomaly) for anomaly in found]


def _frame(hours: list[datetime], cells: list[Cell | None], costs: Sequence[int | None]) -> dict[str, Any]:
    """The columns of the detector. An hour without calls is a zero, not a gap: the sums are whole."""
    known = [cell or Cell("", "", hours[0], 0, 0, 0, 0, 0, 0, 0, 0, 0) for cell in cells]
    return {
        "timestamp": hours,
        "value": [np.nan if cost is None else cost for cost in costs],
        "requests": [cell.requests for cell in known],
        "input_tokens": [cell.input_tokens + cell.cache_read_tokens + cell.cache_write_tokens for cell in known],
        "cached_tokens": [cell.cache_read_tokens for cell in known],
        "output_tokens": [cell.output_tokens + cell.reasoning_tokens for cell in known],
        "retries": [cell.retries for cell in known],
    }


def _meaningful(dimension: str, verdicts: Verdicts) -> Verdicts:
    if dimension == "feature":
        return verdicts
    telling = np.array([signal in MIXED_SIGNALS for signal in verdicts.signal], dtype=bool)
    return verdicts._replace(score=np.where(telling, verdicts.score, 0.0))


def _sooner(
    verdicts: Verdicts, hours: list[datetime], costs: Sequence[int | None], usual: dict[date, int], threshold: float
) -> Verdicts:
    """Scores at the threshold where something less odd is much money."""
    above = [(cost or 0) - (_nano(expected) or 0) for cost, expected in zip(costs, verdicts.expected, strict=True)]
    much = np.array(
        [
            0 < usual.get(at.date(), 0) * MATERIAL_PERCENT <= 100 * sum(above[max(0, i - 1) : i + 1])
            for i, at in enumerate(hours)
        ],
        dtype=bool,
    )
    raised = np.where(much & (verdicts.score >= MATERIAL_SCORE), np.maximum(verdicts.score, threshold), verdicts.score)
    return verdicts._replace(score=raised)


def matters(odd: Odd, least_nano: int) -> bool:
    amount = -odd.above_nano if odd.anomaly.kind in TOO_LITTLE else odd.above_nano
    return amount >= least_nano


#: Hours drawn before and after an anomaly, and at most in all.
_BEFORE, _AFTER, _DRAWN = 36, 12, 240


def told(
    dimension: str,
    value: str,
    hours: list[datetime],
    costs: list[int | None],
    verdicts: Verdicts,
    anomaly: Anomaly,
) -> Odd:
    first, stop = max(0, anomaly.start - _BEFORE), min(len(hours), anomaly.end + 1 + _AFTER)
    shown = range(first, min(stop, first + _DRAWN))
    course = Course(
        [hours[i].isoformat() for i in shown],
        [costs[i] for i in shown],
        [_nano(verdicts.expected[i]) for i in shown],
        [_nano(verdicts.low[i]) for i in shown],
        [_nano(verdicts.high[i]) for i in shown],
    )
    return Odd(
        dimension,
        value,
        hours[anomaly.start],
        hours[anomaly.first_odd],
        hours[anomaly.peak],
        hours[anomaly.end] + HOUR,
        anomaly,
        sum(costs[i] or 0 for i in range(anomaly.start, anomaly.end + 1)),
        course,
    )


def _nano(estimate: Any) -> int | None:
    return int(np.rint(estimate)) if np.isfinite(estimate) else None
