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
    "BooleanRule",
    "CategoricalRule",
    "ColumnRule",
    "DatetimeRule",
    "EmbeddingRule",
    "Indicator",
    "NumericRule",
    "Scale",
]

CLIP = 10.0  # robust scales from the median
HEAVY_TAIL = 10.0  # kurtosis above which a column gets an asinh feature; an exponential has 9
DENSE_LEVELS = 32
CODE_LEVELS = 250
LEVEL_CHARACTERS = 1_000  # a longer text is never a level of its own
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


def _pooled(q: np.ndarray, p: np.ndarray) -> np.ndarray:
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


def _maybe(kind: type, fields: Mapping[str, Any] | None) -> Any:  # noqa: ANN401 - of that type
    return None if fields is None else kind(**fields)


def _fields(part: Scale | Indicator | None) -> dict[str, float] | None:
    return None if part is None else dataclasses.asdict(part)


@dataclasses.dataclass(frozen=True)
class NumericRule(ColumnRule):
    """Numbers: robustly standardised, tails cut, with an indicator of missing values.

        z = clip((x - median) / s, -10, 10),   feature = (z - mean z) / max(sd z, 1)

    s is the interquartile range over 1.349 (the standard deviation of a Gaussian), or the
    standard deviation where half of the values are equal. A column with kurtosis above 10 also
    gets asinh((x - median) / t), t the median of the distances that are not zero: an amount that
    is mostly zero and sometimes huge (a capital gain) would otherwise be all outliers. The first
    feature keeps means comparable, the second keeps the shape of the tail.
    """

    column: Column
    scale: Scale | None
    missing: Indicator | None
    infinite: str

    @classmethod
    def fit(cls, column: Column, q: pa.Array, p: pa.Array, infinite: str) -> NumericRule:
        """Fit to the pooled values."""
        sides = [
            finite_numbers(side, f"column {column.name!r} of {name}", infinite)
            for name, side in (("q", q), ("p", p))
        ]
        ordered = _pooled(sides[0], sides[1])
        n = sides[0].size + sides[1].size
        missing = Indicator.fit(n - ordered.size, n)
        return cls(column, Scale.fit(ordered), missing, infinite)

    @property
    def dense_rules(self) -> list[tuple[str, str]]:
        """Name and rule in words of each dense feature."""
        return (self.scale.rules(self.column.name) if self.scale else []) + (
            [self.missing.rule(self.column.name)] if self.missing else []
        )

    @property
    def codes_rules(self) -> list[tuple[str, str]]:
        """Name and rule in words of each feature for trees."""
        return [(self.column.name, "the number itself")]

    def fill_dense(self, values: pa.Array, out: np.ndarray, where: str) -> None:
        """Write the dense features."""
        numbers = finite_numbers(values, where, self.infinite)
        _fill_scaled(numbers, self.scale, self.missing, out)

    def fill_codes(self, values: pa.Array, out: np.ndarray, where: str) -> None:
        """Write the numbers."""
        out[:, 0] = finite_numbers(values, where, self.infinite)

    def to_dict(self) -> dict[str, Any]:
        """Return the fitted rule as JSON types."""
        return {
            "scale": _fields(self.scale),
            "missing": _fields(self.missing),
            "infinite": self.infinite,
        }

    @classmethod
    def from_dict(cls, column: Column, state: Mapping[str, Any]) -> NumericRule:
        """Rebuild the rule from `to_dict`."""
        return cls(
            column,
            _maybe(Scale, state["scale"]),
            _maybe(Indicator, state["missing"]),
            state["infinite"],
        )


def _fill_scaled(
    numbers: np.ndarray, scale: Scale | None, missing: Indicator | None, out: np.ndarray
) -> None:
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


