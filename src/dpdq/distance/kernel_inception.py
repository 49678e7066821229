"""Kernel Inception distance: the squared MMD of a polynomial kernel on features.

With k(x, y) = (x.y / d + 1)^3 on d features,

    KID(Q, P) = E k(X, X') + E k(Y, Y') - 2 E k(X, Y),   X, X' ~ Q,  Y, Y' ~ P,

the squared distance of all moments of q and p up to the third, each with a weight that the kernel
fixes. Against the Fréchet distance it has an unbiased estimate at every sample size, sees skewness,
and needs no covariance of full rank; but like it, it is blind to laws that share their first
moments, here three, and it depends on the origin and the scale of the features: the kernel is made
for features of order one, and with features of order 100 the third moment is all it sees.

The field reports the mean over random subsets with their standard deviation. The subsets overlap
and the spread is that of a subset, not of the mean: it is no standard error, neither in size nor in
the way it falls with the data. Here all pairs are used once, and the standard error is that of the
U-statistic. Features of Inception nets make it KID proper; any other features a metric of its own.
"""

from __future__ import annotations

import math

import numpy as np

from dpdq.distance._common import check_sides, normal_quantile
from dpdq.errors import DataError, OptionError
from dpdq.kernels import map_tiles, symmetric_tiles
from dpdq.results import Estimate
from dpdq.weights._vectors import as_vector

__all__ = ["kernel_inception_distance"]


def kernel_inception_distance(
    q: np.ndarray,
    p: np.ndarray,
    *,
    degree: int = 3,
    gamma: float | None = None,
    coef0: float = 1.0,
    weights_q: np.ndarray | None = None,
    weights_p: np.ndarray | None = None,
    level: float = 0.95,
) -> Estimate:
    """Squared MMD with a polynomial kernel (KID in Inception features), unbiased, with its error.

        KID = mean_{i != j} k(q_i, q_j) + mean_{i != j} k(p_i, p_j) - 2 mean_{ij} k(q_i, p_j),
        k(x, y) = (gamma x.y + c)^degree

    It may be negative, and near q = p half of all estimates are. Two laws with equal moments up to
    the degree have distance zero. Numbers in features of different scale, or with another degree,
    cannot be compared. The interval is a normal one; near q = p the law of the estimate is skewed
    to the right.

    Parameters
    ----------
    q
        Features of generated rows, shape (n_q, d).
    p
        Features of real rows, shape (n_p, d).
    degree
        Of the polynomial, at least 1; with 1 the squared distance of the means is all.
    gamma
        Factor of the inner product, positive; 1/d by default.
    coef0
        c, not negative; with 0 only the moments of exactly this degree count.
    weights_q, weights_p
        Importance weights u of rows, any scale; zero drops the row. The pairs of a row with itself
        are left out and the sums divided by 1 - sum u^2 (weights that sum to one).
    level
        Of the interval.

    Returns
    -------
    Estimate
        KID with its standard error: the first-order variance of the U-statistic and the
        second-order one, which alone remains at q = p.

    Raises
    ------
    DataError
        Values are not finite, columns do not match, a side has fewer than two rows of positive
        weight, or kernel values overflow.
    OptionError
        Degree, gamma, coef0 or level outside their range.

    Notes
    -----
    Changed from the paper: all pairs instead of subsets, and the standard error of the estimate
    instead of the spread of subsets.
    Cost: O((n_q + n_p)^2 d) time, O((n_q + n_p) d) memory.
    Held by: tests/distance/test_kernel_inception.py::test_equals_the_double_loop

    References
    ----------
    .. [Binkowski2018] Demystifying MMD GANs. Bińkowski, 2018, ICLR.
    .. [Sutherland2019] Unbiased estimators for the variance of MMD estimators. Sutherland, 2019,
       arXiv 1906.02104.

    Examples
    --------
    >>> kernel_inception_distance(q=[0.0, 0.0], p=[1.0, 1.0], degree=1).estimate
    1.0
    """
    if degree < 1 or degree != int(degree):
        raise OptionError(f"degree is {degree}; expected an integer of at least 1")
    if gamma is not None and not (gamma > 0.0 and math.isfinite(gamma)):
        raise OptionError(f"gamma is {gamma}; expected a positive number")
    if not (coef0 >= 0.0 and math.isfinite(coef0)):
        raise OptionError(f"coef0 is {coef0}; expected a number that is not negative")
    width = normal_quantile(level)
    q, p = check_sides(q, p, minimum=2)
    rate = 1.0 / q.shape[1] if gamma is None else gamma
    q, u = _keep_weighted(q, weights_q, "q")
    p, v = _keep_weighted(p, weights_p, "p")
    points = np.vstack([q, p])
    with np.errstate(over="ignore", invalid="ignore"):
        own = (rate * np.einsum("ij,ij->i", points, points) + coef0) ** int(degree)
        first, second = _polynomial_sums(points, rate, coef0, int(degree), u, v)
    if not (np.isfinite(own).all() and np.isfinite(second).all()):
        raise DataError("the kernel overflows; divide the features of both sides by one scale")
    value, error = _unbiased(first, second, own, u, v)
    return Estimate(
        estimate=value,
        low=value - width * error,
        high=value + width * error,
        standard_error=error,
        level=level,
        method=f"squared MMD, kernel ({rate:.6g} x.y + {coef0:g})^{int(degree)}, unbiased",
    )


