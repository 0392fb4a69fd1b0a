"""Scans of neurons with several states: a tile of neurons at a time, all of its time steps in one pass.

Arrays are `[time, lanes]` for the input, `[states, lanes]` for the state and `[parameters, period]` for parameters,
which repeat along the lanes. `model` is a tuple in MODELS: its length, known when a scan is compiled, leaves only that
model's code in it, for a scan of all of them is too large for the compiler to find vectors in. The backward pass scans
a segment of steps anew from the states at its start, as the leaky neurons' does.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from neuropil.kernels.adaptive_compiled import adaptive_back, adaptive_membrane, adaptive_step
from neuropil.kernels.adex_compiled import adex_back, adex_membrane, adex_step
from neuropil.kernels.compiled import kernel, kernel_part
from neuropil.kernels.izhikevich_compiled import izhikevich_back, izhikevich_membrane, izhikevich_step
from neuropil.kernels.lanes import repeat_row
from neuropil.kernels.lif_compiled import ask_for_row
from neuropil.kernels.quadratic_compiled import quadratic_back, quadratic_membrane, quadratic_step
from neuropil.kernels.refractory_compiled import refractory_back, refractory_membrane, refractory_step
from neuropil.kernels.resonator_compiled import resonator_back, resonator_membrane, resonator_step
from neuropil.kernels.surrogate_compiled import derivative_row
from neuropil.kernels.synaptic_compiled import synaptic_back, synaptic_membrane, synaptic_step

Array = Any  # numpy arrays, as Numba sees them

MODELS = {
    name: (0,) * (number + 1)
    for number, name in enumerate(
        ("synaptic", "adaptive", "izhikevich", "quadratic", "adex", "resonator", "refractory")
    )
}

TILE = 512  # lanes: several rows of states and parameters fit the first-level cache
ROW = TILE + 16  # so that rows of a tile do not all begin at the same place in the cache
SEGMENT = 32  # steps whose states the backward pass finds anew at a time
STATES, PARAMETERS = 2, 10  # that a model has at most


@kernel_part
def step(model: tuple[int, ...], x: Array, p: Array, s: Array, zero: bool, spikes: Array) -> None:
    """One time step of a tile."""
    if len(model) == 1:
        synaptic_step(x, p, s, zero, spikes)
    elif len(model) == 2:
        adaptive_step(x, p, s, zero, spikes)
    elif len(model) == 3:
        izhikevich_step(x, p, s, spikes)
    elif len(model) == 4:
        quadratic_step(x, p, s, spikes)
    elif len(model) == 5:
        adex_step(x, p, s, spikes)
    elif len(model) == 6:
        resonator_step(x, p, s, spikes)
    else:
        refractory_step(x, p, s, zero, spikes)


@kernel_part
def membrane(model: tuple[int, ...], x: Array, p: Array, s: Array, u: Array, h: Array) -> None:
    """Membrane before the reset, and threshold, of a time step that starts from `s`."""
    if len(model) == 1:
        synaptic_membrane(x, p, s, u, h)
    elif len(model) == 2:
        adaptive_membrane(x, p, s, u, h)
    elif len(model) == 3:
        izhikevich_membrane(x, p, s, u, h)
    elif len(model) == 4:
        quadratic_membrane(x, p, s, u, h)
    elif len(model) == 5:
        adex_membrane(x, p, s, u, h)
    elif len(model) == 6:
        resonator_membrane(x, p, s, u, h)
    else:
        refractory_membrane(x, p, s, u, h)


@kernel_part
def back(
    model: tuple[int, ...],
    x: Array,
    p: Array,
    s: Array,
    u: Array,
    g_spike: Array,
    zero: bool,
    detach: bool,
    a: Array,
    g: Array,
    g_p: Array | None,
    g_x: Array,
) -> None:
    """Gradients of a time step that starts from `s`."""
    if len(model) == 1:
        synaptic_back(p, s, u, g_spike, zero, detach, a, g, g_p, g_x)
    elif len(model) == 2:
        adaptive_back(p, s, u, g_spike, zero, detach, a, g, g_p, g_x)
    elif len(model) == 3:
        izhikevich_back(x, p, s, u, g_spike, detach, a, g, g_p, g_x)
    elif len(model) == 4:
        quadratic_back(x, p, s, u, g_spike, detach, a, g, g_p, g_x)
    elif len(model) == 5:
        adex_back(x, p, s, u, g_spike, detach, a, g, g_p, g_x)
    elif len(model) == 6:
        resonator_back(x, p, s, u, g_spike, detach, a, g, g_p, g_x)
    else:
        refractory_back(p, s, u, g_spike, zero, detach, a, g, g_p, g_x)


@kernel_part
def load_tile(parameters: Array, first: int, tile: Array, width: int) -> None:
    """Parameters of the lanes from `first`."""
    for k in range(len(parameters)):
        repeat_row(parameters[k], first, tile[k, :width])


@kernel_part
def copy(source: Array, at: int, target: Array, to: int, many: int, width: int) -> None:
    """Some columns of `many` rows; a loop compiles much faster than the assignment of a slice."""
    for k in range(many):
        for j in range(width):
            target[k, to + j] = source[k, at + j]


@kernel_part
def clear(target: Array, many: int, width: int) -> None:
    """`target = 0`."""
    for k in range(many):
        for j in range(width):
            target[k, j] = 0


@kernel
def neuron_forward(
    start: int,
    stop: int,
    model: tuple[int, ...],
    x: Array,
    state: Array,
    parameters: Array,
    zero: bool,
    spikes: Array,
    final: Array,
    saved: Array,
) -> None:
    """Scan lanes `start` to `stop`. States at the start of each segment but the first go to `saved`, if it has rows."""
    many = len(state)
    local = np.empty((PARAMETERS + STATES, ROW), x.dtype)
    p, s = local[:PARAMETERS], local[PARAMETERS:]
    for first in range(start, stop, TILE):
        last = min(first + TILE, stop)
        width = last - first
        load_tile(parameters, first, p, width)
        copy(state, first, s, 0, many, width)
        for t in range(len(x)):
            if t > 0 and t % SEGMENT == 0 and len(saved) > 0:
                copy(s, 0, saved[t // SEGMENT - 1], first, many, width)
            ask_for_row(x, t + 1, first, last)
            ask_for_row(spikes, t + 1, first, last)
            step(model, x[t, first:last], p, s, zero, spikes[t, first:last])
        copy(s, 0, final, first, many, width)


@kernel
def neuron_backward(
    start: int,
    stop: int,
    model: tuple[int, ...],
    x: Array,
    saved: Array,
    state: Array,
    parameters: Array,
    g_spikes: Array,
    g_final: Array,
    kind: int,
    scale: float,
    zero: bool,
    detach: bool,
    keep: bool,
    g_x: Array,
    g_state: Array,
    g_parameters: Array | None,
) -> None:
    """Gradients of lanes `start` to `stop`; without rows in `saved` one more scan finds the segments' starts.

    `g_parameters` is per lane, None if not wanted. A tile's numbers are rows of one array of a known shape: of rows
    at unknown distances the compiler would have to make sure, pair by pair, that they do not overlap, and gives up.
    """
    steps, many = len(x), len(state)
    segments = (steps + SEGMENT - 1) // SEGMENT
    recompute = len(saved) < segments - 1
    local = np.empty((2 * PARAMETERS + 2 * STATES + 4, ROW), x.dtype)
    p, states, rows = local[:PARAMETERS], local[2 * PARAMETERS :], local[2 * PARAMETERS + 2 * STATES :]
    s, g = states[:STATES], states[STATES : 2 * STATES]
    g_p = None if g_parameters is None else local[PARAMETERS : 2 * PARAMETERS]
    history = np.empty((SEGMENT, STATES, ROW), x.dtype)
    starts = np.empty((segments if recompute else 0, STATES, ROW), x.dtype)
    for first in range(start, stop, TILE):
        last = min(first + TILE, stop)
        width = last - first
        u, h, a, spare = rows[0, :width], rows[1, :width], rows[2, :width], rows[3, :width]
        load_tile(parameters, first, p, width)
        if g_p is not None:
            clear(g_p, len(parameters), width)
        copy(g_final, first, g, 0, many, width)
        if recompute:
            copy(state, first, s, 0, many, width)
            for t in range(steps):
                if t % SEGMENT == 0:
                    copy(s, 0, starts[t // SEGMENT], 0, many, width)
                ask_for_row(x, t + 1, first, last)
                step(model, x[t, first:last], p, s, zero, spare)
        for k in range(segments - 1, -1, -1):
            begin, end = k * SEGMENT, min((k + 1) * SEGMENT, steps)
            if k == 0:
                copy(state, first, s, 0, many, width)
            elif recompute:
                copy(starts[k], 0, s, 0, many, width)
            else:
                copy(saved[k - 1], first, s, 0, many, width)
            for t in range(begin, end):
                copy(s, 0, history[t - begin], 0, many, width)
                ask_for_row(x, t + 1, first, last)
                step(model, x[t, first:last], p, s, zero, spare)
            for t in range(end - 1, begin - 1, -1):
                now, before, g_now = x[t, first:last], history[t - begin], g_x[t, first:last]
                ask_for_row(g_spikes, t - 1, first, last)
                ask_for_row(g_x, t - 1, first, last)
                membrane(model, now, p, before, u, h)
                derivative_row(kind, scale, u, h, a)
                back(model, now, p, before, u, g_spikes[t, first:last], zero, detach, a, g, g_p, g_now)
                if not keep:
                    clear(g, many, width)
        copy(g, 0, g_state, first, many, width)
        if g_p is not None:
            copy(g_p, 0, g_parameters, first, len(parameters), width)
