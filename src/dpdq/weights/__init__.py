"""Weights that make q stand for p, and whether they can be trusted.

    w_i = r(x_i) / mean(r),   r = dP/dQ at the rows x_i of q

turns a mean over q into a mean over p. Weights are built from log weights, so that no range is
lost; their scale means nothing, and `Weights.values` have mean one over the rows that are kept
(log weight -infinity drops a row). What the definition does not fix is how far to trust them:

    effective sample size   (sum w)^2 / sum w^2, at most n; n / (1 + chi^2(P || Q)) in expectation
    k-hat                   the shape of the largest weights' tail: a mean over p has a finite
                            variance below 1/2, is usable in practice below the limit
                            min(1 - 1 / log10 n, 0.7), and is not a mean of anything above 1
    share of the top 1 %    how few rows carry the answer

The effective size describes the rows at hand and looks harmless when the row that matters was never
drawn; k-hat looks at how the tail grows, and is the one to go by. Weights that fail can be tamed at
the price of a bias: `Weights.smooth` (the tail replaced by its fit, the mildest), `Weights.clip`,
`Weights.temper`. Where p lies outside q's reach none of them helps.
"""

from dpdq.weights.importance import Weights
from dpdq.weights.log_weights import effective_sample_size, logmeanexp
from dpdq.weights.pareto_tail import pareto_khat

__all__ = ["Weights", "effective_sample_size", "pareto_khat", "logmeanexp"]
