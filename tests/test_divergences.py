"""The table of f-divergences against a 160-digit oracle and against its own identities."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from mpmath import mpf

from dpdq.divergences import (
    DIVERGENCES,
    KL,
    AlphaDivergence,
    Divergence,
    Jeffreys,
    JensenShannon,
    NeymanChi2,
    PearsonChi2,
    ReverseKL,
    SoftenedKL,
    SoftenedReverseKL,
    SquaredHellinger,
    StandardKL,
    StandardReverseKL,
    StandardSoftenedKL,
    StandardSoftenedReverseKL,
    TotalVariation,
    divergence,
)
from dpdq.errors import InputTypeError, OptionError

ALPHAS = (-3.0, -1.0, -0.5, -1e-9, 1e-12, 0.1, 0.3, 0.5, 0.999, 1.0 + 1e-10, 1.3, 1.7, 2.0, 3.0)
DIGITS = 160  # at log r = 1e-40 and alpha = 1e-12, f loses 110 of them


# The oracle: the formulas of the table as they are printed, in r, with digits to waste.


@dataclass
class Row:
    f: Callable[[mpf], mpf]
    f_prime: Callable[[mpf], mpf]
    f_second: Callable[[mpf], mpf]
    conjugate: Callable[[mpf], mpf]
    inverse: Callable[[mpf], mpf]  # log r

    def h(self, r):
        return self.f_second(r) * r**2

    def log_h(self, r):
        value = self.h(r)
        return mpmath.log(value) if value > 0 else mpf("-inf")

    def conjugate_at_prime(self, r):
        return r * self.f_prime(r) - self.f(r)


def standard_row(row: Row) -> Row:
    """F gains c (r - 1) with c = -f'(1)."""
    c = -row.f_prime(mpf(1))
    return Row(
        lambda r: row.f(r) + c * (r - 1),
        lambda r: row.f_prime(r) + c,
        row.f_second,
        lambda t: row.conjugate(t - c) + c,
        lambda t: row.inverse(t - c),
    )


log, exp, inf = mpmath.log, mpmath.exp, mpf("inf")


def log_positive(r):
    return log(r) if r > 0 else -inf


def soft_w(t):
    """Log of m = -W/2, W = W_{-1}(-2 e^(t-1)), from log m - 2m + 1 = t by bisection and Newton."""
    if t >= -log(2):
        return None
    gap = -(t + log(2))
    y = mpmath.sqrt(2 * gap) if gap < 1 else log(1 + gap)
    y -= log(2)
    for _ in range(60):
        step = (y - 2 * exp(y) + 1 - t) / (1 - 2 * exp(y))
        y -= step
        if abs(step) < abs(y + log(2)) * mpf(10) ** (10 - DIGITS):
            break
    assert abs(y - 2 * exp(y) + 1 - t) < abs(t) * mpf(10) ** (20 - DIGITS)
    return y


def soft_conjugate(t):
    y = soft_w(t)
    return inf if y is None else -1 - y


def soft_inverse(t):
    y = soft_w(t)
    return inf if y is None else -log(2 * exp(y) - 1)


def jeffreys_log_w(t):
    """Log W_0(e^(1-t)): the x with x + e^x = 1 - t."""
    c = 1 - t
    x = c - log(c) * 0 if c < 1 else log(c)
    if c < 1:
        x = c - exp(c) / (1 + exp(c))
    for _ in range(200):
        step = (x + exp(x) - c) / (1 + exp(x))
        x -= step
        if abs(step) <= max(abs(x), abs(c)) * mpf(10) ** (10 - DIGITS):
            break
    assert abs(x + exp(x) - c) <= max(abs(c), 1) * mpf(10) ** (20 - DIGITS)
    return x


def jeffreys_conjugate(t):
    w = exp(jeffreys_log_w(t))
    return w + 1 / w + t - 2


def alpha_row(alpha: float) -> Row:
    a = mpf(alpha)

    def base(t):
        return 1 + (a - 1) * t

    def conjugate(t):
        if base(t) <= 0:
            if a > 1:
                return -1 / a
            return -1 / a if a < 0 and base(t) == 0 else inf
        return (base(t) ** (a / (a - 1)) - 1) / a

    def inverse(t):
        if base(t) <= 0:
            return -inf if a > 1 else inf
        return log(base(t)) / (a - 1)

    return Row(
        lambda r: (r**a - a * (r - 1) - 1) / (a * (a - 1)),
        lambda r: (r ** (a - 1) - 1) / (a - 1),
        lambda r: r ** (a - 2),
        conjugate,
        inverse,
    )


