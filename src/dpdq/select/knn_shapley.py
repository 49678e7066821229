"""Exact Shapley values of training rows for the k-nearest-neighbour game.

For a test row let alpha be the training rows from the nearest to the farthest, N of them, and

    v(S) = 1/K sum over the min(K, |S|) rows of S that are nearest of t_i,   t_i = [y_i = y_test]

the share of the K votes that are right, where votes that S cannot fill count as wrong. With
w_i = min(K, i) / (i K) the value of the row of rank i is, by the recursion of Jia et al.,

    s_N = t_N w_N,   s_i = s_(i+1) + (t_i - t_(i+1)) w_i

or, summed up, s_i = t_i w_i - sum_(j > i) t_j g_j with g_j = w_(j-1) - w_j = 1 / (j (j - 1)) for
j > K and 0 before: one sort and one running sum a test row. Values are means over test rows.

**Equal distances.** The recursion needs an order. Where rows are equally far, every order of them
is as good, and the value here is the mean over all these orders, which is again a Shapley value
(of the game whose vote is the mean over the orders), gives equal rows equal values, and does not
depend on the order of the training rows. For a group of m rows on the ranks a to b with sum T of t

    s = t W - (T - t) / (m - 1) (W - w_b) - sum_(j > b) t_j g_j,   W = mean of w_a .. w_b

**Regression.** With targets centred at their training mean, a_i = (y_i - m) / K, e = y_test - m,

    v(S) = -(e - sum over the nearest of a_i)²,   v(none) = -e²

so that votes that S cannot fill stand for the training mean. The square is a sum over pairs
i < j (ranks) of games that only count whether i and j are both among the K nearest; in such a game
i and j have P_j each and every other row nearer than j has -R_j,

    P_j = 1/2, R_j = 0 for j <= K;   P_j = K (K - 1) / (2 j (j - 1)), R_j = 2 P_j / (j - 2) after

and the linear part is the recursion with (y_i - m)(2 e - (y_i - m) / K) in place of t_i. The paper
leaves the targets as they are, which shrinks to 0 and not to the mean.

**Speed.** Squared distances come from one matrix product, and each is packed with its row number
into one 64-bit integer, which sorts several times faster than an index does. Neighbouring keys
that are nearer than rounding and packing can tell apart get their distances again, as
`dpdq.neighbors` computes them, so that the order and the ties are exact.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from dpdq._threads import parallel_map
from dpdq.errors import DataError, OptionError
from dpdq.kernels import check_points
from dpdq.neighbors import pair_distances
from dpdq.select._base import Price, pilot_price
from dpdq.select.values import (
    Valuer,
    Values,
    check_labels,
    check_level,
    normal_interval,
    value_text,
)

__all__ = ["KNNShapley"]

_TILE = 1 << 23  # distances held by a thread at a time: 64 MiB
_PIECE = 8  # blocks of test rows whose sums wait to be added
_EPS = float(np.finfo(np.float64).eps)


@dataclasses.dataclass
class _Ties:
    """Runs of equal distances among the ranks: members' positions and where each run starts."""

    at: np.ndarray
    offset: np.ndarray  # of each run in ``at``, and the end
    first: np.ndarray  # rank of each run's first row, from 0
    size: np.ndarray

    def sum(self, of: np.ndarray) -> np.ndarray:
        """Sum over each run of an array that lies along ``at``."""
        return np.add.reduceat(of, self.offset)

    def spread(self, of: np.ndarray) -> np.ndarray:
        """A number a run, repeated for its members."""
        return np.repeat(of, self.size)

    def place(self) -> np.ndarray:
        """Place of each member within its run, from 0."""
        return self.at - self.spread(self.first)


