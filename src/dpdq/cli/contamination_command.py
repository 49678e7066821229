"""``dpdq contamination``: does the training text hold the benchmark?"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dpdq.cli._shared import (
    Debug,
    EngineName,
    Engines,
    Jobs,
    OptionalText,
    Parts,
    Rank,
    WorldSize,
    app,
    engine_of,
    one_sentence,
)
from dpdq.cli.dedupe_command import check_target

if TYPE_CHECKING:
    from dpdq.select.overlap import BenchmarkOverlap

__all__ = ["contamination"]


@app.command()
def contamination(
    train: Annotated[str, typer.Argument(metavar="TRAIN", help="q: file, folder or glob of texts")],
    benchmark: Annotated[str, typer.Argument(metavar="BENCHMARK", help="p: a text an item")],
    text: Annotated[
        list[str] | None, typer.Option(metavar="COL", help="Column of text; may be repeated.")
    ] = None,
    benchmark_text: Annotated[
        list[str] | None,
        typer.Option(metavar="COL", help="The benchmark's columns, where they differ."),
    ] = None,
    n: Annotated[int, typer.Option("--n", metavar="TOKENS", help="Tokens of an n-gram.")] = 13,
    min_bytes: Annotated[
        int, typer.Option(metavar="BYTES", help="Shortest passage that counts as shared.")
    ] = 50,
    threshold: Annotated[
        float, typer.Option(metavar="SHARE", help="Part of an item's n-grams that condemns it.")
    ] = 0.5,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Parquet file, a row an item."),
    ] = None,
    fail_on: Annotated[
        OptionalText,
        typer.Option(metavar="share=S", help="Exit with 1 if more than S of the items are found."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")] = False,
    engine: EngineName = Engines.local,
    n_jobs: Jobs = None,
    parts: Parts = None,
    rank: Rank = None,
    world_size: WorldSize = None,
    debug: Debug = False,
) -> None:
    """Find benchmark items that stand in a training text: n-grams shared, and longest passage."""
    with one_sentence(debug=debug):
        from dpdq.data.sources import open_source
        from dpdq.data.writing import write_table_batches
        from dpdq.select.overlap import benchmark_overlap

        limit = _limit(fail_on)
        if output is not None:
            check_target(output, train, benchmark)
        with open_source(train, side="q") as q, open_source(benchmark, side="p") as p:
            found = benchmark_overlap(
                q,
                p,
                n=n,
                n_bytes=min_bytes,
                threshold=threshold,
                columns_q=text or None,
                columns_p=benchmark_text or text or None,
                engine=engine_of(engine, n_jobs, parts, rank, world_size),
            )
        if output is not None:
            table = found.items()
            write_table_batches(output, table.schema, iter(table.to_batches()))
        if as_json:
            told = found.to_dict()
            for name in ("share", "longest", "row_q"):
                del told[name]
            told["longest_shared"] = int(found.longest.max(initial=0))
            typer.echo(json.dumps(told, indent=1))
        else:
            for line in _lines(found):
                typer.echo(line)
            if output is not None:
                typer.echo(f"wrote {output}")
        share = found.contaminated_share.estimate
        failed = limit is not None and share is not None and share > limit
        if failed:
            sys.stderr.write(
                f"dpdq: --fail-on: {100 * (share or 0):.2f} % of the items are contaminated, over "
                f"{100 * (limit or 0):g} %\n"
            )
    if failed:
        raise typer.Exit(1)


def _limit(fail_on: str | None) -> float | None:
    from dpdq.errors import OptionError

    if fail_on is None:
        return None
    name, _, number = fail_on.partition("=")
    try:
        limit = float(number)
    except ValueError:
        limit = -1.0
    if name.strip() != "share" or not 0.0 <= limit < 1.0:
        raise OptionError(f"--fail-on is {fail_on!r}; write share=0.01, a share from 0 to below 1")
    return limit


def _lines(found: BenchmarkOverlap) -> list[str]:
    lines = [found.status]
    for name, share in (
        (f"{100 * found.threshold:g} % of their {found.n}-grams", found.contaminated_share),
        ("at least one", found.touched_share),
    ):
        if share.estimate is not None and share.low is not None and share.high is not None:
            lines.append(
                f"share of items with {name} in q: {100 * share.estimate:.2f} % "
                f"(95 % interval {100 * share.low:.2f} to {100 * share.high:.2f} %)"
            )
    if found.n_judged < found.n_items:
        lines.append(f"{found.n_items - found.n_judged:,} items are too short to be judged")
    worst = int(found.longest.argmax())
    if found.longest[worst] > 0:
        lines.append(
            f"longest shared passage: {int(found.longest[worst]):,} bytes, item {worst}, "
            f"row {int(found.row_q[worst])} of q"
        )
    else:
        lines.append(f"no passage of {found.n_bytes} bytes is shared")
    return lines
