"""One side of a comparison: rows in a fixed order, in memory or on disk, read in blocks.

A source is stored in pieces (row groups, spooled batches, slices of a table) and read in blocks:
65,536 rows each, the last one shorter, whatever the pieces were. A computation that walks over
blocks therefore gives the same bits for the same rows, however these were cut into files and row
groups. Columns have the few plain types of `dpdq.data`: numbers, booleans, text, dates and
timestamps, lists of numbers.

`open_source` makes a source of whatever the user has:

    a path, a folder, a glob      Parquet, CSV, JSON Lines, Arrow IPC, .npy, .npz, .dpdq
    pandas, Polars, Arrow, ...    any eager frame; nothing is copied that need not be
    NumPy, torch, SciPy sparse    columns x0, x1, ...
    dict of columns, list of dicts
"""

from __future__ import annotations

import abc
import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from dpdq.data._plain import choose, conform
from dpdq.errors import DataError, InputTypeError, OptionError
from dpdq.passes import BLOCK_ROWS

if TYPE_CHECKING:
    from types import TracebackType

    from dpdq.data.reference import Reference

__all__ = ["Source", "open_source", "reading", "recut"]


class Source(abc.ABC):
    """The rows of one side: named columns of plain types, in a fixed order.

    Notes
    -----
    Cost: `batches` keeps one block and one stored piece in memory, `column` one column, `take`
    the rows it returns.

    Parameters
    ----------
    label
        What error messages call it, such as ``q (have.parquet)``.
    schema
        Names and plain types of the columns.
    piece_rows
        Number of rows of each stored piece, in order.
    notes
        What the reader should know of how the data were read, a sentence each.
    on_close
        Called by `close`; must bear being called twice.
    reference, population_rows
        Where these rows are a kept sample: what it was read from, and how many rows it stands
        for.

    Attributes
    ----------
    label, schema, notes, reference
        As given.
    n_rows
        Number of rows.
    population_rows
        Number of rows that these stand for; ``n_rows`` unless they are a kept sample.
    reach
        Who else can read the rows by way of a pickled copy of this object: ``"files"``, every
        machine that sees the same files; ``"machine"``, processes of this machine; ``"memory"``,
        nobody without copying the rows.
    """

    reach: str = "memory"
    origin: tuple[tuple[str, int, int], ...] = ()  # files: name, size, time of change in ns

    def __init__(
        self,
        label: str,
        schema: pa.Schema,
        piece_rows: Sequence[int] | np.ndarray,
        *,
        notes: Iterable[str] = (),
        on_close: Callable[[], object] | None = None,
        reference: Reference | None = None,
        population_rows: int | None = None,
    ) -> None:
        self.label = label
        self.schema = schema
        self.notes: list[str] = list(notes)
        self.reference = reference
        self._starts = np.concatenate([[0], np.cumsum(np.asarray(piece_rows, dtype=np.int64))])
        self.n_rows = int(self._starts[-1])
        self.population_rows = self.n_rows if population_rows is None else int(population_rows)
        self._on_close = on_close

    @abc.abstractmethod
    def _read(self, piece: int, columns: list[str]) -> Iterator[pa.RecordBatch]:
        """Read one stored piece: batches of any size that hold at least these columns."""

    def __len__(self) -> int:
        return self.n_rows

    def __repr__(self) -> str:
        return f"<{self.label}: {self.n_rows:,} rows, {len(self.schema)} columns>"

    def __enter__(self) -> Source:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        """A copy in another process reads the same rows and does not own them."""
        return {**vars(self), "_on_close": None, "reference": None}

    @property
    def largest_piece(self) -> int:
        """Rows of the largest stored piece."""
        return int(np.diff(self._starts).max(initial=0))

    def close(self) -> None:
        """Give back files; a source that was spooled to disk cannot be read afterwards."""
        if self._on_close is not None:
            self._on_close()

    def _chosen(self, columns: Iterable[str] | None) -> tuple[list[str], pa.Schema]:
        names = choose(self.schema.names, columns, self.label)
        return names, pa.schema([self.schema.field(name) for name in names])

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Read all rows in order, in blocks of 65,536 (the last one shorter).

        Parameters
        ----------
        columns
            Columns to read, in the order wanted; ``None`` reads all.

        Yields
        ------
        pyarrow.RecordBatch
            The next block.

        Raises
        ------
        DataError
            If a column is absent, or a stored value cannot be read.
        """
        return self.blocks(0, -(-self.n_rows // BLOCK_ROWS), columns)

    def blocks(
        self, first: int, last: int, columns: Sequence[str] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Read the blocks ``first`` to ``last - 1`` of those that `batches` gives.

        Parameters
        ----------
        first, last
            Numbers of blocks; what lies behind the end is left out.
        columns
            Columns to read, in the order wanted; ``None`` reads all.

        Yields
        ------
        pyarrow.RecordBatch
            The next block. Stored pieces outside are not read.

        Raises
        ------
        DataError
            If a column is absent, or a stored value cannot be read.
        """
        names, schema = self._chosen(columns)
        start, stop = first * BLOCK_ROWS, min(last * BLOCK_ROWS, self.n_rows)
        if not names or start >= stop:
            return iter(())
        return recut(self._stored_rows(start, stop, names, schema), schema, self.label)

    def _stored_rows(
        self, start: int, stop: int, names: list[str], schema: pa.Schema
    ) -> Iterator[pa.RecordBatch]:
        """Rows ``start`` to ``stop - 1``, in batches as they are stored."""
        piece = int(np.searchsorted(self._starts, start, side="right")) - 1
        while piece < len(self._starts) - 1 and self._starts[piece] < stop:
            row = int(self._starts[piece])
            for batch in self._read(piece, names):
                low, high = max(start - row, 0), min(stop - row, batch.num_rows)
                row += batch.num_rows
                if low < high:
                    yield conform(batch.slice(low, high - low), schema, self.label)
                if row >= stop:
                    break
            piece += 1

    def column(self, name: str) -> pa.ChunkedArray:
        """Read one whole column.

        Parameters
        ----------
        name
            The column.

        Returns
        -------
        pyarrow.ChunkedArray
            Its values in row order.

        Raises
        ------
        DataError
            If the column is absent, or a stored value cannot be read.
        """
        chunks = [batch.column(0) for batch in self.batches([name])]
        return pa.chunked_array(chunks, self.schema.field(name).type)

    def take(self, rows: np.ndarray, columns: Sequence[str] | None = None) -> pa.Table:
        """Read some rows.

        Parameters
        ----------
        rows
            Row numbers from 0, sorted upwards; a number may stand there more than once.
        columns
            Columns to read, in the order wanted; ``None`` reads all.

        Returns
        -------
        pyarrow.Table
            These rows, in this order. Stored pieces that hold none of them are not read.

        Raises
        ------
        OptionError
            If the row numbers are not sorted integers within the source.
        DataError
            If a column is absent, or a stored value cannot be read.
        """
        names, schema = self._chosen(columns)
        wanted = self._checked_rows(rows)
        found: list[pa.RecordBatch] = []
        bounds = np.searchsorted(wanted, self._starts)
        for piece in np.flatnonzero(np.diff(bounds)).tolist() if names else ():
            mine = wanted[bounds[piece] : bounds[piece + 1]] - self._starts[piece]
            first = 0
            for batch in self._read(piece, names):
                low, high = np.searchsorted(mine, [first, first + batch.num_rows])
                if high > low:
                    block = conform(batch, schema, self.label)
                    found.append(block.take(pa.array(mine[low:high] - first)))
                first += batch.num_rows
                if high == len(mine):
                    break
        return pa.Table.from_batches(found, schema=schema)

    def _checked_rows(self, rows: np.ndarray) -> np.ndarray:
        wanted = np.asarray(rows)
        if wanted.size == 0:
            return np.zeros(0, dtype=np.int64)
        if wanted.ndim != 1 or not np.issubdtype(wanted.dtype, np.integer):
            raise OptionError("rows must be one dimension of integers")
        wanted = wanted.astype(np.int64)
        if np.any(np.diff(wanted) < 0):
            raise OptionError("rows must be sorted upwards")
        if wanted[0] < 0 or wanted[-1] >= self.n_rows:
            raise OptionError(
                f"rows must lie between 0 and {self.n_rows - 1}; "
                f"got {wanted[0]} to {wanted[-1]} for {self.label}"
            )
        return wanted


