"""Performance: how good predictions are on q, and would be on p.

A metric is a function of weighted means over rows (y, prediction). With weights w = r = dP/dQ the
same function over rows of q estimates the metric on p,

    E_p[loss] = E_q[r loss],   estimated by   sum_i r_i loss_i / sum_i r_i,

which needs labels from q only. It is valid only if P(Y|X) is unchanged and p lies within q's
reach. Every metric comes with its influence function psi, the effect of one row on the estimate;
the standard error is that of sum_i w_i psi_i, summed within units first.

Where features are given, the part of psi that features predict is averaged over the rows of p
themselves and only the rest is weighted. That is the regression-adjusted (doubly robust)
estimator: right if the ratio or the regression is, and usually narrower.

Classes: of two, the larger in the order of numbers or text is positive (1 of 0 and 1, true of false
and true, ">50K" of "<=50K" and ">50K").
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import numpy as np

from dpdq._random import RandomState
from dpdq.errors import DataError, OptionError
from dpdq.results import Estimate, Result
from dpdq.shift._adjustment import adjusted
from dpdq.shift._common import (
    class_text,
    clean_labels,
    same_classes,
    same_length,
    unit_codes,
)
from dpdq.shift._losses import Task, interval, metrics_of

__all__ = ["MetricShift", "performance", "shifted_performance"]

Kind = Literal["auto", "classification", "probability", "regression"]
_KINDS = ("auto", "classification", "probability", "regression")
_CAVEAT = "valid only if P(Y|X) is unchanged"


@dataclasses.dataclass(frozen=True, repr=False)
class MetricShift(Result):
    """One metric on q, on p by weighting, and on p as observed where p has labels.

    Attributes
    ----------
    q
        On the rows of q.
    p
        On p, from rows of q weighted by the ratio; valid only if P(Y|X) is unchanged.
    p_observed
        On the labelled rows of p, ``None`` where there are none.
    """

    q: Estimate
    p: Estimate
    p_observed: Estimate | None = None

    def to_dict(self) -> dict[str, Any]:
        """``{"q": {"estimate", "low", "high"}, "p": ..., "p_observed": ... or None}``.

        A side whose estimate or end is missing also says the ``reason``.
        """
        return {
            name: None if side is None else _three(side)
            for name, side in (("q", self.q), ("p", self.p), ("p_observed", self.p_observed))
        }


def _three(side: Estimate) -> dict[str, Any]:
    full = side.to_dict()
    keys = ["estimate", "low", "high"] + (["reason"] if side.reason else [])
    return {key: full[key] for key in keys}


# --------------------------------------------------------------------------------- public names


def performance(
    y: Any,
    prediction: Any,
    *,
    kind: Kind = "auto",
    log_weights: np.ndarray | None = None,
    units: Any = None,
) -> dict[str, Estimate]:
    """Metrics of predictions, weighted, with 95 % intervals.

        mean:     M = sum w_i loss_i / sum w_i,          psi_i = loss_i - M
        ROC AUC:  P(s+ > s-) + P(s+ = s-)/2,             psi_i = (V_i - AUC) / share of i's class
        R2:       1 - MSE / V,   V = weighted variance,  psi_i = -(e_i^2 - MSE d_i^2 / V) / V
        se^2  =   sum over units (sum_i w_i psi_i)^2 / (sum w_i)^2,

    with V_i the weighted share of the other class that row i is ranked right against. The
    intervals take the weights as known, so that they miss the error of a fitted ratio, and they
    rest on few rows where a few weights dominate: see the effective sample size first. A metric
    that all rows agree on (no error at all) has no standard error; shares then get a Wilson
    interval, others none.

    Parameters
    ----------
    y
        Labels, shape (n,): strings, booleans, integers or floats, none missing.
    prediction
        Predicted classes, the probability of the positive class, or predicted numbers, shape (n,).
        Of two classes the larger in order is positive.
    kind
        ``classification`` gives accuracy and balanced_accuracy; ``probability`` (two classes) gives
        log_loss, brier, roc_auc and accuracy at 1/2; ``regression`` gives mae, rmse, r2 and
        mean_error (prediction minus label). ``auto``: regression for labels with more than 20
        different numbers or with fractions; probability where labels have two classes and
        predictions are numbers from 0 to 1 that are not classes; else classification.
    log_weights
        Log importance weights, shape (n,), any scale; ``-inf`` drops a row.
    units
        Unit of each row; rows of a unit are not taken as independent.

    Returns
    -------
    dict of str to Estimate
        One estimate a metric.

    Raises
    ------
    DataError
        Missing or infinite values, different lengths, labels of one class, probabilities outside 0
        to 1, or predictions that are no class of the labels.
    OptionError
        An unknown ``kind``.

    Notes
    -----
    Cost: O(n log n) time, O(n) memory.
    Held by: tests/shift/test_metrics.py::test_intervals_cover_under_known_selection

    References
    ----------
    .. [Shimodaira2000] Improving predictive inference under covariate shift by weighting the
       log-likelihood function. Shimodaira, 2000, Journal of Statistical Planning and Inference 90.
    .. [DeLong1988] Comparing the Areas under Two or More Correlated Receiver Operating
       Characteristic Curves: A Nonparametric Approach. DeLong, 1988, Biometrics 44.

    Examples
    --------
    >>> performance(["no", "yes", "yes", "no"], ["no", "yes", "no", "no"])["accuracy"]
    Estimate(0.75, 95 % interval 0.1307 to 0.9836)
    """
    labels, predicted, task = _read(y, prediction, kind, "y", "prediction")
    weights, log_weights = _weights(log_weights, len(labels), "log_weights")
    if task.classes is not None and len(task.classes) == 1:
        raise DataError(
            f"y has one class ({class_text(task.classes[0])}); "
            "a metric of classes needs at least two"
        )
    _check_classes(predicted, task, "prediction", "y")
    codes = None if units is None else unit_codes(units, len(labels))
    metrics = metrics_of(labels, predicted, task, weights)
    return {name: interval(metric, weights, codes, "") for name, metric in metrics.items()}


def shifted_performance(
    y_q: Any,
    prediction_q: Any,
    log_ratio_q: np.ndarray,
    y_p: Any = None,
    prediction_p: Any = None,
    *,
    kind: Kind = "auto",
    features_q: np.ndarray | None = None,
    features_p: np.ndarray | None = None,
    folds_q: np.ndarray | None = None,
    units_q: Any = None,
    units_p: Any = None,
    max_rows: int = 20_000,
    random_state: RandomState = 0,
) -> dict[str, MetricShift]:
    """Metrics on q, on p by importance weighting, and on p as observed.

        weighted:             M(w) with w_i = r(x_i) over rows of q
        regression-adjusted:  M(w) + mean_p g(x) - sum w_i g(x_i) / sum w_i,   g(x) ~ E[psi | x]

    The second is used where ``features_q`` and ``features_p`` are given. The regression g of the
    influence function psi is cross-fitted, so that no row is predicted by a model that saw it or
    its fold; its part is averaged over the rows of p, where it has no weights and little noise, and
    the standard error is that of both parts together. A metric whose standard error this would not
    lower keeps the first.

    Valid only if P(Y|X) is unchanged: a concept shift moves the metric on p by an amount that no
    data without labels from p can show. The interval takes the log ratio as known; where q does
    not reach part of p it says nothing of that part.

    Parameters
    ----------
    y_q, prediction_q
        Labels and predictions of q, shape (n_q,); see `performance`.
    log_ratio_q
        Log dP/dQ of the rows of q, shape (n_q,).
    y_p, prediction_p
        Labels and predictions of the labelled rows of p, or None.
    kind
        As in `performance`.
    features_q, features_p
        Numeric features of the rows of q and of p (any number of rows of p, labelled or not), NaN
        for missing.
    folds_q
        Integer folds of the rows of q; units and equal rows stand in one fold. Default: five, by
        units, else at random.
    units_q, units_p
        Units of the rows; of p those of the labelled rows.
    max_rows
        The regression is fitted on at most this many rows.
    random_state
        Seed of the default folds and of the regression.

    Returns
    -------
    dict of str to MetricShift
        One a metric.

    Raises
    ------
    DataError
        As in `performance`; one class in q and p together.

    Notes
    -----
    Cost: O(n log n) time; with features five forests of 30 trees on max_rows rows.
    Held by: tests/shift/test_metrics.py::test_intervals_cover_under_known_selection

    The adjustment is the one-step correction of the weighted estimate, so that one regression
    serves metrics that are not means (AUC, R2, balanced accuracy) too.

    References
    ----------
    .. [Shimodaira2000] Improving predictive inference under covariate shift by weighting the
       log-likelihood function. Shimodaira, 2000, Journal of Statistical Planning and Inference 90.
    .. [Robins1994] Estimation of Regression Coefficients When Some Regressors Are Not Always
       Observed. Robins, 1994, Journal of the American Statistical Association 89.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=4000)
    >>> y = x + np.where(x > 0, 2.0, 1.0) * rng.normal(size=4000)
    >>> log_ratio = x - 0.5  # p is N(1, 1): E_p[(y - x)^2] = 4 Phi(1) + Phi(-1) = 3.52
    >>> shifted_performance(y, x, log_ratio)["rmse"].p
    Estimate(1.872, 95 % interval 1.805 to 1.939)
    """
    labels, predicted, task = _read(y_q, prediction_q, kind, "label of q", "prediction of q")
    ratio, _ = _weights(log_ratio_q, len(labels), "log_ratio_q")
    observed = None
    if y_p is not None and prediction_p is not None:
        observed = _read(y_p, prediction_p, task.kind, "label of p", "prediction of p")
    if task.classes is not None:
        task, labels, predicted, observed = _pool_classes(task, labels, predicted, observed)
        _check_classes(predicted, task, "prediction of q", "label")
        if observed is not None:
            _check_classes(observed[1], task, "prediction of p", "label")
    codes = None if units_q is None else unit_codes(units_q, len(labels), "units_q")
    one = np.ones(len(labels))
    on_q = metrics_of(labels, predicted, task, one)
    on_p = metrics_of(labels, predicted, task, ratio)
    seen = {}
    if observed is not None:
        flat = np.ones(len(observed[0]))
        codes_p = None if units_p is None else unit_codes(units_p, len(flat), "units_p")
        seen = {
            name: interval(metric, flat, codes_p, "observed")
            for name, metric in metrics_of(observed[0], observed[1], task, flat).items()
        }
    if features_q is None or features_p is None:
        towards = {
            name: interval(metric, ratio, codes, f"importance weighting; {_CAVEAT}")
            for name, metric in on_p.items()
        }
    else:
        towards = adjusted(
            on_p,
            ratio,
            codes,
            features_q,
            features_p,
            folds_q,
            units_p,
            max_rows,
            random_state,
            _CAVEAT,
        )
    return {
        name: MetricShift(interval(on_q[name], one, codes, ""), towards[name], seen.get(name))
        for name in on_q
    }


# --------------------------------------------------------------------------------- reading input


def _read(
    y: Any, prediction: Any, kind: str, y_name: str, prediction_name: str
) -> tuple[np.ndarray, np.ndarray, Task]:
    if kind not in _KINDS:
        raise OptionError(f"Unknown kind {kind!r}. Choose one of {', '.join(map(repr, _KINDS))}.")
    labels = clean_labels(y, y_name)
    predicted = clean_labels(prediction, prediction_name)
    if len(labels) != len(predicted):
        raise DataError(
            f"{y_name} has {len(labels)} values and {prediction_name} has {len(predicted)}; "
            "give one of each a row"
        )
    if len(labels) < 2:
        raise DataError(f"{y_name} has {len(labels)} row; at least two are needed")
    if kind == "auto":
        kind = _guess(labels, predicted)
    if kind == "regression":
        for name, values in ((y_name, labels), (prediction_name, predicted)):
            if values.dtype.kind == "U":
                raise DataError(
                    f"{name} holds text such as {str(values[0])!r}; regression needs numbers"
                )
        return labels.astype(np.float64), predicted.astype(np.float64), Task(kind, None)
    if kind == "probability":
        if predicted.dtype.kind == "U" or predicted.min() < 0 or predicted.max() > 1:
            found = f"text such as {str(predicted[0])!r}"
            if predicted.dtype.kind != "U":
                found = f"values from {predicted.min():g} to {predicted.max():g}"
            raise DataError(
                f"{prediction_name} holds {found}; "
                "probabilities of the positive class lie from 0 to 1"
            )
        classes = np.unique(labels)
        if len(classes) > 2:
            raise DataError(
                f"{y_name} has {len(classes)} classes; probabilities of one class need two, "
                "give predicted classes instead"
            )
        return labels, predicted.astype(np.float64), Task(kind, classes)
    labels, predicted = same_classes(labels, predicted)
    classes = np.unique(labels)
    return labels, predicted, Task(kind, classes)


def _check_classes(predicted: np.ndarray, task: Task, name: str, y_name: str) -> None:
    """Refuse predictions that share no value with the classes: another coding, most likely."""
    if task.kind != "classification" or task.classes is None:
        return
    if not np.isin(predicted, task.classes).any():
        raise DataError(
            f"{name} holds {class_text(predicted[0])!r}, and none of its values is a "
            f"class of {y_name} ({', '.join(class_text(c) for c in task.classes[:5])}); "
            "give classes under the label's own names, or probabilities"
        )


def _guess(labels: np.ndarray, predicted: np.ndarray) -> str:
    classes = np.unique(labels)
    numbers = labels.dtype.kind in "if"
    if numbers and (len(classes) > 20 or bool(np.any(classes != np.rint(classes)))):
        return "regression"
    if predicted.dtype.kind == "f" and len(classes) <= 2:
        fractions = bool(np.any(predicted != np.rint(predicted)))
        if fractions and predicted.min() >= 0 and predicted.max() <= 1:
            return "probability"
    if numbers and predicted.dtype.kind == "f" and bool(np.any(predicted != np.rint(predicted))):
        return "regression"
    return "classification"


def _pool_classes(
    task: Task,
    labels: np.ndarray,
    predicted: np.ndarray,
    observed: tuple[np.ndarray, np.ndarray, Task] | None,
) -> tuple[Task, np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray, Task] | None]:
    """Classes of both sides together: a class that p alone lacks is no error."""
    if observed is not None:
        y_p, prediction_p, task_p = observed
        labels, y_p = same_classes(labels, y_p)
        if task.kind == "classification":
            predicted = same_classes(predicted, labels)[0]
            prediction_p = same_classes(prediction_p, y_p)[0]
        observed = (y_p, prediction_p, task_p)
        classes = np.unique(np.concatenate([np.unique(labels), np.unique(y_p)]))
    else:
        classes = np.unique(labels)
    if len(classes) == 1:
        raise DataError(
            f"label has one class ({class_text(classes[0])}) in q and p together; "
            "a metric of classes needs at least two"
        )
    if task.kind == "probability" and len(classes) > 2:
        raise DataError(
            f"label has {len(classes)} classes in q and p together; probabilities of one class "
            "need two, give predicted classes instead"
        )
    return Task(task.kind, classes), labels, predicted, observed


def _weights(
    log_weights: np.ndarray | None, n: int, name: str
) -> tuple[np.ndarray, np.ndarray | None]:
    if log_weights is None:
        return np.ones(n), None
    values = np.asarray(log_weights, dtype=np.float64)
    if values.ndim != 1:
        raise DataError(f"{name}: shape {values.shape}; give one value a row, shape (n,)")
    same_length(name, values, "labels", n)
    bad = np.isnan(values) | (values == np.inf)
    if bad.any():
        raise DataError(
            f"{name}: {int(bad.sum())} of {n} values are NaN or infinite "
            f"(first at row {int(np.argmax(bad))}); log weights are finite, or -inf to drop a row"
        )
    top = values.max()
    if top == -np.inf:
        raise DataError(f"{name}: all {n} values are -inf; at least one row must be kept")
    weights = np.exp(values - top)
    return weights / weights.mean(), values
