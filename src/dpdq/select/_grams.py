"""Hashed n-grams of texts, whole blocks at a time.

A text is cut into words (runs of letters, digits, underscores and bytes beyond ASCII) and runs of
other marks; ASCII letters count as lower case. With x_j the bytes of a token and B odd,

    h(token) = sum_j (x_j + 1) B^j  mod 2^64

is a difference of two cumulative sums over the block, times a power of the inverse of B: no loop
over tokens. An n-gram hashes its tokens' hashes in order. A bucket is the top bits of the mixed
hash. Equal texts have equal buckets in every process and on every machine.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from dpdq._random import mix64

__all__ = ["Grams", "gram_blocks"]

_BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2^64
_INVERSE = pow(_BASE, -1, 2**64)
_NEXT = np.uint64(0xC2B2AE3D27D4EB4F)
_BLOCK_BYTES = 262_144

_KIND = np.full(256, 2, dtype=np.uint8)  # 0 space, 1 word, 2 other marks
_KIND[:33] = 0
_KIND[127] = 0
_KIND[128:] = 1
for _first, _last in (("0", "9"), ("A", "Z"), ("a", "z"), ("_", "_")):
    _KIND[ord(_first) : ord(_last) + 1] = 1
_LOWER = np.arange(256, dtype=np.uint64)
_LOWER[ord("A") : ord("Z") + 1] += np.uint64(32)
_LOWER += np.uint64(1)


class _Powers:
    """B^j and B^-j, j = 0, 1, ..., as far as they were needed."""

    def __init__(self) -> None:
        self.up, self.down = _geometric(_BASE, 1), _geometric(_INVERSE, 1)

    def upto(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        if len(self.up) < n:
            self.up, self.down = _geometric(_BASE, n), _geometric(_INVERSE, n)
        return self.up[:n], self.down[:n]


def _geometric(ratio: int, n: int) -> np.ndarray:
    out = np.full(n, ratio, dtype=np.uint64)
    out[0] = 1
    return np.cumprod(out)


@dataclasses.dataclass(frozen=True)
class Grams:
    """The n-grams of some texts.

    Attributes
    ----------
    buckets
        Bucket of each n-gram that starts at each token, one array an order: 1-grams, 2-grams, ...
        An n-gram that would run over the end of its text has bucket -1.
    starts
        First token of each text, and the number of tokens: shape (n + 1,).
    sizes
        Bytes of each text, shape (n,).
    """

    buckets: list[np.ndarray]
    starts: np.ndarray
    sizes: np.ndarray

    @property
    def n_grams(self) -> np.ndarray:
        """Number of n-grams of each text, all orders together."""
        tokens = np.diff(self.starts)
        return sum((np.maximum(tokens - k, 0) for k in range(len(self.buckets))), np.zeros(1, int))

    def sums(self, table: np.ndarray) -> np.ndarray:
        """Sum of ``table[bucket]`` over the n-grams of each text, shape (n,)."""
        values = np.zeros(int(self.starts[-1]) + 1)
        longer = np.append(table, 0.0)  # bucket -1 counts nothing
        for each in self.buckets:
            values[1:] += longer[each]
        np.cumsum(values, out=values)
        return values[self.starts[1:]] - values[self.starts[:-1]]

    def counts(self, n_buckets: int) -> np.ndarray:
        """Number of n-grams in each bucket."""
        return sum(
            (np.bincount(each + 1, minlength=n_buckets + 1)[1:] for each in self.buckets),
            np.zeros(n_buckets, dtype=np.int64),
        )


def gram_blocks(texts: pa.Array, orders: int, bits: int) -> Iterator[Grams]:
    """The n-grams of texts, in blocks of about 256 KiB of whole texts.

    Parameters
    ----------
    texts
        Strings; a missing one has no n-grams.
    orders
        Longest n-gram, in tokens.
    bits
        Logarithm to base 2 of the number of buckets.
    """
    array: Any = texts.cast(pa.large_string()) if texts.type != pa.large_string() else texts
    if array.null_count:
        array = array.fill_null("")
    n = len(array)
    if n == 0:
        return
    _, offsets, data = array.buffers()
    bounds = np.frombuffer(offsets, dtype=np.int64)[array.offset : array.offset + n + 1]
    raw = np.frombuffer(data, dtype=np.uint8) if data is not None else np.zeros(0, np.uint8)
    powers = _Powers()
    first = 0
    while first < n:
        last = int(np.searchsorted(bounds, bounds[first] + _BLOCK_BYTES, side="right")) - 1
        last = min(max(last, first + 1), n)
        yield _block(raw, bounds[first : last + 1], orders, bits, powers)
        first = last


def _block(raw: np.ndarray, bounds: np.ndarray, orders: int, bits: int, powers: _Powers) -> Grams:
    base = bounds[0]
    text = raw[base : bounds[-1]]
    ends_of_texts = bounds - base
    sizes = np.diff(bounds)
    kind = _KIND[text]
    fresh = np.empty(len(text) + 1, dtype=bool)  # whether a token or a space begins here
    fresh[0] = fresh[-1] = True
    np.not_equal(kind[1:], kind[:-1], out=fresh[1:-1])
    fresh[ends_of_texts] = True
    is_token = kind != 0
    begin = np.flatnonzero(fresh[:-1] & is_token)
    end = np.flatnonzero(fresh[1:] & is_token) + 1
    up, down = powers.upto(len(text) + 1)
    sums = np.zeros(len(text) + 1, dtype=np.uint64)
    np.cumsum(_LOWER[text] * up[: len(text)], out=sums[1:])
    tokens = mix64((sums[end] - sums[begin]) * down[begin])
    starts = np.searchsorted(begin, ends_of_texts)
    shift = np.uint64(64 - bits)
    buckets = [(mix64(tokens) >> shift).astype(np.int64)]
    joined = tokens
    lasts = np.repeat(starts[1:], np.diff(starts))  # one behind the last token of its text
    place = np.arange(len(tokens))
    for order in range(1, orders):
        joined = joined[:-1] * _NEXT + tokens[order:]
        own = np.full(len(tokens), -1, dtype=np.int64)
        own[: len(joined)] = (mix64(joined) >> shift).astype(np.int64)
        own[place + order >= lasts] = -1
        buckets.append(own)
    return Grams(buckets, starts, sizes)
