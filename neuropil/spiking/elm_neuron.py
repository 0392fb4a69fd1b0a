"""The expressive leaky memory neuron: branches that integrate, memories of many time scales, a small network between.

Spieler, Rahaman, Martius, Schölkopf and Levina (2024), "The expressive leaky memory neuron: an efficient and expressive
phenomenological neuron model can solve long-horizon tasks", in the version whose update has a gain of its own.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from neuropil.errors import ConfigError, ShapeError, StateError
from neuropil.kernels.leaky import leaky_scan
from neuropil.kernels.leaky_memory import leaky_memory_scan
from neuropil.nn.finite import check_finite
from neuropil.nn.stateful import Stateful

if TYPE_CHECKING:
    from jaxtyping import Float


class ELMState(NamedTuple):
    """What an expressive leaky memory neuron carries from one step to the next."""

    branch: Tensor  # [batch, branches], leaky sums of synaptic input
    memory: Tensor  # [batch, memories]


class ELM(Stateful):
    """An expressive leaky memory neuron, or a layer of its memories; a linear layer behind it reads them.

    Synapses, whose weights are positive, reach branches, leaky sums of one time constant. A network of one hidden layer
    looks at the branches and at what is left of the memories, and writes to the memories, which decay with
    time constants from `tau_range`, evenly spaced on a logarithmic scale:

        b[t] = kappa_b b[t-1] + sum_s relu(weight_s) x[t, s]
        d[t] = kappa_m m[t-1]
        m[t] = d[t] + (1 - kappa_lambda) psi(MLP([b[t], d[t]])),  psi(z) = 1.7159 tanh(2 z / 3)

    with `kappa = exp(-dt / tau)` and `kappa_lambda = exp(-strength * dt / tau_m)`: slow memories take small steps.
    Branches are computed for all steps at once; the rest, with all its products, is one compiled call.

    Args:
        num_input: Number of inputs.
        num_memory: Number of memories, the output's features.
        num_branch: Branches, each with a window of neighbouring inputs; None: one per input.
        synapses_per_branch: Inputs of a branch; None: as many as it takes to reach all, without overlap. Windows are
            evenly spaced, and overlap where they are longer.
        hidden: Hidden units of the network; None: twice the memories.
        tau_branch: Time constant of branches, in units of `dt`, > 0.
        tau_range: Shortest and longest time constant of memories, both > 0.
        learn_tau: Make the memories' time constants Parameters, within the range.
        strength: Factor lambda of an update, > 0.
        dt: Duration of a step, > 0.

    Raises:
        ConfigError: A setting is out of range.
        ShapeError, StateError: Input or state do not fit.
        NonFiniteError: The input is NaN or infinite.

    >>> from neuropil.nn import RateReadout, Sequential
    >>> net = Sequential(ELM(28, 16, tau_range=(1, 100)), nn.Linear(16, 10), RateReadout())
    >>> net(torch.rand(84, 5, 28)).shape  # [time, batch, inputs]
    torch.Size([5, 10])
    """

    routes: Tensor
    fixed_tau: Tensor | None
    tau_branch: Tensor

    def __init__(
        self,
        num_input: int,
        num_memory: int,
        *,
        num_branch: int | None = None,
        synapses_per_branch: int | None = None,
        hidden: int | None = None,
        tau_branch: float = 5.0,
        tau_range: tuple[float, float] = (1.0, 1000.0),
        learn_tau: bool = False,
        strength: float = 5.0,
        dt: float = 1.0,
    ) -> None:
        super().__init__()
        branches = num_input if num_branch is None else num_branch
        units = 2 * num_memory if hidden is None else hidden
        for field, count in (("num_input", num_input), ("num_memory", num_memory), ("num_branch", branches),
                             ("hidden", units)):  # fmt: skip
            if count < 1:
                raise ConfigError(f"ELM.{field}: got {count}, expected at least 1")
        for field, value in (("tau_branch", tau_branch), ("strength", strength), ("dt", dt)):
            if not (value > 0 and math.isfinite(value)):
                raise ConfigError(f"ELM.{field}: got {value}, expected a finite number > 0")
        shortest, longest = tau_range
        if not (0 < shortest <= longest and math.isfinite(longest)):
            raise ConfigError(f"ELM.tau_range: got {tau_range}, expected (shortest, longest), finite and > 0")
        if learn_tau and shortest == longest:
            raise ConfigError(
                f"ELM.tau_range: got {tau_range}, expected a range for time constants that learn"
            )
        self.num_input, self.num_memory, self.num_branch = num_input, num_memory, branches
        self.tau_range, self.strength, self.dt = (float(shortest), float(longest)), strength, dt
        self.register_buffer("routes", windows(num_input, branches, synapses_per_branch))
        self.register_buffer("tau_branch", torch.tensor(float(tau_branch)))
        self.synapses = nn.Parameter(torch.full(self.routes.shape, 0.5))
        self.look = nn.Linear(branches + num_memory, units)
        self.write = nn.Linear(units, num_memory)
        share = torch.linspace(0, 1, num_memory) if num_memory > 1 else torch.full((1,), 0.5)
        self.tau_logit = nn.Parameter(torch.logit(share.clamp(1e-3, 1 - 1e-3))) if learn_tau else None
        self.register_buffer("fixed_tau", None if learn_tau else self._spaced(share))

    def _spaced(self, share: Tensor) -> Tensor:
        """Time constants at shares of the range, on a logarithmic scale."""
        low, high = map(math.log, self.tau_range)
        return torch.exp(low + (high - low) * share)

    @property
    def tau(self) -> Float[Tensor, " memories"]:
        """Time constants of the memories, in units of `dt`."""
        if self.tau_logit is not None:
            return self._spaced(torch.sigmoid(self.tau_logit))
        fixed: Tensor = self.fixed_tau  # type: ignore[assignment]
        return fixed

    def initial_state(self, x: Tensor) -> ELMState:
        """Nothing in the branches and nothing remembered, for `x` of shape `[time, batch, inputs]`."""
        batch = x.shape[1]
        return ELMState(x.new_zeros(batch, self.num_branch), x.new_zeros(batch, self.num_memory))

    def check_state(self, state: Any, x: Tensor) -> None:
        """Refuse a state of another batch or layer."""
        wanted = [[x.shape[1], self.num_branch], [x.shape[1], self.num_memory]]
        got = [list(v.shape) for v in state] if isinstance(state, ELMState) else type(state).__name__
        if got != wanted:
            raise StateError(
                f"ELM: state is {got}, the input needs {wanted} ([batch, branches], [batch, memories]); "
                "pass state=None to start at rest"
            )

    def forward(
        self, x: Float[Tensor, "time batch inputs"], state: ELMState | None = None
    ) -> tuple[Float[Tensor, "time batch memories"], ELMState]:
        """Memories after every step, and the state after the last."""
        if x.dim() != 3 or x.shape[2] != self.num_input:
            raise ShapeError(
                f"ELM: input has shape {list(x.shape)}, expected [time, batch, {self.num_input}]"
            )
        check_finite(x, "ELM input")
        rests = state is None
        state = self.initial_state(x) if state is None else state
        self.check_state(state, x)
        if len(x) == 0:
            return x.new_zeros(0, x.shape[1], self.num_memory), state
        seen, look, last = self._look(x, state.branch, rests)
        pace = -self.dt / self.tau
        memories = leaky_memory_scan(
            seen, state.memory, look, self.look.bias, self.write.weight, self.write.bias,
            pace.exp(), -torch.expm1(self.strength * pace),
        )  # fmt: skip
        return memories, ELMState(last, memories[-1])

    def _look(self, x: Tensor, before: Tensor, rests: bool) -> tuple[Tensor, Tensor, Tensor]:
        """What hidden units see of the input, their weights of that and of the memories, the branches' last values.

        Synapses are a matrix, as overlapping windows share inputs. One synapse to each of as many branches as there are
        inputs may weigh what has leaked instead, together with what the hidden units weigh it with: from rest, that is
        the same, and no gradient has to come back through the branches.
        """
        weight = self.synapses.relu()
        decay = torch.exp(-self.dt / self.tau_branch).to(x.dtype)
        if self.num_branch != self.num_input or self.routes.shape[1] > 1:
            matrix = x.new_zeros(self.num_branch, self.num_input).scatter(1, self.routes, weight)
            x = functional.linear(x, matrix)
        elif rests:
            traces, last = leaky_scan(x, before, decay)
            scale = torch.cat([weight[:, 0], weight.new_ones(self.num_memory)])
            return traces, self.look.weight * scale, last * weight[:, 0]
        else:
            x = x * weight[:, 0]
        branches, last = leaky_scan(x, before, decay)
        return branches, self.look.weight, last

    def extra_repr(self) -> str:
        """Sizes and time constants, for `repr`."""
        return (
            f"{self.num_input}, {self.num_memory}, num_branch={self.num_branch}, tau_range={self.tau_range}"
        )


def windows(inputs: int, branches: int, length: int | None = None) -> Tensor:
    """Inputs `[branches, length]` of each branch: evenly spaced windows that together reach all of them if they can.

    >>> windows(5, 2, 3).tolist()
    [[0, 1, 2], [2, 3, 4]]
    """
    length = -(-inputs // branches) if length is None else length
    if not 1 <= length <= inputs:
        raise ConfigError(f"ELM.synapses_per_branch: got {length}, expected 1 to {inputs}, the inputs")
    start = torch.linspace(0, inputs - length, branches).round().long()
    return start.unsqueeze(1) + torch.arange(length)
