"""Shards: processes that somebody else started, each with a rank, sharing a folder.

A rank does the tasks whose number leaves its rank on division by the world size, then looks for
tasks that nobody works on: those of ranks that were never started, or that died. Every rank goes
on until all parts are there and returns the whole answer, so a job of several passes needs no
barrier, no messages and no scheduler of ours; ranks may run side by side or one after another.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

from dpdq.engine.plan import Plan, work

if TYPE_CHECKING:
    from dpdq.data.sources import Source
    from dpdq.engine.part_folder import PartFolder
    from dpdq.passes import Pass

__all__ = ["sharded"]

_PAUSE = 0.1


def sharded(
    pass_: Pass[Any, Any],
    source: Source,
    plan: Plan,
    parts: PartFolder,
    progress: Callable[[int], None] | None,
    rank: int,
    world_size: int,
) -> Generator[list[Any]]:
    """Yield the states of all tasks in order, after doing what others do not."""
    tasks = range(len(plan.tasks))
    own_first = sorted(tasks, key=lambda task: ((task - rank) % world_size, task))
    while missing := [task for task in own_first if not parts.done(task)]:
        if progress is not None:
            progress(plan.n_rows - sum(plan.rows(task) for task in missing))
        for task in missing:
            if parts.done(task) or not parts.claim(task):
                continue
            states = work(pass_, source, plan, task, lambda _rows, task=task: parts.beat(task))
            parts.save(task, states)
            break
        else:
            time.sleep(_PAUSE)
    if progress is not None:
        progress(plan.n_rows)
    for task in tasks:
        yield parts.load(task)
