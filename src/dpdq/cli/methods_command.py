"""``dpdq methods``: what is implemented, by name."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from dpdq.cli._shared import OptionalText, app

__all__ = ["methods"]


@app.command()
def methods(
    query: Annotated[OptionalText, typer.Argument(help="Words that must occur.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the published methods that are implemented, with their cost and the test they pass."""
    from dpdq.catalogue import implemented_methods

    found = implemented_methods(query or "")
    if as_json:
        typer.echo(json.dumps([method.to_dict() for method in found], indent=1))
        return
    for method in found:
        typer.echo(f"{method.object}  [{method.key}]")
        typer.echo(f"    {method.title}. {method.source}")
        typer.echo(f"    {method.summary}")
        typer.echo(f"    cost: {method.cost}")
        typer.echo(f"    held by: {method.held_by}")
    typer.echo(f"{len(found)} methods" if found else f"nothing matches {query!r}")
