"""A test that may be looked at after every row: betting on which row of a pair is q's.

Rows of q and of p arrive one after the other and are paired in the order in which they come. Under
q = p a pair (x, y) is as likely as (y, x), whatever came before. So someone who sees the two rows
without their names and says "the first is q's" with probability b, and the second with 1 - b, must
not become rich: with even odds the wealth

    W_T = prod_{t <= T} 2 b_t,    b_t = P(order of pair t | unordered pair, past)

has expectation at most 1 at every T, and by Ville's inequality P(sup_T W_T >= 1 / alpha) <= alpha.
W is an *e-value*, evidence against q = p that may be read at any time; 1 / max W is a p-value that
stays valid however often one looks and whenever one stops. No other p-value of this room does.

Under q != p the best bet is b = sigmoid(log r(y) - log r(x)): the better the log ratio is known,
the faster wealth grows, at best by E[log 2b] a pair. It is learned here from the pairs before, as a
logistic regression on differences of features, updated by online Newton steps, and the bet is
shrunk by what is not known yet (the Bayesian predictive probability), so that it starts at 1/2 and
little is lost while there is nothing to see. Features are the columns, squashed on a scale that is
learned from the first pairs (which are not bet on), and random Fourier features at four bandwidths;
each with three prior strengths. The wealth of all of these bettors, from equal shares, is W. None
of it can spoil validity: only the power depends on how well it is done.

Betting with a kernel witness and a bounded payoff (Shekhar and Ramdas 2023) is the same idea with
another bet; the sigmoid is the bet of largest growth when the witness is the log ratio.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator
from itertools import zip_longest
from typing import Any

import numpy as np

from dpdq._random import RandomState, as_generator
from dpdq._threads import one_thread_each
from dpdq.distance._bettors import Bettors
from dpdq.errors import DataError, OptionError
from dpdq.kernels import check_points
from dpdq.results import Estimate, Result, TestResult

__all__ = ["SequentialState", "SequentialTest", "sequential_test"]

FIRST_PAIRS = 16  # pairs that set the scale and are not bet on
STEPS = 10  # the bettors learn again after each 10 % more pairs
MOST_AT_ONCE = 2048  # pairs that are bet on before they learn again
MIXTURE = 10.0  # variance at which the confidence sequence is tightest, over about 8


@dataclasses.dataclass(frozen=True, repr=False)
class SequentialState(Result):
    """What is known so far.

    Attributes
    ----------
    evalue
        The wealth W now.
    pvalue
        1 / the largest wealth so far, at most 1: valid at any time, and never grows.
    rejected
        Whether the wealth ever reached 1 / alpha.
    rejected_at
        Pairs after which it first did.
    n_pairs
        Pairs so far; the first 16 set the scale.
    waiting_q, waiting_p
        Rows that wait for a partner.
    effect
        Mean AUC of the bets: the share of pairs whose order the bettor got right, as it learned,
        with a confidence sequence, an interval that holds at all times together.
    status
        What to do next.
    """

    evalue: float
    pvalue: float
    rejected: bool
    rejected_at: int | None
    n_pairs: int
    waiting_q: int
    waiting_p: int
    effect: Estimate
    status: str = ""


class SequentialTest:
    """Test that q and p are one law while their rows arrive, looking as often as one likes.

        P(the wealth ever reaches 1 / alpha) <= alpha under q = p

    Feed batches to `update` until ``rejected``, or for ever. It holds for any law, discrete or with
    heavy tails, in any dimension and for any number of looks. It assumes that, given the past, the
    two rows of a pair are as likely one way round as the other, as rows drawn independently from
    one law are; that law itself may change with time. Rows that come in groups break that.

    It is fed pairs: rows of the longer side wait for partners. Compared with `mmd_test` at one size
    fixed in advance it needs more rows for the same power; compared with a fixed kernel test that
    is repeated at ten looks with Bonferroni's correction about as many, fewer for changes of shape
    and more for shifts in many columns (`bench/output/levels.txt`). After a long quiet stretch a
    change is found later than at once, since wealth was spent and habits were learned: begin anew
    where that matters.

    Parameters
    ----------
    alpha
        Level of ``rejected``.
    random_state
        Seed of the random features.

    Attributes
    ----------
    state_
        The `SequentialState` after the last update.
    n_features_in_
        Columns.

    Raises
    ------
    OptionError
        ``alpha`` is not between 0 and 1.

    Notes
    -----
    Cost: O(n d + n D^2 / 10 + D^3 log n) time, O(D^2) memory; D = 80 features, 15 bettors.
    Held by: tests/distance/test_sequential.py::test_level_while_looking_at_every_pair

    References
    ----------
    .. [Shekhar2023] Nonparametric Two-Sample Testing by Betting. Shekhar, 2023, IEEE Transactions
       on Information Theory 70, arXiv 2112.09162.
    .. [Ville1939] Etude critique de la notion de collectif. Ville, 1939, Gauthier-Villars.
    .. [Howard2021] Time-uniform, nonparametric, nonasymptotic confidence sequences. Howard, 2021,
       Annals of Statistics 49.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> test = SequentialTest(random_state=0)
    >>> while not test.update(rng.normal(size=20), rng.normal(1.0, 1.0, size=25)).rejected:
    ...     pass
    >>> test.state_.n_pairs <= 200, test.state_.waiting_p > 0
    (True, True)
    """

    def __init__(self, alpha: float = 0.05, *, random_state: RandomState = None) -> None:
        self.alpha = alpha
        self.random_state = random_state

    def update(self, q: Any = None, p: Any = None) -> SequentialState:
        """Take in more rows of either side and look.

        Parameters
        ----------
        q, p
            New rows, shapes (n_q, d) and (n_p, d), in the order in which they came; vectors are
            one column. Either may be None or empty, and the numbers of rows may differ.

        Returns
        -------
        SequentialState
            After all pairs that are complete; every pair in between was looked at.

        Raises
        ------
        DataError
            Values are not finite, or the columns are not those of the rows before.
        OptionError
            ``alpha`` is not between 0 and 1.
        """
        if not hasattr(self, "_waiting"):
            if not 0.0 < self.alpha < 1.0:
                raise OptionError(f"alpha is {self.alpha}; expected a number between 0 and 1")
            self._waiting: dict[str, list[np.ndarray]] = {"q": [], "p": []}
            self._rng = as_generator(self.random_state)
            self._bettors: Bettors | None = None
            self._n_pairs, self._right = 0, 0.0
            self._log_wealth, self._log_largest = 0.0, 0.0
            self._rejected_at: int | None = None
        new = {side: self._checked(rows, side) for side, rows in (("q", q), ("p", p))}
        for side, rows in new.items():
            if rows is not None:
                self._waiting[side].append(rows)
        with one_thread_each():
            self._bet()
        self.state_ = self._state()
        return self.state_

    def _checked(self, rows: Any, side: str) -> np.ndarray | None:
        if rows is None or np.size(rows) == 0:
            return None
        points = check_points(rows, side)
        expected = getattr(self, "n_features_in_", points.shape[1])
        if points.shape[1] != expected:
            raise DataError(
                f"{side} has {points.shape[1]} features; the rows before had {expected}"
            )
        self.n_features_in_ = points.shape[1]
        return points

    def _count(self, side: str) -> int:
        return sum(len(rows) for rows in self._waiting[side])

    def _bet(self) -> None:
        n = min(self._count("q"), self._count("p"))
        if n == 0 or (self._bettors is None and n < FIRST_PAIRS):
            return
        pair = []
        for side in "qp":
            rows = np.concatenate(self._waiting[side])
            pair.append(rows[:n])
            self._waiting[side] = [rows[n:]] if len(rows) > n else []
        first = 0
        if self._bettors is None:
            first = FIRST_PAIRS
            scale_rows = np.vstack([pair[0][:first], pair[1][:first]])
            self._bettors = Bettors(scale_rows, self._rng)
            self._n_pairs = first
        while first < n:
            last = min(n, first + min(max(1, self._n_pairs // STEPS), MOST_AT_ONCE))
            chance = self._bettors.bet(pair[0][first:last], pair[1][first:last])
            self._settle(chance)
            first = last

    def _settle(self, chance: np.ndarray) -> None:
        """Take in log probabilities that were bet on the true order of pairs, shape (n,)."""
        path = self._log_wealth + np.cumsum(math.log(2.0) + chance)
        over = np.flatnonzero(path >= -math.log(self.alpha) - 1e-12)
        if len(over) and self._rejected_at is None:
            self._rejected_at = self._n_pairs + int(over[0]) + 1
        self._log_wealth = float(path[-1])
        self._log_largest = max(self._log_largest, float(path.max()))
        gain = math.log(2.0) + chance  # a bet of exactly one half says nothing
        self._right += float((gain > 1e-9).sum()) + 0.5 * float((np.abs(gain) <= 1e-9).sum())
        self._n_pairs += len(chance)

    def _state(self) -> SequentialState:
        waiting = self._count("q"), self._count("p")
        n_bets = self._n_pairs - (FIRST_PAIRS if self._bettors is not None else 0)
        rejected = self._rejected_at is not None
        if rejected:
            status = (
                f"q and p differ: found after {self._rejected_at} pairs at level {self.alpha:g}"
            )
        elif self._bettors is None:
            status = f"the first {FIRST_PAIRS} pairs set the scale; go on"
        else:
            status = "no difference is shown yet; go on for as long as you like"
        if max(waiting) > max(100, self._n_pairs):
            side = "q" if waiting[0] > waiting[1] else "p"
            status += f"; {max(waiting)} rows of {side} wait for partners"
        return SequentialState(
            evalue=math.exp(min(self._log_wealth, 700.0)),
            pvalue=math.exp(-min(self._log_largest, 700.0)),
            rejected=rejected,
            rejected_at=self._rejected_at,
            n_pairs=self._n_pairs,
            waiting_q=waiting[0],
            waiting_p=waiting[1],
            effect=_mean_auc(self._right, n_bets),
            status=status,
        )

    def __repr__(self) -> str:
        if not hasattr(self, "state_"):
            return f"SequentialTest(alpha={self.alpha:g})"
        return (
            f"SequentialTest(alpha={self.alpha:g}, {self.state_.n_pairs} pairs, "
            f"e-value {self.state_.evalue:.4g}{', rejected' if self.state_.rejected else ''})"
        )


def _reach(n_bets: int, level: float) -> float:
    """Half width of the confidence sequence: Robbins' normal mixture for terms in [0, 1]."""
    variance = n_bets / 4.0 + MIXTURE
    return math.sqrt(variance * math.log(variance / (MIXTURE * (1.0 - level) ** 2))) / n_bets


