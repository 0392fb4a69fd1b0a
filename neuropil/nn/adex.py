"""Adaptive exponential integrate-and-fire neurons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, get_args

import torch
from torch import Tensor

from neuropil.errors import ConfigError, nearest
from neuropil.kernels.adex import adex_scan
from neuropil.nn.cell import Numbers, SpikingCell, put
from neuropil.nn.solver import Method, advance
from neuropil.nn.surrogate import Sigmoid, Surrogate


class AdExState(NamedTuple):
    """What an AdEx neuron carries from one step to the next."""

    membrane: Tensor  # [batch, ...features], millivolts, after the reset
    adaptation: Tensor  # [batch, ...features], picoamperes


class AdEx(SpikingCell):
    """Leak, an exponential upstroke, and a current that adapts: most firing patterns of the cortex in two equations.

    `C v' = -g (v - rest) + g slope exp((v - rheobase) / slope) - w + x` and `tau w' = a (v - rest) - w`, with the
    input `x` in picoamperes; where `v >= threshold` a spike, `v = reset` and `w = w + b`. Brette and Gerstner (2005),
    "Adaptive exponential integrate-and-fire model as an effective description of neuronal activity", whose numbers are
    the defaults but for the threshold, at which the upstroke is cut: there it takes less than a step.

    Args:
        capacitance: Picofarads, > 0; this and the next nine are a number or a tensor of `features`.
        leak: Nanosiemens, > 0.
        rest: Millivolts.
        rheobase: Membrane at which the upstroke sets in, millivolts.
        slope: Sharpness of the upstroke, millivolts, > 0.
        a: Subthreshold adaptation, nanosiemens.
        b: What a spike adds to the adaptation, picoamperes.
        tau: Time in which the adaptation falls to 1/e, milliseconds, > 0.
        reset: Membrane after a spike, millivolts, below the threshold.
        threshold: Membrane that counts as a spike, millivolts.
        dt: Length of a step in milliseconds, > 0.
        method: `"euler"` (error of order 1 in `dt`; one compiled scan over time), `"heun"` (2) or `"rk4"` (4) between
            spikes; spikes are placed on steps, so that their times have an error of order 1.
        surrogate: Gradient of the spike; its scale is in millivolts.
        detach_reset: Whether the backward pass ignores the spike inside the reset.
        learn: Which numbers are Parameters: none, all, or those named.
        features: Shape of one sample, for one set of numbers per neuron.
        temporal_gradient: Whether the gradient flows back through time.

    Raises:
        ConfigError: A setting is out of range or unknown.
        ShapeError, StateError: Input or state do not fit.
        NonFiniteError: Input or state are NaN or infinite.

    >>> spikes, state = AdEx()(torch.full((1000, 1, 3), 800.0))  # [time, batch, features]: 100 ms
    >>> spikes.sum(0).tolist(), state.adaptation.shape
    ([[3.0, 3.0, 3.0]], torch.Size([1, 3]))
    """

    def __init__(
        self,
        capacitance: float | Tensor = 281.0,
        leak: float | Tensor = 30.0,
        rest: float | Tensor = -70.6,
        rheobase: float | Tensor = -50.4,
        slope: float | Tensor = 2.0,
        a: float | Tensor = 4.0,
        b: float | Tensor = 80.5,
        tau: float | Tensor = 144.0,
        reset: float | Tensor = -70.6,
        threshold: float | Tensor = -30.0,
        *,
        dt: float = 0.1,
        method: Method = "euler",
        surrogate: Surrogate = Sigmoid(1.0),  # noqa: B008  frozen
        detach_reset: bool = True,
        learn: bool | Sequence[str] = False,
        features: Sequence[int] | int | None = None,
        temporal_gradient: bool = True,
    ) -> None:
        given = {
            "capacitance": capacitance,
            "leak": leak,
            "rest": rest,
            "rheobase": rheobase,
            "slope": slope,
            "a": a,
            "b": b,
            "tau": tau,
            "reset": reset,
            "threshold": threshold,
            "dt": dt,
        }
        super().__init__(
            given,
            positive=("capacitance", "leak", "slope", "tau", "dt"),
            surrogate=surrogate,
            detach_reset=detach_reset,
            learn=learn,
            features=features,
            temporal_gradient=temporal_gradient,
        )
        if method not in get_args(Method):
            raise ConfigError(f"AdEx.method: got {method!r}{nearest(str(method), get_args(Method))}")
        self.method: Method = method

    def initial_state(self, x: Tensor) -> AdExState:
        """Membranes at rest, not adapted, for `x` of shape `[time, batch, ...features]`."""
        rest = self.numbers(x.dtype)["rest"].detach()
        return AdExState(x.new_zeros(x.shape[1:]) + rest, x.new_zeros(x.shape[1:]))

    def forward(self, x: Tensor, state: AdExState | None = None) -> tuple[Tensor, AdExState]:
        """Spikes (0 or 1, in the dtype of `x`) of every step, and the state after the last."""
        if self.method != "euler":
            return super().forward(x, state)
        state, p = self.start(x, state), self.numbers(x.dtype)
        spikes, membrane, adaptation = adex_scan(
            x,
            state.membrane,
            state.adaptation,
            p["dt"] / p["capacitance"],
            p["leak"],
            p["rest"],
            p["rheobase"],
            p["slope"],
            p["a"],
            p["b"],
            p["dt"] / p["tau"],
            p["reset"],
            p["threshold"],
            self.surrogate,
            detach_reset=self.detach_reset,
            temporal_gradient=self.temporal_gradient,
        )
        return spikes, self.finish(AdExState(membrane, adaptation))

    def free(self, x: Tensor, state: AdExState, numbers: Numbers) -> AdExState:
        """One step of the two equations."""
        p = numbers
        steepest = (p["threshold"] - p["rheobase"]) / p["slope"]  # past the threshold the spike is over

        def slope(v: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
            above = v - p["rest"]
            upstroke = p["slope"] * torch.exp(torch.minimum((v - p["rheobase"]) / p["slope"], steepest))
            return (p["leak"] * (upstroke - above) - w + x) / p["capacitance"], (p["a"] * above - w) / p[
                "tau"
            ]

        return AdExState(*advance(slope, state, p["dt"], self.method))

    def reset_by(self, spike: Tensor, state: AdExState, numbers: Numbers) -> AdExState:
        """The membrane to the reset, the adaptation up by `b`."""
        membrane = put(spike, numbers["reset"], state.membrane)
        return AdExState(membrane, state.adaptation + numbers["b"] * spike)
