"""ClassifierRatio: any classifier, class sizes, calibration, weights."""

import numpy as np
import pytest

from dpdq.errors import InputTypeError, OptionError
from dpdq.ratio import ClassifierRatio
from dpdq.ratio._common import fit_affine


def pair(n, m, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 2)), rng.normal(size=(m, 2)) + 0.6


@pytest.mark.parametrize("calibrate", [True, False])
def test_class_sizes_are_taken_out(calibrate):
    q, p = pair(8000, 800)
    model = ClassifierRatio(calibrate=calibrate, random_state=0).fit(q=q, p=p)
    truth = (0.6 * q - 0.18).sum(axis=1)
    assert abs((model.log_ratio(q) - truth).mean()) < 0.2


def test_calibration_repairs_overconfidence():
    """Naive Bayes on a column given five times is five times too sure."""
    from sklearn.naive_bayes import GaussianNB

    q, p = (np.repeat(side[:, :1], 5, axis=1) for side in pair(4000, 4000))
    raw = ClassifierRatio(GaussianNB(), calibrate=False).fit(q, p)
    tamed = ClassifierRatio(GaussianNB(), random_state=0).fit(q, p)
    truth = 0.6 * q[:, 0] - 0.18
    assert 0.15 < tamed.slope_ < 0.27
    assert np.std(raw.log_ratio(q) - truth) > 2
    assert np.std(tamed.log_ratio(q) - truth) < 0.15


def test_sure_classifiers_stay_finite():
    from sklearn.tree import DecisionTreeClassifier

    q, p = pair(200, 200)
    model = ClassifierRatio(DecisionTreeClassifier(), calibrate=False, random_state=0).fit(q, p)
    assert np.isfinite(model.log_ratio(q)).all()


def test_weights_reach_a_pipeline():
    q, p = pair(2000, 2000)
    w = np.exp((0.6 * q - 0.18).sum(axis=1))
    model = ClassifierRatio(random_state=0).fit(q, p, weights_q=w)
    assert np.abs(model.log_ratio(p)).mean() < 0.25


def test_naive_bayes_on_counts_of_words():
    """A classifier that takes CSR gets CSR: 2**20 columns never become dense."""
    from scipy.sparse import csr_array
    from sklearn.naive_bayes import ComplementNB

    rng = np.random.default_rng(0)
    sides = []
    for low in (0, 200):  # words 200 ... 399 stand on both sides
        words = rng.integers(low, low + 400, (500, 12)) * 2000
        rows = np.repeat(np.arange(500), 12)
        sides.append(csr_array((np.ones(6000), (rows, words.ravel())), shape=(500, 2**21)))
    q, p = sides
    for estimator in (ComplementNB(), None):
        model = ClassifierRatio(estimator, random_state=0).fit(q[:400], p[:400])
        found = model.diagnose(q[400:], p[400:])
        assert found.loss.high < 0.3


def test_refusals():
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.svm import LinearSVC

    q, p = pair(60, 60)
    with pytest.raises(InputTypeError, match="LinearSVC has no predict_proba"):
        ClassifierRatio(LinearSVC()).fit(q, p)
    with pytest.raises(OptionError, match="KNeighborsClassifier takes no sample_weight"):
        ClassifierRatio(KNeighborsClassifier()).fit(q, p, weights_q=np.arange(60))
    with pytest.raises(OptionError, match="validation_fraction is 0"):
        ClassifierRatio(validation_fraction=0).fit(q, p)


def test_nested_parameters():
    from sklearn.linear_model import LogisticRegression

    model = ClassifierRatio(LogisticRegression())
    model.set_params(estimator__C=0.1)
    assert model.get_params()["estimator__C"] == 0.1


def test_affine_fit():
    rng = np.random.default_rng(0)
    q, p = rng.normal(-0.5, 1, 5000), rng.normal(0.5, 1, 5000)  # log r = x
    ones = np.ones(5000)
    intercept, slope = fit_affine(2 * q + 1, 2 * p + 1, ones, ones)
    assert abs(slope - 0.5) < 0.05
    assert abs(intercept + 0.5) < 0.08
    assert fit_affine(-q, -p, ones, ones) == (0.0, 0.0)  # a backward ranking is dropped
    assert fit_affine(0 * q, 0 * p, ones, ones) == pytest.approx((0.0, 1.0), abs=1e-12)
    separated = fit_affine(q - 50, p + 50, ones, ones)
    assert np.isfinite(separated).all()
