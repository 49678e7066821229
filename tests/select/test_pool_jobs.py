import gzip
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.select.pools import genres, packages, pool_of
from typer.testing import CliRunner

from dpdq.cli import app
from dpdq.engine import Engine
from dpdq.errors import DataError, OptionError
from dpdq.select import DSIR, NGramRatio, select_rows, top_k, write_selected


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pool")
    kinds = packages()
    texts, own, target = pool_of(kinds, "asyncio")
    of = {text: name for name, all_texts in kinds.items() for text in all_texts}
    table = pa.table({
        "text": texts,
        "source": [of[text] for text in texts],
        "quality": np.arange(len(texts), dtype=float),
    })  # fmt: skip
    pq.write_table(table, folder / "pool.parquet", row_group_size=500)
    with gzip.open(folder / "pool.jsonl.gz", "wt") as stream:
        for row in table.to_pylist():
            stream.write(json.dumps(row) + "\n")
    (folder / "target.jsonl").write_text("\n".join(json.dumps({"text": t}) for t in target))
    return folder, texts, own, target


def run(*arguments):
    return CliRunner().invoke(app, ["select", *map(str, arguments)])


def test_what_lists_give_files_give(files):
    folder, texts, own, target = files
    found = select_rows(folder / "pool.parquet", folder / "target.jsonl", budget=300)
    alone = top_k(NGramRatio().fit(texts, target).utility(texts), n=300)
    assert set(found.selection.rows) == set(alone.rows)
    assert own[found.selection.rows].mean() > 0.9
    assert found.lift > 1
    assert found.price is not None
    assert {row["level"] for row in found.keep_rates["source"]} == set(packages())
    assert sum(row["kept"] for row in found.keep_rates["length"]) == 300


