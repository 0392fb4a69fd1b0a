"""Dale's law: what a neuron sends is excitatory everywhere, or inhibitory everywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor, nn

from neuropil.errors import ConfigError, ShapeError, nearest

if TYPE_CHECKING:
    from jaxtyping import Float

Rectifier = Literal["relu", "abs"]


class Dale(nn.Module):
    """A weight whose columns each have one sign, that of the presynaptic neuron: `W[:, j] = sign[j] |V[:, j]|`.

    A parametrization: `torch.nn.utils.parametrize.register_parametrization(layer, "weight", Dale(signs))`. It holds for
    linear layers, convolutions (a column is an input channel) and recurrent weights, and stacks with other
    parametrizations that keep signs (masks, low precision). Weights that the layer has, or is assigned
    later, are taken over by their size. Song, Yang and Wang (2016), "Training
    excitatory-inhibitory recurrent neural networks for cognitive tasks: a simple and flexible framework".

    Args:
        signs: +1 (excitatory) or -1 (inhibitory) of each presynaptic neuron, `[inputs]`.
        rectifier: `"relu"` as in the paper: a synapse that learning drives below zero is gone, and its gradient with
            it. `"abs"`: it bounces back and is never lost.

    Raises:
        ConfigError: Signs other than 1 and -1, or an unknown rectifier.
        ShapeError: The weight has another number of inputs.

    >>> from torch.nn.utils.parametrize import register_parametrization
    >>> layer = nn.Linear(3, 2)
    >>> _ = register_parametrization(layer, "weight", Dale(torch.tensor([1.0, 1.0, -1.0])))
    >>> layer.weight.sign().tolist()
    [[1.0, 1.0, -1.0], [1.0, 1.0, -1.0]]
    """

    signs: Tensor

    def __init__(self, signs: Float[Tensor, " inputs"], rectifier: Rectifier = "relu") -> None:
        super().__init__()
        if signs.dim() != 1 or not bool((signs.abs() == 1).all()):
            raise ConfigError(f"Dale.signs: got shape {list(signs.shape)}, expected a vector of 1 and -1")
        if rectifier not in get_args(Rectifier):
            raise ConfigError(
                f"Dale.rectifier: got {rectifier!r}{nearest(str(rectifier), get_args(Rectifier))}"
            )
        self.register_buffer("signs", signs.detach().clone())
        self.rectifier: Rectifier = rectifier

    def forward(self, raw: Tensor) -> Tensor:
        """The weight, from a tensor of its shape."""
        size = torch.relu(raw) if self.rectifier == "relu" else raw.abs()
        return size * self._columns(raw)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """The tensor that gives `weight`, or the weight of the same sizes that obeys the law."""
        self._columns(weight)
        return weight.abs()

    def _columns(self, weight: Tensor) -> Tensor:
        if weight.dim() < 2 or weight.shape[1] != len(self.signs):
            raise ShapeError(
                f"Dale: weight has shape {list(weight.shape)}, expected [outputs, {len(self.signs)}, ...]"
            )
        return self.signs.to(weight.dtype).view(1, -1, *[1] * (weight.dim() - 2))

    def extra_repr(self) -> str:
        """How many of each kind, for `repr`."""
        excitatory = int((self.signs > 0).sum())
        return f"excitatory={excitatory}, inhibitory={len(self.signs) - excitatory}, rectifier={self.rectifier!r}"
