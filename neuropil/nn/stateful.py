"""The contract of a module that carries state through time."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from neuropil.errors import StateError


class Stateful(nn.Module):
    """A module with explicit state: `forward(x, state=None) -> (y, state)`.

    `x` is time first, `[time, batch, ...features]`. The state is a NamedTuple of tensors, each
    `[batch, ...]`; `None` means rest. A whole sequence is the normal call and one step is the same call with
    `time == 1`, so `f(x)` equals `f(x[:k])` followed by `f(x[k:], state)`. Nothing is kept between calls:
    there is nothing to reset.
    """

    def initial_state(self, x: Tensor) -> Any:
        """State at rest for an input `x` of shape `[time, batch, ...features]`, in its dtype and device."""
        raise TypeError(f"{type(self).__name__} must define initial_state(x)")

    def forward_static(self, x: Tensor, time_steps: int, state: Any = None) -> Any:
        """`forward` of an input `[batch, ...features]` held for `time_steps` steps.

        Override it where that can be done without reading the input once per step.
        """
        return self(x.unsqueeze(0).expand(time_steps, *x.shape), state)

    def check_state(self, state: Any, x: Tensor) -> None:
        """Raise StateError in one line when `state` was made for another batch or feature shape than `x`."""
        if not hasattr(state, "_fields"):
            raise StateError(
                f"{type(self).__name__}: state is a {type(state).__name__}, expected a call's state or None"
            )
        for name, value in zip(state._fields, state, strict=True):
            if value.shape != x.shape[1:]:
                raise StateError(
                    f"{type(self).__name__}: state.{name} has shape {list(value.shape)}, the input needs "
                    f"{list(x.shape[1:])} (x is [time, batch, ...features]); pass state=None to start at rest"
                )
