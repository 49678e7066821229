"""Balance functions: the moments of the covariates that weights must bring from q to p.

    E_q[w f_j(x)] = E_p[f_j(x)],   j = 1, ..., k

A margin is one such function. With ``moments=1`` it is each number itself and an indicator of
each level (and of missing values); ``moments=2`` and ``3`` add squares and cubes of the
standardised numbers, ``interactions=[("age", "sex")]`` products of columns: of two numbers, of a
number with each level, or the cells of two columns of levels.

What balance does not fix: everything of x that is not on the list. Weighted q and p agree on
means and may differ in any other way, so put on the list what the outcome depends on.

Numbers are standardised as z = (x - c) / s with the mean c and standard deviation s of both
sides, half of the weight each (of q alone with population targets). Balancing z and z² is the
same as balancing x and x², better conditioned and free of units.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dpdq.errors import OptionError
from dpdq.reweight._columns import MISSING, Recipe, Rows
from dpdq.reweight._common import Array, map_blocks

__all__ = ["BalanceFunctions", "Margin"]


@dataclasses.dataclass(frozen=True)
class Margin:
    """One balance function.

    Attributes
    ----------
    name
        Such as ``age``, ``age^2``, ``sex=f``, ``sex=f × age``.
    columns
        The covariates that it is made of.
    indicator
        Whether it is 0 or 1, so that its mean is a share.
    center, scale
        A plain number in its own unit is ``center + scale * f``; 0 and 1 for all others.
    """

    name: str
    columns: tuple[str, ...]
    indicator: bool
    center: float = 0.0
    scale: float = 1.0

    def raw(self, value: float) -> float:
        """A mean of this function in the covariate's own unit."""
        return self.center + self.scale * value


