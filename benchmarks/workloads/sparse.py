"""Linear layers of which a mask keeps a part: training steps and inference, 2048 to 2048, 64 samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.workload import Arrays, Contender, Row, Run, Workload, close
from neuropil.kernels.sparse import (
    SparsePattern,
    entry_pattern,
    sparse_linear,
    sparse_pattern,
    sparse_values,
)
from neuropil.kernels.sparse_blocks import BlockPattern

EQUAL = "dense product of equal arithmetic"
BLOCK = 32


def layer(density: float) -> Callable[[bool], Arrays]:
    """Inputs, masked weight and gradient of the outputs."""

    def inputs(tiny: bool) -> Arrays:
        size, batch = (24, 5) if tiny else (2048, 64)
        rng = np.random.default_rng(0)
        arrays = {
            name: rng.standard_normal(shape, dtype=np.float32)
            for name, shape in (("x", (batch, size)), ("weight", (size, size)), ("gradient", (batch, size)))
        }
        arrays["mask"] = rng.random((size, size)) < density
        return arrays

    return inputs


def block_layer(density: float) -> Callable[[bool], Arrays]:
    """The same where a mask keeps blocks of 32 by 32 weights."""

    def inputs(tiny: bool) -> Arrays:
        arrays = layer(density)(tiny)
        size = len(arrays["mask"])
        grid = np.random.default_rng(1).random((-(-size // BLOCK),) * 2) < density
        arrays["mask"] = np.kron(grid, np.ones((BLOCK, BLOCK), bool))[:size, :size]
        return arrays

    return inputs


def ours(arrays: Arrays) -> Run:
    """A training step's products with the values that are kept."""
    x, weight, gradient, mask = map(torch.from_numpy, arrays.values())
    return train(x, weight, gradient, sparse_pattern(mask))


def ours_by_entry(arrays: Arrays) -> Run:
    """The same with a pattern that does not know of blocks."""
    x, weight, gradient, mask = map(torch.from_numpy, arrays.values())
    return train(x, weight, gradient, entry_pattern(mask))


def train(x: Tensor, weight: Tensor, gradient: Tensor, pattern: SparsePattern | BlockPattern) -> Run:
    """A training step's products with the values that a pattern keeps."""
    values = sparse_values(weight, pattern).requires_grad_()
    x.requires_grad_()

    def run() -> dict[str, Any]:
        y = sparse_linear(x, values, pattern)
        return {"y": y, "g_x": torch.autograd.grad(y, (x, values), gradient)[0]}

    return run


def masked(arrays: Arrays) -> Run:
    """The same with a dense weight, multiplied by the mask in every step."""
    x, weight, gradient, mask = map(torch.from_numpy, arrays.values())
    kept = mask.float()
    for tensor in (x, weight):
        tensor.requires_grad_()

    def run() -> dict[str, Any]:
        y = functional.linear(x, weight * kept)
        return {"y": y, "g_x": torch.autograd.grad(y, (x, weight), gradient)[0]}

    return run


def dense(arrays: Arrays) -> Run:
    """The products of a dense layer, with no mask at all."""
    x, weight, gradient, mask = map(torch.from_numpy, arrays.values())
    weight = weight * mask
    for tensor in (x, weight):
        tensor.requires_grad_()

    def run() -> dict[str, Any]:
        y = functional.linear(x, weight)
        return {"y": y, "g_x": torch.autograd.grad(y, (x, weight), gradient)[0]}

    return run


def equal_arithmetic(arrays: Arrays) -> Run:
    """A dense layer with as many weights as the mask keeps."""
    x, weight, gradient, mask = map(torch.from_numpy, arrays.values())
    rows = max(1, round(float(mask.float().mean()) * len(mask)))
    weight, gradient = weight[:rows].clone().requires_grad_(), gradient[:, :rows].contiguous()
    x.requires_grad_()

    def run() -> None:
        torch.autograd.grad(functional.linear(x, weight), (x, weight), gradient)

    return run


