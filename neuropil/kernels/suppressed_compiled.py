"""The loop behind `neuropil.kernels.suppressed`: one pass over memory."""

from __future__ import annotations

from typing import Any

from neuropil.kernels.compiled import kernel, smooth_part

Array = Any  # numpy arrays, as Numba sees them


@smooth_part
def use_and_move_part(
    weight: Array, gradient: Array, usage: Array, rate: Any, eps: Any, bound: Any, kept: Any, scale: bool
) -> None:
    """`usage = kept usage + |g|`; `weight += rate g / (eps + usage)`, or `rate g`. Up to the bound `g` counts as 0."""
    none = gradient.dtype.type(0)
    for i in range(len(weight)):
        g = gradient[i]
        g = none if abs(g) <= bound else g  # not a number stays one
        used = usage[i] * kept + abs(g)
        usage[i] = used
        weight[i] += rate * g / (used + eps) if scale else rate * g


@kernel
def use_and_move(
    start: int,
    stop: int,
    weight: Array,
    gradient: Array,
    usage: Array,
    rate: Any,
    eps: Any,
    bound: Any,
    kept: Any,
    scale: bool,
) -> None:
    """Places `start` to `stop`. Multiply-adds are fused, as in torch's own addition of a multiple."""
    use_and_move_part(
        weight[start:stop], gradient[start:stop], usage[start:stop], rate, eps, bound, kept, scale
    )
