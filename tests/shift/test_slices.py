"""Slices: known answers, the false-alarm rate, coverage, failure texts, real data."""

import datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dpdq.errors import DataError, OptionError
from dpdq.shift import find_slices
from dpdq.shift._literals import column_values, round_between
from dpdq.shift._slice_counts import _binomial_bounds, _fisher

KINDS = [("a", "numeric"), ("b", "numeric"), ("c", "categorical"), ("d", "boolean")]
KEYS = [
    "rule", "conditions", "share_q", "share_p", "ratio", "low", "high", "pvalue_adjusted",
    "n_q", "n_p",
]  # fmt: skip


def draw(rng, n, **changes):
    columns = {
        "a": rng.normal(size=n),
        "b": rng.integers(0, 20, n),
        "c": np.array(list("vwxyz"))[rng.integers(0, 5, n)],
        "d": rng.random(n) < 0.3,
    }
    return pa.table(columns | changes)


def test_finds_a_planted_level_and_says_its_ratio():
    rng = np.random.default_rng(0)
    levels = np.array(list("vwxyz"))
    q = draw(rng, 8000)
    p = draw(rng, 8000, c=levels[rng.choice(5, 8000, p=[0.4, 0.15, 0.15, 0.15, 0.15])])
    found = find_slices(q=q, p=p, columns=KINDS)
    assert found[0].rule == "c = v"
    assert found[0].low < 2.0 < found[0].high
    assert found[0].share_p == pytest.approx(0.4, abs=0.04)
    assert found[0].ratio == pytest.approx(found[0].share_p / found[0].share_q)
    document = found[0].to_dict()
    assert list(document) == KEYS
    assert document["conditions"] == [{"column": "c", "op": "=", "value": "v"}]


def test_a_pair_is_reported_where_neither_part_tells():
    # exclusive or: each margin is the same on both sides, only the corners differ
    rng = np.random.default_rng(1)
    x_q, y_q = rng.random(6000), rng.random(6000)
    x_p, y_p = rng.random(6000), rng.random(6000)
    swap = (x_p > 0.5) != (y_p > 0.5)
    y_p = np.where(swap & (rng.random(6000) < 0.8), (y_p + 0.5) % 1, y_p)
    q, p = pa.table({"x": x_q, "y": y_q}), pa.table({"x": x_p, "y": y_p})
    found = find_slices(q=q, p=p, columns=[("x", "numeric"), ("y", "numeric")])
    assert len(found[0].conditions) == 2
    assert {c.column for c in found[0].conditions} == {"x", "y"}
    singles = find_slices(q=q, p=p, columns=[("x", "numeric"), ("y", "numeric")], max_conditions=1)
    assert singles == []


def test_a_single_is_not_dressed_up_as_a_pair():
    rng = np.random.default_rng(2)
    q, p = draw(rng, 6000), draw(rng, 6000, a=rng.normal(0.8, 1, 6000))
    found = find_slices(q=q, p=p, columns=KINDS)
    assert found
    assert all(len(s.conditions) == 1 for s in found)
    assert {s.conditions[0].column for s in found} == {"a"}


def test_both_directions_and_no_complements():
    rng = np.random.default_rng(3)
    q, p = draw(rng, 6000), draw(rng, 6000, d=rng.random(6000) < 0.6)
    found = [s.rule for s in find_slices(q=q, p=p, columns=KINDS)]
    assert len(found) == 1  # "d = true" and "d = false" are one fact


def test_a_slice_absent_from_q_has_a_one_sided_interval():
    rng = np.random.default_rng(4)
    q = draw(rng, 3000)
    p = draw(rng, 3000, c=np.where(rng.random(3000) < 0.2, "new", "v"))
    found = next(s for s in find_slices(q=q, p=p, columns=KINDS) if s.rule == "c = new")
    assert found.ratio == float("inf")
    assert found.high is None
    assert found.low > 10
    assert found.to_dict()["ratio"] is None
    gone = next(s for s in find_slices(q=p, p=q, columns=KINDS) if s.rule == "c = new")
    assert gone.ratio == 0.0
    assert gone.low == 0.0
    assert gone.high < 0.1


def test_missing_values_are_a_slice():
    rng = np.random.default_rng(5)
    holes = np.where(rng.random(4000) < 0.3, np.nan, rng.normal(size=4000))
    found = find_slices(q=draw(rng, 4000), p=draw(rng, 4000, a=holes), columns=KINDS)
    assert found[0].rule == "a is missing"
    assert found[0].to_dict()["conditions"] == [{"column": "a", "op": "is missing", "value": None}]


