"""Drawings: where marks stand, what the text alternatives say, what cannot be drawn is empty."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest

from dpdq.report import charts

NUMERIC = {
    "kind": "numeric",
    "edges": [0, 1, 2, 3, 4],
    "labels": None,
    "q": [0.4, 0.3, 0.2, 0.1],
    "p": [0.1, 0.2, 0.3, 0.4],
    "q_weighted": [0.1, 0.2, 0.3, 0.4],
}
LEVELS = {
    "kind": "levels",
    "edges": None,
    "labels": ["a", "b"],
    "q": [0.75, 0.25],
    "p": [0.5, 0.5],
    "q_weighted": None,
}


def tree(svg):
    return ET.fromstring(svg)


def desc(svg):
    return tree(svg).find("desc").text


def has(svg, *classes):
    return [e for e in tree(svg).iter() if set(classes) <= set(e.get("class", "").split())]


def test_markup_is_marked_as_safe():
    svg = charts.sparkline(NUMERIC, name="x", key="k")
    assert svg.__html__() == svg
    assert tree(svg).get("role") == "img"
    assert tree(svg).get("aria-labelledby") == "k-t k-d"


@pytest.mark.parametrize("draw", [charts.sparkline, charts.histogram])
def test_histogram_says_its_numbers(draw):
    text = desc(draw(NUMERIC, name="age", key="k"))
    assert "q is highest at 0 to 1 (40\N{NO-BREAK SPACE}%)" in text
    assert "p is highest at 3 to 4 (40\N{NO-BREAK SPACE}%)" in text
    assert "The largest gap is at" in text


@pytest.mark.parametrize("draw", [charts.sparkline, charts.histogram])
@pytest.mark.parametrize(
    "data",
    [
        None,
        {},
        {"q": None, "p": None},
        {"q": [], "p": []},
        {"q": [0, 0], "p": [0, 0]},
        {"q": [None], "p": [None]},
    ],
)
def test_nothing_to_draw_is_empty(draw, data):
    assert draw(data, name="x", key="k") == ""


def test_histogram_areas_are_shares():
    path = has(charts.histogram(NUMERIC, name="x", key="k"), "q", "area")[0].get("d")
    tops = [float(v) for v in re.findall(r"V([\d.]+)", path)]
    base, heights = tops[-1], [tops[-1] - t for t in tops[:-1]]
    assert heights == pytest.approx([h * heights[0] for h in (1, 0.75, 0.5, 0.25)], abs=0.2)
    steps = [float(v) for v in re.findall(r"H([\d.]+)", path)]
    assert [b - a for a, b in zip(steps[:-1], steps[1:], strict=True)] == pytest.approx(
        [75.5] * 3, abs=0.2
    )
    assert base > 0


def test_samples_differ_by_form():
    svg = charts.histogram(NUMERIC, name="x", key="k")
    assert [len(has(svg, *c)) for c in (("q", "area"), ("p", "line"), ("w", "line"))] == [1, 1, 1]
    svg = charts.histogram(LEVELS | {"q_weighted": [0.5, 0.5]}, name="x", key="k")
    assert [len(has(svg, *c)) for c in (("q", "area"), ("p", "hollow"), ("w", "mark"))] == [2, 2, 2]


def test_level_bars_are_in_proportion():
    svg = charts.histogram(LEVELS, name="x", key="k")
    widths = [float(e.get("width")) for e in has(svg, "area")]
    assert widths[0] == pytest.approx(3 * widths[1], abs=0.3)


def test_many_levels_are_counted_not_drawn():
    n = 40
    data = {
        "labels": [f"l{k}" for k in range(n)],
        "edges": None,
        "q": [1 / n] * n,
        "p": [1 / n] * n,
    }
    svg = charts.histogram(data, name="x", key="k")
    assert "and 26 more levels" in "".join(tree(svg).itertext())
    small = charts.histogram(data, name="x", key="k", compact=True)
    assert "and 34 more levels" in "".join(tree(small).itertext())


def test_unequal_bins_are_drawn_equal_with_their_edges():
    svg = charts.histogram(NUMERIC | {"edges": [0, 1, 10, 100, 1000]}, name="x", key="k")
    ticks = [e.text for e in has(svg, "tick")]
    assert {"0", "1,000"} <= set(ticks)
    steps = [float(v) for v in re.findall(r"H([\d.]+)", has(svg, "area")[0].get("d"))]
    gaps = [b - a for a, b in zip(steps[:-1], steps[1:], strict=True)]
    assert max(gaps) - min(gaps) < 0.3
    assert "100 to 1,000" in desc(svg)


def test_open_bins_have_open_names():
    text = desc(charts.histogram(NUMERIC | {"edges": [None, 1, 2, 3, None]}, name="x", key="k"))
    assert "up to 1" in text
    assert "from 3" in text


def test_bars_of_whole_numbers_bear_their_label():
    data = NUMERIC | {"edges": [-0.5, 0.5, 1.5, 2.5, 3.5], "labels": ["0", "1", "2", "3"]}
    assert "q is highest at 0 (40" in desc(charts.histogram(data, name="x", key="k"))


@pytest.mark.parametrize(
    "edges",
    [
        ["2011-01-01", "2011-02-01", "2011-03-01", "2011-04-01", "2011-05-01"],
        [1.2938e9 + 2.6e6 * k for k in range(5)],
        [(1.2938e9 + 2.6e6 * k) * 1e9 for k in range(5)],
    ],
)
def test_instants(edges):
    svg = charts.histogram(NUMERIC | {"edges": edges}, name="x", key="k", kind="datetime")
    assert any(e.text.startswith("2010-12-31") or e.text == "2011-01-01" for e in has(svg, "tick"))


def test_gauge():
    svg = charts.auc_gauge(0.75, 0.7, 0.8, tolerance=0.55, detectable=0.52, key="k")
    point = float(has(svg, "point")[0].get("cx"))
    ticks = {e.text: float(e.get("x")) for e in has(svg, "tick")}
    assert point == pytest.approx((ticks["0.7"] + ticks["0.8"]) / 2, abs=0.2)
    assert len(has(svg, "cap")) == 2
    assert desc(svg).startswith("AUC 0.75, interval 0.7 to 0.8, tolerance 0.55, smallest")
    lower = charts.auc_gauge(0.75, 0.7, key="k")
    assert len(has(lower, "cap")) == 1
    assert "at least 0.7" in desc(lower)
    assert charts.auc_gauge(None, key="k") == ""
    assert "AUC 0.1" in desc(charts.auc_gauge(0.1, 0.05, 0.2, key="k"))


def test_interval_bar():
    svg = charts.interval_bar(0.5, 0.25, 0.75, maximum=1, name="x", key="k", width=114)
    assert float(has(svg, "point")[0].get("cx")) == pytest.approx(57, abs=0.1)
    assert [e.get("d") for e in has(svg, "cap")] == ["M32 6L32 16", "M82 6L82 16"]
    svg = charts.interval_bar(0.5, 0.25, maximum=1, name="x", key="k", is_open=True)
    assert has(svg, "arrow")
    assert desc(svg) == "x: 0.5, at least 0.25, no upper bound; scale 0 to 1."
    assert charts.interval_bar(None, maximum=1, name="x", key="k") == ""
    assert charts.interval_bar(1, maximum=0, name="x", key="k") == ""
    assert has(charts.interval_bar(0.5, maximum=1, name="x", key="k", reference=0.1), "limit")


def test_forest_bar():
    svg = charts.forest_bar(1.0, 0.5, 2.0, limit=4, name="x", key="k", width=114)
    assert float(has(svg, "point")[0].get("cx")) == pytest.approx(57, abs=0.1)
    assert len(has(svg, "cap")) == 2
    far = charts.forest_bar(40, 0, None, limit=4, name="x", key="k", width=114)
    assert float(has(far, "point")[0].get("cx")) == pytest.approx(107)
    assert not has(far, "cap")
    assert has(charts.forest_bar(0.5, limit=4, name="x", key="k"), "less")
    assert "0.5 times as common" in desc(charts.forest_bar(0.5, limit=4, name="x", key="k"))
    new = charts.forest_bar(None, 2, None, limit=4, name="x", key="k")
    assert has(new, "arrow")
    assert not has(new, "point")
    assert desc(new).startswith("at least 2 times as common in p as in q")
    assert charts.forest_bar(None, limit=4, name="x", key="k") == ""


@pytest.mark.parametrize(
    ("ratios", "limit"),
    [([], 2), ([1.1], 2), ([0.2, 3], 8), ([None, 5], 8), ([0, -1, 1e-30], 4096)],
)
def test_log_domain(ratios, limit):
    assert charts.log_domain(ratios) == limit


def test_love_plot():
    rows = [
        {"name": "a", "before": -0.5, "after": 0.05},
        {"name": "b", "before": 0.2, "after": None},
    ]
    svg = charts.love_plot(rows, key="k")
    dots = [float(e.get("cx")) for e in has(svg, "before")]
    zero = next(float(e.get("x")) for e in has(svg, "tick") if e.text == "0")
    assert (dots[0] - zero) == pytest.approx(2.5 * (dots[1] - zero), abs=0.3)
    assert len(has(svg, "after")) == 1
    assert "largest difference before weighting 0.5, after weighting 0.05; 0 above 0.1" in desc(svg)
    assert charts.love_plot([], key="k") == ""
    assert charts.love_plot([{"name": "a", "before": None, "after": None}], key="k") == ""
    many = charts.love_plot(rows * 40, key="k", most=10)
    assert desc(many).startswith("10 features")


def test_names_are_escaped():
    evil = "</title><script>alert(1)</script>\x00\u202e&\"'"
    for svg in (
        charts.sparkline(NUMERIC, name=evil, key=evil),
        charts.histogram(LEVELS | {"labels": [evil, evil]}, name=evil, key=evil),
        charts.interval_bar(1, maximum=2, name=evil, key=evil),
        charts.forest_bar(1, limit=2, name=evil, key=evil),
        charts.love_plot([{"name": evil, "before": 1, "after": 0}], key=evil),
    ):
        root = tree(svg)  # parses as XML, so nothing broke out
        assert "script" not in {e.tag for e in root.iter()}
        assert "<script" not in svg