class BalanceFunctions:
    """The list of balance functions of a recipe of columns, evaluated a block at a time.

    Parameters
    ----------
    recipe
        Columns of both sides.
    center, scale
        Of the numbers, shape (a,).
    moments
        1, 2 or 3, or a mapping column -> 1, 2 or 3 (others 1).
    interactions
        Tuples of two or three columns; or ``"all"``, every pair.

    Attributes
    ----------
    margins
        What the functions are, in their order.

    Raises
    ------
    OptionError
        If ``moments`` is none of these, or ``interactions`` names a column that is not there.

    Notes
    -----
    Cost: O(k) time a row, O(k) memory a row of the block.
    Held by: tests/reweight/test_moments.py::test_functions_by_hand
    """

    def __init__(
        self,
        recipe: Recipe,
        center: Array,
        scale: Array,
        moments: int | Mapping[str, int] = 1,
        interactions: Sequence[Sequence[str | int]] | str = (),
    ) -> None:
        self.recipe, self.center, self.scale = recipe, center, scale
        degrees = _degrees(moments, recipe)
        margins: list[Margin] = []
        of_column: dict[str, list[int]] = {name: [] for name in recipe.names}
        self._powers: list[tuple[int, int]] = []  # (number column, power above 1)
        for j, column in enumerate(recipe.numbers):
            of_column[column.source].append(len(margins))
            unit = (float(center[j]), float(scale[j]))
            margins.append(Margin(column.name, (column.source,), False, *unit))
        for power in (2, 3):
            for j, column in enumerate(recipe.numbers):
                if degrees[column.source] >= power:
                    self._powers.append((j, power))
                    margins.append(Margin(f"{column.name}^{power}", (column.source,), False))
        self._missing = [j for j, column in enumerate(recipe.numbers) if column.has_missing]
        for j in self._missing:
            column = recipe.numbers[j]
            margins.append(Margin(f"{column.name} {MISSING}", (column.source,), True))
        self._first_level: list[int] = []
        for column in recipe.levels:
            self._first_level.append(len(margins))
            for level in column.levels:
                of_column[column.name].append(len(margins))
                margins.append(Margin(f"{column.name}={level}", (column.name,), True))
        self._n_primitive = len(margins)
        self._products: list[tuple[int, ...]] = []
        for names in _interactions(interactions, recipe):
            for parts in itertools.product(*(of_column[name] for name in names)):
                self._products.append(parts)
                name = " × ".join(margins[part].name for part in parts)
                indicator = all(margins[part].indicator for part in parts)
                margins.append(Margin(name, names, indicator))
        self._all = tuple(margins)
        self._chosen: Array | None = None
        self.margins = self._all

    def __len__(self) -> int:
        return len(self.margins)

    def select(self, chosen: Sequence[int] | Array) -> BalanceFunctions:
        """The same list with some of the functions only."""
        places = np.asarray(chosen, dtype=np.intp)
        if len(places) == len(self) and np.array_equal(places, np.arange(len(self))):
            return self
        other = object.__new__(BalanceFunctions)
        other.__dict__.update(self.__dict__)
        other._chosen = places if self._chosen is None else self._chosen[places]
        other.margins = tuple(self._all[place] for place in other._chosen)
        return other

    def block(self, rows: Rows, start: int, stop: int) -> Array:
        """The functions at rows ``start .. stop - 1``, shape (k, stop - start)."""
        width, m = len(self.recipe.numbers), stop - start
        out = np.empty((len(self._all), m))
        z = out[:width]
        np.subtract(rows.numbers[start:stop].T, self.center[:, None], out=z)
        z /= self.scale[:, None]
        place = width + len(self._powers)
        for j in self._missing:
            missing = np.isnan(z[j])
            out[place] = missing
            z[j][missing] = 0.0
            place += 1
        for place, (j, power) in enumerate(self._powers, start=width):
            np.multiply(z[j], z[j], out=out[place])
            if power == 3:
                out[place] *= z[j]
        if self.recipe.levels:
            out[self._first_level[0] : self._n_primitive] = 0.0
            columns = np.arange(m)
            for first, codes in zip(self._first_level, rows.codes, strict=True):
                out[first + codes[start:stop], columns] = 1.0
        for place, parts in enumerate(self._products, start=self._n_primitive):
            np.multiply(out[parts[0]], out[parts[1]], out=out[place])
            for part in parts[2:]:
                out[place] *= out[part]
        return out if self._chosen is None else out[self._chosen]

    def matrix(self, rows: Rows) -> Array:
        """The functions at all rows, shape (k, n)."""
        return np.concatenate(
            [np.empty((len(self), 0)), *map_blocks(lambda a, b: self.block(rows, a, b), len(rows))],
            axis=1,
        )

    def mean(self, rows: Rows, weights: Array) -> tuple[Array, Array]:
        """Weighted mean and variance of each function."""

        def part(start: int, stop: int) -> Array:
            block, w = self.block(rows, start, stop), weights[start:stop]
            first = block @ w
            np.square(block, out=block)
            return np.stack([first, block @ w])

        total = weights.sum()
        first, second = np.sum(map_blocks(part, len(rows)), axis=0) / total
        return first, np.maximum(second - first**2, 0.0)

    def moments(self, rows: Rows, weights: Array) -> tuple[Array, Array, Array, Array]:
        """Weighted mean and covariance, least and greatest value of the functions."""

        def part(start: int, stop: int) -> tuple[Array, Array, Array, Array]:
            block, w = self.block(rows, start, stop), weights[start:stop]
            low, high, first = block.min(axis=1), block.max(axis=1), block @ w
            block *= np.sqrt(w)
            return first, block @ block.T, low, high

        firsts, seconds, lows, highs = zip(*map_blocks(part, len(rows)), strict=True)
        total = weights.sum()
        mean = np.sum(firsts, axis=0) / total
        covariance = np.sum(seconds, axis=0) / total - np.outer(mean, mean)
        return mean, covariance, np.min(lows, axis=0), np.max(highs, axis=0)


def _degrees(moments: Any, recipe: Recipe) -> dict[str, int]:
    if isinstance(moments, Mapping):
        unknown = [name for name in moments if name not in recipe.names]
        if unknown:
            raise OptionError(
                f"moments names column {unknown[0]!r}, which is not among the covariates "
                f"{', '.join(map(repr, recipe.names[:20]))}"
            )
        degrees: dict[str, Any] = {name: moments.get(name, 1) for name in recipe.names}
    else:
        degrees = dict.fromkeys(recipe.names, moments)
    for value in degrees.values():
        if isinstance(value, bool) or value not in (1, 2, 3):
            raise OptionError(f"moments is {value!r}; give 1, 2 or 3 (or column -> 1, 2 or 3)")
    return degrees


def _interactions(interactions: Any, recipe: Recipe) -> list[tuple[str, ...]]:
    names = recipe.names
    if isinstance(interactions, str):
        if interactions != "all":
            raise OptionError(
                f"Unknown interactions {interactions!r}. Choose 'all' or give pairs of columns."
            )
        return list(itertools.combinations(names, 2))
    found: dict[tuple[str, ...], None] = {}
    for each in interactions:
        if isinstance(each, str) or not 2 <= len(each) <= 3:
            raise OptionError(f"interactions holds {each!r}; give tuples of two or three columns")
        parts = tuple(f"x{part}" if isinstance(part, (int, np.integer)) else part for part in each)
        unknown = [part for part in parts if part not in names]
        if unknown or len(set(parts)) < len(parts):
            shown = ", ".join(map(repr, names[:20]))
            raise OptionError(f"interactions holds {each!r}; give different columns out of {shown}")
        found[parts] = None
    return list(found)
