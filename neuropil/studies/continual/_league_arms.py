"""Arms of the continual league: what each sets, and the learner that it makes of a network and a stream."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.optim import SGD, Adam

from neuropil import data
from neuropil.bench.study import Config, setting
from neuropil.continual import (
    AGEM,
    CLASSP,
    EWC,
    GEM,
    GPM,
    HLOP,
    MAS,
    OWM,
    SI,
    BinaryVariationalLinear,
    ClassBalancedBuffer,
    FastSlow,
    FeatureDistillation,
    HomeostaticLearningRate,
    LwF,
    MaskedSoftmax,
    MeanFieldPrior,
    OnlineEWC,
    ParameterL2,
    ProtoCL,
    PrototypicalBayesClassifier,
    RehearsalSchedule,
    Replay,
    ReservoirBuffer,
    RingBuffer,
)
from neuropil.data.task import Stream, Task
from neuropil.training import Backprop, Plugin

CORRUPTIONS = ("clean", "contrast", "gaussian_noise", "gaussian_blur", "impulse_noise", "pixelate")


@dataclass(frozen=True)
class LeagueSetting(Config):
    """Streams and network, the same for every arm."""

    tasks: int = setting(4, "tasks of every stream", low=2, high=6)
    train_samples: int = setting(
        800, "training images per task, but as many as there are of split ones", low=1
    )
    validation_samples: int = setting(200, "images per task that settings are chosen on", low=1)
    test_samples: int = setting(400, "images per task that the result is judged on", low=1)
    hidden: tuple[int, ...] = setting((128, 64), "widths of the hidden layers", low=1)
    epochs: int = setting(2, "passes over each task, but one where labels change", low=1)
    batch_size: int = setting(32, "images per step", low=1)
    lr: float = setting(0.1, "learning rate of plain SGD", low=0.0)


@dataclass(frozen=True)
class PenaltySetting(LeagueSetting):
    """A penalty beside the loss."""

    strength: float = setting(1.0, "weight of the penalty", low=0.0)
    samples: int = setting(128, "images per task that importance is estimated on, where it is", low=1)


@dataclass(frozen=True)
class MemorySetting(LeagueSetting):
    """A memory of images."""

    images: int = setting(200, "images remembered in all", low=1)
    replay_batch: int = setting(32, "remembered images per step", low=1)
    margin: float = setting(0.0, "pull towards earlier tasks (GEM)", low=0.0)


@dataclass(frozen=True)
class ProjectionSetting(LeagueSetting):
    """A projection of gradients."""

    protect: float = setting(
        0.8, "share of inputs (HLOP) or of energy (GPM) that is protected", low=0.01, high=1.0
    )
    damping: float = setting(0.1, "squared activity below which OWM hardly protects", low=0.0)


@dataclass(frozen=True)
class UsageSetting(LeagueSetting):
    """Weights that move the less the more they were used."""

    later_lr: float = setting(0.03, "learning rate after the first task", low=0.0)
    quantile: float = setting(0.8, "share of weights left alone in the first task", low=0.0, high=0.99)


@dataclass(frozen=True)
class FastSlowSetting(PenaltySetting):
    """Slow weights that follow fast ones within a task."""

    step: float = setting(0.2, "share of the way that slow weights move to fast ones", low=0.01, high=1.0)
    every: int = setting(10, "steps after which they move", low=1)


@dataclass(frozen=True)
class RegulatedSetting(LeagueSetting):
    """A learning rate that hangs on what is recognised."""

    share: float = setting(
        0.03, "change of the learning rate at a time, as a share of the first one", low=0.001
    )


@dataclass(frozen=True)
class PrototypeSetting(MemorySetting):
    """Prototypes of classes, on features that Adam learns."""

    lr: float = setting(1e-3, "learning rate of Adam", low=0.0)
    noise: float = setting(10.0, "variance of features around their class's prototype", low=1e-4)


@dataclass(frozen=True)
class BinarySetting(LeagueSetting):
    """Binary weights whose fields Adam learns; the last task's are the prior of the next."""

    lr: float = setting(0.1, "learning rate of Adam", low=0.0)
    strength: float = setting(0.03, "weight of the divergence from the prior", low=0.0)


def make_stream(world: str, config: LeagueSetting, seed: int) -> Stream:
    """One of the worlds: other pixels, other classes, other weather, other names."""
    sizes: dict[str, Any] = {
        "train_samples": config.train_samples,
        "validation_samples": config.validation_samples,
        "test_samples": config.test_samples,
    }
    if world == "permuted":
        return data.permuted("mnist", config.tasks, seed=seed, **sizes)
    if world == "corrupted":
        return data.corrupted("fashion-mnist", CORRUPTIONS[: config.tasks], 4, seed=seed, **sizes)
    if world == "concept":
        return data.concept_shift("fashion-mnist", config.tasks, swaps_per_task=1, seed=seed, **sizes)
    sizes["test_samples"] = min(config.test_samples, 400)
    return data.split(
        "fashion-mnist",
        2,
        tasks=min(config.tasks, 5),
        seed=seed,
        scenario="class",
        class_order="random",
        **sizes,
    )


def make_network(config: LeagueSetting, outputs: int) -> nn.Sequential:
    """Layers of ReLU without biases, so that a projection protects all that is shared."""
    widths = (784, *config.hidden)
    parts = [(nn.Linear(a, b, bias=False), nn.ReLU()) for a, b in itertools.pairwise(widths)]
    return nn.Sequential(*itertools.chain(*parts), nn.Linear(widths[-1], outputs, bias=False))


