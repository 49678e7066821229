"""Divergences through the mixture m = (p + q) / 2, which both laws are within a factor 2 of.

    Jensen-Shannon        KL(p || m) + KL(q || m)     symmetric, at most 2 log 2
    softened reverse KL   2 KL(m || p)                infinite where q has mass that p lacks
    softened KL           2 KL(m || q)                its dual, infinite the other way round

With a(L) = log((1 + e^L) / 2) all three are lines in a: f' of Jensen-Shannon is -a(-log r).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from dpdq.divergences._numerics import (
    LOG_2,
    Array,
    Module,
    excess_above_linear,
    excess_over_tangent,
    line_minus_softplus,
    log_expm1,
    log_half_sum,
    minus_constant,
    newton,
    solve_exp_minus_line,
    switch,
)
from dpdq.divergences.base import Divergence

__all__ = [
    "JensenShannon",
    "SoftenedKL",
    "SoftenedReverseKL",
    "StandardSoftenedKL",
    "StandardSoftenedReverseKL",
]

_FAR = 1e4  # beyond it exp(-log r) is 0 or infinite in every dtype


def _below_log_2(
    t: Array, far: Callable[[Array], Array], near: Callable[[Array], Array], xp: Module
) -> Array:
    """``far(t)`` away from log 2, ``near(t - log 2)`` close below it, infinity above."""
    gap = minus_constant(t, LOG_2)
    inside = xp.where(gap >= 0, 0.0, t)
    value = switch(
        inside < 0.35,
        far,
        lambda t: near(minus_constant(t, LOG_2)),
        inside,
        xp,
        safe_yes=0.0,
        safe_no=0.5,
    )
    return xp.where(gap >= 0, math.inf, value)


def _below(x: Array, xp: Module) -> Array:
    """``x`` kept where ``e^x - x`` is not infinity minus infinity."""
    return xp.where(x > _FAR, _FAR, x)


def _softened_reverse_kl_slope(x: Array, xp: Module) -> Array:
    """Return f' of the standard softened reverse KL: log((1 + 1/r) / 2) - 1/r + 1."""
    near = xp.where(x < -_FAR, -_FAR, x)  # 1/r outgrows its logarithm
    return log_half_sum(-near, xp) - xp.expm1(-near)


def _softened_reverse_kl_inverse(t: Array, xp: Module) -> tuple[Array, Array]:
    """Log r and f* of the standard softened reverse KL at t.

    With z = log(1 + 1/r), f' = z - log 2 + 2 - e^z, that is e^z - 1 - z = 1 - log 2 - t, and
    f* = log 2 - z. Close to t = 0, where that difference cancels, log r is solved for directly.
    """
    depth = -minus_constant(t, 1 - LOG_2)
    outside = depth < 0

    def direct(t: Array) -> tuple[Array, Array]:
        x = newton(
            2.0 * t,
            t,
            lambda x: _softened_reverse_kl_slope(x, xp),
            lambda x: xp.exp(line_minus_softplus(-1, x, xp)),
        )
        return x, -log_half_sum(-x, xp)

    def through_z(depth: Array) -> tuple[Array, Array]:
        z = solve_exp_minus_line(depth, xp)
        return -log_expm1(z, xp), math.log(2) - z

    near = abs(t) < 0.25
    log_r_near, conjugate_near = direct(xp.where(near, t, 0.0))
    log_r_far, conjugate_far = through_z(xp.where(near | outside, 1.0, depth))
    log_r = xp.where(near, log_r_near, log_r_far)
    conjugate = xp.where(near, conjugate_near, conjugate_far)
    return xp.where(outside, math.inf, log_r), xp.where(outside, math.inf, conjugate)


def _softened_kl_inverse(t: Array, gap: Array, xp: Module) -> Array:
    """Log r of the standard softened KL at t, the gap being t + log 2: log(2 e^t - 1)."""
    inside = xp.where(gap > 0, gap, 0.5)
    near = abs(t) < 0.35
    value = xp.where(
        near,
        xp.log1p(2.0 * xp.expm1(xp.where(near, t, 0.0))),
        log_expm1(xp.where(near, 0.5, inside), xp),
    )
    return xp.where(gap <= 0, -math.inf, xp.where(xp.isnan(t), t, value))


