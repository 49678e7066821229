"""Tables, tensors and sparse matrices through every estimator: one recipe, clear refusals."""

import pickle

import numpy as np
import pyarrow as pa
import pytest

from dpdq.data.features import Features
from dpdq.data.schema import infer_columns
from dpdq.errors import DataError, InputTypeError, NotFittedError, OptionError
from dpdq.ratio import (
    ULSIF,
    ClassifierRatio,
    GradientBoostingRatio,
    LogisticRatio,
    select_ratio,
)
from dpdq.ratio._common import content_folds, content_hash

MEMBERS = {
    "logistic": LogisticRatio(),
    "boosting": GradientBoostingRatio(random_state=3),
    "ulsif": ULSIF(random_state=3),
    "classifier": ClassifierRatio(random_state=3),
}
every = pytest.mark.parametrize("name", MEMBERS)


def fresh(name):
    from sklearn.base import clone

    return clone(MEMBERS[name])


def table(n, shift, seed=0):
    """Numbers with gaps, levels and dates; all three shift."""
    rng = np.random.default_rng(seed)
    age = rng.normal(40 + 8 * shift, 10, n)
    age[rng.random(n) < 0.1] = np.nan
    town = rng.choice(["Uri", "Zug", "Bern"], n, p=[0.3 - 0.2 * shift, 0.3, 0.4 + 0.2 * shift])
    day = np.datetime64("2024-01-01") + rng.integers(0, 100, n) + int(30 * shift)
    return pa.table({"age": age, "town": town, "day": day})


@every
def test_mixed_table(name):
    q, p = table(600, 0.0), table(500, 0.5, seed=1)
    model = fresh(name).fit(q=q, p=p)
    assert model.log_ratio(p).mean() > 0 > model.log_ratio(q).mean()
    assert list(model.feature_names_in_) == ["age", "town", "day"]
    assert model.n_features_in_ == 3
    new_q, new_p = table(400, 0.0, 2), table(400, 0.5, 3)
    found = model.diagnose(new_q, new_p)
    assert found.loss.high < found.baseline_loss


@every
def test_the_recipe_is_the_recipe(name):
    """The same numbers as the recipe by hand and an array fit."""
    q, p = table(300, 0.0), table(250, 0.5, seed=1)
    features = Features().fit(q, p, infer_columns(q, p))
    model = fresh(name)
    view = features.codes if model._view == "codes" else features.dense
    by_hand = fresh(name)
    if name == "boosting":
        by_hand.set_params(categorical_features=features.categorical_codes)
    by_hand.fit(view(q), view(p))
    np.testing.assert_allclose(model.fit(q, p).log_ratio(p), by_hand.log_ratio(view(p)), atol=1e-12)


@every
@pytest.mark.parametrize("library", ["pandas", "polars", "dict"])
def test_libraries_agree(name, library):
    q, p = table(200, 0.0), table(150, 0.5, seed=1)
    if library == "pandas":
        pytest.importorskip("pandas")
        other = [side.to_pandas() for side in (q, p)]
    elif library == "polars":
        polars = pytest.importorskip("polars")
        other = [polars.from_arrow(side) for side in (q, p)]
    else:
        other = [{k: side[k].to_numpy() for k in side.column_names} for side in (q, p)]
    one = fresh(name).fit(q, p).log_ratio(q)
    np.testing.assert_allclose(fresh(name).fit(*other).log_ratio(other[0]), one, atol=1e-12)


@every
def test_order_of_columns_pickle_and_no_rows(name):
    q, p = table(200, 0.0), table(150, 0.5, seed=1)
    model = pickle.loads(pickle.dumps(fresh(name).fit(q, p)))
    turned = q.select(["day", "age", "town"])
    np.testing.assert_array_equal(model.log_ratio(turned), fresh(name).fit(q, p).log_ratio(q))
    assert model.log_ratio(q.slice(0, 0)).shape == (0,)
    with pytest.raises(NotFittedError):
        fresh(name).set_params(**model.get_params()).log_ratio(q)


@every
def test_numbers_only_and_weights(name):
    rng = np.random.default_rng(0)
    q, p = rng.normal(size=(400, 2)), rng.normal(size=(400, 2)) + 0.5
    frame_q, frame_p = ({"a": x[:, 0], "b": x[:, 1]} for x in (q, p))
    w = rng.integers(0, 3, 400)
    model = fresh(name).fit(frame_q, frame_p, weights_q=w)
    same = fresh(name).fit(frame_q, frame_p, weights_q=4.0 * w)
    np.testing.assert_allclose(model.log_ratio(frame_q), same.log_ratio(frame_q), atol=1e-9)
    # The recipe standardises and cuts tails: an array fit says much the same.
    array = fresh(name).fit(q, p, weights_q=w).log_ratio(p)
    assert np.corrcoef(model.log_ratio(frame_p), array)[0, 1] > 0.9


