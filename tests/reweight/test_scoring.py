"""Rows never seen are weighted block by block: equal bits everywhere, nothing kept in memory."""

import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dpdq.data import open_source
from dpdq.engine import run
from dpdq.errors import DataError
from dpdq.passes import BLOCK_ROWS
from dpdq.reweight import EntropyBalancing, load, save
from dpdq.reweight.scoring import ScoreRows, SpooledRatios

N = 2 * BLOCK_ROWS + 700


def rows(n, seed, shift=0.0):
    rng = np.random.default_rng(seed)
    return pa.table(
        {
            "age": rng.normal(40 + shift, 10, n),
            "town": rng.choice(["a", "b", "c"], n, p=[0.5, 0.3, 0.2]),
            "other": rng.normal(size=n),
        }
    )


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scoring")
    columns = ["age", "town"]
    q, p = rows(2000, 0).select(columns), rows(1000, 1, 3.0).select(columns)
    weighter = EntropyBalancing().fit(q, p)
    save(weighter, folder / "model.dpdq")
    new = rows(N, 2)
    pq.write_table(new, folder / "new.parquet", row_group_size=30_000)
    return load(folder / "model.dpdq"), folder / "new.parquet", weighter.log_ratio(new)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(
    "engine", ["local", "pool", "shards", pytest.param("ray", marks=pytest.mark.slow)]
)
def test_all_engines_give_the_same_bits(engine, fitted, tmp_path):
    weighter, path, whole = fitted
    options = {"n_jobs": 2} if engine == "pool" else {}
    if engine == "shards":
        options = {"folder": tmp_path, "rank": 0, "world_size": 1}
    if engine == "ray":
        ray = pytest.importorskip("ray", reason="ray is not installed")
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, configure_logging=False)
    try:
        with open_source(path, side="q") as source:
            found = run(ScoreRows(weighter, source.schema.names), source, engine=engine, **options)
    finally:
        if engine == "ray":
            ray.shutdown()
    blocks = list(found.blocks())
    assert [len(each) for each in blocks] == [BLOCK_ROWS, BLOCK_ROWS, 700]
    assert np.array_equal(np.concatenate(blocks), whole)
    assert np.array_equal(np.concatenate(list(found.blocks())), whole)  # and once more
    found.close()


def test_scores_leave_memory():
    spool = SpooledRatios()
    values = np.random.default_rng(0).normal(size=3 * BLOCK_ROWS + 5)
    for part in np.array_split(values, 7):
        spool.append(part)
    assert spool.n_rows == len(values)
    assert os.fstat(spool._file.fileno()).st_size == 8 * len(values)
    assert np.array_equal(np.concatenate(list(spool.blocks())), values)
    spool.append(values[:3])  # reading does not disturb writing
    assert np.array_equal(np.concatenate(list(spool.blocks()))[-3:], values[:3])
    spool.close()


def test_states_join_in_any_grouping(fitted):
    weighter, path, whole = fitted
    scoring = ScoreRows(weighter, ["age", "town"])
    assert list(scoring.finish(scoring.init()).blocks()) == []
    parts = [[whole[:10]], [whole[10:15], whole[15:40]], [whole[40:90]]]
    left = scoring.merge(scoring.merge(*parts[:2]), parts[2])
    right = scoring.merge(parts[0], scoring.merge(*parts[1:]))
    for found in (left, right):
        assert np.array_equal(np.concatenate(list(found.blocks())), whole[:90])


def test_plain_arrays_are_read_by_their_column_numbers(tmp_path):
    rng = np.random.default_rng(0)
    q, p, new = rng.normal(0, 1, (300, 2)), rng.normal(0.3, 1, (200, 2)), rng.normal(0, 1, (50, 3))
    weighter = EntropyBalancing().fit(q, p)
    save(weighter, tmp_path / "model.dpdq")
    np.save(tmp_path / "new.npy", new)
    with open_source(tmp_path / "new.npy", side="q") as source:
        found = run(ScoreRows(load(tmp_path / "model.dpdq"), source.schema.names), source)
    assert np.array_equal(next(found.blocks()), weighter.log_ratio(new[:, :2]))
    found.close()


def test_a_strange_level_far_down_is_found(fitted):
    weighter, _, _ = fitted
    table = rows(BLOCK_ROWS + 10, 3)
    town = table["town"].to_pylist()
    town[BLOCK_ROWS + 4] = "elsewhere"
    table = table.set_column(1, "town", pa.array(town))
    source = open_source(table, side="q")
    with pytest.raises(DataError, match=r"counting rows from row 65,536: .*first row 4"):
        run(ScoreRows(weighter, source.schema.names), source)
    with pytest.raises(DataError, match="no column 'town'"):
        ScoreRows(weighter, ["age"])
