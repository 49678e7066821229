"""Total variation: the divergence that sees only where p exceeds q, not by how much."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from dpdq.divergences._numerics import Array, Module, constant
from dpdq.divergences.base import Divergence
from dpdq.errors import OptionError

__all__ = ["TotalVariation"]


def _half_sign(x: Array, xp: Module) -> Array:
    return xp.where(xp.isnan(x), x, 0.5 * xp.sign(x))  # torch's sign of NaN is 0


@dataclass(frozen=True)
class TotalVariation(Divergence):
    """Total variation distance, the largest difference of probability over all events.

    f = |r-1|/2, f' = sign(r-1)/2 (0 at r = 1), f* = max(t, -1/2) for t <= 1/2, and h = 0 almost
    everywhere (all curvature sits at r = 1): as a distillation weight it teaches nothing.

    f' takes three values, so nothing is resolved: it has no inverse, and `f_prime_inverse` raises.

    Raises
    ------
    OptionError
        From `f_prime_inverse`, which is set-valued.

    Notes
    -----
    Cost: O(n) time, O(n) memory.
    Held by: tests/test_divergences.py::test_table_against_oracle

    References
    ----------
    .. [LeCam1973] Convergence of Estimates Under Dimensionality Restrictions. Le Cam, 1973, Ann.
       Statist. 1.

    Examples
    --------
    >>> TotalVariation().conjugate([-2.0, 0.25, 0.75])
    array([-0.5 ,  0.25,   inf])
    """

    name: ClassVar[str] = "total_variation"
    resolved = (0.0, 0.0)

    def swapped(self) -> TotalVariation:
        """Return itself: symmetric."""
        return self

    def standard(self) -> TotalVariation:
        """Return itself: 0 is a slope of f at r = 1."""
        return self

    def _f(self, x: Array, xp: Module) -> Array:
        return 0.5 * abs(xp.expm1(x))

    def _f_prime(self, x: Array, xp: Module) -> Array:
        return _half_sign(x, xp)

    def _log_curvature(self, x: Array, power: int, xp: Module) -> Array:
        return constant(-math.inf, x, xp)

    def _conjugate(self, t: Array, xp: Module) -> Array:
        return xp.where(t > 0.5, math.inf, xp.where(t < -0.5, -0.5, t))

    def _f_prime_inverse(self, t: Array, xp: Module) -> Array:
        raise OptionError(
            "f' of total variation takes the values -1/2, 0 and 1/2 only, so its inverse is a set "
            "of ratios; use another divergence where an inverse is needed"
        )

    def _conjugate_at_prime(self, x: Array, xp: Module) -> Array:
        return _half_sign(x, xp)
