"""Public names that load when they are first used, so that importing a room costs nothing."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["attach"]


def attach(
    package: str, where: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Make ``__getattr__``, ``__dir__`` and ``__all__`` of a package.

    Parameters
    ----------
    package
        The package's ``__name__``.
    where
        Public name -> submodule that defines it; a name that maps to itself is the submodule.

    Returns
    -------
    tuple
        The three module attributes, in that order.
    """

    def __getattr__(name: str) -> Any:  # noqa: ANN401, N807 - a module's own hook
        if name not in where:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = importlib.import_module(f"{package}.{where[name]}")
        value = module if where[name] == name else getattr(module, name)
        setattr(sys.modules[package], name, value)
        return value

    def __dir__() -> list[str]:  # noqa: N807 - a module's own hook
        return sorted(where)

    return __getattr__, __dir__, list(where)
