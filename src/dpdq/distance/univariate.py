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
from dpdq.distance._column_result import KINDS, RANK_TESTS, TESTS, ColumnJob, ColumnResult
from dpdq.distance._columns import (
    LEVEL_KINDS,
    read_levels,
    read_ordered,
)
from dpdq.distance._level_column import compare_levels
from dpdq.distance._ordered_column import compare_ordered
from dpdq.distance._units import Units
from dpdq.distance.effects import (
    standardised_mean_difference,
)
from dpdq.distance.histograms import (
    reweighted_histogram,
)
from dpdq.errors import DataError, OptionError
from dpdq.results import Result

__all__ = [
    "univariate_tests",
    "compare_column",
    "false_discovery_rate",
    "reweighted_histogram",
    "standardised_mean_difference",
    "ColumnResult",
    "ColumnTests",
]


def compare_column(
    q: Any,
    p: Any,
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
    if test not in TESTS:
        raise OptionError(f"Unknown test {test!r}. Choose one of {TESTS}.")
    if kind in LEVEL_KINDS and test in RANK_TESTS:
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
        job = ColumnJob(name, kind, test, n_permutations, seed, units, weights_q)
        if levels is not None:
            result = compare_levels(job, levels)
        else:
            result = compare_ordered(job, ordered_q, ordered_p)
        if weights_q is not None and result.histogram is not None:
            filled = reweighted_histogram(q, result.histogram, weights_q, kind=kind)
            result = dataclasses.replace(result, histogram=filled)
    return result


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

    def to_frame(self) -> Any:
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
    q: Any,
    p: Any,
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

    def one(column: Any) -> ColumnResult:
        test = tests.get(column.name, "auto") if isinstance(tests, Mapping) else tests
        if not isinstance(tests, Mapping) and column.kind in LEVEL_KINDS and test in RANK_TESTS:
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
