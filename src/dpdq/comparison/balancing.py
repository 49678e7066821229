"""The job behind ``dpdq reweight``: weights of q towards p, and what they are worth.

Every number is that of a weighter of `dpdq.reweight`; this file reads the columns, asks each
question once and keeps the answers as JSON types, from which the page is drawn.
"""

from __future__ import annotations

import datetime
import inspect
import math
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import dpdq
from dpdq._random import child_seed
from dpdq.comparison.applying import WrittenWeights, design_values, write_weights
from dpdq.comparison.options import column_list, text_or_none
from dpdq.comparison.progress import Steps
from dpdq.comparison.totals import read_totals
from dpdq.data import open_source
from dpdq.data.writing import write_json, write_text
from dpdq.errors import DataError, FileError, OptionError
from dpdq.passes import BLOCK_ROWS
from dpdq.results import to_json_types

if TYPE_CHECKING:
    import pyarrow as pa

    from dpdq.data import Source
    from dpdq.reweight import Weighter

__all__ = ["Balancing", "balance", "method_names", "new_weighter"]

SCHEMA_VERSION = "1.0"

_METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "entropy": ("EntropyBalancing", {}),
    "cbps": ("CovariateBalancingPropensity", {"method": "exact"}),
    "cbps-over": ("CovariateBalancingPropensity", {"method": "over"}),
    "ipw": ("InversePropensityWeighting", {}),
    "raking": ("Raking", {}),
    "post-stratification": ("PostStratification", {}),
    "overlap": ("OverlapWeights", {}),
    "stable": ("StableBalancingWeights", {}),
    "kernel": ("KernelBalancing", {}),
    "energy": ("EnergyBalancing", {}),
}
_IMPRECISION = ("raking",)  # whose `tolerance` is where to stop, not an imbalance allowed
_REFITS = {"entropy": 1, "cbps": 1, "raking": 1, "post-stratification": 1, "ipw": 200}
_CHEAP = 2e8  # rows by margins by refits


def method_names() -> tuple[str, ...]:
    """Names of the methods that this dpdq has."""
    import dpdq.reweight

    return tuple(name for name, (kind, _) in _METHODS.items() if kind in dpdq.reweight.__all__)


def new_weighter(method: str, **options: Any) -> Weighter:
    """A weighter by its name on the command line.

    Parameters
    ----------
    method
        One of `method_names`.
    options
        ``cap``, ``tolerance``, ``bins``, ``random_state``; None for what was not given.

    Raises
    ------
    OptionError
        An unknown method, or an option that it does not have.
    """
    import dpdq.reweight

    if method not in method_names():
        shown = ", ".join(map(repr, method_names()))
        raise OptionError(f"Unknown method {method!r}. Choose one of {shown}.")

    def takes(each: str, option: str) -> bool:
        made = getattr(dpdq.reweight, _METHODS[each][0])
        imprecise = option == "tolerance" and each in _IMPRECISION
        return option in inspect.signature(made).parameters and not imprecise

    name, fixed = _METHODS[method]
    chosen = dict(fixed)
    for option, value in options.items():
        if value is None:
            continue
        if takes(method, option):
            chosen[option] = value
        elif option != "random_state":
            others = [each for each in method_names() if takes(each, option)]
            raise OptionError(
                f"{option} is of no use to method {method!r}; "
                f"it belongs to {', '.join(map(repr, others))}"
            )
    return getattr(dpdq.reweight, name)(**chosen)


