"""Gradient norms that have a closed form: softmax and logistic regression."""

from __future__ import annotations

from typing import Any

import numpy as np

from dpdq.errors import DataError

__all__ = ["residual_norms", "softmax_regression_gradient_norms"]


def softmax_regression_gradient_norms(
    x: Any, logits: Any, labels: Any, *, intercept: bool = True
) -> np.ndarray:
    """Per-sample gradient norms of softmax or logistic regression, in closed form.

        |grad l_i| = |p_i - e_{y_i}| sqrt(|x_i|^2 + 1),   p_i = softmax(logits_i)

    Without the factor |x_i| it is the EL2N score. Also the last layer's norm of any classifier,
    with its last features as ``x``.

    Parameters
    ----------
    x
        Features, shape (n, d).
    logits
        Shape (n, c) for c classes, or (n,) for two (logistic regression, one weight vector).
    labels
        Class numbers from 0, shape (n,).
    intercept
        Whether an intercept is trained.

    Returns
    -------
    ndarray of shape (n,)
        Norms.

    Raises
    ------
    DataError
        Shapes that do not fit, labels that are no classes, values that are not finite.

    Notes
    -----
    Cost: O(n (d + c)) time, O(n (d + c)) memory.
    Held by: tests/test_gradients.py::test_softmax_regression_equals_the_module

    Examples
    --------
    >>> from dpdq.gradients import softmax_regression_gradient_norms
    >>> softmax_regression_gradient_norms([[3.0, 4.0]], [0.0], [1], intercept=False)
    array([2.5])
    """
    features = np.asarray(x, dtype=np.float64)
    scores = np.asarray(logits, dtype=np.float64)
    n = len(features)
    if features.ndim != 2 or scores.ndim not in (1, 2) or len(scores) != n:
        raise DataError(
            f"x has shape {features.shape} and logits {scores.shape}; expected (n, d) and (n,) or "
            "(n, c)"
        )
    if not (np.isfinite(features).all() and np.isfinite(scores).all()):
        raise DataError("x or logits hold missing or infinite values; drop these rows")
    binary = scores.ndim == 1
    if binary:
        scores = np.column_stack([np.zeros(n), scores])
    residual = residual_norms(scores, labels, logits=True)
    if binary:  # the two-class residual holds the same number twice
        residual = residual / np.sqrt(2.0)
    return residual * np.sqrt(np.einsum("ij,ij->i", features, features) + float(intercept))


def residual_norms(scores: np.ndarray, labels: Any, *, logits: bool) -> np.ndarray:
    """|p_i - e_{y_i}| without cancellation where p_y is near 1.

        |p - e_y|^2 = (sum_{k != y} p_k)^2 + sum_{k != y} p_k^2

    Parameters
    ----------
    scores
        Logits or probabilities, shape (n, c).
    labels
        Class numbers from 0, shape (n,).
    logits
        Whether ``scores`` are logits.

    Returns
    -------
    ndarray of shape (n,)
        From 0 to sqrt(2).

    Raises
    ------
    DataError
        Labels that are no whole numbers from 0 to c - 1, one a row.
    """
    n, classes = scores.shape
    codes = np.asarray(labels)
    if codes.shape != (n,):
        raise DataError(f"labels have shape {codes.shape}; expected ({n},), one a row")
    if codes.dtype.kind == "f" and (codes == np.floor(codes)).all():
        codes = codes.astype(np.int64)
    if codes.dtype.kind not in "iu" or (codes < 0).any() or (codes >= classes).any():
        raise DataError(
            f"labels must be class numbers from 0 to {classes - 1}, the columns of the scores"
        )
    if logits:
        others = np.exp(scores - scores.max(axis=1, keepdims=True))
        others /= others.sum(axis=1, keepdims=True)
    else:
        others = np.array(scores, dtype=np.float64)
    others[np.arange(n), codes] = 0.0
    return np.sqrt(others.sum(axis=1) ** 2 + np.einsum("ij,ij->i", others, others))
