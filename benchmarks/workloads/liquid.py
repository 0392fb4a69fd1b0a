"""A recurrent network of spiking neurons with conductances, driven by spikes, forward only."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from benchmarks.workload import Arrays, Contender, Disagreement, Row, Run, Workload
from neuropil.kernels.liquid import (
    LiquidNeuron,
    LiquidRun,
    liquid_numbers,
    liquid_reference,
    liquid_rest,
    liquid_scan,
)

UNITS, INPUTS, STEPS, DT = 1000, 50, 10_000, 0.5
NEURON = LiquidNeuron(current=120.0)


def inputs(tiny: bool) -> Arrays:
    """800 excitatory and 200 inhibitory units, 10 % connected, with delays of up to 10 ms; input spikes."""
    units, steps = (50, 40) if tiny else (UNITS, STEPS)
    rng = np.random.default_rng(0)
    strength = np.where(np.arange(units) < 0.8 * units, 1.0, -11.0) * 250 / units
    weight = strength * (rng.random((units, units)) < 0.1)
    return {
        "x": (rng.random((steps, 1, INPUTS)) < 0.01).astype(np.float32),
        "weight": weight.astype(np.float32),
        "delays": rng.integers(1, 21, (units, units)),
        "input_weight": (6 * (rng.random((units, INPUTS)) < 0.1)).astype(np.float32),
    }


def kernel(inputs: Arrays) -> Run:
    """One call for the whole run."""
    x, weight, into, delays = (
        torch.from_numpy(inputs[name]) for name in ("x", "weight", "input_weight", "delays")
    )

    def run() -> dict[str, torch.Tensor]:
        return rates(liquid_scan(x, weight, into, NEURON, delays=delays, dt=DT))

    return run


def plain_torch(inputs: Arrays) -> Run:
    """The equations, one line of torch each; every delay one step."""
    x, weight, into = (torch.from_numpy(inputs[name]) for name in ("x", "weight", "input_weight"))
    numbers = liquid_numbers(NEURON, len(weight), DT).float()

    def run() -> dict[str, torch.Tensor]:
        return rates(liquid_reference(x, weight, into, numbers, liquid_rest(x, len(weight), NEURON)))

    return run


def without_delays(inputs: Arrays) -> Run:
    """What plain torch is asked."""
    x, weight, into = (torch.from_numpy(inputs[name]) for name in ("x", "weight", "input_weight"))

    def run() -> dict[str, torch.Tensor]:
        return rates(liquid_scan(x, weight, into, NEURON, dt=DT))

    return run


def rates(run: LiquidRun) -> dict[str, torch.Tensor]:
    """The early spikes, and how many there are in all."""
    return {"early": run.spikes[:40].clone(), "rate": run.spikes.mean()}


def check(outputs: Mapping[str, Arrays]) -> list[str]:
    """Early spikes are the same; later ones of a chaotic network are as many."""
    kernel_, plain = outputs["neuropil, no delays"], outputs["plain torch"]
    if not np.array_equal(kernel_["early"], plain["early"]):
        raise Disagreement("spikes of the first 40 steps differ from plain torch's")
    if abs(kernel_["rate"] - plain["rate"]) > 0.05 * plain["rate"] + 1e-3:
        raise Disagreement(f"rates differ: {kernel_['rate']} and {plain['rate']} of plain torch")
    return [f"early spikes equal; {float(plain['rate']) / DT * 1000:.1f} spikes per second and unit"]


WORKLOADS = [
    Workload(
        "liquid", f"{UNITS} conductance-based units, 10 % connected, {STEPS} steps", inputs,
        [
            Contender("neuropil", kernel),
            Contender("neuropil, no delays", without_delays),
            Contender("plain torch", plain_torch),
        ],
        [Row("liquid", ["plain torch"], 20, 50)], check,
    )
]  # fmt: skip
