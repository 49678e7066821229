"""The protocol of a pass: one walk over rows whose parts can be merged.

    state = init();  for each batch: state = map(state, batch, first_row)
    merge(left, right) joins the states of adjacent row ranges;  finish(state) is the answer

A pass sees rows in blocks of at most 65,536 whose boundaries depend on the data alone, and a
state is small (counts, moments, the k smallest keys). ``merge`` must be associative, and adjacent
states are merged in row order, so that the answer is the same however the rows were divided.

To run in other processes a pass must pickle, so its class stands in a module. To be resumed, its
states must be plain (see `dpdq.engine`), and its `fingerprint` must tell it from other passes.
"""

from __future__ import annotations

import abc
from typing import Any, ClassVar, Generic, TypeVar

import pyarrow as pa

__all__ = ["BLOCK_ROWS", "Pass"]

BLOCK_ROWS = 65_536

State = TypeVar("State")
Answer = TypeVar("Answer")


class Pass(abc.ABC, Generic[State, Answer]):
    """A computation that walks over the rows of one side once."""

    columns: list[str] | None = None
    """Columns that the pass reads; ``None`` reads all."""

    state_types: ClassVar[tuple[type, ...]] = ()
    """Dataclasses that stand in a state."""

    @abc.abstractmethod
    def init(self) -> State:
        """Return the state of no rows."""

    @abc.abstractmethod
    def map(self, state: State, batch: pa.RecordBatch, first_row: int) -> State:
        """Return the state with one more batch, whose first row has number ``first_row``."""

    @abc.abstractmethod
    def merge(self, left: State, right: State) -> State:
        """Join the states of two adjacent row ranges, ``left`` first."""

    @abc.abstractmethod
    def finish(self, state: State) -> Answer:
        """Turn the final state into the answer."""

    def fingerprint(self) -> Any:
        """Plain values that tell this pass from another one of its class; its attributes."""
        return vars(self)
