r"""Are the levels of a column as frequent in p as in q?

Rows fall into K levels, O_k of the n rows of q and c_k of all N = n + m. Given the c_k, the O_k
are multivariate hypergeometric under q = p, whatever the shares are; each p-value here refers to
that law.

    Pearson   X^2 = N^2 / (n m)  sum_k (O_k - n c_k / N)^2 / c_k
    G         G   = 2 sum over sides and levels  O log(O / E)

The law of X^2 is often taken to be chi-square with K - 1 degrees of freedom. With thousands of
rare levels, or with one small side, its tail is heavier than that and the test rejects too often;
so X^2 is referred to the gamma law with the exact mean and the exact variance of X^2 (Dawson) and
to the shifted gamma law that has the third cumulant too, and the larger p-value counts. Both are
the chi-square where counts are large. Two levels need no approximation: their law is summed.

Levels with fewer than five expected rows on the smaller side are pooled into one, by pooled
counts and so without a look at which side a row is from. With fewer than 200 rows on a side the
law is drawn instead, 999 tables with the same margins, and only levels of a single row are pooled.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import special

from dpdq._random import RandomState, as_generator
from dpdq.distance._laws import SMALLEST, two_by_two_pvalue
from dpdq.distance._rank_laws import SMALL_SIDE, permutation_share
from dpdq.errors import DataError
from dpdq.results import Estimate, TestResult

__all__ = ["chi2_test", "g_test", "share_difference"]

_MOST_CELLS = 100  # of a table whose law is drawn
_EXPECTED = 5.0


def level_statistic(counts_q: np.ndarray, counts_p: np.ndarray, test: str) -> np.ndarray:
    """X^2 ("chi2") or G ("g") of tables (..., K); 0 where a side is empty."""
    a, b = np.asarray(counts_q, np.float64), np.asarray(counts_p, np.float64)
    n, m = a.sum(axis=-1, keepdims=True), b.sum(axis=-1, keepdims=True)
    total = np.maximum(n + m, 1)
    c = a + b
    safe = np.where(c > 0, c, 1.0)
    if test == "chi2":
        product = np.maximum(n * m, 1)
        value = ((a - n * c / total) ** 2 / safe).sum(axis=-1) * (total**2 / product)[..., 0]
    else:
        value = np.zeros(a.shape[:-1])
        for side, size in ((a, n), (b, m)):
            expected = np.where(size > 0, size, 1) * safe / total
            logs = np.log(np.where(side > 0, side, expected) / expected)
            value = value + 2 * (side * logs).sum(axis=-1)
        value = np.maximum(value, 0.0)
    return np.where((n[..., 0] > 0) & (m[..., 0] > 0), value, 0.0)


def pool_levels(
    counts_q: np.ndarray, counts_p: np.ndarray, *, expected: float = _EXPECTED, most: int = 0
) -> np.ndarray:
    """The cell of each level, from pooled counts and the sizes of the sides alone.

    Levels with fewer than ``expected`` rows to be expected on the smaller side share the last
    cell; if that cell stays below the bound too, the rarest of the other levels joins it. Two
    levels stay two. ``most`` bounds the number of cells.
    """
    n, m = int(counts_q.sum()), int(counts_p.sum())
    pooled = counts_q + counts_p
    if len(pooled) <= 2:
        return np.arange(len(pooled))
    least = expected * (n + m) / max(1, min(n, m))
    order = np.argsort(-pooled, kind="stable")
    n_alone = int(np.count_nonzero(pooled >= least))
    if most and n_alone >= most:
        n_alone = most - 1
    rest = int(pooled[order[n_alone:]].sum())
    if 0 < rest < least and n_alone > 2:
        n_alone -= 1
    cell = np.full(len(pooled), n_alone)
    cell[order[:n_alone]] = np.arange(n_alone)
    return cell


def pool_for_test(counts_q: np.ndarray, counts_p: np.ndarray) -> np.ndarray:
    """Cells for the test: where the law is drawn, only levels that one row has are pooled."""
    n, m = int(counts_q.sum()), int(counts_p.sum())
    if 0 < min(n, m) < SMALL_SIDE:
        expected = 2 * min(n, m) / (n + m)
        return pool_levels(counts_q, counts_p, expected=expected, most=_MOST_CELLS)
    return pool_levels(counts_q, counts_p)


def cell_counts(
    counts_q: np.ndarray, counts_p: np.ndarray, cell: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Counts after pooling."""
    size = int(cell.max()) + 1 if len(cell) else 0
    a = np.bincount(cell, weights=counts_q, minlength=size)
    b = np.bincount(cell, weights=counts_p, minlength=size)
    keep = a + b > 0
    return a[keep].astype(np.int64), b[keep].astype(np.int64)


