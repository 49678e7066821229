"""Regression adjustment of weighted metrics.

With g an estimate of E[psi | x], psi the influence of a row of q on the metric,

    metric on p = metric(weighted q) + mean over p of g - weighted mean over q of g:

right if the ratio or the regression is, and narrower where features say something of psi. The
regression is cross-fitted, so that no row is predicted by a forest that saw it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dpdq._random import RandomState, as_generator, child_seed
from dpdq.errors import DataError
from dpdq.results import Estimate
from dpdq.shift._common import clustered_variance, effective_count, same_length, unit_codes
from dpdq.shift._losses import Metric, average, estimate_of, interval

__all__ = ["adjusted"]


def adjusted(
    metrics: dict[str, Metric],
    ratio: np.ndarray,
    codes: np.ndarray | None,
    features_q: np.ndarray,
    features_p: np.ndarray,
    folds_q: np.ndarray | None,
    units_p: Any,
    max_rows: int,
    random_state: RandomState,
    caveat: str,
) -> dict[str, Estimate]:
    """Each metric on p, with what features predict of its influence averaged over rows of p.

    Raises
    ------
    DataError
        If the two feature matrices do not fit each other or the labels.
    """
    x_q = np.asarray(features_q, dtype=np.float64)
    x_p = np.asarray(features_p, dtype=np.float64)
    if x_q.ndim != 2 or x_p.ndim != 2 or x_q.shape[1] != x_p.shape[1] or len(x_p) == 0:
        raise DataError(
            f"features_q {x_q.shape} and features_p {x_p.shape}: give two matrices with the same "
            "columns"
        )
    same_length("features_q", x_q, "labels of q", len(ratio))
    codes_p = None
    if units_p is not None and len(np.asarray(units_p)) == len(x_p):
        codes_p = unit_codes(units_p, len(x_p), "units_p")
    rng = as_generator(random_state)
    folds = _folds(folds_q, codes, len(ratio), rng)
    names = [name for name, metric in metrics.items() if not metric.reason]
    psi = np.stack([metrics[name].psi for name in names], axis=1)
    on_q, on_p = _cross_fit(x_q, psi, ratio, x_p, folds, max_rows, child_seed(rng))
    method = f"importance weighting, regression-adjusted; {caveat}"
    out = {}
    for name, metric in metrics.items():
        if metric.reason:
            out[name] = interval(metric, ratio, codes, method)
            continue
        g_q, g_p = on_q[:, names.index(name)], on_p[:, names.index(name)]
        moved = float(g_p.mean()) - average(g_q, ratio)
        rest = metric.psi - g_q
        rest = rest - average(rest, ratio)
        error = np.sqrt(
            clustered_variance(ratio * rest, codes) / ratio.sum() ** 2
            + clustered_variance(g_p - g_p.mean(), codes_p) / len(g_p) ** 2
        )
        plain = interval(metric, ratio, codes, f"importance weighting; {caveat}")
        if plain.standard_error is None or error >= plain.standard_error:
            out[name] = plain  # features say nothing of this metric: the regression adds noise
            continue
        value = float(np.clip(metric.value + moved, *metric.bounds))
        count = effective_count(ratio, codes)
        out[name] = estimate_of(value, float(error), count, metric.bounds, method)
    return out


def _folds(
    folds: np.ndarray | None, codes: np.ndarray | None, n: int, rng: np.random.Generator
) -> np.ndarray:
    if folds is not None:
        values = np.asarray(folds)
        same_length("folds_q", values, "rows of q", n)
        return np.unique(values, return_inverse=True)[1]
    codes = np.arange(n) if codes is None else codes
    count = int(codes.max()) + 1
    return (rng.permutation(count) % 5)[codes]


def _cross_fit(
    x: np.ndarray,
    target: np.ndarray,
    weights: np.ndarray,
    x_p: np.ndarray,
    folds: np.ndarray,
    max_rows: int,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Predictions of ``target`` for x by forests that did not see the fold, and their mean on p."""
    from sklearn.ensemble import ExtraTreesRegressor

    rng = np.random.default_rng(seed)
    on_q, on_p = np.zeros(target.shape), np.zeros((len(x_p), target.shape[1]))
    present = np.unique(folds)
    if len(present) < 2:
        return on_q, on_p
    for fold in present:
        held = folds == fold
        rows = np.flatnonzero(~held & (weights > 0))
        if len(rows) > max_rows:
            rows = np.sort(rng.choice(rows, size=max_rows, replace=False))
        if len(rows) < 20:
            continue
        forest = ExtraTreesRegressor(
            n_estimators=30, min_samples_leaf=20, max_features=0.5, random_state=child_seed(rng)
        )
        forest.fit(x[rows], target[rows], sample_weight=weights[rows])
        on_q[held] = forest.predict(x[held]).reshape(-1, target.shape[1])
        on_p += forest.predict(x_p).reshape(-1, target.shape[1]) / len(present)
    return on_q, on_p
