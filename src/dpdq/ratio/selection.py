"""Which estimator, judged on rows that it has not seen.

Rows are cut into folds. For every candidate and fold k a model is fitted on the other folds and
scores fold k, so that no row is scored by a model that saw it (nor its duplicate or its group,
when the folds keep these together). The candidates are compared by the balanced logistic loss of
these held-out log ratios,

    loss = ½ E_q[log(1 + r)] + ½ E_p[log(1 + 1/r)],

which the true ratio minimises and the constant ratio r = 1 brings to log 2. A candidate that does
not stay below log 2 has found nothing that carries over, and where all fail the ratio is taken to
be 1 everywhere.

The winner's log ratios are held to |log r| <= ``log_ratio_limit``, by default log(10 n) with n
the larger number of rows (a sample of n rows cannot tell such a ratio from an infinite one), and
then shifted so that the mean of r over held-out rows of q is one. The shift is a diagnostic: it is
near zero for a calibrated model, and far from zero where q hardly meets p.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from dpdq._random import RandomState, as_generator, child_seed
from dpdq._threads import parallel_map
from dpdq.errors import DataError, NotFittedError, OptionError
from dpdq.ratio._base import RatioEstimator, clone_estimator
from dpdq.ratio._common import (
    Array,
    as_rows,
    as_weights,
    content_folds,
    loss_with_error,
)

__all__ = ["CONSTANT", "CrossFittedRatio", "select_ratio"]

CONSTANT = "constant"
_LOG_2 = float(np.log(2.0))


class CrossFittedRatio:
    """Log ratios of all rows from models that have not seen them, best candidate first.

        log r(x_i) = clip(model_(fold of i)(x_i)) + shift,  mean over q of r = 1

    The candidates' losses share the folds, so that their differences are better known than their
    standard errors suggest. Choosing the smallest of several losses makes the winner's own loss
    slightly too good.

    Parameters
    ----------
    candidates
        Name -> (unfitted estimator, name of the view that it reads). Views are matrices of the
        same rows, for example dense features for linear models and codes for trees.
    n_folds
        Number of folds K; fold numbers are 0 ... K - 1.
    log_ratio_limit
        Bound of |log r| before the shift; default log(10 max(n_q, n_p)).

    Attributes
    ----------
    estimator_, view_
        Name of the winner (``"constant"`` if none beats r = 1) and of its view (None then).
    models_
        The winner's fitted models, one a fold.
    log_ratio_q_, log_ratio_p_
        Held-out log ratios of the rows of the fit.
    best_candidate_, held_out_q_, held_out_p_
        The candidate with the smallest loss and its held-out log ratios before the shift, also
        where the constant ratio is better.
    losses_
        Candidate -> {"loss", "standard_error"}, by ascending loss.
    baseline_loss_
        log 2.
    shift_
        What was added to every log ratio.
    reason_
        One sentence: who won and why.

    Notes
    -----
    Cost: n_folds fits of every candidate; memory that of one fit and of one column of log ratios
    a candidate.
    Held by: tests/ratio/test_selection.py::test_no_row_is_scored_by_a_model_that_saw_it

    References
    ----------
    .. [Sugiyama2012] Density Ratio Estimation in Machine Learning. Sugiyama, 2012, Cambridge.

    Examples
    --------
    >>> import numpy as np
    >>> from dpdq.ratio import CrossFittedRatio, LogisticRatio
    >>> rng = np.random.default_rng(0)
    >>> q, p = rng.normal(0, 1, (500, 2)), rng.normal(1, 1, (500, 2))
    >>> fitted = CrossFittedRatio({"logistic": (LogisticRatio(), "dense")}, n_folds=5).fit(
    ...     {"dense": q}, {"dense": p}, np.arange(500) % 5, np.arange(500) % 5
    ... )
    >>> fitted.estimator_
    'logistic'
    >>> float(np.exp(fitted.log_ratio_q_).mean().round(6))
    1.0
    """

    def __init__(
        self,
        candidates: Mapping[str, tuple[RatioEstimator, str]],
        n_folds: int = 5,
        *,
        log_ratio_limit: float | None = None,
    ) -> None:
        self.candidates = candidates
        self.n_folds = n_folds
        self.log_ratio_limit = log_ratio_limit

    def __repr__(self) -> str:
        names = ", ".join(self.candidates)
        text = f"CrossFittedRatio({names}; {self.n_folds} folds)"
        if "estimator_" in vars(self):
            text += (
                f", fitted: log dP/dQ by {self.estimator_} for {len(self.log_ratio_q_):,} rows "
                f"of q and {len(self.log_ratio_p_):,} rows of p"
            )
        return text

    def fit(
        self,
        views_q: Mapping[str, object],
        views_p: Mapping[str, object],
        folds_q: object,
        folds_p: object,
        *,
        training_masks: tuple[object, object] | None = None,
        weights_q: object = None,
        weights_p: object = None,
        units_q: object = None,
        units_p: object = None,
    ) -> CrossFittedRatio:
        """Fit and score every candidate, and keep the best.

        Parameters
        ----------
        views_q, views_p
            View name -> matrix with one row for each row of q (of p).
        folds_q, folds_p
            Fold of each row, integers from 0 to n_folds - 1.
        training_masks
            Two boolean arrays of shapes (n_q, K) and (n_p, K): whether row i may train model k,
            besides not being in fold k. Default all may.
        weights_q, weights_p
            Importance weights of rows; default uniform.
        units_q, units_p
            Labels of groups of rows that belong together, for the standard errors; a label that
            stands on both sides is one group.

        Returns
        -------
        CrossFittedRatio
            Itself.

        Raises
        ------
        DataError
            Arrays of unequal length, fold numbers out of range, or a model without 2 training
            rows on each side.
        """
        if not self.candidates:
            raise OptionError("candidates is empty; expected at least one estimator")
        k_q, k_p = self._folds(folds_q, "q"), self._folds(folds_p, "p")
        n_q, n_p = len(k_q), len(k_p)
        w_q, w_p = as_weights(weights_q, n_q, "q"), as_weights(weights_p, n_p, "p")
        train_q, train_p = self._training(training_masks, k_q, k_p)
        limit = self.log_ratio_limit
        if limit is None:
            limit = float(np.log(10.0 * max(n_q, n_p)))
        if not limit > 0:
            raise OptionError(f"log_ratio_limit is {limit}; expected a positive number")
        self.log_ratio_limit_ = float(limit)

        table: dict[str, dict[str, float]] = {}
        best: tuple[float, str, str | None, list[RatioEstimator], Array, Array] | None = None
        for name, (estimator, view) in self.candidates.items():
            if view not in views_q or view not in views_p:
                raise OptionError(
                    f"Unknown view {view!r} of candidate {name!r}. "
                    f"Choose one of {', '.join(map(repr, views_q))}."
                )
            x_q = as_rows(views_q[view], f"view {view!r} of q", missing=True)
            x_p = as_rows(views_p[view], f"view {view!r} of p", missing=True)
            for side, rows, n in (("q", x_q, n_q), ("p", x_p, n_p)):
                if len(rows) != n:
                    raise DataError(
                        f"view {view!r} of {side} has {len(rows)} rows and folds_{side} has {n}"
                    )
            out_q, out_p = np.zeros(n_q), np.zeros(n_p)

            def fit_fold(
                k: int,
                estimator: RatioEstimator = estimator,
                x_q: Array = x_q,
                x_p: Array = x_p,
                out_q: Array = out_q,
                out_p: Array = out_p,
            ) -> RatioEstimator:
                may_q, may_p = train_q[k], train_p[k]
                model = clone_estimator(estimator).fit(
                    x_q[may_q], x_p[may_p], weights_q=w_q[may_q], weights_p=w_p[may_p]
                )
                for folds, x, out in ((k_q, x_q, out_q), (k_p, x_p, out_p)):
                    here = folds == k
                    out[here] = model.log_ratio(x[here])
                return model

            models = parallel_map(fit_fold, range(self.n_folds))
            np.clip(out_q, -limit, limit, out=out_q)
            np.clip(out_p, -limit, limit, out=out_p)
            loss, error = loss_with_error(out_q, out_p, w_q, w_p, units_q, units_p)
            table[name] = {"loss": loss, "standard_error": error}
            if best is None or loss < best[0]:
                best = (loss, name, view, models, out_q, out_p)

        assert best is not None  # there is at least one candidate
        loss, name, view, models, out_q, out_p = best
        self.best_candidate_, self.held_out_q_, self.held_out_p_ = name, out_q, out_p
        self.losses_ = dict(sorted(table.items(), key=lambda item: item[1]["loss"]))
        self.baseline_loss_ = _LOG_2
        if not loss < _LOG_2 - 1e-9:  # below by more than rounding
            name, view, models = CONSTANT, None, []
            out_q, out_p = np.zeros(n_q), np.zeros(n_p)
        self.estimator_, self.view_, self.models_ = name, view, models
        self.reason_ = _why(name, self.losses_)
        largest = out_q.max()
        mean = float((w_q @ np.exp(out_q - largest)) / w_q.sum())
        self.shift_ = -float(largest + np.log(mean)) if models else 0.0
        self.log_ratio_q_, self.log_ratio_p_ = out_q + self.shift_, out_p + self.shift_
        return self

    def score(self, view: object, folds: object) -> Array:
        """Log ratios of rows in the winner's view, each by the model of its fold.

        Parameters
        ----------
        view
            Rows of the winner's view (``view_``); any array with as many rows where the constant
            ratio has won.
        folds
            Fold of each row; a row with fold -1 belongs to none and gets the mean of all models'
            log ratios.

        Returns
        -------
        ndarray of shape (n,)
            Clipped and shifted as those of the fit.
        """
        if "estimator_" not in vars(self):
            raise NotFittedError("CrossFittedRatio is not fitted; call fit before score")
        numbers = np.asarray(folds)
        if not self.models_:
            return np.zeros(len(numbers))
        rows = as_rows(view, "view", width=self.models_[0].n_features_in_, missing=True)
        if numbers.shape != (len(rows),):
            raise DataError(f"folds has shape {numbers.shape}; expected ({len(rows)},)")
        if len(numbers) and (numbers.min() < -1 or numbers.max() >= self.n_folds):
            raise DataError(
                f"folds runs from {numbers.min()} to {numbers.max()}; "
                f"expected -1 to {self.n_folds - 1}"
            )
        limit = self.log_ratio_limit_
        out = np.zeros(len(rows))
        free = numbers == -1
        for k, model in enumerate(self.models_):
            here = numbers == k
            if here.all():
                out[:] = np.clip(model.log_ratio(rows), -limit, limit)
            elif here.any():
                out[here] = np.clip(model.log_ratio(rows[here]), -limit, limit)
            if free.any():
                out[free] += np.clip(model.log_ratio(rows[free]), -limit, limit) / self.n_folds
        return out + self.shift_

    def log_ratio(self, x: object) -> Array:
        """Log ratios of new rows in the winner's view: the mean of all models'."""
        rows = np.asarray(x, dtype=np.float64)
        return self.score(rows, np.full(len(rows), -1))

    def _folds(self, folds: object, side: str) -> Array:
        numbers = np.asarray(folds)
        if self.n_folds < 2:
            raise OptionError(f"n_folds is {self.n_folds}; expected at least 2")
        if numbers.ndim != 1 or not np.issubdtype(numbers.dtype, np.integer):
            raise DataError(
                f"folds_{side} has dtype {numbers.dtype} and shape {numbers.shape}; "
                "expected one integer a row"
            )
        if len(numbers) and (numbers.min() < 0 or numbers.max() >= self.n_folds):
            raise DataError(
                f"folds_{side} runs from {numbers.min()} to {numbers.max()}; "
                f"expected 0 to {self.n_folds - 1}"
            )
        return numbers

    def _training(
        self, masks: tuple[object, object] | None, k_q: Array, k_p: Array
    ) -> tuple[list[Array], list[Array]]:
        """For each model, which rows of each side may train it."""
        sides: list[list[Array]] = []
        for i, (side, folds) in enumerate((("q", k_q), ("p", k_p))):
            allowed = [folds != k for k in range(self.n_folds)]
            if masks is not None:
                mask = np.asarray(masks[i])
                if mask.dtype != np.bool_ or mask.shape != (len(folds), self.n_folds):
                    raise DataError(
                        f"training_masks of {side} has dtype {mask.dtype} and shape {mask.shape}; "
                        f"expected booleans of shape ({len(folds)}, {self.n_folds})"
                    )
                allowed = [rows & mask[:, k] for k, rows in enumerate(allowed)]
            for k, rows in enumerate(allowed):
                if rows.sum() < 2:
                    raise DataError(
                        f"fold {k} leaves {int(rows.sum())} rows of {side} to train on; "
                        "a model needs at least 2, take fewer folds or more rows"
                    )
            sides.append(allowed)
        return sides[0], sides[1]


def select_ratio(
    q: object,
    p: object,
    candidates: Mapping[str, RatioEstimator] | None = None,
    *,
    n_folds: int = 5,
    weights_q: object = None,
    weights_p: object = None,
    random_state: RandomState = None,
) -> CrossFittedRatio:
    """Pick the ratio estimator with the smallest held-out loss, and say why.

        argmin over candidates of ½ E_q[log(1 + r)] + ½ E_p[log(1 + 1/r)] on held-out rows

    Folds go by the content of rows, so that equal rows share a fold. The constant ratio is always
    a candidate. With few rows the choice itself is noisy: look at ``losses_``.

    Parameters
    ----------
    q, p
        Arrays of shape (n_q, d) and (n_p, d): what one has, and what one wants.
    candidates
        Name -> unfitted estimator. Default `LogisticRatio`, `GradientBoostingRatio`, `ULSIF`.
    n_folds
        Folds of the cross-fit.
    weights_q, weights_p
        Importance weights; default uniform.
    random_state
        Seed of the folds and of the default candidates.

    Returns
    -------
    CrossFittedRatio
        Fitted; ``estimator_`` and ``reason_`` name the winner, ``log_ratio(x)`` scores new rows.

    Raises
    ------
    DataError
        Too few rows, unequal widths, non-finite values.

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
    from dpdq.ratio.boosting import GradientBoostingRatio
    from dpdq.ratio.least_squares import ULSIF
    from dpdq.ratio.logistic import LogisticRatio

    generator = as_generator(random_state)
    rows_q, rows_p = as_rows(q, "q"), as_rows(p, "p")
    if rows_q.shape[1] != rows_p.shape[1]:
        raise DataError(
            f"q has {rows_q.shape[1]} columns and p has {rows_p.shape[1]}; "
            "expected the same columns in the same order"
        )
    if candidates is None:
        candidates = {
            "logistic": LogisticRatio(),
            "gradient_boosting": GradientBoostingRatio(random_state=child_seed(generator)),
            "ulsif": ULSIF(random_state=child_seed(generator)),
        }
    folds_q, folds_p = content_folds(rows_q, rows_p, n_folds, child_seed(generator))
    selection = CrossFittedRatio(
        {name: (estimator, "x") for name, estimator in candidates.items()}, n_folds
    )
    return selection.fit(
        {"x": rows_q},
        {"x": rows_p},
        folds_q,
        folds_p,
        weights_q=weights_q,
        weights_p=weights_p,
    )


def _why(winner: str, losses: Mapping[str, Mapping[str, float]]) -> str:
    ranked = list(losses.items())
    if winner == CONSTANT:
        name, numbers = ranked[0]
        return (
            "No estimator predicts held-out rows better than the constant ratio (loss "
            f"{_LOG_2:.4f}; the best, {name}, has {numbers['loss']:.4f}), so the ratio is taken "
            "to be 1 everywhere."
        )
    numbers = ranked[0][1]
    rest = [f"{name} has {other['loss']:.4f}" for name, other in ranked[1:]]
    return (
        f"{winner} has the smallest held-out logistic loss, {numbers['loss']:.4f} (standard error "
        f"{numbers['standard_error']:.4f}); "
        + ", ".join([*rest, f"the constant ratio has {_LOG_2:.4f}"])
        + "."
    )
