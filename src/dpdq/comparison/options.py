"""What a comparison may be told, checked before work starts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dpdq.engine import Engine
from dpdq.errors import InputTypeError, OptionError

__all__ = ["Options", "column_list", "text_or_none"]


def column_list(value: str | Sequence[str] | None, name: str) -> list[str] | None:
    """A list of column names from a list or from comma-separated text."""
    if value is None:
        return None
    names = value.split(",") if isinstance(value, str) else list(value)
    for item in names:
        if not isinstance(item, str):
            raise InputTypeError(f"{name} holds {item!r}; give column names as text")
    names = [item.strip() if isinstance(value, str) else item for item in names]
    if not names or not all(names):
        raise OptionError(f"{name} is empty; leave it out or name at least one column")
    if len(set(names)) < len(names):
        twice = next(item for item in names if names.count(item) > 1)
        raise OptionError(f"{name} names column {twice!r} twice")
    return names


def text_or_none(value: str | None, name: str) -> str | None:
    """A column name, or nothing."""
    if value is not None and (not isinstance(value, str) or not value):
        raise InputTypeError(f"{name} is {value!r}; give the name of a column")
    return value


@dataclasses.dataclass(frozen=True)
class Options:
    """The options of one comparison.

    Attributes
    ----------
    label, prediction, prediction_proba, id, group, time
        Columns with a role of their own; none of them is a feature.
    columns
        The features to compare; ``None`` takes every common column without a role.
    types
        Kinds that override what was inferred.
    tolerance
        The AUC up to which a difference is tolerated, in [0.5, 1).
    tolerance_column
        The PSI up to which a column's difference is tolerated.
    infinite
        ``"refuse"`` or ``"missing"``.
    quick
        Columns only.
    encoder
        Turns a block of items into an array ``(n, d)``.
    engine
        Where the passes over all rows run.
    """

    label: str | None = None
    prediction: str | None = None
    prediction_proba: str | None = None
    id: str | None = None
    group: str | None = None
    time: str | None = None
    columns: list[str] | None = None
    types: dict[str, str] = dataclasses.field(default_factory=dict)
    tolerance: float = 0.5
    tolerance_column: float = 0.0
    infinite: str = "refuse"
    quick: bool = False
    encoder: Callable[[Any], Any] | None = None
    engine: Engine = dataclasses.field(default_factory=Engine)

    @classmethod
    def checked(
        cls,
        *,
        columns: str | Sequence[str] | None,
        types: Mapping[str, str] | None,
        tolerance: float,
        tolerance_column: float,
        infinite: str,
        quick: bool,
        encoder: Callable[[Any], Any] | None,
        engine: str | Engine = "local",
        **roles: str | None,
    ) -> Options:
        """Build the options, or raise what is wrong with them."""
        for name, value in roles.items():
            text_or_none(value, name)
        if roles.get("prediction") and roles.get("prediction_proba"):
            raise OptionError("prediction and prediction_proba are both given; choose one")
        used: dict[str, str] = {}
        for name, value in roles.items():
            if value is not None and value in used:
                raise OptionError(
                    f"column {value!r} is named as {used[value]} and as {name}; give it one role"
                )
            if value is not None:
                used[value] = name
        chosen = column_list(columns, "columns")
        for name in chosen or []:
            if name in used:
                raise OptionError(
                    f"column {name!r} is the {used[name]} and is never a feature; "
                    "take it out of columns"
                )
        if not isinstance(tolerance, (int, float)) or not 0.5 <= tolerance < 1:
            raise OptionError(
                f"tolerance is {tolerance!r}; give an AUC from 0.5 (any shift) below 1"
            )
        if not isinstance(tolerance_column, (int, float)) or not 0 <= tolerance_column < 100:
            raise OptionError(f"tolerance_column is {tolerance_column!r}; give a PSI of at least 0")
        if infinite not in ("refuse", "missing"):
            raise OptionError(
                f"Unknown value {infinite!r} for infinite. Choose one of 'refuse', 'missing'."
            )
        if encoder is not None and not callable(encoder):
            raise InputTypeError(f"encoder has type {type(encoder).__name__}; give a callable")
        where = engine if isinstance(engine, Engine) else Engine(engine)
        where.check()
        return cls(
            columns=chosen,
            types=dict(types or {}),
            tolerance=float(tolerance),
            tolerance_column=float(tolerance_column),
            infinite=infinite,
            quick=bool(quick),
            encoder=encoder,
            engine=where,
            **roles,
        )

    @property
    def roles(self) -> dict[str, str]:
        """Column name -> role."""
        names = ("label", "prediction", "prediction_proba", "id", "group", "time")
        return {getattr(self, name): name for name in names if getattr(self, name) is not None}

    def to_dict(self) -> dict[str, Any]:
        """Return the options as JSON types, for ``run.json``."""
        return {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name not in ("encoder", "engine")
        } | {
            "engine": self.engine.name,
            "encoder": getattr(self.encoder, "__name__", type(self.encoder).__name__)
            if self.encoder is not None
            else None,
        }
