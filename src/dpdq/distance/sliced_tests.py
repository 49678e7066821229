r"""Is the difference that lines show real?

The statistic is the sliced cost T = E_{theta ~ rho} W_r^r(theta#q, theta#p) over a fixed set of
directions. If the set does not depend on which row is q, neither does the statistic's law under
q = p change when labels are permuted, and the p-value (1 + #{T_b >= T}) / (B + 1) is valid at every
n. Uniform directions are such a set. Learnt ones are not: they fit the labels that were observed.
They are therefore learnt on one half of each side, and the other half, which they have never seen,
is permuted. Power is lost with the half and won with the directions. At equal rows learnt
directions win where few directions carry the change (`bench/transport.py`), but with a hundred rows
a side the lost half costs more than they bring, and uniform directions over all rows stay the
default.

    uniform    all rows, all directions. For a change that is spread over many columns.
    max        the one direction that differs most on the first half. For a change along one line;
               chases noise where there are about as many columns as rows.
    vmf        a cone of fixed width around the best location. Between the two.
    adaptive   a cone whose width is learnt too, at a price for its distance from uniform (see
               `dpdq.distance.sliced_adaptive`).
"""

from __future__ import annotations

import math
from functools import partial
from typing import Literal

import numpy as np

from dpdq._random import RandomState, as_generator
from dpdq._threads import one_thread_each
from dpdq.distance._common import normal_quantile
from dpdq.distance._directions import SliceLaw, learn_law
from dpdq.distance._slices import Slices
from dpdq.distance._sphere import uniform_directions
from dpdq.distance.permutation import permutation_pvalue
from dpdq.distance.sliced import check_options, halves, learn_slices, prepare, read_costs
from dpdq.distance.sliced_adaptive import learning_price
from dpdq.errors import DataError, OptionError
from dpdq.kernels import map_tiles
from dpdq.results import Estimate, TestResult

__all__ = ["sliced_wasserstein_test"]

SEARCHES = ("uniform", "max", "vmf", "adaptive")
_LEAST_ROWS = {"uniform": 2, "max": 8, "vmf": 8, "adaptive": 8}
_BLOCK = 1_000_000  # values in memory at once
_FLOAT64_ROWS = 1024  # pooled rows up to which permuted values are float64


def sliced_wasserstein_test(
    q: np.ndarray,
    p: np.ndarray,
    *,
    projections: Literal["uniform", "max", "vmf", "adaptive"] = "uniform",
    order: float = 2.0,
    n_projections: int = 100,
    kappa: float | None = None,
    n_permutations: int = 199,
    random_state: RandomState = None,
) -> TestResult:
    """Test that q and p are samples of one law, by sliced transport costs and permutation.

        T = mean_l W_r(theta_l#q, theta_l#p)^r

    Exact at every size and dimension: P(p <= alpha) <= alpha under q = p, for learnt directions
    too, since they are learnt on half of the rows and the other half is permuted. Rows must be
    independent. Sees location and spread along lines; against changes on fine scales or of high
    order `mmd_test` has more power. Put columns on comparable scales first.

    Parameters
    ----------
    q, p
        Samples, shapes (n_q, d) and (n_p, d).
    projections
        Where to look: ``"uniform"``, ``"max"``, ``"vmf"`` or ``"adaptive"`` (see the module).
    order
        r >= 1.
    n_projections
        L.
    kappa
        Concentration for ``"vmf"`` (default d).
    n_permutations
        B.
    random_state
        Seed of directions, halves and permutations.

    Returns
    -------
    TestResult
        ``statistic`` is T^(1/r), in the unit of the data, on the rows that were permuted; ``n_q``
        and ``n_p`` count these. ``effect`` is the same with its interval as in
        `sliced_wasserstein`. ``details`` holds the learnt ``direction`` and ``kappa`` (0 for
        uniform, infinite for one direction) and ``n_permutations``.

    Raises
    ------
    DataError
        Values are not finite, columns do not match, or too few rows (2 a side; 8 to learn).
    OptionError
        Unknown projections, or a number outside its range.

    Notes
    -----
    Cost: O(B L N + L N log N) time, O(N d + 1e6) memory; learning a few hundred L N log N more.
    Held by: tests/distance/test_sliced.py::test_level

    Above 1,024 rows permuted values are sorted as float32 and summed as float64; statistics within
    1e-6 of each other count as ties, against the alternative.

    References
    ----------
    .. [M322] Shedding a PAC-Bayesian Light on Adaptive Sliced-Wasserstein Distances. Ohana, 2023,
       arXiv 2206.03230.
    .. [M068] Self-Attention Amortized Distributional Projection Optimization for Sliced
       Wasserstein Point-Cloud Reconstruction. Nguyen, 2023, arXiv 2301.04791.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> q, p = rng.normal(size=(100, 5)), rng.normal(size=(80, 5)) + [1.0, 0.0, 0.0, 0.0, 0.0]
    >>> sliced_wasserstein_test(q=q, p=p, random_state=0).pvalue
    0.005
    """
    if projections not in SEARCHES:
        raise OptionError(
            f"Unknown projections {projections!r}. Choose one of {', '.join(map(repr, SEARCHES))}."
        )
    if kappa is not None and projections != "vmf":
        raise OptionError("kappa is given, and only projections='vmf' has a concentration")
    check_options(order, n_projections, kappa)
    if n_permutations < 1:
        raise OptionError(f"n_permutations is {n_permutations}; expected at least 1")
    slices, scale = prepare(q, p, order)
    for side, size in (("q", slices.n), ("p", slices.m)):
        if size < _LEAST_ROWS[projections]:
            raise DataError(
                f"{side} has {size} rows; projections={projections!r} needs at least "
                f"{_LEAST_ROWS[projections]}"
            )
    rng = as_generator(random_state)
    with one_thread_each():
        law, part = _look_where(slices, projections, kappa, n_projections, rng)
        if law is not None:
            directions = law.draw(n_projections, rng)
        elif slices.d > 1:
            directions = uniform_directions(n_projections, slices.d, rng)
        else:
            directions = np.ones((1, 1))
        statistics = _permuted_costs(part, directions, n_permutations, rng)
        effect = _effect(part, directions, scale, rng)
    few = part.n + part.m <= _FLOAT64_ROWS
    pvalue = permutation_pvalue(statistics, tolerance=1e-9 if few else 1e-6)
    return TestResult(
        statistic=scale * float(statistics[0]) ** (1 / order),
        pvalue=pvalue,
        method=f"sliced Wasserstein of order {order:g}, {projections} projections, permutation"
        + (" of the half that was not learnt on" if law is not None else ""),
        n_q=part.n,
        n_p=part.m,
        effect=effect,
        status=_status(part.n, part.m, n_permutations),
        details={
            "direction": None if law is None else law.location,
            "kappa": 0.0 if law is None else law.kappa,
            "n_permutations": n_permutations,
            "smallest_pvalue": _smallest_pvalue(part.n, part.m, n_permutations),
        },
    )


