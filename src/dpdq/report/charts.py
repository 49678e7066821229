"""Drawings of a comparison as inline SVG, from plain numbers.

A chart is a function from numbers to one ``<svg role="img">`` with a ``<title>`` that names it and
a ``<desc>`` that says its numbers in a sentence. Colours are never written here: shapes carry the
classes below and a style sheet gives them CSS variables, so that one drawing serves light, dark
and print. The three samples are told apart by form first and by colour second:

    .q  the data you have       a filled area or a filled bar
    .p  the data you want       a solid line or a hollow bar
    .w  q after reweighting     a dashed line or a diamond

Charts are drawn for a width of about 350 pixels, so that their letters stay readable on a phone,
and are meant to be scaled up by at most a third. ``key`` must be unique in the page: the ids of
title and description are made from it.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from dpdq.report.formatting import (
    as_float,
    clean,
    interval,
    moment,
    number,
    percent,
    shorten,
    squeeze,
)

__all__ = [
    "Svg",
    "auc_gauge",
    "forest_bar",
    "histogram",
    "interval_bar",
    "log_domain",
    "love_plot",
    "sparkline",
]

_Number = float | int | None


class Svg(str):
    """Markup that is already safe; template engines that know ``__html__`` leave it alone."""

    __slots__ = ()

    def __html__(self) -> str:
        return str(self)


def _escape(text: Any) -> str:
    return html.escape(clean(text), quote=True)


def _at(value: float) -> str:
    """Return a coordinate at a tenth of a pixel, without trailing zeros."""
    text = f"{value:.1f}"
    return text[:-2] if text.endswith(".0") else text


def _frame(
    width: float, height: float, body: Sequence[str], *, kind: str, key: str, title: str, desc: str
) -> Svg:
    key = re.sub(r"[^\w-]", "-", key)
    return Svg(
        f'<svg class="chart {kind}" role="img" viewBox="0 0 {_at(width)} {_at(height)}" '
        f'width="{_at(width)}" height="{_at(height)}" aria-labelledby="{key}-t {key}-d">'
        f'<title id="{key}-t">{_escape(title)}</title><desc id="{key}-d">{_escape(desc)}</desc>'
        f"{''.join(body)}</svg>"
    )


def _line(kind: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<path class="{kind}" d="M{_at(x1)} {_at(y1)}L{_at(x2)} {_at(y2)}"/>'


def _text(kind: str, x: float, y: float, text: str, anchor: str = "start") -> str:
    where = "" if anchor == "start" else f' text-anchor="{anchor}"'
    return f'<text class="{kind}" x="{_at(x)}" y="{_at(y)}"{where}>{_escape(text)}</text>'


def _diamond(kind: str, x: float, y: float, size: float = 4.0) -> str:
    return (
        f'<path class="{kind}" d="M{_at(x)} {_at(y - size)}l{_at(size)} {_at(size)}'
        f'l{_at(-size)} {_at(size)}l{_at(-size)} {_at(-size)}z"/>'
    )


def _dot(kind: str, x: float, y: float, radius: float = 3.5) -> str:
    return f'<circle class="{kind}" cx="{_at(x)}" cy="{_at(y)}" r="{_at(radius)}"/>'


def _ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Return round numbers inside an interval, at most ``most`` of them."""
    if not high > low:
        return [low]
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next((power * m for m in (1, 2, 2.5, 5, 10) if power * m >= raw), power * 10)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(k * step, 12) for k in range(first, min(last, first + most) + 1)]


# -- histograms ------------------------------------------------------------------------------------


def _shares(values: Any, length: int) -> list[float] | None:
    """Return ``length`` non-negative numbers, or None where there are none to draw."""
    if not isinstance(values, (list, tuple)) or not values:
        return None
    out = [max(as_float(v) or 0.0, 0.0) for v in values[:length]]
    return out + [0.0] * (length - len(out))


