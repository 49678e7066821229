"""Kernel balancing: every smooth function of the covariates, weighed by how rough it is."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.linalg import eigh

from dpdq.errors import OptionError, OverlapError
from dpdq.kernels import GaussianKernel, distance_tile, kernel_matrix
from dpdq.reweight._base import ExtendingWeighter
from dpdq.reweight._columns import Rows
from dpdq.reweight._common import Array, Solution, check_choice, check_positive, map_blocks
from dpdq.reweight._dual import exponential_dual, newton, positive_part_dual
from dpdq.reweight._points import median_distance, row_hashes, some_points
from dpdq.reweight._problem import Problem
from dpdq.reweight.estimates import Influence, outcome
from dpdq.reweight.moments import BalanceFunctions

__all__ = ["KernelBalancing"]

_DEPENDENT = 1e-10  # of the largest eigenvalue of the anchors' kernel matrix
_RIDGES = np.geomspace(1e-7, 10.0, 17)  # of the regression of the outcome


class KernelBalancing(ExtendingWeighter):
    """Weights that balance all functions of a Gaussian reproducing kernel Hilbert space at once.

        minimise  ½ sup_{|g| <= 1} (E_w[g] - E_p[g])² + penalty D(w)
        entropy   D = E_b[(w / b) log(w / b)],   log r = a + f,       f = sum_j alpha_j k(x_j, .)
        variance  D = ½ E_b[(w / b)²],           r = max(0, a + f)

    over w >= 0 of mean one. The supremum is the squared MMD between weighted q and p. Both duals
    are fits of r itself with a ridge: with the entropy, f maximises E_p[f] - log E_q[e^f] -
    ½ penalty |f|². What is left unbalanced is the function -penalty f. Misleads in many columns,
    where all points are equally far and a Gaussian kernel sees little but means; and nothing is
    balanced exactly, least of all what is rough, so that a margin known to matter is better
    given to `EntropyBalancing`.

    g runs over the functions spanned by the kernel at ``n_anchors`` rows of both sides: fewer
    functions, each of them balanced as stated. Where all rows are anchors it is the whole space.

    Parameters
    ----------
    form
        ``"entropy"``: positive weights; ``"variance"``: the largest effective size, zeros.
    penalty
        A number, or ``"noise"`` for 1 / n_q: the weights with the least worst mean squared error
        of an estimate, among outcomes whose norm in the space is that of their noise.
    bandwidth
        h of exp(-|x - x'|² / (2 h²)) on numbers in standard deviations and levels as 0 and 1;
        ``"median"`` is the median distance.
    n_anchors
        Anchors, half from each side.
    outcome
        y on the rows of q, shape (n_q,): its kernel ridge regression on x is balanced exactly, on
        top of the rest. The estimate then is E_p of the fit plus the weighted mean of the
        residuals. None for weights that know nothing of y.
    precision
        Largest violation of the optimality conditions to stop at.
    max_iter
        Newton steps.
    not_converged
        ``"raise"``, or ``"keep"`` to hand the last iterate back with ``converged_`` False.

    Attributes
    ----------
    mmd_, mmd_before_
        The supremum itself (the MMD on the span of the anchors), after and before weighting.
    penalty_, bandwidth_
        Those used.
    anchors_, alpha_, intercept_
        Coordinates of the anchors (as the margins are scaled), shape (m, d); alpha of shape (m,)
        and a.

    Notes
    -----
    Cost: O(n m (m + d)) time a Newton step for m anchors, about 8 steps; O(n + m²) memory besides
    the data and a block.
    Held by: tests/reweight/test_kernel_balancing.py::test_optimal_for_all_weights

    The points are the margins asked for: with ``moments=2`` squares are coordinates too. The
    interval of ``estimate`` leaves out the bias of the penalty, which for outcomes as rough as
    their noise is below the standard error at ``"noise"``, and with ``outcome`` that the regression
    has seen the same y. Changed from M435: the imbalances of random anchors, each behind its hinge,
    become the norm of the space, which has a dual to solve; the adaptive anchors (those with the
    largest coefficients of the regression) become the regression itself.

    References
    ----------
    .. [M435] Debiased Collaborative Filtering with Kernel-Based Causal Balancing. Li, 2024, arXiv
       2404.19596.
    .. [Wong2018] Kernel-based Covariate Functional Balancing for Observational Studies. Wong, 2018,
       Biometrika 105.
    .. [Kallus2020] Generalized Optimal Matching Methods for Causal Inference. Kallus, 2020, JMLR
       21.

    Examples
    --------
    >>> import numpy as np
    >>> from dpdq.reweight import KernelBalancing
    >>> rng = np.random.default_rng(0)
    >>> q, p = rng.uniform(-2, 2, (1000, 1)), rng.normal(0, 0.5, (1000, 1))
    >>> model = KernelBalancing().fit(q=q, p=p)  # the same means; another spread
    >>> bool(abs(np.average(q[:, 0] ** 2, weights=model.weights_) - 0.25) < 0.03)
    True
    """

    mmd_: float
    mmd_before_: float
    penalty_: float
    bandwidth_: float
    anchors_: Array
    alpha_: Array
    intercept_: float
    _features: _Features
    _free: int

    def __init__(
        self,
        *,
        form: str = "entropy",
        penalty: float | str = "noise",
        bandwidth: float | str = "median",
        n_anchors: int = 200,
        outcome: Any = None,
        precision: float = 1e-9,
        max_iter: int = 200,
        not_converged: str = "raise",
    ) -> None:
        self.form = form
        self.penalty = penalty
        self.bandwidth = bandwidth
        self.n_anchors = n_anchors
        self.outcome = outcome
        self.precision = precision
        self.max_iter = max_iter
        self.not_converged = not_converged

    def _check_options(self) -> None:
        check_choice("form", self.form, ("entropy", "variance"))
        for name, word in (("penalty", "noise"), ("bandwidth", "median")):
            value = getattr(self, name)
            if not isinstance(value, str):
                check_positive(name, value)
            elif value != word:
                raise OptionError(f"Unknown {name} {value!r}. Choose {word!r} or a number.")
        check_positive("n_anchors", self.n_anchors, zero=True, least=2)
        check_positive("precision", self.precision)
        check_positive("max_iter", self.max_iter)

    def _solve(self, problem: Problem) -> Solution:
        p, weights_p = problem.sample_of_p(type(self).__name__)
        hash_q, hash_p = row_hashes(problem, problem.q), row_hashes(problem, p)
        bandwidth = (
            median_distance(problem, p, hash_q, hash_p)
            if isinstance(self.bandwidth, str)
            else float(self.bandwidth)
        )
        penalty = 1.0 / len(problem.q) if isinstance(self.penalty, str) else float(self.penalty)
        half = int(self.n_anchors) // 2
        anchors = np.concatenate(
            [
                some_points(problem, problem.q, hash_q, int(self.n_anchors) - half),
                some_points(problem, p, hash_p, half),
            ]
        )
        features = _Features.at(problem.functions, anchors, bandwidth)
        free = 0
        if self.outcome is not None:
            y = outcome(self.outcome, len(self._kept), self._kept)[self._kept]
            features, free = _turned(features, problem, y), 1
        features = dataclasses.replace(features, target=features.mean(p, weights_p))
        evaluate, bound, ridge = self._dual(problem, features, penalty, free)
        start = np.zeros(len(ridge)) if self.form == "entropy" else np.eye(1, len(ridge))[0]
        theta, gap, steps, unbounded = newton(
            evaluate, start, np.zeros(len(ridge)), self.precision, int(self.max_iter), bound
        )
        if unbounded:
            raise OverlapError(
                "no weights of q balance the regression of the outcome: its mean over p lies "
                "outside its range over q; leave outcome out, or ask for a p nearer to q"
            )
        converged = gap <= self.precision
        fitted = {"_features": features, "_theta": theta, "_free": free}
        log_weights = _log_weights(features, problem.q, theta, self.form)
        if not np.isfinite(log_weights).any():
            log_weights = np.zeros(len(log_weights))  # an iterate that is kept has to be weights
        ratio = np.exp(log_weights - log_weights.max()) * problem.weights_q
        slope = theta[-len(features.target) :]
        constant = theta[0] if self.form == "variance" else 0.0
        fitted.update(
            mmd_=float(np.linalg.norm(features.mean(problem.q, ratio) - features.target)),
            mmd_before_=float(
                np.linalg.norm(features.mean(problem.q, problem.weights_q) - features.target)
            ),
            penalty_=penalty,
            bandwidth_=bandwidth,
            anchors_=anchors,
            alpha_=features.turn.T @ slope,
            intercept_=float(constant - slope @ features.target),
        )
        return Solution(
            log_weights,
            converged,
            steps,
            f"MMD {fitted['mmd_']:.2g} after weighting, {fitted['mmd_before_']:.2g} before "
            f"({len(anchors)} anchors, bandwidth {bandwidth:.3g}, penalty {penalty:.2g})",
            ""
            if converged
            else f"stopped after {steps} steps with optimality violated by {gap:.1e} (precision "
            f"{self.precision:.0e}); raise max_iter, precision or penalty",
            fitted,
        )

    _theta: Array

    def _dual(
        self, problem: Problem, features: _Features, penalty: float, free: int
    ) -> tuple[Callable[[Array], tuple[float, Array, Array]], float, Array]:
        """The dual with its ridge, a value that it cannot fall below, and the ridge."""
        ridge = np.full(len(features.target), penalty)
        ridge[:free] = 0.0
        least, total = float(problem.weights_q.min()), float(problem.weights_q.sum())
        gaps = features.gaps(problem.q)
        if self.form == "entropy":
            smooth = exponential_dual(gaps, problem.weights_q)
            bound = math.log(least / total) - 1e-6
        else:
            smooth = positive_part_dual(gaps, problem.weights_q)
            bound, ridge = -total / (2 * least) - 1.0, np.concatenate([[0.0], ridge])

        def evaluate(theta: Array) -> tuple[float, Array, Array]:
            value, gradient, hessian = smooth(theta)
            pull = ridge * theta
            return value + float(pull @ theta) / 2, gradient + pull, hessian + np.diag(ridge)

        return evaluate, bound if free else -math.inf, ridge

    def _influence(self, problem: Problem, weights: Array, scores: Array) -> Influence:
        p, weights_p = problem.sample_of_p(type(self).__name__)
        features, total = self._features, weights.sum()
        slope = weights
        if self.form == "variance":
            base = problem.weights_q * (total / problem.weights_q.sum())
            slope = np.where(weights > 0, base, 0.0)
        gaps, gaps_p = features.gaps(problem.q), features.gaps(p)

        def part(start: int, stop: int) -> tuple[Array, Array]:
            c = _with_one(gaps(start, stop))
            weighted = c * (slope[start:stop] / total)
            return weighted @ c.T, weighted @ scores[start:stop]

        grams, crosses = zip(*map_blocks(part, len(problem.q)), strict=True)
        gram, cross = np.sum(grams, axis=0), np.sum(crosses, axis=0)
        ridge = np.full(len(gram), self.penalty_)
        ridge[: 1 + self._free] = 1e-12
        inverse = np.linalg.inv(gram + np.diag(ridge))
        coef = inverse @ cross

        def residual(start: int, stop: int) -> Array:
            rest = scores[start:stop] - _with_one(gaps(start, stop)).T @ coef
            return rest * (weights[start:stop, None] / total)

        def moved(start: int, stop: int) -> Array:
            share = weights_p[start:stop, None] / weights_p.sum()
            return gaps_p(start, stop).T @ coef[1:] * share

        return Influence(
            np.concatenate(map_blocks(residual, len(problem.q))),
            np.concatenate(map_blocks(moved, len(p))),
            round(float(np.trace(inverse @ gram))) - 1,
        )

    def _log_ratio(self, problem: Problem, rows: Rows) -> Array:
        return _log_weights(self._features, rows, self._theta, self.form)


@dataclasses.dataclass(frozen=True)
class _Features:
    """Coordinates of k(x, .) in an orthonormal basis of the span of the kernel at the anchors.

    phi(x) = turn k(anchors, x) with turn'turn the inverse of k(anchors, anchors), so that phi'phi'
    is the kernel projected on the span. ``target`` is the mean over p.
    """

    functions: BalanceFunctions
    anchors: Array
    bandwidth: float
    turn: Array
    target: Array

    @classmethod
    def at(cls, functions: BalanceFunctions, anchors: Array, bandwidth: float) -> _Features:
        """The basis of eigenvectors, without directions that are zero to rounding."""
        kernel = kernel_matrix(anchors, anchors, GaussianKernel(bandwidth))
        values, vectors = eigh((kernel + kernel.T) / 2)
        kept = values > _DEPENDENT * values[-1]
        turn = (vectors[:, kept] / np.sqrt(values[kept])).T
        return cls(functions, anchors, bandwidth, turn, np.zeros(len(turn)))

    def block(self, rows: Rows, start: int, stop: int) -> Array:
        """The features at a block of rows, shape (r, stop - start)."""
        distances = distance_tile(
            self.anchors, self.functions.block(rows, start, stop).T, "euclidean"
        )
        return self.turn @ next(GaussianKernel(self.bandwidth).each(distances))

    def mean(self, rows: Rows, weights: Array) -> Array:
        """Weighted means of the features."""
        parts = map_blocks(lambda a, b: self.block(rows, a, b) @ weights[a:b], len(rows))
        return np.sum(parts, axis=0) / weights.sum()

    def gaps(self, rows: Rows) -> Callable[[int, int], Array]:
        """Blocks of features less their means over p."""
        return lambda start, stop: self.block(rows, start, stop) - self.target[:, None]


def _turned(features: _Features, problem: Problem, y: Array) -> _Features:
    """The same space with the kernel ridge regression of y on x as its first direction.

    The ridge is the one with the least generalised cross-validation error.
    """
    share = problem.weights_q / problem.weights_q.sum()
    centre = features.mean(problem.q, problem.weights_q)
    rest = y - share @ y

    def part(start: int, stop: int) -> tuple[Array, Array]:
        c = features.block(problem.q, start, stop) - centre[:, None]
        weighted = c * share[start:stop]
        return weighted @ c.T, weighted @ rest[start:stop]

    grams, crosses = zip(*map_blocks(part, len(problem.q)), strict=True)
    values, vectors = eigh(np.sum(grams, axis=0))
    values = np.maximum(values, 0.0)
    cross, variance = vectors.T @ np.sum(crosses, axis=0), float(share @ rest**2)
    if not variance > 1e-24 * float(share @ y**2):
        raise OptionError("outcome is constant on the rows of q; leave it out")
    errors = []
    for ridge in _RIDGES:
        shrunk = cross / (values + ridge)
        left = variance - 2 * shrunk @ cross + values @ shrunk**2
        freedom = float(np.sum(values / (values + ridge))) + 1.0
        errors.append(left / max(1.0 - freedom / len(y), 1e-6) ** 2)
    beta = vectors @ (cross / (values + _RIDGES[int(np.argmin(errors))]))
    mirror = beta / np.linalg.norm(beta)
    mirror[0] += math.copysign(1.0, mirror[0])
    turn = features.turn - np.outer(mirror, mirror @ features.turn) * (2 / (mirror @ mirror))
    return dataclasses.replace(features, turn=turn)


def _with_one(block: Array) -> Array:
    return np.concatenate([np.ones((1, block.shape[1])), block])


def _log_weights(features: _Features, rows: Rows, theta: Array, form: str) -> Array:
    """Log of weight over design weight at rows, on the scale of the dual."""
    gaps = features.gaps(rows)
    if form == "entropy":
        return np.concatenate(map_blocks(lambda a, b: theta @ gaps(a, b), len(rows)))
    parts = map_blocks(lambda a, b: theta[0] + theta[1:] @ gaps(a, b), len(rows))
    ratio = np.concatenate(parts)
    out = np.full(len(ratio), -np.inf)
    np.log(ratio, out=out, where=ratio > 1e-9)
    return out
