"""Recurrent networks of spiking neurons with conductances: a whole run in one call.

Milliseconds, millivolts, nanosiemens, picofarads and picoamperes. Per step of `dt`, with the excitatory and
inhibitory conductances `e` and `i` and the membrane `v` that the step before left:

    e = e + what arrives,  i = i + what arrives     spikes of `delay` steps ago and the input, by the sign of the weight
    g = leak + e + i
    b = (leak * rest + current + e * E_e + i * E_i) / g
    u = b + (v - b) * exp(-dt * g / capacitance)    exact while the conductances stay; never leaves the reversals
    s = 1[u >= threshold] unless the neuron fired less than `refractory` ago, when its membrane is held
    v = reset where s,  u elsewhere
    e = exp(-dt / tau_e) * e,  i = exp(-dt / tau_i) * i

so that the error is of first order in `dt` and no step is too long to be stable. Vogels and Abbott (2005), "Signal
propagation and logic gating in networks of integrate-and-fire neurons"; as a liquid: Maass et al. (2002).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from neuropil.errors import ConfigError, ShapeError, StateError
from neuropil.kernels.compiled import serves
from neuropil.kernels.lanes import check_per_neuron
from neuropil.kernels.liquid_op import liquid
from neuropil.kernels.reservoir import compressed

if TYPE_CHECKING:
    from jaxtyping import Float, Int


class LiquidNeuron(NamedTuple):
    """Numbers of the neurons of a liquid, each one number or one per unit; the defaults are Vogels and Abbott's."""

    capacitance: float | Tensor = 200.0  # pF, > 0
    leak: float | Tensor = 10.0  # nS, > 0
    rest: float | Tensor = -60.0  # mV
    threshold: float | Tensor = -50.0  # mV, above the reset
    reset: float | Tensor = -60.0  # mV
    excitatory_reversal: float | Tensor = 0.0  # mV
    inhibitory_reversal: float | Tensor = -80.0  # mV
    excitatory_time: float | Tensor = 5.0  # ms in which excitation falls to 1/e, > 0
    inhibitory_time: float | Tensor = 10.0  # ms, > 0
    refractory: float | Tensor = 5.0  # ms, >= 0, rounded to steps
    current: float | Tensor = 0.0  # pA, all the time


class LiquidVariables(NamedTuple):
    """Where a run ends and the next one starts."""

    membrane: Tensor  # [batch, units], mV, after the reset
    conductance: Tensor  # [batch, 2 * units], nS, excitation first
    refractory: Tensor  # [batch, units], steps for which the unit still waits
    pending: Tensor  # [batch, longest delay, 2 * units], nS that arrive in 1, 2, ... steps


class LiquidRun(NamedTuple):
    """What a run gives."""

    spikes: Tensor  # [time, batch, units], 0 or 1
    state: LiquidVariables


def liquid_scan(
    x: Float[Tensor, "time batch inputs"],
    connections: Float[Tensor, "units units"],
    input_weight: Float[Tensor, "units inputs"],
    neuron: LiquidNeuron = LiquidNeuron(),  # noqa: B008  immutable
    state: LiquidVariables | None = None,
    *,
    delays: Int[Tensor, "units units"] | None = None,
    dt: float = 1.0,
) -> LiquidRun:
    """Spikes of every step and the state after the last; see the module for the equations.

    A spike of unit `j` raises a conductance of unit `i` by `|connections[i, j]|` nanosiemens, the excitatory one where
    the weight is positive, else the inhibitory one; so does an input `x` by `x * input_weight`. The work follows the
    spikes: only connections of units that fired are read. `delays` are whole steps, at least 1 (the default).
    `connections` may be sparse. No gradient passes. Raises ShapeError, StateError or ConfigError when the arguments
    do not fit together.

    >>> import torch
    >>> chain, into = torch.tensor([[0.0, 0.0], [80.0, 0.0]]), torch.tensor([[80.0], [0.0]])  # unit 0 excites unit 1
    >>> x = torch.zeros(5, 1, 1)
    >>> x[0] = 1.0
    >>> run = liquid_scan(x, chain, into)
    >>> run.spikes[:, 0].nonzero().tolist()  # [step, unit]
    [[0, 0], [1, 1]]
    """
    _check(x, connections, input_weight, delays)
    units = len(input_weight)
    numbers = liquid_numbers(neuron, units, dt).to(x.dtype)
    state = liquid_rest(x, units, neuron, delays) if state is None else state
    _check_state(x, units, state, delays)
    if not serves(x, *state, connections, input_weight):
        return liquid_reference(x, connections.to_dense(), input_weight, numbers, state, delays)
    offsets, rows, values = compressed(connections, torch.sparse_csc)
    columns = torch.arange(units).repeat_interleave(offsets.diff())
    steps = torch.ones_like(rows) if delays is None else delays[rows, columns]
    strong = torch.cat([functional.relu(input_weight.mT), functional.relu(-input_weight.mT)], dim=1)
    inputs = (x, *state, strong, numbers, offsets, rows + units * (values < 0), values.abs(), steps)
    spikes, *after = liquid(*(tensor.detach() for tensor in inputs))
    return LiquidRun(spikes, LiquidVariables(*after))


