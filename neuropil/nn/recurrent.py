"""Cells whose output comes back to them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from neuropil.errors import ConfigError, ShapeError, StateError
from neuropil.kernels.recurrent import Adaptation, recurrent_scan
from neuropil.nn import integrator
from neuropil.nn.adaptive import AdaptiveLIF, AdaptiveState
from neuropil.nn.finite import check_finite
from neuropil.nn.lif import IF, LIF, LIFState
from neuropil.nn.stateful import Stateful


class RecurrentState(NamedTuple):
    """What a recurrent population carries from one step to the next."""

    cell: Any  # state of the cell
    output: Tensor  # [batch, ...features], what the cell gave out last
    weights: Any  # state of the weights, () where they have none


class Recurrent(Stateful):
    """A cell that is given its own last output through `weights` beside its input: `x[t] + weights(y[t - 1])`.

    `cell` is any stateful module, `weights` any module from the cell's output to its input, `[batch, ...features]`: a
    `nn.Linear` (with a parametrization such as Dale's law), `SparseLinear`, a convolution, or a stateful one such as
    `DelayLinear`, for delays beyond the one step that any recurrence takes. Every call starts at rest unless a state is
    given, the last output included.

    Raises:
        ConfigError: `cell` carries no state.
        ShapeError, StateError: Input, state and weights do not fit together.
        NonFiniteError: The input is NaN or infinite.

    >>> from neuropil.nn.lif import LIF
    >>> ring = nn.Linear(3, 3, bias=False)
    >>> _ = ring.weight.data.copy_(torch.eye(3).roll(1, 0))  # each neuron excites the next
    >>> x = torch.zeros(4, 1, 3)
    >>> x[0, 0, 0] = 1.0
    >>> Recurrent(LIF(), ring)(x)[0][:, 0].tolist()  # [time, features]
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
    """

    def __init__(self, cell: Stateful, weights: nn.Module) -> None:
        super().__init__()
        if not isinstance(cell, Stateful):
            raise ConfigError(
                f"Recurrent.cell: got a {type(cell).__name__}, expected a stateful module such as neuropil.nn.LIF"
            )
        self.cell, self.weights = cell, weights

    def initial_state(self, x: Tensor) -> RecurrentState:
        """The cell at rest and silent, for `x` of shape `[time, batch, ...features]`."""
        cell = self.cell.initial_state(x)
        output = torch.zeros_like(getattr(cell, "membrane", x.new_empty(x.shape[1:])))
        weights = self.weights
        return RecurrentState(
            cell, output, weights.initial_state(output.unsqueeze(0)) if isinstance(weights, Stateful) else ()
        )

    def check_state(self, state: Any, x: Tensor) -> None:
        """Refuse a state of another batch or population."""
        if not isinstance(state, RecurrentState):
            raise StateError(f"Recurrent: state is a {type(state).__name__}, expected a call's state or None")
        self.cell.check_state(state.cell, x)
        if state.output.shape[0] != x.shape[1]:
            raise StateError(
                f"Recurrent: state.output is of a batch of {state.output.shape[0]}, the input of {x.shape[1]}; "
                "pass state=None to start at rest"
            )

    def forward(self, x: Tensor, state: RecurrentState | None = None) -> tuple[Tensor, RecurrentState]:
        """Output of every step, `[time, batch, ...features]`, and the state after the last."""
        if x.dim() < 2 or not x.is_floating_point():
            raise ShapeError(
                f"Recurrent: input is {x.dtype} of shape {list(x.shape)}, expected floats [time, batch, ...features]"
            )
        check_finite(x, "Recurrent input")
        state = self.initial_state(x) if state is None else state
        self.check_state(state, x)
        return self.run(x, state)[1:]

    def run(self, x: Tensor, state: RecurrentState) -> tuple[Tensor, Tensor, RecurrentState]:
        """What drove the cell at every step, what it gave out, and the state after the last.

        Without gradients, leaky neurons behind an `nn.Linear` run in one compiled call that follows their spikes.
        """
        if not torch.is_grad_enabled() and self.is_fused(x):
            return _run_fused(self.cell, self.weights, x, state)  # type: ignore[arg-type]
        cell, output, carried = state
        step = _stepper(self.cell)
        driven, outputs = [], []
        for now in x.unbind(0):
            back, carried = self._back(output, carried)
            if back.shape != now.shape:
                raise ShapeError(
                    f"{type(self).__name__}: weights turn the output {list(output.shape)} into {list(back.shape)}, "
                    f"the cell's input is {list(now.shape)}"
                )
            driven.append(now + back)
            output, cell = step(driven[-1], cell)
            outputs.append(output)
        if not outputs:
            return torch.empty_like(x), x.new_empty(0, *output.shape), RecurrentState(cell, output, carried)
        return torch.stack(driven), torch.stack(outputs), RecurrentState(cell, output, carried)

    def is_fused(self, x: Tensor) -> bool:
        """Whether one compiled call serves: leaky neurons, plain weights, and nobody who listens in between."""
        cell, weights = self.cell, self.weights
        return (
            type(cell) in (LIF, IF, AdaptiveLIF)
            and x.dim() == 3
            and isinstance(weights, nn.Linear)
            and type(weights).forward is nn.Linear.forward
            and weights.weight.shape == (x.shape[2], x.shape[2])
            and not any(m._forward_hooks or m._forward_pre_hooks for m in (cell, weights))
        )

    def _back(self, output: Tensor, carried: Any) -> tuple[Tensor, Any]:
        if isinstance(self.weights, Stateful):
            back, carried = self.weights(output.unsqueeze(0), carried)
            return back[0], carried
        return cast(Tensor, self.weights(output)), carried


def _run_fused(
    cell: LIF, weights: nn.Linear, x: Tensor, state: RecurrentState
) -> tuple[Tensor, Tensor, RecurrentState]:
    adaptation = None
    if isinstance(cell, AdaptiveLIF):
        adaptation = Adaptation(state.cell.adaptation, cell.adaptation_strength, cell.adaptation_decay)
    driven, spikes, membrane, trace = recurrent_scan(
        x,
        state.output,
        state.cell.membrane,
        weights.weight,
        weights.bias,
        cell.decay,
        cell.threshold,
        adaptation,
        reset_to_zero=cell.reset == "zero",
    )
    integrator.check_finite(cell, membrane)
    after = LIFState(membrane) if trace is None else AdaptiveState(membrane, trace)
    return driven, spikes, RecurrentState(after, spikes[-1] if len(spikes) else state.output, ())


def _stepper(cell: Stateful) -> Callable[[Tensor, Any], tuple[Tensor, Any]]:
    """One step of a cell: the call of one time step, without the axis of time."""

    def step(current: Tensor, state: Any) -> tuple[Tensor, Any]:
        output, state = cell(current.unsqueeze(0), state)
        return output[0], state

    return step