def infer(arrays: Arrays) -> Run:
    """Our forward product."""
    x, weight, _, mask = map(torch.from_numpy, arrays.values())
    pattern = sparse_pattern(mask)
    values = sparse_values(weight, pattern)

    def run() -> dict[str, Any]:
        with torch.no_grad():
            return {"y": sparse_linear(x, values, pattern)}

    return run


def infer_equal_arithmetic(arrays: Arrays) -> Run:
    """The forward product of a dense layer with as many weights as the mask keeps."""
    x, weight, _, mask = map(torch.from_numpy, arrays.values())
    weight = weight[: max(1, round(float(mask.float().mean()) * len(mask)))].clone()

    def run() -> None:
        with torch.no_grad():
            functional.linear(x, weight)

    return run


def infer_csr(arrays: Arrays) -> Run:
    """Torch's own compressed rows."""
    x, weight, _, mask = map(torch.from_numpy, arrays.values())
    matrix = (weight * mask).to_sparse_csr()

    def run() -> dict[str, Any]:
        with torch.no_grad():
            return {"y": (matrix @ x.mT).mT}

    return run


def infer_dense(arrays: Arrays) -> Run:
    """The dense forward product."""
    x, weight, _, mask = map(torch.from_numpy, arrays.values())
    weight = weight * mask

    def run() -> dict[str, Any]:
        with torch.no_grad():
            return {"y": functional.linear(x, weight)}

    return run


def agree(*keys: str) -> Callable[[Mapping[str, Arrays]], list[str]]:
    """Everyone's outputs are those of the dense layer."""

    def check(outputs: Mapping[str, Arrays]) -> list[str]:
        reference = next(name for name in outputs if name.startswith("dense"))
        return [line for key in keys for line in close(outputs, reference, key)]

    return check


def training(name: str, sparsity: int, against: str, target: float, goal: float) -> Workload:
    """A training step at a sparsity in percent."""
    return Workload(
        name,
        f"sparse linear layer, 2048 to 2048, B=64, {sparsity} % of weights zero: forward and backward",
        layer(1 - sparsity / 100),
        [
            Contender("neuropil", ours),
            Contender("dense, masked", masked),
            Contender("dense", dense),
            Contender(EQUAL, equal_arithmetic),
        ],
        [Row(name, [against], target, goal)],
        agree("y", "g_x"),
        limit=EQUAL,
    )


def block_training(name: str, sparsity: int, target: float, goal: float) -> Workload:
    """The same for a mask of blocks, beside our own way for any mask."""
    return Workload(
        name,
        f"sparse linear layer, 2048 to 2048, B=64, {sparsity} % of blocks of {BLOCK} by {BLOCK} weights zero: "
        "forward and backward",
        block_layer(1 - sparsity / 100),
        [
            Contender("neuropil", ours),
            Contender("neuropil, entry by entry", ours_by_entry),
            Contender("dense, masked", masked),
            Contender("dense", dense),
            Contender(EQUAL, equal_arithmetic),
        ],
        [Row(name, ["dense, masked"], target, goal)],
        agree("y", "g_x"),
        limit=EQUAL,
    )


WORKLOADS = [
    training("sparse_train_90", 90, "dense, masked", 3, 4),
    training("sparse_train_95", 95, "dense, masked", 5, 7),
    training("sparse_train_99", 99, "dense, masked", 12, 20),
    block_training("block_train_90", 90, 8, 12),
    training("sparse_crossover", 70, "dense", 1.1, 1.3),
    Workload(
        "sparse_infer_90",
        "sparse linear layer, 2048 to 2048, B=64, 90 % of weights zero: forward",
        layer(0.1),
        [
            Contender("neuropil", infer),
            Contender("torch CSR", infer_csr),
            Contender("dense", infer_dense),
            Contender(EQUAL, infer_equal_arithmetic),
        ],
        [Row("sparse_infer_90", ["torch CSR"], 2, 3)],
        agree("y"),
        limit=EQUAL,
    ),
]
