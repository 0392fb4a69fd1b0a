"""What scans of neurons with several states share: checks, and the way to the compiled kernel."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import get_args

import torch
from torch import Tensor

from neuropil.errors import ConfigError, ShapeError, StateError, nearest
from neuropil.kernels.compiled import serves
from neuropil.kernels.lanes import check_per_neuron, period
from neuropil.kernels.lif import Memory, Reset, SpikeFunction, fused_name
from neuropil.kernels.neuron_op import neuron

Scan = tuple[Tensor, ...]  # spikes of every step, and each state after the last


def neuron_scan(
    model: str,
    reference: Callable[..., Scan],
    x: Tensor,
    states: Mapping[str, Tensor],
    parameters: Mapping[str, Tensor],
    surrogate: SpikeFunction,
    *,
    reset: Reset | None = None,
    detach_reset: bool,
    temporal_gradient: bool,
    memory: Memory,
) -> Scan:
    """Spikes and last states, by the compiled kernel where it serves, else by `reference`.

    `states` and `parameters` are in the order of the kernel's rows and of the reference's arguments; `reset` is None
    for models that have one reset only. Raises ShapeError, StateError or ConfigError when the arguments do not fit
    together.
    """
    result = compiled_scan(
        model,
        x,
        states,
        parameters,
        surrogate,
        reset=reset or "zero",
        detach_reset=detach_reset,
        temporal_gradient=temporal_gradient,
        memory=memory,
    )
    if result is not None:
        return result
    return reference(
        x,
        *states.values(),
        *(parameter.to(x.dtype) for parameter in parameters.values()),
        surrogate,
        detach_reset=detach_reset,
        temporal_gradient=temporal_gradient,
        **({} if reset is None else {"reset": reset}),
    )


def compiled_scan(
    model: str,
    x: Tensor,
    states: Mapping[str, Tensor],
    parameters: Mapping[str, Tensor],
    surrogate: SpikeFunction,
    *,
    reset: Reset,
    detach_reset: bool,
    temporal_gradient: bool,
    memory: Memory,
) -> tuple[Tensor, ...] | None:
    """Spikes and last states by the compiled kernel; None where it does not serve.

    `states` and `parameters` are in the order of the kernel's rows. Raises ShapeError, StateError or ConfigError when
    the arguments do not fit together.
    """
    _check(f"{model}_scan", x, states, parameters, reset, memory)
    name, lanes = fused_name(surrogate), x.shape[1:].numel()
    parameters = {key: parameter.to(x.dtype) for key, parameter in parameters.items()}
    if name is None or lanes == 0 or not serves(x, *states.values(), *parameters.values()):
        return None
    rows = [period(parameter, x.shape[2:]) for parameter in parameters.values()]
    longest = max(len(row) for row in rows)
    stacked = torch.stack([row.expand(longest) for row in rows])
    start = torch.stack([state.reshape(lanes) for state in states.values()])
    learns = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (x, start, stacked))
    spikes, final, _ = neuron(
        x.reshape(len(x), lanes),
        start,
        stacked,
        learns and memory == "save",
        model,
        name,
        surrogate.scale,
        reset == "zero",
        detach_reset,
        temporal_gradient,
    )
    return spikes.view(x.shape), *(state.view(x.shape[1:]) for state in final.unbind(0))


def _check(
    caller: str,
    x: Tensor,
    states: Mapping[str, Tensor],
    parameters: Mapping[str, Tensor],
    reset: str,
    memory: str,
) -> None:
    """Refuse arguments that do not fit together."""
    for name, value, choices in (("reset", reset, get_args(Reset)), ("memory", memory, get_args(Memory))):
        if value not in choices:
            raise ConfigError(f"{caller}: {name}={value!r} is unknown{nearest(str(value), choices)}")
    if x.dim() < 2 or not x.is_floating_point():
        raise ShapeError(
            f"{caller}: x is {x.dtype} of shape {list(x.shape)}, expected floats [time, batch, ...features]"
        )
    for name, state in states.items():
        if state.shape != x.shape[1:] or state.dtype != x.dtype:
            raise StateError(
                f"{caller}: {name} is {state.dtype} of shape {list(state.shape)}, "
                f"x needs {x.dtype} of shape {list(x.shape[1:])}"
            )
    for name, parameter in parameters.items():
        check_per_neuron(caller, name, parameter, x.shape[2:])
