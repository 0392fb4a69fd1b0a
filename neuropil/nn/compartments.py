"""Neurons of several compartments, each with an input of its own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from neuropil.errors import ShapeError
from neuropil.nn.cell import SpikingCell


class Compartmental(SpikingCell):
    """A cell whose input is `[time, batch, compartments, ...features]`, and whose spikes are those of its soma."""

    compartments: int

    def check_state(self, state: Any, x: Tensor) -> None:
        """Refuse an input without the axis of compartments, and a state that does not fit it."""
        if x.dim() < 3 or x.shape[2] != self.compartments:
            raise ShapeError(
                f"{type(self).__name__}: input has shape {list(x.shape)}, "
                f"expected [time, batch, {self.compartments}, ...features]"
            )
        super().check_state(state, x[:, :, 0])

    def empty(self, x: Tensor) -> Tensor:
        """The output of no steps."""
        return torch.empty_like(x[:, :, 0])
