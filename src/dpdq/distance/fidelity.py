"""Fidelity and diversity: are q's rows like p's, and is all of p there?

Let B_k(x; S) be the open ball around x that reaches to its k-th nearest neighbour in the sample S.
With generated rows q_1 .. q_M and real rows p_1 .. p_N,

    precision = 1/M #{j : q_j in some B_k(p_i; p)}         are generated rows realistic?
    recall    = 1/N #{i : p_i in some B_k(q_j; q)}         is every real row producible?
    density   = 1/(k M) sum_j #{i : q_j in B_k(p_i; p)}    in how many real balls, against k?
    coverage  = 1/N #{i : some q_j in B_k(p_i; p)}         what of p has a generated row near?

Precision and recall take a union of balls, so that one outlier with its huge ball makes a desert
realistic; density counts and coverage looks only at p's balls, and both have a known value at
Q = P: density 1 and coverage

    1 - prod_{l=1..k} (N - l) / (N + M - l),

whereas the value of precision and recall there depends on the law and its dimension, and is not 1.
Density may exceed 1: q sits where p is thickest. The definition does not fix k (5 is the custom;
choose it so that the expected coverage is above 0.95), nor the features, in which distances must
mean something. Balls are open, so that rows on the sphere itself, such as copies, do not count.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import numpy as np

from dpdq._random import RandomState, as_generator
from dpdq.distance._common import check_sides
from dpdq.distance._jackknife import check_groups, deal_groups, jackknife_estimate
from dpdq.errors import DataError, OptionError
from dpdq.neighbors import nearest_neighbors, visit_pairs
from dpdq.results import Estimate, Result

__all__ = ["FidelityResult", "prdc"]

NAMES = ("precision", "recall", "density", "coverage")
TIES = 1e-9  # distances that differ by less, relatively, are equal
SPARE = 8  # neighbours kept beyond the k-th, so that groups of rows can be left out


@dataclasses.dataclass(frozen=True, repr=False)
class FidelityResult(Result):
    """Precision, recall, density and coverage of a generated sample.

    Attributes
    ----------
    precision, recall, density, coverage
        Estimates with intervals.
    expected_density, expected_coverage
        Their expectations if q and p were samples of one continuous law.
    n_neighbors
        k.
    n_q, n_p
        Generated and real rows.
    status
        What the numbers say.
    """

    precision: Estimate
    recall: Estimate
    density: Estimate
    coverage: Estimate
    expected_density: float
    expected_coverage: float
    n_neighbors: int
    n_q: int
    n_p: int
    status: str = ""


def prdc(
    q: np.ndarray,
    p: np.ndarray,
    *,
    n_neighbors: int = 5,
    n_groups: int = 10,
    level: float = 0.95,
    random_state: RandomState = None,
) -> FidelityResult:
    """Precision, recall, density and coverage of a generated sample q against a real sample p.

        precision = mean_j [q_j in U_i B_k(p_i)],     recall = mean_i [p_i in U_j B_k(q_j)],
        density = mean_j #{i : q_j in B_k(p_i)} / k,  coverage = mean_i [some q_j in B_k(p_i)]

    The package ``prdc`` takes the real rows first; the numbers are the same, but for distances
    within 1e-9 of a radius, which are ties here and a matter of rounding there. Only coverage and
    density have a known value at q = p; never read a recall of 0.6 as "40 % is missing" without
    the recall of two real halves beside it. Sizes matter: compare numbers made at equal sizes
    only. The intervals are safe, and wider than need be by a fifth to a factor of two, because
    neighbours act together. There are no weights: a ball that reaches to the k-th row has no
    weighted meaning that repeated rows would share; resample first
    (`dpdq.weights.Weights.resample`).

    Parameters
    ----------
    q
        Features of generated rows, shape (M, d).
    p
        Features of real rows, shape (N, d).
    n_neighbors
        k, the rank of the neighbour that sets a ball's radius.
    n_groups
        Groups left out in turn for the intervals; 0 for none.
    level
        Of the intervals.
    random_state
        Deals rows to groups.

    Returns
    -------
    FidelityResult
        The four estimates, and what density and coverage would be at q = p.

    Raises
    ------
    DataError
        Values are not finite, columns do not match, or a side has too few rows for k.
    OptionError
        ``n_neighbors``, ``n_groups`` or ``level`` outside their range.

    Notes
    -----
    Cost: O((N^2 + M^2 + N M) d) time as matrix products, O((N + M) (d + k + G)) memory.
    Held by: tests/distance/test_fidelity.py::test_equals_the_package

    References
    ----------
    .. [M381] Reliable Fidelity and Diversity Metrics for Generative Models. Naeem, 2020, ICML.
    .. [Kynkaanniemi2019] Improved Precision and Recall Metric for Assessing Generative Models.
       Kynkäänniemi, 2019, NeurIPS.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> real, fake = rng.normal(size=(300, 4)), rng.normal(size=(400, 4))
    >>> found = prdc(q=fake, p=real, random_state=0)
    >>> found.coverage.low < found.expected_coverage < found.coverage.high
    True
    """
    if n_neighbors < 1:
        raise OptionError(f"n_neighbors is {n_neighbors}; expected at least 1")
    check_groups(n_groups, level)
    q, p = check_sides(q, p, minimum=n_neighbors + 1)
    n_groups = min(n_groups, len(q), len(p))
    smallest = min(len(q), len(p))
    if n_groups and smallest - math.ceil(smallest / n_groups) <= n_neighbors:
        raise DataError(
            f"{len(q)} and {len(p)} rows are too few to leave out a {n_groups}th for an interval "
            f"with {n_neighbors} neighbours; take n_groups=0 or more rows"
        )
    generator = as_generator(random_state)
    sides = [_Balls(side, n_neighbors, n_groups, generator) for side in (q, p)]
    values = _four(sides[0], sides[1], n_neighbors)
    n_q, n_p = len(q), len(p)
    ranks = np.arange(1, n_neighbors + 1)
    expected = 1.0 - float(np.prod((n_p - ranks) / (n_p + n_q - ranks)))
    found = {
        name: jackknife_estimate(
            float(values[0, column]),
            values[1:, column],
            level,
            method=f"{name}, {n_neighbors} neighbours",
            least=0.0,
            most=math.inf if name == "density" else 1.0,
        )
        for column, name in enumerate(NAMES)
    }
    return FidelityResult(
        **found,
        expected_density=1.0,
        expected_coverage=expected,
        n_neighbors=n_neighbors,
        n_q=n_q,
        n_p=n_p,
        status=_status(found, expected),
    )


class _Balls:
    """One side: its rows, their groups, and the radius of each row with each group left out.

    Attributes
    ----------
    radii
        Shape (1 + G, n): first with all rows, then without each group.
    group
        From 1 to G.
    """

    def __init__(
        self, points: np.ndarray, k: int, n_groups: int, generator: np.random.Generator
    ) -> None:
        self.points = points
        n = len(points)
        self.group = 1 + deal_groups(n, max(n_groups, 1), generator)
        self.radii = np.empty((1 + n_groups, n))
        wanted = min(n - 1, k + (SPARE if n_groups else 0))
        distances, rows = nearest_neighbors(points, n_neighbors=wanted)
        self.radii[0] = distances[:, k - 1]
        for g in range(1, 1 + n_groups):
            rank = np.cumsum(self.group[rows] != g, axis=1)
            self.radii[g] = distances[np.arange(n), np.minimum((rank < k).sum(axis=1), wanted - 1)]
            short = np.flatnonzero(rank[:, -1] < k)
            if len(short):
                self.radii[g, short] = self._anew(short, k, g)
        self.radii *= 1.0 - TIES

    def _anew(self, rows: np.ndarray, k: int, g: int) -> np.ndarray:
        """Radii of rows that lost too many of their listed neighbours with group g."""
        others = np.flatnonzero(self.group != g)
        itself = self.group[rows] != g  # such a row finds itself, or an equal row, first
        distances, _ = nearest_neighbors(self.points[rows], self.points[others], n_neighbors=k + 1)
        return np.where(itself, distances[:, k], distances[:, k - 1])


def _four(q: _Balls, p: _Balls, k: int) -> np.ndarray:
    """Precision, recall, density and coverage, in the first row with all rows of both sides."""
    versions, n_q, n_p = len(q.radii), len(q.points), len(p.points)
    balls_of_p = np.zeros((versions, n_q), dtype=np.int64)  # that hold each row of q
    reached = np.zeros((versions, n_p), dtype=bool)  # rows of p with a row of q in their ball
    producible = np.zeros((versions, n_p), dtype=bool)  # rows of p in a ball of q

    def visit(i: np.ndarray, j: np.ndarray, distances: np.ndarray) -> tuple[int, int, tuple]:
        """Pairs of a row i of p and a row j of q, counted without each group in turn."""
        first_i, first_j = int(i.min()), int(j.min())
        rows, columns = i - first_i, j - first_j
        size_i, size_j = int(rows.max()) + 1, int(columns.max()) + 1
        counts = np.zeros((versions, size_j), dtype=np.int64)
        near = np.zeros((2, versions, size_i), dtype=bool)
        group_i, group_j = p.group[i], q.group[j]
        for g in range(versions):
            there = (group_i != g) & (group_j != g)
            inside = there & (distances < p.radii[g, i])
            counts[g] = np.bincount(columns[inside], minlength=size_j)
            near[0, g, rows[inside]] = True
            near[1, g, rows[there & (distances < q.radii[g, j])]] = True
        return first_i, first_j, (counts, near)

    widest_p, widest_q = p.radii.max(axis=0), q.radii.max(axis=0)
    for i, j, (counts, near) in visit_pairs(
        p.points, q.points, visit, radii_x=widest_p, radii_y=widest_q
    ):
        balls_of_p[:, j : j + counts.shape[1]] += counts
        reached[:, i : i + near.shape[2]] |= near[0]
        producible[:, i : i + near.shape[2]] |= near[1]

    left_q = np.array([(q.group != g).sum() for g in range(versions)])
    left_p = np.array([(p.group != g).sum() for g in range(versions)])
    return np.column_stack(
        [
            (balls_of_p > 0).sum(axis=1) / left_q,
            producible.sum(axis=1) / left_p,
            balls_of_p.sum(axis=1) / (k * left_q),
            reached.sum(axis=1) / left_p,
        ]
    )


def _status(found: Mapping[str, Estimate], expected: float) -> str:
    notes = []
    if expected < 0.95:
        notes.append(
            f"coverage could reach only {expected:.2f} even if q = p; take more neighbours or more "
            "generated rows"
        )
    density, coverage = found["density"], found["coverage"]
    if coverage.high is not None and coverage.high < expected:
        notes.append("parts of p have no generated row near: look at the uncovered real rows")
    if density.high is not None and density.high < 1.0:
        notes.append("generated rows lie in thinner places than real rows do")
    elif density.low is not None and density.low > 1.0:
        notes.append("generated rows crowd where real rows are thickest")
    return "; ".join(notes) or "nothing speaks against q = p at these sizes"
