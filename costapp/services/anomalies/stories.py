"""Which odd series are one story: a feature, its model and its team show the same money."""

from collections.abc import Sequence
from datetime import timedelta
from typing import NamedTuple

from costapp.services.anomalies.series import TELLING, TOO_LITTLE, Odd
from costapp.storage.reports.anomaly_cells import Leaf

#: Anomalies that begin and end this close to each other may be one.
SLACK = timedelta(hours=6)
#: Two series are one story when they share this part of the smaller one's money above expectation, in percent.
SHARED_PERCENT = 50


class Story(NamedTuple):
    """What is told (``lead``) and the other series that show the same money."""

    lead: Odd
    members: tuple[Odd, ...]  # the lead not included

    @property
    def slices(self) -> set[tuple[str, str]]:
        return {(odd.dimension, odd.value) for odd in (self.lead, *self.members)}


class Excess:
    """How much a window's leaves cost more than in the mean of the days before, to see which series share it."""

    def __init__(self, leaves: Sequence[Leaf], dimensions: Sequence[str], odd: Odd, cost: int) -> None:
        """``cost``: place of the cost among the leaves' amounts."""
        self._place = {key: i for i, key in enumerate(dimensions)}
        self._amounts: dict[tuple[str, ...], int] = {}
        earlier = [leaf for leaf in leaves if leaf.bucket_at < odd.start_at]
        days = len({leaf.bucket_at.date() for leaf in earlier}) or 1
        for leaf in leaves:
            inside = leaf.bucket_at >= odd.start_at
            # in units of one n-th, so that integers stay integers
            amount = leaf.amounts[cost] * (days if inside else -1)
            self._amounts[leaf.values] = self._amounts.get(leaf.values, 0) + amount

    def of(self, *odds: Odd) -> int:
        """What the calls that lie in all these series cost more (or less) than before."""
        wanted = [(self._place[odd.dimension], odd.value) for odd in odds if odd.dimension in self._place]
        return sum(amount for values, amount in self._amounts.items() if all(values[i] == value for i, value in wanted))


def in_telling_order(odds: Sequence[Odd]) -> list[Odd]:
    """Features before models before the whole, and the most money first."""
    return sorted(odds, key=lambda odd: (TELLING.index(odd.dimension), -abs(odd.above_nano), odd.value, odd.start_at))


def same_money(excess: Excess, lead: Odd, other: Odd) -> bool:
    if (lead.anomaly.kind in TOO_LITTLE) != (other.anomaly.kind in TOO_LITTLE):
        return False
    smaller = min(abs(excess.of(lead)), abs(excess.of(other)))
    return abs(excess.of(lead, other)) * 100 >= SHARED_PERCENT * smaller > 0
