"""Weights of rows as a function of their own losses, and the temperatures that go with them.

    tilt        w ~ exp(l / temperature),  the worst law at a price in KL
                value  temperature * log E_q[exp(l / temperature)]
    strategies  w ~ exp(g(l) / temperature),  g rising, falling or bent

Large losses are hard rows, rare groups, outliers or wrong labels, and the loss alone cannot tell
which. Tilting upwards (`kl_tilted_loss`) trusts that they are hard; ``"linupper"`` of
`loss_based_weights` only takes weight from rows that are learnt already and gives outliers no more
than middling rows; ``"quadratic"`` trusts neither end.

What the definition does not fix is the temperature, in units of the loss: towards infinity all rows
count alike, towards 0 the largest alone. `dual_temperature` finds it from a radius instead, one for
each row of a softmax: the temperature at which the tilted law is a given KL away from uniform.

A mean inside a logarithm is not estimated without bias by a batch: the tilted loss of a batch is
too small on average, and its gradient follows the largest loss of each batch rather than those of
the data. `TiltedLoss` follows the inner mean over batches instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np

from dpdq._optional import is_torch
from dpdq.errors import DataError, NotFittedError, OptionError
from dpdq.reweight._losses import (
    Array,
    as_rows,
    check_scale,
    envelope,
    kept_rows,
    like,
    log_mean_exp,
    pick_rows,
)
from dpdq.reweight._worst_case import tail_weights

__all__ = ["kl_tilted_loss", "TiltedLoss", "loss_based_weights", "dual_temperature"]


def kl_tilted_loss(losses: Array, temperature: float, *, weights: Any = None) -> Array:
    """Exponentially tilted mean of the losses: the worst mean loss at a price in KL.

        temperature * log E_q[exp(l / temperature)] = sup_p { E_p[l] - temperature KL(p || q) }

    From the mean (infinity) to the largest loss (0). For temperatures well above the spread it is
    mean + variance / (2 temperature). Equal to ``dro_loss(divergence="kl", penalty=temperature)``,
    in closed form, and so with derivatives of every order. Follows outliers; on a batch it is
    biased downwards (`TiltedLoss`).

    Parameters
    ----------
    losses
        One loss a row, shape (n,); NumPy or torch.
    temperature
        In units of the loss, from 0 to infinity, both allowed.
    weights
        Importance weights of the rows of q, shape (n,); 0 drops a row.

    Returns
    -------
    float64 or tensor
        A scalar.

    Raises
    ------
    DataError
        If a loss that counts is NaN or infinite, or shapes disagree.
    OptionError
        If the temperature is negative.

    Notes
    -----
    Cost: O(n) time, O(n) memory.
    Held by: tests/reweight/test_loss_weights.py::test_tilt_is_kl_dro_at_a_price

    References
    ----------
    .. [M204] Doubly Robust Instance-Reweighted Adversarial Training. Sow, 2023, OpenReview
       OF5x1dzWSS.
    .. [Li2021] Tilted Empirical Risk Minimization. Li, 2021, ICLR.

    Examples
    --------
    >>> kl_tilted_loss([0.0, 1.0, 2.0], temperature=1.0).round(4)
    np.float64(1.309)
    >>> kl_tilted_loss([0.0, 1.0, 2.0], temperature=0.0)
    np.float64(2.0)
    """
    array, xp = as_rows(losses, "losses")
    temperature = check_scale("temperature", temperature, zero=True, infinite=True)
    values, shares, rows = kept_rows(array, weights)
    if temperature == 0:
        gradient = np.zeros(array.shape[0])
        gradient[rows] = shares * tail_weights(values, shares, 0.5 * float(shares.min()))
        return envelope(array, gradient, float(values.max()))
    kept, parts = pick_rows(array, rows), like(shares, array)
    if math.isinf(temperature):
        return (parts * kept).sum()
    top = float(values.max())
    return top + temperature * log_mean_exp((kept - top) / temperature, parts, xp)


class TiltedLoss:
    """The tilted loss on batches, with the inner mean followed from batch to batch.

        u <- (1 - b) u + b mean_batch exp(l / temperature)
        gradient: mean_batch [ exp(l / temperature) / u ] grad l;   value: temperature * log u

    The gradient of `kl_tilted_loss` on a batch is biased however many batches are seen. Here the
    bias is that of u alone, and goes with ``rate`` and with how fast the model moves. A single
    batch can never have more than 1 / b times its fair weight, since its own losses are in u.
    Under data-parallel training each process follows its own u.

    Changed from the paper: u is held as a logarithm, so that no shift of the losses is needed, and
    b starts as one over the number of batches until that is below ``rate``; the constants are ours.

    Parameters
    ----------
    temperature
        In units of the loss, above 0.
    rate
        b, the share of the newest batch in u, above 0 and at most 1; 1 is the biased batch loss.

    Raises
    ------
    OptionError
        If the temperature or the rate is out of range.

    Notes
    -----
    Cost: O(n) time and memory a batch, O(1) state.
    Held by: tests/reweight/test_loss_weights.py::test_followed_mean_removes_the_bias_of_batches

    References
    ----------
    .. [M204] Doubly Robust Instance-Reweighted Adversarial Training. Sow, 2023, OpenReview
       OF5x1dzWSS.
    .. [Wang2017] Stochastic Compositional Gradient Descent: Algorithms for Minimizing Compositions
       of Expected-Value Functions. Wang, 2017, Math. Program. 161.

    Examples
    --------
    >>> import torch
    >>> model = torch.nn.Linear(2, 3)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> batches = [(torch.randn(8, 2), torch.arange(8) % 3)] * 2
    >>> tilted = TiltedLoss(temperature=0.5)
    >>> for x, y in batches:
    ...     losses = torch.nn.functional.cross_entropy(model(x), y, reduction="none")
    ...     loss = tilted(losses)
    ...     optimizer.zero_grad()
    ...     loss.backward()
    ...     optimizer.step()
    >>> 0 < tilted.effective_share <= 1
    True
    """

    def __init__(self, temperature: float, *, rate: float = 0.1) -> None:
        self.temperature = check_scale("temperature", temperature)
        if not 0 < rate <= 1:
            raise OptionError(f"rate is {rate!r}; give a number above 0 and at most 1")
        self.rate = float(rate)
        self.steps = 0
        self._log_mean = -math.inf
        self._log_square = -math.inf

    def __repr__(self) -> str:
        return f"TiltedLoss(temperature={self.temperature:g}, rate={self.rate:g})"

    def __call__(self, losses: Array, *, weights: Any = None) -> Array:
        """Take in a batch and return the tilted loss, with its gradient where losses carry one."""
        array, _ = as_rows(losses, "losses")
        values, shares, rows = kept_rows(array, weights)
        tilt = values / self.temperature
        self.steps += 1
        share = max(self.rate, 1.0 / self.steps)
        self._log_mean = _blend(self._log_mean, float(log_mean_exp(tilt, shares, np)), share)
        self._log_square = _blend(
            self._log_square, float(log_mean_exp(2.0 * tilt, shares, np)), share
        )
        gradient = np.zeros(array.shape[0])
        gradient[rows] = shares * np.exp(tilt - self._log_mean)
        return envelope(array, gradient, self.value)

    def weights(self, losses: Array) -> Array:
        """Weights exp(l / temperature) / u of rows, without taking them in.

        Their mean over the data, not over a batch, is one.
        """
        array, _ = as_rows(losses, "losses")
        self._check()
        values, _, _ = kept_rows(array, None)
        return like(np.exp(values / self.temperature - self._log_mean), array)

    @property
    def value(self) -> float:
        """The tilted loss of the data as followed so far."""
        self._check()
        return self.temperature * self._log_mean

    @property
    def effective_share(self) -> float:
        """Share of rows that the weights are worth, u^2 / E[exp(2 l / temperature)]."""
        self._check()
        return min(1.0, math.exp(2.0 * self._log_mean - self._log_square))

    def effective_sample_size(self, n: int) -> float:
        """Kish's effective size of n rows under the weights.

        Parameters
        ----------
        n
            Rows of the data.

        Returns
        -------
        float
            At most n.
        """
        return n * self.effective_share

    def state_dict(self) -> dict[str, float]:
        """What a checkpoint has to keep, as plain numbers."""
        return {"log_mean": self._log_mean, "log_square": self._log_square, "steps": self.steps}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Go on from a checkpoint.

        Parameters
        ----------
        state
            What `state_dict` gave.
        """
        self._log_mean = float(state["log_mean"])
        self._log_square = float(state["log_square"])
        self.steps = int(state["steps"])

    def _check(self) -> None:
        if self.steps == 0:
            raise NotFittedError("TiltedLoss has seen no batch; call it on losses first")


