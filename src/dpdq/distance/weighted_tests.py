"""The kernel test of weighted samples: is Q, reweighted, equal to P, reweighted?

With weights u of the rows of q and v of those of p, each normalised to sum to one, the null is

    H0:  E_Q[w_q(X) k(X, .)] / E_Q[w_q] = E_P[w_p(Y) k(Y, .)] / E_P[w_p]

and the statistic the squared distance of the two weighted means, V = ||mu_q - mu_p||^2. Permuting
(row, weight) pairs would test another null, that rows *and weights* have one law, and would reject
a perfect reweighting. So the law of V under H0 is made by multipliers. A self-normalised mean is to
first order a sum of independent terms,

    mu_q - mu = sum_a psi_a,   psi_a = sum_{i in a} u_i (k(x_i, .) - mu_q),

over rows, units or chance blocks a, and sum_a xi_a psi_a with independent signs xi_a has, given the
data, nearly the same law (wild bootstrap; a sandwich in the space of the kernel). Terms are divided
by (1 - u_a), the leverage of a row on its own mean, as in the jackknife: without it few effective
rows look less variable than they are.

It is asymptotic, not exact. With few effective rows, n_eff = 1 / sum u_a^2, or with a heavy tail of
weights, most of the target's mass may not have been drawn at all: the mean is then off in a way
that no resampling of these rows shows, and false alarms reach 10 to 20 % at level 5 %. The test
refuses where n_eff is below `FEWEST_EFFECTIVE` or the Pareto tail shape of the weights above
`LARGEST_KHAT`; what is left rejects a true null in at most 7 % of draws (`bench/levels.py`). It
also takes weights as given functions of the rows. Weights that were *fitted* to these same rows
make the two sides alike by construction; what is left between them measures balance, and a p-value
would be far too large.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from dpdq.distance._block_statistics import (
    detectable_squared_mmd,
    plural,
    soft_maximum,
    top_eigenvalue,
)
from dpdq.distance._common import normal_quantile
from dpdq.distance.kernel_blocks import FLOAT64_ROWS, block_sums
from dpdq.distance.permutation import PermutationDesign, permutation_pvalue
from dpdq.distance.random_features import feature_block_sums
from dpdq.errors import DataError, OptionError
from dpdq.kernels import GaussianKernel, bandwidth_grid, median_heuristic, standard_points
from dpdq.results import Estimate, TestResult
from dpdq.weights import Weights

__all__ = ["FEWEST_EFFECTIVE", "weighted_mmd_test"]

FEWEST_EFFECTIVE = 25.0  # effective rows, units or blocks of a side
LARGEST_KHAT = 0.4  # tail shape of weights: more than two moments, with room for its own error
SIDE_BLOCKS = 256  # of a side, where rows are too many for one multiplier each
ROWS_ALONE = 512  # rows or units of a side up to which each has its own multiplier
N_FREQUENCIES = 200
SAMPLE_ROWS = 500


def weighted_mmd_test(
    q: np.ndarray,
    p: np.ndarray,
    u: np.ndarray,
    v: np.ndarray,
    *,
    method: str,
    bandwidths: list[float] | None,
    n_multipliers: int,
    units_q: np.ndarray | None,
    units_p: np.ndarray | None,
    rng: np.random.Generator,
) -> TestResult:
    """Test that q weighted by u and p weighted by v are one law, by a wild bootstrap.

    Parameters
    ----------
    q, p
        Checked samples.
    u, v
        Their weights, each summing to one.
    method
        ``"single"``, ``"aggregated"`` or ``"random_features"``.
    bandwidths
        On the scale of the data, or None.
    n_multipliers
        B.
    units_q, units_p
        Integer unit of each row; a unit stands on one side only.
    rng
        Draws blocks, signs and random features.

    Returns
    -------
    TestResult
        As from `dpdq.distance.mmd_test`.

    Raises
    ------
    DataError
        Too few effective rows on a side, or a unit on both sides.
    OptionError
        B below 1, or units on one side only.
    """
    if n_multipliers < 1:
        raise OptionError(f"n_permutations is {n_multipliers}; expected at least 1")
    if (units_q is None) != (units_p is None):
        raise OptionError("units_q and units_p go together; give both or neither")
    n = len(q), len(p)
    units: list[np.ndarray | None] = [
        None if side is None else np.asarray(side) for side in (units_q, units_p)
    ]
    if units[0] is not None and units[1] is not None:
        for side, own, size in (("q", units[0], n[0]), ("p", units[1], n[1])):
            if own.shape != (size,):
                raise DataError(f"units_{side} has shape {own.shape}; expected ({size},)")
        if len(np.intersect1d(units[0], units[1])):
            raise DataError(
                "a unit stands on both sides; a weighted test needs units that stand on one side"
            )
        units = [units[0][u > 0], units[1][v > 0]]
    q, p, u, v = q[u > 0], p[v > 0], u[u > 0], v[v > 0]
    for side, weights in (("q", u), ("p", v)):
        khat = Weights.from_values(weights).khat
        if khat is not None and khat > LARGEST_KHAT:
            raise DataError(
                f"weights_{side}: the tail shape k-hat is {khat:.2f}, above {LARGEST_KHAT:g}: too "
                "much of the target may be missing for a test to keep its level; temper or clip "
                "the weights, or bring more rows"
            )
    design, per_block = _side_blocks(len(q), len(p), units, rng)
    signed = np.concatenate([u, -v])
    mass = np.add.reduceat(np.abs(signed)[design.order], design.starts[:-1])
    on_q = design.labels[0] > 0.5
    effective = []
    for side, rows in (("q", on_q), ("p", ~on_q)):
        effective.append(1.0 / float((mass[rows] ** 2).sum()))
        if effective[-1] < FEWEST_EFFECTIVE:
            raise DataError(
                f"weights_{side}: the {design.unit}s of {side} count for {effective[-1]:.1f} "
                f"effective ones; a weighted test needs at least {FEWEST_EFFECTIVE:g} to keep its "
                "level; temper or clip the weights, or bring more rows"
            )

    points, scale = standard_points(np.vstack([q, p]))
    drawn = rng.choice(
        len(points), min(len(points), SAMPLE_ROWS), replace=False, p=np.abs(signed) / 2.0
    )
    median = median_heuristic(points[drawn])
    if bandwidths is not None:
        chosen = [h / scale for h in bandwidths]
    else:
        chosen = [median] if method == "single" else list(bandwidth_grid(points[drawn]))
    kernel = GaussianKernel(chosen)
    # means are of order 1 / N: weights of mean size one keep float32 sums in range
    lift = len(points) / 2.0
    dtype = np.float64 if len(points) <= FLOAT64_ROWS else np.float32
    if method == "random_features":
        found = feature_block_sums(
            points, design, kernel, n_frequencies=N_FREQUENCIES, weights=lift * signed, rng=rng
        )
    else:
        found = block_sums(points, design, kernel, weights=lift * signed, dtype=dtype)
    own = np.add.reduceat(signed[design.order] ** 2, design.starts[:-1])
    signs = rng.integers(0, 2, (n_multipliers, len(mass))) * 2.0 - 1.0
    parts = [_Part(block / lift**2, own, mass, on_q, signs) for block in found.sums]
    standardised = np.array([part.standardised for part in parts])
    statistics = soft_maximum(standardised)
    tolerance = 1e-9 if dtype is np.float64 and method != "random_features" else 1e-6
    nearest = int(np.argmin(np.abs(np.log(np.asarray(kernel.bandwidths) / median))))
    effect = dataclasses.replace(
        parts[nearest].effect(),
        method=f"weighted squared MMD, gaussian kernel, bandwidth "
        f"{kernel.bandwidths[nearest] * scale:.6g}",
    )
    alone = len(parts) == 1
    return TestResult(
        statistic=float(effect.estimate or 0.0) if alone else float(statistics[0]),
        pvalue=permutation_pvalue(statistics, tolerance=tolerance),
        method=f"{method.replace('_', ' ')} weighted MMD, wild bootstrap of {plural(design.unit)}",
        n_q=n[0],
        n_p=n[1],
        effect=effect,
        detectable=parts[nearest].detectable,
        status=(
            "the null is that q and p are equal after these weights; if the weights were fitted to "
            "these rows, read the effect as balance and not the p-value"
        ),
        details={
            "method": method,
            "bandwidths": [h * scale for h in kernel.bandwidths],
            "deviations": standardised[:, 0].tolist(),
            "n_permutations": n_multipliers,
            "unit": design.unit,
            "n_blocks": len(mass),
            "effective_q": effective[0],
            "effective_p": effective[1],
            "rows_per_block": per_block,
            "smallest_pvalue": 1.0 / (n_multipliers + 1),
        },
    )


def _side_blocks(
    n_q: int, n_p: int, units: list[np.ndarray | None], rng: np.random.Generator
) -> tuple[PermutationDesign, int]:
    """Rows or units of each side, dealt into blocks by chance; each gets a multiplier."""
    block_of, counts, per_block = [], [], 1
    for n, own in zip((n_q, n_p), units, strict=True):
        names, unit_of = (n, np.arange(n)) if own is None else _numbered(own)
        m = names if names <= ROWS_ALONE else SIDE_BLOCKS
        per_block = max(per_block, -(-names // m))
        dealt = np.empty(names, dtype=np.int64)
        dealt[rng.permutation(names)] = np.arange(names) % m
        block_of.append(dealt[unit_of] + sum(counts))
        counts.append(m)
    pooled = np.concatenate(block_of)
    sizes = np.bincount(pooled, minlength=sum(counts))
    labels = np.repeat([1.0, 0.0], counts)[None]
    kind = "row" if units[0] is None else "unit"
    design = PermutationDesign(
        order=np.argsort(pooled, kind="stable"),
        starts=np.concatenate([[0], np.cumsum(sizes)]),
        labels=labels,
        log_arrangements=sum(counts) * math.log(2.0),
        unit=kind if per_block == 1 else f"block of {kind}s",
    )
    return design, per_block


def _numbered(units: np.ndarray) -> tuple[int, np.ndarray]:
    names, unit_of = np.unique(units, return_inverse=True)
    return len(names), unit_of


class _Part:
    """One bandwidth: the weighted statistic, its bootstrap, and the effect."""

    def __init__(
        self,
        sums: np.ndarray,
        own: np.ndarray,
        mass: np.ndarray,
        on_q: np.ndarray,
        signs: np.ndarray,
    ) -> None:
        full = sums + np.diag(own)
        side = np.where(on_q, 0, 1)
        # inner products of a block's signed sum with the signed mean of each side
        reach = np.column_stack([full[:, on_q].sum(axis=1), full[:, ~on_q].sum(axis=1)])
        between = np.array([reach[on_q].sum(axis=0), reach[~on_q].sum(axis=0)])
        cross = reach[:, side] * mass
        centred = full - cross - cross.T
        centred += between[np.ix_(side, side)] * np.outer(mass, mass)
        leverage = 1.0 / (1.0 - np.minimum(mass, 0.5))
        centred *= leverage[:, None]
        centred *= leverage
        diagonal = np.diagonal(centred).copy()
        self.value = float(full.sum()) - float((diagonal / leverage).sum())
        apart = centred - np.diag(diagonal)
        self.deviation = math.sqrt(2.0 * float(np.vdot(apart, apart)))
        drawn = np.einsum("ba,ba->b", signs @ apart, signs)
        scale = self.deviation if self.deviation > 1e-14 else math.inf
        self.detectable = detectable_squared_mmd(
            float(np.quantile(drawn, 0.95, method="higher")),
            self.deviation,
            top_eigenvalue(centred),
        )
        self.standardised = np.concatenate([[self.value], drawn]) / scale
        # the first-order part: how each block moves ||mu_q - mu_p||^2
        signed = np.where(on_q, 1.0, -1.0)
        pull = reach.sum(axis=1) - mass * signed * (signed * between.sum(axis=1)[side])
        influence = 2.0 * pull * leverage
        self.first_order = float(influence @ influence)

    def effect(self, level: float = 0.95) -> Estimate:
        error = math.sqrt(max(self.first_order - self.deviation**2, self.deviation**2))
        reach = normal_quantile(level) * error
        return Estimate(self.value, self.value - reach, self.value + reach, error, level)
