"""Tables and arrays that are in memory already, as sources.

Frames become Arrow without a copy where their memory allows it; dictionaries, large strings and
decimals are turned into plain types a block at a time. Two-dimensional arrays and sparse matrices
are cut and turned into columns a block at a time too, so that no second copy of them is made.

A pandas index is no column. A Python column that mixes numbers and text is read as text and noted.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from dpdq._optional import is_torch
from dpdq.data._plain import (
    as_text,
    choose,
    flatten_structs,
    has_numbers_only,
    is_scalar,
    plain_schema,
    refuse_twins,
)
from dpdq.data.sources import Source
from dpdq.errors import DataError, InputTypeError
from dpdq.passes import BLOCK_ROWS

if TYPE_CHECKING:
    from dpdq.data.reference import Reference

__all__ = ["ArraySource", "TableSource", "array_source", "column_array", "frame_source"]

DENSE_BYTES = 2 * 2**30
"""A sparse matrix that would be larger than this as a dense one is refused."""


class TableSource(Source):
    """An Arrow table in memory; nothing is copied before it is read.

    Parameters
    ----------
    table
        The rows, of any types that have a plain one.
    label
        What error messages call it.
    columns
        Columns to keep; ``None`` keeps all.
    notes, reference, population_rows
        As in `dpdq.data.Source`.
    """

    def __init__(
        self,
        table: pa.Table,
        label: str,
        columns: Iterable[str] | None = None,
        *,
        notes: Iterable[str] = (),
        reference: Reference | None = None,
        population_rows: int | None = None,
    ) -> None:
        schema, more = plain_schema(table.schema, label, columns)
        super().__init__(
            label,
            schema,
            _block_sizes(table.num_rows),
            notes=[*notes, *more],
            reference=reference,
            population_rows=population_rows,
        )
        self._table = table

    def _read(self, piece: int, columns: list[str]) -> Iterator[pa.RecordBatch]:
        block = self._table.select(columns).slice(piece * BLOCK_ROWS, BLOCK_ROWS)
        yield from block.to_batches()


class ArraySource(Source):
    """Rows of a matrix, cut and turned into columns a block at a time.

    Parameters
    ----------
    shape
        Rows and columns.
    cut
        Returns rows ``start .. stop - 1`` as a NumPy array of two dimensions.
    kind
        Plain type of all columns.
    label
        What error messages call it.
    columns
        Columns to keep; ``None`` keeps all.
    names
        Names of the columns; ``x0, x1, ...`` unless given.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        cut: Callable[[int, int], np.ndarray],
        kind: pa.DataType,
        label: str,
        columns: Iterable[str] | None = None,
        names: Sequence[str] | None = None,
    ) -> None:
        n, d = shape
        given = [f"x{index}" for index in range(d)] if names is None else list(names)
        chosen = choose(given, columns, label)
        super().__init__(label, pa.schema([(name, kind) for name in chosen]), _block_sizes(n))
        self._place = {name: index for index, name in enumerate(given)}
        self._cut = cut

    def _read(self, piece: int, columns: list[str]) -> Iterator[pa.RecordBatch]:
        start = piece * BLOCK_ROWS
        block = self._cut(start, min(start + BLOCK_ROWS, self.n_rows))
        fields = [self.schema.field(name) for name in columns]
        arrays = [
            pa.array(np.ascontiguousarray(block[:, self._place[field.name]])).cast(field.type)
            for field in fields
        ]
        yield pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))


def _block_sizes(rows: int) -> list[int]:
    return [min(BLOCK_ROWS, rows - start) for start in range(0, rows, BLOCK_ROWS)]


