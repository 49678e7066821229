"""Files are read to the end, whole, in any of their spellings, or refused in one sentence."""

import csv
import datetime
import gzip
import io
import json
import os
import subprocess
import sys
import tempfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpdq.data import delimited, jsonlines, open_source, spool
from dpdq.data.delimited import NULL_SPELLINGS
from dpdq.data.spool import SpooledSource
from dpdq.errors import DataError, DpdqError, FileError


def table_of(path, **options):
    with open_source(path, side="q", **options) as source:
        return pa.Table.from_batches(list(source.batches()), schema=source.schema)


def written(path, data):
    data = data.encode() if isinstance(data, str) else data
    if path.name.endswith(".gz"):
        data = gzip.compress(data, mtime=0)
    elif path.name.endswith((".zst", ".zstd")):
        data = pa.Codec("zstd").compress(data, asbytes=True)
    path.write_bytes(data)
    return path


@pytest.fixture
def streaming(monkeypatch):
    """Read everything block by block and spool it to disk."""
    small_blocks(monkeypatch)


def small_blocks(patch, block=64, spooled=0):
    patch.setattr(delimited, "SPOOL_BYTES", -1)
    patch.setattr(delimited, "_BLOCK_BYTES", block)
    patch.setattr(jsonlines, "_BLOCK_BYTES", block)
    patch.setattr(spool, "SPOOL_BYTES", spooled)


# --- CSV


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.csv.zst", "a.CSV", "a.csv.zstd"])
def test_csv_in_its_spellings(name, tmp_path):
    text = "n,x,day,time,flag,s\n1,0.5,2024-02-29,2024-02-29 12:00:00,true,a\n2,,,,,\n"
    table = table_of(written(tmp_path / name, text))
    assert [str(kind) for kind in table.schema.types] == [
        "int64", "double", "date32[day]", "timestamp[s]", "bool", "string",
    ]  # fmt: skip
    assert table.to_pylist() == [
        {
            "n": 1,
            "x": 0.5,
            "day": datetime.date(2024, 2, 29),
            "time": datetime.datetime(2024, 2, 29, 12),
            "flag": True,
            "s": "a",
        },
        {"n": 2, "x": None, "day": None, "time": None, "flag": None, "s": None},
    ]


def test_every_null_spelling_in_every_column(tmp_path):
    lines = [f'{spelling},{spelling},"{spelling}"' for spelling in NULL_SPELLINGS]
    text = "n,s,t\n1,a,b\n" + "\n".join(lines) + "\n"
    table = table_of(written(tmp_path / "a.csv", text))
    assert table["n"].to_pylist() == [1] + [None] * 6
    assert table["s"].to_pylist() == ["a"] + [None] * 6
    assert table["t"].to_pylist() == ["b"] + [None] * 6


LATE = {
    "text after integers": ("1", "abc", "string", ["1", "abc"]),
    "real after integer": ("1", "1.5", "double", [1.0, 1.5]),
    "zeros kept in text": ("007", "x", "string", ["007", "x"]),
    "time after day": ("2024-01-02", "2024-01-02 03:00:00", "timestamp[s]", None),
    "fraction after time": ("2024-01-02 03:00:00", "2024-01-02 03:00:00.5", "timestamp[ns]", None),
    "text after bool": ("true", "maybe", "string", ["true", "maybe"]),
    "value after nothing": ("", "4", "int64", [None, 4]),
    "text after nothing": ("NA", "z", "string", [None, "z"]),
    "quoted text after reals": ("1.5", '"a ""b"", c\n\'d\'"', "string", ["1.5", "a \"b\", c\n'd'"]),
    "bool after integer": ("1", "true", "string", ["1", "true"]),
    "large after integer": ("1", "99999999999999999999", "double", [1.0, 1e20]),
    "clock": ("12:30", "00:00:01", "double", [45000.0, 1.0]),
}


@pytest.mark.parametrize("case", LATE)
@pytest.mark.parametrize("blockwise", [False, True])
def test_a_late_value_changes_the_type_of_the_whole_column(case, blockwise, tmp_path, monkeypatch):
    first, last, kind, values = LATE[case]
    if blockwise:
        small_blocks(monkeypatch)
    text = "i,v\n" + "".join(f"{i},{first}\n" for i in range(200)) + f"200,{last}\n"
    table = table_of(written(tmp_path / "a.csv", text))
    assert str(table.schema.field("v").type) == kind
    assert table["i"].to_pylist() == list(range(201))
    if values is not None:
        assert table["v"].to_pylist() == [values[0]] * 200 + [values[1]]


words = st.one_of(
    st.sampled_from(
        [
            *NULL_SPELLINGS,
            "1",
            "-7",
            "007",
            "1.5",
            "1e5",
            "nan",
            "inf",
            "true",
            "False",
            "TRUE",
            "0",
        ]
        + ["2024-01-02", "2024-01-02 03:04:05", "2024-01-02T03:04:05.25", "2024-01-02T03:04:05Z"]
        + [
            "12:30",
            "12:30:15",
            " 1",
            "1 ",
            "x",
            "a,b",
            'a"b',
            "a\nb",
            "9" * 20,
            "2500-01-01 00:00:00",
        ]
    ),
    st.text(alphabet="01-:. Tx", max_size=12),
)