@dataclass(frozen=True)
class JensenShannon(Divergence):
    """Jensen-Shannon divergence on the table's scale, KL(P || M) + KL(Q || M) = 2 JSD.

    f = r log r - (r+1) log((r+1)/2), f' = log(2r/(r+1)), f'' = 1/(r(r+1)),
    f* = -log(2 - e^t) for t < log 2, h = sigmoid(log r).

    Saturates: laws without overlap all have 2 log 2, however far apart. Reports show half of it.
    f' resolves r up to log r = 22; beyond, it is log 2 to the last digits.

    Notes
    -----
    Cost: O(n) time, O(n) memory.
    Held by: tests/test_divergences.py::test_table_against_oracle

    References
    ----------
    .. [Lin1991] Divergence Measures Based on the Shannon Entropy. Lin, 1991, IEEE Trans. Inf.
       Theory 37.

    Examples
    --------
    >>> JensenShannon().h(0.0)
    np.float64(0.5)
    """

    name: ClassVar[str] = "jensen_shannon"
    scale_to_report: ClassVar[float] = 0.5
    resolved = (-math.inf, 22.0)

    def swapped(self) -> JensenShannon:
        """Return itself: symmetric."""
        return self

    def standard(self) -> JensenShannon:
        """Return itself: f'(1) = 0."""
        return self

    def _f(self, x: Array, xp: Module) -> Array:
        return (1.0 + xp.exp(x)) * excess_above_linear(x, xp)

    def _f_prime(self, x: Array, xp: Module) -> Array:
        return -log_half_sum(-x, xp)

    def _log_curvature(self, x: Array, power: int, xp: Module) -> Array:
        return line_minus_softplus(power - 1, x, xp)

    def _conjugate(self, t: Array, xp: Module) -> Array:
        return _below_log_2(
            t,
            lambda t: -xp.log1p(-xp.expm1(t)),
            lambda gap: -math.log(2) - xp.log(-xp.expm1(gap)),
            xp,
        )

    def _f_prime_inverse(self, t: Array, xp: Module) -> Array:
        return _below_log_2(
            t,
            lambda t: t - xp.log1p(-xp.expm1(t)),
            lambda gap: gap - xp.log(-xp.expm1(gap)),
            xp,
        )

    def _conjugate_at_prime(self, x: Array, xp: Module) -> Array:
        return log_half_sum(x, xp)


@dataclass(frozen=True)
class SoftenedReverseKL(Divergence):
    """Softened reverse KL, 2 KL(M || P) with M = (P + Q) / 2.

    f = (r+1) log((r+1)/(2r)), f' = log((1+r)/(2r)) - 1/r, f'' = 1/(r^2 (1+r)),
    f* = -1 - log(-W/2) and r = -1/(1+W) with W = W_{-1}(-2 e^(t-1)) for t < -log 2, h = 1/(1+r).
    The textbook W leaves the floating range for small r, so z = log(-W) is solved for instead.

    Infinite as soon as q has mass where p has none. f itself takes negative values (f'(1) = -1);
    its mean under q does not. f' resolves r up to log r = 10; beyond, it is -log 2 to the last
    digits.

    Notes
    -----
    Cost: O(n) time, O(n) memory; four Newton steps where f' is inverted.
    Held by: tests/test_divergences.py::test_table_against_oracle

    References
    ----------
    .. [Shannon2020] Properties of f-divergences and f-GAN training. Shannon, 2020, arXiv
       2009.00757.

    Examples
    --------
    >>> SoftenedReverseKL().h(0.0)
    np.float64(0.5)
    """

    name: ClassVar[str] = "softened_reverse_kl"
    resolved = (-700.0, 10.0)

    def swapped(self) -> SoftenedKL:
        """Return softened KL, 2 KL(M || Q)."""
        return SoftenedKL()

    def standard(self) -> StandardSoftenedReverseKL:
        """Return the generator with r - 1 added."""
        return StandardSoftenedReverseKL()

    def _f(self, x: Array, xp: Module) -> Array:
        return (1.0 + xp.exp(x)) * log_half_sum(-x, xp)

    def _f_prime(self, x: Array, xp: Module) -> Array:
        near = xp.where(x < -_FAR, -_FAR, x)
        return log_half_sum(-near, xp) - xp.exp(-near)

    def _log_curvature(self, x: Array, power: int, xp: Module) -> Array:
        return line_minus_softplus(power - 2, x, xp)

    def _conjugate(self, t: Array, xp: Module) -> Array:
        return _softened_reverse_kl_inverse(t + 1.0, xp)[1] - 1.0

    def _f_prime_inverse(self, t: Array, xp: Module) -> Array:
        return _softened_reverse_kl_inverse(t + 1.0, xp)[0]

    def _conjugate_at_prime(self, x: Array, xp: Module) -> Array:
        return -1.0 - log_half_sum(-x, xp)


