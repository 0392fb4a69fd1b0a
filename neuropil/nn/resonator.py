"""Resonate-and-fire neurons: a membrane that rings, and answers to rhythm."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from neuropil.kernels.resonator import resonator_scan
from neuropil.nn.cell import SpikingCell
from neuropil.nn.surrogate import Sigmoid, Surrogate


class ResonateAndFireState(NamedTuple):
    """What a resonator carries from one step to the next."""

    current: Tensor  # [batch, ...features], real part of the oscillation
    membrane: Tensor  # [batch, ...features], imaginary part, after the reset


class ResonateAndFire(SpikingCell):
    """A damped oscillation `z' = (-1 / tau + 2 pi i frequency) z + x`, with a spike where `Im z >= threshold`.

    Inputs are impulses at the start of a step, added to the real part, the current; the imaginary part is the membrane.
    Two of them a period apart add up, half a period apart they cancel. The step is exact at any length. A spike sets
    the current to zero and the membrane to `reset`. Izhikevich (2001), "Resonate-and-fire neurons", who resets to the
    threshold itself (`reset=threshold` there; here less than it, zero by default).

    Args:
        frequency: Cycles per second (with `dt` in milliseconds), a number or a tensor of `features`.
        tau: Time in which the oscillation falls to 1/e, milliseconds, > 0.
        reset: Membrane after a spike, below the threshold.
        threshold: Membrane at which a neuron fires.
        dt: Length of a step in milliseconds, > 0.
        surrogate: Gradient of the spike.
        detach_reset: Whether the backward pass ignores the spike inside the reset.
        learn: Which numbers are Parameters: none, all, or those named.
        features: Shape of one sample, for one set of numbers per neuron.
        temporal_gradient: Whether the gradient flows back through time.

    Raises:
        ConfigError: A setting is out of range or unknown.
        ShapeError, StateError: Input or state do not fit.
        NonFiniteError: Input or state are NaN or infinite.

    >>> x = torch.zeros(60, 1, 2)
    >>> x[0], x[25, :, 0], x[12, :, 1] = 0.8, 0.8, 0.8  # a second pulse after one period, and after half of one
    >>> ResonateAndFire(frequency=40.0)(x)[0].sum(0).tolist()
    [[1.0, 0.0]]
    """

    def __init__(
        self,
        frequency: float | Tensor = 40.0,
        tau: float | Tensor = 50.0,
        reset: float | Tensor = 0.0,
        threshold: float | Tensor = 1.0,
        *,
        dt: float = 1.0,
        surrogate: Surrogate = Sigmoid(4.0),  # noqa: B008  frozen
        detach_reset: bool = True,
        learn: bool | Sequence[str] = False,
        features: Sequence[int] | int | None = None,
        temporal_gradient: bool = True,
    ) -> None:
        super().__init__(
            {"frequency": frequency, "tau": tau, "reset": reset, "threshold": threshold, "dt": dt},
            positive=("frequency", "tau", "dt"),
            surrogate=surrogate,
            detach_reset=detach_reset,
            learn=learn,
            features=features,
            temporal_gradient=temporal_gradient,
        )

    def initial_state(self, x: Tensor) -> ResonateAndFireState:
        """No oscillation, for `x` of shape `[time, batch, ...features]`."""
        return ResonateAndFireState(x.new_zeros(x.shape[1:]), x.new_zeros(x.shape[1:]))

    def forward(
        self, x: Tensor, state: ResonateAndFireState | None = None
    ) -> tuple[Tensor, ResonateAndFireState]:
        """Spikes (0 or 1, in the dtype of `x`) of every step, and the state after the last."""
        state, p = self.start(x, state), self.numbers(x.dtype)
        angle, shrinks = 2 * math.pi * p["frequency"] * p["dt"] / 1000, torch.exp(-p["dt"] / p["tau"])
        spikes, current, membrane = resonator_scan(
            x,
            state.current,
            state.membrane,
            shrinks * torch.cos(angle),
            shrinks * torch.sin(angle),
            p["reset"],
            p["threshold"],
            self.surrogate,
            detach_reset=self.detach_reset,
            temporal_gradient=self.temporal_gradient,
        )
        return spikes, self.finish(ResonateAndFireState(current, membrane))
