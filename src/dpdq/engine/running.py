"""One call for four ways to run a pass."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, TypeVar

from dpdq.engine.plan import Plan, merge_states, work
from dpdq.errors import OptionError

if TYPE_CHECKING:
    from typing import Any

    from dpdq.data.sources import Source
    from dpdq.engine.part_folder import PartFolder
    from dpdq.passes import Pass

__all__ = ["ENGINES", "Engine", "run"]

ENGINES = ("local", "pool", "shards", "ray")

Answer = TypeVar("Answer")
Progress = Callable[[int], None]


@dataclasses.dataclass(frozen=True)
class Engine:
    """Where passes run, for jobs of several passes.

    Parameters
    ----------
    name
        ``"local"``, in this process; ``"pool"``, in spawned processes of this machine;
        ``"shards"``, in this process beside others that were started with other ranks and share
        ``folder``; ``"ray"``, as tasks of a Ray cluster (extra ``ray``).
    folder
        Where finished parts are kept, so that a job that was cut off goes on where it ended;
        needed by ``"shards"``, optional elsewhere.
    n_jobs
        Workers of a pool, or CPUs of a Ray that this call starts; default all usable cores.
    rank, world_size
        Which of how many shards this process is. Default: ``RANK`` and ``WORLD_SIZE`` of the
        environment, or ``SLURM_PROCID`` and ``SLURM_NTASKS``.

    Examples
    --------
    >>> from dpdq.engine import Engine
    >>> Engine("pool", n_jobs=2).name
    'pool'
    """

    name: str = "local"
    folder: str | os.PathLike[str] | None = None
    n_jobs: int | None = None
    rank: int | None = None
    world_size: int | None = None

    def check(self) -> None:
        """Refuse what cannot run, before anything is read.

        Raises
        ------
        OptionError
            Unknown engine, shards without a folder, a rank outside the world, options of another
            engine.
        MissingDependencyError
            The engine's package is not installed.
        """
        if self.name not in ENGINES:
            known = ", ".join(repr(name) for name in ENGINES)
            raise OptionError(f"Unknown engine {self.name!r}. Choose one of {known}.")
        if self.n_jobs is not None and self.n_jobs < 1:
            raise OptionError(f"n_jobs is {self.n_jobs}; expected at least 1")
        if self.name == "shards":
            if self.folder is None:
                raise OptionError(
                    "engine 'shards' needs folder=, a folder that all ranks can write to"
                )
            self.place()
        elif self.rank is not None or self.world_size is not None:
            raise OptionError(f"rank and world_size belong to 'shards', not to {self.name!r}")
        if self.name == "ray":
            from dpdq._optional import require

            require("ray", "engine 'ray'")

    def place(self) -> tuple[int, int]:
        """Rank and world size, from the options or the environment.

        Raises
        ------
        OptionError
            Neither given nor in the environment, or the rank is outside the world.
        """

        def number(given: int | None, names: tuple[str, ...], what: str) -> int:
            if given is not None:
                return given
            for name in names:
                if os.environ.get(name, "").isdigit():
                    return int(os.environ[name])
            raise OptionError(
                f"engine 'shards' needs {what}, or {' or '.join(names)} in the environment"
            )

        rank = number(self.rank, ("RANK", "SLURM_PROCID"), "rank")
        world_size = number(self.world_size, ("WORLD_SIZE", "SLURM_NTASKS"), "world_size")
        if not 0 <= rank < world_size:
            raise OptionError(f"rank is {rank} of world_size {world_size}; ranks go from 0")
        return rank, world_size

    def run(
        self, pass_: Pass[Any, Answer], source: Source, *, progress: Progress | None = None
    ) -> Answer:
        """Run a pass over all rows of a source; see `run`."""
        self.check()
        plan = Plan.of(source)
        parts = self._parts(pass_, source, plan)
        if self.name == "local" or not plan.tasks:
            states = _local(pass_, source, plan, parts, progress)
        elif self.name == "pool":
            from dpdq.engine.pool import pooled

            states = pooled(pass_, source, plan, parts, progress, self.n_jobs)
        elif self.name == "shards":
            from dpdq.engine.shards import sharded

            assert parts is not None
            states = sharded(pass_, source, plan, parts, progress, *self.place())
        else:
            from dpdq.engine.cluster import clustered

            states = clustered(pass_, source, plan, parts, progress, self.n_jobs)
        with contextlib.closing(states):
            return merge_states(pass_, states)

    def _parts(self, pass_: Pass[Any, Any], source: Source, plan: Plan) -> PartFolder | None:
        if self.folder is None:
            return None
        from dpdq.engine.part_folder import PartFolder

        return PartFolder.open(self.folder, pass_, source, plan)


def _local(
    pass_: Pass[Any, Any],
    source: Source,
    plan: Plan,
    parts: PartFolder | None,
    progress: Progress | None,
) -> Generator[list[Any]]:
    done = 0

    def beat(rows: int) -> None:
        nonlocal done
        done += rows
        if progress is not None:
            progress(done)

    for task in range(len(plan.tasks)):
        if parts is not None and parts.done(task):
            beat(plan.rows(task))
            yield parts.load(task)
            continue
        states = work(pass_, source, plan, task, beat)
        if parts is not None:
            parts.save(task, states)
        yield states


def run(
    pass_: Pass[Any, Answer],
    source: Source,
    *,
    engine: str | Engine = "local",
    folder: str | os.PathLike[str] | None = None,
    n_jobs: int | None = None,
    rank: int | None = None,
    world_size: int | None = None,
    progress: Progress | None = None,
) -> Answer:
    """Run a pass over all rows of a source.

        answer = finish(merge(... merge(state of part 0, state of part 1) ..., state of part k))

    The answer is the same, to the last bit, whatever the engine and the number of workers. A
    worker that dies is replaced and its part done again; with ``folder`` a job that was cut off
    goes on from its finished parts.

    Parameters
    ----------
    pass_
        What to compute.
    source
        The rows, from `dpdq.data.open_source`.
    engine
        ``"local"``, ``"pool"``, ``"shards"``, ``"ray"``, or an `Engine` that holds all options.
    folder
        Where finished parts are kept; needed by ``"shards"``. It may be deleted when the job is
        done.
    n_jobs
        Workers of a pool, or CPUs of a Ray that this call starts; default all usable cores.
    rank, world_size
        Which of how many shards this process is; default from the environment.
    progress
        Called with the number of rows done so far.

    Returns
    -------
    object
        What the pass's ``finish`` returns; with shards, on every rank.

    Raises
    ------
    OptionError
        If the engine is unknown or its options do not fit.
    FileError
        If ``folder`` cannot be written or holds parts of another job.
    WorkerError
        If a part kills every worker that takes it.

    Notes
    -----
    Cost: one read of the pass's columns; memory of one block and one state a worker. A pool and
    Ray add the start of their processes (about 1 s and 3 s).
    Held by: tests/engine/test_engines.py::test_all_engines_give_the_same_bits

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
    if isinstance(engine, Engine):
        given = (folder, n_jobs, rank, world_size)
        if any(each is not None for each in given):
            raise OptionError("an Engine holds its own options; give them there")
        return engine.run(pass_, source, progress=progress)
    chosen = Engine(engine, folder=folder, n_jobs=n_jobs, rank=rank, world_size=world_size)
    return chosen.run(pass_, source, progress=progress)
