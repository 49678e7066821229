import dataclasses
import json

import numpy as np
import pytest

from dpdq.results import Estimate, Result, TestResult, to_json_types


def test_json_types_of_everything():
    value = {
        "a": np.float64(1.5),
        "b": np.int64(2),
        "c": np.array([1.0, np.nan]),
        "d": (True, np.bool_(False)),
        "e": float("inf"),
        "f": None,
        "g": Estimate(1.0, 0.5, None, reason="one-sided"),
        "h": object,
    }
    out = to_json_types(value)
    assert out["a"] == 1.5
    assert out["b"] == 2
    assert out["c"] == [1.0, None]
    assert out["d"] == [True, False]
    assert out["e"] is None
    assert out["g"]["low"] == 0.5
    assert out["g"]["high"] is None
    json.dumps(out, allow_nan=False)


def test_results_are_frozen_and_read_well():
    estimate = Estimate(0.25, 0.2, 0.3)
    assert repr(estimate) == "Estimate(0.25, 95 % interval 0.2 to 0.3)"
    assert repr(Estimate(None, reason="too few rows")) == "Estimate(none: too few rows)"
    assert "interval none to 0.3" in repr(Estimate(0.25, None, 0.3))
    with pytest.raises(dataclasses.FrozenInstanceError):
        estimate.low = 0.0


def test_a_test_result_shows_what_it_has():
    result = TestResult(1.25, 0.04, "energy distance", 10, 20)
    assert repr(result) == (
        "TestResult(statistic=1.25, pvalue=0.04, method='energy distance', n_q=10, n_p=20, "
        "details={})"
    )
    assert result.to_dict()["effect"] is None


def test_long_fields_are_shortened():
    @dataclasses.dataclass(frozen=True, repr=False)
    class Many(Result):
        numbers: tuple
        matrix: np.ndarray
        text: str

    shown = repr(Many(tuple(range(9)), np.zeros((3, 2)), "x" * 300))
    assert "9 items" in shown
    assert "array(3, 2)" in shown
    assert len(shown) < 260
