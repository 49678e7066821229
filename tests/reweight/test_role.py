"""The property list of the role "weighter": every member passes the same checks."""

import pickle
import re

import numpy as np
import pyarrow as pa
import pytest

from dpdq.errors import DataError, NotFittedError, OptionError
from dpdq.reweight import (
    CovariateBalancingPropensity,
    EnergyBalancing,
    EntropyBalancing,
    ExtendingWeighter,
    InversePropensityWeighting,
    KernelBalancing,
    OverlapWeights,
    PostStratification,
    Raking,
    StableBalancingWeights,
)

MEMBERS = {
    "entropy": EntropyBalancing(),
    "entropy_tolerance": EntropyBalancing(tolerance=0.05),
    "entropy_cap": EntropyBalancing(cap=6.0),
    "exact": CovariateBalancingPropensity(),
    "over": CovariateBalancingPropensity(method="over"),
    "ipw": InversePropensityWeighting(penalty=1e-3),
    "ipw_bins": InversePropensityWeighting(penalty=1e-3, bins=4, cap=5.0),
    "stable": StableBalancingWeights(),
    "stable_tolerance": StableBalancingWeights(tolerance=0.05),
    "kernel": KernelBalancing(penalty=1e-3, n_anchors=60),
    "kernel_variance": KernelBalancing(form="variance", penalty=1e-3, n_anchors=60),
    "energy": EnergyBalancing(penalty=1e-3),
    "overlap": OverlapWeights(),
    "raking": Raking(bins=4),
    "post_stratification": PostStratification(bins=3),
}
BINNED = ("ipw_bins", "raking", "post_stratification")
WITHOUT_INTERVAL = ("energy",)
every = pytest.mark.parametrize("name", MEMBERS)
EXTENDING = [name for name, each in MEMBERS.items() if isinstance(each, ExtendingWeighter)]
extending = pytest.mark.parametrize("name", EXTENDING)


def shifted(n=600, m=500, d=2, shift=0.4, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)), rng.normal(size=(m, d)) + shift


def fresh(name):
    from sklearn.base import clone

    return clone(MEMBERS[name])


@every
def test_shape_scale_and_direction(name):
    q, p = shifted()
    model = fresh(name).fit(q=q, p=p)
    assert model.weights_.shape == (600,)
    assert model.weights_[model.weights_ > 0].mean() == pytest.approx(1)
    assert model.converged_
    assert model.target_ == ("overlap" if name == "overlap" else "p")
    target = np.average(p, axis=0, weights=model.weights_p_)
    before = np.abs(q.mean(axis=0) - p.mean(axis=0)).max()
    after = np.abs(np.average(q, axis=0, weights=model.weights_) - target).max()
    assert after < 0.5 * before
    report = model.diagnostics()
    assert report.largest_after < report.largest_before
    assert report.effective_sample_size == pytest.approx(
        model.weights_.sum() ** 2 / (model.weights_**2).sum()
    )
    assert report.design_effect == pytest.approx(600 / report.effective_sample_size)
    assert report.largest_weight == pytest.approx(model.weights_.max())
    assert report.to_dict()["margins"][0]["margin"] == model.margins_[0]
    aim = "the overlap of q and p" if name == "overlap" else "p"
    assert re.search(rf"weights for 600 rows of q (\(\d+ dropped\) )?towards {aim}:", repr(model))


@every
def test_equal_samples_weigh_alike(name):
    q, _ = shifted()
    assert fresh(name).fit(q, q).weights_ == pytest.approx(1, abs=1e-9)


@extending
def test_log_ratio_is_the_log_weight_on_rows_of_the_fit(name):
    q, p = shifted()
    model = fresh(name).fit(q, p)
    log_ratio = model.log_ratio(q)
    assert np.exp(log_ratio).mean() == pytest.approx(1)
    kept = model.weights_ > 0  # mean one over these; the ratio has mean one over all
    assert np.exp(log_ratio)[kept] == pytest.approx(model.weights_[kept] / kept.mean(), abs=1e-10)
    assert (log_ratio[~kept] == -np.inf).all()
    assert model.log_ratio(q[:7]) == pytest.approx(log_ratio[:7], abs=1e-12)
    assert model.log_ratio(q[:0]).shape == (0,)


