"""A layer of learned delays, forward and backward, beside the dense convolution over time it stands for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from benchmarks.workload import Arrays, Contender, Row, Run, Workload, close
from neuropil.nn import DelayLinear

LONGEST, WIDTH = 24, 0.5


def shape(time: int, batch: int, inputs: int, outputs: int) -> Any:
    """Inputs of a workload: spikes of a tenth of the neurons, weights, delays, and the gradient of the output."""

    def arrays(tiny: bool) -> Arrays:
        t, b, i, o = (40, 2, 5, 3) if tiny else (time, batch, inputs, outputs)
        rng = np.random.default_rng(0)
        return {
            "x": (rng.random((t, b, i)) < 0.1).astype(np.float32),
            "weight": rng.standard_normal((o, i), dtype=np.float32),
            "delay": (LONGEST * rng.random((o, i))).astype(np.float32),
            "gradient": rng.standard_normal((t, b, o), dtype=np.float32),
        }

    return arrays


def layer(arrays: Arrays) -> Run:
    """Ours."""
    outputs, inputs = arrays["weight"].shape
    delays = torch.from_numpy(arrays["delay"])
    one = DelayLinear(
        inputs, outputs, LONGEST, delays=delays, learn=True, bounds="clamp", interpolation="gaussian",
        width=WIDTH, bias=False,
    )  # fmt: skip
    with torch.no_grad():
        one.weight.copy_(torch.from_numpy(arrays["weight"]))
    x, gradient = torch.from_numpy(arrays["x"]).requires_grad_(), torch.from_numpy(arrays["gradient"])
    parameters = (x, one.weight, one.delay)

    def run() -> dict[str, Any]:
        y = one(x)[0]
        found = torch.autograd.grad(y, parameters, gradient)
        return dict(zip(("y", "g_x", "g_weight", "g_delay"), (y.detach(), *found), strict=True))

    return run


def dense(arrays: Arrays) -> Run:
    """The kernel `w exp(-(n - d)^2 / 2 s^2) / sum`, made in every step, and `conv1d`."""
    x = torch.from_numpy(arrays["x"]).permute(1, 2, 0).contiguous().requires_grad_()
    weight, delay = (torch.from_numpy(arrays[name]).requires_grad_() for name in ("weight", "delay"))
    gradient = torch.from_numpy(arrays["gradient"]).permute(1, 2, 0).contiguous()
    taps = torch.arange(LONGEST, -1, -1.0)

    def run() -> dict[str, Any]:
        bump = torch.exp(-0.5 * ((taps - delay.unsqueeze(-1)) / WIDTH) ** 2)
        kernel = weight.unsqueeze(-1) * bump / bump.sum(-1, keepdim=True)
        y = functional.conv1d(functional.pad(x, (LONGEST, 0)), kernel)
        g_x, *found = torch.autograd.grad(y, (x, weight, delay), gradient)
        values = (y.detach().permute(2, 0, 1), g_x.permute(2, 0, 1), *found)
        return dict(zip(("y", "g_x", "g_weight", "g_delay"), values, strict=True))

    return run


def check(outputs: Mapping[str, Arrays]) -> list[str]:
    """Output and all gradients."""
    found = [close(outputs, "dense", key, tolerance=1e-5) for key in ("y", "g_x", "g_weight", "g_delay")]
    return [line for lines in found for line in lines]


def workload(name: str, *sizes: int) -> Workload:
    """One size, `[time, batch, inputs, outputs]`."""
    return Workload(
        name, f"learned delays of up to {LONGEST} steps, {list(sizes)}, forward and backward", shape(*sizes),
        [Contender("neuropil", layer), Contender("dense", dense)], [Row(name, ["dense"], 3, 5)], check,
    )  # fmt: skip


WORKLOADS = [workload("delays_rows", 44, 128, 28, 64), workload("delays_sounds", 100, 128, 140, 256)]
