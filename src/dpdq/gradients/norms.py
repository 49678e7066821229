"""One forward pass that listens to the layers, one backward pass that ends at them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dpdq._optional import is_torch, require
from dpdq.errors import DataError, InputTypeError, OptionError
from dpdq.gradients._layers import layer_kind, wide

if TYPE_CHECKING:
    import torch

__all__ = ["per_sample_gradient_norms"]


@dataclasses.dataclass
class _Use:
    """One call of a layer: what went in, and where its output stands in the graph."""

    value: torch.Tensor
    version: int
    edge: Any


def _trainable(model: torch.nn.Module) -> dict[str, torch.nn.Module]:
    """Layers that own parameters which are trained, by name."""
    return {
        name: layer
        for name, layer in model.named_modules()
        if any(p.requires_grad for p in layer.parameters(recurse=False))
    }


def _check_layers(layers: Mapping[str, torch.nn.Module]) -> None:
    owners: dict[int, str] = {}
    for name, layer in layers.items():
        kind = layer_kind(layer)
        if isinstance(kind, str):
            raise InputTypeError(
                f"layer {name!r} ({type(layer).__name__}) {kind}; freeze it with "
                "requires_grad_(False), or name the layers that count with layers=[...]"
            )
        for parameter in layer.parameters(recurse=False):
            first = owners.setdefault(id(parameter), name)
            if first != name:
                raise InputTypeError(
                    f"layers {first!r} and {name!r} share a parameter; the norm of a gradient that "
                    "comes from both is not covered: name the layers that count with layers=[...]"
                )


def _edges(root: Any) -> dict[int, int]:
    """How often each parameter enters the graph of a loss, by its id."""
    counts: dict[int, int] = {}
    seen, stack = {root}, [root]
    while stack:
        for node, _ in stack.pop().next_functions:
            if node is None:
                continue
            leaf = getattr(node, "variable", None)
            if leaf is not None:
                counts[id(leaf)] = counts.get(id(leaf), 0) + 1
            elif node not in seen:
                seen.add(node)
                stack.append(node)
    return counts


def _check_edges(root: Any, layers: Mapping[str, Any], uses: Mapping[str, list[_Use]]) -> None:
    """Refuse parameters that reach the loss past their layer's own call."""
    counts = _edges(root)
    for name, layer in layers.items():
        for kind, parameter in layer.named_parameters(recurse=False):
            if parameter.requires_grad and counts.get(id(parameter), 0) > len(uses.get(name, [])):
                raise InputTypeError(
                    f"the {kind} of layer {name!r} is used outside of the layer's own call; such a "
                    "use is not covered: name the layers that count with layers=[...]"
                )


def _length(inputs: Any) -> int:
    first = inputs
    while not is_torch(first):
        values = list(first.values()) if isinstance(first, Mapping) else first
        if not isinstance(values, (list, tuple)) or not values:
            raise InputTypeError(
                f"inputs of type {type(inputs).__name__}; expected a tensor, or a tuple or mapping "
                "of tensors whose first axis is the sample"
            )
        first = values[0]
    return len(first)


def _take(values: Any, part: slice) -> Any:
    if values is None:
        return None
    if isinstance(values, Mapping):
        return {name: _take(each, part) for name, each in values.items()}
    if isinstance(values, (list, tuple)):
        return tuple(_take(each, part) for each in values)
    return values[part]


def _call(model: Callable[..., Any], inputs: Any) -> Any:
    if isinstance(inputs, Mapping):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, tuple) else model(inputs)


