"""Forgetting by wrong labels: what is to go is learned again under labels drawn at random, beside what stays.

Graves, Nagisetty, Ganesh: Amnesiac Machine Learning. AAAI 2021. arXiv:2010.10981. This is the paper's "unlearning" by
relabelling, which later work compares under the name of the paper; taking recorded updates back is not built.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import nn  # noqa: F401  (doctest)
from torch.nn import functional
from torch.utils.data import ConcatDataset, DataLoader

from neuropil.data.arrays import Arrays
from neuropil.data.batching import batches
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
from neuropil.errors import ConfigError
from neuropil.training.learner import Loss


def amnesiac(
    model: Model,
    forget: Samples,
    retain: Samples,
    *,
    classes: Collection[int],
    layers: Collection[str] | None = None,
    epochs: int = 1,
    batch_size: int = 64,
    make_optimizer: MakeOptimizer = ADAM,
    loss: Loss = functional.cross_entropy,
    generator: torch.Generator | None = None,
) -> Model:
    """The model after it learned `forget` under wrong labels, mixed into `retain`.

    Args:
        model: `inputs -> logits`; it stays as it is.
        forget: what is to go, small enough to be held in memory.
        retain: what is to stay: a data set, not a loader.
        classes: labels to draw from, the sample's own excepted; leave a class out that is to go altogether.
        layers: names of the modules to change, all by default; every other tensor is shared with the model.
        epochs: passes over both together.
        batch_size: samples per step.
        make_optimizer: `parameters -> Optimizer`, Adam with rate 1e-3 by default.
        loss: `(logits, targets) -> scalar`.
        generator: draws the labels, the order of the samples and what dropout drops.

    Raises:
        ConfigError: fewer than two classes, no epoch, a loader to keep, or nothing to train.
        UnknownNameError: a name in `layers` is no module.
        NonFiniteError: inputs or the loss are NaN or infinite.

    >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> data = torch.utils.data.TensorDataset(torch.randn(20, 4), torch.arange(20) % 3)
    >>> forget, keep = torch.utils.data.random_split(data, [5, 15])
    >>> amnesiac(net, forget, keep, classes=range(3))(torch.zeros(1, 4)).shape
    torch.Size([1, 3])
    """
    check_training(epochs, batch_size)
    if isinstance(retain, DataLoader):
        raise ConfigError(
            "amnesiac: retain is a DataLoader, expected the data set itself, to be mixed with forget"
        )
    with own_randomness(generator) as seed:
        mixed: ConcatDataset[Any] = ConcatDataset([relabelled(forget, classes, seed=seed), retain])
        twin, own = trainable_copy(model, layers)
        descend(
            twin, own, supervised(loss), mixed,
            epochs=epochs, batch_size=batch_size, make_optimizer=make_optimizer, seed=seed,
        )  # fmt: skip
    return share_unchanged(model, twin)


def relabelled(samples: Samples, classes: Collection[int], *, seed: int = 0) -> Arrays:
    """The samples in memory, each under a label of `classes` other than its own, drawn evenly from `seed`.

    >>> data = torch.utils.data.TensorDataset(torch.zeros(4, 1), torch.tensor([0, 1, 0, 1]))
    >>> relabelled(data, (0, 1)).labels().tolist()
    [1, 0, 1, 0]
    """
    names = sorted(set(classes))
    if len(names) < 2:
        raise ConfigError(f"amnesiac: classes are {names}, expected at least two to draw wrong labels from")
    generator = torch.Generator().manual_seed(seed)
    parts = [(x, y) for x, y, _ in batches(samples, 1000, shuffle=False)]
    inputs, targets = torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts])
    allowed = torch.tensor(names)[None] != targets[:, None].cpu()
    draws = torch.multinomial(allowed.double(), 1, generator=generator)[:, 0]
    return Arrays(inputs, torch.tensor(names)[draws])
