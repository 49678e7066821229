import json
import re
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.select.pools import genres, packages, pool_of

from dpdq.data import open_source
from dpdq.engine import Engine
from dpdq.errors import DataError, InputTypeError, NotFittedError, OptionError
from dpdq.select import (
    DSIR,
    CompressionAlignment,
    NGramRatio,
    TextClassifierRatio,
    gumbel_top_k,
    top_k,
)
from dpdq.select._grams import gram_blocks

TOKEN = re.compile(rb"[0-9a-z_\x80-\xff]+|[^0-9a-z_\x80-\xff\x00-\x20\x7f]+")


def plain_grams(text, orders):
    """The n-grams of a text by regular expression."""
    tokens = TOKEN.findall(text.encode().lower())
    return [
        tuple(tokens[i : i + k]) for k in range(1, orders + 1) for i in range(len(tokens) - k + 1)
    ]


def all_buckets(texts, orders, bits=24):
    out = []
    for grams in gram_blocks(pa.array(texts, pa.large_string()), orders, bits):
        for text in range(len(grams.sizes)):
            first, last = grams.starts[text], grams.starts[text + 1]
            own = [each[first:last] for each in grams.buckets]
            out.append([int(b) for each in own for b in each if b >= 0])
    return out


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=40), max_size=6))
def test_grams_are_those_of_a_regular_expression(texts):
    """The same number of n-grams, and equal ones in equal buckets (2^24 of them: no collision)."""
    meaning = {}
    for text, buckets in zip(texts, all_buckets(texts, 3), strict=True):
        grams = plain_grams(text, 3)
        assert len(grams) == len(buckets)
        for gram, bucket in zip(grams, buckets, strict=True):
            assert meaning.setdefault(gram, bucket) == bucket
    assert len(set(meaning.values())) == len(meaning)


def test_blocks_do_not_matter():
    texts = ["a b c", "", "x" * 300_000, "a b  C\td", None, "é ü", "a b c"] * 50
    buckets = all_buckets(texts, 2)
    assert buckets[0] == buckets[6] == buckets[-1]
    assert buckets[1] == buckets[4] == []
    assert all_buckets(texts[3:4], 2) == [buckets[3]]
    sliced = pa.array(texts, pa.large_string()).slice(5)
    assert sum(len(g.sizes) for g in gram_blocks(sliced, 2, 18)) == len(texts) - 5


def test_scores_are_sums_of_log_ratios():
    pool, target = ["a b c a", "b b", "d e f", ""] * 5, ["a c", "a b"]
    model = NGramRatio(bits=20, strength=5.0).fit(q=pool, p=target)
    c_q = Counter(g for t in pool for g in plain_grams(t, 2))
    c_p = Counter(g for t in target for g in plain_grams(t, 2))
    total = sum(c_q.values()) + sum(c_p.values()) + 0.1 * 2**20

    def log_r(gram):
        share = (c_q[gram] + c_p[gram] + 0.1) / total
        return np.log((c_p[gram] + 5 * share) / (sum(c_p.values()) + 5) / share)

    expected = [sum(log_r(g) for g in plain_grams(t, 2)) for t in pool]
    np.testing.assert_allclose(model.log_ratio(pool), expected, atol=1e-9)
    n = np.array([len(plain_grams(t, 2)) for t in pool])
    some = n > 0
    np.testing.assert_allclose(model.utility(pool)[some], np.array(expected)[some] / n[some])
    assert (model.utility(pool)[~some] == -np.inf).all()


@pytest.mark.slow
def test_auto_strength_foretells_held_out_targets():
    """Chosen on 100 target texts, it is near the best for texts that were not there."""
    kinds = genres()
    pool, _, target = pool_of(kinds, "docstrings")
    fresh = [t for t in kinds["docstrings"] if t not in set(target)][:500]
    auto = NGramRatio().fit(q=pool, p=target)
    assert 1e3 <= auto.strength_ <= 1e4
    reached = [
        NGramRatio(strength=strength).fit(q=pool, p=target).log_ratio(fresh).mean()
        for strength in (1e3, 3e3, 1e4)
    ]
    assert auto.log_ratio(fresh).mean() >= max(reached) - 1e-9
    assert max(reached) - min(reached) > 10  # nats a text: the choice matters


