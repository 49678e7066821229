"""How rows come in: arrays of one width, sparse matrices, or tables of mixed columns.

An array is taken as it is. A table (pandas, Polars, Arrow, a dict of columns, a list of dicts)
goes through the one feature recipe, fitted on the pooled rows of q and p, in the view that the
estimator names: ``"dense"`` features for linear models and kernels, ``"codes"`` for trees. A
sparse matrix stays sparse for estimators that take it, and becomes dense for the others where it
is small. `RowReader` remembers which of these the fit has seen and reads later rows alike.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from dpdq.errors import DataError, InputTypeError, OptionError
from dpdq.ratio._common import Array, as_rows

if TYPE_CHECKING:
    import pyarrow as pa

    from dpdq.data.features import Features

__all__ = ["RowReader", "is_table"]


def is_table(x: object) -> bool:
    """Whether rows come with named columns; told without importing a frame library."""
    if isinstance(x, (np.ndarray, str, bytes)):
        return False
    if isinstance(x, Mapping):
        return True
    if isinstance(x, (list, tuple)):
        return len(x) > 0 and all(isinstance(row, Mapping) for row in x)
    arrow, sources = sys.modules.get("pyarrow"), sys.modules.get("dpdq.data.sources")
    if arrow is not None and isinstance(x, (arrow.Table, arrow.RecordBatch)):
        return True
    if sources is not None and isinstance(x, sources.Source):
        return True
    if type(x).__module__.partition(".")[0] in ("scipy", "torch"):
        return False
    import narwhals as nw

    return bool(nw.dependencies.is_into_dataframe(x)) or type(x).__name__ == "LazyFrame"


class RowReader:
    """What the fit has seen: an array's width, or a table's columns and the recipe for them.

    Parameters
    ----------
    width
        Columns of the array or of the table.
    features
        The fitted recipe; None for arrays.
    families
        Column -> the families of types that the fit has seen in it.

    Attributes
    ----------
    names
        The table's columns; None for arrays.
    """

    def __init__(
        self, width: int, features: Features | None, families: Mapping[str, frozenset[str]]
    ) -> None:
        self.width = width
        self.features = features
        self.families = dict(families)
        self.names = None if features is None else list(self.families)

    @classmethod
    def fit(
        cls, q: object, p: object, types: Mapping[str, str] | None, infinite: str
    ) -> tuple[RowReader, Any, Any]:
        """Look at both sides; returns the reader, and the sides as it wants them in `rows`."""
        if infinite not in ("refuse", "missing"):
            raise OptionError(f"Unknown infinite {infinite!r}. Choose one of 'refuse', 'missing'.")
        tables = is_table(q), is_table(p)
        if not any(tables):
            if types or infinite != "refuse":
                raise OptionError(
                    "types and infinite are for tables; q and p are arrays, whose columns are "
                    "all numbers"
                )
            return cls(0, None, {}), q, p
        if not all(tables):
            table, array = ("q", "p") if tables[0] else ("p", "q")
            raise InputTypeError(
                f"{table} is a table and {array} is an array; give both as tables with the same "
                "columns, or both as arrays"
            )
        return cls._fit_tables(_opened(q, "q"), _opened(p, "p"), types, infinite)

    @classmethod
    def _fit_tables(
        cls, q: pa.Table, p: pa.Table, types: Mapping[str, str] | None, infinite: str
    ) -> tuple[RowReader, pa.Table, pa.Table]:
        from dpdq.data.features import Features
        from dpdq.data.schema import ignored_columns, infer_columns, schema_difference, type_family

        difference = schema_difference(q.schema, p.schema)
        for side, other in (("q", "p"), ("p", "q")):
            alone = difference[f"only_{side}"]
            if alone:
                raise DataError(
                    f"{side} has columns that {other} has not ({_listed(alone)}); "
                    "leave them out, for example a label, or add them to both sides"
                )
        columns = infer_columns(q, p, types=types)
        found = {column.name for column in columns}
        if len(found) < len(q.schema):
            left_out = ignored_columns(q, p, types=types)
            name, reason = left_out[0]["name"], left_out[0]["reason"]
            raise DataError(
                f"column {name!r} makes no feature: {reason}; leave it out, or convert it"
            )
        families = {
            column.name: frozenset(
                str(type_family(side.schema.field(column.name).type)) for side in (q, p)
            )
            for column in columns
        }
        features = Features(infinite=infinite).fit(q, p, columns)
        return cls(len(columns), features, families), q, p

    def rows(
        self,
        x: Any,
        side: str,
        *,
        view: str,
        missing: bool,
        sparse: bool,
        width: int | None = None,
    ) -> Array:
        """Rows as checked numbers, in a view; ``width`` is what an array must have."""
        if self.features is None:
            if is_table(x):
                raise InputTypeError(
                    f"{side} is a table, and the fit has seen arrays; give an array of the same "
                    "columns, or fit on tables"
                )
            return as_rows(x, side, width=width, missing=missing, sparse=sparse)
        table = self._checked(x, side)
        rows = self.features.codes(table) if view == "codes" else self.features.dense(table)
        if rows.shape[1] == 0:
            raise DataError("every column of q and p is constant, so that nothing can differ")
        if np.isnan(rows).any() and not missing:
            raise DataError(f"{side} has missing values, which this estimator does not take")
        return rows

    def _checked(self, x: Any, side: str) -> pa.Table:
        """The table, with the columns of the fit and types of the same families."""
        from dpdq.data.schema import type_family

        assert self.features is not None
        if not is_table(x):
            raise InputTypeError(
                f"{side} has type {type(x).__name__}, and the fit has seen tables; give a table "
                f"with the columns {_listed(list(self.families))}"
            )
        table = _opened(x, side)
        absent = [name for name in self.families if name not in table.schema.names]
        if absent:
            raise DataError(f"{side} lacks columns that the fit has seen: {_listed(absent)}")
        extra = [name for name in table.schema.names if name not in self.families]
        if extra:
            raise DataError(
                f"{side} has columns that the fit has not seen: {_listed(extra)}; leave them out"
            )
        for column in self.features.columns:
            kind = table.schema.field(column.name).type
            family, seen = str(type_family(kind)), self.families[column.name]
            # Numbers, dates and truth values are judged by their values; anything has a label.
            free = column.kind not in ("categorical", "text") or family == "null"
            if not (free or family in seen or seen == {"null"}):
                raise DataError(
                    f"column {column.name!r} of {side} is {family} ({kind}); it was "
                    f"{' and '.join(sorted(seen))} in the fit, and its levels would all look new"
                )
        return table


def _opened(x: Any, side: str) -> pa.Table:
    import pyarrow as pa

    from dpdq.data.frames import frame_source
    from dpdq.data.sources import Source

    source = x if isinstance(x, Source) else frame_source(x, side)
    return pa.Table.from_batches(list(source.batches()), schema=source.schema)


def _listed(names: list[str]) -> str:
    text = ", ".join(map(repr, names[:8]))
    return text if len(names) <= 8 else f"{text} and {len(names) - 8} more"
