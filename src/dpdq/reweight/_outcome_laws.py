"""Laws over finitely many outcomes, one for each context, and draws read against them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from dpdq.errors import DataError, OptionError

__all__ = ["Law", "laws_by_context"]


class Law:
    """Outcomes and their shares, which sum to one."""

    def __init__(self, target: Any) -> None:
        if isinstance(target, Mapping):
            self.names: list[Any] = list(target)
            shares = np.array(list(target.values()), dtype=np.float64)
        else:
            shares = np.asarray(target, dtype=np.float64)
            self.names = list(range(shares.size))
        fine = shares.ndim == 1 and np.isfinite(shares).all() and (shares >= 0).all()
        if not fine or not shares.sum() > 0:
            raise OptionError(
                f"target is {target!r}; give shares of outcomes, 0 or more, not all 0"
            )
        self.shares = shares / shares.sum()
        self._place = {name: place for place, name in enumerate(self.names)}

    def counted(self, counts: Any) -> np.ndarray:
        """Draws of each outcome, in the order of the names."""
        if isinstance(counts, Mapping):
            unknown = [name for name in counts if name not in self._place]
            if unknown:
                raise OptionError(f"outcome {unknown[0]!r} has no share in the target; give it 0")
            return np.array([counts.get(name, 0) for name in self.names], dtype=np.float64)
        c = np.asarray(counts, dtype=np.float64)
        if c.shape != self.shares.shape:
            raise OptionError(f"counts have shape {c.shape}, the target {self.shares.shape}")
        return c

    def codes(self, outcomes: np.ndarray, context: Any) -> np.ndarray:
        """Number of each outcome that came."""
        found = outcomes.tolist()
        unknown = [name for name in found if name not in self._place]
        if unknown:
            where = "" if context is None else f" in context {context!r}"
            raise DataError(f"outcome {unknown[0]!r} came{where} and has no share; give it 0")
        return np.array([self._place[name] for name in found], dtype=np.int64)


def laws_by_context(
    target: Mapping[Any, Any], by_context: bool, outcomes: Any, contexts: Any
) -> tuple[dict[Any, Law], np.ndarray, np.ndarray]:
    """The law of each context that came, the draws, and the number of each draw's context."""
    drawn = np.asarray(outcomes)
    if drawn.ndim != 1 or len(drawn) == 0:
        raise DataError(f"outcomes have shape {drawn.shape}; expected (n,), one a draw")
    if by_context != (contexts is not None):
        raise OptionError("contexts and by_context=True go together; give both or neither")
    if not by_context:
        return {None: Law(target)}, drawn, np.zeros(len(drawn), dtype=np.int64)
    where = np.asarray(contexts)
    if where.shape != drawn.shape:
        raise DataError(f"contexts have shape {where.shape}; expected {drawn.shape}")
    names, codes = np.unique(where, return_inverse=True)
    for name in names.tolist():
        if name not in target:
            raise DataError(f"context {name!r} came and has no target")
    return {name: Law(target[name]) for name in names.tolist()}, drawn, codes
