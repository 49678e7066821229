"""The page as text: sizes, escaping, absent parts, well-formedness, text alternatives, colours."""

from __future__ import annotations

import copy
import html.parser
import json
import random
import re
import subprocess
import sys
import time

import numpy as np
import pytest
from tests.report import example

from dpdq.report import notebook_html, render
from dpdq.report.page import _asset

CASES = {
    "full": example.full,
    "quick": example.quick,
    "refused": example.refused,
    "subset": example.subset,
    "hostile": example.hostile,
    "empty": dict,
    "60 columns": lambda: example.full(60),
}
VOID = {"meta", "link", "br", "img", "input", "hr"}


class Reader(html.parser.HTMLParser):
    """Reads a page strictly: every tag is closed in order, every id stands once."""

    def __init__(self):
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.refs: list[str] = []

    def handle_starttag(self, tag, attrs):
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"an attribute stands twice in <{tag}>"
        attributes = dict(attrs)
        self.tags.append((tag, attributes))
        if "id" in attributes:
            self.ids.append(attributes["id"])
        self.refs += (attributes.get("aria-labelledby") or "").split()
        if (attributes.get("href") or "").startswith("#"):
            self.refs.append(attributes["href"][1:])
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open[-1] == tag, f"</{tag}> closes <{self.open[-1]}> at {self.getpos()}"
        self.open.pop()

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.text.append(data)


def read(page):
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    return reader


def words(page):
    return re.sub(r"\s+", " ", " ".join(read(page).text))


@pytest.mark.parametrize("name", CASES)
def test_well_formed(name):
    page = render(CASES[name](), example.run())
    assert page.startswith('<!doctype html>\n<html lang="en">')
    reader = read(page)
    assert len(reader.ids) == len(set(reader.ids))
    assert set(reader.refs) <= set(reader.ids)
    page.encode("utf-8")


@pytest.mark.parametrize("name", CASES)
def test_every_chart_says_its_numbers(name):
    page = render(CASES[name](), example.run())
    charts = re.findall(r'<svg class="chart [^>]*>.*?</svg>', page, re.DOTALL)
    drawn = [c for c in charts if 'role="img"' in c]
    assert all('role="img"' in c or 'aria-hidden="true"' in c for c in charts)
    for chart in drawn:
        desc = re.search(r"<desc[^>]*>(.*?)</desc>", chart).group(1)
        assert re.search(r"\d", desc), chart[:300]
        assert re.search(r"<title id=[^>]*>[^<]+</title>", chart)
    if name == "full":
        kinds = {k for c in drawn for k in re.match(r'<svg class="chart ([^"]*)"', c)[1].split()}
        assert {"spark", "hist", "levels", "gauge", "bar", "love"} <= kinds
        assert len(drawn) > 2 * 14


def test_size_at_20_columns_and_a_column():
    size = {n: len(render(example.full(n), example.run()).encode()) for n in (20, 21, 40, 60)}
    assert size[20] < 500_000
    assert size[21] - size[20] < 20_000
    assert (size[40] - size[20]) / 20 < 20_000
    assert (size[60] - size[40]) / 20 < 20_000


def test_size_of_a_hostile_column():
    one, two = example.full(1), example.full(2)
    for c in (one, two):
        for column in c["columns"]:
            column["name"] = "<&\"'" * 50_000
            bins = 60
            column["histogram"] = {
                "kind": "numeric",
                "edges": list(np.linspace(0, 1e6, bins + 1) / 3),
                "labels": None,
                **{
                    s: list(np.random.default_rng(0).dirichlet(np.ones(bins)))
                    for s in ("q", "p", "q_weighted")
                },
            }
    assert len(render(two)) - len(render(one)) < 20_000


def test_time_at_20_columns():
    c, run = example.full(20), example.run()
    render(c, run)  # compiles the templates
    best = min(_seconds(lambda: render(c, run)) for _ in range(3))
    assert best < 0.15


def _seconds(call):
    start = time.process_time()
    call()
    return time.process_time() - start


