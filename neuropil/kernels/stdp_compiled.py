"""The loops behind `neuropil.kernels.stdp`: a few output neurons at a time, from the first step to the last.

Output neurons do not see each other, so a tile of them, with its rows of the weight, stays in the cache for the
whole run. Work follows the spikes: an input spike reads and weakens one weight per neuron, an output spike
strengthens one row. `offsets[t]` to `offsets[t + 1]` are the input spikes of step `t` in `inputs`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from neuropil.kernels.compiled import kernel, kernel_part, smooth_part

Array = Any  # numpy arrays, as Numba sees them

TILE = 16  # output neurons, whose weights should fit the second-level cache beside the traces


@kernel
def find_events(spikes: Array, offsets: Array, inputs: Array) -> int:
    """Write where `spikes`, `[time, inputs]`, are 1; the number of values that are neither 0 nor 1.

    Without room in `inputs` only the `offsets` are written.
    """
    none, one = spikes.dtype.type(0), spikes.dtype.type(1)
    wrong, count = 0, 0
    for t in range(len(spikes)):
        offsets[t] = count
        row = spikes[t]
        if len(inputs) == 0:
            for i in range(len(row)):
                count += row[i] == one
                wrong += (row[i] != one) & (row[i] != none)
        else:
            for i in range(len(row)):
                inputs[count] = i
                count += row[i] == one
    offsets[len(spikes)] = count
    return wrong


@kernel_part
def weaken(
    row: Array, inputs: Array, depressions: Array, trace: float, low: float, multiplicative: bool
) -> None:
    """Weaken the weights of `inputs` that spiked, by the neuron's `trace`."""
    if multiplicative:
        for e in range(len(inputs)):
            w = row[inputs[e]]
            w -= depressions[e] * trace * (w - low)
            row[inputs[e]] = low if w < low else w
    else:
        for e in range(len(inputs)):
            w = row[inputs[e]] - depressions[e] * trace
            row[inputs[e]] = low if w < low else w


@smooth_part
def strengthen(
    row: Array, traces: Array, rate: float, offset: float, low: float, high: float, multiplicative: bool
) -> None:
    """Strengthen a row of weights by `rate * (traces - offset)`, for a spike of its neuron."""
    if multiplicative:
        for i in range(len(row)):
            change = rate * (traces[i] - offset)
            w = row[i] + change * ((high - row[i]) if change >= 0 else (row[i] - low))
            w = low if w < low else w
            row[i] = high if w > high else w
    else:
        for i in range(len(row)):
            w = row[i] + rate * (traces[i] - offset)
            w = low if w < low else w
            row[i] = high if w > high else w


@smooth_part
def reward_row(row: Array, eligibility: Array, rate: float, low: float, high: float) -> None:
    """Turn a row's eligibility into weight."""
    for i in range(len(row)):
        w = row[i] + rate * eligibility[i]
        w = low if w < low else w
        row[i] = high if w > high else w


@kernel_part
def fire(
    rows: Array, inputs: Array, decay: Array, threshold: Array, zero: bool, v: Array, spikes: Array
) -> None:
    """Integrate one step's input spikes through `rows` of the weight: membranes `v`, and `spikes`."""
    none, one = v.dtype.type(0), v.dtype.type(1)
    for j in range(len(v)):
        row, current = rows[j], none
        for e in range(len(inputs)):
            current += row[inputs[e]]
        u = decay[j] * v[j] + current
        spike = one if u - threshold[j] >= none else none
        v[j] = u * (one - spike) if zero else u - threshold[j] * spike
        spikes[j] = spike


@kernel
def plastic_run(
    start: int,
    stop: int,
    offsets: Array,
    inputs: Array,
    depressions: Array,
    traces: Array,
    reward: Array,
    terms: Array,
    multiplicative: bool,
    driven: bool,
    decay: Array,
    threshold: Array,
    zero: bool,
    weight: Array,
    eligibility: Array,
    fast: Array,
    slow: Array,
    membrane: Array,
    spikes: Array,
) -> None:
    """Run output neurons `start` to `stop`; the last six arrays are replaced by what they are afterwards.

    `spikes` are given, or found if `driven`. Where there is a `reward`, spikes change `eligibility` instead of the
    weight. It is kept divided by `faded`, so that its decay costs nothing between two spikes.
    """
    potentiation, triplet, offset, fast_decay, slow_decay = terms[0], terms[1], terms[2], terms[3], terms[4]
    low, high, eligibility_decay, rate = terms[5], terms[6], terms[7], terms[8]
    none, one = weight.dtype.type(0), weight.dtype.type(1)
    least, most = weight.dtype.type(-np.inf), weight.dtype.type(np.inf)
    rewarded = len(reward) > 0
    for first in range(start, stop, TILE):
        last = min(first + TILE, stop)
        y, y_slow, rows = fast[first:last], slow[first:last], weight[first:last]
        marks, faded = (eligibility if rewarded else weight)[first:last], one
        for t in range(len(spikes)):
            now, events = spikes[t, first:last], inputs[offsets[t] : offsets[t + 1]]
            strengths = depressions[offsets[t] : offsets[t + 1]]
            if driven:
                fire(rows, events, decay[first:last], threshold[first:last], zero, membrane[first:last], now)
            if rewarded:
                faded *= eligibility_decay
                if faded < 1e-12:
                    marks *= faded
                    faded = one
            for j in range(last - first):
                y[j] *= fast_decay
                y_slow[j] *= slow_decay
                if y[j] != none and len(strengths) > 0:
                    if rewarded:
                        weaken(marks[j], events, strengths, y[j] / faded, least, False)
                    else:
                        weaken(marks[j], events, strengths, y[j], low, multiplicative)
                if now[j] != none:
                    size = potentiation + triplet * y_slow[j]
                    if rewarded:
                        strengthen(marks[j], traces[t], size / faded, offset, least, most, False)
                    else:
                        strengthen(marks[j], traces[t], size, offset, low, high, multiplicative)
                    y[j] += one
                    y_slow[j] += one
            if rewarded and reward[t] != none:
                for j in range(last - first):
                    reward_row(rows[j], marks[j], rate * reward[t] * faded, low, high)
        if rewarded:
            marks *= faded
