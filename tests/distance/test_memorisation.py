import numpy as np
import pytest
from scipy.stats import betabinom, mannwhitneyu
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture

from dpdq.distance import memorisation_test
from dpdq.errors import DataError, OptionError


def nearest(x, train):
    return np.sqrt(((x[:, None] - train) ** 2).sum(axis=2)).min(axis=1)


def test_without_cells_it_is_mann_whitney():
    rng = np.random.default_rng(0)
    train, q, p = (rng.normal(size=(n, 2)) for n in (100, 60, 50))
    found = memorisation_test(q, p, train=train, n_cells=1, n_permutations=4999, random_state=0)
    a, b = nearest(q, train), nearest(p, train)
    exact = mannwhitneyu(a, b, alternative="less", method="asymptotic", use_continuity=False)
    # 4,999 permutations: five standard errors are 0.036
    assert found.rank_pvalue == pytest.approx(exact.pvalue, abs=0.04)
    assert found.effect.estimate == pytest.approx(1 - exact.statistic / (60 * 50))
    z = (60 * 50 / 2 - exact.statistic) / np.sqrt(60 * 50 * 111 / 12)
    assert found.statistic == pytest.approx(z)


def test_near_copies_are_counted_exactly():
    rng = np.random.default_rng(1)
    train, q, p = (rng.normal(size=(n, 2)) for n in (100, 300, 199))
    q[:30] = train[:30] + 1e-6
    found = memorisation_test(q, p, train=train, near_quantile=0.02, random_state=0)
    bound = np.sort(nearest(p, train))[3]
    count = int((nearest(q, train) < bound).sum())
    assert found.near_distance == pytest.approx(bound)
    assert found.near_copies.estimate == pytest.approx(count / 300)
    assert found.near_expected == pytest.approx(4 / 200)
    assert found.near_pvalue == pytest.approx(betabinom.sf(count - 1, 300, 4, 196))
    assert found.near_copies.low > found.near_expected
    rows = [row for row, _, _ in found.closest]
    assert set(rows) <= set(range(30))
    assert all(row == other for row, other, _ in found.closest)
    assert "nearly repeat training rows" in found.status


def test_level_and_power():
    """Under q = p the level holds, for either part; one copy in ten is found."""
    rng = np.random.default_rng(2)
    pvalues = {"pvalue": [], "rank_pvalue": [], "near_pvalue": []}
    found_copies = 0
    for draw in range(300):
        train, q, p = (rng.normal(size=(n, 3)) for n in (80, 120, 100))
        found = memorisation_test(q, p, train=train, n_permutations=99, random_state=draw)
        for name, values in pvalues.items():
            values.append(getattr(found, name))
        if draw < 40:
            q[:12] = train[:12] + 0.01 * rng.normal(size=(12, 3))
            found = memorisation_test(q, p, train=train, n_permutations=99, random_state=draw)
            found_copies += found.pvalue < 0.05
    for values in pvalues.values():
        # a valid 5 % test rejects more than 36 of 300 with probability below 1e-6
        assert np.sum(np.array(values) <= 0.05) <= 36
    assert np.mean(pvalues["rank_pvalue"]) == pytest.approx(0.5, abs=0.1)
    assert found_copies >= 36


def test_cells_forgive_other_shares_of_dense_regions():
    """q draws more often where training rows are dense, and copies nothing."""
    rng = np.random.default_rng(3)

    def draw(n, share):
        dense = rng.random(n) < share
        spread = np.where(dense, 0.1, 2.0)[:, None]
        return rng.normal(size=(n, 2)) * spread + np.where(dense, -10.0, 10.0)[:, None]

    train, q, p = draw(400, 0.5), draw(300, 0.9), draw(300, 0.5)
    plain = memorisation_test(q, p, train=train, n_cells=1, random_state=0)
    celled = memorisation_test(q, p, train=train, n_cells=2, random_state=0)
    assert plain.rank_pvalue == 0.001
    assert celled.rank_pvalue > 0.01


def test_ties_stay_valid():
    """Discrete rows: most distances are zero on both sides."""
    rng = np.random.default_rng(4)
    rejected = 0
    for draw in range(200):
        train, q, p = (rng.integers(0, 3, size=(n, 3)).astype(float) for n in (40, 60, 50))
        found = memorisation_test(q, p, train=train, n_permutations=99, random_state=draw)
        rejected += found.pvalue <= 0.05
    # a valid 5 % test rejects more than 27 of 200 with probability below 1e-6
    assert rejected <= 27
    assert "of p equal a training row" in found.status


def test_rotation_and_scale_change_nothing():
    rng = np.random.default_rng(5)
    train, q, p = (rng.normal(size=(n, 3)) for n in (60, 50, 40))
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    one = memorisation_test(q, p, train=train, n_cells=1, random_state=0)
    other = memorisation_test(
        5 * q @ turn, 5 * p @ turn, train=5 * train @ turn, n_cells=1, random_state=0
    )
    assert other.statistic == pytest.approx(one.statistic)
    assert other.pvalue == one.pvalue
    again = memorisation_test(q, p, train=train, n_cells=1, random_state=0)
    assert again.to_dict() == one.to_dict()


def test_real_digits_copies_are_found_and_a_mixture_is_not():
    """Copies with noise, 10 % of them, against an honest mixture of Gaussians."""
    rng = np.random.default_rng(6)
    images, _ = load_digits(return_X_y=True)
    features = PCA(16, random_state=0).fit_transform(images[rng.permutation(len(images))])
    train, p = features[:1000], features[1000:]
    mixture = GaussianMixture(10, random_state=0).fit(train)
    found, flagged = 0, 0
    for draw in range(10):
        mixture.random_state = draw
        q = mixture.sample(500)[0]
        flagged += memorisation_test(q, p, train=train, random_state=draw).pvalue <= 0.01
        rows = rng.choice(1000, 50, replace=False)
        q[:50] = train[rows] + rng.normal(0, 1.0, size=(50, 16))
        result = memorisation_test(q, p, train=train, random_state=draw)
        found += result.pvalue <= 0.01
    assert flagged == 0
    assert found == 10
    assert result.near_copies.low > result.near_expected
    assert result.near_copies.estimate == pytest.approx(0.1, abs=0.03)


def test_wrong_input_is_refused():
    x = np.arange(20.0)[:, None]
    with pytest.raises(DataError, match="train has 2 features and q has 1"):
        memorisation_test(x, x, train=np.zeros((5, 2)))
    with pytest.raises(DataError, match="p has 4 rows; expected at least 5"):
        memorisation_test(x, x[:4], train=x)
    with pytest.raises(OptionError, match="n_cells is 0; expected 'auto' or 1 to 20"):
        memorisation_test(x, x, train=x, n_cells=0)
    with pytest.raises(OptionError, match="near_quantile is 0.7; expected between 0 and 0.5"):
        memorisation_test(x, x, train=x, near_quantile=0.7)
    with pytest.raises(OptionError, match="n_permutations is 0"):
        memorisation_test(x, x, train=x, n_permutations=0)
    with pytest.raises(DataError, match="no cell holds rows of both q and p; take n_cells=1"):
        memorisation_test(x, x + 1000.0, train=np.vstack([x, x + 1000.0]), n_cells=2)
