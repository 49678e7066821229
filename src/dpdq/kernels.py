"""Kernels on points: tiles of distances, and families of bandwidths that share one tile.

A kernel here is a function of the distance of two points,

    gaussian     k(x, y) = exp(-||x - y||^2 / (2 h^2))      Euclidean distance
    laplace      k(x, y) = exp(-||x - y||_1 / h)            city-block distance
    exponential  k(x, y) = exp(-||x - y|| / h)              Euclidean distance
    energy       k(x, y) = -||x - y||                       conditionally positive, no bandwidth

The first three are characteristic: the mean embeddings of two laws are equal only if the laws are.
The bandwidth h sets the scale on which laws are told apart, and no single scale serves all: h far
above the data sees little but the means, h far below them sees only coincidences. The median
heuristic (h = the median pooled distance) is the usual single choice; `bandwidth_grid` covers the
distances that occur and is what aggregated tests take.

Everything is computed in square tiles of a few hundred rows, so that memory does not grow with
n^2, and only on and above the diagonal where a matrix is symmetric. A tile of distances is
multiplied in float64, where ||x||^2 + ||y||^2 - 2 x.y loses nothing that matters, and then rounded
to the type of the kernel tile. In float32 a kernel value with k <= 1 is therefore within 1e-6 of
the exact one whatever the data: rounding the exponent e costs at most max_e |e| exp(e) eps < eps,
and each of at most three squarings doubles a relative error of the same size.

The functions here choose nothing by side: scale, centre and bandwidths are symmetric functions of
the pooled rows (or of a subset of them drawn without looking at the side), which is what keeps a
permutation test exact.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, TypeVar

import numpy as np

from dpdq._threads import parallel_map
from dpdq.errors import DataError, InputTypeError, OptionError

__all__ = [
    "ExponentialKernel",
    "EnergyKernel",
    "GaussianKernel",
    "Kernel",
    "LaplaceKernel",
    "bandwidth_grid",
    "check_points",
    "distance_tile",
    "kernel_matrix",
    "kernel_sums",
    "map_tiles",
    "median_heuristic",
    "standard_points",
    "symmetric_tiles",
]

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
Metric = Literal["euclidean", "cityblock"]
FEW = 5e7  # operations: a few hundredths of a second
PIECE = 256  # items of `map_tiles` that are handed out together
TILE = 512  # rows of a tile: three float64 tiles of this side fit a 6 MiB cache


def check_points(x: np.ndarray, side: str) -> np.ndarray:
    """Points as a float64 matrix, or an error that says what is wrong with them.

    A vector is n points in one dimension. Missing and infinite values are refused.

    Parameters
    ----------
    x
        Numbers, shape (n,) or (n, d).
    side
        What to call them in a message, such as ``"q"``.

    Returns
    -------
    numpy.ndarray
        Shape (n, d), float64, C order.

    Raises
    ------
    InputTypeError
        The values are not numbers.
    DataError
        Wrong number of axes, no rows, no columns, or values that are not finite.

    Examples
    --------
    >>> check_points([1, 2, 4], "q").shape
    (3, 1)
    """
    try:
        points = np.asarray(x, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputTypeError(
            f"{side} must be an array of numbers of shape (n, d), not {type(x).__name__}; "
            "turn mixed columns into features first"
        ) from None
    if points.ndim == 1:
        points = points[:, None]
    if points.ndim != 2:
        raise DataError(f"{side} has shape {points.shape}; expected (n_samples, n_features)")
    if points.shape[0] == 0 or points.shape[1] == 0:
        raise DataError(f"{side} has shape {points.shape}; expected at least one row and column")
    finite = np.isfinite(points)
    if not finite.all():
        bad = ~finite.all(axis=1)
        raise DataError(
            f"{side}: {int(bad.sum())} of {len(points)} rows hold missing or infinite values "
            f"(first at row {int(bad.argmax())}); drop or fill them"
        )
    return np.ascontiguousarray(points)


def standard_points(points: np.ndarray, *, limit: float = 1e15) -> tuple[np.ndarray, float]:
    """Pooled points moved to their median and divided by one robust scale.

        z_i = clip((x_i - median(x)) / s, -limit, limit),   s = median_i max_j |x_ij - median_j|

    One scale for all columns, so that Euclidean distances keep their proportions. The limit only
    keeps squares inside the range of float32.

    Parameters
    ----------
    points
        Pooled rows, shape (n, d).
    limit
        Largest absolute coordinate that is kept.

    Returns
    -------
    tuple
        The moved points and the scale s.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        moved = points - np.median(points, axis=0)
        reach = np.abs(moved).max(axis=1)
        scale = float(np.median(reach))
        if scale == 0.0 and (reach > 0).any():
            scale = float(np.median(reach[reach > 0]))
        if not (scale > 0.0 and math.isfinite(scale)):
            scale = 1.0
        moved /= scale
    return np.clip(moved, -limit, limit), scale


