"""The compiled scans of neurons with several states as torch operators, forward and exact backward."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from neuropil.kernels.compiled import run_over
from neuropil.kernels.lanes import STRETCH, array
from neuropil.kernels.neuron_compiled import MODELS, SEGMENT, neuron_backward, neuron_forward
from neuropil.kernels.surrogate_compiled import KINDS

_SETTINGS = "str model, str surrogate, float scale, bool zero, bool detach, bool keep"


@torch.library.custom_op(
    "neuropil::neuron",
    mutates_args=(),
    schema=f"(Tensor x, Tensor state, Tensor parameters, bool save, {_SETTINGS}) -> (Tensor, Tensor, Tensor)",
)
def neuron(
    x: Tensor,
    state: Tensor,
    parameters: Tensor,
    save: bool,
    model: str,
    surrogate: str,
    scale: float,
    zero: bool,
    detach: bool,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Spikes `[time, lanes]`, last states `[states, lanes]`, states saved (if `save`) at segments' starts.

    `x` is `[time, lanes]`, `parameters` are `[parameters, period]`, where the period divides the lanes. `keep` lets
    the gradient through time.
    """
    spikes, final = x.new_empty(x.shape), state.new_empty(state.shape)
    saved = x.new_empty(_saved_rows(x, save), *state.shape)
    run_over(
        neuron_forward,
        x.shape[1],
        x.numel(),
        MODELS[model],
        array(x),
        array(state),
        array(parameters),
        zero,
        spikes.numpy(),
        final.numpy(),
        saved.numpy(),
        stretch=STRETCH,
    )
    return spikes, final, saved


@neuron.register_fake
def _(x: Tensor, state: Tensor, parameters: Tensor, save: bool, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    saved = x.new_empty(_saved_rows(x, save), *state.shape)
    return x.new_empty(x.shape), state.new_empty(state.shape), saved


@torch.library.custom_op(
    "neuropil::neuron_backward",
    mutates_args=(),
    schema="(Tensor x, Tensor saved, Tensor state, Tensor parameters, Tensor g_spikes, Tensor g_final, "
    f"bool wants_parameters, {_SETTINGS}) -> (Tensor, Tensor, Tensor)",
)
def neuron_backward_op(
    x: Tensor,
    saved: Tensor,
    state: Tensor,
    parameters: Tensor,
    g_spikes: Tensor,
    g_final: Tensor,
    wants_parameters: bool,
    model: str,
    surrogate: str,
    scale: float,
    zero: bool,
    detach: bool,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of input, state and parameters (empty where not wanted)."""
    lanes = x.shape[1]
    g_x, g_state = x.new_empty(x.shape), state.new_empty(state.shape)
    per_lane = x.new_empty(parameters.shape[0], lanes if wants_parameters else 0)
    g_x_array = g_x.numpy()
    run_over(
        neuron_backward,
        lanes,
        x.numel(),
        MODELS[model],
        *(array(tensor) for tensor in (x, saved, state, parameters, g_spikes, g_final)),
        KINDS[surrogate],
        g_x_array.dtype.type(scale),
        zero,
        detach,
        keep,
        g_x_array,
        g_state.numpy(),
        per_lane.numpy() if wants_parameters else None,
        stretch=STRETCH,
    )
    if not wants_parameters:
        return g_x, g_state, per_lane
    many, period = parameters.shape
    return g_x, g_state, per_lane.view(many, lanes // period, period).sum(1)


@neuron_backward_op.register_fake
def _(
    x: Tensor,
    saved: Tensor,
    state: Tensor,
    parameters: Tensor,
    g_spikes: Tensor,
    g_final: Tensor,
    wants_parameters: bool,
    *settings: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    many, period = parameters.shape
    g_parameters = x.new_empty(many, period if wants_parameters else 0)
    return x.new_empty(x.shape), state.new_empty(state.shape), g_parameters


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    x, state, parameters, _, *ctx.settings = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(x, output[2], state, parameters)


def _backward(ctx: Any, g_spikes: Tensor | None, g_final: Tensor | None, _: Tensor | None) -> tuple[Any, ...]:
    x, saved, state, parameters = ctx.saved_tensors
    if g_spikes is None:
        g_spikes = torch.zeros_like(x)
    if g_final is None:
        g_final = torch.zeros_like(state)
    needs = ctx.needs_input_grad
    gradients = neuron_backward_op(x, saved, state, parameters, g_spikes, g_final, needs[2], *ctx.settings)
    kept = (gradient if needed else None for gradient, needed in zip(gradients, needs, strict=False))
    return *kept, *[None] * 7


neuron.register_autograd(_backward, setup_context=_setup_context)


def _saved_rows(x: Tensor, save: bool) -> int:
    return max(0, -(-x.shape[0] // SEGMENT) - 1) if save else 0