@given(cells=st.lists(st.tuples(words, words), min_size=1, max_size=40), block=st.integers(8, 200))
@settings(max_examples=60, deadline=None)
def test_types_do_not_depend_on_blocks(cells, block, tmp_path_factory):
    """Reading at once and reading in tiny blocks agree on types and values, whatever the cells."""
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["i", "a", "b"])
        writer.writerows([i, a, b] for i, (a, b) in enumerate(cells))
    whole = table_of(path)
    with pytest.MonkeyPatch.context() as patch:
        small_blocks(patch, block)
        blockwise = table_of(path)
    assert blockwise.schema == whole.schema
    assert str(blockwise.to_pydict()) == str(whole.to_pydict())  # nan is nan


def test_several_csv_files_are_one(tmp_path):
    written(tmp_path / "b.csv", "v,i\nabc,3\n")
    written(tmp_path / "a.csv", "i,v\n1,007\n2,\n")
    written(tmp_path / "c.csv", "")
    table = table_of(tmp_path)
    assert table.to_pydict() == {"i": [1, 2, 3], "v": ["007", None, "abc"]}
    assert table_of(tmp_path, columns=["v"]).to_pydict() == {"v": ["007", None, "abc"]}
    written(tmp_path / "d.csv", "i,w\n1,2\n")
    with pytest.raises(
        DataError, match=r"q \(d.csv\): column 'v' is absent, which q \(a.csv\) has"
    ):
        open_source(tmp_path, side="q")
    written(tmp_path / "d.csv", "i,v,w\n1,2,3\n")
    with pytest.raises(DataError, match=r"q \(d.csv\): column 'w' is new, which q \(a.csv\) lacks"):
        open_source(str(tmp_path / "*.csv"), side="q")


@pytest.mark.parametrize(
    "text,rows,names",
    [
        ("", 0, []),
        ("\n\n", 0, []),
        ("a,b\n", 0, ["a", "b"]),
        ("a,b", 0, ["a", "b"]),
        ("\n\na,b\n\n1,2\n\n", 1, ["a", "b"]),
        ("\ufeffa,b\r\n1,2\r\n", 1, ["a", "b"]),
        ("a\r1\r2\r", 2, ["a"]),
        ("a;b\n1;2\n", 1, ["a", "b"]),
        ("a\tb\n1\t2", 1, ["a", "b"]),
        ("a,\n1,\n", 1, ["a"]),
        (",a\n0,5\n1,6\n", 2, ["a"]),
        ('"x ""y""","a,b"\n1,2\n', 1, ['x "y"', "a,b"]),
        ('"two\nlines",b\n1,2\n', 1, ["two\nlines", "b"]),
    ],
)
@pytest.mark.parametrize("blockwise", [False, True])
def test_odd_but_good_csv(text, rows, names, blockwise, tmp_path, monkeypatch):
    if blockwise:
        small_blocks(monkeypatch)
    table = table_of(written(tmp_path / "a.csv", text))
    assert table.num_rows == rows
    assert table.column_names == names


def test_what_was_passed_over_is_noted(tmp_path):
    source = open_source(written(tmp_path / "a.csv", ";a;\n0;5;\n"), side="p")
    assert source.notes == [
        "p (a.csv): cells are separated by ';'",
        "p (a.csv): the unnamed first column is left out",
        "p (a.csv): unnamed column 3 is left out",
    ]
    assert table_of(written(tmp_path / "a.tsv", "a,b\tc\n1,2\t3\n")).column_names == ["a,b", "c"]


BAD_CSV = [
    ("a,b\n1,2\n\n3\n", r"line 4 has 1 cells where the header has 2"),
    (
        'a,b\n"x\ny",2\n3,4,5\n',
        r"line 4 has 3 cells where the header has 2; quote",
    ),
    ("a,b,a\n1,2,3\n", r"column 'a' stands twice in the header"),
    (",\n1,2\n", r"the first line names no column"),
    (b"a,b\n1,x\n2,\xe9\n", r"column 'b', line 3 is not UTF-8 \(byte 0xe9\); save it as UTF-8"),
    (b"a,\xe9\n1,2\n", r"line 1 is not UTF-8 \(byte 0xe9 at position 3\); save it as UTF-8"),
    ("a,b\n1,2\n".encode("utf-16"), r"the text is UTF-16; save it as UTF-8"),
    ("a,b\n1,2\n".encode("utf-16-le"), r"line 1 holds zero bytes, .* save it as UTF-8"),
]


@pytest.mark.parametrize("data,message", BAD_CSV)
@pytest.mark.parametrize("blockwise", [False, True])
def test_bad_csv_is_one_sentence(data, message, blockwise, tmp_path, monkeypatch):
    if blockwise:
        small_blocks(monkeypatch)
    written(tmp_path / "a.csv", data)
    with pytest.raises(DataError, match=rf"^q \(a.csv\): {message}") as caught:
        open_source(tmp_path / "a.csv", side="q")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("late", ["x,y\n", b"1,\xff\n"])
