"""The strokes that all drawings are made of, as text."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Sequence
from typing import Any

from dpdq.report.formatting import clean

__all__ = ["Svg", "at", "diamond", "dot", "escape", "frame", "line", "text_at", "ticks_between"]


class Svg(str):
    """Markup that is already safe; template engines that know ``__html__`` leave it alone."""

    __slots__ = ()

    def __html__(self) -> str:
        return str(self)


def escape(text: Any) -> str:
    """Return a cleaned text, escaped for markup."""
    return html.escape(clean(text), quote=True)


def at(value: float) -> str:
    """Return a coordinate at a tenth of a pixel, without trailing zeros."""
    text = f"{value:.1f}"
    return text[:-2] if text.endswith(".0") else text


def frame(
    width: float, height: float, body: Sequence[str], *, kind: str, key: str, title: str, desc: str
) -> Svg:
    """Put a drawing into its ``<svg>``, with a title and its numbers in words."""
    key = re.sub(r"[^\w-]", "-", key)
    return Svg(
        f'<svg class="chart {kind}" role="img" viewBox="0 0 {at(width)} {at(height)}" '
        f'width="{at(width)}" height="{at(height)}" aria-labelledby="{key}-t {key}-d">'
        f'<title id="{key}-t">{escape(title)}</title><desc id="{key}-d">{escape(desc)}</desc>'
        f"{''.join(body)}</svg>"
    )


def line(kind: str, x1: float, y1: float, x2: float, y2: float) -> str:
    """Return a straight line."""
    return f'<path class="{kind}" d="M{at(x1)} {at(y1)}L{at(x2)} {at(y2)}"/>'


def text_at(kind: str, x: float, y: float, text: str, anchor: str = "start") -> str:
    """Return words that start, end or are centred at a point."""
    where = "" if anchor == "start" else f' text-anchor="{anchor}"'
    return f'<text class="{kind}" x="{at(x)}" y="{at(y)}"{where}>{escape(text)}</text>'


def diamond(kind: str, x: float, y: float, size: float = 4.0) -> str:
    """Return a diamond around a point."""
    return (
        f'<path class="{kind}" d="M{at(x)} {at(y - size)}l{at(size)} {at(size)}'
        f'l{at(-size)} {at(size)}l{at(-size)} {at(-size)}z"/>'
    )


def dot(kind: str, x: float, y: float, radius: float = 3.5) -> str:
    """Return a disc around a point."""
    return f'<circle class="{kind}" cx="{at(x)}" cy="{at(y)}" r="{at(radius)}"/>'


def ticks_between(low: float, high: float, most: int = 5) -> list[float]:
    """Return round numbers inside an interval, at most ``most`` of them."""
    if not high > low:
        return [low]
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next((power * m for m in (1, 2, 2.5, 5, 10) if power * m >= raw), power * 10)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(k * step, 12) for k in range(first, min(last, first + most) + 1)]