def frame_source(data: Any, label: str, columns: Sequence[str] | None = None) -> Source:
    """Open a table or an array that is in memory.

    Parameters
    ----------
    data
        An eager frame, an Arrow table or batch, an array, a tensor, a sparse matrix, a dict of
        columns or a list of dicts.
    label
        What error messages call it.
    columns
        Columns to keep; ``None`` keeps all.

    Returns
    -------
    Source
        The rows.

    Raises
    ------
    DataError
        If the data cannot be used as they are.
    InputTypeError
        If ``data`` is none of the above.
    """
    notes: list[str] = []
    if isinstance(data, pa.RecordBatch):
        data = pa.Table.from_batches([data])
    if isinstance(data, pa.Table):
        return TableSource(data, label, columns)
    if isinstance(data, np.ndarray):
        return array_source(data, label, columns)
    if is_torch(data):
        return array_source(_from_torch(data, label), label, columns)
    if _is_sparse(data):
        return _sparse_source(data, label, columns)
    if isinstance(data, Mapping):
        return TableSource(_from_columns(data, label, notes), label, columns, notes=notes)
    if isinstance(data, (list, tuple)):
        if len(data) == 0 or all(isinstance(row, Mapping) for row in data):
            return TableSource(_from_rows(data, label, notes), label, columns, notes=notes)
        try:
            return array_source(np.asarray(data), label, columns)
        except ValueError as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"{label}: rows of a list must be dicts, or all of one length") from (
                error
            )
    return TableSource(_from_frame(data, label, notes), label, columns, notes=notes)


def _from_frame(data: Any, label: str, notes: list[str]) -> pa.Table:
    import narwhals as nw

    if nw.dependencies.is_pandas_dataframe(data):
        return _from_pandas(data, label, notes)
    try:
        frame = nw.from_native(data, eager_only=True, allow_series=True)
    except TypeError:
        raise InputTypeError(f"{label}: {_not_a_table(data)}") from None
    if isinstance(frame, nw.Series):
        frame = frame.alias(str(frame.name or "x0")).to_frame()
    if frame.implementation.is_pandas_like():
        return _from_pandas(frame.to_pandas(), label, notes)
    try:
        return frame.to_arrow()
    except Exception as error:  # each library raises its own errors for what Arrow cannot hold
        raise DataError(
            f"{label}: the frame cannot be turned into Arrow ({str(error).splitlines()[0][:200]})"
        ) from error


def _from_pandas(frame: Any, label: str, notes: list[str]) -> pa.Table:
    names = [_name(name) for name in frame.columns]
    refuse_twins(names, label)
    arrays = [
        column_array(frame.iloc[:, index], name, label, notes) for index, name in enumerate(names)
    ]
    return _table(names, arrays)


def _not_a_table(data: object) -> str:
    name = f"{type(data).__module__.split('.')[0]}.{type(data).__qualname__}"
    if type(data).__name__ == "LazyFrame" or hasattr(data, "collect"):
        return f"{name} is lazy; call .collect() first"
    return (
        f"cannot read {name}; give a path, a pandas, Polars or Arrow table, a NumPy array, "
        "a torch tensor, a SciPy sparse matrix, a dict of columns or a list of dicts"
    )


def _name(name: object) -> str:
    return ".".join(str(part) for part in name) if isinstance(name, tuple) else str(name)


def _table(names: list[str], arrays: list[pa.Array]) -> pa.Table:
    fields = [pa.field(name, array.type) for name, array in zip(names, arrays, strict=True)]
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields))


def _from_columns(data: Mapping[Any, Any], label: str, notes: list[str]) -> pa.Table:
    names = [_name(name) for name in data]
    refuse_twins(names, label)
    arrays: list[Any] = []
    for name, values in zip(names, data.values(), strict=True):
        if isinstance(values, (str, bytes, Mapping)) or not hasattr(values, "__len__"):
            raise DataError(
                f"{label}: column {name!r} is of type {type(values).__name__}; "
                "give a list or an array with one value a row"
            )
        arrays.append(column_array(values, name, label, notes))
        if len(arrays[-1]) != len(arrays[0]):
            raise DataError(
                f"{label}: column {name!r} has {len(arrays[-1])} values where {names[0]!r} has "
                f"{len(arrays[0])}; all columns must have one length"
            )
    return _table(names, arrays)


