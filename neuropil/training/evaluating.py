"""A model put into evaluation mode for a moment."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside, then every module's own mode again, also where some were frozen in a training model.

    >>> net = nn.Dropout()
    >>> with evaluating(net):
    ...     net.training
    False
    >>> net.training
    True
    """
    modes = [(module, module.training) for module in model.modules()]
    if all(_is_ordinary(type(module)) for module, _ in modes):  # as below, without what assigning asks
        for module, _ in modes:
            vars(module)["training"] = False
    else:
        model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            if _is_ordinary(type(module)):
                vars(module)["training"] = mode
            else:
                module.training = mode


def _is_ordinary(kind: type[nn.Module]) -> bool:
    """Whether a module goes from mode to mode as any other: it may have a way of its own."""
    base = nn.Module
    return kind.train is base.train and kind.eval is base.eval and kind.__setattr__ is base.__setattr__
