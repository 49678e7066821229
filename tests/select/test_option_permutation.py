import itertools

import numpy as np
import pytest
from scipy.stats import binom
from tests.select.language_model import CharacterModel
from tests.select.pools import genres

from dpdq.errors import DataError, OptionError
from dpdq.select import exchangeable_options, option_permutation_test, option_scores


def test_valid_under_the_null():
    """Scores exchangeable over orders, 12 items: over 2,000 draws the share of p <= alpha stays
    within its binomial bound, at sizes that 12 coins of 1/24 can take. Coarse scores tie often."""
    rng = np.random.default_rng(0)
    for coarse, ties in ((False, "conservative"), (True, "conservative"), (True, "random")):
        pvalues, flags = [], 0
        for _ in range(2000):
            scores = rng.normal(size=(12, 24))
            if coarse:
                scores = np.round(scores)
            result = option_permutation_test(scores, ties=ties, random_state=rng)
            pvalues.append(result.pvalue)
            flags += result.n_flagged
        for alpha in (0.1, 0.05, 0.01):
            assert (np.array(pvalues) <= alpha).sum() <= binom.isf(1e-7, 2000, alpha)
        if ties == "random" or not coarse:  # exactly 1/24
            assert binom.ppf(1e-7, 24_000, 1 / 24) <= flags <= binom.isf(1e-7, 24_000, 1 / 24)


def test_pvalue_is_the_binomial_tail():
    scores = np.tile(-np.arange(6.0), (30, 1))
    scores[4:, 0] = -9.0
    result = option_permutation_test(scores)
    assert result.n_flagged == 4
    assert result.pvalue == pytest.approx(binom.sf(3, 30, 1 / 6))
    assert result.ranks.tolist() == [1] * 4 + [6] * 26
    assert option_permutation_test(-scores[:4]).pvalue == 1.0


def test_items_of_different_sizes_by_enumeration():
    chances = [1 / 2, 1 / 6, 1 / 24, 1 / 6]
    scores = [np.zeros(k) for k in (2, 6, 24, 6)]
    for item in (0, 2):
        scores[item][0] = 1.0
    law = np.zeros(5)
    for coins in itertools.product([0, 1], repeat=4):
        law[sum(coins)] += np.prod([c if x else 1 - c for c, x in zip(chances, coins, strict=True)])
    result = option_permutation_test(scores)
    assert result.n_flagged == 2
    assert result.pvalue == pytest.approx(law[2:].sum())
    assert result.expected == pytest.approx(sum(chances))


def items_of(rng, n, words):
    return (
        [f"Question {k}: {' '.join(rng.choice(words, 5))}?" for k in range(n)],
        [[" ".join(rng.choice(words, 2)) for _ in range(4)] for _ in range(n)],
    )


def test_finds_memorised_items():
    """A character model of real text with and without 40 items of which half were planted."""
    rng = np.random.default_rng(1)
    reference = genres()["reference"][:300]
    words = sorted({w for text in reference for w in text.split() if w.isalpha() and len(w) > 4})
    questions, options = items_of(rng, 40, words)
    planted = [
        f"{question} A) {own[0]} B) {own[1]} C) {own[2]} D) {own[3]}"
        for question, own in zip(questions, options, strict=True)
    ]
    results = []
    for extra in (planted[:20] * 3, []):
        model = CharacterModel(reference + extra, order=7, strength=0.5)

        def log_prob(question, order, model=model):
            letters = [f"{letter}) {text}" for letter, text in zip("ABCD", order, strict=True)]
            return model.log_prob(f"{question} " + " ".join(letters))

        scores = option_scores(questions, options, log_prob)
        assert {len(row) for row in scores} == {24}
        results.append(option_permutation_test(scores))
    seen, clean = results
    assert seen.pvalue < 1e-9
    assert seen.flagged[:20].mean() > 0.8
    assert seen.share_seen.low > 0.2
    assert seen.share_seen.high < 0.8
    assert clean.pvalue > 1e-4  # one in ten thousand, and the seed is fixed
    assert clean.n_flagged <= 7
    few = option_scores(questions, options, log_prob, max_orders=5, random_state=0)
    assert {len(row) for row in few} == {5}
    full = option_scores(questions, options, log_prob)
    assert all(a[0] == b[0] and set(a) <= set(b) for a, b in zip(few, full, strict=True))


def test_items_with_a_natural_order_are_dropped():
    drop = [
        ["1", "2", "3", "4"],
        ["3", "1", "2", "4"],  # the set counts, not the order
        ["5 km", "10 km", "12.5 km"],
        ["$1,000", "$20", "-3"],
        ["red", "blue", "All of the above"],
        ["red", "blue", "none of these"],
        ["red", "blue", "both A and B"],
        ["red", "blue", "I and II only"],
        ["red", "Red ", "blue"],
    ]
    keep = [
        ["red", "blue", "a tree"],
        ["Carbon 14 decays in rock", "The 2 poles attract", "Iron rusts", "Ice floats"],
        ["he went above", "she ran", "they sat"],
    ]
    assert not exchangeable_options(drop).any()
    assert exchangeable_options(keep).all()
    rng = np.random.default_rng(0)
    for own in drop + keep:
        mixed = [own[i] for i in rng.permutation(len(own))]
        assert exchangeable_options([own])[0] == exchangeable_options([mixed])[0]


def test_what_is_refused():
    with pytest.raises(DataError, match="scores hold no item"):
        option_permutation_test([])
    with pytest.raises(DataError, match="item 1: expected two or more scores without NaN"):
        option_permutation_test([[1.0, 2.0], [np.nan, 1.0]])
    with pytest.raises(OptionError, match="Unknown ties 'no'. Choose one of 'conservative'"):
        option_permutation_test([[1.0, 2.0]], ties="no")
    with pytest.raises(DataError, match="1 questions, and options of 0 items"):
        option_scores(["?"], [], lambda q, o: 0.0)
    with pytest.raises(DataError, match="item 0 has 1 options"):
        option_scores(["?"], [["a"]], lambda q, o: 0.0)
    with pytest.raises(OptionError, match="max_orders is 1"):
        option_scores(["?"], [["a", "b"]], lambda q, o: 0.0, max_orders=1)
