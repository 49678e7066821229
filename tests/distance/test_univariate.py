"""One column and whole tables: levels, power, missing values, units, invariances, real data."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from dpdq.distance.univariate import (
    KINDS,
    ColumnTests,
    compare_column,
    false_discovery_rate,
    univariate_tests,
)
from dpdq.errors import DataError, OptionError

WORDS = np.array(["a", "the", "of", "in", "to", "drift", "shift", "ratio", "weights", "sample"])


def draw(kind, n, rng):
    if kind == "numeric":
        return rng.standard_t(2, size=n)
    if kind == "boolean":
        return rng.random(n) < 0.3
    if kind == "categorical":
        return rng.choice(list("abcdefgh"), n, p=np.array([30, 20, 10, 10, 10, 10, 5, 5]) / 100)
    if kind == "datetime":
        return np.datetime64("2024-01-01", "us") + rng.integers(0, 10**13, n)
    if kind == "text":
        return pa.array([" ".join(rng.choice(WORDS, rng.integers(1, 9))) for _ in range(n)])
    return rng.normal(size=(n, 4))


def move(kind, values):
    """The same column after a change that each kind's test must see."""
    if kind == "numeric":
        return values + 0.7
    if kind == "boolean":
        return values | (np.arange(len(values)) % 3 == 0)
    if kind == "categorical":
        return np.where(np.arange(len(values)) % 4 == 0, "z", values)
    if kind == "datetime":
        return values + np.timedelta64(40, "D")
    if kind == "text":
        return pa.array([value + " and some more" for value in values.to_pylist()])
    return values * 1.4


def most_rejections(draws, alpha):
    return stats.binom.isf(1e-7, draws, alpha)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sizes", [(30, 60), (220, 300)])
def test_level_of_every_kind(kind, sizes):
    """A valid test rejects more often than the limit here with probability below 1e-6."""
    rng = np.random.default_rng(KINDS.index(kind))
    draws = 200
    pvalues = []
    for seed in range(draws):
        q, p = draw(kind, sizes[0], rng), draw(kind, sizes[1], rng)
        pvalues.append(compare_column(q, p, kind, n_permutations=99, seed=seed).pvalue)
    for alpha in (0.05, 0.2):
        assert np.sum(np.array(pvalues) <= alpha) <= most_rejections(draws, alpha)
    assert np.mean(np.array(pvalues) <= 0.5) > 0.15


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_sees_its_change(kind):
    rng = np.random.default_rng(10 + KINDS.index(kind))
    q, p = draw(kind, 400, rng), move(kind, draw(kind, 500, rng))
    found = compare_column(q, p, kind, name="x", weights_q=np.ones(400))
    assert found.pvalue < 1e-4
    assert found.effect["low"] > 0
    assert found.psi > found.effect["estimate"]
    assert 0 < found.jensen_shannon <= np.log(2)
    assert (found.wasserstein is None) == (kind in ("boolean", "categorical"))
    assert sum(found.histogram.q_weighted) == pytest.approx(1)
    json.dumps(found.to_dict(), allow_nan=False)


def test_the_numbers_of_a_numeric_column():
    rng = np.random.default_rng(20)
    q, p = rng.gamma(2, size=700), rng.gamma(2.5, size=500)
    found = compare_column(q, p, "numeric")
    assert found.wasserstein == pytest.approx(stats.wasserstein_distance(q, p))
    spread = np.sqrt((q.var(ddof=1) + p.var(ddof=1)) / 2)
    assert found.wasserstein_standardised == pytest.approx(found.wasserstein / spread)
    assert found.smd == pytest.approx((p.mean() - q.mean()) / spread)
    assert found.smd_low < found.smd < found.smd_high
    summary = found.summary["q"]
    assert summary["mean"] == pytest.approx(q.mean())
    assert summary["sd"] == pytest.approx(q.std(ddof=1))
    assert [summary[k] for k in ("min", "q25", "median", "q75", "max")] == pytest.approx(
        np.quantile(q, [0, 0.25, 0.5, 0.75, 1])
    )
    assert found.missing == {"q": 0.0, "p": 0.0}
    assert found.missing_test is None