class _Narrowed(Source):
    """Some columns of another source, which stays its owner's to close."""

    def __init__(self, source: Source, columns: Iterable[str]) -> None:
        names = choose(source.schema.names, columns, source.label)
        super().__init__(
            source.label,
            pa.schema([source.schema.field(name) for name in names]),
            np.diff(source._starts),
            notes=source.notes,
            reference=source.reference,
            population_rows=source.population_rows,
        )
        self._source = source
        self.reach, self.origin = source.reach, source.origin

    def _read(self, piece: int, columns: list[str]) -> Iterator[pa.RecordBatch]:
        return self._source._read(piece, columns)


def recut(
    batches: Iterable[pa.RecordBatch], schema: pa.Schema, label: str, rows: int = BLOCK_ROWS
) -> Iterator[pa.RecordBatch]:
    """Cut batches of any sizes into blocks of ``rows`` rows, the last one shorter.

    Raises
    ------
    DataError
        If one block of a text column would exceed 2 GiB.
    """
    held: list[pa.RecordBatch] = []
    count = 0
    for batch in batches:
        start = 0
        while start < batch.num_rows:
            part = batch.slice(start, rows - count)
            start += part.num_rows
            count += part.num_rows
            held.append(part)
            if count == rows:
                yield _joined(held, schema, label)
                held, count = [], 0
    if count:
        yield _joined(held, schema, label)


