"""Do a model's scores tell members from non-members, and is that about membership?

q are the non-members, p the members, and the score is any of `dpdq.select.membership`. The effect
is an AUC and the share of members found at a small false-positive rate, which is what an accusation
needs; the p-value permutes labels. All of it stands behind the guard (`dpdq.select.guard`): where
the two sides differ without the model, the p-value says nothing about membership and is not given.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from dpdq._random import RandomState, as_generator, child_seed
from dpdq.distance.permutation import permutation_design, permutation_pvalue
from dpdq.distance.roc import auc_interval, placements
from dpdq.errors import OptionError
from dpdq.results import Estimate, Result
from dpdq.select.guard import BlindGuard, blind_guard

__all__ = ["MembershipResult", "membership_test"]


@dataclasses.dataclass(frozen=True, repr=False)
class MembershipResult(Result):
    """Whether scores tell members from non-members, and whether that is about membership.

    Attributes
    ----------
    auc
        Share of pairs in which the member scores higher, with its interval.
    tpr
        Share of members found at each false-positive rate of ``fpr``, with intervals.
    fpr
        The false-positive rates.
    pvalue
        Of "scores of members are not larger", by permutation; ``None`` where the evidence is
        refused.
    evidence
        ``"sound"``, ``"discounted"`` or ``"refused"`` by the guard; ``"unguarded"`` without texts.
    guard
        What the guard found.
    n_members, n_nonmembers
        Texts on each side.
    status
        The outcome in a sentence.
    """

    auc: Estimate
    tpr: tuple[Estimate, ...]
    fpr: tuple[float, ...]
    pvalue: float | None
    evidence: str
    guard: BlindGuard | None
    n_members: int
    n_nonmembers: int
    status: str = ""


def membership_test(
    scores_members: np.ndarray,
    scores_nonmembers: np.ndarray,
    *,
    blind_members: Any = None,
    blind_nonmembers: Any = None,
    fpr: Sequence[float] = (0.01, 0.05),
    n_permutations: int = 999,
    units_members: np.ndarray | None = None,
    units_nonmembers: np.ndarray | None = None,
    level: float = 0.05,
    random_state: RandomState = None,
) -> MembershipResult:
    """Test that a model's scores are larger for members, after asking whether they must be.

        AUC = P(s(member) > s(non-member)) + 1/2 P(=),   TPR(f) = P(s(member) > c_f)

    c_f is the score that a share f of the non-members exceeds. The p-value permutes labels and is
    exact when members and non-members are draws of one law: whether they are is what the guard
    tests, on the texts (or dates, lengths, features) alone, before the scores are looked at. Where
    they are not, the p-value says nothing about membership and is not given.

    Parameters
    ----------
    scores_members, scores_nonmembers
        Any score of `dpdq.select.membership`, larger for members; shapes (n,) and (m,).
    blind_members, blind_nonmembers
        Texts, or features of shapes (n, d) and (m, d), that the guard looks at.
    fpr
        False-positive rates of the table.
    n_permutations
        Permutations of the p-value and of the guard's test.
    units_members, units_nonmembers
        Integer unit of each text, such as its document: units are permuted as wholes.
    level
        Of the guard's test; intervals cover 95 %.
    random_state
        Seed.

    Returns
    -------
    MembershipResult
        AUC, TPR, p-value, and what the evidence is worth.

    Raises
    ------
    DataError
        A side is empty, or scores are missing.
    OptionError
        Only one side of the blind data, a rate outside (0, 1).

    Notes
    -----
    Cost: O((n + m) B) time and memory, and the guard's.
    Held by: tests/select/test_membership.py::test_pvalues_are_valid

    References
    ----------
    .. [Das2024] Blind Baselines Beat Membership Inference Attacks for Foundation Models. Das,
       2024, arXiv 2406.16201.
    .. [Carlini2022] Membership Inference Attacks From First Principles. Carlini, 2022, IEEE S&P.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> found = membership_test(rng.normal(1, 1, 200), rng.normal(0, 1, 200), random_state=0)
    >>> found.evidence, found.pvalue, found.auc.low > 0.7
    ('unguarded', 0.001, True)
    """
    for rate in fpr:
        if not 0.0 < rate < 1.0:
            raise OptionError(f"fpr holds {rate}; expected rates between 0 and 1")
    if (blind_members is None) != (blind_nonmembers is None):
        raise OptionError("blind_members and blind_nonmembers go together; give both or neither")
    rng = as_generator(random_state)
    high, low = np.asarray(scores_members, float), np.asarray(scores_nonmembers, float)
    guard = None
    if blind_members is not None:
        guard = blind_guard(
            blind_members,
            blind_nonmembers,
            scores_members=high,
            scores_nonmembers=low,
            n_permutations=n_permutations,
            units_members=units_members,
            units_nonmembers=units_nonmembers,
            level=level,
            random_state=child_seed(rng),
        )
    area = auc_interval(low, high, units_q=units_nonmembers, units_p=units_members)
    evidence = "unguarded" if guard is None else guard.evidence
    pvalue = None
    if evidence in ("sound", "unguarded"):
        pvalue = _auc_pvalue(low, high, n_permutations, units_nonmembers, units_members, rng)
    if guard is not None:
        status = guard.status
    else:
        status = (
            "nothing was checked but the scores; give the texts as blind_members and "
            "blind_nonmembers, since a difference of date or topic looks like membership"
        )
    return MembershipResult(
        auc=area,
        tpr=tuple(true_positive_rate(low, high, rate) for rate in fpr),
        fpr=tuple(fpr),
        pvalue=pvalue,
        evidence=evidence,
        guard=guard,
        n_members=len(high),
        n_nonmembers=len(low),
        status=status,
    )


def _auc_pvalue(
    low: np.ndarray,
    high: np.ndarray,
    n_permutations: int,
    units_q: np.ndarray | None,
    units_p: np.ndarray | None,
    rng: np.random.Generator,
) -> float:
    scores = np.concatenate([low, high])
    design = permutation_design(
        len(low),
        len(high),
        n_permutations=n_permutations,
        units_q=units_q,
        units_p=units_p,
        rng=rng,
    )
    ranks = len(scores) * placements(scores, scores) + 0.5
    sums = np.add.reduceat(ranks[design.order], design.starts[:-1])
    called_q = design.labels @ design.sizes.astype(np.float64)
    called_p = len(scores) - called_q
    above = sums.sum() - design.labels @ sums - called_p * (called_p + 1) / 2
    pairs = called_q * called_p
    return permutation_pvalue(
        np.divide(above, pairs, out=np.full(len(pairs), 0.5), where=pairs > 0)
    )


def true_positive_rate(
    low: np.ndarray, high: np.ndarray, rate: float, level: float = 0.95
) -> Estimate:
    """Share of members above the non-members' upper quantile, with a conservative interval.

    Half of the error goes to the threshold (order statistics of the non-members), half to the
    share (Clopper and Pearson), so that the interval covers at every size; with too few
    non-members for the rate it says so by reaching down to 0.
    """
    from scipy.special import bdtr, betaincinv

    m, n = len(low), len(high)
    ordered = np.sort(low)[::-1]
    tail = (1.0 - level) / 4

    def above(k: int) -> int:
        """Members above the (k + 1)-th largest non-member."""
        if k < 0:
            return 0
        return n if k >= m else int((high > ordered[k]).sum())

    # The number of non-members above the true threshold is Binomial(m, rate).
    chances = bdtr(np.arange(m + 1), m, rate)
    fewest = int(np.searchsorted(chances, tail))
    most = int(np.searchsorted(chances, 1 - tail))
    k_low = above(fewest - 1)
    k_high = n if most >= m else int((high >= ordered[most]).sum())
    bottom = float(betaincinv(k_low, n - k_low + 1, tail)) if k_low else 0.0
    top = float(betaincinv(k_high + 1, n - k_high, 1 - tail)) if k_high < n else 1.0
    return Estimate(
        above(math.floor(rate * m)) / n,
        bottom,
        top,
        level=level,
        method=f"TPR at FPR {rate:g}; order statistics and Clopper-Pearson",
    )
