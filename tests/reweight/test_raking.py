"""Raking and post-stratification: plain IPF, hand calculations, cells, targets, refusals."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dpdq.errors import ConvergenceError, DataError, OptionError, OverlapError
from dpdq.reweight import (
    EntropyBalancing,
    InversePropensityWeighting,
    PostStratification,
    Raking,
)


def survey(n, seed, tilt=0.0):
    rng = np.random.default_rng(seed)
    return {
        "sex": rng.choice(["f", "m"], n, p=[0.5 + tilt, 0.5 - tilt]),
        "town": rng.choice(["a", "b", "c"], n, p=[0.2 + tilt, 0.3, 0.5 - tilt]),
        "age": rng.choice(["young", "old"], n, p=[0.6 - tilt, 0.4 + tilt]),
    }


def proportional_fitting(q, p, base, sweeps=200):
    """Row by row, as in the textbook."""
    w = base.astype(float).copy()
    for _ in range(sweeps):
        for name in q:
            for level in np.unique(p[name]):
                here = q[name] == level
                w[here] *= (p[name] == level).mean() * w.sum() / w[here].sum()
    return w / w.mean()


def test_equals_iterative_proportional_fitting():
    q, p = survey(300, 0), survey(500, 1, tilt=0.15)
    base = np.random.default_rng(2).uniform(0.5, 2, 300)
    model = Raking().fit(q, p, weights_q=base)
    assert model.weights_ == pytest.approx(proportional_fitting(q, p, base), rel=1e-8)
    assert model.diagnostics().largest_after < 1e-9


def test_equals_entropy_balancing_on_levels():
    q, p = survey(300, 0), survey(500, 1, tilt=0.15)
    options = {"interactions": [("sex", "town")]}
    raked = Raking().fit(q, p, **options)
    assert raked.weights_ == pytest.approx(EntropyBalancing().fit(q, p, **options).weights_)
    joint = [
        np.average((q["sex"] == "f") & (q["town"] == "a"), weights=raked.weights_),
        ((p["sex"] == "f") & (p["town"] == "a")).mean(),
    ]
    assert joint[0] == pytest.approx(joint[1])


def test_newton_finishes_where_sweeps_creep(shared_data):
    """A missing occupation is nearly a missing workclass: sweeps alone take thousands."""
    table = pq.read_table(shared_data / "adult.parquet")
    young = pa.array(table["age"].to_numpy() < 40)
    levels = table.select(["workclass", "occupation", "education", "marital-status", "race"])
    q, p = levels.filter(young), levels.filter(pa.compute.invert(young))
    model = Raking().fit(q, p)
    assert model.diagnostics().largest_after < 1e-9
    assert model.n_iter_ > 50
    assert model.weights_ == pytest.approx(EntropyBalancing().fit(q, p).weights_, abs=1e-8)


def test_population_targets_as_counts_with_a_rest():
    q = {"sex": ["f", "f", "m", "x", None], "town": ["a", "b", "a", "b", "a"]}
    model = Raking().fit(q, targets={"sex": {"f": 400, "(other)": 600}, "town": {"a": 1, "b": 1}})
    w = model.weights_
    assert w[:2].sum() / 5 == pytest.approx(0.4)
    assert w[[0, 2, 4]].sum() / 5 == pytest.approx(0.5)
    assert (w > 0).all()
    assert model.diagnostics().n_p is None
    shares = {"sex": {"f": 1, "m": 1, "x": 0, "(missing)": 1}}
    model = Raking().fit(q, targets=shares)
    assert model.weights_[3] == 0
    assert "1 rows of q weigh nothing, because the target of sex=x" in model.diagnostics().status


def test_known_totals_have_no_sampling_error():
    q = survey(2000, 0)
    y = (q["sex"] == "f") + np.random.default_rng(3).normal(0, 0.1, 2000)
    p = survey(100, 1, tilt=0.1)
    shares = {
        name: {level: float((p[name] == level).mean()) for level in np.unique(p[name])}
        for name in p
    }
    known = Raking().fit(q, targets=shares).estimate(y)
    sampled = Raking().fit(q, p).estimate(y)
    assert known.estimate == pytest.approx(sampled.estimate)
    assert known.standard_error < 0.01 < 0.03 < sampled.standard_error


def test_post_stratification_by_hand():
    q, p = survey(400, 0), survey(600, 1, tilt=0.1)
    model = PostStratification().fit(q, p)
    keys_q, keys_p = (
        np.array([" ".join(row) for row in zip(*side.values(), strict=True)]) for side in (q, p)
    )
    expected = np.array([(keys_p == key).mean() / (keys_q == key).mean() for key in keys_q])
    assert model.weights_ == pytest.approx(expected)
    assert model.n_cells_ == 12
    y = np.random.default_rng(4).normal(size=400) + (q["sex"] == "f")
    by_cell = sum((keys_p == key).mean() * y[keys_q == key].mean() for key in np.unique(keys_p))
    found = model.estimate(y)
    assert found.estimate == pytest.approx(by_cell)
    variance = sum(
        (keys_p == key).mean() ** 2 * y[keys_q == key].var() / (keys_q == key).sum()
        for key in np.unique(keys_p)
    )
    means = np.array([y[keys_q == key].mean() for key in keys_p])
    assert found.standard_error == pytest.approx(np.sqrt(variance + means.var() / 600), rel=0.05)


def test_post_stratification_from_joint_targets():
    q = survey(200, 0)
    joint = {("f", "a"): 10, ("f", "b"): 20, ("f", "c"): 30, ("m", "a"): 15, ("m", "b"): 20}
    joint[("m", "c")] = 5
    model = PostStratification().fit(q, targets={("sex", "town"): joint})
    here = (q["sex"] == "f") & (q["town"] == "c")
    assert np.average(here, weights=model.weights_) == pytest.approx(0.3)
    assert model.weights_ == pytest.approx(
        Raking().fit(q, targets={("sex", "town"): joint}).weights_
    )
    single = PostStratification().fit(q, targets={"town": {"a": 1, "b": 1, "c": 2}})
    assert np.average(q["town"] == "c", weights=single.weights_) == pytest.approx(0.5)
    with pytest.raises(OptionError, match="cells of all columns together"):
        PostStratification().fit(
            q, targets={"sex": {"f": 1, "m": 1}, "town": {"a": 1, "b": 1, "c": 1}}
        )


def test_empty_cells_are_named_or_collapsed():
    q = {"sex": ["f"] * 6 + ["m"] * 3, "town": ["a", "a", "b", "b", "c", "c", "a", "b", "b"]}
    p = {"sex": ["f", "m", "m", "m"], "town": ["a", "b", "c", "c"]}
    with pytest.raises(
        OverlapError, match=r"1 cells of p \(50 % of it\) have no row of q, the largest .*town=c"
    ):
        PostStratification().fit(q, p)
    model = PostStratification(collapse=True).fit(q, p)
    assert model.n_collapsed_ >= 1
    assert (model.weights_ > 0).all()
    assert "joined to similar ones" in model.diagnostics().status
    assert model.n_cells_ == 2
    shared = [side["town"] for side in (q, p)]  # with one column an empty cell joins the largest
    model = PostStratification(collapse=True).fit({"town": shared[0][:4]}, {"town": shared[1]})
    assert model.weights_ == pytest.approx([0.5, 0.5, 1.5, 1.5])


def test_rows_of_new_cells_are_refused():
    q, p = survey(400, 0), survey(600, 1)
    model = PostStratification().fit(
        {name: values[q["sex"] != q["sex"][0]] for name, values in q.items()},
        {name: values[p["sex"] != q["sex"][0]] for name, values in p.items()},
    )
    with pytest.raises(DataError, match="have a level that no row of the fit had"):
        model.log_ratio(q)
    kept = ~((q["sex"] == "f") & (q["town"] == "a")), ~((p["sex"] == "f") & (p["town"] == "a"))
    model = PostStratification().fit(
        {name: values[kept[0]] for name, values in q.items()},
        {name: values[kept[1]] for name, values in p.items()},
    )
    with pytest.raises(DataError, match="lie in cells that no row of the fit had .*town=a"):
        model.log_ratio(q)


def test_refusals():
    q, p = survey(100, 0), survey(100, 1)
    numbers = np.arange(20.0)[:, None]
    for kind in (Raking, PostStratification):
        with pytest.raises(OptionError, match="column 'x0' holds numbers; give bins=10"):
            kind().fit(numbers, numbers)
    with pytest.raises(OverlapError, match="no row of q has town=d, which is 1 % of p"):
        Raking().fit(q, {**p, "town": ["d", *p["town"][1:]]})
    nested = {"a": ["0", "0", "1", "1"] * 5, "b": ["0", "1", "1", "1"] * 5}
    with pytest.raises(OverlapError, match="no weights of q balance all margins at once"):
        Raking().fit(nested, targets={"a": {"0": 0.2, "1": 0.8}, "b": {"0": 0.5, "1": 0.5}})
    with pytest.raises(OptionError, match="max_iter is 0"):
        Raking(max_iter=0).fit(q, p)
    with pytest.raises(ConvergenceError, match="shares still differ by"):
        Raking(tolerance=1e-30).fit(q, p)
    kept = Raking(tolerance=1e-30, not_converged="keep").fit(q, p)
    assert not kept.converged_
    assert kept.diagnostics().status.startswith("Not converged")


def test_bins_are_quantiles_of_both_sides():
    rng = np.random.default_rng(5)
    q, p = rng.normal(size=(500, 2)), rng.normal(0.3, 1, (500, 2))
    model = Raking(bins=4).fit(q, p)
    assert len(model.margins_) == 8
    assert model.margins_[0].startswith("x0=at most ")
    edges = np.quantile(np.concatenate([q, p])[:, 0], [0.25, 0.5, 0.75], method="lower")
    cut_q, cut_p = (np.searchsorted(edges, x[:, 0]) for x in (q, p))
    for level in range(4):
        assert np.average(cut_q == level, weights=model.weights_) == pytest.approx(
            (cut_p == level).mean()
        )
    assert InversePropensityWeighting(bins=4, penalty=0.01).fit(q, p).margins_ == model.margins_
