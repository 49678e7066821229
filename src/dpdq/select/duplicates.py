"""Rows of a pool that are the same text, or nearly.

A text is its set S of *shingles*: runs of n tokens (words, and runs of other marks, in lower
case). Two texts are near-duplicates when

    J(A, B) = |S_A and S_B| / |S_A or S_B| >= threshold.

Comparing all pairs is hopeless, so candidates are found by MinHash: the smallest of a random hash
over a text's shingles agrees between two texts with probability J. In ``b`` bands of ``r`` such
minima each, two texts share a whole band with probability

    1 - (1 - J^r)^b,

which rises from near 0 to near 1 around the threshold (`band_curve`). Rows that share a band are
candidates; their Jaccard similarity is then computed from their shingles themselves, so nothing
below the threshold is joined and what is missed is missed at the curve's rate.

What the definition does not fix: similarity is not transitive. A cluster is a connected component,
so its ends may be less alike than the threshold; the trail says which row each one is like. Equal
shingle sets do not mean equal texts (upper and lower case, white space, repetitions), and a short
text inside a long one is no near-duplicate: for shared passages see
`dpdq.select.duplicates_exact`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from dpdq._random import mix64
from dpdq.data.hashing import text_hashes
from dpdq.data.sources import Source, open_source
from dpdq.engine import Engine
from dpdq.errors import DataError, OptionError
from dpdq.passes import Pass
from dpdq.results import Result
from dpdq.select._grams import Grams, gram_blocks
from dpdq.select.ngrams import as_texts, joined_text, text_columns

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Duplicates", "band_curve", "exact_duplicates", "near_duplicates"]

_NEXT = np.uint64(0x9FB21C651E98DF25)
_NEIGHBOURS = 32  # rows of one band that each row is compared with
_TOKENS_AT_ONCE = 4_194_304  # of candidate texts whose shingles are in memory
_RECALL = 0.99  # least share of pairs at the threshold that the bands find

ALONE, KEPT, EQUAL, NEAR, PASSAGE = range(5)
REASONS = ("alone", "kept of its cluster", "equal text", "near duplicate", "shared passage")


@dataclasses.dataclass(frozen=True, repr=False)
class Duplicates(Result):
    """Which rows of a pool repeat others, and the one that is kept of each cluster.

    Attributes
    ----------
    rows
        Row numbers kept, ascending.
    n_pool
        Rows of the pool.
    cluster
        Number of the first row of each row's cluster, shape (n_pool,).
    similarity
        Largest similarity found between the row and another one: 1 for equal texts, the Jaccard
        similarity of verified pairs, NaN where none was found; shape (n_pool,).
    reasons
        Number of each row's reason into ``reason_names``, shape (n_pool,).
    reason_names
        Why a row was kept or dropped.
    n_candidates, n_pairs
        Pairs of distinct texts that were compared, and those that reached the threshold.
    bands, band_rows
        b and r; zero where no bands were used.
    status
        The outcome in a sentence.
    """

    rows: np.ndarray
    n_pool: int
    cluster: np.ndarray
    similarity: np.ndarray
    reasons: np.ndarray
    reason_names: tuple[str, ...] = REASONS
    n_candidates: int = 0
    n_pairs: int = 0
    bands: int = 0
    band_rows: int = 0
    status: str = ""

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def mask(self) -> np.ndarray:
        """Whether each row is kept, shape (n_pool,)."""
        return self.reasons <= KEPT

    def trail(self, columns: Mapping[str, Any] | None = None) -> pa.Table:
        """Every row of the pool: whether it is kept, its cluster, and why.

        Parameters
        ----------
        columns
            More columns to carry along, each of length ``n_pool``.

        Returns
        -------
        pyarrow.Table
            Columns ``row``, ``kept``, ``cluster``, ``similarity``, ``reason`` and those given.
        """
        similarity = pa.array(self.similarity, mask=np.isnan(self.similarity))
        names = pa.array(self.reason_names, pa.string())
        reason = pa.DictionaryArray.from_arrays(pa.array(self.reasons.astype(np.int32)), names)
        table = {
            "row": np.arange(self.n_pool, dtype=np.int64),
            "kept": self.mask,
            "cluster": self.cluster,
            "similarity": similarity,
            "reason": reason,
        }
        return pa.table(table | dict(columns or {}))


def band_curve(jaccard: np.ndarray | float, bands: int, band_rows: int) -> np.ndarray:
    """Probability that two texts share a band, by their Jaccard similarity.

        P(J) = 1 - (1 - J^r)^b

    Parameters
    ----------
    jaccard
        J, any shape.
    bands, band_rows
        b and r.

    Returns
    -------
    ndarray
        P, the shape of ``jaccard``.

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
    share = np.asarray(jaccard, dtype=np.float64)
    return 1.0 - (1.0 - share**band_rows) ** bands


