"""What a training row is worth: values, and the role that makes them.

A game v(S) says how well a model that has learned from the rows S does on test rows. Values share
out what all rows achieve together:

    Shapley        phi_i = E[v(S_i + i) - v(S_i)],   S_i the rows before i in a random order
    leave one out  v(all) - v(all - i)
    out of bag     how well models that have not seen row i predict it

Only the Shapley value satisfies all of efficiency (values sum to v(all) - v(none)), symmetry
(rows that always bring the same have the same value), null player (a row that never brings
anything has 0) and additivity (the value of v + v' is the sum of the values). What it does not fix
is the game: another model, metric or test set gives other values, and where the test rows are few
or unlike p, so are the values. A row of low value is not therefore wrong: look at it first.

Which one: `KNNShapley` is exact and takes seconds for a million rows, in a space whose distances
mean something; `DataOOB` needs no test set and some hundred fits; `DataShapley` any model and
metric, and thousands of fits, so value groups (sources) by it; `LeaveOneOut` is cheap for linear
models and nearly blind to rows that have a double.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from scipy.special import ndtri

from dpdq._parameters import Parameterised
from dpdq._random import RandomState
from dpdq.errors import DataError, NotFittedError, OptionError
from dpdq.results import Result

if TYPE_CHECKING:
    from dpdq.select.removal import RemovalControl

__all__ = ["Valuer", "Values", "check_labels", "check_level"]


@dataclasses.dataclass(frozen=True, repr=False)
class Values(Result):
    """The value of each training row, or of each group of rows; larger is better.

    ``values`` is a utility as it stands: ``top_k(found.values, fraction=0.9)``.

    Attributes
    ----------
    values
        Value of each row or group, shape (n,).
    method
        Who made them.
    standard_error, low, high
        Of each value and its interval at ``level``, shape (n,); ``None`` where the values are
        exact for the given test rows and nothing was asked of other test rows.
    level
        Nominal coverage of each interval; none is adjusted for the others.
    interval
        What the intervals are about: ``"test rows"`` (another test sample), ``"permutations"`` or
        ``"bootstrap samples"`` (more of the same computation), or nothing.
    n_test
        Test rows; 0 where none are needed.
    test_weight
        Their total weight, by which `merge` takes means.
    all_rows, no_rows
        v(all) and v(none), where the method plays that game.
    names
        Names of the groups; empty for rows.
    fits
        Models that were fitted.
    seconds
        Wall-clock seconds.
    status
        What was found and what to do next.
    """

    values: np.ndarray
    method: str
    standard_error: np.ndarray | None = None
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    level: float = 0.95
    interval: str = ""
    n_test: int = 0
    test_weight: float = 0.0
    all_rows: float | None = None
    no_rows: float | None = None
    names: tuple[str, ...] = ()
    fits: int = 0
    seconds: float = 0.0
    status: str = ""

    def __len__(self) -> int:
        return len(self.values)

    @classmethod
    def merge(cls, parts: Sequence[Values]) -> Values:
        """Join the values of the same training rows on several shards of the test rows.

            phi = sum_k W_k phi_k / sum_k W_k,   W_k the weight of the test rows of shard k

        Right for scores that are means over test rows (accuracy, squared error), not for R² or an
        area under a curve. Standard errors over test rows are joined exactly where those have
        equal weights; standard errors of permutations are averaged, which is an upper bound
        because the shards may share their permutations.

        Parameters
        ----------
        parts
            At least one; of the same method, rows and level, and with a test set.

        Returns
        -------
        Values
            What the whole test set gives.

        Raises
        ------
        DataError
            The parts differ in method, rows or level, or have no test set.

        Notes
        -----
        Cost: O(n k) time, O(n) memory.
        Held by: tests/select/test_knn_shapley.py::test_merged_shards_equal_the_whole
        """
        if not parts:
            raise DataError("merge got no parts; give at least one")
        first = parts[0]
        kinds = {(each.method, len(each), each.level, each.interval, each.names) for each in parts}
        if len(kinds) > 1:
            raise DataError(
                "merge got values of different methods, training rows, groups, levels or "
                "intervals; merge shards of the test rows of one valuation"
            )
        if not all(each.test_weight > 0 for each in parts):
            raise DataError(f"values of {first.method} have no test rows to merge over")
        total = sum(each.test_weight for each in parts)
        shares = [each.test_weight / total for each in parts]

        def mean(of: Sequence[Any]) -> Any:
            if any(each is None for each in of):
                return None
            return sum(share * each for share, each in zip(shares, of, strict=True))

        values = mean([each.values for each in parts])
        error = mean([each.standard_error for each in parts])
        n_test = sum(each.n_test for each in parts)
        if error is not None and first.interval == "test rows":
            squares = np.zeros(len(values))
            for each in parts:
                assert each.standard_error is not None  # noqa: S101 - the mean above exists
                squares += each.standard_error**2 * each.n_test * max(each.n_test - 1, 0)
                squares += each.n_test * (each.values - values) ** 2
            error = np.sqrt(squares / (n_test * max(n_test - 1, 1)))
        low, high = normal_interval(values, error, first.level)
        return dataclasses.replace(
            first,
            values=values,
            standard_error=error,
            low=low,
            high=high,
            n_test=n_test,
            test_weight=total,
            all_rows=mean([each.all_rows for each in parts]),
            no_rows=mean([each.no_rows for each in parts]),
            fits=sum(each.fits for each in parts),
            seconds=sum(each.seconds for each in parts),
            status=f"{len(parts)} shards of test rows joined: {value_text(values, n_test)}",
        )

    def against_random(
        self,
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
        """What removing the lowest rows does to a model, beside removing as many at random.

        See `dpdq.select.removal_control`, which this calls with these values.

        Parameters
        ----------
        estimator
            A scikit-learn classifier (scored by accuracy) or regressor (by minus squared error).
        X, y
            The rows that were valued.
        X_test, y_test
            Rows that the values have not seen, if the answer is to be honest.
        n, fraction
            How many rows to remove: one of the two.
        n_draws
            Random removals.
        level
            Coverage of the intervals.
        n_jobs
            Processes.
        random_state
            Seed.

        Returns
        -------
        RemovalControl
            Both scores and their difference with its interval.

        Raises
        ------
        DataError
            These are values of groups, or of other rows.
        """
        from dpdq.select.removal import removal_control

        if self.names:
            raise DataError("these are values of groups; a removal control needs values of rows")
        return removal_control(
            self.values, estimator, X, y, X_test, y_test, n=n, fraction=fraction,
            n_draws=n_draws, level=level, n_jobs=n_jobs, random_state=random_state,
        )  # fmt: skip


def value_text(values: np.ndarray, n_test: int, what: str = "rows") -> str:
    """A sentence about values for ``status``."""
    below = int((values < 0).sum())
    text = f"{len(values):,} {what} valued"
    if n_test:
        text += f" on {n_test:,} test rows"
    if below:
        text += f"; {below:,} are below zero, look at the lowest first"
    return text


def normal_interval(
    values: np.ndarray, error: np.ndarray | None, level: float
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Ends of normal intervals; none where there is no standard error."""
    if error is None:
        return None, None
    half = ndtri(0.5 + level / 2) * error
    return values - half, values + half


