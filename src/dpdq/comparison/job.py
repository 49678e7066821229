"""`compare` and `profile`: the main job, step by step."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

import dpdq
from dpdq._random import RandomState, as_generator, child_seed
from dpdq.comparison.columns_part import columns_part, compare_columns, schema_part
from dpdq.comparison.options import Options, column_list
from dpdq.comparison.progress import Steps
from dpdq.comparison.result import SCHEMA_VERSION, Comparison
from dpdq.comparison.sides import Side, open_sides, plan_columns, scan_both
from dpdq.comparison.verdict import verdict
from dpdq.data import bottom_k_rows, common_rows, infer_columns, open_source, units_for_tests
from dpdq.errors import DataError

if TYPE_CHECKING:
    from dpdq.comparison.sides import Plan
    from dpdq.data import Column
    from dpdq.engine import Engine

__all__ = ["SAMPLE_ROWS", "compare", "profile"]

SAMPLE_ROWS = 20_000
QUICK_REASON = "not run: a quick comparison looks at the columns only"
CAVEAT = "valid only if P(Y|X) is unchanged"


def compare(
    q: Any,
    p: Any,
    *,
    label: str | None = None,
    prediction: str | None = None,
    prediction_proba: str | None = None,
    id: str | None = None,  # noqa: A002 - the option's name
    group: str | None = None,
    time: str | None = None,
    columns: str | Sequence[str] | None = None,
    types: Mapping[str, str] | None = None,
    tolerance: float = 0.5,
    tolerance_column: float = 0.0,
    infinite: str = "refuse",
    quick: bool = False,
    encoder: Callable[[Any], Any] | None = None,
    engine: str | Engine = "local",
    progress: bool = False,
    random_state: RandomState = None,
) -> Comparison:
    """Say whether p differs from q, where, for whom, at what cost, and which weights repair it.

        r = dP/dQ  is estimated once; verdict, divergences, overlap, weights, slices and
        performance on p are read off it

    It misleads where rows depend on each other and ``group`` or ``time`` does not say so: a
    classifier then recognises neighbours and reports a shift that is not there. Performance on p
    is right only if P(Y|X) is unchanged; where both sides carry labels that is tested.

    Parameters
    ----------
    q, p
        The data you have and the data you want: a path (file, folder, glob), a pandas, Polars or
        Arrow table, a NumPy array or torch tensor ``(n, d)``; q may be a reference file made by
        `profile`. With ``encoder``: a sequence of items.
    label
        Column that a model predicts.
    prediction, prediction_proba
        Column with a model's output: a class or a number; or the probability of the positive
        class. At most one of the two.
    id
        Row key, copied to the outputs.
    group
        Rows with one value belong together: one fold, permuted as one.
    time
        Orders the rows; folds and permutations then use contiguous blocks of time.
    columns
        The columns to compare; default all that both sides have. Columns with a role (label,
        prediction, id, group, time) are never features.
    types
        Kinds of columns that override what is inferred, as in ``{"zip": "categorical"}``.
    tolerance
        The AUC up to which a difference is tolerated; 0.5 tolerates none.
    tolerance_column
        The PSI up to which a column's difference is tolerated.
    infinite
        ``"refuse"``, or ``"missing"`` to treat infinite values as missing.
    quick
        Columns only: schema, tests, effects and histograms.
    encoder
        Turns a block of at most 256 items into an array ``(n, d)``, for images and texts.
    engine
        Where the passes over all rows run: ``"local"``, ``"pool"``, ``"ray"``, or a
        `dpdq.engine.Engine` with options; the results are the same.
    progress
        Draw progress bars when standard error is a terminal.
    random_state
        Seed of samples, folds and permutations.

    Returns
    -------
    Comparison
        Its attributes are the keys of ``comparison.json``.

    Raises
    ------
    DataError
        What cannot be compared: no common column, too few rows, infinite values.
    OptionError
        An option outside its range.

    Notes
    -----
    Cost: two reads of every row and one of every column; models learn from at most 20,000 rows a
    side, the kernel test sees 5,000, effect and divergences a million. Memory: about 30 bytes a row
    of each side, the sorts of one column, and a block.

    Examples
    --------
    >>> import numpy as np
    >>> import dpdq
    >>> rng = np.random.default_rng(0)
    >>> have, want = rng.normal(0, 1, (400, 3)), rng.normal(0.5, 1, (300, 3))
    >>> c = dpdq.compare(q=have, p=want, random_state=0)
    >>> c.verdict.shifted
    True
    """
    options = Options.checked(
        label=label,
        prediction=prediction,
        prediction_proba=prediction_proba,
        id=id,
        group=group,
        time=time,
        columns=columns,
        types=types,
        tolerance=tolerance,
        tolerance_column=tolerance_column,
        infinite=infinite,
        quick=quick,
        encoder=encoder,
        engine=engine,
    )
    generator = as_generator(random_state)
    started = datetime.datetime.now(datetime.UTC)
    with Steps(show=progress) as steps:
        with steps.step("open"):
            have, want = open_sides(q, p, options)
        try:
            job = _Job(have, want, options, steps, child_seed(generator))
            values = job.run()
            run = _run_record(options, steps, started, have, want, random_state)
            return Comparison(
                values,
                run=run,
                log_ratio_q=None if options.quick else have.log_ratio,
                log_ratio_p=None if options.quick else want.log_ratio,
                log_weights=job.log_weights,
                keys=_keys(have, options.id),
                id_column=options.id if have.has(options.id) else None,
                like=q,
            )
        except BaseException:
            have.source.close()
            raise
        finally:
            want.source.close()


def _keys(side: Side, name: str | None) -> Callable[[], Iterator[pa.RecordBatch]] | None:
    if not side.has(name):
        return None
    return lambda: side.source.batches([str(name)])


class _Job:
    """One comparison under way."""

    def __init__(self, q: Side, p: Side, options: Options, steps: Steps, seed: int) -> None:
        self.q, self.p, self.options, self.steps, self.seed = q, p, options, steps, seed
        self.log_weights: np.ndarray | None = None

    def run(self) -> dict[str, Any]:
        """Do the steps and return the content of ``comparison.json``."""
        q, p, options, steps = self.q, self.p, self.options, self.steps
        plan = plan_columns(q, p, options)
        with steps.step("sample"):
            columns, sample_q, sample_p = self._sample(plan)
        with steps.step("scan", q.n_rows + p.n_rows) as advance:
            scan_both(q, p, columns, options, advance)
            shared = common_rows(q.content, p.content).to_dict()
            pa.default_memory_pool().release_unused()
        values: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "rows": {"q": q.n_rows, "p": p.n_rows, "used": {}},
        }
        full = None
        if not options.quick:
            from dpdq.comparison.full import FullParts

            full = FullParts(q, p, options, steps, self.seed, columns, sample_q, sample_p, shared)
            full.estimate()
            pa.default_memory_pool().release_unused()
            self.log_weights = full.log_weights
        with steps.step("columns", len(columns)) as advance:
            results = compare_columns(
                q,
                p,
                columns,
                weights=None if full is None else full.weights,
                units=self._units(),
                infinite=options.infinite,
                seed=self.seed,
                advance=advance,
            )
        values["schema"] = schema_part(q, p, plan, columns, results, shared)
        parts: dict[str, Any] = dict.fromkeys(_FULL_PARTS)
        parts |= {"slices": [], "outliers": [], "performance_caveat": CAVEAT}
        warnings = [*plan.warnings, *q.source.notes, *p.source.notes]
        used = {"columns": {"q": q.n_rows, "p": p.n_rows}}
        if full is None:
            parts["verdict"] = verdict(
                pvalue=None,
                pvalue_reason=QUICK_REASON,
                auc=None,
                tolerance=options.tolerance,
                detectable={"auc": None, "smd": None},
                concept=None,
                overlap_ok=None,
                common_rows=shared,
            )
        else:
            parts |= full.parts()
            used |= full.used
            warnings += full.warnings
        values["rows"]["used"] = used
        values |= parts
        values["columns"] = columns_part(results, options.tolerance_column)
        if full is None:
            moved = sum(row["shifted"] for row in values["columns"])
            values["verdict"]["sentence"] = (
                f"{moved} of {len(results)} columns moved by more than you tolerate. A quick "
                "comparison stops here: the verdict, the ratio and the weights need a full one."
            )
        values["warnings"] = warnings + _column_warnings(values["columns"], options)
        return {name: values[name] for name in _ORDER}

    def _sample(self, plan: Plan) -> tuple[list[Column], pa.Table, pa.Table]:
        """Draw rows, infer the kinds, and leave out what cannot be a feature."""
        q, p, options = self.q, self.p, self.options
        tables = []
        for side in (q, p):
            side.rows = bottom_k_rows(side.n_rows, SAMPLE_ROWS, self.seed)
            tables.append(side.source.take(side.rows, plan.features))
        reference = getattr(q.source, "reference", None)
        known = dict(reference.kinds) if reference is not None else {}
        types = {name: kind for name, kind in known.items() if name in plan.features}
        types |= {name: kind for name, kind in options.types.items() if name in plan.features}
        columns = infer_columns(tables[0], tables[1], types=types, rows_q=q.rows, rows_p=p.rows)
        kept = {column.name for column in columns}
        for name in plan.features:
            if name not in kept:
                plan.ignored.append({"name": name, "reason": "no kind fits both sides"})
        if not columns:
            raise DataError("no common column has a kind that can be compared")
        return columns, tables[0], tables[1]

    def _units(self) -> tuple[np.ndarray, np.ndarray] | None:
        return units_for_tests(
            group_q=self.q.group, group_p=self.p.group, time_q=self.q.time, time_p=self.p.time
        )


_FULL_PARTS = (
    "verdict",
    "kernel_test",
    "classifier_test",
    "divergences",
    "ratio",
    "overlap",
    "weights",
    "balance",
    "slices",
    "outliers",
    "label",
    "label_shift",
    "concept_shift",
    "performance",
    "performance_caveat",
)
_ORDER = (
    "schema_version",
    "rows",
    "schema",
    "verdict",
    "kernel_test",
    "classifier_test",
    "divergences",
    "columns",
    *(name for name in _FULL_PARTS[4:]),
    "warnings",
)


def _column_warnings(columns: list[dict[str, Any]], options: Options) -> list[str]:
    """Name columns that give the sides away."""
    found = []
    for row in columns:
        distance = row.get("jensen_shannon")
        if distance is not None and distance > 0.62:
            roles = [role for role in ("id", "time") if getattr(options, role) is None]
            advice = " or ".join(f"--{role}" for role in roles) or "--columns"
            found.append(
                f"Column {row['name']!r} alone tells the sides almost perfectly apart. If it is a "
                f"key, a date or a batch name, say so with {advice}, or leave it out."
            )
    return found


def _run_record(
    options: Options,
    steps: Steps,
    started: datetime.datetime,
    q: Side,
    p: Side,
    random_state: RandomState,
) -> dict[str, Any]:
    packages = {}
    for name in ("numpy", "scipy", "scikit-learn", "pyarrow"):
        packages[name] = importlib.metadata.version(name)
    seed = random_state if isinstance(random_state, (int, np.integer)) else None
    return {
        "dpdq": dpdq.__version__,
        "python": platform.python_version(),
        "packages": packages,
        "q": {"name": q.source.label},
        "p": {"name": p.source.label},
        "options": options.to_dict() | {"random_state": None if seed is None else int(seed)},
        "seconds": {name: round(took, 3) for name, took in steps.seconds.items()}
        | {"total": round(sum(steps.seconds.values()), 3)},
        "started": started.isoformat(timespec="seconds"),
    }


def profile(
    q: Any,
    path: str | os.PathLike[str],
    *,
    columns: str | Sequence[str] | None = None,
    types: Mapping[str, str] | None = None,
    rows: int = 100_000,
    progress: bool = False,
    random_state: RandomState = None,
) -> str:
    """Keep q as a reference file, to be compared with many batches of p.

    The file is a zip of JSON and ``.npy``: at most ``rows`` rows drawn uniformly without
    replacement, the kinds of the columns, and how many rows they stand for.

    Parameters
    ----------
    q
        The data you have, in any form that `compare` takes.
    path
        The file to write; its name should end in ``.dpdq``.
    columns
        Columns to keep; default all.
    types
        Kinds that override what is inferred.
    rows
        Rows to keep at most.
    progress
        Draw progress bars when standard error is a terminal.
    random_state
        Seed of the sample.

    Returns
    -------
    str
        One sentence that says what was kept.

    Raises
    ------
    DataError
        If a named column is absent or the data have fewer than two rows.
    FileError
        If the file cannot be written.
    """
    from dpdq.data import Reference

    if Path(path).suffix != ".dpdq":
        from dpdq.errors import OptionError

        raise OptionError(f"the reference is named {str(path)!r}; its name must end in .dpdq")
    chosen = column_list(columns, "columns")
    with Steps(show=progress) as steps:
        with steps.step("open"):
            source = open_source(q, side="q")
        try:
            if source.n_rows < 2:
                raise DataError(f"{source.label} has {source.n_rows} rows; a reference needs two")
            for name in [*(chosen or []), *(types or {})]:
                if name not in source.schema.names:
                    raise DataError(f"column {name!r} is absent from {source.label}")
            names = chosen or list(source.schema.names)
            seed = child_seed(as_generator(random_state))
            with steps.step("kinds of columns"):
                kept = bottom_k_rows(source.n_rows, SAMPLE_ROWS, seed)
                sample = source.take(kept, names)
                known = {name: kind for name, kind in (types or {}).items() if name in names}
                columns_found = infer_columns(sample, sample, types=known)
            kinds = {column.name: column.kind for column in columns_found}
            with steps.step("keep rows"):
                Reference.save(path, source, kinds=kinds, rows=rows, seed=seed)
            stored = min(rows, source.n_rows)
            return (
                f"wrote {path}: {stored:,} of {source.n_rows:,} rows, {len(names)} columns; "
                f"compare it with: dpdq compare {path} WANT"
            )
        finally:
            source.close()
