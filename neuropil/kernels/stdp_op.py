"""The compiled plasticity run as a torch operator; learning rules have no gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuropil.errors import DataError
from neuropil.kernels.compiled import run_over
from neuropil.kernels.lanes import array
from neuropil.kernels.stdp_compiled import TILE, find_events, plastic_run


@torch.library.custom_op(
    "neuropil::plastic",
    mutates_args=(),
    schema="(Tensor pre, Tensor post, Tensor reward, Tensor traces, Tensor slow_traces, Tensor weight, "
    "Tensor eligibility, Tensor fast, Tensor slow, Tensor membrane, Tensor decay, Tensor threshold, "
    "float[] depression, float[] terms, bool multiplicative, bool driven, bool zero)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def plastic(
    pre: Tensor,
    post: Tensor,
    reward: Tensor,
    traces: Tensor,
    slow_traces: Tensor,
    weight: Tensor,
    eligibility: Tensor,
    fast: Tensor,
    slow: Tensor,
    membrane: Tensor,
    decay: Tensor,
    threshold: Tensor,
    depression: Sequence[float],
    terms: Sequence[float],
    multiplicative: bool,
    driven: bool,
    zero: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Spikes `[time, outputs]`, weight, eligibility, fast and slow traces of the outputs, membrane after the run.

    `post` has no rows if `driven`, `reward` none without reward, `slow_traces` none for rules of pairs.
    """
    steps, outputs = len(pre), len(weight)
    offsets, inputs = _events(array(pre))
    strengths = np.full(len(inputs), depression[0], array(pre).dtype)
    if len(slow_traces) > 0:
        step_of = np.repeat(np.arange(steps), np.diff(offsets.astype(np.int64)))
        strengths += strengths.dtype.type(depression[1]) * array(slow_traces)[step_of, inputs]
    if not any(depression):
        strengths = strengths[:0]
    spikes = pre.new_empty(steps, outputs) if driven else post.clone(memory_format=torch.contiguous_format)
    results = [
        tensor.clone(memory_format=torch.contiguous_format)
        for tensor in (weight, eligibility, fast, slow, membrane)
    ]
    run_over(
        plastic_run,
        outputs,
        len(inputs) * outputs + spikes.numel(),
        offsets,
        inputs,
        strengths,
        array(traces),
        array(reward),
        np.array(terms, strengths.dtype),
        multiplicative,
        driven,
        array(decay),
        array(threshold),
        zero,
        *(tensor.numpy() for tensor in (*results, spikes)),
        grain=TILE,
    )
    return spikes, results[0], results[1], results[2], results[3], results[4]


@plastic.register_fake
def _(
    pre: Tensor,
    post: Tensor,
    reward: Tensor,
    traces: Tensor,
    slow_traces: Tensor,
    weight: Tensor,
    *rest: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    eligibility, fast, slow, membrane, *_ = (
        part.new_empty(part.shape) for part in rest if isinstance(part, Tensor)
    )
    spikes = pre.new_empty(pre.shape[0], weight.shape[0])
    return spikes, weight.new_empty(weight.shape), eligibility, fast, slow, membrane


def _events(spikes: Any) -> tuple[Any, Any]:
    """Offsets of each step and the inputs that spiked."""
    offsets = np.empty(len(spikes) + 1, np.uint64)
    wrong = find_events(spikes, offsets, np.empty(0, np.uint32))
    if wrong:
        raise DataError(f"plasticity: {wrong} of {spikes.size} input values are neither 0 nor 1")
    inputs = np.empty(int(offsets[-1]) + 1, np.uint32)
    find_events(spikes, offsets, inputs)
    return offsets, inputs[:-1]
