"""A neuron with a dendrite."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from neuropil.nn.cell import Numbers, put
from neuropil.nn.compartments import Compartmental
from neuropil.nn.surrogate import Sigmoid, Surrogate


class TwoCompartmentState(NamedTuple):
    """What a neuron with a dendrite carries from one step to the next."""

    membrane: Tensor  # [batch, ...features], of the soma, after the reset
    dendrite: Tensor  # [batch, ...features], membrane of the dendrite


class TwoCompartment(Compartmental):
    """A soma that fires and a passive dendrite, joined by a conductance.

    `C_s v' = -g_s v + g (d - v) + x_s` and `C_d d' = -g_d d + g (v - d) + x_d`: membranes are counted from rest; input
    arrives at the soma (`x[:, :, 0]`) and at the dendrite (`x[:, :, 1]`), where it works later and more weakly. Where
    `v >= threshold` a spike, and `v = reset`; the dendrite stays. Between spikes a step is exact at any
    length for an input that holds during it. Behind a linear layer of `2 * n` outputs put
    `nn.Unflatten(1, (2, n))`. The passive case of Pinsky and Rinzel (1994), "Intrinsic and network rhythmogenesis in a
    reduced Traub model".

    Args:
        somatic_capacitance: positive; with leaks in nanosiemens and times in milliseconds, picofarads. This and the
            next six are a number or a tensor of `features`.
        dendritic_capacitance: positive.
        somatic_leak: positive.
        dendritic_leak: positive.
        coupling: Conductance between the two, > 0.
        reset: Membrane of the soma after a spike, below the threshold.
        threshold: Membrane of the soma at which it fires.
        dt: Length of a step, > 0.
        surrogate: Gradient of the spike.
        detach_reset: Whether the backward pass ignores the spike inside the reset.
        learn: Which numbers are Parameters: none, all, or those named.
        features: Shape of one sample, for one set of numbers per neuron.
        temporal_gradient: Whether the gradient flows back through time.

    Raises:
        ConfigError: A setting is out of range or unknown.
        ShapeError, StateError: Input or state do not fit.
        NonFiniteError: Input or state are NaN or infinite.

    >>> x = torch.zeros(40, 1, 2, 3)  # [time, batch, compartment, features]
    >>> x[:, :, 0, 0], x[:, :, 1, 1] = 2.0, 2.0  # at the soma of the first, at the dendrite of the second
    >>> TwoCompartment()(x)[0].sum(0).tolist()
    [[5.0, 1.0, 0.0]]
    """

    compartments = 2

    def __init__(
        self,
        somatic_capacitance: float | Tensor = 10.0,
        dendritic_capacitance: float | Tensor = 10.0,
        somatic_leak: float | Tensor = 0.5,
        dendritic_leak: float | Tensor = 0.5,
        coupling: float | Tensor = 0.5,
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
        given = {
            "somatic_capacitance": somatic_capacitance,
            "dendritic_capacitance": dendritic_capacitance,
            "somatic_leak": somatic_leak,
            "dendritic_leak": dendritic_leak,
            "coupling": coupling,
            "reset": reset,
            "threshold": threshold,
            "dt": dt,
        }
        super().__init__(
            given,
            positive=[*list(given)[:5], "dt"],
            surrogate=surrogate,
            detach_reset=detach_reset,
            learn=learn,
            features=features,
            temporal_gradient=temporal_gradient,
        )

    def initial_state(self, x: Tensor) -> TwoCompartmentState:
        """Both membranes at rest, for `x` of shape `[time, batch, 2, ...features]`."""
        zero = x.new_zeros(x.shape[1:2] + x.shape[3:])
        return TwoCompartmentState(zero, zero)

    def numbers(self, dtype: torch.dtype | None = None) -> Numbers:
        """The numbers, and the matrix exponential of a step: `ss`, `sd`, `ds`, `dd` from the second to the first."""
        p = super().numbers(dtype)
        soma, dendrite = p["somatic_capacitance"], p["dendritic_capacitance"]
        a, b = -(p["somatic_leak"] + p["coupling"]) / soma, p["coupling"] / soma
        c, d = p["coupling"] / dendrite, -(p["dendritic_leak"] + p["coupling"]) / dendrite
        # exp(A t) = exp(m t) (cosh(q t) + sinh(q t) / q (A - m)), with m half the trace and q > 0 as b c > 0
        mean, half = (a + d) / 2, (a - d) / 2
        q = torch.sqrt(half * half + b * c)
        slow, fast = torch.exp((mean + q) * p["dt"]), torch.exp((mean - q) * p["dt"])
        even, odd = (slow + fast) / 2, (slow - fast) / (2 * q)
        p |= {"ss": even + odd * half, "sd": odd * b, "ds": odd * c, "dd": even - odd * half}
        # where the two come to rest per unit of input: the inverse of the conductances
        g_s, g_d, g = p["somatic_leak"], p["dendritic_leak"], p["coupling"]
        det = g_s * g_d + g * (g_s + g_d)
        return p | {"rest_ss": (g_d + g) / det, "rest_sd": g / det, "rest_dd": (g_s + g) / det}

    def free(self, x: Tensor, state: TwoCompartmentState, numbers: Numbers) -> TwoCompartmentState:
        """One step, exact for an input that holds."""
        p = numbers
        soma, dendrite = x[:, 0], x[:, 1]
        rest_s = p["rest_ss"] * soma + p["rest_sd"] * dendrite
        rest_d = p["rest_sd"] * soma + p["rest_dd"] * dendrite
        v, d = state.membrane - rest_s, state.dendrite - rest_d
        return TwoCompartmentState(rest_s + p["ss"] * v + p["sd"] * d, rest_d + p["ds"] * v + p["dd"] * d)

    def reset_by(self, spike: Tensor, state: TwoCompartmentState, numbers: Numbers) -> TwoCompartmentState:
        """The soma to the reset."""
        return TwoCompartmentState(put(spike, numbers["reset"], state.membrane), state.dendrite)
