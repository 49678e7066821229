"""Covariate-balancing propensity: a logistic model of membership fitted by its own balance."""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy.special import chdtrc, expit

from dpdq.reweight._base import ExtendingWeighter
from dpdq.reweight._columns import Rows
from dpdq.reweight._common import Array, Solution, check_choice, check_positive
from dpdq.reweight._feasibility import Face
from dpdq.reweight._linear import LinearModel, pooled_design
from dpdq.reweight._logistic_path import LogisticPath
from dpdq.reweight._problem import Problem
from dpdq.reweight.entropy import solve_entropy, tilted_log_ratio
from dpdq.reweight.estimates import Influence, balancing_influence, model_influence

__all__ = ["CovariateBalancingPropensity"]


class CovariateBalancingPropensity(ExtendingWeighter):
    """Weights from a logistic propensity that is fitted to balance the margins.

        log r(x) = a + f(x)'b,   w_i proportional to b_i r(x_i)
        exact   E_w[f_j] = E_p[f_j], as many equations as coefficients
        over    these and the likelihood's score, twice as many, by the generalised method of
                moments in two steps; J tells whether one linear log r can satisfy both

    For weights of q towards p the exact version asks for the same exponential weights by the same
    equations as entropy balancing with uniform or design base weights: the two are one estimator,
    and the numbers are equal. What is new here is ``"over"``: it gives up exact balance, and its J
    statistic (chi-square with one degree of freedom a coefficient, if log r is linear) is a
    check of the model that exact balance cannot give. On a few hundred rows J rejects a true
    model somewhat too often.

    Parameters
    ----------
    method
        ``"exact"`` or ``"over"``.
    precision
        With ``"exact"``, the largest difference from balance to stop at, in standard deviations.
    max_iter
        Steps.
    not_converged
        ``"raise"``, or ``"keep"`` to hand the last iterate back with ``converged_`` False.

    Attributes
    ----------
    coef_, intercept_
        b and a, in the order of ``margins_``; margins that others imply have the coefficient 0.
    j_statistic_, j_freedom_, j_pvalue_
        With ``"over"``; None with ``"exact"``.

    Notes
    -----
    Cost: O(n k²) time a step; O(n) memory besides the data, O(n k) with ``"over"``.
    Held by: tests/reweight/test_covariate_balancing.py::test_exact_equals_entropy_balancing

    Changed from the paper: the propensity is that of rows of p among all rows, for weights of q
    towards p (the paper's weights for the treated); each side has half of the weight, so that its
    odds are r; and J takes the variance of rows drawn on each side, valid for any V. Where r is
    near one the score and the balance say almost the same, and updating V along with the
    coefficients does not settle, so that V is taken once, at the likelihood's fit.

    References
    ----------
    .. [Imai2014] Covariate Balancing Propensity Score. Imai, 2014, JRSS B 76.
    .. [Hansen1982] Large Sample Properties of Generalized Method of Moments Estimators. Hansen,
       1982, Econometrica 50.

    Examples
    --------
    >>> import numpy as np
    >>> from dpdq.reweight import CovariateBalancingPropensity
    >>> rng = np.random.default_rng(0)
    >>> q, p = rng.normal(0, 1, (2000, 2)), rng.normal(0.3, 1, (2000, 2))
    >>> model = CovariateBalancingPropensity(method="over").fit(q=q, p=p)
    >>> model.j_freedom_, bool(model.j_pvalue_ > 0.01)
    (3, True)
    """

    coef_: Array
    intercept_: float
    j_statistic_: float | None
    j_freedom_: int | None
    j_pvalue_: float | None
    _faces: tuple[Face, ...]
    _moments: _Moments | None

    def __init__(
        self,
        *,
        method: str = "exact",
        precision: float = 1e-10,
        max_iter: int = 200,
        not_converged: str = "raise",
    ) -> None:
        self.method = method
        self.precision = precision
        self.max_iter = max_iter
        self.not_converged = not_converged

    def _check_options(self) -> None:
        check_choice("method", self.method, ("exact", "over"))
        check_positive("precision", self.precision)
        check_positive("max_iter", self.max_iter)

    def _solve(self, problem: Problem) -> Solution:
        if self.method == "over":
            return self._solve_over(problem)
        problem.sample_of_p(type(self).__name__)
        solution = solve_entropy(
            problem,
            tolerance=0.0,
            cap=None,
            precision=self.precision,
            max_iter=int(self.max_iter),
        )
        none = dict.fromkeys(("j_statistic_", "j_freedom_", "j_pvalue_", "_moments"))
        return dataclasses.replace(solution, fitted={**solution.fitted, **none})

    def _solve_over(self, problem: Problem) -> Solution:
        name = type(self).__name__
        p, weights_p = problem.sample_of_p(name)
        model, kept = pooled_design(problem, name, independent=True)
        moments = _Moments(
            np.concatenate([model.matrix(problem.q), model.matrix(p)], axis=1),
            np.concatenate(
                [problem.weights_q / problem.weights_q.sum(), weights_p / weights_p.sum()]
            )
            / 2,
            len(problem.q),
        )
        theta, fine = moments.likelihood()
        inverse = np.linalg.pinv(moments.variance(theta), hermitian=True)
        theta, steps, fine_too = moments.two_step(theta, inverse, int(self.max_iter))
        converged = fine and fine_too
        statistic, freedom = moments.overidentification(theta, inverse)
        moments = dataclasses.replace(moments, theta=theta, inverse=inverse)
        model = LinearModel(model.functions, model.center, model.scale, theta)
        coef = np.zeros(len(problem.functions))
        coef[kept], intercept = model.coefficients()
        pvalue = float(chdtrc(freedom, statistic)) if freedom else 1.0
        note = f"J statistic {statistic:.3g} on {freedom} degrees of freedom, p = {pvalue:.3g}"
        if pvalue < 0.01:
            note += ": log r is not linear in these margins; add squares or interactions"
        return Solution(
            theta @ moments.z[:, : moments.n_q],
            converged,
            steps,
            note,
            ""
            if converged
            else "the moment equations were not solved; raise max_iter, or use method='exact'",
            {
                "coef_": coef,
                "intercept_": intercept,
                "j_statistic_": statistic,
                "j_freedom_": freedom,
                "j_pvalue_": pvalue,
                "_moments": moments,
                "_model": model,
                "_faces": (),
            },
        )

    def _influence(self, problem: Problem, weights: Array, scores: Array) -> Influence:
        moments = self._moments
        if moments is None:
            return balancing_influence(problem, weights, weights, scores)
        theta, t = moments.theta, len(moments.theta)
        _, weights_p = problem.sample_of_p(type(self).__name__)
        total_q, total_p = 2 * problem.weights_q.sum(), 2 * weights_p.sum()
        jacobian = moments.mean(theta)[1]
        left = moments.inverse @ jacobian
        bread = np.linalg.inv(jacobian.T @ left)

        def project(moved: Array) -> list[Array]:
            lifted = -left @ bread @ moved
            return [lifted[:t], lifted[t:]]

        return model_influence(
            self._model,
            problem,
            weights,
            weights,
            scores,
            project,
            lambda eta: [-expit(eta) / total_q, -np.exp(eta) / total_q],
            lambda eta: [expit(-eta) / total_p, np.full(len(eta), 1 / total_p)],
        )

    _model: LinearModel

    def _log_ratio(self, problem: Problem, rows: Rows) -> Array:
        return tilted_log_ratio(problem, rows, self.coef_, self.intercept_, self._faces)


