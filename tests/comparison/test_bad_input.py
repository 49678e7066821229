"""Whatever comes in: one sentence and exit 2, or a result and exit 0; nothing half-written."""

import gzip
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from dpdq.cli import app

N = 60


def table(n=N, seed=0, **more):
    rng = np.random.default_rng(seed)
    return pa.table(
        {
            "a": rng.normal(size=n),
            "b": rng.integers(0, 5, n),
            "c": rng.choice(["x", "y", "z"], n),
            **more,
        }
    )


def write(path, tab):
    if path.suffix == ".csv":
        pyarrow.csv.write_csv(tab, path)
    else:
        pq.write_table(tab, path)
    return str(path)


@pytest.fixture
def have(tmp_path):
    return write(tmp_path / "have.parquet", table(seed=1))


@pytest.fixture
def want(tmp_path):
    return write(tmp_path / "want.parquet", table(seed=2))


def call(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def refused(tmp_path, *arguments, match):
    out = tmp_path / "out"
    result = call("compare", *arguments, "--out", out)
    assert result.exit_code == 2, result.output
    sentence = result.stderr.strip()
    assert sentence.startswith("dpdq: ")
    assert "\n" not in sentence
    assert "Traceback" not in sentence
    assert match in sentence, sentence
    assert not out.exists() or not list(out.iterdir())
    return sentence


def accepted(tmp_path, *arguments):
    out = tmp_path / "out"
    result = call("compare", *arguments, "--out", out)
    assert result.exit_code == 0, result.stderr
    return json.loads((out / "comparison.json").read_text())


def test_missing_file(tmp_path, have):
    refused(tmp_path, have, tmp_path / "absent.parquet", match="does not exist")


def test_unreadable_file(tmp_path, have):
    path = tmp_path / "broken.parquet"
    path.write_bytes(b"PAR1 this is no parquet file")
    refused(tmp_path, have, path, match="broken.parquet")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_a_file_without_permission(tmp_path, have, want):
    Path(want).chmod(0)
    refused(tmp_path, have, want, match="permission")


def test_wrong_extension(tmp_path, have):
    path = tmp_path / "want.xlsx"
    path.write_bytes(b"PK")
    refused(tmp_path, have, path, match=".xlsx")


def test_csv_bytes_named_parquet(tmp_path, have):
    path = tmp_path / "want.parquet"
    path.write_text("a,b,c\n1,2,x\n")
    refused(tmp_path, have, path, match="want.parquet")


def test_empty_side(tmp_path, have):
    path = write(tmp_path / "want.parquet", table(0))
    refused(tmp_path, have, path, match="is empty")


def test_empty_csv(tmp_path, have):
    path = tmp_path / "want.csv"
    path.write_text("")
    refused(tmp_path, have, path, match="want.csv")


def test_one_row(tmp_path, have):
    path = write(tmp_path / "want.parquet", table(1))
    refused(tmp_path, have, path, match="has one row")


def test_no_common_column(tmp_path, have):
    path = write(tmp_path / "want.parquet", pa.table({"z": [1.0, 2.0, 3.0]}))
    refused(tmp_path, have, path, match="no column is common")


def test_all_constant_columns(tmp_path):
    one = write(tmp_path / "one.parquet", pa.table({"a": [1.0] * 30, "b": ["x"] * 30}))
    two = write(tmp_path / "two.parquet", pa.table({"a": [1.0] * 40, "b": ["x"] * 40}))
    refused(tmp_path, one, two, match="constant")


def test_constant_on_each_side_but_different(tmp_path):
    one = write(tmp_path / "one.parquet", pa.table({"a": [1.0] * 80}))
    two = write(tmp_path / "two.parquet", pa.table({"a": [2.0] * 80}))
    found = accepted(tmp_path, one, two)
    assert found["verdict"]["shifted"] is True
    assert found["overlap"]["ok"] is False


def test_infinities(tmp_path, want):
    values = np.random.default_rng(0).normal(size=N)
    values[[17, 30]] = np.inf
    path = write(tmp_path / "inf.parquet", table(a=values))
    refused(
        tmp_path,
        path,
        want,
        match="column 'a': 2 of 60 values are infinite (first at row 17); "
        "drop them or pass infinite='missing'",
    )
    assert accepted(tmp_path, path, want, "--infinite", "missing")["rows"]["q"] == N


def test_mixed_types_in_a_json_column(tmp_path, want):
    path = tmp_path / "have.jsonl"
    rng = np.random.default_rng(0)
    rows = [
        {"a": float(rng.normal()), "b": int(rng.integers(5)), "c": "x" if i % 2 else i}
        for i in range(N)
    ]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    result = call("compare", path, want, "--out", tmp_path / "out")
    assert result.exit_code in (0, 2)
    if result.exit_code == 2:
        assert "'c'" in result.stderr


def test_a_csv_column_that_turns_to_text_late(tmp_path, want):
    path = tmp_path / "have.csv"
    rows = [f"{i / 7},{i % 5},{'oops' if i == N - 1 else i}" for i in range(N)]
    path.write_text("a,b,c\n" + "\n".join(rows))
    assert accepted(tmp_path, path, want)["rows"]["q"] == N


def test_ten_thousand_levels(tmp_path):
    rng = np.random.default_rng(0)
    sides = []
    for name in ("one", "two"):
        levels = [f"level {i}" for i in rng.integers(0, 10_000, 12_000)]
        values = pa.table({"a": rng.normal(size=12_000), "city": levels})
        sides.append(write(tmp_path / f"{name}.parquet", values))
    found = accepted(tmp_path, *sides, "--quick")
    assert {row["name"] for row in found["columns"]} == {"a", "city"}


def test_label_on_one_side_only(tmp_path, want):
    have = write(tmp_path / "have2.parquet", table(y=np.arange(N) % 2))
    found = accepted(tmp_path, have, want, "--label", "y")
    assert found["label_shift"] is None
    assert found["concept_shift"] is None
    assert "y" not in {row["name"] for row in found["columns"]}


def test_label_on_neither_side(tmp_path, have, want):
    refused(tmp_path, have, want, "--label", "y", match="the label column 'y' is on neither side")


def test_two_identical_files(tmp_path, have):
    found = accepted(tmp_path, have, have)
    assert found["classifier_test"]["auc"]["estimate"] == 0.5
    assert found["verdict"]["pvalue"] >= 0.9
    assert found["verdict"]["shifted"] is False
    weights = pq.read_table(tmp_path / "out" / "weights.parquet")
    assert weights["weight"].to_numpy() == pytest.approx(np.ones(N), abs=0)


def test_p_as_part_of_q(tmp_path):
    whole = table(200, seed=3)
    have = write(tmp_path / "whole.parquet", whole)
    want = write(tmp_path / "part.parquet", whole.slice(50, 80))
    found = accepted(tmp_path, have, want)
    assert found["verdict"]["pvalue"] is None
    assert found["verdict"]["shifted"] is None
    assert "rest of q" in found["verdict"]["sentence"]
    assert found["schema"]["common_rows"]["p_subset_of_q"] is True
    refused_gate = call("compare", have, want, "--fail-on", "shift", "--out", tmp_path / "again")
    assert refused_gate.exit_code == 2


def test_a_huge_text_cell(tmp_path):
    sides = []
    for name in ("one", "two"):
        path = tmp_path / f"{name}.csv"
        with path.open("w") as file:
            file.write("a,note\n")
            file.writelines(f"{i % 7},a short note {i}\n" for i in range(60))
            if name == "one":
                file.write("3," + "word " * 10_000_000 + "\n")
        sides.append(path)
    found = accepted(tmp_path, *sides)
    assert found["rows"]["q"] == 61
    assert (tmp_path / "out" / "report.html").stat().st_size < 500_000


def test_csv_that_is_not_utf8(tmp_path, want):
    path = tmp_path / "latin.csv"
    rows = "\n".join(f"{i},{i % 5},caf\xe9" for i in range(N))
    path.write_bytes(("a,b,c\n" + rows).encode("latin-1"))
    refused(tmp_path, path, want, match="UTF-8")


def test_duplicate_column_names(tmp_path, want):
    path = tmp_path / "twice.csv"
    path.write_text("a,a,c\n" + "\n".join(f"{i},{i},x" for i in range(N)))
    refused(tmp_path, path, want, match="'a'")


def test_gzip_is_read(tmp_path, want):
    plain = Path(write(tmp_path / "have.csv", table(seed=1)))
    packed = tmp_path / "packed.csv.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert accepted(tmp_path, packed, want, "--quick")["rows"]["q"] == N


def test_unknown_options(tmp_path, have, want):
    refused(tmp_path, have, want, "--columns", "a,nope", match="column 'nope' is absent")
    refused(tmp_path, have, want, "--types", "a=number", match="number")
    refused(tmp_path, have, want, "--types", "a", match="write column=kind")
    refused(tmp_path, have, want, "--fail-on", "drift", match="Unknown gate 'drift'")
    refused(tmp_path, have, want, "--tolerance", "1.5", match="tolerance is 1.5")
    refused(tmp_path, have, want, "--id", "a", "--group", "a", match="one role")
    refused(tmp_path, have, want, "--columns", "a,a", match="twice")
    refused(tmp_path, have, want, "--columns", "a", "--label", "a", match="never a feature")


def test_an_output_folder_that_is_a_file(tmp_path, have, want):
    path = tmp_path / "taken"
    path.write_text("mine")
    result = call("compare", have, want, "--out", path)
    assert result.exit_code == 2
    assert "which is a file; name a folder" in result.stderr
    assert path.read_text() == "mine"


def test_debug_shows_the_traceback(tmp_path, have):
    result = call("compare", have, tmp_path / "absent.csv", "--debug", "--out", tmp_path / "o")
    assert result.exception is not None
    assert "does not exist" in str(result.exception)


def test_fail_on(tmp_path):
    have = write(tmp_path / "have.parquet", table(400, seed=1))
    far = write(
        tmp_path / "far.parquet",
        table(400, seed=2, d=np.zeros(400)).set_column(
            0, "a", [np.random.default_rng(5).normal(2.0, 1.0, 400)]
        ),
    )
    near = write(tmp_path / "near.parquet", table(400, seed=3))
    out = tmp_path / "out"
    shifted = call("compare", have, far, "--fail-on", "shift", "--out", out)
    assert shifted.exit_code == 1
    assert "--fail-on: p has shifted" in shifted.stderr
    assert (out / "report.html").exists()
    assert call("compare", have, near, "--fail-on", "shift;columns", "--out", out).exit_code == 0
    columns = ("compare", have, far, "--quick", "--out", out, "--fail-on")
    assert call(*columns, "columns=a").exit_code == 1
    assert call(*columns, "columns=c").exit_code == 0
    assert call(*columns, "columns=nope").exit_code == 2
    assert call(*columns, "shift").exit_code == 2


def _limit_files():
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, 2_000))


