"""Leave one out: what the test score loses without each training row.

    value_i = v(all) - v(all - i)

n + 1 fits, or none for least squares with a ridge: with A = X'X + ridge (the intercept unpenalised,
as a column of ones), residual r_i and h_i = x_i' A^-1 x_i, the fit without row i predicts

    f(x) - x' A^-1 x_i r_i / (1 - h_i)

so that with e the test errors and M = X_t' X_t / m of the test rows, c_i = r_i / (1 - h_i),

    value_i = 2 c_i mean(e x')' A^-1 x_i + c_i² x_i' A^-1 M A^-1 x_i

Every row is judged in the company of all others: two equal rows are both worth next to nothing,
however much the pair is worth, and with an accuracy most rows have exactly 0. It is the baseline
that the other values are held against.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from dpdq._random import RandomState, as_generator, child_seed
from dpdq.errors import DataError, OptionError
from dpdq.kernels import check_points
from dpdq.select._base import Price
from dpdq.select._refits import Game, check_n_jobs, each_of, fit_price, is_regressor
from dpdq.select.values import Valuer, Values, check_labels, value_text

__all__ = ["LeaveOneOut"]

_SOLVERS = ("auto", "refit", "closed form")


class LeaveOneOut(Valuer):
    """Value of each training row by what the test score loses without it.

        value_i = v(all) - v(all - i)

    Blind to what several rows say alike, and mostly zero for an accuracy.

    Parameters
    ----------
    estimator
        A scikit-learn classifier or regressor.
    metric
        A scikit-learn scorer or its name; None is accuracy, or minus the mean squared error.
    solver
        ``"refit"`` fits n + 1 models; ``"closed form"`` is exact for ``LinearRegression`` and
        ``Ridge`` with minus the mean squared error; ``"auto"`` takes it where it can.
    max_fits
        Refuse what costs more fits than this; None never refuses.
    n_jobs
        Processes; changes nothing but the time.
    random_state
        Seed of a model without one, the same in every fit.

    Attributes
    ----------
    n_rows_
        Training rows.

    Notes
    -----
    Cost: n + 1 fits, or O(n d²) time without any.
    Held by: tests/select/test_leave_one_out.py::test_closed_form_equals_refits

    References
    ----------
    .. [Cook1977] Detection of Influential Observation in Linear Regression. Cook, 1977,
       Technometrics 19.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import LinearRegression
    >>> from dpdq.select import LeaveOneOut
    >>> x = np.linspace(-1, 1, 40)[:, None]
    >>> y = 2 * x[:, 0]
    >>> y[5] += 3.0
    >>> found = LeaveOneOut(LinearRegression()).fit(x, y).values(x, 2 * x[:, 0])
    >>> int(found.values.argmin()), found.fits
    (5, 0)
    """

    def __init__(
        self,
        estimator: Any,
        metric: Any = None,
        *,
        solver: str = "auto",
        max_fits: int | None = 100_000,
        n_jobs: int = 1,
        random_state: RandomState = None,
    ) -> None:
        self.estimator = estimator
        self.metric = metric
        self.solver = solver
        self.max_fits = max_fits
        self.n_jobs = n_jobs
        self.random_state = random_state

    def _numbers(self) -> bool:
        check_n_jobs(self.n_jobs)
        if self.solver not in _SOLVERS:
            raise OptionError(
                f"Unknown solver {self.solver!r}. Choose one of {', '.join(map(repr, _SOLVERS))}."
            )
        return is_regressor(self.estimator)

    def _fit(self, X: Any, y: np.ndarray) -> None:
        if len(y) < 2:
            raise DataError("X has 1 row; leaving one out needs at least 2")
        self.X_ = X

    def _ridge(self) -> float | None:
        """The penalty, where the closed form is that of this model and metric."""
        from sklearn.linear_model import LinearRegression, Ridge

        if self.metric not in (None, "neg_mean_squared_error"):
            return None
        model = self.estimator
        if type(model) not in (LinearRegression, Ridge) or model.positive:
            return None
        ridge = getattr(model, "alpha", 0.0)
        return float(ridge) if np.ndim(ridge) == 0 else None

    def values(self, X_test: Any, y_test: Any) -> Values:
        """Value every training row on test rows.

        Parameters
        ----------
        X_test, y_test
            Rows of p with their labels or targets.

        Returns
        -------
        Values
            Value of each training row.

        Raises
        ------
        OptionError
            It would cost more than ``max_fits`` fits, or ``solver="closed form"`` does not fit the
            model and metric.
        DataError
            Lengths differ, or the closed form is asked for and the fit without some row is not
            unique.
        """
        self._check_fitted()
        regression = self._numbers()
        start = time.perf_counter()
        m = X_test.shape[0] if hasattr(X_test, "shape") else len(X_test)
        labels = check_labels(y_test, m, "y_test", "X_test", numbers=regression)
        ridge = None if self.solver == "refit" else self._ridge()
        if self.solver == "closed form" and ridge is None:
            raise OptionError(
                "the closed form is for LinearRegression or Ridge (one alpha, no sign constraint) "
                "with minus the mean squared error; take solver 'refit'"
            )
        found = None if ridge is None else self._closed_form(ridge, X_test, labels)
        if found is None and self.solver == "closed form":
            raise DataError(
                "the fit without some row is not unique: columns are collinear or a row stands "
                "alone; drop columns, add a ridge, or take solver 'refit'"
            )
        fits = 0
        if found is None:
            found = self._refits(X_test, labels)
            fits = self.n_rows_ + 1
        values, whole = found
        return Values(
            values=values,
            method="leave one out" if fits else "leave one out, closed form",
            n_test=m,
            test_weight=float(m),
            all_rows=whole,
            fits=fits,
            seconds=time.perf_counter() - start,
            status=value_text(values, m),
        )

    def _game(self, X_test: Any, labels: np.ndarray) -> Game:
        seed = child_seed(as_generator(self.random_state))
        return Game(self.estimator, self.metric, self.X_, self.y_, X_test, labels, seed=seed)

    def _refits(self, X_test: Any, labels: np.ndarray) -> tuple[np.ndarray, float]:
        n = self.n_rows_
        if self.max_fits is not None and n + 1 > self.max_fits:
            price = self.price(X_test, labels)
            raise OptionError(
                f"this takes {price.status}, and max_fits is {self.max_fits:,}; raise it or take "
                "fewer rows"
            )
        game = self._game(X_test, labels)
        whole = game.all
        worth = each_of(partial(_without, game, n), range(n), self.n_jobs)
        return whole - np.array(worth), whole

    def _closed_form(
        self, ridge: float, X_test: Any, labels: np.ndarray
    ) -> tuple[np.ndarray, float] | None:
        """Values and v(all) without a refit; None where the fit without some row is not unique."""
        X, T = check_points(self.X_, "X"), check_points(X_test, "X_test")
        penalty = np.full(X.shape[1], ridge)
        y = self.y_
        if self.estimator.fit_intercept:
            center, level = X.mean(axis=0), y.mean()
            X = np.column_stack([X - center, np.ones(len(X))])
            T = np.column_stack([T - center, np.ones(len(T))])
            y, labels = y - level, labels - level
            penalty = np.append(penalty, 0.0)
        gram = X.T @ X + np.diag(penalty)
        scale = np.sqrt(np.maximum(np.diag(gram), np.finfo(np.float64).tiny))
        gram /= scale[:, None] * scale
        if np.linalg.cond(gram) > 1e10:
            return None
        try:
            factor = cho_factor(gram)
        except LinAlgError:
            return None
        rows = X / scale
        solved = cho_solve(factor, rows.T).T  # row i: A^-1 x_i
        theta = cho_solve(factor, rows.T @ y)
        leverage = np.einsum("ij,ij->i", rows, solved)
        if (leverage > 1 - 1e-8).any():
            return None
        moves = (y - rows @ theta) / (1 - leverage)
        tests = T / scale
        errors = labels - tests @ theta
        first = solved @ (tests.T @ errors) / len(tests)
        second = np.einsum("ij,ij->i", solved @ (tests.T @ tests / len(tests)), solved)
        return 2 * moves * first + moves**2 * second, -float(np.mean(errors**2))

    def price(self, X_test: Any, y_test: Any) -> Price:
        """What valuing will cost, by a pilot of two fits.

        Parameters
        ----------
        X_test, y_test
            The test rows.

        Returns
        -------
        Price
            Fits and seconds; no fits where the closed form serves.
        """
        self._check_fitted()
        m = X_test.shape[0] if hasattr(X_test, "shape") else len(X_test)
        n = self.n_rows_
        if self.solver != "refit" and self._ridge() is not None:
            return Price(0, n, status="no fits: the closed form serves")
        game = self._game(X_test, np.asarray(y_test))
        pilots = [partial(_without, game, n, 0), partial(_without, game, n, n - 1)]
        return fit_price(pilots, fits=n + 1, comparisons=(n + 1) * m, n_jobs=self.n_jobs)


def _without(game: Game, n: int, row: int) -> float:
    return game.worth(np.delete(np.arange(n), row))
