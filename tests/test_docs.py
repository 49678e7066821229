"""The documentation says what is so: its code runs, and every key of the JSON is described."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import dpdq

ROOT = Path(__file__).resolve().parents[1]


def blocks(path, language):
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(), flags=re.S | re.M)


@pytest.mark.parametrize("page", ["docs/tutorial.md", "README.md"])
def test_python_code_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = blocks(ROOT / page, "python")
    assert found
    space = {}
    for code in found:
        exec(compile(code, page, "exec"), space)  # the documentation's own code


def test_every_key_of_the_json_is_described():
    rng = np.random.default_rng(0)
    q = pa.table({"a": rng.normal(size=200), "y": rng.integers(0, 2, 200)})
    found = dpdq.compare(q, q.slice(0, 150), label="y", random_state=0).to_dict()
    text = (ROOT / "docs" / "comparison-json.md").read_text()
    for key in found:
        assert f"| `{key}` |" in text, f"{key} is not described in docs/comparison-json.md"


def test_every_option_of_compare_is_described():
    shown = subprocess.run(
        [sys.executable, "-m", "dpdq.cli", "compare", "--help"],
        capture_output=True,
        text=True,
        check=True,
        env={"COLUMNS": "200", "PATH": "/usr/bin", "NO_COLOR": "1", "TERM": "dumb"},
    ).stdout
    options = set(re.findall(r"--[a-z][a-z-]+", shown)) - {"--help"}
    text = (ROOT / "docs" / "commands" / "compare.md").read_text()
    assert len(options) >= 17
    for option in options:
        assert f"`{option}" in text, f"{option} is not described"
