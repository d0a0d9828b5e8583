"""The leaves of a table of cost: one per combination of dimension values, with what it cost then and now.

A window that is asked about ("Tuesday 14:00 to 16:00") is compared with earlier windows of the same shape: the same
hours of up to 14 days before, or, when the history is shorter than a day, the stretches right before it.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

#: Earlier windows looked at. Two weeks: two of every weekday, and little of what was normal last month.
MAX_WINDOWS = 14
_DAY = np.timedelta64(1, "D")


class Leaves(NamedTuple):
    """``codes[d, i]`` is the number of leaf ``i``'s value of dimension ``d``; ``values[d]`` names them."""

    dims: tuple[str, ...]
    values: tuple[Any, ...]
    codes: Ints
    actual: Floats  # cost in the window, per leaf
    earlier: Floats  # cost in earlier windows, newest first: [window, leaf]
    ages: Floats  # how long ago each earlier window was, in steps of a day (or of a window)

    def where(self, leaf: int, dims: Sequence[int]) -> dict[str, Any]:
        return {self.dims[d]: self.values[d][self.codes[d, leaf]] for d in dims}


def leaves_of(table: pd.DataFrame, start: Any, end: Any, dims: Sequence[str], amount: str = "cost") -> Leaves:
    """``table`` holds ``timestamp``, the dimensions and ``amount``; ``start`` and ``end`` both belong to the window."""
    stamps, at = np.unique(_utc(table["timestamp"]).to_numpy(), return_inverse=True)
    first, last = _utc(pd.Series([start, end])).to_numpy()
    now, windows, ages = _windows(stamps, first, last)
    factors = [pd.factorize(table[dim], use_na_sentinel=False) for dim in dims]
    sizes = [max(len(values), 1) for _, values in factors]
    key = np.ravel_multi_index([codes for codes, _ in factors], sizes)
    leaf, row = np.unique(key, return_inverse=True)
    cost = table[amount].to_numpy(np.float64)
    by_window = [np.bincount(row, cost * mask[at], minlength=len(leaf)) for mask in (now, *windows)]
    # a window with holes in it (the table has no such stamp at all) counts as if it were whole
    whole = [now.sum() / max(mask.sum(), 1) for mask in windows]
    return Leaves(
        tuple(dims),
        tuple(values for _, values in factors),
        np.array(np.unravel_index(leaf, sizes), dtype=np.int64),
        np.asarray(by_window[0], dtype=np.float64),
        np.array([sums * scale for sums, scale in zip(by_window[1:], whole, strict=True)]).reshape(-1, len(leaf)),
        ages,
    )


def _utc(times: "pd.Series[Any]") -> "pd.Series[Any]":
    """Without a zone, in UTC; times that state none are UTC already."""
    return pd.to_datetime(times, utc=True).dt.tz_localize(None)


def _windows(stamps: Any, start: Any, end: Any) -> tuple[Bools, list[Bools], Floats]:
    """Masks over ``stamps``: the window, and earlier ones of its shape, newest first, with their ages."""
    now = (stamps >= start) & (stamps <= end)
    shape = stamps[now]
    before = stamps < start
    found: list[tuple[int, Bools]] = []
    for days in range(1, MAX_WINDOWS + 1):
        mask = np.isin(stamps, shape - days * _DAY) & before
        if len(shape) and mask.sum() * 2 >= len(shape):
            found.append((days, mask))
    if not found and len(shape):
        found = _stretches_before(np.flatnonzero(before), len(shape), len(stamps))
    return now, [mask for _, mask in found], np.array([age for age, _ in found], dtype=np.float64)


def _stretches_before(before: Ints, length: int, size: int) -> list[tuple[int, Bools]]:
    found = []
    for back in range(1, min(MAX_WINDOWS, len(before) // length) + 1):
        mask = np.zeros(size, dtype=np.bool_)
        stop = len(before) - (back - 1) * length
        mask[before[stop - length : stop]] = True
        found.append((back, mask))
    return found
