"""Files appear whole or not at all."""

import errno
import json
import os
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dpdq.data.writing import atomic_write, write_json, write_table_batches, write_text
from dpdq.errors import FileError


def test_text_is_written_and_replaced(tmp_path):
    write_text(tmp_path / "a.txt", "eins\nzwei ü")
    assert (tmp_path / "a.txt").read_bytes() == "eins\nzwei ü".encode()
    write_text(str(tmp_path / "a.txt"), "drei")
    assert (tmp_path / "a.txt").read_text() == "drei"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_json_keeps_order_and_takes_numpy(tmp_path):
    value = {"z": np.float64(1.5), "a": [np.int64(3), np.bool_(True), None], "m": np.arange(2)}
    write_json(tmp_path / "a.json", value)
    text = (tmp_path / "a.json").read_text()
    assert json.loads(text) == {"z": 1.5, "a": [3, True, None], "m": [0, 1]}
    assert list(json.loads(text)) == ["z", "a", "m"]
    assert text.endswith("}\n")


@pytest.mark.parametrize("bad", [float("nan"), np.float64("inf"), object()])
def test_json_refuses_what_is_not_json(bad, tmp_path):
    (tmp_path / "a.json").write_text("old")
    with pytest.raises((ValueError, TypeError)):
        write_json(tmp_path / "a.json", {"a": bad})
    assert (tmp_path / "a.json").read_text() == "old"
    assert os.listdir(tmp_path) == ["a.json"]


def half_written(path, error):
    with atomic_write(path) as beside:
        beside.write_text("half")
        assert beside.parent == path.parent
        raise error


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, RuntimeError, MemoryError])
def test_an_interrupt_leaves_the_old_file(kind, tmp_path):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(kind):
        half_written(tmp_path / "a.txt", kind())
    assert os.listdir(tmp_path) == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.ENOSPC, "no space is left on the device"),
        (errno.EDQUOT, "the disk quota is used up"),
        (errno.EACCES, "permission is denied"),
        (errno.EROFS, "the file system is read-only"),
        (errno.EIO, "input/output error"),
    ],
)
def test_a_refusal_of_the_system_is_one_sentence(number, reason, tmp_path):
    with pytest.raises(FileError) as caught:
        half_written(tmp_path / "a.txt", OSError(number, os.strerror(number)))
    assert str(caught.value) == f"cannot write {str(tmp_path / 'a.txt')!r}: {reason}"
    assert os.listdir(tmp_path) == []


def test_a_full_disk_during_the_rename(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(FileError, match="no space is left on the device"):
        write_text(tmp_path / "a.txt", "all")
    assert os.listdir(tmp_path) == []


def test_a_target_that_cannot_be(tmp_path):
    with pytest.raises(FileError, match=r"the folder '.*gone' does not exist"):
        write_text(tmp_path / "gone" / "a.txt", "x")
    with pytest.raises(FileError, match="it is a folder"):
        write_text(tmp_path, "x")
    with pytest.raises(FileError, match="it names no file"):
        write_text("", "x")
    with pytest.raises(FileError, match="its name is too long"):
        write_text(tmp_path / ("x" * 300), "x")
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="does not exist"):
        write_text(tmp_path / "file" / "a.txt", "x")


def test_an_error_of_the_reader_stays_what_it_is(tmp_path):
    with pytest.raises(FileError, match="^q: damaged$"):
        half_written(tmp_path / "a.txt", FileError("q: damaged"))
    assert os.listdir(tmp_path) == []


SCHEMA = pa.schema([("row", pa.int64()), ("text", pa.string())])


def batches(stop=None):
    for part in range(5):
        if part == stop:
            raise KeyboardInterrupt
        rows = np.arange(part * 1000, (part + 1) * 1000)
        yield pa.record_batch({"row": rows, "text": [str(row) for row in rows]}, schema=SCHEMA)


def test_batches_become_one_parquet_file(tmp_path):
    assert write_table_batches(tmp_path / "a.parquet", SCHEMA, batches()) == 5000
    table = pq.read_table(tmp_path / "a.parquet")
    assert table.schema == SCHEMA
    np.testing.assert_array_equal(table["row"].to_numpy(), np.arange(5000))
    assert write_table_batches(tmp_path / "b.parquet", SCHEMA, []) == 0
    assert pq.read_table(tmp_path / "b.parquet").num_rows == 0
    write_table_batches(tmp_path / "c.parquet", SCHEMA, batches())
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "c.parquet").read_bytes()


def test_an_interrupt_while_writing_batches(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        write_table_batches(tmp_path / "a.parquet", SCHEMA, batches(stop=3))
    assert os.listdir(tmp_path) == []


LIMITED = """
import os, resource, sys
import numpy as np, pyarrow as pa, pyarrow.parquet
from dpdq.data.writing import write_table_batches, write_text
from dpdq.errors import FileError
folder = sys.argv[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
rng = np.random.default_rng(0)
def batches():
    for _ in range(20):
        yield pa.record_batch({"x": rng.normal(size=10_000)})
def text():
    write_text(os.path.join(folder, "a.txt"), "x" * 1_000_000)
def table():
    write_table_batches(os.path.join(folder, "a.pq"), pa.schema([("x", pa.float64())]), batches())
for job in (text, table):
    try:
        job()
    except FileError as error:
        print(error)
print(sorted(os.listdir(folder)))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="file size limits are POSIX")
def test_a_real_limit_on_file_size(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path)], capture_output=True, text=True, check=True
    )
    text, table, left = done.stdout.splitlines()
    assert text.endswith("a.txt': the file would be larger than this system allows")
    assert table.endswith("a.pq': the file would be larger than this system allows")
    assert left == "['a.txt']"
    assert (tmp_path / "a.txt").read_text() == "old"
    assert done.stderr == ""