def test_types_override_the_inferred_kind():
    rng = np.random.default_rng(0)
    shares = np.tile([0.15, 0.05], 5)
    q = {"zip": rng.choice(10, 2000, p=shares)}
    p = {"zip": rng.choice(10, 2000, p=shares[::-1])}
    truth = np.log(shares[::-1] / shares)
    levels = {"zip": np.arange(10)}
    for estimator in (LogisticRatio(), GradientBoostingRatio(random_state=0)):
        estimator.fit(q, p, types={"zip": "categorical"})
        assert np.abs(estimator.log_ratio(levels) - truth).max() < 0.45
    assert np.abs(LogisticRatio().fit(q, p).log_ratio(levels) - truth).max() > 0.8
    with pytest.raises(OptionError, match="types and infinite are for tables; q and p are arrays"):
        LogisticRatio().fit(np.zeros((5, 1)), np.ones((5, 1)), types={"x0": "categorical"})
    with pytest.raises(OptionError, match="categorical_features is for arrays"):
        GradientBoostingRatio([True]).fit(q, p)


@every
def test_refusals(name):
    q, p = table(60, 0.0), table(60, 0.5, seed=1)
    array = np.zeros((60, 3))
    model = fresh(name)
    with pytest.raises(InputTypeError, match="q is a table and p is an array; give both"):
        model.fit(q, array)
    with pytest.raises(DataError, match=r"p has columns that q has not \('paid'\); leave them out"):
        model.fit(q, p.append_column("paid", pa.array(np.ones(60))))
    vectors, words = pa.table({"x": [[1.0, 2.0]] * 60}), pa.table({"x": ["a"] * 60})
    with pytest.raises(DataError, match="column 'x' makes no feature: list<double> in q and str"):
        model.fit(vectors, words)
    bad = q.set_column(0, "age", pa.array(np.r_[np.inf, np.ones(59)]))
    with pytest.raises(DataError, match=r"column 'age' of q: 1 of 60 values is infinite .*row 0"):
        model.fit(bad, p)
    with pytest.raises(NotFittedError):  # a failed fit leaves nothing fitted
        model.log_ratio(q)
    model.fit(bad, p, infinite="missing")
    with pytest.raises(OptionError, match="Unknown infinite 'drop'. Choose one of 'refuse', 'm"):
        model.fit(q, p, infinite="drop")
    model.fit(q, p)
    with pytest.raises(DataError, match="x lacks columns that the fit has seen: 'town'"):
        model.log_ratio(q.drop_columns(["town"]))
    with pytest.raises(DataError, match="x has columns that the fit has not seen: 'paid'; leave"):
        model.log_ratio(q.append_column("paid", pa.array(np.ones(60))))
    other = q.set_column(1, "town", pa.array(np.arange(60)))
    with pytest.raises(DataError, match=r"column 'town' of x is number \(int64\); it was string"):
        model.log_ratio(other)
    words = q.set_column(0, "age", pa.array(["old"] * 60))
    with pytest.raises(DataError, match="column 'age'"):
        model.log_ratio(words)
    with pytest.raises(InputTypeError, match=r"x has type ndarray, and the fit has seen tables"):
        model.log_ratio(array)
    model.fit(array[:, :2] + np.arange(60)[:, None], array[:, :2])
    assert "feature_names_in_" not in vars(model)
    with pytest.raises(InputTypeError, match="x is a table, and the fit has seen arrays"):
        model.log_ratio(q)
    same = pa.table({"x": np.ones(60)})
    if name != "boosting":  # trees read the constant number itself
        with pytest.raises(DataError, match="every column of q and p is constant"):
            model.fit(same, same)


@every
def test_torch(name):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    q, p = rng.normal(size=(100, 2)), rng.normal(size=(100, 2)) + 0.5
    tensor_q = torch.tensor(q, requires_grad=True)
    model = fresh(name).fit(tensor_q, torch.tensor(p))
    np.testing.assert_array_equal(model.log_ratio(tensor_q), fresh(name).fit(q, p).log_ratio(q))
    half = model.log_ratio(torch.tensor(q, dtype=torch.bfloat16))
    assert half.dtype == np.float64
    with pytest.raises(InputTypeError, match="give a strided tensor of real numbers"):
        model.fit(tensor_q.detach().to_sparse(), torch.tensor(p))


