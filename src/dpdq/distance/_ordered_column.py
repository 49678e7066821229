"""One column whose values have an order: numbers, instants, lengths, norms."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from dpdq.distance._column_parts import binned_effect, joined_pvalue, missing_share_test
from dpdq.distance._column_result import LEVEL_TESTS, RANK_TESTS, ColumnJob, ColumnResult
from dpdq.distance._columns import MICROSECONDS, Ordered
from dpdq.distance._rank_laws import rank_statistic_of_counts, rank_test
from dpdq.distance._sweep import Sweep, sweep
from dpdq.distance._units import UnitCounts, pooled_cells, unit_pvalue
from dpdq.distance.effects import (
    cells_between,
    counts_between,
    decile_cuts,
    standardised_mean_difference,
)
from dpdq.distance.histograms import ordered_histogram
from dpdq.distance.level_tests import cell_counts, level_pvalue, level_statistic, pool_for_test
from dpdq.results import Estimate

__all__ = ["compare_ordered", "mean_difference"]

_OWN_CELLS = 50  # a number with so few values is tested value by value by chi2 and g


def compare_ordered(job: ColumnJob, sides_q: list[Ordered], sides_p: list[Ordered]) -> ColumnResult:
    q, p = sides_q[0], sides_p[0]
    gone_q, gone_p = ~q.mask(), ~p.mask()
    missing_test = missing_share_test(job, gone_q, gone_p)
    common = {
        "name": job.name,
        "kind": job.kind,
        "missing": {"q": float(np.mean(gone_q)), "p": float(np.mean(gone_p))},
        "missing_test": missing_test,
    }
    s, t = np.sort(q.values), np.sort(p.values)
    missing_pvalue = None if missing_test is None else missing_test["pvalue"]
    summary = {"q": _summary(s, job.kind), "p": _summary(t, job.kind)}
    cuts, before = (
        decile_cuts(s, min(len(s), len(t))) if len(s) else (s[:0], np.zeros(0, dtype=bool))
    )
    bins_q = np.append(counts_between(s, cuts, before), q.n_missing)
    bins_p = np.append(counts_between(t, cuts, before), p.n_missing)

    def cells() -> tuple[np.ndarray, np.ndarray]:
        last = len(cuts) + 1
        return (
            np.where(gone_q, last, cells_between(q.rows, cuts, before)),
            np.where(gone_p, last, cells_between(p.rows, cuts, before)),
        )

    n_parts = len(sides_q) + (missing_test is not None)
    freedom = max(len(cuts), 1) if job.test in LEVEL_TESTS else 1
    common |= binned_effect(job, bins_q, bins_p, cells, freedom=freedom, n_parts=n_parts)
    if len(s) == 0 or len(t) == 0:
        return ColumnResult(
            **common, pvalue=missing_pvalue, pvalue_method="missing share only", summary=summary
        )
    swept = sweep(s, t)
    statistic, main, method, title = _test_ordered(job, q, p, s, t, swept, part=0)
    pvalues = [main, missing_pvalue]
    for part, (other_q, other_p) in enumerate(zip(sides_q[1:], sides_p[1:], strict=True), start=3):
        more_q, more_p = np.sort(other_q.values), np.sort(other_p.values)
        again = sweep(more_q, more_p)
        pvalues.append(_test_ordered(job, other_q, other_p, more_q, more_p, again, part)[1])
    scale = MICROSECONDS if job.kind == "datetime" else 1
    smd, weighted = mean_difference(job, q, p, s, t)
    w1 = swept.w1 / scale
    return ColumnResult(
        **common,
        test=title,
        statistic=statistic,
        pvalue=joined_pvalue(pvalues),
        pvalue_method=method,
        wasserstein=w1,
        wasserstein_standardised=_per_spread(w1, summary),
        smd=smd.estimate,
        smd_low=smd.low,
        smd_high=smd.high,
        smd_weighted=weighted,
        summary=summary,
        histogram=ordered_histogram(s, t, swept, job.kind),
    )


def _test_ordered(
    job: ColumnJob,
    q: Ordered,
    p: Ordered,
    s: np.ndarray,
    t: np.ndarray,
    swept: Sweep,
    part: int,
) -> tuple[float, float, str, str]:
    """Statistic, p-value, how, and the test's name."""
    test = "ad" if job.test == "auto" else job.test
    generator = job.generator(part)
    if test in LEVEL_TESTS:
        few = swept.few and len(swept.heavy_values) <= _OWN_CELLS
        cell_q, cell_p, k = pooled_cells(q.values, p.values, len(s) + len(t) if few else 10)
        a, b = np.bincount(cell_q, minlength=k), np.bincount(cell_p, minlength=k)
        cell = pool_for_test(a, b)
        pooled = cell_counts(a, b, cell)
        statistic = float(level_statistic(pooled[0], pooled[1], test))
        title = LEVEL_TESTS[test]
        if job.units is None:
            found = level_pvalue(pooled[0], pooled[1], test, job.n_permutations, generator)
            return statistic, *found, title
        places, size = (cell[cell_q], cell[cell_p]), int(cell.max()) + 1
    else:
        statistic, title = swept.statistic(test), RANK_TESTS[test]
        if job.units is None:
            found = rank_test(s, t, swept, test, job.n_permutations, generator)
            return statistic, *found, title
        cell_q, cell_p, size = pooled_cells(q.values, p.values, job.units.grid)
        places = cell_q, cell_p
    pvalue = _unit_test(job, q, p, places, size, test, generator)
    return statistic, pvalue, f"{job.n_permutations} permutations of units", title


