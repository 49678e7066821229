"""Folds that cannot leak: which rows are scored by which model.

Cross-fitting scores every row by a model that has not seen it. With K folds, model k is fitted on
the rows outside fold k and scores fold k. "Not seen" must mean more than the row itself:

    content   equal rows stay in one fold: hash(content) mod K
    group     rows of one group stay in one fold: hash(group) mod K
    time      each side is cut into K blocks of successive rows, equal times in one block

The first is the rule where nothing else is known. Shuffled folds of time-ordered or grouped rows
flatter a model, since the neighbour of a held-out row sits in the training part. Under the second
and the third rule a row may still have an equal in another fold; `ExclusionMask` keeps such rows
out of the models that would score their equals.
"""

from __future__ import annotations

import heapq

import numpy as np

from dpdq._random import mix64
from dpdq.errors import DataError, OptionError

__all__ = ["ExclusionMask", "assign_folds", "seen_elsewhere", "units_for_tests"]

_FEW = 1_000  # units below which folds are balanced one by one
_LOOK = 100_000  # rows looked at to see whether there are few


def assign_folds(
    content_q: np.ndarray,
    content_p: np.ndarray,
    *,
    group_q: np.ndarray | None = None,
    group_p: np.ndarray | None = None,
    time_q: np.ndarray | None = None,
    time_p: np.ndarray | None = None,
    n_folds: int = 5,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Assign every row of both sides to a fold.

    Time decides if given, else the group, else the content. Contents and groups go by hash, so
    that equal hashes share a fold across sides and the fold of a row depends on nothing else;
    those of a side with fewer than 1,000 distinct ones are instead dealt out one by one, largest
    first, to the fold that holds least, so that no fold is empty on a side that has at least K of
    them. Time gives each side K blocks of successive rows as equal in size as ties
    allow; missing times come last.

    Misleads under time folds where the two sides cover different times: the blocks are of each
    side's own time.

    Parameters
    ----------
    content_q, content_p
        Row hashes, uint64, shapes (n,) and (m,).
    group_q, group_p
        Hashes of the rows' groups, on both sides or on neither.
    time_q, time_p
        Times as numbers or datetime64, on both sides or on neither.
    n_folds
        K, from 2 to 16.
    seed
        Seed of the hash.

    Returns
    -------
    folds_q, folds_p : numpy.ndarray
        uint8 from 0 to K - 1, shapes (n,) and (m,).

    Raises
    ------
    OptionError
        If K is outside its range.
    DataError
        If groups or times are given for one side only or have the wrong length.

    Notes
    -----
    Cost: O(n) time for contents and groups, O(n log n) for times; O(n) memory.

    Examples
    --------
    >>> import numpy as np
    >>> rows = np.arange(10, dtype=np.uint64)
    >>> folds_q, folds_p = assign_folds(rows, rows[:5], n_folds=5)
    >>> np.bincount(folds_q).tolist(), np.bincount(folds_p).tolist()
    ([2, 2, 2, 2, 2], [1, 1, 1, 1, 1])
    >>> bool((folds_q[:5] == folds_p).all())
    True
    """
    if not 2 <= n_folds <= 16:
        raise OptionError(f"n_folds is {n_folds}; give a number from 2 to 16")
    _check_pair("group", group_q, group_p, content_q, content_p)
    _check_pair("time", time_q, time_p, content_q, content_p)
    if time_q is not None and time_p is not None:
        return _blocks(time_q, n_folds).astype(np.uint8), _blocks(time_p, n_folds).astype(np.uint8)
    units_q = content_q if group_q is None else group_q
    units_p = content_p if group_p is None else group_p
    salt = mix64(np.array([seed], np.uint64) + np.uint64(0x9E3779B97F4A7C15))
    keys_q, keys_p = mix64(units_q ^ salt), mix64(units_p ^ salt)
    few = [keys for keys in (keys_q, keys_p) if _has_few(keys)]
    units = np.unique(np.concatenate([*few, keys_q[:0]]))
    return _folds_of_keys(keys_q, keys_p, units, n_folds)


def _check_pair(
    what: str,
    q: np.ndarray | None,
    p: np.ndarray | None,
    content_q: np.ndarray,
    content_p: np.ndarray,
) -> None:
    if (q is None) != (p is None):
        side = "p" if p is None else "q"
        raise DataError(f"{what}s are missing on side {side}; give them for both sides or neither")
    for side, values, content in (("q", q, content_q), ("p", p, content_p)):
        if values is not None and len(values) != len(content):
            raise DataError(f"side {side} has {len(content)} rows but {len(values)} {what}s")


def _has_few(keys: np.ndarray) -> bool:
    """Whether a side has fewer than `_FEW` distinct units."""
    return np.unique(keys[:_LOOK]).size < _FEW and np.unique(keys).size < _FEW


def _folds_of_keys(
    keys_q: np.ndarray, keys_p: np.ndarray, units: np.ndarray, n_folds: int
) -> tuple[np.ndarray, np.ndarray]:
    """Fold of each key: the one that its unit was dealt, or its hash where it is none of these."""
    by_hash = [(keys % np.uint64(n_folds)).astype(np.uint8) for keys in (keys_q, keys_p)]
    if units.size == 0:
        return by_hash[0], by_hash[1]
    places = [np.minimum(np.searchsorted(units, keys), units.size - 1) for keys in (keys_q, keys_p)]
    known = [units[place] == keys for place, keys in zip(places, (keys_q, keys_p), strict=True)]
    sizes = [
        np.bincount(place[is_unit], minlength=units.size) / max(place.size, 1)
        for place, is_unit in zip(places, known, strict=True)
    ]
    folds = _dealt_out(sizes[0], sizes[1], n_folds)
    out = [
        np.where(is_unit, folds[place], hashed)
        for place, is_unit, hashed in zip(places, known, by_hash, strict=True)
    ]
    return out[0], out[1]


def _dealt_out(size_q: np.ndarray, size_p: np.ndarray, n_folds: int) -> np.ndarray:
    """Deal units out by size: those of both sides first, then those of one side."""
    both = (size_q > 0) & (size_p > 0)
    folds = np.zeros(size_q.size, np.uint8)
    load_q, load_p = np.zeros(n_folds), np.zeros(n_folds)
    # units are sorted by key, so that ties in size are broken at random
    for chosen in (both, (size_q > 0) & ~both, (size_p > 0) & ~both):
        members = np.flatnonzero(chosen)
        members = members[np.argsort(-(size_q + size_p)[members], kind="stable")]
        counts_q, counts_p = bool(size_q[members].any()), bool(size_p[members].any())
        heap = [(counts_q * load_q[k] + counts_p * load_p[k], k) for k in range(n_folds)]
        heapq.heapify(heap)
        for unit in members.tolist():
            load, k = heap[0]
            heapq.heapreplace(heap, (load + (size_q[unit] + size_p[unit]), k))
            folds[unit] = k
            load_q[k] += size_q[unit]
            load_p[k] += size_p[unit]
    return folds


def _blocks(time: np.ndarray, n_blocks: int) -> np.ndarray:
    """Cut successive rows into blocks of about equal size and number each row's."""
    n = time.shape[0]
    if n == 0:
        return np.zeros(0, np.int64)
    values, inverse, counts = np.unique(time, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    # twice the middle of each tie, so that the arithmetic stays in whole numbers
    block = n_blocks * (2 * ends - counts) // (2 * n)
    order = np.arange(values.size)
    block = np.minimum(block, order)  # the first block is not skipped,
    block = order + np.minimum.accumulate(block - order)  # nor any between,
    block = np.maximum(block, order - max(values.size - n_blocks, 0))  # nor the last
    return block[inverse]


class ExclusionMask:
    """Which rows of a training sample each of the K models must not see.

    Model k scores every row of fold k, so that a row must not train it if the row lies in fold k,
    if an equal row does, or if a row of its group does. The rows of all folds are shown to the
    mask in batches; the order and the sizes of the batches do not matter.

    Parameters
    ----------
    content
        Row hashes of the sample, uint64, shape (n,).
    group
        Hashes of the sample's groups, or None.
    n_folds
        K, at most 16.

    Notes
    -----
    Cost: O(m log n) time for m rows shown, O(n) memory.

    Examples
    --------
    >>> import numpy as np
    >>> content = np.array([7, 8], np.uint64)
    >>> mask = ExclusionMask(content, n_folds=2)
    >>> mask.update(np.array([7, 7, 8], np.uint64), np.array([0, 1, 1], np.uint8))
    >>> mask.training_mask(1, folds=np.array([0, 1], np.uint8)).tolist()
    [False, False]
    >>> mask.training_mask(0, folds=np.array([0, 1], np.uint8)).tolist()
    [False, True]
    """

    def __init__(
        self, content: np.ndarray, group: np.ndarray | None = None, *, n_folds: int = 5
    ) -> None:
        if not 2 <= n_folds <= 16:
            raise OptionError(f"n_folds is {n_folds}; give a number from 2 to 16")
        self.n_folds = n_folds
        self._content = _FoldsOfKeys(content)
        self._group = None if group is None else _FoldsOfKeys(group)

    def update(
        self, content: np.ndarray, folds: np.ndarray, group: np.ndarray | None = None
    ) -> None:
        """Show the mask some rows with the folds they lie in.

        Raises
        ------
        DataError
            If the sample has groups and these rows have none, or the other way round.
        """
        if (group is None) != (self._group is None):
            raise DataError(
                "groups must be given for the sample and the rows shown, or for neither"
            )
        self._content.update(content, folds, self.n_folds)
        if self._group is not None and group is not None:
            self._group.update(group, folds, self.n_folds)

    def merge(self, other: ExclusionMask) -> ExclusionMask:
        """Join what another mask over the same sample was shown into this one."""
        self._content.bits |= other._content.bits
        if self._group is not None and other._group is not None:
            self._group.bits |= other._group.bits
        return self

    def training_mask(self, k: int, folds: np.ndarray) -> np.ndarray:
        """Say which rows of the sample may train model k.

        Parameters
        ----------
        k
            The model's fold.
        folds
            Folds of the sample's rows, shape (n,).

        Returns
        -------
        numpy.ndarray
            Boolean, shape (n,).
        """
        seen = self._content.holds(k)
        if self._group is not None:
            seen = seen | self._group.holds(k)
        return ~seen & (folds != k)


class _FoldsOfKeys:
    """The set of folds, as bits, in which each key of a sample was met."""

    def __init__(self, keys: np.ndarray) -> None:
        self.keys, self.inverse = np.unique(keys, return_inverse=True)
        self.bits = np.zeros(self.keys.size, np.uint16)

    def update(self, keys: np.ndarray, folds: np.ndarray, n_folds: int) -> None:
        if self.keys.size == 0:
            return
        place = np.minimum(np.searchsorted(self.keys, keys), self.keys.size - 1)
        known = self.keys[place] == keys
        place, folds = place[known], folds[known]
        for k in range(n_folds):
            self.bits[place[folds == k]] |= np.uint16(1 << k)

    def holds(self, k: int) -> np.ndarray:
        return ((self.bits >> np.uint16(k)) & np.uint16(1)).astype(bool)[self.inverse]


def seen_elsewhere(
    folds_sample: np.ndarray,
    content_sample: np.ndarray,
    group_sample: np.ndarray | None,
    folds_all: np.ndarray,
    content_all: np.ndarray,
    group_all: np.ndarray | None,
    *,
    n_folds: int = 5,
) -> np.ndarray:
    """Say which rows of a sample must not train which model, with all rows at hand.

    Parameters
    ----------
    folds_sample, content_sample, group_sample
        Folds, row hashes and group hashes (or None) of the sample, shape (n,).
    folds_all, content_all, group_all
        The same of all rows that will be scored, of both sides, shape (m,).
    n_folds
        K.

    Returns
    -------
    numpy.ndarray
        Boolean, shape (n, K): True where the row must not train model k, because it lies in fold
        k, or an equal row does, or a row of its group.

    Notes
    -----
    Cost: O(m log n) time, O(n K) memory.

    Examples
    --------
    >>> import numpy as np
    >>> folds, content = np.array([0, 1, 1]), np.array([7, 7, 8], np.uint64)
    >>> seen_elsewhere(folds, content, None, folds, content, None, n_folds=2).tolist()
    [[True, True], [True, True], [False, True]]
    """
    mask = ExclusionMask(content_sample, group_sample, n_folds=n_folds)
    mask.update(content_all, folds_all, group_all)
    return np.stack([~mask.training_mask(k, folds_sample) for k in range(n_folds)], axis=1)


def units_for_tests(
    *,
    group_q: np.ndarray | None = None,
    group_p: np.ndarray | None = None,
    time_q: np.ndarray | None = None,
    time_p: np.ndarray | None = None,
    n_blocks: int = 20,
) -> tuple[np.ndarray, np.ndarray] | None:
    """Name the units that a permutation test must move as a whole.

    Successive or grouped rows are not exchangeable one by one; their blocks and groups are, more
    nearly. Time decides if given, as it does for folds.

    Misleads where blocks are shorter than the memory of the series.

    Parameters
    ----------
    group_q, group_p
        Hashes of the rows' groups, on both sides or on neither.
    time_q, time_p
        Times, on both sides or on neither.
    n_blocks
        Blocks of successive rows a side, as equal in size as ties allow.

    Returns
    -------
    (units_q, units_p) or None
        int64 numbers of units, shapes (n,) and (m,): a group has one number on both sides, a block
        belongs to one side. None where rows may be permuted one by one.

    Notes
    -----
    Cost: O(n log n) time, O(n) memory.

    Examples
    --------
    >>> import numpy as np
    >>> units_q, units_p = units_for_tests(time_q=np.arange(4), time_p=np.arange(2), n_blocks=2)
    >>> units_q.tolist(), units_p.tolist()
    ([0, 0, 1, 1], [2, 3])
    """
    if time_q is not None and time_p is not None:
        return _blocks(time_q, n_blocks), _blocks(time_p, n_blocks) + n_blocks
    if group_q is not None and group_p is not None:
        _, inverse = np.unique(np.concatenate([group_q, group_p]), return_inverse=True)
        return inverse[: group_q.size], inverse[group_q.size :]
    return None
