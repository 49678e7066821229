"""Can weights reach the target at all, and if not, which margin is in the way?

Three questions, from cheap to dear:

1. Does each target lie between the least and the greatest value of its function on q? A target
   outside names its margin at once ("no row of q has town=Zug"). A target *at* an end leaves
   weight only to the rows there: a level that p lacks gives its rows of q the weight zero, which
   is dP/dQ, and is said.
2. Is a function that is a linear combination of others on q one with the same coefficients in p?
3. Does the target lie in the convex hull of q's rows? A linear programme finds the weights with
   the least sum of absolute imbalances; where that is positive its margins fail together, and
   dropping one covariate at a time tells which one is to blame.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from dpdq._threads import one_thread_each
from dpdq.errors import OverlapError
from dpdq.reweight._common import Array, independent_rows, map_blocks, percent
from dpdq.reweight._problem import Problem

__all__ = [
    "Face",
    "Reduced",
    "check_range",
    "clear_faces",
    "hull_gap",
    "independent",
    "refuse_infeasible",
]

_AT_END = 1e-12
_FEASIBLE = 1e-7
_CURE = "leave it out, merge levels, give a tolerance, or ask for a p nearer to q"


@dataclasses.dataclass(frozen=True)
class Face:
    """A margin whose target is its least or greatest value: other rows weigh nothing."""

    margin: int
    value: float


@dataclasses.dataclass(frozen=True)
class Reduced:
    """A problem on the rows that may have weight.

    ``kept`` masks them among the rows of the problem as given; ``note`` says which rows lost
    theirs and why.
    """

    problem: Problem
    kept: Array | None
    faces: tuple[Face, ...]
    note: str

    def scatter(self, log_weights: Array) -> Array:
        """Log weights of all rows from those of the kept ones."""
        if self.kept is None:
            return log_weights
        out = np.full(len(self.kept), -np.inf)
        out[self.kept] = log_weights
        return out


def clear_faces(problem: Problem, tolerance: float = 0.0) -> Reduced:
    """Refuse targets out of reach of single margins, and drop rows that a target excludes.

    Raises
    ------
    OverlapError
        A target lies outside its function's range on q by more than the tolerance.
    """
    faces: list[Face] = []
    kept = np.ones(len(problem.q), dtype=bool)
    current = problem
    while True:
        check_range(current, tolerance)
        if tolerance > 0:
            break
        width = current.high - current.low
        slack = _AT_END * np.maximum(width, 1e-300)
        at_low = (current.target <= current.low + slack) & (width > 0)
        at_high = (current.target >= current.high - slack) & (width > 0)
        ends = np.flatnonzero(at_low | at_high)
        if not ends.size:
            break
        values = np.where(at_low, current.low, current.high)[ends]
        faces += [Face(int(j), float(v)) for j, v in zip(ends, values, strict=True)]
        kept &= on_faces(problem, faces)
        if not kept.any():
            names = ", ".join(problem.margins[face.margin].name for face in faces[:5])
            raise OverlapError(
                f"no row of q lies at the ends that the targets of {names} ask for; {_CURE}"
            )
        part = problem.keep_rows(kept)
        mean, covariance, low, high = part.functions.moments(part.q, part.weights_q)
        current = dataclasses.replace(
            part, mean_q=mean, covariance_q=covariance, low=low, high=high
        )
    if not faces:
        return Reduced(problem, None, (), "")
    dropped = int((~kept).sum())
    names = [problem.margins[face.margin].name for face in faces]
    shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
    note = (
        f"{dropped:,} rows of q weigh nothing, because the target of {shown} is at the end of its "
        "range (p has no such rows)"
    )
    return Reduced(current, kept, tuple(faces), note)


def on_faces(problem: Problem, faces: list[Face] | tuple[Face, ...]) -> Array:
    """Which rows of q have the value that every face asks for."""
    places = [face.margin for face in faces]
    functions = problem.functions.select(places)
    values = np.array([face.value for face in faces])[:, None]
    width = (problem.high - problem.low)[places][:, None]

    def part(start: int, stop: int) -> Array:
        block = functions.block(problem.q, start, stop)
        near = np.abs(block - values) <= _AT_END * np.maximum(width, 1e-300)
        return np.asarray(near.all(axis=0))

    return np.concatenate(map_blocks(part, len(problem.q)))


def check_range(problem: Problem, tolerance: float | Array) -> None:
    """Refuse targets beyond the ends of single functions on q by more than the tolerance.

    Raises
    ------
    OverlapError
        With the margin that lies farthest off.
    """
    reach = tolerance * problem.sd + _AT_END * np.maximum(1.0, np.abs(problem.target))
    below = problem.low - problem.target
    above = problem.target - problem.high
    beyond = np.maximum(below, above) - reach
    if not (beyond > 0).any():
        return
    j = int(np.argmax(beyond / problem.sd))
    margin = problem.margins[j]
    if margin.indicator and above[j] > 0 and problem.high[j] == 0:
        raise OverlapError(
            f"no row of q has {margin.name}, which is {percent(problem.target[j])} of p: weights "
            "cannot make rows that are not there; merge the level, leave out the column, or drop "
            "these rows of p (weights_p=0)"
        )
    if margin.indicator and problem.low[j] == 1:
        raise OverlapError(
            f"every row of q that may have weight has {margin.name}, where only "
            f"{percent(problem.target[j])} of p do; merge levels or leave out the column"
        )
    unit = abs(margin.scale)
    ends = (margin.raw(float(problem.low[j])), margin.raw(float(problem.high[j])))
    low, high = (0.0 if abs(end) < 1e-12 * unit else end for end in ends)
    raise OverlapError(
        f"margin {margin.name}: p's mean {margin.raw(problem.target[j]):.4g} lies outside the "
        f"range of q, {low:.4g} to {high:.4g}, so that no weights reach it; {_CURE}"
    )


def independent(problem: Problem) -> list[int]:
    """Functions that are no linear combinations of others on q.

    Raises
    ------
    OverlapError
        A combination that holds on q does not hold for the targets.
    """
    chosen = independent_rows(problem.covariance_q)
    others = sorted(set(range(len(problem.functions))) - set(chosen))
    if not others:
        return chosen
    gap = problem.target - problem.mean_q
    if chosen:
        scale = np.sqrt(np.diag(problem.covariance_q)[chosen])
        block = problem.covariance_q[np.ix_(chosen, chosen)] / np.outer(scale, scale)
        right = problem.covariance_q[np.ix_(chosen, others)] / scale[:, None]
        implied = (np.linalg.solve(block, right).T / scale) @ gap[chosen]
    else:
        implied = np.zeros(len(others))
    off = (gap[others] - implied) / problem.sd[others]
    worst = int(np.argmax(np.abs(off)))
    if abs(off[worst]) > 1e-6:
        margin = problem.margins[others[worst]]
        if problem.p is None:
            raise OverlapError(
                f"the targets contradict each other: given the others, margin {margin.name} has "
                f"to be {abs(off[worst]):.2g} standard deviations from where it is wanted; make "
                "the totals agree"
            )
        raise OverlapError(
            f"margin {margin.name} is fixed by other margins on q but not in p (off by "
            f"{abs(off[worst]):.2g} standard deviations where the others balance), so that no "
            f"weights reach it; {_CURE}"
        )
    return chosen


def hull_gap(problem: Problem, tolerance: float = 0.0) -> Array:
    """Imbalances of the weights with the least sum of absolute imbalances beyond the tolerance.

    A linear programme over the rows of q by column generation: it is solved on a few rows, and
    the rows that its prices call for are added until none is left, so that a million rows cost a
    few passes. All zero, up to rounding, where weights exist.
    """
    from scipy.optimize import linprog

    k, n = len(problem.functions), len(problem.q)
    if k == 0:
        return np.zeros(0)
    target, sd = problem.target[:, None], problem.sd[:, None]
    most = max(64, 2 * k)

    def best(start: int, stop: int, price: Array, level: float) -> tuple[Array, Array]:
        gaps = (problem.functions.block(problem.q, start, stop) - target) / sd
        score = price @ gaps + level
        wanted = np.flatnonzero(score > 1e-9)
        if wanted.size > most:
            wanted = wanted[np.argpartition(-score[wanted], most - 1)[:most]]
        return start + wanted, score[wanted]

    def gaps_at(rows: Array) -> Array:
        part = problem.q.take(rows)
        return (problem.functions.block(part, 0, len(rows)) - target) / sd

    spread = np.unique(np.linspace(0, n - 1, min(n, 4 * k + 50)).astype(np.int64))
    columns = gaps_at(spread)
    inside = set(spread.tolist())
    eye, gap = np.eye(k), np.zeros(k)
    with one_thread_each():
        for _ in range(200):
            m = columns.shape[1]
            slack = np.concatenate([eye, -eye, eye], axis=1)
            matrix = np.concatenate(
                [
                    np.concatenate([columns, slack], axis=1),
                    np.concatenate([np.ones(m), np.zeros(3 * k)])[None],
                ]
            )
            bounds = [(0.0, None)] * (m + 2 * k) + [(-tolerance, tolerance)] * k
            cost = np.concatenate([np.zeros(m), np.ones(2 * k), np.zeros(k)])
            right = np.concatenate([np.zeros(k), [1.0]])
            found = linprog(cost, A_eq=matrix, b_eq=right, bounds=bounds, method="highs")
            gap = -(found.x[m : m + k] - found.x[m + k : m + 2 * k])
            if found.fun <= _FEASIBLE:
                break
            prices = np.asarray(found.eqlin.marginals)
            price, level = prices[:k], float(prices[k])
            parts = map_blocks(lambda a, b, y=price, z=level: best(a, b, y, z), n)
            rows = np.concatenate([part[0] for part in parts])
            scores = np.concatenate([part[1] for part in parts])
            fresh = np.array([row not in inside for row in rows.tolist()], dtype=bool)
            rows, scores = rows[fresh], scores[fresh]
            if not rows.size:
                break
            rows = rows[np.argsort(-scores, kind="stable")[:most]]
            inside.update(rows.tolist())
            columns = np.concatenate([columns, gaps_at(rows)], axis=1)
    return gap


def _need(problem: Problem) -> Array:
    """How far each margin alone strains the weights, about the divergence that it costs."""
    mean, target = problem.mean_q, problem.target
    price = (target - mean) ** 2 / np.maximum(2 * np.diag(problem.covariance_q), 1e-300)
    for j, margin in enumerate(problem.margins):
        if margin.indicator:  # the side whose rows have to weigh more
            share, wanted = float(mean[j]), float(target[j])
            if wanted < share:
                share, wanted = 1 - share, 1 - wanted
            price[j] = wanted * np.log(max(wanted, 1e-12) / max(share, 1e-12))
    return price


def refuse_infeasible(problem: Problem, tolerance: float = 0.0) -> None:
    """Raise with the margin and the covariate that fail; return where weights do exist.

    Raises
    ------
    OverlapError
        No weights on q reach the target.
    """
    gap = hull_gap(problem, tolerance)
    if np.abs(gap).sum() <= 10 * _FEASIBLE:
        return
    need = _need(problem)
    failing = [j for j in np.argsort(-np.abs(gap)) if abs(gap[j]) > _FEASIBLE]
    owners: dict[str, float] = {}
    for j in failing:
        for column in problem.margins[j].columns:
            owners[column] = max(owners.get(column, 0.0), float(need[j]))
    ranked = sorted(owners, key=lambda column: -owners[column])
    for column in ranked[:6]:
        rest = problem.without(column)
        if np.abs(hull_gap(rest, tolerance)).sum() > 10 * _FEASIBLE:
            continue
        own = [j for j in range(len(need)) if column in problem.margins[j].columns]
        j = max(own, key=lambda j: need[j])
        raise OverlapError(
            f"no weights of q balance all margins at once: {_describe(problem, j)} fails; without "
            f"column {column!r} weights exist. Leave it out, merge levels, give a tolerance, or "
            "ask for a p nearer to q"
        )
    shown = "; ".join(_reached(problem, j, gap) for j in failing[:3])
    raise OverlapError(
        f"no weights of q balance all margins at once, nor without any one column: at best "
        f"{shown}. Leave these out, give a tolerance, or ask for a p nearer to q"
    )


def _describe(problem: Problem, j: int) -> str:
    margin = problem.margins[j]
    if margin.indicator:
        rows = problem.mean_q[j]
        return (
            f"{margin.name} ({percent(rows)} of q has to stand for "
            f"{percent(problem.target[j])} of p)"
        )
    return (
        f"{margin.name} (mean {margin.raw(problem.mean_q[j]):.4g} in q, "
        f"{margin.raw(problem.target[j]):.4g} in p)"
    )


def _reached(problem: Problem, j: int, gap: Array) -> str:
    margin = problem.margins[j]
    got = problem.target[j] + gap[j] * problem.sd[j]
    if margin.indicator:
        return f"{margin.name} reaches {percent(got)} of {percent(problem.target[j])}"
    return f"{margin.name} reaches {margin.raw(got):.4g} of {margin.raw(problem.target[j]):.4g}"
