"""Nearest neighbours and pairs within reach: exact, in tiles, in bounded memory.

For points x_i and y_j let d_ij = ||x_i - y_j||. What stands here are the k smallest d_ij of each
x_i (`nearest_neighbors`) and everything that can be summed over the pairs with d_ij < R_i or
d_ij < R'_j (`visit_pairs`, `count_within`). In more than about ten dimensions no index structure
beats looking at all pairs, and one matrix product looks at them fastest:

    d_ij^2 = |x_i|^2 + |y_j|^2 - 2 x_i.y_j,     off by at most (d + 8) eps (|x_i| + |y_j|)^2

after both are centred. That error is harmless for a picture and fatal for "strictly nearer than
the k-th neighbour": with rounded, copied or integer data the k-th neighbour is often tied, and the
product decides ties by its rounding. The tiles therefore only propose. A pair that is nearer than
the bound, give or take the error, gets its distance again as the root of sum_k (x_ik - y_jk)^2,
summed in one fixed order, so that equal pairs have equal distances wherever they stand, d_ij = d_ji
to the last bit, and strict inequalities mean what they say.

Which k? Small k follows the law's detail and is noisy, large k smooths; 3 to 5 is the rule for
sample metrics, about the square root of n for density estimates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np

from dpdq.errors import DataError, OptionError
from dpdq.kernels import check_points, map_tiles

__all__ = ["count_within", "nearest_neighbors", "pair_distances", "visit_pairs"]

_Result = TypeVar("_Result")
ROWS = 256  # of a tile
COLUMNS = 2048  # of a tile: 4 MiB of float64
PAIRS = 1 << 21  # numbers in a piece of directly computed differences: 16 MiB


class _Moved:
    """Points less a common centre, as the two factors of one matrix product of squares."""

    def __init__(self, points: np.ndarray, center: np.ndarray) -> None:
        with np.errstate(over="ignore"):
            moved = points - center
            squares = np.einsum("ij,ij->i", moved, moved)
        one = np.ones((len(moved), 1))
        self.left = np.hstack([-2.0 * moved, squares[:, None], one])
        self.right = np.hstack([moved, one, squares[:, None]])
        if not (squares < 1e300).all():
            raise DataError("points lie 1e150 or more apart; divide both sides by one scale")
        self.norms = np.sqrt(squares)
        self.rounding = (points.shape[1] + 8) * np.finfo(np.float64).eps


def _tiles(x: _Moved, y: _Moved, rows: slice) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """Squared distances of some rows, and how far they may be off; valid until the next."""
    columns = _slices(len(y.norms), COLUMNS)
    room = np.empty((rows.stop - rows.start) * (columns[0].stop - columns[0].start))
    for where in columns:
        shape = (rows.stop - rows.start, where.stop - where.start)
        tile = room[: shape[0] * shape[1]].reshape(shape)
        reach = x.norms[rows] + y.norms[where].max()
        np.matmul(x.left[rows], y.right[where].T, out=tile)
        yield where, tile, x.rounding * reach**2


def _where(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`numpy.nonzero` of a matrix with few true entries, ten times as fast."""
    i, j = np.divmod(np.flatnonzero(mask), mask.shape[1])
    return i, j


