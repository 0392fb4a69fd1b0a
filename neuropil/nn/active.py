"""A rectified two-layer block whose silent units cost nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from neuropil.errors import ShapeError
from neuropil.kernels.active import active_block, thresholded_block

if TYPE_CHECKING:
    from jaxtyping import Float, Int


class ActiveBlock(nn.Module):
    """`y = relu(x up^T + up_bias) down + down_bias`, with a unit's outgoing weights in one row of `down`.

    Called with tokens or batches it computes what the two linear layers would; a unit whose drive does not exceed
    `threshold` is taken for silent. `sample` takes one input and the units that may be active.

    >>> import torch
    >>> up, down = nn.Linear(4, 16), nn.Linear(16, 3)
    >>> block, x = ActiveBlock(up, down), torch.randn(2, 4)
    >>> torch.allclose(block(x), down(up(x).relu()), atol=1e-6)
    True
    >>> everyone = torch.arange(16)
    >>> torch.allclose(block.sample(x[0], everyone), block(x)[0], atol=1e-6)
    True
    """

    def __init__(self, up: nn.Linear, down: nn.Linear, *, threshold: float = 0.0) -> None:
        super().__init__()
        if up.out_features != down.in_features:
            raise ShapeError(
                f"ActiveBlock: up has {up.out_features} outputs, down {down.in_features} inputs, expected the same"
            )
        self.threshold = threshold
        self.up = nn.Parameter(up.weight.detach().clone())
        self.down = nn.Parameter(down.weight.detach().mT.contiguous())
        self.up_bias = None if up.bias is None else nn.Parameter(up.bias.detach().clone())
        self.down_bias = None if down.bias is None else nn.Parameter(down.bias.detach().clone())

    def forward(self, x: Float[Tensor, "... features"]) -> Float[Tensor, "... outputs"]:
        """The block for any number of inputs."""
        y = thresholded_block(x, self.up, self.down, self.threshold, self.up_bias)
        return y if self.down_bias is None else y + self.down_bias

    def sample(
        self, x: Float[Tensor, " features"], active: Int[Tensor, " active"]
    ) -> Float[Tensor, " outputs"]:
        """The block for one input when only units `active` may be active."""
        y = active_block(x, self.up, self.down, active, self.up_bias)
        return y if self.down_bias is None else y + self.down_bias
