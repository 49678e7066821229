"""Relative least squares: the ratio of p to a mixture of p and q, which cannot explode.

    r_a = dP / d(a P + (1 - a) Q) = r / (a r + 1 - a),   0 < a < 1

is bounded by 1/a whatever p and q are, so that its squared error, the effective size of its
weights and its divergence stay finite where those of r = dP/dQ do not. Nothing is lost:

    r = (1 - a) r_a / (1 - a r_a).

What the mixture does not change is what the data say: where q has no rows r_a is near 1/a and r is
whatever the bound on the fit makes of it. Take `ULSIF` where r is known to be moderate, `RULSIF`
where a few rows of p lie at the rim of q, and r_a itself (`RULSIF.log_relative_ratio`) where
flattened weights are wanted.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dpdq._random import RandomState, as_generator, child_seed
from dpdq.errors import OptionError
from dpdq.ratio._base import RatioEstimator
from dpdq.ratio._bumps import check_bounds
from dpdq.ratio._common import Array
from dpdq.ratio.least_squares import fit_least_squares

__all__ = ["RULSIF"]


class RULSIF(RatioEstimator):
    """Relative unconstrained least-squares fit: r through its bounded relative.

        r_a(x) = c + sum_l theta_l exp(-|x - x_l|² / (2 sigma²)),
        theta = argmin a/2 E_p[r_a²] + (1 - a)/2 E_q[r_a²] - E_p[r_a] + ½ ridge |theta|²
        r = (1 - a) r_a / (1 - a r_a)

    ``log_ratio`` is log r, as everywhere; ``log_relative_ratio`` is log r_a. The fit of r_a may
    pass 1/a, where r has no value: r is therefore held between ``floor`` and ``ceiling``, which
    holds r_a between floor / (a floor + 1 - a) and ceiling / (a ceiling + 1 - a) < 1/a. Near the
    upper end a small error of r_a is a large one of r. Above about ten columns all distances
    become alike and a classifier is better.

    Parameters
    ----------
    alpha
        a: share of p in the mixture, at least 0 and below 1; 0 is `ULSIF` with a ceiling.
    n_centers
        Bumps, half of them on rows of q and half on rows of p.
    bandwidths
        sigma to try, in units of the standardised columns; ``"auto"`` is 8 values from 0.15 to 3
        times the median distance between centres.
    ridges
        Penalties to try; ``"auto"`` is 10 values from 1e-5 to 1e3.
    offset
        c: the ratio that the penalty pulls to. 0 gives the published estimator.
    floor, ceiling
        Smallest and largest ratio r returned; they hold 1 between them.
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
    relative_divergence_
        Leave-one-out estimate of the Pearson divergence PE_a = ½ E_M[(r_a - 1)²] of p from the
        mixture M = a P + (1 - a) Q, on the tuning rows. With any fit its expectation is at most
        PE_a (without a row the criterion is a lower bound); the choice of the best of all cells
        adds a little. It may be negative and is at most (1/a - 1)/2.

    Notes
    -----
    Cost: O((n + m) m² s) time for s bandwidths, m centres and n tuning rows, O(n m) memory.
    Held by: tests/ratio/test_relative.py::test_leave_one_out_equals_brute_force

    Changed from the paper: the offset, centres on both sides, an exact leave-one-out score in the
    place of folds (see `dpdq.ratio.least_squares`), and r recovered from r_a.

    References
    ----------
    .. [Yamada2013] Relative Density-Ratio Estimation for Robust Distribution Comparison.
       Yamada, 2013, Neural Computation 25.
    .. [Kanamori2009] A Least-squares Approach to Direct Importance Estimation. Kanamori, 2009,
       JMLR 10.

    Examples
    --------
    >>> import numpy as np
    >>> from dpdq.ratio import RULSIF
    >>> rng = np.random.default_rng(0)
    >>> q, p = rng.normal(0, 1, (3000, 1)), rng.normal(0.5, 0.7, (3000, 1))
    >>> model = RULSIF(random_state=0).fit(q=q, p=p)
    >>> bool(abs(model.log_ratio([[0.5]])[0] - 0.48) < 0.1)  # the truth at 1/2
    True
    >>> bool(model.log_relative_ratio(p).max() < np.log(10))  # below 1/alpha
    True
    """

    def __init__(
        self,
        alpha: float = 0.1,
        n_centers: int = 100,
        *,
        bandwidths: Sequence[float] | Array | str = "auto",
        ridges: Sequence[float] | Array | str = "auto",
        offset: float = 1.0,
        floor: float = 0.01,
        ceiling: float = 1e3,
        standardise: bool = True,
        tuning_rows: int | None = 2_000,
        random_state: RandomState = None,
    ) -> None:
        self.alpha = alpha
        self.n_centers = n_centers
        self.bandwidths = bandwidths
        self.ridges = ridges
        self.offset = offset
        self.floor = floor
        self.ceiling = ceiling
        self.standardise = standardise
        self.tuning_rows = tuning_rows
        self.random_state = random_state

    def _fit(self, q: Array, p: Array, weights_q: Array, weights_p: Array) -> None:
        if not 0 <= self.alpha < 1:
            raise OptionError(f"alpha is {self.alpha}; expected 0 or more and below 1")
        check_bounds(self.floor, self.ceiling)
        self._low, self._high = (
            bound / (self.alpha * bound + 1 - self.alpha) for bound in (self.floor, self.ceiling)
        )
        fit = fit_least_squares(
            q,
            p,
            weights_q,
            weights_p,
            alpha=self.alpha,
            n_centers=self.n_centers,
            bandwidths=self.bandwidths,
            ridges=self.ridges,
            offset=self.offset,
            floor=self._low,
            ceiling=self._high,
            standardise=self.standardise,
            tuning_rows=self.tuning_rows,
            seed=child_seed(as_generator(self.random_state)),
        )
        self._fitted = fit
        self.bandwidth_, self.ridge_, self.theta_ = fit.bandwidth, fit.ridge, fit.theta
        self.bandwidths_, self.ridges_, self.scores_ = fit.bandwidths, fit.ridges, fit.scores
        self.centers_ = fit.basis.centers
        self.relative_divergence_ = float(-0.5 - fit.scores.min())

    def _log_ratio(self, x: Array) -> Array:
        relative = np.clip(self._fitted.ratio(x), self._low, self._high)
        return np.log((1 - self.alpha) * relative / (1 - self.alpha * relative))

    def log_relative_ratio(self, x: object) -> Array:
        """Log of the relative ratio dP / d(alpha P + (1 - alpha) Q) at new rows.

            log r_a = log r - log(alpha r + 1 - alpha)

        Below log(1/alpha), so that weights r_a have an effective size of at least alpha n.

        Parameters
        ----------
        x
            Array of shape (n, d).

        Returns
        -------
        ndarray of shape (n,)
            Natural logarithms.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        DataError
            Another width than in ``fit``, or non-finite values.

        Notes
        -----
        Cost: O(n m) time for m centres, O(n) memory.
        Held by: tests/ratio/test_relative.py::test_both_ratios_agree_and_are_bounded

        References
        ----------
        .. [Yamada2013] Relative Density-Ratio Estimation for Robust Distribution Comparison.
           Yamada, 2013, Neural Computation 25.
        """
        log_ratio = self.log_ratio(x)
        return log_ratio - np.log1p(self.alpha * np.expm1(log_ratio))
