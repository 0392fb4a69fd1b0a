"""Masks made of whole blocks: where the blocks are, and in which order their values are stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from jaxtyping import Bool, Int

_SIZES = (32, 16)  # rows and columns of a block; larger blocks are made of these


class BlockPattern(NamedTuple):
    """Which blocks of a matrix are kept, in the order in which their values are stored.

    The matrix is cut into squares of `size` rows and columns; the last ones may be shorter. Blocks lie block row by
    block row, in each from left to right; the entries of a block column by column. All tensors are int32.
    """

    pointers: Int[Tensor, " block_rows_1"]  # first block of each block row, and the end
    columns: Int[Tensor, " blocks"]  # block column of each block
    pointers_t: Int[Tensor, " block_columns_1"]  # the same for the transposed matrix ...
    columns_t: Int[Tensor, " blocks"]
    order: Int[Tensor, " blocks"]  # ... whose k-th block is block order[k]
    starts: Int[Tensor, " blocks"]  # first entry of each block
    rows: int
    features: int
    size: int
    kept: int  # entries in all blocks


def find_blocks(mask: Bool[Tensor, "rows columns"]) -> BlockPattern | None:
    """The pattern of a mask that keeps or prunes whole blocks, of the largest size that fits; else None.

    >>> mask = torch.zeros(32, 48, dtype=torch.bool)
    >>> mask[:16, 16:32] = True
    >>> find_blocks(mask).size
    16
    """
    rows, features = mask.shape
    for size in _SIZES:
        if min(rows, features) < size:
            continue
        padded = functional.pad(mask, (0, -features % size, 0, -rows % size))
        grid = padded.unflatten(1, (-1, size)).unflatten(0, (-1, size)).sum((1, 3))
        heights, widths = _lengths(rows, size, mask.device), _lengths(features, size, mask.device)
        if ((grid == 0) | (grid == heights[:, None] * widths)).all():
            return _pattern(grid, rows, features, size)
    return None


def _pattern(grid: Tensor, rows: int, features: int, size: int) -> BlockPattern:
    """The pattern with the numbers of entries in every block of the grid."""
    i, j = grid.nonzero().unbind(1)
    order = (j * len(grid) + i).argsort()
    ends = grid[i, j].cumsum(0)
    return BlockPattern(
        _ends(i, grid.shape[0]),
        j.int(),
        _ends(j, grid.shape[1]),
        i[order].int(),
        order.int(),
        (ends - grid[i, j]).int(),
        rows,
        features,
        size,
        int(grid.sum()),
    )


def _ends(lines: Tensor, count: int) -> Tensor:
    """Where the blocks of each line begin, and the end of all."""
    return functional.pad(torch.bincount(lines, minlength=count).cumsum(0), (1, 0)).int()


def _lengths(total: int, size: int, device: torch.device) -> Tensor:
    """Rows in each block row, or columns in each block column."""
    return (total - torch.arange(0, total, size, device=device)).clamp_max(size)


def block_entries(pattern: BlockPattern) -> tuple[Int[Tensor, " entries"], Int[Tensor, " entries"]]:
    """Row and column of every entry, in the order in which their values are stored.

    >>> mask = torch.zeros(16, 17, dtype=torch.bool)
    >>> mask[:, 16] = True
    >>> [index.tolist()[-3:] for index in block_entries(find_blocks(mask))]
    [[13, 14, 15], [16, 16, 16]]
    """
    size, device = pattern.size, pattern.columns.device
    line = torch.arange(len(pattern.pointers) - 1, device=device).repeat_interleave(pattern.pointers.diff())
    height = _lengths(pattern.rows, size, device)[line]
    numbers = height * _lengths(pattern.features, size, device)[pattern.columns]
    block = torch.arange(len(line), device=device).repeat_interleave(numbers)
    inside = torch.arange(pattern.kept, device=device) - pattern.starts[block]
    return (
        line[block] * size + inside % height[block],
        pattern.columns[block] * size + inside // height[block],
    )
