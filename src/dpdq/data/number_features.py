"""From numbers and booleans to features."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from dpdq.data import _values
from dpdq.data.feature_rules import (
    ColumnRule,
    Indicator,
    Scale,
    fields_or_none,
    fill_scaled,
    finite_numbers,
    part_or_none,
    pooled_order,
)
from dpdq.data.schema import Column

__all__ = ["BooleanRule", "NumericRule"]


@dataclasses.dataclass(frozen=True)
class NumericRule(ColumnRule):
    """Numbers: robustly standardised, tails cut, with an indicator of missing values.

        z = clip((x - median) / s, -10, 10),   feature = (z - mean z) / max(sd z, 1)

    s is the interquartile range over 1.349 (the standard deviation of a Gaussian), or the
    standard deviation where half of the values are equal. A column with kurtosis above 10 also
    gets asinh((x - median) / t), t the median of the distances that are not zero: an amount that
    is mostly zero and sometimes huge (a capital gain) would otherwise be all outliers. The first
    feature keeps means comparable, the second keeps the shape of the tail.
    """

    column: Column
    scale: Scale | None
    missing: Indicator | None
    infinite: str

    @classmethod
    def fit(cls, column: Column, q: pa.Array, p: pa.Array, infinite: str) -> NumericRule:
        """Fit to the pooled values."""
        sides = [
            finite_numbers(side, f"column {column.name!r} of {name}", infinite)
            for name, side in (("q", q), ("p", p))
        ]
        ordered = pooled_order(sides[0], sides[1])
        n = sides[0].size + sides[1].size
        missing = Indicator.fit(n - ordered.size, n)
        return cls(column, Scale.fit(ordered), missing, infinite)

    @property
    def dense_rules(self) -> list[tuple[str, str]]:
        """Name and rule in words of each dense feature."""
        return (self.scale.rules(self.column.name) if self.scale else []) + (
            [self.missing.rule(self.column.name)] if self.missing else []
        )

    @property
    def codes_rules(self) -> list[tuple[str, str]]:
        """Name and rule in words of each feature for trees."""
        return [(self.column.name, "the number itself")]

    def fill_dense(self, values: pa.Array, out: np.ndarray, where: str) -> None:
        """Write the dense features."""
        numbers = finite_numbers(values, where, self.infinite)
        fill_scaled(numbers, self.scale, self.missing, out)

    def fill_codes(self, values: pa.Array, out: np.ndarray, where: str) -> None:
        """Write the numbers."""
        out[:, 0] = finite_numbers(values, where, self.infinite)

    def to_dict(self) -> dict[str, Any]:
        """Return the fitted rule as JSON types."""
        return {
            "scale": fields_or_none(self.scale),
            "missing": fields_or_none(self.missing),
            "infinite": self.infinite,
        }

    @classmethod
    def from_dict(cls, column: Column, state: Mapping[str, Any]) -> NumericRule:
        """Rebuild the rule from `to_dict`."""
        return cls(
            column,
            part_or_none(Scale, state["scale"]),
            part_or_none(Indicator, state["missing"]),
            state["infinite"],
        )


@dataclasses.dataclass(frozen=True)
class BooleanRule(ColumnRule):
    """True and false: (b - share) / max(sd, 0.1), zero where missing, with an indicator."""

    column: Column
    share: float
    present: Indicator | None
    missing: Indicator | None

    @classmethod
    def fit(cls, column: Column, q: pa.Array, p: pa.Array) -> BooleanRule:
        """Fit to the pooled values."""
        values = np.concatenate(
            [
                _values.booleans(side, f"column {column.name!r} of {name}")
                for name, side in (("q", q), ("p", p))
            ]
        )
        absent = int(np.isnan(values).sum())
        true, n = int(np.nansum(values)), values.size - absent
        return cls(
            column,
            true / n if n else 0.0,
            Indicator.fit(true, n),
            Indicator.fit(absent, values.size),
        )

    @property
    def dense_rules(self) -> list[tuple[str, str]]:
        """Name and rule in words of each dense feature."""
        out = []
        if self.present:
            words = f"(true as 1, false as 0, minus {self.share:.6g}) * {self.present.factor:.6g}"
            out.append((self.column.name, words))
        if self.missing:
            out.append(self.missing.rule(self.column.name))
        return out

    @property
    def codes_rules(self) -> list[tuple[str, str]]:
        """Name and rule in words of each feature for trees."""
        return [(self.column.name, "true as 1, false as 0")]

    def fill_dense(self, values: pa.Array, out: np.ndarray, where: str) -> None:
        """Write the dense features."""
        flags = _values.booleans(values, where)
        absent = np.isnan(flags)
        width = 0
        if self.present:
            out[:, 0] = np.where(absent, 0.0, (flags - self.share) * self.present.factor)
            width = 1
        if self.missing:
            out[:, width] = self.missing.factor * absent

    def fill_codes(self, values: pa.Array, out: np.ndarray, where: str) -> None:
        """Write 0, 1 and NaN."""
        out[:, 0] = _values.booleans(values, where)

    def to_dict(self) -> dict[str, Any]:
        """Return the fitted rule as JSON types."""
        return {
            "share": self.share,
            "present": fields_or_none(self.present),
            "missing": fields_or_none(self.missing),
        }

    @classmethod
    def from_dict(cls, column: Column, state: Mapping[str, Any]) -> BooleanRule:
        """Rebuild the rule from `to_dict`."""
        return cls(
            column,
            state["share"],
            part_or_none(Indicator, state["present"]),
            part_or_none(Indicator, state["missing"]),
        )
