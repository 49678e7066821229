"""Probabilities moved to another prior: Bayes' rule, round trips, Brier scores on real data."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, roc_auc_score
from sklearn.model_selection import cross_val_score
from sklearn.naive_bayes import GaussianNB
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from dpdq.errors import DataError, NotFittedError, OptionError
from dpdq.reweight.oversampling import SMOTE
from dpdq.reweight.priors import PriorCorrected, recalibrate_prior


def test_bayes_classifier_moves_to_the_true_prior():
    x = np.linspace(-3, 4, 50)
    means = np.array([0.0, 1.0, 2.5])
    density = norm.pdf(x[:, None] - means)

    def posterior(prior):
        joint = density * prior
        return joint / joint.sum(axis=1, keepdims=True)

    train, true = np.array([0.3, 0.3, 0.4]), np.array([0.9, 0.09, 0.01])
    moved = recalibrate_prior(posterior(train), train, true)
    assert moved == pytest.approx(posterior(true), abs=1e-14)
    assert recalibrate_prior(moved, true, train) == pytest.approx(posterior(train), abs=1e-12)
    assert recalibrate_prior(moved, [1, 1, 1], [7, 7, 7]) == pytest.approx(moved)
    gone = recalibrate_prior(posterior(train), train, [0.5, 0.5, 0.0])
    assert gone[:, 2].max() == 0
    both = posterior(train)[:, :2] / posterior(train)[:, :2].sum(axis=1, keepdims=True)
    binary = recalibrate_prior(both, [0.8, 0.2], [0.5, 0.5])
    assert recalibrate_prior(both[:, 1], 0.2, 0.5) == pytest.approx(binary[:, 1])
    odds = binary[:, 1] / binary[:, 0]
    assert odds == pytest.approx(both[:, 1] / both[:, 0] * 4)


def test_weights_are_corrected_for():
    """Class weights and repeated rows change a logistic fit alike, and both are undone."""
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], [3000, 200])
    x = rng.normal(size=(3200, 2)) + 1.2 * y[:, None]
    model = LogisticRegression(C=np.inf)
    plain = PriorCorrected(model).fit(x, y)
    assert plain.predict_proba(x) == pytest.approx(plain.estimator_.predict_proba(x))
    weights = np.where(y == 1, 15.0, 1.0)
    weighted = PriorCorrected(model).fit(x, y, sample_weight=weights)
    assert weighted.prior_train_ == pytest.approx([0.5, 0.5])
    assert weighted.estimator_.predict_proba(x)[:, 1].mean() > 0.2
    assert weighted.predict_proba(x)[:, 1].mean() == pytest.approx(200 / 3200, rel=0.1)
    repeated = np.repeat(np.arange(3200), weights.astype(int))
    named = PriorCorrected(model, prior_true={0: 30, 1: 2}).fit(x[repeated], y[repeated])
    assert named.predict_proba(x) == pytest.approx(weighted.predict_proba(x), abs=1e-4)


def test_manners_of_a_classifier():
    x, y = load_breast_cancer(return_X_y=True)
    x = StandardScaler().fit_transform(x)
    model = PriorCorrected(GaussianNB(), sampler=SMOTE(random_state=0))
    assert cross_val_score(clone(model), x, y, cv=3, scoring="roc_auc").min() > 0.95
    model.set_params(estimator__var_smoothing=1e-8).fit(x, np.where(y == 1, "good", "bad"))
    assert model.classes_.tolist() == ["bad", "good"]
    assert model.predict_proba(x).sum(axis=1) == pytest.approx(1)
    assert set(model.predict(x)) == {"bad", "good"}
    assert model.score(x, np.where(y == 1, "good", "bad")) > 0.9
    assert repr(PriorCorrected(GaussianNB())) == "PriorCorrected(estimator=GaussianNB())"


def test_failures_name_what_is_wrong():
    for args, error, text in (
        (([[0.5, 0.6]], 0.5, 0.5), DataError, "1 of 1 rows do not sum to one .*row 0, 1.1"),
        (([1.5], 0.5, 0.5), DataError, "outside 0 to 1"),
        (([0.5], 0.0, 0.5), OptionError, "prior_train is 0 for a class"),
        (([0.5], [0.2, 0.3, 0.5], 0.5), OptionError, "give 2 shares"),
        (([0.5], 0.5, [-1, 2]), OptionError, "prior_true is"),
        (([1.0], 0.5, 0.0), DataError, "row 0 has mass only on classes"),
    ):
        with pytest.raises(error, match=text):
            recalibrate_prior(*args)
    x, y = np.random.default_rng(0).normal(size=(20, 2)), np.repeat([0, 1], 10)
    with pytest.raises(NotFittedError, match=r"call fit\(X, y\) first"):
        PriorCorrected(GaussianNB()).predict_proba(x)
    with pytest.raises(OptionError, match="Unknown prior_true 'flat'"):
        PriorCorrected(GaussianNB(), prior_true="flat").fit(x, y)
    with pytest.raises(OptionError, match="prior_true names 0; the classes are 0, 1"):
        PriorCorrected(GaussianNB(), prior_true={0: 1.0}).fit(x, y)
    with pytest.raises(OptionError, match="give sample_weight or a sampler"):
        PriorCorrected(GaussianNB(), sampler=SMOTE()).fit(x, y, sample_weight=np.ones(20))


def test_brier_is_repaired_on_breast_cancer():
    """5 % malignant: undersampling and SMOTE damage probabilities; the correction repairs most.

    Mean Brier score over 12 fixed splits, test rows weighted to 5 % malignant.
    """
    under = pytest.importorskip("imblearn.under_sampling")
    x, target = load_breast_cancer(return_X_y=True)
    y = (target == 0).astype(int)
    scores = {}
    for seed in range(12):
        rng = np.random.default_rng(seed)
        common, rare = (rng.permutation(np.flatnonzero(y == k)) for k in (0, 1))
        train = np.concatenate([common[:285], rare[:15]])
        test = np.concatenate([common[285:], rare[15:]])
        scaler = StandardScaler().fit(x[train])
        rows, held_out = scaler.transform(x[train]), scaler.transform(x[test])
        weights = np.where(y[test] == 1, 0.05 / y[test].sum(), 0.95 / (1 - y[test]).sum())
        for learner in (GaussianNB(), LogisticRegression(max_iter=1000)):
            for sampler in (SMOTE(random_state=seed), under.RandomUnderSampler(random_state=seed)):
                model = PriorCorrected(learner, sampler=sampler).fit(rows, y[train])
                raw = model.estimator_.predict_proba(held_out)[:, 1]
                corrected = model.predict_proba(held_out)[:, 1]
                if isinstance(learner, LogisticRegression):  # the others round to 1
                    ranking = roc_auc_score(y[test], raw)
                    assert roc_auc_score(y[test], corrected) == pytest.approx(ranking, abs=1e-3)
                key = type(learner).__name__, type(sampler).__name__
                scores.setdefault(key, []).append(
                    [
                        brier_score_loss(y[test], value, sample_weight=weights)
                        for value in (raw, corrected)
                    ]
                )
    means = {key: np.mean(found, axis=0) for key, found in scores.items()}
    raw, corrected = means["LogisticRegression", "RandomUnderSampler"]
    assert corrected < 0.5 * raw
    for key in (("GaussianNB", "SMOTE"), ("GaussianNB", "RandomUnderSampler")):
        assert means[key][1] < means[key][0]
    # Where the classes are nearly separable SMOTE did little damage, and there is none to repair.
    raw, corrected = means["LogisticRegression", "SMOTE"]
    assert raw < 0.02
    assert corrected < 1.2 * raw


def test_brier_is_repaired_on_adult(shared_data):
    table = pd.read_parquet(shared_data / "adult.parquet")
    y = (table["class"] == ">50K").to_numpy().astype(int)
    x = table.select_dtypes("number").to_numpy(float)
    rng = np.random.default_rng(0)
    common, rare = (rng.permutation(np.flatnonzero(y == k)) for k in (0, 1))
    train = np.concatenate([common[:1900], rare[:100]])
    test = np.concatenate([common[1900:20900], rare[100:1100]])
    scaler = StandardScaler().fit(x[train])
    rows, held_out = scaler.transform(x[train]), scaler.transform(x[test])
    for learner, most in (
        (LogisticRegression(), 1.1),
        (DecisionTreeClassifier(min_samples_leaf=10, random_state=0), 1.8),
    ):
        plain = clone(learner).fit(rows, y[train]).predict_proba(held_out)[:, 1]
        model = PriorCorrected(learner, sampler=SMOTE(random_state=0)).fit(rows, y[train])
        raw = brier_score_loss(y[test], model.estimator_.predict_proba(held_out)[:, 1])
        corrected = brier_score_loss(y[test], model.predict_proba(held_out)[:, 1])
        best = brier_score_loss(y[test], plain)
        assert raw > 2 * best  # the damage
        assert corrected < most * best  # and what is left of it
