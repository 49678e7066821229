"""The page in a real browser: requests, errors, layout, charts, sorting, keyboard, colours."""

from __future__ import annotations

import pytest
from tests.report import example

from dpdq.report import render

pytestmark = pytest.mark.browser

WIDTHS = (400, 1600)
SCHEMES = ("light", "dark")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    cases = {
        "full": example.full(20),
        "quick": example.quick(),
        "refused": example.refused(),
        "hostile": example.hostile(),
        "many": example.full(60),
        "empty": {},
    }
    for name, c in cases.items():
        run = None if name in ("quick", "empty") else example.run()
        (folder / f"{name}.html").write_text(render(c, run), encoding="utf-8")
    return folder


class Visit:
    """A page, what it asked the network for, and what it said in the console."""

    def __init__(self, browser, url, **options):
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.requests: list[str] = []
        self.console: list[str] = []
        self.page.on("request", lambda r: self.requests.append(r.url))
        self.page.on("console", lambda m: self.console.append(m.text))
        self.page.on("pageerror", lambda e: self.console.append(str(e)))
        self.page.on("dialog", lambda d: self.console.append(f"dialog {d.message}"))
        self.page.goto(url)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.context.close()


def visit(browser, files, name, width=1600, scheme="light", **options):
    return Visit(
        browser,
        (files / f"{name}.html").as_uri(),
        color_scheme=scheme,
        viewport={"width": width, "height": 900},
        **options,
    )


OPEN_ALL = "document.querySelectorAll('details').forEach(d => { d.open = true; })"
CHARTS = """[...document.querySelectorAll('svg[role=img]')].map(s => {
  const r = s.getBoundingClientRect();
  const marks = [...s.querySelectorAll('path,rect,circle')].filter(m => {
    const b = m.getBBox(); return b.width + b.height > 0; }).length;
  return [r.width, r.height, marks, s.querySelector('title').textContent];
})"""
# what sticks out of its card, or out of the window
STICKS_OUT = """[...document.querySelectorAll('section')].flatMap(s => {
  const edge = s.getBoundingClientRect().right + .5;
  return [...s.querySelectorAll('*')].filter(e => !e.closest('.sr')
    && e.getClientRects().length && e.getBoundingClientRect().right > edge)
    .map(e => `${s.id} ${e.tagName} ${e.className.baseVal ?? e.className} `
      + e.textContent.slice(0, 40));
})"""
# words of one chart that are drawn over one another
OVERLAPS = """[...document.querySelectorAll('svg[role=img]')].flatMap(s => {
  const boxes = [...s.querySelectorAll('text')].map(t => [t, t.getBoundingClientRect()]);
  const bad = [];
  boxes.forEach(([a, x], i) => boxes.slice(i + 1).forEach(([b, y]) => {
    const w = Math.min(x.right, y.right) - Math.max(x.left, y.left);
    const h = Math.min(x.bottom, y.bottom) - Math.max(x.top, y.top);
    if (w > 1 && h > 3) bad.push(`${s.querySelector('title').textContent}: `
      + `${a.textContent} / ${b.textContent}`);
  }));
  return bad;
})"""
# words of a chart that leave it
CUT_OFF = """[...document.querySelectorAll('svg[role=img]')].flatMap(s => {
  const r = s.getBoundingClientRect();
  return [...s.querySelectorAll('text')].filter(t => {
    const b = t.getBoundingClientRect();
    return b.left < r.left - 3 || b.right > r.right + 3;
  }).map(t => `${s.querySelector('title').textContent}: ${t.textContent}`);
})"""


