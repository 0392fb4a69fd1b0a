"""Leaky integrate-and-fire neurons whose own constants learn with the weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from neuropil.errors import ConfigError
from neuropil.kernels.lif import lif_scan
from neuropil.nn.cell import Cell
from neuropil.nn.lif import LIFState
from neuropil.nn.surrogate import Sigmoid, Surrogate


class ParametricLIF(Cell):
    """`tau v' = -(v - rest) + resistance * x`; at `v >= threshold` a spike, and `v = reset`.

    Time is in steps and each step is exact for an input held through it: `v` keeps the share `exp(-1 / tau)`. Every
    constant can learn, for the layer or for each neuron: the time constant, the input resistance, the threshold, the
    reset and the resting membrane. Time constants and resistances stay positive (their logarithm learns).

    One scan compiled for ordinary leaky neurons does the work: measured from its reset, the membrane is theirs.

    Args:
        tau: Membrane time constant in steps, > 0; this and the next four are a number or a tensor of `features`.
        resistance: How far a constant input of 1 would drive the membrane from rest, > 0.
        threshold: Membrane at which a neuron fires.
        reset: Membrane after a spike, below the threshold.
        rest: Membrane without input.
        surrogate: Gradient of the spike.
        detach_reset: Whether the backward pass ignores the spike inside the reset.
        learn: Which constants are Parameters: none, all, or those named.
        features: Shape of one sample, for one set of constants per neuron.
        temporal_gradient: Whether the gradient flows back through time.

    Raises:
        ConfigError: A setting is out of range or unknown.
        ShapeError, StateError: Input or state do not fit.
        NonFiniteError: Input or state are NaN or infinite.

    Learned time constants: Fang et al. (2021), "Incorporating learnable membrane time constant to enhance learning of
    spiking neural networks", arXiv:2007.05785; all of a neuron's constants: "Learning internal biological neuron
    parameters and complexity-based encoding for improved spiking neural networks performance" (2025).

    >>> cell = ParametricLIF(tau=20.0, resistance=3.0, learn=True, features=8)
    >>> spikes, _ = cell(torch.ones(50, 2, 8))  # [time, batch, features]
    >>> int(spikes[:, 0, 0].sum()), [name for name, _ in cell.named_parameters()]
    (5, ['log_tau', 'log_resistance', 'threshold', 'reset', 'rest'])
    """

    def __init__(
        self,
        tau: float | Tensor = 5.0,
        resistance: float | Tensor = 1.0,
        threshold: float | Tensor = 1.0,
        reset: float | Tensor = 0.0,
        rest: float | Tensor = 0.0,
        *,
        surrogate: Surrogate = Sigmoid(4.0),  # noqa: B008  frozen
        detach_reset: bool = True,
        learn: bool | Sequence[str] = False,
        features: Sequence[int] | int | None = None,
        temporal_gradient: bool = True,
    ) -> None:
        super().__init__(
            {"tau": tau, "resistance": resistance, "threshold": threshold, "reset": reset, "rest": rest},
            positive=("tau", "resistance"),
            learn=learn,
            features=features,
            temporal_gradient=temporal_gradient,
        )
        low, high = (torch.as_tensor(value) for value in (reset, threshold))
        if not bool((low < high).all()):
            raise ConfigError(
                f"ParametricLIF.reset: got {reset}, expected less than the threshold {threshold}"
            )
        self.surrogate, self.detach_reset = surrogate, detach_reset

    def initial_state(self, x: Tensor) -> LIFState:
        """Membranes at rest for `x` of shape `[time, batch, ...features]`."""
        return LIFState(x.new_zeros(x.shape[1:]) + self.numbers(x.dtype)["rest"].detach())

    def forward(self, x: Tensor, state: LIFState | None = None) -> tuple[Tensor, LIFState]:
        """Spikes (0 or 1, in the dtype of `x`) of every step, and the state after the last."""
        state, p = self.start(x, state), self.numbers(x.dtype)
        decay = torch.exp(-1 / p["tau"])
        drive = (1 - decay) * (p["rest"] - p["reset"] + p["resistance"] * x)
        # learning may carry a threshold down to its reset: the gap of a neuron stays positive
        gap = (p["threshold"] - p["reset"]).clamp_min(1e-3)
        spikes, membrane = lif_scan(
            drive,
            state.membrane - p["reset"],
            decay,
            gap,
            self.surrogate,
            reset="zero",
            detach_reset=self.detach_reset,
            temporal_gradient=self.temporal_gradient,
        )
        return spikes, self.finish(LIFState(membrane + p["reset"]))
