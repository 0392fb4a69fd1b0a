"""Integrate-and-fire neurons whose input first charges a synaptic current."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from neuropil.errors import ConfigError
from neuropil.kernels.lif import Memory, Reset
from neuropil.kernels.synaptic import synaptic_scan
from neuropil.nn.integrator import check_finite, check_input, describe, per_neuron
from neuropil.nn.lif import LIF
from neuropil.nn.stateful import Stateful
from neuropil.nn.surrogate import Sigmoid, Surrogate

if TYPE_CHECKING:
    from jaxtyping import Float


class SynapticState(NamedTuple):
    """What a synaptic neuron carries from one step to the next."""

    current: Tensor  # [batch, ...features]
    membrane: Tensor  # [batch, ...features], after the reset


class SynapticLIF(LIF):
    """`LIF` driven by a current that decays by itself: `i = current_decay * i + x`, `u = decay * v + i`.

    Args:
        current_decay: Share of the current kept from step to step, in [0, 1); a number or a tensor of `features`.
        learn_current_decay: Make it a Parameter, the logit of a sigmoid, so that it stays inside (0, 1).

    The other arguments, shapes and errors are those of `LIF`; the state is (current, membrane).

    >>> import torch
    >>> neurons = SynapticLIF(current_decay=0.5, decay=0.5)
    >>> spikes, state = neurons(torch.tensor([0.8, 0.0, 0.0]).view(3, 1, 1))  # [time, batch, features]
    >>> spikes.flatten().tolist(), round(state.membrane.item(), 3)
    ([0.0, 0.0, 0.0], 0.6)
    """

    def __init__(
        self,
        current_decay: float | Tensor = 0.5,
        decay: float | Tensor = 0.5,
        threshold: float | Tensor = 1.0,
        *,
        surrogate: Surrogate = Sigmoid(4.0),  # noqa: B008  frozen
        reset: Reset = "subtract",
        detach_reset: bool = True,
        learn_current_decay: bool = False,
        learn_decay: bool = False,
        learn_threshold: bool = False,
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
        decays = per_neuron(type(self).__name__, "current_decay", current_decay, features)
        if not ((decays >= 0) & (decays < 1)).all() or (learn_current_decay and not (decays > 0).all()):
            kind = "a learned decay in (0, 1)" if learn_current_decay else "a decay in [0, 1)"
            raise ConfigError(f"{type(self).__name__}.current_decay: got {current_decay}, expected {kind}")
        self.current_decay_logit = nn.Parameter(torch.logit(decays)) if learn_current_decay else None
        self.register_buffer("fixed_current_decay", None if learn_current_decay else decays)

    @property
    def current_decay(self) -> Tensor:
        """Share of the current kept from one step to the next, in [0, 1)."""
        if self.current_decay_logit is not None:
            return torch.sigmoid(self.current_decay_logit)
        fixed: Tensor = self.fixed_current_decay  # type: ignore[assignment]
        return fixed

    def initial_state(self, x: Tensor) -> SynapticState:  # type: ignore[override]
        """No current and a membrane of zeros for `x` of shape `[time, batch, ...features]`."""
        return SynapticState(x.new_zeros(x.shape[1:]), x.new_zeros(x.shape[1:]))

    def forward(  # type: ignore[override]
        self, x: Float[Tensor, "time batch ..."], state: SynapticState | None = None
    ) -> tuple[Float[Tensor, "time batch ..."], SynapticState]:
        """Spikes (0 or 1, in the dtype of `x`) of every step, and the state after the last."""
        check_input(self, x)
        state = self.initial_state(x) if state is None else state
        self.check_state(state, x)
        spikes, current, membrane = synaptic_scan(
            x,
            *state,
            self.current_decay,
            self.decay,
            self.threshold,
            self.surrogate,
            reset=self.reset,
            detach_reset=self.detach_reset,
            temporal_gradient=self.temporal_gradient,
            memory=self.memory,
        )
        check_finite(self, membrane)
        return spikes, SynapticState(current, membrane)

    forward_static = Stateful.forward_static

    def extra_repr(self) -> str:
        """Settings that differ between neurons, for `repr`."""
        return f"{describe('current_decay', self.current_decay)}, {super().extra_repr()}"
