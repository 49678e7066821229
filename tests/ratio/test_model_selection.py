"""Scores and grid search weighted towards p: exact sums, scikit-learn's route, real data."""

import pickle

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures

from dpdq.errors import DataError, InputTypeError, NotFittedError, OptionError
from dpdq.ratio import (
    GradientBoostingRatio,
    ImportanceWeightedCV,
    LogisticRatio,
    iw_score,
    select_ratio,
)


def regression(n, seed, noise=0.1):
    """The example of the paper: sinc, q = N(1, 1/2²), p = N(2, 1/4²)."""
    rng = np.random.default_rng(seed)
    q, p = rng.normal(1, 0.5, (n, 1)), rng.normal(2, 0.25, (n, 1))
    return q, *(np.sinc(x[:, 0]) + noise * rng.normal(size=n) for x in (q,)), p, np.sinc(p[:, 0])


def true_log_ratio(x):
    x = x[:, 0]
    return np.log(2) - 8 * (x - 2) ** 2 + 2 * (x - 1) ** 2


def test_score_equals_the_score_on_p():
    """The weighted error of a fixed line is that on p: within 5 standard errors (1e-6)."""
    q, y, p, clean = regression(20_000, 0, noise=0.0)
    line = LinearRegression().fit(q[:100], y[:100])
    found = iw_score(line, q[100:], y[100:], log_ratio=true_log_ratio(q[100:]))
    exact = -np.mean((line.predict(p) - clean) ** 2)
    assert found.ok
    assert abs(found.estimate - exact) < 5 * found.standard_error
    assert found.low < found.estimate < found.high
    assert abs(found.unweighted - exact) > 20 * found.standard_error
    assert found.method == "importance-weighted neg_mean_squared_error"
    assert found.to_dict()["ok"] is True


@pytest.mark.parametrize(
    "scoring, metric",
    [
        ("neg_log_loss", "neg_log_loss"),
        ("accuracy", "accuracy"),
        ("neg_mean_squared_error", "neg_mean_squared_error"),
        ("neg_mean_absolute_error", "neg_mean_absolute_error"),
    ],
)
def test_scores_are_those_of_scikit_learn(scoring, metric):
    from sklearn.metrics import get_scorer

    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 2))
    y = (x[:, 0] + rng.normal(size=300) > 0) + (x[:, 1] > 0.5)
    log_ratio = 0.5 * x[:, 0]
    model = LogisticRegression() if "log" in scoring or scoring == "accuracy" else Ridge()
    model.fit(x, y)
    found = iw_score(model, x, y, log_ratio=log_ratio, scoring=scoring)
    scorer = get_scorer(metric)
    theirs = scorer(model, x, y, sample_weight=np.exp(log_ratio))
    assert found.estimate == pytest.approx(theirs, abs=1e-12)
    assert found.unweighted == pytest.approx(scorer(model, x, y), abs=1e-12)
    half = iw_score(model, x, y, log_ratio=log_ratio, scoring=scoring, flatten=0.5)
    theirs = scorer(model, x, y, sample_weight=np.exp(log_ratio / 2))
    assert half.estimate == pytest.approx(theirs, abs=1e-12)
    plain = iw_score(model, x, y, log_ratio=log_ratio, scoring=scoring, flatten=0)
    assert plain.estimate == pytest.approx(plain.unweighted, abs=1e-12)


def test_dropped_rows_scale_and_groups():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(200, 1)), rng.normal(size=200)
    model, log_ratio = Ridge().fit(x, y), 0.5 * x[:, 0]
    one = iw_score(model, x, y, log_ratio=log_ratio)
    assert iw_score(model, x, y, log_ratio=log_ratio + 7).estimate == pytest.approx(one.estimate)
    keep = np.arange(200) % 3 > 0
    masked = iw_score(model, x, y, log_ratio=np.where(keep, log_ratio, -np.inf))
    other = iw_score(model, x[keep], y[keep], log_ratio=log_ratio[keep])
    assert masked.estimate == pytest.approx(other.estimate, abs=1e-12)
    assert masked.unweighted == pytest.approx(other.unweighted, abs=1e-12)
    repeated = iw_score(
        model, np.repeat(x, 4, axis=0), np.repeat(y, 4), log_ratio=np.repeat(log_ratio, 4),
        groups=np.repeat(np.arange(200), 4),
    )  # fmt: skip
    assert repeated.standard_error == pytest.approx(one.standard_error, rel=0.02)


