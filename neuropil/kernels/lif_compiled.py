"""The loops behind `neuropil.kernels.lif`: a tile of neurons at a time, all of its time steps in one pass.

Arrays are `[time, lanes]`, a lane being one neuron of one sample; `decay` and `threshold` repeat along the
lanes. The rows of `local` are the tile's own numbers, close together so that they stay in the first-level cache
and the compiler can tell them apart from the arrays.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from neuropil.kernels.compiled import kernel, kernel_part, sum_part
from neuropil.kernels.lanes import repeat_row
from neuropil.kernels.surrogate_compiled import derivative_row, spike_gradient_row
from neuropil.kernels.vector import prefetch

Array = Any  # numpy arrays, as Numba sees them

TILE = 384  # lanes: few enough that a segment's membranes stay in a near cache
ROW = TILE + 16  # so that rows of a tile do not all begin at the same place in the cache
SEGMENT = 32  # steps whose membranes the backward pass scans anew at a time, in the second-level cache


@kernel_part
def ask_for_row(array: Array, t: int, first: int, last: int) -> None:
    """Have a row brought into the cache while another is worked on."""
    if 0 <= t < len(array):
        row = array[t, first:last]
        for j in range(0, len(row), 64 // row.itemsize):
            prefetch(row, j)


@kernel_part
def parameter_row(values: Array, first: int, start: int, row: Array) -> None:
    """A parameter of the tile that begins at `first`; one number for all is in its row since the tile at `start`."""
    if first == start or len(values) > 1:
        repeat_row(values, first, row)


@kernel_part
def start_row(given: Array, first: int, row: Array) -> None:
    """Where a tile begins: zeros where nothing is given."""
    if len(given) == 0:
        row[:] = 0
    else:
        row[:] = given[first : first + len(row)]


@kernel_part
def add_row(row: Array, total: Array) -> None:
    """`total += row`."""
    for j in range(len(row)):
        total[j] += row[j]


@kernel_part
def finish_row(row: Array, first: int, wanted: Array) -> None:
    """Give a tile's numbers where they are wanted."""
    if len(wanted) > 0:
        wanted[first : first + len(row)] = row


@sum_part
def total_row(row: Array) -> Any:
    """Sum of a row, in any order."""
    total = row.dtype.type(0)
    for j in range(len(row)):
        total += row[j]
    return total


@kernel_part
def is_finite_row(row: Array) -> bool:
    """Whether no number is NaN or infinite: a sum is finite only if its terms are; one that overflows is looked at."""
    total = total_row(row)
    if total - total == 0:
        return True
    bad = 0
    for j in range(len(row)):
        bad += row[j] - row[j] != 0
    return bad == 0


@kernel_part
def step_row(x: Array, decay: Array, threshold: Array, zero: bool, v: Array, s: Array) -> None:
    """One time step of a tile: `v` is replaced, spikes go to `s`."""
    none, one = x.dtype.type(0), x.dtype.type(1)
    if zero:
        for j in range(len(x)):
            before = decay[j] * v[j] + x[j]
            spike = one if before - threshold[j] >= none else none
            s[j] = spike
            v[j] = before * (one - spike)
    else:
        for j in range(len(x)):
            before = decay[j] * v[j] + x[j]
            spike = one if before - threshold[j] >= none else none
            s[j] = spike
            v[j] = before - threshold[j] * spike


@kernel_part
def replay_row(x: Array, decay: Array, threshold: Array, zero: bool, v: Array, u: Array) -> None:
    """`step_row` for whom the spikes do not matter: membranes before the reset go to `u`."""
    none, one = x.dtype.type(0), x.dtype.type(1)
    if zero:
        for j in range(len(x)):
            before = decay[j] * v[j] + x[j]
            u[j] = before
            v[j] = before * (none if before - threshold[j] >= none else one)
    else:
        for j in range(len(x)):
            before = decay[j] * v[j] + x[j]
            u[j] = before
            v[j] = before - threshold[j] * (one if before - threshold[j] >= none else none)


