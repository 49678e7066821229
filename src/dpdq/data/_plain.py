"""The few plain column types that every input is brought to.

    numbers         integers of any width, float32, float64 (float16 becomes float32; decimals,
                    times of day and durations become float64, the last two in seconds)
    booleans        bool
    text            string (whatever its encoding: large, view, dictionary)
    times           date32, timestamp of any unit and zone (date64 becomes timestamp[ms])
    embeddings      list<double> (any list of numbers)
    nothing at all  null

Every other type is refused by name. The mapping looks at types alone, never at values, so that
all blocks of a column agree.
"""

from __future__ import annotations

import datetime
import decimal
import difflib
import json
import math
import numbers
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dpdq.errors import DataError

__all__ = [
    "as_text",
    "choose",
    "conform",
    "flatten_structs",
    "has_numbers_only",
    "is_scalar",
    "plain_schema",
    "plain_type",
    "refuse_twins",
    "unify",
]

_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def plain_type(kind: pa.DataType) -> pa.DataType | None:
    """Return the plain type that a type becomes, or None where there is none."""
    types = pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return plain_type(kind.storage_type)
    if types.is_dictionary(kind) or types.is_run_end_encoded(kind):
        return plain_type(kind.value_type)
    if types.is_float16(kind):
        return pa.float32()
    if (
        types.is_null(kind)
        or types.is_boolean(kind)
        or types.is_integer(kind)
        or types.is_floating(kind)
        or types.is_date32(kind)
        or types.is_timestamp(kind)
        or types.is_string(kind)
    ):
        return kind
    if types.is_large_string(kind) or types.is_string_view(kind):
        return pa.string()
    if types.is_date64(kind):
        return pa.timestamp("ms")
    if types.is_decimal(kind) or types.is_time(kind) or types.is_duration(kind):
        return pa.float64()
    if _is_list(kind):
        inner = kind.value_type
        if (
            types.is_floating(inner)
            or types.is_integer(inner)
            or types.is_boolean(inner)
            or types.is_decimal(inner)
            or types.is_null(inner)
        ):
            return pa.list_(pa.float64())
    return None


def _is_list(kind: pa.DataType) -> bool:
    types = pa.types
    return (
        types.is_list(kind)
        or types.is_large_list(kind)
        or types.is_fixed_size_list(kind)
        or types.is_list_view(kind)
        or types.is_large_list_view(kind)
    )


def choose(names: Sequence[str], columns: Iterable[str] | None, label: str) -> list[str]:
    """Return the wanted columns in the wanted order, all of them there.

    Raises
    ------
    DataError
        If a wanted column is absent.
    """
    if columns is None:
        return list(names)
    if isinstance(columns, str):
        columns = [columns]
    wanted = list(dict.fromkeys(columns))
    known = set(names)
    for name in wanted:
        if name not in known:
            near = difflib.get_close_matches(str(name), names, n=1)
            has = ", ".join(repr(each) for each in list(names)[:8])
            more = f" and {len(names) - 8} more" if len(names) > 8 else ""
            hint = f"; did you mean {near[0]!r}?" if near else f"; it has {has}{more}"
            raise DataError(f"{label} has no column {name!r}{hint}")
    return wanted


def refuse_twins(names: Iterable[str], label: str, where: str = "") -> None:
    """Refuse two columns of one name.

    Raises
    ------
    DataError
        Naming the column.
    """
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise DataError(
                f"{label}: column {name!r} stands there twice{where}; "
                "give every column its own name"
            )
        seen.add(name)


def plain_schema(
    schema: pa.Schema, label: str, columns: Iterable[str] | None = None
) -> tuple[pa.Schema, list[str]]:
    """Return the plain schema of the wanted columns, and notes on what was left out.

    An index that pandas stored as a column (``__index_level_0__``) is left out unless wanted.

    Raises
    ------
    DataError
        If names stand there twice, or a wanted column has a type that cannot be compared.
    """
    refuse_twins(schema.names, label)
    notes: list[str] = []
    index = _pandas_index(schema) if columns is None else set()
    names = choose(schema.names, columns, label)
    fields = []
    for name in names:
        if name in index:
            notes.append(f"{label}: the pandas index {name!r} is left out")
            continue
        kind = schema.field(name).type
        plain = plain_type(kind)
        if plain is None:
            raise DataError(f"{label}: column {name!r} {_why_not(kind)}")
        fields.append(pa.field(name, plain))
    return pa.schema(fields), notes


def _why_not(kind: pa.DataType) -> str:
    types = pa.types
    if types.is_struct(kind) or types.is_map(kind):
        advice = "flatten it into columns of its own, or leave it out with columns="
    elif types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        advice = "store it as text or numbers, or leave it out with columns="
    elif _is_list(kind):
        advice = "lists must hold numbers (embeddings); join texts into one, or leave it out"
    else:
        advice = "convert it to numbers, text or times, or leave it out with columns="
    shown = str(kind)
    return f"has type {shown if len(shown) < 80 else shown[:77] + '...'}; {advice}"


def _pandas_index(schema: pa.Schema) -> set[str]:
    stored = (schema.metadata or {}).get(b"pandas")
    if not stored:
        return set()
    try:
        index = json.loads(stored).get("index_columns", [])
    except (ValueError, AttributeError):
        return set()
    pattern = re.compile(r"__index_level_\d+__")
    return {name for name in index if isinstance(name, str) and pattern.fullmatch(name)}


