"""Saved weighters: the same bits again, refusals, files that cannot hurt."""

import json
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dpdq.data import Reference, open_source
from dpdq.errors import DataError, FileError, InputTypeError, NotFittedError
from dpdq.reweight import (
    CovariateBalancingPropensity,
    EntropyBalancing,
    InversePropensityWeighting,
    OverlapWeights,
    PostStratification,
    Raking,
    StableBalancingWeights,
    Weighter,
    load,
    save,
)


def mixed(n, seed, shift=0.0):
    """Numbers with missing values, levels, rare levels, booleans, instants and vectors."""
    rng = np.random.default_rng(seed)
    age = rng.normal(40 + 4 * shift, 10, n)
    levels = np.array(["a", "b", "c", "rare", "odd"])
    town = levels.astype(object)[
        rng.choice(5, n, p=[0.5 - 0.2 * shift, 0.3 + 0.2 * shift, 0.19, 0.005, 0.005])
    ]
    return pa.table(
        {
            "age": pa.array(np.where(rng.random(n) < 0.1, np.nan, age), from_pandas=True),
            "town": pa.array(np.where(rng.random(n) < 0.05, None, town)),
            "flag": rng.random(n) < 0.4 + 0.1 * shift,
            "when": pa.array(
                (1_700_000_000 + rng.integers(0, 10**7, n)) * 10**6, pa.timestamp("us")
            ),
            "vector": pa.FixedSizeListArray.from_arrays(
                rng.normal(0.2 * shift, 1, 2 * n), 2
            ).cast(pa.list_(pa.float64())),
        }
    )  # fmt: skip


Q, P, NEW = mixed(3000, 0), mixed(2000, 1, 0.5), mixed(900, 2, 0.3)
CASES = {
    "entropy": (EntropyBalancing(), {}),
    "moments": (EntropyBalancing(), {"moments": {"age": 3}, "interactions": [("town", "flag")]}),
    "tolerance": (EntropyBalancing(tolerance=0.02, cap=4.0), {"moments": 2}),
    "cbps": (CovariateBalancingPropensity(), {}),
    "cbps-over": (CovariateBalancingPropensity(method="over"), {}),
    "ipw": (InversePropensityWeighting(penalty=0.001), {"interactions": [("age", "flag")]}),
    "ipw-capped": (InversePropensityWeighting(penalty=0.0, cap=1.5), {}),
    "ipw-bins": (InversePropensityWeighting(penalty=0.001, bins=5), {}),
    "raking": (Raking(bins=6), {}),
    "raking-joint": (Raking(bins=4), {"interactions": [("town", "flag")]}),
    "stable": (StableBalancingWeights(), {"moments": 2}),
    "overlap": (OverlapWeights(), {}),
    "cells": (PostStratification(bins=3, collapse=True), {}),
}


@pytest.mark.parametrize("name", CASES)
def test_comes_back_to_the_last_bit(name, tmp_path):
    weighter, options = CASES[name]
    cells = name in ("cells", "ipw-bins", "raking", "raking-joint")
    columns = ["age", "town", "flag"] if cells else Q.column_names
    q, p, new = (side.select(columns) for side in (Q, P, NEW))
    weighter.fit(q, p, **options)
    save(weighter, tmp_path / "model.dpdq")
    again = load(tmp_path / "model.dpdq")
    for rows in (q, new, new.slice(5, 1), new.to_pandas()):
        assert np.array_equal(again.log_ratio(rows), weighter.log_ratio(rows))
    assert again.margins_ == weighter.margins_
    assert again.columns == tuple(columns)
    assert type(weighter).__name__ in repr(again)


def test_plain_arrays_and_design_weights(tmp_path):
    rng = np.random.default_rng(0)
    q, p = rng.normal(0, 1, (500, 3)), rng.normal(0.3, 1, (400, 3))
    weighter = EntropyBalancing().fit(q, p, weights_q=rng.integers(0, 3, 500))
    save(weighter, tmp_path / "model.dpdq")
    again = load(tmp_path / "model.dpdq")
    assert again.columns is None
    assert np.array_equal(again.log_ratio(q), weighter.log_ratio(q))
    with pytest.raises(DataError, match="columns"):
        again.log_ratio(q[:, :2])


def test_totals(tmp_path):
    shares = {"town": {"a": 0.4, "b": 0.6}, "age": 41.0}
    q = pa.table({"town": ["a", "b", "a", "b"], "age": [20.0, 30.0, 50.0, 60.0]})
    weighter = EntropyBalancing().fit(q, targets=shares)
    save(weighter, tmp_path / "model.dpdq")
    assert np.array_equal(load(tmp_path / "model.dpdq").log_ratio(q), weighter.log_ratio(q))


def test_rows_without_weight(tmp_path):
    q = pa.table({"town": ["a", "b", "c", "b", "a", "c"], "sex": ["f", "m"] * 3})
    p = pa.table({"town": ["a", "b", "b", "a"], "sex": ["f", "m", "f", "m"]})
    weighter = EntropyBalancing().fit(q, p)
    save(weighter, tmp_path / "model.dpdq")
    found = load(tmp_path / "model.dpdq").log_ratio(q)
    assert np.array_equal(found, weighter.log_ratio(q))
    assert np.isneginf(found[[2, 5]]).all()


