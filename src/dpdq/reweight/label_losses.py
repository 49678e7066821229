"""Classification losses that are robust over labels: wrong ones, rare ones.

    label DRO      sup over p on the labels of  sum_k p_k (z_k - z_y + m_k) - temperature KL(p || u)
                   = temperature * log mean_k exp((z_k - z_y + m_k) / temperature)
    adjustment     cross-entropy of  z + tau log prior

with z the logits of a row, y its label, u uniform on the k labels and m a margin (0 at y). Label
DRO holds known losses together: temperature 1 is cross-entropy (less log k), 0 the Crammer-Singer
hinge, infinity the mean gap, which is symmetric in the labels and so robust to flipped ones, but
unbounded unless logits are normalised. A temperature for each row lets uncertain rows be treated
more symmetrically (`adaptive_label_temperatures`, or `dual_temperature` from a radius).

Adjustment answers another question. Where p has labels in equal shares and q has not, the best
classifier under p is argmax z - tau log prior of a model fitted on q with tau = 1; a loss with the
adjustment inside learns those logits directly. It serves the balanced error, not the accuracy on
data like q: use it where p is meant to be balanced.

All of them give one loss a row with ``reduction="none"``, to be put into `dro_loss` or
`group_dro_loss`.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np

from dpdq._optional import is_torch
from dpdq.errors import DataError, OptionError
from dpdq.reweight._losses import (
    Array,
    Module,
    as_codes,
    as_rows,
    check_scale,
    like,
    log_mean_exp,
    log_sum_exp,
    mute_dropped,
    plain,
    reduce_rows,
)

__all__ = [
    "label_dro_loss",
    "adaptive_label_temperatures",
    "logit_adjusted_loss",
    "adjust_logits",
]


def label_dro_loss(
    logits: Array,
    labels: Any,
    *,
    temperature: float | Array = 1.0,
    margin: float = 0.0,
    weights: Any = None,
    reduction: Literal["mean", "none"] = "mean",
) -> Array:
    """Worst case over the label of a row, at a price in KL from the uniform label.

        temperature * log mean_k exp((z_k - z_y + margin [k != y]) / temperature)

    Temperature 1 and margin 0: cross-entropy less log k. Temperature 0: max_k (z_k - z_y + margin),
    the Crammer-Singer hinge. Infinity: the mean over k, for normalised logits only. Consistent
    (its minimiser ranks the labels as P(y|x) does) for every temperature above 0 at margin 0; the
    two ends are not in general.

    Parameters
    ----------
    logits
        z, shape (n, k); NumPy or torch.
    labels
        Integers 0 to k - 1, shape (n,).
    temperature
        From 0 to infinity, or one finite number above 0 a row, shape (n,).
    margin
        m, 0 or more, in units of the logits.
    weights
        Importance weights of the rows of q, shape (n,); 0 drops a row.
    reduction
        ``"mean"``, or ``"none"`` for one loss a row.

    Returns
    -------
    float64 or tensor
        A scalar, or shape (n,).

    Raises
    ------
    DataError
        If shapes disagree or a label is outside 0 to k - 1.
    OptionError
        If a number or the reduction is out of its range.

    Notes
    -----
    Cost: O(n k) time, O(n k) memory.
    Held by: tests/reweight/test_label_losses.py::test_limits_of_label_dro

    References
    ----------
    .. [M358] Label Distributionally Robust Losses for Multi-class Classification: Consistency,
       Robustness and Adaptivity. Zhu, 2023, arXiv 2112.14869.
    .. [Crammer2001] On the Algorithmic Implementation of Multiclass Kernel-based Vector Machines.
       Crammer, 2001, JMLR 2.

    Examples
    --------
    >>> z = [[2.0, 0.0, 1.0]]
    >>> float(label_dro_loss(z, [0]) + np.log(3))  # cross-entropy
    0.40760596...
    >>> float(label_dro_loss(z, [1], temperature=0.0, margin=1.0))
    3.0

    In a training loop:

    >>> import torch
    >>> model = torch.nn.Linear(2, 3)
    >>> x, y = torch.randn(8, 2), torch.arange(8) % 3
    >>> label_dro_loss(model(x), y, temperature=2.0).backward()
    """
    array, xp = as_rows(logits, "logits", 2)
    gaps = _gaps(mute_dropped(array, weights, xp), labels, margin, xp)
    if isinstance(temperature, (int, float, np.integer, np.floating)):
        scale = check_scale("temperature", float(temperature), zero=True, infinite=True)
        if scale == 0:
            return reduce_rows(xp.amax(gaps, -1), weights, reduction)
        if math.isinf(scale):
            return reduce_rows(gaps.mean(-1), weights, reduction)
        scales = xp.zeros_like(gaps[:, 0]) + scale
    else:
        scales = _scales(temperature, gaps, xp)
    top = xp.amax(gaps.detach() if is_torch(gaps) else gaps, -1, keepdims=True)
    mean = log_mean_exp((gaps - top) / scales[:, None], 1.0 / gaps.shape[1], xp)
    return reduce_rows(scales * mean + top[:, 0], weights, reduction)


def adaptive_label_temperatures(
    logits: Array,
    labels: Any,
    temperatures: Array,
    *,
    start: float = 1.0,
    price: float | None = None,
    margin: float = 0.0,
) -> Array:
    """New temperatures of the rows for label DRO, higher where the logits leave the label open.

        sup over p, t of  sum_k p_k (z_k - z_y + m_k) - t KL(p || u) - price / 2 (t - start)^2
        p = softmax((z - z_y + m) / t_old),   t_new = start - KL(p || u) / price

    One step of maximising in turns: over p at the old temperature, then over t at this p; it never
    lowers the objective. With the default price, 2 log(k) / start, temperatures stay between
    start / 2 (a law on one label) and start (uniform). Keep one temperature a row of the training
    data, all ``start`` at first, and update those of a batch before its loss is taken.

    The paper states the objective; these steps are derived from it.

    Parameters
    ----------
    logits
        z, shape (n, k); no gradient is taken.
    labels
        Integers 0 to k - 1, shape (n,).
    temperatures
        t_old, above 0, shape (n,).
    start
        Temperature of an undecided row, above 0.
    price
        Of a square unit of temperature, above log(k) / start, so that no temperature reaches 0.
    margin
        As in `label_dro_loss`.

    Returns
    -------
    array or tensor
        Shape (n,), without gradient, for ``label_dro_loss(temperature=...)``.

    Raises
    ------
    DataError
        If shapes disagree or a label is outside 0 to k - 1.
    OptionError
        If a number is out of its range.

    Notes
    -----
    Cost: O(n k) time, O(n k) memory.
    Held by: tests/reweight/test_label_losses.py::test_adaptive_temperatures_climb_their_objective

    References
    ----------
    .. [M358] Label Distributionally Robust Losses for Multi-class Classification: Consistency,
       Robustness and Adaptivity. Zhu, 2023, arXiv 2112.14869.

    Examples
    --------
    >>> adaptive_label_temperatures([[0.0, 0.0], [9.0, 0.0]], [0, 0], [1.0, 1.0]).round(2)
    array([1. , 0.5])
    """
    array, xp = as_rows(logits, "logits", 2)
    gaps = _gaps(array.detach() if is_torch(array) else array, labels, margin, xp)
    start = check_scale("start", start)
    k = gaps.shape[1]
    least = math.log(k) / start
    if price is None:
        price = 2.0 * least
    elif not (price > least and math.isfinite(price)):
        raise OptionError(
            f"price is {price!r}; give a finite number above log(k) / start = {least:.4g}, so that "
            "temperatures stay above 0"
        )
    x = gaps / _scales(temperatures, gaps, xp)[:, None]
    x = x - xp.amax(x, -1, keepdims=True)
    e = xp.exp(x)
    kl = (e * x).sum(-1) / e.sum(-1) - log_mean_exp(x, 1.0 / k, xp)
    return start - (kl / price if price > 0 else kl)


def logit_adjusted_loss(
    logits: Array,
    labels: Any,
    *,
    class_counts: Any = None,
    log_prior: Any = None,
    tau: float = 1.0,
    weights: Any = None,
    reduction: Literal["mean", "none"] = "mean",
) -> Array:
    """Cross-entropy with the log prior of q added to the logits, for balanced labels under p.

        log sum_k exp(z_k + tau log prior_k) - (z_y + tau log prior_y)

    The model then has to beat the prior by itself: its own logits z, used as they are, minimise the
    balanced error at tau = 1 (consistent), while weighting classes by 1 / prior changes nothing
    once a flexible model separates them. tau = 0 is cross-entropy. Lowers the accuracy on data
    like q; use it where labels under p are meant to be balanced.

    Parameters
    ----------
    logits
        z, shape (n, k); NumPy or torch.
    labels
        Integers 0 to k - 1, shape (n,).
    class_counts
        Rows of each label in the training data, above 0, shape (k,). Give these or
    log_prior
        the log of the labels' shares, shape (k,), on any scale; of the data, not of the batch.
    tau
        Strength.
    weights
        Importance weights of the rows of q, shape (n,); 0 drops a row.
    reduction
        ``"mean"``, or ``"none"`` for one loss a row.

    Returns
    -------
    float64 or tensor
        A scalar, or shape (n,).

    Raises
    ------
    DataError
        If shapes disagree, a label is outside 0 to k - 1, or a class has no rows.
    OptionError
        If not exactly one of class_counts and log_prior is given.

    Notes
    -----
    Cost: O(n k) time, O(n k) memory.
    Held by: tests/reweight/test_label_losses.py::test_adjustment_raises_balanced_accuracy

    References
    ----------
    .. [Menon2021] Long-tail Learning via Logit Adjustment. Menon, 2021, ICLR.

    Examples
    --------
    >>> float(logit_adjusted_loss([[0.0, 0.0]], [1], class_counts=[9, 1]))  # log 10
    2.302585...
    """
    array, xp = as_rows(logits, "logits", 2)
    prior = _log_prior(class_counts, log_prior, array.shape[1])
    array = mute_dropped(array, weights, xp)
    gaps = _gaps(array + like(_strength(tau) * prior, array), labels, 0.0, xp)
    return reduce_rows(log_sum_exp(gaps, xp), weights, reduction)


def adjust_logits(
    logits: Array, *, class_counts: Any = None, log_prior: Any = None, tau: float = 1.0
) -> Array:
    """Take the log prior of q out of the logits of a model that was fitted on q.

        z_k - tau log prior_k

    After the fit what `logit_adjusted_loss` does during it: argmax then minimises the balanced
    error if the model's probabilities are right (calibrated on q). Where they are overconfident, as
    after long training, tune tau on held-out balanced accuracy.

    Parameters
    ----------
    logits
        z, shape (n, k); log probabilities serve as well.
    class_counts, log_prior, tau
        As in `logit_adjusted_loss`.

    Returns
    -------
    array or tensor
        Shape (n, k).

    Raises
    ------
    DataError
        If shapes disagree or a class has no rows.
    OptionError
        If not exactly one of class_counts and log_prior is given.

    Notes
    -----
    Cost: O(n k) time, O(n k) memory.
    Held by: tests/reweight/test_label_losses.py::test_adjustment_undoes_a_prior_exactly

    References
    ----------
    .. [Menon2021] Long-tail Learning via Logit Adjustment. Menon, 2021, ICLR.

    Examples
    --------
    >>> adjust_logits([[1.0, 0.0]], class_counts=[90, 10]).argmax()
    np.int64(1)
    """
    array, _ = as_rows(logits, "logits", 2)
    prior = _log_prior(class_counts, log_prior, array.shape[1])
    return array - like(_strength(tau) * prior, array)


def _gaps(array: Array, labels: Any, margin: float, xp: Module) -> Array:
    """``z_k - z_y + margin [k != y]``, shape (n, k)."""
    n, k = array.shape
    margin = check_scale("margin", margin, zero=True)
    codes = as_codes(labels, n, k, "labels", array)
    if is_torch(array):
        gaps = array - array.gather(1, codes[:, None])
        places = xp.arange(k, device=array.device)
    else:
        gaps = array - array[np.arange(n), codes][:, None]
        places = np.arange(k)
    if margin:
        gaps = gaps + xp.where(places == codes[:, None], 0.0, margin)
    return gaps


def _scales(temperatures: Any, gaps: Array, xp: Module) -> Array:
    scales, _ = as_rows(temperatures, "temperature")
    if scales.shape[0] != gaps.shape[0]:
        raise DataError(
            f"temperature has {scales.shape[0]} rows, where the logits have {gaps.shape[0]}; "
            "give one a row"
        )
    scales = like(scales, gaps)
    if not bool(((scales > 0) & (scales < math.inf)).all()):
        raise OptionError("temperature holds values that are not above 0 and finite")
    return scales


def _strength(tau: float) -> float:
    if not (isinstance(tau, (int, float, np.integer, np.floating)) and math.isfinite(tau)):
        raise OptionError(f"tau is {tau!r}; give a finite number")
    return float(tau)


def _log_prior(class_counts: Any, log_prior: Any, k: int) -> np.ndarray:
    if (class_counts is None) == (log_prior is None):
        raise OptionError("give exactly one of class_counts and log_prior")
    name = "log_prior" if class_counts is None else "class_counts"
    values = plain(as_rows(log_prior if class_counts is None else class_counts, name)[0])
    if values.size != k:
        raise DataError(f"{name} has {values.size} values, where the logits have {k} columns")
    if class_counts is not None:
        if not (values > 0).all():
            first = int(np.argmax(~(values > 0)))
            raise DataError(
                f"class_counts: class {first} has {values[first]:g} rows; a class that training "
                "never sees has no adjustment: leave its column out, or add a pseudo-count"
            )
        values = np.log(values)
    if not np.isfinite(values).all():
        raise DataError(f"{name} holds values that are NaN or infinite; give finite numbers")
    return values - np.logaddexp.reduce(values)
