"""From numbers to a verdict, in plain sentences.

A shift is called only when two things agree: a valid test rejects "q and p are one law", and the
lower bound of the effect (the AUC of a classifier between the two) lies above what the user
tolerates. Either alone misleads: with many rows everything is significant, and with few rows a
large estimated effect may be noise. When they disagree the sentence says how.
"""

from __future__ import annotations

from typing import Any

__all__ = ["ALPHA", "verdict"]

ALPHA = 0.05


def _p(pvalue: float) -> str:
    return "p < 0.001" if pvalue < 0.001 else f"p = {pvalue:.3f}".rstrip("0")


def verdict(
    *,
    pvalue: float | None,
    pvalue_reason: str | None,
    auc: dict[str, Any] | None,
    tolerance: float,
    detectable: dict[str, float | None],
    concept: dict[str, Any] | None,
    overlap_ok: bool | None,
    common_rows: dict[str, Any],
) -> dict[str, Any]:
    """Put the verdict together.

    Parameters
    ----------
    pvalue, pvalue_reason
        Of the kernel test, or why there is none.
    auc
        ``{"estimate", "low", "high"}`` of the classifier, or None.
    tolerance
        The AUC up to which a difference is tolerated.
    detectable
        The smallest effects that 80 % power finds.
    concept
        The concept-shift part, or None.
    overlap_ok
        Whether weighting can work.
    common_rows
        The part about rows that stand in both files.

    Returns
    -------
    dict
        The ``verdict`` of ``comparison.json``.
    """
    estimate = auc["estimate"] if auc else None
    low = auc["low"] if auc else None
    shifted: bool | None = None
    if pvalue is not None and low is not None:
        shifted = bool(pvalue <= ALPHA and low > tolerance)
    return {
        "shifted": shifted,
        "pvalue": pvalue,
        "pvalue_reason": pvalue_reason,
        "effect": {"auc": estimate, "low": low},
        "tolerance": tolerance,
        "detectable": detectable,
        "sentence": " ".join(
            _sentences(
                shifted,
                pvalue,
                pvalue_reason,
                estimate,
                low,
                tolerance,
                detectable,
                concept,
                overlap_ok,
                common_rows,
            )
        ),
    }


def _sentences(
    shifted: bool | None,
    pvalue: float | None,
    reason: str | None,
    estimate: float | None,
    low: float | None,
    tolerance: float,
    detectable: dict[str, float | None],
    concept: dict[str, Any] | None,
    overlap_ok: bool | None,
    common_rows: dict[str, Any],
) -> list[str]:
    found = []
    if common_rows.get("identical"):
        found.append("The two sides hold the same rows: there is no difference to find.")
    elif pvalue is None:
        found.append(reason or "No test was made.")
    elif low is None or estimate is None:
        found.append(
            f"The kernel test gives {_p(pvalue)}; the size of the effect was not measured."
        )
    elif shifted:
        found.append(
            f"p has shifted from q: a classifier tells them apart with AUC {estimate:.3f} "
            f"(at least {low:.3f}; tolerated {tolerance:g}), and the kernel test rejects equality "
            f"({_p(pvalue)})."
        )
    elif pvalue <= ALPHA and low <= tolerance:
        size = (
            f"the classifier's AUC of {estimate:.3f} (at least {low:.3f}) is within the tolerance "
            f"of {tolerance:g}"
            if tolerance > 0.5
            else f"the classifier does not find it (AUC {estimate:.3f}, at least {low:.3f})"
        )
        found.append(
            f"The kernel test sees a difference ({_p(pvalue)}), but {size}: "
            "real perhaps, not larger than you tolerate. The columns below show where to look."
        )
    elif low > tolerance:
        found.append(
            f"The classifier tells the sides apart (AUC {estimate:.3f}, at least {low:.3f}), the "
            f"kernel test does not ({_p(pvalue)}): a narrow difference, in few columns or few "
            "rows, and no shift is called while the two disagree. The columns below show where."
        )
    else:
        auc = detectable.get("auc")
        power = (
            f" A shift of AUC {auc:.3f} would have been found in four of five such samples."
            if auc is not None
            else ""
        )
        found.append(
            f"No shift was found beyond what you tolerate ({_p(pvalue)}; AUC {estimate:.3f}, at "
            f"least {low:.3f}).{power}"
        )
    if concept is not None and concept.get("detected"):
        found.append(
            "Concept shift: at equal features the label behaves differently on p, so weights "
            "cannot repair a model trained on q; it needs labels from p."
        )
    if overlap_ok is False:
        found.append("Overlap fails: part of p lies where q has no data.")
    return found