def test_strange_rows_are_named(tmp_path):
    q = pa.table({"town": ["a", "b"] * 10, "age": [1.0, 2.0, 3.0, 4.0] * 5})
    save(EntropyBalancing().fit(q, q.slice(0, 15)), tmp_path / "m.dpdq")
    model = load(tmp_path / "m.dpdq")
    with pytest.raises(DataError, match=r"'town' of x: 1 of 2 rows \(first row 1\) have a level"):
        model.log_ratio({"town": ["a", "z"], "age": [1.0, 2.0]})
    with pytest.raises(DataError, match="no column 'age'"):
        model.log_ratio({"town": ["a"]})
    with pytest.raises(DataError, match="are missing"):
        model.log_ratio({"town": ["a", "a"], "age": [1.0, None]})
    with pytest.raises(DataError, match="no column 'town'.*they have 'age', 'other'"):
        model.names_in(["age", "other"])


class OnRowsOnly(Weighter):
    """Weights of rows that are no function of x."""

    def _solve(self, problem):
        from dpdq.reweight._common import Solution

        return Solution(np.zeros(len(problem.q)))

    def _influence(self, problem, weights, scores):
        raise NotImplementedError


class Foreign(EntropyBalancing):
    """A class that dpdq does not know."""


def test_what_cannot_be_kept_is_refused(tmp_path):
    q, p = np.random.default_rng(0).normal(0, 1, (2, 50, 2))
    path = tmp_path / "model.dpdq"
    with pytest.raises(InputTypeError, match="OnRowsOnly gives weights to the rows of q alone"):
        save(OnRowsOnly().fit(q, p), path)
    with pytest.raises(InputTypeError, match="Foreign cannot be kept"):
        save(Foreign().fit(q, p), path)
    with pytest.raises(InputTypeError, match="takes a fitted weighter, not dict"):
        save({}, path)
    with pytest.raises(NotFittedError):
        save(EntropyBalancing(), path)
    assert list(tmp_path.iterdir()) == []


def test_damaged_and_foreign_files(tmp_path):
    rng = np.random.default_rng(0)
    q, p = rng.normal(0, 1, (2, 50, 2))
    path = tmp_path / "model.dpdq"
    save(EntropyBalancing().fit(q, p), path)
    content = path.read_bytes()
    save(EntropyBalancing().fit(q, p), path)
    assert path.read_bytes() == content  # equal fits give equal files
    with pytest.raises(FileError, match="does not exist"):
        load(tmp_path / "absent.dpdq")
    for cut in (10, len(content) // 2, len(content) - 5):
        (tmp_path / "cut.dpdq").write_bytes(content[:cut])
        with pytest.raises(FileError, match=r"cut\.dpdq"):
            load(tmp_path / "cut.dpdq")
    Reference.save(tmp_path / "ref.dpdq", open_source({"a": [1, 2]}, side="q"), kinds={})
    with pytest.raises(FileError, match="is a reference"):
        load(tmp_path / "ref.dpdq")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as packed:
        packed.writestr("hello.txt", "hello")
    with pytest.raises(FileError, match="no weighter saved by dpdq"):
        load(tmp_path / "other.zip")


def rewritten(path, target, change):
    """A copy of a saved weighter with another state."""
    with zipfile.ZipFile(path) as packed, zipfile.ZipFile(target, "w") as made:
        for name in packed.namelist():
            data = packed.read(name)
            if name == "state.json":
                state = json.loads(data)
                change(state["fields"])
                data = json.dumps(state)
            made.writestr(name, data)


def test_hostile_states_run_nothing(tmp_path):
    rng = np.random.default_rng(0)
    q, p = rng.normal(0, 1, (2, 50, 2))
    path, bad = tmp_path / "model.dpdq", tmp_path / "bad.dpdq"
    save(EntropyBalancing().fit(q, p), path)
    changes = [
        lambda fields: fields.update(method="ConvergenceError"),
        lambda fields: fields.update(method="__import__"),
        lambda fields: fields.update(margins={"$": "tuple", "items": ["x0"]}),
        lambda fields: fields.update(recipe=None),
        lambda fields: fields.update(format="other"),
        lambda fields: fields.pop("shift"),
        lambda fields: fields.update(fitted={"$": "dict", "items": []}),
    ]
    for change in changes:
        rewritten(path, bad, change)
        with pytest.raises(FileError, match=r"bad\.dpdq' is damaged"):
            load(bad)
    rewritten(path, bad, lambda fields: fields.update(format_version=99))
    with pytest.raises(FileError, match="format version 99 and this dpdq reads 1"):
        load(bad)


def test_real_data(shared_data, tmp_path):
    table = pq.read_table(shared_data / "adult.parquet")
    young = np.asarray(table["age"]) < 40
    columns = ["workclass", "education-num", "marital-status", "sex", "hours-per-week"]
    q = table.select(columns).filter(pa.array(young))
    p = table.select(columns).filter(pa.array(~young))
    weighter = EntropyBalancing().fit(q, p, moments={"hours-per-week": 2})
    save(weighter, tmp_path / "model.dpdq")
    assert np.array_equal(load(tmp_path / "model.dpdq").log_ratio(q), weighter.log_ratio(q))
