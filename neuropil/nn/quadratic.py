"""Quadratic integrate-and-fire neurons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, get_args

import torch
from torch import Tensor

from neuropil.errors import ConfigError, nearest
from neuropil.kernels.quadratic import quadratic_scan
from neuropil.nn.cell import Numbers, SpikingCell, put
from neuropil.nn.solver import Method, advance
from neuropil.nn.surrogate import Sigmoid, Surrogate


class QIFState(NamedTuple):
    """What a quadratic neuron carries from one step to the next."""

    membrane: Tensor  # [batch, ...features], after the reset


class QIF(SpikingCell):
    """`tau v' = sharpness (v - rest) (v - critical) + x`: the simplest neuron that makes its spikes itself.

    Without input it falls back to `rest` from anywhere below `critical` and fires from above it; a constant input of
    more than `sharpness (critical - rest)**2 / 4` makes it fire regularly, from a rate of zero on. Where
    `v >= threshold` a spike, and `v = reset`. Ermentrout and Kopell (1986), "Parabolic bursting in an excitable
    system"; Latham et al. (2000).

    Args:
        tau: Milliseconds, > 0; this and the next five are a number or a tensor of `features`.
        rest: Stable membrane.
        critical: Membrane from which it fires by itself.
        sharpness: Of the parabola, > 0.
        reset: Membrane after a spike, below the threshold.
        threshold: Peak of the spike.
        dt: Length of a step in milliseconds, > 0.
        method: `"euler"` (error of order 1 in `dt`; one compiled scan over time), `"heun"` (2) or `"rk4"` (4) between
            spikes; spikes are placed on steps, so that their times have an error of order 1.
        surrogate: Gradient of the spike.
        detach_reset: Whether the backward pass ignores the spike inside the reset.
        learn: Which numbers are Parameters: none, all, or those named.
        features: Shape of one sample, for one set of numbers per neuron.
        temporal_gradient: Whether the gradient flows back through time.

    Raises:
        ConfigError: A setting is out of range or unknown.
        ShapeError, StateError: Input or state do not fit.
        NonFiniteError: Input or state are NaN or infinite.

    >>> spikes, _ = QIF()(torch.tensor([0.2, 0.3, 1.0]).expand(500, 1, 3))  # fires from an input of 1/4 on
    >>> spikes.sum(0).tolist()
    [[0.0, 0.0, 1.0]]
    """

    def __init__(
        self,
        tau: float | Tensor = 10.0,
        rest: float | Tensor = 0.0,
        critical: float | Tensor = 1.0,
        sharpness: float | Tensor = 1.0,
        reset: float | Tensor = -1.0,
        threshold: float | Tensor = 5.0,
        *,
        dt: float = 0.1,
        method: Method = "euler",
        surrogate: Surrogate = Sigmoid(4.0),  # noqa: B008  frozen
        detach_reset: bool = True,
        learn: bool | Sequence[str] = False,
        features: Sequence[int] | int | None = None,
        temporal_gradient: bool = True,
    ) -> None:
        given = {
            "tau": tau,
            "rest": rest,
            "critical": critical,
            "sharpness": sharpness,
            "reset": reset,
            "threshold": threshold,
            "dt": dt,
        }
        super().__init__(
            given,
            positive=("tau", "sharpness", "dt"),
            surrogate=surrogate,
            detach_reset=detach_reset,
            learn=learn,
            features=features,
            temporal_gradient=temporal_gradient,
        )
        if method not in get_args(Method):
            raise ConfigError(f"QIF.method: got {method!r}{nearest(str(method), get_args(Method))}")
        self.method: Method = method

    def initial_state(self, x: Tensor) -> QIFState:
        """Membranes at rest for `x` of shape `[time, batch, ...features]`."""
        return QIFState(x.new_zeros(x.shape[1:]) + self.numbers(x.dtype)["rest"].detach())

    def forward(self, x: Tensor, state: QIFState | None = None) -> tuple[Tensor, QIFState]:
        """Spikes (0 or 1, in the dtype of `x`) of every step, and the state after the last."""
        if self.method != "euler":
            return super().forward(x, state)
        state, p = self.start(x, state), self.numbers(x.dtype)
        spikes, membrane = quadratic_scan(
            x,
            state.membrane,
            p["dt"] / p["tau"],
            p["rest"],
            p["critical"],
            p["sharpness"],
            p["reset"],
            p["threshold"],
            self.surrogate,
            detach_reset=self.detach_reset,
            temporal_gradient=self.temporal_gradient,
        )
        return spikes, self.finish(QIFState(membrane))

    def free(self, x: Tensor, state: QIFState, numbers: Numbers) -> QIFState:
        """One step of the equation."""
        p = numbers

        def slope(v: Tensor) -> tuple[Tensor]:
            v = torch.minimum(v, p["threshold"])  # past the peak the spike is over
            return ((p["sharpness"] * (v - p["rest"]) * (v - p["critical"]) + x) / p["tau"],)

        return QIFState(*advance(slope, state, p["dt"], self.method))

    def reset_by(self, spike: Tensor, state: QIFState, numbers: Numbers) -> QIFState:
        """The membrane to the reset."""
        return QIFState(put(spike, numbers["reset"], state.membrane))
