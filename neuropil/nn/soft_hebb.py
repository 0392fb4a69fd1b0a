"""Soft competitive Hebbian learning of a layer's weights from the activity that enters it.

Moraitis, Toichkin, Journé, Chua and Guo: SoftHebb: Bayesian inference in unsupervised Hebbian soft winner-take-all
networks. Neuromorphic Computing and Engineering 2, 2022. arXiv:2107.05747
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from neuropil.errors import ConfigError, ShapeError
from neuropil.nn.presynaptic import Synapse, rows

if TYPE_CHECKING:
    from jaxtyping import Float


def soft_hebbian_change(
    weight: Float[Tensor, "units inputs"], x: Float[Tensor, "samples inputs"], *, temperature: float = 1.0
) -> Float[Tensor, "units inputs"]:
    """Direction in which soft competition moves `weight`: mean over samples of `y_k (x - u_k w_k)`.

    `u = W x` are the units' drives and `y = softmax(u / temperature)` their shares in the competition, which is what
    lateral inhibition leaves of them. The second term holds the weights: alone, one unit settles at the mean input
    divided by its norm. A low temperature lets the winner take all.

    Raises ShapeError when the shapes do not fit, ConfigError for a temperature that is not above 0.

    >>> change = soft_hebbian_change(torch.tensor([[0.6, 0.8]]), torch.tensor([[3.0, 4.0]]))
    >>> bool(change.abs().max() < 1e-5)   # at rest: the unit is the input's direction
    True
    """
    if weight.dim() != 2 or x.dim() != 2 or weight.shape[1] != x.shape[1] or not len(x):
        raise ShapeError(
            f"soft_hebbian_change: weight {list(weight.shape)} and x {list(x.shape)}, "
            "expected [units, inputs] and [samples, inputs]"
        )
    if not temperature > 0:
        raise ConfigError(f"soft_hebbian_change.temperature: got {temperature}, expected above 0")
    drive = x @ weight.mT
    share = torch.softmax(drive / temperature, -1)
    return (share.mT @ x - (share * drive).sum(0)[:, None] * weight) / len(x)


@torch.no_grad()
def soft_hebb_step(layer: Synapse, x: Tensor, *, rate: float, temperature: float = 1.0) -> None:
    """Move the weight of a linear or convolutional layer by one soft Hebbian step on its input `x`, in place.

    A convolution's filters compete at every place for its patch. The bias, which no rule concerns, stays.

    >>> layer = torch.nn.Conv2d(1, 4, 3)
    >>> before = layer.weight.clone()
    >>> soft_hebb_step(layer, torch.rand(2, 1, 8, 8), rate=0.1)
    >>> bool((layer.weight != before).any())
    True
    """
    weight = layer.weight
    change = soft_hebbian_change(weight.flatten(1), rows(layer, x).to(weight.dtype), temperature=temperature)
    weight.add_(change.view_as(weight), alpha=rate)
