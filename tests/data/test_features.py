"""The feature recipe."""

from __future__ import annotations

import datetime as dt
import json

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings

from dpdq.data.features import Features, check_finite
from dpdq.data.schema import Column, infer_columns
from dpdq.data.text_features import word_counts
from dpdq.errors import DataError, NotFittedError, OptionError

WORDS = np.array(["the", "a", "cat", "dog", "sat", "on", "mat", "rug", "hat", "and", "then"])


def mixed(n, seed=0, shift=0.0):
    """A table with every kind and missing values in every column."""
    rng = np.random.default_rng(seed)

    def holes(values, share=0.1):
        return [None if rng.random() < share else v for v in values]

    start = dt.datetime(2024, 1, 1)
    return pa.table(
        {
            "x": holes((rng.normal(size=n) + shift).tolist()),
            "money": holes(np.where(rng.random(n) < 0.9, 0, np.exp(rng.normal(7, 2, n))).tolist()),
            "flag": holes((rng.random(n) < 0.3).tolist()),
            "town": holes([f"town {k}" for k in rng.zipf(1.5, n)]),
            "when": holes(
                [start + dt.timedelta(seconds=int(s)) for s in rng.integers(0, 10**7, n)]
            ),
            "note": holes([" ".join(rng.choice(WORDS, 8)) + f" {i}" for i in range(n)]),
            "vector": pa.array(holes(rng.normal(size=(n, 3)).tolist()), pa.list_(pa.float64())),
            "same": [1.0] * n,
        }
    )


def fitted(q, p, types=None, **options):
    return Features(**options).fit(q, p, infer_columns(q, p, types=types))


@pytest.fixture(scope="module")
def pair():
    return mixed(300), mixed(200, seed=1, shift=0.5)


@pytest.fixture(scope="module")
def recipe(pair):
    return fitted(*pair)


def feature(features, table, name):
    return features.dense(table)[:, features.dense_names.index(name)]


# ------------------------------------------------------------------------- the two views


def test_shapes_names_and_sources(recipe, pair):
    dense, codes = recipe.dense(pair[1]), recipe.codes(pair[1])
    assert dense.shape == (200, len(recipe.dense_names)) == (200, recipe.dense_columns.size)
    assert codes.shape == (200, len(recipe.codes_names)) == (200, recipe.codes_columns.size)
    assert dense.dtype == codes.dtype == np.float64
    assert np.isfinite(dense).all()
    assert recipe.categorical_codes.sum() == 1
    names = np.array([column.name for column in recipe.columns])
    assert names[recipe.codes_columns][recipe.categorical_codes].tolist() == ["town"]
    for view, expected in (("dense", recipe.dense_names), ("codes", recipe.codes_names)):
        rows = [row for row in recipe.describe() if row["view"] == view]
        assert [row["feature"] for row in rows] == expected
        assert all(row["rule"] and row["kind"] for row in rows)
    assert "same" not in names[recipe.dense_columns]  # constant columns have no dense feature
    assert len(set(recipe.dense_names)) == len(recipe.dense_names)


def test_fit_is_symmetric_to_the_last_bit(pair):
    q, p = pair
    columns = infer_columns(q, p)
    there, back = Features().fit(q, p, columns), Features().fit(p, q, columns)
    assert json.dumps(there.to_dict()) == json.dumps(back.to_dict())
    assert np.array_equal(there.dense(q), back.dense(q))


def test_fit_does_not_see_the_sides_or_the_order(pair):
    q, p = pair
    columns = infer_columns(q, p)
    pooled = pa.concat_tables([q, p])
    order = np.random.default_rng(0).permutation(pooled.num_rows)
    other = Features().fit(pooled.take(order[:20]), pooled.take(order[20:]), columns)
    assert json.dumps(other.to_dict()) == json.dumps(Features().fit(q, p, columns).to_dict())


@given(st.lists(st.integers(1, 60), min_size=1, max_size=5), st.randoms())
@settings(max_examples=15, deadline=None)
def test_a_row_has_its_features_alone(recipe, pair, cuts, random):
    table = pair[0].slice(0, 120)
    order = list(range(table.num_rows))
    random.shuffle(order)
    for view in (recipe.dense, recipe.codes):
        whole = view(table)
        assert np.array_equal(view(table.take(order)), whole[order], equal_nan=True)
        parts, start = [], 0
        for size in [*cuts, table.num_rows]:
            parts.append(view(table.slice(start, size)))
            start += size
        assert np.array_equal(np.concatenate(parts), whole, equal_nan=True)
        batches = [view(batch) for batch in table.to_batches(max_chunksize=50)]
        assert np.array_equal(np.concatenate(batches), whole, equal_nan=True)


