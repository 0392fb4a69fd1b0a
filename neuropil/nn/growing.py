"""Growing the outputs of a layer in a model that is there already, for answers that were not known before."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils import parametrize

from neuropil.errors import ConfigError, IncompatibleError, UnknownNameError, nearest
from neuropil.nn.sharing import Model, shared_copy


def grow_outputs(
    model: Model, extra: int, *, layer: str | None = None, generator: torch.Generator | None = None
) -> Model:
    """A model with `extra` more outputs in one layer; the one given stays as it is, and all other tensors are shared.

    The old outputs' weights keep their bits. The new rows are drawn as torch draws those of a new layer, evenly from
    plus or minus one over the root of the number of inputs. An optimizer knows the old tensors: make it of the new
    model, or grow inside a training loop with `GrowingHead`.

    Args:
        extra: outputs to add, at least 1.
        layer: name of a linear or convolutional layer; left out, the last one that the model registered.
        generator: draws the new weights.

    Raises:
        ConfigError: fewer than 1 output, or a model without such a layer.
        UnknownNameError: no such layer.
        IncompatibleError: a layer whose other tensors would not fit, which is parametrized, or which shares its weight.

    >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> wider = grow_outputs(net, 3)
    >>> wider(torch.rand(1, 4)).shape, net(torch.rand(1, 4)).shape
    (torch.Size([1, 5]), torch.Size([1, 2]))
    """
    name, _ = head_of(model, layer)
    grown = shared_copy(model)
    target = grown.get_submodule(name)
    for key, tensor in grown_tensors(target, extra, generator).items():
        if key in target._parameters:
            old = cast(nn.Parameter, target._parameters[key])
            target._parameters[key] = nn.Parameter(tensor, requires_grad=old.requires_grad)
        else:
            target._buffers[key] = tensor
    count_outputs(target, extra)
    return grown


def head_of(model: nn.Module, layer: str | None = None) -> tuple[str, nn.Linear | _ConvNd]:
    """Name and module of the layer to grow: the one named, or the last linear or convolutional one."""
    found = {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear | _ConvNd)}
    if not found:
        raise ConfigError("the model has no linear or convolutional layer whose outputs could grow")
    name = list(found)[-1] if layer is None else layer
    if name not in found:
        raise UnknownNameError(f"no linear or convolutional layer {name!r}{nearest(name, found)}")
    module = found[name]
    if parametrize.is_parametrized(module):
        raise IncompatibleError(
            f"layer {name!r} is parametrized: grow it before, then register the parametrization"
        )
    if any(other.weight is module.weight for key, other in found.items() if key != name):
        raise IncompatibleError(
            f"layer {name!r} shares its weight with another layer, which would grow as well"
        )
    if isinstance(module, _ConvNd) and (module.groups != 1 or module.transposed):
        raise IncompatibleError(f"layer {name!r}: grouped and transposed convolutions cannot grow outputs")
    return name, module


def grown_tensors(
    layer: nn.Module, extra: int, generator: torch.Generator | None = None
) -> dict[str, Tensor]:
    """Every tensor of a layer that has a row for each output, with `extra` new rows; nothing is changed."""
    if extra < 1:
        raise ConfigError(f"extra: {extra} new outputs, expected at least 1")
    weight = cast(Tensor, layer.weight)
    bound = 1 / math.sqrt(max(1, weight[0].numel()))
    grown = {}
    for name, tensor in {**layer._parameters, **layer._buffers}.items():
        if tensor is None or not tensor.dim() or len(tensor) != len(weight):
            continue
        if tensor.shape not in (weight.shape, weight.shape[:1]):
            kind = type(layer).__name__
            raise IncompatibleError(
                f"{kind}: tensor {name!r} of shape {list(tensor.shape)} cannot grow with the outputs"
            )
        rows = torch.empty(extra, *tensor.shape[1:], dtype=tensor.dtype)  # drawn where the generator lives
        rows.uniform_(-bound, bound, generator=generator)
        grown[name] = torch.cat([tensor.detach(), rows.to(tensor.device)])
    return grown


def count_outputs(layer: nn.Module, extra: int) -> None:
    """Let a layer know of its new outputs."""
    key = "out_features" if isinstance(layer, nn.Linear) else "out_channels"
    setattr(layer, key, getattr(layer, key) + extra)
