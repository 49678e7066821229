import math

import numpy as np
import pytest
from scipy import stats

from dpdq._threads import one_thread_each
from dpdq.distance import auc, auc_interval
from dpdq.distance.classifier_tests import _fold_auc, _ridge_scores
from dpdq.errors import DataError, OptionError


def most_rejections(n_draws, level):
    """A valid bound fails more often than this in n_draws with probability below 1e-7."""
    return stats.binom.isf(1e-7, n_draws, level)


def cross_fitted(points, is_p, rng, n_folds=5, fit=None):
    """Scores of models that did not see the row, and the folds, both by side."""
    folds = np.empty(len(points), int)
    for side in (0, 1):
        folds[is_p == side] = rng.permutation(np.arange((is_p == side).sum()) % n_folds)
    if fit is None:
        scores = _ridge_scores(points, is_p[None], folds)[0]
    else:
        scores = np.empty(len(points))
        for fold in range(n_folds):
            inside = folds == fold
            scores[inside] = fit(points[~inside], is_p[~inside], points[inside])
    one = is_p == 1
    return scores[~one], scores[one], folds[~one], folds[one]


def test_auc_equals_all_pairs():
    rng = np.random.default_rng(0)
    for q, p in (
        (rng.normal(size=30), rng.normal(size=20) + 1),
        (rng.integers(0, 3, 30), rng.integers(0, 4, 20)),
        (np.array([1.0, -np.inf]), np.array([np.inf, 1.0, -np.inf])),
    ):
        pairs = np.mean([(b > a) + 0.5 * (b == a) for a in q for b in p])
        assert auc(q, p) == pytest.approx(pairs, abs=1e-14)
        assert auc(p, q) == pytest.approx(1 - pairs, abs=1e-14)
    assert auc([1.0, 1.0], [1.0]) == 0.5


def test_auc_equals_scikit_learn():
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(1)
    q, p = rng.integers(0, 20, 300), rng.integers(3, 23, 200)
    expected = roc_auc_score(np.repeat([0, 1], [300, 200]), np.concatenate([q, p]))
    assert auc(q, p) == pytest.approx(expected, abs=1e-14)


def test_variance_equals_structural_components():
    """DeLong's variance, from the double loop."""
    rng = np.random.default_rng(2)
    q, p = rng.integers(0, 9, 25), rng.integers(2, 11, 15)
    psi = (p[None] > q[:, None]) + 0.5 * (p[None] == q[:, None])
    variance = psi.mean(axis=1).var(ddof=1) / 25 + psi.mean(axis=0).var(ddof=1) / 15
    found = auc_interval(q, p)
    assert found.standard_error == pytest.approx(math.sqrt(variance))
    # units of one row each change only n / (n - 1)
    by_unit = auc_interval(q, p, units_q=np.arange(25), units_p=np.arange(25, 40))
    assert by_unit.standard_error == pytest.approx(found.standard_error, rel=0.05)


def test_folds_compare_rows_inside_them_only():
    q, p = np.array([0.0, 1.0, 10.0, 11.0]), np.array([2.0, 3.0, 9.0])
    folds_q, folds_p = np.array([0, 0, 1, 1]), np.array([0, 0, 1])
    found = auc_interval(q, p, folds_q=folds_q, folds_p=folds_p)
    assert found.estimate == pytest.approx((4 * 1.0 + 2 * 0.0) / 6)
    assert auc_interval(q, p, folds_q=folds_q + 7, folds_p=folds_p + 7) == found
    is_p = np.repeat([0, 1], [4, 3])
    both = _fold_auc(np.concatenate([q, p]), is_p, np.concatenate([folds_q, folds_p]))
    assert found.estimate == pytest.approx(both)
    one_sided = auc_interval(q, p, folds_q=folds_q, folds_p=np.array([0, 0, 2]))
    assert one_sided.estimate == 1.0


def test_duplicated_rows_need_units():
    """Each row four times: by row the interval is half as wide as it should be."""
    rng = np.random.default_rng(3)
    q, p = rng.normal(size=80), rng.normal(0.5, 1, size=60)
    plain = auc_interval(q, p)
    fourfold = auc_interval(
        np.repeat(q, 4),
        np.repeat(p, 4),
        units_q=np.repeat(np.arange(80), 4),
        units_p=np.repeat(np.arange(100, 160), 4),
    )
    assert fourfold.estimate == pytest.approx(plain.estimate)
    assert fourfold.standard_error == pytest.approx(plain.standard_error, rel=0.02)
    by_row = auc_interval(np.repeat(q, 4), np.repeat(p, 4))
    assert by_row.standard_error == pytest.approx(plain.standard_error / 2, rel=0.02)


def test_perfect_separation_keeps_an_interval():
    found = auc_interval(np.arange(10), np.arange(10, 18))
    assert found.estimate == found.high == 1.0
    assert 0.75 < found.low < 0.95


