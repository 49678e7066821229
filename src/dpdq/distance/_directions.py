r"""Directions, and laws of directions, along which two samples lie furthest apart.

The sliced cost f(theta) = W_r^r(theta#q, theta#p) is continuous on the sphere, differentiable where
no two projected rows coincide, and has many local maxima. It is climbed along great circles from
several starts at once, with a step that grows while it helps and is halved when it does not, so
that no start ever loses height.

A von Mises-Fisher law is turned together with its draws: if R turns eps to eps', then R theta has
the law of eps' when theta has that of eps. For a small move delta orthogonal to eps,
R theta = theta + (eps.theta) delta - (delta.theta) eps, so that with G the gradient of f

    d/d delta  E f(theta) = E[(eps.theta) G - (eps.G) theta]   (its part orthogonal to eps).

The draws are made once, so that the objective that is climbed is one fixed function; whoever
reports a value takes fresh draws from the law that was found.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from dpdq.distance._slices import Slices
from dpdq.distance._sphere import angle_law, orthogonal_directions, uniform_directions

__all__ = ["SliceLaw", "best_direction", "learn_law", "starting_directions"]

LEARNING_ROWS = 2048  # rows a side on which directions are searched for
_N_STARTS = 8
_N_STEPS = 60
_LARGEST_STEP = 0.5  # radians
_SMALLEST_STEP = 1e-5


@dataclasses.dataclass(frozen=True)
class SliceLaw:
    """A von Mises-Fisher law of directions; ``kappa`` infinite is one direction, 0 is uniform."""

    location: np.ndarray
    kappa: float

    @property
    def kl(self) -> float:
        """KL from this law to the uniform one."""
        d = len(self.location)
        if d == 1 or self.kappa == 0:
            return 0.0
        return angle_law(d, self.kappa).kl if math.isfinite(self.kappa) else math.inf

    def draw(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Directions, shape (n, d)."""
        d = len(self.location)
        if d == 1 or not math.isfinite(self.kappa):
            return self.location[None, :].copy()
        phi, _ = angle_law(d, self.kappa).angles(rng.random(n))
        across = orthogonal_directions(self.location, n, rng)
        return np.cos(phi)[:, None] * self.location + np.sin(phi)[:, None] * across


def some_rows(slices: Slices, rng: np.random.Generator) -> Slices:
    """At most `LEARNING_ROWS` rows a side, drawn by chance."""
    if max(slices.n, slices.m) <= LEARNING_ROWS:
        return slices
    rows = [
        np.sort(rng.choice(size, min(size, LEARNING_ROWS), replace=False))
        for size in (slices.n, slices.m)
    ]
    return slices.take(*rows)


def starting_directions(slices: Slices, n_random: int, rng: np.random.Generator) -> np.ndarray:
    """The most promising of: the difference of means, of covariances, and random directions."""
    d = slices.d
    mean_q, mean_p = slices.share_q @ slices.q, slices.share_p @ slices.p
    found = [uniform_directions(max(n_random, _N_STARTS), d, rng)]
    shift = mean_p - mean_q
    if np.linalg.norm(shift) > 0:
        found.append(shift[None, :] / np.linalg.norm(shift))
    if 1 < d <= 1024:
        x, y = slices.q - mean_q, slices.p - mean_p
        spread = (y.T * slices.share_p) @ y - (x.T * slices.share_q) @ x
        if np.abs(spread).max() > 0:
            vectors = np.linalg.eigh(spread)[1]
            found.append(vectors[:, [0, -1]].T)
    # of a direction and its opposite, the one whose largest entry is positive
    directions = np.concatenate(found[::-1])
    costs = slices.costs(directions)
    best = np.argsort(-costs, kind="stable")[:_N_STARTS]
    return upright(directions[best])


def upright(directions: np.ndarray) -> np.ndarray:
    """Each direction or its opposite: the one whose largest entry is positive."""
    largest = np.abs(directions).argmax(axis=1)
    sign = np.sign(directions[np.arange(len(directions)), largest])
    return directions * np.where(sign == 0, 1.0, sign)[:, None]


def best_direction(
    slices: Slices, n_random: int, rng: np.random.Generator
) -> tuple[np.ndarray, bool]:
    """The direction of the largest cost that was found, and whether its climb had ended."""
    if slices.d == 1:
        return np.ones(1), True
    part = some_rows(slices, rng)
    theta, height, ended = _climb(part, starting_directions(part, n_random, rng))
    top = int(np.argmax(height))
    if part is slices:
        return upright(theta[top : top + 1])[0], bool(ended[top])
    theta, _, ended = _climb(slices, theta[top : top + 1])
    return upright(theta)[0], bool(ended[0])


