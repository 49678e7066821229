"""Bettors on the order of a pair (row of q, row of p): online logistic regressions on differences.

Each has its own features and its own prior; the joint purse is the mean of their wealths, and its
bet on a pair the mean of their bets, weighted by wealth.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import expit, log_expit, logsumexp

from dpdq.distance.random_features import frequencies
from dpdq.kernels import GaussianKernel, median_heuristic

__all__ = ["Bettors"]

N_FREQUENCIES = 40  # random frequencies of each bandwidth
BANDWIDTHS = (2.0, 1.0, 0.5, 0.25)  # in medians of the first rows
PRIOR_VARIANCES = (0.1, 1.0, 10.0)  # of the log ratio at a point
AT_ONCE = 32  # pairs of one update of the inverse
MOST_COLUMNS = 2 * N_FREQUENCIES  # linear features; more columns are projected


class Bettors:
    """All bettors: features of rows, and an online logistic regression of pairs on each."""

    def __init__(self, first_rows: np.ndarray, rng: np.random.Generator) -> None:
        d = first_rows.shape[1]
        self.centre = np.median(first_rows, axis=0)
        low, high = np.quantile(first_rows, [0.25, 0.75], axis=0)
        spread = (high - low) / 1.349
        spread = np.where(spread > 0, spread, np.abs(first_rows - self.centre).mean(axis=0))
        self.spread = np.where((spread > 0) & np.isfinite(spread), spread, 1.0)
        moved = self._squashed(first_rows)
        kernel = GaussianKernel([median_heuristic(moved) * factor for factor in BANDWIDTHS])
        self.omega = frequencies(kernel, d, N_FREQUENCIES, rng)
        self.projection = np.eye(d, 2 * N_FREQUENCIES) / math.sqrt(d)
        if d > MOST_COLUMNS:
            self.projection = rng.normal(size=(d, MOST_COLUMNS)) / math.sqrt(d * MOST_COLUMNS)
        n_maps = 1 + len(kernel)
        self.inverse = np.repeat(PRIOR_VARIANCES, n_maps)[:, None, None] * np.eye(2 * N_FREQUENCIES)
        self.map_of = np.tile(np.arange(n_maps), len(PRIOR_VARIANCES))
        self.weights = np.zeros((len(self.inverse), 2 * N_FREQUENCIES))
        self.log_wealth = np.full(len(self.inverse), -math.log(len(self.inverse)))

    def _squashed(self, rows: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):
            return np.arcsinh(np.clip((rows - self.centre) / self.spread, -1e300, 1e300))

    def _features(self, rows: np.ndarray) -> np.ndarray:
        """Shape (maps, n, 2 D): the columns, and random features of unit length a row."""
        moved = self._squashed(rows)
        found = [moved @ self.projection]
        for omega in self.omega:
            angles = moved @ omega
            waves = np.hstack([np.cos(angles), np.sin(angles)])
            found.append(waves / math.sqrt(N_FREQUENCIES))
        return np.array(found)

    def bet(self, q: np.ndarray, p: np.ndarray) -> np.ndarray:
        """Bet on each pair, learn from them all, and say log b_t of the joint purse, shape (n,)."""
        difference = (self._features(p) - self._features(q))[self.map_of]  # (bettors, n, 2 D)
        score = np.einsum("end,ed->en", difference, self.weights)
        unknown = np.einsum("end,end->en", difference @ self.inverse, difference)
        # the mean of a sigmoid under a normal law of its argument (MacKay 1992)
        shrunk = score / np.sqrt(1.0 + math.pi / 8.0 * unknown)
        chances = log_expit(shrunk)
        path = self.log_wealth[:, None] + np.cumsum(math.log(2.0) + chances, axis=1)
        before = np.hstack([self.log_wealth[:, None], path[:, :-1]])
        joint = np.asarray(logsumexp(path, axis=0)) - np.asarray(logsumexp(before, axis=0))
        joint -= math.log(2.0)
        self.log_wealth = path[:, -1]
        right = expit(score)
        curvature = right * (1.0 - right)
        root = difference * np.sqrt(curvature)[:, :, None]
        for first in range(0, root.shape[1], AT_ONCE):
            self._sharpen(root[:, first : first + AT_ONCE])
        gradient = np.einsum("en,end->ed", 1.0 - right, difference)
        self.weights += np.einsum("edf,ef->ed", self.inverse, gradient)
        return joint

    def _sharpen(self, root: np.ndarray) -> None:
        """(A + R'R)^-1 from A^-1 for a few rows R of each bettor, by Woodbury's identity."""
        gain = root @ self.inverse
        inner = np.eye(root.shape[1]) + gain @ np.swapaxes(root, 1, 2)
        self.inverse -= np.swapaxes(gain, 1, 2) @ np.linalg.solve(inner, gain)
