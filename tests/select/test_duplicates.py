import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom
from tests.select.pools import genres

from dpdq.engine import Engine
from dpdq.errors import DataError, InputTypeError, OptionError
from dpdq.select import band_curve, exact_duplicates, near_duplicates, shared_passages
from dpdq.select._grams import gram_blocks
from dpdq.select.minhash import _band_keys, candidates, shingles

TOKEN = re.compile(rb"[0-9a-z_\x80-\xff]+|[^0-9a-z_\x80-\xff\x00-\x20\x7f]+")


def plain_shingles(text, n=5):
    tokens = TOKEN.findall(text.encode().lower())
    if not tokens:
        return set()
    return {tuple(tokens[i : i + n]) for i in range(max(len(tokens) - n + 1, 1))}


def plain_jaccard(a, b, n=5):
    one, two = plain_shingles(a, n), plain_shingles(b, n)
    return len(one & two) / max(len(one | two), 1)


def components(n, pairs):
    label = list(range(n))
    for i, j in pairs:
        old, new = max(label[i], label[j]), min(label[i], label[j])
        label = [new if each == old else each for each in label]
    return label


def words(rng, n):
    return [f"w{k}" for k in rng.integers(0, 5000, n)]


@given(st.lists(st.text(st.sampled_from("ab ,C"), max_size=30), max_size=6), st.integers(1, 4))
@settings(max_examples=40)
def test_shingles_are_those_of_a_regular_expression(texts, n):
    meaning = {}
    done = 0
    for grams in gram_blocks(pa.array(texts, pa.large_string()), 1, 63):
        values, starts = shingles(grams, n)
        for i in range(len(grams.sizes)):
            own = values[starts[i] : starts[i + 1]].tolist()
            expected = plain_shingles(texts[done + i], n)
            assert len(set(own)) == len(expected)
            for shingle in expected:
                meaning.setdefault(shingle, set()).update(own if len(expected) == 1 else ())
        done += len(grams.sizes)
    for hashes in meaning.values():
        assert len(hashes) <= 1


def test_clusters_equal_brute_force():
    """Every pair of 150 texts of few words, by sets of token tuples."""
    rng = np.random.default_rng(0)
    texts = []
    for _ in range(50):
        own = words(rng, int(rng.integers(3, 60)))
        texts.append(" ".join(own))
        for _ in range(2):
            changed = list(own)
            for place in rng.integers(0, len(own), int(rng.integers(0, 4))):
                changed[place] = "x"
            texts.append(" ".join(changed))
    n = len(texts)
    for threshold in (0.5, 0.8):
        found = near_duplicates(texts, threshold=threshold, n_hashes=512)
        pairs = [
            (i, j)
            for i in range(n)
            for j in range(i)
            if plain_jaccard(texts[i], texts[j]) >= threshold
        ]
        assert found.cluster.tolist() == components(n, pairs)
        assert found.rows.tolist() == sorted(set(found.cluster.tolist()))
        nearest = np.full(n, np.nan)
        for i, j in pairs:
            for one in (i, j):
                nearest[one] = np.fmax(nearest[one], plain_jaccard(texts[i], texts[j]))
        np.testing.assert_allclose(found.similarity, nearest)


def test_bands_find_pairs_at_the_stated_rate():
    """2,000 pairs each at three similarities. A count outside its binomial 1e-7 tails (twice,
    three times) fails by chance less than once in a million."""
    rng = np.random.default_rng(1)
    bands, band_rows = 21, 6
    for same, total in ((3, 10), (6, 10), (7, 10)):
        texts, pairs = [], 2000
        for _ in range(pairs):
            # Single tokens as shingles, so that the similarity is set exactly.
            pool = rng.choice(10**6, 10 * total, replace=False)
            common, rest = pool[: 10 * same], pool[10 * same :]
            half = len(rest) // 2
            texts += [
                " ".join(f"w{k}" for k in (*common, *rest[:half])),
                " ".join(f"w{k}" for k in (*common, *rest[half:])),
            ]
        keys = np.concatenate(
            [
                _band_keys(grams, 1, bands, band_rows)
                for grams in gram_blocks(pa.array(texts, pa.large_string()), 1, 63)
            ]
        )
        hits = int((keys[0::2] == keys[1::2]).any(axis=1).sum())
        rate = float(band_curve(same / total, bands, band_rows))
        assert binom.ppf(1e-7, pairs, rate) <= hits <= binom.isf(1e-7, pairs, rate)


