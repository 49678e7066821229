"""Shapley values of rows or sources for any model and any metric, by refitting.

    phi_i = E[v(S_i + i) - v(S_i)],   S_i the players before i in a random order

v(S) is the test score of the model fitted to S, v(none) that of a constant. A scan walks through
one order and refits after every player; the next scan walks through the reverse of that order, so
that who came late now comes early. The mean of the two is one draw, draws are independent, and
their spread gives the standard errors. Up to 12 players all sets are fitted instead and the values
are exact.

**Truncation.** Once v stays within a fraction of v(all) - v(none) of v(all) for more than five
players in a row, the scan stops. The paper gives the players not reached 0; here they share what is
left evenly, so that the values of every scan still sum to v(all) - v(none). Truncation biases the
values towards each other by at most that fraction of the range over the number left; 0 turns it
off.

**Stopping.** After every fifth pair of scans, when

    sum of the standard errors / sum of |phi| <= tolerance

**Intervals.** Normal ones are Student's over pairs. A finite-sample bound holds for any law of a
bounded draw and at every time of looking at once, which a stopping rule needs and a normal interval
does not give: empirical Bernstein with error 6 / (pi k)² of 1 - level at the k-th look,

    |phi_i - mean| <= sqrt(2 s² L / T) + 7 R L / (3 (T - 1)),   L = log(4 / delta_k)

with R twice the range of the metric: it takes thousands of scans to be narrower than R.
"""

from __future__ import annotations

import dataclasses
import math
import os
import time
from functools import partial
from typing import Any

import numpy as np
from scipy.special import stdtrit

from dpdq._random import RandomState, as_generator, child_seed
from dpdq.engine.states import load_state, save_state
from dpdq.errors import DataError, OptionError
from dpdq.select._base import Price
from dpdq.select._refits import Game, check_n_jobs, each_of, fit_price, is_regressor
from dpdq.select.values import Valuer, Values, check_labels, check_level, value_text

__all__ = ["DataShapley"]

_LOOK = 5  # pairs of scans between two looks at the stopping rule
_PATIENCE = 5  # players within the truncation before a scan stops
_EXACT = 12  # players up to which all sets are fitted


@dataclasses.dataclass
class _Running:
    """Mean and spread of the draws so far; all that a save has to keep."""

    mark: str
    seed: int
    pairs: int
    mean: np.ndarray
    moment: np.ndarray  # sum of squared deviations from the mean
    fits: int
    seconds: float

    def add(self, draw: np.ndarray) -> None:
        self.pairs += 1
        away = draw - self.mean
        self.mean = self.mean + away / self.pairs
        self.moment = self.moment + away * (draw - self.mean)

    def error(self) -> np.ndarray:
        if self.pairs < 2:
            return np.full(len(self.mean), np.inf)
        return np.sqrt(self.moment / (self.pairs * (self.pairs - 1)))

    def relative_error(self) -> float:
        size = float(np.abs(self.mean).sum())
        return float(self.error().sum()) / size if size > 0 else math.inf