def level_pvalue(
    a: np.ndarray, b: np.ndarray, test: str, n_permutations: int, generator: np.random.Generator
) -> tuple[float, str]:
    """The p-value of a pooled table, and where it comes from."""
    n, m = int(a.sum()), int(b.sum())
    if len(a) < 2:
        return 1.0, "constant"
    if len(a) == 2:
        # X^2 and G both grow with the distance of a cell from its mean, X^2 evenly to both sides
        return two_by_two_pvalue(int(a[0]), n, m, int(a[0] + b[0])), "exact law"
    c = a + b
    draw = min(n, m) < SMALL_SIDE or (
        test == "g" and c.min() * min(n, m) < 20 * (n + m) and n + m < 10**9
    )
    if draw:
        seen = float(level_statistic(a, b, test))
        drawn = generator.multivariate_hypergeometric(
            c, min(n, m), size=n_permutations, method="marginals"
        )
        null = level_statistic(drawn, c - drawn, test)
        return permutation_share(null, seen), f"{n_permutations} permutations"
    value = float(level_statistic(a, b, test))
    if test == "g":
        total = n + m
        inverse = float(np.sum(total / c)) - 1
        williams = 1 + (total / n + total / m - 1) * inverse / (6 * total * (len(a) - 1))
        tail = float(special.chdtrc(len(a) - 1, value / williams))
        return max(tail, SMALLEST), "chi-square law"
    mean, variance = chi2_moments(n, m, c)
    two = float(special.gammaincc(mean**2 / variance, value * mean / variance))
    shape = 4 * variance**3 / _third_cumulant(n, m, c) ** 2
    place = shape + (value - mean) * math.sqrt(shape / variance)
    three = float(special.gammaincc(shape, max(place, 0.0)))
    return max(two, three, SMALLEST), "gamma law"


def chi2_moments(n: int, m: int, c: np.ndarray) -> tuple[float, float]:
    """Exact mean and variance of X^2 given the margins of a 2 x K table (N > 3)."""
    total = float(n + m)
    k = len(c)
    mean = total * (k - 1) / (total - 1)
    nu_rows = (total - 2) / (total - 1)
    nu_levels = (k - 1) * (total - k) / (total - 1)
    sigma_rows = (total * (1 / n + 1 / m) - 4) / (total - 2)
    sigma_levels = (float(np.sum(total / c)) - k**2) / (total - 2)
    variance = (
        2 * total / (total - 3) * (nu_rows - sigma_rows) * (nu_levels - sigma_levels)
        + total**2 / (total - 1) * sigma_rows * sigma_levels
    )  # fmt: skip
    return mean, variance


def _third_cumulant(n: int, m: int, c: np.ndarray) -> float:
    """Nearly the third cumulant of X^2: cells as independent binomials, less one degree."""
    total = float(n + m)
    product = n * m / total**2
    variance = c * product * (1 - c / total)
    skewness2 = (1 - 4 * product) * (1 - 2 * c / total) ** 2 / variance
    kurtosis = (1 - 6 * product) / variance
    sixth = (1 - 30 * product * (1 - 4 * product)) / variance**2
    excess = np.maximum(10 * skewness2 + 12 * kurtosis + sixth, -8.0)
    return max(8.0 * (len(c) - 1) + float(excess.sum()), 1.0)


def share_difference(hits_q: int, n: int, hits_p: int, m: int) -> Estimate:
    """Share of p less share of q, with Newcombe's 95 % interval from two Wilson intervals.

    Stays inside [-1, 1] and keeps its coverage when a share is 0 or 1, where the textbook interval
    has no width.
    """
    if n == 0 or m == 0:
        return Estimate(None, reason="a side has no rows")

    def wilson(hits: int, size: int) -> tuple[float, float, float]:
        z2 = 3.841458820694124
        share = hits / size
        centre = (share + z2 / (2 * size)) / (1 + z2 / size)
        half = math.sqrt(z2 * (share * (1 - share) + z2 / (4 * size)) / size) / (1 + z2 / size)
        return share, centre - half, centre + half

    share_q, low_q, high_q = wilson(hits_q, n)
    share_p, low_p, high_p = wilson(hits_p, m)
    difference = share_p - share_q
    return Estimate(
        difference,
        difference - math.hypot(share_p - low_p, high_q - share_q),
        difference + math.hypot(high_p - share_p, share_q - low_q),
        method="Newcombe",
    )


