"""TIES: merging task vectors after trimming what is small and settling disagreements of sign.

Yadav, Tam, Choshen, Raffel, Bansal: TIES-Merging: Resolving Interference When Merging Models. NeurIPS 2023.
arXiv:2306.01708
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from neuropil.editing.tangent_arithmetic import TaskVector
from neuropil.errors import ConfigError


def ties_merge(vectors: Sequence[TaskVector], density: float = 0.2) -> TaskVector:
    """One task vector of several: the mean, weight by weight, of the values that agree with the stronger sign.

    Of each vector only the share `density` of its largest values counts, over all its parameters together. The sign of
    a weight is that of the sum of what is left; values of the other sign are left out of the mean.

    Raises ConfigError for no vectors or a density outside (0, 1].

    >>> a, b = (TaskVector({"w": torch.tensor(v)}) for v in ([3.0, -1.0, 0.1], [1.0, 2.0, 0.1]))
    >>> ties_merge([a, b], density=0.67).tensors["w"]
    tensor([2., 2., 0.])
    """
    if not vectors:
        raise ConfigError("ties_merge: no vectors are given, expected at least one")
    if not 0 < density <= 1:
        raise ConfigError(f"ties_merge: density is {density}, expected more than 0 and at most 1")
    trimmed = [_trimmed(vector, density) for vector in vectors]
    merged: dict[str, Tensor] = {}
    for name in dict.fromkeys(name for vector in trimmed for name in vector):
        values = torch.stack([vector[name] for vector in trimmed if name in vector])
        agrees = (values * values.sum(0).sign()) > 0
        merged[name] = (values * agrees).sum(0) / agrees.sum(0).clamp_min(1)
    return TaskVector(merged)


def _trimmed(vector: TaskVector, density: float) -> dict[str, Tensor]:
    sizes = torch.cat([value.abs().flatten() for value in vector.tensors.values()])
    dropped = len(sizes) - max(1, round(density * len(sizes)))
    limit = sizes.kthvalue(dropped).values if dropped else sizes.new_tensor(-1.0)
    return {name: value * (value.abs() > limit) for name, value in vector.tensors.items()}