def _forward(
    model: torch.nn.Module, inputs: Any, layers: Mapping[str, torch.nn.Module]
) -> tuple[Any, dict[str, list[_Use]]]:
    """Outputs of a model, and what each layer saw."""
    torch = require("torch")
    n = _length(inputs)
    uses: dict[str, list[_Use]] = {}

    def remember(name: str) -> Callable[..., None]:
        def hook(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            value = args[0] if args else kwargs["input"]
            if len(value) != n or len(output) != n:
                raise DataError(
                    f"layer {name!r} received {len(value)} rows for {n} samples; the first axis "
                    "must be the sample (for position embeddings and the like: freeze the layer, "
                    "or name the layers that count with layers=[...])"
                )
            if not output.requires_grad:
                raise DataError(f"layer {name!r} ran without gradients, such as in a checkpoint")
            edge = torch.autograd.graph.get_gradient_edge(output)
            uses.setdefault(name, []).append(_Use(value.detach(), value._version, edge))

        return hook

    handles = [
        layer.register_forward_hook(remember(name), with_kwargs=True)
        for name, layer in layers.items()
    ]
    try:
        with torch.enable_grad():
            outputs = _call(model, inputs)
    finally:
        for handle in handles:
            handle.remove()
    if n > 1 and any(use.value.dim() == 1 for each in uses.values() for use in each):
        # An embedding of one index a sample, or of as many positions as there are samples?
        _forward(model, _take(inputs, slice(0, 1)), layers)
    return outputs, uses


def _batch_norms(
    model: torch.nn.Module,
    loss: Callable[[Any, Any], torch.Tensor],
    inputs: Any,
    targets: Any,
    layers: Mapping[str, torch.nn.Module],
    *,
    last: bool,
) -> torch.Tensor:
    """Squared gradient norms of one batch."""
    torch = require("torch")
    n = _length(inputs)
    outputs, uses = _forward(model, inputs, layers)
    with torch.enable_grad():
        losses = loss(outputs, targets)
    if tuple(losses.shape) != (n,):
        raise DataError(
            f"loss returned shape {tuple(losses.shape)}; expected ({n},), one loss a sample "
            "(reduction='none')"
        )
    if losses.grad_fn is None or not uses:
        raise DataError("the loss does not depend on any trainable layer")
    if last:
        name = list(uses)[-1]
        layers, uses = {name: layers[name]}, {name: uses[name]}
        _check_layers(layers)
    _check_edges(losses.grad_fn, layers, uses)
    calls = [(name, use) for name, each in uses.items() for use in each]
    gradients = torch.autograd.grad(losses.sum(), [use.edge for _, use in calls], allow_unused=True)
    pairs: dict[str, list[tuple[Any, Any]]] = {}
    for (name, use), gradient in zip(calls, gradients, strict=True):
        if use.value._version != use.version:
            raise DataError(
                f"the input of layer {name!r} was changed in place after the layer used it; "
                "turn the in-place operation off"
            )
        if gradient is None:
            continue
        if gradient.dtype in (torch.float16, torch.bfloat16):
            gradient = gradient.float()
        pairs.setdefault(name, []).append((use.value, gradient))
    total = torch.zeros(n, dtype=wide(losses), device=losses.device)
    with torch.no_grad():
        for name, each in pairs.items():
            kind = layer_kind(layers[name])
            assert not isinstance(kind, str)
            total += kind(layers[name], each).to(total.device)
    return total


def per_sample_gradient_norms(
    model: torch.nn.Module,
    loss: Callable[[Any, Any], torch.Tensor],
    inputs: Any,
    targets: Any = None,
    *,
    layers: str | Sequence[str] = "all",
    batch_size: int = 512,
) -> torch.Tensor:
    """Norm of every sample's gradient, from one forward and one backward pass.

        |grad l_i|^2 = sum over layers of |grad_W l_i|^2 + |grad_b l_i|^2

    Covers ``Linear``, ``Conv1d``, ``Conv2d``, ``Embedding``, ``LayerNorm``, ``RMSNorm``,
    ``GroupNorm`` and, in evaluation mode, ``BatchNorm1d`` and ``BatchNorm2d``; a trainable layer of
    another kind is refused by name, never left out in silence. No ``.grad`` is touched and no
    weight gradient is computed. Misleads where samples of a batch influence each other outside of
    any layer (a loss with in-batch negatives): the norm is then that of the summed loss's
    gradient through this sample's activations. Dropout stays as the model's mode has it.

    Parameters
    ----------
    model
        A module whose layers keep the sample as first axis.
    loss
        ``loss(outputs, targets)`` -> one loss a sample, shape (n,), such as
        ``CrossEntropyLoss(reduction="none")``.
    inputs
        A tensor, or a tuple or mapping of tensors, which become the model's arguments.
    targets
        What ``loss`` takes second: a tensor, or a tuple or mapping of tensors.
    layers
        ``"all"``; ``"last"``, the layer called last, where the backward pass then ends; or names
        as in ``model.named_modules()``, whose gradients alone count.
    batch_size
        Samples of a pass.

    Returns
    -------
    torch.Tensor of shape (n,)
        Norms, in the type of the losses (at least float32).

    Raises
    ------
    InputTypeError
        A trainable layer that is not covered, or parameters shared by layers.
    DataError
        A loss that is not one number a sample, or a layer whose first axis is not the sample.
    OptionError
        An unknown name in ``layers``.

    Notes
    -----
    Cost: one forward and one backward pass without weight gradients; a layer with T positions
    adds O(n min(T^2 (d + m), T d m)) time; O(batch) memory.
    Held by: tests/test_gradients.py::test_norms_equal_the_loop

    References
    ----------
    .. [Goodfellow2015] Efficient Per-Example Gradient Computations. Goodfellow, 2015,
       arXiv 1510.01799.
    .. [Rochette2019] Efficient Per-Example Gradient Computations in Convolutional Neural Networks.
       Rochette, 2019, arXiv 1912.06015.

    Examples
    --------
    >>> import torch
    >>> from dpdq.gradients import per_sample_gradient_norms
    >>> model = torch.nn.Linear(2, 1, bias=False)
    >>> loss = lambda outputs, targets: outputs[:, 0] * targets
    >>> x = torch.tensor([[3.0, 4.0], [0.0, 1.0]])
    >>> per_sample_gradient_norms(model, loss, x, torch.tensor([1.0, 2.0])).tolist()
    [5.0, 2.0]
    """
    torch = require("torch", "per_sample_gradient_norms")
    trainable = _trainable(model)
    last = layers == "last"
    if isinstance(layers, str):
        if layers not in ("all", "last"):
            raise OptionError(
                f"Unknown layers {layers!r}. Choose one of 'all', 'last', or a list of names."
            )
        chosen = trainable
    else:
        unknown = [name for name in layers if name not in trainable]
        if unknown:
            raise OptionError(
                f"Unknown layer {unknown[0]!r}. Choose among the trainable layers "
                f"{', '.join(map(repr, trainable))}."
            )
        chosen = {name: trainable[name] for name in layers}
    if batch_size < 1:
        raise OptionError(f"batch_size is {batch_size}; expected at least 1")
    if not chosen:
        raise DataError("the model has no trainable parameters")
    if not last:
        _check_layers(chosen)
    n = _length(inputs)
    done = []
    for part in (slice(start, start + batch_size) for start in range(0, n, batch_size)):
        squares = _batch_norms(
            model, loss, _take(inputs, part), _take(targets, part), chosen, last=last
        )
        done.append(squares.sqrt())
    norms = torch.cat(done)
    kind = next(p.dtype for p in model.parameters() if p.requires_grad)
    return norms.to(kind if kind == torch.float64 else torch.float32)
