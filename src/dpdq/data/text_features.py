"""From free text to features: its length, and the directions in which its words vary most.

Words and pairs of successive words are hashed into 8,192 signed buckets, as in the hashing trick,
each row to length one; buckets are weighted by the logarithm of their rarity in the pooled rows,
and the directions are the leading right singular vectors (latent semantic analysis). Nothing but
the vectors is kept, no word of the data.
"""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from dpdq._random import mix64
from dpdq._threads import one_thread_each
from dpdq.data import _values
from dpdq.data.feature_rules import (
    ColumnRule,
    Indicator,
    Scale,
    fields_or_none,
    part_or_none,
)
from dpdq.data.hashing import text_hashes
from dpdq.data.schema import Column

if TYPE_CHECKING:
    from scipy.sparse import csr_array

__all__ = ["TextRule", "word_counts"]

BUCKETS = 8_192
DIRECTIONS = 32
FIT_ROWS = 20_000  # texts that the directions are fitted on, chosen by their hashes
LONGEST = 20_000  # characters of a text whose words are counted
_NOT_A_WORD = r"[^\pL\pN_']+"


def _words(texts: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """Words of all texts in a row, and the number of words of each text."""
    pc = _values.pc
    texts = pc.fill_null(texts, "")
    if len(texts) and pc.max(pc.binary_length(texts)).as_py() > LONGEST:
        texts = pc.utf8_slice_codeunits(texts, 0, LONGEST)
    plain = pc.replace_substring_regex(pc.utf8_lower(texts), _NOT_A_WORD, " ")
    lists = pc.ascii_split_whitespace(pc.ascii_trim_whitespace(plain))
    words = pc.list_flatten(lists)
    counts = pc.list_value_length(lists).to_numpy(zero_copy_only=False).astype(np.int64)
    filled = pc.greater(pc.binary_length(words), 0)
    if not pc.all(filled, min_count=0).as_py():  # the one "word" of an empty text
        rows = np.repeat(np.arange(counts.size), counts)
        rows = rows[filled.to_numpy(zero_copy_only=False)]
        counts = np.bincount(rows, minlength=counts.size)
        words = words.filter(filled)
    return words, counts


def word_counts(texts: pa.Array) -> csr_array:
    """Count words and pairs of successive words of each text in hashed, signed buckets.

    Letters are lowered and everything but letters, digits, apostrophes and underscores separates
    words; of a long text the first 20,000 characters count. A text's counts are scaled to length
    one. Scripts without spaces give whole sentences for words, so that little can be learned.

    Parameters
    ----------
    texts
        Arrow array of strings.

    Returns
    -------
    scipy.sparse.csr_array
        Shape (n, 8192), float64.

    Notes
    -----
    Cost: O(characters) time (about 0.5 microseconds a word), O(words) memory.
    Held by: tests/data/test_features.py::test_word_counts

    References
    ----------
    .. [Weinberger2009] Feature Hashing for Large Scale Multitask Learning. Weinberger, 2009,
       arXiv 0902.2206.

    Examples
    --------
    >>> import pyarrow as pa
    >>> counts = word_counts(pa.array(["To be or not", "to be, OR not!", None]))
    >>> bool(abs(counts[[0]] - counts[[1]]).sum() == 0), counts[[2]].nnz
    (True, 0)
    """
    return _hashed(*_words(texts))


def _hashed(words: pa.Array, counts: np.ndarray) -> csr_array:
    """Hash the words of texts and their pairs into rows of length one."""
    from scipy.sparse import csr_array

    hashes = text_hashes(words)
    rows = np.repeat(np.arange(counts.size), counts)
    same = rows[1:] == rows[:-1]
    pairs = mix64(hashes[:-1] * np.uint64(0x9E3779B97F4A7C15) ^ hashes[1:])[same]
    tokens = np.concatenate([hashes, pairs])
    token_rows = np.concatenate([rows, rows[1:][same]])
    signs = np.where(tokens >> np.uint64(63), 1.0, -1.0)
    buckets = (tokens % np.uint64(BUCKETS)).astype(np.int64)
    matrix: Any = csr_array((signs, (token_rows, buckets)), shape=(counts.size, BUCKETS))
    matrix.sum_duplicates()
    entries = np.diff(matrix.indptr)
    squares = np.bincount(
        np.repeat(np.arange(counts.size), entries), weights=matrix.data**2, minlength=counts.size
    )
    matrix.data /= np.repeat(np.sqrt(np.maximum(squares, 1e-300)), entries)
    return matrix


@dataclasses.dataclass(frozen=True, eq=False)
class TextRule(ColumnRule):
    """Free text: characters, words, and 32 directions of hashed words and word pairs.

    The two lengths become features as numbers do. The directions are centred and share one
    factor, so that their total variance is one; a missing text stands at their mean. The
    directions are fitted on at most 20,000 texts, those with the smallest hashes, so that the
    choice depends on neither side nor order.

    Notes
    -----
    Cost: O(words) time and memory; the fit O(32 words) more, and 1.4 MB when stored.
    Held by: tests/data/test_features.py::test_text_domains_are_told_apart

    References
    ----------
    .. [Deerwester1990] Indexing by Latent Semantic Analysis. Deerwester, 1990, JASIS 41.
    """

    column: Column
    characters: Scale | None
    words: Scale | None
    directions: np.ndarray
    means: np.ndarray
    factor: float
    missing: Indicator | None

    @classmethod
    def fit(cls, column: Column, q: pa.Array, p: pa.Array) -> TextRule:
        """Fit to the pooled texts."""
        texts = pa.concat_arrays(
            [
                _values.texts(side, f"column {column.name!r} of {name}")
                for name, side in (("q", q), ("p", p))
            ]
        )
        n = len(texts)
        missing = Indicator.fit(texts.null_count, n)
        present = texts.drop_null()
        hashes = text_hashes(present)
        present = present.take(pa.array(np.argsort(hashes, kind="stable")[:FIT_ROWS]))
        counts = word_counts(present)
        directions = _directions(counts)
        projected = counts @ directions.T
        total = float(projected.var(axis=0).sum()) if len(present) else 0.0
        means = projected.mean(axis=0) if len(present) else np.zeros(directions.shape[0])
        characters = _characters(texts)
        words = _words(texts)[1].astype(np.float64)
        words[np.isnan(characters)] = np.nan
        return cls(
            column,
            Scale.fit(np.sort(characters[~np.isnan(characters)])),
            Scale.fit(np.sort(words[~np.isnan(words)])),
            directions,
            means,
            1.0 / total**0.5 if total > 0 else 1.0,
            missing,
        )

    @property
    def dense_rules(self) -> list[tuple[str, str]]:
        """Name and rule in words of each dense feature."""
        name = self.column.name
        out = self.characters.rules(f"{name} (characters)") if self.characters else []
        out = out + (self.words.rules(f"{name} (words)") if self.words else [])
        return out + self._direction_rules() + ([self.missing.rule(name)] if self.missing else [])

    @property
    def codes_rules(self) -> list[tuple[str, str]]:
        """Name and rule in words of each feature for trees."""
        name = self.column.name
        return [
            (f"{name} (characters)", "number of characters"),
            (f"{name} (words)", "number of words"),
            *self._direction_rules(),
        ]

    def _direction_rules(self) -> list[tuple[str, str]]:
        return [
            (
                f"{self.column.name} (words {j + 1})",
                f"direction {j + 1} of the hashed words and word pairs, times {self.factor:.6g}",
            )
            for j in range(self.directions.shape[0])
        ]

    def fill_dense(self, values: pa.Array, out: np.ndarray, where: str) -> None:
        """Write the dense features."""
        characters, words, projected = self._read(values, where)
        absent = np.isnan(characters)
        place = 0
        for scale, lengths in ((self.characters, characters), (self.words, words)):
            if scale is not None:
                filled = np.where(absent, scale.centre, lengths)
                scale.fill(filled, out[:, place : place + scale.width])
                place += scale.width
        stop = place + self.directions.shape[0]
        out[:, place:stop] = projected
        if self.missing:
            out[:, stop] = self.missing.factor * absent

    def fill_codes(self, values: pa.Array, out: np.ndarray, where: str) -> None:
        """Write the lengths and the directions."""
        out[:, 0], out[:, 1], out[:, 2:] = self._read(values, where)
        out[np.isnan(out[:, 0])] = np.nan

    def _read(self, values: pa.Array, where: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Characters, words and coordinates of each text; a missing one is NaN, any, zero."""
        texts = _values.texts(values, where)
        words, counts = _words(texts)
        characters = _characters(texts)
        projected = (_hashed(words, counts) @ self.directions.T - self.means) * self.factor
        projected[np.isnan(characters)] = 0.0
        return characters, counts.astype(np.float64), projected

    def to_dict(self) -> dict[str, Any]:
        """Return the fitted rule as JSON types; directions as base64 of little-endian float32."""
        return {
            "characters": fields_or_none(self.characters),
            "words": fields_or_none(self.words),
            "n_directions": self.directions.shape[0],
            "directions": base64.b64encode(self.directions.astype("<f4").tobytes()).decode("ascii"),
            "means": self.means.tolist(),
            "factor": self.factor,
            "missing": fields_or_none(self.missing),
        }

    @classmethod
    def from_dict(cls, column: Column, state: Mapping[str, Any]) -> TextRule:
        """Rebuild the rule from `to_dict`."""
        raw = np.frombuffer(base64.b64decode(state["directions"]), dtype="<f4")
        return cls(
            column,
            part_or_none(Scale, state["characters"]),
            part_or_none(Scale, state["words"]),
            raw.astype(np.float64).reshape(state["n_directions"], BUCKETS),
            np.array(state["means"], dtype=np.float64),
            state["factor"],
            part_or_none(Indicator, state["missing"]),
        )


def _characters(texts: pa.Array) -> np.ndarray:
    """Characters of each text, NaN where missing."""
    return _values.numbers(_values.pc.utf8_length(texts))


def _directions(counts: csr_array) -> np.ndarray:
    """Leading directions of the weighted buckets, as factors of the unweighted ones.

    In single precision, so that they can be stored exactly.
    """
    n = counts.indptr.size - 1
    if n == 0 or counts.nnz == 0:
        return np.zeros((0, BUCKETS))
    from sklearn.decomposition import TruncatedSVD

    rarity = np.log((1.0 + n) / (1.0 + np.bincount(counts.indices, minlength=BUCKETS)))
    weighted = counts.copy()
    weighted.data *= rarity[counts.indices]
    svd: Any = TruncatedSVD(n_components=min(DIRECTIONS, n), n_iter=5, random_state=0)
    # equal texts explain 0 of a variance of 0
    with one_thread_each(), np.errstate(divide="ignore", invalid="ignore"):
        svd.fit(weighted)
    strong = svd.singular_values_ > 1e-6 * svd.singular_values_[0]
    vectors = svd.components_[strong] * rarity
    return vectors.astype(np.float32).astype(np.float64)
