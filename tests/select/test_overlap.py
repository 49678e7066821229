import re
import time

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.select.pools import genres

from dpdq.engine import Engine
from dpdq.errors import DataError, OptionError
from dpdq.select import benchmark_overlap

TOKEN = re.compile(rb"[0-9a-z_\x80-\xff]+|[^0-9a-z_\x80-\xff\x00-\x20\x7f]+")


def grams(text, n):
    tokens = TOKEN.findall(text.encode().lower())
    return [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]


def plain_share(train, item, n):
    length = min(len(TOKEN.findall(item.encode().lower())), n)
    if length < min(5, n):
        return np.nan
    known = {gram for text in train for gram in grams(text, length)}
    return float(np.mean([gram in known for gram in grams(item, length)]))


def longest(train, item, at_least):
    best, row = 0, -1
    for k, text in enumerate(train):
        a, b = text.encode(), item.encode()
        size = max(best, at_least - 1)
        while any(b[i : i + size + 1] in a for i in range(len(b) - size)):
            size += 1
        if size >= at_least and size > best:
            best, row = size, k
    return best, row


short = st.text(st.sampled_from("ab ."), max_size=50)


@given(st.lists(short, min_size=1, max_size=4), st.lists(short, min_size=1, max_size=3))
def test_shares_and_passages_equal_brute_force(train, items):
    found = benchmark_overlap(train, items, n=6, n_bytes=16)
    expected = [plain_share(train, item, 6) for item in items]
    np.testing.assert_allclose(found.share, expected)
    for item, length, row in zip(items, found.longest, found.row_q, strict=True):
        assert (length, row) == longest(train, item, 16)
    assert found.n_judged == int(np.isfinite(expected).sum())


def test_planted_items_are_found():
    """Real text: every item that was planted, whole or its first half, and nothing else."""
    kinds = genres()
    train, items = list(kinds["docstrings"][:900]), kinds["reference"][:200]
    for k in range(40):
        train[k] += " Q: " + items[k] + " A: yes"
    for k in range(40, 60):
        train[k] += " " + items[k][: len(items[k]) // 2].upper()
    found = benchmark_overlap(train, items)
    assert found.contaminated[:40].all()
    assert (found.share[:40] == 1).all()
    assert (found.longest[:40] == [len(item.encode()) for item in items[:40]]).all()
    assert found.row_q[:40].tolist() == list(range(40))
    assert ((found.share[40:60] > 0.2) & (found.share[40:60] < 0.8)).all()
    # Another case: n-grams see it, bytes do not.
    assert np.median(found.longest[40:60]) == 0
    # What else is found stands there: the two genres share a few sentences.
    for k in (60 + np.flatnonzero(found.share[60:])).tolist():
        assert found.share[k] == pytest.approx(plain_share(train, items[k], 13))
    assert (found.share[60:] > 0).mean() < 0.1
    share = found.contaminated_share
    assert share.low < 0.2 <= share.estimate <= share.high < 0.35
    assert "leave them out" in found.status


@pytest.mark.parametrize("engine", [Engine(), Engine("pool", n_jobs=2)], ids=["local", "pool"])
def test_engines_agree(engine, tmp_path):
    import pyarrow.parquet as pq

    kinds = genres()
    train = kinds["docstrings"][:400] + kinds["reference"][:50] + kinds["docstrings"]
    items = kinds["reference"][40:90]
    pq.write_table(pa.table({"text": train}), tmp_path / "t.parquet", row_group_size=150)
    one = benchmark_overlap(train, items)
    two = benchmark_overlap(tmp_path / "t.parquet", {"q": items}, engine=engine)
    for name in ("share", "longest", "row_q"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
    assert one.row_q[0] == 440


def test_repeated_windows_do_not_explode():
    """Dashes in every item, and a heading that 2,000 texts and 500 items share."""
    items = ["-" * 500 + f" item {k} of them all here" for k in range(20)]
    found = benchmark_overlap(["=" * 40 + "-" * 300], items)
    assert (found.longest >= 50).all()
    assert (found.longest <= 300).all()
    heading = "Read the text with care, then answer with one letter: A, B, C or D. " * 3
    items = [f"{heading}question {k} {k * 7919}" for k in range(500)]
    train = [f"page {k} {heading}{k * 104729}" for k in range(2000)] + [items[300]]
    start = time.process_time()
    found = benchmark_overlap(train, items)
    assert time.process_time() - start < 10
    assert found.longest[300] == len(items[300])
    assert found.row_q[300] == 2000
    others = np.delete(found.longest, 300)
    assert (others >= len(heading)).all()
    assert (others < len(heading) + 12).all()


def test_short_items_are_not_judged():
    found = benchmark_overlap(["the answer is yes of course"], ["yes", "the answer is yes of"])
    assert np.isnan(found.share[0])
    assert found.share[1] == 1.0
    assert found.n_judged == 1
    assert found.items()["share"].to_pylist() == [None, 1.0]
    nothing = benchmark_overlap(["a"], ["b"])
    assert nothing.contaminated_share.estimate is None
    assert "nothing can be said" in nothing.status


def test_what_is_refused():
    with pytest.raises(OptionError, match="n is 1; expected 2 to 64 tokens"):
        benchmark_overlap(["a"], ["b"], n=1)
    with pytest.raises(OptionError, match="threshold is 0; expected above 0"):
        benchmark_overlap(["a"], ["b"], threshold=0)
    with pytest.raises(DataError, match="p holds no item"):
        benchmark_overlap(["a"], [])
