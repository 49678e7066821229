import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from dpdq.distance import kernel_inception_distance
from dpdq.errors import DataError, OptionError


def double_loop(q, p, u, v, degree, gamma, coef0):
    value = 0.0
    for x, y, a, b, sign in ((q, q, u, u, 1), (p, p, v, v, 1), (q, p, u, v, -2)):
        total = weight = 0.0
        for i in range(len(x)):
            for j in range(len(y)):
                if sign == 1 and i == j:
                    continue
                total += a[i] * b[j] * (gamma * float(x[i] @ y[j]) + coef0) ** degree
                weight += a[i] * b[j]
        value += sign * total / weight
    return value


@pytest.mark.parametrize("degree, gamma, coef0", [(3, None, 1.0), (1, 0.7, 0.0), (2, 2.0, 0.5)])
def test_equals_the_double_loop(degree, gamma, coef0):
    rng = np.random.default_rng(0)
    q, p = rng.normal(size=(12, 4)), rng.normal(0.5, 1.0, size=(9, 4))
    options = {"degree": degree, "gamma": gamma, "coef0": coef0}
    rate = 0.25 if gamma is None else gamma
    even = double_loop(q, p, np.ones(12), np.ones(9), degree, rate, coef0)
    assert kernel_inception_distance(q, p, **options).estimate == pytest.approx(even, abs=1e-13)
    u, v = rng.random(12), rng.random(9)
    u[3] = 0.0
    value = double_loop(q, p, u, v, degree, rate, coef0)
    found = kernel_inception_distance(q, p, weights_q=u, weights_p=v, **options)
    assert found.estimate == pytest.approx(value, abs=1e-12)


def test_degree_one_is_the_squared_distance_of_means_unbiased():
    rng = np.random.default_rng(1)
    q, p = rng.normal(size=(50, 3)), rng.normal(1.0, 2.0, size=(40, 3))
    found = kernel_inception_distance(q, p, degree=1, gamma=1.0)
    shift = ((q.mean(axis=0) - p.mean(axis=0)) ** 2).sum()
    noise = q.var(axis=0, ddof=1).sum() / 50 + p.var(axis=0, ddof=1).sum() / 40
    assert found.estimate == pytest.approx(shift - noise)


def test_tiles_do_not_show():
    """More rows than a tile has, against matrices."""
    rng = np.random.default_rng(2)
    q, p = rng.normal(size=(1100, 6)), rng.normal(0.2, 1.0, size=(700, 6))

    def mean(x, y, same):
        k = (x @ y.T / 6 + 1) ** 3
        return (k.sum() - np.trace(k)) / (len(x) * (len(x) - 1)) if same else k.mean()

    expected = mean(q, q, True) + mean(p, p, True) - 2 * mean(q, p, False)
    assert kernel_inception_distance(q, p).estimate == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("shift", [0.0, 0.4])
def test_standard_error_is_the_spread_of_estimates(shift):
    rng = np.random.default_rng(3)
    found = [
        kernel_inception_distance(rng.normal(size=(80, 3)) + shift, rng.normal(size=(60, 3)))
        for _ in range(400)
    ]
    estimates = np.array([one.estimate for one in found])
    errors = np.array([one.standard_error for one in found])
    assert np.sqrt((errors**2).mean()) == pytest.approx(estimates.std(), rel=0.35)
    covered = sum(one.low <= estimates.mean() <= one.high for one in found)
    # nominal 95 %; even at 92 % fewer than 338 of 400 have probability below 1e-6
    assert covered >= 338
    if shift == 0.0:
        assert abs(estimates.mean()) < 5.5 * estimates.std() / 20
        assert (estimates < 0).mean() > 0.2


@given(st.integers(0, 10**6))
def test_rotation_and_exchange_change_nothing(seed):
    rng = np.random.default_rng(seed)
    q, p = rng.normal(size=(8, 3)), rng.normal(1.0, 1.0, size=(11, 3))
    one = kernel_inception_distance(q, p)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    for other in (
        kernel_inception_distance(p, q),
        kernel_inception_distance(q @ turn, p @ turn),
        kernel_inception_distance(q[rng.permutation(8)], p),
        kernel_inception_distance(q, p, weights_q=np.full(8, 7.0)),
    ):
        assert other.estimate == pytest.approx(one.estimate, rel=1e-9, abs=1e-11)
        assert other.standard_error == pytest.approx(one.standard_error, rel=1e-6)


def test_real_digits():
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(4).permutation(len(images))
    images, labels = images[order] / 16.0, labels[order]
    halves = kernel_inception_distance(images[:900], images[900:])
    dropped = kernel_inception_distance(images[:900][labels[:900] < 8], images[900:])
    assert halves.low < 0.0 < halves.high
    assert dropped.low > halves.high


def test_wrong_input_is_refused():
    x = np.zeros((5, 2))
    for options, text in (
        ({"degree": 0}, "degree is 0; expected an integer of at least 1"),
        ({"gamma": -1.0}, "gamma is -1.0; expected a positive number"),
        ({"coef0": -1.0}, "coef0 is -1.0; expected a number that is not negative"),
        ({"level": 1.0}, "level is 1.0"),
    ):
        with pytest.raises(OptionError, match=text):
            kernel_inception_distance(x, x, **options)
    with pytest.raises(DataError, match="p has 1 row; expected at least 2"):
        kernel_inception_distance(x, x[:1])
    with pytest.raises(DataError, match="q has 1 rows of positive weight"):
        kernel_inception_distance(x, x, weights_q=[1, 0, 0, 0, 0])
    with pytest.raises(DataError, match=r"weights_p has shape \(4,\)"):
        kernel_inception_distance(x, x, weights_p=np.ones(4))
    with pytest.raises(DataError, match="divide the features of both sides by one scale"):
        kernel_inception_distance(x + 1e80, x)
