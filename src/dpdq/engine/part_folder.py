"""Finished parts in a folder, so that a job goes on where it ended and shards can share it.

    FOLDER/<fingerprint>/job.json       what is computed, over what
    FOLDER/<fingerprint>/7.part         the states of task 7: its own completion marker
    FOLDER/<fingerprint>/7.claim        somebody works on task 7; its time of change is the pulse

The fingerprint is a hash of the pass and of the rows, so jobs of several passes share a folder and
a changed option or a changed file never meets old parts. A part appears whole or not at all. Two
workers that do one task write the same bytes.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpdq.data.hashing import row_hashes
from dpdq.data.writing import reason_of, write_json
from dpdq.engine.states import digest, load_state, save_state
from dpdq.errors import FileError, InputTypeError, OptionError
from dpdq.passes import BLOCK_ROWS

if TYPE_CHECKING:
    from dpdq.data.sources import Source
    from dpdq.engine.plan import Plan
    from dpdq.passes import Pass

__all__ = ["PartFolder"]


def _describe(source: Source) -> dict[str, Any]:
    """What tells these rows from others at the cost of three blocks."""
    schema = [[field.name, str(field.type)] for field in source.schema]
    n_blocks = max(1, -(-source.n_rows // BLOCK_ROWS))
    hashes = [
        digest(row_hashes(batch, source.schema.names))
        for block in sorted({0, n_blocks // 2, n_blocks - 1})
        for batch in source.blocks(block, block + 1)
    ]
    return {"rows": source.n_rows, "schema": schema, "blocks": hashes, "origin": source.origin}


class PartFolder:
    """The parts of one pass over one source.

    Parameters
    ----------
    path
        The pass's own folder.
    types
        Dataclasses of its states.
    patience
        Seconds without a pulse after which a claim counts as abandoned.
    """

    def __init__(self, path: Path, types: tuple[type, ...], patience: float = 30.0) -> None:
        self.path = path
        self.types = types
        self.patience = patience

    @classmethod
    def open(
        cls,
        folder: str | os.PathLike[str],
        pass_: Pass[Any, Any],
        source: Source,
        plan: Plan,
    ) -> PartFolder:
        """Find or make the folder of this pass over these rows.

        Raises
        ------
        OptionError
            If the pass holds what cannot be told apart and does not override ``fingerprint``.
        FileError
            If the folder cannot be written.
        """
        name = f"{type(pass_).__module__}.{type(pass_).__qualname__}"
        try:
            own = digest(pass_.fingerprint(), pass_.state_types)
        except InputTypeError as error:
            raise OptionError(
                f"{name} cannot be resumed: its fingerprint {error}; override fingerprint()"
            ) from error
        rows = _describe(source)
        key = digest([name, own, rows, list(plan.tasks)])[:20]
        path = Path(folder) / key
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FileError(
                f"folder {os.fspath(folder)!r} cannot hold parts ({reason_of(error)})"
            ) from error
        if not (path / "job.json").exists():
            job = {"pass": name, "rows": source.n_rows, "tasks": len(plan.tasks)}
            write_json(path / "job.json", {**job, "label": source.label})
        return cls(path, pass_.state_types)

    def _part(self, task: int) -> Path:
        return self.path / f"{task}.part"

    def _claim(self, task: int) -> Path:
        return self.path / f"{task}.claim"

    def done(self, task: int) -> bool:
        """Whether a task's part is there."""
        return self._part(task).exists()

    def save(self, task: int, states: list[Any]) -> None:
        """Write a task's part and give its claim back."""
        save_state(self._part(task), states, self.types)
        with contextlib.suppress(FileNotFoundError):
            self._claim(task).unlink()

    def load(self, task: int) -> list[Any]:
        """Read a task's part."""
        return load_state(self._part(task), self.types)

    def claim(self, task: int) -> bool:
        """Take a task, unless another worker with a pulse has it."""
        path = self._claim(task)
        try:
            with path.open("x") as stream:
                stream.write(f"{os.getpid()}\n")
        except FileExistsError:
            try:
                silent = time.time() - path.stat().st_mtime
            except FileNotFoundError:  # just given back: the part is there, or anyone's again
                return False
            if silent < self.patience:
                return False
            self.beat(task)
        return True

    def beat(self, task: int) -> None:
        """Show that the task is being worked on."""
        self._claim(task).touch()
