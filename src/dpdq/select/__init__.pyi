from dpdq.select._base import Price as Price
from dpdq.select._base import Utility as Utility
from dpdq.select.chosen import Selection as Selection
from dpdq.select.compression import CompressionAlignment as CompressionAlignment
from dpdq.select.knn_shapley import KNNShapley as KNNShapley
from dpdq.select.mechanisms import gumbel_top_k as gumbel_top_k
from dpdq.select.mechanisms import quota as quota
from dpdq.select.mechanisms import threshold as threshold
from dpdq.select.mechanisms import top_k as top_k
from dpdq.select.ngrams import DSIR as DSIR
from dpdq.select.ngrams import NGramRatio as NGramRatio
from dpdq.select.nuisance import ConditionalUtility as ConditionalUtility
from dpdq.select.nuisance import conditional_utility as conditional_utility
from dpdq.select.pool_files import write_selected as write_selected
from dpdq.select.pool_jobs import PoolSelection as PoolSelection
from dpdq.select.pool_jobs import select_rows as select_rows
from dpdq.select.values import Values as Values

__all__: list[str]
