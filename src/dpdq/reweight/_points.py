"""Rows as points for kernels and distances: the margins of a problem as coordinates.

A number is a coordinate in standard deviations of both sides and a level one of 0 and 1, so that
two independent rows are about equally far apart in either (the squared distance is 2 on average,
and 2 for different levels). What names a row is the hash of its coordinates, rounded: it depends
neither on units, nor on the order of rows, nor on copies.
"""

from __future__ import annotations

import numpy as np

from dpdq.kernels import median_heuristic
from dpdq.ratio._common import content_hash
from dpdq.reweight._columns import Rows
from dpdq.reweight._common import Array, map_blocks
from dpdq.reweight._problem import Problem

__all__ = ["median_distance", "points", "row_hashes", "some_points"]

_DIGITS = 6
_MEDIAN_ROWS = 500  # a side


def points(problem: Problem, rows: Rows) -> Array:
    """Coordinates of all rows, shape (n, d)."""
    return np.ascontiguousarray(problem.functions.matrix(rows).T)


def row_hashes(problem: Problem, rows: Rows) -> Array:
    """A uint64 a row that depends on its rounded coordinates alone."""

    def part(start: int, stop: int) -> Array:
        return content_hash(np.round(problem.functions.block(rows, start, stop).T, _DIGITS))

    return np.concatenate(map_blocks(part, len(rows)))


def some_points(problem: Problem, rows: Rows, hashes: Array, wanted: int) -> Array:
    """Coordinates of the distinct rows with the smallest hashes, at most ``wanted``."""
    _, first = np.unique(hashes, return_index=True)
    return points(problem, rows.take(first[:wanted]))


def median_distance(problem: Problem, p: Rows, hash_q: Array, hash_p: Array) -> float:
    """The median distance between rows of both sides, from at most 500 a side."""
    sides = ((problem.q, hash_q), (p, hash_p))
    some = [some_points(problem, rows, hashes, _MEDIAN_ROWS) for rows, hashes in sides]
    return median_heuristic(np.concatenate(some))
