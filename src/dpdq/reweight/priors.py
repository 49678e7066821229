"""Probabilities for another prior: what resampled or weighted training did to them, undone.

    P_true(k | x)  =  P_train(k | x) r_k / sum_l P_train(l | x) r_l,   r_k = pi_true(k)/pi_train(k)

A classifier that was fitted to classes in the shares pi_train is right, if it is right at all, for
rows that come in these shares. Its ranking is untouched by the correction where there are two
classes (AUC is the same), its probabilities, costs and threshold at one half are not.

What the definition does not fix: whether p(x | k) is the same in both laws. It is for random over-
and undersampling and for class weights; SMOTE changes it too, by what it draws between rows, and
that part stays. A model that fits its training rows perfectly (a full tree) gives 0 and 1, which
no prior moves.

Which one: `recalibrate_prior` on probabilities; `PriorCorrected` for a classifier with its
oversampler inside. `dpdq.ratio.LabelShiftRatio` where the true prior is not known but has to be
estimated from rows without labels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from dpdq._parameters import Parameterised
from dpdq.errors import DataError, NotFittedError, OptionError

__all__ = ["recalibrate_prior", "PriorCorrected"]


def recalibrate_prior(proba: Any, prior_train: Any, prior_true: Any) -> np.ndarray:
    """Class probabilities of a model fitted under one prior, for rows under another.

        p'_k proportional to p_k pi_true(k) / pi_train(k)

    Wrong where p(x | k) differs too. A probability of 0 stays 0.

    Parameters
    ----------
    proba
        Shape (n, K), rows sum to one; or shape (n,), the probability of the second of two classes.
    prior_train
        Share of each class in training, shape (K,), any scale; for proba of shape (n,) also a
        single number, that of the second class.
    prior_true
        Share of each class among the rows to be judged, in the same form; zero for a class that
        does not occur.

    Returns
    -------
    ndarray
        In the shape of ``proba``.

    Raises
    ------
    DataError
        Probabilities outside 0 to 1, rows that do not sum to one, or rows whose classes all have
        the true prior 0.
    OptionError
        Priors of a wrong length, negative, or 0 in training.

    Notes
    -----
    Cost: O(n K) time and memory.
    Held by: tests/reweight/test_priors.py::test_bayes_classifier_moves_to_the_true_prior

    References
    ----------
    .. [M441] SMOTE: Synthetic Minority Over-sampling Technique. Chawla, 2002, arXiv 1106.1813.
    .. [Elkan2001] The Foundations of Cost-Sensitive Learning. Elkan, 2001, IJCAI.

    Examples
    --------
    >>> recalibrate_prior([0.5, 0.9], prior_train=0.5, prior_true=0.05).round(3)
    array([0.05 , 0.321])
    """
    values = np.asarray(proba, dtype=np.float64)
    if values.ndim not in (1, 2) or not ((values >= 0) & (values <= 1)).all():
        raise DataError(
            f"proba has shape {values.shape} or values outside 0 to 1; give probabilities, (n,) "
            "or (n, K)"
        )
    both = np.stack([1.0 - values, values], axis=1) if values.ndim == 1 else values
    off = np.abs(both.sum(axis=1) - 1.0) > 1e-4
    if off.any():
        row = int(off.argmax())
        raise DataError(
            f"proba: {int(off.sum())} of {len(both)} rows do not sum to one (first at row {row}, "
            f"{both[row].sum():.4g}); give all K classes"
        )
    train = _prior("prior_train", prior_train, both.shape[1])
    if not (train > 0).all():
        raise OptionError("prior_train is 0 for a class; a model knows no class it has not seen")
    moved = both * (_prior("prior_true", prior_true, both.shape[1]) / train)
    total = moved.sum(axis=1, keepdims=True)
    if not (total > 0).all():
        row = int((total[:, 0] <= 0).argmax())
        raise DataError(f"proba: row {row} has mass only on classes whose prior_true is 0")
    moved /= total
    return moved[:, 1] if values.ndim == 1 else moved


class PriorCorrected(Parameterised):
    """A classifier whose probabilities are right for the true prior, whatever it was trained on.

        fit:            X, y -> sampler -> estimator
        predict_proba:  estimator's, moved from the shares it was trained on to the true ones

    Without a sampler it corrects for sample weights given to ``fit``, or for a ``prior_true`` that
    the rows do not have. Classes are predicted at the largest corrected probability: for a rare
    class that is rarely reached, so predict by a threshold of your costs.

    Parameters
    ----------
    estimator
        A scikit-learn classifier with ``predict_proba``.
    sampler
        An object with ``fit_resample(X, y)``, such as `SMOTE`; ``None`` for none.
    prior_true
        ``"data"``: the shares of the rows given to ``fit``, unweighted and before the sampler. Or
        class -> share.

    Attributes
    ----------
    estimator_
        The fitted classifier.
    classes_
        Classes, in the order of ``predict_proba``.
    prior_train_, prior_true_
        Share of each class, shape (K,).

    Raises
    ------
    OptionError
        An unknown prior, a prior that misses a class, or weights together with a sampler.

    Notes
    -----
    Cost: that of the sampler and the estimator, and O(n K) a prediction.
    Held by: tests/reweight/test_priors.py::test_brier_is_repaired_on_breast_cancer

    References
    ----------
    .. [M441] SMOTE: Synthetic Minority Over-sampling Technique. Chawla, 2002, arXiv 1106.1813.
    .. [Saerens2002] Adjusting the Outputs of a Classifier to New a Priori Probabilities: A Simple
       Procedure. Saerens, 2002, Neural Computation 14.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> from dpdq.reweight.oversampling import SMOTE
    >>> rng = np.random.default_rng(0)
    >>> y = np.repeat([0, 1], [950, 50])
    >>> X = rng.normal(size=(1000, 2)) + y[:, None]
    >>> plain = LogisticRegression().fit(*SMOTE(random_state=0).fit_resample(X, y))
    >>> corrected = PriorCorrected(LogisticRegression(), sampler=SMOTE(random_state=0)).fit(X, y)
    >>> [round(float(model.predict_proba(X)[:, 1].mean()), 2) for model in (plain, corrected)]
    [0.35, 0.05]
    """

    estimator_: Any
    classes_: np.ndarray
    prior_train_: np.ndarray
    prior_true_: np.ndarray

    def __init__(
        self,
        estimator: Any,
        *,
        sampler: Any = None,
        prior_true: str | Mapping[Any, float] = "data",
    ) -> None:
        self.estimator = estimator
        self.sampler = sampler
        self.prior_true = prior_true

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Resample, fit the classifier, and note both priors.

        Parameters
        ----------
        X, y
            Rows and their classes.
        sample_weight
            Weights for the classifier, shape (n,); not together with a sampler.

        Returns
        -------
        Self
            This object.
        """
        from sklearn.base import clone

        if self.sampler is not None and sample_weight is not None:
            raise OptionError(
                "give sample_weight or a sampler, not both; rows that are made have no weight"
            )
        X_train, y_train = X, y
        if self.sampler is not None:
            sampler: Any = clone(self.sampler)
            X_train, y_train = sampler.fit_resample(X, y)
        given = {} if sample_weight is None else {"sample_weight": sample_weight}
        model: Any = clone(self.estimator)
        model.fit(X_train, y_train, **given)
        classes = np.asarray(model.classes_)
        self.prior_train_ = _shares(y_train, classes, sample_weight)
        self.prior_true_ = self._true_prior(classes, y)
        self.classes_, self.estimator_ = classes, model
        return self

    def _true_prior(self, classes: np.ndarray, y: Any) -> np.ndarray:
        if isinstance(self.prior_true, str):
            if self.prior_true != "data":
                raise OptionError(
                    f"Unknown prior_true {self.prior_true!r}. Choose 'data', or give shares."
                )
            return _shares(y, classes, None)
        names = classes.tolist()
        if set(self.prior_true) != set(names):
            raise OptionError(
                f"prior_true names {', '.join(map(repr, self.prior_true))}; the classes are "
                f"{', '.join(map(repr, names))}"
            )
        return _prior("prior_true", [self.prior_true[name] for name in names], len(names))

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities of the classes under the true prior.

        Parameters
        ----------
        X
            Rows, shape (n, d).

        Returns
        -------
        ndarray of shape (n, K)
            Rows sum to one.
        """
        if "estimator_" not in vars(self):
            raise NotFittedError("PriorCorrected is not fitted; call fit(X, y) first")
        proba = np.asarray(self.estimator_.predict_proba(X), dtype=np.float64)
        return recalibrate_prior(proba, self.prior_train_, self.prior_true_)

    def predict(self, X: Any) -> np.ndarray:
        """The most likely class of each row under the true prior.

        Parameters
        ----------
        X
            Rows, shape (n, d).

        Returns
        -------
        ndarray of shape (n,)
            Classes.
        """
        return self.classes_[self.predict_proba(X).argmax(axis=1)]

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Share of rows whose class is predicted right.

        Parameters
        ----------
        X, y
            Rows and their classes.
        sample_weight
            Weights of the rows, shape (n,).

        Returns
        -------
        float
            Between 0 and 1.
        """
        right = self.predict(X) == np.asarray(y)
        return float(np.average(right, weights=sample_weight))

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import ClassifierTags, Tags, TargetTags

        return Tags(
            estimator_type="classifier",
            target_tags=TargetTags(required=True),
            classifier_tags=ClassifierTags(),
        )

    def __sklearn_is_fitted__(self) -> bool:
        return "estimator_" in vars(self)


def _prior(name: str, prior: Any, n_classes: int) -> np.ndarray:
    """Shares of the classes that sum to one."""
    given = np.asarray(prior, dtype=np.float64)
    if given.ndim == 0 and n_classes == 2:
        given = np.array([1.0 - given, given])
    if given.shape != (n_classes,) or not (given >= 0).all() or not 0 < given.sum() < np.inf:
        raise OptionError(
            f"{name} is {prior!r}; give {n_classes} shares, not negative and not all 0"
        )
    return given / given.sum()


def _shares(y: Any, classes: np.ndarray, weights: Any) -> np.ndarray:
    """Share of each class, in the classes' order."""
    labels = np.asarray(y)
    mass = np.ones(len(labels)) if weights is None else np.asarray(weights, dtype=np.float64)
    total = np.array([mass[labels == name].sum() for name in classes])
    return total / total.sum()
