"""A linear map that keeps few of its weights, and costs what it keeps, forward and backward.

With weights `w_k` at row `i_k` and column `j_k`, `y[b, i] = sum over k with i_k = i of w_k * x[b, j_k]`. Its gradients
are the transposed product, `grad x[b, j] = sum over k with j_k = j of w_k * grad y[b, i_k]`, and the dense product
`(grad y)^T x` sampled where a weight is, `grad w_k = sum over b of grad y[b, i_k] * x[b, j_k]`.

A mask that keeps or prunes whole blocks of 32 by 32 or 16 by 16 weights is recognised, and multiplied block by block.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from neuropil.errors import DataError, ShapeError
from neuropil.kernels.compiled import serves
from neuropil.kernels.sparse_block_dense import blocks_from_dense, blocks_to_dense
from neuropil.kernels.sparse_block_op import block_sparse, run_block_sparse, run_block_sparse_backward
from neuropil.kernels.sparse_blocks import BlockPattern, block_entries, find_blocks
from neuropil.kernels.sparse_dense import from_dense, to_dense
from neuropil.kernels.sparse_op import NARROWEST, chunk_rows, run_sparse, run_sparse_backward, sparse
from neuropil.kernels.sparse_product import product

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

# Density from which a dense product, by way of the dense matrix, is faster than a sparse one, measured at 2048 x 2048
# and 512 x 512 with up to 64 samples (6.3 ms against 9.8 ms at one half of the larger), at 1024 x 1024 with 256.
_DENSE_FROM, _FEW_SAMPLES, _DENSE_FROM_FOR_FEW = 0.5, 64, 0.75
# The same for whole blocks, measured at 1024 x 1024 and 512 x 768. With fewer samples the blocks are faster even where
# all are kept (2048 x 2048, 64 samples: 3.3 ms against 7.7 ms at one half, 6.3 ms against 9 ms at all).
_DENSE_FROM_BLOCKS, _MANY_SAMPLES = 0.75, 512
# Entries of a row in a panel that make its panel worth a visit, and the columns of a panel of which 64 samples stay in
# a cache beside all else: wider ones cost more than visits (0.62 ms against 0.50 ms with 2048 and one of 100 kept).
_RUN, _WIDEST = 24, 512
_MOST_INT16 = 32767


class SparsePattern(NamedTuple):
    """Which entries of a matrix are kept, in the order in which their values are stored.

    Entries lie panel by panel (a panel is a range of neighbouring columns), in each panel by chunks of 64 rows, or of
    256 where there are 1024 or more, in a chunk row by row, those with few entries first, in each row from left to
    right. Indices of rows and columns are int16 where that is enough, all else is int32.
    """

    pointers: Int[Tensor, " panels_x_rows_1"]  # first entry of each line, a row in a panel, and the end
    lines: Int[Tensor, " panels_x_rows"]  # the row of each line
    columns: Int[Tensor, " entries"]
    pointers_t: Int[Tensor, " panels_x_columns_1"]  # the same for the transposed matrix ...
    lines_t: Int[Tensor, " panels_x_columns"]
    columns_t: Int[Tensor, " entries"]
    order: Int[Tensor, " entries"]  # ... whose k-th entry is entry order[k]
    rows: int
    features: int

    @property
    def kept(self) -> int:
        """Number of entries."""
        return self.columns.shape[0]


def sparse_pattern(mask: Bool[Tensor, "rows columns"]) -> SparsePattern | BlockPattern:
    """The pattern of what `mask` keeps: of blocks where it is made of them, else of entries.

    See `BlockPattern` and `SparsePattern` for the order of values.

    Raises ShapeError unless the mask has two axes, DataError when it is not boolean.

    >>> sparse_pattern(torch.tensor([[True, False], [True, True]])).columns.tolist()
    [0, 0, 1]
    """
    if mask.dim() != 2:
        raise ShapeError(f"sparse_pattern: mask has shape {list(mask.shape)}, expected [rows, columns]")
    if mask.dtype != torch.bool:
        raise DataError(f"sparse_pattern: mask is {mask.dtype}, expected torch.bool (mask != 0)")
    blocks = find_blocks(mask)
    return entry_pattern(mask) if blocks is None else blocks


def entry_pattern(mask: Bool[Tensor, "rows columns"]) -> SparsePattern:
    """The pattern of the entries that `mask` keeps, whether it is made of blocks or not.

    >>> len(entry_pattern(torch.ones(32, 32, dtype=torch.bool)).columns)
    1024
    """
    rows, features = mask.shape
    at = mask.nonzero()
    pointers, lines, order = _panels(at[:, 0], at[:, 1], rows, features)
    at = at[order]
    pointers_t, lines_t, order_t = _panels(at[:, 1], at[:, 0], features, rows)
    short = torch.int16 if max(rows, features) <= _MOST_INT16 else torch.int32
    return SparsePattern(
        pointers.int(),
        lines.to(short),
        at[:, 1].to(short),
        pointers_t.int(),
        lines_t.to(short),
        at[order_t, 0].to(short),
        order_t.int(),
        rows,
        features,
    )


def _panels(i: Tensor, j: Tensor, rows: int, features: int) -> tuple[Tensor, Tensor, Tensor]:
    """Where the lines of all panels of a matrix with entries `(i, j)` begin, their rows, and the order of entries."""
    density = i.numel() / max(1, rows * features)
    size = NARROWEST
    while size < min(features, _WIDEST) and size * density < _RUN:
        size *= 2
    panels = -(-features // size)
    line = j // size * rows + i
    counts = torch.bincount(line, minlength=panels * rows)
    row = torch.arange(rows, device=i.device).repeat(panels)
    chunk = torch.arange(panels, device=i.device).repeat_interleave(rows) * rows + row // chunk_rows(rows)
    sorted_lines = (chunk * (size + 1) + counts).argsort(stable=True)
    place = torch.empty_like(sorted_lines)
    place[sorted_lines] = torch.arange(len(place), device=i.device)
    pointers = functional.pad(counts[sorted_lines].cumsum(0), (1, 0))
    return pointers, row[sorted_lines], (place[line] * features + j).argsort()


def entries(
    pattern: SparsePattern | BlockPattern,
) -> tuple[Int[Tensor, " entries"], Int[Tensor, " entries"]]:
    """Row and column of every entry, in the order in which their values are stored.

    >>> pattern = sparse_pattern(torch.tensor([[True, False], [True, True]]))
    >>> [index.tolist() for index in entries(pattern)]
    [[0, 1, 1], [0, 0, 1]]
    """
    if isinstance(pattern, BlockPattern):
        return block_entries(pattern)
    return pattern.lines.long().repeat_interleave(pattern.pointers.diff()), pattern.columns.long()


def earlier_entries(
    pointers: Int[Tensor, " panels_x_rows_1"], columns: Int[Tensor, " entries"], rows: int
) -> tuple[Int[Tensor, " entries"], Int[Tensor, " entries"]]:
    """Row and column of every entry of a pattern as it was before chunks: in each panel row by row from the first on.

    >>> index = earlier_entries(torch.tensor([0, 1, 3, 3, 4]), torch.tensor([5, 2, 6, 70]), rows=2)
    >>> [found.tolist() for found in index]
    [[0, 1, 1, 1], [5, 2, 6, 70]]
    """
    row = torch.arange(len(pointers) - 1, device=pointers.device) % max(1, rows)
    return row.repeat_interleave(pointers.diff()), columns.long()


def sparse_values(
    weight: Float[Tensor, "rows columns"], pattern: SparsePattern | BlockPattern
) -> Float[Tensor, " entries"]:
    """The entries of `weight` that the pattern keeps; the inverse of `dense_weight`.

    >>> sparse_values(torch.tensor([[5.0, 6.0]]), sparse_pattern(torch.tensor([[False, True]])))
    tensor([6.])
    """
    if not serves(weight):
        return weight[entries(pattern)]
    if isinstance(pattern, BlockPattern):
        values: Tensor = blocks_from_dense(weight, *_blocks(pattern))
    else:
        values = from_dense(weight, *pattern[:3])
    return values


def dense_weight(
    values: Float[Tensor, " entries"], pattern: SparsePattern | BlockPattern
) -> Float[Tensor, "rows columns"]:
    """The matrix `[rows, columns]` with `values` where the pattern keeps an entry, and zeros elsewhere.

    >>> dense_weight(torch.tensor([6.0]), sparse_pattern(torch.tensor([[False, True]])))
    tensor([[0., 6.]])
    """
    if not serves(values):
        return values.new_zeros(pattern.rows, pattern.features).index_put(entries(pattern), values)
    if isinstance(pattern, BlockPattern):
        weight: Tensor = blocks_to_dense(values, *_blocks(pattern))
    else:
        weight = to_dense(values, pattern.rows, pattern.features, *pattern[:3])
    return weight


def _blocks(pattern: BlockPattern) -> tuple[Tensor, Tensor, Tensor, int, int, int, int]:
    return pattern.pointers, pattern.columns, pattern.starts, *pattern[-4:]


def sparse_linear(
    x: Float[Tensor, "... features"], values: Float[Tensor, " entries"], pattern: SparsePattern | BlockPattern
) -> Float[Tensor, "... rows"]:
    """`x W^T` for the sparse matrix `W [rows, features]` with `values` where `pattern` keeps an entry.

    Differentiable in `x` and `values`. Dense where that is faster: from half of the entries on, with few samples
    or blocks from three quarters on. Raises ShapeError when the arguments do not fit together.

    >>> pattern = sparse_pattern(torch.tensor([[True, False], [True, True]]))
    >>> sparse_linear(torch.tensor([[1.0, 10.0]]), torch.tensor([2.0, 3.0, 4.0]), pattern)
    tensor([[ 2., 43.]])
    """
    features, rows, kept = pattern.features, pattern.rows, pattern.kept
    if x.dim() < 1 or x.shape[-1] != features:
        raise ShapeError(f"sparse_linear: x has shape {list(x.shape)}, expected [..., {features}]")
    if values.shape != (kept,) or values.dtype != x.dtype:
        raise ShapeError(
            f"sparse_linear: values are {values.dtype} of shape {list(values.shape)}, "
            f"expected {x.dtype} of shape [{kept}]"
        )
    if x.numel() == 0 or _dense_is_faster(pattern, kept, x.numel() // features) or not serves(x, values):
        return sparse_linear_reference(x, values, pattern)
    samples = x if x.dim() == 2 else x.reshape(-1, features)
    if isinstance(pattern, BlockPattern):
        y = product(samples, values, pattern[:-1], block_sparse, run_block_sparse, run_block_sparse_backward)
    else:
        y = product(samples, values, pattern, sparse, run_sparse, run_sparse_backward)
    return y if x.dim() == 2 else y.view(*x.shape[:-1], rows)


def _dense_is_faster(pattern: SparsePattern | BlockPattern, kept: int, samples: int) -> bool:
    """Whether writing the dense matrix and multiplying by it takes less time."""
    size = pattern.rows * pattern.features
    if isinstance(pattern, BlockPattern):
        return samples >= _MANY_SAMPLES and kept >= _DENSE_FROM_BLOCKS * size
    return kept >= (_DENSE_FROM_FOR_FEW if samples <= _FEW_SAMPLES else _DENSE_FROM) * size


def sparse_linear_reference(
    x: Float[Tensor, "... features"], values: Float[Tensor, " entries"], pattern: SparsePattern | BlockPattern
) -> Float[Tensor, "... rows"]:
    """`sparse_linear` in plain torch, by way of the dense matrix: the definition the kernel is held against.

    >>> pattern = sparse_pattern(torch.tensor([[False, True]]))
    >>> sparse_linear_reference(torch.tensor([1.0, 10.0]), torch.tensor([2.0]), pattern)
    tensor([20.])
    """
    return functional.linear(x, dense_weight(values, pattern))
