"""Covariates of q and p as numbers and level codes, by one recipe for both sides.

A column becomes either numbers (float64, NaN where missing) or codes of levels (a missing value
is the level ``(missing)``). Levels of fewer than max(5, n/2000) of the n pooled rows (n/20 in
place of 5 below 100 rows) are pooled as ``(other)``, the rule of `dpdq.data.Features`: a level of
one row cannot be balanced, and one foreign row of p should not forbid everything else. With
population targets the targets' own keys are the levels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from dpdq.data import _values
from dpdq.data.schema import Column, ignored_columns, infer_columns
from dpdq.data.sources import open_source, reading
from dpdq.errors import DataError, OptionError
from dpdq.ratio._common import as_rows
from dpdq.reweight._common import Array

__all__ = ["MISSING", "OTHER", "LevelColumn", "NumberColumn", "Recipe", "Rows", "read_sides"]

MISSING = "(missing)"
OTHER = "(other)"


@dataclasses.dataclass(frozen=True)
class NumberColumn:
    """A column of numbers: its name, the covariate it belongs to, whether values are missing."""

    name: str
    source: str
    has_missing: bool


@dataclasses.dataclass(frozen=True)
class LevelColumn:
    """A column of levels, the rarest first and the most frequent last.

    ``pooled`` are the levels that stand under ``(other)``; ``edges`` cut numbers into levels.
    """

    name: str
    levels: tuple[str, ...]
    pooled: tuple[str, ...] = ()
    edges: tuple[float, ...] | None = None


@dataclasses.dataclass(frozen=True)
class Rows:
    """Rows by the recipe: numbers of shape (n, a) and level codes, one array a column."""

    numbers: Array
    codes: tuple[Array, ...]

    def __len__(self) -> int:
        return len(self.numbers)

    def take(self, rows: Array | slice) -> Rows:
        """Some of the rows, by a mask, places or a slice."""
        return Rows(self.numbers[rows], tuple(each[rows] for each in self.codes))


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How tables become `Rows`; fitted by `read_sides`, applied to new rows by `encode`."""

    numbers: tuple[NumberColumn, ...]
    levels: tuple[LevelColumn, ...]
    columns: tuple[Column, ...] | None  # None: plain arrays, columns x0, x1, ...
    width: int
    left_out: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        """The covariates, each once."""
        found = [each.source for each in self.numbers] + [each.name for each in self.levels]
        order = {name: place for place, name in enumerate(self._given())}
        return sorted(set(found), key=lambda name: order[name])

    def _given(self) -> list[str]:
        if self.columns is None:
            return [f"x{j}" for j in range(self.width)]
        return [column.name for column in self.columns]

    def encode(self, x: Any) -> Rows:
        """New rows by this recipe.

        Raises
        ------
        DataError
            Another width, an absent column, a value that cannot be read, or a level or a missing
            value that neither side of the fit had.
        """
        if self.columns is None:
            matrix = as_rows(x, "x", width=self.width)
            raw: dict[str, Any] = {f"x{j}": matrix[:, j] for j in range(self.width)}
            n = len(matrix)
        else:
            source = open_source(x, side="q")
            absent = [c.name for c in self.columns if c.name not in source.schema.names]
            if absent:
                raise DataError(f"x has no column {absent[0]!r}; give the columns of the fit")
            table = _table(source, [column.name for column in self.columns])
            raw, n = _read(table, self.columns, "x"), table.num_rows
            matrix = None
        numbers = self._numbers(raw, n, matrix)
        for j, column in enumerate(self.numbers):
            missing = np.isnan(numbers[:, j])
            if missing.any() and not column.has_missing:
                raise DataError(
                    f"column {column.name!r} of x: {int(missing.sum())} of {n} values are missing "
                    f"(first at row {int(np.argmax(missing))}), which no row of the fit was"
                )
        codes = []
        for column in self.levels:
            code = _codes(raw[column.name], column)
            if (code < 0).any():
                row = int(np.argmax(code < 0))
                raise DataError(
                    f"column {column.name!r} of x: {int((code < 0).sum())} of {n} rows (first row "
                    f"{row}) have a level that no row of the fit had; drop them or fit with them"
                )
            codes.append(code)
        return Rows(numbers, tuple(codes))

    def _numbers(self, raw: Mapping[str, Any], n: int, matrix: Array | None) -> Array:
        if matrix is not None and len(self.numbers) == matrix.shape[1]:
            return matrix
        out = np.empty((n, len(self.numbers)))
        for j, column in enumerate(self.numbers):
            out[:, j] = raw[column.name]
        return out


