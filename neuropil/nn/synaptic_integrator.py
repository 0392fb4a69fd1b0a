"""A leaky membrane behind a synaptic current; it never fires."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from neuropil.errors import ConfigError
from neuropil.kernels.leaky import leaky_scan
from neuropil.nn.integrator import Leaky, check_finite, check_input, describe, per_neuron
from neuropil.nn.synaptic import SynapticState

if TYPE_CHECKING:
    from jaxtyping import Float


class SynapticIntegrator(Leaky):
    """`i = current_decay * i + x`, `v = decay * v + i`, the membrane given out at every step.

    `LeakyIntegrator` with the current of `SynapticLIF` before it: the readout that sees smooth currents, or
    an alpha-shaped filter of spikes where both decays are equal.

    Args:
        current_decay: Share of the current kept from step to step, in [0, 1]; a number or a tensor of `features`.
        decay: Share of the membrane kept, in (0, 1].
        learn_decay: Make the membrane's decay a Parameter, the logit of a sigmoid.
        features: Shape of one sample, for one decay per neuron.

    Raises:
        ConfigError: A decay is out of range.
        ShapeError, StateError: Input or state do not fit.
        NonFiniteError: The membrane has become NaN or infinite.

    >>> import torch
    >>> pulse = torch.tensor([1.0, 0.0, 0.0]).view(3, 1, 1)  # [time, batch, features]
    >>> SynapticIntegrator(0.5, 0.5)(pulse)[0].flatten().tolist()  # (t + 1) / 2 ** t
    [1.0, 1.0, 0.75]
    """

    current_decay: Tensor

    def __init__(
        self,
        current_decay: float | Tensor = 0.5,
        decay: float | Tensor = 0.5,
        *,
        learn_decay: bool = False,
        features: Sequence[int] | int | None = None,
    ) -> None:
        super().__init__(decay, learn_decay=learn_decay, features=features)
        decays = per_neuron("SynapticIntegrator", "current_decay", current_decay, features)
        if not bool(((decays >= 0) & (decays <= 1)).all()):
            raise ConfigError(
                f"SynapticIntegrator.current_decay: got {current_decay}, expected a decay in [0, 1]"
            )
        self.register_buffer("current_decay", decays)

    def initial_state(self, x: Tensor) -> SynapticState:
        """No current and a membrane of zeros for `x` of shape `[time, batch, ...features]`."""
        return SynapticState(x.new_zeros(x.shape[1:]), x.new_zeros(x.shape[1:]))

    def forward(
        self, x: Float[Tensor, "time batch ..."], state: SynapticState | None = None
    ) -> tuple[Float[Tensor, "time batch ..."], SynapticState]:
        """Membrane after every step, and the state after the last."""
        check_input(self, x)
        state = self.initial_state(x) if state is None else state
        self.check_state(state, x)
        currents, current = leaky_scan(x, state.current, self.current_decay)
        membranes, membrane = leaky_scan(currents, state.membrane, self.decay)
        check_finite(self, membrane)
        return membranes, SynapticState(current, membrane)

    def extra_repr(self) -> str:
        """The decays, for `repr`."""
        return f"{describe('current_decay', self.current_decay)}, {describe('decay', self.decay)}"
