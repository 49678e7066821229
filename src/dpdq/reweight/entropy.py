"""Entropy balancing: the weights nearest to the design weights that balance the margins."""

from __future__ import annotations

import math

import numpy as np

from dpdq.errors import OverlapError
from dpdq.reweight._base import ExtendingWeighter
from dpdq.reweight._columns import Rows
from dpdq.reweight._common import Array, Solution, check_positive, map_blocks
from dpdq.reweight._dual import solve_tilt, tilt_exponent
from dpdq.reweight._feasibility import Face, clear_faces, independent, refuse_infeasible
from dpdq.reweight._problem import Problem
from dpdq.reweight.estimates import Influence, balancing_influence

__all__ = ["EntropyBalancing", "solve_entropy", "tilted_log_ratio"]


class EntropyBalancing(ExtendingWeighter):
    """Weights that balance the margins exactly and stay as near to the design weights as can be.

        minimise  sum w log(w / b)   over   sum w = n,  |E_w[f_j] - E_p[f_j]| <= tolerance sd_j
        w_i = b_i exp(a + f(x_i)'l)

    Misleads where what y depends on is not among the margins: their means agree to ten digits
    and the answer is still q's. Exact balance of many margins on few rows is paid for with a small
    effective size, which the diagnostics show.

    Parameters
    ----------
    tolerance
        Largest imbalance allowed, in standard deviations; 0 balances exactly. A positive one
        keeps margins that need no weighting out of the solution, and leaves a bias towards q (up
        to the tolerance times y's slope on each margin) that the interval of ``estimate`` does
        not hold: report such intervals as being for the weighted rows, not for p.
    cap
        Largest weight, in units of the mean weight; None for no cap. Capped weights still
        balance; where none do, the fit refuses.
    precision
        Largest difference from balance (or from the tolerance) to stop at, in standard
        deviations.
    max_iter
        Newton steps.
    not_converged
        ``"raise"``, or ``"keep"`` to hand the last iterate back with ``converged_`` False.

    Attributes
    ----------
    coef_, intercept_
        l of shape (k,) and a, in the order of ``margins_``: log dP/dQ is linear in the margins.
        Margins that others imply have the coefficient 0.

    Notes
    -----
    Cost: O(n k²) time a Newton step, about 10 steps; O(n) memory besides the data and a block.
    Held by: tests/reweight/test_entropy.py::test_equals_a_general_minimiser

    Changed from the paper: functions are standardised and made a block at a time, targets at the
    end of a function's range drop the rows they exclude, and tolerance and cap are part of the
    same dual.

    References
    ----------
    .. [Hainmueller2012] Entropy Balancing for Causal Effects: A Multivariate Reweighting Method to
       Produce Balanced Samples in Observational Studies. Hainmueller, 2012, Political Analysis 20.
    .. [Wang2020] Minimal Dispersion Approximately Balancing Weights: Asymptotic Properties and
       Practical Considerations. Wang, 2020, Biometrika 107.

    Examples
    --------
    >>> import numpy as np
    >>> from dpdq.reweight import EntropyBalancing
    >>> rng = np.random.default_rng(0)
    >>> q, p = rng.normal(0, 1, (2000, 2)), rng.normal(0.3, 1, (2000, 2))
    >>> model = EntropyBalancing().fit(q=q, p=p)
    >>> bool(np.allclose(model.weights_ @ q / 2000, p.mean(axis=0)))
    True
    """

    coef_: Array
    intercept_: float

    def __init__(
        self,
        *,
        tolerance: float = 0.0,
        cap: float | None = None,
        precision: float = 1e-10,
        max_iter: int = 200,
        not_converged: str = "raise",
    ) -> None:
        self.tolerance = tolerance
        self.cap = cap
        self.precision = precision
        self.max_iter = max_iter
        self.not_converged = not_converged

    def _check_options(self) -> None:
        check_positive("tolerance", self.tolerance, zero=True)
        check_positive("precision", self.precision)
        check_positive("max_iter", self.max_iter)
        if self.cap is not None:
            check_positive("cap", self.cap, least=1.0)

    def _solve(self, problem: Problem) -> Solution:
        return solve_entropy(
            problem,
            tolerance=self.tolerance,
            cap=self.cap,
            precision=self.precision,
            max_iter=int(self.max_iter),
        )

    def _influence(self, problem: Problem, weights: Array, scores: Array) -> Influence:
        slope = weights
        if self.cap is not None:
            scale = weights[weights > 0].mean() * (weights > 0).mean()
            slope = np.where(weights >= self.cap * scale * (1 - 1e-9), 0.0, weights)
        active = self.coef_ != 0 if self.tolerance > 0 else None
        return balancing_influence(problem, weights, slope, scores, active)

    def _log_ratio(self, problem: Problem, rows: Rows) -> Array:
        found = tilted_log_ratio(problem, rows, self.coef_, self.intercept_, self._faces)
        return found if self.cap is None else np.minimum(found, math.log(self.cap))

    _faces: tuple[Face, ...] = ()


