r"""The whole table, one column at a time: which columns differ, by how much, and is it real?

For a column of q (n rows) and of p (m rows), `compare_column` gives a test, an effect with an
interval, distances, summaries and a histogram; `univariate_tests` does all common columns of two
tables and adjusts the p-values for their number.

What is tested, by kind

    numeric, datetime      Anderson-Darling on the values (see `dpdq.distance.one_dimension` for
                           why not Kolmogorov-Smirnov)
    text                   the same on the number of characters and on the number of words
    embedding              the same on the Euclidean norm: a change of direction is not seen here
    boolean, categorical   Pearson's chi-square on the levels, rare levels pooled

and, where values are missing on a side, that the missing share is the same, exactly. The parts of
one column are joined by Bonferroni's rule: k times the smallest p-value, at most 1. Each p-value is
valid: under q = p, P(pvalue <= alpha) <= alpha. It comes from permutations where a side has fewer
than 200 values and wherever rows are grouped, from a computed limit law elsewhere.

At production sizes every p-value is small; rank and judge columns by ``effect``, the population
stability index on the deciles of q with its bias removed and with an interval. The plain index is
``psi``; it is what other tools print.

Columns one at a time do not see what only their joint law shows; that is what the kernel test and
the classifier test are for.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from dpdq._random import RandomState, as_generator, child_seed
from dpdq.distance._columns import (
    LEVEL_KINDS,
    MICROSECONDS,
    Levels,
    Ordered,
    level_text,
    read_levels,
    read_ordered,
)
from dpdq.distance._laws import two_by_two_pvalue
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
    reweighted_histogram,
)
from dpdq.distance.level_tests import (
    cell_counts,
    level_pvalue,
    level_statistic,
    pool_for_test,
    pool_levels,
    share_difference,
)
from dpdq.distance.one_dimension import Sweep, rank_statistic_of_counts, rank_test, sweep
from dpdq.errors import DataError, OptionError
from dpdq.results import Estimate, Result

__all__ = [
    "univariate_tests",
    "compare_column",
    "false_discovery_rate",
    "reweighted_histogram",
    "standardised_mean_difference",
    "ColumnResult",
    "ColumnTests",
]

KINDS = ("numeric", "boolean", "categorical", "datetime", "text", "embedding")
_RANK_TESTS = {
    "ad": "Anderson-Darling",
    "ks": "Kolmogorov-Smirnov",
    "cvm": "Cram\N{LATIN SMALL LETTER E WITH ACUTE}r-von Mises",
}
_LEVEL_TESTS = {"chi2": "chi-square", "g": "G"}
_TESTS = ("auto", *_RANK_TESTS, *_LEVEL_TESTS)
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
class _Job:
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


def compare_column(
    q: Any,  # noqa: ANN401 - an Arrow or NumPy column
    p: Any,  # noqa: ANN401
    kind: str,
    *,
    name: str = "",
    test: str = "auto",
    weights_q: np.ndarray | None = None,
    units_q: np.ndarray | None = None,
    units_p: np.ndarray | None = None,
    n_permutations: int = 999,
    seed: int = 0,
) -> ColumnResult:
    """Compare one whole column of q with the same column of p.

    Null, NaN and infinite values are missing. Rows must be independent, or else come with their
    units: units on one side then trade sides as wholes, units on both sides swap their two parts,
    and the intervals take units as independent.

    Parameters
    ----------
    q, p
        The columns, shapes (n,) and (m,), Arrow or NumPy.
    kind
        One of numeric, boolean, categorical, datetime, text, embedding.
    name
        For the result and for error messages.
    test
        "auto" (the module's table), "ad", "ks", "cvm", "chi2" or "g". The first three need an
        order; the last two cut a column with more than 50 distinct values at its pooled deciles.

    Other Parameters
    ----------------
    weights_q
        Importance weights of the rows of q, for ``smd_weighted`` and the histogram. They do not
        enter the test.
    units_q, units_p
        Group or time block of each row, on both sides or on neither.
    n_permutations
        B of permutation p-values (1 + count) / (B + 1).
    seed
        Of the permutations.

    Returns
    -------
    ColumnResult
        Everything about the column.

    Raises
    ------
    OptionError
        Unknown kind or test, or a test that the kind does not have.
    DataError
        Values that are not of that kind; units or weights that do not fit.

    Notes
    -----
    Cost: O(N log N) time, O(N) memory; with units O(B U k) time for U units and k <= 200 cells.
    Held by: tests/distance/test_univariate.py::test_level_of_every_kind

    Examples
    --------
    >>> import numpy as np
    >>> x = np.random.default_rng(0).normal(size=(2, 500))
    >>> r = compare_column(x[0], x[1] + 0.3, "numeric", name="age")
    >>> r.test, r.pvalue < 0.01, r.effect["low"] > 0
    ('Anderson-Darling', True, True)
    """
    if kind not in KINDS:
        raise OptionError(f"Unknown kind {kind!r}. Choose one of {KINDS}.")
    if test not in _TESTS:
        raise OptionError(f"Unknown test {test!r}. Choose one of {_TESTS}.")
    if kind in LEVEL_KINDS and test in _RANK_TESTS:
        raise OptionError(f"column {name!r} is {kind}: test {test!r} needs an order; use 'chi2'")
    if (units_q is None) != (units_p is None):
        raise DataError("units_q and units_p must both be given, or neither")
    label = f"column {name!r}" if name else "column"
    # values near the largest double overflow in sums; those numbers become None in JSON
    with np.errstate(over="ignore", invalid="ignore"):
        levels, ordered_q, ordered_p = None, [], []
        if kind in LEVEL_KINDS:
            levels = read_levels(q, p, kind, label)
            sizes = len(levels.codes_q), len(levels.codes_p)
        else:
            ordered_q = read_ordered(q, kind, f"{label} of q")
            ordered_p = read_ordered(p, kind, f"{label} of p")
            sizes = ordered_q[0].n_rows, ordered_p[0].n_rows
        if min(sizes) == 0:
            raise DataError(f"{label} has no rows in {'q' if sizes[0] == 0 else 'p'}")
        for rows, size, what in (
            (units_q, sizes[0], "units_q"),
            (units_p, sizes[1], "units_p"),
            (weights_q, sizes[0], "weights_q"),
        ):
            if rows is not None and np.shape(rows) != (size,):
                raise DataError(f"{what} has shape {np.shape(rows)}; expected ({size},)")
        units = (
            None
            if units_q is None or units_p is None
            else Units(np.asarray(units_q), np.asarray(units_p))
        )
        job = _Job(name, kind, test, n_permutations, seed, units, weights_q)
        if levels is not None:
            result = _compare_levels(job, levels)
        else:
            result = _compare_ordered(job, ordered_q, ordered_p)
        if weights_q is not None and result.histogram is not None:
            filled = reweighted_histogram(q, result.histogram, weights_q, kind=kind)
            result = dataclasses.replace(result, histogram=filled)
    return result


# -------------------------------------------------------------------------------- missing values


def _test_missing(job: _Job, gone_q: np.ndarray, gone_p: np.ndarray) -> dict[str, Any] | None:
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
    return float(np.dot(residual, residual)) / sizes.sum() ** 2 * len(sizes) / (len(sizes) - 1)


def _chi2_statistic(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return level_statistic(a, b, "chi2")


def _joined(pvalues: Sequence[float | None]) -> float | None:
    """Bonferroni over the parts of one column."""
    known = [value for value in pvalues if value is not None]
    return min(1.0, len(known) * min(known)) if known else None


def _effect(job: _Job, bins_q: np.ndarray, bins_p: np.ndarray, cells: Any) -> dict[str, Any]:  # noqa: ANN401
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


def _compare_ordered(job: _Job, sides_q: list[Ordered], sides_p: list[Ordered]) -> ColumnResult:
    q, p = sides_q[0], sides_p[0]
    gone_q, gone_p = ~q.mask(), ~p.mask()
    missing_test = _test_missing(job, gone_q, gone_p)
    common = {
        "name": job.name,
        "kind": job.kind,
        "missing": {"q": float(np.mean(gone_q)), "p": float(np.mean(gone_p))},
        "missing_test": missing_test,
    }
    values_q, values_p = q.values, p.values
    s, t = np.sort(values_q), np.sort(values_p)
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
    smd, weighted = _mean_difference(job, q, p, values_q, values_p)
    w1 = swept.w1 / scale
    return ColumnResult(
        **common,
        test=title,
        statistic=statistic,
        pvalue=_joined(pvalues),
        pvalue_method=method,
        wasserstein=w1,
        wasserstein_standardised=_per_spread(w1, values_q / scale, values_p / scale),
        smd=smd.estimate,
        smd_low=smd.low,
        smd_high=smd.high,
        smd_weighted=weighted,
        summary=summary,
        histogram=ordered_histogram(s, t, swept, job.kind),
    )


def _test_ordered(
    job: _Job,
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
    if test in _LEVEL_TESTS:
        few = swept.few and len(swept.heavy_values) <= _OWN_CELLS
        cell_q, cell_p, k = pooled_cells(q.values, p.values, len(s) + len(t) if few else 10)
        a, b = np.bincount(cell_q, minlength=k), np.bincount(cell_p, minlength=k)
        cell = pool_for_test(a, b)
        pooled = cell_counts(a, b, cell)
        statistic = float(level_statistic(pooled[0], pooled[1], test))
        title = _LEVEL_TESTS[test]
        if job.units is None:
            found = level_pvalue(pooled[0], pooled[1], test, job.n_permutations, generator)
            return statistic, *found, title
        places, size = (cell[cell_q], cell[cell_p]), int(cell.max()) + 1
    else:
        statistic, title = swept.statistic(test), _RANK_TESTS[test]
        if job.units is None:
            found = rank_test(s, t, swept, test, job.n_permutations, generator)
            return statistic, *found, title
        cell_q, cell_p, size = pooled_cells(q.values, p.values, job.units.grid)
        places = cell_q, cell_p
    pvalue = _unit_test(job, q, p, places, size, test, generator)
    return statistic, pvalue, f"{job.n_permutations} permutations of units", title


def _unit_test(
    job: _Job,
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
        if test in _LEVEL_TESTS:
            return level_statistic(a, b, test)
        return rank_statistic_of_counts(a, b, test)

    return unit_pvalue(counts, statistic, job.n_permutations, generator)


def _mean_difference(
    job: _Job, q: Ordered, p: Ordered, values_q: np.ndarray, values_p: np.ndarray
) -> tuple[Estimate, float | None]:
    """SMD of the values, and the same with weights on q."""
    if job.kind == "datetime":  # int64 microseconds: from the first of them on, nothing is lost
        origin = values_q[0]
        values_q, values_p = values_q - origin, values_p - origin
    units_q = units_p = None
    if job.units is not None:
        units_q, units_p = job.units.q[q.mask()], job.units.p[p.mask()]
    smd = standardised_mean_difference(values_q, values_p, units_q=units_q, units_p=units_p)
    if job.weights_q is None:
        return smd, None
    weights = np.asarray(job.weights_q, dtype=np.float64)[q.mask()]
    if not weights.sum() > 0:
        return smd, None
    return smd, standardised_mean_difference(values_q, values_p, weights).estimate


def _per_spread(distance: float, x: np.ndarray, y: np.ndarray) -> float | None:
    spread = math.sqrt(0.5 * (float(np.var(x)) + float(np.var(y))))
    if spread > 1e-14 * (abs(float(x[0])) + distance):
        return distance / spread
    return 0.0 if distance == 0 else None


def _summary(ordered: np.ndarray, kind: str) -> dict[str, Any]:
    n = len(ordered)
    if n == 0:
        return {}
    at = {"min": 0, "q25": (n - 1) // 4, "median": (n - 1) // 2, "q75": 3 * (n - 1) // 4}
    numbers = {name: ordered[rank] for name, rank in (at | {"max": n - 1}).items()}
    if kind == "datetime":
        texts = {name: _instant_text(int(value)) for name, value in numbers.items()}
        sd = float(np.std((ordered - ordered[0]) / MICROSECONDS, ddof=1)) if n > 1 else None
        mean = int(ordered[0]) + round(float(np.mean(ordered - ordered[0])))
        return {"mean": _instant_text(mean), "sd": sd, **texts}
    numbers |= {"q25": np.quantile(ordered, 0.25), "q75": np.quantile(ordered, 0.75)}
    numbers["median"] = np.median(ordered)
    sd = float(np.std(ordered, ddof=1)) if n > 1 else None
    mean = {"mean": float(np.mean(ordered)), "sd": sd}
    return mean | {name: float(value) for name, value in numbers.items()}


def _instant_text(microseconds: int) -> str:
    text = str(np.datetime64(microseconds, "us"))
    date, _, time = text.partition("T")
    whole_day = not time.strip("0:.")
    return date if whole_day else f"{date}T{time[:8]}"


# --------------------------------------------------------------------------------- level columns


def _compare_levels(job: _Job, levels: Levels) -> ColumnResult:
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
        counts = UnitCounts(
            job.units, to[levels.codes_q], to[levels.codes_p], int(cell.max()) + 1
        )

        def statistic(x: np.ndarray, y: np.ndarray) -> np.ndarray:
            return level_statistic(x, y, test)

        main = unit_pvalue(counts, statistic, job.n_permutations, job.generator(0))
        method = f"{job.n_permutations} permutations of units"
    smd, weighted = _level_difference(job, levels, pooled)
    return ColumnResult(
        **common,
        test=_LEVEL_TESTS[test],
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
    job: _Job, levels: Levels, pooled: tuple[np.ndarray, np.ndarray]
) -> tuple[Estimate, float | None]:
    if job.kind == "boolean":
        there_q, there_p = levels.codes_q >= 0, levels.codes_p >= 0
        q = Ordered(levels.codes_q.astype(np.float64), there_q)
        p = Ordered(levels.codes_p.astype(np.float64), there_p)
        return _mean_difference(job, q, p, q.values, p.values)
    share_q, share_p = (counts / counts.sum() for counts in pooled)
    spread = np.sqrt(0.5 * (share_q * (1 - share_q) + share_p * (1 - share_p)))
    if not spread.any():
        same = bool((share_q == share_p).all())
        return Estimate(0.0 if same else None), None
    smd = (share_p - share_q) / np.where(spread > 0, spread, 1.0)
    return Estimate(float(smd[np.argmax(np.abs(smd))])), None


# ----------------------------------------------------------------------------------- many columns


def false_discovery_rate(
    pvalues: Sequence[float | None] | np.ndarray, method: str = "bh"
) -> list[float | None]:
    """Adjust p-values for their number, so that few of the small ones are false alarms.

        adjusted_(i) = min over j >= i of  k c p_(j) / j,  at most 1

    with k p-values in order and c = 1 ("bh") or 1 + 1/2 + ... + 1/k ("by"). Rejecting where the
    adjusted value is at most alpha keeps the expected share of false rejections below alpha: "bh"
    for independent or positively dependent p-values, "by" for any. It says nothing about a single
    column, and adding columns that do not change makes the others harder to see.

    Parameters
    ----------
    pvalues
        p-values; None and NaN are left out and come back as None.
    method
        "bh" (Benjamini and Hochberg) or "by" (Benjamini and Yekutieli).

    Returns
    -------
    list of float or None
        In the order given.

    Raises
    ------
    OptionError
        Unknown ``method``.
    DataError
        A p-value outside [0, 1].

    Notes
    -----
    Cost: O(k log k) time, O(k) memory.
    Held by: tests/distance/test_univariate.py::test_false_discovery_rate_matches_scipy

    References
    ----------
    .. [BenjaminiHochberg1995] Controlling the False Discovery Rate: A Practical and Powerful
       Approach to Multiple Testing. Benjamini, 1995, Journal of the Royal Statistical Society B 57.
    .. [BenjaminiYekutieli2001] The control of the false discovery rate in multiple testing under
       dependency. Benjamini, 2001, Annals of Statistics 29.

    Examples
    --------
    >>> false_discovery_rate([0.01, 0.04, None, 0.03])
    [0.03, 0.04, None, 0.04]
    """
    if method not in ("bh", "by"):
        raise OptionError(f"Unknown method {method!r}. Choose one of 'bh', 'by'.")
    values = np.array([math.nan if v is None else float(v) for v in pvalues], dtype=np.float64)
    known = np.flatnonzero(~np.isnan(values))
    out: list[float | None] = [None] * len(values)
    if not len(known):
        return out
    given = values[known]
    if (given < 0).any() or (given > 1).any():
        raise DataError("p-values must lie between 0 and 1")
    k = len(given)
    order = np.argsort(given, kind="stable")
    ranks = np.arange(1, k + 1)
    factor = float(np.sum(1 / ranks)) if method == "by" else 1.0
    scaled = given[order] * (k * factor) / ranks
    adjusted = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1.0)
    for place, value in zip(known[order].tolist(), adjusted.tolist(), strict=True):
        out[place] = value
    return out


@dataclasses.dataclass(frozen=True, repr=False)
class ColumnTests(Result):
    """The columns of two tables, biggest effect first.

    Attributes
    ----------
    rows
        One `ColumnResult` a column.
    alpha, adjust
        What ``shifted`` was judged by.
    n_q, n_p
        Rows used on each side: all.
    """

    rows: tuple[ColumnResult, ...]
    alpha: float
    adjust: str | None
    n_q: int
    n_p: int

    @property
    def shifted(self) -> list[str]:
        """Names of the columns that shifted."""
        return [row.name for row in self.rows if row.shifted]

    def __getitem__(self, name: str) -> ColumnResult:
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(name)

    def __repr__(self) -> str:
        head = (
            f"ColumnTests({len(self.rows)} columns, {self.n_q:,} rows of q, {self.n_p:,} of p; "
            f"{len(self.shifted)} shifted at {self.alpha:g})"
        )
        lines = [head]
        for row in self.rows[:20]:
            psi, pvalue = row.effect.get("estimate"), row.pvalue_adjusted
            lines.append(
                f"  {'*' if row.shifted else ' '} {row.name[:30]:<30} {row.kind:<11} "
                f"psi {'-' if psi is None else f'{psi:.3f}':>7}  "
                f"p {'-' if pvalue is None else f'{pvalue:.2g}':>8}"
            )
        if len(self.rows) > 20:
            lines.append(f"  ... and {len(self.rows) - 20} more")
        return "\n".join(lines)

    def to_frame(self) -> Any:  # noqa: ANN401 - pyarrow has no types
        """The numbers of all columns as an Arrow table, one row a column."""
        import pyarrow as pa

        plain = (
            *("name", "kind", "test", "statistic", "pvalue", "pvalue_adjusted", "shifted", "psi"),
            *("jensen_shannon", "wasserstein", "wasserstein_standardised", "smd"),
        )
        records = []
        for row in (row.to_dict() for row in self.rows):
            record = {key: row[key] for key in plain}
            for key in ("estimate", "low", "high"):
                record[f"effect_{key}"] = row["effect"][key]
            records.append(record | {f"missing_{side}": row["missing"][side] for side in "qp"})
        numbers = {
            key: pa.string() if key in ("name", "kind", "test") else pa.float64()
            for key in (records[0] if records else ("name",))
        }
        numbers |= {"shifted": pa.bool_()} if "shifted" in numbers else {}
        return pa.Table.from_pylist(records, schema=pa.schema(list(numbers.items())))


def univariate_tests(
    q: Any,  # noqa: ANN401 - whatever `dpdq.data.open_source` takes
    p: Any,  # noqa: ANN401
    *,
    columns: Sequence[str] | Mapping[str, str] | None = None,
    tests: str | Mapping[str, str] = "auto",
    alpha: float = 0.05,
    adjust: str | None = "bh",
    tolerance: float = 0.0,
    n_permutations: int = 999,
    n_jobs: int | None = None,
    random_state: RandomState = None,
) -> ColumnTests:
    """Compare two tables column by column, on all rows, and say which columns shifted.

    Only laws of single columns are compared: two tables whose columns agree one by one may still
    differ. Rows must be independent.

    Parameters
    ----------
    q, p
        Tables, arrays or files, as `dpdq.data.open_source` takes them.
    columns
        Names to compare (default: all that both sides have), or name -> kind where the kind should
        not be inferred.
    tests
        "auto", one test for all columns that have it, or name -> test; see `compare_column`.
    alpha
        Level of ``shifted``.
    adjust
        "bh", "by" or None; see `false_discovery_rate`.

    Other Parameters
    ----------------
    tolerance
        A column has shifted only if the lower end of its PSI interval lies above this; the default
        0 leaves the judgement to the p-value.
    n_permutations
        B of permutation p-values.
    n_jobs
        Threads (default: two, or one on a single core); results do not depend on them. Memory
        grows with them: about ten columns' worth each.
    random_state
        Seed of the permutations.

    Returns
    -------
    ColumnTests
        One result a column, biggest effect first.

    Raises
    ------
    DataError
        No common column, an empty side, values that do not fit their kind.
    OptionError
        Unknown test, kind or adjustment.

    Notes
    -----
    Cost: O(N log N) time a column, O(N) memory a thread.
    Held by: tests/distance/test_univariate.py::test_adult_by_age

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(1)
    >>> q = {"age": rng.normal(40, 10, 800), "sex": rng.choice(["f", "m"], 800)}
    >>> p = {"age": rng.normal(44, 10, 800), "sex": rng.choice(["f", "m"], 800)}
    >>> univariate_tests(q=q, p=p, random_state=0).shifted
    ['age']
    """
    from dpdq.data import infer_columns, open_source
    from dpdq.data.sampling import bottom_k_rows

    if adjust not in ("bh", "by", None):
        raise OptionError(f"Unknown adjust {adjust!r}. Choose one of 'bh', 'by', None.")
    seed = child_seed(as_generator(random_state))
    source_q, source_p = open_source(q, side="q"), open_source(p, side="p")
    for source, side in ((source_q, "q"), (source_p, "p")):
        if source.n_rows == 0:
            raise DataError(f"{side} has no rows; at least one is needed")
    theirs = set(source_p.schema.names)
    names = [name for name in source_q.schema.names if name in theirs]
    if columns is not None:
        absent = [name for name in columns if name not in names]
        if absent:
            raise DataError(f"column {absent[0]!r} is not on both sides; they share {names[:20]}")
        names = list(columns)
    if not names:
        raise DataError("q and p have no column in common")
    samples = [
        source.take(bottom_k_rows(source.n_rows, 20_000, seed), names)
        for source in (source_q, source_p)
    ]
    types = dict(columns) if isinstance(columns, Mapping) else None
    found = infer_columns(samples[0], samples[1], types=types)

    def one(column: Any) -> ColumnResult:  # noqa: ANN401 - a dpdq.data.Column
        test = tests.get(column.name, "auto") if isinstance(tests, Mapping) else tests
        if not isinstance(tests, Mapping) and column.kind in LEVEL_KINDS and test in _RANK_TESTS:
            test = "auto"
        return compare_column(
            source_q.column(column.name),
            source_p.column(column.name),
            column.kind,
            name=column.name,
            test=test,
            n_permutations=n_permutations,
            seed=seed,
        )

    workers = n_jobs if n_jobs and n_jobs > 0 else min(2, os.cpu_count() or 1)
    with ThreadPoolExecutor(max_workers=workers) as pool:
        results = list(pool.map(one, found))
    pvalues = [row.pvalue for row in results]
    adjusted = pvalues if adjust is None else false_discovery_rate(pvalues, adjust)
    judged = []
    for row, value in zip(results, adjusted, strict=True):
        low = row.effect["low"]
        shifted = value is not None and value <= alpha
        if tolerance > 0:
            shifted = shifted and low is not None and low > tolerance
        judged.append(dataclasses.replace(row, pvalue_adjusted=value, shifted=shifted))

    def rank(row: ColumnResult) -> tuple[float, float]:
        estimate = row.effect["estimate"]
        return (
            math.inf if estimate is None or math.isnan(estimate) else -estimate,
            2.0 if row.pvalue is None else row.pvalue,
        )

    return ColumnTests(
        tuple(sorted(judged, key=rank)), alpha, adjust, source_q.n_rows, source_p.n_rows
    )
