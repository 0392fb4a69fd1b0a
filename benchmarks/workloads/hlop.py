"""HLOP's training step at its published sizes, mean over ten tasks whose subspaces grow as published."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.straightforward_hlop import Layer, answer
from benchmarks.workload import Arrays, Contender, Row, Run, Workload, close
from neuropil import data
from neuropil.continual import HLOP
from neuropil.data import Batch
from neuropil.nn import LIF, RateReadout, Sequential
from neuropil.training import Backprop

Step = Callable[[], Mapping[str, Any]]

STEPS, TASKS, REPEATS = 6, 10, 2
FIRST = (80, 200, 100)  # directions of the first task, by layer
LATER = (70, 70, 50, 50, 50, 30, 30, 30, 10)  # of each later one, in every layer
RATES = (0.001, 0.01, 0.01)  # Hebbian, by layer


def schedule(layer: int, tiny: bool = False) -> list[int]:
    """Directions that each task adds to a layer."""
    return [2, *[1] * (TASKS - 1)] if tiny else [FIRST[layer], *LATER]


def inputs(tiny: bool) -> Arrays:
    """Digits, weights, and orthonormal rows, of which each task uses as many as its schedule says."""
    images = data.load("mnist")
    widths = (784, 14, 14, 10) if tiny else (784, 800, 800, 10)
    batch = 4 if tiny else 64
    rng, arrays = np.random.default_rng(0), {}
    x = images.train[:batch].numpy().reshape(batch, -1) / np.float32(255)
    arrays["x"] = ((x - 0.1307) / 0.3081).astype(np.float32)
    arrays["targets"] = images.train_labels[:batch].numpy().astype(np.int64)
    for k in range(3):
        bound = widths[k] ** -0.5
        arrays[f"weight{k}"] = rng.uniform(-bound, bound, (widths[k + 1], widths[k])).astype(np.float32)
        drawn = rng.standard_normal((widths[k], sum(schedule(k, tiny))))
        arrays[f"directions{k}"] = np.ascontiguousarray(np.linalg.qr(drawn)[0].T, dtype=np.float32)
    arrays["tiny"] = np.array(tiny)
    return arrays


def sizes(arrays: Arrays, layer: int, task: int) -> tuple[int, int]:
    """Frozen directions, and all, of a layer while a task is learned."""
    added = schedule(layer, bool(arrays["tiny"]))
    return sum(added[:task]), sum(added[: task + 1])


def tensors(arrays: Arrays) -> tuple[Tensor, Tensor, list[Tensor], list[Tensor]]:
    """Images, targets, weights and directions."""
    x, targets = torch.from_numpy(arrays["x"]), torch.from_numpy(arrays["targets"])
    weights = [torch.from_numpy(arrays[f"weight{k}"]) for k in range(3)]
    return x, targets, weights, [torch.from_numpy(arrays[f"directions{k}"]) for k in range(3)]


def all_tasks(steps: list[Step]) -> Run:
    """Two steps of each of ten networks, one per task."""

    def run() -> dict[str, Any]:
        found = {}
        for task, step in enumerate(steps):
            for _ in range(REPEATS):
                result = step()
            found |= {f"{key}{task}": value for key, value in result.items()}
        return found

    return run


def network(weights: list[Tensor]) -> Sequential:
    """784-800-800-10 with given weights."""
    layers: list[nn.Module] = []
    for weight in weights:
        linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
        linear.weight = nn.Parameter(weight.clone())
        layers += [linear, LIF()]
    return Sequential(*layers[:-1], RateReadout(), time_steps=STEPS)


def ours(projected: bool) -> Callable[[Arrays], Run]:
    """Our learner, with the plugin or without."""
    return lambda arrays: all_tasks(ours_by_task(arrays, projected=projected))


def ours_by_task(arrays: Arrays, *, projected: bool) -> list[Step]:
    """A step of our learner while each task is learned."""
    x, targets, weights, directions = tensors(arrays)
    batch, tiny = Batch(x, targets), bool(arrays["tiny"])

    def learning(task: int) -> Step:
        net = network(weights)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        if not projected:
            learner = Backprop(net, optimizer)
            return lambda: {"loss": learner.update(batch)["loss"], "weight": net[2].weight}
        names = [name for name, layer in net.named_children() if isinstance(layer, nn.Linear)]
        hlop = HLOP(
            net,
            sizes={name: schedule(k, tiny) for k, name in enumerate(names)},
            lr=dict(zip(names, RATES, strict=True)),
        )
        hlop.tasks_learned, hlop.learning = task, True
        for k, circuit in enumerate(hlop.subspaces.values()):
            frozen, total = sizes(arrays, k, task)
            circuit.frozen, circuit.growing = (
                directions[k][:frozen].clone(),
                directions[k][frozen:total].clone(),
            )
            circuit.velocity = torch.zeros_like(circuit.growing)
        learner = Backprop(net, optimizer, plugins=[hlop])
        return lambda: {
            "loss": learner.update(batch)["loss"],
            "weight": net[2].weight,
            "directions": hlop.subspaces[names[1]].growing,
        }

    return [learning(task) for task in range(TASKS)]


def straightforward(arrays: Arrays) -> Run:
    """The equations in plain PyTorch."""
    return all_tasks(straightforward_by_task(arrays))


def straightforward_by_task(arrays: Arrays) -> list[Step]:
    """A step of them while each task is learned."""
    x, targets, weights, directions = tensors(arrays)

    def learning(task: int) -> Step:
        layers = []
        for k in range(3):
            frozen, total = sizes(arrays, k, task)
            layers.append(Layer(weights[k], directions[k][:total], frozen, RATES[k]))
        optimizer = torch.optim.SGD([layer.weight for layer in layers], lr=0.1)

        def step() -> dict[str, Any]:
            optimizer.zero_grad(set_to_none=True)
            loss = functional.cross_entropy(answer(layers, x, STEPS), targets)
            loss.backward()
            optimizer.step()
            return {
                "loss": loss,
                "weight": layers[1].weight,
                "directions": layers[1].directions[layers[1].frozen :],
            }

        return step

    return [learning(task) for task in range(TASKS)]


def dense_products(arrays: Arrays) -> Run:
    """The matrix products of our step alone: forward, errors, weight gradients, projections, Hebbian steps."""
    x, _, weights, directions = tensors(arrays)
    out = [torch.rand(len(x) * (STEPS if k else 1), len(weight)) for k, weight in enumerate(weights)]
    into = [x, *out_rows(out, len(x))]
    step_of: list[Step] = []
    for task in range(TASKS):
        shares = [directions[k][: sizes(arrays, k, task)[0]] for k in range(3)]
        grown = [directions[k][slice(*sizes(arrays, k, task))] for k in range(3)]

        def multiply(shares: list[Tensor] = shares, grown: list[Tensor] = grown) -> dict[str, Any]:
            for k, weight in enumerate(weights):
                into[k] @ weight.mT
                out[k].mT @ into[k]
                if k:
                    out[k] @ weight
                if len(shares[k]):
                    (into[k] @ shares[k].mT) @ shares[k]
                for _ in range(5):
                    y = into[k] @ grown[k].mT
                    y.mT @ into[k]
                    (y.mT @ y) @ grown[k]
            return {}

        step_of.append(multiply)
    return all_tasks(step_of)


def out_rows(out: list[Tensor], batch: int) -> list[Tensor]:
    """What enters the second and third layer: the outputs before, over all steps."""
    return [torch.rand(batch * STEPS, rows.shape[1]) for rows in out[:-1]]


def check(outputs: Mapping[str, Arrays]) -> list[str]:
    """After two steps: losses, weights and directions as in the straightforward version."""
    found = []
    for task in range(TASKS):
        for key in ("loss", "weight", "directions"):
            found += close(
                outputs, "straightforward", f"{key}{task}", among=["neuropil"], tolerance=2e-3, outliers=1e-3
            )
    return found[:3]


PLAIN = "plain step, no protection"
WORKLOADS = [
    Workload(
        "hlop_step",
        "HLOP, 784-800-800-10, T=6, B=64: a training step, mean over ten tasks of the published schedule",
        inputs,
        [
            Contender("neuropil", ours(projected=True)),
            Contender(PLAIN, ours(projected=False)),
            Contender("straightforward", straightforward),
            Contender("dense products alone", dense_products),
        ],
        [
            Row("hlop_step", ["straightforward"], 2, 3),
            Row("hlop_step_plain", [PLAIN], 0.38, 0.5),
        ],
        check,
        limit="dense products alone",
        steps=TASKS * REPEATS,
    )
]
