"""Content hashes and the rows that two files share."""

from __future__ import annotations

import datetime as dt
import decimal

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings

from dpdq.data import hashing
from dpdq.data.hashing import column_hashes, common_rows, row_hashes, text_hashes
from dpdq.data.schema import Column
from dpdq.errors import DataError

scalars = st.one_of(
    st.none(),
    st.integers(-(2**53), 2**53),
    st.floats(allow_nan=True, allow_infinity=True),
)


def hashes(values, kind=None):
    return column_hashes(pa.table({"x": pa.array(values, kind)}), "x").tolist()


@pytest.mark.parametrize(
    "same",
    [
        (([2, None], pa.int64()), ([2.0, None], pa.float64())),
        (([2, None], pa.uint8()), ([2.0, float("nan")], pa.float32())),
        (([2, 0], pa.uint64()), ([2, 0], pa.int8())),
        (([2**63, 2**64 - 2048], pa.uint64()), ([2.0**63, 2.0**64 - 2048], pa.float64())),
        (([-0.0], pa.float64()), ([0], pa.int64())),
        (([True, False, None], pa.bool_()), ([1.0, 0.0, None], pa.float64())),
        (([decimal.Decimal("2.50")], pa.decimal128(5, 2)), ([2.5], pa.float64())),
        ((["a", None, ""], pa.string()), (["a", None, ""], pa.large_string())),
        ((["a", None, ""], pa.string()), (["a", None, ""], pa.string_view())),
        (
            (["a", None, "b"], pa.string()),
            (["a", None, "b"], pa.dictionary(pa.int8(), pa.string())),
        ),
        (([0, 86_400], pa.timestamp("s")), ([0, 86_400 * 10**9], pa.timestamp("ns"))),
        (([0, 86_400_000], pa.timestamp("ms", "UTC")), ([0, 1], pa.date32())),
        (([0, 86_400_000], pa.date64()), ([0, 1], pa.date32())),
        (([[1, 2], None], pa.list_(pa.int64())), ([[1.0, 2.0], None], pa.large_list(pa.float64()))),
        (([[1.0, 2.0]], pa.list_(pa.float64())), ([[1, 2]], pa.list_(pa.float32(), 2))),
        (([None, None], pa.null()), ([None, float("nan")], pa.float64())),
        (([None], pa.null()), ([None], pa.string())),
    ],
)
def test_equal_values_have_equal_hashes_however_they_are_stored(same):
    (left, left_type), (right, right_type) = same
    assert hashes(left, left_type) == hashes(right, right_type)


@pytest.mark.parametrize(
    "values",
    [
        [0, 1, -1, 2**62, 2**62 + 1, None],
        [2**63, 2**63 + 1, 2**64 - 1, 5],
        [0.5, 1.5, float("inf"), float("-inf"), float("nan"), 1e300, 5e-324],
        ["", " ", "a", "b", "ab", "a" * 255, "a" * 256, "a" * 257, "a" * 300, "a\x00", None],
        [[1.0], [1.0, 2.0], [], [2.0, 1.0], [0.0], [0.0, 0.0], None],
        [b"", b"\x00", b"\x00\x00"],
    ],
)
def test_different_values_have_different_hashes(values):
    kind = pa.uint64() if values[0] == 2**63 else None
    assert len(set(hashes(values, kind))) == len(values)


def test_nanoseconds_count():
    assert len(set(hashes([0, 1, 1000], pa.timestamp("ns")))) == 3


def test_columns_do_not_mix_and_their_order_counts():
    t = pa.table({"x": ["ab", "a"], "y": ["c", "bc"]})
    assert len(set(row_hashes(t, ["x", "y"]).tolist())) == 2
    assert (row_hashes(t, ["x", "y"]) != row_hashes(t, ["y", "x"])).all()


def test_a_million_short_strings_collide_nowhere():
    n = 200_000
    t = pa.table({"x": pa.array([f"{i:x}" for i in range(n)])})
    assert np.unique(column_hashes(t, "x")).size == n


