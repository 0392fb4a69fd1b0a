"""The loop behind `neuropil.kernels.liquid`: one sample's whole run at a time, its spikes followed along their columns.

Arrays are `[batch, units]`; what is under way is `[batch, depth, 2 * units]`, excitation first, and a ring over depth.
A connection is a place in such a row (`targets`), a conductance (`values`, not negative) and a delay of 1 to `depth`
steps, stored by its presynaptic unit.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from neuropil.kernels.compiled import kernel, kernel_part
from neuropil.kernels.reservoir_compiled import find_fired
from neuropil.kernels.surrogate_compiled import exp32, exp64

Array = Any  # numpy arrays, as Numba sees them


@kernel_part
def arrive(x: Array, strong: Array, weak: Array, due: Array, g: Array) -> None:
    """Add what is `due` and what the input brings to the conductances; `weak` is `strong` with its halves swapped."""
    for i in range(len(g)):
        g[i] += due[i]
        due[i] = 0
    for k in range(len(x)):
        if x[k] > 0:
            for i in range(len(g)):
                g[i] += x[k] * strong[k, i]
        elif x[k] != 0:  # also NaN, which must not pass unseen
            for i in range(len(g)):
                g[i] -= x[k] * weak[k, i]


@kernel_part
def relax(g: Array, p: Array, v: Array, u: Array) -> None:
    """Membranes `u` one step after `v`, on the exact exponential towards the balance of the conductances `g`."""
    units = len(v)
    if v.itemsize == 4:
        for i in range(units):
            total = p[0, i] + g[i] + g[units + i]
            balance = (p[1, i] + p[2, i] * g[i] + p[3, i] * g[units + i]) / total
            u[i] = balance + (v[i] - balance) * exp32(-p[4, i] * total)
    else:
        for i in range(units):
            total = p[0, i] + g[i] + g[units + i]
            balance = (p[1, i] + p[2, i] * g[i] + p[3, i] * g[units + i]) / total
            u[i] = balance + (v[i] - balance) * exp64(-p[4, i] * total)


@kernel_part
def fire(p: Array, u: Array, v: Array, left: Array, spikes: Array) -> None:
    """Spikes of the units that may fire; the others keep their membrane and wait one step less."""
    none, one = v.dtype.type(0), v.dtype.type(1)
    for i in range(len(v)):
        may = left[i] <= none
        spike = may and u[i] >= p[5, i]
        v[i] = p[6, i] if spike else (u[i] if may else v[i])
        left[i] = p[7, i] if spike else (none if may else left[i] - one)
        spikes[i] = one if spike else none


@kernel_part
def send(
    offsets: Array, targets: Array, values: Array, delays: Array, fired: Array, head: int, ring: Array
) -> None:
    """Put the spikes of the units that `fired` on their way; the ring's row `head` arrives at the next step."""
    depth = len(ring)
    for j in fired:
        for k in range(offsets[j], offsets[j + 1]):
            slot = head + delays[k] - 1
            slot = slot - depth if slot >= depth else slot
            ring[slot, targets[k]] += values[k]


@kernel
def liquid_run(
    start: int,
    stop: int,
    x: Array,
    membrane: Array,
    conductance: Array,
    left: Array,
    pending: Array,
    strong: Array,
    weak: Array,
    parameters: Array,
    offsets: Array,
    targets: Array,
    values: Array,
    delays: Array,
    spikes: Array,
) -> None:
    """Run samples `start` to `stop`; the four states are replaced by those after the run.

    Rows of `parameters`: leak, drive (leak times rest, plus current), the two reversals, step over capacitance,
    threshold, reset, refractory steps, and what one step leaves of excitation and of inhibition.
    """
    units = membrane.shape[1]
    u = np.empty(units, x.dtype)
    places = np.empty(units + 1, np.uint32)
    p = parameters
    for b in range(start, stop):
        v, g, wait = membrane[b], conductance[b], left[b]
        ring = pending[b].copy()
        depth, head = len(ring), 0
        for t in range(len(spikes)):
            now = spikes[t, b]
            arrive(x[t, b], strong, weak, ring[head], g)
            relax(g, p, v, u)
            fire(p, u, v, wait, now)
            for i in range(units):
                g[i] *= p[8, i]
                g[units + i] *= p[9, i]
            head = head + 1 if head + 1 < depth else 0
            send(offsets, targets, values, delays, places[: find_fired(now, places)], head, ring)
        for k in range(depth):
            row = ring[(head + k) % depth]
            for i in range(2 * units):
                pending[b, k, i] = row[i]
