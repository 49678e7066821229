"""scikit-learn's manners without scikit-learn: constructor arguments as parameters.

A class whose ``__init__`` only stores its arguments gets ``get_params``, ``set_params``, a clone
and a ``repr`` that shows what differs from the defaults.
"""

from __future__ import annotations

import copy
import inspect
from typing import Any, Self, TypeVar

from dpdq.errors import OptionError

__all__ = ["Parameterised", "clone"]

Object = TypeVar("Object", bound="Parameterised")


class Parameterised:
    """Base of everything that is configured by its constructor and learns in ``fit``."""

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

    def _shown_parameters(self) -> str:
        """``Name(a=1)``: the arguments that differ from their defaults."""
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
        return f"{type(self).__name__}({', '.join(changed)})"

    def __repr__(self) -> str:
        return self._shown_parameters() + self._fitted_text()

    def _fitted_text(self) -> str:
        """What ``repr`` adds after ``fit``."""
        return ""


def clone(estimator: Object) -> Object:
    """An unfitted copy with copies of the same parameters.

    A random generator is copied too, so that clones fitted side by side draw alike.
    """
    params = estimator.get_params(deep=False)
    return type(estimator)(**{name: copy.deepcopy(value) for name, value in params.items()})