@every
def test_permuted_rows_carry_their_weights_along(name):
    q, p = shifted()
    order = np.random.default_rng(1).permutation(len(q))
    first = fresh(name).fit(q, p).weights_
    second = fresh(name).fit(q[order], p[::-1]).weights_
    assert second == pytest.approx(first[order], rel=1e-7)


@every
def test_units_of_the_covariates_do_not_matter(name):
    q, p = shifted()
    first = fresh(name).fit(q, p).weights_
    scale, offset = np.array([1e-3, 50.0]), np.array([7.0, -300.0])
    second = fresh(name).fit(q * scale + offset, p * scale + offset).weights_
    assert second == pytest.approx(first, rel=1e-6)


@every
def test_integer_weights_are_repeated_rows_and_zero_drops(name):
    q, p = shifted(300, 250)
    rng = np.random.default_rng(2)
    counts_q, counts_p = rng.integers(0, 3, 300), rng.integers(0, 3, 250)
    if name in BINNED:  # quantiles are those of the rows, each once
        counts_q, counts_p = counts_q + 1, counts_p + 1
        edges = np.quantile(np.concatenate([q, p]), [0.33, 0.66], axis=0)
        q, p = ((x[:, :, None] > edges.T[None]).sum(axis=2).astype(float) for x in (q, p))
    weighted = fresh(name).fit(q, p, weights_q=counts_q, weights_p=counts_p)
    scaled = fresh(name).fit(q, p, weights_q=counts_q * 7.0, weights_p=counts_p * 0.1)
    assert scaled.weights_ == pytest.approx(weighted.weights_, rel=1e-7)
    assert (weighted.weights_[counts_q == 0] == 0).all()
    if "cap" in name or name == "ipw_bins":
        return  # a cap bounds the weight of a row, and rows are not the same there
    repeated = fresh(name).fit(np.repeat(q, counts_q, axis=0), np.repeat(p, counts_p, axis=0))
    if name not in EXTENDING:
        share = np.add.reduceat(repeated.weights_, (np.cumsum(counts_q) - counts_q)[counts_q > 0])
        each = weighted.weights_[counts_q > 0]
        assert share / share.sum() == pytest.approx(each / each.sum(), abs=1e-5)
        return
    assert repeated.log_ratio(q) == pytest.approx(weighted.log_ratio(q), abs=1e-6)


@every
def test_dropped_rows_are_as_if_they_were_not_there(name):
    q, p = shifted()
    keep = np.random.default_rng(3).random(600) < 0.8
    if name in BINNED:
        q, p = np.round(q).clip(-1, 1), np.round(p).clip(-1, 1)
    first = fresh(name).fit(q, p, weights_q=keep)
    second = fresh(name).fit(q[keep], p)
    assert first.weights_[keep] == pytest.approx(second.weights_, rel=1e-8)
    y = q.sum(axis=1)
    assert first.estimate(np.where(keep, y, np.nan)).standard_error == pytest.approx(
        second.estimate(y[keep]).standard_error
    )


@every
def test_manners(name):
    q, p = shifted(300, 200)
    model = fresh(name)
    with pytest.raises(NotFittedError, match=r"is not fitted; call fit\(q, p\) first"):
        model.diagnostics()
    with pytest.raises(OptionError, match="Unknown parameter 'nonsense'"):
        model.set_params(nonsense=1)
    model.fit(q, p)
    again = pickle.loads(pickle.dumps(model))
    assert np.array_equal(again.weights_, model.weights_)
    if name in EXTENDING:
        assert np.array_equal(again.log_ratio(q), model.log_ratio(q))
    assert np.array_equal(fresh(name).fit(q, p).weights_, model.weights_)
    model.set_params(not_converged="perhaps")
    with pytest.raises(OptionError, match="Choose one of 'raise', 'keep'"):
        model.fit(q, p)
    with pytest.raises(NotFittedError):
        model.diagnostics()
    if name in EXTENDING:
        with pytest.raises(NotFittedError):
            model.log_ratio(q)


