"""What the commands share: the application, options in common, errors as one sentence."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from dpdq.errors import DpdqError, FileError, OptionError

if TYPE_CHECKING:
    from dpdq.engine import Engine

__all__ = [
    "Debug",
    "EngineName",
    "Engines",
    "Folder",
    "Infinite",
    "Jobs",
    "OptionalText",
    "Parts",
    "Rank",
    "Seed",
    "WorldSize",
    "app",
    "check_folder",
    "engine_of",
    "kinds_of",
    "one_sentence",
]

app = typer.Typer(
    name="dpdq",
    help="Compare the data you have (q) with the data you want (p), and repair the difference.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

OptionalText = str | None


class Engines(StrEnum):
    """Where passes over all rows run."""

    local = "local"
    pool = "pool"
    shards = "shards"
    ray = "ray"


EngineName = Annotated[
    Engines,
    typer.Option("--engine", help="Where passes run: this process, a pool, shards, Ray."),
]
Jobs = Annotated[int | None, typer.Option("--n-jobs", help="Workers of a pool or of Ray.", min=1)]
Parts = Annotated[
    Path | None,
    typer.Option("--parts", metavar="DIR", help="Keep finished parts there, and go on from them."),
]
Rank = Annotated[int | None, typer.Option(help="Number of this shard, from 0.", min=0)]
WorldSize = Annotated[int | None, typer.Option(help="Number of shards.", min=1)]
Seed = Annotated[int, typer.Option(metavar="N", help="Seed.", min=0)]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks.")]
Folder = Annotated[Path, typer.Option(metavar="DIR", help="Folder for the page and the files.")]


class Infinite(StrEnum):
    """What to do with infinite values."""

    refuse = "refuse"
    missing = "missing"


@contextlib.contextmanager
def one_sentence(*, debug: bool) -> Iterator[None]:
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


def check_folder(out: Path) -> None:
    """Refuse an output folder that cannot be one before any work is done."""
    if out.exists() and not out.is_dir():
        raise FileError(f"--out names {str(out)!r}, which is a file; name a folder")


def kinds_of(text: str | None) -> dict[str, str] | None:
    """Kinds of columns from ``zip=categorical,when=datetime``."""
    if text is None:
        return None
    types = {}
    for part in text.split(","):
        name, equals, kind = part.rpartition("=")
        if not equals or not name.strip() or not kind.strip():
            raise OptionError(f"--types holds {part!r}; write column=kind, as in zip=categorical")
        types[name.strip()] = kind.strip()
    return types


def engine_of(
    name: Engines, n_jobs: int | None, parts: Path | None, rank: int | None, world_size: int | None
) -> Engine:
    """The engine that the options name."""
    from dpdq.engine import Engine

    return Engine(name.value, folder=parts, n_jobs=n_jobs, rank=rank, world_size=world_size)
