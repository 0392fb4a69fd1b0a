"""What is done to the inputs of a whole batch when it is gathered; each part can be pickled."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from jaxtyping import Float, Int64, Shaped

Transform = Callable[[Tensor], Tensor]  # inputs of a batch, [batch, ...], to inputs of a batch


@dataclass(frozen=True)
class Normalize:
    """Bytes scaled to [0, 1], then `(x - mean) / std`; floating point inputs are not scaled.

    >>> Normalize(0.5, 0.25)(torch.tensor([[0, 255]], dtype=torch.uint8))
    tensor([[-2.,  2.]])
    """

    mean: float = 0.0
    std: float = 1.0

    def __call__(self, x: Shaped[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
        """Inputs `[batch, ...]`, normalised."""
        scale = 255.0 if x.dtype == torch.uint8 else 1.0
        x = x if x.is_floating_point() else x.float()
        return x.mul(1.0 / (scale * self.std)).sub_(self.mean / self.std)


@dataclass(frozen=True, eq=False)
class Permute:
    """The same reordering of the elements of every item.

    >>> Permute(torch.tensor([1, 0, 2, 3]))(torch.tensor([[[10, 11], [12, 13]]]))
    tensor([[[11, 10],
             [12, 13]]])
    """

    order: Int64[Tensor, " elements"]  # element `order[i]` of an item goes to place i

    def __call__(self, x: Shaped[Tensor, "batch ..."]) -> Shaped[Tensor, "batch ..."]:
        """Inputs `[batch, ...]`, each item reordered."""
        return x.flatten(1).index_select(1, self.order).reshape(x.shape)


@dataclass(frozen=True)
class Rotate:
    """Images turned counterclockwise by `degrees` about their centre, bilinearly; what enters is black.

    >>> Rotate(90)(torch.tensor([[[0.0, 1.0], [0.0, 0.0]]])).round().abs()
    tensor([[[1., 0.],
             [0., 0.]]])
    """

    degrees: float

    def __call__(self, x: Shaped[Tensor, "batch height width"]) -> Float[Tensor, "batch height width"]:
        """Inputs `[batch, height, width]`, each turned, in floating point."""
        x = x if x.is_floating_point() else x.float().div_(255.0)
        if self.degrees % 360 == 0:
            return x
        height, width = x.shape[1:]
        cos, sin = math.cos(math.radians(self.degrees)), math.sin(math.radians(self.degrees))
        # affine_grid works in coordinates scaled by half the width and height.
        affine = torch.tensor(
            [[cos, -sin * height / width, 0.0], [sin * width / height, cos, 0.0]], dtype=x.dtype
        )
        grid = functional.affine_grid(affine[None], [1, 1, height, width], align_corners=False)
        # The batch plays the channels: one grid serves all of it.
        return functional.grid_sample(x[None], grid, mode="bilinear", align_corners=False)[0]


@dataclass(frozen=True)
class Reshape:
    """Items brought into `shape`."""

    shape: tuple[int, ...]

    def __call__(self, x: Shaped[Tensor, "batch ..."]) -> Shaped[Tensor, "batch ..."]:
        """Inputs `[batch, *shape]`."""
        return x.reshape(-1, *self.shape)


@dataclass(frozen=True)
class Compose:
    """Transforms one after the other."""

    transforms: tuple[Transform, ...]

    def __call__(self, x: Tensor) -> Tensor:
        """Inputs after all transforms."""
        for transform in self.transforms:
            x = transform(x)
        return x