@pytest.mark.parametrize(
    "engine",
    [Engine("pool", n_jobs=2), "shards", pytest.param("ray", marks=pytest.mark.slow)],
    ids=["pool", "shards", "ray"],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_all_engines_select_the_same_rows(engine, files, tmp_path):
    folder = files[0]
    if engine == "shards":
        engine = Engine("shards", folder=tmp_path, rank=0, world_size=2)
    if engine == "ray":
        pytest.importorskip("ray", reason="ray is not installed")
    options = {"budget": 20_000, "unit": "tokens", "mechanism": "gumbel", "random_state": 4}
    target = folder / "target.jsonl"
    one = select_rows(folder / "pool.parquet", target, **options)
    other = select_rows(folder / "pool.jsonl.gz", target, engine=engine, **options)
    assert one.selection.rows.tolist() == other.selection.rows.tolist()
    np.testing.assert_array_equal(one.selection.utility, other.selection.utility)
    assert one.selection.cost <= 20_000


def test_bytes_and_fractions(files):
    folder, texts, _, _ = files
    found = select_rows(
        folder / "pool.parquet", folder / "target.jsonl", fraction=0.1, unit="bytes"
    )
    total = sum(len(text.encode()) for text in texts)
    assert 0.099 * total < found.selection.cost <= 0.1 * total


def test_quota_shares_the_budget(files):
    folder = files[0]
    table = pq.read_table(folder / "pool.parquet")
    source = np.array(table["source"].to_pylist())
    for wanted, counts in (
        ({"asyncio": 0.5, "email": 0.25}, {"asyncio": 100, "email": 50}),
        ("equal", dict.fromkeys(packages(), round(200 / len(packages())))),
    ):
        found = select_rows(
            folder / "pool.parquet", folder / "target.jsonl", budget=200, quota=("source", wanted)
        )
        kept = source[found.selection.rows]
        assert {name: int((kept == name).sum()) for name in counts} == counts


def test_a_score_column_and_nuisances(files):
    folder, texts, _, _ = files
    found = select_rows(folder / "pool.parquet", score="quality", budget=10)
    assert found.selection.rows.tolist() == list(range(len(texts) - 10, len(texts)))
    by_source = select_rows(
        folder / "pool.parquet", folder / "target.jsonl", budget=600, conditional=True
    )
    rates = [row["share"] for row in by_source.keep_rates["source"]]
    assert max(rates) - min(rates) < 0.03
    assert by_source.nuisance.by_column["source"] > 0.3  # the score sees the package


def test_any_utility_of_texts(files):
    folder, texts, _, target = files
    found = select_rows(folder / "pool.parquet", folder / "target.jsonl", budget=50,
                        utility=DSIR(), random_state=0)  # fmt: skip
    alone = top_k(DSIR().fit(texts, target).utility(texts), n=50)
    assert set(found.selection.rows) == set(alone.rows)


def test_the_command_writes_rows_report_and_trail(files, tmp_path):
    folder, texts, own, _ = files
    out, trail = tmp_path / "kept.parquet", tmp_path / "trail.parquet"
    result = run(folder / "pool.jsonl.gz", "--target", folder / "target.jsonl", "--budget", 250,
                 "-o", out, "--trail", trail)  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "250 of" in result.output
    assert "kept by source:" in result.output
    table = pq.read_table(out)
    assert table.num_rows == 250
    assert table["text"].to_pylist() == [texts[row] for row in table["row"].to_pylist()]
    assert own[table["row"].to_numpy()].mean() > 0.9
    told = pq.read_table(trail)
    assert told.num_rows == len(texts)
    assert set(told["reason"].to_pylist()) == {
        "among the largest utilities", "utility below the cut"
    }  # fmt: skip
    report = json.loads((tmp_path / "kept.json").read_text())
    assert report["rows"] == {"pool": len(texts), "kept": 250}
    assert report["seconds"]["score"] > 0
    again = tmp_path / "again.parquet"
    run(folder / "pool.jsonl.gz", "--target", folder / "target.jsonl", "--budget", 250, "-o", again)
    assert pq.read_table(again).equals(table)


def test_the_command_prints_json(files, tmp_path):
    folder = files[0]
    result = run(folder / "pool.parquet", "--target", folder / "target.jsonl", "--fraction", 0.01,
                 "-o", tmp_path / "kept.parquet", "--json")  # fmt: skip
    assert json.loads(result.stdout)["mechanism"] == "top k"


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["--budget", 3], "give a target to be like, or a column of scores"),
        (["--target", "T"], "give budget or fraction, one of them"),
        (["--target", "T", "--budget", 3, "--fraction", 0.1], "give budget or fraction"),
        (["--target", "absent", "--budget", 3], "p: file 'absent' does not exist"),
        (["--target", "T", "--budget", 3, "--text", "x"], "has no column 'x'"),
        (["--target", "T", "--budget", 3, "--quota", "source"], "--quota is 'source'; write"),
        (["--target", "T", "--budget", 3, "--quota", "source=x:2"], "quota names source='x'"),
        (["--target", "T", "--budget", 3, "--quota", "nope=equal"], "has no column 'nope'"),
        (["--score", "text", "--budget", 3], "a score is a number"),
        (["--score", "quality", "--budget", 3, "--engine", "shards"], "needs folder="),
    ],
)
def test_bad_options_leave_nothing_behind(arguments, sentence, files, tmp_path):
    folder = files[0]
    given = [folder / "target.jsonl" if each == "T" else each for each in arguments]
    result = run(folder / "pool.parquet", *given, "-o", tmp_path / "kept.parquet")
    assert result.exit_code == 2
    assert sentence in " ".join(result.output.split())
    assert list(tmp_path.iterdir()) == []


def test_the_output_is_never_the_pool(files, tmp_path):
    folder = files[0]
    pool = folder / "pool.parquet"
    result = run(pool, "--score", "quality", "--budget", 3, "-o", pool)
    assert result.exit_code == 2
    assert "is the pool itself" in result.output
    result = run(pool, "--score", "quality", "--budget", 3, "-o", tmp_path / "x.csv")
    assert "does not end in .parquet" in result.output


