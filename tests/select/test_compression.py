import gzip
import pickle
import sys
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.select.pools import genres, packages, pool_of

from dpdq.errors import (
    DataError,
    InputTypeError,
    MissingDependencyError,
    NotFittedError,
    OptionError,
)
from dpdq.select import CompressionAlignment, NGramRatio, conditional_utility, select_rows, top_k

CODECS = ("zstd", "zlib")
CODE = [f"for key in range({i}): print(key, {i * i})" for i in range(60)]
PROSE = [f"The cat sat on mat number {i}, and thought of {i * i} mice." for i in range(60)]


def texts_of_all_lengths(kinds, seed=0):
    """Texts of 100 to 3,000 characters, and whether each is source code."""
    rng = np.random.default_rng(seed)
    texts, own = [], []
    for name in ("code", "reference"):
        whole = "".join(kinds[name][:600])
        at = 0
        while at < len(whole) - 3000 and len(texts) < 1000:
            size = int(np.exp(rng.uniform(np.log(100), np.log(3000))))
            texts.append(whole[at : at + size])
            own.append(name == "code")
            at += size
    return texts, np.array(own)


def ranks(values):
    return np.argsort(np.argsort(values)).astype(float)


def test_ncd_is_the_published_formula():
    pool, target = [*CODE[:5], *PROSE[:5]], CODE[50:53]
    found = CompressionAlignment("ncd").fit(pool, target).utility(pool)

    def size(text):
        return len(gzip.compress(text.encode(), 6))

    expected = [
        np.mean([
            1 - (size(x + t) - min(size(x), size(t))) / max(size(x), size(t)) for t in target
        ])
        for x in pool
    ]  # fmt: skip
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("codec", CODECS)
def test_dictionary_sizes_by_a_second_route(codec):
    model = CompressionAlignment(codec=codec).fit(CODE + PROSE, CODE[50:])
    text = CODE[3]
    sizes = []
    for dictionary in (model.dictionary_q_, model.dictionary_p_):
        if codec == "zlib":
            stream = zlib.compressobj(6, zlib.DEFLATED, -15, 9, zlib.Z_DEFAULT_STRATEGY, dictionary)
            data = stream.compress(text.encode()) + stream.flush()
            assert zlib.decompressobj(-15, dictionary).decompress(data) == text.encode()
        else:
            zstandard = pytest.importorskip("zstandard")
            known = zstandard.ZstdCompressionDict(dictionary)
            known.precompute_compress(level=3)
            data = zstandard.ZstdCompressor(
                dict_data=known, write_content_size=False, write_dict_id=False
            ).compress(text.encode())
        sizes.append(len(data))
    assert model.utility([text])[0] == (sizes[0] - sizes[1]) / sizes[0]


@pytest.mark.parametrize("codec", CODECS)
def test_pool_and_target_exchanged(codec):
    """Equally many bytes teach either side, so equal texts on both say nothing."""
    one = CompressionAlignment(codec=codec).fit(CODE, PROSE)
    two = CompressionAlignment(codec=codec).fit(PROSE, CODE)
    assert one.dictionary_q_ == two.dictionary_p_
    assert (one.utility(PROSE) > 0).all()
    assert (one.utility(CODE) < 0).all()
    same = CompressionAlignment(codec=codec).fit(CODE, CODE)
    assert (same.utility(CODE) == 0).all()


@pytest.mark.parametrize("codec", CODECS)
def test_pieces_and_empty_texts(codec):
    model = CompressionAlignment(codec=codec).fit(CODE + PROSE, CODE[50:])
    long = "".join(CODE * 4)[: 2 * 4096]
    assert len(long) == 8192
    by_pool, by_target = model._compressors()
    halves = [long[:4096].encode(), long[4096:].encode()]
    standard = sum(map(by_pool, halves))
    assert model.utility([long])[0] == (standard - sum(map(by_target, halves))) / standard
    out = model.utility(pa.array(["", None, CODE[55]]))
    assert out[:2].tolist() == [-np.inf, -np.inf]
    assert out[2] > 0
    sliced = pa.array([*PROSE, *CODE], pa.large_string()).slice(60)
    np.testing.assert_array_equal(model.utility(sliced), model.utility(CODE))
    assert model.utility([]).shape == (0,)


