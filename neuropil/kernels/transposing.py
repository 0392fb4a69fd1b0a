"""Transposing a matrix a register-wide tile at a time, which is several times as fast as copying a strided view."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from neuropil.kernels.compiled import kernel, run_over, serves
from neuropil.kernels.lanes import array
from neuropil.kernels.vector import transpose

if TYPE_CHECKING:
    from jaxtyping import Float


def transposed(matrix: Float[Tensor, "rows columns"]) -> Float[Tensor, "columns rows"]:
    """The transpose as a contiguous tensor of its own; no gradient.

    >>> import torch
    >>> transposed(torch.arange(6.0).view(2, 3)).tolist()
    [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]
    """
    if not serves(matrix) or matrix.numel() == 0:
        return matrix.detach().mT.contiguous()
    rows, columns = matrix.shape
    out = matrix.new_empty(columns, rows)
    run_over(transpose_columns, columns, matrix.numel(), array(matrix), out.numpy(), grain=16)
    return out


@kernel
def transpose_columns(start: int, stop: int, source: Any, target: Any) -> None:
    """Columns `start` to `stop` of `source` to the rows of `target`."""
    rows, columns = source.shape
    tile = 64 // source.itemsize
    flat, out = source.reshape(-1), target.reshape(-1)
    for column in range(start, stop, tile):
        for row in range(0, rows, tile):
            if row + tile <= rows and column + tile <= stop:
                transpose(flat, row * columns + column, columns, out, column * rows + row, rows)
            else:
                for i in range(column, min(column + tile, stop)):
                    for j in range(row, min(row + tile, rows)):
                        target[i, j] = source[j, i]
