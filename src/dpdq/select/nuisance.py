"""What a score says beyond source, length and other nuisances.

Many utilities mostly sort by where a row came from or how long it is. With strata s of equal
nuisance, the share of the score's rank variance between strata is

    explained = 1 - (within-stratum mean square) / (total mean square)      (omega-squared)

and the conditional score of a row is its rank among the rows of its own stratum, in (0, 1): a
selection by it keeps every stratum at the same rate.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from dpdq._random import row_keys
from dpdq.errors import DataError
from dpdq.results import Result
from dpdq.select._base import check_utility
from dpdq.select.chosen import level_codes

__all__ = ["ConditionalUtility", "conditional_utility"]

_FEW = 20
_ONLY_SORTS = 0.8


@dataclasses.dataclass(frozen=True, repr=False)
class ConditionalUtility(Result):
    """A utility with what nuisance columns explain of it.

    Attributes
    ----------
    utility
        Rank of each row within its stratum, in (0, 1), shape (n,).
    explained
        Share of the rank variance of the original score that all nuisances explain together.
    by_column
        The same for each nuisance alone.
    n_strata
        Strata of equal nuisance; those of fewer than 20 rows are joined into one.
    status
        What that means in a sentence.
    """

    utility: np.ndarray
    explained: float
    by_column: Mapping[str, float]
    n_strata: int
    status: str = ""


def _ranks(values: np.ndarray) -> np.ndarray:
    """Mid-ranks, 1 to n."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]


def _explained(ranks: np.ndarray, codes: np.ndarray) -> float:
    n, k = len(ranks), int(codes.max()) + 1
    total = float(np.sum((ranks - ranks.mean()) ** 2))
    if total == 0 or k == 1 or n <= k:
        return 0.0
    means = np.bincount(codes, ranks) / np.bincount(codes)
    within = float(np.sum((ranks - means[codes]) ** 2)) / (n - k)
    return max(0.0, (total - within * (n - 1)) / (total + within))


def conditional_utility(
    utility: Any, nuisance: Mapping[str, Any], *, seed: int = 0
) -> ConditionalUtility:
    """Score rows within strata of equal source, length or other nuisance.

    Parameters
    ----------
    utility
        Utility of each row, shape (n,); minus infinity stays minus infinity.
    nuisance
        Name -> label or number of each row, shape (n,); numbers of more than 20 values are cut at
        their deciles.
    seed
        Of the keys that break ties within a stratum.

    Returns
    -------
    ConditionalUtility
        Ranks within strata, and how much of the score the nuisances explain.

    Raises
    ------
    DataError
        Lengths differ, or no nuisance is given.

    Notes
    -----
    Cost: O(n log n) time, O(n) memory.
    Held by: tests/select/test_nuisance.py::test_a_score_that_only_sorts_by_source_is_told

    Examples
    --------
    >>> from dpdq.select import conditional_utility
    >>> source = ["a", "b"] * 50
    >>> told = conditional_utility([float(s == "b") for s in source], {"source": source})
    >>> round(told.explained, 2), told.status[:33]
    (1.0, 'source explains 100 % of the rank')
    """
    values = check_utility(utility)
    if not nuisance:
        raise DataError("nuisance is empty; give at least one column, such as source or length")
    alive = values > -np.inf
    ranks = _ranks(values[alive])
    by_column: dict[str, float] = {}
    joint = np.zeros(len(values), dtype=np.int64)
    for name, column in nuisance.items():
        codes = level_codes(column, len(values))[1]
        by_column[name] = _explained(ranks, np.unique(codes[alive], return_inverse=True)[1])
        joint = np.unique(joint * (int(codes.max()) + 1) + codes, return_inverse=True)[1]
    small = np.bincount(joint)[joint] < _FEW
    if small.any():
        joint = np.unique(np.where(small, -1, joint), return_inverse=True)[1]
    explained = _explained(ranks, np.unique(joint[alive], return_inverse=True)[1])
    order = np.lexsort((row_keys(0, len(values), seed), values, joint))
    sizes = np.bincount(joint)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    place = np.empty(len(values))
    place[order] = np.arange(len(values))
    scores = (place - starts[joint] + 0.5) / sizes[joint]
    scores[~alive] = -np.inf
    names = ", ".join(nuisance)
    text = f"{names} explains {100 * explained:.0f} % of the ranks of this score"
    if explained > _ONLY_SORTS:
        text += f": it only sorts by {names}; select by the conditional score, or by quota"
    return ConditionalUtility(scores, explained, by_column, len(sizes), text)
