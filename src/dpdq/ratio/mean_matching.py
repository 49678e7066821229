"""Kernel mean matching: weights on q under which every smooth mean is that of p.

    w = argmin ½ |sum_i s_i w_i k(x_i, .) - E_p[k]|²
      = argmin ½ (s w)'K(s w) - (s w)'kappa + constant
    0 <= w_i <= B,   |sum_i s_i w_i - 1| <= epsilon

with the shares s of the rows of q and kappa_i = E_p[k(x_i, .)]. Twice the minimum is the squared
MMD that is left between the weighted q and p. The problem is convex and needs no density; it has
many near-solutions, since only means of functions with a small norm are compared: the weights of
single rows are noise around r (at the optimum up to half of them are 0), their local means are
not.

How the problem is solved stands in `dpdq.ratio.bounded_matching`.

New rows. Weights exist at rows of q alone; elsewhere r is the ridge regression of w on Gaussian
bumps,

    r(x) = 1 + theta'k(x),   theta = argmin ½ E_q[(r - w)²] + ½ ridge |theta|²
         = (H + ridge I)^-1 (E_q[w k] - E_q[k]),

which is uLSIF with E_p[k] replaced by the mean E_q[w k] that was matched to it; bandwidth and ridge
are those with the least leave-one-out error. How good: for normal laws a shift of 0.7 apart, 3,000
rows a side, the root mean square error against r of the weights and of the function is

    tolerance   0.01            0.001           0.0001
    columns 2   0.34 and 0.33   0.41 and 0.35   0.70 and 0.54
    10          0.44 and 0.35   0.84 and 0.36   1.68 and 0.28
    20          0.51 and 0.38   1.22 and 0.39   1.45 and 0.39

so that stopping early is half of the statistics (the first steps move along smooth functions, the
last ones fit the noise of both samples), and the regression is the other half.

Above ``block_rows`` rows q falls into blocks by the hash of content, each a random part of q that
is matched to a part of p. Every row belongs to a block.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import eigh

from dpdq._random import RandomState, as_generator, child_seed
from dpdq.errors import OptionError
from dpdq.kernels import median_heuristic
from dpdq.ratio._base import RatioEstimator
from dpdq.ratio._bumps import (
    check_bounds,
    gaussian,
    make_basis,
    rows_to_tune_on,
    squared_distances,
)
from dpdq.ratio._common import Array, content_hash
from dpdq.ratio.bounded_matching import kernel_product, match_means, mean_kernel
from dpdq.ratio.least_squares import solve_normal_equations, weighted_gram

__all__ = ["KernelMeanMatching"]

_AUTO_BANDWIDTHS = np.geomspace(0.15, 3.0, 8)  # of the extension: times the median distance
_AUTO_RIDGES = np.concatenate([np.geomspace(1e-5, 10.0, 9), [1e3]])
_MEDIAN_ROWS = 500  # a side


class KernelMeanMatching(RatioEstimator):
    """Weights on q whose kernel mean is that of p, and their extension to new rows.

        w = argmin |mean_i w_i k(x_i, .) - E_p[k]|²,   0 <= w <= bound,  |mean w - 1| <= epsilon

    ``weights_`` are for means over q; ``log_ratio`` is a smooth function fitted to them, raised to
    ``floor``, since weights may be exactly 0 and the regression below. Misleads on single rows:
    the weights are right on average over a neighbourhood only, and where q = p they still follow
    the noise of the two samples. Columns that do not matter hide those that do; above about twenty
    columns little but the means is matched.

    Parameters
    ----------
    bandwidth
        sigma in units of the standardised columns, or ``"median"``: ``multiple`` times the median
        distance between rows of both sides.
    multiple
        Of the median distance.
    bound
        B: largest weight before scaling to mean one; above 1.
    epsilon
        How far the mean weight may be from 1; at least 0 and below 1. 0, the default, is the
        library's convention for weights; the paper's (√n - 1)/√n lets the mean shrink to almost 0.
    tolerance
        Stop when the duality gap is below this part of what the weights have gained over uniform
        ones. It also smooths: nearer to the optimum the weights follow the noise.
    max_iterations
        Gradient steps a block.
    block_rows
        Most rows of q in a block; a block takes 2 block_rows² bytes or a little more (50 MiB).
    n_centers
        Bumps of the extension, on both sides.
    floor, ceiling
        Smallest and largest ratio that ``log_ratio`` returns.
    standardise
        Whether columns are divided by their pooled standard deviation.
    tuning_rows
        Rows of q, chosen by a hash of their content, for the leave-one-out error of the
        extension; None for all.
    random_state
        Seed of the hash that picks centres, blocks and tuning rows.

    Attributes
    ----------
    weights_
        Shape ``(n_q_,)``, of mean one (under the weights of q), for the rows of q in their order
        (without those of weight zero).
    objective_
        ½ (s w)'K(s w) - (s w)'kappa, half the squared MMD but for a constant; the mean over
        blocks.
    gap_
        How far it can be above the optimum, by duality.
    converged_
        Whether the gap passed the tolerance in every block.
    n_iterations_, n_blocks_
        The most steps of a block, and the number of blocks.
    bandwidth_
        Of the matching.
    extension_bandwidth_, extension_ridge_, extension_error_
        Of the extension, and the leave-one-out root mean square error around the weights.
    centers_, theta_
        Of the extension.

    Notes
    -----
    Cost: O((n_q + n_p) b (d + t)) time for blocks of b rows and t steps, O(b² + n d) memory.
    Held by: tests/ratio/test_mean_matching.py::test_optimum_against_an_independent_solver

    Changed from the paper: epsilon = 0, the bandwidth, blocks, the extension. Kernel values are
    float32, the sums that decide are float64: the objective is exact to about 1e-7.

    References
    ----------
    .. [Huang2006] Correcting Sample Selection Bias by Unlabeled Data. Huang, 2006, NIPS 19.
    .. [Gretton2009] Covariate Shift by Kernel Mean Matching. Gretton, 2009, Dataset Shift in
       Machine Learning, MIT Press.
    .. [ODonoghue2015] Adaptive Restart for Accelerated Gradient Schemes. O'Donoghue, 2015,
       Foundations of Computational Mathematics 15.

    Examples
    --------
    >>> import numpy as np
    >>> from dpdq.ratio import KernelMeanMatching
    >>> rng = np.random.default_rng(0)
    >>> q, p = rng.normal(0, 1, (2000, 2)), rng.normal(0.5, 1, (2000, 2))
    >>> model = KernelMeanMatching(random_state=0).fit(q=q, p=p)
    >>> (model.weights_ @ q / 2000).round(1)
    array([0.5, 0.5])
    >>> model.converged_
    True
    """

    def __init__(
        self,
        *,
        bandwidth: float | str = "median",
        multiple: float = 1.0,
        bound: float = 1e3,
        epsilon: float = 0.0,
        tolerance: float = 0.01,
        max_iterations: int = 1_000,
        block_rows: int = 5_000,
        n_centers: int = 100,
        floor: float = 0.01,
        ceiling: float = 1e3,
        standardise: bool = True,
        tuning_rows: int | None = 2_000,
        random_state: RandomState = None,
    ) -> None:
        self.bandwidth = bandwidth
        self.multiple = multiple
        self.bound = bound
        self.epsilon = epsilon
        self.tolerance = tolerance
        self.max_iterations = max_iterations
        self.block_rows = block_rows
        self.n_centers = n_centers
        self.floor = floor
        self.ceiling = ceiling
        self.standardise = standardise
        self.tuning_rows = tuning_rows
        self.random_state = random_state

    def _fit(self, q: Array, p: Array, weights_q: Array, weights_p: Array) -> None:
        self._check_options()
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
            standardise=self.standardise,
        )
        rows_q, rows_p = self._basis.standardised(q), self._basis.standardised(p)
        if isinstance(self.bandwidth, str):
            some = [
                rows[np.unique(hashes, return_index=True)[1][:_MEDIAN_ROWS]]
                for rows, hashes in ((rows_q, hash_q), (rows_p, hash_p))
            ]
            self.bandwidth_ = self.multiple * median_heuristic(np.vstack(some))
        else:
            self.bandwidth_ = float(self.bandwidth)
        self._match(rows_q, rows_p, share_q, share_p, hash_q, hash_p)
        self._extend(rows_q, share_q, hash_q)

    def _check_options(self) -> None:
        check_bounds(self.floor, self.ceiling)
        if isinstance(self.bandwidth, str):
            if self.bandwidth != "median":
                raise OptionError(
                    f"Unknown bandwidth {self.bandwidth!r}. Choose 'median' or a number."
                )
        elif not (np.isfinite(self.bandwidth) and self.bandwidth > 0):
            raise OptionError(f"bandwidth is {self.bandwidth}; expected a positive finite number")
        for name in ("multiple", "tolerance"):
            if not getattr(self, name) > 0:
                raise OptionError(f"{name} is {getattr(self, name)}; expected a positive number")
        if not self.bound > 1:
            raise OptionError(f"bound is {self.bound}; expected a number above 1")
        if not 0 <= self.epsilon < 1:
            raise OptionError(f"epsilon is {self.epsilon}; expected 0 or more and below 1")
        for name, least in (("max_iterations", 1), ("block_rows", 2)):
            if getattr(self, name) < least:
                raise OptionError(f"{name} is {getattr(self, name)}; expected at least {least}")

    def _match(
        self, q: Array, p: Array, share_q: Array, share_p: Array, hash_q: Array, hash_p: Array
    ) -> None:
        """Blocks of q in the order of hashes, each against every k-th row of p in that order."""
        order_q, order_p = np.argsort(hash_q, kind="stable"), np.argsort(hash_p, kind="stable")
        self.n_blocks_ = -(-len(q) // self.block_rows)
        n_parts = min(self.n_blocks_, -(-len(p) // self.block_rows))
        self.weights_ = np.empty(len(q))
        self.objective_, self.gap_, self.n_iterations_ = 0.0, 0.0, 0
        self.converged_ = True
        for number, here in enumerate(np.array_split(order_q, self.n_blocks_)):
            there = order_p[number % n_parts :: n_parts]
            mass = share_q[here].sum()
            share, other = share_q[here] / mass, share_p[there] / share_p[there].sum()
            target = mean_kernel(q[here], p[there], other, self.bandwidth_)
            found = match_means(
                kernel_product(q[here], self.bandwidth_),
                target,
                share,
                bound=self.bound,
                epsilon=self.epsilon,
                tolerance=self.tolerance,
                max_iterations=self.max_iterations,
            )
            self.weights_[here] = found.values / (share @ found.values)
            self.objective_ += float(mass * found.objective)
            self.gap_ += float(mass * found.gap)
            self.n_iterations_ = max(self.n_iterations_, found.n_iterations)
            self.converged_ = self.converged_ and found.converged

    def _extend(self, rows: Array, share: Array, hashes: Array) -> None:
        """Ridge regression of the weights on bumps, tuned by the exact leave-one-out error."""
        some = rows_to_tune_on(hashes, self.tuning_rows)
        part = share[some] / share[some].sum()
        rest = self.weights_[some] - 1.0
        distances = squared_distances(rows[some], self._basis.centers)
        widths = _AUTO_BANDWIDTHS * self._basis.typical_distance()
        errors = np.empty((len(widths), len(_AUTO_RIDGES)))
        for a, width in enumerate(widths):
            bumps = gaussian(distances, width)
            right = (part * rest) @ bumps
            values, vectors = eigh(weighted_gram(bumps, part), check_finite=False, driver="evd")
            inverse = 1.0 / (np.maximum(values, 0.0)[:, None] + _AUTO_RIDGES)
            bumps = bumps @ vectors
            fitted = bumps @ (inverse * (vectors.T @ right)[:, None])
            leverage = part[:, None] * (np.square(bumps, out=bumps) @ inverse)
            errors[a] = part @ ((rest[:, None] - fitted) / (1.0 - leverage)) ** 2
        best = np.unravel_index(int(np.argmin(errors)), errors.shape)
        self.extension_bandwidth_ = float(widths[best[0]])
        self.extension_ridge_ = float(_AUTO_RIDGES[best[1]])
        self.extension_error_ = float(np.sqrt(errors[best]))
        self.centers_ = self._basis.centers
        self.theta_ = solve_normal_equations(
            self._basis,
            self.extension_bandwidth_,
            self.extension_ridge_,
            1.0,
            [(rows, share, share * self.weights_)],
        )

    def _log_ratio(self, x: Array) -> Array:
        ratio = 1.0 + self._basis.sum(x, self.extension_bandwidth_, self.theta_)
        return np.log(np.clip(ratio, self.floor, self.ceiling))
