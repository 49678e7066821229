"""Log ratios of all rows from models that have not seen them.

Rows are cut into folds. For every candidate and fold k a model is fitted on the other folds and
scores fold k, so that no row is scored by a model that saw it (nor its duplicate or its group,
when the folds keep these together). The candidates are compared by the balanced logistic loss of
these held-out log ratios,

    loss = ½ E_q[log(1 + r)] + ½ E_p[log(1 + 1/r)],

which the true ratio minimises and the constant ratio r = 1 brings to log 2. A candidate that does
not stay below log 2 has found nothing that carries over, and where none does the ratio is taken to
be 1 everywhere. A candidate that refuses the data or breaks down is left out with its reason.

The winner's log ratios are held to |log r| <= ``log_ratio_limit``, by default log(10 n) with n
the larger number of rows (a sample of n rows cannot tell such a ratio from an infinite one), and
then shifted so that the mean of r over held-out rows of q is one. The shift is a diagnostic: it is
near zero for a calibrated model, and far from zero where q hardly meets p.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from dpdq._parameters import clone
from dpdq._threads import parallel_map
from dpdq.errors import DataError, DpdqError, NotFittedError, OptionError
from dpdq.ratio._base import RatioEstimator
from dpdq.ratio._common import Array, as_rows, as_weights, loss_with_error
from dpdq.ratio._inputs import RowReader

if TYPE_CHECKING:
    from dpdq.ratio.diagnostics import RatioDiagnostics
    from dpdq.weights import Weights

__all__ = ["CONSTANT", "CrossFittedRatio"]

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
    failures_
        Candidate -> why it was left out.
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

    _row_reader: RowReader | None

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
            Arrays of unequal length, fold numbers out of range, a model without 2 training rows
            on each side, or no candidate that can be fitted.
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
        errors: dict[str, Exception] = {}
        best: tuple[float, str, str | None, list[RatioEstimator], Array, Array] | None = None
        for name, (estimator, view) in self.candidates.items():
            if view not in views_q or view not in views_p:
                raise OptionError(
                    f"Unknown view {view!r} of candidate {name!r}. "
                    f"Choose one of {', '.join(map(repr, views_q))}."
                )
            x_q = as_rows(views_q[view], f"view {view!r} of q", missing=True, sparse=True)
            x_p = as_rows(views_p[view], f"view {view!r} of p", missing=True, sparse=True)
            for side, rows, n in (("q", x_q, n_q), ("p", x_p, n_p)):
                if rows.shape[0] != n:
                    raise DataError(
                        f"view {view!r} of {side} has {rows.shape[0]} rows and folds_{side} has {n}"
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
                model = clone(estimator).fit(
                    x_q[may_q], x_p[may_p], weights_q=w_q[may_q], weights_p=w_p[may_p]
                )
                for folds, x, out in ((k_q, x_q, out_q), (k_p, x_p, out_p)):
                    here = folds == k
                    out[here] = model.log_ratio(x[here])
                return model

            try:
                models = parallel_map(fit_fold, range(self.n_folds))
                if np.isnan(out_q).any() or np.isnan(out_p).any():
                    raise DataError("its log ratios of held-out rows are not all numbers")
            except Exception as error:  # other people's classifiers raise what they like
                errors[name] = error
                continue
            np.clip(out_q, -limit, limit, out=out_q)
            np.clip(out_p, -limit, limit, out=out_p)
            loss, error = loss_with_error(out_q, out_p, w_q, w_p, units_q, units_p)
            table[name] = {"loss": loss, "standard_error": error}
            if best is None or loss < best[0]:
                best = (loss, name, view, models, out_q, out_p)

        self.failures_ = {name: _reason(error) for name, error in errors.items()}
        if best is None:
            raise _no_candidate(errors)
        loss, name, view, models, out_q, out_p = best
        self.best_candidate_, self.held_out_q_, self.held_out_p_ = name, out_q, out_p
        self.losses_ = dict(sorted(table.items(), key=lambda item: item[1]["loss"]))
        self.baseline_loss_ = _LOG_2
        if not loss < _LOG_2 - 1e-9:  # below by more than rounding
            name, view, models = CONSTANT, None, []
            out_q, out_p = np.zeros(n_q), np.zeros(n_p)
        self.estimator_, self.view_, self.models_ = name, view, models
        self.reason_ = _why(name, self.losses_, self.failures_)
        largest = out_q.max()
        mean = float((w_q @ np.exp(out_q - largest)) / w_q.sum())
        self.shift_ = -float(largest + np.log(mean)) if models else 0.0
        self.log_ratio_q_, self.log_ratio_p_ = out_q + self.shift_, out_p + self.shift_
        self._weights_q, self._weights_p = w_q, w_p
        self._row_reader = None
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
        rows = as_rows(
            view, "view", width=self.models_[0].n_features_in_, missing=True, sparse=True
        )
        if numbers.shape != (rows.shape[0],):
            raise DataError(f"folds has shape {numbers.shape}; expected ({rows.shape[0]},)")
        if len(numbers) and (numbers.min() < -1 or numbers.max() >= self.n_folds):
            raise DataError(
                f"folds runs from {numbers.min()} to {numbers.max()}; "
                f"expected -1 to {self.n_folds - 1}"
            )
        limit = self.log_ratio_limit_
        out = np.zeros(rows.shape[0])
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
        """Log ratios of new rows: the mean of all models'.

        Parameters
        ----------
        x
            Rows of the winner's view; after `select_ratio`, rows as q and p were given there.

        Returns
        -------
        ndarray of shape (n,)
            Clipped and shifted as those of the fit.
        """
        if "estimator_" not in vars(self):
            raise NotFittedError("CrossFittedRatio is not fitted; call fit before log_ratio")
        if self._row_reader is None:
            rows = as_rows(x, "x", missing=True, sparse=True)
        else:
            view = self.view_ or "codes"
            rows = self._row_reader.rows(x, "x", view=view, missing=True, sparse=True)
        return self.score(rows, np.full(rows.shape[0], -1))

    def weights(self, x: object) -> Weights:
        """Importance weights of new rows of q towards p, with mean one over these rows.

        Those of the rows of the fit are ``Weights(log_ratio_q_)``.

        Parameters
        ----------
        x
            Rows as for `log_ratio`.

        Returns
        -------
        Weights
            They say whether they can be trusted (``ok``, ``status``).
        """
        from dpdq.weights import Weights

        return Weights(self.log_ratio(x))

    def diagnose(self) -> RatioDiagnostics:
        """Judge the winner by the held-out log ratios of the fit, before their shift.

        Returns
        -------
        RatioDiagnostics
            Held-out loss, level, effective size, k-hat, overlap, and what to do next.
        """
        from dpdq.ratio.diagnostics import diagnose_log_ratios

        if "estimator_" not in vars(self):
            raise NotFittedError("CrossFittedRatio is not fitted; call fit before diagnose")
        return diagnose_log_ratios(
            self.log_ratio_q_ - self.shift_,
            self.log_ratio_p_ - self.shift_,
            weights_q=self._weights_q,
            weights_p=self._weights_p,
        )

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


def _reason(error: Exception) -> str:
    text = str(error).strip().split("\n")[0]
    return text if isinstance(error, DpdqError) else f"{type(error).__name__}: {text}"


def _no_candidate(errors: Mapping[str, Exception]) -> Exception:
    """What to raise where every candidate has failed: the one error, or all reasons."""
    if len(errors) == 1:
        return next(iter(errors.values()))
    found = DataError(
        "no candidate can be fitted: "
        + "; ".join(f"{name}: {_reason(error)}" for name, error in errors.items())
    )
    found.__cause__ = next(iter(errors.values()))
    return found


def _why(
    winner: str, losses: Mapping[str, Mapping[str, float]], failures: Mapping[str, str]
) -> str:
    ranked = list(losses.items())
    left_out = "".join(f" {name} was left out: {reason}." for name, reason in failures.items())
    name, numbers = ranked[0]
    if winner == CONSTANT:
        return (
            "No estimator predicts held-out rows better than the constant ratio (loss "
            f"{_LOG_2:.4f}; the best, {name}, has {numbers['loss']:.4f}), so the ratio is taken "
            f"to be 1 everywhere.{left_out}"
        )
    rest = [f"{name} has {other['loss']:.4f}" for name, other in ranked[1:]]
    return (
        f"{winner} has the smallest held-out logistic loss, {numbers['loss']:.4f} (standard error "
        f"{numbers['standard_error']:.4f}); "
        + ", ".join([*rest, f"the constant ratio has {_LOG_2:.4f}"])
        + f".{left_out}"
    )
