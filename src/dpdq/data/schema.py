"""Which columns both sides have, and what each of them holds.

A column of a comparison has a *kind*, the same on both sides, which decides how it becomes
features and which tests it gets:

    numeric       numbers whose order and distance mean something
    boolean       true and false
    categorical   levels without an order
    datetime      instants
    text          free text, different in most rows
    embedding     vectors of one length

The physical types need not agree: integers become doubles when one of them is missing, and a date
is a string in a CSV file. `infer_columns` finds the one kind that fits both sides;
`schema_difference` says where the types changed all the same. Integer codes (a postal code, an
error number) look like numbers and cannot be told from them: name those in ``types``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.types as pt

from dpdq.data import _values
from dpdq.errors import DataError, OptionError

__all__ = [
    "KINDS",
    "Column",
    "ignored_columns",
    "infer_columns",
    "level_changes",
    "schema_difference",
    "type_family",
]

KINDS = ("numeric", "boolean", "categorical", "datetime", "text", "embedding")

_TEXT_LENGTH = 24  # mean characters above which distinct strings with spaces are text


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of both sides: its name, its kind, and its type on each side."""

    name: str
    kind: str
    type_q: str
    type_p: str


def infer_columns(
    q: pa.Table,
    p: pa.Table,
    *,
    types: Mapping[str, str] | None = None,
    rows_q: np.ndarray | None = None,
    rows_p: np.ndarray | None = None,
) -> list[Column]:
    """Find the kind of every column that both sides have, from rows of both.

    The rules, in this order:

    - A type without values (null) takes the other side's kind; null on both sides is categorical.
    - Lists of numbers are ``embedding`` and must have one length.
    - Dates and timestamps are ``datetime``; so are strings that all are ISO 8601 dates or times,
      on one side or on both.
    - Booleans are ``boolean``; beside numbers that are all 0 or 1, or strings that all say true
      or false (yes, no, t, f, y, n, 0, 1), both sides are ``boolean``; beside other numbers both
      are ``numeric``, beside other strings ``categorical``.
    - Integers, floats, decimals, times of day and durations are ``numeric``, also where they look
      like codes: this cannot be known, so say ``types={"zip": "categorical"}``. Numbers that a
      dictionary encodes (a categorical of pandas) are ``categorical``.
    - Numbers beside strings are ``numeric`` if every string is a number, else ``categorical``.
    - Strings are ``text`` if they are longer than 24 characters on average, most are distinct and
      most contain a space; else ``categorical``, also where all are digits.

    Columns that fit no kind, or whose sides have no kind in common, are left out;
    `ignored_columns` gives the reasons. The answer is the same with q and p exchanged, apart from
    the types' sides.

    Misleads where the rows looked at are not like the rest: a string that is no date in a later
    row is refused there.

    Parameters
    ----------
    q, p
        Rows of each side: all of them, or a sample.
    types
        Kinds that override the rules, column name -> one of `KINDS`.
    rows_q, rows_p
        Numbers of the rows in their files, for error messages; None counts from 0.

    Returns
    -------
    list of Column
        In the order of q.

    Raises
    ------
    OptionError
        If ``types`` names an unknown kind.
    DataError
        If ``types`` names a column that is not on both sides or a kind that its values do not
        have (naming the first such value and its row), or vectors differ in length.

    Notes
    -----
    Cost: O(n) time for each column, O(n) memory for one column.

    Examples
    --------
    >>> import pyarrow as pa
    >>> q = pa.table({"age": [31, 40], "day": ["2024-01-05", "2024-02-01"], "zip": [1010, 8001]})
    >>> p = pa.table({"age": [31.5, None], "day": ["2024-03-01", None], "zip": [8001, 9000]})
    >>> [column.kind for column in infer_columns(q, p, types={"zip": "categorical"})]
    ['numeric', 'datetime', 'categorical']
    """
    types = dict(types or {})
    _check_types(types, q.schema, p.schema)
    columns = []
    for name in _common_names(q.schema, p.schema):
        sides = [_Side(q, name, "q", rows_q), _Side(p, name, "p", rows_p)]
        if name in types:
            kind = types[name]
            for side in sides:
                side.require(kind)
        else:
            kind = _kind_of(sides[0], sides[1])
        if kind is None:
            continue
        if kind == "embedding":
            _check_lengths(name, sides)
        columns.append(Column(name, kind, sides[0].type_name, sides[1].type_name))
    return columns


