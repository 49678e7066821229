"""The table of f-divergences against a 160-digit oracle and against its own identities."""

from __future__ import annotations

import functools
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
    random = np.random.default_rng(7).uniform(0, 3, 12)
    positive = np.concatenate([tiny, sides, random, np.linspace(0.6, 50, 24)])
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


@functools.cache
def exact_value(divergence: Divergence, name: str, point: float) -> mpf:
    row = oracle(divergence)
    with mpmath.workdps(DIGITS):
        x = mpf(point)
        return getattr(row, name)(x if name in ("conjugate", "inverse") else exp(x))


def assert_exact(
    got: np.ndarray,
    x: np.ndarray,
    divergence: Divergence,
    name: str,
    backend: str,
    *,
    absolute: float = 0.0,
) -> None:
    """Relative to the oracle where the value is a normal number, else its limit; never NaN."""
    limits = np.finfo(np.float32 if backend == "torch32" else np.float64)
    tolerance = 1e-5 if backend == "torch32" else 1e-12
    assert not np.isnan(got).any()
    for value, point in zip(got, x, strict=True):
        target = exact_value(divergence, name, float(point))
        with mpmath.workdps(DIGITS):
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
    got = call(getattr(divergence, name), x, backend)
    # A logarithm near its root has absolute, not relative, digits: log h = 0 where h = 1.
    assert_exact(got, x, divergence, name, backend, absolute=float(name == "log_h"))


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
    assert_exact(got, t, divergence, "conjugate", backend)


@pytest.mark.parametrize("backend", BACKENDS)
@every_smooth
def test_inverse_against_oracle(divergence, backend):
    t = slopes(divergence, backend)
    got = call(divergence.f_prime_inverse, t, backend)
    assert_exact(got, t, divergence, "inverse", backend)


# What surrounds the table: ends, kinds of input, gradients.

METHODS = ("f", "f_prime", "f_second", "h", "log_h", "conjugate_at_prime")


@pytest.mark.parametrize("backend", BACKENDS)
@every
def test_never_nan_far_out(divergence, backend):
    far = np.array([-math.inf, -1e300, -1e4, -700.0, -100.0, 100.0, 700.0, 1e4, 1e300, math.inf])
    far = in_backend(far, backend)
    for name in METHODS:
        got = call(getattr(divergence, name), far, backend)
        assert not np.isnan(got).any(), name
        # Infinity gives the limit along the finite log ratios (f' of KL has none but itself).
        for end, before in ((0, 1), (-1, -2)):
            near = got[before] * (math.inf if abs(got[before]) > 1e30 else 1.0)
            assert got[end] == pytest.approx(near, rel=1e-5, abs=1e-30), name
    assert not np.isnan(call(divergence.conjugate, far, backend)).any()
    if not isinstance(divergence, TotalVariation):
        assert not np.isnan(call(divergence.f_prime_inverse, far, backend)).any()


def test_values_at_the_ends():
    at_zero = {
        "kl": 0, "reverse_kl": math.inf, "jensen_shannon": math.log(2), "total_variation": 0.5,
        "pearson_chi2": 1, "neyman_chi2": math.inf, "squared_hellinger": 1,
        "softened_reverse_kl": math.inf, "softened_kl": -math.log(2), "jeffreys": math.inf,
    }  # fmt: skip
    for name, value in at_zero.items():
        assert divergence(name).f(-math.inf) == pytest.approx(value)
    assert AlphaDivergence(0.25).f(-math.inf) == 4.0
    assert SoftenedReverseKL().f_prime(math.inf) == pytest.approx(-math.log(2))
    assert JensenShannon().f_prime(math.inf) == pytest.approx(math.log(2))
    assert AlphaDivergence(-1.0).conjugate([0.5, 0.50001]).tolist() == [1.0, math.inf]
    assert KL().f_prime_inverse(-math.inf) == -math.inf
    assert PearsonChi2().f_prime_inverse([-2.0, -7.0]).tolist() == [-math.inf, -math.inf]
    assert NeymanChi2().f_prime_inverse([1.0, 7.0]).tolist() == [math.inf, math.inf]


@pytest.mark.parametrize("backend", BACKENDS)
@every
def test_nan_stays_nan(divergence, backend):
    for name in (*METHODS, "conjugate", "f_prime_inverse"):
        if name == "f_prime_inverse" and isinstance(divergence, TotalVariation):
            continue
        got = call(getattr(divergence, name), np.array([math.nan, 0.1]), backend)
        assert np.isnan(got).tolist() == [True, False], name


