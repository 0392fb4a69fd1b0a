"""The loops behind `neuropil.kernels.leaky_memory`: four samples at a time, all of their steps in one pass.

Four samples share each read of the weights, whose rows are as long as a whole number of registers: memories and hidden
units are padded with zeros, which stay zero. A product's sums stay in registers while it runs over its inputs.
What the backward pass needs is kept in the order in which it reads it, a block of four samples after the other, and
the weights' gradients are summed over a few steps at a time, while these are in the cache.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from neuropil.kernels.compiled import kernel, kernel_part
from neuropil.kernels.reservoir_compiled import tanh_row
from neuropil.kernels.vector import load, scaled_add, store

Array = Any  # numpy arrays, as Numba sees them

ROWS = 4  # samples at a time
CHUNK = 16  # steps whose share of the weights' gradients is summed in one go
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
def copy_rows(source: Array, count: int, target: Array, at: int) -> None:
    """`target[r, at + j] = source[r, j]` for `count` rows."""
    for r in range(count):
        row, into = source[r], target[r, at : at + source.shape[1]]
        for j in range(len(row)):
            into[j] = row[j]


@kernel_part
def add_outer_products(a: Array, b: Array, sums: Array, parts: tuple[int, ...], part: tuple[int]) -> None:
    """`sums += a.T @ b`; `b` is flat, with rows as long as those of `sums`, whose number four divides."""
    for i in range(0, a.shape[1], ROWS):
        add_products(a[:, i : i + ROWS].T, b, sums[i : i + ROWS].reshape(-1), sums.shape[1], parts, part)


@kernel
def memory_forward(
    start: int,
    stop: int,
    x: Array,
    memory: Array,
    look: Array,
    look_bias: Array,
    write: Array,
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

    `x [time, batch, inputs]`, `memory [batch, m]` to start with, `memories [time, batch, m]`. The others are padded:
    `look [inputs + m, units]` and `write [units, m]`; `hidden [blocks, time, ROWS, units]` and
    `updates [blocks, time, ROWS, m]` are written for the backward pass.
    """
    steps, batch, units = x.shape[0], x.shape[1], len(look_bias)
    wide, m = len(keep), memory.shape[1]
    shift = len(look) - wide
    dtype = x.dtype.type
    slope, height, zero = dtype(SLOPE), dtype(HEIGHT), dtype(0)
    seen, z = np.zeros((ROWS, len(look)), x.dtype), np.empty((ROWS, wide), x.dtype)
    weight, back = look.reshape(-1), write.reshape(-1)
    for block in range(start, stop):
        first = block * ROWS
        count = min(ROWS, batch - first)
        z[:] = 0
        seen[:] = 0
        copy_rows(memory[first : first + count], count, z, 0)
        for t in range(steps):
            h, kept, update = hidden[block, t].reshape(-1), seen[:, shift:], updates[block, t]
            copy_rows(x[t, first : first + count], count, seen, 0)
            for r in range(ROWS):
                for j in range(wide):
                    kept[r, j] = keep[j] * z[r, j]
                h[r * units : (r + 1) * units] = look_bias
                z[r] = bias
            add_products(seen, weight, h, units, parts, part)
            for j in range(len(h)):
                h[j] = max(h[j], zero)
            add_products(hidden[block, t], back, z.reshape(-1), wide, parts, part)
            flat = z.reshape(-1)
            for j in range(len(flat)):
                flat[j] *= slope
            tanh_row(flat)
            for r in range(ROWS):
                for j in range(wide):
                    update[r, j] = height * z[r, j]
                    z[r, j] = kept[r, j] + gain[j] * (height * z[r, j])
            copy_rows(z[:count, :m], count, memories[t, first : first + count], 0)


@kernel_part
def squash_backward(
    above: Array,
    update: Array,
    gain: Array,
    count: int,
    g: Array,
    s: Array,
    g_gain: Array,
    g_bias: Array,
) -> None:
    """Add the gradient from `above` to that of the memories, `g`; `s` is that of the updates before their squashing."""
    slope, peak = g.dtype.type(SLOPE / HEIGHT), g.dtype.type(SLOPE * HEIGHT)
    for r in range(count):
        row, more, u, out = g[r], above[r], update[r], s[r]
        for j in range(len(more)):
            row[j] += more[j]
        for j in range(len(row)):
            g_gain[j] += row[j] * u[j]
        for j in range(len(row)):
            out[j] = gain[j] * row[j] * (peak - slope * u[j] * u[j])
        for j in range(len(row)):
            g_bias[j] += out[j]