def make_model(arm: str, config: Any, outputs: int) -> nn.Module:
    """The network of an arm: that of all, but for binary weights and for prototypes in place of an output layer."""
    if arm == "proto_bayes":
        encoder = make_network(config, outputs)[:-2]
        return PrototypicalBayesClassifier(encoder, config.hidden[-1], outputs, noise=config.noise)
    if arm == "meanfield":
        layers: list[nn.Module] = []
        for a, b in itertools.pairwise((784, *config.hidden)):
            layers += [BinaryVariationalLinear(a, b), nn.LayerNorm(b, elementwise_affine=False), nn.Tanh()]
        return nn.Sequential(*layers, BinaryVariationalLinear(config.hidden[-1], outputs))
    return make_network(config, outputs)


@dataclass
class Maker:
    """What an arm needs to know to make its plugins."""

    config: Any
    model: nn.Module
    stream: Stream
    generator: torch.Generator
    mask: MaskedSoftmax | None = None
    plugins: list[Plugin] = field(default_factory=list)

    @property
    def penalty(self) -> dict[str, Any]:
        """Settings that penalties with an estimated importance share."""
        predict = None if self.mask is None else self.mask.predict(self.model)
        return {
            "strength": self.config.strength, "samples": self.config.samples,
            "generator": self.generator, "predict": predict,
        }  # fmt: skip

    @property
    def per_task(self) -> RingBuffer:
        """Equal parts of the memory for every task."""
        return RingBuffer(max(1, self.config.images // len(self.stream)), generator=self.generator)


MAKERS: Mapping[str, Callable[[Maker], list[Plugin]]] = {
    "l2": lambda m: [ParameterL2(m.model, strength=m.config.strength)],
    "ewc": lambda m: [EWC(m.model, **m.penalty)],
    "online_ewc": lambda m: [OnlineEWC(m.model, **m.penalty)],
    "si": lambda m: [SI(m.model, strength=m.config.strength)],
    "mas": lambda m: [MAS(m.model, **{**m.penalty, "predict": None})],
    "lwf": lambda m: [LwF(m.model, strength=m.config.strength)],
    "features": lambda m: [FeatureDistillation(m.model, strength=m.config.strength)],
    "hlop": lambda m: [HLOP(m.model, tasks=len(m.stream), fill=m.config.protect, generator=m.generator)],
    "gpm": lambda m: [GPM(m.model, energy=m.config.protect, generator=m.generator)],
    "owm": lambda m: [OWM(m.model, damping=m.config.damping, samples=1024, generator=m.generator)],
    "fast_slow": lambda m: [FastSlow(m.model, step=m.config.step, every=m.config.every, **m.penalty)],
    "meanfield": lambda m: [MeanFieldPrior(m.model, strength=m.config.strength)],
    "agem": lambda m: [AGEM(m.model, buffer=m.per_task, batch_size=m.config.replay_batch)],
    "gem": lambda m: [
        GEM(m.model, buffer=m.per_task, batch_size=m.config.replay_batch, margin=m.config.margin)
    ],
    "replay": lambda m: [
        Replay(
            buffer=ReservoirBuffer(m.config.images, generator=m.generator), batch_size=m.config.replay_batch
        )
    ],
    "replay_power": lambda m: [
        Replay(
            buffer=m.per_task, batch_size=m.config.replay_batch, schedule=RehearsalSchedule("power", rate=1.0)
        )
    ],
    "replay_balanced": lambda m: [
        Replay(
            buffer=ClassBalancedBuffer(m.config.images, generator=m.generator),
            batch_size=m.config.replay_batch,
        )
    ],
}
WITH_IMAGES = (
    "replay",
    "replay_power",
    "replay_balanced",
    "proto_bayes",
    "joint",
)  # their softmax runs over all classes


class _Protect(Plugin):
    """The published protocol of CLASSP: its switch after the first task."""

    def __init__(self, optimizer: CLASSP, lr: float) -> None:
        self.optimizer, self.lr = optimizer, lr

    def after_task(self, task: Task) -> None:
        """From the second task on weights move the less the more they were used."""
        if task.index == 0:
            self.optimizer.protect(lr=self.lr)


def make_learner(arm: str, config: Any, model: nn.Module, stream: Stream, seed: int) -> Backprop:
    """An arm's optimizer and plugins on a model."""
    world = Maker(config, model, stream, torch.Generator().manual_seed(seed))
    if stream.name.startswith("split") and arm not in WITH_IMAGES:
        world.mask = MaskedSoftmax()
        world.plugins.append(world.mask)
    plugins = [*world.plugins, *MAKERS[arm](world)] if arm in MAKERS else world.plugins
    if arm == "classp":
        classp = CLASSP(model.parameters(), lr=config.lr, quantile=config.quantile)
        return Backprop(model, classp, plugins=[*plugins, _Protect(classp, config.later_lr)])
    if arm == "homeostatic":
        return HomeostaticLearningRate(
            model, SGD(model.parameters(), lr=config.lr), excitatory=range(stream.n_classes // 2),
            step=config.share * config.lr, plugins=plugins,
        )  # fmt: skip
    if isinstance(model, PrototypicalBayesClassifier):
        replay = Replay(buffer=world.per_task, batch_size=config.replay_batch)
        return ProtoCL(model, Adam(model.parameters(), lr=config.lr), replay=replay)
    kind = Adam if arm == "meanfield" else SGD
    return Backprop(model, kind(model.parameters(), lr=config.lr), plugins=plugins)
