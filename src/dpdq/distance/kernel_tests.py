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
- `energy_test`: no bandwidth at all; good for shifts in location, weak against fine structure.

All p-values are of permutation tests (`dpdq.distance.permutation`): exact at every sample size,
with ties, in every dimension, and by units where rows belong together.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Literal

import numpy as np

from dpdq._random import RandomState, as_generator
from dpdq._threads import one_thread_each
from dpdq.distance._common import check_sides, normal_quantile
from dpdq.distance.permutation import (
    BlockSums,
    PermutationDesign,
    block_sums,
    permutation_design,
    permutation_pvalue,
    squared_mmd,
)
from dpdq.distance.random_features import feature_block_sums
from dpdq.errors import NotFittedError, OptionError
from dpdq.kernels import (
    EnergyKernel,
    GaussianKernel,
    bandwidth_grid,
    check_points,
    median_heuristic,
    standard_points,
)
from dpdq.results import Estimate, TestResult

__all__ = ["MMDTest", "energy_test", "mmd_test"]

Method = Literal["auto", "single", "aggregated", "random_features"]
METHODS = ("auto", "single", "aggregated", "random_features")
EXACT_ROWS = 20_000  # pooled rows up to which "auto" takes the exact kernels
PART_ROWS = 20_000  # pooled rows of the exact part beside random features
FLOAT64_ROWS = 1_024  # pooled rows up to which kernel tiles are float64
SAMPLE_ROWS = 500  # rows that bandwidths are chosen from
N_FREQUENCIES = 200  # random frequencies of each bandwidth
SHARPNESS = 8.0  # of the soft maximum


