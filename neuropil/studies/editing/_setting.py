"""What studies of unlearning share: images, a network trained on them, and its retrained twin."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial

import torch
from torch import Tensor, nn
from torch.optim import Adam
from torch.utils.data import TensorDataset

from neuropil import data
from neuropil.bench.study import Config, Trial, setting
from neuropil.data import Arrays
from neuropil.data.transforms import Compose, Normalize, Reshape
from neuropil.editing import retrained
from neuropil.editing.descent import MakeOptimizer

EDITS = 1_000_000  # seeds of edits are kept apart from those of the first training


@dataclass(frozen=True)
class Setting(Config):
    """Images to learn and a network that learns them, the same for every arm."""

    dataset: str = setting("fashion-mnist", "images to learn: a name that `neuropil data list` shows")
    train_samples: int = setting(6000, "training images", low=100)
    validation_samples: int = setting(2000, "images that settings are chosen on", low=20)
    test_samples: int = setting(2000, "images that the result is judged on", low=20)
    network: str = setting(
        "conv",
        "two convolutions and two linear layers, or a network of a million weights",
        choices=("conv", "wide"),
    )
    first_epochs: int = setting(5, "passes over the training images before anything is forgotten", low=1)
    first_lr: float = setting(1e-3, "rate of Adam in that training", low=0.0)
    batch_size: int = setting(64, "images per step, and per gradient of an importance", low=1)


@dataclass(frozen=True, eq=False)
class Part:
    """Some images `[n, 1, height, width]` with their labels `[n]`."""

    inputs: Tensor
    labels: Tensor

    def where(self, keep: Tensor) -> TensorDataset:
        """The pairs at which `keep` `[n]` is true."""
        return TensorDataset(self.inputs[keep], self.labels[keep])

    def of(self, classes: Sequence[int]) -> Tensor:
        """Which images belong to some classes, `[n]` bool."""
        return torch.isin(self.labels, torch.tensor(list(classes)))

    @cached_property
    def all(self) -> TensorDataset:
        """Every pair."""
        return TensorDataset(self.inputs, self.labels)


@dataclass(frozen=True, eq=False)
class Images:
    """The images of one seed."""

    train: Part
    judge: Part  # validation or test images
    classes: int


def images_of(trial: Trial) -> Images:
    """Training and judging images of a trial."""
    config: Setting = trial.config
    held = config.test_samples if trial.evaluate_on == "test" else config.validation_samples
    return _images(config.dataset, config.train_samples, held, trial.evaluate_on, trial.seed)


@lru_cache(maxsize=4)
def _images(dataset: str, train: int, held: int, evaluate_on: str, seed: int) -> Images:
    images = data.load(dataset)
    order = torch.randperm(len(images.train), generator=torch.Generator().manual_seed(seed))
    inputs = Compose((Reshape((1, *images.shape)), Normalize(images.mean, images.std)))
    every = Arrays(images.train, images.train_labels, inputs)
    judge = every.subset(order[-held:])
    if evaluate_on == "test":
        judge = Arrays(images.test[:held], images.test_labels[:held], inputs)
    return Images(_part(every.subset(order[:train])), _part(judge), images.n_classes)


def _part(samples: Arrays) -> Part:
    return Part(*samples.gather(range(len(samples))))


def fresh(network: str, classes: int) -> nn.Module:
    """An untrained network; its weights are drawn anew before it is trained."""
    if network == "wide":
        return nn.Sequential(
            nn.Flatten(), nn.Linear(784, 1024), nn.ReLU(), nn.Linear(1024, 256), nn.ReLU(), nn.Linear(256, classes),
        )  # fmt: skip
    return nn.Sequential(
        nn.Conv2d(1, 16, 5, stride=2, padding=2), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(32 * 49, 64), nn.ReLU(), nn.Linear(64, classes),
    )  # fmt: skip


def learned(
    config: Setting,
    classes: int,
    samples: TensorDataset,
    seed: int,
    make_optimizer: MakeOptimizer | None = None,
) -> nn.Module:
    """A network trained from scratch on some pairs."""
    with torch.random.fork_rng():
        net = fresh(config.network, classes)
    return retrained(
        net, samples, epochs=config.first_epochs, batch_size=config.batch_size,
        make_optimizer=make_optimizer or partial(Adam, lr=config.first_lr),
        generator=torch.Generator().manual_seed(seed),
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Timed:
    """A network, and how long its training took."""

    model: nn.Module
    seconds: float


def timed(make: partial[nn.Module]) -> Timed:
    """Call, and look at the clock."""
    started = time.perf_counter()
    model = make()
    return Timed(model, time.perf_counter() - started)


def data_checksum(config: Setting) -> str:
    """What identifies the images that a trial reads."""
    return data.load(config.dataset).checksum
