"""Arrow columns as plain values: one place that knows the types.

A column arrives in many physical forms: dictionary encoded or not, chunked, ``string`` or
``large_string``, integers that became doubles because one of them was missing. These functions
take a column by its *kind* and return the same values whatever its form. Missing means null or
NaN, everywhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as _compute
import pyarrow.types as pt

from dpdq.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable

# the functions of pyarrow.compute are made when it is imported, where no type checker sees them
pc: Any = _compute

__all__ = [
    "booleans",
    "column_array",
    "decoded",
    "instants",
    "instants_array",
    "instants_parse",
    "is_number",
    "is_number_list",
    "is_text",
    "is_time",
    "labels",
    "numbers",
    "pc",
    "text_values",
    "texts",
    "type_name",
    "value_type",
    "vectors",
]

TRUE_WORDS = ("true", "t", "yes", "y", "1")
FALSE_WORDS = ("false", "f", "no", "n", "0")
_ISO_START = r"^\s*\d{4}-\d{2}-\d{2}([ T]|\s*$)"


def value_type(kind: pa.DataType) -> pa.DataType:
    """Return the type of the values: without dictionary encoding, extension or string width."""
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    if pt.is_dictionary(kind):
        kind = kind.value_type
    if pt.is_string(kind) or pt.is_string_view(kind):
        return pa.large_string()
    return kind


def type_name(kind: pa.DataType) -> str:
    """Name a type as a reader knows it: ``string`` however it is stored."""
    plain = value_type(kind)
    if pt.is_large_string(plain):
        return "string"
    if is_number_list(plain):
        return f"list<{plain.value_type}>"
    return str(plain)


def is_text(kind: pa.DataType) -> bool:
    """Whether the values are strings."""
    return pt.is_large_string(value_type(kind))


def is_number(kind: pa.DataType) -> bool:
    """Whether the values are integers, floats, decimals, times of day or durations."""
    plain = value_type(kind)
    return (
        pt.is_integer(plain)
        or pt.is_floating(plain)
        or pt.is_decimal(plain)
        or pt.is_time(plain)
        or pt.is_duration(plain)
    )


def is_time(kind: pa.DataType) -> bool:
    """Whether the values are dates or timestamps."""
    plain = value_type(kind)
    return pt.is_date(plain) or pt.is_timestamp(plain)


def is_number_list(kind: pa.DataType) -> bool:
    """Whether the values are lists of numbers."""
    plain = value_type(kind)
    if not (pt.is_list(plain) or pt.is_large_list(plain) or pt.is_fixed_size_list(plain)):
        return False
    return pt.is_integer(plain.value_type) or pt.is_floating(plain.value_type)


def column_array(table: pa.Table | pa.RecordBatch, name: str, side: str = "") -> pa.Array:
    """One column as one Arrow array, chunks joined and extension types unwrapped.

    Raises
    ------
    DataError
        If the table has no column of that name, or several.
    """
    found = table.schema.get_all_field_indices(name)
    of_side = f" of {side}" if side else ""
    if len(found) != 1:
        what = "no column" if not found else f"{len(found)} columns"
        raise DataError(f"the table{of_side} has {what} named {name!r}; expected exactly one")
    return _joined(table.column(found[0]))


def _joined(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    if isinstance(column, pa.ChunkedArray):
        if column.num_chunks == 1:
            column = column.chunk(0)
        else:
            kind = column.type
            if pt.is_dictionary(kind):
                column = column.unify_dictionaries()
            elif is_text(kind):
                column = column.cast(pa.large_string())
            column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], kind)
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    return column


def decoded(array: pa.Array) -> pa.Array:
    """Return the array without dictionary encoding."""
    return array.dictionary_decode() if pt.is_dictionary(array.type) else array


def _first_bad(array: pa.Array, works: Callable[[Any], bool]) -> int:
    """Row of the first value for which a conversion fails, by halving."""
    low, high = 0, len(array)  # array[:low] works, array[:high] does not
    while high - low > 1:
        middle = (low + high) // 2
        if works(array.slice(low, middle - low)):
            low = middle
        else:
            high = middle
    return low


def _refuse(
    array: pa.Array, works: Callable[[Any], bool], where: str, wanted: str, rows: np.ndarray | None
) -> None:
    bad = _first_bad(array, works)
    value = array[bad].as_py()
    text = repr(value if not isinstance(value, str) or len(value) <= 40 else value[:37] + "...")
    row = int(rows[bad]) if rows is not None else bad
    raise DataError(f"{where}: {text} at row {row} is not {wanted}")


def text_values(array: pa.Array) -> pa.Array:
    """Strings of an array of strings, decoded, as ``large_string``."""
    array = decoded(array)
    return array if pt.is_large_string(array.type) else array.cast(pa.large_string())


def _parse_numbers(array: pa.Array) -> pa.Array:
    trimmed = pc.utf8_trim_whitespace(array)
    empty = pc.equal(pc.binary_length(trimmed), 0)
    return pc.if_else(empty, pa.scalar(None, pa.large_string()), trimmed).cast(pa.float64())


def _can_parse_numbers(array: pa.Array) -> bool:
    try:
        _parse_numbers(array)
    except pa.ArrowInvalid:
        return False
    return True


def numbers(array: pa.Array, where: str = "column", rows: np.ndarray | None = None) -> np.ndarray:
    """Values as float64 with NaN where missing.

    Times of day and durations count in seconds; strings are parsed, and an empty string is
    missing.

    Raises
    ------
    DataError
        Naming the first value that is not a number. ``rows`` gives the rows' numbers for it.
    """
    kind = value_type(array.type)
    array = decoded(array)
    if is_text(kind):
        array = text_values(array)
        if not _can_parse_numbers(array):
            _refuse(array, _can_parse_numbers, where, "a number", rows)
        array = _parse_numbers(array)
    elif pt.is_time(kind) or pt.is_duration(kind):
        unit = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}[kind.unit]
        whole = pa.int32() if pt.is_time32(kind) else pa.int64()
        return _float64(array.cast(whole)) / unit
    elif not (pt.is_null(kind) or pt.is_boolean(kind) or is_number(kind)):
        raise DataError(f"{where} has type {type_name(kind)}, which holds no numbers")
    return _float64(array)


def _float64(array: pa.Array) -> np.ndarray:
    kind = array.type
    if pt.is_float64(kind) or (pt.is_integer(kind) and not pt.is_uint64(kind)):
        values = array.to_numpy(zero_copy_only=False)
        return values.astype(np.float64, copy=False)
    if pt.is_uint64(kind):
        missing = pc.is_null(array).to_numpy(zero_copy_only=False)
        values = pc.fill_null(array, 0).to_numpy(zero_copy_only=False).astype(np.float64)
        values[missing] = np.nan
        return values
    return array.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)


def _boolean_words(array: pa.Array) -> pa.Array:
    return pc.utf8_lower(pc.utf8_trim_whitespace(array))


def _can_parse_booleans(array: pa.Array) -> bool:
    words = pa.array(TRUE_WORDS + FALSE_WORDS, pa.large_string())
    known = pc.is_in(_boolean_words(array), value_set=words)
    return bool(pc.all(pc.or_(known, pc.is_null(array)), min_count=0).as_py())


def booleans(array: pa.Array, where: str = "column", rows: np.ndarray | None = None) -> np.ndarray:
    """Values as 0.0, 1.0 and NaN where missing.

    Numbers must be 0 or 1; strings must be one of true, t, yes, y, 1, false, f, no, n, 0 in any
    case.

    Raises
    ------
    DataError
        Naming the first value that is neither true nor false.
    """
    array = decoded(array)
    if is_text(array.type):
        array = text_values(array)
        if not _can_parse_booleans(array):
            _refuse(array, _can_parse_booleans, where, "true or false", rows)
        true = pc.is_in(_boolean_words(array), value_set=pa.array(TRUE_WORDS, pa.large_string()))
        out = true.to_numpy(zero_copy_only=False).astype(np.float64)
        out[pc.is_null(array).to_numpy(zero_copy_only=False)] = np.nan
        return out
    out = numbers(array, where)
    wrong = ~((out == 0) | (out == 1) | np.isnan(out))
    if wrong.any():
        bad = int(np.argmax(wrong))
        row = int(rows[bad]) if rows is not None else bad
        raise DataError(f"{where}: {array[bad].as_py()!r} at row {row} is not true or false")
    return out


def _parse_instants(array: pa.Array) -> pa.Array:
    iso = pc.match_substring_regex(array, _ISO_START)
    if not pc.all(iso, min_count=0).as_py():
        raise pa.ArrowInvalid("not an ISO 8601 date")
    trimmed = pc.utf8_trim_whitespace(array)
    for kind in (pa.timestamp("us"), pa.timestamp("us", "UTC"), pa.timestamp("ns")):
        try:
            return trimmed.cast(kind)
        except pa.ArrowInvalid as error:
            problem = error
    raise problem


def instants_parse(array: pa.Array) -> bool:
    """Whether all strings of a ``large_string`` array are ISO 8601 dates or times."""
    try:
        _parse_instants(array)
    except pa.ArrowInvalid:
        return False
    return True


def instants_array(
    array: pa.Array, where: str = "column", rows: np.ndarray | None = None
) -> pa.Array:
    """Dates and timestamps as they are, strings parsed as ISO 8601.

    Raises
    ------
    DataError
        Naming the first value that is not a date.
    """
    array = decoded(array)
    if is_text(array.type):
        array = text_values(array)
        if not instants_parse(array):
            _refuse(array, instants_parse, where, "an ISO 8601 date or time", rows)
        return _parse_instants(array)
    if not (is_time(array.type) or pt.is_null(array.type)):
        raise DataError(f"{where} has type {type_name(array.type)}, which holds no dates")
    return array


def instants(
    array: pa.Array, where: str = "column", rows: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Microseconds since 1970 in UTC, nanoseconds beyond them, and which values are missing.

    A timestamp without a zone is read as UTC; a date is its midnight. Strings must be ISO 8601.

    Raises
    ------
    DataError
        Naming the first value that is not a date.
    """
    array = instants_array(array, where, rows)
    kind = array.type
    missing = pc.is_null(array).to_numpy(zero_copy_only=False)
    if pt.is_null(kind):
        return np.zeros(len(array), np.int64), np.zeros(len(array), np.int64), missing
    if pt.is_date32(kind):
        factor, whole = 86_400_000_000, array.cast(pa.int32()).cast(pa.int64())
    else:
        unit = "ms" if pt.is_date64(kind) else kind.unit
        factor = {"s": 1_000_000, "ms": 1_000, "us": 1, "ns": 0}[unit]
        whole = array.cast(pa.int64())
    ticks = pc.fill_null(whole, 0).to_numpy(zero_copy_only=False)
    if factor:
        return ticks * np.int64(factor), np.zeros(len(array), np.int64), missing
    microseconds, nanoseconds = np.divmod(ticks, 1000)
    return microseconds, nanoseconds, missing


