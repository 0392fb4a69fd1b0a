"""Cells with equations of their own over a sequence, forward and backward, beside the equations in plain torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from benchmarks.workload import Arrays, Contender, Row, Run, Workload, close
from benchmarks.workloads.lif import through_time
from neuropil.kernels.adex import adex_scan_reference
from neuropil.kernels.quadratic import quadratic_scan_reference
from neuropil.kernels.refractory import refractory_scan_reference
from neuropil.kernels.resonator import resonator_scan_reference
from neuropil.nn import LIF, QIF, AdEx, Refractory, ResonateAndFire, Stateful
from neuropil.nn.surrogate import ArcTan

TIME, BATCH, NEURONS = 200, 32, 256
SPIKE = ArcTan(2.0)


def sequence(mean: float, spread: float) -> Callable[[bool], Arrays]:
    """Inputs of a workload: currents and the gradient of the spikes."""

    def inputs(tiny: bool) -> Arrays:
        shape = (6, 2, 8) if tiny else (TIME, BATCH, NEURONS)
        rng = np.random.default_rng(0)
        return {
            "x": (mean + spread * rng.standard_normal(shape)).astype(np.float32),
            "gradient": rng.standard_normal(shape, dtype=np.float32),
        }

    return inputs


def layer(cell: Stateful) -> Callable[[Arrays], Run]:
    """Our cell."""
    return lambda inputs: through_time(inputs, lambda x: cell(x)[0])


def adex(x: Tensor) -> Tensor:
    """The equations of AdEx."""
    p, rest = AdEx(dt=0.5).numbers(), torch.full_like(x[0], -70.6)
    paces = p["dt"] / p["capacitance"], p["dt"] / p["tau"]
    middle = (p[name] for name in ("leak", "rest", "rheobase", "slope", "a", "b"))
    return adex_scan_reference(
        x, rest, torch.zeros_like(rest), paces[0], *middle, paces[1], p["reset"], p["threshold"], SPIKE
    )[0]


def quadratic(x: Tensor) -> Tensor:
    """The equation of QIF."""
    p = QIF(dt=0.5).numbers()
    names = ("rest", "critical", "sharpness", "reset", "threshold")
    return quadratic_scan_reference(
        x, torch.zeros_like(x[0]), p["dt"] / p["tau"], *(p[name] for name in names), SPIKE
    )[0]


def resonator(x: Tensor) -> Tensor:
    """The equations of the resonator."""
    turn = torch.exp(torch.tensor(-1 / 50 + 2j * torch.pi * 0.04))
    zero = torch.zeros_like(x[0])
    return resonator_scan_reference(
        x, zero, zero, turn.real, turn.imag, torch.tensor(0.0), torch.tensor(1.0), SPIKE
    )[0]


def refractory(x: Tensor) -> Tensor:
    """The equations of a leaky neuron that rests for two steps."""
    zero, number = torch.zeros_like(x[0]), torch.tensor
    return refractory_scan_reference(x, zero, zero, number(0.5), number(1.0), number(2.0), SPIKE)[0]


def check(outputs: Mapping[str, Arrays]) -> list[str]:
    """Spikes and gradients; a membrane within rounding of the threshold may fall on either side."""
    return [
        *close(outputs, "plain torch", "spikes", outliers=1e-3),
        *close(outputs, "plain torch", "gradient", tolerance=1e-3, outliers=1e-2),
    ]


def workload(
    name: str, cell: Stateful, plain: Callable[[Tensor], Tensor], mean: float, spread: float
) -> Workload:
    """A cell and its equations."""
    return Workload(
        f"cell_{name}", f"{name} [{TIME}, {BATCH}, {NEURONS}], forward and backward", sequence(mean, spread),
        [Contender("neuropil", layer(cell)), Contender("plain torch", lambda inputs: through_time(inputs, plain))],
        [Row(f"cell_{name}", ["plain torch"], 10, 20)], check,
    )  # fmt: skip


WORKLOADS = [
    workload("adex", AdEx(dt=0.5, surrogate=SPIKE), adex, 800, 400),
    workload("quadratic", QIF(dt=0.5, surrogate=SPIKE), quadratic, 1.5, 1.0),
    workload("resonator", ResonateAndFire(surrogate=SPIKE), resonator, 0.0, 0.5),
    workload("refractory", Refractory(LIF(surrogate=SPIKE), 2), refractory, 0.5, 0.7),
]