@kernel_part
def rectify_backward(fired: Array, g: Array, g_bias: Array) -> None:
    """Keep gradients of hidden units that fired, and add them up."""
    for r in range(ROWS):
        row, now = g[r], fired[r]
        for j in range(len(row)):
            row[j] = row[j] if now[j] > 0 else 0
        for j in range(len(row)):
            g_bias[j] += row[j]


@kernel_part
def keep_backward(before: Array, keep: Array, count: int, g: Array, kept: Array, g_keep: Array) -> None:
    """From gradients of what is left of memories to those of the memories before, and what was left: `kept`."""
    for r in range(count):
        row, old, left = g[r], before[r], kept[r]
        for j in range(len(old)):
            left[j] = keep[j] * old[j]
        for j in range(len(old)):
            g_keep[j] += row[j] * old[j]
        for j in range(len(old)):
            row[j] *= keep[j]


@kernel
def memory_backward(
    start: int,
    stop: int,
    share: int,
    g_memories: Array,
    x: Array,
    hidden: Array,
    updates: Array,
    memories: Array,
    memory: Array,
    look_x: Array,
    look: Array,
    write: Array,
    keep: Array,
    gain: Array,
    scratch: tuple[Array, Array, Array, Array],
    g_x: Array,
    g_memory: Array,
    g_look: Array,
    g_look_bias: Array,
    g_write: Array,
    g_vectors: Array,
    parts: tuple[int, ...],
    part: tuple[int],
) -> None:
    """Gradients of groups `start` to `stop` of `share` blocks of samples each, the last step first.

    `look_x [units, inputs]`, `look [units, m]` and `write [m, units]` are the transposes of the forward pass's.
    `g_look`, `g_write` and what they share with others are one per group: `g_vectors [groups, 3, m]` are those of
    `keep`, `gain` and the bias. `g_x` is empty where it is not wanted. `scratch` has room for `CHUNK` steps, per group:
    what the hidden units saw and the gradients of updates, of hidden units and of what they saw of the input.
    """
    steps, batch, inputs = x.shape
    units, wide, m = hidden.shape[3], len(keep), memory.shape[1]
    g = np.empty((ROWS, wide), x.dtype)
    weight, back, weight_x = look.reshape(-1), write.reshape(-1), look_x.reshape(-1)
    for group in range(start, stop):
        seen, s, h, g_seen = scratch[0][group], scratch[1][group], scratch[2][group], scratch[3][group]
        g_keep, g_gain, g_bias = g_vectors[group, 0], g_vectors[group, 1], g_vectors[group, 2]
        shift = seen.shape[1] - wide
        g_base = g_look_bias[group]
        g_look[group], g_write[group], g_vectors[group], g_base[:] = 0, 0, 0, 0
        seen[:], s[:] = 0, 0
        for block in range(group * share, min((group + 1) * share, len(hidden))):
            first = block * ROWS
            count = min(ROWS, batch - first)
            if count < ROWS:
                seen[:], s[:] = 0, 0
            g[:] = 0
            for chunk in range((steps - 1) // CHUNK, -1, -1):
                low = chunk * CHUNK
                high = min(low + CHUNK, steps)
                for t in range(high - 1, low - 1, -1):
                    at = (t - low) * ROWS
                    here, now = h[at : at + ROWS], hidden[block, t]
                    squash_backward(
                        g_memories[t, first : first + count], updates[block, t], gain, count, g,
                        s[at : at + ROWS], g_gain, g_bias,
                    )  # fmt: skip
                    here[:] = 0
                    add_products(s[at : at + ROWS], back, here.reshape(-1), units, parts, part)
                    rectify_backward(now, here, g_base)
                    add_products(here, weight, g.reshape(-1), wide, parts, part)
                    copy_rows(x[t, first : first + count], count, seen[at : at + ROWS], 0)
                    before = memories[t - 1, first:] if t > 0 else memory[first:]
                    keep_backward(before, keep, count, g, seen[at : at + ROWS, shift:], g_keep)
                rows = (high - low) * ROWS
                add_outer_products(seen[:rows], h[:rows].reshape(-1), g_look[group], parts, part)
                add_outer_products(s[:rows], hidden[block, low:high].reshape(-1), g_write[group], parts, part)
                for at in range(0, rows if len(g_x) > 0 else 0, ROWS):
                    into = g_seen[at : at + ROWS]
                    into[:] = 0
                    add_products(h[at : at + ROWS], weight_x, into.reshape(-1), into.shape[1], parts, part)
                    copy_rows(into[:, :inputs], count, g_x[low + at // ROWS, first:], 0)
            copy_rows(g[:count, :m], count, g_memory[first:], 0)
