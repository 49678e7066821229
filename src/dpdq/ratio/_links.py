"""The variational loss as a convex function of a linear score, and its ridge problem.

    loss = E_q[f*(f'(r))] - E_p[f'(r)],   link(r) = score = design @ theta

`convex_link` finds for a divergence the link in which the loss is convex: log r, the critic f'(r),
or the critic of the dual with q and p exchanged.
"""

from __future__ import annotations

import abc

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from dpdq.divergences import Divergence
from dpdq.ratio._common import Array

__all__ = ["CriticLink", "Link", "LogLink", "RidgeProblem", "convex_link", "elasticity"]

_STEP = 1e-4  # of the difference quotient for the elasticity of h


class Link(abc.ABC):
    """What the linear score s means, and the loss as a convex function of it."""

    def __init__(self, member: Divergence) -> None:
        self.member = member

    @abc.abstractmethod
    def log_ratio(self, score: Array) -> Array:
        """Return log r."""

    @abc.abstractmethod
    def loss(self, score_q: Array, score_p: Array) -> tuple[Array, Array]:
        """Return f*(f'(r)) at rows of q and -f'(r) at rows of p."""

    @abc.abstractmethod
    def on_q(self, score: Array) -> tuple[Array, Array]:
        """Return the first and second derivative of f*(f'(r))."""

    @abc.abstractmethod
    def on_p(self, score: Array) -> tuple[Array, Array]:
        """Return the first and second derivative of -f'(r)."""


class LogLink(Link):
    """s = log r: derivatives h and h e on q, -h/r and (h/r) (1 - e) on p, e the elasticity."""

    def log_ratio(self, score: Array) -> Array:
        return score

    def loss(self, score_q: Array, score_p: Array) -> tuple[Array, Array]:
        return self.member.conjugate_at_prime(score_q), -self.member.f_prime(score_p)

    def on_q(self, score: Array) -> tuple[Array, Array]:
        pull = self.member.h(score)
        return pull, pull * np.clip(elasticity(self.member, score), 0.0, 1.0)

    def on_p(self, score: Array) -> tuple[Array, Array]:
        pull = np.exp(self.member.log_h(score) - score)
        return -pull, pull * (1 - np.clip(elasticity(self.member, score), 0.0, 1.0))


class CriticLink(Link):
    """s = f'(r): derivatives of f* are r and 1/f''(r), 0 where r is; those of -s on p -1 and 0."""

    def __init__(self, member: Divergence, floor: float) -> None:
        super().__init__(member)
        self.floor = floor

    def log_ratio(self, score: Array) -> Array:
        return np.maximum(self.member.f_prime_inverse(score), np.log(self.floor))

    def loss(self, score_q: Array, score_p: Array) -> tuple[Array, Array]:
        return self.member.conjugate(score_q), -score_p

    def on_q(self, score: Array) -> tuple[Array, Array]:
        log_ratio = self.member.f_prime_inverse(score)
        inside = log_ratio > -700.0
        safe = np.where(inside, log_ratio, 0.0)
        curvature = np.exp(2 * safe - self.member.log_h(safe))
        return np.where(inside, np.exp(safe), 0.0), np.where(inside, curvature, 0.0)

    def on_p(self, score: Array) -> tuple[Array, Array]:
        return np.full(len(score), -1.0), np.zeros(len(score))


def convex_link(member: Divergence, floor: float) -> tuple[str, Link]:
    """The parametrisation in which the loss is convex; the last one is for q and p exchanged."""
    rise = elasticity(member, np.linspace(-20, 20, 401))
    if rise.min() > -1e-6 and rise.max() < 1 + 1e-6:
        return "log_ratio", LogLink(member)
    if np.isfinite(member.conjugate(np.linspace(-50, 50, 101))).all():
        return "f_prime", CriticLink(member, floor)
    return "f_prime_exchanged", CriticLink(member.swapped().standard(), floor)


def elasticity(member: Divergence, log_ratio: Array) -> Array:
    """D log h / d log r, by a difference quotient."""
    rise = member.log_h(log_ratio + _STEP) - member.log_h(log_ratio - _STEP)
    return rise / (2 * _STEP)


class RidgeProblem:
    """The ridge problem on fixed designs, whose first column is the constant: damped Newton."""

    def __init__(
        self, link: Link, design_q: Array, design_p: Array, share_q: Array, share_p: Array
    ) -> None:
        self.link, self.q, self.p = link, design_q, design_p
        self.share_q, self.share_p = share_q, share_p
        self.width = design_q.shape[1]
        self.penalised = np.ones(self.width)
        self.penalised[0] = 0.0

    def _value(self, score_q: Array, score_p: Array, theta: Array, ridge: float) -> float:
        loss_q, loss_p = self.link.loss(score_q, score_p)
        penalty = ridge * (self.penalised @ theta**2) / 2
        return float(self.share_q @ loss_q + self.share_p @ loss_p + penalty)

    def solve(self, ridge: float, start: Array, *, tolerance: float = 1e-12) -> Array:
        """The minimiser, from a start, until a step promises less than the tolerance."""
        # A step too far may overflow; its value is then infinite, and the step is halved.
        with np.errstate(over="ignore", invalid="ignore"):
            return self._solve(ridge, start, tolerance)

    def _solve(self, ridge: float, theta: Array, tolerance: float) -> Array:
        score_q, score_p = self.q @ theta, self.p @ theta
        value = self._value(score_q, score_p, theta, ridge)
        for _ in range(100):
            slope_q, bend_q = self.link.on_q(score_q)
            slope_p, bend_p = self.link.on_p(score_p)
            gradient = self.q.T @ (self.share_q * slope_q) + self.p.T @ (self.share_p * slope_p)
            gradient += ridge * self.penalised * theta
            hessian = (self.q.T * (self.share_q * bend_q)) @ self.q
            hessian += (self.p.T * (self.share_p * bend_p)) @ self.p
            diagonal = ridge * self.penalised + 1e-10 * max(hessian.diagonal().max(), 1e-6)
            hessian.flat[:: self.width + 1] += diagonal
            step = cho_solve(cho_factor(hessian, check_finite=False), gradient, check_finite=False)
            promise = float(gradient @ step)
            if not promise > tolerance:
                break
            moved_q, moved_p, length = self.q @ step, self.p @ step, 1.0
            while length > 1e-8:
                new_q, new_p = score_q - length * moved_q, score_p - length * moved_p
                new = self._value(new_q, new_p, theta - length * step, ridge)
                if new <= value - 1e-4 * length * promise + 1e-15:
                    break
                length /= 2
            else:
                break
            theta, score_q, score_p, value = theta - length * step, new_q, new_p, new
        return theta