@every
def test_sparse_equals_dense(name):
    sp = pytest.importorskip("scipy.sparse")
    rng = np.random.default_rng(0)
    q, p = rng.poisson(0.3, (300, 5)) * 1.0, rng.poisson(0.5, (250, 5)) * 1.0
    dense = fresh(name).fit(q, p)
    for kind in (sp.csr_array, sp.csc_matrix):
        sparse = fresh(name).fit(kind(q), kind(p))
        # The classifier's default does not centre sparse columns: the ridge sees it.
        limit = 0.02 if name == "classifier" else 1e-9
        np.testing.assert_allclose(sparse.log_ratio(kind(p)), dense.log_ratio(p), atol=limit)


def test_wide_sparse_matrices_are_refused_where_they_would_be_made_dense():
    sp = pytest.importorskip("scipy.sparse")
    wide = sp.csr_array((np.ones(4), ([0, 1, 2, 3], [0, 5, 9, 1])), shape=(4, 2**24))
    for name in ("boosting", "ulsif"):
        with pytest.raises(DataError, match="over the limit of 0.25 GiB; LogisticRatio and Cl"):
            fresh(name).fit(wide, wide)
    bad = sp.csr_array(np.array([[0.0, 1.0], [np.nan, 0.0], [1.0, 0.0]]))
    with pytest.raises(DataError, match=r"first at row 1, column 0\); drop or impute them"):
        LogisticRatio().fit(bad, bad)
    with pytest.raises(DataError, match="x has 3 columns; expected 2, as in the fit"):
        LogisticRatio().fit(abs(bad[::2]), bad[::2]).log_ratio(sp.csr_array(np.ones((2, 3))))
    with pytest.raises(InputTypeError, match="is sparse with 2 dimensions and dtype complex128"):
        LogisticRatio().fit(bad.astype(complex), bad)


def test_sparse_rows_hash_like_dense_ones():
    sp = pytest.importorskip("scipy.sparse")
    rng = np.random.default_rng(0)
    x = rng.poisson(0.3, (200, 7)) * rng.normal(size=(200, 7))
    x[3, 2], x[5] = np.nan, 0.0
    for seed in (0, 7):
        np.testing.assert_array_equal(content_hash(sp.csr_array(x), seed), content_hash(x, seed))
    one, two = (
        content_folds(x[:100], x[100:], 4),
        content_folds(sp.csr_array(x[:100]), sp.csr_array(x[100:]), 4),
    )
    np.testing.assert_array_equal(np.concatenate(one), np.concatenate(two))


def test_selection_reads_tables():
    q, p = table(600, 0.0), table(500, 0.5, seed=1)
    found = select_ratio(q, p, random_state=0)
    assert set(found.losses_) == {"logistic", "gradient_boosting", "variational"}
    assert found.estimator_ != "constant"
    new_q, new_p = table(400, 0.0, 2), table(400, 0.5, 3)
    assert found.log_ratio(new_p).mean() > 0.1 > -0.05 > found.log_ratio(new_q).mean()
    assert found.diagnose().loss.estimate == pytest.approx(
        found.losses_[found.estimator_]["loss"], abs=1e-12
    )
    assert len(found.weights(new_q)) == 400
    with pytest.raises(DataError, match="x lacks columns that the fit has seen: 'age'"):
        found.log_ratio(new_q.drop_columns(["age"]))
    trees = select_ratio(q, p, {"trees": GradientBoostingRatio(random_state=0)})
    assert trees.view_ == "codes"
    assert trees.models_[0].categorical_features.sum() == 1  # the town


def test_adult_as_it_comes(shared_data):
    """Men and women of Adult, all columns as they stand in the file but the sex."""
    import pyarrow.parquet as pq

    adult = pq.read_table(shared_data / "adult.parquet")
    sex = np.asarray(adult["sex"].cast("string").to_pylist())
    levels = sorted(set(sex))
    rest = adult.drop_columns(["sex", "relationship"])
    rng = np.random.default_rng(0)
    q_rows, p_rows = (rng.permutation(np.flatnonzero(sex == level))[:4000] for level in levels)
    q, p = rest.take(q_rows), rest.take(p_rows)
    for name in ("logistic", "boosting"):
        model = fresh(name).fit(q=q.slice(0, 3000), p=p.slice(0, 3000))
        found = model.diagnose(q.slice(3000), p.slice(3000))
        assert found.loss.high < 0.55
        assert found.share_seen < 0.05
        assert abs(found.level_shift.estimate) < 0.5
