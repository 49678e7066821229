"""The page of a comparison and its fragment for a notebook, rendered by Jinja with escaping on.

One file holds everything: style, script and drawings stand inline, and a content security policy
names the hashes of that one style and that one script, so that nothing else could run or load even
if a text from the data slipped through the escaping. Without its script the page shows the same
things, unsorted.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import html
import importlib.resources
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dpdq.report import advice, charts, formatting
from dpdq.report._common import part, records, split_sentence
from dpdq.report.formatting import as_float

if TYPE_CHECKING:
    import jinja2

__all__ = ["notebook_html", "render"]

MANY_COLUMNS = 40
"""Above this many columns the charts of single columns become small."""

# name of a divergence -> its title, the end of its scale (None: unbounded), what it means
_DIVERGENCES = {
    "kl": (
        "KL(P\N{DOUBLE VERTICAL LINE}Q)",
        None,
        "the mean of log r over p: what p's rows lose when q's law codes them",
    ),
    "reverse_kl": (
        "KL(Q\N{DOUBLE VERTICAL LINE}P)",
        None,
        "the mean of \N{MINUS SIGN}log r over q",
    ),
    "jensen_shannon": (
        "Jensen\N{EN DASH}Shannon",
        math.log(2),
        "0 for equal, log 2 for nothing in common",
    ),
    "pearson_chi2": (
        "\N{GREEK SMALL LETTER CHI}\N{SUPERSCRIPT TWO}(P\N{DOUBLE VERTICAL LINE}Q)",
        None,
        "the variance of the weights; rows are worth n / (1 + "
        "\N{GREEK SMALL LETTER CHI}\N{SUPERSCRIPT TWO}) after weighting",
    ),
    "total_variation": ("Total variation", 1.0, "the share of rows that would have to change"),
    "squared_hellinger": ("Squared Hellinger", 1.0, "0 for equal, 1 for nothing in common"),
}

_STATISTICS = {
    "sd": "standard deviation",
    "n_levels": "levels",
    "q25": "lower quartile",
    "q75": "upper quartile",
    "min": "smallest",
    "max": "largest",
}


# -- filters ---------------------------------------------------------------------------------------


def _titled(shown: str, value: Any, tag: str = "span") -> charts.Svg:
    full = formatting.exact(value)
    if not full or full == shown:
        return charts.Svg(html.escape(shown))
    return charts.Svg(f'<{tag} title="{html.escape(full)}">{html.escape(shown)}</{tag}>')


def _num(value: Any, digits: int = 3) -> charts.Svg:
    return _titled(formatting.number(_known(value), digits), _known(value))


def _pct(value: Any, digits: int = 3) -> charts.Svg:
    return _titled(formatting.percent(_known(value), digits), _known(value))


def _pval(value: Any) -> charts.Svg:
    return _titled(formatting.pvalue(_known(value)), _known(value))


def _count(value: Any) -> charts.Svg:
    return _titled(formatting.count(_known(value)), _known(value))


def _known(value: Any) -> Any:
    """Return None for a template's undefined value."""
    from jinja2 import Undefined

    return None if isinstance(value, Undefined) else value


def _text(value: Any, limit: int = 40, *, titled: bool = True) -> charts.Svg:
    """Return a text from the data, isolated from its surroundings, cut with its full text beside.

    The full text of a tooltip ends after 400 characters, so that one cell cannot fill the page.
    """
    raw = "" if _known(value) is None else str(value)
    shown = formatting.shorten(raw, limit)
    if not titled or shown == raw:
        return charts.Svg(f"<bdi>{html.escape(shown)}</bdi>")
    full = formatting.shorten(raw, 400)
    if len(raw) > 400:
        full += f" ({len(raw):,} characters)"
    return charts.Svg(f'<bdi title="{html.escape(full)}">{html.escape(shown)}</bdi>')


def _short(value: Any, limit: int) -> str:
    return formatting.shorten("" if _known(value) is None else value, limit)


def _capital(value: Any) -> str:
    text = "" if _known(value) is None else str(value)
    return text[:1].upper() + text[1:]