def test_a_late_fault_is_found_too(late, tmp_path, streaming):
    good = b"a,b\n" + b"1,2\n" * 500
    late = late.encode() if isinstance(late, str) else late
    written(tmp_path / "a.csv", good + late)
    if late == b"x,y\n":
        assert table_of(tmp_path / "a.csv").schema.types == [pa.string()] * 2
    else:
        with pytest.raises(DataError, match="column 'b', line 502 is not UTF-8"):
            open_source(tmp_path / "a.csv", side="q")


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
def test_a_cell_of_50_megabytes(name, tmp_path):
    cell = b"0123456789" * 5_000_000
    path = written(tmp_path / name, b"i,s\n1,a\n2," + cell + b"\n3,b\n")
    table = table_of(path)
    assert table["i"].to_pylist() == [1, 2, 3]
    lengths = [len(text) for text in table["s"].to_pylist()]
    assert lengths == [1, 50_000_000, 1]


# --- JSON Lines


@pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson", "a.json", "a.jsonl.gz", "a.json.zst"])
@pytest.mark.parametrize("blockwise", [False, True])
def test_json_lines(name, blockwise, tmp_path, monkeypatch):
    if blockwise:
        small_blocks(monkeypatch, 24)
    text = (
        '{"a": 1, "b": {"c": "x", "d": null}, "t": "2024-01-02 03:04:05"}\n\n'
        '{"a": 2.5, "e": [1, 2], "b": {"d": true}}\r\n{"e": [], "f": null}'
    )
    table = table_of(written(tmp_path / name, text))
    assert table.to_pydict() == {
        "a": [1.0, 2.5, None],
        "b.c": ["x", None, None],
        "b.d": [None, True, None],
        "t": [datetime.datetime(2024, 1, 2, 3, 4, 5), None, None],
        "e": [None, [1.0, 2.0], []],
        "f": [None, None, None],
    }
    assert table_of(tmp_path / name, columns=["e", "a"]).column_names == ["e", "a"]


def test_a_json_array_is_read_too(tmp_path):
    text = '\n[{"a": 1},\n {"a": 2, "t": "2024-01-02"}]'
    table = table_of(written(tmp_path / "a.json", text))
    assert table.to_pydict() == {"a": [1, 2], "t": [None, datetime.datetime(2024, 1, 2)]}
    assert table_of(written(tmp_path / "a.json", "[]")).num_rows == 0


MIXED = {
    "number and text": (["1", '"x"', "2.5"], ["1", "x", "2.5"]),
    "number and boolean": (["1", "true", "null"], ["1", "true", None]),
    "text and boolean": (['"2024-01-02"', "false", "null"], ["2024-01-02", "false", None]),
    "times and text": (['"2024-01-02"', '"soon"', "null"], ["2024-01-02", "soon", None]),
}


@pytest.mark.parametrize("case", MIXED)
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("blockwise", [False, True])
def test_mixed_columns_are_text(case, nested, blockwise, tmp_path, monkeypatch):
    if blockwise:
        small_blocks(monkeypatch, 16)
    cells, values = MIXED[case]
    cells = [f'{{"b": {cell}, "z": 1}}' if nested else cell for cell in cells]
    text = "".join(f'{{"i": {i}, "v": {cell}, "w": {i}.5}}\n' for i, cell in enumerate(cells))
    with open_source(written(tmp_path / "a.jsonl", text), side="q") as source:
        name = "v.b" if nested else "v"
        assert source.column(name).to_pylist() == values
        assert source.schema.names == ["i", name, *(["v.z"] if nested else []), "w"]
        assert source.schema.field("w").type == pa.float64()
        assert len(source.notes) == ("times" not in case)
        for note in source.notes:
            assert note.startswith(f"q (a.jsonl): column '{name}' mixes ")
            assert note.endswith("and is read as text")


BAD_JSON = [
    ('{"a": 1}\n{"a": }\n', "line 2 is not a JSON object"),
    ('{"a": 1}\n\n5\n', "line 3 is a JSON int and not an object"),
    ('{"a": 1}\n{"a": 2, "a": 3}\n', "line 2 names 'a' twice"),
    ('{"a": 1}\n{"a": 1e999}\n', "line 2 cannot be read as JSON Lines"),
    (b'{"a": 1}\n{"a": "\xe9"}\n', r"line 2 is not UTF-8 \(byte 0xe9\); save it as UTF-8"),
    ('{"a": {"b": {"c": 1}}}\n', r"column 'a.b' is nested more than one level deep"),
    ('{"a": 1}\n{"a": [1]}\n', "column 'a' mixes lists and "),
    ('{"a": 1}\n{"a": {"b": 1}}\n', "column 'a' "),
    ('{"a": ["x"]}\n', r"column 'a' has type list<item: string>; lists must hold numbers"),
    ('{"a.b": 1, "a": {"b": 1}}\n', "column 'a.b' stands there twice"),
    ("[1, 2]", "the JSON array holds other things than objects"),
    ("[1, 2", "not a JSON array of objects"),
    ("hello\n", "line 1 is not a JSON object"),
]