@dataclasses.dataclass(frozen=True)
class BooleanRule(ColumnRule):
    """True and false: (b - share) / max(sd, 0.1), zero where missing, with an indicator."""

    column: Column
    share: float
    present: Indicator | None
    missing: Indicator | None

    @classmethod
    def fit(cls, column: Column, q: pa.Array, p: pa.Array) -> BooleanRule:
        """Fit to the pooled values."""
        values = np.concatenate(
            [
                _values.booleans(side, f"column {column.name!r} of {name}")
                for name, side in (("q", q), ("p", p))
            ]
        )
        absent = int(np.isnan(values).sum())
        true, n = int(np.nansum(values)), values.size - absent
        return cls(
            column,
            true / n if n else 0.0,
            Indicator.fit(true, n),
            Indicator.fit(absent, values.size),
        )

    @property
    def dense_rules(self) -> list[tuple[str, str]]:
        """Name and rule in words of each dense feature."""
        out = []
        if self.present:
            words = f"(true as 1, false as 0, minus {self.share:.6g}) * {self.present.factor:.6g}"
            out.append((self.column.name, words))
        if self.missing:
            out.append(self.missing.rule(self.column.name))
        return out

    @property
    def codes_rules(self) -> list[tuple[str, str]]:
        """Name and rule in words of each feature for trees."""
        return [(self.column.name, "true as 1, false as 0")]

    def fill_dense(self, values: pa.Array, out: np.ndarray, where: str) -> None:
        """Write the dense features."""
        flags = _values.booleans(values, where)
        absent = np.isnan(flags)
        width = 0
        if self.present:
            out[:, 0] = np.where(absent, 0.0, (flags - self.share) * self.present.factor)
            width = 1
        if self.missing:
            out[:, width] = self.missing.factor * absent

    def fill_codes(self, values: pa.Array, out: np.ndarray, where: str) -> None:
        """Write 0, 1 and NaN."""
        out[:, 0] = _values.booleans(values, where)

    def to_dict(self) -> dict[str, Any]:
        """Return the fitted rule as JSON types."""
        return {
            "share": self.share,
            "present": _fields(self.present),
            "missing": _fields(self.missing),
        }

    @classmethod
    def from_dict(cls, column: Column, state: Mapping[str, Any]) -> BooleanRule:
        """Rebuild the rule from `to_dict`."""
        return cls(
            column,
            state["share"],
            _maybe(Indicator, state["present"]),
            _maybe(Indicator, state["missing"]),
        )


