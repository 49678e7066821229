"""The two sides of a comparison: opened, checked, scanned and sampled.

A scan reads every row once and keeps 64 bits a row (a hash of its content, one of its group), with
which equal rows, groups and files that share rows are found exactly. Everything that learns uses a
sample of the rows; everything that scores or counts uses all of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from dpdq._optional import is_torch
from dpdq._random import mix64
from dpdq.comparison.options import Options
from dpdq.data import Column, open_source, row_hashes
from dpdq.errors import DataError, FileError, InputTypeError
from dpdq.passes import Pass

if TYPE_CHECKING:
    import pyarrow as pa

    from dpdq.data import Source

__all__ = ["Plan", "Side", "encode", "open_sides", "plan_columns", "scan_both", "time_values"]


@dataclasses.dataclass
class Side:
    """One side: its rows and what is known of each.

    Attributes
    ----------
    name
        ``"q"`` or ``"p"``.
    source
        The rows.
    rows
        Sorted numbers of the sampled rows.
    content, group
        Hashes of every row's features and group; `forget_content` keeps those of the sample.
    time
        Time of every row.
    folds
        Fold of every row.
    log_ratio
        Cross-fitted log dP/dQ of every row.
    """

    name: str
    source: Source
    rows: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.int64))
    content: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.uint64))
    group: np.ndarray | None = None
    time: np.ndarray | None = None
    folds: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.uint8))
    log_ratio: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0))

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return self.source.n_rows

    def forget_content(self) -> None:
        """Keep the content hashes of the sampled rows only: eight bytes a row are given back."""
        self.content = self.content[self.rows].copy()

    def has(self, column: str | None) -> bool:
        """Whether this side has the column."""
        return column is not None and column in self.source.schema.names


@dataclasses.dataclass(frozen=True)
class Plan:
    """Which columns are compared, and why the others are not."""

    features: list[str]
    only_q: list[str]
    only_p: list[str]
    ignored: list[dict[str, str]]
    warnings: list[str]


def encode(data: Any, encoder: Callable[[Any], Any] | None, side: str) -> Any:
    """Turn images, texts or anything else into features, by the user's own callable.

    Raises
    ------
    DataError
        If what the encoder returns is not one row of numbers an item.
    """
    if encoder is None:
        return data
    if isinstance(data, (str, bytes)) or not hasattr(data, "__len__"):
        raise InputTypeError(
            f"{side}: with an encoder give a list, an array or a tensor of items, "
            f"not {type(data).__name__}"
        )
    parts = []
    for start in range(0, len(data), 256):
        block = data[start : start + 256]
        out = encoder(block)
        if is_torch(out):
            out = out.detach().cpu().numpy()
        out = np.asarray(out, dtype=np.float64)
        if out.ndim != 2 or len(out) != len(block):
            raise DataError(
                f"{side}: the encoder returned shape {out.shape} for {len(block)} items; "
                "it must return one row of numbers an item"
            )
        parts.append(out)
    if not parts:
        raise DataError(f"{side} is empty: there is nothing to encode")
    return np.concatenate(parts)


def open_sides(q: Any, p: Any, options: Options) -> tuple[Side, Side]:
    """Open both sides; a side that cannot be opened closes the other."""
    have = _open(q, "q", options)
    try:
        want = _open(p, "p", options)
    except BaseException:
        have.close()
        raise
    return Side("q", have), Side("p", want)


def _open(data: Any, side: str, options: Options) -> Source:
    data = encode(data, options.encoder, side)
    try:
        return open_source(data, side=side)
    except FileError:
        raise
    except DataError as error:
        if options.columns is None:
            raise
        # A column that is not compared may be of a type that cannot be read: leave it out.
        try:
            return open_source(data, side=side, columns=[*options.columns, *options.roles])
        except DataError:
            raise error from None


def plan_columns(q: Side, p: Side, options: Options) -> Plan:
    """Decide which columns are features, and refuse what cannot be compared.

    Raises
    ------
    DataError
        If a named column is absent, a side is too small, or no column is common.
    """
    for side in (q, p):
        if side.n_rows < 2:
            what = "is empty" if side.n_rows == 0 else "has one row"
            raise DataError(f"{side.source.label} {what}; a comparison needs at least two rows")
    names_q, names_p = list(q.source.schema.names), list(p.source.schema.names)
    common = [name for name in names_q if name in names_p]
    warnings: list[str] = []
    for name, role in options.roles.items():
        absent = [side for side in (q, p) if not side.has(name)]
        if len(absent) == 2:
            raise DataError(
                f"the {role} column {name!r} is on neither side; "
                f"{q.source.label} has {_some(names_q)}"
            )
        if absent and role in ("group", "time"):
            raise DataError(
                f"the {role} column {name!r} is absent from {absent[0].source.label}; "
                "it must stand on both sides"
            )
        if absent and role == "label" and absent[0] is q:
            warnings.append(
                f"The label {name!r} is absent from q, so nothing can be said about it."
            )
        if absent and role in ("prediction", "prediction_proba") and absent[0] is q:
            warnings.append(
                f"The prediction {name!r} is absent from q, so its performance is not estimated."
            )
    if options.columns is not None:
        for name in options.columns:
            for side, names in ((q, names_q), (p, names_p)):
                if name not in names:
                    raise DataError(
                        f"column {name!r} is absent from {side.source.label}, "
                        f"which has {_some(names)}"
                    )
    for name in options.types:
        if name not in common:
            raise DataError(f"types names column {name!r}, which is not on both sides")
    chosen = options.columns if options.columns is not None else common
    ignored = [
        {"name": name, "reason": f"it is the {options.roles[name].replace('_', ' ')}"}
        for name in dict.fromkeys(names_q + names_p)
        if name in options.roles
    ]
    if options.columns is not None:
        ignored += [
            {"name": name, "reason": "not among the chosen columns"}
            for name in common
            if name not in options.columns and name not in options.roles
        ]
    features = [name for name in chosen if name not in options.roles]
    if not features:
        raise DataError(
            f"no column is common to both sides; q has {_some(names_q)}, p has {_some(names_p)}"
        )
    return Plan(
        features=features,
        only_q=[name for name in names_q if name not in names_p],
        only_p=[name for name in names_p if name not in names_q],
        ignored=ignored,
        warnings=warnings,
    )


def _some(names: Sequence[str], most: int = 8) -> str:
    shown = ", ".join(repr(name[:60]) for name in names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")


@dataclasses.dataclass
class _Scanned:
    content: list[np.ndarray]
    group: list[np.ndarray]
    infinite: dict[str, tuple[int, int]]  # column -> (count, first row)


class _Scan(Pass[_Scanned, _Scanned]):
    """Hash the content and the group of every row, and find infinite values."""

    state_types = (_Scanned, Column)

    def __init__(self, features: Sequence[Column], group: str | None, side: str) -> None:
        self.features = list(features)
        self.group = group
        self.side = side
        names = [column.name for column in features]
        self.columns = list(dict.fromkeys(names + ([group] if group else [])))

    def init(self) -> _Scanned:
        return _Scanned([], [], {})

    def map(self, state: _Scanned, batch: pa.RecordBatch, first_row: int) -> _Scanned:
        import pyarrow as pa

        state.content.append(row_hashes(batch, self.features, side=self.side))
        if self.group is not None:
            hashes = row_hashes(batch, [self.group], side=self.side)
            missing = np.asarray(batch.column(self.group).is_null(nan_is_null=True))
            if missing.any():  # a row without a group stands alone
                rows = np.flatnonzero(missing).astype(np.uint64) + np.uint64(first_row)
                hashes = hashes.copy()
                hashes[missing] = mix64(rows ^ np.uint64(0xA5A5A5A5A5A5A5A5))
            state.group.append(hashes)
        for name in (feature.name for feature in self.features):
            column = batch.column(name)
            if pa.types.is_floating(column.type):
                values = column.to_numpy(zero_copy_only=False)
                bad = np.isinf(values)
                count = int(np.count_nonzero(bad))
                if count:
                    before, first = state.infinite.get(name, (0, first_row + int(bad.argmax())))
                    state.infinite[name] = (before + count, first)
        return state

    def merge(self, left: _Scanned, right: _Scanned) -> _Scanned:
        infinite = dict(left.infinite)
        for name, (count, first) in right.infinite.items():
            before, earlier = infinite.get(name, (0, first))
            infinite[name] = (before + count, min(earlier, first))
        return _Scanned(left.content + right.content, left.group + right.group, infinite)

    def finish(self, state: _Scanned) -> _Scanned:
        return state


def scan(
    side: Side,
    features: Sequence[Column],
    options: Options,
    advance: Callable[[int], None] | None = None,
) -> None:
    """Read every row once: content and group hashes, infinite values, times.

    Raises
    ------
    DataError
        If a value is infinite and ``infinite="refuse"``, or a time is missing.
    """
    job = _Scan(features, options.group, side.name)
    found = options.engine.run(job, side.source, progress=advance)
    side.content = np.concatenate(found.content)
    if options.group is not None:
        side.group = np.concatenate(found.group)
    if found.infinite and options.infinite == "refuse":
        name, (count, first) = next(iter(found.infinite.items()))
        raise DataError(
            f"{side.source.label}, column {name!r}: {count:,} of {side.n_rows:,} values are "
            f"infinite (first at row {first}); drop them or pass infinite='missing'"
        )
    if options.time is not None:
        side.time = time_values(side.source, options.time)


def scan_both(
    q: Side,
    p: Side,
    features: Sequence[Column],
    options: Options,
    advance: Callable[[int], None],
) -> None:
    """Scan both sides at once; an error of q comes before one of p."""
    done = {"q": 0, "p": 0}

    def one(side: Side) -> None:
        def report(rows: int) -> None:
            done[side.name] = rows
            advance(done["q"] + done["p"])

        scan(side, features, options, report)

    if options.engine.name != "local":  # which has workers of its own
        one(q)
        one(p)
        return
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(one, (q, p)))


def time_values(source: Source, name: str) -> np.ndarray:
    """Return the time of every row as numbers that sort.

    Raises
    ------
    DataError
        If a time is missing or is not a number, a date or ISO text.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    column = source.column(name)
    if column.null_count:
        first = int(np.flatnonzero(np.asarray(column.is_null()))[0])
        raise DataError(
            f"{source.label}, time column {name!r}: {column.null_count:,} values are missing "
            f"(first at row {first}); every row needs a time"
        )
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        try:
            column = pc.cast(column, pa.timestamp("us"))
        except pa.ArrowInvalid as error:
            raise DataError(
                f"{source.label}, time column {name!r} is text that is not ISO 8601 "
                "(2024-03-31 or 2024-03-31T12:00:00); give numbers, dates or ISO text"
            ) from error
    if pa.types.is_date(column.type):
        column = pc.cast(column, pa.timestamp("us"))
    if pa.types.is_timestamp(column.type):
        column = pc.cast(column, pa.int64())
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        raise DataError(
            f"{source.label}, time column {name!r} has type {kind}; give numbers, dates or ISO text"
        )
    values = column.to_numpy()
    if pa.types.is_floating(column.type) and not np.isfinite(values).all():
        raise DataError(f"{source.label}, time column {name!r} holds values that are not finite")
    return values
