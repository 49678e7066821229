"""Weight or not: the cost of a shift, the test of the model, and what is advised."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.datasets import load_diabetes
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from dpdq.errors import DataError, InputTypeError, OptionError
from dpdq.reweight import (
    EnergyBalancing,
    EntropyBalancing,
    InversePropensityWeighting,
    Reweighted,
    shift_cost,
    weighting_advice,
)


def sides(n, d=3, shift=0.5, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(0, 1, (n, d)), rng.normal(shift, 1, (n, d)), rng


def test_cost_by_hand():
    q, p, _ = sides(4000, 1, 1.0)
    z = [np.column_stack([np.ones(4000), each]) for each in (q, p)]
    info_q, info_p = (each.T @ each / 4000 for each in z)
    found = shift_cost(q, p)
    assert found.cost == pytest.approx(np.trace(info_p @ np.linalg.inv(info_q)) / 8000, rel=1e-9)
    assert found.cost_without_shift == 2 / 8000
    assert found.inflation == pytest.approx(found.cost / found.cost_without_shift)
    assert found.uncovered == ()
    assert "no weighting does better" in found.status


def test_no_shift_costs_what_parameters_cost():
    q, _, rng = sides(500)
    assert shift_cost(q, q.copy()).inflation == pytest.approx(1.0)
    y = rng.random(500) < 0.4
    assert shift_cost(q, q.copy(), model="logistic", y=y).inflation == pytest.approx(1.0)


def test_units_and_order_of_columns_do_not_matter():
    q, p, rng = sides(600)
    y = (q[:, 0] + rng.normal(size=600) > 0).astype(int)
    moved = [each[:, ::-1] * [1e3, 1.0, 1e-3] + [5.0, 0.0, 1e4] for each in (q, p)]
    for options in ({}, {"model": "logistic", "y": y}):
        first, second = shift_cost(q, p, **options), shift_cost(*moved, **options)
        assert first.cost == pytest.approx(second.cost, rel=1e-6)


def test_cost_equals_a_simulation():
    """Mean excess loss of 4,000 fits; its standard error is 1.5 %, the band six of them."""
    rng = np.random.default_rng(1)
    n = 200
    q = rng.normal(0, 1, (n, 2))
    p = rng.normal([0.5, 1.0], [1.0, 1.5], (n, 2))
    z_q, z_p = (np.column_stack([np.ones(n), each]) for each in (q, p))
    noise = rng.normal(0, 1, (n, 4000))
    error = z_p @ np.linalg.lstsq(z_q, noise, rcond=None)[0]  # the truth is zero
    excess = np.mean(error**2, axis=0) / 2  # nats at sigma = 1
    found = shift_cost(q, p).cost
    assert abs(excess.mean() / found - 1) < 0.09
    assert found > 1.5 * shift_cost(q, p).cost_without_shift


def test_what_q_does_not_cover_is_named():
    q, p, rng = sides(300)
    q[:, 1] = q[:, 0] + 1e-9 * rng.normal(size=300)  # q never tells these two apart
    found = shift_cost(
        pa.table({"a": q[:, 0], "b": q[:, 1]}), pa.table({"a": p[:, 0], "b": p[:, 1]})
    )
    assert found.cost is None
    assert found.inflation is None
    assert set(found.uncovered[0].split()) >= {"a", "b", "-"}
    assert found.rows_of_worst < 1
    assert "collect such rows" in found.status
    constant = np.column_stack([q[:, 0], np.ones(300)])
    found = shift_cost(constant, p[:, :2])
    assert "x1" in found.uncovered[0]


def test_mixed_frames():
    rng = np.random.default_rng(0)
    q = pa.table({"town": rng.choice(["a", "b", "c"], 400), "age": rng.normal(40, 9, 400)})
    p = pa.table({"town": rng.choice(["a", "b"], 300), "age": rng.normal(45, 9, 300)})
    found = shift_cost(q, p)
    assert found.n_parameters == 4  # intercept, age, and three levels less one
    assert found.cost > 0


# ------------------------------------------------------------------ M350's check


def diabetes(seed):
    """Covariates of real patients, biased by body mass: q is lean, p is not."""
    x = load_diabetes().data[:, [0, 2, 3, 8]]
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    rng = np.random.default_rng(seed)
    lean = rng.random(len(x)) < 1 / (1 + np.exp(2.0 * x[:, 1]))
    return x[lean], x[~lean], rng


def target_errors(quadratic, seeds):
    """Excess squared error on p of fits without and with weights."""
    plain, weighted = [], []
    for seed in seeds:
        q, p, rng = diabetes(seed)

        def truth(x):
            return x @ [1.0, 2.0, -1.0, 0.5] + (1.5 * x[:, 1] ** 2 if quadratic else 0.0)

        y = truth(q) + rng.normal(0, 1, len(q))
        ours = Reweighted(LinearRegression(), EntropyBalancing(tolerance=0.05))
        ours.fit(q, y, target=p)
        plain.append(np.mean((LinearRegression().fit(q, y).predict(p) - truth(p)) ** 2))
        weighted.append(np.mean((ours.predict(p) - truth(p)) ** 2))
    return np.array(plain), np.array(weighted)


def test_a_right_model_is_better_without_weights():
    """Paired over 60 draws: their difference is 6.6 standard errors, 3 are asked for."""
    plain, weighted = target_errors(False, range(60))
    gap = weighted - plain
    assert gap.mean() > 3 * gap.std() / np.sqrt(60)


def test_a_wrong_model_is_better_with_weights():
    plain, weighted = target_errors(True, range(60))
    assert weighted.mean() < 0.7 * plain.mean()
    assert np.mean(weighted < plain) > 0.9


def test_quadratic_truth_asks_for_weights():
    q, p, rng = sides(3000, 2, 1.0)
    weighter = EntropyBalancing().fit(q, p)
    bent = q[:, 0] ** 2 + rng.normal(0, 1, 3000)
    found = weighting_advice(weighter, bent)
    assert found.weight
    assert found.gain.low > 0
    assert found.pvalue < 1e-6
    assert found.status.startswith("Weight: it lowers the squared error on p by")
    right = q @ [1.0, -1.0] + rng.normal(0, 1, 3000)
    found = weighting_advice(weighter, right)
    assert not found.weight
    assert found.pvalue > 1e-4
    assert "nothing speaks against the model" in found.status
    assert found.cost_unweighted < found.cost_weighted


def test_logistic_costs_and_classes_by_name():
    q, p, rng = sides(3000, 2)
    weighter = EntropyBalancing().fit(q, p)
    y = np.where(rng.random(3000) < 1 / (1 + np.exp(-q[:, 0])), "yes", "no")
    found = weighting_advice(weighter, y)
    again = weighting_advice(weighter, (y == "yes").astype(int))
    assert found == again
    assert (found.model, found.loss) == ("logistic", "log loss")
    assert found.cost_unweighted == pytest.approx(
        shift_cost(q, p, model="logistic", y=y).cost, rel=0.02
    )
    assert found.pvalue > 1e-4
    assert found.freedom == 3


def test_pvalues_of_a_right_model_are_calibrated():
    """Share of 120 p-values below 0.05: 0.05 within 4.5 binomial errors; uneven noise."""
    small = 0
    for seed in range(120):
        q, p, rng = sides(800, 2, 0.4, seed)
        y = q @ [1.0, 1.0] + rng.normal(0, 1, 800) * (1 + 0.5 * np.abs(q[:, 0]))
        weighter = EntropyBalancing().fit(q, p)
        small += weighting_advice(weighter, y, n_folds=2).pvalue < 0.05
    assert small <= 120 * 0.05 + 4.5 * np.sqrt(120 * 0.05 * 0.95)


def test_equal_weights_move_nothing():
    q, _, rng = sides(400)
    found = weighting_advice(EntropyBalancing().fit(q, q.copy()), rng.normal(size=400))
    assert found.pvalue is None
    assert not found.weight
    assert found.gain.estimate == pytest.approx(0.0, abs=1e-9)
    assert "not shown to help" in found.status


def test_an_estimator_of_ones_own_agrees_with_ours():
    q, p, rng = sides(1500, 2)
    y = (q[:, 0] ** 2 + rng.normal(0, 0.5, 1500) > 1).astype(int)
    weighter = EntropyBalancing().fit(q, p, weights_q=rng.integers(0, 3, 1500))
    ours = weighting_advice(weighter, y)
    theirs = weighting_advice(weighter, y, estimator=LogisticRegression(C=1e9), X=q)
    assert theirs.gain.estimate == pytest.approx(ours.gain.estimate, abs=1e-4)
    assert theirs.gain.low == pytest.approx(ours.gain.low, abs=1e-4)
    assert theirs.model == "LogisticRegression"
    assert theirs.pvalue is None
    number = q[:, 0] ** 2
    ours = weighting_advice(weighter, number)
    theirs = weighting_advice(weighter, number, estimator=LinearRegression(), X=q)
    assert theirs.gain.estimate == pytest.approx(ours.gain.estimate, rel=1e-5)


def test_a_method_without_errors_of_its_own():
    q, p, rng = sides(300, 2)
    weighter = EnergyBalancing().fit(q, p)
    found = weighting_advice(weighter, rng.normal(size=300))
    assert found.gain.low < found.gain.estimate < found.gain.high


def test_a_changed_relation_is_said():
    q, p, rng = sides(400)
    weighter = EntropyBalancing().fit(q, p)
    found = weighting_advice(weighter, rng.normal(size=400), concept_pvalue=0.001)
    assert "P(Y|X) differs between q and p (p = 0.001)" in found.status
    assert "differs" not in weighting_advice(weighter, rng.normal(size=400)).status


def test_what_is_refused():
    q, p, rng = sides(100)
    y = rng.normal(size=100)
    weighter = EntropyBalancing().fit(q, p, moments={"x0": 1})
    with pytest.raises(OptionError, match="Unknown model 'probit'. Choose one of 'auto', 'linear'"):
        weighting_advice(weighter, y, model="probit")
    with pytest.raises(OptionError, match="Unknown model 'auto'. Choose one of 'linear'"):
        shift_cost(q, p, model="auto")
    with pytest.raises(OptionError, match="give y, labels of q"):
        shift_cost(q, p, model="logistic")
    with pytest.raises(OptionError, match="y has 100 different values"):
        weighting_advice(weighter, y, model="logistic")
    with pytest.raises(DataError, match=r"y has shape \(99,\); expected \(100,\)"):
        weighting_advice(weighter, y[1:])
    with pytest.raises(DataError, match=r"1 of 100 labels are missing \(first at row 3\)"):
        weighting_advice(weighter, np.where(np.arange(100) == 3, np.nan, y))
    with pytest.raises(DataError, match="y holds no numbers"):
        weighting_advice(weighter, np.array(["a", "b", "c", "d"] * 25))
    with pytest.raises(OptionError, match="needs X"):
        weighting_advice(weighter, y, estimator=LinearRegression())
    with pytest.raises(OptionError, match="takes no sample_weight"):
        weighting_advice(weighter, y > 0, estimator=KNeighborsClassifier(), X=q)
    with pytest.raises(InputTypeError, match="give a fitted weighter"):
        weighting_advice(None, y)


def test_adult_by_age_says_no(shared_data):
    """Weights raise the log loss of a logistic model above 40; it is said before."""
    table = pq.read_table(shared_data / "adult.parquet")
    young = np.asarray(table["age"]) < 40
    rich = np.asarray(table["class"].cast(pa.string())) == ">50K"
    x = table.drop_columns(["age", "fnlwgt", "class"])
    q, p = x.filter(pa.array(young)), x.filter(pa.array(~young))
    weighter = InversePropensityWeighting(penalty=1e-4).fit(q, p)
    found = weighting_advice(weighter, rich[young])
    assert not found.weight
    assert found.gain.high < 0
    assert "Do not weight" in found.status
