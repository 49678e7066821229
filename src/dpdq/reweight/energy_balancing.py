"""Energy balancing: the weighted sample of q as near to p as weights can bring it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dpdq.kernels import distance_tile, map_tiles, symmetric_tiles
from dpdq.ratio.bounded_matching import match_means
from dpdq.reweight._base import Weighter
from dpdq.reweight._common import Array, Solution, check_positive
from dpdq.reweight._points import points, row_hashes
from dpdq.reweight._problem import Problem

__all__ = ["EnergyBalancing"]

_TILE = 512
_UNITS = 1e4  # the solver's rounding, 1e-6, becomes 1e-10 of the mean distance


class EnergyBalancing(Weighter):
    """Weights under which the energy distance from q to p is least.

        minimise  2 E|X_w - Y| - E|X_w - X_w'| - E|Y - Y'| + penalty D E_b[(w / b)²]
        over w >= 0 of mean one,   D the mean distance E_b|X - Y| before weighting

    The energy distance is zero only if the laws are equal: all of the joint law is balanced, with
    nothing to choose, no model, no moments and no bandwidth. The price is that nothing is balanced
    exactly, and that coarse features come first: in many columns little but means and spread.
    Without a penalty up to half of the weights are zero, since weights of single rows may follow
    the noise of both samples; a penalty keeps them near each other.

    The weights are numbers for these rows of q, not a function of x: there is no ``log_ratio``. No
    honest standard error is known without refitting: they solve no fixed list of equations, so
    that ``estimate`` gives a mean without an interval. For one, resample both sides and fit again.

    Parameters
    ----------
    penalty
        Of the second moment of the weights, in units of the mean distance; ``penalty`` D =
        lambda / n in the paper's notation.
    tolerance
        Stop when the duality gap, which bounds how far the energy distance is above the least
        possible, is below this part of what weighting has taken off it.
    max_iter
        Gradient steps a block.
    block_rows
        Most rows of q that are weighted together: their distances are held at once, 8 bytes times
        the square of this. More rows than these fall into parts by a hash of their content, each
        a random part of q that is brought to a random part of p; the diagnostics say so.
    not_converged
        ``"raise"``, or ``"keep"`` to hand the last iterate back with ``converged_`` False.

    Attributes
    ----------
    gain_
        How much weighting has taken off the energy distance (mean over blocks), in units of the
        coordinates: numbers in standard deviations, levels as 0 and 1.
    gap_
        How far it can be above the least value, with the penalty, by duality.
    n_blocks_
        Parts of q.

    Notes
    -----
    Cost: O((n_q + n_p) b d + n_q b t) time for blocks of b rows and t steps, O(b² + n d) memory.
    Held by: tests/reweight/test_energy_balancing.py::test_equals_a_quadratic_programme

    Changed from the paper: design weights on both sides, blocks, a first-order method that knows
    how far it is from the optimum. Means of the margins are not balanced on their own, so the
    balance table shows small differences left.

    References
    ----------
    .. [Huling2024] Energy Balancing of Covariate Distributions. Huling, 2024, Journal of Causal
       Inference 12.
    .. [Szekely2013] Energy Statistics: A Class of Statistics Based on Distances. Székely, 2013,
       Journal of Statistical Planning and Inference 143.

    Examples
    --------
    >>> import numpy as np
    >>> from dpdq.reweight import EnergyBalancing
    >>> rng = np.random.default_rng(0)
    >>> q, p = rng.uniform(-2, 2, (500, 1)), rng.normal(0, 0.5, (500, 1))
    >>> model = EnergyBalancing().fit(q=q, p=p)  # the same means; another spread
    >>> bool(abs(np.average(q[:, 0] ** 2, weights=model.weights_) - np.mean(p**2)) < 0.01)
    True
    """

    gain_: float
    gap_: float
    n_blocks_: int

    def __init__(
        self,
        *,
        penalty: float = 0.0,
        tolerance: float = 1e-3,
        max_iter: int = 2_000,
        block_rows: int = 3_000,
        not_converged: str = "raise",
    ) -> None:
        self.penalty = penalty
        self.tolerance = tolerance
        self.max_iter = max_iter
        self.block_rows = block_rows
        self.not_converged = not_converged

    def _check_options(self) -> None:
        check_positive("penalty", self.penalty, zero=True)
        check_positive("tolerance", self.tolerance)
        check_positive("max_iter", self.max_iter)
        check_positive("block_rows", self.block_rows, zero=True, least=2)

    def _solve(self, problem: Problem) -> Solution:
        p, weights_p = problem.sample_of_p(type(self).__name__)
        n, most = len(problem.q), int(self.block_rows)
        n_blocks = -(-n // most)
        if n_blocks == 1:
            parts, n_parts, places_p = [np.arange(n)], 1, np.arange(len(p))
        else:
            order = np.argsort(row_hashes(problem, problem.q), kind="stable")
            parts, n_parts = np.array_split(order, n_blocks), min(n_blocks, -(-len(p) // most))
            places_p = np.argsort(row_hashes(problem, p), kind="stable")
        log_weights = np.empty(n)
        gain = gap = 0.0
        steps, converged = 0, True
        for number, here in enumerate(parts):
            there = places_p[number % n_parts :: n_parts]
            mass = problem.weights_q[here]
            share, other = mass / mass.sum(), weights_p[there] / weights_p[there].sum()
            x, y = points(problem, problem.q.take(here)), points(problem, p.take(there))
            target = _mean_distances(x, y, other)
            scale = float(share @ target)
            part = mass.sum() / problem.weights_q.sum()
            if not scale > 0:  # all points of both sides are one
                log_weights[here] = 0.0
                continue
            unit = _UNITS / scale
            product = _product(_distances(x, unit), share, float(self.penalty) * _UNITS)
            found = match_means(
                product,
                -unit * target,
                share,
                bound=2.0 / float(share.min()),
                tolerance=float(self.tolerance),
                max_iterations=int(self.max_iter),
            )
            values = found.values / (share @ found.values)
            start = float(share @ (product(share) / 2 + unit * target))
            # The energy distance is twice the solver's objective but for E|Y - Y'|.
            spread = share @ values**2 - 1.0
            gain += part * (2 * (start - found.objective) / unit + self.penalty * scale * spread)
            gap += part * 2 * found.gap / unit
            steps, converged = max(steps, found.n_iterations), converged and found.converged
            with np.errstate(divide="ignore"):
                log_weights[here] = np.log(values)
        note = (
            f"The {n:,} rows of q were weighted in {n_blocks} random parts, each brought to "
            f"{-(-len(p) // n_parts):,} of the {len(p):,} rows of p"
            if n_blocks > 1
            else ""
        )
        return Solution(
            log_weights,
            converged,
            steps,
            note,
            ""
            if converged
            else f"stopped after {steps} steps with the energy distance up to {gap:.1e} above the "
            f"least (it has fallen by {gain:.1e}); raise max_iter, tolerance or penalty",
            {"gain_": gain, "gap_": gap, "n_blocks_": n_blocks},
        )

    def _influence(self, problem: Problem, weights: Array, scores: Array) -> str:
        return (
            "No standard error: energy-balancing weights solve no fixed list of equations; "
            "resample both sides and fit again, or use EntropyBalancing or KernelBalancing"
        )


def _distances(x: Array, unit: float) -> Array:
    """All distances times ``unit``, shape (n, n)."""
    out = np.empty((len(x), len(x)))

    def work(where: tuple[slice, slice]) -> None:
        rows, columns = where
        tile = distance_tile(x[rows], x[columns], "euclidean")
        if rows == columns:
            np.fill_diagonal(tile, 0.0)
        np.sqrt(tile, out=tile)
        tile *= unit
        out[rows, columns], out[columns, rows] = tile, tile.T

    for _ in map_tiles(work, list(symmetric_tiles(len(x), _TILE)), operations=x.size * len(x)):
        pass
    return out


def _mean_distances(x: Array, y: Array, share: Array) -> Array:
    """Mean distances from the rows of x to those of y."""

    def work(start: int) -> Array:
        total = np.zeros(min(_TILE, len(x) - start))
        for other in range(0, len(y), _TILE):
            tile = distance_tile(x[start : start + _TILE], y[other : other + _TILE], "euclidean")
            total += np.sqrt(tile, out=tile) @ share[other : other + _TILE]
        return total

    starts = list(range(0, len(x), _TILE))
    return np.concatenate(list(map_tiles(work, starts, operations=float(x.size) * len(y))))


def _product(distances: Array, share: Array, penalty: float) -> Callable[[Array], Array]:
    """The map v -> -D v + penalty v / share: convex where v sums to zero."""

    def product(vector: Array) -> Array:
        out = distances @ vector
        np.negative(out, out=out)
        if penalty:
            out += penalty * vector / share
        return out

    return product