class DataShapley(Valuer):
    """Shapley values for any scikit-learn model and metric, by truncated Monte Carlo.

        phi_i = E over orders of v(players before i and i) - v(players before i)

    A scan costs one fit a player, so this is for up to some hundred rows, or for groups of rows
    (sources). The values of rows are small differences of noisy scores: look at the intervals
    before believing a rank, and prefer `KNNShapley` where distances mean something.

    Parameters
    ----------
    estimator
        A scikit-learn classifier or regressor.
    metric
        A scikit-learn scorer or its name; None is accuracy, or minus the mean squared error.
    max_permutations
        Scans at most; rounded up to an even number.
    tolerance
        Relative error at which scans stop; 0 runs all.
    truncation
        Share of v(all) - v(none) within which a scan is taken to have arrived; 0 never truncates.
    max_fits
        Refuse what might cost more fits than this; None never refuses.
    min_rows
        Sets of fewer rows are worth v(none), for models that cannot be fitted to them.
    interval
        ``"normal"``, or ``"bernstein"`` for a bound that needs no large numbers and allows for
        stopping.
    metric_range
        Largest less smallest value of the metric, which ``"bernstein"`` needs: 1 for accuracy.
    level
        Coverage of each interval.
    n_jobs
        Processes; changes nothing but the time.
    random_state
        Seed of the orders and of a model without one.

    Attributes
    ----------
    n_rows_
        Training rows.

    Notes
    -----
    Cost: at most max_permutations n fits (2^n for up to 12 players), O(n) memory.
    Held by: tests/select/test_monte_carlo_shapley.py::test_exact_values_equal_brute_force

    Changed from the paper: scans come in pairs of opposite orders; players not reached share what
    is left; truncation is a share of v(all) - v(none) and not of the score; a classifier that has
    seen one label predicts it.

    References
    ----------
    .. [M457] Data Shapley: Equitable Valuation of Data for Machine Learning. Ghorbani, 2019, ICML.
    .. [Maurer2009] Empirical Bernstein Bounds and Sample Variance Penalization. Maurer, 2009, COLT.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import LogisticRegression
    >>> from dpdq.select import DataShapley
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(400, 2))
    >>> y = (X[:, 0] > 0).astype(int)
    >>> y[:60] = 1 - y[:60]  # the first source is wrong
    >>> source = ["bad"] * 60 + ["one"] * 70 + ["two"] * 70
    >>> model = DataShapley(LogisticRegression(), random_state=0).fit(X[:200], y[:200])
    >>> found = model.values(X[200:], y[200:], groups=source)
    >>> found.names, found.fits
    (('bad', 'one', 'two'), 7)
    >>> bool(found.values[0] < 0 < found.values[1])
    True
    """

    def __init__(
        self,
        estimator: Any,
        metric: Any = None,
        *,
        max_permutations: int = 500,
        tolerance: float = 0.1,
        truncation: float = 0.01,
        max_fits: int | None = 100_000,
        min_rows: int = 1,
        interval: str = "normal",
        metric_range: float | None = None,
        level: float = 0.95,
        n_jobs: int = 1,
        random_state: RandomState = None,
    ) -> None:
        self.estimator = estimator
        self.metric = metric
        self.max_permutations = max_permutations
        self.tolerance = tolerance
        self.truncation = truncation
        self.max_fits = max_fits
        self.min_rows = min_rows
        self.interval = interval
        self.metric_range = metric_range
        self.level = level
        self.n_jobs = n_jobs
        self.random_state = random_state

    def _numbers(self) -> bool:
        check_level(self.level)
        check_n_jobs(self.n_jobs)
        if self.max_permutations < 4:
            raise OptionError(
                f"max_permutations is {self.max_permutations}; expected at least 4, for two pairs"
            )
        for name in ("tolerance", "truncation"):
            if not getattr(self, name) >= 0:
                raise OptionError(f"{name} is {getattr(self, name)}; expected at least 0")
        if self.interval not in ("normal", "bernstein"):
            raise OptionError(
                f"Unknown interval {self.interval!r}. Choose one of 'normal', 'bernstein'."
            )
        if self.interval == "bernstein" and not (self.metric_range or 0) > 0:
            raise OptionError("interval 'bernstein' needs metric_range, such as 1 for accuracy")
        return is_regressor(self.estimator)

    def values(
        self,
        X_test: Any,
        y_test: Any,
        *,
        groups: Any = None,
        save: str | os.PathLike[str] | None = None,
    ) -> Values:
        """Value every training row, or every group of them, on test rows.

        Parameters
        ----------
        X_test, y_test
            Rows of p with their labels or targets.
        groups
            Group of each training row, shape (n,); the groups are then the players.
        save
            Path of a file that is written after every five pairs of scans. Where it exists already
            the scans go on from there, and end with the same values as if never interrupted.

        Returns
        -------
        Values
            Value of each row, or of each group in the order of ``names``.

        Raises
        ------
        OptionError
            It might cost more than ``max_fits`` fits.
        DataError
            Lengths differ, or the file belongs to other data or options.
        """
        players, names = self._players(groups)
        fits = self._most_fits(len(players))
        if self.max_fits is not None and fits > self.max_fits:
            price = self.price(X_test, y_test, groups=groups)
            raise OptionError(
                f"this might take {price.status}, and max_fits is {self.max_fits:,}; raise it, "
                "lower max_permutations, take fewer rows, or value groups"
            )
        start = time.perf_counter()
        seed = child_seed(as_generator(self.random_state))
        labels = check_labels(
            y_test, _length(X_test), "y_test", "X_test", numbers=is_regressor(self.estimator)
        )
        exact = len(players) <= _EXACT
        running = _Running("", seed, 0, np.zeros(len(players)), np.zeros(len(players)), 0, 0.0)
        if not exact and save is not None:
            running = self._resume(save, running, X_test, labels, groups)
        game = Game(
            self.estimator, self.metric, self.X_, self.y_, X_test, labels,
            seed=running.seed, min_rows=self.min_rows,
        )  # fmt: skip
        if exact:
            values = _exact_values(game, players, self.n_jobs)
            text = value_text(values, len(labels), "groups" if names else "rows")
            return Values(
                values=values,
                method="exact Shapley",
                level=self.level,
                n_test=len(labels),
                test_weight=float(len(labels)),
                all_rows=game.all,
                no_rows=game.none,
                names=names,
                fits=fits,
                seconds=time.perf_counter() - start,
                status=text,
            )
        self._scan(game, players, running, save, start)
        return self._summary(game, running, names, len(labels))

    def _players(self, groups: Any) -> tuple[list[np.ndarray], tuple[str, ...]]:
        """Rows of each player, and the groups' names."""
        self._check_fitted()
        self._numbers()
        if groups is None:
            return list(np.arange(self.n_rows_)[:, None]), ()
        labels = check_labels(groups, self.n_rows_, "groups", "X")
        levels, codes = np.unique(labels, return_inverse=True)
        return [np.flatnonzero(codes == g) for g in range(len(levels))], tuple(map(str, levels))

    def _pairs(self) -> int:
        return (self.max_permutations + 1) // 2

    def _most_fits(self, n: int) -> int:
        """Fits without truncation or an early stop."""
        return 2**n - 1 if n <= _EXACT else 2 * self._pairs() * (n - 1) + 1

    def price(self, X_test: Any, y_test: Any, *, groups: Any = None) -> Price:
        """What valuing might cost at most, by a pilot on sets of four sizes.

        Parameters
        ----------
        X_test, y_test
            The test rows.
        groups
            Group of each training row.

        Returns
        -------
        Price
            Fits without truncation or an early stop, and seconds.
        """
        players, _ = self._players(groups)
        game = Game(
            self.estimator, self.metric, self.X_, self.y_, X_test, np.asarray(y_test),
            seed=0, min_rows=self.min_rows,
        )  # fmt: skip
        order = np.random.default_rng(0).permutation(self.n_rows_)
        sizes = np.ceil(np.array([1, 3, 5, 7]) / 8 * self.n_rows_).astype(int)
        fits = self._most_fits(len(players))
        return fit_price(
            [partial(game.worth, np.sort(order[:size])) for size in sizes],
            fits=fits,
            comparisons=fits * _length(X_test),
            n_jobs=self.n_jobs,
            note="at most " if len(players) > _EXACT else "",
        )

    def _resume(
        self,
        save: str | os.PathLike[str],
        running: _Running,
        X_test: Any,
        labels: np.ndarray,
        groups: Any,
    ) -> _Running:
        from joblib import hash as content_hash

        options = (str(self.estimator.get_params()), type(self.estimator).__name__)
        metric = getattr(self.metric, "__qualname__", str(self.metric))
        data = (self.X_, self.y_, X_test, labels, None if groups is None else np.asarray(groups))
        running.mark = str(content_hash((data, options, metric, self.truncation, self.min_rows)))
        if not os.path.exists(save):
            return running
        found = load_state(save, (_Running,))
        if not isinstance(found, _Running) or found.mark != running.mark:
            raise DataError(
                f"{os.fspath(save)!r} holds values of other data, another model or other options; "
                "give another path or delete it"
            )
        if self.random_state is not None and found.seed != running.seed:
            raise DataError(
                f"{os.fspath(save)!r} was begun with another random_state; give that one, or None "
                "to go on with the file's"
            )
        return found

    def _scan(
        self,
        game: Game,
        players: list[np.ndarray],
        running: _Running,
        save: str | os.PathLike[str] | None,
        start: float,
    ) -> None:
        """Add pairs of scans until the stopping rule or the last pair."""
        before = running.seconds
        if running.pairs == 0:
            running.fits += 1
        near = self.truncation * abs(game.all - game.none)
        walk = partial(_pair_of_scans, game, players, running.seed, near)
        while running.pairs < self._pairs():
            if running.pairs % _LOOK == 0 and running.relative_error() <= self.tolerance:
                return
            stop = min(self._pairs(), running.pairs + _LOOK - running.pairs % _LOOK)
            for draw, fits in each_of(walk, range(running.pairs, stop), self.n_jobs):
                running.add(draw)
                running.fits += fits
            running.seconds = before + time.perf_counter() - start
            if save is not None:
                save_state(save, running, (_Running,))

    def _summary(
        self, game: Game, running: _Running, names: tuple[str, ...], n_test: int
    ) -> Values:
        values, error, pairs = running.mean, running.error(), running.pairs
        if self.interval == "normal":
            half = stdtrit(pairs - 1, 0.5 + self.level / 2) * error
        else:
            look = math.ceil(pairs / _LOOK)
            share = (1 - self.level) * 6.0 / (math.pi * look) ** 2
            depth = math.log(4.0 / share)
            reach = 2.0 * (self.metric_range or 0.0)
            half = np.sqrt(2.0 * depth) * error + 7.0 * reach * depth / (3.0 * (pairs - 1))
        relative = running.relative_error()
        text = (
            f"{value_text(values, n_test, 'groups' if names else 'rows')}; relative error "
            f"{relative:.2g} after {2 * pairs:,} scans"
        )
        if relative > self.tolerance:
            text += f", above {self.tolerance:g}: raise max_permutations before ranking by them"
        return Values(
            values=values,
            method=f"Monte Carlo Shapley, {self.interval} intervals",
            standard_error=error,
            low=values - half,
            high=values + half,
            level=self.level,
            interval="permutations",
            n_test=n_test,
            test_weight=float(n_test),
            all_rows=game.all,
            no_rows=game.none,
            names=names,
            fits=running.fits,
            seconds=running.seconds,
            status=text,
        )


