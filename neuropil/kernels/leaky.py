"""The leaky sum over time, `v[t] = decay * v[t-1] + x[t]`: a membrane without spikes, a trace of spikes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from neuropil.errors import ShapeError, StateError
from neuropil.kernels.compiled import kernel, run_over, serves, traced
from neuropil.kernels.lanes import STRETCH, array, check_per_neuron, period, repeat_row, sum_lanes

if TYPE_CHECKING:
    from jaxtyping import Float

Array = Any  # numpy arrays, as Numba sees them

TILE = 2048


def leaky_scan(
    x: Float[Tensor, "time batch ..."], state: Float[Tensor, "batch ..."], decay: Tensor
) -> tuple[Float[Tensor, "time batch ..."], Float[Tensor, "batch ..."]]:
    """The sum after every step and after the last; `decay` is one number or broadcasts over `features`.

    Differentiable in all three arguments; the backward pass keeps the sums only where `decay` learns. Raises
    ShapeError or StateError when the arguments do not fit together.

    >>> import torch
    >>> trace, last = leaky_scan(torch.ones(3, 1, 1), torch.zeros(1, 1), torch.tensor(0.5))
    >>> trace.flatten().tolist(), last.item()
    ([1.0, 1.5, 1.75], 1.75)
    """
    if x.dim() < 2 or not x.is_floating_point():
        raise ShapeError(
            f"leaky_scan: x is {x.dtype} of shape {list(x.shape)}, expected floats [time, batch, ...features]"
        )
    if state.shape != x.shape[1:] or state.dtype != x.dtype:
        raise StateError(
            f"leaky_scan: state is {state.dtype} of shape {list(state.shape)}, "
            f"x needs {x.dtype} of shape {list(x.shape[1:])}"
        )
    check_per_neuron("leaky_scan", "decay", decay, x.shape[2:])
    decay = decay.to(x.dtype)
    if not serves(x, state, decay):
        return leaky_scan_reference(x, state, decay)
    lanes = state.numel()
    learns = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (x, state, decay))
    run = leaky if learns or traced(x) else run_leaky
    sums, last = run(x.reshape(x.shape[0], lanes), state.reshape(lanes), period(decay, x.shape[2:]))
    return sums.view(x.shape), last.view(x.shape[1:])


def leaky_scan_reference(
    x: Float[Tensor, "time batch ..."], state: Float[Tensor, "batch ..."], decay: Tensor
) -> tuple[Float[Tensor, "time batch ..."], Float[Tensor, "batch ..."]]:
    """`leaky_scan` as the equation reads, in plain torch: the definition that the kernel is held against.

    >>> import torch
    >>> leaky_scan_reference(torch.ones(2, 1, 1), torch.ones(1, 1), torch.tensor(0.5))[0].flatten().tolist()
    [1.5, 1.75]
    """
    sums = []
    for current in x.unbind(0):
        state = decay * state + current
        sums.append(state)
    return (torch.stack(sums) if sums else torch.empty_like(x)), state


@kernel
def leaky_forward(start: int, stop: int, x: Array, state: Array, decay: Array, sums: Array) -> None:
    """Scan lanes `start` to `stop`; `x` and `sums` are `[time, lanes]`, `decay` repeats along the lanes."""
    local = np.empty((2, TILE), x.dtype)
    for first in range(start, stop, TILE):
        last = min(first + TILE, stop)
        d, v = local[0, : last - first], local[1, : last - first]
        repeat_row(decay, first, d)
        v[:] = state[first:last]
        for t in range(len(x)):
            now, out = x[t, first:last], sums[t, first:last]
            for j in range(len(v)):
                v[j] = d[j] * v[j] + now[j]
                out[j] = v[j]


@kernel
def leaky_backward(
    start: int,
    stop: int,
    sums: Array,
    state: Array,
    decay: Array,
    g_sums: Array,
    g_last: Array,
    g_x: Array,
    g_state: Array,
    g_decay: Array,
) -> None:
    """Gradients of lanes `start` to `stop`; `g_decay` is per lane, and empty like `sums` if not wanted."""
    local = np.empty((3, TILE), g_x.dtype)
    for first in range(start, stop, TILE):
        last = min(first + TILE, stop)
        width = last - first
        d, g, g_d = local[0, :width], local[1, :width], local[2, :width]
        repeat_row(decay, first, d)
        g[:] = g_last[first:last]
        g_d[:] = 0
        for t in range(len(g_x) - 1, -1, -1):
            above, out = g_sums[t, first:last], g_x[t, first:last]
            for j in range(width):
                out[j] = g[j] + above[j]
            if len(g_decay) > 0:
                before = sums[t - 1, first:last] if t > 0 else state[first:last]
                for j in range(width):
                    g_d[j] += out[j] * before[j]
            for j in range(width):
                g[j] = d[j] * out[j]
        g_state[first:last] = g
        if len(g_decay) > 0:
            g_decay[first:last] = g_d


def run_leaky(x: Tensor, state: Tensor, decay: Tensor) -> tuple[Tensor, Tensor]:
    """Sums `[time, lanes]` and the last of them `[lanes]`; `decay` is `[period]`."""
    sums = x.new_empty(x.shape)
    run_over(
        leaky_forward,
        x.shape[1],
        x.numel(),
        array(x),
        array(state),
        array(decay),
        sums.numpy(),
        stretch=STRETCH,
    )
    return sums, (sums[-1] if len(x) else state).clone()


leaky = torch.library.custom_op(
    "neuropil::leaky",
    run_leaky,
    mutates_args=(),
    schema="(Tensor x, Tensor state, Tensor decay) -> (Tensor, Tensor)",
)


@leaky.register_fake
def _(x: Tensor, state: Tensor, decay: Tensor) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), torch.empty_like(state)


@torch.library.custom_op(
    "neuropil::leaky_backward",
    mutates_args=(),
    schema="(Tensor sums, Tensor state, Tensor decay, Tensor g_sums, Tensor g_last, bool wants_decay)"
    " -> (Tensor, Tensor, Tensor)",
)
def leaky_backward_op(
    sums: Tensor, state: Tensor, decay: Tensor, g_sums: Tensor, g_last: Tensor, wants_decay: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of input, state and decay (empty where not wanted)."""
    lanes = g_sums.shape[1]
    g_x, g_state = g_sums.new_empty(g_sums.shape), g_sums.new_empty(lanes)
    g_decay = g_sums.new_empty(lanes if wants_decay else 0)
    run_over(
        leaky_backward,
        lanes,
        g_x.numel(),
        *(array(tensor) for tensor in (sums, state, decay, g_sums, g_last)),
        *(tensor.numpy() for tensor in (g_x, g_state, g_decay)),
        stretch=STRETCH,
    )
    return g_x, g_state, sum_lanes(g_decay, decay, wants_decay)


