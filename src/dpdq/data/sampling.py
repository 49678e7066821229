"""Which rows a computation looks at when it need not look at all.

Every row has a pseudo-random key that depends on its number and the seed alone. The k rows with
the smallest keys are a uniform sample without replacement, the same one however the rows were
divided into batches, and the sample of a whole is found among the samples of its parts.
"""

from __future__ import annotations

import numpy as np

from dpdq._random import row_keys
from dpdq.errors import OptionError
from dpdq.passes import BLOCK_ROWS

__all__ = ["bottom_k_rows"]


def bottom_k_rows(n_rows: int, k: int, seed: int = 0) -> np.ndarray:
    """Draw k of n rows uniformly without replacement: those with the smallest keys.

    Two sides of equal size give the same row numbers for the same seed; give each side a seed of
    its own where that matters.

    Parameters
    ----------
    n_rows
        Number of rows n.
    k
        Number of rows to draw; all rows are taken if n <= k.
    seed
        Seed of the keys.

    Returns
    -------
    numpy.ndarray
        Row numbers, int64, ascending, shape (min(n, k),).

    Raises
    ------
    OptionError
        If n or k is negative.

    Notes
    -----
    Cost: O(n) time (about 10 ns a row), O(k) memory.

    Examples
    --------
    >>> bottom_k_rows(10, 3, seed=1).size
    3
    >>> bottom_k_rows(3, 10).tolist()
    [0, 1, 2]
    """
    if n_rows < 0 or k < 0:
        raise OptionError(f"n_rows is {n_rows} and k is {k}; neither may be negative")
    if n_rows <= k:
        return np.arange(n_rows, dtype=np.int64)
    if k == 0:
        return np.zeros(0, np.int64)
    keys = np.zeros(0, np.uint64)
    rows = np.zeros(0, np.int64)
    limit = np.uint64(2**64 - 1)
    for start in range(0, n_rows, BLOCK_ROWS):
        stop = min(start + BLOCK_ROWS, n_rows)
        block = row_keys(start, stop, seed)
        low = np.flatnonzero(block <= limit)
        keys = np.concatenate([keys, block[low]])
        rows = np.concatenate([rows, low + start])
        if keys.size > 2 * k or stop == n_rows:
            kept = np.argpartition(keys, k - 1)[:k] if keys.size > k else slice(None)
            keys, rows = keys[kept], rows[kept]
            limit = keys.max() if keys.size == k else limit
    return np.sort(rows)
