"""Oscillators that bind what belongs together by phase, and how far they do."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from neuropil.errors import ConfigError, DataError, ShapeError
from neuropil.nn.finite import check_finite
from neuropil.nn.integrator import check_input
from neuropil.nn.stateful import Stateful
from neuropil.plotting import canvas

if TYPE_CHECKING:
    from jaxtyping import Bool, Float


class PhasorState(NamedTuple):
    """Where oscillators are in their cycle."""

    phase: Tensor  # [batch, units], radians ahead of the common rhythm


class PhasorNetwork(Stateful):
    """Oscillators of unit length that pull each other's phase, seen from the common rhythm.

        phase_i += dt (detuning_i + x_i + sum_j K_ij sin(phase_j - phase_i) + slot_i sin(slot phase_i - phase_i))

    Kuramoto (1975). Coupling within an item binds it; a drive towards a phase of its own, or repulsion, keeps it apart
    from others, so that items take gamma slots one after the other. Input `[time, batch, units]` adds to the detuning.

    Args:
        coupling: `[units, units]`, what unit `i` hears of unit `j`; negative values repel.
        detuning: Own frequency less that of the rhythm, radians per unit of time, `[units]` or a number.
        slot_phase: Phase that units are driven to, `[units]`, radians.
        slot_strength: How strongly, `[units]` or a number, >= 0.
        dt: Length of a step, > 0.

    Raises ConfigError, ShapeError, StateError, NonFiniteError.

    >>> network = PhasorNetwork(torch.ones(8, 8) / 8)
    >>> start = PhasorState(torch.linspace(0, 3, 8)[None])
    >>> phases, _ = network(torch.zeros(300, 1, 8), start)
    >>> bool(phases[-1].std() < 1e-3)  # they have locked
    True
    """

    coupling: Tensor
    detuning: Tensor
    slot_phase: Tensor
    slot_strength: Tensor

    def __init__(
        self,
        coupling: Float[Tensor, "units units"],
        *,
        detuning: float | Tensor = 0.0,
        slot_phase: float | Tensor = 0.0,
        slot_strength: float | Tensor = 0.0,
        dt: float = 0.1,
    ) -> None:
        super().__init__()
        if coupling.dim() != 2 or coupling.shape[0] != coupling.shape[1]:
            raise ShapeError(f"PhasorNetwork: coupling is {list(coupling.shape)}, expected [units, units]")
        if not 0 < dt < math.inf:
            raise ConfigError(f"PhasorNetwork.dt: got {dt}, expected a number > 0")
        self.register_buffer("coupling", coupling.clone())
        given = {"detuning": detuning, "slot_phase": slot_phase, "slot_strength": slot_strength}
        for name, value in given.items():
            tensor = torch.as_tensor(value, dtype=coupling.dtype)
            if tensor.shape not in ((), (len(coupling),)):
                raise ShapeError(
                    f"PhasorNetwork.{name}: shape {list(tensor.shape)}, expected a number or [{len(coupling)}]"
                )
            self.register_buffer(name, tensor.clone())
        self.dt = dt

    def initial_state(self, x: Tensor) -> PhasorState:
        """All in phase with the rhythm."""
        return PhasorState(x.new_zeros(x.shape[1:]))

    def forward(
        self, x: Float[Tensor, "time batch units"], state: PhasorState | None = None
    ) -> tuple[Float[Tensor, "time batch units"], PhasorState]:
        """Phases after every step, not wrapped, and the state after the last."""
        check_input(self, x)
        check_finite(x, "PhasorNetwork: the input")
        if x.dim() != 3 or x.shape[2] != len(self.coupling):
            raise ShapeError(
                f"PhasorNetwork: input is {list(x.shape)}, expected [time, batch, {len(self.coupling)}]"
            )
        state = self.initial_state(x) if state is None else state
        self.check_state(state, x)
        phase, outputs = state.phase, []
        for drive in x.unbind(0):
            sine, cosine = phase.sin(), phase.cos()
            pull = cosine * (sine @ self.coupling.mT) - sine * (cosine @ self.coupling.mT)
            slot = self.slot_strength * torch.sin(self.slot_phase - phase)
            phase = phase + self.dt * (self.detuning + drive + pull + slot)
            outputs.append(phase)
        return torch.stack(outputs) if outputs else x.new_empty(x.shape), PhasorState(phase)


@dataclass(frozen=True)
class PhaseCoherence:
    """How far units of an item share a phase, and items do not."""

    within: Tensor  # [items], length of the mean phasor of each item, in [0, 1]
    phase: Tensor  # [items], its angle, radians in (-pi, pi]
    between: float  # length of the mean of the items' directions: 1 all together, 0 spread around the cycle

    def plot(self) -> Any:
        """The items' mean phasors in the unit circle, as a matplotlib figure."""
        figure, (axes,) = canvas(width=3.4, height=3.4)
        angle = torch.linspace(0, 2 * math.pi, 200)
        axes.plot(angle.cos(), angle.sin(), color="#9aa1ab", linewidth=0.8)
        for place, (length, phase) in enumerate(zip(self.within.tolist(), self.phase.tolist(), strict=True)):
            x, y = length * math.cos(phase), length * math.sin(phase)
            axes.plot([0, x], [0, y], color="#2f7f86")
            axes.annotate(str(place + 1), (x, y))
        axes.set(aspect="equal", xlabel="cosine", ylabel="sine", title=f"between items {self.between:.2f}")
        return figure


def phase_coherence(phases: Float[Tensor, " units"], items: Bool[Tensor, "items units"]) -> PhaseCoherence:
    """Coherence of phases, radians, within and between items given as the units that belong to them.

    Raises ShapeError, DataError or NonFiniteError.

    >>> items = torch.tensor([[True, True, False, False], [False, False, True, True]])
    >>> found = phase_coherence(torch.tensor([0.0, 0.0, math.pi, math.pi]), items)
    >>> found.within.tolist(), round(found.between, 6)
    ([1.0, 1.0], 0.0)
    """
    if phases.dim() != 1 or items.dim() != 2 or items.shape[1] != len(phases):
        raise ShapeError(
            f"phase_coherence: phases {list(phases.shape)} and items {list(items.shape)}, expected [units] and "
            "[items, units]"
        )
    if not len(items) or not bool(items.any(1).all()):
        raise DataError("phase_coherence: there is no item, or one without units")
    check_finite(phases, "phase_coherence: phases")
    member = items.to(torch.double)
    count = member.sum(1)
    x, y = member @ phases.double().cos() / count, member @ phases.double().sin() / count
    angle = torch.atan2(y, x)
    between = torch.complex(angle.cos(), angle.sin()).mean().abs()
    return PhaseCoherence(torch.hypot(x, y), angle, float(between))
