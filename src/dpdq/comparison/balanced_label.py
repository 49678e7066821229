"""What weights say about the label on p, whether a model should use them, and what could be wrong.

The estimate takes P(Y|X) to be the same in q and p. Where p has labels that is tested, and the mean
that p itself shows stands beside the estimate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dpdq.data import Features, infer_columns
from dpdq.errors import DpdqError
from dpdq.results import Estimate

if TYPE_CHECKING:
    import pyarrow as pa

    from dpdq.data import Source
    from dpdq.reweight import Weighter

__all__ = ["label_part"]

CAVEAT = "valid only if P(Y|X) is unchanged"

_NUMERIC_LEVELS = 20
_MOST_LEVELS = 10
_MOST_CELLS = 2e7  # rows by margins for the advice
_FEWEST = 50  # labelled rows a side for a test of P(Y|X)


def label_part(
    weighter: Weighter,
    sides: Sequence[Source],
    tables: Sequence[pa.Table],
    design: Sequence[np.ndarray | None],
    name: str,
    seed: int,
) -> dict[str, Any]:
    """Estimates of the label on p, advice, and the test that P(Y|X) is the same.

    Parameters
    ----------
    weighter
        Fitted.
    sides
        q, and p where there are rows of it.
    tables
        Their covariates.
    design
        Their design weights.
    name
        The label.
    seed
        Of the test and of the advice's folds.

    Returns
    -------
    dict
        ``label``, ``advice``, ``concept_shift``, ``warnings`` and, for the sensitivity, the
        ``outcome`` as numbers on the rows of q (or None).
    """
    warnings: list[str] = []
    values, there = _labels(sides[0], name)
    part: dict[str, Any] = {
        "label": None, "advice": None, "concept_shift": None, "warnings": warnings,
        "outcome": None,
    }  # fmt: skip
    needed = np.ones(len(values), dtype=bool) if design[0] is None else design[0] > 0
    absent = int((needed & ~there).sum())
    if absent:
        warnings.append(
            f"{absent:,} of {int(needed.sum()):,} rows of q have no label {name!r}: nothing is "
            "estimated; drop them before, or give them a design weight of 0"
        )
        return part
    numeric = values.dtype.kind in "iuf" and len(np.unique(values[there])) > _NUMERIC_LEVELS
    known_p = None
    if len(sides) > 1 and name in sides[1].schema.names:
        values_p, there_p = _labels(sides[1], name)
        weights_p = np.ones(len(values_p)) if design[1] is None else design[1]
        there_p &= weights_p > 0
        if there_p.any():
            known_p = values_p, weights_p, there_p
    part["label"] = {
        "name": name,
        "kind": "numeric" if numeric else "categorical",
        "caveat": CAVEAT,
        "estimates": _estimates(weighter, values, needed, design[0], known_p, numeric, warnings),
    }
    levels = np.unique(values[needed].astype(str))
    if numeric:
        part["outcome"] = np.where(needed, values.astype(float), 0.0)
    elif len(levels) == 2:
        part["outcome"] = (values.astype(str) == levels[1]).astype(float)
    concept = None
    if known_p is not None and len(levels) > 1:
        concept = _concept(tables, values, needed, known_p, name, numeric, seed, warnings)
        part["concept_shift"] = concept
    if weighter.target_ != "p":
        warnings.append(
            f"The weights stand for the {weighter.target_} of q and p, so that nothing is said of "
            "models on p"
        )
    elif part["outcome"] is None:
        warnings.append(
            f"{name!r} has {len(levels)} classes; whether to weight is said of numbers and of two "
            "classes"
        )
    elif len(values) * len(weighter.margins_) <= _MOST_CELLS:
        part["advice"] = _advice(weighter, part["outcome"], concept, seed, warnings)
    return part


def _labels(source: Source, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Labels as numbers or as text, and which are there."""
    import pyarrow.types as pt

    column = source.column(name)
    there = ~np.asarray(column.is_null(nan_is_null=True))
    if pt.is_floating(column.type) or pt.is_integer(column.type):
        return column.to_numpy(zero_copy_only=False), there
    return np.array([str(each) for each in column.to_pylist()], dtype=object), there


