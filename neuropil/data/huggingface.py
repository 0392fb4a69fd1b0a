"""Hugging Face datasets as samples to learn from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from neuropil.data.transforms import Normalize, Transform
from neuropil.errors import DataError, nearest

if TYPE_CHECKING:
    from jaxtyping import Int64, Shaped


def from_huggingface(
    dataset: Any, input: str = "image", target: str = "label", transform: Transform | None = None
) -> HuggingFaceRows:
    """Two columns of a Hugging Face dataset (one split) as pairs, read when they are asked for.

    Images become `[channels, height, width]`, greyscale ones with one channel; numbers and lists of numbers keep
    their shape. `transform` gets the inputs of a batch; without one, bytes are scaled to [0, 1] in float32.

    Raises DataError when a column is missing or the items of a batch differ in shape.

    >>> import numpy as np
    >>> class Two(list):
    ...     column_names = ["image", "label"]
    >>> rows = Two({"image": np.zeros((8, 8), np.uint8), "label": i} for i in range(2))
    >>> from_huggingface(rows)[1][0].shape
    torch.Size([1, 8, 8])
    """
    columns = getattr(dataset, "column_names", None)
    if isinstance(columns, dict):
        raise DataError(f"this is a dictionary of splits; give one of them: {', '.join(map(str, columns))}")
    for column in (input, target):
        if columns is not None and column not in columns:
            raise DataError(f"the dataset has no column {column!r}{nearest(column, columns)}")
    return HuggingFaceRows(dataset, input, target, transform)


class HuggingFaceRows(Dataset[tuple[Tensor, Tensor]]):
    """Pairs read from two columns of a Hugging Face dataset; `from_huggingface` makes them.

    >>> len(HuggingFaceRows([{"x": 1.0, "y": 0}], "x", "y"))
    1
    """

    def __init__(self, dataset: Any, input: str, target: str, transform: Transform | None = None) -> None:
        self.dataset, self.input, self.target, self.transform = dataset, input, target, transform

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        inputs, targets = self.gather([index])
        return inputs[0], targets[0]

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
        """Samples at several positions, as `DataLoader` asks for them."""
        return list(zip(*self.gather(indices), strict=True))

    def gather(
        self, indices: Int64[Tensor, " batch"] | Sequence[int]
    ) -> tuple[Shaped[Tensor, "batch ..."], Shaped[Tensor, " batch"]]:
        """Transformed inputs and targets at several positions, as one batch."""
        rows = [self.dataset[int(index)] for index in indices]
        try:
            inputs = torch.stack([_as_tensor(row[self.input]) for row in rows])
            targets = torch.tensor([row[self.target] for row in rows])
        except (TypeError, ValueError, RuntimeError) as error:
            raise DataError(
                f"columns {self.input!r} and {self.target!r} do not make a batch ({str(error).splitlines()[0]}); "
                "expected images or numbers of one shape, and numbers"
            ) from error
        if self.transform is not None:
            return self.transform(inputs), targets
        return (Normalize()(inputs) if inputs.dtype == torch.uint8 else inputs), targets


def _as_tensor(value: Any) -> Tensor:
    """Tensor of one item: images channels first, other numbers as they are, doubles in single precision."""
    if isinstance(value, Tensor):
        return value
    array = np.asarray(value)
    if array.dtype == np.uint8 and array.ndim in (2, 3):
        array = array[None] if array.ndim == 2 else np.moveaxis(array, -1, 0)
    tensor = torch.from_numpy(np.array(array))
    return tensor.float() if tensor.dtype == torch.float64 else tensor
