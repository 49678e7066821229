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

import math
from collections.abc import Mapping, Sequence
from typing import Any

from dpdq.report._svg import Svg, at, diamond, dot, escape, frame, line, text_at, ticks_between
from dpdq.report.formatting import as_float, interval, number, shorten, squeeze
from dpdq.report.histograms import histogram, sparkline

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
        f'<rect class="track" x="{at(left)}" y="{at(base - 5)}" '
        f'width="{at(width - left - right)}" height="10" rx="5"/>'
    ]
    if limit is not None and limit > 0.5:
        body.append(
            f'<rect class="tolerated" x="{at(x(0.5))}" y="{at(base - 5)}" '
            f'width="{at(x(limit) - x(0.5))}" height="10"/>'
        )
    for tick in (0.5, 0.6, 0.7, 0.8, 0.9, 1.0):
        body.append(line("axis", x(tick), base + 7, x(tick), base + 11))
        body.append(text_at("tick", x(tick), base + 23, f"{tick:g}", "middle"))
    if limit is not None:
        body.append(line("limit", x(limit), base - 11, x(limit), base + 11))
    if smallest is not None:
        body.append(f'<path class="small" d="M{at(x(smallest))} {at(base + 6)}l-4 7h8z"/>')
    if a is not None or b is not None:
        ends = (x(a if a is not None else auc), x(b if b is not None else auc))
        body.append(line("span", ends[0], base, ends[1], base))
        for end, exists in zip(ends, (a, b), strict=True):
            if exists is not None:
                body.append(line("cap", end, base - 5, end, base + 5))
    body.append(dot("point", x(auc), base, 6))
    anchor = "start" if auc < 0.55 else "end" if auc > 0.93 else "middle"
    body.append(
        text_at(
            "value",
            x(auc) + (-6 if anchor == "start" else 0),
            base - 16,
            f"AUC {number(auc)}",
            anchor,
        )
    )
    words = [f"AUC {number(auc)}"]
    if interval(a, b):
        words.append(f"interval {interval(a, b)}")
    if limit is not None:
        words.append(f"tolerance {number(limit)}")
    if smallest is not None:
        words.append(f"smallest detectable {number(smallest)}")
    desc = ", ".join(words) + ", on a scale from 0.5 (no difference) to 1 (told apart always)."
    return frame(
        width,
        height,
        body,
        kind="gauge",
        key=key,
        title="How well a classifier tells q from p",
        desc=desc,
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
    body = [line("rail", pad, middle, width - pad, middle)]
    mark = as_float(reference)
    if mark is not None:
        body.append(line("limit", x(mark), 2, x(mark), height - 2))
    begin = a if a is not None else value if value is not None else b
    end = b if b is not None else value if value is not None else a
    if begin is not None and end is not None:
        if is_open:
            body.append(line("span open", x(begin), middle, width - pad, middle))
            body.append(
                f'<path class="arrow" d="M{at(width - pad - 5)} {at(middle - 4)}l6 4l-6 4"/>'
            )
        else:
            body.append(line("span", x(begin), middle, x(end), middle))
    for bound in (a, b):
        if bound is not None:
            body.append(line("cap", x(bound), middle - 5, x(bound), middle + 5))
    if value is not None:
        body.append(dot("point", x(value), middle, 4))
    words = [] if value is None else [style(value)]
    if interval(a, b):
        words.append(interval(a, b, style=style))
    if is_open:
        words.append("no upper bound")
    desc = f"{shorten(name, 60)}: {', '.join(words)}; scale {style(minimum)} to {style(maximum)}."
    return frame(width, height, body, kind="bar", key=key, title=shorten(name, 60), desc=desc)


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
        line("rail", pad, middle, width - pad, middle),
        line("limit", x(1), 2, x(1), height - 2),
        line(
            "span",
            x(a if a is not None else start),
            middle,
            x(b) if b is not None else x(start) if value is not None else width - pad,
            middle,
        ),
    ]
    for bound in (a, b):
        if bound is not None and 1 / limit <= bound <= limit:
            body.append(line("cap", x(bound), middle - 5, x(bound), middle + 5))
    if value is None:
        body.append(f'<path class="arrow" d="M{at(width - pad - 5)} {at(middle - 4)}l6 4l-6 4"/>')
        words = f"at least {number(a)} times as common in p as in q"
    else:
        body.append(
            dot("point more", x(value), middle, 4)
            if value >= 1
            else diamond("point less", x(value), middle, 4.6)
        )
        words = f"{number(value)} times as common in p as in q"
        if interval(a, b):
            words += f", {interval(a, b)}"
    desc = f"{words}; scale {number(1 / limit)} to {number(limit)}."
    return frame(width, height, body, kind="bar", key=key, title=shorten(name, 60), desc=desc)


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
            rows.append(
                (
                    str(feature.get("name") or "(no name)"),
                    None if before is None else abs(before),
                    None if after is None else abs(after),
                )
            )
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
    for tick in ticks_between(0.0, top, 4):
        body.append(line("axis" if tick == 0 else "grid", x(tick), upper - 4, x(tick), bottom))
        body.append(text_at("tick", x(tick), bottom + 13, number(tick), "middle"))
    body.append(line("limit", x(limit), upper - 4, x(limit), bottom))
    body.append(text_at("tick", x(limit), upper - 7, number(limit), "middle"))
    body.append(
        text_at(
            "tick",
            (left + width - right) / 2,
            height - 4,
            "absolute standardised mean difference",
            "middle",
        )
    )
    for k, (name, before, after) in enumerate(rows):
        y = upper + row * (k + 0.5)
        inner = [text_at("label", left - 8, y + 3.5, squeeze(name, 21), "end")]
        if before is not None and after is not None:
            inner.append(line("link", x(before), y, x(after), y))
        if before is not None:
            inner.append(dot("before", x(before), y, 4))
        if after is not None:
            inner.append(diamond("after", x(after), y, 4.4))
        inner.append(
            f"<title>{escape(f'{shorten(name, 60)}: {number(before)} before, ')}"
            f"{escape(f'{number(after)} after')}</title>"
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
    return frame(
        width,
        height,
        body,
        kind="love",
        key=key,
        title="Balance before and after weighting",
        desc=desc + ".",
    )
