"""From instants to features: when, and at which hour, weekday and month."""

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
    part_or_none,
    pooled_order,
)
from dpdq.data.schema import Column

__all__ = ["DatetimeRule"]

_PARTS = {"hour": 24.0, "weekday": 7.0, "month": 12.0}


@dataclasses.dataclass(frozen=True)
class DatetimeRule(ColumnRule):
    """Instants: seconds since 1970 as a number, and the parts of day, week and year that vary.

    Dense: the seconds as `NumericRule` does, and sine and cosine of 2 pi hour/24, weekday/7 and
    month/12, each where the rows of the fit hold more than one hour, weekday or month, together
    with a variance of about one. Codes: the seconds, the hour with its fraction, the weekday
    (Monday is 0) and the month (January is 0).
    All in UTC; a time without a zone is read as UTC.

    Misleads as any column that only grows: if p is later than q, it separates them alone. Name
    such a column as the time, and it is no feature.
    """

    column: Column
    scale: Scale | None
    missing: Indicator | None
    parts: tuple[str, ...]

    @classmethod
    def fit(cls, column: Column, q: pa.Array, p: pa.Array) -> DatetimeRule:
        """Fit to the pooled values."""
        sides = [
            _clock(side, f"column {column.name!r} of {name}") for name, side in (("q", q), ("p", p))
        ]
        ordered = pooled_order(sides[0]["seconds"], sides[1]["seconds"])
        n = len(q) + len(p)
        parts = []
        for part in _PARTS:
            values = np.concatenate([side[part] for side in sides])
            values = values[~np.isnan(values)]
            if values.size and values.min() < values.max():
                parts.append(part)
        missing = Indicator.fit(n - ordered.size, n)
        return cls(column, Scale.fit(ordered), missing, tuple(parts))

    @property
    def dense_rules(self) -> list[tuple[str, str]]:
        """Name and rule in words of each dense feature."""
        name = self.column.name
        out = []
        if self.scale:
            out = [
                (feature, f"{rule}, x in seconds since 1970")
                for feature, rule in self.scale.rules(name)
            ]
        if self.missing:
            out.append(self.missing.rule(name))
        for part in self.parts:
            for wave in ("sin", "cos"):
                words = f"{wave}(2 pi {part} / {_PARTS[part]:g}) / sqrt({len(self.parts)})"
                out.append((f"{name} ({part}, {wave})", words))
        return out

    @property
    def codes_rules(self) -> list[tuple[str, str]]:
        """Name and rule in words of each feature for trees."""
        name = self.column.name
        return [(name, "seconds since 1970")] + [
            (f"{name} ({part})", f"the {part} in UTC") for part in self.parts
        ]

    def fill_dense(self, values: pa.Array, out: np.ndarray, where: str) -> None:
        """Write the dense features."""
        clock = _clock(values, where)
        fill_scaled(clock["seconds"], self.scale, self.missing, out)
        place = (self.scale.width if self.scale else 0) + (1 if self.missing else 0)
        factor = 1.0 / max(len(self.parts), 1) ** 0.5
        for part in self.parts:
            angle = clock[part] * (2 * np.pi / _PARTS[part])
            out[:, place] = np.nan_to_num(np.sin(angle)) * factor
            out[:, place + 1] = np.nan_to_num(np.cos(angle)) * factor
            place += 2

    def fill_codes(self, values: pa.Array, out: np.ndarray, where: str) -> None:
        """Write the seconds and the parts."""
        clock = _clock(values, where)
        for place, part in enumerate(("seconds", *self.parts)):
            out[:, place] = clock[part]

    def to_dict(self) -> dict[str, Any]:
        """Return the fitted rule as JSON types."""
        return {
            "scale": fields_or_none(self.scale),
            "missing": fields_or_none(self.missing),
            "parts": list(self.parts),
        }

    @classmethod
    def from_dict(cls, column: Column, state: Mapping[str, Any]) -> DatetimeRule:
        """Rebuild the rule from `to_dict`."""
        return cls(
            column,
            part_or_none(Scale, state["scale"]),
            part_or_none(Indicator, state["missing"]),
            tuple(state["parts"]),
        )


def _clock(values: pa.Array, where: str) -> dict[str, np.ndarray]:
    """Seconds since 1970, hour, weekday and month, NaN where missing."""
    microseconds, nanoseconds, missing = _values.instants(values, where)
    days, within = np.divmod(microseconds, np.int64(86_400_000_000))
    months = days.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64)
    clock = {
        "seconds": microseconds / 1e6 + nanoseconds / 1e9,
        "hour": within / 3_600_000_000,
        "weekday": ((days + 3) % 7).astype(np.float64),
        "month": (months % 12).astype(np.float64),
    }
    if missing.any():
        for part in clock.values():
            part[missing] = np.nan
    return clock
