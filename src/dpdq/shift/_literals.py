"""Columns turned into yes-or-no literals: "age <= 31", "job = clerk", "zip is missing".

Numbers and times are cut at pooled quantiles, moved to the roundest number nearby; categories give
one literal for each frequent level. A literal remembers how to read itself from any table, so that
what was found on one half can be counted on another.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from dpdq.data._values import booleans, column_array, instants, labels, numbers
from dpdq.results import Result

__all__ = ["Condition", "Literals", "column_values", "make_literals", "round_between"]

_N_BINS = 8
_TOP_LEVELS = 30


@dataclasses.dataclass(frozen=True, repr=False)
class Condition(Result):
    """One part of a rule.

    Attributes
    ----------
    column
        Name of the column.
    op
        One of ``<=``, ``>``, ``between`` (above the first, at most the second), ``=`` and
        ``is missing``.
    value
        A number, a text, a boolean, a pair for ``between``, ``None`` for ``is missing``.
    """

    column: str
    op: str
    value: Any

    def __str__(self) -> str:
        if self.op == "is missing":
            return f"{self.column} is missing"
        if self.op == "between":
            return f"{_show(self.value[0])} < {self.column} <= {_show(self.value[1])}"
        return f"{self.column} {self.op} {_show(self.value)}"


def _show(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.10g}"
    text = str(value)
    if text.strip() != text or not text:
        text = repr(text)
    return text if len(text) <= 80 else text[:79] + "…"


@dataclasses.dataclass(frozen=True)
class Literals:
    """Literals of one column: what they say, and a function from a column to their indicators."""

    conditions: tuple[Condition, ...]
    read: Callable[[pa.Table], np.ndarray]  # table -> (rows, conditions) bool


def round_between(low: float, high: float) -> float:
    """The roundest number t with low <= t <= high: fewest digits, then nearest the middle."""
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low:
        return low
    if low <= 0 <= high:
        return 0.0
    middle = (low + high) / 2
    power = math.floor(math.log10(max(abs(low), abs(high)))) + 1
    for exponent in range(power, power - 16, -1):
        for factor in (1.0, 0.5, 0.2):
            step = factor * 10.0**exponent
            multiple = round(middle / step)
            for candidate in (multiple, math.ceil(low / step), math.floor(high / step)):
                value = float(f"{candidate * step:.14g}")
                if low <= value <= high:
                    return value
    return low


def column_values(table: pa.Table, name: str, kind: str) -> np.ndarray:
    """One column for rules: float64 with NaN (numbers, times), else objects with None.

    Values are read as `dpdq.data` reads them for features, so that 1 and 1.0, or a dictionary and
    plain text, are the same on both sides.
    """
    where = f"column {name!r}"
    array = column_array(table, name)
    if kind == "numeric":
        return numbers(array, where)
    if kind == "datetime":
        microseconds, _, missing = instants(array, where)
        return np.where(missing, np.nan, microseconds.astype(np.float64))
    if kind == "boolean":
        values = booleans(array, where)
        out = np.array([False, True, None], dtype=object)
        return out[np.where(np.isnan(values), 2, values).astype(np.int64)]
    if kind == "categorical":
        codes, texts = labels(array, where)
        return np.array([*texts.to_pylist(), None], dtype=object)[codes]
    present = np.full(len(array), "value", dtype=object)
    present[np.asarray(array.is_null().to_numpy(zero_copy_only=False), dtype=bool)] = None
    return present


def make_literals(q: pa.Table, p: pa.Table, columns: Sequence[tuple[str, str]]) -> list[Literals]:
    """Literals of every column that can be cut, thresholds and levels from both sides pooled."""
    made = []
    for name, kind in columns:
        if kind in ("numeric", "datetime"):
            literals = _cuts(q, p, name, kind)
        else:
            literals = _level_literals(q, p, name, kind)
        if literals.conditions:
            made.append(literals)
    return made


def _cuts(q: pa.Table, p: pa.Table, name: str, kind: str) -> Literals:
    sides = [column_values(side, name, kind) for side in (q, p)]
    # each side weighs half, whatever its size
    present = [side[np.isfinite(side)] for side in sides]
    grid = np.linspace(0, 1, 513)
    pooled = np.sort(np.concatenate([np.quantile(s, grid) for s in present if len(s)] or [[]]))
    missing = any(np.isnan(side).any() for side in sides)
    cuts = _thresholds(pooled, present, times=kind == "datetime")
    conditions: list[Condition] = []
    columns: list[tuple[float, float]] = []  # (above, at most)
    texts = [_time_text(cut) if kind == "datetime" else _number(cut) for cut in cuts]
    whole = all(bool(np.all(side == np.rint(side))) for side in present) and kind == "numeric"
    for place, cut in enumerate(cuts):
        conditions.append(Condition(name, "<=", texts[place]))
        columns.append((-np.inf, cut))
        conditions.append(Condition(name, ">", texts[place]))
        columns.append((cut, np.inf))
        if place:
            below = cuts[place - 1]
            if whole and cut - below == 1:
                conditions.append(Condition(name, "=", texts[place]))
            else:
                conditions.append(Condition(name, "between", (texts[place - 1], texts[place])))
            columns.append((below, cut))
    if missing:
        conditions.append(Condition(name, "is missing", None))

    def read(table: pa.Table) -> np.ndarray:
        values = column_values(table, name, kind)
        out = np.empty((len(values), len(conditions)), dtype=bool)
        for place, (above, most) in enumerate(columns):
            inside = values <= most
            if above == -np.inf:
                out[:, place] = inside
            else:
                out[:, place] = (values > above) & inside
        if missing:
            out[:, -1] = np.isnan(values)
        return out

    return Literals(tuple(conditions), read)


def _round_time(low: float, high: float) -> float:
    """A midnight, else a full hour, between two times in microseconds; else the first."""
    for step in (86_400e6, 3_600e6):
        value = round((low + high) / 2 / step) * step
        if low <= value <= high:
            return value
    return low


def _thresholds(pooled: np.ndarray, present: list[np.ndarray], *, times: bool) -> list[float]:
    """Cuts near the pooled eighths, each the roundest number within 2.5 % of rank."""
    if len(pooled) == 0 or pooled[0] == pooled[-1]:
        return []
    unique = np.unique(pooled)
    if len(unique) <= _N_BINS:
        found = unique[:-1].tolist()
    else:
        found = []
        for level in np.arange(1, _N_BINS) / _N_BINS:
            low, high = np.quantile(pooled, [level - 0.025, level + 0.025])
            if times:
                found.append(_round_time(float(low), float(high)))
            else:
                found.append(round_between(float(low), float(high)))
    top = max(float(side.max()) for side in present if len(side))
    bottom = min(float(side.min()) for side in present if len(side))
    return sorted({cut for cut in found if bottom <= cut < top})


def _number(value: float) -> int | float:
    return int(value) if float(value).is_integer() and abs(value) < 2**53 else float(value)


def _time_text(microseconds: float) -> str:
    return np.datetime_as_string(np.datetime64(round(microseconds), "us"), unit="s").replace(
        "T00:00:00", ""
    )


def _level_literals(q: pa.Table, p: pa.Table, name: str, kind: str) -> Literals:
    sides = [column_values(side, name, kind) for side in (q, p)]
    shares: dict[Any, float] = {}
    for side in sides:
        counts: dict[Any, int] = {}
        for value in side.tolist():
            counts[value] = counts.get(value, 0) + 1
        for value, count in counts.items():
            shares[value] = shares.get(value, 0.0) + count / len(side) / 2
    levels: list[Any] = []
    if kind in ("categorical", "boolean"):
        named = [(value, share) for value, share in shares.items() if value is not None]
        named.sort(key=lambda item: (-item[1], str(item[0])))
        levels = [value for value, _ in named[:_TOP_LEVELS]]
        if len(shares) < 2:
            levels = []
    conditions = [Condition(name, "=", level) for level in levels]
    missing = None in shares and len(shares) > 1
    if missing:
        conditions.append(Condition(name, "is missing", None))
    place_of = {level: place for place, level in enumerate(levels)}
    if missing:
        place_of[None] = len(levels)

    def read(table: pa.Table) -> np.ndarray:
        values = column_values(table, name, kind)
        out = np.zeros((len(values), len(conditions) + 1), dtype=bool)
        other = len(conditions)
        places = np.array([place_of.get(value, other) for value in values.tolist()], dtype=int)
        out[np.arange(len(values)), places] = True
        return out[:, :other]

    return Literals(tuple(conditions), read)
