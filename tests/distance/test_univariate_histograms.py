"""Histograms: shares sum to one, bins are round, weights fill the same bins."""

import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpdq.distance._columns import level_text
from dpdq.distance.histograms import Histogram, pooled_order_statistic, reweighted_histogram
from dpdq.distance.univariate import compare_column
from dpdq.errors import DataError, InputTypeError


def histogram(q, p, kind, **options):
    return compare_column(q, p, kind, **options).histogram


def numbers(law, n, rng):
    return {
        "normal": lambda: rng.normal(size=n),
        "few": lambda: rng.choice([0.1, 0.2, 7.0], n),
        "counts": lambda: rng.poisson(3, n).astype(float),
        "ages": lambda: rng.integers(17, 91, n).astype(float),
        "lognormal": lambda: rng.lognormal(0, 3, n),
        "cauchy": lambda: rng.standard_cauchy(n),
        "constant": lambda: np.full(n, 3.25),
        "tiny range": lambda: 1e16 + 2.0 * rng.integers(0, 400, n),
        "huge": lambda: rng.normal(size=n) * 1e300,
        "largest": lambda: rng.choice([-1.7e308, 1.7e308, *range(13)], n),
        "denormal": lambda: rng.normal(size=n) * 1e-310,
    }[law]()


@pytest.mark.parametrize(
    "law",
    ["normal", "few", "counts", "ages", "lognormal", "cauchy", "constant", "tiny range", "huge",
     "largest", "denormal"],
)  # fmt: skip
def test_shares_sum_to_one_and_uniform_weights_change_nothing(law):
    rng = np.random.default_rng(1)
    q, p = numbers(law, 900, rng), numbers(law, 500, rng)
    found = histogram(q, p, "numeric", weights_q=np.full(900, 3.0))
    assert 1 <= len(found.q) <= 40
    for shares in (found.q, found.p, found.q_weighted):
        assert sum(shares) == pytest.approx(1, abs=1e-12)
    np.testing.assert_allclose(found.q_weighted, found.q, atol=1e-12)
    if found.edges is not None:
        assert len(found.edges) == len(found.q) + 1
        assert (np.diff(found.edges) > 0).all()
    else:
        assert len(found.labels) == len(found.q)
    json.dumps(found.to_dict(), allow_nan=False)


def test_bins_are_round_and_ends_are_open():
    rng = np.random.default_rng(2)
    q, p = rng.normal(size=5000), rng.normal(size=5000)
    q[0] = 1e6  # one far value does not stretch the axis
    found = histogram(q, p, "numeric")
    assert found.edges[0] == -2.75
    assert found.edges[-1] == 2.75
    assert np.unique(np.diff(found.edges)).tolist() == [0.25]
    inner = np.array(found.edges[1:-1])
    expected = np.bincount(np.searchsorted(inner, q, side="right"), minlength=len(found.q))
    np.testing.assert_allclose(found.q, expected / 5000)


def test_whole_numbers_in_a_short_range_get_a_bar_each():
    found = histogram(np.array([1, 2, 2, 5]), np.array([3, 5]), "numeric")
    assert found.labels == ("1", "2", "3", "4", "5")
    assert found.q == (0.25, 0.5, 0.0, 0.0, 0.25)
    assert found.p == (0.0, 0.0, 0.5, 0.0, 0.5)
    wide = histogram(np.array([0.0, 1000.0]), np.array([0.0, 37.5]), "numeric")
    assert wide.kind == "levels"
    assert wide.labels == ("0", "37.5", "1000")


def test_bins_do_not_depend_on_which_side_is_q():
    rng = np.random.default_rng(3)
    q, p = rng.gamma(2, size=400), rng.gamma(3, size=700)
    there, back = histogram(q, p, "numeric"), histogram(p, q, "numeric")
    assert there.edges == back.edges
    assert (there.q, there.p) == (back.p, back.q)


