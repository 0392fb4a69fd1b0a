"""Leaky neurons driven by conductances."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from neuropil.nn.cell import Numbers, put
from neuropil.nn.compartments import Compartmental
from neuropil.nn.surrogate import Sigmoid, Surrogate


class ConductanceState(NamedTuple):
    """What a neuron with conductances carries from one step to the next."""

    membrane: Tensor  # [batch, ...features], millivolts, after the reset
    excitation: Tensor  # [batch, ...features], nanosiemens
    inhibition: Tensor  # [batch, ...features], nanosiemens


class ConductanceLIF(Compartmental):
    """`C v' = leak (rest - v) + e (E_e - v) + i (E_i - v)`: synapses that pull the membrane towards a reversal.

    Input is `[time, batch, 2, ...features]`: what arrives at the excitatory and at the inhibitory synapses, in
    nanosiemens; below zero counts as nothing, so that it may come from `nn.Linear` and `nn.Unflatten(1, (2, n))`. It is
    added at the start of a step; then the membrane relaxes on the exact exponential towards the balance of the
    conductances and they decay. So the error is of first order in `dt`, and no input and no step drives the membrane
    beyond its reversals (forward Euler does, from `dt (leak + e + i) > C` on). Where `v >= threshold` a spike, and
    `v = reset`. The same neuron as in `neuropil.kernels.liquid`. Vogels and Abbott (2005).

    Args:
        capacitance: Picofarads, > 0; this and the next eight are a number or a tensor of `features`.
        leak: Nanosiemens, > 0.
        rest: Millivolts.
        excitatory_reversal: Millivolts.
        inhibitory_reversal: Millivolts.
        excitatory_time: Milliseconds in which excitation falls to 1/e, > 0.
        inhibitory_time: Milliseconds, > 0.
        reset: Membrane after a spike, millivolts, below the threshold.
        threshold: Membrane at which a neuron fires, millivolts.
        dt: Length of a step in milliseconds, > 0.
        surrogate: Gradient of the spike; its scale is in millivolts.
        detach_reset: Whether the backward pass ignores the spike inside the reset.
        learn: Which numbers are Parameters: none, all, or those named.
        features: Shape of one sample, for one set of numbers per neuron.
        temporal_gradient: Whether the gradient flows back through time.

    Raises:
        ConfigError: A setting is out of range or unknown.
        ShapeError, StateError: Input or state do not fit.
        NonFiniteError: Input or state are NaN or infinite.

    >>> x = torch.zeros(20, 1, 2, 2)  # [time, batch, synapse, features]
    >>> x[0, :, 0], x[0, :, 1, 1] = 15.0, 60.0  # excitation, which in the second neuron inhibition shunts
    >>> ConductanceLIF()(x)[0].sum(0).tolist()
    [[1.0, 0.0]]
    """

    compartments = 2

    def __init__(
        self,
        capacitance: float | Tensor = 200.0,
        leak: float | Tensor = 10.0,
        rest: float | Tensor = -60.0,
        excitatory_reversal: float | Tensor = 0.0,
        inhibitory_reversal: float | Tensor = -80.0,
        excitatory_time: float | Tensor = 5.0,
        inhibitory_time: float | Tensor = 10.0,
        reset: float | Tensor = -60.0,
        threshold: float | Tensor = -50.0,
        *,
        dt: float = 1.0,
        surrogate: Surrogate = Sigmoid(0.5),  # noqa: B008  frozen
        detach_reset: bool = True,
        learn: bool | Sequence[str] = False,
        features: Sequence[int] | int | None = None,
        temporal_gradient: bool = True,
    ) -> None:
        given = {
            "capacitance": capacitance,
            "leak": leak,
            "rest": rest,
            "excitatory_reversal": excitatory_reversal,
            "inhibitory_reversal": inhibitory_reversal,
            "excitatory_time": excitatory_time,
            "inhibitory_time": inhibitory_time,
            "reset": reset,
            "threshold": threshold,
            "dt": dt,
        }
        super().__init__(
            given,
            positive=("capacitance", "leak", "excitatory_time", "inhibitory_time", "dt"),
            surrogate=surrogate,
            detach_reset=detach_reset,
            learn=learn,
            features=features,
            temporal_gradient=temporal_gradient,
        )

    def initial_state(self, x: Tensor) -> ConductanceState:
        """Membranes at rest, no conductance, for `x` of shape `[time, batch, 2, ...features]`."""
        zero = x.new_zeros(x.shape[1:2] + x.shape[3:])
        return ConductanceState(zero + self.numbers(x.dtype)["rest"].detach(), zero, zero)

    def numbers(self, dtype: torch.dtype | None = None) -> Numbers:
        """The numbers, and what a step leaves of excitation and inhibition, `keep_e` and `keep_i`."""
        p = super().numbers(dtype)
        return p | {
            "keep_e": torch.exp(-p["dt"] / p["excitatory_time"]),
            "keep_i": torch.exp(-p["dt"] / p["inhibitory_time"]),
        }

    def free(self, x: Tensor, state: ConductanceState, numbers: Numbers) -> Any:
        """One step of membrane and conductances."""
        p, came = numbers, torch.relu(x)
        e, i = state.excitation + came[:, 0], state.inhibition + came[:, 1]
        total = p["leak"] + e + i
        balance = (
            p["leak"] * p["rest"] + e * p["excitatory_reversal"] + i * p["inhibitory_reversal"]
        ) / total
        decay = torch.exp(-p["dt"] * total / p["capacitance"])
        membrane = balance + (state.membrane - balance) * decay
        return ConductanceState(membrane, e * p["keep_e"], i * p["keep_i"])

    def reset_by(self, spike: Tensor, state: ConductanceState, numbers: Numbers) -> ConductanceState:
        """The membrane to the reset; conductances stay."""
        return state._replace(membrane=put(spike, numbers["reset"], state.membrane))
