"""Four engines, one answer; and what happens when workers die."""

import multiprocessing
import os
import pickle
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.engine.jobs import DiesOnce, Fails, Slow, Sums

from dpdq.data import open_source
from dpdq.engine import Engine, run
from dpdq.engine.part_folder import PartFolder
from dpdq.engine.plan import MAX_PARTS, Plan
from dpdq.errors import DataError, FileError, OptionError, WorkerError
from dpdq.passes import BLOCK_ROWS, Pass

N = 5 * BLOCK_ROWS + 17


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rows")
    x = np.random.default_rng(0).standard_cauchy(N)
    table = pa.table({"x0": x, "text": [f"row {i}" for i in range(N)]})
    pq.write_table(table, folder / "small.parquet", row_group_size=30_000)
    pq.write_table(table, folder / "large.parquet", row_group_size=2 * BLOCK_ROWS + 5)
    np.save(folder / "rows.npy", x[:, None])
    return folder


@pytest.fixture(scope="module")
def whole(files):
    with open_source(files / "small.parquet", side="q") as source:
        return run(Sums(), source)


@pytest.fixture(scope="module")
def cluster():
    ray = pytest.importorskip("ray", reason="ray is not installed")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    yield ray
    ray.shutdown()


def options(engine, folder):
    if engine == "shards":
        return {"folder": folder, "rank": 0, "world_size": 2}
    return {"n_jobs": 2} if engine == "pool" else {}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("engine", ["local", "pool", "shards", "ray"])
@pytest.mark.parametrize("file", ["small.parquet", "large.parquet", "rows.npy"])
def test_all_engines_give_the_same_bits(engine, file, files, whole, tmp_path, request):
    if engine == "ray":
        request.getfixturevalue("cluster")
    seen = []
    with open_source(files / file, side="q") as source:
        found = run(Sums(), source, engine=engine, progress=seen.append,
                    **options(engine, tmp_path))  # fmt: skip
    assert found == whole
    assert found[1] == list(range(0, N, BLOCK_ROWS))
    assert seen == sorted(seen)
    assert seen[-1] == N


def test_parts_do_not_depend_on_how_rows_are_stored():
    x = np.zeros((300 * BLOCK_ROWS, 1), dtype=np.int8)
    plan = Plan.of(open_source(x, side="q"))
    assert plan.part_blocks == 3
    assert plan.tasks[-1][1] <= MAX_PARTS
    assert sum(plan.rows(task) for task in range(len(plan.tasks))) == len(x)


def test_no_rows():
    empty = open_source(pa.table({"x0": pa.array([], pa.float64())}), side="q")
    for engine in ("local", "pool"):
        assert run(Sums(), empty, engine=engine) == (0.0, [], 0)


@pytest.mark.parametrize("row", [0, 2 * BLOCK_ROWS, N - 1])
def test_a_killed_pool_worker_is_replaced(row, files, whole, tmp_path):
    with open_source(files / "small.parquet", side="q") as source:
        job = DiesOnce(tmp_path, row)
        assert run(job, source, engine="pool", n_jobs=2) == whole
    assert (tmp_path / "0").exists(), "no worker was killed"


def test_a_part_that_kills_every_worker_is_told(files, tmp_path):
    with (
        open_source(files / "small.parquet", side="q") as source,
        pytest.raises(WorkerError, match=r"times in a row a worker died on the tasks from 0 on"),
    ):
        run(DiesOnce(tmp_path, 0, deaths=99), source, engine="pool", n_jobs=1)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("row", [0, N - 1])
def test_a_killed_ray_worker_is_replaced(row, cluster, files, whole, tmp_path):
    with open_source(files / "small.parquet", side="q") as source:
        assert run(DiesOnce(tmp_path, row), source, engine="ray") == whole
    assert (tmp_path / "0").exists(), "no worker was killed"


def kill_while_running(files, tmp_path, engine, seconds):
    """Start the job in a process of its own, kill it there, and return the blocks it did."""
    code = (
        "from dpdq.data import open_source; from dpdq.engine import run; "
        "from tests.engine.jobs import Slow\n"
        "if __name__ == '__main__':\n"
        f"    run(Slow({str(tmp_path / 'log')!r}, 0.15), "
        f"open_source({str(files / 'small.parquet')!r}, side='q'), "
        f"**{engine!r}, folder={str(tmp_path / 'parts')!r})\n"
    )
    script = tmp_path / "job.py"
    script.write_text(code)
    env = {**os.environ, "PYTHONPATH": os.getcwd()}
    process = subprocess.Popen([sys.executable, str(script)], env=env, start_new_session=True)
    log = tmp_path / "log"
    end = time.monotonic() + 60
    while time.monotonic() < end and (not log.exists() or len(log.read_text().split()) < seconds):
        time.sleep(0.01)
    os.killpg(process.pid, 9)
    process.wait()
    return len(log.read_text().split())


@pytest.mark.parametrize("blocks", [1, 2, 4])
@pytest.mark.parametrize("engine", [{"engine": "local"},
                                    {"engine": "shards", "rank": 0, "world_size": 1}],
                         ids=["local", "shards"])  # fmt: skip