class _Ranking:
    """Training rows from the nearest to the farthest, for blocks of test rows."""

    def __init__(self, points: np.ndarray) -> None:
        self.points = points
        self.center = points.mean(axis=0)
        self.moved = points - self.center
        with np.errstate(over="ignore"):
            self.squares = np.einsum("ij,ij->i", self.moved, self.moved)
        self.reach = math.sqrt(float(self.squares.max()))
        if not self.reach < 1e75:
            raise DataError("X holds values of 1e75 or more; divide X and X_test by one scale")
        self.bits = max(1, (len(points) - 1).bit_length())
        self.index = np.arange(len(points), dtype=np.int64)

    def visit(
        self, tests: np.ndarray, use: Callable[[int, np.ndarray, _Ties | None], None]
    ) -> None:
        """Call ``use(row, order, ties)`` for every test row; ``order`` is valid until the next."""
        moved = tests - self.center
        norms = np.sqrt(np.einsum("ij,ij->i", moved, moved))
        if not (norms < 1e75).all():
            raise DataError("X_test holds values of 1e75 or more; divide X and X_test by one scale")
        wrong = (self.points.shape[1] + 8) * _EPS * (norms + self.reach) ** 2
        tile = (-2.0 * moved) @ self.moved.T
        tile += self.squares
        tile += (norms**2 + 2.0 * wrong)[:, None]  # so that nothing is negative
        mask = np.int64((1 << self.bits) - 1)
        blunt = 1.0 + 2.0 ** (self.bits - 51)  # what packing does to a distance, at most
        room = np.empty(len(self.points) - 1)
        near = np.empty(len(room), dtype=bool)
        for row in range(len(tests)):
            keys = tile[row].view(np.int64)
            keys &= ~mask
            keys |= self.index
            keys.sort()
            about = keys.view(np.float64)
            np.multiply(about[:-1], blunt, out=room)
            room += 4.0 * wrong[row]
            np.less_equal(about[1:], room, out=near)
            doubtful = np.flatnonzero(near)
            keys &= mask
            ties = self._settle(tests[row], keys, doubtful) if len(doubtful) else None
            use(row, keys, ties)

    def _settle(self, test: np.ndarray, order: np.ndarray, doubtful: np.ndarray) -> _Ties | None:
        """Put right the order of ranks that could not be told apart, and find the exact ties."""
        at = np.unique(np.concatenate([doubtful, doubtful + 1]))
        starts = np.ones(len(at), dtype=bool)
        starts[1:] = ~np.isin(at[1:] - 1, doubtful, assume_unique=True)
        run = np.cumsum(starts)
        rows = order[at]
        exact = pair_distances(test[None], self.points, np.zeros(len(rows), np.int64), rows)
        sorting = np.lexsort((rows, exact, run))
        order[at] = rows[sorting]
        exact = exact[sorting]
        fresh = starts.copy()
        fresh[1:] |= exact[1:] != exact[:-1]
        begin = np.flatnonzero(fresh)
        size = np.diff(np.append(begin, len(at)))
        tied = size > 1
        if not tied.any():
            return None
        members = np.repeat(tied, size)
        size = size[tied]
        offset = np.concatenate([[0], np.cumsum(size)[:-1]])
        return _Ties(at[members], offset, at[begin[tied]], size)


def _after(of: np.ndarray) -> np.ndarray:
    """Sums of what stands at and after each place, and 0 at the end."""
    sums = np.empty(len(of) + 1)
    sums[-1] = 0.0
    np.cumsum(of[::-1], out=sums[-2::-1])
    return sums


class _Linear:
    """Values of the game whose worth is the sum of t over the K nearest, divided by K."""

    def __init__(self, n: int, k: int) -> None:
        ranks = np.arange(1, n + 1, dtype=np.float64)
        self.share = np.minimum(k, ranks) / (ranks * k)
        self.loss = np.zeros(n)
        self.loss[k:] = 1.0 / (ranks[k:] * (ranks[k:] - 1.0))
        self.gain = self.share + self.loss
        self.sums = np.concatenate([[0.0], np.cumsum(self.share)])

    def __call__(self, t: np.ndarray, ties: _Ties | None) -> np.ndarray:
        """Value of each rank, given t in the order of the ranks."""
        lost = self.loss * t
        values = self.gain * t
        if ties is None:
            values -= _after(lost)[:-1]
            return values
        inside = t[ties.at].astype(np.float64)
        total, end = ties.sum(inside), ties.first + ties.size
        lost[ties.at] = self.loss[ties.at] * ties.spread(total / ties.size)
        later = _after(lost)
        values -= later[:-1]
        mean = (self.sums[end] - self.sums[ties.first]) / ties.size
        others = (ties.spread(total) - inside) / ties.spread(ties.size - 1)
        values[ties.at] = (
            inside * ties.spread(mean)
            - others * ties.spread(mean - self.share[end - 1])
            - ties.spread(later[end])
        )
        return values


