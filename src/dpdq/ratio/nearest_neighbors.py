"""Ratio and divergence from distances to nearest neighbours.

Around a point x let rho be the distance to the k-th nearest of n rows. The ball holds about k/n of
their law, so that, V being the volume of the unit ball,

    log density(x) = psi(k) - psi(n + 1) - log V - d log rho,

where the digamma function psi in place of the logarithm removes the bias of a random rho where the
density is flat. The difference of two such terms is log r, without V. Where the density is not
flat the bias depends on rho, so that equal balls for q and p are better than equal k: their biases
cancel, and so does d.

What the definition does not fix is k: small k is noisy (the error of log r is about sqrt(2 / k)),
large k smooths. No choice helps in many dimensions, where balls that hold k rows are wide.

Rows that lie on a line, on few levels or on each other have no density. Equal balls still compare
counts there, which is right for discrete laws too: at a value that occurs k times on both sides the
balls have radius 0 and the estimate is the ratio of its frequencies.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import digamma

from dpdq._random import RandomState, as_generator, child_seed
from dpdq.errors import DataError, OptionError
from dpdq.ratio._base import RatioEstimator
from dpdq.ratio._common import Array, as_rows, as_weights, content_hash, logistic_losses
from dpdq.results import Estimate

__all__ = ["NearestNeighborRatio", "nearest_neighbor_divergence"]

_AUTO_NEIGHBORS = (5, 10, 20, 40, 80)
_TUNING_ROWS = 2_000  # a side
_REACH = 4  # neighbours looked at, in units of k
_BLOCK = 8_192
_FARTHEST = 1e100  # standard deviations; squares of distances must stay finite
_GROUPS = 20  # of the jackknife, a side
_SPARE = 3  # neighbours beyond those needed, in units of k, for rows that a jackknife deletes


class NearestNeighborRatio(RatioEstimator):
    """Log ratio from the rows of q and p in one ball around each point.

        log r(x) = psi(k_p) - psi(n_p + 1) - psi(k_q) + psi(n_q + 1),   k_q, k_p >= k rows within
        the smallest ball around x that holds at least k rows of each side

    Where the denser side has more than 4 k rows in that ball, its 4 k nearest and the smaller
    radius that they fill are taken instead, with d log(radius) for the difference of volumes.
    No form is assumed, and none is learnt: noisy (about sqrt(2 / k)), biased towards 0 where r
    changes within a ball, and poor above about ten columns. Irrelevant columns hurt as much as in
    any method of distances.

    Parameters
    ----------
    n_neighbors
        k, in rows of mean weight; ``"auto"`` takes the one of 5, 10, 20, 40, 80 with the smallest
        leave-one-out logistic loss.
    standardise
        Whether columns are divided by their pooled standard deviation.
    random_state
        Seed of the hash that picks at most 2,000 rows a side for ``"auto"``.

    Attributes
    ----------
    n_neighbors_
        k used: at most half of the rows of the smaller side.
    losses_
        k -> leave-one-out loss, for ``"auto"``.

    Raises
    ------
    OptionError
        From ``fit``: ``n_neighbors`` below one.

    Notes
    -----
    Cost: O(k log n) time a point for few columns, O(n d) where there are many; O(n d) memory.
    Held by: tests/ratio/test_nearest_neighbors.py::test_equals_brute_force

    A point whose content stands among the rows of a side gives up one copy of it there, since that
    row is likely the point itself; log ratios at the rows of the fit are so leave-one-out. Equal
    rows are one point with the sum of their weights. Changed from the papers: equal balls for the
    denser side only up to 4 k rows, which keeps memory bounded and lets log r exceed log(n / k).

    References
    ----------
    .. [Wang2009] Divergence Estimation for Multidimensional Densities Via k-Nearest-Neighbor
       Distances. Wang, 2009, IEEE Transactions on Information Theory 55.
    .. [Noshad2017] Direct Estimation of Information Divergence Using Nearest Neighbor Ratios.
       Noshad, 2017, IEEE International Symposium on Information Theory.

    Examples
    --------
    >>> import numpy as np
    >>> from dpdq.ratio import NearestNeighborRatio
    >>> rng = np.random.default_rng(0)
    >>> q, p = rng.normal(0, 1, (3000, 1)), rng.normal(1, 1, (3000, 1))
    >>> model = NearestNeighborRatio(80).fit(q=q, p=p)
    >>> bool(abs(model.log_ratio([[1.0]])[0] - 0.5) < 0.4)  # the truth is x - 1/2
    True
    """

    def __init__(
        self,
        n_neighbors: int | str = "auto",
        *,
        standardise: bool = True,
        random_state: RandomState = None,
    ) -> None:
        self.n_neighbors = n_neighbors
        self.standardise = standardise
        self.random_state = random_state

    def _fit(self, q: Array, p: Array, weights_q: Array, weights_p: Array) -> None:
        if isinstance(self.n_neighbors, str):
            if self.n_neighbors != "auto":
                raise OptionError(
                    f"Unknown n_neighbors {self.n_neighbors!r}. Choose 'auto' or a number."
                )
        elif self.n_neighbors < 1:
            raise OptionError(f"n_neighbors is {self.n_neighbors}; expected at least 1")
        center, scale = _center_and_scale(q, p, weights_q, weights_p)
        self._center, self._scale = center, scale if self.standardise else np.ones(len(scale))
        self._dimension = max(int((np.ptp(np.vstack([q, p]), axis=0) > 0).sum()), 1)
        self._sides = (
            _Side(self._moved(q), content_hash(q), weights_q),
            _Side(self._moved(p), content_hash(p), weights_p),
        )
        most = max(min(len(q), len(p)) // 2, 1)
        self.losses_: dict[int, float] = {}
        if not isinstance(self.n_neighbors, str):
            self.n_neighbors_ = min(int(self.n_neighbors), most)
            return
        candidates = [k for k in _AUTO_NEIGHBORS if k <= most] or [most]
        if len(candidates) > 1:
            self.losses_ = self._left_out_losses(q, p, weights_q, weights_p, candidates)
        self.n_neighbors_ = min(self.losses_, key=self.losses_.__getitem__, default=candidates[0])

    def _left_out_losses(
        self, q: Array, p: Array, weights_q: Array, weights_p: Array, candidates: list[int]
    ) -> dict[int, float]:
        """Balanced logistic loss of the rows of the fit, each scored without itself."""
        seed = child_seed(as_generator(self.random_state))
        found, shares = [], []
        for x, w in ((q, weights_q), (p, weights_p)):
            hashes = content_hash(x, seed)
            few = np.ones(len(x), dtype=bool)
            if len(x) > _TUNING_ROWS:
                few = hashes <= np.partition(hashes, _TUNING_ROWS - 1)[_TUNING_ROWS - 1]
            found.append(self._all_log_ratios(x[few], candidates))
            shares.append(w[few] / w[few].sum())
        losses = {}
        for k in candidates:
            loss_q, loss_p = logistic_losses(found[0][k], found[1][k])
            losses[k] = float(shares[0] @ loss_q + shares[1] @ loss_p) / 2
        return losses

    def _moved(self, x: Array) -> Array:
        return np.clip((x - self._center) / self._scale, -_FARTHEST, _FARTHEST)

    def _all_log_ratios(self, x: Array, candidates: list[int]) -> dict[int, Array]:
        out = {k: np.empty(len(x)) for k in candidates}
        for start in range(0, len(x), _BLOCK):
            rows = x[start : start + _BLOCK]
            moved, hashes = self._moved(rows), content_hash(rows)
            near_q, near_p = (
                side.near(moved, hashes, _REACH * max(candidates) + 1) for side in self._sides
            )
            for k in candidates:
                out[k][start : start + len(rows)] = _log_ratios(near_q, near_p, k, self._dimension)
        return out

    def _log_ratio(self, x: Array) -> Array:
        return self._all_log_ratios(x, [self.n_neighbors_])[self.n_neighbors_]


class _Side:
    """The distinct rows of one side with their weights, and a tree of them."""

    def __init__(self, x: Array, hashes: Array, weights: Array) -> None:
        from sklearn.neighbors import KDTree

        self.hashes, first, self.inverse, copies = np.unique(
            hashes, return_index=True, return_inverse=True, return_counts=True
        )
        self.mass = np.bincount(self.inverse, weights=weights)
        self.copy = self.mass / copies
        self.total = float(weights.sum())
        self.tree: Any = KDTree(x[first])

    def near(self, x: Array, hashes: Array | None, n_neighbors: int) -> _Near:
        """The nearest distinct rows; one copy of a point with these hashes is taken away."""
        n = min(n_neighbors, len(self.mass))
        distances, rows = self.tree.query(x, n)
        mass, own = self.mass[rows], np.zeros(len(x))
        if hashes is not None:
            place = np.minimum(np.searchsorted(self.hashes, hashes), len(self.hashes) - 1)
            own = np.where(self.hashes[place] == hashes, self.copy[place], 0.0)
            mass -= np.where(rows == place[:, None], own[:, None], 0.0)
        return _Near(distances, rows, mass, self.total - own, complete=n == len(self.mass))


class _Near:
    """Distances and masses of the nearest rows of one side around some points."""

    def __init__(
        self, distances: Array, rows: Array, mass: Array, total: Array, *, complete: bool
    ) -> None:
        self.distances, self.rows, self.mass = distances, rows, mass
        self.total, self.complete = total, complete
        self.within = np.cumsum(mass, axis=1)

    def without(self, deleted: Array, mass: float) -> _Near:
        """The same after some distinct rows, of a given mass together, were deleted."""
        kept = np.where(deleted[self.rows], 0.0, self.mass)
        return _Near(self.distances, self.rows, kept, self.total - mass, complete=self.complete)

    def of(self, points: Array) -> _Near:
        """The same around some of the points."""
        return _Near(
            self.distances[points],
            self.rows[points],
            self.mass[points],
            self.total[points],
            complete=self.complete,
        )

    def radius(self, k: float) -> Array:
        """Distance within which at least k rows' mass lies (all of it where there is less)."""
        enough = np.minimum(k, self.total)[:, None] * (1 - 1e-12)
        place = np.minimum((self.within < enough).sum(axis=1), self.within.shape[1] - 1)
        return self.distances[np.arange(len(place)), place]

    def ball(self, radius: Array, k: int) -> tuple[Array, Array]:
        """Mass within a radius and that radius; beyond 4 k rows, of the 4 k nearest only."""
        most = self.distances.shape[1]
        last = (self.distances <= radius[:, None]).sum(axis=1) - 1
        enough = (self.within < _REACH * k).sum(axis=1)
        cut = (last > enough) | ((last == most - 1) & (not self.complete))
        rows, inner = np.arange(len(last)), np.minimum(enough, most - 1)
        cut &= self.distances[rows, inner] > 0  # equal rows fill no volume
        last = np.where(cut, inner, last)
        return self.within[rows, last], np.where(cut, self.distances[rows, last], radius)


