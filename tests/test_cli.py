"""The commands beside `compare`, and what a terminal sees."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import dpdq
from dpdq import cli
from dpdq.comparison.demo import demo_tables


def call(*arguments):
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


@pytest.fixture
def sides(tmp_path):
    rng = np.random.default_rng(0)
    for name, shift in (("have", 0.0), ("want", 0.7)):
        np.save(tmp_path / f"{name}.npy", rng.normal(shift, 1, (300, 2)))
    return tmp_path / "have.npy", tmp_path / "want.npy"


def test_version_and_help():
    assert call("--version").stdout == f"dpdq {dpdq.__version__}\n"
    shown = call("--help").stdout
    for command in ("compare", "profile", "methods", "demo"):
        assert command in shown


def test_profile_then_compare(tmp_path, sides):
    have, want = sides
    ref = tmp_path / "ref.dpdq"
    made = call("profile", have, "-o", ref)
    assert made.exit_code == 0, made.stderr
    assert "300 of 300 rows, 2 columns" in made.stdout
    result = call("compare", ref, want, "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["verdict"]["shifted"] is True
    assert not (Path.cwd() / "dpdq-report").exists()
    wrong = call("profile", have, "-o", tmp_path / "ref.zip")
    assert wrong.exit_code == 2
    assert "must end in .dpdq" in wrong.stderr
    assert not (tmp_path / "ref.zip").exists()


def test_json_and_out_together(tmp_path, sides):
    result = call("compare", *sides, "--quick", "--json", "--out", tmp_path / "out")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["schema_version"] == "1.0"


def test_methods():
    plain = call("methods", "kernel").stdout
    assert "held by: tests/" in plain
    assert plain.splitlines()[-1].endswith("methods")
    found = json.loads(call("methods", "--json").stdout)
    assert {"key", "title", "object", "room", "cost", "held_by"} <= set(found[0])
    assert "nothing matches" in call("methods", "no-such-method").stdout


def test_demo(tmp_path):
    result = call("demo", "--out", tmp_path / "demo")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.strip().endswith("report.html")
    weights = pq.read_table(tmp_path / "demo" / "weights.parquet")
    q, p = demo_tables()
    assert weights["patient"].to_pylist() == q["patient"].to_pylist()
    assert weights["weight"].to_numpy().mean() == pytest.approx(1.0)
    assert q.num_rows + p.num_rows == 442


def test_progress_is_drawn_for_a_terminal_only(tmp_path, sides):
    command = [sys.executable, "-m", "dpdq.cli", "compare", *map(str, sides), "--quick",
               "--out", str(tmp_path / "out")]  # fmt: skip
    quiet = subprocess.run(command, capture_output=True, check=True)
    assert quiet.stderr == b""
    ours, theirs = pty.openpty()
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=theirs, check=True)
    os.close(theirs)
    assert b"\x1b[" in os.read(ours, 65_536)
    os.close(ours)


def test_quick_on_the_command_line_never_looks_for_pandas(tmp_path, sides):
    code = (
        "import sys; from dpdq import cli\n"
        f"sys.argv = ['dpdq', 'compare', {str(sides[0])!r}, {str(sides[1])!r}, '--quick', "
        f"'--out', {str(tmp_path / 'out')!r}]\n"
        "try:\n    cli.main()\n"
        "except SystemExit as end:\n    assert not end.code\n"
        "assert 'pandas' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
