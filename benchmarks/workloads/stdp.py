"""A layer that learns by pair STDP while it runs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from benchmarks.peers.stdp import TAU, plain_numpy
from benchmarks.workload import Arrays, Contender, Row, Run, Workload, close
from neuropil.kernels.stdp import stdp_lif_scan
from neuropil.kernels.stdp_rules import PairSTDP


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


def ours(arrays: Arrays) -> Run:
    """One call for the whole run."""
    pre, weight = torch.from_numpy(arrays["pre"]), torch.from_numpy(arrays["weight"])
    rate, decay = float(arrays["rate"][0]), math.exp(-1 / TAU)
    rule = PairSTDP(potentiation=rate, depression=rate, pre_decay=decay, post_decay=decay)
    threshold = float(arrays["threshold"][0])

    def run() -> dict[str, Any]:
        run = stdp_lif_scan(pre, weight, rule, decay=decay, threshold=threshold, reset="zero")
        return {"change": run.weight - weight}

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
        ],
        [Row("stdp", ["bindsnet", "brian2"], 35, 60)], check,
    )
]  # fmt: skip