def liquid_rest(
    x: Float[Tensor, "time batch inputs"],
    units: int,
    neuron: LiquidNeuron = LiquidNeuron(),  # noqa: B008  immutable
    delays: Int[Tensor, "units units"] | None = None,
) -> LiquidVariables:
    """Membranes at rest, conductances of zero, nothing under way: where a run starts unless told otherwise.

    >>> state = liquid_rest(torch.zeros(4, 2, 3), units=5)
    >>> state.membrane[0, 0].item(), state.pending.shape
    (-60.0, torch.Size([2, 1, 10]))
    """
    batch, longest = x.shape[1], 1 if delays is None or delays.numel() == 0 else max(1, int(delays.max()))
    membrane = x.new_zeros(batch, units) + torch.as_tensor(neuron.rest, dtype=x.dtype, device=x.device)
    zero = x.new_zeros(batch, units)
    return LiquidVariables(
        membrane, x.new_zeros(batch, 2 * units), zero, x.new_zeros(batch, longest, 2 * units)
    )


def liquid_reference(
    x: Float[Tensor, "time batch inputs"],
    connections: Float[Tensor, "units units"],
    input_weight: Float[Tensor, "units inputs"],
    numbers: Float[Tensor, "10 units"],
    state: LiquidVariables,
    delays: Int[Tensor, "units units"] | None = None,
) -> LiquidRun:
    """`liquid_scan` as the equations read, in plain torch; `numbers` are those of `liquid_numbers`.

    >>> x, one = torch.zeros(3, 1, 1), torch.ones(1, 1)
    >>> run = liquid_reference(x, one, one, liquid_numbers(LiquidNeuron(), 1, 1.0).float(), liquid_rest(x, 1))
    >>> run.spikes.sum().item(), run.state.membrane.item()
    (0.0, -60.0)
    """
    leak, drive, upper, lower, pace, threshold, reset, waits, *decays = numbers
    decay, into = torch.cat(decays), _signed(input_weight)
    away = [(1, _signed(connections))]
    if delays is not None:
        away = [(int(d), _signed(connections * (delays == d))) for d in delays[connections != 0].unique()]
    v, g, left, pending = state
    units, all_spikes = len(leak), []
    for now in x.unbind(0):
        g = g + pending[:, 0] + now.clamp(min=0) @ into.mT + (-now).clamp(min=0) @ into.roll(units, 0).mT
        excitation, inhibition = g.split(units, dim=1)
        total = leak + excitation + inhibition
        balance = (drive + upper * excitation + lower * inhibition) / total
        u = balance + (v - balance) * torch.exp(-pace * total)
        may = left <= 0
        fires = may & (u >= threshold)
        v = torch.where(fires, reset, torch.where(may, u, v))
        left = torch.where(fires, waits, (left - 1).clamp(min=0))
        g, spikes = g * decay, fires.to(x.dtype)
        pending = torch.cat([pending[:, 1:], torch.zeros_like(pending[:, :1])], dim=1)
        for steps, weights in away:
            pending[:, steps - 1] += spikes @ weights.mT
        all_spikes.append(spikes)
    run = torch.stack(all_spikes) if all_spikes else x.new_empty(0, *v.shape)
    return LiquidRun(run, LiquidVariables(v, g, left, pending))