class _Bins:
    """A histogram read from its JSON: where each bin stands in [0, 1] and what it is called."""

    def __init__(self, data: Any, kind: str = "") -> None:  # noqa: ANN401 - JSON
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
                f"level {k + 1}" if k >= len(known) else "(missing)" if known[k] is None
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
                        ((t - known[0]) / span, number(t, 4)) for t in _ticks(known[0], known[-1])
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
                parts.append(f"{title} is highest at {shorten(self.names[k], 30)} "
                             f"({percent(shares[k])})")
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
    parts = [f"M{_at(x(places[0]))} {_at(y(0.0))}"]
    for k, height in enumerate(heights):
        parts.append(f"V{_at(y(height))}H{_at(x(places[k + 1]))}")
    return "".join(parts) + f"V{_at(y(0.0))}z"


def _steps(places: Sequence[float], heights: Sequence[float], x: Any, y: Any) -> str:
    """Return the path of a stair line."""
    parts = [f"M{_at(x(places[0]))} {_at(y(heights[0]))}H{_at(x(places[1]))}"]
    for k in range(1, len(heights)):
        parts.append(f"V{_at(y(heights[k]))}H{_at(x(places[k + 1]))}")
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

    body = [_line("axis", 0, height - 1, width, height - 1)]
    if bins.q:
        body.append(f'<path class="q area" d="{_area(bins.places, bins.q, x, y)}"/>')
    if bins.p:
        body.append(f'<path class="p line" d="{_steps(bins.places, bins.p, x, y)}"/>')
    title = f"{shorten(name, 40)}: q and p"
    desc = bins.sentence(shorten(name, 40))
    return _frame(width, height, body, kind="spark", key=key, title=title, desc=desc)


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
    for tick in _ticks(0.0, top, 3 if compact else 4):
        body.append(_line("axis" if tick == 0 else "grid", left, y(tick), width - right, y(tick)))
        body.append(_text("tick", left - 6, y(tick) + 3.5, percent(tick), "end"))
    for place, text in bins.ticks:
        anchor = "start" if place < 0.02 and len(text) > 8 else "middle"
        anchor = "end" if place > 0.98 and len(text) > 3 else anchor
        shift = right if anchor == "end" else 0
        body.append(_line("axis", x(place), y(0), x(place), y(0) + 4))
        body.append(_text("tick", x(place) + shift, height - 6, text, anchor))
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
                f'<rect class="hit" x="{_at(a)}" y="{_at(upper)}" width="{_at(b - a)}" '
                f'height="{_at(y(0) - upper)}"><title>{_escape(_hover(bins, k))}</title></rect>'
            )
    short = shorten(name, 60)
    title = f"Histogram of {short}"
    return _frame(
        width, height, body, kind="hist", key=key, title=title, desc=bins.sentence(short)
    )


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

    body = [_line("axis", left, 2, left, row * shown + 6)]
    for k in range(shown):
        y = 4 + row * k
        thick = row * 0.32
        label = squeeze(bins.names[k], 19) or "(empty)"
        inner = [_text("label", left - 8, y + row / 2 + 3.5, label, "end")]
        ends = [left]
        if bins.q:
            ends.append(x(bins.q[k]))
            inner.append(
                f'<rect class="q area" x="{_at(left)}" y="{_at(y + 2)}" '
                f'width="{_at(max(ends[-1] - left, 0.8))}" height="{_at(thick)}"/>'
            )
        if bins.p:
            ends.append(x(bins.p[k]))
            inner.append(
                f'<rect class="p hollow" x="{_at(left)}" y="{_at(y + 4 + thick)}" '
                f'width="{_at(max(ends[-1] - left, 0.8))}" height="{_at(thick)}"/>'
            )
        if bins.w:
            inner.append(_diamond("w mark", x(bins.w[k]), y + 3 + thick, 4.2))
            ends.append(x(bins.w[k]) + 3)
        change = " \N{RIGHTWARDS ARROW} ".join(percent(s[k], 2) for s in (bins.q, bins.p) if s)
        inner.append(_text("tick", max(ends) + 5, y + row / 2 + 3.5, change))
        inner.append(f"<title>{_escape(_hover(bins, k))}</title>")
        body.append(f"<g>{''.join(inner)}</g>")
    if shown < bins.n:
        body.append(_text("tick", left, height - 3, f"and {bins.n - shown} more levels"))
    short = shorten(name, 60)
    title = f"Levels of {short}, labelled with their shares of q and of p"
    return _frame(
        width, height, body, kind="hist levels", key=key, title=title, desc=bins.sentence(short)
    )


