"""Least-squares fit of the ratio on Gaussian bumps, tuned by an exact leave-one-out formula.

    r_a = dP/dM,  M = a P + (1 - a) Q        (a = 0: the ratio dP/dQ itself, `ULSIF`;
                                              a > 0: the relative ratio, `RULSIF`)
    r(x) = c + sum_l theta_l k_l(x),         k_l a Gaussian bump
    theta = argmin ½ E_M[r²] - E_p[r] + ½ ridge |theta|²
          = (H + ridge I)^-1 (h_p - c h_m),  H = E_M[k k'],  h_m = E_M[k],  h_p = E_p[k]

The published form has c = 0 and shrinks to the ratio 0; here c = 1 by default, so that the
penalty pulls towards "no difference", equal samples give r = 1 exactly, and no rows of p are
needed for the level.

One eigendecomposition of H a bandwidth serves every ridge and every left-out row. A row with mass
mu in M, (1 - a) times its share of q or a times its share of p, changes H and h_m by rank-one
terms when it leaves M; a row of p with share pi also leaves h_p (pi = 0 for a row of q):

    k'theta_(-i) = [(1 - mu) (k'B h_p - pi g) / (1 - pi) - c k'B h_m + c mu g] / (1 - mu g),
    B = (H + ridge (1 - mu) I)^-1,  g = k'B k.

The score of a grid cell is the criterion with every term taken from the fit without its own row:
½ E_M[r_(-i)²] - E_p[r_(-j)]. Without a row the others keep their proportions in M, so that for
a > 0 its mixing share moves by a mu, less than one part in n.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve, eigh

from dpdq._random import RandomState, as_generator, child_seed
from dpdq.ratio._base import RatioEstimator
from dpdq.ratio._bumps import (
    BumpBasis,
    blocks,
    check_bounds,
    gaussian,
    make_basis,
    number_grid,
    rows_to_tune_on,
    squared_distances,
)
from dpdq.ratio._common import Array, content_hash

__all__ = [
    "ULSIF",
    "LeastSquaresFit",
    "fit_least_squares",
    "leave_one_out_scores",
    "solve_normal_equations",
    "weighted_gram",
]

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
        Smallest ratio returned; between 0 and 1.
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
        check_bounds(self.floor, np.inf)
        fit = fit_least_squares(
            q,
            p,
            weights_q,
            weights_p,
            n_centers=self.n_centers,
            bandwidths=self.bandwidths,
            ridges=self.ridges,
            offset=self.offset,
            floor=self.floor,
            standardise=self.standardise,
            tuning_rows=self.tuning_rows,
            seed=child_seed(as_generator(self.random_state)),
        )
        self._fitted = fit
        self.bandwidth_, self.ridge_, self.theta_ = fit.bandwidth, fit.ridge, fit.theta
        self.bandwidths_, self.ridges_, self.scores_ = fit.bandwidths, fit.ridges, fit.scores
        self.centers_ = fit.basis.centers

    def _log_ratio(self, x: Array) -> Array:
        return np.log(np.maximum(self._fitted.ratio(x), self.floor))


@dataclass(frozen=True)
class LeastSquaresFit:
    """A ratio fitted by least squares: basis, chosen cell, coefficients, and the scored grid."""

    basis: BumpBasis
    offset: float
    bandwidth: float
    ridge: float
    theta: Array
    bandwidths: Array
    ridges: Array
    scores: Array

    def ratio(self, x: Array) -> Array:
        """The ratio offset + sum_l theta_l k_l(x) as fitted, not raised to any floor."""
        return self.offset + self.basis.sum(x, self.bandwidth, self.theta)


def fit_least_squares(
    q: Array,
    p: Array,
    weights_q: Array,
    weights_p: Array,
    *,
    alpha: float = 0.0,
    n_centers: int,
    bandwidths: object,
    ridges: object,
    offset: float,
    floor: float,
    ceiling: float = np.inf,
    standardise: bool,
    tuning_rows: int | None,
    seed: int,
) -> LeastSquaresFit:
    """Choose bandwidth and ridge by the leave-one-out score, then solve on all rows.

    Parameters are those of `ULSIF` and `RULSIF`, the rows and weights those that ``_fit`` gets.
    """
    share_q, share_p = weights_q / weights_q.sum(), weights_p / weights_p.sum()
    hash_q, hash_p = content_hash(q, seed), content_hash(p, seed)
    basis = make_basis(q, p, share_q, share_p, hash_q, hash_p, n_centers, standardise=standardise)
    rows_q, rows_p = basis.standardised(q), basis.standardised(p)
    widths = number_grid("bandwidths", bandwidths, _AUTO_BANDWIDTHS * basis.typical_distance())
    penalties = number_grid("ridges", ridges, _AUTO_RIDGES)
    some_q = rows_to_tune_on(hash_q, tuning_rows)
    some_p = rows_to_tune_on(hash_p, tuning_rows)
    scores = leave_one_out_scores(
        rows_q[some_q],
        rows_p[some_p],
        basis.centers,
        widths,
        penalties,
        share_q=share_q[some_q],
        share_p=share_p[some_p],
        alpha=alpha,
        offset=offset,
        floor=floor,
        ceiling=ceiling,
    )
    best = np.unravel_index(int(np.argmin(scores)), scores.shape)
    bandwidth, ridge = float(widths[best[0]]), float(penalties[best[1]])

    theta = solve_normal_equations(
        basis,
        bandwidth,
        ridge,
        offset,
        [
            (rows_q, (1 - alpha) * share_q, np.zeros(len(q))),
            (rows_p, alpha * share_p, share_p),
        ],
    )
    return LeastSquaresFit(basis, offset, bandwidth, ridge, theta, widths, penalties, scores)


def solve_normal_equations(
    basis: BumpBasis,
    bandwidth: float,
    ridge: float,
    offset: float,
    terms: Sequence[tuple[Array, Array, Array]],
) -> Array:
    """The theta of argmin ½ sum u r² - sum t r + ½ ridge |theta|², r = offset + theta'k.

    Each term is a matrix of standardised rows with their masses u and targets t.
    """
    gram = np.zeros((len(basis.centers), len(basis.centers)))
    right = np.zeros(len(basis.centers))
    for rows, mass, target in terms:
        squared = bool(mass.any())
        for block in blocks(len(rows)):
            if not squared and not target[block].any():
                continue
            bumps = basis.bumps(rows[block], bandwidth)
            right += (target[block] - offset * mass[block]) @ bumps
            if squared:
                gram += weighted_gram(bumps, mass[block])
    gram.flat[:: len(gram) + 1] += ridge
    return cho_solve(cho_factor(gram), right)


def leave_one_out_scores(
    q: Array,
    p: Array,
    centers: Array,
    bandwidths: Array,
    ridges: Array,
    *,
    share_q: Array | None = None,
    share_p: Array | None = None,
    alpha: float = 0.0,
    offset: float = 1.0,
    floor: float = 0.01,
    ceiling: float = np.inf,
) -> Array:
    """Leave-one-out criterion of least-squares ratio fitting for a whole grid.

        score = (1 - alpha)/2 mean_i r_(-i)(q_i)² + alpha/2 mean_j r_(-j)(p_j)²
                - mean_j r_(-j)(p_j),       r clipped to [floor, ceiling]

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
    alpha
        Share of p in the measure that the ratio is taken to; 0 is dP/dQ.
    offset, floor
        As in `ULSIF`.
    ceiling
        Largest fitted ratio.

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
    distance_q, distance_p = squared_distances(q, centers), squared_distances(p, centers)
    scores = np.empty((len(bandwidths), len(ridges)))
    for a, bandwidth in enumerate(bandwidths):
        k_q, k_p = gaussian(distance_q, bandwidth), gaussian(distance_p, bandwidth)
        h_p = pi_p @ k_p
        h_m = (1 - alpha) * (pi_q @ k_q) + alpha * h_p
        gram = weighted_gram(k_q, (1 - alpha) * pi_q)
        if alpha > 0:
            gram += weighted_gram(k_p, alpha * pi_p)
        values, vectors = eigh(gram, check_finite=False, driver="evd", overwrite_a=True)
        values = np.maximum(values, 0.0)
        b_p, b_m = vectors.T @ h_p, vectors.T @ h_m
        score = np.zeros(len(ridges))
        k_p = k_p @ vectors
        fit = _left_out(k_p, values, ridges, alpha * pi_p, pi_p, b_p, b_m, offset)
        del k_p
        ratio = np.clip(offset + fit, floor, ceiling)
        score -= pi_p @ ratio
        if alpha > 0:
            score += alpha * (pi_p @ ratio**2) / 2
        k_q = k_q @ vectors
        fit = _left_out(k_q, values, ridges, (1 - alpha) * pi_q, np.zeros(len(q)), b_p, b_m, offset)
        score += (1 - alpha) * (pi_q @ np.clip(offset + fit, floor, ceiling) ** 2) / 2
        scores[a] = score
    return scores


