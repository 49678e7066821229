"""Threads: many small jobs side by side, each on one core.

Small dense algebra and boosted trees lose more to waiting for each other's threads than they win:
on a busy machine two OpenMP threads can be fifty times slower than one. Work is therefore spread
over folds, columns or blocks, one thread each, and the libraries below keep to that thread. The
results do not depend on the number of threads.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

__all__ = ["one_openmp_thread", "one_thread_each", "parallel_map", "usable_cores"]

Item = TypeVar("Item")
Answer = TypeVar("Answer")

_MOST = 8


def usable_cores() -> int:
    """Cores that this process may use, at most 8."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        cores = os.cpu_count() or 1
    return max(1, min(cores, _MOST))


@contextlib.contextmanager
def one_thread_each() -> Iterator[None]:
    """Keep BLAS and OpenMP to one thread inside; the caller's settings come back after.

    Only libraries that are loaded before are bound, so import scikit-learn first where it works
    inside.
    """
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1):
        yield


@contextlib.contextmanager
def one_openmp_thread() -> Iterator[None]:
    """Keep OpenMP to one thread for the calling thread alone, safe among parallel workers."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1, user_api="openmp"):
        yield


def parallel_map(call: Callable[[Item], Answer], items: Iterable[Item]) -> list[Answer]:
    """Apply a function to every item, on all usable cores, in the order of the items.

    Parameters
    ----------
    call
        Must spend its time outside Python (NumPy, scikit-learn, Arrow) to gain anything.
    items
        What to work on.

    Returns
    -------
    list
        The answers in order. The first error is raised after the running calls have ended.
    """
    work = list(items)
    workers = min(usable_cores(), len(work))
    with one_thread_each():
        if workers <= 1:
            return [call(item) for item in work]
        with ThreadPoolExecutor(workers) as pool:
            return list(pool.map(call, work))
