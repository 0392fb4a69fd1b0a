"""The loops behind `neuropil.kernels.lif`: a tile of neurons at a time, all of its time steps in one pass.

Arrays are `[time, lanes]`, a lane being one neuron of one sample; `decay` and `threshold` repeat along the
lanes. The rows of `local` are the tile's own numbers, close together so that they stay in the first-level cache
and the compiler can tell them apart from the arrays.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from neuropil.kernels.compiled import kernel, kernel_part
from neuropil.kernels.lanes import repeat_row
from neuropil.kernels.surrogate_compiled import derivative_row

Array = Any  # numpy arrays, as Numba sees them

TILE = 2048  # lanes: long enough rows to stream, few enough for the first-level cache
HISTORY = 65_536  # elements of a tile's recomputed membranes, to stay in the second-level cache


@kernel_part
def step_row(x: Array, decay: Array, threshold: Array, zero: bool, v: Array, u: Array, s: Array) -> None:
    """One time step of a tile: `v` is replaced, membranes before the reset go to `u`, spikes to `s`."""
    none, one = x.dtype.type(0), x.dtype.type(1)
    if zero:
        for j in range(len(x)):
            before = decay[j] * v[j] + x[j]
            spike = one if before - threshold[j] >= none else none
            u[j], s[j] = before, spike
            v[j] = before * (one - spike)
    else:
        for j in range(len(x)):
            before = decay[j] * v[j] + x[j]
            spike = one if before - threshold[j] >= none else none
            u[j], s[j] = before, spike
            v[j] = before - threshold[j] * spike


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
) -> None:
    """Scan lanes `start` to `stop`. `x` has one row per step or a single one; `saved` may have no rows."""
    local = np.empty((4, TILE), x.dtype)
    for first in range(start, stop, TILE):
        last = min(first + TILE, stop)
        width = last - first
        d, h, v, spare = local[0, :width], local[1, :width], local[2, :width], local[3, :width]
        repeat_row(decay, first, d)
        repeat_row(threshold, first, h)
        v[:] = membrane[first:last]
        for t in range(len(spikes)):
            now = x[t if len(x) > 1 else 0, first:last]
            u = saved[t, first:last] if len(saved) > 0 else spare
            step_row(now, d, h, zero, v, u, spikes[t, first:last])
        final[first:last] = v


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


@kernel
def lif_backward(
    start: int,
    stop: int,
    source: Array,
    recompute: bool,
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
    """Gradients of lanes `start` to `stop`; `source` is the saved membranes, or the input when `recompute`.

    A `g_x` of one row gets the sum over time. `g_decay` and `g_threshold` are per lane, empty if not wanted.
    """
    steps = len(g_spikes)
    local = np.empty((8, TILE), source.dtype)
    tile = min(TILE, max(64, HISTORY // max(steps, 1) // 64 * 64)) if recompute else TILE
    history = np.empty((steps if recompute else 0, tile), source.dtype)
    for first in range(start, stop, tile):
        last = min(first + tile, stop)
        width = last - first
        d, h, g_v, a = local[0, :width], local[1, :width], local[2, :width], local[3, :width]
        g_d, g_h, g_now, spare = local[4, :width], local[5, :width], local[6, :width], local[7, :width]
        repeat_row(decay, first, d)
        repeat_row(threshold, first, h)
        g_d[:] = 0
        g_h[:] = 0
        if recompute:
            g_v[:] = membrane[first:last]
            for t in range(steps):
                now = source[t if len(source) > 1 else 0, first:last]
                step_row(now, d, h, zero, g_v, history[t, :width], spare)
        g_v[:] = g_final[first:last]
        summed = len(g_x) == 1
        if summed:
            g_x[0, first:last] = 0
        for t in range(steps - 1, -1, -1):
            u = history[t, :width] if recompute else source[t, first:last]
            out = g_now if summed else g_x[t, first:last]
            derivative_row(kind, scale, u, h, a)
            through_spike_row(g_spikes[t, first:last], u, h, g_v, zero, detach, a)
            if len(g_threshold) > 0:
                threshold_row(a, u, h, g_v, zero, g_h)
            through_reset_row(a, u, h, d, zero, keep, g_v, out)
            if len(g_decay) > 0:
                if t == 0:
                    g_d += out * membrane[first:last]
                else:
                    before = history[t - 1, :width] if recompute else source[t - 1, first:last]
                    decay_row(out, before, h, zero, g_d)
            if summed:
                g_x[0, first:last] += out
        g_membrane[first:last] = g_v
        if len(g_decay) > 0:
            g_decay[first:last] = g_d
        if len(g_threshold) > 0:
            g_threshold[first:last] = g_h
