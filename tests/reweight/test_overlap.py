"""Overlap weights: exact balance of both sides, least variance, inverse variances, coverage."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dpdq.errors import OptionError, OverlapError
from dpdq.reweight import EntropyBalancing, OverlapWeights


def shifted(n=600, m=400, d=3, shift=1.0, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)), rng.normal(size=(m, d)) + shift


def means(model, q, p):
    return (
        np.average(q, axis=0, weights=model.weights_),
        np.average(p, axis=0, weights=model.weights_p_),
    )


@pytest.mark.parametrize("share_p", [0.5, 0.1])
def test_both_sides_balance_exactly(share_p):
    q, p = shifted(shift=1.5)
    model = OverlapWeights(share_p=share_p).fit(q, p)
    mean_q, mean_p = means(model, q, p)
    assert mean_q == pytest.approx(mean_p, abs=1e-10)
    assert (mean_q > q.mean(axis=0)).all()
    assert (mean_q < p.mean(axis=0)).all()
    report = model.diagnostics()
    assert (report.target, report.largest_after < 1e-10) == ("overlap", True)
    assert report.margins[0].target == pytest.approx(mean_p[0])
    assert report.margins[0].smd_before < -1
    assert "The weights stand for the overlap of q and p, not for p itself" in report.status


def test_equals_the_propensity_of_scikit_learn():
    from sklearn.linear_model import LogisticRegression

    q, p = shifted()
    rows, side = np.concatenate([q, p]), np.repeat([0, 1], [600, 400])
    # scikit-learn counts rows: the share of p is that of rows
    fitted = LogisticRegression(C=np.inf, tol=1e-10).fit(rows, side)
    e = fitted.predict_proba(rows)[:, 1]
    model = OverlapWeights(share_p=0.4).fit(q, p)
    assert model.weights_ == pytest.approx(e[:600] / e[:600].mean(), rel=1e-4)
    assert model.weights_p_ == pytest.approx((1 - e[600:]) / (1 - e[600:]).mean(), rel=1e-4)
    assert model.log_ratio(q) == pytest.approx(np.log(model.weights_))


def test_symmetric_in_the_sides():
    q, p = shifted()
    one, two = OverlapWeights(share_p=0.3).fit(q, p), OverlapWeights(share_p=0.7).fit(p, q)
    assert one.weights_ == pytest.approx(two.weights_p_, rel=1e-8)
    assert one.weights_p_ == pytest.approx(two.weights_, rel=1e-8)


def test_sample_size_does_not_move_the_target():
    q, p = shifted()
    one, two = OverlapWeights().fit(q, p), OverlapWeights().fit(np.tile(q, (5, 1)), p)
    assert means(one, q, p)[1] == pytest.approx(means(two, np.tile(q, (5, 1)), p)[1])


CELLS = np.arange(4)
COUNT_Q, COUNT_P = np.array([400, 300, 200, 30]), np.array([40, 100, 250, 200])


def discrete():
    q, p = np.repeat(CELLS, COUNT_Q), np.repeat(CELLS, COUNT_P)
    return {"x": q.astype(str)}, {"x": p.astype(str)}, q, p


def contrast_variance(tilt, noise):
    """Variance of the difference of means over the density ``tilt``, with noise variances."""
    tilt = tilt / tilt.sum()
    return float(np.sum(tilt**2 * noise * (1 / COUNT_Q + 1 / COUNT_P)))


@pytest.mark.parametrize("noise", [np.ones(4), np.array([0.2, 1.0, 3.0, 9.0])])
def test_least_variance_of_all_target_populations(noise):
    """The closed form in cells: n_q n_p / (n_q + n_p) over the noise variance."""
    q, p, cell_q, cell_p = discrete()
    design_q, design_p = 1 / noise[cell_q], 1 / noise[cell_p]
    share = design_p.sum() / (design_q.sum() + design_p.sum())
    model = OverlapWeights(share_p=share).fit(q, p, weights_q=design_q, weights_p=design_p)
    tilt = np.bincount(cell_q, model.weights_)
    tilt_p = np.bincount(cell_p, model.weights_p_)
    assert tilt / tilt.sum() == pytest.approx(tilt_p / tilt_p.sum())
    closed = COUNT_Q * COUNT_P / (COUNT_Q + COUNT_P) / noise
    assert tilt / tilt.sum() == pytest.approx(closed / closed.sum())
    least = contrast_variance(tilt, noise)
    rng = np.random.default_rng(0)
    for other in (COUNT_P, COUNT_Q, *(tilt * rng.uniform(0.7, 1.4, (20, 4)))):
        assert contrast_variance(other, noise) > least


def test_residual_on_residual_regression_is_the_overlap_contrast():
    """M434: with effects that differ, the R-learner's one coefficient averages over the overlap."""
    q, p, cell_q, cell_p = discrete()
    base, effect = np.array([0.0, 1.0, -1.0, 2.0]), np.array([1.0, -2.0, 0.5, 4.0])
    cell, side = np.concatenate([cell_q, cell_p]), np.repeat([0, 1], [COUNT_Q.sum(), COUNT_P.sum()])
    y = base[cell] + effect[cell] * side
    e = (COUNT_P / (COUNT_Q + COUNT_P))[cell]
    m = base[cell] + effect[cell] * e
    learner = np.sum((side - e) * (y - m)) / np.sum((side - e) ** 2)
    model = OverlapWeights(share_p=COUNT_P.sum() / len(cell)).fit(q, p)
    means = [
        np.average(y[side == k], weights=weights)
        for k, weights in enumerate((model.weights_, model.weights_p_))
    ]
    assert means[1] - means[0] == pytest.approx(learner)
    over_p = np.average(effect, weights=COUNT_P)
    assert abs(learner - over_p) > 0.3


