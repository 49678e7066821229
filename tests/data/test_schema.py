"""Kinds of columns, from both sides, and differences between the sides."""

from __future__ import annotations

import datetime as dt
import decimal

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings

from dpdq.data.schema import (
    KINDS,
    ignored_columns,
    infer_columns,
    level_changes,
    schema_difference,
)
from dpdq.errors import DataError, OptionError

SENTENCES = [f"this is sentence number {i} of a longer text" for i in range(10)]
DAY = dt.datetime(2024, 1, 5, 12)


def kind(q, p, types=None):
    found = infer_columns(pa.table({"x": q}), pa.table({"x": p}), types=types)
    return found[0].kind if found else None


@pytest.mark.parametrize(
    "q, p, expected",
    [
        ([1, 2], [3, 4], "numeric"),
        ([1, 2], [0.5, None], "numeric"),
        ([0, 1], [1, 0], "numeric"),
        ([True, None], [False, True], "boolean"),
        ([True, False], [0, 1], "boolean"),
        ([True, False], [0.0, 2.0], "numeric"),
        ([True, False], ["yes", "No"], "boolean"),
        ([True, False], ["maybe", "No"], "categorical"),
        (["1", "2"], ["3", "4"], "categorical"),
        (["1", " 2.5 ", ""], [3, 4], "numeric"),
        (["1", "n/a"], [3, 4], "categorical"),
        (["a", "b"], ["c", None], "categorical"),
        (SENTENCES, SENTENCES[:5], "text"),
        (SENTENCES[:2] * 10, SENTENCES[:2] * 10, "categorical"),
        (
            [s.replace(" ", "") for s in SENTENCES],
            [s.replace(" ", "") for s in SENTENCES],
            "categorical",
        ),
        ([DAY], [DAY], "datetime"),
        ([DAY.date()], [DAY], "datetime"),
        ([DAY], ["2024-02-01"], "datetime"),
        ([DAY], ["soon"], "categorical"),
        (["2024-01-05", None], ["2024-01-05T10:00:00"], "datetime"),
        (["2024-01-05T10:00:00Z"], ["2024-01-05T10:00:00+02:00"], "datetime"),
        (["2024-01-05T10:00:00.123456789"], ["2024-01-05 10:00"], "datetime"),
        (["2024-01-05", "2024-13-05"], ["2024-01-05"], "categorical"),
        (["2024", "2023"], ["2024", "2023"], "categorical"),
        ([[1.0, 2.0], None], [[3, 4]], "embedding"),
        ([None, None], [1, 2], "numeric"),
        ([1, 2], [None, None], "numeric"),
        ([None, None], SENTENCES, "text"),
        ([None], [None], "categorical"),
        ([dt.time(10)], [dt.time(11)], "numeric"),
        ([dt.timedelta(1)], [dt.timedelta(2)], "numeric"),
        ([decimal.Decimal("1.50")], [1], "numeric"),
        ([DAY], [1], None),
        ([[1.0]], ["a"], None),
        ([{"a": 1}], [{"a": 1}], None),
        ([["a"]], [["b"]], None),
    ],
)
def test_rules(q, p, expected):
    assert kind(q, p) == expected
    assert kind(p, q) == expected


def test_encodings_do_not_matter_but_encoded_numbers_are_levels():
    strings = pa.array(SENTENCES)
    assert kind(strings.dictionary_encode(), strings.cast(pa.large_string())) == "text"
    assert kind(strings.cast(pa.string_view()), strings) == "text"
    codes = pa.array([1, 2, 1]).dictionary_encode()
    assert kind(codes, codes) == "categorical"
    assert kind(codes, [1, 2]) == "categorical"


def test_null_strings_beside_numbers_are_numbers():
    assert kind(pa.array([None, None], pa.string()), [1.0, 2.0]) == "numeric"


def test_only_common_columns_in_the_order_of_q():
    q = pa.table({"c": [1], "a": [1], "b": ["x"]})
    p = pa.table({"b": pa.array(["x"]).dictionary_encode(), "z": [1], "c": [1.5]})
    columns = infer_columns(q, p)
    assert [(c.name, c.type_q, c.type_p) for c in columns] == [
        ("c", "int64", "double"),
        ("b", "string", "string"),
    ]


def test_overrides():
    assert kind([1010, 8001], [8001], {"x": "categorical"}) == "categorical"
    assert kind(["1", "2"], ["3", "4"], {"x": "numeric"}) == "numeric"
    assert kind([0, 1], [1, None], {"x": "boolean"}) == "boolean"
    assert kind(["a b", "c"], ["d"], {"x": "text"}) == "text"
    assert kind([DAY], [DAY], {"x": "categorical"}) == "categorical"


