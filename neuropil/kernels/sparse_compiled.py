"""The loops behind `neuropil.kernels.sparse`, on blocks of samples that fill a few vector registers.

The matrix is cut into panels of neighbouring columns, stored one after the other and each row by row. Whoever
computes some rows packs a panel's piece of the input as `[features, samples]`, so that a stored weight meets one
contiguous vector of samples, and keeps it in a near cache while the rows stream by. Every thread packs for itself:
what another one has just written takes longer to fetch. In a chunk of a panel, rows with as many entries follow each
other, so that the processor foresees where each ends; whoever computes some rows computes whole chunks. No loop stores
where another thread, or its own next step, loads: the transposed product has its own order of the same entries.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from neuropil.kernels.compiled import kernel, kernel_part
from neuropil.kernels.vector import load, scaled_add, store, total, transpose, zeros
from neuropil.kernels.vector_sums import fold, totals

Array = Any  # numpy arrays, as Numba sees them


@kernel_part
def line_space(numbers: int, like: Array) -> Array:
    """Room for numbers from the start of a cache line on, as a vector that spans two lines costs twice."""
    space = np.empty(numbers + 64 // like.itemsize, like.dtype)
    begin = -space.ctypes.data % 64 // like.itemsize
    return space[begin : begin + numbers]


@kernel_part
def pack(x: Array, flat: Array, sample: int, width: int, first: int, stop: int, packed: Array) -> None:
    """Features `first` to `stop` of `width` samples of `x [samples, features]` from `sample` on, zeros behind."""
    samples, features = x.shape
    tile = 64 // x.itemsize
    # four lines of a sample in a row, as memory gives neighbours together
    for begin in range(first, stop, 4 * tile):
        for here in range(sample, sample + width, tile):
            for start in range(begin, min(begin + 4 * tile, stop), tile):
                at = (start - first) * width + here - sample
                if here + tile <= samples and start + tile <= stop:
                    transpose(flat, here * features + start, features, packed, at, width)
                else:
                    for i in range(min(tile, stop - start)):
                        for j in range(tile):
                            there = here + j < samples
                            packed[at + i * width + j] = x[here + j, start + i] if there else x.dtype.type(0)


@kernel_part
def unpack(packed: Array, width: int, sample: int, first: int, stop: int, x: Array, flat: Array) -> None:
    """The way back for one block, whose first sample is `sample`: features `first` to `stop` of `x`."""
    samples, features = x.shape
    tile = 64 // x.itemsize
    for here in range(sample, min(sample + width, samples), tile):
        for start in range(first, stop, tile):
            at = (start - first) * width + here - sample
            if here + tile <= samples and start + tile <= stop:
                transpose(packed, at, width, flat, here * features + start, features)
            else:
                for i in range(min(tile, stop - start)):
                    for j in range(min(tile, samples - here)):
                        x[here + j, start + i] = packed[at + i * width + j]


@kernel_part
def weight(values: Array, order: Array | None, k: int) -> Any:
    """Value of entry `k`."""
    if order is None:
        return values[k]
    return values[np.uintp(order[k])]


@kernel
def multiply(
    start: int,
    stop: int,
    panels: int,
    size: int,
    pointers: Array,
    lines: Array,
    columns: Array,
    values: Array,
    order: Array | None,
    x: Array,
    y: Array,
    parts: tuple[int, ...],
) -> None:
    """Rows `start` to `stop` of the product, `y [samples, rows]`; entry `k` weighs `values[order[k]]`.

    A panel has `size` columns; an `order` of None is the identity.
    """
    samples, features = x.shape
    rows, width = y.shape[1], len(parts) * 64 // x.itemsize
    source, target = x.reshape(-1), y.reshape(-1)
    near, sums_of = line_space(size * width, x), line_space((stop - start) * width, x)
    for sample in range(0, samples, width):
        for panel in range(panels):
            first, line = panel * size, panel * rows
            pack(x, source, sample, width, first, min(first + size, features), near)
            end = np.uintp(pointers[line + start])
            for visit in range(line + start, line + stop):
                begin, end = end, np.uintp(pointers[visit + 1])
                if panel > 0 and begin == end:
                    continue
                at = (lines[visit] - start) * width
                sums = zeros(near, parts) if panel == 0 else load(sums_of, at, parts)
                for k in range(begin, end):
                    sums = scaled_add(
                        weight(values, order, k), load(near, (columns[k] - first) * width, parts), sums
                    )
                store(sums_of, at, sums)
        unpack(sums_of, width, sample, start, stop, y, target)


@kernel
def sample_product(
    start: int,
    stop: int,
    panels: int,
    size: int,
    pointers: Array,
    lines: Array,
    columns: Array,
    g: Array,
    x: Array,
    out: Array,
    parts: tuple[int, ...],
) -> None:
    """Entries in rows `start` to `stop` of the product `g^T x`, of `[samples, rows]` and `[samples, features]`."""
    samples, features = x.shape
    rows, width = g.shape[1], len(parts) * 64 // x.itemsize
    left, right = g.reshape(-1), x.reshape(-1)
    near, mine = line_space(size * width, x), line_space((stop - start) * width, x)
    one, two, three, four = np.uintp(1), np.uintp(2), np.uintp(3), np.uintp(4)
    shares = line_space(4, x)
    for sample in range(0, samples, width):
        pack(g, left, sample, width, start, stop, mine)
        for panel in range(panels):
            first, line = panel * size, panel * rows
            pack(x, right, sample, width, first, min(first + size, features), near)
            end = np.uintp(pointers[line + start])
            for visit in range(line + start, line + stop):
                begin, end = end, np.uintp(pointers[visit + 1])
                if begin == end:
                    continue
                here = load(mine, (lines[visit] - start) * width, parts)
                for k in range(begin, end - (end - begin) % four, four):
                    found = totals(
                        (
                            fold(here, load(near, (columns[k] - first) * width, parts)),
                            fold(here, load(near, (columns[k + one] - first) * width, parts)),
                            fold(here, load(near, (columns[k + two] - first) * width, parts)),
                            fold(here, load(near, (columns[k + three] - first) * width, parts)),
                        )
                    )
                    if sample == 0:
                        store(out, k, found)
                    else:
                        store(shares, 0, found)
                        for i in range(four):
                            out[k + i] += shares[i]
                for k in range(end - (end - begin) % four, end):
                    share = total(fold(here, load(near, (columns[k] - first) * width, parts)))
                    out[k] = share if sample == 0 else out[k] + share


@kernel
def scatter(
    start: int,
    stop: int,
    panels: int,
    pointers: Array,
    lines: Array,
    columns: Array,
    values: Array,
    dense: Array,
) -> None:
    """Rows `start` to `stop` of the dense matrix."""
    dense[start:stop] = 0
    for panel in range(panels):
        for visit in range(panel * len(dense) + start, panel * len(dense) + stop):
            row = lines[visit]
            for k in range(np.uintp(pointers[visit]), np.uintp(pointers[visit + 1])):
                dense[row, np.uintp(columns[k])] = values[k]


@kernel
def gather(
    start: int,
    stop: int,
    panels: int,
    pointers: Array,
    lines: Array,
    columns: Array,
    dense: Array,
    values: Array,
) -> None:
    """The values in rows `start` to `stop` of a dense matrix."""
    for panel in range(panels):
        for visit in range(panel * len(dense) + start, panel * len(dense) + stop):
            row = lines[visit]
            for k in range(np.uintp(pointers[visit]), np.uintp(pointers[visit + 1])):
                values[k] = dense[row, np.uintp(columns[k])]
