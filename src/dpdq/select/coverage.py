"""Rows that stand for all the others: coverage by similarity or by distance.

Of n rows choose a set S of k so that every row has a representative in it:

    FacilityLocation   maximise  f(S) = mean_i w_i max_{j in S} s(x_i, x_j)     on average
    KCenter            minimise  max_i min_{j in S} |x_i - x_j|                 in the worst case

Both are NP-hard and both have a greedy algorithm with a guarantee: f(S) is at least 1 - 1/e = 63 %
of the best of any k rows, and the radius is at most twice the smallest possible. The greedy order
is nested: the first k of a longer run are the run of k, so `Selection.utility` (what each row added
when it was taken) can be cut again by `top_k`. What coverage does not fix is the space: rows are
alike in the features given. k-centre goes for outliers, which are far from everything; facility
location ignores them, and is the one to take where the data are dirty.

Neither needs labels or a model. Similarities are computed by blocks, and kept while memory allows.
"""

from __future__ import annotations

import abc
from typing import Any

import numpy as np

from dpdq._parameters import Parameterised
from dpdq.errors import DataError, InputTypeError, OptionError
from dpdq.kernels import check_points, distance_tile, median_heuristic
from dpdq.select._base import Price, pilot_price
from dpdq.select.chosen import Selection

__all__ = ["FacilityLocation", "KCenter"]

BATCH = 64  # candidates whose gains are renewed together
NUMBERS = 1 << 20  # numbers of a block of similarities: 8 MiB


