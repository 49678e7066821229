"""Means under weights, with the standard error that counts each row or group once."""

from __future__ import annotations

import math

import numpy as np

from dpdq.results import Estimate

__all__ = ["ratio_mean"]

_METHOD = "ratio estimator, linearised"
_FEWEST_EFFECTIVE = 1.1  # with fewer, one observation is the answer and nothing measures its error


def ratio_mean(
    weights: np.ndarray, y: np.ndarray, labels: np.ndarray | None, level: float, reason: str
) -> Estimate:
    """Estimate sum(w y) / sum(w) over kept rows, with a linearised standard error.

    Rows with the same label are one observation. ``reason`` says why the weights are not to be
    trusted, and is handed on.
    """
    total = float(weights.sum())
    center = y[0]  # against cancellation where y is far from 0
    value = float(center + (weights * (y - center)).sum() / total)
    scores = weights * (y - value)
    unit = "row"
    if labels is not None:
        unit = "group"
        _, codes = np.unique(labels, return_inverse=True)
        scores, weights = np.bincount(codes, scores), np.bincount(codes, weights)
    if weights.size < 2:
        reason = f"one {unit} has no spread to measure"
        return Estimate(value, level=level, method=_METHOD, reason=reason)
    size = total**2 / float(np.square(weights).sum())
    if size < _FEWEST_EFFECTIVE:
        reason = f"one {unit} carries nearly all the weight, so nothing measures the error"
        return Estimate(value, level=level, method=_METHOD, reason=reason)
    error = math.sqrt(float(np.square(scores).sum()) * size / (size - 1)) / total
    width = _student_quantile(0.5 + level / 2, size - 1) * error
    return Estimate(value, value - width, value + width, error, level, _METHOD, reason)


def _student_quantile(probability: float, degrees: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(degrees, probability))
