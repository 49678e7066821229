"""q kept as a file: a sample of its rows, to be compared with many batches of p.

A reference is a zip of JSON and ``.npy``; it holds data alone, and reading it executes nothing:

    reference.json             format, versions, rows, columns and their parts, kinds, options
    rows.npy                   numbers of the kept rows in q, int64, sorted
    0/values.npy               values of column 0; of text its UTF-8 bytes, of lists all numbers
    0/offsets.npy              where each text or list begins, int64
    0/valid.npy                one bit a row, absent where nothing is missing
    0/inner_valid.npy          one bit a number of a list, absent where nothing is missing

The kept rows are those with the smallest random keys, and keys belong to row numbers, so that the
same q, size and seed always keep the same rows. The same reference has the same bytes.
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
import zipfile
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from dpdq._random import row_keys
from dpdq.data.frames import TableSource
from dpdq.data.writing import atomic_write, reason_of
from dpdq.errors import DataError, FileError, OptionError

if TYPE_CHECKING:
    from dpdq.data.sources import Source

__all__ = ["FORMAT_VERSION", "Reference"]

FORMAT_VERSION = 1
"""Version of the file format that this dpdq writes and reads."""

_FORMAT = "dpdq.reference"
_LARGEST = 4 * 2**30  # bytes that all parts together may unpack to
_LARGEST_JSON = 64 * 2**20
_NUMBERS = {
    str(kind): kind
    for kind in (
        pa.int8(),
        pa.int16(),
        pa.int32(),
        pa.int64(),
        pa.uint8(),
        pa.uint16(),
        pa.uint32(),
        pa.uint64(),
        pa.float32(),
        pa.float64(),
    )
}


@dataclasses.dataclass(frozen=True, eq=False)
class Reference:
    """A sample of q, how many rows it stands for, and how its columns were understood.

    Notes
    -----
    Cost: `save` reads q once for the kept rows and keeps them in memory.

    Attributes
    ----------
    table
        The kept rows, in row order.
    rows
        Their row numbers in q.
    n_rows
        Number of rows of q.
    kinds
        Column name -> kind.
    options
        Options that the comparison should repeat, as JSON values.
    seed
        Seed of the sample.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from dpdq.data import Reference, open_source
    >>> q = open_source({"age": list(range(1000))}, side="q")
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "ref.dpdq"
    >>> Reference.save(path, q, kinds={"age": "numeric"}, rows=100)
    <reference: 100 of 1,000 rows of q, 1 columns>
    >>> source = open_source(path, side="q")
    >>> source.n_rows, source.population_rows, source.reference.kinds
    (100, 1000, {'age': 'numeric'})
    """

    table: pa.Table
    rows: np.ndarray
    n_rows: int
    kinds: dict[str, str]
    options: dict[str, Any]
    seed: int

    def __repr__(self) -> str:
        return (
            f"<reference: {self.table.num_rows:,} of {self.n_rows:,} rows of q, "
            f"{self.table.num_columns} columns>"
        )

    def source(self, label: str, columns: Iterable[str] | None = None) -> Source:
        """Return the kept rows as a source that knows what it stands for.

        Parameters
        ----------
        label
            What error messages call it.
        columns
            Columns to keep; ``None`` keeps all.

        Returns
        -------
        Source
            With `reference` and `population_rows` set.
        """
        return TableSource(self.table, label, columns, reference=self, population_rows=self.n_rows)

    @classmethod
    def save(
        cls,
        path: str | os.PathLike[str],
        source: Source,
        *,
        kinds: Mapping[str, str],
        options: Mapping[str, Any] | None = None,
        rows: int = 100_000,
        seed: int = 0,
    ) -> Reference:
        """Keep a sample of a source as a file, whole or not at all.

        Parameters
        ----------
        path
            The file, usually with the ending ``.dpdq``.
        source
            The rows of q. Where it is a reference itself, its rows are kept and so is the number
            of rows that they stand for.
        kinds
            Column name -> kind; the columns named are kept, in this order.
        options
            What else a comparison should repeat; JSON values only.
        rows
            Number of rows to keep; all where there are fewer.
        seed
            Seed of the sample.

        Returns
        -------
        Reference
            What was written.

        Raises
        ------
        FileError
            If the file cannot be written.
        DataError
            If a column is absent, or its kept texts exceed 2 GiB.
        OptionError
            If ``rows`` or ``seed`` is negative, or ``options`` are not JSON values.
        """
        if rows < 1 or seed < 0:
            raise OptionError(f"rows must be at least 1 and seed at least 0; got {rows}, {seed}")
        total = source.n_rows
        kept = np.arange(total)
        if total > rows:
            keys = row_keys(0, total, seed)
            # no two rows have the same key, so which rows are kept is certain
            kept = np.sort(np.argpartition(keys, rows - 1)[:rows]).astype(np.int64)
        table = source.take(kept, list(kinds)) if kinds else source.take(kept)
        reference = cls(
            table=table.combine_chunks(),
            rows=kept.astype(np.int64),
            n_rows=source.population_rows,
            kinds=dict(kinds),
            options=dict(options or {}),
            seed=int(seed),
        )
        reference.write(path)
        return reference

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the reference to a file, whole or not at all.

        Parameters
        ----------
        path
            The file.

        Raises
        ------
        FileError
            If the file cannot be written.
        DataError
            If the texts of one column exceed 2 GiB.
        OptionError
            If the options are not JSON values.
        """
        from dpdq import __version__

        parts: dict[str, np.ndarray] = {"rows.npy": self.rows}
        columns = []
        for place, field in enumerate(self.table.schema):
            entry, arrays = _pack(self.table.column(place), field)
            columns.append({**entry, "parts": sorted(arrays)})
            parts.update({f"{place}/{name}.npy": array for name, array in arrays.items()})
        head = {
            "format": _FORMAT,
            "format_version": FORMAT_VERSION,
            "dpdq": __version__,
            "n_rows": self.n_rows,
            "rows": self.table.num_rows,
            "seed": self.seed,
            "columns": columns,
            "kinds": self.kinds,
            "options": self.options,
        }
        try:
            text = json.dumps(head, indent=1, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise OptionError(f"options of a reference must be JSON values ({error})") from error
        with atomic_write(path) as beside, zipfile.ZipFile(beside, "w") as packed:
            _add(packed, "reference.json", text.encode())
            for name, array in parts.items():
                buffer = io.BytesIO()
                np.lib.format.write_array(buffer, np.ascontiguousarray(array), allow_pickle=False)
                _add(packed, name, buffer.getvalue())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Reference:
        """Read a reference.

        Parameters
        ----------
        path
            The file.

        Returns
        -------
        Reference
            What `save` kept.

        Raises
        ------
        FileError
            If the file is missing, damaged, too large, or no reference.
        """
        name = os.path.basename(os.fspath(path))
        try:
            with zipfile.ZipFile(path) as packed:
                if "reference.json" not in packed.namelist():
                    raise FileError(f"{name!r} is a zip file, but no reference of dpdq")
                size = sum(part.file_size for part in packed.infolist())
                if size > _LARGEST:
                    raise FileError(
                        f"{name!r} unpacks to {size / 2**30:.1f} GiB, over the limit of 4 GiB "
                        "of a reference"
                    )
                return _unpacked(cls, packed, name)
        except FileNotFoundError as error:
            raise FileError(f"file {os.fspath(path)!r} does not exist") from error
        except FileError:
            raise
        except OSError as error:
            raise FileError(f"{name!r} cannot be read ({reason_of(error)})") from error
        except Exception as error:  # what is damaged fails in many ways
            text = str(error).splitlines()
            raise FileError(
                f"{name!r} is damaged, or no reference of dpdq "
                f"({text[0][:160] if text else type(error).__name__})"
            ) from error


def _add(packed: zipfile.ZipFile, name: str, data: bytes) -> None:
    entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))  # no clock in the bytes
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    packed.writestr(entry, data, compresslevel=3)