def test_times_are_cut_at_midnight():
    rng = np.random.default_rng(6)
    start = np.datetime64("2024-01-01T00:00:00", "s")
    q = pa.table({"t": start + rng.integers(0, 366 * 86400, 4000).astype("timedelta64[s]")})
    p = pa.table({"t": start + rng.integers(180 * 86400, 366 * 86400, 4000).astype("m8[s]")})
    found = find_slices(q=q, p=p, columns=[("t", "datetime")])
    cut = found[0].conditions[0].value
    assert datetime.date.fromisoformat(cut).year == 2024


def test_types_may_differ_between_the_sides():
    rng = np.random.default_rng(7)
    codes = rng.integers(0, 3, 2000)
    q = pa.table({"zip": codes})
    p = pa.table({"zip": np.where(rng.random(2000) < 0.5, 2.0, codes)})
    found = find_slices(q=q, p=p, columns=[("zip", "categorical")])
    assert found[0].rule == "zip = 2"
    encoded = pa.table({"zip": pa.array(["a", None, "b"]).dictionary_encode()})
    assert column_values(encoded, "zip", "categorical").tolist() == ["a", None, "b"]


def test_values_are_read_as_features_read_them():
    rng = np.random.default_rng(14)
    words = np.array(["no", "YES"])[(rng.random(2000) < 0.7).astype(int)]
    q = pa.table({"d": rng.random(2000) < 0.3, "t": ["2024-01-01"] * 2000, "e": [" "] * 2000})
    p = pa.table({"d": words, "t": ["2024-02-01"] * 2000, "e": [""] * 2000})
    kinds = [("d", "boolean"), ("t", "datetime"), ("e", "categorical")]
    each = [find_slices(q, p, [kind])[0].rule for kind in kinds]
    assert each == ["d = true", "t <= 2024-01-01", "e = ''"]


def test_false_alarm_rate():
    # P(any slice | q = p) <= 5 %: above 27 of 200 has probability below 1e-6
    rng = np.random.default_rng(8)
    alarms = sum(
        bool(find_slices(draw(rng, 400), draw(rng, 300), KINDS, random_state=i)) for i in range(200)
    )
    assert alarms <= 27


def test_false_alarm_rate_with_units():
    # rows of a unit are copies of each other; above 18 of 100 has probability below 1e-6
    rng = np.random.default_rng(9)
    unit = np.repeat(np.arange(40), 10)

    def side():
        return draw(rng, 40).take(unit)

    alarms = sum(
        bool(find_slices(side(), side(), KINDS, units_q=unit, units_p=unit + 40, random_state=i))
        for i in range(100)
    )
    assert alarms <= 18
    with_rows = sum(bool(find_slices(side(), side(), KINDS, random_state=i)) for i in range(20))
    assert with_rows >= 10  # taken as rows, the same data cry wolf


def test_units_find_a_real_shift():
    rng = np.random.default_rng(10)
    unit = np.repeat(np.arange(200), 5)
    q = draw(rng, 200).take(unit)
    p = draw(rng, 200, a=rng.normal(1, 1, 200)).take(unit)
    found = find_slices(q, p, KINDS, units_q=unit, units_p=unit + 200)
    assert found
    assert all(s.conditions[0].column == "a" for s in found)
    half = unit % 2 == 0
    options = {"max_conditions": 1, "halves_q": half, "halves_p": half}
    rows = {s.rule: s for s in find_slices(q, p, KINDS, **options)}
    whole = find_slices(q, p, KINDS, units_q=unit, units_p=unit + 200, **options)
    for s in whole:  # five copies of a row are one observation: intervals sqrt(5) wider
        wider = np.log(s.high / s.low) / np.log(rows[s.rule].high / rows[s.rule].low)
        assert 1.5 < wider < 4


def test_intervals_cover_the_true_ratio():
    # P(c = v) is 0.2 on q and 0.3 on p: ratio 1.5. At 95 %, fewer than 172 of 200 has
    # probability below 1e-6; a slice that is not confirmed is not counted against coverage.
    rng = np.random.default_rng(11)
    levels = np.array(list("vw"))
    covered = reported = 0
    for i in range(200):
        q = pa.table({"c": levels[(rng.random(2000) > 0.2).astype(int)]})
        p = pa.table({"c": levels[(rng.random(2000) > 0.3).astype(int)]})
        for s in find_slices(q, p, [("c", "categorical")], random_state=i):
            truth = 1.5 if s.rule == "c = v" else 0.7 / 0.8
            reported += 1
            covered += s.low <= truth <= s.high
    assert reported >= 190
    assert covered >= 0.86 * reported


