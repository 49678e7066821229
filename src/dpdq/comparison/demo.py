"""The main job on data that come with scikit-learn."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa

    from dpdq.comparison.result import Comparison

__all__ = ["demo_tables", "run_demo"]


def demo_tables() -> tuple[pa.Table, pa.Table]:
    """Return diabetes patients under 50 (q) and from 50 on (p), with a model's prediction.

    Age itself is left out: it separates the two by definition. ``predicted`` comes from a ridge
    regression trained on q; rows of q are predicted by models that did not see them.

    Returns
    -------
    tuple of pyarrow.Table
        q and p.

    References
    ----------
    The data: Efron, Hastie, Johnstone and Tibshirani, Least Angle Regression, 2004.
    """
    import pyarrow as pa
    from sklearn.datasets import load_diabetes
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    bunch: Any = load_diabetes(scaled=False)
    names = list(bunch.feature_names)
    X, y = bunch.data, bunch.target
    old = X[:, names.index("age")] >= 50
    kept = [names.index(name) for name in names if name != "age"]
    model = make_pipeline(StandardScaler(), Ridge(1.0))
    predicted: Any = np.empty(len(y))
    predicted[~old] = cross_val_predict(model, X[~old][:, kept], y[~old], cv=5)
    predicted[old] = model.fit(X[~old][:, kept], y[~old]).predict(X[old][:, kept])
    readable = {
        "bmi": "body_mass_index",
        "bp": "blood_pressure",
        "s1": "total_cholesterol",
        "s2": "ldl",
        "s3": "hdl",
        "s4": "cholesterol_ratio",
        "s5": "log_triglycerides",
        "s6": "blood_sugar",
    }
    columns: dict[str, object] = {}
    for index in kept:
        name = names[index]
        values = X[:, index]
        if name == "sex":
            columns["sex"] = pa.array(np.where(values == values.min(), "1", "2"))
        else:
            columns[readable[name]] = pa.array(values)
    columns["progression"] = pa.array(y)
    columns["predicted"] = pa.array(predicted)
    columns["patient"] = pa.array(np.arange(len(y)))
    table = pa.table(columns)
    return table.filter(pa.array(~old)), table.filter(pa.array(old))


def run_demo(out: str | os.PathLike[str]) -> tuple[Comparison, dict[str, Path]]:
    """Run the main job on the bundled data and write its files.

    Parameters
    ----------
    out
        Folder for the files.

    Returns
    -------
    tuple
        The comparison, and file name -> path.
    """
    from dpdq.comparison import compare

    q, p = demo_tables()
    comparison = compare(
        q,
        p,
        label="progression",
        prediction="predicted",
        id="patient",
        progress=True,
        random_state=0,
    )
    return comparison, comparison.save(out)
