"""What could a test have found at all? The smallest effects at given sizes.

A test that finds nothing says something only together with the smallest effect that it would have
found. Both functions solve, for the effect, "estimate minus z standard errors is above no effect
with the wanted power", by the normal approximation; `se_inflation` is the factor by which rows that
are not independent (units, cross-fitting) widen a standard error.
"""

from __future__ import annotations

import math
from statistics import NormalDist

from dpdq.errors import DataError, OptionError

__all__ = ["detectable_auc", "detectable_smd"]


def _check_power(n_q: int, n_p: int, alpha: float, power: float, se_inflation: float) -> None:
    if min(n_q, n_p) < 1:
        raise DataError(f"n_q is {n_q} and n_p is {n_p}; expected at least 1 on each side")
    for name, value in (("alpha", alpha), ("power", power)):
        if not 0.0 < value < 1.0:
            raise OptionError(f"{name} is {value}; expected a number between 0 and 1")
    if not (se_inflation > 0.0 and math.isfinite(se_inflation)):
        raise OptionError(f"se_inflation is {se_inflation}; expected a positive number")


def detectable_auc(
    n_q: int, n_p: int, *, alpha: float = 0.05, power: float = 0.8, se_inflation: float = 1.0
) -> float:
    """Smallest true AUC whose lower confidence bound lies above 1/2 with the given power.

        A - 1/2 = c (z_(1 - alpha/2) SE(1/2) + z_power SE(A))
        SE(A)^2 = [A (1-A) + (n_p - 1)(A/(2-A) - A^2) + (n_q - 1)(2A^2/(1+A) - A^2)] / (n_q n_p)

    A is the AUC that the classifier reaches, not the best possible one: a classifier that learns
    nothing detects nothing. SE is that of Hanley and McNeil, for scores like those of two
    exponential laws.

    Parameters
    ----------
    n_q, n_p
        Rows that are scored on each side.
    alpha
        Two-sided level; the bound is the lower end of a 1 - alpha interval.
    power
        Probability of finding it.
    se_inflation
        c: sqrt(2) for cross-fitted scores, the square root of the design effect for rows in units;
        multiply where both apply.

    Returns
    -------
    float
        Between 1/2 and 1; 1.0 where not even perfect separation would be found.

    Raises
    ------
    DataError
        A side has no rows.
    OptionError
        A probability is not between 0 and 1, or the inflation is not positive.

    Notes
    -----
    Cost: O(1) time and memory.
    Held by: tests/distance/test_detectable.py::test_detectable_effects_are_detected

    References
    ----------
    .. [Hanley1982] The Meaning and Use of the Area under a Receiver Operating Characteristic (ROC)
       Curve. Hanley, 1982, Radiology 143.

    Examples
    --------
    >>> round(detectable_auc(1000, 1000), 3)
    0.536
    """
    _check_power(n_q, n_p, alpha, power, se_inflation)

    def error(a: float) -> float:
        square = a * (1 - a)
        square += (n_p - 1) * (a / (2 - a) - a**2) + (n_q - 1) * (2 * a**2 / (1 + a) - a**2)
        return math.sqrt(max(square, 0.0) / (n_q * n_p))

    z = NormalDist().inv_cdf(1 - alpha / 2), NormalDist().inv_cdf(power)
    low, high = 0.5, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if middle - 0.5 < se_inflation * (z[0] * error(0.5) + z[1] * error(middle)):
            low = middle
        else:
            high = middle
    return high


def detectable_smd(
    n_q: int, n_p: int, *, alpha: float = 0.05, power: float = 0.8, se_inflation: float = 1.0
) -> float:
    """Smallest standardised mean difference that a two-sided test of one column finds.

        d = c (z_(1 - alpha/2) + z_power) sqrt(1/n_q + 1/n_p)

    The normal approximation of the two-sample t-test; below about 20 rows a side it is a few per
    cent too small. It is for one column named in advance: among k columns divide alpha by k.

    Parameters
    ----------
    n_q, n_p
        Rows on each side.
    alpha
        Two-sided level.
    power
        Probability of finding it.
    se_inflation
        c, the square root of the design effect for rows in units.

    Returns
    -------
    float
        In standard deviations of the column.

    Raises
    ------
    DataError
        A side has no rows.
    OptionError
        A probability is not between 0 and 1, or the inflation is not positive.

    Notes
    -----
    Cost: O(1) time and memory.
    Held by: tests/distance/test_detectable.py::test_detectable_effects_are_detected

    References
    ----------
    .. [Cohen1988] Statistical Power Analysis for the Behavioral Sciences. Cohen, 1988, Erlbaum.

    Examples
    --------
    >>> round(detectable_smd(1000, 1000), 3)
    0.125
    """
    _check_power(n_q, n_p, alpha, power, se_inflation)
    total = NormalDist().inv_cdf(1 - alpha / 2) + NormalDist().inv_cdf(power)
    return se_inflation * total * math.sqrt(1.0 / n_q + 1.0 / n_p)