def test_disk_full_leaves_nothing_half_written(tmp_path, have, want):
    out = tmp_path / "out"
    job = subprocess.run(
        [sys.executable, "-m", "dpdq.cli", "compare", have, want, "--quick", "--out", str(out)],
        capture_output=True,
        text=True,
        preexec_fn=_limit_files,
        check=False,
    )
    assert job.returncode == 2, job.stderr
    assert job.stderr.startswith("dpdq: ")
    assert job.stderr.count("\n") == 1
    assert [path.name for path in out.iterdir() if path.stat().st_size > 2_000] == []
    assert not (out / "report.html").exists()
    assert not [path for path in out.iterdir() if path.suffix not in {".json", ".parquet"}]


@pytest.mark.slow
def test_interrupt_leaves_nothing_half_written(tmp_path):
    have = write(tmp_path / "have.parquet", table(20_000, seed=1))
    want = write(tmp_path / "want.parquet", table(20_000, seed=2))
    for wait in (0.5, 1.5, 3.0, 4.5):
        out = tmp_path / f"out{wait}"
        job = subprocess.Popen(
            [sys.executable, "-m", "dpdq.cli", "compare", have, want, "--out", str(out)],
            stderr=subprocess.PIPE,
            text=True,
        )
        time.sleep(wait)
        job.send_signal(signal.SIGINT)
        _, stderr = job.communicate(timeout=60)
        assert job.returncode != 0 or (out / "report.html").exists(), stderr
        for path in out.iterdir() if out.exists() else []:
            if path.suffix == ".parquet":
                assert pq.read_table(path).num_rows == 20_000
            elif path.suffix == ".json":
                json.loads(path.read_text())
            else:
                assert path.read_text().rstrip().endswith("</html>")
