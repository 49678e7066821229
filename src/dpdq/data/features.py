"""The one recipe that turns mixed columns into numbers.

`Features` is fitted once on rows of both sides and gives two views of any table with these
columns: `Features.dense` for linear models and kernels, `Features.codes` for trees. Every feature
belongs to one source column and has a rule in words (`Features.describe`), and the fitted recipe
is plain JSON. What all rules have in common stands in `feature_rules`, each kind's rule in
`number_features`, `level_features`, `clock_features`, `text_features` and `vector_features`.

The recipe is symmetric in q and p to the last bit, and a row's features depend on the fitted
recipe and on that row alone, never on its batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from dpdq.data import _values
from dpdq.data.clock_features import DatetimeRule
from dpdq.data.feature_rules import ColumnRule, infinite_message
from dpdq.data.level_features import CategoricalRule
from dpdq.data.number_features import BooleanRule, NumericRule
from dpdq.data.schema import KINDS, Column
from dpdq.data.text_features import TextRule
from dpdq.data.vector_features import EmbeddingRule
from dpdq.errors import DataError, NotFittedError, OptionError

__all__ = ["Features", "check_finite"]

_RULES: dict[str, Any] = {
    "numeric": NumericRule,
    "boolean": BooleanRule,
    "categorical": CategoricalRule,
    "datetime": DatetimeRule,
    "text": TextRule,
    "embedding": EmbeddingRule,
}


class Features:
    """The feature recipe: fitted on pooled rows of q and p, applied to any rows.

    Misleads where the rows of the fit are few or unlike the rest: levels that they do not hold
    count as other, and a column that is constant in them has no dense feature.

    Parameters
    ----------
    infinite
        What to do with infinite numbers: ``"refuse"`` raises, ``"missing"`` treats them as
        missing.

    Attributes
    ----------
    columns : list of Column
        The source columns.
    dense_names, codes_names : list of str
        Names of the features of each view.
    dense_columns, codes_columns : numpy.ndarray
        Index of each feature's source column in ``columns``.
    categorical_codes : numpy.ndarray
        Boolean; which features of `codes` are codes of levels.

    Notes
    -----
    Cost: O(n) time for each column, O(n d) memory for the d features of n rows. 100,000 rows of 20
    mixed columns take about 0.3 s a view.

    Examples
    --------
    >>> import pyarrow as pa
    >>> from dpdq.data.schema import infer_columns
    >>> q = pa.table({"age": [30, 40, 50, None], "town": ["Uri", "Zug", "Uri", "Zug"]})
    >>> p = pa.table({"age": [31, 41, 55, 60], "town": ["Zug", "Uri", "Zug", None]})
    >>> features = Features().fit(q, p, infer_columns(q, p))
    >>> features.dense_names
    ['age', 'age (missing)', 'town=Zug', 'town=Uri', 'town (missing)']
    >>> features.dense(p).shape
    (4, 5)
    >>> features.codes(pa.table({"age": [33.5, None], "town": ["Zug", "Bern"]})).tolist()
    [[33.5, 0.0], [nan, 2.0]]
    """

    def __init__(self, *, infinite: str = "refuse") -> None:
        self.infinite = infinite
        self._rules: list[ColumnRule] | None = None

    def fit(self, q: pa.Table, p: pa.Table, columns: Sequence[Column]) -> Features:
        """Fit every column's rule to the pooled rows.

        Parameters
        ----------
        q, p
            Rows of each side: all of them, or a sample.
        columns
            The columns to use, with their kinds.

        Returns
        -------
        Features
            This object.

        Raises
        ------
        OptionError
            If ``infinite`` or a kind is unknown.
        DataError
            If there is no row, a column is absent, or a value cannot be read as its kind.
        """
        if self.infinite not in ("refuse", "missing"):
            raise OptionError(
                f"Unknown infinite {self.infinite!r}. Choose one of 'refuse', 'missing'."
            )
        if q.num_rows + p.num_rows == 0:
            raise DataError("both sides are empty; features need rows to be fitted on")
        rules: list[ColumnRule] = []
        for column in columns:
            if column.kind not in KINDS:
                choices = ", ".join(map(repr, KINDS))
                raise OptionError(
                    f"Unknown kind {column.kind!r} for column {column.name!r}. "
                    f"Choose one of {choices}."
                )
            sides = (
                _values.column_array(q, column.name, "q"),
                _values.column_array(p, column.name, "p"),
            )
            if column.kind in ("numeric", "embedding"):
                rules.append(_RULES[column.kind].fit(column, *sides, self.infinite))
            else:
                rules.append(_RULES[column.kind].fit(column, *sides))
        self._rules = rules
        return self

    def dense(self, table: pa.Table | pa.RecordBatch) -> np.ndarray:
        """Features for linear models and kernels.

        Parameters
        ----------
        table
            Rows with the columns of the fit, in any order.

        Returns
        -------
        numpy.ndarray
            float64, shape (n, d), finite.

        Raises
        ------
        NotFittedError
            Before `fit`.
        DataError
            If a column is absent or a value cannot be read as its kind.
        """
        rules = self._fitted()
        out = np.zeros((table.num_rows, sum(len(rule.dense_rules) for rule in rules)))
        start = 0
        for rule in rules:
            stop = start + len(rule.dense_rules)
            name = rule.column.name
            values = _values.column_array(table, name)
            rule.fill_dense(values, out[:, start:stop], f"column {name!r}")
            start = stop
        return out

    def codes(self, table: pa.Table | pa.RecordBatch) -> np.ndarray:
        """Features for trees: numbers as they are, codes of levels, NaN where missing.

        Parameters
        ----------
        table
            Rows with the columns of the fit, in any order.

        Returns
        -------
        numpy.ndarray
            float64, shape (n, c).

        Raises
        ------
        NotFittedError
            Before `fit`.
        DataError
            If a column is absent or a value cannot be read as its kind.
        """
        rules = self._fitted()
        out = np.empty((table.num_rows, sum(len(rule.codes_rules) for rule in rules)))
        start = 0
        for rule in rules:
            stop = start + len(rule.codes_rules)
            name = rule.column.name
            values = _values.column_array(table, name)
            rule.fill_codes(values, out[:, start:stop], f"column {name!r}")
            start = stop
        return out

    def _fitted(self) -> list[ColumnRule]:
        if self._rules is None:
            raise NotFittedError("Features is not fitted; call fit(q, p, columns) first")
        return self._rules

    @property
    def columns(self) -> list[Column]:
        """The source columns."""
        return [rule.column for rule in self._fitted()]

    @property
    def dense_names(self) -> list[str]:
        """Names of the dense features."""
        return [name for rule in self._fitted() for name, _ in rule.dense_rules]

    @property
    def dense_columns(self) -> np.ndarray:
        """Index of each dense feature's source column."""
        widths = [len(rule.dense_rules) for rule in self._fitted()]
        return np.repeat(np.arange(len(widths)), widths)

    @property
    def codes_names(self) -> list[str]:
        """Names of the features for trees."""
        return [name for rule in self._fitted() for name, _ in rule.codes_rules]

    @property
    def codes_columns(self) -> np.ndarray:
        """Index of the source column of each feature for trees."""
        widths = [len(rule.codes_rules) for rule in self._fitted()]
        return np.repeat(np.arange(len(widths)), widths)

    @property
    def categorical_codes(self) -> np.ndarray:
        """Which features for trees are codes of levels."""
        kinds = np.array([rule.column.kind == "categorical" for rule in self._fitted()], bool)
        return kinds[self.codes_columns]

    def describe(self) -> list[dict[str, str]]:
        """Say where every feature comes from and how.

        Returns
        -------
        list of dict
            Keys ``view`` ("dense" or "codes"), ``feature``, ``column``, ``kind``, ``rule``.
        """
        return [
            {
                "view": view,
                "feature": name,
                "column": rule.column.name,
                "kind": rule.column.kind,
                "rule": words,
            }
            for view in ("dense", "codes")
            for rule in self._fitted()
            for name, words in (rule.dense_rules if view == "dense" else rule.codes_rules)
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return the fitted recipe as JSON types; `from_dict` rebuilds it exactly."""
        return {
            "version": 1,
            "infinite": self.infinite,
            "columns": [
                {
                    "name": rule.column.name,
                    "kind": rule.column.kind,
                    "type_q": rule.column.type_q,
                    "type_p": rule.column.type_p,
                    "rule": rule.to_dict(),
                }
                for rule in self._fitted()
            ],
        }

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> Features:
        """Rebuild a fitted recipe from `to_dict`.

        Raises
        ------
        DataError
            If the state is of another version.
        """
        if state.get("version") != 1:
            raise DataError(
                f"the feature recipe has version {state.get('version')!r}; "
                "this dpdq reads version 1"
            )
        features = cls(infinite=state["infinite"])
        rules: list[ColumnRule] = []
        for part in state["columns"]:
            column = Column(part["name"], part["kind"], part["type_q"], part["type_p"])
            rules.append(_RULES[column.kind].from_dict(column, part["rule"]))
        features._rules = rules
        return features

    def __repr__(self) -> str:
        if self._rules is None:
            return f"Features(infinite={self.infinite!r})"
        return (
            f"Features(infinite={self.infinite!r}): {len(self._rules)} columns -> "
            f"{len(self.dense_names)} dense features, {len(self.codes_names)} for trees"
        )


def check_finite(
    batch: pa.Table | pa.RecordBatch,
    first_row: int,
    columns: Sequence[Column],
    side: str,
) -> None:
    """Refuse infinite numbers, with their column, number and first row.

    Parameters
    ----------
    batch
        Rows of one side.
    first_row
        Number of the batch's first row in its side.
    columns
        Columns to look at; those that are numeric or embeddings are.
    side
        ``"q"`` or ``"p"``.

    Raises
    ------
    DataError
        ``column 'age' of q: 3 of 1000 values are infinite (first at row 17); drop them or pass
        infinite='missing'``.

    Notes
    -----
    Cost: O(n) time for each column, O(n) memory.

    Examples
    --------
    >>> import pyarrow as pa
    >>> column = Column("age", "numeric", "double", "double")
    >>> check_finite(pa.table({"age": [1.0, None]}), 0, [column], "q")
    """
    for column in columns:
        if column.kind not in ("numeric", "embedding"):
            continue
        values = _values.column_array(batch, column.name, side)
        where = f"column {column.name!r} of {side}"
        rows = np.arange(first_row, first_row + batch.num_rows)
        if column.kind == "embedding":
            wrong = np.isinf(_values.vectors(values, where)).any(axis=1)
        else:
            wrong = np.isinf(_values.numbers(values, where, rows))
        if wrong.any():
            first = first_row + int(np.argmax(wrong))
            raise DataError(infinite_message(where, int(wrong.sum()), wrong.size, first, first_row))
