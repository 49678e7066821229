"""The dual of balancing with the least Kullback-Leibler divergence, by Newton's method in blocks.

    minimise   sum w log(w / b)   over   w >= 0, sum w = n, |E_w c_j| <= delta
    w_i = b_i exp(a + c_i'l),   l = argmin log sum_i b_i exp(c_i'l) + delta |l|_1

with design weights b and standardised gaps c = (f - target) / sd. The gradient is the weighted
mean of c, which is the imbalance itself; the Hessian is its weighted covariance. A cap w <= M is
one more clip, w_i = min(M, b_i exp(a + c_i'l)), with a smooth convex dual in (a, l) whose Hessian
runs over the rows below the cap. The least variance in place of the least divergence has the
weights w_i = b_i max(0, a + c_i'l), and a dual that is a quadratic in pieces.

Where no weights balance, the dual falls without bound. It cannot fall below -log(1 / min b) while
weights exist, because no divergence from b is larger, and this proves infeasibility on the way.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from dpdq.reweight._common import Array, map_blocks
from dpdq.reweight._problem import Problem

__all__ = [
    "Tilt",
    "exponential_dual",
    "newton",
    "positive_part_dual",
    "solve_tilt",
    "standard_gaps",
    "tilt_exponent",
]

_FIRST_ROWS = 100_000  # above, a start is sought on a part of the rows
_SLOPE = 1e-4


@dataclasses.dataclass(frozen=True)
class Tilt:
    """A minimiser of the dual: log w - log b = intercept + sum_j coef_j f_j.

    ``coef`` is in units of the functions themselves; ``gap`` the largest violation left, in
    standard deviations; ``infeasible`` whether the dual proved that no weights balance.
    """

    coef: Array
    intercept: float
    gap: float
    n_iter: int
    infeasible: bool


def tilt_exponent(problem: Problem, coef: Array, intercept: float) -> Array:
    """The exponent intercept + sum_j coef_j f_j at the rows of q."""
    parts = map_blocks(lambda a, b: coef @ problem.functions.block(problem.q, a, b), len(problem.q))
    return np.concatenate(parts) + intercept


def solve_tilt(
    problem: Problem,
    *,
    delta: float = 0.0,
    cap: float | None = None,
    tolerance: float = 1e-10,
    max_iter: int = 200,
    start: Array | None = None,
) -> Tilt:
    """Minimise the dual for a problem whose functions are linearly independent (or delta > 0)."""
    k, n = len(problem.functions), len(problem.q)
    theta = np.zeros(k) if start is None else start
    used = 0
    if n > _FIRST_ROWS and start is None and cap is None:
        part = problem.keep_rows(np.arange(0, n, n // 20_000))
        evaluate = exponential_dual(standard_gaps(part), part.weights_q)
        found, gap, used, _ = newton(evaluate, theta, np.full(k, delta), 1e-6, 25, -math.inf)
        if gap <= 1e-6:
            theta = found
    least = float(problem.weights_q.min())
    if cap is None:
        bound = math.log(least / float(problem.weights_q.sum())) - 1e-6
        evaluate = exponential_dual(standard_gaps(problem), problem.weights_q)
        theta, gap, steps, infeasible = newton(
            evaluate, theta, np.full(k, delta), tolerance, max_iter, bound
        )
        intercept = 0.0
    else:
        first = np.concatenate([[0.0], theta])
        bound = 1.0 - math.log(cap / least) - 1e-6
        penalty = np.concatenate([[0.0], np.full(k, delta)])
        theta, gap, steps, infeasible = newton(
            _capped(problem, cap), first, penalty, tolerance, max_iter, bound
        )
        intercept, theta = float(theta[0]), theta[1:]
    coef = theta / problem.sd
    intercept -= float(coef @ problem.target)
    return Tilt(coef, intercept, gap, used + steps, infeasible)


Gaps = Callable[[int, int], Array]
Evaluation = tuple[float, Array, Array]


def standard_gaps(problem: Problem) -> Gaps:
    """The gaps c of a block of rows of q, a new array of shape (k, stop - start) at each call."""

    def gaps(start: int, stop: int) -> Array:
        block = problem.functions.block(problem.q, start, stop)
        block -= problem.target[:, None]
        block /= problem.sd[:, None]
        return block

    return gaps


def exponential_dual(gaps: Gaps, weights: Array) -> Callable[[Array], Evaluation]:
    """The log-sum-exp dual, relative to its value at zero, with gradient and Hessian."""
    total = float(weights.sum())

    def evaluate(theta: Array) -> Evaluation:
        def part(start: int, stop: int) -> tuple[float, float, Array, Array]:
            c = gaps(start, stop)
            eta = theta @ c
            top = float(eta.max())
            eta -= top
            np.exp(eta, out=eta)
            eta *= weights[start:stop]
            first = c @ eta
            zero = float(eta.sum())
            np.sqrt(eta, out=eta)
            c *= eta
            return top, zero, first, c @ c.T

        tops, zeros, firsts, seconds = zip(*map_blocks(part, len(weights)), strict=True)
        top = max(tops)
        factors = np.exp(np.array(tops) - top)
        zero = float(factors @ np.array(zeros))
        gradient = factors @ np.array(firsts) / zero
        hessian = np.tensordot(factors, np.array(seconds), axes=1) / zero
        hessian -= np.outer(gradient, gradient)
        return top + math.log(zero / total), gradient, hessian

    return evaluate


def positive_part_dual(gaps: Gaps, weights: Array) -> Callable[[Array], Evaluation]:
    """The dual of the least variance in (a, l): E[½ max(0, a + c'l)²] - a, a quadratic in pieces.

    Its curvature runs over the rows with positive weight, on which functions may depend on each
    other though they do not on all: a billionth is added, which costs no digit of the solution.
    """
    total = float(weights.sum())

    def evaluate(theta: Array) -> Evaluation:
        def part(start: int, stop: int) -> tuple[float, Array, Array]:
            c = gaps(start, stop)
            c = np.concatenate([np.ones((1, c.shape[1])), c])
            base = weights[start:stop]
            ratio = np.maximum(theta @ c, 0.0)
            first = c @ (base * ratio)
            value = float(base @ np.square(ratio)) / 2
            c *= np.sqrt(np.where(ratio > 0, base, 0.0))
            return value, first, c @ c.T

        values, firsts, seconds = zip(*map_blocks(part, len(weights)), strict=True)
        gradient = np.sum(firsts, axis=0) / total
        gradient[0] -= 1.0
        hessian = np.sum(seconds, axis=0) / total
        hessian[np.diag_indices_from(hessian)] += 1e-9
        return sum(values) / total - float(theta[0]), gradient, hessian

    return evaluate


def _capped(problem: Problem, cap: float) -> Callable[[Array], Evaluation]:
    """The dual with weights at most ``cap``, in (intercept, theta)."""
    n, gaps = len(problem.q), standard_gaps(problem)

    def evaluate(theta: Array) -> Evaluation:
        def part(start: int, stop: int) -> tuple[float, Array, Array]:
            c = gaps(start, stop)
            c = np.concatenate([np.ones((1, c.shape[1])), c])
            base = problem.weights_q[start:stop]
            room = math.log(cap) - np.log(base)
            eta = theta @ c
            below = eta < room
            w = np.where(below, base * np.exp(np.minimum(eta, room)), cap)
            value = float(np.sum(w + np.where(below, 0.0, cap * (eta - room))))
            first = c @ w
            c *= np.sqrt(np.where(below, w, 0.0))
            return value, first, c @ c.T

        values, firsts, seconds = zip(*map_blocks(part, n), strict=True)
        gradient = np.sum(firsts, axis=0) / n
        gradient[0] -= 1.0
        return sum(values) / n - float(theta[0]), gradient, np.sum(seconds, axis=0) / n

    return evaluate


def _violation(gradient: Array, theta: Array, penalty: Array) -> float:
    """Largest violation of the optimality conditions, in the gradient's unit."""
    if gradient.size == 0:
        return 0.0
    at_zero = np.maximum(np.abs(gradient) - penalty, 0.0)
    elsewhere = np.abs(gradient + penalty * np.sign(theta))
    return float(np.max(np.where((theta == 0) & (penalty > 0), at_zero, elsewhere)))


def newton(
    evaluate: Callable[[Array], Evaluation],
    theta: Array,
    penalty: Array,
    tolerance: float,
    max_iter: int,
    bound: float,
) -> tuple[Array, float, int, bool]:
    """Damped (proximal) Newton; minimiser, violation, steps, and whether the bound was passed."""
    smooth = not penalty.any()
    value, gradient, hessian = evaluate(theta)
    total = value + float(penalty @ np.abs(theta))
    gap, steps, stalled = _violation(gradient, theta, penalty), 0, 0
    while gap > tolerance and steps < max_iter and total >= bound and stalled < 3:
        if smooth:
            step = -_solve(hessian, gradient)
            descent = float(gradient @ step)
        else:
            step = _lasso_step(gradient, hessian, theta, penalty)
            drop = penalty @ (np.abs(theta + step) - np.abs(theta))
            descent = float(gradient @ step + drop)
        length, moved = 1.0, False
        trial, new, trial_total = theta, (value, gradient, hessian), total
        floor = 8 * np.finfo(float).eps * max(1.0, abs(total))
        while length > 1e-10:
            trial = theta + length * step
            with np.errstate(over="ignore", invalid="ignore"):
                new = evaluate(trial)
            trial_total = new[0] + float(penalty @ np.abs(trial))
            if (
                math.isfinite(trial_total)
                and trial_total <= total + _SLOPE * length * min(descent, 0.0) + floor
            ):
                moved = True
                break
            length /= 2
        steps += 1
        if not moved:
            break
        theta, (value, gradient, hessian) = trial, new
        before, total = total, trial_total
        new_gap = _violation(gradient, theta, penalty)
        # At the floor of rounding the value no longer falls and the gradient no longer shrinks.
        stalled = stalled + 1 if before - total <= floor and new_gap > 0.5 * gap else 0
        gap = new_gap
    return theta, gap, steps, total < bound


def _solve(hessian: Array, gradient: Array) -> Array:
    """Newton's direction; a ridge where the Hessian is singular to rounding."""
    scale = float(np.trace(hessian)) / max(len(hessian), 1)
    ridge = 0.0
    for _ in range(12):
        step = _cholesky_solve(hessian + ridge * np.eye(len(hessian)), gradient)
        if step is not None:
            return step
        ridge = max(ridge * 100, 1e-14 * scale, 1e-300)
    return gradient / max(scale, 1e-300)


def _cholesky_solve(matrix: Array, right: Array) -> Array | None:
    try:
        factor = cho_factor(matrix, lower=True, check_finite=False)
    except LinAlgError:
        return None
    solved = cho_solve(factor, right, check_finite=False)
    return solved if np.isfinite(solved).all() else None


def _lasso_step(gradient: Array, hessian: Array, theta: Array, penalty: Array) -> Array:
    """Minimise the penalised quadratic model around theta by coordinate descent."""
    k = len(theta)
    diagonal = np.maximum(np.diag(hessian), 1e-12 * max(1.0, float(np.trace(hessian)) / k))
    point, slope = theta.copy(), gradient.copy()
    for sweep in range(2_000):
        largest = 0.0
        for j in range(k):
            free = point[j] - slope[j] / diagonal[j]
            cut = penalty[j] / diagonal[j]
            new = math.copysign(max(abs(free) - cut, 0.0), free)
            change = new - point[j]
            if change != 0.0:
                slope += change * hessian[j]
                point[j] = new
                largest = max(largest, abs(change) * math.sqrt(diagonal[j]))
        if sweep % 5 == 0:
            polished = _on_active(gradient, hessian, theta, penalty, point)
            if polished is not None:
                return polished - theta
        if largest < 1e-13:
            break
    return point - theta


def _on_active(
    gradient: Array, hessian: Array, theta: Array, penalty: Array, point: Array
) -> Array | None:
    """The exact minimiser if the zeros and signs of ``point`` are the right ones."""
    active = (point != 0) | (penalty == 0)
    if not active.any():
        return None
    sign = np.sign(point[active])
    right = hessian[np.ix_(active, np.arange(len(theta)))] @ theta - gradient[active]
    right -= penalty[active] * sign
    block = hessian[np.ix_(active, active)]
    solved = _cholesky_solve(block, right)
    if solved is None:
        return None
    out = np.zeros(len(theta))
    out[active] = solved
    slope = gradient + hessian @ (out - theta)
    fine = (np.sign(solved) == sign) | (penalty[active] == 0)
    idle = np.abs(slope[~active]) <= penalty[~active] * (1 + 1e-9) + 1e-14
    return out if fine.all() and idle.all() else None