def _bits(flags: np.ndarray) -> np.ndarray:
    return np.packbits(flags, bitorder="little")


def _missing_bits(array: pa.Array) -> np.ndarray | None:
    if not array.null_count:
        return None
    return _bits(np.asarray(array.is_valid()))


def _pack(column: pa.ChunkedArray, field: pa.Field) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    kind = field.type
    entry: dict[str, Any] = {"name": field.name, "type": str(kind)}
    if pa.types.is_timestamp(kind):
        entry = {"name": field.name, "type": "timestamp", "unit": kind.unit, "zone": kind.tz}
    try:
        array = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], kind)
    except pa.ArrowException as error:
        raise DataError(
            f"the kept texts of column {field.name!r} exceed 2 GiB; keep fewer rows"
        ) from error
    arrays: dict[str, np.ndarray] = {}
    valid = _missing_bits(array)
    if valid is not None and not pa.types.is_null(kind):
        arrays["valid"] = valid
    if pa.types.is_null(kind):
        return entry, arrays
    if pa.types.is_string(kind):
        filled = array.fill_null("")
        offsets = _offsets(filled)
        text = np.frombuffer(filled.buffers()[2] or b"", dtype=np.uint8)
        arrays["values"] = text[offsets[0] : offsets[-1]]
        arrays["offsets"] = offsets - offsets[0]
    elif pa.types.is_list(kind):
        entry["type"] = "list"
        lengths = array.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
        flat = array.flatten()  # what stands under a missing list is left out
        arrays["offsets"] = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        inner = _missing_bits(flat)
        if inner is not None:
            arrays["inner_valid"] = inner
        arrays["values"] = flat.fill_null(0.0).to_numpy(zero_copy_only=False)
    elif pa.types.is_boolean(kind):
        arrays["values"] = array.fill_null(False).to_numpy(zero_copy_only=False).astype(np.uint8)
    else:
        stored = array
        if pa.types.is_timestamp(kind):
            stored = array.cast(pa.int64())
        elif pa.types.is_date32(kind):
            stored = array.cast(pa.int32())
        values = stored.fill_null(0).to_numpy(zero_copy_only=False)
        arrays["values"] = values.astype(values.dtype.newbyteorder("<"))
    return entry, arrays


