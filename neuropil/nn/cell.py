"""What neurons made of differential equations share: their numbers, and the walk through time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from neuropil.errors import ConfigError, nearest
from neuropil.nn.finite import check_finite
from neuropil.nn.integrator import check_input, describe, per_neuron
from neuropil.nn.stateful import Stateful
from neuropil.nn.surrogate import Surrogate

Numbers = dict[str, Tensor]


class Cell(Stateful):
    """A neuron whose equations are written for one step; subclass it with `initial_state` and `step`.

    `given` are its numbers, each a number or a tensor of `features` (one per neuron); those named in `positive` must be
    greater than zero and stay so when they learn. `learn` makes all numbers but `fixed` Parameters (`True`) or those
    that it names. A learned positive number is kept as its logarithm. `numbers(dtype)` gives all of them.

    >>> class Leak(Cell):
    ...     def initial_state(self, x):
    ...         return (x[0] * 0,)
    ...     def step(self, x, state, numbers):
    ...         v = (1 - 1 / numbers["tau"]) * state[0] + x
    ...         return v, (v,)
    ...     def check_state(self, state, x): ...
    >>> leak = Leak({"tau": 2.0}, positive=("tau",), learn=True)
    >>> leak(torch.ones(2, 1, 1))[0].flatten().tolist(), [name for name, _ in leak.named_parameters()]
    ([1.0, 1.5], ['log_tau'])
    """

    def __init__(
        self,
        given: Mapping[str, float | Tensor],
        *,
        positive: Sequence[str] = (),
        fixed: Sequence[str] = ("dt",),
        learn: bool | Sequence[str] = False,
        features: Sequence[int] | int | None = None,
        temporal_gradient: bool = True,
    ) -> None:
        super().__init__()
        name, self._names, self.temporal_gradient = type(self).__name__, tuple(given), temporal_gradient
        learnable = [key for key in given if key not in fixed]
        learned = set(learnable if learn is True else learn or ())
        if wrong := sorted(learned - set(learnable)):
            raise ConfigError(f"{name}.learn: got {wrong[0]!r}{nearest(wrong[0], learnable)}")
        for key, value in given.items():
            tensor = per_neuron(name, key, value, None if key == "dt" else features)
            above = key not in positive or bool((tensor > 0).all())
            if not (above and bool(tensor.isfinite().all())):
                kind = "a finite number > 0" if key in positive else "a finite number"
                raise ConfigError(f"{name}.{key}: got {value}, expected {kind}")
            if key not in learned:
                self.register_buffer(key, tensor)
            elif key in positive:
                self.register_parameter(f"log_{key}", nn.Parameter(tensor.log()))
            else:
                self.register_parameter(key, nn.Parameter(tensor))

    def numbers(self, dtype: torch.dtype | None = None) -> Numbers:
        """All numbers by name, in `dtype` (None: as they are kept)."""
        found: Numbers = {}
        for key in self._names:
            logarithm = getattr(self, f"log_{key}", None)
            tensor: Tensor = getattr(self, key) if logarithm is None else logarithm.exp()
            found[key] = tensor if dtype is None else tensor.to(dtype)
        return found

    def step(self, x: Tensor, state: Any, numbers: Numbers) -> tuple[Tensor, Any]:
        """Output and state after one step with input `x`, `[batch, ...features]`."""
        raise TypeError(f"{type(self).__name__} must define step(x, state, numbers)")

    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Output of every step, `[time, batch, ...features]`, and the state after the last."""
        state = self.start(x, state)
        numbers, outputs = self.numbers(x.dtype), []
        for now in x.unbind(0):
            if not self.temporal_gradient:
                state = type(state)(*(value.detach() for value in state))
            output, state = self.step(now, state, numbers)
            outputs.append(output)
        return (torch.stack(outputs) if outputs else self.empty(x)), self.finish(state)

    def start(self, x: Tensor, state: Any) -> Any:
        """The state to start from, after a look at what was given."""
        check_input(self, x)
        check_finite(x, f"{type(self).__name__} input")
        state = self.initial_state(x) if state is None else state
        self.check_state(state, x)
        return state

    def finish(self, state: Any) -> Any:
        """The last state, if it is finite."""
        for value in state:
            check_finite(value, f"{type(self).__name__} state, which left its range: is the step too long?")
        return state

    def empty(self, x: Tensor) -> Tensor:
        """The output of no steps."""
        return torch.empty_like(x)

    def extra_repr(self) -> str:
        """The numbers, for `repr`."""
        numbers = self.numbers()
        return ", ".join(describe(name, numbers[name]) for name in self._names)


class SpikingCell(Cell):
    """A `Cell` that fires where its membrane reaches `threshold`, with a surrogate gradient.

    Subclass it with `initial_state`, `free` (the step of a neuron that does not fire) and `reset`.
    """

    threshold: Tensor

    def __init__(
        self,
        given: Mapping[str, float | Tensor],
        *,
        surrogate: Surrogate,
        detach_reset: bool = True,
        positive: Sequence[str] = (),
        fixed: Sequence[str] = ("dt",),
        learn: bool | Sequence[str] = False,
        features: Sequence[int] | int | None = None,
        temporal_gradient: bool = True,
    ) -> None:
        super().__init__(
            given,
            positive=positive,
            fixed=fixed,
            learn=learn,
            features=features,
            temporal_gradient=temporal_gradient,
        )
        self.surrogate, self.detach_reset = surrogate, detach_reset
        if "reset" in given:
            start, end = (torch.as_tensor(given[key]) for key in ("reset", "threshold"))
            if not bool((start < end).all()):
                raise ConfigError(
                    f"{type(self).__name__}.reset: got {given['reset']}, expected less than the threshold "
                    f"{given['threshold']}"
                )

    def free(self, x: Tensor, state: Any, numbers: Numbers) -> Any:
        """State after one step, before a spike resets it."""
        raise TypeError(f"{type(self).__name__} must define free(x, state, numbers)")

    def reset_by(self, spike: Tensor, state: Any, numbers: Numbers) -> Any:
        """State after the reset of the neurons that fired; `spike` is 1 there, else 0."""
        raise TypeError(f"{type(self).__name__} must define reset_by(spike, state, numbers)")

    def step(self, x: Tensor, state: Any, numbers: Numbers) -> tuple[Tensor, Any]:
        """Spikes and state after one step."""
        state = self.free(x, state, numbers)
        spike = self.surrogate(state.membrane - numbers["threshold"])
        return spike, self.reset_by(spike.detach() if self.detach_reset else spike, state, numbers)


def put(gate: Tensor, value: Tensor, otherwise: Tensor) -> Tensor:
    """`value` where `gate` is 1, `otherwise` where it is 0, with the gradient of both and of the gate.

    >>> put(torch.tensor([0.0, 1.0]), torch.tensor(5.0), torch.tensor([1.0, 2.0])).tolist()
    [1.0, 5.0]
    """
    return otherwise * (1 - gate) + value * gate
