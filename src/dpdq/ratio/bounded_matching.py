"""The quadratic problem of mean matching: bounded weights of bounded mean, by projected gradients.

    w = argmin ½ (s w)'K(s w) - (s w)'kappa,   0 <= w_i <= B,   |s'w - 1| <= epsilon

with shares s of sum one, a kernel matrix K of the rows of q, and kappa_i = E_p[k(x_i, .)].

In the geometry of s the gradient is the witness function K(s w) - kappa at the rows, and the
projection on the bounds is w = clip(y - lambda, 0, B) with lambda found exactly among the kinks of
a piecewise linear function. Accelerated projected gradient steps need one product with K
each. On the plane of equal means K acts without its constant direction, by far its largest, which
makes steps ten to thirty times as long. The duality gap says when to stop:

    J(w) - J(w*) <= max over feasible z of sum_i s_i g_i (w_i - z_i),   g = K(s w) - kappa.

The solver knows K by its products alone. `kernel_product` makes one from the upper half of a
Gaussian kernel matrix in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.linalg import get_blas_funcs

from dpdq.kernels import GaussianKernel, distance_tile, symmetric_tiles
from dpdq.ratio._bumps import blocks
from dpdq.ratio._common import Array

__all__ = ["MatchedWeights", "kernel_product", "match_means", "mean_kernel", "project_to_bounds"]

_TILE = 512
_ROUNDING = 1e-6  # of a mean of float32 kernel values, with room to spare


@dataclass(frozen=True)
class MatchedWeights:
    """Weights as the bounds have them, their objective, duality gap, and how they were reached."""

    values: Array
    objective: float
    gap: float
    n_iterations: int
    converged: bool


def match_means(
    product: Callable[[Array], Array],
    target: Array,
    share: Array,
    *,
    bound: float = 1e3,
    epsilon: float = 0.0,
    tolerance: float = 0.01,
    max_iterations: int = 1_000,
) -> MatchedWeights:
    """Solve the quadratic problem of kernel mean matching by accelerated projected gradients.

        argmin ½ (s w)'K(s w) - (s w)'kappa,   0 <= w <= bound,  |s'w - 1| <= epsilon

    Parameters
    ----------
    product
        v -> K v for a positive semi-definite kernel matrix with entries up to 1.
    target
        kappa, shape (n,).
    share
        s, positive, of sum one.
    bound, epsilon, tolerance, max_iterations
        As in `KernelMeanMatching`.

    Returns
    -------
    MatchedWeights
        ``values`` start at 1 and stay there where nothing can be gained.

    Notes
    -----
    Cost: one product with K and O(n log n) time a step, O(n) memory beside K.
    Held by: tests/ratio/test_mean_matching.py::test_optimum_against_an_independent_solver

    References
    ----------
    .. [ODonoghue2015] Adaptive Restart for Accelerated Gradient Schemes. O'Donoghue, 2015,
       Foundations of Computational Mathematics 15.

    Examples
    --------
    >>> import numpy as np
    >>> from dpdq.ratio.bounded_matching import match_means
    >>> kernel = np.array([[1.0, 0.1], [0.1, 1.0]])
    >>> match_means(lambda v: kernel @ v, np.array([0.1, 1.0]), np.full(2, 0.5)).values.round(3)
    array([0., 2.])
    """
    low, high = 1.0 - epsilon, 1.0 + epsilon
    weights = np.ones(len(share))
    image = product(share * weights)
    start = objective = float((share * weights) @ (image / 2 - target))
    gap = _duality_gap(weights, image - target, share, bound, low, high)
    if gap <= _ROUNDING:
        return MatchedWeights(weights, objective, gap, 0, True)
    curvature = _curvature(product, share, image - target)
    point, point_image, momentum = weights, image, 1.0
    for iteration in range(1, max_iterations + 1):
        while True:
            ahead = project_to_bounds(
                point - (point_image - target) / curvature, share, bound, low, high
            )
            ahead_image = product(share * ahead)
            move = share * (ahead - point)
            bent = move @ (ahead_image - point_image)
            slack = _ROUNDING * np.abs(move).sum()
            if bent <= curvature * (move @ (ahead - point)) + slack:
                break
            curvature *= 1.5
        if (share * (point - ahead)) @ (ahead - weights) > 0:
            momentum = 1.0  # the last step went uphill: start afresh
        following = (1.0 + np.sqrt(1.0 + 4.0 * momentum**2)) / 2.0
        push = (momentum - 1.0) / following
        point = ahead + push * (ahead - weights)
        point_image = ahead_image + push * (ahead_image - image)
        weights, image, momentum = ahead, ahead_image, following
        if iteration % 5 == 0 or iteration == max_iterations:
            objective = float((share * weights) @ (image / 2 - target))
            gap = _duality_gap(weights, image - target, share, bound, low, high)
            if gap <= max(tolerance * (start - objective), _ROUNDING):
                return MatchedWeights(weights, objective, gap, iteration, True)
    return MatchedWeights(weights, objective, gap, max_iterations, False)


def project_to_bounds(point: Array, share: Array, bound: float, low: float, high: float) -> Array:
    """Nearest w to ``point`` with 0 <= w <= bound and low <= share'w <= high.

        argmin sum_i share_i (w_i - point_i)²  =  clip(point - lambda, 0, bound)

    Exact: share'clip(point - lambda) is linear in lambda between neighbouring values of
    ``point`` and ``point - bound``, and halving finds the two between which it is low (or high).

    Parameters
    ----------
    point
        Shape (n,).
    share
        Positive, of sum one.
    bound, low, high
        With 0 <= low <= high <= bound.

    Returns
    -------
    ndarray of shape (n,)
        The projection.

    Notes
    -----
    Cost: O(n log n) time, O(n) memory.
    Held by: tests/ratio/test_mean_matching.py::test_projection_is_the_nearest_point

    References
    ----------
    .. [Brucker1984] An O(n) Algorithm for Quadratic Knapsack Problems. Brucker, 1984, Operations
       Research Letters 3.

    Examples
    --------
    >>> import numpy as np
    >>> from dpdq.ratio.bounded_matching import project_to_bounds
    >>> project_to_bounds(np.array([3.0, 1.0, -1.0]), np.full(3, 1 / 3), 10.0, 1.0, 1.0)
    array([2.5, 0.5, 0. ])
    """

    def total(shift: float) -> float:
        return float(share @ np.clip(point - shift, 0.0, bound))

    there = total(0.0)
    if low <= there <= high:
        return np.clip(point, 0.0, bound)
    wanted = low if there < low else high
    kinks = np.sort(np.concatenate([point - bound, point]))
    left, right = 0, len(kinks) - 1  # total falls from bound to 0
    while right - left > 1:
        middle = (left + right) // 2
        if total(kinks[middle]) >= wanted:
            left = middle
        else:
            right = middle
    above, below = total(kinks[left]), total(kinks[right])
    part = (above - wanted) / (above - below) if above > below else 0.0
    return np.clip(point - (kinks[left] + part * (kinks[right] - kinks[left])), 0.0, bound)


def _duality_gap(
    weights: Array, gradient: Array, share: Array, bound: float, low: float, high: float
) -> float:
    """Largest first-order decrease within the bounds: mass goes to the smallest gradients."""
    order = np.argsort(gradient)
    room = bound * share[order]
    before = np.cumsum(room) - room
    mass = np.where(gradient[order] < 0, high, low)
    best = gradient[order] @ np.clip(mass - before, 0.0, room)
    return max(float((share * weights) @ gradient - best), 0.0)


def _curvature(product: Callable[[Array], Array], share: Array, gradient: Array) -> float:
    """Largest curvature of the objective along directions of mean zero, by power iteration."""
    direction = gradient - share @ gradient
    norm = 0.0
    for _ in range(8):
        length = np.sqrt(share @ direction**2)
        if length == 0:
            break
        direction = product(share * (direction / length))
        direction -= share @ direction
        norm = float(np.sqrt(share @ direction**2))
    return max(1.05 * norm, 1e-9)


def kernel_product(rows: Array, bandwidth: float) -> Callable[[Array], Array]:
    """The map v -> K v, with the upper half of the Gaussian K held in float32.

    Parameters
    ----------
    rows
        Standardised rows, shape (n, d).
    bandwidth
        Of the kernel exp(-|x - y|² / (2 bandwidth²)).

    Returns
    -------
    callable
        From shape (n,) to shape (n,), float64; off by rounding in float32, about 1e-7 of the sum
        of |v|. O(n² d) time to make, O(n²) time to call, 2 n² bytes or a little more.
    """
    kernel = GaussianKernel(bandwidth)
    matrix = np.empty((len(rows), len(rows)), np.float32)
    for here, there in symmetric_tiles(len(rows), _TILE):
        matrix[here, there] = _tile(rows[here], rows[there], kernel)
    (symv,) = get_blas_funcs(("symv",), (matrix,))
    lower = matrix.T  # the order of columns that BLAS reads; its lower half is filled

    def product(vector: Array) -> Array:
        return symv(1.0, lower, vector.astype(np.float32), lower=1).astype(np.float64)

    return product


def mean_kernel(rows: Array, others: Array, share: Array, bandwidth: float) -> Array:
    """Means of a Gaussian kernel over one sample, at the rows of another: E_p[k(x_i, .)].

    Parameters
    ----------
    rows, others
        Standardised rows x_i, shape (n, d), and those that the mean is over, shape (m, d).
    share
        Of the latter, of sum one.
    bandwidth
        As in `kernel_product`.

    Returns
    -------
    ndarray of shape (n,)
        O(n m d) time, O(n) memory.
    """
    kernel, total = GaussianKernel(bandwidth), np.zeros(len(rows))
    for here in blocks(len(rows), _TILE):
        for there in blocks(len(others), _TILE):
            tile = _tile(rows[here], others[there], kernel)
            total[here] += tile @ share[there].astype(np.float32)
    return total


def _tile(x: Array, y: Array, kernel: GaussianKernel) -> Array:
    out = np.empty((len(x), len(y)), np.float32)
    return next(kernel.each(distance_tile(x, y, "euclidean", out)))
