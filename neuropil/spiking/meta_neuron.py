"""Second-order neurons with learned dynamics and probabilistic firing.

The neuron's four meta-parameters and its escape noise are reconstructed from the literature on meta-dynamic neurons;
the paper's abstract does not give them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from neuropil.errors import ConfigError
from neuropil.kernels.izhikevich import izhikevich_scan
from neuropil.kernels.lif import fused_name
from neuropil.nn.cell import Numbers, SpikingCell, put
from neuropil.nn.surrogate import Sigmoid, Surrogate

# v -> 25 v - 75 turns `v' = v^2 - v - u + x` into `V' = 0.04 V^2 + 5 V + 140 - w + y`, with w = 25 u - 75 b, b the
# sensitivity of the recovery, and y = 25 x + 10 - 75 b.
SCALE, SHIFT, CONSTANT = 25.0, -75.0, 10.0


class MetaNeuronState(NamedTuple):
    """What a meta neuron carries from one step to the next."""

    membrane: Tensor  # [batch, ...features], after the reset
    recovery: Tensor  # [batch, ...features]


class MetaNeuron(SpikingCell):
    """`v' = v^2 - v - u + x`, `u' = pull * v - relax * u`; at `v >= threshold` a spike, `v = reset`, `u += jump`.

    A neuron of second order whose dynamics, from integrator to resonator and from regular to bursting, are four
    numbers that learn with the weights. It is Izhikevich's neuron counted in units of 25 mV from -75 mV, and runs on
    that neuron's compiled scan. Steps are forward Euler; the square cannot run away, for every step that passes the
    threshold ends in a reset.

    With a `temperature` firing is a draw, with probability `sigmoid((v - threshold) / temperature)`, and the gradient
    is that of the probability (straight through the draw). Such a neuron draws in evaluation too.

    Args:
        pull: How much the membrane drives the recovery (theta_v); like the next four a number or a tensor of
            `features`.
        relax: Rate at which the recovery forgets (theta_u), > 0.
        reset: Membrane after a spike (theta_r), below the threshold.
        jump: What a spike adds to the recovery (theta_s).
        threshold: Membrane at which a neuron fires.
        dt: Length of a step, in (0, 1].
        temperature: Width of probabilistic firing, 0 for a sharp threshold.
        surrogate: Gradient of the spike at a sharp threshold.
        detach_reset: Whether the backward pass ignores the spike inside the reset.
        learn: Which numbers are Parameters: none, all, or those named.
        features: Shape of one sample, for one set of numbers per neuron.
        temporal_gradient: Whether the gradient flows back through time.
        generator: Of the draws.

    Raises:
        ConfigError: A setting is out of range or unknown.
        ShapeError, StateError: Input or state do not fit.
        NonFiniteError: Input or state are NaN or infinite.

    "Learning internal biological neuron parameters and complexity-based encoding for improved spiking neural networks
    performance" (2025); the neuron: Cheng et al. (2022), "Meta neurons improve spiking neural networks for efficient
    spatio-temporal learning", arXiv:2210.06140.

    >>> cell = MetaNeuron(learn=True, features=4)
    >>> spikes, state = cell(torch.ones(40, 2, 4))  # [time, batch, features]
    >>> spikes.sum(0)[0].tolist(), state.recovery.shape
    ([9.0, 9.0, 9.0, 9.0], torch.Size([2, 4]))
    """

    def __init__(
        self,
        pull: float | Tensor = 0.02,
        relax: float | Tensor = 0.1,
        reset: float | Tensor = 0.0,
        jump: float | Tensor = 0.08,
        threshold: float | Tensor = 1.0,
        *,
        dt: float = 0.5,
        temperature: float = 0.0,
        surrogate: Surrogate = Sigmoid(4.0),  # noqa: B008  frozen
        detach_reset: bool = True,
        learn: bool | Sequence[str] = False,
        features: Sequence[int] | int | None = None,
        temporal_gradient: bool = True,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(
            {"pull": pull, "relax": relax, "reset": reset, "jump": jump, "threshold": threshold, "dt": dt},
            positive=("relax", "dt"),
            surrogate=surrogate,
            detach_reset=detach_reset,
            learn=learn,
            features=features,
            temporal_gradient=temporal_gradient,
        )
        if dt > 1:
            raise ConfigError(f"MetaNeuron.dt: got {dt}, expected a step in (0, 1]")
        if not 0 <= temperature < float("inf"):
            raise ConfigError(f"MetaNeuron.temperature: got {temperature}, expected a finite number >= 0")
        self.temperature, self.generator = temperature, generator

    def initial_state(self, x: Tensor) -> MetaNeuronState:
        """Membrane and recovery at rest, zero, for `x` of shape `[time, batch, ...features]`."""
        return MetaNeuronState(x.new_zeros(x.shape[1:]), x.new_zeros(x.shape[1:]))

    def forward(self, x: Tensor, state: MetaNeuronState | None = None) -> tuple[Tensor, MetaNeuronState]:
        """Spikes (0 or 1, in the dtype of `x`) of every step, and the state after the last."""
        if self.temperature or fused_name(self.surrogate) != "sigmoid":
            found: tuple[Tensor, MetaNeuronState] = super().forward(x, state)
            return found
        state, p = self.start(x, state), self.numbers(x.dtype)
        sensitivity = p["pull"] / p["relax"]
        spikes, membrane, recovery = izhikevich_scan(
            SCALE * x + (CONSTANT + SHIFT * sensitivity),
            SCALE * state.membrane + SHIFT,
            SCALE * state.recovery + SHIFT * sensitivity,
            p["relax"],
            sensitivity,
            SCALE * p["reset"] + SHIFT,
            SCALE * p["jump"],
            SCALE * p["threshold"] + SHIFT,
            p["dt"],
            Sigmoid(self.surrogate.scale / SCALE),
            detach_reset=self.detach_reset,
            temporal_gradient=self.temporal_gradient,
        )
        last = MetaNeuronState((membrane - SHIFT) / SCALE, (recovery - SHIFT * sensitivity) / SCALE)
        return spikes, self.finish(last)

    def free(self, x: Tensor, state: MetaNeuronState, numbers: Numbers) -> MetaNeuronState:
        """One step of the equations."""
        p, (v, u) = numbers, state
        return MetaNeuronState(
            v + p["dt"] * (v * v - v - u + x), u + p["dt"] * (p["pull"] * v - p["relax"] * u)
        )

    def reset_by(self, spike: Tensor, state: MetaNeuronState, numbers: Numbers) -> MetaNeuronState:
        """The membrane to the reset, the recovery up."""
        return MetaNeuronState(
            put(spike, numbers["reset"], state.membrane), state.recovery + numbers["jump"] * spike
        )

    def step(self, x: Tensor, state: MetaNeuronState, numbers: Numbers) -> tuple[Tensor, MetaNeuronState]:
        """Spikes and state after one step."""
        if not self.temperature:
            found: tuple[Tensor, MetaNeuronState] = super().step(x, state, numbers)
            return found
        state = self.free(x, state, numbers)
        spike = drawn(state.membrane - numbers["threshold"], self.temperature, self.generator)
        return spike, self.reset_by(spike.detach() if self.detach_reset else spike, state, numbers)


def drawn(distance: Tensor, temperature: float, generator: torch.Generator | None = None) -> Tensor:
    """Spikes drawn with probability `sigmoid(distance / temperature)`, with the gradient of that probability.

    >>> drawn(torch.tensor([-9.0, 9.0]), 0.1).tolist()
    [0.0, 1.0]
    """
    chance = torch.sigmoid(distance / temperature)
    spike = torch.bernoulli(chance.detach(), generator=generator)
    return spike + (chance - chance.detach())
