"""Kernel mean matching: the optimum by other solvers, bounds, blocks, extension, real data."""

import numpy as np
import pytest
from scipy.optimize import minimize

from dpdq.errors import OptionError
from dpdq.kernels import GaussianKernel, kernel_matrix
from dpdq.ratio import KernelMeanMatching, mean_matching
from dpdq.ratio._common import logistic_losses
from dpdq.ratio.bounded_matching import MatchedWeights, match_means, project_to_bounds


def shifted(n=600, m=500, d=2, shift=0.5, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)), rng.normal(size=(m, d)) + shift


def problem(q, p, bandwidth):
    kernel = GaussianKernel(bandwidth)
    return kernel_matrix(q, q, kernel), kernel_matrix(q, p, kernel).mean(axis=1)


@pytest.mark.parametrize("bound, epsilon", [(1000.0, 0.0), (3.0, 0.0), (1000.0, 0.3), (4.0, 0.05)])
def test_optimum_against_an_independent_solver(bound, epsilon):
    """SLSQP on 100 rows: within 0.1 % of its objective, which is not below the dual bound."""
    q, p = shifted(100, 90, seed=1)
    kernel, target = problem(q, p, 1.2)
    share = np.full(100, 1 / 100)

    def objective(w):
        v = share * w
        return v @ kernel @ v / 2 - v @ target

    limits = [{"type": "ineq", "fun": lambda w: share @ w - (1 - epsilon), "jac": lambda w: share}]
    limits += [{"type": "ineq", "fun": lambda w: 1 + epsilon - share @ w, "jac": lambda w: -share}]
    if epsilon == 0:
        limits = [{"type": "eq", "fun": lambda w: share @ w - 1, "jac": lambda w: share}]
    other = minimize(
        lambda w: 100 * objective(w),
        np.ones(100),
        jac=lambda w: 100 * share * (kernel @ (share * w) - target),
        bounds=[(0, bound)] * 100,
        constraints=limits,
        method="SLSQP",
        options={"maxiter": 200, "ftol": 1e-9},
    )
    assert abs(share @ other.x - 1) <= epsilon + 1e-9
    best = objective(other.x)
    found = match_means(
        lambda v: kernel @ v, target, share, bound=bound, epsilon=epsilon, tolerance=1e-3
    )
    assert found.converged
    assert found.objective == pytest.approx(objective(found.values), abs=1e-12)
    assert best >= found.objective - found.gap - 1e-9
    assert found.objective - best <= 1e-3 * (objective(np.ones(100)) - best) + 1e-6
    assert found.objective - best <= 1e-3 * abs(best)
    assert found.values.min() >= 0
    assert found.values.max() <= bound
    assert abs(share @ found.values - 1) <= epsilon + 1e-9


@pytest.mark.slow
def test_optimum_at_full_size():
    """5,000 + 5,000 x 20 against 300 plain projected gradient steps in float64."""
    q, p = shifted(5000, 5000, 20, seed=0)
    p[:, 3:] -= 0.5
    model = KernelMeanMatching(bandwidth=5.0, standardise=False, random_state=0).fit(q, p)
    kernel, target = problem(q, p, 5.0)
    share, w = np.full(5000, 1 / 5000), np.ones(5000)
    v = model.weights_ / 5000
    assert model.objective_ == pytest.approx(v @ kernel @ v / 2 - v @ target, abs=1e-6)
    kernel -= kernel.mean(axis=0)  # constant directions change nothing on the plane
    top = kernel @ (kernel @ (target - target.mean()))
    step = 5000 * np.linalg.norm(top) / np.linalg.norm(kernel @ top) / 1.2
    for _ in range(300):
        w = project_to_bounds(w - step * (kernel @ (share * w) - target), share, 1e3, 1.0, 1.0)
    kernel = problem(q, p, 5.0)[0]
    u = w / 5000
    best = u @ kernel @ u / 2 - u @ target
    start = share @ kernel @ share / 2 - share @ target
    assert model.objective_ - best < 1e-3 * abs(best)
    assert model.objective_ - best < 0.01 * (start - best)


