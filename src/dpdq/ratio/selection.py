"""Which estimator, judged on rows that it has not seen.

`select_ratio` cuts the rows into folds by their content, cross-fits every candidate
(`dpdq.ratio.CrossFittedRatio`) and keeps the one with the smallest held-out loss. It reads what
estimators read: arrays, tensors, sparse matrices and tables, each candidate in the view that suits
it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from dpdq._random import RandomState, as_generator, child_seed
from dpdq.errors import DataError, InputTypeError, OptionError
from dpdq.ratio._base import RatioEstimator
from dpdq.ratio._common import content_hash, folds_of_hashes, is_sparse
from dpdq.ratio._inputs import RowReader
from dpdq.ratio.cross_fitting import CONSTANT, CrossFittedRatio

__all__ = ["CONSTANT", "select_ratio"]

_WIDE = 1_000  # columns of a sparse matrix above which trees and kernels are not tried by default


def select_ratio(
    q: object,
    p: object,
    candidates: Mapping[str, RatioEstimator] | None = None,
    *,
    n_folds: int = 5,
    weights_q: object = None,
    weights_p: object = None,
    types: Mapping[str, str] | None = None,
    infinite: str = "refuse",
    random_state: RandomState = None,
) -> CrossFittedRatio:
    """Pick the ratio estimator with the smallest held-out loss, and say why.

        argmin over candidates of ½ E_q[log(1 + r)] + ½ E_p[log(1 + 1/r)] on held-out rows

    Folds go by the content of rows, so that equal rows share a fold (unless a content occurs 20
    times or more: such cells of a discrete law are dealt out over the folds). The constant ratio
    is always a candidate. With few rows the choice itself is noisy: look at ``losses_``.

    Parameters
    ----------
    q, p
        What one has, and what one wants: arrays, tensors, sparse matrices or tables, as for
        `RatioEstimator.fit`. The recipe of tables is fitted once, on all rows of both sides.
    candidates
        Name -> unfitted estimator. Default `LogisticRatio`, `GradientBoostingRatio` and
        `VariationalRatio`, which between them see lines, steps and bumps; the first alone on
        sparse matrices of more than 1,000 columns. A candidate that refuses the
        data or breaks down is left out, with its reason in ``failures_`` and ``reason_``.
    n_folds
        Folds of the cross-fit.
    weights_q, weights_p
        Importance weights; default uniform.
    types, infinite
        Of tables, as for `RatioEstimator.fit`.
    random_state
        Seed of the folds and of the default candidates.

    Returns
    -------
    CrossFittedRatio
        Fitted; ``estimator_`` and ``reason_`` name the winner, ``log_ratio(x)`` scores new rows,
        ``diagnose()`` judges the winner.

    Raises
    ------
    DataError
        Too few rows, unequal columns, infinite values, or no candidate that can be fitted.
    InputTypeError
        A candidate is no ratio estimator, or a table stands on one side only.

    Notes
    -----
    Cost: n_folds fits of every candidate.
    Held by: tests/ratio/test_selection.py::test_the_right_candidate_wins

    References
    ----------
    .. [Sugiyama2012] Density Ratio Estimation in Machine Learning. Sugiyama, 2012, Cambridge.

    Examples
    --------
    >>> import numpy as np
    >>> from dpdq.ratio import select_ratio
    >>> rng = np.random.default_rng(0)
    >>> q, p = rng.normal(0, 1, (400, 1)), rng.normal(1, 1, (400, 1))
    >>> select_ratio(q=q, p=p, random_state=0).estimator_
    'logistic'
    """
    if n_folds < 2:
        raise OptionError(f"n_folds is {n_folds}; expected at least 2")
    generator = as_generator(random_state)
    reader, q, p = RowReader.fit(q, p, types, infinite)
    manners: dict[str, Any] = {"missing": True, "sparse": True}
    codes_q, codes_p = (
        reader.rows(x, side, view="codes", **manners) for x, side in ((q, "q"), (p, "p"))
    )
    if codes_q.shape[1] != codes_p.shape[1]:
        raise DataError(
            f"q has {codes_q.shape[1]} columns and p has {codes_p.shape[1]}; "
            "expected the same columns in the same order"
        )
    views = {"codes": (codes_q, codes_p)}
    if candidates is None:
        candidates = _default_candidates(codes_q, generator)
    chosen: dict[str, tuple[RatioEstimator, str]] = {}
    for name, estimator in candidates.items():
        if not isinstance(estimator, RatioEstimator):
            raise InputTypeError(
                f"candidate {name!r} has type {type(estimator).__name__}; give unfitted ratio "
                "estimators, and classifiers inside ClassifierRatio"
            )
        chosen[name] = _as_candidate(estimator, reader)
    if reader.features is not None and any(view == "dense" for _, view in chosen.values()):
        views["dense"] = (
            reader.rows(q, "q", view="dense", **manners),
            reader.rows(p, "p", view="dense", **manners),
        )
    seed = child_seed(generator)
    folds_q, folds_p = folds_of_hashes(
        content_hash(codes_q, seed), content_hash(codes_p, seed), n_folds
    )
    selection = CrossFittedRatio(chosen, n_folds).fit(
        {view: rows[0] for view, rows in views.items()},
        {view: rows[1] for view, rows in views.items()},
        folds_q,
        folds_p,
        weights_q=weights_q,
        weights_p=weights_p,
    )
    selection._row_reader = reader
    return selection


def _default_candidates(rows: Any, generator: np.random.Generator) -> dict[str, RatioEstimator]:
    from dpdq.ratio.boosting import GradientBoostingRatio
    from dpdq.ratio.logistic import LogisticRatio
    from dpdq.ratio.variational import VariationalRatio

    if is_sparse(rows) and rows.shape[1] > _WIDE:
        return {"logistic": LogisticRatio()}
    return {
        "logistic": LogisticRatio(),
        "gradient_boosting": GradientBoostingRatio(random_state=child_seed(generator)),
        "variational": VariationalRatio(random_state=child_seed(generator)),
    }


def _as_candidate(estimator: RatioEstimator, reader: RowReader) -> tuple[RatioEstimator, str]:
    """The estimator and its view; trees are told which codes of a table are levels."""
    if reader.features is None or estimator._view != "codes":
        return estimator, "codes" if reader.features is None else "dense"
    params = estimator.get_params(deep=False)
    if params.get("categorical_features", ()) is None:
        params["categorical_features"] = reader.features.categorical_codes
        estimator = type(estimator)(**params)
    return estimator, "codes"