# ----------------------------------------------------------------------------- public functions


def _public_test(
    counts_q: np.ndarray,
    counts_p: np.ndarray,
    test: str,
    n_permutations: int,
    random_state: RandomState,
) -> TestResult:
    sides = []
    for counts, side in ((counts_q, "q"), (counts_p, "p")):
        x = np.asarray(counts)
        if x.ndim != 1 or (x < 0).any() or (x != np.round(x)).any() or x.sum() < 1:
            raise DataError(f"counts_{side} must be whole numbers of rows, one for each level")
        sides.append(x.astype(np.int64))
    if len(sides[0]) != len(sides[1]):
        raise DataError(
            f"counts_q has {len(sides[0])} levels and counts_p {len(sides[1])}; "
            "count both over the levels of both"
        )
    a, b = cell_counts(sides[0], sides[1], pool_for_test(sides[0], sides[1]))
    pvalue, how = level_pvalue(a, b, test, n_permutations, as_generator(random_state))
    return TestResult(
        statistic=float(level_statistic(a, b, test)),
        pvalue=pvalue,
        method=f"{'chi-square' if test == 'chi2' else 'G'}, {how}",
        n_q=int(a.sum()),
        n_p=int(b.sum()),
        details={"cells": len(a)},
    )


def chi2_test(
    counts_q: np.ndarray,
    counts_p: np.ndarray,
    *,
    n_permutations: int = 999,
    random_state: RandomState = None,
) -> TestResult:
    """Pearson's test that levels are as frequent in p as in q.

        X^2 = N^2 / (n m)  sum_k (O_k - n c_k / N)^2 / c_k

    Rows must be independent. Rare levels are pooled, so that a change among levels that are all
    rare is not seen.

    Parameters
    ----------
    counts_q, counts_p
        Rows of each level, shape (K,), over the levels of both sides.
    n_permutations
        Tables drawn where a side has fewer than 200 rows.
    random_state
        Seed of these.

    Returns
    -------
    TestResult
        Statistic after pooling, p-value, method; ``details["cells"]`` counts the cells.

    Raises
    ------
    DataError
        Counts that are no counts, or of different lengths.

    Notes
    -----
    Cost: O(K log K) time, O(K) memory, given the counts.
    Held by: tests/distance/test_univariate_levels.py::test_level_with_many_rare_levels

    References
    ----------
    .. [Pearson1900] On the criterion that a given system of deviations from the probable in the
       case of a correlated system of variables is such that it can be reasonably supposed to have
       arisen from random sampling. Pearson, 1900, Philosophical Magazine 50.
    .. [Dawson1954] A Simplified Expression for the Variance of the Chi-Square Function on a
       Contingency Table. Dawson, 1954, Biometrika 41.

    Examples
    --------
    >>> chi2_test(counts_q=[500, 300, 200], counts_p=[450, 300, 250]).pvalue < 0.05
    True
    """
    return _public_test(counts_q, counts_p, "chi2", n_permutations, random_state)


def g_test(
    counts_q: np.ndarray,
    counts_p: np.ndarray,
    *,
    n_permutations: int = 999,
    random_state: RandomState = None,
) -> TestResult:
    """Likelihood ratio test that levels are as frequent in p as in q.

        G = 2 sum over sides and levels  O log(O / E)

    Twice N times the Jensen-Shannon divergence weighted by the sides' sizes. Rare levels are
    pooled; below 20 expected rows in a cell the law is drawn, since the chi-square is then poor.

    Parameters
    ----------
    counts_q, counts_p
        Rows of each level, shape (K,), over the levels of both sides.
    n_permutations
        Tables drawn where counts are small.
    random_state
        Seed of these.

    Returns
    -------
    TestResult
        Statistic after pooling, p-value, method; ``details["cells"]`` counts the cells.

    Raises
    ------
    DataError
        Counts that are no counts, or of different lengths.

    Notes
    -----
    Cost: O(K log K) time, O(K) memory; O(B K) where the law is drawn.
    Held by: tests/distance/test_univariate_levels.py::test_g_matches_scipy

    With two levels the exact law orders tables by the distance of a cell from its mean, as for
    Pearson's test, and not by G.

    References
    ----------
    .. [Williams1976] Improved Likelihood Ratio Tests for Complete Contingency Tables. Williams,
       1976, Biometrika 63.

    Examples
    --------
    >>> g_test(counts_q=[500, 300, 200], counts_p=[500, 300, 200]).pvalue
    1.0
    """
    return _public_test(counts_q, counts_p, "g", n_permutations, random_state)
