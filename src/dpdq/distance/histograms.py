"""Shares of q, of p and of reweighted q over the same few bins, for a reader's eye.

Numbers are cut at round edges: about twenty bins over the pooled range from the 0.5 to the 99.5 %
point, with everything beyond folded into the end bins. Whole numbers within a short range get one
bar each, and so do few distinct values. Levels get a bar each for the twelve most frequent of both
sides together, one for all others and one for missing values.

The bins depend on q and p together and not on which is which. Shares are of the rows whose value
is there (numbers) or of all rows (levels), and sum to one; a side without values has zeros.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dpdq.distance._columns import (
    LEVEL_KINDS,
    MICROSECONDS,
    Levels,
    level_text,
    read_codes,
    read_ordered,
)
from dpdq.distance._sweep import Sweep
from dpdq.errors import DataError, InputTypeError
from dpdq.results import Result

__all__ = ["Histogram", "reweighted_histogram"]

_BINS = 25  # at most about so many; round widths make it 12 to 25
_BARS = 12
_INTEGER_BARS = 30
OTHER, MISSING = "(other)", "(missing)"


@dataclasses.dataclass(frozen=True, repr=False)
class Histogram(Result):
    """Shares of both sides over common bins.

    Attributes
    ----------
    kind
        ``"numeric"`` (bins between ``edges``, the outer ones open) or ``"levels"``.
    edges
        k + 1 numbers, ISO 8601 texts for instants, or None for levels.
    labels
        k texts, or None where the edges say it.
    q, p
        k shares each.
    q_weighted
        Shares of q under weights, or None.
    """

    kind: str
    edges: tuple[float, ...] | tuple[str, ...] | None
    labels: tuple[str, ...] | None
    q: tuple[float, ...]
    p: tuple[float, ...]
    q_weighted: tuple[float, ...] | None = None


def _shares(counts: np.ndarray) -> tuple[float, ...]:
    total = float(counts.sum())
    return tuple((counts / total if total > 0 else np.zeros(len(counts))).tolist())


def _bin_counts(ordered: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Rows of a sorted array in each bin [edge, next edge), the outer bins open."""
    cuts = np.searchsorted(ordered, edges[1:-1], side="left")
    return np.diff(np.concatenate([[0], cuts, [len(ordered)]]))


def pooled_order_statistic(s: np.ndarray, t: np.ndarray, rank: int) -> float:
    """The value with ``rank`` (from 0) values of two sorted arrays before it."""
    low, high = max(0, rank - len(t)), min(rank, len(s))  # of s among the first `rank`
    while low < high:
        i = (low + high) // 2
        if s[i] < t[rank - i - 1]:
            low = i + 1
        else:
            high = i
    j = rank - low
    if low >= len(s):
        return t[j]
    if j >= len(t):
        return s[low]
    return min(s[low], t[j])


def _nice_width(raw: float, *, whole: bool) -> float:
    exponent = math.floor(math.log10(raw))
    steps = (1.0, 2.0, 5.0, 10.0) if whole and exponent <= 0 else (1.0, 2.0, 2.5, 5.0, 10.0)
    widths = (step * 10.0**exponent for step in steps)
    width = next((w for w in widths if w >= raw * (1 - 1e-9)), 10.0 ** (exponent + 1))
    return max(1.0, width) if whole else width


_SECONDS = (
    *(1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800),
    *(3600 * k for k in (1, 2, 3, 6, 12)),
    *(86_400 * k for k in (1, 2, 7, 14, 30, 61, 91, 182, 365, 730, 1826, 3652, 7305, 18_262)),
)


def _even_edges(low: float, high: float, width: float) -> np.ndarray:
    start = math.floor(low / width + 1e-9)
    stop = max(start + 1, math.ceil(high / width - 1e-9))
    if high >= stop * width:  # bins are closed on the left
        stop += 1
    digits = max(0, 2 - math.floor(math.log10(width)))
    return np.unique(np.round(np.arange(start, stop + 1) * width, min(digits, 300)))


