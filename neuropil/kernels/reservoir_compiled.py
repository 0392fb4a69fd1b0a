"""The loops behind `neuropil.kernels.reservoir`: one sample's whole run at a time, or all threads on one step.

Arrays are `[time, batch, units]`. Connections are compressed rows (`offsets`, `indices`, `values`) for the tanh,
where every unit is active, and compressed columns for spikes, where only the columns of units that fired are read.
Indices are unsigned: Numba then tests none of them for counting from the end.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from neuropil.kernels.compiled import kernel, kernel_part, smooth_part, sum_part
from neuropil.kernels.surrogate_compiled import exp32, exp64
from neuropil.kernels.turns import begin, finished, wait

Array = Any  # numpy arrays, as Numba sees them


@smooth_part
def tanh32(x: Any) -> Any:
    """`tanh(x)` in single precision without a branch; relative error below 3e-7.

    Near zero a minimax polynomial (Cephes), else `(1 - e) / (1 + e)` with `e = exp(-2 |x|)`.
    """
    one = np.float32(1)
    size = abs(x)
    e = exp32(np.float32(-2) * size)
    far = (one - e) / (one + e)
    z = x * x
    p = np.float32(-5.70498872745e-3)
    p = p * z + np.float32(2.06390887954e-2)
    p = p * z + np.float32(-5.37397155531e-2)
    p = p * z + np.float32(1.33314422036e-1)
    p = p * z + np.float32(-3.33332819422e-1)
    near = size + size * z * p
    value = near if size < np.float32(0.625) else far
    return -value if x < np.float32(0) else value


@smooth_part
def tanh64(x: Any) -> Any:
    """`tanh(x)` in double precision without a branch, like `tanh32`; relative error below 1e-15."""
    size = abs(x)
    e = exp64(-2.0 * size)
    far = (1.0 - e) / (1.0 + e)
    z = x * x
    p = (-9.64399179425052238628e-1 * z - 9.92877231001918586564e1) * z - 1.61468768441708447952e3
    q = ((z + 1.12811678491632931402e2) * z + 2.23548839060100448583e3) * z + 4.84406305325125486048e3
    near = size + size * z * p / q
    value = near if size < 0.625 else far
    return -value if x < 0.0 else value


@kernel_part
def tanh_row(row: Array) -> None:
    """`row = tanh(row)`."""
    if row.itemsize == 4:
        for i in range(len(row)):
            row[i] = tanh32(row[i])
    else:
        for i in range(len(row)):
            row[i] = tanh64(row[i])


@smooth_part
def drive_row(x: Array, input_weight: Array, bias: Array, first: int, row: Array) -> None:
    """`row = bias + x @ input_weight` from unit `first` on; inputs of zero, such as no spike, cost nothing."""
    row[:] = bias[first : first + len(row)]
    for k in range(len(x)):
        if x[k] != 0:
            weight = input_weight[k, first : first + len(row)]
            for i in range(len(row)):
                row[i] += x[k] * weight[i]


@sum_part
def gather_row(offsets: Array, columns: Array, values: Array, state: Array, row: Array) -> None:
    """`row += connections @ state`."""
    for i in range(len(row)):
        total = values.dtype.type(0)
        for p in range(offsets[i], offsets[i + 1]):
            total += values[p] * state[columns[p]]
        row[i] += total


@kernel_part
def leaky_rows(
    first: int,
    last: int,
    before: Array,
    offsets: Array,
    columns: Array,
    values: Array,
    leak: Array,
    now: Array,
) -> None:
    """The state of units `first` to `last` after the one `before`; `now` holds what drives them."""
    one, row = leak.dtype.type(1), now[first:last]
    gather_row(offsets[first : last + 1], columns, values, before, row)
    tanh_row(row)
    for i in range(first, last):
        now[i] = (one - leak[i]) * before[i] + leak[i] * now[i]


@kernel
def leaky_run(
    start: int,
    stop: int,
    x: Array,
    state: Array,
    input_weight: Array,
    bias: Array,
    offsets: Array,
    columns: Array,
    values: Array,
    leak: Array,
    states: Array,
) -> None:
    """Run samples `start` to `stop` from `state`; `input_weight` is `[inputs, units]`."""
    for b in range(start, stop):
        before = state[b]
        for t in range(len(states)):
            now = states[t, b]
            drive_row(x[t, b], input_weight, bias, 0, now)
            leaky_rows(0, len(now), before, offsets, columns, values, leak, now)
            before = now


@kernel
def leaky_shared(
    start: int,
    stop: int,
    x: Array,
    state: Array,
    input_weight: Array,
    bias: Array,
    offsets: Array,
    columns: Array,
    values: Array,
    leak: Array,
    states: Array,
    bounds: Array,
    turns: Array,
) -> None:
    """What threads `start` to `stop` do in the run of all samples (see `turns`).

    A chunk is the units from one of `bounds` to the next. What drives it is computed before the wait for the others.
    """
    chunks = len(bounds) - 1
    for own in range(start, stop):
        for t in range(len(states)):
            for other in range(chunks):
                chunk = (own + other) % chunks
                if begin(turns, chunk, t):
                    first, last = bounds[chunk], bounds[chunk + 1]
                    for b in range(len(state)):
                        drive_row(x[t, b], input_weight, bias, first, states[t, b, first:last])
                    wait(turns, t)
                    for b in range(len(state)):
                        before = states[t - 1, b] if t > 0 else state[b]
                        leaky_rows(first, last, before, offsets, columns, values, leak, states[t, b])
                    finished(turns)


@kernel_part
def scatter_row(offsets: Array, rows: Array, values: Array, fired: Array, row: Array) -> None:
    """Add the columns of the units that `fired` to `row`."""
    for j in fired:
        for p in range(offsets[j], offsets[j + 1]):
            row[rows[p]] += values[p]


@kernel_part
def find_fired(spikes: Array, fired: Array) -> int:
    """Write the places of `spikes` that are not zero to `fired`; their number."""
    count = 0
    for i in range(len(spikes)):
        fired[count] = i
        count += spikes[i] != 0
    return count


@kernel
def spiking_run(
    start: int,
    stop: int,
    x: Array,
    membrane: Array,
    first: Array,
    input_weight: Array,
    bias: Array,
    offsets: Array,
    rows: Array,
    values: Array,
    decay: Array,
    threshold: Array,
    zero: bool,
    spikes: Array,
) -> None:
    """Run samples `start` to `stop`; `first` are the spikes before it, `membrane` is replaced by the last one."""
    none, one = decay.dtype.type(0), decay.dtype.type(1)
    places = np.empty(membrane.shape[1] + 1, np.uint32)
    for b in range(start, stop):
        v, before = membrane[b], first[b]
        for t in range(len(spikes)):
            now = spikes[t, b]
            drive_row(x[t, b], input_weight, bias, 0, now)
            scatter_row(offsets, rows, values, places[: find_fired(before, places)], now)
            for i in range(len(now)):
                u = decay[i] * v[i] + now[i]
                spike = one if u - threshold[i] >= none else none
                v[i] = u * (one - spike) if zero else u - threshold[i] * spike
                now[i] = spike
            before = now
