"""Files, folders and globs as sources.

The ending says what a file is, and its first bytes must agree. Files of a folder or a glob are
read as one, in the order of their names, and must have the same columns.

    .parquet .pq                          read in place, row group by row group
    .arrow .feather .ipc                  read in place, batch by batch
    .csv .tsv .jsonl .ndjson .json        parsed once and kept; also with .gz, .zst, .zstd
    .npy .npz                             mapped or loaded, never unpickled
    .dpdq                                 a reference that `dpdq profile` kept
"""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from dpdq.data._plain import choose
from dpdq.data.delimited import TextFile, delimited_source
from dpdq.data.frames import TableSource, array_source, column_array
from dpdq.data.jsonlines import json_lines_source
from dpdq.data.sources import Source
from dpdq.data.stored_files import ArrowFileSource, FoundFile, JoinedSource, ParquetSource
from dpdq.data.writing import reason_of
from dpdq.errors import DataError, FileError

__all__ = ["ENDINGS", "file_source"]

ENDINGS = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
    ".npy": "npy",
    ".npz": "npz",
    ".dpdq": "reference",
}
"""Ending -> kind of file."""

_COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".zstd": "zstd"}
_MAGIC = [
    (b"PAR1", "Parquet"),
    (b"ARROW1", "Arrow IPC"),
    (b"FEA1", "Feather version 1"),
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "Zstandard"),
    (b"PK\x03\x04", "zip"),
    (b"\x93NUMPY", "NumPy array"),
    (b"%PDF", "PDF"),
    (b"SQLite format 3", "SQLite"),
    (b"\x89HDF", "HDF5"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ", "xz"),
    (b"\xff\xfe", "UTF-16 text"),
    (b"\xfe\xff", "UTF-16 text"),
]
_EXPECTED = {
    "parquet": ("Parquet",),
    "arrow": ("Arrow IPC",),
    "npy": ("NumPy array",),
    "npz": ("zip",),
    "reference": ("zip",),
}


def file_source(
    path: str | os.PathLike[str], side: str, columns: Sequence[str] | None = None
) -> Source:
    """Open a file, all files of a folder, or all files that match a pattern.

    Parameters
    ----------
    path
        The file, folder or glob. A folder is searched through; hidden names are passed over.
    side
        What error messages call it.
    columns
        Columns to keep; ``None`` keeps all.

    Returns
    -------
    Source
        The rows.

    Raises
    ------
    FileError
        If a file is missing, unreadable, damaged, or of an unknown kind.
    DataError
        If the columns cannot be used as they are.
    """
    name = os.fspath(path)
    if isinstance(name, bytes):
        name = os.fsdecode(name)
    files, notes = _find(name, side)
    label = f"{side} ({os.path.basename(os.path.normpath(name))})"
    for file in files:
        _check_content(file)
    kind = files[0].kind
    if kind in ("csv", "json"):
        texts = [TextFile(file.path, file.compression, file.label) for file in files]
        if kind == "csv":
            tab = files[0].ending.startswith(".tsv")
            source = delimited_source(texts, label, "\t" if tab else ",", columns)
        else:
            source = json_lines_source(texts, label, columns)
    elif kind == "parquet":
        source = ParquetSource(files, label, columns)
    elif kind == "arrow":
        source = ArrowFileSource(files, label, columns)
    elif kind == "reference":
        if len(files) > 1:
            raise FileError(f"{label}: {len(files)} references; give one")
        from dpdq.data.reference import Reference

        source = Reference.load(files[0].path).source(label, columns)
    else:
        parts = [_array_file(file, columns) for file in files]
        source = parts[0] if len(parts) == 1 else JoinedSource(parts, label)
        source.label = label
    source.notes[:0] = notes
    states = [(file.path, os.stat(file.path)) for file in files]
    source.origin = tuple((os.path.basename(p), s.st_size, s.st_mtime_ns) for p, s in states)
    return source


