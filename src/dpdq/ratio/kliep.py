"""Maximum likelihood fit of the ratio on Gaussian bumps: the law of p as q times a mixture.

    r(x) = pi_0 + sum_l pi_l phi_l(x),   phi_l = k_l / E_q[k_l],   pi on the simplex, pi_0 >= floor
    pi = argmax E_p[log r]

Every phi_l is a ratio by itself (it is positive and E_q[phi_l] = 1), and so is 1, the ratio of "no
difference". A convex combination of ratios is a ratio, so that the two constraints of the method,
E_q[r] = 1 and r >= 0, become the simplex, and the fit is the oldest of convex problems: the
weights of a mixture with known components. For any pi, with g_l = E_p[phi_l / r],

    E_p[log r*] - E_p[log r] <= max_l g_l - pi'g,

which says how far the optimum can be. The optimum has few positive weights (usually under forty of
a hundred), so that Newton steps on the positive ones, each a small non-negative least squares,
reach it in half a dozen passes over the rows.

E_p[log r] is a lower bound of KL(P || Q) with the held-out mean of r added: on rows that the fit
has not seen, E_p[log r] - E_q[r] + 1 <= KL in expectation, 0 for the ratio 1. That is the score by
which the bandwidth is chosen, and by which the ratio 1 is kept where the best bandwidth does not
beat it by a standard error.

Likelihood weighs rows of p alone: the fit is exact where p is dense and careless where r is small.
Take it for importance weights; take `ULSIF` for a smooth ratio, a classifier above ten columns.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.linalg import cholesky, solve_triangular

from dpdq._random import RandomState, as_generator, child_seed
from dpdq._threads import parallel_map
from dpdq.errors import OptionError
from dpdq.ratio._base import RatioEstimator
from dpdq.ratio._bumps import (
    check_bounds,
    gaussian,
    make_basis,
    number_grid,
    rows_to_tune_on,
    squared_distances,
)
from dpdq.ratio._common import Array, content_folds, content_hash

__all__ = ["KLIEP", "mixture_weights"]

_AUTO_BANDWIDTHS = np.geomspace(0.15, 3.0, 8)  # times the median distance between centres
_ENTERING = 15  # components that may enter the support in one Newton step
_FOLD_TOLERANCE = 1e-4


class KLIEP(RatioEstimator):
    """Kullback-Leibler importance estimation: r = dP/dQ by maximum likelihood on Gaussian bumps.

        r(x) = pi_0 + sum_l pi_l k_l(x) / E_q[k_l],  argmax over the simplex of E_p[log r]

    Says 1 where nothing held out speaks for a difference. Careless where r is small (no row of q
    enters the likelihood but through E_q[r] = 1): there `floor` is what comes out, or pi_0. With
    many columns the bumps are either too narrow to be seen twice or too wide to bend, and the fit
    finds a part of the difference only.

    Parameters
    ----------
    n_centers
        Bumps, on rows of p.
    bandwidths
        sigma to try, in units of the standardised columns; ``"auto"`` is 8 values from 0.15 to 3
        times the median distance between centres.
    n_folds
        Folds of the cross-validation; a row's fold goes by its content.
    floor
        Smallest ratio returned, and the least weight of the constant; between 0 and 1.
    ceiling
        Largest ratio that a bump may reach alone: one that has less than 1/ceiling of the mass
        of q under it counts as if it had that much.
    standardise
        Whether columns are divided by their pooled standard deviation.
    tuning_rows
        Rows a side, chosen by a hash of their content, for the cross-validation; None for all.
    fit_rows
        Rows of p, chosen in the same way, for the final fit; None for all. Means over q always
        take all rows.
    random_state
        Seed of the hashes that pick centres, rows and folds.

    Attributes
    ----------
    bandwidth_
        The one with the largest score; infinity where that is not above its standard error, and
        r is 1.
    bandwidths_, scores_, standard_errors_
        What was tried, E_p[log r] - E_q[r] + 1 on held-out rows, and its standard error.
    score_
        The held-out score of the choice, a lower bound of KL(P || Q) in expectation but for the
        choice among the bandwidths; 0 for the ratio 1.
    objective_
        E_p[log r] on the rows of the final fit, at most 1e-6 below its maximum.
    centers_, mixture_
        Centres in standardised units; pi, of shape (centres + 1,), that of the constant first.

    Notes
    -----
    Cost: O(s n m) time and O(n m) memory for s bandwidths, m centres and n tuning or fit rows.
    Held by: tests/ratio/test_kliep.py::test_optimum_and_no_worse_than_gradient_projection

    Changed from the paper: the constant is in the basis; held-out rows are taken from both sides,
    and the score subtracts what E_q[r] is too large on them; the ratio 1 stands unless it is
    beaten by a standard error; Newton steps on the support in the place of gradient projection;
    the floor, and the ceiling of a bump.

    References
    ----------
    .. [Sugiyama2008] Direct Importance Estimation with Model Selection and Its Application to
       Covariate Shift Adaptation. Sugiyama, 2008, NIPS 20.

    Examples
    --------
    >>> import numpy as np
    >>> from dpdq.ratio import KLIEP
    >>> rng = np.random.default_rng(0)
    >>> q, p = rng.normal(0, 1, (3000, 1)), rng.normal(0.5, 0.7, (3000, 1))
    >>> model = KLIEP(random_state=0).fit(q=q, p=p)
    >>> bool(abs(model.log_ratio([[0.5]])[0] - 0.48) < 0.15)  # the truth at 1/2
    True
    >>> KLIEP(random_state=0).fit(q=q, p=rng.normal(0, 1, (3000, 1))).bandwidth_
    inf
    """

    def __init__(
        self,
        n_centers: int = 100,
        *,
        bandwidths: Sequence[float] | Array | str = "auto",
        n_folds: int = 5,
        floor: float = 0.01,
        ceiling: float = 1e3,
        standardise: bool = True,
        tuning_rows: int | None = 2_000,
        fit_rows: int | None = 20_000,
        random_state: RandomState = None,
    ) -> None:
        self.n_centers = n_centers
        self.bandwidths = bandwidths
        self.n_folds = n_folds
        self.floor = floor
        self.ceiling = ceiling
        self.standardise = standardise
        self.tuning_rows = tuning_rows
        self.fit_rows = fit_rows
        self.random_state = random_state

    def _fit(self, q: Array, p: Array, weights_q: Array, weights_p: Array) -> None:
        check_bounds(self.floor, self.ceiling)
        if self.n_folds < 2:
            raise OptionError(f"n_folds is {self.n_folds}; expected at least 2")
        seed = child_seed(as_generator(self.random_state))
        share_q, share_p = weights_q / weights_q.sum(), weights_p / weights_p.sum()
        hash_q, hash_p = content_hash(q, seed), content_hash(p, seed)
        self._basis = make_basis(
            q,
            p,
            share_q,
            share_p,
            hash_q,
            hash_p,
            self.n_centers,
            centers_on="p",
            standardise=self.standardise,
        )
        self.centers_ = self._basis.centers
        self.bandwidths_ = number_grid(
            "bandwidths", self.bandwidths, _AUTO_BANDWIDTHS * self._basis.typical_distance()
        )
        some_q = rows_to_tune_on(hash_q, self.tuning_rows)
        some_p = rows_to_tune_on(hash_p, self.tuning_rows)
        self.scores_, self.standard_errors_ = self._held_out_scores(
            q[some_q], p[some_p], share_q[some_q], share_p[some_p], seed
        )
        best = int(np.argmax(self.scores_))
        self.score_ = float(self.scores_[best])
        if not self.score_ > max(float(self.standard_errors_[best]), 1e-9):
            self.score_, self.bandwidth_ = 0.0, np.inf
            self.mixture_ = np.zeros(len(self.centers_) + 1)
            self.mixture_[0] = 1.0
            self._theta, self.objective_ = np.zeros(len(self.centers_)), 0.0
            return
        self.bandwidth_ = float(self.bandwidths_[best])
        mean_q = self._basis.mean(self._basis.standardised(q), share_q, self.bandwidth_)
        some_p = rows_to_tune_on(hash_p, self.fit_rows)
        share = share_p[some_p] / share_p[some_p].sum()
        bumps = self._basis.bumps(self._basis.standardised(p[some_p]), self.bandwidth_)
        ratios = self._components(bumps, mean_q)
        self.mixture_, self.objective_ = mixture_weights(ratios, share, floor=self.floor)
        self._theta = self.mixture_[1:] / np.maximum(mean_q, 1 / self.ceiling)

    def _components(self, bumps: Array, mean_q: Array) -> Array:
        """The constant and the bumps as ratios, in columns."""
        out = np.empty((len(bumps), bumps.shape[1] + 1))
        out[:, 0] = 1.0
        np.divide(bumps, np.maximum(mean_q, 1 / self.ceiling), out=out[:, 1:])
        return out

    def _held_out_scores(
        self, q: Array, p: Array, share_q: Array, share_p: Array, seed: int
    ) -> tuple[Array, Array]:
        """E_p[log r] - E_q[r] + 1, every row scored by a fit without its fold; standard errors."""
        share_q, share_p = share_q / share_q.sum(), share_p / share_p.sum()
        folds_q, folds_p = content_folds(q, p, self.n_folds, seed)
        distance_q = squared_distances(self._basis.standardised(q), self.centers_)
        distance_p = squared_distances(self._basis.standardised(p), self.centers_)

        def score(bandwidth: float) -> tuple[float, float]:
            k_q, k_p = gaussian(distance_q, bandwidth), gaussian(distance_p, bandwidth)
            ratio_q, ratio_p = np.ones(len(q)), np.ones(len(p))
            mixture = None
            for k in range(self.n_folds):
                in_q, in_p = folds_q != k, folds_p != k
                if not (in_q.any() and in_p.any()):
                    continue  # nothing to learn from: the fold keeps the ratio 1
                mean_q = (share_q[in_q] @ k_q[in_q]) / share_q[in_q].sum()
                mixture, _ = mixture_weights(
                    self._components(k_p[in_p], mean_q),
                    share_p[in_p] / share_p[in_p].sum(),
                    floor=self.floor,
                    start=mixture,
                    tolerance=_FOLD_TOLERANCE,
                )
                theta = mixture[1:] / np.maximum(mean_q, 1 / self.ceiling)
                ratio_q[~in_q] = mixture[0] + k_q[~in_q] @ theta
                ratio_p[~in_p] = mixture[0] + k_p[~in_p] @ theta
            log_p = np.log(ratio_p)
            mean_p, mean_q = share_p @ log_p, share_q @ ratio_q
            variance = share_p**2 @ (log_p - mean_p) ** 2 + share_q**2 @ (ratio_q - mean_q) ** 2
            return float(mean_p - mean_q + 1), float(np.sqrt(variance))

        found = np.array(parallel_map(score, self.bandwidths_.tolist()))
        return found[:, 0], found[:, 1]

    def _log_ratio(self, x: Array) -> Array:
        if not np.isfinite(self.bandwidth_):
            return np.zeros(len(x))
        return np.log(self.mixture_[0] + self._basis.sum(x, self.bandwidth_, self._theta))


def mixture_weights(
    ratios: Array,
    share: Array,
    *,
    floor: float = 0.0,
    start: Array | None = None,
    tolerance: float = 1e-6,
    max_iterations: int = 100,
) -> tuple[Array, float]:
    """Weights of a mixture with known components by maximum likelihood.

        argmax over the simplex, pi_0 >= floor, of sum_j share_j log(sum_l pi_l ratios_jl)

    Newton steps on the support and up to 15 entering components; the quadratic problem of each is
    solved exactly as a non-negative least squares (on the simplex |R pi - c|² = |(R - c 1') pi|²,
    so that appending the row 1'pi = 1 and scaling to sum one gives the constrained solution).

    Parameters
    ----------
    ratios
        Components at the rows, shape (n, m), not negative; column 0 is the one with the floor and
        must be positive.
    share
        Weights of the rows, shape (n,), of sum one.
    floor
        Least weight of column 0.
    start
        Weights to start from; default all on column 0.
    tolerance
        Largest distance to the optimum, in nats, by the duality gap.
    max_iterations
        Newton steps.

    Returns
    -------
    tuple
        The weights, shape (m,), and the log likelihood.

    Notes
    -----
    Cost: O(n m) time an iteration, about ten of them; O(n s) memory for a support of size s.
    Held by: tests/ratio/test_kliep.py::test_mixture_weights_satisfy_the_optimality_conditions

    References
    ----------
    .. [Wang2007] On Fast Computation of the Non-Parametric Maximum Likelihood Estimate of a Mixing
       Distribution. Wang, 2007, JRSS B 69.

    Examples
    --------
    >>> import numpy as np
    >>> from dpdq.ratio.kliep import mixture_weights
    >>> ratios = np.array([[1.0, 2.0], [1.0, 2.0], [1.0, 0.5]])
    >>> mixture_weights(ratios, np.full(3, 1 / 3))[0].round(6)
    array([0., 1.])
    """
    n_components = ratios.shape[1]
    free = 1.0 - floor  # what is left to share out: pi = floor e_0 + free weight
    weight = np.zeros(n_components)
    weight[0] = 1.0
    if start is not None:
        weight = np.maximum(start, 0.0)
        weight[0] = max(weight[0] - floor, 0.0)
        weight /= weight.sum()
    fixed = floor * ratios[:, 0]
    value = fixed + free * (ratios @ weight)
    likelihood = share @ np.log(value)
    for _ in range(max_iterations):
        gradient = free * ((share / value) @ ratios)
        level = weight @ gradient
        if gradient.max() - level <= tolerance:
            break
        entering = np.flatnonzero((weight == 0) & (gradient > level))
        entering = entering[np.argsort(-gradient[entering], kind="stable")[:_ENTERING]]
        support = np.sort(np.concatenate([np.flatnonzero(weight), entering]))
        columns = ratios[:, support]
        step = _newton_weights(columns, share, value, gradient[support], weight[support], free)
        step -= weight[support]
        change, slope = free * (columns @ step), step @ gradient[support]
        if slope <= 0:
            break  # no ascent left above rounding
        size = 1.0
        while True:
            trial = share @ np.log(np.maximum(value + size * change, 1e-300))
            if trial >= likelihood + 1e-4 * size * slope or size < 1e-9:
                break
            size /= 2
        if trial <= likelihood:
            break  # no ascent left above rounding
        weight[support] += size * step
        weight[weight < 1e-12] = 0.0
        weight /= weight.sum()
        value = fixed + free * (ratios @ weight)
        likelihood = share @ np.log(value)
    mixture = free * weight
    mixture[0] += floor
    return mixture, float(likelihood)


def _newton_weights(
    columns: Array, share: Array, value: Array, gradient: Array, weight: Array, free: float
) -> Array:
    """Maximiser on the simplex of the quadratic model of the likelihood around ``weight``."""
    from scipy.optimize import nnls

    scaled = columns * (free * np.sqrt(share) / value)[:, None]
    hessian = scaled.T @ scaled
    hessian.flat[:: len(hessian) + 1] += 1e-10 * np.trace(hessian) / len(hessian)
    root = cholesky(hessian, check_finite=False)
    target = solve_triangular(root, hessian @ weight + gradient, trans=1, check_finite=False)
    system = np.vstack([root - target[:, None], np.ones(len(weight))])
    right = np.zeros(len(system))
    right[-1] = 1.0
    found = nnls(system, right)[0]
    return found / found.sum()
