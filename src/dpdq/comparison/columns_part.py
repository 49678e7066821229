"""Columns one at a time: schema, missing values, tests, effects, histograms.

Each column is read alone and whole, so that its test is exact whatever the size of the table and
memory is bounded by two columns.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from dpdq.comparison.sides import Plan, Side
from dpdq.data import level_changes
from dpdq.distance import false_discovery_rate
from dpdq.distance.univariate import ColumnResult, compare_column

if TYPE_CHECKING:
    from dpdq.data import Column

__all__ = ["columns_part", "compare_columns", "schema_part"]

TWO_AT_ONCE = 4_000_000  # rows of both sides
_LISTED_LEVELS = 20
pc: Any = pyarrow.compute  # its functions are made at run time, unknown to type checkers


@dataclasses.dataclass(frozen=True)
class ColumnFound:
    """What was found in one column: the battery's result, and levels of one side only."""

    name: str
    result: ColumnResult
    levels: dict[str, dict[str, Any] | None] | None


def compare_columns(
    q: Side,
    p: Side,
    columns: list[Column],
    *,
    weights: np.ndarray | None,
    units: tuple[np.ndarray, np.ndarray] | None,
    infinite: str,
    seed: int,
    advance: Callable[[int], None] | None = None,
) -> list[ColumnFound]:
    """Compare every column on all rows.

    Parameters
    ----------
    q, p
        The sides.
    columns
        Columns with their kinds.
    weights
        Mean-one weights of the rows of q, for the reweighted histograms; or None.
    units
        Permutation units of both sides, or None.
    infinite
        ``"missing"`` turns infinite values into missing ones.
    seed
        Of the permutations.
    advance
        Called with the number of columns done.

    Returns
    -------
    list of ColumnFound
        In the order of ``columns``.
    """

    def one(column: Column) -> ColumnFound:
        have = _finite(q.source.column(column.name), infinite)
        want = _finite(p.source.column(column.name), infinite)
        result = compare_column(
            have,
            want,
            column.kind,
            name=column.name,
            weights_q=weights,
            units_q=None if units is None else units[0],
            units_p=None if units is None else units[1],
            seed=seed,
        )
        levels = None
        if column.kind in ("categorical", "boolean"):
            levels = level_changes(_counts(have), _counts(want), limit=_LISTED_LEVELS)
        return ColumnFound(column.name, result, levels)

    results: list[ColumnFound] = []
    # Two columns at once, since sorting releases the interpreter; one where memory is dearer.
    large = q.n_rows + p.n_rows > TWO_AT_ONCE
    with ThreadPoolExecutor(max_workers=1 if large else 2) as pool:
        for done, result in enumerate(pool.map(one, columns), start=1):
            results.append(result)
            if large:
                pa.default_memory_pool().release_unused()
            if advance is not None:
                advance(done)
    return results


def _finite(column: pa.ChunkedArray, infinite: str) -> pa.ChunkedArray:
    if infinite == "missing" and pa.types.is_floating(column.type):
        missing = pa.scalar(None, column.type)
        return pc.if_else(pc.is_inf(column), missing, column)
    return column


def _counts(column: pa.ChunkedArray) -> dict[str, int]:
    """Level -> rows, of the rows that are not missing."""
    counted = pc.value_counts(column)
    return {
        str(value): count
        for value, count in zip(
            counted.field("values").to_pylist(), counted.field("counts").to_pylist(), strict=True
        )
        if value is not None and value == value  # noqa: PLR0124 - NaN is missing
    }


def columns_part(found: list[ColumnFound], tolerance: float) -> list[dict[str, Any]]:
    """Rank the columns by effect and adjust their p-values for the number of columns.

    A column has shifted where its adjusted p-value is at most 0.05 and, if some PSI is tolerated,
    the lower end of its PSI lies above that.
    """
    rows = [item.result.to_dict() for item in found]
    adjusted = false_discovery_rate([row["pvalue"] for row in rows])
    for row, value in zip(rows, adjusted, strict=True):
        row["pvalue_adjusted"] = None if value is None or np.isnan(value) else float(value)
        low = row["effect"]["low"]
        row["shifted"] = bool(
            row["pvalue_adjusted"] is not None
            and row["pvalue_adjusted"] <= 0.05
            and (tolerance == 0 or (low is not None and low > tolerance))
        )

    def rank(row: dict[str, Any]) -> tuple[float, float]:
        effect = row["effect"]["estimate"]
        return (
            -(effect if effect is not None else -np.inf),
            row["pvalue_adjusted"] if row["pvalue_adjusted"] is not None else 2.0,
        )

    return sorted(rows, key=rank)


def schema_part(
    q: Side,
    p: Side,
    plan: Plan,
    columns: list[Column],
    found: list[ColumnFound],
    shared: dict[str, Any],
) -> dict[str, Any]:
    """Say how the two tables differ as tables."""
    new, vanished = [], []
    for item in found:
        for change, listed in (("new", new), ("vanished", vanished)):
            levels = item.levels[change] if item.levels is not None else None
            if levels is not None:
                listed.append({"name": item.name, **levels})
    missing = []
    for item in found:
        row = item.result.to_dict()
        if row["missing"]["q"] or row["missing"]["p"]:
            test = row["missing_test"]
            missing.append(
                {
                    "name": item.name,
                    "q": row["missing"]["q"],
                    "p": row["missing"]["p"],
                    "pvalue": test["pvalue"],
                    "difference": test["difference"],
                }
            )
    adjusted = false_discovery_rate([row["pvalue"] for row in missing])
    for row, value in zip(missing, adjusted, strict=True):
        row["pvalue_adjusted"] = None if value is None or np.isnan(value) else float(value)
    return {
        "columns": [dataclasses.asdict(column) for column in columns],
        "only_q": plan.only_q,
        "only_p": plan.only_p,
        "changed_types": [
            {"name": column.name, "type_q": column.type_q, "type_p": column.type_p}
            for column in columns
            if column.type_q != column.type_p
        ],
        "new_levels": new,
        "vanished_levels": vanished,
        "missingness": missing,
        "ignored": plan.ignored,
        "common_rows": shared,
    }
