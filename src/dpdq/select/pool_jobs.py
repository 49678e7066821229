"""The job ``dpdq select``: rows of a pool, from files of any size, within a budget.

    target -> utility;  one pass over the pool scores every row;  a mechanism keeps rows;
    a second pass writes them

Both passes run on any engine and keep one block and about 130 bytes a row in memory. What is told
beside the rows: what the score costs and what a random draw would have brought, how often rows of
each source and length are kept, and how much of the score is source and length alone.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from dpdq._random import RandomState, as_generator, child_seed
from dpdq.data.sampling import bottom_k_rows
from dpdq.data.sources import Source, reading
from dpdq.engine import Engine
from dpdq.errors import DataError, OptionError
from dpdq.results import Result
from dpdq.select._base import Price, Utility, pilot_price
from dpdq.select.chosen import Selection
from dpdq.select.mechanisms import gumbel_top_k, top_k
from dpdq.select.ngrams import DSIR, NGramRatio, joined_text, text_columns
from dpdq.select.nuisance import conditional_utility
from dpdq.select.pool_files import FlatUtility, ScoreTexts, score_column, source_labels

if TYPE_CHECKING:
    from dpdq.select.nuisance import ConditionalUtility

__all__ = ["UNITS", "UTILITIES", "PoolSelection", "select_rows"]

UNITS = ("rows", "tokens", "bytes")
FIT_TEXTS = 20_000


def _compression() -> Utility:
    from dpdq.select.compression import CompressionAlignment

    return CompressionAlignment()


def _classifier() -> Utility:
    from dpdq.select.text_classifier import TextClassifierRatio

    return TextClassifierRatio()


UTILITIES: dict[str, Callable[[], Utility]] = {
    "ngram": NGramRatio,
    "dsir": DSIR,
    "zip": _compression,
    "classifier": _classifier,
}
"""Utility of texts by its name on the command line."""

LABELLED = "knn-shapley"
"""The utility of labelled rows, which needs no text."""


@dataclasses.dataclass(frozen=True, repr=False)
class PoolSelection(Result):
    """Rows of a pool within a budget, and what the choice did.

    Attributes
    ----------
    selection
        The rows and why.
    utility_name
        What scored them.
    price
        What scoring was expected to cost, before it started.
    seconds
        What fitting and scoring took, and what a random draw of equal size took.
    tokens, bytes
        Of every row of the pool, shape (n_pool,).
    nuisance
        How much of the score source and length explain.
    keep_rates
        By source, where one is known, and by length: rows as dictionaries.
    lift
        Mean utility of the kept rows less that of a random draw of as many, in standard deviations
        of the pool's utility.
    text
        The columns that were read.
    status
        The job in a sentence.
    """

    selection: Selection
    utility_name: str
    price: Price | None
    seconds: Mapping[str, float]
    tokens: np.ndarray
    bytes: np.ndarray
    nuisance: ConditionalUtility
    keep_rates: Mapping[str, list[dict[str, Any]]]
    lift: float
    text: tuple[str, ...]
    status: str = ""

    def summary(self) -> dict[str, Any]:
        """The choice as JSON types, without the rows."""
        chosen = self.selection
        return {
            "status": self.status,
            "rows": {"pool": chosen.n_pool, "kept": len(chosen)},
            "mechanism": chosen.mechanism,
            "utility": self.utility_name,
            "text": list(self.text),
            "cost": chosen.cost,
            "budget": chosen.budget,
            "unit": chosen.unit,
            "threshold": chosen.threshold,
            "price": None if self.price is None else self.price.to_dict(),
            "seconds": dict(self.seconds),
            "lift": self.lift,
            "explained": {
                "all": self.nuisance.explained,
                **dict(self.nuisance.by_column),
                "sentence": self.nuisance.status,
            },
            "keep_rates": dict(self.keep_rates),
        }


def select_rows(
    pool: Any,
    target: Any = None,
    *,
    budget: float | None = None,
    fraction: float | None = None,
    unit: str = "rows",
    utility: str | Utility = "ngram",
    text: Sequence[str] | None = None,
    score: str | None = None,
    label: str | None = None,
    source_column: str | None = None,
    quota: tuple[str, Mapping[str, float] | str] | None = None,
    mechanism: str = "top",
    temperature: float = 1.0,
    conditional: bool = False,
    engine: str | Engine = "local",
    progress: Callable[[str, int, int], None] | None = None,
    on_price: Callable[[Price], None] | None = None,
    random_state: RandomState = None,
) -> PoolSelection:
    """Choose rows of a pool that are most like a target, within a budget.

        u(x) by the utility;   keep the largest u, or a Gumbel draw, while the budget lasts

    Parameters
    ----------
    pool
        q: whatever `dpdq.data.open_source` reads; files may be larger than memory.
    target
        p: the same, or a list of such; not needed with ``score``.
    budget
        How much to keep, in ``unit``.
    fraction
        Share of the pool to keep instead, in ``unit``.
    unit
        ``"rows"``, ``"tokens"`` (words and runs of marks) or ``"bytes"`` of text.
    utility
        A name of `UTILITIES`, or a utility of texts with ``fit(q, p)``; the pool's part of the fit
        reads all rows for n-grams and 20,000 of them for others. ``"knn-shapley"`` values rows by
        how much they help to predict the target's ``label``.
    text
        Columns of text; default those called text, content, document or body, else all.
    score
        A column of numbers to use as utility in place of a model.
    label
        What ``"knn-shapley"`` predicts.
    source_column
        Where rows come from, for the report; default the column of ``quota``, or one that is
        called source, domain or origin.
    quota
        Column, and shares of the budget by its levels, or ``"equal"``, or ``"pool"`` for their
        shares of the pool.
    mechanism
        ``"top"`` or ``"gumbel"``.
    temperature
        Of the Gumbel draw.
    conditional
        Rank rows within strata of equal source and length, so that the score cannot merely sort
        by these.
    engine
        Where passes over the pool run; see `dpdq.engine.Engine`.
    progress
        Called with the step's name, rows done and rows in all.
    on_price
        Called with the price before the pool is scored.
    random_state
        Seed of draws, ties and controls.

    Returns
    -------
    PoolSelection
        The rows kept and the report.

    Raises
    ------
    OptionError
        Options that do not fit together.
    DataError
        A column is absent or of the wrong type, or the pool is empty.

    Notes
    -----
    Cost: one pass to fit (n-grams) and one to score; about 130 bytes a row and a block of memory.
    Held by: tests/select/test_pool_jobs.py::test_all_engines_select_the_same_rows

    Examples
    --------
    >>> from dpdq.select import select_rows
    >>> pool = {"text": ["def f(x): return x", "the cat sat", "print(1)", "a dog"] * 25}
    >>> chosen = select_rows(pool, {"text": ["return 1", "print(x)"]}, budget=50, random_state=0)
    >>> sorted(set(int(row) % 4 for row in chosen.selection.rows))
    [0, 2]
    """
    where = engine if isinstance(engine, Engine) else Engine(engine)
    where.check()
    _check(budget, fraction, unit, utility, score, target, mechanism)
    if (label is not None) != (utility == LABELLED):
        raise OptionError(f"label and utility {LABELLED!r} belong together: what is predicted")
    seed = child_seed(as_generator(random_state))
    note = progress or (lambda _step, _done, _all: None)
    with reading(pool, side="q") as source:
        if source.n_rows == 0:
            raise DataError(f"{source.label} is empty; there is nothing to select")
        origin = _origin(source, source_column, quota)
        seconds: dict[str, float] = {}
        price = None
        if score is not None:
            values = score_column(source, score)
            names, sized = _sizes(source, text, unit, where)
            name = f"column {score}"
        elif label is not None:
            from dpdq.select.labelled_pools import value_rows

            start = time.perf_counter()
            values, price = value_rows(
                source, _targets(target)[0], label, columns=text, on_price=on_price
            )
            seconds["score"] = time.perf_counter() - start
            names, sized = _sizes(source, None, unit, where)
            name = "KNNShapley"
        else:
            model: Utility = UTILITIES[utility]() if isinstance(utility, str) else utility
            names = text_columns(source, text)
            start = time.perf_counter()
            _fit(model, source, target, names, where)
            seconds["fit"] = time.perf_counter() - start
            price = _price(model, source, names)
            if on_price is not None:
                on_price(price)
            start = time.perf_counter()

            def report(done: int) -> None:
                note("score", done, source.n_rows)

            if isinstance(model, NGramRatio):
                parts = model.score_source(source, names, where, progress=report)
                values, sized = model.utility_of(parts), parts[:, 2:]
            else:
                job = ScoreTexts(model, names)
                parts = where.run(job, source, progress=report)
                values, sized = parts[:, 0], parts[:, 1:]
            seconds["score"] = time.perf_counter() - start
            name = type(model).__name__
        labels = None if origin is None else source_labels(source, origin)
    tokens, sizes = sized[:, 0], sized[:, 1]
    nuisances = {"length": tokens if tokens.any() else np.arange(len(values)) * 0.0}
    if labels is not None and origin is not None:
        nuisances = {origin: labels, **nuisances}
    told = conditional_utility(values, nuisances, seed=seed)
    judged = told.utility if conditional else values
    cost = None if unit == "rows" else tokens if unit == "tokens" else sizes
    total = float(len(values) if cost is None else cost.sum())
    limit = float(budget) if budget is not None else float(fraction or 0.0) * total

    def keep(rows: np.ndarray, most: float) -> Selection:
        options: dict[str, Any] = {"n": round(most)} if cost is None else {
            "budget": most, "cost": cost[rows], "unit": unit}  # fmt: skip
        if mechanism == "top":
            return top_k(judged[rows], **options, seed=seed)
        return gumbel_top_k(judged[rows], **options, temperature=temperature, random_state=seed)

    if quota is None:
        chosen = keep(np.arange(len(values)), limit)
    else:
        chosen = _by_quota(judged, labels, quota, limit, unit, keep)
    chosen = dataclasses.replace(chosen, utility=values)
    start = time.perf_counter()
    control = chosen.random_control(seed)
    seconds["random draw"] = time.perf_counter() - start
    finite = values > -np.inf
    spread = float(values[finite].std()) if finite.any() else 0.0
    drawn = control.rows[finite[control.rows]]
    lift = 0.0
    if spread > 0 and len(chosen) and len(drawn):
        lift = float((values[chosen.rows].mean() - values[drawn].mean()) / spread)
    rates = {key: chosen.keep_rates(column).to_pylist() for key, column in nuisances.items()}
    status = f"{chosen.status} by {name}; {told.status}"
    return PoolSelection(
        selection=chosen,
        utility_name=name,
        price=price,
        seconds=seconds,
        tokens=tokens,
        bytes=sizes,
        nuisance=told,
        keep_rates=rates,
        lift=lift,
        text=tuple(names),
        status=status,
    )


def _check(
    budget: float | None,
    fraction: float | None,
    unit: str,
    utility: str | Utility,
    score: str | None,
    target: Any,
    mechanism: str,
) -> None:
    if (budget is None) == (fraction is None):
        raise OptionError("give budget or fraction, one of them")
    if budget is not None and not budget > 0:
        raise OptionError(f"budget is {budget}; expected above 0")
    if fraction is not None and not 0 < fraction <= 1:
        raise OptionError(f"fraction is {fraction}; expected above 0, at most 1")
    for name, value, known in (("unit", unit, UNITS), ("mechanism", mechanism, ("top", "gumbel"))):
        if value not in known:
            raise OptionError(
                f"Unknown {name} {value!r}. Choose one of {', '.join(map(repr, known))}."
            )
    if isinstance(utility, str) and utility not in (*UTILITIES, LABELLED):
        known_names = ", ".join(map(repr, (*UTILITIES, LABELLED)))
        raise OptionError(f"Unknown utility {utility!r}. Choose one of {known_names}.")
    if (score is None) == (target is None):
        raise OptionError("give a target to be like, or a column of scores, one of them")


def _targets(target: Any) -> list[Any]:
    return list(target) if isinstance(target, list) and target and not _is_row(target) else [target]


def _is_row(target: list[Any]) -> bool:
    return isinstance(target[0], (dict, int, float))


def _fit(model: Utility, source: Source, target: Any, names: Sequence[str], engine: Engine) -> None:
    parts = []
    for each in _targets(target):
        with reading(each, side="p") as side:
            columns = [name for name in names if name in side.schema.names]
            own = text_columns(side, columns or None)
            parts += [joined_text(batch, own) for batch in side.batches(own)]
    texts = pa.concat_arrays(parts) if parts else pa.array([], pa.large_string())
    if isinstance(model, NGramRatio):
        model.fit_counts(source, texts, names, engine)
        return
    rows = bottom_k_rows(source.n_rows, FIT_TEXTS)
    sample = joined_text(source.take(rows, list(names)), names)
    fit: Any = getattr(model, "fit")  # noqa: B009 - each utility has its own signature
    fit(sample, texts)


def _price(model: Utility, source: Source, names: Sequence[str]) -> Price:
    rows = bottom_k_rows(source.n_rows, 400, seed=1)
    texts = joined_text(source.take(rows, list(names)), names)
    return pilot_price(
        lambda some: model.utility(texts.take(pa.array(some % len(texts)))),
        source.n_rows,
        fits=0,
        comparisons=source.n_rows,
    )


def _sizes(
    source: Source, text: Sequence[str] | None, unit: str, engine: Engine
) -> tuple[list[str], np.ndarray]:
    """Text columns, and tokens and bytes of each row; zeros where there is no text."""
    try:
        names = text_columns(source, text)
    except DataError:
        if text is not None or unit != "rows":
            raise
        return [], np.zeros((source.n_rows, 2))
    parts = engine.run(ScoreTexts(FlatUtility(), names), source)
    return names, parts[:, 1:]


def _origin(source: Source, named: str | None, quota: tuple[str, Any] | None) -> str | None:
    wanted = named or (quota[0] if quota else None)
    if wanted is not None:
        if wanted not in source.schema.names:
            raise DataError(f"{source.label} has no column {wanted!r}")
        return wanted
    return next((n for n in ("source", "domain", "origin") if n in source.schema.names), None)


def _by_quota(
    utility: np.ndarray,
    labels: np.ndarray | None,
    quota: tuple[str, Mapping[str, float] | str],
    limit: float,
    unit: str,
    keep: Callable[[np.ndarray, float], Selection],
) -> Selection:
    assert labels is not None
    column, wanted = quota
    levels, codes = np.unique(labels.astype(str), return_inverse=True)
    if isinstance(wanted, str):
        if wanted not in ("equal", "pool"):
            raise OptionError(
                f"Unknown quota {wanted!r}. Choose one of 'equal', 'pool', or shares."
            )
        sizes = np.bincount(codes) if wanted == "pool" else np.ones(len(levels))
        wanted = dict(zip(levels.tolist(), (sizes / sizes.sum()).tolist(), strict=True))
    for level, share in wanted.items():
        if level not in levels:
            raise OptionError(f"quota names {column}={level!r}, which no row of the pool has")
        if not 0 <= share <= 1:
            raise OptionError(f"quota of {column}={level!r} is {share}; expected a share, 0 to 1")
    if sum(wanted.values()) > 1 + 1e-9:
        raise OptionError(f"quotas sum to {sum(wanted.values()):g}; expected at most 1")
    kept, short = [], []
    reasons = np.ones(len(utility), dtype=np.int8)
    spent = 0.0
    for level, share in wanted.items():
        rows = np.flatnonzero(levels[codes] == level)
        part = keep(rows, share * limit)
        kept.append(rows[part.rows])
        spent += part.cost
        if unit == "rows" and len(part) < round(share * limit):
            short.append(f"{level!r} has {len(rows):,} of {round(share * limit):,}")
    chosen = np.sort(np.concatenate(kept)).astype(np.int64)
    reasons[chosen] = 0
    text = f"{len(chosen):,} of {len(utility):,} rows kept by quota of {column}"
    return Selection(
        rows=chosen,
        n_pool=len(utility),
        mechanism=f"quota of {column}",
        utility=utility,
        weights=np.ones(len(chosen)),
        cost=spent,
        budget=limit,
        unit=unit,
        reasons=reasons,
        reason_names=("within its group's quota", "outside its group's quota"),
        status=text + (f"; too few rows: {', '.join(short)}" if short else ""),
    )