class Balancing:
    """Weights of q towards p with everything that is said of them.

    Attributes
    ----------
    weighter
        The fitted weighter.
    run
        Versions, options and seconds.
    """

    def __init__(
        self,
        values: Mapping[str, Any],
        run: Mapping[str, Any],
        weighter: Weighter,
        source: Source,
        id: str | None,
        weights_q: str | None,
        design: np.ndarray | None,
    ) -> None:
        self._values = to_json_types(values)
        self.run = dict(run)
        self.weighter = weighter
        self._source, self._id, self._weights_q, self._design = source, id, weights_q, design

    def __repr__(self) -> str:
        from dpdq.report.balance_page import balance_summary

        return balance_summary(self._values)

    def to_dict(self) -> dict[str, Any]:
        """Every number of the page as JSON types: the content of ``balance.json``."""
        return to_json_types(self._values)

    def log_ratio(self) -> np.ndarray:
        """Log of weight over design weight, mean one; NaN where the design weight is 0."""
        weights = self.weighter.weights_
        design = np.ones(len(weights)) if self._design is None else self._design
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(design > 0, weights / np.where(design > 0, design, 1.0), np.nan)
            kept = design > 0
            ratio /= np.average(ratio[kept], weights=design[kept])
            return np.log(ratio)

    def write_weights(self, path: str | os.PathLike[str]) -> WrittenWeights:
        """Write ``row``, the id, ``log_ratio`` and ``weight`` of every row of q."""
        log_ratio = self.log_ratio()

        def blocks() -> Iterator[np.ndarray]:
            for start in range(0, len(log_ratio), BLOCK_ROWS):
                yield log_ratio[start : start + BLOCK_ROWS]

        return write_weights(path, blocks, self._source, id=self._id, weights=self._weights_q)

    def save(self, folder: str | os.PathLike[str]) -> dict[str, Path]:
        """Write ``report.html``, ``balance.json`` and ``run.json``, each whole or not at all."""
        from dpdq.report.balance_page import render_balance

        target = Path(folder)
        try:
            target.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FileError(f"cannot make the folder {str(target)!r}: {error.strerror}") from error
        write_json(target / "balance.json", self.to_dict())
        write_json(target / "run.json", to_json_types(self.run))
        write_text(target / "report.html", render_balance(self.to_dict(), self.run))
        return {name: target / name for name in ("balance.json", "run.json", "report.html")}

    def close(self) -> None:
        """Give back the files of q."""
        self._source.close()


