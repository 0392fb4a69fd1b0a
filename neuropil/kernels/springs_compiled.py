"""The loop behind `neuropil.kernels.springs`: one pass over memory."""

from __future__ import annotations

from typing import Any

from neuropil.kernels.addresses import part_of, stretch
from neuropil.kernels.compiled import kernel

Array = Any  # numpy arrays, as Numba sees them


@kernel
def add_pull(start: int, stop: int, rows: Array, strength: Array) -> None:
    """`gradient += strength * (stiffness * (weight - anchor))` for places `start` to `stop` of all numbers.

    A row holds the addresses of these four, in the order gradient, weight, anchor, stiffness.
    """
    scale = strength[0]
    for row in range(len(rows)):
        first, count = stretch(rows, row, start, stop)
        if count <= 0:
            continue
        gradient = part_of(rows, row, 0, first, count, strength)
        weight = part_of(rows, row, 1, first, count, strength)
        anchor = part_of(rows, row, 2, first, count, strength)
        stiffness = part_of(rows, row, 3, first, count, strength)
        for i in range(count):
            gradient[i] += scale * (stiffness[i] * (weight[i] - anchor[i]))
