"""What studies of continual learning share: the stream, the network, and what is measured of a life of tasks."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from neuropil import data
from neuropil.bench.study import Config, Outcome, Trial, setting
from neuropil.data.sources import SOURCES
from neuropil.data.task import Stream, Task
from neuropil.errors import ConfigError, UnknownNameError, nearest
from neuropil.nn import (
    DSR,
    LIF,
    FeedbackLinear,
    RateReadout,
    Sequential,
    SignSymmetricLinear,
    TracedLinear,
    WeightedRateReadout,
    record,
)
from neuropil.nn.presynaptic import observe, rows, synapses
from neuropil.training import OTTT, Backprop, History, Learner, Plugin, Trainer

STREAMS = ("permuted", "rotated", "split", "split-class")


@dataclass(frozen=True)
class Setting(Config):
    """A stream of tasks and a network that learns it, the same for every arm."""

    dataset: str = setting("mnist", "images to learn: a name that `neuropil data list` shows")
    stream: str = setting(
        "permuted",
        "permuted, rotated, split (task known) or split-class (task unknown); or with its data set, as "
        "split-fashion-mnist",
    )
    tasks: int = setting(
        8, "number of tasks; split streams have two classes each and end at five", low=1, high=100
    )
    train_samples: int | None = setting(
        8000, "training images per task of permuted and rotated streams", low=1
    )
    validation_samples: int = setting(1000, "images per task that settings are chosen on", low=1)
    test_samples: int | None = setting(1000, "images per task that the result is judged on", low=1)
    network: str = setting(
        "spiking",
        "kind of network: spiking, relu (plain) or conv (spiking)",
        choices=("spiking", "relu", "conv"),
    )
    hidden: tuple[int, ...] = setting((400, 400), "widths of the hidden layers", low=1)
    time_steps: int = setting(6, "time steps of a spiking network", low=1)
    training: str = setting("bptt", "how gradients travel through time", choices=("bptt", "ottt", "dsr"))
    feedback: str = setting(
        "symmetric",
        "weights that carry errors back: the forward ones, fixed random, or the signs of the forward ones",
        choices=("symmetric", "random", "sign"),
    )
    epochs: int = setting(1, "passes over each task", low=1)
    batch_size: int = setting(64, "images per step", low=1)
    lr: float = setting(0.1, "learning rate of plain SGD", low=0.0)


def split_name(config: Setting) -> tuple[str, str]:
    """Kind of stream and data set: `stream` may name both."""
    for kind in sorted(STREAMS, key=len, reverse=True):
        if config.stream == kind:
            return kind, _known(config.dataset, "dataset")
        if config.stream.startswith(f"{kind}-"):
            return kind, _known(config.stream.removeprefix(f"{kind}-"), "stream")
    name = config.stream[:40]
    raise UnknownNameError(f"stream: no stream is called {name!r}{nearest(name, STREAMS)}")


def _known(dataset: str, field: str) -> str:
    if dataset not in SOURCES:
        raise UnknownNameError(
            f"{field}: no data set is called {dataset[:40]!r}{nearest(dataset[:40], SOURCES)}"
        )
    return dataset


def make_stream(config: Setting, seed: int) -> Stream:
    """The tasks of a trial."""
    kind, dataset = split_name(config)
    sizes: dict[str, Any] = {
        "train_samples": config.train_samples,
        "validation_samples": config.validation_samples,
        "test_samples": config.test_samples,
        "flat": config.network != "conv",
    }
    if kind in ("permuted", "rotated"):
        return data.by_name(f"{kind}-{dataset}", config.tasks, seed=seed, **sizes)
    # A task holds only its own classes' images: it takes what there is of them.
    sizes |= {"train_samples": None, "validation_samples": None, "test_samples": None}
    return data.split(
        dataset, 2, tasks=min(config.tasks, 5), seed=seed,
        scenario="task" if kind == "split" else "class", class_order="random", **sizes,
    )  # fmt: skip


def data_checksum(config: Setting) -> str:
    """What identifies the images that a trial reads."""
    return data.load(split_name(config)[1]).checksum


def make_network(config: Setting, outputs: int) -> nn.Module:
    """The network of a setting; no biases, so that projection protects all that is shared."""
    if config.network == "relu":
        widths = (784, *config.hidden)
        parts = [(nn.Linear(a, b, bias=False), nn.ReLU()) for a, b in itertools.pairwise(widths)]
        return nn.Sequential(*itertools.chain(*parts), nn.Linear(widths[-1], outputs, bias=False))
    if config.network == "conv":
        return _conv_network(config, outputs)
    if not config.hidden:
        raise ConfigError("hidden: a spiking network needs at least one hidden layer, such as hidden=400")
    cell, readout = _cells(config)
    layers: list[nn.Module] = [nn.Linear(784, config.hidden[0], bias=False), cell()]
    for a, b in itertools.pairwise((*config.hidden, outputs)):
        layers += [_synapse(config, a, b), cell()]
    return Sequential(*layers[:-1], *readout, time_steps=config.time_steps)


def _cells(config: Setting) -> tuple[Any, list[nn.Module]]:
    if config.training == "dsr":
        return DSR, [WeightedRateReadout(DSR().weights(config.time_steps))]
    if config.training == "ottt":
        return lambda: LIF(temporal_gradient=False), []  # the loss is taken at every step
    return LIF, [RateReadout()]


def _synapse(config: Setting, inputs: int, outputs: int) -> nn.Module:
    if config.training == "ottt":
        if config.feedback != "symmetric":
            raise ConfigError(
                "feedback: training=ottt is built with symmetric feedback; set feedback=symmetric"
            )
        return TracedLinear(inputs, outputs, bias=False, decay=0.5)
    if config.feedback == "random":
        return FeedbackLinear(inputs, outputs, bias=False)
    if config.feedback == "sign":
        return SignSymmetricLinear(inputs, outputs, bias=False)
    return nn.Linear(inputs, outputs, bias=False)


def _conv_network(config: Setting, outputs: int) -> nn.Module:
    if config.training != "bptt" or config.feedback != "symmetric":
        raise ConfigError("network: conv is built for training=bptt and feedback=symmetric")
    return Sequential(
        nn.Conv2d(1, 16, 5, padding=2, bias=False), LIF(), nn.AvgPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1, bias=False), LIF(), nn.AvgPool2d(2),
        nn.Flatten(), nn.Linear(32 * 49, outputs, bias=False), RateReadout(),
        time_steps=config.time_steps,
    )  # fmt: skip


def make_learner(config: Setting, model: nn.Module, plugins: Sequence[Plugin]) -> Learner:
    """Plain SGD, through time or online."""
    optimizer = torch.optim.SGD(model.parameters(), lr=config.lr)
    kind = OTTT if config.training == "ottt" and config.network == "spiking" else Backprop
    return kind(model, optimizer, plugins=plugins)


def shared_head(config: Setting, model: nn.Module) -> tuple[str, ...]:
    """Layers to leave unprotected: with one head per task, the output layer, whose rows are the heads."""
    return (list(synapses(model))[-1],) if split_name(config)[0] == "split" else ()


class Interference(Plugin):
    """Watches how far learning the second task moves what the layers answer to the first one's activity.

    `change` is the mean over layers of `||(W' - W) x|| / ||W x||`, x the activity of 256 images of task one.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.change: float | None = None
        self._before: dict[str, tuple[Tensor, Tensor]] = {}

    def after_task(self, task: Task) -> None:
        """Note activity and weights after task one, compare after task two."""
        layers = synapses(self.model)
        if task.index == 0:
            x = next(iter(data.batches(task.train, 256, shuffle=False))).inputs
            seen = activities(self.model, x)
            self._before = {
                name: (seen[name], layer.weight.detach().flatten(1).clone()) for name, layer in layers.items()
            }
        elif task.index == 1:
            changes = []
            for name, (x, before) in self._before.items():
                moved = layers[name].weight.detach().flatten(1) - before
                changes.append(float((x @ moved.mT).norm() / (x @ before.mT).norm()))
            self.change = sum(changes) / len(changes)
            self._before = {}


