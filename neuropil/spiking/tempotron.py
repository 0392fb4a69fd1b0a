"""The tempotron: a neuron that learns whether to fire to a spatiotemporal pattern.

    K(t) = scale * (membrane_decay**t - synapse_decay**t)     peak 1
    V[t] = sum_i w[i] sum_spikes K(t - t_spike)               fires when V reaches the threshold at any time

Learning moves a neuron that was wrong along the potentials at the moment of its largest V, which is the gradient of
the distance between that maximum and the threshold. Gutig and Sompolinsky (2006), "The tempotron: a neuron that learns
spike timing-based decisions".
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from neuropil.errors import ConfigError, LabelError, ShapeError
from neuropil.kernels.leaky import leaky_scan
from neuropil.nn.finite import check_finite
from neuropil.nn.readout import Readout

if TYPE_CHECKING:
    from jaxtyping import Float, Int64


class Tempotron(Readout):
    """One tempotron per answer: how far the maximum of each one's potential lies above its threshold.

    Takes spikes `[time, batch, inputs]` and gives `[batch, outputs]`, positive where the neuron fires; the largest is
    the answer. The maximum is taken from the first spike on: a neuron that was inhibited throughout can still learn,
    where the paper's would be stuck at rest. Train it with `TempotronLoss` (or cross-entropy) and any optimizer.

    Args:
        in_features, out_features: Number of inputs and of neurons.
        membrane_decay: Share of the membrane kept per step, `exp(-step / tau)`; in (0, 1).
        synapse_decay: Of the synaptic current, below `membrane_decay`; the paper has `tau = 4 tau_s`.
        threshold: Potential at which a neuron fires, > 0.
        generator: For the weights, drawn as those of `nn.Linear`.

    Raises:
        ConfigError: A setting is out of range.
        ShapeError: The input has another number of features, or no steps.

    >>> layer = Tempotron(4, 2)
    >>> layer(torch.zeros(20, 3, 4)).tolist()  # no spikes: at rest, a threshold below firing
    [[-1.0, -1.0], [-1.0, -1.0], [-1.0, -1.0]]
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        membrane_decay: float = 0.935,
        synapse_decay: float = 0.765,
        threshold: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if not 0 < synapse_decay < membrane_decay < 1:
            raise ConfigError(
                f"Tempotron: membrane_decay={membrane_decay}, synapse_decay={synapse_decay}; expected "
                "0 < synapse_decay < membrane_decay < 1"
            )
        if not 0 < threshold < math.inf:
            raise ConfigError(f"Tempotron.threshold: got {threshold}, expected a number > 0")
        self.in_features, self.out_features = in_features, out_features
        self.membrane_decay, self.synapse_decay, self.threshold = membrane_decay, synapse_decay, threshold
        weight = torch.empty(out_features, in_features)
        self.weight = nn.Parameter(nn.init.kaiming_uniform_(weight, a=math.sqrt(5), generator=generator))

    def forward(self, spikes: Float[Tensor, "time batch inputs"]) -> Float[Tensor, "batch outputs"]:
        """Largest potential minus threshold."""
        if spikes.dim() != 3 or spikes.shape[-1] != self.in_features or not len(spikes):
            raise ShapeError(
                f"Tempotron: got {list(spikes.shape)}, expected [time, batch, {self.in_features}]"
            )
        inputs = potentials(spikes, self.membrane_decay, self.synapse_decay)
        with torch.no_grad():  # only the moments of the maxima take part in learning
            heard = inputs.amax(-1, keepdim=True) > 0  # before the first spike there is nothing to learn from
            times = (inputs @ self.weight.T).masked_fill(~heard, -math.inf).argmax(0)  # [batch, outputs]
        samples = torch.arange(spikes.shape[1], device=spikes.device).unsqueeze(-1)
        peaks = inputs[times, samples]  # [batch, outputs, inputs]
        return torch.einsum("boi,oi->bo", peaks, self.weight) - self.threshold

    def extra_repr(self) -> str:
        """Sizes and decays, for printing."""
        return (
            f"{self.in_features}, {self.out_features}, membrane_decay={self.membrane_decay:g}, "
            f"synapse_decay={self.synapse_decay:g}"
        )


def potentials(
    spikes: Float[Tensor, "time batch inputs"], membrane_decay: float, synapse_decay: float
) -> Float[Tensor, "time batch inputs"]:
    """What each input's spikes add up to at each step, in units of the peak of one spike's kernel.

    >>> spike = torch.tensor([1.0, 0.0, 0.0]).view(3, 1, 1)
    >>> potentials(spike, 0.5, 0.25).flatten().tolist()
    [0.0, 1.0, 0.75]
    """
    rest = torch.zeros_like(spikes[0])
    slow, fast = (
        leaky_scan(spikes, rest, spikes.new_tensor(decay))[0] for decay in (membrane_decay, synapse_decay)
    )
    # the kernel's largest value at a whole step, beside the maximum of the continuous one
    ratio = math.log(math.log(synapse_decay) / math.log(membrane_decay)) / math.log(
        membrane_decay / synapse_decay
    )
    steps = (math.floor(ratio), math.ceil(ratio))
    peak = max(membrane_decay**step - synapse_decay**step for step in steps)
    return (slow - fast) / peak


class TempotronLoss(nn.Module):
    """How far neurons are from being right: the target's below its threshold, the others' above theirs.

    Takes `[batch, outputs]` of a `Tempotron` and targets `[batch]`; a sum over neurons, averaged over the batch. With
    `torch.optim.SGD` its gradient makes the paper's step.

    Raises LabelError when a target is no output, NonFiniteError for an output that is NaN or infinite (minus infinity
    is the answer of a class that is ruled out).

    >>> TempotronLoss()(torch.tensor([[-0.5, 2.0]]), torch.tensor([0])).item()
    2.5
    """

    def forward(self, output: Float[Tensor, "batch outputs"], target: Int64[Tensor, " batch"]) -> Tensor:
        """The loss, a scalar."""
        if target.numel() and not 0 <= int(target.min()) <= int(target.max()) < output.shape[-1]:
            raise LabelError(
                f"TempotronLoss: targets go to {int(target.max())}, expected 0 to {output.shape[-1] - 1}"
            )
        # a class that is ruled out has minus infinity, which is right to be silent
        check_finite(output.clamp_min(torch.finfo(output.dtype).min), "TempotronLoss: output")
        should = torch.zeros_like(output, dtype=torch.bool).scatter(1, target.unsqueeze(1), True)
        return torch.where(should, -output, output).relu().sum(1).mean()
