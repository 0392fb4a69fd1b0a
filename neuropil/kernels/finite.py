"""Whether numbers are finite: asked of many tensors in one pass over memory, and of a neuron's last membrane."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NoReturn

import numpy as np
import torch
from torch import Tensor

from neuropil.errors import NonFiniteError
from neuropil.kernels.addresses import addresses
from neuropil.kernels.compiled import run_over, serves
from neuropil.kernels.finite_compiled import count_nonfinite, look_for_nonfinite
from neuropil.kernels.lanes import array

_LARGE = 1 << 18  # numbers from which torch's sum, on all threads, is faster than one thread of ours


def all_finite(tensors: Sequence[Tensor]) -> bool:
    """Whether no number of any of the tensors is NaN or infinite.

    >>> all_finite([torch.zeros(3), torch.ones(2, 2)]), all_finite([torch.zeros(3), torch.tensor([torch.nan])])
    (True, False)
    """
    rows = addresses(tensors)
    if rows is None:
        return _all_finite(tensors)
    count = int(rows[-1, -1])
    found = np.zeros(1, dtype=np.float32 if tensors[0].dtype == torch.float32 else np.float64)
    run_over(look_for_nonfinite, count, count, rows, found)
    return not found[0]


def nonfinite(x: Tensor) -> int:
    """How many numbers of a tensor are NaN or infinite, in one pass where there are none.

    >>> nonfinite(torch.tensor([1.0, torch.nan, -torch.inf]))
    2
    """
    readable = x.layout is torch.strided and not torch._C._are_functorch_transforms_active()
    if x.numel() < _LARGE and readable and serves(x):
        return int(count_nonfinite(array(x).reshape(-1)))
    x = x.detach()
    # a sum is finite only if its terms are; one that overflows is looked at again
    if math.isfinite(x.sum().item()):
        return 0
    return int(x.numel() - x.isfinite().sum())


def check_membrane(owner: str, membrane: Tensor) -> None:
    """Raise NonFiniteError for a last membrane that is NaN or infinite, on the CPU and outside graphs.

    NaN and infinity never leave a membrane, so its last value answers for the whole sequence. On other devices
    the answer would have to be waited for, and a compiled graph cannot branch on it.

    >>> check_membrane("LIF", torch.zeros(1))
    """
    if membrane.is_cpu and not torch.compiler.is_compiling() and nonfinite(membrane):
        refuse_nonfinite(owner)


def refuse_nonfinite(owner: str) -> NoReturn:
    """Raise the NonFiniteError of a membrane that is NaN or infinite."""
    raise NonFiniteError(f"{owner}: membrane is NaN or infinite; look at the input")


def _all_finite(tensors: Sequence[Tensor]) -> bool:
    """The same in plain torch: a norm is finite only if its terms are, and one that overflows is looked at again."""
    if not tensors:
        return True
    dense = [
        tensor.coalesce().values() if tensor.layout == torch.sparse_coo else tensor for tensor in tensors
    ]
    norms = torch._foreach_norm(dense)
    if torch.stack([norm.to(norms[0]) for norm in norms]).isfinite().all():
        return True
    return all(bool(tensor.isfinite().all()) for tensor in dense)