def test_dropped_rows_of_p_weigh_nothing():
    q, p = shifted()
    keep = np.random.default_rng(1).random(400) < 0.7
    model = OverlapWeights().fit(q, p, weights_p=keep)
    assert (model.weights_p_[~keep] == 0).all()
    assert model.weights_p_[keep] == pytest.approx(OverlapWeights().fit(q, p[keep]).weights_p_)
    assert EntropyBalancing().fit(q, p).weights_p_ is None


def test_sensitivity_compares_the_weighted_sides():
    q, p = shifted()
    both = [np.column_stack([x, x[:, 0]]) for x in (q, p)]  # the copy is balanced by the original
    left = {each.column: each for each in OverlapWeights().fit(*both).sensitivity()}
    assert left["x3"].smd_after < 1e-9
    assert left["x1"].smd_after > 0.1


def test_estimates_say_what_they_are_for():
    q, p = shifted()
    found = OverlapWeights().fit(q, p).estimate(q[:, 0])
    assert found.method.startswith("weighted mean over the overlap of q and p, not over p")
    line = OverlapWeights().fit(q, p).estimate(q[:, 1], estimand="regression", x=q[:, :1])
    assert "over the overlap of q and p" in line["x0"].method


def test_refusals():
    q, p = shifted()
    with pytest.raises(OverlapError, match="tell q from p without error"):
        OverlapWeights().fit(q, p + 30)
    with pytest.raises(OptionError, match="share_p is 1.5; give a number between 0 and 1"):
        OverlapWeights(share_p=1.5).fit(q, p)
    with pytest.raises(OptionError, match="OverlapWeights needs rows of p, not totals"):
        OverlapWeights().fit(q, targets={"x0": 0.1})


def test_standard_error_is_the_bootstraps():
    """120 resamples know a standard deviation to 6.5 %; five of these are 32 %."""
    q, p = shifted(2_000, 900, 2)
    y = q @ [1.0, 1.0] + 0.5 * q[:, 0] ** 2 + np.random.default_rng(1).normal(size=2_000)
    found = OverlapWeights(share_p=0.3).fit(q, p).estimate(y)
    rng, values = np.random.default_rng(2), []
    for _ in range(120):
        rows, others = rng.integers(0, 2_000, 2_000), rng.integers(0, 900, 900)
        model = OverlapWeights(share_p=0.3).fit(q[rows], p[others])
        values.append(model.estimate(y[rows]).estimate)
    assert found.standard_error == pytest.approx(np.std(values), rel=0.32)


def adult(shared_data):
    return pq.read_table(shared_data / "adult.parquet").drop_columns(["class", "fnlwgt"])


def test_adult_by_age(shared_data):
    table = adult(shared_data)
    young = table["age"].to_numpy() < 40
    rest = table.drop_columns(["age"])
    q, p = rest.filter(pa.array(young)), rest.filter(pa.array(~young))
    report = OverlapWeights().fit(q, p).diagnostics()
    assert report.largest_before > 0.9
    assert report.largest_after < 1e-8
    entropy = EntropyBalancing().fit(q, p).diagnostics()
    assert report.effective_sample_size > 1.5 * entropy.effective_sample_size


def test_coverage_on_adult(shared_data):
    """Of 120 draws at 95 %, fewer than 98 hold (81 %) with probability below 1e-6."""
    table = pq.read_table(shared_data / "adult.parquet")
    names = ("age", "education-num", "hours-per-week")
    x = np.column_stack([table[name].to_numpy() for name in names]).astype(float)
    y = (table["class"].to_numpy() == ">50K").astype(float)
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    r = np.exp(z @ [1.0, -0.6, 0.5])
    r /= r.mean()
    overlap = r / (1 + r)
    truth, hits = overlap @ y / overlap.sum(), 0
    rng = np.random.default_rng(11)
    for _ in range(120):
        rows_q, rows_p = rng.integers(0, len(x), 1500), rng.choice(len(x), 1000, p=r / r.sum())
        found = OverlapWeights().fit(x[rows_q], x[rows_p]).estimate(y[rows_q])
        hits += found.low <= truth <= found.high
    assert hits >= 98
