"""Neurons that rest after a spike."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from neuropil.errors import ConfigError, StateError
from neuropil.kernels.refractory import refractory_scan
from neuropil.nn.finite import check_finite
from neuropil.nn.integrator import check_input
from neuropil.nn.lif import IF, LIF, LIFState
from neuropil.nn.stateful import Stateful


class RefractoryState(NamedTuple):
    """What a neuron that rests after its spikes carries from one step to the next."""

    cell: Any  # state of the cell
    waiting: Tensor  # [batch, ...features], steps that it still rests

    @property
    def membrane(self) -> Tensor:
        """The cell's membrane, `[batch, ...features]`."""
        return cast(Tensor, self.cell.membrane)


class Refractory(Stateful):
    """Any spiking cell with an absolute refractory period: for `steps` steps after a spike it is held as it was reset.

    During these steps its state does not change, its input is lost, and it cannot fire, so that two spikes are at least
    `steps + 1` steps apart. Around `LIF` and `IF` it is one compiled scan over time, else a loop over steps.

    Args:
        cell: A cell that fires: `LIF` and its family, `AdEx`, `QIF`, ...
        steps: Whole steps, >= 0.

    Raises:
        ConfigError: `cell` does not fire, or `steps` is negative.
        ShapeError, StateError: Input or state do not fit.
        NonFiniteError: The input is NaN or infinite.

    >>> from neuropil.nn.lif import IF
    >>> Refractory(IF(), steps=2)(torch.ones(7, 1, 1))[0].flatten().tolist()  # [time, batch, features]
    [1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0]
    """

    def __init__(self, cell: Stateful, steps: int) -> None:
        super().__init__()
        if not isinstance(cell, Stateful) or not hasattr(cell, "threshold"):
            raise ConfigError(
                f"Refractory.cell: got a {type(cell).__name__}, expected a spiking cell such as neuropil.nn.LIF"
            )
        if steps < 0 or steps != int(steps):
            raise ConfigError(f"Refractory.steps: got {steps}, expected a whole number of steps >= 0")
        self.cell, self.steps = cell, int(steps)

    @property
    def threshold(self) -> Tensor:
        """The cell's: what has one fires."""
        return cast(Tensor, self.cell.threshold)

    def initial_state(self, x: Tensor) -> RefractoryState:
        """The cell at rest and ready, for `x` as the cell takes it."""
        cell = self.cell.initial_state(x)
        return RefractoryState(cell, torch.zeros_like(cell.membrane))

    def check_state(self, state: Any, x: Tensor) -> None:
        """Refuse a state of another batch or population."""
        if not isinstance(state, RefractoryState):
            raise StateError(
                f"Refractory: state is a {type(state).__name__}, expected a call's state or None"
            )
        self.cell.check_state(state.cell, x)

    def forward(self, x: Tensor, state: RefractoryState | None = None) -> tuple[Tensor, RefractoryState]:
        """Spikes of every step, and the state after the last."""
        check_input(self, x)
        check_finite(x, "Refractory input")
        state = self.initial_state(x) if state is None else state
        self.check_state(state, x)
        hooked = self.cell._forward_hooks or self.cell._forward_pre_hooks
        if (
            isinstance(self.cell, LIF) and type(self.cell) in (LIF, IF) and not hooked
        ):  # not what extends them
            return self._scan(self.cell, x, state)
        cell, waiting = state
        outputs = []
        for now in x.split(1):
            fired, after = self.cell(now, cell)
            ready = waiting <= 0
            spike = fired[0] * ready
            cell = tree_map(
                lambda new, old, ready=ready: torch.where(_like(ready, new), new, old), after, cell
            )
            waiting = torch.where(spike > 0, self.steps, (waiting - 1).clamp(min=0)).to(x.dtype)
            outputs.append(spike)
        run = torch.stack(outputs) if outputs else self.cell(x, cell)[0]
        return run, RefractoryState(cell, waiting)

    def _scan(self, cell: LIF, x: Tensor, state: RefractoryState) -> tuple[Tensor, RefractoryState]:
        """The whole sequence in one compiled call, for the plain leaky neuron."""
        spikes, membrane, waiting = refractory_scan(
            x,
            state.cell.membrane,
            state.waiting,
            cell.decay,
            cell.threshold,
            torch.tensor(float(self.steps), dtype=x.dtype, device=x.device),
            cell.surrogate,
            reset=cell.reset,
            detach_reset=cell.detach_reset,
            temporal_gradient=cell.temporal_gradient,
            memory=cell.memory,
        )
        return spikes, RefractoryState(LIFState(membrane), waiting)

    def extra_repr(self) -> str:
        """The steps, for `repr`."""
        return f"steps={self.steps}"


def _like(ready: Tensor, value: Tensor) -> Tensor:
    """`ready`, with an axis of compartments where the state has one."""
    return ready if value.dim() == ready.dim() else ready.unsqueeze(1)