def liquid_numbers(neuron: LiquidNeuron, units: int, dt: float) -> Float[Tensor, "10 units"]:
    """The neurons' numbers as the equations use them, in double precision; refuses what is out of range.

    Rows: leak, leak * rest + current, the two reversals, dt / capacitance, threshold, reset, refractory steps, and
    what a step leaves of excitation and of inhibition.

    >>> liquid_numbers(LiquidNeuron(), 1, dt=5.0)[-2:].flatten().tolist() == [math.exp(-1), math.exp(-0.5)]
    True
    """
    if not (math.isfinite(dt) and dt > 0):
        raise ConfigError(f"liquid_scan: dt is {dt}, expected milliseconds > 0")
    given: dict[str, Tensor] = {}
    for name, value in neuron._asdict().items():
        tensor = torch.as_tensor(value, dtype=torch.float64)
        check_per_neuron("liquid_scan", name, tensor, (units,))
        positive = name in ("capacitance", "leak", "excitatory_time", "inhibitory_time")
        if not (tensor.isfinite() & (tensor > 0 if positive else tensor == tensor)).all():
            raise ConfigError(
                f"liquid_scan: {name} is {value}, expected a finite number{' > 0' if positive else ''}"
            )
        given[name] = tensor.reshape(-1).expand(units)
    if not ((given["refractory"] >= 0) & (given["threshold"] > given["reset"])).all():
        raise ConfigError(
            f"liquid_scan: threshold {neuron.threshold}, reset {neuron.reset}, refractory {neuron.refractory}; "
            "expected the threshold above the reset and refractory >= 0"
        )
    return torch.stack(
        [
            given["leak"],
            given["leak"] * given["rest"] + given["current"],
            given["excitatory_reversal"],
            given["inhibitory_reversal"],
            dt / given["capacitance"],
            given["threshold"],
            given["reset"],
            (given["refractory"] / dt).round(),
            torch.exp(-dt / given["excitatory_time"]),
            torch.exp(-dt / given["inhibitory_time"]),
        ]
    )


def _signed(weights: Tensor) -> Tensor:
    """Excitatory over inhibitory conductances, `[2 * units, from]`."""
    return torch.cat([weights.clamp(min=0), (-weights).clamp(min=0)])


def _check(x: Tensor, connections: Tensor, input_weight: Tensor, delays: Tensor | None) -> None:
    """Refuse arguments that do not fit together."""
    if x.dim() != 3 or not x.is_floating_point():
        raise ShapeError(
            f"liquid_scan: x is {x.dtype} of shape {list(x.shape)}, expected floats [time, batch, inputs]"
        )
    units = len(input_weight)
    for name, tensor, wanted in (
        ("input_weight", input_weight, (units, x.shape[2])),
        ("connections", connections, (units, units)),
        ("delays", delays, (units, units)),
    ):
        if tensor is not None and tensor.shape != wanted:
            raise ShapeError(f"liquid_scan: {name} has shape {list(tensor.shape)}, expected {list(wanted)}")
    if delays is not None and (delays.is_floating_point() or bool((delays < 1).any())):
        raise ConfigError(
            f"liquid_scan: delays are {delays.dtype} from {delays.min()}, expected integers >= 1"
        )


def _check_state(x: Tensor, units: int, state: LiquidVariables, delays: Tensor | None) -> None:
    """Refuse a state of another batch, network or dtype, or with too little room for the delays."""
    batch, longest = x.shape[1], 1 if delays is None or delays.numel() == 0 else int(delays.max())
    one, two = (batch, units), (batch, 2 * units)
    room = state.pending.shape[1] if state.pending.dim() == 3 else 0
    wanted = (one, two, one, (batch, max(longest, room), 2 * units))
    for name, tensor, shape in zip(state._fields, state, wanted, strict=True):
        if tensor.shape != shape or tensor.dtype != x.dtype:
            raise StateError(
                f"liquid_scan: state.{name} is {tensor.dtype} of shape {list(tensor.shape)}, "
                f"x and the connections need {x.dtype} of shape {list(shape)}"
            )
