"""Mechanisms: which rows to keep, given the utility of each.

    top_k           the largest utilities
    gumbel_top_k    a sample without replacement, P(first draw = i) proportional to exp(u_i / T)
    threshold       every row above a cut
    quota           so many of every group, by utility within it

Ties are broken by a key that depends on the row's number and a seed, not by the order of rows, and
the k best of merged parts are the k best of the whole. A budget counts rows, or a cost a row
(tokens, bytes): rows are taken in order of utility until the next would exceed it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from dpdq._random import RandomState, as_generator, child_seed, row_keys
from dpdq.errors import DataError, OptionError
from dpdq.select._base import check_utility
from dpdq.select.chosen import Selection

__all__ = ["gumbel_keys", "gumbel_top_k", "quota", "threshold", "top_k"]

_KEPT, _BELOW, _DROPPED, _BUDGET = range(4)


def _order(keys: np.ndarray, ties: np.ndarray) -> np.ndarray:
    """Row numbers from the largest key down; ties by their own keys, upwards."""
    return np.lexsort((ties, -keys))


def _limit(n: int | None, fraction: float | None, budget: float | None, rows: int) -> int:
    """Number of rows that the options ask for."""
    given = [name for name, value in (("n", n), ("fraction", fraction), ("budget", budget))
             if value is not None]  # fmt: skip
    if len(given) != 1:
        raise OptionError(
            f"give one of n, fraction and budget; got {' and '.join(given) or 'none'}"
        )
    if n is not None:
        if int(n) != n or n < 0:
            raise OptionError(f"n is {n}; expected a whole number of rows of at least 0")
        return min(int(n), rows)
    if fraction is not None:
        if not 0 <= fraction <= 1:
            raise OptionError(f"fraction is {fraction}; expected a number from 0 to 1")
        return round(fraction * rows)
    return rows


def _take(
    keys: np.ndarray,
    ties: np.ndarray,
    limit: int,
    budget: float | None,
    cost: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Rows kept, best first, and those that the budget alone keeps out."""
    candidates = np.flatnonzero(keys > -np.inf)
    if budget is None and limit < len(candidates):  # only the best need an order
        cut = np.partition(keys[candidates], len(candidates) - limit)[len(candidates) - limit]
        candidates = candidates[keys[candidates] >= cut] if limit else candidates[:0]
    order = candidates[_order(keys[candidates], ties[candidates])]
    if budget is None:
        return order[:limit], order[:0]
    assert cost is not None
    spent = np.cumsum(cost[order])
    count = int(np.searchsorted(spent, budget, side="right"))
    return order[:count], order[count:]


def _check_cost(cost: Any, budget: float | None, n: int) -> np.ndarray | None:
    if (cost is None) != (budget is None):
        raise OptionError("cost and budget belong together: what each row costs, and what all may")
    if cost is None:
        return None
    values = np.asarray(cost, dtype=np.float64)
    if values.shape != (n,):
        raise DataError(f"cost has shape {values.shape}; expected ({n},), one a row")
    if not np.isfinite(values).all() or (values < 0).any():
        raise DataError("cost holds negative or non-finite values; expected 0 or more")
    if budget is not None and not budget >= 0:
        raise OptionError(f"budget is {budget}; expected at least 0")
    return values


def _selection(
    values: np.ndarray,
    taken: np.ndarray,
    over: np.ndarray,
    mechanism: str,
    names: tuple[str, str],
    cost: np.ndarray | None,
    budget: float | None,
    unit: str,
    *,
    cut: bool,
) -> Selection:
    n = len(values)
    rows = np.sort(taken).astype(np.int64)
    reasons = np.full(n, _BELOW, dtype=np.int8)
    reasons[over] = _BUDGET
    reasons[values == -np.inf] = _DROPPED
    reasons[rows] = _KEPT
    spent = float(len(rows) if cost is None else cost[rows].sum())
    text = f"{len(rows):,} of {n:,} rows kept by {mechanism}"
    if cost is not None:
        text += f": {spent:,.0f} of {budget:,.0f} {unit}"
    if len(rows) == 0:
        text += "; nothing fits the budget" if cost is not None else ""
    return Selection(
        rows=rows,
        n_pool=n,
        mechanism=mechanism,
        utility=values,
        weights=np.ones(len(rows)),
        threshold=float(values[rows].min()) if cut and len(rows) else None,
        cost=spent,
        budget=float(len(rows) if budget is None else budget),
        unit=unit if cost is not None else "rows",
        reasons=reasons,
        reason_names=(*names, "utility is minus infinity", "over the budget"),
        status=text,
    )