def test_kinds_make_the_sides_comparable():
    def one(values, name, kind):
        return row_hashes(pa.table({"x": values}), [Column("x", kind, "", "")]).tolist()

    dates = [dt.date(2024, 1, 5), None]
    assert one(pa.array(dates), "x", "datetime") == one(["2024-01-05", None], "x", "datetime")
    assert one([7, None], "x", "categorical") == one(["7", None], "x", "categorical")
    assert one([7.0, None], "x", "categorical") == one([7, None], "x", "categorical")
    assert one([1.5, None], "x", "numeric") == one(["1.5", ""], "x", "numeric")
    assert one([True, None], "x", "boolean") == one(["Yes", None], "x", "boolean")
    assert one([True, None], "x", "boolean") == one([1, None], "x", "boolean")


def test_types_without_content_are_refused():
    with pytest.raises(DataError, match="cannot be compared by content"):
        hashes([{"a": 1}])
    with pytest.raises(DataError, match="no column named 'z'"):
        row_hashes(pa.table({"x": [1]}), ["z"])


def test_empty_tables():
    t = pa.table({"x": pa.array([], pa.string()), "y": pa.array([], pa.list_(pa.float64()))})
    assert row_hashes(t, ["x", "y"]).shape == (0,)
    assert text_hashes(pa.array([], pa.string())).shape == (0,)
    empty = pa.table({"x": pa.chunked_array([], pa.string())})
    assert row_hashes(empty, ["x"]).shape == (0,)


@given(st.lists(scalars, min_size=1, max_size=40), st.integers(0, 40), st.randoms())
@settings(max_examples=60, deadline=None)
def test_rows_hash_alone(values, cut, random):
    order = list(range(len(values)))
    random.shuffle(order)
    x = pa.array([None if v is None else float(v) for v in values], pa.float64())
    s = pa.array([None if v is None else repr(v) for v in values], pa.string())
    whole = pa.table({"x": x, "s": s})
    h = row_hashes(whole, ["x", "s"])
    parts = pa.concat_tables([whole.slice(0, cut), whole.slice(cut)])
    assert np.array_equal(row_hashes(parts, ["x", "s"]), h)
    encoded = whole.set_column(1, "s", s.dictionary_encode())
    assert np.array_equal(row_hashes(encoded, ["x", "s"]), h)
    batches = [row_hashes(b, ["x", "s"]) for b in whole.to_batches(max_chunksize=7)]
    assert np.array_equal(np.concatenate(batches), h)
    assert np.array_equal(row_hashes(whole.take(order), ["x", "s"]), h[order])


@given(st.lists(st.one_of(st.none(), st.text(max_size=400)), max_size=30))
@settings(max_examples=60, deadline=None)
def test_texts_hash_as_their_bytes(values):
    h = hashes(values, pa.string())
    assert h == hashes(values, pa.large_string())
    assert len(set(h)) == len(set(values))


def test_chunked_dictionaries_are_joined():
    chunks = [pa.array(["a", "b"]).dictionary_encode(), pa.array(["b", "a"]).dictionary_encode()]
    t = pa.table({"x": pa.chunked_array(chunks)})
    assert column_hashes(t, "x").tolist() == hashes(["a", "b", "b", "a"])


# ---------------------------------------------------------------------------- common rows


def adult_hashes(shared_data, columns=None):
    table = pq.read_table(shared_data / "adult.parquet", columns=columns)
    return row_hashes(table, table.column_names)