@pytest.mark.parametrize("data,message", BAD_JSON)
@pytest.mark.parametrize("blockwise", [False, True])
def test_bad_json_is_one_sentence(data, message, blockwise, tmp_path, monkeypatch):
    if blockwise:
        small_blocks(monkeypatch, 8)
    written(tmp_path / "a.jsonl", data)
    with pytest.raises(DataError, match=rf"^q \(a.jsonl\): {message}") as caught:
        open_source(tmp_path / "a.jsonl", side="q")
    assert "\n" not in str(caught.value)


def test_json_with_a_very_long_line(tmp_path):
    text = json.dumps({"i": 1, "s": "x" * 5_000_000}) + '\n{"i": 2, "s": "y"}\n'
    table = table_of(written(tmp_path / "a.jsonl", text))
    assert [len(s) for s in table["s"].to_pylist()] == [5_000_000, 1]


def test_several_json_files(tmp_path):
    written(tmp_path / "a.jsonl", '{"a": 1, "b": "x"}\n')
    written(tmp_path / "b.jsonl", '{"b": "y", "a": 2.5}\n')
    assert table_of(tmp_path).to_pydict() == {"a": [1.0, 2.5], "b": ["x", "y"]}
    written(tmp_path / "c.jsonl", '{"b": "y"}\n')
    with pytest.raises(DataError, match=r"q \(c.jsonl\): column 'a' is absent, which"):
        open_source(tmp_path, side="q")


# --- round trips

ROW = st.fixed_dictionaries(
    {
        "whole": st.one_of(st.none(), st.integers(-(2**53), 2**53)),
        "real": st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False)),
        "flag": st.one_of(st.none(), st.booleans()),
        "text": st.one_of(
            st.none(), st.text(st.characters(exclude_categories=["Cs"])).map(lambda s: "s" + s)
        ),
        "day": st.one_of(st.none(), st.dates()),
    }
)
SCHEMA = pa.schema(
    [
        ("whole", pa.int64()),
        ("real", pa.float64()),
        ("flag", pa.bool_()),
        ("text", pa.string()),
        ("day", pa.date32()),
    ]
)


def as_csv(path, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(SCHEMA.names)
        for row in rows:
            spelled = {**row, "flag": {True: "true", False: "false", None: ""}[row["flag"]]}
            writer.writerow(
                ["" if spelled[name] is None else spelled[name] for name in SCHEMA.names]
            )


def as_json_lines(path, rows):
    rows = [{name: row[name] for name in SCHEMA.names} for row in rows]
    text = "".join(json.dumps(row, default=datetime.date.isoformat) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8")


def as_parquet(path, rows):
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), path, row_group_size=7)


def as_arrow(path, rows):
    with pa.ipc.new_file(path, SCHEMA) as writer:
        writer.write_table(pa.Table.from_pylist(rows, SCHEMA), max_chunksize=5)


WRITERS = {".csv": as_csv, ".jsonl": as_json_lines, ".parquet": as_parquet, ".feather": as_arrow}


@pytest.mark.parametrize("ending", WRITERS)
@given(rows=st.lists(ROW, min_size=1, max_size=25), block=st.sampled_from([None, 50, 300]))
@settings(max_examples=25, deadline=None)
def test_round_trip(ending, rows, block, tmp_path_factory):
    path = tmp_path_factory.mktemp("round") / f"a{ending}"
    WRITERS[ending](path, rows)
    with pytest.MonkeyPatch.context() as patch:
        if block is not None:
            small_blocks(patch, block)
        found = table_of(path)
    assert found.column_names == SCHEMA.names
    for name in SCHEMA.names:
        want = [row[name] for row in rows]
        got = found[name].to_pylist()
        if name == "day" and ending == ".jsonl":
            got = [value.date() if isinstance(value, datetime.datetime) else value for value in got]
        assert got == want, name


@given(
    n=st.integers(0, 30),
    kinds=st.lists(
        st.sampled_from(["i1", ">i4", "u8", "f2", "f4", "f8", "?", "U3", "M8[s]"]), max_size=4
    ),
    seed=st.integers(0, 1000),
)
@settings(max_examples=30, deadline=None)
def test_npz_round_trip(n, kinds, seed, tmp_path_factory):
    path = tmp_path_factory.mktemp("npz") / "a.npz"
    rng = np.random.default_rng(seed)
    whole = rng.integers(0, 100, size=(len(kinds) + 1, n))
    arrays = {f"c{i}": whole[i].astype(kind) for i, kind in enumerate(["i8", *kinds])}
    np.savez(path, **arrays)
    found = table_of(path)
    assert found.column_names == list(arrays)
    for name, array in arrays.items():
        assert found[name].to_pylist() == array.tolist()


# --- NumPy files