def near_duplicates(
    pool: Any,
    *,
    threshold: float = 0.8,
    n: int = 5,
    n_hashes: int = 128,
    keep: str = "first",
    scores: Any = None,
    verify: bool = True,
    n_bytes: int | None = None,
    columns: Sequence[str] | None = None,
    engine: Engine | None = None,
) -> Duplicates:
    """Find texts that repeat others word for word, nearly, and keep one of each cluster.

        joined: J(A, B) >= threshold, found with probability 1 - (1 - J^r)^b (at least 0.99)

    A token changed in the middle of a text breaks n shingles, so a text of m tokens with e edits
    far apart has J about (m - n e) / (m + n e): at threshold 0.8 and n = 5, one edit in 45 tokens.
    Short texts are therefore near-duplicates only when they are equal up to case and white space.
    Paraphrases and translations are not found.

    Parameters
    ----------
    pool
        Texts, or whatever `dpdq.data.open_source` reads: files larger than memory are read twice.
    threshold
        Jaccard similarity from which two texts are one, above 0 and at most 1.
    n
        Tokens of a shingle; a shorter text is one shingle.
    n_hashes
        Minima a text. r is the largest number of them in a band with which the b = n_hashes // r
        bands find 99 % of the pairs at the threshold.
    keep
        Of each cluster the ``"first"`` row, the ``"longest"`` text, or the one with the best
        ``"score"``; the first of equal ones.
    scores
        With ``keep="score"``: a number a row, larger is better.
    verify
        Whether the similarity of candidates is computed. Without, rows that share a band are
        joined at the curve's rate, and pairs below the threshold among them.
    n_bytes
        Also join rows that share a passage of so many bytes (`shared_passages`).
    columns
        Columns of text, joined by line breaks; by default ``text``,
        ``content``, ``document`` or ``body``, else all of text.
    engine
        Where the pass over the pool runs.

    Returns
    -------
    Duplicates
        The rows kept, and of every row its cluster, similarity and reason.

    Raises
    ------
    OptionError
        A threshold outside (0, 1], n outside 1 to 32, an unknown rule, too few hashes.
    DataError
        No column of text, or scores of a wrong length.
    InputTypeError
        An item is no text.

    Notes
    -----
    Cost: O(bytes) time for the pass (about 25 ns a byte) and O(n log n) for the bands; 8 b + 24
    bytes a row, and the shingles of 4 million tokens of candidates at a time. In a band that more
    than 33 distinct texts share, each is compared with the next 32.
    Held by: tests/select/test_duplicates.py::test_planted_near_duplicates_are_found

    References
    ----------
    .. [Broder1997] On the Resemblance and Containment of Documents. Broder, 1997, Compression and
       Complexity of Sequences.
    .. [Lee2022] Deduplicating Training Data Makes Language Models Better. Lee, 2022, ACL.

    Examples
    --------
    >>> text = "the quick brown fox jumps over the lazy dog and runs far away from here today"
    >>> found = near_duplicates([text, "something else", text.upper()])
    >>> found.rows.tolist(), found.cluster.tolist()
    ([0, 1], [0, 1, 0])
    """
    _check_keep(keep)
    if not 0.0 < threshold <= 1.0:
        raise OptionError(f"threshold is {threshold}; expected above 0 and at most 1")
    if not 1 <= n <= 32:
        raise OptionError(f"n is {n}; expected 1 to 32 tokens")
    band_rows = _rows_of_band(threshold, n_hashes)
    bands = n_hashes // band_rows
    source = as_pool(pool)
    names = text_columns(source, columns)
    where = engine or Engine()
    keys, content, sizes, tokens = where.run(BandKeys(names, n, bands, band_rows), source)
    equal = twins(content)
    distinct = np.flatnonzero((equal == np.arange(len(content))) & (tokens > 0))
    left, right = _candidates(keys, distinct)
    alike = np.ones(len(left))
    if verify:
        alike = np.empty(len(left))
        for some in _pair_blocks(tokens[left] + tokens[right]):
            alike[some] = _jaccard(source, names, n, left[some], right[some])
        joined = alike >= threshold - 1e-12
    else:
        joined = np.ones(len(left), dtype=bool)
    n_candidates, n_pairs = len(left), int(joined.sum())
    left, right, alike = left[joined], right[joined], alike[joined]
    similarity = np.full(len(content), np.nan)
    if verify:
        for side in (left, right):
            np.fmax.at(similarity, side, alike)
        similarity = similarity[equal]
    links = [(NEAR, left, right)]
    if n_bytes is not None:
        from dpdq.select.duplicates_exact import passage_links

        links.append((PASSAGE, *passage_links(source, names, content, n_bytes, 28, where)))
    result = clusters(equal, links, sizes, similarity, keep, scores_of(scores, keep, len(content)))
    return dataclasses.replace(
        result, n_candidates=n_candidates, n_pairs=n_pairs, bands=bands, band_rows=band_rows
    )