def test_levels_other_and_missing():
    q = pa.array([f"level {k % 40:02d}" for k in range(400)] + [None] * 100)
    p = pa.array(["level 00"] * 30 + ["(missing)"] * 40 + ["(other)"] * 30)
    found = histogram(q, p, "categorical", weights_q=np.ones(500))
    assert found.labels[-2:] == ("(other)", "(missing)")
    assert found.labels[:3] == ('"(missing)"', "level 00", '"(other)"')
    assert len(found.labels) == 14
    assert found.q[-1] == pytest.approx(0.2)
    for shares in (found.q, found.p, found.q_weighted):
        assert sum(shares) == pytest.approx(1)
    np.testing.assert_allclose(found.q_weighted, found.q)


def test_long_levels_are_cut_and_stay_apart():
    long = "x" * 200
    assert len(level_text(long)) <= 80
    assert level_text(long + "a") != level_text(long + "b")
    q = pa.array([long + "a", long + "b", long + "b"])
    found = histogram(q, q, "categorical", weights_q=np.array([2.0, 0.5, 0.5]))
    assert found.q_weighted == (pytest.approx(1 / 3), pytest.approx(2 / 3))


def test_instants_have_iso_edges():
    start = np.datetime64("2024-01-01", "s")
    when = start + np.arange(0, 90 * 86_400, 3600)
    found = histogram(when, when[:1000], "datetime", weights_q=np.ones(len(when)))
    assert found.edges[0] == "2023-12-28"  # seven-day bins counted from 1970
    assert all(len(edge) == 10 for edge in found.edges)
    np.testing.assert_allclose(found.q_weighted, found.q)
    hours = histogram(when[:30], when[:30], "datetime")
    assert hours.edges[0] == "2024-01-01T00:00:00"
    old = histogram(np.array(["0900-01-01", "2024-01-01"], "M8[us]"), when[:5], "datetime")
    assert sum(old.q) == pytest.approx(1)


def test_weights_fill_the_bins_of_a_saved_histogram():
    rng = np.random.default_rng(4)
    q, p = rng.normal(size=500), rng.normal(size=400) + 0.4
    w = np.exp(0.4 * q)
    given = json.loads(json.dumps(histogram(q, p, "numeric").to_dict()))
    found = reweighted_histogram(q, given, w, kind="numeric")
    inner = np.array(given["edges"][1:-1])
    bins = np.searchsorted(inner, q, side="right")
    np.testing.assert_allclose(found.q_weighted, np.bincount(bins, w, len(given["q"])) / w.sum())
    levels = pa.array(rng.choice(["a", "b", None], 500))
    saved = histogram(levels, levels, "categorical").to_dict()
    found = reweighted_histogram(levels, saved, w, kind="categorical")
    is_a = np.array([value == "a" for value in levels.to_pylist()])
    place = found.labels.index("a")
    assert found.q_weighted[place] == pytest.approx(w[is_a].sum() / w.sum())
    assert found.labels[-1] == "(missing)"
    flags = rng.random(500) < 0.4
    saved = histogram(flags, flags, "boolean")
    found = reweighted_histogram(flags, saved, w, kind="boolean")
    assert found.labels == ("false", "true")
    assert found.q_weighted[1] == pytest.approx(w[flags].sum() / w.sum())


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.integers(-5, 5), max_size=20),
    st.lists(st.integers(-5, 5), min_size=1, max_size=20),
    st.data(),
)
def test_pooled_order_statistic(a, b, data):
    rank = data.draw(st.integers(0, len(a) + len(b) - 1))
    s, t = np.sort(np.array(a, float)), np.sort(np.array(b, float))
    assert pooled_order_statistic(s, t, rank) == sorted(a + b)[rank]


def test_refusals():
    h = Histogram("numeric", (0.0, 1.0, 2.0), None, (0.5, 0.5), (0.2, 0.8))
    with pytest.raises(DataError, match=r"weights has shape \(2,\); expected \(3,\)"):
        reweighted_histogram(np.arange(3.0), h, np.ones(2), kind="numeric")
    with pytest.raises(DataError, match="finite and not negative"):
        reweighted_histogram(np.arange(3.0), h, np.array([1, -1, 1.0]), kind="numeric")
    with pytest.raises(InputTypeError, match="neither a Histogram"):
        reweighted_histogram(np.arange(3.0), [1, 2], np.ones(3), kind="numeric")
