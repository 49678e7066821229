"""Fréchet distance: how far apart are the means and covariances of two laws?

With means m_Q, m_P and covariances A, B of q and p in some feature space,

    F(Q, P) = |m_Q - m_P|^2 + tr(A + B - 2 (A^1/2 B A^1/2)^1/2),

the squared 2-Wasserstein distance of two Gaussians with these moments, and a lower bound of that
of Q and P. In Inception features it is known as FID. The definition sees two moments and nothing
else: laws that differ in their tails, their modes or their dependence beyond correlation have
distance zero. It does not fix the features, and no two feature spaces give comparable numbers.

Three traps of the usual programs are absent here. The trace of (A B)^1/2 is taken as the sum of
the square roots of the eigenvalues of a symmetric matrix, so that it is never complex. The estimate
from N rows is too large by about a constant over N, and the constant depends on the model, so that
rankings at one N can be wrong: `frechet_distance(..., extrapolate="both")` removes it. And the
distance of two halves of one sample is not zero: it comes with an interval.

Plug-in (the default) to compare with published numbers at a stated N; "both" when neither sample
is exhaustive; "q" only where p is the whole population, since it keeps the error of p's moments.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from typing import Literal

import numpy as np
from scipy.linalg import LinAlgError, cholesky, eigh, eigvalsh, get_lapack_funcs

from dpdq._random import RandomState, as_generator, child_seed, row_keys
from dpdq._threads import one_thread_each
from dpdq.distance._common import check_sides
from dpdq.distance._jackknife import (
    check_groups,
    deal_groups,
    jackknife_estimate,
    leave_out,
)
from dpdq.errors import DataError, OptionError
from dpdq.results import Estimate
from dpdq.weights._vectors import as_vector

__all__ = ["frechet_distance", "frechet_distance_from_moments"]

EXTRAPOLATIONS = ("both", "q")
N_SIZES = 15
MANY_FEATURES = 500
_BIASED = (
    "plug-in: larger than the distance of the laws, most where rows are few for the features; "
    "the interval covers its mean at these sizes, extrapolate='both' aims at the laws"
)
_Moments = tuple[np.ndarray, np.ndarray]


def frechet_distance_from_moments(
    mean_q: np.ndarray, cov_q: np.ndarray, mean_p: np.ndarray, cov_p: np.ndarray
) -> float:
    """Fréchet distance of two laws with given means and covariances.

        F = |m_Q - m_P|^2 + tr(A + B - 2 (A^1/2 B A^1/2)^1/2)

    With B = L L', the eigenvalues of A^1/2 B A^1/2 are those of L' A L, which is symmetric: no
    complex square root arises. Where covariances are nearly singular the singular values of
    their factors are taken instead, several times as slowly. Covariances of fewer rows than
    features are known only up to their rounding, whose root is 1e-8: give the samples instead.

    Parameters
    ----------
    mean_q, mean_p
        Means, shape (d,).
    cov_q, cov_p
        Covariances, shape (d, d), symmetric and positive semi-definite.

    Returns
    -------
    float
        The distance, in squared units of the features; never negative.

    Raises
    ------
    DataError
        Shapes do not match, values are not finite, or a covariance is not symmetric or has
        negative eigenvalues.

    Notes
    -----
    Cost: O(d^3) time, O(d^2) memory.
    Held by: tests/distance/test_frechet.py::test_equals_the_matrix_square_root

    References
    ----------
    .. [Dowson1982] The Fréchet distance between multivariate normal distributions. Dowson, 1982,
       Journal of Multivariate Analysis 12.
    .. [Heusel2017] GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash
       Equilibrium. Heusel, 2017, NeurIPS.

    Examples
    --------
    >>> one = np.eye(2)
    >>> frechet_distance_from_moments(np.zeros(2), one, np.array([3.0, 4.0]), 4 * one)
    27.0
    """
    moments_q = _check_moments(mean_q, cov_q, "q")
    moments_p = _check_moments(mean_p, cov_p, "p")
    if len(moments_q[0]) != len(moments_p[0]):
        raise DataError(
            f"q has {len(moments_q[0])} features and p has {len(moments_p[0])}; "
            "both need the same features"
        )
    return _distance(moments_q, moments_p)


def frechet_distance(
    q: np.ndarray,
    p: np.ndarray,
    *,
    extrapolate: Literal[False, "both", "q"] = False,
    unbiased_covariance: bool = True,
    weights_q: np.ndarray | None = None,
    weights_p: np.ndarray | None = None,
    smallest_share: float | None = None,
    n_groups: int = 10,
    level: float = 0.95,
    random_state: RandomState = None,
) -> Estimate:
    """Fréchet distance of two samples (FID in Inception features), with an interval.

        F = |m_q - m_p|^2 + tr(A + B - 2 (A^1/2 B A^1/2)^1/2),   moments of generated q, real p

    The plug-in estimate is too large, by about c/N with a c that differs between models. With
    ``extrapolate`` it is evaluated at 15 sizes, each on a fresh random part of the rows, and the
    intercept of a straight line in 1/N is the answer, which may be negative and is not clipped.
    That is sound where N is several times the number of features at every size; with fewer rows
    the curve is no line, and the answer only better than the plug-in. It trades bias for noise:
    the standard deviation grows by a tenth where the laws are far apart, and doubles where they
    are equal.

    Parameters
    ----------
    q
        Features of generated rows, shape (n_q, d).
    p
        Features of real rows, shape (n_p, d).
    extrapolate
        ``False``: the plug-in. ``"both"``: both sides shrink together, which removes both biases.
        ``"q"``: only q shrinks, as in the paper; p is taken for the whole truth.
    unbiased_covariance
        Whether covariances are divided by n - 1 (with weights u that sum to one: by
        1 - sum u^2), as everywhere. ``False`` divides by n; integer weights then equal repeated
        rows.
    weights_q, weights_p
        Importance weights of rows, any scale; zero drops the row.
    smallest_share
        The smallest part of the rows that enters an extrapolation; by default a tenth, or more
        where that would be fewer than three rows a feature, at most a half.
    n_groups
        Groups left out in turn for the interval; 0 for none, which is G times as fast.
    level
        Of the interval.
    random_state
        Deals rows to groups and sizes.

    Returns
    -------
    Estimate
        In squared units of the features. The interval of the plug-in covers what it averages at
        these sizes; that of the extrapolation covers the distance of the laws.

    Raises
    ------
    DataError
        Values are not finite, columns do not match, or there are too few rows.
    OptionError
        Unknown extrapolation, share, level or number of groups.

    Notes
    -----
    Changed from the paper: with "both", sides of unequal size shrink by the same share, so that
    both biases are in proportion to one regressor.
    Cost: O(n d^2 + (1 + G) d^3) time, 15 times as much with extrapolation; O(n d + d^2) memory.
    Held by: tests/distance/test_frechet.py::test_extrapolation_removes_bias

    References
    ----------
    .. [M293] Effectively Unbiased FID and Inception Score and where to find them. Chong, 2020,
       CVPR.
    .. [Heusel2017] GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash
       Equilibrium. Heusel, 2017, NeurIPS.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> q, p = rng.normal(size=(400, 8)), rng.normal(size=(500, 8))
    >>> plug_in = frechet_distance(q, p, random_state=0)
    >>> less_biased = frechet_distance(q, p, extrapolate="both", random_state=0)
    >>> less_biased.estimate < plug_in.estimate, less_biased.low < 0.0 < less_biased.high
    (True, True)
    """
    q, p = check_sides(q, p, minimum=2)
    if extrapolate is not False and extrapolate not in EXTRAPOLATIONS:
        raise OptionError(f"Unknown extrapolate {extrapolate!r}. Choose one of False, 'both', 'q'.")
    check_groups(n_groups, level)
    sides = _Side(q, weights_q, "q"), _Side(p, weights_p, "p")
    generator = as_generator(random_state)
    n_groups = min(n_groups, sides[0].n, sides[1].n)
    groups = [deal_groups(side.n, max(n_groups, 1), generator) for side in sides]

    def plug_in(rows_q: np.ndarray, rows_p: np.ndarray) -> float:
        return _from_samples(
            sides[0].part(rows_q), sides[1].part(rows_p), unbiased=unbiased_covariance
        )

    least = -math.inf
    if extrapolate is False:
        _enough(sides, 2.0, n_groups)
        statistic = plug_in
        method, reason, least = "Fréchet distance, plug-in", _BIASED, 0.0
    else:
        share = _smallest_share(sides, smallest_share)
        _enough(sides, 4.0 / share, n_groups)
        seed, both = child_seed(generator), extrapolate == "both"
        method = f"Fréchet distance, extrapolated over {N_SIZES} sizes of {extrapolate}"
        reason = "" if both else "the error of p's moments remains: p is taken for the whole truth"

        def extrapolated(rows_q: np.ndarray, rows_p: np.ndarray) -> float:
            return _intercept(plug_in, rows_q, rows_p, share, both=both, seed=seed)

        statistic = extrapolated

    # threads of small dense algebra wait for each other longer than they work
    with one_thread_each() if q.shape[1] < MANY_FEATURES else contextlib.nullcontext():
        estimate = statistic(np.arange(sides[0].n), np.arange(sides[1].n))
    without = leave_out(statistic, groups[0], groups[1], n_groups)
    return jackknife_estimate(estimate, without, level, method=method, reason=reason, least=least)


class _Side:
    """Rows of positive weight, and their weights where these are not all equal."""

    def __init__(self, points: np.ndarray, weights: np.ndarray | None, side: str) -> None:
        self.points = points
        self.weights = np.ones(len(points))
        if weights is not None:
            values = as_vector(weights, f"weights_{side}")
            if values.shape != (len(points),):
                raise DataError(
                    f"weights_{side} has shape {values.shape}; expected ({len(points)},)"
                )
            if not np.isfinite(values).all() or (values < 0).any():
                raise DataError(f"weights_{side} must be finite and not negative")
            self.points, self.weights = points[values > 0], values[values > 0]
        self.n = len(self.points)
        if self.n < 2:
            raise DataError(f"{side} has {self.n} rows of positive weight; expected at least 2")

    def part(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if len(rows) == self.n:
            return self.points, self.weights
        return self.points[rows], self.weights[rows]


def _enough(sides: tuple[_Side, _Side], fewest: float, n_groups: int) -> None:
    for side, name in zip(sides, "qp", strict=True):
        kept = side.n - math.ceil(side.n / n_groups) if n_groups else side.n
        if kept < fewest:
            raise DataError(
                f"{name} has {side.n} rows, too few for this: every part and every group left out "
                f"must leave {math.ceil(fewest)}; take n_groups=0, no extrapolation, or more rows"
            )


def _smallest_share(sides: tuple[_Side, _Side], given: float | None) -> float:
    if given is None:
        n, d = min(side.n for side in sides), sides[0].points.shape[1]
        return min(0.5, max(0.1, 3.0 * d / n, 20.0 / n))
    if not 0.0 < given < 1.0:
        raise OptionError(f"smallest_share is {given}; expected a number between 0 and 1")
    return given


def _intercept(
    plug_in: Callable[[np.ndarray, np.ndarray], float],
    rows_q: np.ndarray,
    rows_p: np.ndarray,
    share: float,
    *,
    both: bool,
    seed: int,
) -> float:
    """The intercept at 1/N = 0 of the plug-in on random parts, fresh ones at every size.

    A part holds the rows with the smallest random keys, so that a row left out changes it little
    and the jackknife sees the chance of the parts too.
    """
    shares = np.linspace(share, 1.0, N_SIZES)
    values = np.empty(N_SIZES)
    for place, one in enumerate(shares):
        part_q = _random_part(rows_q, one, 2 * place, seed)
        part_p = _random_part(rows_p, one, 2 * place + 1, seed) if both else rows_p
        values[place] = plug_in(part_q, part_p)
    line = np.polynomial.polynomial.polyfit(1.0 / shares, values, 1)
    return float(line[0])


def _random_part(rows: np.ndarray, share: float, place: int, seed: int) -> np.ndarray:
    size = round(share * len(rows))
    if size >= len(rows):
        return rows
    keys = row_keys(0, int(rows[-1]) + 1, seed + place)[rows]
    return rows[np.sort(np.argpartition(keys, size)[:size])]


def _from_samples(
    q: tuple[np.ndarray, np.ndarray], p: tuple[np.ndarray, np.ndarray], *, unbiased: bool
) -> float:
    (mean_q, a), (mean_p, b) = (_centered(*side, unbiased=unbiased) for side in (q, p))
    if min(len(a), len(b)) > a.shape[1]:
        return _distance((mean_q, a.T @ a), (mean_p, b.T @ b))
    # A = a'a and B = b'b: the roots of the eigenvalues of A B are the singular values of a b'.
    factors = [side if len(side) <= side.shape[1] else _triangle(side) for side in (a, b)]
    roots = float(np.linalg.svdvals(factors[0] @ factors[1].T).sum())
    return _total(mean_q - mean_p, float(np.vdot(a, a)), float(np.vdot(b, b)), roots)


def _centered(
    points: np.ndarray, weights: np.ndarray, *, unbiased: bool
) -> tuple[np.ndarray, np.ndarray]:
    """The mean, and rows a with a'a the covariance."""
    share = weights / weights.sum()
    mean = share @ points
    keep = 1.0 - float(share @ share) if unbiased else 1.0
    rows = points - mean
    rows *= np.sqrt(share / keep)[:, None]
    return mean, rows


