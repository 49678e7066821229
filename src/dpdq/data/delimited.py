"""CSV and TSV files: the type of a column is read from all of it.

A column gets the first type of this list that every one of its values spells:

    null, int64, bool, date32, time32[s], timestamp[s], timestamp[ns], timestamp[s, UTC],
    timestamp[ns, UTC], float64, string

A small file is read at once. A large or compressed one is streamed: its first block proposes the
types, and a later value that does not fit moves its column down the list and starts the reading
again, so that the result is the same. Several files are read as one.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

import pyarrow as pa

from dpdq.data._plain import choose, conform, plain_schema
from dpdq.data.frames import TableSource
from dpdq.data.spool import SPOOL_BYTES, Spool
from dpdq.data.writing import reason_of
from dpdq.errors import DataError, FileError

if TYPE_CHECKING:
    from dpdq.data.sources import Source

__all__ = ["NULL_SPELLINGS", "TextFile", "delimited_source"]

NULL_SPELLINGS = ["", "NA", "NaN", "null", "None", "N/A"]
"""What means missing in a CSV file, in every column."""

_LADDER = [
    pa.null(),
    pa.int64(),
    pa.bool_(),
    pa.date32(),
    pa.time32("s"),
    pa.timestamp("s"),
    pa.timestamp("ns"),
    pa.timestamp("s", "UTC"),
    pa.timestamp("ns", "UTC"),
    pa.float64(),
    pa.string(),
]
_BLOCK_BYTES = 2 * 2**20
_LARGEST_BLOCK = 2**31 - 2
_CONVERSION = re.compile(
    r"In CSV column #(\d+): .*?CSV conversion error to ([^:]+): (?:invalid value '(.*)'|(.*))", re.S
)


@dataclasses.dataclass(frozen=True)
class TextFile:
    """A text file as it lies on disk.

    Attributes
    ----------
    path
        Where it is.
    compression
        ``"gzip"``, ``"zstd"`` or None.
    label
        What error messages call it.
    """

    path: str
    compression: str | None
    label: str

    def open(self) -> pa.NativeFile:
        """Open its bytes, decompressed.

        Raises
        ------
        FileError
            If it cannot be opened.
        """
        try:
            return pa.input_stream(self.path, compression=self.compression)
        except OSError as error:
            raise FileError(f"{self.label}: cannot be read ({reason_of(error)})") from error

    def damaged(self, error: BaseException) -> FileError:
        """Return the error of bytes that cannot be decompressed or read."""
        text = str(error).splitlines()
        what = f" {self.compression}" if self.compression else ""
        return FileError(
            f"{self.label}: the file is damaged or cut short and cannot be read to its end as"
            f"{what} data ({text[0][:160] if text else type(error).__name__})"
        )

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """Yield line numbers from 1 and lines."""
        with self.open() as stream, io.BufferedReader(cast("Any", stream), 2**20) as reader:
            yield from enumerate(reader, start=1)


@dataclasses.dataclass(frozen=True)
class _Layout:
    """The header of one file."""

    names: list[str]
    delimiter: str
    wanted: list[str]


def delimited_source(
    files: Sequence[TextFile],
    label: str,
    delimiter: str,
    columns: Iterable[str] | None = None,
) -> Source:
    """Open CSV files as one source.

    Parameters
    ----------
    files
        The files, in order.
    label
        What error messages call the whole.
    delimiter
        The character between cells; where the first line lacks it and holds a semicolon, a tab or
        a bar, that one is taken and noted.
    columns
        Columns to keep; ``None`` keeps all that have a name.

    Returns
    -------
    Source
        The rows.

    Raises
    ------
    FileError
        If a file cannot be read to its end.
    DataError
        If a row is ragged, text is not UTF-8, a name stands there twice, or the files differ in
        their columns.
    """
    wanted_columns = None if columns is None else list(columns)
    notes: list[str] = []
    layouts = [_layout(file, delimiter, wanted_columns, notes) for file in files]
    full = [(file, layout) for file, layout in zip(files, layouts, strict=True) if layout.names]
    if not full:
        choose([], wanted_columns, label)
    for file, layout in full[1:]:
        _same_columns(full[0][1].wanted, layout.wanted, file.label, full[0][0].label)
    reader = _Reader(list(files), layouts, label, notes)
    if len(files) == 1 and files[0].compression is None:
        try:
            small = os.path.getsize(files[0].path) <= SPOOL_BYTES
        except OSError as error:
            raise FileError(f"{label}: cannot be read ({reason_of(error)})") from error
        if small:
            return reader.at_once()
    return reader.streamed()


def _same_columns(first: list[str], second: list[str], label: str, first_label: str) -> None:
    for name in first:
        if name not in second:
            raise DataError(f"{label}: column {name!r} is absent, which {first_label} has")
    for name in second:
        if name not in first:
            raise DataError(f"{label}: column {name!r} is new, which {first_label} lacks")


def _layout(file: TextFile, delimiter: str, columns: list[str] | None, notes: list[str]) -> _Layout:
    first = _first_line(file)
    if first is None:
        return _Layout([], delimiter, [])
    if delimiter not in first:
        for other in (";", "\t", "|", ","):
            if other in first:
                delimiter = other
                shown = "a tab" if other == "\t" else repr(other)
                notes.append(f"{file.label}: cells are separated by {shown}")
                break
    names = _cells(file, delimiter)
    named = []
    for place, name in enumerate(names):
        if name:
            named.append(name)
        elif columns is None:
            what = "the unnamed first column" if place == 0 else f"unnamed column {place + 1}"
            notes.append(f"{file.label}: {what} is left out")
    seen: set[str] = set()
    for name in named:
        if name in seen:
            raise DataError(
                f"{file.label}: column {name!r} stands twice in the header; "
                "give every column its own name"
            )
        seen.add(name)
    if not named:
        raise DataError(f"{file.label}: the first line names no column")
    return _Layout(names, delimiter, choose(named, columns, file.label))


def _first_line(file: TextFile) -> str | None:
    """Return the first line that is not empty, or None."""
    try:
        for number, line in file.lines():
            text = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            if text.strip(b"\r\n"):
                if b"\x00" in text[:4096]:
                    raise DataError(
                        f"{file.label}: line {number} holds zero bytes, so this is not UTF-8 text; "
                        "save it as UTF-8"
                    )
                return _decoded(text, file, number)
    except OSError as error:
        if isinstance(error, FileError):
            raise
        raise file.damaged(error) from error
    return None


def _decoded(line: bytes, file: TextFile, number: int) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{file.label}: line {number} is not UTF-8 (byte 0x{line[error.start]:02x} at position "
            f"{error.start + 1}); save it as UTF-8"
        ) from error


def _cells(file: TextFile, delimiter: str) -> list[str]:
    for _, cells in _rows(file, delimiter):
        return cells
    return []


def _rows(file: TextFile, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the last line number and the cells of each row that is not empty."""
    with (
        file.open() as stream,
        io.BufferedReader(cast("Any", stream), 2**20) as reader,
        io.TextIOWrapper(reader, encoding="utf-8-sig", errors="replace", newline="") as text,
    ):
        limit = csv.field_size_limit(sys.maxsize)
        try:
            rows = csv.reader(text, delimiter=delimiter)
            for cells in rows:
                if cells:
                    yield rows.line_num, cells
        finally:
            csv.field_size_limit(limit)


