"""Homeostasis: a learner whose learning rate hangs on what it recognises, in a world where classes exchange names.

The primary claim does not hold. In a fair comparison, where every arm may take the wider network, homeostasis is 0.7
points above its first rate kept constant (0.4 to 1.0), and 1 was asked for: a wider network learns faster at the same
small rate, and what growing rates have to mend is less. At ten exchanges a pass the gain is 6 points.
"""

from __future__ import annotations

import copy
import itertools
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from neuropil import data
from neuropil.bench import figures
from neuropil.bench.claim import equivalent, exceeds
from neuropil.bench.overhead import overhead
from neuropil.bench.study import Config, Outcome, Study, Trial, setting
from neuropil.continual import HomeostaticLearningRate
from neuropil.training import Backprop, OnlineAccuracy

EXCITATORY = (5, 6, 7, 8, 9)


@dataclass(frozen=True)
class ShiftSetting(Config):
    """A network that learns the same images pass after pass while classes exchange their labels."""

    dataset: str = setting("fashion-mnist", "images: a name that `neuropil data list` shows")
    train_samples: int = setting(2000, "images of a pass", low=10)
    passes: int = setting(5, "passes over them", low=1)
    rates: tuple[float, ...] = setting(
        (2.0, 0.0, 10.0), "exchanges of two labels a pass; each is a life", low=0.0
    )
    hidden: tuple[int, ...] = setting((80, 60), "widths of the hidden layers", low=1)
    lr: float = setting(0.01, "learning rate, or the first one", low=0.0)
    batch_size: int = setting(10, "images a step", low=1)


@dataclass(frozen=True)
class RegulatedSetting(ShiftSetting):
    """Settings of a regulated learning rate."""

    share: float = setting(
        0.1, "change of the learning rate at a time, as a share of the first one", low=0.001
    )
    memory: int = setting(20, "latest images that imagined steps are judged on", low=1)


def network(hidden: tuple[int, ...]) -> nn.Module:
    """The published multilayer perceptron with ELU."""
    widths = (784, *hidden, 10)
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(widths):
        linear = nn.Linear(inputs, outputs)
        nn.init.kaiming_normal_(linear.weight)
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.ELU()]
    return nn.Sequential(*layers[:-1])


def make_learner(arm: str, config: Any, model: nn.Module, online: OnlineAccuracy, seed: int) -> Backprop:
    """The learner of an arm: fixed rate, or one that is regulated from the same first rate."""
    optimizer = torch.optim.SGD(model.parameters(), lr=config.lr)
    if not isinstance(config, RegulatedSetting):
        return Backprop(model, optimizer, plugins=[online])
    return HomeostaticLearningRate(
        model, optimizer, excitatory=EXCITATORY, step=config.share * config.lr, memory=config.memory,
        regulation="random" if arm == "random" else "simulated",
        generator=torch.Generator().manual_seed(seed), plugins=[online],
    )  # fmt: skip


def trial(trial: Trial) -> Outcome:
    """One arm at every rate of exchanges, each from the same fresh network."""
    config: Any = trial.config
    rates = config.rates[:1] if trial.evaluate_on == "validation" else config.rates
    metrics: dict[str, float | None] = {}
    curves: dict[str, list[float]] = {}
    images = data.load(config.dataset)
    for rate in rates:
        torch.manual_seed(trial.seed)
        model, online = network(config.hidden), OnlineAccuracy()
        learner = make_learner(trial.arm, config, model, online, trial.seed)
        stream = data.concept_shift(
            images, config.passes, swaps_per_task=rate, seed=trial.seed,
            train_samples=config.train_samples, validation_samples=500, test_samples=500,
        )  # fmt: skip
        held_out, lrs = [], []
        for task in stream:
            learner.start_task()
            for batch in data.batches(task.train, config.batch_size):
                measured = learner.update(batch)
                lrs.append(measured.get("lr", config.lr))
            x, y = data.gather(getattr(task, trial.evaluate_on), range(500))
            held_out.append(float((learner.predict(x).argmax(-1) == y).double().mean()))
        name = f"{rate:g}"
        metrics[f"online_{name}"] = online.mean
        metrics[f"held_out_{name}"] = sum(held_out) / len(held_out)
        metrics[f"last_lr_{name}"] = lrs[-1]
        curves[f"online_{name}"], curves[f"lr_{name}"] = _thin(online.accuracies), _thin(lrs)
    metrics["acc"] = metrics[f"online_{rates[0]:g}"]
    cost = {} if trial.evaluate_on == "validation" else _cost(learner, stream, config)
    return Outcome(metrics, cost, curves)


