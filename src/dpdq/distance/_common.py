"""Checks that the tests and distances of this room share."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np

from dpdq.errors import DataError, OptionError
from dpdq.kernels import check_points

__all__ = ["check_sides", "check_weights", "normal_quantile"]


def check_sides(q: np.ndarray, p: np.ndarray, minimum: int) -> tuple[np.ndarray, np.ndarray]:
    """Both samples as float64 points with the same columns and at least so many rows."""
    q, p = check_points(q, "q"), check_points(p, "p")
    if q.shape[1] != p.shape[1]:
        raise DataError(
            f"q has {q.shape[1]} features and p has {p.shape[1]}; both need the same columns"
        )
    for side, points in (("q", q), ("p", p)):
        if len(points) < minimum:
            rows = "1 row" if len(points) == 1 else f"{len(points)} rows"
            raise DataError(f"{side} has {rows}; expected at least {minimum}")
    return q, p


def check_weights(weights: np.ndarray | None, n: int, side: str) -> np.ndarray:
    """Weights of the rows of a side that sum to one; uniform where none are given."""
    if weights is None:
        return np.full(n, 1.0 / n)
    values = np.asarray(weights, dtype=np.float64)
    if values.shape != (n,):
        raise DataError(f"weights_{side} has shape {values.shape}; expected ({n},)")
    if not np.isfinite(values).all() or (values < 0).any() or values.sum() <= 0:
        raise DataError(f"weights_{side} must be finite, not negative, and not all zero")
    values = values / values.max()
    return values / values.sum()


def normal_quantile(level: float) -> float:
    """How many standard errors a two-sided normal interval of this level reaches."""
    if not 0.0 < level < 1.0:
        raise OptionError(f"level is {level}; expected a number between 0 and 1")
    return NormalDist().inv_cdf(0.5 + level / 2)
