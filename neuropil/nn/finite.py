"""Refusing NaN and infinity where data enters a model."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from neuropil.errors import NonFiniteError


def check_finite(x: Tensor, where: str) -> None:
    """Raise NonFiniteError in one line when `x` holds NaN or infinity.

    One read of `x` and nothing written: a sum is finite only if its terms are, and a sum that overflows is
    looked at again. Nothing is checked inside `torch.compile` and `torch.func`, which cannot branch on values,
    nor on devices other than the CPU, whose answer would have to be waited for.
    """
    if torch.compiler.is_compiling() or x.device.type != "cpu" or not x.is_floating_point():
        return
    if torch._C._functorch.is_functorch_wrapped_tensor(x):
        return
    x = x.detach()
    if not math.isfinite(x.sum().item()) and not bool(x.isfinite().all()):
        bad = int(x.numel() - x.isfinite().sum())
        raise NonFiniteError(
            f"{where}: {bad} of {x.numel()} values are NaN or infinite, expected finite numbers"
        )
