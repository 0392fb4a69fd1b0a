"""The compiled leaky integrate-and-fire scan as torch operators, forward and exact backward."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuropil.kernels.compiled import differentiable_once, run_over
from neuropil.kernels.finite import refuse_nonfinite
from neuropil.kernels.lanes import STRETCH, array, array_or_none, sum_lanes
from neuropil.kernels.lif_compiled import SEGMENT, lif_backward, lif_forward
from neuropil.kernels.surrogate_compiled import KINDS

Settings = tuple[int, bool, str, float, bool, bool, bool]  # what `run_lif` takes from `steps` to `keep`
_SETTINGS = "str surrogate, float scale, bool zero, bool detach, bool keep"


def run_lif(
    x: Tensor,
    membrane: Tensor | None,
    decay: Tensor,
    threshold: Tensor,
    shape: torch.Size,
    steps: int,
    save: bool,
    surrogate: str,
    scale: float,
    zero: bool,
    detach: bool,
    keep: bool,
    owner: str | None = None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Spikes `[steps, *shape]`, last membrane, membranes saved (if `save`) at segments' starts, if any are.

    `x` is `[steps, *shape]`, or of `shape` for the same input at every step. `membrane` is of `shape`, or None at
    rest. `decay` and `threshold` hold one number, or `[period]`, where the period divides the lanes: the numbers of
    `shape`. `keep` lets the gradient through time. In the name of an `owner`, a last membrane that is NaN or infinite
    is refused.
    """
    lanes, rows = shape.numel(), _saved_rows(steps, save)
    spikes, final = x.new_empty((steps, *shape)), x.new_empty(shape)
    saved = x.new_empty(rows, lanes) if rows else None
    lost = np.zeros(1, np.int64)
    run_over(
        lif_forward,
        lanes,
        spikes.numel(),
        _rows(x, shape),
        array_or_none(membrane, x.dtype, 1).reshape(-1),
        array(decay).reshape(-1),
        array(threshold).reshape(-1),
        zero,
        spikes.numpy().reshape(steps, lanes),
        final.numpy().reshape(lanes),
        array_or_none(saved, x.dtype, 2),
        lost,
        stretch=STRETCH,
    )
    if owner is not None and lost[0]:
        refuse_nonfinite(owner)
    return spikes, final, saved


