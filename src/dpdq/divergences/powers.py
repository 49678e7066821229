"""Divergences whose generators are powers of r: Amari's family and its named members.

    alpha = -1    half of Neyman's chi-squared       (r - 1)^2 / r
    alpha = 0     reverse KL (the limit)
    alpha = 1/2   twice squared Hellinger            (sqrt r - 1)^2, symmetric, finite always
    alpha = 1     KL (the limit)
    alpha = 2     half of Pearson's chi-squared      (r - 1)^2; effective size is n / (1 + chi^2)

The larger alpha, the more the region where p exceeds q counts. Some authors count alpha the other
way round (alpha for 1 - alpha, with r inverted).
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field
from fractions import Fraction
from numbers import Real
from typing import ClassVar

from dpdq.divergences._numerics import (
    Array,
    Module,
    expm1_ratio,
    minus_constant,
    one_plus_product,
    scaled_expm1,
    switch,
    times,
    times_exp,
)
from dpdq.divergences.base import Divergence
from dpdq.divergences.kullback_leibler import StandardKL
from dpdq.errors import InputTypeError, OptionError

__all__ = ["AlphaDivergence", "NeymanChi2", "PearsonChi2", "SquaredHellinger"]


@dataclass(frozen=True)
class PearsonChi2(Divergence):
    """Pearson's chi-squared divergence E_Q[(r - 1)^2], the variance of the ratio.

    f = (r-1)^2, f' = 2(r-1), f'' = 2, f* = t^2/4 + t for t >= -2 and -1 below, h = 2 r^2.

    Infinite for many pairs of heavy-tailed laws, and from samples alone it has no upper bound.
    f' resolves r down to log r = -22; below, it is -2 to the last digits.

    Notes
    -----
    Cost: O(n) time, O(n) memory.
    Held by: tests/test_divergences.py::test_table_against_oracle

    References
    ----------
    .. [Pearson1900] On the Criterion that a Given System of Deviations from the Probable in the
       Case of a Correlated System of Variables is Such that it Can be Reasonably Supposed to have
       Arisen from Random Sampling. Pearson, 1900, Philosophical Magazine 50.

    Examples
    --------
    >>> PearsonChi2().conjugate([-5.0, -2.0, 0.0, 2.0])
    array([-1., -1.,  0.,  3.])
    """

    name: ClassVar[str] = "pearson_chi2"
    resolved = (-22.0, 700.0)

    def swapped(self) -> NeymanChi2:
        """Return Neyman's chi-squared."""
        return NeymanChi2()

    def standard(self) -> PearsonChi2:
        """Return itself: f'(1) = 0."""
        return self

    def _f(self, x: Array, xp: Module) -> Array:
        return xp.expm1(x) ** 2

    def _f_prime(self, x: Array, xp: Module) -> Array:
        return 2.0 * xp.expm1(x)

    def _log_curvature(self, x: Array, power: int, xp: Module) -> Array:
        return times(power, x, xp) + math.log(2)

    def _conjugate(self, t: Array, xp: Module) -> Array:
        inside = xp.where(t < -2, -2.0, t)
        return inside * (0.25 * inside + 1.0)

    def _f_prime_inverse(self, t: Array, xp: Module) -> Array:
        value = xp.log1p(0.5 * xp.where(t <= -2, 0.0, t))
        return xp.where(t <= -2, -math.inf, value)

    def _conjugate_at_prime(self, x: Array, xp: Module) -> Array:
        return xp.expm1(2.0 * x)


@dataclass(frozen=True)
class NeymanChi2(Divergence):
    """Neyman's chi-squared divergence E_Q[(r - 1)^2 / r], Pearson's with the laws swapped.

    f = (r-1)^2/r, f' = 1 - 1/r^2, f'' = 2/r^3, f* = 2 - 2 sqrt(1-t) for t <= 1, h = 2/r.

    Infinite as soon as q has mass where p has none. f' resolves r up to log r = 11; beyond, it is
    1 to the last digits.

    Notes
    -----
    Cost: O(n) time, O(n) memory.
    Held by: tests/test_divergences.py::test_table_against_oracle

    References
    ----------
    .. [Neyman1949] Contribution to the Theory of the Chi-Square Test. Neyman, 1949, Berkeley
       Symposium on Mathematical Statistics and Probability.

    Examples
    --------
    >>> NeymanChi2().conjugate([-3.0, 0.0, 1.0, 1.5])
    array([-2.,  0.,  2., inf])
    """

    name: ClassVar[str] = "neyman_chi2"
    resolved = (-350.0, 11.0)

    def swapped(self) -> PearsonChi2:
        """Return Pearson's chi-squared."""
        return PearsonChi2()

    def standard(self) -> NeymanChi2:
        """Return itself: f'(1) = 0."""
        return self

    def _f(self, x: Array, xp: Module) -> Array:
        return -xp.expm1(x) * xp.expm1(-x)

    def _f_prime(self, x: Array, xp: Module) -> Array:
        return -xp.expm1(-2.0 * x)

    def _log_curvature(self, x: Array, power: int, xp: Module) -> Array:
        return times(power - 3, x, xp) + math.log(2)

    def _conjugate(self, t: Array, xp: Module) -> Array:
        value = switch(
            t > -1,
            lambda t: 2.0 * t / (1.0 + xp.sqrt(1.0 - t)),
            lambda t: 2.0 - 2.0 * xp.sqrt(1.0 - t),
            xp.where(t > 1, 0.0, t),
            xp,
            safe_yes=0.0,
            safe_no=-1.0,
        )
        return xp.where(t > 1, math.inf, value)

    def _f_prime_inverse(self, t: Array, xp: Module) -> Array:
        value = -0.5 * xp.log1p(-xp.where(t >= 1, 0.0, t))
        return xp.where(t >= 1, math.inf, value)

    def _conjugate_at_prime(self, x: Array, xp: Module) -> Array:
        return -2.0 * xp.expm1(-x)


