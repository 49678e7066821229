import pickle

import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from tests.select.pools import genres, packages, pool_of
from tests.select.test_ngrams import plain_grams

from dpdq.errors import DataError, InputTypeError, NotFittedError, OptionError
from dpdq.ratio import LogisticRatio, NearestNeighborRatio
from dpdq.select import (
    EmbeddingRatio,
    NGramRatio,
    TextClassifierRatio,
    conditional_utility,
    select_rows,
    top_k,
)

CODE = [f"for key in range({i}): print(key, {i * i})" for i in range(60)]
PROSE = [f"The cat sat on mat number {i}, and thought of {i * i} mice." for i in range(60)]


def test_scores_by_a_second_route():
    """TF-IDF by regular expression and dictionaries, weights by scikit-learn on dense rows."""
    pool, target = [*PROSE[:20], *CODE[:20], "a b a"], CODE[40:]
    model = TextClassifierRatio(bits=22, C=2.0).fit(pool, target)
    grams = [plain_grams(text, 2) for text in pool + target]
    names = {gram: i for i, gram in enumerate(dict.fromkeys(g for each in grams for g in each))}
    counts = np.zeros((len(grams), len(names)))
    for row, each in enumerate(grams):
        for gram in each:
            counts[row, names[gram]] += 1
    having = (counts[: len(pool)] > 0).sum(axis=0)
    rows = (counts > 0) * (1 + np.log(np.maximum(counts, 1)))
    rows *= np.log((len(pool) + 1) / (having + 1))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    labels = np.repeat([0, 1], [len(pool), len(target)])
    weights = np.where(labels == 1, 1.0, len(target) / len(pool))
    dense = LogisticRegression(C=2.0, tol=1e-6, max_iter=5000)
    expected = dense.fit(rows, labels, sample_weight=weights).decision_function(rows)
    np.testing.assert_allclose(model.utility(pool + target), expected, atol=2e-2)


def test_finds_hidden_targets_in_real_pools(shared_data):
    """From 100 texts; precision among the best half of the target's own number."""
    table = pq.read_table(shared_data / "sentiment_3domains.parquet").to_pydict()
    reviews = {}
    for domain, text in zip(table["domain"], table["text"], strict=True):
        reviews.setdefault(domain, []).append(text)
    cases = [(kinds, name) for kinds in (genres(), reviews) for name in kinds]
    cases += [(packages(), "asyncio")]
    ours, grams = [], []
    for kinds, target in cases:
        pool, own, texts = pool_of(kinds, target)
        k = int(own.sum()) // 2
        for model, out in ((TextClassifierRatio(), ours), (NGramRatio(), grams)):
            out.append(own[top_k(model.fit(pool, texts).utility(pool), n=k).rows].mean())
    assert min(ours) > 0.7
    assert np.mean(ours) > np.mean(grams) + 0.03


def test_length_is_not_what_it_scores():
    kinds = genres()
    rng = np.random.default_rng(0)
    whole = "".join(kinds["reference"][:600])
    cuts = np.cumsum(np.exp(rng.uniform(np.log(100), np.log(3000), 500)).astype(int))
    cuts = cuts[cuts < len(whole)]
    texts = [whole[a:b] for a, b in zip(cuts[:-1], cuts[1:], strict=True)]
    model = TextClassifierRatio().fit(kinds["docstrings"] + texts, kinds["reference"][-100:])
    size = np.array([len(text) for text in texts])
    ours = conditional_utility(model.utility(texts), {"length": size}).explained
    sums = NGramRatio(length_power=0).fit(kinds["docstrings"] + texts, kinds["reference"][-100:])
    theirs = conditional_utility(sums.utility(texts), {"length": size}).explained
    assert ours < theirs / 2


def test_target_texts_in_the_pool_are_left_out():
    one = TextClassifierRatio().fit(PROSE + CODE[:30], CODE[30:])
    two = TextClassifierRatio().fit(CODE[30:] + PROSE + CODE[30:] + CODE[:30], CODE[30:])
    np.testing.assert_array_equal(one.coef_, two.coef_)
    with pytest.raises(DataError, match="every text of q stands in p"):
        TextClassifierRatio().fit(CODE[:5], CODE)


