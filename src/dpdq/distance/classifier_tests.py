"""Tests of "q and p are the same law" by whether a classifier can tell them apart.

Under Q = P no classifier has an AUC other than 1/2 on rows that it was not trained on, so any
classifier makes a test, and what it can learn decides the power. The AUC of cross-fitted models is
not a test statistic with a known null law (`dpdq.distance.roc`); an exact p-value comes from

- one split into training and test rows: given the trained model, the scores of test rows are
  exchangeable, and their labels are permuted;
- permutations of all labels with the classifier trained again each time, which uses every row for
  both and is meant for small samples. They stop early, at the same level, once the p-value cannot
  become small (`dpdq.distance.permutation.stopped_pvalue`).
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np

from dpdq._random import RandomState, as_generator, child_seed
from dpdq.distance._common import check_sides
from dpdq.distance.detectable import detectable_auc
from dpdq.distance.permutation import permutation_design, permutation_pvalue, stopped_pvalue
from dpdq.distance.roc import SHARED_TRAINING, auc_interval, placements
from dpdq.errors import DataError, InputTypeError, OptionError
from dpdq.results import TestResult

__all__ = ["classifier_test"]

Method = Literal["auto", "split", "permutation"]
METHODS = ("auto", "split", "permutation")
REFIT_ROWS = 400  # pooled rows up to which "auto" trains again for each permutation


def classifier_test(
    q: np.ndarray,
    p: np.ndarray,
    *,
    method: Method = "auto",
    estimator: Any = None,
    n_folds: int = 5,
    n_permutations: int | None = None,
    early_stopping: bool = True,
    units_q: np.ndarray | None = None,
    units_p: np.ndarray | None = None,
    random_state: RandomState = None,
) -> TestResult:
    """Test that q and p are samples of one law, by whether a classifier can tell them apart.

        T = AUC of a classifier on rows that it was not trained on

    ``split`` trains on one half and permutes the labels of the other half's scores.
    ``permutation`` cross-fits on all rows and does all of it again for each permutation; it uses
    the rows better and costs B times as much. Both are exact: P(p <= alpha) <= alpha under q = p.

    Power depends on the classifier: a linear one sees no change of variance or correlation. A
    split gives up half of the rows for training; `mmd_test` needs no training and is often more
    powerful in few dimensions, the classifier in many.

    Parameters
    ----------
    q, p
        Samples, shapes (n_q, d) and (n_p, d); at least four rows each.
    method
        ``"split"``, ``"permutation"``, or ``"auto"``: permutation up to 400 pooled rows without
        units, a split above.
    estimator
        A scikit-learn classifier with ``predict_proba`` or ``decision_function``; it is cloned.
        By default histogram gradient boosting for ``"split"``, and for ``"permutation"`` the
        linear discriminant, whose refits for all permutations are matrix products.
    n_folds
        Folds of the cross-fit of ``"permutation"``.
    n_permutations
        B; 999 for a split, 199 with refitting by default.
    early_stopping
        Whether refits of a given estimator stop once (B + 1) / 20 permutations reached the
        statistic. The test at level 5 % decides as it would after all of them; larger p-values are
        coarser.
    units_q, units_p
        Integer unit of each row, for ``"split"``: units are split and permuted as wholes.
    random_state
        Seed of split, classifier and permutations.

    Returns
    -------
    TestResult
        ``statistic`` is the AUC, ``effect`` the AUC with its interval, ``detectable`` the smallest
        AUC that 80 % power finds; ``details`` holds ``n_permutations`` (those done), ``unit`` and
        the rows trained on and tested on.

    Raises
    ------
    DataError
        Values are not finite, columns do not match, or a side has fewer than four rows (units).
    OptionError
        Unknown method, fewer than 2 folds, or units with ``"permutation"``.
    InputTypeError
        The estimator gives no scores.

    Notes
    -----
    Cost: one fit for a split; at most n_folds (B + 1) fits of a given estimator for permutation.
    Held by: tests/distance/test_classifier_tests.py::test_level

    References
    ----------
    .. [LopezPaz2017] Revisiting Classifier Two-Sample Tests. Lopez-Paz, 2017, arXiv 1610.06545.
    .. [Besag1991] Sequential Monte Carlo p-values. Besag, 1991, Biometrika 78.
    .. [Kim2021] Classification accuracy as a proxy for two-sample testing. Kim, 2021, Annals of
       Statistics 49.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> q, p = rng.normal(size=(60, 2)), rng.normal(1.0, 1.0, size=(60, 2))
    >>> classifier_test(q=q, p=p, random_state=0).pvalue
    0.005
    """
    if method not in METHODS:
        raise OptionError(
            f"Unknown method {method!r}. Choose one of {', '.join(map(repr, METHODS))}."
        )
    if n_folds < 2:
        raise OptionError(f"n_folds is {n_folds}; expected at least 2")
    q, p = check_sides(q, p, minimum=4)
    if method == "auto":
        small = len(q) + len(p) <= REFIT_ROWS and units_q is None
        method = "permutation" if small else "split"
    if (units_q is None) != (units_p is None):
        raise OptionError("units_q and units_p go together; give both or neither")
    for side, units, points in (("q", units_q, q), ("p", units_p, p)):
        if units is not None and np.shape(units) != (len(points),):
            raise DataError(f"units_{side} has shape {np.shape(units)}; expected ({len(points)},)")
    rng = as_generator(random_state)
    if method == "permutation":
        if units_q is not None or units_p is not None:
            raise OptionError("units need method='split'")
        return _refit_test(q, p, estimator, n_folds, n_permutations or 199, early_stopping, rng)
    return _split_test(q, p, estimator, n_permutations or 999, units_q, units_p, rng)


def _boosting() -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(
        max_iter=60, max_leaf_nodes=15, learning_rate=0.1, min_samples_leaf=20
    )


def _scores(
    estimator: Any,
    train: np.ndarray,
    is_p: np.ndarray,
    score: np.ndarray,
    seed: int,
) -> np.ndarray:
    """Train a clone and score rows towards p."""
    from sklearn.base import clone

    model: Any = clone(estimator)
    seeds = {name: seed for name in model.get_params() if name.split("__")[-1] == "random_state"}
    model.set_params(**seeds)
    model.fit(train, is_p)
    if callable(getattr(model, "decision_function", None)):
        return np.asarray(model.decision_function(score), dtype=np.float64)
    if callable(getattr(model, "predict_proba", None)):
        return np.asarray(model.predict_proba(score), dtype=np.float64)[:, 1]
    raise InputTypeError(
        f"estimator {type(estimator).__name__} has neither predict_proba nor decision_function; "
        "give a classifier that scores"
    )


def _split_test(
    q: np.ndarray,
    p: np.ndarray,
    estimator: Any,
    n_permutations: int,
    units_q: np.ndarray | None,
    units_p: np.ndarray | None,
    rng: np.random.Generator,
) -> TestResult:
    points = np.vstack([q, p])
    is_p = np.repeat([0, 1], [len(q), len(p)])
    units: list[np.ndarray] | None = None
    if units_q is None or units_p is None:
        held = [np.sort(rng.permutation(n)[: n // 2]) for n in (len(q), len(p))]
    else:
        units = [np.asarray(side).astype(np.uint64) for side in (units_q, units_p)]
        both = np.intersect1d(units[0], units[1])
        # Half of the units of each kind; a unit on both sides goes to one half as a whole.
        chosen = [
            rng.permutation(kind)[: len(kind) // 2]
            for kind in (both, np.setdiff1d(units[0], both), np.setdiff1d(units[1], both))
        ]
        held = [np.flatnonzero(np.isin(side, np.concatenate(chosen))) for side in units]
    test = np.concatenate([held[0], len(q) + held[1]])
    train = np.setdiff1d(np.arange(len(points)), test)
    for rows, what in ((train, "training"), (test, "test")):
        if len(np.unique(is_p[rows])) < 2:
            raise DataError(f"too few units: the {what} half holds rows of one side only")
    scores = _scores(
        _boosting() if estimator is None else estimator,
        points[train],
        is_p[train],
        points[test],
        child_seed(rng),
    )
    n_q, n_p = len(held[0]), len(held[1])
    design = permutation_design(
        n_q,
        n_p,
        n_permutations=n_permutations,
        units_q=None if units is None else units[0][held[0]],
        units_p=None if units is None else units[1][held[1]],
        rng=rng,
    )
    # AUC is linear in the sum of ranks, so blocks need only their sums.
    ranks = len(scores) * placements(scores, scores) + 0.5
    sums = np.add.reduceat(ranks[design.order], design.starts[:-1])
    called_q = design.labels @ design.sizes.astype(np.float64)
    called_p = len(scores) - called_q
    above = sums.sum() - design.labels @ sums - called_p * (called_p + 1) / 2
    both = called_q * called_p
    values = np.divide(above, both, out=np.full(len(both), 0.5), where=both > 0)
    effect = auc_interval(
        scores[:n_q],
        scores[n_q:],
        units_q=None if units is None else units[0][held[0]],
        units_p=None if units is None else units[1][held[1]],
    )
    return TestResult(
        statistic=float(values[0]),
        pvalue=permutation_pvalue(values),
        method=f"classifier trained on one half, AUC on the other, permutation by {design.unit}",
        n_q=len(q),
        n_p=len(p),
        effect=effect,
        detectable=detectable_auc(n_q, n_p),
        details={
            "method": "split",
            "n_permutations": n_permutations,
            "unit": design.unit,
            "n_train": len(train),
            "n_test": len(test),
            "smallest_pvalue": design.smallest_pvalue,
        },
    )


def _refit_test(
    q: np.ndarray,
    p: np.ndarray,
    estimator: Any,
    n_folds: int,
    n_permutations: int,
    early_stopping: bool,
    rng: np.random.Generator,
) -> TestResult:
    points = np.vstack([q, p])
    n_folds = min(n_folds, len(q), len(p))
    # Every permutation keeps its folds of random rows: nothing here knows the observed labels.
    labels = np.repeat([0, 1], [len(q), len(p)])[None].repeat(n_permutations + 1, axis=0)
    labels[1:] = rng.permuted(labels[1:], axis=1)
    folds = rng.permutation(np.arange(len(points)) % n_folds)
    if estimator is None:
        scores = _ridge_scores(points, labels, folds)
        values = np.array(
            [_fold_auc(one, is_p, folds) for one, is_p in zip(scores, labels, strict=True)]
        )
        first, observed = scores[0], float(values[0])
        pvalue, drawn = permutation_pvalue(values), n_permutations
    else:
        seed = child_seed(rng)

        def again(is_p: np.ndarray) -> np.ndarray:
            return _refitted_scores(estimator, points, is_p, folds, seed)

        first = again(labels[0])
        observed = _fold_auc(first, labels[0], folds)
        pvalue, drawn = stopped_pvalue(
            observed,
            (_fold_auc(again(is_p), is_p, folds) for is_p in labels[1:]),
            n_permutations,
            exceedances=None if early_stopping else n_permutations + 1,
        )
    is_p = labels[0] == 1
    effect = auc_interval(first[~is_p], first[is_p], folds_q=folds[~is_p], folds_p=folds[is_p])
    return TestResult(
        statistic=observed,
        pvalue=pvalue,
        method=f"cross-fitted AUC in {n_folds} folds, permutation of rows with refitting",
        n_q=len(q),
        n_p=len(p),
        effect=effect,
        detectable=detectable_auc(len(q), len(p), se_inflation=math.sqrt(SHARED_TRAINING)),
        details={
            "method": "permutation",
            "n_permutations": drawn,
            "unit": "row",
            "n_train": len(points),
            "n_test": len(points),
            "smallest_pvalue": 1.0 / (n_permutations + 1),
        },
    )


def _fold_auc(scores: np.ndarray, is_p: np.ndarray, folds: np.ndarray) -> float:
    total = pairs = 0.0
    for fold in np.unique(folds):
        inside = scores[folds == fold]
        one = is_p[folds == fold] == 1
        n_pairs = float(one.sum()) * float((~one).sum())
        if n_pairs:
            total += n_pairs * float(placements(inside[one], inside[~one]).mean())
            pairs += n_pairs
    return total / pairs if pairs else 0.5


def _ridge_scores(points: np.ndarray, labels: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Cross-fitted scores of the linear discriminant for all label vectors at once.

    Least squares of the labels on the features: the matrix that takes training labels to scores
    knows no labels, so one factorisation a fold serves all permutations.
    """
    spread = points.std(axis=0)
    features = (points - points.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    scores = np.empty(labels.shape)
    for fold in np.unique(folds):
        inside = folds == fold
        train = features[~inside] - features[~inside].mean(axis=0)
        targets = labels[:, ~inside] - labels[:, ~inside].mean(axis=1, keepdims=True)
        if train.shape[0] >= train.shape[1]:
            gram = train.T @ train + np.eye(train.shape[1])
            weights = np.linalg.solve(gram, train.T @ targets.T)
        else:
            weights = train.T @ np.linalg.solve(train @ train.T + np.eye(len(train)), targets.T)
        scores[:, inside] = (features[inside] @ weights).T
    return scores


def _refitted_scores(
    estimator: Any,
    points: np.ndarray,
    is_p: np.ndarray,
    folds: np.ndarray,
    seed: int,
) -> np.ndarray:
    """Cross-fitted scores of a given estimator for one label vector."""
    from threadpoolctl import threadpool_limits

    scores = np.zeros(len(points))
    with threadpool_limits(limits=1, user_api="blas"):
        for fold in np.unique(folds):
            inside = folds == fold
            if len(np.unique(is_p[~inside])) == 2:
                scores[inside] = _scores(
                    estimator, points[~inside], is_p[~inside], points[inside], seed
                )
    return scores
