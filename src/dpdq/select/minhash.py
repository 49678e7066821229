"""MinHash in bands: keys that near-duplicate texts share, and their exact similarity.

A shingle is a run of n tokens of a text; x is its mixed 64-bit hash, of which 32 bits order the
shingles. The i-th minimum of a text is min over its shingles of a_i x + b_i mod 2^32, a_i odd: for
each i a new order of the same random numbers, so that the minima of two texts agree with
probability J, their Jaccard similarity. r minima make a band's key, b bands a row's keys.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from dpdq._random import mix64
from dpdq.data.hashing import text_hashes
from dpdq.data.sources import Source
from dpdq.errors import OptionError
from dpdq.passes import Pass
from dpdq.select._grams import Grams, gram_blocks
from dpdq.select.ngrams import joined_text

__all__ = ["band_curve"]

_NEXT = np.uint64(0x9FB21C651E98DF25)
_NEIGHBOURS = 32  # rows of one band that each row is compared with
_TOKENS_AT_ONCE = 4_194_304  # of candidate texts whose shingles are in memory
_RECALL = 0.99  # least share of pairs at the threshold that the bands find


def band_curve(similarity: np.ndarray | float, bands: int, band_rows: int) -> np.ndarray:
    """Probability that two texts share a band, by their Jaccard similarity.

        P(J) = 1 - (1 - J^r)^b

    Parameters
    ----------
    similarity
        J, any shape.
    bands, band_rows
        b and r.

    Returns
    -------
    ndarray
        P, the shape of ``similarity``.

    Notes
    -----
    Cost: O(n) time, O(n) memory.
    Held by: tests/select/test_duplicates.py::test_bands_find_pairs_at_the_stated_rate

    References
    ----------
    .. [Leskovec2014] Mining of Massive Datasets. Leskovec, 2014, Cambridge University Press.

    Examples
    --------
    >>> band_curve([0.3, 0.6, 0.8], bands=21, band_rows=6).round(3)
    array([0.015, 0.633, 0.998])
    """
    share = np.asarray(similarity, dtype=np.float64)
    return 1.0 - (1.0 - share**band_rows) ** bands


def rows_of_band(threshold: float, n_hashes: int) -> int:
    if not 1 <= n_hashes <= 1024:
        raise OptionError(f"n_hashes is {n_hashes}; expected 1 to 1,024")
    for rows in range(min(n_hashes, 32), 0, -1):
        if band_curve(threshold, n_hashes // rows, rows) >= _RECALL:
            return rows
    raise OptionError(
        f"{n_hashes} hashes find less than 99 % of pairs at threshold {threshold}; "
        "give more hashes or a higher threshold"
    )


class BandKeys(
    Pass[list[tuple[np.ndarray, ...]], tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]
):
    """Of every row a key a band, a hash of its text, its bytes and its tokens."""

    def __init__(self, columns: list[str], n: int, bands: int, band_rows: int) -> None:
        self.columns, self.n, self.bands, self.band_rows = columns, n, bands, band_rows

    def init(self) -> list[tuple[np.ndarray, ...]]:
        return []

    def map(
        self, state: list[tuple[np.ndarray, ...]], batch: pa.RecordBatch, first_row: int
    ) -> list[tuple[np.ndarray, ...]]:
        text = filled(joined_text(batch, self.columns or []))
        if not self.bands:
            keys = np.zeros((len(text), 0), dtype=np.uint64)
            tokens = np.zeros(len(text), dtype=np.int64)
        else:
            parts = [
                (_band_keys(grams, self.n, self.bands, self.band_rows), np.diff(grams.starts))
                for grams in gram_blocks(text, 1, 63)
            ]
            keys = np.concatenate([part[0] for part in parts])
            tokens = np.concatenate([part[1] for part in parts])
        import pyarrow.compute as pc

        length: Any = vars(pc)["binary_length"]
        state.append((keys, text_hashes(text), length(text).to_numpy(), tokens))
        return state

    def merge(
        self, left: list[tuple[np.ndarray, ...]], right: list[tuple[np.ndarray, ...]]
    ) -> list[tuple[np.ndarray, ...]]:
        return left + right

    def finish(
        self, state: list[tuple[np.ndarray, ...]]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        if not state:
            empty = np.zeros(0, dtype=np.int64)
            return np.zeros((0, self.bands), np.uint64), empty.astype(np.uint64), empty, empty
        keys, content, sizes, tokens = (np.concatenate(part) for part in zip(*state, strict=True))
        return keys, content, sizes, tokens


def filled(text: Any) -> Any:
    """Missing texts as empty ones."""
    return text.fill_null("") if text.null_count else text


def shingles(grams: Grams, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of the runs of n tokens of each text, and where each text's begin: (n_texts + 1,).

    A text of fewer tokens is one run of them all; one without tokens has none.
    """
    tokens = grams.buckets[0].astype(np.uint64)
    starts = grams.starts
    counts = np.diff(starts)
    runs = tokens.copy()
    reach = len(tokens)
    for step in range(1, n):
        reach = max(len(tokens) - step, 0)
        runs[:reach] = runs[:reach] * _NEXT + tokens[step : step + reach]
    whole = np.arange(len(tokens)) + n <= np.repeat(starts[1:], counts)
    short = np.flatnonzero((counts > 0) & (counts < n))
    state = np.zeros(len(short), dtype=np.uint64)
    for step in range(n - 1):
        inside = step < counts[short]
        state[inside] = state[inside] * _NEXT + tokens[starts[short[inside]] + step]
    runs[starts[short]] = state ^ counts[short].astype(np.uint64)
    whole[starts[short]] = True
    sizes = np.where(counts >= n, counts - n + 1, (counts > 0).astype(np.int64))
    return mix64(runs[whole]), np.concatenate([[0], np.cumsum(sizes)])


