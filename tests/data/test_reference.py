"""A reference holds what was kept, and reading one that is hostile is one sentence."""

import datetime
import io
import json
import os
import pickle
import zipfile

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpdq._random import row_keys
from dpdq.data import Reference, open_source
from dpdq.errors import DataError, FileError, OptionError

COLUMNS = {
    "whole": pa.array([1, None, -3], pa.int16()),
    "large": pa.array([2**64 - 1, 0, None], pa.uint64()),
    "real": pa.array([0.5, None, float("inf")]),
    "narrow": pa.array([0.1, None, -1.0], pa.float32()),
    "flag": pa.array([True, False, None]),
    "text": pa.array(["", None, "zwölf\n\x00"]),
    "level": pa.array(["b", "a", "b"]).dictionary_encode(),
    "day": pa.array([datetime.date(1900, 1, 1), None, datetime.date(2024, 2, 29)]),
    "time": pa.array([datetime.datetime(1900, 1, 1), None, None], pa.timestamp("ns")),
    "zoned": pa.array([0, 1, None], pa.timestamp("ms", "Europe/Berlin")),
    "vector": pa.array([[1.0, None], None, []]),
    "nothing": pa.nulls(3),
}


@pytest.fixture
def kept(tmp_path):
    source = open_source(pa.table(COLUMNS), side="q")
    kinds = dict.fromkeys(COLUMNS, "numeric")
    Reference.save(tmp_path / "ref.dpdq", source, kinds=kinds, options={"types": {"a": "text"}})
    return tmp_path / "ref.dpdq"


def test_every_type_comes_back(kept):
    source = open_source(kept, side="q")
    want = open_source(pa.table(COLUMNS), side="q")
    assert source.schema == want.schema
    assert source.take(np.arange(3)).equals(want.take(np.arange(3)))
    reference = source.reference
    assert reference.kinds == dict.fromkeys(COLUMNS, "numeric")
    assert reference.options == {"types": {"a": "text"}}
    assert reference.n_rows == source.population_rows == 3
    assert repr(reference) == "<reference: 3 of 3 rows of q, 12 columns>"
    assert repr(source) == "<q (ref.dpdq): 3 rows, 12 columns>"
    assert open_source(kept, side="q", columns=["text"]).schema.names == ["text"]
    assert want.reference is None


def test_the_sample_is_the_smallest_keys(tmp_path):
    n = 150_000
    source = open_source({"row": np.arange(n), "x": np.arange(n) * 0.5}, side="q")
    found = Reference.save(tmp_path / "r.dpdq", source, kinds={"row": "numeric"}, rows=500, seed=7)
    want = np.sort(np.argsort(row_keys(0, n, 7))[:500])
    np.testing.assert_array_equal(found.rows, want)
    loaded = open_source(tmp_path / "r.dpdq", side="q")
    assert loaded.schema.names == ["row"]
    assert loaded.population_rows == n
    np.testing.assert_array_equal(loaded.column("row").to_numpy(), want)
    np.testing.assert_array_equal(loaded.reference.rows, want)
    again = Reference.save(tmp_path / "s.dpdq", loaded, kinds={"row": "numeric"}, rows=100, seed=1)
    assert again.n_rows == n
    assert again.table.num_rows == 100
    Reference.save(tmp_path / "t.dpdq", source, kinds={"row": "numeric"}, rows=500, seed=7)
    assert (tmp_path / "r.dpdq").read_bytes() == (tmp_path / "t.dpdq").read_bytes()


def test_no_rows_and_no_kinds(tmp_path):
    source = open_source(pa.table({"a": pa.array([], pa.string())}), side="q")
    Reference.save(tmp_path / "r.dpdq", source, kinds={})
    loaded = open_source(tmp_path / "r.dpdq", side="q")
    assert loaded.n_rows == 0
    assert loaded.schema == pa.schema([("a", pa.string())])


def test_what_cannot_be_kept(tmp_path):
    source = open_source({"a": [1]}, side="q")
    with pytest.raises(DataError, match="q has no column 'b'"):
        Reference.save(tmp_path / "r.dpdq", source, kinds={"b": "numeric"})
    with pytest.raises(OptionError, match="rows must be at least 1"):
        Reference.save(tmp_path / "r.dpdq", source, kinds={}, rows=0)
    with pytest.raises(OptionError, match="options of a reference must be JSON values"):
        Reference.save(tmp_path / "r.dpdq", source, kinds={}, options={"encoder": len})
    with pytest.raises(FileError, match="does not exist"):
        Reference.save(tmp_path / "gone" / "r.dpdq", source, kinds={})
    assert os.listdir(tmp_path) == []


def rewritten(path, target, change):
    """The same zip with some parts changed."""
    with zipfile.ZipFile(path) as packed:
        parts = {name: packed.read(name) for name in packed.namelist()}
    change(parts)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, data in parts.items():
            packed.writestr(name, data)
    return target


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


class Bomb:
    """Unpickling it makes a file."""

    def __reduce__(self):
        return (open, ("/tmp/dpdq-was-unpickled", "w"))


def pickled(parts):
    buffer = io.BytesIO()
    np.save(buffer, np.array([Bomb()], dtype=object), allow_pickle=True)
    parts["0/values.npy"] = buffer.getvalue()


def head(**changes):
    def change(parts):
        parts["reference.json"] = json.dumps(json.loads(parts["reference.json"]) | changes).encode()

    return change


def part(name, array):
    def change(parts):
        assert name in parts
        parts[name] = npy(array)

    return change


