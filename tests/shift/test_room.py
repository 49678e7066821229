"""The room: lazy names, cheap import, labels of many kinds."""

import subprocess
import sys

import numpy as np
import pytest

import dpdq.shift
from dpdq.errors import DataError
from dpdq.shift._common import clean_labels, joint_units, same_classes


def test_every_public_name_is_there_twice():
    for name in dpdq.shift.__all__:
        first, second = getattr(dpdq.shift, name), getattr(dpdq.shift, name)
        assert callable(first)
        assert first is second
        assert first.__doc__
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = dpdq.shift.nothing


def test_import_loads_neither_scikit_learn_nor_scipy_stats():
    code = (
        "import sys, dpdq.shift as s; [getattr(s, n) for n in s.__all__]; "
        "print([m for m in ('sklearn', 'scipy.stats', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_clean_labels():
    pd = pytest.importorskip("pandas")
    assert clean_labels([True, False], "y").dtype == bool
    assert clean_labels(np.array([True, 1, 2.5], dtype=object), "y").dtype == float
    assert clean_labels(np.array(["a", 1], dtype=object), "y").tolist() == ["a", "1"]
    assert clean_labels(pd.Series(["a", "b"], dtype="category"), "y").dtype.kind == "U"
    with pytest.raises(DataError, match="y: 1 of 2 values are missing"):
        clean_labels(pd.array([1, None], dtype="Int64"), "y")
    with pytest.raises(DataError, match="y: 1 of 2 values are missing"):
        clean_labels(pd.Series(["a", None], dtype="str"), "y")


def test_same_classes():
    first, second = same_classes(np.array([1.0, 2.0]), np.array(["1", "x"]))
    assert first.tolist() == ["1", "2"]
    assert second.tolist() == ["1", "x"]
    first, second = same_classes(np.array([True]), np.array([1]))
    assert first == second


def test_joint_units():
    q, p, given = joint_units(["a", "b"], ["b", "c", "c"], 2, 3)
    assert given
    assert q.tolist() == [0, 1]
    assert p.tolist() == [1, 2, 2]
    q, p, given = joint_units(None, [5, 5, 6], 2, 3)
    assert len(set(q) | set(p)) == 4
    assert given
    q, p, given = joint_units([5, 5], None, 2, 3)
    assert len(set(q)) == 1
    assert len(set(p)) == 3
    assert not set(q) & set(p)
    assert joint_units(None, None, 2, 3)[2] is False
    with pytest.raises(DataError, match="units_p: shape"):
        joint_units(None, [1], 2, 3)
