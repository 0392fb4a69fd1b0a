"""The compiled leaky integrate-and-fire scan as torch operators, forward and exact backward."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from neuropil.kernels.compiled import run_over, traced
from neuropil.kernels.lanes import STRETCH, array, sum_lanes
from neuropil.kernels.lif_compiled import SEGMENT, lif_backward, lif_forward
from neuropil.kernels.surrogate_compiled import KINDS

_SETTINGS = "str surrogate, float scale, bool zero, bool detach, bool keep"


def run_lif(
    x: Tensor,
    membrane: Tensor,
    decay: Tensor,
    threshold: Tensor,
    steps: int,
    save: bool,
    surrogate: str,
    scale: float,
    zero: bool,
    detach: bool,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Spikes `[steps, lanes]`, last membrane `[lanes]`, membranes saved (if `save`) at segments' starts.

    `x` is `[steps, lanes]`, or `[1, lanes]` for the same input at every step. `membrane` is empty at rest. `decay`
    and `threshold` are `[period]`, where the period divides the lanes. `keep` lets the gradient through time.
    """
    lanes = x.shape[1]
    spikes, final = x.new_empty(steps, lanes), x.new_empty(lanes)
    saved = x.new_empty(_saved_rows(steps, save), lanes)
    run_over(
        lif_forward,
        lanes,
        spikes.numel(),
        _rows(x),
        array(membrane),
        array(decay),
        array(threshold),
        zero,
        spikes.numpy(),
        final.numpy(),
        saved.numpy(),
        stretch=STRETCH,
    )
    return spikes, final, saved


lif = torch.library.custom_op(
    "neuropil::lif",
    run_lif,
    mutates_args=(),
    schema=f"(Tensor x, Tensor membrane, Tensor decay, Tensor threshold, int steps, bool save, {_SETTINGS})"
    " -> (Tensor, Tensor, Tensor)",
)


@lif.register_fake
def _(
    x: Tensor, membrane: Tensor, decay: Tensor, threshold: Tensor, steps: int, save: bool, *settings: Any
) -> tuple[Tensor, Tensor, Tensor]:
    lanes = x.shape[1]
    return x.new_empty(steps, lanes), x.new_empty(lanes), x.new_empty(_saved_rows(steps, save), lanes)


