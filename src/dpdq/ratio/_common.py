"""What the ratio estimators share: checks of arrays and weights, content hashes, one loss.

The loss is the balanced logistic loss

    loss(log r) = ½ E_q[log(1 + r)] + ½ E_p[log(1 + 1/r)],

proper (the true r alone minimises it), bounded for bounded log r, symmetric in q and p, and equal
to log 2 for the constant ratio r = 1, whatever the sizes of the two samples.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import expit

from dpdq._random import mix64
from dpdq.errors import DataError, InputTypeError

__all__ = [
    "Array",
    "as_rows",
    "as_weights",
    "content_folds",
    "content_hash",
    "fit_affine",
    "logistic_losses",
    "softplus",
    "unit_numbers",
    "validation_split",
]

Array = np.ndarray[Any, Any]

_GOLDEN = 0x9E3779B97F4A7C15
_MISSING_BITS = np.uint64(0x7FF8000000000000)


def as_rows(x: object, side: str, *, width: int | None = None, missing: bool = False) -> Array:
    """Check that ``x`` is a matrix of finite numbers (NaN allowed on demand); float64 out."""
    try:
        array = np.asarray(x, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputTypeError(
            f"{side} has type {type(x).__name__} and does not become numbers; give a 2-D array of "
            "floats (dpdq.data.features.Features makes one out of a table)"
        ) from None
    if array.ndim != 2:
        raise DataError(
            f"{side} has shape {array.shape}; expected 2 dimensions, (n_samples, n_features)"
        )
    if array.shape[1] == 0:
        raise DataError(f"{side} has no column; expected at least 1")
    if width is not None and array.shape[1] != width:
        raise DataError(f"{side} has {array.shape[1]} columns; expected {width}, as in the fit")
    # A finite sum proves finite terms at a fraction of the cost of looking at each of them.
    if not np.isfinite(array.sum()):
        bad = np.isinf(array) if missing else ~np.isfinite(array)
        if bad.any():
            row, column = (int(i) for i in np.argwhere(bad)[0])
            wanted = "finite numbers or NaN" if missing else "finite numbers"
            raise DataError(
                f"{side} holds {int(bad.sum())} values that are not {wanted} "
                f"(first at row {row}, column {column}); drop or impute them"
            )
    return array


def as_weights(weights: object, n: int, side: str) -> Array:
    """Weights scaled to mean one over the rows they keep; uniform for None."""
    if weights is None:
        return np.ones(n)
    array = np.asarray(weights, dtype=np.float64)
    if array.shape != (n,):
        raise DataError(f"weights_{side} has shape {array.shape}; expected ({n},), one a row")
    if not np.isfinite(array).all() or (array < 0).any():
        raise DataError(f"weights_{side} holds negative or non-finite values; expected 0 or more")
    kept = array > 0
    if not kept.any():
        raise DataError(f"weights_{side} are all zero; expected at least one positive weight")
    return array / array[kept].mean()


def content_hash(x: Array, seed: int = 0) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """A uint64 a row that depends on its values alone; -0.0 equals 0.0 and NaN equals NaN."""
    total = np.zeros(len(x), dtype=np.uint64)
    for j in range(x.shape[1]):
        column = np.ascontiguousarray(x[:, j], dtype=np.float64) + 0.0  # -0.0 becomes 0.0
        bits = column.view(np.uint64)
        bits = np.where(np.isnan(column), _MISSING_BITS, bits)
        total += mix64(bits ^ np.uint64(((j + 1) * _GOLDEN + seed * 0xD1B54A32D192ED03) % 2**64))
    return mix64(total)


def content_folds(q: Array, p: Array, n_folds: int, seed: int = 0) -> tuple[Array, Array]:
    """Fold numbers by content, balanced in size; equal rows share a fold on both sides."""
    hashes = np.concatenate([content_hash(q, seed), content_hash(p, seed)])
    _, inverse, counts = np.unique(hashes, return_inverse=True, return_counts=True)
    # The distinct rows in hash order are cut where the cumulated rows pass k/K of all.
    middle = np.cumsum(counts) - counts / 2
    folds = np.minimum((middle * n_folds / len(hashes)).astype(np.int64), n_folds - 1)[inverse]
    return folds[: len(q)], folds[len(q) :]


def validation_split(
    q: Array, p: Array, fraction: float, seed: int, *, at_least: int = 5
) -> tuple[Array, Array] | None:
    """Masks of held-out rows by content, or None where a side has too few rows to spare.

    The rule looks at a row's values alone, so that it is symmetric in q and p and equal rows fall
    on the same side of the split.
    """
    limit = np.uint64(min(fraction, 1.0) * float(2**64 - 2**12))
    held_q, held_p = content_hash(q, seed) < limit, content_hash(p, seed) < limit
    for held in (held_q, held_p):
        if held.sum() < at_least or (~held).sum() < at_least:
            return None
    return held_q, held_p


def softplus(x: Array) -> Array:
    """log(1 + e^x) without overflow."""
    out = np.abs(x)
    np.negative(out, out=out)
    np.exp(out, out=out)
    np.log1p(out, out=out)
    out += np.maximum(x, 0.0)
    return out


def logistic_losses(log_ratio_q: Array, log_ratio_p: Array) -> tuple[Array, Array]:
    """Each row's share of the balanced logistic loss: log(1 + r) on q, log(1 + 1/r) on p."""
    return softplus(log_ratio_q), softplus(-log_ratio_p)


