"""Ridge logistic regression along a path of penalties, on all folds at once, over distinct rows.

    theta(lambda) = argmin  ½ E_q[log(1 + r)] + ½ E_p[log(1 + 1/r)] + ½ lambda |theta|²,
    log r = theta'z,  the intercept not penalised

Rows that agree on all covariates have the same z, so that a side is a count for each cell and a
fold a smaller count. The fits of all folds at one penalty are columns of one matrix: a step costs
two matrix products. Along the path the start is extrapolated from the last points, and Newton's
matrix is kept until it no longer converges in a step or two.
"""

from __future__ import annotations

import numpy as np
from scipy.special import expit

from dpdq.ratio._common import softplus
from dpdq.reweight._common import Array

__all__ = ["LogisticPath"]


class LogisticPath:
    """The fits of one design for several sets of cell weights (one a column).

    Parameters
    ----------
    design
        z of the cells, shape (t, cells), the first row ones.
    mass_q, mass_p
        Weight of each cell on each side, shape (cells, fits); each column sums to one.
    """

    def __init__(self, design: Array, mass_q: Array, mass_p: Array) -> None:
        self.design = design
        self.wanted = mass_p / 2
        self.mass = (mass_q + mass_p) / 2
        self.fits = mass_q.shape[1]
        self._unpenalised = np.ones(len(design))
        self._unpenalised[0] = 0.0

    def gradient(self, theta: Array, penalty: float) -> tuple[Array, Array]:
        """Gradients, shape (fits, t), and linear predictors, shape (cells, fits)."""
        eta = self.design.T @ theta.T
        s = expit(eta)
        s *= self.mass
        s -= self.wanted
        return (self.design @ s).T + penalty * self._unpenalised * theta, eta

    def hessian(self, eta: Array) -> Array:
        """Second derivatives of the loss, shape (fits, t, t)."""
        s = expit(eta)
        curvature = np.sqrt(self.mass * s * (1 - s))
        out = np.empty((self.fits, len(self.design), len(self.design)))
        for fit in range(self.fits):
            half = self.design * curvature[:, fit]
            out[fit] = half @ half.T
        return out

    def solve(
        self, penalty: float, start: Array, hessian: Array | None, tolerance: float
    ) -> tuple[Array, Array, Array, bool]:
        """Minimisers, their linear predictors, the Hessian last used, and convergence."""
        theta, last = start.copy(), np.inf
        eta = np.zeros_like(self.mass)
        ridge = np.diag(penalty * self._unpenalised)
        for step_number in range(60):
            gradient, eta = self.gradient(theta, penalty)
            fresh = hessian is None
            if hessian is None:
                hessian = self.hessian(eta)
            step = _solve_each(hessian + ridge, gradient)
            decrement = float(np.max(np.einsum("ft,ft->f", gradient, step)))
            if decrement <= tolerance:
                return theta, eta, hessian, True
            if not fresh and step_number > 0 and decrement > 0.05 * last:
                hessian = self.hessian(eta)
                step = _solve_each(hessian + ridge, gradient)
                fresh = True
            if fresh:
                step = self._damped(theta, step, gradient, penalty)
            theta -= step
            last = decrement
        return theta, eta, self.hessian(eta), False

    def loss(self, theta: Array, penalty: float) -> Array:
        """Penalised loss of each fit."""
        eta = self.design.T @ theta.T
        loss = np.einsum("cf,cf->f", self.mass, softplus(eta))
        loss -= np.einsum("cf,cf->f", self.wanted, eta)
        return loss + penalty / 2 * (theta**2 @ self._unpenalised)

    def _damped(self, theta: Array, step: Array, gradient: Array, penalty: float) -> Array:
        """The step, halved where it does not lower a fit's loss."""
        slope = np.einsum("ft,ft->f", gradient, step)
        if float(slope.max()) < 1e-3:
            return step
        before = self.loss(theta, penalty)
        length = np.ones(self.fits)
        for _ in range(30):
            after = self.loss(theta - length[:, None] * step, penalty)
            bad = ~(after <= before - 1e-4 * length * slope + 1e-15)
            if not bad.any():
                break
            length[bad] /= 2
        return length[:, None] * step

    def held_out(
        self, penalties: Array, held_q: Array, held_p: Array, tolerance: float = 1e-9
    ) -> tuple[Array, Array]:
        """Loss of each fold's held-out rows under its own fit, shape (penalties, folds).

        The last column of the fits is that of all rows, whose path is handed back too, shape
        (penalties, t).
        """
        held, gain = (held_q + held_p) / 2, held_p / 2
        folds = held.shape[1]
        losses = np.empty((len(penalties), folds))
        path: list[Array] = []
        hessian: Array | None = None
        position = np.log(penalties)
        for i, penalty in enumerate(penalties):
            start = _extrapolated(path, position, i)
            if start is None:
                start = np.zeros((self.fits, len(self.design)))
            theta, eta, hessian, _ = self.solve(float(penalty), start, hessian, tolerance)
            path.append(theta)
            seen = eta[:, :folds]
            losses[i] = np.einsum("cf,cf->f", held, softplus(seen)) - np.einsum(
                "cf,cf->f", gain, seen
            )
        return losses, np.array([theta[-1] for theta in path])


def _solve_each(matrices: Array, rights: Array) -> Array:
    try:
        return np.linalg.solve(matrices, rights[:, :, None])[:, :, 0]
    except np.linalg.LinAlgError:
        ridge = 1e-10 * np.eye(matrices.shape[1])
        return np.linalg.solve(matrices + ridge, rights[:, :, None])[:, :, 0]


def _extrapolated(path: list[Array], position: Array, i: int) -> Array | None:
    """The next point of a smooth path: the parabola through the last three points."""
    if not path:
        return None
    if len(path) < 3:
        return path[-1]
    x, (a, b, c) = position[i], position[i - 3 : i]
    weight_a = (x - b) * (x - c) / ((a - b) * (a - c))
    weight_b = (x - a) * (x - c) / ((b - a) * (b - c))
    weight_c = (x - a) * (x - b) / ((c - a) * (c - b))
    return weight_a * path[-3] + weight_b * path[-2] + weight_c * path[-1]
