"""Cells whose output comes back to them."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from neuropil.errors import ConfigError, ShapeError, StateError
from neuropil.nn.finite import check_finite
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
        cell, output, carried = state
        outputs = []
        for now in x.unbind(0):
            back, carried = self._back(output, carried)
            if back.shape != now.shape:
                raise ShapeError(
                    f"Recurrent: weights turn the output {list(output.shape)} into {list(back.shape)}, "
                    f"the cell's input is {list(now.shape)}"
                )
            stepped, cell = self.cell((now + back).unsqueeze(0), cell)
            output = stepped[0]
            outputs.append(output)
        run = torch.stack(outputs) if outputs else x.new_empty(0, *output.shape)
        return run, RecurrentState(cell, output, carried)

    def _back(self, output: Tensor, carried: Any) -> tuple[Tensor, Any]:
        if isinstance(self.weights, Stateful):
            back, carried = self.weights(output.unsqueeze(0), carried)
            return back[0], carried
        return cast(Tensor, self.weights(output)), carried
