"""Under q = p the verdict's p-value is a p-value, on real rows."""

import numpy as np
import pyarrow.parquet as pq
import pytest

import dpdq
import dpdq.distance
from dpdq._threads import one_thread_each
from dpdq.data import Features, infer_columns
from dpdq.distance import mmd_test


def halves(table, draw, rows=500):
    rng = np.random.default_rng(draw)
    chosen = rng.choice(table.num_rows, 2 * rows, replace=False)
    return table.take(np.sort(chosen[:rows])), table.take(np.sort(chosen[rows:]))


def pvalue_of(q, p, seed):
    """The verdict's p-value without the rest of the job."""
    features = Features().fit(q, p, infer_columns(q, p))
    return mmd_test(features.dense(q), features.dense(p), random_state=seed).pvalue


@pytest.fixture(scope="module")
def adult(shared_data):
    return pq.read_table(shared_data / "adult.parquet")


def test_the_short_way_is_the_way_of_the_job(adult, monkeypatch):
    seen = {}

    def spy(q, p, **options):
        seen.update(q=q, p=p, seed=options["random_state"])
        return mmd_test(q, p, **options)

    monkeypatch.setattr(dpdq.distance, "mmd_test", spy)
    for draw in range(3):
        q, p = halves(adult, draw)
        c = dpdq.compare(q, p, random_state=draw)
        assert c.verdict.pvalue == pvalue_of(q, p, seen["seed"])


@pytest.mark.slow
def test_level_on_random_halves_of_adult(adult):
    """P(p <= 0.05) over 1,000 halves of 500 + 500 rows lies between 2 % and 8.6 %.

    For a test of level exactly 5 %, either end is crossed less than once in a million times.
    """
    with one_thread_each():
        found = np.array([pvalue_of(*halves(adult, draw), seed=draw) for draw in range(1000)])
    assert 0.02 <= np.mean(found <= 0.05) <= 0.086
    assert found.min() > 0


@pytest.mark.slow
def test_shift_is_rarely_called_on_random_halves(adult):
    """A verdict of level at most 5 % calls 7 or more of 12 halves less than once in a million."""
    called = [
        dpdq.compare(*halves(adult, 5000 + i), random_state=i).verdict.shifted for i in range(12)
    ]
    assert sum(called) < 7
