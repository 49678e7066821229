"""Optional packages: imported at first use, and missed in one sentence."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

from dpdq.errors import MissingDependencyError

__all__ = ["is_torch", "require"]

# package to import -> extra of dpdq that installs it
_EXTRAS = {
    "torch": "torch",
    "ot": "ot",
    "ray": "ray",
    "zstandard": "zstd",
}


def require(package: str, what: str = "this call") -> ModuleType:
    """Import an optional package, or say how to install it.

    Raises
    ------
    MissingDependencyError
        ``<what> needs <package>: pip install "dpdq[extra]"``. A package that is there but fails
        to import raises its own error, so that a broken install never looks like a missing one.
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != package.split(".")[0]:
            raise
        root = package.split(".")[0]
        target = f'"dpdq[{_EXTRAS[root]}]"' if root in _EXTRAS else root
        raise MissingDependencyError(f"{what} needs {root}: pip install {target}") from None


def is_torch(value: Any) -> bool:
    """Whether a value is a torch tensor, told without importing torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)
