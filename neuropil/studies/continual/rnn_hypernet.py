"""A recurrent hypernetwork writes one small network a task: pairs of clothes, one pair after the other.

In the first run, on seeds 0 to 4, the primary claim was undecided (12 points, -2 to 27), for forgetting without the
regularizer swings with the order of the classes; this one is on fresh seeds, with the same margins.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.utils.data import TensorDataset

from neuropil import data
from neuropil.bench import figures
from neuropil.bench.claim import at_least, exceeds
from neuropil.bench.overhead import overhead
from neuropil.bench.study import Config, Outcome, Study, Trial, setting
from neuropil.continual import (
    EWC,
    ChunkedHyperNetwork,
    HyperNetwork,
    HyperNetworkRegularizer,
    RecurrentHyperNetwork,
)
from neuropil.data.task import Batch, Stream, Task
from neuropil.training import Backprop, Plugin, average_accuracy, backward_transfer, restrict
from neuropil.training.evaluating import evaluating


@dataclass(frozen=True)
class Setting(Config):
    """Pairs of classes in turn, the pair known when answering, and the network that answers."""

    dataset: str = setting("fashion-mnist", "images to split into pairs of classes")
    tasks: int = setting(5, "number of pairs", low=2, high=5)
    hidden: int = setting(32, "hidden neurons of the network that answers", low=1)
    epochs: int = setting(4, "passes over each task", low=1)
    batch_size: int = setting(64, "images per step", low=1)
    train_samples: int | None = setting(None, "training images per task", low=1)
    validation_samples: int | None = setting(200, "images per task that settings are chosen on", low=1)
    test_samples: int | None = setting(None, "images per task that the result is judged on", low=1)
    lr: float = setting(0.001, "learning rate of Adam", low=0.0)


@dataclass(frozen=True)
class HyperSetting(Setting):
    """Settings of a hypernetwork."""

    kind: str = setting("recurrent", "what writes the weights", choices=("recurrent", "chunked"))
    strength: float = setting(1.0, "weight of the distance from what was written for earlier tasks", low=0.0)
    embedding: int = setting(8, "numbers that stand for a task or a chunk", low=1)
    units: tuple[int, ...] = setting(
        (16,), "units of the recurrent network, or widths of the perceptron", low=1
    )
    chunk: int = setting(1280, "weights written in one step", low=1)
    lr: float = setting(0.003, "learning rate of Adam", low=0.0)


@dataclass(frozen=True)
class EWCSetting(Setting):
    """Settings of elastic weight consolidation on the network that answers."""

    strength: float = setting(100.0, "weight of the penalty", low=0.0)
    fisher_samples: int = setting(256, "images per task that the Fisher information is estimated on", low=1)


def make_target(config: Setting) -> nn.Module:
    """The network that answers: a perceptron with an output for each class of a pair, or, written by nobody, of all."""
    outputs = 2 if isinstance(config, HyperSetting) else 10
    return nn.Sequential(nn.Linear(784, config.hidden), nn.ReLU(), nn.Linear(config.hidden, outputs))


def first_or_second(task: Task) -> Task:
    """The same task, to be answered with 0 for its first class and 1 for its second."""

    second = (task.classes or (0, 1))[1]

    def relabelled(samples: Any) -> TensorDataset:
        inputs, targets = data.gather(samples, range(len(samples)))
        return TensorDataset(inputs, torch.eq(targets, second).long())

    return replace(
        task, train=relabelled(task.train), validation=relabelled(task.validation), test=relabelled(task.test),
        classes=None,
    )  # fmt: skip


def make_network(config: Any) -> nn.Module:
    """The network of an arm: what writes the target, or the target itself."""
    target = make_target(config)
    if not isinstance(config, HyperSetting):
        return target
    sizes = {"tasks": config.tasks, "embedding": config.embedding, "chunk": config.chunk}
    if config.kind == "recurrent":
        return RecurrentHyperNetwork(target, hidden=config.units[0], **sizes)
    return ChunkedHyperNetwork(target, hidden=config.units, **sizes)


def make_plugins(config: Any, model: nn.Module, seed: int) -> list[Plugin]:
    """What protects earlier tasks in an arm."""
    generator = torch.Generator().manual_seed(seed)
    if isinstance(config, HyperSetting):
        return [HyperNetworkRegularizer(model, strength=config.strength, generator=generator)]
    if isinstance(config, EWCSetting):
        return [EWC(model, strength=config.strength, samples=config.fisher_samples, generator=generator)]
    return []


def trial(trial: Trial) -> Outcome:
    """One arm on one order of the pairs."""
    config: Any = trial.config
    stream = data.split(
        config.dataset, 2, tasks=config.tasks, seed=trial.seed, class_order="random",
        train_samples=config.train_samples, validation_samples=config.validation_samples,
        test_samples=config.test_samples,
    )  # fmt: skip
    pairs = [task.classes or () for task in stream]
    if isinstance(config, HyperSetting):
        stream = data.stream([first_or_second(task) for task in stream], n_classes=2)
    model = make_network(config)
    plugins = make_plugins(config, model, trial.seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=config.lr)
    learner = Backprop(model, optimizer, plugins=plugins)
    started = time.perf_counter()
    matrix, losses = _learn(config, learner, stream, trial)
    seconds = time.perf_counter() - started
    learned = [row[i] or 0.0 for i, row in enumerate(matrix)]
    size = sum(p.numel() for p in make_target(config).parameters())
    own = sum(p.numel() for p in model.parameters())
    metrics: dict[str, float | None] = {
        "acc": average_accuracy(matrix), "bwt": backward_transfer(matrix),
        "new_task": sum(learned) / len(learned), "parameters_per_target": own / size,
    }  # fmt: skip
    cost = {
        "seconds": seconds, "milliseconds_per_step": 1000 * seconds / len(losses), "parameters": float(own)
    }  # fmt: skip
    if trial.evaluate_on == "test" and isinstance(model, HyperNetwork):
        metrics["task_inferred"] = _inferred(model, stream, pairs, trial)
        cost["overhead"] = _overhead(config, learner, stream)
    curves = {"loss": losses[:: max(1, len(losses) // 100)]}
    return Outcome(metrics, cost, curves, {"accuracy_matrix": matrix})


def _learn(
    config: Setting, learner: Backprop, stream: Stream, trial: Trial
) -> tuple[list[list[float | None]], list[float]]:
    """Learn the tasks in turn; accuracies after each one, and the loss of every step."""
    matrix: list[list[float | None]] = []
    losses = []
    for index, task in enumerate(stream):
        learner.start_task()
        for plugin in learner.plugins:
            plugin.before_task(task)
        learner.model.train()
        for epoch in range(config.epochs):
            for batch in _batches(config, task, trial.seed, epoch):
                losses.append(learner.update(batch)["loss"])
        for plugin in learner.plugins:
            plugin.after_task(task)
        row = [
            _accuracy(learner.model, stream[k], k, trial) if k <= index else None for k in range(len(stream))
        ]
        matrix.append(row)
    return matrix, losses


def _batches(config: Setting, task: Task, seed: int, epoch: int) -> Any:
    return data.batches(
        task.train, config.batch_size, seed=seed + 1_000_003 * task.index, epoch=epoch, classes=task.classes
    )


@torch.no_grad()
def _accuracy(model: nn.Module, task: Task, index: int, trial: Trial) -> float:
    """Share of right answers, told which task it is."""
    if isinstance(model, HyperNetwork):
        model.answer_as = index
    right = total = 0
    with evaluating(model):
        for batch in data.batches(getattr(task, trial.evaluate_on), 500, shuffle=False):
            answer = restrict(model(batch.inputs), task.classes).argmax(-1)
            right += int((answer == batch.targets).sum())
            total += len(batch.targets)
    return right / total


@torch.no_grad()
def _inferred(model: HyperNetwork, stream: Stream, pairs: list[tuple[int, ...]], trial: Trial) -> float:
    """Accuracy among all classes when the task is not told: the surest pair answers."""
    classes = torch.tensor(pairs).flatten()  # [2 tasks]
    right = []
    with evaluating(model):
        for k, task in enumerate(stream):
            for batch in data.batches(getattr(task, trial.evaluate_on), 500, shuffle=False):
                sure = torch.cat([model(batch.inputs, task=j).softmax(-1) for j in range(len(pairs))], -1)
                right.append(classes[sure.argmax(-1)] == classes[2 * k + batch.targets])
    return float(torch.cat(right).float().mean())


def _overhead(config: Setting, learner: Backprop, stream: Stream) -> float:
    """Time of a step on the last task over that of training the target itself."""
    target = make_target(config)
    plain = Backprop(target, torch.optim.Adam(target.parameters(), lr=config.lr))
    batch: Batch = next(iter(_batches(config, stream[-1], 0, 0)))
    learner.model.train()
    for plugin in learner.plugins:
        if isinstance(plugin, HyperNetworkRegularizer):
            plugin.learned -= 1
            plugin.before_task()
    return overhead(lambda: plain.update(batch), lambda: learner.update(batch), rounds=20)


_STRENGTHS = {"lr": (0.001, 0.003, 0.006, 0.01), "strength": (0.3, 1.0)}

study = Study(
    id="rnn-hypernet",
    summary=(
        "A recurrent network writes the weights of one small network a task, chunk after chunk, and is held to what it "
        "wrote for earlier tasks: five pairs of clothes are kept in fewer parameters than one such network has."
    ),
    citation="""@inproceedings{chandra2023continual,
  title     = {Continual Learning with Dependency Preserving Hypernetworks},
  author    = {Chandra, Dupati Srikar and Varshney, Sakshi and Srijith, P. K. and Gupta, Sunil},
  booktitle = {Winter Conference on Applications of Computer Vision},
  year      = {2023}
}""",
    arms={
        "recurrent": HyperSetting(),
        "unregularized": HyperSetting(strength=0.0),
        "chunked": HyperSetting(kind="chunked", units=(48, 16)),
        "ewc": EWCSetting(),
        "finetune": Setting(),
    },
    search={
        "recurrent": _STRENGTHS,
        "unregularized": {"lr": (0.0003, 0.001, 0.003, 0.006), "epochs": (2, 4)},
        "chunked": _STRENGTHS,
        "ewc": {"lr": (0.0003, 0.001), "strength": (10.0, 100.0, 1000.0, 10000.0)},
        "finetune": {"lr": (0.0001, 0.0003, 0.001, 0.003), "epochs": (2, 4)},
    },
    trial=trial,
    seeds=20,
    first_seed=5,  # the five before left the primary claim undecided and served to choose how many are needed
    data=lambda config: data.load(config.dataset).checksum,
    claims=(
        exceeds(
            "recurrent.bwt", "unregularized.bwt", by=0.03, primary=True,
            text="held to what it wrote, the recurrent hypernetwork forgets at least 3 points less",
        ),
        at_least("recurrent.bwt", -0.015, text="it forgets less than 1.5 points"),
        at_least("recurrent.acc", 0.9, text="and answers at least 90 % rightly in the end"),
        exceeds(
            "recurrent.acc", "chunked.acc", by=-0.02,
            text="it is within 2 points of a perceptron that writes each chunk by itself, at equal parameters",
        ),
        exceeds(
            "recurrent.acc", "ewc.acc", by=-0.03,
            text="and within 3 points of EWC on one network with an output for every class",
        ),
    ),
    scales={
        "smoke": {
            "tasks": 2, "epochs": 1, "train_samples": 200, "validation_samples": 100, "test_samples": 100, "hidden": 8,
            "ewc.fisher_samples": 32,
        },
        "paper": {"dataset": "fashion-mnist-full", "epochs": 10, "hidden": 400},
    },
    figures=(
        figures.AccuracyMatrix(),
        figures.TaskCurves(),
        figures.MetricStrip("parameters_per_target", title="Parameters, in networks that answer"),
        figures.MetricStrip("task_inferred", title="Accuracy when the task is inferred from entropy"),
        figures.LearningCurves("loss", title="Training loss", x_title="share of training, %"),
        figures.CostBars(("milliseconds_per_step", "parameters", "overhead")),
    ),
    notes=(
        "The paper reports recurrent hypernetworks ahead of feed-forward ones at equal parameters; here they are "
        "claimed to be no worse than 2 points. The written network has two outputs that every pair shares, so "
        "pairs contradict each other; EWC and fine-tuning train one network with an output for every class and are "
        "told the pair, which is an easier problem: with it, plain fine-tuning forgets little, and a hypernetwork "
        "is not worth its price. The strength multiplies a sum over weights: below 0.1 it is much like none. "
        "Written weights start with the variance of their fan-in; without that, training stalls. The growth rule, "
        "the order of chunks and the importance weights are reconstructions, and growth is tested but not part of "
        "this study. A step costs a pass through all chunks in sequence, twice where earlier tasks are held. Use "
        "it where many similar networks have to be kept in the parameters of one."
    ),
)  # fmt: skip
