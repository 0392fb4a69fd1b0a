"""What a network costs: memory, sparsity, operations and energy, by the definitions of NeuroBench."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from neuropil.errors import ConfigError
from neuropil.nn.finite import check_finite
from neuropil.nn.stateful import Stateful
from neuropil.plotting import canvas

# Energy of an operation on 32-bit floats at 45 nm: Horowitz (2014), "Computing's energy problem".
PICOJOULES_PER_MAC = 4.6
PICOJOULES_PER_AC = 0.9

_CONNECTIONS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_ACTIVATIONS = (nn.ReLU, nn.Sigmoid)


@dataclass(frozen=True)
class LayerCost:
    """Synaptic operations of one layer, per sample."""

    name: str
    dense: float  # operations if nothing were zero
    effective: float  # operations whose input and weight are both not zero
    accumulates: bool  # input of -1, 0 and 1 alone: an operation adds, it does not multiply


@dataclass(frozen=True)
class NetworkCost:
    """What `network_cost` counted. Operations are per sample, over all its time steps."""

    parameters: int
    footprint: int  # bytes of parameters and buffers
    connection_sparsity: float  # share of weights that are zero
    activation_sparsity: float  # share of activations that are zero; nan where there are none
    effective_macs: float  # multiply-accumulates of layers with graded input
    effective_acs: float  # accumulates of layers with spikes as input
    dense_operations: float
    neuron_updates: float  # membranes that were updated
    picojoules: float  # of the synaptic operations
    layers: tuple[LayerCost, ...]

    def plot(self) -> Any:
        """Dense and effective operations of each layer, as a matplotlib figure."""
        figure, (axes,) = canvas(width=1.2 * len(self.layers) + 2)
        places = range(len(self.layers))
        axes.bar(places, [layer.dense for layer in self.layers], color="#d9dde3", label="dense")
        colours = ["#2f7f86" if layer.accumulates else "#b5563c" for layer in self.layers]
        axes.bar(places, [layer.effective for layer in self.layers], 0.5, color=colours, label="effective")
        axes.set_xticks(places, [layer.name for layer in self.layers])
        axes.set_ylabel("operations per sample")
        axes.set_title(f"{self.effective_macs:,.0f} MACs, {self.effective_acs:,.0f} ACs", fontsize=9)
        axes.legend(frameon=False, fontsize=8)
        return figure


def network_cost(
    model: nn.Module,
    x: Tensor,
    *,
    samples: int | None = None,
    picojoules_per_mac: float = PICOJOULES_PER_MAC,
    picojoules_per_ac: float = PICOJOULES_PER_AC,
) -> NetworkCost:
    """Count what a model does with the inputs `x`, in evaluation mode; the model is left as it was.

    Synaptic operations are those of linear layers and convolutions, biases aside: effective ones where input and
    weight are both not zero, dense ones as if nothing were. A layer whose inputs are all -1, 0 or 1 accumulates,
    another multiplies and accumulates. Sparsity of activations counts zeros of what spiking cells, `nn.ReLU` and
    `nn.Sigmoid` give. Memory traffic is not counted, which on most machines costs more than the operations: compare
    networks by these numbers, do not put them on a battery.

    Yik et al. (2025), "The NeuroBench framework for benchmarking neuromorphic computing algorithms and systems".

    Args:
        model: Any module.
        x: What it is called with.
        samples: Samples in `x`; by default the size of the batch axis: the second of a model that carries state
            (time comes first), else the first.
        picojoules_per_mac: Energy of a multiply-accumulate.
        picojoules_per_ac: Energy of an accumulate.

    Raises:
        ConfigError: The model has no weights to count, or `samples` is not positive.
        NonFiniteError: `x` holds NaN or infinity.

    >>> import torch
    >>> cost = network_cost(nn.Sequential(nn.Linear(4, 3)), torch.tensor([[0.0, 1.0, 0.0, 1.0]]))
    >>> cost.effective_acs, cost.effective_macs, cost.dense_operations
    (6.0, 0.0, 12.0)
    """
    check_finite(x, "network_cost input")
    samples = _samples(model, x) if samples is None else samples
    if samples < 1:
        raise ConfigError(f"network_cost: samples={samples}, expected 1 or more")
    tallies, activity = _run(model, x)
    layers = tuple(
        LayerCost(name, tally.dense / samples, tally.effective / samples, tally.binary)
        for name, tally in tallies.items()
    )
    macs = sum((layer.effective for layer in layers if not layer.accumulates), 0.0)
    acs = sum((layer.effective for layer in layers if layer.accumulates), 0.0)
    zeros, weights = _weights(model)
    tensors = (*model.parameters(), *model.buffers())
    return NetworkCost(
        parameters=sum(p.numel() for p in model.parameters()),
        footprint=sum(tensor.numel() * tensor.element_size() for tensor in tensors),
        connection_sparsity=zeros / weights,
        activation_sparsity=activity.zeros / activity.total if activity.total else float("nan"),
        effective_macs=macs,
        effective_acs=acs,
        dense_operations=sum((layer.dense for layer in layers), 0.0),
        neuron_updates=activity.updates / samples,
        picojoules=macs * picojoules_per_mac + acs * picojoules_per_ac,
        layers=layers,
    )


class _Tally:
    """Operations of a layer so far."""

    def __init__(self) -> None:
        self.dense = self.effective = 0.0
        self.binary = True


class _Activity:
    """Activations so far."""

    def __init__(self) -> None:
        self.zeros = self.total = self.updates = 0


def _run(model: nn.Module, x: Tensor) -> tuple[dict[str, _Tally], _Activity]:
    """Operations by layer, and activations, of one pass."""
    tallies, activity = {}, _Activity()
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad(), ExitStack() as hooks:
            for name, layer in model.named_modules():
                if isinstance(layer, _CONNECTIONS):
                    tallies[name or type(layer).__name__] = tally = _Tally()
                    hooks.callback(layer.register_forward_hook(_counter(tally)).remove)
                elif isinstance(layer, (*_ACTIVATIONS, Stateful)):
                    hooks.callback(layer.register_forward_hook(_listener(activity)).remove)
            model(x)
    finally:
        for module, training in modes.items():
            module.training = training
    return tallies, activity


def _counter(tally: _Tally) -> Any:
    def count(layer: Any, args: tuple[Tensor, ...], output: Any) -> None:
        x = args[0].detach()
        active = (x != 0).double()
        tally.binary &= bool(((x.abs() == 1) | (x == 0)).all())
        tally.effective += float(_reached(layer, active, (layer.weight != 0).double()).sum())
        ones = torch.ones_like(active[:1])
        tally.dense += len(x) * float(_reached(layer, ones, torch.ones_like(layer.weight).double()).sum())

    return count


def _reached(layer: Any, x: Tensor, weight: Tensor) -> Tensor:
    """Operations that arrive at each output, for inputs and weights of ones and zeros."""
    if isinstance(layer, nn.Linear):
        return x.reshape(-1, x.shape[-1]).sum(0) @ weight.sum(0)  # a sum over the batch is all that is asked
    pads = layer._reversed_padding_repeated_twice
    if layer.padding_mode != "zeros":
        x = nn.functional.pad(x, pads, mode=layer.padding_mode)
    elif any(pads):
        x = nn.functional.pad(x, pads)
    convolve: Any = (nn.functional.conv1d, nn.functional.conv2d, nn.functional.conv3d)[
        len(layer.kernel_size) - 1
    ]
    reached: Tensor = convolve(x, weight, None, layer.stride, 0, layer.dilation, layer.groups)
    return reached


def _listener(activity: _Activity) -> Any:
    def listen(layer: nn.Module, args: Any, output: Any) -> None:
        y = output[0] if isinstance(output, tuple) else output
        spikes = isinstance(layer, Stateful)
        activity.updates += y.numel() if spikes else 0
        if not spikes or hasattr(layer, "threshold"):
            activity.zeros += int((y == 0).sum())
            activity.total += y.numel()

    return listen


def _weights(model: nn.Module) -> tuple[int, int]:
    """Weights that are zero, and all."""
    layers: Iterator[Any] = (layer for layer in model.modules() if isinstance(layer, _CONNECTIONS))
    counts = [(int((layer.weight == 0).sum()), layer.weight.numel()) for layer in layers]
    total = sum(count for _, count in counts)
    if not total:
        raise ConfigError(f"network_cost: {type(model).__name__} has no linear layer or convolution to count")
    return sum(zeros for zeros, _ in counts), total


def _samples(model: nn.Module, x: Tensor) -> int:
    timed = isinstance(model, Stateful) or (
        any(isinstance(layer, Stateful) for layer in model.modules())
        and getattr(model, "time_steps", None) is None
    )
    return x.shape[1 if timed else 0]
