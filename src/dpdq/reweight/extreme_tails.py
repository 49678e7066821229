"""How far out the largest of n draws lies, and how that is told from data.

    bounded     P(X > x) = 0 beyond an end         M(n) runs into the end
    Gaussian    about exp(-x^2 / 2)                M(n) about sqrt(2 ln n)
    power law   C x^-a,  tail index a              M(n) = Gamma(1 - 1/a) (C n)^(1/a)

M(n) is the expected maximum. Hill's estimate tells a from the logarithms of the largest values. It
answers in powers whatever the tail: a number of 6 or more says that there is no power law in sight.
`dpdq.weights.pareto_khat` estimates 1 / a of weights, by a law that also fits bounded tails.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy.special import gammaln, ndtri

from dpdq.errors import DataError, OptionError
from dpdq.results import Estimate

__all__ = ["extreme_displacement", "fit_hill", "hill_tail_index"]


def hill_tail_index(values: Any, *, n_tail: int | None = None, level: float = 0.95) -> Estimate:
    """Hill's estimate of the tail index a, P(X > x) about C x^-a.

        1 / a = mean over the k largest of log(x_(i) / x_(k+1))

    Small a is a heavy tail: moments from a on are infinite. It assumes a power law: for a Gaussian
    or bounded tail it gives a large number that grows with n and means "not heavy". It moves when
    the values are shifted: give excesses over the centre.

    Parameters
    ----------
    values
        Shape (n,); those above 0 count.
    n_tail
        k; default 10 % of the positive values up to 3 sqrt(n), at least 5.
    level
        Coverage of the interval, a (1 -+ z / sqrt(k)), which knows nothing of the bias that a
        tail short of a power law has.

    Returns
    -------
    Estimate
        a; without a number where the k largest are equal.

    Raises
    ------
    DataError
        Fewer than 6 positive values, or some that are not finite.
    OptionError
        k outside 2 to the number of positive values less one.

    Notes
    -----
    Cost: O(n) time.
    Held by: tests/reweight/test_subsampling.py::test_hill_finds_pareto_tails

    References
    ----------
    .. [M311] Why does Throwing Away Data Improve Worst-Group Error?. Chaudhuri, 2023, ICML.
    .. [Hill1975] A Simple General Approach to Inference About the Tail of a Distribution. Hill,
       1975, Annals of Statistics 3.

    Examples
    --------
    >>> draws = np.random.default_rng(0).pareto(2.0, size=100_000) + 1.0
    >>> found = hill_tail_index(draws)
    >>> found.low < 2.0 < found.high
    True
    """
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or not np.isfinite(x).all():
        raise DataError(f"values have shape {x.shape} or are not finite; give (n,) finite numbers")
    if not 0 < level < 1:
        raise OptionError(f"level is {level}; give a number between 0 and 1")
    k, _, inverse = fit_hill(x, n_tail)
    method = f"Hill, the {k} largest"
    if inverse <= 0:
        return Estimate(None, level=level, method=method, reason=f"the {k} largest are equal")
    a = 1.0 / inverse
    error = a / math.sqrt(k)
    width = float(ndtri(0.5 + level / 2)) * error
    return Estimate(a, max(a - width, 0.0), a + width, error, level, method)


def fit_hill(x: np.ndarray, n_tail: int | None) -> tuple[int, float, float]:
    """Number of points in the tail, where it starts, and 1 / a."""
    positive = np.sort(x[x > 0])[::-1]
    n = len(positive)
    if n < 6:
        raise DataError(f"{n} values are positive; a tail takes at least 6")
    k = max(5, int(min(n / 10, 3 * math.sqrt(n)))) if n_tail is None else int(n_tail)
    if not 2 <= k < n:
        raise OptionError(f"n_tail is {k}; give 2 to {n - 1}, the positive values less one")
    return k, float(positive[k]), float(np.log(positive[:k] / positive[k]).mean())


def extreme_displacement(n_large: int, n_small: int, *, tail: str | float = "gaussian") -> float:
    """How far a largest-margin boundary moves into the smaller of two equal laws.

        [M(n_large) - M(n_small)] / 2

    M by exact integration for "uniform" on [-1, 1] (units: its half-width), to 1 % for "gaussian"
    (standard deviations), and (n)^(1/a) Gamma(1 - 1/a) for P(X > x) = x^-a: times c^(1/a) where
    the tail is c x^-a (c = 1/2 for Student's t with 2 degrees). Infinite for a at most 1.

    Parameters
    ----------
    n_large, n_small
        Rows of the groups.
    tail
        ``"uniform"``, ``"gaussian"`` or the tail index a.

    Returns
    -------
    float
        0 or more where n_large is the larger.

    Raises
    ------
    OptionError
        An unknown tail, or groups without rows.

    Notes
    -----
    Cost: O(1).
    Held by: tests/reweight/test_subsampling.py::test_displacements_by_simulation

    References
    ----------
    .. [M311] Why does Throwing Away Data Improve Worst-Group Error?. Chaudhuri, 2023, ICML.

    Examples
    --------
    >>> [round(extreme_displacement(5000, 50, tail=tail), 2) for tail in ("uniform", "gaussian")]
    [0.02, 0.71]
    >>> round(extreme_displacement(5000, 50, tail=2.0) * 0.5**0.5, 1)
    39.9
    """
    if n_large < 1 or n_small < 1:
        raise OptionError(f"groups have {n_large} and {n_small} rows; give at least one each")

    def maximum(n: int) -> float:
        if tail == "uniform":
            return 1.0 - 2.0 / (n + 1)
        if tail == "gaussian":
            return float(ndtri((n - 0.375) / (n + 0.25)))  # Blom's scores
        assert not isinstance(tail, str)
        return math.exp(float(gammaln(1.0 - 1.0 / tail)) + math.log(n) / tail)

    if isinstance(tail, str) and tail not in ("uniform", "gaussian"):
        raise OptionError(
            f"Unknown tail {tail!r}. Choose one of 'uniform', 'gaussian', or give an index."
        )
    if not isinstance(tail, str):
        if not tail > 0:
            raise OptionError(f"tail is {tail!r}; an index is positive")
        if tail <= 1:
            return math.inf if n_large > n_small else math.nan
    return 0.5 * (maximum(n_large) - maximum(n_small))