def _number_labels(values: pa.Array) -> pa.Array:
    """Numbers as text, whole numbers without a point: 2.0 and 2 are both ``2``."""
    if pt.is_floating(values.type):
        plain = values.to_numpy(zero_copy_only=False).astype(np.float64)
        whole = np.nan_to_num(plain, nan=0.0, posinf=0.0, neginf=0.0)
        is_whole = (np.trunc(plain) == plain) & (np.abs(whole) < 2.0**53) & np.isfinite(plain)
        integers = pa.array(np.where(is_whole, whole, 0.0).astype(np.int64))
        as_float = pa.array(plain).cast(pa.large_string())
        return pc.if_else(pa.array(is_whole), integers.cast(pa.large_string()), as_float)
    return values.cast(pa.large_string())


def labels(array: pa.Array, where: str = "column") -> tuple[np.ndarray, pa.Array]:
    """Levels of a categorical column: a code per row, -1 where missing, and the levels' texts.

    The same value has the same text whatever its type: 2 and 2.0 are ``2``, true is ``true``, a
    date is ISO 8601. Two codes may share a text.

    Raises
    ------
    DataError
        If the type holds no scalars.
    """
    if not pt.is_dictionary(array.type):
        kind = value_type(array.type)
        if not (
            pt.is_null(kind)
            or pt.is_boolean(kind)
            or is_text(kind)
            or is_number(kind)
            or is_time(kind)
        ):
            raise DataError(f"{where} has type {type_name(kind)}, which holds no categories")
        if pt.is_null(kind):
            return np.full(len(array), -1, np.int64), pa.array([], pa.large_string())
        if is_text(kind) and not (pt.is_string(array.type) or pt.is_large_string(array.type)):
            array = array.cast(pa.large_string())
        array = array.dictionary_encode()
    codes = pc.fill_null(array.indices.cast(pa.int64(), safe=False), -1)
    out = codes.to_numpy(zero_copy_only=False)
    values = array.dictionary
    plain = value_type(values.type)
    if is_text(plain):
        texts_of_levels = values.cast(pa.large_string())
    elif is_time(plain):
        texts_of_levels = values.cast(pa.timestamp("us", getattr(plain, "tz", None)), safe=False)
        if getattr(plain, "tz", None):
            texts_of_levels = texts_of_levels.cast(pa.timestamp("us"))
        texts_of_levels = pc.strftime(texts_of_levels, format="%Y-%m-%dT%H:%M:%S").cast(
            pa.large_string()
        )
    else:
        texts_of_levels = _number_labels(values)
    absent = pc.is_null(values, nan_is_null=True).to_numpy(zero_copy_only=False)
    if absent.any():
        out = np.where(absent[np.maximum(out, 0)], -1, out)
    return out, texts_of_levels


