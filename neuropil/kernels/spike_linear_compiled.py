"""The loops behind `neuropil.kernels.spike_linear`, which turn the layer's weights a piece at a time, in a near cache.

Events are those of `neuropil.kernels.spikes_compiled`: row by row, who in `neurons` and with what value in `worth`;
chunk by chunk of a row they end at `ends [rows, 1 + chunks]`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from neuropil.kernels.compiled import kernel, kernel_part
from neuropil.kernels.vector import load, scaled_add, store, transpose, zeros

Array = Any  # numpy arrays, as Numba sees them

PANEL = 256  # neurons of a chunk, whose weights are turned at a time


@kernel_part
def turn(weight: Array, start: int, stop: int, first: int, last: int, panel: Array, flat: Array) -> None:
    """`panel[n, j] = weight[start + j, first + n]` for rows `start` to `stop` and columns `first` to `last`."""
    columns, width = weight.shape[1], panel.shape[1]
    tile = 64 // weight.itemsize
    source = weight.reshape(-1)
    for row in range(start, stop, tile):
        for column in range(first, last, tile):
            if row + tile <= stop and column + tile <= last:
                at = (column - first) * width + row - start
                transpose(source, row * columns + column, columns, flat, at, width)
            else:
                for i in range(row, min(row + tile, stop)):
                    for j in range(column, min(column + tile, last)):
                        panel[j - first, i - start] = weight[i, j]


@kernel
def linear_columns(
    start: int,
    stop: int,
    ends: Array,
    neurons: Array,
    worth: Array,
    weight: Array,
    out: Array,
    parts: tuple[int, ...],
    part: tuple[int],
) -> None:
    """Columns `start` to `stop` of `out = spikes @ weight.T`, `weight [outputs, neurons]`, from events by sample."""
    single = 64 // weight.itemsize
    width, columns, size = len(parts) * single, out.shape[1], stop - start
    wide, even = size // width * width, size // single * single
    panel = np.empty((PANEL, size), weight.dtype)
    flat, target = panel.reshape(-1), out.reshape(-1)
    for chunk in range(ends.shape[1] - 1):
        begin_neuron = chunk * PANEL
        turn(weight, start, stop, begin_neuron, min(begin_neuron + PANEL, weight.shape[1]), panel, flat)
        for sample in range(len(out)):
            begin, end = ends[sample, chunk], ends[sample, chunk + 1]
            if begin == end and chunk > 0:
                continue
            to = sample * columns + start
            for at in range(0, wide, width):
                sums = zeros(target, parts) if chunk == 0 else load(target, to + at, parts)
                for k in range(np.uintp(begin), np.uintp(end)):
                    n = np.intp(neurons[k])
                    row = load(flat, (n - begin_neuron) * size + at, parts)
                    sums = scaled_add(worth[k], row, sums)
                store(target, to + at, sums)
            for at in range(wide, even, single):
                total = zeros(target, part) if chunk == 0 else load(target, to + at, part)
                for k in range(np.uintp(begin), np.uintp(end)):
                    n = np.intp(neurons[k])
                    piece = load(flat, (n - begin_neuron) * size + at, part)
                    total = scaled_add(worth[k], piece, total)
                store(target, to + at, total)
            for at in range(even, size):
                rest = weight.dtype.type(0) if chunk == 0 else out[sample, start + at]
                for k in range(begin, end):
                    rest += worth[k] * panel[neurons[k] - begin_neuron, at]
                out[sample, start + at] = rest


@kernel
def weight_gradient_columns(
    start: int,
    stop: int,
    ends: Array,
    samples: Array,
    worth: Array,
    g: Array,
    out: Array,
    parts: tuple[int, ...],
    part: tuple[int],
) -> None:
    """Columns `start` to `stop` of `out [outputs, neurons] = g.T @ spikes`, from events by neuron.

    Events are those of the transposed spikes, `[neurons, samples]`. As many neurons as fill a register are summed
    before they are turned.
    """
    single = 64 // g.itemsize
    width, columns = len(parts) * single, g.shape[1]
    wide, even = columns // width * width, columns // single * single
    block = np.empty((single, columns), g.dtype)
    flat, source, target = block.reshape(-1), g.reshape(-1), out.reshape(-1)
    for first in range(start, stop, single):
        last = min(first + single, stop)
        for neuron in range(first, last):
            to = (neuron - first) * columns
            begin, end = ends[neuron, 0], ends[neuron, -1]
            for at in range(0, wide, width):
                sums = zeros(flat, parts)
                for k in range(np.uintp(begin), np.uintp(end)):
                    row = load(source, np.intp(samples[k]) * columns + at, parts)
                    sums = scaled_add(worth[k], row, sums)
                store(flat, to + at, sums)
            for at in range(wide, even, single):
                total = zeros(flat, part)
                for k in range(np.uintp(begin), np.uintp(end)):
                    piece = load(source, np.intp(samples[k]) * columns + at, part)
                    total = scaled_add(worth[k], piece, total)
                store(flat, to + at, total)
            for at in range(even, columns):
                rest = g.dtype.type(0)
                for k in range(begin, end):
                    rest += worth[k] * g[samples[k], at]
                block[neuron - first, at] = rest
        for at in range(0, columns, single):
            if at + single <= columns and last - first == single:
                transpose(flat, at, columns, target, at * out.shape[1] + first, out.shape[1])
            else:
                for i in range(at, min(at + single, columns)):
                    for neuron in range(first, last):
                        out[i, neuron] = block[neuron - first, i]