def top_k(
    utility: Any,
    *,
    n: int | None = None,
    fraction: float | None = None,
    budget: float | None = None,
    cost: Any = None,
    unit: str = "units",
    seed: int = 0,
) -> Selection:
    """The rows with the largest utilities.

    Parameters
    ----------
    utility
        Utility of each row, shape (n_pool,); minus infinity is never kept.
    n, fraction, budget
        One of: number of rows, share of the rows, or a limit on the summed ``cost``.
    cost
        What each row costs, such as tokens, shape (n_pool,).
    unit
        What ``cost`` counts.
    seed
        Of the keys that break ties.

    Returns
    -------
    Selection
        The rows kept.

    Raises
    ------
    OptionError
        Not exactly one of ``n``, ``fraction`` and ``budget``.
    DataError
        NaN utilities, or a cost of another length.

    Notes
    -----
    Cost: O(n + k log k) time, O(n) memory.
    Held by: tests/select/test_mechanisms.py::test_top_of_merged_parts_is_top_of_the_whole

    Examples
    --------
    >>> from dpdq.select import top_k
    >>> top_k([0.1, 0.9, 0.5, 0.7], n=2).rows.tolist()
    [1, 3]
    >>> top_k([0.1, 0.9, 0.5, 0.7], budget=10, cost=[1, 7, 2, 3]).rows.tolist()
    [1, 3]
    """
    values = check_utility(utility)
    costs = _check_cost(cost, budget, len(values))
    limit = _limit(n, fraction, budget, len(values))
    taken, over = _take(values, row_keys(0, len(values), seed), limit, budget, costs)
    names = ("among the largest utilities", "utility below the cut")
    return _selection(values, taken, over, "top k", names, costs, budget, unit, cut=True)


def gumbel_keys(log_weights: np.ndarray, first_row: int, seed: int) -> np.ndarray:
    """Keys whose k largest are a weighted sample without replacement.

        key_i = log w_i + G_i,   G_i = -log(-log U_i),   U_i drawn from the row's number

    Parameters
    ----------
    log_weights
        Logarithm of each row's weight, shape (n,).
    first_row
        Number of the first of these rows in the whole pool.
    seed
        Of the draws.

    Returns
    -------
    ndarray of shape (n,)
        The keys; the same row has the same key in every batch.
    """
    bits = row_keys(first_row, first_row + len(log_weights), seed) >> np.uint64(11)
    uniform = (bits.astype(np.float64) + 0.5) * 2.0**-53
    return log_weights - np.log(-np.log(uniform))


def gumbel_top_k(
    utility: Any,
    *,
    n: int | None = None,
    fraction: float | None = None,
    budget: float | None = None,
    cost: Any = None,
    unit: str = "units",
    temperature: float = 1.0,
    random_state: RandomState = None,
) -> Selection:
    """A random sample without replacement, with odds exp(utility / temperature).

        keep the k largest of u_i / T + G_i,   G_i standard Gumbel

    With a log ratio as utility and T = 1 this is importance resampling of q towards p without
    replacement; T towards 0 gives `top_k`, a large T a uniform draw.

    Parameters
    ----------
    utility
        Utility of each row, shape (n_pool,); minus infinity is never kept.
    n, fraction, budget
        One of: number of rows, share of the rows, or a limit on the summed ``cost``.
    cost
        What each row costs, such as tokens, shape (n_pool,).
    unit
        What ``cost`` counts.
    temperature
        T, positive.
    random_state
        Seed.

    Returns
    -------
    Selection
        The rows kept.

    Raises
    ------
    OptionError
        Not exactly one of ``n``, ``fraction`` and ``budget``; a temperature that is not positive.
    DataError
        NaN utilities, or a cost of another length.

    Notes
    -----
    Cost: O(n + k log k) time, O(n) memory.
    Held by: tests/select/test_mechanisms.py::test_gumbel_draws_follow_the_weights

    References
    ----------
    .. [Kool2019] Stochastic Beams and Where to Find Them: The Gumbel-Top-k Trick for Sampling
       Sequences Without Replacement. Kool, 2019, ICML.

    Examples
    --------
    >>> from dpdq.select import gumbel_top_k
    >>> len(gumbel_top_k([0.0, 5.0, 1.0], n=2, random_state=0))
    2
    """
    values = check_utility(utility)
    if not temperature > 0:
        raise OptionError(f"temperature is {temperature}; expected a positive number")
    costs = _check_cost(cost, budget, len(values))
    limit = _limit(n, fraction, budget, len(values))
    seed = child_seed(as_generator(random_state))
    keys = gumbel_keys(values / temperature, 0, seed)
    taken, over = _take(keys, row_keys(0, len(values), seed), limit, budget, costs)
    names = ("drawn", "not drawn")
    return _selection(values, taken, over, "Gumbel top k", names, costs, budget, unit, cut=False)


