"""What the balancing methods share: block bounds, independent columns, small checks.

Arrays of balance functions have one row a function and one column a row of data, shape (k, n),
and are made and used a block of rows at a time, so that memory is bounded by the block.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from dpdq._threads import parallel_map
from dpdq.errors import OptionError

__all__ = [
    "BLOCK",
    "Array",
    "Solution",
    "check_choice",
    "check_positive",
    "independent_rows",
    "map_blocks",
    "percent",
]

Array = np.ndarray[Any, Any]

BLOCK = 8_192
_PARALLEL_ROWS = 131_072  # below, starting threads costs more than they win
_DEPENDENT = 1e-9  # share of a function's variance that the others must leave unexplained


@dataclasses.dataclass(frozen=True)
class Solution:
    """What a balancing method hands to its base.

    Attributes
    ----------
    log_weights
        Log of weight over design weight on the rows of q, shape (n_q,), on any scale; -infinity
        drops a row.
    converged
        Whether the method's own equations are solved to its tolerance.
    n_iter
        Iterations taken; 0 for a closed form.
    note
        What the user has to know about how the weights were found; may be empty.
    failure
        Why it has not converged and what to do; empty where it has.
    fitted
        The method's parameters by the name of the attribute that will hold them.
    log_weights_p
        The same on the rows of p, shape (n_p,), for methods that weight both sides; None leaves p
        as it is.
    """

    log_weights: Array
    converged: bool = True
    n_iter: int = 0
    note: str = ""
    failure: str = ""
    fitted: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    log_weights_p: Array | None = None


def map_blocks(call: Callable[[int, int], Any], n: int) -> list[Any]:
    """Apply ``call(start, stop)`` to consecutive blocks of rows; answers in order.

    The blocks depend on n alone; many of them are spread over the usable cores.
    """
    bounds = [(start, min(start + BLOCK, n)) for start in range(0, n, BLOCK)]
    if n < _PARALLEL_ROWS:
        return [call(*each) for each in bounds]
    return parallel_map(lambda each: call(*each), bounds)


def independent_rows(gram: Array) -> list[int]:
    """Which functions are not linear combinations of earlier ones, from their Gram matrix.

    A Cholesky factorisation of the functions scaled to variance one, in the given order, that
    passes over those of which the earlier ones leave less than 1e-9 of the variance.
    """
    size = len(gram)
    scale = np.sqrt(np.maximum(np.diag(gram), 0.0))
    ok = scale > 0
    inverse = np.divide(1.0, scale, out=np.zeros(size), where=ok)
    correlation = gram * inverse[:, None] * inverse
    factor = np.zeros((size, size))
    chosen: list[int] = []
    for j in range(size):
        if not ok[j]:
            continue
        before = factor[j, : len(chosen)]
        rest = 1.0 - float(before @ before)
        if rest <= _DEPENDENT:
            continue
        column = correlation[:, j] - factor[:, : len(chosen)] @ before
        factor[:, len(chosen)] = column / math.sqrt(rest)
        chosen.append(j)
    return chosen


def check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """Refuse a string that is not on the list."""
    if value not in choices:
        raise OptionError(
            f"Unknown {name} {value!r}. Choose one of {', '.join(map(repr, choices))}."
        )


def check_positive(name: str, value: float, *, zero: bool = False, least: float = 0.0) -> None:
    """Refuse a number that is not finite or not above (with ``zero``, not at) ``least``."""
    fine = isinstance(value, (int, float, np.integer, np.floating)) and math.isfinite(value)
    if not fine or value < least or (value == least and not zero):
        bound = f"{least:g} or more" if zero else f"above {least:g}"
        raise OptionError(f"{name} is {value!r}; give a finite number, {bound}")


def percent(share: float) -> str:
    """A share as a percentage of two or three digits."""
    return f"{100 * share:.3g} %"