def check_level(level: float) -> None:
    """Refuse a coverage outside (0, 1).

    Raises
    ------
    OptionError
        It is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise OptionError(f"level is {level}; expected a number between 0 and 1")


def check_labels(y: Any, n: int, name: str, rows: str, *, numbers: bool = False) -> np.ndarray:
    """Labels or targets as a vector of the right length.

    Raises
    ------
    DataError
        Wrong shape or length, or missing values.
    """
    labels = np.asarray(y)
    if labels.shape != (n,):
        raise DataError(f"{name} has shape {labels.shape}; expected ({n},), one a row of {rows}")
    if numbers:
        try:
            labels = labels.astype(np.float64)
        except (TypeError, ValueError):
            raise DataError(f"{name} must hold numbers for a regression") from None
    missing = np.array([each != each for each in labels]) if labels.dtype.kind == "O" else (
        ~np.isfinite(labels) if labels.dtype.kind == "f" else np.zeros(n, dtype=bool)
    )  # fmt: skip
    if missing.any():
        raise DataError(
            f"{name} is missing or infinite in {int(missing.sum())} rows (first at row "
            f"{int(missing.argmax())}); drop them"
        )
    return labels


class Valuer(Parameterised, abc.ABC):
    """Base of everything that values training rows: ``fit(X, y)``, then ``values(...)``.

    Attributes
    ----------
    n_rows_
        Training rows.
    """

    n_rows_: int
    X_: Any
    y_: np.ndarray

    def fit(self, X: Any, y: Any) -> Self:
        """Take the training rows.

        Parameters
        ----------
        X
            Rows of q, in any form that the model takes and that can be indexed by row numbers.
        y
            Labels or targets, shape (n,).

        Returns
        -------
        self
            The valuer; nothing has been valued yet.

        Raises
        ------
        DataError
            Lengths differ, or labels are missing.
        """
        n = X.shape[0] if hasattr(X, "shape") else len(X)
        if n < 1:
            raise DataError("X has no rows; give at least one")
        labels = check_labels(y, n, "y", "X", numbers=self._numbers())
        self.n_rows_ = n
        self._fit(X, labels)
        self.y_ = labels
        return self

    @abc.abstractmethod
    def _numbers(self) -> bool:
        """Whether the targets are numbers (a regression); checks the options on the way."""

    def _fit(self, X: Any, y: np.ndarray) -> None:
        """Keep what valuing needs of the rows."""
        self.X_ = X

    def _check_fitted(self) -> None:
        if not hasattr(self, "n_rows_"):
            raise NotFittedError(f"{type(self).__name__} is not fitted; call fit(X, y) first")

    def _fitted_text(self) -> str:
        return f", fitted: {self.n_rows_:,} training rows" if hasattr(self, "n_rows_") else ""
