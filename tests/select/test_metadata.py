import math
import pickle
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from tests.select.pools import genres

from dpdq.engine import Engine
from dpdq.errors import DataError, InputTypeError, NotFittedError, OptionError
from dpdq.select import MetadataBalance, top_k
from dpdq.select.metadata import CountEntries, Entries

TOKEN = re.compile(r"[0-9a-z_\x80-\U0010ffff]+|[^0-9a-z_\x80-\U0010ffff\x00-\x20\x7f]+")
ENTRIES = ["the", "class", "return value", "for", "import", "base class", "a new", "None", "raise"]


def plain_matches(entries, texts):
    def tokens(text):
        return TOKEN.findall(re.sub("[A-Z]", lambda m: m.group().lower(), text))

    out = []
    for row, text in enumerate(texts):
        have = tokens(text)
        for number, entry in enumerate(entries):
            own = tokens(entry)
            if any(have[i : i + len(own)] == own for i in range(len(have) - len(own) + 1)):
                out.append((row, number))
    return out


@given(st.lists(st.text(st.sampled_from("ab B.,_é"), max_size=30), max_size=8))
def test_matches_are_those_of_a_search(texts):
    entries = ["a", "ab", "a b", "b", ".", "a , b", "é", "b_ a"]
    rows, named = Entries(entries).matches(pa.array(texts, pa.large_string()))
    assert list(zip(rows.tolist(), named.tolist(), strict=True)) == plain_matches(entries, texts)


def test_counts_and_probabilities_on_real_text():
    texts = genres()["reference"]
    model = MetadataBalance(ENTRIES, cap=50).fit(texts)
    found = plain_matches(ENTRIES, texts)
    counts = np.bincount([e for _, e in found], minlength=len(ENTRIES))
    assert model.counts_.tolist() == counts.tolist()
    assert counts.min() < 50 < counts.max()
    np.testing.assert_allclose(model.probabilities_, np.minimum(1, 50 / counts))
    kept = np.ones(len(texts))
    for row, entry in found:
        kept[row] *= 1 - model.probabilities_[entry]
    expected = np.where(np.isin(range(len(texts)), [r for r, _ in found]), 1 - kept, -np.inf)
    np.testing.assert_allclose(model.utility(texts), expected, atol=1e-12)
    other = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(other.utility(texts), model.utility(texts))


def test_draws_follow_the_probabilities():
    """1,000 seeds: every row's rate lies within six standard errors (chance 1e-6 in all)."""
    texts = genres()["reference"][:100]
    model = MetadataBalance(ENTRIES, cap=10).fit(texts)
    chance = np.maximum(model.utility(texts), 0)
    times = 1000
    rate = sum(model.select(texts, random_state=seed).mask for seed in range(times)) / times
    error = np.sqrt(chance * (1 - chance) / times)
    assert (np.abs(rate - chance) <= 6 * error + 1e-12).all()


def test_a_larger_cap_keeps_more_of_the_same():
    texts = genres()["reference"]
    few = MetadataBalance(ENTRIES, cap=20).fit(texts).select(texts, random_state=3)
    model = MetadataBalance(ENTRIES, cap=80).fit(texts)
    many = model.select(texts, random_state=3)
    assert set(few.rows) < set(many.rows)
    assert "name none of 9 entries" in many.status
    assert many.trail().column("reason").to_pylist().count("names no entry") == int(
        (model.utility(texts) == -np.inf).sum()
    )
    model.cap = model.cap_for(texts, 300)
    again = model.fit(texts).utility(texts)
    assert abs(again[again > 0].sum() - 300) < 1e-6
    everything = MetadataBalance(ENTRIES, cap=10**9).fit(texts)
    assert everything.select(texts).rows.tolist() == np.flatnonzero(again > 0).tolist()


@pytest.mark.parametrize("engine", [Engine(), Engine("pool", n_jobs=2)], ids=["local", "pool"])
def test_counts_of_parts_add_up(engine, tmp_path):
    texts = genres()["reference"]
    table = pa.table({"text": texts, "row": range(len(texts))})
    pq.write_table(table, tmp_path / "pool.parquet", row_group_size=300)
    one = MetadataBalance(ENTRIES, cap=50).fit(texts)
    two = MetadataBalance(ENTRIES, cap=50).fit_sources(tmp_path / "pool.parquet", engine=engine)
    np.testing.assert_array_equal(one.counts_, two.counts_)
    np.testing.assert_array_equal(one.utility(texts), two.utility(texts))
    job = CountEntries(ENTRIES, ["text"])
    halves = [job.map(job.init(), part, 0) for part in table.to_batches(700)]
    np.testing.assert_array_equal(job.finish(job.merge(job.init(), sum(halves))), one.counts_)


