"""A pool of spawned processes on this machine.

Workers are spawned, not forked: a fork of a process with threads may hang. Each opens the files
itself and sends back states, so rows never travel; rows in memory are written once to temporary
Arrow files. Workers keep BLAS, OpenMP and Arrow to one thread. A worker that dies takes its pool
with it; a new one goes on with what is missing.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import pickle
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING, Any

from dpdq._threads import one_thread_each, usable_cores
from dpdq.data.spool import Spool
from dpdq.engine.plan import Plan, work
from dpdq.errors import OptionError, WorkerError

if TYPE_CHECKING:
    from dpdq.data.sources import Source
    from dpdq.engine.part_folder import PartFolder
    from dpdq.passes import Pass

__all__ = ["pickled_job", "pooled"]

_MOST_DEATHS = 3  # in a row without a finished task between them
_job: tuple[Any, Any, Plan] | None = None


def pickled_job(pass_: Pass[Any, Any], source: Source | None, plan: Plan) -> bytes:
    """What a worker is given, once.

    Raises
    ------
    OptionError
        If the pass cannot be sent to another process.
    """
    try:
        return pickle.dumps((pass_, source, plan))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise OptionError(
            f"{type(pass_).__name__} cannot be sent to another process ({error}); define its "
            "class and what it holds at the top of a module, or use engine 'local'"
        ) from error


def _begin(job: bytes) -> None:
    global _job
    import pyarrow as pa

    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    _job = pickle.loads(job)


def _do(task: int) -> list[Any]:
    assert _job is not None
    pass_, source, plan = _job
    with one_thread_each():
        return work(pass_, source, plan, task)


@contextlib.contextmanager
def on_disk(source: Source) -> Iterator[Source]:
    """The source itself where other processes can read it, else a temporary copy in files."""
    if source.reach != "memory":
        yield source
        return
    with Spool(source.label, limit=0) as spool:
        for batch in source.batches():
            spool.append(batch)
        copy = spool.finish(source.schema, [])
    with copy:
        yield copy


def pooled(
    pass_: Pass[Any, Any],
    source: Source,
    plan: Plan,
    parts: PartFolder | None,
    progress: Callable[[int], None] | None,
    n_jobs: int | None,
) -> Generator[list[Any]]:
    """Yield the states of all tasks in order; finished ones wait for those before them."""
    finished: dict[int, list[Any]] = {}
    stored = {t for t in range(len(plan.tasks)) if parts is not None and parts.done(t)}
    waiting = [task for task in range(len(plan.tasks)) if task not in stored]
    rows_done = sum(plan.rows(task) for task in stored)
    due = 0
    deaths = 0
    failed: dict[int, BaseException] = {}

    def ready() -> Iterator[list[Any]]:
        nonlocal due
        while due < len(plan.tasks) and (due in finished or due in stored):
            if due in finished:
                yield finished.pop(due)
            elif parts is not None:
                yield parts.load(due)
            due += 1

    yield from ready()
    if not waiting:
        return
    workers = min(n_jobs or usable_cores(), len(waiting))
    with on_disk(source) as shared:
        job = pickled_job(pass_, shared, plan)
        while waiting:
            pool = ProcessPoolExecutor(
                workers,
                mp_context=multiprocessing.get_context("spawn"),
                initializer=_begin,
                initargs=(job,),
            )
            running: dict[Future[list[Any]], int] = {}
            try:
                while waiting or running:
                    while waiting and not failed and len(running) < 2 * workers:
                        task = waiting.pop(0)
                        try:
                            running[pool.submit(_do, task)] = task
                        except BrokenProcessPool:
                            waiting.insert(0, task)
                            raise
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        task = running.pop(future)
                        error = future.exception()
                        if isinstance(error, BrokenProcessPool):
                            waiting.append(task)
                            raise error
                        if error is not None:
                            failed[task] = error
                            continue
                        states = future.result()
                        if parts is not None:
                            parts.save(task, states)
                        finished[task] = states
                        deaths = 0
                        rows_done += plan.rows(task)
                        if progress is not None:
                            progress(rows_done)
                    # The error of the earliest rows, whichever worker was the fastest.
                    if failed and all(task > min(failed) for task in running.values()):
                        raise failed[min(failed)]
                    yield from ready()
            except BrokenProcessPool as error:
                deaths += 1
                waiting = sorted([*waiting, *running.values()])
                if deaths >= _MOST_DEATHS:
                    raise WorkerError(
                        f"{deaths} times in a row a worker died on the tasks from {waiting[0]} on "
                        f"({source.label}, rows from "
                        f"{waiting[0] * plan.rows(0):,}); is there too little memory, or does the "
                        'script start work outside of `if __name__ == "__main__":`?'
                    ) from error
            finally:
                pool.shutdown(wait=True, cancel_futures=True)
