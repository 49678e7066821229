"""Balance over what texts are about: a cap on how many rows each entry of a list brings.

Entries e are concepts, tags or titles; c_e is the number of the pool's texts that name e.

    p_e = min(1, cap / c_e),   P(keep x) = 1 - prod over the entries e of x of (1 - p_e)

One pass counts, a second draws one coin an entry of each text and keeps the text if any of them
says so; a text that names no entry is dropped. Frequent entries bring about ``cap`` texts each,
rare ones stay whole, and texts that name many things survive more often. No model and no target are
asked for: the target is the list of entries, all wanted alike.

An entry is named by a text where its tokens follow each other there: words (runs of letters, digits
and underscores) and runs of other marks, in any case of letters. "cat" is found in "A cat." and not
in "catalogue". Counts add up over parts of a pool, and a row's coins depend on its number and the
entry alone, so any division of the work keeps the same rows, and a larger cap keeps more of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import pyarrow as pa

from dpdq._random import RandomState, as_generator, child_seed, mix64, row_keys
from dpdq.data.sources import reading
from dpdq.engine import Engine
from dpdq.errors import DataError, InputTypeError, NotFittedError, OptionError
from dpdq.passes import Pass
from dpdq.select._base import Utility
from dpdq.select._grams import gram_blocks
from dpdq.select.chosen import Selection
from dpdq.select.ngrams import as_texts, joined_text, text_columns

__all__ = ["CountEntries", "MetadataBalance"]

_BITS = 62  # of a hash: 500,000 entries meet 10^9 other n-grams by mistake once in 10,000 pools
_MOST_TOKENS = 16


class Entries:
    """Sorted hashes of the entries, by their number of tokens.

    Raises
    ------
    DataError
        No entry, one without a token, one of too many, or two of the same tokens.
    """

    def __init__(self, entries: Sequence[str]) -> None:
        texts = as_texts(list(entries), "entries")
        if len(texts) == 0:
            raise DataError("entries is empty; give the concepts to balance over")
        tokens = [np.diff(grams.starts) for grams in gram_blocks(texts, 1, _BITS)]
        size = np.concatenate(tokens)
        for bad, why in ((size == 0, "no word or mark"), (size > _MOST_TOKENS, "over 16 tokens")):
            if bad.any():
                row = int(bad.argmax())
                raise DataError(f"entry {texts[row].as_py()!r} (number {row}) has {why}")
        self.n = len(texts)
        self.orders = int(size.max())
        own = np.empty(self.n, dtype=np.int64)
        at = 0
        for grams in gram_blocks(texts, self.orders, _BITS):
            first = grams.starts[:-1]
            here = size[at : at + len(first)]
            for order in np.unique(here):
                rows = np.flatnonzero(here == order)
                own[at + rows] = grams.buckets[order - 1][first[rows]]
            at += len(first)
        self.hashes: list[np.ndarray] = []
        self.numbers: list[np.ndarray] = []
        for order in range(1, self.orders + 1):
            rows = np.flatnonzero(size == order)
            rows = rows[np.argsort(own[rows], kind="stable")]
            same = np.flatnonzero(np.diff(own[rows]) == 0)
            if len(same):
                one, two = sorted(rows[same[0] : same[0] + 2].tolist())
                raise DataError(
                    f"entries {one} and {two} are the same words ({texts[two].as_py()!r}); "
                    "give each once"
                )
            self.hashes.append(own[rows])
            self.numbers.append(rows)

    def matches(self, texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
        """Rows and entries of all matches, each pair once, ascending."""
        pairs, first = [], 0
        for grams in gram_blocks(texts, self.orders, _BITS):
            row = np.repeat(np.arange(len(grams.sizes)), np.diff(grams.starts)) + first
            for buckets, hashes, numbers in zip(
                grams.buckets, self.hashes, self.numbers, strict=True
            ):
                if len(hashes) == 0:
                    continue
                place = np.minimum(np.searchsorted(hashes, buckets), len(hashes) - 1)
                hit = np.flatnonzero(hashes[place] == buckets)
                pairs.append(row[hit] * self.n + numbers[place[hit]])
            first += len(grams.sizes)
        found = np.unique(np.concatenate(pairs)) if pairs else np.zeros(0, dtype=np.int64)
        return found // self.n, found % self.n


class CountEntries(Pass[np.ndarray, np.ndarray]):
    """Number of rows that name each entry; counts of parts add up."""

    def __init__(self, entries: Sequence[str], columns: Sequence[str]) -> None:
        self.columns = list(columns)
        self.entries = list(entries)
        self._index = Entries(self.entries)

    def fingerprint(self) -> Any:
        """The entries and the columns."""
        return [self.entries, self.columns]

    def init(self) -> np.ndarray:
        """No rows."""
        return np.zeros(self._index.n, dtype=np.int64)

    def map(self, state: np.ndarray, batch: pa.RecordBatch, first_row: int) -> np.ndarray:
        """Count one block."""
        _, named = self._index.matches(joined_text(batch, self.columns or []))
        return state + np.bincount(named, minlength=self._index.n)

    def merge(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Add."""
        return left + right

    def finish(self, state: np.ndarray) -> np.ndarray:
        """The counts."""
        return state


