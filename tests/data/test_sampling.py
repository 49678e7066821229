"""Samples by smallest keys."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from dpdq._random import row_keys
from dpdq.data.sampling import bottom_k_rows
from dpdq.errors import OptionError
from dpdq.passes import BLOCK_ROWS


@given(st.integers(0, 300), st.integers(0, 350), st.integers(0, 10))
@settings(max_examples=100, deadline=None)
def test_the_k_smallest_keys(n, k, seed):
    rows = bottom_k_rows(n, k, seed)
    expected = np.sort(np.argsort(row_keys(0, n, seed), kind="stable")[:k])
    assert rows.dtype == np.int64
    assert np.array_equal(rows, expected)


@pytest.mark.parametrize("k", [1, 1000, 100_000, 199_999])
def test_across_blocks(k):
    n = 3 * BLOCK_ROWS + 17
    expected = np.sort(np.argsort(row_keys(0, n, 4), kind="stable")[:k])
    assert np.array_equal(bottom_k_rows(n, k, 4), expected)


def test_the_sample_is_uniform():
    # 2,000 samples of 5 out of 20: each row is drawn 500 times, sd 19.4; six of them, 20 rows:
    # false alarm below 1e-7
    counts = np.zeros(20)
    for seed in range(2000):
        counts[bottom_k_rows(20, 5, seed)] += 1
    assert np.abs(counts - 500).max() < 6 * np.sqrt(2000 * 0.25 * 0.75)


def test_a_sample_of_a_prefix_holds_the_prefix_of_the_sample():
    whole, part = bottom_k_rows(1000, 100), bottom_k_rows(500, 100)
    assert np.isin(whole[whole < 500], part).all()


def test_negative_sizes():
    with pytest.raises(OptionError, match="neither may be negative"):
        bottom_k_rows(-1, 3)
