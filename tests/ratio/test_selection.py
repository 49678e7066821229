"""CrossFittedRatio and select_ratio: no leaks, the right winner, normalisation, new rows."""

import numpy as np
import pytest

from dpdq.errors import DataError, InputTypeError, NotFittedError, OptionError
from dpdq.ratio import (
    ULSIF,
    CrossFittedRatio,
    GradientBoostingRatio,
    LogisticRatio,
    RatioEstimator,
    select_ratio,
)
from dpdq.ratio._common import content_folds


class Witness(RatioEstimator):
    """Says 1 for a row that it was fitted on, else 0; remembers its training rows."""

    seen: set[float]

    def _fit(self, q, p, weights_q, weights_p):
        self.seen = set(np.concatenate([q[:, 0], p[:, 0]]).tolist())

    def _log_ratio(self, x):
        return np.array([float(value in self.seen) for value in x[:, 0]])


class Backwards(RatioEstimator):
    """A ratio that is always wrong."""

    def _fit(self, q, p, weights_q, weights_p):
        self.middle = (q[:, 0].mean() + p[:, 0].mean()) / 2

    def _log_ratio(self, x):
        return self.middle - x[:, 0]


def pair(n=600, m=500, d=2, shift=1.0, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)), rng.normal(size=(m, d)) + shift


def cross_fit(candidates, q, p, n_folds=5, **options):
    folds_q, folds_p = content_folds(q, p, n_folds)
    fitted = CrossFittedRatio({k: (v, "x") for k, v in candidates.items()}, n_folds)
    return fitted.fit({"x": q}, {"x": p}, folds_q, folds_p, **options), folds_q, folds_p


def test_no_row_is_scored_by_a_model_that_saw_it():
    rng = np.random.default_rng(0)
    q = rng.integers(0, 200, (400, 1)).astype(float)  # many rows stand more than once
    p = rng.integers(100, 300, (300, 1)).astype(float)
    fitted, folds_q, folds_p = cross_fit({"witness": Witness()}, q, p)
    assert fitted.losses_["witness"]["loss"] == pytest.approx(np.log(2))
    for k in range(5):
        models = [Witness().fit(q[folds_q != k], p[folds_p != k])]
        assert models[0].log_ratio(q[folds_q == k]).max() == 0


def test_training_masks_keep_rows_out():
    q, p = pair()
    folds_q, folds_p = np.arange(600) % 3, np.arange(500) % 3
    may_q, may_p = np.ones((600, 3), dtype=bool), np.ones((500, 3), dtype=bool)
    may_q[:100, 1] = False
    candidates = {"logistic": (LogisticRatio(), "x")}
    fitted = CrossFittedRatio(candidates, 3).fit(
        {"x": q}, {"x": p}, folds_q, folds_p, training_masks=(may_q, may_p)
    )
    expected = int(((folds_q != 1) & may_q[:, 1]).sum())
    assert fitted.models_[1].n_q_ == expected
    assert fitted.models_[0].n_q_ == 400


def test_the_right_candidate_wins():
    candidates = {
        "logistic": LogisticRatio(),
        "gradient_boosting": GradientBoostingRatio(random_state=0),
        "ulsif": ULSIF(random_state=0),
    }
    q, p = pair(3000, 3000)
    assert select_ratio(q, p, candidates, random_state=0).estimator_ == "logistic"
    rng = np.random.default_rng(0)
    q, p = rng.uniform(0, 1, (3000, 3)), rng.uniform(0, 1, (3000, 3))
    p[:, 0] = np.where(rng.random(3000) < 0.8, (p[:, 0] * 8).round() / 8 + 0.01, p[:, 0])
    assert select_ratio(q, p, candidates, random_state=0).estimator_ == "gradient_boosting"
    # Equal spreads around one centre: a line sees nothing, trees and bumps do.
    q, p = rng.normal(size=(1000, 2)), 0.6 * rng.normal(size=(1000, 2))
    found = select_ratio(q, p, random_state=0)
    assert found.estimator_ in ("variational", "gradient_boosting")
    assert list(found.losses_)[-1] == "logistic"


