"""Levels: chi-square and G against SciPy, moments against enumeration, level with rare levels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from dpdq.distance import _laws
from dpdq.distance import level_tests as lt
from dpdq.errors import DataError


def most_rejections(draws, alpha):
    return stats.binom.isf(1e-7, draws, alpha)


def test_chi2_matches_scipy():
    rng = np.random.default_rng(1)
    for k in (3, 6, 20):
        share = rng.dirichlet(np.full(k, 5.0))
        a, b = rng.multinomial(20_000, share), rng.multinomial(15_000, share)
        ours = lt.chi2_test(a, b)
        theirs = stats.chi2_contingency([a, b], correction=False)
        assert ours.statistic == pytest.approx(theirs.statistic, rel=1e-10)
        assert ours.pvalue == pytest.approx(theirs.pvalue, rel=0.02)
        assert ours.details["cells"] == k


def test_g_matches_scipy():
    rng = np.random.default_rng(2)
    share = rng.dirichlet(np.full(6, 5.0))
    a, b = rng.multinomial(20_000, share), rng.multinomial(15_000, share)
    ours = lt.g_test(a, b)
    theirs = stats.chi2_contingency([a, b], correction=False, lambda_="log-likelihood")
    assert ours.statistic == pytest.approx(theirs.statistic, rel=1e-9)
    assert ours.pvalue == pytest.approx(theirs.pvalue, rel=0.02)


def test_two_levels_have_their_exact_law():
    for a, n, m, c in ((3, 10, 12, 5), (0, 10, 12, 5), (30, 200, 300, 90), (50, 1000, 1000, 90)):
        x = np.arange(c + 1)
        pmf = stats.hypergeom(n + m, c, n).pmf(x)
        mean = n * c / (n + m)
        expected = pmf[np.abs(x - mean) >= abs(a - mean) - 1e-9].sum()
        assert _laws.two_by_two_pvalue(a, n, m, c) == pytest.approx(expected, rel=1e-8)
    # at equal sizes the law is symmetric, and so the order by distance is Fisher's
    fisher = stats.fisher_exact([[30, 60], [170, 140]]).pvalue
    assert lt.chi2_test([30, 170], [60, 140]).pvalue == pytest.approx(fisher, rel=1e-6)
    assert _laws.two_by_two_pvalue(0, 5, 5, 0) == 1.0
    assert _laws.two_by_two_pvalue(10**6, 10**6, 10**6, 10**6) == _laws.SMALLEST > 0


def test_moments_are_exact():
    # all tables with margins 4, 6 and 5, 3, 2, weighted by their probability
    c, n = np.array([5, 3, 2]), 4
    tables = np.array(
        [(i, j, n - i - j) for i in range(5) for j in range(4) if 0 <= n - i - j <= 2]
    )
    weights = stats.multivariate_hypergeom(c, n).pmf(tables)
    x = lt.level_statistic(tables, c - tables, "chi2")
    mean, variance = lt.chi2_moments(4, 6, c)
    assert weights.sum() == pytest.approx(1)
    assert mean == pytest.approx(weights @ x)
    assert variance == pytest.approx(weights @ (x - mean) ** 2)


@pytest.mark.parametrize(
    ("n", "m", "k", "most"),
    [(400, 400, 40, 1.0), (250, 10_000, 30, 1.0), (20_000, 20_000, 2000, 1.0), (8, 1000, 6, 1.0)],
)
def test_level_with_many_rare_levels(n, m, k, most):
    rng = np.random.default_rng(3)
    share = rng.dirichlet(np.full(k, 0.5))
    draws = 600
    pvalues = []
    for seed in range(draws):
        a, b = rng.multinomial(n, share), rng.multinomial(m, share)
        pvalues.append(lt.chi2_test(a, b, n_permutations=99, random_state=seed).pvalue)
    for alpha in (0.01, 0.05, 0.2):
        assert np.sum(np.array(pvalues) <= alpha) <= most_rejections(draws, most * alpha)
    assert np.mean(np.array(pvalues) <= 0.2) > 0.08


@pytest.mark.parametrize(
    ("n", "m", "c"),
    [
        (300, 300, [10, 20, 100, 200, 270]),
        (200, 100_000, [2600, 2600, 95_000]),  # five rows expected on the small side
        (1000, 100_000, [600] * 100 + [41_000]),
        (20_000, 20_000, [12] * 1000 + [28_000]),
    ],
)
def test_tail_of_the_gamma_law(n, m, c):
    """The far tail holds too; the plain chi-square is up to 2.8 times over in the second case."""
    c = np.array(c)
    rng = np.random.default_rng(4)
    draws = 100_000 if len(c) < 10 else 4000
    tables = rng.multivariate_hypergeometric(c, n, size=draws, method="marginals")
    x = lt.level_statistic(tables, c - tables, "chi2")
    values, index = np.unique(np.quantile(x, [0.8, 0.95, 0.99, 0.999]), return_index=True)
    del index
    for value in values:
        k = np.argmin(np.abs(x - value))
        pvalue, how = lt.level_pvalue(tables[k], c - tables[k], "chi2", 99, rng)
        assert how == "gamma law"
        share = np.mean(x >= x[k] * (1 - 1e-9))
        assert share <= 1.3 * pvalue + 5.5 * np.sqrt(pvalue / draws)


def test_level_of_g():
    rng = np.random.default_rng(5)
    share = rng.dirichlet(np.full(12, 1.0))
    pvalues = []
    for seed in range(400):
        a, b = rng.multinomial(400, share), rng.multinomial(3000, share)
        pvalues.append(lt.g_test(a, b, n_permutations=99, random_state=seed).pvalue)
    for alpha in (0.05, 0.2):
        assert np.sum(np.array(pvalues) <= alpha) <= most_rejections(400, alpha)


def test_pooling_does_not_look_at_sides():
    rng = np.random.default_rng(6)
    pooled = rng.geometric(0.02, 300)
    cells = []
    for _ in range(3):
        a = rng.multivariate_hypergeometric(pooled, int(pooled.sum()) // 3)
        cells.append(lt.pool_levels(a, pooled - a))
    np.testing.assert_array_equal(cells[0], cells[1])
    np.testing.assert_array_equal(cells[0], cells[2])
    a, b = lt.cell_counts(a, pooled - a, cells[0])
    expected = (a + b) * min(a.sum(), b.sum()) / (a + b).sum()
    assert expected.min() >= 5


def test_levels_that_one_row_has_are_one_cell():
    result = lt.chi2_test(np.ones(10_000, int), np.zeros(10_000, int) + 1)
    assert result.details["cells"] == 1
    assert result.pvalue == 1.0
    # new levels that are frequent are seen all the same
    assert lt.chi2_test([500, 500, 0], [400, 400, 200]).pvalue < 1e-20


def test_small_sides_draw_the_law():
    small = lt.chi2_test([3, 1, 4], [20, 60, 20], n_permutations=999, random_state=0)
    assert small.method.endswith("999 permutations")
    assert small.pvalue * 1000 == pytest.approx(round(small.pvalue * 1000))
    drawn = np.random.default_rng(1).multivariate_hypergeometric([23, 61, 24], 8, size=40_000)
    null = lt.level_statistic(drawn, np.array([23, 61, 24]) - drawn, "chi2")
    exact = np.mean(null >= small.statistic - 1e-9)
    assert abs(small.pvalue - exact) < 5.5 * np.sqrt(0.25 / 999)


def test_difference_of_shares():
    estimate = lt.share_difference(0, 100, 5, 100)
    assert estimate.estimate == pytest.approx(0.05)
    # Newcombe 1998, method 10, first table: 56/70 - 48/80
    known = lt.share_difference(48, 80, 56, 70)
    assert known.low == pytest.approx(0.0524, abs=1e-4)
    assert known.high == pytest.approx(0.3339, abs=1e-4)
    rng = np.random.default_rng(7)
    for n, m, u, v in ((50, 400, 0.02, 0.05), (30, 30, 0.3, 0.6)):
        inside = 0
        for _ in range(1000):
            found = lt.share_difference(rng.binomial(n, u), n, rng.binomial(m, v), m)
            inside += found.low <= v - u <= found.high
        assert inside >= 898  # a 95 % interval misses more with probability below 1e-9


counts = st.lists(st.integers(0, 60), min_size=2, max_size=12)


@settings(max_examples=60, deadline=None)
@given(counts, st.data())
def test_invariances(a, data):
    b = data.draw(st.lists(st.integers(0, 60), min_size=len(a), max_size=len(a)))
    a, b = np.array(a), np.array(b)
    if a.sum() == 0 or b.sum() == 0:
        return
    for test in (lt.chi2_test, lt.g_test):
        one = test(a, b, n_permutations=49, random_state=0)
        two = test(b, a, n_permutations=49, random_state=0)
        assert one.pvalue == pytest.approx(two.pvalue, rel=1e-9)
        assert one.statistic == pytest.approx(two.statistic, abs=1e-9)
        assert 0 < one.pvalue <= 1


def test_refusals():
    with pytest.raises(DataError, match="counts_q must be whole numbers"):
        lt.chi2_test([0.5, 1], [1, 1])
    with pytest.raises(DataError, match="counts_p must be whole numbers"):
        lt.chi2_test([1, 1], [-1, 3])
    with pytest.raises(DataError, match="counts_q has 2 levels and counts_p 3"):
        lt.chi2_test([1, 1], [1, 1, 1])
