"""An output layer that answers with angles."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from neuropil.errors import ConfigError

if TYPE_CHECKING:
    from jaxtyping import Float

_LEAST = 1e-12  # length of what counts as zeros


class CosineLinear(nn.Module):
    """`scale * cos(angle between x and each weight vector)`, an output layer whose classes all weigh the same.

    An ordinary layer answers loudest for classes with long weight vectors and large biases, which are those
    learned last; here neither length nor bias exists. Softmax needs the `scale`: at 1 even a perfect answer would
    be unsure.

    Args:
        in_features: inputs.
        out_features: outputs.
        scale: largest size of an output, above 0.
        learn_scale: whether the scale is a parameter.

    Gidaris, Komodakis: Dynamic Few-Shot Visual Learning without Forgetting. CVPR 2018. arXiv:1804.09458

    >>> layer = CosineLinear(3, 2, scale=10.0)
    >>> x = torch.randn(4, 3)
    >>> torch.allclose(layer(x), layer(5 * x), atol=1e-4)
    True
    """

    def __init__(
        self, in_features: int, out_features: int, *, scale: float = 10.0, learn_scale: bool = False
    ) -> None:
        super().__init__()
        if min(in_features, out_features) < 1:
            raise ConfigError(
                f"CosineLinear: {in_features} inputs and {out_features} outputs, expected at least 1"
            )
        if not scale > 0:
            raise ConfigError(f"CosineLinear.scale: got {scale}, expected more than 0")
        # No nn.Linear: its weight gradient is no outer product of error and input, as rules on synapses expect.
        self.weight = nn.Parameter(nn.Linear(in_features, out_features, bias=False).weight.detach().clone())
        self.scale: Tensor
        if learn_scale:
            self.scale = nn.Parameter(torch.tensor(float(scale)))
        else:
            self.register_buffer("scale", torch.tensor(float(scale)))

    def forward(self, x: Float[Tensor, "*batch inputs"]) -> Float[Tensor, "*batch outputs"]:
        """Outputs between `-scale` and `scale`; 0 for an input of zeros."""
        return self.scale * functional.linear(_of_length_one(x), _of_length_one(self.weight))


def _of_length_one(x: Tensor) -> Tensor:
    """Vectors along the last axis divided by their length; those of zeros, as of silent neurons, stay.

    Divided by a least length instead, they would send back gradients as large as that length is small.
    """
    length: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return x / length.masked_fill(length <= _LEAST, 1.0)
