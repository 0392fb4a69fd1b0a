"""The compiled reservoir runs as torch operators; they have no gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuropil.kernels.compiled import run_over
from neuropil.kernels.lanes import array
from neuropil.kernels.memory import in_large_pages
from neuropil.kernels.reservoir_compiled import leaky_run, leaky_shared, spiking_run
from neuropil.kernels.turns import CAN_WAIT, new_turns

_UNIT = 8  # connections that take as long as what else a unit does in a step
_WORTH_SHARING = 6000  # connections of a step, for each thread, from which waiting for each other is worth it
_CONNECTIONS = "Tensor offsets, Tensor indices, Tensor values, Tensor input_weight, Tensor? bias"


@torch.library.custom_op(
    "neuropil::leaky_reservoir",
    mutates_args=(),
    schema=f"(Tensor x, Tensor state, {_CONNECTIONS}, Tensor leak) -> Tensor",
)
def leaky_reservoir(
    x: Tensor,
    state: Tensor,
    offsets: Tensor,
    indices: Tensor,
    values: Tensor,
    input_weight: Tensor,
    bias: Tensor | None,
    leak: Tensor,
) -> Tensor:
    """States `[time, batch, units]`; the connections are compressed rows."""
    states = in_large_pages(x.new_empty(x.shape[0], *state.shape))
    arguments = _shared(x, state, offsets, indices, values, input_weight, bias)
    arguments += array(leak), states.numpy()
    threads = _threads_of_a_step(states.shape[1], states.shape[2], len(values))
    if threads <= states.shape[1]:
        _run(leaky_run, states, values, *arguments)
    else:
        bounds = _chunks(arguments[4], threads)
        run_over(leaky_shared, threads, threads << 30, *arguments, bounds, new_turns(threads), grain=1)
    return states


def _threads_of_a_step(batch: int, units: int, values: int) -> int:
    """How many threads gain by sharing each step, if there are more than samples."""
    if not CAN_WAIT:
        return 1
    return min(torch.get_num_threads(), batch * (values + _UNIT * units) // _WORTH_SHARING)


def _chunks(offsets: Any, chunks: int) -> Any:
    """Bounds of chunks of units that are about the same work, whole cache lines of states each."""
    work = offsets.astype(np.int64) + _UNIT * np.arange(len(offsets))
    cuts = np.searchsorted(work, work[-1] * np.arange(1, chunks) // chunks)
    return np.concatenate([[0], cuts // 16 * 16, [len(offsets) - 1]])


@leaky_reservoir.register_fake
def _(x: Tensor, state: Tensor, *_: Any) -> Tensor:
    return x.new_empty(x.shape[0], *state.shape)


@torch.library.custom_op(
    "neuropil::spiking_reservoir",
    mutates_args=(),
    schema=f"(Tensor x, Tensor membrane, Tensor spikes, {_CONNECTIONS}, Tensor decay, Tensor threshold, "
    "bool zero) -> (Tensor, Tensor)",
)
def spiking_reservoir(
    x: Tensor,
    membrane: Tensor,
    spikes: Tensor,
    offsets: Tensor,
    indices: Tensor,
    values: Tensor,
    input_weight: Tensor,
    bias: Tensor | None,
    decay: Tensor,
    threshold: Tensor,
    zero: bool,
) -> tuple[Tensor, Tensor]:
    """Spikes `[time, batch, units]` and the last membrane; the connections are compressed columns."""
    run = in_large_pages(x.new_empty(x.shape[0], *membrane.shape))
    last = membrane.clone(memory_format=torch.contiguous_format)
    x_array, last_array, *arguments = _shared(x, last, offsets, indices, values, input_weight, bias)
    parameters = array(decay), array(threshold), zero, run.numpy()
    _run(spiking_run, run, values, x_array, last_array, array(spikes), *arguments, *parameters)
    return run, last


@spiking_reservoir.register_fake
def _(x: Tensor, membrane: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape[0], *membrane.shape), membrane.new_empty(membrane.shape)


def _shared(
    x: Tensor,
    state: Tensor,
    offsets: Tensor,
    indices: Tensor,
    values: Tensor,
    input_weight: Tensor,
    bias: Tensor | None,
) -> tuple[Any, ...]:
    """What both kinds of run take, as arrays."""
    return (
        array(x),
        array(state),
        array(input_weight.mT),
        array(input_weight.new_zeros(len(input_weight)) if bias is None else bias),
        array(offsets.long()).view(np.uint64),
        array(indices.int()).view(np.uint32),
        array(values),
    )


def _run(kernel: Any, run: Tensor, values: Tensor, *args: Any) -> None:
    """Samples are independent: each is one piece of work for a thread."""
    steps, batch, _ = run.shape
    run_over(kernel, batch, steps * batch * max(1, values.numel()), *args, grain=1)