def unify(left: pa.DataType, right: pa.DataType) -> pa.DataType | None:
    """Return the smallest plain type that holds both plain types, or None."""
    types = pa.types
    if left.equals(right):
        return left
    if types.is_null(left):
        return right
    if types.is_null(right):
        return left
    if types.is_integer(left) and types.is_integer(right):
        if left.bit_width == right.bit_width == 64:
            return pa.float64()  # int64 with uint64
        if types.is_signed_integer(left) == types.is_signed_integer(right):
            return left if left.bit_width > right.bit_width else right
        wide = max(left.bit_width, right.bit_width)
        if types.is_uint64(left) or types.is_uint64(right):
            return pa.float64()
        return pa.int64() if wide >= 32 else pa.int32()
    if (types.is_integer(left) or types.is_floating(left)) and (
        types.is_integer(right) or types.is_floating(right)
    ):
        return pa.float64()
    if _is_time(left) and _is_time(right):
        zone_left = getattr(left, "tz", None)
        zone_right = getattr(right, "tz", None)
        if zone_left != zone_right:
            return None
        units = [kind.unit for kind in (left, right) if types.is_timestamp(kind)]
        return pa.timestamp(max(units, key=lambda unit: _PER_SECOND[unit]), zone_left)
    return None


def _is_time(kind: pa.DataType) -> bool:
    return pa.types.is_date32(kind) or pa.types.is_timestamp(kind)


def conform(batch: pa.RecordBatch, schema: pa.Schema, label: str) -> pa.RecordBatch:
    """Bring a batch to a plain schema: order, plain types, widened; absent columns are null.

    Raises
    ------
    DataError
        If a value does not fit the column's type.
    """
    if batch.schema.equals(schema):
        return batch
    place = {name: index for index, name in enumerate(batch.schema.names)}
    arrays = []
    for field in schema:
        if field.name not in place:
            arrays.append(pa.nulls(batch.num_rows, field.type))
            continue
        try:
            arrays.append(_plain_array(batch.column(place[field.name]), field.type))
        except (pa.ArrowException, OverflowError) as error:
            raise DataError(
                f"{label}: column {field.name!r} cannot be read as {field.type} "
                f"({_first_line(error)})"
            ) from error
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _first_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return text[0][:200] if text else type(error).__name__


def _plain_array(array: pa.Array, target: pa.DataType) -> pa.Array:
    types = pa.types
    kind = array.type
    if kind.equals(target):
        return array
    if isinstance(kind, pa.BaseExtensionType):
        return _plain_array(array.storage, target)
    if types.is_dictionary(kind):
        return _plain_array(array.dictionary_decode(), target)
    if types.is_run_end_encoded(kind):
        return _plain_array(pc.call_function("run_end_decode", [array]), target)
    if types.is_time(kind) or types.is_duration(kind):
        whole = pc.cast(array, pa.int32() if types.is_time32(kind) else pa.int64())
        seconds = pc.call_function(
            "divide", [pc.cast(whole, pa.float64()), pa.scalar(float(_PER_SECOND[kind.unit]))]
        )
        return _plain_array(seconds, target)
    if types.is_list_view(kind) or types.is_large_list_view(kind):
        return pa.array(array.to_pylist(), target)
    # a number may lose digits beyond 2**53; everything else must fit exactly
    return pc.cast(array, target, safe=not types.is_floating(target) and not _is_list(target))


def flatten_structs(table: pa.Table, label: str) -> pa.Table:
    """Turn each struct column ``a`` into columns ``a.b``, one level deep.

    Raises
    ------
    DataError
        If a struct holds structs, or a name is taken.
    """
    if not any(pa.types.is_struct(field.type) for field in table.schema):
        return table
    names: list[str] = []
    columns: list[pa.ChunkedArray] = []
    for field, column in zip(table.schema, table.columns, strict=True):
        if not pa.types.is_struct(field.type):
            names.append(field.name)
            columns.append(column)
            continue
        parts = [chunk.flatten() for chunk in column.chunks]
        for index, inner in enumerate(field.type):
            name = f"{field.name}.{inner.name}"
            if pa.types.is_struct(inner.type):
                raise DataError(
                    f"{label}: column {name!r} is nested more than one level deep; flatten it first"
                )
            names.append(name)
            columns.append(pa.chunked_array([part[index] for part in parts], inner.type))
    refuse_twins(names, label, " after its nested fields were flattened")
    return pa.table(dict(zip(names, columns, strict=True)))


def is_scalar(value: object) -> bool:
    """Whether a Python value can stand in a column that mixes kinds, as text."""
    return value is None or isinstance(
        value,
        (
            str,
            bool,
            numbers.Real,
            np.generic,
            decimal.Decimal,
            datetime.date,
            datetime.time,
            datetime.timedelta,
        ),
    )


def as_text(value: object) -> str | None:
    """Return a value of a mixed column as text; None and NaN stay missing."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return None if math.isnan(value) else repr(value)
    if isinstance(value, Mapping):
        return json.dumps(value)
    return str(value)


def has_numbers_only(values: Iterable[Any]) -> bool:
    """Whether every value is a real number, a bool or missing."""
    return all(
        value is None or isinstance(value, (numbers.Real, np.bool_, decimal.Decimal))
        for value in values
    )