def test_projection_is_the_nearest_point():
    """Optimality of the projection against every feasible direction, by its multiplier."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        n = int(rng.integers(2, 40))
        share = rng.dirichlet(np.ones(n))
        point, bound = 3 * rng.normal(size=n), rng.uniform(1.5, 5)
        low = rng.uniform(0.5, 1)
        found = project_to_bounds(point, share, bound, low, 1.1)
        assert found.min() >= 0
        assert found.max() <= bound
        assert low - 1e-9 <= share @ found <= 1.1 + 1e-9
        for _ in range(20):
            other = rng.uniform(0, bound, n)
            total = share @ other
            if total < low:
                other += (bound - other) * (low - total) / (bound - total)
            elif total > 1.1:
                other *= 1.1 / total
            assert (share * (point - found)) @ (other - found) < 1e-9


def test_gaussian_weights_bring_the_moments_of_p():
    rng = np.random.default_rng(0)
    q, p = rng.normal(size=(3000, 2)), 0.8 * rng.normal(size=(3000, 2)) + 0.5
    model = KernelMeanMatching(random_state=0).fit(q, p)
    w = model.weights_
    assert w.mean() == pytest.approx(1, abs=1e-9)
    assert w.min() >= 0
    assert np.abs(w @ q / 3000 - 0.5).max() < 0.06  # standard error below 0.025
    assert np.abs(w @ q**2 / 3000 - 0.89).max() < 0.1


def test_extension_takes_out_the_noise_of_the_weights():
    """Near the optimum single weights scatter; the function fitted to them is close to r.

    With the default tolerance they scatter less, and log r is close as well.
    """
    q, p = shifted(2000, 2000, d=10, shift=0.2)
    truth = np.exp((0.2 * q - 0.02).sum(axis=1))
    model = KernelMeanMatching(tolerance=1e-3, random_state=0).fit(q, p)
    raw = np.sqrt(np.mean((model.weights_ - truth) ** 2))
    assert np.sqrt(np.mean((np.exp(model.log_ratio(q)) - truth) ** 2)) < 0.6 * raw
    calmer = KernelMeanMatching(random_state=0).fit(q, p)
    assert np.sqrt(np.mean((calmer.weights_ - truth) ** 2)) < 0.7 * raw
    q, p = shifted(3000, 3000)
    found = KernelMeanMatching(random_state=0).fit(q, p).log_ratio(p)
    assert np.sqrt(np.mean((found - (0.5 * p - 0.125).sum(axis=1)) ** 2)) < 0.35


def test_leave_one_out_error_equals_brute_force():
    q, p = shifted(60, 50)
    model = KernelMeanMatching(n_centers=12, standardise=False, random_state=0).fit(q, p)
    middle = (q.mean(axis=0) + p.mean(axis=0)) / 2
    distances = ((q - middle)[:, None] - model.centers_) ** 2
    bumps = np.exp(-distances.sum(-1) / (2 * model.extension_bandwidth_**2))
    errors = []
    for i in range(60):
        rest = np.arange(60) != i
        gram = bumps[rest].T @ bumps[rest] / 60 + model.extension_ridge_ * np.eye(12)
        theta = np.linalg.solve(gram, bumps[rest].T @ (model.weights_[rest] - 1) / 60)
        errors.append(model.weights_[i] - 1 - bumps[i] @ theta)
    assert model.extension_error_ == pytest.approx(np.sqrt(np.mean(np.square(errors))), rel=1e-6)
    found = np.clip(1 + bumps @ model.theta_, 0.01, 1e3)
    np.testing.assert_allclose(model.log_ratio(q), np.log(found), atol=1e-9)


@pytest.mark.parametrize("n, m", [(1001, 700), (1000, 2500), (17, 40), (101, 5)])
@pytest.mark.parametrize("block_rows", [10, 100, 999, 1000])
def test_every_row_belongs_to_a_block(n, m, block_rows, monkeypatch):
    """No row of q or p is left over, whatever the sizes; no block is above its size."""
    seen_q, seen_p = [], []

    def ones(product, target, share, **options):
        assert len(share) <= block_rows
        seen_q.append(len(share))
        return MatchedWeights(np.ones(len(share)), 0.0, 0.0, 1, True)

    def count(rows, others, share, bandwidth):
        seen_p.append(len(others))
        return np.zeros(len(rows))

    monkeypatch.setattr(mean_matching, "match_means", ones)
    monkeypatch.setattr(mean_matching, "mean_kernel", count)
    monkeypatch.setattr(mean_matching, "kernel_product", lambda rows, bandwidth: None)
    q, p = shifted(n, m)
    model = KernelMeanMatching(block_rows=block_rows, random_state=0).fit(q, p)
    np.testing.assert_allclose(model.weights_, 1.0, atol=1e-12)
    assert sum(seen_q) == n
    assert sum(seen_p) >= m
    assert max(seen_q) - min(seen_q) <= 1
    assert model.n_blocks_ == len(seen_q)


def test_blocks_agree_with_one_block():
    """No leftover row has weight zero: where p is dense hardly any weight is."""
    q, p = shifted(3001, 3000)
    one = KernelMeanMatching(random_state=0).fit(q, p)
    many = KernelMeanMatching(block_rows=1000, random_state=0).fit(q, p)
    assert (one.n_blocks_, many.n_blocks_) == (1, 4)
    assert many.weights_.mean() == pytest.approx(1, abs=1e-9)
    towards_p = np.linalg.norm(q - 0.5, axis=1) < 1
    assert (many.weights_[towards_p] == 0).mean() < 0.01
    assert np.abs(many.weights_ @ q / 3001 - p.mean(axis=0)).max() < 0.1
    assert np.corrcoef(one.log_ratio(p), many.log_ratio(p))[0, 1] > 0.9


@pytest.mark.parametrize("block_rows", [5000, 90])
def test_order_of_rows_only_orders_the_weights(block_rows):
    q, p = shifted(400, 300)
    rng = np.random.default_rng(2)
    moved = rng.permutation(400)
    one = KernelMeanMatching(block_rows=block_rows, random_state=0).fit(q, p).weights_
    model = KernelMeanMatching(block_rows=block_rows, random_state=0)
    other = model.fit(q[moved], rng.permutation(p)).weights_
    np.testing.assert_allclose(one[moved], other, atol=1e-6)


def test_equal_samples_keep_weight_one():
    q, _ = shifted()
    model = KernelMeanMatching(random_state=0).fit(q, q[::-1].copy())
    np.testing.assert_allclose(model.weights_, np.ones(600), atol=1e-12)
    assert (model.n_iterations_, model.converged_) == (0, True)


def test_integer_weights_are_repeated_rows():
    q, p = shifted(300, 200)
    rng = np.random.default_rng(4)
    w, v = rng.integers(1, 4, 300), rng.integers(1, 4, 200)
    model = KernelMeanMatching(tolerance=1e-5, random_state=0)
    model.fit(q, p, weights_q=w, weights_p=v)
    weighted, objective = model.weights_, model.objective_
    assert w @ weighted == pytest.approx(w.sum(), abs=1e-6)
    repeated = model.fit(np.repeat(q, w, axis=0), np.repeat(p, v, axis=0))
    assert model.objective_ == pytest.approx(objective, abs=1e-5)
    first = np.cumsum(w) - w
    assert np.sqrt(np.mean((repeated.weights_[first] - weighted) ** 2)) < 0.1


def test_bandwidth_follows_the_data():
    q, p = shifted()
    one = KernelMeanMatching(standardise=False, random_state=0).fit(q, p)
    other = KernelMeanMatching(standardise=False, random_state=0).fit(1000 * q, 1000 * p)
    assert 800 < other.bandwidth_ / one.bandwidth_ < 1200  # other rows are sampled
    twice = KernelMeanMatching(standardise=False, multiple=2, random_state=0).fit(q, p)
    assert twice.bandwidth_ == pytest.approx(2 * one.bandwidth_)


def test_unfinished_says_so():
    q, p = shifted()
    model = KernelMeanMatching(tolerance=1e-6, max_iterations=2, random_state=0).fit(q, p)
    assert not model.converged_
    assert model.gap_ > 0


def test_planted_selection_is_undone_on_real_data(shared_data):
    """Adult: q is selected by age and hours with known odds; weights bring its means back.

    Over the numeric columns, in units of the standard error of the unselected rows, the weighted
    means are nearer to the truth than the raw ones in every draw.
    """
    pandas = pytest.importorskip("pandas")
    table = pandas.read_parquet(shared_data / "adult.parquet").select_dtypes("number")
    rows = table.to_numpy(dtype=float)
    age = rows[:, [name.lower() for name in table].index("age")]
    odds = 1 / (1 + np.exp(-(age - 38) / 8))
    rng = np.random.default_rng(0)
    z = (rows - rows.mean(axis=0)) / rows.std(axis=0)
    for _ in range(3):
        kept = rng.uniform(size=len(rows)) < odds
        q, p = rng.permutation(z[kept])[:2500], rng.permutation(z)[:2500]
        w = KernelMeanMatching(random_state=0).fit(q, p).weights_
        weighted = np.linalg.norm(w @ q / len(q))
        raw = np.linalg.norm(q.mean(axis=0))
        assert weighted < raw / 3


def test_real_held_out_loss(shared_data):
    """Adult, numeric columns, the younger against the older: better than the constant ratio."""
    pandas = pytest.importorskip("pandas")
    table = pandas.read_parquet(shared_data / "adult.parquet").select_dtypes("number")
    age = next(name for name in table if name.lower() == "age")
    young = (table[age] < 40).to_numpy()
    rows = table.drop(columns=[age]).to_numpy(dtype=float)
    rng = np.random.default_rng(0)
    q, p = rng.permutation(rows[young])[:6000], rng.permutation(rows[~young])[:5000]
    model = KernelMeanMatching(random_state=0).fit(q[:3000], p[:3000])
    loss_q, loss_p = logistic_losses(model.log_ratio(q[3000:]), model.log_ratio(p[3000:]))
    assert (loss_q.mean() + loss_p.mean()) / 2 < np.log(2) - 0.004


@pytest.mark.parametrize(
    "options, message",
    [
        ({"bandwidth": "scott"}, "Unknown bandwidth 'scott'. Choose 'median' or a number."),
        ({"bandwidth": -1.0}, "bandwidth is -1.0; expected a positive finite number"),
        ({"multiple": 0}, "multiple is 0; expected a positive number"),
        ({"bound": 1.0}, "bound is 1.0; expected a number above 1"),
        ({"epsilon": 1.0}, "epsilon is 1.0; expected 0 or more and below 1"),
        ({"tolerance": 0}, "tolerance is 0; expected a positive number"),
        ({"block_rows": 1}, "block_rows is 1; expected at least 2"),
        ({"max_iterations": 0}, "max_iterations is 0; expected at least 1"),
        ({"floor": 2}, "floor is 2; expected a positive number below 1"),
    ],
)
def test_options(options, message):
    with pytest.raises(OptionError, match=message):
        KernelMeanMatching(**options).fit(np.zeros((5, 1)), np.ones((5, 1)))
