"""Null laws that have no name in scipy.special.

- `weighted_chi2_tail`: P(sum_j lambda_j chi2_1 > t), the limit of every statistic that is a
  quadratic form in the difference of two empirical distribution functions. Smirnov's formula

      P(Q > t) = 1/pi sum_k (-1)^(k+1) int_{u_(2k-1)}^{u_(2k)} exp(-t u / 2) / (u |D(u)|^(1/2)) du

  with D(u) = prod_j (1 - lambda_j u) and its zeros u_1 < u_2 < ... (all simple here). It keeps its
  relative accuracy far into the tail, where a numerical inversion of the characteristic function
  has none.
- `noncentrality_bound`: the noncentrality at which a noncentral chi-square would put a given
  probability below what was seen.
- `two_by_two_pvalue`: the exact permutation law of a 2 x 2 table with fixed margins.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy import special

__all__ = [
    "SMALLEST",
    "cell_eigenvalues",
    "continuous_tail",
    "noncentrality_bound",
    "two_by_two_pvalue",
    "weighted_chi2_tail",
]

SMALLEST = float(np.finfo(np.float64).tiny)  # a p-value that underflows is this, never 0


def _log_det_ad(u: np.ndarray) -> np.ndarray:
    return np.log(np.abs(np.cos(0.5 * np.pi * np.sqrt(1 + 4 * u))) / (np.pi * u))


def _log_det_cvm(u: np.ndarray) -> np.ndarray:
    root = np.sqrt(u)
    return np.log(np.abs(np.sin(root)) / root)


_J = np.arange(1.0, 81.0)
# statistic -> (zeros of the Fredholm determinant, log of its absolute value)
_CONTINUOUS: dict[str, tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]] = {
    "ad": (_J * (_J + 1), _log_det_ad),
    "cvm": (np.pi**2 * _J**2, _log_det_cvm),
}


def _smirnov(
    t: float, zeros: np.ndarray, log_det: Callable[[np.ndarray], np.ndarray], complete: bool
) -> float:
    """Smirnov's sum; ``complete`` says that ``zeros`` are all there are."""
    if t <= 0:
        return 1.0
    first = float(zeros[0])
    if 0.5 * t * first > 700:
        return SMALLEST
    # intervals beyond 40 nats of the first one are below rounding
    pairs = min(len(zeros) // 2, 40)
    reach = first + 80.0 / t
    pairs = max(1, min(pairs, int(np.searchsorted(zeros[0 : 2 * pairs : 2], reach))))
    pairs = min(pairs, len(zeros) // 2)
    total = 0.0
    if pairs:
        left, right = zeros[0 : 2 * pairs : 2], zeros[1 : 2 * pairs : 2]
        centre, radius = 0.5 * (left + right), 0.5 * (right - left)
        order = 48 + int(6 * math.sqrt(t * float(radius[0])))
        theta = (np.arange(order) + 0.5) * (np.pi / order)
        u = centre[:, None] - radius[:, None] * np.cos(theta)[None, :]
        log_f = -0.5 * t * (u - first) - np.log(u) - 0.5 * log_det(u)
        values = np.exp(log_f) * radius[:, None] * np.sin(theta)[None, :]
        signs = np.where(np.arange(pairs) % 2 == 0, 1.0, -1.0)
        total += float(np.sum(signs * values.sum(axis=1))) / order
    if complete and len(zeros) % 2 == 1 and 2 * pairs == len(zeros) - 1:
        # the last interval runs to infinity: u = last + v^2 makes the integrand even and smooth
        last = float(zeros[-1])
        points = 400
        step = math.sqrt(80.0 / t) / points
        v = (np.arange(points) + 0.5) * step
        u = last + v**2
        log_f = -0.5 * t * (u - first) - np.log(u) - 0.5 * log_det(u)
        sign = 1.0 if pairs % 2 == 0 else -1.0
        total += sign * float(np.sum(np.exp(log_f) * 2 * v)) * step / np.pi
    return min(1.0, max(SMALLEST, total * math.exp(-0.5 * t * first)))


def continuous_tail(t: float, statistic: str) -> float:
    """P(statistic > t) under q = p for continuous data; ``statistic`` is "ad" or "cvm"."""
    zeros, log_det = _CONTINUOUS[statistic]
    return _smirnov(t, zeros, log_det, complete=False)


def weighted_chi2_tail(t: float, eigenvalues: np.ndarray) -> float:
    """P(sum_j eigenvalues_j chi2_1 > t) for distinct positive eigenvalues."""
    lam = np.sort(np.asarray(eigenvalues, dtype=np.float64))[::-1]
    lam = lam[lam > 1e-12 * lam[0]]

    def log_det(u: np.ndarray) -> np.ndarray:
        return np.log(np.abs(1 - u[..., None] * lam)).sum(axis=-1)

    return _smirnov(t, 1 / lam, log_det, complete=True)


def cell_eigenvalues(h: np.ndarray, mass: np.ndarray, statistic: str) -> np.ndarray:
    """Eigenvalues of the limit law of a statistic on tied values.

    ``h`` are the pooled distribution function's values strictly inside (0, 1) and ``mass`` the
    pooled mass that each carries; the limit process is a Brownian bridge seen at ``h``.
    """
    low, high = np.minimum.outer(h, h), np.maximum.outer(h, h)
    covariance = low * (1 - high)
    scale = np.sqrt(mass / (h * (1 - h))) if statistic == "ad" else np.sqrt(mass)
    return np.linalg.eigvalsh(covariance * np.outer(scale, scale))


def noncentrality_bound(x: float, df: float, probability: float) -> float:
    """The noncentrality nc with P(chi2_df(nc) <= x) = ``probability``; 0 where none is as small."""
    if x <= 0 or special.gammainc(0.5 * df, 0.5 * x) <= probability:
        return 0.0
    low, high = 0.0, x + 10 * math.sqrt(2 * (df + 2 * x)) + 40
    for _ in range(80):
        middle = 0.5 * (low + high)
        if _noncentral_cdf(x, df, middle) > probability:
            low = middle
        else:
            high = middle
        if high - low <= 1e-9 * (1 + high):
            break
    return 0.5 * (low + high)


def _noncentral_cdf(x: float, df: float, nc: float) -> float:
    if nc < 2000:
        return float(special.chndtr(x, df, nc))
    # Sankaran's power transformation, better than 1e-5 at this size
    mean, second = df + nc, df + 2 * nc
    h = 1 - 2 * mean * (df + 3 * nc) / (3 * second**2)
    p = second / mean**2
    m = (h - 1) * (1 - 3 * h)
    centre = 1 + h * p * (h - 1 - 0.5 * (2 - h) * m * p)
    spread = h * math.sqrt(2 * p) * (1 + 0.5 * m * p)
    return float(special.ndtr(((x / mean) ** h - centre) / spread))


def two_by_two_pvalue(a: int, n: int, m: int, c: int) -> float:
    """P(abs(A - E A) >= abs(a - E A)), A hypergeometric: n of n + m rows drawn, ``c`` marked.

    Exact for every size, since the chi-square statistic of a 2 x 2 table grows with the distance
    of one cell from its mean. Distances within 1e-9 count as equal.
    """
    total = n + m
    low, high = max(0, c - m), min(c, n)
    if low == high:
        return 1.0
    mean = n * c / total
    distance = abs(a - mean) * (1 - 1e-9)
    sd = math.sqrt(max(mean * (1 - c / total) * m / max(total - 1, 1), 1e-12))
    span = int(40 * sd) + 60  # beyond that the terms are below rounding of the first ones

    def tail(start: int, stop: int) -> float:
        if start > stop:
            return 0.0
        x = np.arange(start, stop + 1, dtype=np.float64)
        log_pmf = (
            special.gammaln(c + 1) - special.gammaln(x + 1) - special.gammaln(c - x + 1)
            + special.gammaln(total - c + 1)
            - special.gammaln(n - x + 1) - special.gammaln(total - c - n + x + 1)
            - special.gammaln(total + 1) + special.gammaln(n + 1) + special.gammaln(m + 1)
        )  # fmt: skip
        return float(np.exp(log_pmf).sum())

    upper, lower = math.ceil(mean + distance), math.floor(mean - distance)
    if upper <= lower + 1:  # every point of the support is as far
        return 1.0
    above = tail(max(upper, low), min(high, upper + span))
    below = tail(max(low, lower - span), min(lower, high))
    return min(1.0, max(SMALLEST, above + below))
