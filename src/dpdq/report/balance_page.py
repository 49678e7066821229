"""The page of weights: does weighting reach p, at what price, and what may be done with it.

Drawn from the content of ``balance.json`` alone, with the style, the charts and the rules of the
page of a comparison: one file, no network, light and dark, every text of the data escaped.
"""

from __future__ import annotations

import html
import textwrap
from collections.abc import Mapping
from typing import Any

from dpdq.report import charts
from dpdq.report._common import part, records, split_sentence
from dpdq.report.formatting import as_float, interval, number, percent, shorten
from dpdq.report.page import _asset, _environment, _hash, _metrics, _plain, _source_name

__all__ = ["balance_steps", "balance_summary", "render_balance"]

_WIDTH = 96


def render_balance(balance: Mapping[str, Any], run: Mapping[str, Any] | None = None) -> str:
    """Return the page of weights: one self-contained HTML file, as text.

    Shows what the JSON holds and nothing else, so a part that is null is named as absent. Costs
    about 50 ms and 60 kB for 25 margins.

    Parameters
    ----------
    balance
        The content of ``balance.json``; nothing is changed in it.
    run
        The JSON of the run (names of the files, versions, options, times).

    Returns
    -------
    str
        The document, to be written as UTF-8.

    Examples
    --------
    >>> page = render_balance({"verdict": {"sentence": "Margins <agree>."}})
    >>> page[:15], "Margins &lt;agree&gt;." in page
    ('<!doctype html>', True)
    """
    style, script = _asset("chart.css") + _asset("page.css"), _asset("page.js")
    policy = (
        f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    page = (
        _environment()
        .get_template("balance.html.j2")
        .render(
            _view(balance, run),
            policy=charts.Svg(html.escape(policy, quote=False)),
            style=charts.Svg(style),
            script=charts.Svg(script),
        )
        .lstrip()
    )
    # a lone surrogate that no filter has seen must not keep the page from being written
    return page.encode("utf-8", "replace").decode("utf-8")


def _view(balance: Mapping[str, Any], run: Mapping[str, Any] | None) -> dict[str, Any]:
    b = _plain(balance)
    for key in ("verdict", "rows", "weights", "balance"):
        if not isinstance(b.get(key), dict):
            b[key] = {}
    b["warnings"] = [str(each) for each in b.get("warnings") or []]
    r = _plain(run) if run else {}
    sensitivity = records(b, "sensitivity")
    estimates = _estimates(b.get("label"))
    first, rest = split_sentence(str(b["verdict"].get("sentence") or "Weights of q towards p."))
    return {
        "b": b,
        "run": r,
        "names": {s: _source_name(part(r, s).get("name"), s) for s in ("q", "p")},
        "margins": records(b["balance"], "margins"),
        "target": _target(b),
        "wanted": "p" if b.get("target", "p") == "p" else "target",
        "sensitivity": sensitivity,
        "has_change": any(as_float(row.get("change")) is not None for row in sensitivity),
        "estimates": estimates,
        "verdict": {"sentence": first, "rest": rest},
        "steps": balance_steps(b),
    }


def _target(balance: Mapping[str, Any]) -> str:
    """What weighted rows stand for, in words."""
    target = balance.get("target", "p")
    return "p" if target == "p" else f"the {shorten(target, 30)}"


def _estimates(label: Any) -> list[dict[str, Any]]:
    """One row a class (or the mean), with a scale that holds all its numbers."""
    found = []
    for row in records(label, "estimates"):
        own = {"q": {"estimate": row.get("q")}, "p": row.get("p")}
        ((scaled),) = _metrics({"label": own | {"p_observed": row.get("p_observed")}})
        found.append(scaled | {"name": row.get("name")})
    return found


def balance_steps(balance: Mapping[str, Any]) -> list[str]:
    """Return what a reader of the balance should do, most urgent first.

    Parameters
    ----------
    balance
        The content of ``balance.json``.

    Returns
    -------
    list of str
        One or more sentences; plain text.

    Examples
    --------
    >>> balance_steps({"verdict": {"ok": True, "reached": True}, "target": "p"})
    ['Use the weights for averages over p of what depends on these margins.']
    """
    verdict, weights = part(balance, "verdict"), part(balance, "weights")
    advice, label = part(balance, "advice"), part(balance, "label")
    steps: list[str] = []
    changed = part(balance, "concept_shift").get("detected") is True
    if changed:
        steps.append(
            "The relation between the covariates and the label changed: weights cannot mend that. "
            "Collect labels from p and train on them."
        )
    if balance.get("target", "p") != "p":
        steps.append(
            f"The weights stand for the {shorten(balance.get('target'), 30)} of q and p: say so "
            "wherever you use them."
        )
    elif verdict.get("reached") is False:
        steps.append(
            "The margins do not balance: balance them exactly (--method entropy, without a "
            "tolerance), or say which stay off."
        )
    if weights.get("ok") is False:
        steps.append(
            "Few rows carry the weights: allow an imbalance (--tolerance 0.05), cap them (--cap "
            "10), balance fewer margins, or collect rows of q like those of p."
        )
    if advice.get("weight") is True:
        steps.append("Train models with the weights: on held-out rows they do better on p.")
    elif advice:
        text = "Train models without the weights, which are not shown to help them"
        steps.append(f"{text}{'' if changed else '; use the weights to evaluate'}.")
    if label and part(balance, "concept_shift").get("detected") is None:
        steps.append(
            "Label some rows of p: whether P(Y|X) is unchanged cannot be seen without, and every "
            "estimate here rests on it."
        )
    worst = next(iter(records(balance, "sensitivity")), None)
    if worst is not None and (as_float(worst.get("smd_after")) or 0.0) > 0.1:
        steps.append(
            f"Look twice at {shorten(worst.get('column', ''), 60)}: without it the others do not "
            "balance it, so the answer hangs on it."
        )
    if verdict.get("ok") is True and not steps:
        steps.append("Use the weights for averages over p of what depends on these margins.")
    if not steps:
        steps.append("Read the parts below; none of them asks for an action by itself.")
    return steps


def balance_summary(balance: Mapping[str, Any]) -> str:
    """Return the balance in about 12 lines of plain text, for a terminal.

    Parameters
    ----------
    balance
        The content of ``balance.json``.

    Returns
    -------
    str
        Lines without colour codes and control characters.

    Examples
    --------
    >>> print(balance_summary({"verdict": {"sentence": "Weighting reaches p."}}))
    Weighting reaches p.
    """
    verdict, weights = part(balance, "verdict"), part(balance, "weights")
    lines = textwrap.wrap(shorten(verdict.get("sentence") or "", 600), _WIDTH)
    facts: list[tuple[str, str]] = []
    sums = part(balance, "balance")
    if as_float(sums.get("largest_after")) is not None:
        worst = f" ({shorten(sums.get('worst_margin') or '', 40)})"
        before, after = (_num(sums.get(f"largest_{when}")) for when in ("before", "after"))
        facts.append(("balance", f"largest difference {before} before, {after} after{worst}"))
    if as_float(weights.get("effective_sample_size")) is not None:
        text = (
            f"worth {_num(weights['effective_sample_size'])} rows, design effect "
            f"{_num(weights.get('design_effect'))}, largest {_num(weights.get('largest'))}"
        )
        if as_float(weights.get("khat")) is not None:
            text += f", k-hat {_num(weights['khat'])} (limit {_num(weights.get('khat_limit'))})"
        facts.append(("weights", text))
    label = part(balance, "label")
    for row in records(label, "estimates")[:2]:
        p, seen = part(row, "p"), part(row, "p_observed")
        ends = interval(p.get("low"), p.get("high"), ascii_only=True)
        text = (
            f"{shorten(row.get('name'), 24)} {_num(row.get('q'))} on q, {_num(p.get('estimate'))}"
        )
        text += f"{f' ({ends})' if ends else ''} on {_target(balance)} by weighting"
        if seen:
            text += f", {_num(seen.get('estimate'))} observed"
        facts.append(("label", text))
    if label:
        facts.append(("", shorten(label.get("caveat") or "", 100)))
    advice = part(balance, "advice")
    if advice:
        facts.append(("advice", shorten(advice.get("status") or "", 400)))
    lost = as_float(part(balance, "rows").get("zero"))
    if lost:
        share = percent(
            lost / max(as_float(part(balance, "rows").get("q")) or 1, 1), ascii_only=True
        )
        facts.append(("no weight", f"{_num(lost)} rows of q ({share}): p has no rows like them"))
    if facts:
        lines.append("")
    for name, text in facts:
        lines += textwrap.wrap(
            text, _WIDTH, initial_indent=f"{name:<11}", subsequent_indent=" " * 11
        )
    return "\n".join(lines)


def _num(value: Any) -> str:
    return number(value, ascii_only=True)