def test_finds_hidden_targets_in_real_pools():
    """From 100 texts: precision among the best half of the target's own number. The published
    score wins on docstrings (0.93 to 0.76) and loses elsewhere (0.41 to 0.97)."""
    precision = {}
    cases = [(genres, "docstrings"), (genres, "reference"), (packages, "asyncio"),
             (packages, "email")]  # fmt: skip
    for kinds, target in cases:
        pool, own, texts = pool_of(kinds(), target)
        k = int(own.sum()) // 2
        for model in (NGramRatio(), DSIR()):
            chosen = top_k(model.fit(pool, texts).utility(pool), n=k)
            precision.setdefault(type(model).__name__, []).append(own[chosen.rows].mean())
        assert precision["NGramRatio"][-1] > 2.3 * own.mean()
    ours, published = precision["NGramRatio"], precision["DSIR"]
    assert min(ours) > 0.74 > min(published) + 0.2
    assert np.mean(ours) > np.mean(published)


def test_finds_reviews_of_one_kind(shared_data):
    table = pq.read_table(shared_data / "sentiment_3domains.parquet").to_pydict()
    kinds = {}
    for domain, text in zip(table["domain"], table["text"], strict=True):
        kinds.setdefault(domain, []).append(text)
    for target in kinds:
        pool, own, texts = pool_of(kinds, target)
        found = own[top_k(NGramRatio().fit(pool, texts).utility(pool), n=400).rows].mean()
        assert found > own.mean() + 0.2  # own share 0.31; sentences of ten words


@pytest.mark.parametrize(
    "utility",
    [NGramRatio, DSIR, CompressionAlignment, TextClassifierRatio],
    ids=lambda u: u.__name__,
)
def test_what_was_chosen_trains_a_better_model(utility):
    """A unigram model of the chosen texts foretells unseen target texts better than one of a
    random draw of equal size, and of a draw with equal lengths: the mean gain over 8 pools is
    above six standard errors."""
    gains = []
    for seed in range(8):
        kinds = packages()
        pool, _, target = pool_of(kinds, "asyncio", seed=seed)
        shown = [t for t in kinds["asyncio"] if t not in set(target)]
        fresh = [t for t in shown if t not in set(pool)] or shown[-200:]
        rows = [i for i, t in enumerate(pool) if t not in set(fresh)]
        pool = [pool[i] for i in rows]
        chosen = top_k(utility().fit(pool, target).utility(pool), n=600)
        length = [len(t.split()) for t in pool]
        controls = [chosen.random_control(seed), chosen.random_control(seed, match=length)]
        scores = [held_out(pool, each.rows, fresh) for each in (chosen, *controls)]
        gains.append([scores[0] - other for other in scores[1:]])
    gains = np.array(gains)
    low = gains.mean(axis=0) - 6 * gains.std(axis=0, ddof=1) / np.sqrt(8)
    assert (low > 0).all(), gains


def held_out(pool, rows, fresh):
    """Mean log-likelihood of a unigram of unseen texts under a model of the chosen rows."""
    model = Counter(t for row in rows for t in TOKEN.findall(pool[row].encode().lower()))
    total = sum(model.values())
    unseen = [t for text in fresh for t in TOKEN.findall(text.encode().lower())]
    return float(np.mean([np.log((model[t] + 0.1) / (total + 0.1 * 50_000)) for t in unseen]))


def test_dsir_is_a_gumbel_draw_by_the_log_ratio():
    pool, own, target = pool_of(genres(), "reference")
    model = DSIR().fit(pool, target)
    np.testing.assert_array_equal(model.utility(pool), model.log_ratio(pool))
    chosen = model.select(pool, n=300, random_state=5)
    again = gumbel_top_k(model.log_ratio(pool), n=300, random_state=5)
    assert chosen.rows.tolist() == again.rows.tolist()
    assert own[chosen.rows].mean() > 2 * own.mean()


