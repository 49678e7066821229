import numpy as np
import pytest
from scipy import stats

from dpdq.distance import classifier_test
from dpdq.distance.classifier_tests import _ridge_scores
from dpdq.errors import DataError, InputTypeError, OptionError


def most_rejections(n_draws, level):
    """A valid bound fails more often than this in n_draws with probability below 1e-7."""
    return stats.binom.isf(1e-7, n_draws, level)


LAWS = {
    "small": lambda rng: (rng.normal(size=(10, 3)), rng.normal(size=(14, 3))),
    "8 against 300": lambda rng: (rng.normal(size=(8, 3)), rng.normal(size=(300, 3))),
    "ties": lambda rng: (rng.integers(0, 2, (20, 2)), rng.integers(0, 2, (25, 2))),
    "more columns than rows": lambda rng: (rng.normal(size=(12, 60)), rng.normal(size=(12, 60))),
}


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("method", ["permutation", "split"])
def test_level(law, method):
    from sklearn.linear_model import RidgeClassifier

    rng = np.random.default_rng(8)
    n_draws = 200
    estimator = None if method == "permutation" else RidgeClassifier()
    rejected = 0
    for seed in range(n_draws):
        q, p = LAWS[law](rng)
        result = classifier_test(
            q, p, method=method, estimator=estimator, n_permutations=19, random_state=seed
        )
        rejected += result.pvalue <= 0.05
    assert rejected <= most_rejections(n_draws, 0.05)


def test_level_of_units():
    from sklearn.linear_model import RidgeClassifier

    rng = np.random.default_rng(9)
    units_q, units_p = np.repeat(np.arange(16), 6), np.repeat(np.arange(16, 32), 6)
    n_draws, by_unit, by_row = 150, 0, 0
    for seed in range(n_draws):
        q = rng.normal(size=(16, 2))[units_q] + 0.2 * rng.normal(size=(96, 2))
        p = rng.normal(size=(16, 2))[units_p - 16] + 0.2 * rng.normal(size=(96, 2))
        options = {
            "method": "split",
            "estimator": RidgeClassifier(),
            "n_permutations": 19,
            "random_state": seed,
        }
        by_unit += classifier_test(q, p, units_q=units_q, units_p=units_p, **options).pvalue <= 0.05
        by_row += classifier_test(q, p, **options).pvalue <= 0.05
    assert by_unit <= most_rejections(n_draws, 0.05)
    assert by_row > 45


def test_a_shift_is_found():
    rng = np.random.default_rng(10)
    q, p = rng.normal(size=(100, 4)), rng.normal(size=(80, 4)) + 0.8
    result = classifier_test(q=q, p=p, random_state=0)
    assert result.details["method"] == "permutation"
    assert result.pvalue == 0.005
    assert result.effect.low > 0.5
    assert result.statistic == pytest.approx(result.effect.estimate)
    spread = rng.normal(size=(500, 2)), 1.5 * rng.normal(size=(500, 2))
    result = classifier_test(*spread, random_state=0)
    assert result.details["method"] == "split"
    assert result.pvalue == 0.001
    assert result.statistic == pytest.approx(result.effect.estimate)
    assert result == classifier_test(*spread, random_state=0)


def test_given_estimators_are_cloned_and_refitted():
    from sklearn.tree import DecisionTreeClassifier

    rng = np.random.default_rng(11)
    q, p = rng.normal(size=(25, 2)), rng.normal(size=(25, 2)) + 2
    estimator = DecisionTreeClassifier(max_depth=2)
    result = classifier_test(
        q, p, method="permutation", estimator=estimator, n_permutations=19, random_state=0
    )
    assert result.pvalue == 0.05
    assert not hasattr(estimator, "tree_")
    dull = classifier_test(q, p, estimator=constant_scores(), n_permutations=9, random_state=0)
    assert (dull.statistic, dull.pvalue) == (0.5, 1.0)


