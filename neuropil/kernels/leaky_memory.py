"""A vector of leaky memories that a small network writes to: the loop over time of the expressive leaky memory neuron.

    d[t] = keep * m[t-1]
    h[t] = relu(look [x[t], d[t]] + look_bias)
    u[t] = 1.7159 tanh(2/3 (write h[t] + write_bias))
    m[t] = d[t] + gain * u[t]

`look` reads the input's features first, then the memories. One pass over a sample's steps does all of it, and another
one all gradients: the sums of products over time, which are long, meet their factors while these are in the cache.
Spieler, Rahaman, Martius, Schölkopf and Levina (2024), "The expressive leaky memory neuron".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from neuropil.errors import ShapeError
from neuropil.kernels.compiled import run_over, serves, traced
from neuropil.kernels.lanes import array
from neuropil.kernels.leaky_memory_compiled import (
    CHUNK,
    HEIGHT,
    ROWS,
    SLOPE,
    memory_backward,
    memory_forward,
)

if TYPE_CHECKING:
    from jaxtyping import Float

_PARTS = (0,) * 4
_GROUPS = 8  # of samples, at most, whose gradients of the weights are summed apart


def leaky_memory_scan(
    x: Float[Tensor, "time batch inputs"],
    memory: Float[Tensor, "batch m"],
    look: Float[Tensor, "units inputs+m"],
    look_bias: Float[Tensor, " units"],
    write: Float[Tensor, "m units"],
    write_bias: Float[Tensor, " m"],
    keep: Float[Tensor, " m"],
    gain: Float[Tensor, " m"],
) -> Float[Tensor, "time batch m"]:
    """Memories after every step. Differentiable in all arguments; raises ShapeError when they do not fit together.

    >>> one, zero = torch.ones(1, 1), torch.zeros(1)
    >>> x, look = torch.ones(2, 1, 1), torch.ones(1, 2)
    >>> leaky_memory_scan(x, one, look, zero, 0 * one, zero, 0.5 + zero, 1 + zero).flatten().tolist()
    [0.5, 0.25]
    """
    m, units = write.shape if write.dim() == 2 else (-1, -1)
    shapes = [tuple(tensor.shape) for tensor in (memory, look, look_bias, write_bias, keep, gain)]
    _, batch, inputs = x.shape if x.dim() == 3 else (-1, -1, -1)
    if shapes != [(batch, m), (units, inputs + m), (units,), (m,), (m,), (m,)] or x.dim() != 3:
        raise ShapeError(
            f"leaky_memory_scan: x {list(x.shape)}, memory {list(memory.shape)}, look {list(look.shape)}, "
            f"write {list(write.shape)} do not fit; expected [time, batch, inputs], [batch, m], "
            "[units, inputs + m], [m, units]"
        )
    arguments = (x, memory, look, look_bias, write, write_bias, keep, gain)
    if x.numel() == 0 or memory.numel() == 0 or units == 0 or not serves(*arguments):
        return leaky_memory_reference(*arguments)
    run = leaky_memory if traced(*arguments) else _LeakyMemory.apply
    memories: Tensor = run(*arguments)[0]  # type: ignore[no-untyped-call]
    return memories


def leaky_memory_reference(
    x: Tensor,
    memory: Tensor,
    look: Tensor,
    look_bias: Tensor,
    write: Tensor,
    write_bias: Tensor,
    keep: Tensor,
    gain: Tensor,
) -> Tensor:
    """The equations, step by step."""
    memories = []
    for now in x.unbind(0):
        kept = keep * memory
        hidden = torch.relu(functional.linear(torch.cat([now, kept], dim=1), look, look_bias))
        update = HEIGHT * torch.tanh(SLOPE * functional.linear(hidden, write, write_bias))
        memory = kept + gain * update
        memories.append(memory)
    return torch.stack(memories) if memories else x.new_empty(0, *memory.shape)


def _sizes(look: Tensor, write: Tensor) -> tuple[int, int, int]:
    """Inputs in fours, memories and units in whole registers."""
    m, units = write.shape
    lane = 64 // write.itemsize
    return look.shape[1] - m + (m - look.shape[1]) % ROWS, m + -m % lane, units + -units % lane


def _pad(weight: Tensor, *sizes: int) -> Any:
    """Zeros behind the numbers, as many as it takes to reach the sizes."""
    missing = [size - own for size, own in zip(sizes, weight.shape, strict=True)]
    if any(missing):
        weight = functional.pad(weight, [more for last in reversed(missing) for more in (0, last)])
    return array(weight)


def run_leaky_memory(
    x: Tensor,
    memory: Tensor,
    look: Tensor,
    look_bias: Tensor,
    write: Tensor,
    write_bias: Tensor,
    keep: Tensor,
    gain: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Memories of every step; rectified hidden units and updates as the kernels store them."""
    memories, hidden, updates = _empty(x, memory, look, write)
    inputs, wide, units = _sizes(look, write)
    own = x.shape[2]
    from_x, from_memory = look[:, :own].mT, look[:, own:].mT
    whole = x.new_zeros(inputs + wide, units)
    whole[:own, : len(look)], whole[inputs : inputs + len(keep), : len(look)] = from_x, from_memory
    _run(
        memory_forward,
        len(hidden),
        hidden.numel() * len(keep),
        *map(array, (x, memory, whole)),
        _pad(look_bias, units),
        _pad(write.mT, units, wide),
        *(_pad(vector, wide) for vector in (write_bias, keep, gain)),
        *(tensor.numpy() for tensor in (memories, hidden, updates)),
    )
    return memories, hidden, updates


