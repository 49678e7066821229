import numpy as np
import pytest

from dpdq.errors import DataError
from dpdq.select import conditional_utility, top_k

RNG = np.random.default_rng(0)
SOURCE = RNG.integers(0, 4, 4000)
LENGTH = RNG.lognormal(size=4000)
REAL = RNG.normal(size=4000)


def test_a_score_that_only_sorts_by_source_is_told():
    told = conditional_utility(10 * SOURCE + 0.01 * REAL, {"source": SOURCE})
    assert told.explained > 0.9
    assert "it only sorts by source" in told.status
    free = conditional_utility(REAL, {"source": SOURCE, "length": LENGTH})
    assert free.explained < 0.03
    assert "only sorts" not in free.status
    assert free.n_strata == 40


def test_the_conditional_score_keeps_strata_at_one_rate_and_the_order_within():
    told = conditional_utility(REAL + 3 * SOURCE + np.log(LENGTH), {"s": SOURCE, "len": LENGTH})
    assert told.by_column["s"] > told.by_column["len"] > 0.05
    assert told.explained > told.by_column["s"]
    rates = top_k(told.utility, fraction=0.3).keep_rates(SOURCE)["share"].to_pylist()
    assert max(rates) - min(rates) < 0.01
    inside = SOURCE == 2
    one = conditional_utility(REAL, {"s": SOURCE}).utility[inside]
    assert np.argsort(one).tolist() == np.argsort(REAL[inside]).tolist()


def test_small_strata_are_joined_and_dropped_rows_stay_dropped():
    many = np.arange(4000) // 5
    assert conditional_utility(REAL, {"many": many.astype(str)}).n_strata == 1
    values = np.where(SOURCE == 0, -np.inf, REAL)
    told = conditional_utility(values, {"source": SOURCE})
    assert (told.utility[SOURCE == 0] == -np.inf).all()
    assert (told.utility[SOURCE != 0] > 0).all()


def test_bad_input():
    with pytest.raises(DataError, match="nuisance is empty"):
        conditional_utility(REAL, {})
    with pytest.raises(DataError, match=r"labels have shape \(3,\)"):
        conditional_utility(REAL, {"x": [1, 2, 3]})
