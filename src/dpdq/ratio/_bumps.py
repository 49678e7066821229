"""Gaussian bumps, the basis of the kernel estimators.

    k_l(x) = exp(-|z(x) - z_l|² / (2 sigma²)),   z(x) = (x - center) / scale

The columns are standardised by the pooled spread, each side having half of the weight whatever its
size. The centres z_l are rows of the data: those whose hash of content is smallest, so that
neither the order of rows nor a copy of a row changes the basis. Bandwidths to try are multiples of
the median distance between centres.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dpdq.errors import OptionError
from dpdq.ratio._common import Array

__all__ = [
    "BLOCK",
    "BumpBasis",
    "blocks",
    "check_bounds",
    "gaussian",
    "make_basis",
    "number_grid",
    "rows_to_tune_on",
    "squared_distances",
]

BLOCK = 65_536


@dataclass(frozen=True)
class BumpBasis:
    """Standardisation of the columns, and the centres of the bumps in standardised units."""

    center: Array
    scale: Array
    centers: Array

    def standardised(self, x: Array) -> Array:
        """Rows in the units of the centres."""
        return (x - self.center) / self.scale

    def bumps(self, rows: Array, bandwidth: float) -> Array:
        """Bumps at standardised rows, shape (n, centres)."""
        out = squared_distances(rows, self.centers)
        out *= -0.5 / bandwidth**2
        return np.exp(out, out=out)

    def mean(self, rows: Array, share: Array, bandwidth: float) -> Array:
        """Means of the bumps over standardised rows whose shares sum to one."""
        total = np.zeros(len(self.centers))
        for block in blocks(len(rows)):
            total += share[block] @ self.bumps(rows[block], bandwidth)
        return total

    def sum(self, x: Array, bandwidth: float, theta: Array) -> Array:
        """The combination sum_l theta_l k_l at rows as given."""
        out = np.empty(len(x))
        for block in blocks(len(x)):
            out[block] = self.bumps(self.standardised(x[block]), bandwidth) @ theta
        return out

    def typical_distance(self) -> float:
        """Median distance between different centres; 1 where there is none."""
        upper = np.triu_indices(len(self.centers), 1)
        distances = np.sqrt(squared_distances(self.centers, self.centers)[upper])
        distances = distances[distances > 1e-9]
        return float(np.median(distances)) if len(distances) else 1.0


def make_basis(
    q: Array,
    p: Array,
    share_q: Array,
    share_p: Array,
    hash_q: Array,
    hash_p: Array,
    n_centers: int,
    *,
    centers_on: str = "both",
    standardise: bool = True,
) -> BumpBasis:
    """Standardise the columns and take centres from both sides alike, from p or from q."""
    if n_centers < 2:
        raise OptionError(f"n_centers is {n_centers}; expected at least 2")
    center = (share_q @ q + share_p @ p) / 2
    scale = np.ones(q.shape[1])
    if standardise:
        square = (share_q @ (q - center) ** 2 + share_p @ (p - center) ** 2) / 2
        scale = np.sqrt(square)
        scale[scale <= 1e-12 * np.maximum(np.abs(center), 1e-300)] = 1.0
    sides = {
        "both": ((p, hash_p, n_centers - n_centers // 2), (q, hash_q, n_centers)),
        "p": ((p, hash_p, n_centers),),
        "q": ((q, hash_q, n_centers),),
    }[centers_on]
    chosen: dict[int, Array] = {}
    for rows, hashes, wanted in sides:
        _, first = np.unique(hashes, return_index=True)
        for i in first:
            if len(chosen) >= wanted:
                break
            chosen.setdefault(int(hashes[i]), rows[i])
    return BumpBasis(center, scale, (np.array(list(chosen.values())) - center) / scale)


def squared_distances(x: Array, centers: Array) -> Array:
    """|x_i - z_l|² for all pairs."""
    out = x @ (-2.0 * centers.T)
    out += np.einsum("ij,ij->i", x, x)[:, None]
    out += np.einsum("ij,ij->i", centers, centers)
    return np.maximum(out, 0.0, out=out)


def gaussian(distances: Array, bandwidth: float) -> Array:
    """exp(-d / (2 bandwidth²)) of squared distances, which are kept for the next bandwidth."""
    out = distances * (-0.5 / bandwidth**2)
    return np.exp(out, out=out)


def blocks(n: int, size: int | None = None) -> list[slice]:
    """Ranges of at most ``size`` rows (default `BLOCK`) that cover 0 .. n - 1."""
    size = BLOCK if size is None else size
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


def rows_to_tune_on(hashes: Array, limit: int | None) -> Array:
    """Mask of the ``limit`` rows with the smallest hashes; equal rows stand or fall together."""
    if limit is None or len(hashes) <= limit:
        return np.ones(len(hashes), dtype=bool)
    return hashes <= np.partition(hashes, limit - 1)[limit - 1]


def number_grid(name: str, given: object, auto: Array) -> Array:
    """A grid of positive numbers as given, or the automatic one for ``"auto"``."""
    if isinstance(given, str):
        if given != "auto":
            raise OptionError(f"Unknown {name} {given!r}. Choose 'auto' or a list of numbers.")
        return auto
    values = np.atleast_1d(np.asarray(given, dtype=np.float64))
    if values.ndim != 1 or not len(values) or not (np.isfinite(values) & (values > 0)).all():
        raise OptionError(f"{name} is {given}; expected positive finite numbers")
    return values


def check_bounds(floor: float, ceiling: float) -> None:
    """Refuse bounds of the ratio that do not hold 1 between them."""
    if not 0 < floor < 1:
        raise OptionError(f"floor is {floor}; expected a positive number below 1")
    if not ceiling > 1:
        raise OptionError(f"ceiling is {ceiling}; expected a number above 1")
