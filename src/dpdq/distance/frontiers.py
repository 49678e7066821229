"""Divergence frontiers and MAUVE: two kinds of error, on one curve.

A generated law Q may err in two ways: it makes what P never makes (seen by KL(Q || .)), and it
misses what P makes (seen by KL(P || .)). Either divergence alone is infinite as soon as a single
cell is empty on one side, so both are measured to mixtures R_l = l P + (1 - l) Q, 0 < l < 1:

    frontier   (exp(-c KL(Q || R_l)), exp(-c KL(P || R_l))),  with the ends (1, 0) and (0, 1)
    MAUVE      the area under it, in (0, 1], 1 if Q = P
    integral   2 int_0^1 l KL(P || R_l) + (1 - l) KL(Q || R_l) dl, in [0, 1], 0 if Q = P

The integral needs no c and no curve: in cells of mass a under P and b under Q it is the sum of
(a + b)/2 - a b log(a/b)/(a - b). The two errors show at the ends of the curve: where R is nearly
P, a small first coordinate says that q makes what p hardly ever does; where R is nearly Q, a small
second one says that it misses what p does.

What the definition does not fix is how continuous data become cells. MAUVE pools both samples,
scales rows to length one, keeps the principal components, and cuts space by k-means: the number
depends on the features, the number of clusters, the sizes, and the seed of k-means. At equal laws
it is below 1 because histograms of few rows differ; `mauve` says by how much. Compare numbers made
with the same features, sizes and number of clusters, and nothing else.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np
from scipy.special import exprel, rel_entr

from dpdq._random import RandomState, as_generator, child_seed
from dpdq._threads import parallel_map
from dpdq.distance._common import check_sides, normal_quantile
from dpdq.errors import DataError, OptionError
from dpdq.results import Estimate, Result
from dpdq.weights._vectors import as_vector

__all__ = ["DivergenceFrontier", "MauveResult", "divergence_frontier", "mauve"]

EDGE = 1e-6  # the mixtures of the curve go from here to 1 - EDGE
RESAMPLES = 200


@dataclasses.dataclass(frozen=True, repr=False)
class DivergenceFrontier(Result):
    """The frontier of two histograms.

    Attributes
    ----------
    points
        Shape (n_points + 2, 2), from (1, 0), where R = Q, to (0, 1), where R = P.
    mauve
        The area under the curve.
    frontier_integral
        The integral, free of scaling.
    scaling
        c.
    n_cells
        Cells in which either side has mass.
    """

    points: np.ndarray
    mauve: float
    frontier_integral: float
    scaling: float
    n_cells: int


@dataclasses.dataclass(frozen=True, repr=False)
class MauveResult(Result):
    """MAUVE of two samples, with what its randomness and its sizes do to it.

    Attributes
    ----------
    mauve, frontier_integral
        Means over seeds, with intervals that hold the spread of rows and of seeds.
    seed_values
        MAUVE of each seed of k-means.
    seed_spread
        Their standard deviation: how far one run can be off.
    expected
        MAUVE of two samples of one law, at these sizes and in these cells: what no generator can
        be expected to exceed.
    points
        The frontier, averaged over seeds.
    n_clusters, n_components, scaling, smoothing
        How it was made.
    n_q, n_p
        Rows.
    status
        What the numbers say.
    """

    mauve: Estimate
    frontier_integral: Estimate
    seed_values: tuple[float, ...]
    seed_spread: float
    expected: float
    points: np.ndarray
    n_clusters: int
    n_components: int
    scaling: float
    smoothing: float
    n_q: int
    n_p: int
    status: str = ""


def divergence_frontier(
    q: np.ndarray,
    p: np.ndarray,
    *,
    scaling: float = 5.0,
    n_points: int = 25,
    smoothing: float = 0.0,
) -> DivergenceFrontier:
    """The divergence frontier of two histograms over the same cells.

        (exp(-c KL(q || r_l)), exp(-c KL(p || r_l))),   r_l = l p + (1 - l) q

    The area is the mean of the trapezoid areas taken over either axis, as in the reference code.
    Histograms of few counts in many cells make any two samples look far apart.

    Parameters
    ----------
    q, p
        Counts or masses (weighted or not), shape (k,), not negative, any scale; the cells of both
        must be the same.
    scaling
        c, positive; it moves the area away from 0 and 1 and has no other meaning.
    n_points
        Mixtures on the curve, at least 2.
    smoothing
        Added to every cell of both sides; 0.5 for counts is the estimate of Krichevsky and
        Trofimov.

    Returns
    -------
    DivergenceFrontier
        The curve, its area and the frontier integral. With q and p exchanged the curve is
        mirrored; area and integral stay.

    Raises
    ------
    DataError
        Shapes differ, or masses are negative, not finite or all zero.
    OptionError
        ``scaling``, ``n_points`` or ``smoothing`` outside their range.

    Notes
    -----
    Cost: O(n_points k) time, O(n_points k) memory.
    Held by: tests/distance/test_frontiers.py::test_integral_equals_quadrature

    References
    ----------
    .. [M297] MAUVE Scores for Generative Models: Theory and Practice. Pillutla, 2023, JMLR 24.
    .. [Liu2021] Divergence Frontiers for Generative Models: Sample Complexity, Quantization
       Effects, and Frontier Integrals. Liu, 2021, NeurIPS.

    Examples
    --------
    >>> round(divergence_frontier(q=[1, 0], p=[1, 1]).frontier_integral, 4)
    0.3069
    """
    _check_curve(scaling, n_points, smoothing)
    masses = [_masses(side, name) for side, name in ((q, "q"), (p, "p"))]
    if masses[0].shape != masses[1].shape:
        raise DataError(
            f"q has {len(masses[0])} cells and p has {len(masses[1])}; both need the same cells"
        )
    shares = [_shares(side, smoothing) for side in masses]
    points = _curves(shares[0], shares[1], scaling, n_points)
    return DivergenceFrontier(
        points=points,
        mauve=float(_areas(points)),
        frontier_integral=float(_integrals(shares[0], shares[1])),
        scaling=scaling,
        n_cells=int(((shares[0] > 0) | (shares[1] > 0)).sum()),
    )


def mauve(
    q: np.ndarray,
    p: np.ndarray,
    *,
    n_clusters: int | Literal["auto"] = "auto",
    scaling: float = 5.0,
    n_seeds: int = 5,
    smoothing: float = 0.0,
    explained_variance: float = 0.9,
    n_points: int = 25,
    level: float = 0.95,
    random_state: RandomState = None,
) -> MauveResult:
    """MAUVE of a generated sample q and a real sample p, with the spread of its seeds.

        pooled rows -> length one -> principal components -> k-means -> histograms -> frontier

    A single run of MAUVE is one draw of a random number: k-means from another seed gives another
    value, by ``seed_spread``. The mean over seeds is reported. At q = p it is ``expected``, not 1,
    and it falls as clusters become many for the rows. Rows are scaled to length one: laws that
    differ in length only are equal to it. Cells are coarse: it answers to missing modes sooner than
    the Fréchet distance does, and to noise within the cells later, or not at all. Weights are
    refused: k-means of repeated rows is no weighted k-means; histogram weighted rows yourself and
    take `divergence_frontier`.

    Parameters
    ----------
    q
        Features of generated rows, shape (n_q, d).
    p
        Features of real rows, shape (n_p, d).
    n_clusters
        Cells; by default a tenth of the smaller side, at least 2.
    scaling
        c of the curve.
    n_seeds
        Runs of k-means, averaged; at least 2, so that their spread is known.
    smoothing
        Added to every cell's count: 0, as in published numbers, or 0.5, which is nearer to the
        laws' own frontier.
    explained_variance
        Share of the pooled variance that the principal components keep.
    n_points
        Mixtures on the curve.
    level
        Of the intervals.
    random_state
        Seeds k-means and the resampling.

    Returns
    -------
    MauveResult
        Means over seeds; the intervals come from bootstrapped rows within the cells and from the
        spread of seeds, and cover the mean of such numbers at these sizes.

    Raises
    ------
    DataError
        Values are not finite, columns do not match, all rows are equal, or rows are too few.
    OptionError
        An option outside its range.

    Notes
    -----
    Changed from the paper: runs of k-means are averaged where the reference keeps the tightest
    of five; clusters are found by k-means++ in scikit-learn.
    Cost: O(S n k d I) time for S seeds and I iterations, O(n (d + k)) memory.
    Held by: tests/distance/test_frontiers.py::test_mauve_equals_a_plain_program

    References
    ----------
    .. [M297] MAUVE Scores for Generative Models: Theory and Practice. Pillutla, 2023, JMLR 24.
    .. [Pillutla2021] MAUVE: Measuring the Gap Between Neural Text and Human Text using Divergence
       Frontiers. Pillutla, 2021, NeurIPS.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> found = mauve(q=rng.normal(size=(200, 4)), p=rng.normal(size=(200, 4)), random_state=0)
    >>> abs(found.mauve.estimate - found.expected) < 3 * found.mauve.standard_error
    True
    """
    _check_curve(scaling, n_points, smoothing)
    width = normal_quantile(level)
    if n_seeds < 2:
        raise OptionError(f"n_seeds is {n_seeds}; expected at least 2, so that their spread shows")
    if not 0.0 < explained_variance <= 1.0:
        raise OptionError(f"explained_variance is {explained_variance}; expected 0 to 1, 0 out")
    q, p = check_sides(q, p, minimum=10)
    n_q, n_p = len(q), len(p)
    if n_clusters == "auto":
        n_clusters = max(2, min(n_q, n_p) // 10)
    elif isinstance(n_clusters, str) or not 2 <= n_clusters <= n_q + n_p:
        raise OptionError(f"n_clusters is {n_clusters!r}; expected 'auto' or 2 to {n_q + n_p}")
    generator = as_generator(random_state)
    points = _components(np.vstack([q, p]), explained_variance, child_seed(generator))
    seeds = [child_seed(generator) for _ in range(n_seeds)]
    cells = _all_cells(points, n_clusters, seeds)
    n_clusters = max(int(one.max()) + 1 for one in cells)

    def measure(counts_q: np.ndarray, counts_p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        shares = _shares(counts_q, smoothing), _shares(counts_p, smoothing)
        curves = _curves(*shares, scaling, n_points)
        return curves, np.stack([_areas(curves), _integrals(*shares)])

    tables = [np.bincount(one[:n_q], minlength=n_clusters) for one in cells]
    others = [np.bincount(one[n_q:], minlength=n_clusters) for one in cells]
    curves, values = measure(np.stack(tables), np.stack(others))

    resampled = np.zeros((2, RESAMPLES))
    null = 0.0
    rows_q = generator.integers(0, n_q, size=(RESAMPLES, n_q))
    rows_p = n_q + generator.integers(0, n_p, size=(RESAMPLES, n_p))
    for one, table, other in zip(cells, tables, others, strict=True):
        again = [
            np.stack([np.bincount(one[rows], minlength=n_clusters) for rows in chosen])
            for chosen in (rows_q, rows_p)
        ]
        resampled += measure(again[0], again[1])[1] / n_seeds
        pooled = table + other
        dealt = generator.multivariate_hypergeometric(
            pooled, n_q, size=RESAMPLES, method="marginals"
        )
        null += float(measure(dealt, pooled - dealt)[1][0].mean()) / n_seeds

    seed_spread = values.std(axis=1, ddof=1)
    errors = np.sqrt(resampled.var(axis=1, ddof=1) + seed_spread**2 / n_seeds)
    found = []
    for place, name in enumerate(("MAUVE", "frontier integral")):
        mean, reach = float(values[place].mean()), width * float(errors[place])
        found.append(
            Estimate(
                estimate=mean,
                low=max(0.0, mean - reach),
                high=min(1.0, mean + reach),
                standard_error=float(errors[place]),
                level=level,
                method=f"{name}, mean of {n_seeds} k-means with {n_clusters} cells",
                reason="covers the mean at these sizes and cells, not the laws' own frontier",
            )
        )
    return MauveResult(
        mauve=found[0],
        frontier_integral=found[1],
        seed_values=tuple(float(value) for value in values[0]),
        seed_spread=float(seed_spread[0]),
        expected=null,
        points=curves.mean(axis=0),
        n_clusters=n_clusters,
        n_components=points.shape[1],
        scaling=scaling,
        smoothing=smoothing,
        n_q=n_q,
        n_p=n_p,
        status=_status(found[0], null, curves.mean(axis=0)),
    )


def _status(found: Estimate, expected: float, points: np.ndarray) -> str:
    if found.high is not None and found.high < expected:
        return (
            f"below the {expected:.3f} that two samples of one law reach: q "
            + ("misses what p makes" if points[1, 1] < points[-2, 0] else "makes what p does not")
            + ", for the most part"
        )
    return "as near as two samples of one law are at these sizes; more rows would see more"


def _check_curve(scaling: float, n_points: int, smoothing: float) -> None:
    if not 0.0 < scaling < np.inf:
        raise OptionError(f"scaling is {scaling}; expected a positive number")
    if n_points < 2:
        raise OptionError(f"n_points is {n_points}; expected at least 2")
    if not 0.0 <= smoothing < np.inf:
        raise OptionError(f"smoothing is {smoothing}; expected a number that is not negative")


def _masses(values: np.ndarray, side: str) -> np.ndarray:
    masses = as_vector(values, side)
    if not np.isfinite(masses).all() or (masses < 0).any() or masses.sum() <= 0:
        raise DataError(f"{side} must hold finite masses, none negative and not all zero")
    return masses


def _shares(counts: np.ndarray, smoothing: float) -> np.ndarray:
    raised = counts + smoothing
    return raised / raised.sum(axis=-1, keepdims=True)


def _curves(q: np.ndarray, p: np.ndarray, scaling: float, n_points: int) -> np.ndarray:
    """The frontier of each pair of histograms, shape (..., n_points + 2, 2), from R = Q to P."""
    curve = np.empty((*q.shape[:-1], n_points + 2, 2))
    curve[..., 0, :], curve[..., -1, :] = (1.0, 0.0), (0.0, 1.0)
    for place, mixed in enumerate(np.linspace(EDGE, 1.0 - EDGE, n_points), start=1):
        r = mixed * p + (1.0 - mixed) * q
        curve[..., place, 0] = np.exp(-scaling * rel_entr(q, r).sum(axis=-1))
        curve[..., place, 1] = np.exp(-scaling * rel_entr(p, r).sum(axis=-1))
    return curve


def _areas(curves: np.ndarray) -> np.ndarray:
    """The mean of the trapezoid areas over either axis; both coordinates are monotone."""
    x, y = curves[..., 0], curves[..., 1]
    over_x = np.trapezoid(y[..., ::-1], x[..., ::-1], axis=-1)
    return (over_x + np.trapezoid(x, y, axis=-1)) / 2.0


def _integrals(q: np.ndarray, p: np.ndarray) -> np.ndarray:
    """The closed form: p q log(p/q)/(p - q) is p/exprel(log(p/q)), and 0 in empty cells."""
    both = (q > 0) & (p > 0)
    log_ratio = np.log(np.where(both, p, 1.0)) - np.log(np.where(both, q, 1.0))
    inner = np.where(both, p / exprel(log_ratio), 0.0)
    return np.maximum(((p + q) / 2.0 - inner).sum(axis=-1), 0.0)


def _components(pooled: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Rows of length one in the principal components that explain this share of the variance."""
    from sklearn.decomposition import PCA

    lengths = np.sqrt(np.einsum("ij,ij->i", pooled, pooled))
    rows = pooled / np.where(lengths > 0, lengths, 1.0)[:, None]
    if not np.ptp(rows, axis=0).any():
        raise DataError("all rows of q and p have one direction; MAUVE sees nothing else")
    solver = "covariance_eigh" if rows.shape[1] <= len(rows) else "full"
    wanted = share if share < 1.0 else None
    return PCA(wanted, svd_solver=solver, random_state=seed).fit_transform(rows)


def _all_cells(points: np.ndarray, n_clusters: int, seeds: list[int]) -> list[np.ndarray]:
    """The cell of each row, one clustering a seed."""
    from sklearn.cluster import KMeans

    # k-means cannot make more cells than there are different points
    n_clusters = min(n_clusters, len(np.unique(points.round(12), axis=0)))

    def work(seed: int) -> np.ndarray:
        model = KMeans(n_clusters, n_init="auto", max_iter=500, random_state=seed)
        return np.asarray(model.fit_predict(points))

    return parallel_map(work, seeds)