@pytest.mark.parametrize("test", ["ad", "ks", "cvm", "chi2", "g"])
def test_chosen_tests(test):
    rng = np.random.default_rng(21)
    q, p = rng.normal(size=600), rng.normal(size=500) + 0.4
    found = compare_column(q, p, "numeric", test=test)
    assert found.pvalue < 1e-4
    if test == "ks":
        assert found.statistic == pytest.approx(stats.ks_2samp(q, p).statistic)
    few = rng.integers(0, 5, 600)
    assert compare_column(few, few[:500], "numeric", test=test).pvalue > 0.5
    if test == "chi2":
        table = [np.bincount(few, minlength=5), np.bincount(few[:500], minlength=5)]
        same = compare_column(few, few[:500], "numeric", test=test).statistic
        assert same == pytest.approx(stats.chi2_contingency(table).statistic)


def test_instants_are_seconds():
    when = np.datetime64("2024-01-01", "us") + np.arange(400) * np.timedelta64(3600, "s")
    found = compare_column(when, when + np.timedelta64(90, "s"), "datetime")
    assert found.wasserstein == pytest.approx(90)
    assert found.summary["q"]["min"] == "2024-01-01"
    assert found.summary["p"]["min"] == "2024-01-01T00:01:30"
    assert found.summary["q"]["sd"] == pytest.approx(np.std(np.arange(400) * 3600, ddof=1))


def test_missing_values_are_tested_beside_the_values():
    rng = np.random.default_rng(22)
    q, p = rng.normal(size=1000), rng.normal(size=1000)
    p[:60] = np.nan
    found = compare_column(q, p, "numeric")
    assert found.missing == {"q": 0.0, "p": 0.06}
    alone = compare_column(q, p[60:], "numeric").pvalue
    exact = stats.fisher_exact([[0, 60], [1000, 940]]).pvalue
    assert found.missing_test["pvalue"] == pytest.approx(exact, rel=1e-6)
    assert found.pvalue == pytest.approx(2 * exact, rel=1e-6)
    assert found.missing_test["difference"]["low"] > 0.04
    assert found.effect["low"] > 0  # missing is a bin
    p[:] = q
    q[::20] = p[1::20] = np.nan
    again = compare_column(q, p, "numeric")
    assert again.missing_test["pvalue"] == 1.0
    assert alone > 0.001


@pytest.mark.parametrize("kind", KINDS)
def test_empty_constant_and_missing_sides(kind):
    rng = np.random.default_rng(23)
    values = draw(kind, 30, rng)
    gone = pa.nulls(20)
    found = compare_column(values, gone, kind)
    assert found.missing == {"q": 0.0, "p": 1.0}
    assert found.statistic is None
    assert found.pvalue < 1e-6
    assert found.effect["high"] is None
    both = compare_column(gone, gone, kind)
    assert both.pvalue == 1.0
    one = values[:1] if isinstance(values, np.ndarray) else values.slice(0, 1)
    single = compare_column(one, one, kind)
    assert single.pvalue == 1.0
    json.dumps([found.to_dict(), both.to_dict(), single.to_dict()], allow_nan=False)
    with pytest.raises(DataError, match="column 'x' has no rows in p"):
        compare_column(values, values[:0], kind, name="x")


def test_constants():
    same = compare_column(np.full(300, 0.1), np.full(400, 0.1), "numeric")
    assert (same.statistic, same.pvalue, same.smd, same.wasserstein) == (0.0, 1.0, 0.0, 0.0)
    other = compare_column(np.full(300, 0.1), np.full(400, 0.2), "numeric")
    assert other.pvalue < 1e-100
    assert other.smd is None
    assert other.wasserstein == pytest.approx(0.1)
    assert other.wasserstein_standardised is None
    level = compare_column(np.full(300, "a"), np.full(400, "a"), "categorical")
    assert (level.statistic, level.pvalue, level.smd) == (0.0, 1.0, 0.0)


