r"""How far apart are two samples of ordered values, and is it real?

Write F and G for the empirical distribution functions of q (n values) and p (m values), H for
that of both together, N = n + m. On the distinct pooled values z_1 < z_2 < ... with pooled shares
h_k,

    Kolmogorov-Smirnov     D   = max_k |F(z_k) - G(z_k)|
    Cramer-von Mises       T   = n m / N  sum_k h_k (F - G)^2(z_k)
    Anderson-Darling       A^2 = n m / N  sum_k h_k (F - G)^2(z_k) / (H (1 - H))(z_k)
    Wasserstein, order 1   W_1 = sum_k |F - G|(z_k) (z_(k+1) - z_k)

The first three depend on ranks only and are tests; the last has the unit of the column and is an
effect. Ties are merged: each distinct value counts once, with the mass that it carries, so that
the statistics do not depend on the order of equal values.

Which one? Anderson-Darling, unless there is a reason: the weight 1 / (H (1 - H)) evens out the
variance of F - G along the line, so that shifts, changes of spread and changes in the tails are
all seen, while Kolmogorov-Smirnov looks where that variance is largest, in the middle.
Kolmogorov-Smirnov is for a change that sits in one narrow place, and for reading: D is the
largest difference of two shares.

Where do p-values come from? With fewer than 200 values on a side, from permutations, drawn for
the smaller side only: between two of its values F is constant and the sums are differences of
prefix sums, so that a permutation costs the smaller side's size and not N. With more, A^2 and T
have the law of sum_j lambda_j chi2_1; for continuous data the lambda_j are known
(1 / (j (j + 1)) and 1 / (pi j)^2), for tied data they are the eigenvalues of the same quadratic
form at the tied values, and neither is fitted or looked up. D has Kolmogorov's law without the
small-sample correction that Stephens made for one sample: at n = m = 200 that correction would
reject twice as often as it says.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator

import numpy as np
from scipy import special

from dpdq._random import RandomState, as_generator
from dpdq.distance._laws import cell_eigenvalues, continuous_tail, weighted_chi2_tail
from dpdq.errors import DataError, OptionError
from dpdq.results import TestResult

__all__ = [
    "wasserstein",
    "anderson_darling_test",
    "kolmogorov_smirnov_test",
    "cramer_von_mises_test",
]

SMALL_SIDE = 200  # fewer values than this on a side: permutations
_BLOCK = 1 << 12  # values of each side in one step of the sweep: temporaries stay in cache
_FEW = 256  # up to so many distinct values are kept one by one
_TIES = 1e-9  # statistics this close (relatively) count as equal


@dataclasses.dataclass(frozen=True)
class Sweep:
    """Everything that one pass over two sorted samples gives.

    ``heavy_*`` are the distinct values that carry at least 1 / 256 of the pooled rows each, and
    all distinct values where there are at most 256 of them (``few``).
    """

    n: int
    m: int
    ks: float
    ad: float
    cvm: float
    w1: float
    few: bool
    heavy_values: np.ndarray
    heavy_q: np.ndarray  # rows of q at the value
    heavy_p: np.ndarray
    heavy_below: np.ndarray  # pooled rows up to and including the value

    def statistic(self, test: str) -> float:
        return {"ks": self.ks, "ad": self.ad, "cvm": self.cvm}[test]


def _blocks(
    s: np.ndarray, t: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Distinct pooled values with the counts of q and p up to them, block by block."""
    i = j = 0
    n, m = len(s), len(t)
    while i < n or j < m:
        ends = []
        if i < n:
            ends.append(s[min(i + _BLOCK, n) - 1])
        if j < m:
            ends.append(t[min(j + _BLOCK, m) - 1])
        # the smaller end keeps both parts within a block, up to ties
        last_block = i + _BLOCK >= n and j + _BLOCK >= m
        end = max(ends) if last_block else min(ends)
        next_i = i + int(np.searchsorted(s[i:], end, side="right"))
        next_j = j + int(np.searchsorted(t[j:], end, side="right"))
        part = np.concatenate([s[i:next_i], t[j:next_j]])
        order = np.argsort(part, kind="stable")  # merges two sorted runs: linear
        pooled = part[order]
        where = np.flatnonzero(pooled[1:] != pooled[:-1])
        where = np.append(where, len(part) - 1)  # the last of each run of equal values
        upto_q = np.cumsum(order < next_i - i, dtype=np.int32)[where].astype(np.int64)
        yield pooled[where], upto_q + i, where + 1 - upto_q + j
        i, j = next_i, next_j


