"""Seeds: one way in, children as plain integers, draws keyed by row number.

Everything random in dpdq takes ``random_state: int | Generator | RandomState | None`` and hands
integers drawn from it to its children, so that a child run alone repeats what it did in company.
Draws that belong to rows are keyed by the row's number (`row_keys`), never by its batch, so that
block boundaries and worker counts change nothing.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

from dpdq.errors import InputTypeError

__all__ = ["RandomState", "as_generator", "child_seed", "mix64", "row_keys"]

RandomState: TypeAlias = "int | np.integer | np.random.Generator | np.random.RandomState | None"


def as_generator(random_state: RandomState = None) -> np.random.Generator:
    """A NumPy generator from whatever the caller gave as ``random_state``."""
    if random_state is None or isinstance(random_state, (int, np.integer)):
        if isinstance(random_state, bool):
            raise InputTypeError("random_state is a bool; give an int, a Generator or None")
        if random_state is not None and random_state < 0:
            raise InputTypeError(f"random_state is {random_state}; an int must not be negative")
        return np.random.default_rng(random_state)
    if isinstance(random_state, np.random.Generator):
        return random_state
    if isinstance(random_state, np.random.RandomState):
        return np.random.default_rng(random_state.randint(0, 2**31 - 1, size=4))
    raise InputTypeError(
        f"random_state has type {type(random_state).__name__}; "
        "give an int, numpy.random.Generator, numpy.random.RandomState or None"
    )


def child_seed(generator: np.random.Generator) -> int:
    """An integer seed for a child, drawn from its parent's generator."""
    return int(generator.integers(0, 2**31 - 1))


def mix64(x: np.ndarray) -> np.ndarray:
    """Scramble uint64 numbers (the splitmix64 finaliser): a bijection with avalanche.

    Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014.
    """
    z = np.array(x, dtype=np.uint64, copy=True)
    z ^= z >> np.uint64(30)
    z *= np.uint64(0xBF58476D1CE4E5B9)
    z ^= z >> np.uint64(27)
    z *= np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return z


def row_keys(start: int, stop: int, seed: int) -> np.ndarray:
    """Random uint64 keys of the rows ``start .. stop - 1``; the same for any batching.

    Taking the rows with the k smallest keys is a uniform sample without replacement, and the
    smallest keys of merged parts are the smallest keys of the whole.
    """
    golden = 0x9E3779B97F4A7C15
    rows = np.arange(start, stop, dtype=np.uint64)
    offset = np.uint64((seed * 0xD1B54A32D192ED03 + golden) % 2**64)
    return mix64(mix64(rows * np.uint64(golden) + offset) ^ offset)
