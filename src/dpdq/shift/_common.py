"""What the parts of the room share: units, small-sample quantiles, label arrays, effects."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from scipy import special

from dpdq.errors import DataError
from dpdq.results import Result

__all__ = [
    "Effect",
    "class_text",
    "clean_labels",
    "cluster_sums",
    "clustered_variance",
    "effective_count",
    "joint_units",
    "same_classes",
    "same_length",
    "t_quantile",
    "t_tail",
    "unit_codes",
]


@dataclasses.dataclass(frozen=True, repr=False)
class Effect(Result):
    """The size of a difference on a named scale.

    Attributes
    ----------
    measure
        What is measured, with its unit.
    estimate, low, high
        The estimate and the ends of its 95 % interval; ``None`` where none exists.
    """

    measure: str
    estimate: float | None
    low: float | None
    high: float | None


def t_quantile(level: float, df: float) -> float:
    """Half width, in standard errors, of a two-sided t interval at ``level``."""
    return float(special.stdtrit(max(df, 1.0), 0.5 + level / 2))


def t_tail(statistic: float, df: float) -> float:
    """P(T > statistic) for Student's T with ``df`` degrees of freedom."""
    return float(special.stdtr(max(df, 1.0), -statistic))


def unit_codes(units: Any, n: int, name: str = "units") -> np.ndarray:
    """Integer codes of the units of ``n`` rows; each row its own where ``units`` is None."""
    if units is None:
        return np.arange(n)
    values = np.asarray(units)
    if values.ndim != 1 or len(values) != n:
        raise DataError(f"{name}: shape {values.shape} where ({n},) was expected, one unit a row")
    if values.dtype == object:
        values = values.astype(str)
    return np.unique(values, return_inverse=True)[1]


def joint_units(
    units_q: Any, units_p: Any, n_q: int, n_p: int
) -> tuple[np.ndarray, np.ndarray, bool]:
    """Codes of the units of both sides (equal units, equal codes) and whether any were given.

    A side without units counts each of its rows as one.
    """
    if units_q is None and units_p is None:
        return np.arange(n_q), np.arange(n_q, n_q + n_p), False
    if units_q is None:
        codes_p = unit_codes(units_p, n_p, "units_p")
        return np.arange(n_q), n_q + codes_p, True
    if units_p is None:
        codes_q = unit_codes(units_q, n_q, "units_q")
        return n_p + codes_q, np.arange(n_p), True
    first, second = np.asarray(units_q), np.asarray(units_p)
    same_length("units_q", first, "rows of q", n_q)
    same_length("units_p", second, "rows of p", n_p)
    if first.dtype == object or second.dtype == object:
        first, second = first.astype(str), second.astype(str)
    codes = unit_codes(np.concatenate([first, second]), n_q + n_p)
    return codes[:n_q], codes[n_q:], True


def same_length(name: str, values: np.ndarray, other: str, n: int) -> None:
    """Refuse an array that is not one value a row."""
    if values.ndim < 1 or len(values) != n:
        raise DataError(f"{name}: {np.shape(values)} values for {n} {other}; give one a row")


def cluster_sums(values: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Sums of the rows of ``values``, shape (n,) or (n, k), within each unit that occurs."""
    present, inverse = np.unique(codes, return_inverse=True)
    if values.ndim == 1:
        return np.bincount(inverse, weights=values, minlength=len(present))
    return np.stack(
        [np.bincount(inverse, weights=column, minlength=len(present)) for column in values.T],
        axis=1,
    )


def clustered_variance(scores: np.ndarray, codes: np.ndarray | None) -> float:
    """Variance of a sum of mean-zero scores that are independent between units."""
    sums = scores if codes is None else cluster_sums(scores, codes)
    n = len(sums)
    return float(np.sum(sums**2) * n / (n - 1)) if n > 1 else float("nan")


def effective_count(weights: np.ndarray, codes: np.ndarray | None) -> float:
    """Kish's effective number of units, (sum W)^2 / sum W^2 over the units' total weights."""
    sums = weights if codes is None else cluster_sums(weights, codes)
    square = float(np.sum(sums**2))
    return float(np.sum(sums)) ** 2 / square if square > 0 else 0.0


def _is_missing(value: Any) -> bool:
    if isinstance(value, float):
        return value != value
    return value is None or type(value).__name__ in ("NAType", "NaTType")


def _missing(values: np.ndarray) -> np.ndarray:
    if values.dtype == object:
        return np.array([_is_missing(v) for v in values.tolist()], dtype=bool)
    if values.dtype.kind == "f":
        return np.isnan(values)
    return np.zeros(len(values), dtype=bool)


def clean_labels(values: Any, name: str) -> np.ndarray:
    """A label or prediction column as one of: bool, int64, float64 or str, without gaps."""
    array = np.asarray(values)
    if array.ndim != 1:
        raise DataError(f"{name}: shape {array.shape}; give one value a row, shape (n,)")
    if len(array) == 0:
        raise DataError(f"{name}: no rows; at least two are needed")
    missing = _missing(array)
    if missing.any():
        raise DataError(
            f"{name}: {int(missing.sum())} of {len(array)} values are missing "
            f"(first at row {int(np.argmax(missing))}); drop these rows"
        )
    if array.dtype == object:
        kinds = {type(v) for v in array.tolist()}
        if kinds <= {bool, np.bool_}:
            array = array.astype(bool)
        elif kinds <= {int, float, bool, np.bool_} or all(
            issubclass(k, (int, float, np.number, np.bool_)) for k in kinds
        ):
            array = array.astype(np.float64)
        else:
            array = array.astype(str)
    if array.dtype.kind in "SU":
        return array.astype(str)
    if array.dtype.kind == "b":
        return array
    if array.dtype.kind in "iu":
        return array.astype(np.int64)
    if array.dtype.kind == "f":
        array = array.astype(np.float64)
        infinite = np.isinf(array)
        if infinite.any():
            raise DataError(
                f"{name}: {int(infinite.sum())} of {len(array)} values are infinite "
                f"(first at row {int(np.argmax(infinite))}); drop these rows"
            )
        return array
    raise DataError(f"{name}: type {array.dtype}; give numbers, booleans or strings")


def same_classes(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two label arrays brought to one type, so that 1, 1.0 and True are the same class."""
    if (first.dtype.kind == "U") != (second.dtype.kind == "U"):
        return _as_text(first), _as_text(second)
    if first.dtype.kind == second.dtype.kind:
        return first, second
    return first.astype(np.float64), second.astype(np.float64)


def _as_text(values: np.ndarray) -> np.ndarray:
    if values.dtype.kind == "U":
        return values
    classes, inverse = np.unique(values, return_inverse=True)
    return np.array([class_text(c) for c in classes])[inverse]


def class_text(value: Any) -> str:
    """A class as text: 1 rather than 1.0."""
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return str(int(value))
    return str(value)
