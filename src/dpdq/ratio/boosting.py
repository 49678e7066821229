"""Gradient-boosted trees between p and q, calibrated on rows that the trees have not seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dpdq._random import RandomState, as_generator, child_seed
from dpdq._threads import one_openmp_thread
from dpdq.errors import DataError, OptionError
from dpdq.ratio._base import RatioEstimator
from dpdq.ratio._common import Array, fit_affine, validation_split

__all__ = ["GradientBoostingRatio"]


class GradientBoostingRatio(RatioEstimator):
    """Log ratio as a sum of small trees: the usual winner on tables of mixed columns.

        log r(x) = a + b [F(x) + log(n_q / n_p)],   F = boosted trees for the logistic loss

    A fifth of the rows, chosen by their content, stops the boosting early and then fits the
    calibration (a, b); the rule looks at values alone, so that equal rows of q and p fall on the
    same side. Constant beyond the range of the data, hence it never extrapolates, and steps where
    the truth is smooth: on a few smooth columns `LogisticRatio` or `ULSIF` are better.

    Parameters
    ----------
    categorical_features
        Of arrays: boolean mask of shape (d,), columns that hold codes 0, 1, ... of unordered
        levels, at most 255. Default none. In tables the kind of a column says it.
    max_iter, learning_rate, max_leaf_nodes, min_samples_leaf
        Trees at most, shrinkage of each, leaves a tree, rows a leaf.
    validation_fraction
        Share of the distinct rows that stops and calibrates.
    random_state
        Seed of the split's hash and of the binning.

    Attributes
    ----------
    model_
        The fitted ``sklearn.ensemble.HistGradientBoostingClassifier``.
    n_iter_
        Trees used.
    intercept_, slope_
        a and b of the calibration.

    Notes
    -----
    Cost: O(n d) time a tree, O(n d) memory.
    Held by: tests/ratio/test_boosting.py::test_equal_samples_give_zero

    NaN in a cell is a level of its own ("missing"). Below 5 rows a side on either part of the
    split there is neither early stopping nor calibration, and 20 trees.

    References
    ----------
    .. [Friedman2001] Greedy Function Approximation: A Gradient Boosting Machine. Friedman, 2001,
       Annals of Statistics 29.
    .. [Platt1999] Probabilistic Outputs for Support Vector Machines and Comparisons to
       Regularized Likelihood Methods. Platt, 1999, Advances in Large Margin Classifiers.

    Examples
    --------
    >>> import numpy as np
    >>> from dpdq.ratio import GradientBoostingRatio
    >>> rng = np.random.default_rng(0)
    >>> q, p = rng.uniform(0, 1, (3000, 1)), rng.uniform(0, 1, (3000, 1)) ** 0.5  # p = 2x dx
    >>> model = GradientBoostingRatio(random_state=0).fit(q=q, p=p)
    >>> bool(abs(model.log_ratio([[0.5]])[0]) < 0.3)  # the truth is log(2x)
    True
    """

    _takes_missing = True
    _view = "codes"

    def __init__(
        self,
        categorical_features: Sequence[bool] | Array | None = None,
        *,
        max_iter: int = 200,
        learning_rate: float = 0.15,
        max_leaf_nodes: int = 15,
        min_samples_leaf: int = 20,
        validation_fraction: float = 0.2,
        random_state: RandomState = None,
    ) -> None:
        self.categorical_features = categorical_features
        self.max_iter = max_iter
        self.learning_rate = learning_rate
        self.max_leaf_nodes = max_leaf_nodes
        self.min_samples_leaf = min_samples_leaf
        self.validation_fraction = validation_fraction
        self.random_state = random_state

    def _fit(self, q: Array, p: Array, weights_q: Array, weights_p: Array) -> None:
        from sklearn.ensemble import HistGradientBoostingClassifier

        if not 0 < self.validation_fraction < 1:
            raise OptionError(
                f"validation_fraction is {self.validation_fraction}; expected between 0 and 1"
            )
        categorical = self._check_categorical(q, p)
        seed = child_seed(as_generator(self.random_state))
        split = validation_split(q, p, self.validation_fraction, seed)
        settings: dict[str, Any] = {
            "max_iter": self.max_iter if split else min(20, self.max_iter),
            "learning_rate": self.learning_rate,
            "max_leaf_nodes": self.max_leaf_nodes,
            "min_samples_leaf": self.min_samples_leaf,
            "early_stopping": split is not None,
            "n_iter_no_change": 8,
            "categorical_features": categorical,
            "random_state": seed,
        }
        self.model_ = HistGradientBoostingClassifier(**settings)
        if split is None:
            x, y, w = _stack(q, p, weights_q, weights_p)
            with one_openmp_thread():
                self.model_.fit(x, y, sample_weight=w)
            self._prior = float(np.log(len(q) / len(p)))
            self.intercept_, self.slope_ = 0.0, 1.0
        else:
            held_q, held_p = split
            x, y, w = _stack(q[~held_q], p[~held_p], weights_q[~held_q], weights_p[~held_p])
            x_held, y_held, w_held = _stack(
                q[held_q], p[held_p], weights_q[held_q], weights_p[held_p]
            )
            with one_openmp_thread():
                self.model_.fit(
                    x, y, sample_weight=w, X_val=x_held, y_val=y_held, sample_weight_val=w_held
                )
            self._prior = float(np.log((~held_q).sum() / (~held_p).sum()))
            score = self._score(x_held)
            n = int(held_q.sum())
            self.intercept_, self.slope_ = fit_affine(
                score[:n], score[n:], weights_q[held_q], weights_p[held_p]
            )
        self.n_iter_ = int(self.model_.n_iter_)

    def _check_categorical(self, q: Array, p: Array) -> Array | None:
        if self.categorical_features is None:
            if self.features_ is None:
                return None
            mask = self.features_.categorical_codes
        elif self.features_ is not None:
            raise OptionError(
                "categorical_features is for arrays; the kinds of a table's columns say which are "
                "categorical, and fit(q, p, types={...}) corrects them"
            )
        else:
            mask = np.asarray(self.categorical_features)
        if mask.dtype != np.bool_ or mask.shape != (q.shape[1],):
            raise DataError(
                f"categorical_features has dtype {mask.dtype} and shape {mask.shape}; expected "
                f"booleans of shape ({q.shape[1]},), one a column"
            )
        for side, rows in (("q", q), ("p", p)):
            codes = rows[:, mask]
            codes = codes[~np.isnan(codes)]
            if len(codes) and (codes.min() < 0 or codes.max() > 254 or (codes % 1 != 0).any()):
                raise DataError(
                    f"a categorical column of {side} holds codes outside 0, 1, ..., 254; "
                    "pool the rare levels into one"
                )
        return mask if mask.any() else None

    def _score(self, x: Array) -> Array:
        with one_openmp_thread():
            return self.model_.decision_function(x) + self._prior

    def _log_ratio(self, x: Array) -> Array:
        return self.intercept_ + self.slope_ * self._score(x)


def _stack(q: Array, p: Array, w_q: Array, w_p: Array) -> tuple[Array, Array, Array | None]:
    """Rows, labels (1 for p) and weights of mean one on each side.

    None where all are equal: scikit-learn bins weighted columns by weighted percentiles, at
    several times the cost of the trees.
    """
    weights = None
    if not ((w_q == w_q[0]).all() and (w_p == w_p[0]).all()):
        weights = np.concatenate([w_q / w_q.mean(), w_p / w_p.mean()])
    return np.vstack([q, p]), np.repeat([0, 1], [len(q), len(p)]), weights
