"""``dpdq dedupe`` on files of every kind."""

import gzip
import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.select.pools import genres
from typer.testing import CliRunner

from dpdq import cli


def call(*arguments):
    return CliRunner().invoke(cli.app, ["dedupe", *map(str, arguments)])


@pytest.fixture
def pool():
    texts = genres()["reference"][:200]
    texts = texts + texts[:20] + [t.replace("the", "a", 1) for t in texts[20:50]]
    quality = np.arange(len(texts))[::-1] % 250
    return pa.table({"id": np.arange(len(texts)), "text": texts, "quality": quality})


def write(table, path):
    if path.suffix == ".parquet":
        pq.write_table(table, path)
        return
    lines = "\n".join(json.dumps(row) for row in table.to_pylist()).encode() + b"\n"
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(lines))
    elif path.suffix == ".zst":
        path.write_bytes(pa.compress(lines, codec="zstd", asbytes=True))
    else:
        path.write_bytes(lines)


@pytest.mark.parametrize("name", ["p.parquet", "p.jsonl", "p.jsonl.gz", "p.jsonl.zst"])
def test_all_kinds_of_files_keep_the_same_rows(tmp_path, pool, name):
    write(pool, tmp_path / name)
    out, trail = tmp_path / "out.parquet", tmp_path / "trail.parquet"
    result = call(tmp_path / name, "--text", "text", "-o", out, "--trail", trail, "--json")
    assert result.exit_code == 0, result.stderr
    told = json.loads(result.stdout)
    kept, why = pq.read_table(out), pq.read_table(trail)
    assert kept.column_names == ["id", "text", "quality"]
    assert told["n_pool"] == 250
    assert told["n_kept"] == kept.num_rows == sum(why["kept"].to_pylist())
    assert told["reasons"]["equal text"] >= 20
    assert told["reasons"]["near duplicate"] > 15
    assert kept["id"].to_pylist() == why.filter(why["kept"])["row"].to_pylist()
    assert kept["id"].to_pylist()[:200] == list(range(200))


def test_rules_passages_and_engines(tmp_path, pool):
    path, out = tmp_path / "pool.parquet", tmp_path / "out.parquet"
    passage = "a passage of more than sixty bytes that stands in two texts and nowhere else at all"
    texts = pool["text"].to_pylist()
    texts[3], texts[90] = f"{texts[3]} {passage}", passage + texts[90]
    write(pool.set_column(1, "text", pa.array(texts)), path)
    assert call(path, "-o", out, "--keep", "quality", "--exact").exit_code == 0
    kept = set(pq.read_table(out)["id"].to_pylist())
    assert {0, 5} <= kept  # qualities 249 and 244, their copies 49 and 44
    assert not {200, 205} & kept
    plain = call(path, "-o", out)
    assert "rows kept; dropped" in plain.stdout
    before = pq.read_table(out).num_rows
    found = call(path, "-o", out, "--exact-substring", "60", "--engine", "pool", "--n-jobs", "2")
    assert found.exit_code == 0, found.stderr
    assert pq.read_table(out).num_rows < before
    assert 90 not in pq.read_table(out)["id"].to_pylist()
    alone = call(path, "-o", out, "--exact", "--exact-substring", "60", "--keep", "longest")
    assert "sharing a passage" in alone.stdout


@pytest.mark.parametrize(
    "options, sentence",
    [
        (["--threshold", "0"], "threshold is 0.0; expected above 0"),
        (["--keep", "nothing"], "--keep is 'nothing'; expected first, longest or a column"),
        (["--keep", "text"], "--keep names column 'text', which is"),
        (["--text", "nope"], "has no column 'nope'"),
        (["--exact-substring", "4"], "n_bytes is 4; expected 16"),
        (["--trail", "why.csv"], "does not end in .parquet"),
    ],
)
def test_what_is_refused_leaves_nothing(tmp_path, pool, options, sentence):
    write(pool, tmp_path / "pool.parquet")
    result = call(tmp_path / "pool.parquet", "-o", tmp_path / "out.parquet", *options)
    assert result.exit_code == 2
    assert sentence in result.stderr
    assert result.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["pool.parquet"]


def test_outputs_are_checked_first(tmp_path, pool):
    path = tmp_path / "pool.parquet"
    write(pool, path)
    before = path.read_bytes()
    assert "is an input; name another file" in call(path, "-o", path).stderr
    assert "does not exist" in call(path, "-o", tmp_path / "no" / "out.parquet").stderr
    assert "does not exist" in call(tmp_path / "no.parquet", "-o", tmp_path / "o.parquet").stderr
    assert path.read_bytes() == before


def test_every_option_is_described():
    shown = CliRunner().invoke(cli.app, ["dedupe", "--help"], env={"COLUMNS": "200"}).stdout
    options = set(re.findall(r"--[a-z][a-z-]+", shown)) - {"--help"}
    page = Path(__file__).resolve().parents[1] / "docs" / "commands" / "dedupe.md"
    assert len(options) >= 12
    for option in options:
        assert f"`{option}" in page.read_text(), f"{option} is not described"