@pytest.mark.parametrize("engine", [Engine(), Engine("pool", n_jobs=2)], ids=["local", "pool"])
def test_files_give_what_lists_give(engine, tmp_path):
    pool, _, target = pool_of(genres(), "reference")
    pq.write_table(pa.table({"id": range(len(pool)), "text": pool}), tmp_path / "pool.parquet")
    lines = [json.dumps({"text": text, "id": 0}) for text in target]
    (tmp_path / "target.jsonl").write_text("\n".join(lines))
    one = NGramRatio().fit(pool, target)
    two = NGramRatio().fit_sources(
        tmp_path / "pool.parquet", tmp_path / "target.jsonl", engine=engine
    )
    np.testing.assert_array_equal(one.table_, two.table_)
    with open_source(tmp_path / "pool.parquet", side="q") as source:
        parts = two.score_source(source, engine=engine)
    np.testing.assert_array_equal(two.utility_of(parts), one.utility(pool))
    assert parts[:, 3].tolist() == [len(t.encode()) for t in pool]
    assert parts[:5, 2].tolist() == [len(plain_grams(t, 1)) for t in pool[:5]]


def test_several_columns_are_one_text(tmp_path):
    table = {"title": ["a b", None], "words": ["c", "d"], "n": [1, 2]}
    two = NGramRatio(strength=1.0).fit_sources(table, {"title": ["a"], "words": ["b"]})
    usual = NGramRatio().fit_sources({**table, "text": ["x", "y"]}, {"text": ["x"]})
    assert usual.n_grams_q_ == 2
    one = NGramRatio(strength=1.0).fit(["a b\nc", "\nd"], ["a\nb"])
    np.testing.assert_array_equal(one.table_, two.table_)
    with pytest.raises(DataError, match="column 'n' is int64; expected text"):
        NGramRatio().fit_sources(table, table, columns=["n"])
    with pytest.raises(DataError, match="has no column 'x'"):
        NGramRatio().fit_sources(table, table, columns=["x"])
    with pytest.raises(DataError, match="has no column of text"):
        NGramRatio().fit_sources({"n": [1]}, {"n": [1]})


def test_the_price_is_told_beforehand():
    pool, _, target = pool_of(genres(), "reference")
    price = NGramRatio().fit(pool, target).price(pool)
    assert price.fits == 0
    assert price.comparisons == len(pool)
    assert 0 < price.seconds < 60
    assert f"{len(pool):,} rows by a pilot of 200" in price.status


@pytest.mark.parametrize(
    "call, error, sentence",
    [
        (lambda: NGramRatio().fit("a", ["b"]), InputTypeError, "q is one string; give a list"),
        (lambda: NGramRatio().fit([1.0], ["b"]), InputTypeError, "q holds something that is no"),
        (lambda: NGramRatio().fit(["a"], [" "]), DataError, "p holds no n-gram"),
        (lambda: NGramRatio().fit([], ["a"]), DataError, "q holds no n-gram"),
        (lambda: NGramRatio(0).fit(["a"], ["a"]), OptionError, "n is 0; expected 1 to 8"),
        (lambda: NGramRatio(bits=40).fit(["a"], ["a"]), OptionError, "bits is 40"),
        (lambda: NGramRatio(smoothing="x").fit(["a"], ["a"]), OptionError, "Unknown smoothing"),
        (lambda: NGramRatio(strength=0).fit(["a"], ["a"]), OptionError, "strength is 0"),
        (lambda: DSIR(strength="auto").fit(["a"], ["a"]), OptionError, "needs a number"),
        (lambda: NGramRatio().utility(["a"]), NotFittedError, "NGramRatio is not fitted"),
    ],
)
def test_bad_input(call, error, sentence):
    with pytest.raises(error, match=sentence):
        call()
