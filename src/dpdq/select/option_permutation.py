"""Did a model see a benchmark's questions, with the options in their published order?

A multiple-choice item has n options in some order. If the order was drawn at random when the item
was written, and the model never saw it, no order is special: scored by the model, the published
order is the best of all n! with probability 1/n!. A model that read the page finds the published
order likelier than the others. Over independent items the number of "published order is best" is

    K ~ Binomial(items, 1/n!)     under "never seen",

which makes an exact test of the whole benchmark; one item alone cannot be told (1/24 at best for
four options).

What the definition does not fix: exchangeability. Numbers, "all of the above", "both A and B"
have a natural order that any model prefers; `exchangeable_options` finds them, and
such items must be dropped. Orders that were set by hand (the right answer seldom first) break it
as well; a clean model's flags on the same items show how far.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dpdq._random import RandomState, as_generator
from dpdq.errors import DataError, OptionError
from dpdq.results import Estimate, Result

__all__ = [
    "OptionPermutationResult",
    "exchangeable_options",
    "option_permutation_test",
    "option_scores",
]

_REFERRING = re.compile(
    r"\b(all|none|any|both|neither|either|two|three|some|each)\b[\w\s]*\b(above|below|these|those|"
    r"following|options?|choices?|answers?)\b|\b(both|neither|either)\b|"
    r"^\W*(all|none|both|neither)\W*$|\b[a-e]\s*(and|or|&)\s*[a-e]\b|\b(i{1,3}|iv|v)\s+(and|only)\b",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"[-+\u2212]?\d[\d,]*\.?\d*(?:[eE][-+]?\d+)?")


@dataclasses.dataclass(frozen=True, repr=False)
class OptionPermutationResult(Result):
    """Whether published option orders are preferred more often than chance allows.

    Attributes
    ----------
    pvalue
        P(K >= flagged) under exchangeable orders.
    n_items, n_flagged
        Items, and those whose published order is the best.
    expected
        Flags expected by chance.
    share_seen
        Share of items that the model prefers beyond chance, a lower bound of the share seen:
        (K/n - c) / (1 - c), c the chance of a flag, with its exact interval.
    flagged
        Which items, shape (n_items,); each alone proves nothing.
    ranks
        Rank of the published order of each item, 1 the best, ties counting against it.
    status
        The outcome in a sentence.
    """

    pvalue: float
    n_items: int
    n_flagged: int
    expected: float
    share_seen: Estimate
    flagged: np.ndarray
    ranks: np.ndarray
    status: str = ""


def option_permutation_test(
    scores: np.ndarray | Sequence[Any],
    *,
    ties: str = "conservative",
    random_state: RandomState = None,
) -> OptionPermutationResult:
    """Test that a model does not know the published order of options.

        flag_i = [score of the published order of item i is the largest],   K = sum_i flag_i
        p = P(Binomial(items, 1/n!) >= K)

    Exact at every number of items when published orders are exchangeable; where numbers of orders
    differ between items, K is a sum of unequal coins and its law is convolved. With some of the
    orders drawn at random in place of all n! the chance of a flag is one over their number.

    Misses a model that was trained on shuffled options, and a few seen items among many. Items
    with a natural order make it reject for any model: drop them by `exchangeable_options`.

    Parameters
    ----------
    scores
        Log-probability of the options in each order, the published order first: shape
        (n_items, n_orders), or one array an item.
    ties
        ``"conservative"``: a tie at the top is no flag. ``"random"``: it is one with probability
        one over the number tied, which makes the chance exactly 1/n!.
    random_state
        Seed for ``"random"``.

    Returns
    -------
    OptionPermutationResult
        The p-value, the flags, and a lower bound on the share of items seen.

    Raises
    ------
    DataError
        No item, an item with fewer than two orders, or NaN.
    OptionError
        Unknown rule for ties.

    Notes
    -----
    Cost: O(items n!) time; O(items^2) where numbers of orders differ.
    Held by: tests/select/test_option_permutation.py::test_valid_under_the_null

    Changed from the paper: conservative ties, an exact p-value over items and the share with its
    interval; the paper's scenario for shuffled orders (outliers by isolation forest) is not here.

    References
    ----------
    .. [M201] Training on the Benchmark Is Not All You Need. Ni, 2024, arXiv 2409.01790.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> scores = rng.normal(size=(50, 24))
    >>> scores[:10, 0] += 9.0
    >>> found = option_permutation_test(scores)
    >>> found.n_flagged, found.pvalue < 1e-4
    (11, True)
    """
    if ties not in ("conservative", "random"):
        raise OptionError(f"Unknown ties {ties!r}. Choose one of 'conservative', 'random'.")
    rows = [np.asarray(row, dtype=np.float64) for row in scores]
    if not rows:
        raise DataError("scores hold no item")
    for item, row in enumerate(rows):
        if row.ndim != 1 or len(row) < 2 or np.isnan(row).any():
            raise DataError(
                f"item {item}: expected two or more scores without NaN, the published order first"
            )
    rng = as_generator(random_state)
    top = np.array([row.max() for row in rows])
    tied = np.array([int((row == best).sum()) for row, best in zip(rows, top, strict=True)])
    best = np.array([row[0] for row in rows]) == top
    if ties == "conservative":
        flagged = best & (tied == 1)
    else:
        flagged = best & (rng.random(len(rows)) * tied < 1.0)
    ranks = np.array([int((row >= row[0]).sum()) for row in rows])
    chance = np.array([1.0 / len(row) for row in rows])
    k, n = int(flagged.sum()), len(rows)
    pvalue = _tail(chance, k)
    share = _share_seen(k, n, float(chance.mean()))
    told = f"{k} of {n} items prefer the published order, {chance.sum():.3g} expected by chance"
    if pvalue <= 0.05:
        status = told + "; compare with a model that cannot have seen them before accusing"
    else:
        status = told + "; training on shuffled options would not be found"
    return OptionPermutationResult(pvalue, n, k, float(chance.sum()), share, flagged, ranks, status)


def _tail(chance: np.ndarray, k: int) -> float:
    """P(K >= k) of a sum of independent coins."""
    from scipy.special import bdtrc

    n = len(chance)
    if k == 0:
        return 1.0
    if np.ptp(chance) == 0:
        return float(bdtrc(k - 1, n, float(chance[0])))
    law = np.ones(1)
    for share in chance:
        law = np.convolve(law, [1.0 - share, share])
    return float(min(1.0, law[k:].sum()))


def _share_seen(k: int, n: int, chance: float) -> Estimate:
    from scipy.special import betaincinv

    low = float(betaincinv(k, n - k + 1, 0.025)) if k else 0.0
    high = float(betaincinv(k + 1, n - k, 0.975)) if k < n else 1.0
    value, low, high = ((x - chance) / (1 - chance) for x in (k / n, low, high))
    return Estimate(
        value,
        max(0.0, low),
        max(0.0, high),
        method="flags beyond chance; Clopper-Pearson; a lower bound of the share seen",
    )


def option_scores(
    questions: Sequence[Any],
    options: Sequence[Sequence[str]],
    log_prob: Callable[[Any, list[str]], float],
    *,
    max_orders: int | None = None,
    random_state: RandomState = None,
) -> list[np.ndarray]:
    """Score the options of each item in all orders, the published one first.

        scores_i = log p(options in order | question i) for every order

    Score the contents, joined in order, not their letters. The price is n! calls an item: 24 for
    four options, 120 for five; with ``max_orders`` a random draw of the others, and a coarser test.

    Parameters
    ----------
    questions
        Whatever ``log_prob`` takes as its first argument, one an item.
    options
        The options of each item in the published order, two or more.
    log_prob
        Called with a question and its options in an order; the model's log-probability.
    max_orders
        Most orders of an item, the published one among them; default all.
    random_state
        Seed of the draw.

    Returns
    -------
    list
        An array an item, for `option_permutation_test`.

    Raises
    ------
    DataError
        Numbers of questions and options differ, or an item has fewer than two options.
    OptionError
        Fewer than two orders.

    Notes
    -----
    Cost: n! calls of the model an item, or ``max_orders``.
    Held by: tests/select/test_option_permutation.py::test_finds_memorised_items

    References
    ----------
    .. [M201] Training on the Benchmark Is Not All You Need. Ni, 2024, arXiv 2409.01790.

    Examples
    --------
    >>> found = option_scores(["?"], [["a", "b", "c"]], lambda q, order: -len(order[0]))
    >>> found[0].shape
    (6,)
    """
    if len(questions) != len(options):
        raise DataError(f"{len(questions)} questions, and options of {len(options)} items")
    if max_orders is not None and max_orders < 2:
        raise OptionError(f"max_orders is {max_orders}; expected at least 2")
    rng = as_generator(random_state)
    out = []
    for item, (question, own) in enumerate(zip(questions, options, strict=True)):
        if len(own) < 2:
            raise DataError(f"item {item} has {len(own)} options; expected at least 2")
        orders = _orders(len(own), max_orders, rng)
        out.append(np.array([log_prob(question, [own[j] for j in order]) for order in orders]))
    return out


def _orders(n: int, most: int | None, rng: np.random.Generator) -> list[tuple[int, ...]]:
    total = math.factorial(n)
    if most is None or most >= total:
        return list(itertools.permutations(range(n)))  # the first is the identity
    published = tuple(range(n))
    seen = {published}
    orders = [published]
    while len(orders) < most:
        order = tuple(int(j) for j in rng.permutation(n))
        if order not in seen:
            seen.add(order)
            orders.append(order)
    return orders


def exchangeable_options(options: Sequence[Sequence[str]]) -> np.ndarray:
    """Whether no order of an item's options is natural: items to keep for the test.

        drop: options that are numbers (alone or in the same words), options that speak of other
        options ("all of the above", "both A and B"), equal options

    The rule looks at the set of options and never at their order, so that the orders of the items
    that are kept stay exchangeable: dropping only numbers that ascend would leave those that do
    not, in which the published order is too often the best. Meaning (small, medium, large; days of
    the week) is beyond it: look at the flagged items.

    Parameters
    ----------
    options
        The options of each item in the published order.

    Returns
    -------
    ndarray of shape (n_items,)
        True where the item may be kept.

    Notes
    -----
    Cost: O(characters) time.
    Held by: tests/select/test_option_permutation.py::test_items_with_a_natural_order_are_dropped

    References
    ----------
    .. [M201] Training on the Benchmark Is Not All You Need. Ni, 2024, arXiv 2409.01790.

    Examples
    --------
    >>> items = [["4", "8", "15"], ["red", "blue", "a tree"], ["x", "all of the above"]]
    >>> exchangeable_options(items).tolist()
    [False, True, False]
    """
    return np.array([_exchangeable([str(text) for text in own]) for own in options], dtype=bool)


def _exchangeable(options: list[str]) -> bool:
    plain = [" ".join(text.lower().split()) for text in options]
    if len(set(plain)) < len(plain) or any(_REFERRING.search(text) for text in plain):
        return False
    numbers = [len(_NUMBER.findall(text)) for text in plain]
    around = {_NUMBER.sub("#", text) for text in plain}
    return not (min(numbers) > 0 and (len(around) == 1 or max(map(len, around)) <= 6))
