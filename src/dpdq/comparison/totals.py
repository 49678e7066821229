"""Population totals from a table of three columns: what is known of p where its rows are not.

    variable,level,total        sex,f,51200     sex,m,48800       counts, any scale
    variable,level,share        town,Uri,0.2    town,Zug,0.8      shares that sum to one
    variable,level,mean         age,,41.3                         the mean of a number, no level
    sex:town,f:Uri,0.11         the cells of two columns, joined by a colon on both sides

A file may mix them: one of ``total``, ``share`` and ``mean`` is filled in each line.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

from dpdq.data import open_source
from dpdq.errors import DataError

__all__ = ["read_totals"]

_VALUES = ("total", "share", "mean")
_MOST_LINES = 1_000_000
_SUM = 0.005


def read_totals(path: str | os.PathLike[str], names: Sequence[str]) -> dict[Any, Any]:
    """Read totals as the ``targets`` of a weighter's ``fit``.

    Parameters
    ----------
    path
        CSV (or any table that `dpdq.data.open_source` reads) with the columns ``variable``,
        ``level`` and at least one of ``total``, ``share`` and ``mean``.
    names
        Columns of q.

    Returns
    -------
    dict
        Column -> mean, column -> {level: total or share}, or a tuple of columns -> {tuple of
        levels: total or share}.

    Raises
    ------
    DataError
        The file is not such a table; the message names the line.
    """
    where = f"{os.path.basename(os.fspath(path))!r}"
    with open_source(path, side="p") as source:
        known = source.schema.names
        values = [name for name in _VALUES if name in known]
        if "variable" not in known or "level" not in known or not values:
            raise DataError(
                f"totals {where} have the columns {', '.join(map(repr, known[:10]))}; expected "
                "'variable', 'level' and one of 'total', 'share', 'mean'"
            )
        if source.n_rows > _MOST_LINES:
            raise DataError(f"totals {where} have {source.n_rows:,} lines; at most {_MOST_LINES:,}")
        columns = {name: source.column(name).to_pylist() for name in ("variable", "level", *values)}
        lines = source.n_rows
    found: dict[Any, Any] = {}
    kinds: dict[Any, str] = {}
    for row in range(lines):
        line = f"totals {where}, row {row}"
        key = _key(columns["variable"][row], names, line)
        kind, value = _value({name: columns[name][row] for name in values}, line)
        shown = columns["variable"][row]
        if kinds.setdefault(key, kind) != kind:
            raise DataError(f"{line}: {shown!r} has a {kind} after a {kinds[key]}; give one kind")
        level = _text(columns["level"][row])
        if kind == "mean":
            if level:
                raise DataError(
                    f"{line}: the mean of {shown!r} has the level {level!r}; leave the level empty"
                )
            if isinstance(key, tuple):
                raise DataError(f"{line}: {shown!r} are two columns; give shares of their cells")
            if key in found:
                raise DataError(f"{line}: the mean of {shown!r} stands there twice")
            found[key] = value
            continue
        if not level:
            raise DataError(
                f"{line}: {shown!r} has a {kind} without a level; name it ('(missing)' for missing "
                "values), or give a mean"
            )
        cell: Any = level
        if isinstance(key, tuple):
            cell = tuple(part.strip() for part in level.split(":"))
            if len(cell) != len(key):
                raise DataError(
                    f"{line}: the cell {level!r} of {shown!r} has {len(cell)} levels; expected "
                    f"{len(key)}, joined by ':'"
                )
        if value < 0:
            raise DataError(
                f"{line}: the {kind} of {shown!r} {level!r} is {value:g}; expected >= 0"
            )
        table = found.setdefault(key, {})
        if cell in table:
            raise DataError(f"{line}: {shown!r} {level!r} stands there twice")
        table[cell] = value
    if not found:
        raise DataError(f"totals {where} are empty; give at least one variable")
    for key, kind in kinds.items():
        if kind == "share" and abs(sum(found[key].values()) - 1) > _SUM:
            name = ":".join(key) if isinstance(key, tuple) else key
            raise DataError(
                f"totals {where}: the shares of {name!r} sum to {sum(found[key].values()):.4g}; "
                "expected 1 (name every level, or '(other)' for the rest)"
            )
    return found


def _key(variable: Any, names: Sequence[str], line: str) -> Any:
    text = _text(variable)
    if text in names:
        return text
    parts = tuple(part.strip() for part in text.split(":"))
    if len(parts) > 1 and all(part in names for part in parts):
        return parts
    shown = ", ".join(map(repr, list(names)[:20]))
    raise DataError(f"{line}: variable {text!r} is no column of q, which has {shown}")


def _value(given: dict[str, Any], line: str) -> tuple[str, float]:
    filled = {}
    for name, value in given.items():
        if _text(value):
            try:
                filled[name] = float(value)
            except (TypeError, ValueError):
                raise DataError(f"{line}: the {name} is {value!r}; expected a number") from None
    if len(filled) != 1:
        raise DataError(
            f"{line} has {len(filled)} of {', '.join(given)}; fill in exactly one of them"
        )
    ((name, value),) = filled.items()
    if not math.isfinite(value):
        raise DataError(f"{line}: the {name} is {value}; expected a finite number")
    return name, value


def _text(value: Any) -> str:
    """Text as levels are written: whole numbers without a point, true and false in small."""
    if value is None or value != value:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()