@every
def test_tables_of_any_kind_give_the_same_weights(name):
    pd, pl = pytest.importorskip("pandas"), pytest.importorskip("polars")
    q, p = shifted(400, 300)
    sides = [
        {"a": x[:, 0], "b": x[:, 1], "town": np.where(x[:, 0] + x[:, 1] > 0.4, "Uri", "Zug")}
        for x in (q, p)
    ]
    first = fresh(name).fit(*sides).weights_
    for kind in (pd.DataFrame, pl.DataFrame, pa.table):
        q_table, p_table = (kind(side) for side in sides)
        model = fresh(name).fit(q_table, p_table)
        assert np.array_equal(model.weights_, first)
    assert "town=Uri" in model.margins_
    if name not in EXTENDING:
        return
    kept = first > 0
    ratio = np.exp(model.log_ratio(q_table))
    assert ratio[kept] / ratio[kept].mean() == pytest.approx(first[kept], abs=1e-10)
    assert (ratio[~kept] == 0).all()


@every
def test_estimates_and_sensitivity(name):
    q, p = shifted(1500, 1200, seed=4)
    y = q @ [1.0, 0.5] + np.random.default_rng(5).normal(size=1500)
    model = fresh(name).fit(q, p)
    mean = model.estimate(y)
    assert mean.estimate == pytest.approx(np.average(y, weights=model.weights_))
    if name in WITHOUT_INTERVAL:
        assert mean.low is None
        assert mean.reason
    else:
        assert mean.low < mean.estimate < mean.high
    assert "P(Y|X) is the same" in mean.method
    line = model.estimate(y, estimand="regression", x=q)
    design = np.column_stack([np.ones(1500), q])
    root = np.sqrt(model.weights_)[:, None]
    coef = np.linalg.lstsq(design * root, y * root[:, 0], rcond=None)[0]
    assert [each.estimate for each in line.estimates] == pytest.approx(list(coef))
    if name not in WITHOUT_INTERVAL:
        assert line["x1"].low < 0.5 < line["x1"].high
    left = model.sensitivity(y)
    assert left[0].column == "x0"
    assert left[0].smd_after > 0.2
    assert abs(left[0].change) > abs(left[1].change)


@every
def test_refusals_of_the_data(name):
    q, p = shifted(50, 50)
    with pytest.raises(DataError, match="q has 2 columns and p has 1"):
        fresh(name).fit(q, p[:, :1])
    with pytest.raises(OptionError, match="either p .rows. or targets"):
        fresh(name).fit(q)
    with pytest.raises(DataError, match="weights_q has shape"):
        fresh(name).fit(q, p, weights_q=np.ones(3))
    with pytest.raises(DataError, match="at least 2"):
        fresh(name).fit(q, p, weights_p=np.eye(50)[0])
    broken = q.copy()
    broken[3, 1] = np.inf
    with pytest.raises(DataError, match="row 3, column 1"):
        fresh(name).fit(broken, p)
    model = fresh(name).fit(*shifted())
    with pytest.raises(DataError, match="y has shape"):
        model.estimate(np.ones(3))
    with pytest.raises(DataError, match="first at row 5"):
        model.estimate(np.where(np.arange(600) == 5, np.nan, 1.0))
    with pytest.raises(OptionError, match="Unknown estimand 'median'"):
        model.estimate(np.ones(600), estimand="median")
    with pytest.raises(OptionError, match="level is 2"):
        model.estimate(np.ones(600), level=2)
    if name in EXTENDING:
        with pytest.raises(DataError, match="2, as in the fit"):
            model.log_ratio(np.ones((2, 3)))
