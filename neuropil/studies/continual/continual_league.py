"""Continual league: every mechanism and baseline of the room on the same four changing worlds."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.optim import SGD, Optimizer

from neuropil import data
from neuropil.bench import figures, figures_trade
from neuropil.bench.claim import exceeds
from neuropil.bench.study import Config, Outcome, Study, Trial, setting
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
    ClassBalancedBuffer,
    FeatureDistillation,
    LwF,
    MaskedSoftmax,
    OnlineEWC,
    ParameterL2,
    RehearsalSchedule,
    Replay,
    ReservoirBuffer,
    RingBuffer,
)
from neuropil.data.task import Stream, Task
from neuropil.studies.continual._life import live, live_together, step_overhead
from neuropil.training import Backprop, Plugin

CORRUPTIONS = ("clean", "contrast", "gaussian_noise", "gaussian_blur", "impulse_noise", "pixelate")
WORLDS = ("permuted", "split", "corrupted", "concept")


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
    "finetune": lambda m: [],
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
    "classp": lambda m: [],  # an optimizer
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
WITH_IMAGES = ("replay", "replay_power", "replay_balanced", "joint")  # their softmax runs over all classes


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
    optimizer: Optimizer
    if arm == "classp":
        optimizer = classp = CLASSP(model.parameters(), lr=config.lr, quantile=config.quantile)
        world.plugins.append(_Protect(classp, config.later_lr))
    else:
        optimizer = SGD(model.parameters(), lr=config.lr)
    if arm != "joint":
        world.plugins += MAKERS[arm](world)
    return Backprop(model, optimizer, plugins=world.plugins)


def trial(trial: Trial) -> Outcome:
    """One arm in all worlds, a new network in each."""
    config: LeagueSetting = trial.config
    metrics: dict[str, float | None] = {}
    cost: dict[str, float] = {"seconds": 0.0, "numbers_remembered": 0.0}
    curves, arrays = {}, {}
    for world in WORLDS:
        stream = make_stream(world, config, trial.seed)
        model = make_network(config, stream.n_classes)
        learner = make_learner(trial.arm, config, model, stream, trial.seed)
        outcome = (live_together if trial.arm == "joint" else live)(
            learner, stream, epochs=1 if world == "concept" else config.epochs,
            batch_size=config.batch_size, seed=trial.seed, evaluate_on=trial.evaluate_on,
        )  # fmt: skip
        if trial.arm != "joint":
            metrics[f"bwt_{world}"] = outcome.metrics["bwt"]
            metrics[f"new_{world}"] = outcome.metrics["new_task"]
            arrays[f"accuracy_{world}"] = outcome.arrays["accuracy_matrix"]
        metrics[f"acc_{world}"] = outcome.metrics["acc"]
        curves[f"loss_{world}"] = outcome.curves["loss"]
        cost["seconds"] += outcome.cost["seconds"]
        cost["numbers_remembered"] = max(cost["numbers_remembered"], outcome.cost["numbers_remembered"])
        if trial.arm == "classp":  # it remembers in the optimizer
            cost["numbers_remembered"] = float(sum(p.numel() for p in model.parameters()))
        if world == "permuted" and trial.evaluate_on == "test" and trial.scale != "smoke":
            cost["overhead"] = step_overhead(
                learner,
                stream,
                lambda net: (SGD(net.parameters(), lr=config.lr), ()),
                batch_size=config.batch_size,
            )
    kept = [metrics[f"acc_{world}"] or 0.0 for world in WORLDS[:3]]
    metrics["keeps"] = sum(kept) / len(kept)
    metrics["adapts"] = metrics.get("new_concept", metrics["acc_concept"])
    metrics["acc"] = (sum(kept) + (metrics["adapts"] or 0.0)) / 4
    return Outcome(metrics, cost, curves, arrays)


_RATES = (0.03, 0.1, 0.2)
_PENALTY: dict[str, tuple[float, ...]] = {
    "l2": (0.001, 0.003, 0.01, 0.03),
    "ewc": (1.0, 3.0, 10.0, 30.0),
    "online_ewc": (1.0, 3.0, 10.0, 30.0),
    "si": (0.1, 0.3, 1.0, 3.0),
    "mas": (0.01, 0.03, 0.1, 0.3),
    "lwf": (0.03, 0.1, 0.3, 1.0),
    "features": (0.0003, 0.001, 0.003),
}
_BATCHES = {"lr": _RATES, "replay_batch": (16, 32, 64)}

study = Study(
    id="continual-league",
    summary=(
        "Seventeen ways of learning task after task in four changing worlds: other pixels, other classes, other "
        "weather, other names. What they keep, whether they still adapt, what they remember and what a step costs."
    ),
    citation="""@article{vandeven2022three,
  title   = {Three types of incremental learning},
  author  = {van de Ven, Gido M. and Tuytelaars, Tinne and Tolias, Andreas S.},
  journal = {Nature Machine Intelligence},
  volume  = {4},
  year    = {2022}
}""",
    arms={
        "finetune": LeagueSetting(),
        **{arm: PenaltySetting(strength=values[1]) for arm, values in _PENALTY.items()},
        "hlop": ProjectionSetting(lr=0.05, protect=0.2),
        "gpm": ProjectionSetting(protect=0.7),
        "owm": ProjectionSetting(damping=100.0),
        "classp": UsageSetting(),
        "agem": MemorySetting(),
        "gem": MemorySetting(),
        "replay": MemorySetting(),
        "replay_power": MemorySetting(),
        "replay_balanced": MemorySetting(),
        "joint": LeagueSetting(),
    },
    search={
        "finetune": {"lr": (0.01, *_RATES), "batch_size": (16, 32)},
        **{arm: {"lr": _RATES, "strength": values} for arm, values in _PENALTY.items()},
        "hlop": {"lr": (0.02, 0.03, 0.05), "protect": (0.1, 0.2, 0.3, 0.5)},
        "gpm": {"lr": _RATES, "protect": (0.5, 0.6, 0.7, 0.8)},
        "owm": {"lr": _RATES, "damping": (10.0, 30.0, 100.0, 300.0)},
        "classp": {"later_lr": (0.003, 0.01, 0.03, 0.1), "quantile": (0.0, 0.8)},
        "agem": _BATCHES,
        "gem": {"lr": _RATES, "margin": (0.0, 0.2, 0.5)},
        "replay": _BATCHES,
        "replay_power": _BATCHES,
        "replay_balanced": _BATCHES,
        "joint": {"lr": (0.01, *_RATES), "batch_size": (16, 32)},
    },
    trial=trial,
    tune_trials=5,
    data=lambda config: data.load("mnist").checksum + data.load("fashion-mnist").checksum,
    claims=(
        exceeds(
            "replay.acc", "ewc.acc", by=0.03, primary=True,
            text="200 remembered images are worth 3 points more, over all worlds, than springs on the weights (EWC)",
        ),
        exceeds("replay.acc", "finetune.acc", by=0.05, text="replay is 5 points above fine-tuning over all worlds"),
        exceeds(
            "gpm.acc", "finetune.acc", by=0.03,
            text="without any image, protected directions (GPM) are 3 points above fine-tuning",
        ),
        exceeds("gem.keeps", "finetune.keeps", by=0.02, text="bounds by remembered images (GEM) keep 2 points more"),
        exceeds(
            "hlop.acc_permuted", "finetune.acc_permuted", by=0.0,
            text="where pixels are permuted, HLOP ends above fine-tuning",
        ),
        exceeds(
            "finetune.adapts", "hlop.adapts", by=0.0,
            text="where names change, a network that protects what it knew learns the new names worse",
        ),
    ),
    scales={
        "smoke": {
            "tasks": 2, "train_samples": 100, "validation_samples": 40, "test_samples": 40, "hidden": (16,),
            "epochs": 1, **{f"{arm}.samples": 8 for arm in ("ewc", "online_ewc", "mas")},
        },
    },
    figures=(
        figures_trade.TradeOff(
            "acc", ("numbers_remembered", "overhead"), "Accuracy against memory and time",
            "Mean over the four worlds against the numbers remembered beside the network, and against the time of a "
            "training step relative to plain SGD. Dashed: what no other arm beats in both.",
        ),
        figures_trade.TradeOff(
            "keeps", ("numbers_remembered",), "What is kept against memory",
            "Mean accuracy on all tasks of the three worlds whose answers do not contradict each other.",
        ),
        figures.MetricStrip("acc_permuted", "Other pixels: final accuracy"),
        figures.MetricStrip("acc_split", "Other classes: final accuracy"),
        figures.MetricStrip("acc_corrupted", "Other weather: final accuracy"),
        figures.MetricStrip("adapts", "Other names: accuracy on the names of the day"),
        figures.AccuracyMatrix("accuracy_permuted", "Other pixels, task by task"),
        figures.AccuracyMatrix("accuracy_split", "Other classes, task by task"),
        figures.CostBars(("overhead", "numbers_remembered", "seconds")),
    ),
    notes=(
        "One setting of each arm, chosen with the same budget for the mean over all four worlds, serves in all of "
        "them: an arm that could be tuned for each world alone would do better there. Permuted MNIST, split "
        "Fashion-MNIST with one head (arms without images use the masked softmax, which is what lets them work at "
        "all), four corruptions of Fashion-MNIST, and Fashion-MNIST whose classes exchange names; there the mean is "
        "of the accuracy just after each task, since earlier names contradict later ones. Networks are small, plain "
        "and without biases, tasks short: the ranking need not carry over to large ones. Joint training stands for "
        "what is possible without a stream; where names change it is asked for contradictions."
    ),
)  # fmt: skip
