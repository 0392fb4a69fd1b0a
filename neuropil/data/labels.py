"""Which labels samples carry."""

from __future__ import annotations

import torch
from torch.utils.data import ConcatDataset, TensorDataset

from neuropil.data.arrays import Arrays
from neuropil.data.batching import batches
from neuropil.data.task import Samples


def labels_in(samples: Samples) -> tuple[int, ...]:
    """Labels that occur in `samples`, in order; data sets that are not in memory are read through once.

    >>> labels_in(Arrays([[0.0], [1.0], [2.0]], [3, 1, 3]))
    (1, 3)
    """
    if isinstance(samples, ConcatDataset):
        return tuple(sorted({label for part in samples.datasets for label in labels_in(part)}))
    if isinstance(samples, Arrays):
        found = samples.labels()
    elif isinstance(samples, TensorDataset) and len(samples.tensors) == 2:
        found = samples.tensors[1]
    else:
        found = torch.cat([batch.targets for batch in batches(samples, 1024, shuffle=False)])
    return tuple(int(label) for label in found.unique())
