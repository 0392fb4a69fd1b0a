"""Readouts: from what a network does over time to one answer per sample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from neuropil.errors import ConfigError, ShapeError

if TYPE_CHECKING:
    from jaxtyping import Float


class Readout(nn.Module):
    """Base of a readout: a stateless module `[time, batch, ...] -> [batch, ...]`.

    `Sequential` hands its readout the whole sequence; subclass this to write another.
    """


class RateReadout(Readout):
    """Mean over time, `y = (1/T) sum_t x[t]`.

    >>> RateReadout()(torch.tensor([[[1.0, 0.0]], [[1.0, 1.0]]]))
    tensor([[1.0000, 0.5000]])
    """

    def forward(self, x: Float[Tensor, "time batch ..."]) -> Float[Tensor, "batch ..."]:
        """Average over time."""
        return x.mean(0)


class CountReadout(Readout):
    """Sum over time, `y = sum_t x[t]`: the number of spikes of each neuron.

    >>> CountReadout()(torch.tensor([[[1.0, 0.0]], [[1.0, 1.0]]]))
    tensor([[2., 1.]])
    """

    def forward(self, x: Float[Tensor, "time batch ..."]) -> Float[Tensor, "batch ..."]:
        """Add up over time."""
        return x.sum(0)


class WeightedRateReadout(Readout):
    """Weighted mean over time, `y = sum_t w[t] x[t] / sum_t w[t]`.

    Weights that grow with time make the rate what a leaky membrane would hold at the end; training on spike
    representation reads its network out like this (Meng et al., Training High-Performance Low-Latency
    Spiking Neural Networks by Differentiation on Spike Representation, 2022).

    `weights` holds one number per time step, with a positive sum. Raises ConfigError when they are not such
    numbers, ShapeError when the sequence has another number of steps.

    >>> WeightedRateReadout([1.0, 3.0])(torch.tensor([[[1.0, 0.0]], [[1.0, 1.0]]]))
    tensor([[1.0000, 0.7500]])
    """

    weights: Tensor

    def __init__(self, weights: Sequence[float] | Tensor) -> None:
        super().__init__()
        values = torch.as_tensor(weights, dtype=torch.get_default_dtype())
        if values.dim() != 1 or not bool(values.isfinite().all()) or float(values.sum()) <= 0:
            raise ConfigError(
                f"WeightedRateReadout.weights: got {weights}, need one finite number per time step, sum > 0"
            )
        self.register_buffer("weights", values / values.sum())

    def forward(self, x: Float[Tensor, "time batch ..."]) -> Float[Tensor, "batch ..."]:
        """Weighted average over time."""
        if x.shape[0] != self.weights.shape[0]:
            raise ShapeError(
                f"WeightedRateReadout: got {x.shape[0]} time steps (input {list(x.shape)}), "
                f"expected {self.weights.shape[0]}, one per weight"
            )
        weights = self.weights.to(x.dtype).reshape(-1, *[1] * (x.dim() - 1))
        return (weights * x).sum(0)

    def extra_repr(self) -> str:
        """Number of time steps, for printing."""
        return f"time_steps={self.weights.shape[0]}"
