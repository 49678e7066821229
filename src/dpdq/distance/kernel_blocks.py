"""Kernel sums over pairs of blocks of rows: all that a permutation needs to know of the data.

Let G_ab be the sum of k(x_i, x_j) over pairs of different rows, i in block a, j in block b. With l
the 0/1 labels of blocks the sums of a two-sample statistic are l G l', l G (1 - l)' and so on: the
kernel is computed once, in tiles, and a permutation costs O(m^2) for m blocks. With weights each
pair counts w_i w_j.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from dpdq.distance.permutation import PermutationDesign
from dpdq.kernels import TILE, Kernel, distance_tile, map_tiles

__all__ = ["FLOAT64_ROWS", "BlockSums", "block_sums", "squared_mmd"]

FLOAT64_ROWS = 1_024  # pooled rows up to which tests take float64 kernel tiles


@dataclasses.dataclass(frozen=True)
class BlockSums:
    """Sums of kernels over pairs of blocks: all that a permutation needs to know of the data.

    Attributes
    ----------
    sums
        G, shape (k, m, m): sum of kernel k over pairs of different rows of two blocks.
    sizes
        Rows of each block, shape (m,).
    diagonal
        k(x, x), which G leaves out.
    within
        Whether pairs of rows of one block are counted in statistics. They are not where each block
        was thinned, since the rows that stay are not independent of each other.
    """

    sums: np.ndarray
    sizes: np.ndarray
    diagonal: float
    within: bool = True

    def null_deviation(self) -> np.ndarray:
        """Standard deviation of one centred kernel entry, for each kernel.

        With K the pooled kernel matrix and H = I - 11'/N, the root mean square of the entries of
        HKH off the diagonal; here from block sums, G_ab / sqrt(s_a s_b). It knows no labels.
        """
        root = np.sqrt(self.sizes.astype(np.float64))
        n, m = float(self.sizes.sum()), len(root)

        def work(block: np.ndarray) -> float:
            mean = block.sum(axis=1) / (n * root)
            shift = mean - root * (float(root @ mean) / (2.0 * n))
            centred = block / root
            centred /= root[:, None]
            centred -= np.multiply.outer(shift, root)
            centred -= np.multiply.outer(root, shift)
            np.fill_diagonal(centred, 0.0)
            return math.sqrt(float(np.vdot(centred, centred)) / (m * (m - 1)))

        return np.array(list(map_tiles(work, list(self.sums), operations=8.0 * self.sums.size)))


@dataclasses.dataclass(frozen=True)
class _Segment:
    """Rows of one side of a tile: whole blocks, or a piece of a block larger than a tile."""

    rows: slice
    blocks: slice
    size: int  # rows of each of its blocks; 0 where they differ
    indicator: np.ndarray | None
    weights: np.ndarray | None

    def fold(self, tile: np.ndarray) -> np.ndarray:
        """Sum the tile's rows, weighted, by block."""
        if self.weights is not None:
            tile = tile * self.weights
        if self.indicator is not None:
            return self.indicator @ tile
        if self.size == 1:
            return tile
        return tile.reshape(-1, self.size, tile.shape[1]).sum(axis=1)


def _segments(
    starts: np.ndarray, dtype: type[np.floating], weights: np.ndarray | None
) -> list[_Segment]:
    sizes = np.diff(starts)
    segments, block = [], 0
    while block < len(sizes):
        first = int(starts[block])
        if sizes[block] > TILE:
            for row in range(first, int(starts[block + 1]), TILE):
                rows = slice(row, min(row + TILE, int(starts[block + 1])))
                size = rows.stop - rows.start
                own = None if weights is None else weights[rows, None].astype(dtype)
                segments.append(_Segment(rows, slice(block, block + 1), size, None, own))
            block += 1
            continue
        stop = max(block + 1, int(np.searchsorted(starts, first + TILE, side="right")) - 1)
        rows = slice(first, int(starts[stop]))
        own = None if weights is None else weights[rows, None].astype(dtype)
        if (sizes[block:stop] == sizes[block]).all():
            segments.append(_Segment(rows, slice(block, stop), int(sizes[block]), None, own))
        else:
            owner = np.repeat(np.arange(stop - block), sizes[block:stop])
            indicator = (owner == np.arange(stop - block)[:, None]).astype(dtype)
            segments.append(_Segment(rows, slice(block, stop), 0, indicator, own))
        block = stop
    return segments


