"""How the rows of a source are divided, and what one worker does.

    block   65,536 rows                what a pass's ``map`` sees
    part    at most 128 a source       consecutive blocks, folded into one state from ``init``
    task    one or more parts          what a worker takes; spans at least one stored piece

Blocks and parts depend on the number of rows alone. Every engine folds a part's blocks in row
order and then merges the parts' states in row order, so that all of them compute the same tree of
floating-point sums. Only the cut into tasks looks at how the rows are stored: a task that began in
the middle of a row group would have to decode the group's earlier rows in vain.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from dpdq.errors import DataError
from dpdq.passes import BLOCK_ROWS

if TYPE_CHECKING:
    import pyarrow as pa

    from dpdq.data.sources import Source
    from dpdq.passes import Pass

__all__ = ["MAX_PARTS", "Plan", "fold", "merge_states", "work"]

MAX_PARTS = 128

Answer = TypeVar("Answer")


@dataclasses.dataclass(frozen=True)
class Plan:
    """The parts and tasks of a source.

    Attributes
    ----------
    n_rows
        Rows in all.
    part_blocks
        Blocks a part; the last one may have fewer.
    tasks
        First part and the part after the last, of each task.
    """

    n_rows: int
    part_blocks: int
    tasks: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, source: Source) -> Plan:
        """The plan of a source."""
        n_blocks = -(-source.n_rows // BLOCK_ROWS)
        part_blocks = max(1, -(-n_blocks // MAX_PARTS))
        part_rows = part_blocks * BLOCK_ROWS
        n_parts = -(-source.n_rows // part_rows)
        span = max(1, -(-source.largest_piece // part_rows))
        starts = range(0, n_parts, span)
        tasks = tuple((first, min(first + span, n_parts)) for first in starts)
        return cls(source.n_rows, part_blocks, tasks)

    def blocks(self, task: int) -> tuple[int, int]:
        """First block of a task and the block after its last."""
        first, last = self.tasks[task]
        return first * self.part_blocks, last * self.part_blocks

    def rows(self, task: int) -> int:
        """Number of rows of a task."""
        first, last = self.blocks(task)
        return min(last * BLOCK_ROWS, self.n_rows) - first * BLOCK_ROWS


def work(
    pass_: Pass[Any, Any],
    source: Source,
    plan: Plan,
    task: int,
    beat: Callable[[int], None] | None = None,
) -> list[Any]:
    """The states of a task's parts; ``beat`` hears the rows of each block."""
    first, last = plan.blocks(task)
    return fold(pass_, source.blocks(first, last, pass_.columns), plan, task, beat)


def fold(
    pass_: Pass[Any, Any],
    batches: Iterable[pa.RecordBatch],
    plan: Plan,
    task: int,
    beat: Callable[[int], None] | None = None,
) -> list[Any]:
    """The states of a task's parts, from the task's blocks.

    Raises
    ------
    DataError
        If the blocks end too early.
    """
    states: list[Any] = []
    first = plan.blocks(task)[0] * BLOCK_ROWS
    row = first
    for index, batch in enumerate(batches):
        if index % plan.part_blocks == 0:
            states.append(pass_.init())
        states[-1] = pass_.map(states[-1], batch, row)
        row += batch.num_rows
        if beat is not None:
            beat(batch.num_rows)
    if row - first != plan.rows(task):
        raise DataError(
            f"the rows ended at row {row:,} of {plan.n_rows:,}: they changed while they were read"
        )
    return states


def merge_states(pass_: Pass[Any, Answer], tasks: Iterable[Sequence[Any]]) -> Answer:
    """Merge the parts' states in row order and finish."""
    whole: Any = None
    nothing = True
    for states in tasks:
        for state in states:
            whole = state if nothing else pass_.merge(whole, state)
            nothing = False
    return pass_.finish(pass_.init() if nothing else whole)
