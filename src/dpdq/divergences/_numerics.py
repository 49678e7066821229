"""Formulas in the log ratio that lose nothing near r = 1, at the ends, or beyond them.

Every function takes an array (NumPy or torch) and ``xp``, the module that the array belongs to, and
is made of operations that both modules spell alike. A branch that would give inf - inf or 0 * inf
where it is not taken sees a harmless argument instead, so that gradients stay clean too.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from fractions import Fraction
from typing import Any, TypeAlias

import numpy as np

from dpdq._optional import is_torch
from dpdq.errors import InputTypeError

__all__ = [
    "INVERSE_E",
    "LOG_2",
    "Array",
    "Module",
    "constant",
    "evaluate",
    "excess_above_linear",
    "excess_over_tangent",
    "exp_minus_line",
    "expm1_ratio",
    "line_minus_softplus",
    "line_plus_softplus",
    "log_expm1",
    "log_half_sum",
    "minus_constant",
    "newton",
    "one_plus_product",
    "scaled_expm1",
    "solve_exp_minus_line",
    "solve_line_minus_exp",
    "switch",
    "times",
    "times_exp",
]

Array: TypeAlias = Any
"""A number, a NumPy array (or what NumPy turns into one) or a torch tensor."""

Module: TypeAlias = Any
"""``numpy`` or ``torch``."""

# Constants to twice the digits of a float: what a difference from them needs near zero.
LOG_2 = Fraction(0.6931471805599453) + Fraction(2.3190468138462996e-17)
INVERSE_E = Fraction(0.36787944117144233) + Fraction(-1.2428753672788363e-17)

_FAR = 1e4  # a log ratio beyond which exp is 0 or inf in every dtype
_TAYLOR = tuple(1.0 / math.factorial(k + 2) for k in range(17))
_NEWTON_STEPS = 4


def evaluate(formula: Callable[[Array, Module], Array], x: Array, name: str) -> Array:
    """Apply a formula to a number, a NumPy array or a torch tensor.

    NumPy input is computed in float64; torch input in its own dtype, on its own device, with
    gradients. Integers become float64 in NumPy and torch's default dtype in torch.
    """
    if is_torch(x):
        torch = sys.modules["torch"]
        if x.is_complex():
            raise InputTypeError(f"{name} has dtype {x.dtype}; give real numbers")
        if not x.is_floating_point():
            x = x.to(torch.get_default_dtype())
        return formula(x, torch)
    try:
        array = np.asarray(x)
        if array.dtype.kind not in "fiub":
            raise TypeError
        array = array.astype(np.float64, copy=False)
    except (TypeError, ValueError):
        kind = getattr(x, "dtype", type(x).__name__)
        raise InputTypeError(f"{name} has type {kind}; give real numbers") from None
    with np.errstate(all="ignore"):
        return formula(array, np)[()]


def constant(value: float, x: Array, xp: Module) -> Array:
    """Make an array like ``x`` that holds one value, and NaN where ``x`` does."""
    return xp.where(xp.isnan(x), x, value)


def switch(
    condition: Array,
    yes: Callable[[Array], Array],
    no: Callable[[Array], Array],
    x: Array,
    xp: Module,
    *,
    safe_yes: float,
    safe_no: float,
) -> Array:
    """``yes(x)`` where the condition holds, else ``no(x)``; the other rows see a safe value."""
    return xp.where(
        condition,
        yes(xp.where(condition, x, safe_yes)),
        no(xp.where(condition, safe_no, x)),
    )


def times(k: float, x: Array, xp: Module) -> Array:
    """``k x``, with 0 times infinity equal to 0."""
    return constant(0.0, x, xp) if k == 0 else k * x


def _digits(x: Array) -> int:
    """Binary digits of the dtype of ``x``: 53 for float64, 24 for float32."""
    module = sys.modules["torch"] if is_torch(x) else np
    return 2 - math.frexp(float(module.finfo(x.dtype).eps))[1]


def split(value: Fraction, like: Array) -> tuple[float, float]:
    """Cut a number in a high and a low part, the high one exact in the dtype of ``like``."""
    digits = _digits(like)
    mantissa, exponent = math.frexp(float(value))
    high = math.ldexp(round(math.ldexp(mantissa, digits)), exponent - digits)
    return high, float(value - Fraction(high))


def minus_constant(x: Array, value: Fraction) -> Array:
    """``x - value``, right to the last digits where x comes close to the value."""
    high, low = split(value, x)
    return (x - high) - low


def one_plus_product(k: Fraction, x: Array, xp: Module) -> Array:
    """``1 + k x`` for ``k x`` in [-2, -1/2], with all its digits near 0 (Dekker's product)."""
    k_high, k_low = split(k, x)
    # Veltkamp's factor 2^ceil(digits / 2) + 1 cuts a number into two halves of its digits.
    factor = float(2 ** ((_digits(x) + 1) // 2) + 1)

    def halves(y: Array) -> tuple[Array, Array]:
        upper = factor * y - (factor * y - y)
        return upper, y - upper

    product = k_high * x
    a, b = halves(xp.full_like(x, k_high))
    c, d = halves(x)
    error = ((a * c - product) + a * d + b * c) + b * d
    return (1.0 + product) + (error + k_low * x)


def scaled_expm1(k: float, x: Array, xp: Module) -> Array:
    """``(e^(k x) - 1) / k``, and x where k is 0; infinite only where the result is."""
    if abs(k) < 1e-30:
        return x
    half = xp.expm1(0.5 * k * x)
    linear = abs(k * x) < 0.25 * xp.finfo(x.dtype).eps
    return xp.where(linear, x, (half / k) * (half + 2.0))


def expm1_ratio(x: Array, order: Fraction, rise: Fraction, xp: Module) -> Array:
    """``(e^(x order / rise) - 1) / order``, the exponent right to the last digit of the dtype."""
    if abs(order) < Fraction(1, 10**30):
        return x / float(rise)
    high, low = split(order / rise, x)
    exponent = high * x + low * xp.where(xp.isinf(x), 0.0, x)
    half = xp.expm1(0.5 * exponent)
    linear = abs(exponent) < 0.25 * xp.finfo(x.dtype).eps
    return xp.where(linear, x / float(rise), (half / float(order)) * (half + 2.0))


def times_exp(value: Array, k: float, x: Array, xp: Module) -> Array:
    """``value e^(k x)``, infinite or 0 only where the result is."""
    root = xp.exp(times(0.5 * k, x, xp))
    return (root * value) * root


def _softplus(x: Array, xp: Module) -> Array:
    return xp.logaddexp(x, xp.zeros_like(x))


def line_minus_softplus(k: float, x: Array, xp: Module) -> Array:
    """``k x - log(1 + e^x)``, written so that a line cancelled by the logarithm never appears."""
    if k >= 1:
        return times(k - 1, x, xp) - _softplus(-x, xp)
    return times(k, x, xp) - _softplus(x, xp)


def line_plus_softplus(k: float, x: Array, xp: Module) -> Array:
    """``k x + log(1 + e^x)``, likewise."""
    if k <= -1:
        return times(k + 1, x, xp) + _softplus(-x, xp)
    return times(k, x, xp) + _softplus(x, xp)


def log_half_sum(x: Array, xp: Module) -> Array:
    """``log((1 + e^x) / 2)``, with all its digits near x = 0."""
    return switch(
        x < 1,
        lambda x: xp.log1p(0.5 * xp.expm1(x)),
        lambda x: (x - math.log(2)) + xp.log1p(xp.exp(-x)),
        x,
        xp,
        safe_yes=0.0,
        safe_no=1.0,
    )


def log_expm1(x: Array, xp: Module) -> Array:
    """``log(e^x - 1)`` for x >= 0."""
    return switch(
        x < 1,
        lambda x: xp.log(xp.expm1(x)),
        lambda x: x + xp.log1p(-xp.exp(-x)),
        x,
        xp,
        safe_yes=0.5,
        safe_no=1.0,
    )


def _log_cosh_near_zero(s: Array, xp: Module) -> Array:
    return xp.log1p(2.0 * xp.sinh(0.5 * s) ** 2)


def excess_above_linear(x: Array, xp: Module) -> Array:
    """``s tanh s - log cosh s`` with s = x / 2: even, x^2/8 at 0, log 2 at infinity."""

    def near(x: Array) -> Array:
        s = 0.5 * x
        return s * xp.tanh(s) - _log_cosh_near_zero(s, xp)

    def far(x: Array) -> Array:
        a = abs(x)
        a = xp.where(a > _FAR, _FAR, a)
        e = xp.exp(-a)
        return math.log(2) - xp.log1p(e) - a * e / (1.0 + e)

    return switch(abs(x) < 2, near, far, x, xp, safe_yes=0.0, safe_no=2.0)


def excess_over_tangent(x: Array, xp: Module) -> Array:
    """``log((1 + e^x) / 2) - tanh(x / 2)``: x^2/8 at 0, 1 - log 2 at -infinity."""

    def near(x: Array) -> Array:
        s = 0.5 * x
        square = s * s
        series = xp.zeros_like(s)  # s cosh s - sinh s, odd and with positive terms
        for k in range(9, 0, -1):
            series = series * square + 2 * k / math.factorial(2 * k + 1)
        return _log_cosh_near_zero(s, xp) + s * square * series / xp.cosh(s)

    def far(x: Array) -> Array:
        return log_half_sum(x, xp) - xp.tanh(0.5 * x)

    return switch(abs(x) < 1, near, far, x, xp, safe_yes=0.0, safe_no=1.0)


def exp_minus_line(x: Array, xp: Module) -> Array:
    """``e^x - 1 - x``, with all its digits near x = 0."""

    def near(x: Array) -> Array:
        series = xp.zeros_like(x)
        for coefficient in reversed(_TAYLOR):
            series = series * x + coefficient
        return x * x * series

    def far(x: Array) -> Array:
        return xp.expm1(x) - xp.where(x > _FAR, _FAR, x)

    return switch(abs(x) < 1, near, far, x, xp, safe_yes=0.0, safe_no=1.0)


def newton(
    start: Array,
    target: Array,
    value: Callable[[Array], Array],
    slope: Callable[[Array], Array],
) -> Array:
    """Solve ``value(x) = target``: steps without a gradient, then two that carry it.

    Two steps from the solution give it its first and second derivative.
    """
    detached = is_torch(target)
    x, goal = (start.detach(), target.detach()) if detached else (start, target)
    for _ in range(_NEWTON_STEPS):
        x = x - (value(x) - goal) / slope(x)
    for _ in range(2 if detached else 1):
        x = x - (value(x) - target) / slope(x)
    return x


def solve_exp_minus_line(target: Array, xp: Module) -> Array:
    """Find the ``x >= 0`` with ``e^x - 1 - x = target``, for ``target > 0``."""
    finite = xp.where(xp.isinf(target), 1.0, target)
    root = xp.sqrt(2.0 * xp.where(finite < 1, finite, 1.0))
    small = root * (1.0 + root * (-1 / 6 + root * (1 / 36 - root / 270)))
    large = xp.log1p(finite + xp.log1p(finite + xp.log1p(xp.where(finite < 1, 1.0, finite))))
    x = newton(
        xp.where(finite < 1, small, large),
        finite,
        lambda x: exp_minus_line(x, xp),
        xp.expm1,
    )
    return xp.where(xp.isinf(target), target, x)


def solve_line_minus_exp(target: Array, xp: Module) -> Array:
    """Find the x with ``x + 1 - e^(-x) = target``: log r from f' of Jeffreys, for any target."""
    finite = xp.where(xp.isinf(target), 0.0, target)
    depth = xp.where(finite < 0, -finite, 0.0)
    left = -xp.log1p(depth - xp.log1p(0.5 * depth))
    right = xp.where(finite < 2, 0.5 * finite, finite - 1.0)
    x = newton(
        xp.where(finite < 0, left, right),
        finite,
        lambda x: x - xp.expm1(-x),
        lambda x: 1.0 + xp.exp(-x),
    )
    return xp.where(xp.isinf(target), target, x)
