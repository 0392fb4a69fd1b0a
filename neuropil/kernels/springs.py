"""The pull of springs on weights, added to a gradient in one pass over memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from neuropil.errors import ShapeError
from neuropil.kernels.compiled import run_over, serves
from neuropil.kernels.springs_compiled import add_pull

if TYPE_CHECKING:
    from jaxtyping import Float

_SMALL = 8192  # weights: below, torch's own operators cost less than preparing the call


def with_pull(
    gradient: Float[Tensor, "*shape"],
    weight: Float[Tensor, "*shape"],
    anchor: Float[Tensor, "*shape"],
    stiffness: Float[Tensor, "*#shape"],
    strength: float,
) -> Float[Tensor, "*shape"]:
    """`gradient + strength * stiffness * (weight - anchor)`, a new tensor.

    With hundreds of thousands of weights a training step is bound by memory, and so is this: four arrays are read and
    one is written, where separate operators pass over them three times. The stiffness may be one number for all.
    Raises ShapeError when the shapes do not fit.

    >>> with_pull(torch.zeros(2), torch.tensor([3.0, 1.0]), torch.ones(2), torch.tensor([0.5, 2.0]), strength=10.0)
    tensor([10.,  0.])
    """
    if not gradient.shape == weight.shape == anchor.shape or stiffness.shape not in (weight.shape, ()):
        raise ShapeError(
            f"with_pull: gradient {list(gradient.shape)}, weight {list(weight.shape)}, anchor {list(anchor.shape)} "
            f"and stiffness {list(stiffness.shape)}, expected one shape"
        )
    tensors = (gradient, weight.detach(), anchor, stiffness)
    plain = weight.numel() < _SMALL or stiffness.shape != weight.shape or torch.compiler.is_compiling()
    if plain or not serves(*tensors) or not all(tensor.is_contiguous() for tensor in tensors):
        return torch.addcmul(gradient, stiffness, weight.detach() - anchor, value=strength)
    total = torch.empty_like(gradient)
    *read, written = (tensor.view(-1).numpy() for tensor in (*tensors, total))
    run_over(add_pull, len(written), len(written), *read, written.dtype.type(strength), written)
    return total