@dataclasses.dataclass(frozen=True)
class CategoricalRule(ColumnRule):
    """Levels: indicators of the frequent ones for the dense view, ordinal codes for trees.

    Dense: an indicator for each of the 32 most frequent levels with at least max(5, n/2000) of
    the n pooled rows (n/20 in place of 5 below 100 rows), one for all other levels and one for
    missing values, all times one factor 1 / max(sqrt(1 - sum of squared shares), 0.1), which gives
    the block a total variance of one. Levels not met in the fit count as other; where there was
    no other level in the fit, their indicators are all zero.

    Codes: 0 for the most frequent level up to 249, the next number for all others, NaN for
    missing. Ties in frequency are broken by the level's text.
    """

    column: Column
    levels: tuple[str, ...]
    n_dense: int
    has_other: bool
    has_missing: bool
    factor: float

    @classmethod
    def fit(cls, column: Column, q: pa.Array, p: pa.Array) -> CategoricalRule:
        """Fit to the pooled counts of levels."""
        levels, counts, missing = _level_counts(column.name, q, p)
        n = len(q) + len(p)
        short = _values.pc.utf8_length(levels).to_numpy(zero_copy_only=False) <= LEVEL_CHARACTERS
        kept = np.flatnonzero(short)[:CODE_LEVELS]
        smallest = max(min(5.0, n / 20), n / 2000)
        n_dense = int(np.sum(counts[kept[:DENSE_LEVELS]] >= smallest))
        frequent = counts[kept[:n_dense]]
        other = int(counts.sum() - frequent.sum())
        parts = np.append(frequent, [other, missing]) / max(n, 1)
        varies = np.count_nonzero(parts) > 1
        gini = 1.0 - float(np.sum(parts**2))
        return cls(
            column,
            tuple(levels.take(pa.array(kept)).to_pylist()),
            n_dense if varies else 0,
            bool(varies and other > 0),
            bool(varies and missing > 0),
            1.0 / max(max(gini, 0.0) ** 0.5, SMALLEST_SD),
        )

    @property
    def dense_rules(self) -> list[tuple[str, str]]:
        """Name and rule in words of each dense feature."""
        name, value = self.column.name, f"{self.factor:.6g}"
        out = []
        for level in self.levels[: self.n_dense]:
            shown = level if len(level) <= 60 else level[:57] + "..."
            out.append((f"{name}={shown}", f"{value} where the level is {shown!r}, else 0"))
        if self.has_other:
            out.append((f"{name} (other)", f"{value} where the level is any other, else 0"))
        if self.has_missing:
            out.append((f"{name} (missing)", f"{value} where the value is missing, else 0"))
        return out

    @property
    def codes_rules(self) -> list[tuple[str, str]]:
        """Name and rule in words of each feature for trees."""
        words = f"0 to {len(self.levels) - 1} for levels by frequency, {len(self.levels)} for other"
        return [(self.column.name, words)]

    def fill_dense(self, values: pa.Array, out: np.ndarray, where: str) -> None:
        """Write the dense features."""
        codes, n_levels = self._codes(values, where), len(self.levels)
        place = np.full(n_levels + 2, -1)  # column of each code; the last is for missing
        place[: self.n_dense] = np.arange(self.n_dense)
        width = self.n_dense
        if self.has_other:
            place[self.n_dense : n_levels + 1] = width
            width += 1
        if self.has_missing:
            place[n_levels + 1] = width
        column = place[codes]
        rows = np.flatnonzero(column >= 0)
        out[rows, column[rows]] = self.factor

    def fill_codes(self, values: pa.Array, out: np.ndarray, where: str) -> None:
        """Write the codes."""
        codes = self._codes(values, where)
        out[:, 0] = np.where(codes == len(self.levels) + 1, np.nan, codes)

    def _codes(self, values: pa.Array, where: str) -> np.ndarray:
        """Code of each row: the level's rank, then other, then missing."""
        rows, texts = _values.labels(values, where)
        known = _values.pc.index_in(texts, value_set=pa.array(self.levels, pa.large_string()))
        known = _values.pc.fill_null(known, len(self.levels)).to_numpy(zero_copy_only=False)
        return np.append(known, len(self.levels) + 1)[rows]  # -1, missing, is the last

    def to_dict(self) -> dict[str, Any]:
        """Return the fitted rule as JSON types."""
        return {
            "levels": list(self.levels),
            "n_dense": self.n_dense,
            "has_other": self.has_other,
            "has_missing": self.has_missing,
            "factor": self.factor,
        }

    @classmethod
    def from_dict(cls, column: Column, state: Mapping[str, Any]) -> CategoricalRule:
        """Rebuild the rule from `to_dict`."""
        return cls(column, **{**state, "levels": tuple(state["levels"])})


def _level_counts(name: str, q: pa.Array, p: pa.Array) -> tuple[pa.Array, np.ndarray, int]:
    """Levels from the most frequent on, their pooled counts, and the number of missing values."""
    texts, counts, missing = [], [], 0
    for side, values in (("q", q), ("p", p)):
        codes, levels = _values.labels(values, f"column {name!r} of {side}")
        counts.append(np.bincount(codes[codes >= 0], minlength=len(levels)))
        texts.append(levels)
        missing += int(np.sum(codes < 0))
    pooled = pa.concat_arrays(texts).dictionary_encode()
    places = pooled.indices.drop_null().to_numpy(zero_copy_only=False)
    used = _values.pc.is_valid(pooled).to_numpy(zero_copy_only=False)
    levels = pooled.dictionary
    weights = np.concatenate(counts)[used].astype(np.float64)
    total = np.bincount(places, weights=weights, minlength=len(levels)).astype(np.int64)
    table = pa.table({"count": total, "level": levels})
    order = _values.pc.sort_indices(
        table, sort_keys=[("count", "descending"), ("level", "ascending")]
    )
    order = order.filter(_values.pc.greater(table["count"].take(order), 0))
    return levels.take(order), total[order.to_numpy()], missing


_PARTS = {"hour": 24.0, "weekday": 7.0, "month": 12.0}


