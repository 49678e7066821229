"""Logistic regression between p and q: log r as a linear function of the features.

    log r(x) = a + x'b,   (a, b) = argmin ½ E_q[log(1 + r)] + ½ E_p[log(1 + 1/r)] + ½ ridge |b|²

Each side has half of the weight whatever its size, so that the intercept needs no correction for
class sizes, exchanging q and p only changes the sign of log r, and weights count by their
proportions. Features are standardised inside, so that the ridge treats them alike.

Where log r is linear in the features this is a maximum-likelihood type estimator with a
covariance, and intervals for divergences follow from it
(`dpdq.distance.logistic_model_intervals`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from scipy.special import expit

from dpdq.errors import OptionError
from dpdq.ratio._base import RatioEstimator
from dpdq.ratio._common import Array, is_sparse, softplus, validation_split
from dpdq.ratio._designs import Design, standardised

__all__ = ["LogisticRatio"]

_AUTO_RIDGES = (10.0, 1.0, 1e-1, 1e-2, 1e-3, 1e-4)
_NEWTON_WIDTH = 400  # above this many features, L-BFGS instead of a Hessian
_HELD_OUT = 0.25  # share of the rows that choose the ridge there
_FALLBACK_RIDGE = 1.0  # where there are too few rows to hold some out


class LogisticRatio(RatioEstimator):
    """Log ratio that is linear in the features, by ridge logistic regression.

        log r(x) = a + x'b,  minimising  ½ E_q[log(1 + r)] + ½ E_p[log(1 + 1/r)] + ½ ridge |b|²

    Misleads where log r is curved (equal means, unequal variances: add squares to the features)
    and extrapolates linearly, that is without bound, where q or p has no rows.

    Parameters
    ----------
    ridge
        Penalty on the coefficients of standardised features (its unit is loss in nats).
        ``"auto"`` chooses from six powers of ten, 10 to 1e-4, by approximate leave-one-out loss;
        above 400 features by the loss of a quarter of the rows, chosen by content and held out.

    Attributes
    ----------
    intercept_, coef_
        a, and b of shape (d,), in the units of the features as given.
    ridge_
        The penalty used.
    covariance_
        Sandwich covariance of ``theta_``, shape (d+1, d+1); None above 400 features.
    theta_
        Intercept and coefficients of the standardised features, shape (d+1,).
    ridge_bias_
        First-order bias that the ridge puts into ``theta_``; None where ``covariance_`` is.

    Notes
    -----
    Cost: O(n d²) time a Newton step (O(n d) above 400 features, by L-BFGS), O(n d) memory; of a
    sparse matrix, cells that are not zero take the place of n d.
    Held by: tests/ratio/test_logistic.py::test_exchange_changes_the_sign_only

    The published estimator weights rows equally; here each side has half of the weight, which
    at r = 1 has the same variance and keeps q and p symmetric. Leave-one-out is the published
    one-step approximation; for it a weighted row counts as one observation.

    References
    ----------
    .. [Qin1998] Inferences for Case-Control and Semiparametric Two-Sample Density Ratio Models.
       Qin, 1998, Biometrika 85.
    .. [Rad2020] A Scalable Estimate of the Out-of-Sample Prediction Error via Approximate
       Leave-One-Out Cross-Validation. Rad, 2020, JRSS B 82.

    Examples
    --------
    >>> import numpy as np
    >>> from dpdq.ratio import LogisticRatio
    >>> rng = np.random.default_rng(0)
    >>> q, p = rng.normal(0, 1, (4000, 1)), rng.normal(1, 1, (4000, 1))
    >>> model = LogisticRatio().fit(q=q, p=p)
    >>> model
    LogisticRatio(), fitted: log dP/dQ from 4,000 rows of q and 4,000 rows of p, 1 features
    >>> bool(abs(model.log_ratio([[1.0]])[0] - 0.5) < 0.1)  # the truth is x - 1/2
    True
    """

    _takes_sparse = True

    def __init__(self, ridge: float | str = "auto") -> None:
        self.ridge = ridge

    def _fit(self, q: Array, p: Array, weights_q: Array, weights_p: Array) -> None:
        share_q, share_p = weights_q / weights_q.sum(), weights_p / weights_p.sum()
        design, center, scale, flat = standardised(q, p, share_q, share_p)
        share = np.concatenate([share_q, share_p]) / 2
        sign = np.concatenate([np.ones(len(share_q)), -np.ones(len(share_p))])
        problem = _Problem(design, share, sign, len(share_q))

        if isinstance(self.ridge, str):
            if self.ridge != "auto":
                raise OptionError(f"Unknown ridge {self.ridge!r}. Choose 'auto' or a number.")
            split = None if problem.direct else validation_split(q, p, _HELD_OUT, 0)
            held = None if split is None else np.concatenate(split)
            self.ridge_, theta = problem.choose(_AUTO_RIDGES, held)
        else:
            if not (np.isfinite(self.ridge) and self.ridge >= 0):
                raise OptionError(f"ridge is {self.ridge}; expected a finite number, 0 or more")
            self.ridge_ = float(self.ridge)
            theta = problem.solve(self.ridge_, np.zeros(design.shape[0]))[0]
        self.theta_ = theta
        self._center, self._scale = center, scale
        self.coef_ = np.where(flat, 0.0, theta[1:] / scale)
        self.intercept_ = float(theta[0] - center @ self.coef_)
        self.covariance_, self.ridge_bias_ = problem.covariance(self.ridge_, theta)

    def _log_ratio(self, x: Array) -> Array:
        return x @ self.coef_ + self.intercept_

    def standardised_design(self, x: object) -> Array:
        """Rows as (1, standardised features), the basis of ``theta_`` and ``covariance_``."""
        rows: Any = self._read_rows(x, "x", "standardised_design")
        rows = rows.toarray() if is_sparse(rows) else rows
        design = np.empty((len(rows), rows.shape[1] + 1))
        design[:, 0] = 1.0
        np.subtract(rows, self._center, out=design[:, 1:])
        design[:, 1:] /= self._scale
        return design


class _Problem:
    """The ridge logistic objective on a standardised design."""

    def __init__(self, design: Design, share: Array, sign: Array, n_q: int) -> None:
        self.design, self.share, self.sign, self.n_q = design, share, sign, n_q
        self.direct = design.shape[0] <= _NEWTON_WIDTH

    def _penalty(self, ridge: float) -> Array:
        penalty = np.full(self.design.shape[0], ridge)
        penalty[0] = 0.0
        return penalty

    def _value(self, margin: Array, theta: Array, penalty: Array) -> float:
        return float(self.share @ softplus(margin) + penalty @ theta**2 / 2)

    def solve(
        self, ridge: float, start: Array, tolerance: float = 1e-14
    ) -> tuple[Array, Array | None]:
        """The minimiser, and the Cholesky factor of the Hessian there (None without Newton)."""
        if not self.direct:
            return self._solve_lbfgs(ridge, start), None
        design, penalty, theta = self.design, self._penalty(ridge), start.copy()
        eta = design.margins(theta)
        value = self._value(self.sign * eta, theta, penalty)
        factor = None
        for _ in range(100):
            s = expit(self.sign * eta)
            gradient = design.combine(self.share * self.sign * s) + penalty * theta
            factor = self._factor(self.share * s * (1 - s), penalty)
            step = cho_solve((factor, True), gradient, check_finite=False)
            decrement = float(gradient @ step)
            if decrement < tolerance:
                break
            moved, length = design.margins(step), 1.0
            while length > 1e-6:
                new_eta, new_theta = eta - length * moved, theta - length * step
                new = self._value(self.sign * new_eta, new_theta, penalty)
                if new <= value - 1e-4 * length * decrement + 1e-15:
                    break
                length /= 2
            else:
                break
            eta, theta, value = new_eta, new_theta, new
        return theta, factor

    def _factor(self, curvature: Array, penalty: Array) -> Array:
        hessian = self.design.gram(curvature)
        hessian.flat[:: len(hessian) + 1] += penalty
        # A jitter far below any ridge keeps collinear or empty columns factorisable.
        hessian.flat[:: len(hessian) + 1] += 1e-12 * max(hessian.diagonal().max(), 1e-6)
        return cho_factor(hessian, lower=True, check_finite=False)[0]

    def _solve_lbfgs(self, ridge: float, start: Array) -> Array:
        from scipy.optimize import minimize

        penalty = self._penalty(ridge)

        def value_and_gradient(theta: Array) -> tuple[float, Array]:
            margin = self.sign * self.design.margins(theta)
            gradient = self.design.combine(self.share * self.sign * expit(margin))
            return self._value(margin, theta, penalty), gradient + penalty * theta

        found: Any = minimize(
            value_and_gradient,
            start,
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": 300, "ftol": 1e-10, "gtol": 1e-6},
        )
        return np.asarray(found.x)

    def choose(self, ridges: tuple[float, ...], held: Array | None) -> tuple[float, Array]:
        """The ridge with the smallest loss on rows left out, from strong to weak.

        With a Hessian each row is left out alone, by one Newton step; else the rows of the mask
        ``held`` are left out of a fit to the others. The path is solved to a hundredth of a row's
        loss, the chosen point to full precision.
        """
        path: _Problem = self
        unseen: _Problem | None = None
        if not self.direct:
            if held is None:
                return _FALLBACK_RIDGE, self.solve(_FALLBACK_RIDGE, np.zeros(self.design.shape[0]))[
                    0
                ]
            path, unseen = self._part(~held), self._part(held)
        theta, best = np.zeros(self.design.shape[0]), np.inf
        chosen, kept, worse = ridges[0], theta, 0
        for ridge in ridges:
            theta, factor = path.solve(ridge, theta, 0.01 / path.design.shape[1])
            loss = self._left_out_loss(theta, factor) if unseen is None else unseen._loss(theta)
            if loss < best - 1e-12:
                best, chosen, kept, worse = loss, ridge, theta, 0
            else:
                worse += 1
                if worse == 2:
                    break
        return chosen, self.solve(chosen, kept)[0]

    def _part(self, mask: Array) -> _Problem:
        """The problem on some of the rows, half of the weight on each side again."""
        n_q = int(mask[: self.n_q].sum())
        share = self.share[mask]
        for side in (share[:n_q], share[n_q:]):
            side /= 2 * side.sum()
        return _Problem(self.design.some_rows(mask), share, self.sign[mask], n_q)

    def _loss(self, theta: Array) -> float:
        return float(self.share @ softplus(self.sign * self.design.margins(theta)))

    def _left_out_loss(self, theta: Array, factor: Array | None) -> float:
        """Sum of each row's loss under the fit without it, by one Newton step from the fit."""
        assert factor is not None
        eta = self.design.margins(theta)
        s = expit(self.sign * eta)
        slope, curvature = self.share * self.sign * s, self.share * s * (1 - s)
        leverage = np.empty(len(eta))
        for rows, block in self.design.blocks():
            half = solve_triangular(factor, block, lower=True, check_finite=False)
            leverage[rows] = np.einsum("ij,ij->j", half, half)
        left_out = eta + leverage * slope / np.maximum(1 - leverage * curvature, 1e-3)
        return float(self.share @ softplus(self.sign * left_out))

    def covariance(self, ridge: float, theta: Array) -> tuple[Array | None, Array | None]:
        """Sandwich covariance of theta over both samples, and the bias due to the ridge."""
        if not self.direct:
            return None, None
        width, n = self.design.shape
        s = expit(self.sign * self.design.margins(theta))
        penalty = self._penalty(ridge)
        factor = self._factor(self.share * s * (1 - s), penalty)
        means = np.empty((width, 2))  # of the scores on q and on p, whose shares sum to one half
        for j, side in enumerate((slice(None, self.n_q), slice(self.n_q, None))):
            slope = np.zeros(n)
            slope[side] = 2 * self.share[side] * s[side]
            means[:, j] = self.design.combine(slope)
        side_of = np.r_[np.zeros(self.n_q, dtype=np.intp), np.ones(n - self.n_q, dtype=np.intp)]
        meat = np.zeros((width, width))
        for rows, block in self.design.blocks():
            scores = block * s[rows]
            scores -= means[:, side_of[rows]]
            scores *= self.share[rows]
            meat += scores @ scores.T
        meat *= n / max(n - width - 1, 1)
        half = cho_solve((factor, True), meat)
        return (
            cho_solve((factor, True), half.T),
            -cho_solve((factor, True), penalty * theta),
        )
