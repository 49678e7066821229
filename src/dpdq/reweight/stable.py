"""Stable balancing weights: the balancing weights of least variance."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import numpy as np

from dpdq.errors import OptionError
from dpdq.reweight._base import ExtendingWeighter
from dpdq.reweight._columns import Rows
from dpdq.reweight._common import Array, Solution, check_positive, map_blocks
from dpdq.reweight._dual import newton, positive_part_dual, standard_gaps
from dpdq.reweight._feasibility import check_range, independent, refuse_infeasible
from dpdq.reweight._problem import Problem
from dpdq.reweight.estimates import Influence, balancing_influence

__all__ = ["StableBalancingWeights"]

_FIRST_ROWS = 100_000  # above, a start is sought on a part of the rows
_ZERO = 1e-9  # ratio below which a row weighs nothing
_LEAST_SCALE = 1e-3  # of the largest tolerance, when infeasibility is explained


class StableBalancingWeights(ExtendingWeighter):
    """Weights of least variance that balance the margins up to a tolerance.

        minimise  E_b[(w / b)²]   over   w >= 0,  mean w = 1,
        |E_w[f_j] - E_p[f_j]| <= tolerance sd_j
        w_i = b_i max(0, a + f(x_i)'l)

    b are the design weights: with uniform ones E_b[(w / b)²] is one plus the variance of w, so that
    no other weights with this balance leave a larger effective size. Rows on the far side of p
    weigh nothing. Misleads where y bends in ways that no margin shows: then r is not the
    cut-off line that these weights are, and the mean of y stays off although all margins agree.

    A tolerance leaves a bias towards q, up to the tolerance times y's slope on each margin, which
    the interval of ``estimate`` does not hold.

    Parameters
    ----------
    tolerance
        Largest imbalance allowed, in standard deviations: a number for all margins, 0 to balance
        exactly; or column (or margin) -> number, where a margin of several columns takes the
        largest of theirs and columns not named are balanced exactly.
    precision
        Largest violation of the optimality conditions to stop at, in standard deviations.
    max_iter
        Newton steps.
    not_converged
        ``"raise"``, or ``"keep"`` to hand the last iterate back with ``converged_`` False.

    Attributes
    ----------
    coef_, intercept_
        l of shape (k,) and a, in the order of ``margins_``: dP/dQ is max(0, a + f'l), so that
        ``log_ratio`` is -infinity beyond the cut. Margins with slack (or that others imply) have
        the coefficient 0.

    Notes
    -----
    Cost: O(n k²) time a Newton step, about 10 steps; O(n) memory besides the data and a block.
    Held by: tests/reweight/test_stable.py::test_equals_a_quadratic_programme

    Changed from the paper: solved through its dual, a quadratic in pieces, by Newton's method
    with the curvature of the rows that have weight, which ends on the exact set of these rows.
    The unit of imbalance is the pooled standard deviation.

    References
    ----------
    .. [Zubizarreta2015] Stable Weights that Balance Covariates for Estimation With Incomplete
       Outcome Data. Zubizarreta, 2015, JASA 110.
    .. [Wang2020] Minimal Dispersion Approximately Balancing Weights: Asymptotic Properties and
       Practical Considerations. Wang, 2020, Biometrika 107.

    Examples
    --------
    >>> import numpy as np
    >>> from dpdq.reweight import EntropyBalancing, StableBalancingWeights
    >>> rng = np.random.default_rng(0)
    >>> q, p = rng.normal(0, 1, (2000, 2)), rng.normal(0.5, 1, (2000, 2))
    >>> stable = StableBalancingWeights().fit(q=q, p=p)
    >>> bool(np.allclose(np.average(q, axis=0, weights=stable.weights_), p.mean(axis=0)))
    True
    >>> size = EntropyBalancing().fit(q, p).diagnostics().effective_sample_size
    >>> bool(stable.diagnostics().effective_sample_size > size)
    True
    """

    coef_: Array
    intercept_: float

    def __init__(
        self,
        *,
        tolerance: float | Mapping[str, float] = 0.0,
        precision: float = 1e-10,
        max_iter: int = 200,
        not_converged: str = "raise",
    ) -> None:
        self.tolerance = tolerance
        self.precision = precision
        self.max_iter = max_iter
        self.not_converged = not_converged

    def _check_options(self) -> None:
        if isinstance(self.tolerance, Mapping):
            for name, value in self.tolerance.items():
                check_positive(f"tolerance[{name!r}]", value, zero=True)
        else:
            check_positive("tolerance", self.tolerance, zero=True)
        check_positive("precision", self.precision)
        check_positive("max_iter", self.max_iter)

    def _tolerances(self, problem: Problem) -> Array:
        """The tolerance of each function."""
        given = self.tolerance
        if not isinstance(given, Mapping):
            return np.full(len(problem.functions), float(given))
        known = {*problem.recipe.names, *(margin.name for margin in problem.functions._all)}
        for name in given:
            if name not in known:
                shown = ", ".join(map(repr, problem.recipe.names[:20]))
                raise OptionError(
                    f"tolerance names {name!r}, which is no column or margin; the columns are "
                    f"{shown}"
                )
        return np.array(
            [
                given.get(margin.name, max(given.get(column, 0.0) for column in margin.columns))
                for margin in problem.margins
            ],
            dtype=np.float64,
        )

    def _solve(self, problem: Problem) -> Solution:
        delta = self._tolerances(problem)
        check_range(problem, delta)
        exact = np.flatnonzero(delta == 0)
        kept = exact[independent(problem.select(exact))] if exact.size else exact
        chosen = np.sort(np.concatenate([kept, np.flatnonzero(delta > 0)]))
        small, penalty = problem.select(chosen), np.concatenate([[0.0], delta[chosen]])
        theta, steps = np.eye(1, 1 + len(chosen))[0], 0
        if len(small.q) > _FIRST_ROWS:
            part = small.keep_rows(np.arange(0, len(small.q), len(small.q) // 20_000))
            evaluate = positive_part_dual(standard_gaps(part), part.weights_q)
            found, gap, steps, _ = newton(evaluate, theta, penalty, 1e-6, 25, -math.inf)
            theta = found if gap <= 1e-6 else theta
        # No weights have a larger second moment than all of it on the row of least design weight.
        bound = -float(small.weights_q.sum()) / (2 * float(small.weights_q.min())) - 1.0
        theta, gap, more, infeasible = newton(
            positive_part_dual(standard_gaps(small), small.weights_q),
            theta,
            penalty,
            self.precision,
            int(self.max_iter),
            bound,
        )
        converged = gap <= self.precision and not infeasible
        if not converged:
            self._refuse(problem, delta)
        coef = np.zeros(len(problem.functions))
        coef[chosen] = theta[1:] / small.sd
        intercept = float(theta[0] - coef @ problem.target)
        log_weights = _log_positive_part(problem, problem.q, coef, intercept)
        if not np.isfinite(log_weights).any():
            log_weights = np.zeros(len(log_weights))  # an iterate that is kept has to be weights
        zero = int(np.count_nonzero(log_weights == -np.inf))
        return Solution(
            log_weights,
            converged,
            steps + more,
            f"{zero:,} rows of q weigh nothing, beyond the cut away from p" if zero else "",
            ""
            if converged
            else f"stopped after {steps + more} steps with optimality violated by {gap:.1e} "
            f"standard deviations (precision {self.precision:.0e}); raise max_iter or precision, "
            "or give a tolerance",
            {"coef_": coef, "intercept_": intercept},
        )

    def _refuse(self, problem: Problem, delta: Array) -> None:
        """Raise if no weights exist; return if they do and the iteration merely stopped."""
        largest = float(delta.max(initial=0.0))
        if largest > 0:  # tolerances in units of the largest become units of imbalance
            scale = np.maximum(delta / largest, _LEAST_SCALE)
            problem = dataclasses.replace(problem, sd=problem.sd * scale)
        refuse_infeasible(problem, largest)

    def _influence(self, problem: Problem, weights: Array, scores: Array) -> Influence:
        slope = np.where(weights > 0, problem.weights_q, 0.0)
        active = None
        if isinstance(self.tolerance, Mapping) or self.tolerance > 0:
            active = (self.coef_ != 0) | (self._tolerances(problem) == 0)
        return balancing_influence(problem, weights, slope, scores, active)

    def _log_ratio(self, problem: Problem, rows: Rows) -> Array:
        return _log_positive_part(problem, rows, self.coef_, self.intercept_)


def _log_positive_part(problem: Problem, rows: Rows, coef: Array, intercept: float) -> Array:
    """Logarithms of max(0, intercept + f(x)'coef) at rows."""
    parts = map_blocks(lambda a, b: coef @ problem.functions.block(rows, a, b), len(rows))
    ratio = np.concatenate(parts) + intercept
    out = np.full(len(ratio), -np.inf)
    np.log(ratio, out=out, where=ratio > _ZERO)
    return out
