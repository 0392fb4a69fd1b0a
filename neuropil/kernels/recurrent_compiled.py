"""The loop behind `neuropil.kernels.recurrent`: a few samples' whole run at a time, spikes followed along their rows.

Arrays are `[time, batch, neurons]`; `outgoing` holds one row of weights per presynaptic neuron.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from neuropil.kernels.compiled import kernel, kernel_part
from neuropil.kernels.lanes import repeat_row
from neuropil.kernels.reservoir_compiled import find_fired

Array = Any  # numpy arrays, as Numba sees them


@kernel_part
def gather(outgoing: Array, bias: Array, last: Array, fired: Array, back: Array) -> None:
    """What the neurons that `fired` send: the bias and the sum of their rows, each times its last output.

    Four rows at a time, in the order of one by one, so that the sums are read and written a quarter as often.
    """
    back[:] = bias
    fours = len(fired) // 4 * 4
    for k in range(0, fours, 4):
        e, f, g, h = fired[k], fired[k + 1], fired[k + 2], fired[k + 3]
        row_e, row_f, row_g, row_h = outgoing[e], outgoing[f], outgoing[g], outgoing[h]
        of_e, of_f, of_g, of_h = last[e], last[f], last[g], last[h]
        for i in range(len(back)):
            back[i] = (((back[i] + of_e * row_e[i]) + of_f * row_f[i]) + of_g * row_g[i]) + of_h * row_h[i]
    for k in range(fours, len(fired)):
        row, strength = outgoing[fired[k]], last[fired[k]]
        for i in range(len(back)):
            back[i] += strength * row[i]


@kernel_part
def fire(
    now: Array, back: Array, d: Array, h: Array, raised: Array, zero: bool, v: Array, driven: Array, s: Array
) -> None:
    """One step of leaky neurons; `raised` is what adaptation adds to the threshold."""
    none, one = v.dtype.type(0), v.dtype.type(1)
    for i in range(len(v)):
        current = now[i] + back[i]
        before, threshold = d[i] * v[i] + current, h[i] + raised[i]
        spike = one if before - threshold >= none else none
        driven[i], s[i] = current, spike
        v[i] = before * (one - spike) if zero else before - threshold * spike


@kernel
def recurrent_run(
    start: int,
    stop: int,
    x: Array,
    output: Array,
    membrane: Array,
    adaptation: Array,
    outgoing: Array,
    bias: Array,
    decay: Array,
    threshold: Array,
    strength: Array,
    rho: Array,
    zero: bool,
    driven: Array,
    spikes: Array,
) -> None:
    """Run samples `start` to `stop`; `membrane` and `adaptation` are replaced by those after the run.

    Without numbers in `strength` nothing adapts.
    """
    neurons = x.shape[2]
    adapts = len(strength) > 0
    local = np.zeros((6, neurons), x.dtype)
    d, h, raised, back, much, fade = local[0], local[1], local[2], local[3], local[4], local[5]
    repeat_row(decay, 0, d)
    repeat_row(threshold, 0, h)
    if adapts:
        repeat_row(strength, 0, much)
        repeat_row(rho, 0, fade)
    places = np.empty(neurons + 1, np.uint32)
    for t in range(len(x)):
        for b in range(start, stop):
            a, last = adaptation[b], spikes[t - 1, b] if t else output[b]
            gather(outgoing, bias, last, places[: find_fired(last, places)], back)
            if adapts:
                for i in range(neurons):
                    raised[i] = much[i] * a[i]
            last = spikes[t, b]
            fire(x[t, b], back, d, h, raised, zero, membrane[b], driven[t, b], last)
            if adapts:
                for i in range(neurons):
                    a[i] = fade[i] * a[i] + last[i]
