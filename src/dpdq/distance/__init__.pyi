from dpdq.distance.classifier_tests import classifier_test as classifier_test
from dpdq.distance.detectable import detectable_auc as detectable_auc
from dpdq.distance.detectable import detectable_smd as detectable_smd
from dpdq.distance.divergence_estimates import estimate_divergences as estimate_divergences
from dpdq.distance.divergence_estimates import (
    logistic_model_intervals as logistic_model_intervals,
)
from dpdq.distance.energy_tests import energy_test as energy_test
from dpdq.distance.kernel_distances import energy_distance as energy_distance
from dpdq.distance.kernel_distances import mmd as mmd
from dpdq.distance.kernel_tests import mmd_test as mmd_test
from dpdq.distance.mmd_reference import MMDTest as MMDTest
from dpdq.distance.roc import auc as auc
from dpdq.distance.roc import auc_interval as auc_interval
from dpdq.distance.univariate import compare_column as compare_column
from dpdq.distance.univariate import false_discovery_rate as false_discovery_rate
from dpdq.distance.univariate import univariate_tests as univariate_tests