@kernel
def lif_forward(
    start: int,
    stop: int,
    x: Array,
    membrane: Array,
    decay: Array,
    threshold: Array,
    zero: bool,
    spikes: Array,
    final: Array,
    saved: Array,
    lost: Array,
) -> None:
    """Scan lanes `start` to `stop`. `x` has one row per step or a single one. The membranes at the start of each
    segment but the first go to `saved`, if it has rows. `lost` is set to 1 where a last membrane is not finite.
    """
    local = np.empty((3, ROW), x.dtype)
    for first in range(start, stop, TILE):
        last = min(first + TILE, stop)
        width = last - first
        d, h, v = local[0, :width], local[1, :width], local[2, :width]
        parameter_row(decay, first, start, d)
        parameter_row(threshold, first, start, h)
        start_row(membrane, first, v)
        for t in range(len(spikes)):
            if t > 0 and t % SEGMENT == 0 and len(saved) > 0:
                saved[t // SEGMENT - 1, first:last] = v
            ask_for_row(x, t + 1, first, last)
            ask_for_row(spikes, t + 1, first, last)
            step_row(x[t if len(x) > 1 else 0, first:last], d, h, zero, v, spikes[t, first:last])
        final[first:last] = v
        if not is_finite_row(v):
            lost[0] = 1


@kernel_part
def through_spike_row(
    g_spike: Array, u: Array, h: Array, g_v: Array, zero: bool, detach: bool, a: Array
) -> None:
    """Turn the surrogate's slope in `a` into the gradient that reaches the membrane through the spike."""
    if detach:
        for j in range(len(a)):
            a[j] *= g_spike[j]
    elif zero:
        for j in range(len(a)):
            a[j] *= g_spike[j] - g_v[j] * u[j]
    else:
        for j in range(len(a)):
            a[j] *= g_spike[j] - g_v[j] * h[j]


@kernel_part
def through_reset_row(
    a: Array, u: Array, h: Array, d: Array, zero: bool, keep: bool, g_v: Array, g_x: Array
) -> None:
    """Gradient of one step's input, and in `g_v` that of the membrane before (0 unless `keep`)."""
    none = a.dtype.type(0)
    if zero:
        for j in range(len(a)):
            g_x[j] = a[j] + (none if u[j] - h[j] >= none else g_v[j])
    else:
        for j in range(len(a)):
            g_x[j] = a[j] + g_v[j]
    if keep:
        for j in range(len(a)):
            g_v[j] = d[j] * g_x[j]
    else:
        g_v[:] = none


@kernel_part
def threshold_row(a: Array, u: Array, h: Array, g_v: Array, zero: bool, g_threshold: Array) -> None:
    """Add one step's gradient of the threshold: it moves the spike and, subtracted, the reset."""
    none = a.dtype.type(0)
    for j in range(len(a)):
        reset = none if zero or not u[j] - h[j] >= none else g_v[j]
        g_threshold[j] -= a[j] + reset


@kernel_part
def decay_row(g_x: Array, u: Array, h: Array, zero: bool, g_decay: Array) -> None:
    """Add one step's gradient of the decay; `u` is the membrane of the step before, before its reset."""
    none = g_x.dtype.type(0)
    for j in range(len(g_x)):
        spiked = u[j] - h[j] >= none
        v = u[j] - (h[j] if spiked else none)
        g_decay[j] += g_x[j] * (none if zero and spiked else v)


@kernel_part
def replay(
    x: Array,
    begin: int,
    end: int,
    first: int,
    d: Array,
    h: Array,
    zero: bool,
    v: Array,
    history: Array,
) -> None:
    """Scan steps `begin` to `end` of a tile again; membranes before the reset go to `history`."""
    width = len(v)
    for t in range(begin, end):
        now = x[t if len(x) > 1 else 0, first : first + width]
        ask_for_row(x, t + 1, first, first + width)
        replay_row(now, d, h, zero, v, history[t - begin, :width])


@kernel
def lif_backward(
    start: int,
    stop: int,
    x: Array,
    saved: Array,
    membrane: Array,
    decay: Array,
    threshold: Array,
    g_spikes: Array,
    g_final: Array,
    kind: int,
    scale: float,
    zero: bool,
    detach: bool,
    keep: bool,
    g_x: Array,
    g_membrane: Array,
    g_decay: Array,
    g_threshold: Array,
) -> None:
    """Gradients of lanes `start` to `stop`, from the input and the membranes `saved` at each segment's start.

    Without rows in `saved` one more scan finds them. A `g_x` of one row gets the sum over time. `g_decay` and
    `g_threshold` are per lane, empty if not wanted.
    """
    steps, summed = len(g_spikes), len(g_x) == 1
    segments = (steps + SEGMENT - 1) // SEGMENT
    recompute = len(saved) < segments - 1
    plain = keep and detach and not zero and len(g_threshold) == 0
    local = np.empty((9, ROW), x.dtype)
    history = np.empty((SEGMENT, ROW), x.dtype)
    starts = np.empty((segments if recompute else 0, ROW), x.dtype)
    for first in range(start, stop, TILE):
        last = min(first + TILE, stop)
        width = last - first
        d, h, v, before = local[0, :width], local[1, :width], local[2, :width], local[3, :width]
        g_v, a, g_d, g_h = local[4, :width], local[5, :width], local[6, :width], local[7, :width]
        parameter_row(decay, first, start, d)
        parameter_row(threshold, first, start, h)
        start_row(g_final, first, g_v)
        g_d[:], g_h[:] = 0, 0
        if summed:
            g_x[0, first:last] = 0
        if recompute:
            start_row(membrane, first, v)
            for k in range(segments):
                starts[k, :width] = v
                replay(x, k * SEGMENT, min((k + 1) * SEGMENT, steps), first, d, h, zero, v, history)
        for k in range(segments - 1, -1, -1):
            begin, end = k * SEGMENT, min((k + 1) * SEGMENT, steps)
            if k == 0:
                start_row(membrane, first, before)
            else:
                before[:] = starts[k, :width] if recompute else saved[k - 1, first:last]
            v[:] = before
            replay(x, begin, end, first, d, h, zero, v, history)
            for t in range(end - 1, begin - 1, -1):
                u = history[t - begin, :width]
                ask_for_row(g_spikes, t - 1, first, last)
                ask_for_row(g_x, t - 1, first, last)
                out = local[8, :width] if summed else g_x[t, first:last]
                if plain:
                    spike_gradient_row(kind, scale, u, h, g_spikes[t, first:last], d, g_v, out)
                else:
                    derivative_row(kind, scale, u, h, a)
                    through_spike_row(g_spikes[t, first:last], u, h, g_v, zero, detach, a)
                    if len(g_threshold) > 0:
                        threshold_row(a, u, h, g_v, zero, g_h)
                    through_reset_row(a, u, h, d, zero, keep, g_v, out)
                if len(g_decay) > 0 and t == begin:
                    g_d += out * before
                elif len(g_decay) > 0:
                    decay_row(out, history[t - begin - 1, :width], h, zero, g_d)
                if summed:
                    add_row(out, g_x[0, first:last])
        finish_row(g_v, first, g_membrane)
        finish_row(g_d, first, g_decay)
        finish_row(g_h, first, g_threshold)
