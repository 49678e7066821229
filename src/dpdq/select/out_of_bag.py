"""Out-of-bag values: how well models that have not seen a row predict it.

For B bootstrap samples of the training rows, f_b the model fitted to the b-th,

    value_i = mean over the b whose sample leaves row i out of T(y_i, f_b(x_i))

with T whether the label is right, or minus the squared error. About 0.37 B models speak of each
row. No test set is needed, so that the values are about q itself: a row is worth little where the
other rows of q contradict it, which finds wrong labels and also the rare and hard rows that p may
need most.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import numpy as np
from scipy.special import ndtri, stdtrit

from dpdq._random import RandomState, as_generator, child_seed
from dpdq.errors import DataError, OptionError
from dpdq.select._base import Price, take_rows
from dpdq.select._refits import (
    check_n_jobs,
    each_of,
    fit_price,
    fit_rows,
    is_regressor,
    row_scores,
    seeded,
)
from dpdq.select.values import Valuer, Values, check_level, value_text

__all__ = ["DataOOB"]

_PIECE = 64  # models whose scores wait to be added


def _bootstrap(n: int, seed: int) -> np.ndarray:
    """Row numbers of a bootstrap sample, ascending."""
    return np.sort(np.random.default_rng(seed).integers(0, n, n))


class DataOOB(Valuer):
    """Value of each training row by the models of a bagged ensemble that have not seen it.

        value_i = sum_b [i not in sample b] T(y_i, f_b(x_i)) / sum_b [i not in sample b]

    Intervals (Wilson's for labels, Student's for numbers) say how far more models might move the
    value; they do not say what another q would give. A low value means that the rest of q
    disagrees with the row: wrong, or rare.

    Parameters
    ----------
    estimator
        A scikit-learn classifier or regressor; None grows a decision tree (a regression tree
        where y holds floats).
    n_estimators
        B.
    level
        Coverage of the intervals.
    n_jobs
        Processes; changes nothing but the time.
    random_state
        Seed of the samples and of models without one.

    Attributes
    ----------
    n_rows_
        Training rows.

    Notes
    -----
    Cost: B fits and predictions, O(n) memory.
    Held by: tests/select/test_out_of_bag.py::test_values_equal_their_definition

    References
    ----------
    .. [Kwon2023] Data-OOB: Out-of-bag Estimate as a Simple and Efficient Data Value. Kwon, 2023,
       ICML.

    Examples
    --------
    >>> import numpy as np
    >>> from dpdq.select import DataOOB
    >>> X = np.random.default_rng(0).normal(size=(200, 2))
    >>> y = (X[:, 0] > 0).astype(int)
    >>> y[7] = 1 - y[7]  # a wrong label
    >>> found = DataOOB(n_estimators=50, random_state=0).fit(X, y).values()
    >>> bool(found.values[7] < 0.5 < np.median(found.values))
    True
    """

    def __init__(
        self,
        estimator: Any = None,
        *,
        n_estimators: int = 300,
        level: float = 0.95,
        n_jobs: int = 1,
        random_state: RandomState = None,
    ) -> None:
        self.estimator = estimator
        self.n_estimators = n_estimators
        self.level = level
        self.n_jobs = n_jobs
        self.random_state = random_state

    def _numbers(self) -> bool:
        check_level(self.level)
        check_n_jobs(self.n_jobs)
        if self.n_estimators < 2:
            raise OptionError(f"n_estimators is {self.n_estimators}; expected at least 2")
        return False if self.estimator is None else is_regressor(self.estimator)

    def _model(self, seed: int) -> tuple[Any, bool]:
        from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

        if self.estimator is not None:
            return seeded(self.estimator, seed), is_regressor(self.estimator)
        regression = self.y_.dtype.kind == "f"
        return seeded(DecisionTreeRegressor() if regression else DecisionTreeClassifier(), seed), (
            regression
        )

    def values(self) -> Values:
        """Value every training row.

        Returns
        -------
        Values
            Value of each training row with its interval.

        Raises
        ------
        DataError
            A row stands in every bootstrap sample.
        """
        self._check_fitted()
        self._numbers()
        start = time.perf_counter()
        generator = as_generator(self.random_state)
        model, regression = self._model(child_seed(generator))
        seeds = [child_seed(generator) for _ in range(self.n_estimators)]
        n = self.n_rows_
        count = np.zeros(n, dtype=np.int64)
        for seed in seeds:
            count += np.bincount(_bootstrap(n, seed), minlength=n) == 0
        if count.min() < 1 + regression:
            raise DataError(
                f"row {int(count.argmin())} is out of bag in {count.min()} of "
                f"{self.n_estimators} samples; raise n_estimators to 40 or more"
            )
        total, squares = np.zeros(n), np.zeros(n)
        work = partial(_out_of_bag_scores, model, self.X_, self.y_, regression)
        for first in range(0, len(seeds), _PIECE):
            for rows, scores in each_of(work, seeds[first : first + _PIECE], self.n_jobs):
                total[rows] += scores
                squares[rows] += scores**2
        values = total / count
        if regression:
            error = np.sqrt(np.maximum(squares / count - values**2, 0.0) / (count - 1))
            half = stdtrit(count - 1, 0.5 + self.level / 2) * error
            low, high = values - half, values + half
        else:
            error = np.sqrt(values * (1 - values) / count)
            low, high = _wilson(values, count, self.level)
        text = value_text(values, 0)
        if not regression:
            text += f"; most models contradict {int((values < 0.5).sum()):,} of them, look at those"
        return Values(
            values=values,
            method=f"out of bag, {self.n_estimators} models",
            standard_error=error,
            low=low,
            high=high,
            level=self.level,
            interval="bootstrap samples",
            fits=self.n_estimators,
            seconds=time.perf_counter() - start,
            status=text,
        )

    def price(self) -> Price:
        """What valuing will cost, by a pilot of two fits.

        Returns
        -------
        Price
            One fit a bootstrap sample, and seconds.
        """
        self._check_fitted()
        model, regression = self._model(0)
        work = partial(_out_of_bag_scores, model, self.X_, self.y_, regression)
        predictions = round(self.n_estimators * self.n_rows_ * np.exp(-1.0))
        return fit_price(
            [partial(work, 0), partial(work, 1)],
            fits=self.n_estimators,
            comparisons=predictions,
            n_jobs=self.n_jobs,
        )


def _out_of_bag_scores(
    model: Any, X: Any, y: np.ndarray, regression: bool, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rows that a bootstrap sample leaves out, and their scores by the model fitted to it."""
    sample = _bootstrap(len(y), seed)
    rows = np.setdiff1d(np.arange(len(y)), sample)
    if len(rows) == 0:
        return rows, np.zeros(0)
    fitted = fit_rows(model, X, y, sample, regression)
    return rows, row_scores(fitted, take_rows(X, rows), y[rows], regression)


def _wilson(share: np.ndarray, n: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Wilson's interval of a share."""
    z2 = float(ndtri(0.5 + level / 2)) ** 2
    centre = (share * n + z2 / 2) / (n + z2)
    half = np.sqrt(z2) / (n + z2) * np.sqrt(n * share * (1 - share) + z2 / 4)
    return np.minimum(centre - half, share), np.maximum(centre + half, share)  # rounding aside
