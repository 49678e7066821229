"""``dpdq contamination`` on files, with its exit codes."""

import gzip
import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.select.pools import genres
from typer.testing import CliRunner

from dpdq import cli


def call(*arguments):
    return CliRunner().invoke(cli.app, ["contamination", *map(str, arguments)])


@pytest.fixture
def sides(tmp_path):
    """Training text with 10 of 100 items in it."""
    kinds = genres()
    items = kinds["reference"][300:400]
    train = list(kinds["code"][:500])
    for k in range(10):
        train[k] += "\n" + items[k]
    lines = "\n".join(json.dumps({"content": t, "n": 1}) for t in train)
    (tmp_path / "train.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    pq.write_table(pa.table({"question": items}), tmp_path / "bench.parquet")
    return tmp_path / "train.jsonl.gz", tmp_path / "bench.parquet", items


def test_items_and_summary(tmp_path, sides):
    train, bench, items = sides
    out = tmp_path / "items.parquet"
    result = call(train, bench, "-o", out, "--json")
    assert result.exit_code == 0, result.stderr
    told = json.loads(result.stdout)
    found = pq.read_table(out).to_pylist()
    assert [row["item"] for row in found] == list(range(100))
    for k in range(10):
        assert found[k]["contaminated"]
        assert found[k]["share"] == 1.0
        assert found[k]["longest"] == len(items[k].encode())
        assert found[k]["row_q"] == k
    share = told["contaminated_share"]
    assert share["low"] < 0.1 <= share["estimate"] < 0.2
    assert told["n_items"] == 100
    assert told["longest_shared"] >= max(len(item.encode()) for item in items[:10])
    shown = call(train, bench, "--text", "content", "--benchmark-text", "question")
    assert "95 % interval" in shown.stdout
    assert "longest shared passage" in shown.stdout


def test_exit_codes(tmp_path, sides):
    train, bench, _ = sides
    over = call(train, bench, "--fail-on", "share=0.01", "-o", tmp_path / "items.parquet")
    assert over.exit_code == 1
    assert "of the items are contaminated, over 1 %" in over.stderr
    assert (tmp_path / "items.parquet").exists()
    assert call(train, bench, "--fail-on", "share=0.9").exit_code == 0
    clean = call(bench, train, "--fail-on", "share=0.5", "--engine", "pool", "--n-jobs", "2")
    assert clean.exit_code == 0, clean.stderr


@pytest.mark.parametrize(
    "options, sentence",
    [
        (["--fail-on", "shift"], "--fail-on is 'shift'; write share=0.01"),
        (["--fail-on", "share=2"], "--fail-on is 'share=2'; write share=0.01"),
        (["--n", "1"], "n is 1; expected 2 to 64 tokens"),
        (["--min-bytes", "3"], "n_bytes is 3; expected 16"),
        (["--threshold", "2"], "threshold is 2.0"),
        (["--benchmark-text", "nope"], "has no column 'nope'"),
        (["-o", "items.json"], "does not end in .parquet"),
    ],
)
def test_what_is_refused(tmp_path, sides, options, sentence):
    train, bench, _ = sides
    before = sorted(tmp_path.iterdir())
    result = call(train, bench, *options)
    assert result.exit_code == 2
    assert sentence in result.stderr
    assert sorted(tmp_path.iterdir()) == before


def test_every_option_is_described():
    shown = CliRunner().invoke(cli.app, ["contamination", "--help"], env={"COLUMNS": "200"}).stdout
    options = set(re.findall(r"--[a-z][a-z-]+", shown)) - {"--help"}
    page = Path(__file__).resolve().parents[1] / "docs" / "commands" / "contamination.md"
    assert len(options) >= 12
    for option in options:
        assert f"`{option}" in page.read_text(), f"{option} is not described"
