"""Sphinx settings: MyST pages, numpydoc reference, warnings as errors."""

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
html_static_path = ["images"]

autodoc_typehints = "none"
autodoc_member_order = "bysource"
numpydoc_show_class_members = False
nitpicky = False
