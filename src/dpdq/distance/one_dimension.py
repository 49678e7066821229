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
reject 11 % too often at 0.05 and 19 % at 0.001. Where nearly all rows share one value the limit is
of no use; two values then have their exact law, and more have drawn tables of counts.
"""

from __future__ import annotations

import math

import numpy as np

from dpdq._random import RandomState, as_generator
from dpdq.distance._rank_laws import asymptotic_pvalue, permutation_pvalue, rank_test
from dpdq.distance._sweep import sweep
from dpdq.errors import DataError, OptionError
from dpdq.results import TestResult

__all__ = [
    "wasserstein",
    "anderson_darling_test",
    "kolmogorov_smirnov_test",
    "cramer_von_mises_test",
]


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
    generator = as_generator(random_state)
    if method == "auto":
        pvalue, how = rank_test(s, t, swept, test, n_permutations, generator)
    elif method == "permutation":
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
        "permutation"; "auto" (default) permutes when a side has fewer than 200 values or
        nearly all rows share one value, and sums the exact law of two distinct values.
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
    It is left out, as it makes the test liberal (at n = m = 200 by 11 % at 0.05 and 19 % at 0.001).
    Wei and Dudley show that the uncorrected bound 2 exp(-2 n m / N D^2) holds for n = m >= 458.

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
        "permutation"; "auto" (default) permutes when a side has fewer than 200 values or
        nearly all rows share one value, and sums the exact law of two distinct values.
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
        return float(np.einsum("i,i->", lengths, distance))
    largest = float(distance.max())
    if largest == 0:
        return 0.0
    powers = (distance / largest) ** order
    return largest * float(np.einsum("i,i->", lengths, powers)) ** (1 / order)
