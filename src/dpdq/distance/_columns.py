"""One column of q and of p as plain values: numbers in order, or levels with counts.

The kinds fall into two families. *Ordered* columns (numeric, datetime, text by its length,
embedding by its norm) become numbers, sorted once; every statistic then reads the sorted arrays.
*Level* columns (boolean, categorical) become one code per row over the levels of both sides,
numbered by pooled frequency and then by text, so that no number depends on the order of rows.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.types as pt

from dpdq.data import _values
from dpdq.data._values import pc
from dpdq.errors import DataError, OptionError

__all__ = [
    "LEVEL_KINDS",
    "Levels",
    "Ordered",
    "as_arrow",
    "level_text",
    "read_codes",
    "read_levels",
    "read_ordered",
]

LEVEL_KINDS = ("boolean", "categorical")
_ORDERED_KINDS = ("numeric", "datetime", "text", "embedding")
_LABEL_LENGTH = 80
MICROSECONDS = 1_000_000


def as_arrow(column: Any, side: str) -> Any:
    """A column as one Arrow array; NumPy arrays and lists become one without a copy if possible."""
    if isinstance(column, (pa.Array, pa.ChunkedArray)):
        return _values._joined(column)
    values = column if isinstance(column, np.ndarray) else np.asarray(column)
    if values.ndim == 2 and values.dtype.kind in "fiub":
        flat = pa.array(np.ascontiguousarray(values, dtype=np.float64).ravel())
        return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
    if values.ndim != 1:
        raise DataError(f"{side} has shape {values.shape}; expected one column of shape (n,)")
    if values.dtype.kind == "M":
        values = values.astype("datetime64[us]")
    try:
        return pa.array(values, from_pandas=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise DataError(f"{side} mixes types in one column ({error}); convert it first") from None


# ------------------------------------------------------------------------------ ordered columns


@dataclasses.dataclass(frozen=True)
class Ordered:
    """One number a row.

    ``rows`` has one value a row of the side, ``present`` says which are there, ``sorted`` holds
    those in order. Instants are int64 microseconds, everything else is float64.
    """

    rows: np.ndarray
    present: np.ndarray | None  # None: all

    @property
    def values(self) -> np.ndarray:
        return self.rows if self.present is None else self.rows[self.present]

    @property
    def n_rows(self) -> int:
        return len(self.rows)

    @property
    def n_missing(self) -> int:
        return 0 if self.present is None else int(len(self.rows) - np.count_nonzero(self.present))

    def mask(self) -> np.ndarray:
        return np.ones(len(self.rows), bool) if self.present is None else self.present


def read_ordered(column: Any, kind: str, where: str) -> list[Ordered]:
    """The numbers of a column; free text gives two (characters, words), others one.

    Null, NaN and infinite values are missing.
    """
    if kind not in _ORDERED_KINDS:
        known = (*_ORDERED_KINDS, *LEVEL_KINDS)
        raise OptionError(f"Unknown kind {kind!r}. Choose one of {known}.")
    array = as_arrow(column, where)
    if kind == "datetime":
        microseconds, _, missing = _values.instants(array, where)
        return [Ordered(microseconds, ~missing if missing.any() else None)]
    if kind == "text":
        texts = _values.texts(array, where)
        words = pc.count_substring_regex(texts, pattern=r"\S+")
        return [_finite(_numbers(pc.utf8_length(texts))), _finite(_numbers(words))]
    if kind == "embedding":
        vectors = _values.vectors(array, where)
        norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
        there = pc.is_valid(array).to_numpy(zero_copy_only=False)
        return [_finite(np.where(there, norms, np.nan))]
    return [_finite(_values.numbers(array, where))]


def _numbers(array: Any) -> np.ndarray:
    return array.to_numpy(zero_copy_only=False).astype(np.float64, copy=False)


def _finite(values: np.ndarray) -> Ordered:
    finite = np.isfinite(values)
    return Ordered(values, None if finite.all() else finite)


# -------------------------------------------------------------------------------- level columns


@dataclasses.dataclass(frozen=True)
class Levels:
    """Codes of both sides over the levels of both, most frequent first; -1 is missing."""

    texts: list[str]
    codes_q: np.ndarray
    codes_p: np.ndarray
    counts_q: np.ndarray
    counts_p: np.ndarray


def level_text(text: str) -> str:
    """A level's text as a label: at most 80 characters, and never like one of our own labels."""
    if text in ("(other)", "(missing)"):
        return f'"{text}"'
    if len(text) <= _LABEL_LENGTH:
        return text
    import hashlib  # two long texts with one beginning stay apart

    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=3).hexdigest()
    return f"{text[: _LABEL_LENGTH - 8]}\N{HORIZONTAL ELLIPSIS}{digest}"


def read_codes(column: Any, kind: str, where: str) -> tuple[np.ndarray, Any]:
    """Codes of one side and the texts of its levels, as `dpdq.data` spells them."""
    array = as_arrow(column, where)
    if kind == "boolean":
        values = _values.booleans(array, where)
        codes = np.where(np.isnan(values), -1, values).astype(np.int64)
        return codes, pa.array(["false", "true"], pa.large_string())
    if pt.is_floating(array.type):  # infinite values are missing, as in ordered columns
        finite = pc.fill_null(pc.is_finite(array), False)
        array = pc.if_else(finite, array, pa.scalar(None, array.type))
    return _values.labels(array, where)


def read_levels(q: Any, p: Any, kind: str, name: str) -> Levels:
    """Levels of both sides on one list, ordered by pooled count and then by text."""
    codes_q, texts_q = read_codes(q, kind, f"{name} of q")
    codes_p, texts_p = read_codes(p, kind, f"{name} of p")
    both = pa.concat_arrays([texts_q, texts_p]).dictionary_encode()
    unified = pc.fill_null(both.indices, 0).to_numpy(zero_copy_only=False).astype(np.int64)
    n_levels = len(both.dictionary)
    codes_q = _recode(codes_q, unified[: len(texts_q)])
    codes_p = _recode(codes_p, unified[len(texts_q) :])
    counts_q = np.bincount(codes_q + 1, minlength=n_levels + 1)[1:]
    counts_p = np.bincount(codes_p + 1, minlength=n_levels + 1)[1:]
    pooled = counts_q + counts_p
    if kind == "boolean":
        order = np.arange(n_levels)
    else:
        table = pa.table({"count": pooled, "text": both.dictionary})
        keys = [("count", "descending"), ("text", "ascending")]
        order = pc.sort_indices(table, sort_keys=keys).to_numpy().astype(np.int64)
        order = order[pooled[order] > 0]
    rank = np.full(n_levels + 1, -1)
    rank[order] = np.arange(len(order))
    texts = both.dictionary.take(pa.array(order)).to_pylist()
    return Levels(texts, rank[codes_q], rank[codes_p], counts_q[order], counts_p[order])


def _recode(codes: np.ndarray, to: np.ndarray) -> np.ndarray:
    return np.append(to, -1)[codes]  # code -1 takes the last entry
