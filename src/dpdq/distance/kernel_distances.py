"""Distances between the mean embeddings of two laws.

A kernel k turns a law into its mean embedding mu_P = E_P k(X, .), and the squared maximum mean
discrepancy is the squared distance of two of them,

    MMD^2(Q, P) = ||mu_Q - mu_P||^2 = E k(X, X') + E k(Y, Y') - 2 E k(X, Y),   X ~ Q, Y ~ P.

For a characteristic kernel it is zero only if Q = P. With k(x, y) = -||x - y|| it is the energy
distance. What the definition leaves open is the scale at which laws are compared, the bandwidth:
far above the spread of the data it is the squared difference of the means, far below it hardly
depends on the laws at all. `energy_distance` has no bandwidth and the unit of the data;
`mmd` with a fixed bandwidth has a fixed meaning; the median heuristic is a default, not a constant.

The standard errors hold both parts of the variance of a U-statistic: the first-order part, which
is all there is far from Q = P, and the second-order part, which is all there is at Q = P. For
"is the difference real" take a test (`dpdq.distance.kernel_tests`), not an interval.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from dpdq.distance._common import check_sides, check_weights, normal_quantile
from dpdq.errors import OptionError
from dpdq.kernels import (
    EnergyKernel,
    GaussianKernel,
    Kernel,
    LaplaceKernel,
    kernel_sums,
    median_heuristic,
    standard_points,
)
from dpdq.results import Estimate

__all__ = ["energy_distance", "mmd"]

KERNELS = ("gaussian", "laplace", "energy")


def mmd(
    q: np.ndarray,
    p: np.ndarray,
    *,
    kernel: Literal["gaussian", "laplace", "energy"] = "gaussian",
    bandwidth: float | None = None,
    unbiased: bool = True,
    weights_q: np.ndarray | None = None,
    weights_p: np.ndarray | None = None,
    level: float = 0.95,
) -> Estimate:
    """Squared maximum mean discrepancy of two samples, with its standard error.

        MMD^2 = sum_ij u_i u_j k(q_i, q_j) + sum_ij v_i v_j k(p_i, p_j)
                - 2 sum_ij u_i v_j k(q_i, p_j)

    with weights u and v that sum to one on each side. The unbiased estimate leaves out i = j in
    the first two sums and divides them by 1 - sum u_i^2 and 1 - sum v_i^2 instead; it may be
    negative. Gaussian: exp(-||x-y||^2 / (2 h^2)). Laplace: exp(-||x-y||_1 / h). Energy: -||x-y||.

    It depends on the bandwidth: numbers made with different bandwidths cannot be compared, and a
    small value at one bandwidth does not mean that the laws are near. The interval is a normal
    one; it is asymptotic, and near q = p the law of the estimate is skewed to the right.

    Parameters
    ----------
    q, p
        Samples, shapes (n_q, d) and (n_p, d); vectors are one-dimensional points.
    kernel
        ``"gaussian"``, ``"laplace"`` or ``"energy"``.
    bandwidth
        h, on the scale of the data; the median heuristic over the pooled rows by default.
    unbiased
        Whether to leave out the pairs of a row with itself.
    weights_q, weights_p
        Importance weights of rows, any scale; zero drops the row. With ``unbiased=False``
        integer weights equal repeated rows.
    level
        Of the interval.

    Returns
    -------
    Estimate
        MMD^2 with its standard error: the first-order (projection) variance and the second-order
        one, which alone remains at q = p. ``method`` names kernel and bandwidth.

    Raises
    ------
    DataError
        Values are not finite, columns do not match, or a side has fewer than two rows.
    OptionError
        Unknown kernel, or a bandwidth that is not positive.

    Notes
    -----
    Cost: O((n_q + n_p)^2 d) time, O((n_q + n_p) d) memory.
    Held by: tests/distance/test_kernel_distances.py::test_mmd_equals_double_loop

    References
    ----------
    .. [Gretton2012] A Kernel Two-Sample Test. Gretton, 2012, JMLR 13.
    .. [Sutherland2019] Unbiased estimators for the variance of MMD estimators. Sutherland, 2019,
       arXiv 1906.02104.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> mmd(q=rng.normal(size=(300, 2)), p=rng.normal(1.0, 1.0, size=(200, 2)))
    Estimate(...)
    """
    if kernel not in KERNELS:
        raise OptionError(
            f"Unknown kernel {kernel!r}. Choose one of {', '.join(map(repr, KERNELS))}."
        )
    q, p = check_sides(q, p, minimum=2)
    u, v = check_weights(weights_q, len(q), "q"), check_weights(weights_p, len(p), "p")
    q, p, u, v = q[u > 0], p[v > 0], u[u > 0], v[v > 0]
    # One common scale keeps squares in range; the bandwidth moves with it.
    points, scale = standard_points(np.vstack([q, p]), limit=1e150)
    form: Kernel
    if kernel == "energy":
        form, name = EnergyKernel(), "energy kernel -||x - y||"
    else:
        if bandwidth is None:
            metric = "cityblock" if kernel == "laplace" else "euclidean"
            bandwidth = scale * median_heuristic(points, metric=metric)
        form = (GaussianKernel if kernel == "gaussian" else LaplaceKernel)(bandwidth / scale)
        name = f"{kernel} kernel, bandwidth {bandwidth:.6g}"
    weights = np.zeros((len(points), 2))
    weights[: len(q), 0], weights[len(q) :, 1] = u, v
    first, second = kernel_sums(points, form, weights)

    value, variance = -2.0 * float(u @ first[: len(q), 1]), 0.0
    squares = [float((side**2).sum()) for side in (u, v)]
    for side, rows, own in ((u, slice(0, len(q)), 0), (v, slice(len(q), None), 1)):
        inside = first[rows, own]
        others = (inside - side * form.diagonal) / np.maximum(1.0 - side, 1e-300)
        if unbiased and squares[own] < 1.0:
            value += float(side @ (inside - side * form.diagonal)) / (1.0 - squares[own])
        else:
            value += float(side @ inside)
        influence = 2.0 * (others - first[rows, 1 - own])
        influence -= float(side @ influence)
        n = len(side)
        variance += float((side * influence) @ (side * influence)) * n / max(n - 1, 1)
    # The plug-in variance holds the second-order part twice; at q = p that part is all there is.
    part = 2.0 * _centred_square(first, second, u, v, form.diagonal) * sum(squares) ** 2
    error = math.sqrt(max(variance - part, part))
    if kernel == "energy":
        value, error = scale * value, scale * error
    reach = normal_quantile(level) * error
    return Estimate(
        estimate=value,
        low=value - reach,
        high=value + reach,
        standard_error=error,
        level=level,
        method=f"squared MMD, {name}, {'unbiased' if unbiased else 'biased'}",
    )


def energy_distance(
    q: np.ndarray,
    p: np.ndarray,
    *,
    unbiased: bool = True,
    weights_q: np.ndarray | None = None,
    weights_p: np.ndarray | None = None,
    level: float = 0.95,
) -> Estimate:
    """Energy distance of two samples, with its standard error.

        E(Q, P) = 2 E||X - Y|| - E||X - X'|| - E||Y - Y'||,   X ~ Q, Y ~ P

    It is the squared MMD of the kernel -||x - y||, scales with the unit of the data, needs no
    bandwidth, and is infinite where a law has no mean: heavy tails make it unstable. Some authors
    report half of it, or its square root.

    Parameters
    ----------
    q, p
        Samples, shapes (n_q, d) and (n_p, d).
    unbiased
        Whether to leave out the pairs of a row with itself.
    weights_q, weights_p
        Importance weights of rows, any scale.
    level
        Of the interval.

    Returns
    -------
    Estimate
        The energy distance, in the unit of the data.

    Raises
    ------
    DataError
        Values are not finite, columns do not match, or a side has fewer than two rows.

    Notes
    -----
    Cost: O((n_q + n_p)^2 d) time, O((n_q + n_p) d) memory.
    Held by: tests/distance/test_kernel_distances.py::test_energy_distance_equals_scipy

    References
    ----------
    .. [Szekely2013] Energy statistics: A class of statistics based on distances. Szekely, 2013,
       Journal of Statistical Planning and Inference 143.
    .. [Sejdinovic2013] Equivalence of distance-based and RKHS-based statistics in hypothesis
       testing. Sejdinovic, 2013, Annals of Statistics 41.

    Examples
    --------
    >>> energy_distance(q=[0.0, 0.0], p=[1.0, 1.0]).estimate
    2.0
    """
    return mmd(
        q,
        p,
        kernel="energy",
        unbiased=unbiased,
        weights_q=weights_q,
        weights_p=weights_p,
        level=level,
    )


def _centred_square(
    first: np.ndarray, second: np.ndarray, u: np.ndarray, v: np.ndarray, diagonal: float
) -> float:
    """Mean square of the doubly centred kernel over pairs of different pooled rows."""
    mass = np.concatenate([u, v]) / 2
    row = first.sum(axis=1) / 2
    mean = float(mass @ row)
    total = float(mass @ second.sum(axis=1)) / 2 - 2.0 * float(mass @ row**2) + mean**2
    own = float((mass * (diagonal - 2.0 * row + mean)) @ (mass * (diagonal - 2.0 * row + mean)))
    return max(total - own, 0.0) / max(1.0 - float(mass @ mass), 1e-300)