@dataclass(frozen=True)
class SoftenedKL(Divergence):
    """Softened KL, 2 KL(M || Q) with M = (P + Q) / 2: the dual of softened reverse KL.

    f = (r+1) log((r+1)/2), f' = log((r+1)/2) + 1, f'' = 1/(1+r),
    f* = 2 e^(t-1) - t for t >= 1 - log 2 and log 2 below, h = r^2/(1+r).

    Infinite as soon as p has mass where q has none. f takes negative values (f'(1) = 1); its mean
    under q does not. f' resolves r down to log r = -22; below, it is 1 - log 2 to the last digits.

    Notes
    -----
    Cost: O(n) time, O(n) memory.
    Held by: tests/test_divergences.py::test_table_against_oracle

    References
    ----------
    .. [Shannon2020] Properties of f-divergences and f-GAN training. Shannon, 2020, arXiv
       2009.00757.

    Examples
    --------
    >>> SoftenedKL().f(2.0) - SoftenedReverseKL().swapped().f(2.0)
    np.float64(0.0)
    """

    name: ClassVar[str] = "softened_kl"
    resolved = (-22.0, math.inf)

    def swapped(self) -> SoftenedReverseKL:
        """Return softened reverse KL."""
        return SoftenedReverseKL()

    def standard(self) -> StandardSoftenedKL:
        """Return the generator with r - 1 taken off."""
        return StandardSoftenedKL()

    def _f(self, x: Array, xp: Module) -> Array:
        return (1.0 + xp.exp(x)) * log_half_sum(x, xp)

    def _f_prime(self, x: Array, xp: Module) -> Array:
        return log_half_sum(x, xp) + 1.0

    def _log_curvature(self, x: Array, power: int, xp: Module) -> Array:
        return line_minus_softplus(power, x, xp)

    def _conjugate(self, t: Array, xp: Module) -> Array:
        gap = minus_constant(t, 1 - LOG_2)
        inside = xp.where(gap < 0, 1.0, t)
        value = 2.0 * xp.exp(inside - 1.0) - _below(inside, xp)
        return xp.where(gap < 0, math.log(2), value)

    def _f_prime_inverse(self, t: Array, xp: Module) -> Array:
        return _softened_kl_inverse(t - 1.0, minus_constant(t, 1 - LOG_2), xp)

    def _conjugate_at_prime(self, x: Array, xp: Module) -> Array:
        return xp.exp(x) - log_half_sum(_below(x, xp), xp)


@dataclass(frozen=True)
class StandardSoftenedReverseKL(Divergence):
    """Softened reverse KL with r - 1 added, so that f'(1) = 0 and f >= 0.

    f' = log((1+r)/(2r)) - 1/r + 1 and f* of t is that of softened reverse KL at t - 1, plus 1.
    f' resolves r up to log r = 10; beyond, it is 1 - log 2 to the last digits.

    Notes
    -----
    Cost: O(n) time, O(n) memory; four Newton steps where f' is inverted.
    Held by: tests/test_divergences.py::test_table_against_oracle

    Examples
    --------
    >>> StandardSoftenedReverseKL().f(1e-8)
    np.float64(2.5000000...e-17)
    """

    name: ClassVar[str] = "softened_reverse_kl"
    resolved = (-700.0, 10.0)

    def swapped(self) -> StandardSoftenedKL:
        """Return standard softened KL."""
        return StandardSoftenedKL()

    def standard(self) -> StandardSoftenedReverseKL:
        """Return itself."""
        return self

    def _f(self, x: Array, xp: Module) -> Array:
        return (1.0 + xp.exp(x)) * excess_over_tangent(-x, xp)

    def _f_prime(self, x: Array, xp: Module) -> Array:
        return _softened_reverse_kl_slope(x, xp)

    def _log_curvature(self, x: Array, power: int, xp: Module) -> Array:
        return line_minus_softplus(power - 2, x, xp)

    def _conjugate(self, t: Array, xp: Module) -> Array:
        return _softened_reverse_kl_inverse(t, xp)[1]

    def _f_prime_inverse(self, t: Array, xp: Module) -> Array:
        return _softened_reverse_kl_inverse(t, xp)[0]

    def _conjugate_at_prime(self, x: Array, xp: Module) -> Array:
        return -log_half_sum(-x, xp)


@dataclass(frozen=True)
class StandardSoftenedKL(Divergence):
    """Softened KL with r - 1 taken off, so that f'(1) = 0 and f >= 0.

    f' = log((r+1)/2), f* = 2 (e^t - 1) - t for t >= -log 2 and log 2 - 1 below.
    f' resolves r down to log r = -22; below, it is -log 2 to the last digits.

    Notes
    -----
    Cost: O(n) time, O(n) memory.
    Held by: tests/test_divergences.py::test_table_against_oracle

    Examples
    --------
    >>> StandardSoftenedKL().f(1e-8)
    np.float64(2.5000000...e-17)
    """

    name: ClassVar[str] = "softened_kl"
    resolved = (-22.0, math.inf)

    def swapped(self) -> StandardSoftenedReverseKL:
        """Return standard softened reverse KL."""
        return StandardSoftenedReverseKL()

    def standard(self) -> StandardSoftenedKL:
        """Return itself."""
        return self

    def _f(self, x: Array, xp: Module) -> Array:
        return (1.0 + xp.exp(x)) * excess_over_tangent(x, xp)

    def _f_prime(self, x: Array, xp: Module) -> Array:
        return log_half_sum(x, xp)

    def _log_curvature(self, x: Array, power: int, xp: Module) -> Array:
        return line_minus_softplus(power, x, xp)

    def _conjugate(self, t: Array, xp: Module) -> Array:
        gap = minus_constant(t, -LOG_2)
        inside = xp.where(gap < 0, 0.0, t)
        value = 2.0 * xp.expm1(inside) - _below(inside, xp)
        return xp.where(gap < 0, math.log(2) - 1.0, value)

    def _f_prime_inverse(self, t: Array, xp: Module) -> Array:
        return _softened_kl_inverse(t, minus_constant(t, -LOG_2), xp)

    def _conjugate_at_prime(self, x: Array, xp: Module) -> Array:
        return xp.expm1(x) - log_half_sum(_below(x, xp), xp)
