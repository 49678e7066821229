r"""Transport costs of many one-dimensional slices at once, their gradients and their spread.

Along a direction theta the optimal coupling pairs equal quantiles, so that

    W_r^r(theta) = int_0^1 |F^-1(u) - G^-1(u)|^r du = sum_k l_k |x_(i_k) - y_(j_k)|^r

over the stretches k of [0, 1] between the levels i / n and j / m of both sides. Without weights
the stretches are the same for every direction; with n = m they are the n pairs of equal rank.

With the coupling held fixed, which is right to first order (Danskin's theorem), the gradient is

    d W_r^r / d theta = sum_k l_k r |d_k|^(r-1) sign(d_k) (X_(i_k) - Y_(j_k)),   d_k = x - y,

and the first-order effect of one row of q on W_r^r is the Kantorovich potential f at its place,
f'(x) = r |x - T(x)|^(r-1) sign(x - T(x)) with T the transport map; likewise for p.
"""

from __future__ import annotations

import math

import numpy as np

from dpdq.kernels import map_tiles

__all__ = ["Slices", "share_of"]

_BLOCK = 400_000  # projected values of a block; 1.6 MB as float32


def share_of(weights: np.ndarray) -> np.ndarray:
    """Weights that sum to one."""
    return weights / weights.sum()


