"""A comparison in about 25 lines of plain text, for a terminal and for ``repr``.

No colour codes and no control characters: a name that came from the data cannot move the cursor.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

from dpdq.report import advice
from dpdq.report._common import part, records
from dpdq.report.formatting import (
    as_float,
    display_width,
    interval,
    number,
    percent,
    pvalue,
    shorten,
)

__all__ = ["terminal_summary"]

_WIDTH = 96
_MOST_COLUMNS = 6
_MOST_SLICES = 2


def _num(value: Any) -> str:
    return number(value, ascii_only=True)


def _pct(value: Any) -> str:
    return percent(value, ascii_only=True)


def _known(*values: Any) -> bool:
    return all(as_float(v) is not None for v in values)


def _bounds(estimate: Mapping[str, Any], style: Any = number) -> str:
    text = interval(estimate.get("low"), estimate.get("high"), style=style, ascii_only=True)
    return f" ({text})" if text else ""


def _wrap(text: Any, indent: str = "", first: str | None = None) -> list[str]:
    return textwrap.wrap(
        shorten(text, 600),
        _WIDTH,
        initial_indent=indent if first is None else first,
        subsequent_indent=indent,
    )


def _facts(c: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the lines of the upper block: a name and what is known."""
    facts: list[tuple[str, str]] = []
    verdict = part(c, "verdict")
    shifted = verdict.get("shifted")
    word = "shifted" if shifted is True else "no shift found" if shifted is False else "no verdict"
    if _known(verdict.get("pvalue")):
        text = f"{word}; p-value {pvalue(verdict['pvalue'], ascii_only=True)}"
    else:
        text = f"{word}; {shorten(verdict.get('pvalue_reason') or 'not tested', 70)}"
    if _known(verdict.get("tolerance")) and not advice.is_quick(c):
        text += f"; tolerance AUC {_num(verdict['tolerance'])}"
    facts.append(("verdict", text))
    effect, auc = part(verdict, "effect"), part(part(c, "classifier_test"), "auc")
    value = effect.get("auc") if _known(effect.get("auc")) else auc.get("estimate")
    if _known(value):
        ends = {"low": effect.get("low"), "high": None}
        facts.append(("effect", f"AUC {_num(value)}{_bounds(ends)}"))
    found = part(verdict, "detectable")
    parts = [f"AUC {_num(found['auc'])}"] if _known(found.get("auc")) else []
    if _known(found.get("smd")):
        parts.append(f"standardised mean difference {_num(found['smd'])} in one column")
    if parts:
        facts.append(("detectable", ", ".join(parts)))
    divergences = part(c, "divergences")
    parts = [
        f"{title} {_num(e.get('estimate'))}{_bounds(e)}"
        for title, e in (
            ("JSD", part(divergences, "jensen_shannon")),
            ("KL", part(divergences, "kl")),
        )
        if _known(e.get("estimate"))
    ]
    if parts:
        facts.append(("divergence", "; ".join(parts)))
    overlap = part(c, "overlap")
    if _known(overlap.get("share_of_p_out_of_reach")):
        text = f"{_pct(overlap['share_of_p_out_of_reach'])} of p out of q's reach"
        text += _bounds(overlap, percent)
        facts.append(("overlap", ("FAILS: " if overlap.get("ok") is False else "") + text))
    facts += _weight_facts(c)
    facts += _schema_facts(part(c, "schema"))
    for name in ("label_shift", "concept_shift"):
        sentence = part(c, name).get("sentence")
        if sentence:
            facts.append((name.split("_")[0], shorten(sentence, 160)))
    for name, parts_of in list(part(c, "performance").items())[:1]:
        q, p, seen = (part(parts_of, s) for s in ("q", "p", "p_observed"))
        if _known(p.get("estimate")):
            text = f"{shorten(name, 24)} {_num(q.get('estimate'))} on q, "
            text += f"{_num(p['estimate'])}{_bounds(p)} estimated on p"
            if _known(seen.get("estimate")):
                text += f", {_num(seen['estimate'])} observed"
            facts.append(("performance", text))
    return facts


def _weight_facts(c: Mapping[str, Any]) -> list[tuple[str, str]]:
    facts = []
    weights, balance = part(c, "weights"), part(c, "balance")
    if _known(weights.get("effective_sample_size")):
        size = weights["effective_sample_size"]
        text = f"worth {round(size):,} of {_num(part(c, 'rows').get('q'))} rows of q"
        if _known(weights.get("khat")):
            text += f"; k-hat {_num(weights['khat'])}"
            if _known(weights.get("khat_limit")):
                text += f" (limit {_num(weights['khat_limit'])})"
        facts.append(("weights", ("NOT USABLE: " if weights.get("ok") is False else "") + text))
    if _known(balance.get("max_abs_smd_before"), balance.get("max_abs_smd_after")):
        facts.append(
            (
                "balance",
                f"largest standardised mean difference {_num(balance['max_abs_smd_before'])} "
                f"-> {_num(balance['max_abs_smd_after'])}",
            )
        )
    return facts