def test_import_is_light():
    code = (
        "import sys, dpdq.report; dpdq.report.charts; dpdq.report.terminal_summary; "
        "dpdq.report.render; "
        "print([m for m in ('jinja2', 'markupsafe', 'numpy', 'pandas') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_input_is_not_changed():
    c = example.full()
    before = json.dumps(c)
    render(c, example.run())
    notebook_html(c)
    assert json.dumps(c) == before


# -- safety ----------------------------------------------------------------------------------------


def test_hostile_texts_are_text():
    page = render(
        example.hostile(),
        {
            "q": {"name": example.HOSTILE[0]},
            "p": {"name": example.HOSTILE[1]},
            "options": {example.HOSTILE[0]: example.HOSTILE[8]},
        },
    )
    reader = read(page)
    assert sum(tag == "script" for tag, _ in reader.tags) == 1
    assert sum(tag == "style" for tag, _ in reader.tags) == 1
    assert not any(
        tag in ("img", "iframe", "object", "a")
        and (a.get("src") or not (a.get("href") or "#").startswith("#"))
        for tag, a in reader.tags
    )
    assert not any(name.startswith("on") or name == "style" for _, a in reader.tags for name in a)
    text = words(page)
    for name in (
        "<script>alert(1)</script>",
        '"><img src=x onerror=alert(1)>',
        "{{ 7 * 7 }}{% raw %}",
    ):
        assert name in text
    assert not re.search("[\x00-\x08\x0b-\x1f\u202a-\u202e\ud800-\udfff]", page)
    assert "\x1b" not in page
    assert "\N{SYMBOL FOR NEWLINE}" not in page or "\N{SYMBOL FOR LINE FEED}" in page


def test_long_names_are_cut_with_their_beginning_beside():
    c = example.full(1)
    c["columns"][0]["name"] = "n" * 5_000_000
    page = render(c)
    assert len(page) < 200_000
    assert f'title="{"n" * 399}\N{HORIZONTAL ELLIPSIS} (5,000,000 characters)"' in page


def test_policy_names_the_hashes_of_what_is_there():
    import base64
    import hashlib

    page = render(example.full())
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page).group(1)
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    for tag, rule in (("style", "style-src"), ("script", "script-src")):
        inside = re.search(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL).group(1)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{rule} 'sha256-{digest}'" in policy


def test_nothing_from_outside():
    page = render(example.full(), example.run())
    assert not re.search(r"https?:|//[a-z]|@import|url\(|@font-face", page)


# -- absent parts ----------------------------------------------------------------------------------


def _paths(value, prefix=()):
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in items:
        yield (*prefix, key)
        if isinstance(item, (dict, list)):
            yield from _paths(item, (*prefix, key))


def _without(c, path, how):
    c = copy.deepcopy(c)
    parent = c
    for key in path[:-1]:
        parent = parent[key]
    if how == "null" or isinstance(parent, list):
        parent[path[-1]] = None
    else:
        del parent[path[-1]]
    return c


def _small():
    c = example.full(14)
    kinds = {}
    for column in c["columns"]:
        kinds.setdefault(column["histogram"]["kind"], column)
    c["columns"] = list(kinds.values())
    for column in c["columns"]:
        h = column["histogram"]
        n = 3
        h.update(
            {
                k: h[k][: n + (k == "edges")]
                for k in ("edges", "labels", "q", "p", "q_weighted")
                if h[k]
            }
        )
    for key in ("slices", "outliers"):
        c[key] = c[key][:1]
    c["balance"]["features"] = c["balance"]["features"][:2]
    c["overlap"]["rows"] = c["overlap"]["rows"][:1]
    return c


@pytest.mark.parametrize("how", ["null", "absent"])
def test_any_part_may_be_missing(how):
    c = _small()
    # one element of a list stands for all of them
    paths = [p for p in _paths(c) if how == "null" or len(p) < 4]
    paths = [p for p in paths if not any(k in range(1, 99) for k in p[2:])]
    assert len(paths) > 150
    for path in paths:
        page = render(_without(c, path, how))
        assert "Undefined" not in page, path
        assert ">None<" not in page, path
        assert ">nan<" not in page, path
        if path[0] in ("verdict", "rows", "overlap", "columns") and len(path) < 4:
            notebook_html(_without(c, path, how))


def test_any_combination_of_parts_may_be_null():
    rng = random.Random(7)
    full = _small()
    for _ in range(40):
        c = {k: (None if rng.random() < 0.5 else v) for k, v in copy.deepcopy(full).items()}
        page = render(c, rng.choice([None, {}, example.run()]))
        read(page)
        assert ">None<" not in page


def test_not_finite_numbers_are_absent():
    c = example.full()
    c["verdict"]["pvalue"] = float("nan")
    c["columns"][0]["psi"] = float("inf")
    c["columns"][0]["effect"]["estimate"] = float("nan")
    c["columns"][0]["histogram"]["q"][0] = float("nan")
    page = render(c)
    assert not re.search(r"\b(nan|inf)\b", page)


