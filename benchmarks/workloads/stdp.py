"""A layer that learns by pair STDP while it runs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from benchmarks.peers.stdp import TAU, plain_numpy
from benchmarks.workload import Arrays, Contender, Row, Run, Workload, close
from neuropil.kernels.compiled import kernel, run_over
from neuropil.kernels.stdp import PlasticRun, stdp_lif_scan
from neuropil.kernels.stdp_rules import PairSTDP

WRITTEN = "weights of spiking neurons written"


def inputs(tiny: bool) -> Arrays:
    """Spikes at a rate of 2 %, weights, and a threshold at which outputs fire about as often."""
    steps, count, outputs = (30, 20, 10) if tiny else (1000, 784, 1000)
    rng = np.random.default_rng(0)
    return {
        "pre": (rng.random((steps, count)) < 0.02).astype(np.float32),
        "weight": rng.uniform(0, 0.05, (outputs, count)).astype(np.float32),
        "rate": np.array([1e-3], np.float32),
        "threshold": np.array([0.1 if tiny else 7.0], np.float32),
    }


def learn(arrays: Arrays) -> PlasticRun:
    """The whole run, in one call."""
    rate, decay = float(arrays["rate"][0]), math.exp(-1 / TAU)
    rule = PairSTDP(potentiation=rate, depression=rate, pre_decay=decay, post_decay=decay)
    pre, weight = torch.from_numpy(arrays["pre"]), torch.from_numpy(arrays["weight"])
    threshold = float(arrays["threshold"][0])
    return stdp_lif_scan(pre, weight, rule, decay=decay, threshold=threshold, reset="zero")


def ours(arrays: Arrays) -> Run:
    """Changes of the weights."""
    weight = torch.from_numpy(arrays["weight"])

    def run() -> dict[str, Any]:
        return {"change": learn(arrays).weight - weight}

    return run


@kernel
def add_to_rows(start, stop, rows, change, weight):  # type: ignore[no-untyped-def]
    """Add `change` to columns `start` to `stop` of one row after the other."""
    for k in range(len(rows)):
        row = weight[rows[k], start:stop]
        for j in range(len(row)):
            row[j] += change[start + j]


def write_rows(arrays: Arrays) -> Run:
    """A plain addition for every spike, to the row of an input or of an output, each where rows are contiguous."""
    pre, weight = torch.from_numpy(arrays["pre"]), torch.from_numpy(arrays["weight"])
    post = learn(arrays).spikes
    sides = [
        (spikes.nonzero()[:, 1].numpy(), torch.zeros(matrix.shape[1]).numpy(), matrix.clone().numpy())
        for spikes, matrix in ((pre, weight.mT.contiguous()), (post, weight))
    ]

    def run() -> None:
        for rows, change, matrix in sides:
            columns = matrix.shape[1]
            run_over(add_to_rows, columns, len(rows) * columns, rows, change, matrix, grain=256)

    return run


def check(outputs: Mapping[str, Arrays]) -> list[str]:
    """Weight changes of the plain version; a membrane within rounding of the threshold may fall on either side."""
    return close(outputs, "plain numpy", "change", among=("neuropil",), tolerance=1e-3, outliers=5e-3)


WORKLOADS = [
    Workload(
        "stdp", "784 inputs to 1000 leaky neurons, pair STDP, 1000 steps", inputs,
        [
            Contender("neuropil", ours),
            Contender("plain numpy", plain_numpy),
            Contender("bindsnet", "stdp.py:bindsnet", "peers"),
            Contender("brian2", "stdp.py:brian2", "brian2"),
            Contender(WRITTEN, write_rows),
        ],
        [Row("stdp", ["bindsnet", "brian2"], 35, 60)], check, limit=WRITTEN,
    )
]  # fmt: skip
