"""Permutation tests of statistics that are quadratic in the labels.

Pool the rows, z = (q_1, ..., q_n, p_1, ..., p_m). Every two-sample statistic of this module is a
function of the sums

    S_qq = sum_{i != j in q} k_ij,    S_pp,    S_qp = sum_{i in q, j in p} k_ij,

and a permutation changes only which rows are called q. Three facts make that cheap and exact.

*Any subgroup will do.* If the law of the data does not change under a group of row permutations,
the p-value (1 + #{b: T_b >= T_0}) / (B + 1) over random members of the group is valid at every n:
P(p <= alpha) <= alpha. The group need not hold all permutations. So rows are put, by chance and
within their side, into m equal *blocks*, and whole blocks change sides (Domingo-Enrich, Dwivedi
and Mackey 2025). The kernel is then needed once, as the m x m matrix of its block sums G, and one
permutation costs O(m^2) instead of O(n^2), a matrix product a G a' with a the 0/1 labels of
blocks. With a few hundred blocks the null law, and so the power, is that of permuting rows. Up to
`MAX_BLOCKS` rows a block is a row.

*Units stay whole.* Where rows belong together (a patient, a session, a day), rows are not
exchangeable but units are: a unit that stands on one side only may change sides with others of its
kind, and a unit that stands on both sides may have its two parts swapped. Blocks are then bundles
of units; n_q and n_p are counted anew for each permutation.

*What is chosen from the data must not look at labels.* Bandwidths, scales and normalisers are
functions of the pooled rows or of the whole set of block sums.

Rows that do not fill a block, and rows of a side that is more than some times larger than the
other, keep their label in every permutation: that, too, is a subgroup.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import numpy as np

from dpdq.errors import DataError, OptionError

__all__ = [
    "MAX_BLOCKS",
    "PermutationDesign",
    "permutation_design",
    "permutation_pvalue",
    "stopped_pvalue",
]

ROWS_ALONE = 1024  # up to so many exchangeable rows or units, each is its own block
MAX_BLOCKS = 512  # above: G stays small, and the null law of blocks is that of rows
MIN_SMALL = 96  # blocks of the smaller side, where the larger one must be cut short


@dataclasses.dataclass(frozen=True)
class PermutationDesign:
    """Which rows move together, and who is called q in each permutation.

    Attributes
    ----------
    order
        Pooled row numbers (q first), block after block, shape (N,).
    starts
        Where each block starts in ``order``, and N: shape (m + 1,).
    labels
        Shape (B + 1, m), 1.0 where a block is called q; the first row is what was observed.
    log_arrangements
        Logarithm of the number of distinct arrangements of labels.
    unit
        What is permuted: ``"row"``, ``"block of rows"``, ``"unit"`` or ``"block of units"``.
    paired
        Whether some units stand on both sides.
    """

    order: np.ndarray
    starts: np.ndarray
    labels: np.ndarray
    log_arrangements: float
    unit: str
    paired: bool = False

    @property
    def sizes(self) -> np.ndarray:
        """Rows in each block."""
        return np.diff(self.starts)

    @property
    def smallest_pvalue(self) -> float:
        """The smallest p-value that these blocks and this many permutations can give."""
        return max(1.0 / len(self.labels), math.exp(-min(self.log_arrangements, 700.0)))

    @property
    def by_unit(self) -> bool:
        """Whether units, not rows, are exchangeable."""
        return "unit" in self.unit

    def part(self, rows_per_block: int) -> PermutationDesign:
        """The same permutations on at most so many rows of each block."""
        sizes = np.minimum(self.sizes, rows_per_block)
        starts = np.concatenate([[0], np.cumsum(sizes)])
        within = np.arange(starts[-1]) - np.repeat(starts[:-1], sizes)
        order = self.order[np.repeat(self.starts[:-1], sizes) + within]
        return dataclasses.replace(self, order=order, starts=starts)


def _check_units(units: np.ndarray | None, n: int, side: str) -> np.ndarray | None:
    if units is None:
        return None
    units = np.asarray(units)
    if units.shape != (n,) or units.dtype.kind not in "iu":
        raise DataError(
            f"units_{side} has shape {units.shape} and type {units.dtype}; "
            f"expected one integer for each of the {n} rows of {side}"
        )
    return units


def permutation_design(
    n_q: int,
    n_p: int,
    *,
    n_permutations: int,
    units_q: np.ndarray | None = None,
    units_p: np.ndarray | None = None,
    max_blocks: int = MAX_BLOCKS,
    rng: np.random.Generator,
) -> PermutationDesign:
    """Draw the blocks and the labels of a permutation test.

    Parameters
    ----------
    n_q, n_p
        Rows on each side.
    n_permutations
        B.
    units_q, units_p
        Integer unit of each row, shapes (n_q,) and (n_p,); both or neither. Units only on one
        side exchange their labels; a unit on both sides has its two parts swapped.
    max_blocks
        About how many blocks to make of more than 1,024 exchangeable rows or units.
    rng
        Draws the blocks and the permutations; never sees the data.

    Returns
    -------
    PermutationDesign
        The observed labels and B random arrangements.

    Raises
    ------
    DataError
        ``units_q`` or ``units_p`` does not name an integer for each row.
    OptionError
        ``n_permutations`` is below 1, or only one of the two units is given.
    """
    if n_permutations < 1:
        raise OptionError(f"n_permutations is {n_permutations}; expected at least 1")
    if (units_q is None) != (units_p is None):
        raise OptionError("units_q and units_p go together; give both or neither")
    units_q, units_p = _check_units(units_q, n_q, "q"), _check_units(units_p, n_p, "p")
    if units_q is None or units_p is None:
        names, unit_of = np.arange(n_q + n_p), np.arange(n_q + n_p)
    else:
        # One dtype for both: uint64 next to int64 would become float64 and merge big numbers.
        pooled = np.concatenate([units_q.astype(np.uint64), units_p.astype(np.uint64)])
        names, unit_of = np.unique(pooled, return_inverse=True)
    on_q, on_p = np.zeros(len(names), dtype=bool), np.zeros(len(names), dtype=bool)
    on_q[unit_of[:n_q]] = True
    on_p[unit_of[n_q:]] = True
    only_q = rng.permutation(np.flatnonzero(on_q & ~on_p))
    only_p = rng.permutation(np.flatnonzero(on_p & ~on_q))
    both = rng.permutation(np.flatnonzero(on_q & on_p))

    each, n_one, n_two, each_pair = _bundle_sizes(len(only_q), len(only_p), len(both), max_blocks)
    n_pairs = math.ceil(len(both) / each_pair)
    # The block of a unit's rows, by side: exchangeable q, exchangeable p, pairs, fixed q, fixed p.
    fixed = n_one + n_two + 2 * n_pairs
    block_on_q = np.full(len(names), fixed)
    block_on_p = np.full(len(names), fixed + 1)
    block_on_q[only_q[: n_one * each]] = np.arange(n_one * each) // each
    block_on_p[only_p[: n_two * each]] = n_one + np.arange(n_two * each) // each
    block_on_q[both] = n_one + n_two + 2 * (np.arange(len(both)) // each_pair)
    block_on_p[both] = block_on_q[both] + 1
    block_of = np.concatenate([block_on_q[unit_of[:n_q]], block_on_p[unit_of[n_q:]]])
    shuffled = rng.permutation(n_q + n_p)
    order = shuffled[np.argsort(block_of[shuffled], kind="stable")]
    sizes = np.bincount(block_of, minlength=fixed + 2)

    labels = np.zeros((n_permutations + 1, fixed + 2))
    labels[:, : n_one + n_two] = _random_labels(n_one, n_two, n_permutations, rng)
    swapped = rng.random((n_permutations + 1, n_pairs)) < 0.5
    swapped[0] = False
    labels[:, n_one + n_two : fixed : 2] = ~swapped
    labels[:, n_one + n_two + 1 : fixed : 2] = swapped
    labels[:, fixed] = 1.0
    kept = sizes > 0
    return PermutationDesign(
        order=order,
        starts=np.concatenate([[0], np.cumsum(sizes[kept])]),
        labels=np.ascontiguousarray(labels[:, kept]),
        log_arrangements=_log_choose(n_one + n_two, n_one) + n_pairs * math.log(2.0),
        unit=("" if max(each, each_pair) == 1 else "block of ")
        + ("row" if units_q is None else "unit")
        + ("" if max(each, each_pair) == 1 else "s"),
        paired=n_pairs > 0,
    )


def _bundle_sizes(n_q: int, n_p: int, n_both: int, max_blocks: int) -> tuple[int, int, int, int]:
    """Units of a block, blocks of q and of p, units of a pair of blocks."""
    if n_q + n_p + 2 * n_both <= ROWS_ALONE:
        return 1, n_q, n_p, 1
    each_pair = max(1, math.ceil(4 * n_both / max_blocks))
    room = max_blocks - 2 * math.ceil(n_both / each_pair)
    small, large = min(n_q, n_p), max(n_q, n_p)
    each = max(
        1, min(math.ceil((small + large) / room), small * MAX_BLOCKS // (MIN_SMALL * max_blocks))
    )
    if small == 0:
        each = max(1, large)
    n_small = small // each
    n_large = min(large // each, room - n_small)
    n_one, n_two = (n_small, n_large) if n_q <= n_p else (n_large, n_small)
    return each, n_one, n_two, each_pair


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def _random_labels(
    n_one: int, n_two: int, n_permutations: int, rng: np.random.Generator
) -> np.ndarray:
    labels = np.zeros((n_permutations + 1, n_one + n_two))
    labels[:, :n_one] = 1.0
    return np.vstack([labels[:1], rng.permuted(labels[1:], axis=1)])


def permutation_pvalue(statistics: np.ndarray, *, tolerance: float = 1e-9) -> float:
    """The p-value (1 + #{b >= 1: T_b >= T_0}) / (B + 1) of the first of B + 1 statistics.

    Parameters
    ----------
    statistics
        T_0 (observed), T_1, ..., T_B.
    tolerance
        Statistics within this part of the largest one count as tied, and a tie counts against
        the alternative.

    Returns
    -------
    float
        Never below 1 / (B + 1).

    Examples
    --------
    >>> permutation_pvalue(np.array([3.0, 1.0, 3.0, 2.0]))
    0.5
    """
    slack = tolerance * float(np.abs(statistics).max())
    count = int((statistics[1:] >= statistics[0] - slack).sum())
    return (1 + count) / len(statistics)


def stopped_pvalue(
    observed: float,
    draws: Iterator[float],
    n_permutations: int,
    *,
    exceedances: int | None = None,
    tolerance: float = 1e-9,
) -> tuple[float, int]:
    """The p-value of permutations that stop once it is clear that it will not be small.

        h / L                where the h-th statistic as large as the observed one came at draw L
        (1 + count) / (B + 1)        where all B were drawn and fewer than h came

    Under q = p it is at most alpha with probability at most alpha (Besag and Clifford 1991): draws
    and observed statistic are exchangeable, and h / L <= alpha says that the observed one is among
    the largest. With h = (B + 1) / 20 rounded up, a test at level 5 % decides as all B draws would,
    after about 40 of 199 draws when q = p.

    Parameters
    ----------
    observed
        T_0.
    draws
        T_1, T_2, ..., made when asked for; they must not depend on where it stops.
    n_permutations
        B, the most draws.
    exceedances
        h.
    tolerance
        Statistics within this part of the observed one count as tied, against the alternative.

    Returns
    -------
    tuple
        The p-value, and how many statistics were drawn.

    Examples
    --------
    >>> stopped_pvalue(1.0, iter([0.0, 2.0, 0.5, 3.0]), 199, exceedances=2)
    (0.5, 4)
    """
    h = -(-(n_permutations + 1) // 20) if exceedances is None else exceedances
    count = drawn = 0
    while drawn < n_permutations:
        value = next(draws)
        drawn += 1
        count += value >= observed - tolerance * max(abs(observed), abs(value))
        if count == h:
            return h / drawn, drawn
    return (1 + count) / (n_permutations + 1), drawn