def run_lif_backward(
    x: Tensor,
    saved: Tensor,
    membrane: Tensor,
    decay: Tensor,
    threshold: Tensor,
    g_spikes: Tensor,
    g_final: Tensor,
    wants_decay: bool,
    wants_threshold: bool,
    surrogate: str,
    scale: float,
    zero: bool,
    detach: bool,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of the input, in its shape, and of membrane, decay and threshold (empty where not wanted).

    `g_final` is empty where nothing follows the last membrane, the gradient of an empty membrane is empty.
    """
    lanes = g_spikes.shape[1]
    g_x, g_membrane = x.new_empty(x.shape), torch.empty_like(membrane)
    g_decay = x.new_empty(lanes if wants_decay else 0)
    g_threshold = x.new_empty(lanes if wants_threshold else 0)
    g_x_array = g_x.numpy()
    run_over(
        lif_backward,
        lanes,
        g_spikes.numel(),
        _rows(x),
        array(saved),
        array(membrane),
        array(decay),
        array(threshold),
        array(g_spikes),
        array(g_final),
        KINDS[surrogate],
        g_x_array.dtype.type(scale),
        zero,
        detach,
        keep,
        g_x_array,
        g_membrane.numpy(),
        g_decay.numpy(),
        g_threshold.numpy(),
        stretch=STRETCH,
    )
    return (
        g_x,
        g_membrane,
        sum_lanes(g_decay, decay, wants_decay),
        sum_lanes(g_threshold, threshold, wants_threshold),
    )


lif_backward_op = torch.library.custom_op(
    "neuropil::lif_backward",
    run_lif_backward,
    mutates_args=(),
    schema="(Tensor x, Tensor saved, Tensor membrane, Tensor decay, Tensor threshold, Tensor g_spikes, "
    f"Tensor g_final, bool wants_decay, bool wants_threshold, {_SETTINGS})"
    " -> (Tensor, Tensor, Tensor, Tensor)",
)


@lif_backward_op.register_fake
def _(
    x: Tensor,
    saved: Tensor,
    membrane: Tensor,
    decay: Tensor,
    threshold: Tensor,
    g_spikes: Tensor,
    g_final: Tensor,
    wants_decay: bool,
    wants_threshold: bool,
    *settings: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return (
        x.new_empty(x.shape),
        torch.empty_like(membrane),
        x.new_empty(decay.shape[0] if wants_decay else 0),
        x.new_empty(threshold.shape[0] if wants_threshold else 0),
    )


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    x, membrane, decay, threshold, ctx.steps, _, *ctx.settings = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(x, output[2], membrane, decay, threshold)


def _backward(ctx: Any, g_spikes: Tensor | None, g_final: Tensor | None, _: Tensor | None) -> tuple[Any, ...]:
    return _gradients(ctx, g_spikes, g_final, ctx.needs_input_grad, lif_backward_op)


def _gradients(
    ctx: Any, g_spikes: Tensor | None, g_final: Tensor | None, needs: Sequence[bool], compute: Any
) -> tuple[Any, ...]:
    """Gradients of all that `lif` takes, computed by the operator or without it; those of settings are None."""
    x, saved, membrane, decay, threshold = ctx.saved_tensors
    if g_spikes is None:
        g_spikes = x.new_zeros(ctx.steps, x.shape[1])
    if g_final is None:
        g_final = x.new_empty(0)
    gradients = compute(
        x,
        saved,
        membrane,
        decay,
        threshold,
        g_spikes,
        g_final,
        needs[2],
        needs[3],
        *ctx.settings,
    )
    kept = (gradient if needed else None for gradient, needed in zip(gradients, needs, strict=False))
    return *kept, *[None] * 7


lif.register_autograd(_backward, setup_context=_setup_context)


class LIFScan(torch.autograd.Function):
    """`lif` without torch's dispatcher; where its answer is `known` from a run before, only its gradient.

    `x` is `[steps, ...]` and `membrane` as one of its rows, or empty at rest; the rest as `lif` takes it.
    """

    @staticmethod
    def forward(
        ctx: Any,
        known: tuple[Tensor, Tensor] | None,
        x: Tensor,
        membrane: Tensor,
        decay: Tensor,
        threshold: Tensor,
        steps: int,
        *settings: Any,
    ) -> tuple[Tensor, Tensor]:
        """Spikes and the last membrane."""
        row = x.shape[1:]
        lanes = row.numel()
        inputs = (x.reshape(len(x), lanes), membrane.reshape(-1), decay, threshold, steps, *settings)
        if known is None:
            spikes, final, saved = run_lif(*inputs)
            spikes, final = spikes.view(steps, *row), final.view(row)
        else:  # the backward pass finds the membranes by a scan of its own
            spikes, final, saved = *(tensor.detach() for tensor in known), x.new_empty(0, lanes)
        _setup_context(ctx, inputs, (spikes, final, saved))
        ctx.shapes = x.shape, membrane.shape
        return spikes, final

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g_spikes: Tensor | None, g_final: Tensor | None) -> tuple[Any, ...]:
        """What `lif` gives."""
        given = [g for g in (g_spikes, g_final) if g is not None]
        compute = lif_backward_op if traced(*given) else run_lif_backward
        flat = (
            None if g_spikes is None else g_spikes.reshape(ctx.steps, ctx.shapes[0][1:].numel()),
            None if g_final is None else g_final.reshape(-1),
        )
        g_x, g_membrane, *others = _gradients(ctx, *flat, ctx.needs_input_grad[1:], compute)
        shaped = (
            None if g is None else g.view(shape)
            for g, shape in zip((g_x, g_membrane), ctx.shapes, strict=True)
        )
        return None, *shaped, *others


def _saved_rows(steps: int, save: bool) -> int:
    return max(0, -(-steps // SEGMENT) - 1) if save else 0


def _rows(x: Tensor) -> Any:
    """`x` as an array, one row of it where all rows are the same memory."""
    return array(x[:1] if x.stride(0) == 0 else x)
