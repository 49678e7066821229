"""Vendi score: the effective number of different rows in a sample.

With a similarity k, k(x, x) = 1, weights u that sum to one, and the eigenvalues l_i of the matrix
(sqrt(u_i u_j) k(x_i, x_j)), which are not negative and sum to one,

    VS_a = (sum_i l_i^a)^(1/(1 - a)),     VS_1 = exp(-sum_i l_i log l_i),   VS_inf = 1 / max l_i,

the Hill number of order a of a mixture of as many states. It is n when no two rows resemble each
other and 1 when all are equal; a row copied is no new row. Order 1 is the default; small orders
count rare kinds fully, order 0 being the rank, large orders look at the commonest kind alone.

The definition does not fix the similarity, which is the whole of the matter, and it knows nothing
of p: noise is as diverse as it gets. It grows with n until every kind has been seen, so that only
numbers at one n, in one feature space, can be compared. With cosine similarity it is the effective
rank of the uncentred second moment, at most the number of features.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
from scipy.linalg import eigvalsh

from dpdq._random import RandomState, as_generator
from dpdq._threads import parallel_map
from dpdq.distance._jackknife import check_groups, deal_groups, jackknife_estimate
from dpdq.errors import DataError, OptionError
from dpdq.kernels import GaussianKernel, check_points, kernel_matrix, median_heuristic
from dpdq.results import Estimate
from dpdq.weights._vectors import as_vector

__all__ = ["vendi_score"]

MOST_ROWS = 5000  # of a matrix of all pairs: 200 MB of float64
Similarity = Callable[[np.ndarray, np.ndarray], np.ndarray]


def vendi_score(
    q: np.ndarray,
    *,
    order: float = 1.0,
    kernel: Literal["cosine", "rbf"] | Similarity = "cosine",
    bandwidth: float | None = None,
    weights: np.ndarray | None = None,
    n_groups: int = 10,
    level: float = 0.95,
    random_state: RandomState = None,
) -> Estimate:
    """Effective number of different rows of a sample, under a similarity.

        VS_a = (sum_i l_i^a)^(1/(1 - a)),   l = eigenvalues of (sqrt(u_i u_j) k(q_i, q_j))

    Diversity alone says nothing about quality: it is highest for noise. It grows with the number
    of rows, and with ``"rbf"`` it runs from 1 to n as the bandwidth shrinks: fix the bandwidth
    before comparing two samples.

    Parameters
    ----------
    q
        Rows, shape (n, d).
    order
        a, from 0 to infinity.
    kernel
        ``"cosine"``: x.y / (|x| |y|). ``"rbf"``: exp(-||x - y||^2 / (2 h^2)). Or a function of
        two arrays that returns their matrix of similarities, symmetric, positive semi-definite,
        with ones on the diagonal.
    bandwidth
        h for ``"rbf"``; by default the median heuristic on these rows, which no other sample
        shares.
    weights
        Importance weights of rows, any scale; zero drops the row, integers equal repeated rows.
    n_groups
        Groups left out in turn for the interval; 0 for none, which is G times as fast.
    level
        Of the interval.
    random_state
        Deals rows to groups.

    Returns
    -------
    Estimate
        From 1 to the number of rows. The interval covers the mean of the score at this n.

    Raises
    ------
    DataError
        Values are not finite, a row has length zero under ``"cosine"``, a matrix of similarities
        is none, or more than 5,000 rows would need their matrix of all pairs.
    OptionError
        Unknown kernel, or an option outside its range.

    Notes
    -----
    Cost: O(G min(n, d)^2 max(n, d)) time with cosine, O(G n^3) else; O(n d + min(n, d)^2) memory
    with cosine, O(n^2) else.
    Held by: tests/distance/test_diversity.py::test_equals_the_definition

    References
    ----------
    .. [Friedman2023] The Vendi Score: A Diversity Evaluation Metric for Machine Learning.
       Friedman, 2023, TMLR.
    .. [Pasarkar2024] Cousins Of The Vendi Score: A Family Of Similarity-Based Diversity Metrics
       For Science And Machine Learning. Pasarkar, 2024, AISTATS.

    Examples
    --------
    >>> round(vendi_score(np.eye(4)[[0, 0, 1, 2]], n_groups=0).estimate, 4)
    2.8284
    """
    if not order >= 0.0:
        raise OptionError(f"order is {order}; expected a number from 0 to infinity")
    if isinstance(kernel, str) and kernel not in ("cosine", "rbf"):
        raise OptionError(f"Unknown kernel {kernel!r}. Choose one of 'cosine', 'rbf'.")
    check_groups(n_groups, level)
    points, share = _kept(check_points(q, "q"), weights)
    n, d = points.shape
    name = kernel if isinstance(kernel, str) else "given"
    if kernel == "cosine":
        points = _unit_rows(points)
    in_features = kernel == "cosine" and d < n
    if not in_features and n > MOST_ROWS:
        raise DataError(
            f"q has {n:,} rows, whose similarities of all pairs would take {8e-9 * n * n:.1f} GB; "
            f"take a random sample of at most {MOST_ROWS:,}"
        )
    matrix = np.empty((0, 0))
    if kernel == "rbf":
        width = median_heuristic(points) if bandwidth is None else bandwidth
        matrix = kernel_matrix(points, points, GaussianKernel(width))
        np.fill_diagonal(matrix, 1.0)
        name = f"rbf with bandwidth {width:.6g}"
    elif kernel == "cosine" and not in_features:
        matrix = points @ points.T
    elif callable(kernel):
        matrix = _check_similarity(kernel(points, points), n)

    def score(rows: np.ndarray) -> float:
        part = share[rows] / share[rows].sum()
        root = np.sqrt(part)[:, None]
        if in_features:
            moved = points[rows] * root
            square = moved.T @ moved
        else:
            square = matrix[np.ix_(rows, rows)] * root * root.T
        values = eigvalsh(square, check_finite=False, overwrite_a=True)
        if values[0] < -1e-8:
            raise DataError(
                "kernel is not positive semi-definite on these rows "
                f"(smallest eigenvalue {values[0]:.2g} of a total of 1); take another similarity"
            )
        return _hill_number(values, order)

    estimate = score(np.arange(n))
    n_groups = min(n_groups, n) if n > 2 else 0
    groups = deal_groups(n, max(n_groups, 1), as_generator(random_state))
    without: list[float] = []
    if n_groups:
        without = parallel_map(lambda g: score(np.flatnonzero(groups != g)), range(n_groups))
    return jackknife_estimate(
        estimate,
        without,
        level,
        method=f"Vendi score of order {order:g}, kernel {name}, {n} rows",
        least=1.0,
        most=float(n),
    )


def _hill_number(values: np.ndarray, order: float) -> float:
    largest = float(values[-1])
    # What rounding leaves of a zero is no kind of its own, though low orders would count it.
    values = values[values > 4.0 * len(values) * np.finfo(np.float64).eps * largest]
    values = values / values.sum()
    if math.isinf(order):
        return 1.0 / float(values[-1])
    if order == 0.0:
        return float(len(values))
    logs = np.log(values)
    if abs(order - 1.0) < 1e-9:
        return math.exp(-float(values @ logs))
    powers = order * (logs - logs[-1])
    return math.exp((order * float(logs[-1]) + math.log(np.exp(powers).sum())) / (1.0 - order))


def _kept(points: np.ndarray, weights: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    if weights is None:
        return points, np.ones(len(points))
    values = as_vector(weights, "weights")
    if values.shape != (len(points),):
        raise DataError(f"weights has shape {values.shape}; expected ({len(points)},)")
    if not np.isfinite(values).all() or (values < 0).any() or values.sum() <= 0:
        raise DataError("weights must be finite, not negative, and not all zero")
    return points[values > 0], values[values > 0]


def _unit_rows(points: np.ndarray) -> np.ndarray:
    largest = np.abs(points).max(axis=1)
    if (largest == 0).any():
        raise DataError(
            f"{int((largest == 0).sum())} rows of q have length zero (first at row "
            f"{int((largest == 0).argmax())}), and no direction; drop them or take kernel='rbf'"
        )
    rows = points / largest[:, None]
    return rows / np.sqrt(np.einsum("ij,ij->i", rows, rows))[:, None]


def _check_similarity(matrix: np.ndarray, n: int) -> np.ndarray:
    values = np.asarray(matrix, dtype=np.float64)
    if values.shape != (n, n):
        raise DataError(f"kernel returned shape {values.shape}; expected ({n}, {n})")
    if not np.isfinite(values).all():
        raise DataError("kernel returned values that are not finite")
    if np.abs(np.diag(values) - 1.0).max() > 1e-6:
        raise DataError("kernel must be 1 on its diagonal; divide by sqrt(k(x, x) k(y, y))")
    if np.abs(values - values.T).max() > 1e-8:
        raise DataError("kernel must be symmetric")
    return (values + values.T) / 2
