"""Estimates under balancing weights, with standard errors that know the weights were estimated.

An estimate solves sum_i w_i s(y_i, x_i; estimate) = 0 over the rows of q, with weights that solve
equations of their own. Stacking both (M-estimation) and linearising gives one contribution a row,

    balancing   (w_i s_i - w_i c_i'B) / W  on q,   v_j (f_j - target)'B / V  on p,
                B = (sum h c c')^-1 sum h c s,   h_i = dw_i / d(c_i'l),   c = (1, f - target)
    a model     w_i s_i / W + (dE_w[s]/dtheta) psi_i,   psi the contributions to theta

and the variance is the sum of their squares, on both sides. For balancing weights (h = w) the
residual of y on the balanced functions takes the place of y: balancing what predicts y shrinks
the error of q, and the mean of p is known only as well as p was sampled. Population targets are
taken as exact.

Each row is one observation whatever its design weight. All of it holds only if P(Y|X) is the
same in q and p, and if the weights tend to dP/dQ on what y depends on.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.special import stdtrit

from dpdq.errors import DataError, OptionError
from dpdq.ratio._common import as_rows
from dpdq.results import Estimate, Result
from dpdq.reweight._columns import Rows
from dpdq.reweight._common import Array, independent_rows, map_blocks
from dpdq.reweight._linear import LinearModel
from dpdq.reweight._problem import Problem

__all__ = [
    "Coefficients",
    "Influence",
    "balancing_influence",
    "mean_estimate",
    "model_influence",
    "outcome",
    "regression_estimate",
]

_VALID = "valid only if P(Y|X) is the same in q and p"


@dataclasses.dataclass(frozen=True)
class Influence:
    """Contributions of the rows to an estimate, shape (n, m) on each side.

    ``n_fitted`` is the number of parameters that the weights took; ``p`` is None where the target
    is exact.
    """

    q: Array
    p: Array | None
    n_fitted: int


@dataclasses.dataclass(frozen=True, repr=False)
class Coefficients(Result):
    """Coefficients of a weighted linear regression.

    Attributes
    ----------
    names
        Of the coefficients; the first is the intercept.
    estimates
        One `Estimate` each.
    covariance
        Of the estimates, shape (m, m); NaN where no honest one exists.
    status
        When they hold.
    """

    names: tuple[str, ...]
    estimates: tuple[Estimate, ...]
    covariance: Array
    status: str = ""

    def __getitem__(self, name: str) -> Estimate:
        """The estimate of one coefficient, by its name."""
        if name not in self.names:
            shown = ", ".join(map(repr, self.names))
            raise OptionError(f"Unknown coefficient {name!r}. Choose one of {shown}.")
        return self.estimates[self.names.index(name)]


def outcome(y: Any, n: int, kept: Array) -> Array:
    """The outcome on all rows of q, finite where weights are positive; zero elsewhere."""
    try:
        values = np.asarray(y, dtype=np.float64)
    except (TypeError, ValueError):
        raise DataError(
            "y holds no numbers; give one number a row of q (0 and 1 for a class)"
        ) from None
    if values.shape != (n,):
        raise DataError(f"y has shape {values.shape}; expected ({n},), one value a row of q")
    wrong = kept & ~np.isfinite(values)
    if wrong.any():
        raise DataError(
            f"y: {int(wrong.sum())} of {int(kept.sum())} rows with weight are not finite (first at "
            f"row {int(np.argmax(wrong))}); drop them before the fit (weights_q=0)"
        )
    return np.where(kept, values, 0.0)


def balancing_influence(
    problem: Problem, weights: Array, slope: Array, scores: Array, active: Array | None = None
) -> Influence:
    """Contributions where the weights balance the functions of a problem.

    Parameters
    ----------
    weights
        Final weights on the problem's rows of q, any scale.
    slope
        dw / d(log w) of each row: the weights themselves, zero for rows at a cap.
    scores
        s at the rows of q with weighted mean zero, shape (n_q, m).
    active
        Functions whose balance binds; None for all.
    """
    if active is not None:
        problem = problem.select(np.flatnonzero(active))
    k, n = len(problem.functions), len(problem.q)
    target, sd = problem.target[:, None], problem.sd[:, None]

    def gaps(start: int, stop: int) -> Array:
        block = (problem.functions.block(problem.q, start, stop) - target) / sd
        return np.concatenate([np.ones((1, stop - start)), block])

    def part(start: int, stop: int) -> tuple[Array, Array]:
        c = gaps(start, stop)
        weighted = c * slope[start:stop]
        return weighted @ c.T, weighted @ scores[start:stop]

    grams, crosses = zip(*map_blocks(part, n), strict=True)
    gram, cross = np.sum(grams, axis=0), np.sum(crosses, axis=0)
    chosen = independent_rows(gram)
    coef = np.zeros_like(cross)
    if chosen:
        unit = np.sqrt(np.diag(gram)[chosen])
        inner = gram[np.ix_(chosen, chosen)] / np.outer(unit, unit)
        coef[chosen] = np.linalg.solve(inner, cross[chosen] / unit[:, None]) / unit[:, None]
    total = weights.sum()

    def residual(start: int, stop: int) -> Array:
        rest = scores[start:stop] - gaps(start, stop).T @ coef
        return rest * (weights[start:stop, None] / total)

    on_q = np.concatenate(map_blocks(residual, n))
    on_p = None
    if problem.p is not None and problem.weights_p is not None:
        p, weights_p = problem.p, problem.weights_p

        def moved(start: int, stop: int) -> Array:
            block = (problem.functions.block(p, start, stop) - target) / sd
            return block.T @ coef[1:] * (weights_p[start:stop, None] / weights_p.sum())

        on_p = np.concatenate(map_blocks(moved, len(p)))
    return Influence(on_q, on_p, max(len(chosen) - 1, 0) if k else 0)


def model_influence(
    model: LinearModel,
    problem: Problem,
    weights: Array,
    slope: Array,
    scores: Array,
    project: Callable[[Array], list[Array]],
    factors_q: Callable[[Array], list[Array]],
    factors_p: Callable[[Array], list[Array]],
) -> Influence:
    """Contributions where log w = theta'z is a fitted model.

    Parameters
    ----------
    model
        The fitted linear function of the balance functions.
    weights, slope, scores
        As in `balancing_influence`.
    project
        From dE_w[s]/dtheta, shape (t, m), to matrices M_1, M_2, ... of that shape, such that a row
        contributes sum_l factor_l (z'M_l) through theta.
    factors_q, factors_p
        From the linear predictor of rows to their factors (design weights left out).
    """
    total = weights.sum()
    q = problem.q

    def gradient(start: int, stop: int) -> Array:
        lifted = slope[start:stop, None] * scores[start:stop]
        return model.design(q, start, stop) @ lifted

    matrices = project(np.sum(map_blocks(gradient, len(q)), axis=0) / total)

    def through(rows: Rows, design: Array, factors: Callable[[Array], list[Array]]) -> Array:
        def part(start: int, stop: int) -> Array:
            z = model.design(rows, start, stop)
            parts = zip(factors(model.theta @ z), matrices, strict=True)
            moved = sum(factor[:, None] * (z.T @ matrix) for factor, matrix in parts)
            return design[start:stop, None] * moved

        return np.concatenate(map_blocks(part, len(rows)))

    on_q = scores * (weights[:, None] / total) + through(q, problem.weights_q, factors_q)
    p, weights_p = problem.sample_of_p("a propensity model")
    return Influence(on_q, through(p, weights_p, factors_p), len(model.theta) - 1)


def _covariance(influence: Influence, weights: Array) -> tuple[Array, float]:
    """Covariance of the estimates and the degrees of freedom of q's part."""
    size = float(weights.sum()) ** 2 / float(np.square(weights).sum())
    freedom = max(size - influence.n_fitted - 1, 1.0)
    centred = influence.q - influence.q.mean(axis=0)
    covariance = centred.T @ centred * (size / freedom)
    if influence.p is not None:
        moved = influence.p - influence.p.mean(axis=0)
        n_p = len(moved)
        covariance = covariance + moved.T @ moved * (n_p / max(n_p - 1, 1))
    return covariance, freedom


def _estimate(
    value: float, variance: float, freedom: float, level: float, method: str, reason: str
) -> Estimate:
    error = math.sqrt(max(variance, 0.0))
    width = float(stdtrit(freedom, 0.5 + level / 2)) * error
    return Estimate(value, value - width, value + width, error, level, method, reason)


def mean_estimate(
    weights: Array,
    influence: Influence | str,
    value: float,
    level: float,
    reason: str,
    over: str = "",
) -> Estimate:
    """The weighted mean with its interval; without one where ``influence`` is the reason why not.

    ``over`` names the population where it is not p.
    """
    if isinstance(influence, str):
        method = f"weighted mean{over}; {_VALID}"
        return Estimate(value, level=level, method=method, reason=_both(influence, reason))
    covariance, freedom = _covariance(influence, weights)
    method = f"weighted mean{over}, stacked estimating equations; {_VALID}"
    return _estimate(value, float(covariance[0, 0]), freedom, level, method, reason)


def _both(why_not: str, reason: str) -> str:
    return f"{why_not}. {reason}" if reason else why_not


def regression_scores(y: Array, x: Any, weights: Array) -> tuple[Array, Array]:
    """Coefficients of y on (1, x) under the weights, and each row's score, shape (n, m)."""
    design = np.column_stack([np.ones(len(y)), x])
    gram = (design * weights[:, None]).T @ design / weights.sum()
    if len(independent_rows(gram)) < len(gram):
        raise DataError(
            "x has linearly dependent columns (with the intercept) under the weights; drop one"
        )
    coef = np.linalg.solve(gram, (design * weights[:, None]).T @ y / weights.sum())
    return coef, np.linalg.solve(gram, (design * (y - design @ coef)[:, None]).T).T


def regression_estimate(
    coef: Array,
    names: tuple[str, ...],
    weights: Array,
    influence: Influence | str,
    level: float,
    reason: str,
    over: str = "",
) -> Coefficients:
    """Coefficients with their intervals; as `mean_estimate`."""
    if isinstance(influence, str):
        method, reason = f"weighted least squares{over}; {_VALID}", _both(influence, reason)
        bare = tuple(
            Estimate(float(value), level=level, method=method, reason=reason) for value in coef
        )
        return Coefficients(names, bare, np.full((len(coef), len(coef)), np.nan), reason)
    covariance, freedom = _covariance(influence, weights)
    freedom = max(freedom - len(coef) + 1, 1.0)
    method = f"weighted least squares{over}, stacked estimating equations; {_VALID}"
    estimates = tuple(
        _estimate(float(value), float(variance), freedom, level, method, reason)
        for value, variance in zip(coef, np.diag(covariance), strict=True)
    )
    return Coefficients(names, estimates, covariance, reason or _VALID)


def regressors(x: Any, n: int) -> tuple[Array, tuple[str, ...]]:
    """The regressors as a matrix with one row a row of q, and the names of the coefficients."""
    if x is None:
        raise OptionError("estimand='regression' needs x, the regressors, shape (n_q, d)")
    columns = getattr(x, "columns", None)
    matrix = as_rows(x, "x")
    if len(matrix) != n:
        raise DataError(f"x has {len(matrix)} rows where q has {n}; give one row a row of q")
    names = [str(each) for each in columns] if columns is not None else []
    if len(names) != matrix.shape[1]:
        names = [f"x{j}" for j in range(matrix.shape[1])]
    return matrix, ("intercept", *names)