@every
def test_kinds_of_input(divergence):
    for value in (0, 0.0, np.float32(0), np.array(0.0), True):
        assert isinstance(divergence.f(value), np.float64)
    single = divergence.f(np.linspace(-2, 2, 6, dtype=np.float32).reshape(2, 3))
    assert single.dtype == np.float64
    assert single.shape == (2, 3)
    assert divergence.h([0, 1]).shape == (2,)
    assert divergence.f(np.empty((0, 3))).shape == (0, 3)
    with pytest.raises(InputTypeError, match="log_r has type <U1; give real numbers"):
        divergence.f(np.array(["a"]))
    with pytest.raises(InputTypeError, match="t has type complex128; give real numbers"):
        divergence.conjugate(np.array([1j]))
    with pytest.raises(InputTypeError, match="log_r has type NoneType; give real numbers"):
        divergence.h(None)


@every
def test_kinds_of_tensors(divergence):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    assert divergence.f(torch.tensor([1, 2])).dtype == torch.get_default_dtype()
    for dtype in (torch.float16, torch.bfloat16):
        got = divergence.f(torch.tensor([[0.5, -0.5]], dtype=dtype))
        assert got.dtype == dtype
        assert got.shape == (1, 2)
        assert got.float().numpy() == pytest.approx(divergence.f([[0.5, -0.5]]), rel=0.1)
    with pytest.raises(InputTypeError, match="give real numbers"):
        divergence.f(torch.tensor([1j]))


@pytest.mark.parametrize("backend", ["torch64", "torch32"])
@every
def test_gradients(divergence, backend):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    dtype = torch.float64 if backend == "torch64" else torch.float32
    # Far out, where a gradient is e^-40, autograd keeps the digits of 1 and not those of e^-40.
    tolerance, floor = (1e-9, 1e-15) if backend == "torch64" else (1e-4, 1e-6)

    def gradient(method, values):
        x = torch.tensor(values, dtype=dtype, requires_grad=True)
        (slope,) = torch.autograd.grad(method(x).sum(), x)
        return slope.double().numpy()

    def check(got, right):
        limits = torch.finfo(dtype)
        fits = (abs(right) < limits.max / 100) & (abs(right) > limits.tiny * 100)
        assert not np.isnan(got[abs(right) < limits.max / 100]).any()
        np.testing.assert_allclose(got[fits], right[fits], rtol=tolerance, atol=floor)

    x = in_backend(GRID, backend)
    r = np.exp(x)
    steep = divergence.f_second(x) * r
    check(gradient(divergence.f, x), divergence.f_prime(x) * r)
    check(gradient(divergence.conjugate_at_prime, x), r * steep)
    check(gradient(divergence.f_prime, x), steep)
    if isinstance(divergence, TotalVariation):
        return
    low, high = np.array(divergence.resolved).clip(-40, 40) / (2 if backend == "torch32" else 1)
    t = in_backend(np.asarray(divergence.f_prime(x[(x > low) & (x < high)])), backend)
    log_r = divergence.f_prime_inverse(t)
    check(gradient(divergence.conjugate, t), np.exp(log_r))
    slope = divergence.f_second(log_r) * np.exp(log_r)
    check(gradient(divergence.f_prime_inverse, t), 1 / slope)


@every_smooth
def test_second_gradient_of_the_conjugate(divergence):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    x = np.array([-3.0, -0.7, -0.1, 0.05, 0.4, 1.2, 3.0])
    t = torch.tensor(divergence.f_prime(x), requires_grad=True)
    (first,) = torch.autograd.grad(divergence.conjugate(t).sum(), t, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), t)
    np.testing.assert_allclose(second.numpy(), 1 / divergence.f_second(x), rtol=1e-9)


def test_torch_is_not_imported():
    import subprocess
    import sys

    code = "import sys, dpdq.divergences as d; d.KL().f(1.0); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


# Identities.


@every_smooth
def test_round_trip_within_the_stated_range(divergence):
    low, high = np.array(divergence.resolved).clip(-50, 50)
    log_r = np.linspace(low, high, 301)
    back = divergence.f_prime_inverse(divergence.f_prime(log_r))
    np.testing.assert_allclose(back, log_r, rtol=1e-6, atol=1e-6)


