"""Stable balancing weights: a quadratic programme, optimality, tolerances, refusals, coverage."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy.optimize import minimize

from dpdq.errors import ConvergenceError, OptionError, OverlapError
from dpdq.reweight import EntropyBalancing, StableBalancingWeights


def shifted(n=100, m=80, d=3, shift=0.5, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)), rng.normal(size=(m, d)) + shift


def spread(q, p):
    return np.sqrt((q.var(axis=0) + p.var(axis=0)) / 2)


def programme(q, target, base, tolerance):
    """The least E_b[(w / b)²] by a general solver over all ratios w / b."""
    n, base = len(q), base / base.sum()
    tolerance = np.broadcast_to(tolerance, q.shape[1])
    sides = [{"type": "eq", "fun": lambda h: base @ h - 1, "jac": lambda h: base}]
    for j, slack in enumerate(tolerance):
        row = base * (q[:, j] - target[j])
        if slack == 0:
            sides.append({"type": "eq", "fun": lambda h, r=row: r @ h, "jac": lambda h, r=row: r})
            continue
        for sign in (1, -1):
            sides.append(
                {
                    "type": "ineq",
                    "fun": lambda h, r=row, s=sign, t=slack: t + s * r @ h,
                    "jac": lambda h, r=row, s=sign: s * r,
                }
            )
    found = minimize(
        lambda h: (n * base @ h**2 / 2, n * base * h),
        np.ones(n),
        jac=True,
        bounds=[(0, None)] * n,
        constraints=sides,
        method="SLSQP",
        options={"maxiter": 1000, "ftol": 1e-15},
    )
    return found.x * base


@pytest.mark.parametrize("tolerance", [0.0, 0.1, {"x0": 0.2, "x2": 0.05}])
def test_equals_a_quadratic_programme(tolerance):
    q, p = shifted(shift=[0.7, 0.05, 0.5])
    base = np.random.default_rng(1).uniform(0.5, 2, 100)
    model = StableBalancingWeights(tolerance=tolerance).fit(q, p, weights_q=base)
    sd = np.sqrt((np.cov(q.T, aweights=base, bias=True).diagonal() + p.var(axis=0)) / 2)
    each = [0.2, 0.0, 0.05] if isinstance(tolerance, dict) else tolerance
    expected = programme(q / sd, p.mean(axis=0) / sd, base, each)
    assert (model.weights_ == 0).sum() > 5
    share = model.weights_ / model.weights_.sum()
    assert share == pytest.approx(expected, abs=1e-6)


def test_optimality_is_tight():
    q, p = shifted(5_000, 4_000)
    for tolerance in (0.0, 0.05):
        model = StableBalancingWeights(tolerance=tolerance).fit(q, p)
        sd = spread(q, p)
        gap = (np.average(q, axis=0, weights=model.weights_) - p.mean(axis=0)) / sd
        assert np.abs(gap).max() == pytest.approx(tolerance, abs=1e-9)
        used = np.sign(model.coef_)
        assert gap == pytest.approx(-tolerance * used, abs=1e-9)
        line = (
            np.column_stack([np.ones(5_000), q])
            @ np.linalg.lstsq(
                np.column_stack([np.ones(5_000), q])[model.weights_ > 0],
                model.weights_[model.weights_ > 0],
                rcond=None,
            )[0]
        )
        assert model.weights_ == pytest.approx(np.maximum(line, 0), abs=1e-9)


def test_no_balancing_weights_have_less_variance():
    q, p = shifted()
    stable, entropy = StableBalancingWeights().fit(q, p), EntropyBalancing().fit(q, p)
    largest = stable.diagnostics().effective_sample_size
    assert largest > entropy.diagnostics().effective_sample_size
    loose = StableBalancingWeights(tolerance=0.1).fit(q, p)
    assert loose.diagnostics().effective_sample_size > largest


def test_rows_beyond_the_cut_have_no_ratio():
    q, p = shifted(2_000, 1_500, 1, shift=1.0)
    model = StableBalancingWeights().fit(q, p)
    zero = model.weights_ == 0
    assert zero.any()
    cut = -(model.intercept_ / model.coef_[0])
    assert q[zero].max() < q[~zero].min()
    assert (model.log_ratio(q) == -np.inf).tolist() == zero.tolist()
    assert (model.log_ratio(np.array([[-30.0], [30.0]])) > -np.inf).tolist() == [False, True]
    assert np.isfinite(cut)
    assert f"{zero.sum():,} rows of q weigh nothing, beyond the cut" in model.diagnostics().status
    everything = model.log_ratio(q)
    assert np.exp(everything).mean() == pytest.approx(1)


def test_a_level_that_p_lacks_weighs_nothing():
    q = {"town": ["a"] * 20 + ["b"] * 20 + ["c"] * 10, "x": np.arange(50.0) % 7}
    p = {"town": ["a", "b", "b"] * 10, "x": np.arange(30.0) % 6}
    model = StableBalancingWeights().fit(q, p)
    assert (model.weights_[40:] == 0).all()
    assert model.diagnostics().largest_after < 1e-9


def test_dependent_margins_are_no_trouble():
    q, p = shifted()
    first = StableBalancingWeights().fit(q, p)
    double = StableBalancingWeights().fit(
        np.column_stack([q, q.sum(axis=1), np.ones(100)]),
        np.column_stack([p, p.sum(axis=1), np.ones(80)]),
    )
    assert double.weights_ == pytest.approx(first.weights_, abs=1e-9)
    with pytest.raises(OverlapError, match="fixed by other margins on q but not in p"):
        StableBalancingWeights().fit(
            np.column_stack([q, q.sum(axis=1)]), np.column_stack([p, p.sum(axis=1) + 0.1])
        )


def test_tolerances_by_name_survive_leaving_a_covariate_out():
    q, p = shifted(400, 300)
    model = StableBalancingWeights(tolerance={"x0": 0.1, "x1": 0.05}).fit(q, p)
    left = {each.column: each for each in model.sensitivity()}
    assert all(each.smd_after is not None for each in left.values())
    margins = {each.margin: abs(each.smd_after) for each in model.diagnostics().margins}
    assert margins == pytest.approx({"x0": 0.1, "x1": 0.05, "x2": 0.0}, abs=1e-9)


def test_population_targets():
    q, _ = shifted()
    model = StableBalancingWeights().fit(q, targets={"x0": 0.4, "x1": -0.1})
    assert np.average(q[:, :2], axis=0, weights=model.weights_) == pytest.approx([0.4, -0.1])


def test_a_start_on_some_rows():
    q, p = shifted(220_000, 5_000, 2)
    q = q[np.argsort(q[:, 0])]  # the worst order for a start from a part
    model = StableBalancingWeights().fit(q, p, moments=2)
    assert model.diagnostics().largest_after < 1e-9
    assert model.n_iter_ < 25


def test_refusals():
    q, p = shifted()
    with pytest.raises(OverlapError, match="margin x1: p's mean 9.* lies outside the range of q"):
        StableBalancingWeights().fit(q, p + np.array([0, 9, 0]))
    line = np.linspace(-1, 1, 60)
    flat = np.column_stack([line, line + 0.01 * np.sin(9 * line), line**2])
    far = flat + np.array([0.3, -0.3, 0.1])
    for tolerance in (0.0, 0.01, {"x2": 0.3}):
        with pytest.raises(OverlapError, match=r"x[01] .*without column 'x[01]' weights exist"):
            StableBalancingWeights(tolerance=tolerance).fit(flat, far)
    with pytest.raises(OptionError, match=r"tolerance\['x0'\] is -1; give a finite number, 0 or"):
        StableBalancingWeights(tolerance={"x0": -1}).fit(q, p)
    with pytest.raises(OptionError, match="tolerance names 'age', which is no column or margin"):
        StableBalancingWeights(tolerance={"age": 0.1}).fit(q, p)
    with pytest.raises(ConvergenceError, match="stopped after 1 steps with optimality violated by"):
        StableBalancingWeights(max_iter=1).fit(q, p)
    kept = StableBalancingWeights(max_iter=1, not_converged="keep").fit(q, p)
    assert not kept.converged_


def test_balances_adult_by_age(shared_data):
    import pyarrow as pa

    table = pq.read_table(shared_data / "adult.parquet").drop_columns(["class", "fnlwgt"])
    young = table["age"].to_numpy() < 40
    rest = table.drop_columns(["age"])
    q, p = rest.filter(pa.array(young)), rest.filter(pa.array(~young))
    stable = StableBalancingWeights().fit(q, p).diagnostics()
    entropy = EntropyBalancing().fit(q, p).diagnostics()
    assert stable.largest_before > 0.9
    assert stable.largest_after < 1e-9
    assert stable.effective_sample_size > entropy.effective_sample_size
    loose = StableBalancingWeights(tolerance=0.02).fit(q, p).diagnostics()
    assert loose.largest_after == pytest.approx(0.02, abs=1e-9)
    assert loose.effective_sample_size > stable.effective_sample_size


def coverage(shared_data, selections, draws, n=1500, m=1000):
    """Share of 95 % intervals that hold the truth under r = max(0, linear) on rows of Adult."""
    table = pq.read_table(shared_data / "adult.parquet")
    names = ("age", "education-num", "hours-per-week")
    x = np.column_stack([table[name].to_numpy() for name in names]).astype(float)
    y = (table["class"].to_numpy() == ">50K").astype(float)
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    rng = np.random.default_rng(11)
    shares = []
    for _ in range(selections):
        direction = rng.normal(size=3)
        r = np.maximum(1 + z @ (0.8 * direction / np.linalg.norm(direction)), 0)
        r /= r.sum()
        truth, hits = r @ y, 0
        for _ in range(draws):
            rows_q, rows_p = rng.integers(0, len(x), n), rng.choice(len(x), m, p=r)
            found = StableBalancingWeights().fit(x[rows_q], x[rows_p]).estimate(y[rows_q])
            hits += found.low <= truth <= found.high
        shares.append(hits / draws)
    return shares


def test_coverage_on_adult(shared_data):
    """Of 150 draws at 95 %, fewer than 125 hold (83 %) with probability below 1e-6."""
    assert 0.83 < coverage(shared_data, 1, 150)[0] <= 1


@pytest.mark.slow
def test_coverage_of_ten_selections(shared_data):
    shares = coverage(shared_data, 10, 200)
    assert all(0.89 <= share <= 0.99 for share in shares), shares


def test_standard_error_is_the_bootstraps():
    """120 resamples know a standard deviation to 6.5 %; five of these are 32 %."""
    q, p = shifted(3_000, 1_500, 2)
    rng = np.random.default_rng(1)
    y = q @ [1.0, 1.0] + 0.5 * q[:, 0] ** 2 + rng.normal(size=3_000)
    found = StableBalancingWeights().fit(q, p).estimate(y)
    values = []
    for _ in range(120):
        rows, others = rng.integers(0, 3_000, 3_000), rng.integers(0, 1_500, 1_500)
        model = StableBalancingWeights().fit(q[rows], p[others])
        values.append(model.estimate(y[rows]).estimate)
    assert found.standard_error == pytest.approx(np.std(values), rel=0.32)
