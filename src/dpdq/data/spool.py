"""Rows that can be read only once, kept so that they can be read often.

Batches stay in memory up to 64 MiB; beyond that all of them go to a temporary folder as Arrow IPC
files with LZ4 compression, one file for each run of batches with the same schema. The folder is
removed when the source is closed or collected, and at the latest when the program ends.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pyarrow as pa

from dpdq.data._plain import conform
from dpdq.data.frames import TableSource
from dpdq.data.sources import Source
from dpdq.data.writing import reason_of
from dpdq.errors import FileError

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["SPOOL_BYTES", "Spool", "SpooledSource"]

SPOOL_BYTES = 64 * 2**20
"""Rows that take more memory than this are kept on disk."""


class Spool:
    """Collect batches, in memory or on disk; what is not finished leaves nothing behind.

    Parameters
    ----------
    label
        What error messages call the rows.
    limit
        Bytes to keep in memory.
    """

    def __init__(self, label: str, limit: int | None = None) -> None:
        self.label = label
        self.n_rows = 0
        self._limit = SPOOL_BYTES if limit is None else limit
        self._held: list[pa.RecordBatch] = []
        self._bytes = 0
        self._folder: str | None = None
        self._writer: pa.RecordBatchFileWriter | None = None
        self._schema: pa.Schema | None = None
        self._files: list[str] = []
        self._sizes: list[list[int]] = []

    def __enter__(self) -> Spool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        folder, self._folder = self._folder, None
        try:
            if self._writer is not None:
                self._writer.close()
        except (OSError, pa.ArrowException):
            if error is None:
                raise
        finally:
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)

    def append(self, batch: pa.RecordBatch) -> None:
        """Keep one more batch.

        Raises
        ------
        FileError
            If the temporary file cannot be written.
        """
        if batch.num_rows == 0:
            return
        self.n_rows += batch.num_rows
        if self._folder is None:
            self._held.append(batch)
            self._bytes += batch.nbytes
            if self._bytes <= self._limit:
                return
        try:
            if self._folder is None:
                self._folder = tempfile.mkdtemp(prefix="dpdq-")
                waiting, self._held = self._held, []
                for held in waiting:
                    self._write(held)
            else:
                self._write(batch)
        except OSError as error:
            raise self._full(error) from error

    def _full(self, error: OSError) -> FileError:
        return FileError(
            f"{self.label}: the temporary folder {tempfile.gettempdir()!r} cannot hold the rows "
            f"({reason_of(error)}); free space there or set TMPDIR"
        )

    def _write(self, batch: pa.RecordBatch) -> None:
        if self._writer is None or batch.schema != self._schema:
            if self._writer is not None:
                self._writer.close()
            assert self._folder is not None
            path = os.path.join(self._folder, f"{len(self._files)}.arrow")
            options = pa.ipc.IpcWriteOptions(compression="lz4")
            self._writer = pa.ipc.new_file(path, batch.schema, options=options)
            self._schema = batch.schema
            self._files.append(path)
            self._sizes.append([])
        self._writer.write_batch(batch)
        self._sizes[-1].append(batch.num_rows)

    def finish(self, schema: pa.Schema, notes: list[str]) -> Source:
        """Return the collected rows as a source of the given plain schema.

        Raises
        ------
        FileError
            If the temporary file cannot be written.
        """
        if self._folder is None:
            batches = [conform(batch, schema, self.label) for batch in self._held]
            table = pa.Table.from_batches(batches, schema=schema)
            return TableSource(table, self.label, schema.names, notes=notes)
        try:
            if self._writer is not None:
                self._writer.close()
                self._writer = None
        except OSError as error:
            raise self._full(error) from error
        source = SpooledSource(self._files, self._sizes, self._folder, schema, self.label, notes)
        self._folder = None  # the source owns it now
        return source


class SpooledSource(Source):
    """Rows in temporary Arrow IPC files, which it removes.

    Parameters
    ----------
    files
        Paths of the files, in order.
    sizes
        Number of rows of each batch of each file.
    folder
        The folder to remove in the end.
    schema
        Plain schema of the whole.
    label, notes
        As in `dpdq.data.Source`.
    """

    reach = "machine"

    def __init__(
        self,
        files: list[str],
        sizes: list[list[int]],
        folder: str,
        schema: pa.Schema,
        label: str,
        notes: list[str],
    ) -> None:
        finalizer = weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        super().__init__(
            label,
            schema,
            [rows for each in sizes for rows in each],
            notes=notes,
            on_close=finalizer,
        )
        self._pieces = [
            (path, index)
            for path, each in zip(files, sizes, strict=True)
            for index in range(len(each))
        ]

    def _read(self, piece: int, columns: list[str]) -> Iterator[pa.RecordBatch]:
        path, index = self._pieces[piece]
        try:
            batch = read_ipc_batch(path, index, columns)
        except (OSError, pa.ArrowException) as error:
            raise FileError(
                f"{self.label}: the temporary copy of the rows is gone; open the source again"
            ) from error
        yield batch


def read_ipc_batch(path: str, index: int, columns: list[str]) -> pa.RecordBatch:
    """Read some columns of one batch of an Arrow IPC file; absent columns are left out."""
    with pa.OSFile(path, "rb") as file:
        names = pa.ipc.open_file(file).schema.names
        wanted = set(columns)
        fields = [place for place, name in enumerate(names) if name in wanted]
        if not fields:  # none is there: keep the number of rows by way of the first column
            fields = [0]
        file.seek(0)
        options = pa.ipc.IpcReadOptions(included_fields=fields)
        return pa.ipc.open_file(file, options=options).get_batch(index)