def _find(name: str, side: str) -> tuple[list[FoundFile], list[str]]:
    if "://" in name:
        raise FileError(
            f"{side}: {name!r} is an address; dpdq reads local files, so fetch it first"
        )
    if "\x00" in name or not name:
        raise FileError(f"{side}: {name!r} is no file name")
    expanded = os.path.expanduser(name)
    notes: list[str] = []
    try:
        if os.path.isdir(expanded):
            paths = _walk(expanded)
            known = [path for path in paths if _kind_of(path) is not None]
            if not known:
                raise FileError(
                    f"{side}: folder {name!r} holds no file that dpdq reads ({_known()})"
                )
            if len(known) < len(paths):
                odd = next(path for path in paths if _kind_of(path) is None)
                notes.append(
                    f"{side} ({os.path.basename(os.path.normpath(name))}): "
                    f"{len(paths) - len(known)} files of other kinds are passed over, "
                    f"such as {os.path.basename(odd)!r}"
                )
            paths = known
        elif os.path.lexists(expanded):
            if not os.path.exists(expanded):
                raise FileError(f"{side}: {name!r} is a link to a file that does not exist")
            if not os.path.isfile(expanded):
                raise FileError(
                    f"{side}: {name!r} is no regular file; save the rows to a file first"
                )
            paths = [expanded]
        elif glob.has_magic(expanded):
            paths = sorted(
                path for path in glob.glob(expanded, recursive=True) if os.path.isfile(path)
            )
            if not paths:
                raise FileError(f"{side}: no file matches {name!r}")
        else:
            raise FileError(f"{side}: file {name!r} does not exist")
    except OSError as error:
        if isinstance(error, FileError):
            raise
        raise FileError(f"{side}: {name!r} cannot be read ({reason_of(error)})") from error
    files = []
    for path in paths:
        found = _kind_of(path)
        base = os.path.basename(path)
        if found is None:
            ending = "".join(Path(base).suffixes[-2:]) or "none"
            raise FileError(
                f"{side}: file {base!r} has an ending that dpdq does not know ({ending}); "
                f"it reads {_known()}"
            )
        files.append(FoundFile(path, *found, f"{side} ({base})"))
    kinds = {file.kind: file for file in files}
    if len(kinds) > 1:
        some = " and ".join(repr(os.path.basename(file.path)) for file in list(kinds.values())[:2])
        raise FileError(
            f"{side}: {name!r} holds files of several kinds, such as {some}; give a glob"
        )
    return files, notes


def _walk(folder: str) -> list[str]:
    def fail(error: OSError) -> None:
        raise error

    paths = []
    for root, folders, names in os.walk(folder, onerror=fail):
        folders[:] = [each for each in folders if not each.startswith((".", "_"))]
        paths += [os.path.join(root, each) for each in names if not each.startswith((".", "_"))]
    return sorted(paths, key=lambda path: Path(path).relative_to(folder).parts)


def _kind_of(path: str) -> tuple[str, str, str | None] | None:
    stem, ending = os.path.splitext(os.path.basename(path).lower())
    compression = _COMPRESSIONS.get(ending)
    if compression is None:
        kind = ENDINGS.get(ending)
        return None if kind is None else (kind, ending, None)
    inner = os.path.splitext(stem)[1]
    kind = ENDINGS.get(inner)
    return (kind, inner + ending, compression) if kind in ("csv", "json") else None


def _known() -> str:
    plain = ", ".join(ENDINGS)
    return f"{plain}, and CSV and JSON Lines with {', '.join(_COMPRESSIONS)}"


