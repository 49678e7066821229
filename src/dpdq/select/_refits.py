"""The game of refitting: v(S) is the test score of a model fitted to the rows S alone.

v is a function of the set S and nothing else: rows go to the model in their own order, and a model
that draws at random draws with one seed in every fit. Where a model cannot be fitted v is the score
of a constant: of the training labels' shares (or mean) for S empty or smaller than ``min_rows``,
and of the one label that S has where a classifier would need two.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dpdq.errors import InputTypeError, OptionError
from dpdq.select._base import Price, take_rows

__all__ = ["Game", "check_n_jobs", "each_of", "fit_price", "fit_rows", "row_scores", "seeded"]


def _check_estimator(estimator: Any) -> None:
    from sklearn.base import BaseEstimator

    if not isinstance(estimator, BaseEstimator):
        raise InputTypeError(
            f"estimator is a {type(estimator).__name__}; give a scikit-learn classifier or "
            "regressor that is not fitted"
        )


def seeded(estimator: Any, seed: int) -> Any:
    """An unfitted copy whose unset ``random_state`` (nested ones too) is the seed.

    Raises
    ------
    InputTypeError
        It is no scikit-learn estimator.
    """
    from sklearn.base import clone

    _check_estimator(estimator)
    model: Any = clone(estimator)
    unset = [
        name
        for name, value in model.get_params(deep=True).items()
        if (name == "random_state" or name.endswith("__random_state")) and value is None
    ]
    return model.set_params(**dict.fromkeys(unset, seed)) if unset else model


def is_regressor(estimator: Any) -> bool:
    """Whether it predicts numbers.

    Raises
    ------
    InputTypeError
        It is neither a classifier nor a regressor.
    """
    from sklearn.base import is_classifier
    from sklearn.base import is_regressor as regressor

    _check_estimator(estimator)
    if is_classifier(estimator) == regressor(estimator):
        raise InputTypeError(
            f"estimator is a {type(estimator).__name__}, which is neither a classifier nor a "
            "regressor; values need predictions to score"
        )
    return bool(regressor(estimator))


def fit_rows(model: Any, X: Any, y: np.ndarray, rows: np.ndarray, regression: bool) -> Any:
    """A copy of the model fitted to some rows; a constant where a classifier sees one label."""
    from sklearn.base import clone
    from sklearn.dummy import DummyClassifier

    labels = y[rows]
    if not regression and (labels == labels[0]).all():
        return DummyClassifier(strategy="constant", constant=labels[0]).fit(y[:, None], y)
    blank: Any = clone(model)
    return blank.fit(take_rows(X, rows), labels)


def row_scores(model: Any, X: Any, y: np.ndarray, regression: bool) -> np.ndarray:
    """Score of each row: 1 where the label is right, or minus the squared error."""
    found = model.predict(X)
    return -((y - found) ** 2) if regression else (found == y).astype(np.float64)


class Game:
    """v(S) for sets of training rows S.

    Attributes
    ----------
    none, all
        v of no row and of all rows.
    """

    def __init__(
        self,
        estimator: Any,
        metric: Any,
        X: Any,
        y: np.ndarray,
        X_test: Any,
        y_test: np.ndarray,
        *,
        seed: int,
        min_rows: int = 1,
    ) -> None:
        from sklearn.dummy import DummyClassifier, DummyRegressor
        from sklearn.metrics import check_scoring

        if min_rows < 1:
            raise OptionError(f"min_rows is {min_rows}; expected at least 1")
        self.model = seeded(estimator, seed)
        self.regression = is_regressor(estimator)
        if metric is None:
            metric = "neg_mean_squared_error" if self.regression else "accuracy"
        self.scorer: Any = check_scoring(self.model, scoring=metric)
        self.X, self.y, self.X_test, self.y_test = X, y, X_test, y_test
        self.min_rows = min_rows
        blank = DummyRegressor() if self.regression else DummyClassifier(strategy="prior")
        self.none = self._score(blank.fit(y[:, None], y))
        self._whole: float | None = None

    def _score(self, model: Any) -> float:
        return float(self.scorer(model, self.X_test, self.y_test))

    def worth(self, rows: np.ndarray) -> float:
        """Test score of the rows with these numbers, ascending."""
        if len(rows) < self.min_rows:
            return self.none
        return self._score(fit_rows(self.model, self.X, self.y, rows, self.regression))

    @property
    def all(self) -> float:
        """Test score of all rows, fitted once."""
        if self._whole is None:
            self._whole = self.worth(np.arange(len(self.y)))
        return self._whole


def check_n_jobs(n_jobs: int) -> None:
    """Refuse a number of processes below one.

    Raises
    ------
    OptionError
        It is.
    """
    if n_jobs < 1:
        raise OptionError(f"n_jobs is {n_jobs}; expected at least 1")


def each_of(call: Callable[..., Any], items: Sequence[Any], n_jobs: int) -> list[Any]:
    """Apply a function to every item, in processes where there is more than one job."""
    if n_jobs == 1 or len(items) <= 1:
        return [call(item) for item in items]
    from joblib import Parallel, delayed

    return list(Parallel(n_jobs=n_jobs)(delayed(call)(item) for item in items))


def fit_price(
    pilots: Sequence[Callable[[], Any]], *, fits: int, comparisons: int, n_jobs: int, note: str = ""
) -> Price:
    """Price of many fits, by the mean time of a few that stand for them."""
    pilots[0]()  # imports and first-call costs are not the job's
    start = time.perf_counter()
    for pilot in pilots:
        pilot()
    seconds = (time.perf_counter() - start) / len(pilots) * fits / n_jobs
    text = f"{note}{fits:,} fits, about {seconds:.2g} s by a pilot of {len(pilots)} fits"
    if n_jobs > 1:
        text += f", on {n_jobs} processes"
    return Price(fits, comparisons, seconds, len(pilots), text)
