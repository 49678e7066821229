"""Covariate-balancing propensity: one estimator with entropy balancing, and the J statistic."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy.optimize import minimize

from dpdq.errors import OptionError
from dpdq.reweight import (
    CovariateBalancingPropensity,
    EntropyBalancing,
    InversePropensityWeighting,
)


def shifted(n=600, m=400, d=2, shift=0.4, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)), rng.normal(size=(m, d)) + shift


def test_exact_equals_entropy_balancing(shared_data):
    table = pq.read_table(shared_data / "bike_hourly.parquet").to_pandas()
    columns = ["temp", "hum", "windspeed", "workingday", "hr"]
    q, p = (table[table.season == season][columns] for season in (2, 3))
    exact = CovariateBalancingPropensity().fit(q, p, moments={"hum": 2})
    entropy = EntropyBalancing().fit(q, p, moments={"hum": 2})
    assert exact.weights_ == pytest.approx(entropy.weights_)
    assert exact.coef_ == pytest.approx(entropy.coef_)
    assert exact.diagnostics().largest_after < 1e-9
    assert exact.j_statistic_ is None
    y = table[table.season == 2]["cnt"].to_numpy()
    assert exact.estimate(y).standard_error == pytest.approx(entropy.estimate(y).standard_error)


def test_exact_solves_the_propensity_equations():
    """With odds fitted so that q's odds sum to n_p, odds-weighted q and p have equal totals."""
    q, p = shifted()
    model = CovariateBalancingPropensity().fit(q, p)
    odds = np.exp(model.log_ratio(q)) * len(p) / len(q)
    assert odds.sum() == pytest.approx(len(p))
    assert odds @ q == pytest.approx(p.sum(axis=0), abs=1e-8)


def test_over_minimises_the_moment_criterion():
    q, p = shifted()
    model = CovariateBalancingPropensity(method="over").fit(q, p)
    moments = model._moments
    weighting = np.linalg.pinv(moments.variance(moments.likelihood()[0]))

    def criterion(theta):
        g = moments.mean(theta)[0]
        return 1e4 * g @ weighting @ g

    found = minimize(criterion, np.zeros(3), method="BFGS", options={"gtol": 1e-9})
    assert moments.theta == pytest.approx(found.x, abs=1e-5)
    step = 1e-6 * np.eye(3)
    slope = [
        (moments.mean(moments.theta + e)[0] - moments.mean(moments.theta - e)[0]) / 2e-6
        for e in step
    ]
    assert moments.mean(moments.theta)[1] == pytest.approx(np.array(slope).T, abs=1e-8)
    u = weighting @ moments.mean(moments.theta)[0]
    bend = [
        (moments.mean(moments.theta + e)[1] - moments.mean(moments.theta - e)[1]).T @ u / 2e-6
        for e in step
    ]
    assert moments._bend(moments.theta, u) == pytest.approx(np.array(bend).T, abs=1e-8)


def test_over_lies_near_likelihood_and_balance():
    q, p = shifted(40_000, 30_000)
    over = CovariateBalancingPropensity(method="over").fit(q, p)
    likelihood = InversePropensityWeighting(penalty=0.0).fit(q, p)
    exact = CovariateBalancingPropensity().fit(q, p)
    for other in (likelihood, exact):
        assert over.coef_ == pytest.approx(other.coef_, abs=0.03)
    assert over.diagnostics().largest_after < 0.02
    assert "J statistic" in over.diagnostics().status


def test_j_statistic_is_calibrated_under_its_model():
    """200 draws of a chi-square with 3 degrees of freedom: 5 % rejections, at most 13 %.

    A test at level 5 % rejects more than 26 of 200 with probability below 1e-5; with seeds fixed
    the draw is the same each time.
    """
    found = [
        CovariateBalancingPropensity(method="over").fit(*shifted(800, 1200, 2, 0.3, seed))
        for seed in range(200)
    ]
    values = np.array([model.j_statistic_ for model in found])
    assert 2.4 < values.mean() < 3.6  # a standard error is 0.17
    assert np.mean([model.j_pvalue_ < 0.05 for model in found]) < 0.13


def test_j_statistic_sees_a_curved_log_ratio():
    rng = np.random.default_rng(0)
    q, p = rng.normal(0, 1, (2000, 1)), rng.normal(0.5, 0.6, (2000, 1))
    curved = CovariateBalancingPropensity(method="over").fit(q, p)
    assert curved.j_pvalue_ < 1e-6
    assert "log r is not linear in these margins" in curved.diagnostics().status
    squares = CovariateBalancingPropensity(method="over").fit(q, p, moments=2)
    assert squares.j_pvalue_ > 0.001


def test_nothing_to_balance_is_no_evidence():
    one = np.ones((20, 1))
    model = CovariateBalancingPropensity(method="over").fit(one, one)
    assert (model.j_statistic_, model.j_freedom_, model.j_pvalue_) == (0, 0, 1)
    assert model.weights_ == pytest.approx(1)


def test_refusals():
    q, p = shifted()
    with pytest.raises(OptionError, match="Unknown method 'best'. Choose one of 'exact', 'over'"):
        CovariateBalancingPropensity(method="best").fit(q, p)
    for method in ("exact", "over"):
        with pytest.raises(OptionError, match="needs rows of p, not totals"):
            CovariateBalancingPropensity(method=method).fit(q, targets={"x0": 0.1})
