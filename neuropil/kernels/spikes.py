"""Products with activity in which few neurons take part: only the weights of those that do are read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from neuropil.errors import ShapeError
from neuropil.kernels.compiled import run_over, serves
from neuropil.kernels.lanes import array
from neuropil.kernels.spikes_compiled import CHUNK, add_rows, find_and_add, find_events

if TYPE_CHECKING:
    from jaxtyping import Float

_DENSE_FROM = 0.3  # share of active neurons from which a dense product is faster
_DENSE_FROM_ALONE = 0.7  # for one sample, where a dense product has to read all weights for little work
_AT_ONCE = 1 << 18  # spikes: every thread had better look at so many than wait for others to do so
_USUAL = 16  # of so many neurons one is active, where it has to be guessed
_PARTS = (0,) * 4
_COLUMNS = 1024  # that one thread takes at a time: rows long enough to stream


def spike_product(
    spikes: Float[Tensor, "... neurons"], weight: Float[Tensor, "neurons outputs"]
) -> Float[Tensor, "... outputs"]:
    """`spikes @ weight`, at the cost of the entries of `spikes` that are not zero, whatever their values.

    `weight` holds one contiguous row for each neuron that may spike: the transpose of `nn.Linear`'s. With
    another layout, or where many neurons are active (it counts them), the product is dense.
    The gradient of `weight` costs what the spikes cost, that of `spikes` is dense, as every neuron gets one. A
    neuron that is silent does not hand on what its weights hold, be it infinite. Raises ShapeError when the
    arguments do not fit together.

    >>> spike_product(torch.tensor([[0.0, 1.0, 1.0]]), torch.tensor([[1.0], [2.0], [4.0]]))
    tensor([[6.]])
    """
    if weight.dim() != 2 or spikes.dim() < 1 or spikes.shape[-1] != weight.shape[0]:
        raise ShapeError(
            f"spike_product: spikes {list(spikes.shape)} do not fit weight {list(weight.shape)}, "
            "expected [..., neurons] and [neurons, outputs]"
        )
    if spikes.dtype != weight.dtype:
        raise ShapeError(
            f"spike_product: spikes are {spikes.dtype}, weight is {weight.dtype}, expected one type"
        )
    if not serves(spikes, weight) or not weight.is_contiguous() or 0 in (spikes.numel(), weight.numel()):
        return spikes @ weight
    flat = spikes.dim() == 2  # left as they are: for one sample a call's price counts
    rows = spikes if flat else spikes.reshape(-1, spikes.shape[-1])
    registered = torch.is_grad_enabled() or torch.compiler.is_compiling()
    product: Tensor = (
        spike_rows(rows, weight) if registered else _spike_rows(rows, weight)
    )  # saves half the call
    return product if flat else product.view(*spikes.shape[:-1], weight.shape[1])


@torch.library.custom_op(
    "neuropil::spikes", mutates_args=(), schema="(Tensor spikes, Tensor weight) -> Tensor"
)
def spike_rows(spikes: Tensor, weight: Tensor) -> Tensor:
    """The product for `[samples, neurons]` and a contiguous `weight`."""
    return _spike_rows(spikes, weight)


def _spike_rows(spikes: Tensor, weight: Tensor) -> Tensor:
    if spikes.numel() <= _AT_ONCE:
        return _at_once(spikes.contiguous(), weight)
    events = events_of(spikes)
    if events.active > spikes.numel() * _DENSE_FROM:
        return spikes @ weight
    return add_events(events, weight)


def _at_once(spikes: Tensor, weight: Tensor) -> Tensor:
    """The product for few contiguous spikes: one call, as Python that sums have driven out of the caches is slow."""
    samples, (neurons, outputs) = len(spikes), weight.shape
    alone = samples == 1
    most = int(samples * neurons * (_DENSE_FROM_ALONE if alone else _DENSE_FROM))
    out = weight.new_empty(samples, outputs)
    active = np.empty(1, np.float32 if weight.dtype is torch.float32 else np.float64)
    run_over(
        find_and_add,
        outputs,
        samples * neurons * outputs // _USUAL,
        spikes.data_ptr(),
        weight.data_ptr(),
        out.data_ptr(),
        (samples, neurons, outputs),
        neurons if alone else CHUNK,
        _COLUMNS,
        most,
        active,
        _PARTS,
        _PARTS[:1],
        grain=-(-outputs // torch.get_num_threads() // 64) * 64,
    )
    return spikes @ weight if active[0] > most else out


def _columns(outputs: int) -> int:
    """How many columns a thread takes at a time."""
    return max(64, min(_COLUMNS, -(-outputs // torch.get_num_threads() // 64) * 64))


class Events(NamedTuple):
    """Active neurons of `spikes [samples, neurons]`, sample by sample, and their values (see `find_events`)."""

    active: int
    ends: Any
    neurons: Any
    worth: Any


def events_of(spikes: Tensor, size: int = CHUNK) -> Events:
    """Find the entries of `spikes` that are not zero; where chunks of `size` neurons end is noted."""
    samples, count = spikes.shape
    values = array(spikes)
    chunks = -(-count // size)
    ends = np.empty((samples, 1 + chunks), np.int64)
    neurons, worth = np.empty(values.size, np.int32), np.empty(values.size, values.dtype)
    run_over(find_events, samples, values.size, values, ends, neurons, worth, size, _PARTS, grain=1)
    return Events(int((ends[:, -1] - ends[:, 0]).sum()), ends, neurons, worth)


def add_events(events: Events, weight: Tensor) -> Tensor:
    """Sums `[samples, outputs]` of rows of a contiguous `weight [neurons, outputs]`, times what spikes are worth."""
    samples, outputs = len(events.ends), weight.shape[1]
    out = weight.new_empty(samples, outputs)
    run_over(
        add_rows,
        outputs,
        (events.active + samples)
        * outputs
        // 4,  # an addition takes a fraction of what a thread's start is weighed by
        events.ends,
        events.neurons,
        events.worth,
        array(weight),
        out.numpy(),
        _PARTS,
        _PARTS[:1],
        grain=_columns(outputs),
    )
    return out


@spike_rows.register_fake
def _(spikes: Tensor, weight: Tensor) -> Tensor:
    return weight.new_empty(spikes.shape[0], weight.shape[1])


def _setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, Tensor | None]:
    spikes, weight = ctx.saved_tensors
    wants_spikes, wants_weight = ctx.needs_input_grad
    g_weight = spike_rows(spikes.mT, g.contiguous()) if wants_weight else None
    return g @ weight.mT if wants_spikes else None, g_weight


spike_rows.register_autograd(_backward, setup_context=_setup_context)