def _offsets(array: pa.StringArray) -> np.ndarray:
    buffer = array.buffers()[1]
    if len(array) == 0 or buffer is None:
        return np.zeros(1, dtype=np.int64)
    offsets = np.frombuffer(buffer, dtype=np.int32)
    return offsets[array.offset : array.offset + len(array) + 1].astype(np.int64)


def _unpacked(cls: type[Reference], packed: zipfile.ZipFile, name: str) -> Reference:
    if packed.getinfo("reference.json").file_size > _LARGEST_JSON:
        raise FileError(f"{name!r} is no reference of dpdq: its description is too large")
    head = json.loads(packed.read("reference.json"))
    if not isinstance(head, dict) or head.get("format") != _FORMAT:
        raise FileError(f"{name!r} is a zip file, but no reference of dpdq")
    version = head.get("format_version")
    if version != FORMAT_VERSION:
        raise FileError(
            f"{name!r} has format version {version!r} and this dpdq reads {FORMAT_VERSION}; "
            "install the dpdq that wrote it, or profile q again"
        )
    count = _count(head["rows"])
    rows = _part(packed, "rows.npy", np.dtype("<i8"), count)
    total = _count(head["n_rows"])
    if total < count or (count and (rows[0] < 0 or np.any(np.diff(rows) <= 0))):
        raise ValueError("its row numbers are not sorted")
    due = {"reference.json", "rows.npy"}
    for place, entry in enumerate(head["columns"]):
        due.update(f"{place}/{part}.npy" for part in entry["parts"])
    if due != set(packed.namelist()):
        raise ValueError("its parts are not those that its description names")
    fields, columns = [], []
    for place, entry in enumerate(head["columns"]):
        array = _unpack(packed, str(place), entry, count)
        array.validate(full=True)
        fields.append(pa.field(str(entry["name"]), array.type))
        columns.append(array)
    kinds = {str(key): str(value) for key, value in dict(head["kinds"]).items()}
    return cls(
        table=pa.Table.from_arrays(columns, schema=pa.schema(fields)),
        rows=rows,
        n_rows=total,
        kinds=kinds,
        options=dict(head["options"]),
        seed=_count(head["seed"]),
    )


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{value!r} is no count")
    return value