def _between(estimate: Any, style: str = "number") -> charts.Svg:
    """Return the interval of ``{"low", "high"}`` in words."""
    estimate = _known(estimate)
    if not isinstance(estimate, Mapping):
        return charts.Svg("")
    how = formatting.percent if style == "percent" else formatting.number
    text = formatting.interval(estimate.get("low"), estimate.get("high"), style=how)
    full = formatting.interval(estimate.get("low"), estimate.get("high"), style=_raw)
    return charts.Svg(
        f'<span title="{html.escape(full)}">{html.escape(text)}</span>' if text else ""
    )


def _raw(value: Any, *, ascii_only: bool = False) -> str:  # noqa: ANN401, ARG001 - a style
    return formatting.exact(value)


def _sort_key(value: Any) -> charts.Svg:
    """Return the attribute that a table sorts by."""
    value = _known(value)
    if isinstance(value, bool):
        value = int(value)
    full = formatting.exact(value)
    return charts.Svg(f' data-v="{html.escape(full)}"' if full else ' data-v=""')


def _summary_value(value: Any) -> charts.Svg:
    """Return one cell of a column's summary: a number, a text, or the most frequent levels."""
    value = _known(value)
    if isinstance(value, Mapping):
        value = list(value.items())
    if isinstance(value, (list, tuple)):
        parts = []
        for item in list(value)[:5]:
            pair = list(item.values()) if isinstance(item, Mapping) else item
            if isinstance(pair, (list, tuple)) and len(pair) >= 2:
                share = as_float(pair[1])
                many = share is not None and share > 1
                size = formatting.count(share) if many else formatting.percent(share)
                parts.append(f"{_text(pair[0], 24)}\N{NO-BREAK SPACE}({html.escape(size)})")
            else:
                parts.append(str(_text(pair, 24)))
        return charts.Svg(", ".join(parts))
    if isinstance(value, str):
        return _text(value, 40)
    return _num(value)


def _is_number(value: Any) -> bool:
    return as_float(_known(value)) is not None


# -- the two environments --------------------------------------------------------------------------


@functools.lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("dpdq.report", "templates"),
        autoescape=True,
        undefined=jinja2.ChainableUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        num=_num,
        pct=_pct,
        pval=_pval,
        cnt=_count,
        txt=_text,
        between=_between,
        capital=_capital,
        short=_short,
        sortkey=_sort_key,
        summary=_summary_value,
    )
    environment.tests["a_number"] = _is_number
    environment.globals.update(
        divergences=_DIVERGENCES,
        statistics=_STATISTICS,
        sparkline=_on_json(charts.sparkline),
        histogram=_on_json(charts.histogram),
        auc_gauge=_on_json(charts.auc_gauge),
        interval_bar=_on_json(charts.interval_bar),
        forest_bar=_on_json(charts.forest_bar),
        love_plot=_on_json(charts.love_plot),
        percent_style=formatting.percent,
    )
    return environment


def _on_json(chart: Any) -> Any:
    @functools.wraps(chart)
    def draw(*numbers: Any, **options: Any) -> charts.Svg:
        known = {name: _known(value) for name, value in options.items()}
        return chart(*map(_known, numbers), **known)

    return draw


@functools.lru_cache(maxsize=8)
def _asset(name: str) -> str:
    folder = importlib.resources.files("dpdq.report") / "templates"
    lines = (folder / name).read_text(encoding="utf-8").splitlines()
    return "\n" + "\n".join(line.strip() for line in lines if line.strip()) + "\n"


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"


# -- what the templates read -----------------------------------------------------------------------