@every
def test_conjugate_at_prime_is_the_conjugate_at_prime(divergence):
    log_r = np.linspace(-5, 5, 101)
    through_t = divergence.conjugate(divergence.f_prime(log_r))
    np.testing.assert_allclose(
        divergence.conjugate_at_prime(log_r), through_t, rtol=1e-9, atol=1e-9
    )


@every
def test_fenchel_young(divergence):
    """F(r) + f*(t) >= r t, for all r and t."""
    log_r = np.linspace(-6, 6, 61)[:, None]
    t = np.concatenate([np.linspace(-5, 5, 101), np.asarray(divergence.f_prime(log_r)).ravel()])
    gap = divergence.f(log_r) + divergence.conjugate(t) - np.exp(log_r) * t
    assert gap.min() >= -1e-9 * np.exp(6) * 5


@every
def test_swapped(divergence):
    dual = divergence.swapped()
    log_r = GRID
    r = np.exp(log_r)
    rest = {"rtol": 1e-9, "atol": 1e-300}
    np.testing.assert_allclose(dual.f(log_r), r * divergence.f(-log_r), **rest)
    np.testing.assert_allclose(dual.h(log_r), r * divergence.h(-log_r), **rest)
    # g'(r) = f(1/r) - f'(1/r) / r = -f*(f'(1/r))
    np.testing.assert_allclose(dual.f_prime(log_r), -divergence.conjugate_at_prime(-log_r), **rest)
    again = dual.swapped()
    for name in METHODS:
        np.testing.assert_allclose(
            getattr(again, name)(log_r), getattr(divergence, name)(log_r), rtol=1e-9, atol=1e-13
        )
    assert type(dual.standard()) is type(divergence.standard().swapped())


@every
def test_standard(divergence):
    standard = divergence.standard()
    assert standard.standard() == standard
    assert standard.f_prime(0.0) == 0
    assert (standard.f(GRID) >= 0).all()
    assert standard.name == divergence.name
    assert standard.scale_to_report == divergence.scale_to_report
    c = -divergence.f_prime(0.0)
    log_r = np.linspace(-3, 3, 41)
    np.testing.assert_allclose(
        standard.f(log_r), divergence.f(log_r) + c * np.expm1(log_r), atol=1e-12
    )
    np.testing.assert_array_equal(standard.h(log_r), divergence.h(log_r))
    t = standard.f_prime(log_r)
    np.testing.assert_allclose(
        standard.conjugate(t), divergence.conjugate(t - c) + c, rtol=1e-12, atol=1e-12
    )


def test_named_members_of_the_alpha_family():
    log_r = GRID
    for alpha, other, scale in (
        (2.0, PearsonChi2(), 0.5),
        (-1.0, NeymanChi2(), 0.5),
        (0.5, SquaredHellinger(), 2.0),
        (1e-13, StandardReverseKL(), 1.0),
        (1 + 1e-13, StandardKL(), 1.0),
    ):
        member = AlphaDivergence(alpha)
        np.testing.assert_allclose(member.f(log_r), scale * other.f(log_r), rtol=1e-11)
        np.testing.assert_allclose(member.h(log_r), scale * other.h(log_r), rtol=1e-11)
    assert AlphaDivergence(1e-20).swapped() == StandardKL()
    limit, t = StandardReverseKL(), np.linspace(-5, 0.9, 30)
    np.testing.assert_allclose(AlphaDivergence(1e-40).f(log_r), limit.f(log_r), rtol=1e-12)
    np.testing.assert_allclose(AlphaDivergence(1e-40).conjugate(t), limit.conjugate(t), rtol=1e-12)


def test_reverse_kl_has_weight_one():
    assert (ReverseKL().h(GRID) == 1).all()
    assert (ReverseKL().log_h(GRID) == 0).all()
    assert (TotalVariation().h(GRID) == 0).all()
    assert (TotalVariation().log_h(GRID) == -math.inf).all()


# Known answers.


def gaussian_mean(values: Callable[[np.ndarray], np.ndarray], mean: float, sd: float) -> float:
    """E[values(x)] under N(mean, sd^2), by the trapezoid rule (exact to the last digits here)."""
    x = np.linspace(-14, 14, 40_001)
    density = np.exp(-0.5 * ((x - mean) / sd) ** 2) / (sd * math.sqrt(2 * math.pi))
    return float(np.sum(values(x) * density) * (x[1] - x[0]))


