"""What follows from the ratio: overlap and balance."""

from __future__ import annotations

from typing import Any

import numpy as np

from dpdq.ratio import check_overlap

__all__ = ["balance_part", "overlap_part"]


def overlap_part(
    log_ratio_q: np.ndarray, log_ratio_p: np.ndarray, ids: dict[int, Any] | None = None
) -> dict[str, Any]:
    """Share of p beyond the 99.9 % point of q's own held-out log ratios.

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
    found = check_overlap(log_ratio_q, log_ratio_p)
    rows = []
    if not found.ok:
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
        "ok": found.ok,
        "share_of_p_out_of_reach": found.share,
        "low": found.low,
        "high": found.high,
        "log_ratio_limit": found.log_ratio_limit,
        "sentence": found.status,
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
