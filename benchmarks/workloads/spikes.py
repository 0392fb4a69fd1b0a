"""Products of spikes with weights, 2048 neurons to 2048, of which 2 % are active."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.workload import Arrays, Contender, Row, Run, Workload, close
from neuropil.kernels.compiled import kernel, run_over
from neuropil.kernels.spikes import spike_product
from neuropil.kernels.vector import length, load, scaled_add, store, zeros

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


def weights(arrays: Arrays) -> Tensor:
    """As a model has them: in memory of torch, aligned to cache lines, while that of numpy is not."""
    return torch.from_numpy(arrays["weight"]).clone()


def multiply(product: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Arrays], Run]:
    """Every input's product, one after the other."""

    def make(arrays: Arrays) -> Run:
        spikes, weight = torch.from_numpy(arrays["spikes"]).unbind(), weights(arrays)

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


@kernel
def read_columns(start, stop, neurons, weight, columns, out, parts):  # type: ignore[no-untyped-def]
    """Columns `start` to `stop` of some rows, added up in one register, which costs less than waiting for them."""
    one, found = weight.dtype.type(1), zeros(weight, parts)
    for k in range(len(neurons)):
        row = np.intp(neurons[k]) * columns
        for at in range(start, stop, length(weight, parts)):
            found = scaled_add(one, load(weight, row + at, parts), found)
    store(out, start, found)


def read_rows(arrays: Arrays) -> Run:
    """The rows that some sample needs, known beforehand, read once where they lie: no product takes less."""
    weight = weights(arrays)
    size, parts = weight.shape[1], (0,)
    rows = [one.any(0).nonzero()[0].astype(np.int32) for one in arrays["spikes"]]
    flat, out = weight.numpy().reshape(-1), np.empty(size + 16, np.float32)
    # a page of 4 KB of a row in one go is what the processor fetches ahead best
    grain = min(1024, max(16, size // torch.get_num_threads() // 16 * 16))

    def run() -> None:
        for neurons in rows:
            run_over(
                read_columns,
                size // 16 * 16,
                len(neurons) * size,
                neurons,
                flat,
                size,
                out,
                parts,
                grain=grain,
            )

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
