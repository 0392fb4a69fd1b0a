"""A step that is the smaller the more a weight was used: usage and weight in one pass over memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from neuropil.errors import ShapeError
from neuropil.kernels.compiled import run_over, serves
from neuropil.kernels.suppressed_compiled import use_and_move

if TYPE_CHECKING:
    from jaxtyping import Float

_SMALL = 8192  # weights: below, torch's own operators cost less than preparing the call


@torch.no_grad()
def suppressed_step(
    weight: Float[Tensor, "*shape"],
    gradient: Float[Tensor, "*shape"],
    usage: Float[Tensor, "*shape"],
    *,
    rate: float,
    eps: float,
    bound: float = 0.0,
    decay: float = 0.0,
    scale: bool = True,
) -> None:
    """`usage <- (1 - decay) usage + |g|` and `weight <- weight + rate g / (eps + usage)`, in place.

    `g` is the gradient where its size exceeds `bound`, and 0 elsewhere; without `scale` a weight moves by `rate g`.
    Raises ShapeError when the shapes do not fit.

    >>> weight, usage = torch.zeros(2), torch.tensor([0.5, 1.5])
    >>> suppressed_step(weight, torch.tensor([1.0, -1.0]), usage, rate=-1.0, eps=0.5)
    >>> weight, usage
    (tensor([-0.5000,  0.3333]), tensor([1.5000, 2.5000]))
    """
    if not weight.shape == gradient.shape == usage.shape:
        raise ShapeError(
            f"suppressed_step: weight {list(weight.shape)}, gradient {list(gradient.shape)} and usage "
            f"{list(usage.shape)}, expected one shape"
        )
    tensors = (weight, gradient, usage)
    fits = all(tensor.is_contiguous() for tensor in tensors) and weight.numel() >= _SMALL
    if not fits or torch.compiler.is_compiling() or not serves(*tensors):
        _plain(weight, gradient, usage, rate, eps, bound, decay, scale)
        return
    flat = [tensor.detach().view(-1).numpy() for tensor in tensors]
    numbers = (flat[0].dtype.type(number) for number in (rate, eps, bound, 1 - decay))
    run_over(use_and_move, len(flat[0]), len(flat[0]), *flat, *numbers, scale)


def _plain(
    weight: Tensor,
    gradient: Tensor,
    usage: Tensor,
    rate: float,
    eps: float,
    bound: float,
    decay: float,
    scale: bool,
) -> None:
    """The same with torch's operators: the reference, and for every device, type and layout."""
    g = functional.hardshrink(gradient, bound) if bound else gradient
    usage.mul_(1 - decay).add_(g.abs())
    if scale:
        weight.addcdiv_(g, usage + eps, value=rate)
    else:
        weight.add_(g, alpha=rate)
