"""A vector of leaky memories that a small network writes to: the loop over time of the expressive leaky memory neuron.

    d[t] = keep * m[t-1]
    h[t] = relu(drive[t] + read d[t])
    u[t] = 1.7159 tanh(2/3 (write h[t] + bias))
    m[t] = d[t] + gain * u[t]

`drive` is what the hidden units get from elsewhere, known for all steps beforehand: only the memories are in the loop.
Spieler, Rahaman, Martius, Schölkopf and Levina (2024), "The expressive leaky memory neuron".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from neuropil.errors import ShapeError
from neuropil.kernels.compiled import run_over, serves
from neuropil.kernels.lanes import array
from neuropil.kernels.leaky_memory_compiled import (
    HEIGHT,
    ROWS,
    SLOPE,
    memory_backward,
    memory_forward,
)

if TYPE_CHECKING:
    from jaxtyping import Float

_PARTS = (0,) * 4


def leaky_memory_scan(
    drive: Float[Tensor, "time batch units"],
    memory: Float[Tensor, "batch m"],
    read: Float[Tensor, "units m"],
    write: Float[Tensor, "m units"],
    bias: Float[Tensor, " m"],
    keep: Float[Tensor, " m"],
    gain: Float[Tensor, " m"],
) -> Float[Tensor, "time batch m"]:
    """Memories after every step. Differentiable in all arguments; raises ShapeError when they do not fit together.

    >>> one, zero = torch.ones(1, 1), torch.zeros(1)
    >>> leaky_memory_scan(torch.ones(2, 1, 1), one, one, 0 * one, zero, 0.5 + zero, 1 + zero).flatten().tolist()
    [0.5, 0.25]
    """
    units, m = read.shape if read.dim() == 2 else (-1, -1)
    shapes = [tuple(tensor.shape) for tensor in (memory, write, bias, keep, gain)]
    wanted = [(drive.shape[1], m), (m, units), (m,), (m,), (m,)] if drive.dim() == 3 else []
    if shapes != wanted or drive.shape[2] != units:
        raise ShapeError(
            f"leaky_memory_scan: drive {list(drive.shape)}, memory {list(memory.shape)}, read {list(read.shape)}, "
            f"write {list(write.shape)} do not fit; expected [time, batch, units], [batch, m], [units, m], [m, units]"
        )
    arguments = (drive, memory, read, write, bias, keep, gain)
    if drive.numel() == 0 or memory.numel() == 0 or not serves(*arguments):
        return leaky_memory_reference(*arguments)
    lane = 64 // drive.itemsize
    more_units, more = -units % lane, -m % lane
    if more_units or more:  # rows of whole registers
        drive, memory = functional.pad(drive, (0, more_units)), functional.pad(memory, (0, more))
        read = functional.pad(read, (0, more, 0, more_units))
        write = functional.pad(write, (0, more_units, 0, more))
        bias, keep, gain = (functional.pad(vector, (0, more)) for vector in (bias, keep, gain))
    memories: Tensor = leaky_memory(drive, memory, read, write, bias, keep, gain)[0]
    return memories[..., :m]


def leaky_memory_reference(
    drive: Tensor, memory: Tensor, read: Tensor, write: Tensor, bias: Tensor, keep: Tensor, gain: Tensor
) -> Tensor:
    """The equations, step by step."""
    memories = []
    for now in drive.unbind(0):
        kept = keep * memory
        hidden = torch.relu(now + functional.linear(kept, read))
        update = HEIGHT * torch.tanh(SLOPE * functional.linear(hidden, write, bias))
        memory = kept + gain * update
        memories.append(memory)
    return torch.stack(memories) if memories else drive.new_empty(0, *memory.shape)


@torch.library.custom_op(
    "neuropil::leaky_memory",
    mutates_args=(),
    schema="(Tensor drive, Tensor memory, Tensor read, Tensor write, Tensor bias, Tensor keep, Tensor gain)"
    " -> (Tensor, Tensor, Tensor)",
)
def leaky_memory(
    drive: Tensor, memory: Tensor, read: Tensor, write: Tensor, bias: Tensor, keep: Tensor, gain: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Memories, rectified hidden units and updates of every step; sizes are whole registers."""
    memories, hidden = drive.new_empty(len(drive), *memory.shape), drive.new_empty(drive.shape)
    updates = torch.empty_like(memories)
    _run(
        memory_forward,
        drive.shape,
        memory.shape[1],
        *map(array, (drive, memory, read.mT, write.mT, bias, keep, gain)),
        *(tensor.numpy() for tensor in (memories, hidden, updates)),
    )
    return memories, hidden, updates


