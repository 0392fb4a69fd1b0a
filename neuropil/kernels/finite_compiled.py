"""The loop behind `neuropil.kernels.finite`."""

from __future__ import annotations

from typing import Any

from neuropil.kernels.addresses import part_of, stretch
from neuropil.kernels.compiled import kernel

Array = Any  # numpy arrays, as Numba sees them


@kernel
def count_nonfinite(x: Array) -> int:
    """How many numbers of `x [numbers]` are NaN or infinite: those less themselves are not 0."""
    bad = 0
    for i in range(len(x)):
        bad += x[i] - x[i] != 0
    return bad


@kernel
def look_for_nonfinite(start: int, stop: int, rows: Array, found: Array) -> None:
    """Set `found` to 1 when a number between places `start` and `stop` is NaN or infinite: it less itself is not 0."""
    for row in range(len(rows)):
        first, count = stretch(rows, row, start, stop)
        if count <= 0:
            continue
        x = part_of(rows, row, 0, first, count, found)
        bad = 0
        for i in range(count):
            bad += x[i] - x[i] != 0
        if bad:
            found[0] = 1
