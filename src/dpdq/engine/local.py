"""The engine in process: blocks in row order, one at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from dpdq.errors import OptionError

if TYPE_CHECKING:
    from typing import Any

    from dpdq.data.sources import Source
    from dpdq.passes import Pass

__all__ = ["ENGINES", "run"]

ENGINES = ("local",)

Answer = TypeVar("Answer")


def run(
    pass_: Pass[Any, Answer],
    source: Source,
    *,
    engine: str = "local",
    progress: Callable[[int], None] | None = None,
) -> Answer:
    """Run a pass over all rows of a source.

        answer = finish(map(... map(init(), batch_0) ..., batch_k))

    Notes
    -----
    Cost: one read of the pass's columns; memory of one block and the state.

    Parameters
    ----------
    pass_
        What to compute.
    source
        The rows, from `dpdq.data.open_source`.
    engine
        Where to run: ``"local"``, in this process.
    progress
        Called with the number of rows done after each block.

    Returns
    -------
    object
        What the pass's ``finish`` returns.

    Raises
    ------
    OptionError
        If the engine is unknown.

    Examples
    --------
    >>> import numpy as np
    >>> from dpdq.data import open_source
    >>> from dpdq.engine import run
    >>> from dpdq.passes import Pass
    >>> class CountRows(Pass[int, int]):
    ...     def init(self): return 0
    ...     def map(self, state, batch, first_row): return state + batch.num_rows
    ...     def merge(self, left, right): return left + right
    ...     def finish(self, state): return state
    >>> run(CountRows(), open_source(np.zeros((70_000, 2)), side="q"))
    70000
    """
    if engine not in ENGINES:
        known = ", ".join(repr(name) for name in ENGINES)
        raise OptionError(f"Unknown engine {engine!r}. Choose one of {known}.")
    state = pass_.init()
    row = 0
    for batch in source.batches(pass_.columns):
        state = pass_.map(state, batch, row)
        row += batch.num_rows
        if progress is not None:
            progress(row)
    return pass_.finish(state)