@pytest.mark.parametrize("name", ["full", "quick", "refused", "hostile", "many", "empty"])
@pytest.mark.parametrize("width", WIDTHS)
def test_layout(browser, files, name, width):
    with visit(browser, files, name, width) as v:
        assert v.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        v.page.evaluate(OPEN_ALL)
        assert v.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert v.page.evaluate(STICKS_OUT) == []
        assert v.page.evaluate(OVERLAPS) == []
        if name != "hostile":
            assert v.page.evaluate(CUT_OFF) == []
        charts = v.page.evaluate(CHARTS)
        assert all(w > 20 and h > 5 and marks > 0 for w, h, marks, _ in charts), charts
        assert len(charts) > (0 if name == "empty" else 20) or name == "empty"
        assert v.console == []
        assert [r for r in v.requests if not r.startswith(("file:", "data:"))] == []
        assert sum(r.startswith("file:") for r in v.requests) == 1


@pytest.mark.parametrize("scheme", SCHEMES)
def test_colours_follow_the_system_and_the_button(browser, files, scheme):
    ground = "getComputedStyle(document.body).backgroundColor"
    line = "getComputedStyle(document.querySelector('.chart .p.line')).stroke"
    with visit(browser, files, "full", scheme=scheme) as v:
        before = [v.page.evaluate(ground), v.page.evaluate(line)]
        is_dark = sum(map(int, before[0][4:-1].split(","))) < 3 * 128
        assert is_dark == (scheme == "dark")
        v.page.click("#theme")
        after = [v.page.evaluate(ground), v.page.evaluate(line)]
        assert before[0] != after[0]
        assert before[1] != after[1]
        v.page.click("#theme")
        assert [v.page.evaluate(ground), v.page.evaluate(line)] == before
        v.page.emulate_media(media="print")
        assert sum(map(int, v.page.evaluate(ground)[4:-1].split(","))) == 3 * 255


def test_hostile_texts_are_shown_and_never_run(browser, files):
    with visit(browser, files, "hostile") as v:
        v.page.evaluate(OPEN_ALL)
        v.page.wait_for_timeout(50)
        text = v.page.inner_text(".columns")
        for name in (
            "<script>alert(1)</script>",
            '"><img src=x onerror=alert(1)>',
            "</style></script></svg><svg onload=aler",
            "{{ 7 * 7 }}",
            "(no name)",
        ):
            assert name in text, name
        assert v.page.locator("img").count() == 0
        assert v.console == []


def test_policy_stops_what_is_not_ours(browser, files, tmp_path):
    page = (files / "full.html").read_text(encoding="utf-8")
    bad = page.replace(
        "</main>", "<script>document.title = 'ran'</script><img src='http://127.0.0.1:9/x'></main>"
    )
    (tmp_path / "bad.html").write_text(bad, encoding="utf-8")
    with Visit(browser, (tmp_path / "bad.html").as_uri()) as v:
        v.page.wait_for_timeout(100)
        assert v.page.title() != "ran"
        assert any("Content Security Policy" in text for text in v.console)


def test_tables_sort(browser, files):
    with visit(browser, files, "full") as v:
        page = v.page

        def names():
            return page.evaluate(
                "[...document.querySelectorAll('.columns > tbody')]"
                ".map(b => b.querySelector('summary bdi').textContent)"
            )

        def psi():
            return page.evaluate(
                "[...document.querySelectorAll('.columns > tbody')]"
                ".map(b => Number(b.rows[0].cells[5].dataset.v))"
            )

        ranked = names()
        head = page.locator(".columns thead th", has_text="Column")
        head.locator("button").click()
        assert head.get_attribute("aria-sort") == "ascending"
        assert names() != ranked
        assert sorted(names(), key=str.casefold)[0] == names()[0]
        head.locator("button").press("Enter")
        assert head.get_attribute("aria-sort") == "descending"
        number = page.locator(".columns thead th", has_text="PSI")
        number.locator("button").click()
        assert psi() == sorted(psi())
        assert head.get_attribute("aria-sort") == "none"
        number.locator("button").press("Space")
        assert psi() == sorted(psi(), reverse=True)
        page.locator(".columns thead th.rank button").click()
        assert names() == ranked
        # the detail row travels with its column
        assert page.evaluate(
            "[...document.querySelectorAll('.columns > tbody')].every(b =>"
            " b.rows.length === 2 && b.rows[1].innerText !== null)"
        )
        slices = page.locator("#slices")
        slices.locator("th", has_text="Ratio p to q").locator("button").click()
        ratios = page.evaluate(
            "[...document.querySelectorAll('#slices tbody tr')]"
            ".map(r => Number(r.cells[3].dataset.v))"
        )
        assert ratios == sorted(ratios)
        assert v.console == []


