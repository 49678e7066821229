r"""Optimal transport between two samples, smoothed by entropy so that it can be computed.

With the cost c(x, y) = |x - y|^r and couplings pi that have marginals q and p,

    OT_eps(q, p) = min_pi  E_pi[c(x, y)] + eps KL(pi || q x p)
    S_eps(q, p)  = OT_eps(q, p) - OT_eps(q, q) / 2 - OT_eps(p, p) / 2      (Sinkhorn divergence)

OT_eps alone is not a distance: OT_eps(q, q) > 0. The divergence S_eps is: never negative, zero only
at q = p, and it joins two familiar ends,

    eps -> 0     W_r^r, exact transport: sees the geometry, needs n to grow exponentially with d
    eps -> inf   E c(x, y) - E c(x, x') / 2 - E c(y, y') / 2: half the energy distance for r = 1,
                 |difference of means|^2 for r = 2; needs no more rows in many dimensions

so that epsilon chooses between geometry and sample size. It has the unit of the cost. As S_eps is
convex in each argument, the plug-in estimate is too large on average.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from typing import Any

import numpy as np

from dpdq._optional import require
from dpdq._random import RandomState, as_generator
from dpdq._threads import one_thread_each
from dpdq.distance._common import check_sides, normal_quantile
from dpdq.distance.sliced import check_weights
from dpdq.errors import OptionError
from dpdq.kernels import distance_tile
from dpdq.results import Estimate

__all__ = ["SinkhornDivergence", "sinkhorn_divergence"]

AUTO_EPSILON = 0.05  # times the median cost
_FACTOR = 4.0  # by which epsilon falls from stage to stage
_STAGE_ITERATIONS = 60
_TAU = 1e12


@dataclasses.dataclass(frozen=True, repr=False)
class SinkhornDivergence(Estimate):
    """A Sinkhorn divergence with how it was solved.

    Attributes
    ----------
    epsilon
        The regularisation, in the unit of the cost.
    converged
        Whether every problem met the tolerance; ``status`` says what to do where not.
    marginal_error
        The largest share of mass that a coupling puts in a wrong place.
    n_q, n_p
        Rows that were used.
    status
        What to do next.
    """

    epsilon: float = math.nan
    converged: bool = True
    marginal_error: float = 0.0
    n_q: int = 0
    n_p: int = 0
    status: str = ""


def sinkhorn_divergence(
    q: np.ndarray,
    p: np.ndarray,
    *,
    epsilon: float | str = "auto",
    order: float = 2.0,
    weights_q: np.ndarray | None = None,
    weights_p: np.ndarray | None = None,
    debiased: bool = True,
    max_rows: int = 2000,
    max_iterations: int = 2000,
    tolerance: float = 1e-4,
    level: float = 0.95,
    random_state: RandomState = None,
) -> SinkhornDivergence:
    """Sinkhorn divergence of two samples: transport cost smoothed by entropy.

        S_eps(q, p) = OT_eps(q, p) - OT_eps(q, q) / 2 - OT_eps(p, p) / 2

    In many dimensions the plug-in at a small epsilon is mostly upward bias (26 for a true 0.25 at
    1,000 rows of 32 columns, with ``"auto"``; 4 at epsilon 10): hold it against the value between
    two halves of one side at the same epsilon, and raise epsilon until that is small. Numbers made
    with different epsilon cannot be compared, so fix it where you compare. Euclidean: put columns
    on comparable scales first. The smaller epsilon, the more iterations: below about a hundredth
    of the median cost Sinkhorn's algorithm often does not end in time, and the status says so.
    Needs POT (``pip install "dpdq[ot]"``).

    Parameters
    ----------
    q, p
        Samples, shapes (n_q, d) and (n_p, d); vectors are one-dimensional points.
    epsilon
        In the unit of the cost; ``"auto"`` is 0.05 times the median cost between q and p.
    order
        r >= 1 of the cost |x - y|^r.
    weights_q, weights_p
        Importance weights of rows, any scale; zero drops the row. Integer weights equal repeated
        rows.
    debiased
        Whether to subtract the two self terms; without them the value is OT_eps.
    max_rows
        Rows a side that take part; of more, as many are drawn by chance, and the status says so.
    max_iterations
        Of each of the three problems at the final epsilon.
    tolerance
        Share of mass that may be misplaced at the end.
    level
        Of the upper end.
    random_state
        Seed of the rows that are drawn.

    Returns
    -------
    SinkhornDivergence
        The value with its first-order ``standard_error`` and an upper end. There is no lower end:
        how far the plug-in lies above the truth is not known. Without convergence neither end is
        given.

    Raises
    ------
    DataError
        Values are not finite, columns do not match, or weights do not fit.
    OptionError
        A number outside its range.
    MissingDependencyError
        POT is not installed.

    Notes
    -----
    Cost: O(k n_q n_p) time for k iterations, O(n_q n_p) memory (six matrices: 200 MB at 2,000).
    Held by: tests/distance/test_sinkhorn.py::test_small_epsilon_is_exact_transport

    Epsilon falls from the largest cost to its value in steps of 4, each started from the last
    one's potentials; POT's stabilised solver does each step, and its log-domain solver takes over
    where that one overflows. The self terms need one potential each and are solved here. Values
    are dual ones, whose error is of second order in the misplaced mass.

    References
    ----------
    .. [Feydy2019] Interpolating between Optimal Transport and MMD using Sinkhorn Divergences.
       Feydy, 2019, AISTATS, arXiv 1810.08278.
    .. [Cuturi2013] Sinkhorn Distances: Lightspeed Computation of Optimal Transport. Cuturi, 2013,
       NeurIPS 26.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> q, p = rng.normal(size=(150, 2)), rng.normal(size=(100, 2)) + [2.0, 0.0]
    >>> found = sinkhorn_divergence(q=q, p=p)  # the squared shift is 4
    >>> bool(3.0 < found.estimate < 5.5), found.converged
    (True, True)
    """
    width = normal_quantile(level)
    if not (order >= 1 and math.isfinite(order)):
        raise OptionError(f"order is {order}; choose a finite number of at least 1")
    if isinstance(epsilon, str):
        if epsilon != "auto":
            raise OptionError(f"Unknown epsilon {epsilon!r}. Choose 'auto' or a positive number.")
    elif not (epsilon > 0 and math.isfinite(epsilon)):
        raise OptionError(f"epsilon is {epsilon}; expected a positive finite number or 'auto'")
    for name, value in (("max_rows", max_rows), ("max_iterations", max_iterations)):
        if value < 1:
            raise OptionError(f"{name} is {value}; expected at least 1")
    if not 0 < tolerance < 1:
        raise OptionError(f"tolerance is {tolerance}; expected a number between 0 and 1")
    ot = require("ot", "sinkhorn_divergence")

    q, p = check_sides(q, p, minimum=1)
    rng = as_generator(random_state)
    x, a, total_q = _side(q, check_weights(weights_q, len(q), "q"), max_rows, rng)
    y, b, total_p = _side(p, check_weights(weights_p, len(p), "p"), max_rows, rng)
    # distances do not change when both move; about the centre less is lost
    centre = 0.5 * (a @ x + b @ y)
    x, y = x - centre, y - centre

    with one_thread_each():
        cost = transport_cost(x, y, order)
        unit = typical_cost(cost, a, b)
        if unit == 0:  # all rows of both sides are one point
            unit = 1.0
        eps = AUTO_EPSILON * unit if isinstance(epsilon, str) else float(epsilon)

        cost /= unit
        solutions = [solve_entropic(ot, cost, a, b, eps / unit, max_iterations, tolerance)]
        del cost
        value, slope_q, slope_p = solutions[0].value, solutions[0].f, solutions[0].g
        if debiased:
            for points, share in ((x, a), (y, b)):
                own = transport_cost(points, points, order)
                own /= unit
                solutions.append(_solve_own(own, share, eps / unit, max_iterations, tolerance))
            value -= 0.5 * (solutions[1].value + solutions[2].value)
            slope_q, slope_p = slope_q - solutions[1].f, slope_p - solutions[2].f
    error = unit * math.sqrt(_variance(slope_q, a) + _variance(slope_p, b))
    wrong = max(one.marginal_error for one in solutions)
    converged = wrong <= tolerance
    value *= unit
    honest = converged and math.isfinite(error)
    return SinkhornDivergence(
        estimate=value,
        high=value + width * error if honest else None,
        standard_error=error if honest else None,
        level=level,
        method=f"{'Sinkhorn divergence' if debiased else 'entropic transport cost'}, "
        f"cost |x - y|^{order:g}, epsilon {eps:.6g}",
        reason="the plug-in lies above the truth on average, by an amount that is not known"
        if converged
        else "Sinkhorn's algorithm did not converge",
        epsilon=eps,
        converged=converged,
        marginal_error=wrong,
        n_q=len(x),
        n_p=len(y),
        status=_status(converged, wrong, max_iterations, (len(x), total_q), (len(y), total_p)),
    )


@dataclasses.dataclass(frozen=True)
class _Solution:
    """Potentials relative to the product of the marginals, and the dual value."""

    value: float
    f: np.ndarray
    g: np.ndarray
    marginal_error: float


def _side(
    points: np.ndarray, weights: np.ndarray | None, max_rows: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, int]:
    """Kept rows, weights that sum to one, and how many rows there were."""
    w = np.ones(len(points)) if weights is None else weights
    points, w = points[w > 0], w[w > 0]
    total = len(points)
    if total > max_rows:
        some = np.sort(rng.choice(total, max_rows, replace=False))
        points, w = points[some], w[some]
    return points, w / w.sum(), total


def transport_cost(x: np.ndarray, y: np.ndarray, order: float) -> np.ndarray:
    cost = distance_tile(x, y, "euclidean")
    if x is y:
        np.fill_diagonal(cost, 0.0)
    return cost if order == 2 else np.power(cost, order / 2, out=cost)


def typical_cost(cost: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    """The weighted median cost; the mean where more than half of all pairs coincide."""
    flat = cost.ravel()
    order = flat.argsort(kind="stable")
    mass = np.cumsum(np.multiply.outer(a, b).ravel()[order])
    at = int(np.searchsorted(mass, 0.5 * mass[-1] * (1.0 - 1e-12)))
    median = float(flat[order[min(at, len(flat) - 1)]])
    return median if median > 0 else float(a @ cost @ b)


def solve_entropic(
    ot: Any,
    cost: np.ndarray,
    a: np.ndarray,
    b: np.ndarray,
    eps: float,
    max_iterations: int,
    tolerance: float,
) -> _Solution:
    """Sinkhorn's algorithm with falling epsilon; the misplaced mass is measured, not trusted."""
    stages = [eps]
    while stages[-1] * _FACTOR < float(cost.max()):
        stages.append(stages[-1] * _FACTOR)
    threshold = 0.5 * tolerance / math.sqrt(len(b))  # POT measures a Euclidean norm
    alpha, beta = np.zeros(len(a)), np.zeros(len(b))
    for stage in reversed(stages):
        last = stage == eps
        options = {
            "numItermax": max_iterations if last else min(_STAGE_ITERATIONS, max_iterations),
            "stopThr": threshold if last else 1e-2 / math.sqrt(len(b)),
            "log": True,
            "warn": False,
        }
        # POT absorbs scalings above tau and starts again from 1 / n; at its default of 1,000 it
        # would do so at every step from about 1,000 rows on and never move
        with np.errstate(all="ignore"), warnings.catch_warnings():
            # "Numerical errors at iteration k": seen below, in the potentials
            warnings.simplefilter("ignore", UserWarning)
            _, log = ot.bregman.sinkhorn_stabilized(
                a, b, cost, stage, warmstart=(alpha, beta), tau=_TAU, **options
            )
        new = np.asarray(log["alpha"]), np.asarray(log["beta"])
        if not (np.isfinite(new[0]).all() and np.isfinite(new[1]).all()):
            start = (alpha / stage, beta / stage)
            _, log = ot.bregman.sinkhorn_log(a, b, cost, stage, warmstart=start, **options)
            new = stage * np.asarray(log["log_u"]), stage * np.asarray(log["log_v"])
        alpha, beta = new
    exponent = alpha[:, None] - cost
    exponent += beta
    exponent /= eps
    plan = np.exp(np.minimum(exponent, 700.0, out=exponent), out=exponent)
    rows, columns = plan.sum(axis=1), plan.sum(axis=0)
    wrong = float(max(np.abs(rows - a).sum(), np.abs(columns - b).sum()))
    f, g = alpha - eps * np.log(a), beta - eps * np.log(b)
    value = float(a @ f + b @ g) - eps * (float(rows.sum()) - 1.0)
    return _Solution(value, f, g, wrong if math.isfinite(wrong) else 1.0)