def _blend(old: float, new: float, share: float) -> float:
    """``log((1 - share) e^old + share e^new)``."""
    if share >= 1:
        return new
    return float(np.logaddexp(math.log1p(-share) + old, math.log(share) + new))


def _linupper(h: np.ndarray, delta: float) -> np.ndarray:
    return np.minimum(h + delta, delta)


def _upper(h: np.ndarray, delta: float) -> np.ndarray:
    return 0.5 * (h + delta)


def _quadratic(h: np.ndarray, delta: float) -> np.ndarray:
    return 1.0 - np.square(h / delta)


def _extremes(h: np.ndarray, delta: float) -> np.ndarray:
    return np.abs(h)


_STRATEGIES: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {
    "linupper": _linupper,
    "upper": _upper,
    "quadratic": _quadratic,
    "extremes": _extremes,
}


def loss_based_weights(
    losses: Array,
    *,
    strategy: Literal["linupper", "upper", "quadratic", "extremes"] = "linupper",
    temperature: float = 1.0,
    delta: float = 1.0,
    weights: Any = None,
) -> Array:
    """Weights of rows from where their losses stand within the batch.

        h = delta (2 l - max l - min l) / (max l - min l),  in [-delta, delta]
        w proportional to exp(g(h) / temperature), mean one
        linupper    g = min(h + delta, delta)     less for losses below the middle
        upper       g = (h + delta) / 2           KL tilt at temperature (max l - min l) / delta
        quadratic   g = 1 - h^2 / delta^2         less for both ends
        extremes    g = |h|                       more for both ends

    Made to lose less time on rows that are learnt already. The range of the batch sets the scale:
    one outlier moves the middle up, and then nearly all rows count as below it. A batch of one row
    has no range, so that gradient accumulation needs the losses of the whole step. The authors
    train the first 1000 steps with uniform weights, while losses say little. With wrong labels it
    is faster early and worse late: what is left to learn then are the wrong ones.

    Parameters
    ----------
    losses
        One loss a row, shape (n,); NumPy or torch.
    strategy
        Which g.
    temperature
        Above 0; small values sharpen, large ones make the weights uniform.
    delta
        Half the range that losses are mapped to, above 0.
    weights
        Importance weights of the rows of q, shape (n,), which the result multiplies.

    Returns
    -------
    array or tensor
        Shape (n,), mean one over kept rows, without gradient: ``(w * losses).mean()`` is the loss.

    Raises
    ------
    DataError
        If a loss that counts is NaN or infinite, or shapes disagree.
    OptionError
        If the strategy is unknown or a number is out of range.

    Notes
    -----
    Cost: O(n) time, O(n) memory.
    Held by: tests/reweight/test_loss_weights.py::test_strategies_against_their_formulas

    References
    ----------
    .. [M436] Dynamic Loss-Based Sample Reweighting for Improved Large Language Model Pretraining.
       Sow, 2025, arXiv 2502.06733.

    Examples
    --------
    >>> loss_based_weights([0.0, 1.0, 2.0]).round(3)
    array([0.466, 1.267, 1.267])

    In a training loop:

    >>> import torch
    >>> losses = torch.tensor([0.1, 0.2, 3.0], requires_grad=True)
    >>> (loss_based_weights(losses) * losses).mean().backward()
    """
    array, _ = as_rows(losses, "losses")
    if strategy not in _STRATEGIES:
        choices = ", ".join(map(repr, _STRATEGIES))
        raise OptionError(f"Unknown strategy {strategy!r}. Choose one of {choices}.")
    temperature = check_scale("temperature", temperature)
    delta = check_scale("delta", delta)
    values, shares, rows = kept_rows(array, weights)
    low, high = float(values.min()), float(values.max())
    tilt = np.zeros_like(values)
    if high > low:
        h = delta * ((values - low) - (high - values)) / (high - low)
        tilt = _STRATEGIES[strategy](h, delta) / temperature
    mass = shares * np.exp(tilt - tilt.max())
    full = np.zeros(array.shape[0])
    full[rows] = mass * (rows.size / float(mass.sum()))
    return like(full, array)