def weighted_gram(bumps: Array, mass: Array) -> Array:
    """sum_i mass_i k_i k_i'; a common factor is taken out of the product."""
    if (mass == mass[0]).all():
        gram = bumps.T @ bumps
        gram *= mass[0]
        return gram
    return (bumps.T * mass) @ bumps


def _left_out(
    rotated: Array,
    values: Array,
    ridges: Array,
    mass: Array,
    share: Array,
    b_p: Array,
    b_m: Array,
    offset: float,
) -> Array:
    """The fit k'theta without the row itself, shape (rows, ridges); ``rotated`` is overwritten."""
    if (mass == mass[0]).all():
        inverse = 1.0 / (values[:, None] + ridges * (1 - mass[0]))
        from_p, from_m = rotated @ (inverse * b_p[:, None]), rotated @ (inverse * b_m[:, None])
        np.square(rotated, out=rotated)
        leverage = rotated @ inverse
    else:
        from_p, from_m, leverage = _weighted_terms(rotated, values, ridges, mass, b_p, b_m)
    mass, share = mass[:, None], share[:, None]
    from_p -= share * leverage
    from_p *= (1 - mass) / (1 - share)
    from_m -= mass * leverage
    from_p -= offset * from_m
    from_p /= 1 - mass * leverage
    return from_p


def _weighted_terms(
    rotated: Array, values: Array, ridges: Array, mass: Array, b_p: Array, b_m: Array
) -> tuple[Array, Array, Array]:
    """Terms k'B h_p, k'B h_m and k'B k where the left-out problem's ridge differs by row."""
    out = np.empty((3, len(rotated), len(ridges)))
    for b, ridge in enumerate(ridges):
        for block in blocks(len(rotated), 4096):
            scaled = rotated[block] / (values + ridge * (1 - mass[block, None]))
            out[0, block, b] = scaled @ b_p
            out[1, block, b] = scaled @ b_m
            out[2, block, b] = np.einsum("ij,ij->i", scaled, rotated[block])
    return out[0], out[1], out[2]