@dataclasses.dataclass(frozen=True)
class DatetimeRule(ColumnRule):
    """Instants: seconds since 1970 as a number, and the parts of day, week and year that vary.

    Dense: the seconds as `NumericRule` does, and sine and cosine of 2 pi hour/24, weekday/7 and
    month/12, each where the rows of the fit hold more than one hour, weekday or month, together
    with a variance of about one. Codes: the seconds, the hour with its fraction, the weekday
    (Monday is 0) and the month (January is 0).
    All in UTC; a time without a zone is read as UTC.

    Misleads as any column that only grows: if p is later than q, it separates them alone. Name
    such a column as the time, and it is no feature.
    """

    column: Column
    scale: Scale | None
    missing: Indicator | None
    parts: tuple[str, ...]

    @classmethod
    def fit(cls, column: Column, q: pa.Array, p: pa.Array) -> DatetimeRule:
        """Fit to the pooled values."""
        sides = [
            _clock(side, f"column {column.name!r} of {name}") for name, side in (("q", q), ("p", p))
        ]
        ordered = _pooled(sides[0]["seconds"], sides[1]["seconds"])
        n = len(q) + len(p)
        parts = []
        for part in _PARTS:
            values = np.concatenate([side[part] for side in sides])
            values = values[~np.isnan(values)]
            if values.size and values.min() < values.max():
                parts.append(part)
        missing = Indicator.fit(n - ordered.size, n)
        return cls(column, Scale.fit(ordered), missing, tuple(parts))

    @property
    def dense_rules(self) -> list[tuple[str, str]]:
        """Name and rule in words of each dense feature."""
        name = self.column.name
        out = []
        if self.scale:
            out = [
                (feature, f"{rule}, x in seconds since 1970")
                for feature, rule in self.scale.rules(name)
            ]
        if self.missing:
            out.append(self.missing.rule(name))
        for part in self.parts:
            for wave in ("sin", "cos"):
                words = f"{wave}(2 pi {part} / {_PARTS[part]:g}) / sqrt({len(self.parts)})"
                out.append((f"{name} ({part}, {wave})", words))
        return out

    @property
    def codes_rules(self) -> list[tuple[str, str]]:
        """Name and rule in words of each feature for trees."""
        name = self.column.name
        return [(name, "seconds since 1970")] + [
            (f"{name} ({part})", f"the {part} in UTC") for part in self.parts
        ]

    def fill_dense(self, values: pa.Array, out: np.ndarray, where: str) -> None:
        """Write the dense features."""
        clock = _clock(values, where)
        _fill_scaled(clock["seconds"], self.scale, self.missing, out)
        place = (self.scale.width if self.scale else 0) + (1 if self.missing else 0)
        factor = 1.0 / max(len(self.parts), 1) ** 0.5
        for part in self.parts:
            angle = clock[part] * (2 * np.pi / _PARTS[part])
            out[:, place] = np.nan_to_num(np.sin(angle)) * factor
            out[:, place + 1] = np.nan_to_num(np.cos(angle)) * factor
            place += 2

    def fill_codes(self, values: pa.Array, out: np.ndarray, where: str) -> None:
        """Write the seconds and the parts."""
        clock = _clock(values, where)
        for place, part in enumerate(("seconds", *self.parts)):
            out[:, place] = clock[part]

    def to_dict(self) -> dict[str, Any]:
        """Return the fitted rule as JSON types."""
        return {
            "scale": _fields(self.scale),
            "missing": _fields(self.missing),
            "parts": list(self.parts),
        }

    @classmethod
    def from_dict(cls, column: Column, state: Mapping[str, Any]) -> DatetimeRule:
        """Rebuild the rule from `to_dict`."""
        return cls(
            column,
            _maybe(Scale, state["scale"]),
            _maybe(Indicator, state["missing"]),
            tuple(state["parts"]),
        )


def _clock(values: pa.Array, where: str) -> dict[str, np.ndarray]:
    """Seconds since 1970, hour, weekday and month, NaN where missing."""
    microseconds, nanoseconds, missing = _values.instants(values, where)
    days, within = np.divmod(microseconds, np.int64(86_400_000_000))
    months = days.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64)
    clock = {
        "seconds": microseconds / 1e6 + nanoseconds / 1e9,
        "hour": within / 3_600_000_000,
        "weekday": ((days + 3) % 7).astype(np.float64),
        "month": (months % 12).astype(np.float64),
    }
    if missing.any():
        for part in clock.values():
            part[missing] = np.nan
    return clock


