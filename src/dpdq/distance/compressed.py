"""Block sums of a kernel through thinned blocks: near-linear in the rows.

A block of s rows has the mean embedding mu = mean of k(x_i, .). Of s / 2^t rows drawn by chance the
embedding is off by about 2^(t/2) / sqrt(s), more than the sampling error 1 / sqrt(s) of the block
itself. *Kernel halving* draws better: rows are taken in pairs, and of each pair one stays,

    sign_i = -sign( sum_{j < i} sign_j M_ij ),
    M_ij = k(a_i, a_j) - k(a_i, b_j) - k(b_i, a_j) + k(b_i, b_j),

so that what one pair adds to the difference of the two halves the next pairs take away. Where the
kernel's spectrum decays fast (few columns, wide bandwidth) half of the rows is then nearly as good
as all of them. Halving again and again, in pieces of at most `PIECE_ROWS` rows that are then put
together (Compress), leaves a coreset a block, and the exact kernel between coresets is cheap.

The test stays exact. A coreset is made from its own block and from coins, never from what the block
is called, so blocks are as exchangeable as before, whatever the quality of the coresets; they
decide the power. Each half is equally likely to stay, hence the coreset is unbiased for its block,
and sums over pairs of *different* blocks are unbiased for those of all rows; pairs inside a block
are left out.

The kernel of the halving is the mean of a few of the bandwidths of the test: its squared MMD is the
mean of theirs, so one coreset serves all.

At 2 x 40,000 rows 20,000 thinned ones see far more than 16,384 drawn by chance, for twice the time,
and about as much as random features on all rows, which take a quarter of its time
(`bench/output/levels.txt`). Three things differ from
Domingo-Enrich et al.: blocks are those of the permutation engine (about 64, not 32); the sign
is the greedy one of a self-balancing walk, followed by one more sweep over all pairs; and pairs
inside a block are left out of the statistic.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from dpdq.distance.kernel_blocks import BlockSums, block_sums
from dpdq.distance.permutation import PermutationDesign
from dpdq.kernels import GaussianKernel, distance_tile, map_tiles

__all__ = ["coreset_block_sums", "halve", "thinned_blocks"]

PIECE_ROWS = 512  # most rows that are halved together
MIN_CORESET = 16  # a block is never thinned below
HALVING_BANDWIDTHS = 4  # of the test's bandwidths, evenly spaced
BATCH_ENTRIES = 2**22  # kernel entries of pieces that are halved side by side


def halve(
    points: np.ndarray, kernel: GaussianKernel, coins: np.ndarray, *, sweeps: int = 1
) -> np.ndarray:
    """Which row of each pair stays, for many pieces side by side.

    Parameters
    ----------
    points
        Shape (pieces, L, d), L even; rows 2i and 2i + 1 of a piece are a pair.
    kernel
        The mean over its bandwidths is the kernel of the halving.
    coins
        Which row of the first pair stays, 0 or 1, shape (pieces,).
    sweeps
        Times that every sign is looked at again once all are set.

    Returns
    -------
    numpy.ndarray
        Rows that stay, shape (pieces, L / 2). O(pieces L^2 d) time.
    """
    n, length, _ = points.shape
    pairs = length // 2
    products = np.empty((n, pairs, pairs), dtype=np.float32)
    for piece, target in zip(points, products, strict=True):
        distances = np.empty((length, length), dtype=np.float32)
        distance_tile(piece, piece, "euclidean", out=distances)
        total = np.zeros_like(distances)
        for tile in kernel.each(distances):
            total += tile
        rows = total[0::2] - total[1::2]
        np.subtract(rows[:, 0::2], rows[:, 1::2], out=target)
    signs = np.zeros((n, pairs), dtype=np.float32)
    start = 2.0 * coins - 1.0
    for sweep in range(1 + sweeps):
        for i in range(pairs):
            pull = np.einsum("pj,pj->p", products[:, i], signs)
            if sweep:
                pull -= products[:, i, i] * signs[:, i]
            signs[:, i] = np.where(pull < 0, 1.0, np.where(pull > 0, -1.0, start))
    stays = np.arange(0, length, 2) + (signs < 0)
    return stays.astype(np.int64)


def thinned_blocks(
    points: np.ndarray,
    design: PermutationDesign,
    kernel: GaussianKernel,
    *,
    coreset_rows: int,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Coresets of all blocks.

    Parameters
    ----------
    points
        Pooled points, q first, shape (N, d).
    design
        From `permutation_design`.
    kernel
        All bandwidths of the test.
    coreset_rows
        About how many rows stay in all.
    rng
        Tosses the coins.

    Returns
    -------
    tuple
        Pooled row numbers that stay, block after block, and how many of each block.
    """
    few = GaussianKernel(_some(kernel.bandwidths))
    wanted = max(0, round(math.log2(len(points) / coreset_rows)))
    rows = np.split(design.order, design.starts[1:-1])
    times = np.array(
        [
            min(wanted, int(math.log2(max(size / MIN_CORESET, 1.0))))
            for size in design.sizes.tolist()
        ]
    )
    for done in range(int(times.max())):
        rows = _halve_blocks(points, rows, times > done, few, rng)
    return np.concatenate(rows), np.array([len(block) for block in rows])


