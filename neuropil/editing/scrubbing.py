"""SCRUB: a student that leaves its teacher on what is to go and stays with it on the rest.

Kurmanji, Triantafillou, Hayes, Triantafillou: Towards Unbounded Machine Unlearning. NeurIPS 2023. arXiv:2302.09880
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
    descend,
    divergence,
    own_randomness,
    share_unchanged,
    supervised,
    trainable_copy,
)
from neuropil.errors import ConfigError
from neuropil.training.evaluating import evaluating
from neuropil.training.learner import Loss


def scrub(
    model: Model,
    forget: Samples,
    retain: Samples,
    *,
    alpha: float = 1.0,
    ascent_epochs: int = 1,
    epochs: int = 2,
    temperature: float = 4.0,
    layers: Collection[str] | None = None,
    batch_size: int = 64,
    make_optimizer: MakeOptimizer = ADAM,
    loss: Loss = functional.cross_entropy,
    generator: torch.Generator | None = None,
) -> Model:
    """The model after passes that take turns: away from its old answers on `forget`, towards them on `retain`.

    Each of the first `ascent_epochs` epochs begins with a pass over `forget` that makes `KL(model || copy)` larger;
    every epoch has a pass over `retain` that makes `loss + alpha * KL(model || copy)` smaller. `KL` is multiplied by
    the temperature's square, as in distillation.

    Args:
        model: `inputs -> logits`, the teacher; it stays as it is.
        forget: what is to go.
        retain: what is to stay.
        alpha: weight of the teacher on `retain`, at least 0.
        ascent_epochs: how many of the epochs begin with ascent, from 1 to `epochs`.
        epochs: passes over `retain`.
        temperature: of the softmaxes that are compared, above 0.
        layers: names of the modules to change, all by default; every other tensor is shared with the model.
        batch_size: samples per step.
        make_optimizer: `parameters -> Optimizer`, Adam with rate 1e-3 by default.
        loss: `(logits, targets) -> scalar`.
        generator: draws the order of the samples and what dropout drops.

    Raises:
        ConfigError: a setting out of range, or nothing to train.
        UnknownNameError: a name in `layers` is no module.
        NonFiniteError: inputs are not finite, or the ascent ran away.

    >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> data = torch.utils.data.TensorDataset(torch.randn(20, 4), torch.arange(20) % 3)
    >>> forget, keep = torch.utils.data.random_split(data, [5, 15])
    >>> scrub(net, forget, keep)(torch.zeros(1, 4)).shape
    torch.Size([1, 3])
    """
    check_training(epochs, batch_size)
    if not (alpha >= 0 and 0 < temperature < float("inf") and 1 <= ascent_epochs <= epochs):
        raise ConfigError(
            f"scrub: alpha={alpha}, temperature={temperature}, ascent_epochs={ascent_epochs}, epochs={epochs}; "
            "expected alpha >= 0, temperature > 0 and 1 <= ascent_epochs <= epochs"
        )
    plain = supervised(loss)

    def away(twin: nn.Module, batch: Batch) -> Tensor:
        return -divergence(_answer(model, batch.inputs), twin(batch.inputs), temperature)

    def towards(twin: nn.Module, batch: Batch) -> Tensor:
        stay = divergence(_answer(model, batch.inputs), twin(batch.inputs), temperature)
        return plain(twin, batch) + alpha * stay

    with own_randomness(generator) as seed:
        twin, own = trainable_copy(model, layers)
        optimizer = make_optimizer(list(own.values()))
        for epoch in range(epochs):
            passes = [(away, forget)] if epoch < ascent_epochs else []
            for objective, samples in [*passes, (towards, retain)]:
                descend(
                    twin, own, objective, samples, epochs=1, batch_size=batch_size,
                    make_optimizer=make_optimizer, seed=(seed + epoch) % 2**31, optimizer=optimizer,
                )  # fmt: skip
    return share_unchanged(model, twin)


@torch.no_grad()
def _answer(model: nn.Module, inputs: Tensor) -> Tensor:
    with evaluating(model):
        output: Tensor = model(inputs)
    return output
