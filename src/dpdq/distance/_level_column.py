"""One column of levels: categories and booleans."""

from __future__ import annotations

from typing import Any

import numpy as np

from dpdq.distance._column_parts import binned_effect, joined_pvalue, missing_share_test
from dpdq.distance._column_result import LEVEL_TESTS, ColumnJob, ColumnResult
from dpdq.distance._columns import Levels, Ordered, level_text
from dpdq.distance._ordered_column import mean_difference
from dpdq.distance._units import UnitCounts, unit_pvalue
from dpdq.distance.histograms import level_histogram
from dpdq.distance.level_tests import (
    cell_counts,
    level_pvalue,
    level_statistic,
    pool_for_test,
    pool_levels,
)
from dpdq.results import Estimate

__all__ = ["compare_levels"]

_PSI_LEVELS = 50  # bins of a categorical column
_PSI_EXPECTED = 5.0


def compare_levels(job: ColumnJob, levels: Levels) -> ColumnResult:
    gone_q, gone_p = levels.codes_q < 0, levels.codes_p < 0
    missing_test = missing_share_test(job, gone_q, gone_p)
    n_gone_q, n_gone_p = int(gone_q.sum()), int(gone_p.sum())
    common = {
        "name": job.name,
        "kind": job.kind,
        "missing": {"q": float(np.mean(gone_q)), "p": float(np.mean(gone_p))},
        "missing_test": missing_test,
        "summary": {
            "q": _level_summary(levels, levels.counts_q),
            "p": _level_summary(levels, levels.counts_p),
        },
    }
    missing_pvalue = None if missing_test is None else missing_test["pvalue"]
    a, b = levels.counts_q, levels.counts_p
    bins = pool_levels(a, b, expected=_PSI_EXPECTED, most=_PSI_LEVELS)
    size = int(bins.max()) + 1 if len(bins) else 0

    def cells() -> tuple[np.ndarray, np.ndarray]:
        to = np.append(bins, size)  # code -1 takes the last entry: missing
        return to[levels.codes_q], to[levels.codes_p]

    cell = pool_for_test(a, b)
    common |= binned_effect(
        job,
        np.append(np.bincount(bins, weights=a, minlength=size), n_gone_q),
        np.append(np.bincount(bins, weights=b, minlength=size), n_gone_p),
        cells,
        freedom=len(np.unique(cell)) - 1,
        n_parts=1 + (missing_test is not None),
    )
    if a.sum() == 0 or b.sum() == 0:
        return ColumnResult(**common, pvalue=missing_pvalue, pvalue_method="missing share only")
    test = "chi2" if job.test == "auto" else job.test
    pooled = cell_counts(a, b, cell)
    if job.units is None:
        main, method = level_pvalue(
            pooled[0], pooled[1], test, job.n_permutations, job.generator(0)
        )
    else:
        to = np.append(cell, -1)
        counts = UnitCounts(job.units, to[levels.codes_q], to[levels.codes_p], int(cell.max()) + 1)

        def statistic(x: np.ndarray, y: np.ndarray) -> np.ndarray:
            return level_statistic(x, y, test)

        main = unit_pvalue(counts, statistic, job.n_permutations, job.generator(0))
        method = f"{job.n_permutations} permutations of units"
    smd, weighted = _level_difference(job, levels, pooled)
    return ColumnResult(
        **common,
        test=LEVEL_TESTS[test],
        statistic=float(level_statistic(pooled[0], pooled[1], test)),
        pvalue=joined_pvalue([main, missing_pvalue]),
        pvalue_method=method,
        smd=smd.estimate,
        smd_low=smd.low,
        smd_high=smd.high,
        smd_weighted=weighted,
        histogram=level_histogram(levels, n_gone_q, n_gone_p),
    )


def _level_summary(levels: Levels, counts: np.ndarray) -> dict[str, Any]:
    total = int(counts.sum())
    if total == 0:
        return {}
    top = np.argsort(-counts, kind="stable")[:3]
    return {
        "n_levels": int(np.count_nonzero(counts)),
        "top": [
            {"level": level_text(levels.texts[k]), "share": float(counts[k] / total)}
            for k in top
            if counts[k]
        ],
    }


def _level_difference(
    job: ColumnJob, levels: Levels, pooled: tuple[np.ndarray, np.ndarray]
) -> tuple[Estimate, float | None]:
    if job.kind == "boolean":
        there_q, there_p = levels.codes_q >= 0, levels.codes_p >= 0
        q = Ordered(levels.codes_q.astype(np.float64), there_q)
        p = Ordered(levels.codes_p.astype(np.float64), there_p)
        return mean_difference(job, q, p, np.sort(q.values), np.sort(p.values))
    share_q, share_p = (counts / counts.sum() for counts in pooled)
    spread = np.sqrt(0.5 * (share_q * (1 - share_q) + share_p * (1 - share_p)))
    if not spread.any():
        same = bool((share_q == share_p).all())
        return Estimate(0.0 if same else None), None
    smd = (share_p - share_q) / np.where(spread > 0, spread, 1.0)
    return Estimate(float(smd[np.argmax(np.abs(smd))])), None