def _some(bandwidths: tuple[float, ...]) -> list[float]:
    places = np.linspace(0, len(bandwidths) - 1, min(HALVING_BANDWIDTHS, len(bandwidths)))
    return [bandwidths[round(place)] for place in places.tolist()]


def _halve_blocks(
    points: np.ndarray,
    blocks: list[np.ndarray],
    wanted: np.ndarray,
    kernel: GaussianKernel,
    rng: np.random.Generator,
) -> list[np.ndarray]:
    """Cut each wanted block into pieces, halve these, and put together what stays."""
    pieces: dict[int, list[np.ndarray]] = {}
    places: list[list[tuple[int, int]]] = []
    for rows, halved in zip(blocks, wanted, strict=True):
        where = []
        n_pairs = len(rows) // 2 if halved else 0  # the last of an odd number of rows is left out
        n_pieces = -(-2 * n_pairs // PIECE_ROWS)
        cuts = np.arange(n_pieces + 1) * n_pairs // max(n_pieces, 1) * 2
        for first, last in zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True):
            found = pieces.setdefault(last - first, [])
            where.append((last - first, len(found)))
            found.append(rows[first:last])
        places.append(where)
    stayed = {
        length: _halve_pieces(points, np.array(found), kernel, rng)
        for length, found in pieces.items()
    }
    return [
        np.concatenate([stayed[length][k] for length, k in where]) if where else rows
        for where, rows in zip(places, blocks, strict=True)
    ]


def _halve_pieces(
    points: np.ndarray, rows: np.ndarray, kernel: GaussianKernel, rng: np.random.Generator
) -> np.ndarray:
    """Halve pieces of one length, shape (pieces, L)."""
    length = rows.shape[1]
    coins = rng.integers(0, 2, len(rows))
    step = max(1, BATCH_ENTRIES // length**2)

    def work(first: int) -> np.ndarray:
        some = rows[first : first + step]
        stays = halve(points[some], kernel, coins[first : first + step])
        return np.take_along_axis(some, stays, axis=1)

    operations = float(len(rows)) * length**2 * (points.shape[1] + 4 * len(kernel))
    return np.concatenate(list(map_tiles(work, range(0, len(rows), step), operations=operations)))


def coreset_block_sums(
    points: np.ndarray,
    design: PermutationDesign,
    kernel: GaussianKernel,
    *,
    coreset_rows: int,
    rng: np.random.Generator,
    dtype: type[np.floating] = np.float32,
) -> tuple[BlockSums, int]:
    """Sum a family of kernels over pairs of blocks, each block standing for its rows as a coreset.

        G_ab = s_a s_b mean of k over the coresets of a and b;   G_aa less s_a k(x, x)

    Parameters
    ----------
    points
        Pooled points, q first, shape (N, d).
    design
        From `permutation_design`.
    kernel
        All bandwidths.
    coreset_rows
        About how many rows stay in all.
    rng
        Tosses the coins.
    dtype
        Of the kernel tiles between coresets.

    Returns
    -------
    tuple
        `BlockSums`, and how many rows stayed. O(N PIECE_ROWS d + M^2 (d + k)) time for M rows that
        stay.
    """
    order, sizes = thinned_blocks(points, design, kernel, coreset_rows=coreset_rows, rng=rng)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    cores = dataclasses.replace(design, order=order, starts=starts)
    found = block_sums(points, cores, kernel, dtype=dtype)
    if (sizes == design.sizes).all():
        return found, len(order)
    share = design.sizes / sizes
    sums = found.sums
    diagonal = np.arange(len(sizes))
    sums[:, diagonal, diagonal] += kernel.diagonal * sizes
    sums *= share[:, None]
    sums *= share
    sums[:, diagonal, diagonal] -= kernel.diagonal * design.sizes
    return BlockSums(sums, design.sizes, kernel.diagonal, within=False), len(order)
