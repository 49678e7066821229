"""The main job gives the same answer on every engine, and goes on where it was cut off."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from dpdq.cli import app
from dpdq.engine import Engine


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sides")
    rng = np.random.default_rng(0)
    for name, rows, shift in (("have", 70_000, 0.0), ("want", 66_000, 0.3)):
        x = rng.normal(size=rows) + shift
        kind = rng.choice(["a", "b", "c"], size=rows)
        table = pa.table({"x": x, "kind": kind, "y": rng.normal(size=rows)})
        pq.write_table(table, folder / f"{name}.parquet", row_group_size=20_000)
    return folder


def job(files, out, *options):
    arguments = ["compare", str(files / "have.parquet"), str(files / "want.parquet")]
    result = CliRunner().invoke(app, [*arguments, "--out", str(out), *options])
    assert result.exit_code == 0, result.output
    return json.loads((out / "comparison.json").read_text())


@pytest.fixture(scope="module")
def local(files, tmp_path_factory):
    return job(files, tmp_path_factory.mktemp("local"))


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(["--engine", "pool", "--n-jobs", "2"], marks=pytest.mark.slow),
        ["--engine", "shards", "--rank", "1", "--world-size", "2", "--parts", "parts"],
    ],
    ids=["pool", "shards"],
)
def test_engines_agree(options, files, local, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert job(files, tmp_path / "out", *options) == local
    parts = list((tmp_path / "parts").glob("*/*.part"))
    assert bool(parts) == ("parts" in options)
    if parts:  # a second run reads them
        again = {part: part.stat().st_mtime_ns for part in parts}
        assert job(files, tmp_path / "again", *options) == local
        assert {part: part.stat().st_mtime_ns for part in parts} == again


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_ray_agrees(files, local, tmp_path):
    pytest.importorskip("ray", reason="ray is not installed")
    assert job(files, tmp_path / "out", "--engine", "ray", "--n-jobs", "2") == local


def test_a_bad_engine_is_refused_before_work(files, tmp_path):
    arguments = ["compare", str(files / "have.parquet"), "absent", "--engine", "shards"]
    result = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path)])
    assert result.exit_code == 2
    assert "engine 'shards' needs folder=" in result.output
    assert Engine().name == "local"
