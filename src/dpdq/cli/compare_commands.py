"""``dpdq compare``, ``dpdq profile`` and ``dpdq demo``: the main job."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from dpdq.cli._shared import (
    Debug,
    EngineName,
    Engines,
    Folder,
    Infinite,
    Jobs,
    OptionalText,
    Parts,
    Rank,
    Seed,
    WorldSize,
    app,
    check_folder,
    engine_of,
    kinds_of,
    one_sentence,
)

__all__ = ["compare", "demo", "profile"]


@app.command()
def compare(
    have: Annotated[str, typer.Argument(metavar="HAVE", help="q: file, folder, glob or .dpdq")],
    want: Annotated[str, typer.Argument(metavar="WANT", help="p: file, folder or glob")],
    label: Annotated[OptionalText, typer.Option(help="Column to be predicted.")] = None,
    prediction: Annotated[OptionalText, typer.Option(help="Column with a model's output.")] = None,
    prediction_proba: Annotated[
        OptionalText, typer.Option(help="Column with the probability of the positive class.")
    ] = None,
    id: Annotated[  # noqa: A002 - the option's name
        OptionalText, typer.Option("--id", help="Row key, copied to the outputs.")
    ] = None,
    group: Annotated[
        OptionalText, typer.Option(help="Rows with one value belong together.")
    ] = None,
    time: Annotated[OptionalText, typer.Option(help="Orders the rows in blocks.")] = None,
    types: Annotated[
        OptionalText, typer.Option(help="Kinds of columns, as in zip=categorical,when=datetime.")
    ] = None,
    columns: Annotated[
        OptionalText, typer.Option(help="Compare only these, separated by commas.")
    ] = None,
    tolerance: Annotated[
        float, typer.Option(metavar="AUC", help="Tolerated AUC between q and p.")
    ] = 0.5,
    tolerance_column: Annotated[
        float, typer.Option(metavar="PSI", help="Tolerated PSI of one column.")
    ] = 0.0,
    infinite: Annotated[
        Infinite, typer.Option(help="Infinite values: an error, or missing.")
    ] = Infinite.refuse,
    fail_on: Annotated[
        OptionalText,
        typer.Option(help="Exit with 1 on: shift, overlap, columns=a,b (joined by ';')."),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Columns only, in two seconds.")] = False,
    out: Folder = Path("dpdq-report"),
    as_json: Annotated[
        bool, typer.Option("--json", help="Print comparison.json; write nothing unless --out.")
    ] = False,
    engine: EngineName = Engines.local,
    n_jobs: Jobs = None,
    parts: Parts = None,
    rank: Rank = None,
    world_size: WorldSize = None,
    random_state: Seed = 0,
    debug: Debug = False,
) -> None:
    """Does WANT differ from HAVE, where, for whom, at what cost, and which weights repair it?

    Writes report.html, comparison.json, run.json and weights.parquet.
    """
    from dpdq.comparison import compare as run_compare
    from dpdq.comparison.gates import check_gates, found

    with one_sentence(debug=debug):
        check_gates(fail_on)
        check_folder(out)
        comparison = run_compare(
            have,
            want,
            label=label,
            prediction=prediction,
            prediction_proba=prediction_proba,
            id=id,
            group=group,
            time=time,
            columns=columns,
            types=kinds_of(types),
            tolerance=tolerance,
            tolerance_column=tolerance_column,
            infinite=infinite.value,
            quick=quick,
            engine=engine_of(engine, n_jobs, parts, rank, world_size),
            progress=True,
            random_state=random_state,
        )
        if as_json:
            typer.echo(json.dumps(comparison.to_dict(), indent=1, allow_nan=False))
        if not as_json or "--out" in sys.argv:
            written = comparison.save(out)
            if not as_json:
                typer.echo(repr(comparison))
                typer.echo("")
                for path in written.values():
                    typer.echo(f"wrote {path}")
        reasons = found(comparison, fail_on) if fail_on else []
        for reason in reasons:
            sys.stderr.write(f"dpdq: --fail-on: {reason}\n")
    if reasons:
        raise typer.Exit(1)


@app.command()
def profile(
    have: Annotated[str, typer.Argument(metavar="HAVE", help="q: file, folder or glob")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE.dpdq", help="The reference to write.")
    ],
    types: Annotated[
        OptionalText, typer.Option(help="Kinds of columns, as in zip=categorical.")
    ] = None,
    columns: Annotated[
        OptionalText, typer.Option(help="Keep only these, separated by commas.")
    ] = None,
    rows: Annotated[int, typer.Option(help="Rows to keep, drawn at random.", min=2)] = 100_000,
    random_state: Seed = 0,
    debug: Debug = False,
) -> None:
    """Keep HAVE as a reference file, to compare many batches with: dpdq compare ref.dpdq WANT."""
    from dpdq.comparison import profile as run_profile

    with one_sentence(debug=debug):
        kept = run_profile(
            have,
            output,
            columns=columns,
            types=kinds_of(types),
            rows=rows,
            progress=True,
            random_state=random_state,
        )
        typer.echo(kept)


@app.command()
def demo(
    out: Folder = Path("dpdq-demo"),
    debug: Debug = False,
) -> None:
    """Run the main job on bundled data: diabetes patients under 50 (q) and from 50 on (p)."""
    from dpdq.comparison.demo import run_demo

    with one_sentence(debug=debug):
        check_folder(out)
        comparison, written = run_demo(out)
        typer.echo(repr(comparison))
        typer.echo("")
        for path in written.values():
            typer.echo(f"wrote {path}")