def test_no_interval_where_few_rows_decide():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2000, 1)), rng.normal(size=2000)
    heavy = 1.3 * rng.standard_exponential(2000)
    found = iw_score(Ridge().fit(x, y), x, y, log_ratio=heavy)
    assert not found.ok
    assert found.khat > found.khat_limit
    assert (found.low, found.high, found.standard_error) == (None, None, None)
    assert found.reason == found.status
    assert found.status.startswith("Not trustworthy: k-hat")


def test_a_ratio_that_has_seen_the_rows_is_told():
    q, y, p, _ = regression(400, 0)
    line = LinearRegression().fit(q[:200], y[:200])
    blind = LogisticRatio().fit(q[:200], p)
    found = iw_score(line, q[200:], y[200:], ratio=blind)
    assert not found.status.startswith("100 %")
    same = iw_score(line, q[200:], y[200:], log_ratio=blind.log_ratio(q[200:]))
    assert same.estimate == found.estimate
    seen = iw_score(line, q[200:], y[200:], ratio=LogisticRatio().fit(q[200:], p))
    assert seen.status.startswith("100 % of the rows of q that the ratio was fitted on stand among")


@pytest.mark.parametrize("known", [True, False])
def test_picks_what_is_better_on_p(known):
    """Lines fitted by r^power to a curve: plain cross-validation takes power 0, p wants more.

    Over ten draws the choice for p is never worse on p, and better in the mean.
    """
    gains = []
    for seed in range(10):
        q, y, p, clean = regression(150, seed)
        search = ImportanceWeightedCV(
            LinearRegression(),
            {},
            ratio=make_ratio(),
            fit_power=[0.0, 0.5, 1.0],
            random_state=seed,
        )
        given = {"log_ratio": true_log_ratio(q)} if known else {"target": p}
        search.fit(q, y, **given)
        plain = int(np.argmin(search.cv_results_["rank_unweighted_score"]))
        assert search.cv_results_["fit_power"][plain] == 0.0
        assert search.best_fit_power_ > 0
        errors = [
            np.mean((model.predict(p) - clean) ** 2)
            for model in (search.best_estimator_, LinearRegression().fit(q, y))
        ]
        gains.append(errors[1] - errors[0])
        assert "plain cross-validation would choose fit_power=0" in search.status_
    assert min(gains) > 0


def make_ratio():
    """A ratio for Gaussians of unequal variance: squares in a classifier."""
    from dpdq.ratio import ClassifierRatio

    return ClassifierRatio(
        make_pipeline(PolynomialFeatures(2), LogisticRegression(C=100.0, max_iter=1000)),
        random_state=0,
    )


def test_degree_of_a_polynomial():
    """A grid over a pipeline's parameters: what is chosen is as good on p as the best."""
    rng = np.random.default_rng(0)
    q, p = rng.normal(0, 1, (1500, 1)), rng.normal(1.2, 0.5, (1500, 1))

    def curve(x):
        return np.where(x[:, 0] < 0.3, 2 * np.sin(4 * x[:, 0]), x[:, 0])

    y = curve(q) + 0.1 * rng.normal(size=1500)
    model = make_pipeline(PolynomialFeatures(), LinearRegression())
    search = ImportanceWeightedCV(
        model, {"polynomialfeatures__degree": [0, 1, 2, 3]}, fit_power=1.0, random_state=0
    ).fit(q, y, log_ratio=np.log(2) - 2 * (q[:, 0] - 1.2) ** 2 + q[:, 0] ** 2 / 2)
    errors = []
    for params in search.cv_results_["params"]:
        one = make_pipeline(PolynomialFeatures(), LinearRegression()).set_params(**params)
        one.fit(q, y, linearregression__sample_weight=search.weights_.values)
        errors.append(np.mean((one.predict(p) - curve(p)) ** 2))
    assert errors[search.best_index_] < 1.02 * min(errors) < 0.5 * max(errors)
    assert list(search.cv_results_["param_polynomialfeatures__degree"]) == [0, 1, 2, 3]