def block_sums(
    points: np.ndarray,
    design: PermutationDesign,
    kernel: Kernel,
    *,
    weights: np.ndarray | None = None,
    dtype: type[np.floating] = np.float32,
) -> BlockSums:
    """Sum a family of kernels over pairs of blocks, in symmetric tiles.

    Kernel tiles are of ``dtype``; sums over tiles are float64. In float32 a mean of kernel values
    with k <= 1 is within 2e-6 of the exact one.

    Parameters
    ----------
    points
        Pooled points, q first, shape (N, d), of moderate scale (`standard_points`).
    design
        From `permutation_design`.
    kernel
        All bandwidths are served by one pass.
    weights
        Of pooled rows, shape (N,): a pair then counts w_i w_j.
    dtype
        ``numpy.float32`` or ``numpy.float64``, of the kernel tiles.

    Returns
    -------
    BlockSums
        O(N^2 (d + k)) time; O(N d + k m^2) memory.
    """
    points = points[design.order]
    if weights is not None:
        weights = weights[design.order]
    segments = _segments(design.starts, dtype, weights)

    def work(pair: tuple[_Segment, _Segment]) -> list[np.ndarray]:
        one, two = pair
        x, y = points[one.rows], points[two.rows]
        out = np.empty((len(x), len(y)), dtype=dtype)
        folded = []
        for tile in kernel.each(distance_tile(x, y, kernel.metric, out=out)):
            if one is two:
                np.fill_diagonal(tile, 0.0)
            across = np.ascontiguousarray(one.fold(tile).T)
            folded.append(two.fold(across).T.astype(np.float64))
        return folded

    m = len(design.starts) - 1
    sums = np.zeros((len(kernel), m, m))
    pairs = [(one, two) for i, one in enumerate(segments) for two in segments[i:]]
    operations = float(len(points)) ** 2 * (points.shape[1] + 4 * len(kernel))
    results = map_tiles(work, pairs, operations=operations)
    for (one, two), folded in zip(pairs, results, strict=True):
        for k, part in enumerate(folded):
            sums[k, one.blocks, two.blocks] += part
            if one is not two:
                sums[k, two.blocks, one.blocks] += part.T
    return BlockSums(sums, design.sizes, kernel.diagonal)


def squared_mmd(sums: BlockSums, labels: np.ndarray, *, unbiased: bool = True) -> np.ndarray:
    """The squared MMD of every kernel under every arrangement of labels.

        MMD^2 = S_qq / (n_q (n_q - 1)) + S_pp / (n_p (n_p - 1)) - 2 S_qp / (n_q n_p)

    Pairs within blocks are left out of numerators and denominators alike where ``sums.within`` is
    false. Where an arrangement leaves fewer than two rows on a side there is no such estimate, and
    the biased one, with the pairs i = j and 1 / n^2, is used for all arrangements alike.

    Parameters
    ----------
    sums
        From `block_sums`.
    labels
        Shape (B + 1, m).
    unbiased
        Whether to leave out the pairs i = j.

    Returns
    -------
    numpy.ndarray
        Shape (k, B + 1). O(k B m^2) time.
    """
    sizes = sums.sizes.astype(np.float64)
    n_q = labels @ sizes
    n_p = sizes.sum() - n_q
    unbiased = unbiased and bool(min(n_q.min(), n_p.min()) >= 2)
    squares_q, squares_p = labels @ sizes**2, (1.0 - labels) @ sizes**2
    across_only = not sums.within and bool(
        min((n_q**2 - squares_q).min(), (n_p**2 - squares_p).min()) > 0.5
    )
    own_q, own_p = (0.0, 0.0) if unbiased else (sums.diagonal * n_q, sums.diagonal * n_p)
    pairs_q, pairs_p = n_q * (n_q - unbiased), n_p * (n_p - unbiased)
    if across_only:
        own_q, own_p = 0.0, 0.0
        pairs_q, pairs_p = n_q**2 - squares_q, n_p**2 - squares_p

    def work(block: np.ndarray) -> np.ndarray:
        if across_only:
            block = block - np.diag(np.diagonal(block))
        s_qq = np.einsum("bm,bm->b", labels @ block, labels)
        rows = block.sum(axis=1)
        s_q = labels @ rows
        s_qp = s_q - s_qq
        s_pp = rows.sum() - s_q - s_qp
        return (s_qq + own_q) / pairs_q + (s_pp + own_p) / pairs_p - 2.0 * s_qp / (n_q * n_p)

    operations = 2.0 * len(labels) * sums.sums.size
    return np.array(list(map_tiles(work, list(sums.sums), operations=operations)))