def test_infinite_values_are_missing_here():
    found = compare_column(np.array([1.0, np.inf, 2.0]), np.array([1.0, -np.inf]), "numeric")
    assert found.missing == {"q": pytest.approx(1 / 3), "p": 0.5}


def test_ten_thousand_levels():
    rng = np.random.default_rng(24)
    levels = np.array([f"id {k}" for k in range(10_000)])
    q, p = levels[rng.integers(0, 10_000, 60_000)], levels[rng.integers(0, 10_000, 50_000)]
    found = compare_column(q, p, "categorical")
    assert found.pvalue > 1e-4
    assert found.effect["low"] == 0.0
    assert len(found.histogram.q) == 13
    p = np.where(rng.random(50_000) < 0.05, "id 3", p)
    assert compare_column(q, p, "categorical").pvalue < 1e-100


def test_physical_types_do_not_matter():
    rng = np.random.default_rng(25)
    q, p = rng.integers(0, 9, 400), rng.integers(0, 9, 300)
    plain = compare_column(q, p, "numeric")
    for cast in (np.float64, np.int8, np.uint16):
        assert compare_column(q.astype(cast), p, "numeric") == plain
    chunks = pa.chunked_array([pa.array(q[:100]), pa.array(q[100:])])
    assert compare_column(chunks, pa.array(p, pa.float32()), "numeric") == plain
    words, more = q.astype(str), p.astype(str)
    level = compare_column(words, more, "categorical")
    coded = pa.array(words).dictionary_encode()
    assert compare_column(coded, pa.array(more), "categorical") == level
    assert compare_column(q, more, "categorical") == level
    large = pa.array(more, pa.large_string())
    assert compare_column(q.astype(float), large, "categorical") == level


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(KINDS), st.integers(2, 40), st.integers(2, 40), st.integers(0, 99))
def test_invariances(kind, n, m, seed):
    """The order of rows changes nothing at all; exchanging q and p leaves the p-value."""
    rng = np.random.default_rng(seed)
    q, p = draw(kind, n, rng), draw(kind, m, rng)
    found = compare_column(q, p, kind, n_permutations=39)
    order = rng.permutation(n)
    shuffled = q[order] if isinstance(q, np.ndarray) else q.take(pa.array(order))
    assert compare_column(shuffled, p, kind, n_permutations=39) == found
    back = compare_column(p, q, kind, n_permutations=39)
    assert back.pvalue == pytest.approx(found.pvalue, rel=1e-12)
    assert back.statistic == pytest.approx(found.statistic, rel=1e-9, abs=1e-12)
    assert back.jensen_shannon == pytest.approx(found.jensen_shannon, abs=0.7)


# ------------------------------------------------------------------------------------------ units


def grouped(n_units, size, rng, offset=0.0):
    units = np.repeat(np.arange(n_units), size)
    return rng.normal(size=n_units)[units] + 0.3 * rng.normal(size=len(units)) + offset, units


def test_units_keep_the_level_where_rows_do_not():
    rng = np.random.default_rng(26)
    draws = 120
    by_unit, by_row = [], []
    for seed in range(draws):
        (q, units_q), (p, units_p) = grouped(12, 25, rng), grouped(15, 25, rng)
        found = compare_column(
            q, p, "numeric", units_q=units_q, units_p=units_p + 100, n_permutations=99, seed=seed
        )
        by_unit.append(found.pvalue)
        by_row.append(compare_column(q, p, "numeric").pvalue)
    assert np.sum(np.array(by_unit) <= 0.1) <= most_rejections(draws, 0.1)
    assert np.mean(np.array(by_row) <= 0.1) > 0.5