class _Similarities(abc.ABC):
    """Similarities of any rows to all rows, by blocks."""

    n: int

    @abc.abstractmethod
    def rows(self, which: np.ndarray) -> np.ndarray:
        """Similarities of the rows ``which`` to all rows, (len(which), n), from 0 to 1 or more."""

    def sums(self, weights: np.ndarray) -> np.ndarray:
        """Weighted sum of each row's similarities, (n,)."""
        size = max(1, NUMBERS // self.n)
        blocks = (np.arange(i, min(i + size, self.n)) for i in range(0, self.n, size))
        return np.concatenate([self.rows(block) @ weights for block in blocks])


class _Cosine(_Similarities):
    """(1 + cos) / 2, which is never negative; a row of zeros has similarity 1/2 to all."""

    def __init__(self, points: np.ndarray) -> None:
        norms = np.linalg.norm(points, axis=1, keepdims=True)
        self.unit = points / np.where(norms > 0, norms, 1.0)
        self.half = 0.5 * self.unit
        self.n = len(points)

    def rows(self, which: np.ndarray) -> np.ndarray:
        tile = self.half[which] @ self.unit.T
        tile += 0.5
        return tile

    def sums(self, weights: np.ndarray) -> np.ndarray:
        return 0.5 * weights.sum() + self.half @ (weights @ self.unit)


class _Gaussian(_Similarities):
    """exp(-|x - y|^2 / (2 h^2))."""

    def __init__(self, points: np.ndarray, bandwidth: float) -> None:
        self.points = (points - points.mean(axis=0)) / (np.sqrt(2.0) * bandwidth)
        self.n = len(points)

    def rows(self, which: np.ndarray) -> np.ndarray:
        tile = distance_tile(self.points[which], self.points, "euclidean")
        np.negative(tile, out=tile)
        return np.exp(tile, out=tile)


class _Given(_Similarities):
    """A matrix; entry (i, j) is how well row j stands for row i."""

    def __init__(self, matrix: np.ndarray) -> None:
        self.matrix = matrix
        self.n = len(matrix)

    def rows(self, which: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(self.matrix[:, which].T)

    def sums(self, weights: np.ndarray) -> np.ndarray:
        return weights @ self.matrix


class _Kept:
    """Rows of similarities that were computed once, within a bound of memory."""

    def __init__(self, similarities: _Similarities, megabytes: float) -> None:
        self.source = similarities
        self.slots = int(min(similarities.n, megabytes * 2**20 // (8 * similarities.n)))
        self.place = np.full(similarities.n, -1, dtype=np.int64)
        self.stored: list[np.ndarray] = []
        self.computed = 0

    def rows(self, which: np.ndarray) -> list[np.ndarray]:
        fresh = which[self.place[which] < 0]
        blocks: dict[int, np.ndarray] = {}
        if len(fresh):
            block = self.source.rows(fresh)
            self.computed += len(fresh)
            blocks = dict(zip(fresh.tolist(), block, strict=True))
            if len(self.stored) + len(fresh) <= self.slots:
                self.place[fresh] = len(self.stored) + np.arange(len(fresh))
                self.stored.extend(block)
        return [
            blocks[row] if row in blocks else self.stored[self.place[row]] for row in which.tolist()
        ]


def _greedy(
    kept: _Kept, weights: np.ndarray, alive: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rows in greedy order and what each added; gains are renewed only where they may win.

    A gain can only fall as S grows, so an old one is an upper bound: the candidates with the
    largest bounds are renewed in batches until the best renewed gain is above every other bound.
    Gains that are equal but for rounding go to the smallest row number.
    """
    n = len(weights)
    bounds = kept.source.sums(weights)
    bounds[~alive] = -np.inf
    best = np.zeros(n)
    order, gains = np.empty(k, np.int64), np.empty(k)
    room = np.empty(n)
    tied = 1e-12 * float(bounds.max())  # gains of two rows that stand for each other are equal
    for step in range(k):
        gain, size = -np.inf, 4
        covered = float(weights @ best)
        waiting = bounds.copy()  # those not renewed in this step
        while True:
            top = np.argpartition(waiting, n - size)[n - size :] if size < n else np.arange(n)
            top = top[(waiting[top] >= gain - tied) & (waiting[top] > -np.inf)]
            if not len(top):
                break
            top = top[np.argsort(-waiting[top])]
            for row, similar in zip(top.tolist(), kept.rows(top), strict=True):
                if waiting[row] < gain - tied:
                    break
                np.maximum(similar, best, out=room)
                bounds[row] = float(weights @ room) - covered
                waiting[row] = -np.inf
                gain = max(gain, bounds[row])
            size = BATCH if step > 1 else 4 * BATCH
        winner = int((bounds >= gain - tied).argmax())
        order[step], gains[step] = winner, max(bounds[winner], 0.0)
        np.maximum(best, kept.rows(np.array([winner]))[0], out=best)
        bounds[winner] = -np.inf
    return order, gains


def _selection(
    order: np.ndarray, added: np.ndarray, n: int, mechanism: str, status: str
) -> Selection:
    utility = np.full(n, -np.inf)
    utility[order] = added
    reasons = np.ones(n, dtype=np.int8)
    reasons[order] = 0
    return Selection(
        rows=np.sort(order).astype(np.int64),
        n_pool=n,
        mechanism=mechanism,
        utility=utility,
        weights=np.ones(len(order)),
        cost=float(len(order)),
        budget=float(len(order)),
        reasons=reasons,
        reason_names=("taken as a representative", "stands behind a representative"),
        status=status,
    )


def _check_count(n: int, rows: int) -> int:
    if int(n) != n or not 1 <= n <= rows:
        raise OptionError(f"n is {n}; expected a whole number of rows from 1 to {rows}")
    return int(n)


class FacilityLocation(Parameterised):
    """Representatives that are most similar to the rows they stand for, on average.

        f(S) = sum_i w_i max_{j in S} s(x_i, x_j) / sum_i w_i

    By lazy greedy search, equal to the plain greedy one. Rows in crowded regions come first, and
    duplicates after the first add nothing.

    Parameters
    ----------
    similarity
        ``"cosine"``: (1 + cos) / 2; ``"rbf"``: exp(-|x - y|^2 / (2 h^2)); ``"precomputed"``: a
        matrix, not negative, whose entry (i, j) says how well row j stands for row i.
    bandwidth
        h of ``"rbf"``; default the median distance.
    memory
        MiB for similarities that are kept; others are computed again when needed.

    Attributes
    ----------
    order_
        Row numbers in the order taken, shape (k,).
    gains_
        What each added to f, shape (k,), falling.
    objective_
        f of all of them.

    Raises
    ------
    OptionError
        An unknown similarity, or a number of rows outside 1 to n.
    DataError
        Points that are not finite, negative similarities, weights that do not fit.

    Notes
    -----
    Cost: O(n^2 d) time at worst, O(m n d) for m candidates that are ever renewed (cosine), O(n d)
    memory and what ``memory`` allows.
    Held by: tests/select/test_coverage.py::test_lazy_greedy_equals_greedy

    References
    ----------
    .. [Nemhauser1978] An analysis of approximations for maximizing submodular set functions.
       Nemhauser, 1978, Mathematical Programming.
    .. [Minoux1978] Accelerated greedy algorithms for maximizing submodular set functions.
       Minoux, 1978, Optimization Techniques.

    Examples
    --------
    >>> import numpy as np
    >>> from dpdq.select import FacilityLocation
    >>> points = np.array([[0.0], [0.1], [0.2], [5.0], [5.1], [5.3]])
    >>> FacilityLocation("rbf", bandwidth=1.0).select(points, 2).rows.tolist()
    [1, 4]
    """

    def __init__(
        self, similarity: str = "cosine", *, bandwidth: float | None = None, memory: float = 256.0
    ) -> None:
        self.similarity = similarity
        self.bandwidth = bandwidth
        self.memory = memory

    def _similarities(self, points: Any) -> _Similarities:
        if self.similarity not in ("cosine", "rbf", "precomputed"):
            raise OptionError(
                f"Unknown similarity {self.similarity!r}. "
                "Choose one of 'cosine', 'rbf', 'precomputed'."
            )
        values = check_points(points, "points")
        if self.similarity == "cosine":
            return _Cosine(values)
        if self.similarity == "rbf":
            bandwidth = median_heuristic(values) if self.bandwidth is None else self.bandwidth
            if not (bandwidth > 0 and np.isfinite(bandwidth)):
                raise OptionError(f"bandwidth is {bandwidth}; expected a positive number")
            return _Gaussian(values, float(bandwidth))
        if values.shape[0] != values.shape[1] or (values < 0).any():
            raise DataError(
                f"similarities have shape {values.shape}; expected (n, n), not negative"
            )
        return _Given(values)

    def select(self, points: Any, n: int, *, weights: Any = None) -> Selection:
        """Choose n representatives.

        Parameters
        ----------
        points
            Features, shape (n_pool, d), or similarities, shape (n_pool, n_pool).
        n
            k, how many.
        weights
            How much each row wants to be represented, shape (n_pool,), any scale; a row of weight
            zero is dropped.

        Returns
        -------
        Selection
            The representatives; ``utility`` holds what each added, minus infinity for the others.
        """
        similarities = self._similarities(points)
        rows = similarities.n
        share = np.ones(rows) if weights is None else np.asarray(weights, dtype=np.float64)
        if share.shape != (rows,) or not np.isfinite(share).all() or (share < 0).any():
            raise DataError(
                f"weights have shape {share.shape}; expected ({rows},), finite and not negative"
            )
        alive = share > 0
        k = _check_count(n, int(alive.sum()))
        kept = _Kept(similarities, self.memory)
        self.order_, self.gains_ = _greedy(kept, share / share.sum(), alive, k)
        self.objective_ = float(self.gains_.sum())
        text = (
            f"{k:,} of {rows:,} rows kept by facility location: mean similarity to the nearest one "
            f"{self.objective_:.4g}; {kept.computed:,} rows of similarities computed"
        )
        return _selection(self.order_, self.gains_, rows, "facility location", text)

    def price(self, points: Any, *, pilot_rows: int = 200) -> Price:
        """What comparing every row with every other will cost at most, by a pilot.

        Parameters
        ----------
        points
            As in `select`.
        pilot_rows
            Rows of the pilot.

        Returns
        -------
        Price
            n^2 comparisons and their seconds; the search itself usually needs a part of them.
        """
        similarities = self._similarities(points)
        rows = similarities.n
        return pilot_price(
            similarities.rows, rows, fits=0, comparisons=rows**2, pilot_rows=pilot_rows
        )


class KCenter(Parameterised):
    """Representatives that leave no row far away: farthest-point search.

        radius(S) = max_i min_{j in S} |x_i - x_j|

    Each step takes the row that is farthest from all taken before. The radius is at most twice
    that of the best k rows, and any k rows at all leave a radius of at least half of it. Outliers
    are taken first: clean the data, or take `FacilityLocation`.

    Parameters
    ----------
    start
        Row to begin with; default the one nearest to the mean.

    Attributes
    ----------
    order_
        Row numbers in the order taken, shape (k,).
    radii_
        Radius after each, shape (k,), never growing.
    nearest_
        Which representative is nearest to each row, as a row number, shape (n_pool,).
    radius_
        The last radius.

    Raises
    ------
    OptionError
        A start that is no row, or a number of rows outside 1 to n.
    DataError
        Points that are not finite.

    Notes
    -----
    Cost: O(n k d) time, O(n d) memory.
    Held by: tests/select/test_coverage.py::test_farthest_points_equal_the_definition

    References
    ----------
    .. [Gonzalez1985] Clustering to minimize the maximum intercluster distance.
       Gonzalez, 1985, Theoretical Computer Science.
    .. [Sener2018] Active Learning for Convolutional Neural Networks: A Core-Set Approach.
       Sener, 2018, ICLR.

    Examples
    --------
    >>> import numpy as np
    >>> from dpdq.select import KCenter
    >>> search = KCenter(start=0)
    >>> search.select(np.array([[0.0], [1.0], [4.0], [10.0]]), 2).rows.tolist(), search.radius_
    ([0, 3], 4.0)
    """

    def __init__(self, *, start: int | None = None) -> None:
        self.start = start

    def select(self, points: Any, n: int) -> Selection:
        """Choose n representatives.

        Parameters
        ----------
        points
            Features, shape (n_pool, d).
        n
            k, how many.

        Returns
        -------
        Selection
            The representatives; ``utility`` is the radius that each found, minus infinity for the
            others (the first has that of the second).
        """
        values = check_points(points, "points")
        rows = len(values)
        k = _check_count(n, rows)
        moved = values - values.mean(axis=0)
        squares = np.einsum("ij,ij->i", moved, moved)
        start = int(squares.argmin()) if self.start is None else self.start
        if isinstance(start, bool) or not isinstance(start, (int, np.integer)):
            raise InputTypeError(f"start is a {type(start).__name__}; expected a row number")
        if not 0 <= start < rows:
            raise OptionError(f"start is {start}; expected a row from 0 to {rows - 1}")
        order, radii = np.empty(k, np.int64), np.empty(k)
        reach = np.full(rows, np.inf)
        nearest = np.full(rows, start, dtype=np.int64)
        taken = np.zeros(rows, dtype=bool)
        row = int(start)
        for step in range(k):
            order[step], taken[row] = row, True
            distance = squares - 2.0 * (moved @ moved[row]) + squares[row]
            closer = distance < reach
            closer[row] = True
            np.copyto(reach, distance, where=closer)
            nearest[closer] = row
            reach[taken] = -np.inf
            row = int(reach.argmax())
            # The product decides which row is farthest; its distance is computed directly.
            gap = moved[row] - moved[nearest[row]]
            radii[step] = 0.0 if taken[row] else float(np.sqrt(gap @ gap))
        np.minimum.accumulate(radii, out=radii)  # rounding alone could make it grow
        nearest[order] = order
        self.order_, self.radii_, self.nearest_ = order, radii, nearest
        self.radius_ = float(radii[-1])
        found = np.concatenate([radii[:1], radii[:-1]])
        text = (
            f"{k:,} of {rows:,} rows kept by k-centre: no row is farther than {self.radius_:.4g} "
            f"from one of them, and no {k:,} rows reach less than {self.radius_ / 2:.4g}"
        )
        return _selection(order, found, rows, "k-centre", text)

    def price(self, points: Any, n: int, *, pilot_rows: int = 50) -> Price:
        """What the search will cost, by a pilot of a few representatives.

        Parameters
        ----------
        points
            As in `select`.
        n
            k, how many.
        pilot_rows
            Representatives of the pilot.

        Returns
        -------
        Price
            n k comparisons and their seconds.
        """
        values = check_points(points, "points")
        return pilot_price(
            lambda rows: type(self)(start=self.start).select(values, len(rows)),
            n,
            fits=0,
            comparisons=n * len(values),
            pilot_rows=pilot_rows,
        )
