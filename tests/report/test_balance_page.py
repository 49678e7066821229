"""The page of weights: what it shows, what it escapes, how it lies on a screen."""

import json
import re

import numpy as np
import pytest

from dpdq.comparison.balancing import balance
from dpdq.report.balance_page import balance_steps, balance_summary, render_balance

HOSTILE = "<script>alert(1)</script>\N{RIGHT-TO-LEFT OVERRIDE}\x00" + "x" * 300


@pytest.fixture(scope="module")
def found():
    rng = np.random.default_rng(0)

    def rows(n, shift):
        age = rng.normal(40 + 5 * shift, 10, n)
        town = rng.choice(["Uri", "Zug", "Bern"], n, p=[0.5 - 0.2 * shift, 0.3, 0.2 + 0.2 * shift])
        return {"age": age, "town": town, "income": 2 * age + rng.normal(0, 5, n)}

    made = balance(rows(400, 0.0), rows(300, 0.7), label="income")
    return made.to_dict(), made.run


def hostile(value):
    """The same numbers with every text replaced by a bad one."""
    if isinstance(value, dict):
        return {key: hostile(item) for key, item in value.items()}
    if isinstance(value, list):
        return [hostile(item) for item in value]
    return HOSTILE if isinstance(value, str) else value


def test_what_the_page_says(found):
    page = render_balance(*found)
    b = found[0]
    for text in (
        "Weighting reaches p: all 4 margins balance",
        "valid only if P(Y|X) is unchanged",
        "Design effect",
        "Tail index",
        "Left off by",
        "Label moves",
        "on p, by weighting",
        "on p, observed",
        "Should a model be weighted?",
        "What to do next",
    ):
        assert text in page, text
    assert page.count('<svg class="chart love"') == 1
    assert page.count('<svg class="chart hist"') == 1
    assert page.startswith("<!doctype html>")
    for margin in b["balance"]["margins"]:
        assert margin["name"] in page


def test_the_page_stands_alone(found):
    page = render_balance(*found)
    assert "default-src 'none'" in page
    assert not re.findall(r"(?:src|href)=[\"'](?!#|data:)", page)
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    for target in re.findall(r'href="#([^"]+)"', page):
        assert target in ids


def test_hostile_texts_are_text(found):
    page = render_balance(hostile(found[0]), hostile(found[1]))
    assert "<script>alert" not in page
    assert "\N{RIGHT-TO-LEFT OVERRIDE}" not in page
    assert "\x00" not in page
    lone = render_balance({"verdict": {"sentence": "\ud800"}, "warnings": ["\ud800"]})
    lone.encode("utf-8")


def test_absent_parts_are_named():
    page = render_balance({})
    for text in ("No margin was balanced", "No label was named", "Not computed"):
        assert text in page
    assert "Undefined" not in page
    for broken in ({"balance": None, "label": {"estimates": [None]}}, {"sensitivity": [{}]}):
        assert "</html>" in render_balance(broken)
    body = render_balance({"weights": {"khat": float("nan")}}).partition("<main")[2]
    assert "nan" not in body.partition("<script>")[0].lower()


def test_same_numbers_same_bytes(found):
    b, run = found
    assert render_balance(b, run) == render_balance(json.loads(json.dumps(b)), run)


def test_steps():
    reached = {"verdict": {"ok": True, "reached": True}, "target": "p"}
    assert balance_steps(reached)[0].startswith("Use the weights for averages over p")
    changed = {**reached, "concept_shift": {"detected": True}, "advice": {"weight": False}}
    steps = balance_steps(changed)
    assert "weights cannot mend that" in steps[0]
    assert steps[1].endswith("not shown to help them.")
    assert "to evaluate" in balance_steps({**reached, "advice": {"weight": False}})[0]
    assert "do better on p" in balance_steps({**reached, "advice": {"weight": True}})[0]
    off = {"verdict": {"ok": False, "reached": False}, "weights": {"ok": False}, "target": "p"}
    assert "--method entropy" in balance_steps(off)[0]
    assert "--cap 10" in balance_steps(off)[1]
    assert "overlap of q and p" in balance_steps({"target": "overlap"})[0]
    unlabelled = {**reached, "label": {"name": "y"}}
    assert "Label some rows of p" in balance_steps(unlabelled)[0]
    assert balance_steps({}) == ["Read the parts below; none of them asks for an action by itself."]


def test_summary_for_a_terminal(found):
    text = balance_summary(found[0])
    assert text.replace("\N{HORIZONTAL ELLIPSIS}", "").isascii()
    assert all(len(each) <= 96 for each in text.splitlines())
    for word in ("balance ", "weights ", "label ", "advice "):
        assert f"\n{word}" in text
    bad = balance_summary(hostile(found[0]))
    assert "\x00" not in bad
    assert "\x1b" not in bad
    assert balance_summary({}) == ""


@pytest.mark.browser
@pytest.mark.parametrize("width", [400, 1200])
@pytest.mark.parametrize("name", ["full", "hostile", "empty"])
def test_layout(browser, found, tmp_path, width, name):
    pages = {"full": found, "hostile": tuple(map(hostile, found)), "empty": ({}, None)}
    path = tmp_path / "page.html"
    path.write_text(render_balance(*pages[name]), encoding="utf-8")
    context = browser.new_context(viewport={"width": width, "height": 900})
    page, console, requests = context.new_page(), [], []
    page.on("console", lambda m: console.append(m.text))
    page.on("pageerror", lambda e: console.append(str(e)))
    page.on("request", lambda r: requests.append(r.url))
    page.goto(path.as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    sticks_out = """[...document.querySelectorAll('section')].flatMap(s => {
      const edge = s.getBoundingClientRect().right + .5;
      return [...s.querySelectorAll('*')].filter(e => !e.closest('.sr')
        && e.getClientRects().length && e.getBoundingClientRect().right > edge)
        .map(e => `${s.id} ${e.tagName} ` + e.textContent.slice(0, 40)); })"""
    try:
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert page.evaluate(sticks_out) == []
        assert console == []
        assert [r for r in requests if not r.startswith(("file:", "data:"))] == []
        ground = "getComputedStyle(document.body).backgroundColor"
        before = page.evaluate(ground)
        page.click("#theme")
        assert page.evaluate(ground) != before
    finally:
        context.close()
