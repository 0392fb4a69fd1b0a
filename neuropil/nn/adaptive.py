"""Integrate-and-fire neurons that tire: their threshold rises with every spike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor, nn

from neuropil.errors import ConfigError
from neuropil.kernels.adaptive import adaptive_scan
from neuropil.kernels.lif import Memory, Reset
from neuropil.nn.integrator import check_finite, check_input, describe, per_neuron
from neuropil.nn.lif import LIF
from neuropil.nn.stateful import Stateful
from neuropil.nn.surrogate import Sigmoid, Surrogate

if TYPE_CHECKING:
    from jaxtyping import Float


class AdaptiveState(NamedTuple):
    """What an adaptive neuron carries from one step to the next."""

    membrane: Tensor  # [batch, ...features], after the reset
    adaptation: Tensor  # [batch, ...features], trace of its own spikes


class AdaptiveLIF(LIF):
    """`LIF` whose threshold is `threshold + adaptation_strength * a`, `a` a decaying trace of its own spikes.

    Bellec et al. (2018), "Long short-term memory and learning-to-learn in networks of spiking neurons".

    Args:
        adaptation_decay: Share of the trace kept from step to step, in [0, 1); a number or a tensor of `features`.
        adaptation_strength: What one spike adds to the threshold, >= 0; a number or a tensor of `features`.
        learn_adaptation_strength: Make the strength a Parameter.

    The other arguments, shapes and errors are those of `LIF`; the state is (membrane, adaptation).

    >>> import torch
    >>> neurons = AdaptiveLIF(decay=1.0, adaptation_decay=0.9, adaptation_strength=0.5)
    >>> spikes, state = neurons(torch.full((6, 1, 1), 1.0))  # [time, batch, features]
    >>> spikes.flatten().tolist()
    [1.0, 0.0, 1.0, 0.0, 1.0, 0.0]
    """

    adaptation_decay: Tensor
    adaptation_strength: Tensor

    def __init__(
        self,
        decay: float | Tensor = 0.5,
        threshold: float | Tensor = 1.0,
        *,
        adaptation_decay: float | Tensor = 0.95,
        adaptation_strength: float | Tensor = 0.2,
        surrogate: Surrogate = Sigmoid(4.0),  # noqa: B008  frozen
        reset: Reset = "subtract",
        detach_reset: bool = True,
        learn_decay: bool = False,
        learn_threshold: bool = False,
        learn_adaptation_strength: bool = False,
        features: Sequence[int] | int | None = None,
        temporal_gradient: bool = True,
        memory: Memory = "save",
    ) -> None:
        super().__init__(
            decay,
            threshold,
            surrogate=surrogate,
            reset=reset,
            detach_reset=detach_reset,
            learn_decay=learn_decay,
            learn_threshold=learn_threshold,
            features=features,
            temporal_gradient=temporal_gradient,
            memory=memory,
        )
        name = type(self).__name__
        decays = per_neuron(name, "adaptation_decay", adaptation_decay, features)
        if not ((decays >= 0) & (decays < 1)).all():
            raise ConfigError(f"{name}.adaptation_decay: got {adaptation_decay}, expected a decay in [0, 1)")
        strengths = per_neuron(name, "adaptation_strength", adaptation_strength, features)
        if not ((strengths >= 0) & strengths.isfinite()).all():
            raise ConfigError(
                f"{name}.adaptation_strength: got {adaptation_strength}, expected a finite number >= 0"
            )
        self.register_buffer("adaptation_decay", decays)
        if learn_adaptation_strength:
            self.adaptation_strength = nn.Parameter(strengths)
        else:
            self.register_buffer("adaptation_strength", strengths)

    def initial_state(self, x: Tensor) -> AdaptiveState:  # type: ignore[override]
        """A membrane of zeros, not adapted, for `x` of shape `[time, batch, ...features]`."""
        return AdaptiveState(x.new_zeros(x.shape[1:]), x.new_zeros(x.shape[1:]))

    def forward(  # type: ignore[override]
        self, x: Float[Tensor, "time batch ..."], state: AdaptiveState | None = None
    ) -> tuple[Float[Tensor, "time batch ..."], AdaptiveState]:
        """Spikes (0 or 1, in the dtype of `x`) of every step, and the state after the last."""
        check_input(self, x)
        state = self.initial_state(x) if state is None else state
        self.check_state(state, x)
        spikes, membrane, adaptation = adaptive_scan(
            x,
            *state,
            self.decay,
            self.threshold,
            self.adaptation_decay,
            self.adaptation_strength,
            self.surrogate,
            reset=self.reset,
            detach_reset=self.detach_reset,
            temporal_gradient=self.temporal_gradient,
            memory=self.memory,
        )
        check_finite(self, membrane)
        return spikes, AdaptiveState(membrane, adaptation)

    forward_static = Stateful.forward_static

    def extra_repr(self) -> str:
        """Settings that differ between neurons, for `repr`."""
        shown = ("adaptation_decay", "adaptation_strength")
        return ", ".join([super().extra_repr(), *(describe(name, getattr(self, name)) for name in shown)])
