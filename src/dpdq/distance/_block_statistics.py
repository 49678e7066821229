"""What kernel tests compute from block sums: standardised statistics, the effect, what they see."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

from dpdq.distance._common import normal_quantile
from dpdq.distance.kernel_blocks import BlockSums, squared_mmd
from dpdq.distance.permutation import PermutationDesign
from dpdq.results import Estimate

__all__ = [
    "block_effect",
    "detectable_squared_mmd",
    "plural",
    "resolution_status",
    "soft_maximum",
    "standardised_mmd",
    "top_eigenvalue",
]

SHARPNESS = 8.0  # of the soft maximum


def plural(unit: str) -> str:
    return unit.replace("block", "blocks") if unit.startswith("block") else unit + "s"


def standardised_mmd(sums: BlockSums, design: PermutationDesign) -> np.ndarray:
    """Squared MMDs in units of their standard deviation under permutation.

    For rows that is known; for units, whose rows hang together, it is taken from all arrangements,
    the observed one among them, so that none is treated differently.
    """
    n_q = design.labels @ sums.sizes.astype(np.float64)
    n_p = float(sums.sizes.sum()) - n_q
    values = squared_mmd(sums, design.labels) / (math.sqrt(2.0) * (1.0 / n_q + 1.0 / n_p))
    if design.by_unit:
        values -= values.mean(axis=1, keepdims=True)
        deviation = values.std(axis=1)
    else:
        deviation = sums.null_deviation()
    # A kernel that is constant over the data tells nothing.
    deviation = np.where(deviation > 1e-12, deviation, np.inf)
    return values / deviation[:, None]


def soft_maximum(standardised: np.ndarray) -> np.ndarray:
    top = standardised.max(axis=0)
    return top + np.log(np.exp(SHARPNESS * (standardised - top)).mean(axis=0)) / SHARPNESS


def resolution_status(design: PermutationDesign) -> str:
    if design.smallest_pvalue > 0.05:
        return (
            f"no p-value below {design.smallest_pvalue:.2g} is possible with so few "
            "rows, units or permutations"
        )
    return ""


def block_effect(
    sums: BlockSums, design: PermutationDesign, k: int, level: float = 0.95
) -> tuple[Estimate, float]:
    """MMD^2 of one kernel with an interval from the spread of blocks, and what is detectable."""
    label = design.labels[0]
    sizes = sums.sizes.astype(np.float64)
    n = np.array([label @ sizes, (1.0 - label) @ sizes])
    one = BlockSums(sums.sums[k : k + 1], sums.sizes, sums.diagonal, sums.within)
    values = squared_mmd(one, design.labels)[0]
    if design.by_unit:
        deviation = float(values.std())
    else:
        deviation = math.sqrt(2.0) * float((1.0 / n).sum()) * float(one.null_deviation()[0])
    value = float(values[0])
    detectable = detectable_squared_mmd(
        float(np.quantile(values[1:], 0.95, method="higher")),
        deviation,
        _largest_variance(one) * float((1.0 / n).sum()),
    )
    if design.paired:
        return Estimate(value, reason="no interval where units stand on both sides"), detectable
    moves = design.labels.min(axis=0) < design.labels.max(axis=0)
    variance = 0.0
    for side, own in ((label > 0.5, 0), (label < 0.5, 1)):
        inside = sums.sums[k] @ np.where(side, 1.0, 0.0) / max(n[own] - 1.0, 1.0)
        across = sums.sums[k] @ np.where(side, 0.0, 1.0) / n[1 - own]
        influence = 2.0 * (inside - across)
        use = side & moves if (side & moves).sum() >= 8 else side
        spread = influence[use] - sizes[use] * influence[side].sum() / n[own]
        count = int(use.sum())
        if count < 2:
            return Estimate(value, reason="too few blocks for a standard error"), detectable
        variance += float((spread**2).sum() / sizes[use].sum()) / n[own] * count / (count - 1)
    error = math.sqrt(max(variance - deviation**2, deviation**2))
    reach = normal_quantile(level) * error
    return Estimate(value, value - reach, value + reach, error, level), detectable


def _largest_variance(sums: BlockSums) -> float:
    """The largest variance of a row along any one direction of the kernel's space, one kernel."""
    sizes = sums.sizes.astype(np.float64)
    n = float(sizes.sum())
    gram = sums.sums[0] + np.diag(sums.diagonal * sizes)
    mean = gram.sum(axis=1) / n
    gram -= np.multiply.outer(mean, sizes)
    gram -= np.multiply.outer(sizes, mean - sizes * (float(sizes @ mean) / n))
    return top_eigenvalue(gram) / n


def top_eigenvalue(gram: np.ndarray) -> float:
    """The largest eigenvalue of a positive semidefinite matrix, to a few per cent."""
    vector = gram[:, int(np.argmax(np.diagonal(gram)))]
    value = 0.0
    for _ in range(30):
        length = float(np.linalg.norm(vector))
        if length == 0.0:
            return 0.0
        vector = gram @ (vector / length)
        value = float(np.linalg.norm(vector))
    return value


def detectable_squared_mmd(quantile: float, deviation: float, variance: float) -> float:
    """The squared MMD found with 80 % power, in whatever direction the laws differ.

        x = c + z_0.8 sqrt(s^2 + 4 v x)

    Parameters
    ----------
    quantile
        c, the 95 % quantile of the statistic under q = p.
    deviation
        s, its standard deviation there.
    variance
        v, the largest variance of the difference of means along one direction.

    Returns
    -------
    float
        x.
    """
    z = NormalDist().inv_cdf(0.8)
    c = max(quantile, 0.0)
    # the larger root of (x - c)^2 = z^2 (s^2 + 4 v x)
    half = c + 2.0 * z**2 * variance
    return half + math.sqrt(max(half**2 - c**2 + (z * deviation) ** 2, 0.0))
