"""What to do after reading a comparison, in a few sentences derived from its numbers alone.

The order is the order of work: a table that is not the same table first, a label that changed its
meaning before weights that cannot mend it, overlap before weights, weights before columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dpdq.report._common import part, records
from dpdq.report.formatting import as_float, count, number, percent, shorten

__all__ = ["is_quick", "next_steps"]


def _names(names: Sequence[Any], most: int = 3) -> str:
    shown = [shorten(n, 40) for n in names[:most]]
    rest = len(names) - len(shown)
    if rest:
        return f"{', '.join(shown)} and {rest} more"
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def is_quick(comparison: Mapping[str, Any]) -> bool:
    """Whether only columns were compared: no test of whole rows and no ratio was made."""
    return not any(comparison.get(key) for key in ("kernel_test", "classifier_test", "ratio"))


def next_steps(comparison: Mapping[str, Any]) -> list[str]:
    """Return what a reader of the comparison should do, most urgent first.

    Misleads where the comparison does: the steps repeat its thresholds and know nothing about
    what the data are for. Costs nothing.

    Parameters
    ----------
    comparison
        The JSON of a comparison.

    Returns
    -------
    list of str
        One or more sentences; plain text.

    Examples
    --------
    >>> next_steps({"verdict": {"shifted": False, "detectable": {"auc": 0.53}}, "ratio": {"a": 1}})
    ['Nothing has to be done; a difference below AUC 0.53 would have gone unseen.']
    """
    verdict = part(comparison, "verdict")
    schema = part(comparison, "schema")
    shifted = verdict.get("shifted")
    quick = is_quick(comparison)
    steps: list[str] = []

    changed = [r.get("name", "") for r in records(schema, "changed_types")]
    if changed:
        steps.append(f"Make the types agree first: {_names(changed)} changed between q and p.")
    missing = list(schema.get("only_q") or [])
    if missing:
        steps.append(
            f"{_names(missing)} {'stands' if len(missing) == 1 else 'stand'} only in q: a model "
            "trained on q with such columns cannot be used on p."
        )
    if part(comparison, "concept_shift").get("detected") is True:
        steps.append(
            "The relation between the columns and the label changed: weights cannot mend that. "
            "Collect labels from p and train again."
        )
    steps += _weighting_steps(comparison, shifted)
    columns = [c for c in records(comparison, "columns") if c.get("shifted") is True]
    if columns:
        steps.append(
            f"Look first at {_names([c.get('name', '') for c in columns])}: "
            "these columns moved most."
        )
    steps += _slice_steps(records(comparison, "slices"))
    if quick:
        steps.append(
            "Only columns were compared. Run without quick mode for the verdict over whole rows, "
            "weights and slices."
        )
    if shifted is False and not steps:
        steps.append("Nothing has to be done" + _unseen(verdict))
    elif shifted is False and not quick:
        steps.append("Over whole rows nothing has to be done" + _unseen(verdict))
    if not steps:
        steps.append("Read the parts below; none of them asks for an action by itself.")
    return steps


def _slice_steps(slices: list[Mapping[str, Any]]) -> list[str]:
    """Name the slice that grew most; one without a ratio has no row in q, only a lower end."""

    def size(s: Mapping[str, Any]) -> float:
        ratio = as_float(s.get("ratio"))
        return (as_float(s.get("low")) or 0.0) if ratio is None else ratio

    best = max(slices, key=size, default=None)
    if best is None or size(best) <= 1:
        return []
    at_least = "at least " if as_float(best.get("ratio")) is None else ""
    return [
        f"Rows with {shorten(best.get('rule', ''), 100)} are {at_least}{number(size(best))} times "
        "as common in p as in q: check the model there, or collect more of them."
    ]


def _unseen(verdict: Mapping[str, Any]) -> str:
    auc = as_float(part(verdict, "detectable").get("auc"))
    if auc is None:
        return "."
    return f"; a difference below AUC {number(auc)} would have gone unseen."


def _weighting_steps(comparison: Mapping[str, Any], shifted: Any) -> list[str]:
    overlap, weights = part(comparison, "overlap"), part(comparison, "weights")
    balance = part(comparison, "balance")
    share = as_float(overlap.get("share_of_p_out_of_reach"))
    if overlap.get("ok") is False:
        where = f"{percent(share)} of p" if share is not None else "part of p"
        return [
            f"Do not rely on weights: {where} lies where q has no data, and no weighting can "
            "repair that. Collect such rows (some are listed below), or restrict p to what q "
            "covers."
        ]
    if weights.get("ok") is False:
        return [
            "Do not rely on the weights as they are: too few rows carry them. Use them clipped, "
            "and compare with and without."
        ]
    size = as_float(weights.get("effective_sample_size"))
    if shifted is True and weights.get("ok") is True:
        text = "Use the weights of q for training and for evaluation"
        if size is not None:
            text += f" (worth {count(size)} rows)"
        before = as_float(balance.get("max_abs_smd_before"))
        after = as_float(balance.get("max_abs_smd_after"))
        if before is not None and after is not None:
            text += (
                ": they bring the largest standardised mean difference from "
                f"{number(before)} to {number(after)}"
            )
        return [text + "."]
    return []