def _estimates(
    weighter: Weighter,
    values: np.ndarray,
    needed: np.ndarray,
    design: np.ndarray | None,
    known_p: tuple[np.ndarray, np.ndarray, np.ndarray] | None,
    numeric: bool,
    warnings: list[str],
) -> list[dict[str, Any]]:
    """Mean of a number, or shares of the classes, before and after weighting and on p."""
    if numeric:
        outcomes = {"mean": np.where(needed, values.astype(float), 0.0)}
    else:
        texts = values.astype(str)
        found, counts = np.unique(texts[needed], return_counts=True)
        order = np.argsort(-counts, kind="stable")
        if len(order) > _MOST_LEVELS:
            warnings.append(f"The {_MOST_LEVELS} most frequent of {len(order)} classes are shown")
        shown = [1] if len(found) == 2 else order[:_MOST_LEVELS]
        outcomes = {str(found[k]): (texts == found[k]).astype(float) for k in shown}
    weights = needed.astype(float) if design is None else design
    rows = []
    for name, outcome in outcomes.items():
        weighted = weighter.estimate(outcome)
        assert isinstance(weighted, Estimate)
        row = {"name": name, "q": float(np.average(outcome, weights=weights)), "p_observed": None}
        row["p"] = weighted.to_dict()
        if known_p is not None:
            labels, weights_p, there = known_p
            seen = labels if numeric else (labels.astype(str) == name).astype(float)
            row["p_observed"] = _mean(seen[there].astype(float), weights_p[there])
        rows.append(row)
    return rows


def _mean(values: np.ndarray, weights: np.ndarray) -> dict[str, float]:
    share = weights / weights.sum()
    mean = float(share @ values)
    error = math.sqrt(float(np.sum((share * (values - mean)) ** 2)))
    return {"estimate": mean, "low": mean - 1.96 * error, "high": mean + 1.96 * error}


def _concept(
    tables: Sequence[pa.Table],
    values: np.ndarray,
    needed: np.ndarray,
    known_p: tuple[np.ndarray, np.ndarray, np.ndarray],
    name: str,
    numeric: bool,
    seed: int,
    warnings: list[str],
) -> dict[str, Any] | None:
    """Whether the label follows from the covariates by the same rule on both sides."""
    from dpdq.shift import concept_shift

    labels_p, _, there_p = known_p
    rows_q, rows_p = np.flatnonzero(needed), np.flatnonzero(there_p)
    if min(len(rows_q), len(rows_p)) < _FEWEST:
        warnings.append(
            f"Too few labelled rows to test whether P(Y|X) is the same: it needs {_FEWEST} a side"
        )
        return None
    common = [each for each in tables[0].column_names if each in tables[1].column_names]
    q, p = tables[0].select(common).take(rows_q), tables[1].select(common).take(rows_p)
    try:
        features = Features().fit(q, p, infer_columns(q, p))
        found = concept_shift(
            features.codes(q),
            values[rows_q],
            features.codes(p),
            labels_p[rows_p],
            kind="numeric" if numeric else "classes",
            label=name,
            categorical=features.categorical_codes,
            random_state=seed,
        )
    except DpdqError as error:
        warnings.append(f"Whether P(Y|X) is the same was not tested: {error}")
        return None
    return found.to_dict()


def _advice(
    weighter: Weighter,
    outcome: np.ndarray,
    concept: dict[str, Any] | None,
    seed: int,
    warnings: list[str],
) -> dict[str, Any] | None:
    from dpdq.reweight import weighting_advice

    pvalue = None if concept is None else concept["pvalue"]
    try:
        found = weighting_advice(weighter, outcome, concept_pvalue=pvalue, random_state=seed)
    except DpdqError as error:
        warnings.append(f"Whether a model should be weighted was not judged: {error}")
        return None
    return found.to_dict()
