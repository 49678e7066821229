"""The command line: ``dpdq compare HAVE WANT`` and its neighbours.

Exit codes: 0 the job finished; 1 it finished and found what ``--fail-on`` names; 2 it could not be
done, and one sentence on standard error says why (``--debug`` shows the traceback as well).
"""

from __future__ import annotations

import contextlib
import importlib.abc
import json
import signal
import sys
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from dpdq import __version__
from dpdq.errors import DpdqError, FileError, OptionError

__all__ = ["app", "main"]

app = typer.Typer(
    name="dpdq",
    help="Compare the data you have (q) with the data you want (p), and repair the difference.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

OptionalText = str | None


class Infinite(StrEnum):
    """What to do with infinite values."""

    refuse = "refuse"
    missing = "missing"


@contextlib.contextmanager
def _one_sentence(*, debug: bool) -> Iterator[None]:
    """Turn what goes wrong into one sentence on standard error and exit code 2."""

    def terminate(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    except DpdqError as error:
        if debug:
            raise
        _fail(str(error))
    except MemoryError as error:
        if debug:
            raise
        _fail(f"memory ran out: {error}; compare fewer columns or use --quick")
    except KeyboardInterrupt:
        if debug:
            raise
        _fail("interrupted; nothing was left half-written")
    finally:
        signal.signal(signal.SIGTERM, previous)


def _fail(sentence: str) -> None:
    sys.stderr.write("dpdq: " + " ".join(sentence.split()) + "\n")
    raise typer.Exit(2)


class _NoPandas(importlib.abc.MetaPathFinder):
    """Keeps Arrow from importing pandas, half a second, only to ask whether a value is of it."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name == "pandas":
            raise ModuleNotFoundError("a quick comparison of files meets no pandas", name=name)


def _check_folder(out: Path) -> None:
    """Refuse an output folder that cannot be one before any work is done."""
    if out.exists() and not out.is_dir():
        raise FileError(f"--out names {str(out)!r}, which is a file; name a folder")


def _types(text: str | None) -> dict[str, str] | None:
    if text is None:
        return None
    types = {}
    for part in text.split(","):
        name, equals, kind = part.rpartition("=")
        if not equals or not name.strip() or not kind.strip():
            raise OptionError(f"--types holds {part!r}; write column=kind, as in zip=categorical")
        types[name.strip()] = kind.strip()
    return types


def _found(comparison: object, fail_on: str) -> list[str]:
    """What a comparison found of the things that ``--fail-on`` names."""
    from dpdq.comparison.gates import found

    return found(comparison, fail_on)


@app.callback(invoke_without_command=True)
def _main(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)
    ] = False,
) -> None:
    if version:
        typer.echo(f"dpdq {__version__}")
        raise typer.Exit


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
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder for the page and the files.")
    ] = Path("dpdq-report"),
    as_json: Annotated[
        bool, typer.Option("--json", help="Print comparison.json; write nothing unless --out.")
    ] = False,
    random_state: Annotated[int, typer.Option(metavar="N", help="Seed.", min=0)] = 0,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Does WANT differ from HAVE, where, for whom, at what cost, and which weights repair it?

    Writes report.html, comparison.json, run.json and weights.parquet.
    """
    from dpdq.comparison import compare as run_compare
    from dpdq.comparison.gates import check_gates

    with _one_sentence(debug=debug):
        check_gates(fail_on)
        _check_folder(out)
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
            types=_types(types),
            tolerance=tolerance,
            tolerance_column=tolerance_column,
            infinite=infinite.value,
            quick=quick,
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
        reasons = _found(comparison, fail_on) if fail_on else []
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
    random_state: Annotated[int, typer.Option(metavar="N", help="Seed.", min=0)] = 0,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Keep HAVE as a reference file, to compare many batches with: dpdq compare ref.dpdq WANT."""
    from dpdq.comparison import profile as run_profile

    with _one_sentence(debug=debug):
        kept = run_profile(
            have,
            output,
            columns=columns,
            types=_types(types),
            rows=rows,
            progress=True,
            random_state=random_state,
        )
        typer.echo(kept)


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


@app.command()
def demo(
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder for the page and the files.")
    ] = Path("dpdq-demo"),
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Run the main job on bundled data: diabetes patients under 50 (q) and from 50 on (p)."""
    from dpdq.comparison.demo import run_demo

    with _one_sentence(debug=debug):
        _check_folder(out)
        comparison, written = run_demo(out)
        typer.echo(repr(comparison))
        typer.echo("")
        for path in written.values():
            typer.echo(f"wrote {path}")


def main() -> None:
    """Entry point of the ``dpdq`` command."""
    if "--quick" in sys.argv:
        sys.meta_path.insert(0, _NoPandas())
    app()


if __name__ == "__main__":
    main()
