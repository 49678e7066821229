"""LabelShiftRatio: known frequencies, coverage, exact linear algebra, refusals, real digits."""

import pickle

import numpy as np
import pytest
from scipy.special import softmax

from dpdq.errors import DataError, NotFittedError, OptionError
from dpdq.ratio import LabelShiftRatio
from dpdq.ratio._class_priors import Moments, fit_calibration

CENTERS = np.array([[0.0, 0.0], [1.5, 0.0], [0.0, 1.5]])
PRIORS_Q = np.array([0.4, 0.3, 0.3])
PRIORS_P = np.array([0.2, 0.2, 0.6])
METHODS = ("em", "bbse", "rlls")

every = pytest.mark.parametrize("method", METHODS)


def draw(n, priors, rng, sharpness=1.0):
    """Labels and a classifier's probabilities: true ones under q, or distorted."""
    labels = rng.choice(3, n, p=priors)
    x = CENTERS[labels] + rng.normal(size=(n, 2))
    scores = np.log(PRIORS_Q) - ((x[:, None] - CENTERS) ** 2).sum(-1) / 2
    return softmax(sharpness * scores + (sharpness != 1) * np.array([0, 0.3, 0]), axis=1), labels


def sample(n_q=3000, n_p=2500, seed=0, sharpness=1.0, priors=PRIORS_P):
    rng = np.random.default_rng(seed)
    s_q, labels = draw(n_q, PRIORS_Q, rng, sharpness)
    return s_q, labels, draw(n_p, priors, rng, sharpness)[0]


@every
@pytest.mark.parametrize("sharpness", [1.0, 2.0])
def test_known_frequencies(method, sharpness):
    s_q, labels, s_p = sample(sharpness=sharpness)
    model = LabelShiftRatio(method).fit(q=s_q, p=s_p, labels_q=labels)
    np.testing.assert_allclose(model.priors_p_, PRIORS_P, atol=0.08)
    assert model.priors_p_.sum() == pytest.approx(1)
    assert model.priors_q_ @ np.exp(model.class_log_ratio_) == pytest.approx(1)
    np.testing.assert_allclose(
        model.log_ratio([2, 0, 2]), np.log(model.priors_p_ / model.priors_q_)[[2, 0, 2]]
    )


@pytest.mark.parametrize("method", ["em", "bbse"])
def test_intervals_cover(method):
    """200 samples, three classes each: of 600 intervals 570 are expected to hold the truth.

    The classes' intervals depend on each other. With at worst 200 independent events of 0.95,
    fewer than 165 have probability below 1e-9; a shortfall of 2 % in coverage is let pass.
    """
    hits = np.zeros(3)
    for seed in range(200):
        s_q, labels, s_p = sample(500, 400, seed, 2.0)
        found = LabelShiftRatio(method).fit(s_q, s_p, labels_q=labels).priors_p_interval_
        hits += (found[:, 0] <= PRIORS_P) & (found[:, 1] >= PRIORS_P)
    assert (hits > 175).all()
    assert (hits < 200).any()  # nor are they as wide as can be


@every
def test_absent_class(method):
    priors = np.array([0.5, 0.5, 0.0])
    s_q, labels, s_p = sample(priors=priors)
    model = LabelShiftRatio(method).fit(s_q, s_p, labels_q=labels)
    assert model.priors_p_[2] < 0.05
    low, high = model.priors_p_interval_[2]
    assert low == 0 < high < 0.12
    if model.priors_p_[2] == 0:
        assert model.log_ratio([2])[0] == -np.inf
        assert "p seems to have no row of class '2'" in model.status_
    assert np.isfinite(model.adapt(s_p)).all()


@every
def test_no_shift_gives_zero(method):
    s_q, labels, _ = sample(sharpness=2.0)
    model = LabelShiftRatio(method).fit(s_q, s_q, labels_q=labels)
    assert np.abs(model.class_log_ratio_).max() < 5e-3


