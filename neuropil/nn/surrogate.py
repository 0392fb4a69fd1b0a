"""Surrogate gradients: a step function forward, a smooth bump backward.

A spike is the step `1[u >= 0]` of the membrane's distance `u` to its threshold. Its derivative is zero almost
everywhere, so training replaces it by the derivative of a smooth stand-in. Review: Neftci, Mostafa and Zenke
(2019), "Surrogate gradient learning in spiking neural networks".
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from neuropil.errors import ConfigError


class _Spike(torch.autograd.Function):
    """The step forward, `surrogate.derivative` backward."""

    generate_vmap_rule = True

    @staticmethod
    def forward(distance: Tensor, surrogate: Surrogate) -> Tensor:
        return (distance >= 0).to(distance.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Surrogate], output: Tensor) -> None:
        distance, ctx.surrogate = inputs
        ctx.save_for_backward(distance)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (distance,) = ctx.saved_tensors
        return gradient * ctx.surrogate.derivative(distance), None


class Surrogate:
    """A spike's gradient; subclass it with `derivative` and `smooth` for one of your own.

    >>> import torch
    >>> u = torch.tensor([-0.5, 0.0, 0.5], requires_grad=True)
    >>> spikes = Sigmoid(slope=4.0)(u)
    >>> spikes.sum().backward()
    >>> spikes.tolist(), round(float(u.grad[1]), 4)
    ([0.0, 1.0, 1.0], 1.0)
    """

    fused: ClassVar[str] = ""  # name of the compiled derivative; a class without one runs in plain torch

    @property
    def scale(self) -> float:
        """The one number of the formula, as the compiled derivative takes it."""
        return 1.0

    def derivative(self, u: Tensor) -> Tensor:
        """Stand-in for the derivative of the step at `u` (membrane minus threshold), elementwise."""
        raise TypeError(f"{type(self).__name__} must define derivative(u)")

    def smooth(self, u: Tensor) -> Tensor:
        """Primitive of `derivative`, 1/2 at `u == 0`: the smooth stand-in of the step, elementwise."""
        raise TypeError(f"{type(self).__name__} must define smooth(u)")

    def __call__(self, u: Tensor) -> Tensor:
        """Spikes `1[u >= 0]` in the dtype of `u`, with `derivative` as their gradient."""
        spikes: Tensor = _Spike.apply(u, self)  # type: ignore[no-untyped-call]
        return spikes


def _positive(owner: Surrogate, field: str, value: float, *, finite: bool = True) -> None:
    if not value > 0 or (finite and math.isinf(value)):
        expected = "a finite number > 0" if finite else "a number > 0"
        raise ConfigError(f"{type(owner).__name__}.{field}: got {value}, expected {expected}")


@dataclass(frozen=True)
class Sigmoid(Surrogate):
    """Derivative of the logistic function, `slope * s * (1 - s)` with `s = sigmoid(slope * u)`.

    `smooth(u) = sigmoid(slope * u)`; peak `slope / 4`, area 1. Raises ConfigError unless `slope > 0`.

    >>> float(Sigmoid(4.0).derivative(torch.tensor(0.0)))
    1.0
    """

    slope: float = 4.0
    fused: ClassVar[str] = "sigmoid"

    def __post_init__(self) -> None:
        _positive(self, "slope", self.slope)

    @property
    def scale(self) -> float:
        """The slope."""
        return self.slope

    def derivative(self, u: Tensor) -> Tensor:
        """`slope * s * (1 - s)`."""
        s = torch.sigmoid(self.slope * u)
        return self.slope * s * (1 - s)

    def smooth(self, u: Tensor) -> Tensor:
        """`sigmoid(slope * u)`."""
        return torch.sigmoid(self.slope * u)


@dataclass(frozen=True)
class ArcTan(Surrogate):
    """Derivative of the arctangent, `(slope / 2) / (1 + (pi / 2 * slope * u)**2)`.

    `smooth(u) = atan(pi / 2 * slope * u) / pi + 1/2`; peak `slope / 2`, area 1. Fang et al. (2021),
    "Incorporating learnable membrane time constant". Raises ConfigError unless `slope > 0`.

    >>> float(ArcTan(2.0).derivative(torch.tensor(0.0)))
    1.0
    """

    slope: float = 2.0
    fused: ClassVar[str] = "arctan"

    def __post_init__(self) -> None:
        _positive(self, "slope", self.slope)

    @property
    def scale(self) -> float:
        """The slope."""
        return self.slope

    def derivative(self, u: Tensor) -> Tensor:
        """`(slope / 2) / (1 + (pi / 2 * slope * u)**2)`."""
        return 0.5 * self.slope / (1 + (0.5 * math.pi * self.slope * u) ** 2)

    def smooth(self, u: Tensor) -> Tensor:
        """`atan(pi / 2 * slope * u) / pi + 1/2`."""
        return torch.atan(0.5 * math.pi * self.slope * u) / math.pi + 0.5


@dataclass(frozen=True)
class FastSigmoid(Surrogate):
    """Derivative of the fast sigmoid, `1 / (1 + slope * |u|)**2`.

    `smooth(u) = u / (1 + slope * |u|) + 1/2`; peak 1, area `2 / slope`: the usual form is not normalised.
    Zenke and Ganguli (2018), "SuperSpike". Raises ConfigError unless `slope > 0`.

    >>> float(FastSigmoid(25.0).derivative(torch.tensor(0.0)))
    1.0
    """

    slope: float = 25.0
    fused: ClassVar[str] = "fast_sigmoid"

    def __post_init__(self) -> None:
        _positive(self, "slope", self.slope)

    @property
    def scale(self) -> float:
        """The slope."""
        return self.slope

    def derivative(self, u: Tensor) -> Tensor:
        """`1 / (1 + slope * |u|)**2`."""
        return 1 / (1 + self.slope * u.abs()) ** 2

    def smooth(self, u: Tensor) -> Tensor:
        """`u / (1 + slope * |u|) + 1/2`."""
        return u / (1 + self.slope * u.abs()) + 0.5


@dataclass(frozen=True)
class Triangle(Surrogate):
    """Triangle of half-width `width`, `max(0, 1 - |u| / width) / width`.

    `smooth` joins 0 and 1 by two parabolas over `[-width, width]`; peak `1 / width`, area 1. Bellec et al.
    (2018), "Long short-term memory and learning-to-learn in networks of spiking neurons". Raises ConfigError
    unless `width > 0`.

    >>> Triangle(1.0).derivative(torch.tensor([-1.0, 0.0, 0.5])).tolist()
    [0.0, 1.0, 0.5]
    """

    width: float = 1.0
    fused: ClassVar[str] = "triangle"

    def __post_init__(self) -> None:
        _positive(self, "width", self.width)

    @property
    def scale(self) -> float:
        """The half-width."""
        return self.width

    def derivative(self, u: Tensor) -> Tensor:
        """`max(0, 1 - |u| / width) / width`."""
        return (1 - u.abs() / self.width).clamp(min=0) / self.width

    def smooth(self, u: Tensor) -> Tensor:
        """`1/2 + z - z * |z| / 2` with `z = u / width` clamped to [-1, 1]."""
        z = (u / self.width).clamp(-1, 1)
        return 0.5 + z - 0.5 * z * z.abs()


@dataclass(frozen=True)
class StraightThrough(Surrogate):
    """The straight-through estimator: the gradient passes unchanged where `|u| <= width / 2`, else it stops.

    `smooth(u) = clamp(u, -width / 2, width / 2) + 1/2`; peak 1, area `width`; `width=math.inf` never stops
    it. Bengio et al. (2013), "Estimating or propagating gradients through stochastic neurons"; the window as
    in Wu et al. (2018), "Spatio-temporal backpropagation". Raises ConfigError unless `width > 0`.

    >>> StraightThrough(1.0).derivative(torch.tensor([-0.6, 0.0, 0.5])).tolist()
    [0.0, 1.0, 1.0]
    """

    width: float = 1.0
    fused: ClassVar[str] = "straight_through"

    def __post_init__(self) -> None:
        _positive(self, "width", self.width, finite=False)

    @property
    def scale(self) -> float:
        """The whole width of the window."""
        return self.width

    def derivative(self, u: Tensor) -> Tensor:
        """`1[|u| <= width / 2]`."""
        return (u.abs() <= 0.5 * self.width).to(u.dtype)

    def smooth(self, u: Tensor) -> Tensor:
        """`clamp(u, -width / 2, width / 2) + 1/2`."""
        return u.clamp(-0.5 * self.width, 0.5 * self.width) + 0.5