def _solve_own(
    cost: np.ndarray, a: np.ndarray, eps: float, max_iterations: int, tolerance: float
) -> _Solution:
    """The transport of a side to itself: one potential, u <- sqrt(u a / (K u)).

    The diagonal of K is one, so that nothing under- or overflows at any epsilon, and the geometric
    mean of the old and the new scaling ends in tens of steps where alternating takes thousands.
    """
    cost /= -eps
    kernel = np.exp(cost, out=cost)
    u = np.sqrt(a)
    wrong = 1.0
    for _ in range(max_iterations):
        image = kernel @ u
        wrong = float(np.abs(u * image - a).sum())
        if wrong <= 0.5 * tolerance:
            break
        u = np.sqrt(u * a / image)
    f = eps * (np.log(u) - np.log(a))
    total = float(u @ (kernel @ u))
    return _Solution(2.0 * float(a @ f) - eps * (total - 1.0), f, f, wrong)


def _variance(slope: np.ndarray, share: np.ndarray) -> float:
    n = len(share)
    if n < 2:
        return math.nan
    influence = share * (slope - share @ slope)
    return float(influence @ influence) * n / (n - 1)


def _status(
    converged: bool, wrong: float, max_iterations: int, q: tuple[int, int], p: tuple[int, int]
) -> str:
    parts = []
    if not converged:
        parts.append(
            f"not converged: {wrong:.2g} of the mass is misplaced after {max_iterations:,} "
            "iterations; take a larger epsilon or more max_iterations"
        )
    for side, (used, total) in (("q", q), ("p", p)):
        if used < total:
            parts.append(f"{used:,} of {total:,} rows of {side} were used; raise max_rows for more")
    return "; ".join(parts)