def test_equal_weights_are_plain_cross_validation():
    from sklearn.model_selection import GridSearchCV, KFold

    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(120, 5)), rng.normal(size=120)
    grid, cv = {"alpha": [0.1, 10.0, 1000.0]}, KFold(4)
    search = ImportanceWeightedCV(Ridge(), grid, cv=cv).fit(x, y, log_ratio=np.zeros(120))
    theirs = GridSearchCV(Ridge(), grid, cv=cv, scoring="neg_mean_squared_error").fit(x, y)
    np.testing.assert_allclose(
        search.cv_results_["mean_test_score"], theirs.cv_results_["mean_test_score"], atol=1e-12
    )
    assert search.best_params_ == theirs.best_params_
    assert search.status_.endswith("All 120 rows weigh the same, so nothing is reweighted.")
    np.testing.assert_allclose(search.predict(x), theirs.predict(x), atol=1e-12)


def test_scikit_learns_own_search_with_routed_weights():
    """The route of the module's text: weights reach the scorer and follow the rows."""
    from sklearn import config_context
    from sklearn.metrics import get_scorer
    from sklearn.model_selection import GridSearchCV, KFold

    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 2))
    y = (x[:, 0] ** 2 + 0.3 * rng.normal(size=400) > 1).astype(int)
    log_ratio, grid, cv = 0.7 * x[:, 0], {"C": [0.01, 1.0]}, KFold(4)
    mine = ImportanceWeightedCV(LogisticRegression(), grid, cv=cv).fit(x, y, log_ratio=log_ratio)
    with config_context(enable_metadata_routing=True):
        scorer = get_scorer("neg_log_loss").set_score_request(sample_weight=True)
        theirs = GridSearchCV(
            LogisticRegression().set_fit_request(sample_weight=False), grid, cv=cv, scoring=scorer
        ).fit(x, y, sample_weight=mine.weights_.values)
    np.testing.assert_allclose(  # a mean of folds' means, not one mean: close, not equal
        mine.cv_results_["mean_test_score"], theirs.cv_results_["mean_test_score"], rtol=0.05
    )


def test_no_shift_means_plain_cross_validation():
    rng = np.random.default_rng(0)
    x, target = rng.normal(size=(300, 2)), rng.normal(size=(300, 2))
    y = x[:, 0] + rng.normal(size=300)
    found = ImportanceWeightedCV(Ridge(), {"alpha": [1.0]}, random_state=0)
    found.fit(x, y, target=x.copy())
    assert found.ratio_.estimator_ == "constant"
    assert found.best_score_.estimate == found.best_score_.unweighted
    assert found.fit(x, y, target=target).best_score_.ok


def test_seed_pickle_and_manners():
    from sklearn.base import clone

    q, y, p, _ = regression(150, 0)
    search = ImportanceWeightedCV(Ridge(), {"alpha": [0.1, 1.0]}, random_state=3)
    with pytest.raises(NotFittedError, match=r"call fit\(X, y, target=...\) before predict"):
        search.predict(q)
    assert repr(search) == (
        "ImportanceWeightedCV(estimator=Ridge(), param_grid={'alpha': [0.1, 1.0]}, random_state=3)"
    )
    one, two = clone(search).fit(q, y, target=p), clone(search).fit(q, y, target=p)
    for key in ("mean_test_score", "mean_unweighted_score"):
        np.testing.assert_array_equal(one.cv_results_[key], two.cv_results_[key])
    back = pickle.loads(pickle.dumps(one))
    np.testing.assert_array_equal(back.predict(p), one.predict(p))
    assert "fitted: best alpha=" in repr(one)
    nested = clone(search).set_params(estimator__fit_intercept=False, ratio=LogisticRatio(1.0))
    assert nested.get_params()["ratio__ridge"] == 1.0


