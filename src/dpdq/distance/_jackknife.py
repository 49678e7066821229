"""Intervals by leaving out groups of rows: one recipe for every statistic without a formula.

Rows are dealt at random into G groups on each side; theta_(g) is the statistic without the g-th
group of q and the g-th group of p. With their mean theta_(.),

    se^2 = (G - 1)/G sum_g (theta_(g) - theta_(.))^2,    theta +- t_{G-1} se.

By the inequality of Efron and Stein the expectation of se^2 is at least the variance of the
statistic on the rows that are left: exact where the statistic is a mean, too wide where rows act
together (neighbours, a distance near zero), never too narrow on average. What the interval covers
is the mean of the statistic *at these sizes*; a bias stays where it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from scipy.special import stdtrit

from dpdq._threads import parallel_map
from dpdq.errors import OptionError
from dpdq.results import Estimate

__all__ = ["check_groups", "deal_groups", "jackknife_estimate", "leave_out"]


def check_groups(n_groups: int, level: float) -> None:
    """Refuse a single group and a level that is none."""
    if n_groups < 0 or n_groups == 1:
        raise OptionError(f"n_groups is {n_groups}; expected at least 2, or 0 for no interval")
    if not 0.0 < level < 1.0:
        raise OptionError(f"level is {level}; expected a number between 0 and 1")


def deal_groups(n: int, n_groups: int, generator: np.random.Generator) -> np.ndarray:
    """A group from 0 to G - 1 for each of n rows, sizes equal up to one."""
    return generator.permutation(n) % n_groups


def leave_out(
    statistic: Callable[[np.ndarray, np.ndarray], float],
    groups_q: np.ndarray,
    groups_p: np.ndarray,
    n_groups: int,
) -> list[float]:
    """The statistic, a function of kept rows of q and of p, without each group in turn."""
    if n_groups == 0:
        return []
    return parallel_map(
        lambda g: statistic(np.flatnonzero(groups_q != g), np.flatnonzero(groups_p != g)),
        range(n_groups),
    )


def jackknife_estimate(
    estimate: float,
    without: Sequence[float] | np.ndarray,
    level: float,
    *,
    method: str,
    reason: str = "",
    least: float = -math.inf,
    most: float = math.inf,
) -> Estimate:
    """The estimate with its interval, its ends held inside the range of the statistic."""
    values = np.asarray(without, dtype=np.float64)
    if len(values) == 0:
        reason = reason or "no interval was asked for (n_groups=0)"
        return Estimate(estimate, level=level, method=method, reason=reason)
    n_groups = len(values)
    error = float(np.sqrt((n_groups - 1) * values.var()))
    reach = float(stdtrit(n_groups - 1, 0.5 + level / 2)) * error
    return Estimate(
        estimate=estimate,
        low=max(least, estimate - reach),
        high=min(most, estimate + reach),
        standard_error=error,
        level=level,
        method=f"{method}; delete-group jackknife, {n_groups} groups",
        reason=reason,
    )
