"""The network as it was at the end of the last task, to learn from."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from neuropil.training.evaluating import evaluating


class Teacher:
    """Remembers a model's weights and answers with them; the model itself is not touched.

    >>> net = nn.Linear(2, 1, bias=False)
    >>> teacher = Teacher(net)
    >>> teacher.remember()
    >>> x = torch.ones(1, 2)
    >>> before = net(x)
    >>> _ = net.weight.data.fill_(0.0)
    >>> torch.equal(teacher(x), before)
    True
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._weights: dict[str, Tensor] = {}

    def __bool__(self) -> bool:
        """Whether there is anything remembered."""
        return bool(self._weights)

    def remember(self) -> None:
        """Take the model's present weights and buffers."""
        self._weights = {
            name: value.detach().clone()
            for name, value in (*self.model.named_parameters(), *self.model.named_buffers())
        }

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        """What the model answered when it was remembered, in evaluation mode."""
        with evaluating(self.model):
            output: Tensor = functional_call(self.model, self._weights, (x,))
        return output

    def state_dict(self) -> dict[str, Any]:
        """The remembered weights."""
        return dict(self._weights)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        mine = dict((*self.model.named_parameters(), *self.model.named_buffers()))
        self._weights = {
            name: value.to(mine[name].device, mine[name].dtype, copy=True) for name, value in state.items()
        }
