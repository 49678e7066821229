"""One pass over two sorted samples, for everything that is read off two distribution functions."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

__all__ = ["Sweep", "sweep"]

_BLOCK = 1 << 12  # values of each side in one step of the sweep: temporaries stay in cache
_FEW = 256  # up to so many distinct values are kept one by one


@dataclasses.dataclass(frozen=True)
class Sweep:
    """Everything that one pass over two sorted samples gives.

    ``heavy_*`` are the distinct values that carry at least 1 / 256 of the pooled rows each, and
    all distinct values where there are at most 256 of them (``few``).
    """

    n: int
    m: int
    ks: float
    ad: float
    cvm: float
    w1: float
    few: bool
    heavy_values: np.ndarray
    heavy_q: np.ndarray  # rows of q at the value
    heavy_p: np.ndarray
    heavy_below: np.ndarray  # pooled rows up to and including the value

    def statistic(self, test: str) -> float:
        return {"ks": self.ks, "ad": self.ad, "cvm": self.cvm}[test]


def _blocks(s: np.ndarray, t: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Distinct pooled values with the counts of q and p up to them, block by block."""
    i = j = 0
    n, m = len(s), len(t)
    while i < n or j < m:
        ends = []
        if i < n:
            ends.append(s[min(i + _BLOCK, n) - 1])
        if j < m:
            ends.append(t[min(j + _BLOCK, m) - 1])
        # the smaller end keeps both parts within a block, up to ties
        last_block = i + _BLOCK >= n and j + _BLOCK >= m
        end = max(ends) if last_block else min(ends)
        next_i = i + int(np.searchsorted(s[i:], end, side="right"))
        next_j = j + int(np.searchsorted(t[j:], end, side="right"))
        part = np.concatenate([s[i:next_i], t[j:next_j]])
        order = np.argsort(part, kind="stable")  # merges two sorted runs: linear
        pooled = part[order]
        where = np.flatnonzero(pooled[1:] != pooled[:-1])
        where = np.append(where, len(part) - 1)  # the last of each run of equal values
        upto_q = np.cumsum(order < next_i - i, dtype=np.int32)[where].astype(np.int64)
        yield pooled[where], upto_q + i, where + 1 - upto_q + j
        i, j = next_i, next_j


def _increments(upto: np.ndarray, before: int) -> np.ndarray:
    out = np.empty_like(upto)
    out[0] = upto[0] - before
    np.subtract(upto[1:], upto[:-1], out=out[1:])
    return out


def sweep(s: np.ndarray, t: np.ndarray) -> Sweep:
    """All one-dimensional statistics of two sorted samples in one pass.

    The pass goes in blocks of pooled order, so that memory beside the samples is bounded; block
    boundaries depend on the data only.
    """
    n, m = len(s), len(t)
    total = n + m
    ks = ad = cvm = w1 = 0.0
    distinct = 0
    previous_value: float | None = None
    previous_gap = 0.0
    below = 0
    kept: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = []
    before_q = before_p = 0
    for values, upto_q, upto_p in _blocks(s, t):
        gap = np.abs(upto_q * (1.0 / n) - upto_p * (1.0 / m))
        upto = upto_q + upto_p
        count = _increments(upto, below)
        h = upto * (1.0 / total)
        squared = gap * gap * (count * (1.0 / total))
        ks = max(ks, float(gap.max()))
        cvm += float(squared.sum())
        inner = slice(None, -1) if upto[-1] == total else slice(None)  # H = 1 at the last value
        ad += float((squared[inner] / (h * (1 - h))[inner]).sum())
        steps = np.diff(values).astype(np.float64)
        if previous_value is not None:
            w1 += previous_gap * float(values[0] - previous_value)
        w1 += float(np.einsum("i,i->", gap[:-1], steps))
        previous_value, previous_gap = values[-1], float(gap[-1])
        heavy = (
            np.arange(len(values))
            if distinct + len(values) <= _FEW
            else np.flatnonzero(count * _FEW >= total)
        )
        if len(heavy):
            here_q = _increments(upto_q, before_q)[heavy]
            here_p = _increments(upto_p, before_p)[heavy]
            kept.append((values[heavy], here_q, here_p, upto[heavy]))
        distinct += len(values)
        below, before_q, before_p = int(upto[-1]), int(upto_q[-1]), int(upto_p[-1])
    few = distinct <= _FEW
    none = np.zeros(0, dtype=np.int64)
    kept.append((s[:0], none, none, none))
    parts = [np.concatenate(column) for column in zip(*kept, strict=True)]
    if not few:
        heavy = (parts[1] + parts[2]) * _FEW >= total
        parts = [part[heavy] for part in parts]
    factor = n * m / total
    return Sweep(n, m, ks, factor * ad, factor * cvm, w1, few, *parts)