def test_moments_are_the_inverse():
    s_q, labels, s_p = sample()
    model = LabelShiftRatio("bbse", calibrate=False).fit(s_q, s_p, labels_q=labels)
    joint = np.array([[(s_q[:, i] * (labels == j)).mean() for j in range(3)] for i in range(3)])
    weights = np.linalg.solve(joint, s_p.mean(axis=0))
    np.testing.assert_allclose(np.exp(model.class_log_ratio_), weights, atol=1e-6)
    hard = LabelShiftRatio("bbse", calibrate=False, predictions="hard")
    hard.fit(s_q, s_p, labels_q=labels)
    said = s_q.argmax(axis=1)
    table = np.array([[((said == i) & (labels == j)).mean() for j in range(3)] for i in range(3)])
    shares = np.bincount(s_p.argmax(axis=1), minlength=3) / len(s_p)
    np.testing.assert_allclose(
        np.exp(hard.class_log_ratio_), np.linalg.solve(table, shares), atol=1e-6
    )


def test_least_squares_stays_among_probabilities():
    """Against a fine grid of the simplex, where the inverse leaves it."""
    rng = np.random.default_rng(0)
    s_q, labels = draw(300, PRIORS_Q, rng)
    s_p = np.tile([0.02, 0.9, 0.08], (300, 1))
    moments = Moments(s_q, labels, np.full(300, 1 / 300), s_p, np.full(300, 1 / 300))
    priors, centre, _ = moments.solve(PRIORS_Q, 0.0)
    assert centre.min() < -0.01
    grid = np.array([(a, b, 200 - a - b) for a in range(201) for b in range(201 - a)]) / 200
    sizes = np.linalg.norm(grid @ moments.confusion.T - moments.target, axis=1)
    np.testing.assert_allclose(priors, grid[sizes.argmin()], atol=0.01)
    for penalty in (0.01, 0.1, 10.0):
        priors = moments.solve(PRIORS_Q, penalty)[0]
        total = sizes + penalty * np.linalg.norm(grid / PRIORS_Q - 1, axis=1)
        own = np.linalg.norm(moments.confusion @ priors - moments.target)
        own += penalty * np.linalg.norm(priors / PRIORS_Q - 1)
        assert own < total.min() + 1e-3


def test_maximum_likelihood_is_reached():
    """Against the plain iteration of the paper, run to the end."""
    s_q, labels, s_p = sample(400, 300)
    model = LabelShiftRatio("em", calibrate=False).fit(s_q, s_p, labels_q=labels)
    v = model.priors_q_.copy()
    for _ in range(20_000):
        joint = s_p * (v / model.priors_q_)
        v = (joint / joint.sum(axis=1, keepdims=True)).mean(axis=0)
    np.testing.assert_allclose(model.priors_p_, v, atol=1e-7)


def test_calibration_repairs_a_sharp_classifier():
    s_q, labels, s_p = sample(sharpness=2.0)
    tamed = LabelShiftRatio().fit(s_q, s_p, labels_q=labels)
    raw = LabelShiftRatio(calibrate=False).fit(s_q, s_p, labels_q=labels)
    assert abs(tamed.temperature_ - 2) < 0.2
    assert np.abs(tamed.priors_p_ - PRIORS_P).max() < np.abs(raw.priors_p_ - PRIORS_P).max() / 2


def test_calibration_influence_is_its_derivative():
    """The influence of a row against refits with a little more of its weight."""
    s_q, labels, _ = sample(200, 10, sharpness=2.0)
    share = np.full(200, 1 / 200)
    temperature, offsets, influence = fit_calibration(s_q, labels, share)
    for i in (0, 7, 100):
        more = share + 1e-5 * ((np.arange(200) == i) / 200)
        other, moved, _ = fit_calibration(s_q, labels, more)
        change = np.r_[1 / other - 1 / temperature, moved - offsets] / 1e-5
        np.testing.assert_allclose(change, influence[i], rtol=0.02, atol=1e-5)


