"""The property list of the role "ratio estimator": every member passes the same checks."""

import contextlib
import importlib.util
import pickle

import numpy as np
import pytest

from dpdq.errors import DataError, InputTypeError, NotFittedError, OptionError
from dpdq.ratio import (
    KLIEP,
    RULSIF,
    ULSIF,
    ClassifierRatio,
    GradientBoostingRatio,
    KernelMeanMatching,
    LogisticRatio,
    NearestNeighborRatio,
    RatioEstimator,
    TelescopingRatio,
    VariationalNetworkRatio,
    VariationalRatio,
)

MEMBERS = {
    "logistic": LogisticRatio(),
    "boosting": GradientBoostingRatio(random_state=3),
    "ulsif": ULSIF(random_state=3),
    "rulsif": RULSIF(random_state=3),
    "kliep": KLIEP(random_state=3),
    "mean_matching": KernelMeanMatching(random_state=3),
    "classifier": ClassifierRatio(random_state=3),
    "telescoping": TelescopingRatio(random_state=3),
    "variational": VariationalRatio(random_state=3),
    "neighbors": NearestNeighborRatio(random_state=3),
}
with contextlib.suppress(ModuleNotFoundError):  # raised where the suite hides torch
    if importlib.util.find_spec("torch"):
        MEMBERS["network"] = VariationalNetworkRatio(random_state=3)
# Root mean square error of log r on 3,000 + 3,000 rows of N(0, I) against N(1/2, I) in 2
# dimensions; the sampling error of a parametric fit is about 0.05.
RMSE = {
    "logistic": 0.12,
    "boosting": 0.3,
    "ulsif": 0.45,
    "rulsif": 0.45,
    "kliep": 0.45,
    "mean_matching": 0.45,
    "classifier": 0.15,
    "telescoping": 0.15,
    "variational": 0.2,
    "neighbors": 0.35,
    "network": 0.2,
}

every = pytest.mark.parametrize("name", MEMBERS)


def shifted(n=3000, m=3000, d=2, shift=0.5, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)), rng.normal(size=(m, d)) + shift


def fresh(name) -> RatioEstimator:
    from sklearn.base import clone

    return clone(MEMBERS[name])


@every
def test_known_answer(name):
    q, p = shifted()
    model = fresh(name).fit(q=q, p=p)
    x = np.random.default_rng(1).normal(size=(2000, 2)) + 0.25
    truth = (0.5 * x - 0.125).sum(axis=1)
    found = model.log_ratio(x)
    assert found.shape == (2000,)
    assert found.dtype == np.float64
    assert np.sqrt(np.mean((found - truth) ** 2)) < RMSE[name]


@every
def test_larger_on_rows_of_p(name):
    q, p = shifted(400, 300)
    model = fresh(name).fit(q=q, p=p)
    assert model.log_ratio(p).mean() > 0 > model.log_ratio(q).mean()


@every
def test_unequal_sizes_leave_the_level(name):
    q, p = shifted(4000, 500)
    model = fresh(name).fit(q=q, p=p)
    fresh_q = np.random.default_rng(5).normal(size=(20_000, 2))
    assert abs(np.log(np.exp(model.log_ratio(fresh_q)).mean())) < 0.2


@every
def test_exchange_of_the_sides(name):
    """log dQ/dP = -log dP/dQ, exactly for logistic fits and to its error for the others."""
    q, p = shifted(2000, 1000)
    forth = fresh(name).fit(q=q, p=p).log_ratio(q[:500])
    back = fresh(name).fit(q=p, p=q).log_ratio(q[:500])
    limit = {"logistic": 1e-9, "classifier": 1e-3, "boosting": 0.35}.get(name, 0.8)
    assert np.sqrt(np.mean((forth + back) ** 2)) < limit


@every
def test_equal_samples_give_zero(name):
    q, _ = shifted(800)
    model = fresh(name).fit(q=q, p=q.copy())
    # scikit-learn's own logistic regression stops at a gradient of 1e-4.
    limit = 1e-3 if name == "classifier" else 1e-9
    assert np.abs(model.log_ratio(q)).max() < limit