def _triangle(rows: np.ndarray) -> np.ndarray:
    """A square factor of the same covariance."""
    return np.asarray(np.linalg.qr(rows, mode="r"))


def _distance(q: _Moments, p: _Moments) -> float:
    (mean_q, a), (mean_p, b) = q, p
    trace_a, trace_b = float(np.trace(a)), float(np.trace(b))
    return _total(mean_q - mean_p, trace_a, trace_b, _root_trace(a, b, trace_a + trace_b))


def _total(shift: np.ndarray, trace_a: float, trace_b: float, roots: float) -> float:
    # The exact value is not negative; what is below zero here is rounding alone.
    return max(0.0, float(shift @ shift) + (trace_a + trace_b - 2.0 * roots))


def _root_trace(a: np.ndarray, b: np.ndarray, scale: float) -> float:
    """Trace of (A^1/2 B A^1/2)^1/2 for covariances, to 1e-10 of ``scale`` where rounding allows."""
    try:
        lower = cholesky(b, lower=True, check_finite=False)
    except LinAlgError:
        return _root_trace_of_factors(a, b)
    (congruence,) = get_lapack_funcs(("sygst",), (a, lower))
    inner, _ = congruence(a, lower, itype=3, lower=1)  # lower' a lower
    values = eigvalsh(inner, driver="evr", lower=True, check_finite=False, overwrite_a=True)
    _refuse_negative(values)
    if values[-1] <= 0.0:
        return 0.0
    wrong = len(values) * np.finfo(np.float64).eps * float(values[-1])
    positive = np.maximum(values, wrong)
    if float(np.sum(wrong / np.sqrt(positive))) > 1e-10 * scale:
        return _root_trace_of_factors(a, b)
    return float(np.sqrt(positive).sum())