def test_missing_numbers_sort_last(browser, tmp_path):
    c = example.full(6)
    c["columns"][2]["effect"]["estimate"] = None
    c["columns"][2]["psi"] = None
    (tmp_path / "page.html").write_text(render(c), encoding="utf-8")
    with Visit(browser, (tmp_path / "page.html").as_uri()) as v:
        button = v.page.locator(".columns thead th", has_text="PSI").locator("button")
        for _ in range(2):
            button.click()
            last = v.page.evaluate(
                "[...document.querySelectorAll('.columns > tbody')].at(-1)"
                ".rows[0].cells[5].dataset.v"
            )
            assert last == ""


def test_columns_open_by_keyboard_and_all_at_once(browser, files):
    with visit(browser, files, "full") as v:
        page = v.page
        row = page.locator(".columns .detail").first
        assert not row.is_visible()
        page.locator(".columns summary").first.focus()
        page.keyboard.press("Enter")
        assert row.is_visible()
        assert row.locator("svg[role=img]").first.is_visible()
        page.keyboard.press("Enter")
        assert not row.is_visible()
        page.click("#open-all")
        assert page.locator(".columns .detail:visible").count() == 20
        page.click("#open-all")
        assert page.locator(".columns .detail:visible").count() == 0


def test_keyboard_reaches_the_verdict_first(browser, files):
    with visit(browser, files, "full") as v:
        v.page.keyboard.press("Tab")
        focused = "document.activeElement.className"
        assert v.page.evaluate(focused) == "skip"
        assert v.page.evaluate("document.activeElement.getBoundingClientRect().top >= 0")
        v.page.keyboard.press("Enter")
        assert v.page.evaluate("document.activeElement.id") == "main"
        v.page.keyboard.press("Tab")
        assert v.page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"


def test_the_way_a_screen_reader_sees_it(browser, files):
    with visit(browser, files, "full") as v:
        page = v.page
        for role, least in (
            ("banner", 1),
            ("navigation", 1),
            ("main", 1),
            ("contentinfo", 1),
            ("region", 10),
        ):
            assert page.get_by_role(role).count() >= least, role
        levels = page.evaluate("[...document.querySelectorAll('h1,h2,h3')].map(h => +h.tagName[1])")
        assert levels.count(1) == 1
        assert levels[0] == 1
        assert all(b - a <= 1 for a, b in zip(levels[:-1], levels[1:], strict=True))
        images = page.get_by_role("img")
        assert images.count() > 20
        gauge = page.locator("svg.gauge").aria_snapshot()
        assert "How well a classifier tells q from p" in gauge
        assert "AUC 0.742" in gauge
        assert page.evaluate(
            "[...document.querySelectorAll('button')].every(b => b.textContent.trim().length)"
        )


def test_without_script_everything_is_there(browser, files):
    with visit(browser, files, "full", java_script_enabled=False) as v:
        assert v.page.locator("button:visible").count() == 0
        v.page.locator(".columns summary").first.click()
        assert v.page.locator(".columns .detail").first.is_visible()
        assert v.page.locator(".columns > tbody").count() == 20


def test_links_lead_to_their_parts(browser, files):
    with visit(browser, files, "full") as v:
        v.page.click("nav a[href='#glossary']")
        assert v.page.locator("#glossary").is_visible()
        broken = v.page.evaluate(
            "[...document.querySelectorAll('nav a')].filter(a =>"
            " !document.querySelector(a.getAttribute('href')))"
            ".map(a => a.textContent)"
        )
        assert broken == []