ORACLE: dict[type[Divergence], Row] = {
    KL: Row(
        lambda r: r * log(r),
        lambda r: log(r) + 1,
        lambda r: 1 / r,
        lambda t: exp(t - 1),
        lambda t: t - 1,
    ),
    ReverseKL: Row(
        lambda r: -log(r),
        lambda r: -1 / r,
        lambda r: 1 / r**2,
        lambda t: -1 - log(-t) if t < 0 else inf,
        lambda t: log(-1 / t) if t < 0 else inf,
    ),
    JensenShannon: Row(
        lambda r: r * log(r) - (r + 1) * log((r + 1) / 2),
        lambda r: log(2 * r / (r + 1)),
        lambda r: 1 / (r * (r + 1)),
        lambda t: -log(2 - exp(t)) if t < log(2) else inf,
        lambda t: log(exp(t) / (2 - exp(t))) if t < log(2) else inf,
    ),
    TotalVariation: Row(
        lambda r: abs(r - 1) / 2,
        lambda r: mpmath.sign(r - 1) / 2,
        lambda r: mpf(0),
        lambda t: max(t, mpf(-0.5)) if t <= 0.5 else inf,
        lambda t: mpf("nan"),
    ),
    PearsonChi2: Row(
        lambda r: (r - 1) ** 2,
        lambda r: 2 * (r - 1),
        lambda r: mpf(2),
        lambda t: t**2 / 4 + t if t >= -2 else mpf(-1),
        lambda t: log_positive(1 + t / 2),
    ),
    NeymanChi2: Row(
        lambda r: (r - 1) ** 2 / r,
        lambda r: 1 - 1 / r**2,
        lambda r: 2 / r**3,
        lambda t: 2 - 2 * mpmath.sqrt(1 - t) if t <= 1 else inf,
        lambda t: -log(1 - t) / 2 if t < 1 else inf,
    ),
    SquaredHellinger: Row(
        lambda r: (mpmath.sqrt(r) - 1) ** 2,
        lambda r: 1 - 1 / mpmath.sqrt(r),
        lambda r: r ** mpf(-1.5) / 2,
        lambda t: t / (1 - t) if t < 1 else inf,
        lambda t: -2 * log(1 - t) if t < 1 else inf,
    ),
    SoftenedReverseKL: Row(
        lambda r: (r + 1) * log((r + 1) / (2 * r)),
        lambda r: log((1 + r) / (2 * r)) - 1 / r,
        lambda r: 1 / (r**2 * (1 + r)),
        soft_conjugate,
        soft_inverse,
    ),
    SoftenedKL: Row(
        lambda r: (r + 1) * log((r + 1) / 2),
        lambda r: log((r + 1) / 2) + 1,
        lambda r: 1 / (1 + r),
        lambda t: 2 * exp(t - 1) - t if t > 1 - log(2) else log(2),
        lambda t: log_positive(2 * exp(t - 1) - 1),
    ),
    Jeffreys: Row(
        lambda r: (r - 1) * log(r),
        lambda r: log(r) + 1 - 1 / r,
        lambda r: 1 / r + 1 / r**2,
        jeffreys_conjugate,
        lambda t: -jeffreys_log_w(t),
    ),
}
STANDARD = {
    StandardKL: KL,
    StandardReverseKL: ReverseKL,
    StandardSoftenedKL: SoftenedKL,
    StandardSoftenedReverseKL: SoftenedReverseKL,
}


def oracle(divergence: Divergence) -> Row:
    if isinstance(divergence, AlphaDivergence):
        return alpha_row(divergence.alpha)
    if type(divergence) in STANDARD:
        with mpmath.workdps(DIGITS):
            return standard_row(ORACLE[STANDARD[type(divergence)]])
    return ORACLE[type(divergence)]


ALL: list[Divergence] = [
    *(cls() for cls in ORACLE),
    *(cls() for cls in STANDARD),
    *(AlphaDivergence(alpha) for alpha in ALPHAS),
]
SMOOTH = [d for d in ALL if not isinstance(d, TotalVariation)]
every = pytest.mark.parametrize("divergence", ALL, ids=repr)
every_smooth = pytest.mark.parametrize("divergence", SMOOTH, ids=repr)
BACKENDS = ("numpy", "torch64", "torch32")