@every
def test_order_of_rows_does_not_matter(name):
    q, p = shifted(600, 500)
    rng = np.random.default_rng(2)
    x = q[:100]
    one = fresh(name).fit(q, p).log_ratio(x)
    other = fresh(name).fit(rng.permutation(q), rng.permutation(p)).log_ratio(x)
    np.testing.assert_allclose(one, other, atol=1e-4 if name == "classifier" else 1e-6)


@every
def test_seed_and_pickle_repeat(name):
    q, p = shifted(500, 400)
    one = fresh(name).fit(q, p)
    np.testing.assert_array_equal(one.log_ratio(q), fresh(name).fit(q, p).log_ratio(q))
    back = pickle.loads(pickle.dumps(one))
    np.testing.assert_array_equal(one.log_ratio(q), back.log_ratio(q))


@every
def test_scale_of_features_does_not_matter(name):
    q, p = shifted(1000, 1000)
    one = fresh(name).fit(q, p).log_ratio(q)
    scaled = np.array([2.0**10, 2.0**-10])
    other = fresh(name).fit(q * scaled, p * scaled).log_ratio(q * scaled)
    # Another content means another split and other centres for those that draw by content.
    limit = {"logistic": 1e-8}.get(name, 0.5)
    assert np.sqrt(np.mean((one - other) ** 2)) < limit


@every
def test_scale_of_weights_and_zero_weights(name):
    q, p = shifted(700, 600)
    w = np.random.default_rng(3).integers(0, 3, 700).astype(float)
    one = fresh(name).fit(q, p, weights_q=w).log_ratio(q)
    np.testing.assert_allclose(one, fresh(name).fit(q, p, weights_q=5 * w).log_ratio(q), atol=1e-9)
    dropped = fresh(name).fit(q[w > 0], p, weights_q=w[w > 0]).log_ratio(q)
    np.testing.assert_allclose(one, dropped, atol=1e-9)


@pytest.mark.parametrize(
    "model",
    [
        LogisticRatio(ridge=1e-3),
        ULSIF(bandwidths=[1.0], ridges=[0.1], random_state=0),
    ],
    ids=["logistic", "ulsif"],
)
def test_integer_weights_are_repeated_rows(model):
    q, p = shifted(300, 200)
    rng = np.random.default_rng(4)
    w, v = rng.integers(1, 4, 300), rng.integers(1, 4, 200)
    weighted = model.fit(q, p, weights_q=w, weights_p=v).log_ratio(q)
    repeated = model.fit(np.repeat(q, w, axis=0), np.repeat(p, v, axis=0)).log_ratio(q)
    np.testing.assert_allclose(weighted, repeated, atol=1e-8)


@every
def test_weights_move_q_to_p(name):
    """Rows of q weighted by the true ratio are a sample of p: log r becomes zero."""
    q, p = shifted(6000, 6000, shift=0.4)
    w = np.exp((0.4 * q - 0.08).sum(axis=1))
    model = fresh(name).fit(q, p, weights_q=w)
    assert np.sqrt(np.mean(model.log_ratio(p) ** 2)) < 0.25


@every
def test_manners(name):
    model = fresh(name)
    params = model.get_params()
    assert fresh(name).set_params(**params).get_params().keys() == params.keys()
    with pytest.raises(OptionError, match=r"Unknown parameter 'depht' of .*\. Choose one of '"):
        model.set_params(depht=3)
    with pytest.raises(NotFittedError, match=r"is not fitted; call fit\(q, p\) before log_ratio"):
        model.log_ratio([[0.0, 0.0]])
    assert "fitted" not in repr(model)
    model.fit(*shifted(200, 100))
    assert (model.n_features_in_, model.n_q_, model.n_p_) == (2, 200, 100)
    assert repr(model).endswith(
        "fitted: log dP/dQ from 200 rows of q and 100 rows of p, 2 features"
    )
    assert model.log_ratio(np.zeros((0, 2))).shape == (0,)