def test_numpy_files(tmp_path):
    x = np.arange(12.0).reshape(4, 3)
    np.save(tmp_path / "a.npy", x)
    assert table_of(tmp_path / "a.npy").to_pydict() == {
        "x0": [0, 3, 6, 9], "x1": [1, 4, 7, 10], "x2": [2, 5, 8, 11],
    }  # fmt: skip
    np.save(tmp_path / "b.npy", x[:1])
    source = open_source(tmp_path / "?.npy", side="q")
    assert source.n_rows == 5
    assert source.take(np.array([3, 4]), ["x1"])["x1"].to_pylist() == [10.0, 1.0]
    np.savez(tmp_path / "one.npz", age=np.array([1, 2]))
    assert table_of(tmp_path / "one.npz").to_pydict() == {"age": [1, 2]}
    np.savez_compressed(tmp_path / "two.npz", x=x, y=np.arange(4))
    assert table_of(tmp_path / "two.npz").column_names == ["x0", "x1", "x2", "y"]
    np.savez(tmp_path / "three.npz", u=x, v=x)
    names = ["u.0", "u.1", "u.2", "v.0", "v.1", "v.2"]
    assert table_of(tmp_path / "three.npz").column_names == names
    np.savez(tmp_path / "deep.npz", image=np.zeros((4, 2, 2)), y=np.arange(4))
    with pytest.raises(DataError, match="array 'image' has 3 dimensions"):
        open_source(tmp_path / "deep.npz", side="q")
    assert table_of(tmp_path / "deep.npz", columns=["y"]).to_pydict() == {"y": [0, 1, 2, 3]}
    np.savez(tmp_path / "uneven.npz", a=np.arange(2), b=np.arange(3))
    with pytest.raises(DataError, match="array 'b' has 3 rows where 'a' has 2"):
        open_source(tmp_path / "uneven.npz", side="q")
    np.savez(tmp_path / "none.npz")
    with pytest.raises(FileError, match="ends in .npz but holds no array"):
        open_source(tmp_path / "none.npz", side="q")


class Bomb:
    """Unpickling it makes a file."""

    def __reduce__(self):
        return (open, (os.path.join(tempfile.gettempdir(), "dpdq-was-unpickled"), "w"))


def test_nothing_is_unpickled(tmp_path):
    objects = np.array([Bomb()], dtype=object)
    np.save(tmp_path / "a.npy", objects, allow_pickle=True)
    np.savez(tmp_path / "a.npz", x=objects)
    for name in ("a.npy", "a.npz"):
        with pytest.raises(FileError, match="only a pickle can keep and dpdq never loads"):
            open_source(tmp_path / name, side="q")
    assert not os.path.exists(os.path.join(tempfile.gettempdir(), "dpdq-was-unpickled"))


# --- Parquet and Arrow


def test_parquet_files_must_share_columns(tmp_path):
    pq.write_table(pa.table({"a": [1], "b": ["x"]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"b": ["y"], "a": [2.5]}), tmp_path / "b.parquet")
    assert table_of(tmp_path).to_pydict() == {"a": [1.0, 2.5], "b": ["x", "y"]}
    pq.write_table(pa.table({"a": [1]}), tmp_path / "c.parquet")
    with pytest.raises(DataError, match=r"q \(c.parquet\): column 'b' is absent, which q \(a.p"):
        open_source(tmp_path, side="q")
    pq.write_table(pa.table({"a": ["x"], "b": ["x"]}), tmp_path / "c.parquet")
    with pytest.raises(DataError, match=r"q \(c.parquet\): column 'a' has type string where"):
        open_source(tmp_path, side="q")
    pq.write_table(pa.table({"a": [1], "b": ["x"], "c": [1]}), tmp_path / "c.parquet")
    with pytest.raises(DataError, match=r"q \(c.parquet\): column 'c' is new"):
        open_source(tmp_path, side="q")
    assert table_of(tmp_path, columns=["b"]).num_rows == 3


def few(kind):
    """Two values and a missing one of a type."""
    if kind == pa.null():
        return pa.nulls(3)
    return pa.array([1, 0, None], pa.int32() if kind == pa.date32() else pa.int64()).cast(kind)


@pytest.mark.parametrize(
    "first,second,joined",
    [
        (pa.int8(), pa.int64(), pa.int64()),
        (pa.uint16(), pa.uint8(), pa.uint16()),
        (pa.int8(), pa.uint16(), pa.int32()),
        (pa.uint32(), pa.int32(), pa.int64()),
        (pa.uint64(), pa.int8(), pa.float64()),
        (pa.int64(), pa.uint64(), pa.float64()),
        (pa.float32(), pa.int8(), pa.float64()),
        (pa.float32(), pa.float64(), pa.float64()),
        (pa.null(), pa.string(), pa.string()),
        (pa.bool_(), pa.null(), pa.bool_()),
        (pa.date32(), pa.timestamp("ms"), pa.timestamp("ms")),
        (pa.timestamp("s"), pa.timestamp("us"), pa.timestamp("us")),
        (pa.timestamp("s", "UTC"), pa.timestamp("s"), None),
        (pa.bool_(), pa.int64(), None),
        (pa.string(), pa.float64(), None),
        (pa.date32(), pa.int32(), None),
    ],
    ids=str,
)
def test_types_of_several_files_are_joined(first, second, joined, tmp_path):
    for name, kind in (("a", first), ("b", second)):
        column = few(kind)
        with pa.ipc.new_file(tmp_path / f"{name}.arrow", pa.schema([("v", kind)])) as writer:
            writer.write_table(pa.table({"v": column}))
    if joined is None:
        with pytest.raises(DataError, match=r"q \(b.arrow\): column 'v' has type .* where q \(a"):
            open_source(tmp_path, side="q")
        return
    table = table_of(tmp_path)
    assert table.schema == pa.schema([("v", joined)])
    for part, kind in ((table[:3], first), (table[3:], second)):
        assert part["v"].to_pylist() == few(kind).cast(joined).to_pylist()


