from dpdq.report import charts as charts
from dpdq.report import formatting as formatting
from dpdq.report.advice import next_steps as next_steps
from dpdq.report.balance_page import balance_summary as balance_summary
from dpdq.report.balance_page import render_balance as render_balance
from dpdq.report.page import notebook_html as notebook_html
from dpdq.report.page import render as render
from dpdq.report.terminal import terminal_summary as terminal_summary

__all__ = [
    "balance_summary",
    "charts",
    "formatting",
    "next_steps",
    "notebook_html",
    "render",
    "render_balance",
    "terminal_summary",
]