leaky_memory = torch.library.custom_op(
    "neuropil::leaky_memory",
    run_leaky_memory,
    mutates_args=(),
    schema="(Tensor x, Tensor memory, Tensor look, Tensor look_bias, Tensor write, Tensor write_bias, Tensor keep, "
    "Tensor gain) -> (Tensor, Tensor, Tensor)",
)


def _empty(x: Tensor, memory: Tensor, look: Tensor, write: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Room for the memories, and for what the backward pass reads, in the order in which it reads it."""
    _, wide, units = _sizes(look, write)
    blocks = -(-x.shape[1] // ROWS)
    return (
        x.new_empty(x.shape[0], *memory.shape),
        x.new_empty(blocks, x.shape[0], ROWS, units),
        x.new_empty(blocks, x.shape[0], ROWS, wide),
    )


@leaky_memory.register_fake
def _(
    x: Tensor, memory: Tensor, look: Tensor, look_bias: Tensor, write: Tensor, *_: Any
) -> tuple[Tensor, Tensor, Tensor]:
    return _empty(x, memory, look, write)


def run_leaky_memory_backward(
    g: Tensor,
    x: Tensor,
    hidden: Tensor,
    updates: Tensor,
    memories: Tensor,
    memory: Tensor,
    look: Tensor,
    write: Tensor,
    keep: Tensor,
    gain: Tensor,
    wants_x: bool,
) -> tuple[Tensor, ...]:
    """Gradients of all arguments of the forward pass; empty that of `x` where it is not wanted."""
    inputs, wide, units = _sizes(look, write)
    own, blocks = x.shape[2], len(hidden)
    padded = own + -own % (64 // x.itemsize)
    share = -(-blocks // _GROUPS)
    groups = -(-blocks // share)
    g_x, g_memory = x.new_empty(x.shape if wants_x else (0, 0, 0)), torch.empty_like(memory)
    sums = [
        x.new_empty(groups, *shape) for shape in ((inputs + wide, units), (units,), (wide, units), (3, wide))
    ]
    widths = (inputs + wide, wide, units, padded)
    scratch = [x.new_empty(groups, ROWS * CHUNK, width) for width in widths]
    _run(
        memory_backward,
        groups,
        2 * hidden.numel() * len(keep),
        share,
        *map(array, (g, x, hidden, updates, memories, memory)),
        _pad(look[:, :own], units, padded),
        _pad(look[:, own:], units, wide),
        _pad(write, wide, units),
        *(_pad(vector, wide) for vector in (keep, gain)),
        tuple(tensor.numpy() for tensor in scratch),
        *(tensor.numpy() for tensor in (g_x, g_memory, *sums)),
    )
    g_look, g_base, g_write, g_vectors = (tensor.sum(0) for tensor in sums)
    m, all_units = write.shape
    g_look = torch.cat([g_look[:own], g_look[inputs : inputs + m]])[:, :all_units].mT.contiguous()
    g_keep, g_gain, g_bias = (vector.clone() for vector in g_vectors[:, :m])
    return (
        g_x, g_memory, g_look, g_base[:all_units].clone(), g_write[:m, :all_units].clone(), g_bias, g_keep, g_gain,
    )  # fmt: skip


leaky_memory_backward = torch.library.custom_op(
    "neuropil::leaky_memory_backward",
    run_leaky_memory_backward,
    mutates_args=(),
    schema="(Tensor g, Tensor x, Tensor hidden, Tensor updates, Tensor memories, Tensor memory, Tensor look, "
    "Tensor write, Tensor keep, Tensor gain, bool wants_x) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
)


@leaky_memory_backward.register_fake
def _(
    g: Tensor,
    x: Tensor,
    hidden: Tensor,
    updates: Tensor,
    memories: Tensor,
    memory: Tensor,
    look: Tensor,
    write: Tensor,
    keep: Tensor,
    gain: Tensor,
    wants_x: bool,
) -> tuple[Tensor, ...]:
    m, units = write.shape
    shapes = (
        (x.shape if wants_x else (0, 0, 0)),
        memory.shape,
        look.shape,
        (units,),
        (m, units),
        (m,),
        (m,),
        (m,),
    )
    return tuple(x.new_empty(shape) for shape in shapes)


def _run(function: Any, lanes: int, products: int, *arrays: Any) -> None:
    run_over(function, lanes, products // 16, *arrays, _PARTS, _PARTS[:1], grain=1)  # a register at a time


def _setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
    x, memory, look, _, write, _, keep, gain = inputs
    memories, hidden, updates = output
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(hidden, updates)
    ctx.save_for_backward(x, hidden, updates, memories, memory, look, write, keep, gain)


def _backward(ctx: Any, g: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
    wanted = ctx.needs_input_grad
    if g is None:
        return (None,) * len(wanted)
    compute: Any = leaky_memory_backward if traced(g) else run_leaky_memory_backward
    found = compute(g, *ctx.saved_tensors, wanted[0])
    return tuple(gradient if wants else None for gradient, wants in zip(found, wanted, strict=True))


leaky_memory.register_autograd(_backward, setup_context=_setup_context)


class _LeakyMemory(torch.autograd.Function):
    """The same without torch's dispatcher."""

    @staticmethod
    def forward(ctx: Any, *arguments: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Memories, hidden units and updates."""
        found = run_leaky_memory(*arguments)
        _setup_context(ctx, arguments, found)
        return found

    @staticmethod
    def backward(ctx: Any, g: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
        """Gradients of all arguments."""
        return _backward(ctx, g)
