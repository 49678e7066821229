"""The few lines for a terminal."""

from __future__ import annotations

import pytest
from tests.report import example

from dpdq.report import terminal_summary
from dpdq.report.formatting import display_width


@pytest.mark.parametrize(
    "make",
    [
        example.full,
        example.quick,
        example.refused,
        example.subset,
        example.hostile,
        lambda: example.full(60),
        dict,
    ],
)
def test_plain_narrow_and_short(make):
    text = terminal_summary(make())
    lines = text.splitlines()
    assert len(lines) <= 34
    assert max(map(display_width, lines)) <= 110
    assert not any(ord(c) < 32 for line in lines for c in line)
    assert "None" not in text
    assert "nan" not in text.split()
    text.encode("utf-8")


def test_columns_are_aligned():
    lines = terminal_summary(example.full()).splitlines()
    head = next(k for k, line in enumerate(lines) if line.startswith("  column"))
    at = lines[head].index("PSI")
    for line in lines[head + 1 : head + 7]:
        assert line[at - 2 : at] == "  "
        assert line[at] != " "


def test_numbers():
    text = terminal_summary(example.full())
    for part in (
        "q 24,120 rows, p 12,000 rows, 14 columns",
        "AUC 0.742 (at least 0.731)",
        "KL 0.341 (at least 0.298)",
        "0.214 % of p out of q's reach",
        "worth 12,613 of 24,120 rows of q",
        "and 8 more, 3 of them shifted",
    ):
        assert part in text


def test_refusal_and_reasons():
    text = terminal_summary(example.refused())
    assert "FAILS: 31.2 %" in text
    assert "NOT USABLE" in text
    assert "not run in quick mode" in terminal_summary(example.quick())


def test_slice_that_is_only_in_p():
    c = example.refused()
    c["slices"] = c["slices"][-1:]
    assert "relationship = Wife: 0 % of q, 12.7 % of p (at least x29.8)" in terminal_summary(c)


def test_any_part_may_be_null():
    full = example.full()
    for key in full:
        assert terminal_summary(full | {key: None})
        assert terminal_summary({k: v for k, v in full.items() if k != key})
