"""Rows and classes that come in, and leave with more rows, as the same kind of table.

Numbers are one float matrix. Categories are codes, and a new value is fetched from a row that has
it, so that no column changes its type and any type can be a category.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dpdq.errors import DataError, InputTypeError, OptionError

__all__ = ["Labels", "TableColumns", "frame_or_none"]


def frame_or_none(X: Any) -> Any:
    """The narwhals frame of a table in memory, or None for an array."""
    import narwhals as nw

    if isinstance(X, np.ndarray) or not hasattr(X, "shape"):
        return None
    native = nw.from_native(X, eager_only=True, pass_through=True)
    return native if isinstance(native, nw.DataFrame) else None


class TableColumns:
    """The columns of a table as numbers and codes.

    Attributes
    ----------
    numbers
        Shape (n, d_numbers), float32 or float64.
    codes
        One array of integers from 0 a category.
    n_levels
        Levels of each category.
    """

    def __init__(self, X: Any, nominal: Any) -> None:
        self._frame = frame_or_none(X)
        if self._frame is None:
            self._array = _as_matrix(X)
            self.names: list[Any] = list(range(self._array.shape[1]))
        else:
            self.names = list(self._frame.columns)
        self.n_columns = len(self.names)
        chosen = self._places(nominal)
        self._numeric = [j for j in range(self.n_columns) if j not in chosen]
        self._nominal = sorted(chosen)
        columns = [self._number(j) for j in self._numeric]
        self.n_rows = len(self._array if self._frame is None else self._frame)
        if self.n_rows == 0:
            raise DataError("X has no rows")
        self.numbers = np.stack(columns, axis=1) if columns else np.empty((self.n_rows, 0))
        found = [_codes(self._column(j)) for j in self._nominal]
        self.codes = [codes for codes, _ in found]
        self._examples = [rows for _, rows in found]
        self.n_levels = [len(rows) for rows in self._examples]

    def _column(self, j: int) -> np.ndarray:
        if self._frame is None:
            return self._array[:, j]
        return self._frame[self.names[j]].to_numpy()

    def _places(self, nominal: Any) -> set[int]:
        if isinstance(nominal, str):
            if nominal != "auto":
                raise OptionError(
                    f"Unknown categorical_features {nominal!r}. Choose 'auto', or give names, "
                    "numbers or a mask."
                )
            if self._frame is None:
                raise OptionError("categorical_features 'auto' needs a frame; name the columns")
            kinds = self._frame.schema.values()
            return {j for j, kind in enumerate(kinds) if not kind.is_numeric()}
        given = np.asarray(nominal)
        if given.dtype == bool:
            if given.shape != (self.n_columns,):
                raise OptionError(
                    f"categorical_features is a mask of shape {given.shape}; "
                    f"expected ({self.n_columns},)"
                )
            return set(np.flatnonzero(given).tolist())
        places = set()
        for each in nominal:
            if isinstance(each, str) and each in self.names:
                places.add(self.names.index(each))
            elif isinstance(each, (int, np.integer)) and -self.n_columns <= each < self.n_columns:
                places.add(int(each) % self.n_columns)
            else:
                raise OptionError(
                    f"categorical_features names {each!r}, and X has {self.n_columns} columns"
                    + ("" if self._frame is None else f": {', '.join(map(repr, self.names))}")
                )
        return places

    def _number(self, j: int) -> np.ndarray:
        values, name = self._column(j), self.names[j]
        try:
            if values.dtype.kind == "O":
                values = np.array([np.nan if v is None else v for v in values.tolist()])
            if values.dtype.kind not in "fiu":
                raise TypeError
        except (TypeError, ValueError):
            raise DataError(
                f"column {name!r} holds {values.dtype} values, between which there is nothing; "
                "make numbers of them, or name the column in SMOTENC(categorical_features=...)"
            ) from None
        single = values.dtype == np.float32 or values.dtype == np.float16
        values = values.astype(np.float32 if single else np.float64)
        wrong = ~np.isfinite(values)
        if wrong.any():
            raise DataError(
                f"column {name!r}: {int(wrong.sum())} of {len(values)} values are missing or "
                f"infinite (first at row {int(wrong.argmax())}); fill or drop them before"
            )
        return values

    def extended(self, parts: Sequence[tuple[np.ndarray, list[np.ndarray]]]) -> Any:
        """The rows that came, followed by parts of new numbers and codes."""
        made = [self.numbers[:0], *(numbers for numbers, _ in parts)]
        numbers = np.concatenate(made)
        rows = [
            examples[
                np.concatenate([np.empty(0, dtype=np.int64), *(codes[i] for _, codes in parts)])
            ]
            for i, examples in enumerate(self._examples)
        ]
        if self._frame is not None:
            return self._extended_frame(numbers, rows)
        old = self._array
        kind = old.dtype if old.dtype.kind in "fO" else np.dtype(np.float64)
        new = np.empty((len(numbers), self.n_columns), dtype=kind)
        new[:, self._numeric] = numbers
        for j, some in zip(self._nominal, rows, strict=True):
            new[:, j] = old[some, j]
        return np.concatenate([old.astype(kind, copy=False), new])

    def _extended_frame(self, numbers: np.ndarray, rows: list[np.ndarray]) -> Any:
        import narwhals as nw

        frame = nw.maybe_reset_index(self._frame)
        fill = np.zeros(len(numbers), dtype=np.int64)
        new = nw.maybe_reset_index(frame[fill])
        floats = {}
        for place, j in enumerate(self._numeric):
            name = self.names[j]
            kind = frame.schema[name]
            if not kind.is_float():
                kind = nw.Float64()
                floats[name] = kind
            series = nw.new_series(name, numbers[:, place], kind, backend=frame.implementation)
            new = new.with_columns(series)
        for j, some in zip(self._nominal, rows, strict=True):
            name = self.names[j]
            new = new.with_columns(nw.maybe_reset_index(frame[name][some]).alias(name))
        frame = frame.with_columns(*(nw.col(name).cast(kind) for name, kind in floats.items()))
        joined = nw.concat([frame, new.select(self.names)], how="vertical")
        return nw.maybe_reset_index(joined).to_native()


class Labels:
    """Classes of rows, which leave as the kind of column that came."""

    def __init__(self, y: Any) -> None:
        import narwhals as nw

        series = None
        if not isinstance(y, np.ndarray) and hasattr(y, "shape"):
            found = nw.from_native(y, series_only=True, pass_through=True)
            series = found if isinstance(found, nw.Series) else None
        self._series = series
        values = np.asarray(y) if series is None else series.to_numpy()
        if values.ndim != 1:
            raise DataError(f"y has shape {values.shape}; give one class a row, shape (n,)")
        if values.dtype.kind == "O" and len({type(v) for v in values.tolist()}) > 1:
            raise DataError("y holds missing values or several types; give one class a row")
        if values.dtype.kind == "f" and not (np.isfinite(values) & (values % 1 == 0)).all():
            raise DataError("y holds missing values or fractions; give one class a row")
        self.values = values

    def extended(self, names: Sequence[Any]) -> Any:
        """The classes that came, followed by these."""
        import narwhals as nw

        found, rows = np.unique(self.values, return_index=True)
        place = dict(zip(found.tolist(), rows.tolist(), strict=True))
        more = np.array([place[name] for name in names], dtype=np.int64)
        if self._series is None:
            return np.concatenate([self.values, self.values[more]])
        series = nw.maybe_reset_index(self._series)
        both = np.concatenate([np.arange(len(series)), more])
        return nw.maybe_reset_index(series[both]).to_native()


def _as_matrix(X: Any) -> np.ndarray:
    from scipy.sparse import issparse

    if issparse(X):
        raise InputTypeError("X is a sparse matrix; give a dense array (X.toarray()) or a frame")
    array = np.asarray(X)
    if array.ndim != 2:
        raise DataError(f"X has shape {array.shape}; expected (n_samples, n_features)")
    return array


def _codes(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Level of each row, numbered as they come, and a row that has each level."""
    seen: dict[Any, int] = {}
    examples = []
    codes = np.empty(len(values), dtype=np.int64)
    for row, value in enumerate(values.tolist()):
        key = None if value != value else value  # one level for all that is missing
        if key not in seen:
            seen[key] = len(seen)
            examples.append(row)
        codes[row] = seen[key]
    return codes, np.array(examples, dtype=np.int64)
