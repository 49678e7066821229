"""Folds: nothing is scored by a model that saw it, its equal or its group."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings

from dpdq.data.folds import ExclusionMask, assign_folds, seen_elsewhere, units_for_tests
from dpdq.data.hashing import row_hashes
from dpdq.errors import DataError, OptionError

units = st.lists(st.integers(0, 12), min_size=0, max_size=60)


def keys(values):
    return np.array(values, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)


@given(units, units, st.integers(2, 8), st.integers(0, 5))
@settings(max_examples=150, deadline=None)
def test_equal_rows_share_a_fold_and_no_fold_is_empty(q, p, n_folds, seed):
    q, p = keys(q), keys(p)
    folds = assign_folds(q, p, n_folds=n_folds, seed=seed)
    of_unit = {}
    for side, fold in zip((q, p), folds, strict=True):
        assert fold.dtype == np.uint8
        for unit, k in zip(side.tolist(), fold.tolist(), strict=True):
            assert of_unit.setdefault(unit, k) == k
        assert np.unique(fold).size == min(n_folds, np.unique(side).size)


@given(units, units, st.randoms())
@settings(max_examples=80, deadline=None)
def test_folds_move_with_the_rows_and_with_the_sides(q, p, random):
    q, p = keys(q), keys(p)
    order = list(range(q.size))
    random.shuffle(order)
    order = np.array(order, np.int64)
    folds_q, folds_p = assign_folds(q, p)
    moved_q, moved_p = assign_folds(q[order], p)
    assert np.array_equal(moved_q, folds_q[order])
    assert np.array_equal(moved_p, folds_p)
    back_p, back_q = assign_folds(p, q)
    assert np.array_equal(back_q, folds_q)
    assert np.array_equal(back_p, folds_p)


def test_many_rows_fold_by_hash_alone():
    rng = np.random.default_rng(0)
    q = rng.integers(0, 2**63, 20_000).astype(np.uint64)
    folds, _ = assign_folds(q, q[:5000])
    part, again = assign_folds(q[:10_000], q[:2000])
    assert np.array_equal(part, folds[:10_000])
    assert np.array_equal(again, folds[:2000])
    counts = np.bincount(folds, minlength=5)
    assert np.abs(counts - 4000).max() < 6 * np.sqrt(20_000 * 0.16)  # false alarm below 1e-8
    other, _ = assign_folds(q, q[:5000], seed=1)
    assert 0.1 < np.mean(other == folds) < 0.3


def test_a_small_side_beside_a_large_one():
    q = keys(np.arange(300_000))
    p = keys([5, 299_999, 10**6, 10**6 + 1, 10**6 + 2])
    folds_q, folds_p = assign_folds(q, p)
    assert sorted(folds_p.tolist()) == [0, 1, 2, 3, 4]
    assert folds_q[5] == folds_p[0]
    assert folds_q[299_999] == folds_p[1]
    assert np.unique(folds_q).size == 5


def test_few_large_groups_are_balanced():
    rng = np.random.default_rng(0)
    groups = keys(rng.choice(20, size=10_000, p=np.arange(1, 21) / 210))
    content = keys(np.arange(10_000))
    folds_q, _ = assign_folds(content, content, group_q=groups, group_p=groups)
    counts = np.bincount(folds_q, minlength=5)
    assert counts.max() / counts.min() < 1.2


@given(st.lists(st.integers(0, 30), min_size=1, max_size=80), st.integers(2, 8))
@settings(max_examples=150, deadline=None)
def test_time_blocks_are_successive_and_as_equal_as_ties_allow(times, n_folds):
    time = np.array(times)
    content = keys(np.arange(time.size))
    folds, _ = assign_folds(content, content, time_q=time, time_p=time, n_folds=n_folds)
    order = np.argsort(time, kind="stable")
    assert (np.diff(folds[order].astype(int)) >= 0).all()
    for value in np.unique(time):
        assert np.unique(folds[time == value]).size == 1
    assert np.unique(folds).size == min(n_folds, np.unique(time).size)


def test_time_blocks_without_ties_are_equal():
    time = np.random.default_rng(0).permutation(1003).astype("datetime64[s]")
    folds, other = assign_folds(
        keys(np.arange(1003)), keys(np.arange(10)), time_q=time, time_p=np.arange(10)[::-1]
    )
    counts = np.bincount(folds)
    assert counts.max() - counts.min() <= 1
    assert other.tolist() == [4, 4, 3, 3, 2, 2, 1, 1, 0, 0]


def test_missing_times_come_last():
    time = np.array([3.0, np.nan, 1.0, 2.0, np.nan])
    folds, _ = assign_folds(keys(range(5)), keys(range(5)), time_q=time, time_p=time, n_folds=4)
    assert folds.tolist() == [2, 3, 0, 1, 3]


def test_blocked_bike_days_stay_together(shared_data):
    table = pq.read_table(shared_data / "bike_hourly.parquet")
    content = row_hashes(table, ["temp", "hum", "windspeed"])
    day = table["dteday"].to_numpy()
    folds, _ = assign_folds(content, content, time_q=day, time_p=day)
    assert np.unique(folds).size == 5
    first = {k: day[folds == k].min() for k in range(5)}
    last = {k: day[folds == k].max() for k in range(5)}
    assert all(last[k] < first[k + 1] for k in range(4))


def test_wrong_arguments():
    rows = keys(range(3))
    with pytest.raises(OptionError, match="n_folds is 1; give a number from 2 to 16"):
        assign_folds(rows, rows, n_folds=1)
    with pytest.raises(DataError, match="groups are missing on side p"):
        assign_folds(rows, rows, group_q=rows)
    with pytest.raises(DataError, match="side p has 3 rows but 2 times"):
        assign_folds(rows, rows, time_q=np.arange(3), time_p=np.arange(2))
    with pytest.raises(OptionError, match="n_folds is 99"):
        ExclusionMask(rows, n_folds=99)
    mask = ExclusionMask(rows)
    with pytest.raises(DataError, match="for the sample and the rows shown"):
        mask.update(rows, np.zeros(3, np.uint8), rows)


@given(
    st.lists(
        st.tuples(st.integers(0, 8), st.integers(0, 5), st.integers(0, 3)), min_size=1, max_size=50
    ),
    st.booleans(),
    st.integers(1, 20),
    st.randoms(),
)
@settings(max_examples=100, deadline=None)
def test_exclusions_against_brute_force(rows, with_groups, batch, random):
    content, group, folds = (np.array(part) for part in zip(*rows, strict=True))
    chosen = np.array(sorted(random.sample(range(len(rows)), k=(len(rows) + 1) // 2)))
    k_content, k_group = keys(content), keys(group) if with_groups else None
    expected = np.zeros((chosen.size, 4), bool)
    for i, row in enumerate(chosen):
        for k in range(4):
            near = content == content[row]
            if with_groups:
                near |= group == group[row]
            expected[i, k] = folds[row] == k or np.any(near & (folds == k))
    got = seen_elsewhere(
        folds[chosen],
        k_content[chosen],
        None if k_group is None else k_group[chosen],
        folds,
        k_content,
        k_group,
        n_folds=4,
    )
    assert np.array_equal(got, expected)
    sample_group = None if k_group is None else k_group[chosen]
    masks = [ExclusionMask(k_content[chosen], sample_group, n_folds=4) for _ in range(2)]
    for number, start in enumerate(range(0, len(rows), batch)):
        part = slice(start, start + batch)
        shown = None if k_group is None else k_group[part]
        masks[number % 2].update(k_content[part], folds[part], shown)
    merged = masks[0].merge(masks[1])
    for k in range(4):
        assert np.array_equal(merged.training_mask(k, folds[chosen]), ~expected[:, k])


def test_content_folds_exclude_their_own_fold_alone():
    content = keys(np.random.default_rng(0).integers(0, 300, 1000))
    folds, _ = assign_folds(content, content)
    got = seen_elsewhere(folds, content, None, folds, content, None)
    assert np.array_equal(got, folds[:, None] == np.arange(5))


def test_empty_sample():
    none = np.zeros(0, np.uint64)
    rows = keys(range(3))
    assert seen_elsewhere(none, none, None, np.zeros(3), rows, None).shape == (0, 5)
    folds_q, folds_p = assign_folds(none, rows, time_q=none, time_p=np.arange(3))
    assert folds_q.size == 0
    assert folds_p.size == 3


def test_units():
    assert units_for_tests() is None
    q, p = units_for_tests(group_q=keys([5, 7, 5]), group_p=keys([7, 9]))
    assert q[0] == q[2] != q[1] == p[0] != p[1]
    q, p = units_for_tests(time_q=np.arange(100), time_p=np.arange(40), group_q=q, group_p=p)
    assert np.bincount(q).tolist() == [5] * 20
    assert np.unique(p).tolist() == list(range(20, 40))
