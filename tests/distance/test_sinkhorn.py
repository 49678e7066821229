import numpy as np
import ot
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize
from scipy.spatial.distance import cdist

from dpdq.distance import energy_distance, sinkhorn_divergence, wasserstein
from dpdq.errors import DataError, OptionError


def two(rng, n=25, m=20, d=2):
    return rng.normal(size=(n, d)), rng.normal(size=(m, d)) + 0.7


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("weighted", [False, True])
def test_small_epsilon_is_exact_transport(order, weighted):
    rng = np.random.default_rng(0)
    q, p = two(rng, 12, 9)
    a, b = (rng.random(12), rng.random(9)) if weighted else (np.ones(12), np.ones(9))
    cost = cdist(q, p) ** order
    exact = ot.emd2(a / a.sum(), b / b.sum(), cost)
    found = sinkhorn_divergence(
        q, p, order=order, epsilon=0.003 * np.median(cost), weights_q=a, weights_p=b,
        max_iterations=50_000,
    )  # fmt: skip
    assert found.converged
    assert found.estimate == pytest.approx(exact, rel=0.02)
    plain = sinkhorn_divergence(
        q, p, order=order, epsilon=0.003 * np.median(cost), weights_q=a, weights_p=b,
        max_iterations=50_000, debiased=False,
    )  # fmt: skip
    # the entropy costs at most eps log(rows)
    assert exact - 1e-6 <= plain.estimate <= exact + 0.003 * np.median(cost) * np.log(12)


def test_large_epsilon_joins_means_and_energy():
    rng = np.random.default_rng(1)
    q, p = two(rng)
    far = sinkhorn_divergence(q, p, order=1, epsilon=1e5)
    energy = energy_distance(q, p, unbiased=False).estimate
    assert far.estimate == pytest.approx(energy / 2, rel=1e-3)
    far = sinkhorn_divergence(q, p, order=2, epsilon=1e6)
    assert far.estimate == pytest.approx(((q.mean(0) - p.mean(0)) ** 2).sum(), rel=1e-3)


def test_equals_the_dual_maximised_directly():
    """max over f of <f, a> + <g, b> with g the soft minimum of c - f: no Sinkhorn iterations."""
    rng = np.random.default_rng(2)
    q, p = two(rng, 15, 10)
    a, b, eps = rng.random(15), np.full(10, 0.1), 0.5
    a /= a.sum()
    cost = cdist(q, p) ** 2

    def minus_dual(f):
        g = -eps * np.log(np.exp((f[:, None] - cost) / eps).T @ a)
        plan = np.exp((f[:, None] + g - cost) / eps) * a[:, None] * b
        return -(f @ a + g @ b), plan.sum(1) - a

    best = optimize.minimize(minus_dual, np.zeros(15), jac=True, method="BFGS", tol=1e-10)
    found = sinkhorn_divergence(
        q, p, epsilon=eps, debiased=False, weights_q=a, tolerance=1e-10, max_iterations=5000
    )
    assert found.converged
    assert found.estimate == pytest.approx(-best.fun, rel=1e-7)
    peer = ot.bregman.empirical_sinkhorn_divergence(q, p, eps, a=a, b=b, stopThr=1e-12)
    assert peer >= 0  # POT's own leaves the entropy out, so that numbers differ


def test_weights_mean_what_the_design_says():
    rng = np.random.default_rng(3)
    q, p = two(rng)
    counts = rng.integers(0, 4, len(q))
    options = {"tolerance": 1e-7, "max_iterations": 20_000}
    weighted = sinkhorn_divergence(q, p, weights_q=counts, **options)
    repeated = sinkhorn_divergence(np.repeat(q, counts, axis=0), p, **options)
    assert weighted.epsilon == pytest.approx(repeated.epsilon, rel=1e-12)
    assert weighted.estimate == pytest.approx(repeated.estimate, rel=1e-6)
    options["epsilon"] = 1.0
    weighted = sinkhorn_divergence(q, p, weights_q=counts, **options)
    scaled = sinkhorn_divergence(q, p, weights_q=9.5 * counts, **options)
    assert scaled.estimate == pytest.approx(weighted.estimate, rel=1e-9)
    kept = sinkhorn_divergence(q[counts > 0], p, weights_q=counts[counts > 0], **options)
    assert kept.standard_error == pytest.approx(weighted.standard_error, rel=1e-6)


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([1, 2]))
def test_invariances(seed, order):
    rng = np.random.default_rng(seed)
    q, p = two(rng, 12, 10)
    options = {"order": order, "tolerance": 1e-7, "max_iterations": 5000}
    found = sinkhorn_divergence(q, p, epsilon=1.0, **options)
    assert found.estimate >= -1e-6 * found.epsilon
    shuffled = sinkhorn_divergence(rng.permutation(q), rng.permutation(p), epsilon=1.0, **options)
    assert shuffled.estimate == pytest.approx(found.estimate, rel=1e-5)
    back = sinkhorn_divergence(p, q, epsilon=1.0, **options)
    assert back.estimate == pytest.approx(found.estimate, rel=1e-5)
    unit = 100.0**order
    moved = sinkhorn_divergence(100 * q + 3, 100 * p + 3, epsilon=unit, **options)
    assert moved.estimate == pytest.approx(unit * found.estimate, rel=1e-5)
    same = sinkhorn_divergence(q, q, epsilon=1.0, **options)
    assert abs(same.estimate) < 1e-6
    auto = sinkhorn_divergence(q, p, order=order, tolerance=1e-2).epsilon
    again = sinkhorn_divergence(100 * q + 3, 100 * p + 3, order=order, tolerance=1e-2)
    assert again.epsilon == pytest.approx(unit * auto, rel=1e-9)


