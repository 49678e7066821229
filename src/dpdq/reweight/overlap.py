"""Overlap weights: both sides weighted to where they meet."""

from __future__ import annotations

import math

import numpy as np
from scipy.special import expit, log_expit

from dpdq.errors import OptionError, OverlapError
from dpdq.ratio._common import softplus
from dpdq.reweight._base import ExtendingWeighter
from dpdq.reweight._columns import Rows
from dpdq.reweight._common import Array, Solution, check_positive, map_blocks
from dpdq.reweight._dual import newton
from dpdq.reweight._linear import LinearModel, distinct_rows, pooled_design
from dpdq.reweight._logistic_path import LogisticPath
from dpdq.reweight._problem import Problem
from dpdq.reweight.estimates import Influence, model_influence

__all__ = ["OverlapWeights"]

_SEPARATED = 1e-7  # nats a row
_PRECISION = 1e-10
_STEPS = 200
_RIDGE = 1e-12  # of the mean curvature, for coefficients that have gone away


class OverlapWeights(ExtendingWeighter):
    """Weights of q and of p towards the rows that could have come from either.

        e(x) = s p(x) / (s p(x) + (1 - s) q(x)),   logit e = a + f(x)'l by maximum likelihood
        q: w proportional to b e,   p: w proportional to b (1 - e)
        E_w,q[f_j] = E_w,p[f_j]  exactly

    Both weighted samples stand for the density q p / (s p + (1 - s) q), the *overlap*, neither for
    p nor for q: no weight can explode, and none needs a cap. With these weights the contrast of y
    between the sides has the least variance of all target populations, if y has the same variance
    everywhere and s is the share of rows that are p's. It answers another question: where the
    effect of being in p differs from row to row, the mean over the overlap is not that over p, and
    rows of p of a kind that q hardly has weigh hardly anything.

    The weights are *inverse variances*. Given x, a row's membership T has variance e (1 - e), and
    regressing y on T - e (the R-learner with one effect for all) weighs row i by (T_i - e_i)²,
    whose mean given x is e (1 - e): its coefficient is the contrast over the overlap, whether or
    not the effect is constant. Where y has the conditional variance v(x), the least variance is at
    e (1 - e) / v: pass ``weights_q=1/v(x_q)`` and ``weights_p=1/v(x_p)``, which leave the odds of
    membership as they are; the balance stays exact.

    Parameters
    ----------
    share_p
        s, the prior share of p. At ½ the target does not depend on how many rows were drawn on
        either side. The paper's weights have the share of rows, n_p / (n_q + n_p).
    not_converged
        ``"raise"``, or ``"keep"`` to hand the last iterate back with ``converged_`` False.

    Attributes
    ----------
    weights_p_
        Weights of the rows of p in their order, mean one over the rows that have weight.
    coef_, intercept_
        l of shape (k,) and a, in the order of ``margins_``. Margins that others imply have the
        coefficient 0.

    Notes
    -----
    Cost: O(c k²) time a Newton step for c distinct rows and k margins, O(c k) memory.
    Held by: tests/reweight/test_overlap.py::test_both_sides_balance_exactly

    ``target_`` is ``"overlap"``, the balance table compares weighted q with weighted p,
    ``log_ratio`` is that of the overlap to q, and ``estimate`` is a mean over the overlap.
    Changed from the paper: s = ½ by default.

    References
    ----------
    .. [Li2018] Balancing Covariates via Propensity Score Weighting. Li, 2018, JASA 113.
    .. [M434] The Connection Between R-Learning and Inverse-Variance Weighting for Estimation of
       Heterogeneous Treatment Effects. Fisher, 2023, arXiv 2307.09700.

    Examples
    --------
    >>> import numpy as np
    >>> from dpdq.reweight import OverlapWeights
    >>> rng = np.random.default_rng(0)
    >>> q, p = rng.normal(0, 1, (2000, 2)), rng.normal(2, 1, (1000, 2))
    >>> model = OverlapWeights().fit(q=q, p=p)
    >>> sides = ((q, model.weights_), (p, model.weights_p_))
    >>> mean_q, mean_p = (np.average(x, axis=0, weights=w) for x, w in sides)
    >>> bool(np.allclose(mean_q, mean_p))
    True
    """

    coef_: Array
    intercept_: float
    target_ = "overlap"
    _model: LinearModel

    def __init__(self, *, share_p: float = 0.5, not_converged: str = "raise") -> None:
        self.share_p = share_p
        self.not_converged = not_converged

    def _check_options(self) -> None:
        check_positive("share_p", self.share_p)
        if self.share_p >= 1:
            raise OptionError(f"share_p is {self.share_p!r}; give a number between 0 and 1")

    def _solve(self, problem: Problem) -> Solution:
        p, _ = problem.sample_of_p(type(self).__name__)
        model, kept = pooled_design(problem, type(self).__name__, independent=True)
        keys, first, cell_q, cell_p = distinct_rows(problem.q, p)
        cells = len(keys)
        design = np.empty((len(model.theta), cells))
        of_q = first < len(problem.q)
        design[:, of_q] = model.matrix(problem.q.take(first[of_q]))
        design[:, ~of_q] = model.matrix(p.take(first[~of_q] - len(problem.q)))
        share_q, share_p = self._shares(problem)
        mass_q = np.bincount(cell_q, share_q, cells)
        mass_p = np.bincount(cell_p, share_p, cells)
        path = LogisticPath(design, 2 * mass_q[:, None], 2 * mass_p[:, None])

        def evaluate(theta: Array) -> tuple[float, Array, Array]:
            gradient, eta = path.gradient(theta[None], 0.0)
            loss = mass_q @ softplus(eta[:, 0]) + mass_p @ softplus(-eta[:, 0])
            return float(loss), gradient[0], path.hessian(eta)[0]

        # A level that one side lacks sends its coefficient away; its weights fade, balance stays.
        start, free = np.zeros(len(design)), np.zeros(len(design))
        theta, gap, steps, _ = newton(evaluate, start, free, _PRECISION, _STEPS, -math.inf)
        if evaluate(theta)[0] <= _SEPARATED:
            raise OverlapError(
                "the margins tell q from p without error, so that the sides do not overlap (the "
                f"farthest off is {problem.worst((problem.mean_q - problem.target) / problem.sd)})"
                "; leave out the column that tells them apart, or ask for a p nearer to q"
            )
        converged = gap <= _PRECISION
        eta = theta @ design
        model = LinearModel(model.functions, model.center, model.scale, theta)
        coef = np.zeros(len(problem.functions))
        coef[kept], intercept = model.coefficients()
        return Solution(
            log_expit(eta[cell_q]),
            converged,
            steps,
            "",
            ""
            if converged
            else f"after {steps} steps the margins are {gap:.1e} standard deviations from balance: "
            "one of them all but tells q from p; leave it out or merge its levels",
            {"coef_": coef, "intercept_": intercept, "_model": model},
            log_weights_p=log_expit(-eta[cell_p]),
        )

    def _shares(self, problem: Problem) -> tuple[Array, Array]:
        """Design weights of both sides that sum to 1 - s and s."""
        _, weights_p = problem.sample_of_p(type(self).__name__)
        s = float(self.share_p)
        share_q = (1 - s) * problem.weights_q / problem.weights_q.sum()
        return share_q, s * weights_p / weights_p.sum()

    def _influence(self, problem: Problem, weights: Array, scores: Array) -> Influence:
        p, weights_p = problem.sample_of_p(type(self).__name__)
        model, (share_q, share_p) = self._model, self._shares(problem)

        def curvature(rows: Rows, share: Array) -> Array:
            def part(start: int, stop: int) -> Array:
                z = model.design(rows, start, stop)
                e = expit(model.theta @ z)
                z *= np.sqrt(share[start:stop] * e * (1 - e))
                return z @ z.T

            return np.sum(map_blocks(part, len(rows)), axis=0)

        hessian = curvature(problem.q, share_q) + curvature(p, share_p)
        hessian += _RIDGE * np.trace(hessian) / len(hessian) * np.eye(len(hessian))
        unit_q = float(share_q.sum() / problem.weights_q.sum())
        unit_p = float(share_p.sum() / weights_p.sum())
        return model_influence(
            model,
            problem,
            weights,
            weights * expit(-model.predict(problem.q)),
            scores,
            lambda moved: [np.linalg.solve(hessian, moved)],
            lambda eta: [-expit(eta) * unit_q],
            lambda eta: [expit(-eta) * unit_p],
        )

    def _log_ratio(self, problem: Problem, rows: Rows) -> Array:
        return log_expit(self._model.predict(rows))
