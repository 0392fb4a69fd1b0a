"""The loops behind `neuropil.kernels.sparse` where a matrix is made of whole blocks.

A block is stored column by column, so that its rows lie side by side as the lanes of a vector. Several samples share
each vector that is loaded, and their sums stay in registers while a block's columns stream by. Activity is packed as
`[panels, samples, size]`, a panel being the columns of a block, or the rows: one after the other in memory, they do not
compete for the same places of the cache, as pieces of long rows do. Where the last panel or block is shorter, zeros
fill it up.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from neuropil.kernels.compiled import kernel, kernel_part
from neuropil.kernels.sparse_compiled import line_space
from neuropil.kernels.vector import length, load, load_rows, scaled_add_rows, store, store_rows, transpose

Array = Any  # numpy arrays, as Numba sees them

_CHUNK = 128  # samples whose sums stay in the nearest cache while the blocks of a row pass by


@kernel
def pack_panels(start: int, stop: int, x: Array, packed: Array, parts: tuple[int, ...]) -> None:
    """Panels `start` to `stop` of `x [samples, features]` to `packed [panels, samples or more, size]`."""
    samples, features = x.shape
    source, target, size = x.reshape(-1), packed.reshape(-1), length(x, parts)
    for panel in range(start, stop):
        first = panel * size
        packed[panel, samples:] = 0
        for sample in range(samples):
            at, to = sample * features + first, (panel * packed.shape[1] + sample) * size
            if first + size <= features:
                store(target, to, load(source, at, parts))
            else:
                for j in range(size):
                    target[to + j] = source[at + j] if first + j < features else x.dtype.type(0)


@kernel_part
def add_block(
    weights: Array,
    at: int,
    width: int,
    x: Array,
    first: int,
    samples: int,
    sums: Array,
    tile: tuple[int, ...],
    parts: tuple[int, ...],
) -> None:
    """Add to the sums of some samples the products of their `width` numbers, from `x[first]` on, with vectors."""
    size = length(weights, parts)
    for sample in range(0, samples * size, len(tile) * size):
        found = load_rows(sums, sample, size, tile, parts)
        for k in range(width):
            found = scaled_add_rows(x, first + sample + k, size, load(weights, at + k * size, parts), found)
        store_rows(sums, sample, size, found)


@kernel_part
def pad(values: Array, at: int, height: int, width: int, padded: Array, size: int) -> None:
    """A block column by column, as it is stored, with zeros where a whole one has more rows."""
    for j in range(width):
        for i in range(size):
            padded[j * size + i] = values[at + j * height + i] if i < height else values.dtype.type(0)


@kernel_part
def turn(
    source: Array, at: int, step: int, target: Array, to: int, stride: int, height: int, width: int, size: int
) -> None:
    """`target[to + i * stride + j] = source[at + j * step + i]` for `height` times `width` numbers."""
    lanes = 64 // source.itemsize
    if height == size and width == size:
        for i in range(0, size, lanes):
            for j in range(0, size, lanes):
                transpose(source, at + j * step + i, step, target, to + i * stride + j, stride)
    else:
        for i in range(height):
            for j in range(width):
                target[to + i * stride + j] = source[at + j * step + i]


@kernel
def multiply_blocks(
    start: int,
    stop: int,
    pointers: Array,
    columns: Array,
    starts: Array,
    order: Array | None,
    values: Array,
    features: int,
    x: Array,
    y: Array,
    tile: tuple[int, ...],
    parts: tuple[int, ...],
) -> None:
    """Block rows `start` to `stop` of the product `y [samples, rows]`, with packed `x` of so many features.

    Block `k` begins at `starts[k]`. With an `order` the product is that of the transposed matrix, whose block `k`
    is block `order[k]` of the matrix. The length of `tile` divides the number of packed samples.
    """
    samples, rows, line, size = len(y), y.shape[1], x.shape[1] * length(x, parts), length(x, parts)
    source, target = x.reshape(-1), y.reshape(-1)
    sums, turned = line_space(_CHUNK * size, x), line_space(size * size, x)
    for block in range(start, stop):
        height = min(size, rows - block * size)
        for first in range(0, samples, _CHUNK):
            count = min(_CHUNK, x.shape[1] - first)
            sums[: count * size] = 0
            for k in range(pointers[block], pointers[block + 1]):
                width = min(size, features - columns[k] * size)
                given = columns[k] * line + first * size
                if order is not None:
                    # the block is that of the matrix, `width` high
                    if height < size:
                        turned[:] = 0
                    turn(values, starts[order[k]], width, turned, 0, size, width, height, size)
                    add_block(turned, 0, width, source, given, count, sums, tile, parts)
                elif height < size:
                    pad(values, starts[k], height, width, turned, size)
                    add_block(turned, 0, width, source, given, count, sums, tile, parts)
                else:
                    add_block(values, starts[k], width, source, given, count, sums, tile, parts)
            for sample in range(min(count, samples - first)):
                at, to = sample * size, (first + sample) * rows + block * size
                if height == size:
                    store(target, to, load(sums, at, parts))
                else:
                    for i in range(height):
                        target[to + i] = sums[at + i]


@kernel
def sample_blocks(
    start: int,
    stop: int,
    pointers: Array,
    columns: Array,
    starts: Array,
    rows: int,
    features: int,
    samples: int,
    g: Array,
    x: Array,
    out: Array,
    tile: tuple[int, ...],
    parts: tuple[int, ...],
) -> None:
    """Blocks in block rows `start` to `stop` of the product of `g` transposed and `x`, both packed."""
    size, step, line = length(x, parts), len(tile), x.shape[1] * length(x, parts)
    left, right = g.reshape(-1), x.reshape(-1)
    nothing, scratch = np.zeros(size, x.dtype), np.empty(step * size, x.dtype)
    for block in range(start, stop):
        height = min(size, rows - block * size)
        for first in range(0, samples, _CHUNK):
            begin, end = first * size, min(samples, first + _CHUNK) * size
            for k in range(pointers[block], pointers[block + 1]):
                width = min(size, features - columns[k] * size)
                for j in range(0, width, step):
                    target = starts[k] + j * height
                    whole = height == size and j + step <= width
                    if whole and first > 0:
                        found = load_rows(out, target, size, tile, parts)
                    else:
                        found = load_rows(nothing, 0, 0, tile, parts)
                    for at in range(begin, end, size):
                        here = load(left, block * line + at, parts)
                        found = scaled_add_rows(right, columns[k] * line + at + j, 1, here, found)
                    if whole:
                        store_rows(out, target, size, found)
                        continue
                    store_rows(scratch, 0, size, found)
                    for row in range(min(step, width - j)):
                        for i in range(height):
                            share, place = scratch[row * size + i], target + row * height + i
                            out[place] = share if first == 0 else out[place] + share


@kernel
def scatter_blocks(
    start: int,
    stop: int,
    pointers: Array,
    columns: Array,
    starts: Array,
    values: Array,
    dense: Array,
    parts: tuple[int, ...],
) -> None:
    """Block rows `start` to `stop` of the dense matrix."""
    rows, features = dense.shape
    flat, size = dense.reshape(-1), length(dense, parts)
    for block in range(start, stop):
        height = min(size, rows - block * size)
        dense[block * size : block * size + height] = 0
        for k in range(pointers[block], pointers[block + 1]):
            width, to = min(size, features - columns[k] * size), (block * features + columns[k]) * size
            turn(values, starts[k], height, flat, to, features, height, width, size)


@kernel
def gather_blocks(
    start: int,
    stop: int,
    pointers: Array,
    columns: Array,
    starts: Array,
    dense: Array,
    values: Array,
    parts: tuple[int, ...],
) -> None:
    """The values in block rows `start` to `stop` of a dense matrix."""
    rows, features = dense.shape
    flat, size = dense.reshape(-1), length(dense, parts)
    for block in range(start, stop):
        height = min(size, rows - block * size)
        for k in range(pointers[block], pointers[block + 1]):
            width, at = min(size, features - columns[k] * size), (block * features + columns[k]) * size
            turn(flat, at, features, values, starts[k], height, width, height, size)
