"""What the robust losses share: inputs checked once, rows weighted once, one gradient rule.

A loss takes NumPy arrays, computed in float64, or torch tensors, computed in their own dtype with
gradients; the type of its first argument decides. Weights are shares of the rows here: they sum to
one, and 0 drops a row, whatever number (or NaN) stands in it.
"""

from __future__ import annotations

import functools
import sys
from typing import Any, TypeAlias

import numpy as np

from dpdq._optional import is_torch, require
from dpdq.errors import DataError, InputTypeError, OptionError
from dpdq.weights import Weights

__all__ = [
    "Array",
    "Module",
    "as_codes",
    "as_rows",
    "as_shares",
    "check_scale",
    "envelope",
    "kept_rows",
    "like",
    "log_mean_exp",
    "log_sum_exp",
    "mute_dropped",
    "pick_rows",
    "plain",
    "reduce_rows",
]

Array: TypeAlias = Any
"""A NumPy array or a torch tensor."""

Module: TypeAlias = Any
"""``numpy`` or ``torch``."""

_SHAPES = {1: "one number a row, shape (n,)", 2: "one row an example, shape (n, k)"}


def as_rows(values: Any, name: str, n_dims: int = 1) -> tuple[Array, Module]:
    """Turn what came into an array of real numbers, and tell the module that it belongs to."""
    if is_torch(values):
        array, xp = values, sys.modules["torch"]
        if array.is_complex():
            raise InputTypeError(f"{name} has dtype {array.dtype}; give real numbers")
        if not array.is_floating_point():
            array = array.to(xp.get_default_dtype())
    else:
        xp = np
        try:
            array = np.asarray(values)
            if array.dtype.kind not in "fiub":
                raise TypeError
            array = array.astype(np.float64, copy=False)
        except (TypeError, ValueError):
            kind = getattr(values, "dtype", type(values).__name__)
            raise InputTypeError(f"{name} has type {kind}; give real numbers") from None
    if array.ndim != n_dims or 0 in array.shape:
        raise DataError(f"{name} has shape {tuple(array.shape)}; give {_SHAPES[n_dims]}, not empty")
    return array, xp


def plain(values: Any) -> np.ndarray:
    """Copy an array to NumPy, in float64, without its gradient."""
    if is_torch(values):
        values = values.detach().cpu().double().numpy()
    return np.asarray(values, dtype=np.float64)


def like(values: Any, reference: Array) -> Array:
    """Bring numbers to the dtype and device of a reference array."""
    if is_torch(reference):
        return sys.modules["torch"].as_tensor(
            values, dtype=reference.dtype, device=reference.device
        )
    return plain(values)


def as_shares(weights: Any, n: int) -> np.ndarray:
    """Weights of the rows as shares that sum to one; ``None`` is uniform."""
    if weights is None:
        return np.full(n, 1.0 / n)
    found = Weights.from_values(weights)
    if len(found) != n:
        raise DataError(f"weights has {len(found)} rows, where the losses have {n}; give one a row")
    return found.normalised