def _plain(value: Any) -> Any:
    """Return JSON without what it cannot hold: numbers that are not finite become None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value


_LISTS = ("columns", "slices", "outliers")
_SCHEMA_LISTS = (
    "columns",
    "changed_types",
    "new_levels",
    "vanished_levels",
    "missingness",
    "ignored",
)


def _view(comparison: Mapping[str, Any], run: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what the templates read: the JSON, and what is derived from it once."""
    c = _plain(comparison)
    for key in _LISTS:
        c[key] = records(c, key)
    for column in c["columns"]:
        summary = column.get("summary")
        summary = summary if isinstance(summary, dict) else {}
        column["summary"] = {s: v if isinstance(v := summary.get(s), dict) else {} for s in "qp"}
    if isinstance(c.get("schema"), dict):
        for key in _SCHEMA_LISTS:
            c["schema"][key] = records(c["schema"], key)
        for key in ("only_q", "only_p"):
            c["schema"][key] = [str(n) for n in c["schema"].get(key) or [] if n is not None]
    if isinstance(c.get("balance"), dict):
        c["balance"]["features"] = records(c["balance"], "features")
    for key in ("verdict", "rows", "schema", "divergences"):
        if not isinstance(c.get(key), dict):
            c[key] = {}
    r = _plain(run) if run else {}
    quick = advice.is_quick(c)
    reason = str(c["verdict"].get("pvalue_reason") or "not part of this comparison").rstrip(".")
    names = {s: _source_name(part(r, s).get("name"), s) for s in ("q", "p")}
    return {
        "c": c,
        "run": r,
        "names": names,
        "steps": advice.next_steps(c),
        "quick": quick,
        "absent": reason if quick else "not part of this comparison",
        "many": len(c["columns"]) > MANY_COLUMNS,
        "n_shifted": sum(k.get("shifted") is True for k in c["columns"]),
        "has_test_of_columns": any(
            as_float(k.get("pvalue_adjusted")) is not None for k in c["columns"]
        ),
        "has_weighted": any((k.get("histogram") or {}).get("q_weighted") for k in c["columns"]),
        "verdict": _verdict(c["verdict"]),
        "overlap_top": _share_top(c.get("overlap")),
        "schema_is_equal": _schema_is_equal(c["schema"]),
        "slice_limit": charts.log_domain(
            [s.get(k) for s in c["slices"] for k in ("ratio", "low", "high")]
        ),
        "scale_of": _scale_of,
        "one_reason": _one_reason(c["divergences"]),
        "metrics": _metrics(c.get("performance")),
    }


def _source_name(value: Any, side: str) -> str:
    """Return the name of a side, empty where it says no more than the side itself."""
    return "" if value is None or value == side else str(value)


def _verdict(verdict: Mapping[str, Any]) -> dict[str, str]:
    shifted = verdict.get("shifted")
    if shifted is True:
        state, mark, word = "bad", "\N{NOT EQUAL TO}", "Shifted"
    elif shifted is False:
        state, mark, word = "good", "\N{ALMOST EQUAL TO}", "No shift found"
    else:
        state, mark, word = "none", "?", "No verdict"
    sentence = (
        verdict.get("sentence")
        or {
            "bad": "q and p differ by more than is tolerated.",
            "good": "No difference beyond the tolerance was found between q and p.",
            "none": "Whether q and p differ as whole rows was not tested.",
        }[state]
    )
    first, rest = split_sentence(str(sentence))
    return {"state": state, "mark": mark, "word": word, "sentence": first, "rest": rest}


def _share_top(overlap: Any) -> float:
    """Return the end of the scale on which a small share can still be seen."""
    known = (
        [as_float(overlap.get(k)) for k in ("share_of_p_out_of_reach", "low", "high")]
        if isinstance(overlap, Mapping)
        else []
    )
    most = max([x for x in known if x is not None], default=0.0)
    return next(t for t in (0.02, 0.05, 0.1, 0.2, 0.5, 1.0) if most <= t * 0.95 or t == 1.0)


def _schema_is_equal(schema: Mapping[str, Any]) -> bool:
    keys = ("only_q", "only_p", "changed_types", "new_levels", "vanished_levels", "ignored")
    return bool(schema) and not any(schema.get(k) for k in keys)


def _one_reason(divergences: Mapping[str, Any]) -> str:
    """Return why upper ends are absent, where one reason holds for all that lack one."""
    open_ended = [
        e
        for e in divergences.values()
        if isinstance(e, Mapping) and as_float(e.get("high")) is None
    ]
    reasons = {str(e.get("high_reason") or "") for e in open_ended}
    return reasons.pop().rstrip(".") if len(reasons) == 1 and len(open_ended) > 1 else ""


