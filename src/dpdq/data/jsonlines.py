"""JSON Lines: one object a line; the type of a column is read from all of it.

Keys become columns in the order in which they first appear; a key that a line lacks is missing
there. Text that always spells an ISO time is read as a time. A nested object ``{"a": {"b": 1}}``
becomes column ``a.b``; deeper ones are refused. A column that mixes numbers, booleans and text is
read as text, and noted.

The file is cut at line ends into blocks, each parsed alone; the types of the blocks are joined.
Where a column's blocks cannot be joined the reading starts again with that column as text.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from dpdq.data._plain import (
    as_text,
    choose,
    conform,
    flatten_structs,
    plain_schema,
    refuse_twins,
    unify,
)
from dpdq.data.spool import Spool
from dpdq.errors import DataError, FileError

if TYPE_CHECKING:
    from dpdq.data.delimited import TextFile
    from dpdq.data.sources import Source

__all__ = ["json_lines_source"]

_BLOCK_BYTES = 32 * 2**20
_LARGEST_ARRAY = 2**30


def json_lines_source(
    files: Sequence[TextFile], label: str, columns: Iterable[str] | None = None
) -> Source:
    """Open JSON Lines files as one source.

    Parameters
    ----------
    files
        The files, in order. A file that is one JSON array of objects is read as well.
    label
        What error messages call the whole.
    columns
        Columns to keep; ``None`` keeps all.

    Returns
    -------
    Source
        The rows.

    Raises
    ------
    FileError
        If a file cannot be read to its end.
    DataError
        If a line is not a JSON object, a name stands there twice, or the files differ in their
        columns.
    """
    wanted = None if columns is None else list(columns)
    reader = _Reader(list(files), label, wanted)
    while True:
        try:
            return reader.attempt()
        except _Again:
            continue


class _Again(Exception):  # noqa: N818 - not an error: reading starts again
    """A column turned out to be text."""


class _Reader:
    """Read files with what is known so far of columns that must be text."""

    def __init__(self, files: list[TextFile], label: str, wanted: list[str] | None) -> None:
        self.files = files
        self.label = label
        self.wanted = wanted
        self.order: dict[str, None] = {}
        self.text: dict[str, None] = {}  # text that must not become times
        self.mixed: dict[str, str] = {}  # column -> note

    def attempt(self) -> Source:
        kinds: dict[str, pa.DataType] = {}
        first: set[str] | None = None
        with Spool(self.label) as spool:
            for file in self.files:
                seen: set[str] = set()
                for block, line in _blocks(file):
                    table = self._parse(block, line, file)
                    seen.update(table.schema.names)
                    plain = self._join(table.schema, kinds)
                    for batch in table.select(plain.names).to_batches():
                        spool.append(conform(batch, plain, self.label))
                if first is None:
                    first = seen
                elif seen and first and seen != first:
                    odd = sorted(seen ^ first)[0]
                    what = "is absent, which" if odd in first else "is new, which"
                    has = "has" if odd in first else "lacks"
                    raise DataError(
                        f"{file.label}: column {odd!r} {what} {self.files[0].label} {has}"
                    )
            names = choose([name for name in self.order if name in kinds], self.wanted, self.label)
            schema = pa.schema([(name, kinds[name]) for name in names])
            return spool.finish(schema, [note for note in self.mixed.values() if note])

    def _join(self, schema: pa.Schema, kinds: dict[str, pa.DataType]) -> pa.Schema:
        """Join a block's types with those so far; return its plain schema."""
        for name in schema.names:
            self.order.setdefault(name)
        chosen = None
        if self.wanted is not None:
            chosen = [name for name in self.wanted if name in schema.names]
        plain, _ = plain_schema(schema, self.label, chosen)
        again = False
        for field in plain:
            before = kinds.get(field.name, pa.null())
            joined = unify(before, field.type)
            if joined is None:
                again = True
                pair = (before, field.type)
                if any(pa.types.is_list(kind) for kind in pair):
                    raise DataError(
                        f"{self.label}: column {field.name!r} mixes lists and single values; "
                        "repair it or leave it out with columns="
                    )
                texts = all(
                    pa.types.is_string(kind) or pa.types.is_timestamp(kind) for kind in pair
                )
                if texts and "." not in field.name:
                    self.text.setdefault(field.name)
                elif texts:
                    self.mixed.setdefault(field.name, "")
                else:
                    self.mixed.setdefault(
                        field.name,
                        f"{self.label}: column {field.name!r} mixes kinds of values and is read as "
                        "text",
                    )
            else:
                kinds[field.name] = joined
        if again:
            raise _Again
        return plain

    def _parse(self, block: bytes, line: int, file: TextFile) -> pa.Table:
        import pyarrow.json as arrow_json

        _check_utf8(block, line, file)
        if self.mixed:
            block = self._rewritten(block, line, file)
        explicit = pa.schema([(name, pa.string()) for name in [*self.text, *self.mixed]])
        options: dict[str, Any] = {}
        if len(explicit):
            options["parse_options"] = arrow_json.ParseOptions(explicit_schema=explicit)
        size = 2**20
        while True:
            try:
                table = arrow_json.read_json(
                    pa.BufferReader(block),
                    read_options=arrow_json.ReadOptions(block_size=size),
                    **options,
                )
                break
            except pa.ArrowInvalid as error:
                if "straddl" in str(error) and size < len(block):
                    size = len(block) + 1
                    continue
                self._diagnose(block, line, file, error)
        refuse_twins(table.schema.names, file.label)
        return flatten_structs(table, file.label)

    def _rewritten(self, block: bytes, line: int, file: TextFile) -> bytes:
        """Write the mixed columns of a block as text."""
        lines = []
        for _, row in _objects(block, line, file):
            for name in self.mixed:
                if name in row:
                    row[name] = as_text(row[name])
                    continue
                outer, _, inner = name.partition(".")
                nested = row.get(outer)
                if inner and isinstance(nested, dict) and inner in nested:
                    row[name] = as_text(nested.pop(inner))
            lines.append(json.dumps(row))
        return "\n".join(lines).encode() + b"\n"

    def _diagnose(self, block: bytes, line: int, file: TextFile, error: pa.ArrowInvalid) -> None:
        """Find out why a block was refused, and learn or say it.

        Raises
        ------
        DataError
            If the file is at fault.
        """
        kinds: dict[str, set[str]] = {}
        for number, row in _objects(block, line, file):
            for name, value in _flat(row, number, file):
                self.order.setdefault(name)
                kind = _kind(value)
                if kind:
                    kinds.setdefault(name, set()).add(kind)
        learned = False
        for name, found in kinds.items():
            if len(found) < 2 or name in self.mixed:
                continue
            what = " and ".join(sorted(found))
            if found & {"lists", "objects"}:
                raise DataError(
                    f"{file.label}: column {name!r} mixes {what}; repair it or leave it out of "
                    "the file"
                ) from error
            self.text.pop(name, None)
            self.mixed[name] = f"{self.label}: column {name!r} mixes {what} and is read as text"
            learned = True
        if learned:
            raise _Again from error
        number, reason = _first_refused(block, line, error)
        raise DataError(
            f"{file.label}: line {number} cannot be read as JSON Lines ({reason})"
        ) from error