def test_refusals():
    q, y, p, _ = regression(60, 0)
    line = LinearRegression().fit(q, y)
    with pytest.raises(OptionError, match="iw_score takes either log_ratio or ratio; give exactly"):
        iw_score(line, q, y)
    with pytest.raises(OptionError, match="Unknown scoring 'f1'. Choose one of 'neg_log_loss', 'a"):
        iw_score(line, q, y, log_ratio=y, scoring="f1")
    with pytest.raises(OptionError, match="LinearRegression has no predict_proba"):
        iw_score(line, q, y, log_ratio=y, scoring="neg_log_loss")
    with pytest.raises(
        DataError, match=r"scoring returned shape \(\) for 60 rows; give a function"
    ):
        iw_score(line, q, y, log_ratio=y, scoring=lambda model, x, y: model.score(x, y))
    with pytest.raises(InputTypeError, match="scoring has type int; give a name or a function"):
        iw_score(line, q, y, log_ratio=y, scoring=3)
    with pytest.raises(DataError, match="log_ratio has 59 rows and y has 60; align them"):
        iw_score(line, q, y, log_ratio=y[1:])
    search = ImportanceWeightedCV(Ridge(), {})
    with pytest.raises(OptionError, match="fit takes either target or log_ratio; give exactly one"):
        search.fit(q, y)
    with pytest.raises(InputTypeError, match="ratio has type str; give an unfitted ratio"):
        ImportanceWeightedCV(Ridge(), {}, ratio="kliep").fit(q, y, target=p)
    from sklearn.neighbors import KNeighborsRegressor

    with pytest.raises(OptionError, match="KNeighborsRegressor takes no sample_weight"):
        ImportanceWeightedCV(KNeighborsRegressor(), {}, fit_power=1.0).fit(q, y, target=p)


def test_adult_planted_shift(shared_data):
    """Income by education and hours, with p a selection of the hard-working and well-schooled.

    The weighted score is nearer to the score on p than the unweighted one, by the log ratios of a
    selection that never saw the rows' labels; tables go in as they are.
    """
    import pyarrow.parquet as pq
    from sklearn.compose import make_column_transformer
    from sklearn.preprocessing import OneHotEncoder

    adult = pq.read_table(shared_data / "adult.parquet").to_pandas()
    label = next(name for name in adult if adult[name].astype(str).str.contains("50K").any())
    rich = adult[label].astype(str).str.contains(">50K").to_numpy()
    x = adult[["age", "education-num", "hours-per-week", "marital-status", "sex"]]
    rng = np.random.default_rng(0)
    score = (x["education-num"] - 10) / 2.5 + (x["hours-per-week"] - 40) / 20
    in_p = rng.random(len(x)) < 1 / (1 + np.exp(-score.to_numpy()))
    q_rows = rng.permutation(np.flatnonzero(~in_p))[:4000]
    p_rows = rng.permutation(np.flatnonzero(in_p))[:6000]
    numbers = ["age", "education-num", "hours-per-week"]
    model = make_pipeline(
        make_column_transformer(
            ("passthrough", numbers),
            (OneHotEncoder(handle_unknown="ignore"), ["marital-status", "sex"]),
        ),
        LogisticRegression(max_iter=2000),
    )
    model.fit(x.iloc[q_rows[:1500]], rich[q_rows[:1500]])
    test = x.iloc[q_rows[1500:]]
    target = x.iloc[p_rows[:2500]]
    ratio = select_ratio(
        test, target,
        {"logistic": LogisticRatio(), "trees": GradientBoostingRatio(random_state=0)},
        random_state=0,
    )  # fmt: skip
    for scoring in ("neg_log_loss", "accuracy"):
        found = iw_score(
            model, test, rich[q_rows[1500:]], log_ratio=ratio.log_ratio_q_, scoring=scoring
        )
        on_p = x.iloc[p_rows[2500:]]
        truth = iw_score(
            model, on_p, rich[p_rows[2500:]], log_ratio=np.zeros(3500), scoring=scoring
        )
        assert found.ok
        assert abs(found.estimate - truth.estimate) < 0.4 * abs(found.unweighted - truth.estimate)
