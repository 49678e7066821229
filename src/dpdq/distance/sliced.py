r"""How far apart are two samples, seen along lines?

Project both samples on a direction theta and take the one-dimensional Wasserstein distance W_r,
which sorting solves exactly. A law rho of directions turns these into one distance,

    SW_r(q, p; rho)^r = E_{theta ~ rho}[ W_r(theta#q, theta#p)^r ],

and the members of the family differ in rho alone:

    uniform   every direction counts alike. A metric; each direction of d sees 1/d of a shift, so
              that a change in a few of many columns drowns in the noise of the others.
    max       the one direction in which the samples differ most. Sees such changes; its estimate
              also finds the direction in which chance made them differ.
    vmf       a cone around the best location: max over eps of E over vMF(eps, kappa). Between the
              two, and a metric for every finite kappa, as the cone's law has full support.

Which? ``"uniform"`` to say how far; ``"vmf"`` or ``"max"`` to find where (the ``direction``). For
"is it real" take `sliced_wasserstein_test`, which learns on one half and tests on the other; for a
law learnt with a guaranteed lower bound `AdaptiveSlicedWasserstein`.

What samples do to it. W_r^r is convex in the pair of laws, so that the plug-in estimate is too
large on average, always: at q = p, where the truth is zero, by the order of n^(-1/2) for r = 1 and,
for smooth laws, n^(-1) for r = 2. Convexity also shows how much: over halves of the samples the
mean of W_r^r is never smaller than over the whole, and if the bias falls no slower than n^(-1/2)
(in one dimension it does not) then it is at most (that excess) / (sqrt(2) - 1). The interval below
takes this off its low end and not off its high end, which needs no correction.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

import numpy as np

from dpdq._random import RandomState, as_generator
from dpdq._threads import one_thread_each
from dpdq.distance._common import check_sides, normal_quantile
from dpdq.distance._directions import SliceLaw, best_direction, learn_law
from dpdq.distance._slices import Slices
from dpdq.distance._sphere import uniform_directions
from dpdq.errors import DataError, OptionError
from dpdq.results import Estimate

__all__ = ["SlicedDistance", "sliced_wasserstein"]

PROJECTIONS = ("uniform", "max", "vmf")
PRECISIONS = {"float32": np.float32, "float64": np.float64}
_SPREAD_DIRECTIONS = 64  # along which the spread over rows is measured
_BIAS_DIRECTIONS = 32  # along which the bias is measured
_BIAS_HALVINGS = 2
_BIAS_ERROR = 0.3  # standard error of the measured bias, as a part of it (simulated at q = p)
_LEARNING_DIRECTIONS = 100  # draws that a von Mises-Fisher law is learnt on


@dataclasses.dataclass(frozen=True, repr=False)
class SlicedDistance(Estimate):
    """A sliced Wasserstein distance with what is known of its error.

    Attributes
    ----------
    projection_standard_error
        Of the estimate, from the finite number of directions alone; 0 where these are given or
        there is only one. It falls with ``n_projections``, ``standard_error`` with the rows.
    bias
        Upper estimate of how much the plug-in estimate exceeds the distance on average, because
        samples differ even where their laws do not.
    direction
        The learnt location, unit length (``"max"``, ``"vmf"``); its sign means nothing.
    n_projections, n_q, n_p
        Directions and rows that were used.
    status
        What to do next, where there is something to do.
    """

    projection_standard_error: float = 0.0
    bias: float | None = None
    direction: np.ndarray | None = None
    n_projections: int = 0
    n_q: int = 0
    n_p: int = 0
    status: str = ""


def sliced_wasserstein(
    q: np.ndarray,
    p: np.ndarray,
    *,
    order: float = 2.0,
    n_projections: int = 500,
    projections: Literal["uniform", "max", "vmf"] | np.ndarray = "uniform",
    kappa: float | None = None,
    weights_q: np.ndarray | None = None,
    weights_p: np.ndarray | None = None,
    precision: Literal["float32", "float64"] = "float32",
    level: float = 0.95,
    random_state: RandomState = None,
) -> SlicedDistance:
    """Sliced Wasserstein distance of two samples, over all directions or the telling ones.

        SW_r(q, p)^r = E_theta[ W_r(theta#q, theta#p)^r ]

    with theta uniform on the sphere, at the maximum, or von Mises-Fisher around the location that
    makes it largest. Euclidean: put columns on comparable scales first. Two samples of one law are
    not at distance zero: the estimate is too large on average (``bias`` says by how much at most),
    and more so where directions are learnt. In many dimensions the uniform distance of a change in
    one column is small by construction, (1/d)^(1/2) of the change for r = 2.

    Parameters
    ----------
    q, p
        Samples, shapes (n_q, d) and (n_p, d); vectors are one-dimensional points.
    order
        r >= 1.
    n_projections
        L, the directions of the estimate. Ignored in one dimension, where one tells all.
    projections
        ``"uniform"``, ``"max"``, ``"vmf"``, or directions of your own, shape (L, d), which are
        scaled to unit length.
    kappa
        Concentration for ``"vmf"``; default d, at which the mean cosine to the location is about
        0.6.
    weights_q, weights_p
        Importance weights of rows, any scale; zero drops the row. Integer weights equal repeated
        rows.
    precision
        Of projections and sorts. ``"float32"`` is within 2 (d + 2) eps R + 4 eps SW of
        ``"float64"``, with eps = 6e-8 and R the largest distance of a row from the centre of all;
        sums are float64. It holds along each direction.
    level
        Of the interval.
    random_state
        Seed of directions and of the halves that measure the bias.

    Returns
    -------
    SlicedDistance
        ``estimate`` is the plug-in distance. ``low`` to ``high`` is a normal interval for
        SW_r^r that counts rows and directions, its low end less ``bias`` and never below 0. For
        learnt directions the low end comes from directions learnt on half of the rows and read on
        the other half, and the high end assumes that the climb found the highest summit.

    Raises
    ------
    DataError
        Values are not finite, columns do not match, or weights do not fit.
    OptionError
        Unknown projections or precision, order below 1, fewer than 1 projection, kappa not
        positive or given without ``"vmf"``.

    Notes
    -----
    Cost: O(L n (d + log n)) time, O(n d) memory; learnt directions a few hundred L more.
    Held by: tests/distance/test_sliced.py::test_equals_pot

    The standard error is that of the Kantorovich potentials, the first-order effect of each row;
    it vanishes at q = p faster than the estimate does.

    Of M068 the von Mises-Fisher distance for one pair of samples is here; its network that
    predicts the location for many pairs is not.

    References
    ----------
    .. [M068] Self-Attention Amortized Distributional Projection Optimization for Sliced
       Wasserstein Point-Cloud Reconstruction. Nguyen, 2023, arXiv 2301.04791.
    .. [Bonneel2015] Sliced and Radon Wasserstein Barycenters of Measures. Bonneel, 2015, Journal
       of Mathematical Imaging and Vision 51.
    .. [Deshpande2019] Max-Sliced Wasserstein Distance and its use for GANs. Deshpande, 2019,
       arXiv 1904.05877.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> q, p = rng.normal(size=(500, 4)), rng.normal(size=(400, 4)) + [1.0, 0.0, 0.0, 0.0]
    >>> found = sliced_wasserstein(q=q, p=p, random_state=0)
    >>> bool(found.low < 0.5 < found.high)  # a unit shift seen along random lines: sqrt(1/4)
    True
    >>> where = sliced_wasserstein(q=q, p=p, projections="max", random_state=0)
    >>> int(np.abs(where.direction).argmax())
    0
    """
    width = normal_quantile(level)
    if precision not in PRECISIONS:
        raise OptionError(f"Unknown precision {precision!r}. Choose one of 'float32', 'float64'.")
    given = None
    if not isinstance(projections, str):
        given = np.asarray(projections, dtype=np.float64)
    elif projections not in PROJECTIONS:
        raise OptionError(
            f"Unknown projections {projections!r}. Choose one of "
            f"{', '.join(map(repr, PROJECTIONS))}, or give directions of shape (L, d)."
        )
    if kappa is not None and (given is not None or projections != "vmf"):
        raise OptionError("kappa is given, and only projections='vmf' has a concentration")
    check_options(order, n_projections, kappa)
    slices, scale = prepare(q, p, order, weights_q, weights_p, PRECISIONS[precision])
    rng = as_generator(random_state)
    settled = True
    with one_thread_each():
        law: SliceLaw | None = None
        if given is not None:
            directions = _check_directions(given, slices.d)
        elif slices.d == 1:
            directions = np.ones((1, 1))
        elif projections == "uniform":
            directions = uniform_directions(n_projections, slices.d, rng)
        else:
            law, settled = learn_slices(slices, str(projections), kappa, n_projections, rng)
            directions = law.draw(n_projections, rng)
        power, reading = read_costs(slices, directions, rng, by_chance=given is None)
        low_power = None
        if law is not None:
            low_power = _held_out_low(slices, str(projections), kappa, n_projections, width, rng)
        elif reading is not None:
            low_power = reading.low(power, width)
    root = 1.0 / order

    def distance(value: float) -> float:
        return scale * max(value, 0.0) ** root

    estimate = distance(power)
    if reading is None:
        low = high = error = bias = None
    else:
        low = None if low_power is None else distance(low_power)
        high = distance(power + width * reading.error)
        error = _delta(estimate, power, reading.sampling_error, root)
        bias = estimate - distance(power - reading.bias)
    many = len(directions) > 1 and given is None
    return SlicedDistance(
        estimate=estimate,
        low=low,
        high=high,
        standard_error=error,
        level=level,
        method=_describe(projections if given is None else "given", order, law, len(directions)),
        reason=_reason(slices, low, high),
        projection_standard_error=(
            _delta(estimate, power, reading.direction_error, root) if reading and many else 0.0
        ),
        bias=bias,
        direction=None if law is None else law.location,
        n_projections=len(directions),
        n_q=slices.n,
        n_p=slices.m,
        status=_status(low, settled),
    )


# ------------------------------------------------------------------- shared with tests and bounds


def check_options(order: float, n_projections: int, kappa: float | None) -> None:
    """Refuse numbers outside their range."""
    if not (order >= 1 and math.isfinite(order)):
        raise OptionError(f"order is {order}; choose a finite number of at least 1")
    if n_projections < 1:
        raise OptionError(f"n_projections is {n_projections}; expected at least 1")
    if kappa is not None and not (kappa > 0 and math.isfinite(kappa)):
        raise OptionError(f"kappa is {kappa}; expected a positive finite number")


def prepare(
    q: np.ndarray,
    p: np.ndarray,
    order: float,
    weights_q: np.ndarray | None = None,
    weights_p: np.ndarray | None = None,
    dtype: type[np.floating] = np.float64,
) -> tuple[Slices, float]:
    """Both samples about their common centre, largest row of length 1, and that length."""
    q, p = check_sides(q, p, minimum=1)
    w_q, w_p = check_weights(weights_q, len(q), "q"), check_weights(weights_p, len(p), "p")
    if w_q is not None:
        q, w_q = q[w_q > 0], w_q[w_q > 0]
    if w_p is not None:
        p, w_p = p[w_p > 0], w_p[w_p > 0]
    low, high = (
        np.minimum(q.min(axis=0), p.min(axis=0)),
        np.maximum(q.max(axis=0), p.max(axis=0)),
    )
    centre = 0.5 * low + 0.5 * high
    largest = float(np.maximum(high - centre, centre - low).max())
    if largest == 0:
        largest = 1.0
    if not math.isfinite(largest):
        raise DataError("values of q and p are too far apart for float64; rescale them")
    q, p = (q - centre) / largest, (p - centre) / largest
    length = math.sqrt(max(float(np.einsum("ij,ij->i", side, side).max()) for side in (q, p)))
    if length > 0:
        q /= length
        p /= length
    return Slices(q, p, float(order), w_q, w_p, dtype), largest * (length or 1.0)


def check_weights(weights: np.ndarray | None, n: int, side: str) -> np.ndarray | None:
    if weights is None:
        return None
    values = np.asarray(weights, dtype=np.float64)
    if values.shape != (n,):
        raise DataError(f"weights_{side} has shape {values.shape}; expected ({n},)")
    if not np.isfinite(values).all() or (values < 0).any() or values.sum() <= 0:
        raise DataError(f"weights_{side} must be finite, not negative, and not all zero")
    return values


def _check_directions(directions: np.ndarray, d: int) -> np.ndarray:
    if directions.ndim != 2 or directions.shape[1] != d or len(directions) == 0:
        raise DataError(f"projections has shape {directions.shape}; expected (L, {d}), L >= 1")
    length = np.linalg.norm(directions, axis=1, keepdims=True)
    if not np.isfinite(length).all() or (length == 0).any():
        raise DataError("projections must be finite directions, none of them zero")
    return directions / length


def learn_slices(
    slices: Slices, projections: str, kappa: float | None, n_random: int, rng: np.random.Generator
) -> tuple[SliceLaw, bool]:
    if projections == "max":
        location, settled = best_direction(slices, n_random, rng)
        return SliceLaw(location, math.inf), settled
    return learn_law(
        slices,
        kappa=float(slices.d) if kappa is None else float(kappa),
        price=0.0,
        n_directions=min(n_random, _LEARNING_DIRECTIONS),
        rng=rng,
    )


# ------------------------------------------------------------------------------ what is uncertain


@dataclasses.dataclass(frozen=True)
class Reading:
    """Errors of a mean of W_r^r over directions."""

    sampling_error: float
    direction_error: float
    bias: float

    @property
    def error(self) -> float:
        """Of the mean cost."""
        return math.hypot(self.sampling_error, self.direction_error)

    def low(self, power: float, width: float) -> float:
        """The low end of an interval for the true mean cost."""
        return power - self.bias - width * math.hypot(self.error, _BIAS_ERROR * self.bias)


def read_costs(
    slices: Slices, directions: np.ndarray, rng: np.random.Generator, *, by_chance: bool
) -> tuple[float, Reading | None]:
    """The mean cost along the directions, and its errors where there are rows enough."""
    costs = slices.costs(directions)
    power = float(costs.mean())
    if min(slices.n, slices.m) < 4:
        return power, None
    n = len(directions)
    some = directions[:_SPREAD_DIRECTIONS]
    if not by_chance and n > _SPREAD_DIRECTIONS:
        some = directions[rng.choice(n, _SPREAD_DIRECTIONS, replace=False)]
    variance = slices.sampling_variance(some, n)
    across = float(costs.std(ddof=1)) / math.sqrt(n) if by_chance and n > 1 else 0.0
    few = some[:_BIAS_DIRECTIONS]
    excess = sum(_halving_excess(slices, few, rng) for _ in range(_BIAS_HALVINGS)) / _BIAS_HALVINGS
    return power, Reading(math.sqrt(variance), across, excess / (math.sqrt(2.0) - 1.0))


def _halving_excess(slices: Slices, directions: np.ndarray, rng: np.random.Generator) -> float:
    """Mean cost between halves of the samples less that of the whole: never negative."""
    halves_q, halves_p = halves(slices.n, rng), halves(slices.m, rng)
    total = 0.0
    for rows_q in halves_q:
        for rows_p in halves_p:
            part = slices.take(rows_q, rows_p)
            mass = slices.share_q[rows_q].sum() * slices.share_p[rows_p].sum()
            total += float(mass * part.costs(directions).mean())
    return max(total - float(slices.costs(directions).mean()), 0.0)


def halves(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    order = rng.permutation(n)
    return np.sort(order[: n // 2]), np.sort(order[n // 2 :])


def _held_out_low(
    slices: Slices,
    projections: str,
    kappa: float | None,
    n_projections: int,
    width: float,
    rng: np.random.Generator,
) -> float | None:
    """A low end from a law learnt on half of the rows: the largest distance is no less."""
    if min(slices.n, slices.m) < 8:
        return None
    (one_q, two_q), (one_p, two_p) = halves(slices.n, rng), halves(slices.m, rng)
    law, _ = learn_slices(slices.take(one_q, one_p), projections, kappa, n_projections, rng)
    held_out = slices.take(two_q, two_p)
    power, reading = read_costs(held_out, law.draw(n_projections, rng), rng, by_chance=True)
    return None if reading is None else reading.low(power, width)


def _delta(estimate: float, power: float, error: float, root: float) -> float:
    """Standard error of the r-th root; an error that exceeds the value is its own root."""
    if power <= 0:
        return 0.0
    return min(estimate * root * error / power, estimate * (error / power) ** root)


def _describe(projections: object, order: float, law: SliceLaw | None, n: int) -> str:
    text = f"sliced Wasserstein of order {order:g}, {n} {projections} projection"
    text += "" if n == 1 else "s"
    if law is not None and math.isfinite(law.kappa):
        text += f", kappa {law.kappa:.4g}"
    return text


def _reason(slices: Slices, low: float | None, high: float | None) -> str:
    if high is None:
        return f"{min(slices.n, slices.m)} rows on a side are too few for an interval"
    return "too few rows to learn on one half and read the other" if low is None else ""


def _status(low: float | None, settled: bool) -> str:
    parts = []
    if low == 0:
        parts.append(
            "no larger than what two samples of one law may show; "
            "sliced_wasserstein_test says whether it is real"
        )
    if not settled:
        parts.append("the search for directions had not ended: the largest may be larger")
    return "; ".join(parts)
