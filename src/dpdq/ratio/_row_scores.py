"""One score a row, larger is better: what importance weights can average.

scikit-learn's scorers return means, so that weights come too late for them. A score that is no
mean over rows (AUC, F1, R²) has no such form.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from dpdq.errors import DataError, InputTypeError, OptionError
from dpdq.ratio._common import Array

__all__ = ["SCORES", "row_scores", "scoring_of"]


def _neg_log_loss(model: Any, x: Any, y: Array) -> Array:
    if not callable(getattr(model, "predict_proba", None)):
        raise OptionError(
            f"{type(model).__name__} has no predict_proba, which 'neg_log_loss' needs; "
            "choose scoring='accuracy'"
        )
    probability = np.asarray(model.predict_proba(x), dtype=np.float64)
    classes = np.asarray(model.classes_)
    hit = y[:, None] == classes[None, :]
    of_truth = np.where(hit.any(axis=1), probability[np.arange(len(y)), hit.argmax(axis=1)], 0.0)
    return np.log(np.maximum(of_truth, np.finfo(np.float64).eps))


def _accuracy(model: Any, x: Any, y: Array) -> Array:
    return (np.asarray(model.predict(x)) == y).astype(np.float64)


def _neg_squared_error(model: Any, x: Any, y: Array) -> Array:
    return -_by_row((np.asarray(model.predict(x), dtype=np.float64) - y) ** 2)


def _neg_absolute_error(model: Any, x: Any, y: Array) -> Array:
    return -_by_row(np.abs(np.asarray(model.predict(x), dtype=np.float64) - y))


def _by_row(errors: Array) -> Array:
    return errors if errors.ndim == 1 else errors.mean(axis=tuple(range(1, errors.ndim)))


SCORES: dict[str, Callable[[Any, Any, Array], Array]] = {
    "neg_log_loss": _neg_log_loss,
    "accuracy": _accuracy,
    "neg_mean_squared_error": _neg_squared_error,
    "neg_mean_absolute_error": _neg_absolute_error,
}


def scoring_of(estimator: Any, scoring: Any) -> Any:
    """The scoring itself, or the default for this kind of estimator."""
    from sklearn.base import is_regressor

    if scoring is None:
        if is_regressor(estimator):
            return "neg_mean_squared_error"
        has = callable(getattr(estimator, "predict_proba", None))
        return "neg_log_loss" if has else "accuracy"
    if isinstance(scoring, str) and scoring not in SCORES:
        choices = ", ".join(map(repr, SCORES))
        raise OptionError(f"Unknown scoring {scoring!r}. Choose one of {choices}.")
    if not (isinstance(scoring, str) or callable(scoring)):
        raise InputTypeError(
            f"scoring has type {type(scoring).__name__}; give a name or a function"
        )
    return scoring


def row_scores(model: Any, x: Any, y: Array, scoring: Any) -> Array:
    """Scores of a fitted model, one a row."""
    call = SCORES[scoring] if isinstance(scoring, str) else scoring
    found = np.asarray(call(model, x, y), dtype=np.float64)
    if found.shape != (len(y),):
        raise DataError(
            f"scoring returned shape {found.shape} for {len(y)} rows; give a function "
            "(estimator, X, y) with one score a row (scorers of scikit-learn average before the "
            "weights come)"
        )
    return found
