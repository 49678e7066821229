"""Three ways to draw places in proportion to shares, with replacement and ascending.

All give place i ``n share_i`` draws on average; they differ in how far the count strays from that:
systematic by less than one, residual on the fraction only, multinomial as independent draws do.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

__all__ = ["RESAMPLING"]


def _places(shares: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Where ascending points of [0, 1) fall among intervals of these lengths."""
    ends = np.cumsum(shares)
    places = np.searchsorted(ends, points * ends[-1], side="right")
    return np.minimum(places, np.flatnonzero(shares > 0)[-1])


def _systematic(shares: np.ndarray, n: int, generator: np.random.Generator) -> np.ndarray:
    return _places(shares, (np.arange(n) + generator.uniform()) / n)


def _multinomial(shares: np.ndarray, n: int, generator: np.random.Generator) -> np.ndarray:
    return _places(shares, np.sort(generator.uniform(size=n)))


def _residual(shares: np.ndarray, n: int, generator: np.random.Generator) -> np.ndarray:
    expected = shares * (n / shares.sum())
    whole = np.floor(expected)
    certain = np.repeat(np.arange(shares.size), whole.astype(np.int64))
    rest = n - certain.size
    if rest <= 0:  # rounding may have made the last fraction whole
        return certain[:n]
    return np.sort(np.concatenate([certain, _multinomial(expected - whole, rest, generator)]))


RESAMPLING: dict[str, Callable[[np.ndarray, int, np.random.Generator], np.ndarray]] = {
    "systematic": _systematic,
    "multinomial": _multinomial,
    "residual": _residual,
}
