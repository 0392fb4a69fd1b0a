"""The expressive leaky memory neuron over a sequence, forward and backward, beside a loop over its steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from benchmarks.workload import Arrays, Contender, Row, Run, Workload, close
from neuropil.spiking import ELM

NAMES = ("memories", "g_synapses", "g_look", "g_look_bias", "g_write", "g_write_bias")


def shape(time: int, batch: int, inputs: int, memories: int) -> Any:
    """Inputs of a workload: spikes, all weights, and the gradient of the memories."""

    def arrays(tiny: bool) -> Arrays:
        t, b, i, m = (12, 2, 5, 3) if tiny else (time, batch, inputs, memories)
        rng = np.random.default_rng(0)
        units = 2 * m
        scale = np.float32((i + m) ** -0.5)
        return {
            "x": (rng.random((t, b, i)) < 0.1).astype(np.float32),
            "synapses": rng.random((i, 1), dtype=np.float32),
            "look.weight": scale * rng.standard_normal((units, i + m), dtype=np.float32),
            "look.bias": scale * rng.standard_normal(units, dtype=np.float32),
            "write.weight": scale * rng.standard_normal((m, units), dtype=np.float32),
            "write.bias": scale * rng.standard_normal(m, dtype=np.float32),
            "gradient": rng.standard_normal((t, b, m), dtype=np.float32),
        }

    return arrays


def layer(arrays: Arrays) -> Run:
    """Ours."""
    memories, inputs = len(arrays["write.bias"]), arrays["x"].shape[2]
    one = ELM(inputs, memories, tau_range=(1.0, 150.0))
    names = [name for name, _ in one.named_parameters()]
    one.load_state_dict({name: torch.from_numpy(arrays[name]) for name in names}, strict=False)
    x, gradient = torch.from_numpy(arrays["x"]), torch.from_numpy(arrays["gradient"])

    def run() -> dict[str, Any]:
        y = one(x)[0]
        found = torch.autograd.grad(y, list(one.parameters()), gradient)
        return dict(zip(NAMES, (y.detach(), *found), strict=True))

    return run


def loop(arrays: Arrays) -> Run:
    """The equations, a step at a time."""
    x, synapses, look, look_bias, write, write_bias, gradient = map(torch.from_numpy, arrays.values())
    parameters = [p.requires_grad_() for p in (synapses, look, look_bias, write, write_bias)]
    memories = len(write)
    tau = ELM(1, memories, tau_range=(1.0, 150.0)).tau
    keep_branch, keep, gain = float(np.exp(-1 / 5)), torch.exp(-1 / tau), 1 - torch.exp(-5 / tau)

    def run() -> dict[str, Any]:
        weight = torch.relu(synapses[:, 0])
        branch, memory = torch.zeros_like(x[0]), torch.zeros(x.shape[1], memories)
        found = []
        for now in x:
            branch = keep_branch * branch + weight * now
            kept = keep * memory
            hidden = torch.relu(functional.linear(torch.cat([branch, kept], dim=1), look, look_bias))
            update = 1.7159 * torch.tanh(2 / 3 * functional.linear(hidden, write, write_bias))
            memory = kept + gain * update
            found.append(memory)
        y = torch.stack(found)
        gradients = torch.autograd.grad(y, parameters, gradient)
        return dict(zip(NAMES, (y.detach(), *gradients), strict=True))

    return run


def check(outputs: Mapping[str, Arrays]) -> list[str]:
    """Memories and the gradients of all weights."""
    found = [close(outputs, "loop", key, tolerance=1e-3) for key in NAMES]
    return [line for lines in found for line in lines]


def workload(name: str, *sizes: int) -> Workload:
    """One size, `[time, batch, inputs, memories]`."""
    return Workload(
        name, f"expressive leaky memory neuron, {list(sizes)}, forward and backward", shape(*sizes),
        [Contender("neuropil", layer), Contender("loop", loop)], [Row(name, ["loop"], 3, 6)], check,
    )  # fmt: skip


WORKLOADS = [workload("elm_digits", 84, 128, 28, 64), workload("elm_dendrite", 500, 8, 100, 15)]
