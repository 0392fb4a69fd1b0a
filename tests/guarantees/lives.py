"""Small lives of learning, one for each family of learners and plugins, and the fingerprint of how a life ended."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from neuropil.continual import AGEM, EWC, GPM, HLOP, SI, LwF, OnlineEWC, Rehearsal, Replay, ReservoirBuffer
from neuropil.data import Stream, Task
from neuropil.nn import DSR, LIF, RateReadout, Sequential, TracedLinear, WeightedRateReadout
from neuropil.training import OTTT, Backprop, Learner, Plugin, Trainer
from neuropil.training.checkpoint import flatten
from tests.guarantees.table import count

FEATURES, CLASSES, BATCH = 12, 4, 16
TASKS, EPOCHS = count(2, 3), count(1, 2)


def task(index: int, samples: int = 48) -> Task:
    """Noisy prototypes, other ones in every task."""
    generator = torch.Generator().manual_seed(100 + index)
    prototypes = 2 * torch.rand(CLASSES, FEATURES, generator=generator)

    def draw(n: int) -> TensorDataset:
        labels = torch.arange(n) % CLASSES
        return TensorDataset(prototypes[labels] + 0.2 * torch.randn(n, FEATURES, generator=generator), labels)

    return Task(f"task{index}", draw(samples), draw(16), draw(16), None, index)


def stream(samples: int = 48) -> Stream:
    return Stream(tuple(task(i, samples) for i in range(TASKS)), n_classes=CLASSES)


def plain() -> nn.Module:
    return nn.Sequential(nn.Linear(FEATURES, 14), nn.ReLU(), nn.Linear(14, CLASSES))


def dropout() -> nn.Module:
    return nn.Sequential(nn.Linear(FEATURES, 14), nn.ReLU(), nn.Dropout(0.3), nn.Linear(14, CLASSES))


def convolutional() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 3, 4)), nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(),
        nn.Flatten(), nn.Linear(48, CLASSES),
    )  # fmt: skip


def spiking() -> nn.Module:
    return Sequential(
        nn.Linear(FEATURES, 14), LIF(learn_threshold=True), nn.Dropout(0.2), nn.Linear(14, CLASSES),
        RateReadout(), time_steps=4,
    )  # fmt: skip


def rate_based() -> nn.Module:
    readout = WeightedRateReadout(DSR().weights(4))
    return Sequential(nn.Linear(FEATURES, 14), DSR(), nn.Linear(14, CLASSES), readout, time_steps=4)


def online() -> nn.Module:
    return Sequential(
        nn.Linear(FEATURES, 14),
        LIF(temporal_gradient=False),
        TracedLinear(14, CLASSES, decay=0.5),
        time_steps=4,
    )


Plugins = Callable[[nn.Module, torch.Generator], Sequence[Plugin]]


class Family(NamedTuple):
    """A kind of network, how it learns and what else acts on its learning."""

    network: Callable[[], nn.Module]
    plugins: Plugins = lambda model, generator: ()
    optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.SGD
    settings: Mapping[str, float] = MappingProxyType({"lr": 0.05})
    learner: type[Backprop] = Backprop


def _hlop(model: nn.Module, generator: torch.Generator) -> Sequence[Plugin]:
    return [HLOP(model, tasks=TASKS, generator=generator)]


FAMILIES = {
    "backprop": Family(plain),
    "dropout with momentum": Family(
        dropout, optimizer=torch.optim.SGD, settings={"lr": 0.05, "momentum": 0.9}
    ),
    "Adam": Family(dropout, optimizer=torch.optim.Adam, settings={"lr": 0.01}),
    "normalisation": Family(convolutional),
    "spikes": Family(spiking),
    "rate-based": Family(rate_based),
    "OTTT": Family(online, learner=OTTT),
    "HLOP": Family(dropout, _hlop),
    "HLOP of spikes with rehearsal": Family(spiking, lambda m, g: [*_hlop(m, g), Rehearsal(3, generator=g)]),
    "GPM": Family(plain, lambda m, g: [GPM(m, energy=0.9, samples=32, generator=g)]),
    "EWC": Family(dropout, lambda m, g: [EWC(m, strength=5.0, samples=16, generator=g)]),
    "online EWC": Family(plain, lambda m, g: [OnlineEWC(m, strength=5.0, samples=16, generator=g)]),
    "SI": Family(plain, lambda m, g: [SI(m, strength=5.0)]),
    "LwF": Family(dropout, lambda m, g: [LwF(m, strength=0.5)]),
    "A-GEM": Family(plain, lambda m, g: [AGEM(m, per_task=9, batch_size=7, generator=g)]),
    "online reservoir": Family(
        plain, lambda m, g: [Replay(buffer=ReservoirBuffer(20, generator=g), online=True, batch_size=5)]
    ),
    "replay": Family(dropout, lambda m, g: [Replay(3, generator=g)]),
    "replay with torch's own state": Family(convolutional, lambda m, g: [Replay(3)]),
}


def trainer(name: str, checkpoint: Path | None = None, **settings: Any) -> Trainer:
    """A fresh trainer of a family; the same one every time."""
    family = FAMILIES[name]
    torch.manual_seed(0)
    model = family.network()
    optimizer = family.optimizer(model.parameters(), **family.settings)
    plugins = family.plugins(model, torch.Generator().manual_seed(5))
    learner: Learner = family.learner(model, optimizer, plugins=plugins)
    given = {"epochs": EPOCHS, "batch_size": BATCH, "checkpoint_every": 2, **settings}
    return Trainer(learner=learner, checkpoint=checkpoint, progress=False, **given)


def fingerprint(life: Trainer) -> str:
    """SHA-256 of all that learning left: weights, optimizer, plugins, losses, accuracies, random state."""
    return hash_of(
        {
            "model": dict(life.model.state_dict()),
            "learner": life.learner.state_dict(),
            "plugins": [plugin.state_dict() for plugin in life.learner.plugins],
            "history": life.history.state_dict(),
            "step": life.step,
            "random": torch.get_rng_state(),
        }
    )


def hash_of(tree: Any) -> str:
    tensors: dict[str, Tensor] = {}
    flat = flatten(tree, tensors)
    return hashlib.sha256(repr(flat).encode() + save(tensors)).hexdigest()


def live(name: str, checkpoint: Path | None) -> str:
    """Learn, from the newest checkpoint on if there is one; the fingerprint of the end."""
    life = trainer(name, checkpoint)
    life.fit(stream(), resume=checkpoint is not None)
    return fingerprint(life)
