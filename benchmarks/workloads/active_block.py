"""Eight two-layer blocks for one sample, of whose units 10 % are known to be active."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.workload import Arrays, Contender, Row, Run, Workload, close
from neuropil.kernels.active import active_block, active_block_reference

READ = "active rows read once"


def inputs(tiny: bool) -> Arrays:
    """A sample, weights and active units; units that are not active are silenced by their bias."""
    layers, features, units = (2, 8, 30) if tiny else (8, 1024, 4096)
    rng = np.random.default_rng(0)
    active = np.stack([np.sort(rng.permutation(units)[: units // 10]) for _ in range(layers)])
    bias = np.full((layers, units), -1e3, dtype=np.float32)
    np.put_along_axis(bias, active, 0.1, axis=1)
    scale = np.float32(features**-0.5)
    return {
        "x": rng.standard_normal(features, dtype=np.float32),
        "up": scale * rng.standard_normal((layers, units, features), dtype=np.float32),
        "down": scale * rng.standard_normal((layers, units, features), dtype=np.float32),
        "active": active.astype(np.int64),
        "bias": bias,
    }


def known_set(block: Callable[..., Tensor]) -> Callable[[Arrays], Run]:
    """The blocks one after the other."""

    def make(arrays: Arrays) -> Run:
        x, up, down, active, bias = map(torch.from_numpy, arrays.values())

        def run() -> dict[str, Any]:
            y = x
            with torch.no_grad():
                for layer in range(len(up)):
                    y = block(y, up[layer], down[layer], active[layer], bias[layer])
            return {"y": y}

        return run

    return make


def dense(arrays: Arrays) -> Run:
    """All units, each weight in the layout that a linear layer has it in."""
    x, up, down, _, bias = map(torch.from_numpy, arrays.values())
    down = down.mT.contiguous()

    def run() -> dict[str, Any]:
        y = x
        for layer in range(len(up)):
            y = down[layer] @ (up[layer] @ y + bias[layer]).relu()
        return {"y": y}

    return run


def read_rows(arrays: Arrays) -> Run:
    """The active units' rows, already side by side, read once."""
    _, up, down, active, _ = map(torch.from_numpy, arrays.values())
    rows = [weight[layer, active[layer]] for layer in range(len(up)) for weight in (up, down)]

    def run() -> None:
        for one in rows:
            one.sum()

    return run


def check(outputs: Mapping[str, Arrays]) -> list[str]:
    """The output is that of the dense blocks."""
    return close(outputs, "dense", "y", tolerance=1e-3)


WORKLOADS = [
    Workload(
        "active_block",
        "two-layer blocks, d=1024, h=4096, 8 layers, one sample, a known 10 % of the units active: forward",
        inputs,
        [
            Contender("neuropil", known_set(active_block)),
            Contender("dense", dense),
            Contender("index_select", known_set(active_block_reference)),
            Contender(READ, read_rows),
        ],
        [
            Row("active_block", ["dense"], 5, 8),
            Row("active_block_gather", ["index_select"], 1, 1.5),
        ],
        check,
        limit=READ,
    )
]
