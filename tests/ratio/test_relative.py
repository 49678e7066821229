"""RULSIF: the closed-form score against brute force, both ratios, bounds, real data."""

import numpy as np
import pytest

from dpdq.errors import NotFittedError, OptionError
from dpdq.ratio import RULSIF, ULSIF
from dpdq.ratio.least_squares import leave_one_out_scores

LOW, HIGH = 0.01, 5.0


def brute_force(q, p, centers, bandwidth, ridge, share_q, share_p, alpha, offset):
    """The criterion with every row scored by a fit without it, refitted from scratch."""

    def bumps(x):
        return np.exp(-((x[:, None] - centers) ** 2).sum(-1) / (2 * bandwidth**2))

    mass = np.concatenate([(1 - alpha) * share_q, alpha * share_p])
    k_m, k_p = bumps(np.vstack([q, p])), bumps(p)

    def ratio(without, x):
        u, v = mass.copy(), share_p.copy()
        u[without] = 0.0
        if without >= len(q):
            v[without - len(q)] = 0.0
        u, v = u / u.sum(), v / v.sum()
        gram = (k_m.T * u) @ k_m + ridge * np.eye(len(centers))
        theta = np.linalg.solve(gram, v @ k_p - offset * (u @ k_m))
        return np.clip((offset + bumps(x) @ theta)[0], LOW, HIGH)

    score = 0.0
    for i in range(len(q)):
        score += mass[i] * ratio(i, q[i : i + 1]) ** 2 / 2
    for j in range(len(p)):
        found = ratio(len(q) + j, p[j : j + 1])
        score += mass[len(q) + j] * found**2 / 2 - share_p[j] * found
    return score


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("alpha, offset", [(0.1, 1.0), (0.6, 0.0), (0.0, 1.0)])
@pytest.mark.parametrize("sizes", [(25, 40), (40, 18)])
def test_leave_one_out_equals_brute_force(sizes, alpha, offset, weighted):
    rng = np.random.default_rng(0)
    q, p = rng.normal(size=(sizes[0], 2)), 0.7 * rng.normal(size=(sizes[1], 2)) + 0.5
    share_q, share_p = np.ones(sizes[0]), np.ones(sizes[1])
    if weighted:
        share_q, share_p = rng.uniform(0.2, 3, sizes[0]), rng.uniform(0.2, 3, sizes[1])
    share_q, share_p = share_q / share_q.sum(), share_p / share_p.sum()
    centers = np.vstack([p[:8], q[:4]])
    bandwidths, ridges = np.array([0.2, 0.7, 2.0]), np.array([1e-3, 0.1, 3.0])
    fast = leave_one_out_scores(
        q,
        p,
        centers,
        bandwidths,
        ridges,
        share_q=share_q,
        share_p=share_p,
        alpha=alpha,
        offset=offset,
        floor=LOW,
        ceiling=HIGH,
    )
    slow = [
        [brute_force(q, p, centers, h, ridge, share_q, share_p, alpha, offset) for ridge in ridges]
        for h in bandwidths
    ]
    np.testing.assert_allclose(fast, slow, rtol=1e-9, atol=1e-9)


def test_published_estimator_without_offset():
    """offset=0 solves (a H_p + (1 - a) H_q + ridge I) theta = h_p, as in the paper."""
    rng = np.random.default_rng(0)
    q, p = rng.normal(size=(200, 1)), rng.normal(size=(150, 1)) + 0.5
    model = RULSIF(0.3, bandwidths=[0.8], ridges=[0.05], offset=0, standardise=False).fit(q, p)
    middle = (q.mean() + p.mean()) / 2

    def bumps(x):
        return np.exp(-((x - middle - model.centers_.T) ** 2) / (2 * 0.64))

    gram = 0.3 * bumps(p).T @ bumps(p) / 150 + 0.7 * bumps(q).T @ bumps(q) / 200
    theta = np.linalg.solve(gram + 0.05 * np.eye(len(gram)), bumps(p).mean(0))
    expected = np.log(bumps(q) @ theta)
    inside = np.abs(q[:, 0]) < 1.5
    np.testing.assert_allclose(model.log_relative_ratio(q)[inside], expected[inside], atol=1e-7)


def test_without_mixture_it_is_ulsif():
    rng = np.random.default_rng(0)
    q, p = rng.normal(size=(400, 2)), rng.normal(size=(300, 2)) + 0.5
    one = RULSIF(0.0, random_state=1).fit(q, p)
    other = ULSIF(random_state=1).fit(q, p)
    np.testing.assert_array_equal(one.scores_, other.scores_)
    np.testing.assert_allclose(one.log_ratio(q), other.log_ratio(q), atol=1e-12)


