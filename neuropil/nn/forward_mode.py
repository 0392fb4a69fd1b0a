"""Which part of a model has no forward-mode derivative."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from neuropil.errors import IncompatibleError


def forward_mode_refusal(
    model: nn.Module, derivative: Callable[[], object], *inputs: Any
) -> IncompatibleError:
    """The error that names the part in which `derivative()`, a forward-mode derivative of `model`, fails.

    What fails on the inputs without a derivative as well is no matter of derivatives, and is raised as it is.

    Args:
        model: whose part is sought; every module in it is watched while it runs.
        derivative: what has failed; it is called again.
        inputs: of the model.

    >>> class Own(torch.autograd.Function):
    ...     @staticmethod
    ...     def forward(ctx, x): return 2 * x
    ...     @staticmethod
    ...     def backward(ctx, error): return 2 * error
    >>> class Twice(nn.Module):
    ...     def forward(self, x): return Own.apply(x)
    >>> net, x = nn.Sequential(nn.Tanh(), Twice()), torch.ones(1)
    >>> str(forward_mode_refusal(net, lambda: torch.func.jvp(net, (x,), (x,)), x))[:39]
    "part '1' (Twice) has no forward-mode de"
    """
    with torch.no_grad():
        model(*inputs)
    at_work: list[str] = []
    found: list[str] = []
    handles = []
    for name, module in model.named_modules():

        def enter(module: nn.Module, given: Any, name: str = name) -> None:
            at_work.append(name)

        def leave(module: nn.Module, given: Any, output: Any) -> None:
            at_work.pop()

        handles += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
    try:
        derivative()
    except (NotImplementedError, RuntimeError):
        found = at_work[-1:]
    finally:
        for handle in handles:
            handle.remove()
    name = found[0] if found else ""
    kind = type(model.get_submodule(name)).__name__
    return IncompatibleError(
        f"{f'part {name!r}' if name else 'the model'} ({kind}) has no forward-mode derivative, as what brings a "
        "backward pass of its own has none; leave it out, or put another in its place"
    )