def test_a_time_that_the_joined_unit_cannot_hold(tmp_path):
    times = {"a": pa.array([2**40], pa.timestamp("s")), "b": pa.array([1], pa.timestamp("ns"))}
    for name, column in times.items():
        pq.write_table(pa.table({"v": column}), tmp_path / f"{name}.parquet", version="2.6")
    with pytest.raises(DataError, match="column 'v' cannot be read as timestamp"):
        table_of(tmp_path)


def test_parquet_names_with_dots_are_names(tmp_path):
    table = pa.table({"a": [1], "a.b": [2], "e": [[1.0]]})
    pq.write_table(table, tmp_path / "a.parquet")
    assert table_of(tmp_path / "a.parquet", columns=["a"]).to_pydict() == {"a": [1]}
    assert table_of(tmp_path / "a.parquet").to_pydict() == table.to_pydict()


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
def test_stored_text_that_is_not_utf8(name, tmp_path):
    offsets, data = pa.py_buffer(np.array([0, 1, 3], np.int32)), pa.py_buffer(b"a\xff\xfe")
    table = pa.table({"i": [1, 2], "s": pa.StringArray.from_buffers(2, offsets, data)})
    if name == "a.parquet":
        pq.write_table(table, tmp_path / name)
    else:
        with pa.ipc.new_file(tmp_path / name, table.schema) as writer:
            writer.write_table(table)
    with pytest.raises(DataError, match=rf"q \({name}\): column 's' holds text that is not UTF-8"):
        table_of(tmp_path / name)
    assert table_of(tmp_path / name, columns=["i"]).to_pydict() == {"i": [1, 2]}


def test_real_parquet(shared_data):
    with open_source(shared_data / "adult.parquet", side="q") as source:
        assert source.n_rows == 48_842
        assert source.schema.field("workclass").type == pa.string()
        whole = pq.read_table(shared_data / "adult.parquet")
        for name in ("age", "workclass"):
            assert source.column(name).to_pylist() == whole[name].to_pylist()


def test_folders_are_searched_in_the_order_of_names(tmp_path):
    for name, value in [
        ("b/1.pq", 3),
        ("a/2.pq", 2),
        ("a/1.pq", 1),
        ("_tmp/x.pq", 9),
        (".h.pq", 9),
    ]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        pq.write_table(pa.table({"a": [value]}), tmp_path / name)
    (tmp_path / "README.md").write_text("hello")
    with open_source(str(tmp_path) + "/", side="q") as source:
        assert source.column("a").to_pylist() == [1, 2, 3]
        assert source.label == f"q ({tmp_path.name})"
        assert source.notes == [
            f"q ({tmp_path.name}): 1 files of other kinds are passed over, such as 'README.md'"
        ]
    assert table_of(tmp_path / "**" / "[12].pq")["a"].to_pylist() == [1, 2, 3]


# --- what is no such file


def test_missing_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cases = [
        ("x.csv", "q: file 'x.csv' does not exist"),
        ("*.csv", r"q: no file matches '\*.csv'"),
        ("", "q: '' is no file name"),
        ("https://example.org/a.csv", "is an address; dpdq reads local files"),
        ("x" * 300 + ".csv", "does not exist"),
    ]
    (tmp_path / "empty").mkdir()
    cases.append(("empty", "q: folder 'empty' holds no file that dpdq reads"))
    (tmp_path / "link.csv").symlink_to(tmp_path / "gone.csv")
    cases.append(("link.csv", "is a link to a file that does not exist"))
    os.mkfifo(tmp_path / "pipe.csv")
    cases.append(("pipe.csv", "is no regular file"))
    for path, message in cases:
        with pytest.raises(FileError, match=message):
            open_source(path, side="q")


def test_a_literal_name_comes_before_a_pattern(tmp_path):
    written(tmp_path / "a[1].csv", "a\n5\n")
    assert table_of(tmp_path / "a[1].csv").to_pydict() == {"a": [5]}


@pytest.mark.parametrize("name", ["a.xlsx", "a", "a.csv.bz2", "a.parquet.gz", "a.pkl"])
def test_unknown_endings(name, tmp_path):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(FileError, match=r"an ending that dpdq does not know .*it reads .parquet"):
        open_source(tmp_path / name, side="q")


def test_a_folder_of_several_kinds(tmp_path):
    written(tmp_path / "a.csv", "a\n1\n")
    written(tmp_path / "b.jsonl", '{"a": 1}\n')
    with pytest.raises(FileError, match="files of several kinds, such as 'a.csv' and 'b.jsonl'"):
        open_source(tmp_path, side="q")


def parquet_bytes():
    buffer = io.BytesIO()
    pq.write_table(pa.table({"a": np.arange(1000), "s": ["x"] * 1000}), buffer)
    return buffer.getvalue()


