"""Concept shift: is P(Y|X) the same on both sides?

Let D be 0 on q and 1 on p. P(Y|X) is unchanged exactly when Y and D are independent given X. With

    e(x) = P(D = 1 | x) = pi r / (1 - pi + pi r),   m(x) = E[Y | x] on both sides pooled,

the product of residuals R = (D - e(X)) (Y - m(X)) then has mean zero, and so has w(X) R for any
function w. The generalised covariance measure tests the mean of R; it is blind where Y rises with
D for some x and falls for others, so a second statistic weights R by a guess w(x) of the
difference E[Y|x, p] - E[Y|x, q]. That guess is learnt on earlier folds only: learnt on all other
folds it would use every pair of rows twice and the statistic would vary twice as much as it says.

What is tested is the conditional mean (for classes all of P(Y|X)): a changed spread of a numeric
label at an unchanged mean is not seen. Errors of e and m enter as their product, so that both must
be fitted decently; where both are poor in the same place a pure covariate shift can look like a
concept shift.
"""

from __future__ import annotations

import copy
import dataclasses
from typing import Any, Literal

import numpy as np
from scipy import special

from dpdq._random import RandomState, as_generator, child_seed
from dpdq._threads import one_thread_each
from dpdq.errors import DataError, OptionError
from dpdq.results import Result
from dpdq.shift._common import (
    Effect,
    class_text,
    clean_labels,
    cluster_sums,
    joint_units,
    same_classes,
    same_length,
    t_quantile,
    t_tail,
)

__all__ = ["ConceptShift", "concept_shift"]

_TOP_CLASSES = 10
_MIN_UNEXPLAINED = 0.05  # of the variance of D, below which no test has power
_WARM_UP = 0.35  # share of the rows that the guess w is learnt on before it is first used


@dataclasses.dataclass(frozen=True, repr=False)
class ConceptShift(Result):
    """Test and size of a changed P(Y|X).

    Attributes
    ----------
    pvalue
        Of "Y and the side are independent given X", over both statistics and all classes.
    statistic
        The largest of the studentised statistics.
    effect
        Average difference of E[Y|X], p minus q, at equal features, with 95 % interval.
    detected
        Whether the p-value is at most 0.05.
    sentence
        The finding in words.
    """

    pvalue: float
    statistic: float
    effect: Effect
    detected: bool
    sentence: str


@dataclasses.dataclass(frozen=True)
class _Pool:
    """Rows of both sides: features, targets (n, k), side, folds and units."""

    x: np.ndarray
    y: np.ndarray
    d: np.ndarray
    folds: np.ndarray
    units: np.ndarray
    names: tuple[str, ...]  # of the target columns; empty for a numeric label


