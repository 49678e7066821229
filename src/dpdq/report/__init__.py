"""The page of a comparison: plain result dictionaries drawn for people.

A page is one self-contained HTML file. It is made from the JSON of a comparison and nothing else,
so that what is drawn is what is stored; it asks no network for anything, and a text that came
from the data is shown as text. `render` makes the page, `terminal_summary` the few lines for a
terminal and `notebook_html` the fragment for a notebook. The drawings stand in `charts`: functions
from numbers to inline SVG whose colours are CSS variables and which say in words what they show.
"""

from dpdq._lazy import attach as _attach

__getattr__, __dir__, __all__ = _attach(
    __name__,
    {
        "render": "page",
        "notebook_html": "page",
        "terminal_summary": "terminal",
        "render_balance": "balance_page",
        "balance_summary": "balance_page",
        "next_steps": "advice",
        "charts": "charts",
        "formatting": "formatting",
    },
)