def _check_content(file: FoundFile) -> None:
    """Refuse a file whose first bytes contradict its ending."""
    try:
        with open(file.path, "rb") as stream:
            head = stream.read(4096)
    except OSError as error:
        raise FileError(f"{file.label}: cannot be read ({reason_of(error)})") from error
    found = next((what for magic, what in _MAGIC if head.startswith(magic)), None)
    if file.compression is not None:
        expected: tuple[str, ...] = ("gzip",) if file.compression == "gzip" else ("Zstandard",)
    else:
        expected = _EXPECTED.get(file.kind, ())
    if expected:
        if found in expected:
            return
        if not head:
            what = "is empty"
        elif file.kind == "npz" and head.startswith(b"PK\x05\x06"):
            what = "holds no array"
        elif found is not None:
            what = f"holds {found} data"
        else:
            what = "holds text" if _is_text(head) else "holds something else"
        if not head and file.compression is not None:
            return  # an empty file decompresses to nothing
        raise FileError(
            f"{file.label}: the file ends in {file.ending} but {what}; give it its right ending "
            "or save it again"
        )
    if found == "UTF-16 text":
        raise DataError(f"{file.label}: the text is UTF-16; save it as UTF-8")
    if found is not None:
        raise FileError(
            f"{file.label}: the file ends in {file.ending} but holds {found} data; "
            "give it its right ending or save it again"
        )
    if file.kind == "csv" and _is_json_object(head):
        raise FileError(
            f"{file.label}: the file ends in {file.ending} but holds JSON Lines; "
            "rename it to .jsonl"
        )


def _is_text(head: bytes) -> bool:
    return b"\x00" not in head


def _is_json_object(head: bytes) -> bool:
    line = head.split(b"\n", 1)[0].strip()
    if not (line.startswith(b"{") and line.endswith(b"}")):
        return False
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _array_file(file: FoundFile, columns: Sequence[str] | None) -> Source:
    try:
        if file.kind == "npy":
            array = np.load(file.path, mmap_mode="r", allow_pickle=False)
            return array_source(array, file.label, columns)
        with open(file.path, "rb") as opened, np.load(opened, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except DataError:
        raise
    except MemoryError as error:
        raise FileError(f"{file.label}: an array is too large for the memory") from error
    except Exception as error:  # a damaged header fails in many ways
        if any(word in str(error) for word in ("pickle", "Object arrays", "Python objects")):
            raise FileError(
                f"{file.label}: the array holds Python objects, which only a pickle can keep and "
                "dpdq never loads; save it as numbers or text"
            ) from error
        raise file.damaged(error) from error
    return _named_arrays(arrays, file.label, columns)


def _named_arrays(
    arrays: dict[str, np.ndarray], label: str, columns: Sequence[str] | None
) -> Source:
    if not arrays:
        raise FileError(f"{label}: the file holds no array")
    if len(arrays) == 1:
        ((name, array),) = arrays.items()
        return array_source(array, label, columns, name=name)
    matrices = [name for name, array in arrays.items() if array.ndim == 2]
    deep = [name for name, array in arrays.items() if array.ndim not in (1, 2)]
    if columns is not None:
        deep = [name for name in deep if name in columns]
    if deep:
        array = arrays[deep[0]]
        raise DataError(
            f"{label}: array {deep[0]!r} has {array.ndim} dimensions; give one (a column) or two "
            "(flatten images, or load them yourself and pass encoder=), or choose others with "
            "columns="
        )
    notes: list[str] = []
    found: dict[str, Any] = {}
    for name, array in arrays.items():
        if array.ndim == 1:
            found[name] = array
        elif array.ndim == 2:
            prefix = "x" if len(matrices) == 1 else f"{name}."
            for place in range(array.shape[1]):
                key = f"{prefix}{place}"
                if key in found or key in arrays:
                    raise DataError(f"{label}: two arrays give a column {key!r}; rename one")
                found[key] = array[:, place]
    names = choose(list(found), columns, label)
    columns_of = {name: column_array(found[name], name, label, notes) for name in names}
    lengths = {name: len(column) for name, column in columns_of.items()}
    for name, length in lengths.items():
        if length != lengths[names[0]]:
            raise DataError(
                f"{label}: array {name!r} has {length} rows where {names[0]!r} has "
                f"{lengths[names[0]]}; all arrays must have one length"
            )
    return TableSource(pa.table(columns_of), label, notes=notes)