def test_units_on_both_sides_swap():
    rng = np.random.default_rng(27)
    draws = 120
    null, shifted = [], []
    for seed in range(draws):
        base = rng.normal(size=20)
        q_units, p_units = np.repeat(np.arange(20), 6), np.repeat(np.arange(20), 9)
        q = base[q_units] + 0.3 * rng.normal(size=120)
        p = base[p_units] + 0.3 * rng.normal(size=180)
        options = {"units_q": q_units, "units_p": p_units, "n_permutations": 99, "seed": seed}
        null.append(compare_column(q, p, "numeric", **options).pvalue)
        if seed < 10:  # far less than the spread between units: only pairs see it
            shifted.append(compare_column(q, p + 0.5, "numeric", **options).pvalue)
    assert np.sum(np.array(null) <= 0.1) <= most_rejections(draws, 0.1)
    assert max(shifted) <= 0.05


def test_single_rows_as_units_give_the_row_test():
    rng = np.random.default_rng(28)
    q, p = rng.normal(size=300), rng.normal(size=250) + 0.15
    rows = compare_column(q, p, "numeric")
    units = compare_column(
        q, p, "numeric", units_q=np.arange(300), units_p=1000 + np.arange(250), n_permutations=4999
    )
    assert units.pvalue_method == "4999 permutations of units"
    assert abs(units.pvalue - rows.pvalue) < 0.03
    assert units.smd_low == pytest.approx(rows.smd_low, rel=0.02)
    assert units.effect["low"] == pytest.approx(rows.effect["low"], abs=0.02)


@pytest.mark.parametrize("kind", KINDS)
def test_units_with_every_kind(kind):
    rng = np.random.default_rng(29)
    q, p = draw(kind, 60, rng), draw(kind, 60, rng)
    p = (
        pa.concat_arrays([pa.array(p).slice(0, 50), pa.nulls(10, pa.array(p).type)])
        if (kind != "embedding")
        else p
    )
    units = np.arange(60) // 6
    found = compare_column(q, p, kind, units_q=units, units_p=units + 5, n_permutations=99)
    assert 0 < found.pvalue <= 1
    assert found.effect["low"] >= 0
    one = compare_column(q, p, kind, units_q=units * 0, units_p=units * 0 + 1, n_permutations=99)
    assert one.pvalue == 1.0
    assert one.effect["low"] is None
    json.dumps([found.to_dict(), one.to_dict()], allow_nan=False)


# ----------------------------------------------------------------------------------------- tables


def test_false_discovery_rate_matches_scipy():
    rng = np.random.default_rng(30)
    for _ in range(20):
        pvalues = rng.random(15) ** 3
        pvalues[3] = pvalues[4]
        for method in ("bh", "by"):
            np.testing.assert_allclose(
                false_discovery_rate(pvalues, method),
                stats.false_discovery_control(pvalues, method=method),
                rtol=1e-12,
            )
    assert false_discovery_rate([None, 0.02, float("nan")]) == [None, 0.02, None]
    assert false_discovery_rate([]) == []
    with pytest.raises(OptionError, match="Unknown method 'holm'"):
        false_discovery_rate([0.1], "holm")
    with pytest.raises(DataError, match="between 0 and 1"):
        false_discovery_rate([1.1])


def test_false_discoveries_are_few():
    rng = np.random.default_rng(31)
    shares = []
    for _ in range(200):
        z = rng.normal(size=40)
        z[:10] += 3
        adjusted = np.array(false_discovery_rate(2 * stats.norm.sf(np.abs(z))))
        found = np.flatnonzero(adjusted <= 0.2)
        shares.append(np.mean(found >= 10) if len(found) else 0.0)
    # expectation at most 0.2 * 30 / 40; each share lies in [0, 1]
    assert np.mean(shares) <= 0.15 + 5.5 * np.std(shares) / np.sqrt(200)