@dataclasses.dataclass(frozen=True)
class EmbeddingRule(ColumnRule):
    """Vectors: the coordinates that vary, centred, all times one factor; total variance one.

    One factor keeps the geometry of the embedding. A coordinate that is NaN, and every coordinate
    of a missing vector, is set to the mean.
    """

    column: Column
    length: int
    kept: tuple[int, ...]
    means: tuple[float, ...]
    factor: float
    missing: Indicator | None
    infinite: str

    @classmethod
    def fit(cls, column: Column, q: pa.Array, p: pa.Array, infinite: str) -> EmbeddingRule:
        """Fit to the pooled vectors."""
        pair = [("q", q), ("p", p)]
        pair.sort(key=lambda item: item[1].null_count == len(item[1]))  # an empty side last
        sides: list[np.ndarray] = []
        for name, side in pair:
            length = sides[0].shape[1] if sides else None
            where = f"column {column.name!r} of {name}"
            sides.append(_finite_vectors(side, where, length, infinite))
        pooled = np.concatenate(sides)
        absent = np.isnan(pooled).all(axis=1)
        means, variances = np.zeros(pooled.shape[1]), np.zeros(pooled.shape[1])
        for j in range(pooled.shape[1]):
            ordered = np.sort(pooled[~np.isnan(pooled[:, j]), j])
            if ordered.size and ordered[0] < ordered[-1]:
                with np.errstate(over="ignore", invalid="ignore"):
                    means[j], variances[j] = ordered.mean(), ordered.var()
        kept = np.flatnonzero(variances > 0)
        total = float(variances[kept].sum())
        return cls(
            column,
            pooled.shape[1],
            tuple(kept.tolist()),
            tuple(means[kept].tolist()),
            1.0 / total**0.5 if 0.0 < total < np.inf else 1.0,
            Indicator.fit(int(absent.sum()), absent.size),
            infinite,
        )

    @property
    def dense_rules(self) -> list[tuple[str, str]]:
        """Name and rule in words of each dense feature."""
        out = [
            (f"{self.column.name}[{j}]", f"(coordinate {j} minus {mean:.6g}) * {self.factor:.6g}")
            for j, mean in zip(self.kept, self.means, strict=True)
        ]
        return out + ([self.missing.rule(self.column.name)] if self.missing else [])

    @property
    def codes_rules(self) -> list[tuple[str, str]]:
        """Name and rule in words of each feature for trees."""
        return [(f"{self.column.name}[{j}]", f"coordinate {j}") for j in self.kept]

    def fill_dense(self, values: pa.Array, out: np.ndarray, where: str) -> None:
        """Write the dense features."""
        vectors = _finite_vectors(values, where, self.length, self.infinite)
        width = len(self.kept)
        out[:, :width] = (vectors[:, list(self.kept)] - np.array(self.means)) * self.factor
        np.nan_to_num(out[:, :width], copy=False)
        if self.missing:
            out[:, width] = self.missing.factor * np.isnan(vectors).all(axis=1)

    def fill_codes(self, values: pa.Array, out: np.ndarray, where: str) -> None:
        """Write the coordinates."""
        vectors = _finite_vectors(values, where, self.length, self.infinite)
        out[:] = vectors[:, list(self.kept)]

    def to_dict(self) -> dict[str, Any]:
        """Return the fitted rule as JSON types."""
        return {
            "length": self.length,
            "kept": list(self.kept),
            "means": list(self.means),
            "factor": self.factor,
            "missing": _fields(self.missing),
            "infinite": self.infinite,
        }

    @classmethod
    def from_dict(cls, column: Column, state: Mapping[str, Any]) -> EmbeddingRule:
        """Rebuild the rule from `to_dict`."""
        fields = dict(state)
        fields["kept"], fields["means"] = tuple(state["kept"]), tuple(state["means"])
        fields["missing"] = _maybe(Indicator, state["missing"])
        return cls(column, **fields)


def _finite_vectors(values: pa.Array, where: str, length: int | None, infinite: str) -> np.ndarray:
    vectors = _values.vectors(values, where, length)
    wrong = np.isinf(vectors)
    if not wrong.any():
        return vectors
    if infinite == "missing":
        return np.where(wrong, np.nan, vectors)
    rows = wrong.any(axis=1)
    raise DataError(infinite_message(where, int(rows.sum()), rows.size, int(np.argmax(rows))))
