"""The parts of one column's comparison: missing values, the test, the effect, the summary."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dpdq.distance._columns import (
    MICROSECONDS,
    Levels,
    Ordered,
    level_text,
)
from dpdq.distance._laws import two_by_two_pvalue
from dpdq.distance._rank_laws import rank_statistic_of_counts, rank_test
from dpdq.distance._sweep import Sweep, sweep
from dpdq.distance._units import UnitCounts, Units, pooled_cells, unit_pvalue
from dpdq.distance.effects import (
    cells_between,
    counts_between,
    decile_cuts,
    design_effect,
    jensen_shannon_of_counts,
    psi_estimate,
    psi_of_counts,
    standardised_mean_difference,
)
from dpdq.distance.histograms import (
    Histogram,
    level_histogram,
    ordered_histogram,
)
from dpdq.distance.level_tests import (
    cell_counts,
    level_pvalue,
    level_statistic,
    pool_for_test,
    pool_levels,
    share_difference,
)
from dpdq.results import Estimate, Result

__all__ = [
    "KINDS",
    "LEVEL_TESTS",
    "RANK_TESTS",
    "TESTS",
    "ColumnResult",
    "Job",
    "compare_levels",
    "compare_ordered",
]

KINDS = ("numeric", "boolean", "categorical", "datetime", "text", "embedding")
RANK_TESTS = {
    "ad": "Anderson-Darling",
    "ks": "Kolmogorov-Smirnov",
    "cvm": "Cram\N{LATIN SMALL LETTER E WITH ACUTE}r-von Mises",
}
LEVEL_TESTS = {"chi2": "chi-square", "g": "G"}
TESTS = ("auto", *RANK_TESTS, *LEVEL_TESTS)
_PSI_LEVELS = 50  # bins of a categorical column
_PSI_EXPECTED = 5.0
_OWN_CELLS = 50  # a number with so few values is tested value by value by chi2 and g
_Z95 = 1.959963984540054


@dataclasses.dataclass(frozen=True, repr=False)
class ColumnResult(Result):
    """One column of q against the same column of p.

    Attributes
    ----------
    name, kind
        The column.
    test, statistic, pvalue
        The test of the values; ``pvalue`` also counts the test of the missing share. None where
        there is nothing to test.
    pvalue_method
        Where the p-value comes from.
    pvalue_adjusted, shifted
        Filled in by who looks at many columns at once.
    effect
        ``measure`` "psi", bias-corrected ``estimate``, ``low`` and ``high`` of a 95 % interval.
    psi, jensen_shannon
        Plain population stability index and Jensen-Shannon divergence (nats) over the same bins;
        missing is a bin.
    wasserstein, wasserstein_standardised
        Exact Wasserstein-1 distance in units of the column (seconds for instants), and in units of
        the pooled standard deviation. None for levels.
    smd, smd_low, smd_high
        Standardised mean difference of p less q with a 95 % interval; for a categorical column that
        of the level that moved most, without interval.
    smd_weighted
        The same after weighting q.
    missing
        Shares of missing values on both sides.
    missing_test
        p-value and ``difference`` of the missing shares, or None where nothing is missing.
    summary
        A few numbers of each side.
    histogram
        Shares over common bins.
    """

    name: str
    kind: str
    test: str | None = None
    statistic: float | None = None
    pvalue: float | None = None
    pvalue_method: str = ""
    pvalue_adjusted: float | None = None
    shifted: bool | None = None
    effect: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    psi: float | None = None
    jensen_shannon: float | None = None
    wasserstein: float | None = None
    wasserstein_standardised: float | None = None
    smd: float | None = None
    smd_low: float | None = None
    smd_high: float | None = None
    smd_weighted: float | None = None
    missing: Mapping[str, float] = dataclasses.field(default_factory=dict)
    missing_test: Mapping[str, Any] | None = None
    summary: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    histogram: Histogram | None = None


@dataclasses.dataclass(frozen=True)
class Job:
    """What the parts of one comparison share."""

    name: str
    kind: str
    test: str
    n_permutations: int
    seed: int
    units: Units | None
    weights_q: np.ndarray | None

    def generator(self, part: int) -> np.random.Generator:
        # one stream a part, so that a missing value does not change the draws of the test
        return np.random.default_rng([self.seed, part])


# -------------------------------------------------------------------------------- missing values


def _test_missing(job: Job, gone_q: np.ndarray, gone_p: np.ndarray) -> dict[str, Any] | None:
    """Whether the share of missing values is the same; arguments are masks of rows."""
    hits_q, hits_p = int(np.count_nonzero(gone_q)), int(np.count_nonzero(gone_p))
    n, m = len(gone_q), len(gone_p)
    if hits_q + hits_p == 0:
        return None
    difference = share_difference(hits_q, n, hits_p, m)
    if job.units is None:
        pvalue = two_by_two_pvalue(hits_q, n, m, hits_q + hits_p)
    else:
        counts = UnitCounts(job.units, gone_q.astype(np.int64), gone_p.astype(np.int64), 2)
        pvalue = unit_pvalue(counts, _chi2_statistic, job.n_permutations, job.generator(2))
        estimate = difference.estimate or 0.0
        error = math.sqrt(_share_variance(counts.q) + _share_variance(counts.p))
        if math.isfinite(error):
            low, high = max(-1.0, estimate - _Z95 * error), min(1.0, estimate + _Z95 * error)
            difference = Estimate(estimate, low, high)
        else:
            difference = Estimate(estimate)
    return {
        "pvalue": pvalue,
        "difference": {
            "estimate": difference.estimate,
            "low": difference.low,
            "high": difference.high,
        },
    }


def _share_variance(counts: np.ndarray) -> float:
    """Variance of the share of the second cell between units; counts are (units, 2)."""
    sizes = counts.sum(axis=1)
    hits, sizes = counts[sizes > 0, 1], sizes[sizes > 0]
    if len(sizes) < 2:
        return math.nan
    residual = hits - sizes * (hits.sum() / sizes.sum())
    return float((residual**2).sum()) / sizes.sum() ** 2 * len(sizes) / (len(sizes) - 1)


def _chi2_statistic(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return level_statistic(a, b, "chi2")


def _joined(pvalues: Sequence[float | None]) -> float | None:
    """Bonferroni over the parts of one column."""
    known = [value for value in pvalues if value is not None]
    return min(1.0, len(known) * min(known)) if known else None


def _effect(job: Job, bins_q: np.ndarray, bins_p: np.ndarray, cells: Any) -> dict[str, Any]:
    """PSI and JSD of binned rows; ``cells`` gives each row's bin where units need it."""
    design_q = design_p = 1.0
    if job.units is not None:
        cells_q, cells_p = cells()
        counts = UnitCounts(job.units, cells_q, cells_p, len(bins_q))
        design_q, design_p = design_effect(counts.q), design_effect(counts.p)
    if math.isnan(design_q) or math.isnan(design_p):
        estimate = Estimate(psi_of_counts(bins_q, bins_p), reason="one unit: no interval")
    else:
        estimate = psi_estimate(bins_q, bins_p, design_q=design_q, design_p=design_p)
    return {
        "effect": {
            "measure": "psi",
            "estimate": estimate.estimate,
            "low": estimate.low,
            "high": estimate.high,
        },
        "psi": psi_of_counts(bins_q, bins_p),
        "jensen_shannon": jensen_shannon_of_counts(bins_q, bins_p),
    }