def read_sides(
    q: Any,
    p: Any,
    *,
    kept_q: Array | None,
    kept_p: Array | None,
    types: Mapping[str, str] | None,
    bins: int | None,
    targets: Mapping[str, Any] | None,
) -> tuple[Recipe, Rows, Rows | None]:
    """Fit the recipe to both sides (or to q and targets) and apply it to them.

    Parameters
    ----------
    q, p
        Arrays, or anything that `dpdq.data.open_source` reads; p is None with targets.
    kept_q, kept_p
        Masks of the rows with a positive design weight; None keeps all.
    types
        Kinds that override those inferred.
    bins
        Cut numbers at this many pooled quantiles; None keeps them.
    targets
        Column -> mean, or column -> {level: share}: the columns to use.

    Returns
    -------
    tuple
        The recipe, and the kept rows of q and of p (None with targets).
    """
    plain = types is None and targets is None and _is_matrix(q) and _is_matrix(p)
    if plain:
        matrix_q, matrix_p = as_rows(q, "q"), as_rows(p, "p")
        if matrix_q.shape[1] != matrix_p.shape[1]:
            raise DataError(
                f"q has {matrix_q.shape[1]} columns and p has {matrix_p.shape[1]}; "
                "expected the same columns in the same order"
            )
        if kept_q is not None:
            matrix_q = matrix_q[kept_q]
        if kept_p is not None:
            matrix_p = matrix_p[kept_p]
        width = matrix_q.shape[1]
        raw_q: dict[str, Any] = {f"x{j}": matrix_q[:, j] for j in range(width)}
        raw_p: dict[str, Any] = {f"x{j}": matrix_p[:, j] for j in range(width)}
        columns, left_out = None, ()
    else:
        columns, left_out, tables = _tables(q, p, types, targets)
        matrix_q = matrix_p = None
        width = len(columns)
        raws = []
        for table, kept, side in ((tables[0], kept_q, "q"), (tables[1], kept_p, "p")):
            if table is None:
                raws.append({})
                continue
            if kept is not None:
                table = table.filter(pa.array(kept))
            raws.append(_read(table, columns, side))
        raw_q, raw_p = raws
    has_p = bool(raw_p)
    names = list(raw_q)
    n_q = len(_values_of(raw_q[names[0]]))
    n_p = len(_values_of(raw_p[names[0]])) if has_p else 0
    given = {column.name for column in columns or ()}
    numbers, levels = [], []
    for name in names:
        sides = [raw_q[name], raw_p[name]] if has_p else [raw_q[name]]
        if isinstance(raw_q[name], tuple):
            levels.append(_fit_levels(name, sides, (targets or {}).get(name)))
        elif bins is not None:
            if columns is not None and name not in given:
                owner = name.rpartition("[")[0]
                raise DataError(
                    f"column {owner!r} is an embedding, which bins= cannot cut; leave it out"
                )
            levels.append(_fit_bins(name, sides, bins))
        else:
            missing = any(bool(np.isnan(side).any()) for side in sides)
            plain_name = columns is None or name in given
            owner = name if plain_name else name.rpartition("[")[0]  # a vector's coordinate
            numbers.append(NumberColumn(name, owner, missing))
    recipe = Recipe(tuple(numbers), tuple(levels), columns, width, left_out)
    rows_q = Rows(
        recipe._numbers(raw_q, n_q, matrix_q),
        tuple(_codes(raw_q[each.name], each) for each in levels),
    )
    rows_p = None
    if has_p:
        rows_p = Rows(
            recipe._numbers(raw_p, n_p, matrix_p),
            tuple(_codes(raw_p[each.name], each) for each in levels),
        )
    for column, codes in zip(levels, rows_q.codes, strict=True):
        if (codes < 0).any():
            _refuse_leftover(column, raw_q[column.name], codes)
    return recipe, rows_q, rows_p


