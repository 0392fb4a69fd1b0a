"""Data sets have the batch first, networks of neurons have time first."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from neuropil.errors import ShapeError


class BatchFirst(nn.Module):
    """Takes `[batch, time, ...features]` and gives it to a model that wants `[time, batch, ...features]`.

    The model's answer is handed on as it is: `[batch, outputs]` behind a readout, else time first.

    Raises ShapeError for an input without a time axis.

    >>> import torch
    >>> from neuropil.nn import LIF, RateReadout, Sequential
    >>> net = BatchFirst(Sequential(nn.Linear(4, 3), LIF(), RateReadout()))
    >>> net(torch.rand(2, 10, 4)).shape
    torch.Size([2, 3])
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Any:
        """The model's answer."""
        if x.dim() < 2:
            raise ShapeError(f"BatchFirst: input {list(x.shape)}, expected [batch, time, ...features]")
        return self.model(x.transpose(0, 1))
