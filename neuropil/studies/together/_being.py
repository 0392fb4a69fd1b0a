"""The network whose life is told: its settings, how it is born, how it learns, and what is written down of it."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import SGD

from neuropil import data
from neuropil.bench.claim import Claim
from neuropil.bench.study import Config, Trial, setting
from neuropil.continual import HLOP, PerClassBuffer, Replay
from neuropil.data.arrays import Arrays
from neuropil.data.task import Stream, Task
from neuropil.errors import ConfigError
from neuropil.nn import LIF, RateReadout, Sequential
from neuropil.nn.presynaptic import synapses
from neuropil.studies.continual._setting import activities
from neuropil.training import Backprop, History, Plugin, Trainer


@dataclass(frozen=True)
class LifeSetting(Config):
    """A life, the same for every arm; what an arm lives without leaves the settings of that unused."""

    dataset: str = setting("mnist", "images of the tasks: a name that `neuropil data list` shows")
    tasks: int = setting(8, "tasks to learn, each with its own order of pixels", low=2, high=50)
    train_samples: int = setting(3000, "training images of a task", low=20)
    validation_samples: int = setting(1000, "images of a task that settings are chosen on", low=10)
    test_samples: int = setting(1000, "images of a task that the life is judged on", low=10)
    hidden: tuple[int, ...] = setting((200, 200), "widths of the hidden layers", low=2)
    time_steps: int = setting(5, "time steps of the network", low=1)
    batch_size: int = setting(32, "new images a step", low=2)
    lr: float = setting(0.2, "learning rate of plain SGD", low=0.0)
    fill: float = setting(
        0.5, "share of a layer's inputs that HLOP's subspaces take in all", low=0.01, high=0.85
    )
    per_class: int = setting(10, "images remembered of each class of each task", low=1)
    replay_batch: int = setting(32, "remembered images a step", low=1)
    killed_after: float = setting(
        0.55, "share of its steps after which the first life is killed", low=0.0, high=0.99
    )
    checkpoint_every: int = setting(40, "steps between checkpoints, beside those at a task's end", low=1)
    severity: int = setting(4, "of the weather, 1 (mild) to 5", low=1, high=5)
    adapt_batch: int = setting(100, "unlabelled images of one kind met at a time", low=2)
    forget: int = setting(3, "class to forget", low=0, high=9)
    alphas: tuple[float, ...] = setting(
        (1.0, 2.0, 3.0, 5.0, 7.0, 10.0, 20.0, 30.0, 50.0),
        "times as important to the class as to all that is remembered, for a synapse to be dampened; one is chosen",
        low=0.0,
    )


@dataclass(eq=False)
class Being:
    """A network in the course of its life."""

    trial: Trial
    has: frozenset[str]  # its mechanisms
    stream: Stream
    model: nn.Module
    memory: PerClassBuffer
    plugins: list[Plugin]
    place: Path  # of its checkpoints
    metrics: dict[str, float | None] = field(default_factory=dict)
    cost: dict[str, float] = field(default_factory=dict)
    curves: dict[str, list[float]] = field(default_factory=dict)
    arrays: dict[str, Any] = field(default_factory=dict)
    moments: list[dict[str, Any]] = field(
        default_factory=list
    )  # name, accuracy by task, event where there is one

    @property
    def config(self) -> LifeSetting:
        """Its settings."""
        return cast(LifeSetting, self.trial.config)

    @property
    def hlop(self) -> HLOP | None:
        """Its subspaces, where it has some."""
        return next((plugin for plugin in self.plugins if isinstance(plugin, HLOP)), None)

    @property
    def first_task(self) -> FirstTask:
        """What it keeps for comparison."""
        return next(plugin for plugin in self.plugins if isinstance(plugin, FirstTask))

    def judged(self, task: Task) -> Arrays:
        """Images of a task that this trial is judged on."""
        return cast(Arrays, getattr(task, self.trial.evaluate_on))

    def note(self, name: str, accuracy: Sequence[float | None], event: str = "") -> None:
        """Write a moment into the diary: accuracy on every task, None where it is not known yet."""
        self.moments.append({"name": name, "accuracy": list(accuracy), "event": event})


@dataclass(frozen=True)
class Event:
    """Something that happens to the network: a later room appends its own."""

    name: str
    text: str  # what happens, in plain words
    happen: Callable[[Being], None]  # records into the being; does nothing where its mechanism is missing
    records: tuple[str, ...]  # metrics that it leaves, None where the arm has none
    promises: tuple[Claim, ...]


class Notebook(Plugin):
    """Remembers as replay does, and learns nothing from it: for lives without replay."""

    def __init__(self, buffer: PerClassBuffer) -> None:
        self.buffer = buffer

    def after_task(self, task: Task) -> None:
        """Remember images of the finished task."""
        self.buffer.add_task(task)

    def state_dict(self) -> dict[str, Any]:
        """The images."""
        return self.buffer.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.buffer.load_state_dict(state)


class FirstTask(Plugin):
    """Keeps weights, activity and subspaces as they were when the first task was learned."""

    def __init__(self, model: nn.Module, hlop: HLOP | None) -> None:
        self.model, self.hlop = model, hlop
        self.kept: dict[str, dict[str, Tensor]] = {}

    def after_task(self, task: Task) -> None:
        """Look at the network when task one is over; listed behind HLOP, which has frozen its subspaces by then."""
        if task.index:
            return
        x = next(iter(data.batches(task.train, 128, shuffle=False))).inputs
        weights = {name: layer.weight.detach().clone() for name, layer in synapses(self.model).items()}
        bases = {} if self.hlop is None else {name: b.clone() for name, b in self.hlop.bases.items()}
        self.kept = {"weights": weights, "activity": activities(self.model, x), "bases": bases}

    def moved(self) -> float:
        """`|(W' - W) x| / |W x|` for the first task's activity x, mean over layers."""
        changes = []
        for name, layer in synapses(self.model).items():
            x, before = self.kept["activity"][name], self.kept["weights"][name]
            change = x @ (layer.weight.detach() - before).mT
            changes.append(float(change.norm() / (x @ before.mT).norm()))
        return sum(changes) / len(changes)

    def leak(self) -> float | None:
        """Largest share of the energy of a layer's change within the first task's subspace; None without subspaces."""
        if not self.kept["bases"]:
            return None
        layers, shares = synapses(self.model), []
        for name, basis in self.kept["bases"].items():
            change = layers[name].weight.detach() - self.kept["weights"][name]
            inside = change @ torch.linalg.qr(basis.mT)[0]
            shares.append(float(inside.square().sum() / change.square().sum()))
        return max(shares)

    def state_dict(self) -> dict[str, Any]:
        """What was kept."""
        return {kind: dict(values) for kind, values in self.kept.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.kept = {kind: dict(values) for kind, values in state.items()}


def born(trial: Trial, has: frozenset[str], place: Path) -> Being:
    """A new network with its mechanisms, before it has learned anything."""
    config: LifeSetting = trial.config
    stream = data.permuted(
        config.dataset, config.tasks, seed=trial.seed, train_samples=config.train_samples,
        validation_samples=config.validation_samples, test_samples=config.test_samples,
    )  # fmt: skip
    if "class" not in has:
        stream = replace(stream, tasks=tuple(_without(task, config.forget) for task in stream))
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(trial.seed)
        model = network(config, stream.n_classes)
    generator = torch.Generator().manual_seed(trial.seed)
    memory = PerClassBuffer(config.per_class, generator=generator)
    hlop = HLOP(model, tasks=config.tasks, fill=config.fill, generator=generator) if "hlop" in has else None
    remembers = Replay(buffer=memory, batch_size=config.replay_batch) if "replay" in has else Notebook(memory)
    plugins: list[Plugin] = [*([hlop] if hlop else []), remembers, FirstTask(model, hlop)]
    return Being(trial, has, stream, model, memory, plugins, place)


def network(config: LifeSetting, outputs: int) -> nn.Module:
    """Leaky neurons behind an eye that knows one mean brightness and one contrast for all pixels; no biases.

    One normalisation for all pixels says the same in every task, whatever the order of the pixels.
    """
    layers: list[nn.Module] = [nn.Unflatten(-1, (1, -1)), nn.BatchNorm1d(1, affine=False), nn.Flatten()]
    for a, b in itertools.pairwise((784, *config.hidden, outputs)):
        layers += [nn.Linear(a, b, bias=False), LIF()]
    return Sequential(*layers[:-1], RateReadout(), time_steps=config.time_steps)


def trainer_of(being: Being, *, checkpoints: bool) -> Trainer:
    """What teaches it, with or without checkpoints."""
    config = being.config
    optimizer = SGD(being.model.parameters(), lr=config.lr)
    learner = Backprop(being.model, optimizer, plugins=being.plugins)
    return Trainer(
        learner=learner, batch_size=config.batch_size, seed=being.trial.seed, progress=False,
        checkpoint=being.place if checkpoints else None,
        checkpoint_every=config.checkpoint_every if checkpoints else None,
    )  # fmt: skip


def fingerprint(model: nn.Module, history: History, memory: PerClassBuffer) -> float:
    """A number in [0, 1) from a digest of every bit of weights, losses, accuracies and remembered images."""
    digest = hashlib.sha256()
    for name, value in [
        *model.state_dict().items(),
        *enumerate(memory.select(torch.arange(len(memory)))[:2]),
    ]:
        digest.update(str(name).encode() + value.contiguous().numpy().tobytes())
    digest.update(repr(history.state_dict()).encode())
    return int(digest.hexdigest()[:13], 16) / 16**13


def data_checksum(config: LifeSetting) -> str:
    """What identifies the images that a life reads."""
    images = data.load(config.dataset)
    if images.train[0].numel() != 784:
        raise ConfigError(
            f"dataset: {config.dataset} has items of {list(images.shape)}; expected 28 x 28 pixels"
        )
    if config.forget >= images.n_classes:
        raise ConfigError(
            f"forget: {config.dataset} has classes 0 to {images.n_classes - 1}, got {config.forget}"
        )
    return images.checksum


def _without(task: Task, label: int) -> Task:
    """The task with no training image of a class."""
    train = cast(Arrays, task.train)
    return replace(task, train=train.subset((train.labels() != label).nonzero()[:, 0]))