def test_constant_where_nothing_helps():
    q, p = pair()
    fitted, _, _ = cross_fit({"backwards": Backwards()}, q, p)
    assert fitted.estimator_ == "constant"
    assert fitted.view_ is None
    assert fitted.models_ == []
    assert fitted.shift_ == 0
    assert not fitted.log_ratio_q_.any()
    assert not fitted.log_ratio_p_.any()
    assert not fitted.score(q, np.zeros(600, dtype=int)).any()
    assert fitted.reason_.startswith(
        "No estimator predicts held-out rows better than the constant ratio (loss 0.6931; the "
        "best, backwards, has "
    )


def test_equal_files_are_constant():
    q, _ = pair()
    candidates = {
        "logistic": LogisticRatio(),
        "trees": GradientBoostingRatio(random_state=0),
        "ulsif": ULSIF(random_state=0),
    }
    fitted, _, _ = cross_fit(candidates, q, q.copy())
    assert fitted.estimator_ == "constant"
    np.testing.assert_array_equal(fitted.log_ratio_q_, 0)


def test_the_sentence_names_all():
    q, p = pair()
    fitted, _, _ = cross_fit({"backwards": Backwards(), "logistic": LogisticRatio()}, q, p)
    assert fitted.reason_.startswith("logistic has the smallest held-out logistic loss, 0.")
    assert "backwards has " in fitted.reason_
    assert fitted.reason_.endswith("the constant ratio has 0.6931.")
    assert list(fitted.losses_) == ["logistic", "backwards"]


def test_normalised_over_held_out_q():
    q, p = pair(2000, 500, shift=0.7)
    fitted, _, _ = cross_fit({"logistic": LogisticRatio()}, q, p)
    assert np.exp(fitted.log_ratio_q_).mean() == pytest.approx(1, abs=1e-12)
    assert abs(fitted.shift_) < 0.15
    w = np.random.default_rng(0).integers(0, 3, 2000)
    fitted, _, _ = cross_fit({"logistic": LogisticRatio()}, q, p, weights_q=w)
    assert np.average(np.exp(fitted.log_ratio_q_), weights=w) == pytest.approx(1, abs=1e-12)


def test_bounded_log_ratios():
    q, p = pair(200, 200, shift=50.0)
    fitted, _, _ = cross_fit({"logistic": LogisticRatio(ridge=1e-9)}, q, p)
    assert fitted.log_ratio_limit_ == pytest.approx(np.log(2000))
    assert np.ptp(np.r_[fitted.log_ratio_q_, fitted.log_ratio_p_]) <= 2 * np.log(2000) + 1e-9
    assert np.isfinite(fitted.log_ratio_p_).all()


def test_scoring_in_batches_repeats_the_fit():
    q, p = pair()
    fitted, folds_q, folds_p = cross_fit({"trees": GradientBoostingRatio(random_state=0)}, q, p)
    np.testing.assert_allclose(fitted.score(q, folds_q), fitted.log_ratio_q_, atol=1e-12)
    parts = [fitted.score(p[i : i + 77], folds_p[i : i + 77]) for i in range(0, 500, 77)]
    np.testing.assert_allclose(np.concatenate(parts), fitted.log_ratio_p_, atol=1e-12)
    free = fitted.score(q[:50], np.full(50, -1))
    each = [fitted.score(q[:50], np.full(50, k)) for k in range(5)]
    np.testing.assert_allclose(free, np.mean(each, axis=0), atol=1e-12)
    np.testing.assert_allclose(free, fitted.log_ratio(q[:50]), atol=1e-12)


def test_small_unsigned_folds():
    q, p = pair()
    folds_q, folds_p = (folds.astype(np.uint8) for folds in content_folds(q, p, 5))
    fitted = CrossFittedRatio({"logistic": (LogisticRatio(), "x")}).fit(
        {"x": q}, {"x": p}, folds_q, folds_p
    )
    np.testing.assert_allclose(fitted.score(q, folds_q), fitted.log_ratio_q_, atol=1e-12)


def test_standard_error_of_the_loss_counts_groups():
    q, p = pair(400, 400)
    q10, p10 = np.repeat(q, 10, axis=0), np.repeat(p, 10, axis=0)
    units_q, units_p = np.repeat(np.arange(400), 10), np.repeat(np.arange(400, 800), 10)
    one, _, _ = cross_fit({"l": LogisticRatio(ridge=0.01)}, q, p)
    naive, _, _ = cross_fit({"l": LogisticRatio(ridge=0.01)}, q10, p10)
    grouped, _, _ = cross_fit(
        {"l": LogisticRatio(ridge=0.01)}, q10, p10, units_q=units_q, units_p=units_p
    )
    errors = [fit.losses_["l"]["standard_error"] for fit in (one, naive, grouped)]
    assert errors[2] == pytest.approx(errors[0], rel=0.02)
    assert errors[1] == pytest.approx(errors[0] / np.sqrt(10), rel=0.02)


