"""Gradients in a model's inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dpdq._optional import require
from dpdq.errors import DataError

if TYPE_CHECKING:
    import torch

__all__ = ["true_logit_input_gradients"]


def true_logit_input_gradients(
    model: torch.nn.Module, inputs: torch.Tensor, labels: torch.Tensor, *, batch_size: int = 512
) -> torch.Tensor:
    """Gradient of each sample's true-class logit in its own input.

        s_i = d f_{y_i}(x_i) / d x_i

    For text give a model of embeddings in place of one of tokens. Misleads in training mode, where
    batch normalisation lets samples influence each other.

    Parameters
    ----------
    model
        Maps (n, ...) to logits (n, c), each sample by itself.
    inputs
        Floating-point inputs, shape (n, ...).
    labels
        Class numbers, shape (n,).
    batch_size
        Samples of a pass.

    Returns
    -------
    torch.Tensor
        Gradients, shape of ``inputs``.

    Raises
    ------
    DataError
        Outputs that are not (n, c).

    Notes
    -----
    Cost: one forward and one backward pass.
    Held by: tests/test_gradients.py::test_input_gradients_equal_the_loop

    Examples
    --------
    >>> import torch
    >>> from dpdq.gradients import true_logit_input_gradients
    >>> model = torch.nn.Linear(2, 3)
    >>> found = true_logit_input_gradients(model, torch.zeros(2, 2), torch.tensor([2, 0]))
    >>> torch.equal(found, model.weight[[2, 0]])
    True
    """
    torch = require("torch", "true_logit_input_gradients")
    done = []
    for start in range(0, len(inputs), batch_size):
        x = inputs[start : start + batch_size].detach().requires_grad_(True)
        y = labels[start : start + batch_size]
        with torch.enable_grad():
            logits = model(x)
            if logits.dim() != 2 or len(logits) != len(x):
                raise DataError(
                    f"the model returned shape {tuple(logits.shape)} for {len(x)} samples; "
                    "expected logits (n, classes)"
                )
            chosen = logits.gather(1, y.view(-1, 1)).sum()
        done.append(torch.autograd.grad(chosen, x)[0])
    return torch.cat(done)
