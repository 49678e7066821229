"""Tests of "q and p are the same law" by kernels and permutation.

The statistic is the squared distance of two mean embeddings (`dpdq.distance.kernel_distances`); the
scale at which the laws are compared, the bandwidth, decides the power:

- ``single``: one Gaussian kernel at the median distance. Sees shifts of the bulk; blind to what
  happens on finer scales.
- ``aggregated``: ten bandwidths at once, from below the smallest distances to above the largest.
  Each squared MMD is divided by its standard deviation under permutation and the largest decide,
  through a soft maximum. The default up to `EXACT_ROWS` pooled rows.
- ``random_features``: the same on all rows in linear time through random Fourier features, joined
  by the exact kernels on a part of the rows, so that narrow kernels in many dimensions, which
  random features cannot resolve, keep the power that the part has. The default above.
- ``compressed``: the same with each block of rows thinned to a coreset by kernel halving. It sees
  far more than a chance sample of as many rows, and at 2 x 40,000 rows about as much as random
  features do in a quarter of its time (`bench/output/levels.txt`), so that it is never the default.
- `energy_test`: no bandwidth at all; good for shifts in location, weak against fine structure.

All p-values are of permutation tests (`dpdq.distance.permutation`): exact at every sample size,
with ties, in every dimension, and by units where rows belong together. Only where weights are given
is it a multiplier test (`dpdq.distance.weighted_tests`), since permuting weighted rows tests
something else.

Permutations are not stopped early here: once block sums are there 999 of them cost about a fifth of
the test (`bench/output/mmd.txt`), so stopping would save nothing. `classifier_test`, where each may
cost a refit, does stop.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np

from dpdq._random import RandomState, as_generator
from dpdq._threads import one_thread_each
from dpdq.distance._block_statistics import (
    block_effect,
    plural,
    resolution_status,
    soft_maximum,
    standardised_mmd,
)
from dpdq.distance._common import check_sides, check_weights
from dpdq.distance.compressed import coreset_block_sums
from dpdq.distance.kernel_blocks import FLOAT64_ROWS, BlockSums, block_sums
from dpdq.distance.permutation import (
    MAX_BLOCKS,
    PermutationDesign,
    permutation_design,
    permutation_pvalue,
)
from dpdq.distance.random_features import feature_block_sums
from dpdq.distance.weighted_tests import weighted_mmd_test
from dpdq.errors import OptionError
from dpdq.kernels import GaussianKernel, bandwidth_grid, median_heuristic, standard_points
from dpdq.results import TestResult

__all__ = ["mmd_test"]

Method = Literal["auto", "single", "aggregated", "compressed", "random_features"]
METHODS = ("auto", "single", "aggregated", "compressed", "random_features")
EXACT_ROWS = 20_000  # pooled rows up to which "auto" takes the exact kernels
PART_ROWS = 20_000  # pooled rows of the exact part beside random features
CORESET_ROWS = 16_384  # pooled rows that "compressed" keeps
CORESET_BLOCKS = 64  # few and large: a coreset is the better the more rows it stands for
SAMPLE_ROWS = 500  # rows that bandwidths are chosen from
N_FREQUENCIES = 200  # random frequencies of each bandwidth


def mmd_test(
    q: np.ndarray,
    p: np.ndarray,
    *,
    method: Method = "auto",
    n_permutations: int = 199,
    bandwidths: float | Sequence[float] | None = None,
    weights_q: np.ndarray | None = None,
    weights_p: np.ndarray | None = None,
    units_q: np.ndarray | None = None,
    units_p: np.ndarray | None = None,
    random_state: RandomState = None,
) -> TestResult:
    """Test that q and p are samples of one law, by MMD and permutation.

        T = 1/8 log mean_h exp(8 z_h),   z_h = MMD_h^2 / (sqrt(2) (1/n_q + 1/n_p) s_h)

    z_h is the unbiased squared MMD of the Gaussian kernel with bandwidth h, in units of its
    standard deviation under permutation (s_h is the root mean square of the centred pooled kernel
    matrix; with units, mean and standard deviation over all arrangements take its place), and T is
    a soft maximum over bandwidths, as in MMD-FUSE. Two things differ from the paper: the
    normaliser is centred, so that wide kernels, which see shifts of location, are not held down by
    their mean; and the maximum is sharper. Permutations move whole blocks of rows, so that their
    number costs next to nothing.

    The p-value is exact at every size and dimension: P(p <= alpha) <= alpha under q = p. It
    assumes that rows (or the given units) are drawn independently; rows that come in groups or in
    time order and are not given as units make it far too small. At large n it finds differences
    of no consequence: read the effect too. Distances are Euclidean over all columns as given, so
    put columns on comparable scales first. In many dimensions with few rows the power against a
    change in a single column is low.

    Parameters
    ----------
    q, p
        Samples, shapes (n_q, d) and (n_p, d); at least two rows each.
    method
        ``"single"`` (one bandwidth), ``"aggregated"`` (ten), ``"random_features"`` (ten, in linear
        time, joined by exact kernels on 20,000 of the rows), ``"compressed"`` (ten, on blocks that
        are thinned to 16,384 rows in all), or ``"auto"``: aggregated up to 20,000 pooled rows,
        random features above.
    n_permutations
        B. 999 cost hardly more than 199 and blur the p-value less.
    bandwidths
        Use these, on the scale of the data, instead of the median or the grid. They must not have
        been chosen by looking at which row is q.
    weights_q, weights_p
        Importance weights of rows, any scale; zero drops the row. The null is then that q
        *reweighted* equals p reweighted, the law of T under it comes from B random signs, not
        permutations, and the level holds for many effective rows only: too few, or weights with a
        heavy tail, are refused. Weights that were fitted to these same rows make them alike by
        construction: read ``effect`` as balance then, and not the p-value.
    units_q, units_p
        Integer unit of each row. Units only on one side exchange labels as wholes; the two parts
        of a unit on both sides are swapped.
    random_state
        Seed of blocks, permutations and random features.

    Returns
    -------
    TestResult
        ``statistic`` is T (the squared MMD for ``"single"``); ``effect`` the squared MMD at the
        bandwidth nearest to the median heuristic, with a normal interval; ``detectable`` the
        squared MMD there that the single kernel finds with 80 % power or more at level 5 %, in
        whatever direction the laws differ;
        ``details`` holds ``bandwidths``, ``deviations`` (z_h), ``n_permutations``, ``unit``,
        ``n_blocks`` and ``smallest_pvalue``.

    Raises
    ------
    DataError
        Values are not finite, columns do not match, a side has fewer than two rows, or the weights
        leave fewer than 25 effective rows or have a heavy tail.
    OptionError
        Unknown method, weights with ``"compressed"``, bandwidths that are not positive, or B below
        1.

    Notes
    -----
    Cost: O((n_q + n_p)^2 (d + 10)) time, O((n_q + n_p) d) memory; linear time above 20,000 rows.
    Held by: tests/distance/test_kernel_tests.py::test_level

    References
    ----------
    .. [Gretton2012] A Kernel Two-Sample Test. Gretton, 2012, JMLR 13.
    .. [Biggs2023] MMD-FUSE: Learning and Combining Kernels for Two-Sample Testing Without Data
       Splitting. Biggs, 2023, arXiv 2306.08777.
    .. [DomingoEnrich2025] Cheap Permutation Testing. Domingo-Enrich, 2025, arXiv 2502.07672.
    .. [DomingoEnrich2023] Compress Then Test: Powerful Kernel Testing in Near-linear Time.
       Domingo-Enrich, 2023, arXiv 2301.05974.
    .. [Rahimi2007] Random Features for Large-Scale Kernel Machines. Rahimi, 2007, NeurIPS 20.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> q, p = rng.normal(size=(300, 2)), rng.normal(size=(300, 2)) * [1.0, 1.5]
    >>> mmd_test(q=q, p=p, random_state=0).pvalue
    0.005
    """
    if method not in METHODS:
        raise OptionError(
            f"Unknown method {method!r}. Choose one of {', '.join(map(repr, METHODS))}."
        )
    q, p = check_sides(q, p, minimum=2)
    if method == "auto":
        method = "aggregated" if len(q) + len(p) <= EXACT_ROWS else "random_features"
    if weights_q is not None or weights_p is not None:
        if method == "compressed":
            raise OptionError("method 'compressed' takes no weights; choose 'random_features'")
        u, v = check_weights(weights_q, len(q), "q"), check_weights(weights_p, len(p), "p")
        with one_thread_each():
            return weighted_mmd_test(
                q,
                p,
                u,
                v,
                method=method,
                bandwidths=None if bandwidths is None else np.atleast_1d(bandwidths).tolist(),
                n_multipliers=n_permutations,
                units_q=units_q,
                units_p=units_p,
                rng=as_generator(random_state),
            )
    with one_thread_each():
        return _mmd_test(
            q, p, method, n_permutations, bandwidths, units_q, units_p, as_generator(random_state)
        )


def _mmd_test(
    q: np.ndarray,
    p: np.ndarray,
    method: str,
    n_permutations: int,
    bandwidths: float | Sequence[float] | None,
    units_q: np.ndarray | None,
    units_p: np.ndarray | None,
    rng: np.random.Generator,
) -> TestResult:
    points, scale = standard_points(np.vstack([q, p]))
    thinned = method == "compressed" and len(points) >= 2 * CORESET_ROWS
    design = permutation_design(
        len(q),
        len(p),
        n_permutations=n_permutations,
        units_q=units_q,
        units_p=units_p,
        max_blocks=CORESET_BLOCKS if thinned else MAX_BLOCKS,
        rng=rng,
    )
    # Drawn from all rows alike: a choice that cannot know the side.
    sample = points[rng.choice(len(points), min(len(points), SAMPLE_ROWS), replace=False)]
    median = median_heuristic(sample)
    if bandwidths is not None:
        chosen = [float(h) / scale for h in np.atleast_1d(np.asarray(bandwidths, dtype=float))]
    else:
        chosen = [median] if method == "single" else list(bandwidth_grid(sample))
    kernel = GaussianKernel(chosen)
    dtype = np.float64 if len(points) <= FLOAT64_ROWS else np.float32
    parts: list[tuple[PermutationDesign, BlockSums]] = []
    rows_exact = len(points)
    if method == "random_features":
        sums = feature_block_sums(points, design, kernel, n_frequencies=N_FREQUENCIES, rng=rng)
        parts.append((design, sums))
        part = design.part(_rows_per_block(design.sizes, PART_ROWS))
        parts.append((part, block_sums(points, part, kernel, dtype=dtype)))
        rows_exact = int(part.sizes.sum())
    elif thinned:
        sums, rows_exact = coreset_block_sums(
            points, design, kernel, coreset_rows=CORESET_ROWS, rng=rng, dtype=dtype
        )
        parts.append((design, sums))
    else:
        parts.append((design, block_sums(points, design, kernel, dtype=dtype)))
    standardised = np.vstack([standardised_mmd(sums, part) for part, sums in parts])
    statistics = soft_maximum(standardised)
    pvalue = permutation_pvalue(statistics, tolerance=1e-9 if dtype is np.float64 else 1e-6)

    nearest = int(np.argmin(np.abs(np.log(np.asarray(kernel.bandwidths) / median))))
    own = [h * scale for h in kernel.bandwidths]
    effect, detectable = block_effect(parts[0][1], design, nearest)
    alone = len(standardised) == 1 and effect.estimate is not None
    return TestResult(
        statistic=float(effect.estimate or 0.0) if alone else float(statistics[0]),
        pvalue=pvalue,
        method=f"{method.replace('_', ' ')} MMD, permutation of {plural(design.unit)}",
        n_q=len(q),
        n_p=len(p),
        effect=dataclasses.replace(
            effect, method=f"squared MMD, gaussian kernel, bandwidth {own[nearest]:.6g}"
        ),
        detectable=detectable,
        status=resolution_status(design),
        details={
            "method": method,
            "bandwidths": own,
            "deviations": standardised[:, 0].tolist(),
            "n_permutations": n_permutations,
            "unit": design.unit,
            "n_blocks": len(design.sizes),
            "smallest_pvalue": design.smallest_pvalue,
            "rows_exact": rows_exact,
        },
    )


def _rows_per_block(sizes: np.ndarray, total: int) -> int:
    """The most rows to take of each block so that all together are at most ``total``."""
    low, high = 1, int(sizes.max())
    while low < high:
        middle = (low + high + 1) // 2
        if np.minimum(sizes, middle).sum() <= total:
            low = middle
        else:
            high = middle - 1
    return low