def mmd_test(
    q: np.ndarray,
    p: np.ndarray,
    *,
    method: Method = "auto",
    n_permutations: int = 199,
    bandwidths: float | Sequence[float] | None = None,
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
        time, joined by exact kernels on 20,000 of the rows), or ``"auto"``: aggregated up to
        20,000 pooled rows, random features above.
    n_permutations
        B. 999 cost hardly more than 199 and blur the p-value less.
    bandwidths
        Use these, on the scale of the data, instead of the median or the grid. They must not have
        been chosen by looking at which row is q.
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
        squared MMD there that the single kernel would find with 80 % power at level 5 %;
        ``details`` holds ``bandwidths``, ``deviations`` (z_h), ``n_permutations``, ``unit``,
        ``n_blocks`` and ``smallest_pvalue``.

    Raises
    ------
    DataError
        Values are not finite, columns do not match, or a side has fewer than two rows.
    OptionError
        Unknown method, bandwidths that are not positive, or B below 1.

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
    design = permutation_design(
        len(q), len(p), n_permutations=n_permutations, units_q=units_q, units_p=units_p, rng=rng
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
    if method == "random_features":
        sums = feature_block_sums(points, design, kernel, n_frequencies=N_FREQUENCIES, rng=rng)
        parts.append((design, sums))
        part = design.part(_rows_per_block(design.sizes, PART_ROWS))
        parts.append((part, block_sums(points, part, kernel, dtype=dtype)))
    else:
        parts.append((design, block_sums(points, design, kernel, dtype=dtype)))
    standardised = np.vstack([_standardised(sums, part) for part, sums in parts])
    statistics = _soft_maximum(standardised)
    pvalue = permutation_pvalue(statistics, tolerance=1e-9 if dtype is np.float64 else 1e-6)

    nearest = int(np.argmin(np.abs(np.log(np.asarray(kernel.bandwidths) / median))))
    own = [h * scale for h in kernel.bandwidths]
    effect, detectable = _block_effect(parts[0][1], design, nearest)
    alone = len(standardised) == 1 and effect.estimate is not None
    return TestResult(
        statistic=float(effect.estimate or 0.0) if alone else float(statistics[0]),
        pvalue=pvalue,
        method=f"{method.replace('_', ' ')} MMD, permutation of {_plural(design.unit)}",
        n_q=len(q),
        n_p=len(p),
        effect=dataclasses.replace(
            effect, method=f"squared MMD, gaussian kernel, bandwidth {own[nearest]:.6g}"
        ),
        detectable=detectable,
        status=_status(design),
        details={
            "method": method,
            "bandwidths": own,
            "deviations": standardised[:, 0].tolist(),
            "n_permutations": n_permutations,
            "unit": design.unit,
            "n_blocks": len(design.sizes),
            "smallest_pvalue": design.smallest_pvalue,
            "rows_exact": int(parts[-1][0].sizes.sum()),
        },
    )


def _plural(unit: str) -> str:
    return unit.replace("block", "blocks") if unit.startswith("block") else unit + "s"


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


def _standardised(sums: BlockSums, design: PermutationDesign) -> np.ndarray:
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


def _soft_maximum(standardised: np.ndarray) -> np.ndarray:
    top = standardised.max(axis=0)
    return top + np.log(np.exp(SHARPNESS * (standardised - top)).mean(axis=0)) / SHARPNESS


def _status(design: PermutationDesign) -> str:
    if design.smallest_pvalue > 0.05:
        return (
            f"no p-value below {design.smallest_pvalue:.2g} is possible with so few "
            "rows, units or permutations"
        )
    return ""


def _block_effect(
    sums: BlockSums, design: PermutationDesign, k: int, level: float = 0.95
) -> tuple[Estimate, float]:
    """MMD^2 of one kernel with an interval from the spread of blocks, and what is detectable."""
    label = design.labels[0]
    sizes = sums.sizes.astype(np.float64)
    n = np.array([label @ sizes, (1.0 - label) @ sizes])
    one = BlockSums(sums.sums[k : k + 1], sums.sizes, sums.diagonal)
    if design.by_unit:
        values = squared_mmd(one, design.labels)[0]
        deviation = float(values.std())
    else:
        values = squared_mmd(one, design.labels[:1])[0]
        deviation = math.sqrt(2.0) * float((1.0 / n).sum()) * float(one.null_deviation()[0])
    value = float(values[0])
    detectable = (NormalDist().inv_cdf(0.95) + NormalDist().inv_cdf(0.8)) * deviation
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
    Held by: tests/distance/test_kernel_tests.py::test_level

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
        statistics = _standardised(sums, design)[0]
        effect, detectable = _block_effect(sums, design, 0)
    # Equal rows are 1e-8 apart after the square root, not 0.
    pvalue = permutation_pvalue(statistics, tolerance=1e-6)
    return TestResult(
        statistic=scale * float(effect.estimate or 0.0),
        pvalue=pvalue,
        method=f"energy distance, permutation of {_plural(design.unit)}",
        n_q=len(q),
        n_p=len(p),
        effect=_scaled(effect, scale),
        detectable=scale * detectable,
        status=_status(design),
        details={
            "n_permutations": n_permutations,
            "unit": design.unit,
            "n_blocks": len(design.sizes),
            "smallest_pvalue": design.smallest_pvalue,
        },
    )


class MMDTest:
    """`mmd_test` of many samples p against one reference q.

    The reference is checked once. Bandwidths are chosen from the pooled rows of each test, since a
    choice from the reference alone would know the side and void the exact level.

    Parameters
    ----------
    method, n_permutations, bandwidths, random_state
        As in `mmd_test`. The same integer seed serves every test.

    Attributes
    ----------
    n_features_in_
        Columns of the reference.
    n_q_
        Rows of the reference.

    Notes
    -----
    Cost: that of `mmd_test`, each time.
    Held by: tests/distance/test_kernel_tests.py::test_reference_reused

    References
    ----------
    .. [Gretton2012] A Kernel Two-Sample Test. Gretton, 2012, JMLR 13.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> test = MMDTest(random_state=0).fit(rng.normal(size=(200, 2)))
    >>> test.test(rng.normal(size=(50, 2)) + 2).pvalue
    0.005
    """

    def __init__(
        self,
        *,
        method: Method = "auto",
        n_permutations: int = 199,
        bandwidths: float | Sequence[float] | None = None,
        random_state: RandomState = None,
    ) -> None:
        self.method: Method = method
        self.n_permutations = n_permutations
        self.bandwidths = bandwidths
        self.random_state = random_state

    def fit(self, q: np.ndarray, *, units: np.ndarray | None = None) -> MMDTest:
        """Keep the reference.

        Parameters
        ----------
        q
            The reference, shape (n_q, d).
        units
            Integer unit of each row.

        Returns
        -------
        MMDTest
            This object.
        """
        self._q = check_points(q, "q")
        self._units = units
        self.n_q_, self.n_features_in_ = self._q.shape
        return self

    def test(self, p: np.ndarray, *, units: np.ndarray | None = None) -> TestResult:
        """Test one sample against the reference.

        Parameters
        ----------
        p
            The sample, shape (n_p, d).
        units
            Integer unit of each row.

        Returns
        -------
        TestResult
            As from `mmd_test`.

        Raises
        ------
        NotFittedError
            There is no reference yet.
        """
        if not hasattr(self, "_q"):
            raise NotFittedError("MMDTest has no reference yet; call fit(q) first")
        return mmd_test(
            self._q,
            p,
            method=self.method,
            n_permutations=self.n_permutations,
            bandwidths=self.bandwidths,
            units_q=self._units,
            units_p=units,
            random_state=self.random_state,
        )

    def __repr__(self) -> str:
        fitted = f", reference q of {self.n_q_} rows" if hasattr(self, "_q") else ""
        return f"MMDTest(method={self.method!r}, n_permutations={self.n_permutations}{fitted})"
