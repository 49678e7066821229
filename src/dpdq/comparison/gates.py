"""What ``--fail-on`` can name, and whether a comparison found it."""

from __future__ import annotations

from typing import Any

from dpdq.errors import DataError, OptionError

__all__ = ["check_gates", "found"]


def _parse(fail_on: str) -> list[tuple[str, list[str]]]:
    gates: list[tuple[str, list[str]]] = []
    for part in fail_on.split(";"):
        name, equals, rest = part.strip().partition("=")
        if name in ("shift", "overlap") and not equals:
            gates.append((name, []))
        elif name == "columns" and (not equals or rest.strip()):
            gates.append((name, [item.strip() for item in rest.split(",") if item.strip()]))
        else:
            raise OptionError(
                f"Unknown gate {part.strip()!r} in fail_on. "
                "Choose of 'shift', 'overlap', 'columns', 'columns=a,b', joined by ';'."
            )
    return gates


def check_gates(fail_on: str | None) -> None:
    """Refuse an unknown gate before work starts.

    Raises
    ------
    OptionError
        If a gate is unknown.
    """
    if fail_on is not None:
        _parse(fail_on)


def found(comparison: Any, fail_on: str) -> list[str]:
    """Say which of the named things a comparison found, one sentence each.

    A gate whose part was not computed (``shift`` after a quick comparison) is refused rather than
    passed.

    Raises
    ------
    OptionError
        If a gate is unknown or was not computed.
    DataError
        If a named column was not compared.
    """
    reasons = []
    for gate, names in _parse(fail_on):
        if gate == "shift":
            if comparison.verdict["shifted"] is None:
                raise OptionError(
                    "fail_on names 'shift', which this comparison could not judge: "
                    + comparison.verdict["pvalue_reason"]
                )
            if comparison.verdict["shifted"]:
                reasons.append(comparison.verdict["sentence"])
        elif gate == "overlap":
            if comparison.overlap is None:
                raise OptionError("fail_on names 'overlap', which a quick comparison leaves out")
            if not comparison.overlap["ok"]:
                reasons.append(comparison.overlap["sentence"])
        else:
            rows = {row["name"]: row for row in comparison.columns}
            for name in names:
                if name not in rows:
                    raise DataError(
                        f"fail_on names column {name!r}, which was not compared; "
                        f"there are {', '.join(rows)}"
                    )
            for name in names or rows:
                if rows[name]["shifted"]:
                    effect = rows[name]["effect"]
                    reasons.append(f"column {name!r} shifted: PSI {effect['estimate']:.3g}")
    return reasons