@leaky_backward_op.register_fake
def _(
    sums: Tensor, state: Tensor, decay: Tensor, g_sums: Tensor, g_last: Tensor, wants_decay: bool
) -> tuple[Tensor, Tensor, Tensor]:
    g_decay = g_sums.new_empty(decay.shape[0] if wants_decay else 0)
    return g_sums.new_empty(g_sums.shape), torch.empty_like(state), g_decay


def _setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: tuple[Tensor, Tensor]) -> None:
    x, state, decay = inputs
    ctx.steps, ctx.wants_decay = x.shape[0], ctx.needs_input_grad[2]
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(output[0] if ctx.wants_decay else x.new_empty(0, x.shape[1]), state, decay)


def _backward(ctx: Any, g_sums: Tensor | None, g_last: Tensor | None) -> tuple[Tensor | None, ...]:
    sums, state, decay = ctx.saved_tensors
    if g_sums is None:
        g_sums = state.new_zeros(ctx.steps, state.shape[0])
    if g_last is None:
        g_last = torch.zeros_like(state)
    gradients = leaky_backward_op(sums, state, decay, g_sums, g_last, ctx.wants_decay)
    return tuple(
        gradient if needed else None for gradient, needed in zip(gradients, ctx.needs_input_grad, strict=True)
    )


leaky.register_autograd(_backward, setup_context=_setup_context)