def _part(packed: zipfile.ZipFile, name: str, dtype: np.dtype, count: int | None) -> np.ndarray:
    """Read one .npy of one dimension, whose header must agree with what is there."""
    data = packed.read(name)
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    if version != (1, 0):
        raise ValueError(f"{name} has an unknown header")
    shape, _, found = np.lib.format.read_array_header_1_0(stream)
    start = stream.tell()
    if found != dtype or len(shape) != 1 or len(data) - start != shape[0] * dtype.itemsize:
        raise ValueError(f"{name} does not hold what its header says")
    if count is not None and shape[0] != count:
        raise ValueError(f"{name} has {shape[0]} values where {count} are due")
    return np.frombuffer(data, dtype=dtype, offset=start)


def _valid(packed: zipfile.ZipFile, name: str, count: int) -> pa.Buffer | None:
    if name not in packed.namelist():
        return None
    return pa.py_buffer(_part(packed, name, np.dtype("u1"), (count + 7) // 8))


def _unpack(packed: zipfile.ZipFile, place: str, entry: dict[str, Any], count: int) -> pa.Array:
    kind = str(entry["type"])
    if kind == "null":
        return pa.nulls(count)
    valid = _valid(packed, f"{place}/valid.npy", count)
    values = f"{place}/values.npy"
    if kind in ("string", "list"):
        offsets = _part(packed, f"{place}/offsets.npy", np.dtype("<i8"), count + 1)
        if offsets[0] != 0 or np.any(np.diff(offsets) < 0) or offsets[-1] >= 2**31:
            raise ValueError(f"column {entry['name']!r} has offsets that are not sorted")
        last = int(offsets[-1])
        narrow = pa.py_buffer(offsets.astype(np.int32))
        if kind == "string":
            text = pa.py_buffer(_part(packed, values, np.dtype("u1"), last))
            return pa.Array.from_buffers(pa.string(), count, [valid, narrow, text])
        numbers = pa.py_buffer(_part(packed, values, np.dtype("<f8"), last))
        inner_valid = _valid(packed, f"{place}/inner_valid.npy", last)
        inner = pa.Array.from_buffers(pa.float64(), last, [inner_valid, numbers])
        return pa.Array.from_buffers(
            pa.list_(pa.float64()), count, [valid, narrow], children=[inner]
        )
    if kind == "bool":
        flags = _part(packed, values, np.dtype("u1"), count)
        return pa.Array.from_buffers(pa.bool_(), count, [valid, pa.py_buffer(_bits(flags))])
    if kind == "timestamp":
        zone = entry["zone"]
        target: pa.DataType = pa.timestamp(str(entry["unit"]), None if zone is None else str(zone))
        dtype = np.dtype("<i8")
    elif kind == str(pa.date32()):
        target, dtype = pa.date32(), np.dtype("<i4")
    else:
        target = _NUMBERS[kind]
        dtype = np.dtype(target.to_pandas_dtype()).newbyteorder("<")
    stored = pa.py_buffer(_part(packed, values, dtype, count))
    return pa.Array.from_buffers(target, count, [valid, stored])