def symmetric_tiles(n: int, size: int = TILE) -> Iterator[tuple[slice, slice]]:
    """Pairs of row ranges that cover a symmetric n x n matrix on and above its diagonal.

    Examples
    --------
    >>> [(rows.start, columns.start) for rows, columns in symmetric_tiles(5, 2)]
    [(0, 0), (0, 2), (0, 4), (2, 2), (2, 4), (4, 4)]
    """
    for start in range(0, n, size):
        for other in range(start, n, size):
            yield slice(start, min(start + size, n)), slice(other, min(other + size, n))


def map_tiles(
    work: Callable[[_Item], _Result], items: Sequence[_Item], *, operations: float = math.inf
) -> Iterator[_Result]:
    """Do one piece of work an item on all cores, and hand the results back in order.

    At most `PIECE` results wait to be fetched. What is computed does not depend on the cores.

    Parameters
    ----------
    work
        A function of one item that spends its time in NumPy.
    items
        The items.
    operations
        About how many operations all the work takes; below `FEW` threads are not worth starting.

    Yields
    ------
    object
        What ``work`` returned, in the order of ``items``.
    """
    if operations < FEW:
        yield from map(work, items)
        return
    for start in range(0, len(items), PIECE):
        yield from parallel_map(work, items[start : start + PIECE])


def distance_tile(
    x: np.ndarray, y: np.ndarray, metric: Metric, out: np.ndarray | None = None
) -> np.ndarray:
    """Distances of all pairs of two small sets of points: squared Euclidean, or city-block.

    Parameters
    ----------
    x, y
        Points, shapes (n, d) and (m, d).
    metric
        ``"euclidean"`` gives ||x - y||^2 and ``"cityblock"`` gives ||x - y||_1.
    out
        Where to put them, shape (n, m), float32 or float64.

    Returns
    -------
    numpy.ndarray
        Shape (n, m), never negative.
    """
    tile = np.empty((len(x), len(y))) if out is None else out
    if metric == "euclidean":
        # ||x||^2 + ||y||^2 - 2 x.y as one matrix product
        left = np.hstack([-2.0 * x, np.einsum("ij,ij->i", x, x)[:, None], np.ones((len(x), 1))])
        right = np.hstack([y, np.ones((len(y), 1)), np.einsum("ij,ij->i", y, y)[:, None]])
        return np.maximum(left @ right.T, 0.0, out=tile, casting="same_kind")
    x, y = x.astype(tile.dtype, copy=False), y.astype(tile.dtype, copy=False)
    part = np.empty_like(tile)
    tile[...] = 0.0
    for column in range(x.shape[1]):
        np.subtract(x[:, column, None], y[:, column], out=part)
        np.abs(part, out=part)
        tile += part
    return tile


class Kernel(abc.ABC):
    """One form of kernel with all its bandwidths; a tile of distances serves them together.

    Attributes
    ----------
    name
        The form, as in the module's table.
    metric
        The distance it is a function of.
    bandwidths
        From wide to narrow; one entry of NaN for a kernel that has none.
    diagonal
        k(x, x).
    """

    name: str
    metric: Metric
    bandwidths: tuple[float, ...]
    diagonal: float = 1.0

    @abc.abstractmethod
    def each(self, distances: np.ndarray) -> Iterator[np.ndarray]:
        """The kernel's tile at each bandwidth in turn; each is valid until the next is asked for.

        Parameters
        ----------
        distances
            From `distance_tile`; left as they are.
        """

    def __len__(self) -> int:
        return len(self.bandwidths)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({[float(f'{h:.4g}') for h in self.bandwidths]})"


