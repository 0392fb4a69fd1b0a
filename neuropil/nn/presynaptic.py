"""Where a layer's weight gradient is (error) x (presynaptic activity), and how to look at that activity.

For linear layers and convolutions the weight gradient is a sum of outer products of an error with the activity
that entered the layer. Mechanisms that protect, remember or measure that activity share what is here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize
from torch.utils.hooks import RemovableHandle

from neuropil.errors import IncompatibleError, UnknownNameError, nearest

Synapse = nn.Linear | nn.Conv2d


def synapses(model: nn.Module, *, exclude: Iterable[str] = ()) -> dict[str, Synapse]:
    """Layers of `model` whose weight gradient is error times presynaptic activity, by name.

    These are `nn.Linear` and `nn.Conv2d` and their subclasses, less those named in `exclude`.

    Raises:
        UnknownNameError: a name in `exclude` is no such layer.
        IncompatibleError: a grouped convolution, or a parametrized or shared weight, whose gradient has another
            form.

    >>> list(synapses(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), exclude=["2"]))
    ['0']
    """
    found = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)}
    exclude = set(exclude)
    for name in exclude:
        if name not in found:
            raise UnknownNameError(
                f"exclude: no linear or convolutional layer {name!r}{nearest(name, found)}"
            )
    chosen = {name: layer for name, layer in found.items() if name not in exclude}
    owners: dict[int, str] = {}
    for name, layer in found.items():
        if parametrize.is_parametrized(layer, "weight"):
            continue
        owner = owners.setdefault(id(layer.weight), name)
        if owner != name and (name in chosen or owner in chosen):
            raise IncompatibleError(
                f"layer {name!r}: it shares its weight with layer {owner!r}, so the weight's gradient is a sum over "
                "the activities of both; exclude both"
            )
    for name, layer in chosen.items():
        if isinstance(layer, nn.Conv2d) and layer.groups != 1:
            raise IncompatibleError(f"layer {name!r}: grouped convolutions are not served; exclude it")
        if parametrize.is_parametrized(layer, "weight"):
            raise IncompatibleError(
                f"layer {name!r}: its weight is parametrized, so gradients of its parameters are not error times "
                "presynaptic activity and cannot be projected; exclude it or remove the parametrization"
            )
    return chosen


def fan_in(layer: Synapse) -> int:
    """Number of presynaptic inputs of one output: features, or channels times kernel size."""
    return layer.weight[0].numel()


def rows(layer: Synapse, x: Tensor) -> Tensor:
    """Presynaptic activity as a matrix `[samples, fan_in]`.

    A linear layer's leading dimensions are samples; for a convolution every patch that its kernel meets is one.

    >>> rows(nn.Conv2d(3, 8, 3, padding=1), torch.zeros(2, 3, 5, 5)).shape
    torch.Size([50, 27])
    """
    if isinstance(layer, nn.Linear):
        return x.reshape(-1, x.shape[-1])
    x = x.reshape(-1, *x.shape[-3:])  # of [time, batch, channels, height, width], or one sample alone
    padding: Any = layer.padding
    if isinstance(padding, str) or layer.padding_mode != "zeros":
        mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
        x, padding = functional.pad(x, layer._reversed_padding_repeated_twice, mode=mode), 0
    patches = functional.unfold(x, layer.kernel_size, layer.dilation, padding, layer.stride)
    return patches.mT.reshape(-1, patches.shape[1])


def error_rows(layer: Synapse, error: Tensor) -> Tensor:
    """The error at a layer's output as a matrix `[samples, outputs]`, its rows those of `rows`."""
    if isinstance(layer, nn.Linear):
        return error.reshape(-1, error.shape[-1])
    error = error.reshape(-1, *error.shape[-3:])
    return error.flatten(2).mT.reshape(-1, error.shape[1])


def observe(layer: Synapse, callback: Callable[[Tensor], None]) -> RemovableHandle:
    """Call `callback(activity)` at each forward pass with what multiplies the error in the weight gradient.

    That is the layer's input, or the presynaptic trace where the layer learns from one (it then passes it
    through a child module named `presynaptic`).
    """
    site = getattr(layer, "presynaptic", layer)

    def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
        if module is site:  # a deep copy of the model carries this hook too, but is another model
            callback(args[0].detach())

    handle: RemovableHandle = site.register_forward_pre_hook(hook)
    return handle


class _WeightGradient(torch.autograd.Function):
    """Identity on a layer's output that gives `weight` the gradient `error^T factor`."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, weight: Tensor, factor: Tensor, layer: Synapse) -> Tensor:
        ctx.save_for_backward(factor)
        ctx.layer = layer
        return output.view_as(output)

    @staticmethod
    def backward(ctx: Any, *errors: Any) -> Any:
        (error,) = errors
        (factor,) = ctx.saved_tensors
        gradient = error_rows(ctx.layer, error).to(factor).mT @ factor  # under autocast they differ
        return error, gradient.view_as(ctx.layer.weight), None, None


def weight_gradient(layer: Synapse, output: Tensor, factor: Tensor) -> Tensor:
    """`output` unchanged, but the layer's weight will receive `error^T factor` as its gradient.

    `output` must have been computed with a weight that asks for no gradient, or both would be added.
    `factor` is `[samples, fan_in]`, row by row what `rows` gives.
    """
    result: Tensor = _WeightGradient.apply(output, layer.weight, factor, layer)  # type: ignore[no-untyped-call]
    return result