def concept_shift(
    features_q: np.ndarray,
    y_q: Any,
    features_p: np.ndarray,
    y_p: Any,
    *,
    folds_q: np.ndarray | None = None,
    folds_p: np.ndarray | None = None,
    units_q: Any = None,
    units_p: Any = None,
    log_ratio_q: np.ndarray | None = None,
    log_ratio_p: np.ndarray | None = None,
    kind: Literal["auto", "classes", "numeric"] = "auto",
    label: str = "label",
    categorical: np.ndarray | None = None,
    regressor: Any = None,
    max_rows: int = 10_000,
    random_state: RandomState = 0,
) -> ConceptShift:
    """Test whether the label given the features is the same on q and on p, and by how much not.

        T_w   = sum w_i R_i / sd(sum w_i R_i),   R = (D - e(X)) (Y - m(X)),   w = 1 or w = w(X)
        theta = sum R_i / sum (D_i - e(X_i))^2

    The p-value is Bonferroni's over the statistics (two-sided for w = 1, one-sided for the learnt
    w) and, for more than two classes, over the classes. theta is the difference of E[Y|X] between
    p and q at equal features, averaged with weight e (1 - e): over the rows that could stand on
    either side, not over p.

    "Given the features" means the features given: a change in something unobserved is a concept
    shift here. The level is asymptotic and rests on regressions good enough that the product of
    their errors is below 1/sqrt(n). Rows that hang together (groups, hours of a day) need units,
    else the test finds their common noise. Where q and p hardly overlap the test has no power, and
    the sentence says so.

    Parameters
    ----------
    features_q, features_p
        Numeric features, shape (n_q, d) and (n_p, d), NaN for missing; without the label and
        without what is computed from it.
    y_q, y_p
        Labels, shape (n_q,) and (n_p,), none missing.
    folds_q, folds_p
        Integer folds; equal rows and units stand in one fold. Default: five, by units, else at
        random.
    units_q, units_p
        Units of the rows; equal values on both sides are one unit.
    log_ratio_q, log_ratio_p
        Cross-fitted log dP/dQ from these features, which give e(X); default: a classifier of our
        own.
    kind
        ``auto``: numeric for numbers with more than 20 different values or with fractions.
    label
        Name of the label, for the sentence.
    categorical
        Boolean, shape (d,): columns that hold codes of categories.
    regressor
        Any object with ``fit(x, y)`` and ``predict(x)`` in place of gradient boosting.
    max_rows
        At most this many rows a side are used, drawn at random.
    random_state
        Seed of the sample, the default folds and the regressions.

    Returns
    -------
    ConceptShift
        p-value, statistic, effect, whether detected, and the sentence.

    Raises
    ------
    DataError
        Lengths or numbers of columns that differ, missing labels, a constant label, fewer than two
        folds.
    OptionError
        An unknown ``kind``.

    Notes
    -----
    Cost: O(n d) time a tree; fifteen boosted models of up to 200 trees on max_rows rows a side.
    Held by: tests/shift/test_concepts.py::test_level_under_covariate_shift

    References
    ----------
    .. [Shah2020] The hardness of conditional independence testing and the generalised covariance
       measure. Shah, 2020, Annals of Statistics 48, arXiv 1804.07203.
    .. [Scheidegger2022] The Weighted Generalised Covariance Measure. Scheidegger, 2022, JMLR 23,
       arXiv 2111.04361.
    .. [Robinson1988] Root-N-Consistent Semiparametric Regression. Robinson, 1988, Econometrica 56.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import LinearRegression
    >>> rng = np.random.default_rng(0)
    >>> x_q, x_p = rng.normal(size=(500, 1)), rng.normal(size=(500, 1)) + 0.5
    >>> y_q = x_q[:, 0] + rng.normal(size=500)
    >>> y_p = x_p[:, 0] + rng.normal(size=500) + 1.0
    >>> concept_shift(x_q, y_q, x_p, y_p, regressor=LinearRegression()).detected
    True
    """
    if kind not in ("auto", "classes", "numeric"):
        raise OptionError(f"Unknown kind {kind!r}. Choose one of 'auto', 'classes', 'numeric'.")
    x_q = np.asarray(features_q, dtype=np.float64)
    x_p = np.asarray(features_p, dtype=np.float64)
    if x_q.ndim != 2 or x_p.ndim != 2 or x_q.shape[1] != x_p.shape[1]:
        raise DataError(
            f"features_q {x_q.shape} and features_p {x_p.shape}: give two matrices with the same "
            "columns"
        )
    first, second = clean_labels(y_q, f"{label} of q"), clean_labels(y_p, f"{label} of p")
    first, second = same_classes(first, second)
    same_length(f"{label} of q", first, "rows of features_q", len(x_q))
    same_length(f"{label} of p", second, "rows of features_p", len(x_p))
    rng = as_generator(random_state)
    codes_q, codes_p, clustered = joint_units(units_q, units_p, len(x_q), len(x_p))
    fold_q, fold_p = _folds(folds_q, folds_p, codes_q, codes_p, rng)
    rows_q, rows_p = (_some(len(x), max_rows, rng) for x in (x_q, x_p))
    targets, names = _targets(np.concatenate([first[rows_q], second[rows_p]]), kind, label)
    pool = _Pool(
        x=np.concatenate([x_q[rows_q], x_p[rows_p]]),
        y=targets,
        d=np.repeat([0.0, 1.0], [len(rows_q), len(rows_p)]),
        folds=_few_folds(np.concatenate([fold_q[rows_q], fold_p[rows_p]])),
        units=np.concatenate([codes_q[rows_q], codes_p[rows_p]]),
        names=names,
    )
    side = None
    if log_ratio_q is not None and log_ratio_p is not None:
        given = []
        for name, values, n in (("q", log_ratio_q, len(x_q)), ("p", log_ratio_p, len(x_p))):
            values = np.asarray(values, dtype=np.float64)
            same_length(f"log_ratio_{name}", values, f"rows of {name}", n)
            given.append(values)
        log_ratio = np.concatenate([given[0][rows_q], given[1][rows_p]])
        side = special.expit(log_ratio + np.log(len(rows_p) / len(rows_q)))
    models = _Models(regressor, categorical, child_seed(rng))
    if regressor is None:
        import sklearn.ensemble  # noqa: F401 - one_thread_each binds the libraries loaded before it

    with one_thread_each():
        return _judge(pool, models, side, label, clustered)