def dual_temperature(
    logits: Array, *, radius: float, low: float = 0.01, high: float = 100.0
) -> Array:
    """Temperature of each row's softmax at which it stands a KL of ``radius`` from uniform.

        argmin over tau in [low, high] of  tau log mean_k exp(z_k / tau) + tau radius
        at the minimum  KL(softmax(z / tau) || uniform) = radius

    The dual of the worst law over the k labels (or, for a contrastive loss, over the candidates of
    one anchor) within a KL ball: the temperature that this loss would learn for the row. Shifting
    a row changes nothing and scaling it scales tau, so the label does not matter. Larger radii give
    smaller temperatures; at log k (over the number of largest logits) and beyond it is ``low``, as
    it is for a row whose logits are all equal.

    The robust loss is no likelihood: compare models by log loss.

    Parameters
    ----------
    logits
        Logits or similarities, shape (n, k); NumPy or torch.
    radius
        KL, above 0 and useful below log k.
    low, high
        Bounds of the temperature, above 0.

    Returns
    -------
    array or tensor
        Shape (n,), without gradient: by the envelope theorem the loss needs none through tau.

    Raises
    ------
    DataError
        If a logit is NaN or infinite.
    OptionError
        If a number is out of range.

    Notes
    -----
    Cost: O(n k) time a Newton step, about 10 steps; O(n k) memory.
    Held by: tests/reweight/test_loss_weights.py::test_dual_temperature_minimises_the_dual

    Changed from the paper: it fits a network that predicts tau; this is the minimum itself.

    References
    ----------
    .. [M427] To Cool or not to Cool? Temperature Network Meets Large Foundation Models via DRO.
       Qiu, 2024, arXiv 2404.04575.

    Examples
    --------
    >>> dual_temperature([[0.0, 1.0, 2.0], [0.0, 10.0, 20.0]], radius=0.5).round(4)
    array([0.6419, 6.4191])

    A contrastive loss whose positives are on the diagonal:

    >>> import torch
    >>> from dpdq.reweight import label_dro_loss
    >>> similarity = torch.randn(4, 4, requires_grad=True)
    >>> tau = dual_temperature(similarity, radius=0.7)
    >>> loss = label_dro_loss(similarity, torch.arange(4), temperature=tau) + 0.7 * tau.mean()
    >>> loss.backward()
    """
    array, xp = as_rows(logits, "logits", 2)
    radius = check_scale("radius", radius)
    low, high = check_scale("low", low), check_scale("high", high)
    if low > high:
        raise OptionError(f"low is {low} and high is {high}; give bounds in ascending order")
    if is_torch(array):
        array = array.detach()
    if not bool(xp.isfinite(array).all()):
        raise DataError("logits hold NaN or infinite values; mask such rows out first")
    gaps = array - xp.amax(array, -1, keepdims=True)
    k = array.shape[1]

    def excess(at: Array) -> tuple[Array, Array]:
        """``log(radius / KL)``, which grows with log tau, and its slope."""
        x = gaps / xp.exp(at)[:, None]
        e = xp.exp(x)
        p = e / e.sum(-1)[:, None]
        center = (p * x).sum(-1)
        kl = center - log_mean_exp(x, 1.0 / k, xp)
        variance = (p * (x - center[:, None]) ** 2).sum(-1)
        tiny = xp.finfo(x.dtype).tiny
        kl = xp.where(kl > tiny, kl, tiny)
        return math.log(radius) - xp.log(kl), variance / kl

    floor = xp.zeros_like(gaps[:, 0]) + math.log(low)
    ceiling = xp.zeros_like(floor) + math.log(high)
    at_low = excess(floor)[0] >= 0
    at_high = excess(ceiling)[0] <= 0
    root = _rowwise_root(excess, floor, ceiling, xp)
    inside = xp.where(at_low, floor, xp.where(at_high, ceiling, root))
    tau = xp.exp(inside)
    return xp.where(at_low, low, xp.where(at_high, high, tau))


def _rowwise_root(
    function: Callable[[Array], tuple[Array, Array]], low: Array, high: Array, xp: Any
) -> Array:
    """Roots of increasing functions, one a row, by Newton's method inside shrinking brackets."""
    x = 0.5 * (low + high)
    close = 4.0 * float(xp.finfo(x.dtype).eps)
    last = before = high - low
    for _ in range(100):
        value, slope = function(x)
        below = value < 0
        low, high = xp.where(below, x, low), xp.where(below, high, x)
        step = -value / xp.where(slope > 0, slope, 1.0)
        new = x + step
        trusted = (slope > 0) & (new >= low) & (new <= high) & (abs(step) <= 0.5 * before)
        new = xp.where(trusted, new, 0.5 * (low + high))
        before, last = last, abs(new - x)
        x = new
        if bool((last <= close * (1.0 + abs(x))).all()):
            break
    return x