def _increments(upto: np.ndarray, before: int) -> np.ndarray:
    out = np.empty_like(upto)
    out[0] = upto[0] - before
    np.subtract(upto[1:], upto[:-1], out=out[1:])
    return out


def sweep(s: np.ndarray, t: np.ndarray) -> Sweep:
    """All one-dimensional statistics of two sorted samples in one pass.

    The pass goes in blocks of pooled order, so that memory beside the samples is bounded; block
    boundaries depend on the data only.
    """
    n, m = len(s), len(t)
    total = n + m
    ks = ad = cvm = w1 = 0.0
    distinct = 0
    previous_value: float | None = None
    previous_gap = 0.0
    below = 0
    kept: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = []
    before_q = before_p = 0
    for values, upto_q, upto_p in _blocks(s, t):
        gap = np.abs(upto_q * (1.0 / n) - upto_p * (1.0 / m))
        upto = upto_q + upto_p
        count = _increments(upto, below)
        h = upto * (1.0 / total)
        squared = gap * gap * (count * (1.0 / total))
        ks = max(ks, float(gap.max()))
        cvm += float(squared.sum())
        inner = slice(None, -1) if upto[-1] == total else slice(None)  # H = 1 at the last value
        ad += float((squared[inner] / (h * (1 - h))[inner]).sum())
        steps = np.diff(values).astype(np.float64)
        if previous_value is not None:
            w1 += previous_gap * float(values[0] - previous_value)
        w1 += float(np.dot(gap[:-1], steps))
        previous_value, previous_gap = values[-1], float(gap[-1])
        heavy = (
            np.arange(len(values))
            if distinct + len(values) <= _FEW
            else np.flatnonzero(count * _FEW >= total)
        )
        if len(heavy):
            here_q = _increments(upto_q, before_q)[heavy]
            here_p = _increments(upto_p, before_p)[heavy]
            kept.append((values[heavy], here_q, here_p, upto[heavy]))
        distinct += len(values)
        below, before_q, before_p = int(upto[-1]), int(upto_q[-1]), int(upto_p[-1])
    few = distinct <= _FEW
    none = np.zeros(0, dtype=np.int64)
    kept.append((s[:0], none, none, none))
    parts = [np.concatenate(column) for column in zip(*kept, strict=True)]
    if not few:
        heavy = (parts[1] + parts[2]) * _FEW >= total
        parts = [part[heavy] for part in parts]
    factor = n * m / total
    return Sweep(n, m, ks, factor * ad, factor * cvm, w1, few, *parts)


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