def _cost(learner: Backprop, stream: data.Stream, config: ShiftSetting) -> dict[str, float]:
    """Time of the learner's update over that of plain backpropagation."""
    twin = copy.deepcopy(learner.model)
    plain = Backprop(twin, torch.optim.SGD(twin.parameters(), lr=config.lr), plugins=[OnlineAccuracy()])
    batch = next(data.batches(stream[0].train, config.batch_size))
    return {"overhead": overhead(lambda: plain.update(batch), lambda: learner.update(batch))}


def _thin(values: list[float], points: int = 120) -> list[float]:
    size = max(1, -(-len(values) // points))
    return [sum(values[i : i + size]) / len(values[i : i + size]) for i in range(0, len(values), size)]


_WIDTHS = ((80, 60), (160, 120))

study = Study(
    id="homeostatic",
    summary=(
        "A network learns images while classes exchange their labels. Recognising some classes raises its learning "
        "rate, recognising others lowers it, so it lives off what it knows, and adapts when that no longer holds."
    ),
    citation="""@article{man2022need,
  title   = {Need is All You Need: Homeostatic Neural Networks Adapt to Concept Shift},
  author  = {Man, Kingson and Damasio, Antonio and Neven, Hartmut},
  journal = {arXiv preprint arXiv:2205.08645},
  year    = {2022}
}""",
    arms={
        "homeostatic": RegulatedSetting(),
        "random": RegulatedSetting(),
        "constant": ShiftSetting(),
        "fixed": ShiftSetting(lr=0.04),
        "homeostatic_best": RegulatedSetting(lr=0.03, share=0.05),
    },
    search={
        "homeostatic": {"hidden": _WIDTHS, "share": (0.1, 0.2)},
        "random": {"hidden": _WIDTHS, "share": (0.1, 0.2)},
        "constant": {"hidden": (*_WIDTHS, (80,), (160, 60))},
        "fixed": {"hidden": _WIDTHS, "lr": (0.04, 0.06)},
        "homeostatic_best": {"hidden": _WIDTHS, "lr": (0.03, 0.06)},
    },
    tune_trials=4,
    trial=trial,
    data=lambda config: data.load(config.dataset).checksum,
    claims=(
        exceeds(
            "homeostatic.online_2", "constant.online_2", by=0.01, primary=True,
            text="with two exchanges a pass, homeostasis is at least 1 point above its first rate kept constant",
        ),
        exceeds(
            "homeostatic.online_2", "random.online_2", by=0.005,
            text="with two exchanges a pass, homeostasis is at least half a point above random regulation",
        ),
        exceeds(
            "homeostatic.online_10", "constant.online_10", by=0.03,
            text="with ten exchanges a pass, homeostasis is at least 3 points above the constant rate",
        ),
        equivalent(
            "homeostatic.online_0", "constant.online_0", within=0.02,
            text="without exchanges, homeostasis is within 2 points of the constant rate",
        ),
        exceeds(
            "fixed.online_2", "homeostatic.online_2", by=0.005,
            text="the best fixed rate is at least half a point above homeostasis from the small first rate",
        ),
        exceeds(
            "fixed.online_2", "homeostatic_best.online_2", by=-0.005,
            text="started at the rate that suits it best, homeostasis adds less than half a point to a fixed rate",
        ),
    ),
    scales={
        "smoke": {"train_samples": 150, "passes": 2, "hidden": (20,)},
        "paper": {"dataset": "mnist-full", "train_samples": 50000, "passes": 50},
    },
    figures=(
        figures.LearningCurves("lr_2", title="Learning rate, two exchanges a pass", x_title="share of life, %"),
        figures.LearningCurves("online_2", title="Online accuracy, two exchanges a pass", x_title="share of life, %"),
        figures.LearningCurves("online_10", title="Online accuracy, ten exchanges a pass", x_title="share of life, %"),
        figures.MetricStrip("online_0", title="Online accuracy without exchanges"),
        figures.MetricStrip("online_2", title="Online accuracy, two exchanges a pass"),
        figures.MetricStrip("online_10", title="Online accuracy, ten exchanges a pass"),
    ),
    notes=(
        "This is the second run. In the first, only the constant rate could choose the network's width: it took twice "
        "the published one, worth 2 points, and the primary claim failed (-0.2 points, -0.5 to 0.0). Now every arm may "
        "take the wide network; margins are those of the first run. "
        "Accuracy is online: every batch is answered before it is learned, all through a life of five passes over "
        "2,000 images. The paper starts all learners at one small rate; so do homeostatic, random and constant here, "
        "at 0.01. The comparison rests on that: any learner whose rate grows does better, random regulation depends "
        "on which way the coin drifts, and the best fixed rate, which the paper does not report, was above every "
        "regulated learner. One regulation is made a batch, with the batch's whole gradient and its last image, where "
        "the paper's code looks at every image with the running gradient. Weights are drawn as He et al. do, biases "
        "begin at zero. Use it as a model of a learner with needs, not to choose a learning rate; it costs about two "
        "plain updates, and without exchanges its restless rate costs 2 points."
    ),
)  # fmt: skip