def kept_rows(losses: Any, weights: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The losses and shares of rows that count, as NumPy, and the numbers of these rows."""
    values = plain(losses)
    shares = as_shares(weights, values.size)
    rows = np.flatnonzero(shares > 0)
    values, shares = values[rows], shares[rows]
    wrong = ~np.isfinite(values)
    if wrong.any():
        raise DataError(
            f"losses: {np.count_nonzero(wrong)} of {values.size} values are NaN or infinite (first "
            f"at row {rows[np.argmax(wrong)]}); find out why the model gives them, or drop the rows"
        )
    return values, shares, rows


def as_codes(codes: Any, n: int, k: int, name: str, reference: Array) -> Array:
    """Integer labels 0 to k - 1, one a row, in the module and on the device of a reference."""
    if is_torch(codes) and not is_torch(reference):
        codes = codes.detach().cpu().numpy()
    if not is_torch(codes):
        codes = np.asarray(codes)
        integer = codes.dtype.kind in "iub"
    else:
        integer = not (codes.is_floating_point() or codes.is_complex())
    if not integer:
        raise InputTypeError(f"{name} has dtype {codes.dtype}; give integers from 0 to {k - 1}")
    if tuple(codes.shape) != (n,):
        raise DataError(f"{name} has shape {tuple(codes.shape)}; give one label a row, ({n},)")
    if is_torch(reference):
        torch = sys.modules["torch"]
        codes = torch.as_tensor(codes, device=reference.device).long()
    else:
        codes = codes.astype(np.intp)
    if int(codes.min()) < 0 or int(codes.max()) >= k:
        outside = (codes < 0) | (codes >= k)
        row = int(np.argmax(plain(outside)))
        raise DataError(
            f"{name}: {int(outside.sum())} of {n} values are outside 0 to {k - 1} (first at row "
            f"{row}, {int(codes[row])}); number the labels from 0"
        )
    return codes


def check_scale(name: str, value: float, *, zero: bool = False, infinite: bool = False) -> float:
    """Refuse a number that is not above 0 (or 0 or infinity where these are allowed)."""
    number = value if isinstance(value, (int, float, np.integer, np.floating)) else float("nan")
    if not ((number > 0 or (zero and number == 0)) and (infinite or number < float("inf"))):
        least = "0 or more" if zero else "above 0"
        most = ", infinity allowed" if infinite else " and finite"
        raise OptionError(f"{name} is {value!r}; give a number {least}{most}")
    return float(number)


def reduce_rows(rows: Array, weights: Any, reduction: str) -> Array:
    """The mean of the rows' losses under weights, or the rows themselves."""
    if reduction not in ("mean", "none"):
        raise OptionError(f"Unknown reduction {reduction!r}. Choose one of 'mean', 'none'.")
    if reduction == "none":
        if weights is not None:
            raise OptionError("weights are for the mean; drop them or use reduction='mean'")
        return rows
    if weights is None:
        return rows.mean()
    shares = as_shares(weights, rows.shape[0])
    kept = np.flatnonzero(shares > 0)
    return (like(shares[kept], rows) * pick_rows(rows, kept)).sum()


def pick_rows(array: Array, rows: np.ndarray) -> Array:
    """The rows of these numbers; an array of them all is itself."""
    if rows.size == array.shape[0]:
        return array
    if is_torch(array):
        return array[sys.modules["torch"].as_tensor(rows, device=array.device)]
    return array[rows]


def mute_dropped(array: Array, weights: Any, xp: Module) -> Array:
    """Put 0 into rows that weights drop, so that their numbers reach no value and no gradient."""
    if weights is None:
        return array
    kept = as_shares(weights, array.shape[0]) > 0
    if kept.all():
        return array
    mask = xp.as_tensor(kept, device=array.device) if is_torch(array) else kept
    return xp.where(mask[:, None], array, xp.zeros_like(array))


def log_mean_exp(x: Array, shares: Array, xp: Module, axis: int = -1) -> Array:
    """``log(sum(shares e^x))`` along an axis: all digits for small x, no overflow for large ones.

    The shares sum to one, so that near x = 0 this is ``log1p`` of a mean of ``expm1``.
    """
    top = _largest(x, xp, axis)
    moved = x - top
    mean = (shares * xp.expm1(moved)).sum(axis)
    near = mean > -0.5
    exact = xp.log1p(xp.where(near, mean, xp.zeros_like(mean)))
    total = (shares * xp.exp(moved)).sum(axis)
    far = xp.log(xp.where(near, xp.ones_like(total), total))
    return xp.where(near, exact, far) + top.squeeze(axis)


def log_sum_exp(x: Array, xp: Module) -> Array:
    """``log(sum(e^x))`` along the last axis."""
    top = _largest(x, xp, -1)
    return xp.log(xp.exp(x - top).sum(-1)) + top[:, 0]


def _largest(x: Array, xp: Module, axis: int) -> Array:
    return xp.amax(x.detach() if is_torch(x) else x, axis, keepdims=True)


@functools.cache
def _envelope_rule() -> Any:
    torch = require("torch")

    class Slope(torch.autograd.Function):
        """The known gradient: a number to whoever asks for it, no function of the losses."""

        @staticmethod
        def forward(ctx: Any, losses: Any, gradient: Any) -> Any:
            return gradient.clone()

        @staticmethod
        def backward(ctx: Any, upstream: Any) -> Any:
            raise OptionError(
                "this loss has a first derivative only; drop create_graph=True, or take "
                "kl_tilted_loss where a second one is needed"
            )

    class Envelope(torch.autograd.Function):
        """A value whose gradient is known without differentiating how it was found."""

        @staticmethod
        def forward(ctx: Any, losses: Any, gradient: Any, value: Any) -> Any:
            ctx.save_for_backward(losses, gradient)
            return value.clone()

        @staticmethod
        def backward(ctx: Any, upstream: Any) -> Any:
            return upstream * Slope.apply(*ctx.saved_tensors), None, None

    return Envelope


def envelope(losses: Array, gradient: np.ndarray, value: float) -> Array:
    """``value``, with a known gradient in the losses; a second derivative is refused."""
    if not is_torch(losses):
        return np.float64(value)
    return _envelope_rule().apply(losses, like(gradient, losses), like(value, losses))
