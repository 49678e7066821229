import math
import pickle

import numpy as np
import pytest
from tests.select.pools import genres

from dpdq.errors import DataError, InputTypeError, OptionError
from dpdq.select import LikelihoodRatio, likelihood_ratio, select_rows, top_k

MARKS = 128


class CharacterModel:
    """Characters given the last few: counts, each order smoothed towards the next lower."""

    def __init__(self, texts, order, prior=4.0):
        self.order, self.prior = order, prior
        self.tables = []
        for k in range(order + 1):
            grams = np.concatenate([self._codes(text, k) for text in texts])
            self.tables.append((np.unique(grams, return_counts=True),
                                np.unique(grams // MARKS, return_counts=True)))  # fmt: skip

    def _codes(self, text, k):
        """Base-128 numbers of each character with the k before it."""
        marks = np.frombuffer(("\n" * self.order + text).encode("ascii", "replace"), np.uint8)
        codes = np.zeros(len(text), dtype=np.int64)
        for back in range(k, -1, -1):
            start = self.order - back
            codes = codes * MARKS + marks[start : start + len(text)]
        return codes

    @staticmethod
    def _count(table, codes):
        keys, counts = table
        place = np.minimum(np.searchsorted(keys, codes), len(keys) - 1)
        return np.where(keys[place] == codes, counts[place], 0)

    def log_probabilities(self, text):
        chance = np.full(len(text), 1 / MARKS)
        for k, (grams, contexts) in enumerate(self.tables):
            codes = self._codes(text, k)
            seen = self._count(contexts, codes // MARKS)
            chance = (self._count(grams, codes) + self.prior * chance) / (seen + self.prior)
        return np.log(chance)

    def __call__(self, texts):
        return [self.log_probabilities(text) for text in texts]

    def likelihoods(self, texts):
        return np.array([self.log_probabilities(text).sum() for text in texts])


def junk(rng, n):
    """Half noise, half trivial repetition, 400 characters each."""
    printable = np.array([chr(i) for i in range(32, 127)])
    noise = ["".join(rng.choice(printable, 400)) for _ in range(n // 2)]
    words = ["-", "=", "the ", "0, ", "None ", "* ", "self.", "# "]
    repeats = [(str(rng.choice(words)) * 400)[:400] for _ in range(n - n // 2)]
    return noise + repeats


def test_chosen_half_trains_a_better_student():
    """Python's reference manual with as much junk: teacher a 5-gram model of 400 texts of it,
    reference a bigram model of 60. A student (4-grams) of the half with the largest ratio foretells
    unseen texts better than one of a random half, and of the halves with the highest likelihood
    under teacher or reference, in 5 pools: mean gain above six standard errors."""
    texts = [t for t in genres()["reference"] if len(t) >= 300]
    gains = []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(texts))
        known, fresh, clean = (
            [texts[i] for i in part] for part in np.split(order[:900], [400, 600])
        )
        bad = junk(rng, len(clean))
        pool = clean + bad
        teacher, reference = CharacterModel(known, 4), CharacterModel(known[:60], 1)
        k = len(pool) // 2
        by_teacher, by_reference = ([each.mean() for each in m(pool)] for m in (teacher, reference))
        rows = [
            top_k(LikelihoodRatio(teacher, reference).utility(pool), n=k).rows,
            rng.permutation(len(pool))[:k],
            top_k(by_teacher, n=k).rows,
            top_k(by_reference, n=k).rows,
        ]
        student = [CharacterModel([pool[i] for i in some], 3) for some in rows]
        score = [np.mean(np.concatenate(each(fresh))) for each in student]
        gains.append([score[0] - other for other in score[1:]])
        assert (rows[0] < len(clean)).mean() > 0.85
    gains = np.array(gains)
    low = gains.mean(axis=0) - 6 * gains.std(axis=0, ddof=1) / math.sqrt(len(gains))
    assert (low > 0).all(), gains.round(3)


def test_forms_of_the_input_agree():
    rng = np.random.default_rng(0)
    size = rng.integers(1, 9, 20)
    t, r = ([-rng.exponential(size=n) for n in size] for _ in range(2))
    expected = np.array([(a.sum() - b.sum()) / len(a) for a, b in zip(t, r, strict=True)])
    np.testing.assert_allclose(likelihood_ratio(t, r), expected)
    mask = np.arange(8) < size[:, None]
    padded_t, padded_r = np.full((20, 8), -7.0), np.full((20, 8), np.nan)
    padded_t[mask], padded_r[mask] = np.concatenate(t), np.concatenate(r)
    np.testing.assert_allclose(likelihood_ratio(padded_t, padded_r, mask=mask), expected)
    sums_t, sums_r = (np.array([each.sum() for each in side]) for side in (t, r))
    np.testing.assert_allclose(likelihood_ratio(sums_t, sums_r, lengths=size), expected)
    np.testing.assert_allclose(likelihood_ratio(sums_t, r), expected)
    whole = likelihood_ratio(sums_t, sums_r, length_power=0)
    np.testing.assert_allclose(whole, expected * size)
    np.testing.assert_allclose(likelihood_ratio(r, t), -expected)
    np.testing.assert_allclose(likelihood_ratio(t, r, length_power=0.5), whole / np.sqrt(size))


def test_no_shared_tokens_are_needed():
    """A teacher of single characters and one of pairs that agree give the same utility."""
    texts = [t for t in genres()["reference"] if len(t) == 400][:30]
    teacher, reference = CharacterModel(texts[:20], 3), CharacterModel(texts[20:], 1)
    pairs = [each.reshape(-1, 2).sum(axis=1) for each in teacher(texts)]
    one, two = (likelihood_ratio(side, reference(texts)) for side in (teacher(texts), pairs))
    np.testing.assert_allclose(one, two)


def test_empty_and_impossible_texts():
    out = likelihood_ratio([[np.nan], [-1.0], [-np.inf]], [[np.nan], [-2.0], [-3.0]])
    assert out.tolist() == [-np.inf, 1.0, -np.inf]
    with pytest.raises(DataError, match="probability zero at row 0, where teacher does not"):
        likelihood_ratio([[-1.0]], [[-np.inf]])


def test_models_as_functions():
    texts = [t for t in genres()["reference"] if len(t) >= 300][:60]
    teacher, reference = CharacterModel(texts[:40], 3), CharacterModel(texts[:9], 1)
    model = LikelihoodRatio(teacher, reference).fit()
    expected = likelihood_ratio(teacher(texts), reference(texts))
    np.testing.assert_array_equal(model.utility(texts), expected)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).utility(texts), expected)
    whole = LikelihoodRatio(teacher.likelihoods, reference.likelihoods)
    ascii_rows = [i for i, t in enumerate(texts) if t.isascii()]
    np.testing.assert_allclose(whole.utility(texts)[ascii_rows], expected[ascii_rows])
    found = select_rows({"text": texts}, {"text": texts[:1]}, budget=10, utility=model)
    assert set(found.selection.rows) == set(top_k(expected, n=10).rows)
    assert model.price(texts).comparisons == 120
    assert model.utility([]).shape == (0,)


@pytest.mark.parametrize(
    "call, error, sentence",
    [
        (lambda: likelihood_ratio([-1.0], [-2.0]), OptionError, "do not tell their lengths"),
        (lambda: likelihood_ratio([-1.0], [-2.0, -1.0], lengths=[1]), DataError, "1 texts and"),
        (lambda: likelihood_ratio([[2.0]], [[1.0]]), DataError, "not losses"),
        (lambda: likelihood_ratio([np.nan], [-1.0], lengths=[1]), DataError, "teacher holds NaN"),
        (lambda: likelihood_ratio([-1.0], [-1.0], lengths=[-1]), DataError, "lengths holds"),
        (lambda: likelihood_ratio([-1.0], [-1.0], lengths=[[1]]), DataError, "lengths has shape"),
        (lambda: likelihood_ratio([-1.0], [-1.0], mask=[[1]]), OptionError, "mask is for token"),
        (lambda: likelihood_ratio([[-1.0]], [[-1.0]], mask=[1]), DataError, "mask has shape"),
        (lambda: likelihood_ratio([[np.nan]], [[-1.0]], mask=[[1]]), DataError, "mask counts"),
        (lambda: likelihood_ratio([[-1.0], [-1.0, -2.0]], [-1.0, -2.0], mask=[[1]]), OptionError,
         "sequence of vectors"),
        (lambda: likelihood_ratio(np.ones((1, 1, 1)), [-1.0]), DataError, "has shape"),
        (lambda: LikelihoodRatio(1, len).fit(), InputTypeError, "teacher is of type int"),
    ],
)  # fmt: skip
def test_bad_input(call, error, sentence):
    with pytest.raises(error, match=sentence):
        call()
