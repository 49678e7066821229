"""How much more often p lies in a slice than q: the ratio of two shares, its interval and p-value.

Independent rows: Fisher's exact test and the normal interval of a log ratio, or exact bounds of
both shares where fewer than 5 rows of a side lie in the slice. Rows in units: the variance of sums
by unit.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import special

from dpdq.shift._common import cluster_sums, t_quantile, t_tail

__all__ = ["count_slice"]

_FEW = 5


def count_slice(
    in_q: np.ndarray,
    in_p: np.ndarray,
    units: tuple[np.ndarray, np.ndarray] | None,
    level: float,
) -> tuple[float, float, float, float | None, float]:
    """Share on q, share on p, low and high end of their ratio at ``level``, and p-value.

    Parameters
    ----------
    in_q, in_p
        Whether each row lies in the slice.
    units
        Numbers of the units that the rows of q and of p belong to; ``None`` for independent rows.
    level
        Coverage of the interval.
    """
    n_q, n_p, k_q, k_p = len(in_q), len(in_p), int(in_q.sum()), int(in_p.sum())
    share_q, share_p = k_q / n_q, k_p / n_p
    if units is not None:
        low, high, pvalue = _count_units(in_q, in_p, units, level)
    else:
        pvalue = _fisher(k_q, n_q, k_p, n_p)
        if min(k_q, k_p) < _FEW:
            least_p, most_p = _binomial_bounds(k_p, n_p, (1 + level) / 2)
            least_q, most_q = _binomial_bounds(k_q, n_q, (1 + level) / 2)
            low = least_p / most_q
            high = most_p / least_q if k_q else None
        else:
            half = float(special.ndtri(0.5 + level / 2)) * np.sqrt(
                1 / k_p - 1 / n_p + 1 / k_q - 1 / n_q
            )
            low, high = share_p / share_q * np.exp(-half), share_p / share_q * np.exp(half)
    high = None if high is None else float(high)
    return share_q, share_p, float(low), high, min(1.0, pvalue)


def _binomial_bounds(k: int, n: int, level: float) -> tuple[float, float]:
    """Clopper and Pearson's two-sided exact bounds of a share."""
    tail = (1 - level) / 2
    low = 0.0 if k == 0 else float(special.betaincinv(k, n - k + 1, tail))
    high = 1.0 if k == n else float(special.betaincinv(k + 1, n - k, 1 - tail))
    return low, high


def _log_sum(log_values: np.ndarray) -> float:
    top = float(log_values.max())
    return top + math.log(float(np.exp(log_values - top).sum()))


def _fisher(k_q: int, n_q: int, k_p: int, n_p: int) -> float:
    """Fisher's exact two-sided p-value: total probability of tables no likelier than this."""
    total = k_q + k_p
    support = np.arange(max(0, total - n_q), min(total, n_p) + 1, dtype=np.float64)

    def log_choose(n: float, k: np.ndarray) -> np.ndarray:
        return special.gammaln(n + 1) - special.gammaln(k + 1) - special.gammaln(n - k + 1)

    log_mass = log_choose(n_p, support) + log_choose(n_q, total - support)
    log_mass -= _log_sum(log_mass)
    seen = log_mass[k_p - max(0, total - n_q)]
    return min(1.0, math.exp(_log_sum(log_mass[log_mass <= seen + 1e-7])))


def _count_units(
    in_q: np.ndarray, in_p: np.ndarray, units: tuple[np.ndarray, np.ndarray], level: float
) -> tuple[float, float | None, float]:
    """Interval of the ratio and p-value when units, not rows, are independent."""
    codes = np.concatenate(units)
    n_q, n_p = len(in_q), len(in_p)
    k_q, k_p = int(in_q.sum()), int(in_p.sum())
    count = min(len(np.unique(units[0])), len(np.unique(units[1])))
    if count < 3 or k_q + k_p == 0:
        return 0.0, None, 1.0
    share_q, share_p = k_q / n_q, k_p / n_p
    pooled = (share_q + share_p) / 2

    def variance(centre_q: float, centre_p: float, scale_q: float, scale_p: float) -> float:
        score_q, score_p = (in_q - centre_q) / n_q / scale_q, (in_p - centre_p) / n_p / scale_p
        scores = np.concatenate([-score_q, score_p])
        return float(np.sum(cluster_sums(scores, codes) ** 2)) * count / (count - 1)

    spread = np.sqrt(variance(pooled, pooled, 1.0, 1.0))
    pvalue = 2 * t_tail(abs(share_p - share_q) / spread, count - 1) if spread > 0 else 1.0
    if k_q == 0 or k_p == 0:
        return 0.0, None, min(1.0, pvalue)
    half = t_quantile(level, count - 1) * np.sqrt(variance(share_q, share_p, share_q, share_p))
    ratio = share_p / share_q
    return ratio * np.exp(-half), ratio * np.exp(half), min(1.0, pvalue)
