"""Products of spikes with weights, 2048 neurons to 2048, of which 2 % are active."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.workload import Arrays, Contender, Row, Run, Workload, close
from neuropil.kernels.spikes import spike_product

READ = "active rows read once"
PATTERNS = (
    16  # different inputs, in turns, so that the rows that one touches do not wait in a cache for the next
)


def activity(batch: int) -> Callable[[bool], Arrays]:
    """Spikes of several inputs and weights, one row for each neuron."""

    def inputs(tiny: bool) -> Arrays:
        size = 40 if tiny else 2048
        rng = np.random.default_rng(0)
        spikes = rng.random((PATTERNS, batch, size)) < (0.2 if tiny else 0.02)
        return {
            "spikes": spikes.astype(np.float32),
            "weight": rng.standard_normal((size, size), dtype=np.float32),
        }

    return inputs


def multiply(product: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Arrays], Run]:
    """Every input's product, one after the other."""

    def make(arrays: Arrays) -> Run:
        spikes, weight = torch.from_numpy(arrays["spikes"]).unbind(), torch.from_numpy(arrays["weight"])

        def run() -> dict[str, Any]:
            with torch.no_grad():
                for one in spikes:
                    y = product(one, weight)
            return {"y": y}

        return run

    return make


def embedding_bag(spikes: Tensor, weight: Tensor) -> Tensor:
    """Sum of the active neurons' rows; finding them is part of the work."""
    sample, neuron = spikes.nonzero(as_tuple=True)
    offsets = torch.searchsorted(sample, torch.arange(len(spikes)))
    return functional.embedding_bag(neuron, weight, offsets, mode="sum")


def read_rows(arrays: Arrays) -> Run:
    """The rows that some sample needs, already side by side, read once."""
    weight = torch.from_numpy(arrays["weight"])
    rows = [weight[one.any(0)] for one in torch.from_numpy(arrays["spikes"])]

    def run() -> None:
        for one in rows:
            one.sum()

    return run


def check(outputs: Mapping[str, Arrays]) -> list[str]:
    """The product is the dense one."""
    return close(outputs, "dense", "y")


def workload(name: str, batch: int, rows: list[Row]) -> Workload:
    """Products for a batch."""
    return Workload(
        name,
        f"spikes times weights, 2048 to 2048, B={batch}, 2 % active: forward",
        activity(batch),
        [
            Contender("neuropil", multiply(spike_product)),
            Contender("dense", multiply(torch.matmul)),
            Contender("embedding_bag", multiply(embedding_bag)),
            Contender(READ, read_rows),
        ],
        rows,
        check,
        limit=READ,
        steps=PATTERNS,
    )


WORKLOADS = [
    workload("spike_B1", 1, [Row("spike_B1", ["dense"], 10, 40)]),
    workload(
        "spike_B64",
        64,
        [Row("spike_B64", ["dense"], 10, 15), Row("spike_B64_bag", ["embedding_bag"], 1.5, 2.5)],
    ),
]
