"""Deep continuous local learning: every layer learns from a readout of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from neuropil.data.task import Batch
from neuropil.errors import ConfigError, nearest
from neuropil.nn.active import ActiveBlock
from neuropil.training.allowed import restrict
from neuropil.training.learner import Backprop, Loss
from neuropil.training.plugin import Plugin


class DECOLLE(Backprop):
    """Each spiking layer is read out by fixed random weights at every step, and learns from that error alone.

    No error passes from layer to layer. Within a layer of leaky neurons whose reset is not differentiated the gradient
    of a step's error is `error * surrogate * trace of the input`, which could be kept forward in time; here it is
    computed for all steps at once. What follows the last of the layers learns from the model's own answer. Kaiser,
    Mostafa and Neftci (2020), "Synaptic plasticity dynamics for deep continuous local learning (DECOLLE)".

    Args:
        model: `inputs -> answer`, `[batch, outputs]` or a sequence of such; any module with spiking layers in it.
        optimizer: Over the model's parameters. The random readouts are not among them.
        layers: Names of the spiking layers; all by default.
        burn_in: Steps at the beginning that teach nothing.
        scale: Size of the random readouts, whose weights are uniform within `+-scale * sqrt(3 / neurons)`.
        generator: For the random readouts, drawn at the first update.
        loss: `(output, target) -> scalar`, used for every readout and the answer; cross-entropy by default.
        plugins: As for `Backprop`.

    Raises:
        ConfigError: A layer is unknown or does not spike, or a setting is out of range.
        NonFiniteError, LabelError: As `Backprop`.

    >>> from neuropil.nn import LIF, RateReadout, Sequential
    >>> net = Sequential(nn.Linear(3, 8), LIF(), nn.Linear(8, 8), LIF(), nn.Linear(8, 2), RateReadout(), time_steps=5)
    >>> learner = DECOLLE(net, torch.optim.SGD(net.parameters(), lr=0.1))
    >>> _ = learner.update(Batch(torch.rand(4, 3), torch.tensor([0, 1, 0, 1])))
    >>> {name: list(weight.shape) for name, weight in learner.readouts.items()}
    {'1': [2, 8], '3': [2, 8]}
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        *,
        layers: Sequence[str] | None = None,
        burn_in: int = 0,
        scale: float = 1.0,
        generator: torch.Generator | None = None,
        loss: Loss | None = None,
        plugins: Sequence[Plugin] = (),
    ) -> None:
        super().__init__(model, optimizer, loss=loss, plugins=plugins)
        spiking = {
            name: module
            for name, module in model.named_modules()
            if hasattr(module, "threshold") and not isinstance(module, ActiveBlock)
        }
        chosen = list(spiking) if layers is None else list(layers)
        for name in chosen:
            if name not in spiking:
                raise ConfigError(
                    f"DECOLLE.layers: no spiking layer is called {name!r}{nearest(name, spiking)}"
                )
        if not chosen:
            raise ConfigError("DECOLLE: the model has no spiking layers")
        if burn_in < 0 or not 0 < scale < math.inf:
            raise ConfigError(
                f"DECOLLE: burn_in={burn_in}, scale={scale}; expected >= 0 steps and a number > 0"
            )
        self.layers, self.burn_in, self.scale = {name: spiking[name] for name in chosen}, burn_in, scale
        self.generator = generator
        self.readouts: dict[str, Tensor] = {}  # [outputs, neurons] by layer, drawn at the first update
        self._spikes: dict[str, Tensor] = {}

    def update(self, batch: Batch) -> dict[str, float]:
        """One step on one batch."""
        self._spikes = {}
        handles = [layer.register_forward_hook(self._listen(name)) for name, layer in self.layers.items()]
        try:
            return super().update(batch)
        finally:
            for handle in handles:
                handle.remove()
            self._spikes = {}

    def answer(self, batch: Batch) -> Tensor:
        """The model's output; what a plugin has shown the model before is forgotten."""
        self._spikes = {}
        return super().answer(batch)

    def objective(self, output: Tensor, batch: Batch) -> Tensor:
        """Sum of the layers' own losses and that of the answer."""
        loss = self._timed_loss(output, batch) if output.dim() > 2 else super().objective(output, batch)
        for name, spikes in self._spikes.items():
            flat = spikes[self.burn_in :].flatten(2)
            if not len(flat):
                raise ConfigError(
                    f"DECOLLE.burn_in: {self.burn_in} leaves none of {len(spikes)} steps to learn from"
                )
            readout = self._readout(name, flat, output.shape[-1])
            loss = loss + self._timed_loss(flat @ readout.T, batch)
        return loss

    def state_dict(self) -> dict[str, Any]:
        """Everything but the model's own weights."""
        return {**super().state_dict(), "readouts": dict(self.readouts)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        super().load_state_dict(state)
        self.readouts = {name: weight.clone() for name, weight in state["readouts"].items()}

    @torch.no_grad()
    def predict(self, x: Tensor) -> Tensor:
        """The model's answer, averaged over time if it is a sequence."""
        output = super().predict(x)
        return output.mean(0) if output.dim() > 2 else output

    def _timed_loss(self, logits: Tensor, batch: Batch) -> Tensor:
        targets = batch.targets.repeat(len(logits))
        classes = batch.classes
        if isinstance(classes, Tensor):  # a mask sample by sample
            classes = classes.repeat(len(logits), 1)
        return self.loss(restrict(logits.flatten(0, 1), classes), targets)

    def _readout(self, name: str, spikes: Tensor, outputs: int) -> Tensor:
        known = self.readouts.get(name, spikes.new_empty(0, spikes.shape[-1]))
        if len(known) < outputs:  # none were drawn yet, or the model has learned to give more answers
            bound = self.scale * math.sqrt(3 / spikes.shape[-1])
            shape = outputs - len(known), spikes.shape[-1]
            drawn = torch.rand(shape, generator=self.generator, dtype=spikes.dtype)
            self.readouts[name] = torch.cat([known, ((2 * drawn - 1) * bound).to(known)])
        return self.readouts[name]

    def _listen(self, name: str) -> Any:
        def hook(_: nn.Module, __: Any, answer: Any) -> Any:
            spikes = answer[0] if isinstance(answer, tuple) else answer
            seen = self._spikes.get(name)
            self._spikes[name] = spikes if seen is None else torch.cat([seen, spikes])
            return (spikes.detach(), *answer[1:]) if isinstance(answer, tuple) else spikes.detach()

        return hook
