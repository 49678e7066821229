"""Inverse propensity weighting: a ridge logistic model of r, believed as it stands."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy.special import expit

from dpdq.errors import OptionError
from dpdq.reweight._base import ExtendingWeighter
from dpdq.reweight._columns import Rows
from dpdq.reweight._common import Array, Solution, check_choice, check_positive, map_blocks
from dpdq.reweight._linear import LinearModel, distinct_rows, pooled_design
from dpdq.reweight._logistic_path import LogisticPath
from dpdq.reweight._problem import Problem
from dpdq.reweight.estimates import Influence, model_influence

__all__ = ["InversePropensityWeighting"]

_LARGEST, _SMALLEST = 10.0, 1e-5  # ends of the path, in nats of loss per squared coefficient
_RUNAWAY = 100.0  # a log odds that no rows can tell: some margin tells a side without error
_SEPARATED = 1e-7  # nats a row
_COPIES = 20  # rows of a cell above which they are dealt over the folds


class InversePropensityWeighting(ExtendingWeighter):
    """Weights from a ridge logistic model that tells p from q.

        log r(x) = a + f(x)'b,  minimising  ½ E_q[log(1 + r)] + ½ E_p[log(1 + 1/r)] + ½ penalty |b|²
        w_i = b_i r(x_i) / mean

    Each side has half of the weight, so that the odds are r itself: the factor n_q / n_p between
    the odds of membership and r needs no correction. The margins need not balance, and do so less
    the stronger the penalty; look at ``diagnostics()``. Misleads where log r is curved in the
    margins given.

    Parameters
    ----------
    penalty
        On coefficients of functions scaled to variance one; ``"cv"`` chooses it by
        cross-validation from ``n_penalties`` values between 10 and 1e-5.
    n_penalties, n_folds
        Length of the path and number of folds.
    choice
        ``"min"``: the penalty with the least held-out loss. ``"one_se"``: the largest within one
        standard error of it, steadier weights with more bias.
    bins
        Cut numbers at this many quantiles, which lets log r bend and makes rows coincide (and
        the path fast); None keeps them linear.
    cap
        Largest weight, in units of the mean weight; None for no cap. It is a bias towards q.
    not_converged
        ``"raise"``, or ``"keep"`` to hand the last iterate back with ``converged_`` False.

    Attributes
    ----------
    coef_, intercept_
        Of log r, in the order of ``margins_``, shape (k,) and a number.
    penalty_
        The penalty used.
    penalties_, losses_, loss_errors_
        The path, its mean held-out loss in nats and the standard error over folds; None without
        cross-validation.

    Notes
    -----
    Cost: O(c k f) time a penalty for f folds, c distinct rows and k margins, O(c (k + f)) memory.
    Held by: tests/reweight/test_propensity.py::test_equals_scikit_learn

    Rows that agree on all covariates stay in one fold unless there are 20 or more of them.
    Intervals of ``estimate`` leave out the bias of the penalty and of the cap.

    References
    ----------
    .. [Rosenbaum1983] The Central Role of the Propensity Score in Observational Studies for Causal
       Effects. Rosenbaum, 1983, Biometrika 70.
    .. [Lunceford2004] Stratification and Weighting via the Propensity Score in Estimation of Causal
       Treatment Effects: A Comparative Study. Lunceford, 2004, Statistics in Medicine 23.

    Examples
    --------
    >>> import numpy as np
    >>> from dpdq.reweight import InversePropensityWeighting
    >>> rng = np.random.default_rng(0)
    >>> q, p = rng.normal(0, 1, (2000, 2)), rng.normal(0.3, 1, (2000, 2))
    >>> model = InversePropensityWeighting(penalty=0.0).fit(q=q, p=p)
    >>> bool(abs(model.weights_ @ q[:, 0] / 2000 - p[:, 0].mean()) < 0.05)
    True
    """

    coef_: Array
    intercept_: float
    penalty_: float
    penalties_: Array | None
    losses_: Array | None
    loss_errors_: Array | None
    _model: LinearModel
    _clip: float

    def __init__(
        self,
        *,
        penalty: float | str = "cv",
        n_penalties: int = 50,
        n_folds: int = 10,
        choice: str = "min",
        bins: int | None = None,
        cap: float | None = None,
        not_converged: str = "raise",
    ) -> None:
        self.penalty = penalty
        self.n_penalties = n_penalties
        self.n_folds = n_folds
        self.choice = choice
        self.bins = bins
        self.cap = cap
        self.not_converged = not_converged

    def _check_options(self) -> None:
        if isinstance(self.penalty, str):
            if self.penalty != "cv":
                raise OptionError(f"Unknown penalty {self.penalty!r}. Choose 'cv' or a number.")
        else:
            check_positive("penalty", self.penalty, zero=True)
        check_choice("choice", self.choice, ("min", "one_se"))
        check_positive("n_penalties", self.n_penalties, zero=True, least=2)
        check_positive("n_folds", self.n_folds, zero=True, least=2)
        if self.cap is not None:
            check_positive("cap", self.cap, least=1.0)

    def _solve(self, problem: Problem) -> Solution:
        p, weights_p = problem.sample_of_p(type(self).__name__)
        free = not isinstance(self.penalty, str) and self.penalty == 0
        model, kept = pooled_design(problem, type(self).__name__, independent=free)
        keys, first, cell_q, cell_p = distinct_rows(problem.q, p)
        cells = len(keys)
        design = np.empty((len(model.theta), cells))
        of_q = first < len(problem.q)
        design[:, of_q] = model.matrix(problem.q.take(first[of_q]))
        design[:, ~of_q] = model.matrix(p.take(first[~of_q] - len(problem.q)))
        mass_q = np.bincount(cell_q, problem.weights_q, cells) / problem.weights_q.sum()
        mass_p = np.bincount(cell_p, weights_p, cells) / weights_p.sum()
        fitted: dict[str, Any] = {"penalties_": None, "losses_": None, "loss_errors_": None}
        start, penalty = np.zeros((1, len(design))), self.penalty
        if isinstance(penalty, str):
            folds = int(self.n_folds)
            size = np.bincount(np.concatenate([cell_q, cell_p]), minlength=cells)
            held_q = _held(keys, size, cell_q, problem.weights_q, folds)
            held_p = _held(keys, size, cell_p, weights_p, folds)
            for side, held in (("q", held_q), ("p", held_p)):
                if (held.sum(axis=0) <= 0).any():
                    raise OptionError(
                        f"n_folds={folds} leaves a fold without rows of {side}; give fewer folds "
                        "or a penalty"
                    )
            penalties = np.geomspace(_LARGEST, _SMALLEST, int(self.n_penalties))
            path = LogisticPath(
                design,
                *(
                    np.column_stack([_normalised(held.sum(axis=1)[:, None] - held), mass])
                    for held, mass in ((held_q, mass_q), (held_p, mass_p))
                ),
            )
            losses, thetas = path.held_out(penalties, _normalised(held_q), _normalised(held_p))
            mean, error = losses.mean(axis=1), losses.std(axis=1, ddof=1) / math.sqrt(folds)
            best = int(np.argmin(mean))
            if self.choice == "one_se":
                best = int(np.flatnonzero(mean <= mean[best] + error[best])[0])
            penalty, start = float(penalties[best]), thetas[best][None]
            fitted.update(penalties_=penalties, losses_=mean, loss_errors_=error)
        path = LogisticPath(design, mass_q[:, None], mass_p[:, None])
        theta, eta, _, converged = path.solve(float(penalty), start, None, 1e-22)
        model = LinearModel(model.functions, model.center, model.scale, theta[0])
        if not converged:
            gradient = path.gradient(theta, float(penalty))[0]
            converged = bool(np.abs(gradient).max() < 1e-9)
        converged &= float(path.loss(theta, 0.0)[0]) > _SEPARATED
        converged &= bool(np.abs(eta).max() < _RUNAWAY)
        coef = np.zeros(len(problem.functions))
        coef[kept], intercept = model.coefficients()
        log_weights, clip = _capped(eta[cell_q, 0], problem.weights_q, self.cap)
        fitted.update(
            coef_=coef, intercept_=intercept, penalty_=float(penalty), _model=model, _clip=clip
        )
        cut = int(np.count_nonzero(log_weights < eta[cell_q, 0]))
        return Solution(
            log_weights,
            converged,
            0,
            f"The cap lowers {cut:,} weights, a bias towards q" if cut else "",
            ""
            if converged
            else "the margins tell q from p without error (or the fit stopped early), so that the "
            "odds have no limit; give a larger penalty, or look at overlap first",
            fitted,
        )

    def _influence(self, problem: Problem, weights: Array, scores: Array) -> Influence:
        p, weights_p = problem.sample_of_p(type(self).__name__)
        model, total_q, total_p = self._model, problem.weights_q.sum(), weights_p.sum()
        eta = model.predict(problem.q)
        slope = weights
        if self.cap is not None:
            slope = np.where(eta + np.log(problem.weights_q) > self._clip, 0.0, weights)

        def curvature(rows: Rows, design: Array) -> Array:
            def part(start: int, stop: int) -> Array:
                z = model.design(rows, start, stop)
                s = expit(model.theta @ z)
                z *= np.sqrt(design[start:stop] * s * (1 - s))
                return z @ z.T

            return np.sum(map_blocks(part, len(rows)), axis=0)

        hessian = (
            curvature(problem.q, problem.weights_q) / total_q + curvature(p, weights_p) / total_p
        ) / 2
        ridge = np.full(len(hessian), self.penalty_)
        ridge[0] = 0.0
        return model_influence(
            model,
            problem,
            weights,
            slope,
            scores,
            lambda moved: [np.linalg.solve(hessian + np.diag(ridge), moved)],
            lambda eta: [-expit(eta) / (2 * total_q)],
            lambda eta: [expit(-eta) / (2 * total_p)],
        )

    def _log_ratio(self, problem: Problem, rows: Rows) -> Array:
        found = self._model.predict(rows)
        return found if self.cap is None else np.minimum(found, self._clip)


def _held(keys: Array, size: Array, cell: Array, weights: Array, folds: int) -> Array:
    """Weight of each cell in each fold, shape (cells, folds)."""
    own = (keys >> np.uint64(7)) % np.uint64(folds)
    order = np.argsort(cell, kind="stable")
    starts = np.searchsorted(cell[order], np.arange(len(keys)))
    rank = np.empty(len(cell), dtype=np.int64)
    rank[order] = np.arange(len(cell)) - starts[cell[order]]
    fold = own[cell].astype(np.int64)
    fold = np.where(size[cell] >= _COPIES, (fold + rank) % folds, fold)
    return np.bincount(cell * folds + fold, weights, len(keys) * folds).reshape(-1, folds)


def _normalised(mass: Array) -> Array:
    return mass / mass.sum(axis=0)


def _capped(eta: Array, design: Array, cap: float | None) -> tuple[Array, float]:
    """Log weights over design weights, with weights of at most ``cap`` times their mean."""
    if cap is None:
        return eta, math.inf
    total = eta + np.log(design)
    top = float(total.max())
    weights = np.exp(total - top)
    ceiling = 1.0
    for _ in range(10_000):
        new = min(cap * float(np.minimum(weights, ceiling).mean()), ceiling)
        if new >= ceiling * (1 - 1e-13):
            break
        ceiling = new
    clip = math.log(ceiling) + top
    return np.minimum(total, clip) - np.log(design), clip
