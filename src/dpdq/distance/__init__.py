"""How far apart are q and p, and is the difference real?

Ways to look at one question, from the whole law to single columns:

- **Kernels** (`mmd`, `mmd_test`, `energy_test`): a distance between mean embeddings, and tests by
  permutation that are exact at every sample size. Nothing is trained; all scales are looked at.
- **Transport** (`wasserstein` on the line, `sliced_wasserstein` along lines,
  `sinkhorn_divergence`): how far mass must move, in the unit of the data, and in which direction.
- **Classifiers** (`auc_interval`, `classifier_test`): how well the sides can be told apart, on a
  scale that reads like a probability; `detectable_auc` says what could have been found at all.
- **Streams** (`sequential_test`, `SequentialTest`): the one test here that may be looked at while
  rows arrive, as often as one likes.
- **Columns** (`univariate_tests`): the right test and effect for each column's type, adjusted for
  their number (`false_discovery_rate`).
- **Generated samples** (`frechet_distance`, `kernel_inception_distance`, `prdc`, `mauve`,
  `vendi_score`, `memorisation_test`): q is what a model made, p is real, in any feature space.

`estimate_divergences` turns log ratios into KL, Jensen-Shannon and the other f-divergences with
bounds that hold.

A p-value answers "can chance alone do this?", never "does it matter?": with enough rows everything
is significant. Every test here therefore carries an effect, and where it is known the smallest
effect that it would have found.
"""

from dpdq._lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "mmd": "kernel_distances",
        "mmd_test": "kernel_tests",
        "MMDTest": "mmd_reference",
        "energy_distance": "kernel_distances",
        "energy_test": "energy_tests",
        "sequential_test": "sequential",
        "SequentialTest": "sequential",
        "auc": "roc",
        "auc_interval": "roc",
        "classifier_test": "classifier_tests",
        "detectable_auc": "detectable",
        "detectable_smd": "detectable",
        "univariate_tests": "univariate",
        "compare_column": "univariate",
        "false_discovery_rate": "univariate",
        "anderson_darling_test": "one_dimension",
        "kolmogorov_smirnov_test": "one_dimension",
        "cramer_von_mises_test": "one_dimension",
        "wasserstein": "one_dimension",
        "chi2_test": "level_tests",
        "g_test": "level_tests",
        "population_stability_index": "effects",
        "standardised_mean_difference": "effects",
        "sliced_wasserstein": "sliced",
        "SlicedDistance": "sliced",
        "sliced_wasserstein_test": "sliced_tests",
        "AdaptiveSlicedWasserstein": "sliced_adaptive",
        "SliceBound": "sliced_adaptive",
        "sinkhorn_divergence": "sinkhorn",
        "SinkhornDivergence": "sinkhorn",
        "frechet_distance": "frechet",
        "frechet_distance_from_moments": "frechet",
        "kernel_inception_distance": "kernel_inception",
        "prdc": "fidelity",
        "mauve": "frontiers",
        "divergence_frontier": "frontiers",
        "vendi_score": "diversity",
        "memorisation_test": "memorisation",
        "estimate_divergences": "divergence_estimates",
        "logistic_model_intervals": "divergence_estimates",
    },
)