def test_standard_error_and_upper_end():
    rng = np.random.default_rng(4)
    values, errors = [], []
    for _ in range(60):
        q, p = rng.normal(size=(60, 1)), rng.normal(2.0, 1.0, size=(60, 1))
        found = sinkhorn_divergence(q, p, epsilon=1.0, tolerance=1e-3)
        values.append(found.estimate)
        errors.append(found.standard_error)
        assert found.low is None
        assert found.high > found.estimate
    # relative error of a spread of 60 draws: 9 %; five and a half of them
    assert np.std(values) == pytest.approx(np.mean(errors), rel=0.5)


def test_not_converging_is_said():
    rng = np.random.default_rng(5)
    q, p = two(rng, 40, 30)
    found = sinkhorn_divergence(q, p, epsilon=1e-3, max_iterations=5)
    assert not found.converged
    assert found.high is None
    assert found.marginal_error > 1e-4
    assert "take a larger epsilon or more max_iterations" in found.status
    assert found.reason == "Sinkhorn's algorithm did not converge"


@pytest.mark.parametrize("epsilon", [1e-12, 1e-4, 1e8])
def test_extreme_epsilon_neither_warns_nor_breaks(epsilon):
    rng = np.random.default_rng(6)
    q, p = rng.normal(size=(30, 3)), rng.normal(size=(20, 3)) * 50
    found = sinkhorn_divergence(q, p, epsilon=epsilon, max_iterations=50)
    assert np.isfinite(found.estimate)
    assert found.converged or "not converged" in found.status


def test_a_thousand_rows_and_more_converge():
    rng = np.random.default_rng(9)
    q, p = rng.normal(size=(1100, 8)), rng.normal(size=(1050, 8))
    p[:, 0] += 2.0
    found = sinkhorn_divergence(q, p, tolerance=1e-3)
    assert found.converged
    assert 3.5 < found.estimate < 6.0  # 4, and the bias in eight dimensions


def test_more_rows_than_fit_are_drawn_and_said():
    rng = np.random.default_rng(7)
    q, p = two(rng, 500, 30)
    found = sinkhorn_divergence(q, p, max_rows=100, random_state=0)
    assert (found.n_q, found.n_p) == (100, 30)
    assert found.status == "100 of 500 rows of q were used; raise max_rows for more"
    whole = sinkhorn_divergence(q, p, epsilon=found.epsilon)
    assert found.estimate == pytest.approx(whole.estimate, abs=0.5)


def test_images_of_another_digit_are_further(shared_data):
    stored = np.load(shared_data / "mnist_t10k.npz")
    key = next(name for name in stored.files if name != "y")
    images = stored[key].reshape(10_000, -1).astype(float) / 255
    ones = images[stored["y"] == 1]
    sevens = images[stored["y"] == 7]
    options = {"epsilon": 2.0, "tolerance": 1e-3}
    near = sinkhorn_divergence(ones[:150], ones[150:300], **options)
    far = sinkhorn_divergence(ones[:150], sevens[:150], **options)
    assert near.converged
    assert far.converged
    assert far.estimate > 5 * near.estimate > 0


def test_in_one_dimension_it_nears_the_exact_distance():
    rng = np.random.default_rng(8)
    q, p = rng.normal(size=60), rng.normal(3, 1, size=60)
    found = sinkhorn_divergence(q, p, epsilon=0.05, max_iterations=5000)
    assert found.estimate == pytest.approx(wasserstein(q, p, order=2) ** 2, rel=0.01)


def test_refusals():
    x = np.zeros((4, 2))
    with pytest.raises(OptionError, match="Unknown epsilon 'small'. Choose 'auto' or a positive"):
        sinkhorn_divergence(x, x, epsilon="small")
    with pytest.raises(OptionError, match="epsilon is 0"):
        sinkhorn_divergence(x, x, epsilon=0.0)
    with pytest.raises(OptionError, match="order is 0.5"):
        sinkhorn_divergence(x, x, order=0.5)
    with pytest.raises(OptionError, match="max_rows is 0"):
        sinkhorn_divergence(x, x, max_rows=0)
    with pytest.raises(OptionError, match="tolerance is 2"):
        sinkhorn_divergence(x, x, tolerance=2.0)
    with pytest.raises(DataError, match="q has 2 features and p has 1"):
        sinkhorn_divergence(x, np.zeros(4))
    with pytest.raises(DataError, match="weights_p must be finite"):
        sinkhorn_divergence(x, x, weights_p=-np.ones(4))
    assert sinkhorn_divergence(x, x).estimate == pytest.approx(0, abs=1e-12)
