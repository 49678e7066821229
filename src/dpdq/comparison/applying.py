"""Weights as a file: of the rows of a fit, and of rows never seen.

    row, id, log_ratio, weight      weight = b exp(log_ratio) / mean over the rows that have weight

Everything is read and written in blocks of 65,536 rows, twice to find the scale and once to write,
so that memory is bounded by the block.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from dpdq.data import open_source
from dpdq.data.writing import write_table_batches
from dpdq.errors import DataError
from dpdq.results import Result

if TYPE_CHECKING:
    import pyarrow as pa

    from dpdq.data import Source
    from dpdq.engine import Engine

__all__ = ["WrittenWeights", "apply_weights", "write_weights"]


@dataclasses.dataclass(frozen=True, repr=False)
class WrittenWeights(Result):
    """What was written.

    Attributes
    ----------
    n_rows, n_zero
        Rows, and those without weight.
    effective_sample_size
        Of the weights.
    largest
        Largest weight; the mean over the rows that have weight is one.
    mean_ratio
        Mean of dP/dQ over the rows (under their design weights): 1 if they are drawn from q.
    status
        What that means.
    """

    n_rows: int
    n_zero: int
    effective_sample_size: float
    largest: float
    mean_ratio: float
    status: str = ""


def write_weights(
    path: str | os.PathLike[str],
    blocks: Callable[[], Iterator[np.ndarray]],
    source: Source,
    *,
    id: str | None = None,
    weights: str | None = None,
) -> WrittenWeights:
    """Write log ratios and weights of all rows of a source, whole or not at all.

    Parameters
    ----------
    path
        The Parquet file.
    blocks
        Gives the log ratios anew each time it is called, 65,536 rows at a time; NaN where a row has
        design weight zero.
    source
        The rows, for the columns below.
    id
        Column that is copied.
    weights
        Column of design weights.

    Returns
    -------
    WrittenWeights
        Size and use of the weights.

    Raises
    ------
    DataError
        Design weights that are none, or no row with weight.
    FileError
        The file cannot be written.
    """
    import pyarrow as pa

    def totals() -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        designs = _designs(source, weights)
        for log_ratio in blocks():
            design = np.ones(len(log_ratio)) if designs is None else next(designs)
            with np.errstate(divide="ignore", invalid="ignore"):
                total = np.where(design > 0, log_ratio + np.log(design), -np.inf)
            yield log_ratio, design, total

    rows, kept, top, mass = 0, 0, -math.inf, 0.0
    for _, design, total in totals():
        rows += len(total)
        kept += int(np.count_nonzero(total > -np.inf))
        top = max(top, float(total.max(initial=-np.inf)))
        mass += float(design.sum())
    if not kept:
        raise DataError(f"none of the {rows:,} rows has weight: p has no rows like these")
    first = second = 0.0
    for _, _, total in totals():
        share = np.exp(total - top)
        first += float(share.sum())
        second += float(np.square(share).sum())
    fields = [pa.field("row", pa.int64())]
    if id is not None:
        fields.append(source.schema.field(id))
    fields += [pa.field("log_ratio", pa.float64()), pa.field("weight", pa.float64())]
    schema, scale = pa.schema(fields), kept / first

    def batches() -> Iterator[pa.RecordBatch]:
        keys = None if id is None else source.batches([id])
        start = 0
        for log_ratio, _, total in totals():
            arrays: list[pa.Array] = [pa.array(np.arange(start, start + len(total)))]
            if keys is not None:
                arrays.append(next(keys).column(0))
            arrays.append(pa.array(log_ratio, from_pandas=True))
            arrays.append(pa.array(np.exp(total - top) * scale))
            start += len(total)
            yield pa.RecordBatch.from_arrays(arrays, schema=schema)

    write_table_batches(path, schema, batches())
    size = first**2 / second
    return WrittenWeights(
        n_rows=rows,
        n_zero=rows - kept,
        effective_sample_size=size,
        largest=scale,
        mean_ratio=first * math.exp(min(top, 700.0)) / mass,
        status=f"{rows:,} rows are worth {size:,.0f}",
    )


def _designs(source: Source, name: str | None) -> Iterator[np.ndarray] | None:
    """Design weights in blocks."""
    if name is None:
        return None

    def blocks() -> Iterator[np.ndarray]:
        first = 0
        for batch in source.batches([name]):
            values = design_values(batch.column(0), f"{source.label}: column {name!r}", first)
            first += len(values)
            yield values

    return blocks()


def design_values(column: Any, where: str, first_row: int = 0) -> np.ndarray:
    """Design weights from a column: numbers, 0 or more, none missing."""
    import pyarrow as pa

    try:
        values = column.cast("float64").to_numpy(zero_copy_only=False)
    except pa.ArrowException:
        raise DataError(f"{where} has type {column.type}; weights must be numbers") from None
    wrong = ~(np.isfinite(values) & (values >= 0))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise DataError(
            f"{where}: {int(wrong.sum())} weights are missing, negative or infinite (first at row "
            f"{first_row + row}: {values[row]}); expected 0 or more"
        )
    return values


def apply_weights(
    model: str | os.PathLike[str],
    new: Any,
    path: str | os.PathLike[str],
    *,
    id: str | None = None,
    weights: str | None = None,
    engine: Engine | None = None,
    progress: bool = False,
) -> WrittenWeights:
    """Weight rows never seen with a saved weighter.

    Parameters
    ----------
    model
        File that ``dpdq reweight --save-model`` or `dpdq.reweight.save` wrote.
    new
        Rows drawn as those of q were: what `dpdq.data.open_source` takes.
    path
        The Parquet file to write, whole or not at all.
    id
        Column that is copied.
    weights
        Column of design weights.
    engine
        Where rows are scored; default in this process. The bits are the same on all of them.
    progress
        Draw how far the work is when standard error is a terminal.

    Returns
    -------
    WrittenWeights
        Size and use of the weights, and how near to one the mean ratio is.

    Raises
    ------
    DataError
        An absent column, or values that the fit has not seen; nothing is written.
    FileError
        A file that cannot be read or written.

    Notes
    -----
    Cost: O(n k) time; memory of a block and of the parts under way, 8 bytes of disk a row.
    Held by: tests/test_cli_reweight.py::test_apply_gives_the_same_bits_on_all_engines
    """
    from dpdq.comparison.progress import Steps
    from dpdq.engine import Engine
    from dpdq.reweight.saved import load
    from dpdq.reweight.scoring import ScoreRows

    engine = Engine() if engine is None else engine
    engine.check()
    weighter = load(model)
    with open_source(new, side="q") as source, Steps(show=progress) as steps:
        for name in (id, weights):
            if name is not None and name not in source.schema.names:
                shown = ", ".join(map(repr, source.schema.names[:20]))
                raise DataError(f"{source.label} has no column {name!r}; it has {shown}")
        scoring = ScoreRows(weighter, source.schema.names)
        with steps.step("score", source.n_rows) as advance:
            ratios = engine.run(scoring, source, progress=advance)
        try:
            with steps.step("write"):
                found = write_weights(path, ratios.blocks, source, id=id, weights=weights)
        finally:
            ratios.close()
    far = not 0.5 <= found.mean_ratio <= 2
    note = (
        f"; the mean of dP/dQ over them is {found.mean_ratio:.3g} where rows of q have 1: they are "
        "not like the q of the fit, so fit again"
        if far
        else ""
    )
    return dataclasses.replace(found, status=found.status + note)