@pytest.mark.parametrize("codec", CODECS)
def test_pickle_and_seedless_repeat(codec):
    model = CompressionAlignment(codec=codec).fit(CODE + PROSE, CODE[50:])
    before = model.utility(PROSE)
    other = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(other.utility(PROSE), before)
    again = CompressionAlignment(codec=codec).fit(CODE + PROSE, CODE[50:])
    np.testing.assert_array_equal(again.utility(PROSE), before)
    assert model.price(CODE * 10).comparisons == 1200
    assert CompressionAlignment("ncd").fit(CODE, PROSE[:7]).price(CODE[:50]).comparisons == 350


def test_published_form_scores_length_and_ours_does_not():
    """Texts of 100 to 3,000 characters, half of them code: what length explains of the score, and
    the precision that is left (chance 0.48)."""
    kinds = genres()
    texts, own = texts_of_all_lengths(kinds)
    target = kinds["code"][600::40][:60]
    size = np.array([len(t) for t in texts])
    explained, found = {}, {}
    for name, model in (
        ("ncd", CompressionAlignment("ncd")),
        ("zstd", CompressionAlignment(codec="zstd")),
        ("zlib", CompressionAlignment(codec="zlib")),
    ):
        score = model.fit(texts, target).utility(texts)
        explained[name] = conditional_utility(score, {"length": size}).explained
        found[name] = own[top_k(score, n=int(own.sum()) // 2).rows].mean()
    assert explained["ncd"] > 0.7
    assert max(explained["zstd"], explained["zlib"]) < 0.05
    assert min(found["zstd"], found["zlib"]) > found["ncd"] + 0.15


@pytest.mark.parametrize("codec", CODECS)
def test_finds_hidden_targets_in_real_pools(codec, shared_data):
    """Precision among the best half of the target's own number, beside n-grams and chance."""
    table = pq.read_table(shared_data / "sentiment_3domains.parquet").to_pydict()
    reviews = {}
    for domain, text in zip(table["domain"], table["text"], strict=True):
        reviews.setdefault(domain, []).append(text)
    cases = [
        (genres(), "docstrings", 0.6),
        (genres(), "reference", 0.75),
        (packages(), "asyncio", 0.9),
        (packages(), "email", 0.9),
        (reviews, "amazon", 0.5),
    ]
    for kinds, target, least in cases:
        pool, own, texts = pool_of(kinds, target)
        k = int(own.sum()) // 2
        model = CompressionAlignment(codec=codec).fit(pool, texts)
        found = own[top_k(model.utility(pool), n=k).rows].mean()
        grams = own[top_k(NGramRatio().fit(pool, texts).utility(pool), n=k).rows].mean()
        assert least < found < grams + 0.05, (target, found, grams)


def test_as_the_pool_job_uses_it():
    texts = {"text": [*CODE[:50], *PROSE[:50]]}
    found = select_rows(texts, {"text": CODE[50:]}, budget=40, utility="zip", engine="pool")
    assert found.selection.rows.max() < 50


def test_without_zstandard(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert CompressionAlignment().fit(CODE, PROSE).codec_ == "zlib"
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(MissingDependencyError, match="codec 'zstd' needs zstandard: pip install"):
        CompressionAlignment(codec="zstd").fit(CODE, PROSE)


@pytest.mark.parametrize(
    "call, error, sentence",
    [
        (lambda: CompressionAlignment("x").fit(["a"], ["b"]), OptionError, "Unknown method 'x'"),
        (lambda: CompressionAlignment(codec="x").fit(["a"], ["b"]), OptionError, "Unknown codec"),
        (lambda: CompressionAlignment(codec="zlib", level=12).fit(["a"], ["b"]), OptionError,
         "level is 12; expected 1 to 9 for zlib"),
        (lambda: CompressionAlignment().fit(["a"], [""]), DataError, "p holds no text"),
        (lambda: CompressionAlignment().fit([], ["a"]), DataError, "q holds no text"),
        (lambda: CompressionAlignment().fit("a", ["b"]), InputTypeError, "q is one string"),
        (lambda: CompressionAlignment().utility(["a"]), NotFittedError, "is not fitted"),
    ],
)  # fmt: skip
def test_bad_input(call, error, sentence):
    with pytest.raises(error, match=sentence):
        call()
