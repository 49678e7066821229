from dpdq.reweight._base import ExtendingWeighter as ExtendingWeighter
from dpdq.reweight._base import Weighter as Weighter
from dpdq.reweight.covariate_balancing import (
    CovariateBalancingPropensity as CovariateBalancingPropensity,
)
from dpdq.reweight.diagnostics import BalanceReport as BalanceReport
from dpdq.reweight.dro import cvar_loss as cvar_loss
from dpdq.reweight.dro import dro_loss as dro_loss
from dpdq.reweight.dro import dro_weights as dro_weights
from dpdq.reweight.energy_balancing import EnergyBalancing as EnergyBalancing
from dpdq.reweight.entropy import EntropyBalancing as EntropyBalancing
from dpdq.reweight.estimates import Coefficients as Coefficients
from dpdq.reweight.group_losses import GroupDRO as GroupDRO
from dpdq.reweight.group_losses import GroupMean as GroupMean
from dpdq.reweight.group_losses import WorstGroup as WorstGroup
from dpdq.reweight.group_losses import group_dro_loss as group_dro_loss
from dpdq.reweight.group_losses import worst_group as worst_group
from dpdq.reweight.kernel_balancing import KernelBalancing as KernelBalancing
from dpdq.reweight.label_losses import adaptive_label_temperatures as adaptive_label_temperatures
from dpdq.reweight.label_losses import adjust_logits as adjust_logits
from dpdq.reweight.label_losses import label_dro_loss as label_dro_loss
from dpdq.reweight.label_losses import logit_adjusted_loss as logit_adjusted_loss
from dpdq.reweight.loss_weights import TiltedLoss as TiltedLoss
from dpdq.reweight.loss_weights import dual_temperature as dual_temperature
from dpdq.reweight.loss_weights import kl_tilted_loss as kl_tilted_loss
from dpdq.reweight.loss_weights import loss_based_weights as loss_based_weights
from dpdq.reweight.overlap import OverlapWeights as OverlapWeights
from dpdq.reweight.propensity import InversePropensityWeighting as InversePropensityWeighting
from dpdq.reweight.raking import PostStratification as PostStratification
from dpdq.reweight.raking import Raking as Raking
from dpdq.reweight.stable import StableBalancingWeights as StableBalancingWeights

__all__: list[str]
from dpdq.reweight.advice import ShiftCost as ShiftCost
from dpdq.reweight.advice import WeightingAdvice as WeightingAdvice
from dpdq.reweight.advice import shift_cost as shift_cost
from dpdq.reweight.advice import weighting_advice as weighting_advice
from dpdq.reweight.pipeline import Reweighted as Reweighted
from dpdq.reweight.saved import SavedWeighter as SavedWeighter
from dpdq.reweight.saved import load as load
from dpdq.reweight.saved import save as save