def _from_rows(rows: Sequence[Mapping[Any, Any]], label: str, notes: list[str]) -> pa.Table:
    keys = dict.fromkeys(key for row in rows for key in row)
    columns = {key: [row.get(key) for row in rows] for key in keys}
    return flatten_structs(_from_columns(columns, label, notes), label)


def column_array(values: Any, name: str, label: str, notes: list[str]) -> pa.Array:
    """Turn one column into an Arrow array; mixed kinds become text, which is noted.

    Parameters
    ----------
    values
        A list, a NumPy array, a tensor, a pandas, Polars or Arrow column.
    name, label
        What error messages call it.
    notes
        Where a note is appended.

    Returns
    -------
    pyarrow.Array
        The values; NaN in Python objects is missing.

    Raises
    ------
    DataError
        If the values are not numbers, text, times or lists of numbers.
    """
    if isinstance(values, pa.ChunkedArray):
        return values
    if is_torch(values):
        values = _from_torch(values, f"{label}, column {name!r}")
    if isinstance(values, np.ndarray) and values.ndim != 1:
        if values.ndim == 2:
            return _lists(_native(values, f"{label}, column {name!r}"))
        raise DataError(f"{label}: column {name!r} has {values.ndim} dimensions; give one or two")
    if isinstance(values, np.ndarray) and values.dtype != object:
        values = _native(values, f"{label}, column {name!r}")
        return pa.array(values)
    try:
        return pa.array(values, from_pandas=True)
    except (pa.ArrowException, OverflowError, UnicodeEncodeError, TypeError, ValueError) as error:
        native = np.asarray(values) if not isinstance(values, (list, tuple)) else None
        if native is not None and native.ndim == 1 and native.dtype.kind in "biuf":
            return pa.array(_native(native, label))  # such as a sparse pandas column
        items = list(values)
        if all(is_scalar(item) for item in items):
            if has_numbers_only(items):
                numbers = [None if item is None else float(item) for item in items]
                return pa.array(numbers, pa.float64(), from_pandas=True)
            kinds = sorted({type(item).__name__ for item in items if as_text(item) is not None})
            if not isinstance(error, UnicodeEncodeError):
                if len(kinds) > 1:
                    notes.append(
                        f"{label}: column {name!r} mixes {' and '.join(kinds)} and is read as text"
                    )
                return pa.array([as_text(item) for item in items], pa.string())
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise DataError(
            f"{label}: column {name!r} holds values that are not numbers, text, times or lists of "
            f"numbers ({reason})"
        ) from error


def _native(array: np.ndarray, label: str) -> np.ndarray:
    """Bring a NumPy array to a dtype that Arrow knows."""
    dtype = array.dtype
    if dtype.kind == "c":
        raise DataError(f"{label}: complex numbers cannot be compared; give two real columns")
    if dtype.kind in "SVO" and not dtype.names:
        what = {"S": "bytes", "V": "raw bytes", "O": "Python objects"}[dtype.kind]
        raise DataError(f"{label}: the array holds {what}; convert it to numbers or text")
    if dtype.kind == "f" and dtype.itemsize > 8:
        return array.astype(np.float64)
    if dtype.kind in "mM":
        unit = np.datetime_data(dtype)[0]
        if dtype.kind == "m":
            return array.astype("timedelta64[ns]" if unit in ("ps", "fs", "as") else dtype) / (
                np.timedelta64(1, "s")
            )
        known = {"Y": "D", "M": "D", "W": "D", "h": "s", "m": "s", "generic": "s"}
        array = array.astype(f"datetime64[{known.get(unit, unit)}]")
    return array.astype(array.dtype.newbyteorder("=")) if not array.dtype.isnative else array