def _length(X: Any) -> int:
    return X.shape[0] if hasattr(X, "shape") else len(X)


def _pair_of_scans(
    game: Game, players: list[np.ndarray], seed: int, near: float, pair: int
) -> tuple[np.ndarray, int]:
    """Mean contributions in one order and its reverse, and the fits it took."""
    order = np.random.default_rng([seed, pair]).permutation(len(players))
    forth, some = _scan_order(game, players, order, near)
    back, others = _scan_order(game, players, order[::-1], near)
    return (forth + back) / 2, some + others


def _scan_order(
    game: Game, players: list[np.ndarray], order: np.ndarray, near: float
) -> tuple[np.ndarray, int]:
    gains = np.zeros(len(players))
    worth, quiet, fits = game.none, 0, 0
    rows = np.zeros(0, dtype=np.int64)
    for step, player in enumerate(order):
        rows = np.sort(np.concatenate([rows, players[player]]))
        if step == len(order) - 1:
            now = game.all
        else:
            now = game.worth(rows)
            fits += 1
        gains[player] = now - worth
        worth = now
        quiet = quiet + 1 if near > 0 and abs(game.all - worth) <= near else 0
        left = order[step + 1 :]
        if quiet > _PATIENCE and len(left):
            gains[left] = (game.all - worth) / len(left)
            break
    return gains, fits


def _exact_values(game: Game, players: list[np.ndarray], n_jobs: int) -> np.ndarray:
    """Shapley values from the worth of every set of players."""
    n = len(players)
    sets = np.arange(1 << n)
    inside = (sets[:, None] >> np.arange(n)) & 1 == 1
    rows = [
        np.sort(np.concatenate([players[i] for i in np.flatnonzero(one)])) for one in inside[1:-1]
    ]
    worth = np.array([game.none, *each_of(game.worth, rows, n_jobs), game.all])
    size = inside.sum(axis=1)
    share = np.array([1.0 / (n * math.comb(n - 1, k)) for k in range(n)])
    values = np.empty(n)
    for i in range(n):
        without = sets[~inside[:, i]]
        values[i] = share[size[without]] @ (worth[without | 1 << i] - worth[without])
    return values