def exact_duplicates(
    pool: Any,
    *,
    keep: str = "first",
    scores: Any = None,
    columns: Sequence[str] | None = None,
    engine: Engine | None = None,
) -> Duplicates:
    """Find rows whose text is equal, byte for byte, and keep one of each.

    Texts are compared by a hash of 64 bits: among n different texts some pair is joined wrongly
    with probability n^2 / 2^65, 3e-6 at ten million. Texts that differ in one space are different;
    missing text counts as empty.

    Parameters
    ----------
    pool
        Texts, or whatever `dpdq.data.open_source` reads.
    keep
        ``"first"``, or ``"score"``; equal texts are equally long.
    scores
        With ``keep="score"``: a number a row, larger is better.
    columns
        Columns of text, joined by line breaks; by default ``text``,
        ``content``, ``document`` or ``body``, else all of text.
    engine
        Where the pass over the pool runs.

    Returns
    -------
    Duplicates
        The rows kept, and of every row its cluster and reason.

    Raises
    ------
    OptionError
        An unknown rule.
    DataError
        No column of text, or scores of a wrong length.

    Notes
    -----
    Cost: O(bytes) time, 16 bytes a row.
    Held by: tests/select/test_duplicates.py::test_equal_texts

    References
    ----------
    .. [Lee2022] Deduplicating Training Data Makes Language Models Better. Lee, 2022, ACL.

    Examples
    --------
    >>> exact_duplicates(["a b", "c", "a b"]).rows.tolist()
    [0, 1]
    """
    _check_keep(keep)
    source = as_pool(pool)
    names = text_columns(source, columns)
    _, content, sizes, _ = (engine or Engine()).run(BandKeys(names, 1, 0, 0), source)
    nothing = np.full(len(content), np.nan)
    return clusters(twins(content), [], sizes, nothing, keep, scores_of(scores, keep, len(content)))


def as_pool(pool: Any) -> Source:
    """A source of a list or column of texts, or of what `open_source` reads."""
    if isinstance(pool, (list, tuple)) and (not pool or not isinstance(pool[0], dict)):
        return open_source(pa.table({"text": as_texts(pool, "pool")}), side="q")
    if isinstance(pool, np.ndarray) and pool.ndim == 1 and pool.dtype.kind in "OUT":
        return open_source(pa.table({"text": as_texts(pool.tolist(), "pool")}), side="q")
    if isinstance(pool, pa.Array | pa.ChunkedArray):
        return open_source(pa.table({"text": as_texts(pool, "pool")}), side="q")
    return open_source(pool, side="q")


