"""Slices: sub-populations, written as rules, that p holds more or less often than q.

A slice is a set A given by one condition or by two joined by "and". Its ratio P(A)/Q(A) is the
mean of r = dP/dQ over the q-rows in A: slices are the readable marginals of the ratio. Searching
many rules for the largest ratio finds large ratios in noise, so the search sees one half of the
rows only, and the other half says which of its finds are real and how large they are.

The search ranks by the square root of what a slice adds to KL(P||Q), which is about
|log ratio| sqrt(share), with |log ratio| replaced by its lower confidence bound; a rule that only
repeats a chosen one (the same rows, or rows that are strange only because they lie in it) is left
out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from dpdq._random import RandomState, as_generator
from dpdq._threads import one_thread_each
from dpdq.errors import DataError, OptionError
from dpdq.results import Result
from dpdq.shift._common import joint_units
from dpdq.shift._literals import Condition, Literals, make_literals
from dpdq.shift._slice_counts import count_slice

__all__ = ["Slice", "find_slices"]

_LEVEL = 0.05
_MAX_LITERALS = 600
_MAX_TRIED = 400
_OVERLAP_LIMIT = 0.5
_GAIN = np.log(1.2)  # what a second condition, or a slice inside a chosen one, must add
_REMAINDER = np.log(1.1)  # what must be left of a slice outside the chosen ones


@dataclasses.dataclass(frozen=True, repr=False)
class Slice(Result):
    """A sub-population with its shares, counted on rows that the search did not see.

    Attributes
    ----------
    rule
        The slice in words.
    conditions
        Its parts.
    share_q, share_p
        Share of the confirming rows of each side that lie in it.
    ratio
        ``share_p / share_q``; infinite where no confirming row of q lies in it.
    low, high
        Simultaneous 95 % interval of the ratio over all slices tried on these rows; ``high`` is
        ``None`` where no confirming row of q lies in the slice, and with units also where none of p
        does.
    pvalue_adjusted
        Of "the shares are equal", multiplied by the number of slices tried on these rows.
    n_q, n_p
        Confirming rows of each side in the slice.
    """

    rule: str
    conditions: tuple[Condition, ...]
    share_q: float
    share_p: float
    ratio: float
    low: float
    high: float | None
    pvalue_adjusted: float
    n_q: int
    n_p: int


@dataclasses.dataclass(frozen=True)
class _Find:
    """A rule that the search proposes: its literals (column of literals, place) and its sign."""

    parts: tuple[int, ...]
    sign: int
    score: float


def find_slices(
    q: pa.Table,
    p: pa.Table,
    columns: Sequence[tuple[str, str]],
    *,
    max_slices: int = 8,
    max_conditions: int = 2,
    min_share: float = 0.01,
    units_q: Any = None,
    units_p: Any = None,
    halves_q: np.ndarray | None = None,
    halves_p: np.ndarray | None = None,
    max_rows: int = 20_000,
    random_state: RandomState = 0,
) -> list[Slice]:
    """The few sub-populations most over- and under-represented in p against q, as rules.

        ratio(A) = P(A) / Q(A),   A = {condition} or {condition and condition}

    Found on one half of the rows; shares, intervals and p-values come from the other half alone,
    and what that half does not confirm (adjusted p <= 0.05, same direction) is dropped, so that
    under q = p the probability of reporting any slice is at most 5 %.

    A shift that no axis-parallel rule shows (a changed correlation, a rotated cloud) yields no
    slice; numeric cuts stand at eight pooled quantiles, so that a narrow band may be missed. The
    list describes, it does not explain: of two columns that tell the same rows apart one is named.

    Parameters
    ----------
    q, p
        Tables of the data you have and the data you want.
    columns
        ``(name, kind)`` of the columns that rules may use; kinds as in `dpdq.data`. Text and
        embeddings only give "is missing".
    max_slices
        Slices to test on the confirming half, and so to report at most.
    max_conditions
        1 or 2.
    min_share
        A slice holds at least this share of q or of p.
    units_q, units_p
        Unit of each row (group, time block). Halves then keep units whole, and intervals and tests
        treat units, not rows, as independent.
    halves_q, halves_p
        Boolean, True for the rows to search; for example a bit of the content hash, so that equal
        rows stand in the same half. Default: units, else rows, at random.
    max_rows
        The search and the confirmation use at most half this many rows a side each.
    random_state
        Seed of the halves and of the sample.

    Returns
    -------
    list of Slice
        Biggest first; empty where nothing is confirmed.

    Raises
    ------
    DataError
        A side is empty, a column is absent, or halves or units have the wrong length.
    OptionError
        An option is out of its range.

    Notes
    -----
    Cost: O(n s^2) time for s literals (at most 600) and n = max_rows, O(n s + s^2) memory.
    Held by: tests/shift/test_slices.py::test_false_alarm_rate

    Without units the test is Fisher's exact one and the interval Katz's logarithmic one; where a
    side has fewer than five rows in the slice the ends are ratios of exact binomial bounds. With
    units both use the linearised log ratio with sums over units and Student's t.

    References
    ----------
    .. [Katz1978] Obtaining Confidence Intervals for the Risk Ratio in Cohort Studies. Katz, 1978,
       Biometrics 34.
    .. [Fisher1922] On the Interpretation of Chi-Square from Contingency Tables, and the Calculation
       of P. Fisher, 1922, Journal of the Royal Statistical Society 85.

    Examples
    --------
    >>> import numpy as np, pyarrow as pa
    >>> rng = np.random.default_rng(0)
    >>> q = pa.table({"age": rng.integers(17, 90, 4000)})
    >>> p = pa.table({"age": rng.integers(17, 50, 4000)})
    >>> [s.rule for s in find_slices(q=q, p=p, columns=[("age", "numeric")], max_slices=2)]
    ['age > 50', 'age <= 45']
    """
    _check_options(max_slices, max_conditions, min_share, max_rows)
    for label, side in (("q", q), ("p", p)):
        if side.num_rows == 0:
            raise DataError(f"{label} has no rows; slices need rows on both sides")
        absent = [name for name, _ in columns if name not in side.column_names]
        if absent:
            raise DataError(f"{label} has no column {absent[0]!r}; name columns of both sides")
    rng = as_generator(random_state)
    codes_q, codes_p, clustered = joint_units(units_q, units_p, q.num_rows, p.num_rows)
    search_q, search_p = _halves(codes_q, codes_p, halves_q, halves_p, rng)
    wanted = [name for name, _ in columns]
    found_q = _some(np.flatnonzero(search_q), max_rows // 2, rng)
    found_p = _some(np.flatnonzero(search_p), max_rows // 2, rng)
    held_q = _some(np.flatnonzero(~search_q), max_rows // 2, rng)
    held_p = _some(np.flatnonzero(~search_p), max_rows // 2, rng)
    if min(len(found_q), len(found_p), len(held_q), len(held_p)) == 0:
        return []
    first_q, first_p = q.select(wanted).take(found_q), p.select(wanted).take(found_p)
    literals = make_literals(first_q, first_p, list(columns))
    if not literals:
        return []
    finds, names = _search(
        literals,
        first_q,
        first_p,
        max_slices=max_slices,
        pairs=max_conditions == 2,
        min_share=min_share,
    )
    if not finds:
        return []
    units = (codes_q[held_q], codes_p[held_p]) if clustered else None
    return _confirm(finds, names, literals, q.take(held_q), p.take(held_p), units)


def _check_options(slices: int, conditions: int, min_share: float, rows: int) -> None:
    if slices < 1:
        raise OptionError(f"max_slices is {slices}; give 1 or more")
    if conditions not in (1, 2):
        raise OptionError(f"max_conditions is {conditions}; choose 1 or 2")
    if not 0 <= min_share < 1:
        raise OptionError(f"min_share is {min_share}; give a share from 0 to below 1")
    if rows < 2:
        raise OptionError(f"max_rows is {rows}; give 2 or more")


def _halves(
    codes_q: np.ndarray,
    codes_p: np.ndarray,
    halves_q: np.ndarray | None,
    halves_p: np.ndarray | None,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    if (halves_q is None) != (halves_p is None):
        raise DataError("halves are given for one side only; give halves_q and halves_p, or none")
    if halves_q is not None and halves_p is not None:
        given = []
        for label, half, codes in (("q", halves_q, codes_q), ("p", halves_p, codes_p)):
            half = np.asarray(half)
            if half.shape != codes.shape or half.dtype != bool:
                raise DataError(
                    f"halves_{label}: {half.dtype} of shape {half.shape}; "
                    f"give one boolean for each of the {len(codes)} rows"
                )
            given.append(half)
        return given[0], given[1]
    # a balanced random split of the units of each side; a unit of both sides gets one half
    side = np.zeros(int(max(codes_q.max(), codes_p.max())) + 1, dtype=bool)
    only_p = np.setdiff1d(codes_p, codes_q)
    for units in (np.unique(codes_q), only_p):
        shuffled = rng.permutation(units)
        side[shuffled[: (len(shuffled) + 1) // 2]] = True
    return side[codes_q], side[codes_p]


def _some(rows: np.ndarray, at_most: int, rng: np.random.Generator) -> np.ndarray:
    if len(rows) <= at_most:
        return rows
    return np.sort(rng.choice(rows, size=at_most, replace=False))


# ------------------------------------------------------------------------------------- search


def _log_ratio(
    k_q: np.ndarray, k_p: np.ndarray, n_q: int, n_p: int
) -> tuple[np.ndarray, np.ndarray]:
    """Log ratio of shares with half a row added to each cell, and its standard error."""
    estimate = np.log((k_p + 0.5) / (n_p + 0.5)) - np.log((k_q + 0.5) / (n_q + 0.5))
    variance = 1 / (k_p + 0.5) - 1 / (n_p + 0.5) + 1 / (k_q + 0.5) - 1 / (n_q + 0.5)
    return estimate, np.sqrt(np.maximum(variance, 0.0))


def _search(
    literals: list[Literals],
    q: pa.Table,
    p: pa.Table,
    *,
    max_slices: int,
    pairs: bool,
    min_share: float,
) -> tuple[list[_Find], list[tuple[int, int]]]:
    """Rules worth testing, best first, and the (column, place) that each literal number means."""
    inside_q = np.concatenate([literal.read(q) for literal in literals], axis=1)
    inside_p = np.concatenate([literal.read(p) for literal in literals], axis=1)
    names = [
        (column, place)
        for column, literal in enumerate(literals)
        for place in range(len(literal.conditions))
    ]
    n_q, n_p = len(inside_q), len(inside_p)
    k_q, k_p = inside_q.sum(axis=0), inside_p.sum(axis=0)
    large = np.flatnonzero(np.maximum(k_q / n_q, k_p / n_p) >= min_share)
    if len(large) == 0:
        return [], names
    estimate, error = _log_ratio(k_q, k_p, n_q, n_p)
    if len(large) > _MAX_LITERALS:
        order = np.argsort(-_score(estimate, error, k_q / n_q, k_p / n_p)[large], kind="stable")
        large = np.sort(large[order[:_MAX_LITERALS]])
    inside_q, inside_p = inside_q[:, large], inside_p[:, large]
    names = [names[i] for i in large]
    estimate, error = estimate[large], error[large]
    score = _score(estimate, error, k_q[large] / n_q, k_p[large] / n_p)
    finds = [
        _Find((i,), int(np.sign(estimate[i])), float(score[i]))
        for i in np.flatnonzero(score > 0).tolist()
    ]
    if pairs:
        finds += _pairs(inside_q, inside_p, names, estimate, score, min_share)
    finds.sort(key=lambda find: (-find.score, len(find.parts), find.parts))
    return _choose(finds, inside_q, inside_p, max_slices), names


def _score(
    estimate: np.ndarray, error: np.ndarray, share_q: np.ndarray, share_p: np.ndarray
) -> np.ndarray:
    bound = np.maximum(np.abs(estimate) - 2 * error, 0.0)
    return bound * np.sqrt((share_q + share_p) / 2)


def _pairs(
    inside_q: np.ndarray,
    inside_p: np.ndarray,
    names: list[tuple[int, int]],
    single: np.ndarray,
    single_score: np.ndarray,
    min_share: float,
) -> list[_Find]:
    """All pairs of literals of different columns that say notably more than either part."""
    n_q, n_p = len(inside_q), len(inside_p)
    as_q, as_p = inside_q.astype(np.float32), inside_p.astype(np.float32)
    with one_thread_each():
        k_q, k_p = as_q.T @ as_q, as_p.T @ as_p  # exact: counts below 2^24
    column = np.array([name[0] for name in names])
    rows, others = np.nonzero(
        np.triu(column[:, None] != column[None, :], 1)
        & (np.maximum(k_q / n_q, k_p / n_p) >= min_share)
    )
    k_q = k_q[rows, others].astype(np.float64)
    k_p = k_p[rows, others].astype(np.float64)
    estimate, error = _log_ratio(k_q, k_p, n_q, n_p)
    score = _score(estimate, error, k_q / n_q, k_p / n_p)
    sign = np.sign(estimate)
    part = np.maximum(np.maximum(sign * single[rows], sign * single[others]), 0.0)
    part_score = np.maximum(
        np.where(sign * single[rows] > 0, single_score[rows], 0.0),
        np.where(sign * single[others] > 0, single_score[others], 0.0),
    )
    better = (np.abs(estimate) - error > part + _GAIN) & (score > 1.1 * part_score)
    kept = np.flatnonzero(better & (score > 0))
    kept = kept[np.argsort(-score[kept], kind="stable")[: 4 * _MAX_TRIED]]
    return [_Find((int(rows[i]), int(others[i])), int(sign[i]), float(score[i])) for i in kept]


def _choose(
    finds: list[_Find], inside_q: np.ndarray, inside_p: np.ndarray, max_slices: int
) -> list[_Find]:
    """A diverse few: half the places to each direction first, the rest to the best left over."""
    chosen: list[tuple[_Find, np.ndarray, np.ndarray]] = []
    spare: list[tuple[_Find, np.ndarray, np.ndarray]] = []
    room = {1: (max_slices + 1) // 2, -1: max_slices // 2}
    for find in finds[:_MAX_TRIED]:
        in_q = np.logical_and.reduce(inside_q[:, list(find.parts)], axis=1)
        in_p = np.logical_and.reduce(inside_p[:, list(find.parts)], axis=1)
        if not all(_says_more(find.sign, in_q, in_p, *other) for other in chosen):
            continue
        if room[find.sign] > 0:
            room[find.sign] -= 1
            chosen.append((find, in_q, in_p))
        elif len(spare) < max_slices:
            spare.append((find, in_q, in_p))
        if sum(room.values()) == 0:
            break
    for item in spare:
        if len(chosen) >= max_slices:
            break
        if all(_says_more(item[0].sign, item[1], item[2], *other) for other in chosen):
            chosen.append(item)
    return [find for find, _, _ in chosen]


def _says_more(
    sign: int,
    in_q: np.ndarray,
    in_p: np.ndarray,
    other: _Find,
    other_q: np.ndarray,
    other_p: np.ndarray,
) -> bool:
    """Whether a slice is no repetition, nor the complement, of a chosen one."""
    both = (in_q & other_q).mean() + (in_p & other_p).mean()
    size = in_q.mean() + in_p.mean()
    other_size = other_q.mean() + other_p.mean()
    if sign != other.sign:
        # the complement of a chosen slice is the same fact told backwards
        only = size - both
        return only <= 0.9 * (2 - other_size + both)
    if both > _OVERLAP_LIMIT * (size + other_size - both):
        return False
    n_q, n_p = len(in_q), len(in_p)

    def lower(set_q: np.ndarray, set_p: np.ndarray) -> float:
        value, error = _log_ratio(set_q.sum(), set_p.sum(), n_q, n_p)
        return float(sign * value - error)

    if lower(in_q & ~other_q, in_p & ~other_p) > _REMAINDER:
        return True
    whole, _ = _log_ratio(other_q.sum(), other_p.sum(), n_q, n_p)
    return lower(in_q & other_q, in_p & other_p) > sign * float(whole) + _GAIN


# ---------------------------------------------------------------------------------- confirmation


def _confirm(
    finds: list[_Find],
    names: list[tuple[int, int]],
    literals: list[Literals],
    q: pa.Table,
    p: pa.Table,
    units: tuple[np.ndarray, np.ndarray] | None,
) -> list[Slice]:
    read: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    slices = []
    for find in finds:
        in_q, in_p = np.ones(q.num_rows, dtype=bool), np.ones(p.num_rows, dtype=bool)
        conditions = []
        for part in find.parts:
            column, place = names[part]
            if column not in read:
                read[column] = (literals[column].read(q), literals[column].read(p))
            in_q &= read[column][0][:, place]
            in_p &= read[column][1][:, place]
            conditions.append(literals[column].conditions[place])
        counted = count_slice(in_q, in_p, units, 1 - _LEVEL / len(finds))
        share_q, share_p, low, high, pvalue = counted
        pvalue = min(1.0, len(finds) * pvalue)
        if pvalue > _LEVEL or np.sign(share_p - share_q) != find.sign:
            continue
        slices.append(
            Slice(
                rule=" and ".join(str(condition) for condition in conditions),
                conditions=tuple(conditions),
                share_q=share_q,
                share_p=share_p,
                ratio=share_p / share_q if share_q > 0 else float("inf"),
                low=low,
                high=high,
                pvalue_adjusted=pvalue,
                n_q=int(in_q.sum()),
                n_p=int(in_p.sum()),
            )
        )
    return sorted(slices, key=lambda s: -_weight(s))


def _weight(found: Slice) -> float:
    """Lower bound of |log ratio| times the root of the mean share, for the order of the list."""
    low = np.log(found.low) if found.low > 0 else -np.inf
    high = np.log(found.high) if found.high else np.inf
    bound = low if found.share_p > found.share_q else -high
    return float(max(bound, 0.0) * np.sqrt((found.share_q + found.share_p) / 2))