@dataclass(frozen=True)
class SquaredHellinger(Divergence):
    """Squared Hellinger distance on the table's scale, 2 - 2 BC with BC = E_Q[sqrt r].

    f = (sqrt r - 1)^2, f' = 1 - r^(-1/2), f'' = r^(-3/2)/2, f* = t/(1-t) for t < 1, h = sqrt(r)/2.

    Saturates: laws without overlap all have 2. Reports show half of it, H^2 = 1 - BC. f' resolves
    r up to log r = 44; beyond, it is 1 to the last digits.

    Notes
    -----
    Cost: O(n) time, O(n) memory.
    Held by: tests/test_divergences.py::test_table_against_oracle

    References
    ----------
    .. [Hellinger1909] Neue Begründung der Theorie quadratischer Formen von unendlichvielen
       Veränderlichen. Hellinger, 1909, J. Reine Angew. Math. 136.

    Examples
    --------
    >>> SquaredHellinger().h(0.0)
    np.float64(0.5)
    """

    name: ClassVar[str] = "squared_hellinger"
    scale_to_report: ClassVar[float] = 0.5
    resolved = (-1400.0, 44.0)

    def swapped(self) -> SquaredHellinger:
        """Return itself: symmetric."""
        return self

    def standard(self) -> SquaredHellinger:
        """Return itself: f'(1) = 0."""
        return self

    def _f(self, x: Array, xp: Module) -> Array:
        return xp.expm1(0.5 * x) ** 2

    def _f_prime(self, x: Array, xp: Module) -> Array:
        return -xp.expm1(-0.5 * x)

    def _log_curvature(self, x: Array, power: int, xp: Module) -> Array:
        return times(power - 1.5, x, xp) - math.log(2)

    def _conjugate(self, t: Array, xp: Module) -> Array:
        value = switch(
            t > -1,
            lambda t: t / (1.0 - t),
            lambda t: 1.0 / (1.0 / t - 1.0),
            xp.where(t >= 1, 0.0, t),
            xp,
            safe_yes=0.0,
            safe_no=-1.0,
        )
        return xp.where(t >= 1, math.inf, value)

    def _f_prime_inverse(self, t: Array, xp: Module) -> Array:
        value = -2.0 * xp.log1p(-xp.where(t >= 1, 0.0, t))
        return xp.where(t >= 1, math.inf, value)

    def _conjugate_at_prime(self, x: Array, xp: Module) -> Array:
        return xp.expm1(0.5 * x)