def choose_rows(
    total: int, size: int, repeats: int, generator: np.random.Generator
) -> np.ndarray:
    """``repeats`` draws of ``size`` out of ``total`` without replacement, each row sorted."""
    if size * 4 >= total or total <= 2000:
        keys = generator.random((repeats, total), dtype=np.float32)
        rows = np.argpartition(keys, size - 1, axis=1)[:, :size] if size < total else np.tile(
            np.arange(total), (repeats, 1)
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
    # doubles, as argsort ties in float32 keys would favour low positions
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


# ----------------------------------------------------------------------------- public functions


def _sorted_values(values: np.ndarray, side: str) -> np.ndarray:
    x = np.asarray(values)
    if x.ndim != 1:
        raise DataError(f"{side} has shape {x.shape}; expected one column of values, shape (n,)")
    if x.size == 0:
        raise DataError(f"{side} has no values; at least one is needed")
    if x.dtype.kind not in "iu":
        x = x.astype(np.float64)
        if not np.isfinite(x).all():
            raise DataError(f"{side} holds values that are missing or infinite; drop them first")
    elif x.dtype == np.uint64:
        x = x.astype(np.float64)
    return np.sort(x)


_NAMES = {"ad": "Anderson-Darling", "ks": "Kolmogorov-Smirnov", "cvm": "Cramer-von Mises"}


def rank_test(
    s: np.ndarray,
    t: np.ndarray,
    swept: Sweep,
    test: str,
    n_permutations: int,
    generator: np.random.Generator,
) -> tuple[float, str]:
    """The p-value of two sorted samples, and where it comes from."""
    if min(len(s), len(t)) < SMALL_SIDE:
        pvalue = permutation_pvalue(s, t, test, n_permutations, generator)
        return pvalue, f"{n_permutations} permutations"
    return asymptotic_pvalue(swept, test), "limit law"


def _public_test(
    q: np.ndarray,
    p: np.ndarray,
    test: str,
    method: str,
    n_permutations: int,
    random_state: RandomState,
) -> TestResult:
    if method not in ("auto", "asymptotic", "permutation"):
        raise OptionError(
            f"Unknown method {method!r}. Choose one of 'auto', 'asymptotic', 'permutation'."
        )
    s, t = _sorted_values(q, "q"), _sorted_values(p, "p")
    common = np.result_type(s, t)
    s, t = s.astype(common, copy=False), t.astype(common, copy=False)
    swept = sweep(s, t)
    if method == "auto":
        method = "permutation" if min(len(s), len(t)) < SMALL_SIDE else "asymptotic"
    if method == "permutation":
        generator = as_generator(random_state)
        pvalue = permutation_pvalue(s, t, test, n_permutations, generator)
        how = f"{n_permutations} permutations"
    else:
        pvalue, how = asymptotic_pvalue(swept, test), "limit law"
    return TestResult(
        statistic=swept.statistic(test),
        pvalue=pvalue,
        method=f"{_NAMES[test]}, {how}",
        n_q=len(s),
        n_p=len(t),
    )


def anderson_darling_test(
    q: np.ndarray,
    p: np.ndarray,
    *,
    method: str = "auto",
    n_permutations: int = 999,
    random_state: RandomState = None,
) -> TestResult:
    """Two-sample Anderson-Darling test of "q and p are the same law".

        A^2 = n m / N  sum_k h_k (F - G)^2(z_k) / (H (1 - H))(z_k)

    Sees shifts, changes of spread and of the tails; a bump in one narrow place is seen later than
    by Kolmogorov-Smirnov. Rows must be independent: repeated measurements make every p-value too
    small.

    Parameters
    ----------
    q, p
        Values of the two samples, shapes (n,) and (m,), finite.
    method
        "asymptotic": the law of sum_j lambda_j chi2_1 with the eigenvalues that the ties imply;
        "permutation"; "auto" (default) permutes when a side has fewer than 200 values.
    n_permutations
        B of the permutation p-value (1 + count) / (B + 1).
    random_state
        Seed of the permutations.

    Returns
    -------
    TestResult
        Statistic, p-value and method.

    Raises
    ------
    DataError
        A side is empty, not one-dimensional, or holds missing or infinite values.
    OptionError
        Unknown ``method``.

    Notes
    -----
    Cost: O(N log N) time, O(N) memory.
    Held by: tests/distance/test_univariate_ranks.py::test_anderson_darling_matches_scipy

    Unlike scipy.stats.anderson_ksamp, which interpolates a table and stops at 0.001 and 0.25, the
    p-value is computed, for tied data too. The statistic is the one that Scholz and Stephens call
    A_kN (their equation 6), not standardised.

    References
    ----------
    .. [ScholzStephens1987] K-Sample Anderson-Darling Tests. Scholz and Stephens, 1987, JASA 82.
    .. [Smirnov1937] On the distribution of the omega-squared criterion of von Mises. Smirnov,
       1937, Mat. Sbornik 2.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.random.default_rng(0).normal(size=(2, 1000))
    >>> anderson_darling_test(q=x[0], p=x[1] + 0.2).pvalue < 0.001
    True
    """
    return _public_test(q, p, "ad", method, n_permutations, random_state)


def kolmogorov_smirnov_test(
    q: np.ndarray,
    p: np.ndarray,
    *,
    method: str = "auto",
    n_permutations: int = 999,
    random_state: RandomState = None,
) -> TestResult:
    """Two-sample Kolmogorov-Smirnov test of "q and p are the same law".

        D = max_x |F(x) - G(x)|

    Weak in the tails. With many ties Kolmogorov's law is conservative (valid, with less power).

    Parameters
    ----------
    q, p
        Values of the two samples, shapes (n,) and (m,), finite.
    method
        "asymptotic": Kolmogorov's law at sqrt(n m / N) D, without correction; "permutation";
        "auto" (default) permutes when a side has fewer than 200 values.
    n_permutations
        B of the permutation p-value (1 + count) / (B + 1).
    random_state
        Seed of the permutations.

    Returns
    -------
    TestResult
        Statistic, p-value and method.

    Raises
    ------
    DataError
        A side is empty, not one-dimensional, or holds missing or infinite values.
    OptionError
        Unknown ``method``.

    Notes
    -----
    Cost: O(N log N) time, O(N) memory.
    Held by: tests/distance/test_univariate_ranks.py::test_kolmogorov_smirnov_matches_scipy

    Stephens' correction (en + 0.12 + 0.11 / en) is often carried over from the one-sample test.
    It is left out: at n = m it makes the test liberal by a factor of two. Wei and Dudley show
    that the uncorrected bound 2 exp(-2 n m / N D^2) holds for n = m >= 458.

    References
    ----------
    .. [Smirnov1948] Table for Estimating the Goodness of Fit of Empirical Distributions. Smirnov,
       1948, Annals of Mathematical Statistics 19.
    .. [WeiDudley2012] Two-sample Dvoretzky-Kiefer-Wolfowitz inequalities. Wei and Dudley, 2012,
       Statistics and Probability Letters 82.

    Examples
    --------
    >>> kolmogorov_smirnov_test(q=[1, 2, 3, 4], p=[3, 4, 5, 6], random_state=0).statistic
    0.5
    """
    return _public_test(q, p, "ks", method, n_permutations, random_state)


def cramer_von_mises_test(
    q: np.ndarray,
    p: np.ndarray,
    *,
    method: str = "auto",
    n_permutations: int = 999,
    random_state: RandomState = None,
) -> TestResult:
    """Two-sample Cramer-von Mises test of "q and p are the same law".

        T = n m / N  sum_k h_k (F - G)^2(z_k)

    Good for shifts of the middle; tails weigh little.

    Parameters
    ----------
    q, p
        Values of the two samples, shapes (n,) and (m,), finite.
    method
        "asymptotic": the law of sum_j lambda_j chi2_1 with the eigenvalues that the ties imply;
        "permutation"; "auto" (default) permutes when a side has fewer than 200 values.
    n_permutations
        B of the permutation p-value (1 + count) / (B + 1).
    random_state
        Seed of the permutations.

    Returns
    -------
    TestResult
        Statistic, p-value and method.

    Raises
    ------
    DataError
        A side is empty, not one-dimensional, or holds missing or infinite values.
    OptionError
        Unknown ``method``.

    Notes
    -----
    Cost: O(N log N) time, O(N) memory.
    Held by: tests/distance/test_univariate_ranks.py::test_cramer_von_mises_matches_scipy

    References
    ----------
    .. [Anderson1962] On the Distribution of the Two-Sample Cramer-von Mises Criterion. Anderson,
       1962, Annals of Mathematical Statistics 33.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.arange(300.0)
    >>> cramer_von_mises_test(q=x, p=x).pvalue
    1.0
    """
    return _public_test(q, p, "cvm", method, n_permutations, random_state)


def _mean_one(weights: np.ndarray | None, n: int, side: str) -> np.ndarray:
    if weights is None:
        return np.full(n, 1.0 / n)
    w = np.asarray(weights, dtype=np.float64)
    if w.shape != (n,):
        raise DataError(f"weights_{side} has shape {w.shape}; expected ({n},), one for each row")
    if not np.isfinite(w).all() or (w < 0).any() or w.sum() <= 0:
        raise DataError(f"weights_{side} must be finite, not negative and not all zero")
    return w / w.sum()


def wasserstein(
    q: np.ndarray,
    p: np.ndarray,
    *,
    order: float = 1.0,
    weights_q: np.ndarray | None = None,
    weights_p: np.ndarray | None = None,
) -> float:
    """Exact Wasserstein distance between two samples on the line.

        W_r(q, p) = ( int_0^1 |F^-1(u) - G^-1(u)|^r du )^(1/r)

    Has the unit of the values. One far outlier moves it, and more so for a larger order; between
    two samples of one law it is not zero but of the order sd / sqrt(n).

    Parameters
    ----------
    q, p
        Values of the two samples, shapes (n,) and (m,), finite.
    order
        r >= 1 (default 1).
    weights_q, weights_p
        Importance weights of the rows, any scale (default uniform).

    Returns
    -------
    float
        The distance.

    Raises
    ------
    DataError
        A side is empty, not one-dimensional, or holds missing or infinite values; weights that
        do not fit.
    OptionError
        ``order`` below 1.

    Notes
    -----
    Cost: O(N log N) time, O(N) memory.
    Held by: tests/distance/test_univariate_ranks.py::test_wasserstein_matches_scipy

    References
    ----------
    .. [Vallender1974] Calculation of the Wasserstein Distance Between Probability Distributions
       on the Line. Vallender, 1974, Theory of Probability and Its Applications 18.

    Examples
    --------
    >>> wasserstein(q=[0, 1, 3], p=[5, 6, 8])
    5.0
    >>> wasserstein(q=[0, 1], p=[0, 1], weights_q=[1, 3])
    0.25
    """
    if not (order >= 1 and math.isfinite(order)):
        raise OptionError(f"order is {order}; choose a finite number of at least 1")
    if weights_q is None and weights_p is None and order == 1:
        s, t = _sorted_values(q, "q"), _sorted_values(p, "p")
        common = np.result_type(s, t)
        return sweep(s.astype(common, copy=False), t.astype(common, copy=False)).w1
    sides = []
    for values, weights, side in ((q, weights_q, "q"), (p, weights_p, "p")):
        x = np.asarray(values, dtype=np.float64)
        _sorted_values(x, side)
        w = _mean_one(weights, len(x), side)
        by_value = np.argsort(x, kind="stable")
        sides.append((x[by_value], np.cumsum(w[by_value])))
    (x, u), (y, v) = sides
    u[-1] = v[-1] = 1.0
    cuts = np.sort(np.concatenate([u, v]), kind="stable")
    lengths = np.diff(cuts, prepend=0.0)
    at_q = np.minimum(np.searchsorted(u, cuts, side="left"), len(x) - 1)
    at_p = np.minimum(np.searchsorted(v, cuts, side="left"), len(y) - 1)
    distance = np.abs(x[at_q] - y[at_p])
    if order == 1:
        return float(np.dot(lengths, distance))
    largest = float(distance.max())
    if largest == 0:
        return 0.0
    return largest * float(np.dot(lengths, (distance / largest) ** order)) ** (1 / order)
