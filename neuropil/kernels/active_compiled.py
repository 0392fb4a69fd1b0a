"""The loop behind `neuropil.kernels.active`: each active unit's two rows of weights are read once, where they lie."""

from __future__ import annotations

from typing import Any

from neuropil.kernels.compiled import kernel
from neuropil.kernels.vector import load, product_add, scaled_add, store, total, zeros

Array = Any  # numpy arrays, as Numba sees them


@kernel
def drive_units(
    start: int,
    stop: int,
    x: Array,
    up: Array,
    bias: Array,
    down: Array,
    active: Array,
    size: int,
    sums: Array,
    parts: tuple[int, ...],
) -> None:
    """Pieces `start` to `stop` of `size` active units each: what they add to the output goes to `sums[piece]`."""
    width, none = len(parts) * 64 // x.itemsize, x.dtype.type(0)
    features, outputs = up.shape[1], down.shape[1]
    even, even_out = features // width * width, outputs // width * width
    source, sink, target = up.reshape(-1), down.reshape(-1), sums.reshape(-1)
    for piece in range(start, stop):
        sums[piece] = 0
        for k in range(piece * size, min((piece + 1) * size, len(active))):
            unit = active[k]
            dot = zeros(x, parts)
            for at in range(0, even, width):
                dot = product_add(load(source, unit * features + at, parts), load(x, at, parts), dot)
            drive = total(dot) + (bias[unit] if len(bias) > 0 else none)
            for at in range(even, features):
                drive += up[unit, at] * x[at]
            if drive <= none:
                continue
            for at in range(0, even_out, width):
                to = piece * outputs + at
                here = load(sink, unit * outputs + at, parts)
                store(target, to, scaled_add(drive, here, load(target, to, parts)))
            for at in range(even_out, outputs):
                sums[piece, at] += drive * down[unit, at]