@dataclasses.dataclass(frozen=True)
class _Moments:
    """Score and balance of a logistic model of T = 1 (row of p) with odds e^eta, eta = theta'z.

    score    (T - pi) z
    balance  (T - (1 - T) e^eta) z

    Given x both have mean zero under the model, with variances pi (1 - pi), e^eta and covariance
    pi, times z z'. ``weights`` sum to one half on each side.
    """

    z: Array
    weights: Array
    n_q: int
    theta: Array = dataclasses.field(default_factory=lambda: np.zeros(0))
    inverse: Array = dataclasses.field(default_factory=lambda: np.zeros((0, 0)))

    def _parts(self, theta: Array) -> tuple[Array, Array, Array]:
        """Share of p given x, odds of the rows of q, and which rows are q's."""
        eta = theta @ self.z
        return expit(eta), np.exp(np.minimum(eta, 300.0)), np.arange(self.z.shape[1]) < self.n_q

    def mean(self, theta: Array) -> tuple[Array, Array]:
        """g, the mean of both moments, and its Jacobian."""
        pi, odds, is_q = self._parts(theta)
        share = self.weights
        score = share * np.where(is_q, -pi, 1 - pi)
        balance = share * np.where(is_q, -odds, 1.0)
        slope = share * pi * (1 - pi)
        slope_balance = (share * odds)[: self.n_q]
        zq = self.z[:, : self.n_q]
        jacobian = -np.concatenate(
            [(self.z * slope) @ self.z.T, (zq * slope_balance) @ zq.T], axis=0
        )
        return np.concatenate([self.z @ score, self.z @ balance]), jacobian

    def variance(self, theta: Array) -> Array:
        """Variance of the moments given x, averaged over the rows."""
        pi, odds, _ = self._parts(theta)
        share = self.weights
        a = (self.z * (share * pi * (1 - pi))) @ self.z.T
        b = (self.z * (share * pi)) @ self.z.T
        c = (self.z * (share * odds)) @ self.z.T
        return np.block([[a, b], [b, c]])

    def likelihood(self) -> tuple[Array, bool]:
        """The maximum-likelihood fit, by damped Newton."""
        share = 2 * self.weights
        is_q = np.arange(self.z.shape[1]) < self.n_q
        mass_q, mass_p = np.where(is_q, share, 0.0), np.where(is_q, 0.0, share)
        path = LogisticPath(self.z, mass_q[:, None], mass_p[:, None])
        theta, _, _, converged = path.solve(0.0, np.zeros((1, len(self.z))), None, 1e-20)
        return theta[0], converged or bool(np.abs(path.gradient(theta, 0.0)[0]).max() < 1e-9)

    def overidentification(self, theta: Array, inverse: Array) -> tuple[float, int]:
        """Hansen's statistic for any weighting matrix, with the variance of rows drawn a side."""
        pi, odds, is_q = self._parts(theta)
        t = len(self.z)
        rows = np.empty((2 * t, self.z.shape[1]))
        np.multiply(self.z, np.where(is_q, -pi, 1 - pi) * self.weights, out=rows[:t])
        np.multiply(self.z, np.where(is_q, -odds, 1.0) * self.weights, out=rows[t:])
        g, variance = rows.sum(axis=1), np.zeros((2 * t, 2 * t))
        for side in (slice(None, self.n_q), slice(self.n_q, None)):
            centred = rows[:, side] - rows[:, side].mean(axis=1, keepdims=True)
            variance += centred @ centred.T
        jacobian = self.mean(theta)[1]
        left = inverse @ jacobian
        rest = np.eye(2 * t) - jacobian @ np.linalg.solve(jacobian.T @ left, left.T)
        values, vectors = np.linalg.eigh(rest @ variance @ rest.T)
        free = np.arange(2 * t) >= t
        free &= values > 1e-10 * np.trace(variance) + 1e-30
        return float(np.sum((vectors[:, free].T @ g) ** 2 / values[free])), int(free.sum())

    def _bend(self, theta: Array, u: Array) -> Array:
        """Second derivatives of u'g for a fixed u."""
        t = len(self.z)
        pi, odds, is_q = self._parts(theta)
        first, second = u[:t] @ self.z, u[t:] @ self.z
        share = self.weights
        curve = pi * (1 - pi) * (1 - 2 * pi) * first + np.where(is_q, odds * second, 0.0)
        return -(self.z * (share * curve)) @ self.z.T

    def two_step(self, theta: Array, inverse: Array, max_iter: int) -> tuple[Array, int, bool]:
        """Minimise g'Wg for a fixed W by Newton's method, by Gauss's where that leads upwards."""
        g, jacobian = self.mean(theta)
        value = float(g @ inverse @ g)
        for steps in range(max_iter):
            slope = jacobian.T @ inverse @ g
            gauss = jacobian.T @ inverse @ jacobian
            curvature = gauss + self._bend(theta, inverse @ g)
            if float(np.linalg.eigvalsh(curvature)[0]) <= 1e-8 * float(np.trace(gauss)):
                curvature = gauss
            step = -np.linalg.solve(curvature, slope)
            descent = -float(slope @ step)
            if descent <= 1e-12 * value + 1e-24:
                return theta, steps, True
            length = 1.0
            while length > 1e-8:
                trial = theta + length * step
                new_g, new_jacobian = self.mean(trial)
                new = float(new_g @ inverse @ new_g)
                if new < value:
                    break
                length /= 2
            else:
                return theta, steps, descent <= 1e-8 * value
            theta, g, jacobian, value = trial, new_g, new_jacobian, new
        return theta, max_iter, False
