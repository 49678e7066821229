"""Can this ratio be trusted? Judged by its log ratios on rows that it has not seen.

Five numbers, each blind to what another sees:

    loss       ½ E_q[log(1 + r)] + ½ E_p[log(1 + 1/r)]; log 2 for r = 1, less where r has learnt
               something that carries over
    level      log E_q[r], zero for the true ratio; what must be taken off every log ratio
    overlap    the share of p beyond the 99.9 % point of log r over q: 0.1 % for p = q, and rows
               of p that no weight on rows of q can stand for
    effective sample size, k-hat
               how many rows of q carry the weighted means, and how heavy their tail is

A small loss is no licence: the further q and p are apart, the better a ratio predicts and the less
its weights can be used. Overlap and k-hat say when this has happened.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from dpdq.errors import DataError
from dpdq.ratio._common import Array, as_weights, loss_with_error
from dpdq.results import Estimate, Result
from dpdq.weights import Weights

__all__ = ["Overlap", "RatioDiagnostics", "check_overlap", "diagnose_log_ratios"]

OVERLAP_LIMIT = 0.05
REACH = 0.999
LEVEL_LIMIT = 0.25
_LOG_2 = math.log(2.0)
_NORMAL = 1.959963984540054
_MUCH_SEEN = 0.1
_ROUNDING = 1e-9


@dataclasses.dataclass(frozen=True, repr=False)
class Overlap(Result):
    """Whether q has data where p has.

    Attributes
    ----------
    ok
        False where more than ``limit`` of p lies beyond q's reach, and more than chance puts
        there.
    share, low, high
        Share of p beyond the reach, with a 95 % interval.
    log_ratio_limit
        The reach: the 99.9 % point of log dP/dQ over q.
    limit
        The share that can be ignored.
    status
        One sentence: what follows.
    """

    ok: bool
    share: float
    low: float
    high: float
    log_ratio_limit: float
    limit: float
    status: str


@dataclasses.dataclass(frozen=True, repr=False)
class RatioDiagnostics(Result):
    """What held-out rows say of a ratio.

    Attributes
    ----------
    n_q, n_p
        Rows of each side with a positive weight.
    loss
        Balanced logistic loss with its interval, in nats.
    baseline_loss
        That of the constant ratio, log 2.
    level_shift
        -log E_q[r]: what must be added to every log ratio for E_q[r] = 1.
    effective_sample_size
        How many equally weighted rows the weighted rows of q are worth.
    khat, khat_limit
        Tail shape of the weights (None where there is no tail), and the largest to trust.
    overlap
        Whether q has data where p has.
    share_seen
        Share of the fit's rows (of at most 1,000 of them) that stand among these rows too.
    ok
        Whether weights from this ratio can be trusted.
    status
        What to do next.
    """

    n_q: int
    n_p: int
    loss: Estimate
    baseline_loss: float
    level_shift: Estimate
    effective_sample_size: float
    khat: float | None
    khat_limit: float
    overlap: Overlap
    share_seen: float
    ok: bool
    status: str


def check_overlap(
    log_ratio_q: object,
    log_ratio_p: object,
    *,
    weights_q: object = None,
    weights_p: object = None,
) -> Overlap:
    """Share of p beyond the 99.9 % point of q's own log ratios.

        share = P_p(log r > c),   c = the smallest value with P_q(log r <= c) >= 0.999

    For p = q it is at most 0.1 %, or 1 / (n_q + 1) below 1,000 rows of q. Overlap fails where it
    is above 5 % and its interval above what p = q would give. Misleads where the ratio is poor: a
    model that sees no difference sees no gap either. The interval takes c as known.

    Parameters
    ----------
    log_ratio_q, log_ratio_p
        Log dP/dQ of rows that the ratio has not seen, shapes (n_q,) and (n_p,).
    weights_q, weights_p
        Importance weights; default uniform. The interval counts p by its effective size.

    Returns
    -------
    Overlap

    Raises
    ------
    DataError
        No rows, or log ratios that are not numbers.

    Notes
    -----
    Cost: O(n log n) time, O(n) memory.
    Held by: tests/ratio/test_diagnostics.py::test_share_beyond_reach_of_known_laws

    References
    ----------
    .. [Wilson1927] Probable Inference, the Law of Succession, and Statistical Inference. Wilson,
       1927, JASA 22.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> q, p = rng.normal(size=5000), rng.normal(size=5000) + 4  # log dP/dQ = 4 x - 8
    >>> from dpdq.ratio import check_overlap
    >>> check_overlap(4 * q - 8, 4 * p - 8).ok
    False
    """
    q, w_q = _kept(log_ratio_q, weights_q, "q")
    p, w_p = _kept(log_ratio_p, weights_p, "p")
    reach = _upper_point(q, w_q, REACH)
    share = float(w_p[p > reach].sum() / w_p.sum())
    low, high = _wilson(share, float(w_p.sum() ** 2 / (w_p @ w_p)))
    by_chance = max(1 - REACH, float(w_q @ w_q / w_q.sum() ** 2))
    ok = share <= OVERLAP_LIMIT or low <= by_chance
    return Overlap(
        ok, share, low, high, reach, OVERLAP_LIMIT, _overlap_sentence(share, low, high, ok=ok)
    )


def diagnose_log_ratios(
    log_ratio_q: object,
    log_ratio_p: object,
    *,
    weights_q: object = None,
    weights_p: object = None,
    share_seen: float = 0.0,
) -> RatioDiagnostics:
    """Judge a ratio by its log ratios on held-out rows of both sides.

        loss = ½ E_q[log(1 + r)] + ½ E_p[log(1 + 1/r)],   level shift = -log E_q[r]

    Misleads on rows that the ratio has been fitted on: loss and level look too good there. The
    standard error of the level is meaningless where k-hat is above its limit.

    Parameters
    ----------
    log_ratio_q, log_ratio_p
        Log dP/dQ of rows that the ratio has not seen, shapes (n_q,) and (n_p,).
    weights_q, weights_p
        Importance weights of the rows; default uniform.
    share_seen
        Share of the fit's rows that stand among these, where it is known.

    Returns
    -------
    RatioDiagnostics

    Raises
    ------
    DataError
        No rows, or log ratios that are not numbers.

    Notes
    -----
    Cost: O(n log n) time, O(n) memory.
    Held by: tests/ratio/test_diagnostics.py::test_loss_and_level_of_the_true_ratio

    References
    ----------
    .. [Sugiyama2012] Density Ratio Estimation in Machine Learning. Sugiyama, 2012, Cambridge.
    .. [Vehtari2024] Pareto Smoothed Importance Sampling. Vehtari, 2024, JMLR 25.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> q, p = rng.normal(size=5000), rng.normal(size=5000) + 1  # log dP/dQ = x - 1/2
    >>> from dpdq.ratio.diagnostics import diagnose_log_ratios
    >>> found = diagnose_log_ratios(q - 0.5, p - 0.5)
    >>> found.ok, round(found.loss.estimate, 1)
    (True, 0.6)
    """
    q, w_q = _kept(log_ratio_q, weights_q, "q")
    p, w_p = _kept(log_ratio_p, weights_p, "p")
    loss = _estimate(*loss_with_error(q, p, w_q, w_p), "held-out balanced logistic loss")
    top = float(q.max())
    share = w_q * np.exp(q - top)
    total = float(share.sum())
    influence = share / total - w_q / w_q.sum()
    shift = _estimate(
        math.log(float(w_q.sum()) / total) - top,
        float(np.sqrt(influence @ influence)),
        "-log of the mean of r over q, linearised",
    )
    weights = Weights(q + np.log(w_q))
    overlap = check_overlap(q, p, weights_q=w_q, weights_p=w_p)
    ok, status = _judge(loss, shift, weights, overlap)
    if share_seen >= _MUCH_SEEN:
        status = (
            f"{100 * share_seen:.0f} % of the rows of the fit stand among these too: if they are "
            f"the same rows, hold some out, for all this looks too good. {status}"
        )
    return RatioDiagnostics(
        n_q=len(q),
        n_p=len(p),
        loss=loss,
        baseline_loss=_LOG_2,
        level_shift=shift,
        effective_sample_size=weights.effective_sample_size,
        khat=weights.khat,
        khat_limit=weights.khat_limit,
        overlap=overlap,
        share_seen=share_seen,
        ok=ok,
        status=status,
    )


def _kept(log_ratio: object, weights: object, side: str) -> tuple[Array, Array]:
    """Checked log ratios and weights of the rows with a positive weight."""
    array = np.asarray(log_ratio, dtype=np.float64)
    if array.ndim != 1 or array.size == 0:
        raise DataError(
            f"log_ratio_{side} has shape {array.shape}; expected one number a row, at least one"
        )
    w = as_weights(weights, array.size, side)
    array, w = array[w > 0], w[w > 0]
    if not np.isfinite(array).all():
        row = int(np.argmax(~np.isfinite(array)))
        raise DataError(
            f"log_ratio_{side} holds {np.count_nonzero(~np.isfinite(array))} values that are not "
            f"finite (first at kept row {row}); clip them"
        )
    return array, w


def _upper_point(x: Array, weights: Array, share: float) -> float:
    """The smallest value at or below which lies at least this share of the weight."""
    order = np.argsort(x, kind="stable")
    reached = np.cumsum(weights[order])
    place = np.searchsorted(reached, share * reached[-1] * (1 - 1e-12))
    return float(x[order[min(int(place), x.size - 1)]])


def _wilson(share: float, n: float, z: float = _NORMAL) -> tuple[float, float]:
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def _estimate(value: float, error: float, method: str) -> Estimate:
    return Estimate(value, value - _NORMAL * error, value + _NORMAL * error, error, method=method)


def _overlap_sentence(share: float, low: float, high: float, *, ok: bool) -> str:
    """Say how much of p lies out of q's reach and what follows."""
    size = f"{100 * share:.3g} % of p ({100 * low:.2g} to {100 * high:.2g} %)"
    if ok and share <= OVERLAP_LIMIT:
        return f"{size} lies beyond q's own 99.9 % point of log dP/dQ: q covers p well enough."
    if ok:
        return (
            f"{size} lies beyond q's own largest log dP/dQ, which so few rows would show for "
            "p = q too: more rows are needed to judge the overlap."
        )
    return (
        f"Overlap fails: {size} lies where q has almost no data (more than the "
        f"{100 * OVERLAP_LIMIT:g} % that can be ignored). No weighting of q can repair this; "
        "collect data there, or compare and deploy only on the part of p that q covers."
    )