def _scale_of(estimate: Any, bound: float | None) -> float:
    """Return the end of a divergence's scale: its bound, or a round number above its numbers."""
    if bound is not None:
        return bound
    known = [as_float(estimate.get(k)) for k in ("estimate", "low", "high")]
    most = max([x for x in known if x is not None], default=0.0)
    if most <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(most))
    return next((power * m for m in (1, 2, 5, 10) if most * 1.2 <= power * m), power * 20)


def _metrics(performance: Any) -> list[dict[str, Any]]:
    """Return one row a metric, with a scale that holds all its numbers."""
    rows = []
    for name, parts in performance.items() if isinstance(performance, Mapping) else ():
        if not isinstance(parts, Mapping):
            continue
        row: dict[str, Any] = {"name": name}
        known = []
        for key in ("q", "p", "p_observed"):
            part = parts.get(key)
            row[key] = part if isinstance(part, Mapping) else None
            known += [as_float((row[key] or {}).get(e)) for e in ("estimate", "low", "high")]
        numbers = [x for x in known if x is not None]
        low, high = min(numbers, default=0.0), max(numbers, default=1.0)
        inside = low >= 0 and high <= 1
        margin = 0.15 * (high - low) or 0.05
        row["minimum"] = max(low - margin, 0.0) if low >= 0 else low - margin
        row["maximum"] = min(high + margin, 1.0) if inside else high + margin
        if row["maximum"] <= row["minimum"]:
            row["minimum"] -= 0.05
        rows.append(row)
    return rows


# -- entries ---------------------------------------------------------------------------------------


def render(comparison: Mapping[str, Any], run: Mapping[str, Any] | None = None) -> str:
    """Return the page of a comparison: one self-contained HTML file, as text.

    Shows what the JSON holds and nothing else, so a part that is null is named as absent rather
    than guessed. Texts of the data are escaped, cleaned of control characters and cut, with the
    first 400 characters in a tooltip. Costs about 60 ms and 250 kB at 20 columns.

    Parameters
    ----------
    comparison
        The JSON of a comparison, as ``Comparison.to_dict()`` gives it; nothing is changed in it.
    run
        The JSON of the run (names of the files, versions, options, times) for heading and footer.

    Returns
    -------
    str
        The document, to be written as UTF-8.

    Examples
    --------
    >>> page = render({"verdict": {"sentence": "The columns <agree>."}, "columns": []})
    >>> page[:15], "The columns &lt;agree&gt;." in page
    ('<!doctype html>', True)
    """
    style, script = _asset("chart.css") + _asset("page.css"), _asset("page.js")
    policy = (
        f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    page = (
        _environment()
        .get_template("page.html.j2")
        .render(
            _view(comparison, run),
            policy=charts.Svg(html.escape(policy, quote=False)),
            style=charts.Svg(style),
            script=charts.Svg(script),
        )
    )
    # a lone surrogate that no filter has seen must not keep the page from being written
    return page.encode("utf-8", "replace").decode("utf-8")


def notebook_html(comparison: Mapping[str, Any]) -> str:
    """Return the headline and the columns of a comparison as a fragment for a notebook.

    Holds a style of its own that touches nothing outside it, and no script. Costs about 10 ms.

    Parameters
    ----------
    comparison
        The JSON of a comparison.

    Returns
    -------
    str
        A ``<div>``.

    Examples
    --------
    >>> notebook_html({"verdict": {"shifted": True}, "columns": []})[:23]
    '<div class="dpdq-note">'
    """
    view = _view(comparison, None)
    seed = hashlib.sha256(repr(sorted(map(str, comparison.items()))).encode("utf-8", "replace"))
    fragment = (
        _environment()
        .get_template("notebook.html.j2")
        .render(
            view,
            style=charts.Svg(_asset("chart.css") + _asset("notebook.css")),
            prefix=f"n{seed.hexdigest()[:8]}",
        )
    )
    return fragment.encode("utf-8", "replace").decode("utf-8").strip()
