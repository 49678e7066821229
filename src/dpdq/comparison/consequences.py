"""What follows from the ratio: overlap and balance."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dpdq.comparison.verdict import overlap_sentence

__all__ = ["OVERLAP_LIMIT", "balance_part", "overlap_part"]

OVERLAP_LIMIT = 0.05
REACH = 0.999


def _wilson(count: int, n: int, z: float = 1.959963984540054) -> tuple[float, float]:
    share = count / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def overlap_part(
    log_ratio_q: np.ndarray, log_ratio_p: np.ndarray, ids: dict[int, Any] | None = None
) -> dict[str, Any]:
    """Share of p beyond the 99.9 % point of q's own held-out log ratios.

    Overlap fails where that share is above 5 %: for p = q it is 0.1 % by definition.

    Parameters
    ----------
    log_ratio_q, log_ratio_p
        Held-out log dP/dQ of the rows.
    ids
        Row of p -> key, for the rows that are listed.

    Returns
    -------
    dict
        The ``overlap`` part.
    """
    limit = float(np.quantile(log_ratio_q, REACH))
    beyond = log_ratio_p > limit
    count, n = int(beyond.sum()), len(log_ratio_p)
    share = count / n
    low, high = _wilson(count, n)
    ok = share <= OVERLAP_LIMIT
    rows = []
    if not ok:
        furthest = np.argsort(-log_ratio_p, kind="stable")[:10]
        rows = [
            {
                "row": int(row),
                "id": None if ids is None else ids.get(int(row)),
                "log_ratio": float(log_ratio_p[row]),
            }
            for row in furthest
        ]
    return {
        "ok": ok,
        "share_of_p_out_of_reach": share,
        "low": low,
        "high": high,
        "log_ratio_limit": limit,
        "sentence": overlap_sentence(share, low, high, OVERLAP_LIMIT, ok=ok),
        "rows": rows,
    }


def balance_part(
    dense_q: np.ndarray,
    dense_p: np.ndarray,
    log_ratio_q: np.ndarray,
    names: list[str],
    columns: list[str],
    most: int = 60,
) -> dict[str, Any]:
    """Standardised mean differences of every feature before and after weighting.

        smd_j = (mean_p x_j - mean_q,w x_j) / sqrt((var_q x_j + var_p x_j) / 2)

    The scale is that of the unweighted sides, so that weighting cannot hide behind it.
    """
    weights = np.exp(log_ratio_q - log_ratio_q.max())
    weights /= weights.sum()
    mean_p = dense_p.mean(axis=0)
    scale = np.sqrt((dense_q.var(axis=0) + dense_p.var(axis=0)) / 2)
    flat = scale == 0  # constant on each side: the pooled spread tells whether the sides agree
    scale[flat] = np.concatenate([dense_q[:, flat], dense_p[:, flat]]).std(axis=0)
    scale[scale == 0] = np.inf
    before = (mean_p - dense_q.mean(axis=0)) / scale
    after = (mean_p - weights @ dense_q) / scale
    order = np.argsort(-np.maximum(np.abs(before), np.abs(after)), kind="stable")
    return {
        "max_abs_smd_before": float(np.abs(before).max()),
        "max_abs_smd_after": float(np.abs(after).max()),
        "features": [
            {
                "name": names[j],
                "column": columns[j],
                "before": float(before[j]),
                "after": float(after[j]),
            }
            for j in order[:most]
        ],
    }
