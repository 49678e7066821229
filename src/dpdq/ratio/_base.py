"""The role "ratio estimator": ``fit(q, p)``, then ``log_ratio(x)``.

The manners are scikit-learn's (``get_params``, ``set_params``, clone, repr, pickle, trailing
underscores, ``n_features_in_``) without importing it: ``__init__`` only stores its arguments, all
checks and work happen in ``fit``. An estimator is written by giving the two methods ``_fit`` and
``_log_ratio`` on arrays that have already been checked.
"""

from __future__ import annotations

import abc
import copy
import inspect
from typing import Any, Self

import numpy as np

from dpdq.errors import DataError, NotFittedError, OptionError
from dpdq.ratio._common import Array, as_rows, as_weights

__all__ = ["RatioEstimator", "clone_estimator"]


class RatioEstimator(abc.ABC):
    """Base of every estimator of log dP/dQ.

    Attributes
    ----------
    n_features_in_
        Columns seen in ``fit``.
    n_q_, n_p_
        Rows of q and of p that took part (rows of weight zero do not).
    """

    n_features_in_: int
    n_q_: int
    n_p_: int
    _takes_missing = False  # whether NaN in a cell means "missing" to this estimator

    # ------------------------------------------------------------- parameters
    @classmethod
    def _parameter_names(cls) -> list[str]:
        named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        parameters = inspect.signature(cls.__init__).parameters.values()
        return [each.name for each in parameters if each.name != "self" and each.kind in named]

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The constructor's arguments by name; those of a nested estimator as ``outer__inner``."""
        params: dict[str, Any] = {}
        for name in self._parameter_names():
            value = getattr(self, name)
            params[name] = value
            nested = getattr(value, "get_params", None)
            if deep and nested is not None and not isinstance(value, type):
                params.update({f"{name}__{key}": item for key, item in nested().items()})
        return params

    def set_params(self, **params: Any) -> Self:
        """Change constructor arguments by name.

        Raises
        ------
        OptionError
            A name is not an argument of this estimator.
        """
        names = self._parameter_names()
        for key, value in params.items():
            name, _, inner = key.partition("__")
            if name not in names:
                raise OptionError(
                    f"Unknown parameter {name!r} of {type(self).__name__}. "
                    f"Choose one of {', '.join(map(repr, names))}."
                )
            if inner:
                getattr(self, name).set_params(**{inner: value})
            else:
                setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        defaults = inspect.signature(type(self).__init__).parameters
        changed = []
        for name in self._parameter_names():
            value = getattr(self, name)
            default = defaults[name].default
            if value is default:
                continue
            shown = repr(value)
            if shown != repr(default):
                changed.append(f"{name}={shown if len(shown) < 70 else type(value).__name__}")
        text = f"{type(self).__name__}({', '.join(changed)})"
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
    ) -> Self:
        """Learn log dP/dQ from rows of q and rows of p.

        Parameters
        ----------
        q, p
            Arrays of shape (n_q, d) and (n_p, d): what one has, and what one wants.
        weights_q, weights_p
            Importance weights of the rows, shape (n_q,) and (n_p,); their scale does not matter,
            zero drops the row. Default uniform.

        Returns
        -------
        Self
            The estimator.

        Raises
        ------
        DataError
            A wrong shape, unequal widths, non-finite values, or fewer than 2 rows on a side.
        """
        q_rows = as_rows(q, "q", missing=self._takes_missing)
        p_rows = as_rows(p, "p", missing=self._takes_missing)
        if q_rows.shape[1] != p_rows.shape[1]:
            raise DataError(
                f"q has {q_rows.shape[1]} columns and p has {p_rows.shape[1]}; "
                "expected the same columns in the same order"
            )
        w_q = as_weights(weights_q, len(q_rows), "q")
        w_p = as_weights(weights_p, len(p_rows), "p")
        if (w_q == 0).any():
            q_rows, w_q = q_rows[w_q > 0], w_q[w_q > 0]
        if (w_p == 0).any():
            p_rows, w_p = p_rows[w_p > 0], w_p[w_p > 0]
        for side, rows in (("q", q_rows), ("p", p_rows)):
            if len(rows) < 2:
                raise DataError(f"{side} has {len(rows)} row; a ratio needs at least 2 a side")
        self._fit(q_rows, p_rows, w_q, w_p)
        self.n_features_in_ = q_rows.shape[1]
        self.n_q_, self.n_p_ = len(q_rows), len(p_rows)
        return self

    def log_ratio(self, x: object) -> Array:
        """Estimate log dP/dQ at new rows.

        Parameters
        ----------
        x
            Array of shape (n, d).

        Returns
        -------
        ndarray of shape (n,)
            Natural logarithms; larger where p is more likely than q.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        DataError
            Another width than in ``fit``, or non-finite values.
        """
        if "n_features_in_" not in vars(self):
            raise NotFittedError(
                f"{type(self).__name__} is not fitted; call fit(q, p) before log_ratio"
            )
        rows = as_rows(x, "x", width=self.n_features_in_, missing=self._takes_missing)
        if len(rows) == 0:
            return np.zeros(0)
        return self._log_ratio(rows)

    # ------------------------------------------------------------- to be written
    @abc.abstractmethod
    def _fit(self, q: Array, p: Array, weights_q: Array, weights_p: Array) -> None:
        """Learn from checked rows and weights of mean one."""

    @abc.abstractmethod
    def _log_ratio(self, x: Array) -> Array:
        """Return log r at checked rows."""


def clone_estimator(estimator: RatioEstimator) -> RatioEstimator:
    """An unfitted copy with copies of the same parameters.

    A random generator is copied too, so that clones fitted side by side draw alike.
    """
    params = estimator.get_params(deep=False)
    return type(estimator)(**{name: copy.deepcopy(value) for name, value in params.items()})