def balance(
    q: Any,
    p: Any = None,
    *,
    method: str = "entropy",
    targets: str | os.PathLike[str] | Mapping[Any, Any] | None = None,
    weights_q: str | None = None,
    weights_p: str | None = None,
    id: str | None = None,
    label: str | None = None,
    columns: str | Sequence[str] | None = None,
    types: Mapping[str, str] | None = None,
    moments: int = 1,
    interactions: Sequence[Sequence[str]] | str = (),
    cap: float | None = None,
    tolerance: float | None = None,
    bins: int | None = None,
    progress: bool = False,
    random_state: int = 0,
) -> Balancing:
    """Weight the rows of q towards p (or towards totals) and say what that is worth.

    Parameters
    ----------
    q, p
        What one has and what one wants: whatever `dpdq.data.open_source` takes.
    method
        One of `method_names`.
    targets
        Population totals in place of p: a file as `read_totals` takes it, or a mapping.
    weights_q, weights_p
        Columns of design weights.
    id, label
        Columns that are copied to the weights, and that the estimate is about; never balanced.
    columns
        The covariates; default every common column without a role.
    types
        Kinds that override those inferred.
    moments, interactions
        As in a weighter's ``fit``.
    cap, tolerance, bins
        Options of the method.
    progress
        Draw how far the work is when standard error is a terminal.
    random_state
        Seed.

    Returns
    -------
    Balancing
        The weights, the numbers and the page.

    Raises
    ------
    OptionError
        Options outside their range, or that do not fit.
    DataError
        Data that cannot be used as they are.
    OverlapError
        No weights reach p; the message names the margin that fails.

    Notes
    -----
    Cost: the fit, and one more for each covariate where that is cheap; both sides in memory.
    Held by: tests/test_cli_reweight.py::test_weights_balance
    """
    started = datetime.datetime.now(datetime.UTC)
    if (p is None) == (targets is None):
        raise OptionError("give either p (rows) or targets (totals), one of them")
    if targets is not None and weights_p is not None:
        raise OptionError("weights_p needs rows of p; with targets there are none")
    roles = {"id": id, "label": label, "weights_q": weights_q, "weights_p": weights_p}
    for name, value in roles.items():
        text_or_none(value, name)
    taken = {value for value in roles.values() if value is not None}
    chosen = column_list(columns, "columns")
    for name in chosen or []:
        if name in taken:
            raise OptionError(f"column {name!r} has another role and is never balanced")
    weighter = new_weighter(
        method, cap=cap, tolerance=tolerance, bins=bins, random_state=random_state
    )
    with Steps(show=progress) as steps:
        with steps.step("read"):
            have = open_source(q, side="q")
            if have.reference is not None:
                raise DataError(
                    f"{have.label} is a reference, a sample of q; weights belong to rows, so give "
                    "the rows themselves"
                )
            sides = [have] if p is None else [have, open_source(p, side="p")]
            for side, names in zip(sides, ((id, label, weights_q), (weights_p,)), strict=False):
                _need(side, [name for name in names if name is not None])
            tables = [_covariates(side, sides, chosen, taken) for side in sides]
            design = [
                None if name is None else design_values(side.column(name), f"column {name!r}")
                for side, name in zip(sides, (weights_q, weights_p), strict=False)
            ]
        totals = targets
        if isinstance(targets, (str, os.PathLike)):
            totals = read_totals(targets, tables[0].column_names)
        with steps.step("fit"):
            weighter.fit(
                tables[0],
                None if p is None else tables[1],
                targets=totals if isinstance(totals, Mapping) else None,
                weights_q=design[0],
                weights_p=None if p is None else design[1],
                moments=moments,
                interactions=interactions,
                types=types,
            )
        values = _values(weighter, method)
        if label is not None:
            from dpdq.comparison.balanced_label import label_part

            with steps.step("label"):
                values |= label_part(weighter, sides, tables, design, label, _child(random_state))
        with steps.step("sensitivity"):
            values |= _sensitivity(weighter, method, values.pop("outcome", None))
        for side in sides[1:]:
            side.close()
    options = {
        "method": method, "moments": moments, "cap": cap, "tolerance": tolerance, "bins": bins,
        "interactions": to_json_types(interactions) or None, "columns": chosen, **roles,
        "types": dict(types or {}) or None, "random_state": random_state,
    }  # fmt: skip
    run = {
        "dpdq": dpdq.__version__,
        "python": platform.python_version(),
        "q": {"name": _file_name(q)},
        "p": {"name": _file_name(targets if p is None else p)},
        "options": options,
        "seconds": {name: round(took, 3) for name, took in steps.seconds.items()},
        "started": started.isoformat(timespec="seconds"),
    }
    return Balancing(values, run, weighter, have, id, weights_q, design[0])


def _child(seed: int) -> int:
    return child_seed(np.random.default_rng(seed))


def _file_name(data: Any) -> str | None:
    """The name of a file, None for what is in memory."""
    return os.path.basename(os.fspath(data)) if isinstance(data, (str, os.PathLike)) else None


def _need(source: Source, names: Sequence[str]) -> None:
    for name in names:
        if name not in source.schema.names:
            shown = ", ".join(map(repr, source.schema.names[:20]))
            raise DataError(f"{source.label} has no column {name!r}; it has {shown}")


def _covariates(
    side: Source, sides: Sequence[Source], chosen: list[str] | None, taken: set[str]
) -> pa.Table:
    import pyarrow as pa

    names = chosen
    if names is None:
        names = [name for name in side.schema.names if name not in taken]
        if not names:
            raise DataError(f"{side.label} has no column left to balance")
    else:
        _need(side, names)
    schema = pa.schema([side.schema.field(name) for name in names])
    return pa.Table.from_batches(list(side.batches(names)), schema=schema)


