"""Ray core tasks: one task of the plan each, retried by Ray where a worker or a node dies.

Files must be visible from every node under the same path. Rows in the memory or the temporary
folder of this machine travel with their tasks. Ray's usage reports and dashboard stay off in a
cluster that this call starts; one that runs already is used as it is.
"""

from __future__ import annotations

import itertools
import os
import pickle
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

from dpdq._optional import require
from dpdq._threads import one_thread_each, usable_cores
from dpdq.engine.plan import Plan, fold, work
from dpdq.engine.pool import pickled_job
from dpdq.errors import WorkerError

if TYPE_CHECKING:
    from dpdq.data.sources import Source
    from dpdq.engine.part_folder import PartFolder
    from dpdq.passes import Pass

__all__ = ["clustered"]

_RETRIES = 3


def _do(job: bytes, task: int, rows: Any) -> list[Any]:
    pass_, source, plan = pickle.loads(job)
    with one_thread_each():
        if rows is None:
            return work(pass_, source, plan, task)
        return fold(pass_, rows.to_batches(), plan, task)


def clustered(
    pass_: Pass[Any, Any],
    source: Source,
    plan: Plan,
    parts: PartFolder | None,
    progress: Callable[[int], None] | None,
    n_jobs: int | None,
) -> Generator[list[Any]]:
    """Yield the states of all tasks in order."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray = require("ray", "engine 'ray'")
    import pyarrow as pa

    by_path = source.reach == "files"
    packed = pickled_job(pass_, source if by_path else None, plan)
    ours = not ray.is_initialized()
    if ours:
        ray.init(
            num_cpus=n_jobs or usable_cores(),
            include_dashboard=False,
            log_to_driver=False,
            configure_logging=False,
        )
    try:
        job = ray.put(packed)
        remote = ray.remote(num_cpus=1, max_retries=_RETRIES)(_do)

        def submit(task: int) -> Any:
            rows = None
            if not by_path:
                blocks = source.blocks(*plan.blocks(task), pass_.columns)
                rows = pa.Table.from_batches(list(blocks))
            return remote.remote(job, task, rows)

        stored = {t for t in range(len(plan.tasks)) if parts is not None and parts.done(t)}
        waiting = iter([task for task in range(len(plan.tasks)) if task not in stored])
        ahead = 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))
        running = {task: submit(task) for task in itertools.islice(waiting, ahead)}
        done = 0
        for due in range(len(plan.tasks)):
            if due in stored:
                assert parts is not None
                states = parts.load(due)
            else:
                states = _answer(ray, running.pop(due), source.label, due)
                running.update((task, submit(task)) for task in itertools.islice(waiting, 1))
                if parts is not None:
                    parts.save(due, states)
            done += plan.rows(due)
            if progress is not None:
                progress(done)
            yield states
    finally:
        if ours:
            ray.shutdown()


def _answer(ray: Any, reference: Any, label: str, task: int) -> list[Any]:
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    except ray.exceptions.RayError as error:
        raise WorkerError(
            f"task {task} of {label} failed on {_RETRIES + 1} workers "
            f"({type(error).__name__}); is there too little memory?"
        ) from error