def ignored_columns(
    q: pa.Table, p: pa.Table, *, types: Mapping[str, str] | None = None
) -> list[dict[str, str]]:
    """Name the common columns that `infer_columns` leaves out, each with its reason.

    Parameters
    ----------
    q, p
        Rows of each side, as given to `infer_columns`.
    types
        Kinds that override the rules.

    Returns
    -------
    list of dict
        ``{"name": ..., "reason": ...}`` in the order of q.

    Notes
    -----
    Cost: O(n) time for each column, O(n) memory for one column.

    Examples
    --------
    >>> import pyarrow as pa
    >>> t = pa.table({"x": [{"a": 1}]})
    >>> ignored_columns(t, t)
    [{'name': 'x', 'reason': 'no kind fits type struct<a: int64>'}]
    """
    out = []
    for name in _common_names(q.schema, p.schema):
        if types and name in types:
            continue
        sides = [_Side(q, name, "q", None), _Side(p, name, "p", None)]
        strange = [side for side in sides if side.family is None]
        if strange:
            reason = f"no kind fits type {strange[0].type_name}"
        elif _kind_of(sides[0], sides[1]) is None:
            reason = f"{sides[0].type_name} in q and {sides[1].type_name} in p have no common kind"
        else:
            continue
        out.append({"name": name, "reason": reason})
    return out


def schema_difference(q: pa.Schema, p: pa.Schema) -> dict[str, list[Any]]:
    """Say which columns stand on one side only and which changed their type.

    How strings are stored (dictionary encoded, large) is no change; int64 beside double is one,
    although both are compared as numbers.

    Parameters
    ----------
    q, p
        Schemas of both sides.

    Returns
    -------
    dict
        ``only_q`` and ``only_p``, names in file order, and ``changed_types``, a list of
        ``{"name", "type_q", "type_p"}``.

    Notes
    -----
    Cost: O(columns) time and memory.

    Examples
    --------
    >>> import pyarrow as pa
    >>> q = pa.schema({"a": pa.int64(), "b": pa.string()})
    >>> p = pa.schema({"a": pa.float64(), "c": pa.string()})
    >>> difference = schema_difference(q, p)
    >>> difference["only_q"], difference["only_p"]
    (['b'], ['c'])
    >>> difference["changed_types"]
    [{'name': 'a', 'type_q': 'int64', 'type_p': 'double'}]
    """
    changed = []
    for name in _common_names(q, p):
        type_q, type_p = (_values.type_name(side.field(name).type) for side in (q, p))
        if type_q != type_p:
            changed.append({"name": name, "type_q": type_q, "type_p": type_p})
    in_q, in_p = set(q.names), set(p.names)
    return {
        "only_q": [name for name in q.names if name not in in_p],
        "only_p": [name for name in p.names if name not in in_q],
        "changed_types": changed,
    }


def level_changes(
    q: Mapping[str, int], p: Mapping[str, int], *, limit: int = 20
) -> dict[str, dict[str, Any] | None]:
    """Say which levels of a categorical column are new in p and which vanished from q.

    Misleads on small samples: a rare level is absent by chance, so look at the shares.

    Parameters
    ----------
    q, p
        Level -> number of rows, on each side.
    limit
        How many levels to name, the most frequent first.

    Returns
    -------
    dict
        ``new``: ``{"levels", "n_levels", "share_p"}`` or None; ``vanished``: the same with
        ``share_q``. Shares are of the rows counted on that side.

    Notes
    -----
    Cost: O(levels log levels) time, O(levels) memory.

    Examples
    --------
    >>> level_changes({"a": 3, "b": 1}, {"a": 1, "c": 3})["new"]
    {'levels': ['c'], 'n_levels': 1, 'share_p': 0.75}
    """
    return {
        "new": _absent(p, q, limit, "share_p"),
        "vanished": _absent(q, p, limit, "share_q"),
    }


def type_family(kind: pa.DataType) -> str | None:
    """Name the family of a type: null, boolean, number, string, time or list; None for others.

    Parameters
    ----------
    kind
        The type of a column, dictionary encoded or not.

    Returns
    -------
    str or None

    Examples
    --------
    >>> import pyarrow as pa
    >>> type_family(pa.int16()), type_family(pa.dictionary(pa.int32(), pa.string()))
    ('number', 'string')
    """
    plain = _values.value_type(kind)
    if pt.is_null(plain):
        return "null"
    if pt.is_boolean(plain):
        return "boolean"
    if _values.is_number(plain):
        return "number"
    if _values.is_text(plain):
        return "string"
    if _values.is_time(plain):
        return "time"
    return "list" if _values.is_number_list(plain) else None


def _absent(
    here: Mapping[str, int], there: Mapping[str, int], limit: int, share: str
) -> dict[str, Any] | None:
    found = [level for level, count in here.items() if count > 0 and not there.get(level)]
    if not found:
        return None
    found.sort(key=lambda level: (-here[level], level))
    rows = sum(here[level] for level in found)
    return {"levels": found[:limit], "n_levels": len(found), share: rows / sum(here.values())}


