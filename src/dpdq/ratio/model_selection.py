"""Model selection for p with labels from q: importance-weighted scores and cross-validation.

Whoever trains on q and is judged on p must choose on p too. Where only P(x) has changed and
P(y | x) has not, the score of a model f on p is a weighted mean over rows of q,

    E_p[score(f, x, y)] = E_q[r(x) score(f, x, y)],   r = dP/dQ,

so that cross-validation with these weights picks the model that is best on p, and plain
cross-validation the one that is best on q; the two differ where the models are misspecified.

Three conditions, none of which the scores can check: P(y | x) is the same on both sides; log r
comes from a ratio that has not seen the rows it weighs (`CrossFittedRatio` does that); q covers p.
A k-hat above its limit takes the interval away, since then a few rows decide.

`iw_score` judges a fitted model, `ImportanceWeightedCV` searches a grid. scikit-learn's own search
can be used too, where the scorer takes weights: with metadata routing enabled,
``get_scorer("neg_log_loss").set_score_request(sample_weight=True)`` and
``GridSearchCV(...).fit(X, y, sample_weight=weights)`` with weights
``Weights(select_ratio(X, target).log_ratio_q_).values`` average within each fold.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from dpdq.errors import DataError, OptionError
from dpdq.ratio._base import RatioEstimator
from dpdq.ratio._common import Array
from dpdq.ratio._row_scores import row_scores, scoring_of
from dpdq.ratio.cross_fitting import CrossFittedRatio
from dpdq.results import Estimate
from dpdq.weights import Weights

__all__ = ["ImportanceWeightedScore", "flattened_weights", "iw_score", "weighted_score"]

_MUCH_SEEN = 0.1


@dataclasses.dataclass(frozen=True, repr=False)
class ImportanceWeightedScore(Estimate):
    """The score of a model on p, estimated from rows of q; larger is better.

    Attributes
    ----------
    unweighted
        The mean over q itself.
    effective_sample_size, khat, khat_limit
        Of the weights.
    ok
        Whether the weights can be trusted; where not, there is no interval and ``reason`` is set.
    status
        What to do next.
    """

    unweighted: float | None = None
    effective_sample_size: float = 0.0
    khat: float | None = None
    khat_limit: float = 0.0
    ok: bool = False
    status: str = ""


def iw_score(
    estimator: Any,
    X: Any,
    y: Any,
    *,
    log_ratio: Any = None,
    ratio: RatioEstimator | CrossFittedRatio | None = None,
    scoring: Any = None,
    flatten: float = 1.0,
    groups: Any = None,
    level: float = 0.95,
) -> ImportanceWeightedScore:
    """Score of a fitted model on p, from labelled rows of q.

        sum_i w_i s_i / sum_i w_i,   w_i = r(x_i)^flatten,  s_i the score of row i

    Rows must be new to the model, and to the ratio. Wrong where P(y | x) differs between q and p;
    the interval does not know the error of the ratio.

    Parameters
    ----------
    estimator
        Fitted scikit-learn classifier or regressor.
    X, y
        Rows of q that the estimator has not been fitted on, and their labels.
    log_ratio
        Log dP/dQ of these rows, shape (n,), from a ratio that has not seen them.
    ratio
        Instead of ``log_ratio``: a fitted ratio that reads X.
    scoring
        ``"neg_log_loss"``, ``"accuracy"``, ``"neg_mean_squared_error"``,
        ``"neg_mean_absolute_error"``, or a function (estimator, X, y) -> (n,) of scores, larger
        is better. Default by the kind of estimator.
    flatten
        Power of the ratio: 1 is unbiased, 0 the plain mean over q, between them less variance.
    groups
        Labels of rows that belong together and count as one observation.
    level
        Nominal coverage.

    Returns
    -------
    ImportanceWeightedScore
        No interval where k-hat or the effective size says that the weights cannot be trusted.

    Raises
    ------
    OptionError
        Neither or both of ``log_ratio`` and ``ratio``, or an unknown scoring.
    DataError
        Lengths that differ, or scores that are not one finite number a row.

    Notes
    -----
    Cost: O(n log n) time beside the model's own, O(n) memory.
    Held by: tests/ratio/test_model_selection.py::test_score_equals_the_score_on_p

    References
    ----------
    .. [Sugiyama2007] Covariate Shift Adaptation by Importance Weighted Cross Validation.
       Sugiyama, 2007, JMLR 8.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import LinearRegression
    >>> from dpdq.ratio import iw_score
    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(0, 1, (4000, 1))  # q; p is N(1, 1), so that log dP/dQ = x - 1/2
    >>> y = x[:, 0] ** 2
    >>> model = LinearRegression().fit(x[:2000], y[:2000])
    >>> found = iw_score(model, x[2000:], y[2000:], log_ratio=x[2000:, 0] - 0.5)
    >>> found.estimate < 2 * found.unweighted  # the error on p is more than twice that on q
    True
    """
    name = scoring_of(estimator, scoring)
    labels = np.asarray(y)
    scores = row_scores(estimator, X, labels, name)
    seen = 0.0
    if (log_ratio is None) == (ratio is None):
        raise OptionError("iw_score takes either log_ratio or ratio; give exactly one")
    if ratio is not None:
        log_ratio = ratio.log_ratio(X)
        seen = ratio.share_seen(X) if isinstance(ratio, RatioEstimator) else 0.0
    weights = flattened_weights(log_ratio, len(labels), flatten)
    found = weighted_score(weights, scores, groups, level, name)
    if seen >= _MUCH_SEEN:
        note = (
            f"{100 * seen:.0f} % of the rows of q that the ratio was fitted on stand among these: "
            "take log ratios of rows that it has not seen, such as CrossFittedRatio.log_ratio_q_. "
        )
        found = dataclasses.replace(found, status=note + found.status)
    return found


def flattened_weights(log_ratio: Any, n: int, power: float) -> Weights:
    """Weights r^power of n rows.

    Raises
    ------
    DataError
        Another number of log ratios than rows.
    """
    weights = Weights(log_ratio)
    if len(weights) != n:
        raise DataError(f"log_ratio has {len(weights)} rows and y has {n}; align them")
    return weights.temper(power)


def weighted_score(
    weights: Weights, scores: Array, groups: Any, level: float, scoring: Any
) -> ImportanceWeightedScore:
    """The weighted mean of row scores, without an interval where the weights cannot carry one."""
    mean = weights.mean(scores, groups=groups, level=level)
    kept = weights.kept
    name = scoring if isinstance(scoring, str) else getattr(scoring, "__name__", "scoring")
    fields = {field.name: getattr(mean, field.name) for field in dataclasses.fields(mean)}
    fields["method"] = f"importance-weighted {name}"
    if not weights.ok:
        fields.update(low=None, high=None, standard_error=None, reason=weights.status)
    return ImportanceWeightedScore(
        **fields,
        unweighted=float(scores[kept].mean()),
        effective_sample_size=weights.effective_sample_size,
        khat=weights.khat,
        khat_limit=weights.khat_limit,
        ok=weights.ok,
        status=weights.status,
    )
