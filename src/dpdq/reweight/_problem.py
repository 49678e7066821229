"""A balancing problem in numbers: functions, rows, design weights and the target to reach."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dpdq.errors import DataError, OptionError
from dpdq.reweight._columns import MISSING, Recipe, Rows, read_sides
from dpdq.reweight._common import BLOCK, Array, percent
from dpdq.reweight.moments import BalanceFunctions, Margin

__all__ = ["Problem", "make_problem"]

_FLAT = 1e-12


@dataclasses.dataclass(frozen=True)
class Problem:
    """What a balancing method has to solve.

    Attributes
    ----------
    functions
        The k balance functions; those that are zero on both sides are not among them.
    q, weights_q
        Rows of q with a positive design weight, and these weights with mean one.
    p, weights_p
        The same of p; None with population targets.
    target
        Means to reach, shape (k,).
    mean_q, covariance_q, low, high
        Of the functions on q under its design weights: means, covariance, least and greatest.
    sd
        The unit of imbalance, shape (k,): the root of the mean variance of both sides.
    """

    functions: BalanceFunctions
    q: Rows
    weights_q: Array
    p: Rows | None
    weights_p: Array | None
    target: Array
    mean_q: Array
    covariance_q: Array
    low: Array
    high: Array
    sd: Array

    @property
    def margins(self) -> tuple[Margin, ...]:
        """Names of the functions."""
        return self.functions.margins

    @property
    def recipe(self) -> Recipe:
        """The columns."""
        return self.functions.recipe

    def sample_of_p(self, method: str) -> tuple[Rows, Array]:
        """Rows of p and their weights, for methods that cannot do without them."""
        if self.p is None or self.weights_p is None:
            raise OptionError(
                f"{method} needs rows of p, not totals; give p, or use EntropyBalancing or Raking"
            )
        return self.p, self.weights_p

    def select(self, chosen: Sequence[int] | Array) -> Problem:
        """The same problem with some of the functions only."""
        places = np.asarray(chosen, dtype=np.intp)
        return dataclasses.replace(
            self,
            functions=self.functions.select(places),
            target=self.target[places],
            mean_q=self.mean_q[places],
            covariance_q=self.covariance_q[np.ix_(places, places)],
            low=self.low[places],
            high=self.high[places],
            sd=self.sd[places],
        )

    def without(self, column: str) -> Problem:
        """The same problem without the functions of one covariate."""
        return self.select(
            [j for j, margin in enumerate(self.margins) if column not in margin.columns]
        )

    def keep_rows(self, kept: Array) -> Problem:
        """The same problem on some rows of q; means and covariance are those of all."""
        return dataclasses.replace(self, q=self.q.take(kept), weights_q=self.weights_q[kept])

    def imbalance(self, log_weights: Array) -> Array:
        """(Weighted mean on q - target) / sd under weights times design weights."""
        weights = np.exp(log_weights - log_weights.max()) * self.weights_q
        return (self.functions.mean(self.q, weights)[0] - self.target) / self.sd

    def worst(self, imbalance: Array) -> str:
        """The margin with the largest imbalance, with its numbers."""
        j = int(np.argmax(np.abs(imbalance)))
        margin = self.margins[j]
        got = self.target[j] + imbalance[j] * self.sd[j]
        if margin.indicator:
            return (
                f"{margin.name} ({percent(got)} where {percent(self.target[j])} is wanted, "
                f"{abs(imbalance[j]):.2g} standard deviations off)"
            )
        return (
            f"{margin.name} (mean {margin.raw(got):.4g} where {margin.raw(self.target[j]):.4g} is "
            f"wanted, {abs(imbalance[j]):.2g} standard deviations off)"
        )


def make_problem(
    q: Any,
    p: Any,
    *,
    targets: Mapping[Any, Any] | None,
    weights_q: Array | None,
    weights_p: Array | None,
    kept_q: Array | None,
    kept_p: Array | None,
    types: Mapping[str, str] | None,
    bins: int | None,
    moments: int | Mapping[str, int],
    interactions: Sequence[Sequence[str | int]] | str,
) -> Problem:
    """Read both sides (or q and targets), list the functions and take their moments."""
    if targets is not None:
        targets = _expanded(targets)
        joint = [key for key in targets if isinstance(key, tuple)]
        interactions = [*([] if isinstance(interactions, str) else interactions), *joint]
    recipe, rows_q, rows_p = read_sides(
        q, p, kept_q=kept_q, kept_p=kept_p, types=types, bins=bins, targets=targets
    )
    for side, rows in (("q", rows_q), ("p", rows_p)):
        if rows is not None and len(rows) < 2:
            raise DataError(f"{side} has {len(rows)} rows; weighting needs at least 2 a side")
    w_q = np.ones(len(rows_q)) if weights_q is None else weights_q
    w_p = None if rows_p is None else np.ones(len(rows_p)) if weights_p is None else weights_p
    sides = [(rows_q, w_q)] + ([] if rows_p is None or w_p is None else [(rows_p, w_p)])
    center, scale = _units(recipe, sides)
    functions = BalanceFunctions(recipe, center, scale, moments, interactions)
    mean_q, covariance, low, high = functions.moments(rows_q, w_q)
    if rows_p is not None and w_p is not None:
        target, variance_p = functions.mean(rows_p, w_p)
    else:
        target = _target_means(functions, targets or {}, mean_q)
        share = np.array([margin.indicator for margin in functions.margins])
        variance_p = np.where(share, target * (1 - target), np.diag(covariance))
    sd = np.sqrt((np.maximum(np.diag(covariance), 0.0) + variance_p) / 2)
    flat = sd <= _FLAT * np.maximum(1.0, np.abs(mean_q))
    sd = np.where(flat, 1.0, sd)
    empty = flat & (np.abs(mean_q - target) <= _FLAT * np.maximum(1.0, np.abs(mean_q)))
    indicator = np.array([margin.indicator for margin in functions.margins])
    empty &= ~(indicator & (target > 0.5))  # a level that all rows have stays in the table
    problem = Problem(
        functions, rows_q, w_q, rows_p, w_p, target, mean_q, covariance, low, high, sd
    )
    return problem.select(np.flatnonzero(~empty))


def _units(recipe: Recipe, sides: Sequence[tuple[Rows, Array]]) -> tuple[Array, Array]:
    """Mean and standard deviation of the numbers, each side with the same total weight."""
    width = len(recipe.numbers)
    missing = any(column.has_missing for column in recipe.numbers)
    firsts, spreads = [], []
    for rows, weights in sides:
        x = rows.numbers
        if missing:
            present = ~np.isnan(x)
            total = np.maximum(weights @ present, 1e-300)
            firsts.append(weights @ np.where(present, x, 0.0) / total)
        else:
            firsts.append(weights @ x / weights.sum())
    center = np.mean(firsts, axis=0) if width else np.zeros(0)
    for rows, weights in sides:
        total, square = np.zeros(width), np.zeros(width)
        for start in range(0, len(rows), BLOCK):
            gap = rows.numbers[start : start + BLOCK] - center
            w = weights[start : start + BLOCK]
            if missing:
                present = ~np.isnan(gap)
                gap = np.where(present, gap, 0.0)
                total += w @ present
            else:
                total += w.sum()
            square += w @ np.square(gap, out=gap)
        spreads.append(square / np.maximum(total, 1e-300))
    scale = np.sqrt(np.mean(spreads, axis=0)) if width else np.ones(0)
    flat = scale <= _FLAT * np.maximum(np.abs(center), 1e-300)
    return center, np.where(flat, 1.0, scale)


def _expanded(targets: Mapping[Any, Any]) -> dict[Any, Any]:
    """Targets with shares that sum to one; a joint table also fixes the shares of its columns."""
    if not isinstance(targets, Mapping):
        raise OptionError(
            f"targets has type {type(targets).__name__}; give a dict: "
            "{'age': 41.3, 'sex': {'f': 0.51, 'm': 0.49}}"
        )
    out = {
        key: _shares(key, given) if isinstance(given, Mapping) else given
        for key, given in targets.items()
    }
    for key in [key for key in out if isinstance(key, tuple)]:
        if not isinstance(out[key], dict):
            raise OptionError(f"targets[{key!r}] must be shares of cells, {{(level, ...): share}}")
        for place, name in enumerate(key):
            if name not in out:
                found: dict[str, float] = {}
                for cell, share in out[key].items():
                    found[cell[place]] = found.get(cell[place], 0.0) + share
                out[name] = found
    return out


def _target_means(functions: BalanceFunctions, targets: Mapping[Any, Any], mean_q: Array) -> Array:
    """Means of the functions that the targets fix."""
    numbers = {column.name for column in functions.recipe.numbers}
    out = np.empty(len(functions))
    for place, margin in enumerate(functions.margins):
        name, own = margin.name, targets.get(margin.columns[0])
        if name in numbers:
            if isinstance(own, bool) or not isinstance(own, (int, float, np.number)):
                raise OptionError(
                    f"targets[{name!r}] is {own!r}; give the mean of this column as a number, "
                    "or shares of its levels as {level: share}"
                )
            if not np.isfinite(own):
                raise OptionError(f"targets[{name!r}] is {own!r}; give a finite mean")
            out[place] = (float(own) - margin.center) / margin.scale
        elif len(margin.columns) == 1 and isinstance(own, dict):
            out[place] = own[name[len(margin.columns[0]) + 1 :]]
        elif margin.columns in targets:
            starts = [len(column) + 1 for column in margin.columns]
            parts = zip(name.split(" × "), starts, strict=True)
            cell = tuple(part[start:] for part, start in parts)
            if cell not in targets[margin.columns] and mean_q[place] > 0:
                raise DataError(
                    f"q has rows with {name}, a cell that the targets do not name; give it a "
                    "share (0 drops its rows)"
                )
            out[place] = targets[margin.columns].get(cell, 0.0)
        elif name.endswith(MISSING):
            raise DataError(
                f"column {margin.columns[0]!r} of q has missing values, of which its target mean "
                "says nothing; drop these rows (weights_q=0) or fill them"
            )
        else:
            raise OptionError(
                f"targets do not fix the margin {name}; with targets give moments=1 and joint "
                "shares for interactions: {('sex', 'age'): {('f', '18-29'): 0.11, ...}}"
            )
    return out


def _shares(key: Any, given: Mapping[Any, Any]) -> dict[Any, float]:
    """Shares that sum to one, out of shares, percentages or counts."""
    out: dict[Any, float] = {}
    for level, value in given.items():
        if isinstance(key, tuple):
            if not isinstance(level, tuple) or len(level) != len(key):
                raise OptionError(
                    f"targets[{key!r}] holds {level!r}; give cells as tuples of {len(key)} levels"
                )
            level = tuple(str(part) for part in level)
        else:
            level = str(level)
        number = float(value)
        if not (np.isfinite(number) and number >= 0):
            raise OptionError(
                f"targets[{key!r}][{level!r}] is {value!r}; give a share or count, 0 or more"
            )
        out[level] = out.get(level, 0.0) + number
    total = sum(out.values())
    if total <= 0:
        raise OptionError(f"targets[{key!r}] sum to {total:g}; give at least one positive share")
    return {level: number / total for level, number in out.items()}