def _lists(matrix: np.ndarray) -> pa.Array:
    n, d = matrix.shape
    flat = pa.array(np.ascontiguousarray(matrix, dtype=np.float64).reshape(-1))
    return pa.ListArray.from_arrays(pa.array(np.arange(n + 1, dtype=np.int32) * d), flat)


def array_source(
    array: np.ndarray,
    label: str,
    columns: Sequence[str] | None = None,
    name: str = "x0",
) -> Source:
    """Open a NumPy array: one column, the columns of a matrix, or named fields.

    Parameters
    ----------
    array
        One or two dimensions, or a structured array of one.
    label
        What error messages call it.
    columns
        Columns to keep; ``None`` keeps all.
    name
        Name of the column of an array of one dimension.

    Returns
    -------
    Source
        The rows.

    Raises
    ------
    DataError
        If the array has another number of dimensions, or holds what cannot be compared.
    """
    notes: list[str] = []
    if array.dtype.names is not None and array.ndim == 1:
        fields = {str(field): array[field] for field in array.dtype.names}
        return TableSource(_from_columns(fields, label, notes), label, columns, notes=notes)
    if array.ndim == 1:
        column = {name: _plain_array_of(array)}
        return TableSource(_from_columns(column, label, notes), label, columns, notes=notes)
    if array.ndim != 2:
        raise DataError(
            f"{label}: the array has {array.ndim} dimensions; give rows and columns "
            "(flatten images, or pass encoder= for features)"
        )
    if np.ma.isMaskedArray(array) or array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
        matrix = {f"x{i}": _plain_array_of(array[:, i]) for i in range(array.shape[1])}
        return TableSource(_from_columns(matrix, label, notes), label, columns, notes=notes)
    kind = pa.from_numpy_dtype(array.dtype.newbyteorder("="))
    kind = pa.float32() if pa.types.is_float16(kind) else kind

    def cut(start: int, stop: int) -> np.ndarray:
        return _native(array[start:stop], label)

    return ArraySource((array.shape[0], array.shape[1]), cut, kind, label, columns)


def _plain_array_of(array: np.ndarray) -> Any:
    """Turn masked values into missing ones."""
    if np.ma.isMaskedArray(array):
        values = np.ma.getdata(array)
        return pa.array(_native(values, "a masked array"), mask=np.ma.getmaskarray(array))
    return array


def _from_torch(tensor: Any, label: str) -> np.ndarray:
    import torch

    if tensor.layout != torch.strided:
        raise DataError(f"{label}: the tensor is sparse; call .to_dense() first")
    dense = tensor.detach().cpu().resolve_conj().resolve_neg()
    if dense.dtype == torch.bfloat16:
        dense = dense.to(torch.float32)
    try:
        return dense.numpy()
    except (RuntimeError, TypeError) as error:
        raise DataError(
            f"{label}: a tensor of {dense.dtype} cannot be read; convert it to float32"
        ) from error


def _is_sparse(data: object) -> bool:
    sparse = sys.modules.get("scipy.sparse")
    return sparse is not None and bool(sparse.issparse(data))


def _sparse_source(data: Any, label: str, columns: Sequence[str] | None) -> Source:
    if data.ndim != 2:
        raise DataError(f"{label}: the sparse array has {data.ndim} dimensions; give two")
    n, d = data.shape
    size = n * d * data.dtype.itemsize
    if size > DENSE_BYTES:
        raise DataError(
            f"{label}: the sparse matrix of {n:,} x {d:,} would take {size / 2**30:.1f} GiB as "
            "columns, over the limit of 2 GiB; reduce it first, for example with "
            "sklearn.decomposition.TruncatedSVD"
        )
    rows = data.tocsr()
    if rows.dtype.kind == "c":
        raise DataError(f"{label}: complex numbers cannot be compared; give two real columns")

    def cut(start: int, stop: int) -> np.ndarray:
        return rows[start:stop].toarray()

    return ArraySource((n, d), cut, pa.from_numpy_dtype(rows.dtype), label, columns)
