"""Losses on what the output neurons do over time.

Each takes the output neurons' spikes or membranes, `[time, batch, classes]`, and class indices, `[batch]`, and
gives the mean over the batch as a scalar. Behind a readout, which has already done away with time, torch's own
losses serve.

Errors, for all: ShapeError for other shapes, LabelError for a label that is no class.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from neuropil.errors import ConfigError, LabelError, ShapeError

if TYPE_CHECKING:
    from jaxtyping import Float, Int

    Output = Float[Tensor, "time batch classes"]
    Target = Int[Tensor, "samples"]


def latency(spikes: Float[Tensor, "time batch classes"]) -> Float[Tensor, "batch classes"]:
    """Steps that pass before a neuron's first spike; `time` where it never fires.

    Written as `sum_t prod_{k <= t} (1 - s[k])`, which for spikes of 0 and 1 counts the silent steps, and for
    spikes that are independent events of probability `s` is the expected wait: so it has a derivative. A spike
    brings the latency down by the steps that it alone ends; the gradient goes on through the surrogates of the
    neurons.

    >>> latency(torch.tensor([[[0.0, 0.0]], [[1.0, 0.0]], [[1.0, 0.0]]]))
    tensor([[1., 3.]])
    """
    return (1 - spikes).cumprod(0).sum(0)


class RateCrossEntropy(nn.Module):
    """Cross entropy of the firing rates: `-log softmax(scale * r)[target]`, `r = (1/T) sum_t x[t]`.

    Rates lie in [0, 1], where a softmax is nearly flat; `scale` > 0 sharpens it.

    >>> spikes = torch.tensor([[[1.0, 0.0]], [[1.0, 1.0]]])
    >>> round(RateCrossEntropy(scale=2.0)(spikes, torch.tensor([0])).item(), 4)
    0.3133
    """

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = _positive(self, "scale", scale)

    def forward(self, output: Output, target: Target) -> Float[Tensor, ""]:
        """Mean over the batch."""
        _check(self, output, target)
        return functional.cross_entropy(self.scale * output.mean(0), target)


class CountCrossEntropy(nn.Module):
    """Cross entropy of the spike counts: `-log softmax(n)[target]`, `n = sum_t x[t]`.

    >>> spikes = torch.tensor([[[1.0, 0.0]], [[1.0, 1.0]]])
    >>> round(CountCrossEntropy()(spikes, torch.tensor([0])).item(), 4)
    0.3133
    """

    def forward(self, output: Output, target: Target) -> Float[Tensor, ""]:
        """Mean over the batch."""
        _check(self, output, target)
        return functional.cross_entropy(output.sum(0), target)


class StepCrossEntropy(nn.Module):
    """Cross entropy at every step: `(1/T) sum_t -log softmax(x[t])[target]`.

    Each step has an error of its own, as online learning needs it.

    >>> spikes = torch.tensor([[[1.0, 0.0]], [[1.0, 1.0]]])
    >>> round(StepCrossEntropy()(spikes, torch.tensor([0])).item(), 4)
    0.5032
    """

    def forward(self, output: Output, target: Target) -> Float[Tensor, ""]:
        """Mean over time and batch."""
        _check(self, output, target)
        targets = target.expand(output.shape[0], -1)
        return functional.cross_entropy(output.flatten(0, 1), targets.flatten())


class RateMSE(nn.Module):
    """Squared distance of the firing rates from wanted ones: mean over batch and classes of `(r - r*)^2`.

    `r = (1/T) sum_t x[t]`; `r*` is `correct` for the target class and `incorrect` for the others, spikes per
    step.

    >>> spikes = torch.tensor([[[1.0, 0.0]], [[1.0, 1.0]]])
    >>> RateMSE()(spikes, torch.tensor([0])).item()
    0.125
    """

    def __init__(self, correct: float = 1.0, incorrect: float = 0.0) -> None:
        super().__init__()
        self.correct, self.incorrect = correct, incorrect

    def forward(self, output: Output, target: Target) -> Float[Tensor, ""]:
        """Mean over batch and classes."""
        _check(self, output, target)
        rates = output.mean(0)
        is_target = functional.one_hot(target, output.shape[-1]).bool()
        wanted = torch.where(is_target, self.correct, self.incorrect).to(rates.dtype)
        return functional.mse_loss(rates, wanted)


class LatencyCrossEntropy(nn.Module):
    """Cross entropy of how early the neurons fire: `-log softmax(-scale * latency(s))[target]`.

    The target's neuron learns to be the first. Spikes are 0 or 1. Coding by first spikes: Bohte, Kok and
    La Poutre (2002); its cross entropy: Mostafa (2017).

    >>> spikes = torch.tensor([[[0.0, 0.0]], [[1.0, 0.0]]])
    >>> round(LatencyCrossEntropy()(spikes, torch.tensor([0])).item(), 4)
    0.3133
    """

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = _positive(self, "scale", scale)

    def forward(self, output: Output, target: Target) -> Float[Tensor, ""]:
        """Mean over the batch."""
        _check(self, output, target)
        return functional.cross_entropy(-self.scale * latency(output), target)


class MembraneCrossEntropy(nn.Module):
    """Cross entropy of the highest membranes: `-log softmax(max_t u[t])[target]`.

    For output neurons that integrate and do not fire.

    >>> membranes = torch.tensor([[[1.0, 0.0]], [[0.0, -1.0]]])
    >>> round(MembraneCrossEntropy()(membranes, torch.tensor([0])).item(), 4)
    0.3133
    """

    def forward(self, output: Output, target: Target) -> Float[Tensor, ""]:
        """Mean over the batch."""
        _check(self, output, target)
        return functional.cross_entropy(output.amax(0), target)


def _positive(loss: nn.Module, field: str, value: float) -> float:
    if not 0 < value < float("inf"):
        raise ConfigError(f"{type(loss).__name__}.{field}: got {value}, need a finite number > 0")
    return float(value)


def _check(loss: nn.Module, output: Tensor, target: Tensor) -> None:
    name = type(loss).__name__
    if output.dim() != 3 or output.shape[0] == 0 or target.shape != output.shape[1:2]:
        raise ShapeError(
            f"{name}: got output {list(output.shape)} and target {list(target.shape)}, "
            "expected [time, batch, classes] and [batch]"
        )
    if torch.compiler.is_compiling() or target.numel() == 0:
        return
    low, high = (int(value) for value in target.aminmax())
    if low < 0 or high >= output.shape[-1]:
        wrong = low if low < 0 else high
        raise LabelError(
            f"{name}: label {wrong} is no class; {output.shape[-1]} classes, 0 to {output.shape[-1] - 1}"
        )