def _mean_auc(right: float, n_bets: int, level: float = 0.95) -> Estimate:
    method = "mean AUC of the bets, confidence sequence"
    if n_bets == 0:
        return Estimate(None, level=level, method=method, reason="no bets yet")
    value, reach = right / n_bets, _reach(n_bets, level)
    return Estimate(value, max(0.0, value - reach), min(1.0, value + reach), None, level, method)


def sequential_test(
    q: Any,
    p: Any,
    *,
    alpha: float = 0.05,
    random_state: RandomState = None,
) -> TestResult:
    """Test that q and p are one law, valid however often one looks while rows arrive.

        pvalue = 1 / max_T W_T,    W_T = prod_{t <= T} 2 b_t

    with b_t the probability that a bettor, who knows only the pairs before, gave to the true order
    of pair t (see `SequentialTest`, which takes batches by hand). P(pvalue <= alpha) <= alpha under
    q = p at every time at once. Where all rows are there and one look is enough, `mmd_test` has
    more power.

    Rows are paired in the order in which they are given, so give them in the order in which they
    came, or shuffled. Rows beyond the shorter side are not used; the status says how many.

    Parameters
    ----------
    q, p
        Rows in order, shapes (n_q, d) and (n_p, d), or iterators over batches of rows. From
        iterators batches are drawn until the test rejects, or until both are exhausted.
    alpha
        Level at which ``details["rejected_at"]`` was judged and iterators are left.
    random_state
        Seed of the random features.

    Returns
    -------
    TestResult
        ``statistic`` is the largest e-value; ``effect`` the mean AUC of the bets with a 95 %
        confidence sequence; ``detectable`` the mean AUC whose sequence would lie above 1/2 with
        80 % probability at this number of pairs; ``details`` holds ``evalue`` (the last),
        ``rejected``, ``rejected_at``, ``n_pairs``, ``waiting_q`` and ``waiting_p``.

    Raises
    ------
    DataError
        Values are not finite, or columns do not match.
    OptionError
        ``alpha`` is not between 0 and 1.

    Notes
    -----
    Cost: O(n d + n D^2 / 10 + D^3 log n) time, O(D^2) memory beside the rows; D = 80 features.
    Held by: tests/distance/test_sequential.py::test_level_while_looking_at_every_pair

    References
    ----------
    .. [Shekhar2023] Nonparametric Two-Sample Testing by Betting. Shekhar, 2023, IEEE Transactions
       on Information Theory 70, arXiv 2112.09162.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> q, p = rng.normal(size=(400, 2)), rng.normal(size=(400, 2)) + [0.8, 0.0]
    >>> sequential_test(q=q, p=p, random_state=0).pvalue < 0.001
    True
    """
    test = SequentialTest(alpha, random_state=random_state)
    streams = isinstance(q, Iterator), isinstance(p, Iterator)
    if any(streams):
        batches: Iterable[tuple[Any, Any]] = zip_longest(
            q if streams[0] else iter([q]), p if streams[1] else iter([p])
        )
    else:
        batches = [(q, p)]
    state = test.update()
    for batch_q, batch_p in batches:
        state = test.update(batch_q, batch_p)
        if state.rejected and any(streams):
            break
    n_bets = max(state.n_pairs - FIRST_PAIRS, 0)
    return TestResult(
        statistic=1.0 / state.pvalue,
        pvalue=state.pvalue,
        method="e-value of bets on the order of pairs, valid at any time",
        n_q=state.n_pairs,
        n_p=state.n_pairs,
        effect=state.effect,
        detectable=(
            min(1.0, 0.5 + _reach(n_bets, 0.95) + 0.8416 * 0.5 / math.sqrt(n_bets))
            if n_bets
            else None
        ),
        status=state.status,
        details={
            "evalue": state.evalue,
            "rejected": state.rejected,
            "rejected_at": state.rejected_at,
            "n_pairs": state.n_pairs,
            "waiting_q": state.waiting_q,
            "waiting_p": state.waiting_p,
        },
    )
