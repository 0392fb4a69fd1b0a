"""Forgetting by further training on what may be kept: catastrophic forgetting put to use (CF, and CF-k).

Golatkar, Achille, Soatto: Eternal Sunshine of the Spotless Net: Selective Forgetting in Deep Networks. CVPR 2020.
arXiv:1911.04933; the last k layers alone: Goel, Prabhu, Sanyal, Lim, Torr, Kumaraguru: Towards Adversarial Evaluations
for Inexact Machine Unlearning. 2022. arXiv:2201.06640
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import nn  # noqa: F401  (doctest)
from torch.nn import functional

from neuropil.data.task import Samples
from neuropil.editing.descent import (
    ADAM,
    MakeOptimizer,
    Model,
    check_training,
    descend,
    own_randomness,
    share_unchanged,
    supervised,
    trainable_copy,
)
from neuropil.training.learner import Loss


def finetuned(
    model: Model,
    retain: Samples,
    *,
    layers: Collection[str] | None = None,
    epochs: int = 1,
    batch_size: int = 64,
    make_optimizer: MakeOptimizer = ADAM,
    loss: Loss = functional.cross_entropy,
    generator: torch.Generator | None = None,
) -> Model:
    """The model after more training on `retain` alone, in the hope that the rest fades.

    The usual first baseline of unlearning. It keeps accuracy, and forgets slowly: nothing pushes against what the
    network still knows. With `layers=last_layers(model, k)` it is CF-k.

    Args:
        model: `inputs -> logits`; it stays as it is.
        retain: what may be kept.
        layers: names of the modules to train, all by default; every other tensor is shared with the model.
        epochs: passes over `retain`, at least 1.
        batch_size: samples per step.
        make_optimizer: `parameters -> Optimizer`, Adam with rate 1e-3 by default.
        loss: `(logits, targets) -> scalar`.
        generator: draws the order of the samples and what dropout drops.

    Raises:
        ConfigError: no epoch, or nothing to train.
        UnknownNameError: a name in `layers` is no module.
        NonFiniteError: inputs or the loss are NaN or infinite.

    >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> keep = torch.utils.data.TensorDataset(torch.randn(20, 4), torch.arange(20) % 2)
    >>> tuned = finetuned(net, keep, layers=["2"])
    >>> tuned[0].weight is net[0].weight, tuned[2].weight is net[2].weight
    (True, False)
    """
    check_training(epochs, batch_size)
    with own_randomness(generator) as seed:
        twin, own = trainable_copy(model, layers)
        descend(
            twin, own, supervised(loss), retain,
            epochs=epochs, batch_size=batch_size, make_optimizer=make_optimizer, seed=seed,
        )  # fmt: skip
    return share_unchanged(model, twin)
