"""Spiking units with an astrocyte beside each: a slow calcium signal that modulates synapses and thresholds.

A reconstruction: the paper's abstract tells what the unit does (an astrocyte, fed by a neuron's synapses, modulates its
drive; training parallel over time, inference as a recurrence), not its equations. These are the simplest that do so.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from neuropil.errors import ConfigError, ShapeError, StateError
from neuropil.kernels.leaky import leaky_scan
from neuropil.nn.finite import check_finite
from neuropil.nn.integrator import check_input
from neuropil.nn.stateful import Stateful
from neuropil.nn.surrogate import ArcTan, Surrogate

if TYPE_CHECKING:
    from jaxtyping import Float


class AstrocyteState(NamedTuple):
    """What a unit with an astrocyte carries from one step to the next."""

    calcium: Tensor  # [batch, out_features]
    membrane: Tensor  # [batch, out_features]


class MixerState(NamedTuple):
    """What a `SpikingTokenMixer` carries from token to token; its size does not depend on how many there were."""

    previous: Tensor  # [batch, width], spikes of the token before
    calcium: Tensor  # [batch, hidden]
    membrane: Tensor  # [batch, hidden]


def _check_features(module: nn.Module, x: Tensor, features: int) -> None:
    check_input(module, x)
    name = type(module).__name__
    if x.dim() != 3 or x.shape[-1] != features:
        raise ShapeError(f"{name}: got {list(x.shape)}, expected [time, batch, {features}]")
    check_finite(x, f"{name} input")


def _check_state(module: nn.Module, state: object, kind: type, x: Tensor, sizes: tuple[int, ...]) -> None:
    name = type(module).__name__
    if not isinstance(state, kind):
        raise StateError(f"{name}: state is a {type(state).__name__}, expected a call's state or None")
    for value, size in zip(state, sizes, strict=True):  # type: ignore[call-overload]
        if value.shape != (x.shape[1], size):
            raise StateError(
                f"{name}: a state of shape {list(value.shape)}, the input needs {[x.shape[1], size]}; "
                "pass state=None to start at rest"
            )


class AstrocyteModulatedSpikingUnit(Stateful):
    """Spiking neurons whose synapses also feed an astrocyte, which in turn modulates drive and threshold.

        a[t] = decay_a * a[t-1] + relu(U x[t])                       calcium, slow
        g[t] = sigmoid(V a[t-1] + b)                                 gliotransmission
        v[t] = decay_v * v[t-1] + (1 + g[t]) * (W x[t] + c)          membrane
        s[t] = 1[v[t] + k * a[t-1] >= threshold]

    Both states are linear in themselves (a spike does not reset the membrane), so that training scans the whole
    sequence at once, and going step by step gives the same numbers. Calcium is not normalised: one symbol is as loud
    in the slowest channel as in the fastest. Under a constant drive it grows to `tau * drive`.

    Args:
        in_features, out_features: Number of inputs and of neurons, each with its astrocyte.
        shortest, longest: Time constants of the calcium in steps, spread between them evenly in their logarithm.
        tau: Of the membrane, in steps; `None` spreads it like the calcium's.
        threshold: Membrane at which a neuron fires, > 0.
        astrocyte: Without it `a = 0`, and what remains is a leaky neuron without reset.
        surrogate: Gradient of the spike.
        generator: Of the weights, drawn as those of `nn.Linear`.

    All time constants, `k` and the weights learn.

    Raises:
        ConfigError: A setting is out of range.
        ShapeError, StateError: Input or state do not fit.
        NonFiniteError: Input or state are NaN or infinite.

    After Shen et al. (2023), "Astrocyte-enabled advancements in spiking neural networks for large language modeling",
    arXiv:2312.07625; the equations are reconstructed.

    >>> unit = AstrocyteModulatedSpikingUnit(4, 8)
    >>> spikes, state = unit(torch.rand(50, 2, 4))  # [time, batch, in_features]
    >>> spikes.shape, state.calcium.shape
    (torch.Size([50, 2, 8]), torch.Size([2, 8]))
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        shortest: float = 2.0,
        longest: float = 512.0,
        tau: float | None = 2.0,
        threshold: float = 1.0,
        astrocyte: bool = True,
        surrogate: Surrogate = ArcTan(2.0),  # noqa: B008  frozen
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        if in_features < 1 or out_features < 1:
            raise ConfigError(f"{name}: {in_features} inputs and {out_features} neurons, expected 1 or more")
        if not 0 < shortest <= longest < math.inf:
            raise ConfigError(
                f"{name}: shortest={shortest}, longest={longest}; expected 0 < shortest <= longest"
            )
        if not (tau is None or 0 < tau < math.inf) or not 0 < threshold < math.inf:
            raise ConfigError(f"{name}: tau={tau}, threshold={threshold}; expected finite numbers > 0")
        self.in_features, self.out_features, self.surrogate = in_features, out_features, surrogate
        self.threshold = threshold
        spread = torch.logspace(math.log10(shortest), math.log10(longest), out_features)
        self.log_membrane_tau = nn.Parameter((spread if tau is None else torch.full_like(spread, tau)).log())
        self.drive = drawn_linear(in_features, out_features, generator)
        self.uptake: nn.Linear | None = None
        self.release: nn.Linear | None = None
        if astrocyte:
            self.uptake = drawn_linear(in_features, out_features, generator)
            self.release = drawn_linear(out_features, out_features, generator)
            with torch.no_grad():  # calcium is large: gates that begin saturated do not learn
                self.release.weight.mul_(0.1)
            self.log_calcium_tau = nn.Parameter(spread.log())
            self.excitation = nn.Parameter(torch.full((out_features,), 0.1))

    def initial_state(self, x: Tensor) -> AstrocyteState:
        """No calcium and membranes of zero, for `x` of shape `[time, batch, in_features]`."""
        return AstrocyteState(*(x.new_zeros(x.shape[1], self.out_features) for _ in range(2)))

    def check_state(self, state: object, x: Tensor) -> None:
        """Raise StateError when `state` was made for another batch."""
        _check_state(self, state, AstrocyteState, x, (self.out_features,) * 2)

    def forward(
        self, x: Float[Tensor, "time batch inputs"], state: AstrocyteState | None = None
    ) -> tuple[Float[Tensor, "time batch outputs"], AstrocyteState]:
        """Spikes of every step, and the state after the last."""
        _check_features(self, x, self.in_features)
        state = self.initial_state(x) if state is None else state
        self.check_state(state, x)
        drive, bonus, calcium = self.drive(x), None, state.calcium
        if self.uptake is not None and self.release is not None:
            decay = torch.exp(-torch.exp(-self.log_calcium_tau))
            every, calcium = leaky_scan(self.uptake(x).relu(), state.calcium, decay)
            before = torch.cat([state.calcium.unsqueeze(0), every])[:-1]
            drive = drive * (1 + torch.sigmoid(self.release(before)))
            bonus = self.excitation * before
        membranes, membrane = leaky_scan(drive, state.membrane, torch.exp(-torch.exp(-self.log_membrane_tau)))
        spikes = self.surrogate((membranes if bonus is None else membranes + bonus) - self.threshold)
        check_finite(membrane, "AstrocyteModulatedSpikingUnit membrane")
        check_finite(calcium, "AstrocyteModulatedSpikingUnit calcium")
        return spikes, AstrocyteState(calcium, membrane)

    def extra_repr(self) -> str:
        """Whether there are astrocytes, for printing."""
        return f"astrocyte={self.uptake is not None}"


