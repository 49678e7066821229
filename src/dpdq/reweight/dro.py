"""The mean loss under the worst law near q: distributionally robust losses.

    sup over p near q of E_p[l],   p = w q,  w >= 0,  E_q[w] = 1
    near:  D_f(p || q) <= radius,   or at the price   penalty * D_f(p || q)

for every divergence of `dpdq.divergences`, on its table's scale. The worst weights are

    w = (f')^(-1)((l - eta) / penalty)

so the divergence decides what happens to rows: `PearsonChi2` weighs the excess over eta and drops
rows below it, `KL` tilts exponentially, `TotalVariation` drops the smallest losses and gives their
mass to the largest, `ReverseKL` and `SquaredHellinger` let a single row take much mass early.
`cvar_loss` allows any weight up to 1 / (1 - level): the mean of the worst share of rows.

What the definition does not fix:

- *mass outside the rows*. Some divergences have a finite price for p where q has nothing (total
  variation, Jensen-Shannon, Hellinger, reverse KL and others with a finite slope at infinity); the
  worst law could then sit anywhere. Here p stays on the rows.
- *how far is near*. A radius means nothing across divergences. With chi-squared the loss is, while
  no weight hits 0, mean + sqrt(radius * variance).
- *the batch*. The worst case of a batch is not that of the data: on average it is smaller, and
  its gradient is biased. Large batches, a penalty rather than a radius, or `TiltedLoss` for KL.

Outliers and wrong labels have large losses: a robust loss seeks them out. It guards against a
different mixture of the same rows, not against bad rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dpdq.divergences import Divergence, divergence
from dpdq.errors import InputTypeError, OptionError
from dpdq.reweight._losses import (
    Array,
    as_rows,
    check_scale,
    envelope,
    kept_rows,
    like,
)
from dpdq.reweight._worst_case import tail_weights, worst_case_penalty, worst_case_radius

__all__ = ["dro_loss", "dro_weights", "cvar_loss"]


def dro_loss(
    losses: Array,
    *,
    divergence: str | Divergence = "kl",
    radius: float | None = None,
    penalty: float | None = None,
    weights: Any = None,
) -> Array:
    """Worst mean loss over laws within a divergence of q.

        radius:   sup { E_q[w l] : D_f(w q || q) <= radius }
        penalty:  sup { E_q[w l] - penalty D_f(w q || q) }      over w >= 0 with E_q[w] = 1

    Solved through the dual, inf over eta of eta + penalty E_q[f*((l - eta) / penalty)]. The
    gradient in the losses is w / n (the worst weights do not move to first order); it is exact,
    and a second derivative is refused. All losses equal: w = 1. A radius that the mass on
    the largest losses does not exceed (1 - their share for total variation, at most 2 log 2 for
    Jensen-Shannon, log n for KL): the loss is the largest loss, and equal rows share the weight;
    divergences that are infinite where a row loses all mass (reverse KL, Neyman, Jeffreys,
    softened reverse KL) never get there.

    Seeks out outliers and wrong labels; the worst case of a batch is smaller than that of the
    data (see the module).

    Parameters
    ----------
    losses
        One loss a row, shape (n,); NumPy, or a torch tensor that may need a gradient.
    divergence
        A name of `dpdq.divergences.DIVERGENCES`, or a divergence, such as ``AlphaDivergence(3)``.
    radius
        Largest D_f, 0 or more, on the scale of the divergence's generator. Give this or
    penalty
        the price of a unit of D_f, above 0, in units of the loss.
    weights
        Importance weights of the rows of q, shape (n,); 0 drops a row.

    Returns
    -------
    float64 or tensor
        A scalar, in the dtype and on the device of the losses. It is solved in float64 on the CPU.

    Raises
    ------
    DataError
        If a loss that counts is NaN or infinite, or shapes disagree.
    OptionError
        If the divergence is unknown, or not exactly one of radius and penalty is given.

    Notes
    -----
    Cost: O(n) time a step of the dual, 3 to 15 steps for a penalty, 10 to 100 for a radius; O(n)
    memory.
    Held by: tests/reweight/test_dro.py::test_dual_equals_primal

    References
    ----------
    .. [BenTal2013] Robust Solutions of Optimization Problems Affected by Uncertain Probabilities.
       Ben-Tal, 2013, Manage. Sci. 59.
    .. [Duchi2021] Learning Models with Uniform Performance via Distributionally Robust
       Optimization. Duchi, 2021, Ann. Statist. 49.

    Examples
    --------
    >>> dro_loss([0.0, 1.0, 2.0], divergence="pearson_chi2", radius=0.5)  # 1 + sqrt(0.5 * 2 / 3)
    np.float64(1.57735...)
    >>> dro_loss([0.0, 1.0, 2.0], divergence="total_variation", radius=0.9)
    np.float64(2.0)

    In a training loop (`model`, `batches` and `optimizer` are anybody's):

    >>> import torch
    >>> model = torch.nn.Linear(2, 3)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> batches = [(torch.randn(8, 2), torch.arange(8) % 3)]
    >>> for x, y in batches:
    ...     losses = torch.nn.functional.cross_entropy(model(x), y, reduction="none")
    ...     loss = dro_loss(losses, divergence="pearson_chi2", radius=1.0)
    ...     optimizer.zero_grad()
    ...     loss.backward()
    ...     optimizer.step()
    """
    array, _ = as_rows(losses, "losses")
    gradient, value = _worst(array, divergence, radius, penalty, weights)
    return envelope(array, gradient, value)


def dro_weights(
    losses: Array,
    *,
    divergence: str | Divergence = "kl",
    radius: float | None = None,
    penalty: float | None = None,
    weights: Any = None,
) -> Array:
    """Weights of the rows under the worst law: the gradient of `dro_loss`, scaled to mean one.

        w = (f')^(-1)((l - eta) / penalty),  times the given weights, mean one over kept rows

    Their effective sample size tells how few rows the loss listens to.

    Parameters
    ----------
    losses, divergence, radius, penalty, weights
        As in `dro_loss`.

    Returns
    -------
    array or tensor
        Shape (n,), without gradient, 0 for dropped rows.

    Raises
    ------
    DataError, OptionError
        As `dro_loss`.

    Notes
    -----
    Cost: O(n) time a step of the dual, as `dro_loss`; O(n) memory.
    Held by: tests/reweight/test_dro.py::test_chi2_weights_in_closed_form

    References
    ----------
    .. [Duchi2021] Learning Models with Uniform Performance via Distributionally Robust
       Optimization. Duchi, 2021, Ann. Statist. 49.

    Examples
    --------
    >>> dro_weights([0.0, 1.0, 2.0], divergence="pearson_chi2", penalty=1.0)
    array([0.5, 1. , 1.5])
    """
    array, _ = as_rows(losses, "losses")
    gradient, _ = _worst(array, divergence, radius, penalty, weights)
    return like(gradient * np.count_nonzero(_kept(weights, gradient)), array)


def cvar_loss(losses: Array, level: float, *, weights: Any = None) -> Array:
    """Mean of the worst losses: the conditional value at risk, or expected shortfall.

        CVaR = sup { E_q[w l] : 0 <= w <= 1 / (1 - level), E_q[w] = 1 }

    The mean of the worst share 1 - level of q, exactly: the row at the edge counts with the part
    that fits. Level 0 is the mean, level 1 the largest loss; the limit of `dro_loss` with
    ``AlphaDivergence(alpha)`` for large alpha. The gradient is w / n; rows that tie at the edge
    share it (one of many subgradients). Rows outside the tail teach nothing, so that small batches
    at high levels learn from one row each.

    Parameters
    ----------
    losses
        One loss a row, shape (n,); NumPy or torch.
    level
        Share of q that is left out, from 0 to 1.
    weights
        Importance weights of the rows of q, shape (n,).

    Returns
    -------
    float64 or tensor
        A scalar.

    Raises
    ------
    DataError
        If a loss that counts is NaN or infinite, or shapes disagree.
    OptionError
        If the level is not between 0 and 1.

    Notes
    -----
    Cost: O(n log n) time, O(n) memory.
    Held by: tests/reweight/test_dro.py::test_cvar_is_the_mean_of_the_worst_share

    References
    ----------
    .. [Rockafellar2000] Optimization of Conditional Value-at-Risk. Rockafellar, 2000, J. Risk 2.

    Examples
    --------
    >>> cvar_loss([0.0, 1.0, 2.0, 3.0], 0.5)
    np.float64(2.5)
    """
    array, _ = as_rows(losses, "losses")
    if not 0 <= level <= 1:
        raise OptionError(f"level is {level!r}; give the share to leave out, from 0 to 1")
    values, shares, rows = kept_rows(array, weights)
    # Level 1 keeps the largest losses alone; so does any tail smaller than a row.
    tail = max(1.0 - level, 0.5 * float(shares.min()))
    parts = shares * tail_weights(values, shares, tail)
    return envelope(array, _spread_out(parts, rows, array), _mean(values, parts))


def _worst(
    losses: Array,
    name: str | Divergence,
    radius: float | None,
    penalty: float | None,
    weights: Any,
) -> tuple[np.ndarray, float]:
    """Worst shares of all rows, and the value."""
    f = _generator(name)
    if (radius is None) == (penalty is None):
        raise OptionError("dro_loss takes either radius or penalty; give exactly one")
    values, shares, rows = kept_rows(losses, weights)
    if radius is not None:
        check_scale("radius", radius, zero=True, infinite=True)
        parts, cost = shares * worst_case_radius(values, shares, f, float(radius)), 0.0
    else:
        assert penalty is not None
        check_scale("penalty", penalty)
        found, distance = worst_case_penalty(values, shares, f, float(penalty))
        parts, cost = shares * found, float(penalty) * distance
    return _spread_out(parts, rows, losses), _mean(values, parts) - cost


def _generator(name: str | Divergence) -> Divergence:
    if isinstance(name, Divergence):
        return name.standard()
    if not isinstance(name, str):
        kind = type(name).__name__
        raise InputTypeError(f"divergence has type {kind}; give a name or a Divergence")
    if name == "alpha":
        raise OptionError("divergence 'alpha' needs its order: give AlphaDivergence(3), say")
    return divergence(name).standard()


def _mean(values: np.ndarray, parts: np.ndarray) -> float:
    top = float(values.max())
    return top + float(parts @ (values - top))


def _spread_out(parts: np.ndarray, rows: np.ndarray, losses: Array) -> np.ndarray:
    full = np.zeros(losses.shape[0])
    full[rows] = parts
    return full


def _kept(weights: Any, gradient: np.ndarray) -> np.ndarray:
    return np.ones(gradient.size, dtype=bool) if weights is None else like(weights, gradient) > 0
