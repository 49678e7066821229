"""The role "weighter": ``fit(q, p)``, then ``weights_`` on the rows of q.

A weighter is written by giving two methods on a `Problem` whose rows, functions and targets are
ready: ``_solve`` finds log weights, ``_influence`` says how an estimate moves with each row. One
whose weights are a function of x derives from `ExtendingWeighter` and gives a third,
``_log_ratio``. Everything else (reading, design weights, diagnostics, estimates, sensitivity) is
the same for all and stands here.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np

from dpdq._parameters import Parameterised
from dpdq._threads import one_thread_each
from dpdq.data.sources import open_source
from dpdq.errors import ConvergenceError, DataError, DpdqError, NotFittedError, OptionError
from dpdq.ratio._common import as_weights
from dpdq.results import Estimate
from dpdq.reweight._columns import Rows
from dpdq.reweight._common import Array, Solution, check_choice
from dpdq.reweight._problem import Problem, make_problem
from dpdq.reweight.diagnostics import BalanceReport, LeftOut, balance_report
from dpdq.reweight.estimates import (
    Coefficients,
    Influence,
    mean_estimate,
    outcome,
    regression_estimate,
    regression_scores,
    regressors,
)
from dpdq.weights import Weights

__all__ = ["ExtendingWeighter", "Weighter"]


class Weighter(Parameterised, abc.ABC):
    """Base of every method that weights the rows of q towards p.

    Attributes
    ----------
    weights_
        Weights of the rows of q in their order, design weights included, shape (n,): mean one
        over the rows that have weight, 0 for the others.
    converged_
        Whether the method's equations are solved to its tolerance.
    n_iter_
        Iterations taken.
    target_
        What the weighted rows stand for: ``"p"`` or ``"overlap"``.
    weights_p_
        Weights of the rows of p in their order, as ``weights_``, for methods that weight both
        sides; None for the others.
    margins_
        Names of the functions that took part.
    """

    weights_: Array
    weights_p_: Array | None
    converged_: bool
    n_iter_: int
    margins_: tuple[str, ...]
    target_: str = "p"
    bins: int | None = None
    not_converged: str = "raise"

    def __repr__(self) -> str:
        text = self._shown_parameters()
        if "weights_" in vars(self):
            weights = repr(self._weights).replace("towards p", f"towards {self._aim()}")
            text += f", fitted: {weights}, {len(self.margins_)} margins"
        return text

    def _aim(self) -> str:
        return "p" if self.target_ == "p" else f"the {self.target_} of q and p"

    # ------------------------------------------------------------- the role
    def fit(
        self,
        q: Any,
        p: Any = None,
        *,
        targets: Mapping[Any, Any] | None = None,
        weights_q: Any = None,
        weights_p: Any = None,
        moments: int | Mapping[str, int] = 1,
        interactions: Sequence[Sequence[str | int]] | str = (),
        types: Mapping[str, str] | None = None,
    ) -> Self:
        """Find weights of the rows of q under which q looks like p.

        Parameters
        ----------
        q, p
            What one has and what one wants: arrays of shape (n, d), frames, or whatever
            `dpdq.data.open_source` reads. Columns on one side only are left out and named in the
            diagnostics.
        targets
            Population margins in place of p: column -> mean, column -> {level: share or count},
            or (column, column) -> {(level, level): share}. The key ``"(other)"`` collects the
            levels not named, ``"(missing)"`` the missing values.
        weights_q, weights_p
            Design weights, shape (n_q,) and (n_p,); zero drops the row. Default uniform.
        moments
            1 for means, 2 and 3 for squares and cubes too; or column -> 1, 2 or 3.
        interactions
            Tuples of two or three columns whose products are balanced too, or ``"all"`` pairs.
        types
            Kinds of columns that override those inferred, such as ``{"zip": "categorical"}``.

        Returns
        -------
        Self
            This object.

        Raises
        ------
        DataError
            Data that cannot be used as they are.
        OptionError
            An option outside its range, or targets that do not fix a margin.
        OverlapError
            No weights on q reach p; the message names the margin that fails.
        ConvergenceError
            The iteration stopped before its tolerance (not with ``not_converged="keep"``).
        """
        vars(self).pop("weights_", None)  # not fitted until all has gone well
        check_choice("not_converged", self.not_converged, ("raise", "keep"))
        self._check_options()
        if (p is None) == (targets is None):
            raise OptionError("give either p (rows) or targets (population margins), one of them")
        if targets is not None and weights_p is not None:
            raise OptionError("weights_p needs rows of p; with targets there are none")
        w_q, kept_q = _design(weights_q, q, "q")
        w_p, kept_p = _design(weights_p, p, "p")
        with one_thread_each():
            problem = make_problem(
                q,
                p,
                targets=targets,
                weights_q=w_q,
                weights_p=w_p,
                kept_q=kept_q,
                kept_p=kept_p,
                types=types,
                bins=self.bins,
                moments=moments,
                interactions=interactions,
            )
            self._kept = np.ones(len(problem.q), dtype=bool) if kept_q is None else kept_q
            solution = self._solve(problem)
        if not solution.converged and self.not_converged == "raise":
            raise ConvergenceError(f"{type(self).__name__}: {solution.failure}")
        calibrated = _calibrated(solution.log_weights, problem.weights_q)
        full = _in_place(calibrated[0] + np.log(problem.weights_q), kept_q)
        self.weights_p_ = None
        if solution.log_weights_p is not None and problem.weights_p is not None:
            total_p = solution.log_weights_p + np.log(problem.weights_p)
            self.weights_p_ = np.array(Weights(_in_place(total_p, kept_p)).values)
        self._problem, self._solution = problem, solution
        self._log_weights, self._shift = calibrated
        self._weights = Weights(full)
        self.weights_ = np.array(self._weights.values)
        self.converged_, self.n_iter_ = solution.converged, solution.n_iter
        self.margins_ = tuple(margin.name for margin in problem.margins)
        for name, value in solution.fitted.items():
            setattr(self, name, value)
        return self

    def _fitted(self) -> Problem:
        if "weights_" not in vars(self):
            raise NotFittedError(f"{type(self).__name__} is not fitted; call fit(q, p) first")
        return self._problem

    # ------------------------------------------------------------- what it bought
    def diagnostics(self) -> BalanceReport:
        """Balance before and after, effective size, design effect, k-hat, and what to do next.

        Returns
        -------
        BalanceReport
            A frozen record; its ``love_plot()`` and ``to_frame()`` give rows.
        """
        problem = self._fitted()
        return balance_report(
            problem,
            self._weights,
            self._log_weights,
            method=type(self).__name__,
            target=self.target_,
            converged=self.converged_,
            notes=(
                "" if self.converged_ else f"Not converged: {self._solution.failure}",
                self._solution.note,
            ),
            reference=_mean_of_p(problem, self._solution),
        )

    def estimate(
        self, y: Any, *, estimand: str = "mean", x: Any = None, level: float = 0.95
    ) -> Estimate | Coefficients:
        """Estimate a mean of y, or its regression on x, over p.

            mean        sum w y / sum w
            regression  argmin_b sum w (y - b_0 - x'b)²

        The standard errors know that the weights were estimated, from q and from p (stacked
        estimating equations). Valid only if P(Y|X) is the same in q and p.

        Parameters
        ----------
        y
            Outcome on the rows of q, shape (n_q,); ignored where the weight is zero.
        estimand
            ``"mean"`` or ``"regression"``.
        x
            Regressors on the rows of q, shape (n_q, d).
        level
            Coverage of the intervals.

        Returns
        -------
        Estimate or Coefficients
            The mean; or one estimate a coefficient, by name.

        Raises
        ------
        DataError
            A wrong length, or values that are not finite where the weight is positive.
        OptionError
            An unknown estimand, or a level outside 0 to 1.
        """
        problem = self._fitted()
        check_choice("estimand", estimand, ("mean", "regression"))
        if not 0 < level < 1:
            raise OptionError(f"level is {level}; give a number between 0 and 1")
        values = outcome(y, len(self.weights_), self.weights_ > 0)[self._kept]
        weights = self.weights_[self._kept]
        reason = "" if self._weights.ok else self._weights.status
        over = "" if self.target_ == "p" else f" over {self._aim()}, not over p"
        if estimand == "mean":
            mean = float(weights @ values / weights.sum())
            scores = np.where(weights > 0, values - mean, 0.0)[:, None]
            influence = self._influence(problem, weights, scores)
            return mean_estimate(weights, influence, mean, level, reason, over)
        matrix, names = regressors(x, len(self.weights_))
        coef, scores = regression_scores(values, matrix[self._kept], weights)
        scores = np.where(weights[:, None] > 0, scores, 0.0)
        influence = self._influence(problem, weights, scores)
        return regression_estimate(coef, names, weights, influence, level, reason, over)

    def sensitivity(self, y: Any = None) -> tuple[LeftOut, ...]:
        """Fit again without each covariate in turn.

        A covariate that the others balance anyway adds nothing; one that stays far off, or that
        moves the mean of y, carries the answer and deserves a second look.

        Parameters
        ----------
        y
            Outcome on the rows of q, shape (n_q,), to see how its mean moves.

        Returns
        -------
        tuple of LeftOut
            One a covariate, the largest change (of the mean, or without y of balance) first.
        """
        problem = self._fitted()
        values = None
        if y is not None:
            values = outcome(y, len(self.weights_), self._kept)[self._kept]
        found = [self._left_out(problem, column, values) for column in problem.recipe.names]

        def size(each: LeftOut) -> float:
            value = each.smd_after if values is None else each.change
            return -abs(value) if value is not None else -np.inf

        return tuple(sorted(found, key=size))

    def _left_out(self, problem: Problem, column: str, y: Array | None) -> LeftOut:
        own = [j for j, margin in enumerate(problem.margins) if column in margin.columns]
        rest = problem.without(column)
        try:
            none = Solution(np.zeros(len(rest.q)))
            solution = self._solve(rest) if len(rest.functions) else none
        except DpdqError as error:
            return LeftOut(column, None, None, None, None, f"no weights without it: {error}")
        log_weights = solution.log_weights
        total = log_weights + np.log(problem.weights_q)
        left = problem.select(own)
        reference = _mean_of_p(left, solution)
        if reference is not None:
            left = dataclasses.replace(left, target=reference)
        off = left.imbalance(log_weights) if own else np.zeros(1)
        worst = float(np.max(np.abs(off)))
        weights = Weights(total)
        estimate = change = None
        if y is not None:
            estimate = float(weights.values @ y / weights.values.sum())
            kept = self.weights_[self._kept]
            change = estimate - float(kept @ y / kept.sum())
        verdict = (
            "the other covariates balance it too"
            if worst <= 0.1
            else f"the others leave it {worst:.2g} standard deviations off"
        )
        return LeftOut(column, worst, weights.effective_sample_size, estimate, change, verdict)

    # ------------------------------------------------------------- to be written
    def _check_options(self) -> None:
        """Refuse options outside their range; members with options extend it."""
        return

    @abc.abstractmethod
    def _solve(self, problem: Problem) -> Solution:
        """Log weights relative to the design weights; must not change this object."""

    @abc.abstractmethod
    def _influence(self, problem: Problem, weights: Array, scores: Array) -> Influence | str:
        """Contributions of rows to estimates with these scores under the fitted weights.

        A text in their place says why there is no honest standard error.
        """


class ExtendingWeighter(Weighter):
    """A weighter whose weights are a function of x, so that it extends to rows never seen."""

    def log_ratio(self, x: Any) -> Array:
        """Estimate log dP/dQ at new rows, the log of the weight per unit of design weight.

        Parameters
        ----------
        x
            Rows with the columns of the fit, shape (n, d) or a table.

        Returns
        -------
        ndarray of shape (n,)
            Natural logarithms with E_q[exp] = 1 over the rows of the fit; -infinity where p has
            no such rows.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        DataError
            Another width, an absent column, or a level that no row of the fit had.
        """
        problem = self._fitted()
        rows = problem.recipe.encode(x)
        return self._log_ratio(problem, rows) - self._shift if len(rows) else np.zeros(0)

    @abc.abstractmethod
    def _log_ratio(self, problem: Problem, rows: Rows) -> Array:
        """The fitted function at encoded rows, on the scale of the solution's log weights."""


def _design(weights: Any, rows: Any, side: str) -> tuple[Array | None, Array | None]:
    """Design weights of the kept rows with mean one, and the mask of these; None for uniform."""
    if weights is None:
        return None, None
    n = len(rows) if isinstance(rows, np.ndarray) else open_source(rows, side=side).n_rows
    array = as_weights(weights, n, side)
    kept = array > 0
    if kept.sum() < 2:
        raise DataError(f"weights_{side} keep {int(kept.sum())} row; at least 2 are needed")
    return (array, None) if kept.all() else (array[kept], kept)


def _in_place(log_weights: Array, kept: Array | None) -> Array:
    """Log weights of all rows from those of the kept ones."""
    if kept is None:
        return log_weights
    out = np.full(len(kept), -np.inf)
    out[kept] = log_weights
    return out


def _mean_of_p(problem: Problem, solution: Solution) -> Array | None:
    """Means of the functions on p as the solution weights it; None where it leaves p alone."""
    if solution.log_weights_p is None or problem.p is None or problem.weights_p is None:
        return None
    shifted = solution.log_weights_p - solution.log_weights_p.max()
    return problem.functions.mean(problem.p, np.exp(shifted) * problem.weights_p)[0]


def _calibrated(log_weights: Array, design: Array) -> tuple[Array, float]:
    """Log weights with design-weighted mean of exp equal to one, and what was taken off."""
    top = float(log_weights.max())
    shift = top + float(np.log(design @ np.exp(log_weights - top) / design.sum()))
    return log_weights - shift, shift