CONTRADICTIONS = [
    ("a.parquet", b"a,b\n1,2\n", "ends in .parquet but holds text"),
    ("a.parquet", b"", "ends in .parquet but is empty"),
    ("a.parquet", gzip.compress(b"x", mtime=0), "ends in .parquet but holds gzip data"),
    ("a.csv", parquet_bytes(), "ends in .csv but holds Parquet data"),
    ("a.csv", gzip.compress(b"a\n1\n", mtime=0), "ends in .csv but holds gzip data"),
    ("a.csv", b"PK\x03\x04...", "ends in .csv but holds zip data"),
    ("a.csv", b'{"a": 1}\n', "ends in .csv but holds JSON Lines"),
    ("a.csv.gz", b"a\n1\n", "ends in .csv.gz but holds text"),
    ("a.jsonl.zst", b"\x00\x01", "ends in .jsonl.zst but holds something else"),
    ("a.npz", b"a\n", "ends in .npz but holds text"),
    ("a.npy", b"", "ends in .npy but is empty"),
    ("a.feather", b"FEA1....", "ends in .feather but holds Feather version 1 data"),
    ("a.json", b"\x89HDF\r\n", "ends in .json but holds HDF5 data"),
]


@pytest.mark.parametrize("name,data,message", CONTRADICTIONS)
def test_content_that_contradicts_the_ending(name, data, message, tmp_path):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(FileError, match=message) as caught:
        open_source(tmp_path / name, side="q")
    assert str(caught.value).startswith(f"q ({name}): ")


def damaged_files(folder):
    x = np.random.default_rng(0).normal(size=5000)
    table = pa.table({"a": x, "s": [str(v)[:5] for v in x]})
    table = table.append_column("d", table["s"].dictionary_encode())
    pq.write_table(table, folder / "a.parquet")
    with pa.ipc.new_file(folder / "a.arrow", table.schema) as writer:
        writer.write_table(table)
    np.save(folder / "a.npy", x)
    np.savez_compressed(folder / "a.npz", a=x, b=x)
    text = "a\n" + "\n".join(map(str, x)) + "\n"
    written(folder / "a.csv.gz", text)
    written(folder / "a.csv.zst", text)
    written(folder / "a.jsonl.gz", "".join(f'{{"a": {v}}}\n' for v in x))
    return ["a.parquet", "a.arrow", "a.npy", "a.npz", "a.csv.gz", "a.csv.zst", "a.jsonl.gz"]


def test_files_that_are_cut_short(tmp_path):
    for name in damaged_files(tmp_path):
        data = (tmp_path / name).read_bytes()
        for part in (0.3, 0.9, 0.999):
            (tmp_path / name).write_bytes(data[: int(len(data) * part)])
            with pytest.raises(FileError, match="damaged") as caught:
                table_of(tmp_path / name)
            assert str(caught.value).startswith(f"q ({name}): the file is damaged"), name


def test_files_with_flipped_bytes_never_crash(tmp_path):
    rng = np.random.default_rng(0)
    for name in damaged_files(tmp_path):
        data = (tmp_path / name).read_bytes()
        for _ in range(25):
            bad = bytearray(data)
            bad[int(rng.integers(8, len(bad)))] ^= int(rng.integers(1, 256))
            (tmp_path / name).write_bytes(bad)
            try:
                table_of(tmp_path / name)
            except DpdqError as error:
                assert "\n" not in str(error)  # noqa: PT017 - either way is right


