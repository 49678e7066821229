"""Numbers and names as people read them: three digits, honest dashes, no tricks in a text.

Every text of the page that comes from the data passes through `clean`, which makes control
characters visible and takes away the characters that reorder or break what is drawn; escaping for
HTML is a second, separate step. Every number passes through one of `number`, `percent`, `pvalue`
and `count`; what does not exist is a dash, and `exact` is the unrounded value for a tooltip.
"""

from __future__ import annotations

import datetime
import math
import re
import unicodedata
from typing import Any

__all__ = [
    "DASH",
    "as_float",
    "clean",
    "count",
    "display_width",
    "exact",
    "interval",
    "moment",
    "number",
    "percent",
    "pvalue",
    "shorten",
    "squeeze",
]

DASH = "\N{EN DASH}"
_NARROW = "\N{NO-BREAK SPACE}"
_SUPERSCRIPT = str.maketrans(
    "-0123456789",
    "\N{SUPERSCRIPT MINUS}\N{SUPERSCRIPT ZERO}\N{SUPERSCRIPT ONE}\N{SUPERSCRIPT TWO}"
    "\N{SUPERSCRIPT THREE}\N{SUPERSCRIPT FOUR}\N{SUPERSCRIPT FIVE}\N{SUPERSCRIPT SIX}"
    "\N{SUPERSCRIPT SEVEN}\N{SUPERSCRIPT EIGHT}\N{SUPERSCRIPT NINE}",
)
# C0, DEL and C1 controls, line and paragraph separators, bidirectional embeddings, overrides,
# isolates and marks, noncharacters at the end of the plane, lone surrogates
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ufffe\uffff"
    "\ud800-\udfff]"
)


def _visible(match: re.Match[str]) -> str:
    code = ord(match.group())
    if code < 0x20:
        return chr(0x2400 + code)
    return "\N{SYMBOL FOR DELETE}" if code == 0x7F else "\N{REPLACEMENT CHARACTER}"


def clean(text: Any) -> str:
    """Return a text without control characters, direction overrides and lone surrogates.

    Controls become their visible symbols, the others a replacement character, so that a hostile
    name can neither move the cursor of a terminal nor reorder the text around it.
    """
    return _UNSAFE.sub(_visible, str(text))


def shorten(text: Any, limit: int) -> str:
    """Return `clean` text of at most ``limit`` characters; a cut text ends in an ellipsis."""
    raw = str(text)
    # cut before cleaning: a cell of 50 MB costs no more than its first characters
    whole = clean(raw[: limit + 1])
    if len(whole) <= limit:
        return whole
    return whole[: max(limit - 1, 1)].rstrip() + "\N{HORIZONTAL ELLIPSIS}"


def squeeze(text: Any, limit: int) -> str:
    """Return `clean` text of at most ``limit`` characters, cut in the middle: both ends tell."""
    raw = str(text)
    if len(raw) <= limit:
        return clean(raw)
    end = limit // 2
    return f"{clean(raw[: limit - end - 1]).rstrip()}\N{HORIZONTAL ELLIPSIS}{clean(raw[-end:])}"


def as_float(value: Any) -> float | None:
    """Return a finite float, or None for what is missing, not a number or not finite."""
    if value is None or isinstance(value, (bool, str)):
        return None
    try:
        result = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return result if math.isfinite(result) else None


def _plain(value: float, digits: int) -> str:
    if value == 0:
        return "0"
    places = digits - 1 - math.floor(math.log10(abs(value)))
    rounded = round(value, places)
    text = f"{rounded:,.{max(places, 0)}f}" if places > 0 else f"{round(value):,}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def number(value: Any, digits: int = 3, *, ascii_only: bool = False) -> str:
    """Return a number at ``digits`` significant digits, with thousands separators.

    Examples
    --------
    >>> number(24120), number(0.123456), number(None, ascii_only=True)
    ('24,120', '0.123', '-')
    >>> number(0.0000123, ascii_only=True)
    '1.23e-05'
    """
    if isinstance(value, str):
        return shorten(value, 60)
    if isinstance(value, bool):
        return "yes" if value else "no"
    x = as_float(value)
    if x is None:
        return "-" if ascii_only else DASH
    if x != 0 and not 1e-4 <= abs(x) < 1e9:
        text = f"{x:.{digits}g}" if ascii_only else f"{x:.{digits - 1}e}"
        if ascii_only:
            return text
        mantissa, exponent = text.split("e")
        mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
        power = f"{_NARROW}\N{MULTIPLICATION SIGN}{_NARROW}10" + str(int(exponent)).translate(
            _SUPERSCRIPT
        )
        return mantissa.replace("-", "\N{MINUS SIGN}") + power
    text = _plain(x, digits)
    return text if ascii_only else text.replace("-", "\N{MINUS SIGN}")


