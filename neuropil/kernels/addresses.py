"""Many tensors of different shapes as one row of numbers, for kernels that treat all of them alike.

A model has weights in many tensors; a kernel called for each of them would spend more time on being called than on
the small ones, and share the large ones out unevenly.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuropil.kernels.compiled import HAS_NUMBA, kernel_part
from neuropil.kernels.vector import numbers_at

Addresses = Any  # int64 [tensors, columns + 1]


def addresses(*columns: Sequence[Tensor]) -> Addresses | None:
    """Where the numbers of tensors lie: a row for each, last in it how many numbers it and those before it have.

    The columns are tensors that belong together. None where a compiled kernel cannot take them as they lie: unless
    they have numbers, all on the CPU, of one kind (float32 or float64), contiguous, and as many in every column.

    >>> addresses([torch.zeros(2, 3), torch.zeros(4)], [torch.ones(2, 3), torch.ones(4)])[:, -1].tolist()
    [6, 10]
    >>> addresses([torch.zeros(2, 3).T]) is None
    True
    """
    dtype = columns[0][0].dtype if columns[0] else None
    if not HAS_NUMBA or dtype not in (torch.float32, torch.float64) or torch.compiler.is_compiling():
        return None
    strided, wrapped = torch.strided, torch._C._functorch.is_functorch_wrapped_tensor
    rows, end = [], 0
    for together in zip(*columns, strict=True):
        count, row = together[0].numel(), []
        # the questions in one place: asked of every tensor, they are most of the time
        for tensor in together:
            if (
                tensor.dtype is not dtype
                or not tensor.is_cpu
                or tensor.layout is not strided
                or not tensor.is_contiguous()
                or tensor.numel() != count
                or wrapped(tensor)
            ):
                return None
            row.append(tensor.data_ptr())
        end += count
        row.append(end)
        rows.append(row)
    return np.array(rows, dtype=np.int64)


@kernel_part
def stretch(rows: Any, row: int, start: int, stop: int) -> Any:
    """First number and count of what lies of a row's tensor between places `start` and `stop` of all numbers."""
    ends = rows.shape[1] - 1
    before = rows[row - 1, ends] if row > 0 else 0
    first = max(start - before, 0)
    return first, min(stop, rows[row, ends]) - before - first


@kernel_part
def part_of(rows: Any, row: int, column: int, first: int, count: int, like: Any) -> Any:
    """Some numbers of a tensor, of the dtype of the array `like`."""
    return numbers_at(rows[row, column] + first * like.itemsize, count, like)