def test_round_trip_through_json(recipe, pair):
    state = json.dumps(recipe.to_dict(), allow_nan=False)
    again = Features.from_dict(json.loads(state))
    assert json.dumps(again.to_dict()) == state
    assert np.array_equal(again.dense(pair[1]), recipe.dense(pair[1]))
    assert np.array_equal(again.codes(pair[1]), recipe.codes(pair[1]), equal_nan=True)
    assert again.describe() == recipe.describe()
    with pytest.raises(DataError, match="version 7; this dpdq reads version 1"):
        Features.from_dict({"version": 7})


def test_storage_does_not_matter(recipe, pair):
    table = pair[1]
    stored = table.set_column(
        table.schema.get_field_index("town"),
        "town",
        table["town"].combine_chunks().cast(pa.large_string()).dictionary_encode(),
    )
    stored = stored.set_column(
        stored.schema.get_field_index("when"), "when", table["when"].cast(pa.timestamp("ns"))
    )
    stored = pa.concat_tables([stored.slice(0, 77), stored.slice(77)]).select(
        stored.column_names[::-1]
    )
    assert np.array_equal(recipe.dense(stored), recipe.dense(table))
    assert np.array_equal(recipe.codes(stored), recipe.codes(table), equal_nan=True)


def test_every_column_weighs_about_the_same(shared_data):
    table = pq.read_table(shared_data / "adult.parquet")
    features = fitted(table.slice(0, 20_000), table.slice(20_000))
    dense = features.dense(table)
    for j, column in enumerate(features.columns):
        variance = dense[:, features.dense_columns == j].var(axis=0).sum()
        assert 0.7 < variance <= 2.0 + 1e-9, column
        if column.kind == "categorical":
            assert variance == pytest.approx(1.0, abs=1e-9)
    assert np.abs(dense).max() <= 20
    assert np.abs(dense[:, features.dense_names.index("age")]).max() < 4


# ---------------------------------------------------------------------------- each kind


def test_numeric_is_affine_invariant():
    rng = np.random.default_rng(0)
    x = rng.normal(size=400)
    plain = fitted(pa.table({"x": x[:200]}), pa.table({"x": x[200:]}))
    moved = fitted(pa.table({"x": 1e6 + 1e3 * x[:200]}), pa.table({"x": 1e6 + 1e3 * x[200:]}))
    a = plain.dense(pa.table({"x": x}))
    b = moved.dense(pa.table({"x": 1e6 + 1e3 * x}))
    assert plain.dense_names == ["x"]
    assert np.allclose(a, b, atol=1e-9)
    assert abs(a.mean()) < 1e-12
    assert 0.8 < a.std() <= 1.0 + 1e-12


def test_missing_numbers_stand_in_the_middle_with_an_indicator(recipe, pair):
    table = pa.concat_tables(pair)
    missing = table["x"].is_null().to_numpy()
    flag = feature(recipe, table, "x (missing)")
    assert np.array_equal(flag > 0, missing)
    x = feature(recipe, table, "x")
    middle = np.unique(x[missing])
    assert middle.size == 1
    assert abs(middle[0] - np.median(x[~missing])) < 0.01
    assert np.isnan(recipe.codes(table)[missing, recipe.codes_names.index("x")]).all()


def test_outliers_are_cut_and_heavy_tails_get_a_second_feature(recipe, pair):
    assert "money (asinh)" in recipe.dense_names
    assert "x (asinh)" not in recipe.dense_names
    tail = feature(recipe, pair[0], "money (asinh)")
    money = pair[0]["money"].fill_null(0).to_numpy()
    order = np.argsort(money)
    assert (np.diff(tail[order]) >= 0).all()
    assert np.unique(tail).size == np.unique(money).size  # monotone, nothing is lost
    assert np.abs(tail).max() < 10
    x = [0.0] * 90 + list(np.linspace(-1, 1, 110)) + [1e308, -1e308]
    t = pa.table({"x": x})
    features = fitted(t, t)
    assert np.isfinite(features.dense(t)).all()
    assert np.abs(features.dense(t)[:, 0]).max() < 20


@pytest.mark.parametrize(
    "x",
    [
        [1e308, -1e308, 0.0],
        [5e-324, 0.0, 1e-323],
        [0, 0, 0, 1],
        [2**53, 2**53 + 2, 2**53 + 4],
        [1.0, None, None],
        [1e-200, 2e-200, 1e200],
        [3.0],
    ],
)
def test_extreme_numbers_stay_finite(x):
    t = pa.table({"x": x})
    assert np.isfinite(fitted(t, t).dense(t)).all()


