"""Block sums of a kernel through random Fourier features: linear in the rows.

A shift-invariant kernel is the mean of cosines over its spectral law (Bochner),

    k(x, y) = E_w[cos(w . (x - y))] ~ 1/D sum_d cos(w_d . (x - y)),

so with phi(x) = (cos w_d.x, sin w_d.x)_d / sqrt(D) the sum of the kernel over two blocks of rows is
the inner product of the sums of phi over each: G = Z Z', where Z is m x 2D. Rows are needed once,
n D operations instead of n^2. The frequencies are drawn without looking at the data, so the
approximate kernel is a kernel like any other and a permutation test with it is exact; only its
power depends on D.

- gaussian, bandwidth h: w = g / h with g standard normal;
- exponential, bandwidth h: w = g / (h |g_0|), a Cauchy law in d dimensions.

The directions of the normal draws are orthogonal in groups of d (Yu et al. 2016): they cover all
columns evenly, and a change of the mean is seen as by the exact kernel. A narrow kernel in many
dimensions is poorly approximated: its values are mostly below the noise 1/sqrt(D) of the
approximation, and with 200 frequencies a change in 50 columns or of scale is found somewhat less
often than by the exact kernel on the same rows (`bench/output/levels.txt`). There the exact kernel
on a part of the rows helps.

References: Rahimi and Recht 2007, "Random Features for Large-Scale Kernel Machines"; Yu, Suresh,
Choromanski, Holtmann-Rice and Kumar 2016, "Orthogonal Random Features", arXiv 1610.09072.
"""

from __future__ import annotations

import numpy as np

from dpdq.distance.kernel_blocks import BlockSums
from dpdq.distance.permutation import PermutationDesign
from dpdq.errors import OptionError
from dpdq.kernels import Kernel, map_tiles

__all__ = ["feature_block_sums", "frequencies"]

TILE_ENTRIES = 2**18  # rows times frequencies of a tile: it stays in the cache


def frequencies(
    kernel: Kernel, n_features: int, n_frequencies: int, rng: np.random.Generator
) -> np.ndarray:
    """Draws of the spectral law of each bandwidth, shape (k, d, D).

    Parameters
    ----------
    kernel
        A Gaussian or exponential family.
    n_features
        d.
    n_frequencies
        D, for each bandwidth. Every bandwidth has draws of its own.
    rng
        Never sees the data.

    Returns
    -------
    numpy.ndarray
        Frequencies w_d.

    Raises
    ------
    OptionError
        The kernel has no random features here.
    """
    draws = np.empty((len(kernel), n_features, n_frequencies))
    for one in draws:
        for first in range(0, n_frequencies, n_features):
            square = rng.standard_normal((n_features, n_features))
            # The columns of Q are uniform directions, orthogonal to each other; each gets the
            # length of an independent normal vector.
            basis = np.linalg.qr(square)[0]
            lengths = np.linalg.norm(rng.standard_normal((n_features, n_features)), axis=0)
            last = min(first + n_features, n_frequencies)
            one[:, first:last] = (basis * lengths)[:, : last - first]
    if kernel.name == "exponential":
        draws /= np.abs(rng.standard_normal((len(kernel), 1, n_frequencies)))
    elif kernel.name != "gaussian":
        raise OptionError(
            f"no random features for the {kernel.name} kernel; use 'gaussian' or 'exponential'"
        )
    return draws / np.asarray(kernel.bandwidths)[:, None, None]


def feature_block_sums(
    points: np.ndarray,
    design: PermutationDesign,
    kernel: Kernel,
    *,
    n_frequencies: int,
    weights: np.ndarray | None = None,
    rng: np.random.Generator,
) -> BlockSums:
    """Sum random-feature approximations of a family of kernels over pairs of blocks.

    Angles, cosines and sines are float32, sums over blocks float64. An angle w.x is off by at most
    d eps |w||x|, which moves a feature by as little; a row still has k(x, x) = 1 exactly.

    Parameters
    ----------
    points
        Pooled points, q first, shape (N, d).
    design
        From `permutation_design`.
    kernel
        A Gaussian or exponential family of k bandwidths.
    n_frequencies
        D, for each bandwidth.
    weights
        Of pooled rows, shape (N,): a pair then counts w_i w_j.
    rng
        Draws the frequencies.

    Returns
    -------
    BlockSums
        O(N d D k + m^2 D k) time; O(N d + m D k + k m^2) memory.
    """
    omega = frequencies(kernel, points.shape[1], n_frequencies, rng)
    omega = omega.transpose(1, 0, 2).reshape(points.shape[1], -1).astype(np.float32)
    starts, order = design.starts, design.order
    m = len(starts) - 1
    ordered = None if weights is None else weights[order].astype(np.float32)
    own = design.sizes
    if weights is not None:
        own = np.add.reduceat(weights[order] ** 2, starts[:-1])
    pieces = _pieces(starts, max(1, TILE_ENTRIES // omega.shape[1]))

    def work(piece: tuple[int, int, int, int]) -> np.ndarray:
        first, last, low, high = piece
        angles = points[order[first:last]].astype(np.float32) @ omega
        inside = np.clip(starts[low : high + 1], first, last) - first
        folded = np.empty((high - low, 2, angles.shape[1]))
        values = np.empty_like(angles)
        for side, wave in enumerate((np.cos, np.sin)):
            values = wave(angles, out=values)
            for block in range(high - low):
                low_row, high_row = inside[block], inside[block + 1]
                rows = values[low_row:high_row]
                if ordered is None:
                    folded[block, side] = rows.sum(axis=0)
                else:
                    folded[block, side] = ordered[first + low_row : first + high_row] @ rows
        return folded

    sums = np.zeros((m, 2, len(kernel), n_frequencies))
    operations = 20.0 * len(points) * omega.shape[1]
    folds = map_tiles(work, pieces, operations=operations)
    for (_, _, low, high), folded in zip(pieces, folds, strict=True):
        sums[low:high] += folded.reshape(high - low, 2, len(kernel), n_frequencies)

    def gram(k: int) -> np.ndarray:
        z = np.ascontiguousarray(sums[:, :, k].reshape(m, -1))
        product = z @ z.T / n_frequencies
        # cos^2 + sin^2 = 1: a row with itself counts exactly one
        product[np.diag_indices(m)] -= own
        return product

    operations = 4.0 * m * m * n_frequencies * len(kernel)
    grams = np.array(list(map_tiles(gram, range(len(kernel)), operations=operations)))
    return BlockSums(grams, design.sizes, 1.0)


def _pieces(starts: np.ndarray, n_rows: int) -> list[tuple[int, int, int, int]]:
    """Row ranges of at most so many rows, each with the range of blocks that it touches."""
    pieces = []
    for first in range(0, int(starts[-1]), n_rows):
        last = min(first + n_rows, int(starts[-1]))
        low = int(np.searchsorted(starts, first, side="right")) - 1
        high = int(np.searchsorted(starts, last, side="left"))
        pieces.append((first, last, low, high))
    return pieces
