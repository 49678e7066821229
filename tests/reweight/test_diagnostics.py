"""The balance table, the love plot, sentences, and leaving out a covariate."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from dpdq.reweight import EntropyBalancing, InversePropensityWeighting
from dpdq.weights import Weights


def sides(seed=0, n=500, m=400):
    rng = np.random.default_rng(seed)
    q = {"age": rng.normal(40, 10, n), "sex": rng.choice(["f", "m"], n, p=[0.4, 0.6])}
    p = {"age": rng.normal(46, 8, m), "sex": rng.choice(["f", "m"], m, p=[0.6, 0.4])}
    return q, p


def test_table_by_hand():
    q, p = sides()
    model = InversePropensityWeighting(penalty=0.05).fit(q, p)
    report = model.diagnostics()
    age = report.margins[0]
    assert age.margin == "age"
    assert age.mean_q == pytest.approx(q["age"].mean())
    assert age.target == pytest.approx(p["age"].mean())
    assert age.mean_weighted == pytest.approx(np.average(q["age"], weights=model.weights_))
    sd = np.sqrt((q["age"].var() + p["age"].var()) / 2)
    assert age.smd_before == pytest.approx((age.mean_q - age.target) / sd)
    assert age.smd_after == pytest.approx((age.mean_weighted - age.target) / sd)
    women = {each.margin: each for each in report.margins}["sex=f"]
    assert women.mean_q == pytest.approx((q["sex"] == "f").mean())
    share_q, share_p = women.mean_q, women.target
    sd = np.sqrt((share_q * (1 - share_q) + share_p * (1 - share_p)) / 2)
    assert women.smd_before == pytest.approx((share_q - share_p) / sd)
    worst = max(report.margins, key=lambda each: abs(each.smd_after))
    assert report.worst_margin == worst.margin
    assert report.largest_after == abs(worst.smd_after)
    weights = Weights.from_values(model.weights_)
    assert report.khat == pytest.approx(weights.khat)
    assert report.n_q, report.n_p == (500, 400)
    json.dumps(report.to_dict())


def test_design_weights_are_part_of_the_balance_before():
    q, p = sides()
    design = np.random.default_rng(1).uniform(0.2, 3, 500)
    report = EntropyBalancing().fit(q, p, weights_q=design).diagnostics()
    assert report.margins[0].mean_q == pytest.approx(np.average(q["age"], weights=design))
    assert report.margins[0].mean_weighted == pytest.approx(p["age"].mean())


def test_love_plot_and_frame():
    q, p = sides()
    report = EntropyBalancing().fit(q, p).diagnostics()
    rows = report.love_plot()
    assert [row["before"] for row in rows] == sorted((row["before"] for row in rows), reverse=True)
    assert all(row["after"] < 1e-9 for row in rows)
    frame = report.to_frame()
    assert frame.num_rows == 3
    assert frame["margin"].to_pylist() == ["age", "sex=f", "sex=m"]


def test_sentences():
    q, p = sides()
    exact = EntropyBalancing().fit(q, p).diagnostics()
    assert exact.status.startswith("All 3 margins balance (largest difference")
    loose = EntropyBalancing(tolerance=0.05).fit(q, p).diagnostics()
    assert "within 0.1 standard deviations; the worst is" in loose.status
    rough = InversePropensityWeighting(penalty=3.0).fit(q, p).diagnostics()
    assert "differ by more than 0.1 standard deviations; the worst is age (mean 4" in rough.status
    far = {"age": p["age"] + 12, "sex": p["sex"]}
    assert "Not trustworthy: k-hat" in EntropyBalancing().fit(q, far).diagnostics().status


def test_columns_on_one_side_are_named():
    q, p = sides()
    report = EntropyBalancing().fit({**q, "y": q["age"]}, p).diagnostics()
    assert report.columns_left_out == ("y",)


def test_sensitivity_refits_without_each_covariate():
    q, p = sides()
    y = q["age"] + np.random.default_rng(2).normal(size=500)
    model = EntropyBalancing().fit(q, p)
    found = {each.column: each for each in model.sensitivity(y)}
    rest = EntropyBalancing().fit({"sex": q["sex"]}, {"sex": p["sex"]})
    assert found["age"].estimate == pytest.approx(np.average(y, weights=rest.weights_))
    assert found["age"].effective_sample_size == pytest.approx(
        rest.diagnostics().effective_sample_size
    )
    assert found["age"].change == pytest.approx(
        found["age"].estimate - np.average(y, weights=model.weights_)
    )
    assert "standard deviations off" in found["age"].status
    copy_q, copy_p = {**q, "years": q["age"]}, {**p, "years": p["age"]}
    left = {each.column: each for each in EntropyBalancing().fit(copy_q, copy_p).sensitivity()}
    assert left["years"].smd_after < 1e-9
    assert left["years"].status == "the other covariates balance it too"
    assert left["sex"].estimate is None


def test_sensitivity_of_a_single_covariate():
    q, p = sides()
    (only,) = EntropyBalancing().fit({"age": q["age"]}, {"age": p["age"]}).sensitivity()
    assert only.effective_sample_size == pytest.approx(500)
    assert only.smd_after > 0.4


def test_sensitivity_on_bike_seasons(shared_data):
    table = pq.read_table(shared_data / "bike_hourly.parquet").to_pandas()
    columns = ["hr", "workingday", "temp", "hum", "windspeed"]
    q, p = (table[table.season == season] for season in (2, 3))
    model = EntropyBalancing().fit(q[columns], p[columns])
    found = model.sensitivity(q["cnt"].to_numpy())
    assert found[0].column == "temp"
    assert found[0].change < -20
