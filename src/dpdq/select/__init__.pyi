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
from dpdq.select.pruning import CalibratedPruner as CalibratedPruner
from dpdq.select.pruning import pruning_bias as pruning_bias
from dpdq.select.text_classifier import EmbeddingRatio as EmbeddingRatio
from dpdq.select.text_classifier import TextClassifierRatio as TextClassifierRatio
from dpdq.select.training_scores import EL2N as EL2N
from dpdq.select.training_scores import ForgettingCounts as ForgettingCounts
from dpdq.select.training_scores import GraNd as GraNd
from dpdq.select.training_scores import SelfInfluence as SelfInfluence
from dpdq.select.training_scores import VarianceOfGradients as VarianceOfGradients
from dpdq.select.values import Values as Values

__all__: list[str]
