"""Forgetting by learning backwards: gradient ascent on what is to go (NegGrad), beside descent on the rest (NegGrad+).

Golatkar, Achille, Soatto: Eternal Sunshine of the Spotless Net: Selective Forgetting in Deep Networks. CVPR 2020.
arXiv:1911.04933; with the descent beside it: Kurmanji, Triantafillou, Hayes, Triantafillou: Towards Unbounded Machine
Unlearning. NeurIPS 2023. arXiv:2302.09880
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn
from torch.nn import functional

from neuropil.data.task import Batch, Samples
from neuropil.editing.descent import (
    ADAM,
    MakeOptimizer,
    Model,
    check_training,
    cycled,
    descend,
    own_randomness,
    share_unchanged,
    supervised,
    trainable_copy,
)
from neuropil.errors import ConfigError
from neuropil.training.learner import Loss


def gradient_ascent(
    model: Model,
    forget: Samples,
    retain: Samples | None = None,
    *,
    weight: float = 0.1,
    layers: Collection[str] | None = None,
    epochs: int = 1,
    batch_size: int = 64,
    make_optimizer: MakeOptimizer = ADAM,
    loss: Loss = functional.cross_entropy,
    generator: torch.Generator | None = None,
) -> Model:
    """The model after steps that make its loss on `forget` larger.

    Alone (`retain=None`) it needs no other data, and ruins the network soon: few, small steps. With `retain` the
    objective is `loss(retain) - weight * loss(forget)`, one batch of each a step, `epochs` passes over `retain`.

    Args:
        model: `inputs -> logits`; it stays as it is.
        forget: what is to go.
        retain: what is to stay, or None.
        weight: how much of the ascent is added to the descent on `retain`, above 0; without `retain` it is not used.
        layers: names of the modules to change, all by default; every other tensor is shared with the model.
        epochs: passes over `retain`, or over `forget` where that is alone.
        batch_size: samples per step, of each.
        make_optimizer: `parameters -> Optimizer`, Adam with rate 1e-3 by default.
        loss: `(logits, targets) -> scalar`.
        generator: draws the order of the samples and what dropout drops.

    Raises:
        ConfigError: a weight that is not positive, no epoch, or nothing to train.
        UnknownNameError: a name in `layers` is no module.
        NonFiniteError: inputs are not finite, or the ascent ran away.

    >>> net, y = nn.Linear(4, 2), torch.tensor([0, 1] * 8)
    >>> x = torch.randn(16, 4)
    >>> worse = gradient_ascent(net, torch.utils.data.TensorDataset(x, y))
    >>> before, after = (nn.functional.cross_entropy(m(x), y) for m in (net, worse))
    >>> bool(after > before)
    True
    """
    check_training(epochs, batch_size)
    if not 0 < weight < float("inf"):
        raise ConfigError(f"gradient_ascent: weight is {weight}, expected a number above 0")
    plain = supervised(loss)

    def up(twin: nn.Module, batch: Batch) -> Tensor:
        return -plain(twin, batch)

    with own_randomness(generator) as seed:
        twin, own = trainable_copy(model, layers)
        forgotten = cycled(twin, forget, batch_size, seed)

        def both(twin: nn.Module, batch: Batch) -> Tensor:
            return plain(twin, batch) - weight * plain(twin, next(forgotten))

        objective, samples = (up, forget) if retain is None else (both, retain)
        descend(
            twin, own, objective, samples,
            epochs=epochs, batch_size=batch_size, make_optimizer=make_optimizer, seed=seed,
        )  # fmt: skip
    return share_unchanged(model, twin)
