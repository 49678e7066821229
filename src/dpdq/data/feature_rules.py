"""From one column to its features: a rule for each kind, fitted on the pooled rows of q and p.

A rule turns a column into two views:

    dense    numbers of about equal weight, for linear models and kernels
    codes    the values themselves, NaN where missing, for trees

Pooled fitting keeps permutation tests exact: exchanging rows between q and p changes no rule. So
every statistic here is computed from the sorted pooled values or from counts, and is the same to
the last bit whichever side comes first.

*Weight.* Each column brings a total variance of about one to the dense view, whatever its kind: a
number is standardised, the indicators of a categorical column share one factor that gives the
block variance one, and so do the coordinates of an embedding. (A second aspect brings its own: the
tail of a heavy-tailed number, the clock of an instant, the length of a text, missing values.) No
factor of an indicator is larger than ten, so that a level of one row in a million does not
outweigh everything else.

*Missing values* are information: an indicator says where they stand (if any did in the rows of
the fit), and the value itself is set to the middle of the others.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from dpdq.data import _values
from dpdq.data.schema import Column
from dpdq.errors import DataError

__all__ = [
    "ColumnRule",
    "Indicator",
    "Scale",
    "fields_or_none",
    "fill_scaled",
    "finite_numbers",
    "infinite_message",
    "part_or_none",
    "pooled_order",
]

CLIP = 10.0  # robust scales from the median
HEAVY_TAIL = 10.0  # kurtosis above which a column gets an asinh feature; an exponential has 9
SMALLEST_SD = 0.1


class ColumnRule(abc.ABC):
    """How one column becomes features; fitted, immutable, and JSON through its fields."""

    column: Column

    @property
    @abc.abstractmethod
    def dense_rules(self) -> list[tuple[str, str]]:
        """Name and rule in words of each dense feature."""

    @property
    @abc.abstractmethod
    def codes_rules(self) -> list[tuple[str, str]]:
        """Name and rule in words of each feature for trees."""

    @abc.abstractmethod
    def fill_dense(self, values: pa.Array, out: np.ndarray, where: str) -> None:
        """Write the dense features of a column into zeros of shape (n, dense features)."""

    @abc.abstractmethod
    def fill_codes(self, values: pa.Array, out: np.ndarray, where: str) -> None:
        """Write the features for trees into an array of shape (n, codes)."""

    @abc.abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Return the fitted rule as JSON types."""


