"""A word of warning when spiking layers fall silent or fire without a pause."""

from __future__ import annotations

import warnings
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from neuropil.data.task import Batch
from neuropil.errors import ConfigError
from neuropil.nn.recording import told_activity
from neuropil.nn.stateful import Stateful
from neuropil.training.plugin import Plugin, unwrapped


class WatchActivity(Plugin):
    """Warns in one line when a spiking layer is silent or saturated; most networks that do not learn are one or other.

    It looks at the first batch of an epoch, once, in evaluation mode and without gradients: one forward pass more in
    an epoch, nothing in any other step. A layer is told of once, and again only after it had recovered. `told` keeps
    the lines. In a hand-written loop call `before_fit`, `before_epoch` and `before_batch`.

    Args:
        every: Epochs between two looks, 1 or more.

    Raises ConfigError for another `every`.

    >>> from neuropil.nn import LIF, Sequential
    >>> net = Sequential(nn.Linear(3, 4), LIF(threshold=1e6))
    >>> watch = WatchActivity()
    >>> watch.before_fit(net, None)
    >>> watch.before_epoch(0)
    >>> with warnings.catch_warnings(record=True):
    ...     _ = watch.before_batch(Batch(torch.rand(5, 2, 3), torch.zeros(2)))
    >>> watch.told
    ["layer '1' is silent: not one spike in [5, 2, 4]; raise its input or lower its threshold"]
    """

    def __init__(self, every: int = 1) -> None:
        if every < 1:
            raise ConfigError(f"WatchActivity.every: got {every}, expected a number of epochs of 1 or more")
        self.every = every
        self.told: list[str] = []
        self._model: nn.Module | None = None
        self._ill: set[str] = set()
        self._due = False

    def before_fit(self, model: nn.Module, optimizer: Optimizer | None) -> None:
        """Remember which model to look at."""
        self._model = unwrapped(model)

    def before_epoch(self, epoch: int) -> None:
        """A look is due at every so many epochs."""
        self._due = epoch % self.every == 0

    def before_batch(self, batch: Batch) -> Batch:
        """Look at the model with the first batch."""
        if self._due and self._model is not None:
            self._due = False
            self._look(self._model, batch.inputs)
        return batch

    def after_fit(self) -> None:
        """Let go of the model."""
        self._model = None

    def state_dict(self) -> dict[str, Any]:
        """What was told so far."""
        return {"told": list(self.told), "ill": sorted(self._ill), "due": self._due}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.told, self._ill, self._due = list(state["told"]), set(state["ill"]), bool(state["due"])

    def _look(self, model: nn.Module, inputs: Tensor) -> None:
        ill = set()
        for name, rate, shape in _rates(model, inputs):
            line = told_activity(name, rate, shape)
            if not line:
                continue
            ill.add(name)
            if name not in self._ill:
                self.told.append(line)
                warnings.warn(line, stacklevel=3)
        self._ill = ill


def _rates(model: nn.Module, inputs: Tensor) -> list[tuple[str, float, torch.Size]]:
    """Spikes per neuron and step of every spiking layer."""
    found: list[tuple[str, float, torch.Size]] = []
    spiking = [
        (name, layer)
        for name, layer in model.named_modules()
        if isinstance(layer, Stateful) and hasattr(layer, "threshold")
    ]
    if not spiking:
        return found
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad(), ExitStack() as hooks:
            for name, layer in spiking:
                hooks.callback(layer.register_forward_hook(_listener(found, name)).remove)
            model(inputs)
    finally:
        for module, training in modes.items():
            module.training = training
    return found


def _listener(found: list[tuple[str, float, torch.Size]], name: str) -> Any:
    def listen(layer: nn.Module, args: Any, output: Any) -> None:
        spikes = output[0]
        found.append((name, float((spikes != 0).float().mean()), spikes.shape))

    return listen
