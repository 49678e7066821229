"""Squared norms of one layer's per-sample gradients, from its inputs and output gradients.

A function here takes the layer and its uses, pairs (inputs, gradient of the output) of one call
each, and gives a number a sample. A layer that is called twice has twice as many positions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from dpdq._optional import require

if TYPE_CHECKING:
    import torch

__all__ = ["layer_kind", "wide"]

BLOCK = 1 << 22  # numbers of a temporary array: 16 MiB in float32


def wide(x: torch.Tensor) -> torch.dtype:
    """Type in which squares are summed."""
    torch = require("torch")
    return torch.float32 if x.device.type == "mps" else torch.float64


def squares(x: torch.Tensor) -> torch.Tensor:
    """Squared norm of each sample."""
    torch = require("torch")
    return torch.linalg.vector_norm(x.flatten(1), dim=1, dtype=wide(x)) ** 2


def blocks(n: int, numbers: int) -> Iterator[slice]:
    """Ranges of samples of which each takes ``numbers`` numbers."""
    size = max(1, BLOCK // max(1, numbers))
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))


def outer_squares(a: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
    """|sum_t g_t a_t'|^2 of each sample, from (n, T, d) and (n, T, m), by the cheaper of two ways.

    Products are formed in the tensors' own type and added up in a wide one.
    """
    torch = require("torch")
    n, positions, d = a.shape
    m = g.shape[2]
    if positions == 1:
        return squares(a) * squares(g)
    total = torch.empty(n, dtype=wide(a), device=a.device)
    if d * m <= positions * (d + m):
        for part in blocks(n, d * m):
            total[part] = squares(torch.bmm(g[part].transpose(1, 2), a[part]))
        return total
    for part in blocks(n, 2 * positions * positions):
        gram = torch.bmm(a[part], a[part].transpose(1, 2))
        gram *= torch.bmm(g[part], g[part].transpose(1, 2))
        total[part] = gram.sum(dim=(1, 2), dtype=total.dtype)
    return total.clamp_min_(0.0)


def _linear(layer: torch.nn.Linear, uses: list[tuple[Any, Any]]) -> torch.Tensor:
    torch = require("torch")
    a = torch.cat([x.reshape(len(x), -1, x.shape[-1]) for x, _ in uses], dim=1)
    g = torch.cat([y.reshape(len(y), -1, y.shape[-1]) for _, y in uses], dim=1)
    a = a.to(g.dtype)
    total = torch.zeros(len(g), dtype=wide(g), device=g.device)
    if layer.weight.requires_grad:
        total += outer_squares(a, g)
    if layer.bias is not None and layer.bias.requires_grad:
        total += squares(g.sum(dim=1))
    return total


def _patches(layer: Any, x: torch.Tensor) -> torch.Tensor:
    """What each output position of a convolution sees, (n, channels * kernel, positions)."""
    functional = require("torch").nn.functional
    kernel, dilation, stride = layer.kernel_size, layer.dilation, layer.stride
    if layer.padding == "same":
        wide = [step * (size - 1) for size, step in zip(kernel, dilation, strict=True)]
        ends = [end for w in reversed(wide) for end in (w // 2, w - w // 2)]
        x, padding = functional.pad(x, ends), (0,) * len(kernel)
    else:
        padding = (0,) * len(kernel) if layer.padding == "valid" else layer.padding
    if len(kernel) == 1:  # a convolution of one row
        x = x.unsqueeze(2)
        kernel, dilation = (1, *kernel), (1, *dilation)
        padding, stride = (0, *padding), (1, *stride)
    return functional.unfold(x, kernel, dilation, padding, stride)


def _convolution(layer: Any, uses: list[tuple[Any, Any]]) -> torch.Tensor:
    torch = require("torch")
    groups, n = layer.groups, len(uses[0][0])
    total = torch.zeros(n, dtype=wide(uses[0][1]), device=uses[0][1].device)
    if layer.bias is not None and layer.bias.requires_grad:
        total += squares(torch.cat([y.flatten(2) for _, y in uses], dim=2).sum(dim=2))
    if not layer.weight.requires_grad:
        return total
    numbers = sum(layer.weight[0].numel() * groups * y[0, 0].numel() for _, y in uses)
    for part in blocks(n, numbers):
        a = torch.cat([_patches(layer, x[part]) for x, _ in uses], dim=2)
        g = torch.cat([y[part].flatten(2) for _, y in uses], dim=2)
        a, g = (z.unflatten(1, (groups, -1)).transpose(2, 3) for z in (a, g))
        for inputs, gradients in zip(a.unbind(1), g.unbind(1), strict=True):
            total[part] += outer_squares(inputs.to(gradients.dtype), gradients)
    return total


def _embedding(layer: torch.nn.Embedding, uses: list[tuple[Any, Any]]) -> torch.Tensor:
    torch = require("torch")
    tokens = torch.cat([x.reshape(len(x), -1) for x, _ in uses], dim=1)
    g = torch.cat([y.reshape(len(y), -1, y.shape[-1]) for _, y in uses], dim=1)
    if layer.padding_idx is not None:
        g = g * (tokens != layer.padding_idx).unsqueeze(2)
    n, positions = tokens.shape
    if positions == 1:
        return squares(g)
    total = torch.empty(n, dtype=wide(g), device=g.device)
    for part in blocks(n, 2 * positions * positions):
        gram = torch.bmm(g[part], g[part].transpose(1, 2))
        gram *= tokens[part].unsqueeze(2) == tokens[part].unsqueeze(1)
        total[part] = gram.sum(dim=(1, 2), dtype=total.dtype)
    return total.clamp_min_(0.0)


def _standardised(layer: Any, x: torch.Tensor) -> torch.Tensor:
    """What a normalisation hands to its scale."""
    torch = require("torch")
    functional = torch.nn.functional
    if isinstance(layer, torch.nn.LayerNorm):
        return functional.layer_norm(x, layer.normalized_shape, None, None, layer.eps)
    if isinstance(layer, torch.nn.RMSNorm):
        return functional.rms_norm(x, layer.normalized_shape, None, layer.eps)
    if isinstance(layer, torch.nn.GroupNorm):
        return functional.group_norm(x, layer.num_groups, None, None, layer.eps)
    return functional.batch_norm(x, layer.running_mean, layer.running_var, eps=layer.eps)


def _normalisation(layer: Any, uses: list[tuple[Any, Any]]) -> torch.Tensor:
    torch = require("torch")
    parts = []
    by_channel = not isinstance(layer, (torch.nn.LayerNorm, torch.nn.RMSNorm))
    for x, y in uses:
        if by_channel:  # (n, channels, positions...)
            parts.append([z.reshape(*z.shape[:2], -1).transpose(1, 2)
                          for z in (y * _standardised(layer, x), y)])  # fmt: skip
        else:  # (n, positions..., normalised axes)
            axes = y.dim() - len(layer.normalized_shape)
            parts.append([z.flatten(axes).reshape(len(z), -1, z.flatten(axes).shape[-1])
                          for z in (y * _standardised(layer, x), y)])  # fmt: skip
    total = torch.zeros(len(uses[0][1]), dtype=wide(uses[0][1]), device=uses[0][1].device)
    for place, name in enumerate(("weight", "bias")):
        parameter = getattr(layer, name, None)
        if parameter is not None and parameter.requires_grad:
            total += squares(torch.stack([part[place].sum(dim=1) for part in parts]).sum(dim=0))
    return total


def layer_kind(
    layer: torch.nn.Module,
) -> Callable[[Any, list[tuple[Any, Any]]], torch.Tensor] | str:
    """The function that serves a layer, or why there is none."""
    nn = require("torch").nn
    norms = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.BatchNorm1d, nn.BatchNorm2d)
    kinds = {
        nn.Linear: _linear,
        nn.Conv1d: _convolution,
        nn.Conv2d: _convolution,
        nn.Embedding: _embedding,
        **dict.fromkeys(norms, _normalisation),
    }
    own = {name for name, _ in layer.named_parameters(recurse=False)}
    for kind, function in kinds.items():
        if not isinstance(layer, kind) or type(layer).forward is not kind.forward:
            continue
        if not own <= {"weight", "bias"}:
            return f"has parameters {', '.join(sorted(own))}"
        if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)) and (
            layer.training or layer.running_mean is None
        ):
            return "mixes the samples of a batch; call model.eval() and keep running statistics"
        if isinstance(layer, (nn.Conv1d, nn.Conv2d)) and layer.padding_mode != "zeros":
            return f"pads by {layer.padding_mode!r}; only zeros are covered"
        if isinstance(layer, nn.Embedding) and (layer.max_norm or layer.scale_grad_by_freq):
            return "rescales its rows or gradients (max_norm, scale_grad_by_freq)"
        return function
    return "is of a kind that is not covered"
