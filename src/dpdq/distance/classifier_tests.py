"""How well can a classifier tell q from p? The area under the ROC curve, and tests made from it.

Let s be any score, such as the log ratio of a classifier that was trained to tell p from q. Its

    AUC = P(s(Y) > s(X)) + 1/2 P(s(Y) = s(X)),   X ~ Q, Y ~ P

is 1/2 for every s when Q = P, and the largest AUC over all scores is reached by the ratio dP/dQ.
It is an effect size with a plain meaning: the share of pairs (a row of q, a row of p) that the
classifier orders correctly.

Three things go wrong in practice, and each has its answer here.

- Scores of different models do not share a scale. With cross-fitting, rows are compared only
  inside their fold (`auc_interval`).
- The K models of a cross-fit share their training rows. Under Q = P a row i in one fold and a row
  j in another meet twice, i as training row of j's score and j as training row of i's; both
  meetings move the mean AUC the same way, so its variance is twice what folds would have if they
  were independent. A test that takes the naive variance rejects at level 5 % about 10 % of the
  time. `auc_interval` doubles it. Far from Q = P the doubling is not needed and the interval is
  too wide, by at most sqrt(2).
- The cross-fitted AUC is not a test statistic with a known null law. A p-value comes from one split
  into training and test rows, or from permutations with the classifier trained again each time
  (`classifier_test`).
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any, Literal

import numpy as np

from dpdq._random import RandomState, as_generator, child_seed
from dpdq.distance.permutation import permutation_design, permutation_pvalue
from dpdq.errors import DataError, InputTypeError, OptionError
from dpdq.kernels import check_points
from dpdq.results import Estimate, TestResult

__all__ = ["auc", "auc_interval", "classifier_test", "detectable_auc", "detectable_smd"]

Method = Literal["auto", "split", "permutation"]
METHODS = ("auto", "split", "permutation")
REFIT_ROWS = 400  # pooled rows up to which "auto" trains again for each permutation
SHARED_TRAINING = 2.0  # variance of a cross-fitted AUC over that of independent folds, at q = p


def _check_scores(scores: np.ndarray, side: str) -> np.ndarray:
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 1 or len(values) == 0:
        raise DataError(f"scores_{side} has shape {values.shape}; expected (n,) with n at least 1")
    if np.isnan(values).any():
        raise DataError(f"scores_{side} holds {int(np.isnan(values).sum())} missing values")
    return values


def _placements(scores: np.ndarray, others: np.ndarray) -> np.ndarray:
    """For each score the share of the others below it, an equal one counting half."""
    ordered = np.sort(others)
    below = np.searchsorted(ordered, scores, side="left")
    below = below + np.searchsorted(ordered, scores, side="right")
    return below / (2.0 * len(others))


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
    Held by: tests/distance/test_classifier_tests.py::test_auc_equals_all_pairs

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
    return float(_placements(p, q).mean())


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
    Held by: tests/distance/test_classifier_tests.py::test_interval_holds_with_crossfitting

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
    if not 0.0 < level < 1.0:
        raise OptionError(f"level is {level}; expected a number between 0 and 1")
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
        placed = (1.0 - _placements(q, p), _placements(p, q))
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
    reach = NormalDist().inv_cdf(0.5 + level / 2) * error
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


def classifier_test(
    q: np.ndarray,
    p: np.ndarray,
    *,
    method: Method = "auto",
    estimator: Any = None,  # noqa: ANN401 - any scikit-learn classifier
    n_folds: int = 5,
    n_permutations: int | None = None,
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
    units_q, units_p
        Integer unit of each row, for ``"split"``: units are split and permuted as wholes.
    random_state
        Seed of split, classifier and permutations.

    Returns
    -------
    TestResult
        ``statistic`` is the AUC, ``effect`` the AUC with its interval, ``detectable`` the smallest
        AUC that 80 % power finds; ``details`` holds ``n_permutations``, ``unit`` and the rows
        trained on and tested on.

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
    Cost: one fit for a split; n_folds (B + 1) fits of a given estimator for permutation.
    Held by: tests/distance/test_classifier_tests.py::test_level

    References
    ----------
    .. [LopezPaz2017] Revisiting Classifier Two-Sample Tests. Lopez-Paz, 2017, arXiv 1610.06545.
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
    q, p = check_points(q, "q"), check_points(p, "p")
    if q.shape[1] != p.shape[1]:
        raise DataError(
            f"q has {q.shape[1]} features and p has {p.shape[1]}; both need the same columns"
        )
    if min(len(q), len(p)) < 4:
        raise DataError(f"q has {len(q)} rows and p {len(p)}; expected at least 4 on each side")
    if method == "auto":
        small = len(q) + len(p) <= REFIT_ROWS and units_q is None
        method = "permutation" if small else "split"
    rng = as_generator(random_state)
    if method == "permutation":
        if units_q is not None or units_p is not None:
            raise OptionError("units need method='split'")
        return _refit_test(q, p, estimator, n_folds, n_permutations or 199, rng)
    return _split_test(q, p, estimator, n_permutations or 999, units_q, units_p, rng)


def _boosting() -> Any:  # noqa: ANN401 - a scikit-learn classifier
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(
        max_iter=60, max_leaf_nodes=15, learning_rate=0.1, min_samples_leaf=20
    )


def _scores(
    estimator: Any,  # noqa: ANN401 - any scikit-learn classifier
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
    estimator: Any,  # noqa: ANN401 - any scikit-learn classifier
    n_permutations: int,
    units_q: np.ndarray | None,
    units_p: np.ndarray | None,
    rng: np.random.Generator,
) -> TestResult:
    points = np.vstack([q, p])
    is_p = np.repeat([0, 1], [len(q), len(p)])
    held = [np.zeros(0, dtype=np.int64)] * 2
    unit_of: list[np.ndarray | None] = [None, None]
    if units_q is not None and units_p is not None:
        unit_of = [np.asarray(units_q), np.asarray(units_p)]
        # One coin for a unit, whichever side it is on.
        names = np.unique(np.concatenate([np.asarray(side).astype(np.uint64) for side in unit_of]))
        chosen = rng.permutation(names)[: len(names) // 2]
        held = [
            np.flatnonzero(np.isin(np.asarray(side).astype(np.uint64), chosen)) for side in unit_of
        ]
    else:
        held = [np.sort(rng.permutation(n)[: n // 2]) for n in (len(q), len(p))]
    test = np.concatenate([held[0], len(q) + held[1]])
    train = np.setdiff1d(np.arange(len(points)), test)
    for rows, what in ((train, "training"), (test, "test")):
        if len(np.unique(is_p[rows])) < 2:
            raise DataError(f"too few units: the {what} half holds rows of one side only")
    scores = _scores(
        _boosting() if estimator is None else estimator,
        points[train], is_p[train], points[test], child_seed(rng),
    )
    n_q, n_p = len(held[0]), len(held[1])
    design = permutation_design(
        n_q,
        n_p,
        n_permutations=n_permutations,
        units_q=None if unit_of[0] is None else unit_of[0][held[0]],
        units_p=None if unit_of[1] is None else unit_of[1][held[1]],
        rng=rng,
    )
    # AUC is linear in the sum of ranks, so blocks need only their sums.
    ranks = len(scores) * _placements(scores, scores) + 0.5
    sums = np.add.reduceat(ranks[design.order], design.starts[:-1])
    called_q = design.labels @ design.sizes.astype(np.float64)
    called_p = len(scores) - called_q
    above = sums.sum() - design.labels @ sums - called_p * (called_p + 1) / 2
    both = called_q * called_p
    values = np.divide(above, both, out=np.full(len(both), 0.5), where=both > 0)
    effect = auc_interval(
        scores[:n_q],
        scores[n_q:],
        units_q=None if unit_of[0] is None else unit_of[0][held[0]],
        units_p=None if unit_of[1] is None else unit_of[1][held[1]],
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
    estimator: Any,  # noqa: ANN401 - any scikit-learn classifier
    n_folds: int,
    n_permutations: int,
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
    else:
        scores = _refitted_scores(estimator, points, labels, folds, child_seed(rng))
    values = np.array([_fold_auc(s, is_p, folds) for s, is_p in zip(scores, labels, strict=True)])
    is_p = labels[0] == 1
    effect = auc_interval(
        scores[0, ~is_p], scores[0, is_p], folds_q=folds[~is_p], folds_p=folds[is_p]
    )
    return TestResult(
        statistic=float(values[0]),
        pvalue=permutation_pvalue(values),
        method=f"cross-fitted AUC in {n_folds} folds, permutation of rows with refitting",
        n_q=len(q),
        n_p=len(p),
        effect=effect,
        detectable=detectable_auc(len(q), len(p), se_inflation=math.sqrt(SHARED_TRAINING)),
        details={
            "method": "permutation",
            "n_permutations": n_permutations,
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
            total += n_pairs * float(_placements(inside[one], inside[~one]).mean())
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
    estimator: Any,  # noqa: ANN401 - any scikit-learn classifier
    points: np.ndarray,
    labels: np.ndarray,
    folds: np.ndarray,
    seed: int,
) -> np.ndarray:
    from threadpoolctl import threadpool_limits

    scores = np.zeros(labels.shape)
    with threadpool_limits(limits=1, user_api="blas"):
        for row, is_p in zip(scores, labels, strict=True):
            for fold in np.unique(folds):
                inside = folds == fold
                if len(np.unique(is_p[~inside])) == 2:
                    row[inside] = _scores(
                        estimator, points[~inside], is_p[~inside], points[inside], seed
                    )
    return scores


def _check_power(n_q: int, n_p: int, alpha: float, power: float, se_inflation: float) -> None:
    if min(n_q, n_p) < 1:
        raise DataError(f"n_q is {n_q} and n_p is {n_p}; expected at least 1 on each side")
    for name, value in (("alpha", alpha), ("power", power)):
        if not 0.0 < value < 1.0:
            raise OptionError(f"{name} is {value}; expected a number between 0 and 1")
    if not (se_inflation > 0.0 and math.isfinite(se_inflation)):
        raise OptionError(f"se_inflation is {se_inflation}; expected a positive number")


def detectable_auc(
    n_q: int, n_p: int, *, alpha: float = 0.05, power: float = 0.8, se_inflation: float = 1.0
) -> float:
    """Smallest true AUC whose lower confidence bound lies above 1/2 with the given power.

        A - 1/2 = c (z_(1 - alpha/2) SE(1/2) + z_power SE(A))
        SE(A)^2 = [A (1-A) + (n_p - 1)(A/(2-A) - A^2) + (n_q - 1)(2A^2/(1+A) - A^2)] / (n_q n_p)

    A is the AUC that the classifier reaches, not the best possible one: a classifier that learns
    nothing detects nothing. SE is that of Hanley and McNeil, for scores like those of two
    exponential laws.

    Parameters
    ----------
    n_q, n_p
        Rows that are scored on each side.
    alpha
        Two-sided level; the bound is the lower end of a 1 - alpha interval.
    power
        Probability of finding it.
    se_inflation
        c: sqrt(2) for cross-fitted scores, the square root of the design effect for rows in units;
        multiply where both apply.

    Returns
    -------
    float
        Between 1/2 and 1; 1.0 where not even perfect separation would be found.

    Raises
    ------
    DataError
        A side has no rows.
    OptionError
        A probability is not between 0 and 1, or the inflation is not positive.

    Notes
    -----
    Cost: O(1) time and memory.
    Held by: tests/distance/test_classifier_tests.py::test_detectable_effects_are_detected

    References
    ----------
    .. [Hanley1982] The Meaning and Use of the Area under a Receiver Operating Characteristic (ROC)
       Curve. Hanley, 1982, Radiology 143.

    Examples
    --------
    >>> round(detectable_auc(1000, 1000), 3)
    0.536
    """
    _check_power(n_q, n_p, alpha, power, se_inflation)

    def error(a: float) -> float:
        square = a * (1 - a)
        square += (n_p - 1) * (a / (2 - a) - a**2) + (n_q - 1) * (2 * a**2 / (1 + a) - a**2)
        return math.sqrt(max(square, 0.0) / (n_q * n_p))

    z = NormalDist().inv_cdf(1 - alpha / 2), NormalDist().inv_cdf(power)
    low, high = 0.5, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if middle - 0.5 < se_inflation * (z[0] * error(0.5) + z[1] * error(middle)):
            low = middle
        else:
            high = middle
    return high


def detectable_smd(
    n_q: int, n_p: int, *, alpha: float = 0.05, power: float = 0.8, se_inflation: float = 1.0
) -> float:
    """Smallest standardised mean difference that a two-sided test of one column finds.

        d = c (z_(1 - alpha/2) + z_power) sqrt(1/n_q + 1/n_p)

    The normal approximation of the two-sample t-test; below about 20 rows a side it is a few per
    cent too small. It is for one column named in advance: among k columns divide alpha by k.

    Parameters
    ----------
    n_q, n_p
        Rows on each side.
    alpha
        Two-sided level.
    power
        Probability of finding it.
    se_inflation
        c, the square root of the design effect for rows in units.

    Returns
    -------
    float
        In standard deviations of the column.

    Raises
    ------
    DataError
        A side has no rows.
    OptionError
        A probability is not between 0 and 1, or the inflation is not positive.

    Notes
    -----
    Cost: O(1) time and memory.
    Held by: tests/distance/test_classifier_tests.py::test_detectable_effects_are_detected

    References
    ----------
    .. [Cohen1988] Statistical Power Analysis for the Behavioral Sciences. Cohen, 1988, Erlbaum.

    Examples
    --------
    >>> round(detectable_smd(1000, 1000), 3)
    0.125
    """
    _check_power(n_q, n_p, alpha, power, se_inflation)
    total = NormalDist().inv_cdf(1 - alpha / 2) + NormalDist().inv_cdf(power)
    return se_inflation * total * math.sqrt(1.0 / n_q + 1.0 / n_p)
