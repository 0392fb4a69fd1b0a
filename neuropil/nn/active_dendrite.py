"""A neuron whose dendrites answer by plateaus."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from neuropil.errors import ConfigError, StateError
from neuropil.nn.cell import Numbers
from neuropil.nn.compartments import Compartmental
from neuropil.nn.surrogate import Sigmoid, Surrogate


class ActiveDendriteState(NamedTuple):
    """What a neuron with active dendrites carries from one step to the next."""

    membrane: Tensor  # [batch, ...features], of the soma, after the reset
    segments: Tensor  # [batch, segments, ...features], membranes of the dendritic segments
    plateaus: Tensor  # [batch, segments, ...features], what is left of their plateaus, in [0, 1]


class ActiveDendrite(Compartmental):
    """A leaky soma with dendritic segments that answer coincident input by a plateau.

    Each segment is a leaky membrane of its own, `d = segment_decay d + x`; at `d >= segment_threshold` it starts a
    plateau `p = 1` and `d` falls to zero; a plateau fades, `p = plateau_decay p`, and is restarted, never stacked. The
    soma sums its own input and the plateaus, `u = decay v + x_soma + gain sum(p)`; where `u >= threshold` a spike, and
    `v = u - threshold`. Input is `[time, batch, 1 + segments, ...features]`, the soma first. A plateau outlasts the
    spikes that started it by far, so that a segment remembers its pattern. A reconstruction of the common core of
    Hawkins and Ahmad (2016), "Why neurons have thousands of synapses", and Leugering, Nieters and Pipa (2023),
    "Dendritic plateau potentials can process spike sequences across multiple time-scales".

    Args:
        segments: Number of segments, >= 1.
        decay: Share of the soma's membrane kept from step to step, in (0, 1]; this and the next five are a number or a
            tensor of `features`.
        segment_decay: Share of a segment's membrane, in (0, 1].
        plateau_decay: Share of a plateau, in [0, 1].
        gain: What a full plateau adds to the soma.
        segment_threshold: Membrane at which a segment starts a plateau, > 0.
        threshold: Membrane at which the soma fires, > 0.
        surrogate: Gradient of the spike and of the plateau's start.
        detach_reset: Whether the backward pass ignores spike and start inside the resets.
        learn: Which numbers are Parameters: none, all, or those named.
        features: Shape of one sample, for one set of numbers per neuron.
        temporal_gradient: Whether the gradient flows back through time.

    Raises:
        ConfigError: A setting is out of range or unknown.
        ShapeError, StateError: Input or state do not fit.
        NonFiniteError: Input or state are NaN or infinite.

    >>> x = torch.zeros(30, 1, 3, 1)  # [time, batch, soma and two segments, features]
    >>> x[1:3, :, 1] = 0.6  # a pattern on the first segment ...
    >>> x[20, :, 0] = 0.8  # ... and, later, an input to the soma that is too weak by itself
    >>> cell = ActiveDendrite(segments=2, gain=0.3)
    >>> cell(x)[0].sum().item(), cell(x * torch.tensor([1.0, 0.0, 0.0]).view(3, 1))[0].sum().item()
    (1.0, 0.0)
    """

    def __init__(
        self,
        segments: int = 4,
        decay: float | Tensor = 0.5,
        segment_decay: float | Tensor = 0.9,
        plateau_decay: float | Tensor = 0.98,
        gain: float | Tensor = 0.2,
        segment_threshold: float | Tensor = 1.0,
        threshold: float | Tensor = 1.0,
        *,
        surrogate: Surrogate = Sigmoid(4.0),  # noqa: B008  frozen
        detach_reset: bool = True,
        learn: bool | Sequence[str] = False,
        features: Sequence[int] | int | None = None,
        temporal_gradient: bool = True,
    ) -> None:
        if segments < 1:
            raise ConfigError(f"ActiveDendrite.segments: got {segments}, expected at least 1")
        given = {
            "decay": decay,
            "segment_decay": segment_decay,
            "plateau_decay": plateau_decay,
            "gain": gain,
            "segment_threshold": segment_threshold,
            "threshold": threshold,
        }
        for name in ("decay", "segment_decay", "plateau_decay"):
            if not bool(((torch.as_tensor(given[name]) >= 0) & (torch.as_tensor(given[name]) <= 1)).all()):
                raise ConfigError(f"ActiveDendrite.{name}: got {given[name]}, expected a decay in [0, 1]")
        super().__init__(
            given,
            positive=("segment_threshold",),
            fixed=("decay", "segment_decay", "plateau_decay"),
            surrogate=surrogate,
            detach_reset=detach_reset,
            learn=learn,
            features=features,
            temporal_gradient=temporal_gradient,
        )
        self.segments, self.compartments = segments, segments + 1

    def initial_state(self, x: Tensor) -> ActiveDendriteState:
        """All membranes at rest, no plateau, for `x` of shape `[time, batch, 1 + segments, ...features]`."""
        return ActiveDendriteState(
            x.new_zeros(x.shape[1:2] + x.shape[3:]), *(torch.zeros_like(x[0, :, 1:]) for _ in range(2))
        )

    def check_state(self, state: Any, x: Tensor) -> None:
        """Refuse an input or a state of another number of segments, batch or features."""
        if not isinstance(state, ActiveDendriteState):
            raise StateError(
                f"ActiveDendrite: state is a {type(state).__name__}, expected a call's state or None"
            )
        super().check_state(_Soma(state.membrane), x)
        for name in ("segments", "plateaus"):
            value: Tensor = getattr(state, name)
            if value.shape != x[0, :, 1:].shape:
                raise StateError(
                    f"ActiveDendrite: state.{name} has shape {list(value.shape)}, the input needs "
                    f"{list(x[0, :, 1:].shape)}; pass state=None to start at rest"
                )

    def step(
        self, x: Tensor, state: ActiveDendriteState, numbers: Numbers
    ) -> tuple[Tensor, ActiveDendriteState]:
        """Spikes and state after one step."""
        p = numbers
        inner = p["segment_decay"] * state.segments + x[:, 1:]
        start = self.surrogate(inner - p["segment_threshold"])
        gate = start.detach() if self.detach_reset else start
        plateaus = start + (1 - start) * p["plateau_decay"] * state.plateaus
        before_reset = p["decay"] * state.membrane + x[:, 0] + p["gain"] * plateaus.sum(1)
        spike = self.surrogate(before_reset - p["threshold"])
        fired = spike.detach() if self.detach_reset else spike
        membrane = before_reset - p["threshold"] * fired
        return spike, ActiveDendriteState(membrane, inner * (1 - gate), plateaus)


class _Soma(NamedTuple):
    membrane: Tensor
