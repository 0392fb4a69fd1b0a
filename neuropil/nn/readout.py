"""Readouts: from what a network does over time to one answer per sample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from neuropil.errors import ConfigError, ShapeError
from neuropil.nn.integrator import LeakyIntegrator

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
        values = torch.as_tensor(weights, dtype=torch.get_default_dtype()).detach()
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


class MembraneReadout(Readout):
    """Base of readouts from a leaky membrane that never fires, `u[t] = decay * u[t-1] + x[t]` from `u = 0`.

    Args:
        decay: Share of the membrane kept from step to step, in (0, 1]; a number or a tensor of `features`.
        learn_decay: Make the decay a Parameter, inside (0, 1).
        features: Shape of one sample, for one decay per neuron.

    Raises ConfigError for a decay out of range, NonFiniteError for an input that is NaN or infinite.
    """

    def __init__(
        self,
        decay: float | Tensor = 0.9,
        *,
        learn_decay: bool = False,
        features: Sequence[int] | int | None = None,
    ) -> None:
        super().__init__()
        self.integrator = LeakyIntegrator(decay, learn_decay=learn_decay, features=features)

    def membrane(self, x: Float[Tensor, "time batch ..."]) -> Float[Tensor, "time batch ..."]:
        """Membrane after every step."""
        if len(x) == 0:
            raise ShapeError(
                f"{type(self).__name__}: got no time steps (input {list(x.shape)}), expected one or more"
            )
        membranes: Tensor = self.integrator(x)[0]
        return membranes


class LastMembrane(MembraneReadout):
    """The membrane after the last step, `y = u[T]`; settings as for `MembraneReadout`.

    >>> LastMembrane(decay=0.5)(torch.tensor([[[1.0, 0.0]], [[1.0, 1.0]]]))
    tensor([[1.5000, 1.0000]])
    """

    def forward(self, x: Float[Tensor, "time batch ..."]) -> Float[Tensor, "batch ..."]:
        """What is left of the input at the end."""
        return self.membrane(x)[-1]


class MeanMembrane(MembraneReadout):
    """The mean of the membrane over time, `y = (1/T) sum_t u[t]`; settings as for `MembraneReadout`.

    >>> MeanMembrane(decay=0.5)(torch.tensor([[[1.0, 0.0]], [[1.0, 1.0]]]))
    tensor([[1.2500, 0.5000]])
    """

    def forward(self, x: Float[Tensor, "time batch ..."]) -> Float[Tensor, "batch ..."]:
        """Average membrane."""
        return self.membrane(x).mean(0)


class MaxMembrane(MembraneReadout):
    """The highest membrane over time, `y = max_t u[t]`; settings as for `MembraneReadout`.

    Where several steps are equally high, they share the gradient.

    >>> MaxMembrane(decay=0.5)(torch.tensor([[[1.0, 0.0]], [[-1.0, 1.0]]]))
    tensor([[1., 1.]])
    """

    def forward(self, x: Float[Tensor, "time batch ..."]) -> Float[Tensor, "batch ..."]:
        """Highest membrane."""
        return self.membrane(x).amax(0)
