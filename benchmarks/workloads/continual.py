"""Continual learning of two tasks, ours beside Avalanche's.

A `continual step` is learning alone, each library drawing its own batches of 32 from samples in memory: ours with a
loop over `Backprop.update`, theirs with `strategy.train`. A `continual run` is what a user does with them, at the batch
size of most of Avalanche's examples: the same `TensorDataset`s are shuffled, learned task after task and judged before
the first and after each on samples of both; ours with `Trainer.fit`, theirs with `strategy.train` and
`strategy.eval`. Times of a run are per learning step, judging included.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

from benchmarks.workload import Arrays, Contender, Row, Run, Workload, close
from neuropil import data
from neuropil.continual import AGEM, EWC, GEM, LwF, Replay, RingBuffer
from neuropil.data import Task
from neuropil.training import Backprop, Plugin, Trainer

Make = Callable[[nn.Module, Arrays], list[Plugin]]
Check = Callable[[Mapping[str, Arrays]], list[str]]

BATCH, STEPS, MEMORY = 32, 40, 256
RUN_BATCH, JUDGED = 100, 1000  # samples to a step, and of each task to judge by


def inputs(tiny: bool, batch: int = BATCH) -> Arrays:
    """Digits, their pixels in another order in the second task, and the weights to begin with."""
    images = data.load("mnist")
    batch, steps = (4, 3) if tiny else (batch, STEPS)
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


def run_inputs(tiny: bool) -> Arrays:
    """The same in larger batches."""
    return inputs(tiny, RUN_BATCH)


def network(arrays: Arrays) -> nn.Sequential:
    """The perceptron with the weights to begin with."""
    weights = [torch.from_numpy(arrays[f"weight{k}"]) for k in range(3)]
    net = nn.Sequential(*(m for w in weights for m in (nn.Linear(w.shape[1], w.shape[0]), nn.ReLU())))[:-1]
    with torch.no_grad():
        for k, weight in enumerate(weights):
            net[2 * k].weight.copy_(weight)
            net[2 * k].bias.zero_()
    return net


def learn_alone(net: nn.Module, plugins: list[Plugin], arrays: Arrays) -> dict[str, Any]:
    """Our learner with plugins, over both tasks."""
    learner = Backprop(net, torch.optim.SGD(net.parameters(), lr=0.1), plugins=plugins)
    for task in tasks(arrays, data.Arrays):
        for plugin in plugins:
            plugin.before_task(task)
        for batch in data.batches(task.train, int(arrays["batch"]), shuffle=False):
            learner.update(batch)
        for plugin in plugins:
            plugin.after_task(task)
    exact = int(arrays["memory"]) >= len(arrays["y0"])  # nothing is left to chance in what is remembered
    return {"weight": net.get_parameter("2.weight").detach().numpy(), "exact": np.array(exact)}


def learn_and_judge(net: nn.Module, plugins: list[Plugin], arrays: Arrays) -> dict[str, Any]:
    """Our trainer with plugins, over both tasks."""
    trainer = Trainer(
        net,
        torch.optim.SGD(net.parameters(), lr=0.1),
        plugins=plugins,
        batch_size=int(arrays["batch"]),
        progress=False,
    )
    history = trainer.fit(tasks(arrays, TensorDataset))
    return {"accuracy": np.array([row[0] for row in history.accuracy_matrix], dtype=np.float64)}


def tasks(arrays: Arrays, samples: Callable[[Tensor, Tensor], Dataset[Any]]) -> list[Task]:
    """Both tasks as data sets of a kind, judged by their first samples."""
    pairs = [(torch.from_numpy(arrays[f"x{k}"]), torch.from_numpy(arrays[f"y{k}"])) for k in range(2)]
    judged = [samples(x[:JUDGED], y[:JUDGED]) for x, y in pairs]
    return [Task(f"task {k}", samples(*pairs[k]), judged[k], judged[k], index=k) for k in range(2)]


def agree(outputs: Mapping[str, Arrays]) -> list[str]:
    """The same weights after both tasks."""
    return close(outputs, "neuropil", "weight", tolerance=1e-3)


def agree_where_exact(outputs: Mapping[str, Arrays]) -> list[str]:
    """The same, where all samples are remembered (at tiny size); else each remembers others."""
    return agree(outputs) if outputs["neuropil"]["exact"] else ["not compared: other samples are remembered"]


class Kind(NamedTuple):
    """What is timed of each method."""

    name: str
    row: str
    about: str
    inputs: Callable[[bool], Arrays]
    learn: Callable[[nn.Module, list[Plugin], Arrays], dict[str, Any]]
    theirs: str  # after the method's name in Avalanche's script
    goal: float


STEP = Kind("continual", "continual step", "learning two tasks, per step", inputs, learn_alone, "", goal=2.0)
RUN = Kind(
    "continual run", "continual run", "two tasks learned and judged, per learning step", run_inputs, learn_and_judge,
    "_run", goal=3.0,
)  # fmt: skip


def workload(kind: Kind, name: str, about: str, make: Make, check: Check | None) -> Workload:
    """A method in both libraries; in a run each draws its own order of samples."""

    def prepare(arrays: Arrays) -> Run:
        def run() -> dict[str, Any]:
            net = network(arrays)
            return kind.learn(net, make(net, arrays), arrays)

        return run

    return Workload(
        name=f"{kind.name} {name}",
        about=f"{kind.about}: {about}",
        inputs=kind.inputs,
        contenders=[
            Contender("neuropil", prepare),
            Contender("Avalanche", f"continual.py:{name}{kind.theirs}", environment="peers"),
        ],
        rows=[Row(f"{kind.row}, {name}", ["Avalanche"], target=2.0, goal=kind.goal)],
        check=check if kind is STEP else None,
        steps=2 * STEPS,
    )


def plain(net: nn.Module, arrays: Arrays) -> list[Plugin]:
    """Fine-tuning."""
    return []


def ewc(net: nn.Module, arrays: Arrays) -> list[Plugin]:
    """EWC; Avalanche's takes batches of samples for its importance, ours single samples."""
    return [EWC(net, strength=2.0, samples=32)]


def lwf(net: nn.Module, arrays: Arrays) -> list[Plugin]:
    """LwF."""
    return [LwF(net, strength=1.0, temperature=2.0)]


def agem(net: nn.Module, arrays: Arrays) -> list[Plugin]:
    """A-GEM."""
    return [AGEM(net, per_task=int(arrays["memory"]), batch_size=int(arrays["memory"]))]


def gem(net: nn.Module, arrays: Arrays) -> list[Plugin]:
    """GEM."""
    return [GEM(net, per_task=int(arrays["memory"]), batch_size=int(arrays["memory"]), margin=0.0)]


def replay(net: nn.Module, arrays: Arrays) -> list[Plugin]:
    """Replay."""
    return [Replay(buffer=RingBuffer(int(arrays["memory"])), batch_size=int(arrays["drawn"]))]


METHODS: list[tuple[str, str, Make, Check | None]] = [
    ("plain", "fine-tuning", plain, agree),
    ("lwf", "learning without forgetting", lwf, agree),
    ("agem", "A-GEM", agem, agree_where_exact),
    ("gem", "GEM", gem, agree_where_exact),
    ("replay", "replay", replay, agree_where_exact),
    ("ewc", "EWC, importance included", ewc, None),  # theirs is that of whole batches, so that weights differ
]
WORKLOADS = [workload(kind, *method) for kind in (STEP, RUN) for method in METHODS]