def _look_where(
    slices: Slices,
    projections: str,
    kappa: float | None,
    n_projections: int,
    rng: np.random.Generator,
) -> tuple[SliceLaw | None, Slices]:
    """The law of directions, and the rows that it has not seen."""
    if projections == "uniform" or slices.d == 1:
        return None, slices
    (one_q, two_q), (one_p, two_p) = halves(slices.n, rng), halves(slices.m, rng)
    first = slices.take(one_q, one_p)
    if projections == "adaptive":
        law, _ = learn_law(
            first,
            kappa=None,
            price=learning_price(first),
            n_directions=min(n_projections, 100),
            rng=rng,
        )
    else:
        law, _ = learn_slices(first, projections, kappa, n_projections, rng)
    return law, slices.take(two_q, two_p)


def _permuted_costs(
    slices: Slices, directions: np.ndarray, n_permutations: int, rng: np.random.Generator
) -> np.ndarray:
    """Mean cost over directions for the observed labels and B random ones, shape (B + 1,)."""
    n = slices.n + slices.m
    dtype = np.float64 if n <= _FLOAT64_ROWS else np.float32
    pooled = np.concatenate([slices.q, slices.p])
    labels = np.zeros((n_permutations + 1, n), dtype=bool)
    labels[:, : slices.n] = True
    labels[1:] = rng.permuted(labels[1:], axis=1)
    size = max(1, _BLOCK // n)
    total = []
    for start in range(0, len(labels), size):
        block = labels[start : start + size]
        called_q = np.nonzero(block)[1].reshape(len(block), slices.n)
        called_p = np.nonzero(~block)[1].reshape(len(block), slices.m)

        def work(direction: np.ndarray, q: np.ndarray, p: np.ndarray) -> np.ndarray:
            values = (pooled @ direction).astype(dtype)
            x, y = values[q], values[p]
            x.sort(axis=1)
            y.sort(axis=1)
            return slices.costs_of_sorted(x, y)

        costs = map_tiles(
            partial(work, q=called_q, p=called_p),
            list(directions),
            operations=20.0 * len(directions) * block.size,
        )
        total.append(sum(costs, np.zeros(len(block))))
    return np.concatenate(total) / len(directions)


def _effect(
    slices: Slices, directions: np.ndarray, scale: float, rng: np.random.Generator
) -> Estimate:
    power, reading = read_costs(slices, directions, rng, by_chance=True)
    root = 1.0 / slices.order
    estimate = scale * power**root
    if reading is None:
        return Estimate(estimate, reason="too few rows for an interval")
    width = normal_quantile(0.95)
    return Estimate(
        estimate,
        scale * max(reading.low(power, width), 0.0) ** root,
        scale * (power + width * reading.error) ** root,
        method="sliced Wasserstein distance over these directions",
    )


def _smallest_pvalue(n: int, m: int, n_permutations: int) -> float:
    ways = math.lgamma(n + m + 1) - math.lgamma(n + 1) - math.lgamma(m + 1)
    return max(1.0 / (n_permutations + 1), math.exp(-ways))


def _status(n: int, m: int, n_permutations: int) -> str:
    smallest = _smallest_pvalue(n, m, n_permutations)
    if smallest > 0.05:
        return f"no p-value below {smallest:.2g} is possible with so few rows or permutations"
    return ""
