"""How much of a benchmark stands in the training text?

q is the text that a model was trained on, p the benchmark. For each item of p

    share    the part of its n-grams (n tokens, lower case) that stand anywhere in q,
    longest  the longest run of bytes, at least N of them, that it shares with one text of q.

The first forgives case and white space and adds up fragments, also when they come from different
texts; the second is one verbatim passage, with the row of q where it stands. What neither sees: a
paraphrase, a translation, and text that is common property, such as a quotation that both sides
cite. What the definition does not fix is when an item counts as contaminated; here, when at least
half of its n-grams stand in q. An item of fewer than n tokens is one n-gram as a whole, and below
`SHORTEST` tokens it is not judged: such strings occur everywhere.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from dpdq._random import mix64
from dpdq.engine import Engine
from dpdq.errors import DataError, OptionError
from dpdq.passes import Pass
from dpdq.results import Estimate, Result
from dpdq.select._grams import Grams, gram_blocks
from dpdq.select.duplicates import as_pool
from dpdq.select.duplicates_exact import Windows, check_window, text_blocks
from dpdq.select.minhash import filled
from dpdq.select.ngrams import joined_text, text_columns

__all__ = ["BenchmarkOverlap", "benchmark_overlap"]

SHORTEST = 5  # tokens of an item that is judged
_NEXT = np.uint64(0xD6E8FEB86659FD93)
_PLACES = 64  # of one window in one item that are followed
_PAIRS = 2_000_000  # of a window of q and a place in the benchmark, at a time
_FILTER_BITS = 22


@dataclasses.dataclass(frozen=True, repr=False)
class BenchmarkOverlap(Result):
    """Overlap of each item of a benchmark with a training text.

    Attributes
    ----------
    contaminated_share
        Share of the judged items of which at least ``threshold`` of the n-grams stand in q, with
        its exact (Clopper and Pearson) interval, over items as draws.
    touched_share
        Share of the judged items of which at least one n-gram does.
    share
        Part of each item's n-grams that stand in q; NaN for items too short; shape (n_items,).
    longest
        Bytes of the longest passage shared with one text of q; 0 below ``n_bytes``; (n_items,).
    row_q
        First row of q that holds this passage, or -1; shape (n_items,).
    n, n_bytes, threshold
        The options.
    n_items, n_judged
        Items, and those that are long enough.
    status
        The outcome in a sentence.
    """

    contaminated_share: Estimate
    touched_share: Estimate
    share: np.ndarray
    longest: np.ndarray
    row_q: np.ndarray
    n: int
    n_bytes: int
    threshold: float
    n_items: int
    n_judged: int
    status: str = ""

    @property
    def contaminated(self) -> np.ndarray:
        """Whether each item counts as contaminated, shape (n_items,)."""
        return np.nan_to_num(self.share, nan=0.0) >= self.threshold

    def items(self) -> pa.Table:
        """A row an item: ``item``, ``share``, ``longest``, ``row_q``, ``contaminated``."""
        return pa.table(
            {
                "item": np.arange(self.n_items, dtype=np.int64),
                "share": pa.array(self.share, mask=np.isnan(self.share)),
                "longest": self.longest,
                "row_q": pa.array(self.row_q, mask=self.row_q < 0),
                "contaminated": self.contaminated,
            }
        )


def benchmark_overlap(
    q: Any,
    p: Any,
    *,
    n: int = 13,
    n_bytes: int = 50,
    threshold: float = 0.5,
    columns_q: Sequence[str] | None = None,
    columns_p: Sequence[str] | None = None,
    engine: Engine | None = None,
) -> BenchmarkOverlap:
    """Look for a benchmark's items in a training text, in one pass over the text.

        share_i = |n-grams of item i that stand in q| / |n-grams of item i|

    That an item stands in the text does not say that a model remembers it, and that it does not
    stand there word for word does not say that it was not learned. Items that quote common text
    (laws, poems, code) overlap with any large pool.

    Parameters
    ----------
    q
        The training text: texts, or whatever `dpdq.data.open_source` reads, at any size.
    p
        The benchmark's items; they are held in memory.
    n
        Tokens of an n-gram, 2 to 64.
    n_bytes
        Shortest passage that counts as shared, 16 bytes or more.
    threshold
        Part of an item's n-grams from which it counts as contaminated.
    columns_q, columns_p
        Columns of text of either side, joined by line breaks; by default ``text``,
        ``content``, ``document`` or ``body``, else all of text.
    engine
        Where the pass over q runs.

    Returns
    -------
    BenchmarkOverlap
        Shares with intervals, and each item's overlap.

    Raises
    ------
    OptionError
        n, n_bytes or the threshold outside its range.
    DataError
        No column of text, or no item.

    Notes
    -----
    Cost: O(bytes of q) time (about 60 ns a byte), memory of the benchmark (about 40 bytes a byte)
    and one block. Shares are exact up to collisions of 64-bit hashes. Passages are compared byte
    for byte; a window of n_bytes that stands in more than 64 places of one item (a rule of dashes)
    is followed from 64 of them, so that a passage in such text may be reported too short.
    Held by: tests/select/test_overlap.py::test_shares_and_passages_equal_brute_force

    References
    ----------
    .. [Brown2020] Language Models are Few-Shot Learners. Brown, 2020, NeurIPS.

    Examples
    --------
    >>> item = "Which planet of the solar system is the largest by mass and radius, of all eight?"
    >>> found = benchmark_overlap(q=["page one", "quiz: " + item + " Jupiter"], p=[item, "no " * 9])
    >>> found.share.tolist(), found.longest.tolist(), found.row_q.tolist()
    ([1.0, 0.0], [81, 0], [1, -1])
    """
    if not 2 <= n <= 64:
        raise OptionError(f"n is {n}; expected 2 to 64 tokens")
    check_window(n_bytes)
    if not 0.0 < threshold <= 1.0:
        raise OptionError(f"threshold is {threshold}; expected above 0 and at most 1")
    source, items = as_pool(q), as_pool(p)
    names_q, names_p = text_columns(source, columns_q), text_columns(items, columns_p)
    texts = [filled(joined_text(batch, names_p)) for batch in items.batches(names_p)]
    if not texts:
        raise DataError("p holds no item; give the benchmark's texts")
    text: Any = pa.concat_arrays(texts)
    grams, owner = _item_grams(text, n)
    seen, longest, row_q = (engine or Engine()).run(FindItems(names_q, n, n_bytes, text), source)
    unique, codes = np.unique(grams, return_inverse=True)
    counts = np.bincount(owner, minlength=len(text))
    found = np.bincount(owner, weights=seen[codes], minlength=len(text))
    assert len(unique) == len(seen)
    share = np.divide(found, counts, out=np.full(len(text), np.nan), where=counts > 0)
    judged = int((counts > 0).sum())
    hit = int((np.nan_to_num(share) >= threshold).sum())
    result = BenchmarkOverlap(
        contaminated_share=exact_share(hit, judged),
        touched_share=exact_share(int((found > 0).sum()), judged),
        share=share,
        longest=longest,
        row_q=row_q,
        n=n,
        n_bytes=n_bytes,
        threshold=threshold,
        n_items=len(text),
        n_judged=judged,
    )
    return dataclasses.replace(result, status=_status(result, hit))


def _status(result: BenchmarkOverlap, hit: int) -> str:
    if result.n_judged == 0:
        return f"no item has {SHORTEST} tokens or more; nothing can be said"
    text = (
        f"{hit:,} of {result.n_judged:,} items have {100 * result.threshold:g} % or more of their "
        f"{result.n}-grams in q"
    )
    if hit:
        return text + "; leave them out, and report results with and without them"
    return text + "; paraphrases and translations would not be found"


def exact_share(k: int, n: int, level: float = 0.95) -> Estimate:
    """A share with Clopper and Pearson's interval."""
    from scipy.special import betaincinv

    if n == 0:
        return Estimate(None, level=level, reason="no items")
    tail = (1 - level) / 2
    low = float(betaincinv(k, n - k + 1, tail)) if k else 0.0
    high = float(betaincinv(k + 1, n - k, 1 - tail)) if k < n else 1.0
    return Estimate(k / n, low, high, level=level, method="Clopper-Pearson")


