"""Kernel balancing: optimality over all weights, the MMD, extension, coverage, gains."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from dpdq.distance import mmd
from dpdq.errors import ConvergenceError, OptionError, OverlapError
from dpdq.kernels import GaussianKernel, kernel_matrix, median_heuristic
from dpdq.reweight import EntropyBalancing, InversePropensityWeighting, KernelBalancing


def bent(n=500, m=400, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(-2, 2, (n, 2)), rng.normal(0, 0.6, (m, 2))


def units(q, p):
    """The coordinates of the fit: numbers in standard deviations of both sides."""
    center = (q.mean(axis=0) + p.mean(axis=0)) / 2
    scale = np.sqrt((((q - center) ** 2).mean(axis=0) + ((p - center) ** 2).mean(axis=0)) / 2)
    return (q - center) / scale, (p - center) / scale


@pytest.mark.parametrize("form", ["entropy", "variance"])
def test_optimal_for_all_weights(form):
    """With all rows as anchors the stationarity of the primal holds row by row."""
    q, p = bent(90, 70)
    penalty = 0.01
    model = KernelBalancing(form=form, penalty=penalty, bandwidth=1.0, n_anchors=400).fit(q, p)
    zq, zp = units(q, p)
    w, kernel = model.weights_ / model.weights_.mean(), GaussianKernel(1.0)
    witness = kernel_matrix(zq, zq, kernel) @ w / 90 - kernel_matrix(zq, zp, kernel).mean(axis=1)
    if form == "entropy":
        price = witness + penalty * np.log(w)
        assert price == pytest.approx(price[0], abs=1e-6)
    else:
        price = witness + penalty * w
        level = price[w > 0].mean()
        assert price[w > 0] == pytest.approx(level, abs=1e-6)
        assert (price[w == 0] >= level - 1e-6).all()
        assert (w == 0).any()
    squared = (
        w @ kernel_matrix(zq, zq, kernel) @ w / 90**2
        - 2 * w @ kernel_matrix(zq, zp, kernel).mean(axis=1) / 90
        + kernel_matrix(zp, zp, kernel).mean()
    )
    assert model.mmd_ == pytest.approx(np.sqrt(squared), rel=1e-4)


def test_mmd_is_that_of_the_distance_room():
    q, p = bent(200, 150)
    model = KernelBalancing(n_anchors=1_000).fit(q, p)
    zq, zp = units(q, p)
    for value, weights in ((model.mmd_, model.weights_), (model.mmd_before_, None)):
        found = mmd(zq, zp, bandwidth=model.bandwidth_, unbiased=False, weights_q=weights)
        assert value**2 == pytest.approx(found.estimate, rel=1e-3)


def test_fewer_anchors_are_almost_as_good():
    q, p = bent(600, 500)
    zq, zp = units(q, p)
    left = []
    for n_anchors in (4, 100, 1_200):
        model = KernelBalancing(n_anchors=n_anchors, penalty=1e-3).fit(q, p)
        left.append(
            mmd(
                zq, zp, bandwidth=model.bandwidth_, unbiased=False, weights_q=model.weights_
            ).estimate
        )
    assert left[1] < 0.5 * left[0]
    assert left[1] == pytest.approx(left[2], rel=0.05)


def test_more_penalty_less_balance_more_rows():
    q, p = bent()
    found = [KernelBalancing(penalty=penalty).fit(q, p) for penalty in (1e-4, 1e-2, 1.0)]
    assert [each.mmd_ for each in found] == sorted(each.mmd_ for each in found)
    sizes = [each.diagnostics().effective_sample_size for each in found]
    assert sizes == sorted(sizes)


def test_gaussian_log_ratio():
    rng = np.random.default_rng(3)
    q, p = rng.normal(0, 1, (20_000, 1)), rng.normal(0.5, 0.8, (20_000, 1))
    model = KernelBalancing(penalty=1e-4).fit(q, p)
    x = np.linspace(-1, 1.8, 15)
    truth = x**2 / 2 - (x - 0.5) ** 2 / (2 * 0.64) - np.log(0.8)
    assert model.log_ratio(x[:, None]) == pytest.approx(truth, abs=0.12)


def test_alpha_and_anchors_are_the_function():
    q, p = bent()
    for form in ("entropy", "variance"):
        model = KernelBalancing(form=form).fit(q, p)
        zq, _ = units(q, p)
        tile = kernel_matrix(zq, model.anchors_, GaussianKernel(model.bandwidth_))
        value = model.intercept_ + tile @ model.alpha_
        value = np.exp(value) if form == "entropy" else np.maximum(value, 0)
        assert value / value.mean() == pytest.approx(np.exp(model.log_ratio(q)), abs=1e-6)


def test_the_regression_of_an_outcome_is_balanced_whatever_the_penalty():
    q, p = bent(800, 700)
    rng = np.random.default_rng(4)
    y = (q**2).sum(axis=1) + 0.1 * rng.normal(size=800)
    truth = 2 * 0.36
    blind = KernelBalancing(penalty=0.3).fit(q, p).estimate(y)
    model = KernelBalancing(penalty=0.3, outcome=y).fit(q, p)
    found = model.estimate(y)
    assert abs(blind.estimate - truth) > 0.3
    assert found.low < truth < found.high
    drop = rng.random(800) < 0.3
    some = np.where(drop, np.nan, y)
    left = KernelBalancing(outcome=some).fit(q, p, weights_q=~drop)
    right = KernelBalancing(outcome=y[~drop]).fit(q[~drop], p)
    assert left.weights_[~drop] == pytest.approx(right.weights_, rel=1e-6)


def test_refusals():
    q, p = bent(60, 50)
    with pytest.raises(OptionError, match="Unknown form 'hinge'. Choose one of 'entropy', 'var"):
        KernelBalancing(form="hinge").fit(q, p)
    with pytest.raises(OptionError, match="Unknown penalty 'cv'. Choose 'noise' or a number."):
        KernelBalancing(penalty="cv").fit(q, p)
    with pytest.raises(OptionError, match="Unknown bandwidth 'scott'. Choose 'median' or a num"):
        KernelBalancing(bandwidth="scott").fit(q, p)
    with pytest.raises(OptionError, match="KernelBalancing needs rows of p, not totals"):
        KernelBalancing().fit(q, targets={"x0": 0.1})
    with pytest.raises(OptionError, match="outcome is constant on the rows of q"):
        KernelBalancing(outcome=np.ones(60)).fit(q, p)
    with pytest.raises(ConvergenceError, match="stopped after 1 steps with optimality violated by"):
        KernelBalancing(max_iter=1).fit(q, p)
    assert not KernelBalancing(max_iter=1, not_converged="keep").fit(q, p).converged_
    near = np.linspace(0, 1, 60)[:, None]
    with pytest.raises(OverlapError, match="its mean over p lies outside its range over q"):
        KernelBalancing(outcome=near[:, 0], bandwidth=2.0).fit(near, 1.1 + near / 5)


def test_standard_error_is_the_bootstraps():
    """100 resamples know a standard deviation to 7.1 %; five of these are 36 %."""
    q, p = bent(500, 400)
    y = q[:, 0] ** 2 + q[:, 1] + np.random.default_rng(1).normal(size=500)
    for form in ("entropy", "variance"):
        options = {"form": form, "penalty": 1e-3, "n_anchors": 30}
        found = KernelBalancing(**options).fit(q, p).estimate(y)
        rng, values = np.random.default_rng(2), []
        for _ in range(100):
            rows, others = rng.integers(0, 500, 500), rng.integers(0, 400, 400)
            model = KernelBalancing(**options).fit(q[rows], p[others])
            values.append(model.estimate(y[rows]).estimate)
        assert found.standard_error == pytest.approx(np.std(values), rel=0.36)


def planted(x, y, make, draws, n=400, m=300):
    """Errors of the mean of y in its standard deviations, and the MMD² to the law of p."""
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    r = np.exp(-0.7 * (np.abs(z[:, 0]) - 0.2) ** 2 + 0.8 * np.sin(2 * z[:, 1]))
    r /= r.sum()
    rng, bandwidth = np.random.default_rng(0), median_heuristic(z)
    errors, left = [], []
    for _ in range(draws):
        rows, others = rng.integers(0, len(z), n), rng.choice(len(z), m, p=r)
        weights = make().fit(x[rows], x[others]).weights_
        errors.append((np.average(y[rows], weights=weights) - r @ y) / y.std())
        left.append(
            mmd(
                z[rows], z, weights_q=weights, weights_p=r, unbiased=False, bandwidth=bandwidth
            ).estimate
        )
    return np.sqrt(np.mean(np.square(errors))), np.mean(left)


@pytest.mark.parametrize("name", ["breast_cancer", "diabetes"])
def test_beats_linear_balancing_where_selection_is_bent(name):
    """M435: on real covariates, weighted MMD and error of the mean, against both linear routes."""
    from sklearn import datasets

    if name == "breast_cancer":
        data = datasets.load_breast_cancer()
        x, y = data.data[:, [0, 1, 4, 8]], data.target.astype(float)
    else:  # total cholesterol over HDL, from both
        data = datasets.load_diabetes()
        x, y = data.data[:, [4, 6]], data.data[:, 7]
    error, left = planted(x, y, KernelBalancing, 20)
    for other in (EntropyBalancing, lambda: InversePropensityWeighting(penalty=0.0)):
        other_error, other_left = planted(x, y, other, 20)
        assert error < other_error
        assert left < 0.5 * other_left


def coverage(shared_data, selections, draws, n=1000, m=800, **options):
    """Share of 95 % intervals that hold the truth, under bent selections of rows of Adult."""
    table = pq.read_table(shared_data / "adult.parquet")
    names = ("age", "education-num", "hours-per-week")
    x = np.column_stack([table[name].to_numpy() for name in names]).astype(float)
    y = (table["class"].to_numpy() == ">50K").astype(float)
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    rng = np.random.default_rng(11)
    shares = []
    for _ in range(selections):
        direction = rng.normal(size=3)
        direction /= np.linalg.norm(direction)
        r = np.exp(0.5 * z @ direction - 0.3 * z[:, 0] ** 2 + 0.4 * np.sin(2 * z[:, 1]))
        r /= r.sum()
        truth, hits = r @ y, 0
        for _ in range(draws):
            rows_q, rows_p = rng.integers(0, len(x), n), rng.choice(len(x), m, p=r)
            model = KernelBalancing(**options).fit(x[rows_q], x[rows_p])
            found = model.estimate(y[rows_q])
            hits += found.low <= truth <= found.high
        shares.append(hits / draws)
    return shares


def test_coverage_on_adult(shared_data):
    """Of 100 draws at 95 %, fewer than 80 hold with probability below 1e-6."""
    assert 0.8 <= coverage(shared_data, 1, 100, n=600, m=500, n_anchors=40)[0] <= 1


@pytest.mark.slow
def test_coverage_of_ten_selections(shared_data):
    """100 draws each; of 1,000 at 95 % fewer than 900 or more than 985 hold below 1e-6."""
    shares = coverage(shared_data, 10, 100, n=800, m=600, n_anchors=60)
    assert all(0.8 <= share <= 1 for share in shares), shares
    assert 0.9 <= np.mean(shares) <= 0.985


def test_adult_by_age(shared_data):
    table = pq.read_table(shared_data / "adult.parquet").drop_columns(["class", "fnlwgt"])
    table = table.to_pandas().sample(8_000, random_state=0)
    young = (table["age"] < 40).to_numpy()
    rest = table.drop(columns="age")
    model = KernelBalancing().fit(rest[young], rest[~young])
    report = model.diagnostics()
    assert model.mmd_ < 0.1 * model.mmd_before_
    assert report.largest_before > 0.9
    assert report.largest_after < 0.35 * report.largest_before