def test_adapted_probabilities_are_the_posterior_under_p():
    s_q, labels, s_p = sample()
    model = LabelShiftRatio().fit(s_q, s_p, labels_q=labels)
    exact = s_p * (PRIORS_P / PRIORS_Q)
    exact /= exact.sum(axis=1, keepdims=True)
    adapted = model.adapt(s_p)
    np.testing.assert_allclose(adapted.sum(axis=1), 1)
    assert np.abs(adapted - exact).mean() < 0.04
    np.testing.assert_allclose(adapted.mean(axis=0), model.priors_p_, atol=1e-6)
    truth = np.log((s_p * (PRIORS_P / PRIORS_Q)).sum(axis=1))
    assert np.abs(model.row_log_ratio(s_p) - truth).mean() < 0.1


@every
def test_weights_are_repeated_rows(method):
    s_q, labels, s_p = sample(300, 200)
    rng = np.random.default_rng(1)
    w, v = rng.integers(0, 4, 300), rng.integers(0, 4, 200)
    options = {"method": method, "calibrate": False}
    weighted = LabelShiftRatio(**options).fit(
        s_q, s_p, labels_q=labels, weights_q=w, weights_p=3 * v
    )
    repeated = LabelShiftRatio(**options).fit(
        np.repeat(s_q, w, axis=0), np.repeat(s_p, v, axis=0), labels_q=np.repeat(labels, w)
    )
    # The paper's penalty goes by the number of rows, and only by that.
    np.testing.assert_allclose(weighted.priors_p_, repeated.priors_p_, atol=1e-6)
    assert weighted.n_q_ == (w > 0).sum()


def test_penalty_helps_with_many_classes():
    """20 classes, 60 labelled rows, a small shift."""
    rng = np.random.default_rng(0)
    errors = {"bbse": [], "rlls": []}
    for _ in range(20):
        y_q, y_p = np.r_[np.arange(20), rng.integers(0, 20, 40)], rng.integers(0, 20, 400)
        scores = [2 * rng.normal(size=(len(y), 20)) + 3 * np.eye(20)[y] for y in (y_q, y_p)]
        s_q, s_p = (softmax(each, axis=1) for each in scores)
        for method, found in errors.items():
            try:
                model = LabelShiftRatio(method, calibrate=False).fit(s_q, s_p, labels_q=y_q)
            except DataError:
                continue
            truth = np.full(20, 1 / 20) / model.priors_q_
            found.append(np.mean((np.exp(model.class_log_ratio_) - truth) ** 2))
    assert len(errors["rlls"]) == 20
    assert not errors["bbse"] or np.mean(errors["rlls"]) < np.mean(errors["bbse"])


def test_manners():
    from sklearn.base import clone

    model = clone(LabelShiftRatio("bbse"))
    assert model.get_params() == {
        "method": "bbse", "calibrate": True, "predictions": "soft", "level": 0.95,
    }  # fmt: skip
    with pytest.raises(OptionError, match="Unknown parameter 'metod' of LabelShiftRatio"):
        model.set_params(metod="em")
    for call in (model.log_ratio, model.adapt, model.row_log_ratio):
        with pytest.raises(NotFittedError, match="is not fitted; call fit"):
            call([[0.5, 0.5]])
    s_q, labels, s_p = sample(300, 200)
    names = np.array(["ape", "bee", "cat"])
    model.fit(s_q, s_p, labels_q=names[labels])
    assert repr(model) == (
        "LabelShiftRatio(method='bbse'), fitted: log dP/dQ of 3 classes from 300 labelled rows of "
        "q and 200 rows of p"
    )
    assert model.classes_.tolist() == ["ape", "bee", "cat"]
    back = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(back.log_ratio(["cat"]), model.log_ratio(["cat"]))
    turned = LabelShiftRatio("bbse").fit(
        s_q[:, ::-1], s_p[:, ::-1], labels_q=names[labels], classes=names[::-1]
    )
    np.testing.assert_allclose(turned.log_ratio(names), model.log_ratio(names), atol=1e-6)