def _sorted_bandwidths(bandwidths: float | Sequence[float]) -> tuple[float, ...]:
    values = sorted(np.atleast_1d(np.asarray(bandwidths, dtype=np.float64)).tolist(), reverse=True)
    if not values or not all(math.isfinite(h) and h > 0 for h in values):
        raise OptionError(f"bandwidths are {values}; expected positive numbers")
    return tuple(values)


def _exponentials(exponent: np.ndarray, rates: Sequence[float]) -> Iterator[np.ndarray]:
    """exp(-rate * exponent) for increasing rates; a doubled rate is the square of the last."""
    tile = np.empty_like(exponent)
    last, squarings = math.nan, 0
    for rate in rates:
        if squarings < 3 and abs(rate - 2.0 * last) <= 1e-12 * rate:
            np.multiply(tile, tile, out=tile)
            squarings += 1
        else:
            np.multiply(exponent, -rate, out=tile)
            np.exp(tile, out=tile)
            squarings = 0
        last = rate
        yield tile


class GaussianKernel(Kernel):
    """exp(-||x - y||^2 / (2 h^2)).

    Examples
    --------
    >>> kernel_matrix([0.0, 1.0], [0.0], GaussianKernel(1.0))[:, 0].round(4)
    array([1.    , 0.6065])
    """

    name = "gaussian"
    metric: Metric = "euclidean"

    def __init__(self, bandwidths: float | Sequence[float]) -> None:
        self.bandwidths = _sorted_bandwidths(bandwidths)

    def each(self, distances: np.ndarray) -> Iterator[np.ndarray]:
        """The tile at each bandwidth; bandwidths in ratio sqrt(2) come by squaring."""
        yield from _exponentials(distances, [0.5 / h**2 for h in self.bandwidths])


class LaplaceKernel(Kernel):
    """exp(-||x - y||_1 / h), with the city-block distance: costs O(d) passes over a tile."""

    name = "laplace"
    metric: Metric = "cityblock"

    def __init__(self, bandwidths: float | Sequence[float]) -> None:
        self.bandwidths = _sorted_bandwidths(bandwidths)

    def each(self, distances: np.ndarray) -> Iterator[np.ndarray]:
        """The tile at each bandwidth; bandwidths in ratio 2 come by squaring."""
        yield from _exponentials(distances, [1.0 / h for h in self.bandwidths])


class ExponentialKernel(Kernel):
    """exp(-||x - y|| / h): sharp at zero like the Laplace kernel, at the cost of the Gaussian."""

    name = "exponential"
    metric: Metric = "euclidean"

    def __init__(self, bandwidths: float | Sequence[float]) -> None:
        self.bandwidths = _sorted_bandwidths(bandwidths)

    def each(self, distances: np.ndarray) -> Iterator[np.ndarray]:
        """The tile at each bandwidth; bandwidths in ratio 2 come by squaring."""
        yield from _exponentials(np.sqrt(distances), [1.0 / h for h in self.bandwidths])


class EnergyKernel(Kernel):
    """-||x - y||, whose squared MMD is the energy distance 2 E|X-Y| - E|X-X'| - E|Y-Y'|."""

    name = "energy"
    metric: Metric = "euclidean"
    diagonal = 0.0
    bandwidths = (math.nan,)

    def each(self, distances: np.ndarray) -> Iterator[np.ndarray]:
        """The one tile of negative distances."""
        tile = np.sqrt(distances)
        yield np.negative(tile, out=tile)


def kernel_matrix(x: np.ndarray, y: np.ndarray, kernel: Kernel) -> np.ndarray:
    """The kernel of all pairs of two small sets of points, in float64.

    Parameters
    ----------
    x, y
        Points, shapes (n, d) and (m, d), or vectors.
    kernel
        A kernel of one bandwidth.

    Returns
    -------
    numpy.ndarray
        Shape (n, m); O(n m) memory, so for small sets only.

    Raises
    ------
    OptionError
        The kernel has more than one bandwidth.
    """
    if len(kernel) != 1:
        raise OptionError(f"kernel_matrix takes one bandwidth, not {len(kernel)}")
    x, y = check_points(x, "x"), check_points(y, "y")
    return next(kernel.each(distance_tile(x, y, kernel.metric)))


