"""From odd rows to anomalies: one per story, with start, peak, end and the money above what was expected.

Money is integer nano-dollars. The expected value is a float (it is an estimate); it is rounded here, once per row, and
only integers are summed.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from anomaly.detect import THRESHOLD, Verdicts
from anomaly.detect_signals import Array, Kind

JOIN_HOURS = 24  # odd rows closer than this are one anomaly: it is told once a day at most
SETTLED_DAYS = 7  # what lasts so long is the new normal, and is closed as that
SILENT_AFTER_DAYS = 14  # what the detector needs to get used to it; until then it is not told again
BACK_HOURS = 48  # the beginning is looked for so far before the first odd row


class Anomaly(NamedTuple):
    """Rows `start` to `end` (both included) of the series."""

    start: int
    first_odd: int  # the row that raised the alert; the start may lie before it
    peak: int
    end: int
    kind: Kind
    signal: str
    score: float
    above_expected_nano: int  # negative in a silence
    above_band_nano: int
    new_normal: bool


def anomalies(
    seconds: Sequence[float], value_nano: Sequence[int | None], verdicts: Verdicts, threshold: float = THRESHOLD
) -> list[Anomaly]:
    """Anomalies of a series, oldest first. `value_nano` is None where the value is unknown."""
    times = np.asarray(seconds, dtype=np.float64)
    odd = np.flatnonzero(verdicts.score >= threshold)
    found: list[Anomaly] = []
    for group in joined(odd, times):
        known_since = found[-1] if found and found[-1].new_normal else None
        if known_since and times[group[0]] - times[known_since.end] < SILENT_AFTER_DAYS * 86_400:
            continue
        for part, settled in chapters(group, times):
            found.append(told(part, settled, times, value_nano, verdicts))
            if settled:
                break
    return found


def joined(odd: NDArray[np.intp], times: Array) -> list[NDArray[np.intp]]:
    """Odd rows, split where more than JOIN_HOURS lie between two."""
    if not len(odd):
        return []
    return list(np.split(odd, np.flatnonzero(np.diff(times[odd]) > JOIN_HOURS * 3600) + 1))


def chapters(group: NDArray[np.intp], times: Array) -> list[tuple[NDArray[np.intp], bool]]:
    """The rows of an anomaly, cut off where it has become the new normal."""
    within = times[group] - times[group[0]] < SETTLED_DAYS * 86_400
    return [(group[within], not bool(within.all()))]


def told(
    odd: NDArray[np.intp], settled: bool, times: Array, value_nano: Sequence[int | None], verdicts: Verdicts
) -> Anomaly:
    start, end = beginning(int(odd[0]), times, value_nano, verdicts), int(odd[-1])
    above = [over(value_nano[i], verdicts.expected[i]) for i in range(start, end + 1)]
    above_band = [max(0, over(value_nano[i], verdicts.high[i])) for i in range(start, end + 1)]
    kind, signal = leading(odd, verdicts)
    size = [abs(amount) for amount in above]
    peak = start + size.index(max(size)) if any(size) else int(odd[np.argmax(verdicts.score[odd])])
    return Anomaly(
        start=start,
        first_odd=int(odd[0]),
        peak=peak,
        end=end,
        kind=kind,
        signal=signal,
        score=float(verdicts.score[odd].max()),
        above_expected_nano=sum(above),
        above_band_nano=sum(above_band),
        new_normal=settled,
    )


def beginning(first: int, times: Array, value_nano: Sequence[int | None], verdicts: Verdicts) -> int:
    """Back over rows above the band: means over hours need some rows before they are odd."""
    start = first
    while start > 0 and times[first] - times[start - 1] <= BACK_HOURS * 3600:
        if over(value_nano[start - 1], verdicts.high[start - 1]) <= 0:
            break
        start -= 1
    return start


def over(amount_nano: int | None, line: float) -> int:
    """Nano-dollars above a line; 0 where either is unknown."""
    if amount_nano is None or not np.isfinite(line):
        return 0
    return amount_nano - int(np.rint(line))


def leading(odd: NDArray[np.intp], verdicts: Verdicts) -> tuple[Kind, str]:
    """The kind that most of the oddness speaks for, and its signal."""
    weight: dict[tuple[Kind, str], float] = {}
    for i in odd:
        name = (verdicts.kind[i], verdicts.signal[i])
        weight[name] = weight.get(name, 0.0) + float(verdicts.score[i])
    return max(weight, key=lambda name: (weight[name], name))
