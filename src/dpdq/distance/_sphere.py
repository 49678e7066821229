r"""Laws on the unit sphere: the uniform one, and the von Mises-Fisher law around one direction.

With respect to the uniform law the density of the von Mises-Fisher law is

    rho(theta) = exp(kappa eps.theta) / Z(kappa),   Z(kappa) = E_uniform[exp(kappa eps.theta)],

uniform at concentration kappa = 0 and the single direction eps as kappa grows. Everything about it
hangs on the angle phi between theta and eps, whose density is proportional to
exp(kappa cos phi) sin(phi)^(d - 2):

    A(kappa)  = E[cos phi] = (log Z)'(kappa)
    KL(rho || uniform) = kappa A(kappa) - log Z(kappa),   its derivative is kappa Var(cos phi)

Draws are theta = cos(phi) eps + sin(phi) v with v uniform among the directions orthogonal to eps
and phi = F^-1(u) for a uniform u. No draw is rejected, so that with u and v held fixed theta is a
smooth function of (eps, kappa), and dphi/dkappa = -(dF/dkappa) / F'. The integrals over phi are
taken on the stretch where the density lives, numerically: no Bessel functions, whose orders and
arguments overflow in hundreds of dimensions.
"""

from __future__ import annotations

import dataclasses
import math
from functools import lru_cache

import numpy as np
from scipy.special import gammaln

__all__ = ["AngleLaw", "angle_law", "orthogonal_directions", "uniform_directions"]

_NODES = 400
_GRID = 4096
_REACH = 14.0  # standard deviations of the angle beyond which nothing is left


def uniform_directions(n: int, d: int, rng: np.random.Generator) -> np.ndarray:
    """Directions drawn evenly from the unit sphere, shape (n, d)."""
    directions = rng.standard_normal((n, d))
    length = np.linalg.norm(directions, axis=1, keepdims=True)
    directions[length[:, 0] == 0, 0] = 1.0
    return directions / np.where(length > 0, length, 1.0)


def orthogonal_directions(location: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Directions drawn evenly among those orthogonal to one, shape (n, d), d at least 2."""
    directions = rng.standard_normal((n, len(location)))
    for _ in range(2):  # once more against rounding
        directions -= np.outer(directions @ location, location)
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return directions


@dataclasses.dataclass(frozen=True)
class AngleLaw:
    """The law of the angle phi to the location of a von Mises-Fisher law.

    Attributes
    ----------
    log_normaliser
        log Z(kappa).
    mean_cosine, cosine_variance
        A(kappa) and its derivative.
    kl
        KL(rho || uniform) in nats.
    """

    d: int
    kappa: float
    log_normaliser: float
    mean_cosine: float
    cosine_variance: float
    kl: float

    def angles(self, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Phi = F^-1(u) and its derivative by kappa."""
        low, high = _stretch(self.d, self.kappa)
        phi = np.linspace(low, high, _GRID + 1)
        density = np.exp(_exponent(phi, self.d, self.kappa))
        slope = (np.cos(phi) - self.mean_cosine) * density
        step = phi[1] - phi[0]
        below, changed = (
            np.concatenate([[0.0], np.cumsum(0.5 * step * (f[1:] + f[:-1]))])
            for f in (density, slope)
        )
        changed -= changed[-1] * below / below[-1]  # what the trapezoids leave over
        at = np.interp(u * below[-1], below, phi)
        dense = np.maximum(np.interp(at, phi, density), 1e-290)
        return at, -np.interp(at, phi, changed) / dense


def _exponent(phi: np.ndarray, d: int, kappa: float) -> np.ndarray:
    """Log density of the angle up to a constant; 0 at its mode."""
    with np.errstate(divide="ignore"):
        sine = np.log(np.sin(phi)) if d > 2 else np.zeros_like(phi)
    value = kappa * np.cos(phi) + (d - 2) * sine
    mode = _mode(d, kappa)
    top = kappa * math.cos(mode) + ((d - 2) * math.log(math.sin(mode)) if d > 2 else 0.0)
    return np.maximum(value - top, -700.0)


def _mode(d: int, kappa: float) -> float:
    if d == 2:
        return 0.0
    half = (d - 2) / 2
    return math.acos(min(kappa / (half + math.hypot(half, kappa)), 1.0 - 1e-16))


def _stretch(d: int, kappa: float) -> tuple[float, float]:
    mode = _mode(d, kappa)
    bend = kappa * math.cos(mode) + ((d - 2) / math.sin(mode) ** 2 if d > 2 else 0.0)
    width = _REACH / math.sqrt(bend) if bend > 0 else math.pi
    return max(0.0, mode - width), min(math.pi, mode + width)


@lru_cache(maxsize=1)
def _nodes() -> tuple[np.ndarray, np.ndarray]:
    return np.polynomial.legendre.leggauss(_NODES)


def angle_law(d: int, kappa: float) -> AngleLaw:
    """The law of the angle in d >= 2 dimensions at concentration kappa >= 0."""
    nodes, weights = _nodes()
    low, high = _stretch(d, kappa)
    half = (high - low) / 2
    phi = low + half * (nodes + 1)
    exponent = _exponent(phi, d, kappa)
    density = weights * np.exp(exponent)
    total = float(density.sum())
    cosine = np.cos(phi)
    mean = float(density @ cosine) / total
    variance = float(density @ (cosine - mean) ** 2) / total
    mode = _mode(d, kappa)
    top = kappa * math.cos(mode) + ((d - 2) * math.log(math.sin(mode)) if d > 2 else 0.0)
    log_uniform = 0.5 * math.log(math.pi) + float(gammaln((d - 1) / 2) - gammaln(d / 2))
    log_normaliser = top + math.log(half * total) - log_uniform
    return AngleLaw(
        d, kappa, log_normaliser, mean, variance, max(kappa * mean - log_normaliser, 0.0)
    )
