"""Forgetting under two teachers: the model itself on what stays, an untrained network on what is to go.

Chundawat, Tarun, Mandal, Kankanhalli: Can Bad Teaching Induce Forgetting? Unlearning in Deep Networks using an
Incompetent Teacher. AAAI 2023. arXiv:2205.08096
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn

from neuropil.data.task import Batch, Samples
from neuropil.editing.descent import (
    ADAM,
    MakeOptimizer,
    Model,
    check_training,
    cycled,
    descend,
    divergence,
    own_randomness,
    share_unchanged,
    trainable_copy,
)
from neuropil.editing.retraining import initialised
from neuropil.errors import ConfigError
from neuropil.training.evaluating import evaluating


def bad_teacher(
    model: Model,
    forget: Samples,
    retain: Samples,
    *,
    teacher: nn.Module | None = None,
    temperature: float = 1.0,
    layers: Collection[str] | None = None,
    epochs: int = 1,
    batch_size: int = 64,
    make_optimizer: MakeOptimizer = ADAM,
    generator: torch.Generator | None = None,
) -> Model:
    """The model after it imitates itself on `retain` and an incompetent network on `forget`.

    Needs no labels. The objective is `KL(model || copy)` on a batch to keep plus `KL(teacher || copy)` on a batch to
    forget, `epochs` passes over `retain`; a part of the data that may be kept is enough (the paper takes 30 %).

    Args:
        model: `inputs -> logits`; it stays as it is.
        forget: what is to go; labels are not looked at.
        retain: what is to stay; labels are not looked at.
        teacher: the incompetent network; by default the model's architecture from a new initialisation.
        temperature: of both softmaxes, above 0.
        layers: names of the modules to change, all by default; every other tensor is shared with the model.
        epochs: passes over `retain`, at least 1.
        batch_size: samples per step, of each kind.
        make_optimizer: `parameters -> Optimizer`, Adam with rate 1e-3 by default.
        generator: draws the teacher, the order of the samples and what dropout drops.

    Raises:
        ConfigError: a temperature that is not positive, no epoch, nothing to train, or no teacher can be made.
        UnknownNameError: a name in `layers` is no module.
        NonFiniteError: inputs or the objective are NaN or infinite.

    >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> data = torch.utils.data.TensorDataset(torch.randn(20, 4), torch.arange(20) % 3)
    >>> forget, keep = torch.utils.data.random_split(data, [5, 15])
    >>> bad_teacher(net, forget, keep)(torch.zeros(1, 4)).shape
    torch.Size([1, 3])
    """
    check_training(epochs, batch_size)
    if not 0 < temperature < float("inf"):
        raise ConfigError(f"bad_teacher: temperature is {temperature}, expected a number above 0")
    with own_randomness(generator) as seed:
        if teacher is None:
            teacher, untrained = trainable_copy(model)
            initialised(teacher, untrained)
        twin, own = trainable_copy(model, layers)
        forgotten, incompetent = cycled(twin, forget, batch_size, seed), teacher

        def objective(twin: nn.Module, batch: Batch) -> Tensor:
            gone = next(forgotten).inputs
            with torch.no_grad(), evaluating(model), evaluating(incompetent):
                kept_answer, gone_answer = model(batch.inputs), incompetent(gone)
            return divergence(kept_answer, twin(batch.inputs), temperature) + divergence(
                gone_answer, twin(gone), temperature
            )

        descend(
            twin, own, objective, retain,
            epochs=epochs, batch_size=batch_size, make_optimizer=make_optimizer, seed=seed,
        )  # fmt: skip
    return share_unchanged(model, twin)