def _climb(slices: Slices, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ascent from every row of ``theta``; where they end, how high, and whether at a summit."""
    theta = theta.copy()
    height, gradient = slices.gradients(theta)
    step = np.full(len(theta), 0.2)
    for _ in range(_N_STEPS):
        uphill = gradient - (gradient * theta).sum(axis=1, keepdims=True) * theta
        slope = np.linalg.norm(uphill, axis=1)
        live = (step > _SMALLEST_STEP) & (slope > 1e-9 * np.maximum(height, 1e-300))
        if not live.any():
            break
        rows = np.flatnonzero(live)
        towards = uphill[rows] / slope[rows, None]
        angle = step[rows, None]
        tried = np.cos(angle) * theta[rows] + np.sin(angle) * towards
        tried /= np.linalg.norm(tried, axis=1, keepdims=True)
        new_height, new_gradient = slices.gradients(tried)
        better = new_height >= height[rows] + 0.1 * step[rows] * slope[rows]
        won, lost = rows[better], rows[~better]
        theta[won], height[won], gradient[won] = (
            tried[better], new_height[better], new_gradient[better]
        )  # fmt: skip
        step[won] = np.minimum(2.0 * step[won], _LARGEST_STEP)
        step[lost] /= 3.0
    return theta, height, step < 1e-2


@dataclasses.dataclass
class _Draws:
    """Draws of a von Mises-Fisher law that move with it: fixed u, and v carried along."""

    location: np.ndarray
    log_kappa: float
    u: np.ndarray
    across: np.ndarray

    def __post_init__(self) -> None:
        self.law = angle_law(len(self.location), math.exp(self.log_kappa))
        phi, self.by_kappa = self.law.angles(self.u)
        self.cosine, self.sine = np.cos(phi)[:, None], np.sin(phi)[:, None]
        self.theta = self.cosine * self.location + self.sine * self.across

    def moved(self, towards: np.ndarray, angle: float, change: float) -> _Draws:
        """Turned towards an orthogonal direction, and more concentrated by a factor."""
        location = math.cos(angle) * self.location + math.sin(angle) * towards
        location /= np.linalg.norm(location)
        along = (self.across @ towards)[:, None]
        turned = (math.cos(angle) - 1.0) * towards - math.sin(angle) * self.location
        across = self.across + along * turned
        return _Draws(location, self.log_kappa + change, self.u, across)


def learn_law(
    slices: Slices,
    *,
    kappa: float | None,
    price: float,
    n_directions: int,
    rng: np.random.Generator,
) -> tuple[SliceLaw, bool]:
    """The von Mises-Fisher law with the largest mean cost less ``price`` times its KL.

    With ``kappa`` given only the location is learnt and the price plays no part.
    """
    d = slices.d
    if d == 1:
        return SliceLaw(np.ones(1), 0.0), True
    part = some_rows(slices, rng)
    starts = starting_directions(part, n_directions, rng)
    u = (rng.permutation(n_directions) + rng.random(n_directions)) / n_directions
    concentrations = [kappa] if kappa is not None else [0.5 * d, 5.0 * d]
    few = _climb(part, starts)[0]  # also where single directions lead to
    candidates = np.concatenate([starts[:2], few])
    tried = []
    for concentration in concentrations:
        for location in candidates:
            across = orthogonal_directions(location, n_directions, rng)
            draws = _Draws(location, math.log(concentration), u, across)
            value = float(part.costs(draws.theta).mean())
            tried.append((value - (price * draws.law.kl if kappa is None else 0.0), draws))
    draws = max(tried, key=lambda one: one[0])[1]
    value, draws, ended = _climb_law(part, draws, price, kappa is None)
    if kappa is None:
        even = float(part.costs(uniform_directions(n_directions, d, rng)).mean())
        if even >= value:
            return SliceLaw(upright(draws.location[None, :])[0], 0.0), True
    return SliceLaw(upright(draws.location[None, :])[0], math.exp(draws.log_kappa)), ended


def _climb_law(
    slices: Slices, draws: _Draws, price: float, free: bool
) -> tuple[float, _Draws, bool]:
    def look(at: _Draws) -> tuple[float, np.ndarray, float]:
        costs, gradients = slices.gradients(at.theta)
        turn = (at.cosine * gradients - (gradients @ at.location)[:, None] * at.theta).mean(axis=0)
        turn -= (turn @ at.location) * at.location
        value = float(costs.mean())
        if not free:
            return value, turn, 0.0
        kappa = math.exp(at.log_kappa)
        by_phi = (gradients * (at.cosine * at.across - at.sine * at.location)).sum(axis=1)
        slope = kappa * (float((by_phi * at.by_kappa).mean())
                         - price * kappa * at.law.cosine_variance)  # fmt: skip
        return value - price * at.law.kl, turn, slope

    value, turn, slope = look(draws)
    idle = 0  # steps in a row that gained next to nothing
    step, largest = 0.2, math.log(1e4 * len(draws.location))
    for _ in range(_N_STEPS):
        if (draws.log_kappa >= largest and slope > 0) or (draws.log_kappa <= -7 and slope < 0):
            slope = 0.0
        length = float(np.linalg.norm(turn))
        total = math.hypot(length, slope)
        if idle == 3 or step < _SMALLEST_STEP or total <= 1e-9 * max(abs(value), 1e-300):
            break
        towards = turn / length if length > 0 else np.zeros_like(turn)
        change = min(max(step * slope / total, -7 - draws.log_kappa), largest - draws.log_kappa)
        tried = draws.moved(towards, step * length / total if length > 0 else 0.0, change)
        new_value, new_turn, new_slope = look(tried)
        if new_value >= value + 0.1 * step * total:
            idle = idle + 1 if new_value - value < 1e-4 * abs(value) else 0
            draws, value, turn, slope = tried, new_value, new_turn, new_slope
            step = min(2.0 * step, _LARGEST_STEP)
        else:
            step /= 3.0
    return value, draws, idle == 3 or step < 1e-2