# -- one number with its interval ------------------------------------------------------------------


def auc_gauge(
    estimate: _Number,
    low: _Number = None,
    high: _Number = None,
    *,
    tolerance: _Number = None,
    detectable: _Number = None,
    key: str,
) -> Svg:
    """Draw an AUC with its interval between 0.5 (no difference) and 1 (told apart always).

    Parameters
    ----------
    estimate, low, high
        The AUC and the ends of its interval; None for an end that does not exist.
    tolerance
        The AUC up to which a difference is tolerated: the shaded part of the scale.
    detectable
        The smallest AUC that would be found at these sizes: a triangle.
    key
        Unique in the page.

    Returns
    -------
    Svg
        One ``<svg role="img">``, or empty text where there is no estimate.
    """
    auc = as_float(estimate)
    if auc is None:
        return Svg("")
    a, b = as_float(low), as_float(high)
    limit, smallest = as_float(tolerance), as_float(detectable)
    width, height, left, right, base = 352.0, 84.0, 12.0, 14.0, 46.0
    start = 0.45

    def x(value: float) -> float:
        share = (min(max(value, start), 1.0) - start) / (1 - start)
        return left + share * (width - left - right)

    body = [
        f'<rect class="track" x="{_at(left)}" y="{_at(base - 5)}" '
        f'width="{_at(width - left - right)}" height="10" rx="5"/>'
    ]
    if limit is not None and limit > 0.5:
        body.append(
            f'<rect class="tolerated" x="{_at(x(0.5))}" y="{_at(base - 5)}" '
            f'width="{_at(x(limit) - x(0.5))}" height="10"/>'
        )
    for tick in (0.5, 0.6, 0.7, 0.8, 0.9, 1.0):
        body.append(_line("axis", x(tick), base + 7, x(tick), base + 11))
        body.append(_text("tick", x(tick), base + 23, f"{tick:g}", "middle"))
    if limit is not None:
        body.append(_line("limit", x(limit), base - 11, x(limit), base + 11))
    if smallest is not None:
        body.append(
            f'<path class="small" d="M{_at(x(smallest))} {_at(base + 6)}l-4 7h8z"/>'
        )
    if a is not None or b is not None:
        ends = (x(a if a is not None else auc), x(b if b is not None else auc))
        body.append(_line("span", ends[0], base, ends[1], base))
        for end, exists in zip(ends, (a, b), strict=True):
            if exists is not None:
                body.append(_line("cap", end, base - 5, end, base + 5))
    body.append(_dot("point", x(auc), base, 6))
    anchor = "start" if auc < 0.55 else "end" if auc > 0.93 else "middle"
    body.append(_text("value", x(auc) + (-6 if anchor == "start" else 0), base - 16,
                      f"AUC {number(auc)}", anchor))
    words = [f"AUC {number(auc)}"]
    if interval(a, b):
        words.append(f"interval {interval(a, b)}")
    if limit is not None:
        words.append(f"tolerance {number(limit)}")
    if smallest is not None:
        words.append(f"smallest detectable {number(smallest)}")
    desc = ", ".join(words) + ", on a scale from 0.5 (no difference) to 1 (told apart always)."
    return _frame(
        width, height, body, kind="gauge", key=key,
        title="How well a classifier tells q from p", desc=desc,
    )


