"""Raking and post-stratification: weights from shares of levels, one margin or one cell at a time.

    raking               w_i = b_i prod_m a_m(level of x_i in margin m),  every margin's shares met
    post-stratification  w_i = b_i share_p(cell of x_i) / share_q(cell of x_i)

Both need levels only; numbers are cut into them with ``bins``. Raking needs the share of each
level of each margin and assumes that what margins leave open is as in q; post-stratification
needs the share of each cell of all columns together and assumes nothing, but no cell of p may be
empty in q. Work is done on distinct cells, so that no margin is expanded to rows.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from dpdq.errors import DataError, OptionError, OverlapError
from dpdq.reweight._base import ExtendingWeighter
from dpdq.reweight._columns import Rows
from dpdq.reweight._common import Array, Solution, check_positive, map_blocks, percent
from dpdq.reweight._dual import solve_tilt
from dpdq.reweight._feasibility import Face, clear_faces, independent, refuse_infeasible
from dpdq.reweight._linear import distinct_rows
from dpdq.reweight._problem import Problem
from dpdq.reweight.entropy import tilted_log_ratio
from dpdq.reweight.estimates import Influence, balancing_influence

__all__ = ["PostStratification", "Raking"]

_MOST_CELLS = 2_000_000


class Raking(ExtendingWeighter):
    """Weights that meet the shares of every margin, by iterative proportional fitting.

        w_i = b_i prod_m a_m(x_i),   a_m scaled in turn until E_w[level] = share, all levels

    The limit is entropy balancing on indicators of levels; only the road differs. Misleads where
    columns act together in p otherwise than in q: give their joint table
    (``interactions=[("sex", "age")]``, or joint ``targets``).

    Parameters
    ----------
    bins
        Cut numbers at this many quantiles of both sides; None refuses them.
    tolerance
        Largest difference of a share from its target to stop at, in standard deviations.
    max_iter
        Sweeps over all margins. Where shares still differ then, as where margins overlap almost
        wholly and sweeps creep, Newton's method finishes on the same problem.
    not_converged
        ``"raise"``, or ``"keep"`` to hand the last sweep back with ``converged_`` False.

    Attributes
    ----------
    coef_, intercept_
        Log multipliers of the levels, in the order of ``margins_``, and a constant.

    Notes
    -----
    Cost: O(n) time once and O(c m) a sweep for c distinct cells and m margins, O(n + c m) memory.
    Held by: tests/reweight/test_raking.py::test_equals_iterative_proportional_fitting

    References
    ----------
    .. [Deming1940] On a Least Squares Adjustment of a Sampled Frequency Table When the Expected
       Marginal Totals Are Known. Deming, 1940, Annals of Mathematical Statistics 11.
    .. [Deville1993] Generalized Raking Procedures in Survey Sampling. Deville, 1993, JASA 88.

    Examples
    --------
    >>> from dpdq.reweight import Raking
    >>> q = {"sex": ["f", "f", "m", "f"], "town": ["Uri", "Zug", "Zug", "Zug"]}
    >>> shares = {"sex": {"f": 0.5, "m": 0.5}, "town": {"Uri": 0.2, "Zug": 0.8}}
    >>> Raking().fit(q, targets=shares).weights_.round(3)
    array([0.8, 0.6, 2. , 0.6])
    """

    coef_: Array
    intercept_: float
    _faces: tuple[Face, ...]

    def __init__(
        self,
        *,
        bins: int | None = None,
        tolerance: float = 1e-10,
        max_iter: int = 50,
        not_converged: str = "raise",
    ) -> None:
        self.bins = bins
        self.tolerance = tolerance
        self.max_iter = max_iter
        self.not_converged = not_converged

    def _check_options(self) -> None:
        check_positive("tolerance", self.tolerance)
        check_positive("max_iter", self.max_iter)

    def _solve(self, problem: Problem) -> Solution:
        _only_levels(problem, type(self).__name__)
        reduced = clear_faces(problem)
        inner = reduced.problem
        chosen = independent(inner)
        none = Rows(np.empty((0, 0)), tuple(np.zeros(0, np.int32) for _ in inner.q.codes))
        empty = Rows(np.empty((0, inner.q.numbers.shape[1])), none.codes)
        _, first, cell, _ = distinct_rows(inner.q, empty)
        base = np.bincount(cell, inner.weights_q, len(first))
        cells = inner.q.take(first)
        groups = list(_groups(inner).values())
        places = _level_of_cells(inner, cells, groups)
        log_scale = np.zeros(len(inner.functions))
        mass, total = base.copy(), float(base.sum())
        gap, sweeps = math.inf, 0
        while sweeps < self.max_iter:
            gap = 0.0
            for group, place in zip(groups, places, strict=True):
                now = np.bincount(place, mass, len(group))
                share = now / mass.sum()
                gap = max(gap, float(np.max(np.abs(share - inner.target[group]) / inner.sd[group])))
                factor = np.divide(
                    inner.target[group] * total, now, out=np.ones(len(group)), where=now > 0
                )
                log_scale[group] += np.log(factor, out=np.zeros(len(group)), where=factor > 0)
                mass *= factor[place]
            sweeps += 1
            if gap <= self.tolerance:
                break
        failure = ""
        if gap > self.tolerance:
            on_cells = dataclasses.replace(inner, q=cells, weights_q=base)
            tilt = solve_tilt(on_cells.select(chosen), tolerance=self.tolerance)
            if tilt.gap > self.tolerance:
                refuse_infeasible(on_cells)
                failure = (
                    f"shares still differ by {tilt.gap:.1e} standard deviations after {sweeps} "
                    f"sweeps and {tilt.n_iter} Newton steps; raise max_iter or tolerance"
                )
            log_scale[:] = 0.0
            log_scale[chosen] = tilt.coef
            sweeps += tilt.n_iter
        log_cells = np.zeros(len(first))
        for group, place in zip(groups, places, strict=True):
            log_cells += log_scale[group][place]
        return Solution(
            reduced.scatter(log_cells[cell]),
            not failure,
            sweeps,
            reduced.note,
            failure,
            {"coef_": log_scale, "intercept_": 0.0, "_faces": reduced.faces},
        )

    def _influence(self, problem: Problem, weights: Array, scores: Array) -> Influence:
        return balancing_influence(problem, weights, weights, scores)

    def _log_ratio(self, problem: Problem, rows: Rows) -> Array:
        return tilted_log_ratio(problem, rows, self.coef_, self.intercept_, self._faces)


class PostStratification(ExtendingWeighter):
    """Weights that give every cell of all columns together its share in p.

        w_i = b_i share_p(cell of x_i) / share_q(cell of x_i)

    With many columns most cells are empty or hold few rows, and weights are noise: rake instead, or
    collapse cells.

    Parameters
    ----------
    bins
        Cut numbers at this many quantiles of both sides; None refuses them.
    fewest
        With ``collapse``, rows of q that a cell needs to stand alone.
    collapse
        Join cells with fewer rows of q than ``fewest``, or without rows of p, to the cell that
        agrees on most columns (the one with the most rows among equals) instead of refusing
        empty ones.
    not_converged
        Of no effect: the weights have a closed form.

    Attributes
    ----------
    n_cells_
        Cells that were weighted.
    n_collapsed_
        Cells that were joined to others.

    Notes
    -----
    Cost: O(n log n) time, O(n) memory; O(s c) more to collapse s of c cells.
    Held by: tests/reweight/test_raking.py::test_post_stratification_by_hand

    References
    ----------
    .. [Holt1979] Post Stratification. Holt, 1979, JRSS A 142.

    Examples
    --------
    >>> from dpdq.reweight import PostStratification
    >>> q, p = {"sex": ["f", "f", "f", "m"]}, {"sex": ["f", "m", "f", "m"]}
    >>> PostStratification().fit(q, p).weights_.round(3)
    array([0.667, 0.667, 0.667, 2.   ])
    """

    n_cells_: int
    n_collapsed_: int
    _cell: Array
    _cell_p: Array | None
    _names: list[str]
    _known: Array
    _known_log: Array

    def __init__(
        self,
        *,
        bins: int | None = None,
        fewest: int = 1,
        collapse: bool = False,
        not_converged: str = "raise",
    ) -> None:
        self.bins = bins
        self.fewest = fewest
        self.collapse = collapse
        self.not_converged = not_converged

    def _check_options(self) -> None:
        check_positive("fewest", self.fewest)

    def _solve(self, problem: Problem) -> Solution:
        _only_levels(problem, type(self).__name__)
        names = [
            column.name
            for column in problem.recipe.levels
            if any(column.name in margin.columns for margin in problem.margins)
        ]
        strides = _strides(problem, names)
        key_q = _keys(problem, problem.q, names, strides)
        if problem.p is not None and problem.weights_p is not None:
            key_p = _keys(problem, problem.p, names, strides)
            known, inverse = np.unique(np.concatenate([key_q, key_p]), return_inverse=True)
            cell_q, cell_p = inverse[: len(key_q)], inverse[len(key_q) :]
            wanted = np.bincount(cell_p, problem.weights_p, len(known))
        else:
            table_keys, shares = _joint_shares(problem, names, strides)
            known = np.unique(np.concatenate([key_q, table_keys]))
            cell_q, cell_p = np.searchsorted(known, key_q), None
            wanted = np.zeros(len(known))
            wanted[np.searchsorted(known, table_keys)] = shares
        rows = np.bincount(cell_q, minlength=len(known))
        home = np.arange(len(known))
        if self.collapse:
            home = _collapsed(problem, known, rows, wanted, names, strides, int(self.fewest))
        elif ((rows == 0) & (wanted > 0)).any():
            _refuse_empty(problem, known, rows, wanted, names, strides)
        wanted = np.bincount(home, wanted, len(known)) / wanted.sum()
        have = np.bincount(home[cell_q], problem.weights_q, len(known))
        have /= have.sum()
        with np.errstate(divide="ignore", invalid="ignore"):
            log_scale = np.where(have > 0, np.log(wanted) - np.log(have), -np.inf)
        zero = int(rows[(home == np.arange(len(known))) & (wanted == 0)].sum())
        joined = int((home != np.arange(len(known))).sum())
        notes = []
        if joined:
            notes.append(f"{joined:,} cells with few rows of q were joined to similar ones")
        if zero:
            notes.append(f"{zero:,} rows of q weigh nothing: p has no rows in their cells")
        return Solution(
            log_scale[home][cell_q],
            note="; ".join(notes),
            fitted={
                "n_cells_": int(np.count_nonzero(wanted)),
                "n_collapsed_": joined,
                "_cell": home[cell_q],
                "_cell_p": None if cell_p is None else home[cell_p],
                "_names": names,
                "_known": known,
                "_known_log": log_scale[home],
            },
        )

    def _influence(self, problem: Problem, weights: Array, scores: Array) -> Influence:
        cells = len(self._known)
        mass = np.maximum(np.bincount(self._cell, weights, cells), 1e-300)
        means = np.stack(
            [np.bincount(self._cell, weights * each, cells) / mass for each in scores.T], axis=1
        )
        on_q = (scores - means[self._cell]) * (weights / weights.sum())[:, None]
        on_p = None
        if self._cell_p is not None and problem.weights_p is not None:
            on_p = means[self._cell_p] * (problem.weights_p / problem.weights_p.sum())[:, None]
        return Influence(on_q, on_p, self.n_cells_ - 1)

    def _log_ratio(self, problem: Problem, rows: Rows) -> Array:
        keys = _keys(problem, rows, self._names, _strides(problem, self._names))
        place = np.minimum(np.searchsorted(self._known, keys), len(self._known) - 1)
        strange = self._known[place] != keys
        if strange.any():
            row = int(np.argmax(strange))
            text = _cell_text(problem, int(keys[row]), self._names, _strides(problem, self._names))
            raise DataError(
                f"x: {int(strange.sum())} of {len(keys)} rows lie in cells that no row of the fit "
                f"had (first at row {row}: {text}); drop them, or use Raking"
            )
        return self._known_log[place]


def _only_levels(problem: Problem, method: str) -> None:
    if problem.recipe.numbers:
        column = problem.recipe.numbers[0]
        raise OptionError(
            f"{method} works on levels and column {column.name!r} holds numbers; give bins=10 to "
            f"cut it, types={{{column.source!r}: 'categorical'}}, or use EntropyBalancing"
        )


def _groups(problem: Problem) -> dict[tuple[str, ...], Array]:
    """The functions of each margin: those on the same columns."""
    found: dict[tuple[str, ...], list[int]] = {}
    for j, margin in enumerate(problem.margins):
        found.setdefault(margin.columns, []).append(j)
    return {columns: np.array(places) for columns, places in found.items()}


def _level_of_cells(problem: Problem, cells: Rows, groups: list[Array]) -> list[Array]:
    """Which level of each margin every cell has."""

    def part(start: int, stop: int) -> Array:
        block = problem.functions.block(cells, start, stop)
        return np.stack([block[group].argmax(axis=0) for group in groups])

    parts = [np.empty((len(groups), 0), np.int64), *map_blocks(part, len(cells))]
    return list(np.concatenate(parts, axis=1))


def _strides(problem: Problem, names: list[str]) -> Array:
    sizes = [len(column.levels) for column in problem.recipe.levels if column.name in names]
    if math.prod(sizes) >= 2**62:
        raise OptionError(
            f"{len(names)} columns have more cells than can be numbered; post-stratify on fewer, "
            "or use Raking"
        )
    return np.concatenate([[1], np.cumprod(sizes[:-1], dtype=np.int64)]).astype(np.int64)


def _keys(problem: Problem, rows: Rows, names: list[str], strides: Array) -> Array:
    """One integer a row for its cell."""
    codes = [
        code
        for code, column in zip(rows.codes, problem.recipe.levels, strict=True)
        if column.name in names
    ]
    total = np.zeros(len(rows), dtype=np.int64)
    for code, stride in zip(codes, strides, strict=True):
        total += code.astype(np.int64) * stride
    return total


def _codes_of(problem: Problem, keys: Array, names: list[str], strides: Array) -> Array:
    """Level codes of cells, shape (cells, columns)."""
    sizes = [len(column.levels) for column in problem.recipe.levels if column.name in names]
    return np.stack(
        [keys // stride % size for stride, size in zip(strides, sizes, strict=True)], axis=1
    )


def _cell_text(problem: Problem, key: int, names: list[str], strides: Array) -> str:
    codes = _codes_of(problem, np.array([key]), names, strides)[0]
    columns = [column for column in problem.recipe.levels if column.name in names]
    return ", ".join(
        f"{column.name}={column.levels[code]}" for column, code in zip(columns, codes, strict=True)
    )


def _joint_shares(problem: Problem, names: list[str], strides: Array) -> tuple[Array, Array]:
    """Cells and shares from population targets."""
    columns = [column for column in problem.recipe.levels if column.name in names]
    group = [j for j, margin in enumerate(problem.margins) if set(margin.columns) == set(names)]
    if not group:
        raise OptionError(
            "post-stratification needs the shares of the cells of all columns together: "
            "targets={('sex', 'age'): {('f', '18-29'): 0.11, ...}}; from shares of single columns "
            "use Raking"
        )
    sizes = [len(column.levels) for column in columns]
    cells = math.prod(sizes)
    if cells > _MOST_CELLS:
        raise OptionError(f"the targets span {cells:,} cells; at most {_MOST_CELLS:,} are taken")
    keys = np.arange(cells, dtype=np.int64)
    codes = _codes_of(problem, keys, names, strides).astype(np.int32)
    place = {column.name: codes[:, j] for j, column in enumerate(columns)}
    zero = np.zeros(cells, np.int32)
    rows = Rows(
        np.empty((cells, 0)),
        tuple(place.get(column.name, zero) for column in problem.recipe.levels),
    )
    functions = problem.functions.select(group)
    shares = problem.target[group] @ functions.matrix(rows)
    return keys[shares > 0], shares[shares > 0]


def _refuse_empty(
    problem: Problem, known: Array, rows: Array, wanted: Array, names: list[str], strides: Array
) -> None:
    empty = np.flatnonzero((rows == 0) & (wanted > 0))
    shares = wanted[empty] / wanted.sum()
    worst = int(empty[np.argmax(shares)])
    text = _cell_text(problem, int(known[worst]), names, strides)
    raise OverlapError(
        f"{len(empty):,} cells of p ({percent(float(shares.sum()))} of it) have no row of q, the "
        f"largest {text} ({percent(float(shares.max()))}); give collapse=True, fewer columns, or "
        "use Raking"
    )


def _collapsed(
    problem: Problem,
    known: Array,
    rows: Array,
    wanted: Array,
    names: list[str],
    strides: Array,
    fewest: int,
) -> Array:
    """The cell that stands for each cell: itself where it has rows enough."""
    codes = _codes_of(problem, known, names, strides)
    enough = (rows >= fewest) & (wanted > 0)
    if not enough.any():
        raise OverlapError(
            f"no cell has {fewest} rows of q and a share of p; post-stratify on fewer columns"
        )
    kept = np.flatnonzero(enough)
    home = np.arange(len(known))
    # Most columns in common first, then most rows of q.
    rank = np.argsort(np.argsort(rows[kept], kind="stable"), kind="stable") / (2 * len(kept))
    lone = np.flatnonzero(~enough & ((wanted > 0) | (rows > 0)))
    for cell in lone:
        common = (codes[kept] == codes[cell]).sum(axis=1) + rank
        home[cell] = kept[int(np.argmax(common))]
    return home
