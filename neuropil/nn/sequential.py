"""Layers in a row, of which some live in time and some do not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, cast

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.lazy import LazyModuleMixin

from neuropil.errors import ConfigError, ShapeError, StateError
from neuropil.kernels.spike_linear import spike_linear
from neuropil.nn.finite import check_finite
from neuropil.nn.readout import Readout
from neuropil.nn.stateful import Stateful

States = tuple[Any, ...]
# What travels has no time axis yet, is [time, batch, ...], or a readout has taken the time axis away.
_Phase = Literal["still", "moving", "read"]


class Sequential(nn.Sequential):
    """Layers in a row: states are threaded through stateful layers, time is folded into the batch for others.

    A layer is one of
    - a `Stateful` module (a neuron, a traced synapse), which is given the whole sequence and its state;
    - a `Readout`, which turns the sequence into one answer per sample; at most one;
    - another `Sequential` without `time_steps`;
    - any other module, which sees `[time * batch, ...]`: linear layers, convolutions, pooling, `nn.Flatten`,
      dropout; batch normalisation takes its statistics over time and batch.

    The input is `[time, batch, ...]`. With `time_steps=T` it is static, `[batch, ...]`, and held for T steps:
    the layers before the first stateful one then run once instead of T times (so does their dropout).

    `net(x)` starts at rest and returns the answer alone, so it fits any training loop; `net.unroll(x, state)`
    goes on from a state and returns the next one as well. The input is refused with NonFiniteError when it
    holds NaN or infinity, with ShapeError when its shape does not fit a layer.

    >>> import torch
    >>> from neuropil.nn import LIF, RateReadout
    >>> net = Sequential(nn.Linear(4, 8), LIF(), nn.Linear(8, 3), RateReadout(), time_steps=5)
    >>> net(torch.rand(2, 4)).shape
    torch.Size([2, 3])
    """

    def __init__(self, *layers: Any, time_steps: int | None = None) -> None:
        super().__init__(*layers)
        if time_steps is not None and time_steps < 1:
            raise ConfigError(f"Sequential.time_steps: got {time_steps}, need at least 1 or None")
        self.time_steps = time_steps
        self._check_order()

    def forward(self, x: Tensor) -> Tensor:
        """Answer to `x`, starting at rest."""
        return self.unroll(x)[0]

    def unroll(self, x: Tensor, state: States | None = None) -> tuple[Tensor, States]:
        """Answer to `x` and the state after it, going on from `state` (None: at rest).

        The state is a tuple with one entry per layer, None for a layer without state.
        """
        check_finite(x, "Sequential input")
        time_steps = self.time_steps
        if time_steps is None and x.dim() < 2:
            raise ShapeError(f"Sequential: input {list(x.shape)}, expected [time, batch, ...features]")
        phase: _Phase = "moving" if time_steps is None else "still"
        y, phase, next_state = self._run(x, phase, state, time_steps or 0)
        return (_hold(y, time_steps or 0) if phase == "still" else y), next_state

    def extra_repr(self) -> str:
        """Time steps of a static input, for printing."""
        return "" if self.time_steps is None else f"time_steps={self.time_steps}"

    def _run(
        self, x: Tensor, phase: _Phase, state: States | None, time_steps: int
    ) -> tuple[Tensor, _Phase, States]:
        if state is not None and (not isinstance(state, tuple) or len(state) != len(self)):
            got = f"{len(state)} entries" if isinstance(state, tuple) else type(state).__name__
            raise StateError(f"Sequential: state is {got}, expected a tuple of {len(self)}, one per layer")
        after: list[Any] = []
        for name, layer in self._layers():
            before = None if state is None else state[len(after)]
            entry = None
            if isinstance(layer, Sequential):
                x, phase, entry = layer._run(x, phase, before, time_steps)
            elif isinstance(layer, Stateful):
                x, entry = _live(layer, x, phase, before, time_steps)
                phase = "moving"
            elif isinstance(layer, Readout):
                x = layer(_hold(x, time_steps) if phase == "still" else x)
                phase = "read"
            else:
                x = _apply(name, layer, x, phase)
            after.append(entry)
        return x, phase, tuple(after)

    def _layers(self) -> Iterator[tuple[str, nn.Module]]:
        for name, layer in self._modules.items():
            if layer is not None:
                yield name, layer

    def _check_order(self) -> None:
        """Refuse at construction what could not run."""
        is_read = False
        for name, layer in self._layers():
            label = f"layer {name} ({type(layer).__name__})"
            if not isinstance(layer, nn.Module):
                raise ConfigError(f"Sequential: {label} is not a torch.nn.Module")
            if isinstance(layer, Sequential) and layer.time_steps is not None:
                raise ConfigError(f"Sequential: {label} has time_steps; give it to the outermost Sequential")
            holds_time = any(isinstance(inner, Stateful | Readout) for inner in layer.modules())
            if type(layer) is nn.Sequential and holds_time:
                raise ConfigError(
                    f"Sequential: {label} is a torch.nn.Sequential and cannot carry state through the layers "
                    "in it; use neuropil.nn.Sequential there too"
                )
            if is_read and _needs_time(layer):
                raise ConfigError(
                    f"Sequential: {label} needs a time axis, but a readout before it took that away"
                )
            is_read = is_read or _reads(layer)


def _needs_time(layer: nn.Module) -> bool:
    if isinstance(layer, Sequential):
        return any(_needs_time(inner) for inner in layer)
    return isinstance(layer, Stateful | Readout)


def _reads(layer: nn.Module) -> bool:
    if isinstance(layer, Sequential):
        return any(_reads(inner) for inner in layer)
    return isinstance(layer, Readout)


def _hold(x: Tensor, time_steps: int) -> Tensor:
    """`x` for every time step, without a copy: the stride over time is 0, which cells recognise."""
    return x.unsqueeze(0).expand(time_steps, *x.shape)


def _live(layer: Stateful, x: Tensor, phase: _Phase, state: Any, time_steps: int) -> tuple[Tensor, Any]:
    """Run a layer that lives in time."""
    if phase != "still":
        return cast(tuple[Tensor, Any], layer(x, state))
    if _is_hooked(layer):  # hooks are given what the contract promises, a sequence
        return cast(tuple[Tensor, Any], layer(_hold(x, time_steps), state))
    return cast(tuple[Tensor, Any], layer.forward_static(x, time_steps, state))


def _is_hooked(layer: nn.Module) -> bool:
    """Whether someone waits for the layer to be called."""
    before, after = layer._forward_pre_hooks, layer._forward_hooks
    return bool(before or after or layer._backward_hooks or layer._backward_pre_hooks)


def _apply(name: str, layer: nn.Module, x: Tensor, phase: _Phase) -> Tensor:
    """Run a layer that knows nothing of time."""
    if phase != "moving":
        _check_input(name, layer, x, x.shape)
        return cast(Tensor, layer(x))
    time, batch = x.shape[:2]
    folded = x.flatten(0, 1)
    _check_input(name, layer, folded, x.shape)
    if type(layer) is nn.Linear and not _is_hooked(layer):
        y = spike_linear(folded, layer.weight, layer.bias)
    else:
        y = layer(folded)
    return y.reshape(time, batch, *y.shape[1:])


def _check_input(name: str, layer: nn.Module, x: Tensor, shape: tuple[int, ...]) -> None:
    """Say in one line what is wrong with the input of one of the common layers."""
    if type(layer) is nn.Linear and x.dim() > 1 and x.shape[-1] == layer.in_features:
        return  # the common case: the questions below cost as much as a small product
    expected: str | None = None
    if isinstance(layer, LazyModuleMixin) and layer.has_uninitialized_params():
        return
    if isinstance(layer, nn.Linear):
        if x.dim() < 2 or x.shape[-1] != layer.in_features:
            expected = f"{layer.in_features} features"
    elif isinstance(layer, _ConvNd):
        dims = len(layer.kernel_size)
        if x.dim() != dims + 2 or x.shape[1] != layer.in_channels:
            expected = f"{layer.in_channels} channels and {dims} spatial dimensions"
    elif isinstance(layer, _BatchNorm) and (x.dim() < 2 or x.shape[1] != layer.num_features):
        expected = f"{layer.num_features} channels"
    if expected is not None:
        axes = "[time, batch, ...]" if len(shape) > x.dim() else "[batch, ...]"
        raise ShapeError(
            f"Sequential: layer {name} ({type(layer).__name__}) got {list(shape)}, "
            f"expected {axes} with {expected} per sample"
        )
