"""How far p is from q, as a mean over the ratio: the one table of f-divergences.

    D_f(P || Q) = E_Q[f(r)],  r = dP/dQ,  f convex,  f(1) = 0

Everything that the rest of the library does with a divergence is one of six functions of r, and
each stands here once, as a function of ``log_r``:

    f, f', f''      the generator and its derivatives
    f*              the Fenchel conjugate: D_f = sup over critics T of E_P[T] - E_Q[f*(T)],
                    attained at T = f'(r), where f*(f'(r)) = r f'(r) - f(r)
    (f')^(-1)       the ratio from a critic, given back as log r
    h = f'' r^2     the weight of the score difference in distillation; 1 for reverse KL

The ratio itself never appears: log r from -50 to 50 spans 43 orders of magnitude, and r - 1 near
r = 1 loses its digits. All formulas keep 12 digits in float64 (5 in float32) wherever the value is
representable, give its limit elsewhere, and take NumPy arrays and torch tensors alike.

What the definition does not fix: a multiple of r - 1 (`Divergence.standard` fixes it by f'(1) = 0),
a scale (the generators keep the usual table's; reports multiply by `Divergence.scale_to_report`),
and who is p (`Divergence.swapped` exchanges the laws).

Which to choose: `JensenShannon` and `SquaredHellinger` are bounded, symmetric and estimable from
samples; `TotalVariation` has the plainest meaning and no gradient; `KL` and `PearsonChi2` tell what
importance weighting will cost and may be infinite; `ReverseKL`, `SoftenedReverseKL` and
`NeymanChi2` punish mass of q that p lacks; `Jeffreys` punishes both ways; `AlphaDivergence` moves
between them.
"""

from dpdq.divergences.base import Divergence
from dpdq.divergences.kullback_leibler import (
    KL,
    Jeffreys,
    ReverseKL,
    StandardKL,
    StandardReverseKL,
)
from dpdq.divergences.lookup import DIVERGENCES, divergence
from dpdq.divergences.mixtures import (
    JensenShannon,
    SoftenedKL,
    SoftenedReverseKL,
    StandardSoftenedKL,
    StandardSoftenedReverseKL,
)
from dpdq.divergences.powers import AlphaDivergence, NeymanChi2, PearsonChi2, SquaredHellinger
from dpdq.divergences.variation import TotalVariation

__all__ = [
    "Divergence",
    "KL",
    "ReverseKL",
    "JensenShannon",
    "TotalVariation",
    "PearsonChi2",
    "NeymanChi2",
    "SquaredHellinger",
    "AlphaDivergence",
    "SoftenedReverseKL",
    "SoftenedKL",
    "Jeffreys",
    "StandardKL",
    "StandardReverseKL",
    "StandardSoftenedReverseKL",
    "StandardSoftenedKL",
    "DIVERGENCES",
    "divergence",
]
