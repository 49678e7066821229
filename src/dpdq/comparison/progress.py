"""Where a job stands: steps that are timed, and shown where somebody watches."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

__all__ = ["Steps"]


class Steps:
    """Times the steps of a job and draws them when ``show`` and standard error is a terminal.

    Attributes
    ----------
    seconds
        Step -> seconds, in the order of the work.
    """

    def __init__(self, *, show: bool = False) -> None:
        self.seconds: dict[str, float] = {}
        self._bar: Any = None
        if show and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

            self._bar = Progress(
                TextColumn("{task.description:<28}"),
                BarColumn(),
                TimeElapsedColumn(),
                console=Console(stderr=True),
                transient=True,
            )

    def __enter__(self) -> Steps:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    @contextlib.contextmanager
    def step(self, name: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
        """Time one step; the value is a function that takes how much of ``total`` is done."""
        start = time.perf_counter()
        task = self._bar.add_task(name, total=total) if self._bar is not None else None

        def advance(done: int) -> None:
            if self._bar is not None:
                self._bar.update(task, completed=done)

        try:
            yield advance
        finally:
            elapsed = time.perf_counter() - start
            self.seconds[name] = self.seconds.get(name, 0.0) + elapsed
            if self._bar is not None:
                self._bar.remove_task(task)
