r"""How much did a column change? Sizes, not tests.

Over k common bins with shares q_i and p_i,

    population stability index   PSI = sum_i (p_i - q_i) log(p_i / q_i)     (Jeffreys' divergence)
    Jensen-Shannon divergence    JSD = (KL(p, a) + KL(q, a)) / 2,  a = (p + q) / 2   (<= log 2)

and for the mean of a column, in units of its spread,

    standardised mean difference   SMD = (mean_p - mean_q) / sqrt((s_q^2 + s_p^2) / 2)

PSI and JSD from samples are never zero: with q = p their expectation is about (k - 1) a and
(k - 1) a / 8 with a = 1/n + 1/m. The rule "PSI above 0.1 is a change" therefore calls every column
of 100 rows changed. `psi_estimate` takes that bias off (the estimate may then be negative) and
gives the interval; the plain number stands beside it, because everyone computes that.
"""

from __future__ import annotations

import math

import numpy as np

from dpdq.distance._laws import noncentrality_bound
from dpdq.errors import DataError
from dpdq.results import Estimate

__all__ = [
    "jensen_shannon_of_counts",
    "population_stability_index",
    "psi_estimate",
    "psi_of_counts",
    "standardised_mean_difference",
]

_Z95 = 1.959963984540054
N_BINS = 10


# ------------------------------------------------------------------------------------- on counts


def _smoothed(counts: np.ndarray) -> np.ndarray:
    return (counts + 0.5) / (counts.sum() + 0.5 * len(counts))


