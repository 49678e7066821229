import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from dpdq.distance import diversity, vendi_score
from dpdq.errors import DataError, OptionError

ORDERS = (0.0, 0.3, 1.0, 2.0, 7.0, np.inf)


def score(q, **options):
    return vendi_score(q, n_groups=0, **options).estimate


def plain(matrix, order):
    values = np.linalg.eigvalsh(matrix / len(matrix))
    values = values[values > 1e-13]
    if order == 1.0:
        return np.exp(-(values * np.log(values)).sum())
    if np.isinf(order):
        return 1 / values.max()
    return (values**order).sum() ** (1 / (1 - order))


@pytest.mark.parametrize("n, d", [(30, 5), (12, 40)])
@pytest.mark.parametrize("order", ORDERS)
def test_equals_the_definition(n, d, order):
    """Through the features where they are few, through the pairs where rows are few."""
    x = np.random.default_rng(0).normal(size=(n, d))
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    assert score(x, order=order) == pytest.approx(plain(unit @ unit.T, order), rel=1e-9)
    squares = ((x[:, None] - x) ** 2).sum(axis=2)
    expected = plain(np.exp(-squares / 2 / 4.0), order)
    assert score(x, order=order, kernel="rbf", bandwidth=2.0) == pytest.approx(expected, rel=1e-7)


def test_order_two_is_the_mean_square_similarity():
    x = np.random.default_rng(1).normal(size=(50, 3))
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    assert score(x, order=2) == pytest.approx(1 / ((unit @ unit.T) ** 2).mean())


def test_kinds_that_do_not_resemble_each_other_are_counted():
    """Hill numbers of their shares: here 1/2, 1/4, 1/4."""
    x = np.eye(5)[[0, 0, 1, 2]]
    for order, expected in ((0, 3.0), (1, 2**1.5), (2, 8 / 3), (np.inf, 2.0)):
        assert score(x, order=order) == pytest.approx(expected)
        assert score(x, order=order, kernel="rbf", bandwidth=0.01) == pytest.approx(expected)
        found = score(x, order=order, kernel=lambda a, b: (a @ b.T > 0.5).astype(float))
        assert found == pytest.approx(expected)
    assert score(np.ones((7, 3))) == pytest.approx(1.0)
    assert score(np.eye(6), order=0.5) == pytest.approx(6.0)


@settings(max_examples=40)
@given(st.integers(0, 10**6))
def test_bounds_order_rotation_and_repeats(seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(int(rng.integers(2, 15)), int(rng.integers(1, 8))))
    n, d = x.shape
    values = [score(x, order=order) for order in ORDERS]
    assert all(1.0 - 1e-9 <= value <= min(n, d) + 1e-9 for value in values)
    assert (np.diff(values) <= 1e-9).all()  # larger orders count less
    turn = np.linalg.qr(rng.normal(size=(d, d)))[0]
    lengths = rng.uniform(0.5, 2.0, size=(n, 1))
    assert score(lengths * x @ turn) == pytest.approx(values[2], rel=1e-9)
    counts = rng.integers(0, 4, n) + np.eye(n, dtype=int)[0]
    repeated = np.repeat(x, counts, axis=0)
    assert score(x, weights=counts * 0.7) == pytest.approx(score(repeated), rel=1e-9)
    narrow = {"kernel": "rbf", "bandwidth": 0.7}
    assert score(x, weights=counts, **narrow) == pytest.approx(score(repeated, **narrow), rel=1e-7)


def test_interval_holds_the_spread():
    rng = np.random.default_rng(2)
    shape = np.geomspace(1, 0.1, 10)
    for options in ({}, {"kernel": "rbf", "bandwidth": 1.0}):
        found = [
            vendi_score(rng.normal(size=(120, 10)) * shape, random_state=draw, **options)
            for draw in range(100)
        ]
        estimates = np.array([one.estimate for one in found])
        error = np.sqrt(np.mean([one.standard_error**2 for one in found]))
        assert 0.8 < error / estimates.std() < 1.8
        covered = sum(one.low <= estimates.mean() <= one.high for one in found)
        # a valid 95 % interval misses more than 18 of 100 with probability below 1e-6
        assert covered >= 82


def test_real_digits_lose_diversity_with_their_classes():
    images, labels = load_digits(return_X_y=True)
    values = [
        vendi_score(images[labels < classes][:500], random_state=0) for classes in (10, 5, 2, 1)
    ]
    estimates = [one.estimate for one in values]
    assert estimates == sorted(estimates, reverse=True)
    assert values[0].low > values[2].high


def test_wrong_input_is_refused(monkeypatch):
    x = np.random.default_rng(3).normal(size=(10, 3))
    with pytest.raises(OptionError, match=r"Unknown kernel 'linear'. Choose one of 'cosine'"):
        vendi_score(x, kernel="linear")
    with pytest.raises(OptionError, match="order is -1; expected a number from 0"):
        vendi_score(x, order=-1)
    with pytest.raises(DataError, match=r"1 rows of q have length zero \(first at row 2\)"):
        vendi_score(x * (np.arange(10) != 2)[:, None])
    with pytest.raises(DataError, match="kernel must be 1 on its diagonal"):
        vendi_score(x, kernel=lambda a, b: a @ b.T)
    with pytest.raises(DataError, match=r"kernel returned shape \(10, 3\)"):
        vendi_score(x, kernel=lambda a, b: a)
    with pytest.raises(DataError, match="kernel must be symmetric"):
        vendi_score(x, kernel=lambda a, b: np.eye(10) + np.triu(np.ones((10, 10)), 1))
    with pytest.raises(DataError, match="kernel is not positive semi-definite"):
        vendi_score(x, kernel=lambda a, b: 2 * np.eye(10) - np.ones((10, 10)))
    with pytest.raises(DataError, match=r"weights has shape \(9,\)"):
        vendi_score(x, weights=np.ones(9))
    monkeypatch.setattr(diversity, "MOST_ROWS", 9)
    with pytest.raises(DataError, match="q has 10 rows, whose similarities of all pairs"):
        vendi_score(x, kernel="rbf")
    assert vendi_score(x, n_groups=0).low is None