DENIED = """
import os, sys
import dpdq.data.files  # while the interpreter's own files may be read
from dpdq.data import open_source
from dpdq.errors import FileError
os.setuid(65534) if os.geteuid() == 0 else None
for path in sys.argv[1:]:
    try:
        open_source(path, side="q")
    except FileError as error:
        print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="permissions are POSIX")
def test_a_file_that_may_not_be_read():
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        paths = [os.path.join(folder, name) for name in ("a.csv", "a.parquet", "a.jsonl.gz")]
        for path in paths:
            with open(path, "wb"):
                os.chmod(path, 0)
        closed = os.path.join(folder, "closed")
        os.mkdir(closed, 0o000)
        done = subprocess.run(
            [sys.executable, "-c", DENIED, *paths, closed],
            capture_output=True,
            text=True,
            check=True,
        )
        os.chmod(closed, 0o700)
    lines = done.stdout.splitlines()
    assert lines[0] == "q (a.csv): cannot be read (permission is denied)"
    assert [line.split(": ")[1] for line in lines[:3]] == [
        "cannot be read (permission is denied)"
    ] * 3
    assert lines[3] == f"q: {closed!r} cannot be read (permission is denied)"


# --- spooling


def test_large_text_is_spooled_and_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    small_blocks(monkeypatch, block=4096, spooled=10_000)
    rng = np.random.default_rng(0)
    x = rng.normal(size=5000)
    text = "x,s\n" + "".join(f"{v!r},level {i % 7}\n" for i, v in enumerate(x.tolist()))
    source = open_source(written(tmp_path / "a.csv", text), side="q")
    assert isinstance(source, SpooledSource)
    assert len(os.listdir(tmp_path / "tmp")) == 1
    np.testing.assert_array_equal(source.column("x").to_numpy(), x)
    rows = np.array([0, 17, 4000, 4999])
    np.testing.assert_array_equal(source.take(rows)["x"].to_numpy(), x[rows])
    source.close()
    source.close()
    assert os.listdir(tmp_path / "tmp") == []
    with pytest.raises(FileError, match="the temporary copy of the rows is gone"):
        source.column("x")
    source = open_source(tmp_path / "a.csv", side="q")
    assert len(os.listdir(tmp_path / "tmp")) == 1
    del source
    assert os.listdir(tmp_path / "tmp") == []
    written(tmp_path / "bad.csv", text + "1,2,3\n")
    with pytest.raises(DataError, match="line 5002 has 3 cells"):
        open_source(tmp_path / "bad.csv", side="q")
    assert os.listdir(tmp_path / "tmp") == []


def test_spooled_json_takes_new_columns_and_wider_types(tmp_path, streaming):
    lines = [{"a": i} for i in range(50)] + [{"a": i + 0.5, "b": f"t{i}"} for i in range(50)]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    source = open_source(written(tmp_path / "a.jsonl", text), side="q")
    assert isinstance(source, SpooledSource)
    assert source.schema == pa.schema([("a", pa.float64()), ("b", pa.string())])
    assert source.column("b").to_pylist() == [line.get("b") for line in lines]
    assert source.take(np.array([3, 70])).to_pydict() == {"a": [3.0, 20.5], "b": [None, "t20"]}
    source.close()


FULL = """
import resource, sys, os, tempfile
from dpdq.data import open_source, spool, delimited
from dpdq.errors import FileError
tempfile.tempdir = sys.argv[2]
spool.SPOOL_BYTES = 0
delimited.SPOOL_BYTES = -1
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    open_source(sys.argv[1], side="q")
except FileError as error:
    print(error)
print(os.listdir(sys.argv[2]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="file size limits are POSIX")
def test_a_temporary_folder_that_is_full(tmp_path):
    (tmp_path / "tmp").mkdir()
    x = np.random.default_rng(0).normal(size=20_000)
    written(tmp_path / "a.csv", "x\n" + "\n".join(map(str, x)) + "\n")
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path / "a.csv"), str(tmp_path / "tmp")],
        capture_output=True,
        text=True,
        check=True,
    )
    message, left = done.stdout.splitlines()
    assert message.startswith("q (a.csv): the temporary folder ")
    assert message.endswith("; free space there or set TMPDIR")
    assert left == "[]"


def test_spooled_rows_go_when_the_program_ends(tmp_path):
    written(tmp_path / "a.csv", "x\n" + "1\n" * 1000)
    code = (
        "import sys, tempfile; from dpdq.data import open_source, spool, delimited;"
        "tempfile.tempdir = sys.argv[2]; spool.SPOOL_BYTES = 0; delimited.SPOOL_BYTES = -1;"
        "keep = open_source(sys.argv[1], side='q'); import os; print(len(os.listdir(sys.argv[2])))"
    )
    (tmp_path / "tmp").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a.csv"), str(tmp_path / "tmp")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "1\n"
    assert os.listdir(tmp_path / "tmp") == []


# --- memory

GROWTH = """
import sys
from dpdq.data import open_source
def resident():
    with open("/proc/self/status") as file:
        return int(next(line for line in file if line.startswith("VmHWM")).split()[1]) / 1024
import pyarrow.parquet, pyarrow.csv
source = open_source({"a": [1]}, side="q")
list(source.batches())
before = resident()
with open_source(sys.argv[1], side="q") as source:
    rows = sum(batch.num_rows for batch in source.batches())
print(rows, resident() - before)
"""


def growth(path):
    done = subprocess.run(
        [sys.executable, "-c", GROWTH, str(path)], capture_output=True, text=True, check=True
    )
    rows, grown = done.stdout.split()
    return int(rows), float(grown)


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="memory is read from /proc")
@pytest.mark.parametrize("group", [100_000, 2_500_000])
def test_memory_does_not_grow_with_parquet(group, tmp_path):
    rng = np.random.default_rng(0)
    n = 2_500_000
    table = pa.table({f"x{i}": rng.normal(size=n) for i in range(18)})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=group, use_dictionary=False)
    assert os.path.getsize(tmp_path / "a.parquet") > 350e6
    rows, grown = growth(tmp_path / "a.parquet")
    assert rows == n
    assert grown < 200  # MiB


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="memory is read from /proc")
def test_memory_does_not_grow_with_csv(tmp_path):
    rng = np.random.default_rng(0)
    block = "".join(
        ",".join(f"{value:.12f}" for value in row) + "\n" for row in rng.normal(size=(10_000, 10))
    )
    with (tmp_path / "a.csv").open("w") as file:
        file.write(",".join(f"x{i}" for i in range(10)) + "\n")
        for _ in range(200):
            file.write(block)
    assert os.path.getsize(tmp_path / "a.csv") > 250e6
    rows, grown = growth(tmp_path / "a.csv")
    assert rows == 2_000_000
    assert grown < 250  # MiB: 64 of rows that are held, blocks being parsed
