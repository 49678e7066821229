"""``dpdq select``: the rows of a pool that are most like a target, within a budget."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from dpdq.cli._shared import (
    Debug,
    EngineName,
    Engines,
    Jobs,
    OptionalText,
    Parts,
    Rank,
    Seed,
    WorldSize,
    app,
    engine_of,
    one_sentence,
)
from dpdq.errors import OptionError

__all__ = ["select"]


class Unit(StrEnum):
    """What a budget counts."""

    rows = "rows"
    tokens = "tokens"
    bytes = "bytes"


class UtilityName(StrEnum):
    """What scores a text."""

    ngram = "ngram"
    dsir = "dsir"
    zip = "zip"
    classifier = "classifier"
    knn_shapley = "knn-shapley"


class Mechanism(StrEnum):
    """How rows are kept by their utility."""

    top = "top"
    gumbel = "gumbel"


def _quota(text: str | None) -> tuple[str, dict[str, float] | str] | None:
    if text is None:
        return None
    column, equals, given = text.partition("=")
    if not equals or not column or not given:
        raise OptionError(
            f"--quota is {text!r}; write COLUMN=equal, COLUMN=pool or COLUMN=level:share,..."
        )
    if ":" not in given:
        return column, given
    shares: dict[str, float] = {}
    for part in given.split(","):
        level, _, share = part.rpartition(":")
        try:
            shares[level] = float(share)
        except ValueError:
            raise OptionError(f"--quota holds {part!r}; write level:share, as in web:0.3") from None
    return column, shares


@app.command()
def select(
    pool: Annotated[str, typer.Argument(metavar="POOL", help="q: file, folder or glob of texts")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE.parquet", help="The rows kept.")
    ],
    target: Annotated[
        list[str] | None, typer.Option(help="p: file, folder or glob to be like; may be repeated.")
    ] = None,
    budget: Annotated[
        float | None, typer.Option(metavar="N", help="How much to keep, in --unit.")
    ] = None,
    fraction: Annotated[
        float | None, typer.Option(metavar="F", help="Share of the pool to keep instead.")
    ] = None,
    unit: Annotated[Unit, typer.Option(help="What the budget counts.")] = Unit.rows,
    utility: Annotated[UtilityName, typer.Option(help="What scores a text.")] = UtilityName.ngram,
    text: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COL", help="Column of text; may be repeated. Default: text, content, ..."
        ),
    ] = None,
    score: Annotated[
        OptionalText, typer.Option(metavar="COL", help="Column to score by, in place of a model.")
    ] = None,
    label: Annotated[
        OptionalText, typer.Option(metavar="COL", help="What knn-shapley predicts.")
    ] = None,
    source: Annotated[
        OptionalText, typer.Option(metavar="COL", help="Where rows come from, for the report.")
    ] = None,
    quota: Annotated[
        OptionalText, typer.Option(help="COLUMN=equal, COLUMN=pool or COLUMN=level:share,...")
    ] = None,
    mechanism: Annotated[
        Mechanism, typer.Option(help="The best, or a draw weighted by the score.")
    ] = Mechanism.top,
    temperature: Annotated[float, typer.Option(help="Of the draw.")] = 1.0,
    conditional: Annotated[
        bool, typer.Option("--conditional", help="Rank within equal source and length.")
    ] = False,
    trail: Annotated[
        Path | None, typer.Option(metavar="FILE.parquet", help="Every row: score, kept, why.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    engine: EngineName = Engines.local,
    n_jobs: Jobs = None,
    parts: Parts = None,
    rank: Rank = None,
    world_size: WorldSize = None,
    random_state: Seed = 0,
    debug: Debug = False,
) -> None:
    """Keep the rows of POOL that are most like the target, within a budget, and say why of each.

    Writes the rows with their number and utility, and a report beside them (FILE.json).
    """
    from dpdq.select import select_rows, write_selected

    with one_sentence(debug=debug):
        _check_paths(pool, output, trail)
        shown = sys.stderr.isatty()

        def price_told(price: Any) -> None:
            if not as_json:
                sys.stderr.write(f"price: {price.status}\n")

        def progress(step: str, done: int, total: int) -> None:
            if shown:
                sys.stderr.write(f"\r{step}: {done:,} of {total:,} rows")
                if done == total:
                    sys.stderr.write("\n")

        found = select_rows(
            pool,
            target or None,
            budget=budget,
            fraction=fraction,
            unit=unit.value,
            utility=utility.value,
            text=text or None,
            score=score,
            label=label,
            source_column=source,
            quota=_quota(quota),
            mechanism=mechanism.value,
            temperature=temperature,
            conditional=conditional,
            engine=engine_of(engine, n_jobs, parts, rank, world_size),
            progress=progress,
            on_price=price_told,
            random_state=random_state,
        )
        _write(found, pool, output, trail, write_selected)
        report = found.summary()
        if as_json:
            typer.echo(json.dumps(report, indent=1, allow_nan=False))
            return
        typer.echo(found.status)
        typer.echo(
            f"mean score {found.lift:+.2f} standard deviations above a random draw of as many"
        )
        for column, rows in found.keep_rates.items():
            typer.echo(f"kept by {column}:")
            for row in rows[:12]:
                typer.echo(
                    f"  {row['level'][:40]:40} {row['kept']:>10,} of {row['n']:>10,}  "
                    f"{100 * row['share']:5.1f} %  ({100 * row['low']:.1f} to "
                    f"{100 * row['high']:.1f})"
                )
        typer.echo(f"wrote {output}")


def _check_paths(pool: str, output: Path, trail: Path | None) -> None:
    for path in (output, trail):
        if path is None:
            continue
        if path.suffix != ".parquet":
            raise OptionError(
                f"{str(path)!r} does not end in .parquet; rows are written as Parquet"
            )
        if path.is_dir() or not path.parent.is_dir():
            raise OptionError(f"{str(path)!r} cannot be written: its folder does not exist")
        if Path(pool).exists() and path.exists() and path.samefile(pool):
            raise OptionError(f"{str(path)!r} is the pool itself; name another file")


def _write(found: Any, pool: str, output: Path, trail: Path | None, write: Any) -> None:
    import pyarrow as pa

    from dpdq.data.writing import write_json, write_table_batches

    if trail is not None:
        lengths = {"tokens": found.tokens.astype("int64"), "bytes": found.bytes.astype("int64")}
        table: pa.Table = found.selection.trail(lengths)
        write_table_batches(trail, table.schema, table.to_batches(max_chunksize=65_536))
    write(pool, found.selection, output)
    write_json(output.with_suffix(".json"), found.summary())
