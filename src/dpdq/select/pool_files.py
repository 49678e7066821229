"""Pools as rows of files: one pass that scores, columns read whole, and the file that leaves."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from dpdq.data.sources import Source, reading
from dpdq.data.writing import write_table_batches
from dpdq.errors import DataError
from dpdq.passes import Pass
from dpdq.select._base import Utility
from dpdq.select._grams import gram_blocks
from dpdq.select.chosen import Selection
from dpdq.select.ngrams import joined_text

__all__ = ["FlatUtility", "ScoreTexts", "score_column", "source_labels", "write_selected"]


class ScoreTexts(Pass[list[np.ndarray], np.ndarray]):
    """Utility, tokens and bytes of every row: shape (n, 3)."""

    def __init__(self, utility: Utility, columns: list[str]) -> None:
        self.scorer, self.columns = utility, columns

    def fingerprint(self) -> Any:
        """What the utility says of three texts, which tells it from others."""
        probe = pa.array(["The quick brown fox", "return x + 1", "0"], pa.large_string())
        return [repr(self.scorer), self.columns, self.scorer.utility(probe)]

    def init(self) -> list[np.ndarray]:
        """No rows."""
        return []

    def map(
        self, state: list[np.ndarray], batch: pa.RecordBatch, first_row: int
    ) -> list[np.ndarray]:
        """Score one block."""
        texts = joined_text(batch, self.columns or [])
        blocks = [(np.diff(grams.starts), grams.sizes) for grams in gram_blocks(texts, 1, 8)]
        tokens, sizes = (np.concatenate(each) for each in zip(*blocks, strict=True))
        state.append(np.column_stack([self.scorer.utility(texts), tokens, sizes]))
        return state

    def merge(self, left: list[np.ndarray], right: list[np.ndarray]) -> list[np.ndarray]:
        """One after the other."""
        return left + right

    def finish(self, state: list[np.ndarray]) -> np.ndarray:
        """All rows."""
        return np.concatenate(state) if state else np.zeros((0, 3))


class FlatUtility(Utility):
    """Every text alike."""

    def utility(self, pool: Any) -> np.ndarray:
        """Zero for every text."""
        return np.zeros(len(pool))


def score_column(source: Source, name: str) -> np.ndarray:
    """A column of numbers as utilities.

    Raises
    ------
    DataError
        The column is absent, no number, or has missing values.
    """
    if name not in source.schema.names:
        raise DataError(f"{source.label} has no column {name!r} to score by")
    column = source.column(name)
    kind = column.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        raise DataError(f"{source.label}: column {name!r} is {kind}; a score is a number")
    values = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
    if column.null_count or np.isnan(values).any():
        bad = np.isnan(values)
        raise DataError(
            f"{source.label}, column {name!r}: {int(bad.sum())} scores are missing (first at row "
            f"{int(bad.argmax())}); fill them, or drop these rows"
        )
    return values


def source_labels(source: Source, name: str) -> np.ndarray:
    """A column as text, one label a row; missing values are a label of their own."""
    column = source.column(name)
    values = column.cast(pa.large_string()).fill_null("(missing)").dictionary_encode()
    values = values.unify_dictionaries().combine_chunks()
    if isinstance(values, pa.ChunkedArray):
        values = values.chunk(0)
    names = np.array(values.dictionary.to_pylist(), dtype=object)
    return names[np.asarray(values.indices)]


def write_selected(pool: Any, selection: Selection, path: str | os.PathLike[str]) -> int:
    """Write the kept rows with all their columns, their number and their utility.

    Parameters
    ----------
    pool
        The pool that was selected from.
    selection
        Which rows.
    path
        A Parquet file, which appears whole or not at all.

    Returns
    -------
    int
        Rows written.

    Raises
    ------
    DataError
        The pool has another number of rows than the selection.
    FileError
        The file cannot be written.

    Notes
    -----
    Cost: one read of the pool, memory of one block.
    """
    with reading(pool, side="q") as source:
        if source.n_rows != selection.n_pool:
            raise DataError(
                f"{source.label} has {source.n_rows:,} rows and the selection is of "
                f"{selection.n_pool:,}"
            )
        taken = set(source.schema.names)
        extra = [name if name not in taken else f"dpdq_{name}" for name in ("row", "utility")]
        schema = source.schema.append(pa.field(extra[0], pa.int64()))
        schema = schema.append(pa.field(extra[1], pa.float64()))
        mask = selection.mask

        def batches() -> Iterator[pa.RecordBatch]:
            row = 0
            for batch in source.batches():
                kept = mask[row : row + batch.num_rows]
                numbers = np.arange(row, row + batch.num_rows)[kept]
                row += batch.num_rows
                if kept.any():
                    some = batch.filter(pa.array(kept))
                    columns = [*some.columns, pa.array(numbers)]
                    columns.append(pa.array(selection.utility[numbers]))
                    yield pa.RecordBatch.from_arrays(columns, schema=schema)

        return write_table_batches(path, schema, batches())
