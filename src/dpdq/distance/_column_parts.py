"""Parts that every kind of column has: the missing share, the binned effect, joined p-values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.special import chdtri, chndtrinc

from dpdq.distance._column_result import ColumnJob
from dpdq.distance._laws import two_by_two_pvalue
from dpdq.distance._units import UnitCounts, unit_pvalue
from dpdq.distance.effects import (
    design_effect,
    jensen_shannon_of_counts,
    psi_estimate,
    psi_of_counts,
)
from dpdq.distance.level_tests import level_statistic, share_difference
from dpdq.results import Estimate

__all__ = ["binned_effect", "joined_pvalue", "missing_share_test"]

_Z95 = 1.959963984540054


def missing_share_test(
    job: ColumnJob, gone_q: np.ndarray, gone_p: np.ndarray
) -> dict[str, Any] | None:
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


def joined_pvalue(pvalues: Sequence[float | None]) -> float | None:
    """Bonferroni over the parts of one column."""
    known = [value for value in pvalues if value is not None]
    return min(1.0, len(known) * min(known)) if known else None


def binned_effect(
    job: ColumnJob,
    bins_q: np.ndarray,
    bins_p: np.ndarray,
    cells: Any,
    *,
    freedom: int,
    n_parts: int,
) -> dict[str, Any]:
    """PSI and JSD of binned rows, the last bin missing, and the PSI that the test would find.

    ``cells`` gives each row's bin where units need it, ``freedom`` the degrees of freedom of the
    test and ``n_parts`` the p-values that are joined.
    """
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
        "detectable": _smallest_psi(
            float(bins_q[:-1].sum()) / design_q,
            float(bins_p[:-1].sum()) / design_p,
            freedom,
            0.05 / n_parts,
        ),
    }


def _smallest_psi(n: float, m: float, freedom: int, alpha: float) -> float | None:
    """The smallest population PSI that a test of this many degrees of freedom finds, power 80 %.

    The statistic's noncentrality is PSI n m / (n + m), exactly so for small differences. A shift
    in location, which a rank test sees with one degree of freedom, has PSI = SMD^2 between normal
    laws.
    """
    if not (n > 0 and m > 0) or freedom < 1:
        return None
    critical = float(chdtri(freedom, alpha))
    return float(chndtrinc(critical, freedom, 0.2)) * (1.0 / n + 1.0 / m)