def test_ridge_scores_equal_a_fit_in_each_fold():
    from sklearn.linear_model import Ridge

    rng = np.random.default_rng(12)
    for n, d in ((40, 3), (12, 30)):
        points, folds = rng.normal(size=(n, d)), np.arange(n) % 3
        labels = rng.integers(0, 2, (4, n))
        found = _ridge_scores(points, labels, folds)
        scaled = (points - points.mean(axis=0)) / points.std(axis=0)
        for b in range(4):
            for fold in range(3):
                out = folds == fold
                model = Ridge(alpha=1.0).fit(scaled[~out], labels[b, ~out])
                expected = model.predict(scaled[out]) - found[b, out]
                assert np.ptp(expected) < 1e-10


def constant_scores():
    from sklearn.dummy import DummyClassifier

    return DummyClassifier()


def test_wrong_input_is_refused():
    from sklearn.cluster import DBSCAN

    q = np.zeros((5, 2))
    with pytest.raises(DataError, match="p has 3 rows; expected at least 4"):
        classifier_test(q, q[:3])
    with pytest.raises(DataError, match="q has 2 features and p has 1"):
        classifier_test(q, q[:, :1])
    with pytest.raises(OptionError, match="Unknown method 'loo'. Choose one of 'auto'"):
        classifier_test(q, q, method="loo")
    with pytest.raises(OptionError, match="n_folds is 1"):
        classifier_test(q, q, n_folds=1)
    with pytest.raises(OptionError, match="units need method='split'"):
        classifier_test(q, q, method="permutation", units_q=np.arange(5), units_p=np.arange(5))
    with pytest.raises(OptionError, match="units_q and units_p go together"):
        classifier_test(q, q, units_q=np.arange(5))
    with pytest.raises(DataError, match=r"units_p has shape \(4,\); expected \(5,\)"):
        classifier_test(q, q, units_q=np.arange(5), units_p=np.arange(4))
    with pytest.raises(DataError, match="too few units: the test half holds rows of one"):
        classifier_test(
            q, q, method="split", units_q=np.zeros(5, int), units_p=np.ones(5, int), random_state=0
        )
    with pytest.raises(InputTypeError, match="neither predict_proba nor decision_function"):
        classifier_test(q, q, method="split", estimator=DBSCAN())


@pytest.mark.slow
def test_refits_stop_early_at_the_same_level():
    """Stopped and full runs decide alike, and under q = p most refits are saved."""
    from sklearn.linear_model import RidgeClassifier

    rng = np.random.default_rng(13)
    n_draws, rejected, refits = 40, 0, 0
    for seed in range(n_draws):
        q, p = rng.integers(0, 3, (12, 2)), rng.integers(0, 3, (14, 2))
        options = {
            "method": "permutation",
            "estimator": RidgeClassifier(),
            "n_folds": 2,
            "n_permutations": 19,
            "random_state": seed,
        }
        stopped = classifier_test(q, p, **options)
        refits += stopped.details["n_permutations"]
        rejected += stopped.pvalue <= 0.05
        if seed < 10:
            full = classifier_test(q, p, early_stopping=False, **options)
            assert (full.pvalue <= 0.05) == (stopped.pvalue <= 0.05)
            assert full.details["n_permutations"] == 19
            assert full.statistic == stopped.statistic
    assert rejected <= most_rejections(n_draws, 0.05)
    assert refits < 0.6 * 19 * n_draws
    far = classifier_test(np.zeros(12) + 0.1 * np.arange(12), 9 + np.arange(12.0), **options)
    assert far.pvalue == 0.05
    assert far.details["n_permutations"] == 19


def test_adult(shared_data):
    """Adult: men against women told apart, random halves not at a level of one in 200."""
    import pandas as pd

    table = pd.read_parquet(shared_data / "adult.parquet")
    numbers = table.select_dtypes("number").to_numpy(float)
    sex = next(name for name in table.columns if name.lower() in ("sex", "gender"))
    is_one = (table[sex] == table[sex].iloc[0]).to_numpy()
    found = classifier_test(numbers[is_one][:800], numbers[~is_one][:800], random_state=0)
    assert found.pvalue == 0.001
    assert found.effect.low > 0.5
    assert found.detectable < 0.6
    assert classifier_test(numbers[:150], numbers[150:300], random_state=0).pvalue > 0.005
