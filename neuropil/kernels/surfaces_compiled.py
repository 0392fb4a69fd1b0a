"""The loops behind `neuropil.kernels.surfaces`: one event after the other.

Work follows the events: a pixel that was never active is skipped, in the surface and in the products with it. The
similarities of all features are summed up together, pixel by pixel, which the compiler turns into vector instructions
without taking any sum in another order.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from neuropil.kernels.compiled import kernel, kernel_part

Array = Any  # numpy arrays, as Numba sees them


@kernel_part
def surface_at(
    t: int, x: int, y: int, channel: int, last: Array, radius: int, tau: float, own: bool, surface: Array
) -> None:
    """Note an event and write the surface around it, brought to length one."""
    last[channel, y, x] = t
    first, stop = (channel, channel + 1) if own else (0, last.shape[0])
    side = 2 * radius + 1
    never = np.iinfo(np.int64).min // 2
    total = 0.0
    surface[:] = 0.0
    top, bottom = max(0, y - radius), min(last.shape[1], y + radius + 1)
    left, right = max(0, x - radius), min(last.shape[2], x + radius + 1)
    for c in range(first, stop):
        for row in range(top, bottom):
            at = ((c - first) * side + row - y + radius) * side - x + radius
            for column in range(left, right):
                when = last[c, row, column]
                if when != never:
                    age = max(0, t - when)
                    value = np.exp(-age / tau)
                    surface[at + column] = value
                    total += value * value
    norm = np.sqrt(total)
    for i in range(len(surface)):
        surface[i] /= norm


@kernel
def fill_surfaces(
    t: Array,
    x: Array,
    y: Array,
    channel: Array,
    last: Array,
    radius: int,
    tau: float,
    own: bool,
    surfaces: Array,
) -> None:
    """Surface of every event into `surfaces`, `[events, surface]`."""
    for event in range(len(t)):
        surface_at(
            t[event], x[event], y[event], channel[event], last, radius, tau, own, surfaces[event]
        )  # fmt: skip


@kernel
def match_events(
    t: Array, x: Array, y: Array, channel: Array, last: Array, weight: Array, thresholds: Array,
    rate: float, rise: float, fall: float, radius: int, tau: float, own: bool, winners: Array,
) -> None:  # fmt: skip
    """Winner of every event into `winners`, learning on the way; `weight` is `[surface, features]`."""
    size, features = weight.shape
    surface, similar = np.empty(size), np.empty(features)
    for event in range(len(t)):
        surface_at(t[event], x[event], y[event], channel[event], last, radius, tau, own, surface)
        similar[:] = 0.0
        for i in range(size):
            value = surface[i]
            if value != 0.0:
                row = weight[i]
                for k in range(features):
                    similar[k] += value * row[k]
        best = -1
        for k in range(features):
            if similar[k] > thresholds[k] and (best < 0 or similar[k] > similar[best]):
                best = k
        winners[event] = best
        if best < 0:
            for k in range(features):
                thresholds[k] -= fall
            continue
        if rate != 0.0:
            total = 0.0
            for i in range(size):
                moved = (1.0 - rate) * weight[i, best] + rate * surface[i]
                weight[i, best] = moved
                total += moved * moved
            norm = np.sqrt(total)
            for i in range(size):
                weight[i, best] /= norm
        thresholds[best] += rise