def mixed(n, rng, shift=0.0):
    return pa.table({
        "same": rng.normal(size=n),
        "moved": rng.normal(size=n) + shift,
        "level": rng.choice(["x", "y", "z"], n),
        "flag": pa.array(rng.random(n) < 0.5 + shift / 4),
        "when": np.datetime64("2024-01-01", "us") + rng.integers(0, 10**13, n),
    })  # fmt: skip


def test_a_table():
    rng = np.random.default_rng(32)
    q, p = mixed(600, rng), mixed(500, rng, shift=0.6)
    found = univariate_tests(q, p, random_state=0)
    assert isinstance(found, ColumnTests)
    assert found.rows[0].name == "moved"
    assert set(found.shifted) == {"moved", "flag"}
    assert found["when"].kind == "datetime"
    assert (found.n_q, found.n_p) == (600, 500)
    estimates = [row.effect["estimate"] for row in found.rows]
    assert estimates == sorted(estimates, reverse=True)
    frame = found.to_frame()
    assert frame.num_rows == 5
    assert frame["effect_low"].to_pylist()[0] > 0
    json.dumps(found.to_dict(), allow_nan=False)
    assert "* moved" in repr(found)
    assert univariate_tests(q, p, tolerance=0.2, random_state=0).shifted == ["moved"]
    by = univariate_tests(q, p, adjust="by", tests="ks", random_state=0)
    assert by["moved"].test == "Kolmogorov-Smirnov"
    assert by["level"].test == "chi-square"
    raw = univariate_tests(q, p, adjust=None, columns={"same": "numeric"}, random_state=0)
    assert [row.pvalue_adjusted for row in raw.rows] == [raw["same"].pvalue]


def test_threads_and_containers_change_nothing():
    pd = pytest.importorskip("pandas")
    rng = np.random.default_rng(33)
    q, p = mixed(150, rng), mixed(180, rng, shift=0.3)
    one = univariate_tests(q, p, n_jobs=1, random_state=5)
    assert univariate_tests(q, p, n_jobs=4, random_state=5).to_dict() == one.to_dict()
    frames = univariate_tests(pd.DataFrame(q.to_pandas()), p.to_pandas(), random_state=5)
    assert [row.pvalue for row in frames.rows] == [row.pvalue for row in one.rows]
    some = univariate_tests(q, p, columns=["flag", "same"], random_state=5)
    assert some["flag"].pvalue == one["flag"].pvalue
    matrix = univariate_tests(rng.normal(size=(50, 3)), rng.normal(size=(40, 3)), random_state=0)
    assert len(matrix.rows) == 3


def test_adult_by_age(shared_data):
    table = pq.read_table(shared_data / "adult.parquet")
    age = table["age"].to_numpy()
    found = univariate_tests(
        table.filter(pa.array(age < 40)), table.filter(pa.array(age >= 40)), random_state=0
    )
    assert found.rows[0].name == "age"
    assert found["age"].histogram is not None
    strong = {row.name for row in found.rows if row.shifted and row.effect["low"] > 0.05}
    assert {"age", "marital-status", "relationship"} <= {n.replace("_", "-") for n in strong}


def test_adult_random_halves(shared_data):
    """Halves of one population: any column flagged in at most 5 % of draws (limit 1e-6)."""
    table = pq.read_table(shared_data / "adult.parquet")
    rng = np.random.default_rng(34)
    draws, flagged, low = 40, 0, 0
    for seed in range(draws):
        rows = rng.choice(table.num_rows, 1600, replace=False)
        q, p = (table.take(pa.array(np.sort(part))) for part in (rows[:900], rows[900:]))
        found = univariate_tests(q, p, random_state=seed, n_jobs=1)
        flagged += bool(found.shifted)
        low += sum(row.effect["low"] > 0 for row in found.rows)
    assert flagged <= stats.binom.isf(1e-6, draws, 0.05)
    assert low <= stats.binom.isf(1e-6, draws * table.num_columns, 0.05)


# --------------------------------------------------------------------------------------- refusals


