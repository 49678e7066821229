"""Runs passes: one walk over the rows of a side, in process.

A pass (`dpdq.passes.Pass`) says what to do with a block of rows and how two results join; the
engine decides where the blocks are worked on. Blocks and the order of merging depend on the data
alone, so the answer does too.
"""

from dpdq._lazy import attach as _attach

__getattr__, __dir__, __all__ = _attach(__name__, {"run": "local"})