# -------------------------------------------------------------------------------------- the rows


def _folds(
    folds_q: np.ndarray | None,
    folds_p: np.ndarray | None,
    codes_q: np.ndarray,
    codes_p: np.ndarray,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    if (folds_q is None) != (folds_p is None):
        raise DataError("folds are given for one side only; give folds_q and folds_p, or none")
    if folds_q is not None and folds_p is not None:
        first, second = np.asarray(folds_q), np.asarray(folds_p)
        same_length("folds_q", first, "rows of q", len(codes_q))
        same_length("folds_p", second, "rows of p", len(codes_p))
        return first, second
    fold = np.zeros(int(max(codes_q.max(), codes_p.max())) + 1, dtype=np.int64)
    for units in (np.unique(codes_q), np.setdiff1d(codes_p, codes_q)):
        fold[rng.permutation(units)] = np.arange(len(units)) % 5
    return fold[codes_q], fold[codes_p]


def _few_folds(folds: np.ndarray) -> np.ndarray:
    """Folds numbered from 0, merged to at most five."""
    present, place = np.unique(folds, return_inverse=True)
    if len(present) < 2:
        raise DataError("folds: one fold only; cross-fitting needs at least two")
    return place % 5


def _some(n: int, at_most: int, rng: np.random.Generator) -> np.ndarray:
    if n <= at_most:
        return np.arange(n)
    return np.sort(rng.choice(n, size=at_most, replace=False))


def _targets(y: np.ndarray, kind: str, label: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """The label as columns: itself, one column for two classes, else one for each class."""
    classes, place, counts = np.unique(y, return_inverse=True, return_counts=True)
    if len(classes) == 1:
        raise DataError(
            f"{label} is constant ({class_text(classes[0])}) on q and p; "
            "P(Y|X) of a constant cannot be compared"
        )
    if kind == "auto":
        many = len(classes) > 20 or (
            y.dtype.kind == "f" and bool(np.any(classes != np.rint(classes)))
        )
        kind = "numeric" if y.dtype.kind in "if" and many else "classes"
    if kind == "numeric":
        if y.dtype.kind == "U":
            raise DataError(f"{label} holds text such as {str(y[0])!r}; choose kind='classes'")
        return y.astype(np.float64)[:, None], ()
    if len(classes) == 2:
        return (place == 1).astype(np.float64)[:, None], (class_text(classes[1]),)
    kept = np.sort(np.argsort(-counts, kind="stable")[:_TOP_CLASSES])
    columns = [place == i for i in kept]
    names = [class_text(classes[i]) for i in kept]
    if len(kept) < len(classes):
        columns.append(~np.isin(place, kept))
        names.append("other classes")
    return np.stack(columns, axis=1).astype(np.float64), tuple(names)


# --------------------------------------------------------------------------------------- models


@dataclasses.dataclass
class _Models:
    """Regressions of columns on features: gradient boosting, or what the caller gave."""

    regressor: Any
    categorical: np.ndarray | None
    seed: int

    def predict(
        self, x: np.ndarray, y: np.ndarray, to: np.ndarray, *, rough: bool = False
    ) -> np.ndarray:
        """E[y | x] for the rows ``to``, fitted on ``x`` and the columns ``y``."""
        if y.shape[1] > 1 and self.regressor is None:
            return self._predict_classes(x, y, to, rough)
        columns = []
        for column in y.T:
            if np.all(column == column[0]):
                columns.append(np.full(len(to), column[0]))
                continue
            if self.regressor is not None:
                model = copy.deepcopy(self.regressor)
            else:
                from sklearn.ensemble import HistGradientBoostingRegressor

                model = HistGradientBoostingRegressor(**self._options(rough))
            columns.append(np.asarray(model.fit(x, column).predict(to), dtype=np.float64))
        return np.stack(columns, axis=1)

    def _predict_classes(
        self, x: np.ndarray, y: np.ndarray, to: np.ndarray, rough: bool
    ) -> np.ndarray:
        from sklearn.ensemble import HistGradientBoostingClassifier

        place = np.argmax(y, axis=1)
        out = np.zeros((len(to), y.shape[1]))
        present = np.unique(place)
        if len(present) == 1:
            out[:, present[0]] = 1.0
            return out
        options = self._options(rough)
        options["max_iter"] //= 2
        if np.bincount(place)[present].min() < 10:  # too few for a stratified stopping sample
            options.update(early_stopping=False, max_iter=30)
        model = HistGradientBoostingClassifier(**options).fit(x, place)
        probability = np.asarray(model.predict_proba(to))
        out[:, present] = probability
        return out

    def _options(self, rough: bool) -> dict[str, Any]:
        # stopped early, since overfitted errors of e and m add noise that no standard error holds
        return {
            "max_iter": 60 if rough else 200,
            "learning_rate": 0.12,
            "max_bins": 127,
            "max_leaf_nodes": 15,
            "min_samples_leaf": 40 if rough else 20,
            "l2_regularization": 1.0,
            "early_stopping": True,
            "validation_fraction": 0.15,
            "n_iter_no_change": 8,
            "categorical_features": self.categorical,
            "random_state": self.seed,
        }


def _cross_fit(pool: _Pool, models: _Models, target: np.ndarray) -> np.ndarray:
    out = np.empty_like(target)
    for fold in np.unique(pool.folds):
        held = pool.folds == fold
        out[held] = models.predict(pool.x[~held], target[~held], pool.x[held])
    return out


def _learnt_weights(pool: _Pool, models: _Models) -> tuple[np.ndarray, np.ndarray]:
    """A guess of E[Y|x, p] - E[Y|x, q] from earlier folds, and the rows that have one."""
    weights, used = np.zeros(pool.y.shape), np.zeros(len(pool.y), dtype=bool)
    for fold in np.unique(pool.folds):
        past, held = pool.folds < fold, pool.folds == fold
        on_q, on_p = past & (pool.d == 0), past & (pool.d == 1)
        if past.sum() < _WARM_UP * len(past) and fold < pool.folds.max():
            continue
        if min(on_q.sum(), on_p.sum()) < 20:
            continue
        guess = models.predict(pool.x[on_p], pool.y[on_p], pool.x[held], rough=True)
        guess = guess - models.predict(pool.x[on_q], pool.y[on_q], pool.x[held], rough=True)
        size = np.sqrt(np.mean(guess**2, axis=0))
        weights[held] = np.clip(guess / np.where(size > 0, size, 1.0), -2, 2)
        used |= held
    return weights, used


# -------------------------------------------------------------------------------------- the test


def _studentised(scores: np.ndarray, units: np.ndarray) -> tuple[np.ndarray, int]:
    """Sums over their standard errors, units independent, and the number of units."""
    sums = cluster_sums(scores, units)
    count = len(sums)
    spread = np.sqrt(np.sum(sums**2, axis=0) * count / max(count - 1, 1))
    total = sums.sum(axis=0)
    return np.divide(total, spread, out=np.zeros_like(total), where=spread > 0), count


def _judge(
    pool: _Pool, models: _Models, side: np.ndarray | None, label: str, clustered: bool
) -> ConceptShift:
    if side is None:
        side = np.clip(_cross_fit(pool, models, pool.d[:, None])[:, 0], 0.0, 1.0)
    rest_d = pool.d - side
    rest_y = pool.y - _cross_fit(pool, models, pool.y)
    products = rest_d[:, None] * rest_y
    plain, count = _studentised(products, pool.units)
    pvalues = [2 * t_tail(abs(t), count - 1) for t in plain]
    statistics = [abs(float(t)) for t in plain]
    weights, used = _learnt_weights(pool, models)
    if used.any():
        learnt, units = _studentised((weights * products)[used], pool.units[used])
        pvalues += [t_tail(t, units - 1) for t in learnt]
        statistics += [float(t) for t in learnt]
    best = int(np.argmin(pvalues))
    pvalue = min(1.0, pvalues[best] * len(pvalues))
    column = int(np.argmax(np.abs(plain)))
    effect = _effect(pool, rest_d, rest_y[:, column], column, label)
    unexplained = float(np.mean(rest_d**2) / (pool.d.mean() * (1 - pool.d.mean())))
    detected = pvalue <= 0.05
    mixed = best >= len(plain)
    what = f"P({label} = {pool.names[column]})" if pool.names else label
    sentence = _sentence(effect, pvalue, detected, mixed, unexplained, pool, what, clustered)
    return ConceptShift(pvalue, statistics[best], effect, detected, sentence)


def _effect(pool: _Pool, rest_d: np.ndarray, rest_y: np.ndarray, column: int, label: str) -> Effect:
    if pool.names:
        scale = 100.0
        measure = (
            f"P({label} = {pool.names[column]}) at equal features, p minus q, percentage points"
        )
    else:
        scale = 1.0
        measure = f"mean of {label} at equal features, p minus q"
    square = float(np.sum(rest_d**2))
    if square <= 0:
        return Effect(measure, None, None, None)
    theta = float(np.sum(rest_d * rest_y)) / square
    sums = cluster_sums(rest_d * (rest_y - theta * rest_d), pool.units)
    count = len(sums)
    if count < 2:
        return Effect(measure, scale * theta, None, None)
    error = np.sqrt(np.sum(sums**2) * count / (count - 1)) / square
    half = t_quantile(1 - 0.05 / max(len(pool.names), 1), count - 1) * float(error)
    return Effect(measure, scale * theta, scale * (theta - half), scale * (theta + half))


def _sentence(
    effect: Effect,
    pvalue: float,
    detected: bool,
    mixed: bool,
    unexplained: float,
    pool: _Pool,
    what: str,
    clustered: bool,
) -> str:
    unit = " percentage points" if pool.names else ""
    about = f"p-value {pvalue:.2g}" + (", units taken as independent" if clustered else "")
    if unexplained < _MIN_UNEXPLAINED:
        return (
            "The features tell q and p apart almost surely, so that hardly any rows have equals on "
            f"the other side: whether P(Y|X) changed cannot be judged ({about})."
        )
    if effect.estimate is None or effect.low is None or effect.high is None:
        return f"P(Y|X) {'changed' if detected else 'shows no change'} ({about})."
    span = f"95 % interval {effect.low:.3g} to {effect.high:.3g}"
    if not detected:
        return (
            f"No change of P(Y|X) was found ({about}); at equal features {what} is "
            f"{effect.estimate:+.3g}{unit} on p against q ({span})."
        )
    if mixed and effect.low <= 0 <= effect.high:
        return (
            f"P(Y|X) changed ({about}), upwards for some rows and downwards for others: on average "
            f"{what} is {effect.estimate:+.3g}{unit} on p against q ({span}). Reweighting q cannot "
            "repair this."
        )
    way = "higher" if effect.estimate > 0 else "lower"
    return (
        f"P(Y|X) changed ({about}): at equal features {what} is {abs(effect.estimate):.3g}{unit} "
        f"{way} on p than on q ({span}). Reweighting q cannot repair this."
    )
