from dpdq.comparison.job import compare as compare
from dpdq.comparison.job import profile as profile
from dpdq.comparison.result import Comparison as Comparison

__all__ = ["Comparison", "compare", "profile"]