class Slices:
    """Rows of both sides, ready to be projected.

    Parameters
    ----------
    q, p
        Rows, shapes (n, d) and (m, d), of moderate size (centred and scaled by the caller).
    order
        r >= 1.
    weights_q, weights_p
        Positive weights, any scale; ``None`` on both sides for none.
    dtype
        Of the projected values in `costs`.
    """

    def __init__(
        self,
        q: np.ndarray,
        p: np.ndarray,
        order: float,
        weights_q: np.ndarray | None = None,
        weights_p: np.ndarray | None = None,
        dtype: type[np.floating] = np.float64,
    ) -> None:
        self.q, self.p, self.order = q, p, order
        self.n, self.m, self.d = len(q), len(p), q.shape[1]
        self.weighted = weights_q is not None or weights_p is not None
        self.share_q = np.full(self.n, 1 / self.n) if weights_q is None else share_of(weights_q)
        self.share_p = np.full(self.m, 1 / self.m) if weights_p is None else share_of(weights_p)
        self._narrow = (q.T.astype(dtype), p.T.astype(dtype))
        if self.weighted:
            return
        # whose quantile is the other side's at the middle of a row's own stretch of levels
        self._partner_of_q = (2 * np.arange(self.n) + 1) * self.m // (2 * self.n)
        self._partner_of_p = (2 * np.arange(self.m) + 1) * self.n // (2 * self.m)
        if self.n != self.m:
            # levels as whole numbers of 1 / (n m), so that no level is split by rounding
            cuts = np.union1d(np.arange(1, self.n + 1) * self.m, np.arange(1, self.m + 1) * self.n)
            self._lengths = np.diff(cuts, prepend=0) / (self.n * self.m)
            self._at_q, self._at_p = (cuts - 1) // self.m, (cuts - 1) // self.n

    def take(self, rows_q: np.ndarray, rows_p: np.ndarray) -> Slices:
        """The same problem on some of the rows."""
        weights = (self.share_q[rows_q], self.share_p[rows_p]) if self.weighted else (None, None)
        return Slices(self.q[rows_q], self.p[rows_p], self.order, *weights)

    def _blocks(self, n_directions: int) -> list[slice]:
        size = max(1, _BLOCK // (self.n + self.m))
        return [slice(a, min(a + size, n_directions)) for a in range(0, n_directions, size)]

    def _operations(self, n_directions: int) -> float:
        return 20.0 * n_directions * (self.n + self.m)

    def _power(self, distance: np.ndarray) -> np.ndarray:
        """|d|^r, in place."""
        if self.order == 2:
            return np.multiply(distance, distance, out=distance)
        np.abs(distance, out=distance)
        return distance if self.order == 1 else np.power(distance, self.order, out=distance)

    def _slope(self, distance: np.ndarray) -> np.ndarray:
        """The derivative r |d|^(r-1) sign(d)."""
        if self.order == 2:
            return 2.0 * distance
        sign = np.sign(distance)
        if self.order == 1:
            return sign
        return self.order * sign * np.abs(distance) ** (self.order - 1)

    def costs(self, directions: np.ndarray) -> np.ndarray:
        """W_r^r along each direction (L, d), shape (L,); projections and sorts in ``dtype``."""
        x_columns, y_columns = self._narrow
        narrow = directions.astype(x_columns.dtype)

        def work(block: slice) -> np.ndarray:
            x, y = narrow[block] @ x_columns, narrow[block] @ y_columns
            if self.weighted:
                return self._weighted_costs(x, y)
            x.sort(axis=1)
            y.sort(axis=1)
            return self.costs_of_sorted(x, y)

        blocks = self._blocks(len(directions))
        answers = list(map_tiles(work, blocks, operations=self._operations(len(directions))))
        return np.concatenate(answers)

    def costs_of_sorted(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """W_r^r of each pair of sorted rows (B, n) and (B, m), without weights; overwrites x."""
        if self.n == self.m:
            x -= y
            return self._power(x).sum(axis=1, dtype=np.float64) / self.n
        costs = np.empty(len(x))
        for k in range(len(x)):
            distance = x[k, self._at_q] - y[k, self._at_p]
            costs[k] = np.dot(self._power(distance), self._lengths)
        return costs

    def _weighted_costs(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        costs = np.empty(len(x))
        for k in range(len(x)):
            by_x, by_y = x[k].argsort(), y[k].argsort()
            lengths, at_q, at_p = _stretches(self.share_q[by_x], self.share_p[by_y])
            costs[k] = np.dot(self._power(x[k, by_x][at_q] - y[k, by_y][at_p]), lengths)
        return costs

    def gradients(self, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """W_r^r along each direction, and its gradient by the direction: (L,) and (L, d)."""

        def work(block: slice) -> tuple[np.ndarray, np.ndarray]:
            theta = directions[block]
            x, y = theta @ self.q.T, theta @ self.p.T
            by_x, by_y = x.argsort(axis=1), y.argsort(axis=1)
            if not self.weighted and self.n == self.m:
                distance = np.take_along_axis(x, by_x, 1)
                distance -= np.take_along_axis(y, by_y, 1)
                slope = self._slope(distance) / self.n
                np.put_along_axis(x, by_x, slope, 1)
                np.put_along_axis(y, by_y, slope, 1)
                return self._power(distance).sum(axis=1) / self.n, x @ self.q - y @ self.p
            costs = np.empty(len(theta))
            for k in range(len(theta)):
                a, b = x[k, by_x[k]], y[k, by_y[k]]
                if self.weighted:
                    lengths, at_q, at_p = _stretches(self.share_q[by_x[k]], self.share_p[by_y[k]])
                else:
                    lengths, at_q, at_p = self._lengths, self._at_q, self._at_p
                distance = a[at_q] - b[at_p]
                slope = self._slope(distance) * lengths
                x[k, by_x[k]] = np.bincount(at_q, weights=slope, minlength=self.n)
                y[k, by_y[k]] = np.bincount(at_p, weights=slope, minlength=self.m)
                costs[k] = np.dot(self._power(distance), lengths)
            return costs, x @ self.q - y @ self.p

        blocks = self._blocks(len(directions))
        operations = self._operations(len(directions)) * 3
        answers = list(map_tiles(work, blocks, operations=operations))
        return (
            np.concatenate([one[0] for one in answers]),
            np.concatenate([one[1] for one in answers]),
        )

    def sampling_variance(self, directions: np.ndarray, n_directions: int) -> float:
        """Variance over rows of the mean of W_r^r over ``n_directions`` directions.

        From the potentials along the given ones, a random part of them or all: rows are taken as
        independent observations and weights as given.
        """
        sides = []

        def work(block: slice) -> tuple[np.ndarray, ...]:
            theta = directions[block]
            x, y = theta @ self.q.T, theta @ self.p.T
            by_x, by_y = x.argsort(axis=1), y.argsort(axis=1)
            total_q, total_p = np.zeros(self.n), np.zeros(self.m)
            alone = np.zeros(2)
            for k in range(len(theta)):
                a, b = x[k, by_x[k]], y[k, by_y[k]]
                if self.weighted:
                    share_a, share_b = self.share_q[by_x[k]], self.share_p[by_y[k]]
                    of_a = _mid_quantiles(share_a, share_b, b)
                    of_b = _mid_quantiles(share_b, share_a, a)
                else:
                    of_a, of_b = b[self._partner_of_q], a[self._partner_of_p]
                f, g = np.empty(self.n), np.empty(self.m)
                f[by_x[k]], g[by_y[k]] = self._potential(a, of_a), self._potential(b, of_b)
                f, g = _influence(f, self.share_q), _influence(g, self.share_p)
                total_q += f
                total_p += g
                alone += (f @ f, g @ g)
            return total_q, total_p, alone

        blocks = self._blocks(len(directions))
        answers = map_tiles(work, blocks, operations=self._operations(len(directions)) * 3)
        sums: list[np.ndarray] = []
        for answer in answers:
            sums = list(answer) if not sums else [a + b for a, b in zip(sums, answer, strict=True)]
        k, alone = len(directions), sums[2]
        for side, size in ((0, self.n), (1, self.m)):
            if size < 2:
                return math.nan
            together = float(sums[side] @ sums[side])
            mean_alone = float(alone[side]) / k
            across = (together - float(alone[side])) / (k * (k - 1)) if k > 1 else mean_alone
            across = min(max(across, 0.0), mean_alone)
            sides.append((across + (mean_alone - across) / n_directions) * size / (size - 1))
        return sum(sides)

    def _potential(self, x: np.ndarray, partner: np.ndarray) -> np.ndarray:
        slope = self._slope(x - partner)
        steps = 0.5 * (slope[1:] + slope[:-1]) * np.diff(x)
        return np.concatenate([[0.0], np.cumsum(steps)])


def _influence(potential: np.ndarray, share: np.ndarray) -> np.ndarray:
    return share * (potential - share @ potential)


def _mid_quantiles(share: np.ndarray, other_share: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The other side's quantile at the middle of each row's own stretch of levels."""
    levels = np.cumsum(share) - 0.5 * share
    at = np.searchsorted(np.cumsum(other_share), levels)
    return other[np.minimum(at, len(other) - 1)]


def _stretches(share_q: np.ndarray, share_p: np.ndarray) -> tuple[np.ndarray, ...]:
    """Lengths of the stretches between the levels of both sides, and whose ranks they join."""
    u, v = np.cumsum(share_q), np.cumsum(share_p)
    u[-1] = v[-1] = 1.0
    cuts = np.sort(np.concatenate([u, v]))
    at_q, at_p = np.searchsorted(u, cuts), np.searchsorted(v, cuts)
    at_q, at_p = np.minimum(at_q, len(u) - 1), np.minimum(at_p, len(v) - 1)
    return np.diff(cuts, prepend=0.0), at_q, at_p