def _log_ratios(q: _Near, p: _Near, k: int, dimension: int) -> Array:
    radius_q, radius_p = q.radius(k), p.radius(k)
    radius = np.maximum(radius_q, radius_p)
    terms = []
    for near, own in ((q, radius_q), (p, radius_p)):
        mass, reach = near.ball(radius, k)
        # The side that sets the radius has its k-th row on the rim; the other's count is free.
        free = (own < radius) & (reach == radius)
        volume = np.log(np.where(reach < radius, reach / np.where(radius > 0, radius, 1.0), 1.0))
        terms.append(digamma(mass + free) - digamma(near.total + 1) - dimension * volume)
    return terms[1] - terms[0]


def _center_and_scale(
    q: Array, p: Array, weights_q: Array, weights_p: Array
) -> tuple[Array, Array]:
    share_q, share_p = weights_q / weights_q.sum(), weights_p / weights_p.sum()
    center = (share_q @ q + share_p @ p) / 2
    scale = np.sqrt((share_q @ (q - center) ** 2 + share_p @ (p - center) ** 2) / 2)
    return center, np.where(scale <= 1e-12 * np.maximum(np.abs(center), 1e-300), 1.0, scale)


def nearest_neighbor_divergence(
    q: object,
    p: object,
    *,
    n_neighbors: int = 5,
    weights_q: object = None,
    weights_p: object = None,
) -> Estimate:
    """KL(P || Q) as the mean over the rows of p of their nearest-neighbour log ratios.

        KL = mean_p [psi(k_p) - psi(n_p) - psi(k_q) + psi(n_q + 1)]

    with k_p rows of p besides the row itself and k_q rows of q in one ball around it, as in
    `NearestNeighborRatio`. Consistent whatever the laws, for continuous and for discrete rows, and
    slow: where the density changes within a ball the estimate is off by an amount that falls like
    n^(-1/d), mostly downwards (0.3 of 2 nats for two Gaussians in 2 columns at n = 1,000), and
    that nothing in the data tells. It therefore has a standard error and no interval: intervals
    that ignore the bias covered the truth in 18 to 97 % of draws instead of 95 %.

    Parameters
    ----------
    q, p
        Arrays of shape (n_q, d) and (n_p, d): what one has, and what one wants.
    n_neighbors
        k, at most half of the rows of the smaller side. Smaller k has less bias and more noise.
    weights_q, weights_p
        Importance weights; default uniform.

    Returns
    -------
    Estimate
        With ``standard_error`` from a jackknife over 20 groups of the distinct rows a side;
        ``low`` and ``high`` are None. May be negative.

    Raises
    ------
    DataError
        A wrong shape, unequal widths, non-finite values, or fewer than 2 rows on a side.
    OptionError
        ``n_neighbors`` below one.

    Notes
    -----
    Cost: O(k n log n) time for few columns, O(n² d) for many; O(k n) memory.
    Held by: tests/ratio/test_nearest_neighbors.py::test_divergence_and_its_standard_error

    For a lower bound that holds, see `dpdq.distance.estimate_divergences`.

    References
    ----------
    .. [Wang2009] Divergence Estimation for Multidimensional Densities Via k-Nearest-Neighbor
       Distances. Wang, 2009, IEEE Transactions on Information Theory 55.

    Examples
    --------
    >>> import numpy as np
    >>> from dpdq.ratio import nearest_neighbor_divergence
    >>> rng = np.random.default_rng(0)
    >>> q, p = rng.normal(0, 1, (2000, 1)), rng.normal(1, 1, (2000, 1))
    >>> found = nearest_neighbor_divergence(q=q, p=p)  # the truth is 1/2
    >>> bool(abs(found.estimate - 0.5) < 3 * found.standard_error)
    True
    """
    if n_neighbors < 1:
        raise OptionError(f"n_neighbors is {n_neighbors}; expected at least 1")
    (rows_q, rows_p), (w_q, w_p) = _checked(q, p, weights_q, weights_p)
    k = min(n_neighbors, max(min(len(rows_q), len(rows_p)) // 2, 1))
    center, scale = _center_and_scale(rows_q, rows_p, w_q, w_p)
    dimension = max(int((np.ptp(np.vstack([rows_q, rows_p]), axis=0) > 0).sum()), 1)
    hashes = content_hash(rows_p)
    x = (rows_p - center) / scale
    side_q, side_p = (
        _Side((rows_q - center) / scale, content_hash(rows_q), w_q),
        _Side(x, hashes, w_p),
    )
    reach = (_REACH + _SPARE) * k + 1
    near_q, near_p = side_q.near(x, None, reach), side_p.near(x, hashes, reach)
    value = float(w_p @ _log_ratios(near_q, near_p, k, dimension) / w_p.sum())

    variance = 0.0
    for side, moves_points in ((side_q, False), (side_p, True)):
        groups = np.arange(len(side.mass)) % _GROUPS  # distinct rows stand in the order of hashes
        values = []
        for g in range(min(_GROUPS, len(side.mass))):
            deleted = groups == g
            mass = float(side.mass[deleted].sum())
            some = ~deleted[side_p.inverse] if moves_points else np.ones(len(x), dtype=bool)
            of_q, of_p = near_q.of(some), near_p.of(some)
            if moves_points:
                of_p = of_p.without(deleted, mass)
            else:
                of_q = of_q.without(deleted, mass)
            values.append(w_p[some] @ _log_ratios(of_q, of_p, k, dimension) / w_p[some].sum())
        spread = np.array(values) - np.mean(values)
        variance += float(spread @ spread) * (len(values) - 1) / len(values)
    return Estimate(
        estimate=value,
        standard_error=float(np.sqrt(variance)),
        method=f"mean log ratio in balls of {k} nearest neighbours, jackknife standard error",
        reason=(
            "the bias of nearest neighbours is unknown and not in the standard error: "
            "read the estimate without an interval"
        ),
    )


def _checked(
    q: object, p: object, weights_q: object, weights_p: object
) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    rows, weights = [], []
    for side, x, w in (("q", q, weights_q), ("p", p, weights_p)):
        array = as_rows(x, side)
        w = as_weights(w, len(array), side)
        rows.append(array[w > 0])
        weights.append(w[w > 0])
        if len(rows[-1]) < 2:
            raise DataError(f"{side} has {len(rows[-1])} row; a divergence needs at least 2 a side")
    if rows[0].shape[1] != rows[1].shape[1]:
        raise DataError(
            f"q has {rows[0].shape[1]} columns and p has {rows[1].shape[1]}; "
            "expected the same columns in the same order"
        )
    return (rows[0], rows[1]), (weights[0], weights[1])