@leaky_memory.register_fake
def _(drive: Tensor, memory: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    memories = drive.new_empty(drive.shape[0], *memory.shape)
    return memories, drive.new_empty(drive.shape), torch.empty_like(memories)


@torch.library.custom_op(
    "neuropil::leaky_memory_backward",
    mutates_args=(),
    schema="(Tensor g, Tensor hidden, Tensor updates, Tensor memories, Tensor memory, Tensor read, Tensor write, "
    "Tensor keep, Tensor gain) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def leaky_memory_backward(
    g: Tensor,
    hidden: Tensor,
    updates: Tensor,
    memories: Tensor,
    memory: Tensor,
    read: Tensor,
    write: Tensor,
    keep: Tensor,
    gain: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of drive, of updates before their squashing, of the first memory, of `keep` and of `gain`."""
    g_drive, g_squash = hidden.new_empty(hidden.shape), hidden.new_empty(updates.shape)
    g_memory = memory.new_empty(memory.shape)
    blocks = -(-len(memory) // ROWS)
    g_keep, g_gain = (memory.new_empty(blocks, memory.shape[1]) for _ in range(2))
    _run(
        memory_backward,
        hidden.shape,
        memory.shape[1],
        *map(array, (g, hidden, updates, memories, memory, read, write, keep, gain)),
        *(tensor.numpy() for tensor in (g_drive, g_squash, g_memory, g_keep, g_gain)),
    )
    return g_drive, g_squash, g_memory, g_keep.sum(0), g_gain.sum(0)


@leaky_memory_backward.register_fake
def _(
    g: Tensor,
    hidden: Tensor,
    updates: Tensor,
    memories: Tensor,
    memory: Tensor,
    read: Tensor,
    *others: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    m = memory.new_empty(memory.shape[1])
    return (
        hidden.new_empty(hidden.shape),
        updates.new_empty(updates.shape),
        memory.new_empty(memory.shape),
        m,
        m.clone(),
    )


def _run(function: Any, shape: torch.Size, m: int, *arrays: Any) -> None:
    steps, batch, units = shape
    work = steps * batch * units * m // 16  # a register at a time
    run_over(function, -(-batch // ROWS), work, *arrays, _PARTS, _PARTS[:1], grain=1)


def _setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
    _, memory, read, write, _, keep, gain = inputs
    memories, hidden, updates = output
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(hidden, updates)
    ctx.save_for_backward(hidden, updates, memories, memory, read, write, keep, gain)


def _backward(ctx: Any, g: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
    hidden, updates, memories, memory, read, write, keep, gain = ctx.saved_tensors
    if g is None:
        return (None,) * 7
    g_drive, g_squash, g_memory, g_keep, g_gain = leaky_memory_backward(
        g, hidden, updates, memories, memory, read, write, keep, gain
    )
    kept = keep * torch.cat([memory.unsqueeze(0), memories[:-1]])
    flat = g_squash.flatten(0, 1)
    g_read = g_drive.flatten(0, 1).mT @ kept.flatten(0, 1)
    return g_drive, g_memory, g_read, flat.mT @ hidden.flatten(0, 1), flat.sum(0), g_keep, g_gain


leaky_memory.register_autograd(_backward, setup_context=_setup_context)