def zipf_pool(rng, digit):
    """Rows whose digits have frequencies 1, 1/2, 1/3, ..., and noisy captions: the digit's word in
    nine of ten, a second word at random in two of ten, and a word that is no entry."""
    words = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    rank = rng.permutation(10)
    rows = np.concatenate([
        rng.permutation(np.flatnonzero(digit == d))[: int(130 / (rank[d] + 1))] for d in range(10)
    ])  # fmt: skip
    texts = []
    for row in rows:
        named = [words[digit[row]]] if rng.random() < 0.9 else []
        named += [words[rng.integers(10)]] if rng.random() < 0.2 else []
        texts.append("a photo of " + " and ".join(named))
    return rows, texts, words


def test_balances_a_pool_of_rare_and_frequent_digits():
    """Digits in Zipf proportions, captions with errors, 120 of 380 rows: accuracy on balanced
    unseen digits, 16 draws: balanced 0.74, at random 0.48, by inverse frequency of the first entry
    0.76. The balanced draw beats the random one by more than six standard errors and ties with the
    inverse frequency (-0.016, standard error 0.014), which it was said to beat."""
    images, digit = load_digits(return_X_y=True)
    found = []
    for seed in range(16):
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(digit))
        fresh, rest = order[:400], order[400:]
        rows, texts, words = zipf_pool(rng, digit[rest])
        model = MetadataBalance(words).fit(texts)
        model.cap = model.cap_for(texts, 120)
        model.fit(texts)
        ours = model.select(texts, random_state=seed).rows
        k = len(ours)
        first = [next((words.index(w) for w in t.split() if w in words), -1) for t in texts]
        inverse = np.array([0.0 if e < 0 else 1 / model.counts_[e] for e in first])
        drawn = rng.choice(len(texts), k, replace=False, p=inverse / inverse.sum())
        scores = []
        for some in (ours, rng.permutation(len(texts))[:k], drawn):
            at = rest[rows[some]]
            fit = LogisticRegression(C=0.1, max_iter=1000).fit(images[at] / 16, digit[at])
            hit = fit.predict(images[fresh] / 16) == digit[fresh]
            scores.append(np.mean([hit[digit[fresh] == d].mean() for d in range(10)]))
        found.append(scores)
    gain = np.array(found)[:, :1] - np.array(found)[:, 1:]
    mean, error = gain.mean(axis=0), gain.std(axis=0, ddof=1) / math.sqrt(16)
    assert mean[0] > 6 * error[0], (np.mean(found, axis=0), mean, error)
    assert abs(mean[1]) < 0.05, (np.mean(found, axis=0), mean, error)


def test_as_a_utility():
    texts = ["a dog"] * 90 + ["A cat!"] * 9 + ["cat and dog", "catalogue"]
    model = MetadataBalance(["dog", "cat"], cap=5).fit(texts, p=None)
    chosen = top_k(model.utility(texts), n=10)
    assert chosen.rows.min() >= 90
    assert 100 not in top_k(model.utility(texts), fraction=1.0).rows
    assert model.utility([]).shape == (0,)


@pytest.mark.parametrize(
    "call, error, sentence",
    [
        (lambda: MetadataBalance("a").fit(["a"]), InputTypeError, "entries is one string"),
        (lambda: MetadataBalance([]).fit(["a"]), DataError, "entries is empty"),
        (lambda: MetadataBalance(["a", " "]).fit(["a"]), DataError, "number 1.* has no word"),
        (lambda: MetadataBalance(["a " * 17]).fit(["a"]), DataError, "over 16 tokens"),
        (lambda: MetadataBalance(["b", "a", "A"]).fit(["a"]), DataError,
         "entries 1 and 2 are the same words"),
        (lambda: MetadataBalance(["a"], cap=0).fit(["a"]), OptionError, "cap is 0"),
        (lambda: MetadataBalance(["a"]).fit(["a"]).cap_for(["a", "b"], 2), OptionError,
         "at most the 1 that name an entry"),
        (lambda: MetadataBalance(["a"]).utility(["a"]), NotFittedError, "is not fitted"),
    ],
)  # fmt: skip
def test_bad_input(call, error, sentence):
    with pytest.raises(error, match=sentence):
        call()
