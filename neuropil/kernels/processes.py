"""What several processes that train one model together must agree on; alone, nothing happens."""

from __future__ import annotations

from torch import Tensor, distributed


def sum_over_processes(value: Tensor) -> Tensor:
    """`value` added up over the processes of the default group, in place.

    >>> import torch
    >>> sum_over_processes(torch.ones(2))
    tensor([1., 1.])
    """
    if _several():
        distributed.all_reduce(value)
    return value


def from_first_process(value: Tensor) -> Tensor:
    """The first process's `value`, for what is drawn at random and must be the same everywhere, in place.

    >>> import torch
    >>> from_first_process(torch.ones(2))
    tensor([1., 1.])
    """
    if _several():
        distributed.broadcast(value, 0)
    return value


def _several() -> bool:
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1
