"""A life of tasks with any model, optimizer and plugins: what is measured of it, and what its mechanism costs."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from neuropil import data
from neuropil.bench.overhead import overhead
from neuropil.bench.study import Outcome, Split
from neuropil.data.task import Stream, Task
from neuropil.studies.continual._setting import metrics_of, thin
from neuropil.training import Backprop, Learner, Plugin, Trainer

Make = Callable[[nn.Module], tuple[Optimizer, Sequence[Plugin]]]


def live(
    learner: Learner,
    stream: Stream,
    *,
    epochs: int,
    batch_size: int,
    seed: int,
    evaluate_on: Split,
) -> Outcome:
    """Learn the stream, judge it after each task: ACC, BWT, FWT, accuracy when just learned, and the matrix."""
    trainer = Trainer(learner=learner, epochs=epochs, batch_size=batch_size, seed=seed, progress=False)
    started = time.perf_counter()
    history = trainer.fit(stream, evaluate_on=evaluate_on)
    seconds = time.perf_counter() - started
    cost = {
        "seconds": seconds,
        "numbers_remembered": float(remembered(learner)),
        "parameters": float(sum(p.numel() for p in learner.model.parameters())),
    }
    return Outcome(
        metrics_of(history),
        cost,
        {"loss": thin(history.losses)},
        {"accuracy_matrix": history.accuracy_matrix},
    )


def live_together(
    learner: Learner, stream: Stream, *, epochs: int, batch_size: int, seed: int, evaluate_on: Split
) -> Outcome:
    """All tasks at once, in random order: what is possible without a stream."""
    trainer = Trainer(learner=learner, epochs=epochs, batch_size=batch_size, seed=seed, progress=False)
    first = stream[0]
    together = Stream((Task("all", stream.train, first.validation, first.test),), n_classes=stream.n_classes)
    started = time.perf_counter()
    losses = trainer.fit(together, evaluate_on=evaluate_on).losses
    accuracies = [trainer.evaluate(task, evaluate_on) for task in stream]
    metrics = {"acc": sum(accuracies) / len(accuracies), "bwt": None, "fwt": None, "new_task": None}
    cost = {
        "seconds": time.perf_counter() - started,
        "numbers_remembered": 0.0,
        "parameters": float(sum(p.numel() for p in learner.model.parameters())),
    }
    return Outcome(metrics, cost, {"loss": thin(losses)}, {})


def remembered(learner: Learner) -> int:
    """Numbers that plugins keep beside the model: springs, bases, samples, remembered networks."""
    return sum(t.numel() for p in learner.plugins for t in tensors(p.state_dict()) if t.is_floating_point())


def tensors(tree: Any) -> list[Tensor]:
    """All tensors in nested dicts and lists."""
    if isinstance(tree, Tensor):
        return [tree]
    if isinstance(tree, dict):
        return [t for value in tree.values() for t in tensors(value)]
    return [t for value in tree for t in tensors(value)] if isinstance(tree, list | tuple) else []


def step_overhead(
    learner: Learner, stream: Stream, plain: Make, *, batch_size: int, rounds: int = 15
) -> float:
    """Time of a training step in the last task over that of the same model without the mechanism.

    Measured on copies, so that the network itself learns nothing from it.
    """
    batch = next(iter(data.batches(stream[len(stream) - 1].train, batch_size)))
    twin = copy.deepcopy(learner.model)
    optimizer, plugins = plain(twin)
    alone = Backprop(twin, optimizer, plugins=plugins)
    state = {name: value.clone() for name, value in learner.model.state_dict().items()}
    torch.manual_seed(0)
    ratio = overhead(lambda: alone.update(batch), lambda: learner.update(batch), rounds=rounds)
    learner.model.load_state_dict(state)
    return ratio
