"""A reservoir of leaky tanh units driven by one input, forward only."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch

from benchmarks.workload import Arrays, Contender, Row, Run, Workload, close
from neuropil.kernels.compiled import kernel, run_over
from neuropil.kernels.reservoir import leaky_reservoir_scan
from neuropil.kernels.vector import length, load, scaled_add, store, zeros

READ = "connections read at every step"
UNITS, STEPS, LEAK = 1000, 10_000, 0.3


def network(density: float) -> Callable[[bool], Arrays]:
    """Inputs of a workload: a signal, and connections as compressed rows, all in double precision."""

    def inputs(tiny: bool) -> Arrays:
        units, steps = (50, 20) if tiny else (UNITS, STEPS)
        rng = np.random.default_rng(0)
        mask = rng.random((units, units)) < density
        rows, columns = mask.nonzero()
        return {
            "x": 0.5 * rng.standard_normal((steps, 1)),
            "values": 0.9 * rng.standard_normal(len(rows)) / np.sqrt(units * density),
            "columns": columns.astype(np.int32),
            "offsets": np.append(0, mask.sum(1).cumsum()).astype(np.int32),
            "input_weight": rng.uniform(-1, 1, (units, 1)),
            "leak": np.array([LEAK]),
        }

    return inputs


def ours(dtype: torch.dtype) -> Callable[[Arrays], Run]:
    """One call for the whole run."""

    def make(inputs: Arrays) -> Run:
        offsets, columns, values, x, input_weight = (
            torch.from_numpy(inputs[name]) for name in ("offsets", "columns", "values", "x", "input_weight")
        )
        units = len(input_weight)
        connections = torch.sparse_csr_tensor(offsets, columns, values.to(dtype), (units, units))
        x, input_weight = x.to(dtype).unsqueeze(1), input_weight.to(dtype)
        rest, leak = torch.zeros(1, units, dtype=dtype), torch.tensor(inputs["leak"][0], dtype=dtype)

        def run() -> dict[str, torch.Tensor]:
            states = leaky_reservoir_scan(x, rest, connections, input_weight, leak=leak)
            return {"states": states[:: len(x) // 10, 0]}

        return run

    return make


@kernel
def read_again(start, stop, values, steps, out, parts):  # type: ignore[no-untyped-def]
    """Add up values `start` to `stop`, as many times as there are steps."""
    one, found = values.dtype.type(1), zeros(values, parts)
    for _ in range(steps):
        for at in range(start, stop, length(values, parts)):
            found = scaled_add(one, load(values, at, parts), found)
    store(out, start, found)


def read_connections(inputs: Arrays) -> Run:
    """The strengths in single precision, without asking whom they connect: no run over the steps takes less."""
    count, width = len(inputs["values"]), 64
    values = np.ones(-(-count // width) * width, np.float32)
    out = np.empty_like(values)
    share = -(-len(values) // torch.get_num_threads() // width) * width

    def run() -> None:
        work = len(values) * len(inputs["x"])
        run_over(read_again, len(values), work, values, len(inputs["x"]), out, (0,) * 4, grain=share)

    return run


def check(outputs: Mapping[str, Arrays]) -> list[str]:
    """States along the whole run: to rounding in double, to single precision in single."""
    return [
        *close(outputs, "reservoirpy", "states", among=("neuropil, double",), tolerance=1e-12),
        *close(outputs, "reservoirpy", "states", among=("neuropil",), tolerance=1e-5),
    ]


def workload(percent: int, target: float, goal: float, *more: Row) -> Workload:
    """A run at a density of `percent`."""
    name = f"reservoir_{percent}"
    return Workload(
        name, f"{UNITS} leaky tanh units, {percent} % connected, {STEPS} steps", network(percent / 100),
        [
            Contender("neuropil", ours(torch.float32)),
            Contender("neuropil, double", ours(torch.float64)),
            Contender("reservoirpy", "reservoir.py:reservoirpy", "peers"),
            Contender(READ, read_connections),
        ],
        [Row(name, ["reservoirpy"], target, goal), *more], check, limit=READ,
    )  # fmt: skip


WORKLOADS = [
    workload(10, 3, 4, Row("reservoir_f64", ["reservoirpy"], 1.3, 1.8, "neuropil, double")),
    workload(1, 4, 6),
]
