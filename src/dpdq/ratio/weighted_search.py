"""Grid search by importance-weighted cross-validation; see `dpdq.ratio.model_selection`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np

from dpdq._parameters import Parameterised
from dpdq._random import RandomState, as_generator, child_seed
from dpdq.errors import InputTypeError, NotFittedError, OptionError
from dpdq.ratio._base import RatioEstimator
from dpdq.ratio._common import Array
from dpdq.ratio._row_scores import row_scores, scoring_of
from dpdq.ratio.cross_fitting import CrossFittedRatio
from dpdq.ratio.model_selection import flattened_weights, weighted_score
from dpdq.weights import Weights

__all__ = ["ImportanceWeightedCV"]


class ImportanceWeightedCV(Parameterised):
    """Grid search by cross-validation on q, weighted towards p.

        argmax over the grid of  sum_i w_i s_i / sum_i w_i,   w_i = r(x_i)^flatten,

    s_i the score of row i under a model that has not been fitted on it. One mean over all rows, not
    a mean of folds: weights differ between folds. log r is cross-fitted on X and the target, so
    that no row is weighed by a ratio that has seen it; where no ratio beats r = 1 on held-out rows
    the weights are equal and this is plain cross-validation.

    Parameters
    ----------
    estimator
        scikit-learn classifier or regressor; clones of it are fitted.
    param_grid
        Parameter -> values to try, or a list of such.
    ratio
        Ratio estimator, or name -> candidates of `select_ratio`. Default `LogisticRatio`.
    cv
        Number of shuffled folds (stratified for classifiers), or a splitter of scikit-learn.
    scoring
        As for `iw_score`.
    flatten
        Power of the ratio in the scores: 1 is unbiased, less has less variance.
    fit_power
        Power of the ratio in ``sample_weight`` when models are fitted: 0 fits to q, 1 to p. A list
        of powers is searched together with the grid.
    random_state
        Seed of the folds of both.

    Attributes
    ----------
    best_estimator_
        Fitted on all rows with the best parameters.
    best_params_, best_fit_power_, best_index_
        The best cell of the grid.
    best_score_
        Its `ImportanceWeightedScore`. The best of many is slightly too good.
    cv_results_
        Column -> one value a cell: ``params``, ``param_...``, ``fit_power``, ``mean_test_score``,
        ``std_error_test_score``, ``rank_test_score``, the same unweighted
        (``mean_unweighted_score``, ``rank_unweighted_score``), ``mean_fit_time``.
    log_ratio_, weights_
        Log dP/dQ of the rows of X, and the weights of the scores.
    ratio_
        The cross-fitted ratio; None where ``log_ratio`` was given.
    status_
        Who won, what plain cross-validation would have chosen, and whether to trust it.

    Notes
    -----
    Cost: fits of (cells of the grid) x (folds), one more, and one cross-fit of the ratio.
    Held by: tests/ratio/test_model_selection.py::test_picks_what_is_better_on_p

    Changed from the paper: the weighted mean is divided by the sum of the weights, and the ratio is
    cross-fitted.

    References
    ----------
    .. [Sugiyama2007] Covariate Shift Adaptation by Importance Weighted Cross Validation.
       Sugiyama, 2007, JMLR 8.
    .. [Shimodaira2000] Improving Predictive Inference under Covariate Shift by Weighting the
       Log-Likelihood Function. Shimodaira, 2000, J. Stat. Plan. Inference 90.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import LinearRegression
    >>> from dpdq.ratio import ImportanceWeightedCV
    >>> rng = np.random.default_rng(0)
    >>> q, p = rng.normal(0, 1, (600, 1)), rng.normal(1, 0.5, (600, 1))
    >>> y = q[:, 0] ** 2 + rng.normal(0, 0.3, 600)  # a line is a poor model of it
    >>> search = ImportanceWeightedCV(
    ...     LinearRegression(), {}, fit_power=[0.0, 1.0], random_state=0
    ... ).fit(q, y, target=p)
    >>> search.best_fit_power_
    1.0
    """

    def __init__(
        self,
        estimator: Any,
        param_grid: Mapping[str, Sequence[Any]] | Sequence[Mapping[str, Sequence[Any]]],
        *,
        ratio: RatioEstimator | Mapping[str, RatioEstimator] | None = None,
        cv: Any = 5,
        scoring: Any = None,
        flatten: float = 1.0,
        fit_power: float | Sequence[float] = 0.0,
        random_state: RandomState = None,
    ) -> None:
        self.estimator = estimator
        self.param_grid = param_grid
        self.ratio = ratio
        self.cv = cv
        self.scoring = scoring
        self.flatten = flatten
        self.fit_power = fit_power
        self.random_state = random_state

    def __repr__(self) -> str:
        text = self._shown_parameters()
        if "best_estimator_" in vars(self):
            text += f", fitted: best {self._named(self.best_index_)}, {self.best_score_!r}"
        return text

    def fit(
        self,
        X: Any,
        y: Any,
        *,
        target: Any = None,
        log_ratio: Any = None,
        groups: Any = None,
    ) -> Self:
        """Search the grid and fit the best model to all rows.

        Parameters
        ----------
        X, y
            Rows of q and their labels, in any form that the estimator takes.
        target
            Rows of p, in the same form; no labels are needed.
        log_ratio
            Instead of ``target``: log dP/dQ of the rows of X, shape (n,), each from a ratio that
            has not seen it.
        groups
            Labels of rows that belong together: for the folds, where the splitter takes them, and
            for the standard errors.

        Returns
        -------
        Self
            The search.

        Raises
        ------
        OptionError
            Neither or both of ``target`` and ``log_ratio``, or an unknown scoring.
        DataError
            Lengths that differ, or rows that the ratio refuses.
        """
        from sklearn.model_selection import ParameterGrid

        vars(self).pop("best_estimator_", None)
        if (target is None) == (log_ratio is None):
            raise OptionError("fit takes either target or log_ratio; give exactly one")
        seeds = as_generator(self.random_state)
        labels = np.asarray(y)
        scoring = scoring_of(self.estimator, self.scoring)
        splits = self._splits(X, labels, groups, child_seed(seeds))
        self.ratio_ = None
        if target is not None:
            self.ratio_ = self._fitted_ratio(X, target, child_seed(seeds))
            log_ratio = self.ratio_.log_ratio_q_
        weights = flattened_weights(log_ratio, len(labels), self.flatten)
        self.log_ratio_ = np.asarray(log_ratio, dtype=np.float64)

        powers = np.atleast_1d(np.asarray(self.fit_power, dtype=np.float64)).tolist()
        cells = [(params, power) for params in ParameterGrid(self.param_grid) for power in powers]
        held = [self._held_out_scores(X, labels, *cell, splits, scoring) for cell in cells]
        tested = np.zeros(len(labels), dtype=bool)
        for _, test in splits:
            tested[test] = True
        self.weights_ = weights if tested.all() else Weights(weights.log, mask=tested)
        means = [weighted_score(self.weights_, scores, groups, 0.95, scoring) for scores, _ in held]
        estimates = np.array([mean.estimate for mean in means])
        plain = np.array([mean.unweighted for mean in means])
        self._cells = cells
        self.best_index_ = int(np.argmax(estimates))
        self.best_params_, self.best_fit_power_ = cells[self.best_index_]
        self.best_score_ = means[self.best_index_]
        self.cv_results_: dict[str, Any] = {
            "params": [params for params, _ in cells],
            **{
                f"param_{key}": [params.get(key) for params, _ in cells]
                for key in sorted({key for params, _ in cells for key in params})
            },
            "fit_power": np.array([power for _, power in cells]),
            "mean_test_score": estimates,
            "std_error_test_score": np.array(
                [np.nan if m.standard_error is None else m.standard_error for m in means]
            ),
            "rank_test_score": _ranks(estimates),
            "mean_unweighted_score": plain,
            "rank_unweighted_score": _ranks(plain),
            "mean_fit_time": np.array([seconds for _, seconds in held]),
        }
        other = int(np.argmax(plain))
        self.status_ = self._verdict(other, held[self.best_index_][0] - held[other][0], groups)
        model = self._new_model(self.best_params_)
        self.best_estimator_ = self._fit_one(
            model, X, labels, self.log_ratio_, self.best_fit_power_
        )
        return self

    def predict(self, X: Any) -> Any:
        """Predictions of the best estimator."""
        return self._best("predict").predict(X)

    def predict_proba(self, X: Any) -> Any:
        """Class probabilities of the best estimator."""
        return self._best("predict_proba").predict_proba(X)

    def decision_function(self, X: Any) -> Any:
        """Decision values of the best estimator."""
        return self._best("decision_function").decision_function(X)

    @property
    def classes_(self) -> Any:
        """Classes of the best estimator."""
        return self._best("classes_").classes_

    def _best(self, what: str) -> Any:
        if "best_estimator_" not in vars(self):
            raise NotFittedError(
                f"ImportanceWeightedCV is not fitted; call fit(X, y, target=...) before {what}"
            )
        return self.best_estimator_

    def _fitted_ratio(self, X: Any, target: Any, seed: int) -> CrossFittedRatio:
        from dpdq.ratio.logistic import LogisticRatio
        from dpdq.ratio.selection import select_ratio

        ratio = LogisticRatio() if self.ratio is None else self.ratio
        if isinstance(ratio, RatioEstimator):
            ratio = {type(ratio).__name__: ratio}
        if not isinstance(ratio, Mapping):
            raise InputTypeError(
                f"ratio has type {type(ratio).__name__}; give an unfitted ratio estimator, or "
                "name -> estimator"
            )
        return select_ratio(X, target, ratio, random_state=seed)

    def _splits(self, X: Any, y: Array, groups: Any, seed: int) -> list[tuple[Array, Array]]:
        from sklearn.base import is_classifier
        from sklearn.model_selection import KFold, StratifiedKFold, check_cv

        splitter: Any = self.cv
        if isinstance(splitter, (int, np.integer)):
            kind = StratifiedKFold if is_classifier(self.estimator) else KFold
            splitter = kind(int(splitter), shuffle=True, random_state=seed)
        splitter = check_cv(splitter, y, classifier=is_classifier(self.estimator))
        found: Iterator[tuple[Array, Array]] = splitter.split(X, y, groups)
        return list(found)

    def _new_model(self, params: dict[str, Any]) -> Any:
        from sklearn.base import clone

        model: Any = clone(self.estimator)
        values: Any = clone(params, safe=False)  # a parameter may be an estimator
        return model.set_params(**values)

    def _fit_one(self, model: Any, X: Any, y: Array, log_ratio: Array, power: float) -> Any:
        from dpdq.ratio.classifier import weight_keyword

        if power == 0:
            return model.fit(X, y)
        weights = Weights(log_ratio).temper(power).values
        return model.fit(X, y, **weight_keyword(model, weights))

    def _held_out_scores(
        self,
        X: Any,
        y: Array,
        params: dict[str, Any],
        power: float,
        splits: list[tuple[Array, Array]],
        scoring: Any,
    ) -> tuple[Array, float]:
        """Each row's mean score over the folds that test it, and seconds of a fit."""
        from sklearn.utils import _safe_indexing

        total, count, seconds = np.zeros(len(y)), np.zeros(len(y)), 0.0
        for train, test in splits:
            model = self._new_model(params)
            start = time.perf_counter()
            self._fit_one(model, _safe_indexing(X, train), y[train], self.log_ratio_[train], power)
            seconds += time.perf_counter() - start
            total[test] += row_scores(model, _safe_indexing(X, test), y[test], scoring)
            count[test] += 1
        return total / np.maximum(count, 1), seconds / len(splits)

    def _named(self, index: int) -> str:
        params, power = self._cells[index]
        parts = [f"{key}={value!r}" for key, value in params.items()]
        if any(other != power for _, other in self._cells):
            parts.append(f"fit_power={power:g}")
        return ", ".join(parts) or "the estimator as given"

    def _verdict(self, other: int, difference: Array, groups: Any) -> str:
        best = self._named(self.best_index_)
        if other == self.best_index_:
            said = f"{best} is best on p, and on q too."
        else:
            gap = self.weights_.mean(difference, groups=groups)
            error = (
                "" if gap.standard_error is None else f" (standard error {gap.standard_error:.2g})"
            )
            said = (
                f"{best} is best on p; plain cross-validation would choose {self._named(other)}, "
                f"which scores {gap.estimate:.3g}{error} less there."
            )
        return f"{said} {self.weights_.status}"


def _ranks(scores: Array) -> Array:
    """1 for the largest; equal scores share the smaller rank."""
    return 1 + (scores[None, :] > scores[:, None]).sum(axis=1)