@given(
    st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=30),
    st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=30),
)
@settings(max_examples=150, deadline=None)
def test_any_finite_numbers_give_finite_monotone_features(fit, new):
    t, new_table = pa.table({"x": fit}), pa.table({"x": np.sort(new)})
    features = fitted(t, t)
    dense = features.dense(new_table)
    assert np.isfinite(dense).all()
    assert (np.diff(dense, axis=0) >= 0).all()
    json.dumps(features.to_dict(), allow_nan=False)


def test_booleans():
    t = pa.table({"b": [True, True, False, None]})
    features = fitted(t, t)
    assert features.dense_names == ["b", "b (missing)"]
    dense = features.dense(t)
    assert dense[:3, 0].mean() == pytest.approx(0)
    assert dense[3, 0] == 0
    assert features.codes(t)[:, 0].tolist()[:3] == [1.0, 1.0, 0.0]
    assert np.isnan(features.codes(t)[3, 0])
    rare = pa.table({"b": [True] + [False] * 9999})
    assert np.abs(fitted(rare, rare).dense(rare)).max() <= 10


def test_levels_are_ranked_by_pooled_frequency():
    q = pa.table({"c": ["b"] * 30 + ["a"] * 30 + ["rare"]})
    p = pa.table({"c": ["c"] * 61 + [None] * 7})
    features = fitted(q, p)
    assert features.dense_names == ["c=c", "c=a", "c=b", "c (other)", "c (missing)"]
    new = pa.table({"c": ["c", "b", "rare", "unseen", None]})
    assert features.codes(new)[:4, 0].tolist() == [0, 2, 3, 4]
    assert np.isnan(features.codes(new)[4, 0])
    assert np.argmax(features.dense(new), axis=1).tolist() == [0, 2, 3, 3, 4]
    assert (np.count_nonzero(features.dense(new), axis=1) == 1).all()
    pooled = features.dense(pa.concat_tables([q, p]))
    assert pooled.var(axis=0).sum() == pytest.approx(1.0)


def test_an_unseen_level_where_none_was_other_is_all_zero():
    t = pa.table({"c": ["a", "b"] * 20})
    features = fitted(t, t)
    assert features.dense_names == ["c=a", "c=b"]
    assert features.dense(pa.table({"c": ["z"]})).tolist() == [[0.0, 0.0]]
    assert features.codes(pa.table({"c": ["z"]})).tolist() == [[2.0]]


def test_codes_have_the_same_level_whatever_the_type():
    q, p = pa.table({"zip": [8001, 9000] * 10}), pa.table({"zip": [8001.0, None] * 10})
    features = fitted(q, p, types={"zip": "categorical"})
    assert features.dense_names[:2] == ["zip=8001", "zip=9000"]
    got = features.codes(pa.table({"zip": ["8001", "9000", "08001"]}))[:, 0]
    assert got.tolist() == [0, 1, 2]
    encoded = pa.table({"zip": pa.array([9000, None, 7]).dictionary_encode()})
    assert features.codes(encoded)[[0, 2], 0].tolist() == [1, 2]


def test_ten_thousand_levels():
    rng = np.random.default_rng(0)
    t = pa.table({"id": [f"user {k}" for k in rng.integers(0, 10_000, 40_000)]})
    features = fitted(t, t)
    codes = features.codes(t)
    assert codes.max() == 250
    assert np.unique(codes).size == 251
    assert len(features.dense_names) <= 33
    assert np.isfinite(features.dense(t)).all()
    assert len(json.dumps(features.to_dict())) < 10_000


def test_an_endless_level_is_other():
    t = pa.table({"c": ["a" * 50_000] * 30 + ["b"] * 30 + ["c"] * 30})
    features = fitted(t, t)
    assert features.dense_names == ["c=b", "c=c", "c (other)"]