def interval_bar(
    estimate: _Number,
    low: _Number = None,
    high: _Number = None,
    *,
    maximum: float,
    minimum: float = 0.0,
    name: str,
    key: str,
    is_open: bool = False,
    reference: _Number = None,
    width: float = 130,
    style: Any = number,
) -> Svg:
    """Draw a number and its interval as a dot on a bar, for one row of a table.

    Parameters
    ----------
    estimate, low, high
        The number and the ends of its interval; None for what does not exist.
    maximum, minimum
        The ends of the scale.
    name
        What the text alternative calls it.
    key
        Unique in the page.
    is_open
        No upper end exists: the bar ends in an arrow.
    reference
        A value to mark with a dashed line.
    width
        In pixels.
    style
        How numbers become text: `number` or `percent`.

    Returns
    -------
    Svg
        One ``<svg role="img">``, or empty text without any number.
    """
    value, a, b = as_float(estimate), as_float(low), as_float(high)
    if (value is None and a is None and b is None) or not maximum > minimum:
        return Svg("")
    height, pad = 22.0, 7.0

    def x(number_: float) -> float:
        share = (min(max(number_, minimum), maximum) - minimum) / (maximum - minimum)
        return pad + share * (width - 2 * pad)

    middle = height / 2
    body = [_line("rail", pad, middle, width - pad, middle)]
    mark = as_float(reference)
    if mark is not None:
        body.append(_line("limit", x(mark), 2, x(mark), height - 2))
    begin = a if a is not None else value if value is not None else b
    end = b if b is not None else value if value is not None else a
    if begin is not None and end is not None:
        if is_open:
            body.append(_line("span open", x(begin), middle, width - pad, middle))
            body.append(
                f'<path class="arrow" d="M{_at(width - pad - 5)} {_at(middle - 4)}l6 4l-6 4"/>'
            )
        else:
            body.append(_line("span", x(begin), middle, x(end), middle))
    for bound in (a, b):
        if bound is not None:
            body.append(_line("cap", x(bound), middle - 5, x(bound), middle + 5))
    if value is not None:
        body.append(_dot("point", x(value), middle, 4))
    words = [] if value is None else [style(value)]
    if interval(a, b):
        words.append(interval(a, b, style=style))
    if is_open:
        words.append("no upper bound")
    desc = f"{shorten(name, 60)}: {', '.join(words)}; scale {style(minimum)} to {style(maximum)}."
    return _frame(width, height, body, kind="bar", key=key, title=shorten(name, 60), desc=desc)


def log_domain(ratios: Sequence[_Number], least: float = 2.0) -> float:
    """Return the power of two at least ``least`` that holds all ratios and their inverses."""
    logs = [abs(math.log2(x)) for x in map(as_float, ratios) if x is not None and x > 0]
    return 2.0 ** math.ceil(min(max([math.log2(least), *logs]), 12.0))


def forest_bar(
    ratio: _Number,
    low: _Number = None,
    high: _Number = None,
    *,
    limit: float,
    name: str,
    key: str,
    width: float = 130,
) -> Svg:
    """Draw a ratio with its interval on a log scale from ``1/limit`` to ``limit``, 1 in the middle.

    Parameters
    ----------
    ratio, low, high
        The ratio and the ends of its interval; an end at 0 or None runs off the scale. Without a
        ratio (no row of q is there) the lower end starts an arrow.
    limit
        The end of the scale; `log_domain` finds one for all rows of a table.
    name
        What the text alternative calls it.
    key
        Unique in the page.
    width
        In pixels.

    Returns
    -------
    Svg
        One ``<svg role="img">``, or empty text where there is no ratio.
    """
    value, a, b = as_float(ratio), as_float(low), as_float(high)
    if (value is None and a is None) or limit <= 1:
        return Svg("")
    start = value if value is not None else a or 0.0
    height, pad = 22.0, 7.0

    def x(number_: float) -> float:
        log = math.log(max(number_, 1e-300)) / math.log(limit)
        return pad + (min(max(log, -1.0), 1.0) + 1) / 2 * (width - 2 * pad)

    middle = height / 2
    body = [
        _line("rail", pad, middle, width - pad, middle),
        _line("limit", x(1), 2, x(1), height - 2),
        _line("span", x(a if a is not None else start), middle,
              x(b) if b is not None else x(start) if value is not None else width - pad, middle),
    ]
    for bound in (a, b):
        if bound is not None and 1 / limit <= bound <= limit:
            body.append(_line("cap", x(bound), middle - 5, x(bound), middle + 5))
    if value is None:
        body.append(
            f'<path class="arrow" d="M{_at(width - pad - 5)} {_at(middle - 4)}l6 4l-6 4"/>'
        )
        words = f"at least {number(a)} times as common in p as in q"
    else:
        body.append(_dot("point more", x(value), middle, 4) if value >= 1
                    else _diamond("point less", x(value), middle, 4.6))
        words = f"{number(value)} times as common in p as in q"
        if interval(a, b):
            words += f", {interval(a, b)}"
    desc = f"{words}; scale {number(1 / limit)} to {number(limit)}."
    return _frame(width, height, body, kind="bar", key=key, title=shorten(name, 60), desc=desc)


