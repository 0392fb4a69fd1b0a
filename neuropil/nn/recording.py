"""Looking at everything that a network does with one input."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from neuropil.nn.stateful import Stateful

SILENT, SATURATED = 0.0, 0.95  # mean spikes per neuron and step


@dataclass(frozen=True)
class Recording:
    """What the layers of a model did, each by the layer's name in `model.named_modules()`.

    Tensors are `[time, batch, ...]`; where a layer ran without a time axis (before the first stateful layer of a
    static input, behind a readout, in a network without time) they are `[batch, ...]`.
    """

    output: Tensor  # what the model returned
    spikes: dict[str, Tensor] = field(default_factory=dict)  # of every layer with a threshold
    membranes: dict[str, Tensor] = field(default_factory=dict)  # after the reset, of every layer that has one
    currents: dict[str, Tensor] = field(default_factory=dict)  # what these layers were given
    activations: dict[str, Tensor] = field(default_factory=dict)  # what all other layers returned

    @property
    def rates(self) -> dict[str, Tensor]:
        """Spikes per neuron and step, `[...features]`, averaged over time and batch."""
        return {name: (spikes != 0).double().mean((0, 1)) for name, spikes in self.spikes.items()}

    def warnings(self) -> list[str]:
        """One line for each spiking layer that hardly says anything: silent, or firing at nearly every step."""
        found = (
            told_activity(name, float(rates.mean()), self.spikes[name].shape)
            for name, rates in self.rates.items()
        )
        return [line for line in found if line]


def told_activity(name: str, rate: float, shape: Sequence[int]) -> str:
    """One line for a layer that hardly says anything, or nothing at all; `rate` in spikes per neuron and step.

    >>> told_activity("1", 0.0, [5, 2, 8])
    "layer '1' is silent: not one spike in [5, 2, 8]; raise its input or lower its threshold"
    """
    if rate <= SILENT:
        return f"layer {name!r} is silent: not one spike in {list(shape)}; raise its input or lower its threshold"
    if rate >= SATURATED:
        return (
            f"layer {name!r} is saturated: {rate:.0%} of {list(shape)} are spikes; "
            "lower its input or raise its threshold"
        )
    return ""


def record(model: nn.Module, x: Tensor) -> Recording:
    """Run `model` once on `x`, without gradients and in evaluation mode, and return what its layers did.

    Works for any module: a layer is whatever has no children, and every `Stateful` module. A layer called once
    per step by a loop of the model's own is put together over its calls. The model is left as it was.

    >>> from neuropil.nn import LIF, RateReadout, Sequential
    >>> net = Sequential(nn.Linear(4, 8), LIF(), nn.Linear(8, 3), RateReadout(), time_steps=5)
    >>> seen = record(net, torch.rand(2, 4))
    >>> seen.spikes["1"].shape, seen.membranes["1"].shape, seen.activations["2"].shape
    (torch.Size([5, 2, 8]), torch.Size([5, 2, 8]), torch.Size([5, 2, 3]))
    """
    calls: dict[str, list[_Call]] = defaultdict(list)
    with _evaluating(model), torch.no_grad(), ExitStack() as hooks:
        for name, layer in _layers(model):
            handle = layer.register_forward_hook(_listener(calls[name]), with_kwargs=True)
            hooks.callback(handle.remove)
        output = model(x)
    recording = Recording(output[0] if isinstance(output, tuple) else output)
    layers = dict(_layers(model))
    timed = {name: seen for name, seen in calls.items() if isinstance(layers[name], Stateful) and seen}
    folded = {tuple(call.x.shape[:2]) for seen in timed.values() for call in seen}
    with _evaluating(model), torch.no_grad():
        for name, seen in calls.items():
            if name in timed:
                _record_cell(recording, name, layers[name], seen)
            elif seen:
                recording.activations[name] = _over_time(seen, folded)
    return recording


@dataclass(frozen=True)
class _Call:
    x: Tensor
    state: Any
    y: Tensor


def _record_cell(recording: Recording, name: str, layer: nn.Module, calls: list[_Call]) -> None:
    """A stateful layer: its output, and its membrane step by step if it has one."""
    output = torch.cat([call.y for call in calls])
    fires = hasattr(layer, "threshold")
    (recording.spikes if fires else recording.activations)[name] = output
    membranes = []
    for call in calls:
        state = call.state
        for step in call.x.split(1):
            _, state = layer.forward(step, state)
            if not hasattr(state, "membrane"):
                return
            membranes.append(state.membrane)
    if membranes:
        recording.membranes[name] = torch.stack(membranes)
        recording.currents[name] = torch.cat([call.x for call in calls])


def _over_time(calls: list[_Call], folded: set[tuple[int, ...]]) -> Tensor:
    """A layer without time: its calls are the steps, or it saw time folded into the batch, or no time at all."""
    if len(calls) > 1 and all(call.y.shape == calls[0].y.shape for call in calls):
        return torch.stack([call.y for call in calls])
    y = calls[-1].y
    for lead in folded:
        if y.dim() and y.shape[0] == math.prod(lead):
            return y.reshape(*lead, *y.shape[1:])
    return y


def _layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, module in model.named_modules():
        inside_parametrization = "parametrizations" in name.split(".")
        if (isinstance(module, Stateful) or not any(_own_children(module))) and not inside_parametrization:
            yield name or type(module).__name__, module


def _own_children(module: nn.Module) -> Iterator[str]:
    return (name for name, _ in module.named_children() if name != "parametrizations")


def _listener(calls: list[_Call]) -> Any:
    def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        y = output[0] if isinstance(output, tuple) else output
        x = args[0] if args else next(iter(kwargs.values()), None)
        if isinstance(x, Tensor) and isinstance(y, Tensor):
            state = args[1] if len(args) > 1 else kwargs.get("state")
            calls.append(_Call(x.detach(), state, y.detach()))

    return hook


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
