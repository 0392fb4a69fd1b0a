"""Gradients sample by sample, for any model: what Fisher information, gradient norms and influence are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from neuropil.training.evaluating import evaluating

Loss = Callable[[Tensor, Tensor], Tensor]


def per_sample_gradients(
    model: nn.Module, loss: Loss, inputs: Tensor, targets: Tensor, *, batch_size: int = 64
) -> Iterator[dict[str, Tensor]]:
    """Gradients of each sample's own loss, `batch_size` samples at a time, in evaluation mode.

    All samples of a chunk are differentiated in one pass (`torch.func`); a model that this cannot see through, for
    instance one with compiled kernels, is differentiated sample by sample, with the same result.

    Args:
        model: `inputs -> outputs`; it is left as it is, its own gradients too.
        loss: `(outputs [1, ...], targets [1, ...]) -> scalar`.
        inputs: `[samples, ...]`.
        targets: `[samples, ...]`.
        batch_size: samples whose gradients are held at once: `batch_size` times the parameters' memory.

    Yields:
        Gradients `[chunk, *parameter]` by the name of each parameter that requires one.

    >>> net = nn.Linear(3, 2)
    >>> x, y = torch.randn(5, 3), torch.tensor([0, 1, 0, 1, 1])
    >>> chunk, = per_sample_gradients(net, nn.functional.cross_entropy, x, y)
    >>> chunk["weight"].shape
    torch.Size([5, 2, 3])
    """
    trained = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    fixed = {name: p.detach() for name, p in model.named_parameters() if not p.requires_grad}
    fixed |= {name: buffer.detach() for name, buffer in model.named_buffers()}

    def one(parameters: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return loss(functional_call(model, {**parameters, **fixed}, (x[None],)), y[None])

    together: Any = vmap(grad(one), in_dims=(None, 0, 0))
    with evaluating(model):
        for x, y in zip(inputs.split(batch_size), targets.split(batch_size), strict=True):
            try:
                chunk = together(trained, x, y)
            except (
                RuntimeError
            ):  # an operator without a batching rule; an error of the model's own comes again below
                chunk = _one_by_one(model, loss, x, y)
            yield chunk


def gradient_norms(
    model: nn.Module, loss: Loss, inputs: Tensor, targets: Tensor, *, batch_size: int = 64
) -> Tensor:
    """Euclidean norm `[samples]` of the gradient of each sample's own loss, over all parameters.

    Arguments as for `per_sample_gradients`. Where all parameters are those of linear layers on `[batch, features]`, no
    gradient is formed: a layer's gradient is its error times its input, and its norm the product of their norms
    (Goodfellow, arXiv:1510.01799). That takes samples not to see each other in evaluation mode.

    >>> net = nn.Linear(1, 1, bias=False)
    >>> gradient_norms(net, lambda y, t: (y - t).sum(), torch.tensor([[3.0], [-4.0]]), torch.zeros(2, 1))
    tensor([3., 4.])
    """
    layers = _lone_linear_layers(model)
    norms = []
    for x, y in zip(inputs.split(batch_size), targets.split(batch_size), strict=True):
        squares = _squares_of_linear_layers(model, layers, loss, x, y) if layers else None
        if squares is None:
            (chunk,) = per_sample_gradients(model, loss, x, y, batch_size=len(x))
            squares = sum((g.reshape(len(g), -1).square().sum(1) for g in chunk.values()), torch.zeros(()))
        norms.append(squares.sqrt())
    return torch.cat(norms)


def _lone_linear_layers(model: nn.Module) -> list[nn.Linear]:
    """The linear layers, if no other module has a parameter and none is shared; else nothing."""
    layers = [module for module in model.modules() if type(module) is nn.Linear]
    own = [id(p) for layer in layers for p in layer.parameters()]
    alone = len(own) == len(set(own)) and set(own) == {id(p) for p in model.parameters()}
    return layers if alone and all(p.requires_grad for p in model.parameters()) else []


def _squares_of_linear_layers(
    model: nn.Module, layers: list[nn.Linear], loss: Loss, inputs: Tensor, targets: Tensor
) -> Tensor | None:
    """Squared norms `[batch]`; None where a layer was not called just once, on `[batch, features]`."""
    calls: list[tuple[nn.Linear, Tensor, Tensor]] = []

    def keep(layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        calls.append((cast(nn.Linear, layer), args[0].detach(), output))

    handles = [layer.register_forward_hook(keep) for layer in layers]
    try:
        with evaluating(model), torch.enable_grad():
            outputs = model(inputs)
            once = len(calls) == len(layers) == len({id(layer) for layer, *_ in calls})
            if not once or any(x.shape[:-1] != inputs.shape[:1] for _, x, _ in calls):
                return None
            losses = torch.stack(
                [loss(o, t) for o, t in zip(outputs.split(1), targets.split(1), strict=True)]
            )
            errors = torch.autograd.grad(losses.sum(), [y for *_, y in calls])
    finally:
        for handle in handles:
            handle.remove()
    squares = [
        error.square().sum(1) * (x.square().sum(1) + (layer.bias is not None))
        for (layer, x, _), error in zip(calls, errors, strict=True)
    ]
    return torch.stack(squares).sum(0)


def _losses(loss: Loss, outputs: Tensor, targets: Tensor) -> Tensor:
    """Each sample's own loss `[batch]`."""

    def one(output: Tensor, target: Tensor) -> Tensor:
        return loss(output[None], target[None])

    try:
        found: Tensor = vmap(one)(outputs, targets)
    except RuntimeError:  # a loss that looks at values
        found = torch.stack([loss(o, t) for o, t in zip(outputs.split(1), targets.split(1), strict=True)])
    return found


def _one_by_one(model: nn.Module, loss: Loss, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    rows: list[tuple[Tensor, ...]] = []
    with torch.enable_grad():
        for x, y in zip(inputs.split(1), targets.split(1), strict=True):
            found = torch.autograd.grad(loss(model(x), y), list(named.values()), allow_unused=True)
            rows.append(
                tuple(
                    torch.zeros_like(p) if g is None else g
                    for p, g in zip(named.values(), found, strict=True)
                )
            )
    return {name: torch.stack(column) for name, column in zip(named, zip(*rows, strict=True), strict=True)}
