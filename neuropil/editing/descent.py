"""A copy of a model, trained on some objective while the model itself stays as it is: what trained edits share."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Adam, Optimizer

from neuropil.data.batching import batches
from neuropil.data.task import Batch, Samples
from neuropil.errors import ConfigError, NonFiniteError, UnknownNameError, nearest
from neuropil.training.allowed import restrict
from neuropil.training.learner import Loss, check_labels

Model = TypeVar("Model", bound=nn.Module)
Objective = Callable[[nn.Module, Batch], Tensor]  # (the copy in training, a batch) -> scalar to minimise
MakeOptimizer = Callable[[Iterable[Tensor]], Optimizer]

ADAM: MakeOptimizer = partial(Adam, lr=1e-3)


def last_layers(model: nn.Module, count: int) -> tuple[str, ...]:
    """Names of the last `count` modules that hold parameters of their own, in the order the model registers them.

    What CF-k and EU-k train: `finetuned(model, retain, layers=last_layers(model, 2))`.

    >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> last_layers(net, 2)
    ('2', '4')
    """
    names = [
        name for name, module in model.named_modules() if any(True for _ in module.parameters(recurse=False))
    ]
    # A layer with a parametrized weight holds it one module further down.
    layers = list(dict.fromkeys(name.partition("parametrizations.")[0].removesuffix(".") for name in names))
    if not 1 <= count <= len(layers):
        raise ConfigError(
            f"last_layers: count is {count}, expected 1 to {len(layers)}, the layers with parameters"
        )
    return tuple(layers[-count:])


def trainable_copy(
    model: Model, layers: Collection[str] | None = None
) -> tuple[Model, dict[str, nn.Parameter]]:
    """A copy that has parameters and buffers of `layers` (None: all) to itself and shares the others.

    Returns the copy and its own parameters that ask for a gradient, by name.
    """
    inside = _inside(model, layers)
    named = itertools.chain(model.named_parameters(), model.named_buffers())
    shared = {id(tensor): tensor for name, tensor in named if not inside(name)}
    twin = copy.deepcopy(model, shared)
    own = {name: p for name, p in twin.named_parameters() if inside(name) and p.requires_grad}
    if not own:
        raise ConfigError("there is nothing to train: no parameter of the chosen layers asks for a gradient")
    return twin, own


def supervised(loss: Loss) -> Objective:
    """Objective of ordinary training: the loss of the answers to a batch."""

    def objective(model: nn.Module, batch: Batch) -> Tensor:
        output = model(batch.inputs)
        check_labels(batch.targets, output.shape[-1])
        return loss(restrict(output, batch.classes), batch.targets)

    return objective


def descend(
    twin: nn.Module,
    own: dict[str, nn.Parameter],
    objective: Objective,
    samples: Samples,
    *,
    epochs: int,
    batch_size: int,
    make_optimizer: MakeOptimizer,
    seed: int,
    optimizer: Optimizer | None = None,
) -> Optimizer:
    """Train a copy's own parameters; `twin` is changed in place, and is in training mode only meanwhile.

    Modules without parameters of their own kept in training stay in evaluation mode, so that shared statistics of
    batch normalization do not move. Returns the optimizer, to go on with.
    """
    optimizer = optimizer or make_optimizer(list(own.values()))
    with training_only(twin, own):
        for epoch in range(epochs):
            for batch in batches(samples, batch_size, seed=seed, epoch=epoch):
                loss = objective(twin, placed(batch, twin))
                if not math.isfinite(float(loss.detach())):
                    raise NonFiniteError(
                        f"unlearning: the objective is {float(loss.detach())} in epoch {epoch}, expected a finite "
                        "number; use a smaller learning rate or fewer epochs"
                    )
                gradients = torch.autograd.grad(loss, list(own.values()), allow_unused=True)
                for parameter, gradient in zip(own.values(), gradients, strict=True):
                    parameter.grad = gradient
                optimizer.step()
    for parameter in own.values():
        parameter.grad = None
    return optimizer


def cycled(model: nn.Module, samples: Samples, batch_size: int, seed: int) -> Iterator[Batch]:
    """Batches for a model without an end, in another order in each pass."""
    for epoch in itertools.count():
        for batch in batches(samples, batch_size, seed=seed, epoch=epoch):
            yield placed(batch, model)


def placed(batch: Batch, model: nn.Module) -> Batch:
    """The batch where the model is, its inputs in the model's precision."""
    weight = next((p for p in model.parameters() if p.is_floating_point()), None)
    if weight is None:
        return batch
    inputs = batch.inputs
    inputs = inputs.to(weight.device, weight.dtype if inputs.is_floating_point() else inputs.dtype)
    return batch._replace(inputs=inputs, targets=batch.targets.to(weight.device))


def divergence(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """`temperature^2 KL(teacher || student)` of the softened answers `[batch, classes]`, mean over the batch."""
    target = functional.softmax(teacher / temperature, dim=-1)
    answer = functional.log_softmax(student / temperature, dim=-1)
    return functional.kl_div(answer, target, reduction="batchmean") * temperature**2


@contextmanager
def training_only(twin: nn.Module, own: dict[str, nn.Parameter]) -> Iterator[None]:
    """Training mode for modules that are learned, or have no parameters; evaluation mode for the frozen ones."""
    modes = [(module, module.training) for module in twin.modules()]
    ids = {id(parameter) for parameter in own.values()}
    for module in twin.modules():
        parameters = list(module.parameters())
        module.training = not parameters or any(id(p) in ids for p in parameters)
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def own_randomness(generator: torch.Generator | None) -> Iterator[int]:
    """A seed drawn from `generator`, on which dropout and initialisers run inside; torch's own state comes back."""
    seed = int(torch.randint(2**31, (), generator=generator))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield seed


def share_unchanged(model: nn.Module, twin: Model) -> Model:
    """Give `twin` the model's own tensor wherever both hold the same numbers."""
    old = dict(itertools.chain(model.named_parameters(), model.named_buffers()))
    for name, tensor in list(itertools.chain(twin.named_parameters(), twin.named_buffers())):
        before = old.get(name)
        if (
            before is None
            or before is tensor
            or before.shape != tensor.shape
            or not torch.equal(before, tensor)
        ):
            continue
        for module in twin.modules():  # a tied tensor stands in several places
            places: tuple[dict[str, Any], ...] = (module._parameters, module._buffers)
            for place in places:
                for key in [key for key, value in place.items() if value is tensor]:
                    place[key] = before
    return twin


def check_training(epochs: int, batch_size: int) -> None:
    """One line for settings of training that cannot be meant."""
    if epochs < 1 or batch_size < 1:
        raise ConfigError(f"epochs is {epochs} and batch_size {batch_size}, expected both at least 1")


def _inside(model: nn.Module, layers: Collection[str] | None) -> Callable[[str], bool]:
    if layers is None:
        return lambda name: True
    known = [name for name, _ in model.named_modules() if name]
    for layer in layers:
        if layer not in known:
            raise UnknownNameError(
                f"layers: the model has no module {layer[:60]!r}{nearest(layer[:60], known)}"
            )
    prefixes = tuple(f"{layer}." for layer in layers)
    return lambda name: name.startswith(prefixes)