def _orders(grams: Grams, n: int) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Order, hashes and places of the runs of SHORTEST to n tokens (2 to n where n is less)."""
    tokens = grams.buckets[0].astype(np.uint64)
    ends = np.repeat(grams.starts[1:], np.diff(grams.starts))
    runs = tokens.copy()
    for order in range(2, n + 1):
        reach = max(len(tokens) - order + 1, 0)
        runs = runs[:reach] * _NEXT + tokens[order - 1 :]
        if order >= min(SHORTEST, n):
            inside = np.flatnonzero(np.arange(reach) + order <= ends[:reach])
            yield order, mix64(runs[inside] ^ np.uint64(order)), inside


def _item_grams(text: Any, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of the n-grams of items, and whose they are."""
    hashes, owners = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)]
    first = 0
    for grams in gram_blocks(text, 1, 63):
        counts = np.diff(grams.starts)
        token_owner = np.repeat(np.arange(len(counts)), counts)
        for order, runs, place in _orders(grams, n):
            owner = token_owner[place]
            own = (counts[owner] == order) | (order == n)
            hashes.append(runs[own])
            owners.append(first + owner[own])
        first += len(counts)
    return np.concatenate(hashes), np.concatenate(owners)


class FindItems(Pass[tuple[np.ndarray, ...], tuple[np.ndarray, np.ndarray, np.ndarray]]):
    """Which n-grams of the benchmark the rows hold, and each item's longest shared passage."""

    def __init__(self, columns: list[str], n: int, n_bytes: int, text: Any) -> None:
        self.columns, self.n, self.n_bytes = columns, n, n_bytes
        self.text = text
        self._tables: _Tables | None = None

    def fingerprint(self) -> Any:
        from dpdq.data.hashing import text_hashes

        return [self.columns, self.n, self.n_bytes, text_hashes(self.text)]

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_tables": None}

    def tables(self) -> _Tables:
        if self._tables is None:
            self._tables = _Tables(self.text, self.n, self.n_bytes)
        return self._tables

    def init(self) -> tuple[np.ndarray, ...]:
        n = len(self.text)
        seen = np.zeros(len(self.tables().grams.values), dtype=bool)
        nothing = np.zeros(0, dtype=np.uint64)
        return seen, np.zeros(n, dtype=np.int64), np.full(n, -1, dtype=np.int64), nothing

    def map(
        self, state: tuple[np.ndarray, ...], batch: pa.RecordBatch, first_row: int
    ) -> tuple[np.ndarray, ...]:
        seen, longest, row_q, followed = state
        tables = self.tables()
        text = filled(joined_text(batch, self.columns or []))
        for grams in gram_blocks(text, 1, 63):
            for order, runs, _ in _orders(grams, self.n):
                if order in tables.orders:
                    _, at = tables.grams.find(runs)
                    seen[at] = True
        done = first_row
        for raw, bounds in text_blocks(text):
            followed = tables.update(raw, bounds, done, longest, row_q, followed)
            done += len(bounds) - 1
        return seen, longest, row_q, followed

    def merge(
        self, left: tuple[np.ndarray, ...], right: tuple[np.ndarray, ...]
    ) -> tuple[np.ndarray, ...]:
        later = right[1] > left[1]
        return (
            left[0] | right[0],
            np.where(later, right[1], left[1]),
            np.where(later, right[2], left[2]),
            np.union1d(left[3], right[3]),
        )

    def finish(self, state: tuple[np.ndarray, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return state[0], state[1], state[2]


class _Lookup:
    """Sorted distinct hashes behind a table of bits that most others do not pass."""

    def __init__(self, hashes: np.ndarray) -> None:
        self.values = np.unique(hashes)
        self._shift = np.uint64(64 - _FILTER_BITS)
        self._passes = np.zeros(2**_FILTER_BITS, dtype=bool)
        self._passes[self.values >> self._shift] = True

    def find(self, hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which hashes are known, and their number."""
        some = np.flatnonzero(self._passes[hashes >> self._shift])
        if not len(some):
            return some, some
        at = np.searchsorted(self.values, hashes[some])
        at[at == len(self.values)] = 0
        known = self.values[at] == hashes[some]
        return some[known], at[known]


class _Tables:
    """The benchmark, made ready to be found."""

    def __init__(self, text: Any, n: int, n_bytes: int) -> None:
        hashes, _ = _item_grams(text, n)
        self.grams = _Lookup(hashes)
        self.n_bytes = n_bytes
        self.orders = {n}
        for grams in gram_blocks(text, 1, 63):
            self.orders |= set(np.unique(np.diff(grams.starts)).tolist())
        self._windows = Windows(n_bytes)
        raws, found, places, owners = [], [], [], []
        first = offset = 0
        for raw, bounds in text_blocks(text):
            hashes, place, owner = self._windows(raw, bounds)
            raws.append(raw)
            found.append(hashes)
            places.append(offset + place)
            owners.append(first + owner)
            first += len(bounds) - 1
            offset += len(raw)
        self.raw = np.concatenate(raws)
        hashes, place = np.concatenate(found), np.concatenate(places)
        owner = np.concatenate(owners)
        self.lookup = _Lookup(hashes)
        codes = np.searchsorted(self.lookup.values, hashes)
        order = np.lexsort((place, owner, codes))
        codes, place, owner = codes[order], place[order], owner[order]
        fresh = np.ones(len(codes), dtype=bool)
        fresh[1:] = (codes[1:] != codes[:-1]) | (owner[1:] != owner[:-1])
        lead = np.flatnonzero(fresh)
        few = (
            np.arange(len(codes)) - np.repeat(lead, np.diff(np.append(lead, len(codes)))) < _PLACES
        )
        self._place, self._owner = place[few], owner[few]
        self._starts = np.searchsorted(codes[few], np.arange(len(self.lookup.values) + 1))

    def _places(self, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which of the codes, and a place of it in the benchmark, for all places."""
        counts = self._starts[codes + 1] - self._starts[codes]
        which = np.repeat(np.arange(len(codes)), counts)
        within = np.arange(len(which)) - np.repeat(np.cumsum(counts) - counts, counts)
        return which, self._starts[codes[which]] + within

    def _floors(self, codes: np.ndarray, longest: np.ndarray) -> np.ndarray:
        """The shortest passage known so far among the items that hold each window."""
        unique, inverse = np.unique(codes, return_inverse=True)
        _, there = self._places(unique)
        counts = self._starts[unique + 1] - self._starts[unique]
        known = longest[self._owner[there]]
        return np.minimum.reduceat(known, np.cumsum(counts) - counts)[inverse]

    def update(
        self,
        raw: np.ndarray,
        bounds: np.ndarray,
        first_row: int,
        longest: np.ndarray,
        row_q: np.ndarray,
        followed: np.ndarray,
    ) -> np.ndarray:
        """Take the longest passages of a block of texts into account, in place.

        Returns the runs followed so far, by the hash of their bytes.
        """
        hashes, place, owner = self._windows(raw, bounds)
        at, code = self.lookup.find(hashes)
        if not len(at):
            return followed
        here, row = place[at], owner[at]
        # Runs of windows one after the other in one text: equal ones are followed once, and none
        # once all items of its windows know a passage as long as the run.
        fresh = np.ones(len(at), dtype=bool)
        fresh[1:] = (np.diff(here) != 1) | (np.diff(row) != 0)
        starts = np.flatnonzero(fresh)
        sizes = np.diff(np.append(starts, len(at)))
        within = np.arange(len(at)) - np.repeat(starts, sizes)
        terms = mix64(hashes[at] + within.astype(np.uint64) * _NEXT)
        content = np.add.reduceat(terms, starts)
        content, first = np.unique(content, return_index=True)
        first = first[~np.isin(content, followed)]
        followed = np.union1d(followed, content)
        run = np.repeat(np.arange(len(sizes)), sizes)
        reach = (sizes + self.n_bytes - 1)[run]
        pending = np.flatnonzero(np.isin(run, first))
        while len(pending):
            short = self._floors(code[pending], longest) < reach[pending]
            pending = pending[np.isin(run[pending], run[pending[short]])]
            if not len(pending):
                break
            pairs = np.cumsum(self._starts[code[pending] + 1] - self._starts[code[pending]])
            last = run[pending[min(int(np.searchsorted(pairs, _PAIRS)), len(pending) - 1)]]
            ready = run[pending] <= last
            some, pending = pending[ready], pending[~ready]
            self._follow(raw, here[some], code[some], first_row + row[some], longest, row_q)
        return followed

    def _follow(
        self,
        raw: np.ndarray,
        here: np.ndarray,
        code: np.ndarray,
        row: np.ndarray,
        longest: np.ndarray,
        row_q: np.ndarray,
    ) -> None:
        """Join windows that go on along one diagonal, inside one text of each side."""
        which, there = self._places(code)
        here, row = here[which], row[which]
        other, item = self._place[there], self._owner[there]
        order = np.lexsort((here, item, row, here - other))
        here, other, item, row = here[order], other[order], item[order], row[order]
        fresh = np.ones(len(here), dtype=bool)
        fresh[1:] = (np.diff(here) != 1) | (np.diff(other) != 1)
        fresh[1:] |= (np.diff(item) != 0) | (np.diff(row) != 0)
        starts = np.flatnonzero(fresh)
        ends = np.append(starts[1:], len(here)) - 1
        # Equal hashes are equal bytes but once in 2^64: the first byte of each window, and the
        # whole of the last one, are compared.
        equal = np.logical_and.reduceat(raw[here] == self.raw[other], starts)
        step = np.arange(self.n_bytes)
        for some in range(0, len(ends), 4096):
            last = ends[some : some + 4096, None]
            same = raw[here[last] + step] == self.raw[other[last] + step]
            equal[some : some + 4096] &= same.all(axis=1)
        starts, ends = starts[equal], ends[equal]
        length = ends - starts + self.n_bytes
        item, row = item[starts], row[starts]
        order = np.lexsort((row, -length, item))
        item, length, row = item[order], length[order], row[order]
        best = np.ones(len(item), dtype=bool)
        best[1:] = item[1:] != item[:-1]
        best &= length > longest[item]
        longest[item[best]] = length[best]
        row_q[item[best]] = row[best]
