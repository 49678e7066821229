"""The command line: ``dpdq compare HAVE WANT`` and its neighbours.

Exit codes: 0 the job finished; 1 it finished and found what ``--fail-on`` names; 2 it could not be
done, and one sentence on standard error says why (``--debug`` shows the traceback as well).
"""

from __future__ import annotations

import importlib.abc
import sys
from typing import Annotated

import typer

from dpdq import __version__
from dpdq.cli import (
    compare_commands,
    contamination_command,
    dedupe_command,
    methods_command,
    reweight_command,
    select_command,
)
from dpdq.cli._shared import app

__all__ = ["app", "main"]

COMMANDS = (
    compare_commands,
    methods_command,
    reweight_command,
    select_command,
    dedupe_command,
    contamination_command,
)


class _NoPandas(importlib.abc.MetaPathFinder):
    """Keeps Arrow from importing pandas, half a second, only to ask whether a value is of it."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name == "pandas":
            raise ModuleNotFoundError("a quick comparison of files meets no pandas", name=name)


@app.callback(invoke_without_command=True)
def _main(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)
    ] = False,
) -> None:
    if version:
        typer.echo(f"dpdq {__version__}")
        raise typer.Exit


def main() -> None:
    """Entry point of the ``dpdq`` command."""
    if "--quick" in sys.argv:
        sys.meta_path.insert(0, _NoPandas())
    app()


if __name__ == "__main__":
    main()