def solve_entropy(
    problem: Problem, *, tolerance: float, cap: float | None, precision: float, max_iter: int
) -> Solution:
    """Solve the problem, or refuse it with the margin that fails."""
    reduced = clear_faces(problem, tolerance)
    inner = reduced.problem
    chosen = list(range(len(inner.functions))) if tolerance > 0 else independent(inner)
    small = inner.select(chosen)
    tilt = solve_tilt(small, delta=tolerance, cap=cap, tolerance=precision, max_iter=max_iter)
    converged = tilt.gap <= precision
    if not converged:
        _refuse(inner, small, tolerance, cap, max_iter)
    exponent = tilt_exponent(small, tilt.coef, tilt.intercept)
    if cap is not None:
        exponent = np.minimum(exponent, math.log(cap) - np.log(inner.weights_q))
    coef = np.zeros(len(problem.functions))
    coef[chosen] = tilt.coef
    failure = (
        f"stopped after {tilt.n_iter} steps with a largest difference of {tilt.gap:.1e} standard "
        f"deviations (precision {precision:.0e}); raise max_iter or precision, or give a tolerance"
    )
    return Solution(
        reduced.scatter(exponent),
        converged,
        tilt.n_iter,
        reduced.note,
        "" if converged else failure,
        {"coef_": coef, "intercept_": tilt.intercept, "_faces": reduced.faces},
    )


def _refuse(
    problem: Problem, small: Problem, tolerance: float, cap: float | None, max_iter: int
) -> None:
    """Raise if no weights exist; return if they do and the iteration merely stopped."""
    refuse_infeasible(problem, tolerance)
    if cap is None:
        return
    free = solve_tilt(small, delta=tolerance, max_iter=max_iter, tolerance=1e-8)
    exponent = tilt_exponent(small, free.coef, free.intercept)
    log_weights = exponent + np.log(small.weights_q)
    weights = np.exp(log_weights - log_weights.max())
    largest = 1.0 / float(weights.mean())
    if solve_tilt(small, delta=tolerance, cap=cap, max_iter=max_iter).infeasible:
        raise OverlapError(
            f"no weights of at most cap={cap:g} times their mean balance all margins, although "
            f"weights without a cap do (their largest is {largest:.3g}); raise cap, or give a "
            "tolerance"
        )


def tilted_log_ratio(
    problem: Problem, rows: Rows, coef: Array, intercept: float, faces: tuple[Face, ...]
) -> Array:
    """Values intercept + f(x)'coef at rows, -infinity off the faces."""
    width = (problem.high - problem.low)[[face.margin for face in faces]][:, None]
    values = np.array([face.value for face in faces])[:, None]
    places = [face.margin for face in faces]

    def part(start: int, stop: int) -> Array:
        block = problem.functions.block(rows, start, stop)
        out = coef @ block + intercept
        if faces:
            off = np.abs(block[places] - values) > 1e-12 * np.maximum(width, 1e-300)
            out[off.any(axis=0)] = -np.inf
        return out

    return np.concatenate(map_blocks(part, len(rows)))
