"""Does removing the rows of lowest value help? Beside removing as many at random.

Values that are any good tell rows whose removal does no harm, or does good, from rows whose removal
hurts. The control is a random removal of as many rows, and the honest test rows are ones that the
values have not seen.

    gain = score without the k lowest - mean over draws of the score without k random rows

with a standard error from the test rows (the same for both sides, so paired) and from the draws.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from scipy.special import ndtri, stdtrit

from dpdq._random import RandomState, as_generator, child_seed, row_keys
from dpdq.errors import DataError, OptionError
from dpdq.results import Estimate, Result
from dpdq.select._base import check_utility
from dpdq.select._refits import check_n_jobs, each_of, fit_rows, is_regressor, row_scores, seeded
from dpdq.select.mechanisms import top_k
from dpdq.select.values import check_labels, check_level

__all__ = ["RemovalControl", "RemovalCurve", "removal_control", "removal_curve"]


@dataclasses.dataclass(frozen=True, repr=False)
class RemovalControl(Result):
    """What removing the lowest rows did, beside removing as many at random.

    Attributes
    ----------
    removed
        Rows removed on either side.
    all_rows
        Score with nothing removed.
    without_lowest
        Score without the rows of lowest value.
    without_random
        Mean score without as many random rows, and its interval over draws.
    gain
        ``without_lowest`` less ``without_random``, with its interval over test rows and draws.
    score
        ``"accuracy"`` or ``"minus squared error"``.
    n_test
        Test rows.
    fits, seconds
        What it cost.
    status
        The answer in a sentence.
    """

    removed: int
    all_rows: float
    without_lowest: float
    without_random: Estimate
    gain: Estimate
    score: str
    n_test: int
    fits: int
    seconds: float
    status: str = ""


@dataclasses.dataclass(frozen=True, repr=False)
class RemovalCurve(Result):
    """Scores while more and more rows are removed: the lowest, the highest, or at random.

    Attributes
    ----------
    fractions
        Shares removed.
    lowest, highest
        Score without the lowest and without the highest rows, one a fraction.
    random, random_low, random_high
        Mean score of random removals and its interval over draws.
    all_rows
        Score with nothing removed.
    score
        ``"accuracy"`` or ``"minus squared error"``.
    fits, seconds
        What it cost.
    status
        Where lowest and highest stand against random.
    """

    fractions: np.ndarray
    lowest: np.ndarray
    highest: np.ndarray
    random: np.ndarray
    random_low: np.ndarray
    random_high: np.ndarray
    all_rows: float
    score: str
    fits: int
    seconds: float
    status: str = ""


class _Refit:
    """Scores of the test rows for a model without some of the training rows."""

    def __init__(
        self, values: Any, estimator: Any, X: Any, y: Any, X_test: Any, y_test: Any, seed: int
    ) -> None:
        self.values = check_utility(values, "values")
        self.regression = is_regressor(estimator)
        n = len(self.values)
        self.y = check_labels(y, n, "y", "the rows valued", numbers=self.regression)
        m = X_test.shape[0] if hasattr(X_test, "shape") else len(X_test)
        self.y_test = check_labels(y_test, m, "y_test", "X_test", numbers=self.regression)
        if m < 2:
            raise DataError(f"X_test has {m} rows; an interval needs at least 2")
        self.X, self.X_test, self.model = X, X_test, seeded(estimator, seed)
        self.score = "minus squared error" if self.regression else "accuracy"

    def without(self, removed: np.ndarray) -> np.ndarray:
        """Score of each test row for a model that has not seen the rows removed."""
        kept = np.setdiff1d(np.arange(len(self.values)), removed)
        model = fit_rows(self.model, self.X, self.y, kept, self.regression)
        return row_scores(model, self.X_test, self.y_test, self.regression)

    def lowest(self, k: int) -> np.ndarray:
        return top_k(-self.values, n=k).rows

    def highest(self, k: int) -> np.ndarray:
        return top_k(self.values, n=k).rows

    def random(self, k: int, seed: int) -> np.ndarray:
        return np.argsort(row_keys(0, len(self.values), seed))[:k]


def _mean_of_draws(scores: np.ndarray, level: float) -> tuple[float, float]:
    """Mean over draws and half the width of its t interval."""
    n = len(scores)
    half = float(stdtrit(n - 1, 0.5 + level / 2) * scores.std(ddof=1) / np.sqrt(n))
    return float(scores.mean()), half


def _check_draws(n_draws: int) -> None:
    if n_draws < 2:
        raise OptionError(f"n_draws is {n_draws}; an interval needs at least 2")


def removal_control(
    values: Any,
    estimator: Any,
    X: Any,
    y: Any,
    X_test: Any,
    y_test: Any,
    *,
    n: int | None = None,
    fraction: float | None = None,
    n_draws: int = 20,
    level: float = 0.95,
    n_jobs: int = 1,
    random_state: RandomState = None,
) -> RemovalControl:
    """What removing the rows of lowest value does, beside removing as many at random.

        gain = score(all less the k lowest) - mean over draws of score(all less k random)

    On the test rows that made the values the gain flatters them; keep some rows back.

    Parameters
    ----------
    values
        Value of each training row, larger is better, shape (n,).
    estimator
        A scikit-learn classifier (scored by accuracy) or regressor (by minus squared error).
    X, y
        The training rows.
    X_test, y_test
        Rows that the values have not seen.
    n, fraction
        How many rows to remove: one of the two.
    n_draws
        Random removals, at least 2.
    level
        Coverage of the intervals.
    n_jobs
        Processes; changes nothing but the time.
    random_state
        Seed of the draws and of a model without one.

    Returns
    -------
    RemovalControl
        Both scores and the gain with its interval.

    Raises
    ------
    OptionError
        Not exactly one of ``n`` and ``fraction``, or all rows would go.
    DataError
        Lengths differ.

    Notes
    -----
    Cost: n_draws + 2 fits.
    Held by: tests/select/test_values.py::test_removing_planted_noise_beats_random

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.neighbors import KNeighborsClassifier
    >>> from dpdq.select import KNNShapley, removal_control
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(900, 2))
    >>> y = (X[:, 0] > 0).astype(int)
    >>> y[:60] = 1 - y[:60]  # wrong labels
    >>> found = KNNShapley().fit(X[:300], y[:300]).values(X[300:600], y[300:600])
    >>> control = removal_control(
    ...     found.values, KNeighborsClassifier(1), X[:300], y[:300], X[600:], y[600:], n=60,
    ...     random_state=0)
    >>> bool(control.gain.low > 0.05)
    True
    """
    check_level(level)
    check_n_jobs(n_jobs)
    _check_draws(n_draws)
    start = time.perf_counter()
    generator = as_generator(random_state)
    refit = _Refit(values, estimator, X, y, X_test, y_test, child_seed(generator))
    if (n is None) == (fraction is None):
        raise OptionError("give one of n and fraction: how many rows to remove")
    k = round((fraction or 0.0) * len(refit.values)) if n is None else int(n)
    if not 1 <= k < len(refit.values):
        raise OptionError(
            f"{k} of {len(refit.values)} rows would be removed; expected at least 1 and not all"
        )
    draws = [refit.random(k, child_seed(generator)) for _ in range(n_draws)]
    jobs = [np.zeros(0, dtype=np.int64), refit.lowest(k), *draws]
    whole, lowest, *found = each_of(refit.without, jobs, n_jobs)
    random = np.stack(found)
    mean, half = _mean_of_draws(random.mean(axis=1), level)
    difference = lowest - random.mean(axis=0)
    gain, m = float(difference.mean()), len(difference)
    error = float(np.sqrt(difference.var(ddof=1) / m + random.mean(axis=1).var(ddof=1) / n_draws))
    reach = float(ndtri(0.5 + level / 2)) * error
    better = "helps" if gain - reach > 0 else "harms" if gain + reach < 0 else "makes no clear odds"
    return RemovalControl(
        removed=k,
        all_rows=float(whole.mean()),
        without_lowest=float(lowest.mean()),
        without_random=Estimate(
            mean, mean - half, mean + half, level=level, method="t interval over draws"
        ),
        gain=Estimate(
            gain, gain - reach, gain + reach, error, level, "normal, test rows and draws"
        ),
        score=refit.score,
        n_test=m,
        fits=len(jobs),
        seconds=time.perf_counter() - start,
        status=(
            f"removing the {k:,} lowest rows instead of {k:,} random ones {better}: "
            f"{refit.score} {lowest.mean():.4g} against {mean:.4g}, {whole.mean():.4g} with all"
        ),
    )


def removal_curve(
    values: Any,
    estimator: Any,
    X: Any,
    y: Any,
    X_test: Any,
    y_test: Any,
    *,
    fractions: Sequence[float] = (0.05, 0.1, 0.2, 0.3, 0.5),
    n_draws: int = 5,
    level: float = 0.95,
    n_jobs: int = 1,
    random_state: RandomState = None,
) -> RemovalCurve:
    """Scores while the lowest, the highest or random rows are removed.

    For good values the curve without the lowest stays above random and the curve without the
    highest falls below it.

    Parameters
    ----------
    values
        Value of each training row, larger is better, shape (n,).
    estimator
        A scikit-learn classifier (scored by accuracy) or regressor (by minus squared error).
    X, y
        The training rows.
    X_test, y_test
        Rows that the values have not seen.
    fractions
        Shares to remove, between 0 and 1.
    n_draws
        Random removals a fraction, at least 2.
    level
        Coverage of the intervals over draws.
    n_jobs
        Processes; changes nothing but the time.
    random_state
        Seed of the draws and of a model without one.

    Returns
    -------
    RemovalCurve
        The three curves.

    Raises
    ------
    OptionError
        A fraction is not between 0 and 1.
    DataError
        Lengths differ.

    Notes
    -----
    Cost: (n_draws + 2) fits a fraction, and one.
    Held by: tests/select/test_values.py::test_removal_curves_part_on_real_data
    """
    check_level(level)
    check_n_jobs(n_jobs)
    _check_draws(n_draws)
    start = time.perf_counter()
    generator = as_generator(random_state)
    refit = _Refit(values, estimator, X, y, X_test, y_test, child_seed(generator))
    shares = np.asarray(fractions, dtype=np.float64)
    counts = np.round(shares * len(refit.values)).astype(int)
    if shares.ndim != 1 or len(shares) == 0 or not ((counts > 0) & (shares < 1)).all():
        raise OptionError(f"fractions are {fractions}; expected shares between 0 and 1")
    jobs = [np.zeros(0, dtype=np.int64)]
    for k in counts:
        jobs += [refit.lowest(k), refit.highest(k)]
        jobs += [refit.random(k, child_seed(generator)) for _ in range(n_draws)]
    scores = each_of(partial(_mean_without, refit), jobs, n_jobs)
    table = np.array(scores[1:]).reshape(len(counts), n_draws + 2)
    mean, half = np.array([_mean_of_draws(row[2:], level) for row in table]).T
    above = int((table[:, 0] > mean).sum())
    below = int((table[:, 1] < mean).sum())
    return RemovalCurve(
        fractions=shares,
        lowest=table[:, 0],
        highest=table[:, 1],
        random=mean,
        random_low=mean - half,
        random_high=mean + half,
        all_rows=scores[0],
        score=refit.score,
        fits=len(jobs),
        seconds=time.perf_counter() - start,
        status=(
            f"at {above} of {len(counts)} fractions removing the lowest rows is better than "
            f"removing at random, at {below} removing the highest is worse"
        ),
    )


def _mean_without(refit: _Refit, removed: np.ndarray) -> float:
    return float(refit.without(removed).mean())