class MetadataBalance(Utility):
    """Keep probability of texts that names each entry of a list about equally often.

        u(x) = 1 - prod over entries e named by x of (1 - min(1, cap / c_e))

    Balances what the list names, and drops what it does not: look at the share of rows without an
    entry first. An entry of a common word ("the", "image") names every text and does nothing but
    let ``cap`` more of them by. On pools of rare and frequent kinds it is far above a random draw,
    and ties with one by inverse frequency where texts name one entry each. As a utility for `top_k`
    it ranks rows of rare entries first; `select` draws as published.

    Parameters
    ----------
    entries
        The list of concepts, any case; of at most 16 tokens each.
    cap
        Texts that a frequent entry shall bring.

    Attributes
    ----------
    counts_
        Rows of the pool that name each entry.
    probabilities_
        p_e of each entry.

    Notes
    -----
    Cost: O(bytes times tokens of the longest entry) time a pass, memory of one block and 16 bytes
    an entry; `select` 24 bytes a match besides.
    Held by: tests/select/test_metadata.py::test_balances_a_pool_of_rare_and_frequent_digits

    Changed from the paper: tokens decide where an entry begins and ends, in place of substrings
    between spaces.

    References
    ----------
    .. [M110] Demystifying CLIP Data. Xu, 2023, arXiv 2309.16671.

    Examples
    --------
    >>> from dpdq.select import MetadataBalance
    >>> pool = ["a dog"] * 90 + ["A cat!"] * 9 + ["cat and dog", "catalogue"]
    >>> model = MetadataBalance(["dog", "cat"], cap=10).fit(pool)
    >>> model.counts_.tolist(), model.probabilities_.round(2).tolist()
    ([91, 10], [0.11, 1.0])
    >>> chosen = model.select(pool, random_state=0).rows
    >>> bool((chosen >= 90).sum() == 10), 100 in chosen
    (True, False)
    """

    counts_: np.ndarray

    def __init__(self, entries: Sequence[str], *, cap: float = 20_000) -> None:
        self.entries = entries
        self.cap = cap

    def fit(self, q: Any, p: Any = None) -> Self:
        """Count how many texts of the pool name each entry.

        Parameters
        ----------
        q
            The pool's texts: a list, array or column of strings.
        p
            Ignored: the entries are the target.

        Returns
        -------
        Self
            The utility.

        Raises
        ------
        DataError
            Entries without words, or two of the same words.
        InputTypeError
            An item is no text.
        """
        self._check()
        index = Entries(self.entries)
        _, named = index.matches(as_texts(q, "q"))
        return self._learn(index, np.bincount(named, minlength=index.n))

    def fit_sources(
        self,
        q: Any,
        *,
        columns: Sequence[str] | None = None,
        engine: Engine | None = None,
    ) -> Self:
        """Count over files or tables in one pass.

        Parameters
        ----------
        q
            Whatever `dpdq.data.open_source` reads.
        columns
            Columns of text, joined by line breaks; default all columns of text.
        engine
            Where the pass runs.

        Returns
        -------
        Self
            The utility.
        """
        self._check()
        with reading(q, side="q") as pool:
            job = CountEntries(self.entries, text_columns(pool, columns))
            return self._learn(Entries(self.entries), (engine or Engine()).run(job, pool))

    def _check(self) -> None:
        if isinstance(self.entries, str):
            raise InputTypeError("entries is one string; give a list of concepts")
        if not self.cap > 0:
            raise OptionError(f"cap is {self.cap}; expected above 0")

    def _learn(self, index: Entries, counts: np.ndarray) -> Self:
        self._index, self.counts_ = index, counts
        self.probabilities_ = np.minimum(1.0, self.cap / np.maximum(counts, 1))
        return self

    def _matches(self, texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
        if "counts_" not in vars(self):
            raise NotFittedError("MetadataBalance is not fitted; call fit(q) first")
        return self._index.matches(texts)

    def utility(self, pool: Any) -> np.ndarray:
        """Probability that each text is kept, shape (n,); minus infinity where no entry is named.

        Parameters
        ----------
        pool
            A list, array or column of strings.

        Returns
        -------
        ndarray of shape (n,)
            Probabilities.
        """
        texts = as_texts(pool, "pool")
        rows, named = self._matches(texts)
        return self._keep(rows, self.probabilities_[named], len(texts))

    @staticmethod
    def _keep(rows: np.ndarray, chance: np.ndarray, n: int) -> np.ndarray:
        with np.errstate(divide="ignore"):
            lost = np.bincount(rows, weights=np.log1p(-chance), minlength=n)
        out = -np.expm1(lost)
        out[np.bincount(rows, minlength=n) == 0] = -np.inf
        return out

    def cap_for(self, pool: Any, n: float) -> float:
        """The cap under which as many texts of this pool are expected to be kept.

        Parameters
        ----------
        pool
            The texts that were counted.
        n
            Number of texts.

        Returns
        -------
        float
            The cap.

        Raises
        ------
        OptionError
            More texts than name an entry.
        """
        texts = as_texts(pool, "pool")
        rows, named = self._matches(texts)
        most = len(np.unique(rows))
        if not 0 < n <= most:
            raise OptionError(
                f"n is {n}; expected above 0, at most the {most:,} that name an entry"
            )
        low, high = 0.0, float(self.counts_.max())
        for _ in range(60):
            middle = (low + high) / 2
            chance = np.minimum(1.0, middle / np.maximum(self.counts_, 1))[named]
            kept = self._keep(rows, chance, len(texts))
            low, high = (middle, high) if kept[kept > 0].sum() < n else (low, middle)
        return high

    def select(self, pool: Any, *, random_state: RandomState = None) -> Selection:
        """Draw a coin for every entry of every text, and keep the texts with a success.

        Parameters
        ----------
        pool
            The texts that were counted.
        random_state
            Seed; with the same one a larger cap keeps a superset.

        Returns
        -------
        Selection
            The rows kept.
        """
        texts = as_texts(pool, "pool")
        n = len(texts)
        rows, named = self._matches(texts)
        seed = child_seed(as_generator(random_state))
        keys = mix64(row_keys(0, n, seed)[rows] ^ row_keys(0, self._index.n, seed + 1)[named])
        coin = (keys >> np.uint64(11)).astype(np.float64) * 2.0**-53
        success = coin < self.probabilities_[named]
        kept = np.unique(rows[success])
        utility = self._keep(rows, self.probabilities_[named], n)
        reasons = np.ones(n, dtype=np.int8)
        reasons[utility == -np.inf] = 2
        reasons[kept] = 0
        without = int((reasons == 2).sum())
        return Selection(
            rows=kept.astype(np.int64),
            n_pool=n,
            mechanism=f"metadata balance, cap {self.cap:g}",
            utility=utility,
            weights=np.ones(len(kept)),
            cost=float(len(kept)),
            budget=float(utility[utility > 0].sum()),
            reasons=reasons,
            reason_names=("an entry drew it", "no entry drew it", "names no entry"),
            status=f"{len(kept):,} of {n:,} rows kept by metadata balance; {without:,} name none "
            f"of {self._index.n:,} entries",
        )
