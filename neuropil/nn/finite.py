"""Refusing NaN and infinity where data enters a model."""

from __future__ import annotations

import torch
from torch import Tensor

from neuropil.errors import NonFiniteError
from neuropil.kernels.finite import nonfinite


def check_finite(x: Tensor, where: str) -> None:
    """Raise NonFiniteError in one line when `x` holds NaN or infinity.

    One read of `x` and nothing written. Nothing is checked inside `torch.compile` and `torch.func`, which cannot
    branch on values, nor on devices other than the CPU, whose answer would have to be waited for.
    """
    if torch.compiler.is_compiling() or x.device.type != "cpu" or not x.is_floating_point():
        return
    if torch._C._functorch.is_functorch_wrapped_tensor(x):
        return
    if bad := nonfinite(x):
        raise NonFiniteError(
            f"{where}: {bad} of {x.numel()} values are NaN or infinite, expected finite numbers"
        )