class SpikingTokenMixer(Stateful):
    """A block of a spiking language model: tokens are mixed over time, then channels, each beside a residual path.

    The stream `[token, batch, width]` is normalised and turned into spikes; each token's are mixed with those of the
    token before (a learned share per channel), drive an `AstrocyteModulatedSpikingUnit`, whose spikes are added to the
    stream through a linear layer. A spiking layer without memory then mixes channels likewise. Nothing but spikes meets
    the weights: the shifted mixture is two products of spikes, as the shares can be moved into the weights.

    Args:
        width: Of the stream.
        hidden: Neurons with memory, and neurons of the channel mixing.
        unit: Settings of the `AstrocyteModulatedSpikingUnit`.
        surrogate: Gradient of the spikes at both entrances.
        generator: Of the weights.

    Raises as `AstrocyteModulatedSpikingUnit` does. Token shift: Peng et al. (2023), "RWKV", arXiv:2305.13048.

    >>> block = SpikingTokenMixer(16, 32)
    >>> tokens = torch.randn(20, 2, 16)
    >>> whole, _ = block(tokens)
    >>> first, state = block(tokens[:7])
    >>> rest, _ = block(tokens[7:], state)
    >>> torch.allclose(torch.cat([first, rest]), whole, atol=1e-5)
    True
    """

    def __init__(
        self,
        width: int,
        hidden: int,
        *,
        surrogate: Surrogate = ArcTan(2.0),  # noqa: B008  frozen
        generator: torch.Generator | None = None,
        **unit: Any,
    ) -> None:
        super().__init__()
        self.unit = AstrocyteModulatedSpikingUnit(
            width, hidden, surrogate=surrogate, generator=generator, **unit
        )
        self.width, self.hidden, self.surrogate = width, hidden, surrogate
        self.norm, self.channel_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.shift_logit = nn.Parameter(torch.zeros(width))
        self.mixed = drawn_linear(hidden, width, generator)
        self.up, self.down = drawn_linear(width, hidden, generator), drawn_linear(hidden, width, generator)

    def initial_state(self, x: Tensor) -> MixerState:
        """Nothing heard before, for `x` of shape `[token, batch, width]`."""
        hidden = x.new_zeros(x.shape[1], self.hidden)
        return MixerState(x.new_zeros(x.shape[1], self.width), hidden, hidden.clone())

    def check_state(self, state: object, x: Tensor) -> None:
        """Raise StateError when `state` was made for another batch."""
        _check_state(self, state, MixerState, x, (self.width, self.hidden, self.hidden))

    def forward(
        self, x: Float[Tensor, "token batch width"], state: MixerState | None = None
    ) -> tuple[Float[Tensor, "token batch width"], MixerState]:
        """The stream after the block, and the state after the last token."""
        _check_features(self, x, self.width)
        state = self.initial_state(x) if state is None else state
        self.check_state(state, x)
        spikes = self.surrogate(self.norm(x))
        every = torch.cat([state.previous.unsqueeze(0), spikes])
        share = torch.sigmoid(self.shift_logit)
        heard, inner = self.unit(
            share * spikes + (1 - share) * every[:-1], AstrocyteState(state.calcium, state.membrane)
        )
        x = x + self.mixed(heard)
        keys = self.surrogate(self.up(self.surrogate(self.channel_norm(x))))
        return x + self.down(keys), MixerState(every[-1], *inner)


def drawn_linear(inputs: int, outputs: int, generator: torch.Generator | None) -> nn.Linear:
    """A linear layer with weights and biases drawn from `generator` as `nn.Linear` draws them.

    >>> drawn_linear(3, 2, torch.Generator().manual_seed(0)).weight.shape
    torch.Size([2, 3])
    """
    layer = nn.Linear(inputs, outputs)
    bound = inputs**-0.5
    with torch.no_grad():
        layer.weight.uniform_(-bound, bound, generator=generator)
        layer.bias.uniform_(-bound, bound, generator=generator)
    return layer
