"""Effects: PSI, JSD and SMD against formulas, and whether their intervals hold."""

import math

import numpy as np
import pytest
from scipy import special, stats
from scipy.spatial.distance import jensenshannon

from dpdq.distance import _laws, effects
from dpdq.errors import DataError


def test_psi_equals_its_formula():
    a, b = np.array([100, 200, 700]), np.array([300, 300, 400])
    u, v = (a + 0.5) / 1001.5, (b + 0.5) / 1001.5
    assert effects.psi_of_counts(a, b) == pytest.approx(np.sum((v - u) * np.log(v / u)))
    assert effects.psi_of_counts(a, b) == pytest.approx(effects.psi_of_counts(b, a))
    assert math.isfinite(effects.psi_of_counts([10, 0], [0, 10]))
    # bins that neither side uses change nothing
    spread = [100, 0, 200, 0, 700], [300, 0, 300, 0, 400]
    assert effects.psi_of_counts(*spread) == effects.psi_of_counts(a, b)


def test_jensen_shannon_matches_scipy():
    rng = np.random.default_rng(1)
    for _ in range(20):
        a, b = rng.integers(0, 30, 8), rng.integers(0, 30, 8)
        assert effects.jensen_shannon_of_counts(a, b) == pytest.approx(
            jensenshannon(a, b) ** 2, abs=1e-12
        )
    assert effects.jensen_shannon_of_counts([5, 0], [0, 9]) == pytest.approx(math.log(2))
    assert effects.jensen_shannon_of_counts([5, 5], [2, 2]) == 0.0


def _psi_of_shifted_normals(shift):
    edges = np.concatenate([[-np.inf], special.ndtri(np.arange(1, 10) / 10), [np.inf]])
    p = np.diff(special.ndtr(edges - shift))
    return float(np.sum((p - 0.1) * np.log(p / 0.1)))


@pytest.mark.parametrize("sizes", [(60, 60), (100, 1000), (1000, 100), (1000, 1000), (8, 1000)])
def test_psi_interval_covers(sizes):
    """Near zero and far: the low end above the truth at most 2.5 %, the high end below it too.

    500 draws each, so that 44 misses (8.8 %) of a valid 5 % interval have probability below 1e-4
    a side and a nominal 2.5 % end missing 37 times below 1e-7.
    """
    n, m = sizes
    rng = np.random.default_rng(2)
    for shift in (0.0, 0.1, 0.5):
        truth = _psi_of_shifted_normals(shift)
        above = below = 0
        estimates = []
        for _ in range(500):
            found = effects.population_stability_index(rng.normal(size=n), rng.normal(shift, 1, m))
            above += found.low > truth
            below += found.high is not None and found.high < truth
            estimates.append(found.estimate)
        assert above <= 37
        assert below <= 37
        if min(n, m) >= 1000:  # unbiased where the plain index is off by 0.018
            assert abs(np.mean(estimates) - truth) < 5.5 * np.std(estimates) / np.sqrt(500) + 1e-3


@pytest.mark.parametrize("k", [2, 5, 30])
def test_psi_low_end_under_no_change(k):
    rng = np.random.default_rng(3)
    share = rng.dirichlet(np.full(k, 3.0))
    for n, m in ((300, 300), (500, 5000)):
        false = 0
        for _ in range(1000):
            found = effects.psi_estimate(rng.multinomial(n, share), rng.multinomial(m, share))
            false += found.low > 0
        assert false <= 55  # 2.5 % nominal: more than 5.5 % has probability below 1e-7


def test_psi_has_no_high_end_where_bins_are_empty_on_one_side():
    found = effects.psi_estimate([100, 100, 0], [100, 100, 50])
    assert found.high is None
    assert "at least" in found.reason
    assert found.low > 0.1
    assert effects.psi_estimate([100, 100], [100, 100]).high > 0
    assert effects.psi_estimate([0, 0], [1, 1]).estimate is None
    assert effects.psi_estimate([7, 0], [5, 0]).estimate == 0.0


def test_design_effect_widens():
    rng = np.random.default_rng(4)
    units = 60
    shares = rng.dirichlet([2.0, 3.0, 5.0], units)
    clustered = np.array([rng.multinomial(30, s) for s in shares])
    # Dirichlet-multinomial: 1 + (size - 1) / (1 + alpha)
    assert effects.design_effect(clustered) == pytest.approx(1 + 29 / 11, rel=0.3)
    plain = rng.multinomial(30, [0.2, 0.3, 0.5], units)
    assert effects.design_effect(plain) == pytest.approx(1, abs=0.45)
    assert math.isnan(effects.design_effect(clustered[:1]))
    a, b = clustered.sum(axis=0), plain.sum(axis=0)
    narrow, wide = effects.psi_estimate(a, b), effects.psi_estimate(a, b, design_q=4.0)
    assert wide.low <= narrow.low
    assert wide.high > narrow.high


