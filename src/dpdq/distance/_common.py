"""Checks that the tests and distances of this room share."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np

from dpdq.errors import DataError, OptionError
from dpdq.kernels import check_points

__all__ = ["check_sides", "normal_quantile"]


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


def normal_quantile(level: float) -> float:
    """How many standard errors a two-sided normal interval of this level reaches."""
    if not 0.0 < level < 1.0:
        raise OptionError(f"level is {level}; expected a number between 0 and 1")
    return NormalDist().inv_cdf(0.5 + level / 2)
