"""The strangest rows: known answers, types that differ, failure texts."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from dpdq.errors import DataError, OptionError
from dpdq.shift import strangest_rows


def tables(n=200):
    rng = np.random.default_rng(0)
    q = pa.table({"a": rng.normal(size=n), "b": rng.normal(size=n), "c": ["x", "y"] * (n // 2)})
    p = pa.table({"a": rng.normal(size=n), "b": rng.normal(size=n), "c": ["x", "z"] * (n // 2)})
    return q, p


def score(table):
    """2 a + [c = z]: b has no say."""
    strange = np.array([v == "z" for v in table["c"].to_pylist()])
    return 2 * table["a"].to_numpy() + strange


def test_names_the_column_that_was_changed():
    q, p = tables()
    value = p["a"].to_numpy().copy()
    value[17] = 9.0
    p = p.set_column(0, "a", pa.array(value))
    rows = strangest_rows(score(p), score, p, q, ids=[f"id{i}" for i in range(200)])
    assert len(rows) == 10
    assert rows[0].row == 17
    assert rows[0].id == "id17"
    assert rows[0].log_ratio == pytest.approx(19.0)
    assert [part.name for part in rows[0].columns] == ["a", "c"]
    # linear score: the drop is 2 (9 - mean of the drawn a of q), whose sd is 2 / sqrt(32)
    assert rows[0].columns[0].contribution == pytest.approx(18, abs=5 * 2 / np.sqrt(32))
    assert rows[0].columns[1].contribution == pytest.approx(1.0)
    assert rows[0].columns[0].value == "9"
    assert [row.log_ratio for row in rows] == sorted(score(p), reverse=True)[:10]
    assert list(rows[0].to_dict()) == ["row", "id", "log_ratio", "columns"]
    assert list(rows[0].to_dict()["columns"][0]) == ["name", "value", "contribution"]


def test_the_score_is_called_once_with_whole_rows():
    q, p = tables()
    calls = []

    def counting(table):
        calls.append((table.num_rows, table.column_names))
        return score(table)

    strangest_rows(score(p), counting, p, q, max_rows=4, columns=["a"], n_replacements=8)
    assert calls == [(4 + 4 * 8, ["a", "b", "c"])]


def test_at_most_three_columns_and_only_positive_ones():
    q = pa.table({name: np.zeros(5) for name in "abcde"})
    p = pa.table({name: [float(i)] for i, name in enumerate("abcde", 1)})

    def total(table):
        return sum(table[name].to_numpy() for name in "abcd") - table["e"].to_numpy()

    rows = strangest_rows(total(p), total, p, q)
    assert [part.name for part in rows[0].columns] == ["d", "c", "b"]
    only = strangest_rows(total(p), total, p, q, columns=["a", "e"])
    assert [part.name for part in only[0].columns] == ["a"]


def test_ties_are_ordered_by_row_and_numbers_kept():
    q, p = tables()
    rows = strangest_rows(
        np.zeros(200), score, p, q, max_rows=3, row_numbers=np.arange(200)[::-1] * 10
    )
    assert [row.row for row in rows] == [0, 10, 20]
    assert rows[0].id is None


def test_types_may_differ_between_the_sides():
    q = pa.table({"z": pa.array([1, 2, 3]), "t": pa.array(["x", None, "y"]).dictionary_encode()})
    p = pa.table({"z": pa.array(["b", "c"]), "t": pa.array(["v" * 200, None])})

    def length(table):
        return np.asarray(pc.fill_null(pc.utf8_length(table["t"]), 0).to_numpy(), dtype=float)

    rows = strangest_rows(length(p), length, p, q, ids=pa.array([7, 8]))
    assert rows[0].id == 7
    assert len(rows[0].columns[0].value) == 80
    assert rows[0].columns[0].value.endswith("…")
    assert rows[1].columns == ()
    nested = pa.table({"z": ["b"], "t": ["w"], "e": [[0.5] * 9]})
    other = pa.table({"z": ["b"], "t": [None], "e": [[0.0] * 9]}).cast(nested.schema)

    def first(table):
        return np.array([v[0] for v in table["e"].to_pylist()])

    found = strangest_rows(first(nested), first, nested, other)
    assert found[0].columns[0].value == "[0.5, 0.5, 0.5, 0.5, … 9 values]"


def test_missing_values_are_shown():
    q = pa.table({"a": [0.0, 1.0]})
    p = pa.table({"a": pa.array([None, float("nan")])})

    def missing(table):
        return np.isnan(table["a"].to_numpy(zero_copy_only=False)).astype(float)

    assert strangest_rows(np.ones(2), missing, p, q)[0].columns[0].value == "missing"


def test_failure_texts():
    q, p = tables()
    with pytest.raises(DataError, match=r"log_ratio_p: shape \(3,\) for 200 rows of p"):
        strangest_rows(np.zeros(3), score, p, q)
    with pytest.raises(DataError, match="q has no rows"):
        strangest_rows(np.zeros(200), score, p, q.slice(0, 0))
    with pytest.raises(DataError, match="log_ratio_p: 200 values are NaN"):
        strangest_rows(np.full(200, np.nan), score, p, q)
    with pytest.raises(DataError, match="ids: 2 values for 200 rows of p"):
        strangest_rows(np.zeros(200), score, p, q, ids=[1, 2])
    with pytest.raises(DataError, match="q has no column 'd'|p has no column 'd'"):
        strangest_rows(np.zeros(200), score, p, q, columns=["d"])
    with pytest.raises(OptionError, match="max_rows is 0"):
        strangest_rows(np.zeros(200), score, p, q, max_rows=0)
    with pytest.raises(DataError, match=r"score gave shape \(1,\) for"):
        strangest_rows(np.zeros(200), lambda t: np.zeros(1), p, q)


def test_numbers_beside_words_are_compared_as_text():
    p = pa.table({"code": [1, 2, 7]})
    q = pa.table({"code": ["a", "b", "c", "d"]})

    def score(table):
        assert table.schema.field("code").type == pa.string()
        return np.array([5.0 if value == "7" else 0.0 for value in table["code"].to_pylist()])

    (row,) = strangest_rows(np.array([0.0, 0.0, 5.0]), score, p, q, max_rows=1, random_state=0)
    assert row.row == 2
    assert row.columns[0].name == "code"
    assert row.columns[0].contribution == 5.0
