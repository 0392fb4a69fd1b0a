"""Liquids of memristors: random, never trained, read out by small heads, one modality against another.

Lin, Wang, Li, Wang, Zhang et al. (2023): Resistive memory-based zero-shot liquid state machine for multimodal event
data learning. arXiv:2307.00771; Nature Computational Science 5 (2025).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from neuropil.errors import ConfigError, LabelError, ShapeError, StateError, nearest
from neuropil.nn.finite import check_finite
from neuropil.nn.stateful import Stateful

if TYPE_CHECKING:
    from jaxtyping import Float, Int64

Spread = Literal["lognormal", "normal"]


class Conductances(NamedTuple):
    """Pairs of devices, a weight being what the first conducts more than the second."""

    plus: Tensor
    minus: Tensor


def random_conductances(
    shape: Sequence[int],
    *,
    p_on: float = 0.5,
    spread: float = 0.5,
    distribution: Spread = "lognormal",
    generator: torch.Generator | None = None,
) -> Conductances:
    """What forming leaves of an array of memristor pairs: devices that conduct with mean one, and dead ones.

    Dielectric breakdown is random, which costs nothing to use: these are the weights of the liquid. Lognormal and
    normal spreads are modelling choices; a normal device conducts no less than nothing.

    Args:
        shape: Of the array.
        p_on: Share of devices that were formed, in (0, 1]; the others conduct nothing.
        spread: Standard deviation of a formed device's conductance (`"normal"`), or of its logarithm (`"lognormal"`).

    >>> pair = random_conductances((1000, 10), p_on=0.5, generator=torch.Generator().manual_seed(0))
    >>> round((pair.plus > 0).float().mean().item(), 1), round(pair.plus[pair.plus > 0].mean().item(), 1)
    (0.5, 1.0)
    """
    _check_devices("random_conductances", p_on, spread, distribution)

    def devices() -> Tensor:
        formed = torch.rand(*shape, generator=generator) < p_on
        return formed * _gains(shape, spread, distribution, generator)

    return Conductances(devices(), devices())


def _gains(
    shape: Sequence[int], spread: float, distribution: Spread, generator: torch.Generator | None
) -> Tensor:
    normal = torch.randn(*shape, generator=generator)
    if distribution == "normal":
        return (1 + spread * normal).clamp_min(0)
    return (spread * normal - spread * spread / 2).exp()  # of mean one


def _check_devices(caller: str, p_on: float, spread: float, distribution: str) -> None:
    if not 0 < p_on <= 1:
        raise ConfigError(f"{caller}.p_on: got {p_on}, expected a share in (0, 1]")
    if not 0 <= spread < math.inf:
        raise ConfigError(f"{caller}.spread: got {spread}, expected a number >= 0")
    if distribution not in get_args(Spread):
        raise ConfigError(
            f"{caller}.distribution: got {distribution!r}{nearest(str(distribution), get_args(Spread))}"
        )


class ResistiveWeight(nn.Module):
    """A weight as an array of memristor pairs holds it, for any layer of any model.

    A parametrization: `torch.nn.utils.parametrize.register_parametrization(layer, "weight", ResistiveWeight(...))`. A
    positive weight is written into the first device of its pair, a negative one into the second. Writing is open loop:
    each device conducts its own multiple of what was asked for, a device that was not formed conducts nothing, and
    what is read carries noise. Gradients pass, so that a model can learn on the array it will run on.

    Args:
        shape: Of the weight.
        p_on: Share of devices that work, in (0, 1].
        spread: Of the devices' gains around one, see `random_conductances`.
        distribution: Of the gains, `"lognormal"` or `"normal"`.
        read_noise: Standard deviation of each device's reading, as a share of its conductance, drawn at every use.
        generator: For devices and noise.

    Raises:
        ConfigError: A setting is out of range.
        ShapeError: The weight has another shape than the array.

    >>> from torch.nn.utils.parametrize import register_parametrization
    >>> model = nn.Sequential(nn.Linear(20, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> array = ResistiveWeight(model[0].weight.shape, p_on=0.9, generator=torch.Generator().manual_seed(0))
    >>> _ = register_parametrization(model[0], "weight", array)
    >>> 0 < (model[0].weight == 0).float().mean().item() < 0.3  # some of the devices in use are dead
    True
    """

    plus: Tensor
    minus: Tensor

    def __init__(
        self,
        shape: Sequence[int],
        *,
        p_on: float = 1.0,
        spread: float = 0.1,
        distribution: Spread = "lognormal",
        read_noise: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= read_noise < math.inf:
            raise ConfigError(f"ResistiveWeight.read_noise: got {read_noise}, expected a number >= 0")
        pair = random_conductances(
            shape, p_on=p_on, spread=spread, distribution=distribution, generator=generator
        )
        self.register_buffer("plus", pair.plus)
        self.register_buffer("minus", pair.minus)
        self.read_noise, self.generator = read_noise, generator

    def forward(self, raw: Tensor) -> Tensor:
        """What is read of the array when `raw` was written."""
        if raw.shape != self.plus.shape:
            raise ShapeError(
                f"ResistiveWeight: weight has shape {list(raw.shape)}, the array {list(self.plus.shape)}"
            )
        weight = self.plus * raw.relu() - self.minus * (-raw).relu()
        if self.read_noise:  # one device of each pair is in use
            noise = torch.randn(raw.shape, generator=self.generator).to(raw)
            weight = weight * (1 + self.read_noise * noise)
        return weight

    def extra_repr(self) -> str:
        """Shape and noise, for printing."""
        return f"{list(self.plus.shape)}, read_noise={self.read_noise:g}"


class ResistiveLiquidState(NamedTuple):
    """What the liquid carries from one step to the next."""

    membrane: Tensor  # [batch, units], before the reset that the last spike makes
    spikes: Tensor  # [batch, units], of the last step


class ResistiveLiquid(Stateful):
    """Spiking neurons whose input and recurrent weights are memristor pairs as forming left them. Nothing learns.

        m[t] = decay * m[t-1] * (1 - s[t-1]) + W_in x[t] + W_rec s[t-1]        s[t] = 1[m[t] >= threshold]

    with `W = scale (G+ - G-) / sd`. Follow it with `CountReadout` and any head: the head's training reads the liquid
    once. Set the scales by the firing rate, which decides everything: a few percent of the neurons in a step. Read
    noise of all devices is drawn anew at every step: the sum of a row's independent errors is drawn at once, from
    its exact distribution.

    Args:
        in_features, units: Number of inputs and of neurons.
        scale, recurrent_scale: Standard deviation of an input and a recurrent weight.
        decay: Share of the membrane kept per step, in [0, 1].
        threshold: Membrane at which a neuron fires, > 0.
        p_on, spread, distribution: Of the devices, see `random_conductances`.
        read_noise: Standard deviation of each reading, as a share of the conductance.
        adc_bits: Bits of the converters that read the currents, `None` for exact ones.
        adc_range: Largest current that they tell apart, either way; `None`: four thresholds.
        generator: For devices and noise.

    Raises:
        ConfigError: A setting is out of range.
        ShapeError, StateError: The input or the state does not fit.

    >>> from neuropil.nn import CountReadout, Sequential
    >>> liquid = ResistiveLiquid(16, 50, scale=1.0, threshold=3.0, generator=torch.Generator().manual_seed(0))
    >>> model = Sequential(liquid, CountReadout(), nn.Linear(50, 3))
    >>> model((torch.rand(30, 4, 16) < 0.1).float()).shape, [name for name, _ in model.named_parameters()]
    (torch.Size([4, 3]), ['2.weight', '2.bias'])
    """

    weight: Tensor
    recurrent: Tensor
    variance: Tensor
    recurrent_variance: Tensor

    def __init__(
        self,
        in_features: int,
        units: int,
        *,
        scale: float = 0.5,
        recurrent_scale: float = 0.15,
        decay: float = 0.9,
        threshold: float = 5.0,
        p_on: float = 0.5,
        spread: float = 0.5,
        distribution: Spread = "lognormal",
        read_noise: float = 0.0,
        adc_bits: int | None = None,
        adc_range: float | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("in_features", in_features), ("units", units), ("adc_bits", adc_bits)):
            if value is not None and value < 1:
                raise ConfigError(f"ResistiveLiquid.{name}: got {value}, expected at least 1")
        for name, number in (
            ("scale", scale),
            ("recurrent_scale", recurrent_scale),
            ("read_noise", read_noise),
        ):
            if not 0 <= number < math.inf:
                raise ConfigError(f"ResistiveLiquid.{name}: got {number}, expected a number >= 0")
        for name, number in (
            ("threshold", threshold),
            ("adc_range", 1.0 if adc_range is None else adc_range),
        ):
            if not 0 < number < math.inf:
                raise ConfigError(f"ResistiveLiquid.{name}: got {number}, expected a number > 0")
        if not 0 <= decay <= 1:
            raise ConfigError(f"ResistiveLiquid.decay: got {decay}, expected a share in [0, 1]")
        self.in_features, self.units, self.decay, self.threshold = in_features, units, decay, threshold
        self.read_noise, self.adc_bits, self.generator = read_noise, adc_bits, generator
        self.adc_range = 4 * threshold if adc_range is None else adc_range
        for name, shape, size in (
            ("", (units, in_features), scale),
            ("recurrent", (units, units), recurrent_scale),
        ):
            pair = random_conductances(
                shape, p_on=p_on, spread=spread, distribution=distribution, generator=generator
            )
            weight = pair.plus - pair.minus
            factor = size / weight.std(correction=0).clamp_min(1e-12)
            errors = factor.square() * (pair.plus.square() + pair.minus.square())
            self.register_buffer(name or "weight", factor * weight)
            self.register_buffer(f"{name}_variance".strip("_"), errors)

    def initial_state(self, x: Tensor) -> ResistiveLiquidState:
        """Membranes of zero and no spikes, for `x` of shape `[time, batch, inputs]`."""
        rest = x.new_zeros(x.shape[1], self.units)
        return ResistiveLiquidState(rest, rest.clone())

    def check_state(self, state: ResistiveLiquidState, x: Tensor) -> None:
        """Refuse a state of another batch or another liquid."""
        for name, value in zip(state._fields, state, strict=True):
            if value.shape != (x.shape[1], self.units):
                raise StateError(
                    f"ResistiveLiquid: state.{name} has shape {list(value.shape)}, expected "
                    f"{[x.shape[1], self.units]}; pass state=None to start at rest"
                )

    def forward(
        self, x: Float[Tensor, "time batch inputs"], state: ResistiveLiquidState | None = None
    ) -> tuple[Float[Tensor, "time batch units"], ResistiveLiquidState]:
        """Spikes of every step, 0 or 1, and the state after the last; no gradient passes."""
        if x.dim() != 3 or x.shape[-1] != self.in_features:
            raise ShapeError(
                f"ResistiveLiquid: input is {list(x.shape)}, expected [time, batch, {self.in_features}]"
            )
        check_finite(x, "ResistiveLiquid input")
        state = self.initial_state(x) if state is None else state
        self.check_state(state, x)
        x, (membrane, spikes) = x.detach(), state
        currents = functional.linear(x, self.weight)
        run = []
        for now, given in zip(x.unbind(0), currents.unbind(0), strict=True):
            current = given + functional.linear(spikes, self.recurrent)
            membrane = self.decay * membrane * (1 - spikes) + self._read(current, now, spikes)
            spikes = (membrane >= self.threshold).to(x.dtype)
            run.append(spikes)
        out = torch.stack(run) if run else x.new_empty(0, x.shape[1], self.units)
        return out, ResistiveLiquidState(membrane, spikes)

    def _read(self, current: Tensor, x: Tensor, spikes: Tensor) -> Tensor:
        """The current as noise and converters leave it."""
        if self.read_noise:
            variance = functional.linear(x.square(), self.variance)
            variance = variance + functional.linear(spikes.square(), self.recurrent_variance)
            noise = torch.randn(current.shape, generator=self.generator).to(current)
            current = current + self.read_noise * variance.sqrt() * noise
        if self.adc_bits is not None:
            step = 2 * self.adc_range / 2**self.adc_bits
            most = 2 ** (self.adc_bits - 1)
            current = (current / step).round().clamp(-most, most - 1) * step
        return current

    def extra_repr(self) -> str:
        """Sizes, for printing."""
        return f"{self.in_features}, {self.units}, decay={self.decay:g}, threshold={self.threshold:g}"


class ContrastiveProjection(nn.Module):
    """One modality's way into a space that modalities share: a linear layer, GELU, and length one.

    Args:
        in_features: Of the modality, such as the spike counts of its liquid.
        features: Of the shared space.

    >>> sights, sounds = ContrastiveProjection(50, 8), ContrastiveProjection(20, 8)
    >>> loss = PairedContrastiveLoss()(sights(torch.rand(4, 50)), sounds(torch.rand(4, 20)))
    >>> loss.shape
    torch.Size([])
    """

    def __init__(self, in_features: int, features: int) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, features)

    def forward(self, x: Float[Tensor, "batch inputs"]) -> Float[Tensor, "batch features"]:
        """Rows of length one."""
        return functional.normalize(functional.gelu(self.linear(x)), dim=-1)


class PairedContrastiveLoss(nn.Module):
    """How far each row of one modality is from being nearest to its own partner in the other, both ways.

    `1/2 [CE(a b' / temperature) + CE(b a' / temperature)]`: rows of one batch should be of different classes. Radford
    et al. (2021), "Learning transferable visual models from natural language supervision".

    >>> PairedContrastiveLoss(0.01)(torch.eye(3), torch.eye(3)).item() < 1e-6
    True
    """

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        if not 0 < temperature < math.inf:
            raise ConfigError(f"PairedContrastiveLoss.temperature: got {temperature}, expected a number > 0")
        self.temperature = temperature

    def forward(self, a: Float[Tensor, "pairs features"], b: Float[Tensor, "pairs features"]) -> Tensor:
        """Mean over pairs and both directions."""
        if a.shape != b.shape or a.dim() != 2:
            raise ShapeError(
                f"PairedContrastiveLoss: got {list(a.shape)} and {list(b.shape)}, expected two [pairs, features]"
            )
        check_finite(a, "PairedContrastiveLoss: first modality")
        check_finite(b, "PairedContrastiveLoss: second modality")
        similar = a @ b.mT / self.temperature
        own = torch.arange(len(a), device=a.device)
        forth, back = functional.cross_entropy(similar, own), functional.cross_entropy(similar.mT, own)
        mean: Tensor = (forth + back) / 2
        return mean


def zero_shot(
    queries: Float[Tensor, "queries features"],
    support: Float[Tensor, "samples features"],
    labels: Int64[Tensor, " samples"],
) -> Int64[Tensor, " queries"]:
    """Class of each query by the nearest mean of another modality's samples, by cosine: no class was trained.

    >>> zero_shot(torch.tensor([[1.0, 0.1]]), torch.eye(2), torch.tensor([7, 8])).tolist()
    [7]
    """
    if len(support) != len(labels) or not len(labels):
        raise LabelError(
            f"zero_shot: {len(support)} samples and {len(labels)} labels, expected as many, at least 1"
        )
    classes, place = labels.unique(return_inverse=True)
    sums = support.new_zeros(len(classes), support.shape[1]).index_add(0, place, support)
    nearest_one: Tensor = classes[(queries @ functional.normalize(sums, dim=-1).mT).argmax(-1)]
    return nearest_one
