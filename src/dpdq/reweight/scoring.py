"""Rows never seen weighted by a saved weighter, block by block, wherever the engine runs them.

    with open_source("new.parquet", side="q") as source:
        ratios = run(ScoreRows(load("model.dpdq"), source.schema.names), source)

A block's log ratios are computed from the block alone, so that the bits are the same on every
engine; joined in row order they leave memory for a temporary file.
"""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from dpdq._threads import one_thread_each
from dpdq.data.writing import reason_of
from dpdq.errors import DataError, FileError
from dpdq.passes import BLOCK_ROWS, Pass
from dpdq.reweight._common import Array
from dpdq.reweight.saved import SavedWeighter

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["ScoreRows", "SpooledRatios"]


class SpooledRatios:
    """Log ratios of many rows on disk, in row order, read back in blocks.

    Attributes
    ----------
    n_rows
        Rows so far.
    close
        Call it to give the disk back; the end of the object does.

    Notes
    -----
    Cost: 8 bytes of disk a row; memory of one block.
    Held by: tests/reweight/test_scoring.py::test_scores_leave_memory
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="dpdq-")  # noqa: SIM115 - until close
        self.close = weakref.finalize(self, self._file.close)  # gives the disk back
        self.n_rows = 0

    def append(self, values: Array) -> None:
        """Add the log ratios of the next rows."""
        try:
            self._file.write(np.ascontiguousarray(values, dtype=np.float64).data)
        except OSError as error:
            raise FileError(f"cannot spool log ratios: {reason_of(error)}") from error
        self.n_rows += len(values)

    def blocks(self) -> Iterator[Array]:
        """Log ratios in row order, 65,536 at a time."""
        for start in range(0, self.n_rows, BLOCK_ROWS):
            count = min(BLOCK_ROWS, self.n_rows - start)
            self._file.seek(8 * start)
            yield np.frombuffer(self._file.read(8 * count), dtype=np.float64)
        self._file.seek(0, os.SEEK_END)


class ScoreRows(Pass["list[Array] | SpooledRatios", SpooledRatios]):
    """The pass that computes log dP/dQ of all rows of a source under a saved weighter.

    Blocks are scored where the engine runs them; joined in row order, they leave memory for a
    temporary file, so that memory is bounded by the parts under way.

    Parameters
    ----------
    weighter
        What `load` gave.
    known
        Names of the source's columns.

    Notes
    -----
    Cost: O(n k) time; memory of a block a worker and of the parts under way.
    Held by: tests/reweight/test_scoring.py::test_all_engines_give_the_same_bits
    """

    def __init__(self, weighter: SavedWeighter, known: list[str]) -> None:
        self.weighter = weighter
        self.columns = weighter.names_in(known)

    def fingerprint(self) -> Any:
        """The file that the weighter came from, and the columns."""
        return [self.weighter.digest, self.columns]

    def init(self) -> list[Array] | SpooledRatios:
        """No rows."""
        return []

    def map(
        self, state: list[Array] | SpooledRatios, batch: pa.RecordBatch, first_row: int
    ) -> list[Array] | SpooledRatios:
        """Score one more block."""
        assert isinstance(state, list)
        rows: Any = batch
        if self.weighter.columns is None:
            rows = np.column_stack(
                [np.asarray(column.to_numpy(zero_copy_only=False)) for column in batch.columns]
            )
        try:
            with one_thread_each():
                found = self.weighter.log_ratio(rows)
        except DataError as error:
            if not first_row:
                raise
            raise DataError(f"counting rows from row {first_row:,}: {error}") from error
        return [*state, found]

    def merge(
        self, left: list[Array] | SpooledRatios, right: list[Array] | SpooledRatios
    ) -> SpooledRatios:
        """Join adjacent rows, on disk."""
        spool = self.finish(left)
        for values in right if isinstance(right, list) else right.blocks():
            spool.append(values)
        return spool

    def finish(self, state: list[Array] | SpooledRatios) -> SpooledRatios:
        """All rows, on disk."""
        if isinstance(state, SpooledRatios):
            return state
        spool = SpooledRatios()
        for values in state:
            spool.append(values)
        return spool