def _values(weighter: Weighter, method: str) -> dict[str, Any]:
    """What the page is drawn from, as far as the fit alone says it."""
    from dpdq.weights import Weights

    report = weighter.diagnostics()
    weights = Weights.from_values(weighter.weights_)
    margins = [
        {
            "name": each.margin,
            "columns": list(each.columns),
            "mean_q": each.mean_q,
            "mean_weighted": each.mean_weighted,
            "target": each.target,
            "before": each.smd_before,
            "after": each.smd_after,
        }
        for each in report.margins
    ]
    margins.sort(key=lambda row: (-abs(row["before"]), row["name"]))
    reached = report.largest_after <= 0.1 and report.target == "p"
    return {
        "schema_version": SCHEMA_VERSION,
        "method": method,
        "estimator": report.method,
        "target": report.target,
        "rows": {"q": len(weighter.weights_), "p": report.n_p, "used": report.n_q,
                 "zero": report.n_zero},
        "verdict": {
            "reached": reached,
            "ok": reached and weights.ok,
            "sentence": _sentence(report, weights, reached),
        },
        "weights": {
            "effective_sample_size": report.effective_sample_size,
            "share_effective": report.effective_sample_size / report.n_q,
            "design_effect": report.design_effect,
            "khat": report.khat,
            "khat_limit": weights.khat_limit,
            "largest": report.largest_weight,
            "top_one_percent_share": weights.share_of_top(),
            "ok": weights.ok,
            "sentence": weights.status,
        },
        "balance": {
            "largest_before": report.largest_before,
            "largest_after": report.largest_after,
            "worst_margin": report.worst_margin,
            "margins": margins,
        },
        "histogram": _histogram(weighter.weights_),
        "columns_left_out": list(report.columns_left_out),
        "status": report.status,
        "label": None,
        "advice": None,
        "concept_shift": None,
        "warnings": [],
    }  # fmt: skip


def _sentence(report: Any, weights: Any, reached: bool) -> str:
    worth = (
        f"{report.n_q:,} rows of q are worth {report.effective_sample_size:,.0f} (design effect "
        f"{report.design_effect:.3g})"
    )
    if report.target != "p":
        return f"The weights stand for the {report.target} of q and p, not for p itself: {worth}."
    if not reached:
        return (
            f"Weighting does not reach p: {report.worst_margin} stays "
            f"{report.largest_after:.2g} standard deviations off, and {worth}."
        )
    k = len(report.margins)
    after = "none" if report.largest_after < 1e-6 else f"{report.largest_after:.2g}"
    balanced = (
        f"{f'all {k} margins balance' if k > 1 else 'the margin balances'} (largest difference "
        f"{report.largest_before:.2g} standard deviations before, {after} after)"
    )
    if not weights.ok:
        return f"Weighting reaches p at too high a price: {balanced}, but {worth}."
    return f"Weighting reaches p: {balanced}, and {worth}."


def _histogram(weights: np.ndarray) -> dict[str, Any]:
    """Shares of rows by weight, in bins whose edges are powers of two."""
    positive = weights[weights > 0]
    low = max(math.floor(math.log2(positive.min())), -7)
    high = min(max(math.ceil(math.log2(positive.max() * (1 + 1e-12))), low + 1), 12)
    edges = [2.0**power for power in range(low, high + 1)]
    inner = np.searchsorted(edges[1:-1], weights, side="right")
    counts = np.bincount(inner, minlength=len(edges) - 1).astype(float)
    if positive.min() < edges[0] or len(positive) < len(weights):
        below = float(np.count_nonzero(weights < edges[0]))
        counts[0] -= below
        counts, edges = np.concatenate([[below], counts]), [0.0, *edges]
    return {"edges": edges, "q": (counts / len(weights)).tolist()}


def _sensitivity(weighter: Weighter, method: str, outcome: np.ndarray | None) -> dict[str, Any]:
    """The weights without each covariate in turn, where that is cheap."""
    columns = {name for margin in weighter.diagnostics().margins for name in margin.columns}
    work = len(weighter.weights_) * len(weighter.margins_) * len(columns)
    if method not in _REFITS or work * _REFITS[method] > _CHEAP:
        reason = "fitting again without each covariate would take long"
        return {"sensitivity": None, "sensitivity_reason": reason}
    if len(columns) < 2:
        return {"sensitivity": None, "sensitivity_reason": "there is one covariate"}
    found = [each.to_dict() for each in weighter.sensitivity(outcome)]
    return {"sensitivity": found, "sensitivity_reason": None}