@dataclass(frozen=True)
class AlphaDivergence(Divergence):
    """Amari's alpha-divergence for any alpha but 0 and 1.

    f = (r^alpha - alpha (r-1) - 1) / (alpha (alpha-1)), f' = (r^(alpha-1) - 1) / (alpha-1),
    f'' = r^(alpha-2), f* = ((1 + (alpha-1) t)_+^(alpha/(alpha-1)) - 1) / alpha, h = r^alpha.

    The limits are `ReverseKL` at 0 and `KL` at 1 (in their standard versions), and values near
    them are as accurate as elsewhere. For alpha above 1 infinite where r has no such moment under
    q; for alpha below 0 where q has mass that p lacks. Its Csiszár dual is that of 1 - alpha. f'
    resolves r up to log r = 22 / (1 - alpha) for alpha < 1, and down to -22 / (alpha - 1) for
    alpha > 1.

    Parameters
    ----------
    alpha
        The order, any finite number but 0 and 1.

    Raises
    ------
    OptionError
        If alpha is 0, 1 or not finite.

    Notes
    -----
    Cost: O(n) time, O(n) memory.
    Held by: tests/test_divergences.py::test_table_against_oracle

    References
    ----------
    .. [Amari2009] Alpha-Divergence Is Unique, Belonging to Both f-Divergence and Bregman Divergence
       Classes. Amari, 2009, IEEE Trans. Inf. Theory 55.

    Examples
    --------
    >>> AlphaDivergence(0.5).h([0.0, 50.0])
    array([1.00000000e+00, 7.20048993e+10])
    """

    alpha: float
    resolved: tuple[float, float] = field(init=False, repr=False, compare=False)

    name: ClassVar[str] = "alpha"

    def __post_init__(self) -> None:
        if isinstance(self.alpha, bool) or not isinstance(self.alpha, Real):
            raise InputTypeError(f"alpha has type {type(self.alpha).__name__}; give a number")
        alpha = float(self.alpha)
        if not math.isfinite(alpha):
            raise OptionError(f"alpha is {alpha}; give a finite number other than 0 and 1")
        if alpha == 0:
            raise OptionError("alpha is 0, which is reverse KL: use ReverseKL()")
        if alpha == 1:
            raise OptionError("alpha is 1, which is KL: use KL()")
        object.__setattr__(self, "alpha", alpha)
        ends = sorted((-22.0 / (alpha - 1.0), 700.0 / (alpha - 1.0)))
        object.__setattr__(self, "resolved", (ends[0], ends[1]))

    def swapped(self) -> AlphaDivergence | StandardKL:
        """Return the divergence of order 1 - alpha."""
        dual = 1.0 - self.alpha
        return StandardKL() if dual == 1 else AlphaDivergence(dual)

    def standard(self) -> AlphaDivergence:
        """Return itself: f'(1) = 0."""
        return self

    def _f(self, x: Array, xp: Module) -> Array:
        # The second divided difference of z -> r^z at 0, 1 and alpha: from its outer nodes, and
        # by its power series where these are close together.
        low, middle, high = sorted((Fraction(0), Fraction(1), Fraction(self.alpha)))
        spread = float(high - low)
        to_high, to_low = float(high - middle), float(middle - low)
        center, coefficients = _series(self.alpha)

        def near(x: Array) -> Array:
            series = xp.zeros_like(x)
            for coefficient in reversed(coefficients):
                series = series * x + coefficient
            return x * x * xp.exp(center * x) * series

        def above(x: Array) -> Array:
            upper = scaled_expm1(to_high, x, xp) / spread
            lower = scaled_expm1(-to_low, x, xp) / spread
            return times_exp(upper - lower, float(middle), x, xp)

        def below(x: Array) -> Array:
            upper = times_exp(scaled_expm1(to_high, x, xp) / spread, float(middle), x, xp)
            lower = times_exp(scaled_expm1(to_low, x, xp) / spread, float(low), x, xp)
            return upper - lower

        def far(x: Array) -> Array:
            return switch(x > 0, above, below, x, xp, safe_yes=1.0, safe_no=-1.0)

        cut = 1.0 / spread
        return switch(abs(x) < cut, near, far, x, xp, safe_yes=0.0, safe_no=cut)

    def _f_prime(self, x: Array, xp: Module) -> Array:
        return scaled_expm1(self.alpha - 1.0, x, xp)

    def _log_curvature(self, x: Array, power: int, xp: Module) -> Array:
        return times(float(Fraction(self.alpha) + (power - 2)), x, xp)

    def _conjugate(self, t: Array, xp: Module) -> Array:
        log_base = self._log_base(t, xp)
        # Where the domain has an upper end, beyond it; the end itself counts for alpha < 0.
        rise, order = Fraction(self.alpha) - 1, Fraction(self.alpha)
        above = (log_base == -math.inf) & ((rise < 0) & (minus_constant(t, -1 / rise) > 0))
        return xp.where(above, math.inf, expm1_ratio(log_base, order, rise, xp))

    def _f_prime_inverse(self, t: Array, xp: Module) -> Array:
        return self._log_base(t, xp) / (self.alpha - 1.0)

    def _log_base(self, t: Array, xp: Module) -> Array:
        """``log(1 + (alpha-1) t)``, -infinity where there is none."""
        rise = self.alpha - 1.0
        product = rise * t
        # Close to 0 the sum takes the digits of an exact product; far from it the 1 has none.
        close = abs(product + 1.0) < 0.25
        large = product * xp.finfo(t.dtype).eps > 4
        base = one_plus_product(Fraction(self.alpha) - 1, xp.where(close, t, -1.0 / rise), xp)
        empty = xp.where(close, base <= 0, product <= -1)
        log_close = xp.log(xp.where(close & ~empty, base, 1.0))
        log_large = xp.log(abs(xp.where(large, t, 1.0))) + math.log(abs(rise))
        log_rest = xp.log1p(xp.where(close | large | empty, 0.0, product))
        value = xp.where(close, log_close, xp.where(large, log_large, log_rest))
        return xp.where(empty, -math.inf, value)

    def _conjugate_at_prime(self, x: Array, xp: Module) -> Array:
        return scaled_expm1(self.alpha, x, xp)


@functools.lru_cache(maxsize=64)
def _series(alpha: float) -> tuple[float, tuple[float, ...]]:
    """Return the mean of 0, 1 and alpha, and the series of exp[0, L, alpha L] e^(-mean L) in L.

    Its coefficients are complete symmetric polynomials of the centred nodes over (k + 2)!.
    """
    order = Fraction(alpha)
    center = (1 + order) / 3
    a, b, c = -center, 1 - center, order - center
    pair, triple = float(a * b + a * c + b * c), float(a * b * c)
    symmetric = [1.0, 0.0, -pair]
    for _ in range(17):
        symmetric.append(-pair * symmetric[-2] + triple * symmetric[-3])
    return float(center), tuple(s / math.factorial(k + 2) for k, s in enumerate(symmetric))
