"""Layers whose errors travel back along other weights than activity travels forward.

The brain has no known way to send errors back through the very synapses that brought the activity. These
layers compute `y = W x + b` and the exact weight gradient `grad W = g x^T`, but hand down `grad x = B^T g`:

- feedback alignment: `B` is random and fixed (Lillicrap, Cownden, Tweed and Akerman 2016, Random synaptic
  feedback weights support error backpropagation for deep learning);
- mirrored feedback: `B` starts at random and gets the gradient of `W` (Kolen and Pollack 1994);
- sign symmetry: `B = c sign(W)`, only the signs are shared (Liao, Leibo and Poggio 2016, How Important Is
  Weight Symmetry in Backpropagation?; Xiao, Chen, Liao and Poggio 2019).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from neuropil.nn.synapse import synaptic_conv2d, synaptic_linear


class FeedbackLinear(nn.Linear):
    """`nn.Linear` that sends errors back through a fixed random matrix instead of its weight.

    `feedback`, a buffer of the weight's shape `[out_features, in_features]`, is drawn from `generator` as
    `nn.Linear` draws its weight, uniformly from +-1/sqrt(in_features), and never learns.

    >>> layer = FeedbackLinear(4, 3, generator=torch.Generator().manual_seed(0))
    >>> x = torch.ones(1, 4, requires_grad=True)
    >>> torch.equal(torch.autograd.grad(layer(x).sum(), x)[0], layer.feedback.sum(0, keepdim=True))
    True
    """

    feedback: Tensor

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(in_features, out_features, bias, device=device, dtype=dtype)
        self.register_buffer("feedback", _random_like(self.weight, generator))

    def forward(self, input: Tensor) -> Tensor:
        """`y = W x + b` for `[..., in_features]`."""
        return synaptic_linear(input, self.weight, self.bias, presynaptic=input, feedback=self.feedback)


class MirroredFeedbackLinear(nn.Linear):
    """`nn.Linear` that sends errors back through random weights which learn as its own do.

    `feedback`, a Parameter of the weight's shape, is drawn like that of `FeedbackLinear` and gets the weight's
    gradient. With weight decay the two forget their beginnings and meet: Kolen and Pollack (1994), "Backpropagation
    without weight transport"; Akrout et al. (2019), "Deep learning without weight transport".

    >>> layer = MirroredFeedbackLinear(4, 3, generator=torch.Generator().manual_seed(0))
    >>> layer(torch.ones(1, 4)).sum().backward()
    >>> torch.equal(layer.feedback.grad, layer.weight.grad)
    True
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(in_features, out_features, bias, device=device, dtype=dtype)
        self.feedback = nn.Parameter(_random_like(self.weight, generator))

    def forward(self, input: Tensor) -> Tensor:
        """`y = W x + b` for `[..., in_features]`."""
        y = synaptic_linear(input, self.weight, self.bias, presynaptic=input, feedback=self.feedback.detach())
        mirrored = nn.functional.linear(input.detach(), self.feedback)
        return y + (mirrored - mirrored.detach())


class FeedbackConv2d(nn.Conv2d):
    """`nn.Conv2d` that sends errors back through fixed random kernels instead of its own.

    `feedback` is a buffer of the weight's shape, drawn from `generator` as `nn.Conv2d` draws its weight.
    Takes every setting of `nn.Conv2d`.

    >>> layer = FeedbackConv2d(1, 2, 3, padding=1, generator=torch.Generator().manual_seed(0))
    >>> layer(torch.zeros(1, 1, 5, 5)).shape
    torch.Size([1, 2, 5, 5])
    """

    feedback: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        *args: Any,
        generator: torch.Generator | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, *args, **settings)
        self.register_buffer("feedback", _random_like(self.weight, generator))

    def forward(self, input: Tensor) -> Tensor:
        """The convolution of `[batch, channels, height, width]`."""
        return synaptic_conv2d(self, input, presynaptic=input, feedback=self.feedback)


class SignSymmetricLinear(nn.Linear):
    """`nn.Linear` that sends errors back through `sign(W) / sqrt(in_features)`.

    >>> layer = SignSymmetricLinear(4, 3)
    >>> x = torch.ones(1, 4, requires_grad=True)
    >>> expected = layer.weight.sign().sum(0, keepdim=True) / 2
    >>> torch.equal(torch.autograd.grad(layer(x).sum(), x)[0], expected)
    True
    """

    def forward(self, input: Tensor) -> Tensor:
        """`y = W x + b` for `[..., in_features]`."""
        feedback = self.weight.detach().sign() / math.sqrt(self.in_features)
        return synaptic_linear(input, self.weight, self.bias, presynaptic=input, feedback=feedback)


class SignSymmetricConv2d(nn.Conv2d):
    """`nn.Conv2d` that sends errors back through `sign(W) * sqrt(2 / (kernel_area * out_channels))`.

    >>> layer = SignSymmetricConv2d(1, 2, 1)
    >>> x = torch.ones(1, 1, 1, 1, requires_grad=True)
    >>> torch.equal(torch.autograd.grad(layer(x).sum(), x)[0], layer.weight.sign().sum(0, keepdim=True))
    True
    """

    def forward(self, input: Tensor) -> Tensor:
        """The convolution of `[batch, channels, height, width]`."""
        scale = math.sqrt(2 / (math.prod(self.kernel_size) * self.out_channels))
        return synaptic_conv2d(self, input, presynaptic=input, feedback=self.weight.detach().sign() * scale)


def _random_like(weight: Tensor, generator: torch.Generator | None) -> Tensor:
    """A tensor drawn as torch draws the weights of linear layers and convolutions."""
    return nn.init.kaiming_uniform_(torch.empty_like(weight.detach()), a=math.sqrt(5), generator=generator)
