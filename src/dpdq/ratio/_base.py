"""The role "ratio estimator": ``fit(q, p)``, then ``log_ratio(x)``.

The manners are scikit-learn's (``get_params``, ``set_params``, clone, repr, pickle, trailing
underscores, ``n_features_in_``) without importing it: ``__init__`` only stores its arguments, all
checks and work happen in ``fit``. An estimator is written by giving the two methods ``_fit`` and
``_log_ratio`` on arrays that have already been checked; tables, tensors and sparse matrices have
become such arrays by then, and zero weights have dropped their rows.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from dpdq._parameters import Parameterised
from dpdq.errors import DataError, NotFittedError
from dpdq.ratio._common import Array, as_weights, content_hash
from dpdq.ratio._inputs import RowReader

if TYPE_CHECKING:
    from dpdq.data.features import Features
    from dpdq.ratio.diagnostics import RatioDiagnostics
    from dpdq.weights import Weights

__all__ = ["RatioEstimator"]

_REMEMBERED_ROWS = 1_000


class RatioEstimator(Parameterised, abc.ABC):
    """Base of every estimator of log dP/dQ.

    Attributes
    ----------
    n_features_in_
        Columns seen in ``fit``: of the arrays, or of the tables.
    n_q_, n_p_
        Rows of q and of p that took part (rows of weight zero do not).
    feature_names_in_
        Names of the tables' columns, an array of Python strings; absent where the fit has seen
        arrays.
    features_
        The recipe that turned the tables into numbers (`dpdq.data.Features`); None for arrays.
    """

    n_features_in_: int
    n_q_: int
    n_p_: int
    features_: Features | None
    _takes_missing: ClassVar[bool] = False  # whether NaN in a cell means "missing" to it
    _takes_sparse: ClassVar[bool] = False  # whether _fit and _log_ratio take CSR arrays
    _view: ClassVar[str] = "dense"  # of tables: "dense" features, or "codes" for trees

    def __repr__(self) -> str:
        text = self._shown_parameters()
        if "n_features_in_" in vars(self):
            text += (
                f", fitted: log dP/dQ from {self.n_q_:,} rows of q and {self.n_p_:,} rows of p, "
                f"{self.n_features_in_:,} features"
            )
        return text

    # ------------------------------------------------------------- the role
    def fit(
        self,
        q: object,
        p: object,
        *,
        weights_q: object = None,
        weights_p: object = None,
        types: Mapping[str, str] | None = None,
        infinite: str = "refuse",
    ) -> Self:
        """Learn log dP/dQ from rows of q and rows of p.

        Parameters
        ----------
        q, p
            What one has, and what one wants. Arrays or tensors of shape (n_q, d) and (n_p, d);
            SciPy sparse matrices, which become dense up to 256 MiB except in `LogisticRatio` and
            `ClassifierRatio`, which take any; or tables (pandas, Polars, Arrow, a dict of
            columns) with the same columns, which go through the feature recipe.
        weights_q, weights_p
            Importance weights of the rows, shape (n_q,) and (n_p,); their scale does not matter,
            zero drops the row. Default uniform.
        types
            Of tables: column -> kind (``"numeric"``, ``"categorical"``, ...) where the kind
            inferred is wrong; integer codes are the commonest false numbers.
        infinite
            Of tables: ``"refuse"`` infinite numbers, or take them as ``"missing"``.

        Returns
        -------
        Self
            The estimator.

        Raises
        ------
        DataError
            A wrong shape, unequal columns, non-finite values, or fewer than 2 rows on a side.
        InputTypeError
            A table on one side and an array on the other, or what is neither.
        """
        vars(self).pop("n_features_in_", None)  # not fitted until all has gone well
        reader, q, p = RowReader.fit(q, p, types, infinite)
        manners: dict[str, Any] = {
            "view": self._view,
            "missing": self._takes_missing,
            "sparse": self._takes_sparse,
        }
        q_rows, p_rows = reader.rows(q, "q", **manners), reader.rows(p, "p", **manners)
        if q_rows.shape[1] != p_rows.shape[1]:
            raise DataError(
                f"q has {q_rows.shape[1]} columns and p has {p_rows.shape[1]}; "
                "expected the same columns in the same order"
            )
        w_q = as_weights(weights_q, q_rows.shape[0], "q")
        w_p = as_weights(weights_p, p_rows.shape[0], "p")
        if (w_q == 0).any():
            q_rows, w_q = q_rows[w_q > 0], w_q[w_q > 0]
        if (w_p == 0).any():
            p_rows, w_p = p_rows[w_p > 0], w_p[w_p > 0]
        for side, rows in (("q", q_rows), ("p", p_rows)):
            if rows.shape[0] < 2:
                raise DataError(f"{side} has {rows.shape[0]} row; a ratio needs at least 2 a side")
        self.features_ = reader.features
        self._fit(q_rows, p_rows, w_q, w_p)
        vars(self).pop("feature_names_in_", None)
        if reader.names is not None:
            self.feature_names_in_ = np.array(reader.names, dtype=object)
        self._row_reader = reader
        self._row_width = q_rows.shape[1]
        self._seen_rows = _some_hashes(q_rows), _some_hashes(p_rows)
        self.n_q_, self.n_p_ = q_rows.shape[0], p_rows.shape[0]
        self.n_features_in_ = reader.width or q_rows.shape[1]
        return self

    def log_ratio(self, x: object) -> Array:
        """Estimate log dP/dQ at new rows.

        Parameters
        ----------
        x
            Array of shape (n, d), or a table with the columns of the fit in any order.

        Returns
        -------
        ndarray of shape (n,)
            Natural logarithms; larger where p is more likely than q.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        DataError
            Other columns than in ``fit``, another kind of values, or non-finite ones.
        InputTypeError
            A table where the fit has seen arrays, or the other way round.
        """
        return self._log_ratio_of(self._read_rows(x, "x", "log_ratio"))

    def weights(self, x: object) -> Weights:
        """Importance weights of rows of q towards p, with mean one over these rows.

        Parameters
        ----------
        x
            Rows of q, as for `log_ratio`; best rows that the fit has not seen.

        Returns
        -------
        Weights
            They say whether they can be trusted (``ok``, ``status``).
        """
        from dpdq.weights import Weights

        return Weights(self.log_ratio(x))

    def diagnose(
        self,
        q: object,
        p: object,
        *,
        weights_q: object = None,
        weights_p: object = None,
    ) -> RatioDiagnostics:
        """Judge the fit on rows that it has not seen.

        Parameters
        ----------
        q, p
            Held-out rows of each side.
        weights_q, weights_p
            Importance weights of these rows; default uniform.

        Returns
        -------
        RatioDiagnostics
            Held-out loss, level, effective size, k-hat, overlap, and what to do next.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        DataError
            Rows that `log_ratio` refuses, or none on a side.
        """
        from dpdq.ratio.diagnostics import diagnose_log_ratios

        rows_q, rows_p = self._read_rows(q, "q", "diagnose"), self._read_rows(p, "p", "diagnose")
        return diagnose_log_ratios(
            self._log_ratio_of(rows_q),
            self._log_ratio_of(rows_p),
            weights_q=weights_q,
            weights_p=weights_p,
            share_seen=max(
                _share_among(self._seen_rows[0], rows_q), _share_among(self._seen_rows[1], rows_p)
            ),
        )

    def share_seen(self, x: object) -> float:
        """Share of the fit's rows of q (of at most 1,000 of them) that stand among these rows.

        Near one where ``x`` are the rows of the fit themselves, on which nothing should be judged;
        above zero too where a discrete law repeats its rows.

        Parameters
        ----------
        x
            Rows as for `log_ratio`.

        Returns
        -------
        float
        """
        return _share_among(self._seen_rows[0], self._read_rows(x, "x", "share_seen"))

    def _read_rows(self, x: object, side: str, what: str) -> Array:
        if "n_features_in_" not in vars(self):
            raise NotFittedError(
                f"{type(self).__name__} is not fitted; call fit(q, p) before {what}"
            )
        return self._row_reader.rows(
            x,
            side,
            view=self._view,
            missing=self._takes_missing,
            sparse=self._takes_sparse,
            width=self._row_width,
        )

    def _log_ratio_of(self, rows: Array) -> Array:
        return self._log_ratio(rows) if rows.shape[0] else np.zeros(0)

    # ------------------------------------------------------------- to be written
    @abc.abstractmethod
    def _fit(self, q: Array, p: Array, weights_q: Array, weights_p: Array) -> None:
        """Learn from checked rows and weights of mean one."""

    @abc.abstractmethod
    def _log_ratio(self, x: Array) -> Array:
        """Return log r at checked rows."""


def _some_hashes(rows: Array) -> Array:
    """Sorted content hashes of at most a thousand rows, evenly spaced."""
    n = rows.shape[0]
    chosen = np.unique(np.linspace(0, n - 1, min(n, _REMEMBERED_ROWS)).astype(np.int64))
    return np.unique(content_hash(rows[chosen]))


def _share_among(hashes: Array, rows: Array) -> float:
    """Share of remembered rows that stand among the given ones."""
    return float(np.isin(hashes, content_hash(rows)).mean())
