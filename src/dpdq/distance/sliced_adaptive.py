r"""A law of slices learnt from the data, and what it is sure to find under the true laws.

Learn rho to make the sliced cost large, at a price for leaving the uniform law rho_0:

    maximise  E_rho[f] - KL(rho || rho_0) / lambda,   f(theta) = W_r^r(theta#q_n, theta#p_m)

over the von Mises-Fisher laws: location and concentration. The bound below says why the KL is the
right price. Let D bound the diameter of the joint support of q and p, and g(theta) be f for the
true laws. Three steps lead from f to g.

1. *Change of measure.* For every lambda > 0 fixed beforehand, with probability 1 - delta for all
   rho at once, E_rho[f - E f] <= (KL + log(1/delta) + log E_{rho_0} E e^{lambda (f - E f)})/lambda.
2. *Concentration.* Moving one of n rows moves a mass 1/n, whose cost is between 0 and D^r, so that
   f changes by at most D^r / n, and by McDiarmid's argument
   log E e^{lambda (f - E f)} <= lambda^2 D^(2r) (1/n + 1/m) / 8.
3. *Bias.* E f >= g by convexity. On an interval of length D the cost |x - y|^r is r D^(r-1)
   Lipschitz, hence E f - g <= r D^(r-1) (E W_1(q_n, q) + E W_1(p_m, p)), and
   E W_1(q_n, q) <= int sqrt(F (1 - F) / n) <= D / (2 sqrt(n)); together
   psi <= r D^r (1 / sqrt(n) + 1 / sqrt(m)) / 2.

So E_rho[g] >= E_rho[f] - (KL + log(1/delta)) / lambda - lambda D^(2r) (1/n + 1/m) / 8 - psi. The
bound is taken at several lambda fixed in units of D^r alone, each at its share of delta, and the
best one counts; E_rho[f] is a mean over finitely many draws, whose error is taken off by an
empirical Bernstein bound at a share of delta too. The lambda of the learning may depend on the
data, since the bound holds for all rho.

Honest and loose: psi and the concentration term are worst cases over all laws on an interval of
length D, so that the bound says something once SW_r^r is above roughly D^r (2 + r) / sqrt(n). As
printed, the paper's bound lacks the r-th power of D and, in its simplest form, the bias.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from dpdq._random import RandomState, as_generator
from dpdq._threads import one_thread_each
from dpdq.distance._directions import learn_law
from dpdq.distance._slices import Slices
from dpdq.distance.sliced import check_options, prepare
from dpdq.errors import DataError, OptionError
from dpdq.results import Result

__all__ = ["AdaptiveSlicedWasserstein", "SliceBound"]

_BOUND_LAMBDAS = 2.0 ** np.arange(0, 6)  # times sqrt(n) / D^r
_DRAWS_SHARE = 0.1  # of delta, for the error of finitely many draws
_LEARNING_DIRECTIONS = 100
REGULARISATION = 0.25  # c; 1 and more kept digits of 64 columns near the uniform law


@dataclasses.dataclass(frozen=True, repr=False)
class SliceBound(Result):
    """The terms of the lower bound on E_rho W_r^r under the true laws.

    Attributes
    ----------
    cost
        E_rho W_r^r of the samples, over the draws.
    complexity
        (KL + log(1/delta)) / lambda.
    concentration
        lambda D^(2r) (1/n + 1/m) / 8.
    bias
        psi, the largest upward bias of the plug-in over all laws of this diameter.
    draws
        Taken off for the finite number of draws.
    lower
        The cost less the other four; negative where it says nothing.
    """

    cost: float
    complexity: float
    concentration: float
    bias: float
    draws: float
    lower: float


def learning_price(slices: Slices, regularisation: float = REGULARISATION) -> float:
    """1 / lambda of the learning: c s^r / sqrt(n), s^2 the mean variance of a pooled column."""
    pooled = np.concatenate([slices.q, slices.p])
    spread = math.sqrt(float(pooled.var(axis=0).mean()))
    rows = 2.0 / (1.0 / slices.n + 1.0 / slices.m)
    return regularisation * spread**slices.order / math.sqrt(rows)


class AdaptiveSlicedWasserstein:
    """Sliced Wasserstein distance over a learnt von Mises-Fisher law of directions.

        rho = argmax E_rho[W_r^r(theta#q, theta#p)] - KL(rho || uniform) / lambda,
        lambda = sqrt(n) / (c s^r),   s^2 = mean variance of a pooled column

    ``distance_`` is the plug-in value for the learnt law and too large on average, the more so the
    more concentrated the law; it must not be compared with a uniform distance. With ``diameter``
    given, ``lower_bound_`` holds for the true laws with probability 1 - delta although rho was
    learnt on the same rows, and is far below what is likely: nothing better can be said of all
    laws of that diameter. For a test take `sliced_wasserstein_test` with
    ``projections="adaptive"``.

    Parameters
    ----------
    order
        r >= 1.
    regularisation
        c: the price of leaving the uniform law. 0 learns without a price (and ends at nearly one
        direction).
    diameter
        D, a bound on the distance of any two points that q or p can produce, in the unit of the
        data; known beforehand (from the range of each column), not read off the sample. Without
        it there is no bound.
    delta
        Probability with which the bound may fail.
    n_projections
        Fresh draws of the learnt law for the distance and the bound.
    random_state
        Seed of the draws.

    Attributes
    ----------
    distance_
        SW_r of the samples over the learnt law, in the unit of the data.
    lower_bound_
        For SW_r of the true laws over the same law of directions; ``None`` without ``diameter``,
        0 where it says nothing.
    direction_, kappa_, kl_
        Location (unit length; its sign means nothing), concentration, KL to the uniform law.
    bound_
        The terms, as `SliceBound`; ``None`` without ``diameter``.
    status_
        What to do next.

    Notes
    -----
    Cost: O(10^4 n (d + log n)) time on at most 2,048 rows a side, O(L n log n) on all rows.
    Held by: tests/distance/test_sliced_adaptive.py::test_bound_holds

    Changed from the paper: the r-th power of D, the bias psi, and the error of finitely many draws
    stand in the bound; the learning's lambda is scaled by the spread of the data, so that the
    learnt law does not depend on their unit; draws come by inversion instead of rejection, so
    that the gradient by the concentration is exact. Only von Mises-Fisher laws are learnt.

    References
    ----------
    .. [M322] Shedding a PAC-Bayesian Light on Adaptive Sliced-Wasserstein Distances. Ohana, 2023,
       arXiv 2206.03230.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> q, p = rng.random((2000, 5)) / 4, rng.random((2000, 5)) / 4
    >>> p[:, 2] += 0.75
    >>> found = AdaptiveSlicedWasserstein(order=1, diameter=5**0.5, random_state=0).fit(q=q, p=p)
    >>> int(np.abs(found.direction_).argmax()), 0 < found.lower_bound_ < 0.75
    (2, True)
    """

    def __init__(
        self,
        *,
        order: float = 2.0,
        regularisation: float = REGULARISATION,
        diameter: float | None = None,
        delta: float = 0.05,
        n_projections: int = 1000,
        random_state: RandomState = None,
    ) -> None:
        self.order = order
        self.regularisation = regularisation
        self.diameter = diameter
        self.delta = delta
        self.n_projections = n_projections
        self.random_state = random_state

    def fit(self, q: np.ndarray, p: np.ndarray) -> AdaptiveSlicedWasserstein:
        """Learn the law of directions, and bound what it finds.

        Parameters
        ----------
        q, p
            Samples, shapes (n_q, d) and (n_p, d), independent rows.

        Returns
        -------
        AdaptiveSlicedWasserstein
            This object.

        Raises
        ------
        DataError
            Values are not finite, columns do not match, a side has fewer than two rows, or rows
            lie further apart than ``diameter``.
        OptionError
            A number outside its range.
        """
        check_options(self.order, self.n_projections, None)
        if not 0.0 < self.delta < 1.0:
            raise OptionError(f"delta is {self.delta}; expected a number between 0 and 1")
        if not (self.regularisation >= 0 and math.isfinite(self.regularisation)):
            raise OptionError(
                f"regularisation is {self.regularisation}; expected a finite number, not negative"
            )
        if self.diameter is not None and not (self.diameter > 0 and math.isfinite(self.diameter)):
            raise OptionError(f"diameter is {self.diameter}; expected a positive finite number")
        slices, scale = prepare(q, p, self.order)
        for side, size in (("q", slices.n), ("p", slices.m)):
            if size < 2:
                raise DataError(f"{side} has 1 row; expected at least 2")
        rng = as_generator(self.random_state)
        with one_thread_each():
            law, settled = learn_law(
                slices,
                kappa=None,
                price=learning_price(slices, self.regularisation),
                n_directions=_LEARNING_DIRECTIONS,
                rng=rng,
            )
            draws = law.draw(self.n_projections, rng)
            costs = slices.costs(draws)
        self.direction_, self.kappa_, self.kl_ = law.location, law.kappa, law.kl
        self.n_q_, self.n_p_, self.n_features_in_ = slices.n, slices.m, slices.d
        self.distance_ = scale * float(costs.mean()) ** (1.0 / self.order)
        self.bound_ = self.lower_bound_ = None
        if self.diameter is not None:
            reach = self.diameter / scale
            _check_diameter(slices, draws, reach, self.diameter)
            # in units of D^r the terms know no scale
            self.bound_ = _bound(
                costs / reach**self.order, law.kl, slices, self.delta, self.diameter
            )
            self.lower_bound_ = max(self.bound_.lower, 0.0) ** (1.0 / self.order)
        self.status_ = self._status(settled)
        return self

    def _status(self, settled: bool) -> str:
        parts = []
        if self.bound_ is None:
            parts.append("no lower bound without the diameter of the support; give diameter=")
        elif self.bound_.lower <= 0:
            parts.append(
                "the lower bound says nothing at these sizes; sliced_wasserstein_test with "
                "projections='adaptive' says whether the difference is real"
            )
        if not settled:
            parts.append("the search had not ended: a better law may exist")
        return "; ".join(parts)

    def __repr__(self) -> str:
        text = f"AdaptiveSlicedWasserstein(order={self.order:g})"
        if hasattr(self, "distance_"):
            text += (
                f", fitted: distance {self.distance_:.4g} from {self.n_q_:,} rows of q and "
                f"{self.n_p_:,} rows of p"
            )
            if self.lower_bound_ is not None:
                text += f", at least {self.lower_bound_:.4g} at {100 * (1 - self.delta):g} %"
        return text


def _check_diameter(slices: Slices, draws: np.ndarray, reach: float, diameter: float) -> None:
    """Refuse a diameter that these rows contradict (along the draws, or from the first row)."""
    from_first = max(
        float(np.linalg.norm(side - slices.q[0], axis=1).max()) for side in (slices.q, slices.p)
    )
    widest = from_first
    for theta in draws:
        x, y = slices.q @ theta, slices.p @ theta
        widest = max(widest, float(max(x.max(), y.max()) - min(x.min(), y.min())))
    if widest > reach * (1 + 1e-9):
        raise DataError(
            f"diameter is {diameter:g}, but rows lie {widest / reach * diameter:g} apart; "
            "give a bound that holds for all rows that q or p can produce"
        )


def _bound(
    costs: np.ndarray, kl: float, slices: Slices, delta: float, diameter: float
) -> SliceBound:
    """The bound from costs in units of D^r, in the unit of the data to the r."""
    order = slices.order
    per_row = 1.0 / slices.n + 1.0 / slices.m
    of_draws = _DRAWS_SHARE * delta
    of_each = (delta - of_draws) / len(_BOUND_LAMBDAS)
    lambdas = _BOUND_LAMBDAS * math.sqrt(2.0 / per_row)
    complexity = (kl - math.log(of_each)) / lambdas
    concentration = lambdas * per_row / 8.0
    best = int(np.argmin(complexity + concentration))
    bias = 0.5 * order * (1.0 / math.sqrt(slices.n) + 1.0 / math.sqrt(slices.m))
    cost, draws = float(costs.mean()), 0.0
    if len(costs) > 1 and slices.d > 1:
        log = math.log(2.0 / of_draws)
        draws = math.sqrt(2.0 * float(costs.var(ddof=1)) * log / len(costs))
        draws += 7.0 * log / (3.0 * (len(costs) - 1))
    elif slices.d > 1:
        draws = cost  # a single draw bounds nothing
    unit = diameter**order
    terms = [cost, float(complexity[best]), float(concentration[best]), bias, draws]
    lower = terms[0] - sum(terms[1:])
    return SliceBound(*(unit * term for term in terms), lower=unit * lower)