def kernel_sums(
    points: np.ndarray, kernel: Kernel, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Sums of a kernel and of its square over weighted rows, without the n x n matrix.

        first = K W,   second = (K * K) W      with K_ij = k(x_i, x_j), the diagonal included

    Parameters
    ----------
    points
        Shape (n, d).
    kernel
        A kernel of one bandwidth.
    weights
        W, shape (n, c), any signs.

    Returns
    -------
    tuple
        Both sums, shape (n, c), float64. O(n^2 d) time, O(n) memory.
    """
    n_columns = weights.shape[1]

    def work(where: tuple[slice, slice]) -> tuple[np.ndarray, np.ndarray]:
        rows, columns = where
        distances = distance_tile(points[rows], points[columns], kernel.metric)
        if rows == columns:
            np.fill_diagonal(distances, 0.0)
        tile = next(kernel.each(distances))
        across = [tile @ weights[columns]]
        down = [tile.T @ weights[rows]]
        np.multiply(tile, tile, out=tile)
        across.append(tile @ weights[columns])
        down.append(tile.T @ weights[rows])
        return np.hstack(across), np.hstack(down)

    total = np.zeros((len(points), 2 * n_columns))
    tiles = list(symmetric_tiles(len(points)))
    for (rows, columns), (across, down) in zip(tiles, map_tiles(work, tiles), strict=True):
        total[rows] += across
        if rows != columns:
            total[columns] += down
    return total[:, :n_columns], total[:, n_columns:]


def _pair_distances(points: np.ndarray, metric: Metric) -> np.ndarray:
    """Sorted positive distances of all pairs; [1.0] when all points are equal."""
    distances = distance_tile(points, points, metric)
    found = distances[np.triu_indices(len(points), 1)]
    if metric == "euclidean":
        found = np.sqrt(found)
    # Equal rows differ by rounding only: coincidences carry no scale.
    found = np.sort(found[found > 1e-7 * found.max(initial=0.0)])
    return found if len(found) else np.ones(1)


def median_heuristic(x: np.ndarray, *, metric: Metric = "euclidean", max_rows: int = 1000) -> float:
    """The median distance between different points: the usual single bandwidth.

        h = median_{i < j} d(x_i, x_j)   over pairs at positive distance

    It follows the bulk of the distances and misses differences on finer scales. Costs
    O(m^2 d) time and O(m^2) memory for m = min(n, max_rows).

    Parameters
    ----------
    x
        Points, shape (n, d); pool both sides for a test.
    metric
        ``"euclidean"`` or ``"cityblock"``.
    max_rows
        With more rows, this many evenly spaced ones are used.

    Returns
    -------
    float
        The bandwidth; 1.0 when all points are equal.

    Raises
    ------
    DataError
        The points are not finite numbers.

    Examples
    --------
    >>> median_heuristic([0.0, 1.0, 3.0])
    2.0
    """
    points = check_points(x, "x")
    if len(points) > max_rows:
        points = points[np.linspace(0, len(points) - 1, max_rows).astype(np.int64)]
    points, scale = standard_points(points, limit=1e150)
    return scale * float(np.median(_pair_distances(points, metric)))


def bandwidth_grid(
    points: np.ndarray, n_bandwidths: int = 10, *, metric: Metric = "euclidean"
) -> tuple[float, ...]:
    """Bandwidths in geometric steps that cover the distances that occur.

    From twice the 95 % quantile of the distances down to half their 5 % quantile. At the narrow
    end every twentieth pair still has a Gaussian kernel above 0.13: narrower kernels would hang on
    a handful of pairs.

    Parameters
    ----------
    points
        A sample of pooled rows, shape (m, d); the cost is O(m^2) memory.
    n_bandwidths
        How many.
    metric
        The kernel's distance.

    Returns
    -------
    tuple of float
        From wide to narrow.

    Examples
    --------
    >>> [round(h, 3) for h in bandwidth_grid(np.array([[0.0], [1.0]]), 3)]
    [2.0, 1.0, 0.5]
    """
    low, high = np.quantile(_pair_distances(points, metric), [0.05, 0.95])
    return tuple(np.geomspace(2.0 * high, 0.5 * low, n_bandwidths).tolist())
