"""Ordered values: statistics against SciPy and naive loops, p-values against laws."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from dpdq.distance import _laws, _rank_laws
from dpdq.distance import one_dimension as od
from dpdq.distance._sweep import sweep
from dpdq.errors import DataError, OptionError

LAWS = {
    "continuous": lambda rng, k: rng.normal(size=k),
    "few values": lambda rng, k: rng.integers(0, 5, k).astype(float),
    "half zero": lambda rng, k: np.where(rng.random(k) < 0.5, 0.0, rng.normal(size=k)),
    "heavy tails": lambda rng, k: rng.standard_cauchy(k),
    "whole numbers": lambda rng, k: rng.poisson(300, k),
}
TESTS = {
    "ad": od.anderson_darling_test,
    "ks": od.kolmogorov_smirnov_test,
    "cvm": od.cramer_von_mises_test,
}


def naive_statistic(q, p, test):
    q, p = np.asarray(q, float), np.asarray(p, float)
    n, m = len(q), len(p)
    total = n + m
    worst = ad = cvm = 0.0
    for value in np.unique(np.concatenate([q, p])):
        gap = np.mean(q <= value) - np.mean(p <= value)
        h = (np.sum(q <= value) + np.sum(p <= value)) / total
        mass = (np.sum(q == value) + np.sum(p == value)) / total
        worst = max(worst, abs(gap))
        cvm += mass * gap**2
        if h < 1:
            ad += mass * gap**2 / (h * (1 - h))
    return {"ks": worst, "ad": n * m / total * ad, "cvm": n * m / total * cvm}[test]


def most_rejections(draws, alpha):
    """Exceeded by a valid test with probability below 1e-7."""
    return stats.binom.isf(1e-7, draws, alpha)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("sizes", [(1, 1), (7, 40), (60, 45)])
def test_statistics_equal_a_naive_loop(law, sizes):
    rng = np.random.default_rng(1)
    q, p = LAWS[law](rng, sizes[0]), LAWS[law](rng, sizes[1])
    for name, test in TESTS.items():
        found = test(q, p, n_permutations=9, random_state=0).statistic
        assert found == pytest.approx(naive_statistic(q, p, name), abs=1e-12)


def test_the_sweep_gives_the_same_in_any_blocks(monkeypatch):
    from dpdq.distance import _sweep

    rng = np.random.default_rng(2)
    for law in LAWS.values():
        s, t = np.sort(law(rng, 3000)), np.sort(law(rng, 1100))
        monkeypatch.setattr(_sweep, "_BLOCK", 1 << 20)
        whole = sweep(s, t)
        for block in (7, 64, 1000):
            monkeypatch.setattr(_sweep, "_BLOCK", block)
            cut = sweep(s, t)
            for field in ("ks", "ad", "cvm", "w1"):
                assert getattr(cut, field) == pytest.approx(getattr(whole, field), rel=1e-12)
            for field in ("heavy_values", "heavy_q", "heavy_p", "heavy_below"):
                np.testing.assert_array_equal(getattr(cut, field), getattr(whole, field))


@pytest.mark.parametrize("law", LAWS)
def test_kolmogorov_smirnov_matches_scipy(law):
    rng = np.random.default_rng(3)
    q, p = LAWS[law](rng, 700), LAWS[law](rng, 500)
    ours, theirs = od.kolmogorov_smirnov_test(q, p), stats.ks_2samp(q, p, method="exact")
    assert ours.statistic == pytest.approx(theirs.statistic, abs=1e-14)
    assert theirs.pvalue * 0.99 <= ours.pvalue <= theirs.pvalue * 1.15 + 0.03


@pytest.mark.parametrize("sizes", [(200, 200), (200, 401), (458, 458)])
def test_kolmogorov_smirnov_is_not_liberal_where_the_law_takes_over(sizes):
    n, m = sizes
    common = np.lcm(n, m)
    effective = np.sqrt(n * m / (n + m))
    for alpha in (0.1, 0.05, 0.01, 0.001):
        d = np.ceil(special.kolmogi(alpha) / effective * common) / common
        # samples whose largest difference is exactly d are not needed: SciPy has the exact law
        exact = _exact_ks(n, m, d)
        assert exact <= special.kolmogorov(effective * d) * (1 + 1e-9)
    if n == m == 200:  # what the module says of Stephens' correction
        d = np.ceil(special.kolmogi(0.05) / effective * common) / common
        corrected = special.kolmogorov((effective + 0.12 + 0.11 / effective) * d)
        assert _exact_ks(n, m, d) / corrected == pytest.approx(1.11, abs=0.01)


def _exact_ks(n, m, d):
    """P(D >= d), by counting lattice paths that stay inside."""
    paths = np.zeros(m + 1)
    j = np.arange(m + 1)
    for i in range(n + 1):
        inside = np.abs(i / n - j / m) < d - 1e-12
        if i == 0:
            paths = np.where(np.cumprod(inside), 1.0, 0.0)
            continue
        # probability-weighted so that it does not overflow: rows are drawn from i + m left
        fresh = np.zeros(m + 1)
        left = 0.0
        for k in range(m + 1):
            if not inside[k]:
                left = 0.0
                continue
            up = paths[k] * i / (i + k)
            left = up + (left * k / (i + k) if k else 0.0)
            fresh[k] = left
        paths = fresh
    return 1 - paths[m]


@pytest.mark.parametrize("law", ["continuous", "heavy tails"])
def test_cramer_von_mises_matches_scipy(law):
    rng = np.random.default_rng(4)
    for shift in (0.0, 0.05, 0.1):
        q, p = LAWS[law](rng, 700), LAWS[law](rng, 500) + shift
        ours = od.cramer_von_mises_test(q, p)
        theirs = stats.cramervonmises_2samp(q, p, method="asymptotic")
        assert ours.statistic == pytest.approx(theirs.statistic, abs=1e-9)
        assert ours.pvalue == pytest.approx(theirs.pvalue, rel=0.03)


@pytest.mark.parametrize("law", LAWS)
def test_anderson_darling_matches_scipy(law):
    # scipy standardises: A^2 - 1 over a spread that depends on the sizes only
    rng = np.random.default_rng(5)
    ratios = []
    for shift in (0, 1, 2):
        q, p = LAWS[law](rng, 300), LAWS[law](rng, 400) + shift
        ours = od.anderson_darling_test(q, p)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # capped p-values; a deprecated argument
            theirs = stats.anderson_ksamp([q, p], midrank=False)
        ratios.append((ours.statistic - 1) / theirs.statistic)
        if 0.002 < theirs.pvalue < 0.24 and law in ("continuous", "heavy tails"):
            assert ours.pvalue == pytest.approx(theirs.pvalue, rel=0.1)
    np.testing.assert_allclose(ratios, ratios[0], rtol=1e-9)
    assert ratios[0] == pytest.approx(0.7593, abs=0.01)  # sqrt(2 (pi^2 - 9) / 3) and 1 / N


@pytest.mark.parametrize(
    ("statistic", "value", "pvalue"),
    [
        ("ad", 1.9330, 0.10), ("ad", 2.4924, 0.05), ("ad", 3.8781, 0.01),
        ("cvm", 0.34730, 0.10), ("cvm", 0.46136, 0.05), ("cvm", 0.74346, 0.01),
    ],
)  # fmt: skip
def test_limit_laws_equal_the_published_tables(statistic, value, pvalue):
    assert _laws.continuous_tail(value, statistic) == pytest.approx(pvalue, rel=2e-3)


def test_tail_of_weighted_chi_squares():
    # one term is a chi-square; one in the far tail too; equal in law to a fine grid
    assert _laws.weighted_chi2_tail(3.0, np.array([0.5])) == pytest.approx(special.chdtrc(1, 6.0))
    assert _laws.weighted_chi2_tail(90.0, np.array([0.5])) == pytest.approx(
        special.chdtrc(1, 180.0), rel=1e-9
    )
    rng = np.random.default_rng(6)
    for weights in ([0.5, 0.2], [0.5, 0.2, 0.1], [1.0, 0.3, 0.1, 0.05]):
        drawn = rng.normal(size=(400_000, len(weights))) ** 2 @ weights
        for t in (0.1, 0.5, 2.0):
            share = np.mean(drawn > t)
            found = _laws.weighted_chi2_tail(t, np.array(weights))
            assert abs(share - found) < 5.5 * np.sqrt(0.25 / 400_000)
    h = (np.arange(200) + 0.5) / 200
    for name in ("ad", "cvm"):
        grid = _laws.cell_eigenvalues(h, np.full(200, 1 / 200), name)
        for t in (0.3, 1.0, 4.0):
            assert _laws.weighted_chi2_tail(t, grid) == pytest.approx(
                _laws.continuous_tail(t, name), rel=2e-3
            )
    assert _laws.continuous_tail(1e6, "ad") == _laws.SMALLEST > 0
    assert _laws.continuous_tail(0.0, "ad") == 1.0


@pytest.mark.parametrize("test", TESTS)
@pytest.mark.parametrize("law", ["continuous", "few values", "half zero"])
@pytest.mark.parametrize("sizes", [(8, 30), (25, 25), (30, 9)])
def test_permutation_pvalue_equals_a_naive_loop(test, law, sizes):
    rng = np.random.default_rng(7)
    q, p = LAWS[law](rng, sizes[0]), LAWS[law](rng, sizes[1]) + 0.3
    found = TESTS[test](q, p, method="permutation", n_permutations=4999, random_state=0).pvalue
    pooled = np.concatenate([q, p])
    seen = naive_statistic(q, p, test) - 1e-9
    draws, count = 150, 0
    for _ in range(draws):
        rng.shuffle(pooled)
        count += naive_statistic(pooled[: len(q)], pooled[len(q) :], test) >= seen
    # two independent estimates of one probability: 5.5 standard errors
    share = (count + 1) / (draws + 1)
    spread = np.sqrt(max(found * (1 - found), 0.01) * (1 / draws + 1 / 4999))
    assert abs(share - found) < 5.5 * spread


@pytest.mark.parametrize("test", TESTS)
def test_drawn_places_have_the_statistic_of_their_samples(test):
    rng = np.random.default_rng(8)
    pooled = np.sort(rng.integers(0, 9, 60).astype(float))
    for _ in range(20):
        rows = np.sort(rng.choice(60, 17, replace=False))
        q, p = pooled[rows], np.delete(pooled, rows)
        upto = np.cumsum(np.unique(pooled, return_counts=True)[1])
        places = np.searchsorted(np.unique(pooled), q)[None, :]
        made = (
            _rank_laws._ks_of_places(upto, 17, 43)
            if test == "ks"
            else _rank_laws._sums_of_places(upto, 17, 43, test)
        )
        naive = naive_statistic(q, p, test)
        assert made(places)[0] == pytest.approx(naive, abs=1e-12)
        counts = [np.bincount(x.astype(int), minlength=9) for x in (q, p)]
        assert _rank_laws.rank_statistic_of_counts(*counts, test) == pytest.approx(naive, abs=1e-12)


def test_choose_rows_is_uniform():
    rng = np.random.default_rng(9)
    for total, size in ((10, 3), (3000, 5), (10, 10)):
        rows = _rank_laws.choose_rows(total, size, 3000, rng)
        assert rows.shape == (3000, size)
        assert (np.diff(rows, axis=1) > 0).all()
        mean = (total - 1) / 2
        assert abs(rows.mean() - mean) <= 5.5 * total / np.sqrt(12 * rows.size) + 1e-9


@pytest.mark.parametrize("sizes", [(8, 1000), (15, 15), (250, 250)])
@pytest.mark.parametrize("law", ["continuous", "few values", "heavy tails"])
def test_level(sizes, law):
    rng = np.random.default_rng(10)
    draws = 500
    pvalues = {name: [] for name in TESTS}
    for k in range(draws):
        q, p = LAWS[law](rng, sizes[0]), LAWS[law](rng, sizes[1])
        for name in ("ad", "ks"):
            found = TESTS[name](q, p, n_permutations=99, random_state=k)
            pvalues[name].append(found.pvalue)
    for name in ("ad", "ks"):
        for alpha in (0.05, 0.2):
            assert np.sum(np.array(pvalues[name]) <= alpha) <= most_rejections(draws, alpha)
    assert np.mean(np.array(pvalues["ad"]) <= 0.2) > 0.1  # and not empty


@pytest.mark.parametrize(
    ("n", "m", "counts"),
    [
        (200, 200, [390, 2, 3, 3, 2]),  # nearly all at one value
        (300, 100_000, [1000, 98_300, 1000]),
        (200, 200, [20] * 20),
        (200, 200, [300, 20, 20, 20, 20, 20]),
        (5000, 5000, [9000, 500, 300, 200]),
        (1000, 1000, [5, 1995]),
    ],
)
def test_level_on_ties(n, m, counts):
    """Every p-value of `rank_test` at most alpha as often as alpha, given the tied values."""
    rng = np.random.default_rng(11)
    counts = np.array(counts)
    values = np.arange(len(counts), dtype=float)
    draws = 400
    tables = rng.multivariate_hypergeometric(counts, n, size=draws, method="marginals")
    pvalues = []
    for k, table in enumerate(tables):
        s, t = np.repeat(values, table), np.repeat(values, counts - table)
        generator = np.random.default_rng(k)
        pvalues.append(_rank_laws.rank_test(s, t, sweep(s, t), "ad", 199, generator)[0])
    for alpha in (0.01, 0.05, 0.2):
        assert np.sum(np.array(pvalues) <= alpha) <= most_rejections(draws, alpha)


def test_anderson_darling_sees_more_than_kolmogorov_smirnov():
    """Why it is the default: shifts, spread and tails, 2 x 250 rows, 300 draws each."""
    rng = np.random.default_rng(12)
    pairs = {
        "shift": lambda: (rng.normal(size=250), rng.normal(size=250) + 0.22),
        "spread": lambda: (rng.normal(size=250), rng.normal(size=250) * 1.3),
        "tail": lambda: (
            rng.normal(size=250),
            np.where(rng.random(250) < 0.05, 4.0, 0) + rng.normal(size=250),
        ),
    }
    for name, pair in pairs.items():
        hits = np.zeros(2)
        for _ in range(300):
            q, p = pair()
            hits += [TESTS[test](q, p).pvalue <= 0.05 for test in ("ad", "ks")]
        assert hits[0] > hits[1], name
        if name == "spread":
            assert hits[0] > 1.5 * hits[1]


def test_wasserstein_matches_scipy():
    rng = np.random.default_rng(13)
    for law in LAWS.values():
        q, p = law(rng, 300), law(rng, 200)
        w = rng.random(300) + 0.01
        assert od.wasserstein(q, p) == pytest.approx(stats.wasserstein_distance(q, p), rel=1e-10)
        found = od.wasserstein(q, p, weights_q=w)
        assert found == pytest.approx(stats.wasserstein_distance(q, p, w), rel=1e-10)


def test_wasserstein_of_a_shift_and_of_higher_order():
    x = np.random.default_rng(14).normal(size=500)
    for order in (1, 2, 5):
        assert od.wasserstein(x, x + 2.5, order=order) == pytest.approx(2.5)
        assert od.wasserstein(3 * x, 3 * (x - 1), order=order) == pytest.approx(3.0)
    # order 2 between Gaussians: (difference of means)^2 + (difference of spreads)^2
    u = (np.arange(200_000) + 0.5) / 200_000
    z = special.ndtri(u)
    assert od.wasserstein(z, 1 + 3 * z, order=2) == pytest.approx(np.sqrt(1 + 4), rel=1e-3)
    assert od.wasserstein(x, x, order=3) == 0.0


def test_integer_weights_equal_repeated_rows():
    rng = np.random.default_rng(15)
    q, p, w = rng.normal(size=40), rng.normal(size=30), rng.integers(0, 4, 40)
    for order in (1, 2):
        found = od.wasserstein(q, p, order=order, weights_q=7.0 * w)
        repeated = od.wasserstein(np.repeat(q, w), p, order=order)
        assert found == pytest.approx(repeated, rel=1e-9)


finite = st.floats(-1e6, 1e6, allow_nan=False, width=32)
samples = st.lists(finite, min_size=1, max_size=30)


@settings(max_examples=60, deadline=None)
@given(samples, samples, st.randoms(use_true_random=False))
def test_invariances(q, p, shuffler):
    q_again = list(q)
    shuffler.shuffle(q_again)
    for test in TESTS.values():
        first = test(q, p, n_permutations=49, random_state=0)
        assert first == test(q_again, p, n_permutations=49, random_state=0)
        back = test(p, q, n_permutations=49, random_state=0)
        assert back.pvalue == first.pvalue
        assert back.statistic == pytest.approx(first.statistic, abs=1e-9)
        assert 1 / 50 <= first.pvalue <= 1
    there = od.wasserstein(q, p)
    assert there == pytest.approx(od.wasserstein(p, q), rel=1e-9, abs=1e-9)
    assert there >= 0


@pytest.mark.parametrize("test", TESTS.values())
def test_refusals(test):
    with pytest.raises(DataError, match="q has no values"):
        test([], [1.0])
    with pytest.raises(DataError, match="p holds values that are missing or infinite"):
        test([1.0], [np.inf])
    with pytest.raises(DataError, match=r"q has shape \(1, 2\)"):
        test([[1.0, 2.0]], [1.0])
    with pytest.raises(OptionError, match="Unknown method 'exact'. Choose one of"):
        test([1.0], [1.0], method="exact")


def test_wasserstein_refusals():
    with pytest.raises(OptionError, match="order is 0.5"):
        od.wasserstein([1.0], [2.0], order=0.5)
    with pytest.raises(DataError, match=r"weights_q has shape \(2,\); expected \(1,\)"):
        od.wasserstein([1.0], [2.0], weights_q=[1.0, 2.0])
    with pytest.raises(DataError, match="not all zero"):
        od.wasserstein([1.0], [2.0], weights_q=[0.0])