def test_planted_near_duplicates_are_found():
    """400 real texts with one changed token: all whose similarity is 0.8 or more, but one in 100;
    nothing that brute force puts below the threshold is joined."""
    rng = np.random.default_rng(2)
    kinds = genres()
    texts = [t for t in kinds["reference"] + kinds["docstrings"] if len(t.split()) > 40][:900]
    changed = []
    for text in texts[:400]:
        own = text.split()
        own[int(rng.integers(len(own)))] = "zzz"
        changed.append(" ".join(own))
    found = near_duplicates(texts + changed)
    alike = np.array([plain_jaccard(a, b) for a, b in zip(texts, changed, strict=False)])
    joined = found.cluster[: len(alike)] == found.cluster[len(texts) :]
    assert (alike >= 0.8).sum() > 250
    missed = int((~joined[alike >= 0.8]).sum())
    assert missed <= binom.isf(1e-7, int((alike >= 0.8).sum()), 0.01)
    # Pairs joined without another one between them are at the threshold or above.
    sizes = np.bincount(found.cluster, minlength=len(texts) + 400)
    alone = joined & (sizes[found.cluster[:400]] == 2)
    assert (alike[alone] >= 0.8).all()
    assert alone.sum() > 200


def test_unrelated_texts_are_not_joined(shared_data):
    """Reviews of ten words: candidates below the threshold are refused by their own shingles."""
    texts = pq.read_table(shared_data / "sentiment_3domains.parquet")["text"].to_pylist()
    found = near_duplicates(texts, n=3, threshold=0.6)
    for row in np.flatnonzero(found.cluster != np.arange(len(texts))):
        others = np.flatnonzero(found.cluster == found.cluster[row]).tolist()
        alike = [plain_jaccard(texts[row], texts[k], 3) for k in others if k != row]
        assert max(alike) >= 0.6
        assert max(alike) == pytest.approx(found.similarity[row])
    assert 5 < len(texts) - len(found.rows) < 100


def test_equal_texts():
    texts = ["a b", "", "c", "a b", None, "A b", "a b"]
    found = exact_duplicates(pa.array(texts))
    assert found.cluster.tolist() == [0, 1, 2, 0, 1, 5, 0]
    assert found.rows.tolist() == [0, 1, 2, 5]
    assert [found.reason_names[k] for k in found.reasons[[0, 2, 3]]] == [
        "kept of its cluster", "alone", "equal text"]  # fmt: skip
    assert near_duplicates(texts).cluster.tolist() == [0, 1, 2, 0, 1, 0, 0]
    assert "4 of 7 rows kept; dropped: 3 equal to another" in found.status
    assert near_duplicates([]).rows.tolist() == []


def test_what_is_kept():
    base = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"
    texts = [base, base + "   ", "other", base.upper()]
    assert near_duplicates(texts).rows.tolist() == [0, 2]
    assert near_duplicates(texts, keep="longest").rows.tolist() == [1, 2]
    scores = [0.5, np.nan, 0.0, 0.9]
    assert near_duplicates(texts, keep="score", scores=scores).rows.tolist() == [2, 3]
    trail = near_duplicates(texts).trail({"key": list("abcd")})
    assert trail["kept"].to_pylist() == [True, False, True, False]
    assert trail["similarity"].to_pylist() == [1.0, 1.0, None, 1.0]
    assert trail["reason"].to_pylist()[1] == "near duplicate"
    assert trail.column_names[-1] == "key"


def test_order_of_rows_does_not_matter():
    kinds = genres()
    texts = kinds["docstrings"][:600]
    order = np.random.default_rng(3).permutation(len(texts))
    one = near_duplicates(texts, threshold=0.7)
    two = near_duplicates([texts[i] for i in order], threshold=0.7)
    same = one.cluster[order][:, None] == one.cluster[order]
    np.testing.assert_array_equal(same, two.cluster[:, None] == two.cluster)