@every
def test_refusals(name):
    q, p = shifted(30, 30)
    model = fresh(name)
    with pytest.raises(DataError, match=r"q has shape \(30,\); expected 2 dimensions"):
        model.fit(q[:, 0], p)
    with pytest.raises(DataError, match="q has 2 columns and p has 1; expected the same columns"):
        model.fit(q, p[:, :1])
    with pytest.raises(DataError, match="p has 1 row; a ratio needs at least 2 a side"):
        model.fit(q, p[:1])
    bad = q.copy()
    bad[3, 1] = np.inf
    with pytest.raises(DataError, match=r"first at row 3, column 1\); drop or impute them"):
        model.fit(bad, p)
    with pytest.raises(InputTypeError, match="does not become numbers"):
        model.fit([["a", "b"]] * 5, p)
    with pytest.raises(DataError, match=r"weights_q has shape \(3,\); expected \(30,\)"):
        model.fit(q, p, weights_q=[1, 2, 3])
    with pytest.raises(DataError, match="negative or non-finite"):
        model.fit(q, p, weights_p=np.full(30, -1.0))
    with pytest.raises(DataError, match="all zero"):
        model.fit(q, p, weights_p=np.zeros(30))
    model.fit(q, p)
    with pytest.raises(DataError, match="x has 3 columns; expected 2, as in the fit"):
        model.log_ratio(np.zeros((4, 3)))


@every
def test_two_rows_a_side_and_constant_columns(name):
    q, p = np.array([[0.0, 1.0], [1.0, 1.0]]), np.array([[2.0, 1.0], [3.0, 1.0]])
    found = fresh(name).fit(q, p).log_ratio(np.vstack([q, p]))
    assert np.isfinite(found).all()
    flat = np.ones((40, 2))
    assert np.abs(fresh(name).fit(flat, flat).log_ratio(flat)).max() < 1e-6


def mixed(n, shift, seed):
    rng = np.random.default_rng(seed)
    age = rng.normal(40 + 10 * shift, 10, n)
    age[rng.random(n) < 0.1] = np.nan
    town = rng.choice(["Uri", "Zug"], n, p=[0.5 - 0.4 * shift, 0.5 + 0.4 * shift])
    return {"age": age, "town": town}


@every
def test_tables_go_through_the_recipe(name):
    """More in test_frames.py; here every member takes mixed columns and names them."""
    model = fresh(name).fit(q=mixed(500, 0.0, 0), p=mixed(500, 0.5, 1))
    new_q, new_p = mixed(300, 0.0, 2), mixed(300, 0.5, 3)
    assert model.log_ratio(new_p).mean() > 0 > model.log_ratio(new_q).mean()
    assert list(model.feature_names_in_) == ["age", "town"]
    turned = {key: new_q[key] for key in ("town", "age")}
    np.testing.assert_array_equal(model.log_ratio(turned), model.log_ratio(new_q))
    back = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(back.log_ratio(new_q), model.log_ratio(new_q))
    with pytest.raises(DataError, match="x lacks columns that the fit has seen: 'town'"):
        model.log_ratio({"age": new_q["age"]})


@every
def test_small_sparse_matrices_are_taken(name):
    from scipy.sparse import csr_array

    q, p = shifted(200, 200)
    model = fresh(name).fit(csr_array(q), csr_array(p))
    assert model.log_ratio(csr_array(p)).mean() > model.log_ratio(csr_array(q)).mean()


@every
def test_judges_itself_on_held_out_rows(name):
    q, p = shifted(1600, 1600)
    model = fresh(name).fit(q[:1000], p[:1000])
    found = model.diagnose(q[1000:], p[1000:])
    assert found.loss.high < found.baseline_loss
    assert abs(found.level_shift.estimate) < 0.5
    assert found.overlap.ok
    assert found.share_seen == 0
    assert found.status
    weights = model.weights(q[1000:])
    assert weights.values.mean() == pytest.approx(1.0)
    assert found.effective_sample_size == pytest.approx(weights.effective_sample_size)
