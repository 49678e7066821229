from dpdq.reweight._base import ExtendingWeighter as ExtendingWeighter
from dpdq.reweight._base import Weighter as Weighter
from dpdq.reweight._common import ConvergenceError as ConvergenceError
from dpdq.reweight.covariate_balancing import (
    CovariateBalancingPropensity as CovariateBalancingPropensity,
)
from dpdq.reweight.diagnostics import BalanceReport as BalanceReport
from dpdq.reweight.entropy import EntropyBalancing as EntropyBalancing
from dpdq.reweight.estimates import Coefficients as Coefficients
from dpdq.reweight.propensity import InversePropensityWeighting as InversePropensityWeighting
from dpdq.reweight.raking import PostStratification as PostStratification
from dpdq.reweight.raking import Raking as Raking

__all__: list[str]
