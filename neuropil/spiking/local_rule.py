"""What learning rules that need no backpropagation share: how their changes become a step."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from neuropil.data.task import Batch
from neuropil.errors import ConfigError, IncompatibleError, NonFiniteError, nearest
from neuropil.nn.finite import check_finite
from neuropil.training.allowed import restrict
from neuropil.training.learner import Learner, Loss, check_gradients, check_labels
from neuropil.training.plugin import LossContext, Plugin, transform_gradients


class Proposal(NamedTuple):
    """What a rule makes of one batch."""

    output: Tensor  # [batch, outputs], the answer before learning
    changes: Mapping[str, Tensor]  # what to add to each parameter, by name, before learning rate and plugins


class LocalRule(Learner):
    """A learner whose changes come from a rule instead of a gradient.

    Subclass it with `propose(batch) -> Proposal`. The changes, with their sign turned, take the place of gradients:
    hooks of parameters and `on_gradients` of plugins see them, and the optimizer makes the step; plain
    `torch.optim.SGD(..., lr=1.0)` makes it exactly. The loss is only followed (and what plugins add to it, such as a
    penalty, adds its own gradient). Errors are those of `Backprop`.
    """

    optimizer: Optimizer

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        *,
        loss: Loss | None = None,
        plugins: Sequence[Plugin] = (),
    ) -> None:
        self.model, self.optimizer, self.plugins = model, optimizer, plugins
        self.loss = loss or functional.cross_entropy

    def propose(self, batch: Batch) -> Proposal:
        """The answer to a batch, and what the rule would change; called without gradients."""
        raise TypeError(f"{type(self).__name__} must define propose(batch)")

    def settle(self) -> None:
        """Called after each step, for instance to keep weights in their range."""

    def update(self, batch: Batch) -> dict[str, float]:
        """One step on one batch."""
        for plugin in self.plugins:
            batch = plugin.before_batch(batch)
        check_finite(batch.inputs, "inputs")
        self.optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            outputs = self.outputs()
            if outputs is not None:
                check_labels(batch.targets, outputs)
            proposal = self.propose(batch)
            check_labels(batch.targets, proposal.output.shape[-1])
            loss = self.loss(restrict(proposal.output, batch.classes), batch.targets)
        for plugin in self.plugins:
            loss = plugin.on_loss(loss, LossContext(batch, proposal.output))
        value = float(loss.detach())
        if not math.isfinite(value):
            raise NonFiniteError(f"loss is {value}; lower the learning rate or look at the batch")
        if loss.requires_grad:  # a plugin has added something of its own
            torch.autograd.backward(loss)
        parameters = dict(self.model.named_parameters())
        for name, change in proposal.changes.items():
            if name not in parameters:
                raise IncompatibleError(
                    f"{type(self).__name__}: {name} is parametrized, and a rule changes weights, not what they are "
                    "made of; remove the parametrization"
                )
            if parameters[name].requires_grad:  # a plugin may hold it still
                torch.autograd.backward(parameters[name], -change)
        transform_gradients(self.model, self.plugins)
        check_gradients(self.model)
        self.optimizer.step()
        self.settle()
        for plugin in self.plugins:
            plugin.after_step()
        return {"loss": value}

    def outputs(self) -> int | None:
        """Number of answers, where that is known before the model has run."""
        return None

    @torch.no_grad()
    def predict(self, x: Tensor) -> Tensor:
        """The model's answer, averaged over time if it is a sequence."""
        output: Tensor = self.model(x)
        return output.mean(0) if output.dim() > 2 else output


def find_linear(caller: str, model: nn.Module, layer: str | None) -> tuple[str, nn.Linear]:
    """Name and module of a `nn.Linear` in a model, the last one by default.

    >>> find_linear("rule", nn.Sequential(nn.Linear(2, 3), nn.ReLU()), None)[0]
    '0'
    """
    layers = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    if layer is None and layers:
        layer = list(layers)[-1]
    if layer is None or layer not in layers:
        hint = nearest(layer or "", layers)
        raise ConfigError(f"{caller}.layer: the model has no nn.Linear called {layer!r}{hint}")
    return layer, layers[layer]


def over_time(x: Tensor, batch: int) -> Tensor:
    """`[time * batch, features]`, as layers without time are given it, or `[time, batch, features]`, as the latter.

    >>> over_time(torch.zeros(6, 4), batch=2).shape
    torch.Size([3, 2, 4])
    """
    return x if x.dim() == 3 else x.reshape(-1, batch, x.shape[-1])