def _is_matrix(data: Any) -> bool:
    if isinstance(data, (list, tuple)):
        return bool(data) and not isinstance(data[0], Mapping)
    return isinstance(data, np.ndarray) and data.dtype.kind in "fiub"


def _table(source: Any, names: Sequence[str]) -> pa.Table:
    schema = pa.schema([source.schema.field(name) for name in names])
    return pa.Table.from_batches(list(source.batches(list(names))), schema=schema)


def _tables(
    q: Any, p: Any, types: Mapping[str, str] | None, targets: Mapping[str, Any] | None
) -> tuple[tuple[Column, ...], tuple[str, ...], tuple[pa.Table, pa.Table | None]]:
    """Common columns with their kinds, names of those left out, and the tables."""
    with reading(q, side="q") as source:
        names = list(source.schema.names)
        if targets is not None:
            names = _target_columns(targets, names)
        table_q = _table(source, names)
    if targets is not None:
        wanted = dict(types or {})
        for key, target in targets.items():
            for name in key if isinstance(key, tuple) else (key,):
                if isinstance(target, Mapping):
                    wanted[name] = "categorical"
        columns = tuple(infer_columns(table_q, table_q, types=wanted))
        return columns, (), (table_q, None)
    with reading(p, side="p") as source:
        common = [name for name in names if name in source.schema.names]
        if not common:
            raise DataError("q and p have no column in common; give the same columns")
        table_p = _table(source, common)
        alone = [name for name in names if name not in common]
        alone += [name for name in source.schema.names if name not in common]
    table_q = table_q.select(common)
    columns = tuple(infer_columns(table_q, table_p, types=types))
    ignored = [each["name"] for each in ignored_columns(table_q, table_p, types=types)]
    texts = [column.name for column in columns if column.kind == "text"]
    if texts:
        raise DataError(
            f"column {texts[0]!r} is free text, which has no mean to balance; leave it out, give "
            "an embedding of it, or say types={...: 'categorical'}"
        )
    if not columns:
        raise DataError("no common column can be balanced; give numbers, levels or times")
    return columns, (*alone, *ignored), (table_q, table_p)


