"""Numbers and names as people read them."""

from __future__ import annotations

import pytest

from dpdq.report import formatting as f

NB = "\N{NO-BREAK SPACE}"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.0, "0"),
        (1, "1"),
        (0.5, "0.5"),
        (0.12345, "0.123"),
        (0.1, "0.1"),
        (999.6, "1,000"),
        (1234.5, "1,234"),
        (24120, "24,120"),
        (-0.25, "\N{MINUS SIGN}0.25"),
        (99.95, "100"),
        (0.00012345, "0.000123"),
        (123456789, "123,456,789"),
        (None, "\N{EN DASH}"),
        (float("nan"), "\N{EN DASH}"),
        (float("inf"), "\N{EN DASH}"),
        (True, "yes"),
        ("text", "text"),
        ([], "\N{EN DASH}"),
        (1.5e-7, f"1.5{NB}\N{MULTIPLICATION SIGN}{NB}10\N{SUPERSCRIPT MINUS}\N{SUPERSCRIPT SEVEN}"),
        (3e12, f"3{NB}\N{MULTIPLICATION SIGN}{NB}10\N{SUPERSCRIPT ONE}\N{SUPERSCRIPT TWO}"),
    ],
)
def test_number(value, text):
    assert f.number(value) == text


def test_number_for_a_plain_terminal():
    for value in (None, -0.5, 1e-9, 1e15, 0.25, 3):
        assert f.number(value, ascii_only=True).isascii()
        assert f.percent(value, ascii_only=True).isascii()
        assert f.pvalue(value, ascii_only=True).isascii()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, f"0{NB}%"),
        (0.5, f"50{NB}%"),
        (0.31234, f"31.2{NB}%"),
        (1, f"100{NB}%"),
        (0.99999, f">{NB}99.9{NB}%"),
        (1e-9, f"<{NB}0.001{NB}%"),
        (None, "\N{EN DASH}"),
    ],
)
def test_percent(value, text):
    assert f.percent(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, f"<{NB}0.001"),
        (0.0009999, f"<{NB}0.001"),
        (0.001, "0.001"),
        (0.0496, "0.05"),
        (1, "1"),
        (None, "\N{EN DASH}"),
    ],
)
def test_pvalue(value, text):
    assert f.pvalue(value) == text


def test_interval():
    assert f.interval(1, 2) == "1 to 2"
    assert f.interval(1, None) == "at least 1"
    assert f.interval(None, 2) == "at most 2"
    assert f.interval(None, None) == ""
    assert f.interval(0.1, 0.2, style=f.percent, ascii_only=True) == "10 % to 20 %"


def test_clean_takes_away_what_moves_or_reorders():
    text = f.clean("a\x1b[2J\r\n\x00\x7f\x85\u202eb\u2066\u200f\ud800\ufeff")
    assert not any(ord(c) < 32 or c in "\x7f\x85\u202e\u2066\u200f\ud800\ufeff" for c in text)
    assert "\N{SYMBOL FOR ESCAPE}" in text
    family = "\U0001f468\u200d\U0001f469"
    assert f.clean(family) == family


def test_shorten_and_squeeze():
    assert f.shorten("short", 10) == "short"
    assert f.shorten("x" * 50, 10) == "x" * 9 + "\N{HORIZONTAL ELLIPSIS}"
    assert len(f.shorten("y" * 50_000_000, 10)) == 10
    squeezed = f.squeeze("native-country = United-States", 15)
    assert squeezed == "native-\N{HORIZONTAL ELLIPSIS}-States"
    assert f.squeeze("short", 15) == "short"


def test_exact():
    assert f.exact(0.1) == "0.1"
    assert f.exact(3) == "3"
    assert f.exact(None) == ""
    assert f.exact("x") == ""


def test_moment():
    assert f.moment("2011-01-01") == (1293840000.0, "2011-01-01")
    assert f.moment("2011-01-01T12:30:00Z") == (1293885000.0, "2011-01-01 12:30")
    for scale in (1, 1e3, 1e6, 1e9):
        assert f.moment(1293840000 * scale) == (1293840000.0, "2011-01-01")
    assert f.moment("not a day") is None
    assert f.moment(None) is None


def test_display_width():
    assert f.display_width("abc") == 3
    assert f.display_width("田中") == 4
    assert f.display_width("e\u0301") == 1
