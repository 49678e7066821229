"""Norms of per-sample gradients, without the gradients.

A model with parameters theta has a loss l_i(theta) at every sample i. Its gradient norm
|grad_theta l_i| says how far the sample alone would move the model: GraNd averages it, TracIn sums
its square, importance sampling draws by it. A batch's backward pass holds only the sum of the
gradients, yet all that their norms need passes through it. In a linear layer y_t = W a_t + b with
inputs a_t (T positions a sample; one in a plain network) and g_t = dl/dy_t,

    grad_W l = sum_t g_t a_t',         grad_b l = sum_t g_t
    |grad_W l|^2 = |g|^2 |a|^2                                  T = 1
                 = sum_st (g_s.g_t) (a_s.a_t)                   T > 1: two Gram matrices

and a convolution is a linear layer over its patches. Embeddings have a_s.a_t = 1 where the tokens
are equal; the scales of a normalisation have few parameters, and their gradients are written out.

What it does not fix: which parameters count. All of them is GraNd's definition; the last layer
alone is far cheaper, since the backward pass ends there, and ranks samples much alike. A sample
must have a gradient of its own: layers that mix the samples of a batch (batch normalisation in
training) have none and are refused, as are layers that this trick does not cover.

    per_sample_gradient_norms            a torch module
    softmax_regression_gradient_norms    softmax or logistic regression, NumPy, closed form
    true_logit_input_gradients           gradients in the inputs, of which `dpdq.select` makes VoG
"""

from dpdq._lazy import attach as _attach

__getattr__, __dir__, __all__ = _attach(
    __name__,
    {
        "per_sample_gradient_norms": "norms",
        "softmax_regression_gradient_norms": "regression",
        "true_logit_input_gradients": "in_inputs",
    },
)