def _judge(loss: Estimate, shift: Estimate, weights: Weights, overlap: Overlap) -> tuple[bool, str]:
    """Whether weights can be trusted, and the sentence; what is worst comes first."""
    assert loss.estimate is not None
    assert shift.estimate is not None
    low, high = loss.low or 0.0, loss.high or 0.0
    if not overlap.ok:
        return False, overlap.status
    if low > _LOG_2 + _ROUNDING:
        return False, (
            f"Worse than no model: the held-out loss {loss.estimate:.4f} is above the "
            f"{_LOG_2:.4f} of the constant ratio; take r = 1, or let select_ratio choose another "
            "estimator."
        )
    if not weights.ok:
        return False, weights.status
    off = abs(shift.estimate) - _NORMAL * (shift.standard_error or 0.0)
    if off > LEVEL_LIMIT:
        return False, (
            f"The level is off: the mean of r over q is {math.exp(-shift.estimate):.3g} where 1 "
            "is right, so that the model is overconfident or extrapolates; compare estimators by "
            "select_ratio."
        )
    if high >= _LOG_2 - _ROUNDING:
        return True, (
            f"No difference is shown: the held-out loss {loss.estimate:.4f} is not clearly below "
            f"the {_LOG_2:.4f} of the constant ratio, and r = 1 may do as well."
        )
    return True, (
        f"Use it: the held-out loss is {loss.estimate:.4f} where the constant ratio has "
        f"{_LOG_2:.4f}, and q covers p. {weights.status}"
    )