def threshold(utility: Any, minimum: float) -> Selection:
    """Every row whose utility is at least ``minimum``.

    Parameters
    ----------
    utility
        Utility of each row, shape (n_pool,).
    minimum
        The cut.

    Returns
    -------
    Selection
        The rows kept, which may be none.

    Raises
    ------
    DataError
        NaN utilities.

    Notes
    -----
    Cost: O(n) time and memory.

    Examples
    --------
    >>> from dpdq.select import threshold
    >>> threshold([0.1, 0.9, 0.5], 0.5).rows.tolist()
    [1, 2]
    """
    values = check_utility(utility)
    taken = np.flatnonzero((values >= minimum) & (values > -np.inf))
    names = ("utility reaches the threshold", "utility below the threshold")
    return _selection(
        values, taken, taken[:0], f"threshold {minimum:g}", names, None, None, "", cut=True
    )


def quota(
    utility: Any,
    groups: Any,
    quotas: Mapping[Any, float],
    *,
    temperature: float = 0.0,
    random_state: RandomState = None,
) -> Selection:
    """So many rows of every group, the best of each.

    Parameters
    ----------
    utility
        Utility of each row, shape (n_pool,).
    groups
        Group of each row, shape (n_pool,), such as its source.
    quotas
        Group -> number of rows (whole numbers from 1) or share of the group's rows (below 1).
        Groups that are not named keep none.
    temperature
        0 keeps the largest utilities; above, a Gumbel draw within each group.
    random_state
        Seed.

    Returns
    -------
    Selection
        The rows kept; ``status`` names groups that have fewer rows than asked for.

    Raises
    ------
    OptionError
        A quota is negative or names a group that no row has.
    DataError
        Lengths differ.

    Notes
    -----
    Cost: O(n log n) time, O(n) memory.
    Held by: tests/select/test_mechanisms.py::test_quota_keeps_the_best_of_each_group

    Examples
    --------
    >>> from dpdq.select import quota
    >>> quota([3, 1, 2, 5], ["a", "a", "b", "b"], {"a": 1, "b": 0.5}).rows.tolist()
    [0, 3]
    """
    values = check_utility(utility)
    labels = np.asarray(groups)
    if labels.shape != values.shape:
        raise DataError(f"groups has shape {labels.shape}; expected {values.shape}, one a row")
    seed = child_seed(as_generator(random_state))
    keys = gumbel_keys(values / temperature, 0, seed) if temperature > 0 else values
    ties = row_keys(0, len(values), seed)
    taken, short = [], []
    for group, wanted in quotas.items():
        rows = np.flatnonzero(labels == group)
        if len(rows) == 0:
            raise OptionError(f"quota names group {group!r}, which no row of the pool has")
        if wanted < 0 or (wanted >= 1 and int(wanted) != wanted):
            raise OptionError(
                f"quota of group {group!r} is {wanted}; expected a number of rows or a share"
            )
        count = int(wanted) if wanted >= 1 else round(wanted * len(rows))
        best, _ = _take(keys[rows], ties[rows], min(count, len(rows)), None, None)
        if len(best) < count:
            short.append(f"{group!r} has {len(best):,} of {count:,}")
        taken.append(rows[best])
    kept = np.concatenate(taken) if taken else np.zeros(0, dtype=np.int64)
    names = ("within its group's quota", "outside its group's quota")
    chosen = _selection(values, kept, kept[:0], "quota", names, None, None, "", cut=False)
    if not short:
        return chosen
    import dataclasses

    return dataclasses.replace(chosen, status=f"{chosen.status}; too few rows: {', '.join(short)}")
