"""Leaky integration over time: the membrane that never fires, and what every leaky neuron shares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from neuropil.errors import ConfigError, ShapeError
from neuropil.kernels.finite import check_membrane
from neuropil.kernels.leaky import leaky_scan
from neuropil.nn.stateful import Stateful

if TYPE_CHECKING:
    from jaxtyping import Float


class Leaky(Stateful):
    """What leaky neurons share: a decay in (0, 1], fixed or learned as the logit of a sigmoid."""

    def __init__(
        self, decay: float | Tensor, *, learn_decay: bool, features: Sequence[int] | int | None
    ) -> None:
        super().__init__()
        decays = per_neuron(type(self).__name__, "decay", decay, features)
        if not ((decays > 0) & (decays < 1 if learn_decay else decays <= 1)).all():
            kind, interval = ("a learned", "(0, 1)") if learn_decay else ("a", "(0, 1]")
            raise ConfigError(
                f"{type(self).__name__}.decay: got {decay}, expected {kind} decay in {interval}"
            )
        self.decay_logit = nn.Parameter(torch.logit(decays)) if learn_decay else None
        self.register_buffer("fixed_decay", None if learn_decay else decays)

    @property
    def decay(self) -> Tensor:
        """Share of the membrane kept from one step to the next, in (0, 1]."""
        if self.decay_logit is not None:
            return torch.sigmoid(self.decay_logit)
        fixed: Tensor = self.fixed_decay  # type: ignore[assignment]
        return fixed


class IntegratorState(NamedTuple):
    """What a leaky integrator carries from one step to the next."""

    membrane: Tensor  # [batch, ...features]


class LeakyIntegrator(Leaky):
    """A membrane that leaks and never fires: `v[t] = decay * v[t-1] + x[t]`, given out at every step.

    The usual readout of a spiking network, and the low-pass filter that makes a trace of spikes. Time is in
    steps; `decay` lies in (0, 1] (`exp(-dt / tau)`).

    Args:
        decay: Share of the membrane kept from step to step; a number or a tensor of `features`.
        learn_decay: Make the decay a Parameter, the logit of a sigmoid, so that it stays inside (0, 1).
        features: Shape of one sample, for one decay per neuron.

    Raises:
        ConfigError: The decay is out of range.
        ShapeError, StateError: Input or state do not fit.
        NonFiniteError: The membrane has become NaN or infinite.

    >>> import torch
    >>> membrane, state = LeakyIntegrator(decay=0.5)(torch.ones(3, 1, 1))  # [time, batch, features]
    >>> membrane.flatten().tolist(), state.membrane.item()
    ([1.0, 1.5, 1.75], 1.75)
    """

    def __init__(
        self,
        decay: float | Tensor = 0.5,
        *,
        learn_decay: bool = False,
        features: Sequence[int] | int | None = None,
    ) -> None:
        super().__init__(decay, learn_decay=learn_decay, features=features)

    def initial_state(self, x: Tensor) -> IntegratorState:
        """A membrane of zeros for `x` of shape `[time, batch, ...features]`."""
        return IntegratorState(x.new_zeros(x.shape[1:]))

    def forward(
        self, x: Float[Tensor, "time batch ..."], state: IntegratorState | None = None
    ) -> tuple[Float[Tensor, "time batch ..."], IntegratorState]:
        """Membrane after every step, and the state after the last."""
        check_input(self, x)
        if state is None:
            state = self.initial_state(x)
        self.check_state(state, x)
        membranes, last = leaky_scan(x, state.membrane, self.decay)
        check_finite(self, last)
        return membranes, IntegratorState(last)

    def extra_repr(self) -> str:
        """The decay, for `repr`."""
        return describe("decay", self.decay)


def per_neuron(owner: str, field: str, value: float | Tensor, features: Sequence[int] | int | None) -> Tensor:
    """`value` as a float tensor, one number per neuron where `features` is given.

    >>> per_neuron("LIF", "decay", 0.5, 3).tolist()
    [0.5, 0.5, 0.5]
    """
    tensor = torch.as_tensor(value).detach().clone()
    tensor = tensor if tensor.is_floating_point() else tensor.to(torch.get_default_dtype())
    if features is None:
        return tensor
    shape = (features,) if isinstance(features, int) else tuple(features)
    try:
        return tensor.expand(shape).clone()
    except RuntimeError:
        raise ConfigError(
            f"{owner}.{field}: got shape {list(tensor.shape)}, expected one number or features {list(shape)}"
        ) from None


def describe(name: str, value: Tensor) -> str:
    """`name=number`, or `name=shape` where there is one number per neuron.

    >>> describe("decay", torch.tensor(0.5))
    'decay=0.5'
    """
    return f"{name}={value.item():.4g}" if value.numel() == 1 else f"{name}={list(value.shape)}"


def check_input(module: nn.Module, x: Tensor) -> None:
    """Raise ShapeError unless `x` is a floating-point `[time, batch, ...features]`.

    >>> check_input(nn.Identity(), torch.zeros(3, 1))
    """
    if x.dim() < 2 or not x.is_floating_point():
        raise ShapeError(
            f"{type(module).__name__}: input is {x.dtype} of shape {list(x.shape)}, "
            f"expected floats [time, batch, ...features]"
        )


def check_finite(module: nn.Module, membrane: Tensor) -> None:
    """Raise NonFiniteError for a last membrane that is NaN or infinite; see `check_membrane`.

    >>> check_finite(nn.Identity(), torch.zeros(1))
    """
    check_membrane(type(module).__name__, membrane)
