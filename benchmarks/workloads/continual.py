"""Continual learning of two tasks: the step of our trainer and plugins beside Avalanche's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.workload import Arrays, Contender, Row, Run, Workload, close
from neuropil import data
from neuropil.continual import AGEM, EWC, GEM, LwF, Replay, RingBuffer
from neuropil.data import Task
from neuropil.training import Backprop, Plugin

Make = Callable[[nn.Module, Arrays], list[Plugin]]
Check = Callable[[Mapping[str, Arrays]], list[str]]

BATCH, STEPS, MEMORY = 32, 40, 256


def inputs(tiny: bool) -> Arrays:
    """Digits, their pixels in another order in the second task, and the weights to begin with."""
    images = data.load("mnist")
    batch, steps = (4, 3) if tiny else (BATCH, STEPS)
    widths = (784, 14, 14, 10) if tiny else (784, 256, 128, 10)
    rng, arrays = np.random.default_rng(0), {}
    for task in range(2):
        chosen = rng.permutation(len(images.train))[: batch * steps]
        x = images.train[torch.from_numpy(chosen)].numpy().reshape(len(chosen), -1) / np.float32(255)
        x = (x - np.float32(0.1307)) / np.float32(0.3081)
        arrays[f"x{task}"] = np.ascontiguousarray(x[:, rng.permutation(784)], dtype=np.float32)
        arrays[f"y{task}"] = images.train_labels[torch.from_numpy(chosen)].numpy().astype(np.int64)
    for k in range(3):
        bound = widths[k] ** -0.5
        arrays[f"weight{k}"] = rng.uniform(-bound, bound, (widths[k + 1], widths[k])).astype(np.float32)
    sizes = {"batch": batch, "memory": 12 if tiny else MEMORY, "drawn": 12 if tiny else batch}
    return arrays | {name: np.array(size) for name, size in sizes.items()}


def ours(make: Make) -> Callable[[Arrays], Run]:
    """Our learner with plugins, over both tasks."""

    def prepare(arrays: Arrays) -> Run:
        tasks = []
        for k in range(2):
            samples = data.Arrays(torch.from_numpy(arrays[f"x{k}"]), torch.from_numpy(arrays[f"y{k}"]))
            tasks.append(Task(f"task {k}", samples, samples, samples, index=k))
        weights = [torch.from_numpy(arrays[f"weight{k}"]) for k in range(3)]
        exact = int(arrays["memory"]) >= len(arrays["y0"])  # nothing is left to chance in what is remembered

        def run() -> dict[str, Any]:
            net = nn.Sequential(
                *(m for w in weights for m in (nn.Linear(w.shape[1], w.shape[0]), nn.ReLU()))
            )[:-1]
            with torch.no_grad():
                for k, weight in enumerate(weights):
                    net[2 * k].weight.copy_(weight)
                    net[2 * k].bias.zero_()
            plugins = make(net, arrays)
            learner = Backprop(net, torch.optim.SGD(net.parameters(), lr=0.1), plugins=plugins)
            for task in tasks:
                for plugin in plugins:
                    plugin.before_task(task)
                for batch in data.batches(task.train, int(arrays["batch"]), shuffle=False):
                    learner.update(batch)
                for plugin in plugins:
                    plugin.after_task(task)
            return {"weight": net[2].weight.detach().numpy(), "exact": np.array(exact)}

        return run

    return prepare


def agree(outputs: Mapping[str, Arrays]) -> list[str]:
    """The same weights after both tasks."""
    return close(outputs, "neuropil", "weight", tolerance=1e-3)


def agree_where_exact(outputs: Mapping[str, Arrays]) -> list[str]:
    """The same, where all samples are remembered (at tiny size); else each remembers others."""
    return agree(outputs) if outputs["neuropil"]["exact"] else ["not compared: other samples are remembered"]


def workload(name: str, about: str, make: Make, check: Check | None = agree) -> Workload:
    """A method in both libraries."""
    return Workload(
        name=f"continual {name}",
        about=f"learning two tasks, per step: {about}",
        inputs=inputs,
        contenders=[
            Contender("neuropil", ours(make)),
            Contender("Avalanche", f"continual.py:{name}", environment="peers"),
        ],
        rows=[Row(f"continual step, {name}", ["Avalanche"], target=2.0, goal=2.0)],
        check=check,
        steps=2 * STEPS,
    )


WORKLOADS = [
    workload("plain", "fine-tuning", lambda net, arrays: []),
    workload(
        "lwf", "learning without forgetting", lambda net, arrays: [LwF(net, strength=1.0, temperature=2.0)]
    ),
    workload(
        "agem",
        "A-GEM",
        lambda net, arrays: [AGEM(net, per_task=int(arrays["memory"]), batch_size=int(arrays["memory"]))],
        agree_where_exact,
    ),
    workload(
        "gem",
        "GEM",
        lambda net, arrays: [
            GEM(net, per_task=int(arrays["memory"]), batch_size=int(arrays["memory"]), margin=0.0)
        ],
        agree_where_exact,
    ),
    workload(
        "replay",
        "replay",
        lambda net, arrays: [
            Replay(buffer=RingBuffer(int(arrays["memory"])), batch_size=int(arrays["drawn"]))
        ],
        agree_where_exact,
    ),
    # their Fisher information is that of whole batches, so that weights differ
    workload(
        "ewc", "EWC, importance included", lambda net, arrays: [EWC(net, strength=2.0, samples=32)], None
    ),
]
