"""Learning rules over a whole run: e-prop and three factors, beside one eligibility trace per synapse and step."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from benchmarks.workload import Arrays, Contender, Row, Run, Workload, close
from neuropil.nn import LIF
from neuropil.spiking import EPropRecurrent, three_factor_change

DECAY, THRESHOLD, SLOPE = 0.9, 1.0, 4.0


def inputs(tiny: bool) -> Arrays:
    """Currents of 100 neurons over 200 steps, their connections, and a learning signal at every step."""
    steps, batch, neurons = (8, 2, 6) if tiny else (200, 16, 100)
    rng = np.random.default_rng(0)
    return {
        "currents": rng.uniform(0, 0.3, (steps, batch, neurons)).astype(np.float32),
        "weight": rng.normal(0, 0.3 / np.sqrt(neurons), (neurons, neurons)).astype(np.float32),
        "signal": rng.normal(0, 1, (steps, batch, neurons)).astype(np.float32),
    }


def tensors(arrays: Arrays) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return tuple(torch.from_numpy(arrays[name]) for name in ("currents", "weight", "signal"))


def eprop(arrays: Arrays) -> Run:
    """The layer's forward and backward pass."""
    currents, weight, signal = tensors(arrays)
    layer = EPropRecurrent(LIF(DECAY, THRESHOLD), nn.Linear(*weight.shape, bias=False))
    layer.weights.weight.data.copy_(weight)

    def run() -> dict[str, torch.Tensor]:
        layer.zero_grad()
        spikes, _ = layer(currents)
        spikes.backward(signal)
        return {"change": layer.weights.weight.grad}

    return run


@torch.no_grad()
def eprop_plain(arrays: Arrays) -> Run:
    """Step by step in plain torch, with a trace per synapse as the paper writes it."""
    currents, weight, signal = tensors(arrays)

    @torch.no_grad()
    def run() -> dict[str, torch.Tensor]:
        v = z = torch.zeros_like(currents[0])
        trace = torch.zeros_like(v).unsqueeze(1)
        change = torch.zeros_like(weight)
        for current, learning in zip(currents, signal, strict=True):
            trace = DECAY * trace + z.unsqueeze(1)
            u = DECAY * v + current + z @ weight.T
            s = torch.sigmoid(SLOPE * (u - THRESHOLD))
            eligibility = (SLOPE * s * (1 - s)).unsqueeze(-1) * trace
            change += (learning.unsqueeze(-1) * eligibility).sum(0)
            z = (u >= THRESHOLD).float()
            v = u - THRESHOLD * z
        return {"change": change}

    return run


def factors(arrays: Arrays) -> Run:
    """One scan over the modulator, then one product."""
    pre, _, signal = tensors(arrays)
    post = pre.roll(1, 0)

    def run() -> dict[str, torch.Tensor]:
        return {"change": three_factor_change(pre, post, signal, DECAY)}

    return run


def factors_plain(arrays: Arrays) -> Run:
    """Step by step in plain torch, with an eligibility per synapse."""
    pre, weight, signal = tensors(arrays)
    post = pre.roll(1, 0)

    @torch.no_grad()
    def run() -> dict[str, torch.Tensor]:
        eligibility = pre.new_zeros(pre.shape[1], *weight.shape)
        change = torch.zeros_like(weight)
        for before, after, third in zip(pre, post, signal, strict=True):
            eligibility = DECAY * eligibility + after.unsqueeze(-1) * before.unsqueeze(1)
            change += (third.unsqueeze(-1) * eligibility).sum(0)
        return {"change": change}

    return run


def check(outputs: Mapping[str, Arrays]) -> list[str]:
    """Weight changes of the plain version."""
    return close(outputs, "plain torch", "change", tolerance=1e-3)


WORKLOADS = [
    Workload(
        "eprop", "e-prop of 100 recurrent leaky neurons, 200 steps, batch 16", inputs,
        [Contender("neuropil", eprop), Contender("plain torch", eprop_plain)],
        [Row("eprop", ["plain torch"], 10, 20)], check,
    ),
    Workload(
        "three-factor", "three factors, 100 to 100 neurons, 200 steps, batch 16", inputs,
        [Contender("neuropil", factors), Contender("plain torch", factors_plain)],
        [Row("three-factor", ["plain torch"], 10, 20)], check,
    ),
]  # fmt: skip
