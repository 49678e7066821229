"""Standard errors: closed forms, the bootstrap, and coverage under a planted selection.

The coverage checks draw q and p from the rows of Adult, p in proportion to a known r(x), so that
P(Y|X) is the same on both sides and the truth is a sum over the rows.
"""

import numpy as np
import pyarrow.parquet as pq
import pytest

from dpdq.errors import DataError, OptionError
from dpdq.reweight import (
    CovariateBalancingPropensity,
    EntropyBalancing,
    InversePropensityWeighting,
    Raking,
)


def adult(shared_data):
    table = pq.read_table(shared_data / "adult.parquet")
    numbers = [table[name].to_numpy() for name in ("age", "education-num", "hours-per-week")]
    flags = [
        table["sex"].to_numpy() == "Male",
        table["marital-status"].to_numpy() == "Married-civ-spouse",
    ]
    x = np.column_stack([*numbers, *flags]).astype(float)
    return x, (table["class"].to_numpy() == ">50K").astype(float)


def coverage(x, y, make, *, selections, draws, n=1500, m=1000, regression=False):
    """Share of draws whose 95 % interval holds the truth, one number a selection."""
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    rng = np.random.default_rng(11)
    shares = []
    for _ in range(selections):
        direction = rng.normal(size=x.shape[1])
        r = np.exp(z @ (0.8 * direction / np.linalg.norm(direction)))
        r /= r.sum()
        design = np.column_stack([np.ones(len(x)), z[:, :2]])
        slopes = np.linalg.solve((design.T * r) @ design, (design.T * r) @ y)
        truth = slopes[1] if regression else r @ y
        hits = 0
        for _ in range(draws):
            rows_q, rows_p = rng.integers(0, len(x), n), rng.choice(len(x), m, p=r)
            model = make().fit(x[rows_q], x[rows_p])
            if regression:
                found = model.estimate(y[rows_q], estimand="regression", x=z[rows_q, :2])["x0"]
            else:
                found = model.estimate(y[rows_q])
            hits += found.low <= truth <= found.high
        shares.append(hits / draws)
    return shares


def test_coverage_on_adult(shared_data):
    """Of 150 draws at 95 %, fewer than 125 hold (83 %) with probability below 1e-6."""
    x, y = adult(shared_data)
    assert 0.83 < coverage(x, y, EntropyBalancing, selections=1, draws=150)[0] <= 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [
        EntropyBalancing,
        lambda: InversePropensityWeighting(penalty=0.0),
        lambda: CovariateBalancingPropensity(method="over"),
    ],
    ids=["entropy", "propensity", "over"],
)
def test_coverage_of_ten_selections(shared_data, make):
    x, y = adult(shared_data)
    shares = coverage(x, y, make, selections=10, draws=200, n=2000, m=1500)
    assert all(0.89 <= share <= 0.99 for share in shares), shares


@pytest.mark.slow
def test_coverage_of_a_regression_coefficient(shared_data):
    x, y = adult(shared_data)
    shares = coverage(x, y, EntropyBalancing, selections=5, draws=200, regression=True)
    assert all(0.89 <= share <= 0.99 for share in shares), shares


@pytest.mark.slow
def test_coverage_of_raking_with_selected_levels(shared_data):
    table = pq.read_table(shared_data / "adult.parquet").to_pandas()
    y = (table["class"] == ">50K").to_numpy(float)
    levels = table[["sex", "race"]].astype(str)
    levels["married"] = table["marital-status"].astype(str).str.startswith("Married").astype(str)
    levels = levels.replace({"race": dict.fromkeys(["Other", "Amer-Indian-Eskimo"], "Other")})
    rng = np.random.default_rng(12)
    shares = []
    for _ in range(3):
        r = np.ones(len(levels))
        for name in levels:
            effects = {level: rng.normal(0, 0.6) for level in np.unique(levels[name])}
            r *= np.exp(levels[name].map(effects).to_numpy(float))
        r /= r.sum()
        truth, hits = float(r @ y), 0
        for _ in range(200):
            rows_q, rows_p = rng.integers(0, len(y), 1000), rng.choice(len(y), 800, p=r)
            model = Raking().fit(levels.iloc[rows_q], levels.iloc[rows_p])
            found = model.estimate(y[rows_q])
            hits += found.low <= truth <= found.high
        shares.append(hits / 200)
    assert all(0.89 <= share <= 0.99 for share in shares), shares


MAKERS = {
    "entropy": EntropyBalancing,
    "cap": lambda: EntropyBalancing(cap=4.0),
    "propensity": lambda: InversePropensityWeighting(penalty=0.0),
    "propensity_cap": lambda: InversePropensityWeighting(penalty=0.0, cap=3.0),
    "over": lambda: CovariateBalancingPropensity(method="over"),
}