def test_pool_is_sampled_empty_texts_and_pickle():
    model = TextClassifierRatio(max_texts=50).fit([*PROSE, *CODE, "", None], [*CODE[40:], ""])
    assert model.n_q_ <= 50
    assert model.n_p_ == 20
    out = model.utility(["", None, CODE[0], "  "])
    assert out[[0, 1, 3]].tolist() == [-np.inf] * 3
    assert np.isfinite(out[2])
    other = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(other.utility(CODE), model.utility(CODE))
    assert model.utility([]).shape == (0,)
    order = np.random.default_rng(0).permutation(60)
    shuffled = model.utility([CODE[i] for i in order])
    np.testing.assert_array_equal(shuffled, model.utility(CODE)[order])


def test_as_the_pool_job_uses_it():
    found = select_rows(
        {"text": [*CODE[:50], *PROSE[:50]]}, {"text": CODE[50:]}, budget=40, utility="classifier"
    )
    assert found.selection.rows.max() < 50


@pytest.mark.parametrize("ratio", [None, NearestNeighborRatio()])
def test_embeddings_of_digits(ratio):
    """A pool of all digits, 50 threes as the target: threes come first."""
    images, digit = load_digits(return_X_y=True)
    rng = np.random.default_rng(0)
    threes = rng.permutation(np.flatnonzero(digit == 3))[:50]
    rest = np.setdiff1d(np.arange(len(digit)), threes)
    model = EmbeddingRatio(ratio).fit(images[rest], images[threes])
    chosen = top_k(model.utility(images[rest]), n=100)
    assert (digit[rest][chosen.rows] == 3).mean() > 0.9


def test_embedding_ratio_is_its_estimator():
    rng = np.random.default_rng(1)
    q, p = rng.normal(size=(300, 3)), rng.normal(1, 1, size=(80, 3))
    alone = LogisticRatio(ridge=0.1).fit(q=q, p=p).log_ratio(q)
    model = EmbeddingRatio(LogisticRatio(ridge=0.1))
    np.testing.assert_array_equal(model.fit(q, p).utility(q), alone)
    np.testing.assert_array_equal(model.fit(np.vstack([q, p[:40]]), p).utility(q), alone)
    few = EmbeddingRatio(LogisticRatio(ridge=0.1), max_rows=100).fit(q, p)
    assert few.ratio_.n_q_ == 100
    with pytest.raises(DataError, match="every row of q stands in p"):
        model.fit(p[:10], p)


@pytest.mark.parametrize(
    "call, error, sentence",
    [
        (lambda: TextClassifierRatio(0).fit(["a"], ["b"]), OptionError, "n is 0; expected 1 to 8"),
        (lambda: TextClassifierRatio(bits=4).fit(["a"], ["b"]), OptionError, "bits is 4"),
        (lambda: TextClassifierRatio(C=0).fit(["a"], ["b"]), OptionError, "C is 0"),
        (lambda: TextClassifierRatio(max_texts=0).fit(["a"], ["b"]), OptionError, "max_texts is 0"),
        (lambda: TextClassifierRatio().fit(["a"], [" "]), DataError, "p holds no n-gram"),
        (lambda: TextClassifierRatio().fit([], ["a"]), DataError, "q holds no n-gram"),
        (lambda: TextClassifierRatio().fit("a", ["b"]), InputTypeError, "q is one string"),
        (lambda: TextClassifierRatio().utility(["a"]), NotFittedError, "is not fitted"),
        (lambda: EmbeddingRatio().utility([[1.0]]), NotFittedError, "is not fitted"),
        (lambda: EmbeddingRatio(max_rows=1).fit([[1.0]], [[1.0]]), OptionError, "max_rows is 1"),
        (lambda: EmbeddingRatio().fit(np.ones((3, 2)), np.ones((3, 1))), DataError, "column"),
    ],
)
def test_bad_input(call, error, sentence):
    with pytest.raises(error, match=sentence):
        call()
