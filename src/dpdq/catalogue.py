"""What is implemented, read out of the sources so that it cannot drift.

Every public function or class that carries out a published method says so in its docstring: a
``References`` section with the paper, and in ``Notes`` a line ``Cost:`` and a line ``Held by:``
that names the test that holds it. `implemented_methods` parses the package's own files and lists
what it finds; nothing is imported or executed.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable

from dpdq.results import Result

__all__ = ["ImplementedMethod", "implemented_methods"]

_REFERENCE = re.compile(r"^\.\. \[(?P<key>[^\]]+)\]\s+(?P<text>.*)$")
_CITATION = re.compile(r"^(?P<title>.+?)[.]?\s+(?P<source>[^.?!]+?,\s+(?:19|20)\d\d\b.*)$")


@dataclasses.dataclass(frozen=True, repr=False)
class ImplementedMethod(Result):
    """One published method and the object that carries it out.

    Attributes
    ----------
    key
        Short name of the reference: ``M...`` for a method of the project's own list.
    title
        Title of the paper.
    source
        First author, year, venue.
    object
        Dotted name of the function or class.
    room
        The part of the library in which it stands.
    summary
        First sentence of its docstring.
    cost
        Time and memory.
    held_by
        The test that holds it.
    """

    key: str
    title: str
    source: str
    object: str
    room: str
    summary: str
    cost: str
    held_by: str


def _python_files(folder: Traversable, prefix: str) -> Iterator[tuple[str, str]]:
    for entry in sorted(folder.iterdir(), key=lambda item: item.name):
        if entry.is_dir() and not entry.name.startswith(("_", ".")):
            yield from _python_files(entry, f"{prefix}.{entry.name}")
        elif entry.name.endswith(".py"):
            stem = entry.name[:-3]
            module = prefix if stem == "__init__" else f"{prefix}.{stem}"
            yield module, entry.read_text(encoding="utf-8")


def _section(lines: list[str], title: str) -> list[str]:
    """The lines of one numpydoc section."""
    for start in range(len(lines) - 1):
        if lines[start].strip() == title and set(lines[start + 1].strip()) == {"-"}:
            body = lines[start + 2 :]
            for stop in range(len(body) - 1):
                if body[stop].strip() and set(body[stop + 1].strip()) == {"-"}:
                    return body[:stop]
            return body
    return []


def _labelled(lines: list[str], label: str) -> str:
    """The text behind ``label:``, up to the next label or blank line."""
    for start, line in enumerate(lines):
        if line.strip().startswith(label + ":"):
            parts = [line.strip()[len(label) + 1 :].strip()]
            for more in lines[start + 1 :]:
                if not more.strip() or re.match(r"^(Cost|Held by|\.\.)\b", more.strip()):
                    break
                parts.append(more.strip())
            return " ".join(parts)
    return ""


def _references(lines: list[str]) -> Iterator[tuple[str, str]]:
    key, parts = "", []
    for line in [*lines, ".. [end] ."]:
        match = _REFERENCE.match(line.strip())
        if match:
            if key:
                yield key, " ".join(parts)
            key, parts = match["key"], [match["text"]]
        elif key and line.strip():
            parts.append(line.strip())


def implemented_methods(query: str = "") -> list[ImplementedMethod]:
    """List the published methods that this version carries out.

    Parameters
    ----------
    query
        Keep the rows in which every word of it occurs, in any case; empty keeps all.

    Returns
    -------
    list of ImplementedMethod
        Sorted by room, then by object.

    Examples
    --------
    >>> from dpdq.catalogue import implemented_methods
    >>> any("Two-Sample" in method.title for method in implemented_methods("kernel"))
    True
    """
    found = []
    for module, text in _python_files(files("dpdq"), "dpdq"):
        room = module.split(".")[1] if "." in module else "dpdq"
        for node in ast.parse(text).body:
            if not isinstance(node, (ast.FunctionDef, ast.ClassDef)) or node.name.startswith("_"):
                continue
            docstring = ast.get_docstring(node)
            if not docstring:
                continue
            lines = inspect.cleandoc(docstring).splitlines()
            held_by = _labelled(lines, "Held by")
            if not held_by:
                continue
            for key, entry in _references(_section(lines, "References")):
                citation = _CITATION.match(entry)
                found.append(
                    ImplementedMethod(
                        key=key,
                        title=citation["title"] if citation else entry,
                        source=citation["source"].rstrip(".") if citation else "",
                        object=f"{module}.{node.name}",
                        room=room,
                        summary=lines[0],
                        cost=_labelled(lines, "Cost").rstrip("."),
                        held_by=held_by.rstrip("."),
                    )
                )
    words = query.lower().split()
    kept = [
        method
        for method in found
        if all(word in " ".join(method.to_dict().values()).lower() for word in words)
    ]
    return sorted(kept, key=lambda method: (method.room, method.object, method.key))
