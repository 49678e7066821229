"""Linear functions of the balance functions, and distinct rows, for propensity models."""

from __future__ import annotations

import dataclasses

import numpy as np

from dpdq.ratio._common import content_hash
from dpdq.reweight._columns import Rows
from dpdq.reweight._common import Array, independent_rows, map_blocks
from dpdq.reweight._problem import Problem
from dpdq.reweight.moments import BalanceFunctions

__all__ = ["LinearModel", "distinct_rows", "pooled_design"]


@dataclasses.dataclass(frozen=True)
class LinearModel:
    """theta'z with z = (1, (f - center) / scale)."""

    functions: BalanceFunctions
    center: Array
    scale: Array
    theta: Array

    def design(self, rows: Rows, start: int, stop: int) -> Array:
        """The vectors z at a block of rows, shape (1 + k, stop - start)."""
        out = np.empty((1 + len(self.functions), stop - start))
        out[0] = 1.0
        np.subtract(self.functions.block(rows, start, stop), self.center[:, None], out=out[1:])
        out[1:] /= self.scale[:, None]
        return out

    def predict(self, rows: Rows) -> Array:
        """Values theta'z at rows."""
        parts = map_blocks(lambda a, b: self.theta @ self.design(rows, a, b), len(rows))
        return np.concatenate([np.zeros(0), *parts])

    def matrix(self, rows: Rows) -> Array:
        """The vectors z at all rows, shape (1 + k, n)."""
        parts = map_blocks(lambda a, b: self.design(rows, a, b), len(rows))
        return np.concatenate([np.empty((1 + len(self.functions), 0)), *parts], axis=1)

    def coefficients(self) -> tuple[Array, float]:
        """Coefficients and intercept in units of the functions themselves."""
        coef = self.theta[1:] / self.scale
        return coef, float(self.theta[0] - coef @ self.center)


def pooled_design(problem: Problem, method: str, *, independent: bool) -> tuple[LinearModel, Array]:
    """Functions standardised over both sides (half the weight each), and which were kept.

    Constant ones are left out, and with ``independent`` linear combinations of others.
    """
    p, weights_p = problem.sample_of_p(method)
    mean_p, covariance_p, _, _ = problem.functions.moments(p, weights_p)
    gap = problem.mean_q - mean_p
    center = (problem.mean_q + mean_p) / 2
    covariance = (problem.covariance_q + covariance_p) / 2 + np.outer(gap, gap) / 4
    variance = np.diag(covariance)
    if independent:
        kept = np.asarray(independent_rows(covariance), dtype=np.intp)
    else:
        kept = np.flatnonzero(variance > 1e-24)
    functions = problem.functions.select(kept)
    scale = np.sqrt(variance[kept])
    return LinearModel(functions, center[kept], scale, np.zeros(1 + len(kept))), kept


def distinct_rows(q: Rows, p: Rows) -> tuple[Array, Array, Array, Array]:
    """Cells of rows that agree on all columns: their hashes, first places, and each row's cell.

    Places count the rows of q first; the cells stand in the order of their hashes.
    """
    hashes = np.concatenate(
        [
            content_hash(np.column_stack([rows.numbers, *rows.codes]).astype(np.float64))
            for rows in (q, p)
        ]
    )
    keys, first, cell = np.unique(hashes, return_index=True, return_inverse=True)
    return keys, first, cell[: len(q)], cell[len(q) :]
