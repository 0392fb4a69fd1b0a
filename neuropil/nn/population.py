"""Populations of excitatory and inhibitory neurons, and neurons that are not all alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from neuropil.errors import ConfigError, ShapeError
from neuropil.nn.dale import Dale, Rectifier

if TYPE_CHECKING:
    from jaxtyping import Float, Int


class Parts(NamedTuple):
    """A population's activity by kind."""

    excitatory: Tensor  # [..., excitatory]
    inhibitory: Tensor  # [..., inhibitory]


@dataclass(frozen=True)
class Population:
    """So many excitatory neurons, then so many inhibitory ones.

    Raises ConfigError for less than none of a kind or none at all.

    >>> neurons = Population(excitatory=3, inhibitory=1)
    >>> neurons.units, neurons.signs.tolist()
    (4, [1.0, 1.0, 1.0, -1.0])
    >>> neurons.split(torch.arange(4)).inhibitory.tolist()
    [3]
    """

    excitatory: int = 80
    inhibitory: int = 20

    def __post_init__(self) -> None:
        if min(self.excitatory, self.inhibitory) < 0 or self.units == 0:
            raise ConfigError(
                f"Population: got {self.excitatory} excitatory and {self.inhibitory} inhibitory neurons, "
                "expected at least one neuron"
            )

    @property
    def units(self) -> int:
        """Number of neurons."""
        return self.excitatory + self.inhibitory

    @property
    def signs(self) -> Float[Tensor, " units"]:
        """+1 for each excitatory neuron, then -1 for each inhibitory one."""
        return torch.cat([torch.ones(self.excitatory), -torch.ones(self.inhibitory)])

    def dale(self, rectifier: Rectifier = "relu") -> Dale:
        """Dale's law for weights that these neurons send, as a parametrization."""
        return Dale(self.signs, rectifier)

    def split(self, x: Float[Tensor, "... units"]) -> Parts:
        """Activity of the excitatory and of the inhibitory neurons. Raises ShapeError for another number of neurons."""
        if x.dim() == 0 or x.shape[-1] != self.units:
            raise ShapeError(f"Population: x has shape {list(x.shape)}, expected [..., {self.units}]")
        return Parts(x[..., : self.excitatory], x[..., self.excitatory :])

    def connections(
        self,
        density: float = 0.1,
        strength: float = 1.0,
        *,
        balance: float = 1.0,
        spread: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "units units"]:
        """Random weights `[to, from]` that obey Dale's law, without a connection of a neuron to itself.

        Each connection exists with probability `density` and has the mean size `strength / sqrt(density * units)`,
        inhibitory ones `balance * excitatory / inhibitory` times that: with `balance=1` the two cancel on average at
        equal rates, above 1 inhibition wins. `spread` is the standard deviation of the logarithm of the sizes. Van
        Vreeswijk and Sompolinsky (1996), "Chaos in neuronal networks with balanced excitatory and inhibitory activity".
        Raises ConfigError for a density outside (0, 1] or a negative number.
        """
        if not 0 < density <= 1:
            raise ConfigError(f"Population.connections: density is {density}, expected a number in (0, 1]")
        for name, value in (("strength", strength), ("balance", balance), ("spread", spread)):
            if not (value >= 0 and math.isfinite(value)):
                raise ConfigError(f"Population.connections: {name} is {value}, expected a finite number >= 0")
        shape = (self.units, self.units)
        exists = torch.rand(shape, generator=generator) < density
        exists &= ~torch.eye(self.units, dtype=torch.bool)
        sizes = torch.exp(spread * torch.randn(shape, generator=generator) - spread**2 / 2)
        inhibition = balance * self.excitatory / self.inhibitory if self.inhibitory else 0.0
        column = torch.cat([torch.ones(self.excitatory), torch.full((self.inhibitory,), -inhibition)])
        return exists * sizes * column * (strength / math.sqrt(density * self.units))

    def delays(
        self, shortest: int = 1, longest: int = 1, *, generator: torch.Generator | None = None
    ) -> Int[Tensor, "units units"]:
        """Delays in steps between `shortest` and `longest`, drawn evenly. Raises ConfigError for an empty range."""
        if not 0 <= shortest <= longest:
            raise ConfigError(
                f"Population.delays: got {shortest} to {longest}, expected 0 <= shortest <= longest"
            )
        return torch.randint(shortest, longest + 1, (self.units, self.units), generator=generator)


def gamma_spread(
    mean: float,
    variation: float,
    features: Sequence[int] | int,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Numbers for neurons that are not all alike: positive, of a gamma distribution, `features` of them.

    `variation` is the standard deviation over the mean; 0 makes all alike. Perez-Nieves et al. (2021), "Neural
    heterogeneity promotes robust learning", drew time constants so. Raises ConfigError unless both are finite, the mean
    above zero and the variation not below.

    >>> taus = gamma_spread(20.0, 0.5, 10_000, torch.Generator().manual_seed(0))
    >>> round(taus.mean().item()), round(taus.std().item()), taus.min().item() > 0
    (20, 10, True)
    """
    if not (mean > 0 and math.isfinite(mean) and variation >= 0 and math.isfinite(variation)):
        raise ConfigError(
            f"gamma_spread: mean {mean}, variation {variation}; expected finite numbers, mean > 0, variation >= 0"
        )
    shape = (features,) if isinstance(features, int) else tuple(features)
    if variation == 0:
        return torch.full(shape, mean)
    concentration = torch.full(shape, variation**-2, dtype=torch.float64)
    drawn = torch._standard_gamma(concentration, generator=generator) * (mean * variation**2)
    return drawn.clamp(min=1e-3 * mean).to(torch.get_default_dtype())