def ordered_histogram(s: np.ndarray, t: np.ndarray, swept: Sweep, kind: str) -> Histogram:
    """The histogram of two sorted samples of numbers or instants; neither is empty."""
    if kind == "datetime":
        return _instant_histogram(s, t)
    if swept.few and len(swept.heavy_values):
        values = swept.heavy_values
        whole = bool((values == np.round(values)).all())
        if whole and abs(values).max() < 2**53 and values[-1] - values[0] < _INTEGER_BARS:
            bars = np.arange(values[0], values[-1] + 1)
            edges = np.append(bars - 0.5, bars[-1] + 0.5)
            return Histogram(
                "numeric",
                tuple(edges.tolist()),
                tuple(str(int(v)) for v in bars),
                _shares(_bin_counts(s, edges)),
                _shares(_bin_counts(t, edges)),
            )
        if len(values) <= _BARS:
            return Histogram(
                "levels",
                None,
                tuple(_number_text(float(v)) for v in values),
                _shares(swept.heavy_q),
                _shares(swept.heavy_p),
            )
    edges = _number_edges(s, t)
    return Histogram(
        "numeric",
        tuple(edges.tolist()),
        None,
        _shares(_bin_counts(s, edges)),
        _shares(_bin_counts(t, edges)),
    )


def _number_text(value: float) -> str:
    return str(int(value)) if value == int(value) and abs(value) < 2**53 else repr(value)


def _range(s: np.ndarray, t: np.ndarray) -> tuple[float, float]:
    total = len(s) + len(t)
    low = float(pooled_order_statistic(s, t, int(0.005 * (total - 1))))
    high = float(pooled_order_statistic(s, t, math.ceil(0.995 * (total - 1))))
    if low == high:
        low, high = float(min(s[0], t[0])), float(max(s[-1], t[-1]))
    return low, high


def _number_edges(s: np.ndarray, t: np.ndarray) -> np.ndarray:
    low, high = _range(s, t)
    raw = high / _BINS - low / _BINS
    if np.isfinite(raw) and raw > 1e-13 * max(abs(low), abs(high)) and raw > 1e-290:
        whole = all(bool((x[:1000] == np.round(x[:1000])).all()) for x in (s, t))
        whole = whole and all(bool((x == np.round(x)).all()) for x in (s, t))
        edges = _even_edges(low, high, _nice_width(raw, whole=whole))
        if len(edges) >= 3 and np.isfinite(edges).all():
            return edges
    if high > low:  # a range near the resolution of doubles, or past their largest
        share = np.linspace(0, 1, 11)
        edges = np.unique(low * (1 - share) + high * share)
        if len(edges) >= 2 and np.isfinite(edges).all():
            return edges
    return np.array([np.nextafter(low, -np.inf), np.nextafter(high, np.inf)])


def _instant_histogram(s: np.ndarray, t: np.ndarray) -> Histogram:
    low, high = (x / MICROSECONDS for x in _range(s, t))
    raw = (high - low) / _BINS
    width = next((w for w in _SECONDS if w >= raw), None)
    if width is None:
        width = 36_525 * 86_400 * max(1, math.ceil(raw / (36_525 * 86_400)))
    edges = np.unique(np.round(_even_edges(low, high, width))).astype(np.int64)
    ticks = edges * MICROSECONDS
    dates = width >= 86_400
    return Histogram(
        "numeric",
        tuple(_iso(edge, date=dates) for edge in edges.tolist()),
        None,
        _shares(_bin_counts(s, ticks)),
        _shares(_bin_counts(t, ticks)),
    )


def _iso(seconds: int, *, date: bool) -> str:
    return str(np.datetime64(seconds, "s").astype("datetime64[D]" if date else "datetime64[s]"))


def level_histogram(levels: Levels, n_missing_q: int, n_missing_p: int) -> Histogram:
    """The histogram of levels: twelve bars, others, missing."""
    bars = len(levels.texts) if len(levels.texts) <= _BARS + 1 else _BARS
    labels = [level_text(text) for text in levels.texts[:bars]]
    q, p = list(levels.counts_q[:bars]), list(levels.counts_p[:bars])
    if bars < len(levels.texts):
        labels.append(OTHER)
        q.append(levels.counts_q[bars:].sum())
        p.append(levels.counts_p[bars:].sum())
    if n_missing_q + n_missing_p:
        labels.append(MISSING)
        q.append(n_missing_q)
        p.append(n_missing_p)
    return Histogram("levels", None, tuple(labels), _shares(np.array(q)), _shares(np.array(p)))