def _first_refused(block: bytes, first: int, error: pa.ArrowInvalid) -> tuple[int, str]:
    """Find the first line at which a block cannot be parsed, by halving."""
    import pyarrow.json as arrow_json

    lines = block.split(b"\n")
    good, bad = 0, len(lines)
    while bad - good > 1:
        middle = (good + bad) // 2
        text = b"\n".join(lines[:middle]) + b"\n"
        try:
            arrow_json.read_json(
                pa.BufferReader(text),
                read_options=arrow_json.ReadOptions(block_size=len(text) + 1),
            )
            good = middle
        except pa.ArrowInvalid as found:
            bad, error = middle, found
    reason = str(error).splitlines()[0].removeprefix("JSON parse error: ")
    return first + bad - 1, reason.rsplit(" in row ", 1)[0][:200]


def _kind(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "booleans"
    if isinstance(value, (int, float)):
        return "numbers"
    if isinstance(value, str):
        return "text"
    return "lists" if isinstance(value, list) else "objects"


def _flat(row: dict[str, Any], line: int, file: TextFile) -> Iterator[tuple[str, Any]]:
    for name, value in row.items():
        if not isinstance(value, dict):
            yield name, value
            continue
        yield name, value
        for inner, nested in value.items():
            if isinstance(nested, dict):
                raise DataError(
                    f"{file.label}: column '{name}.{inner}' is nested more than one level deep "
                    f"(line {line}); flatten it first"
                )
            yield f"{name}.{inner}", nested


def _objects(block: bytes, first: int, file: TextFile) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield line numbers and objects of a block, parsed one by one."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        row = dict(pairs)
        if len(row) < len(pairs):
            names = [name for name, _ in pairs]
            twin = next(name for name in names if names.count(name) > 1)
            raise _Twin(twin)
        return row

    for number, line in enumerate(block.split(b"\n"), start=first):
        text = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
        if not text.strip():
            continue
        try:
            row = json.loads(text, object_pairs_hook=once)
        except _Twin as error:
            raise DataError(
                f"{file.label}: line {number} names {error.args[0]!r} twice; "
                "give every column its own name"
            ) from None
        except (ValueError, RecursionError) as error:
            reason = getattr(error, "msg", None) or str(error) or "nested too deeply"
            raise DataError(
                f"{file.label}: line {number} is not a JSON object ({reason}); "
                "JSON Lines hold one object a line"
            ) from error
        if not isinstance(row, dict):
            raise DataError(
                f"{file.label}: line {number} is a JSON {type(row).__name__} and not an object; "
                "JSON Lines hold one object a line"
            )
        yield number, row


class _Twin(Exception):  # noqa: N818 - carries a name out of a hook
    """A key stands twice in one object."""


def _check_utf8(block: bytes, first: int, file: TextFile) -> None:
    offsets = pa.py_buffer(np.array([0, len(block)], dtype=np.int64))
    try:
        pa.LargeStringArray.from_buffers(1, offsets, pa.py_buffer(block)).validate(full=True)
    except pa.ArrowInvalid as error:
        for number, line in enumerate(block.split(b"\n"), start=first):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as bad:
                raise DataError(
                    f"{file.label}: line {number} is not UTF-8 (byte 0x{line[bad.start]:02x}); "
                    "save it as UTF-8"
                ) from error
        raise


def _blocks(file: TextFile) -> Iterator[tuple[bytes, int]]:
    """Yield blocks that end at line ends, with the number of their first line."""
    rest: list[bytes] = []
    line = 1
    try:
        with file.open() as stream:
            head = stream.read(64)
            if head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"[":
                yield from _array_block(file, head, stream)
                return
            while True:
                part = head + stream.read(_BLOCK_BYTES)
                head = b""
                if not part:
                    break
                end = part.rfind(b"\n") + 1
                if not end:
                    rest.append(part)
                    continue
                block = b"".join([*rest, part[:end]])
                rest = [part[end:]] if end < len(part) else []
                if block.strip():
                    yield block, line
                line += block.count(b"\n")
    except OSError as error:
        if isinstance(error, FileError):
            raise
        raise file.damaged(error) from error
    block = b"".join(rest)
    if block.strip():
        yield block, line


def _array_block(file: TextFile, head: bytes, stream: pa.NativeFile) -> Iterator[tuple[bytes, int]]:
    text = head + stream.read(_LARGEST_ARRAY)
    if len(text) > _LARGEST_ARRAY:
        raise DataError(f"{file.label}: a JSON array over 1 GiB; save it as JSON Lines")
    _check_utf8(text, 1, file)
    try:
        rows = json.loads(text.removeprefix(b"\xef\xbb\xbf"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file.label}: not a JSON array of objects ({error})") from error
    if not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{file.label}: the JSON array holds other things than objects")
    if rows:
        yield "\n".join(json.dumps(row) for row in rows).encode() + b"\n", 1