def _nonempty(counts_q: np.ndarray, counts_p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.asarray(counts_q, dtype=np.float64), np.asarray(counts_p, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 1:
        raise DataError(f"counts have shapes {a.shape} and {b.shape}; expected (k,) twice")
    keep = a + b > 0
    return a[keep], b[keep]


def psi_of_counts(counts_q: np.ndarray, counts_p: np.ndarray) -> float:
    """PSI of two histograms, with 1/2 added to each bin so that it is finite."""
    a, b = _nonempty(counts_q, counts_p)
    if len(a) < 2:
        return 0.0
    u, v = _smoothed(a), _smoothed(b)
    return float(np.sum((v - u) * np.log(v / u)))


def jensen_shannon_of_counts(counts_q: np.ndarray, counts_p: np.ndarray) -> float:
    """JSD of two histograms in nats, without smoothing; at most log 2."""
    a, b = _nonempty(counts_q, counts_p)
    if not len(a) or a.sum() == 0 or b.sum() == 0:
        return math.nan
    u, v = a / a.sum(), b / b.sum()
    middle = 0.5 * (u + v)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(u > 0, u * np.log(u / middle), 0) + np.where(
            v > 0, v * np.log(v / middle), 0
        )
    return float(min(math.log(2), max(0.0, 0.5 * terms.sum())))


def psi_estimate(
    counts_q: np.ndarray,
    counts_p: np.ndarray,
    *,
    design_q: float = 1.0,
    design_p: float = 1.0,
) -> Estimate:
    """PSI of two histograms without its bias, with a 95 % interval.

    With a = 1/n + 1/m and kappa the ratio of the delta-method variance to 4 a PSI (one near q = p),
    PSI is close in law to kappa a times a noncentral chi-square with (k - 1) / kappa degrees of
    freedom and noncentrality PSI / (kappa a): its mean is the true PSI plus (k - 1) a, its variance
    is the delta method's far from zero and that of the chi-square at zero, where the delta method
    says none. The interval inverts that law; the estimate subtracts (k - 1) a.

    ``design_q`` and ``design_p`` multiply 1/n and 1/m where rows come in groups (the first-order
    correction of Rao and Scott).
    """
    a, b = _nonempty(counts_q, counts_p)
    n, m = a.sum(), b.sum()
    if n == 0 or m == 0:
        return Estimate(None, reason="a side has no values")
    k = len(a)
    if k < 2:
        return Estimate(0.0, 0.0, None, reason="all rows share one bin", method="PSI")
    u, v = _smoothed(a), _smoothed(b)
    log_ratio = np.log(v / u)
    psi = float(np.sum((v - u) * log_ratio))
    slope_p = log_ratio + 1 - u / v
    slope_q = -log_ratio + 1 - v / u
    variance_p = float(np.sum(v * slope_p**2) - np.sum(v * slope_p) ** 2)
    variance_q = float(np.sum(u * slope_q**2) - np.sum(u * slope_q) ** 2)
    rate = design_q / n + design_p / m
    variance = design_q * variance_q / n + design_p * variance_p / m
    kappa = variance / (4 * psi * rate) if psi > 1e-12 else 1.0
    kappa = max(kappa, 0.25)
    unit = kappa * rate
    df = (k - 1) / kappa
    low = unit * noncentrality_bound(psi / unit, df, 0.975)
    # a sample that happens to agree better than q = p does on average is no proof of agreement
    high = unit * noncentrality_bound(max(psi, (k - 1) * rate) / unit, df, 0.025)
    # an empty bin where the other side's share foretells rows: no data bound PSI from above
    foretold = np.where(a < b, n * b / m, m * a / n)
    seen = np.minimum(a, b)
    open_end = bool((((seen < 1) & (foretold >= 3)) | ((seen < 3) & (foretold >= 6))).any())
    return Estimate(
        float(psi - (k - 1) * rate),
        float(low),
        None if open_end else float(high),
        reason="a bin is almost empty on one side only: PSI is at least this" if open_end else "",
        standard_error=math.sqrt(variance + 2 * (k - 1) * rate**2),
        method="PSI less its bias, noncentral chi-square interval",
    )


def design_effect(counts: np.ndarray) -> float:
    """How much wider shares vary over units than over independent rows; counts are (units, k).

    The mean over bins of the between-unit variance of a share over its multinomial variance. NaN
    with a single unit.
    """
    units = counts[counts.sum(axis=1) > 0].astype(np.float64)
    if len(units) < 2:
        return math.nan
    total = units.sum()
    share = units.sum(axis=0) / total
    filled = share > 0
    if np.count_nonzero(filled) < 2:
        return 1.0
    residual = units - units.sum(axis=1, keepdims=True) * share
    between = (residual**2).sum(axis=0) * (len(units) / (len(units) - 1)) / total
    return float((between[filled] / share[filled]).sum() / (np.count_nonzero(filled) - 1))


# ------------------------------------------------------------------------------- bins of numbers


def decile_cuts(s: np.ndarray, smaller_side: int) -> tuple[np.ndarray, np.ndarray]:
    """Cuts at q's deciles: values, and whether a bin ends just before (True) or at the value.

    A value that holds a whole decile gets a bin of its own. With fewer than 50 rows on the smaller
    side there are fewer bins, of five expected rows each.
    """
    n_bins = max(2, min(N_BINS, smaller_side // 5))
    ranks = np.ceil(len(s) * np.arange(1, n_bins) / n_bins).astype(np.int64) - 1
    values, times = np.unique(s[ranks], return_counts=True)
    # constant q: one value and nothing repeated, but it does hold everything
    own = (times > 1) | (s[0] == s[-1])
    return np.repeat(values, 1 + own), np.concatenate(
        [[True, False] if alone else [False] for alone in own]
    )


def counts_between(ordered: np.ndarray, cuts: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Rows of a sorted array between the cuts, the outer bins open."""
    left = np.searchsorted(ordered, cuts, side="left")
    right = np.searchsorted(ordered, cuts, side="right")
    upto = np.where(before, left, right)
    return np.diff(np.concatenate([[0], upto, [len(ordered)]]))


def cells_between(values: np.ndarray, cuts: np.ndarray, before: np.ndarray) -> np.ndarray:
    """The bin of each value, as `counts_between` counts them."""
    # bins end at a value (value included) or just before it: count the cuts below each value
    at = np.searchsorted(cuts[~before], values, side="left")
    return at + np.searchsorted(cuts[before], values, side="right")


# ----------------------------------------------------------------------------- public functions


def _values(x: np.ndarray, side: str) -> np.ndarray:
    values = np.asarray(x)
    if values.ndim != 1 or values.size == 0:
        raise DataError(f"{side} has shape {values.shape}; expected values of shape (n,), n >= 1")
    values = values.astype(np.float64, copy=False)
    if not np.isfinite(values).all():
        raise DataError(f"{side} holds values that are missing or infinite; drop them first")
    return values


def population_stability_index(q: np.ndarray, p: np.ndarray) -> Estimate:
    """Population stability index of two samples of numbers, on the deciles of q.

        PSI = sum_i (p_i - q_i) log(p_i / q_i)

    Sees only what moves rows between deciles of q. Custom thresholds (0.1, 0.25) ignore sample
    size; use the interval. Each bin gets 1/2 row more, so that an empty bin is not infinite.

    Parameters
    ----------
    q, p
        Values of the two samples, shapes (n,) and (m,), finite.

    Returns
    -------
    Estimate
        The bias-corrected index (it may be negative) with its 95 % interval. The plain index is
        the estimate plus (k - 1) (1/n + 1/m).

    Raises
    ------
    DataError
        A side is empty or holds missing or infinite values.

    Notes
    -----
    Cost: O(N log N) time, O(N) memory.
    Held by: tests/distance/test_univariate_effects.py::test_psi_interval_covers

    References
    ----------
    .. [Jeffreys1946] An Invariant Form for the Prior Probability in Estimation Problems. Jeffreys,
       1946, Proceedings of the Royal Society A 186.
    .. [Yurdakul2018] Statistical Properties of Population Stability Index. Yurdakul, 2018, PhD
       thesis, Western Michigan University.
    .. [RaoScott1981] The Analysis of Categorical Data From Complex Sample Surveys: Chi-Squared
       Tests for Goodness of Fit and Independence in Two-Way Tables. Rao and Scott, 1981, JASA 76.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.random.default_rng(0).normal(size=(2, 2000))
    >>> population_stability_index(q=x[0], p=x[1]).low
    0.0
    >>> population_stability_index(q=x[0], p=x[1] + 0.5).low > 0.1
    True
    """
    s, t = np.sort(_values(q, "q")), np.sort(_values(p, "p"))
    cuts, before = decile_cuts(s, min(len(s), len(t)))
    return psi_estimate(counts_between(s, cuts, before), counts_between(t, cuts, before))


def standardised_mean_difference(
    q: np.ndarray,
    p: np.ndarray,
    weights_q: np.ndarray | None = None,
    *,
    units_q: np.ndarray | None = None,
    units_p: np.ndarray | None = None,
) -> Estimate:
    """Difference of means in units of the spread, with a 95 % interval.

        SMD = (mean_p - mean_q) / sqrt((s_q^2 + s_p^2) / 2)

    Sees means only. The spread in the denominator is that of the unweighted samples also where
    weights are given, so that numbers before and after weighting compare means alone.

    Parameters
    ----------
    q, p
        Values of the two samples, shapes (n,) and (m,), finite.
    weights_q
        Importance weights of the rows of q, any scale (default uniform).
    units_q, units_p
        Groups of the rows; the interval then takes groups as independent, not rows.

    Returns
    -------
    Estimate
        0 where both samples are one constant; without an estimate where two constants differ. The
        interval is the delta method's with third and fourth moments (not the normal law's), and
        takes weights as given.

    Raises
    ------
    DataError
        A side is empty or holds missing or infinite values; weights that do not fit.

    Notes
    -----
    Cost: O(N) time and memory.
    Held by: tests/distance/test_univariate_effects.py::test_smd_interval_covers

    References
    ----------
    .. [Austin2009] Balance diagnostics for comparing the distribution of baseline covariates
       between treatment groups in propensity-score matched samples. Austin, 2009, Statistics in
       Medicine 28.

    Examples
    --------
    >>> import numpy as np
    >>> standardised_mean_difference(q=np.array([0.0, 2.0]), p=np.array([1.0, 3.0])).estimate
    0.7071067811865475
    """
    x, y = _values(q, "q"), _values(p, "p")
    w = None
    if weights_q is not None:
        w = np.asarray(weights_q, dtype=np.float64)
        if w.shape != x.shape or not np.isfinite(w).all() or (w < 0).any() or w.sum() <= 0:
            raise DataError(
                f"weights_q must be {x.shape} finite numbers, not negative and not all zero"
            )
        w = w / w.mean()
    centre = 0.5 * (float(x.mean()) + float(y.mean()))  # far from zero nothing is lost
    x, y = x - centre, y - centre
    plain_q, mean_p = float(x.mean()), float(y.mean())
    mean_q = _inner(w, x) / len(x) if w is not None else plain_q
    variance_q, variance_p = _variance(x, plain_q), _variance(y, mean_p)
    spread = math.sqrt(0.5 * (variance_q + variance_p))
    # rounding of the means is no spread
    if not spread > 1e-14 * (abs(centre) + abs(mean_p - mean_q)):
        same = mean_p == mean_q
        return Estimate(
            0.0 if same else None, reason="" if same else "two constants: no spread to divide by"
        )
    d = (mean_p - mean_q) / spread
    pull = d / (4 * spread**2)

    def variance_of(
        z: np.ndarray,
        slope: float,
        centres: tuple[float, float],
        variance: float,
        weights: np.ndarray | None,
        units: np.ndarray | None,
    ) -> float:
        """From the influence of one row on the mean and on the variance below, in place."""
        rows = z - centres[0]
        if weights is not None:
            rows *= weights
        rows *= slope
        square = z - centres[1]
        square *= square
        square -= variance
        square *= pull
        rows -= square
        return _mean_variance(rows, units)

    error = math.sqrt(
        variance_of(x, -1 / spread, (mean_q, plain_q), variance_q, w, units_q)
        + variance_of(y, 1 / spread, (mean_p, mean_p), variance_p, None, units_p)
    )
    if not math.isfinite(error) or min(len(x), len(y)) < 2:
        return Estimate(d, reason="too few rows or groups for an interval")
    return Estimate(d, d - _Z95 * error, d + _Z95 * error, error, method="delta method")


def _variance(x: np.ndarray, mean: float) -> float:
    if len(x) < 2:
        return 0.0
    centred = x - mean
    return _inner(centred, centred) / (len(x) - 1)


def _inner(x: np.ndarray, y: np.ndarray) -> float:
    # not np.dot: for long vectors its bits depend on the number of BLAS threads
    return float(np.einsum("i,i->", x, y))


def _mean_variance(influence: np.ndarray, units: np.ndarray | None) -> float:
    """The variance of a mean of rows, or of groups of rows."""
    n = len(influence)
    if units is not None:
        _, group = np.unique(np.asarray(units), return_inverse=True)
        sums = np.bincount(group, weights=influence)
        count = len(sums)
        return math.nan if count < 2 else _inner(sums, sums) / n**2 * count / (count - 1)
    return math.nan if n < 2 else _inner(influence, influence) / n / (n - 1)