def _target_columns(targets: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    if not isinstance(targets, Mapping) or not targets:
        raise OptionError(
            "targets must name at least one column: {'age': 41.3, 'sex': {'f': 0.51, 'm': 0.49}}"
        )
    wanted: dict[str, None] = {}
    for key in targets:
        for name in key if isinstance(key, tuple) else (key,):
            if name not in names:
                shown = ", ".join(map(repr, names[:20]))
                raise DataError(f"targets name column {name!r}, which q lacks; q has {shown}")
            wanted[name] = None
    return list(wanted)


def _read(table: pa.Table, columns: Sequence[Column], side: str) -> dict[str, Any]:
    """Numbers as arrays, levels as pairs of codes and texts."""
    out: dict[str, Any] = {}
    for column in columns:
        name, where = column.name, f"column {column.name!r} of {side}"
        values = _values.column_array(table, name, side)
        if column.kind == "categorical":
            codes, texts = _values.labels(values, where)
            out[name] = (codes, texts.to_pylist())
        elif column.kind == "datetime":
            micro, _, missing = _values.instants(values, where)
            out[name] = np.where(missing, np.nan, micro / 86_400e6)  # days
        elif column.kind == "embedding":
            vectors = _values.vectors(values, where)
            for j in range(vectors.shape[1]):
                out[f"{name}[{j}]"] = _finite(vectors[:, j], where)
        elif column.kind == "boolean":
            out[name] = _values.booleans(values, where)
        else:
            out[name] = _finite(_values.numbers(values, where), where)
    return out


def _finite(values: Array, where: str) -> Array:
    wrong = np.isinf(values)
    if wrong.any():
        raise DataError(
            f"{where}: {int(wrong.sum())} of {len(values)} values are infinite (first at row "
            f"{int(np.argmax(wrong))}); drop them or make them missing"
        )
    return values


def _values_of(raw: Any) -> Array:
    return raw[0] if isinstance(raw, tuple) else raw


def _smallest(n: int) -> float:
    return max(min(5.0, n / 20), n / 2000)


def _fit_levels(name: str, sides: Sequence[Any], target: Any) -> LevelColumn:
    counts: dict[str, int] = {}
    missing = 0
    for codes, texts in sides:
        found = np.bincount(codes[codes >= 0], minlength=len(texts))
        missing += int((codes < 0).sum())
        for text, count in zip(texts, found.tolist(), strict=True):
            if count:
                counts[text] = counts.get(text, 0) + count
    if isinstance(target, Mapping):  # the targets say which levels there are
        named = [str(key) for key in target]
        pooled = tuple(level for level in counts if level not in named) if OTHER in named else ()
        order = sorted(named, key=lambda level: (counts.get(level, 0), level))
        return LevelColumn(name, tuple(order), pooled)
    smallest = _smallest(sum(counts.values()) + missing)
    rare = [level for level, count in counts.items() if count < smallest]
    if missing:
        counts[MISSING] = missing
    if len(rare) > 1:
        counts[OTHER] = sum(counts.pop(level) for level in rare)
    else:
        rare = []
    order = sorted(counts, key=lambda level: (counts[level], level))
    return LevelColumn(name, tuple(order), tuple(sorted(rare)))


def _fit_bins(name: str, sides: Sequence[Array], bins: int) -> LevelColumn:
    if isinstance(bins, bool) or not isinstance(bins, (int, np.integer)) or bins < 2:
        raise OptionError(f"bins is {bins!r}; give a whole number, 2 or more, or None")
    pooled = np.concatenate(sides)
    missing = bool(np.isnan(pooled).any())
    values = pooled[~np.isnan(pooled)]
    shares = np.arange(1, bins) / bins
    edges = np.unique(np.quantile(values, shares, method="lower")) if values.size else values
    edges = edges[edges < values.max()] if values.size else edges
    texts = [f"{edge:.6g}" for edge in edges]
    if not texts:
        levels = ["any"]
    else:
        between = [f"{a} to {b}" for a, b in zip(texts[:-1], texts[1:], strict=True)]
        levels = [f"at most {texts[0]}", *between, f"above {texts[-1]}"]
    return LevelColumn(name, (*levels, *([MISSING] if missing else [])), (), tuple(edges.tolist()))


def _codes(raw: Any, column: LevelColumn) -> Array:
    """Code of each row's level, -1 where the recipe has no place for it."""
    place = {level: code for code, level in enumerate(column.levels)}
    missing = place.get(MISSING, place.get(OTHER, -1))
    if column.edges is not None:
        codes = np.searchsorted(np.asarray(column.edges), raw, side="left").astype(np.int32)
        return np.where(np.isnan(raw), missing, codes).astype(np.int32)
    if isinstance(raw, tuple):
        codes, texts = raw
    else:  # a number read where levels were fitted cannot be
        raise DataError(f"column {column.name!r} holds numbers; expected levels")
    other = place.get(OTHER, -1)
    known = np.array([*(place.get(text, other) for text in texts), missing], dtype=np.int32)
    return known[codes]


def _refuse_leftover(column: LevelColumn, raw: Any, codes: Array) -> None:
    wrong = codes < 0
    row = int(np.argmax(wrong))
    code, texts = raw
    level = MISSING if code[row] < 0 else texts[code[row]]
    raise DataError(
        f"column {column.name!r} of q: {int(wrong.sum())} of {len(codes)} rows have a level that "
        f"the targets do not name (first at row {row}: {level!r}); give it a share, or collect "
        f"such rows under {OTHER!r}, or drop them (weights_q=0)"
    )
