"""States on disk: a zip of JSON and ``.npy`` files, never a pickle.

A state may hold None, booleans, numbers, text, bytes, lists, tuples, dictionaries, NumPy arrays
without objects, Arrow tables and record batches, and dataclasses that its pass names in
``state_types``. Everything comes back equal, floats to the last bit.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import zipfile
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from dpdq.data.writing import atomic_write
from dpdq.errors import FileError, InputTypeError

__all__ = ["digest", "load_state", "save_state"]

_STAMP = (1980, 1, 1, 0, 0, 0)  # zip entries carry a time; equal states give equal files


class _Encoder:
    def __init__(self, types: Sequence[type]) -> None:
        self.types = {each.__name__: each for each in types}
        self.arrays: list[np.ndarray] = []

    def array(self, kind: str, array: np.ndarray) -> dict[str, Any]:
        self.arrays.append(array)
        return {"$": kind, "at": len(self.arrays) - 1}

    def encode(self, value: Any, where: str) -> Any:
        if value is None or isinstance(value, (bool, str)):
            return value
        if isinstance(value, np.generic):
            return self.array("scalar", np.asarray(value))
        if isinstance(value, int):
            return {"$": "int", "text": str(value)} if abs(value) >= 2**53 else value
        if isinstance(value, float):
            return {"$": "float", "text": value.hex()}
        if isinstance(value, (bytes, bytearray)):
            return self.array("bytes", np.frombuffer(bytes(value), dtype=np.uint8))
        if isinstance(value, pa.Table | pa.RecordBatch):
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, value.schema) as writer:
                writer.write(value)
            packed = np.frombuffer(sink.getvalue(), dtype=np.uint8)
            return self.array("batch" if isinstance(value, pa.RecordBatch) else "table", packed)
        if isinstance(value, np.ndarray) and not value.dtype.hasobject:  # objects need a pickle
            return self.array("array", value)
        if isinstance(value, (list, tuple)):
            items = [self.encode(item, f"{where}[{i}]") for i, item in enumerate(value)]
            return items if isinstance(value, list) else {"$": "tuple", "items": items}
        if isinstance(value, dict):
            pairs = [
                [self.encode(key, where), self.encode(item, f"{where}[{key!r}]")]
                for key, item in value.items()
            ]
            return {"$": "dict", "items": pairs}
        name = type(value).__name__
        if dataclasses.is_dataclass(value) and self.types.get(name) is type(value):
            fields = {
                field.name: self.encode(getattr(value, field.name), f"{where}.{field.name}")
                for field in dataclasses.fields(value)
            }
            return {"$": "record", "type": name, "fields": fields}
        raise InputTypeError(
            f"{where} is a {type(value).__module__}.{name}, which JSON and .npy cannot keep; "
            "a state holds numbers, text, arrays, Arrow tables, lists, dictionaries and the "
            "dataclasses that the pass names in state_types"
        )


def _decode(value: Any, arrays: Sequence[np.ndarray], types: dict[str, type]) -> Any:
    def inner(item: Any) -> Any:
        return _decode(item, arrays, types)

    if isinstance(value, list):
        return [inner(item) for item in value]
    if not isinstance(value, dict):
        return value
    kind = value["$"]
    if kind == "int":
        return int(value["text"])
    if kind == "float":
        return float.fromhex(value["text"])
    if kind == "tuple":
        return tuple(inner(item) for item in value["items"])
    if kind == "dict":
        return {inner(key): inner(item) for key, item in value["items"]}
    if kind == "record":
        return types[value["type"]](**{key: inner(item) for key, item in value["fields"].items()})
    array = arrays[value["at"]]
    if kind == "array":
        return array
    if kind == "scalar":
        return array[()]
    if kind == "bytes":
        return array.tobytes()
    table = pa.ipc.open_stream(pa.py_buffer(array)).read_all()
    if kind == "table":
        return table
    batches = table.to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema)


def digest(value: Any, types: Sequence[type] = ()) -> str:
    """A fingerprint of a value: equal for equal content, in every process and on every machine.

    Raises
    ------
    InputTypeError
        If the value holds what JSON and ``.npy`` cannot keep.
    """
    encoder = _Encoder(types)
    text = json.dumps(encoder.encode(value, "value"))
    total = hashlib.sha256(text.encode())
    for array in encoder.arrays:
        total.update(f"{array.dtype.str}{array.shape}".encode())
        total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()


def save_state(path: str | os.PathLike[str], state: Any, types: Sequence[type] = ()) -> None:
    """Write a state; the file appears whole or not at all.

    Raises
    ------
    InputTypeError
        If the state holds what JSON and ``.npy`` cannot keep.
    FileError
        If the file cannot be written.
    """
    encoder = _Encoder(types)
    text = json.dumps(encoder.encode(state, "state"))
    with atomic_write(path) as beside, zipfile.ZipFile(beside, "w") as packed:
        packed.writestr(zipfile.ZipInfo("state.json", _STAMP), text)
        for index, array in enumerate(encoder.arrays):
            buffer = io.BytesIO()
            np.save(buffer, array, allow_pickle=False)
            packed.writestr(zipfile.ZipInfo(f"{index}.npy", _STAMP), buffer.getvalue())


def load_state(path: str | os.PathLike[str], types: Sequence[type] = ()) -> Any:
    """Read a state that `save_state` wrote; nothing in it is executed.

    Raises
    ------
    FileError
        If the file is missing or damaged.
    """
    try:
        with zipfile.ZipFile(path) as packed:
            tree = json.loads(packed.read("state.json"))
            count = len(packed.namelist()) - 1
            arrays = [
                np.load(io.BytesIO(packed.read(f"{index}.npy")), allow_pickle=False)
                for index in range(count)
            ]
        return _decode(tree, arrays, {each.__name__: each for each in types})
    except (OSError, zipfile.BadZipFile, KeyError, ValueError, TypeError, IndexError) as error:
        raise FileError(
            f"{os.fspath(path)!r} is no finished part, or is damaged: {error}"
        ) from error
