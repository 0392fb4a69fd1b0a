"""The loop behind `neuropil.kernels.astrocyte_liquid`: image by image, following neurons that fired."""

from __future__ import annotations

from typing import Any

import numpy as np

from neuropil.kernels.compiled import kernel, kernel_part

Array = Any  # numpy arrays, as Numba sees them


@kernel_part
def deliver(fired: Array, offsets: Array, targets: Array, weight: Array, per: float, current: Array) -> None:
    """Currents of what fired one step ago, in place."""
    for j in np.flatnonzero(fired):
        for edge in range(offsets[j], offsets[j + 1]):
            current[targets[edge]] += per * weight[edge]


@kernel_part
def integrate(current: Array, v: Array, wait: Array, numbers: Array, fired: Array) -> None:
    """One step of leaky neurons; `fired` are those of the liquid."""
    for i in range(len(v)):
        fired[i] = 0
        v[i] += current[i] - v[i] / numbers[0]
        if wait[i] > 0:
            wait[i] -= 1
        elif v[i] >= numbers[1]:
            fired[i], v[i], wait[i] = 1, 0.0, int(numbers[2])


@kernel_part
def relay(hits: Array, pending: Array, wait: Array, refractory: int, fired: Array) -> None:
    """Inputs that were hit fire as soon as they are not refractory."""
    for j in range(len(hits)):
        fired[j] = 0
        if hits[j]:
            pending[j] = 1
        if wait[j] > 0:
            wait[j] -= 1
        elif pending[j]:
            fired[j], pending[j], wait[j] = 1, 0, refractory


@kernel_part
def learn(
    fired: Array,
    trace: Array,
    offsets: Array,
    targets: Array,
    arrivals: Array,
    edges: Array,
    sources: Array,
    inhibits: Array,
    low: Array,
    high: Array,
    up: float,
    down: float,
    weight: Array,
) -> None:
    """Pair STDP of all synapses whose source or target fired, in place; each is clipped once."""
    inputs = len(fired) - len(arrivals) + 1
    for j in np.flatnonzero(fired):
        first = up if inhibits[j] else -down  # the source's spike after the target's
        for edge in range(offsets[j], offsets[j + 1]):
            i = inputs + targets[edge]
            change = first * trace[i]
            if fired[i]:
                change += (-down if inhibits[j] else up) * trace[j]
            weight[edge] = min(max(weight[edge] + change, low[j]), high[j])
    for i in np.flatnonzero(fired[inputs:]):
        for place in range(arrivals[i], arrivals[i + 1]):
            j = sources[place]
            if not fired[j]:  # else it has been dealt with
                edge = edges[place]
                change = (-down if inhibits[j] else up) * trace[j]
                weight[edge] = min(max(weight[edge] + change, low[j]), high[j])


@kernel
def astrocyte_liquid_run(
    x: Array,
    offsets: Array,
    targets: Array,
    arrivals: Array,
    edges: Array,
    sources: Array,
    inhibits: Array,
    low: Array,
    high: Array,
    weight: Array,
    trace: Array,
    numbers: Array,
    learns: bool,
    spikes: Array,
    levels: Array,
) -> None:
    """Run all images; changes `weight`, `trace`, `spikes` `[images, time, units]`, `levels` `[images, time]`."""
    images, steps, inputs = x.shape
    units = spikes.shape[2]
    fade, per, keep, mark = np.exp(-1 / numbers[3]), 1 / numbers[3], np.exp(-1 / numbers[4]), 1 / numbers[4]
    up, rest, slope, slow = numbers[5], numbers[6], numbers[7], numbers[8]
    for image in range(images):
        v, current = np.zeros(units), np.zeros(units)
        wait, blocked = np.zeros(units, np.int64), np.zeros(inputs, np.int64)
        pending = np.zeros(inputs, np.uint8)
        fired = np.zeros(inputs + units, np.uint8)
        level = rest
        for t in range(steps):
            current *= fade
            deliver(fired, offsets, targets, weight, per, current)
            integrate(current, v, wait, numbers, fired[inputs:])
            relay(x[image, t], pending, blocked, int(numbers[2]), fired[:inputs])
            spikes[image, t] = fired[inputs:]
            if learns:
                learn(
                    fired, trace, offsets, targets, arrivals, edges, sources, inhibits, low, high, up, level,
                    weight,
                )  # fmt: skip
                for j in range(len(trace)):
                    trace[j] = keep * (trace[j] + mark * fired[j])
                more = 0.0
                for j in range(len(fired)):
                    more += -1.0 * fired[j] if j < inputs else 1.0 * fired[j]
                level += (slope * more + rest - level) / slow
            levels[image, t] = level