def pooled_order(q: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Present values of both sides in ascending order."""
    values = np.concatenate([q, p])
    return np.sort(values[~np.isnan(values)])


@dataclasses.dataclass(frozen=True)
class Scale:
    """How numbers are centred and scaled, and whether their tails need a second feature."""

    centre: float
    spread: float
    mean: float
    sd: float
    tail: float
    tail_mean: float
    tail_sd: float

    @classmethod
    def fit(cls, ordered: np.ndarray) -> Scale | None:
        """Fit to present values in ascending order; None if they are all equal."""
        n = ordered.size
        if n == 0 or ordered[0] == ordered[-1]:
            return None
        centre = float(ordered[(n - 1) // 2])
        with np.errstate(over="ignore", under="ignore"):
            quartiles = ordered[3 * (n - 1) // 4] - ordered[(n - 1) // 4]
            shifted = ordered - centre
            reach = float(max(-shifted[0], shifted[-1]))
            if not np.isfinite(reach):
                reach = float(np.finfo(np.float64).max)
            small = np.clip(shifted / reach, -1.0, 1.0)
            small = small - small.mean()
            variance = float(np.mean(small**2))
            kurtosis = float(np.mean(small**4)) / variance**2 if variance > 1e-150 else np.inf
            spread = float(quartiles) / 1.349
            if not 0.0 < spread < np.inf:
                spread = max(reach * variance**0.5, float(np.finfo(np.float64).tiny))
        body = cls(centre, spread, 0.0, 1.0, 0.0, 0.0, 1.0)
        z = body.robust(ordered)
        body = dataclasses.replace(body, mean=float(z.mean()), sd=max(float(z.std()), 1.0))
        two_valued = bool(np.all((ordered == ordered[0]) | (ordered == ordered[-1])))
        if kurtosis <= HEAVY_TAIL or two_valued:
            return body
        distances = np.sort(np.abs(shifted[shifted != 0]))
        middle = float(np.minimum(distances[(distances.size - 1) // 2], reach))
        body = dataclasses.replace(body, tail=middle)
        u = body.squashed(ordered)
        return dataclasses.replace(
            body, tail_mean=float(u.mean()), tail_sd=max(float(u.std()), SMALLEST_SD)
        )

    @property
    def width(self) -> int:
        """Number of features: two where the tails are heavy."""
        return 2 if self.tail else 1

    def robust(self, values: np.ndarray) -> np.ndarray:
        """Robust scales from the median, cut at ten."""
        with np.errstate(over="ignore"):
            return np.clip((values - self.centre) / self.spread, -CLIP, CLIP)

    def squashed(self, values: np.ndarray) -> np.ndarray:
        """Distance from the median, linear near it and logarithmic far from it."""
        with np.errstate(over="ignore"):
            return np.arcsinh(np.clip((values - self.centre) / self.tail, -1e300, 1e300))

    def fill(self, values: np.ndarray, out: np.ndarray) -> None:
        """Write the features of numbers without NaN."""
        out[:, 0] = (self.robust(values) - self.mean) / self.sd
        if self.tail:
            out[:, 1] = (self.squashed(values) - self.tail_mean) / self.tail_sd

    def rules(self, name: str) -> list[tuple[str, str]]:
        """Name and rule in words of each feature."""
        words = (
            f"(x - {self.centre:.6g}) / {self.spread:.6g}, cut at -10 and 10, "
            f"then minus {self.mean:.6g}, over {self.sd:.6g}"
        )
        out = [(name, words)]
        if self.tail:
            words = (
                f"asinh((x - {self.centre:.6g}) / {self.tail:.6g}) for the heavy tail, "
                f"then minus {self.tail_mean:.6g}, over {self.tail_sd:.6g}"
            )
            out.append((f"{name} (asinh)", words))
        return out


@dataclasses.dataclass(frozen=True)
class Indicator:
    """The factor of a feature that is 0 or 1."""

    factor: float

    @classmethod
    def fit(cls, count: int, n: int) -> Indicator | None:
        """Fit to how many of the pooled rows are 1; None if all or none are."""
        if not 0 < count < n:
            return None
        share = count / n
        return cls(1.0 / max((share * (1.0 - share)) ** 0.5, SMALLEST_SD))

    def rule(self, name: str) -> tuple[str, str]:
        """Name and rule in words of the feature."""
        return f"{name} (missing)", f"{self.factor:.6g} where the value is missing, else 0"


def part_or_none(kind: type, fields: Mapping[str, Any] | None) -> Any:
    """Rebuild a part of a rule from its fields."""
    return None if fields is None else kind(**fields)


def fields_or_none(part: Scale | Indicator | None) -> dict[str, float] | None:
    """Return the fields of a part of a rule."""
    return None if part is None else dataclasses.asdict(part)


def fill_scaled(
    numbers: np.ndarray, scale: Scale | None, missing: Indicator | None, out: np.ndarray
) -> None:
    """Write scaled numbers, the missing ones at their middle, and the indicator of these."""
    absent = np.isnan(numbers)
    width = 0
    if scale is not None:
        width = scale.width
        filled = np.where(absent, scale.centre, numbers) if absent.any() else numbers
        scale.fill(filled, out[:, :width])
    if missing is not None:
        out[:, width] = missing.factor * absent


def infinite_message(where: str, count: int, n: int, first: int, first_row: int = 0) -> str:
    """Say how many values of a column are infinite and what to do."""
    block = f" in the rows from {first_row:,}" if first_row else ""
    verb = "is" if count == 1 else "are"
    return (
        f"{where}: {count} of {n} values{block} {verb} infinite (first at row {first}); "
        "drop them or pass infinite='missing'"
    )


def finite_numbers(values: pa.Array, where: str, infinite: str) -> np.ndarray:
    """Numbers with NaN where missing, infinities refused or made missing."""
    numbers = _values.numbers(values, where)
    wrong = np.isinf(numbers)
    if not wrong.any():
        return numbers
    if infinite == "missing":
        return np.where(wrong, np.nan, numbers)
    count, first = int(wrong.sum()), int(np.argmax(wrong))
    raise DataError(infinite_message(where, count, numbers.size, first))
