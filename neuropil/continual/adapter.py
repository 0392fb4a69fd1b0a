"""Adapting a finished model to the inputs it meets, without labels and without the data it was trained on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from neuropil.data.task import Batch
from neuropil.errors import ConfigError, NonFiniteError, ShapeError
from neuropil.nn.finite import check_finite
from neuropil.training.evaluating import evaluating
from neuropil.training.learner import Learner
from neuropil.training.plugin import unwrapped

MakeOptimizer = Callable[[list[nn.Parameter]], Optimizer]


def adam(parameters: list[nn.Parameter]) -> Optimizer:
    """Adam with the rate that test-time methods are usually given."""
    return torch.optim.Adam(parameters, lr=1e-3)


class SourceFreeAdapter(Learner):
    """Base of learners that adapt the user's own model to test inputs alone.

    `update(inputs)` adapts the model in place; of a `Batch`, targets are ignored. The model itself, in evaluation mode,
    then answers as adapted, and so does `predict`. `reset()` puts the source model back, which is remembered as it was
    when the adapter was made; it is part of `state_dict`.

    Args:
        model: the finished model, `inputs -> logits [batch, classes]`.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = unwrapped(model)
        self.source = _snapshot(self.model)

    def update(self, batch: Batch | Tensor) -> dict[str, float]:
        """Adapt to the inputs of one batch; returns `loss`, the mean entropy of the answers in nats."""
        inputs = batch if isinstance(batch, Tensor) else batch.inputs
        if not len(inputs):
            raise ShapeError(f"{type(self).__name__}: no inputs in {list(inputs.shape)}; expected at least 1")
        check_finite(inputs, "inputs")  # before they reach the statistics of a normalisation
        with evaluating(self.model):
            return {"loss": self.adapt_to(inputs)}

    def adapt_to(self, inputs: Tensor) -> float:
        """Change the model, which is in evaluation mode, and return the mean entropy of its answers."""
        raise TypeError(f"{type(self).__name__} must define adapt_to(inputs)")

    @torch.no_grad()
    def predict(self, x: Tensor) -> Tensor:
        """The adapted model's output, in evaluation mode."""
        with evaluating(self.model):
            output: Tensor = self.model(x)
        return output

    def reset(self) -> None:
        """Put the source model back, and forget what an optimizer remembers."""
        self.model.load_state_dict(self.source)
        self.start_task()

    def state_dict(self) -> dict[str, Any]:
        """The source model, and what the optimizer remembers; the adapted model is saved by its own state."""
        return {**super().state_dict(), "source": dict(self.source)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        super().load_state_dict(state)
        self.source = {name: value.clone() for name, value in state["source"].items()}


def entropy(logits: Tensor) -> Tensor:
    """Mean over samples of the entropy, in nats, of the answer that logits `[batch, classes]` stand for.

    >>> round(entropy(torch.zeros(3, 4)).item(), 4)   # log 4
    1.3863
    """
    log_p = logits.log_softmax(-1)
    return -(log_p.exp() * log_p).sum(-1).mean()


def batch_norms(model: nn.Module, who: str) -> list[_BatchNorm]:
    """The model's batch normalisations; ConfigError when it has none that keeps statistics."""
    found = [
        module
        for module in model.modules()
        if isinstance(module, _BatchNorm) and isinstance(module.running_mean, Tensor)
    ]
    if not found:
        raise ConfigError(f"{who}: the model has no batch normalisation with running statistics to adapt")
    return found


@contextmanager
def measuring(layers: list[_BatchNorm], momentum: float = 1.0) -> Iterator[None]:
    """Inside, normalisations use the statistics of the batch, and go over to them by `momentum`; 1 takes them whole."""
    before = [(layer.training, layer.momentum) for layer in layers]
    for layer in layers:
        layer.training, layer.momentum = True, momentum
    try:
        yield
    finally:
        for layer, (training, old) in zip(layers, before, strict=True):
            layer.training, layer.momentum = training, old


def minimise(loss: Tensor, parameters: list[nn.Parameter], optimizer: Optimizer) -> float:
    """One step on `parameters` alone; NonFiniteError, and no step, when loss or gradient is not finite."""
    gradients = torch.autograd.grad(loss, parameters)
    value = float(loss.detach())
    if not all(torch.isfinite(g).all() for g in (loss.detach(), *gradients)):
        raise NonFiniteError(f"entropy is {value}, or its gradient is not finite; no step was made")
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    optimizer.step()
    for parameter in parameters:
        parameter.grad = None
    return value


def _snapshot(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}