# ------------------------------------------------------------------------------- ordered columns


def compare_ordered(job: Job, sides_q: list[Ordered], sides_p: list[Ordered]) -> ColumnResult:
    q, p = sides_q[0], sides_p[0]
    gone_q, gone_p = ~q.mask(), ~p.mask()
    missing_test = _test_missing(job, gone_q, gone_p)
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

    common |= _effect(job, bins_q, bins_p, cells)
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
    smd, weighted = _mean_difference(job, q, p, s, t)
    w1 = swept.w1 / scale
    return ColumnResult(
        **common,
        test=title,
        statistic=statistic,
        pvalue=_joined(pvalues),
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
    job: Job,
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
    job: Job,
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


def _mean_difference(
    job: Job, q: Ordered, p: Ordered, s: np.ndarray, t: np.ndarray
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


# --------------------------------------------------------------------------------- level columns


def compare_levels(job: Job, levels: Levels) -> ColumnResult:
    gone_q, gone_p = levels.codes_q < 0, levels.codes_p < 0
    missing_test = _test_missing(job, gone_q, gone_p)
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

    common |= _effect(
        job,
        np.append(np.bincount(bins, weights=a, minlength=size), n_gone_q),
        np.append(np.bincount(bins, weights=b, minlength=size), n_gone_p),
        cells,
    )
    if a.sum() == 0 or b.sum() == 0:
        return ColumnResult(**common, pvalue=missing_pvalue, pvalue_method="missing share only")
    test = "chi2" if job.test == "auto" else job.test
    cell = pool_for_test(a, b)
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
        pvalue=_joined([main, missing_pvalue]),
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
    job: Job, levels: Levels, pooled: tuple[np.ndarray, np.ndarray]
) -> tuple[Estimate, float | None]:
    if job.kind == "boolean":
        there_q, there_p = levels.codes_q >= 0, levels.codes_p >= 0
        q = Ordered(levels.codes_q.astype(np.float64), there_q)
        p = Ordered(levels.codes_p.astype(np.float64), there_p)
        return _mean_difference(job, q, p, np.sort(q.values), np.sort(p.values))
    share_q, share_p = (counts / counts.sum() for counts in pooled)
    spread = np.sqrt(0.5 * (share_q * (1 - share_q) + share_p * (1 - share_p)))
    if not spread.any():
        same = bool((share_q == share_p).all())
        return Estimate(0.0 if same else None), None
    smd = (share_p - share_q) / np.where(spread > 0, spread, 1.0)
    return Estimate(float(smd[np.argmax(np.abs(smd))])), None
