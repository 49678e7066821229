"""Passages of at least N bytes that two rows share, whatever stands around them.

Near-duplicates are alike as wholes; a licence in front of a thousand files, or a test question
inside a long page, is not. Two texts share a passage of N bytes when a window of N bytes of one
equals a window of the other. Every window of a text has the hash

    h(i) = sum_j (x_{i+j} + 1) B^j  mod 2^64,  j = 0 .. N - 1,

a difference of two cumulative sums, so all windows of a block cost a few additions a byte.

The pool has as many windows as bytes, too many to keep. Two walks bound the memory: the first marks
hashes in a table of 2^bits bits and, in a second table, those seen before; the second walk keeps
only windows whose bit was seen twice. A window that occurs twice is never lost; one that occurs
once survives where another hash has its bit, which costs memory, not truth, since the survivors are
sorted by their whole hash. Tables of parts of the pool are merged exactly.

What the definition does not fix: N. Fifty bytes are a common phrase, a table's rule or a line of
boilerplate; the literature uses 50 tokens, about 200 bytes. Bytes are compared as they are, so a
change of case or of a space ends a passage.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from dpdq._random import mix64
from dpdq.data.sources import Source
from dpdq.engine import Engine
from dpdq.errors import OptionError
from dpdq.passes import Pass
from dpdq.select.duplicates import (
    PASSAGE,
    Duplicates,
    as_pool,
    clusters,
    scores_of,
    twins,
)
from dpdq.select.minhash import BandKeys, filled
from dpdq.select.ngrams import joined_text, text_columns

__all__ = ["shared_passages"]

_BASE = 0x9E3779B97F4A7C15  # odd: it has an inverse modulo 2^64
_BLOCK_BYTES = 1_048_576


def shared_passages(
    pool: Any,
    *,
    n_bytes: int = 200,
    keep: str = "first",
    scores: Any = None,
    bits: int = 28,
    columns: Sequence[str] | None = None,
    engine: Engine | None = None,
) -> Duplicates:
    """Find rows that share a passage of at least ``n_bytes`` bytes, and keep one of each cluster.

        joined: some window of n_bytes bytes stands in both texts

    One long licence joins all files that carry it into one cluster: look at the largest clusters
    before dropping anything, and cut such heads off first. Nothing is cut out of a text here.

    Parameters
    ----------
    pool
        Texts, or whatever `dpdq.data.open_source` reads; read twice, never in memory as a whole.
    n_bytes
        N, at least 16.
    keep
        Of each cluster the ``"first"`` row, the ``"longest"`` text, or the one with the best
        ``"score"``.
    scores
        With ``keep="score"``: a number a row, larger is better.
    bits
        Logarithm to base 2 of the bits of each table: 28 makes two tables of 32 MiB, right for
        pools up to a few hundred MB; add 3 for ten times as much.
    columns
        Columns of text, joined by line breaks; by default ``text``,
        ``content``, ``document`` or ``body``, else all of text.
    engine
        Where the two passes over the pool run.

    Returns
    -------
    Duplicates
        The rows kept, and of every row its cluster and reason.

    Raises
    ------
    OptionError
        n_bytes below 16, bits outside 16 to 36, an unknown rule.
    DataError
        No column of text, or scores of a wrong length.

    Notes
    -----
    Cost: O(bytes) time (about 60 ns a byte), 2^(bits - 2) bytes, and 16 bytes for each distinct
    window of a row that is shared, or taken for shared: a share bytes / 2^bits of all windows.
    Rows of equal text are walked over once. Wrong joins have probability bytes^2 / 2^65, 5e-5 at
    40 MB; text written to collide (Thue and Morse's words, from 1,024 bytes) can be joined wrongly.
    Held by: tests/select/test_duplicates.py::test_shared_passages_equal_brute_force

    References
    ----------
    .. [Lee2022] Deduplicating Training Data Makes Language Models Better. Lee, 2022, ACL.

    Examples
    --------
    >>> line = "Permission is hereby granted, free of charge, to any person"
    >>> found = shared_passages(["one: " + line, "two", line + ", and more"], n_bytes=40)
    >>> found.cluster.tolist()
    [0, 1, 0]
    """
    if keep not in ("first", "longest", "score"):
        raise OptionError(f"Unknown keep {keep!r}. Choose one of 'first', 'longest', 'score'.")
    check_window(n_bytes)
    if not 16 <= bits <= 36:
        raise OptionError(f"bits is {bits}; expected 16 to 36")
    source = as_pool(pool)
    names = text_columns(source, columns)
    where = engine or Engine()
    _, content, sizes, _ = where.run(BandKeys(names, 1, 0, 0), source)
    left, right = passage_links(source, names, content, n_bytes, bits, where)
    nothing = np.full(len(content), np.nan)
    links = [(PASSAGE, left, right)]
    best = scores_of(scores, keep, len(content))
    return clusters(twins(content), links, sizes, nothing, keep, best)


def passage_links(
    source: Source, names: list[str], content: np.ndarray, n_bytes: int, bits: int, engine: Engine
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of rows that share a passage; of rows with equal content only the first."""
    check_window(n_bytes)
    skip = np.flatnonzero(twins(content) != np.arange(len(content)))
    twice = engine.run(SeenTwice(names, n_bytes, bits, skip), source)
    return engine.run(SharedWindows(names, n_bytes, bits, skip, twice), source)


def check_window(n_bytes: int) -> None:
    """Refuse windows too short to mean anything."""
    if not 16 <= n_bytes <= 65_536:
        raise OptionError(f"n_bytes is {n_bytes}; expected 16 to 65,536 bytes")


def text_blocks(texts: Any) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The bytes of about a MiB of whole texts at a time, and where each text begins and ends."""
    array = filled(texts)
    n = len(array)
    if n == 0:
        return
    _, offsets, data = array.buffers()
    bounds = np.frombuffer(offsets, dtype=np.int64)[array.offset : array.offset + n + 1]
    raw = np.frombuffer(data, dtype=np.uint8) if data is not None else np.zeros(0, np.uint8)
    first = 0
    while first < n:
        last = int(np.searchsorted(bounds, bounds[first] + _BLOCK_BYTES, side="right")) - 1
        last = min(max(last, first + 1), n)
        base = bounds[first]
        yield raw[base : bounds[last]], bounds[first : last + 1] - base
        first = last


class Windows:
    """Hashes of all windows of ``n_bytes`` bytes inside each text of a block."""

    def __init__(self, n_bytes: int) -> None:
        self.n_bytes = n_bytes
        self._up = self._down = np.ones(0, dtype=np.uint64)

    def __call__(
        self, text: np.ndarray, bounds: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Hash, place and text of each window."""
        count = len(text) - self.n_bytes + 1
        if count <= 0:
            return np.zeros(0, np.uint64), np.zeros(0, np.int64), np.zeros(0, np.int64)
        if len(self._up) < len(text):
            self._up = _powers(_BASE, len(text))
            self._down = _powers(pow(_BASE, -1, 2**64), len(text))
        sums = np.zeros(len(text) + 1, dtype=np.uint64)
        np.cumsum((text + np.uint64(1)) * self._up[: len(text)], out=sums[1:])
        hashes = sums[self.n_bytes :] - sums[:count]
        hashes *= self._down[:count]
        hashes = mix64(hashes)
        owner = np.repeat(np.arange(len(bounds) - 1), np.diff(bounds))[:count]
        place = np.flatnonzero(np.arange(self.n_bytes, len(text) + 1) <= bounds[owner + 1])
        return hashes[place], place, owner[place]


def _powers(ratio: int, n: int) -> np.ndarray:
    out = np.full(n, ratio, dtype=np.uint64)
    out[0] = 1
    return np.cumprod(out)


def _new_windows(
    batch: pa.RecordBatch, columns: list[str], first_row: int, skip: np.ndarray, n_bytes: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Windows and their row numbers, of the rows that repeat no earlier row."""
    hash_windows = Windows(n_bytes)
    text = filled(joined_text(batch, columns))
    low, high = np.searchsorted(skip, [first_row, first_row + len(text)])
    rows = np.setdiff1d(np.arange(len(text)), skip[low:high] - first_row)
    if len(rows) < len(text):
        text = text.take(pa.array(rows))
    done = 0
    for raw, bounds in text_blocks(text):
        hashes, _, owner = hash_windows(raw, bounds)
        yield hashes, first_row + rows[done + owner]
        done += len(bounds) - 1


class SeenTwice(Pass[list[np.ndarray], np.ndarray]):
    """A table of bits: slots that two windows or more fell into."""

    def __init__(self, columns: list[str], n_bytes: int, bits: int, skip: np.ndarray) -> None:
        self.columns, self.n_bytes, self.bits, self.skip = columns, n_bytes, bits, skip

    def init(self) -> list[np.ndarray]:
        return [np.zeros(2 ** (self.bits - 3), dtype=np.uint8) for _ in range(2)]

    def map(
        self, state: list[np.ndarray], batch: pa.RecordBatch, first_row: int
    ) -> list[np.ndarray]:
        once, twice = state
        shift = np.uint64(64 - self.bits)
        for hashes, _ in _new_windows(
            batch, self.columns or [], first_row, self.skip, self.n_bytes
        ):
            slots = np.sort(hashes >> shift)
            again = np.zeros(len(slots), dtype=bool)
            again[1:] = slots[1:] == slots[:-1]
            fresh = ~again
            again[fresh] = _marked(once, slots[fresh])
            _mark(twice, slots[again])
            _mark(once, slots[fresh])
        return state

    def merge(self, left: list[np.ndarray], right: list[np.ndarray]) -> list[np.ndarray]:
        return [left[0] | right[0], left[1] | right[1] | (left[0] & right[0])]

    def finish(self, state: list[np.ndarray]) -> np.ndarray:
        return state[1]


def _marked(table: np.ndarray, slots: np.ndarray) -> np.ndarray:
    bit = (slots & np.uint64(7)).astype(np.uint8)
    return (table[slots >> np.uint64(3)] >> bit) & np.uint8(1) == 1


def _mark(table: np.ndarray, slots: np.ndarray) -> None:
    """Set bits; the slots are sorted."""
    if len(slots):
        place = slots >> np.uint64(3)
        starts = np.flatnonzero(np.concatenate([[True], place[1:] != place[:-1]]))
        bits = np.uint8(1) << (slots & np.uint64(7)).astype(np.uint8)
        table[place[starts]] |= np.bitwise_or.reduceat(bits, starts)


class SharedWindows(Pass[list[tuple[np.ndarray, np.ndarray]], tuple[np.ndarray, np.ndarray]]):
    """Pairs of rows, neighbours among the rows that share a window."""

    def __init__(
        self, columns: list[str], n_bytes: int, bits: int, skip: np.ndarray, twice: np.ndarray
    ) -> None:
        self.columns, self.n_bytes, self.bits, self.skip = columns, n_bytes, bits, skip
        self.twice = twice

    def init(self) -> list[tuple[np.ndarray, np.ndarray]]:
        return []

    def map(
        self, state: list[tuple[np.ndarray, np.ndarray]], batch: pa.RecordBatch, first_row: int
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        shift = np.uint64(64 - self.bits)
        for hashes, rows in _new_windows(
            batch, self.columns or [], first_row, self.skip, self.n_bytes
        ):
            some = np.flatnonzero(_marked(self.twice, hashes >> shift))
            state.append((hashes[some], rows[some]))
        return state

    def merge(
        self,
        left: list[tuple[np.ndarray, np.ndarray]],
        right: list[tuple[np.ndarray, np.ndarray]],
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        return left + right

    def finish(self, state: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
        if not state:
            empty = np.zeros(0, dtype=np.int64)
            return empty, empty
        hashes, rows = (np.concatenate(part) for part in zip(*state, strict=True))
        order = np.argsort(hashes, kind="stable")
        hashes, rows = hashes[order], rows[order]
        linked = np.flatnonzero((hashes[1:] == hashes[:-1]) & (rows[1:] != rows[:-1]))
        width = int(rows.max(initial=0)) + 1
        codes = np.unique(rows[linked] * width + rows[linked + 1])
        return codes // width, codes % width
