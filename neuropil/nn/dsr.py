"""Differentiation on spike representation: a spiking neuron trained through its weighted firing rate."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from neuropil.errors import ConfigError
from neuropil.kernels.lif import lif_scan
from neuropil.nn.integrator import check_finite, check_input, describe
from neuropil.nn.stateful import Stateful
from neuropil.nn.surrogate import StraightThrough

if TYPE_CHECKING:
    from jaxtyping import Float


class DSRState(NamedTuple):
    """What a DSR neuron carries from one step to the next."""

    membrane: Tensor  # [batch, ...features], after the reset


class DSR(Stateful):
    """Leaky neurons whose gradient is that of their weighted firing rate, not of their single spikes.

    Forward, with `b = exp(-dt / tau)`: `u = b * v + (1 - b) * x`, a spike of area `threshold` where
    `u >= fire_at * threshold`, `v = u - threshold * spike`, output `threshold * spike / dt`. Weighted over time
    by `w[t] = b**(T - t) / sum` the output is `clamp((1 - b) / dt * rate_in, 0, threshold / dt)` up to the
    charge left in the membrane, and backward this function is differentiated: the gradient of a rate is the sum
    of the gradients of its steps, and a step of the input gets the share `w[t]` of it. Meng et al. (2022),
    "Training high-performance low-latency spiking neural networks by differentiation on spike representation".

    A call is one representation: the gradient stays inside it and the carried state has none.

    Args:
        tau: Time constant of the membrane, > 0, in the unit of `dt`.
        dt: Length of a step, > 0.
        threshold: Area of a spike, > 0; the largest output is `threshold / dt`.
        fire_at: Share of the threshold at which a neuron fires, in (0, 1].
        learn_threshold: Make the threshold a Parameter.
        floor: Smallest threshold; the gradient still reaches a Parameter below it.
        threshold_gradient_scale: Factor on the gradient of the threshold, which sums over all neurons and is
            `1 / dt` for each saturated one; `dt ** 2` unless given.

    Raises:
        ConfigError: A setting is out of range.
        ShapeError, StateError: Input or state do not fit.
        NonFiniteError: The membrane has become NaN or infinite.

    >>> import torch
    >>> dsr = DSR()
    >>> x = torch.full((20, 1, 1), 2.0, requires_grad=True)  # [time, batch, features]
    >>> rate = torch.tensordot(dsr.weights(20), dsr(x)[0], 1)
    >>> rate.sum().backward()
    >>> round(rate.item(), 1), round(x.grad.sum().item(), 3)
    (2.1, 0.975)
    """

    threshold: Tensor

    def __init__(
        self,
        tau: float = 1.0,
        dt: float = 0.05,
        *,
        threshold: float = 0.3,
        fire_at: float = 0.3,
        learn_threshold: bool = True,
        floor: float = 0.0005,
        threshold_gradient_scale: float | None = None,
    ) -> None:
        for name, value in (("tau", tau), ("dt", dt), ("threshold", threshold), ("floor", floor)):
            if not (value > 0 and math.isfinite(value)):
                raise ConfigError(f"DSR.{name}: got {value}, expected a finite number > 0")
        if not 0 < fire_at <= 1:
            raise ConfigError(f"DSR.fire_at: got {fire_at}, expected a share in (0, 1]")
        super().__init__()
        self.tau, self.dt, self.fire_at, self.floor = tau, dt, fire_at, floor
        self.threshold_gradient_scale = (
            dt**2 if threshold_gradient_scale is None else threshold_gradient_scale
        )
        if learn_threshold:
            self.threshold = nn.Parameter(torch.tensor(threshold))
        else:
            self.register_buffer("threshold", torch.tensor(threshold))

    @property
    def decay(self) -> float:
        """Share of the membrane kept from one step to the next, `exp(-dt / tau)`."""
        return math.exp(-self.dt / self.tau)

    def weights(self, time_steps: int, like: Tensor | None = None) -> Float[Tensor, " time"]:
        """Weight of each step in the weighted rate, `b**(T - t)` for `t = 1 ... T`, summing to 1.

        >>> [round(weight, 3) for weight in DSR(tau=1.0, dt=0.5).weights(3).tolist()]
        [0.186, 0.307, 0.506]
        """
        if time_steps < 1:
            raise ConfigError(f"DSR.weights: time_steps is {time_steps}, expected at least 1")
        like = self.threshold if like is None else like
        age = torch.arange(time_steps - 1, -1, -1, dtype=like.dtype, device=like.device)
        weights = torch.exp(age * (-self.dt / self.tau))
        return weights / weights.sum()

    def initial_state(self, x: Tensor) -> DSRState:
        """A membrane of zeros for `x` of shape `[time, batch, ...features]`."""
        return DSRState(x.new_zeros(x.shape[1:]))

    def forward(
        self, x: Float[Tensor, "time batch ..."], state: DSRState | None = None
    ) -> tuple[Float[Tensor, "time batch ..."], DSRState]:
        """Spikes of height `threshold / dt` at every step, and the state after the last."""
        check_input(self, x)
        if state is None:
            state = self.initial_state(x)
        self.check_state(state, x)
        threshold = self._trained_threshold().to(x.dtype)
        with torch.no_grad():
            spikes, membrane = self._fire(x, state.membrane, threshold)
        check_finite(self, membrane)
        if len(x) == 0:
            return spikes, DSRState(membrane)
        rate_in = torch.tensordot(self.weights(len(x), like=x), x, 1)
        gain = (1 - self.decay) / self.dt
        rate_out = torch.minimum(torch.relu(gain * rate_in), threshold / self.dt)
        # The difference is zero: the spikes are given out, the rate's gradient goes back.
        return spikes * (threshold.detach() / self.dt) + (rate_out - rate_out.detach()), DSRState(membrane)

    def _fire(self, x: Tensor, membrane: Tensor, threshold: Tensor) -> tuple[Tensor, Tensor]:
        # Firing at a share of the threshold is firing at the threshold with a membrane lifted by the rest.
        lift = (1 - self.fire_at) * threshold
        spikes, lifted = lif_scan(
            (1 - self.decay) * (x + lift),
            membrane + lift,
            x.new_tensor(self.decay),
            threshold,
            StraightThrough(),
        )
        return spikes, lifted - lift

    def _trained_threshold(self) -> Tensor:
        """The threshold, at least `floor`, with its gradient scaled."""
        fixed = self.threshold.detach()
        return fixed.clamp(min=self.floor) + self.threshold_gradient_scale * (self.threshold - fixed)

    def extra_repr(self) -> str:
        """Settings that differ between neurons, for `repr`."""
        return (
            f"tau={self.tau}, dt={self.dt}, {describe('threshold', self.threshold)}, fire_at={self.fire_at}"
        )
