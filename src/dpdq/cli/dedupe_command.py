"""``dpdq dedupe``: a pool without its repetitions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dpdq.cli._shared import (
    Debug,
    EngineName,
    Engines,
    Jobs,
    Parts,
    Rank,
    WorldSize,
    app,
    engine_of,
    one_sentence,
)

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from dpdq.data.sources import Source

__all__ = ["check_target", "dedupe"]


def check_target(path: Path, *inputs: str) -> None:
    """Refuse an output that cannot be written, or that is an input, before any work is done."""
    from dpdq.errors import FileError, OptionError

    if path.suffix != ".parquet":
        raise OptionError(f"{str(path)!r} does not end in .parquet; rows are written as Parquet")
    if path.is_dir():
        raise FileError(f"cannot write {str(path)!r}: it is a folder")
    if not path.parent.is_dir():
        raise FileError(
            f"cannot write {str(path)!r}: the folder {str(path.parent)!r} does not exist"
        )
    for given in inputs:
        if Path(given).exists() and path.exists() and path.samefile(given):
            raise OptionError(f"{str(path)!r} is an input; name another file")


@app.command()
def dedupe(
    pool: Annotated[str, typer.Argument(metavar="POOL", help="q: file, folder or glob of texts")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Parquet file of rows kept.")
    ],
    text: Annotated[
        list[str] | None, typer.Option(metavar="COL", help="Column of text; may be repeated.")
    ] = None,
    threshold: Annotated[
        float, typer.Option(metavar="J", help="Jaccard similarity from which two texts are one.")
    ] = 0.8,
    n: Annotated[int, typer.Option("--n", metavar="TOKENS", help="Tokens of a shingle.")] = 5,
    exact: Annotated[
        bool, typer.Option("--exact", help="Equal texts only (and passages, if asked for).")
    ] = False,
    exact_substring: Annotated[
        int | None,
        typer.Option(metavar="BYTES", help="Also join rows that share a passage this long."),
    ] = None,
    keep: Annotated[
        str, typer.Option(metavar="RULE", help="first, longest, or a column: its largest value.")
    ] = "first",
    trail: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Parquet file of every row's reason.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")] = False,
    engine: EngineName = Engines.local,
    n_jobs: Jobs = None,
    parts: Parts = None,
    rank: Rank = None,
    world_size: WorldSize = None,
    debug: Debug = False,
) -> None:
    """Drop texts that repeat others, nearly or in a passage, and keep one of each cluster."""
    with one_sentence(debug=debug):
        from dpdq.data.sources import open_source
        from dpdq.data.writing import write_table_batches
        from dpdq.select.duplicates import exact_duplicates, near_duplicates
        from dpdq.select.duplicates_exact import shared_passages

        check_target(output, pool)
        if trail is not None:
            check_target(trail, pool)
        where = engine_of(engine, n_jobs, parts, rank, world_size)
        with open_source(pool, side="q") as source:
            rule, scores = keep, None
            if keep not in ("first", "longest"):
                rule, scores = "score", _scores(source, keep)
            if exact and exact_substring is None:
                found = exact_duplicates(
                    source, keep=rule, scores=scores, columns=text or None, engine=where
                )
            elif exact and exact_substring is not None:
                found = shared_passages(
                    source,
                    n_bytes=exact_substring,
                    keep=rule,
                    scores=scores,
                    columns=text or None,
                    engine=where,
                )
            else:
                found = near_duplicates(
                    source,
                    threshold=threshold,
                    n=n,
                    n_bytes=exact_substring,
                    keep=rule,
                    scores=scores,
                    columns=text or None,
                    engine=where,
                )
            rows = write_table_batches(output, source.schema, _kept(source, found.mask))
            if trail is not None:
                table = found.trail()
                write_table_batches(trail, table.schema, iter(table.to_batches()))
        if as_json:
            told = {
                "n_pool": found.n_pool,
                "n_kept": rows,
                "reasons": {
                    name: int((found.reasons == reason).sum())
                    for reason, name in enumerate(found.reason_names)
                },
                "n_candidates": found.n_candidates,
                "n_pairs": found.n_pairs,
                "status": found.status,
            }
            typer.echo(json.dumps(told, indent=1))
        else:
            typer.echo(found.status)
            for path in (output, trail):
                if path is not None:
                    typer.echo(f"wrote {path}")


def _scores(source: Source, name: str) -> np.ndarray:
    """The column to keep by."""
    import numpy as np
    import pyarrow as pa

    from dpdq.errors import OptionError

    if name not in source.schema.names:
        raise OptionError(
            f"--keep is {name!r}; expected first, longest or a column of {source.label}"
        )
    kind = source.schema.field(name).type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        raise OptionError(f"--keep names column {name!r}, which is {kind}; expected numbers")
    chunks = source.column(name).cast(pa.float64()).fill_null(float("nan"))
    return np.asarray(chunks.to_numpy(), dtype=np.float64)


def _kept(source: Source, mask: np.ndarray) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa

    first = 0
    for batch in source.batches():
        yield batch.filter(pa.array(mask[first : first + batch.num_rows]))
        first += batch.num_rows
