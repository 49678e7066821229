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
from dpdq.reweight.extreme_tails import extreme_displacement as extreme_displacement
from dpdq.reweight.extreme_tails import hill_tail_index as hill_tail_index
from dpdq.reweight.gradient_sampling import GradientNormSampling as GradientNormSampling
from dpdq.reweight.gradient_sampling import GradientVariance as GradientVariance
from dpdq.reweight.gradient_sampling import gradient_variance as gradient_variance
from dpdq.reweight.gradient_sampling import last_layer_norms as last_layer_norms
from dpdq.reweight.importance_sampling import (
    AdaptiveImportanceSampling as AdaptiveImportanceSampling,
)
from dpdq.reweight.importance_sampling import SamplingRound as SamplingRound
from dpdq.reweight.importance_sampling import control_variate_means as control_variate_means
from dpdq.reweight.mixing import CooldownSchedule as CooldownSchedule
from dpdq.reweight.mixing import MixingVariance as MixingVariance
from dpdq.reweight.mixing import TemperatureMixing as TemperatureMixing
from dpdq.reweight.mixing import gradient_moments as gradient_moments
from dpdq.reweight.oversampling import SMOTE as SMOTE
from dpdq.reweight.oversampling import SMOTENC as SMOTENC
from dpdq.reweight.pipeline import Reweighted as Reweighted
from dpdq.reweight.priors import PriorCorrected as PriorCorrected
from dpdq.reweight.priors import recalibrate_prior as recalibrate_prior
from dpdq.reweight.proposals import GaussianMixture as GaussianMixture
from dpdq.reweight.proposals import fit_gaussian_mixture as fit_gaussian_mixture
from dpdq.reweight.sampling_error import SamplingError as SamplingError
from dpdq.reweight.sampling_error import (
    SamplingErrorCorrectingSampler as SamplingErrorCorrectingSampler,
)
from dpdq.reweight.sampling_error import SamplingErrorCorrection as SamplingErrorCorrection
from dpdq.reweight.sampling_error import outcome_error as outcome_error
from dpdq.reweight.saved import SavedWeighter as SavedWeighter
from dpdq.reweight.saved import load as load
from dpdq.reweight.saved import save as save
from dpdq.reweight.subsampling import GroupBalancedSubsampler as GroupBalancedSubsampler
from dpdq.reweight.subsampling import TailDiagnostic as TailDiagnostic
from dpdq.reweight.subsampling import tail_diagnostic as tail_diagnostic