def test_instants():
    hours = [dt.datetime(2024, 1, 1) + dt.timedelta(hours=6 * h) for h in range(28)]
    t = pa.table({"t": hours})
    features = fitted(t, t)
    assert features.codes_names == ["t", "t (hour)", "t (weekday)"]
    codes = features.codes(t)
    assert codes[:5, 1].tolist() == [0, 6, 12, 18, 0]
    assert codes[::4, 2].tolist() == [0, 1, 2, 3, 4, 5, 6]  # 1 January 2024 was a Monday
    assert codes[1, 0] - codes[0, 0] == 6 * 3600
    sin = feature(features, t, "t (hour, sin)")
    assert sin[:4] == pytest.approx(np.array([0, 1, 0, -1]) / np.sqrt(2), abs=1e-12)
    days = pa.table({"t": [str(h.date()) for h in hours]})
    assert features.codes(days)[::4, 2].tolist() == [0, 1, 2, 3, 4, 5, 6]
    zoned = pa.table({"t": pa.array(hours, pa.timestamp("ms", "UTC"))})
    assert np.array_equal(features.dense(zoned), features.dense(t))
    months = pa.table({"t": [dt.date(2023, m, 15) for m in range(1, 13)]})
    fit = fitted(months, months)
    assert fit.codes(months)[:, fit.codes_names.index("t (month)")].tolist() == list(range(12))
    old = pa.table({"t": [dt.datetime(1969, 12, 31, 23), None]})
    assert features.codes(old)[0].tolist() == [-3600.0, 23.0, 2.0]
    assert np.isfinite(features.dense(old)).all()


def test_bike_days(shared_data):
    table = pq.read_table(shared_data / "bike_hourly.parquet")
    features = fitted(table.slice(0, 8000), table.slice(8000), {"weathersit": "categorical"})
    codes = features.codes(table)
    # weekday of the data counts Sunday as 0
    ours = codes[:, features.codes_names.index("dteday (weekday)")]
    assert np.array_equal((ours + 1) % 7, table["weekday"].to_numpy())
    ours = codes[:, features.codes_names.index("dteday (month)")]
    assert np.array_equal(ours + 1, table["mnth"].to_numpy())
    assert np.isfinite(features.dense(table)).all()


def test_word_counts():
    texts = pa.array(["To be, or not; to be!", "to be or not to be", "be to", "", None, "¿¡?"])
    counts = word_counts(texts).toarray()
    assert np.array_equal(counts[0], counts[1])
    assert not np.array_equal(counts[0], counts[2])
    assert np.linalg.norm(counts, axis=1) == pytest.approx([1, 1, 1, 0, 0, 0])
    # two words and one pair
    assert np.count_nonzero(counts[2]) == 3
    assert word_counts(pa.array([], pa.string())).shape == (0, 8192)
    one = word_counts(pa.array(["Ünïcode wörds"])).toarray()
    assert np.array_equal(one, word_counts(pa.array(["ÜNÏCODE, WÖRDS"])).toarray())


def test_text_domains_are_told_apart(shared_data):
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score

    table = pq.read_table(shared_data / "sentiment_3domains.parquet")
    domain = np.array(table["domain"].to_pylist())
    text = table.select(["text"])
    q, p = text.filter(pa.array(domain == "amazon")), text.filter(pa.array(domain == "imdb"))
    features = fitted(q, p)
    assert len(features.dense_names) == 34
    x = np.concatenate([features.dense(q), features.dense(p)])
    y = np.repeat([0, 1], [q.num_rows, p.num_rows])
    train = np.arange(y.size) % 2 == 0
    model = LogisticRegression().fit(x[train], y[train])
    auc = roc_auc_score(y[~train], model.decision_function(x[~train]))
    assert auc > 0.88  # 0.91 when written; all hashed words and pairs give 0.94
    again = Features().fit(p, q, infer_columns(p, q))
    assert np.array_equal(again.dense(q), features.dense(q))


def test_odd_texts():
    t = pa.table({"t": ["", None, "same same", "x" * 60_000, "日本語 のテキスト", "a b"]})
    features = fitted(t, t, {"t": "text"})
    assert np.isfinite(features.dense(t)).all()
    assert np.isnan(features.codes(t)[1]).all()
    for values in (["one"] * 4, ["", ""], [None, "a"]):
        t = pa.table({"t": pa.array(values, pa.string())})
        assert np.isfinite(fitted(t, t, {"t": "text"}).dense(t)).all()


def test_vectors(recipe, pair):
    names = [name for name in recipe.dense_names if name.startswith("vector")]
    assert names == ["vector[0]", "vector[1]", "vector[2]", "vector (missing)"]
    both = pa.concat_tables(pair)
    block = recipe.dense(both)[:, [recipe.dense_names.index(name) for name in names[:3]]]
    present = both["vector"].is_valid().to_numpy()
    assert block[present].var(axis=0).sum() == pytest.approx(1.0)
    assert (block[~present] == 0).all()
    raw = np.array(both["vector"].drop_null().to_pylist())
    distances = np.linalg.norm(block[present][:50, None] - block[present][None, :50], axis=2)
    expected = np.linalg.norm(raw[:50, None] - raw[None, :50], axis=2)
    factor = distances[0, 1] / expected[0, 1]
    assert np.allclose(distances, factor * expected)  # the geometry is kept
    with pytest.raises(DataError, match="vectors of length 3 and, at row 0, of length 2"):
        recipe.dense(both.slice(0, 1).set_column(6, "vector", pa.array([[1.0, 2.0]])))


