"""Neuro-modulated Hebbian learning at test time.

Tang et al.: Neuro-Modulated Hebbian Learning for Fully Test-Time Adaptation. CVPR 2023. arXiv:2303.00914
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from neuropil.continual.adapter import (
    MakeOptimizer,
    SourceFreeAdapter,
    adam,
    batch_norms,
    entropy,
    measuring,
    minimise,
)
from neuropil.errors import ConfigError, UnknownNameError, nearest
from neuropil.nn.presynaptic import Synapse, synapses
from neuropil.nn.soft_hebb import soft_hebb_step


class NeuroModulator(nn.Module):
    """A gain and a shift for every channel, which begin as identity.

    >>> NeuroModulator(3)(torch.ones(2, 3, 4, 4)).shape
    torch.Size([2, 3, 4, 4])
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gain, self.shift = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, channels, ...]` with each channel scaled and shifted."""
        shape = (-1, *(1,) * (x.dim() - 2))
        return x * self.gain.view(shape) + self.shift.view(shape)


class NHL(SourceFreeAdapter):
    """Adapts a model to test inputs by Hebbian learning in its first layer and feedback from the answers' entropy.

    For each batch of inputs, in this order: the filters of the first layer make one soft competitive Hebbian step on
    its patches (`neuropil.nn.soft_hebb`), which needs no answer; the batch goes through the model with its own batch
    statistics, which the model keeps; a gain and a shift for every channel, put behind the first layer's
    normalisation, make one step on the mean entropy of the answers, which is the top-down signal. Then the model
    answers. Everything else stays as it was trained. While attached, the model itself answers with the modulator;
    `fold()` writes it into the model's own parameters.

    The published form of the modulator and its constants could not be read; gain and shift for each channel, and a
    plain softmax with temperature for the competition, are a reconstruction.

    Args:
        model: the finished model, with batch normalisation.
        layer: name of the linear or convolutional layer that learns; left out, the first one.
        rate: of the Hebbian step, at least 0; 0 leaves the filters. It goes with inputs of unit scale.
        temperature: of the competition, above 0.
        optimizer: makes the modulator's optimizer; None leaves the modulator out.

    Raises:
        ConfigError: no batch normalisation, or a setting out of range.
        UnknownNameError: no such layer.
        IncompatibleError: a layer with a grouped, parametrized or shared weight.

    >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
    >>> adapter = NHL(net, rate=0.01)
    >>> answers = adapter.update(torch.rand(16, 1, 8, 8)), adapter.predict(torch.rand(16, 1, 8, 8))
    >>> adapter.reset()
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        layer: str | None = None,
        rate: float = 0.01,
        temperature: float = 1.0,
        optimizer: MakeOptimizer | None = adam,
    ) -> None:
        super().__init__(model)
        if not rate >= 0 or not temperature > 0:
            raise ConfigError(
                f"NHL: rate {rate} and temperature {temperature}, expected at least 0 and above 0"
            )
        self.layers = batch_norms(self.model, "NHL")
        self.rate, self.temperature = rate, temperature
        self.layer = _layer(self.model, layer)
        self.site = self._behind()
        weight = self.layer.weight
        self.modulator = NeuroModulator(len(weight)).to(weight)
        if optimizer is not None:
            self.optimizer: Optimizer | None = optimizer(list(self.modulator.parameters()))
            self._handle = self.site.register_forward_hook(_modulate(self.site, self.modulator))

    def adapt_to(self, inputs: Tensor) -> float:
        """A Hebbian step as the batch enters the first layer, then a step of the modulator on the answers' entropy."""

        def learn(_: nn.Module, args: tuple[Any, ...]) -> None:
            if self.rate:
                soft_hebb_step(self.layer, args[0].detach(), rate=self.rate, temperature=self.temperature)

        handle = self.layer.register_forward_pre_hook(learn)
        try:
            with measuring(self.layers), torch.set_grad_enabled(self.optimizer is not None):
                loss = entropy(self.model(inputs))
        finally:
            handle.remove()
        if self.optimizer is None:
            return float(loss)
        return minimise(loss, list(self.modulator.parameters()), self.optimizer)

    def reset(self) -> None:
        """Put the source model back, with a modulator that does nothing."""
        super().reset()
        with torch.no_grad():
            self.modulator.gain.fill_(1.0)
            self.modulator.shift.zero_()

    def detach(self) -> None:
        """Take the modulator from the model, which stays as it is otherwise."""
        if self.optimizer is not None:
            self._handle.remove()

    @torch.no_grad()
    def fold(self) -> None:
        """Write the modulator into the gain and shift of the layer before it, and take it from the model."""
        site = cast(Any, self.site)
        gain, shift = self.modulator.gain, self.modulator.shift
        if site.weight is None:
            site.weight = nn.Parameter(torch.ones_like(gain))
        if site.bias is None:
            site.bias = nn.Parameter(torch.zeros_like(gain))
        site.weight.mul_(gain.view(-1, *(1,) * (site.weight.dim() - 1)))
        site.bias.mul_(gain).add_(shift)
        gain.fill_(1.0)
        shift.zero_()
        self.detach()

    def state_dict(self) -> dict[str, Any]:
        """The source model, the modulator and its optimizer."""
        return {**super().state_dict(), "modulator": dict(self.modulator.state_dict())}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        super().load_state_dict(state)
        self.modulator.load_state_dict(state["modulator"])

    def _behind(self) -> nn.Module:
        """Where the modulator goes: a normalisation would undo what is scaled before it, so behind it."""
        modules = list(self.model.modules())
        for module in modules[modules.index(self.layer) + 1 :]:
            if isinstance(module, nn.Linear | nn.Conv2d):
                break
            if isinstance(module, _BatchNorm) and module.num_features == len(self.layer.weight):
                return module
        return self.layer


def _layer(model: nn.Module, name: str | None) -> Synapse:
    names = [key for key, module in model.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    if name is not None and name not in names:
        raise UnknownNameError(f"NHL: no linear or convolutional layer {name!r}{nearest(name, names)}")
    if not names:
        raise ConfigError("NHL: the model has no linear or convolutional layer")
    chosen = names[0] if name is None else name
    return synapses(model, exclude=[key for key in names if key != chosen])[chosen]


def _modulate(site: nn.Module, modulator: NeuroModulator) -> Any:
    def hook(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        # a deep copy of the model carries this hook too, but is another model
        return modulator(output) if module is site else output

    return hook