def _root_trace_of_factors(a: np.ndarray, b: np.ndarray) -> float:
    """The same as a sum of singular values, which does not square the small ones away."""
    return float(np.linalg.svdvals(_factor(a).T @ _factor(b)).sum())


def _factor(matrix: np.ndarray) -> np.ndarray:
    values, vectors = eigh(matrix, check_finite=False)
    _refuse_negative(values)
    noise = len(values) * np.finfo(np.float64).eps * max(float(values[-1]), 0.0)
    keep = values > noise
    if not keep.any():
        return np.zeros((len(values), 1))
    return vectors[:, keep] * np.sqrt(values[keep])


def _refuse_negative(values: np.ndarray) -> None:
    if values[0] < -1e-8 * max(float(values[-1]), 0.0):
        raise DataError(
            "a covariance has negative eigenvalues; estimate it from complete rows, or give the "
            "samples to frechet_distance"
        )


def _check_moments(mean: np.ndarray, cov: np.ndarray, side: str) -> _Moments:
    center = as_vector(mean, f"mean_{side}")
    matrix = np.asarray(cov, dtype=np.float64)
    d = len(center)
    if matrix.shape != (d, d):
        raise DataError(f"cov_{side} has shape {matrix.shape}; expected ({d}, {d}) as mean_{side}")
    if not (np.isfinite(center).all() and np.isfinite(matrix).all()):
        raise DataError(f"mean_{side} and cov_{side} must be finite")
    size = float(np.abs(matrix).max(initial=0.0))
    if float(np.abs(matrix - matrix.T).max(initial=0.0)) > 1e-8 * size:
        raise DataError(f"cov_{side} is not symmetric; expected a covariance")
    matrix = (matrix + matrix.T) / 2
    if (np.diag(matrix) < 0).any():
        raise DataError(f"cov_{side} has a negative variance; expected a covariance")
    return center, matrix