def count(value: Any) -> str:
    """Return a whole number with thousands separators, or a dash."""
    x = as_float(value)
    return DASH if x is None else f"{round(x):,}".replace("-", "\N{MINUS SIGN}")


def percent(value: Any, digits: int = 3, *, ascii_only: bool = False) -> str:
    """Return a share as a percentage.

    Examples
    --------
    >>> percent(0.31234, ascii_only=True), percent(0.000001, ascii_only=True)
    ('31.2 %', '< 0.001 %')
    """
    x = as_float(value)
    if x is None:
        return "-" if ascii_only else DASH
    space = " " if ascii_only else _NARROW
    if 0 < abs(x) < 1e-5:
        return f"<{space}0.001{space}%"
    if 0.9995 <= x < 1:
        return f">{space}99.9{space}%"
    return number(100 * x, digits, ascii_only=ascii_only) + f"{space}%"


def pvalue(value: Any, *, ascii_only: bool = False) -> str:
    """Return a p-value: three decimals, and ``< 0.001`` below what they show.

    Examples
    --------
    >>> pvalue(0.04212), pvalue(1.0), pvalue(1e-9, ascii_only=True)
    ('0.042', '1', '< 0.001')
    """
    x = as_float(value)
    if x is None:
        return "-" if ascii_only else DASH
    if x < 0.001:
        return "< 0.001" if ascii_only else f"<{_NARROW}0.001"
    text = f"{x:.3f}"
    return text.rstrip("0").rstrip(".")


def interval(low: Any, high: Any, *, style: Any = number, ascii_only: bool = False) -> str:
    """Return the ends of an interval in words; empty when neither end exists."""
    has_low, has_high = as_float(low) is not None, as_float(high) is not None
    if has_low and has_high:
        return f"{style(low, ascii_only=ascii_only)} to {style(high, ascii_only=ascii_only)}"
    if has_low:
        return f"at least {style(low, ascii_only=ascii_only)}"
    return f"at most {style(high, ascii_only=ascii_only)}" if has_high else ""


def exact(value: Any) -> str:
    """Return the unrounded number, for a tooltip; empty for what is not a number."""
    x = as_float(value)
    if x is None:
        return ""
    return str(value) if isinstance(value, int) else repr(x)


def moment(value: Any) -> tuple[float, str] | None:
    """Return seconds and a readable day or time of a datetime edge, ISO text or epoch number.

    Epoch numbers are seconds, milli-, micro- or nanoseconds; their size tells which.
    """
    if isinstance(value, str):
        try:
            then = datetime.datetime.fromisoformat(value.replace("Z", "+00:00"))
        except ValueError:
            return None
        if then.tzinfo is None:
            then = then.replace(tzinfo=datetime.UTC)
        seconds = (then - _EPOCH).total_seconds()
    else:
        x = as_float(value)
        if x is None:
            return None
        size = abs(x)
        scale = 1e9 if size > 1e17 else 1e6 if size > 1e14 else 1e3 if size > 1e11 else 1.0
        seconds = x / scale
    try:
        then = _EPOCH + datetime.timedelta(seconds=seconds)
    except OverflowError:
        return None
    text = then.strftime("%Y-%m-%d")
    return seconds, text if seconds % 86400 == 0 else text + then.strftime(" %H:%M")


_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


def display_width(text: str) -> int:
    """Return the number of terminal cells that a text takes."""
    return sum(
        0
        if unicodedata.combining(c) or c == "\u200d" or "\ufe00" <= c <= "\ufe0f"
        else 2
        if unicodedata.east_asian_width(c) in "WF"
        else 1
        for c in text
    )