def _common_names(q: pa.Schema, p: pa.Schema) -> list[str]:
    in_p = set(p.names)
    return [name for name in q.names if name in in_p]


def _check_types(types: Mapping[str, str], q: pa.Schema, p: pa.Schema) -> None:
    for name, kind in types.items():
        if kind not in KINDS:
            choices = ", ".join(map(repr, KINDS))
            raise OptionError(
                f"Unknown kind {kind!r} for column {name!r}. Choose one of {choices}."
            )
        absent = [side for side, schema in (("q", q), ("p", p)) if name not in schema.names]
        if absent:
            choices = ", ".join(map(repr, _common_names(q, p)[:20]))
            raise DataError(
                f"types names column {name!r}, which is not in {' or '.join(absent)}; "
                f"columns on both sides are {choices}"
            )


class _Side:
    """One column on one side."""

    def __init__(self, table: pa.Table, name: str, side: str, rows: np.ndarray | None) -> None:
        kind = table.schema.field(name).type
        self.values = _values.column_array(table, name, side)
        self.where = f"column {name!r} of {side}"
        self.rows = rows
        self.type_name = _values.type_name(kind)
        self.encoded = pt.is_dictionary(self.values.type)
        self.family = type_family(self.values.type)

    def require(self, kind: str) -> None:
        """Refuse values that cannot be read as the kind that was asked for."""
        try:
            if kind == "numeric":
                _values.numbers(self.values, self.where, self.rows)
            elif kind == "boolean":
                _values.booleans(self.values, self.where, self.rows)
            elif kind == "categorical":
                _values.labels(self.values.slice(0, 0), self.where)
            elif kind == "datetime":
                _values.instants_array(self.values, self.where, self.rows)
            elif kind == "text":
                _values.texts(self.values.slice(0, 0), self.where)
            elif kind == "embedding":
                _values.vectors(self.values, self.where)
        except DataError as error:
            raise DataError(f"{error}; it cannot be {kind}") from None

    def fits(self, kind: str) -> bool:
        """Whether every value can be read as a kind."""
        try:
            self.require(kind)
        except DataError:
            return False
        return True

    def looks_like_dates(self) -> bool:
        """Whether the strings are ISO 8601 and there is at least one."""
        head = _values.text_values(self.values.slice(0, 100)).drop_null()
        if len(head) and not _values.instants_parse(head):
            return False
        return self.values.null_count < len(self.values) and self.fits("datetime")


def _kind_of(q: _Side, p: _Side) -> str | None:
    families = {q.family, p.family}
    if None in families:
        return None
    families.discard("null")
    if not families:
        return "categorical"
    typed = [side for side in (q, p) if side.family != "null"]
    if families == {"list"}:
        return "embedding"
    if "list" in families:
        return None
    strings = [side for side in typed if side.family == "string"]
    if "time" in families:
        if families == {"time"}:
            return "datetime"
        if families == {"time", "string"}:
            return "datetime" if strings[0].fits("datetime") else "categorical"
        return None
    if any(side.encoded and side.family == "number" for side in typed):
        return "categorical"
    if "boolean" in families:
        if all(side.fits("boolean") for side in typed):
            return "boolean"
        return "categorical" if strings else "numeric"
    if families == {"number"}:
        return "numeric"
    if families == {"number", "string"}:
        return "numeric" if strings[0].fits("numeric") else "categorical"
    return _kind_of_strings(strings)


def _kind_of_strings(sides: list[_Side]) -> str:
    filled = [side for side in sides if side.values.null_count < len(side.values)]
    if filled and all(side.looks_like_dates() for side in filled):
        return "datetime"
    counts = np.zeros(3)  # values, characters, values with a space
    distinct = 0
    for side in filled:
        codes, levels = _values.labels(side.values)
        repeats = np.bincount(codes[codes >= 0], minlength=len(levels))
        lengths = _values.pc.utf8_length(levels).to_numpy(zero_copy_only=False)
        spaces = _values.pc.match_substring(levels, " ").to_numpy(zero_copy_only=False)
        counts += [repeats.sum(), repeats @ lengths, repeats @ spaces]
        distinct += int(np.count_nonzero(repeats))
    rows, characters, with_space = counts
    is_text = characters > _TEXT_LENGTH * rows and distinct > 0.5 * rows and with_space > 0.5 * rows
    return "text" if is_text else "categorical"


def _check_lengths(name: str, sides: list[_Side]) -> None:
    lengths = []
    for side in sides:
        if side.family == "list":
            vectors = _values.vectors(side.values, side.where)
            if not np.isnan(vectors).all():
                lengths.append(vectors.shape[1])
    if len(set(lengths)) > 1:
        raise DataError(
            f"column {name!r} holds vectors of length {lengths[0]} in q and {lengths[1]} in p; "
            "all must have one length"
        )
