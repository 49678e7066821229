import numpy as np
import pytest
from scipy import stats

from dpdq.distance import energy_distance, energy_test, mmd
from dpdq.errors import DataError, OptionError


def normal(rng, n, d):
    return rng.normal(size=(n, d))


def test_mmd_equals_double_loop():
    rng = np.random.default_rng(0)
    q, p = normal(rng, 12, 2), normal(rng, 9, 2) + 1
    u, v = rng.random(12), rng.random(9)
    u[3] = 0.0
    for unbiased in (True, False):
        value = 0.0
        for x, y, a, b, sign in ((q, q, u, u, 1), (p, p, v, v, 1), (q, p, u, v, -2)):
            total = weight = 0.0
            for i in range(len(x)):
                for j in range(len(y)):
                    if sign == 1 and unbiased and i == j:
                        continue
                    k = np.exp(-((x[i] - y[j]) ** 2).sum() / (2 * 1.3**2))
                    total += a[i] * b[j] * k
                    weight += a[i] * b[j]
            value += sign * total / weight
        found = mmd(q, p, bandwidth=1.3, weights_q=u, weights_p=v, unbiased=unbiased)
        assert found.estimate == pytest.approx(value, abs=1e-14)


def test_weights_mean_what_the_design_says():
    rng = np.random.default_rng(1)
    q, p = normal(rng, 20, 2), normal(rng, 30, 2)
    counts = rng.integers(0, 4, 20)
    for kernel in ("gaussian", "laplace", "energy"):
        options = {"kernel": kernel, "bandwidth": None if kernel == "energy" else 0.8}
        weighted = mmd(q, p, weights_q=counts, unbiased=False, **options).estimate
        repeated = mmd(np.repeat(q, counts, axis=0), p, unbiased=False, **options).estimate
        # the root of a squared distance that cancels to 1e-16 is 1e-8: equal rows under "energy"
        assert weighted == pytest.approx(repeated, abs=1e-8 if kernel == "energy" else 1e-12)
        one = mmd(q, p, weights_q=counts, **options)
        assert one.estimate == pytest.approx(mmd(q, p, weights_q=7.5 * counts, **options).estimate)
        kept = mmd(q[counts > 0], p, weights_q=counts[counts > 0], **options)
        assert one.estimate == pytest.approx(kept.estimate)
        assert one.standard_error == pytest.approx(kept.standard_error)


def test_energy_distance_equals_scipy():
    rng = np.random.default_rng(2)
    q, p = rng.normal(size=70), rng.normal(0.5, 2, size=50)
    biased = energy_distance(q, p, unbiased=False).estimate
    assert biased == pytest.approx(stats.energy_distance(q, p) ** 2)


def test_mmd_equals_energy_distance_under_the_distance_kernel():
    rng = np.random.default_rng(3)
    q, p = normal(rng, 40, 3), normal(rng, 60, 3) + 1e3
    assert mmd(q, p, kernel="energy") == mmd(q, p, kernel="energy", bandwidth=3.0)
    distance = mmd(q, p, kernel="energy").estimate
    assert energy_distance(q, p).estimate == distance
    assert energy_test(q, p, random_state=0).statistic == pytest.approx(distance, rel=1e-9)
    assert energy_distance(10 * q, 10 * p).estimate == pytest.approx(10 * distance)


def test_mmd_of_two_gaussians_is_the_closed_form():
    """E k(X, Y) for X ~ N(a, I), Y ~ N(b, I) is (h^2/(h^2+2))^(d/2) exp(-|a-b|^2/(2(h^2+2)))."""
    rng = np.random.default_rng(4)
    h, d, shift = 1.5, 3, 0.7
    found = mmd(normal(rng, 1500, d), normal(rng, 1200, d) + shift, bandwidth=h)
    factor = (h**2 / (h**2 + 2)) ** (d / 2)
    exact = 2 * factor * (1 - np.exp(-d * shift**2 / (2 * (h**2 + 2))))
    # normal estimate, five and a half standard errors: false alarm below 1e-7
    assert abs(found.estimate - exact) < 5.5 * found.standard_error


@pytest.mark.parametrize("shift", [0.0, 0.8])
def test_mmd_standard_error_is_the_spread_of_estimates(shift):
    rng = np.random.default_rng(5)
    found = [mmd(normal(rng, 60, 2), normal(rng, 40, 2) + shift, bandwidth=1.0) for _ in range(300)]
    estimates = np.array([f.estimate for f in found])
    errors = np.array([f.standard_error for f in found])
    assert np.sqrt((errors**2).mean()) == pytest.approx(estimates.std(), rel=0.25)
    covered = np.mean([f.low <= estimates.mean() <= f.high for f in found])
    # of 300 draws a 95 % interval misses more than 36 with probability below 1e-6
    assert covered >= 0.88


def test_unbiased_estimates_may_be_negative_and_average_zero():
    rng = np.random.default_rng(6)
    values = [mmd(normal(rng, 20, 1), normal(rng, 30, 1)).estimate for _ in range(200)]
    assert min(values) < 0
    assert abs(np.mean(values)) < 6 * np.std(values) / np.sqrt(200)


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_extreme_scales_are_no_trouble(scale):
    rng = np.random.default_rng(7)
    q, p = normal(rng, 30, 2), normal(rng, 20, 2) + 1
    for kernel in ("gaussian", "laplace"):
        found = mmd(scale * q, scale * p, kernel=kernel)
        assert found.estimate == pytest.approx(mmd(q, p, kernel=kernel).estimate)
    found = energy_distance(scale * q, scale * p)
    assert found.estimate == pytest.approx(scale * energy_distance(q, p).estimate)


def test_wrong_input_is_refused():
    q = np.zeros((5, 2))
    with pytest.raises(DataError, match="q has 2 features and p has 3"):
        mmd(q, np.zeros((5, 3)))
    with pytest.raises(DataError, match="p has 1 row; expected at least 2"):
        mmd(q, np.zeros((1, 2)))
    with pytest.raises(OptionError, match="Unknown kernel 'rbf'"):
        mmd(q, q, kernel="rbf")
    with pytest.raises(OptionError, match="expected positive numbers"):
        mmd(q, q, bandwidth=0.0)
    with pytest.raises(DataError, match="weights_p must be finite, not negative"):
        mmd(q, q, weights_p=[-1, 1, 1, 1, 1])
    with pytest.raises(DataError, match=r"weights_q has shape \(3,\); expected \(5,\)"):
        mmd(q, q, weights_q=np.ones(3))
    with pytest.raises(OptionError, match="level is 95"):
        mmd(q, q, level=95)