def _joined(parts: list[pa.RecordBatch], schema: pa.Schema, label: str) -> pa.RecordBatch:
    if len(parts) == 1:
        return parts[0]
    arrays = []
    for index, field in enumerate(schema):
        try:
            arrays.append(pa.concat_arrays([part.column(index) for part in parts]))
        except pa.ArrowException as error:
            size = sum(part.column(index).nbytes for part in parts)
            raise DataError(
                f"{label}: {sum(part.num_rows for part in parts):,} rows of column {field.name!r} "
                f"hold {size / 2**30:.1f} GiB, over the limit of 2 GiB a block; "
                "shorten the texts or leave the column out with columns="
            ) from error
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def open_source(
    data: Any,
    *,
    side: str,
    columns: Sequence[str] | None = None,
) -> Source:
    """Open the rows of one side, whatever they are in.

    Types are read from the whole of a CSV or JSON Lines file, not from its head: a column that
    holds ``abc`` in its last line is text. What does not fit in 64 MiB is spooled to a temporary
    file, which `Source.close`, garbage collection or the end of the program removes. Parquet is
    read in place.

    In CSV the spellings ``NA``, ``NaN``, ``null``, ``None``, ``N/A`` and nothing mean missing,
    in every column. Codes with leading zeros are read as numbers there.

    Notes
    -----
    Cost: one read of a text file (two or more where a late line changes a column's type);
    nothing but metadata for Parquet; no copy of frames and arrays.

    Parameters
    ----------
    data
        A path, folder or glob (Parquet, CSV, JSON Lines, Arrow IPC, .npy, .npz, .dpdq); a pandas,
        Polars or Arrow table; a NumPy array of one or two dimensions; a torch tensor; a SciPy
        sparse matrix; a dict of columns; a list of dicts; a `Source`.
    side
        ``"q"`` or ``"p"``, for error messages.
    columns
        Columns to keep, in the order wanted; ``None`` keeps all.

    Returns
    -------
    Source
        The rows.

    Raises
    ------
    FileError
        If a file is missing, unreadable, damaged or of an unknown kind.
    DataError
        If names stand there twice, a column is absent or has a type that cannot be compared.
    InputTypeError
        If ``data`` is none of the above.

    Examples
    --------
    >>> source = open_source({"age": [31, 45, None], "sex": ["f", "m", "f"]}, side="q")
    >>> source
    <q: 3 rows, 2 columns>
    >>> source.column("age").to_pylist()
    [31, 45, None]
    """
    if side not in ("q", "p"):
        raise OptionError(f"Unknown side {side!r}. Choose one of 'q', 'p'.")
    if columns is not None and len(columns) == 0:
        raise OptionError("columns is empty; name at least one column, or pass None for all")
    if isinstance(data, Source):
        return data if columns is None else _Narrowed(data, columns)
    if isinstance(data, (str, os.PathLike)):
        from dpdq.data.files import file_source

        return file_source(data, side, columns)
    if isinstance(data, (bytes, bytearray, memoryview)):
        raise InputTypeError(f"{side}: got {type(data).__name__}; give a path or a table")
    from dpdq.data.frames import frame_source

    return frame_source(data, side, columns)


@contextlib.contextmanager
def reading(data: Any, *, side: str, columns: Sequence[str] | None = None) -> Iterator[Source]:
    """Open the rows of one side for a while.

    What was opened here is closed in the end; a `Source` that was handed in stays open.

    Parameters
    ----------
    data, side, columns
        As for `open_source`.
    """
    source = open_source(data, side=side, columns=columns)
    try:
        yield source
    finally:
        if not isinstance(data, Source):
            source.close()