def grid() -> np.ndarray:
    """Log ratios from -50 to 50: even steps, tiny ones, and both sides of every switch point."""
    tiny = 10.0 ** -np.array([40, 30, 20, 17, 16, 15, 14, 12, 10, 9, 8, 7, 6, 5, 4, 3, 2])
    switches = np.array([0.25, 1 / 3, 0.35, 0.5, math.log(2), 1.0, 2.0, 10.0, 22.0, 37.0])
    sides = np.concatenate([switches, np.nextafter(switches, 0), np.nextafter(switches, 99)])
    random = np.random.default_rng(7).uniform(0, 3, 20)
    positive = np.concatenate([tiny, sides, random, np.linspace(0.6, 50, 38)])
    return np.concatenate([-positive, [0.0], positive])


GRID = grid()


def call(method: Callable[[Any], Any], x: np.ndarray, backend: str) -> np.ndarray:
    if backend == "numpy":
        return np.asarray(method(x))
    torch = pytest.importorskip("torch", reason="torch is not installed")
    dtype = torch.float64 if backend == "torch64" else torch.float32
    result = method(torch.tensor(x, dtype=dtype))
    assert result.dtype == dtype
    return result.double().numpy()


def in_backend(x: np.ndarray, backend: str) -> np.ndarray:
    if backend != "torch32":
        return x
    with np.errstate(over="ignore"):
        return x.astype(np.float32).astype(float)


def assert_exact(
    got: np.ndarray,
    x: np.ndarray,
    exact: Callable[[mpf], mpf],
    backend: str,
    *,
    absolute: float = 0.0,
) -> None:
    """Relative to the oracle where the value is a normal number, else its limit; never NaN."""
    limits = np.finfo(np.float32 if backend == "torch32" else np.float64)
    tolerance = 1e-5 if backend == "torch32" else 1e-12
    assert not np.isnan(got).any()
    for value, point in zip(got, x, strict=True):
        with mpmath.workdps(DIGITS):
            target = exact(mpf(float(point)))
            size = abs(target)
            if size > limits.max:
                right = value == math.copysign(math.inf, target)
            elif size < limits.tiny:
                right = abs(value) <= 2 * limits.tiny
            else:
                right = abs(mpf(float(value)) - target) <= tolerance * (size + absolute)
        assert right, f"at {point!r}: {value!r} against {mpmath.nstr(target, 20)}"


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["f", "f_prime", "f_second", "h", "log_h", "conjugate_at_prime"])
@every
def test_table_against_oracle(divergence, name, backend):
    x = in_backend(GRID, backend)
    row = oracle(divergence)
    # A logarithm near its root has absolute, not relative, digits: log h = 0 where h = 1.
    absolute = 1.0 if name == "log_h" else 0.0
    assert_exact(
        call(getattr(divergence, name), x, backend),
        x,
        lambda point: getattr(row, name)(exp(point)),
        backend,
        absolute=absolute,
    )


def slopes(divergence: Divergence, backend: str) -> np.ndarray:
    """T in the range of f' as the backend rounds it, and beyond its ends."""
    t = in_backend(np.asarray(divergence.f_prime(GRID)), backend)
    more = np.array(
        [-1e10, -3.0, -2.0, -1.0, -0.5, 1 / math.e, -1 / math.e, 0.3, 0.5, 1.0, 2.0, 60]
    )
    t = in_backend(np.concatenate([t, more, [math.log(2), -math.log(2), 1 - math.log(2)]]), backend)
    return np.unique(t[np.isfinite(t)])


@pytest.mark.parametrize("backend", BACKENDS)
@every
def test_conjugate_against_oracle(divergence, backend):
    t = slopes(divergence, backend)
    got = call(divergence.conjugate, t, backend)
    assert_exact(got, t, oracle(divergence).conjugate, backend)


@pytest.mark.parametrize("backend", BACKENDS)
@every_smooth
def test_inverse_against_oracle(divergence, backend):
    t = slopes(divergence, backend)
    got = call(divergence.f_prime_inverse, t, backend)
    assert_exact(got, t, oracle(divergence).inverse, backend)
