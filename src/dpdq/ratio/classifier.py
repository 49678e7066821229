"""Any probabilistic classifier as a ratio estimator.

A classifier that tells p (class 1) from q (class 0) estimates P(p | x); Bayes gives

    log r(x) = logit P(p | x) + log(n_q / n_p),

and an affine map of this, fitted on rows held out from the training, repairs over- and
under-confidence.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dpdq._random import RandomState, as_generator, child_seed
from dpdq.errors import InputTypeError, OptionError
from dpdq.ratio._base import RatioEstimator
from dpdq.ratio._common import Array, fit_affine, is_sparse, stack_rows, validation_split

__all__ = ["ClassifierRatio"]

_PROBABILITY_FLOOR = 1e-9  # a single precision classifier says exactly 0 or 1


class ClassifierRatio(RatioEstimator):
    """Log ratio through any scikit-learn classifier with ``predict_proba``, calibrated.

        log r(x) = a + b [logit P(p | x) + log(n_q / n_p)]

    (a, b) are fitted by balanced logistic loss on a fifth of the rows, chosen by content, that
    the classifier has not seen; without ``calibrate`` they are (0, 1). Misleads where the
    classifier's ranking is wrong: no affine map repairs that.

    Parameters
    ----------
    estimator
        Unfitted classifier; a clone of it is fitted. It reads arrays as they are (a sparse matrix
        as CSR) and tables as dense features. Default: standardised logistic regression.
    calibrate
        Whether to hold out rows for the affine calibration.
    validation_fraction
        Share of the distinct rows held out.
    random_state
        Seed of the split's hash, and of the classifier if it has a ``random_state`` of None.

    Attributes
    ----------
    model_
        The fitted classifier.
    intercept_, slope_
        a and b.

    Notes
    -----
    Cost: that of the classifier, plus O(n d) for the split.
    Held by: tests/ratio/test_classifier.py::test_class_sizes_are_taken_out

    References
    ----------
    .. [Bickel2009] Discriminative Learning Under Covariate Shift. Bickel, 2009, JMLR 10.
    .. [Platt1999] Probabilistic Outputs for Support Vector Machines and Comparisons to
       Regularized Likelihood Methods. Platt, 1999, Advances in Large Margin Classifiers.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.ensemble import ExtraTreesClassifier
    >>> from dpdq.ratio import ClassifierRatio
    >>> rng = np.random.default_rng(0)
    >>> q, p = rng.normal(0, 1, (2000, 1)), rng.normal(1, 1, (500, 1))
    >>> trees = ExtraTreesClassifier(min_samples_leaf=50)
    >>> model = ClassifierRatio(trees, random_state=0).fit(q=q, p=p)
    >>> bool(abs(model.log_ratio([[0.5]])[0]) < 0.5)  # the truth is x - 1/2
    True
    """

    _takes_sparse = True

    def __init__(
        self,
        estimator: Any = None,
        *,
        calibrate: bool = True,
        validation_fraction: float = 0.2,
        random_state: RandomState = None,
    ) -> None:
        self.estimator = estimator
        self.calibrate = calibrate
        self.validation_fraction = validation_fraction
        self.random_state = random_state

    def _fit(self, q: Array, p: Array, weights_q: Array, weights_p: Array) -> None:
        if not 0 < self.validation_fraction < 1:
            raise OptionError(
                f"validation_fraction is {self.validation_fraction}; expected between 0 and 1"
            )
        seed = child_seed(as_generator(self.random_state))
        model = self._new_model(seed, sparse=is_sparse(q))
        split = validation_split(q, p, self.validation_fraction, seed) if self.calibrate else None
        keep_q = ~split[0] if split else np.ones(len(weights_q), dtype=bool)
        keep_p = ~split[1] if split else np.ones(len(weights_p), dtype=bool)
        w_q, w_p = weights_q[keep_q], weights_p[keep_p]
        uniform = bool((w_q == w_q[0]).all() and (w_p == w_p[0]).all())
        # Weights of mean one leave each side's total at its number of rows.
        w = np.concatenate([w_q / w_q.mean(), w_p / w_p.mean()])
        y = np.repeat([0, 1], [len(w_q), len(w_p)])
        model.fit(
            stack_rows(q[keep_q], p[keep_p]), y, **({} if uniform else weight_keyword(model, w))
        )
        self.model_ = model
        self._prior = float(np.log(len(w_q) / len(w_p)))
        self.intercept_, self.slope_ = 0.0, 1.0
        if split:
            held_q, held_p = split
            self.intercept_, self.slope_ = fit_affine(
                self._score(q[held_q]), self._score(p[held_p]), weights_q[held_q], weights_p[held_p]
            )

    def _new_model(self, seed: int, *, sparse: bool) -> Any:
        from sklearn.base import clone

        if self.estimator is None:
            from sklearn.linear_model import LogisticRegression
            from sklearn.pipeline import make_pipeline
            from sklearn.preprocessing import StandardScaler

            return make_pipeline(
                StandardScaler(with_mean=not sparse), LogisticRegression(max_iter=1000)
            )
        if not callable(getattr(self.estimator, "predict_proba", None)):
            raise InputTypeError(
                f"{type(self.estimator).__name__} has no predict_proba; give a probabilistic "
                "classifier, for example by sklearn.calibration.CalibratedClassifierCV"
            )
        model: Any = clone(self.estimator)
        if model.get_params().get("random_state", 0) is None:
            model.set_params(random_state=seed)
        return model

    def _score(self, x: Array) -> Array:
        probability = np.asarray(self.model_.predict_proba(x), dtype=np.float64)[:, 1]
        probability = np.clip(probability, _PROBABILITY_FLOOR, 1 - _PROBABILITY_FLOOR)
        return np.log(probability) - np.log1p(-probability) + self._prior

    def _log_ratio(self, x: Array) -> Array:
        return self.intercept_ + self.slope_ * self._score(x)


def weight_keyword(model: Any, weights: Array) -> dict[str, Array]:
    """``sample_weight`` under the name that this classifier, or a pipeline's last step, takes."""
    from sklearn.pipeline import Pipeline
    from sklearn.utils.validation import has_fit_parameter

    last, prefix = model, ""
    if isinstance(model, Pipeline):
        name, last = model.steps[-1]
        prefix = f"{name}__"
    if not has_fit_parameter(last, "sample_weight"):
        raise OptionError(
            f"{type(last).__name__} takes no sample_weight; choose a classifier that does, "
            "or leave out the weights"
        )
    return {f"{prefix}sample_weight": weights}
