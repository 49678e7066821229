"""Sampling error of draws from a known law over finitely many outcomes, and two ways out of it.

    target   pi(a), or pi(a | s) in a context s          what should have come
    drawn    c_a of n                                    what came: c_a / n is not pi(a)

The plain mean of values Y uses the shares that came. Their error is known, since pi is, and need
not be suffered:

    weights   w_i = pi(a_i | s_i) / (c_{s a} / c_s)      the frequencies that came stand in for the
                                                         law that drew, whatever that was
    drawing   a ~ max(0, (n + 1) pi(a) - c_a)            outcomes that are behind come next

Both remove the part of the variance of Y that lies *between* outcomes; that inside an outcome
stays. The first needs no knowledge of how the data were drawn (it is post-stratification, and
importance sampling with an estimated behaviour), the second needs no weights.

What the definition does not fix: outcomes that never came. Weights cannot make them up: their mass
is reported and the estimate is then about the rest. With few draws an outcome the first way leans
on single rows; with many contexts or outcomes that is every row.

Which one: `SamplingErrorCorrection` for data at hand; `SamplingErrorCorrectingSampler` where you
still choose what is drawn; `outcome_error` for either, to see the distance.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Self

import numpy as np
from scipy.special import ndtri, xlogy

from dpdq._parameters import Parameterised
from dpdq._random import RandomState, as_generator
from dpdq.errors import DataError, NotFittedError, OptionError, OverlapError
from dpdq.results import Estimate, Result
from dpdq.reweight._outcome_laws import Law, laws_by_context
from dpdq.weights import Weights

__all__ = [
    "SamplingError",
    "SamplingErrorCorrectingSampler",
    "SamplingErrorCorrection",
    "outcome_error",
]


@dataclasses.dataclass(frozen=True, repr=False)
class SamplingError(Result):
    """How far the shares that came are from the law that was wanted.

    Attributes
    ----------
    kl
        KL(empirical || target), in nats; None where an outcome came that the target excludes.
    expected_kl
        Of as many independent draws from the target, (K - 1) / (2 n), to first order.
    total_variation
        Half the sum of absolute differences.
    missing
        Target mass of outcomes that never came.
    n
        Draws.
    status
        What it means.
    """

    kl: float | None
    expected_kl: float
    total_variation: float
    missing: float
    n: int
    status: str = ""


def outcome_error(counts: Any, target: Any) -> SamplingError:
    """Distance of the outcomes that came from the law over them.

        KL(c / n || pi) = sum_a c_a / n log(c_a / (n pi_a))

    2 n KL of independent draws is about chi-squared with K - 1 degrees of freedom. Small n hides
    missing outcomes: look at ``missing``.

    Parameters
    ----------
    counts
        Draws of each outcome, shape (K,); or outcome -> draws.
    target
        pi, shape (K,), any scale; or outcome -> share.

    Returns
    -------
    SamplingError
        KL, total variation and missing mass.

    Raises
    ------
    DataError
        No draws, or negative ones.
    OptionError
        A target that is no law, or of other outcomes.

    Notes
    -----
    Cost: O(K) time.
    Held by: tests/reweight/test_sampling_error.py::test_error_by_hand

    References
    ----------
    .. [M065] On-Policy Policy Gradient Reinforcement Learning Without On-Policy Sampling. Corrado,
       2023, arXiv 2311.08290.

    Examples
    --------
    >>> error = outcome_error({"left": 6, "right": 2}, {"left": 0.5, "right": 0.5})
    >>> round(error.kl, 4), error.total_variation, error.missing
    (0.1308, 0.25, 0.0)
    """
    law = Law(target)
    c = law.counted(counts)
    n = float(c.sum())
    if n <= 0 or not (c >= 0).all():
        raise DataError(
            f"counts are {c.tolist()}; give draws of each outcome, 0 or more, not all 0"
        )
    shares = c / n
    outside = bool((shares[law.shares == 0] > 0).any())
    kl = None
    if not outside:
        inside = law.shares > 0
        kl = float(xlogy(shares[inside], shares[inside] / law.shares[inside]).sum())
    distance = 0.5 * float(np.abs(shares - law.shares).sum())
    missing = float(law.shares[c == 0].sum())
    expected = (np.count_nonzero(law.shares) - 1) / (2.0 * n)
    if outside:
        status = "Outcomes came that the target excludes: these draws are from another law."
    elif missing > 0:
        status = f"Outcomes of {100 * missing:.2g} % of the target never came; draw more."
    elif kl is not None and kl > 3 * expected and expected > 0:
        status = "Further from the target than independent draws of it would be."
    elif kl is not None and kl < expected / 3:
        status = "Nearer to the target than independent draws of it would be."
    else:
        status = "As far from the target as independent draws of it are."
    return SamplingError(kl, expected, distance, missing, int(n), status)


class SamplingErrorCorrection(Parameterised):
    """Weights that give every outcome its share of the target, whatever came.

        w_i = pi(a_i | s_i) c_{s_i} / c_{s_i a_i}

    The mean under them is sum_s c_s / n sum_a pi(a | s) mean(Y | s, a). Given the counts its error
    is that of the cells' means only. It beats weights by the *true* law of the draws, pi over
    behaviour, because that law's own sampling error drops out.

    With few draws a cell the weights lean on single rows, and the standard error says less than it
    seems: cells of one row borrow the spread of the others.

    Parameters
    ----------
    target
        pi: outcome -> share; or context -> (outcome -> share).
    by_context
        Whether ``target`` is by context.

    Attributes
    ----------
    weights_
        Mean one, shape (n,): over the draws of a context too, where all its outcomes came.
    missing_
        Share of the target, over the contexts that came, whose outcome never came.
    status_
        What it means.

    Raises
    ------
    DataError
        Draws that do not fit the target.
    OverlapError
        Nothing of the target came.

    Notes
    -----
    Cost: O(n log n) time, O(n) memory.
    Held by: tests/reweight/test_sampling_error.py::test_less_error_than_plain_and_true_weights

    References
    ----------
    .. [M065] On-Policy Policy Gradient Reinforcement Learning Without On-Policy Sampling. Corrado,
       2023, arXiv 2311.08290.
    .. [Hanna2019] Importance Sampling Policy Evaluation with an Estimated Behavior Policy. Hanna,
       2019, ICML.

    Examples
    --------
    >>> correction = SamplingErrorCorrection({"a": 0.5, "b": 0.5}).fit(["a", "a", "a", "b"])
    >>> correction.weights_.round(3)
    array([0.667, 0.667, 0.667, 2.   ])
    >>> correction.estimate([1.0, 2.0, 3.0, 8.0]).estimate
    5.0
    """

    weights_: np.ndarray
    missing_: float
    status_: str

    def __init__(self, target: Mapping[Any, Any], *, by_context: bool = False) -> None:
        self.target = target
        self.by_context = by_context

    def fit(self, outcomes: Any, contexts: Any = None) -> Self:
        """Count what came.

        Parameters
        ----------
        outcomes
            Outcome of each draw, shape (n,).
        contexts
            Context of each draw, shape (n,), where the target is by context.

        Returns
        -------
        Self
            This object.
        """
        laws, drawn, where = laws_by_context(self.target, self.by_context, outcomes, contexts)
        n = len(drawn)
        weights = np.zeros(n)
        cells: list[tuple[np.ndarray, float, int]] = []  # rows, pi, context
        missing = 0.0
        for place, (name, law) in enumerate(laws.items()):
            rows = np.flatnonzero(where == place)
            codes = law.codes(drawn[rows], name)
            counts = np.bincount(codes, minlength=len(law.names))
            missing += float(law.shares[counts == 0].sum()) * len(rows) / n
            for a in np.flatnonzero((counts > 0) & (law.shares > 0)):
                own = rows[codes == a]
                weights[own] = law.shares[a] * len(rows) / counts[a]
                cells.append((own, float(law.shares[a]), place))
        if not cells:
            raise OverlapError("none of the target's outcomes came; draw from its support")
        self._cells, self._where = cells, where
        self._weights = Weights.from_values(weights)
        self.weights_ = np.array(self._weights.values)
        self.missing_ = missing
        alone = sum(len(rows) == 1 for rows, _, _ in cells)
        if missing > 1e-12:
            self.status_ = (
                f"Outcomes of {100 * missing:.2g} % of the target never came: the weights speak of "
                "the rest; draw more."
            )
        elif 2 * alone > len(cells):
            self.status_ = (
                f"{alone} of {len(cells)} cells have one draw: the standard error leans on the "
                "others; draw more, or merge outcomes."
            )
        else:
            self.status_ = "Every outcome of the target came; its share is exact."
        return self

    def log_ratio(self) -> np.ndarray:
        """Log of the weights, the estimated log dP/dQ at the draws.

        Returns
        -------
        ndarray of shape (n,)
            -infinity where the target is 0.
        """
        self._check()
        return np.array(self._weights.log)

    def estimate(self, y: Any, *, level: float = 0.95) -> Estimate:
        """Estimate the mean of Y under the target.

            sum_s c_s / n sum_a pi(a | s) mean(Y | s, a)
            variance:  sum_{s,a} (c_s / n)^2 pi^2 var(Y | s, a) / c_{s a}  +  var over contexts / n

        The standard error knows that the frequencies were counted. Contexts are draws of their
        own; with one context the second part is 0.

        Parameters
        ----------
        y
            Value of each draw, shape (n,).
        level
            Coverage of the interval.

        Returns
        -------
        Estimate
            Without an interval where every cell has one draw.

        Raises
        ------
        DataError
            A wrong length or values that are not finite where the weight is positive.
        OptionError
            A level outside 0 to 1.
        """
        self._check()
        if not 0 < level < 1:
            raise OptionError(f"level is {level}; give a number between 0 and 1")
        values = np.asarray(y, dtype=np.float64)
        if values.shape != self.weights_.shape:
            raise DataError(f"y has shape {values.shape}; expected {self.weights_.shape}")
        if not np.isfinite(values[self.weights_ > 0]).all():
            raise DataError("y holds values that are not finite on rows with weight")
        n_contexts = int(self._where.max()) + 1
        n = len(values)
        share = np.bincount(self._where, minlength=n_contexts) / n
        totals, mass = np.zeros(n_contexts), np.zeros(n_contexts)
        inside = 0.0
        spreads = [values[rows].var(ddof=1) for rows, _, _ in self._cells if len(rows) > 1]
        common = float(np.mean(spreads)) if spreads else math.nan
        for rows, pi, place in self._cells:
            totals[place] += pi * values[rows].mean()
            mass[place] += pi
            spread = float(values[rows].var(ddof=1)) if len(rows) > 1 else common
            inside += share[place] ** 2 * pi**2 * spread / len(rows)
        total = float(share @ mass)  # below one where outcomes are missing
        mean = float(share @ totals) / total
        means = np.divide(totals, mass, out=np.full(n_contexts, mean), where=mass > 0)
        between = float(share @ np.square(means - mean)) / n if n_contexts > 1 else 0.0
        error = math.sqrt(inside / total**2 + between) if spreads else None
        reason = self.status_ if self.missing_ > 1e-12 else ""
        method = "post-stratified by the frequencies that came"
        if error is None:
            return Estimate(mean, level=level, method=method, reason="every cell has one draw")
        width = float(ndtri(0.5 + level / 2)) * error
        return Estimate(mean, mean - width, mean + width, error, level, method, reason)

    def _check(self) -> None:
        if "weights_" not in vars(self):
            raise NotFittedError("SamplingErrorCorrection is not fitted; call fit(outcomes) first")


class SamplingErrorCorrectingSampler:
    """Draws whose shares stay by the target: what is behind comes next.

        P(next = a) proportional to max(0, (n + 1) pi(a) - c_a),   c_a of n draws so far

    After n draws c_a < n pi(a) + 1 for every outcome that was not ahead at the start, so that the
    error of the shares falls as 1/n where independent draws have 1/sqrt(n). Draws depend on each
    other, and the standard error of independent ones does not hold for their mean (it is too
    large); use `SamplingErrorCorrection.estimate` on them. The values must not depend on the order
    of the draws.

    The paper learns such a behaviour by steps on a policy network (a clipped surrogate that
    raises what is under-sampled); for finitely many outcomes this is its target in closed form.

    Parameters
    ----------
    target
        pi: outcome -> share; or context -> (outcome -> share).
    by_context
        Whether ``target`` is by context; counts are then kept for each.
    strength
        Share of draws made this way, 0 to 1; the others are independent draws of the target.
    random_state
        Seed of the draws.

    Attributes
    ----------
    counts
        Context -> draws so far of each outcome; the one context is None without contexts.

    Raises
    ------
    OptionError
        A target that is no law, or a strength outside 0 to 1.

    Notes
    -----
    Cost: O(K) time a draw.
    Held by: tests/reweight/test_sampling_error.py::test_counts_stay_by_the_target

    References
    ----------
    .. [M065] On-Policy Policy Gradient Reinforcement Learning Without On-Policy Sampling. Corrado,
       2023, arXiv 2311.08290.

    Examples
    --------
    >>> sampler = SamplingErrorCorrectingSampler({"a": 0.75, "b": 0.25}, random_state=0)
    >>> drawn = sampler.draw(40)
    >>> drawn.count("a"), drawn.count("b")
    (30, 10)
    """

    def __init__(
        self,
        target: Mapping[Any, Any],
        *,
        by_context: bool = False,
        strength: float = 1.0,
        random_state: RandomState = None,
    ) -> None:
        if not 0 <= strength <= 1:
            raise OptionError(f"strength is {strength!r}; give a number from 0 to 1")
        self.strength = float(strength)
        self._laws = {s: Law(law) for s, law in (target if by_context else {None: target}).items()}
        self.counts = {s: np.zeros(len(law.names)) for s, law in self._laws.items()}
        self._rng = as_generator(random_state)

    def probabilities(self, context: Hashable = None) -> dict[Any, float]:
        """Law of the next draw.

        Parameters
        ----------
        context
            Where it will be made.

        Returns
        -------
        dict
            Outcome -> probability: the behaviour, to be noted where importance weights are wanted.
        """
        law = self._law(context)
        return dict(zip(law.names, self._next(law, self.counts[context]).tolist(), strict=True))

    def observe(self, outcome: Any, context: Hashable = None) -> None:
        """Count a draw that was made elsewhere, such as one already in the data.

        Parameters
        ----------
        outcome, context
            What came, and where.
        """
        law = self._law(context)
        self.counts[context][law.codes(np.array([outcome]), context)[0]] += 1

    def draw(self, n: int | None = None, *, contexts: Sequence[Any] | None = None) -> list[Any]:
        """Draw outcomes one after another and count them.

        Parameters
        ----------
        n
            How many, without contexts.
        contexts
            The context of each draw, in order.

        Returns
        -------
        list
            Outcomes.

        Raises
        ------
        OptionError
            Both or neither of ``n`` and ``contexts``, or an unknown context.
        """
        if (n is None) == (contexts is None):
            raise OptionError("give n, or the contexts of the draws, one of them")
        drawn = []
        for context in [None] * int(n or 0) if contexts is None else list(contexts):
            law, counts = self._law(context), self.counts[context]
            ends = np.cumsum(self._next(law, counts))
            place = int(np.searchsorted(ends, self._rng.random() * ends[-1], side="right"))
            counts[place] += 1
            drawn.append(law.names[place])
        return drawn

    def _law(self, context: Any) -> Law:
        if context not in self._laws:
            raise OptionError(f"context {context!r} has no target")
        return self._laws[context]

    def _next(self, law: Law, counts: np.ndarray) -> np.ndarray:
        behind = np.maximum((counts.sum() + 1.0) * law.shares - counts, 0.0)
        return self.strength * behind / behind.sum() + (1.0 - self.strength) * law.shares
