"""A source reads its rows in fixed blocks, whatever they are stored in."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpdq.data import Source, open_source
from dpdq.data.sources import reading, recut
from dpdq.errors import DataError, FileError, InputTypeError, OptionError
from dpdq.passes import BLOCK_ROWS


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    n = 2 * BLOCK_ROWS + 1234
    return pa.table(
        {
            "row": np.arange(n),
            "x": rng.normal(size=n),
            "level": pa.array(rng.choice(["a", "b", None], n).tolist()).dictionary_encode(),
        }
    )


@pytest.fixture(scope="module")
def stored(table, tmp_path_factory):
    """The same rows in four ways of storing them."""
    folder = tmp_path_factory.mktemp("stored")
    pq.write_table(table, folder / "one.parquet", row_group_size=200_000)
    pq.write_table(table, folder / "many.parquet", row_group_size=7_001)
    (folder / "parts").mkdir()
    for part, start in enumerate(range(0, len(table), 50_000)):
        name = folder / "parts" / f"{part:03}.parquet"
        pq.write_table(table.slice(start, 50_000), name, row_group_size=20_000)
    with pa.ipc.new_file(folder / "rows.arrow", table.schema) as writer:
        writer.write_table(table, max_chunksize=9_999)
    return folder


WAYS = ["memory", "one.parquet", "many.parquet", "parts", "parts/*.parquet", "rows.arrow"]


def opened(way, table, stored, **options):
    return open_source(table if way == "memory" else stored / way, side="q", **options)


@pytest.mark.parametrize("way", WAYS)
def test_blocks_do_not_depend_on_storage(way, table, stored):
    with opened(way, table, stored) as source:
        assert source.n_rows == source.population_rows == len(source) == len(table)
        assert source.reference is None
        assert source.schema == pa.schema(
            [("row", pa.int64()), ("x", pa.float64()), ("level", pa.string())]
        )
        batches = list(source.batches())
    assert [batch.num_rows for batch in batches] == [BLOCK_ROWS, BLOCK_ROWS, 1234]
    plain = table.set_column(2, "level", table["level"].cast(pa.string()))
    assert pa.Table.from_batches(batches).equals(plain)


@pytest.mark.parametrize("way", WAYS)
def test_take_gives_these_rows(way, table, stored):
    rng = np.random.default_rng(1)
    rows = np.sort(rng.choice(len(table), 500))  # with repeats
    with opened(way, table, stored) as source:
        found = source.take(rows, ["x", "row"])
        assert found.column_names == ["x", "row"]
        np.testing.assert_array_equal(found["row"].to_numpy(), rows)
        np.testing.assert_array_equal(found["x"].to_numpy(), table["x"].to_numpy()[rows])
        assert source.take(np.array([], dtype=np.int64)).schema == source.schema
        assert source.take(np.array([len(table) - 1]))["row"].to_pylist() == [len(table) - 1]


@pytest.mark.parametrize("way", WAYS)
def test_one_column(way, table, stored):
    with opened(way, table, stored) as source:
        assert source.column("x").equals(table["x"])
        assert source.column("level").equals(table["level"].cast(pa.string()))
        with pytest.raises(DataError, match=r"has no column 'rwo'; did you mean 'row'\?"):
            source.column("rwo")


@pytest.mark.parametrize("way", WAYS)
def test_columns_are_narrowed_in_the_order_wanted(way, table, stored):
    with opened(way, table, stored, columns=["level", "row"]) as source:
        assert source.schema.names == ["level", "row"]
        assert next(iter(source.batches())).schema == source.schema
    with pytest.raises(DataError, match="has no column 'y'"):
        opened(way, table, stored, columns=["y"])


def test_rows_must_be_sorted_and_there():
    source = open_source({"a": [1, 2, 3]}, side="p")
    for rows, message in [
        ([2, 1], "sorted upwards"),
        ([0, 3], "between 0 and 2; got 0 to 3 for p"),
        ([-1], "between 0 and 2"),
        ([0.5], "one dimension of integers"),
        ([[0]], "one dimension of integers"),
    ]:
        with pytest.raises(OptionError, match=message):
            source.take(np.array(rows))


def test_a_source_is_passed_through_or_narrowed():
    source = open_source({"a": [1], "b": ["x"]}, side="q")
    assert open_source(source, side="p") is source
    narrow = open_source(source, side="q", columns=["b"])
    assert isinstance(narrow, Source)
    assert narrow.schema.names == ["b"]
    assert narrow.take(np.array([0])).to_pylist() == [{"b": "x"}]
    assert narrow.column("b").to_pylist() == ["x"]
    assert repr(narrow) == "<q: 1 rows, 1 columns>"


def test_what_cannot_be_opened():
    with pytest.raises(OptionError, match=r"Unknown side 'r'. Choose one of 'q', 'p'"):
        open_source({"a": [1]}, side="r")
    with pytest.raises(OptionError, match="columns is empty"):
        open_source({"a": [1]}, side="q", columns=[])
    with pytest.raises(InputTypeError, match="q: got bytes; give a path or a table"):
        open_source(b"a,b", side="q")
    with pytest.raises(InputTypeError, match="p: cannot read builtins.int"):
        open_source(5, side="p")
    with pytest.raises(FileError, match=r"q: file 'x.csv' does not exist"):
        open_source("x.csv", side="q")


def test_an_empty_source_has_a_schema_and_no_blocks():
    source = open_source(pa.table({"a": pa.array([], pa.int64())}), side="q")
    assert source.n_rows == 0
    assert list(source.batches()) == []
    assert source.column("a").type == pa.int64()
    assert len(source.column("a")) == 0


@given(
    sizes=st.lists(st.integers(0, 40), max_size=12),
    rows=st.integers(1, 30),
)
@settings(max_examples=60, deadline=None)
def test_recut_keeps_every_row_once(sizes, rows):
    total = sum(sizes)
    schema = pa.schema([("row", pa.int64()), ("text", pa.string())])
    whole = pa.table({"row": np.arange(total), "text": [str(i) for i in range(total)]})
    batches, start = [], 0
    for size in sizes:
        batches += whole.slice(start, size).to_batches() or []
        start += size
    cut = list(recut(batches, schema, "q", rows))
    assert all(batch.num_rows == rows for batch in cut[:-1])
    assert not cut or 0 < cut[-1].num_rows <= rows
    assert pa.Table.from_batches(cut, schema=schema).to_pydict() == whole.to_pydict()


@given(
    n=st.integers(1, 300),
    group=st.integers(1, 120),
    cuts=st.lists(st.integers(0, 300), max_size=3),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=25, deadline=None)
def test_files_and_row_groups_change_nothing(n, group, cuts, seed, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cut")
    rng = np.random.default_rng(seed)
    whole = pa.table({"row": np.arange(n), "x": rng.normal(size=n)})
    edges = sorted({0, n, *(min(cut, n) for cut in cuts)})
    for part, (low, high) in enumerate(zip(edges[:-1], edges[1:], strict=True)):
        pq.write_table(whole.slice(low, high - low), folder / f"{part}.pq", row_group_size=group)
    source = open_source(folder, side="q")
    assert pa.Table.from_batches(list(source.batches())).equals(whole)
    rows = np.flatnonzero(rng.random(n) < 0.3)
    assert source.take(rows).to_pydict() == whole.take(rows).to_pydict()


def test_importing_the_room_loads_no_reader():
    import subprocess
    import sys

    code = (
        "import sys, dpdq.data; dpdq.data.open_source, dpdq.data.Source;"
        "heavy = {'pandas','polars','narwhals','sklearn','scipy','torch','pyarrow.csv',"
        "'pyarrow.json','pyarrow.parquet','pyarrow.dataset'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_reading_closes_only_what_it_opened(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("a\n1\n2\n")
    closed = []
    with reading(path, side="q") as source:
        assert source.n_rows == 2
        source._on_close = lambda: closed.append("own")
    assert closed == ["own"]
    mine = open_source(path, side="q")
    mine._on_close = lambda: closed.append("mine")
    with reading(mine, side="q") as source:
        assert source is mine
    assert closed == ["own"]