class _Pairs:
    """Values of the game whose worth is the sum of a_i a_j over pairs of the K nearest."""

    def __init__(self, n: int, k: int) -> None:
        ranks = np.arange(1, n + 1, dtype=np.float64)
        self.both = np.full(n, 0.5)
        self.rest = np.zeros(n)
        far = ranks[k:]
        self.both[k:] = 0.0 if k == 1 else k * (k - 1) / (2.0 * far * (far - 1.0))
        self.rest[k:] = 0.0 if k == 1 else 2.0 * self.both[k:] / (far - 2.0)

    def __call__(self, a: np.ndarray, ties: _Ties | None) -> np.ndarray:
        """Value of each rank, given a in the order of the ranks."""
        before = np.concatenate([[0.0], np.cumsum(a)])
        if ties is None:
            with_later = _after(a * (self.both + self.rest))
            lost = _after(a * before[:-1] * self.rest)
            return a * (with_later[1:] + before[:-1] * self.both) - lost[1:]
        x, size, place = a[ties.at], ties.size, ties.place().astype(np.float64)
        both, rest = self.both[ties.at], self.rest[ties.at]
        total, squares = ties.sum(x), ties.sum(x * x)
        inside = a.copy()
        inside[ties.at] = ties.spread(total / size)
        with_later = _after(inside * (self.both + self.rest))
        inside *= before[:-1]
        two = (total**2 - squares) / (size * (size - 1))
        inside[ties.at] = ties.spread(total / size * before[ties.first]) + place * ties.spread(two)
        lost = _after(inside * self.rest)
        values = a * (with_later[1:] + before[:-1] * self.both) - lost[1:]
        other = (ties.spread(total) - x) / ties.spread(size - 1)
        two = (ties.spread(total) - x) ** 2 - (ties.spread(squares) - x * x)
        two /= ties.spread(np.maximum((size - 1) * (size - 2), 1))
        end = ties.first + size
        start = ties.spread(before[ties.first])

        def mean(of: np.ndarray) -> np.ndarray:
            return ties.spread(ties.sum(of) / size)

        values[ties.at] = (
            x * ties.spread(with_later[end])
            + x * other * mean(place * (2.0 * both + rest))
            + x * start * mean(both)
            - ties.spread(lost[end])
            - (start + x) * other * mean(place * rest)
            - two * mean(place * (place - 1.0) * rest)
        )
        return values


