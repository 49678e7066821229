"""Fit log r through any smooth f-divergence: one loss for each row of the table.

For a guess g of log r = log dP/dQ, D_f being an f-divergence with conjugate f*,

    D_f(P || Q) >= E_p[f'(e^g)] - E_q[f*(f'(e^g))],   equality at g = log r,

so that loss(g) = E_q[f*(f'(e^g))] - E_p[f'(e^g)] is proper: log r alone minimises it, whatever f.
With the generator that has f'(1) = 0 the loss of r = 1 is 0, and minus the loss on rows that the
fit has not seen is an estimate of a lower bound of the divergence.

What the definition does not fix is which r to prefer among those that samples cannot tell apart.
The derivatives of the loss in g are h(r) on rows of q and -h(r)/r on rows of p, with h = f'' r²:

    divergence             pull of a row of q   of a row of p   convex in
    jensen_shannon         r/(1 + r)            1/(1 + r)       log r   (logistic regression)
    squared_hellinger      sqrt(r)/2            1/(2 sqrt(r))   log r
    kl                     r                    1               log r
    reverse_kl             1                    1/r             log r
    jeffreys               1 + r                1 + 1/r         log r
    alpha, 0 to 1          r^alpha              r^(alpha - 1)   log r
    pearson_chi2           2 r²                 2 r             f'(r) = 2 (r - 1)
    softened_kl            r²/(1 + r)           r/(1 + r)       f'(r) = log((1 + r)/2)
    alpha > 1              r^alpha              r^(alpha - 1)   f'(r)
    neyman_chi2, softened_reverse_kl, alpha < 0: as their duals with q and p exchanged

The loss is convex in log r exactly where h grows with r and h/r falls, that is where the
elasticity d log h / d log r lies in [0, 1]. It is convex in the critic f'(r) always, but a linear
critic needs an f* that is finite everywhere. Where the loss is not convex in log r, it is also
unbounded below on any finite sample: one row of p away from all rows of q pulls without end.

Bounded pulls (Jensen-Shannon) make robust fits; pulls that grow with r look hard at where p
exceeds q, and at single rows there; the others at where q exceeds p.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dpdq._optional import is_torch
from dpdq._random import RandomState, as_generator, child_seed
from dpdq.divergences import Divergence
from dpdq.divergences import divergence as find_divergence
from dpdq.errors import InputTypeError, OptionError
from dpdq.ratio._base import RatioEstimator
from dpdq.ratio._bumps import blocks, check_bounds, make_basis, number_grid, rows_to_tune_on
from dpdq.ratio._common import Array, content_hash, validation_split
from dpdq.ratio._links import Link, RidgeProblem, convex_link

__all__ = ["VariationalRatio", "smooth_divergence", "variational_loss"]

_AUTO_BANDWIDTHS = np.array([0.3, 0.6, 1.2, 2.4])  # times the median distance between centres
_AUTO_RIDGES = np.geomspace(10.0, 1e-4, 6)
_FALLBACK_RIDGE = 0.1  # where there are too few rows to hold some out


def variational_loss(
    log_ratio_q: Any,
    log_ratio_p: Any,
    divergence: str | Divergence = "jensen_shannon",
    *,
    weights_q: Any = None,
    weights_p: Any = None,
) -> Any:
    """Loss whose minimiser is log r = log dP/dQ, from a model's log ratios on rows of q and of p.

        loss = E_q[f*(f'(r))] - E_p[f'(r)],  generator f with f'(1) = 0

    Takes tensors, with gradients, or arrays, so that it serves in somebody's own trainer and in
    NumPy alike. 0 for the model r = 1. Losses of two divergences do not compare. On a mini-batch
    the loss is unbiased for that of all rows. For ``kl`` and ``pearson_chi2`` a single row of q
    with a large ratio can carry the whole mean: look at held-out values of a bounded one.

    Parameters
    ----------
    log_ratio_q, log_ratio_p
        The model's log ratios at rows of q and at rows of p, any shape.
    divergence
        A name of the table, or a `Divergence`; total variation has no gradient.
    weights_q, weights_p
        Importance weights of the same shapes; default uniform. Their scale does not matter.

    Returns
    -------
    tensor or float
        The loss; a tensor of no dimension where the log ratios are tensors.

    Raises
    ------
    OptionError
        An unknown divergence, or total variation.

    Notes
    -----
    Cost: O(n) time, O(n) memory.
    Held by: tests/ratio/test_variational.py::test_loss_is_minimised_by_the_truth

    References
    ----------
    .. [Nguyen2010] Estimating Divergence Functionals and the Likelihood Ratio by Convex Risk
       Minimization. Nguyen, 2010, IEEE Transactions on Information Theory 56.
    .. [Nowozin2016] f-GAN: Training Generative Neural Samplers using Variational Divergence
       Minimization. Nowozin, 2016, NeurIPS.

    Examples
    --------
    >>> import numpy as np
    >>> from dpdq.ratio import variational_loss
    >>> rng = np.random.default_rng(0)
    >>> q, p = rng.normal(0, 1, 10_000), rng.normal(1, 1, 10_000)
    >>> loss = variational_loss(q - 0.5, p - 0.5, "kl")  # at the truth: minus KL = -1/2
    >>> bool(abs(loss + 0.5) < 0.05)
    True
    """
    member = smooth_divergence(divergence)
    cost, gain = member.conjugate_at_prime(log_ratio_q), member.f_prime(log_ratio_p)
    return _mean(cost, weights_q) - _mean(gain, weights_p)


def _mean(values: Any, weights: Any) -> Any:
    if weights is None:
        return values.mean() if is_torch(values) else float(np.mean(values))
    if is_torch(values):
        share = weights.to(values) if is_torch(weights) else values.new_tensor(weights)
        return (share * values).sum() / share.sum()
    share = np.asarray(weights, dtype=np.float64)
    return float((share * values).sum() / share.sum())


def smooth_divergence(divergence: str | Divergence) -> Divergence:
    """The divergence with f'(1) = 0; total variation is refused.

    Raises
    ------
    OptionError
        An unknown name, or a divergence without a second derivative.
    InputTypeError
        Neither a name nor a divergence.
    """
    if isinstance(divergence, str):
        divergence = find_divergence(divergence)
    elif not isinstance(divergence, Divergence):
        raise InputTypeError(
            f"divergence has type {type(divergence).__name__}; give a name such as 'kl' or a "
            "Divergence such as AlphaDivergence(0.5)"
        )
    if divergence.name == "total_variation":
        raise OptionError(
            "total_variation has no gradient in log r; choose a smooth divergence such as "
            "'jensen_shannon'"
        )
    return divergence.standard()


class VariationalRatio(RatioEstimator):
    """Log ratio on Gaussian bumps and a straight line, through any smooth f-divergence.

        link(r)(x) = a + z'b + sum_l theta_l exp(-|z - z_l|² / (2 sigma²)),  z = standardised x,
        minimising  E_q[f*(f'(r))] - E_p[f'(r)] + ½ ridge (|b|² + |theta|²)

    The link is log r where the loss is convex in log r, else f'(r), or f'(1/r) of the dual with q
    and p exchanged; the problem is convex, with one solution, for every member of the table.
    Smooth ratios for few continuous columns; straight beyond the data, so that far rows get large
    log ratios. Above about twenty columns the bumps see nothing and the line remains.

    Parameters
    ----------
    divergence
        A name of the table, or a `Divergence` such as ``AlphaDivergence(0.5)``.
    n_centers
        Bumps, half of them on rows of q and half on rows of p.
    bandwidths
        sigma to try, in units of the standardised columns; ``"auto"`` is 0.3, 0.6, 1.2 and 2.4
        times the median distance between centres.
    ridges
        Penalties to try; ``"auto"`` is six values from 10 to 1e-4.
    floor
        Of links other than log r, which reach r = 0: smallest ratio (largest, where q and p are
        exchanged: its inverse).

    validation_fraction
        Share of the distinct rows on which the grid is judged; the final fit takes all rows.
    tuning_rows
        Rows a side, chosen by a hash of their content, for the grid; None for all.
    random_state
        Seed of the hash that picks centres and held-out rows.

    Attributes
    ----------
    bandwidth_, ridge_
        The cell with the smallest held-out loss.
    bandwidths_, ridges_, scores_
        The grid, and the held-out losses of shape (bandwidths, ridges); infinite where the path
        from strong to weak ridges was left.
    intercept_, coef_, theta_, centers_
        a; b and centres in standardised units; coefficients of the bumps.
    linear_in_
        The link: ``"log_ratio"``, ``"f_prime"``, or ``"f_prime_exchanged"``.

    Notes
    -----
    Cost: O(n m²) time a Newton step for m centres and columns together, some hundred steps on the
    tuning rows and some ten on all; O(n m) memory.
    Held by: tests/ratio/test_variational.py::test_jensen_shannon_is_logistic_regression

    The paper's functions stand in the critic f'(r); here they stand in log r where that is convex
    too, so that the ratio is positive and has no floor.

    References
    ----------
    .. [Nguyen2010] Estimating Divergence Functionals and the Likelihood Ratio by Convex Risk
       Minimization. Nguyen, 2010, IEEE Transactions on Information Theory 56.

    Examples
    --------
    >>> import numpy as np
    >>> from dpdq.ratio import VariationalRatio
    >>> rng = np.random.default_rng(0)
    >>> q, p = rng.normal(0, 1, (2000, 1)), rng.normal(0, 0.7, (2000, 1))
    >>> model = VariationalRatio("kl", random_state=0).fit(q=q, p=p)
    >>> bool(abs(model.log_ratio([[0.0]])[0] - 0.36) < 0.15)  # the truth: log(1 / 0.7)
    True
    """

    def __init__(
        self,
        divergence: str | Divergence = "jensen_shannon",
        *,
        n_centers: int = 100,
        bandwidths: Sequence[float] | Array | str = "auto",
        ridges: Sequence[float] | Array | str = "auto",
        floor: float = 0.01,
        validation_fraction: float = 0.3,
        tuning_rows: int | None = 2_000,
        random_state: RandomState = None,
    ) -> None:
        self.divergence = divergence
        self.n_centers = n_centers
        self.bandwidths = bandwidths
        self.ridges = ridges
        self.floor = floor
        self.validation_fraction = validation_fraction
        self.tuning_rows = tuning_rows
        self.random_state = random_state

    def _fit(self, q: Array, p: Array, weights_q: Array, weights_p: Array) -> None:
        if not 0 < self.validation_fraction < 1:
            raise OptionError(
                f"validation_fraction is {self.validation_fraction}; expected between 0 and 1"
            )
        check_bounds(self.floor, np.inf)
        self.linear_in_, link = convex_link(smooth_divergence(self.divergence), self.floor)
        self._sign = 1.0
        if self.linear_in_ == "f_prime_exchanged":
            self._sign, q, p, weights_q, weights_p = -1.0, p, q, weights_p, weights_q
        share_q, share_p = weights_q / weights_q.sum(), weights_p / weights_p.sum()
        seed = child_seed(as_generator(self.random_state))
        hash_q, hash_p = content_hash(q, seed), content_hash(p, seed)
        self._basis = make_basis(q, p, share_q, share_p, hash_q, hash_p, self.n_centers)
        rows_q, rows_p = self._basis.standardised(q), self._basis.standardised(p)
        typical = self._basis.typical_distance()
        self.bandwidths_ = number_grid("bandwidths", self.bandwidths, _AUTO_BANDWIDTHS * typical)
        ridges = number_grid("ridges", self.ridges, _AUTO_RIDGES)
        self.ridges_ = np.sort(ridges)[::-1]  # the path goes from strong to weak

        some_q = rows_to_tune_on(hash_q, self.tuning_rows)
        some_p = rows_to_tune_on(hash_p, self.tuning_rows)
        self.scores_ = np.full((len(self.bandwidths_), len(self.ridges_)), np.inf)
        split = validation_split(q[some_q], p[some_p], self.validation_fraction, seed)
        if self.scores_.size == 1:
            bandwidth, ridge = self.bandwidths_[0], self.ridges_[0]
        elif split is None:
            bandwidth = self.bandwidths_[np.argmin(np.abs(self.bandwidths_ - typical))]
            ridge = self.ridges_[np.argmin(np.abs(np.log(self.ridges_ / _FALLBACK_RIDGE)))]
        else:
            tuning = (rows_q[some_q], rows_p[some_p], share_q[some_q], share_p[some_p])
            for a, width in enumerate(self.bandwidths_):
                self.scores_[a] = self._held_out_losses(link, width, *tuning, *split)
            best = np.unravel_index(int(np.argmin(self.scores_)), self.scores_.shape)
            bandwidth, ridge = self.bandwidths_[best[0]], self.ridges_[best[1]]
        self.bandwidth_, self.ridge_ = float(bandwidth), float(ridge)
        self.centers_ = self._basis.centers
        problem = RidgeProblem(
            link,
            self._design(rows_q, self.bandwidth_),
            self._design(rows_p, self.bandwidth_),
            share_q,
            share_p,
        )
        theta = problem.solve(self.ridge_, np.zeros(problem.width))
        self._link = link
        self.intercept_ = float(theta[0])
        self.coef_, self.theta_ = theta[1 : 1 + q.shape[1]], theta[1 + q.shape[1] :]

    def _design(self, rows: Array, bandwidth: float) -> Array:
        """(1, z, bumps) at standardised rows."""
        return np.hstack([np.ones((len(rows), 1)), rows, self._basis.bumps(rows, bandwidth)])

    def _held_out_losses(
        self,
        link: Link,
        bandwidth: float,
        rows_q: Array,
        rows_p: Array,
        share_q: Array,
        share_p: Array,
        held_q: Array,
        held_p: Array,
    ) -> Array:
        """Loss on held-out rows along the path of ridges, until it has grown twice."""
        design_q, design_p = self._design(rows_q, bandwidth), self._design(rows_p, bandwidth)
        seen_q, seen_p = share_q[~held_q], share_p[~held_p]
        problem = RidgeProblem(
            link,
            design_q[~held_q],
            design_p[~held_p],
            seen_q / seen_q.sum(),
            seen_p / seen_p.sum(),
        )
        losses, theta, worse = np.full(len(self.ridges_), np.inf), np.zeros(problem.width), 0
        for b, ridge in enumerate(self.ridges_):
            theta = problem.solve(ridge, theta, tolerance=1e-6)
            loss = variational_loss(
                link.log_ratio(design_q[held_q] @ theta),
                link.log_ratio(design_p[held_p] @ theta),
                link.member,
                weights_q=share_q[held_q],
                weights_p=share_p[held_p],
            )
            losses[b] = loss if np.isfinite(loss) else np.inf
            worse = worse + 1 if losses[b] > losses.min() else 0
            if worse == 2:
                break
        return losses

    def _log_ratio(self, x: Array) -> Array:
        out = np.empty(len(x))
        for block in blocks(len(x)):
            rows = self._basis.standardised(x[block])
            out[block] = self.intercept_ + rows @ self.coef_
            out[block] += self._basis.bumps(rows, self.bandwidth_) @ self.theta_
        return self._sign * self._link.log_ratio(out)