def _unit_test(
    job: ColumnJob,
    q: Ordered,
    p: Ordered,
    places: tuple[np.ndarray, np.ndarray],
    size: int,
    test: str,
    generator: np.random.Generator,
) -> float:
    assert job.units is not None
    rows = []
    for side, cell in zip((q, p), places, strict=True):
        full = np.full(side.n_rows, -1)
        full[side.mask()] = cell
        rows.append(full)
    counts = UnitCounts(job.units, rows[0], rows[1], size)

    def statistic(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        if test in LEVEL_TESTS:
            return level_statistic(a, b, test)
        return rank_statistic_of_counts(a, b, test)

    return unit_pvalue(counts, statistic, job.n_permutations, generator)


def mean_difference(
    job: ColumnJob, q: Ordered, p: Ordered, s: np.ndarray, t: np.ndarray
) -> tuple[Estimate, float | None]:
    """SMD of the values, and the same with weights on q; ``s`` and ``t`` are the values sorted."""

    def numbers(x: np.ndarray) -> np.ndarray:
        # int64 microseconds: counted from the first of them, doubles hold them
        return x - s[0] if job.kind == "datetime" else x

    weighted = None
    if job.weights_q is not None:
        weights = np.asarray(job.weights_q, dtype=np.float64)
        if q.present is not None:
            weights = weights[q.present]
        if weights.sum() > 0:
            weighted = standardised_mean_difference(numbers(q.values), numbers(t), weights).estimate
    if job.units is None:  # sums in sorted order do not depend on the order of rows
        return standardised_mean_difference(numbers(s), numbers(t)), weighted
    smd = standardised_mean_difference(
        numbers(q.values),
        numbers(p.values),
        units_q=job.units.q[q.mask()],
        units_p=job.units.p[p.mask()],
    )
    return smd, weighted


def _per_spread(distance: float, summary: Mapping[str, Any]) -> float | None:
    """A distance in units of the pooled standard deviation of two summaries."""
    spread = math.sqrt(0.5 * sum((summary[side]["sd"] or 0.0) ** 2 for side in "qp"))
    if spread > 0:
        return distance / spread
    return 0.0 if distance == 0 else None


def _summary(ordered: np.ndarray, kind: str) -> dict[str, Any]:
    """Mean, standard deviation and quartiles of sorted values."""
    if len(ordered) == 0:
        return {}
    origin = ordered[0] if kind == "datetime" else 0
    x = np.array(ordered - origin if origin else ordered, dtype=np.float64)
    numbers = {"mean": float(np.mean(x))}
    for name, share in (("min", 0.0), ("q25", 0.25), ("median", 0.5), ("q75", 0.75), ("max", 1.0)):
        place = share * (len(x) - 1)
        low, high = x[math.floor(place)], x[math.ceil(place)]
        numbers[name] = float(low + (high - low) * (place - math.floor(place)))
    # ties of one value have no spread, whatever the rounding of their mean
    flat = x[0] == x[-1]
    x -= numbers["mean"]  # in place: these columns may hold ten million rows
    sd = None if len(x) < 2 else 0.0
    if sd is not None and not flat:
        sd = math.sqrt(float(np.einsum("i,i->", x, x)) / (len(x) - 1))
    if kind == "datetime":
        texts = {name: _instant_text(int(origin) + round(v)) for name, v in numbers.items()}
        return {"mean": texts.pop("mean"), "sd": None if sd is None else sd / MICROSECONDS, **texts}
    return {"mean": numbers.pop("mean"), "sd": sd, **numbers}


def _instant_text(microseconds: int) -> str:
    text = str(np.datetime64(microseconds, "us"))
    date, _, time = text.partition("T")
    whole_day = not time.strip("0:.")
    return date if whole_day else f"{date}T{time[:8]}"
