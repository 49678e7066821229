"""Outcome models of `dpdq.reweight.advice`: linear or logistic in the margins, or anybody's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.linalg import eigh
from scipy.special import expit, fdtrc

from dpdq.errors import DataError, OptionError
from dpdq.ratio._common import softplus
from dpdq.ratio.classifier import weight_keyword
from dpdq.reweight._common import Array, independent_rows
from dpdq.reweight._linear import LinearModel
from dpdq.reweight._logistic_path import LogisticPath
from dpdq.reweight._problem import Problem

__all__ = [
    "estimation_costs",
    "estimator_losses",
    "fit_model",
    "hausman",
    "held_out_gain",
    "label_numbers",
    "linear_losses",
    "scaled_design",
]

_RIDGE = 1e-9
_UNTOUCHED = 1e-4  # variance of a movement in units of the variance of the estimate


def scaled_design(
    problem: Problem, center: Array, covariance: Array
) -> tuple[LinearModel, list[str]]:
    """Independent functions scaled to variance one, and their names."""
    kept = np.asarray(independent_rows(covariance), dtype=np.intp)
    functions = problem.functions.select(kept)
    scale = np.sqrt(np.diag(covariance)[kept])
    line = LinearModel(functions, center[kept], scale, np.zeros(1 + len(kept)))
    return line, [margin.name for margin in functions.margins]


def label_numbers(y: Any, n: int, model: str) -> tuple[Array, str]:
    """Labels as numbers (0 and 1 for classes), and the model that fits them."""
    values = np.asarray(y)
    if values.shape != (n,):
        raise DataError(f"y has shape {values.shape}; expected ({n},), one label a row of q")
    missing = np.array([v is None or v != v for v in values.tolist()])
    if missing.any():
        raise DataError(
            f"y: {int(missing.sum())} of {n} labels are missing (first at row "
            f"{int(np.argmax(missing))}); drop these rows before the fit"
        )
    found = np.unique(values)
    if model == "auto":
        model = "logistic" if len(found) == 2 else "linear"
    if model == "logistic":
        if len(found) != 2:
            raise OptionError(
                f"y has {len(found)} different values; a logistic model needs two, give "
                "model='linear' for numbers"
            )
        return (values == found[1]).astype(np.float64), model
    try:
        numbers = values.astype(np.float64)
    except (TypeError, ValueError):
        raise DataError("y holds no numbers; give numbers, or two classes") from None
    if not np.isfinite(numbers).all():
        raise DataError("y holds values that are not finite; drop these rows before the fit")
    return numbers, model


def fit_model(z: Array, y: Array, weights: Array, model: str) -> Array:
    """Weighted maximum likelihood, with a ridge of 1e-9 on scaled features."""
    share = weights / weights.sum()
    if model == "linear":
        gram = (z * share) @ z.T
        gram[np.diag_indices(len(gram))] += _RIDGE
        return np.linalg.solve(gram, z @ (share * y))
    path = LogisticPath(z, (2 * share * (1 - y))[:, None], (2 * share * y)[:, None])
    return path.solve(_RIDGE, np.zeros((1, len(z))), None, 1e-18)[0][0]


def _losses(z: Array, y: Array, theta: Array, model: str) -> Array:
    eta = theta @ z
    return (y - eta) ** 2 if model == "linear" else softplus(eta) - y * eta


Losses = Callable[[Array, Array, Array], Array]
"""Losses of the rows held out, from the rows trained on, their weights, and the rows held out."""


def linear_losses(z: Array, y: Array, model: str) -> Losses:
    def losses(train: Array, weights: Array, held: Array) -> Array:
        theta = fit_model(z[:, train], y[train], weights, model)
        return _losses(z[:, held], y[held], theta, model)

    return losses


def estimator_losses(estimator: Any, X: Any, y: Any, kept: Array, model: str) -> Losses:
    """Losses of a scikit-learn estimator."""
    from sklearn.base import clone, is_classifier
    from sklearn.utils import _safe_indexing

    if X is None:
        raise OptionError("an estimator of your own needs X, the rows of q as it takes them")
    places, labels = np.flatnonzero(kept), np.asarray(y)
    if len(kept) != (X.shape[0] if hasattr(X, "shape") else len(X)):
        raise DataError(f"X has another number of rows than q, which has {len(kept)}")
    weight_keyword(estimator, np.ones(1))
    classify = is_classifier(estimator)
    if classify and model != "logistic":
        raise OptionError("a classifier is judged with two classes; y has more")

    def losses(train: Array, weights: Array, held: Array) -> Array:
        made: Any = clone(estimator)
        known, new = places[train], places[held]
        weights = weights / weights.mean()
        made.fit(_safe_indexing(X, known), labels[known], **weight_keyword(made, weights))
        if not classify:
            return (labels[new].astype(float) - made.predict(_safe_indexing(X, new))) ** 2
        found = made.predict_proba(_safe_indexing(X, new))
        column = (labels[new] == made.classes_[1]).astype(int)
        return -np.log(np.clip(found[np.arange(len(new)), column], 1e-15, 1.0))

    return losses


def held_out_gain(losses: Losses, folds: Array, design: Array, weights: Array) -> Array:
    gain = np.zeros(len(folds))
    for fold in np.unique(folds):
        train, held = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        plain = losses(train, design[train], held)
        gain[held] = plain - losses(train, weights[train], held)
    return gain


def hausman(
    z: Array, y: Array, design: Array, weights: Array, model: str
) -> tuple[float | None, int | None, float | None]:
    """Statistic, degrees of freedom and p-value of "weighting moves no coefficient"."""
    parts, thetas = [], []
    for each in (design, weights):
        share = each / each.sum()
        theta = fit_model(z, y, each, model)
        eta = theta @ z
        mean, v = (eta, np.ones(len(y))) if model == "linear" else (expit(eta), None)
        v = mean * (1 - mean) if v is None else v
        bread = (z * (share * v)) @ z.T
        bread[np.diag_indices(len(bread))] += _RIDGE
        parts.append(np.linalg.solve(bread, z * (share * (y - mean))))
        thetas.append(theta)
    moved, difference = parts[1] - parts[0], thetas[1] - thetas[0]
    size = float(weights.sum()) ** 2 / float(np.square(weights).sum())
    # directions that weighting does not touch have no variance: leave them out, in the unit of
    # the unweighted fit's own errors
    unit = parts[0] @ parts[0].T
    unit[np.diag_indices(len(unit))] += 1e-12 * float(np.trace(unit))
    values, vectors = eigh(moved @ moved.T, unit)
    real = values > _UNTOUCHED
    freedom = int(real.sum())
    rest = size - len(z) - freedom
    if not freedom or rest < 1:
        return None, None, None
    along = (vectors[:, real].T @ difference) ** 2 / values[real]
    statistic = float(along.sum()) * rest / size  # Hotelling's, with the effective rows
    return statistic, freedom, float(fdtrc(freedom, rest, statistic / freedom))


def estimation_costs(
    problem: Problem,
    line: LinearModel,
    z: Array,
    y: Array,
    design: Array,
    weights: Array,
    model: str,
) -> tuple[float | None, float | None]:
    """What estimation costs on p without and with weights, if the model is right."""
    theta = fit_model(z, y, design, model)

    def v(block: Array) -> Array:
        eta = theta @ block
        return np.ones(block.shape[1]) if model == "linear" else expit(eta) * expit(-eta)

    def information(block: Array, share: Array) -> Array:
        return (block * (share * v(block))) @ block.T

    share = weights / weights.sum()
    info_w = information(z, share)
    if problem.p is None or problem.weights_p is None:
        info_p = info_w
    else:
        info_p = information(line.matrix(problem.p), problem.weights_p / problem.weights_p.sum())
    costs = []
    for each in (design / design.sum(), share):
        bread = information(z, each)
        values = np.linalg.eigvalsh(bread)
        if values[0] <= 1e-10 * values[-1]:  # a level that weights drop: its coefficient is lost
            costs.append(None)
            continue
        inverse = np.linalg.inv(bread)
        noise = information(z, each**2)
        costs.append(float(np.trace(info_p @ inverse @ noise @ inverse)) / 2)
    return costs[0], costs[1]
