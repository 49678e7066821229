"""Values of labelled rows: how much each row of a pool helps a nearest-neighbour model of p.

The columns that pool and target share become features by the recipe of `dpdq.data.Features`; the
label is no feature. Rows are in memory: 8 bytes a feature and a row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from dpdq.data.features import Features
from dpdq.data.schema import infer_columns
from dpdq.data.sources import Source, reading
from dpdq.errors import DataError
from dpdq.select._base import Price
from dpdq.select.knn_shapley import KNNShapley

__all__ = ["value_rows"]


def value_rows(
    pool: Source,
    target: Any,
    label: str,
    *,
    columns: Sequence[str] | None = None,
    n_neighbors: int = 5,
    on_price: Callable[[Price], None] | None = None,
) -> tuple[np.ndarray, Price]:
    """The k-NN Shapley value of every row of a pool for predicting the target's labels.

    Parameters
    ----------
    pool
        q, with the label.
    target
        p, with the label: whatever `dpdq.data.open_source` reads.
    label
        Column to predict; a number or a class.
    columns
        Features; default all columns that both sides have.
    n_neighbors
        k.
    on_price
        Called with the price before the work starts.

    Returns
    -------
    tuple
        Values, shape (n_pool,), and what they were expected to cost.

    Raises
    ------
    DataError
        The label or a column is absent, or a label is missing.
    """
    with reading(target, side="p") as side:
        for source in (pool, side):
            if label not in source.schema.names:
                raise DataError(f"{source.label} has no column {label!r} to predict")
        both = [name for name in pool.schema.names if name in side.schema.names]
        names = [name for name in columns or both if name != label]
        for name in names:
            if name not in both:
                raise DataError(f"column {name!r} is not in both pool and target")
        if not names:
            raise DataError(f"pool and target share no column beside {label!r}")
        wanted = [*names, label]
        tables = [
            pa.Table.from_batches(
                list(each.batches(wanted)),
                schema=pa.schema([each.schema.field(name) for name in wanted]),
            )
            for each in (pool, side)
        ]
        y_q, y_p = (_labels(t, label, s) for t, s in zip(tables, (pool, side), strict=True))
    kinds = infer_columns(tables[0].select(names), tables[1].select(names), types=None)
    recipe = Features().fit(tables[0], tables[1], kinds)
    x_q, x_p = recipe.dense(tables[0]), recipe.dense(tables[1])
    number = np.issubdtype(y_q.dtype, np.floating) and len(np.unique(y_q)) > 20
    task = "regression" if number else "classification"
    model = KNNShapley(n_neighbors, task=task).fit(x_q, y_q)
    price = model.price(x_p, y_p)
    if on_price is not None:
        on_price(price)
    return model.values(x_p, y_p).values, price


def _labels(table: pa.Table, name: str, source: Source) -> np.ndarray:
    column = table.column(name)
    if column.null_count:
        raise DataError(
            f"{source.label}: {column.null_count:,} labels {name!r} are missing; drop these rows"
        )
    kind = column.type
    if pa.types.is_floating(kind):
        return column.to_numpy()
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return column.cast(pa.int64()).to_numpy()
    return np.array(column.cast(pa.large_string()).to_pylist(), dtype=str)