def reweighted_histogram(
    column: Any,
    histogram: Histogram | Mapping[str, Any],
    weights: np.ndarray,
    *,
    kind: str,
) -> Histogram:
    """Fill in the shares of q under weights, on the bins that are there.

        share_k = sum of w_i over rows i in bin k / sum of w_i

    The bins stay those of unweighted q and p. A row whose level has no bar counts under
    "(other)".

    Parameters
    ----------
    column
        The column of q, rows in the order of ``weights``; an Arrow or NumPy array.
    histogram
        What `compare_column` gave for this column, or its JSON.
    weights
        Importance weights of the rows, shape (n,), any scale.
    kind
        The column's kind.

    Returns
    -------
    Histogram
        The same with ``q_weighted``.

    Raises
    ------
    DataError
        ``weights`` does not have one finite, non-negative entry for each row.

    Notes
    -----
    Cost: O(n log k) time, O(n) memory.

    Examples
    --------
    >>> import numpy as np
    >>> h = Histogram("numeric", (0.0, 1.0, 2.0), None, (0.5, 0.5), (0.2, 0.8))
    >>> reweighted_histogram(np.array([0.5, 1.5]), h, np.array([0.5, 1.5]), kind="numeric")
    Histogram(kind='numeric', edges=(0.0, 1.0, 2.0), q=(0.5, 0.5), p=(0.2, 0.8),
        q_weighted=(0.25, 0.75))
    """
    given = histogram if isinstance(histogram, Histogram) else _from_json(histogram)
    w = np.asarray(weights, dtype=np.float64)
    if kind in LEVEL_KINDS:
        bins = _level_bins(column, kind, given)
    else:
        bins = _ordered_bins(column, kind, given)
    if w.shape != bins.shape:
        raise DataError(f"weights has shape {w.shape}; expected {bins.shape}, one for each row")
    if not np.isfinite(w).all() or (w < 0).any():
        raise DataError("weights must be finite and not negative")
    counts = np.bincount(bins + 1, weights=w, minlength=len(given.q) + 1)[1:]
    return dataclasses.replace(given, q_weighted=_shares(counts))


def _from_json(data: Mapping[str, Any]) -> Histogram:
    if not isinstance(data, Mapping) or "q" not in data:
        raise InputTypeError("histogram is neither a Histogram nor its to_dict()")

    def fixed(values: Sequence[Any] | None) -> tuple[Any, ...] | None:
        return None if values is None else tuple(values)

    return Histogram(
        data["kind"],
        fixed(data["edges"]),
        fixed(data["labels"]),
        tuple(data["q"]),
        tuple(data["p"]),
        fixed(data.get("q_weighted")),
    )


def _ordered_bins(column: Any, kind: str, given: Histogram) -> np.ndarray:
    """The bin of each row, -1 where missing."""
    side = read_ordered(column, kind, "column of q")[0]
    if given.edges is None:
        values = np.array([float(label) for label in given.labels or ()])
        bins = np.minimum(np.searchsorted(values, side.rows), len(values) - 1)
    else:
        inner = given.edges[1:-1]
        if kind == "datetime":
            cuts = np.array(inner, dtype="datetime64[us]").astype(np.int64)
        else:
            cuts = np.array(inner, dtype=np.float64)
        bins = np.searchsorted(cuts, side.rows, side="right")
    return np.where(side.mask(), bins, -1)


def _level_bins(column: Any, kind: str, given: Histogram) -> np.ndarray:
    codes, texts = read_codes(column, kind, "column of q")
    labels = list(given.labels or ())
    own = {OTHER, MISSING}
    place = {label: k for k, label in enumerate(labels) if label not in own}
    other = labels.index(OTHER) if OTHER in labels else -1
    missing = labels.index(MISSING) if MISSING in labels else -1
    to = [place.get(level_text(text or ""), other) for text in texts.to_pylist()]
    return np.array([*to, missing], dtype=np.int64)[codes]