def _schema_facts(schema: Mapping[str, Any]) -> list[tuple[str, str]]:
    counted = (
        ("only_q", "only in q"),
        ("only_p", "only in p"),
        ("changed_types", "of another type"),
        ("new_levels", "with new levels"),
        ("vanished_levels", "with lost levels"),
    )
    parts = [f"{len(schema[key])} {words}" for key, words in counted if schema.get(key)]
    return [("schema", ", ".join(parts))] if parts else []


def _pad(text: str, width: int) -> str:
    return text + " " * max(width - display_width(text), 0)


def _columns(c: Mapping[str, Any]) -> list[str]:
    columns = records(c, "columns")
    if not columns:
        return []
    table = [("column", "test", "adj. p", "PSI", "JSD", "")]
    for k in columns[:_MOST_COLUMNS]:
        effect = part(k, "effect")
        is_psi = effect.get("measure", "psi") == "psi" and _known(effect.get("estimate"))
        psi = _num(effect["estimate"]) + _bounds(effect) if is_psi else _num(k.get("psi"))
        table.append(
            (
                shorten(k.get("name", ""), 28),
                shorten(k.get("test") or "-", 22),
                pvalue(k.get("pvalue_adjusted"), ascii_only=True),
                psi,
                _num(k.get("jensen_shannon")),
                "shifted" if k.get("shifted") is True else "",
            )
        )
    widths = [max(display_width(row[i]) for row in table) for i in range(6)]
    lines = [
        ("  " + "  ".join(_pad(cell, w) for cell, w in zip(row, widths, strict=True))).rstrip()
        for row in table
    ]
    rest = columns[_MOST_COLUMNS:]
    if rest:
        moved = sum(k.get("shifted") is True for k in rest)
        lines.append(f"  and {len(rest)} more" + (f", {moved} of them shifted" if moved else ""))
    return lines


def _times(s: Mapping[str, Any]) -> str:
    """Return the ratio of a slice with its interval."""
    if _known(s.get("ratio")):
        bounds = interval(s.get("low"), s.get("high"), ascii_only=True)
        return f" (x{_num(s['ratio'])}" + (f", {bounds}" if bounds else "") + ")"
    return f" (at least x{_num(s['low'])})" if _known(s.get("low")) else ""


def terminal_summary(comparison: Mapping[str, Any]) -> str:
    """Return a comparison as about 25 lines of plain, aligned text.

    Shows the largest columns and slices only; the page has all of them. Costs nothing.

    Parameters
    ----------
    comparison
        The JSON of a comparison.

    Returns
    -------
    str
        Lines without colour codes, at most about 100 cells wide.

    Examples
    --------
    >>> print(terminal_summary({
    ...     "rows": {"q": 1200, "p": 800},
    ...     "verdict": {"shifted": False, "pvalue": 0.41, "sentence": "No shift was found."},
    ...     "ratio": {"estimator": "logistic"}, "columns": [],
    ... }))
    dpdq comparison: q 1,200 rows, p 800 rows, 0 columns
    No shift was found.
    <BLANKLINE>
      verdict      no shift found; p-value 0.41
    <BLANKLINE>
      next: Nothing has to be done.
    """
    rows, verdict = part(comparison, "rows"), part(comparison, "verdict")
    lines = [
        f"dpdq comparison: q {_num(rows.get('q'))} rows, p {_num(rows.get('p'))} rows, "
        f"{len(records(comparison, 'columns'))} columns"
    ]
    lines += _wrap(verdict.get("sentence") or "There is no verdict over whole rows.")
    lines.append("")
    for name, text in _facts(comparison):
        lines += _wrap(text, " " * 15, f"  {name:<13}")
    columns = _columns(comparison)
    if columns:
        lines += ["", *columns]
    slices = records(comparison, "slices")
    if slices:
        lines.append("")
        for s in slices[:_MOST_SLICES]:
            lines += _wrap(
                f"{shorten(s.get('rule', ''), 60)}: {_pct(s.get('share_q'))} of q, "
                f"{_pct(s.get('share_p'))} of p{_times(s)}",
                "    ",
                "  ",
            )
    warnings = comparison.get("warnings") or []
    lines.append("")
    if warnings:
        more = f" (and {len(warnings) - 1} more)" if len(warnings) > 1 else ""
        lines += _wrap(f"warning: {shorten(warnings[0], 200)}{more}", "    ", "  ")
    lines += _wrap(f"next: {advice.next_steps(comparison)[0]}", "        ", "  ")
    return "\n".join(lines)
