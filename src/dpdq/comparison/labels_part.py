"""What the comparison says about labels and predictions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dpdq.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

    from dpdq.comparison.estimation import Estimation
    from dpdq.comparison.options import Options
    from dpdq.comparison.sides import Side

__all__ = ["labels_parts"]

NUMERIC_LEVELS = 20


def _is_numeric(values: np.ndarray) -> bool:
    return values.dtype.kind in "iuf" and len(np.unique(values[:100_000])) > NUMERIC_LEVELS


def _values(side: Side, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Values of a column as NumPy, and which of them are there."""
    import pyarrow as pa

    column: pa.ChunkedArray = side.source.column(name)
    there = ~np.asarray(column.is_null(nan_is_null=True))
    kind = column.type
    if pa.types.is_floating(kind) or pa.types.is_integer(kind):
        values = column.to_numpy()
    else:
        values = np.array(column.to_pylist(), dtype=object)
    return values, there


def labels_parts(
    q: Side,
    p: Side,
    options: Options,
    estimation: Estimation,
    units: tuple[np.ndarray, np.ndarray] | None,
    seed: int,
) -> tuple[dict[str, Any], dict[str, dict[str, int]], list[str]]:
    """Label shift, performance on p, and whether P(Y|X) is the same.

    Rows without a label (or a prediction) are left out of the parts that need it, and the page
    says how many.

    Returns
    -------
    tuple
        The parts, the rows used, and warnings.
    """
    from dpdq.shift import concept_shift, label_shift, shifted_performance

    parts: dict[str, Any] = dict.fromkeys(("label", "label_shift", "concept_shift", "performance"))
    used: dict[str, dict[str, int]] = {}
    warnings: list[str] = []
    name = options.label
    if name is None or not q.has(name):
        if name is None and (options.prediction or options.prediction_proba):
            warnings.append("A prediction without a label: name the label to see performance on p.")
        return parts, used, warnings
    y_q, there_q = _values(q, name)
    if not there_q.any():
        raise DataError(f"the label {name!r} is missing in every row of {q.source.label}")
    known_q = y_q[there_q]
    numeric = _is_numeric(known_q)
    parts["label"] = {"name": name, "kind": "numeric" if numeric else "categorical"}
    _say_missing(warnings, "q", name, there_q)
    y_p, there_p = _values(p, name) if p.has(name) else (None, None)
    if y_p is not None and there_p is not None and not there_p.any():
        y_p = there_p = None
    if y_p is not None and there_p is not None:
        _say_missing(warnings, "p", name, there_p)

    def unit(side: int, rows: np.ndarray) -> np.ndarray | None:
        return None if units is None else units[side][rows]

    if y_p is not None and there_p is not None:
        found = label_shift(
            known_q,
            y_p[there_p],
            kind="numeric" if numeric else "classes",
            units_q=unit(0, there_q),
            units_p=unit(1, there_p),
            random_state=seed,
        )
        parts["label_shift"] = found.to_dict()
        rows_q = np.flatnonzero(there_q[q.rows])
        rows_p = np.flatnonzero(there_p[p.rows])
        enough = min(len(rows_q), len(rows_p)) >= 50 and len(np.unique(known_q.astype(str))) > 1
        if enough:
            all_q, all_p = q.rows[rows_q], p.rows[rows_p]
            concept = concept_shift(
                estimation.codes_q[rows_q],
                y_q[all_q],
                estimation.codes_p[rows_p],
                y_p[all_p],
                folds_q=q.folds[all_q],
                folds_p=p.folds[all_p],
                units_q=unit(0, all_q),
                units_p=unit(1, all_p),
                log_ratio_q=q.log_ratio[all_q],
                log_ratio_p=p.log_ratio[all_p],
                kind="numeric" if numeric else "classes",
                label=name,
                categorical=estimation.features.categorical_codes,
                random_state=seed,
            )
            parts["concept_shift"] = concept.to_dict()
            used["concept_shift"] = {"q": len(rows_q), "p": len(rows_p)}
        else:
            warnings.append(
                "Too few labelled rows to test whether P(Y|X) is the same: it needs 50 on each "
                "side and two different labels."
            )
    prediction = options.prediction_proba or options.prediction
    if prediction is None or not q.has(prediction):
        return parts, used, warnings
    f_q, has_q = _values(q, prediction)
    both_q = np.flatnonzero(there_q & has_q)
    if len(both_q) < 2:
        raise DataError(
            f"{q.source.label}: fewer than two rows have both the label {name!r} and the "
            f"prediction {prediction!r}"
        )
    f_p, both_p = None, None
    if y_p is not None and there_p is not None and p.has(prediction):
        f_p, has_p = _values(p, prediction)
        both_p = np.flatnonzero(there_p & has_p)
        if len(both_p) < 2:
            f_p = both_p = None
    kind = (
        "probability" if options.prediction_proba else "regression" if numeric else "classification"
    )
    measured = shifted_performance(
        y_q[both_q],
        f_q[both_q],
        q.log_ratio[both_q],
        None if f_p is None or y_p is None else y_p[both_p],
        None if f_p is None else f_p[both_p],
        kind=kind,
        units_q=unit(0, both_q),
        units_p=None if both_p is None else unit(1, both_p),
        random_state=seed,
    )
    parts["performance"] = {metric: value.to_dict() for metric, value in measured.items()}
    used["performance"] = {"q": len(both_q), "p": 0 if both_p is None else len(both_p)}
    return parts, used, warnings


def _say_missing(warnings: list[str], side: str, name: str, there: np.ndarray) -> None:
    absent = int((~there).sum())
    if absent:
        warnings.append(
            f"{absent:,} of {len(there):,} rows of {side} have no label {name!r} and are left out "
            "of what needs it."
        )
