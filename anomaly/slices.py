"""Every slice of a table: each value of a dimension and each combination of values that occurs.

`feature=chat` is a slice, `feature=chat and model=gpt-5` another. Sums over all slices are one `bincount`.
"""

from itertools import combinations
from typing import Any

import numpy as np

from anomaly.leaves import Bools, Floats, Ints, Leaves

#: With more dimensions than this, combinations stop at pairs: a sentence with more names nothing.
DEEP_DIMENSIONS = 6


class Slices:
    """Numbered 0 ... ``count`` - 1, the plainest (fewest dimensions) first.

    ``usable`` leaves out slices that hold every leaf, and all but the plainest of those that hold the same leaves.
    ``surprise`` is minus the log of the chance to name the slice blindly: first a set of dimensions, then values.
    """

    def __init__(self, leaves: Leaves) -> None:
        dims, leaf_count = leaves.codes.shape
        depth = dims if dims <= DEEP_DIMENSIONS else 2
        self.leaf_count = int(leaf_count)
        self.cuboids = [chosen for size in range(1, depth + 1) for chosen in combinations(range(dims), size)]
        sizes = leaves.codes.max(axis=1, initial=0) + 1
        rows, first, per_cuboid, base = [], [], [], 0
        for chosen in self.cuboids:
            key = np.ravel_multi_index(list(leaves.codes[list(chosen)]), [int(sizes[d]) for d in chosen])
            _, example, inverse = np.unique(key, return_index=True, return_inverse=True)
            rows.append(inverse + base)
            first.append(example)
            per_cuboid.append(len(example))
            base += len(example)
        self.count = base
        self._ids: Ints = np.array(rows, dtype=np.int64).reshape(len(self.cuboids), leaf_count)
        self._flat = self._ids.ravel()
        self.cuboid_of = np.repeat(np.arange(len(self.cuboids)), per_cuboid)
        self._example: Ints = np.concatenate(first) if first else np.zeros(0, dtype=np.int64)
        self.surprise: Floats = np.log(np.repeat(per_cuboid, per_cuboid)) + np.log(max(len(self.cuboids), 1))
        self.usable = self._plainest() & (self.sum(np.ones(leaf_count)) < leaf_count)

    def sum(self, amounts: Floats) -> Floats:
        """The sum of ``amounts`` (one per leaf) in every slice."""
        weights = np.tile(amounts, len(self.cuboids))
        return np.asarray(np.bincount(self._flat, weights, minlength=self.count), dtype=np.float64)

    def sums(self, columns: Floats) -> Floats:
        """The same for several columns: [leaf, column] to [slice, column]."""
        return np.array([self.sum(column) for column in columns.T]).T.reshape(self.count, columns.shape[1])

    def holds(self, number: int) -> Bools:
        """Which leaves the slice holds."""
        return np.asarray(self._ids[self.cuboid_of[number]] == number)

    def name(self, number: int, leaves: Leaves) -> dict[str, Any]:
        return leaves.where(int(self._example[number]), self.cuboids[self.cuboid_of[number]])

    def _plainest(self) -> Bools:
        """One slice for each set of leaves. Sets are told apart by the sum of a random number per leaf."""
        marks: Floats = np.random.default_rng(5).random((self.leaf_count,))
        sums: Floats = np.round(self.sum(marks), 9)
        _, first = np.unique(sums, return_index=True)
        plainest = np.zeros(self.count, dtype=np.bool_)
        plainest[first] = True
        return plainest
