from dpdq.ratio._base import RatioEstimator as RatioEstimator
from dpdq.ratio.boosting import GradientBoostingRatio as GradientBoostingRatio
from dpdq.ratio.classifier import ClassifierRatio as ClassifierRatio
from dpdq.ratio.cross_fitting import CrossFittedRatio as CrossFittedRatio
from dpdq.ratio.diagnostics import Overlap as Overlap
from dpdq.ratio.diagnostics import RatioDiagnostics as RatioDiagnostics
from dpdq.ratio.diagnostics import check_overlap as check_overlap
from dpdq.ratio.kliep import KLIEP as KLIEP
from dpdq.ratio.label_shift import LabelShiftRatio as LabelShiftRatio
from dpdq.ratio.least_squares import ULSIF as ULSIF
from dpdq.ratio.logistic import LogisticRatio as LogisticRatio
from dpdq.ratio.mean_matching import KernelMeanMatching as KernelMeanMatching
from dpdq.ratio.model_selection import ImportanceWeightedScore as ImportanceWeightedScore
from dpdq.ratio.model_selection import iw_score as iw_score
from dpdq.ratio.nearest_neighbors import NearestNeighborRatio as NearestNeighborRatio
from dpdq.ratio.nearest_neighbors import (
    nearest_neighbor_divergence as nearest_neighbor_divergence,
)
from dpdq.ratio.relative import RULSIF as RULSIF
from dpdq.ratio.selection import select_ratio as select_ratio
from dpdq.ratio.telescoping import TelescopingRatio as TelescopingRatio
from dpdq.ratio.variational import VariationalRatio as VariationalRatio
from dpdq.ratio.variational import variational_loss as variational_loss
from dpdq.ratio.variational_network import VariationalNetworkRatio as VariationalNetworkRatio
from dpdq.ratio.weighted_search import ImportanceWeightedCV as ImportanceWeightedCV

__all__: list[str]