def texts(array: pa.Array, where: str = "column") -> pa.Array:
    """Values as ``large_string``, null where missing.

    Raises
    ------
    DataError
        If the values are not strings.
    """
    if pt.is_null(array.type):
        return array.cast(pa.large_string())
    if not is_text(array.type):
        raise DataError(f"{where} has type {type_name(array.type)}, which holds no text")
    return text_values(array)


def vectors(array: pa.Array, where: str = "column", length: int | None = None) -> np.ndarray:
    """Read lists of numbers as a float64 matrix with rows of NaN where missing.

    Raises
    ------
    DataError
        If the values are no lists of numbers, or their lengths differ.
    """
    if pt.is_null(array.type):
        return np.full((len(array), length or 0), np.nan)
    if not is_number_list(array.type):
        raise DataError(f"{where} has type {type_name(array.type)}, which holds no vectors")
    present = pc.is_valid(array).to_numpy(zero_copy_only=False)
    lengths = pc.list_value_length(array).drop_null().to_numpy(zero_copy_only=False)
    expected = length if length is not None else (int(lengths[0]) if lengths.size else 0)
    wrong = lengths != expected
    if wrong.any():
        bad = int(np.flatnonzero(present)[np.argmax(wrong)])
        raise DataError(
            f"{where} holds vectors of length {expected} and, at row {bad}, of length "
            f"{int(lengths[np.argmax(wrong)])}; all must have one length"
        )
    flat = _float64(pc.list_flatten(array))
    out = np.full((len(array), expected), np.nan)
    out[present] = flat.reshape(lengths.size, expected)
    return out