def log_ratio(x: np.ndarray, mean: float, sd: float) -> np.ndarray:
    """Of p = N(mean, sd^2) to q = N(0, 1)."""
    return 0.5 * x**2 - 0.5 * ((x - mean) / sd) ** 2 - math.log(sd)


@every
def test_tight_on_gaussians(divergence):
    """E_p[f'(r)] - E_q[f*(f'(r))] = D_f = E_q[f(r)], with p = N(0.5, 0.8^2)."""
    mean, sd = 0.5, 0.8
    if isinstance(divergence, AlphaDivergence) and not -1 < divergence.alpha < 2.5:
        mean, sd = 0.3, 0.95  # where the moment exists
    value = gaussian_mean(lambda x: divergence.f(log_ratio(x, mean, sd)), 0, 1)
    first = gaussian_mean(lambda x: divergence.f_prime(log_ratio(x, mean, sd)), mean, sd)
    second = gaussian_mean(lambda x: divergence.conjugate_at_prime(log_ratio(x, mean, sd)), 0, 1)
    tolerance = 1e-3 if isinstance(divergence, TotalVariation) else 1e-9
    assert first - second == pytest.approx(value, rel=tolerance)


def test_gaussian_closed_forms():
    shift = 0.7  # p = N(0.7, 1), q = N(0, 1)

    def distance(divergence):
        return gaussian_mean(lambda x: divergence.f(log_ratio(x, shift, 1.0)), 0, 1)

    assert distance(KL()) == pytest.approx(shift**2 / 2, rel=1e-10)
    assert distance(ReverseKL()) == pytest.approx(shift**2 / 2, rel=1e-10)
    assert distance(Jeffreys()) == pytest.approx(shift**2, rel=1e-10)
    assert distance(PearsonChi2()) == pytest.approx(math.expm1(shift**2), rel=1e-10)
    assert distance(NeymanChi2()) == pytest.approx(math.expm1(shift**2), rel=1e-10)
    hellinger = SquaredHellinger()
    assert hellinger.scale_to_report * distance(hellinger) == pytest.approx(
        -math.expm1(-(shift**2) / 8), rel=1e-10
    )
    assert distance(TotalVariation()) == pytest.approx(math.erf(shift / 2 / math.sqrt(2)), rel=1e-6)
    alpha = 1.3
    assert distance(AlphaDivergence(alpha)) == pytest.approx(
        math.expm1(alpha * (alpha - 1) * shift**2 / 2) / (alpha * (alpha - 1)), rel=1e-10
    )


@pytest.mark.parametrize("n", [2, 4, 16])
def test_best_of_n(n):
    """The best of n uniform draws has density n u^(n-1): KL = log n - (n-1)/n."""
    u = (np.arange(2_000_000) + 0.5) / 2_000_000
    log_r = math.log(n) + (n - 1) * np.log(u)
    assert KL().f(log_r).mean() == pytest.approx(math.log(n) - (n - 1) / n, abs=1e-9)


def test_disjoint_laws_reach_the_reported_bounds():
    """With p and q apart, half the mass of the mixture sees r = inf: D = f(0) + f'(inf)."""
    for bounded, top in ((JensenShannon(), math.log(2)), (SquaredHellinger(), 1.0)):
        total = bounded.f(-math.inf) + bounded.f_prime(math.inf)
        assert bounded.scale_to_report * total == pytest.approx(top, rel=1e-15)


# Any discrete laws.

any_divergence = st.sampled_from(ALL)
pairs = st.integers(2, 8).flatmap(
    lambda n: st.tuples(
        hnp.arrays(float, n, elements=st.floats(1e-4, 1.0)),
        hnp.arrays(float, n, elements=st.floats(1e-4, 1.0)),
    )
)


def discrete(divergence: Divergence, q: np.ndarray, p: np.ndarray) -> float:
    return float(np.sum(q * divergence.f(np.log(p) - np.log(q))))


