"""Histograms of q, p and reweighted q: one in the height of a line, one to read.

Heights are shares of rows, never densities: bins of unequal width are drawn equally wide, with
their edges written below, since a tall thin bar and a short wide one would otherwise lie.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from dpdq.report._svg import Svg, at, diamond, escape, frame, line, text_at, ticks_between
from dpdq.report.formatting import (
    as_float,
    moment,
    number,
    percent,
    shorten,
    squeeze,
)

__all__ = ["histogram", "sparkline"]


def _shares(values: Any, length: int) -> list[float] | None:
    """Return ``length`` non-negative numbers, or None where there are none to draw."""
    if not isinstance(values, (list, tuple)) or not values:
        return None
    out = [max(as_float(v) or 0.0, 0.0) for v in values[:length]]
    return out + [0.0] * (length - len(out))


class _Bins:
    """A histogram read from its JSON: where each bin stands in [0, 1] and what it is called."""

    def __init__(self, data: Any, kind: str = "") -> None:
        data = data if isinstance(data, Mapping) else {}
        lengths = [len(data[s]) for s in ("q", "p") if isinstance(data.get(s), (list, tuple))]
        n = max(lengths, default=0)
        self.n = n
        self.q = _shares(data.get("q"), n)
        self.p = _shares(data.get("p"), n)
        self.w = _shares(data.get("q_weighted"), n)
        edges, labels = data.get("edges"), data.get("labels")
        self.is_levels = not isinstance(edges, (list, tuple)) or len(edges) != n + 1
        self.places = [k / n for k in range(n + 1)] if n else []
        self.ticks: list[tuple[float, str]] = []
        self.is_even = True
        if self.is_levels:
            known = labels if isinstance(labels, (list, tuple)) else []
            self.names = [
                f"level {k + 1}"
                if k >= len(known)
                else "(missing)"
                if known[k] is None
                else str(known[k])
                for k in range(n)
            ]
        else:
            self._read_edges(list(edges), kind)
            if isinstance(labels, (list, tuple)) and len(labels) == n:
                self.names = [str(label) for label in labels]

    def _read_edges(self, edges: list[Any], kind: str) -> None:
        is_time = kind == "datetime" or any(isinstance(e, str) for e in edges)
        texts: list[str] = []
        numbers: list[float | None] = []
        for edge in edges:
            found = moment(edge) if is_time else None
            if found is not None:
                numbers.append(found[0])
                texts.append(found[1])
            else:
                numbers.append(as_float(edge))
                texts.append(number(edge, 4) if edge is not None else "")
        self.names = [
            f"{a} to {b}" if a and b else f"up to {b}" if b else f"from {a}" if a else "all"
            for a, b in zip(texts[:-1], texts[1:], strict=True)
        ]
        known = [x for x in numbers if x is not None]
        widths = [b - a for a, b in zip(known[:-1], known[1:], strict=True)]
        if len(known) == len(numbers) and min(widths) > 0:
            span = known[-1] - known[0]
            if max(widths) <= 1.5 * min(widths):
                self.places = [(x - known[0]) / span for x in known]
                if is_time:
                    self.ticks = [(0.0, texts[0]), (1.0, texts[-1])]
                    if len(texts) > 4 and max(map(len, texts)) <= 10:
                        middle = len(texts) // 2
                        self.ticks.insert(1, (self.places[middle], texts[middle]))
                else:
                    self.ticks = [
                        ((t - known[0]) / span, number(t, 4))
                        for t in ticks_between(known[0], known[-1])
                    ]
                return
        # bins of unequal or unknown width are drawn equally wide, with the edges written below
        self.is_even = False
        every = max(1, math.ceil(len(texts) / 5))
        shown = {*range(0, len(texts) - every // 2, every), len(texts) - 1}
        self.ticks = [(self.places[k], texts[k]) for k in sorted(shown) if texts[k]]

    @staticmethod
    def top(*samples: list[float] | None) -> float:
        """Return the largest share."""
        return max((share for shares in samples for share in shares or ()), default=0.0)

    def sentence(self, name: str) -> str:
        """Return the numbers of the histogram in words."""
        if not self.n:
            return f"No histogram of {name}."
        parts = []
        samples = (("q", self.q), ("p", self.p), ("reweighted q", self.w))
        for title, shares in samples:
            if shares and sum(shares) > 0:
                k = max(range(self.n), key=shares.__getitem__)
                parts.append(
                    f"{title} is highest at {shorten(self.names[k], 30)} ({percent(shares[k])})"
                )
        text = "; ".join(parts)
        if self.q and self.p and sum(self.q) > 0 and sum(self.p) > 0:
            gaps = [b - a for a, b in zip(self.q, self.p, strict=True)]
            k = max(range(self.n), key=lambda i: abs(gaps[i]))
            if abs(gaps[k]) > 1e-9:
                text += (
                    f". The largest gap is at {shorten(self.names[k], 30)}: "
                    f"{percent(self.q[k])} of q, {percent(self.p[k])} of p"
                )
        return f"Share of rows by {'level' if self.is_levels else 'bin'} of {name}: {text}."


def _area(places: Sequence[float], heights: Sequence[float], x: Any, y: Any) -> str:
    """Return the path of filled bars standing on zero."""
    parts = [f"M{at(x(places[0]))} {at(y(0.0))}"]
    for k, height in enumerate(heights):
        parts.append(f"V{at(y(height))}H{at(x(places[k + 1]))}")
    return "".join(parts) + f"V{at(y(0.0))}z"


def _steps(places: Sequence[float], heights: Sequence[float], x: Any, y: Any) -> str:
    """Return the path of a stair line."""
    parts = [f"M{at(x(places[0]))} {at(y(heights[0]))}H{at(x(places[1]))}"]
    for k in range(1, len(heights)):
        parts.append(f"V{at(y(heights[k]))}H{at(x(places[k + 1]))}")
    return "".join(parts)


def sparkline(
    data: Mapping[str, Any] | None,
    *,
    name: str,
    key: str,
    kind: str = "",
    width: float = 96,
    height: float = 26,
) -> Svg:
    """Draw a histogram of q and p in the height of a line of text; empty without data.

    Parameters
    ----------
    data
        The ``histogram`` of a column: ``edges`` or ``labels``, and the shares ``q`` and ``p``.
    name
        What the text alternative calls it.
    key
        Unique in the page.
    kind
        The kind of the column; ``"datetime"`` reads numbers as moments.
    width, height
        Size in pixels.

    Returns
    -------
    Svg
        One ``<svg role="img">``, or empty text.
    """
    bins = _Bins(data, kind)
    top = bins.top(bins.q, bins.p)
    if top <= 0:
        return Svg("")

    def x(place: float) -> float:
        return 1 + place * (width - 2)

    def y(share: float) -> float:
        return height - 1.5 - share / top * (height - 4)

    body = [line("axis", 0, height - 1, width, height - 1)]
    if bins.q:
        body.append(f'<path class="q area" d="{_area(bins.places, bins.q, x, y)}"/>')
    if bins.p:
        body.append(f'<path class="p line" d="{_steps(bins.places, bins.p, x, y)}"/>')
    title = f"{shorten(name, 40)}: q and p"
    desc = bins.sentence(shorten(name, 40))
    return frame(width, height, body, kind="spark", key=key, title=title, desc=desc)


def histogram(
    data: Mapping[str, Any] | None, *, name: str, key: str, kind: str = "", compact: bool = False
) -> Svg:
    """Draw q, p and reweighted q over the bins or the levels of one column; empty without data.

    Bins of unequal width are drawn equally wide, since the heights are shares and not densities.

    Parameters
    ----------
    data
        The ``histogram`` of a column: ``edges`` or ``labels``, and the shares ``q``, ``p`` and
        ``q_weighted`` (or None).
    name
        What the text alternative calls it.
    key
        Unique in the page.
    kind
        The kind of the column; ``"datetime"`` reads numbers as moments.
    compact
        Lower, and without a tooltip a bin: for pages of many columns.

    Returns
    -------
    Svg
        One ``<svg role="img">``, or empty text.
    """
    bins = _Bins(data, kind)
    top = bins.top(bins.q, bins.p, bins.w)
    if top <= 0:
        return Svg("")
    if bins.is_levels:
        return _levels(bins, top, name=name, key=key, compact=compact)
    width, height = 352.0, 132.0 if compact else 184.0
    left, right, upper, lower = 40.0, 10.0, 10.0, 24.0

    def x(place: float) -> float:
        return left + place * (width - left - right)

    def y(share: float) -> float:
        return height - lower - share / top * (height - lower - upper)

    body = []
    for tick in ticks_between(0.0, top, 3 if compact else 4):
        body.append(line("axis" if tick == 0 else "grid", left, y(tick), width - right, y(tick)))
        body.append(text_at("tick", left - 6, y(tick) + 3.5, percent(tick), "end"))
    for place, text in bins.ticks:
        anchor = "start" if place < 0.02 and len(text) > 8 else "middle"
        anchor = "end" if place > 0.98 and len(text) > 3 else anchor
        shift = right if anchor == "end" else 0
        body.append(line("axis", x(place), y(0), x(place), y(0) + 4))
        body.append(text_at("tick", x(place) + shift, height - 6, text, anchor))
    if bins.q:
        body.append(f'<path class="q area" d="{_area(bins.places, bins.q, x, y)}"/>')
    if bins.p:
        body.append(f'<path class="p line" d="{_steps(bins.places, bins.p, x, y)}"/>')
    if bins.w:
        body.append(f'<path class="w line" d="{_steps(bins.places, bins.w, x, y)}"/>')
    if not compact and bins.n <= 40:
        for k in range(bins.n):
            a, b = x(bins.places[k]), x(bins.places[k + 1])
            body.append(
                f'<rect class="hit" x="{at(a)}" y="{at(upper)}" width="{at(b - a)}" '
                f'height="{at(y(0) - upper)}"><title>{escape(_hover(bins, k))}</title></rect>'
            )
    short = shorten(name, 60)
    title = f"Histogram of {short}"
    return frame(width, height, body, kind="hist", key=key, title=title, desc=bins.sentence(short))


def _hover(bins: _Bins, k: int) -> str:
    parts = [f"q {percent(bins.q[k])}"] if bins.q else []
    parts += [f"p {percent(bins.p[k])}"] if bins.p else []
    parts += [f"reweighted {percent(bins.w[k])}"] if bins.w else []
    return f"{shorten(bins.names[k], 60)}: {', '.join(parts)}"


_MOST_LEVELS = 14


def _levels(bins: _Bins, top: float, *, name: str, key: str, compact: bool) -> Svg:
    shown = min(bins.n, 6 if compact else _MOST_LEVELS)
    row, left, right = (22.0 if compact else 26.0), 128.0, 82.0
    width = 352.0
    height = row * shown + 8 + (14 if shown < bins.n else 0)

    def x(share: float) -> float:
        return left + share / top * (width - left - right)

    body = [line("axis", left, 2, left, row * shown + 6)]
    for k in range(shown):
        y = 4 + row * k
        thick = row * 0.32
        label = squeeze(bins.names[k], 19) or "(empty)"
        inner = [text_at("label", left - 8, y + row / 2 + 3.5, label, "end")]
        ends = [left]
        if bins.q:
            ends.append(x(bins.q[k]))
            inner.append(
                f'<rect class="q area" x="{at(left)}" y="{at(y + 2)}" '
                f'width="{at(max(ends[-1] - left, 0.8))}" height="{at(thick)}"/>'
            )
        if bins.p:
            ends.append(x(bins.p[k]))
            inner.append(
                f'<rect class="p hollow" x="{at(left)}" y="{at(y + 4 + thick)}" '
                f'width="{at(max(ends[-1] - left, 0.8))}" height="{at(thick)}"/>'
            )
        if bins.w:
            inner.append(diamond("w mark", x(bins.w[k]), y + 3 + thick, 4.2))
            ends.append(x(bins.w[k]) + 3)
        change = " \N{RIGHTWARDS ARROW} ".join(percent(s[k], 2) for s in (bins.q, bins.p) if s)
        inner.append(text_at("tick", max(ends) + 5, y + row / 2 + 3.5, change))
        inner.append(f"<title>{escape(_hover(bins, k))}</title>")
        body.append(f"<g>{''.join(inner)}</g>")
    if shown < bins.n:
        body.append(text_at("tick", left, height - 3, f"and {bins.n - shown} more levels"))
    short = shorten(name, 60)
    title = f"Levels of {short}, labelled with their shares of q and of p"
    return frame(
        width, height, body, kind="hist levels", key=key, title=title, desc=bins.sentence(short)
    )