class KNNShapley(Valuer):
    """Exact Shapley value of every training row for k-nearest-neighbour prediction.

        phi_i = mean over test rows of s_i,
        s_N = t_N min(K, N) / (N K),   s_i = s_(i+1) + (t_i - t_(i+1)) min(K, i) / (i K)

    with training rows from the nearest (1) to the farthest (N) and t_i whether the labels agree;
    equal distances share (see the module). Values sum to the mean share of right votes. They are
    about distances: bring columns to one scale, or value in an embedding, and do not expect the
    values to rank rows for a model that sees the data otherwise. Rows far from all test rows have
    values near zero whatever their labels.

    Parameters
    ----------
    n_neighbors
        K.
    task
        ``"classification"``, or ``"regression"`` for minus the squared error.

    Attributes
    ----------
    n_rows_
        Training rows.

    Notes
    -----
    Cost: O(n (d + log n)) time a test row, O(n d) memory; more where many distances are equal.
    Held by: tests/select/test_knn_shapley.py::test_values_equal_brute_force

    Changed from the paper: equal distances share instead of an arbitrary order, regression shrinks
    to the training mean instead of 0, and the recursion is summed up.

    References
    ----------
    .. [M457] Data Shapley: Equitable Valuation of Data for Machine Learning. Ghorbani, 2019, ICML.
    .. [Jia2019] Efficient Task-Specific Data Valuation for Nearest Neighbor Algorithms. Jia, 2019,
       PVLDB 12.

    Examples
    --------
    >>> import numpy as np
    >>> from dpdq.select import KNNShapley
    >>> model = KNNShapley(n_neighbors=1).fit([[0.0], [1.0], [3.0]], ["a", "b", "a"])
    >>> found = model.values([[0.2]], ["a"])
    >>> found.values.round(4).tolist()
    [0.8333, -0.1667, 0.3333]
    >>> round(float(found.values.sum()), 4)  # the one nearest neighbour is right
    1.0
    """

    def __init__(self, n_neighbors: int = 5, *, task: str = "classification") -> None:
        self.n_neighbors = n_neighbors
        self.task = task

    def _numbers(self) -> bool:
        if self.task not in ("classification", "regression"):
            raise OptionError(
                f"Unknown task {self.task!r}. Choose one of 'classification', 'regression'."
            )
        if self.n_neighbors != int(self.n_neighbors) or self.n_neighbors < 1:
            raise OptionError(f"n_neighbors is {self.n_neighbors}; expected a whole number from 1")
        return self.task == "regression"

    def _fit(self, X: Any, y: np.ndarray) -> None:
        self.X_ = check_points(X, "X")
        self._ranking = _Ranking(self.X_)

    def values(
        self,
        X_test: Any,
        y_test: Any,
        *,
        weights: Any = None,
        intervals: bool = False,
        level: float = 0.95,
    ) -> Values:
        """Value every training row on test rows.

        Parameters
        ----------
        X_test, y_test
            Rows of p with their labels or targets, shapes (m, d) and (m,).
        weights
            Weight of each test row, shape (m,); zero drops the row.
        intervals
            Whether to add normal intervals over test rows: what another test sample of this size
            might have given. Costs one more pass over the values; equal weights only.
        level
            Their coverage.

        Returns
        -------
        Values
            Value of each training row.

        Raises
        ------
        DataError
            Shapes, columns or weights do not fit, or values are missing.
        """
        self._check_fitted()
        check_level(level)
        start = time.perf_counter()
        tests = check_points(X_test, "X_test")
        if tests.shape[1] != self.X_.shape[1]:
            raise DataError(
                f"X_test has {tests.shape[1]} features and X has {self.X_.shape[1]}; "
                "both need the same columns"
            )
        regression = self._numbers()
        labels = check_labels(y_test, len(tests), "y_test", "X_test", numbers=regression)
        mass = _check_weights(weights, len(tests), intervals)
        kept = mass > 0
        if not kept.all():
            tests, labels, mass = tests[kept], labels[kept], mass[kept]
        share = mass / mass.sum()
        value_of = self._game(labels)
        n, width = len(self.X_), max(4, min(32, _TILE // len(self.X_)))
        blocks = [slice(a, min(a + width, len(tests))) for a in range(0, len(tests), width)]

        def work(rows: slice) -> tuple[np.ndarray, np.ndarray | None]:
            total, squares = np.zeros(n), np.zeros(n) if intervals else None
            one = np.empty(n)

            def use(row: int, order: np.ndarray, ties: _Ties | None) -> None:
                one[order] = value_of(rows.start + row, order, ties)
                if squares is not None:
                    np.add(squares, one * one, out=squares)
                np.multiply(one, share[rows.start + row], out=one)
                np.add(total, one, out=total)

            self._ranking.visit(tests[rows], use)
            return total, squares

        values, squares = np.zeros(n), np.zeros(n)
        for first in range(0, len(blocks), _PIECE):
            for total, square in parallel_map(work, blocks[first : first + _PIECE]):
                values += total
                if square is not None:
                    squares += square
        error = None
        if intervals:
            m = len(tests)
            error = np.sqrt(np.maximum(squares / m - values**2, 0.0) / (m - 1))
        low, high = normal_interval(values, error, level)
        nothing = float(-share @ (labels - self.y_.mean()) ** 2) if regression else 0.0
        return Values(
            values=values,
            method=f"k-NN Shapley, {self.n_neighbors} neighbours, {self.task}",
            standard_error=error,
            low=low,
            high=high,
            level=level,
            interval="test rows" if intervals else "",
            n_test=len(tests),
            test_weight=float(mass.sum()),
            all_rows=nothing + float(values.sum()),
            no_rows=nothing,
            seconds=time.perf_counter() - start,
            status=value_text(values, len(tests)),
        )

    def _game(self, labels: np.ndarray) -> Callable[[int, np.ndarray, _Ties | None], np.ndarray]:
        """Values by rank for one test row."""
        n, k = len(self.X_), int(self.n_neighbors)
        linear = _Linear(n, k)
        if self.task == "classification":

            def votes(row: int, order: np.ndarray, ties: _Ties | None) -> np.ndarray:
                return linear((self.y_ == labels[row]).take(order), ties)

            return votes
        pairs = _Pairs(n, k)
        moved = self.y_ - self.y_.mean()
        errors = labels - self.y_.mean()

        def squares(row: int, order: np.ndarray, ties: _Ties | None) -> np.ndarray:
            y = moved.take(order)
            return linear(y * (2.0 * errors[row] - y / k), ties) - 2.0 * pairs(y / k, ties)

        return squares

    def price(self, X_test: Any, y_test: Any, *, pilot_rows: int = 8) -> Price:
        """What valuing on these test rows will cost, by a pilot on a few of them.

        Parameters
        ----------
        X_test, y_test
            The test rows.
        pilot_rows
            Test rows of the pilot.

        Returns
        -------
        Price
            No fits, one comparison a training and test row, and seconds.
        """
        self._check_fitted()
        tests, labels = check_points(X_test, "X_test"), np.asarray(y_test)
        return pilot_price(
            lambda rows: self.values(tests[rows], labels[rows]),
            len(tests),
            fits=0,
            comparisons=len(tests) * self.n_rows_,
            pilot_rows=pilot_rows,
        )


def _check_weights(weights: Any, n: int, intervals: bool) -> np.ndarray:
    if weights is None:
        if intervals and n < 2:
            raise DataError("intervals over test rows need at least 2 of them")
        return np.ones(n)
    mass = np.asarray(weights, dtype=np.float64)
    if mass.shape != (n,):
        raise DataError(f"weights has shape {mass.shape}; expected ({n},), one a row of X_test")
    if not np.isfinite(mass).all() or (mass < 0).any() or mass.sum() <= 0:
        raise DataError("weights must be finite, not negative and not all zero")
    if intervals and len(np.unique(mass)) > 1:
        raise OptionError("intervals over test rows need equal weights; leave one of the two out")
    return mass
