"""Exact unlearning: the network is made anew and trained on what may be kept (EU), or its last layers are (EU-k).

The standard that every other way of forgetting is held against. EU-k: Goel, Prabhu, Sanyal, Lim, Torr, Kumaraguru:
Towards Adversarial Evaluations for Inexact Machine Unlearning. 2022. arXiv:2201.06640
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import torch
from torch import nn
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
from neuropil.errors import ConfigError
from neuropil.training.learner import Loss


def retrained(
    model: Model,
    retain: Samples,
    *,
    layers: Collection[str] | None = None,
    initialise: Callable[[nn.Module], None] | None = None,
    epochs: int = 5,
    batch_size: int = 64,
    make_optimizer: MakeOptimizer = ADAM,
    loss: Loss = functional.cross_entropy,
    generator: torch.Generator | None = None,
) -> Model:
    """The same architecture from a new initialisation, trained on `retain` alone: nothing of the rest can be left.

    Costs a whole training. With `layers=last_layers(model, k)` it is EU-k: only those begin anew, the others are
    shared with the model and may still hold what was to be forgotten.

    Args:
        model: `inputs -> logits`; it stays as it is.
        retain: what may be kept.
        layers: names of the modules to make anew, all by default.
        initialise: sets a module's parameters in place; by default each module's own `reset_parameters()`.
        epochs: passes over `retain`, as many as the model was trained for.
        batch_size, make_optimizer, loss: as the model was trained.
        generator: draws the initialisation, the order of the samples and what dropout drops.

    Raises:
        ConfigError: a module with parameters knows no initialisation; nothing to train; no epoch.
        UnknownNameError: a name in `layers` is no module.
        NonFiniteError: inputs or the loss are NaN or infinite.

    >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> keep = torch.utils.data.TensorDataset(torch.randn(20, 4), torch.arange(20) % 2)
    >>> anew = retrained(net, keep, epochs=2, generator=torch.Generator().manual_seed(0))
    >>> anew(torch.zeros(1, 4)).shape
    torch.Size([1, 3])
    """
    check_training(epochs, batch_size)
    with own_randomness(generator) as seed:
        twin, own = trainable_copy(model, layers)
        initialised(twin, own, initialise)
        descend(
            twin, own, supervised(loss), retain,
            epochs=epochs, batch_size=batch_size, make_optimizer=make_optimizer, seed=seed,
        )  # fmt: skip
    return share_unchanged(model, twin)


def initialised(
    twin: nn.Module, own: dict[str, nn.Parameter], initialise: Callable[[nn.Module], None] | None = None
) -> None:
    """Draw a copy's own parameters anew, in place, from torch's random state."""
    ids = {id(parameter) for parameter in own.values()}
    for name, module in twin.named_modules():
        mine = [id(p) in ids for p in module.parameters(recurse=False)]
        if not any(mine):
            continue
        if initialise is not None:
            initialise(module)
            continue
        reset = getattr(module, "reset_parameters", None)
        if not callable(reset):
            raise ConfigError(
                f"module {name or type(module).__name__!r} has parameters and no reset_parameters(); "
                "give initialise=, which sets a module's parameters in place"
            )
        reset()
