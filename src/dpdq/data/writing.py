"""Files that appear whole or not at all.

A file is written beside its target under a hidden name and renamed when it is complete; whatever
goes wrong on the way, a full disk, an interrupt, an error of the writer, leaves neither a half
file nor a changed old one.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dpdq.errors import FileError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["atomic_write", "reason_of", "write_json", "write_table_batches", "write_text"]

_REASONS = {
    errno.ENOSPC: "no space is left on the device",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file would be larger than this system allows",
    errno.EACCES: "permission is denied",
    errno.EPERM: "permission is denied",
    errno.EROFS: "the file system is read-only",
    errno.EISDIR: "it is a folder",
    errno.ENOTDIR: "its folder is not a folder",
    errno.ENOENT: "its folder does not exist",
    errno.ENAMETOOLONG: "its name is too long",
}


def reason_of(error: OSError) -> str:
    """Say in a few words why the operating system refused."""
    number = error.errno
    if number is None:  # pyarrow keeps the number in the text alone
        for known in _REASONS:
            if f"errno {known}]" in str(error).lower():
                number = known
                break
    if number in _REASONS:
        return _REASONS[number]
    if error.strerror:
        return error.strerror.lower()
    text = str(error).strip().splitlines()
    return text[0][:200] if text else type(error).__name__


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a path beside the target to write to, and rename it to the target at the end.

    Parameters
    ----------
    path
        The target. Its folder must exist; an old file is replaced.

    Yields
    ------
    pathlib.Path
        Where to write. If the block raises anything, this file is removed and the target stays
        as it was.

    Raises
    ------
    FileError
        If the file cannot be written.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> target = pathlib.Path(tempfile.mkdtemp()) / "notes.txt"
    >>> with atomic_write(target) as beside:
    ...     _ = beside.write_text("all of it")
    >>> target.read_text()
    'all of it'
    """
    target = Path(path)
    if not target.name:
        raise FileError(f"cannot write {str(path)!r}: it names no file")
    if os.path.isdir(target):
        raise FileError(f"cannot write {str(target)!r}: it is a folder")
    if not os.path.isdir(target.parent):
        raise FileError(
            f"cannot write {str(target)!r}: the folder {str(target.parent)!r} does not exist"
        )
    beside = target.with_name(f".{target.name[:80]}.{secrets.token_hex(6)}.part")
    try:
        yield beside
        os.replace(beside, target)
    except FileError:
        _remove(beside)
        raise
    except OSError as error:
        _remove(beside)
        raise FileError(f"cannot write {str(target)!r}: {reason_of(error)}") from error
    except BaseException:
        _remove(beside)
        raise


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file (UTF-8, lines ending in a newline alone), whole or not at all.

    Parameters
    ----------
    path
        The target.
    text
        What to write.

    Raises
    ------
    FileError
        If the file cannot be written.
    """
    with atomic_write(path) as beside, open(beside, "w", encoding="utf-8", newline="") as file:
        file.write(text)


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write a JSON file, keys in the order given, whole or not at all.

    Parameters
    ----------
    path
        The target.
    value
        Dicts, lists, text, booleans, None and finite numbers; NumPy's count as theirs.

    Raises
    ------
    FileError
        If the file cannot be written.
    ValueError
        If a number is not finite: say null and why instead.
    """
    text = json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False, default=_json_value)
    write_text(path, text + "\n")


def _json_value(value: object) -> object:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not a JSON value")


def write_table_batches(
    path: str | os.PathLike[str], schema: pa.Schema, batches: Iterable[pa.RecordBatch]
) -> int:
    """Write batches as they come to one Parquet file, whole or not at all.

    Notes
    -----
    Cost: memory of one batch.

    Parameters
    ----------
    path
        The target.
    schema
        Schema of every batch.
    batches
        The rows; each batch becomes one row group.

    Returns
    -------
    int
        Number of rows written.

    Raises
    ------
    FileError
        If the file cannot be written.
    """
    import pyarrow.parquet as pq

    rows = 0
    with atomic_write(path) as beside:
        writer = pq.ParquetWriter(beside, schema, compression="zstd")
        try:
            for batch in batches:
                if batch.num_rows:
                    writer.write_batch(batch, row_group_size=batch.num_rows)
                rows += batch.num_rows
            writer.close()
        except BaseException:
            with contextlib.suppress(OSError, ValueError):
                writer.close()
            raise
    return rows