def _keep_weighted(
    points: np.ndarray, weights: np.ndarray | None, side: str
) -> tuple[np.ndarray, np.ndarray]:
    if weights is None:
        return points, np.full(len(points), 1.0 / len(points))
    values = as_vector(weights, f"weights_{side}")
    if values.shape != (len(points),):
        raise DataError(f"weights_{side} has shape {values.shape}; expected ({len(points)},)")
    if not np.isfinite(values).all() or (values < 0).any():
        raise DataError(f"weights_{side} must be finite and not negative")
    keep = values > 0
    if keep.sum() < 2:
        raise DataError(f"{side} has {keep.sum()} rows of positive weight; expected at least 2")
    return points[keep], values[keep] / values.sum()


def _polynomial_sums(
    points: np.ndarray, rate: float, coef0: float, degree: int, u: np.ndarray, v: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """K W and (K * K) W of the pooled rows, W holding the weights of q and of p in two columns."""
    weights = np.zeros((len(points), 2))
    weights[: len(u), 0], weights[len(u) :, 1] = u, v

    def work(where: tuple[slice, slice]) -> tuple[np.ndarray, np.ndarray]:
        rows, columns = where
        tile = points[rows] @ points[columns].T
        tile *= rate
        tile += coef0
        base = tile.copy() if degree > 1 else tile
        for _ in range(degree - 1):
            np.multiply(tile, base, out=tile)
        across, down = [tile @ weights[columns]], [tile.T @ weights[rows]]
        np.multiply(tile, tile, out=tile)
        across.append(tile @ weights[columns])
        down.append(tile.T @ weights[rows])
        return np.hstack(across), np.hstack(down)

    total = np.zeros((len(points), 4))
    tiles = list(symmetric_tiles(len(points)))
    operations = float(len(points)) ** 2 * points.shape[1]
    found = map_tiles(work, tiles, operations=operations)
    for (rows, columns), (across, down) in zip(tiles, found, strict=True):
        total[rows] += across
        if rows != columns:
            total[columns] += down
    return total[:, :2], total[:, 2:]


def _unbiased(
    first: np.ndarray, second: np.ndarray, own: np.ndarray, u: np.ndarray, v: np.ndarray
) -> tuple[float, float]:
    """The estimate without the pairs of a row with itself, and its standard error.

    The squared influences of the rows hold the second-order part of the variance twice, so that it
    is taken off once; at q = p it is all there is.
    """
    n = len(u)
    value, variance = -2.0 * float(u @ first[:n, 1]), 0.0
    for side, rows, column in ((u, slice(0, n), 0), (v, slice(n, None), 1)):
        others = first[rows, column] - side * own[rows]
        value += float(side @ others) / (1.0 - float(side @ side))
        influence = 2.0 * (others / (1.0 - side) - first[rows, 1 - column])
        influence -= float(side @ influence)
        variance += float(np.square(side * influence).sum()) * len(side) / (len(side) - 1)

    mass = np.concatenate([u, v]) / 2
    row = first.sum(axis=1) / 2
    mean = float(mass @ row)
    square = float(mass @ second.sum(axis=1)) / 2 - 2.0 * float(mass @ row**2) + mean**2
    square -= float(np.square(mass * (own - 2.0 * row + mean)).sum())
    square = max(square, 0.0) / (1.0 - float(mass @ mass))
    part = 2.0 * square * (float(u @ u) + float(v @ v)) ** 2
    return value, math.sqrt(max(variance - part, part))
