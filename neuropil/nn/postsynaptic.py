"""Currents that a spike leaves behind in the neuron it arrives at."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from neuropil.errors import ConfigError
from neuropil.kernels.leaky import leaky_scan
from neuropil.nn.cell import Cell


class ExponentialState(NamedTuple):
    """What an exponential synapse carries from one step to the next."""

    current: Tensor  # [batch, ...features]


class AlphaState(NamedTuple):
    """What an alpha synapse carries from one step to the next."""

    rise: Tensor  # [batch, ...features], what still has to come
    current: Tensor  # [batch, ...features]


class DoubleExponentialState(NamedTuple):
    """What a synapse of two time constants carries from one step to the next."""

    fast: Tensor  # [batch, ...features], trace of the input that falls with the rise time
    slow: Tensor  # [batch, ...features], that falls with the decay time


class ExponentialSynapse(Cell):
    """A current that a spike of weight `w` raises by `w` at once, and that falls as `exp(-t / tau)`.

    Exact at any step; one compiled scan over time, forward and backward.

    Args:
        tau: Milliseconds, > 0, a number or a tensor of `features`.
        dt: Length of a step in milliseconds, > 0.
        learn: Make `tau` a Parameter, kept as its logarithm.
        features: Shape of one sample, for one `tau` per neuron.

    Raises:
        ConfigError: A setting is out of range.
        ShapeError, StateError: Input or state do not fit.
        NonFiniteError: The input is NaN or infinite.

    >>> x = torch.tensor([1.0, 0.0, 0.0]).view(3, 1, 1)  # [time, batch, features]
    >>> ExponentialSynapse(tau=1 / math.log(2))(x)[0].flatten().tolist()
    [1.0, 0.5, 0.25]
    """

    def __init__(
        self,
        tau: float | Tensor = 5.0,
        *,
        dt: float = 1.0,
        learn: bool | Sequence[str] = False,
        features: Sequence[int] | int | None = None,
    ) -> None:
        super().__init__({"tau": tau, "dt": dt}, positive=("tau", "dt"), learn=learn, features=features)

    def initial_state(self, x: Tensor) -> ExponentialState:
        """No current, for `x` of shape `[time, batch, ...features]`."""
        return ExponentialState(x.new_zeros(x.shape[1:]))

    def forward(self, x: Tensor, state: ExponentialState | None = None) -> tuple[Tensor, ExponentialState]:
        """Current after every step, and the state after the last."""
        state = self.start(x, state)
        p = self.numbers(x.dtype)
        current, last = leaky_scan(x, state.current, torch.exp(-p["dt"] / p["tau"]))
        return current, ExponentialState(last)


class AlphaSynapse(Cell):
    """A current `w (t / tau) exp(1 - t / tau)` after a spike of weight `w`: it peaks at `w`, a time `tau` later.

    Exact at any step. Rall (1967), "Distinguishing theoretical synaptic potentials computed for different
    soma-dendritic distributions of synaptic input". Arguments and errors as for `ExponentialSynapse`.

    >>> x = torch.zeros(6, 1, 1)
    >>> x[0] = 1.0
    >>> [round(value, 3) for value in AlphaSynapse(tau=2.0)(x)[0].flatten().tolist()]
    [0.0, 0.824, 1.0, 0.91, 0.736, 0.558]
    """

    def __init__(
        self,
        tau: float | Tensor = 5.0,
        *,
        dt: float = 1.0,
        learn: bool | Sequence[str] = False,
        features: Sequence[int] | int | None = None,
    ) -> None:
        super().__init__({"tau": tau, "dt": dt}, positive=("tau", "dt"), learn=learn, features=features)

    def initial_state(self, x: Tensor) -> AlphaState:
        """No current, for `x` of shape `[time, batch, ...features]`."""
        return AlphaState(x.new_zeros(x.shape[1:]), x.new_zeros(x.shape[1:]))

    def forward(self, x: Tensor, state: AlphaState | None = None) -> tuple[Tensor, AlphaState]:
        """Current after every step, and the state after the last."""
        state = self.start(x, state)
        p = self.numbers(x.dtype)
        keep = torch.exp(-p["dt"] / p["tau"])
        # a step moves a share of what has to come into the current, and both decay
        rise, last = leaky_scan(x, state.rise, keep)
        came = torch.cat([state.rise.unsqueeze(0), rise])[: len(x)]
        current, end = leaky_scan(came * (keep * math.e * p["dt"] / p["tau"]), state.current, keep)
        return current, AlphaState(last, end)


class DoubleExponentialSynapse(Cell):
    """A current `w n (exp(-t / decay) - exp(-t / rise))` after a spike of weight `w`, where `n` makes its peak `w`.

    Exact at any step. Arguments and errors as for `ExponentialSynapse`, with two times in place of one.

    Args:
        rise: Milliseconds, > 0 and less than `decay`, a number or a tensor of `features`.
        decay: Milliseconds.
        dt: Length of a step in milliseconds, > 0.
        learn: Which of them are Parameters: none, all, or those named; each is kept as its logarithm.
        features: Shape of one sample, for one pair of times per neuron.

    >>> x = torch.zeros(50, 1, 1)
    >>> x[0] = 1.0
    >>> current, _ = DoubleExponentialSynapse(rise=2.0, decay=8.0, dt=0.5)(x)
    >>> current.argmax().item() * 0.5, round(current.max().item(), 3)  # peak at log(8 / 2) * 2 * 8 / (8 - 2) = 3.7 ms
    (3.5, 0.999)
    """

    def __init__(
        self,
        rise: float | Tensor = 2.0,
        decay: float | Tensor = 8.0,
        *,
        dt: float = 1.0,
        learn: bool | Sequence[str] = False,
        features: Sequence[int] | int | None = None,
    ) -> None:
        given = {"rise": rise, "decay": decay, "dt": dt}
        super().__init__(given, positive=tuple(given), learn=learn, features=features)
        if not bool((torch.as_tensor(rise) < torch.as_tensor(decay)).all()):
            raise ConfigError(
                f"DoubleExponentialSynapse.rise: got {rise}, expected less than the decay {decay}; "
                "for equal times use AlphaSynapse"
            )

    def initial_state(self, x: Tensor) -> DoubleExponentialState:
        """No current, for `x` of shape `[time, batch, ...features]`."""
        return DoubleExponentialState(x.new_zeros(x.shape[1:]), x.new_zeros(x.shape[1:]))

    def forward(
        self, x: Tensor, state: DoubleExponentialState | None = None
    ) -> tuple[Tensor, DoubleExponentialState]:
        """Current after every step, and the state after the last."""
        state = self.start(x, state)
        p = self.numbers(x.dtype)
        rise, decay = p["rise"], p["decay"]
        fast, last_fast = leaky_scan(x, state.fast, torch.exp(-p["dt"] / rise))
        slow, last_slow = leaky_scan(x, state.slow, torch.exp(-p["dt"] / decay))
        peak = torch.log(decay / rise) * rise * decay / (decay - rise)
        scale = 1 / (torch.exp(-peak / decay) - torch.exp(-peak / rise))
        return scale * (slow - fast), DoubleExponentialState(last_fast, last_slow)
