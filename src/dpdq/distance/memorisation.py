"""Memorisation: do generated rows sit closer to the training rows than fresh real rows do?

A model that repeats its training set has a perfect Fréchet distance, precision and coverage. What
gives it away is a third sample: real rows p that it was not trained on. With the distance to the
nearest training row d(x) = min_t ||x - t||,

    A = P(d(X) < d(Y)) + 1/2 P(d(X) = d(Y)),   X ~ Q, Y ~ P,

is 1/2 for a model that draws from P, near 1 for one that copies, and below 1/2 for one that draws
from elsewhere. Given the training rows, the distances of q and of p are exchangeable under Q = P,
so that a test by permutation is exact. A model that prefers dense regions also comes close to
training rows without copying any: comparing inside cells of a partition of the training set takes
the larger part of that away.

A rank statistic answers for the bulk. A model that copies one row in fifty moves it hardly at all,
and is found in the tail: the rows of q nearer to a training row than nearly all fresh ones. Both
are looked at here. The definition does not fix the features: in pixels a shifted copy is far away,
in features of a classifier all cats are near.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np
from scipy.special import betaincinv

from dpdq._random import RandomState, as_generator, child_seed
from dpdq.distance._common import check_sides, normal_quantile
from dpdq.distance._rank_laws import choose_rows, permutation_share
from dpdq.distance.roc import auc_interval
from dpdq.errors import DataError, OptionError
from dpdq.kernels import check_points
from dpdq.neighbors import nearest_neighbors
from dpdq.results import Estimate, TestResult

__all__ = ["MemorisationResult", "memorisation_test"]

SHOWN = 10  # closest pairs that are listed
ROWS_A_CELL = 50  # fresh real rows that a cell should hold on average
KEYS = 2_000_000  # random numbers in memory at a time


@dataclasses.dataclass(frozen=True, repr=False)
class MemorisationResult(TestResult):
    """Whether q copies its training rows, in the bulk or in the tail.

    ``pvalue`` is twice the smaller of the two below, ``statistic`` the standardised rank sum
    inside cells (positive: closer than fresh rows), ``effect`` the probability that a generated
    row lies closer to the training set than a fresh one of the same cell.

    Attributes
    ----------
    rank_pvalue
        Of the rank statistic, by permutation.
    near_copies
        Share of rows of q that lie nearer to a training row than ``near_distance``.
    near_expected
        What that share is expected to be if nothing is copied.
    near_pvalue
        Probability of so many near copies if nothing is copied.
    near_distance
        A low quantile of the distances of fresh rows.
    closest
        The closest pairs: row of q, training row, distance.
    """

    rank_pvalue: float = 1.0
    near_copies: Estimate = dataclasses.field(default_factory=lambda: Estimate(None))
    near_expected: float = 0.0
    near_pvalue: float = 1.0
    near_distance: float = 0.0
    closest: tuple[tuple[int, int, float], ...] = ()


def memorisation_test(
    q: np.ndarray,
    p: np.ndarray,
    *,
    train: np.ndarray,
    n_cells: int | Literal["auto"] = "auto",
    near_quantile: float = 0.01,
    n_permutations: int = 999,
    level: float = 0.95,
    random_state: RandomState = None,
) -> MemorisationResult:
    """Test whether generated rows lie closer to the training rows than fresh real rows do.

        A_c = P(d(X) < d(Y)) + 1/2 P(d(X) = d(Y)),  d(x) = min_t ||x - t||,  in cell c,
        near copies = mean_j [d(q_j) < m-th smallest d(p_i)]

    Null: given the training rows, the distances of q and of p have one law in every cell, as they
    have when Q = P. A model that is simply wrong breaks the null too: one that draws only typical
    rows comes closer without copying (a small p-value, but few near copies), one that draws noise
    stays away and hides what it copies from the ranks (not from the near copies). If p shares rows
    with the training set, nothing can be found. There are no weights: rows are permuted, and a
    permutation of weighted rows is exact for no useful null.

    Parameters
    ----------
    q
        Features of generated rows, shape (n_q, d).
    p
        Features of real rows that the model has not seen, shape (n_p, d).
    train
        Features of its training rows, shape (n_train, d).
    n_cells
        Cells of k-means on the training rows in which ranks are compared; 1 for none. By default
        one for 50 rows of the smaller of q and p, at most 10.
    near_quantile
        The share of fresh rows that may lie nearer than a near copy does.
    n_permutations
        Permutations of rows inside cells.
    level
        Of the intervals.
    random_state
        Seeds k-means and permutations.

    Returns
    -------
    MemorisationResult
        p-values, effect, share of near copies, and the closest pairs to look at.

    Raises
    ------
    DataError
        Values are not finite, columns do not match, there are too few rows, or no cell holds rows
        of both q and p.
    OptionError
        An option outside its range.

    Notes
    -----
    Changed from the paper: cells are combined by their van Elteren weights instead of the shares
    of q, the sign is such that copying is positive, p-values come from permutations, and the tail
    has a test of its own, whose p-value is that of a beta-binomial count.
    Cost: O((n_q + n_p) n_train d + B (n_q + n_p)) time, O((n_q + n_p + n_train) d) memory.
    Held by: tests/distance/test_memorisation.py::test_level_and_power

    References
    ----------
    .. [Meehan2020] A Non-Parametric Test to Detect Data-Copying in Generative Models. Meehan, 2020,
       AISTATS.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> train, fresh = rng.normal(size=(300, 4)), rng.normal(size=(200, 4))
    >>> copies = train[:100] + 0.05 * rng.normal(size=(100, 4))
    >>> found = memorisation_test(q=copies, p=fresh, train=train, random_state=0)
    >>> found.pvalue < 0.01, found.near_copies.low > found.near_expected
    (True, True)
    """
    q, p = check_sides(q, p, minimum=5)
    train = check_points(train, "train")
    if train.shape[1] != q.shape[1]:
        raise DataError(
            f"train has {train.shape[1]} features and q has {q.shape[1]}; all need the same columns"
        )
    if n_permutations < 1:
        raise OptionError(f"n_permutations is {n_permutations}; expected at least 1")
    if not 0.0 < near_quantile < 0.5:
        raise OptionError(f"near_quantile is {near_quantile}; expected between 0 and 0.5")
    normal_quantile(level)
    n_q, n_p = len(q), len(p)
    if n_cells == "auto":
        n_cells = min(10, max(1, min(n_q, n_p) // ROWS_A_CELL), len(train))
    elif isinstance(n_cells, str) or not 1 <= n_cells <= len(train):
        raise OptionError(f"n_cells is {n_cells!r}; expected 'auto' or 1 to {len(train)}")
    generator = as_generator(random_state)
    distances_q, nearest = (part[:, 0] for part in nearest_neighbors(q, train, n_neighbors=1))
    distances_p = nearest_neighbors(p, train, n_neighbors=1)[0][:, 0]

    cells_q, cells_p = _cells(q, p, train, n_cells, child_seed(generator))
    strata = []
    for cell in range(n_cells):
        in_q, in_p = distances_q[cells_q == cell], distances_p[cells_p == cell]
        if len(in_q) and len(in_p):
            strata.append((in_q, in_p))
    if not strata:
        raise DataError("no cell holds rows of both q and p; take n_cells=1")
    seen, null = _rank_sums(strata, n_permutations, generator)
    rank_pvalue = permutation_share(null, seen)
    near, near_distance, expected, near_pvalue = _near_copies(
        distances_q, distances_p, near_quantile, level
    )
    pvalue = min(1.0, 2.0 * min(rank_pvalue, near_pvalue))
    first = np.argsort(distances_q, kind="stable")[:SHOWN]
    return MemorisationResult(
        statistic=seen,
        pvalue=pvalue,
        method=f"distance to training rows: ranks in {len(strata)} cells, and near copies",
        n_q=n_q,
        n_p=n_p,
        effect=_closer(strata, level),
        status=_status(pvalue, rank_pvalue, near_pvalue, int((distances_p == 0).sum())),
        details={"n_train": len(train), "n_cells": len(strata), "n_permutations": n_permutations},
        rank_pvalue=rank_pvalue,
        near_copies=near,
        near_expected=expected,
        near_pvalue=near_pvalue,
        near_distance=near_distance,
        closest=tuple((int(j), int(nearest[j]), float(distances_q[j])) for j in first),
    )


def _cells(
    q: np.ndarray, p: np.ndarray, train: np.ndarray, n_cells: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """The cell of each row of q and of p; cells are made of training rows alone."""
    if n_cells == 1:
        return np.zeros(len(q), dtype=np.int64), np.zeros(len(p), dtype=np.int64)
    from sklearn.cluster import KMeans

    n_cells = min(n_cells, len(np.unique(train, axis=0)))
    model = KMeans(n_cells, n_init="auto", random_state=seed).fit(train)
    return np.asarray(model.predict(q)), np.asarray(model.predict(p))


def _rank_sums(
    strata: list[tuple[np.ndarray, np.ndarray]], repeats: int, generator: np.random.Generator
) -> tuple[float, np.ndarray]:
    """The standardised sum of q's ranks inside cells (van Elteren), and its permutations."""
    from scipy.stats import rankdata

    seen, null, variance = 0.0, np.zeros(repeats), 0.0
    for in_q, in_p in strata:
        n, m = len(in_q), len(in_p)
        total = n + m
        # close is high: a rank above the middle means nearer than the cell's middle row
        ranks = (total + 1) / 2 - rankdata(np.concatenate([in_q, in_p]))
        ranks /= total + 1
        seen += float(ranks[:n].sum())
        variance += n * m / (total * (total - 1)) * float(ranks @ ranks)
        step = max(1, KEYS // total)
        for start in range(0, repeats, step):
            size = min(step, repeats - start)
            drawn = choose_rows(total, n, size, generator)
            null[start : start + size] += ranks[drawn].sum(axis=1)
    scale = np.sqrt(variance) if variance > 0 else 1.0
    return seen / scale, null / scale


def _closer(strata: list[tuple[np.ndarray, np.ndarray]], level: float) -> Estimate:
    """P(a row of q is nearer than a row of p of its cell), cells in proportion to n m/(n + m)."""
    parts = [auc_interval(in_q, in_p, level=level) for in_q, in_p in strata]
    weights = np.array([len(a) * len(b) / (len(a) + len(b)) for a, b in strata])
    weights /= weights.sum()
    value = float(weights @ np.array([part.estimate for part in parts], dtype=np.float64))
    errors = np.array([part.standard_error for part in parts], dtype=np.float64)
    error = float(np.sqrt(np.square(weights * errors).sum()))
    reach = normal_quantile(level) * error
    return Estimate(
        estimate=value,
        low=max(0.0, value - reach),
        high=min(1.0, value + reach),
        standard_error=error,
        level=level,
        method="probability that a generated row is nearer to the training rows than a fresh one",
    )


def _near_copies(
    distances_q: np.ndarray, distances_p: np.ndarray, quantile: float, level: float
) -> tuple[Estimate, float, float, float]:
    """Rows of q nearer than the m-th nearest of p: share, distance, expectation, p-value.

    For continuous equal laws their number is beta-binomial, Bin(n_q, U) with U ~ Beta(m,
    n_p + 1 - m); with ties it is smaller.
    """
    from scipy.stats import betabinom

    n_q, n_p = len(distances_q), len(distances_p)
    m = max(1, round(quantile * (n_p + 1)))
    near_distance = float(np.partition(distances_p, m - 1)[m - 1])
    count = int((distances_q < near_distance).sum())
    tail = (1.0 - level) / 2
    low = float(betaincinv(count, n_q - count + 1, tail)) if count else 0.0
    high = float(betaincinv(count + 1, n_q - count, 1.0 - tail)) if count < n_q else 1.0
    estimate = Estimate(
        estimate=count / n_q,
        low=low,
        high=high,
        level=level,
        method=f"share of q nearer to a training row than {near_distance:.6g}; Clopper-Pearson",
    )
    pvalue = float(betabinom.sf(count - 1, n_q, m, n_p + 1 - m)) if count else 1.0
    return estimate, near_distance, m / (n_p + 1), pvalue


def _status(pvalue: float, rank_pvalue: float, near_pvalue: float, known: int) -> str:
    notes = []
    if known:
        rows = "1 row" if known == 1 else f"{known} rows"
        notes.append(
            f"{rows} of p equal a training row, which hides copies: compare with rows that the "
            "model has not seen"
        )
    if pvalue > 0.05:
        notes.append("generated rows are no closer to the training rows than fresh ones")
    elif near_pvalue <= rank_pvalue:
        notes.append("some generated rows nearly repeat training rows: look at `closest`")
    else:
        notes.append(
            "generated rows are closer to the training rows than fresh ones: copies with noise, "
            "or rows that are too typical; look at `closest`"
        )
    return "; ".join(notes)
