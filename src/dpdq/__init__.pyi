from dpdq import data as data
from dpdq import distance as distance
from dpdq import divergences as divergences
from dpdq import errors as errors
from dpdq import kernels as kernels
from dpdq import ratio as ratio
from dpdq import report as report
from dpdq import results as results
from dpdq import reweight as reweight
from dpdq import select as select
from dpdq import shift as shift
from dpdq import weights as weights
from dpdq.comparison import Comparison as Comparison
from dpdq.comparison import compare as compare
from dpdq.errors import DpdqError as DpdqError

__version__: str
__all__ = [
    "Comparison",
    "DpdqError",
    "compare",
    "data",
    "distance",
    "divergences",
    "errors",
    "kernels",
    "ratio",
    "report",
    "results",
    "reweight",
    "select",
    "shift",
    "weights",
]
