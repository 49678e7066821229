from dpdq.gradients.in_inputs import true_logit_input_gradients as true_logit_input_gradients
from dpdq.gradients.norms import per_sample_gradient_norms as per_sample_gradient_norms
from dpdq.gradients.regression import (
    softmax_regression_gradient_norms as softmax_regression_gradient_norms,
)

__all__ = [
    "per_sample_gradient_norms",
    "softmax_regression_gradient_norms",
    "true_logit_input_gradients",
]
