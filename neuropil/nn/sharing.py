"""A second model that shares every tensor with the first: what edits begin with."""

from __future__ import annotations

import copy
import itertools
from typing import TypeVar

from torch import nn

Model = TypeVar("Model", bound=nn.Module)


def shared_copy(model: Model) -> Model:
    """A copy of a model's modules around the very same parameters and buffers.

    Putting another tensor in the place of one leaves the original as it was; changing a tensor in place changes both.

    >>> net = nn.Linear(2, 2)
    >>> twin = shared_copy(net)
    >>> twin is net, twin.weight is net.weight
    (False, True)
    """
    tensors = itertools.chain(model.parameters(), model.buffers())
    return copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})