@pytest.mark.parametrize(
    "values, wanted, message",
    [
        (
            ["1", "2", "abc", "x"],
            "numeric",
            r"^column 'x' of p: 'abc' at row 2 is not a number; it cannot be numeric$",
        ),
        (["yes", "perhaps"], "boolean", "'perhaps' at row 1 is not true or false"),
        ([0, 1, 2], "boolean", "column 'x' of p: 2 at row 2 is not true or false"),
        (
            ["2024-01-05", "05.01.2024"],
            "datetime",
            "'05.01.2024' at row 1 is not an ISO 8601 date or time",
        ),
        ([1, 2], "datetime", "has type int64, which holds no dates"),
        ([1, 2], "text", "has type int64, which holds no text"),
        ([1, 2], "embedding", "has type int64, which holds no vectors"),
        ([[1.0]], "categorical", "has type list<double>, which holds no categories"),
        ([[1.0]], "numeric", "has type list<double>, which holds no numbers"),
    ],
)
def test_impossible_overrides_name_the_first_bad_value(values, wanted, message):
    good = {
        "numeric": [1],
        "boolean": [True],
        "datetime": [DAY],
        "text": ["a"],
        "embedding": [[1.0]],
        "categorical": ["a"],
    }
    with pytest.raises(DataError, match=message):
        kind(good[wanted], values, {"x": wanted})


def test_row_numbers_of_a_sample_are_those_of_the_file():
    t = pa.table({"x": ["1", "b"]})
    with pytest.raises(DataError, match="of q: 'b' at row 900 is not a number"):
        infer_columns(t, t, types={"x": "numeric"}, rows_q=np.array([3, 900]))


def test_unknown_names_and_kinds():
    q, p = pa.table({"x": [1], "y": [1]}), pa.table({"x": [1]})
    with pytest.raises(OptionError) as error:
        infer_columns(q, p, types={"x": "number"})
    assert str(error.value) == (
        "Unknown kind 'number' for column 'x'. Choose one of " + ", ".join(map(repr, KINDS)) + "."
    )
    with pytest.raises(DataError, match="types names column 'y', which is not in p; columns on "):
        infer_columns(q, p, types={"y": "numeric"})


def test_vectors_must_have_one_length():
    with pytest.raises(DataError, match="of length 2 and, at row 2, of length 1"):
        kind([[1.0, 2.0], None, [1.0]], [[1.0, 2.0]])
    with pytest.raises(DataError, match="length 2 in q and 3 in p"):
        kind([[1.0, 2.0]], [[1.0, 2.0, 3.0]])


def test_duplicate_names_are_refused():
    q = pa.table([[1], [2]], names=["x", "x"])
    with pytest.raises((DataError, KeyError)):
        infer_columns(q, q)


def test_ignored():
    q = pa.table({"a": [DAY], "b": [{"k": 1}], "c": [1]})
    p = pa.table({"a": [1], "b": [{"k": 1}], "c": [1]})
    assert ignored_columns(q, p) == [
        {"name": "a", "reason": "timestamp[us] in q and int64 in p have no common kind"},
        {"name": "b", "reason": "no kind fits type struct<k: int64>"},
    ]
    kept = {c.name for c in infer_columns(q, p)}
    assert kept == {"c"}


def test_real_data(shared_data):
    def kinds(name, types=None):
        table = pq.read_table(shared_data / name)
        return {c.name: c.kind for c in infer_columns(table, table, types=types)}

    adult = kinds("adult.parquet")
    assert sum(k == "numeric" for k in adult.values()) == 6
    assert sum(k == "categorical" for k in adult.values()) == 9
    bike = kinds("bike_hourly.parquet", {"weathersit": "categorical"})
    assert bike["dteday"] == "datetime"
    assert bike["weathersit"] == "categorical"
    assert kinds("sentiment_3domains.parquet")["text"] == "text"
    assert kinds("molecules.parquet")["smiles"] == "categorical"


def test_schema_difference_ignores_storage():
    q = pa.schema(
        [("a", pa.string()), ("b", pa.int64()), ("c", pa.list_(pa.float32())), ("d", pa.int64())]
    )
    p = pa.schema(
        [
            ("e", pa.int64()),
            ("c", pa.large_list(pa.float32())),
            ("a", pa.dictionary(pa.int8(), pa.large_string())),
            ("b", pa.float64()),
        ]
    )
    assert schema_difference(q, p) == {
        "only_q": ["d"],
        "only_p": ["e"],
        "changed_types": [{"name": "b", "type_q": "int64", "type_p": "double"}],
    }


def test_level_changes():
    q = {"a": 5, "b": 3, "gone": 2, "also": 2, "never": 0}
    p = {"a": 1, "b": 0, "new": 3}
    changes = level_changes(q, p, limit=2)
    assert changes["new"] == {"levels": ["new"], "n_levels": 1, "share_p": 0.75}
    assert changes["vanished"]["levels"] == ["b", "also"]
    assert changes["vanished"]["n_levels"] == 3
    assert changes["vanished"]["share_q"] == 7 / 12
    assert level_changes({"a": 1}, {"a": 2}) == {"new": None, "vanished": None}
    assert level_changes({}, {})["new"] is None


values = st.one_of(
    st.lists(st.one_of(st.none(), st.integers(-5, 5)), max_size=5),
    st.lists(st.one_of(st.none(), st.floats(-5, 5)), max_size=5),
    st.lists(st.one_of(st.none(), st.booleans()), max_size=5),
    st.lists(
        st.one_of(st.none(), st.sampled_from(["1", "x", "true", "2024-01-05", "a b"])), max_size=5
    ),
    st.lists(st.one_of(st.none(), st.datetimes(dt.datetime(1970, 1, 1))), max_size=5),
)


@given(values, values)
@settings(max_examples=100, deadline=None)
def test_kinds_are_symmetric(q, p):
    assert kind(q, p) == kind(p, q)