@pytest.mark.parametrize("shift", [0.0, 0.742])  # true AUC 0.5 and 0.7
def test_interval_covers_with_one_model(shift):
    rng = np.random.default_rng(4)
    truth = stats.norm.cdf(shift / math.sqrt(2))
    n_draws = 1000
    missed = low_above = 0
    for _ in range(n_draws):
        found = auc_interval(rng.normal(size=80), rng.normal(shift, 1, size=60))
        missed += not found.low <= truth <= found.high
        low_above += found.low > truth
    # DeLong's interval is asymptotic: at 60 rows it misses about 6 %, not 5 %
    assert missed <= most_rejections(n_draws, 0.06)
    assert low_above <= most_rejections(n_draws, 0.03)


@pytest.mark.parametrize("n_q, n_p, n_folds", [(100, 100, 5), (100, 100, 2), (30, 300, 5)])
def test_interval_holds_with_crossfitting(n_q, n_p, n_folds):
    """Under q = p the lower end passes 1/2 in at most 2.5 %; the naive one does in 7 % or more."""
    rng = np.random.default_rng(5)
    n_draws = 600
    doubled = naive = 0
    estimates, errors = [], []
    for _ in range(n_draws):
        points = rng.normal(size=(n_q + n_p, 5))
        q, p, folds_q, folds_p = cross_fitted(
            points, np.repeat([0, 1], [n_q, n_p]), rng, n_folds=n_folds
        )
        found = auc_interval(q, p, folds_q=folds_q, folds_p=folds_p)
        doubled += found.low > 0.5
        naive += found.estimate - 1.96 * found.standard_error / math.sqrt(2) > 0.5
        estimates.append(found.estimate)
        errors.append(found.standard_error)
    assert doubled <= most_rejections(n_draws, 0.025)
    assert naive >= 0.04 * n_draws
    ratio = np.std(estimates) / math.sqrt(np.mean(np.square(errors)))
    assert 0.85 < ratio < 1.1


@pytest.mark.parametrize("model", ["linear", "logistic"])
def test_interval_covers_the_mean_auc_of_cross_fitted_models(model):
    """At a true AUC near 0.7 the interval covers the mean over draws, with room to spare."""
    rng = np.random.default_rng(6)

    def logistic(train, is_p, score):
        from sklearn.linear_model import LogisticRegression

        return LogisticRegression().fit(train, is_p).decision_function(score)

    n_draws = 400 if model == "linear" else 40
    found = []
    for _ in range(n_draws):
        points = rng.normal(size=(200, 3))
        points[100:, 0] += 0.8
        q, p, folds_q, folds_p = cross_fitted(
            points, np.repeat([0, 1], 100), rng, fit=None if model == "linear" else logistic
        )
        found.append(auc_interval(q, p, folds_q=folds_q, folds_p=folds_p))
    truth = np.mean([f.estimate for f in found])
    assert 0.66 < truth < 0.72
    missed = sum(not f.low <= truth <= f.high for f in found)
    assert missed <= most_rejections(n_draws, 0.05)


@pytest.mark.slow
@pytest.mark.parametrize("shift", [0.0, 0.9])
def test_interval_holds_with_boosted_trees(shift):
    from sklearn.ensemble import HistGradientBoostingClassifier

    def boosted(train, is_p, score):
        model = HistGradientBoostingClassifier(max_iter=15, max_leaf_nodes=8)
        return model.fit(train, is_p).decision_function(score)

    rng = np.random.default_rng(7)
    n_draws = 100
    found = []
    for _ in range(n_draws):
        points = rng.normal(size=(300, 3))
        points[150:, 0] += shift
        with one_thread_each():
            q, p, folds_q, folds_p = cross_fitted(points, np.repeat([0, 1], 150), rng, fit=boosted)
        found.append(auc_interval(q, p, folds_q=folds_q, folds_p=folds_p))
    truth = 0.5 if shift == 0 else np.mean([f.estimate for f in found])
    assert sum(f.low > truth for f in found) <= most_rejections(n_draws, 0.025)


def test_wrong_input_is_refused():
    with pytest.raises(DataError, match="scores_q holds 1 missing values"):
        auc([np.nan, 1.0], [1.0])
    with pytest.raises(DataError, match=r"scores_p has shape \(0,\)"):
        auc([1.0], [])
    with pytest.raises(OptionError, match="folds_q and folds_p go together"):
        auc_interval([1.0], [1.0], folds_q=[0])
    with pytest.raises(DataError, match=r"units_p has shape \(2,\); expected \(1,\)"):
        auc_interval([1.0], [1.0], units_q=[0], units_p=[0, 1])
    with pytest.raises(DataError, match="no fold holds rows of both q and p"):
        auc_interval([1.0], [1.0], folds_q=[0], folds_p=[1])
    with pytest.raises(OptionError, match="level is 1.5"):
        auc_interval([1.0], [1.0], level=1.5)
