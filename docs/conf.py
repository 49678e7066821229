"""Sphinx settings: MyST pages, numpydoc reference, warnings as errors."""

import importlib
import inspect
import re
from pathlib import Path

import dpdq

project = "dpdq"
author = "the dpdq developers"
copyright = "2026, the dpdq developers"
release = version = dpdq.__version__

extensions = ["sphinx.ext.autodoc", "sphinx.ext.mathjax", "numpydoc", "myst_parser"]
myst_enable_extensions = ["dollarmath", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "dpdq"

autodoc_typehints = "none"
autodoc_member_order = "bysource"
numpydoc_show_class_members = False
# Citations are per docstring; the same paper may stand in several.
suppress_warnings = ["ref.citation", "ref.footnote"]

ROOMS = {
    "dpdq.comparison": "The main job",
    "dpdq.ratio": "Ratio",
    "dpdq.distance": "Distance",
    "dpdq.shift": "Shift",
    "dpdq.reweight": "Reweight",
    "dpdq.select": "Select",
    "dpdq.divergences": "Divergences",
    "dpdq.weights": "Weights",
    "dpdq.kernels": "Kernels",
    "dpdq.data": "Data",
    "dpdq.data.samplers": "Samplers",
    "dpdq.engine": "Engine",
    "dpdq.passes": "Passes",
    "dpdq.report": "Report",
    "dpdq.results": "Results",
    "dpdq.errors": "Errors",
    "dpdq.catalogue": "Catalogue",
}


def page_of(room):
    """Name of a room's page."""
    return "-".join(room.split(".")[1:])


def write_reference(folder):
    """One page a room, from its public names, so that none is forgotten."""
    folder.mkdir(exist_ok=True)
    for room, title in ROOMS.items():
        module = importlib.import_module(room)
        parts = [f"# {title}: `{room}`", "", "```{eval-rst}", f".. automodule:: {room}",
                 "   :no-members:", ""]  # fmt: skip
        for name in module.__all__:
            item = getattr(module, name)
            if inspect.ismodule(item):
                continue
            kind = "class" if inspect.isclass(item) else "function" if callable(item) else "data"
            if kind == "data":
                parts += [f".. autodata:: {room}.{name}", "   :no-value:"]
            else:
                parts.append(f".. auto{kind}:: {getattr(item, '__module__', room)}.{name}")
            if kind == "class":
                parts.append("   :members:")
            parts.append("")
        parts.append("```")
        (folder / f"{page_of(room)}.md").write_text("\n".join(parts) + "\n")
    listed = "\n".join(map(page_of, ROOMS))
    (folder / "index.md").write_text(f"# Reference\n\n```{{toctree}}\n{listed}\n```\n")


write_reference(Path(__file__).parent / "generated")


def formulas_are_literal(app, what, name, obj, options, lines):
    """Show the indented formulas of a docstring as they are written."""
    out, literal, first_section = [], False, False
    for index, line in enumerate(lines):
        following = lines[index + 1] if index + 1 < len(lines) else ""
        if re.fullmatch(r"-{3,}", following.strip()) and line.strip():
            first_section = True
        indented = line.startswith("    ") and not first_section
        if indented and not literal and (not out or not out[-1].strip()):
            out += [".. code-block:: text", ""]
            literal = True
        elif literal and line.strip() and not indented:
            if out[-1].strip():
                out.append("")
            literal = False
        out.append(line if literal else bars_are_text(line))
    lines[:] = out


def bars_are_text(line):
    """|x| is an absolute value here and never a substitution."""
    parts = line.split("``")
    return "``".join(
        part.replace("|", "\\|") if place % 2 == 0 else part for place, part in enumerate(parts)
    )


def setup(app):
    app.connect("autodoc-process-docstring", formulas_are_literal, priority=1)
