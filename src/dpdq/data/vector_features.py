"""From vectors of one length to features."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from dpdq.data import _values
from dpdq.data.feature_rules import (
    ColumnRule,
    Indicator,
    fields_or_none,
    infinite_message,
    part_or_none,
)
from dpdq.data.schema import Column
from dpdq.errors import DataError

__all__ = ["EmbeddingRule"]


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
            "missing": fields_or_none(self.missing),
            "infinite": self.infinite,
        }

    @classmethod
    def from_dict(cls, column: Column, state: Mapping[str, Any]) -> EmbeddingRule:
        """Rebuild the rule from `to_dict`."""
        fields = dict(state)
        fields["kept"], fields["means"] = tuple(state["kept"]), tuple(state["means"])
        fields["missing"] = part_or_none(Indicator, state["missing"])
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