def test_decile_bins():
    s = np.sort(np.random.default_rng(5).normal(size=1000))
    cuts, before = effects.decile_cuts(s, 1000)
    np.testing.assert_array_equal(effects.counts_between(s, cuts, before), np.full(10, 100))
    # a value with much of the mass has its own bin; constants are told from what lies around
    zeros = np.sort(np.concatenate([np.zeros(600), np.arange(1.0, 401)]))
    cuts, before = effects.decile_cuts(zeros, 1000)
    assert 600 in effects.counts_between(zeros, cuts, before)
    cuts, before = effects.decile_cuts(np.full(50, 3.0), 50)
    np.testing.assert_array_equal(
        effects.counts_between(np.array([1.0, 2.0, 3.0, 9.0]), cuts, before), [2, 1, 1]
    )
    rng = np.random.default_rng(6)
    for values in (rng.integers(0, 6, 300).astype(float), rng.normal(size=300), zeros):
        ordered = np.sort(values)
        cuts, before = effects.decile_cuts(ordered, 300)
        other = np.sort(rng.integers(-2, 9, 200) + rng.choice([0.0, 0.5], 200))
        cells = effects.cells_between(other, cuts, before)
        np.testing.assert_array_equal(
            np.bincount(cells, minlength=len(cuts) + 1),
            effects.counts_between(other, cuts, before),
        )


def test_noncentrality_bound_inverts_the_noncentral_chi_square():
    for x, df in ((20.0, 9.0), (3.0, 1.0), (900.0, 14.5), (40.0, 30.0)):
        for probability in (0.025, 0.975):
            nc = _laws.noncentrality_bound(x, df, probability)
            if nc > 0:
                assert stats.ncx2(df, nc).cdf(x) == pytest.approx(probability, abs=1e-6)
            else:
                assert stats.chi2(df).cdf(x) <= probability
    far = _laws.noncentrality_bound(50_000.0, 9.0, 0.975)
    assert special.chndtr(50_000.0, 9.0, far) == pytest.approx(0.975, abs=1e-4)


def test_smd_interval_covers():
    rng = np.random.default_rng(7)
    for draw, spread in (
        (lambda k: rng.normal(size=k), 1.0),
        (lambda k: rng.exponential(size=k), 1.0),
    ):
        for shift in (0.0, 0.6):
            inside = 0
            for _ in range(1000):
                found = effects.standardised_mean_difference(draw(150), shift + draw(400))
                inside += found.low <= shift / spread <= found.high
            assert inside >= 905  # 95 % nominal: fewer has probability below 1e-8


def test_smd_weights():
    rng = np.random.default_rng(8)
    q, p = rng.normal(size=400), rng.normal(size=300) + 0.5
    w = np.exp(0.5 * q - 0.125)  # from N(0, 1) to N(0.5, 1)
    before = effects.standardised_mean_difference(q, p)
    after = effects.standardised_mean_difference(q, p, w)
    assert abs(after.estimate) < abs(before.estimate) / 2
    spread = np.sqrt((q.var(ddof=1) + p.var(ddof=1)) / 2)
    assert after.estimate == pytest.approx((p.mean() - np.average(q, weights=w)) / spread)
    again = effects.standardised_mean_difference(q, p, 7 * w)
    assert again.estimate == pytest.approx(after.estimate)
    assert again.high == pytest.approx(after.high)
    ones = effects.standardised_mean_difference(q, p, np.ones(400))
    assert ones.low == pytest.approx(before.low)


def test_smd_invariances_and_edges():
    rng = np.random.default_rng(9)
    q, p = rng.normal(size=50), rng.normal(size=70) + 1
    one = effects.standardised_mean_difference(q, p)
    moved = effects.standardised_mean_difference(1e9 + 3 * q, 1e9 + 3 * p)
    assert moved.estimate == pytest.approx(one.estimate, rel=1e-5)
    back = effects.standardised_mean_difference(p, q)
    assert back.estimate == pytest.approx(-one.estimate)
    assert back.low == pytest.approx(-one.high)
    assert effects.standardised_mean_difference([1.0, 1.0], [1.0]).estimate == 0.0
    assert effects.standardised_mean_difference([0.1] * 3, [0.2] * 7).estimate is None
    single = effects.standardised_mean_difference([1.0, 2.0], [5.0])
    assert single.low is None
    assert "too few rows" in single.reason
    units = np.repeat(np.arange(10), 5)
    grouped = effects.standardised_mean_difference(
        np.repeat(rng.normal(size=10), 5), np.repeat(rng.normal(size=10), 5),
        units_q=units, units_p=units + 10,
    )  # fmt: skip
    assert grouped.high - grouped.low > 1.2  # ten independent groups, not fifty rows


def test_refusals():
    with pytest.raises(DataError, match="q holds values that are missing"):
        effects.population_stability_index([1.0, np.nan], [1.0])
    with pytest.raises(DataError, match=r"p has shape \(0,\)"):
        effects.standardised_mean_difference([1.0], [])
    with pytest.raises(DataError, match="weights_q must be"):
        effects.standardised_mean_difference([1.0, 2.0], [1.0], [1.0])
