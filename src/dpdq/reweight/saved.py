"""Fitted weights kept as a file, to weight rows never seen.

A saved weighter holds log dP/dQ as a function of x and nothing of the rows it came from: the
recipe of the columns, the functions and their coefficients, or the cells and their ratios. The
file is a zip of JSON and ``.npy``; it holds data alone, and reading it executes nothing:

    save(weighter, "model.dpdq")
    load("model.dpdq").log_ratio(x)     the same bits as weighter.log_ratio(x)

Methods whose weights are numbers for the rows of q, not a function of x, cannot be kept so.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import zipfile
from typing import Any

import numpy as np

from dpdq.data.schema import Column
from dpdq.engine.states import load_state, save_state
from dpdq.errors import DataError, FileError, InputTypeError
from dpdq.reweight._base import ExtendingWeighter, Weighter
from dpdq.reweight._columns import LevelColumn, NumberColumn, Recipe, Rows
from dpdq.reweight._common import Array
from dpdq.reweight._feasibility import Face
from dpdq.reweight._linear import LinearModel
from dpdq.reweight._problem import Problem
from dpdq.reweight.moments import BalanceFunctions

__all__ = ["SavedWeighter", "check_savable", "load", "save"]

FORMAT_VERSION = 1
"""Version of the file format that this dpdq writes and reads."""

_FORMAT = "dpdq.weighter"
_LARGEST = 2**30  # bytes that all parts together may unpack to

_TILTED = ("coef_", "intercept_", "_faces")
_FITTED = {
    "EntropyBalancing": _TILTED,
    "CovariateBalancingPropensity": _TILTED,
    "Raking": _TILTED,
    "PostStratification": ("_names", "_known", "_known_log"),
    "InversePropensityWeighting": ("coef_", "intercept_", "_model", "_clip"),
    "StableBalancingWeights": ("coef_", "intercept_"),
    "OverlapWeights": ("coef_", "intercept_", "_model"),
}


@dataclasses.dataclass(frozen=True)
class _Functions:
    """What a list of balance functions is made from."""

    center: Array
    scale: Array
    degrees: dict[str, int]
    interactions: tuple[tuple[str, ...], ...]
    chosen: Array | None

    @classmethod
    def of(cls, functions: BalanceFunctions) -> _Functions:
        """Read them off a list."""
        recipe = functions.recipe
        degrees = dict.fromkeys(recipe.names, 1)
        for column, power in functions._powers:
            source = recipe.numbers[column].source
            degrees[source] = max(degrees[source], power)
        products = functions._all[functions._n_primitive :]
        interactions = tuple(dict.fromkeys(margin.columns for margin in products))
        return cls(functions.center, functions.scale, degrees, interactions, functions._chosen)

    def build(self, recipe: Recipe) -> BalanceFunctions:
        """Make the list again."""
        found = BalanceFunctions(
            recipe, self.center, self.scale, self.degrees, list(self.interactions)
        )
        return found if self.chosen is None else found.select(self.chosen)


@dataclasses.dataclass(frozen=True)
class _Line:
    """A `LinearModel` whose functions stand apart."""

    functions: _Functions
    center: Array
    scale: Array
    theta: Array


@dataclasses.dataclass(frozen=True)
class _Kept:
    """The content of a file."""

    format: str
    format_version: int
    dpdq: str
    method: str
    parameters: dict[str, Any]
    target: str
    margins: tuple[str, ...]
    recipe: Recipe
    functions: _Functions
    low: Array
    high: Array
    shift: float
    fitted: dict[str, Any]
    rows: int


_TYPES = (Column, Face, LevelColumn, NumberColumn, Recipe, _Functions, _Kept, _Line)


def save(weighter: Weighter, path: str | os.PathLike[str]) -> None:
    """Keep a fitted weighter as a file that weights new rows.

        zip of state.json and .npy: recipe of columns, functions, coefficients or cells

    The file knows the columns, levels and ratios of the fit, not its rows. Small cells of
    post-stratification can still tell of single rows: look before you pass it on.

    Parameters
    ----------
    weighter
        A fitted `EntropyBalancing`, `CovariateBalancingPropensity`, `InversePropensityWeighting`,
        `Raking`, `PostStratification`, `StableBalancingWeights` or `OverlapWeights`.
    path
        The file, usually with the ending ``.dpdq``; it appears whole or not at all.

    Raises
    ------
    InputTypeError
        The method's weights are no function of x, or cannot be kept.
    NotFittedError
        It is not fitted.
    FileError
        The file cannot be written.

    Notes
    -----
    Cost: O(k) time and bytes for k functions (or cells).
    Held by: tests/reweight/test_saved.py::test_comes_back_to_the_last_bit

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from dpdq.reweight import EntropyBalancing
    >>> from dpdq.reweight.saved import load, save
    >>> q, p = {"age": [20.0, 30, 40, 50]}, {"age": [30.0, 45]}
    >>> model = EntropyBalancing().fit(q, p)
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "model.dpdq"
    >>> save(model, path)
    >>> new = {"age": [25.0, 60.0]}
    >>> bool((load(path).log_ratio(new) == model.log_ratio(new)).all())
    True
    """
    from dpdq import __version__

    if not isinstance(weighter, Weighter):
        raise InputTypeError(f"save takes a fitted weighter, not {type(weighter).__name__}")
    problem = weighter._fitted()
    name = type(weighter).__name__
    check_savable(type(weighter))
    fitted: dict[str, Any] = {}
    for field in _FITTED[name]:
        value = getattr(weighter, field)
        if isinstance(value, LinearModel):
            parts = (value.center, value.scale, value.theta)
            value = _Line(_Functions.of(value.functions), *parts)
        fitted[field] = value
    kept = _Kept(
        format=_FORMAT,
        format_version=FORMAT_VERSION,
        dpdq=__version__,
        method=name,
        parameters=weighter.get_params(deep=False),
        target=weighter.target_,
        margins=weighter.margins_,
        recipe=problem.recipe,
        functions=_Functions.of(problem.functions),
        low=problem.low,
        high=problem.high,
        shift=weighter._shift,
        fitted=fitted,
        rows=len(weighter.weights_),
    )
    save_state(path, kept, _TYPES)


def check_savable(kind: type[Weighter]) -> None:
    """Refuse a class of weighters that `save` cannot keep, before any work.

    Raises
    ------
    InputTypeError
        Its weights are no function of x, or cannot be kept.
    """
    name = kind.__name__
    if not issubclass(kind, ExtendingWeighter):
        raise InputTypeError(
            f"{name} gives weights to the rows of q alone, not a function of x, so that there is "
            f"nothing to keep for new rows; use one of {', '.join(_FITTED)}"
        )
    if name not in _FITTED or kind.__module__.split(".")[0] != "dpdq":
        raise InputTypeError(f"{name} cannot be kept as a file; use one of {', '.join(_FITTED)}")


def load(path: str | os.PathLike[str]) -> SavedWeighter:
    """Read a weighter that `save` kept; nothing in the file is executed.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    SavedWeighter
        With ``log_ratio(x)`` equal to that of the fitted object, to the last bit.

    Raises
    ------
    FileError
        The file is missing, damaged, or not one that `save` wrote.

    Notes
    -----
    Cost: O(k) time and memory for k functions (or cells).
    Held by: tests/reweight/test_saved.py::test_comes_back_to_the_last_bit
    """
    name = os.path.basename(os.fspath(path))
    if not os.path.exists(path):
        raise FileError(f"file {os.fspath(path)!r} does not exist")
    try:
        with zipfile.ZipFile(path) as packed:
            known = packed.namelist()
            size = sum(part.file_size for part in packed.infolist())
    except (OSError, zipfile.BadZipFile) as error:
        raise FileError(f"{name!r} is damaged, or no weighter saved by dpdq ({error})") from error
    if "reference.json" in known:
        raise FileError(
            f"{name!r} is a reference (rows of q); expected a weighter saved by "
            "dpdq reweight --save-model"
        )
    if "state.json" not in known:
        raise FileError(f"{name!r} is a zip file, but no weighter saved by dpdq")
    if size > _LARGEST:
        raise FileError(f"{name!r} unpacks to {size / 2**30:.1f} GiB; a weighter has at most 1 GiB")
    try:
        kept = load_state(path, _TYPES)
        if not isinstance(kept, _Kept) or kept.format != _FORMAT:
            raise ValueError("it holds something else")
    except Exception as error:  # what is damaged fails in many ways
        raise FileError(f"{name!r} is damaged, or no weighter saved by dpdq") from error
    if kept.format_version != FORMAT_VERSION:
        raise FileError(
            f"{name!r} has format version {kept.format_version!r} and this dpdq reads "
            f"{FORMAT_VERSION}; install dpdq {kept.dpdq}, which wrote it, or fit again"
        )
    try:
        with open(path, "rb") as file:
            return SavedWeighter(kept, hashlib.file_digest(file, "sha256").hexdigest())
    except Exception as error:
        raise FileError(f"{name!r} is damaged: its parts do not fit together") from error


class SavedWeighter:
    """A weighter without its rows: what `load` gives.

        log_ratio(x) = log dP/dQ as it was fitted

    Parameters
    ----------
    kept
        The content of a file.
    digest
        Fingerprint of the file.

    Attributes
    ----------
    method
        The class that was fitted.
    target_
        What weighted rows stand for: ``"p"`` or ``"overlap"``.
    margins_
        Names of the functions that took part.
    columns
        Columns that new rows must have; None where they are plain arrays.
    n_q_
        Rows of q of the fit.

    Notes
    -----
    Cost: O(n k) time, O(n) memory besides a block.
    Held by: tests/reweight/test_saved.py::test_comes_back_to_the_last_bit
    """

    def __init__(self, kept: _Kept, digest: str = "") -> None:
        import dpdq.reweight

        recipe, functions = kept.recipe, kept.functions.build(kept.recipe)
        if tuple(margin.name for margin in functions.margins) != kept.margins:
            raise ValueError("the functions are not those that were saved")
        weighter: ExtendingWeighter = getattr(dpdq.reweight, kept.method)(**kept.parameters)
        for name in _FITTED[kept.method]:
            value = kept.fitted[name]
            if name == "coef_" and len(value) != len(functions):
                raise ValueError("the coefficients do not fit the functions")
            if isinstance(value, _Line):
                line = value.functions.build(recipe)
                value = LinearModel(line, value.center, value.scale, value.theta)
            setattr(weighter, name, value)
        nothing, none = np.zeros(0), np.zeros((0, 0))
        rows = Rows(np.empty((0, len(recipe.numbers))), tuple(nothing for _ in recipe.levels))
        self._problem = Problem(
            functions, rows, nothing, None, None, nothing, nothing, none, kept.low, kept.high,
            nothing,
        )  # fmt: skip
        self._weighter, self._shift = weighter, kept.shift
        self.method = kept.method
        self.target_ = kept.target
        self.margins_ = kept.margins
        self.n_q_ = kept.rows
        self.digest = digest
        columns = recipe.columns
        self.columns = None if columns is None else tuple(column.name for column in columns)

    def __repr__(self) -> str:
        return (
            f"<{self.method}, fitted on {self.n_q_:,} rows of q towards {self.target_}: log dP/dQ "
            f"from {len(self._problem.recipe.names)} columns, {len(self.margins_)} margins>"
        )

    def log_ratio(self, x: Any) -> Array:
        """Estimate log dP/dQ at new rows.

        Parameters
        ----------
        x
            Rows with the columns of the fit, shape (n, d) or a table.

        Returns
        -------
        ndarray of shape (n,)
            Natural logarithms; -infinity where p has no such rows.

        Raises
        ------
        DataError
            Another width, an absent column, or a level that no row of the fit had.
        """
        rows = self._problem.recipe.encode(x)
        if not len(rows):
            return np.zeros(0)
        return self._weighter._log_ratio(self._problem, rows) - self._shift

    def names_in(self, known: list[str]) -> list[str]:
        """Columns to read from a table with these names, in the order of the fit.

        Raises
        ------
        DataError
            One of them is absent.
        """
        width = self._problem.recipe.width
        wanted = [f"x{j}" for j in range(width)] if self.columns is None else list(self.columns)
        for name in wanted:
            if name not in known:
                shown = ", ".join(map(repr, known[:20]))
                raise DataError(
                    f"the rows have no column {name!r}, which the weights were fitted on; they "
                    f"have {shown}"
                )
        return wanted