def test_a_killed_job_goes_on_from_its_finished_parts(engine, blocks, files, whole, tmp_path):
    done = kill_while_running(files, tmp_path, engine, blocks)
    with open_source(files / "small.parquet", side="q") as source:
        job = Slow(tmp_path / "log")
        folder = PartFolder.open(tmp_path / "parts", job, source, Plan.of(source))
        folder.patience = 0.0
        finished = [task for task in range(6) if folder.done(task)]
        assert len(finished) >= done - 1
        for claim in folder.path.glob("*.claim"):  # the dead rank's pulse has stopped
            os.utime(claim, (0, 0))
        assert run(job, source, folder=tmp_path / "parts", **engine) == whole
    assert len((tmp_path / "log").read_text().split()) <= done + 6 - len(finished)


def test_a_finished_job_reads_nothing_again(files, whole, tmp_path):
    job = Slow(tmp_path / "log")
    with open_source(files / "small.parquet", side="q") as source:
        for engine in ("local", "pool", "local"):
            assert run(job, source, engine=engine, folder=tmp_path / "parts") == whole
    assert len((tmp_path / "log").read_text().split()) == 6


def test_shards_side_by_side_share_the_work(files, whole, tmp_path):
    def one(rank):
        with open_source(files / "small.parquet", side="q") as source:
            return run(Slow(tmp_path / "log", 0.05), source, engine="shards", rank=rank,
                       world_size=3, folder=tmp_path / "parts")  # fmt: skip

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(one, range(3))) == [whole] * 3
    assert sorted(int(row) for row in (tmp_path / "log").read_text().split()) == whole[1]


def test_shards_one_after_another_and_from_the_environment(files, whole, tmp_path, monkeypatch):
    for rank in range(2):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "2")
        with open_source(files / "small.parquet", side="q") as source:
            assert run(Sums(), source, engine="shards", folder=tmp_path) == whole


def test_other_options_and_other_rows_do_not_meet_old_parts(files, tmp_path):
    with open_source(files / "small.parquet", side="q") as source:
        one = run(Sums(1.0), source, folder=tmp_path)
        assert run(Sums(2.0), source, folder=tmp_path) != one
    other = np.random.default_rng(1).normal(size=(N, 1))
    assert run(Sums(1.0), open_source(other, side="q"), folder=tmp_path) != one
    assert len(list(tmp_path.iterdir())) == 3


def test_a_damaged_part_is_told(files, tmp_path):
    with open_source(files / "small.parquet", side="q") as source:
        run(Sums(), source, folder=tmp_path)
        part = next(tmp_path.glob("*/3.part"))
        part.write_bytes(part.read_bytes()[:40])
        with pytest.raises(FileError, match="no finished part, or is damaged"):
            run(Sums(), source, folder=tmp_path)


@pytest.mark.parametrize("engine", ["local", "pool"])
def test_an_error_of_the_pass_comes_through_as_it_is(engine, files):
    with (
        open_source(files / "small.parquet", side="q") as source,
        pytest.raises(DataError, match="row 0 is bad; mend it"),
    ):
        run(Fails(), source, engine=engine)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_an_error_of_the_pass_comes_through_ray(cluster, files):
    with (
        open_source(files / "small.parquet", side="q") as source,
        pytest.raises(DataError, match="row 0 is bad; mend it"),
    ):
        run(Fails(), source, engine="ray")


@pytest.mark.parametrize(
    "given, sentence",
    [
        ({"engine": "cloud"}, "Unknown engine 'cloud'. Choose one of 'local', 'pool', 'shards'"),
        ({"engine": "shards"}, "engine 'shards' needs folder="),
        ({"engine": "shards", "folder": "."}, "engine 'shards' needs rank, or RANK or SLURM"),
        ({"engine": "shards", "folder": ".", "rank": 2, "world_size": 2}, "rank is 2 of world_siz"),
        ({"engine": "pool", "n_jobs": 0}, "n_jobs is 0; expected at least 1"),
        ({"engine": "pool", "rank": 0}, "rank and world_size belong to 'shards', not to 'pool'"),
        ({"engine": Engine(), "n_jobs": 2}, "an Engine holds its own options"),
    ],
)
def test_options_are_refused_before_work_starts(given, sentence, monkeypatch):
    for name in ("RANK", "SLURM_PROCID", "WORLD_SIZE", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(OptionError, match=sentence):
        run(Sums(), open_source(np.zeros((3, 1)), side="q"), **given)


def test_a_pass_that_cannot_travel_is_refused():
    class Local(Sums):
        pass

    source = open_source(np.zeros((3, 1)), side="q")
    with pytest.raises(OptionError, match="Local cannot be sent to another process"):
        run(Local(), source, engine="pool")
    job = Sums()
    job.power = Pass
    with pytest.raises(OptionError, match="cannot be resumed: its fingerprint value"):
        run(job, source, folder="unused")


def test_a_copied_source_does_not_own_its_rows(files):
    with open_source(files / "small.parquet", side="q") as source:
        copy = pickle.loads(pickle.dumps(source))
        copy.close()
        assert [b.num_rows for b in copy.blocks(4, 9, ["x0"])] == [BLOCK_ROWS, 17]
        assert multiprocessing.active_children() == []
