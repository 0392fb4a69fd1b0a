"""Lanes: one neuron of one sample each, the axis along which scans over time are independent.

A scan sees its input as `[time, lanes]`; parameters of neurons are vectors that repeat from sample to sample.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from neuropil.errors import ShapeError
from neuropil.kernels.compiled import kernel_part

STRETCH = 2048  # lanes that a piece of a scan should have, so that each step's row is long enough to stream


def check_per_neuron(caller: str, name: str, parameter: Tensor, features: Sequence[int]) -> None:
    """Raise ShapeError unless `parameter` is one number or broadcasts to `features`.

    >>> import torch
    >>> check_per_neuron("lif_scan", "decay", torch.ones(8, 1, 1), (8, 4, 4))
    """
    if parameter.numel() == 1:
        return
    fits = parameter.dim() <= len(features) and all(
        mine in (1, theirs) for mine, theirs in zip(parameter.shape[::-1], features[::-1], strict=False)
    )
    if not fits:
        raise ShapeError(
            f"{caller}: {name} has shape {list(parameter.shape)}, expected one number or a shape that "
            f"broadcasts to the features {list(features)}"
        )


def period(parameter: Tensor, features: Sequence[int]) -> Tensor:
    """One number, or one per feature, as a vector.

    >>> import torch
    >>> period(torch.tensor([[1.0], [2.0]]), (2, 3)).tolist()
    [1.0, 1.0, 1.0, 2.0, 2.0, 2.0]
    """
    if parameter.numel() == 1:
        return parameter.reshape(1)
    return parameter.expand(tuple(features)).reshape(-1)


def sum_lanes(per_lane: Tensor, parameter: Tensor, wanted: bool) -> Tensor:
    """Sum what each lane contributed to the `parameter` that it shares; empty unless `wanted`.

    >>> import torch
    >>> sum_lanes(torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.ones(2), wanted=True).tolist()
    [4.0, 6.0]
    """
    if per_lane.numel() == 0:
        return torch.zeros_like(parameter) if wanted else per_lane
    return per_lane.view(-1, parameter.numel()).sum(0).view(parameter.shape)


def array(tensor: Tensor) -> Any:
    """The tensor's numbers as a contiguous numpy array, copied only where they are not contiguous.

    >>> import torch
    >>> array(torch.ones(2)).tolist()
    [1.0, 1.0]
    """
    # asked first: a call that changes nothing costs as much as one that does, and kernels take many arrays
    if tensor.requires_grad:
        tensor = tensor.detach()
    return (tensor if tensor.is_contiguous() else tensor.contiguous()).numpy()


def array_or_none(tensor: Tensor | None, dtype: torch.dtype, axes: int) -> Any:
    """`array`, and for None an array of a kernel's `axes` and `dtype` that holds nothing.

    >>> array_or_none(None, torch.float32, 2).shape
    (0, 0)
    """
    return _nothing(dtype, axes) if tensor is None else array(tensor)


@functools.cache
def _nothing(dtype: torch.dtype, axes: int) -> Any:
    return torch.empty((0,) * axes, dtype=dtype).numpy()


@kernel_part
def repeat_row(values: Any, first: int, row: Any) -> None:
    """`row[j] = values[(first + j) % len(values)]`, without a division per lane, in loops that vectorise."""
    one = values[0]
    if len(values) == 1:
        for j in range(len(row)):
            row[j] = one
        return
    done, k = 0, first % len(values)
    while done < len(row):
        count = min(len(values) - k, len(row) - done)
        for j in range(count):
            row[done + j] = values[k + j]
        done, k = done + count, 0