@settings(deadline=None, max_examples=300)
@given(any_divergence, pairs, st.data())
def test_discrete_laws(divergence, pair, data):
    q, p = (side / side.sum() for side in pair)
    value = discrete(divergence, q, p)
    slack = 1e-12 * float(np.sum(q * abs(divergence.f(np.log(p) - np.log(q)))))
    # Not negative, and 0 for a law against itself.
    assert value >= -slack - 1e-15
    assert discrete(divergence, q, q) == 0
    # Symmetric under the dual, unchanged by the standard version.
    assert discrete(divergence.swapped(), p, q) == pytest.approx(value, rel=1e-9, abs=1e-12)
    assert discrete(divergence.standard(), q, p) == pytest.approx(value, rel=1e-9, abs=1e-12)
    # Data processing: merging cells never takes the laws apart.
    cells = data.draw(st.lists(st.integers(0, len(q) - 2), min_size=len(q), max_size=len(q)))
    merged_q, merged_p = np.bincount(cells, q), np.bincount(cells, p)
    kept = merged_q > 0
    assert discrete(divergence, merged_q[kept], merged_p[kept]) <= value + slack + 1e-12
    # Any critic in the domain of f* is a lower bound.
    log_critic = data.draw(hnp.arrays(float, len(q), elements=st.floats(-4, 4)))
    bound = np.sum(p * divergence.f_prime(log_critic)) - np.sum(
        q * divergence.conjugate_at_prime(log_critic)
    )
    assert bound <= value + slack + 1e-9 * np.exp(4 * max(1, abs(getattr(divergence, "alpha", 3))))


@settings(deadline=None, max_examples=300)
@given(any_divergence, st.floats(-50, 50), st.floats(-50, 50), st.floats(0, 1))
def test_convex_in_r(divergence, first, second, share):
    a, b = np.exp([first, second])
    middle = share * a + (1 - share) * b
    ends = divergence.f(np.array([first, second]))
    chord = share * ends[0] + (1 - share) * ends[1]
    if np.isfinite(chord):
        size = np.abs(ends).max() + 1
        assert divergence.f(np.log(middle)) <= chord + 1e-9 * size
    assert divergence.f_prime(max(first, second)) >= divergence.f_prime(min(first, second))
    assert divergence.standard().f(first) >= 0


# The object.


@every
def test_object(divergence):
    assert divergence == pickle.loads(pickle.dumps(divergence))
    assert hash(divergence) == hash(pickle.loads(pickle.dumps(divergence)))
    assert eval(repr(divergence)) == divergence
    assert divergence != "kl"
    with pytest.raises(AttributeError):
        divergence.name = "other"


def test_equality():
    assert AlphaDivergence(0.5) == AlphaDivergence(alpha=0.5)
    assert AlphaDivergence(2) == AlphaDivergence(2.0)
    assert AlphaDivergence(0.5) != AlphaDivergence(0.25)
    assert KL() != ReverseKL()
    assert KL() != StandardKL()
    assert len({KL(), KL(), ReverseKL()}) == 2


def test_lookup():
    for name in DIVERGENCES:
        found = divergence(name, alpha=0.5) if name == "alpha" else divergence(name)
        assert found.name == name
    with pytest.raises(OptionError) as unknown:
        divergence("kullback")
    assert str(unknown.value) == (
        "Unknown divergence 'kullback'. Choose one of 'kl', 'reverse_kl', 'jensen_shannon', "
        "'total_variation', 'pearson_chi2', 'neyman_chi2', 'squared_hellinger', "
        "'softened_reverse_kl', 'softened_kl', 'jeffreys', 'alpha'."
    )
    with pytest.raises(OptionError, match="Divergence 'alpha' needs its order: pass alpha=0.5"):
        divergence("alpha")
    with pytest.raises(OptionError, match="Divergence 'kl' takes no alpha; drop it or use 'alpha'"):
        divergence("kl", alpha=0.5)


def test_refusals():
    with pytest.raises(OptionError, match=r"alpha is 0, which is reverse KL: use ReverseKL\(\)"):
        AlphaDivergence(0)
    with pytest.raises(OptionError, match=r"alpha is 1, which is KL: use KL\(\)"):
        AlphaDivergence(1.0)
    with pytest.raises(OptionError, match="alpha is nan; give a finite number other than 0 and 1"):
        AlphaDivergence(math.nan)
    with pytest.raises(InputTypeError, match="alpha has type str; give a number"):
        AlphaDivergence("2")  # pyright: ignore[reportArgumentType]
    with pytest.raises(OptionError, match="its inverse is a set of ratios; use another divergence"):
        TotalVariation().f_prime_inverse(0.1)


def test_report_scales():
    halves = {name for name in DIVERGENCES if name != "alpha"} & {
        d.name for d in ALL if d.scale_to_report == 0.5
    }
    assert halves == {"jensen_shannon", "squared_hellinger"}
    assert {d.scale_to_report for d in ALL} == {0.5, 1.0}