def test_refusals():
    s_q, labels, s_p = sample(300, 200)
    model = LabelShiftRatio()
    with pytest.raises(DataError, match=r"q has 3 columns and p has 2; expected the same classes"):
        model.fit(s_q, np.full((5, 2), 0.5), labels_q=labels)
    with pytest.raises(DataError, match=r"300 of 300 rows are no probabilities \(row 0 sums to 2"):
        model.fit(2 * s_q, s_p, labels_q=labels)
    with pytest.raises(DataError, match=r"labels_q has shape \(3,\); expected \(300,\)"):
        model.fit(s_q, s_p, labels_q=[0, 1, 2])
    with pytest.raises(DataError, match="labels_q holds 2 classes and q has 3 columns; pass"):
        model.fit(s_q, s_p, labels_q=np.minimum(labels, 1))
    with pytest.raises(DataError, match="no labelled row of q has class '2'; give some"):
        model.fit(s_q, s_p, labels_q=np.minimum(labels, 1), classes=[0, 1, 2])
    with pytest.raises(DataError, match="labels_q holds 2, which is none of the classes '0', '1'"):
        model.fit(s_q, s_p, labels_q=labels, classes=[0, 1, 7])
    with pytest.raises(DataError, match="classes has shape"):
        model.fit(s_q, s_p, labels_q=labels, classes=[0, 1, 1])
    for options, message in (
        ({"method": "mle"}, "Unknown method 'mle'. Choose one of 'em', 'bbse', 'rlls'."),
        ({"predictions": "firm"}, "Unknown predictions 'firm'. Choose one of 'soft', 'hard'."),
        ({"level": 1}, "level is 1; expected between 0 and 1"),
    ):
        with pytest.raises(OptionError, match=message):
            LabelShiftRatio(**options).fit(s_q, s_p, labels_q=labels)
    model.fit(s_q, s_p, labels_q=labels)
    with pytest.raises(DataError, match="labels holds 5, which is none of the classes"):
        model.log_ratio([0, 5])


@pytest.mark.parametrize("method", ["em", "bbse"])
def test_classes_that_look_alike_are_named(method):
    s_q, labels, s_p = sample(600, 400)
    rng = np.random.default_rng(0)
    # Class 2 is split by a coin into 2 and 3, which no classifier can see.
    labels = np.where(labels == 2, rng.integers(2, 4, 600), labels)
    halves = [np.column_stack([s[:, :2], s[:, 2:] / 2, s[:, 2:] / 2]) for s in (s_q, s_p)]
    with pytest.raises(DataError, match="does not tell classes '2', '3' apart .* merge them"):
        LabelShiftRatio(method).fit(halves[0], halves[1], labels_q=labels)
    model = LabelShiftRatio("rlls").fit(halves[0], halves[1], labels_q=labels)
    assert model.priors_p_[2:].sum() == pytest.approx(0.6, abs=0.12)


def test_digits(shared_data):
    """Digits whose labels were resampled: weights far better than none, more digits read right."""
    from sklearn.linear_model import LogisticRegression

    stored = np.load(shared_data / "mnist_t10k.npz")
    x, y = stored["x"].reshape(len(stored["y"]), -1)[:, ::5] / 255.0, stored["y"]
    rng = np.random.default_rng(0)
    order = rng.permutation(len(y))
    x, y = x[order], y[order]
    classifier = LogisticRegression(C=0.1, tol=1e-2, max_iter=500).fit(x[:2500], y[:2500])
    shares = rng.dirichlet(np.ones(10))
    weight = (shares / np.bincount(y[5000:], minlength=10))[y[5000:]]
    rows = 5000 + rng.choice(len(y) - 5000, 2000, p=weight / weight.sum())
    s_q, s_p = classifier.predict_proba(x[2500:5000]), classifier.predict_proba(x[rows])
    truth = np.bincount(y[rows], minlength=10) / len(rows)
    raw = (s_p.argmax(axis=1) == y[rows]).mean()
    for method in METHODS:
        model = LabelShiftRatio(method).fit(s_q, s_p, labels_q=y[2500:5000])
        gap = np.exp(model.class_log_ratio_) - truth / model.priors_q_
        assert np.linalg.norm(gap) < np.linalg.norm(1 - truth / model.priors_q_) / 5
        assert (model.adapt(s_p).argmax(axis=1) == y[rows]).mean() > raw + 0.003
