"""Divergences of the log ratio itself: E_P[log r], E_Q[-log r], and their sum.

    KL          r log r             heavy where p has mass that q lacks; unbounded
    reverse KL  -log r              heavy where q has mass that p lacks; h = 1
    Jeffreys    (r - 1) log r       KL + reverse KL, symmetric

The standard versions add a multiple of r - 1 so that f'(1) = 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from dpdq.divergences._numerics import (
    INVERSE_E,
    Array,
    Module,
    exp_minus_line,
    line_plus_softplus,
    minus_constant,
    solve_line_minus_exp,
    switch,
    times,
)
from dpdq.divergences.base import Divergence

__all__ = ["KL", "Jeffreys", "ReverseKL", "StandardKL", "StandardReverseKL"]


def _r_log_r(x: Array, xp: Module) -> Array:
    finite = xp.where(x == -math.inf, -1e4, x)
    return xp.exp(finite) * finite


@dataclass(frozen=True)
class KL(Divergence):
    """Kullback-Leibler divergence KL(P || Q) = E_P[log r].

    f = r log r, f' = log r + 1, f'' = 1/r, f* = e^(t-1), h = r.

    Infinite as soon as p has mass where q has none, and from samples alone it has no upper bound.
    f' resolves r everywhere.

    Notes
    -----
    Cost: O(n) time, O(n) memory.
    Held by: tests/test_divergences.py::test_table_against_oracle

    References
    ----------
    .. [Kullback1951] On Information and Sufficiency. Kullback, 1951, Ann. Math. Statist. 22.

    Examples
    --------
    >>> KL().f_prime_inverse(KL().f_prime(-3.0))
    np.float64(-3.0)
    """

    name: ClassVar[str] = "kl"
    resolved = (-math.inf, math.inf)

    def swapped(self) -> ReverseKL:
        """Return reverse KL."""
        return ReverseKL()

    def standard(self) -> StandardKL:
        """Return the generator r log r - r + 1."""
        return StandardKL()

    def _f(self, x: Array, xp: Module) -> Array:
        return _r_log_r(x, xp)

    def _f_prime(self, x: Array, xp: Module) -> Array:
        return x + 1.0

    def _log_curvature(self, x: Array, power: int, xp: Module) -> Array:
        return times(power - 1, x, xp)

    def _conjugate(self, t: Array, xp: Module) -> Array:
        return xp.exp(t - 1.0)

    def _f_prime_inverse(self, t: Array, xp: Module) -> Array:
        return t - 1.0

    def _conjugate_at_prime(self, x: Array, xp: Module) -> Array:
        return xp.exp(x)


@dataclass(frozen=True)
class ReverseKL(Divergence):
    """Reverse Kullback-Leibler divergence KL(Q || P) = E_Q[-log r].

    f = -log r, f' = -1/r, f'' = 1/r^2, f* = -1 - log(-t) for t < 0, h = 1.

    Infinite as soon as q has mass where p has none; fits to it settle on one mode of p.
    f' resolves r as long as 1/r stays in the floating range.

    Notes
    -----
    Cost: O(n) time, O(n) memory.
    Held by: tests/test_divergences.py::test_table_against_oracle

    References
    ----------
    .. [Kullback1951] On Information and Sufficiency. Kullback, 1951, Ann. Math. Statist. 22.

    Examples
    --------
    >>> ReverseKL().h([-50.0, 0.0, 50.0])
    array([1., 1., 1.])
    """

    name: ClassVar[str] = "reverse_kl"
    resolved = (-700.0, 700.0)

    def swapped(self) -> KL:
        """Return KL."""
        return KL()

    def standard(self) -> StandardReverseKL:
        """Return the generator -log r + r - 1."""
        return StandardReverseKL()

    def _f(self, x: Array, xp: Module) -> Array:
        return -x

    def _f_prime(self, x: Array, xp: Module) -> Array:
        return -xp.exp(-x)

    def _log_curvature(self, x: Array, power: int, xp: Module) -> Array:
        return times(power - 2, x, xp)

    def _conjugate(self, t: Array, xp: Module) -> Array:
        def near_root(t: Array) -> Array:
            return -xp.log1p(minus_constant(-t, INVERSE_E) * math.e)

        def far(t: Array) -> Array:
            return -1.0 - xp.log(-t)

        inside = xp.where(t >= 0, -1.0, t)
        near = abs(inside * math.e + 1.0) < 0.5
        value = switch(near, near_root, far, inside, xp, safe_yes=-0.4, safe_no=-1.0)
        return xp.where(t >= 0, math.inf, value)

    def _f_prime_inverse(self, t: Array, xp: Module) -> Array:
        value = -xp.log(-xp.where(t >= 0, -1.0, t))
        return xp.where(t >= 0, math.inf, value)

    def _conjugate_at_prime(self, x: Array, xp: Module) -> Array:
        return x - 1.0


@dataclass(frozen=True)
class Jeffreys(Divergence):
    """Jeffreys divergence KL(P || Q) + KL(Q || P).

    f = (r-1) log r, f' = log r + 1 - 1/r, f'' = 1/r + 1/r^2, h = r + 1. With W = W_0(e^(1-t)), the
    Lambert function, f* = W + 1/W + t - 2 and r = 1/W. The textbook W leaves the floating range
    for small r, so log r = -log W is solved for instead: log r + 1 - 1/r = t by Newton's method.

    Infinite where either law misses mass of the other. f' resolves r everywhere that 1/r stays in
    the floating range.

    Notes
    -----
    Cost: O(n) time, O(n) memory.
    Held by: tests/test_divergences.py::test_table_against_oracle

    References
    ----------
    .. [Jeffreys1946] An Invariant Form for the Prior Probability in Estimation Problems. Jeffreys,
       1946, Proc. R. Soc. A 186.

    Examples
    --------
    >>> Jeffreys().h(0.0)
    np.float64(2.0)
    """

    name: ClassVar[str] = "jeffreys"
    resolved = (-700.0, math.inf)

    def swapped(self) -> Jeffreys:
        """Return itself: symmetric."""
        return self

    def standard(self) -> Jeffreys:
        """Return itself: f'(1) = 0."""
        return self

    def _f(self, x: Array, xp: Module) -> Array:
        return xp.expm1(x) * x

    def _f_prime(self, x: Array, xp: Module) -> Array:
        return x - xp.expm1(-x)

    def _log_curvature(self, x: Array, power: int, xp: Module) -> Array:
        return line_plus_softplus(power - 2, x, xp)

    def _conjugate(self, t: Array, xp: Module) -> Array:
        return self._conjugate_at_prime(solve_line_minus_exp(t, xp), xp)

    def _f_prime_inverse(self, t: Array, xp: Module) -> Array:
        return solve_line_minus_exp(t, xp)

    def _conjugate_at_prime(self, x: Array, xp: Module) -> Array:
        return x + xp.expm1(x)


