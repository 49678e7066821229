"""Laws to draw from when the law of interest is p: Gaussian mixtures, fitted to weighted draws.

    g(x) = sum_k s_k N(x; mu_k, Sigma_k)

The cross-entropy fit of g to a density s known up to scale is the weighted maximum likelihood

    max over g of  sum_n w_n log g(x_n),    w_n = s(x_n) / (density that drew x_n)

by expectation and maximisation, each covariance drawn towards the common one by a few pseudo-rows:
too wide costs little in importance sampling, too narrow costs everything.

What the definition does not fix: tails. A Gaussian has light ones; where p has heavier tails the
ratio p / g is unbounded. Keep a share of a wide law in g (`GaussianMixture.mixed_with`), and bring
bounded or heavy-tailed variables to Gaussian ones first.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from scipy.special import logsumexp

from dpdq._random import RandomState, as_generator
from dpdq.errors import DataError, OptionError
from dpdq.kernels import check_points
from dpdq.weights import effective_sample_size

__all__ = ["GaussianMixture", "fit_gaussian_mixture"]

_PSEUDO_ROWS = 2.0  # of the common covariance in each component, beside one a dimension
_STEPS = 40
_CHANGE = 1e-4  # of the mean log likelihood, below which steps end


@dataclasses.dataclass(frozen=True)
class GaussianMixture:
    """A mixture of Gaussian laws: its density and draws from it.

        log g(x) = log sum_k s_k N(x; mu_k, Sigma_k)

    Parameters
    ----------
    shares
        s, shape (K,), positive, summing to one.
    means
        mu, shape (K, d).
    covariances
        Sigma, shape (K, d, d), positive definite.

    Raises
    ------
    OptionError
        Shapes that do not fit, shares that are no law, or a covariance that is not positive
        definite.

    Notes
    -----
    Cost: O(n K d^2) time a density.
    Held by: tests/reweight/test_proposals.py::test_density_is_scipys

    References
    ----------
    .. [M454] Efficient estimation of multiple expectations with the same sample by adaptive
       importance sampling and control variates. Demange-Chryst, 2023, TMLR.

    Examples
    --------
    >>> g = GaussianMixture([0.5, 0.5], [[0.0], [4.0]], [[[1.0]], [[1.0]]])
    >>> g.log_density([[2.0]]).round(3)
    array([-2.919])
    """

    shares: Any
    means: Any
    covariances: Any
    _roots: np.ndarray = dataclasses.field(init=False, repr=False, compare=False)
    _whiteners: np.ndarray = dataclasses.field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        shares, means, covariances = (
            np.array(each, dtype=np.float64) for each in (self.shares, self.means, self.covariances)
        )
        k, d = (len(shares), means.shape[1]) if shares.ndim == 1 and means.ndim == 2 else (0, 0)
        if k == 0 or means.shape != (k, d) or covariances.shape != (k, d, d):
            raise OptionError(
                f"shares {shares.shape}, means {means.shape} and covariances {covariances.shape} "
                "do not fit; give (K,), (K, d) and (K, d, d)"
            )
        if not (shares > 0).all() or abs(shares.sum() - 1.0) > 1e-6:
            raise OptionError(f"shares are {shares.tolist()}; give positive numbers that sum to 1")
        try:
            roots = np.linalg.cholesky(covariances)
        except np.linalg.LinAlgError:
            raise OptionError("a covariance is not positive definite") from None
        object.__setattr__(self, "shares", shares / shares.sum())
        object.__setattr__(self, "means", means)
        object.__setattr__(self, "covariances", covariances)
        identity = np.broadcast_to(np.eye(d), (k, d, d))
        object.__setattr__(self, "_roots", roots)
        object.__setattr__(self, "_whiteners", np.linalg.solve(roots, identity))

    def __repr__(self) -> str:
        return f"GaussianMixture({len(self.shares)} components in {self.n_features} dimensions)"

    @property
    def n_features(self) -> int:
        """Number of dimensions, d."""
        return self.means.shape[1]

    @classmethod
    def around(cls, x: Any, *, widen: float = 1.0) -> GaussianMixture:
        """One Gaussian with the mean and covariance of a sample.

        Parameters
        ----------
        x
            Rows, shape (n, d), more than d of them.
        widen
            Factor on the standard deviations.

        Returns
        -------
        GaussianMixture
            Of one component.

        Raises
        ------
        DataError
            Too few rows, or columns that do not vary.
        """
        points = check_points(x, "x")
        if len(points) <= points.shape[1]:
            raise DataError(f"x has {len(points)} rows in {points.shape[1]} dimensions; give more")
        covariance = np.atleast_2d(np.cov(points, rowvar=False)) * widen**2
        if np.linalg.eigvalsh(covariance)[0] <= 1e-12 * np.trace(covariance):
            raise DataError("columns of x do not vary, or are linear in each other; leave them out")
        return cls([1.0], points.mean(axis=0)[None], covariance[None])

    def log_densities(self, x: np.ndarray) -> np.ndarray:
        """Log of s_k N(x; mu_k, Sigma_k), shape (n, K)."""
        found = np.empty((len(x), len(self.shares)))
        for k, whitener in enumerate(self._whiteners):
            squares = np.square((x - self.means[k]) @ whitener.T).sum(axis=1)
            scale = 0.5 * self.n_features * np.log(2 * np.pi) - np.log(np.diag(whitener)).sum()
            found[:, k] = np.log(self.shares[k]) - scale - 0.5 * squares
        return found

    def log_density(self, x: Any) -> np.ndarray:
        """Log of the density.

        Parameters
        ----------
        x
            Rows, shape (n, d).

        Returns
        -------
        ndarray of shape (n,)
            Natural logs.
        """
        points = np.asarray(x, dtype=np.float64)
        return np.asarray(logsumexp(self.log_densities(points), axis=1))

    def sample(self, n: int, *, random_state: RandomState = None) -> np.ndarray:
        """Independent draws.

        Parameters
        ----------
        n
            How many.
        random_state
            Seed of the draws.

        Returns
        -------
        ndarray of shape (n, d)
            In random order.
        """
        rng = as_generator(random_state)
        which = rng.choice(len(self.shares), size=n, p=self.shares)
        standard = rng.standard_normal((n, self.n_features))
        drawn = np.empty_like(standard)
        for k, root in enumerate(self._roots):
            own = which == k
            drawn[own] = self.means[k] + standard[own] @ root.T
        return drawn

    def mixed_with(self, other: GaussianMixture, share: float) -> GaussianMixture:
        """Mix in a share of another law.

            (1 - share) g + share * other

        Parameters
        ----------
        other
            The law to mix in.
        share
            Its share, 0 to below 1.

        Returns
        -------
        GaussianMixture
            With the components of both.
        """
        if share == 0:
            return self
        return GaussianMixture(
            np.concatenate([(1 - share) * self.shares, share * other.shares]),
            np.concatenate([self.means, other.means]),
            np.concatenate([self.covariances, other.covariances]),
        )


def fit_gaussian_mixture(
    x: Any, log_weights: Any, n_components: int, *, random_state: RandomState = None
) -> GaussianMixture:
    """Fit a Gaussian mixture to weighted rows by maximum likelihood.

        max over g of  sum_n w_n log g(x_n)

    A local maximum, from a start that depends on the seed. Components are dropped where the
    weights' effective size has fewer than 2 (d + 1) rows for each, and covariances lean on the
    common one by d + 2 pseudo-rows (changed from plain maximum likelihood).

    Parameters
    ----------
    x
        Rows, shape (n, d).
    log_weights
        Shape (n,); -infinity drops a row.
    n_components
        K, at most.
    random_state
        Seed of the start.

    Returns
    -------
    GaussianMixture
        The fit.

    Raises
    ------
    DataError
        No row with weight, or rows that all lie in a plane.

    Notes
    -----
    Cost: O(40 n K d^2) time, O(n (K + d)) memory.
    Held by: tests/reweight/test_proposals.py::test_fit_finds_a_mixture_from_weighted_rows

    References
    ----------
    .. [M454] Efficient estimation of multiple expectations with the same sample by adaptive
       importance sampling and control variates. Demange-Chryst, 2023, TMLR.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> x = np.concatenate([rng.normal(-3, 1, 500), rng.normal(3, 1, 500)])
    >>> g = fit_gaussian_mixture(x, np.zeros(1000), 2, random_state=0)
    >>> np.sort(g.means[:, 0]).round()
    array([-3.,  3.])
    """
    points, log_w = check_points(x, "x"), np.asarray(log_weights, dtype=np.float64)
    if log_w.shape != (len(points),) or np.isnan(log_w).any() or log_w.max() == -np.inf:
        raise DataError(f"log_weights have shape {log_w.shape}, NaN or no weight at all")
    keep = log_w > -np.inf
    points, log_w = points[keep], log_w[keep]
    w = np.exp(log_w - log_w.max())
    w /= w.sum()
    size, d = effective_sample_size(log_w), points.shape[1]
    k = int(np.clip(size // (2 * (d + 1)), 1, n_components))
    center = w @ points
    common = (points - center).T @ ((points - center) * w[:, None])
    floor = 1e-8 * np.trace(common) / d
    if not floor > 0:
        raise DataError("rows with weight are all equal; there is no law to fit")
    common = common * (size / max(size - 1.0, 1.0)) + floor * np.eye(d)
    means = _spread_starts(points, w, common, k, as_generator(random_state))
    shares, covariances = np.full(k, 1.0 / k), np.repeat(common[None], k, axis=0)
    likelihood = -np.inf
    for _ in range(_STEPS):
        logs = GaussianMixture(shares, means, covariances).log_densities(points)
        totals = np.asarray(logsumexp(logs, axis=1, keepdims=True))
        last, likelihood = likelihood, float(w @ totals[:, 0])
        if likelihood - last < _CHANGE:
            break
        belongs = np.exp(logs - totals) * w[:, None]
        mass = belongs.sum(axis=0)
        alive = mass > 1.0 / max(size, 2.0)
        belongs, mass = belongs[:, alive], mass[alive]
        shares = mass / mass.sum()
        means = belongs.T @ points / mass[:, None]
        covariances = np.empty((len(mass), d, d))
        for j, (rows, mean) in enumerate(zip(belongs.T, means, strict=True)):
            off = points - mean
            pseudo = (_PSEUDO_ROWS + d) / size
            scatter = off.T @ (off * rows[:, None]) + pseudo * common
            covariances[j] = scatter / (mass[j] + pseudo)
    return GaussianMixture(shares, means, covariances)


def _spread_starts(
    points: np.ndarray, w: np.ndarray, common: np.ndarray, k: int, rng: np.random.Generator
) -> np.ndarray:
    """Rows that lie apart, drawn by weight times squared distance from those drawn before."""
    standard = np.linalg.solve(np.linalg.cholesky(common), points.T).T
    chosen = [int(rng.choice(len(points), p=w))]
    nearest = np.full(len(points), np.inf)
    while len(chosen) < k:
        nearest = np.minimum(nearest, np.square(standard - standard[chosen[-1]]).sum(axis=1))
        chance = w * nearest
        if not chance.sum() > 0:
            break
        chosen.append(int(rng.choice(len(points), p=chance / chance.sum())))
    starts = points[chosen]
    return np.resize(starts, (k, points.shape[1])) if len(starts) < k else starts