def test_refusals():
    q, p = pair(20, 20)
    fitted = CrossFittedRatio({"logistic": (LogisticRatio(), "x")}, 5)
    folds = np.arange(20) % 5
    with pytest.raises(NotFittedError, match="call fit before score"):
        fitted.score(q, folds)
    with pytest.raises(OptionError, match="Unknown view 'x' of candidate 'logistic'. Choose one"):
        fitted.fit({"y": q}, {"y": p}, folds, folds)
    with pytest.raises(DataError, match="folds_q runs from 0 to 7; expected 0 to 4"):
        fitted.fit({"x": q}, {"x": p}, np.arange(20) % 8, folds)
    with pytest.raises(DataError, match="view 'x' of p has 19 rows and folds_p has 20"):
        fitted.fit({"x": q}, {"x": p[:19]}, folds, folds)
    with pytest.raises(DataError, match="fold 0 leaves 0 rows of p to train on; a model needs"):
        fitted.fit({"x": q}, {"x": p}, folds, np.zeros(20, dtype=int))
    with pytest.raises(DataError, match="folds_q has dtype float64"):
        fitted.fit({"x": q}, {"x": p}, folds / 2, folds)
    everyone = np.ones((20, 4), dtype=bool)
    with pytest.raises(DataError, match="training_masks of q has dtype bool and shape"):
        fitted.fit({"x": q}, {"x": p}, folds, folds, training_masks=(everyone, everyone))
    with pytest.raises(OptionError, match="candidates is empty"):
        CrossFittedRatio({}).fit({"x": q}, {"x": p}, folds, folds)
    fitted.fit({"x": q}, {"x": p}, folds, folds)
    if fitted.models_:
        with pytest.raises(DataError, match="folds runs from -2 to -2; expected -1 to 4"):
            fitted.score(q, np.full(20, -2))


class Broken(RatioEstimator):
    """Fails as other people's code does."""

    def _fit(self, q, p, weights_q, weights_p):
        raise ZeroDivisionError("no luck\ntoday")

    def _log_ratio(self, x):
        return np.zeros(len(x))


class NotANumber(Broken):
    """Fits, and then says NaN."""

    def _fit(self, q, p, weights_q, weights_p):
        pass

    def _log_ratio(self, x):
        return np.full(len(x), np.nan)


def test_candidates_that_fail_are_left_out_with_their_reason():
    q, p = pair(300, 300)
    candidates = {
        "broken": Broken(),
        "nan": NotANumber(),
        "logistic": LogisticRatio(),
        "lasso": LogisticRatio("lasso"),
    }
    found = select_ratio(q, p, candidates, random_state=0)
    assert found.estimator_ == "logistic"
    assert list(found.losses_) == ["logistic"]
    assert found.failures_ == {
        "broken": "ZeroDivisionError: no luck",
        "nan": "its log ratios of held-out rows are not all numbers",
        "lasso": "Unknown ridge 'lasso'. Choose 'auto' or a number.",
    }
    assert "broken was left out: ZeroDivisionError: no luck." in found.reason_
    with pytest.raises(
        DataError, match="no candidate can be fitted: broken: ZeroDivisionError: no"
    ):
        select_ratio(q, p, {"broken": Broken(), "nan": NotANumber()})
    with pytest.raises(OptionError, match="Unknown ridge 'lasso'"):  # the only one speaks itself
        select_ratio(q, p, {"lasso": LogisticRatio("lasso")})
    with pytest.raises(InputTypeError, match="candidate 'a' has type str; give unfitted ratio"):
        select_ratio(q, p, {"a": "logistic"})


def test_missing_cells_are_for_those_that_take_them():
    q, p = pair(400, 400)
    q[::7, 0] = np.nan
    found = select_ratio(q, p, random_state=0)
    assert found.estimator_ == "gradient_boosting"
    assert set(found.failures_) == {"logistic", "variational"}
    assert "not finite numbers" in found.failures_["logistic"]


