"""The law within reach of q under which the mean loss is largest: one safeguarded root, or two.

    sup over w >= 0, E_q[w] = 1 of   E_q[w l] - penalty D_f(w q || q)
    w_i = (f')^(-1)(t_i),   t_i = (l_i - eta) / penalty,   eta such that E_q[w] = 1

The multiplier eta is not searched for: close to its bound f' is flat and eta pins nothing. The
unknown is u = log w at the largest loss, with t_i = f'(e^u) - (max l - l_i) / penalty. At u = 0 no
weight exceeds 1; at u = -log q(max) the largest losses alone carry all mass; in between E_q[w]
grows with u. For KL one Newton step on log E_q[w] is exact.

With a radius the penalty is the multiplier of D_f <= radius: D_f falls as it grows, and log D_f is
nearly a line of slope -2 in log penalty. Both Newton iterations have their exact slopes:

    dE_q[w] / du      = E_q[s] f''(e^u) e^u,                 s_i = 1 / f''(w_i)
    dD / dlog penalty = -E_q[s] var_s[max l - l] / penalty^2  (var_s under rows' shares of s).

Everything is float64 NumPy: a batch of losses crosses over once, which costs less than the
twenty small kernels and synchronisations that the iteration would take on an accelerator.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from dpdq.divergences import Divergence, TotalVariation
from dpdq.errors import ConvergenceError

__all__ = ["tail_weights", "worst_case_penalty", "worst_case_radius"]

_STEPS = 200
_CLOSE = 4.0 * float(np.finfo(np.float64).eps)
_LONGEST = 4.0  # step in a logarithm while the root has no bracket
_DEEP = -1e300  # below it every f' inverse is at its end


class _Losses:
    """Distinct numbers of one problem: gaps below the largest loss, in units of their range."""

    def __init__(self, losses: np.ndarray, shares: np.ndarray, f: Divergence) -> None:
        self.range = float(losses.max() - losses.min())
        self.gaps = (losses.max() - losses) / (self.range or 1.0)
        self.shares = shares
        self.top = self.gaps == 0
        self.top_share = float(shares[self.top].sum())
        self.f = f

    def top_only(self) -> np.ndarray:
        return np.where(self.top, 1.0 / self.top_share, 0.0)

    def largest_divergence(self) -> float:
        """D_f of all mass on the largest losses, which no radius can exceed."""
        log_top = -math.log(self.top_share)
        rest = float(self.shares[~self.top].sum())
        return self.top_share * float(self.f.f(log_top)) + rest * float(self.f.f(-math.inf))

    def log_weights(self, u: float, penalty: float) -> np.ndarray:
        t = float(self.f.f_prime(u)) - self.gaps / penalty
        log_w = np.asarray(self.f.f_prime_inverse(np.maximum(t, _DEEP)))
        log_w[self.top] = u
        return log_w

    def spread(self, log_w: np.ndarray) -> np.ndarray:
        """``q_i / f''(w_i)``: how fast the rows gain mass."""
        with np.errstate(divide="ignore", over="ignore"):
            rate = 1.0 / np.asarray(self.f.f_second(log_w))
        return np.where(log_w > -np.inf, self.shares * rate, 0.0)

    def stiffness(self, u: float) -> float:
        """``f''(e^u) e^u``, the derivative of f' in u."""
        return float(self.f.f_second(u)) * math.exp(u)

    def balance(self, u: float, penalty: float) -> float:
        """The u at which the weights have mean one."""

        def excess(u: float) -> tuple[float, float]:
            log_w = self.log_weights(u, penalty)
            total = float(self.shares @ np.exp(log_w))
            slope = float(self.spread(log_w).sum()) * self.stiffness(u) / total
            return math.log(total), slope

        return _root(excess, u, 0.0, -math.log(self.top_share))

    def divergence(self, log_w: np.ndarray) -> float:
        return float(self.shares @ np.asarray(self.f.f(log_w)))