def test_large_clusters_stay_whole():
    """A hundred variants that pairwise agree: more than a band compares at once."""
    base = " ".join(f"w{k}" for k in range(300))
    texts = [f"{base} end{k}" for k in range(100)]
    found = near_duplicates(texts)
    assert found.rows.tolist() == [0]
    assert found.n_candidates < 100 * 33


def test_without_verification_more_is_joined():
    rng = np.random.default_rng(4)
    texts = []
    for _ in range(300):
        own = words(rng, 60)
        texts.append(" ".join(own))
        own[20] = own[40] = "x"
        texts.append(" ".join(own))  # similarity 0.70
    loose, strict = near_duplicates(texts, verify=False), near_duplicates(texts)
    assert len(strict.rows) == 600
    assert 300 <= len(loose.rows) < 330
    assert loose.n_pairs == strict.n_candidates
    assert strict.n_pairs == 0


@pytest.mark.parametrize("engine", [Engine(), Engine("pool", n_jobs=2)], ids=["local", "pool"])
def test_engines_and_files_agree(engine, tmp_path):
    texts = genres()["reference"][:300] * 2 + genres()["docstrings"][:300]
    texts[3] += " licence " + texts[700]
    table = pa.table({"id": range(len(texts)), "text": texts})
    pq.write_table(table, tmp_path / "pool.parquet", row_group_size=100)
    one = near_duplicates(texts, n_bytes=100)
    two = near_duplicates(tmp_path / "pool.parquet", columns=["text"], n_bytes=100, engine=engine)
    assert one.cluster.tolist() == two.cluster.tolist()
    assert one.reasons.tolist() == two.reasons.tolist()
    assert one.cluster[3] == one.cluster[700]


@given(st.lists(st.text(st.sampled_from("ab"), max_size=60), min_size=1, max_size=7))
def test_shared_passages_equal_brute_force(texts):
    n_bytes = 16
    windows = [{t[i : i + n_bytes] for i in range(len(t) - n_bytes + 1)} for t in texts]
    pairs = [
        (i, j)
        for i in range(len(texts))
        for j in range(i)
        if windows[i] & windows[j] or texts[i] == texts[j]
    ]
    for bits in (16, 20):
        found = shared_passages(texts, n_bytes=n_bytes, bits=bits)
        assert found.cluster.tolist() == components(len(texts), pairs)


def test_shared_passages_merge_exactly():
    """Blocks of 65,536 rows: a passage in the first and the last is found, none is made up."""
    rng = np.random.default_rng(5)
    texts = [f"{key:032x}" for key in rng.integers(0, 2**62, 70_000)]
    texts[7] += texts[69_000]
    found = shared_passages(texts, n_bytes=30, bits=20)
    assert found.cluster[69_000] == 7
    assert len(found.rows) == len(texts) - 1


def test_candidates_are_pairs_once():
    keys = np.array([[1, 5], [1, 5], [2, 5], [9, 9]], dtype=np.uint64)
    left, right = candidates(keys, np.arange(4))
    assert list(zip(left.tolist(), right.tolist(), strict=True)) == [(0, 1), (0, 2), (1, 2)]


def test_what_is_refused():
    with pytest.raises(OptionError, match="threshold is 0; expected above 0 and at most 1"):
        near_duplicates(["a"], threshold=0)
    with pytest.raises(OptionError, match=r"Unknown keep 'best'. Choose one of 'first', 'longest'"):
        near_duplicates(["a"], keep="best")
    with pytest.raises(OptionError, match="keep 'score' needs scores"):
        near_duplicates(["a"], keep="score")
    with pytest.raises(DataError, match=r"scores have shape \(2,\); expected \(1,\)"):
        exact_duplicates(["a"], keep="score", scores=[1, 2])
    with pytest.raises(OptionError, match="n_bytes is 8; expected 16 to 65,536 bytes"):
        shared_passages(["a"], n_bytes=8)
    with pytest.raises(OptionError, match="find less than 99 % of pairs"):
        near_duplicates(["a"], threshold=0.1, n_hashes=16)
    with pytest.raises(OptionError, match="bits is 40; expected 16 to 36"):
        shared_passages(["a"], bits=40)
    with pytest.raises(OptionError, match="n is 0; expected 1 to 32 tokens"):
        near_duplicates(["a"], n=0)
    with pytest.raises(InputTypeError, match="pool holds something that is no text"):
        near_duplicates([1, 2])
