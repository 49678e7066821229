"""p-values of the statistics of two distribution functions, from the law that fits the data.

fewer than 200 values on a side      permutations of the smaller side's places
two distinct values                  their exact law
nearly all rows at one value         drawn tables of counts
else                                 the limit law, with the eigenvalues that the ties imply
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy import special

from dpdq.distance._laws import (
    cell_eigenvalues,
    continuous_tail,
    two_by_two_pvalue,
    weighted_chi2_tail,
)
from dpdq.distance._sweep import Sweep

__all__ = [
    "SMALL_SIDE",
    "asymptotic_pvalue",
    "permutation_pvalue",
    "permutation_share",
    "rank_statistic_of_counts",
    "rank_test",
]

SMALL_SIDE = 200  # fewer values than this on a side: permutations
_EXPECTED_BESIDE = 20  # rows of the smaller side beside the commonest value
_TIES = 1e-9  # statistics this close (relatively) count as equal


def rank_test(
    s: np.ndarray,
    t: np.ndarray,
    swept: Sweep,
    test: str,
    n_permutations: int,
    generator: np.random.Generator,
) -> tuple[float, str]:
    """The p-value of two sorted samples, and where it comes from."""
    n, m = len(s), len(t)
    if swept.few and len(swept.heavy_values) == 2:
        a = int(swept.heavy_q[0])  # every statistic grows with the distance from its mean
        return two_by_two_pvalue(a, n, m, a + int(swept.heavy_p[0])), "exact law"
    if min(n, m) < SMALL_SIDE:
        pvalue = permutation_pvalue(s, t, test, n_permutations, generator)
        return pvalue, f"{n_permutations} permutations"
    largest = int((swept.heavy_q + swept.heavy_p).max(initial=0))
    if (n + m - largest) * min(n, m) < _EXPECTED_BESIDE * (n + m) and n + m < 10**9:
        pvalue = _drawn_pvalue(s, t, swept, test, n_permutations, generator)
        return pvalue, f"{n_permutations} permutations"
    return asymptotic_pvalue(swept, test), "limit law"


def _drawn_pvalue(
    s: np.ndarray,
    t: np.ndarray,
    swept: Sweep,
    test: str,
    n_permutations: int,
    generator: np.random.Generator,
) -> float:
    """Permutation p-value of two samples that nearly all stand at one value, by drawn counts."""
    a, b = swept.heavy_q, swept.heavy_p
    if not swept.few:  # the values beside the common one in at most 100 cells
        common = swept.heavy_values[np.argmax(a + b)]
        beside = np.sort(np.concatenate([s[s != common], t[t != common]]))
        ranks = np.ceil(len(beside) * np.arange(1, 101) / 100).astype(np.int64) - 1
        under = beside[beside < common]
        cuts = np.unique(np.concatenate([beside[ranks], under[-1:], [common]]))
        a, b = (
            np.diff(np.append(np.searchsorted(x, cuts, side="right"), len(x)), prepend=0)
            for x in (s, t)
        )
    if int(a.sum()) > int(b.sum()):
        a, b = b, a
    seen = float(rank_statistic_of_counts(a, b, test))
    drawn = generator.multivariate_hypergeometric(
        a + b, int(a.sum()), size=n_permutations, method="marginals"
    )
    return permutation_share(rank_statistic_of_counts(drawn, a + b - drawn, test), seen)


def asymptotic_pvalue(swept: Sweep, test: str) -> float:
    """The p-value of a statistic from its limit law, ties included."""
    n, m = swept.n, swept.m
    total = n + m
    value = swept.statistic(test)
    if swept.few and len(swept.heavy_values) < 2:
        return 1.0
    if test == "ks":
        return max(float(special.kolmogorov(math.sqrt(n * m / total) * value)), 1e-300)
    value *= (total - 1) / total  # the variance of F - G under permutation has N - 1 below
    if len(swept.heavy_values) == 0:
        return continuous_tail(value, test)
    h, mass = _law_nodes(swept)
    return weighted_chi2_tail(value, cell_eigenvalues(h, mass, test))


def _law_nodes(swept: Sweep) -> tuple[np.ndarray, np.ndarray]:
    """Where the limit process is seen: heavy values as they are, cells of at most 1/128 between."""
    total = swept.n + swept.m
    ends = swept.heavy_below / total
    masses = (swept.heavy_q + swept.heavy_p) / total
    nodes: list[np.ndarray] = []
    weights: list[np.ndarray] = []
    at = 0.0
    for end, mass in zip([*ends, 1.0], [*masses, 0.0], strict=True):
        length = end - mass - at
        if length > 0.5 / total:
            cells = math.ceil(length * 128)
            nodes.append(at + (np.arange(cells) + 0.5) * (length / cells))
            weights.append(np.full(cells, length / cells))
        if mass > 0 and end < 1 - 0.5 / total:
            nodes.append(np.array([end]))
            weights.append(np.array([mass]))
        at = end
    return np.concatenate(nodes), np.concatenate(weights)


def choose_rows(total: int, size: int, repeats: int, generator: np.random.Generator) -> np.ndarray:
    """``repeats`` draws of ``size`` out of ``total`` without replacement, each row sorted."""
    if size * 4 >= total or total <= 2000:
        keys = generator.random((repeats, total))
        rows = (
            np.argpartition(keys, size - 1, axis=1)[:, :size]
            if size < total
            else np.tile(np.arange(total), (repeats, 1))
        )
    else:
        rows = np.empty((repeats, size), dtype=np.int64)
        for b in range(repeats):
            rows[b] = generator.choice(total, size=size, replace=False, shuffle=False)
    return np.sort(rows, axis=1)


def permutation_pvalue(
    s: np.ndarray,
    t: np.ndarray,
    test: str,
    n_permutations: int,
    generator: np.random.Generator,
) -> float:
    """(1 + permutations at least as far) / (B + 1), exact for every size and tie pattern."""
    # the drawn side is the smaller one; at equal sizes either gives the same numbers, since the
    # statistics do not change when q and p are exchanged
    small, large = (s, t) if len(s) <= len(t) else (t, s)
    n, m = len(small), len(large)
    total = n + m
    pooled = np.sort(np.concatenate([small, large]), kind="stable")
    is_new = np.empty(total, dtype=bool)
    is_new[0] = True
    np.not_equal(pooled[1:], pooled[:-1], out=is_new[1:])
    atom = np.cumsum(is_new) - 1
    upto = np.append(np.flatnonzero(is_new)[1:], total)
    n_atoms = len(upto)
    if n_atoms < 2:
        return 1.0
    drawn = atom[choose_rows(total, n, n_permutations, generator)]
    observed = np.searchsorted(pooled[is_new], small)[None, :]
    statistic = _ks_of_places(upto, n, m) if test == "ks" else _sums_of_places(upto, n, m, test)
    seen = float(statistic(observed)[0])
    return permutation_share(statistic(drawn), seen)


def permutation_share(null: np.ndarray, seen: float) -> float:
    """(1 + how many of ``null`` reach ``seen``) / (B + 1), ties within 1e-9 reaching it."""
    reached = int(np.count_nonzero(null >= seen - _TIES * max(1.0, abs(seen))))
    return (1 + reached) / (len(null) + 1)


def _ks_of_places(upto: np.ndarray, n: int, m: int) -> Callable[[np.ndarray], np.ndarray]:
    h = np.concatenate([[0.0], upto / (n + m)])  # h[k] = H just before atom k

    def statistic(places: np.ndarray) -> np.ndarray:
        rank = np.arange(n) / n
        # F - H is extreme just before a jump and at it; in runs of ties only their ends count
        first = np.ones(places.shape, dtype=bool)
        np.not_equal(places[:, 1:], places[:, :-1], out=first[:, 1:])
        last = np.ones(places.shape, dtype=bool)
        last[:, :-1] = first[:, 1:]
        before = np.where(first, np.abs(rank - h[places]), 0.0)
        after = np.where(last, np.abs(rank + 1 / n - h[places + 1]), 0.0)
        return np.maximum(before.max(axis=1), after.max(axis=1)) * ((n + m) / m)

    return statistic


def _sums_of_places(
    upto: np.ndarray, n: int, m: int, test: str
) -> Callable[[np.ndarray], np.ndarray]:
    total = n + m
    h = upto / total
    weight = np.diff(h, prepend=0.0)
    if test == "ad":
        weight[:-1] /= h[:-1] * (1 - h[:-1])
        weight[-1] = 0.0
    sums = [np.concatenate([[0.0], np.cumsum(weight * h**power)]) for power in (0, 1, 2)]

    def statistic(places: np.ndarray) -> np.ndarray:
        edge = np.zeros((len(places), 1), dtype=places.dtype)
        bounds = np.concatenate([edge, places, edge + len(upto)], axis=1)
        level = np.arange(n + 1) / n  # F between two drawn places
        zero, one, two = (np.diff(part[bounds], axis=1) for part in sums)
        value = (level * (level * zero - 2 * one) + two).sum(axis=1)
        return value * (n * total / m)  # F - G = (F - H) N / m

    return statistic


# ---------------------------------------------------------------- the same statistics on counts


def rank_statistic_of_counts(counts_q: np.ndarray, counts_p: np.ndarray, test: str) -> np.ndarray:
    """A rank statistic of ordered cells; counts are (..., cells). Zero where a side is empty."""
    n = counts_q.sum(axis=-1, keepdims=True).astype(np.float64)
    m = counts_p.sum(axis=-1, keepdims=True).astype(np.float64)
    total = n + m
    safe_n, safe_m, safe_total = np.maximum(n, 1), np.maximum(m, 1), np.maximum(total, 1)
    gap = np.cumsum(counts_q, axis=-1) / safe_n - np.cumsum(counts_p, axis=-1) / safe_m
    if test == "ks":
        value = np.abs(gap).max(axis=-1)
    else:
        pooled = counts_q + counts_p
        h = np.cumsum(pooled, axis=-1) / safe_total
        mass = pooled / safe_total
        spread = h * (1 - h) if test == "ad" else np.ones_like(h)
        inside = (h > 0) & (h < 1 - 0.5 / safe_total) if test == "ad" else np.ones_like(h, bool)
        term = np.where(inside, gap**2 * mass / np.where(inside, spread, 1.0), 0.0)
        value = (n * m / safe_total)[..., 0] * term.sum(axis=-1)
    return np.where((n[..., 0] > 0) & (m[..., 0] > 0), value, 0.0)