@dataclass(frozen=True)
class StandardKL(Divergence):
    """KL with the generator r log r - r + 1, non-negative also between unequal masses.

    f' = log r, f'' = 1/r, f* = e^t - 1, h = r. f' resolves r everywhere.

    Notes
    -----
    Cost: O(n) time, O(n) memory.
    Held by: tests/test_divergences.py::test_table_against_oracle

    Examples
    --------
    >>> StandardKL().f(1e-8)
    np.float64(5.0000000333...e-17)
    """

    name: ClassVar[str] = "kl"
    resolved = (-math.inf, math.inf)

    def swapped(self) -> StandardReverseKL:
        """Return standard reverse KL."""
        return StandardReverseKL()

    def standard(self) -> StandardKL:
        """Return itself."""
        return self

    def _f(self, x: Array, xp: Module) -> Array:
        return switch(
            x > -1,
            lambda x: xp.exp(x) * exp_minus_line(-x, xp),
            lambda x: _r_log_r(x, xp) - xp.expm1(x),
            x,
            xp,
            safe_yes=0.0,
            safe_no=-1.0,
        )

    def _f_prime(self, x: Array, xp: Module) -> Array:
        return times(1, x, xp)

    def _log_curvature(self, x: Array, power: int, xp: Module) -> Array:
        return times(power - 1, x, xp)

    def _conjugate(self, t: Array, xp: Module) -> Array:
        return xp.expm1(t)

    def _f_prime_inverse(self, t: Array, xp: Module) -> Array:
        return times(1, t, xp)

    def _conjugate_at_prime(self, x: Array, xp: Module) -> Array:
        return xp.expm1(x)


@dataclass(frozen=True)
class StandardReverseKL(Divergence):
    """Reverse KL with the generator -log r + r - 1, non-negative also between unequal masses.

    f' = 1 - 1/r, f'' = 1/r^2, f* = -log(1 - t) for t < 1, h = 1. f' resolves r up to log r = 22;
    beyond, it is 1 to the last digits.

    Notes
    -----
    Cost: O(n) time, O(n) memory.
    Held by: tests/test_divergences.py::test_table_against_oracle

    Examples
    --------
    >>> StandardReverseKL().f(1e-8)
    np.float64(5.0000000166...e-17)
    """

    name: ClassVar[str] = "reverse_kl"
    resolved = (-700.0, 22.0)

    def swapped(self) -> StandardKL:
        """Return standard KL."""
        return StandardKL()

    def standard(self) -> StandardReverseKL:
        """Return itself."""
        return self

    def _f(self, x: Array, xp: Module) -> Array:
        return exp_minus_line(x, xp)

    def _f_prime(self, x: Array, xp: Module) -> Array:
        return -xp.expm1(-x)

    def _log_curvature(self, x: Array, power: int, xp: Module) -> Array:
        return times(power - 2, x, xp)

    def _conjugate(self, t: Array, xp: Module) -> Array:
        return self._f_prime_inverse(t, xp)

    def _f_prime_inverse(self, t: Array, xp: Module) -> Array:
        value = -xp.log1p(-xp.where(t >= 1, 0.0, t))
        return xp.where(t >= 1, math.inf, value)

    def _conjugate_at_prime(self, x: Array, xp: Module) -> Array:
        return times(1, x, xp)
