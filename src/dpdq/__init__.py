"""dpdq, read dP/dQ: everything that follows from the ratio of two distributions.

    q is the data you have,  p is the data you want,  r = dP/dQ is everything in between.

Start with `compare`; the parts that it is made of stand in the rooms `data`, `ratio`, `distance`
and `shift`, on top of `divergences`, `weights` and `kernels`.
"""

from dpdq._lazy import attach as _attach

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = _attach(
    __name__,
    {
        "compare": "comparison",
        "Comparison": "comparison",
        "DpdqError": "errors",
        "data": "data",
        "distance": "distance",
        "divergences": "divergences",
        "errors": "errors",
        "kernels": "kernels",
        "ratio": "ratio",
        "report": "report",
        "results": "results",
        "reweight": "reweight",
        "select": "select",
        "shift": "shift",
        "weights": "weights",
    },
)