def shape_lies(parts):
    data = parts["2/values.npy"]
    parts["2/values.npy"] = data.replace(b"(3,), }  ", b"(3333333333,), }", 1)[: len(data) + 9]


def without(name):
    return lambda parts: parts.pop(name)


TEXT = list(COLUMNS).index("text")


@pytest.mark.parametrize(
    "change,message",
    [
        (without("reference.json"), "is a zip file, but no reference of dpdq"),
        (head(format="else"), "is a zip file, but no reference of dpdq"),
        (head(format_version=99), "has format version 99 and this dpdq reads 1"),
        (head(rows=4), "is damaged, or no reference of dpdq"),
        (head(rows=-1), "-1 is no count"),
        (head(n_rows=True), "True is no count"),
        (head(n_rows=2), "its row numbers are not sorted"),
        (head(columns=[{"name": "a", "type": "pickle"}]), "is damaged"),
        (head(columns=3), "is damaged"),
        (head(kinds=3), "is damaged"),
        (lambda parts: parts.update({"reference.json": b"[1]"}), "no reference of dpdq"),
        (lambda parts: parts.update({"reference.json": b"\xff"}), "is damaged"),
        (lambda parts: parts.update({"reference.json": b"[" * 100_000}), "is damaged"),
        (without("rows.npy"), "is damaged"),
        (without("0/values.npy"), "is damaged"),
        (part("rows.npy", np.array([2, 1, 0])), "its row numbers are not sorted"),
        (part("0/values.npy", np.zeros(2, np.int16)), "has 2 values where 3 are due"),
        (part("0/values.npy", np.zeros(3, np.int32)), "does not hold what its header says"),
        (part("0/valid.npy", np.zeros(9, np.uint8)), "has 9 values where 1 are due"),
        (part(f"{TEXT}/offsets.npy", np.array([0, 5, 2, 9])), "offsets that are not sorted"),
        (part(f"{TEXT}/offsets.npy", np.array([0, 0, 0, 2**40])), "offsets that are not sorted"),
        (part(f"{TEXT}/offsets.npy", np.array([0, 0, 0, 1000])), "is damaged"),
        (part(f"{TEXT}/values.npy", np.full(8, 0xFF, np.uint8)), "is damaged"),
        (shape_lies, "does not hold what its header says"),
        (pickled, "does not hold what its header says"),
    ],
)
def test_a_changed_reference_is_refused(change, message, kept, tmp_path):
    bad = rewritten(kept, tmp_path / "bad.dpdq", change)
    with pytest.raises(FileError, match=message) as caught:
        open_source(bad, side="q")
    assert "\n" not in str(caught.value)
    assert not os.path.exists("/tmp/dpdq-was-unpickled")


def test_what_is_no_zip_is_refused(kept, tmp_path):
    for data, message in [
        (b"", "ends in .dpdq but is empty"),
        (b"a,b\n1,2\n", "ends in .dpdq but holds text"),
        (pickle.dumps({"a": 1}), "ends in .dpdq but holds"),
        (kept.read_bytes()[:-40], "is damaged, or no reference of dpdq"),
    ]:
        (tmp_path / "x.dpdq").write_bytes(data)
        with pytest.raises(FileError, match=message):
            open_source(tmp_path / "x.dpdq", side="q")
    with pytest.raises(FileError, match="does not exist"):
        Reference.load(tmp_path / "gone.dpdq")


def test_a_flipped_byte_is_refused_or_harmless(kept, tmp_path):
    data = kept.read_bytes()
    want = Reference.load(kept).table
    refused = 0
    for place in range(0, len(data), 37):
        flipped = bytearray(data)
        flipped[place] ^= 0xFF
        (tmp_path / "x.dpdq").write_bytes(flipped)
        try:
            assert Reference.load(tmp_path / "x.dpdq").table.equals(want)
        except FileError as error:
            refused += "is damaged, or no reference" in str(error)
    assert refused > len(data) / 37 / 3


def test_a_zip_that_unpacks_too_far_is_refused(kept, tmp_path, monkeypatch):
    monkeypatch.setattr("dpdq.data.reference._LARGEST", 1000)
    with pytest.raises(FileError, match="unpacks to .* over the limit"):
        Reference.load(kept)


def values_of(kind, strategy):
    return st.tuples(
        st.just(kind), st.lists(st.one_of(st.none(), strategy), min_size=9, max_size=9)
    )


column = st.one_of(
    values_of(pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    values_of(pa.uint8(), st.integers(0, 255)),
    values_of(pa.float64(), st.floats(allow_nan=False)),
    values_of(pa.string(), st.text()),
    values_of(pa.bool_(), st.booleans()),
    values_of(pa.date32(), st.dates()),
    values_of(pa.timestamp("us"), st.datetimes()),
    values_of(pa.list_(pa.float64()), st.lists(st.one_of(st.none(), st.floats(allow_nan=False)))),
)


@given(
    columns=st.dictionaries(st.text(max_size=8), column, min_size=1, max_size=4), cut=st.booleans()
)
@settings(max_examples=40, deadline=None)
def test_any_table_comes_back(columns, cut, tmp_path_factory):
    table = pa.table({name: pa.array(values, kind) for name, (kind, values) in columns.items()})
    if cut:  # offsets that do not begin at zero
        table = table.slice(2, 5)
    path = tmp_path_factory.mktemp("ref") / "r.dpdq"
    Reference.save(path, open_source(table, side="q"), kinds=dict.fromkeys(columns, "text"))
    loaded = open_source(path, side="q")
    assert loaded.take(np.arange(len(table))).equals(table)
