"""How far each leaf is from what it should have cost, and how far leaves like it usually are.

With three or more earlier windows the expected cost is their mean, recent ones weighing more (the half-life that would
have forecast this very history best), and deviations are log ratios: their spread and what moves together (all calls
of one user rise on the same day) are learnt from the errors that the same forecast would have made before.

With fewer, the newest window is a forecast of unknown quality, and its errors must be judged from the window itself:
deviations are relative to the larger of the two amounts, and the quieter side of zero tells their spread, because
causes push to one side only. (After RiskLoc, Kalander 2022, which partitions the leaves on that thought.)
"""

from typing import NamedTuple

import numpy as np

from anomaly.leaves import Floats, Ints, Leaves

HALF_LIVES = (1.0, 1.5, 2.0, 3.0, 5.0, 8.0)
#: Windows needed before their errors say more than the window itself.
MIN_WINDOWS = 3
#: A log ratio of everything to nothing, made finite.
_CEILING = 0.96
#: The spread of one leaf is known from a few windows only: leaves of its size count as this many more.
_POOLED_WINDOWS = 20
_NEIGHBOURS = 51
_MIN_SPREAD, _MAX_SPREAD, _UNKNOWN_SPREAD = 0.02, 0.5, 0.3
#: Variance of a leaf that cost nothing then and now: it says nothing.
_SILENT = 1e6
#: Median absolute deviation of a standard normal.
_MAD = 0.6745


class Deviations(NamedTuple):
    expected: Floats
    y: Floats  # deviation per leaf
    variance: Floats  # of the leaf on its own
    together: Floats  # variance that values of each dimension share
    common: float  # variance that all leaves share
    logs: bool  # log ratios, or relative to the larger amount

    def amounts(self, shift: Floats) -> Floats:
        """What the leaves would cost if they deviated by ``shift`` from what is expected."""
        if self.logs:
            return np.asarray(self.expected * np.exp(shift))
        up, down = np.clip(shift, 0.0, 0.98), np.clip(shift, -1.0, 0.0)
        return np.asarray(self.expected * (1.0 + down) / (1.0 - up))


def deviations(leaves: Leaves) -> Deviations:
    if len(leaves.earlier) >= MIN_WINDOWS:
        return _from_history(leaves)
    return _from_one_forecast(leaves)


def _log_ratio(actual: Floats, expected: Floats) -> Floats:
    total = actual + expected
    half = np.divide(actual - expected, total, out=np.zeros_like(total), where=total > 0)
    return np.asarray(2.0 * np.arctanh(_CEILING * half))


def _relative(actual: Floats, expected: Floats) -> Floats:
    top = np.maximum(actual, expected)
    return np.divide(actual - expected, top, out=np.zeros_like(top), where=top > 0)


# --- with a history


def _from_history(leaves: Leaves) -> Deviations:
    earlier, ages = leaves.earlier, leaves.ages
    half_life, errors = _best_half_life(earlier, ages)
    expected = _level(earlier, ages, half_life)
    own = (errors**2).mean(axis=0)
    count = len(errors)
    variance = (_POOLED_WINDOWS * _of_its_size(own, expected) + count * own) / (_POOLED_WINDOWS + count)
    common = max(0.0, _shared(errors, np.zeros(len(own), dtype=np.int64)))
    together = np.array([max(0.0, _shared(errors, codes) - common) for codes in leaves.codes])
    alone = np.maximum(variance - together.sum() - common, 0.3 * variance)
    y = _log_ratio(leaves.actual, expected)
    return Deviations(expected, y, _mute(alone, leaves.actual, expected), together, common, logs=True)


def _level(earlier: Floats, ages: Floats, half_life: float) -> Floats:
    weight = 0.5 ** (ages / half_life)
    return np.asarray((weight / weight.sum()) @ earlier)


def _best_half_life(earlier: Floats, ages: Floats) -> tuple[float, Floats]:
    """The half-life whose one-step forecasts of these windows were best, and their errors."""
    known = earlier.sum(axis=0) > 0
    best: tuple[float, float, Floats] | None = None
    for half_life in HALF_LIVES:
        errors = np.array(
            [
                _log_ratio(earlier[i], _level(earlier[i + 1 :], ages[i + 1 :] - ages[i], half_life))
                for i in range(len(earlier) - 1)
            ]
        )
        miss = float(np.median(np.abs(errors[:, known]))) if known.any() else 0.0
        if best is None or miss < best[0]:
            best = (miss, half_life, errors)
    assert best is not None
    return best[1], best[2]


def _of_its_size(own: Floats, expected: Floats) -> Floats:
    """The mean of ``own`` over the leaves nearest in expected cost: small leaves are restless."""
    order = np.argsort(expected, kind="stable")
    half = _NEIGHBOURS // 2
    padded = np.pad(own[order], half, mode="edge")
    smooth = np.empty_like(own)
    smooth[order] = np.convolve(padded, np.ones(_NEIGHBOURS) / _NEIGHBOURS, mode="valid")
    return smooth


def _shared(errors: Floats, group: Ints) -> float:
    """Mean product of the errors of two leaves of one group in one window: the variance they share."""
    size = np.bincount(group).astype(np.float64)
    pairs = float((size * (size - 1)).sum()) * len(errors)
    if not pairs:
        return 0.0
    products = 0.0
    for error in errors:
        total = np.bincount(group, error)
        products += float((total**2 - np.bincount(group, error**2)).sum())
    return products / pairs


# --- with one forecast


def _from_one_forecast(leaves: Leaves) -> Deviations:
    count = len(leaves.actual)
    expected = leaves.earlier.mean(axis=0) if len(leaves.earlier) else np.zeros(count)
    y = _relative(leaves.actual, expected)
    spread = _quiet_spread(y[(leaves.actual + expected) > 0])
    variance = _mute(np.full(count, spread**2), leaves.actual, expected)
    return Deviations(expected, y, variance, np.zeros(len(leaves.dims)), 0.0, logs=False)


def _quiet_spread(y: Floats) -> float:
    """Standard deviation of the deviations that no cause touched: of the side of zero with the smaller ones."""
    sides = [np.abs(side) for side in (y[y >= 0], y[y <= 0]) if len(side) * 10 >= max(len(y), 1)]
    spread = min((float(np.median(side)) / _MAD for side in sides if len(side)), default=_UNKNOWN_SPREAD)
    return float(np.clip(spread, _MIN_SPREAD, _MAX_SPREAD))


def _mute(variance: Floats, actual: Floats, expected: Floats) -> Floats:
    return np.where(actual + expected > 0, variance, _SILENT)
