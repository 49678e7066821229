"""Functions of log weights alone: their mean, and how many rows they are worth."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dpdq.weights._vectors import as_log_weights

__all__ = ["effective_sample_size", "effective_size", "is_flat", "log_sum", "logmeanexp"]

_FLAT = 1e-12  # a spread of log weights that is rounding


def _kept(array: np.ndarray) -> np.ndarray:
    """Rows that count, so that a dropped row changes no bit of a sum."""
    kept = array > -np.inf
    return array if kept.all() else array[kept]


def logmeanexp(log_weights: Any) -> float:
    """Log of the mean weight, log(mean(exp(log_weights))), without leaving the floating range.

    Rows with -infinity count as zeros.

    Parameters
    ----------
    log_weights
        Shape (n,).

    Returns
    -------
    float

    Raises
    ------
    DataError
        If a value is NaN or infinite, or none is finite.

    Examples
    --------
    >>> logmeanexp([1000.0, 1000.0, float("-inf")])
    999.59...
    """
    array = as_log_weights(log_weights)
    return log_sum(array) - math.log(array.size)


def log_sum(array: np.ndarray) -> float:
    """Log of the sum of weights."""
    array = _kept(array)
    top = float(array.max())
    return top + math.log(float(np.exp(array - top).sum()))


def effective_sample_size(log_weights: Any) -> float:
    """Kish's effective sample size of importance weights.

        (sum w)^2 / sum w^2,   between 1 and the number of kept rows

    It is a fact about these rows, not about the law: where the heaviest rows of p were not drawn
    it looks large. See `pareto_khat`.

    Parameters
    ----------
    log_weights
        Shape (n,); the scale does not matter, -infinity drops a row.

    Returns
    -------
    float

    Raises
    ------
    DataError
        If a value is NaN or infinite, or none is finite.

    Notes
    -----
    Cost: O(n) time, O(n) memory.
    Held by: tests/test_weights.py::test_effective_size_is_n_over_one_plus_chi2

    References
    ----------
    .. [Kish1965] Survey Sampling. Kish, 1965, Wiley.

    Examples
    --------
    >>> effective_sample_size([0.0, 0.0, 0.0, float("-inf")])
    3.0
    """
    return effective_size(as_log_weights(log_weights))


def effective_size(array: np.ndarray) -> float:
    """Kish's size of checked log weights."""
    array = _kept(array)
    weights = np.exp(array - array.max())
    size = float(weights.sum()) ** 2 / float(np.square(weights).sum())
    return float(min(max(size, 1.0), array.size))


def is_flat(array: np.ndarray) -> bool:
    """Whether finite log weights are all equal, up to rounding."""
    top = float(array.max())
    return top - float(array.min()) <= _FLAT * max(1.0, abs(top))
