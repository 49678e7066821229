import dataclasses
import zipfile

import numpy as np
import pyarrow as pa
import pytest

from dpdq.engine.states import digest, load_state, save_state
from dpdq.errors import FileError, InputTypeError


@dataclasses.dataclass
class Record:
    name: str
    values: np.ndarray


STATE = {
    "none": None,
    "flags": [True, False],
    "numbers": (1, 2**70, -0.0, 0.1, float("inf"), np.float32(0.3), np.int64(5)),
    "bytes": b"\x00\xff",
    ("a", 1): {"nested": [np.arange(6).reshape(2, 3), np.array(["ü", "b"])]},
    "record": Record("x", np.array([np.nan, 1.0])),
    "table": pa.table({"a": [1, None], "b": ["x", "y"]}),
    "batch": pa.record_batch({"a": [1.5]}),
}


def test_everything_comes_back(tmp_path):
    save_state(tmp_path / "s", STATE, [Record])
    back = load_state(tmp_path / "s", [Record])
    assert list(back) == list(STATE)
    assert back["numbers"] == STATE["numbers"]
    assert np.signbit(back["numbers"][2])
    assert type(back["numbers"][5]) is np.float32
    assert back["bytes"] == STATE["bytes"]
    np.testing.assert_array_equal(back["a", 1]["nested"][0], [[0, 1, 2], [3, 4, 5]])
    assert back["a", 1]["nested"][1].tolist() == ["ü", "b"]
    np.testing.assert_array_equal(back["record"].values, [np.nan, 1.0])
    assert back["table"].equals(STATE["table"])
    assert back["batch"].equals(STATE["batch"])
    assert digest(back, [Record]) == digest(STATE, [Record])


def test_equal_states_are_equal_files_and_changes_show(tmp_path):
    save_state(tmp_path / "a", STATE, [Record])
    save_state(tmp_path / "b", STATE, [Record])
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert digest([1.0]) != digest([1.0 + 2**-52])
    assert digest(np.zeros(4)) != digest(np.zeros((2, 2)))
    assert digest([1]) != digest([True])


@pytest.mark.parametrize("value", [object(), {1}, np.array([object()]), Record("x", np.zeros(1))])
def test_what_needs_a_pickle_is_refused(value, tmp_path):
    with pytest.raises(InputTypeError, match=r"state\['deep'\]\[0\] is a .* cannot keep"):
        save_state(tmp_path / "s", {"deep": [value]})
    assert not (tmp_path / "s").exists()


def test_a_strange_file_is_told(tmp_path):
    with pytest.raises(FileError, match="is no finished part"):
        load_state(tmp_path / "absent")
    with zipfile.ZipFile(tmp_path / "s", "w") as packed:
        packed.writestr("state.json", '{"$": "array", "at": 3}')
    with pytest.raises(FileError, match="is no finished part, or is damaged"):
        load_state(tmp_path / "s")
