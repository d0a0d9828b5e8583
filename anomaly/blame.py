"""What drove a change: ranked slices (`feature=chat`, `feature=chat and model=gpt-5`) with their money.

    explanation = explain(table, start, end, ["feature", "model", "user"])
    blame(table, start, end, dims)       # the same, names only; [] = everything moved alike, or nothing stands out

`table` is a frame of `timestamp`, the dimensions and `cost`: history and the window in one. The method and its scores:
docs/anomalies.md.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from anomaly.causes import EVERYTHING, Found, Search
from anomaly.deviation import Deviations, deviations
from anomaly.leaves import Bools, Floats, Leaves, leaves_of
from anomaly.slices import Slices

#: "Everything moved alike" when the common shift alone makes this share of the change.
_ALIKE_SHARE = 0.5
#: Sets of leaves that are allowed to move together, the ones with most money first: bounds the size of the regression.
MAX_SHARED = 64


class Driver(NamedTuple):
    """A slice that moved the amount. Amounts are in the table's unit, over the whole window."""

    where: dict[str, Any]
    actual: float
    expected: float
    share: float  # of the whole change; several drivers may overlap, and others may have moved the other way
    evidence: float  # nats: how much likelier the window is with this cause than without
    new: bool  # the slice did not exist before


class Explanation(NamedTuple):
    actual: float
    expected: float
    drivers: tuple[Driver, ...]  # strongest evidence first
    alike: bool  # everything moved alike: there is no driver to name


def blame(table: pd.DataFrame, start: Any, end: Any, dims: Sequence[str]) -> list[dict[str, Any]]:
    """The slices that drove the window away from what is usual, strongest first."""
    return [driver.where for driver in explain(table, start, end, dims).drivers]


def explain(table: pd.DataFrame, start: Any, end: Any, dims: Sequence[str], amount: str = "cost") -> Explanation:
    """As `blame`, with what each driver cost, what was expected, and its share of the change."""
    if table.empty or not dims:
        return Explanation(0.0, 0.0, (), alike=False)
    leaves = leaves_of(table, start, end, dims, amount)
    data = deviations(leaves)
    slices = Slices(leaves)
    search = Search(slices, data, leaves.actual, _moves_together(leaves, data))
    found = search.best()
    alike = search.moved_alike(found) or _lifted_all(leaves.actual, data, found)
    if alike:
        return Explanation(float(leaves.actual.sum()), float(data.expected.sum()), (), alike=True)
    return Explanation(
        float(leaves.actual.sum()), float(data.expected.sum()), _drivers(leaves, data, slices, found), alike=False
    )


def _moves_together(leaves: Leaves, data: Deviations) -> list[tuple[Bools, float]]:
    """Sets of leaves with the variance they share: all of them, and those of each value of a dimension."""
    if not data.logs:
        return []
    sets: list[tuple[float, Bools, float]] = []
    for codes, variance in zip(leaves.codes, data.together, strict=True):
        if variance <= 1e-4:
            continue
        money, sizes = np.bincount(codes, data.expected), np.bincount(codes)
        sets += [(float(money[v]), codes == v, float(variance)) for v in np.flatnonzero(sizes > 1)]
    sets.sort(key=lambda each: -each[0])
    everything = np.ones(len(leaves.actual), dtype=np.bool_)
    return [(mask, variance) for _, mask, variance in sets[:MAX_SHARED]] + [(everything, max(data.common, 1e-3))]


def _drivers(leaves: Leaves, data: Deviations, slices: Slices, found: Found) -> tuple[Driver, ...]:
    change = leaves.actual - data.expected
    total = float(change.sum())
    direction = 1.0 if total >= 0 else -1.0
    drivers = []
    for number, shift, evidence in zip(found.chosen, found.shifts, found.evidence, strict=True):
        if number == EVERYTHING or shift * direction <= 0:
            continue
        mask = slices.holds(number)
        moved = float(change[mask].sum())
        if moved * direction <= 0:
            continue
        before = float(data.expected[mask].sum())
        drivers.append(
            Driver(
                slices.name(number, leaves),
                float(leaves.actual[mask].sum()),
                before,
                moved / total if total else 0.0,
                float(evidence),
                new=before == 0.0,
            )
        )
    drivers.sort(key=lambda driver: -driver.evidence)
    return tuple(drivers)


def _lifted_all(actual: Floats, data: Deviations, found: Found) -> bool:
    """Whether the shift common to all leaves alone makes most of the change."""
    if EVERYTHING not in found.chosen:
        return False
    shift = float(found.shifts[found.chosen.index(EVERYTHING)])
    total = float((actual - data.expected).sum())
    lifted = float((data.amounts(np.full(len(actual), shift)) - data.expected).sum())
    return lifted * total > 0 and abs(lifted) > _ALIKE_SHARE * abs(total)
