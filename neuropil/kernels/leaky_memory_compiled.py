"""The loops behind `neuropil.kernels.leaky_memory`: four samples at a time, all of their steps in one pass.

Four samples share each read of the weights, whose rows are as long as a whole number of registers: memories and hidden
units are padded with zeros, which stay zero. A product's sums stay in registers while it runs over its inputs.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from neuropil.kernels.compiled import kernel, kernel_part
from neuropil.kernels.reservoir_compiled import tanh_row
from neuropil.kernels.vector import load, scaled_add, store

Array = Any  # numpy arrays, as Numba sees them

ROWS = 4  # samples at a time
HEIGHT, SLOPE = 1.7159, 2 / 3  # of the squashing of an update, `HEIGHT * tanh(SLOPE * z)`


@kernel_part
def add_products(
    x: Array, weight: Array, sums: Array, outputs: int, parts: tuple[int, ...], part: tuple[int]
) -> None:
    """`sums[r] += x[r] @ weight` of four rows; `weight` and `sums` are flat, with rows of `outputs` numbers."""
    single = 64 // weight.itemsize
    width = len(parts) * single
    wide = outputs // width * width
    for at in range(0, wide, width):
        a, b = load(sums, at, parts), load(sums, outputs + at, parts)
        c, d = load(sums, 2 * outputs + at, parts), load(sums, 3 * outputs + at, parts)
        for k in range(x.shape[1]):
            row = load(weight, k * outputs + at, parts)
            a = scaled_add(x[0, k], row, a)
            b = scaled_add(x[1, k], row, b)
            c = scaled_add(x[2, k], row, c)
            d = scaled_add(x[3, k], row, d)
        store(sums, at, a)
        store(sums, outputs + at, b)
        store(sums, 2 * outputs + at, c)
        store(sums, 3 * outputs + at, d)
    for at in range(wide, outputs, single):
        e, f = load(sums, at, part), load(sums, outputs + at, part)
        g, h = load(sums, 2 * outputs + at, part), load(sums, 3 * outputs + at, part)
        for k in range(x.shape[1]):
            piece = load(weight, k * outputs + at, part)
            e = scaled_add(x[0, k], piece, e)
            f = scaled_add(x[1, k], piece, f)
            g = scaled_add(x[2, k], piece, g)
            h = scaled_add(x[3, k], piece, h)
        store(sums, at, e)
        store(sums, outputs + at, f)
        store(sums, 2 * outputs + at, g)
        store(sums, 3 * outputs + at, h)


@kernel_part
def fill_rows(source: Array, first: int, count: int, target: Array) -> None:
    """`target[r] = source[first + r]` for `count` rows, zeros beyond."""
    for r in range(ROWS):
        for j in range(target.shape[1]):
            target[r, j] = source[first + r, j] if r < count else 0


@kernel
def memory_forward(
    start: int,
    stop: int,
    drive: Array,
    memory: Array,
    into: Array,
    out_of: Array,
    bias: Array,
    keep: Array,
    gain: Array,
    memories: Array,
    hidden: Array,
    updates: Array,
    parts: tuple[int, ...],
    part: tuple[int],
) -> None:
    """Scan samples `ROWS * start` to `ROWS * stop`.

    `drive [time, batch, units]`, `memory [batch, m]` to start with, `into [m, units]` and `out_of [units, m]`;
    `memories` and `updates` are `[time, batch, m]`, `hidden [time, batch, units]`.
    """
    steps, batch, units = drive.shape
    m = memory.shape[1]
    kept, h, z = (
        np.empty((ROWS, m), drive.dtype),
        np.empty((ROWS, units), drive.dtype),
        np.empty((ROWS, m), drive.dtype),
    )
    weight, back = into.reshape(-1), out_of.reshape(-1)
    slope, height, zero = drive.dtype.type(SLOPE), drive.dtype.type(HEIGHT), drive.dtype.type(0)
    for block in range(start, stop):
        first = block * ROWS
        count = min(ROWS, batch - first)
        fill_rows(memory, first, count, z)
        for t in range(steps):
            for r in range(ROWS):
                for j in range(m):
                    kept[r, j] = keep[j] * z[r, j]
            fill_rows(drive[t], first, count, h)
            add_products(kept, weight, h.reshape(-1), units, parts, part)
            for r in range(ROWS):
                for j in range(units):
                    h[r, j] = max(h[r, j], zero)
                for j in range(m):
                    z[r, j] = bias[j]
            add_products(h, back, z.reshape(-1), m, parts, part)
            for r in range(ROWS):
                for j in range(m):
                    z[r, j] *= slope
                tanh_row(z[r])
            for r in range(count):
                for j in range(units):
                    hidden[t, first + r, j] = h[r, j]
                for j in range(m):
                    updates[t, first + r, j] = height * z[r, j]
            for r in range(ROWS):
                for j in range(m):
                    z[r, j] = kept[r, j] + gain[j] * (height * z[r, j])
            for r in range(count):
                for j in range(m):
                    memories[t, first + r, j] = z[r, j]


@kernel
def memory_backward(
    start: int,
    stop: int,
    g_memories: Array,
    hidden: Array,
    updates: Array,
    memories: Array,
    memory: Array,
    into: Array,
    out_of: Array,
    keep: Array,
    gain: Array,
    g_drive: Array,
    g_squash: Array,
    g_memory: Array,
    g_keep: Array,
    g_gain: Array,
    parts: tuple[int, ...],
    part: tuple[int],
) -> None:
    """Gradients of samples `ROWS * start` to `ROWS * stop`, the last step first.

    `into [units, m]` and `out_of [m, units]` are the transposes of the forward pass's. `g_drive` is that of the hidden
    units before their rectification, `g_squash [time, batch, m]` that of the updates before their squashing;
    `g_keep` and `g_gain` are `[blocks, m]`.
    """
    steps, batch, units = hidden.shape
    m = memory.shape[1]
    g, s = np.empty((ROWS, m), hidden.dtype), np.empty((ROWS, m), hidden.dtype)
    h = np.empty((ROWS, units), hidden.dtype)
    weight, back = into.reshape(-1), out_of.reshape(-1)
    slope, peak = hidden.dtype.type(SLOPE / HEIGHT), hidden.dtype.type(SLOPE * HEIGHT)
    for block in range(start, stop):
        first = block * ROWS
        count = min(ROWS, batch - first)
        for j in range(m):
            g_keep[block, j] = 0
            g_gain[block, j] = 0
            for r in range(ROWS):
                g[r, j] = 0
                s[r, j] = 0
        for t in range(steps - 1, -1, -1):
            for r in range(count):
                for j in range(m):
                    g[r, j] += g_memories[t, first + r, j]
                    update = updates[t, first + r, j]
                    g_gain[block, j] += g[r, j] * update
                    s[r, j] = gain[j] * g[r, j] * (peak - slope * update * update)
                    g_squash[t, first + r, j] = s[r, j]
            for r in range(ROWS):
                for j in range(units):
                    h[r, j] = 0
            add_products(s, back, h.reshape(-1), units, parts, part)
            for r in range(count):
                for j in range(units):
                    h[r, j] = h[r, j] if hidden[t, first + r, j] > 0 else 0
                    g_drive[t, first + r, j] = h[r, j]
            add_products(h, weight, g.reshape(-1), m, parts, part)
            for r in range(count):
                before = memories[t - 1, first + r] if t > 0 else memory[first + r]
                for j in range(m):
                    g_keep[block, j] += g[r, j] * before[j]
                    g[r, j] *= keep[j]
        for r in range(count):
            for j in range(m):
                g_memory[first + r, j] = g[r, j]