def halves(h, seed=0):
    order = np.random.default_rng(seed).permutation(h.size)
    return h[order[: h.size // 2]], h[order[h.size // 2 :]]


@pytest.mark.parametrize(
    "columns",
    [
        None,
        ["fnlwgt"],
        ["age", "sex", "education"],
        ["age", "education", "hours-per-week", "occupation", "sex", "race", "native-country"],
    ],
)
def test_random_halves_share_rows_by_chance_and_parts_are_subsets(shared_data, columns):
    h = adult_hashes(shared_data, columns)
    # both tests have level 1e-6, and so have the four draws here
    q, p = halves(h)
    common = common_rows(q, p)
    assert not common.beyond_chance
    assert not common.p_subset_of_q
    assert not common.identical
    assert common.share_p > 0
    part = common_rows(h, h[: h.size // 2])
    assert part.p_subset_of_q
    assert not part.q_subset_of_p
    assert part.sentence == "p is a subset of q: all 24,421 rows of p stand in q"
    assert common_rows(h[: h.size // 2], h).q_subset_of_p


def test_shifted_samples_share_rows_by_chance(shared_data):
    h = adult_hashes(shared_data, ["age", "education", "hours-per-week", "sex", "race"])
    education = pq.read_table(shared_data / "adult.parquet", columns=["education-num"])
    high = education["education-num"].to_numpy() >= 9
    rng = np.random.default_rng(1)
    mostly = rng.random(h.size) < np.where(high, 0.9, 0.1)
    assert not common_rows(h[mostly], h[~mostly]).beyond_chance


def test_few_contents_are_no_common_rows():
    rng = np.random.default_rng(0)
    q, p = (rng.integers(0, 4, n).astype(np.uint64) for n in (1000, 400))
    common = common_rows(q, p)
    assert common.share_p == 1.0
    assert not common.beyond_chance
    assert not common.p_subset_of_q


def test_an_independent_sample_of_frequent_contents_is_no_subset():
    # half of q is spread over 1,000 contents, half is unique; p has the frequent contents alone
    rng = np.random.default_rng(0)
    q = np.concatenate([rng.integers(0, 1000, 50_000), 10_000 + np.arange(50_000)])
    p = rng.integers(0, 1000, 200)
    common = common_rows(q.astype(np.uint64), p.astype(np.uint64))
    assert common.share_p == 1.0
    assert not common.p_subset_of_q


def test_the_same_file_in_any_order_is_identical(shared_data):
    h = adult_hashes(shared_data)
    common = common_rows(h, np.random.default_rng(0).permutation(h))
    assert common.identical
    assert common.p_subset_of_q
    assert common.q_subset_of_p
    assert common.sentence == "q and p hold the same 48,842 rows"
    tiny = np.array([1, 2], np.uint64)
    assert common_rows(tiny, tiny[::-1]).identical
    once_more = np.append(h, h[0])
    assert not common_rows(h, once_more).identical
    assert common_rows(h, once_more).sentence.startswith("q and p hold the same rows, though")


def test_copied_rows_are_noticed(shared_data):
    h = adult_hashes(shared_data)
    q, p = halves(h)
    leak = np.concatenate([p[:20_000], q[:500]])
    common = common_rows(q, leak)
    assert common.beyond_chance
    assert not common.p_subset_of_q
    assert "so rows were copied" in common.sentence
    assert common_rows(h, h[:30]).p_subset_of_q
    assert not common_rows(h, h[:10]).p_subset_of_q  # too few rows to tell


def test_no_rows_in_common():
    q, p = np.arange(5, dtype=np.uint64), np.arange(5, 9, dtype=np.uint64)
    assert common_rows(q, p).sentence == "no row stands in both files"
    empty = np.zeros(0, np.uint64)
    assert common_rows(q, empty).share_q == 0.0
    assert not common_rows(empty, empty).identical


def test_common_rows_is_symmetric():
    rng = np.random.default_rng(3)
    q, p = (rng.integers(0, 300, n).astype(np.uint64) for n in (200, 150))
    there, back = common_rows(q, p), common_rows(p, q)
    assert (there.n_q, there.share_q) == (back.n_p, back.share_p)
    assert there.beyond_chance == back.beyond_chance


@pytest.mark.parametrize("contents", [50, 500, 5_000, 50_000, 5_000_000])
@pytest.mark.parametrize("sizes", [(2000, 2000), (4000, 300)])
def test_independent_draws_are_never_called_copies(contents, sizes):
    # level 3e-6 a draw at most: 200 draws over all cases raise a false alarm in under 1e-3;
    # the seeds are fixed and none of these does
    rng = np.random.default_rng(contents)
    for _ in range(20):
        weights_q, weights_p = (rng.gamma(0.5, size=min(contents, 50_000)) for _ in range(2))
        draws = [
            rng.choice(w.size, size=n, p=w / w.sum()) * (contents // w.size)
            + rng.integers(0, contents // w.size, n)
            for w, n in zip((weights_q, weights_p), sizes, strict=True)
        ]
        assert not common_rows(*(d.astype(np.uint64) for d in draws)).beyond_chance


def test_long_and_short_texts_agree_on_the_border():
    assert hashing._LONG == 256