def sample(n=3000, m=1500, seed=0):
    rng = np.random.default_rng(seed)
    q, p = rng.normal(size=(n, 2)), rng.normal(size=(m, 2)) + [0.5, -0.2]
    return q, p, q @ [1.0, 1.0] + 0.5 * q[:, 0] ** 2 + rng.normal(size=n)


@pytest.mark.parametrize("name", MAKERS)
def test_standard_error_is_the_bootstraps(name):
    """120 resamples know a standard deviation to 6.5 %; five of these are 32 %."""
    q, p, y = sample()
    found = MAKERS[name]().fit(q, p).estimate(y)
    rng = np.random.default_rng(1)
    values = []
    for _ in range(120):
        rows, others = rng.integers(0, len(q), len(q)), rng.integers(0, len(p), len(p))
        model = MAKERS[name]().fit(q[rows], p[others])
        values.append(model.estimate(y[rows]).estimate)
    assert found.standard_error == pytest.approx(np.std(values), rel=0.32)


def test_balanced_outcome_leaves_only_the_error_of_p():
    q, p, _ = sample()
    y = 2 * q[:, 0] - q[:, 1] + 3
    found = EntropyBalancing().fit(q, p).estimate(y)
    at_p = 2 * p[:, 0] - p[:, 1] + 3
    assert found.estimate == pytest.approx(at_p.mean())
    assert found.standard_error == pytest.approx(at_p.std(ddof=1) / np.sqrt(len(p)))


def test_weights_known_to_be_one_give_the_plain_standard_error():
    q, _, y = sample()
    model = EntropyBalancing().fit(q, targets=None, p=q)
    unrelated = np.random.default_rng(2).normal(size=len(q))
    found = model.estimate(unrelated)
    plain = unrelated.std(ddof=1) / np.sqrt(len(q))
    assert found.standard_error == pytest.approx(plain, rel=0.02)
    assert found.estimate == pytest.approx(unrelated.mean())


def test_units_of_the_outcome():
    q, p, y = sample()
    model = EntropyBalancing().fit(q, p)
    one, two = model.estimate(y), model.estimate(100 - 7 * y)
    assert two.estimate == pytest.approx(100 - 7 * one.estimate)
    assert two.standard_error == pytest.approx(7 * one.standard_error)
    assert two.low == pytest.approx(100 - 7 * one.high)
    wide = model.estimate(y, level=0.99)
    assert wide.low < one.low < one.high < wide.high


def test_regression_on_a_constant_is_the_mean():
    q, p, y = sample()
    model = EntropyBalancing().fit(q, p)
    flag = (q[:, 0] > 0).astype(float)
    line = model.estimate(y, estimand="regression", x=flag[:, None])
    w = model.weights_
    groups = [np.average(y[flag == k], weights=w[flag == k]) for k in (0, 1)]
    assert line["intercept"].estimate == pytest.approx(groups[0])
    assert line["x0"].estimate == pytest.approx(groups[1] - groups[0])
    assert line.covariance.shape == (2, 2)
    pd = pytest.importorskip("pandas")
    named = model.estimate(y, estimand="regression", x=pd.DataFrame({"up": flag}))
    assert named.names == ("intercept", "up")
    assert named["up"].standard_error == pytest.approx(line["x0"].standard_error)
    with pytest.raises(OptionError, match="Unknown coefficient 'down'"):
        _ = named["down"]


def test_distrusted_weights_hand_on_their_reason():
    rng = np.random.default_rng(3)
    q, p = rng.normal(size=(400, 1)), rng.normal(2.2, 0.3, size=(400, 1))
    model = EntropyBalancing().fit(q, p)
    assert model.diagnostics().status.endswith(model.estimate(q[:, 0] ** 2).reason)
    assert "Not trustworthy" in model.estimate(q[:, 0] ** 2).reason


def test_refusals():
    q, p, y = sample(300, 200)
    model = EntropyBalancing().fit(q, p)
    with pytest.raises(OptionError, match="needs x, the regressors"):
        model.estimate(y, estimand="regression")
    with pytest.raises(DataError, match="x has 5 rows where q has 300"):
        model.estimate(y, estimand="regression", x=q[:5])
    with pytest.raises(DataError, match="linearly dependent columns"):
        model.estimate(y, estimand="regression", x=np.ones((300, 1)))
    with pytest.raises(DataError, match="y holds no numbers"):
        model.estimate(["high"] * 300)
