"""The loops behind `neuropil.kernels.sparse` where a matrix is made of whole blocks.

A block is stored column by column, so that its rows lie side by side as the lanes of a vector. Several samples share
each vector that is loaded, and their sums stay in registers while a block's columns stream by. Whoever computes some
blocks packs activity for itself as `[panels, samples, size]`, a panel being the columns of a block, or the rows: one
after the other in memory, they do not compete for the same places of the cache, as pieces of long rows do. Where the
last panel or block is shorter, zeros fill it up.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from neuropil.kernels.compiled import kernel, kernel_part
from neuropil.kernels.sparse_compiled import line_space
from neuropil.kernels.vector import length, load, load_rows, scaled_add_rows, store, store_rows, transpose

Array = Any  # numpy arrays, as Numba sees them

_CHUNK = 128  # samples whose sums stay in the nearest cache while the blocks of a row pass by


@kernel_part
def pack_panels(
    x: Array,
    flat: Array,
    first: int,
    count: int,
    start: int,
    stop: int,
    packed: Array,
    line: int,
    parts: tuple[int, ...],
) -> None:
    """Panels `start` to `stop` of `count` samples of `x [samples, features]` from `first` on, `line` numbers each."""
    samples, features = x.shape
    size = length(x, parts)
    for panel in range(start, stop):
        begin, to = panel * size, (panel - start) * line
        for sample in range(first, min(first + count, samples)):
            if begin + size <= features:
                store(packed, to, load(flat, sample * features + begin, parts))
            else:
                for j in range(size):
                    packed[to + j] = x[sample, begin + j] if begin + j < features else x.dtype.type(0)
            to += size
        packed[to : (panel - start) * line + count * size] = 0


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
    x: Array,
    y: Array,
    tile: tuple[int, ...],
    parts: tuple[int, ...],
) -> None:
    """Block rows `start` to `stop` of the product `y [samples, rows]` with `x [samples, features]`.

    Block `k` begins at `starts[k]`. With an `order` the product is that of the transposed matrix, whose block `k`
    is block `order[k]` of the matrix. `_CHUNK` is a multiple of the length of `tile`.
    """
    samples, features = x.shape
    rows, size, step = y.shape[1], length(x, parts), len(tile)
    line = min(_CHUNK, -(-samples // step) * step) * size
    panels = -(-features // size)
    given, target = x.reshape(-1), y.reshape(-1)
    packed, sums, turned = line_space(panels * line, x), line_space(line, x), line_space(size * size, x)
    for first in range(0, samples, _CHUNK):
        count = min(_CHUNK, -(-(samples - first) // step) * step)
        pack_panels(x, given, first, count, 0, panels, packed, line, parts)
        for block in range(start, stop):
            height = min(size, rows - block * size)
            sums[: count * size] = 0
            for k in range(pointers[block], pointers[block + 1]):
                width = min(size, features - columns[k] * size)
                here = columns[k] * line
                if order is not None:
                    # the block is that of the matrix, `width` high
                    if height < size:
                        turned[:] = 0
                    turn(values, starts[order[k]], width, turned, 0, size, width, height, size)
                    add_block(turned, 0, width, packed, here, count, sums, tile, parts)
                elif height < size:
                    pad(values, starts[k], height, width, turned, size)
                    add_block(turned, 0, width, packed, here, count, sums, tile, parts)
                else:
                    add_block(values, starts[k], width, packed, here, count, sums, tile, parts)
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
    g: Array,
    x: Array,
    out: Array,
    tile: tuple[int, ...],
    parts: tuple[int, ...],
) -> None:
    """Blocks in block rows `start` to `stop` of the product `g^T x`, of `[samples, rows]` and `[samples, features]`."""
    samples, features = x.shape
    rows, size, step = g.shape[1], length(x, parts), len(tile)
    line, panels = min(_CHUNK, samples) * size, -(-features // size)
    given, pulled = x.reshape(-1), g.reshape(-1)
    right, left = line_space(panels * line, x), line_space((stop - start) * line, x)
    nothing, scratch = np.zeros(size, x.dtype), np.empty(step * size, x.dtype)
    for first in range(0, samples, _CHUNK):
        count = min(_CHUNK, samples - first)
        pack_panels(x, given, first, count, 0, panels, right, line, parts)
        pack_panels(g, pulled, first, count, start, stop, left, line, parts)
        for block in range(start, stop):
            height, mine = min(size, rows - block * size), (block - start) * line
            for k in range(pointers[block], pointers[block + 1]):
                width = min(size, features - columns[k] * size)
                for j in range(0, width, step):
                    target = starts[k] + j * height
                    whole = height == size and j + step <= width
                    if whole and first > 0:
                        found = load_rows(out, target, size, tile, parts)
                    else:
                        found = load_rows(nothing, 0, 0, tile, parts)
                    for at in range(0, count * size, size):
                        here = load(left, mine + at, parts)
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
