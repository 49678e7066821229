"""Reading the JSON of a comparison when any part of it may be null or absent."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

__all__ = ["part", "records", "split_sentence"]


def part(parent: Any, key: str) -> Mapping[str, Any]:
    """Return an object of the JSON, empty where it is null or absent."""
    found = parent.get(key) if isinstance(parent, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def records(parent: Any, key: str) -> list[Mapping[str, Any]]:
    """Return a list of objects of the JSON, empty where it is null or absent."""
    found = parent.get(key) if isinstance(parent, Mapping) else None
    return [r for r in found if isinstance(r, Mapping)] if isinstance(found, (list, tuple)) else []


def split_sentence(text: str) -> tuple[str, str]:
    """Return the first sentence of a text and the rest of it."""
    found = re.search(r"[.!?] (?=[A-Z])", text)
    return (text, "") if found is None else (text[: found.start() + 1], text[found.end() :])
