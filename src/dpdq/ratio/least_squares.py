"""Least-squares fit of the ratio on Gaussian bumps, tuned by an exact leave-one-out formula.

    r(x) = c + sum_l theta_l exp(-|x - x_l|² / (2 sigma²))
    theta = argmin ½ E_q[r²] - E_p[r] + ½ ridge |theta|²
          = (H + ridge I)^-1 (h_p - c h_q),   H = E_q[k k'],  h_q = E_q[k],  h_p = E_p[k]

The published form has c = 0 and shrinks to the ratio 0; here c = 1 by default, so that the
penalty pulls towards "no difference", equal samples give r = 1 exactly, and no rows of p are
needed for the level.

One eigendecomposition of H a bandwidth serves every ridge and every left-out row: without row i
of q (share pi of the mass) the normal equations change by a rank-one term,

    k_i'theta_(-i) = [(1 - pi) k_i'B h_p - c k_i'B h_q + c pi g_i] / (1 - pi g_i),
    B = (H + ridge (1 - pi) I)^-1,  g_i = k_i'B k_i,

and without row j of p only h_p changes. The score of a grid cell is the criterion with every term
taken from the fit without its own row: ½ mean r_(-i)(q_i)² - mean r_(-j)(p_j).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.linalg import cho_factor, cho_solve, eigh

from dpdq._random import RandomState, as_generator, child_seed
from dpdq.errors import OptionError
from dpdq.ratio._base import RatioEstimator
from dpdq.ratio._common import Array, content_hash

__all__ = ["ULSIF", "leave_one_out_scores"]

_BLOCK = 65_536
_AUTO_BANDWIDTHS = np.geomspace(0.15, 3.0, 8)  # times the median distance between centres
_AUTO_RIDGES = np.concatenate([np.geomspace(1e-5, 10.0, 9), [1e3]])


class ULSIF(RatioEstimator):
    """Unconstrained least-squares fit of r = dP/dQ on Gaussian bumps.

        r(x) = offset + sum_l theta_l exp(-|x - x_l|² / (2 sigma²)),
        theta = argmin ½ E_q[r²] - E_p[r] + ½ ridge |theta|²

    Good for a few continuous columns. It fits r and not log r: relative errors are large where r
    is small, and estimates below ``floor`` are raised to it (with log 0.01 = -4.6 as the smallest
    log ratio that can come out). Far from all centres it says r = ``offset``. Above about ten
    columns all distances become alike and a classifier is better.

    Parameters
    ----------
    n_centers
        Bumps, half of them on rows of q and half on rows of p.
    bandwidths
        sigma to try, in units of the standardised columns; ``"auto"`` is 8 values from 0.15 to 3
        times the median distance between centres.
    ridges
        Penalties to try; ``"auto"`` is 10 values from 1e-5 to 1e3.
    offset
        c: the ratio that the penalty pulls to. 0 gives the published estimator.
    floor
        Smallest ratio returned; positive.
    standardise
        Whether columns are divided by their pooled standard deviation.
    tuning_rows
        Rows a side, chosen by a hash of their content, on which the grid is scored; None for all.
        The final fit takes all rows.
    random_state
        Seed of the hash that picks centres and tuning rows.

    Attributes
    ----------
    bandwidth_, ridge_
        The cell with the smallest leave-one-out score.
    bandwidths_, ridges_, scores_
        The grid, and its scores with shape (bandwidths, ridges).
    centers_, theta_
        Centres in standardised units and their coefficients.

    Notes
    -----
    Cost: O((n + m) m² s) time for s bandwidths, m centres and n tuning rows, O(n m) memory.
    Held by: tests/ratio/test_least_squares.py::test_leave_one_out_equals_brute_force

    Changed from the paper: the offset, centres on both sides, and a leave-one-out score in which
    each row of each side is left out alone (the paper leaves out rows in pairs, which needs equal
    sizes and depends on their order). Scores of weighted rows leave out one row with its weight.

    References
    ----------
    .. [Kanamori2009] A Least-squares Approach to Direct Importance Estimation. Kanamori, 2009,
       JMLR 10.

    Examples
    --------
    >>> import numpy as np
    >>> from dpdq.ratio import ULSIF
    >>> rng = np.random.default_rng(0)
    >>> q, p = rng.normal(0, 1, (3000, 1)), rng.normal(0.5, 0.7, (3000, 1))
    >>> model = ULSIF(random_state=0).fit(q=q, p=p)
    >>> bool(abs(model.log_ratio([[0.5]])[0] - 0.48) < 0.1)  # the truth at 1/2
    True
    """

    def __init__(
        self,
        n_centers: int = 100,
        *,
        bandwidths: Sequence[float] | Array | str = "auto",
        ridges: Sequence[float] | Array | str = "auto",
        offset: float = 1.0,
        floor: float = 0.01,
        standardise: bool = True,
        tuning_rows: int | None = 2_000,
        random_state: RandomState = None,
    ) -> None:
        self.n_centers = n_centers
        self.bandwidths = bandwidths
        self.ridges = ridges
        self.offset = offset
        self.floor = floor
        self.standardise = standardise
        self.tuning_rows = tuning_rows
        self.random_state = random_state

    def _fit(self, q: Array, p: Array, weights_q: Array, weights_p: Array) -> None:
        if self.n_centers < 2:
            raise OptionError(f"n_centers is {self.n_centers}; expected at least 2")
        if not self.floor > 0:
            raise OptionError(f"floor is {self.floor}; expected a positive number")
        share_q, share_p = weights_q / weights_q.sum(), weights_p / weights_p.sum()
        self._center = (share_q @ q + share_p @ p) / 2
        if self.standardise:
            square = (share_q @ (q - self._center) ** 2 + share_p @ (p - self._center) ** 2) / 2
            self._scale = np.sqrt(square)
            self._scale[self._scale <= 1e-12 * np.maximum(np.abs(self._center), 1e-300)] = 1.0
        else:
            self._scale = np.ones(q.shape[1])
        seed = child_seed(as_generator(self.random_state))
        hash_q, hash_p = content_hash(q, seed), content_hash(p, seed)
        rows_q, rows_p = self._standardised(q), self._standardised(p)
        self.centers_ = _pick_centers(rows_q, rows_p, hash_q, hash_p, self.n_centers)

        typical = _median_distance(self.centers_)
        self.bandwidths_ = self._grid("bandwidths", self.bandwidths, _AUTO_BANDWIDTHS * typical)
        self.ridges_ = self._grid("ridges", self.ridges, _AUTO_RIDGES)
        if self.bandwidths_.size * self.ridges_.size == 1:
            self.scores_ = np.full((1, 1), np.nan)
            best = (0, 0)
        else:
            some_q = _tuning_subset(hash_q, self.tuning_rows)
            some_p = _tuning_subset(hash_p, self.tuning_rows)
            self.scores_ = leave_one_out_scores(
                rows_q[some_q],
                rows_p[some_p],
                self.centers_,
                self.bandwidths_,
                self.ridges_,
                share_q=share_q[some_q],
                share_p=share_p[some_p],
                offset=self.offset,
                floor=self.floor,
            )
            best = np.unravel_index(int(np.argmin(self.scores_)), self.scores_.shape)
        self.bandwidth_ = float(self.bandwidths_[best[0]])
        self.ridge_ = float(self.ridges_[best[1]])
        gram = np.zeros((len(self.centers_), len(self.centers_)))
        target = np.zeros(len(self.centers_))
        for block in _blocks(len(rows_q)):
            bumps = _bumps(rows_q[block], self.centers_, self.bandwidth_)
            target -= self.offset * (share_q[block] @ bumps)
            gram += (bumps.T * share_q[block]) @ bumps
        for block in _blocks(len(rows_p)):
            target += share_p[block] @ _bumps(rows_p[block], self.centers_, self.bandwidth_)
        gram.flat[:: len(gram) + 1] += self.ridge_
        self.theta_ = cho_solve(cho_factor(gram), target)

    def _grid(self, name: str, given: object, auto: Array) -> Array:
        if isinstance(given, str):
            if given != "auto":
                raise OptionError(f"Unknown {name} {given!r}. Choose 'auto' or a list of numbers.")
            return auto
        values = np.atleast_1d(np.asarray(given, dtype=np.float64))
        if values.ndim != 1 or not len(values) or not (np.isfinite(values) & (values > 0)).all():
            raise OptionError(f"{name} is {given}; expected positive finite numbers")
        return values

    def _standardised(self, x: Array) -> Array:
        return (x - self._center) / self._scale

    def _log_ratio(self, x: Array) -> Array:
        ratio = np.empty(len(x))
        for block in _blocks(len(x)):
            bumps = _bumps(self._standardised(x[block]), self.centers_, self.bandwidth_)
            ratio[block] = self.offset + bumps @ self.theta_
        return np.log(np.maximum(ratio, self.floor))


def leave_one_out_scores(
    q: Array,
    p: Array,
    centers: Array,
    bandwidths: Array,
    ridges: Array,
    *,
    share_q: Array | None = None,
    share_p: Array | None = None,
    offset: float = 1.0,
    floor: float = 0.01,
) -> Array:
    """Leave-one-out criterion of least-squares ratio fitting for a whole grid.

        score = ½ mean_i r_(-i)(q_i)² - mean_j r_(-j)(p_j),  r raised to ``floor``

    Equal to refitting without each row in turn (to rounding), at the price of one
    eigendecomposition a bandwidth. Centres stay in place when their row is left out. Takes
    O(s (n m² + m³)) time and O(n m) memory for s bandwidths.

    Parameters
    ----------
    q, p
        Rows of shape (n_q, d) and (n_p, d).
    centers
        Shape (m, d).
    bandwidths, ridges
        The grid, positive.
    share_q, share_p
        Weights of the rows; scaled to sum to one here. Default uniform.
    offset, floor
        As in `ULSIF`.

    Returns
    -------
    ndarray of shape (len(bandwidths), len(ridges))
        The smaller the better; the constant ratio 1 has -1/2.

    Notes
    -----
    Cost: O(s (n m² + m³)) time, O(n m) memory.
    Held by: tests/ratio/test_least_squares.py::test_leave_one_out_equals_brute_force

    References
    ----------
    .. [Kanamori2009] A Least-squares Approach to Direct Importance Estimation. Kanamori, 2009,
       JMLR 10.

    Examples
    --------
    >>> import numpy as np
    >>> from dpdq.ratio.least_squares import leave_one_out_scores
    >>> x = np.linspace(0, 1, 50)[:, None]
    >>> leave_one_out_scores(x, x, x[::10], np.array([0.3]), np.array([1e6])).round(3)
    array([[-0.5]])
    """
    pi_q = np.full(len(q), 1 / len(q)) if share_q is None else share_q / share_q.sum()
    pi_p = np.full(len(p), 1 / len(p)) if share_p is None else share_p / share_p.sum()
    uniform = bool((pi_q == pi_q[0]).all())
    distance_q, distance_p = _squared_distances(q, centers), _squared_distances(p, centers)
    scores = np.empty((len(bandwidths), len(ridges)))
    for a, bandwidth in enumerate(bandwidths):
        k_q, k_p = _gaussian(distance_q, bandwidth), _gaussian(distance_p, bandwidth)
        h_q, h_p = pi_q @ k_q, pi_p @ k_p
        if uniform:
            gram = k_q.T @ k_q
            gram *= pi_q[0]
        else:
            gram = (k_q.T * pi_q) @ k_q
        values, vectors = eigh(gram, check_finite=False, driver="evd", overwrite_a=True)
        values = np.maximum(values, 0.0)
        b_q, b_p = vectors.T @ h_q, vectors.T @ h_p

        inverse = 1.0 / (values[:, None] + ridges)  # (m, ridges)
        k_p = k_p @ vectors
        from_p, from_q = k_p @ (inverse * b_p[:, None]), k_p @ (inverse * b_q[:, None])
        np.square(k_p, out=k_p)
        share = pi_p[:, None]
        fit_p = (from_p - share * (k_p @ inverse)) / (1 - share) - offset * from_q
        del k_p
        k_q = k_q @ vectors
        share = pi_q[:, None]
        if uniform:
            inverse = 1.0 / (values[:, None] + ridges * (1 - pi_q[0]))
            from_p, from_q = k_q @ (inverse * b_p[:, None]), k_q @ (inverse * b_q[:, None])
            np.square(k_q, out=k_q)
            leverage = k_q @ inverse
        else:
            from_p, from_q, leverage = _weighted_terms(k_q, values, ridges, pi_q, b_p, b_q)
        fit_q = ((1 - share) * from_p - offset * from_q + offset * share * leverage) / (
            1 - share * leverage
        )
        ratio_q, ratio_p = np.maximum(offset + fit_q, floor), np.maximum(offset + fit_p, floor)
        scores[a] = pi_q @ ratio_q**2 / 2 - pi_p @ ratio_p
    return scores


def _weighted_terms(
    rotated: Array, values: Array, ridges: Array, share: Array, b_p: Array, b_q: Array
) -> tuple[Array, Array, Array]:
    """Terms k'B h_p, k'B h_q and k'B k where the left-out problem's ridge differs by row."""
    out = np.empty((3, len(rotated), len(ridges)))
    for b, ridge in enumerate(ridges):
        for block in _blocks(len(rotated), 4096):
            scaled = rotated[block] / (values + ridge * (1 - share[block, None]))
            out[0, block, b] = scaled @ b_p
            out[1, block, b] = scaled @ b_q
            out[2, block, b] = np.einsum("ij,ij->i", scaled, rotated[block])
    return out[0], out[1], out[2]


def _squared_distances(x: Array, centers: Array) -> Array:
    out = x @ (-2.0 * centers.T)
    out += np.einsum("ij,ij->i", x, x)[:, None]
    out += np.einsum("ij,ij->i", centers, centers)
    return np.maximum(out, 0.0, out=out)


def _gaussian(squared_distances: Array, bandwidth: float) -> Array:
    out = squared_distances * (-0.5 / bandwidth**2)
    return np.exp(out, out=out)


def _bumps(x: Array, centers: Array, bandwidth: float) -> Array:
    out = _squared_distances(x, centers)
    out *= -0.5 / bandwidth**2
    return np.exp(out, out=out)


def _blocks(n: int, size: int = _BLOCK) -> list[slice]:
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


def _median_distance(centers: Array) -> float:
    upper = np.triu_indices(len(centers), 1)
    distances = np.sqrt(_squared_distances(centers, centers)[upper])
    distances = distances[distances > 1e-9]
    return float(np.median(distances)) if len(distances) else 1.0


def _pick_centers(q: Array, p: Array, hash_q: Array, hash_p: Array, n_centers: int) -> Array:
    """The distinct rows of each side with the smallest hashes: no order, no repeats."""
    chosen: dict[int, Array] = {}
    for rows, hashes, wanted in ((p, hash_p, n_centers - n_centers // 2), (q, hash_q, n_centers)):
        _, first = np.unique(hashes, return_index=True)
        for i in first:
            if len(chosen) >= wanted:
                break
            chosen.setdefault(int(hashes[i]), rows[i])
    return np.array(list(chosen.values()))


def _tuning_subset(hashes: Array, limit: int | None) -> Array:
    if limit is None or len(hashes) <= limit:
        return np.ones(len(hashes), dtype=bool)
    return hashes <= np.partition(hashes, limit - 1)[limit - 1]
