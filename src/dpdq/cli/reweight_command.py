"""``dpdq reweight``: weights of HAVE towards WANT, and of rows never seen."""

from __future__ import annotations

import json
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
    Seed,
    WorldSize,
    app,
    check_folder,
    engine_of,
    kinds_of,
    one_sentence,
)
from dpdq.errors import OptionError

if TYPE_CHECKING:
    from dpdq.engine import Engine

__all__ = ["reweight"]


@app.command()
def reweight(
    have: Annotated[
        str, typer.Argument(metavar="HAVE", help="q: file, folder or glob (with --apply: NEW)")
    ],
    want: Annotated[
        OptionalText, typer.Argument(metavar="[WANT]", help="p: file, folder or glob")
    ] = None,
    method: Annotated[
        str, typer.Option(help="entropy, cbps, cbps-over, ipw, raking, post-stratification, ...")
    ] = "entropy",
    targets: Annotated[
        Path | None,
        typer.Option(metavar="CSV", help="Totals of p in place of WANT: variable, level, total."),
    ] = None,
    cap: Annotated[
        float | None, typer.Option(metavar="X", help="Largest weight, in mean weights.")
    ] = None,
    tolerance: Annotated[
        float | None, typer.Option(metavar="T", help="Imbalance allowed, in standard deviations.")
    ] = None,
    moments: Annotated[int, typer.Option(metavar="1|2|3", help="Powers balanced.")] = 1,
    interactions: Annotated[
        OptionalText, typer.Option(metavar="a:b,...", help="Products balanced too, or 'all'.")
    ] = None,
    bins: Annotated[
        int | None, typer.Option(metavar="N", help="Cut numbers at N quantiles.", min=2)
    ] = None,
    columns: Annotated[
        OptionalText, typer.Option(help="Balance only these, separated by commas.")
    ] = None,
    types: Annotated[
        OptionalText, typer.Option(help="Kinds of columns, as in zip=categorical,when=datetime.")
    ] = None,
    weights_q: Annotated[
        OptionalText, typer.Option("--weights-q", metavar="COL", help="Design weights of HAVE.")
    ] = None,
    weights_p: Annotated[
        OptionalText, typer.Option("--weights-p", metavar="COL", help="Design weights of WANT.")
    ] = None,
    id: Annotated[  # noqa: A002 - the option's name
        OptionalText, typer.Option("--id", metavar="COL", help="Row key, copied to the weights.")
    ] = None,
    label: Annotated[
        OptionalText, typer.Option(metavar="COL", help="Estimate it on p; never balanced.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE.parquet", help="The weights to write."),
    ] = None,
    save_model: Annotated[
        Path | None,
        typer.Option("--save-model", metavar="FILE.dpdq", help="Keep the weighter for new rows."),
    ] = None,
    apply: Annotated[
        Path | None,
        typer.Option("--apply", metavar="FILE.dpdq", help="Weight HAVE with a kept weighter."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder for the page and its numbers.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print balance.json.")] = False,
    engine: EngineName = Engines.local,
    n_jobs: Jobs = None,
    parts: Parts = None,
    rank: Rank = None,
    world_size: WorldSize = None,
    random_state: Seed = 0,
    debug: Debug = False,
) -> None:
    """Weight HAVE so that it behaves like WANT, and say what that is worth.

    Writes weights.parquet (-o), a weighter for rows never seen (--save-model), a page (--out).
    """
    with one_sentence(debug=debug):
        if apply is not None:
            others = {
                "WANT": want, "--targets": targets, "--cap": cap, "--tolerance": tolerance,
                "--interactions": interactions, "--bins": bins, "--columns": columns,
                "--types": types, "--weights-p": weights_p, "--label": label,
                "--save-model": save_model, "--out": out,
            }  # fmt: skip
            given = [name for name, value in others.items() if value is not None]
            if given:
                raise OptionError(f"--apply takes one data set, and {given[0]} belongs to a fit")
            if output is None:
                raise OptionError("--apply needs -o FILE.parquet, the weights to write")
            _apply(
                apply,
                have,
                output,
                id,
                weights_q,
                engine_of(engine, n_jobs, parts, rank, world_size),
                as_json,
            )
            return
        if engine is not Engines.local or parts is not None:
            raise OptionError("--engine and --parts belong to --apply; a fit runs in this process")
        if not (output or save_model or out or as_json):
            raise OptionError("nothing to write: give -o FILE.parquet, --out DIR or --json")
        if (want is None) == (targets is None):
            raise OptionError("give either WANT (rows of p) or --targets (totals), one of them")
        if out is not None:
            check_folder(out)
        from dpdq.comparison.balancing import balance, new_weighter

        if save_model is not None:
            from dpdq.reweight.saved import check_savable

            if save_model.suffix != ".dpdq":
                raise OptionError(f"--save-model names {save_model.name!r}; it must end in .dpdq")
            check_savable(type(new_weighter(method)))
        found = balance(
            have,
            want,
            method=method,
            targets=targets,
            weights_q=weights_q,
            weights_p=weights_p,
            id=id,
            label=label,
            columns=columns,
            types=kinds_of(types),
            moments=moments,
            interactions=_products(interactions),
            cap=cap,
            tolerance=tolerance,
            bins=bins,
            progress=True,
            random_state=random_state,
        )
        written: list[Path] = []
        try:
            if output is not None:
                found.write_weights(output)
                written.append(output)
            if save_model is not None:
                from dpdq.reweight.saved import save

                save(found.weighter, save_model)
                written.append(save_model)
            if out is not None:
                written += found.save(out).values()
        finally:
            found.close()
        if as_json:
            typer.echo(json.dumps(found.to_dict(), indent=1, allow_nan=False))
            return
        typer.echo(repr(found))
        typer.echo("")
        for path in written:
            typer.echo(f"wrote {path}")


def _apply(
    model: Path,
    new: str,
    output: Path,
    id: str | None,
    weights: str | None,
    engine: Engine,
    as_json: bool,
) -> None:
    from dpdq.comparison.applying import apply_weights

    found = apply_weights(model, new, output, id=id, weights=weights, engine=engine, progress=True)
    if as_json:
        typer.echo(json.dumps(found.to_dict(), indent=1, allow_nan=False))
        return
    typer.echo(found.status)
    typer.echo(f"wrote {output}")


def _products(text: str | None) -> list[tuple[str, ...]] | str:
    """Tuples of columns from ``a:b,a:c``, or ``all``."""
    if text is None:
        return []
    if text == "all":
        return text
    found = []
    for part in text.split(","):
        names = tuple(name.strip() for name in part.split(":"))
        if len(names) < 2 or not all(names):
            raise OptionError(f"--interactions holds {part!r}; write a:b,a:c, or all")
        found.append(names)
    return found