def _slices(n: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


def pair_distances(x: np.ndarray, y: np.ndarray, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """Euclidean distances of listed pairs, the same for (i, j) and (j, i) to the last bit.

        d_m = sqrt(sum_k (x[i_m, k] - y[j_m, k])^2)

    Parameters
    ----------
    x, y
        Points, shapes (n, d) and (m, d).
    i, j
        Row numbers, equally many.

    Returns
    -------
    numpy.ndarray
        One distance a pair; O(pairs d) time, a few MiB of memory beside the answer.

    Examples
    --------
    >>> x = np.array([[0.0, 0.0], [3.0, 4.0]])
    >>> float(pair_distances(x, x, np.array([0]), np.array([1]))[0])
    5.0
    """
    found = np.empty(len(i))
    for part in _slices(len(i), max(1, PAIRS // max(1, x.shape[1]))):
        difference = x[i[part]]
        difference -= y[j[part]]
        np.multiply(difference, difference, out=difference)
        found[part] = difference.sum(axis=1)  # pairwise, in an order that depends on d alone
    return np.sqrt(found, out=found)


def nearest_neighbors(
    x: np.ndarray, y: np.ndarray | None = None, *, n_neighbors: int = 5
) -> tuple[np.ndarray, np.ndarray]:
    """The nearest rows of y to each row of x, or of x itself without the row.

        d_i(1) <= d_i(2) <= ... <= d_i(k),   d_ij = ||x_i - y_j||

    In high dimensions all distances are alike and the nearest neighbour says little; features of
    different units must be brought to one scale before.

    Parameters
    ----------
    x
        Points, shape (n, d).
    y
        Points to look among, shape (m, d). ``None``: the other rows of x.
    n_neighbors
        k, at most m (n - 1 without y).

    Returns
    -------
    tuple of numpy.ndarray
        Distances (n, k), ascending, and the row numbers (n, k); equal distances in the order of
        the rows.

    Raises
    ------
    DataError
        Values are not finite, columns do not match, or there are fewer than k rows to find.
    OptionError
        ``n_neighbors`` is below one.

    Notes
    -----
    Cost: O(n m d) time as matrix products, O((n + m) d + n k) memory.

    Examples
    --------
    >>> distances, rows = nearest_neighbors([0.0, 1.0, 3.0], n_neighbors=1)
    >>> distances[:, 0].tolist(), rows[:, 0].tolist()
    ([1.0, 1.0, 2.0], [1, 0, 1])
    """
    points = check_points(x, "x")
    others = points if y is None else check_points(y, "y")
    _check_columns(points, others)
    k, itself = n_neighbors, y is None
    if k < 1:
        raise OptionError(f"n_neighbors is {k}; expected at least 1")
    if k > len(others) - itself:
        raise DataError(
            f"n_neighbors is {k}, but there are only {len(others) - itself} other rows; "
            "ask for fewer neighbours or give more rows"
        )
    center = others.mean(axis=0)
    right = _Moved(others, center)
    left = right if itself else _Moved(points, center)

    def work(rows: slice) -> tuple[np.ndarray, np.ndarray]:
        i, j, about, error = _propose(left, right, rows, k, itself)
        keep = _within_kth(i, about, k, error)
        i, j = i[keep], j[keep]
        exact = pair_distances(points[rows], others, i, j)
        order = np.lexsort((j, exact, i))
        first = np.searchsorted(i[order], np.arange(rows.stop - rows.start))
        take = order[first[:, None] + np.arange(k)]
        return exact[take], j[take]

    items = _slices(len(points), ROWS)
    operations = 2.0 * len(points) * len(others) * points.shape[1]
    found = list(map_tiles(work, items, operations=operations))
    return np.vstack([one[0] for one in found]), np.vstack([one[1] for one in found])


def _propose(
    left: _Moved, right: _Moved, rows: slice, k: int, itself: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Pairs that may belong to the k nearest of each row: rows, columns, squares, errors."""
    n = rows.stop - rows.start
    bound = np.full(n, np.inf)
    error = np.zeros(n)
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for where, tile, wrong in _tiles(left, right, rows):
        np.maximum(error, wrong, out=error)
        if itself:
            own = np.arange(max(rows.start, where.start), min(rows.stop, where.stop))
            tile[own - rows.start, own - where.start] = np.inf
        if not np.isfinite(bound).all() and tile.shape[1] >= k:
            kth = np.partition(tile, k - 1, axis=1)[:, k - 1]
            np.minimum(bound, kth + 2.0 * wrong, out=bound)
        i, j = _where(tile <= np.minimum(bound, np.finfo(np.float64).max)[:, None])
        parts.append((i, j + where.start, tile[i, j]))
    i, j, about = (np.concatenate(values) for values in zip(*parts, strict=True))
    return i, j, about, error


def _within_kth(i: np.ndarray, about: np.ndarray, k: int, error: np.ndarray) -> np.ndarray:
    """Which proposals can be among the k nearest of their row, given the errors of the squares."""
    order = np.lexsort((about, i))
    first = np.searchsorted(i[order], np.arange(len(error)))
    kth = about[order[first + k - 1]]
    return about <= (kth + 2.0 * error)[i]


def visit_pairs(
    x: np.ndarray,
    y: np.ndarray,
    visit: Callable[[np.ndarray, np.ndarray, np.ndarray], _Result],
    *,
    radii_x: np.ndarray | None = None,
    radii_y: np.ndarray | None = None,
) -> Iterator[_Result]:
    """Hand every pair that is near enough to a function, tile by tile.

        all (i, j) with d_ij < radii_x[i] or d_ij < radii_y[j]

    Parameters
    ----------
    x, y
        Points, shapes (n, d) and (m, d), as `check_points` returns them.
    visit
        A function of rows of x, rows of y and their exact distances, which returns something
        small: what it returns for all tiles waits to be fetched. It runs on several threads.
    radii_x, radii_y
        Radius of each row of x, of y, or of both; strict.

    Yields
    ------
    object
        What ``visit`` returned, in a fixed order of tiles; nothing for tiles without a pair.

    Raises
    ------
    OptionError
        Neither radii are given.

    Notes
    -----
    Cost: O(n m d) time as matrix products and O(d) a pair found, O((n + m) d) memory.

    Examples
    --------
    >>> x, y = np.array([[0.0], [5.0]]), np.array([[1.0], [2.0]])
    >>> list(visit_pairs(x, y, lambda i, j, d: len(d), radii_x=np.array([2.0, 2.0])))
    [1]
    """
    if radii_x is None and radii_y is None:
        raise OptionError("visit_pairs needs radii_x, radii_y or both")
    center = y.mean(axis=0)
    left, right = _Moved(x, center), _Moved(y, center)
    widened = 1.0 + 8.0 * np.finfo(np.float64).eps  # a root squared is not the square
    squares_x = None if radii_x is None else radii_x**2 * widened
    squares_y = None if radii_y is None else radii_y**2 * widened

    def work(rows: slice) -> list[_Result]:
        found = []
        limit = np.zeros(1) if squares_x is None else squares_x[rows]
        for columns, tile, wrong in _tiles(left, right, rows):
            near = tile <= (limit + wrong)[:, None]
            if squares_y is not None:
                near |= tile <= squares_y[columns] + wrong.max()
            i, j = _where(near)
            i, j = i + rows.start, j + columns.start
            distances = pair_distances(x, y, i, j)
            inside = np.zeros(len(i), dtype=bool)
            if radii_x is not None:
                inside |= distances < radii_x[i]
            if radii_y is not None:
                inside |= distances < radii_y[j]
            if inside.any():
                found.append(visit(i[inside], j[inside], distances[inside]))
        return found

    operations = 2.0 * len(x) * len(y) * x.shape[1]
    for found in map_tiles(work, _slices(len(x), ROWS), operations=operations):
        yield from found


def count_within(x: np.ndarray, y: np.ndarray, radii: np.ndarray | float) -> np.ndarray:
    """How many rows of y lie strictly within a radius of each row of x.

        c_i = #{j : ||x_i - y_j|| < R_i}

    Parameters
    ----------
    x, y
        Points, shapes (n, d) and (m, d).
    radii
        R, one number or one a row of x.

    Returns
    -------
    numpy.ndarray
        Integer counts, shape (n,).

    Raises
    ------
    DataError
        Values are not finite, columns do not match, or radii are negative or of another length.

    Notes
    -----
    Cost: O(n m d) time as matrix products, O((n + m) d) memory.

    Examples
    --------
    >>> count_within([0.0, 5.0], [1.0, 2.0, 5.0], 2.0).tolist()
    [1, 1]
    """
    points, others = check_points(x, "x"), check_points(y, "y")
    _check_columns(points, others)
    reach = np.asarray(radii, dtype=np.float64)
    if reach.ndim > 0 and reach.shape != (len(points),):
        raise DataError(f"radii have shape {reach.shape}; expected one number or ({len(points)},)")
    if not (reach >= 0).all():
        raise DataError("radii must be numbers that are not negative")
    reach = np.broadcast_to(reach, len(points))
    counts = np.zeros(len(points), dtype=np.int64)

    def visit(i: np.ndarray, j: np.ndarray, distances: np.ndarray) -> tuple[int, np.ndarray]:
        return int(i[0]), np.bincount(i - i[0])

    for start, part in visit_pairs(points, others, visit, radii_x=reach):
        counts[start : start + len(part)] += part
    return counts


def _check_columns(x: np.ndarray, y: np.ndarray) -> None:
    if x.shape[1] != y.shape[1]:
        raise DataError(
            f"x has {x.shape[1]} features and y has {y.shape[1]}; both need the same columns"
        )
