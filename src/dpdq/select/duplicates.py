"""Rows of a pool that are the same text, or nearly.

A text is its set S of *shingles*: runs of n tokens (words, and runs of other marks, in lower
case). Two texts are near-duplicates when

    J(A, B) = |S_A and S_B| / |S_A or S_B| >= threshold.

Comparing all pairs is hopeless, so candidates are found by MinHash: the smallest of a random hash
over a text's shingles agrees between two texts with probability J. In ``b`` bands of ``r`` such
minima each, two texts share a whole band with probability

    1 - (1 - J^r)^b,

which rises from near 0 to near 1 around the threshold
(`band_curve`). Rows that share a band are
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
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from dpdq.data.sources import Source, open_source
from dpdq.engine import Engine
from dpdq.errors import DataError, OptionError
from dpdq.results import Result
from dpdq.select.minhash import BandKeys, candidates, jaccard, pair_blocks, rows_of_band
from dpdq.select.ngrams import as_texts, text_columns

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Duplicates", "exact_duplicates", "near_duplicates"]

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
    band_rows = rows_of_band(threshold, n_hashes)
    bands = n_hashes // band_rows
    source = as_pool(pool)
    names = text_columns(source, columns)
    where = engine or Engine()
    keys, content, sizes, tokens = where.run(BandKeys(names, n, bands, band_rows), source)
    equal = twins(content)
    distinct = np.flatnonzero((equal == np.arange(len(content))) & (tokens > 0))
    left, right = candidates(keys, distinct)
    alike = np.ones(len(left))
    if verify:
        alike = np.empty(len(left))
        for some in pair_blocks(tokens[left] + tokens[right]):
            alike[some] = jaccard(source, names, n, left[some], right[some])
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


def twins(content: np.ndarray) -> np.ndarray:
    """The first row with the same content, for each row."""
    _, first, inverse = np.unique(content, return_index=True, return_inverse=True)
    return first[inverse].astype(np.int64)


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
