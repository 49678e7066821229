"""GradientBoostingRatio: categories, missing cells, calibration, few rows."""

import numpy as np
import pytest

from dpdq.errors import DataError, OptionError
from dpdq.ratio import GradientBoostingRatio, LogisticRatio
from dpdq.ratio._common import content_hash, validation_split


def test_equal_samples_give_zero():
    rng = np.random.default_rng(0)
    x = np.column_stack([rng.normal(size=1500), rng.integers(0, 6, 1500)])
    x[::50, 0] = np.nan
    model = GradientBoostingRatio([False, True], random_state=0).fit(q=x, p=rng.permutation(x))
    assert np.abs(model.log_ratio(x)).max() < 1e-12


def test_categories_are_unordered():
    """Levels with alternating ratios: trees on codes as numbers need many splits, sets one."""
    rng = np.random.default_rng(0)
    shares = np.tile([0.15, 0.05], 5)
    q, p = rng.choice(10, 6000, p=shares)[:, None], rng.choice(10, 6000, p=shares[::-1])[:, None]
    model = GradientBoostingRatio([True], random_state=0).fit(q=q, p=p)
    truth = np.log(shares[::-1] / shares)
    assert np.abs(model.log_ratio(np.arange(10.0)[:, None]) - truth).max() < 0.25


def test_missing_cells_are_information():
    rng = np.random.default_rng(0)
    q, p = rng.normal(size=(4000, 2)), rng.normal(size=(4000, 2))
    q[rng.random(4000) < 0.1, 0] = np.nan
    p[rng.random(4000) < 0.4, 0] = np.nan
    model = GradientBoostingRatio(random_state=0).fit(q, p)
    assert abs(model.log_ratio([[np.nan, 0.0]])[0] - np.log(4)) < 0.35


def test_curved_ratio_where_the_logistic_is_blind():
    rng = np.random.default_rng(0)
    q, p = rng.normal(size=(4000, 1)), 2 * rng.normal(size=(4000, 1))
    x = np.linspace(-3, 3, 50)[:, None]
    truth = -np.log(2) + 3 * x[:, 0] ** 2 / 8
    trees = GradientBoostingRatio(random_state=0).fit(q, p).log_ratio(x)
    line = LogisticRatio().fit(q, p).log_ratio(x)
    assert np.sqrt(np.mean((trees - truth) ** 2)) < 0.4 < np.sqrt(np.mean((line - truth) ** 2))


def test_calibrated_without_signal():
    """Noise fitted by the trees does not survive the held-out calibration."""
    rng = np.random.default_rng(0)
    q, p = rng.normal(size=(1000, 20)), rng.normal(size=(1000, 20))
    model = GradientBoostingRatio(random_state=0).fit(q, p)
    assert np.abs(model.log_ratio(rng.normal(size=(500, 20)))).mean() < 0.15


def test_few_rows_have_no_split():
    rng = np.random.default_rng(0)
    model = GradientBoostingRatio(random_state=0).fit(rng.normal(size=(8, 1)), np.ones((8, 1)))
    assert (model.intercept_, model.slope_) == (0.0, 1.0)
    assert model.n_iter_ <= 20


def test_split_goes_by_content_on_both_sides():
    rng = np.random.default_rng(0)
    q = rng.integers(0, 30, (500, 2)).astype(float)
    p = q[rng.permutation(500)[:300]]
    split = validation_split(q, p, 0.2, seed=1)
    assert split is not None
    held = {tuple(row) for row in np.vstack([q[split[0]], p[split[1]]])}
    kept = {tuple(row) for row in np.vstack([q[~split[0]], p[~split[1]]])}
    assert held
    assert not held & kept


def test_split_deals_out_the_cells_of_a_discrete_law():
    """Each of five levels stands on both sides of the split, alike for q and p."""
    rng = np.random.default_rng(0)
    q = rng.integers(0, 5, (1000, 1)).astype(float)
    split = validation_split(q, rng.permutation(q), 0.2, seed=1)
    assert split is not None
    for level in range(5):
        share = split[0][q[:, 0] == level].mean()
        assert 0.08 < share < 0.35  # about 200 rows a level: 4 standard errors and more
    assert split[0].sum() == split[1].sum()


def test_content_hash_sees_values_only():
    a = np.array([[0.0, np.nan, 1.0], [1.0, 2.0, 3.0], [2.0, 1.0, 3.0]])
    b = np.array([[-0.0, -np.nan, 1.0], [1.0, 2.0, 3.0], [2.0, 1.0, 3.0]])
    np.testing.assert_array_equal(content_hash(a), content_hash(b))
    assert len(set(content_hash(a).tolist())) == 3
    assert (content_hash(a, 1) != content_hash(a, 2)).all()


def test_refusals():
    q, p = np.zeros((20, 2)), np.ones((20, 2))
    with pytest.raises(DataError, match="categorical_features has dtype int64"):
        GradientBoostingRatio([1, 0]).fit(q, p)
    with pytest.raises(DataError, match=r"of p holds codes outside 0, 1, \.\.\., 254; pool"):
        GradientBoostingRatio([True, False]).fit(q, p + 0.5)
    with pytest.raises(OptionError, match="validation_fraction is 2; expected between 0 and 1"):
        GradientBoostingRatio(validation_fraction=2).fit(q, p)