def _lif(
    x: Tensor, membrane: Tensor, decay: Tensor, threshold: Tensor, steps: int, save: bool, *settings: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """`run_lif` for `x [steps or 1, lanes]`, with empty tensors for None, as operators need them."""
    start, held = membrane if membrane.numel() else None, x.shape[0] == 1
    spikes, final, saved = run_lif(
        x[0] if held else x, start, decay, threshold, x.shape[1:], steps, save, *settings
    )
    return spikes, final, x.new_empty(0, x.shape[1]) if saved is None else saved


lif = torch.library.custom_op(
    "neuropil::lif",
    _lif,
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
    saved: Tensor | None,
    membrane: Tensor | None,
    decay: Tensor,
    threshold: Tensor,
    g_spikes: Tensor,
    g_final: Tensor | None,
    wants_decay: bool,
    wants_threshold: bool,
    shape: torch.Size,
    steps: int,
    surrogate: str,
    scale: float,
    zero: bool,
    detach: bool,
    keep: bool,
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of the input, in its shape, of the membrane if one is given, of decay and threshold if wanted.

    Tensors are as in `run_lif`; `g_final` is None where nothing follows the last membrane.
    """
    lanes, dtype = shape.numel(), x.dtype
    g_x = torch.empty_like(x, memory_format=torch.contiguous_format)
    g_membrane = None if membrane is None else x.new_empty(shape)
    g_decay = x.new_empty(lanes) if wants_decay else None
    g_threshold = x.new_empty(lanes) if wants_threshold else None
    g_x_array = _rows(g_x, shape)
    run_over(
        lif_backward,
        lanes,
        g_spikes.numel(),
        _rows(x, shape),
        array_or_none(saved, dtype, 2),
        array_or_none(membrane, dtype, 1).reshape(-1),
        array(decay).reshape(-1),
        array(threshold).reshape(-1),
        array(g_spikes).reshape(steps, lanes),
        array_or_none(g_final, dtype, 1).reshape(-1),
        KINDS[surrogate],
        g_x_array.dtype.type(scale),
        zero,
        detach,
        keep,
        g_x_array,
        array_or_none(g_membrane, dtype, 1).reshape(-1),
        array_or_none(g_decay, dtype, 1),
        array_or_none(g_threshold, dtype, 1),
        stretch=STRETCH,
    )
    return (
        g_x,
        g_membrane,
        None if g_decay is None else sum_lanes(g_decay, decay, wanted=True),
        None if g_threshold is None else sum_lanes(g_threshold, threshold, wanted=True),
    )


def _lif_backward(
    x: Tensor,
    saved: Tensor,
    membrane: Tensor,
    decay: Tensor,
    threshold: Tensor,
    g_spikes: Tensor,
    g_final: Tensor,
    *settings: Any,
) -> tuple[Tensor, ...]:
    """`run_lif_backward` with empty tensors for None, as operators need them."""
    saved_, membrane_, g_final_ = (
        tensor if tensor.numel() else None for tensor in (saved, membrane, g_final)
    )
    wants_decay, wants_threshold, *others = settings
    g_x, *found = run_lif_backward(
        x[0] if x.shape[0] == 1 else x,
        saved_,
        membrane_,
        decay,
        threshold,
        g_spikes,
        g_final_,
        wants_decay,
        wants_threshold,
        x.shape[1:],
        g_spikes.shape[0],
        *others,
    )
    return g_x.view(x.shape), *(x.new_empty(0) if gradient is None else gradient for gradient in found)


lif_backward_op = torch.library.custom_op(
    "neuropil::lif_backward",
    _lif_backward,
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
    """Gradients of all that `lif` takes; those of settings are None."""
    x, saved, membrane, decay, threshold = ctx.saved_tensors
    needs = ctx.needs_input_grad
    gradients = lif_backward_op(
        x,
        saved,
        membrane,
        decay,
        threshold,
        x.new_zeros(ctx.steps, x.shape[1]) if g_spikes is None else g_spikes,
        x.new_empty(0) if g_final is None else g_final,
        needs[2],
        needs[3],
        *ctx.settings,
    )
    kept = (gradient if needed else None for gradient, needed in zip(gradients, needs, strict=False))
    return *kept, *[None] * 7


lif.register_autograd(_backward, setup_context=_setup_context)


class LIFScan(torch.autograd.Function):
    """`run_lif` without torch's dispatcher; where its answer is `known` from a run before, only its gradient.

    `x` is `[steps, *shape]`, or of `shape` for the same input at every step; `membrane` is of `shape`, or None at
    rest.
    """

    @staticmethod
    def forward(
        ctx: Any,
        known: tuple[Tensor, Tensor] | None,
        owner: str | None,
        shape: torch.Size,
        x: Tensor,
        membrane: Tensor | None,
        decay: Tensor,
        threshold: Tensor,
        settings: Settings,
    ) -> tuple[Tensor, Tensor]:
        """Spikes and the last membrane."""
        saved = None
        if x.stride(0) != 0:  # held by a stride: copied, it would be read once per step
            x = x.contiguous()
        if known is None:
            spikes, final, saved = run_lif(x, membrane, decay, threshold, shape, *settings, owner=owner)
        else:  # the backward pass finds the membranes by a scan of its own
            spikes, final = (tensor.detach() for tensor in known)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, saved, membrane, decay, threshold)
        ctx.shape, ctx.settings = shape, settings
        return spikes, final

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, g_spikes: Tensor | None, g_final: Tensor | None) -> tuple[Any, ...]:
        """What `lif` gives."""
        x, saved, membrane, decay, threshold = ctx.saved_tensors
        (steps, _, *settings), shape, needs = ctx.settings, ctx.shape, ctx.needs_input_grad
        gradients = run_lif_backward(
            x,
            saved,
            membrane,
            decay,
            threshold,
            x.new_zeros((steps, *shape)) if g_spikes is None else g_spikes,
            g_final,
            needs[5],
            needs[6],
            shape,
            steps,
            *settings,
        )
        return None, None, None, *gradients, None


def _saved_rows(steps: int, save: bool) -> int:
    return max(0, -(-steps // SEGMENT) - 1) if save else 0


def _rows(x: Tensor, shape: torch.Size) -> Any:
    """`x [steps, *shape]` as an array `[steps, lanes]`; one row where it is of `shape`, or all rows the same memory."""
    rows = 1
    if x.dim() > len(shape):
        x = x[:1] if x.stride(0) == 0 else x
        rows = x.shape[0]
    return array(x).reshape(rows, shape.numel())
