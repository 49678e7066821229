"""What comes in: one number, boolean or label a row, as NumPy, or one sentence why not."""

from __future__ import annotations

from typing import Any

import numpy as np

from dpdq._optional import is_torch
from dpdq.errors import DataError, InputTypeError

__all__ = ["as_labels", "as_log_weights", "as_mask", "as_vector"]


def as_vector(values: Any, name: str) -> np.ndarray:
    """One row of float64 numbers out of whatever came, NaN refused."""
    if is_torch(values):
        if values.is_complex():
            raise InputTypeError(f"{name} has dtype {values.dtype}; give real numbers")
        values = values.detach().cpu().double().numpy()
    try:
        array = np.asarray(values)
        if array.dtype.kind not in "fiub":
            raise TypeError
        array = array.astype(np.float64, copy=False)
    except (TypeError, ValueError):
        kind = getattr(values, "dtype", type(values).__name__)
        raise InputTypeError(f"{name} has type {kind}; give real numbers") from None
    if array.ndim != 1:
        raise DataError(f"{name} has shape {array.shape}; give one number a row, shape (n,)")
    return array


def as_log_weights(values: Any) -> np.ndarray:
    array = as_vector(values, "log_weights")
    if array.size == 0:
        raise DataError("log_weights is empty; give one log weight a row")
    for wrong, what in ((np.isnan(array), "NaN"), (array == np.inf, "infinite")):
        if wrong.any():
            raise DataError(
                f"log_weights: {np.count_nonzero(wrong)} of {array.size} values are {what} (first "
                f"at row {np.argmax(wrong)}); give finite log weights, or -inf to drop a row"
            )
    if array.max() == -np.inf:
        raise DataError(
            f"log_weights: all {array.size} values are -inf, so that every row is dropped; "
            "keep at least one"
        )
    return array


def as_mask(mask: Any, n: int) -> np.ndarray:
    if is_torch(mask):
        mask = mask.detach().cpu().numpy()
    array = np.asarray(mask)
    if array.dtype != bool:
        raise InputTypeError(f"mask has dtype {array.dtype}; give booleans, true for kept rows")
    if array.shape != (n,):
        raise DataError(f"mask has shape {array.shape}; give one boolean a row, shape ({n},)")
    return array


def as_labels(groups: Any, n: int) -> np.ndarray:
    if is_torch(groups):
        groups = groups.detach().cpu().numpy()
    array = np.asarray(groups)
    if array.shape != (n,):
        raise DataError(f"groups has shape {array.shape}; give one label a row, shape ({n},)")
    return array