# -- balance ---------------------------------------------------------------------------------------


def love_plot(
    features: Sequence[Mapping[str, Any]], *, key: str, limit: float = 0.1, most: int = 20
) -> Svg:
    """Draw the absolute standardised mean differences before and after weighting, a row a feature.

    Parameters
    ----------
    features
        Mappings with ``name``, ``before`` and ``after`` (or None), largest first.
    key
        Unique in the page.
    limit
        Balance that is commonly called good: a dashed line.
    most
        Rows drawn.

    Returns
    -------
    Svg
        One ``<svg role="img">``, or empty text without features.
    """
    rows = []
    for feature in features:
        before, after = as_float(feature.get("before")), as_float(feature.get("after"))
        if before is not None or after is not None:
            rows.append((
                str(feature.get("name") or "(no name)"),
                None if before is None else abs(before),
                None if after is None else abs(after),
            ))
    rows = rows[:most]
    if not rows:
        return Svg("")
    top = max(x for _, *pair in rows for x in pair if x is not None)
    top = max(top * 1.05, limit * 1.5)
    width, left, right, row, upper = 352.0, 148.0, 12.0, 18.0, 16.0
    bottom = upper + row * len(rows)
    height = bottom + 32

    def x(value: float) -> float:
        return left + value / top * (width - left - right)

    body = []
    for tick in _ticks(0.0, top, 4):
        body.append(_line("axis" if tick == 0 else "grid", x(tick), upper - 4, x(tick), bottom))
        body.append(_text("tick", x(tick), bottom + 13, number(tick), "middle"))
    body.append(_line("limit", x(limit), upper - 4, x(limit), bottom))
    body.append(_text("tick", x(limit), upper - 7, number(limit), "middle"))
    body.append(_text("tick", (left + width - right) / 2, height - 4,
                      "absolute standardised mean difference", "middle"))
    for k, (name, before, after) in enumerate(rows):
        y = upper + row * (k + 0.5)
        inner = [_text("label", left - 8, y + 3.5, squeeze(name, 21), "end")]
        if before is not None and after is not None:
            inner.append(_line("link", x(before), y, x(after), y))
        if before is not None:
            inner.append(_dot("before", x(before), y, 4))
        if after is not None:
            inner.append(_diamond("after", x(after), y, 4.4))
        inner.append(
            f"<title>{_escape(f'{shorten(name, 60)}: {number(before)} before, ')}"
            f"{_escape(f'{number(after)} after')}</title>"
        )
        body.append(f"<g>{''.join(inner)}</g>")
    befores = [r[1] for r in rows if r[1] is not None]
    afters = [r[2] for r in rows if r[2] is not None]
    desc = f"{len(rows)} features"
    if befores:
        desc += f"; largest difference before weighting {number(max(befores))}"
    if afters:
        over = sum(a > limit for a in afters)
        desc += f", after weighting {number(max(afters))}; {over} above {number(limit)} after"
    return _frame(
        width, height, body, kind="love", key=key,
        title="Balance before and after weighting", desc=desc + ".",
    )
