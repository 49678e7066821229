import math

import numpy as np
import pytest
from scipy import stats

from dpdq.distance import auc_interval, detectable_auc, detectable_smd
from dpdq.errors import DataError, OptionError


@pytest.mark.slow
def test_detectable_effects_are_detected():
    rng = np.random.default_rng(13)
    n_q, n_p, n_draws = 120, 90, 1500
    for power in (0.5, 0.8):
        shift = detectable_smd(n_q, n_p, power=power)
        found = 0
        for _ in range(n_draws):
            q, p = rng.normal(size=n_q), rng.normal(shift, 1, size=n_p)
            found += stats.ttest_ind(q, p).pvalue <= 0.05
        # five and a half standard errors of a share: false alarm below 1e-7
        assert abs(found / n_draws - power) < 5.5 * math.sqrt(0.25 / n_draws)

        target = detectable_auc(n_q, n_p, power=power)
        shift = math.sqrt(2) * stats.norm.ppf(target)
        found = 0
        for _ in range(n_draws):
            interval = auc_interval(rng.normal(size=n_q), rng.normal(shift, 1, size=n_p))
            found += interval.low > 0.5
        assert abs(found / n_draws - power) < 0.03 + 5.5 * math.sqrt(0.25 / n_draws)


def test_detectable_effects_shrink_with_rows_and_grow_with_clustering():
    assert detectable_auc(10_000, 10_000) < detectable_auc(1000, 1000) < detectable_auc(50, 50)
    assert detectable_auc(50, 50, se_inflation=2.0) > detectable_auc(50, 50)
    assert detectable_auc(1, 1) == 1.0
    assert detectable_smd(100, 50, se_inflation=2.0) == 2 * detectable_smd(100, 50)
    assert detectable_smd(100, 50) == detectable_smd(50, 100)
    assert detectable_smd(64, 64) == pytest.approx(0.4953, abs=1e-4)


def test_wrong_input_is_refused():
    with pytest.raises(OptionError, match="alpha is 0"):
        detectable_smd(10, 10, alpha=0)
    with pytest.raises(OptionError, match="se_inflation is -1"):
        detectable_auc(10, 10, se_inflation=-1)
    with pytest.raises(DataError, match="n_p is 0"):
        detectable_auc(10, 0)
