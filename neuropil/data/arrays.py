"""Samples in arrays that many tasks share without copies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset

from neuropil.data.transforms import Normalize, Transform
from neuropil.errors import DataError

if TYPE_CHECKING:
    from jaxtyping import Int64, Shaped


class Arrays(Dataset[tuple[Tensor, Tensor]]):
    """Inputs and targets held in memory as they are, transformed a batch at a time when they are gathered.

    `inputs` is `[n, ...]`, bytes or any other type, `targets` is `[n, ...]`, both an array, tensor or list.
    `transform` gets the inputs of a batch, `[batch, ...]`; without one, bytes are scaled to [0, 1] in float32
    and everything else is left alone. `indices` restricts the samples to some rows; subsets share the arrays.

    Raises DataError when the lengths differ or a row is out of range.

    >>> samples = Arrays(torch.tensor([[0], [255]], dtype=torch.uint8), [3, 4])
    >>> samples.gather([1, 0])
    (tensor([[1.],
            [0.]]), tensor([4, 3]))
    """

    def __init__(
        self,
        inputs: Any,
        targets: Any,
        transform: Transform | None = None,
        indices: Int64[Tensor, " rows"] | None = None,
    ) -> None:
        self.inputs = inputs if isinstance(inputs, Tensor) else torch.as_tensor(np.asarray(inputs))
        self.targets = targets if isinstance(targets, Tensor) else torch.as_tensor(np.asarray(targets))
        self.transform = transform
        n = len(self.inputs)
        if len(self.targets) != n:
            raise DataError(
                f"Arrays: {n} inputs but {len(self.targets)} targets; expected one target for each input"
            )
        self.indices = torch.arange(n) if indices is None else indices
        if len(self.indices) and not 0 <= int(self.indices.min()) <= int(self.indices.max()) < n:
            raise DataError(f"Arrays: an index lies outside the {n} samples; expected 0 to {n - 1}")

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        inputs, targets = self.gather([index])
        return inputs[0], targets[0]

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
        """Samples at several positions, as `DataLoader` asks for them."""
        inputs, targets = self.gather(indices)
        return list(zip(inputs, targets, strict=True))

    def gather(
        self, indices: Int64[Tensor, " batch"] | Sequence[int]
    ) -> tuple[Shaped[Tensor, "batch ..."], Shaped[Tensor, " batch ..."]]:
        """Transformed inputs and targets at several positions, as one batch."""
        rows = self.indices[torch.as_tensor(indices, dtype=torch.int64)]
        inputs = self.inputs.index_select(0, rows)
        if self.transform is not None:
            inputs = self.transform(inputs)
        elif inputs.dtype == torch.uint8:
            inputs = Normalize()(inputs)
        return inputs, self.targets.index_select(0, rows)

    def subset(self, indices: Int64[Tensor, " rows"] | Sequence[int]) -> Arrays:
        """The samples at some positions, sharing the arrays."""
        rows = self.indices[torch.as_tensor(indices, dtype=torch.int64)]
        return Arrays(self.inputs, self.targets, self.transform, rows)

    def labels(self) -> Shaped[Tensor, " rows ..."]:
        """Targets of all samples, without touching the inputs."""
        return self.targets.index_select(0, self.indices)


class InOrder(Subset[Any]):
    """Samples at some positions of a data set, in an order that means something: `batches` never shuffles them.

    >>> stretch = InOrder(Arrays(torch.eye(3), [0, 1, 2]), [2, 0, 1])
    >>> int(stretch[0][1]), len(stretch)
    (2, 3)
    """