def _band_keys(grams: Grams, n: int, bands: int, band_rows: int) -> np.ndarray:
    values, starts = shingles(grams, n)
    some = np.flatnonzero(np.diff(starts))
    keys = np.zeros((len(starts) - 1, bands), dtype=np.uint64)
    if not len(some):
        return keys
    # x is a mixed hash; odd multiples and offsets of it modulo 2^32 order the shingles anew.
    x = (values >> np.uint64(32)).astype(np.uint32)
    draws = mix64(np.arange(1, 2 * bands * band_rows + 1, dtype=np.uint64) * _NEXT)
    draws = draws.astype(np.uint32).reshape(2, -1)
    factors, offsets = draws[0] | np.uint32(1), draws[1]
    buffer = np.empty_like(x)
    firsts = starts[some]
    for band in range(bands):
        key = np.full(len(some), band, dtype=np.uint64)
        for row in range(band * band_rows, (band + 1) * band_rows):
            np.multiply(x, factors[row], out=buffer)
            buffer += offsets[row]
            key = mix64(key * _NEXT + np.minimum.reduceat(buffer, firsts))
        keys[some, band] = key
    return keys


def candidates(keys: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of rows that share a band, the smaller row first, in order."""
    n = len(keys)
    found = [np.zeros(0, dtype=np.int64)]
    for band in range(keys.shape[1]):
        own = keys[rows, band]
        order = np.argsort(own, kind="stable")
        ordered, place = own[order], rows[order]
        for apart in range(1, _NEIGHBOURS + 1):
            same = np.flatnonzero(ordered[apart:] == ordered[:-apart])
            if not len(same):
                break
            found.append(place[same] * n + place[same + apart])
    codes = np.unique(np.concatenate(found))
    return codes // max(n, 1), codes % max(n, 1)


def pair_blocks(tokens: np.ndarray) -> Iterator[slice]:
    """Runs of pairs whose texts fit in memory together."""
    total = np.concatenate([[0], np.cumsum(tokens)])
    first = 0
    while first < len(tokens):
        last = int(np.searchsorted(total, total[first] + _TOKENS_AT_ONCE, side="right")) - 1
        last = max(last, first + 1)
        yield slice(first, last)
        first = last


def jaccard(
    source: Source, names: list[str], n: int, left: np.ndarray, right: np.ndarray
) -> np.ndarray:
    """Jaccard similarity of the shingles of pairs of rows."""
    rows = np.unique(np.concatenate([left, right]))
    values, sizes = [], []
    for batch in source.take(rows, names).to_batches():
        for grams in gram_blocks(filled(joined_text(batch, names)), 1, 63):
            runs, starts = shingles(grams, n)
            values.append(runs)
            sizes.append(np.diff(starts))
    _, codes = np.unique(np.concatenate(values), return_inverse=True)
    counts = np.concatenate(sizes)
    # One entry a row and shingle: a set, not a bag.
    width = int(codes.max(initial=0)) + 1
    entries = np.unique(np.repeat(np.arange(len(rows)), counts) * width + codes)
    owner, codes = entries // width, entries % width
    starts = np.searchsorted(owner, np.arange(len(rows) + 1))
    both = np.zeros(len(left), dtype=np.int64)
    total = np.zeros(len(left), dtype=np.int64)
    parts = []
    for side in (left, right):
        at = np.searchsorted(rows, side)
        size = starts[at + 1] - starts[at]
        total += size
        pair = np.repeat(np.arange(len(side)), size)
        within = np.arange(size.sum()) - np.repeat(np.cumsum(size) - size, size)
        parts.append(pair * width + codes[np.repeat(starts[at], size) + within])
    joined = np.sort(np.concatenate(parts))
    twice = joined[1:][joined[1:] == joined[:-1]] // width
    both += np.bincount(twice, minlength=len(left))
    return both / (total - both)
