"""A training step of a spiking network 784-800-10 over six steps: forward, backward, fused SGD with momentum."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.workload import Arrays, Contender, Make, Row, Run, Workload, close
from benchmarks.workloads.lif import LIBRARIES, RIVALS, naive_layer
from neuropil.nn import LIF, RateReadout, Sequential
from neuropil.nn.surrogate import ArcTan

STEPS, BATCH = 6, 64
PRODUCTS = "matrix products alone"


def inputs(static: bool) -> Callable[[bool], Arrays]:
    """Spikes at the rates of digits, or an image held; weights drawn once."""

    def make(tiny: bool) -> Arrays:
        rng = np.random.default_rng(0)
        wide, hidden, batch = (12, 16, 4) if tiny else (784, 800, BATCH)
        rates = np.clip(
            rng.standard_normal((batch, wide)) * 0.35 - 0.1, 0, 1
        )  # a seventh on the mean, half of them 0
        x = rates if static else rng.random((STEPS, batch, wide)) < rates
        return {
            "x": x.astype(np.float32),
            "targets": rng.integers(10, size=batch),
            "first": (3 * rng.uniform(-1, 1, (hidden, wide)) / wide**0.5).astype(np.float32),
            "second": (rng.uniform(-1, 1, (10, hidden)) / hidden**0.5).astype(np.float32),
            "steps": np.array(STEPS),
        }

    return make


def step(data: Arrays, model: Callable[[nn.Linear, nn.Linear], Callable[[Tensor], Tensor]]) -> Run:
    """Train `model(first, second)`, made of the two linear layers."""
    x, targets = torch.from_numpy(data["x"]), torch.from_numpy(data["targets"])
    first, second = (nn.Linear(*data[name].shape[::-1], bias=False) for name in ("first", "second"))
    with torch.no_grad():
        first.weight.copy_(torch.from_numpy(data["first"]))
        second.weight.copy_(torch.from_numpy(data["second"]))
    forward = model(first, second)
    optimizer = torch.optim.SGD([first.weight, second.weight], lr=0.01, momentum=0.9, fused=True)

    def run() -> dict[str, Any]:
        optimizer.zero_grad(set_to_none=True)
        loss = functional.cross_entropy(forward(x), targets)
        loss.backward()
        optimizer.step()
        return {"loss": loss, "gradient": first.weight.grad}

    return run


def ours(static: bool) -> Make:
    """Sequential, which multiplies a held input once."""
    return lambda data: step(
        data,
        lambda first, second: Sequential(
            first,
            LIF(decay=0.5, surrogate=ArcTan(2.0)),
            second,
            RateReadout(),
            time_steps=STEPS if static else None,
        ),
    )


def folded(layer: Callable[[Tensor], Tensor], *, held: bool = False, once: bool = False) -> Make:
    """Plain torch, time folded into the batch; a held input is repeated, or multiplied `once` and repeated then."""

    def model(first: nn.Linear, second: nn.Linear) -> Callable[[Tensor], Tensor]:
        def forward(x: Tensor) -> Tensor:
            if once:
                current = first(x).expand(STEPS, *x.shape[:1], -1)
            else:
                sequence = x.unsqueeze(0).repeat(STEPS, 1, 1) if held else x
                current = first(sequence.flatten(0, 1)).unflatten(0, sequence.shape[:2])
            hidden = layer(current)
            return second(hidden.flatten(0, 1)).unflatten(0, hidden.shape[:2]).mean(0)

        return forward

    return lambda data: step(data, model)


def products(static: bool) -> Make:
    """What a step multiplies: both layers forward, the gradients of both weights and of the hidden spikes."""

    def make(data: Arrays) -> Run:
        first, second = torch.from_numpy(data["first"]), torch.from_numpy(data["second"])
        x = torch.from_numpy(data["x"]).flatten(0, -2)
        spikes = (torch.rand(STEPS * len(data["targets"]), len(first)) < 0.1).float()
        error, current = torch.rand(len(spikes), len(second)), torch.rand(len(x), len(first))

        def run() -> None:
            x @ first.mT, spikes @ second.mT  # forward
            error @ second, error.mT @ spikes, current.mT @ x  # backward

        return run

    return make


def check(outputs: Mapping[str, Arrays]) -> list[str]:
    """Loss and gradient of the first step, of those with the same equations and surrogate."""
    alike = (
        "neuropil",
        "plain torch",
        "equations, product once",
        "plain torch, product once",
        "spikingjelly",
    )
    return [
        *close(outputs, "equations", "loss", among=alike, tolerance=1e-3),
        *close(outputs, "equations", "gradient", among=alike, tolerance=1e-3, outliers=1e-2),
    ]


def contenders(static: bool) -> list[Contender]:
    """Everybody who can take such an input."""
    suffix = "_static" if static else ""
    found = [
        Contender("neuropil", ours(static)),
        Contender("equations", folded(naive_layer, held=static)),
        Contender("plain torch", f"snn.py:plain{suffix}", "peers"),
        *(Contender(name, f"snn.py:{name}{suffix}", "peers") for name in LIBRARIES),
        Contender(PRODUCTS, products(static)),
    ]
    if static:
        return [
            *found,
            Contender("equations, product once", folded(naive_layer, once=True)),
            Contender("plain torch, product once", "snn.py:plain_static_once", "peers"),
        ]
    return [*found, Contender("ReLU network", folded(torch.relu))]


WORKLOADS = [
    Workload(
        "snn_step",
        f"784-800-10, T={STEPS}, B={BATCH}, input that changes: a training step",
        inputs(static=False),
        contenders(static=False),
        [Row("snn_step", RIVALS, 1.25, 1.4), Row("snn_relu", ["ReLU network"], 0.87, 0.95)],
        check,
        limit=PRODUCTS,
    ),
    Workload(
        "snn_static",
        f"784-800-10, T={STEPS}, B={BATCH}, an image held, which peers multiply at every step: a training step",
        inputs(static=True),
        contenders(static=True),
        [Row("snn_static", RIVALS, 2.6, 3.5), Row("snn_static_once", ["plain torch, product once"], 1, 1.25)],
        check,
        limit=PRODUCTS,
    ),
]
