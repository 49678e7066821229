"""Metrics with their influence functions, and the intervals made of them.

A metric is a function of weighted means over rows. Its influence function psi, one number a row,
is the change of the metric when a little weight goes to that row; psi has weighted mean zero, and
sum_i w_i psi_i / sum_i w_i is the metric's error to first order.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from dpdq.results import Estimate
from dpdq.shift._common import class_text, clustered_variance, effective_count, t_quantile

__all__ = ["Metric", "Task", "average", "estimate_of", "interval", "metrics_of"]


@dataclasses.dataclass(frozen=True)
class Task:
    """What is predicted: the kind, and the classes in order where there are any."""

    kind: str
    classes: np.ndarray | None


@dataclasses.dataclass(frozen=True)
class Metric:
    """A point estimate with its influence function; ``psi`` has weighted mean zero."""

    value: float
    psi: np.ndarray
    bounds: tuple[float, float]
    reason: str = ""


# --------------------------------------------------------------------------------------- metrics


def metrics_of(
    y: np.ndarray, prediction: np.ndarray, task: Task, w: np.ndarray
) -> dict[str, Metric]:
    """All metrics of the task at the weights ``w``."""
    if task.kind == "regression":
        return _regression(y, prediction, w)
    assert task.classes is not None
    if task.kind == "probability":
        positive = y == task.classes[-1]
        return {
            "roc_auc": _auc(positive, prediction, w),
            "log_loss": _mean(_log_loss(positive, prediction), w, (0.0, np.inf)),
            "brier": _mean((prediction - positive) ** 2, w, (0.0, 1.0)),
            "accuracy": _mean((prediction >= 0.5) == positive, w, (0.0, 1.0)),
        }
    right = y == prediction
    return {
        "accuracy": _mean(right, w, (0.0, 1.0)),
        "balanced_accuracy": _balanced(y, right, task.classes, w),
    }


def _log_loss(positive: np.ndarray, probability: np.ndarray) -> np.ndarray:
    tiny = 1e-15
    clipped = np.clip(probability, tiny, 1 - tiny)
    return -np.where(positive, np.log(clipped), np.log1p(-clipped))


def average(values: np.ndarray, w: np.ndarray) -> float:
    """Weighted mean."""
    return float(np.dot(w, values) / w.sum())


def _mean(loss: np.ndarray, w: np.ndarray, bounds: tuple[float, float]) -> Metric:
    loss = loss.astype(np.float64)
    value = average(loss, w)
    return Metric(value, loss - value, bounds)


def _balanced(y: np.ndarray, right: np.ndarray, classes: np.ndarray, w: np.ndarray) -> Metric:
    psi, recalls = np.zeros(len(y)), []
    for label in classes:
        inside = y == label
        share = average(inside, w)
        if share == 0:
            return _none(len(y), f"no row of class {class_text(label)}")
        recall = average(inside & right, w) / share
        recalls.append(recall)
        psi += inside * (right - recall) / share / len(classes)
    return Metric(float(np.mean(recalls)), psi, (0.0, 1.0))


def _none(n: int, reason: str) -> Metric:
    return Metric(float("nan"), np.zeros(n), (-np.inf, np.inf), reason)


def _auc(positive: np.ndarray, score: np.ndarray, w: np.ndarray) -> Metric:
    """Weighted ROC AUC with ties half, and DeLong's placements as its influence function."""
    share = average(positive, w)
    if share in (0.0, 1.0):
        return _none(len(score), "labels of one class only")
    values, place = np.unique(score, return_inverse=True)
    up = np.bincount(place, weights=w * positive, minlength=len(values))
    down = np.bincount(place, weights=w * ~positive, minlength=len(values))
    below = (np.cumsum(down) - down / 2) / down.sum()  # share of negatives a score beats
    above = 1 - (np.cumsum(up) - up / 2) / up.sum()  # share of positives that beat a score
    value = float(np.dot(up, below) / up.sum())
    psi = np.where(positive, (below[place] - value) / share, (above[place] - value) / (1 - share))
    return Metric(value, psi, (0.0, 1.0))


def _regression(y: np.ndarray, prediction: np.ndarray, w: np.ndarray) -> dict[str, Metric]:
    error = prediction - y
    squared = _mean(error**2, w, (0.0, np.inf))
    root = np.sqrt(squared.value)
    away = (y - average(y, w)) ** 2
    variance = average(away, w)
    if variance > 0:
        psi = -(error**2 - squared.value / variance * away) / variance
        r2 = Metric(1 - squared.value / variance, psi, (-np.inf, 1.0))
    else:
        r2 = _none(len(y), "the label is constant")
    return {
        "mae": _mean(np.abs(error), w, (0.0, np.inf)),
        "rmse": Metric(float(root), squared.psi / (2 * root if root else 1.0), (0.0, np.inf)),
        "r2": r2,
        "mean_error": _mean(error, w, (-np.inf, np.inf)),
    }


# ------------------------------------------------------------------------------------- intervals


def interval(metric: Metric, w: np.ndarray, codes: np.ndarray | None, method: str) -> Estimate:
    """Interval of a weighted metric from its influence function."""
    if metric.reason:
        return Estimate(None, method=method, reason=metric.reason)
    error = np.sqrt(clustered_variance(w * metric.psi, codes)) / w.sum()
    return estimate_of(metric.value, float(error), effective_count(w, codes), metric.bounds, method)


def estimate_of(
    value: float, error: float, count: float, bounds: tuple[float, float], method: str
) -> Estimate:
    """A t interval; a Wilson interval for what lies between 0 and 1."""
    if not np.isfinite(error) or count < 2:
        reason = "fewer than two effective units: one row or unit carries all weight"
        return Estimate(value, standard_error=None, method=method, reason=reason)
    t = t_quantile(0.95, count - 1)
    if bounds == (0.0, 1.0) and 0 <= value <= 1:
        # Wilson's interval at the number of rows that would give this standard error
        spread = value * (1 - value)
        rows = spread / error**2 if error > 0 and spread > 0 else count
        centre = (value + t**2 / (2 * rows)) / (1 + t**2 / rows)
        half = t / (1 + t**2 / rows) * np.sqrt(spread / rows + t**2 / (4 * rows**2))
        low, high = max(centre - half, 0.0), min(centre + half, 1.0)
        low, high = min(low, value), max(high, value)
    elif error == 0:
        reason = "all rows agree, so that no standard error exists"
        return Estimate(value, standard_error=0.0, method=method, reason=reason)
    else:
        low, high = max(value - t * error, bounds[0]), min(value + t * error, bounds[1])
    return Estimate(value, float(low), float(high), standard_error=error, method=method)
