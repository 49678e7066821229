"""How do I make q behave like p? Weights of the rows of q towards p, and what they buy.

    w = argmin  distance of w to the design weights,   subject to  E_q[w f_j] = E_p[f_j]

Two roads lead to weights. A *model* of r = dP/dQ is fitted and believed
(`InversePropensityWeighting`); or the margins f_j that matter are *balanced* outright, whatever r
is (`EntropyBalancing`, `Raking`, `PostStratification`). They meet: entropy balancing is a model,
log r linear in the margins, fitted by its balance, and so is an exact covariate-balancing
propensity.

What balance does not fix: anything not on the list of margins, and P(Y|X), which every estimate
assumes to be the same in q and p. Weights cannot make rows that q does not have: where p lies
outside q's reach the fit refuses and names the margin.

Which one:

- `EntropyBalancing` is the default: exact on means (squares, interactions), with a tolerance or a
  cap where exact balance costs too many rows; from rows of p or from population totals.
- `Raking` for tables of levels, from totals of each column or joint table, as surveys do;
  `PostStratification` where the joint shares of all cells are known and no cell is empty.
- `StableBalancingWeights` keeps the most effective rows: least variance, a tolerance a margin, and
  zeros.
- `KernelBalancing` where the outcome bends in ways that no list of margins holds: all smooth
  functions at once; `EnergyBalancing` the joint law, without a model or a bandwidth, on thousands
  of rows and without an interval.
- `CovariateBalancingPropensity` for a propensity model tested against its own balance: ``"over"``
  has a statistic that says whether log r is linear in the margins.
- `InversePropensityWeighting` where there are more margins than can be balanced: a ridge shrinks
  what the data cannot tell.
- `OverlapWeights` changes the question: q and p are both weighted to where they meet, where no
  weight explodes (``target_`` is ``"overlap"``).

All of them: ``fit(q, p)``, then ``weights_``, ``diagnostics()``, ``estimate(y)``,
``sensitivity()``, and all but `EnergyBalancing` ``log_ratio(x)`` for rows never seen.

Where p is not known but near, or is the worst of some groups, losses take the place of weights:
`dro_loss` (any divergence), `cvar_loss`, `kl_tilted_loss`, `group_dro_loss`, `label_dro_loss`,
`logit_adjusted_loss` and `loss_based_weights` are plain functions of NumPy arrays and torch tensors
for anybody's training loop; `worst_group` reports.
"""

from dpdq._lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "Weighter": "_base",
        "ExtendingWeighter": "_base",
        "EntropyBalancing": "entropy",
        "StableBalancingWeights": "stable",
        "KernelBalancing": "kernel_balancing",
        "EnergyBalancing": "energy_balancing",
        "CovariateBalancingPropensity": "covariate_balancing",
        "InversePropensityWeighting": "propensity",
        "OverlapWeights": "overlap",
        "Raking": "raking",
        "PostStratification": "raking",
        "BalanceReport": "diagnostics",
        "Coefficients": "estimates",
        "Reweighted": "pipeline",
        "save": "saved",
        "load": "saved",
        "SavedWeighter": "saved",
        "weighting_advice": "advice",
        "WeightingAdvice": "advice",
        "shift_cost": "advice",
        "ShiftCost": "advice",
        "dro_loss": "dro",
        "dro_weights": "dro",
        "cvar_loss": "dro",
        "kl_tilted_loss": "loss_weights",
        "TiltedLoss": "loss_weights",
        "loss_based_weights": "loss_weights",
        "dual_temperature": "loss_weights",
        "group_dro_loss": "group_losses",
        "GroupDRO": "group_losses",
        "worst_group": "group_losses",
        "WorstGroup": "group_losses",
        "GroupMean": "group_losses",
        "label_dro_loss": "label_losses",
        "adaptive_label_temperatures": "label_losses",
        "logit_adjusted_loss": "label_losses",
        "adjust_logits": "label_losses",
        "AdaptiveImportanceSampling": "importance_sampling",
        "SamplingRound": "importance_sampling",
        "control_variate_means": "importance_sampling",
        "GaussianMixture": "proposals",
        "fit_gaussian_mixture": "proposals",
        "GradientNormSampling": "gradient_sampling",
        "GradientVariance": "gradient_sampling",
        "gradient_variance": "gradient_sampling",
        "last_layer_norms": "gradient_sampling",
        "SamplingErrorCorrection": "sampling_error",
        "SamplingErrorCorrectingSampler": "sampling_error",
        "SamplingError": "sampling_error",
        "outcome_error": "sampling_error",
        "SMOTE": "oversampling",
        "SMOTENC": "oversampling",
        "recalibrate_prior": "priors",
        "PriorCorrected": "priors",
        "GroupBalancedSubsampler": "subsampling",
        "TailDiagnostic": "subsampling",
        "tail_diagnostic": "subsampling",
        "hill_tail_index": "extreme_tails",
        "extreme_displacement": "extreme_tails",
        "TemperatureMixing": "mixing",
        "MixingVariance": "mixing",
        "gradient_moments": "mixing",
        "CooldownSchedule": "mixing",
    },
)
