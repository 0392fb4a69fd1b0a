"""Learning delays with a kernel that narrows while a network learns (DCLS-Delays).

A synapse's delay is the centre of a Gaussian over the last steps. A wide Gaussian lets the gradient see inputs far from
the delay; a narrow one is the synapse that is wanted. So its width shrinks in the first quarter of training, and in
the end each delay is rounded to one step. The layer is `neuropil.nn.DelayLinear`; here is what trains it.
Hammouamri, Khalfaoui-Hassani and Masquelier (2024), "Learning delays in spiking neural networks using dilated
convolutions with learnable spacings".
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, TypeVar

from torch import nn
from torch.optim import Optimizer

from neuropil.errors import ConfigError
from neuropil.nn.delay import DelayLinear
from neuropil.nn.sharing import shared_copy
from neuropil.training.plugin import Plugin, unwrapped

Model = TypeVar("Model", bound=nn.Module)


class SigmaSchedule(Plugin):
    """Narrows the Gaussians of a model's learned delays, and keeps the delays in range.

    The width falls exponentially from `start` to `end` in `steps` steps of the optimizer and stays there: published are
    half the longest delay, 0.5 and a quarter of training. Layers are the `DelayLinear` with
    `interpolation="gaussian"` and learned delays, wherever they are in the model. Call `after_step()` in a loop of your
    own. A delay that leaves its range is brought back after each step (`bounds="clamp"`).

    Args:
        model: Holds the layers.
        steps: Optimizer steps until the width is `end`, >= 1.
        start: Standard deviation to begin with, in steps > 0; None: half of each layer's longest delay.
        end: Standard deviation to end with, in steps > 0; at 0.5 a fifth of a synapse's weight is off the centre.

    Raises:
        ConfigError: A setting is out of range, or the model has no such layer.

    >>> from neuropil.nn import LIF, RateReadout, Sequential
    >>> delays = DelayLinear(4, 3, longest=8, learn=True, bounds="clamp", interpolation="gaussian")
    >>> net = Sequential(delays, LIF(), RateReadout())
    >>> schedule = SigmaSchedule(net, steps=2)
    >>> schedule.after_step()
    >>> round(delays.width, 3)  # half way from 4 to 0.5, on a logarithmic scale
    1.414
    """

    def __init__(self, model: nn.Module, steps: int, *, start: float | None = None, end: float = 0.5) -> None:
        self.layers = gaussian_delays(model)
        if not self.layers:
            raise ConfigError(
                "SigmaSchedule: the model has no learned delays to narrow, expected a "
                'DelayLinear(..., learn=True, interpolation="gaussian")'
            )
        if steps < 1:
            raise ConfigError(f"SigmaSchedule.steps: got {steps}, expected at least 1 step")
        for name, value in (("start", start), ("end", end)):
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise ConfigError(f"SigmaSchedule.{name}: got {value}, expected a finite number of steps > 0")
        self.steps, self.start, self.end, self.step = steps, start, end, 0
        self._set_widths()

    def _set_widths(self) -> None:
        share = min(1.0, self.step / self.steps)
        for layer in self.layers:
            start = layer.longest / 2 if self.start is None else self.start
            layer.width = start ** (1 - share) * self.end**share

    def before_fit(self, model: nn.Module, optimizer: Optimizer | None) -> None:
        """Begin with the width of the step that the schedule is at."""
        self._set_widths()

    def after_step(self) -> None:
        """Bring delays back into range, and narrow the Gaussians."""
        self.step += 1
        for layer in self.layers:
            layer.clamp_()
        self._set_widths()

    def state_dict(self) -> dict[str, Any]:
        """Steps made."""
        return {"step": self.step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.step = int(state["step"])
        self._set_widths()


class DelayParameters(NamedTuple):
    """A model's parameters, apart from its delays: they want rates of their own."""

    delays: list[nn.Parameter]
    others: list[nn.Parameter]


def delay_parameters(model: nn.Module) -> DelayParameters:
    """Split a model's parameters into learned delays and all others, for an optimizer's groups.

    Delays are counted in steps and have far to go: published is a hundred times the weights' rate, and no weight decay.

    >>> import torch
    >>> net = nn.Sequential(DelayLinear(4, 3, longest=8, learn=True, bounds="clamp"))
    >>> delays, others = delay_parameters(net)
    >>> optimizer = torch.optim.Adam([{"params": others}, {"params": delays, "lr": 0.1}], lr=1e-3)
    >>> len(delays), len(others)
    (1, 2)
    """
    layers = [layer for layer in unwrapped(model).modules() if isinstance(layer, DelayLinear)]
    delays = [p for layer in layers for p in (layer.delay, layer.delay_logit) if p is not None]
    known = {id(p) for p in delays}
    return DelayParameters(delays, [p for p in unwrapped(model).parameters() if id(p) not in known])


def gaussian_delays(model: nn.Module) -> list[DelayLinear]:
    """The layers of a model whose learned delays are centres of Gaussians.

    >>> len(gaussian_delays(nn.Sequential(DelayLinear(4, 3, 8), nn.Linear(3, 2))))
    0
    """
    return [
        layer
        for layer in unwrapped(model).modules()
        if isinstance(layer, DelayLinear) and layer.learns_delays and layer.interpolation == "gaussian"
    ]


def round_delays(model: Model) -> Model:
    """The model with every learned delay rounded to a whole step: one connection a synapse, as hardware has it.

    Weights and all other tensors are shared with the original, which stays as it is. Statistics of batch normalisation
    were gathered with the Gaussians; gather them anew where a point of accuracy matters.

    >>> net = nn.Sequential(DelayLinear(1, 1, 4, learn=True, bounds="clamp"))
    >>> _ = nn.init.constant_(net[0].delay, 2.6)
    >>> round_delays(net)[0].delays.tolist(), net[0].learns_delays
    ([[3]], True)
    """
    if isinstance(model, DelayLinear):
        return model.fixed() if model.learns_delays else shared_copy(model)  # type: ignore[return-value]
    twin = shared_copy(model)
    for owner in list(twin.modules()):
        for name, layer in owner.named_children():
            if isinstance(layer, DelayLinear) and layer.learns_delays:
                setattr(owner, name, layer.fixed().train(layer.training))
    return twin