@torch.no_grad()
def activities(model: nn.Module, x: Tensor, most: int = 4000) -> dict[str, Tensor]:
    """Presynaptic activity `[rows, fan_in]` of every layer for inputs `x`, at most `most` evenly spaced rows."""
    seen: dict[str, Tensor] = {}
    handles = []
    for name, layer in synapses(model).items():

        def keep(activity: Tensor, name: str = name, layer: Any = layer) -> None:
            found = rows(layer, activity)
            seen[name] = found[:: max(1, len(found) // most)].clone()

        handles.append(observe(layer, keep))
    training = model.training
    model.eval()
    model(x)
    model.train(training)
    for handle in handles:
        handle.remove()
    return seen


def learn_stream(trial: Trial, model: nn.Module, stream: Stream, plugins: Sequence[Plugin]) -> Outcome:
    """One life: learn the stream, judge it after each task, and look at the network at the end."""
    config: Setting = trial.config
    probe = Interference(model)
    learner = make_learner(config, model, [probe, *plugins])
    trainer = Trainer(
        learner=learner, epochs=config.epochs, batch_size=config.batch_size, seed=trial.seed, progress=False
    )
    started = time.perf_counter()
    history = trainer.fit(stream, evaluate_on=trial.evaluate_on)
    seconds = time.perf_counter() - started
    arrays = {"accuracy_matrix": history.accuracy_matrix, **look(model, stream)}
    metrics = {**metrics_of(history), "interference": probe.change}
    return Outcome(
        metrics, cost_of(model, stream, seconds, trainer.step), {"loss": thin(history.losses)}, arrays
    )


def learn_together(trial: Trial, model: nn.Module, stream: Stream) -> Outcome:
    """Joint training on all tasks at once, in random order: what is possible without a stream."""
    config: Setting = trial.config
    trainer = Trainer(
        learner=make_learner(config, model, ()), epochs=config.epochs, batch_size=config.batch_size,
        seed=trial.seed, progress=False,
    )  # fmt: skip
    together = Stream(
        (Task("all", stream.train, stream[0].validation, stream[0].test),), n_classes=stream.n_classes
    )
    started = time.perf_counter()
    losses = trainer.fit(together).losses
    accuracies = [trainer.evaluate(task, trial.evaluate_on) for task in stream]
    seconds = time.perf_counter() - started
    metrics = {
        "acc": sum(accuracies) / len(accuracies),
        "bwt": None,
        "fwt": None,
        "new_task": None,
        "interference": None,
    }
    return Outcome(
        metrics, cost_of(model, stream, seconds, trainer.step), {"loss": thin(losses)}, look(model, stream)
    )


def metrics_of(history: History) -> dict[str, float | None]:
    """ACC, BWT, FWT, and mean accuracy on a task when it was just learned."""
    matrix = history.accuracy_matrix
    learned = [matrix[i][i] or 0.0 for i in range(len(matrix))]
    return {
        "acc": history.average_accuracy,
        "bwt": history.backward_transfer,
        "fwt": history.forward_transfer,
        "new_task": sum(learned) / len(learned),
    }


def look(model: nn.Module, stream: Stream) -> dict[str, Any]:
    """Raster of one image of the first task in the first spiking layer, and every layer's rate on each task."""
    images = [next(iter(data.batches(task.test, 100, shuffle=False))).inputs for task in stream]
    recordings = [record(model, x) for x in images]
    rates: dict[str, list[float]] = {
        name: [float((r.spikes[name] != 0).float().mean()) for r in recordings]
        for name in recordings[0].spikes
    }
    if not rates:
        return {}
    layer = next(iter(rates))
    spikes = recordings[0].spikes[layer][:, 0].flatten(1)
    times, neurons = spikes.nonzero().unbind(1)
    raster = {
        "layer": layer, "times": times.tolist(), "neurons": neurons.tolist(),
        "time_steps": spikes.shape[0], "n_neurons": spikes.shape[1],
    }  # fmt: skip
    return {"raster": raster, "rates": rates}


def cost_of(model: nn.Module, stream: Stream, seconds: float, steps: int) -> dict[str, float]:
    """Seconds, time per step, parameters, and synaptic operations to answer one image.

    A synaptic operation is one weight that meets an input other than zero.
    """
    x = next(iter(data.batches(stream[0].test, 100, shuffle=False))).inputs
    operations = [0.0]
    handles = []
    for layer in synapses(model).values():

        def count(activity: Tensor, layer: Any = layer) -> None:
            operations[0] += float(torch.count_nonzero(rows(layer, activity))) * layer.weight.shape[0]

        handles.append(observe(layer, count))
    model.eval()
    with torch.no_grad():
        model(x)
    for handle in handles:
        handle.remove()
    return {
        "seconds": seconds,
        "milliseconds_per_step": 1000 * seconds / max(1, steps),
        "synaptic_operations": operations[0] / len(x),
        "parameters": float(sum(p.numel() for p in model.parameters())),
    }


def thin(losses: Sequence[float], points: int = 100) -> list[float]:
    """At most `points` means of consecutive losses, for drawing."""
    size = max(1, -(-len(losses) // points))
    return [sum(losses[i : i + size]) / len(losses[i : i + size]) for i in range(0, len(losses), size)]
