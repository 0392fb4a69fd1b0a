"""The loop behind `neuropil.kernels.springs`: one pass over memory."""

from __future__ import annotations

from typing import Any

from neuropil.kernels.compiled import kernel

Array = Any  # numpy arrays, as Numba sees them


@kernel
def add_pull(
    start: int,
    stop: int,
    gradient: Array,
    weight: Array,
    anchor: Array,
    stiffness: Array,
    strength: Any,
    total: Array,
) -> None:
    """`total = gradient + strength * (stiffness * (weight - anchor))` for places `start` to `stop`."""
    for i in range(start, stop):
        total[i] = gradient[i] + strength * (stiffness[i] * (weight[i] - anchor[i]))
