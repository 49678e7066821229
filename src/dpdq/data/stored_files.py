"""Files of Arrow batches, read in place: Parquet by row group, Arrow IPC by batch.

Several files are one source; their columns must agree, and numbers widen to what holds all.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa

from dpdq.data._plain import conform, plain_schema, unify
from dpdq.data.sources import Source
from dpdq.data.spool import read_ipc_batch
from dpdq.errors import DataError, FileError
from dpdq.passes import BLOCK_ROWS

__all__ = ["ArrowFileSource", "FoundFile", "JoinedSource", "ParquetSource"]


@dataclasses.dataclass(frozen=True)
class FoundFile:
    """A file, what its name says it is, and what error messages call it."""

    path: str
    kind: str
    ending: str
    compression: str | None
    label: str

    def damaged(self, error: BaseException) -> FileError:
        """Return the error of a file that says one thing and holds another."""
        text = str(error).strip().splitlines()
        return FileError(
            f"{self.label}: the file is damaged, or no {self.ending} file "
            f"({text[0][:200] if text else type(error).__name__})"
        )


class _StoredFiles(Source):
    """Arrow batches in files that are read in place."""

    reach = "files"

    def __init__(
        self,
        files: Sequence[FoundFile],
        label: str,
        columns: Sequence[str] | None,
        look: Callable[[FoundFile], tuple[pa.Schema, list[int]]],
    ) -> None:
        schema: pa.Schema | None = None
        sizes: list[int] = []
        notes: list[str] = []
        pieces: list[tuple[FoundFile, int]] = []
        for file in files:
            found, rows = look(file)
            plain, more = plain_schema(found, file.label, columns)
            schema = plain if schema is None else _joined(schema, plain, files[0].label, file.label)
            notes += more
            sizes += rows
            pieces += [(file, index) for index in range(len(rows))]
        assert schema is not None
        super().__init__(label, schema, sizes, notes=notes)
        self._pieces = pieces


def _validate(batch: pa.RecordBatch, file: FoundFile) -> None:
    """Refuse offsets that point nowhere, and text that is not UTF-8."""
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            column.validate(full=True)
        except pa.ArrowInvalid as error:
            if "UTF8" in str(error):
                raise DataError(
                    f"{file.label}: column {name!r} holds text that is not UTF-8; "
                    "save it as UTF-8, or as numbers"
                ) from error
            raise


def _joined(first: pa.Schema, second: pa.Schema, first_label: str, label: str) -> pa.Schema:
    for name in first.names:
        if name not in second.names:
            raise DataError(f"{label}: column {name!r} is absent, which {first_label} has")
    fields = []
    for name in second.names:
        if name not in first.names:
            raise DataError(f"{label}: column {name!r} is new, which {first_label} lacks")
    for field in first:
        other = second.field(field.name).type
        both = unify(field.type, other)
        if both is None:
            raise DataError(
                f"{label}: column {field.name!r} has type {other} where {first_label} has "
                f"{field.type}; give all files one type"
            )
        fields.append(pa.field(field.name, both))
    return pa.schema(fields)


class ParquetSource(_StoredFiles):
    """Parquet files, read in place, wanted columns only.

    Parameters
    ----------
    files
        The files, in order.
    label
        What error messages call the whole.
    columns
        Columns to keep; ``None`` keeps all.
    """

    def __init__(
        self, files: Sequence[FoundFile], label: str, columns: Sequence[str] | None = None
    ) -> None:
        import pyarrow.parquet as pq

        self._metadata: dict[str, Any] = {}

        def look(file: FoundFile) -> tuple[pa.Schema, list[int]]:
            try:
                with pq.ParquetFile(file.path) as opened:
                    metadata = opened.metadata
                    schema = opened.schema_arrow
            except (pa.ArrowException, OSError) as error:
                raise file.damaged(error) from error
            self._metadata[file.path] = metadata
            groups = range(metadata.num_row_groups)
            return schema, [metadata.row_group(index).num_rows for index in groups]

        super().__init__(files, label, columns, look)

    def _read(self, piece: int, columns: list[str]) -> Iterator[pa.RecordBatch]:
        import pyarrow.parquet as pq

        file, group = self._pieces[piece]
        try:
            # buffered pages and no read-ahead: a row group is never whole in memory
            with pq.ParquetFile(
                file.path,
                metadata=self._metadata[file.path],
                pre_buffer=False,
                buffer_size=2**18,
            ) as opened:
                for batch in opened.iter_batches(
                    batch_size=BLOCK_ROWS, row_groups=[group], columns=columns
                ):
                    _validate(batch, file)
                    yield batch
        except (pa.ArrowException, OSError) as error:
            raise file.damaged(error) from error


class ArrowFileSource(_StoredFiles):
    """Arrow IPC (Feather version 2) files, read in place, wanted columns only.

    Parameters
    ----------
    files
        The files, in order.
    label
        What error messages call the whole.
    columns
        Columns to keep; ``None`` keeps all.
    """

    def __init__(
        self, files: Sequence[FoundFile], label: str, columns: Sequence[str] | None = None
    ) -> None:
        def look(file: FoundFile) -> tuple[pa.Schema, list[int]]:
            try:
                with pa.memory_map(file.path, "rb") as mapped:
                    reader = pa.ipc.open_file(mapped)
                    count = reader.num_record_batches
                    schema = reader.schema
                    if len(schema):
                        mapped.seek(0)
                        options = pa.ipc.IpcReadOptions(included_fields=[0])
                        reader = pa.ipc.open_file(mapped, options=options)
                    rows = [reader.get_batch(index).num_rows for index in range(count)]
            except (pa.ArrowException, OSError) as error:
                raise file.damaged(error) from error
            return schema, rows

        super().__init__(files, label, columns, look)

    def _read(self, piece: int, columns: list[str]) -> Iterator[pa.RecordBatch]:
        file, index = self._pieces[piece]
        try:
            batch = read_ipc_batch(file.path, index, columns)
            _validate(batch, file)
        except (pa.ArrowException, OSError) as error:
            raise file.damaged(error) from error
        for start in range(0, batch.num_rows, BLOCK_ROWS):
            yield batch.slice(start, BLOCK_ROWS)


class JoinedSource(Source):
    """Sources with the same columns, one after the other.

    Parameters
    ----------
    parts
        The sources, in order; they are closed with this one.
    label
        What error messages call the whole.
    """

    def __init__(self, parts: Sequence[Source], label: str) -> None:
        schema = parts[0].schema
        for part in parts[1:]:
            schema = _joined(schema, part.schema, parts[0].label, part.label)

        def close() -> None:
            for part in parts:
                part.close()

        notes = [note for part in parts for note in part.notes]
        super().__init__(
            label, schema, [part.n_rows for part in parts], notes=notes, on_close=close
        )
        self._parts = list(parts)

    def _read(self, piece: int, columns: list[str]) -> Iterator[pa.RecordBatch]:
        part = self._parts[piece]
        schema = pa.schema([self.schema.field(name) for name in columns])
        for batch in part.batches(columns):
            yield conform(batch, schema, part.label)
