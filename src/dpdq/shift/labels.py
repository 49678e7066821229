"""Label shift: has the make-up of the label changed between q and p?

The label's two marginals are compared. A changed marginal has two readings that marginals cannot
tell apart: the label itself became more frequent (P(X|Y) kept), or the features moved and the label
with them (P(Y|X) kept); `concept_shift` asks about the second.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from scipy import special

from dpdq._random import RandomState, as_generator
from dpdq._threads import one_thread_each
from dpdq.errors import DataError, OptionError
from dpdq.results import Result
from dpdq.shift._common import (
    Effect,
    class_text,
    clean_labels,
    cluster_sums,
    joint_units,
    same_classes,
    same_length,
    t_quantile,
)

__all__ = ["LabelHistogram", "LabelShift", "label_shift"]

_PERMUTATIONS = 1999
_GRID = 256
_BINS = 20
_LEVELS = 20
_DRAWS = 4000


@dataclasses.dataclass(frozen=True, repr=False)
class LabelHistogram(Result):
    """Shares of the label on q, on p, and on reweighted q.

    Attributes
    ----------
    kind
        ``numeric`` or ``levels``.
    edges
        Edges of the bins of a numeric label, one more than there are bins, else ``None``.
    labels
        Names of the levels, else ``None``; the last may be ``other``.
    q, p, q_weighted
        Shares that sum to one; ``q_weighted`` is ``None`` without weights.
    """

    kind: str
    edges: tuple[float, ...] | None
    labels: tuple[str, ...] | None
    q: tuple[float, ...]
    p: tuple[float, ...]
    q_weighted: tuple[float, ...] | None = None


@dataclasses.dataclass(frozen=True, repr=False)
class LabelShift(Result):
    """Test, size and picture of a changed label.

    Attributes
    ----------
    test
        The statistic and how its null law was made.
    statistic, pvalue
        The observed statistic, and the probability of one as large where nothing changed.
    effect
        Total variation of the classes' shares, or difference of means in pooled standard
        deviations.
    histogram
        Shares of both sides.
    sentence
        The finding in words.
    """

    test: str
    statistic: float
    pvalue: float
    effect: Effect
    histogram: LabelHistogram
    sentence: str


def label_shift(
    y_q: Any,
    y_p: Any,
    *,
    kind: Literal["auto", "classes", "numeric"] = "auto",
    weights_q: np.ndarray | None = None,
    units_q: Any = None,
    units_p: Any = None,
    random_state: RandomState = 0,
) -> LabelShift:
    """Test whether the label is distributed alike on both sides, and by how much it is not.

        classes:  X^2 = sum (observed - expected)^2 / expected;
                  effect TV = sum_k |p_k - q_k| / 2
        numbers:  D = sup |F_p - F_q|;
                  effect (mean_p - mean_q) / pooled standard deviation

    The p-value is that of the limit law where samples are large (expected counts of five and more,
    a hundred rows a side), else of 1,999 permutations; with units, units are permuted and never
    rows. TV is estimated with an upward bias of the order of its standard error when many classes
    are rare; its interval adds and takes away the 95 % point of the total variation of pure noise,
    so that it covers at least as often as it says. Kolmogorov-Smirnov looks at the middle of the
    distribution: a change in the far tail alone is found late.

    Parameters
    ----------
    y_q, y_p
        Labels of q and p, shape (n_q,) and (n_p,): strings, booleans or numbers, none missing.
    kind
        ``auto``: numeric for numbers with more than 20 different values or with fractions.
    weights_q
        Weights of the rows of q, for the third line of the histogram only.
    units_q, units_p
        Units of the rows; a unit that stands on both sides has its two parts exchanged.
    random_state
        Seed of the permutations.

    Returns
    -------
    LabelShift
        Test, effect with 95 % interval, histogram, sentence.

    Raises
    ------
    DataError
        Missing or infinite labels, an empty side, text on one side where numbers are asked for.
    OptionError
        An unknown ``kind``.

    Notes
    -----
    Cost: O(n log n) time, O(n) memory; with units O(units x grid x permutations) time.
    Held by: tests/shift/test_labels.py::test_level

    References
    ----------
    .. [Pearson1900] On the criterion that a given system of deviations from the probable in the
       case of a correlated system of variables is such that it can be reasonably supposed to have
       arisen from random sampling. Pearson, 1900, Philosophical Magazine 50.
    .. [Smirnov1939] On the Estimation of the Discrepancy Between Empirical Curves of Distribution
       for Two Independent Samples. Smirnov, 1939, Bulletin of Moscow University 2.

    Examples
    --------
    >>> found = label_shift(["a"] * 60 + ["b"] * 40, ["a"] * 30 + ["b"] * 70)
    >>> found.sentence
    "The label changed: 'a' is 60.0 % of q and 30.0 % of p (p-value 2e-05)."
    """
    if kind not in ("auto", "classes", "numeric"):
        raise OptionError(f"Unknown kind {kind!r}. Choose one of 'auto', 'classes', 'numeric'.")
    first, second = clean_labels(y_q, "label of q"), clean_labels(y_p, "label of p")
    first, second = same_classes(first, second)
    if kind == "auto":
        kind = "numeric" if _is_numeric(first, second) else "classes"
    if kind == "numeric" and first.dtype.kind == "U":
        raise DataError(f"label holds text such as {str(first[0])!r}; choose kind='classes'")
    weights = None
    if weights_q is not None:
        weights = np.asarray(weights_q, dtype=np.float64)
        same_length("weights_q", weights, "labels of q", len(first))
    codes_q, codes_p, clustered = joint_units(units_q, units_p, len(first), len(second))
    units = (codes_q, codes_p) if clustered else None
    rng = as_generator(random_state)
    if kind == "numeric":
        return _numeric(first.astype(np.float64), second.astype(np.float64), units, weights, rng)
    return _classes(first, second, units, weights, rng)


def _is_numeric(first: np.ndarray, second: np.ndarray) -> bool:
    if first.dtype.kind not in "if":
        return False
    values = np.union1d(first, second)
    return len(values) > 20 or bool(np.any(values != np.rint(values)))


# --------------------------------------------------------------------------------------- classes


def _classes(
    first: np.ndarray,
    second: np.ndarray,
    units: tuple[np.ndarray, np.ndarray] | None,
    weights: np.ndarray | None,
    rng: np.random.Generator,
) -> LabelShift:
    n_q, n_p = len(first), len(second)
    classes, place = np.unique(np.concatenate([first, second]), return_inverse=True)
    k = len(classes)
    counts_q = np.bincount(place[:n_q], minlength=k).astype(np.float64)
    counts_p = np.bincount(place[n_q:], minlength=k).astype(np.float64)
    statistic = float(_chi_square(counts_q, counts_p))
    expected = np.minimum(n_q, n_p) * (counts_q + counts_p) / (n_q + n_p)
    if k == 1:
        test, pvalue = "chi-square, one class", 1.0
    elif units is not None:
        pvalue = _permute_units(_tally(units, place, n_q, k), units, _chi_square, rng)
        test = f"chi-square, units permuted {_PERMUTATIONS} times"
    elif expected.min() >= 5:
        test, pvalue = "chi-square", float(special.chdtrc(k - 1, statistic))
    else:
        total = (counts_q + counts_p).astype(np.int64)
        drawn = rng.multivariate_hypergeometric(total, n_p, size=_PERMUTATIONS, method="marginals")
        null = _chi_square(total - drawn, drawn)
        pvalue = _share_as_large(null, statistic)
        test = f"chi-square, labels permuted {_PERMUTATIONS} times"
    share_q, share_p = counts_q / n_q, counts_p / n_p
    effect = _total_variation(place, n_q, k, share_q, share_p, units, rng)
    widest = int(np.argmax(np.abs(share_p - share_q)))
    name = class_text(classes[widest])
    sentence = (
        f"{'The label changed' if pvalue <= 0.05 else 'No change of the label was found'}: "
        f"{name!r} is {100 * share_q[widest]:.1f} % of q and {100 * share_p[widest]:.1f} % of p "
        f"(p-value {pvalue:.2g})."
    )
    return LabelShift(
        test, statistic, pvalue, effect, _levels(classes, place, n_q, weights), sentence
    )


def _chi_square(counts_q: np.ndarray, counts_p: np.ndarray) -> np.ndarray:
    """Pearson's statistic of tables whose last axis are the classes."""
    n_q = counts_q.sum(axis=-1, keepdims=True)
    n_p = counts_p.sum(axis=-1, keepdims=True)
    total = counts_q + counts_p
    safe = np.where(total > 0, total, 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        terms = (counts_q * n_p - counts_p * n_q) ** 2 / (safe * n_q * n_p)
    return np.sum(terms, axis=-1)


def _total_variation(
    place: np.ndarray,
    n_q: int,
    k: int,
    share_q: np.ndarray,
    share_p: np.ndarray,
    units: tuple[np.ndarray, np.ndarray] | None,
    rng: np.random.Generator,
) -> Effect:
    measure = "total variation of the shares"
    value = float(np.abs(share_p - share_q).sum() / 2)
    n_p = len(place) - n_q
    if units is None:
        covariance = np.zeros((k, k))
        for share, n in ((share_q, n_q), (share_p, n_p)):
            smooth = (share * n + 0.5) / (n + 0.5 * k)
            covariance += (np.diag(smooth) - np.outer(smooth, smooth)) / n
        scale = 1.0
    else:
        table = np.eye(k)[place]
        scores = np.concatenate([-(table[:n_q] - share_q) / n_q, (table[n_q:] - share_p) / n_p])
        sums = cluster_sums(scores, np.concatenate(units))
        count = min(len(np.unique(units[0])), len(np.unique(units[1])))
        if count < 2:
            return Effect(measure, value, None, None)
        covariance = sums.T @ sums * count / (count - 1)
        scale = t_quantile(0.95, count - 1) / 1.959963984540054
    if k > 200:
        # |noise| summed over many classes is nearly constant: mean and deviation suffice
        deviation = np.sqrt(np.diag(covariance))
        radius = np.sqrt(2 / np.pi) * deviation.sum() / 2 + 1.645 * deviation.max()
    else:
        normal = rng.standard_normal((_DRAWS, k))
        with one_thread_each():
            values, vectors = np.linalg.eigh(covariance)
            noise = normal @ (vectors * np.sqrt(np.maximum(values, 0.0))).T
        radius = np.quantile(np.abs(noise).sum(axis=1) / 2, 0.95)
    radius = float(radius * scale)
    return Effect(measure, value, max(value - radius, 0.0), min(value + radius, 1.0))


def _levels(
    classes: np.ndarray, place: np.ndarray, n_q: int, weights: np.ndarray | None
) -> LabelHistogram:
    k = len(classes)
    q = np.bincount(place[:n_q], minlength=k) / n_q
    p = np.bincount(place[n_q:], minlength=k) / (len(place) - n_q)
    lines = [q, p]
    if weights is not None:
        lines.append(np.bincount(place[:n_q], weights=weights, minlength=k) / weights.sum())
    labels = [class_text(c) for c in classes]
    if k > _LEVELS:
        order = np.argsort(-(q + p), kind="stable")
        kept, rest = order[: _LEVELS - 1], order[_LEVELS - 1 :]
        labels = [labels[i] for i in kept] + ["other"]
        lines = [np.append(line[kept], line[rest].sum()) for line in lines]
    shares = [tuple(float(x) for x in line) for line in lines]
    again = shares[2] if weights is not None else None
    return LabelHistogram("levels", None, tuple(labels), shares[0], shares[1], again)


# --------------------------------------------------------------------------------------- numbers


def _numeric(
    first: np.ndarray,
    second: np.ndarray,
    units: tuple[np.ndarray, np.ndarray] | None,
    weights: np.ndarray | None,
    rng: np.random.Generator,
) -> LabelShift:
    n_q, n_p = len(first), len(second)
    pooled = np.sort(np.concatenate([first, second]))
    if units is not None:
        grid = np.unique(np.quantile(pooled, np.linspace(0, 1, _GRID), method="inverted_cdf"))
        place = np.searchsorted(grid, np.concatenate([first, second]))
        # counts at or below each grid point; the last column holds the sizes
        sums = tuple(np.cumsum(side, axis=1) for side in _tally(units, place, n_q, len(grid)))
        sums = tuple(np.column_stack([side, side[:, -1]]) for side in sums)
        statistic = float(_grid_distance(sums[0].sum(axis=0), sums[1].sum(axis=0)))
        pvalue = _permute_units((sums[0], sums[1]), units, _grid_distance, rng)
        test = f"Kolmogorov-Smirnov on {len(grid)} points, units permuted {_PERMUTATIONS} times"
    else:
        statistic = _distance(
            np.searchsorted(np.sort(first), pooled, side="right"), n_q,
            np.searchsorted(np.sort(second), pooled, side="right"), n_p,
        )  # fmt: skip
        if min(n_q, n_p) >= 100:
            size = np.sqrt(n_q * n_p / (n_q + n_p))
            test, pvalue = "Kolmogorov-Smirnov", float(special.kolmogorov(size * statistic))
        else:
            null = _permute_rows(pooled, n_p, rng)
            test = f"Kolmogorov-Smirnov, labels permuted {_PERMUTATIONS} times"
            pvalue = _share_as_large(null, statistic)
    effect = _mean_difference(first, second, units)
    shown = "no spread"
    if effect.estimate is not None:
        shown = f"{effect.estimate:+.2f} standard deviations"
    sentence = (
        f"{'The label changed' if pvalue <= 0.05 else 'No change of the label was found'}: "
        f"its mean is {first.mean():.4g} on q and {second.mean():.4g} on p "
        f"({shown}; p-value {pvalue:.2g})."
    )
    return LabelShift(test, statistic, pvalue, effect, _bins(first, second, weights), sentence)


def _distance(count_q: np.ndarray, n_q: int, count_p: np.ndarray, n_p: int) -> float:
    return float(np.max(np.abs(count_p / n_p - count_q / n_q)))


def _grid_distance(counts_q: np.ndarray, counts_p: np.ndarray) -> np.ndarray:
    """Largest distance of distribution functions; the last column holds the sizes."""
    f_q = counts_q[..., :-1] / np.maximum(counts_q[..., -1:], 1)
    f_p = counts_p[..., :-1] / np.maximum(counts_p[..., -1:], 1)
    return np.max(np.abs(f_p - f_q), axis=-1)


def _permute_rows(pooled: np.ndarray, n_p: int, rng: np.random.Generator) -> np.ndarray:
    n = len(pooled)
    last = np.append(pooled[1:] != pooled[:-1], True)  # ties count together
    null = np.empty(_PERMUTATIONS)
    block = max(1, 4_000_000 // n)
    for start in range(0, _PERMUTATIONS, block):
        size = min(block, _PERMUTATIONS - start)
        in_p = rng.permuted(np.tile(np.arange(n) < n_p, (size, 1)), axis=1)
        rising = np.cumsum(in_p, axis=1)[:, last] / n_p
        falling = np.cumsum(~in_p, axis=1)[:, last] / (n - n_p)
        null[start : start + size] = np.max(np.abs(rising - falling), axis=1)
    return null


def _mean_difference(
    first: np.ndarray, second: np.ndarray, units: tuple[np.ndarray, np.ndarray] | None
) -> Effect:
    measure = "standardised mean difference"
    n_q, n_p = len(first), len(second)
    away_q, away_p = first - first.mean(), second - second.mean()
    variance = (np.mean(away_q**2) + np.mean(away_p**2)) / 2
    if variance == 0:
        return Effect(measure, None, None, None)
    scale = np.sqrt(variance)
    value = float((second.mean() - first.mean()) / scale)
    slope = value / (2 * variance)
    score_q = -away_q / scale - slope * (away_q**2 - np.mean(away_q**2)) / 2
    score_p = away_p / scale - slope * (away_p**2 - np.mean(away_p**2)) / 2
    scores = np.concatenate([score_q / n_q, score_p / n_p])
    count = min(n_q, n_p)
    if units is not None:
        scores = cluster_sums(scores, np.concatenate(units))
        count = min(len(np.unique(units[0])), len(np.unique(units[1])))
    if count < 2:
        return Effect(measure, value, None, None)
    half = t_quantile(0.95, count - 1) * float(np.sqrt(np.sum(scores**2) * count / (count - 1)))
    return Effect(measure, value, value - half, value + half)


def _bins(first: np.ndarray, second: np.ndarray, weights: np.ndarray | None) -> LabelHistogram:
    low, high = min(first.min(), second.min()), max(first.max(), second.max())
    edges = np.linspace(low, high, _BINS + 1) if high > low else np.array([low - 0.5, high + 0.5])
    q = np.histogram(first, edges)[0] / len(first)
    p = np.histogram(second, edges)[0] / len(second)
    again = None
    if weights is not None:
        again = np.histogram(first, edges, weights=weights)[0] / weights.sum()
    return LabelHistogram(
        "numeric",
        tuple(edges.tolist()),
        None,
        tuple(q.tolist()),
        tuple(p.tolist()),
        None if again is None else tuple(again.tolist()),
    )


# ---------------------------------------------------------------------------------- permutations


def _share_as_large(null: np.ndarray, statistic: float) -> float:
    """(1 + count) / (B + 1), equal values counted in spite of rounding."""
    slack = 1e-9 * max(1.0, abs(statistic))
    return float((1 + np.sum(null >= statistic - slack)) / (len(null) + 1))


def _tally(
    units: tuple[np.ndarray, np.ndarray], place: np.ndarray, n_q: int, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Counts of the k places within each unit, one table (units, k) a side."""
    count = int(max(units[0].max(), units[1].max())) + 1
    sides = (units[0] * k + place[:n_q], units[1] * k + place[n_q:])
    first, second = (
        np.bincount(side, minlength=count * k).reshape(count, k).astype(np.float64)
        for side in sides
    )
    return first, second


def _permute_units(
    sums: tuple[np.ndarray, np.ndarray],
    units: tuple[np.ndarray, np.ndarray],
    statistic: Callable[[np.ndarray, np.ndarray], np.ndarray],
    rng: np.random.Generator,
) -> float:
    """p-value of a statistic of column sums when the sides of whole units are exchanged.

    Units of one side only are dealt anew, as many to p as there were; a unit of both sides keeps
    or swaps its two parts.
    """
    count = len(sums[0])
    on_q, on_p = np.zeros(count, dtype=bool), np.zeros(count, dtype=bool)
    on_q[units[0]], on_p[units[1]] = True, True
    both, single = np.flatnonzero(on_q & on_p), np.flatnonzero(on_q ^ on_p)
    whole = sums[0] + sums[1]
    observed = float(statistic(sums[0].sum(axis=0), sums[1].sum(axis=0)))
    block = max(1, 4_000_000 // count)
    null = []
    for start in range(0, _PERMUTATIONS, block):
        size = min(block, _PERMUTATIONS - start)
        to_p = rng.permuted(np.tile(on_p[single], (size, 1)), axis=1).astype(np.float64)
        swap = (rng.random((size, len(both))) < 0.5).astype(np.float64)
        with one_thread_each():
            null_p = to_p @ whole[single]
            null_p += swap @ sums[0][both] + (1 - swap) @ sums[1][both]
        null.append(statistic(whole.sum(axis=0) - null_p, null_p))
    return _share_as_large(np.concatenate(null), observed)