def fit_affine(
    score_q: Array,
    score_p: Array,
    weights_q: Array,
    weights_p: Array,
) -> tuple[float, float]:
    """Intercept a and slope b of log r = a + b score by balanced logistic loss.

    A normal prior around (0, 1), worth one row, keeps both finite where the held-out rows are
    separable and leaves (0, 1) untouched where they say nothing; a negative slope becomes zero.
    """
    z = np.concatenate([score_q, score_p])
    sign = np.concatenate([np.ones(len(score_q)), -np.ones(len(score_p))])
    n = 2.0 / (1.0 / len(score_q) + 1.0 / len(score_p))
    share = np.concatenate([weights_q / weights_q.sum(), weights_p / weights_p.sum()]) / 2
    prior, strength = np.array([0.0, 1.0]), 1.0 / n
    design = np.column_stack([np.ones(len(z)), z])
    theta = prior.copy()

    def objective(theta: Array) -> float:
        gap = theta - prior
        return float(share @ softplus(sign * (design @ theta)) + strength * gap @ gap / 2)

    value = objective(theta)
    for _ in range(50):
        s = expit(sign * (design @ theta))
        gradient = design.T @ (share * sign * s) + strength * (theta - prior)
        curvature = share * s * (1 - s)
        hessian = (design.T * curvature) @ design + strength * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        scale = 1.0
        while objective(theta - scale * step) > value + 1e-15 and scale > 1e-4:
            scale /= 2
        theta = theta - scale * step
        new = objective(theta)
        if abs(value - new) < 1e-12:
            break
        value = new
    intercept, slope = float(theta[0]), float(theta[1])
    if slope < 0:
        intercept, slope = 0.0, 0.0
    return intercept, slope


def unit_numbers(units_q: object, units_p: object, n_q: int, n_p: int) -> Array:
    """Numbers 0, 1, ... of the units that rows belong to, q first; a label counts on both sides.

    Rows of a side without labels are units of their own.
    """
    sides: list[Array | None] = []
    for side, units, n in (("q", units_q, n_q), ("p", units_p, n_p)):
        labels = None if units is None else np.asarray(units)
        if labels is not None and labels.shape != (n,):
            raise DataError(f"units_{side} has shape {labels.shape}; expected ({n},), one a row")
        sides.append(labels)
    left, right = sides
    if left is not None and right is not None:
        return np.unique(np.concatenate([left, right]), return_inverse=True)[1]
    if left is not None:
        numbers = np.unique(left, return_inverse=True)[1]
        return np.concatenate([numbers, numbers.max() + 1 + np.arange(n_p)])
    if right is not None:
        numbers = np.unique(right, return_inverse=True)[1]
        return np.concatenate([numbers.max() + 1 + np.arange(n_q), numbers])
    return np.arange(n_q + n_p)