def test_quick_says_why():
    text = words(render(example.quick()))
    assert text.count("not run in quick mode") >= 4
    assert "The ratio dP/dQ was not estimated: not run in quick mode ." in text.replace(
        "mode.", "mode ."
    )
    assert "No verdict" in text
    assert "Run without quick mode" in text


def test_subset_says_why():
    text = words(render(example.subset()))
    assert "the two are not independent samples" in text
    assert "Every row of p stands in q." in text


def test_refusal_is_plain():
    text = words(render(example.refused()))
    assert "overlap fails" in text
    assert "31.2" in text
    assert "not to be relied on" in text
    assert "no weighting can repair" in text.lower()
    assert "do not believe the estimate" in text
    assert "only in p at least 29.8" in text
    assert "the part of p that q covers" in text


def test_one_reason_is_said_once():
    c = example.full()
    for e in c["divergences"].values():
        e.update({"high": None, "high_reason": "no such bound exists."})
    assert words(render(c)).count("no such bound exists") == 1


def test_bounds_are_called_at_least():
    text = words(render(example.full()))
    assert "at least 0.298" in text
    assert "Where it is absent: no upper bound from samples" in text
    assert "upper end: the ratio model holds" in text


def test_full_precision_stands_beside():
    page = render(example.full())
    assert 'title="0.7423456789"' in page
    assert 'title="0.0004997501249375312"' in page


def test_long_verdict_has_one_large_sentence():
    c = example.full()
    c["verdict"]["sentence"] = "p has shifted from q (p = 0.001). Overlap fails: 3.1 % is out."
    page = render(c)
    assert 'class="sentence"><bdi>p has shifted from q (p = 0.001).</bdi></p>' in page
    assert "Overlap fails: 3.1 % is out." in words(page)


def test_every_divergence_is_shown():
    text = words(render(example.full()))
    for title in (
        "KL(P‖Q)",
        "KL(Q‖P)",
        "Jensen–Shannon",
        "χ²(P‖Q)",
        "Total variation",
        "Squared Hellinger",
    ):
        assert title in text


def test_notebook_fragment():
    fragment = notebook_html(example.full(20))
    reader = read(fragment)
    assert not any(tag == "script" for tag, _ in reader.tags)
    assert len(reader.ids) == len(set(reader.ids))
    assert "and 8 more columns" in words(fragment)
    other = notebook_html(example.quick(20))
    assert not set(read(other).ids) & set(reader.ids)


# -- colours ---------------------------------------------------------------------------------------


def _palette(theme):
    found = re.findall(r"--([\w-]+): light-dark\((#\w{6}), (#\w{6})\)", _asset("page.css"))
    return {name: _rgb(light if theme == "light" else dark) for name, light, dark in found}


def _rgb(code):
    return np.array([int(code[i : i + 2], 16) / 255 for i in (1, 3, 5)])


def _linear(rgb):
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def _contrast(a, b):
    lum = sorted(float(_linear(c) @ [0.2126, 0.7152, 0.0722]) for c in (a, b))
    return (lum[1] + 0.05) / (lum[0] + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_contrast(theme):
    c = _palette(theme)
    for text, ground in (
        ("ink", "paper"),
        ("ink", "card"),
        ("muted", "paper"),
        ("muted", "card"),
        ("good", "good-soft"),
        ("bad", "bad-soft"),
        ("ink", "none-soft"),
    ):
        assert _contrast(c[text], c[ground]) >= 4.5, (text, ground)
    for mark in ("q", "p", "w", "mark", "focus"):
        assert _contrast(c[mark], c["card"]) >= 3, mark


# Machado, Oliveira and Fernandes, "A physiologically-based model for simulation of color vision
# deficiency", 2009: full protanopia, deuteranopia, tritanopia, on linear RGB
_BLIND = {
    "protan": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deutan": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritan": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


def _lab(linear):
    xyz = np.array(
        [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    ) @ np.clip(linear, 0, 1)
    t = xyz / [0.9505, 1.0, 1.089]
    f = np.where(t > 0.008856, np.cbrt(t), 7.787 * t + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("kind", [None, *_BLIND])
def test_samples_are_told_apart_by_the_colour_blind(theme, kind):
    c = _palette(theme)
    matrix = np.eye(3) if kind is None else np.array(_BLIND[kind])
    lab = {s: _lab(matrix @ _linear(c[s])) for s in ("q", "p", "w")}
    for a, b in (("q", "p"), ("p", "w"), ("q", "w")):
        # 2.3 is just noticeable; lines, fills and dashes differ besides
        assert np.linalg.norm(lab[a] - lab[b]) > 25, (a, b)
