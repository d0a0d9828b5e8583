"""Which few slices explain the deviations of all leaves: stepwise regression with a price per cause.

Model: the deviation of a leaf = the shifts of the causes it lies in + what its values' other leaves share that day
+ noise of its own. The causes are sought that lower the description length most: half the squared deviation
explained (in units of its variance, given the other causes) must exceed what it costs to name the slice, and naming
a slice that holds little of the money costs more. Each found cause is then reconsidered given the others, so that a
wide slice chosen first gives way to the two narrow ones inside it.

"Everything moved alike" competes as a cause of its own. It is refused when part of the leaves stood still.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from anomaly.deviation import Deviations
from anomaly.leaves import Bools, Floats
from anomaly.slices import Slices

#: The number that stands for "everything".
EVERYTHING = -1
MAX_CAUSES = 14
#: Description length in nats beside the slice's own: its shift, and the freedom of choosing at all.
_CAUSE_COST = 3.0
_EVERYTHING_COST = 8.0
#: A slice with a tenth of the changed money costs nothing more; with the smallest share that counts, 1.4 nats more;
#: with all of it, 4.6 nats less.
_MONEY_WEIGHT, _MONEY_BASE, _MONEY_FLOOR = 2.0, 0.1, 0.05
#: Prior variance of a cause's shift.
_SHIFT_VARIANCE = 9.0
#: Leaves of one cause do not move by exactly the same ratio.
_RAGGED = 0.05
#: "Everything" is not everything when this share of the leaves moved less than 0.3 of the common shift.
_STILL_SHARE, _STILL_SHIFT = 0.1, 0.3


class Found(NamedTuple):
    """The chosen slices with the shift of each and how strongly the data speak for it (nats)."""

    chosen: list[int]
    shifts: Floats
    evidence: Floats
    length: float  # the description length that they save, up to a constant


class Fit(NamedTuple):
    columns: Floats
    weighted: Floats
    covariance: Floats
    beta: Floats


class Search:
    def __init__(self, slices: Slices, deviations: Deviations, actual: Floats, shared: Sequence[tuple[Bools, float]]):
        """``shared``: sets of leaves that move together, with the variance they share."""
        self.slices, self.actual, self.data = slices, actual, deviations
        self.shared = np.array([mask for mask, _ in shared], dtype=np.float64).T.reshape(len(actual), len(shared))
        self.shared_precision = np.array([1.0 / variance for _, variance in shared])
        change = actual - deviations.expected
        self.change = max(abs(float(change.sum())), float(np.abs(change).sum()) / 4.0, 1e-12)

    def best(self) -> Found:
        found = self.run(everything=True)
        if EVERYTHING not in found.chosen:
            return found
        narrow = self.run(everything=False)
        return narrow if narrow.length > found.length or self._something_stood_still(found) else found

    def run(self, *, everything: bool) -> Found:
        """Forward steps; after each, causes that no longer pay are dropped and the others reconsidered."""
        chosen: list[int] = []
        weight = 1.0 / self.data.variance
        for _ in range(2 * MAX_CAUSES):
            number, gain = self._best_addition(chosen, weight, everything)
            if gain <= 0.0 or len(chosen) >= MAX_CAUSES:
                break
            chosen = self._without_idle([*chosen, number], weight)
            weight = self._weights(chosen, weight)
            chosen, weight = self._reconsider(chosen, weight, everything)
        return self._found(chosen, weight)

    # --- one step

    def _best_addition(self, chosen: list[int], weight: Floats, everything: bool) -> tuple[int, float]:
        gains, gain_of_all = self._gains(chosen, weight)
        number = int(np.argmax(gains)) if len(gains) else EVERYTHING
        best = float(gains[number]) if len(gains) else -np.inf
        if everything and EVERYTHING not in chosen and gain_of_all > best:
            return EVERYTHING, gain_of_all
        return number, best

    def _gains(self, chosen: list[int], weight: Floats) -> tuple[Floats, float]:
        """What adding each slice, and everything, would save given the chosen ones."""
        fit = self._fit(chosen, weight)
        residual = weight * self.data.y - fit.weighted @ fit.beta
        overlap = self.slices.sums(fit.weighted)
        known = self.slices.sum(weight) - np.einsum("ij,jk,ik->i", overlap, fit.covariance, overlap)
        known = np.maximum(known, 1e-9)
        explained = 0.5 * self.slices.sum(residual) ** 2 / (known + 1.0 / _SHIFT_VARIANCE)
        left = self.actual - self.data.amounts(self._shift(chosen, fit))
        gains = explained - self.slices.surprise - _CAUSE_COST + self._money_bonus(self.slices.sum(left))
        gains[~self.slices.usable] = -np.inf
        gains[[number for number in chosen if number != EVERYTHING]] = -np.inf
        total = fit.weighted.sum(axis=0)
        known_of_all = max(float(weight.sum() - total @ fit.covariance @ total), 1e-9)
        of_all = 0.5 * float(residual.sum()) ** 2 / (known_of_all + 1.0 / _SHIFT_VARIANCE)
        return gains, of_all - _EVERYTHING_COST

    def _without_idle(self, chosen: list[int], weight: Floats) -> list[int]:
        """The chosen causes less those that no longer pay for their name, the idlest first."""
        while len(chosen) > 1:
            fit = self._fit(chosen, weight)
            savings = self._evidence(chosen, fit) - self._costs(chosen, fit)
            idlest = int(np.argmin(savings))
            if savings[idlest] >= 0.0:
                break
            chosen = chosen[:idlest] + chosen[idlest + 1 :]
        return chosen

    def _reconsider(self, chosen: list[int], weight: Floats, everything: bool) -> tuple[list[int], Floats]:
        """Each cause but the newest is exchanged for a better one given the others."""
        for place in range(len(chosen) - 1):
            rest = chosen[:place] + chosen[place + 1 :]
            gains, gain_of_all = self._gains(rest, weight)
            current = gain_of_all if chosen[place] == EVERYTHING else float(gains[chosen[place]])
            number, best = self._best_addition(rest, weight, everything)
            if best > current + 1e-6:
                chosen = [*chosen[:place], number, *chosen[place + 1 :]]
                weight = self._weights(chosen, weight)
        return chosen, weight

    # --- the regression

    def _fit(self, chosen: Sequence[int], weight: Floats) -> Fit:
        causes = np.array([self._mask(number) for number in chosen], dtype=np.float64).T
        columns = np.hstack([self.shared, causes.reshape(len(self.actual), len(chosen))])
        precision = np.concatenate([self.shared_precision, np.full(len(chosen), 1.0 / _SHIFT_VARIANCE)])
        weighted = weight[:, None] * columns
        covariance: Floats = np.asarray(np.linalg.inv(np.diag(precision) + columns.T @ weighted), dtype=np.float64)
        return Fit(columns, weighted, covariance, covariance @ (weighted.T @ self.data.y))

    def _mask(self, number: int) -> Bools:
        return np.ones(len(self.actual), dtype=np.bool_) if number == EVERYTHING else self.slices.holds(number)

    def _shift(self, chosen: Sequence[int], fit: Fit) -> Floats:
        own = fit.columns.shape[1] - len(chosen)
        return np.asarray(fit.columns[:, own:] @ fit.beta[own:])

    def _weights(self, chosen: Sequence[int], weight: Floats) -> Floats:
        """Leaves of a cause do not follow it exactly: their variance grows with the shift."""
        shift = np.abs(self._shift(chosen, self._fit(chosen, weight)))
        ragged = np.minimum(_RAGGED, shift / 3.0)
        return np.asarray(1.0 / (self.data.variance + ragged**2))

    def _evidence(self, chosen: Sequence[int], fit: Fit) -> Floats:
        own = fit.columns.shape[1] - len(chosen)
        return np.asarray(0.5 * fit.beta[own:] ** 2 / np.diag(fit.covariance)[own:])

    def _costs(self, chosen: Sequence[int], fit: Fit) -> Floats:
        own = fit.columns.shape[1] - len(chosen)
        shift = self._shift(chosen, fit)
        costs = []
        for place, number in enumerate(chosen):
            if number == EVERYTHING:
                costs.append(_EVERYTHING_COST)
                continue
            mask = self._mask(number)
            left = self.actual - self.data.amounts(shift - fit.beta[own + place] * mask)
            bonus = self._money_bonus(np.array([left[mask].sum()]))[0]
            costs.append(float(self.slices.surprise[number]) + _CAUSE_COST - float(bonus))
        return np.array(costs)

    def _money_bonus(self, left: Floats) -> Floats:
        """Causes of an odd amount hold money: nats for a slice in which ``left`` is still unexplained."""
        share = np.clip(np.abs(left) / self.change, _MONEY_FLOOR, 1.0)
        return np.asarray(_MONEY_WEIGHT * np.log(share / _MONEY_BASE))

    # --- the end

    def _found(self, chosen: list[int], weight: Floats) -> Found:
        weight = self._weights(chosen, weight) if chosen else weight
        fit = self._fit(chosen, weight)
        evidence = self._evidence(chosen, fit)
        likelihood = -0.5 * float(weight @ self.data.y**2 - (fit.weighted.T @ self.data.y) @ fit.beta)
        likelihood += 0.5 * float(np.log(weight).sum())
        shifts = fit.beta[fit.columns.shape[1] - len(chosen) :]
        return Found(chosen, shifts, evidence, likelihood - float(self._costs(chosen, fit).sum()))

    def moved_alike(self, found: Found) -> bool:
        """Whether the causes together say that nearly all leaves moved by about the same ratio.

        Naming every model with the same shift says no more than "everything".
        """
        shift = self._shift_of_leaves(found)
        common = float(np.median(shift)) if len(shift) else 0.0
        return common != 0.0 and bool((np.abs(shift - common) < 0.5 * abs(common)).mean() >= 1.0 - _STILL_SHARE)

    def _something_stood_still(self, found: Found) -> bool:
        common = abs(float(found.shifts[found.chosen.index(EVERYTHING)]))
        still = np.abs(self._shift_of_leaves(found)) < _STILL_SHIFT * common
        return bool(still.mean() > _STILL_SHARE) if len(still) else False

    def _shift_of_leaves(self, found: Found) -> Floats:
        """The fitted shift of each leaf that cost anything."""
        live = self.actual + self.data.expected > 0
        masks = np.array([self._mask(number) for number in found.chosen], dtype=np.float64)
        return np.asarray(found.shifts @ masks.reshape(len(found.chosen), len(live)))[live]
