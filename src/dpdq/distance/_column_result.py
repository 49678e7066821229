"""What one column's comparison hands back, and what its parts share."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from dpdq.distance._units import Units
from dpdq.distance.histograms import Histogram
from dpdq.results import Result

__all__ = ["KINDS", "LEVEL_TESTS", "RANK_TESTS", "TESTS", "ColumnJob", "ColumnResult"]

KINDS = ("numeric", "boolean", "categorical", "datetime", "text", "embedding")
RANK_TESTS = {
    "ad": "Anderson-Darling",
    "ks": "Kolmogorov-Smirnov",
    "cvm": "Cram\N{LATIN SMALL LETTER E WITH ACUTE}r-von Mises",
}
LEVEL_TESTS = {"chi2": "chi-square", "g": "G"}
TESTS = ("auto", *RANK_TESTS, *LEVEL_TESTS)


@dataclasses.dataclass(frozen=True, repr=False)
class ColumnResult(Result):
    """One column of q against the same column of p.

    Attributes
    ----------
    name, kind
        The column.
    test, statistic, pvalue
        The test of the values; ``pvalue`` also counts the test of the missing share. None where
        there is nothing to test.
    pvalue_method
        Where the p-value comes from.
    pvalue_adjusted, shifted
        Filled in by who looks at many columns at once.
    effect
        ``measure`` "psi", bias-corrected ``estimate``, ``low`` and ``high`` of a 95 % interval.
    detectable
        The smallest population PSI that the test finds at these sizes with 80 % power at level 5 %:
        of a shift in location for a rank test, of any change of shares for a test of levels. None
        where nothing can be tested.
    psi, jensen_shannon
        Plain population stability index and Jensen-Shannon divergence (nats) over the same bins;
        missing is a bin.
    wasserstein, wasserstein_standardised
        Exact Wasserstein-1 distance in units of the column (seconds for instants), and in units of
        the pooled standard deviation. None for levels.
    smd, smd_low, smd_high
        Standardised mean difference of p less q with a 95 % interval; for a categorical column that
        of the level that moved most, without interval.
    smd_weighted
        The same after weighting q.
    missing
        Shares of missing values on both sides.
    missing_test
        p-value and ``difference`` of the missing shares, or None where nothing is missing.
    summary
        A few numbers of each side.
    histogram
        Shares over common bins.
    """

    name: str
    kind: str
    test: str | None = None
    statistic: float | None = None
    pvalue: float | None = None
    pvalue_method: str = ""
    pvalue_adjusted: float | None = None
    shifted: bool | None = None
    effect: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    detectable: float | None = None
    psi: float | None = None
    jensen_shannon: float | None = None
    wasserstein: float | None = None
    wasserstein_standardised: float | None = None
    smd: float | None = None
    smd_low: float | None = None
    smd_high: float | None = None
    smd_weighted: float | None = None
    missing: Mapping[str, float] = dataclasses.field(default_factory=dict)
    missing_test: Mapping[str, Any] | None = None
    summary: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    histogram: Histogram | None = None


@dataclasses.dataclass(frozen=True)
class ColumnJob:
    """What the parts of one comparison share."""

    name: str
    kind: str
    test: str
    n_permutations: int
    seed: int
    units: Units | None
    weights_q: np.ndarray | None

    def generator(self, part: int) -> np.random.Generator:
        # one stream a part, so that a missing value does not change the draws of the test
        return np.random.default_rng([self.seed, part])
