"""Arrow columns as plain values, whatever their physical form."""

from __future__ import annotations

import datetime as dt
import decimal

import numpy as np
import pyarrow as pa
import pytest

from dpdq.data import _values
from dpdq.errors import DataError


class Celsius(pa.ExtensionType):
    def __init__(self):
        super().__init__(pa.float64(), "test.celsius")

    def __arrow_ext_serialize__(self):
        return b""

    @classmethod
    def __arrow_ext_deserialize__(cls, storage_type, serialized):
        return cls()


def test_numbers_of_every_type():
    def read(values, kind):
        return _values.numbers(pa.array(values, kind)).tolist()

    nan = float("nan")
    for kind in (pa.int8(), pa.uint16(), pa.int64(), pa.uint64(), pa.float32(), pa.float64()):
        assert read([3, 0], kind) == [3.0, 0.0]
        np.testing.assert_equal(read([3, None], kind), [3.0, nan])
    np.testing.assert_equal(read([1.5, None], pa.float16()), [1.5, nan])
    np.testing.assert_equal(read([True, None], pa.bool_()), [1.0, nan])
    np.testing.assert_equal(read([decimal.Decimal("1.25"), None], pa.decimal128(9, 2)), [1.25, nan])
    np.testing.assert_equal(read([" 2 ", "1e3", "", None], pa.string()), [2.0, 1e3, nan, nan])
    np.testing.assert_equal(read([None], pa.null()), [nan])
    assert read([2**64 - 1], pa.uint64()) == [2.0**64]
    for kind in (pa.time32("s"), pa.time32("ms"), pa.time64("us"), pa.time64("ns")):
        assert read([dt.time(1, 0, 5)], kind) == [3605.0]
    for unit in ("s", "ms", "us", "ns"):
        assert read([dt.timedelta(hours=1)], pa.duration(unit)) == [3600.0]


def test_extension_types_are_unwrapped():
    storage = pa.array([1.0, None])
    t = pa.table({"x": pa.ExtensionArray.from_storage(Celsius(), storage)})
    assert _values.type_name(t.schema.field("x").type) == "double"
    assert _values.is_number(t.schema.field("x").type)
    assert _values.column_array(t, "x").equals(storage)
    chunked = pa.concat_tables([t, t])
    assert len(_values.column_array(chunked, "x")) == 4


def test_columns_are_found_by_one_name():
    t = pa.table([[1], [2]], names=["x", "x"])
    with pytest.raises(DataError, match="the table of q has 2 columns named 'x'; expected exactly"):
        _values.column_array(t, "x", "q")
    with pytest.raises(DataError, match="the table has no column named 'y'"):
        _values.column_array(t, "y")


def test_labels_are_the_same_for_the_same_values():
    def read(values, kind=None):
        codes, texts = _values.labels(pa.array(values, kind))
        return [None if c < 0 else texts[int(c)].as_py() for c in codes]

    assert read([2, None, -1]) == ["2", None, "-1"]
    assert read([2.0, float("nan"), 2.5, 1e20, float("inf")]) == ["2", None, "2.5", "1e+20", "inf"]
    assert read([2**53 - 1]) == read([float(2**53 - 1)])
    assert read([True, False, None]) == ["true", "false", None]
    assert read(["a", None], pa.string_view()) == ["a", None]
    assert read([None, None], pa.null()) == [None, None]
    noon = dt.datetime(2024, 1, 5, 12)
    zone = dt.timezone(dt.timedelta(hours=2))
    expected = ["2024-01-05T12:00:00.000000"]
    assert read([noon]) == expected
    assert read([noon.replace(tzinfo=dt.UTC)], pa.timestamp("s", "UTC")) == expected
    moved = noon.replace(tzinfo=dt.UTC).astimezone(zone)
    assert read([moved], pa.timestamp("ns", "+02:00")) == expected
    assert read([noon.date()]) == ["2024-01-05T00:00:00.000000"]
    with_null = pa.DictionaryArray.from_arrays(pa.array([0, 1, None]), pa.array(["a", None]))
    codes, _ = _values.labels(with_null)
    assert codes.tolist() == [0, -1, -1]


def test_instants_before_1970_and_far_away():
    us, ns, missing = _values.instants(pa.array([-1, None], pa.timestamp("ns")))
    assert (us[0], ns[0]) == (-1, 999)
    assert missing.tolist() == [False, True]
    us, _, _ = _values.instants(pa.array(["9999-12-31", "0001-01-01"]))
    assert us[0] > 0 > us[1]
    us, _, missing = _values.instants(pa.nulls(2))
    assert missing.all()


def test_first_bad_value_is_found_by_halving():
    values = ["1"] * 1000
    values[617] = "one"
    values[900] = "two"
    with pytest.raises(DataError, match="'one' at row 617 is not a number"):
        _values.numbers(pa.array(values))
    with pytest.raises(DataError, match=r"'x{37}\.\.\.' at row 0 is not"):
        _values.numbers(pa.array(["x" * 50_000]))


def test_texts():
    assert _values.texts(pa.nulls(2)).null_count == 2
    assert _values.texts(pa.array(["a"]).dictionary_encode()).to_pylist() == ["a"]


def test_type_names():
    assert _values.type_name(pa.dictionary(pa.int8(), pa.large_string())) == "string"
    assert _values.type_name(pa.list_(pa.float32(), 3)) == "list<float>"
    assert _values.type_name(pa.timestamp("us", "UTC")) == "timestamp[us, tz=UTC]"
