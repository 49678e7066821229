"""The strangest rows of p, and the columns that make them strange.

Strange means: far likelier under p than under q, so that log r = log dP/dQ is large. A column's
part in it is what the log ratio loses when the column's value is replaced by one that q has,

    contribution_j(x) = log r(x) - mean_b log r(x with x_j := z_bj),   z_b rows of q,

the reverse of a permutation importance, for one row. Contributions need not sum to anything: of two
columns that tell the same story either alone keeps the row strange, and both get little.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from dpdq._random import RandomState, as_generator
from dpdq.errors import DataError, OptionError
from dpdq.results import Result

__all__ = ["ColumnPart", "StrangeRow", "strangest_rows"]

_TEXT_LENGTH = 80
_MAX_COLUMNS = 3


@dataclasses.dataclass(frozen=True, repr=False)
class ColumnPart(Result):
    """One column's part in a row's log ratio.

    Attributes
    ----------
    name
        The column.
    value
        The row's value as text, at most 80 characters.
    contribution
        Mean drop of the log ratio when the value is replaced by values of q.
    """

    name: str
    value: str
    contribution: float


@dataclasses.dataclass(frozen=True, repr=False)
class StrangeRow(Result):
    """A row of p with its log ratio and the columns that raise it.

    Attributes
    ----------
    row
        Number of the row in p, from 0.
    id
        Its key, ``None`` without one.
    log_ratio
        Its log dP/dQ.
    columns
        At most three columns, largest contribution first.
    """

    row: int
    id: Any
    log_ratio: float
    columns: tuple[ColumnPart, ...]


def strangest_rows(
    log_ratio_p: np.ndarray,
    score: Callable[[pa.Table], np.ndarray],
    p: pa.Table,
    q: pa.Table,
    *,
    max_rows: int = 10,
    columns: Sequence[str] | None = None,
    ids: Any = None,
    row_numbers: np.ndarray | None = None,
    n_replacements: int = 32,
    random_state: RandomState = 0,
) -> list[StrangeRow]:
    """The rows of p with the highest log ratio, and which columns make them so.

        contribution_j(x) = log r(x) - mean over b of log r(x with x_j replaced by z_bj)

    A column is blamed only for what it does alone: where a row is strange by a combination each of
    its columns gets part of the blame, where two columns say the same neither does. The highest of
    many log ratios are partly luck, so that rows from a cross-fitted ratio are safer than rows from
    a ratio that saw them. A ratio of trees is flat beyond the data: many rows may tie, and the
    earliest are named.

    Parameters
    ----------
    log_ratio_p
        Log dP/dQ of the rows of p, shape (n_p,), best cross-fitted.
    score
        The fitted ratio: a table like ``p`` to log ratios, one a row. Called once.
    p
        The rows of p, one for each log ratio.
    q
        Some rows of q, to draw the replacements from.
    max_rows
        Rows to return.
    columns
        Columns that may be blamed; default all columns of both tables.
    ids
        Key of each row of p.
    row_numbers
        Number of each row where ``p`` is a part of a larger table; default 0, 1, ...
    n_replacements
        Values of q that each value is replaced by.
    random_state
        Seed of these draws.

    Returns
    -------
    list of StrangeRow
        Highest log ratio first, equal ones by row number.

    Raises
    ------
    DataError
        Lengths differ, a side is empty, a column is absent, a log ratio is NaN.
    OptionError
        ``max_rows`` or ``n_replacements`` below 1.

    Notes
    -----
    Cost: one call of ``score`` on max_rows * (1 + columns * n_replacements) rows.
    Held by: tests/shift/test_outliers.py::test_names_the_column_that_was_changed

    References
    ----------
    .. [Strumbelj2014] Explaining prediction models and individual predictions with feature
       contributions. Strumbelj, 2014, Knowledge and Information Systems 41.

    Examples
    --------
    >>> import numpy as np, pyarrow as pa
    >>> q = pa.table({"a": [0.0, 1.0, 2.0], "b": [0.0, 0.0, 0.0]})
    >>> p = pa.table({"a": [1.0, 9.0], "b": [0.0, 0.0]})
    >>> rows = strangest_rows(np.array([0.0, 8.0]), lambda t: t["a"].to_numpy() - 1, p, q,
    ...                       max_rows=1)
    >>> rows[0].row, rows[0].columns[0].name, rows[0].columns[0].value
    (1, 'a', '9')
    """
    if max_rows < 1 or n_replacements < 1:
        raise OptionError(
            f"max_rows is {max_rows} and n_replacements {n_replacements}; give 1 or more"
        )
    log_ratio = np.asarray(log_ratio_p, dtype=np.float64)
    if log_ratio.shape != (p.num_rows,):
        raise DataError(
            f"log_ratio_p: shape {log_ratio.shape} for {p.num_rows} rows of p; give one a row"
        )
    if p.num_rows == 0 or q.num_rows == 0:
        raise DataError(f"{'p' if p.num_rows == 0 else 'q'} has no rows")
    if np.isnan(log_ratio).any():
        raise DataError(
            f"log_ratio_p: {int(np.isnan(log_ratio).sum())} values are NaN "
            f"(first at row {int(np.argmax(np.isnan(log_ratio)))})"
        )
    numbers = np.arange(p.num_rows) if row_numbers is None else np.asarray(row_numbers)
    keys = None if ids is None else _as_list(ids)
    for name, values in (("row_numbers", numbers), ("ids", keys)):
        if values is not None and len(values) != p.num_rows:
            raise DataError(f"{name}: {len(values)} values for {p.num_rows} rows of p")
    names = _blamable(columns, p, q)
    top = np.lexsort((numbers, -log_ratio))[:max_rows]
    drop = _drops(score, p.take(top), q, names, n_replacements, random_state)
    texts = {name: [_text(v) for v in p.column(name).take(top).to_pylist()] for name in names}
    found = []
    for place, row in enumerate(top):
        order = np.argsort(-drop[place], kind="stable")[:_MAX_COLUMNS]
        parts = tuple(
            ColumnPart(names[j], texts[names[j]][place], float(drop[place, j]))
            for j in order
            if drop[place, j] > 1e-9
        )
        key = None if keys is None else keys[row]
        found.append(StrangeRow(int(numbers[row]), key, float(log_ratio[row]), parts))
    return found


def _as_list(ids: Any) -> list[Any]:
    if isinstance(ids, (pa.Array, pa.ChunkedArray)):
        return ids.to_pylist()
    return np.asarray(ids).tolist() if not isinstance(ids, list) else ids


def _blamable(columns: Sequence[str] | None, p: pa.Table, q: pa.Table) -> list[str]:
    if columns is None:
        return [name for name in p.column_names if name in q.column_names]
    for name in columns:
        for label, side in (("p", p), ("q", q)):
            if name not in side.column_names:
                raise DataError(f"{label} has no column {name!r}; name columns of both tables")
    return list(columns)


def _drops(
    score: Callable[[pa.Table], np.ndarray],
    top: pa.Table,
    q: pa.Table,
    names: list[str],
    n_replacements: int,
    random_state: RandomState,
) -> np.ndarray:
    """Mean drop of the score, shape (rows, columns), from one batch through the callable."""
    m, c, b = top.num_rows, len(names), n_replacements
    rng = as_generator(random_state)
    # rows of the batch: the m rows themselves, then (column, row, replacement)
    source = np.concatenate([np.arange(m), np.tile(np.repeat(np.arange(m), b), c)])
    drawn = rng.integers(0, q.num_rows, size=m * b)
    arrays = {}
    for name in top.column_names:
        if name not in names:
            arrays[name] = top.column(name).take(source)
            continue
        own, other = _one_type(top.column(name), q.column(name))
        place = source.copy()
        start = m + names.index(name) * m * b
        place[start : start + m * b] = m + drawn
        arrays[name] = pa.chunked_array([*own.chunks, *other.chunks], type=own.type).take(place)
    value = np.asarray(score(pa.table(arrays)), dtype=np.float64)
    if value.shape != (len(source),):
        raise DataError(f"score gave shape {value.shape} for {len(source)} rows; give one a row")
    return value[:m, None] - value[m:].reshape(c, m, b).mean(axis=2).T


def _one_type(
    first: pa.ChunkedArray, second: pa.ChunkedArray
) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    """Two columns in one type: plain values, p's type where q's values fit it, else text."""
    first, second = _plain(first), _plain(second)
    if first.type == second.type:
        return first, second
    try:
        return first, second.cast(first.type)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return first.cast(pa.string()), second.cast(pa.string())


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if isinstance(column.type, pa.DictionaryType):
        return column.cast(column.type.value_type)
    return column


def _text(value: Any) -> str:
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return "missing"
    if isinstance(value, float):
        value = f"{value:.6g}"
    if isinstance(value, (list, np.ndarray)):
        head = ", ".join(_text(v) for v in value[:4])
        value = f"[{head}, … {len(value)} values]" if len(value) > 4 else f"[{head}]"
    text = str(value)
    return text if len(text) <= _TEXT_LENGTH else text[: _TEXT_LENGTH - 1] + "…"
