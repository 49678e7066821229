"""What `dpdq methods` promises is there: objects, tests, and titles as the papers have them."""

import ast
import importlib
import re
from pathlib import Path

import pytest

from dpdq.catalogue import _CITATION, implemented_methods

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("method", implemented_methods(), ids=lambda m: f"{m.object}-{m.key}")
def test_every_method_is_whole(method):
    module, name = method.object.rsplit(".", 1)
    assert hasattr(importlib.import_module(module), name)
    assert method.cost
    assert re.search(r"O\(|\bfits\b|\bcalls?\b|that of the ", method.cost)
    assert re.search(r"\b(19|20)\d\d\b", method.source), method
    path, _, test = method.held_by.partition("::")
    text = (ROOT / path).read_text()
    defined = {
        node.name
        for node in ast.walk(ast.parse(text))
        if isinstance(node, (ast.FunctionDef, ast.ClassDef))
    }
    for part in test.split("::"):
        assert part.split("[")[0] in defined, f"{method.held_by} does not exist"


def test_titles_are_those_of_the_list(shared_data):
    folder = shared_data.parent / "methods"
    titles = {}
    for file in folder.glob("*.md"):
        for line in file.read_text().splitlines():
            match = re.match(r"## (M\d+) (.*)", line)
            if match:
                titles[match[1]] = match[2].strip()
    for method in implemented_methods():
        if re.fullmatch(r"M\d+", method.key):
            assert method.title == titles[method.key].rstrip(".")


def test_query_keeps_rows_with_all_words():
    everything = implemented_methods()
    some = implemented_methods("Kernel two-sample")
    assert some
    assert len(some) < len(everything)
    assert implemented_methods("no such method anywhere") == []
    rooms = [method.room for method in everything]
    assert rooms == sorted(rooms)


@pytest.mark.parametrize(
    "entry, title, source",
    [
        ("A Kernel Two-Sample Test. Gretton, 2012, JMLR 13.", "A Kernel Two-Sample Test",
         "Gretton, 2012, JMLR 13."),
        ("Are We There Yet? Chakraborty, 2020, TSE.", "Are We There Yet?",
         "Chakraborty, 2020, TSE."),
    ],
)  # fmt: skip
def test_citations_are_cut_into_title_and_source(entry, title, source):
    match = _CITATION.match(entry)
    assert match["title"] == title
    assert match["source"] == source
