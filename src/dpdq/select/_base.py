"""The role "utility": ``fit``, then ``utility(pool) -> (n,)``, larger for rows worth keeping.

A selector is two objects freely combined: a utility, which scores, and a mechanism
(`dpdq.select.mechanisms`), which keeps. A utility says beforehand what it will cost.
"""

from __future__ import annotations

import abc
import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dpdq._parameters import Parameterised
from dpdq.data.sampling import bottom_k_rows
from dpdq.errors import DataError
from dpdq.results import Result

__all__ = ["Price", "Utility", "check_utility", "pilot_price"]


@dataclasses.dataclass(frozen=True, repr=False)
class Price(Result):
    """What a job will cost, told before it starts.

    Attributes
    ----------
    fits
        Models that will be fitted.
    comparisons
        Scores, distances or likelihoods that will be computed.
    seconds
        Wall-clock seconds on this machine by a pilot; ``None`` without one.
    pilot_rows
        Rows of the pilot.
    status
        The price in a sentence.
    """

    fits: int
    comparisons: int
    seconds: float | None = None
    pilot_rows: int = 0
    status: str = ""


def pilot_price(
    job: Callable[[np.ndarray], Any],
    n_rows: int,
    *,
    fits: int,
    comparisons: int,
    pilot_rows: int = 200,
) -> Price:
    """Time a job on two small samples and extend the line to all rows.

        seconds(n) = seconds(n_1) + (seconds(n_1) - seconds(n_0)) (n - n_1) / (n_1 - n_0)

    Parameters
    ----------
    job
        Does the work for the row numbers given to it.
    n_rows
        Rows of the whole job.
    fits, comparisons
        What the whole job will do.
    pilot_rows
        n_1; n_0 is a quarter of it. Where there are no more rows than that, nothing is timed.

    Returns
    -------
    Price
        The price; linear in n, so too low for a job that is quadratic in the rows.
    """
    counted = f"{fits:,} fits, {comparisons:,} comparisons"
    if n_rows <= pilot_rows:
        return Price(fits, comparisons, status=f"{counted}; too few rows for a pilot")
    rows = bottom_k_rows(n_rows, pilot_rows)
    few = rows[: max(1, pilot_rows // 4)]
    job(few)  # imports and first-call costs are not the job's
    times = []
    for some in (few, rows):
        start = time.perf_counter()
        job(some)
        times.append(time.perf_counter() - start)
    slope = max(times[1] - times[0], 0.0) / (len(rows) - len(few))
    seconds = times[1] + slope * (n_rows - len(rows))
    text = f"{counted}, about {seconds:.2g} s for {n_rows:,} rows by a pilot of {len(rows)}"
    return Price(fits, comparisons, seconds, len(rows), text)


def check_utility(utility: object, name: str = "utility") -> np.ndarray:
    """Utilities as a float64 vector without NaN; minus infinity drops a row.

    Raises
    ------
    DataError
        A wrong shape, NaN or plus infinity.
    """
    values = np.asarray(utility, dtype=np.float64)
    if values.ndim != 1 or len(values) == 0:
        raise DataError(f"{name} has shape {values.shape}; expected (n,), one number a row")
    bad = np.isnan(values) | (values == np.inf)
    if bad.any():
        raise DataError(
            f"{name}: {int(bad.sum())} of {len(values)} values are NaN or plus infinity (first at "
            f"row {int(bad.argmax())}); a utility is finite, or -inf to drop a row"
        )
    return values


class Utility(Parameterised, abc.ABC):
    """Base of everything that scores a pool: larger means more worth keeping."""

    @abc.abstractmethod
    def utility(self, pool: Any) -> np.ndarray:
        """Score the rows of a pool.

        Parameters
        ----------
        pool
            The rows, in the form that ``fit`` took.

        Returns
        -------
        ndarray of shape (n,)
            Utilities; larger is better.
        """

    def price(self, pool: Any, *, pilot_rows: int = 200) -> Price:
        """What scoring this pool will cost, by a pilot on a few of its rows.

        Parameters
        ----------
        pool
            A sequence, array or table that can be indexed by row numbers.
        pilot_rows
            Rows of the pilot.

        Returns
        -------
        Price
            Fits, comparisons and seconds.
        """
        n = len(pool)
        fits, comparisons = self._counts(n)
        return pilot_price(
            lambda rows: self.utility(take_rows(pool, rows)),
            n,
            fits=fits,
            comparisons=comparisons,
            pilot_rows=pilot_rows,
        )

    def _counts(self, n: int) -> tuple[int, int]:
        """Fits and comparisons of scoring ``n`` rows; one comparison a row unless overridden."""
        return 0, n


def take_rows(pool: Any, rows: np.ndarray) -> Any:
    """Rows of an array, a table or a sequence, by number."""
    if isinstance(pool, np.ndarray):
        return pool[rows]
    if hasattr(pool, "iloc"):  # pandas
        return pool.iloc[rows]
    if hasattr(pool, "shape") and not hasattr(pool, "take"):  # sparse
        return pool[rows]
    if hasattr(pool, "take") and not hasattr(pool, "shape"):  # Arrow
        return pool.take(rows)
    if hasattr(pool, "shape"):  # Polars, torch, Arrow tables
        return pool.take(rows) if hasattr(pool, "column_names") else pool[rows]
    if isinstance(pool, Sequence):
        return [pool[int(row)] for row in rows]
    raise DataError(f"a pool of type {type(pool).__name__} cannot be indexed by row numbers")
