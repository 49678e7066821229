"""The tail of the weights: a generalised Pareto law fitted to the largest.

    P(w - u > x | w > u) = (1 + k x / sigma)^(-1/k)

Its shape k says how many moments the weights have, about 1 / k. Excesses are carried as logs in
units of their first quartile, so that no tail is too heavy to be fitted: log weights may differ by
thousands, as sums over the pixels of an image or the tokens of a text do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from dpdq.weights._vectors import as_log_weights
from dpdq.weights.log_weights import is_flat

__all__ = ["FEWEST_ROWS", "ParetoTail", "fit_tail", "pareto_khat"]

FEWEST_ROWS = 21  # with fewer, the tail has fewer than five points
_FEWEST_TAIL_POINTS = 5


@dataclass(frozen=True)
class ParetoTail:
    """The largest weights, ascending, and the generalised Pareto law fitted to them.

    The excess over ``log_cutoff`` has shape ``khat`` (after the weak prior) and scale
    ``exp(log_scale)``.
    """

    rows: np.ndarray
    log_cutoff: float
    khat: float
    log_scale: float

    def log_quantiles(self) -> np.ndarray:
        """Log weights at the fitted law's quantiles (i - 1/2) / m, one for each of the m rows."""
        count = self.rows.size
        depth = -np.log1p(-(np.arange(1, count + 1) - 0.5) / count)
        grown = self.khat * depth
        with np.errstate(over="ignore"):
            excess = depth if self.khat == 0 else np.expm1(grown) / self.khat
            return np.logaddexp(self.log_cutoff, self.log_scale + np.log(excess))


def _tail_size(n: int) -> int:
    return math.ceil(min(n / 5, 3 * math.sqrt(n)))


def fit_tail(log_weights: np.ndarray, rows: np.ndarray) -> ParetoTail | str:
    """Fit the tail of kept log weights (``rows`` are their numbers), or say why there is none."""
    n = log_weights.size
    if is_flat(log_weights):
        return f"all {n:,} weights are equal"
    size = _tail_size(n)
    if size < _FEWEST_TAIL_POINTS:
        return f"{n:,} rows are too few to see a tail; {FEWEST_ROWS} is the least"
    cutoff = float(np.partition(log_weights, n - size - 1)[n - size - 1])
    places = np.flatnonzero(log_weights > cutoff)
    order = np.argsort(log_weights[places], kind="stable")
    places = places[order]
    tail = log_weights[places]
    distinct = 1 + int(np.count_nonzero(np.diff(tail, prepend=cutoff) > 0))
    if distinct <= _FEWEST_TAIL_POINTS:  # the cutoff is one of them
        values = f"only {distinct} distinct values" if distinct > 1 else "one value"
        return f"the largest weights take {values}, so they have no tail"
    # Log of the excess e^tail - e^cutoff, in units of the first quartile: no power of a weight
    # leaves the floating range, however heavy the tail.
    log_excess = tail + np.log(-np.expm1(cutoff - tail))
    unit = float(log_excess[int(tail.size / 4 + 0.5) - 1])
    shape, log_scale = _fit_generalised_pareto(log_excess - unit)
    khat = (tail.size * shape + 10 * 0.5) / (tail.size + 10)
    return ParetoTail(rows[places], cutoff, khat, log_scale + unit)


def _fit_generalised_pareto(log_x: np.ndarray) -> tuple[float, float]:
    """Shape and log scale of excesses x, ascending, with first quartile 1 (Zhang and Stephens).

    The posterior mean of theta = -shape / scale over their quantile-based prior, on a grid.
    """
    n = log_x.size
    points = 30 + int(math.sqrt(n))
    steps = np.arange(1, points + 1) - 0.5
    theta = math.exp(-min(log_x[-1], 700.0)) + (1 - np.sqrt(points / steps)) / 3

    def mean_log(theta: np.ndarray) -> np.ndarray:
        """Mean of log(1 - theta x): a shape for each theta."""
        means = np.empty(theta.size)
        for i, value in enumerate(theta):
            if value <= 0:
                log_theta = math.log(-value) if value < 0 else -math.inf
                means[i] = np.logaddexp(0.0, log_theta + log_x).mean()
            else:
                means[i] = np.log1p(-np.exp(math.log(value) + log_x)).mean()
        return means

    shapes = mean_log(theta)
    usable = (theta != 0) & np.isfinite(shapes) & (shapes != 0)
    theta, shapes = theta[usable], shapes[usable]
    log_likelihood = n * (np.log(-theta / shapes) - shapes - 1.0)
    share = np.exp(log_likelihood - log_likelihood.max())
    best = np.array([(theta * share).sum() / share.sum()])
    shape = float(mean_log(best)[0])
    if shape == 0:  # the exponential law
        return 0.0, math.log(float(np.exp(log_x).mean()))
    return shape, math.log(-shape / float(best[0]))


def pareto_khat(log_weights: Any) -> float | None:
    """Shape k-hat of the Pareto tail of importance weights.

    A generalised Pareto law is fitted to the min(n / 5, 3 sqrt(n)) largest of n kept weights, and
    its shape drawn towards 1/2 by a prior worth ten of them. Weights have about 1 / k-hat finite
    moments; their mean is usable below min(1 - 1 / log10 n, 0.7).

    None where there is no tail to fit: equal weights, fewer than 21 rows, or fewer than five
    distinct values above the tail's start. `Weights.khat_reason` tells which.

    Parameters
    ----------
    log_weights
        Shape (n,); the scale does not matter, -infinity drops a row.

    Returns
    -------
    float or None

    Raises
    ------
    DataError
        If a value is NaN or infinite, or none is finite.

    Notes
    -----
    Cost: O(n) time, O(n) memory.
    Held by: tests/test_weights.py::test_khat_of_exact_pareto_draws

    References
    ----------
    .. [Vehtari2024] Pareto Smoothed Importance Sampling. Vehtari, 2024, JMLR 25.
    .. [Zhang2009] A New and Efficient Estimation Method for the Generalized Pareto Distribution.
       Zhang, 2009, Technometrics 51.

    Examples
    --------
    >>> import numpy as np
    >>> draws = -0.5 * np.log(np.random.default_rng(3).uniform(size=100_000))
    >>> round(pareto_khat(draws), 1)
    0.5
    """
    array = as_log_weights(log_weights)
    rows = np.flatnonzero(array > -np.inf)
    tail = fit_tail(array[rows], rows)
    return None if isinstance(tail, str) else tail.khat