def test_vectors_missing_on_one_side():
    q = pa.table({"v": pa.array([None, None], pa.list_(pa.float64()))})
    p = pa.table({"v": pa.array([[1.0, 2.0], [2.0, 5.0], None, None, None])})
    features = fitted(q, p)
    assert features.dense(q).shape == (2, 3)
    back = fitted(p, q)
    assert np.array_equal(back.dense(p), features.dense(p))
    nulls = pa.table({"v": pa.nulls(2)})
    assert fitted(nulls, p).dense(p).shape == (5, 3)


# ---------------------------------------------------------------------------- edges, errors


def test_infinite_values():
    values = np.arange(1000.0)
    values[[17, 40, 900]] = [np.inf, -np.inf, np.inf]
    t = pa.table({"age": values})
    column = [Column("age", "numeric", "double", "double")]
    message = (
        "column 'age' of q: 3 of 1000 values are infinite (first at row 17); "
        "drop them or pass infinite='missing'"
    )
    with pytest.raises(DataError) as error:
        Features().fit(t, t, column)
    assert str(error.value) == message
    with pytest.raises(DataError) as error:
        check_finite(t, 0, column, "q")
    assert str(error.value) == message
    with pytest.raises(
        DataError,
        match=r"of p: 1 of 100 values in the rows from 5,000 is infinite "
        r"\(first at row 5017\)",
    ):
        check_finite(pa.table({"age": np.r_[values[:18], np.zeros(82)]}), 5000, column, "p")
    features = Features(infinite="missing").fit(t, t, column)
    assert features.dense_names == ["age", "age (missing)"]
    assert np.isfinite(features.dense(t)).all()
    assert np.isnan(features.codes(t)[17, 0])
    clean = Features().fit(t.slice(100, 500), t.slice(100, 500), column)
    with pytest.raises(DataError, match=r"column 'age': 3 of 1000 values are infinite"):
        clean.dense(t)
    vectors = pa.table({"v": [[1.0, 2.0], [np.inf, 1.0]]})
    with pytest.raises(DataError, match="1 of 2 values is infinite"):
        check_finite(vectors, 0, infer_columns(vectors, vectors), "q")
    kept = fitted(vectors, vectors, infinite="missing")
    assert np.isfinite(kept.dense(vectors)).all()
    check_finite(pa.table({"c": ["a"]}), 0, [Column("c", "categorical", "string", "string")], "q")


def test_errors(recipe, pair):
    with pytest.raises(NotFittedError, match="call fit"):
        Features().dense(pair[0])
    with pytest.raises(DataError, match="the table has no column named 'money'"):
        recipe.dense(pair[0].drop_columns(["money"]))
    with pytest.raises(OptionError, match="Choose one of 'refuse', 'missing'"):
        Features(infinite="drop").fit(*pair, [])
    with pytest.raises(OptionError, match="Unknown kind 'number' for column 'x'"):
        Features().fit(*pair, [Column("x", "number", "double", "double")])
    empty = pa.table({"x": pa.array([], pa.float64())})
    with pytest.raises(DataError, match="both sides are empty"):
        Features().fit(empty, empty, [Column("x", "numeric", "double", "double")])
    bad = pair[0].set_column(0, "x", pa.array(["oops"] * 300))
    with pytest.raises(DataError, match="column 'x': 'oops' at row 0 is not a number"):
        recipe.codes(bad)


def test_no_rows_one_row_and_one_empty_side(recipe, pair):
    none = pair[0].slice(0, 0)
    assert recipe.dense(none).shape == (0, len(recipe.dense_names))
    assert recipe.codes(none).shape == (0, len(recipe.codes_names))
    one = pair[0].slice(0, 1)
    assert fitted(one, one).dense(one).shape == (1, 0)
    assert fitted(none, pair[1]).dense(pair[1]).shape[0] == 200
    assert repr(recipe).startswith("Features(infinite='refuse'): 8 columns -> ")
    assert repr(Features()) == "Features(infinite='refuse')"


def test_all_missing_and_all_constant_columns():
    t = pa.table({"n": pa.nulls(5), "x": pa.array([None] * 5, pa.float64()), "c": ["a"] * 5})
    features = fitted(t, t)
    assert features.dense(t).shape == (5, 0)
    assert features.codes(t).shape == (5, 3)
    assert np.isnan(features.codes(t)[:, :2]).all()
