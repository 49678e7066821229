"""The noun of the room: a divergence, seen through its generator f on the log ratio."""

from __future__ import annotations

import abc
from typing import ClassVar

from dpdq.divergences._numerics import Array, Module, evaluate

__all__ = ["Divergence"]


class Divergence(abc.ABC):
    """An f-divergence D_f(P || Q) = E_Q[f(r)], with every part a function of log r.

    f is convex with f(1) = 0. Methods take a number, anything that NumPy makes an array of
    (computed in float64) or a torch tensor (computed in its own dtype, with gradients), and return
    the same kind and shape. Values that leave the floating range become the limit, infinity or 0;
    NaN comes out only where NaN goes in.

    Two divergences are equal when their class and parameters are; they hash and pickle.

    Attributes
    ----------
    name
        The key in results and in `divergence`.
    scale_to_report
        What reports multiply D_f by: 1/2 for Jensen-Shannon and squared Hellinger, else 1.
    resolved
        The log ratios between which `f_prime` in float64 pins log r to 1e-6, so that
        ``f_prime_inverse(f_prime(log_r))`` comes back; beyond, f' is flat to the last digit. In
        float32, where the same ends resolve about nine digits less, stay within half of them.
    """

    name: ClassVar[str]
    scale_to_report: ClassVar[float] = 1.0
    resolved: tuple[float, float]

    def f(self, log_r: Array) -> Array:
        """Return f(r)."""
        return evaluate(self._f, log_r, "log_r")

    def f_prime(self, log_r: Array) -> Array:
        """Return f'(r), the derivative in r: the critic that makes the variational bound tight."""
        return evaluate(self._f_prime, log_r, "log_r")

    def f_second(self, log_r: Array) -> Array:
        """Return f''(r), the second derivative in r."""
        return evaluate(lambda x, xp: xp.exp(self._log_curvature(x, 0, xp)), log_r, "log_r")

    def h(self, log_r: Array) -> Array:
        """Return h(r) = f''(r) r^2, the weight of the score difference in distillation."""
        return evaluate(lambda x, xp: xp.exp(self._log_curvature(x, 2, xp)), log_r, "log_r")

    def log_h(self, log_r: Array) -> Array:
        """Return log h(r), never through r."""
        return evaluate(lambda x, xp: self._log_curvature(x, 2, xp), log_r, "log_r")

    def conjugate(self, t: Array) -> Array:
        """Return f*(t), the supremum of r t - f(r) over r >= 0; infinity outside its domain."""
        return evaluate(self._conjugate, t, "t")

    def f_prime_inverse(self, t: Array) -> Array:
        """Return log r, not r, at which f'(r) = t.

        It is the log of the r >= 0 that attains f*(t): -infinity for t below the range of f', and
        infinity for t above it.
        """
        return evaluate(self._f_prime_inverse, t, "t")

    def conjugate_at_prime(self, log_r: Array) -> Array:
        """Return f*(f'(r)) = r f'(r) - f(r), from log r without passing through t."""
        return evaluate(self._conjugate_at_prime, log_r, "log_r")

    @abc.abstractmethod
    def swapped(self) -> Divergence:
        """Exchange the laws: the Csiszár dual r f(1/r), whose D(P || Q) is D_f(Q || P)."""

    @abc.abstractmethod
    def standard(self) -> Divergence:
        """Fix f'(1) = 0, so that f >= 0: f gains a multiple c of r - 1.

        f*(t) becomes f*(t - c) + c, the inverse is taken at t - c, and h does not change. Between
        measures whose masses differ this version is the one that stays non-negative.
        """

    @abc.abstractmethod
    def _f(self, x: Array, xp: Module) -> Array: ...

    @abc.abstractmethod
    def _f_prime(self, x: Array, xp: Module) -> Array: ...

    @abc.abstractmethod
    def _log_curvature(self, x: Array, power: int, xp: Module) -> Array:
        """``log(f''(r) r^power)``."""

    @abc.abstractmethod
    def _conjugate(self, t: Array, xp: Module) -> Array: ...

    @abc.abstractmethod
    def _f_prime_inverse(self, t: Array, xp: Module) -> Array: ...

    @abc.abstractmethod
    def _conjugate_at_prime(self, x: Array, xp: Module) -> Array: ...
