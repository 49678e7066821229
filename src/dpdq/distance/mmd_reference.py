"""One reference q, many samples p: the kernel test as an object with `fit`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dpdq._random import RandomState
from dpdq.distance.kernel_tests import Method, mmd_test
from dpdq.errors import NotFittedError
from dpdq.kernels import check_points
from dpdq.results import TestResult

__all__ = ["MMDTest"]


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
    Cost: that of `mmd_test`, O(n² d) time for exact kernels, each time.
    Held by: tests/distance/test_mmd_reference.py::test_reference_reused

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