def test_a_changed_pool_is_not_written(files, tmp_path):
    folder = files[0]
    found = select_rows(folder / "pool.parquet", score="quality", budget=3)
    with pytest.raises(DataError, match="has 2 rows and the selection is of"):
        write_selected({"text": ["a", "b"]}, found.selection, tmp_path / "x.parquet")
    with pytest.raises(DataError, match="is empty; there is nothing to select"):
        select_rows({"text": pa.array([], pa.string())}, {"text": ["a"]}, budget=1)
    with pytest.raises(OptionError, match="Unknown utility 'x'"):
        select_rows({"text": ["a"]}, {"text": ["a"]}, budget=1, utility="x")


@pytest.mark.parametrize("stage", [1, 3, 5])
def test_a_killed_job_goes_on_and_selects_the_same_rows(stage, tmp_path):
    """Killed while counting (parts 1 and 3 of 3) and while scoring (part 5), then started again."""
    rng = np.random.default_rng(0)
    words = np.array([f"w{i}" for i in range(500)])
    rows = 3 * 65_536 - 10
    text = [" ".join(each) for each in words[rng.integers(0, 500, (rows, 4))]]
    pq.write_table(pa.table({"text": text}), tmp_path / "pool.parquet", row_group_size=65_536)
    pq.write_table(pa.table({"text": text[:50]}), tmp_path / "target.parquet")
    job = [sys.executable, "-m", "dpdq.cli", "select", "pool.parquet", "--target",
           "target.parquet", "--budget", "1000"]  # fmt: skip
    env = {**os.environ, "OMP_NUM_THREADS": "1"}

    def parts():
        return list((tmp_path / "parts").glob("*/*.part"))

    process = subprocess.Popen(
        [*job, "-o", "kept.parquet", "--parts", "parts"], cwd=tmp_path, env=env,
        stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    end = time.monotonic() + 120
    while len(parts()) < stage and process.poll() is None and time.monotonic() < end:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert stage <= len(parts()) <= 6
    before = {part: part.stat().st_mtime_ns for part in parts()}
    for out, more in (("kept.parquet", ["--parts", "parts"]), ("whole.parquet", [])):
        subprocess.run([*job, "-o", out, *more], cwd=tmp_path, env=env, check=True,
                       capture_output=True)  # fmt: skip
    assert pq.read_table(tmp_path / "kept.parquet").equals(
        pq.read_table(tmp_path / "whole.parquet")
    )
    assert {part: part.stat().st_mtime_ns for part in before} == before


def test_labelled_rows_by_their_value(tmp_path):
    """Digits with a fifth of the labels wrong: the half that is kept is nearly clean."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    rng = np.random.default_rng(0)
    order = rng.permutation(len(x))
    pool, target = order[:1200], order[1200:]
    wrong = rng.random(1200) < 0.2
    shown = np.where(wrong, (y[pool] + rng.integers(1, 10, 1200)) % 10, y[pool])
    columns = {f"p{j}": x[:, j] for j in range(64)}
    pq.write_table(
        pa.table({name: c[pool] for name, c in columns.items()} | {"digit": shown}),
        tmp_path / "pool.parquet",
    )
    pq.write_table(
        pa.table({name: c[target] for name, c in columns.items()} | {"digit": y[target]}),
        tmp_path / "target.parquet",
    )
    result = run(tmp_path / "pool.parquet", "--target", tmp_path / "target.parquet", "--utility",
                 "knn-shapley", "--label", "digit", "--fraction", 0.5,
                 "-o", tmp_path / "kept.parquet")  # fmt: skip
    assert result.exit_code == 0, result.output
    kept = pq.read_table(tmp_path / "kept.parquet")["row"].to_numpy()
    assert len(kept) == 600
    assert wrong[kept].mean() < 0.02 < wrong.mean()
    assert "KNNShapley" in result.output
    with pytest.raises(OptionError, match="label and utility 'knn-shapley' belong together"):
        select_rows(tmp_path / "pool.parquet", tmp_path / "target.parquet", budget=3, label="digit")
    with pytest.raises(DataError, match="has no column 'x' to predict"):
        select_rows(tmp_path / "pool.parquet", tmp_path / "target.parquet", budget=3, label="x",
                    utility="knn-shapley")  # fmt: skip


def test_genres_are_there():
    assert min(len(texts) for texts in genres().values()) > 500
