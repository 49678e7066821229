"""The area under the ROC curve: how well does a score tell q from p?

Let s be any score, such as the log ratio of a classifier that was trained to tell p from q. Its

    AUC = P(s(Y) > s(X)) + 1/2 P(s(Y) = s(X)),   X ~ Q, Y ~ P

is 1/2 for every s when Q = P, and the largest AUC over all scores is reached by the ratio dP/dQ.
It is an effect size with a plain meaning: the share of pairs (a row of q, a row of p) that the
score orders correctly.

Two things go wrong in practice, and each has its answer here.

- Scores of different models do not share a scale. With cross-fitting, rows are compared only
  inside their fold.
- The K models of a cross-fit share their training rows. Under Q = P a row i in one fold and a row
  j in another meet twice, i as training row of j's score and j as training row of i's; both
  meetings move the mean AUC the same way, so its variance is twice what folds would have if they
  were independent. A lower end at nominal 2.5 % that takes the naive variance passes 1/2 in 7 to
  10 % of draws. `auc_interval` doubles the variance. In `bench/levels.py` the ratio of standard
  deviations is 1.3 to 1.4 at Q = P, as it should be, and it stays there for neighbours and trees
  at an AUC near 0.7; only for a linear model does it fall towards 1, and its interval is then too
  wide by up to sqrt(2).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dpdq.distance._common import normal_quantile
from dpdq.errors import DataError, OptionError
from dpdq.results import Estimate

__all__ = ["SHARED_TRAINING", "auc", "auc_interval", "placements"]

SHARED_TRAINING = 2.0  # variance of a cross-fitted AUC over that of independent folds, at q = p


def auc(scores_q: np.ndarray, scores_p: np.ndarray) -> float:
    """Share of pairs of a row of q and a row of p in which p has the higher score.

        AUC = 1/(n_q n_p) sum_ij [s(p_j) > s(q_i)] + 1/2 [s(p_j) = s(q_i)]

    The scores of both sides must be of one model that saw none of these rows.

    Parameters
    ----------
    scores_q, scores_p
        Scores that grow towards p, such as log ratios; shapes (n_q,) and (n_p,).

    Returns
    -------
    float
        Between 0 and 1; 1/2 when the scores tell nothing.

    Raises
    ------
    DataError
        A side is empty or holds missing values.

    Notes
    -----
    Cost: O(n log n) time, O(n) memory.
    Held by: tests/distance/test_roc.py::test_auc_equals_all_pairs

    References
    ----------
    .. [Hanley1982] The Meaning and Use of the Area under a Receiver Operating Characteristic (ROC)
       Curve. Hanley, 1982, Radiology 143.

    Examples
    --------
    >>> auc(scores_q=[0.1, 0.4, 0.4], scores_p=[0.4, 0.8])
    0.8333333333333333
    """
    q, p = _check_scores(scores_q, "q"), _check_scores(scores_p, "p")
    return float(placements(p, q).mean())


def auc_interval(
    scores_q: np.ndarray,
    scores_p: np.ndarray,
    *,
    folds_q: np.ndarray | None = None,
    folds_p: np.ndarray | None = None,
    units_q: np.ndarray | None = None,
    units_p: np.ndarray | None = None,
    level: float = 0.95,
) -> Estimate:
    """AUC with a confidence interval, also for cross-fitted scores and rows that come in units.

        AUC = sum_f w_f AUC_f,   w_f proportional to n_qf n_pf

    over the folds f in which both sides have rows; its variance is that of the structural
    components of DeLong, summed by unit, and doubled where there are folds, since the models
    share training rows (see the module). The estimand is the mean AUC of classifiers that are
    trained on this much data; the best classifier on more data may do better. Under q = p the
    cross-fitted estimate lies a little below 1/2 on average, because a row that is held out makes
    its side rarer among the training rows; a lower bound above 1/2 is therefore trustworthy, an
    upper bound below 1/2 means nothing.

    Parameters
    ----------
    scores_q, scores_p
        Scores that grow towards p; shapes (n_q,) and (n_p,).
    folds_q, folds_p
        Integer fold of each row: rows of one fold were scored by one model that did not see them.
        ``None``: all rows were scored by one model.
    units_q, units_p
        Integer unit of each row. Units are independent, rows inside one are not.
    level
        Of the interval.

    Returns
    -------
    Estimate
        The AUC with ``low``, ``high`` and ``standard_error``; both ends within [0, 1].

    Raises
    ------
    DataError
        A side is empty, lengths differ, scores are missing, or no fold has rows of both sides.
    OptionError
        Only one of two folds or units is given, or ``level`` is not between 0 and 1.

    Notes
    -----
    Cost: O(n log n) time, O(n) memory.
    Held by: tests/distance/test_roc.py::test_interval_holds_with_crossfitting

    References
    ----------
    .. [DeLong1988] Comparing the Areas under Two or More Correlated Receiver Operating
       Characteristic Curves: A Nonparametric Approach. DeLong, 1988, Biometrics 44.
    .. [Obuchowski1997] Nonparametric Analysis of Clustered ROC Curve Data. Obuchowski, 1997,
       Biometrics 53.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> auc_interval(rng.normal(size=400), rng.normal(1.0, 1.0, size=300))
    Estimate(0.7724, 95 % interval 0.7378 to 0.8069)
    """
    width = normal_quantile(level)
    scores = (_check_scores(scores_q, "q"), _check_scores(scores_p, "p"))
    folds = _labels_of_rows(folds_q, folds_p, scores, "folds")
    units = _labels_of_rows(units_q, units_p, scores, "units")
    names = np.unique(np.concatenate(folds))

    parts: list[tuple[float, float, list[np.ndarray]]] = []  # pairs, AUC, rows of each side
    components = [np.zeros(len(side)) for side in scores]
    for name in names:
        rows = [np.flatnonzero(side == name) for side in folds]
        n_q, n_p = len(rows[0]), len(rows[1])
        if n_q == 0 or n_p == 0:
            continue
        q, p = scores[0][rows[0]], scores[1][rows[1]]
        placed = (1.0 - placements(q, p), placements(p, q))
        value = float(placed[1].mean())
        parts.append((float(n_q) * n_p, value, rows))
        for side, n in ((0, n_q), (1, n_p)):
            small_sample = math.sqrt(n / (n - 1)) if n > 1 else 1.0
            components[side][rows[side]] = (placed[side] - value) / n * small_sample
    if not parts:
        raise DataError("no fold holds rows of both q and p; AUC compares rows inside a fold")
    pairs = sum(part[0] for part in parts)
    estimate = sum(part[0] / pairs * part[1] for part in parts)
    for n_pairs, _, rows in parts:
        for side in (0, 1):
            components[side][rows[side]] *= n_pairs / pairs

    variance = _sum_of_squares(components, units)
    if len(parts) > 1:
        variance *= SHARED_TRAINING
    smallest = min(sum(len(part[2][side]) for part in parts) for side in (0, 1))
    # Perfect separation has no spread; its bound then is that of one pair in 2 min(n_q, n_p).
    variance = max(variance, (1.0 - 0.5 / smallest) * 0.5 / smallest**2)
    error = math.sqrt(variance)
    reach = width * error
    return Estimate(
        estimate=estimate,
        low=max(0.0, estimate - reach),
        high=min(1.0, estimate + reach),
        standard_error=error,
        level=level,
        method="AUC, DeLong variance"
        + (f", {len(parts)} folds with shared training rows" if len(parts) > 1 else "")
        + (", by unit" if units[0] is not None else ""),
    )


def placements(scores: np.ndarray, others: np.ndarray) -> np.ndarray:
    """For each score the share of the others below it, an equal one counting half."""
    ordered = np.sort(others)
    below = np.searchsorted(ordered, scores, side="left")
    below = below + np.searchsorted(ordered, scores, side="right")
    return below / (2.0 * len(others))


def _check_scores(scores: np.ndarray, side: str) -> np.ndarray:
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 1 or len(values) == 0:
        raise DataError(f"scores_{side} has shape {values.shape}; expected (n,) with n at least 1")
    if np.isnan(values).any():
        raise DataError(f"scores_{side} holds {int(np.isnan(values).sum())} missing values")
    return values


def _labels_of_rows(
    of_q: np.ndarray | None,
    of_p: np.ndarray | None,
    scores: tuple[np.ndarray, np.ndarray],
    what: str,
) -> tuple[Any, Any]:
    if (of_q is None) != (of_p is None):
        raise OptionError(f"{what}_q and {what}_p go together; give both or neither")
    if of_q is None or of_p is None:
        if what == "units":
            return None, None
        return np.zeros(len(scores[0]), dtype=np.int64), np.zeros(len(scores[1]), dtype=np.int64)
    found = np.asarray(of_q), np.asarray(of_p)
    for values, side, name in zip(found, scores, "qp", strict=True):
        if values.shape != side.shape:
            raise DataError(f"{what}_{name} has shape {values.shape}; expected {side.shape}")
    return found


def _sum_of_squares(components: list[np.ndarray], units: tuple[Any, Any]) -> float:
    if units[0] is None:
        return float(sum(side @ side for side in components))
    pooled = np.concatenate([side.astype(np.uint64) for side in units])
    names, unit_of = np.unique(pooled, return_inverse=True)
    totals = np.bincount(unit_of, weights=np.concatenate(components), minlength=len(names))
    return float(totals @ totals) * len(names) / max(len(names) - 1, 1)
