"""A layer of leaky integrate-and-fire neurons over a sequence, forward and backward."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.workload import Arrays, Contender, Row, Run, Workload, close
from neuropil.nn import LIF
from neuropil.nn.surrogate import ArcTan

LIBRARIES = ("snntorch", "spikingjelly", "norse", "sinabs")
RIVALS = (*LIBRARIES, "plain torch")
PASSES = 6  # over the sequence: input, spikes, membrane written; membrane, gradient read, gradient written


def sequence(time: int, batch: int, neurons: int) -> Callable[[bool], Arrays]:
    """Inputs of a workload: currents and the gradient of the spikes."""

    def inputs(tiny: bool) -> Arrays:
        shape = (4, 2, 8) if tiny else (time, batch, neurons)
        rng = np.random.default_rng(0)
        x = (0.3 + 0.6 * rng.standard_normal(shape, dtype=np.float32)).astype(np.float32)
        return {"x": x, "gradient": rng.standard_normal(shape, dtype=np.float32)}

    return inputs


class Spike(torch.autograd.Function):
    """Step with the arctangent's slope."""

    @staticmethod
    def forward(ctx: Any, u: Tensor) -> Tensor:
        ctx.save_for_backward(u)
        return (u >= 0).to(u.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (u,) = ctx.saved_tensors
        return gradient / (1 + (torch.pi * u) ** 2)


def naive_layer(x: Tensor) -> Tensor:
    """The equations as they read, a step at a time."""
    membrane, spikes = torch.zeros_like(x[0]), []
    for current in x.unbind(0):
        membrane = 0.5 * membrane + current
        spike = Spike.apply(membrane - 1)
        membrane = membrane - spike.detach()
        spikes.append(spike)
    return torch.stack(spikes)


def ours(**settings: Any) -> Callable[[Arrays], Run]:
    """Our layer with `settings`."""

    def make(inputs: Arrays) -> Run:
        layer = LIF(decay=0.5, surrogate=ArcTan(2.0), **settings)
        return through_time(inputs, lambda x: layer(x)[0])

    return make


def through_time(inputs: Arrays, layer: Callable[[Tensor], Tensor]) -> Run:
    """Run `layer(x)` on a sequence that asks for its gradient, and send the given gradient back."""
    x = torch.from_numpy(inputs["x"]).requires_grad_()
    gradient = torch.from_numpy(inputs["gradient"])

    def run() -> dict[str, Any]:
        x.grad = None
        spikes = layer(x)
        spikes.backward(gradient)
        return {"spikes": spikes, "gradient": x.grad}

    return run


def memory_limit(inputs: Arrays) -> Run:
    """Copy as many bytes as the scan must read and write."""
    source = torch.ones(PASSES // 2 * inputs["x"].size)
    target = torch.empty_like(source)
    return lambda: {"none": target.copy_(source)[:0]}


def check(outputs: Mapping[str, Arrays]) -> list[str]:
    """Spikes of all who reset at once, gradients of those with the same surrogate."""
    alike = ("neuropil", "neuropil, recompute", "plain torch", "spikingjelly")
    return [
        # norse and sinabs round otherwise: a membrane within rounding of the threshold may fall on either side
        *close(outputs, "equations", "spikes", among=(*alike, "norse", "sinabs"), outliers=1e-4),
        *close(outputs, "equations", "gradient", among=alike, tolerance=1e-4, outliers=1e-4),
    ]


def contenders() -> list[Contender]:
    """Everybody."""
    return [
        Contender("neuropil", ours()),
        Contender("neuropil, recompute", ours(memory="recompute")),
        Contender(
            "equations", lambda inputs: through_time(inputs, naive_layer)
        ),  # what the check compares with
        Contender("plain torch", "lif.py:plain", "peers"),  # like every rival in a process of its own
        *(Contender(name, f"lif.py:{name}", "peers") for name in LIBRARIES),
        Contender("memory copy", memory_limit),
    ]


def workload(time: int, batch: int, neurons: int, target: float, goal: float, *more: Row) -> Workload:
    """LIF over `time` steps."""
    name = f"lif_T{time}"
    return Workload(
        name, f"LIF [{time}, {batch}, {neurons}], forward and backward", sequence(time, batch, neurons), contenders(),
        [Row(name, RIVALS, target, goal), *more], check, limit="memory copy",
    )  # fmt: skip


WORKLOADS = [
    workload(10, 256, 800, 4, 6),
    workload(100, 64, 1024, 4, 8, Row("lif_limit", ["memory copy"], 0.5, 0.67)),
    workload(1000, 8, 512, 20, 30),
]
