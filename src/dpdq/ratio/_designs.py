"""A standardised design matrix Z with a row of ones, dense or sparse behind one face.

    Z = [1, (x - center) / scale]'   of shape (1 + features, rows)

The sparse one never forms Z: centring a sparse matrix would fill it, so that every product is
that of the raw matrix with a correction of rank one.
"""

from __future__ import annotations

import abc
from collections.abc import Iterator
from typing import Any

import numpy as np

from dpdq.ratio._common import Array, is_sparse, stack_rows

__all__ = ["DenseDesign", "Design", "SparseDesign", "standardised"]

_BLOCK = 4_096


class Design(abc.ABC):
    """Products with Z that a Newton step, L-BFGS and its leverages need."""

    shape: tuple[int, int]

    @abc.abstractmethod
    def margins(self, theta: Array) -> Array:
        """Z'theta, one number a row."""

    @abc.abstractmethod
    def combine(self, v: Array) -> Array:
        """Z v, one number a feature."""

    @abc.abstractmethod
    def gram(self, c: Array) -> Array:
        """Z diag(c) Z'."""

    @abc.abstractmethod
    def some_rows(self, mask: Array) -> Design:
        """The design of the rows that a mask keeps, standardised as all are."""

    @abc.abstractmethod
    def blocks(self) -> Iterator[tuple[slice, Array]]:
        """Z in dense blocks of its rows (columns of the matrix), with their numbers."""


class DenseDesign(Design):
    """Z as an array, features by rows: fast products."""

    def __init__(self, matrix: Array) -> None:
        self.matrix = matrix
        self.shape = matrix.shape[0], matrix.shape[1]

    def margins(self, theta: Array) -> Array:
        return theta @ self.matrix

    def combine(self, v: Array) -> Array:
        return self.matrix @ v

    def gram(self, c: Array) -> Array:
        return (self.matrix * c) @ self.matrix.T

    def some_rows(self, mask: Array) -> Design:
        return DenseDesign(self.matrix[:, mask])

    def blocks(self) -> Iterator[tuple[slice, Array]]:
        yield slice(0, self.shape[1]), self.matrix


class SparseDesign(Design):
    """Z of a CSR matrix, standardised on the fly."""

    def __init__(self, x: Any, center: Array, inverse: Array) -> None:
        self.x, self.center, self.inverse = x, center, inverse
        self.shape = x.shape[1] + 1, x.shape[0]

    def margins(self, theta: Array) -> Array:
        slope = theta[1:] * self.inverse
        return self.x @ slope + (theta[0] - self.center @ slope)

    def combine(self, v: Array) -> Array:
        total = v.sum()
        return np.append(total, (self.x.T @ v - self.center * total) * self.inverse)

    def gram(self, c: Array) -> Array:
        weighted = self.x.copy()
        weighted.data *= np.repeat(c, np.diff(self.x.indptr))
        total, first = float(c.sum()), self.x.T @ c
        cross = np.outer(self.center, first)
        inner = (self.x.T @ weighted).toarray() - cross - cross.T
        inner += total * np.outer(self.center, self.center)
        out = np.empty((self.shape[0], self.shape[0]))
        out[0, 0] = total
        out[0, 1:] = out[1:, 0] = (first - total * self.center) * self.inverse
        out[1:, 1:] = inner * np.outer(self.inverse, self.inverse)
        return out

    def some_rows(self, mask: Array) -> Design:
        return SparseDesign(self.x[mask], self.center, self.inverse)

    def blocks(self) -> Iterator[tuple[slice, Array]]:
        for start in range(0, self.shape[1], _BLOCK):
            rows = slice(start, min(start + _BLOCK, self.shape[1]))
            block = np.empty((self.shape[0], rows.stop - rows.start))
            block[0] = 1.0
            block[1:] = ((self.x[rows].toarray() - self.center) * self.inverse).T
            yield rows, block


def standardised(
    q: Array, p: Array, share_q: Array, share_p: Array
) -> tuple[Design, Array, Array, Array]:
    """The design of q above p, its centre and scale (q and p alike), and which features are flat.

    ``share_q`` and ``share_p`` sum to one each; a constant feature has scale one and is zero.
    """
    center = (share_q @ q + share_p @ p) / 2
    if is_sparse(q):
        x = stack_rows(q, p)
        squares = x.copy()
        squares.data **= 2
        second = np.concatenate([share_q, share_p]) @ squares / 2
        scale = np.sqrt(np.maximum(second - center**2, 0.0))
        flat = scale <= 1e-7 * np.abs(center)  # the difference of two moments is less exact
        flat |= scale == 0
        scale = np.where(flat, 1.0, scale)
        return SparseDesign(x, center, np.where(flat, 0.0, 1.0 / scale)), center, scale, flat
    scale = np.sqrt((share_q @ (q - center) ** 2 + share_p @ (p - center) ** 2) / 2)
    flat = scale <= 1e-12 * np.maximum(np.abs(center), 1e-300)
    scale = np.where(flat, 1.0, scale)
    matrix = np.empty((q.shape[1] + 1, len(q) + len(p)))
    matrix[0] = 1.0
    np.subtract(q.T, center[:, None], out=matrix[1:, : len(q)])
    np.subtract(p.T, center[:, None], out=matrix[1:, len(q) :])
    matrix[1:] /= scale[:, None]
    matrix[1:][flat] = 0.0
    return DenseDesign(matrix), center, scale, flat