@pytest.mark.parametrize("alpha", [0.01, 0.1, 0.5, 0.9])
def test_both_ratios_agree_and_are_bounded(alpha):
    rng = np.random.default_rng(0)
    q, p = rng.normal(size=(600, 1)), 0.3 * rng.normal(size=(500, 1)) + 2.5
    model = RULSIF(alpha, random_state=0).fit(q, p)
    x = np.linspace(-4, 5, 300)[:, None]
    relative, ratio = np.exp(model.log_relative_ratio(x)), np.exp(model.log_ratio(x))
    np.testing.assert_allclose(ratio, (1 - alpha) * relative / (1 - alpha * relative), rtol=1e-6)
    assert relative.max() < 1 / alpha
    assert ratio.min() >= 0.01 * (1 - 1e-9)
    assert ratio.max() <= 1e3 * (1 + 1e-9)


def test_relative_divergence_of_gaussians():
    """PE_a = ½ E_p[r_a] - ½ by quadrature; none where q = p."""
    rng = np.random.default_rng(0)
    z = np.linspace(-10, 12, 200_001)
    log_r = z - 0.5
    relative = np.exp(log_r) / (0.1 * np.exp(log_r) + 0.9)
    truth = 0.5 * np.trapezoid(np.exp(-((z - 1) ** 2) / 2) / np.sqrt(2 * np.pi) * relative, z) - 0.5
    q, p = rng.normal(size=(8000, 1)), rng.normal(size=(6000, 1)) + 1
    found = RULSIF(tuning_rows=None, random_state=0).fit(q, p).relative_divergence_
    assert abs(found - truth) < 0.06  # its standard error is about 0.012
    equal = RULSIF(tuning_rows=None, random_state=0).fit(q, rng.normal(size=(6000, 1)))
    assert abs(equal.relative_divergence_) < 0.01


def test_calmer_than_the_plain_ratio_at_the_rim():
    """p beyond q's spread: dP/dQ has no second moment, the fit through r_a still finds log r."""
    rng = np.random.default_rng(0)
    x = np.linspace(-2.5, 2.5, 400)[:, None]
    truth = -np.log(1.6) + x[:, 0] ** 2 / 2 - x[:, 0] ** 2 / (2 * 1.6**2)
    errors = {}
    for name, model in (("plain", ULSIF(random_state=0)), ("relative", RULSIF(random_state=0))):
        errors[name] = []
        for _ in range(6):
            q, p = rng.normal(size=(1500, 1)), 1.6 * rng.normal(size=(1500, 1))
            found = model.fit(q, p).log_ratio(x)
            errors[name].append(np.sqrt(np.mean((found - truth) ** 2)))
    assert np.mean(errors["relative"]) < np.mean(errors["plain"])
    assert np.mean(errors["relative"]) < 0.5


def test_real_held_out_loss(shared_data):
    """Adult, numeric columns, the younger against the older: better than the constant ratio."""
    pandas = pytest.importorskip("pandas")
    from dpdq.ratio._common import logistic_losses

    table = pandas.read_parquet(shared_data / "adult.parquet")
    numbers = table.select_dtypes("number")
    age = next(name for name in numbers if name.lower() == "age")
    young = (numbers[age] < 40).to_numpy()
    rows = numbers.drop(columns=[age]).to_numpy(dtype=float)
    rng = np.random.default_rng(0)
    q, p = rng.permutation(rows[young])[:6000], rng.permutation(rows[~young])[:5000]
    model = RULSIF(random_state=0).fit(q[:3000], p[:3000])
    loss_q, loss_p = logistic_losses(model.log_ratio(q[3000:]), model.log_ratio(p[3000:]))
    assert (loss_q.mean() + loss_p.mean()) / 2 < np.log(2) - 0.01


@pytest.mark.parametrize(
    "options, message",
    [
        ({"alpha": 1.0}, "alpha is 1.0; expected 0 or more and below 1"),
        ({"floor": 1.5}, "floor is 1.5; expected a positive number below 1"),
        ({"ceiling": 1.0}, "ceiling is 1.0; expected a number above 1"),
        ({"ridges": "scott"}, "Unknown ridges 'scott'. Choose 'auto' or a list"),
    ],
)
def test_options(options, message):
    with pytest.raises(OptionError, match=message):
        RULSIF(**options).fit(np.zeros((5, 1)), np.ones((5, 1)))


def test_needs_a_fit():
    with pytest.raises(NotFittedError, match="RULSIF is not fitted"):
        RULSIF().log_relative_ratio([[0.0]])
