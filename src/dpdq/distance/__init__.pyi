from dpdq.distance.classifier_tests import classifier_test as classifier_test
from dpdq.distance.detectable import detectable_auc as detectable_auc
from dpdq.distance.detectable import detectable_smd as detectable_smd
from dpdq.distance.divergence_estimates import estimate_divergences as estimate_divergences
from dpdq.distance.divergence_estimates import (
    logistic_model_intervals as logistic_model_intervals,
)
from dpdq.distance.diversity import vendi_score as vendi_score
from dpdq.distance.effects import population_stability_index as population_stability_index
from dpdq.distance.effects import standardised_mean_difference as standardised_mean_difference
from dpdq.distance.energy_tests import energy_test as energy_test
from dpdq.distance.fidelity import prdc as prdc
from dpdq.distance.frechet import frechet_distance as frechet_distance
from dpdq.distance.frechet import (
    frechet_distance_from_moments as frechet_distance_from_moments,
)
from dpdq.distance.frontiers import divergence_frontier as divergence_frontier
from dpdq.distance.frontiers import mauve as mauve
from dpdq.distance.kernel_distances import energy_distance as energy_distance
from dpdq.distance.kernel_distances import mmd as mmd
from dpdq.distance.kernel_inception import (
    kernel_inception_distance as kernel_inception_distance,
)
from dpdq.distance.kernel_tests import mmd_test as mmd_test
from dpdq.distance.level_tests import chi2_test as chi2_test
from dpdq.distance.level_tests import g_test as g_test
from dpdq.distance.memorisation import memorisation_test as memorisation_test
from dpdq.distance.mmd_reference import MMDTest as MMDTest
from dpdq.distance.one_dimension import anderson_darling_test as anderson_darling_test
from dpdq.distance.one_dimension import cramer_von_mises_test as cramer_von_mises_test
from dpdq.distance.one_dimension import kolmogorov_smirnov_test as kolmogorov_smirnov_test
from dpdq.distance.one_dimension import wasserstein as wasserstein
from dpdq.distance.roc import auc as auc
from dpdq.distance.roc import auc_interval as auc_interval
from dpdq.distance.sequential import SequentialTest as SequentialTest
from dpdq.distance.sequential import sequential_test as sequential_test
from dpdq.distance.sinkhorn import SinkhornDivergence as SinkhornDivergence
from dpdq.distance.sinkhorn import sinkhorn_divergence as sinkhorn_divergence
from dpdq.distance.sliced import SlicedDistance as SlicedDistance
from dpdq.distance.sliced import sliced_wasserstein as sliced_wasserstein
from dpdq.distance.sliced_adaptive import AdaptiveSlicedWasserstein as AdaptiveSlicedWasserstein
from dpdq.distance.sliced_adaptive import SliceBound as SliceBound
from dpdq.distance.sliced_tests import sliced_wasserstein_test as sliced_wasserstein_test
from dpdq.distance.univariate import compare_column as compare_column
from dpdq.distance.univariate import false_discovery_rate as false_discovery_rate
from dpdq.distance.univariate import univariate_tests as univariate_tests
