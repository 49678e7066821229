"""The permutation test of the energy distance: the kernel test without a bandwidth.

The kernel -||x - y|| has no scale to choose and sees shifts of location as well as any; it is weak
against fine structure, where `dpdq.distance.mmd_test` has far more power. Everything else, blocks,
units and exactness, is that of `dpdq.distance.kernel_tests`.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from dpdq._random import RandomState, as_generator
from dpdq._threads import one_thread_each
from dpdq.distance._block_statistics import (
    block_effect,
    plural,
    resolution_status,
    standardised_mmd,
)
from dpdq.distance._common import check_sides
from dpdq.distance.kernel_blocks import FLOAT64_ROWS, block_sums
from dpdq.distance.permutation import permutation_design, permutation_pvalue
from dpdq.kernels import EnergyKernel, standard_points
from dpdq.results import Estimate, TestResult

__all__ = ["energy_test"]


def energy_test(
    q: np.ndarray,
    p: np.ndarray,
    *,
    n_permutations: int = 199,
    units_q: np.ndarray | None = None,
    units_p: np.ndarray | None = None,
    random_state: RandomState = None,
) -> TestResult:
    """Test that q and p are samples of one law, by the energy distance and permutation.

        T = 2 mean||q_i - p_j|| - mean_{i != j}||q_i - q_j|| - mean_{i != j}||p_i - p_j||

    Exact at every sample size, and without a bandwidth. Good against shifts of location; where the
    laws differ only in fine structure `mmd_test` has far more power. Heavy tails cost power, since
    the largest rows dominate the sums.

    Parameters
    ----------
    q, p
        Samples, shapes (n_q, d) and (n_p, d); at least two rows each.
    n_permutations
        B.
    units_q, units_p
        Integer unit of each row, as in `mmd_test`.
    random_state
        Seed of blocks and permutations.

    Returns
    -------
    TestResult
        ``statistic`` and ``effect`` are the energy distance in the unit of the data; the effect
        has a normal interval.

    Raises
    ------
    DataError
        Values are not finite, columns do not match, or a side has fewer than two rows.
    OptionError
        B below 1.

    Notes
    -----
    Cost: O((n_q + n_p)^2 d) time, O((n_q + n_p) d) memory.
    Held by: tests/distance/test_energy_tests.py::test_level

    References
    ----------
    .. [Szekely2013] Energy statistics: A class of statistics based on distances. Szekely, 2013,
       Journal of Statistical Planning and Inference 143.
    .. [DomingoEnrich2025] Cheap Permutation Testing. Domingo-Enrich, 2025, arXiv 2502.07672.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> energy_test(rng.normal(size=(80, 3)), rng.normal(1, 1, size=(60, 3)), random_state=0).pvalue
    0.005
    """
    q, p = check_sides(q, p, minimum=2)
    rng = as_generator(random_state)
    points, scale = standard_points(np.vstack([q, p]))
    design = permutation_design(
        len(q), len(p), n_permutations=n_permutations, units_q=units_q, units_p=units_p, rng=rng
    )
    dtype = np.float64 if len(points) <= FLOAT64_ROWS else np.float32
    with one_thread_each():
        sums = block_sums(points, design, EnergyKernel(), dtype=dtype)
        statistics = standardised_mmd(sums, design)[0]
        effect, detectable = block_effect(sums, design, 0)
    # Equal rows are 1e-8 apart after the square root, not 0.
    pvalue = permutation_pvalue(statistics, tolerance=1e-6)
    return TestResult(
        statistic=scale * float(effect.estimate or 0.0),
        pvalue=pvalue,
        method=f"energy distance, permutation of {plural(design.unit)}",
        n_q=len(q),
        n_p=len(p),
        effect=_scaled(effect, scale),
        detectable=scale * detectable,
        status=resolution_status(design),
        details={
            "n_permutations": n_permutations,
            "unit": design.unit,
            "n_blocks": len(design.sizes),
            "smallest_pvalue": design.smallest_pvalue,
        },
    )


def _scaled(effect: Estimate, scale: float) -> Estimate:
    def times(number: float | None) -> float | None:
        return None if number is None else scale * number

    return dataclasses.replace(
        effect,
        estimate=times(effect.estimate),
        low=times(effect.low),
        high=times(effect.high),
        standard_error=times(effect.standard_error),
        method="energy distance",
    )