def test_halves_given_are_halves_used():
    rng = np.random.default_rng(12)
    q, p = draw(rng, 2000), draw(rng, 2000, a=rng.normal(1, 1, 2000))
    half = np.arange(2000) % 2 == 0
    found = find_slices(q, p, KINDS, halves_q=half, halves_p=half)
    held_q = q.filter(pa.array(~half))["a"].to_numpy()
    cut = found[0].conditions[0]
    inside = held_q <= cut.value if cut.op == "<=" else held_q > cut.value
    assert found[0].n_q == inside.sum()
    assert found == find_slices(q, p, KINDS, halves_q=half, halves_p=half, random_state=5)


def test_same_seed_same_slices():
    rng = np.random.default_rng(13)
    q, p = draw(rng, 3000), draw(rng, 3000, a=rng.normal(1, 1, 3000))
    assert find_slices(q, p, KINDS, max_rows=1000) == find_slices(q, p, KINDS, max_rows=1000)


def test_constant_and_text_columns_give_nothing():
    q = pa.table({"k": ["x"] * 100, "t": ["some words"] * 100})
    assert find_slices(q, q, [("k", "categorical"), ("t", "text")]) == []
    assert find_slices(q.slice(0, 1), q, [("k", "categorical")]) == []


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(30.2, 31.9, 31), (0.12, 0.18, 0.15), (-3, 2, 0), (7, 7, 7), (980, 1100, 1000),
     (1.04e-5, 1.15e-5, 1.1e-5), (-52.3, -48.8, -50)],
)  # fmt: skip
def test_round_between(low, high, expected):
    assert round_between(low, high) == pytest.approx(expected, rel=1e-12)


def test_exact_tests_against_scipy():
    stats = pytest.importorskip("scipy.stats")
    for table in [(3, 20, 9, 25), (0, 10, 5, 12), (50, 400, 80, 300), (2, 5, 2, 5)]:
        k_q, n_q, k_p, n_p = table
        expected = stats.fisher_exact([[k_q, n_q - k_q], [k_p, n_p - k_p]]).pvalue
        assert _fisher(*table) == pytest.approx(expected, rel=1e-6)
    interval = stats.binomtest(3, 20).proportion_ci(0.9)
    assert _binomial_bounds(3, 20, 0.9) == pytest.approx((interval.low, interval.high))


def test_failure_texts():
    table = pa.table({"a": [1.0, 2.0]})
    with pytest.raises(DataError, match="p has no rows; slices need rows on both sides"):
        find_slices(table, table.slice(0, 0), [("a", "numeric")])
    with pytest.raises(DataError, match="q has no column 'b'; name columns of both sides"):
        find_slices(table, table, [("b", "numeric")])
    with pytest.raises(OptionError, match="max_conditions is 3; choose 1 or 2"):
        find_slices(table, table, [("a", "numeric")], max_conditions=3)
    with pytest.raises(OptionError, match="max_slices is 0"):
        find_slices(table, table, [("a", "numeric")], max_slices=0)
    with pytest.raises(OptionError, match="min_share is 1"):
        find_slices(table, table, [("a", "numeric")], min_share=1)
    with pytest.raises(OptionError, match="max_rows is 1"):
        find_slices(table, table, [("a", "numeric")], max_rows=1)
    with pytest.raises(DataError, match="halves are given for one side only"):
        find_slices(table, table, [("a", "numeric")], halves_q=np.array([True, False]))
    half = np.array([True])
    with pytest.raises(DataError, match="halves_q: bool of shape .* each of the 2 rows"):
        find_slices(table, table, [("a", "numeric")], halves_q=half, halves_p=half)
    text = pa.table({"a": ["x", "y"]})
    with pytest.raises(DataError, match="column 'a'.*'x' .*is not a number"):
        find_slices(text, text, [("a", "numeric")])


def test_adult_by_age(shared_data):
    table = pq.read_table(shared_data / "adult.parquet")
    kinds = [
        (f.name, "categorical" if pa.types.is_dictionary(f.type) else "numeric")
        for f in table.schema
    ]
    age = table["age"].to_numpy()
    q, p = table.filter(pa.array(age < 40)), table.filter(pa.array(age >= 40))
    found = find_slices(q, p, [k for k in kinds if k[0] != "age"])
    rules = [s.rule for s in found]
    assert "marital-status = Never-married" in rules
    assert any(s.ratio > 1.5 for s in found)
    married = next(s for s in found if s.rule == "marital-status = Never-married")
    exact = [
        np.mean(np.array(side["marital-status"].to_pylist()) == "Never-married") for side in (q, p)
    ]
    assert married.low < exact[1] / exact[0] < married.high
    obvious = find_slices(q, p, kinds)[0]
    assert obvious.conditions[0].column == "age"