def _root(
    function: Callable[[float], tuple[float, float]], x: float, low: float, high: float
) -> float:
    """Root of an increasing function from its value and slope: Newton inside a bracket.

    Bisects where a step leaves the bracket or is not half of the one before the last.
    """
    x = min(max(x, low), high)
    last = before = math.inf
    for _ in range(_STEPS):
        value, slope = function(x)
        if abs(value) <= _CLOSE:
            return x
        low, high = (x, high) if value < 0 else (low, x)
        step = -value / slope if slope > 0 and math.isfinite(value) else math.nan
        if math.isfinite(high - low):
            if not (low <= x + step <= high and abs(step) <= 0.5 * before):
                step = 0.5 * (low - x) + 0.5 * (high - x)
        elif not abs(step) <= _LONGEST:
            step = math.copysign(_LONGEST, -value)
        if abs(step) <= _CLOSE * max(1.0, abs(x)):
            return x + step
        before, last = last, abs(step)
        x += step
    raise ConvergenceError(
        f"the worst case was not found in {_STEPS} steps; report the divergence and the losses"
    )


def worst_case_penalty(
    losses: np.ndarray, shares: np.ndarray, f: Divergence, penalty: float
) -> tuple[np.ndarray, float]:
    """Weights of mean one, and D_f, that maximise E_q[w l] - penalty D_f."""
    problem = _Losses(losses, shares, f)
    if problem.range == 0:
        return np.ones_like(losses), 0.0
    scaled = penalty / problem.range
    if isinstance(f, TotalVariation):
        # A unit of mass moved from a row to the top costs one penalty and gains the row's gap.
        moved = problem.gaps > scaled
        mass = float(shares[moved].sum())
        weights = np.where(moved, 0.0, 1.0)
        return weights + np.where(problem.top, mass / problem.top_share, 0.0), mass
    scaled = max(scaled, 1e-290)
    log_w = problem.log_weights(problem.balance(0.0, scaled), scaled)
    return _mean_one(log_w, shares), problem.divergence(log_w)


def worst_case_radius(
    losses: np.ndarray, shares: np.ndarray, f: Divergence, radius: float
) -> np.ndarray:
    """Weights of mean one that maximise E_q[w l] among those with D_f at most the radius."""
    problem = _Losses(losses, shares, f)
    if problem.range == 0 or radius == 0:
        return np.ones_like(losses)
    if isinstance(f, TotalVariation):
        kept = max(1.0 - radius, 0.0)
        tail = tail_weights(losses, shares, kept) if kept > 0 else 0.0
        return kept * tail + (1.0 - kept) * problem.top_only()
    if radius >= problem.largest_divergence():
        return problem.top_only()

    gaps = problem.gaps
    u = 0.0

    def shortfall(log_penalty: float) -> tuple[float, float]:
        nonlocal u
        penalty = math.exp(log_penalty)
        u = problem.balance(u, penalty)
        log_w = problem.log_weights(u, penalty)
        value = problem.divergence(log_w)
        s = problem.spread(log_w)
        center = float(s @ gaps) / float(s.sum())
        # s falls as fast as penalty^2 where weights vanish: their ratio stays in the range.
        variance = float(np.square(np.sqrt(s) * ((gaps - center) / penalty)).sum())
        if value <= 0:
            return math.inf, math.nan
        return math.log(radius / value), variance / value

    curvature = float(f.f_second(0.0))
    center = float(shares @ gaps)
    variance = float(shares @ np.square(gaps - center))
    start = 0.5 * math.log(variance / (2.0 * radius * curvature))
    log_penalty = _root(shortfall, start, -650.0, math.inf)
    penalty = math.exp(log_penalty)
    return _mean_one(problem.log_weights(problem.balance(u, penalty), penalty), shares)


def tail_weights(losses: np.ndarray, shares: np.ndarray, tail: float) -> np.ndarray:
    """Weights of mean one, equal on the largest losses that make up this share of q, else 0.

    The row at the edge counts with the part that fits, shared among rows of equal loss.
    """
    levels, place = np.unique(-losses, return_inverse=True)
    mass = np.bincount(place, shares, len(levels))
    before = np.concatenate([[0.0], np.cumsum(mass)[:-1]])
    part = np.clip((tail - before) / mass, 0.0, 1.0)
    weights = part[place]
    return weights / float(shares @ weights)


def _mean_one(log_w: np.ndarray, shares: np.ndarray) -> np.ndarray:
    weights = np.exp(log_w)
    return weights / float(shares @ weights)
