"""Axons: what a neuron says arrives some steps later, a number of steps of its own for each neuron."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from neuropil.errors import ConfigError, ShapeError, StateError
from neuropil.nn.finite import check_finite
from neuropil.nn.integrator import check_input
from neuropil.nn.stateful import Stateful

if TYPE_CHECKING:
    from jaxtyping import Float


class AxonalDelayState(NamedTuple):
    """What is still on its way."""

    past: Tensor  # [batch, longest delay, ...features], the oldest step first


class AxonalDelay(Stateful):
    """`y[t] = x[t - steps]`, with one delay for each neuron; before the beginning there was silence.

    Args:
        steps: Whole numbers >= 0, one or a tensor of the features of a sample.

    Raises:
        ConfigError: A delay is negative or not whole.
        ShapeError, StateError: Input or state do not fit.
        NonFiniteError: The input is NaN or infinite.

    >>> import torch
    >>> x = torch.tensor([1.0, 2.0, 3.0]).view(3, 1, 1).expand(3, 1, 2)  # [time, batch, features]
    >>> AxonalDelay(torch.tensor([0, 2]))(x)[0][:, 0].tolist()
    [[1.0, 0.0], [2.0, 0.0], [3.0, 1.0]]
    """

    steps: Tensor

    def __init__(self, steps: int | Tensor) -> None:
        super().__init__()
        given = torch.as_tensor(steps).detach()
        if given.numel() == 0 or bool((given < 0).any()) or bool((given != given.round()).any()):
            raise ConfigError(f"AxonalDelay.steps: got {steps}, expected whole numbers >= 0")
        self.register_buffer("steps", given.long().clone())
        self.longest = int(given.max())

    def initial_state(self, x: Tensor) -> AxonalDelayState:
        """Nothing on its way."""
        return AxonalDelayState(x.new_zeros(x.shape[1], self.longest, *x.shape[2:]))

    def check_state(self, state: Any, x: Tensor) -> None:
        """Raise StateError in one line when `state` was made for another batch or feature shape than `x`."""
        wanted = [x.shape[1], self.longest, *x.shape[2:]]
        if not isinstance(state, AxonalDelayState) or list(state.past.shape) != wanted:
            got = list(state.past.shape) if isinstance(state, AxonalDelayState) else type(state).__name__
            raise StateError(
                f"AxonalDelay: state is {got}, the input needs {wanted}; pass state=None to start"
            )

    def forward(
        self, x: Float[Tensor, "time batch ..."], state: AxonalDelayState | None = None
    ) -> tuple[Float[Tensor, "time batch ..."], AxonalDelayState]:
        """What arrives at every step, and what is on its way after the last."""
        check_input(self, x)
        check_finite(x, "AxonalDelay input")
        if self.steps.dim() and self.steps.shape != x.shape[2:]:
            raise ShapeError(
                f"AxonalDelay: input {list(x.shape)}, expected [time, batch, ...] with features "
                f"{list(self.steps.shape)}, one per delay"
            )
        state = self.initial_state(x) if state is None else state
        self.check_state(state, x)
        line = torch.cat([state.past.transpose(0, 1), x])
        start = torch.arange(self.longest, self.longest + len(x), device=x.device)
        index = start.view(-1, *[1] * (x.dim() - 1)) - self.steps
        y = line.gather(0, index.expand(x.shape))
        return y, AxonalDelayState(line[len(x) :].transpose(0, 1).contiguous())

    def extra_repr(self) -> str:
        """The delay, or the longest of them, for `repr`."""
        return f"steps={self.longest}" if self.steps.numel() == 1 else f"steps<={self.longest}"
