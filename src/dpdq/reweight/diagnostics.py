"""What weighting bought: balance before and after, and what the weights are worth.

    SMD_j = (E_q[w f_j] - target_j) / sd_j,   sd_j² = (Var_q f_j + Var_p f_j) / 2, unweighted

The unit is fixed before weighting, so that weights cannot shrink a difference by shrinking the
ruler. Balance on the listed margins says nothing of margins not listed, and nothing of P(Y|X).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from dpdq.results import Result
from dpdq.reweight._common import Array, percent
from dpdq.reweight._problem import Problem
from dpdq.weights import Weights

__all__ = ["BalanceReport", "LeftOut", "MarginBalance", "balance_report"]


@dataclasses.dataclass(frozen=True, repr=False)
class MarginBalance(Result):
    """One row of a balance table.

    Attributes
    ----------
    margin
        Name of the function.
    columns
        The covariates that it is made of.
    mean_q, mean_weighted, target
        Its mean on q, on weighted q and on p (weighted p, where the method weights both), in the
        covariate's own unit.
    smd_before, smd_after
        Standardised mean difference q - p before and after weighting.
    """

    margin: str
    columns: tuple[str, ...]
    mean_q: float
    mean_weighted: float
    target: float
    smd_before: float
    smd_after: float


@dataclasses.dataclass(frozen=True, repr=False)
class LeftOut(Result):
    """What the weights are without one covariate.

    Attributes
    ----------
    column
        The covariate that was left out.
    smd_after
        Largest standardised difference left on its own margins by balancing the others only.
    effective_sample_size
        Of the weights without it.
    estimate, change
        The mean of y under these weights, and how far it lies from that with all covariates; None
        without y.
    status
        What that means, or why there are no such weights.
    """

    column: str
    smd_after: float | None
    effective_sample_size: float | None
    estimate: float | None
    change: float | None
    status: str


@dataclasses.dataclass(frozen=True, repr=False)
class BalanceReport(Result):
    """What a balancing method reached and what its weights are worth.

    Attributes
    ----------
    method, target
        The class, and what the weighted rows stand for (``"p"`` or ``"overlap"``).
    n_q, n_p
        Rows with a positive design weight; ``n_p`` is None with population targets.
    n_zero
        Rows of q that got no weight.
    margins
        The balance table, one `MarginBalance` a function, in the order of the functions.
    largest_before, largest_after
        Largest absolute standardised difference.
    worst_margin
        The margin with the largest difference after weighting.
    effective_sample_size, design_effect
        Of the weights (design weights included), and rows of q divided by it.
    khat, largest_weight
        Tail shape of the weights, and the largest of them in units of their mean.
    converged
        Whether the method's equations are solved.
    columns_left_out
        Columns that are not on both sides, or of a kind that cannot be balanced.
    status
        What to do next.
    """

    method: str
    target: str
    n_q: int
    n_p: int | None
    n_zero: int
    margins: tuple[MarginBalance, ...]
    largest_before: float
    largest_after: float
    worst_margin: str
    effective_sample_size: float
    design_effect: float
    khat: float | None
    largest_weight: float
    converged: bool
    columns_left_out: tuple[str, ...] = ()
    status: str = ""

    def love_plot(self) -> list[dict[str, Any]]:
        """Rows for a love plot: margins by their difference before weighting, largest first.

        Returns
        -------
        list of dict
            ``margin``, ``before`` and ``after``: absolute standardised differences.
        """
        rows = [
            {"margin": each.margin, "before": abs(each.smd_before), "after": abs(each.smd_after)}
            for each in self.margins
        ]
        return sorted(rows, key=lambda row: -row["before"])

    def to_frame(self) -> Any:
        """The balance table as an Arrow table."""
        import pyarrow as pa

        return pa.Table.from_pylist([each.to_dict() for each in self.margins])


def balance_report(
    problem: Problem,
    weights: Weights,
    log_weights: Array,
    *,
    method: str,
    target: str,
    converged: bool,
    notes: tuple[str, ...],
    reference: Array | None = None,
) -> BalanceReport:
    """Fill the report for weights of a problem; ``log_weights`` leave out the design weights.

    ``reference`` are the means to compare with where they are not those of p: of weighted p.
    """
    before = (problem.mean_q - problem.target) / problem.sd
    if reference is not None:
        problem = dataclasses.replace(problem, target=reference)
    after = problem.imbalance(log_weights)
    reached = problem.target + after * problem.sd
    margins = tuple(
        MarginBalance(
            margin.name,
            margin.columns,
            margin.raw(float(problem.mean_q[j])),
            margin.raw(float(reached[j])),
            margin.raw(float(problem.target[j])),
            float(before[j]),
            float(after[j]),
        )
        for j, margin in enumerate(problem.margins)
    )
    worst = int(np.argmax(np.abs(after))) if len(after) else -1
    size = weights.effective_sample_size
    n_q = len(problem.q)
    zero = n_q - weights.n_kept
    sentences = [*notes, _balance_sentence(problem, after, target), weights.status]
    return BalanceReport(
        method=method,
        target=target,
        n_q=n_q,
        n_p=None if problem.p is None else len(problem.p),
        n_zero=zero,
        margins=margins,
        largest_before=float(np.max(np.abs(before), initial=0.0)),
        largest_after=float(np.max(np.abs(after), initial=0.0)),
        worst_margin=problem.margins[worst].name if worst >= 0 else "",
        effective_sample_size=size,
        design_effect=n_q / size,
        khat=weights.khat,
        largest_weight=weights.largest,
        converged=converged,
        columns_left_out=problem.recipe.left_out,
        status=" ".join(part if part.endswith(".") else part + "." for part in sentences if part),
    )


def _balance_sentence(problem: Problem, after: Array, target: str) -> str:
    if not len(after):
        return "No margin differs, so nothing is balanced"
    largest = float(np.max(np.abs(after)))
    k = len(after)
    if target != "p":
        return (
            f"The weights stand for the {target} of q and p, not for p itself; weighted q and "
            f"weighted p differ by at most {largest:.1g} standard deviations in {k} margins"
        )
    if largest <= 0.001:
        return f"All {k} margins balance (largest difference {largest:.1g} standard deviations)"
    if largest <= 0.1:
        return (
            f"All {k} margins are within 0.1 standard deviations; the worst is "
            f"{problem.worst(after)}"
        )
    share = float(np.mean(np.abs(after) > 0.1))
    return (
        f"{percent(share)} of {k} margins differ by more than 0.1 standard deviations; the worst "
        f"is {problem.worst(after)}; balance them exactly (EntropyBalancing) or say so"
    )
