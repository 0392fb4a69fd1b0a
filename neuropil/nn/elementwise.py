"""Layers that act on each element by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from neuropil.errors import ConfigError
from neuropil.nn.finite import check_finite
from neuropil.nn.integrator import describe
from neuropil.nn.surrogate import Sigmoid, Surrogate

if TYPE_CHECKING:
    from jaxtyping import Float


class Scale(nn.Module):
    """`y = scale * x`, one factor per element of a sample (or one for all).

    Args:
        scale: Finite factors, a number or a tensor that broadcasts against a sample.
        learn: Make them a Parameter.

    Raises ConfigError for a factor that is not finite.

    >>> import torch
    >>> Scale(torch.tensor([1.0, 2.0]))(torch.ones(1, 2))
    tensor([[1., 2.]])
    """

    scale: Tensor

    def __init__(self, scale: float | Tensor, *, learn: bool = False) -> None:
        super().__init__()
        factors = _floats(scale)
        if not bool(factors.isfinite().all()):
            raise ConfigError(f"Scale.scale: got {scale}, expected finite numbers")
        if learn:
            self.scale = nn.Parameter(factors)
        else:
            self.register_buffer("scale", factors)

    def forward(self, x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
        """Every element times its factor."""
        return self.scale * x

    def extra_repr(self) -> str:
        """The factor, for `repr`."""
        return describe("scale", self.scale)


class Heaviside(nn.Module):
    """`y = 1[x >= threshold]` in the dtype of `x`, with a surrogate gradient; a threshold without a memory.

    Args:
        threshold: Number, or tensor that broadcasts against a sample.
        surrogate: Gradient of the step.

    Raises NonFiniteError for an input that is NaN or infinite.

    >>> import torch
    >>> Heaviside(0.5)(torch.tensor([[0.4, 0.5, 0.6]]))
    tensor([[0., 1., 1.]])
    """

    threshold: Tensor

    def __init__(
        self,
        threshold: float | Tensor = 0.0,
        *,
        surrogate: Surrogate = Sigmoid(4.0),  # noqa: B008  frozen
    ) -> None:
        super().__init__()
        self.register_buffer("threshold", _floats(threshold))
        self.surrogate = surrogate

    def forward(self, x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
        """One where an element reaches its threshold, else zero."""
        check_finite(x, "Heaviside input")
        return self.surrogate(x - self.threshold)

    def extra_repr(self) -> str:
        """Threshold and surrogate, for `repr`."""
        return f"{describe('threshold', self.threshold)}, surrogate={self.surrogate}"


def _floats(value: float | Tensor) -> Tensor:
    tensor = torch.as_tensor(value).detach().clone()
    return tensor if tensor.is_floating_point() else tensor.to(torch.get_default_dtype())