def test_sparse_and_weights():
    from scipy.sparse import csr_array

    rng = np.random.default_rng(0)
    q, p = rng.poisson(0.2, (500, 1200)) * 1.0, rng.poisson(0.24, (500, 1200)) * 1.0
    found = select_ratio(csr_array(q), csr_array(p), random_state=0)
    assert set(found.losses_) == {"logistic"}
    assert found.estimator_ == "logistic"
    np.testing.assert_allclose(
        found.log_ratio(csr_array(q[:20])), found.log_ratio(q[:20]), atol=1e-9
    )
    q, p = pair(400, 300)
    w = rng.integers(0, 3, 400)
    one = select_ratio(q, p, {"l": LogisticRatio()}, weights_q=w, random_state=0)
    two = select_ratio(q, p, {"l": LogisticRatio()}, weights_q=3.0 * w, random_state=0)
    np.testing.assert_allclose(one.log_ratio_q_, two.log_ratio_q_, atol=1e-9)


def test_cells_of_a_discrete_law_are_dealt_over_the_folds():
    """One column of five levels: a level held out whole would meet models ignorant of it."""
    rng = np.random.default_rng(0)
    shares = np.array([0.4, 0.3, 0.15, 0.1, 0.05])
    q, p = (rng.choice(5, 2000, p=law)[:, None] * 1.0 for law in (shares, shares[::-1]))
    folds_q, folds_p = content_folds(q, p, 5)
    for folds, rows in ((folds_q, q), (folds_p, p)):
        for level in range(5):
            counts = np.bincount(folds[rows[:, 0] == level], minlength=5)
            assert np.ptp(counts) <= 1
    trees = {"trees": GradientBoostingRatio([True], random_state=0)}
    found = select_ratio(q, p, trees, random_state=0)
    truth = np.log(shares[::-1] / shares)
    assert np.abs(found.log_ratio(np.arange(5.0)[:, None]) - truth).max() < 0.4
    assert select_ratio(q, q.copy(), trees, random_state=0).estimator_ == "constant"


def test_repr_says_which_side_is_which():
    q, p = pair(60, 50)
    fitted, _, _ = cross_fit({"logistic": LogisticRatio()}, q, p)
    assert repr(fitted) == (
        "CrossFittedRatio(logistic; 5 folds), fitted: log dP/dQ by logistic for 60 rows of q and "
        "50 rows of p"
    )


def test_adult_by_age(shared_data):
    """Real rows: a winner below log 2, the mean of r is one, and the weights balance education."""
    import pyarrow.parquet as pq

    table = pq.read_table(shared_data / "adult.parquet")
    numeric = ["education-num", "hours-per-week", "capital-gain"]
    named = ["workclass", "marital-status", "occupation", "relationship", "sex"]
    codes = [
        np.unique(np.asarray(table[name].cast("string").fill_null("?")), return_inverse=True)[1]
        for name in named
    ]
    x = np.column_stack([*(np.asarray(table[name], dtype=float) for name in numeric), *codes])
    onehot = np.column_stack([x[:, :3], *(np.eye(c.max() + 1)[c] for c in codes)])
    age = np.asarray(table["age"])
    young = np.flatnonzero(age < 40)[:4000]
    old = np.flatnonzero(age >= 40)[:4000]
    folds_q, folds_p = content_folds(x[young], x[old], 3)
    categorical = np.repeat([False, True], [3, 5])
    fitted = CrossFittedRatio(
        {
            "gradient_boosting": (GradientBoostingRatio(categorical, random_state=0), "codes"),
            "logistic": (LogisticRatio(), "dense"),
        },
        3,
    ).fit(
        {"codes": x[young], "dense": onehot[young]},
        {"codes": x[old], "dense": onehot[old]},
        folds_q,
        folds_p,
    )
    assert fitted.estimator_ != "constant"
    assert fitted.losses_[fitted.estimator_]["loss"] < 0.62
    assert abs(fitted.shift_) < 0.1
    assert fitted.log_ratio_p_.mean() > fitted.log_ratio_q_.mean() + 0.3
    married = x[:, 4] == np.unique(codes[1])[2]
    before = married[young].mean() - married[old].mean()
    after = np.average(married[young], weights=np.exp(fitted.log_ratio_q_)) - married[old].mean()
    assert abs(after) < 0.35 * abs(before)
