"""From levels without an order to features."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from dpdq.data import _values
from dpdq.data.feature_rules import SMALLEST_SD, ColumnRule
from dpdq.data.schema import Column

__all__ = ["CategoricalRule"]

DENSE_LEVELS = 32
CODE_LEVELS = 250
LEVEL_CHARACTERS = 1_000  # a longer text is never a level of its own


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
