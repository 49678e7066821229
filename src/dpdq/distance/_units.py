"""Permutations that move whole units: groups of rows, or blocks of time.

Rows of one unit (a customer, a day) resemble each other, so that permuting rows finds differences
everywhere. Under q = p the units are exchangeable: units that stand on one side only trade sides as
wholes, and within a unit that stands on both sides its two parts trade places. The first keeps the
number of units a side, the second keeps pairs. Every statistic is a function of counts in cells,
counts are sums over units, and so all permutations are one matrix product.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dpdq.distance._rank_laws import permutation_share

__all__ = ["UnitCounts", "pooled_cells", "unit_pvalue"]

_GRID = 200
_ENTRIES = 4_000_000  # of a matrix in memory


class Units:
    """The units of both sides as numbers 0 .. n_units - 1."""

    def __init__(self, units_q: np.ndarray, units_p: np.ndarray) -> None:
        names, number = np.unique(np.concatenate([units_q, units_p]), return_inverse=True)
        self.n_units = len(names)
        self.q = number[: len(units_q)]
        self.p = number[len(units_q) :]
        in_q = np.bincount(self.q, minlength=self.n_units) > 0
        in_p = np.bincount(self.p, minlength=self.n_units) > 0
        self.both = in_q & in_p
        self.only_q = in_q & ~in_p

    @property
    def grid(self) -> int:
        """How many cells of an ordered column fit in memory."""
        return int(max(20, min(_GRID, _ENTRIES // max(1, self.n_units))))


class UnitCounts:
    """Rows of each unit in each cell, on both sides; cell -1 is left out."""

    def __init__(self, units: Units, cells_q: np.ndarray, cells_p: np.ndarray, k: int) -> None:
        self.units = units
        self.q = _table(units.q, cells_q, units.n_units, k)
        self.p = _table(units.p, cells_p, units.n_units, k)


def _table(unit: np.ndarray, cell: np.ndarray, n_units: int, k: int) -> np.ndarray:
    there = cell >= 0
    flat = np.bincount(unit[there] * k + cell[there], minlength=n_units * k)
    return flat.reshape(n_units, k)


def pooled_cells(
    values_q: np.ndarray, values_p: np.ndarray, most: int
) -> tuple[np.ndarray, np.ndarray, int]:
    """Cells of both sides' values between quantiles of the pooled values, at most ``most``."""
    pooled = np.sort(np.concatenate([values_q, values_p]))
    ranks = np.ceil(len(pooled) * np.arange(1, most) / most).astype(np.int64) - 1
    cuts = np.unique(pooled[np.maximum(ranks, 0)])
    cuts = cuts[cuts < pooled[-1]]  # each cell ends at its cut, the last at the largest value
    return np.searchsorted(cuts, values_q), np.searchsorted(cuts, values_p), len(cuts) + 1


def unit_pvalue(
    counts: UnitCounts,
    statistic: Callable[[np.ndarray, np.ndarray], np.ndarray],
    n_permutations: int,
    generator: np.random.Generator,
) -> float:
    """(1 + permutations of units at least as far) / (B + 1)."""
    units = counts.units
    single = ~units.both
    alone = (counts.q + counts.p)[single].astype(np.float64)
    label = units.only_q[single].astype(np.float64)
    paired_q = counts.q[units.both].astype(np.float64)
    paired_p = counts.p[units.both].astype(np.float64)
    total = alone.sum(axis=0) + paired_q.sum(axis=0) + paired_p.sum(axis=0)
    at_q = label @ alone + paired_q.sum(axis=0)
    seen = float(statistic(at_q, total - at_q))
    null = np.empty(n_permutations)
    step = max(1, _ENTRIES // max(1, units.n_units, alone.shape[1]))
    for start in range(0, n_permutations, step):
        size = min(step, n_permutations - start)
        drawn = generator.permuted(np.tile(label, (size, 1)), axis=1) @ alone
        if len(paired_q):
            stays = generator.integers(0, 2, size=(size, len(paired_q))).astype(np.float64)
            drawn += stays @ (paired_q - paired_p) + paired_p.sum(axis=0)
        null[start : start + size] = statistic(drawn, total - drawn)
    return permutation_share(null, seen)