def _check_keep(keep: str) -> None:
    if keep not in ("first", "longest", "score"):
        raise OptionError(f"Unknown keep {keep!r}. Choose one of 'first', 'longest', 'score'.")


def scores_of(scores: Any, keep: str, n: int) -> np.ndarray | None:
    """The scores to keep by, or none; a missing one is the worst."""
    if keep != "score":
        return None
    if scores is None:
        raise OptionError("keep 'score' needs scores, a number a row")
    values = np.asarray(scores, dtype=np.float64)
    if values.shape != (n,):
        raise DataError(f"scores have shape {values.shape}; expected ({n},), one a row of the pool")
    return np.where(np.isnan(values), -np.inf, values)


def _rows_of_band(threshold: float, n_hashes: int) -> int:
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


def twins(content: np.ndarray) -> np.ndarray:
    """The first row with the same content, for each row."""
    _, first, inverse = np.unique(content, return_index=True, return_inverse=True)
    return first[inverse].astype(np.int64)


def _candidates(keys: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
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


def _pair_blocks(tokens: np.ndarray) -> Iterator[slice]:
    """Runs of pairs whose texts fit in memory together."""
    total = np.concatenate([[0], np.cumsum(tokens)])
    first = 0
    while first < len(tokens):
        last = int(np.searchsorted(total, total[first] + _TOKENS_AT_ONCE, side="right")) - 1
        last = max(last, first + 1)
        yield slice(first, last)
        first = last


def _jaccard(
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


def clusters(
    equal: np.ndarray,
    links: list[tuple[int, np.ndarray, np.ndarray]],
    sizes: np.ndarray,
    similarity: np.ndarray,
    keep: str,
    scores: np.ndarray | None,
) -> Duplicates:
    """Join linked rows into clusters, and keep one of each.

    Parameters
    ----------
    equal
        The first row with the same text, for each row.
    links
        A reason, and the rows of each pair that it joins.
    sizes, scores
        What ``keep`` looks at.
    similarity
        Largest similarity of each row to another distinct text.
    keep
        ``"first"``, ``"longest"`` or ``"score"``.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n = len(equal)
    rows = np.arange(n)
    left = np.concatenate([rows, *(link[1] for link in links)])
    right = np.concatenate([equal, *(link[2] for link in links)])
    if n:
        graph = coo_array((np.ones(len(left), dtype=np.int8), (left, right)), shape=(n, n))
        _, label = connected_components(graph.tocsr(), directed=False)
    else:
        label = rows
    first = np.full(n, n, dtype=np.int64)
    np.minimum.at(first, label, rows)
    cluster = first[label]
    value = {"first": np.zeros(n), "longest": sizes}.get(keep, scores)
    assert value is not None
    order = np.lexsort((rows, -value, cluster))
    lead = np.ones(n, dtype=bool)
    lead[1:] = cluster[order[1:]] != cluster[order[:-1]]
    kept = np.sort(order[lead])
    # Why a row goes: another row has its text, else the strongest kind of link that it has.
    twins = np.bincount(equal, minlength=n)[equal] > 1
    reasons = np.full(n, PASSAGE, dtype=np.int8)
    for reason, one, two in sorted(links, key=lambda link: -link[0]):
        for side in (one, two):
            reasons[np.isin(equal, equal[side])] = reason
    reasons[twins] = EQUAL
    alone = np.bincount(cluster, minlength=n)[cluster] == 1
    reasons[kept] = KEPT
    reasons[alone] = ALONE
    similarity = np.where(twins, 1.0, similarity)
    dropped = [int((reasons == reason).sum()) for reason in (EQUAL, NEAR, PASSAGE)]
    words = ("equal to another", "near-duplicates", "sharing a passage")
    told = ", ".join(f"{k:,} {word}" for k, word in zip(dropped, words, strict=True) if k)
    status = f"{len(kept):,} of {n:,} rows kept"
    status += f"; dropped: {told}" if told else "; no duplicates found"
    return Duplicates(kept, n, cluster, similarity, reasons, status=status)