class _Again(Exception):  # noqa: N818 - not an error: reading starts again
    """Something was learned that makes it necessary to start again."""


class _Reader:
    """Read files with what is known of types and sizes so far."""

    def __init__(
        self, files: list[TextFile], layouts: list[_Layout], label: str, notes: list[str]
    ) -> None:
        self.files = files
        self.layouts = layouts
        self.label = label
        self.notes = notes
        self.types: dict[str, pa.DataType] = {}
        self.block = _BLOCK_BYTES

    def _options(self, layout: _Layout) -> dict[str, Any]:
        import pyarrow.csv as arrow_csv

        return {
            "read_options": arrow_csv.ReadOptions(block_size=self.block),
            "parse_options": arrow_csv.ParseOptions(
                delimiter=layout.delimiter, newlines_in_values=True
            ),
            "convert_options": arrow_csv.ConvertOptions(
                null_values=NULL_SPELLINGS,
                strings_can_be_null=True,
                true_values=["true", "True", "TRUE"],
                false_values=["false", "False", "FALSE"],
                include_columns=layout.wanted,
                column_types={
                    name: kind for name, kind in self.types.items() if name in layout.wanted
                },
            ),
        }

    def at_once(self) -> Source:
        """Read one small file."""
        import pyarrow.csv as arrow_csv

        file, layout = self.files[0], self.layouts[0]
        if not layout.names:
            return TableSource(pa.table({}), self.label, notes=self.notes)
        self.block = 2**20
        while True:
            try:
                with file.open() as stream:
                    table = arrow_csv.read_csv(stream, **self._options(layout))
                break
            except pa.ArrowInvalid as error:
                if self._learn(error, file, layout):
                    continue
                table = _no_rows(layout)
                break
            except pa.ArrowKeyError as error:
                raise _odd_header(file, error) from error
            except UnicodeDecodeError as error:
                raise self._not_utf8(file, None) from error
            except OSError as error:
                raise file.damaged(error) from error
        for field in table.schema:
            if pa.types.is_binary(field.type):
                raise self._not_utf8(file, field.name)
        return TableSource(table, self.label, notes=self.notes)

    def streamed(self) -> Source:
        """Read all files block by block, as often as it takes."""
        while True:
            try:
                return self._attempt()
            except _Again:
                continue

    def _attempt(self) -> Source:
        notes = list(self.notes)
        order = next((layout.wanted for layout in self.layouts if layout.names), [])
        with Spool(self.label) as spool:
            for file, layout in zip(self.files, self.layouts, strict=True):
                if not layout.names:
                    continue
                for batch in self._batches(file, layout):
                    raw = pa.schema([batch.schema.field(name) for name in order])
                    plain, _ = plain_schema(raw, self.label)
                    spool.append(conform(batch, plain, self.label))
            kinds = [(name, self.types.get(name, pa.null())) for name in order]
            plain, _ = plain_schema(pa.schema(kinds), self.label)
            return spool.finish(plain, notes)

    def _batches(self, file: TextFile, layout: _Layout) -> Iterator[pa.RecordBatch]:
        import pyarrow.csv as arrow_csv

        try:
            with file.open() as stream:
                reader = arrow_csv.open_csv(stream, **self._options(layout))
                for field in reader.schema:
                    if pa.types.is_binary(field.type):
                        raise self._not_utf8(file, field.name)
                    self.types.setdefault(field.name, field.type)
                yield from reader
        except pa.ArrowInvalid as error:
            if self._learn(error, file, layout):
                raise _Again from error
        except pa.ArrowKeyError as error:
            raise _odd_header(file, error) from error
        except UnicodeDecodeError as error:
            raise self._not_utf8(file, None) from error
        except OSError as error:
            if isinstance(error, FileError):
                raise
            raise file.damaged(error) from error

    def _learn(self, error: pa.ArrowInvalid, file: TextFile, layout: _Layout) -> bool:
        """Take what an error teaches; False if the file has no rows.

        Raises
        ------
        DataError
            If there is nothing to learn: the file is at fault.
        """
        message = str(error)
        if "straddling" in message or "cannot infer number of columns" in message:
            if self.block < _LARGEST_BLOCK and self._has_rows(file, layout):
                self.block = min(self.block * 8, _LARGEST_BLOCK)
                return True
            if "straddling" not in message:
                return False
            raise DataError(f"{file.label}: one row is larger than 2 GiB") from error
        if "Empty CSV" in message:
            return False
        if "Expected" in message and "columns" in message:
            raise self._ragged(file, layout, message) from error
        found = _CONVERSION.search(message)
        if found is None:
            raise DataError(f"{file.label}: cannot be read as CSV ({message[:200]})") from error
        name = layout.names[int(found.group(1))]
        known = next(
            (i for i, kind in enumerate(_LADDER) if kind == self.types.get(name)), len(_LADDER) - 1
        )
        if known == len(_LADDER) - 1 or found.group(3) is None:
            raise self._not_utf8(file, name) from error
        self.types[name] = _next_type(known, found.group(3))
        return True

    def _has_rows(self, file: TextFile, layout: _Layout) -> bool:
        rows = _rows(file, layout.delimiter)
        return sum(1 for _, _ in zip(rows, range(2), strict=False)) == 2

    def _ragged(self, file: TextFile, layout: _Layout, message: str) -> DataError:
        width = len(layout.names)
        for line, cells in _rows(file, layout.delimiter):
            if len(cells) != width:
                return DataError(
                    f"{file.label}: line {line} has {len(cells)} cells where the header has "
                    f"{width}; quote cells that hold {layout.delimiter!r}, or repair the line"
                )
        return DataError(f"{file.label}: rows differ in their number of cells ({message[:200]})")

    def _not_utf8(self, file: TextFile, name: str | None) -> DataError:
        where = "" if name is None else f"column {name!r}, "
        for number, line in file.lines():
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                return DataError(
                    f"{file.label}: {where}line {number} is not UTF-8 "
                    f"(byte 0x{line[error.start]:02x}); save it as UTF-8"
                )
        return DataError(f"{file.label}: {where}the text is not UTF-8; save it as UTF-8")


def _odd_header(file: TextFile, error: BaseException) -> DataError:
    return DataError(f"{file.label}: the header cannot be read ({str(error)[:200]})")


def _no_rows(layout: _Layout) -> pa.Table:
    return pa.table({name: pa.nulls(0) for name in layout.wanted})


def _next_type(known: int, value: str) -> pa.DataType:
    """Return the first type after ``known`` on the ladder that the value spells."""
    import pyarrow.csv as arrow_csv

    cell = '"' + value.replace('"', '""') + '"'
    text = f"v\n{cell}\n".encode()
    for kind in _LADDER[known + 1 : -1]:
        options = arrow_csv.ConvertOptions(
            column_types={"v": kind},
            null_values=[],
            true_values=["true", "True", "TRUE"],
            false_values=["false", "False", "FALSE"],
        )
        try:
            arrow_csv.read_csv(
                pa.BufferReader(text),
                read_options=arrow_csv.ReadOptions(use_threads=False),
                parse_options=arrow_csv.ParseOptions(newlines_in_values=True),
                convert_options=options,
            )
        except pa.ArrowInvalid:
            continue
        return kind
    return _LADDER[-1]
