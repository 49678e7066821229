"""What a computation hands back: small frozen records that explain themselves.

A result carries its value with an interval or a standard error, the rows it used, how it was made
and a ``status`` that says what to do next. Every result has `to_dict` (JSON types only, with
``None`` for what does not exist or is not finite), a readable ``repr`` and, where rows make sense,
``to_frame``.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = ["Estimate", "Result", "TestResult", "to_json_types"]


def to_json_types(value: Any) -> Any:
    """Turn a value into what JSON holds: dicts, lists, text, numbers, booleans and None.

    Non-finite numbers become ``None``; NumPy scalars and arrays become numbers and lists.
    """
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, (np.bool_,)):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        number = float(value)
        return number if math.isfinite(number) else None
    if isinstance(value, Result):
        return value.to_dict()
    if isinstance(value, Mapping):
        return {str(key): to_json_types(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return [to_json_types(item) for item in value.tolist()]
    if isinstance(value, (list, tuple)):
        return [to_json_types(item) for item in value]
    return str(value)


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, np.ndarray):
        return f"array{value.shape}"
    if isinstance(value, (tuple, list)) and len(value) > 6:
        return f"{len(value)} items"
    if isinstance(value, str) and len(value) > 160:
        return repr(value[:157] + "...")
    return repr(value)


@dataclasses.dataclass(frozen=True, repr=False)
class Result:
    """Base of all results: a frozen dataclass with ``to_dict`` and a readable ``repr``."""

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON types, one key a field."""
        return {
            field.name: to_json_types(getattr(self, field.name))
            for field in dataclasses.fields(self)
            if not field.name.startswith("_")
        }

    def __repr__(self) -> str:
        parts = []
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            hidden = field.name.startswith("_") or not field.repr
            if hidden or value is None or (isinstance(value, str) and not value):
                continue
            parts.append(f"{field.name}={_short(value)}")
        return f"{type(self).__name__}({', '.join(parts)})"


@dataclasses.dataclass(frozen=True, repr=False)
class Estimate(Result):
    """A number with its interval.

    Attributes
    ----------
    estimate
        The point estimate, as estimated (an unbiased estimate of a non-negative quantity may be
        negative).
    low, high
        The ends of the interval at ``level``; ``None`` where no honest end exists, and then
        ``reason`` says why.
    standard_error
        Of the estimate, where one is known.
    level
        Nominal coverage of the interval.
    method
        How it was made.
    reason
        Why an end or the estimate is missing.
    """

    estimate: float | None
    low: float | None = None
    high: float | None = None
    standard_error: float | None = None
    level: float = 0.95
    method: str = ""
    reason: str = ""

    def __repr__(self) -> str:
        def show(number: float | None) -> str:
            return "none" if number is None else f"{number:.4g}"

        if self.estimate is None:
            return f"Estimate(none: {self.reason})"
        return (
            f"Estimate({show(self.estimate)}, {100 * self.level:g} % interval "
            f"{show(self.low)} to {show(self.high)})"
        )


@dataclasses.dataclass(frozen=True, repr=False)
class TestResult(Result):
    """A test of "q and p are the same law".

    Attributes
    ----------
    statistic, pvalue
        The observed statistic and the probability, under q = p, of one as large.
    method
        The statistic and how its null law was made.
    n_q, n_p
        Rows used on each side.
    effect
        The size of the difference with its interval, on the scale that ``method`` names.
    detectable
        The smallest effect that 80 % power finds at these sizes, where it is known.
    details
        Numbers of the method's own (bandwidths, permutations, ...).
    """

    __test__ = False  # not a test class for pytest

    statistic: float
    pvalue: float | None
    method: str
    n_q: int
    n_p: int
    effect: Estimate | None = None
    detectable: float | None = None
    status: str = ""
    details: Mapping[str, Any] = dataclasses.field(default_factory=dict)
