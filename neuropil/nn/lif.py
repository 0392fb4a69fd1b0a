"""Integrate-and-fire neurons, with and without a leak."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, get_args

from torch import Tensor, nn

from neuropil.errors import ConfigError, nearest
from neuropil.kernels.lif import Memory, Reset, lif_scan, lif_scan_static
from neuropil.nn.integrator import Leaky, check_input, describe, per_neuron
from neuropil.nn.surrogate import Sigmoid, Surrogate

if TYPE_CHECKING:
    from jaxtyping import Float


class LIFState(NamedTuple):
    """What an integrate-and-fire neuron carries from one step to the next."""

    membrane: Tensor  # [batch, ...features], after the reset


class LIF(Leaky):
    """Leaky integrate-and-fire neurons: `u = decay * v + x`, a spike where `u >= threshold`, then a reset.

    `reset="subtract"` leaves `v = u - threshold * spike`, `"zero"` leaves `v = u * (1 - spike)`. Time is in
    steps, the membrane in units of the input; `decay` lies in (0, 1] (`exp(-dt / tau)`). Lapicque (1907);
    training by surrogate gradients: Neftci et al. (2019); a learned decay: Fang et al. (2021).

    Args:
        decay: Share of the membrane kept from step to step, in (0, 1]; a number or a tensor of `features`.
        threshold: Membrane at which a neuron fires, > 0; a number or a tensor of `features`.
        surrogate: Gradient of the spike.
        reset: What a spike does to the membrane, `"subtract"` or `"zero"`.
        detach_reset: Whether the backward pass ignores the spike inside the reset.
        learn_decay: Make the decay a Parameter, the logit of a sigmoid, so that it stays inside (0, 1).
        learn_threshold: Make the threshold a Parameter.
        features: Shape of one sample, for one decay and threshold per neuron (or `[channels, 1, 1]`).
        temporal_gradient: Whether the gradient flows back through time (`False`: online training).
        memory: `"save"` one membrane in 32 steps beside the input for the backward pass, or keep the input alone
            and `"recompute"`.

    Raises:
        ConfigError: A setting is out of range or unknown.
        ShapeError, StateError: Input or state do not fit.
        NonFiniteError: The membrane has become NaN or infinite.

    >>> import torch
    >>> lif = LIF(decay=0.5)
    >>> spikes, state = lif(torch.full((4, 1, 2), 0.6))  # [time, batch, features]
    >>> spikes[:, 0, 0].tolist(), state.membrane.shape
    ([0.0, 0.0, 1.0, 0.0], torch.Size([1, 2]))
    """

    threshold: Tensor

    def __init__(
        self,
        decay: float | Tensor = 0.5,
        threshold: float | Tensor = 1.0,
        *,
        surrogate: Surrogate = Sigmoid(4.0),  # noqa: B008  frozen
        reset: Reset = "subtract",
        detach_reset: bool = True,
        learn_decay: bool = False,
        learn_threshold: bool = False,
        features: Sequence[int] | int | None = None,
        temporal_gradient: bool = True,
        memory: Memory = "save",
    ) -> None:
        super().__init__(decay, learn_decay=learn_decay, features=features)
        name = type(self).__name__
        for field, value, choices in (
            ("reset", reset, get_args(Reset)),
            ("memory", memory, get_args(Memory)),
        ):
            if value not in choices:
                raise ConfigError(f"{name}.{field}: got {value!r}{nearest(str(value), choices)}")
        thresholds = per_neuron(name, "threshold", threshold, features)
        if not ((thresholds > 0) & thresholds.isfinite()).all():
            raise ConfigError(f"{name}.threshold: got {threshold}, expected a finite number > 0")
        self.surrogate, self.reset, self.memory = surrogate, reset, memory
        self.detach_reset, self.temporal_gradient = detach_reset, temporal_gradient
        if learn_threshold:
            self.threshold = nn.Parameter(thresholds)
        else:
            self.register_buffer("threshold", thresholds)

    def initial_state(self, x: Tensor) -> LIFState:
        """A membrane of zeros for `x` of shape `[time, batch, ...features]`."""
        return LIFState(x.new_zeros(x.shape[1:]))

    def forward(
        self, x: Float[Tensor, "time batch ..."], state: LIFState | None = None
    ) -> tuple[Float[Tensor, "time batch ..."], LIFState]:
        """Spikes (0 or 1, in the dtype of `x`) of every step, and the state after the last."""
        spikes, membrane = lif_scan(
            x,
            None if self._rests(state) else self._start(x, state),
            self.decay,
            self.threshold,
            self.surrogate,
            reset=self.reset,
            detach_reset=self.detach_reset,
            temporal_gradient=self.temporal_gradient,
            memory=self.memory,
            owner=type(self).__name__,
        )
        return spikes, LIFState(membrane)

    def forward_static(
        self, x: Float[Tensor, "batch ..."], time_steps: int, state: LIFState | None = None
    ) -> tuple[Float[Tensor, "time batch ..."], LIFState]:
        """`forward` of an input held for `time_steps` steps: the same numbers, `x` read once, not copied."""
        spikes, membrane = lif_scan_static(
            x,
            time_steps,
            None if self._rests(state) else self._start(x.unsqueeze(0), state),
            self.decay,
            self.threshold,
            self.surrogate,
            reset=self.reset,
            detach_reset=self.detach_reset,
            temporal_gradient=self.temporal_gradient,
            memory=self.memory,
            owner=type(self).__name__,
        )
        return spikes, LIFState(membrane)

    def _rests(self, state: LIFState | None) -> bool:
        """Whether all membranes begin at rest, where the scan needs no zeros."""
        return state is None and type(self).initial_state is LIF.initial_state

    def _start(self, x: Tensor, state: LIFState | None) -> Tensor:
        """The membrane to begin with."""
        check_input(self, x)
        if state is None:
            state = self.initial_state(x)
        else:
            self.check_state(state, x)
        return state.membrane

    def extra_repr(self) -> str:
        """Settings that differ between neurons, for `repr`."""
        shown = (describe("decay", self.decay), describe("threshold", self.threshold))
        return ", ".join([*shown, f"surrogate={self.surrogate}", f"reset={self.reset!r}"])


class IF(LIF):
    """Integrate-and-fire neurons without a leak: `LIF` with `decay=1`, which is never learned.

    With `reset="subtract"` and a constant input `0 <= x <= threshold`, `T` steps give
    `floor(T * x / threshold)` spikes. Arguments, shapes and errors as for `LIF`.

    >>> import torch
    >>> spikes, _ = IF()(torch.full((8, 1, 1), 0.25))
    >>> spikes.sum().item()
    2.0
    """

    def __init__(
        self,
        threshold: float | Tensor = 1.0,
        *,
        surrogate: Surrogate = Sigmoid(4.0),  # noqa: B008  frozen
        reset: Reset = "subtract",
        detach_reset: bool = True,
        learn_threshold: bool = False,
        features: Sequence[int] | int | None = None,
        temporal_gradient: bool = True,
        memory: Memory = "save",
    ) -> None:
        super().__init__(
            1.0,
            threshold,
            surrogate=surrogate,
            reset=reset,
            detach_reset=detach_reset,
            learn_threshold=learn_threshold,
            features=features,
            temporal_gradient=temporal_gradient,
            memory=memory,
        )