def test_refusals():
    x = np.arange(5.0)
    with pytest.raises(OptionError, match="Unknown kind 'number'. Choose one of"):
        compare_column(x, x, "number")
    with pytest.raises(OptionError, match="Unknown test 't'. Choose one of"):
        compare_column(x, x, "numeric", test="t")
    with pytest.raises(OptionError, match="column 'c' is categorical: test 'ks' needs an order"):
        compare_column(x, x, "categorical", name="c", test="ks")
    with pytest.raises(DataError, match="must both be given"):
        compare_column(x, x, "numeric", units_q=x)
    with pytest.raises(DataError, match=r"weights_q has shape \(4,\); expected \(5,\)"):
        compare_column(x, x, "numeric", weights_q=x[:4])
    with pytest.raises(DataError, match="column 'x' of p"):
        compare_column(x, np.array(["a", "b"]), "numeric", name="x")
    with pytest.raises(DataError, match=r"shape \(1, 1, 1\)"):
        compare_column(np.zeros((1, 1, 1)), x, "numeric")
    with pytest.raises(DataError, match="no column in common"):
        univariate_tests({"a": x}, {"b": x})
    with pytest.raises(DataError, match="column 'z' is not on both sides"):
        univariate_tests({"a": x}, {"a": x}, columns=["z"])
    with pytest.raises(OptionError, match="Unknown adjust 'holm'"):
        univariate_tests({"a": x}, {"a": x}, adjust="holm")


def test_the_quick_path_loads_neither_scikit_learn_nor_scipy_stats():
    import subprocess
    import sys

    code = (
        "import sys; from dpdq.distance.univariate import compare_column; import numpy as np; "
        "compare_column(np.arange(9.), np.arange(5.), 'numeric'); "
        "print([n for n in ('sklearn', 'scipy.stats', 'torch') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("sizes", [(150, 150), (100, 600)])
@pytest.mark.parametrize("kind", ["numeric", "categorical"])
def test_the_detectable_psi_is_detected(kind, sizes):
    """Power at the population PSI that is said to be detectable is 80 %.

    120 draws: a power of 0.8 leaves 71 to 116 with probability below 1e-7.
    """
    n, m = sizes
    rng = np.random.default_rng(70)
    share = np.array([0.2, 0.3, 0.25, 0.25])
    found = 0
    for seed in range(120):
        if kind == "numeric":
            q = rng.normal(size=n)
            detectable = compare_column(q, rng.normal(size=m), kind, seed=seed).detectable
            p = rng.normal(size=m) + np.sqrt(detectable)
        else:
            q = rng.choice(list("abcd"), n, p=share)
            same = rng.choice(list("abcd"), m, p=share)
            detectable = compare_column(q, same, kind, seed=seed).detectable
            # shares move by t (1, -1, 0, 0): PSI = sum of (change) log(ratio), close to t^2 sum 1/p
            step = np.sqrt(detectable / (1 / 0.2 + 1 / 0.3))
            p = rng.choice(list("abcd"), m, p=share + step * np.array([1, -1, 0, 0]))
        found += compare_column(q, p, kind, n_permutations=99, seed=seed).pvalue <= 0.05
    assert 71 <= found <= 116


def test_detectable_shrinks_with_rows_and_grows_with_parts():
    rng = np.random.default_rng(71)
    x = rng.normal(size=4000)
    few = compare_column(x[:400], x[400:800], "numeric")
    many = compare_column(x[:2000], x[2000:], "numeric")
    assert many.detectable == pytest.approx(few.detectable / 5, rel=1e-12)
    holed = np.where(rng.random(400) < 0.1, np.nan, x[:400])
    assert compare_column(holed, x[400:800], "numeric").detectable > few.detectable
    assert compare_column(x[:400], x[400:800], "numeric", test="chi2").detectable > few.detectable
    assert compare_column([np.nan] * 4, [1.0, 2.0], "numeric").detectable is None
    words = compare_column(list("abab"), list("aabb"), "categorical")
    assert words.to_dict()["detectable"] > 1
