"""The loops behind `neuropil.kernels.sparse`, on blocks of samples that fill a few vector registers.

Activity is packed as `[blocks, features, samples]`, so that a stored weight meets one contiguous vector of samples. The
matrix is cut into panels of neighbouring columns, stored one after the other and each row by row: a panel's piece of
the input stays in a near cache while the rows stream by. No loop stores where another thread, or its own next
step, loads: the transposed product has its own order of the same entries.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from neuropil.kernels.compiled import kernel, kernel_part
from neuropil.kernels.vector import load, product_add, scaled_add, store, total, transpose, zeros

Array = Any  # numpy arrays, as Numba sees them


@kernel
def pack(start: int, stop: int, x: Array, packed: Array) -> None:
    """Features `start` to `stop` of `x [samples, features]` to `packed [blocks, features, width]`, zeros behind."""
    samples, features = x.shape
    blocks, _, width = packed.shape
    tile = 64 // x.itemsize
    flat, target = x.reshape(-1), packed.reshape(-1)
    for first in range(start, stop, tile):
        for sample in range(0, blocks * width, tile):
            at = (sample // width * features + first) * width + sample % width
            if sample + tile <= samples and first + tile <= stop:
                transpose(flat, sample * features + first, features, target, at, width)
            else:
                for i in range(min(tile, stop - first)):
                    for j in range(tile):
                        there = sample + j < samples
                        target[at + i * width + j] = x[sample + j, first + i] if there else x.dtype.type(0)


@kernel_part
def unpack(packed: Array, width: int, sample: int, first: int, stop: int, x: Array, flat: Array) -> None:
    """The way back for one block, whose first sample is `sample`: features `first` to `stop` of `x`."""
    samples, features = x.shape
    tile = 64 // x.itemsize
    for start in range(first, stop, tile):
        for here in range(sample, min(sample + width, samples), tile):
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
    pointers: Array,
    columns: Array,
    values: Array,
    order: Array | None,
    x: Array,
    y: Array,
    parts: tuple[int, ...],
) -> None:
    """Rows `start` to `stop` of the product, `y [samples, rows]`; entry `k` weighs `values[order[k]]`.

    `x` is packed; an `order` of None is the identity.
    """
    rows, width = y.shape[1], len(parts) * 64 // x.itemsize
    unit, one, two = x.dtype.type(1), np.uintp(1), np.uintp(2)
    source, flat = x.reshape(-1), y.reshape(-1)
    local = np.empty((stop - start) * width, x.dtype)
    for block in range(x.shape[0]):
        base = block * x.shape[1]
        for panel in range(panels):
            for row in range(start, stop):
                entry = panel * rows + row
                begin, end = np.uintp(pointers[entry]), np.uintp(pointers[entry + 1])
                if panel > 0 and begin == end:
                    continue
                at = (row - start) * width
                sums = zeros(local, parts) if panel == 0 else load(local, at, parts)
                others = zeros(local, parts)  # a second sum, so that one need not wait for the other
                for k in range(begin, end - (end - begin) % two, two):
                    sums = scaled_add(
                        weight(values, order, k), load(source, (base + columns[k]) * width, parts), sums
                    )
                    others = scaled_add(
                        weight(values, order, k + one),
                        load(source, (base + columns[k + one]) * width, parts),
                        others,
                    )
                if (end - begin) % two:
                    k = end - one  # type: ignore[assignment]
                    sums = scaled_add(
                        weight(values, order, k), load(source, (base + columns[k]) * width, parts), sums
                    )
                sums = scaled_add(unit, others, sums)
                store(local, at, sums)
        unpack(local, width, block * width, start, stop, y, flat)


@kernel
def sample_product(
    start: int,
    stop: int,
    panels: int,
    pointers: Array,
    columns: Array,
    g: Array,
    x: Array,
    out: Array,
    parts: tuple[int, ...],
) -> None:
    """Entries in rows `start` to `stop` of the dense product of `g` and `x` transposed, both packed."""
    blocks, rows, width = g.shape
    left, right = g.reshape(-1), x.reshape(-1)
    for block in range(blocks):
        base = block * x.shape[1]
        for panel in range(panels):
            for row in range(start, stop):
                entry = panel * rows + row
                begin, end = np.uintp(pointers[entry]), np.uintp(pointers[entry + 1])
                if begin == end:
                    continue
                here = load(left, (block * rows + row) * width, parts)
                for k in range(begin, end):
                    there = load(right, (base + columns[k]) * width, parts)
                    share = total(product_add(here, there, zeros(left, parts)))
                    out[k] = share if block == 0 else out[k] + share


@kernel
def scatter(
    start: int, stop: int, panels: int, pointers: Array, columns: Array, values: Array, dense: Array
) -> None:
    """Rows `start` to `stop` of the dense matrix."""
    dense[start:stop] = 0
    for panel in range(panels):
        for row in range(start, stop):
            entry = panel * len(dense) + row
            for k in range(np.uintp(pointers[entry]), np.uintp(pointers[entry + 1])):
                dense[row, np.uintp(columns[k])] = values[k]


@kernel
def gather(
    start: int, stop: int, panels: int, pointers: Array, columns: Array, dense: Array, values: Array
) -> None:
    """The values in rows `start` to `stop` of a dense matrix."""
    for panel in range(panels):
        for row in range(start, stop):
            entry = panel * len(dense) + row
            for k in range(np.uintp(pointers[entry]), np.uintp(pointers[entry + 1])):
                values[k] = dense[row, np.uintp(columns[k])]
